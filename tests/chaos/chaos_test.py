"""A short run of chaos.py, and that its plan is what its seed says. The long run is a command: see tests/README.md."""

import collections
import contextlib
import io
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import chaos  # noqa: E402
import harness  # noqa: E402
from plan import KINDS, plan  # noqa: E402

SEED, SECONDS, CLIENTS = 5, 20.0, 4


class Plan(unittest.TestCase):
    def test_a_seed_is_a_plan_and_another_seed_is_another_plan(self):
        self.assertEqual(plan(7, 60, 4), plan(7, 60, 4))
        self.assertNotEqual(plan(7, 60, 4), plan(8, 60, 4))

    def test_even_a_short_run_has_every_kind_of_trouble_and_each_within_its_time(self):
        for seed in range(50):
            faults = plan(seed, SECONDS, 4)
            self.assertEqual({fault.kind for fault in faults}, set(KINDS), seed)
            self.assertEqual([fault.at for fault in faults], sorted(fault.at for fault in faults))
            self.assertTrue(all(0 <= fault.at < SECONDS and 0 <= fault.module < 4 for fault in faults), seed)

    def test_a_long_run_has_as_much_of_each_as_is_said(self):
        counts = collections.Counter(fault.kind for seed in range(20) for fault in plan(seed, 600, 4))
        for kind, (mean_s, _length) in KINDS.items():
            with self.subTest(kind):
                self.assertAlmostEqual(counts[kind] * mean_s / (20 * 540), 1, delta=0.35)


class Locks(harness.DaemonTest):
    def test_an_order_of_locks_that_might_deadlock_one_day_ends_no_module(self):
        """Abseil, as Debian builds it, looks for one at every lock, gRPC's too, and aborts unless it is told not to."""
        daemon = self.daemon(modules=["chaotic"], modules_dir=chaos.SOURCE.parent)
        worker = daemon.module("chaotic")["workers"][0]
        answer = daemon.post("/api/v1/m/chaotic/do", {"what": "lock-both-ways"})
        self.assertEqual(answer.status, 200, answer)
        self.assertEqual((answer.data["pid"], daemon.module("chaotic")["exits"]), (worker["pid"], []))


class Short(unittest.TestCase):
    def test_a_short_run_breaks_no_invariant(self):
        run = chaos.Run(SEED, SECONDS, CLIENTS).run()
        report = io.StringIO()
        with contextlib.redirect_stdout(report):
            chaos.print_report(run)
        print(report.getvalue(), file=sys.stderr, flush=True)
        self.assertEqual(run.record.broken, [])
        answered = sum(n for (_group, outcome), n in run.record.outcomes.items() if outcome == "200")
        self.assertGreater(answered, 100)
        done = {kind for (kind, outcome), _n in run.record.faults.items() if outcome.startswith(("done", "off", "answered", "kept"))}
        self.assertGreaterEqual(done, {"kill", "switch", "configure", "freeze"})
        looked_at = {invariant for invariant, n in run.record.checks.items() if n > 0}
        self.assertGreaterEqual(looked_at, {"an untouched module answers every GET", "an answer is the asked module's, to this request",
                                            "a failure is of a documented kind", "what a client was told is stored is there", "the daemon ends in order"})


if __name__ == "__main__":
    harness.main()
