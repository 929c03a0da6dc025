"""The benchmark of the gateway still runs, against our own side alone and for moments only: its figures are there, none is judged."""

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

    def test_the_table_holds_an_aim_for_every_promise(self):
        printed = {(scenario, figure) for scenario, _title, figures in gateway.SECTIONS for figure, _label in figures}
        self.assertLessEqual(set(gateway.AIMS), printed)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + ["-v"] + sys.argv[1:])
