"""The benchmark of the gateway still runs, against our own side alone and for moments only: its figures are there, none is judged."""

import contextlib
import io
import json
import pathlib
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import gateway  # noqa: E402
from harness import SLOW  # noqa: E402


class Benchmark(unittest.TestCase):
    @unittest.skipIf(SLOW > 1, "figures of a sanitized build say nothing")
    def test_one_short_round_gives_every_figure(self):
        command = [sys.executable, "-B", gateway.__file__, "--only", "bulkhead", "--rounds", "1", "--seconds", "0.1", "--idle", "50"]
        done = subprocess.run([*command, "--anyway", "--json"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        result = json.loads(done.stdout)
        counted = result["notes"]["syscalls"].startswith("counted")
        for scenario, _title, figures in gateway.SECTIONS:
            for figure, _label in figures:
                if "syscalls" in figure and not counted:
                    continue
                with self.subTest(scenario=scenario, figure=figure):
                    values = result["samples"][scenario][figure]["bulkhead"]
                    self.assertEqual(len(values), 1)
                    if figure != "kib":  # the memory of fifty connections may be there already
                        self.assertGreater(values[0], 0)
        self.check_table(result["samples"])

    def check_table(self, samples):
        """As it is printed for two systems of which the second is twice the first: each row has both values, the ratio and the verdict."""
        for figures in samples.values():
            for values in figures.values():
                values["nginx"] = [2 * value for value in values["bulkhead"]]
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            gateway.print_table(samples, ["bulkhead", "nginx"])
        lines = printed.getvalue().splitlines()
        for scenario, title, figures in gateway.SECTIONS:
            section = lines[lines.index(title) + 1:][:len(figures)]
            for (figure, label), line in zip(figures, section):
                with self.subTest(scenario=scenario, figure=figure):
                    self.assertIn(label, line)
                    of = samples[scenario].get(figure)
                    if of is None:
                        self.assertIn("not counted", line)
                        continue
                    self.assertIn(gateway.number(of["bulkhead"][0]), line)
                    if of["bulkhead"][0] > 0:
                        self.assertIn("0.50×", line)
                    aim = gateway.AIMS.get((scenario, figure))
                    missed = aim is not None and (aim > 0.5 if figure == "rate" else aim < 0.5)
                    self.assertEqual("missed" in line, missed, line)

    def test_the_table_holds_an_aim_for_every_promise(self):
        printed = {(scenario, figure) for scenario, _title, figures in gateway.SECTIONS for figure, _label in figures}
        self.assertLessEqual(set(gateway.AIMS), printed)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + ["-v"] + sys.argv[1:])
