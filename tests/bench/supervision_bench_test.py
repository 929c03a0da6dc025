"""The benchmark of the supervision still runs, without its peers and for moments only: its figures are there, none is judged."""

import json
import pathlib
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import supervision  # noqa: E402
from harness import SLOW  # noqa: E402

FIGURES = {
    "kill": {"bulkhead", "bulkhead, warmSpare", "floor: the backend alone", "floor: an empty gRPC program listens", "floor: it answers Initialize"},
    "enable": {"enable to the first 200", "floor: spawn and handshake of an empty program"},
    "boot": {"boot_ms", "per_module_ms", "all_mb", "daemon_mb", "floor_ms"},
    "idle": {"MB of a module", "MB of the supervisor", "KB of the supervisor per module", "% of a core, supervisor", "% of a core, PostgreSQL",
             "% of a core, modules"},
}
UPGRADES = 3


class Benchmark(unittest.TestCase):
    @unittest.skipIf(SLOW > 1, "figures of a sanitized build say nothing")
    def test_one_short_round_gives_every_figure(self):
        command = [sys.executable, "-B", supervision.__file__, "--rounds", "1", "--peers", "none", "--kills", "5", "--enables", "1", "--modules", "3",
                   "--upgrades", str(UPGRADES), "--idle-modules", "3", "--rest-seconds", "1", "--profile", "never", "--anyway"]
        done = subprocess.run([*command, "--json"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        result = json.loads(done.stdout)
        for part, figures in FIGURES.items():
            self.assertEqual(set(result["samples"][part]), figures)
            for figure, values in result["samples"][part].items():
                with self.subTest(part=part, figure=figure):
                    at_least_zero = figure.startswith(("%", "KB"))  # so little may not be seen in a second
                    self.assertTrue(all(value > 0 or at_least_zero for value in values), values)
        for system in ("bulkhead", "bulkhead, warmSpare"):
            self.assertEqual(len(result["samples"]["kill"][system]), 5)
        if "upgrade" in result["notes"]:  # a daemon that does not upgrade says so, and nothing is made up
            self.assertIn("does not upgrade", result["notes"]["upgrade"])
            self.assertNotIn("upgrade", result["samples"])
        else:
            self.assertEqual(len(result["samples"]["upgrade"]["upgrade_ms"]), UPGRADES)
            self.assertEqual(result["samples"]["upgrade"]["failed with"], [0])

    def test_a_line_of_the_table_judges_the_median(self):
        self.assertEqual(supervision.p95(list(range(100))), 95)
        self.assertIn("missed", supervision.line("bulkhead", [31.0, 32.0, 33.0], "ms", 30.0))
        self.assertNotIn("missed", supervision.line("bulkhead", [29.0, 30.0, 33.0], "ms", 30.0))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + ["-v"] + sys.argv[1:])
