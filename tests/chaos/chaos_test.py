"""A short run of chaos.py, and that its plan is what its seed says. The long run is a command: see tests/README.md."""

import collections
import contextlib
import io
import os
import pathlib
import signal
import subprocess
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import chaos  # noqa: E402
import harness  # noqa: E402
from clients import CUT_OFF, Clients  # noqa: E402
from faults import state  # noqa: E402
from plan import KINDS, plan  # noqa: E402
from record import Presence, Record  # noqa: E402
from watch import Watch  # noqa: E402

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


class Judgement(unittest.TestCase):
    """What breaks an invariant is seen: answers that no daemon should give, each with the invariant that it breaks."""

    JSON = '{"success":true,"data":{"module":"%s","n":"%s","body":""}}'
    ERROR = '{"success":false,"error":{"code":"%s"}}'

    def setUp(self):
        self.record, self.presence = Record(), Presence()
        self.clients = Clients(self.record, 1, 0, "127.0.0.1:1", "none", ["steady"], {"touched": self.presence})
        self.presence.set("there")

    def broken_by(self, name, status, body, headers=(), failure=None, kind="who"):
        now = time.monotonic()
        self.clients._judge(kind, name, "7", status, dict(headers), body.encode(), failure, now, now)
        return [sentence.split("s  ", 1)[1].split(": ")[0] for sentence in self.record.broken]

    def test_what_is_as_it_should_be_breaks_nothing(self):
        self.assertEqual(self.broken_by("steady", 200, self.JSON % ("steady", "7")), [])
        self.assertEqual(self.broken_by("touched", 200, self.JSON % ("touched", "7")), [])
        self.assertEqual(self.broken_by("touched", 503, self.ERROR % "MODULE_UNAVAILABLE", {"retry-after": "1"}), [])
        self.assertEqual(self.broken_by("touched", 200, "touched 7\ntouch", failure=CUT_OFF, kind="stream"), [])
        self.presence.set("away")
        self.assertEqual(self.broken_by("touched", 404, self.ERROR % "ROUTE_NOT_FOUND"), [])

    def test_an_answer_of_another_module_or_to_another_request(self):
        for body in (self.JSON % ("steady", "7"), self.JSON % ("touched", "8"), "not JSON"):
            self.record.broken.clear()
            self.assertEqual(self.broken_by("touched", 200, body), ["an answer is the asked module's, to this request"])
        self.record.broken.clear()
        self.assertEqual(self.broken_by("touched", 200, "touched 7\nsteady 7\n" * 20000, kind="stream"), ["an answer is the asked module's, to this request"])

    def test_any_failure_of_an_untouched_module(self):
        self.assertEqual(self.broken_by("steady", 503, self.ERROR % "MODULE_UNAVAILABLE", {"retry-after": "1"}), ["an untouched module answers every GET"])

    def test_failures_that_are_not_documented(self):
        for status, body, failure in ((500, self.ERROR % "INTERNAL", None), (404, self.ERROR % "ROUTE_NOT_FOUND", None), (0, "", "ConnectionResetError"),
                                      (502, "no JSON", None), (200, "", CUT_OFF)):
            self.record.broken.clear()
            self.assertEqual(self.broken_by("touched", status, body, failure=failure), ["a failure is of a documented kind"], (status, body, failure))

    def test_a_503_that_does_not_say_when_to_come_again(self):
        self.assertEqual(self.broken_by("touched", 503, self.ERROR % "MODULE_UNAVAILABLE"), ["a 503 says when to come again"])

    def test_an_answer_of_a_module_that_is_switched_off(self):
        self.presence = self.clients.shaken["touched"] = Presence()
        self.presence.set("away")
        time.sleep(0.001)
        self.assertEqual(self.broken_by("touched", 200, self.JSON % ("touched", "7")), ["of a module that is switched off nothing answers"])


    def test_a_status_that_does_not_agree_with_the_processes(self):
        def disagreements(observed, workers, pids):
            module = {"name": "touched", "observed": {"state": observed}, "workers": [{"pid": pid, "state": "RUNNING"} for pid in workers]}
            return {(what, pid) for what, _name, pid in Watch._disagreements(module, pids)}

        own = os.getpid()
        self.assertEqual(disagreements("RUNNING", [own], {own}), set())
        self.assertEqual(disagreements("RUNNING", [1], {own}), {("gone", 1)})
        self.assertEqual(disagreements("RUNNING", [], {own}), {("none", 0)})
        self.assertEqual(disagreements("STOPPED", [], {own}), {("left", own)})
        child = subprocess.Popen(["sleep", "60"])
        try:
            child.send_signal(signal.SIGSTOP)
            harness.wait_until(lambda: state(child.pid) == "T", "it is stopped")
            self.assertEqual(disagreements("RUNNING", [child.pid], {child.pid}), {("stopped", child.pid)})
        finally:
            child.kill()
            child.wait()


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
