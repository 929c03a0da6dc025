"""How a module says that it is to be watched and started again (`restart`, `health`), by real processes and signals: policies, quarantine and
reset; start-up, readiness and liveness apart; what a CPU limit is no reason for."""

import datetime
import json
import os
import re
import signal
import time
import unittest

import harness
from harness import CONVERGE_TIMEOUT_S, SLOW, DaemonTest, wait_until
from misbehaving import write_misbehaving
from modules_test import echo_like

# Whatever ends is tried again within moments, and quarantined soon.
QUICK = {"burst": 1, "window": 60_000, "backoff": {"base": 100, "cap": 100}, "quarantine": {"windows": 2, "span": 3_600_000, "retry": 3_600_000},
         "resetAfter": 60_000}
# Asked often, patient with a busy machine where it is not about patience.
WATCHED_S = 3  # in which it is asked some twenty times
WATCHED = {"interval": 100, "timeout": 5000 * SLOW}


class SupervisionTest(DaemonTest):
    def setUp(self):
        super().setUp()
        self.modules = self.temporary_folder()

    def misbehaving(self, name, mode, **manifest):
        write_misbehaving(self.modules, name, mode, manifest)

    def say(self, daemon, name, health):
        """What the module in the mode told-health answers from now on."""
        folder = daemon.data / "modules" / name
        (folder / "health.new").write_text(health + "\n")
        (folder / "health.new").chmod(0o644)
        os.replace(folder / "health.new", folder / "health")

    def wait_ready(self, daemon, name, *ready):
        """The module once its workers are ready or not, as named in their order."""
        def reached():
            module = daemon.module(name)
            return module if tuple(worker["ready"] for worker in module["workers"]) == ready else None

        return wait_until(reached, f"{name} with workers that are ready: {ready}", CONVERGE_TIMEOUT_S)

    def ended(self, daemon, name, exits=1):
        """The module once so many of its workers have ended by themselves."""
        def reached():
            module = daemon.module(name)
            return module if sum(module["exitCounts"].values()) >= exits else None

        return wait_until(reached, f"{exits} exits of {name}", CONVERGE_TIMEOUT_S)


class Restarts(SupervisionTest):
    def kill(self, daemon, name, number):
        os.kill(daemon.module(name)["workers"][0]["pid"], number)

    def test_with_never_no_end_is_answered_with_a_start_until_it_is_reset(self):
        echo_like(self.modules, "once", restart={"policy": "never"})
        daemon = self.daemon(modules=["once"], modules_dir=self.modules)
        self.kill(daemon, "once", signal.SIGKILL)
        daemon.wait_observed("once", "FAILED")
        wait_until(lambda: daemon.module("once")["workers"][0]["state"] == "FAILED", "all of it has ended")
        module = daemon.module("once")
        self.assertEqual(module["observed"]["reason"]["code"], "SIGNAL")
        self.assertIn("restart.policy is never", module["observed"]["reason"]["message"])
        self.assertEqual((module["workers"][0]["state"], module["workers"][0]["retryAt"]), ("FAILED", None))
        self.assertEqual(module["desired"]["state"], "ENABLED")
        self.assertError(daemon.get("/api/v1/m/once/echo"), 503, "MODULE_UNAVAILABLE")
        answer = daemon.post("/api/v1/modules/once/reset")
        self.assertEqual((answer.status, answer.data["observed"]["state"]), (200, "RUNNING"), answer)
        self.assertEqual(daemon.get("/api/v1/m/once/echo").status, 200)

    def test_with_on_failure_an_orderly_end_is_not_answered_and_any_other_is(self):
        for name in ("asked", "crashed"):
            echo_like(self.modules, name, restart={"policy": "on-failure"})
        self.misbehaving("leaves", "exit-0", restart={"policy": "on-failure"})
        daemon = self.daemon(modules=["asked", "crashed", "leaves"], modules_dir=self.modules)
        for name in ("asked", "leaves"):
            if name == "asked":
                self.kill(daemon, name, signal.SIGTERM)  # the SDK ends with code 0
            module = daemon.wait_observed(name, "FAILED")
            self.assertEqual(module["exitCounts"], {"EXIT": 1}, name)
            self.assertIn("restart.policy is on-failure", module["observed"]["reason"]["message"])
        before = daemon.module("crashed")["workers"][0]["pid"]
        self.kill(daemon, "crashed", signal.SIGKILL)
        wait_until(lambda: daemon.module("crashed")["workers"][0]["pid"] not in (0, before), "a successor of the crashed one")
        daemon.wait_observed("crashed", "RUNNING")
        for name in ("asked", "leaves"):
            self.assertEqual(sum(daemon.module(name)["exitCounts"].values()), 1, "tried again although nothing has changed")

    def test_the_policy_in_force_is_shown_and_followed_up_to_a_quarantine_that_says_when_it_is_tried_again(self):
        self.misbehaving("fails", "exit", restart=QUICK)
        daemon = self.daemon(modules=["fails"], modules_dir=self.modules)
        daemon.wait_observed("fails", "QUARANTINED", within=60 * SLOW)
        wait_until(lambda: daemon.module("fails")["workers"][0]["state"] == "QUARANTINED", "its worker has ended")
        module = daemon.module("fails")
        self.assertEqual(module["restartPolicy"], {"policy": "always", "burst": 1, "window": 60_000, "backoff": {"base": 100, "cap": 100, "factor": 2},
                                                   "quarantine": {"windows": 2, "span": 3_600_000, "retry": 3_600_000}, "resetAfter": 60_000})
        worker = module["workers"][0]
        # The burst, the one beyond it, and as many as the burst again.
        self.assertEqual((worker["state"], worker["exitCounts"], worker["restarts"]), ("QUARANTINED", {"EXIT": 3}, 3))
        due = datetime.datetime.fromisoformat(worker["retryAt"].replace("Z", "+00:00"))
        wait = (due - datetime.datetime.now(datetime.timezone.utc)).total_seconds()
        self.assertTrue(300 < wait <= 3600, wait)
        self.assertError(daemon.get("/api/v1/m/fails/ok"), 503, "MODULE_UNAVAILABLE")

        # A reset tries at once, with a clean slate: as many ends again until the next quarantine.
        self.assertEqual(daemon.post("/api/v1/modules/fails/reset?wait=false").status, 202)
        self.ended(daemon, "fails", 6)
        module = daemon.wait_observed("fails", "QUARANTINED", within=60 * SLOW)
        self.assertEqual((module["exitCounts"], module["workers"][0]["exitCounts"]), ({"EXIT": 6}, {"EXIT": 6}))

    def test_after_exit_125_nothing_is_tried_before_something_changes(self):
        self.misbehaving("misconfigured", "exit-125", restart=QUICK)
        daemon = self.daemon(modules=["misconfigured"], modules_dir=self.modules)
        module = daemon.wait_observed("misconfigured", "FAILED")
        self.assertEqual((module["observed"]["reason"]["code"], module["workers"][0]["exitCounts"], module["workers"][0]["retryAt"]),
                         ("CONFIG", {"CONFIG": 1}, None))
        for change in (lambda: daemon.post("/api/v1/modules/misconfigured/reset?wait=false"),
                       lambda: daemon.put("/api/v1/modules/misconfigured/config?wait=false", {"config": {"other": True}})):
            before = daemon.module("misconfigured")["exitCounts"]["CONFIG"]
            self.assertIn(change().status, (200, 202))
            self.ended(daemon, "misconfigured", before + 1)
            daemon.wait_observed("misconfigured", "FAILED")

    def test_a_reset_is_for_enabled_modules_leaves_alone_what_serves_and_is_in_the_audit(self):
        echo_like(self.modules, "pair", workers=2)
        daemon = self.daemon(modules_dir=self.modules)
        self.assertError(daemon.post("/api/v1/modules/pair/reset"), 409, "INVALID_TRANSITION")
        self.assertEqual(daemon.post("/api/v1/modules/pair/enable").status, 200)
        pids = [worker["pid"] for worker in daemon.module("pair")["workers"]]
        self.assertError(daemon.post("/api/v1/modules/pair/reset", headers={"If-Match": '"1000"'}), 412, "PRECONDITION_FAILED")
        answer = daemon.post("/api/v1/modules/pair/reset")
        self.assertEqual((answer.status, [worker["pid"] for worker in answer.data["workers"]]), (200, pids))
        reader = daemon.make_token("reader", "modules:read")
        self.assertError(daemon.post("/api/v1/modules/pair/reset", token=reader), 403, "FORBIDDEN")

        def told():
            return [entry["outcome"] for entry in daemon.get("/api/v1/audit?action=modules.reset&module=pair").data]

        wait_until(lambda: sorted(told()) == ["ACCEPTED", "FORBIDDEN", "INVALID_TRANSITION", "OK", "PRECONDITION_FAILED"], "the rows of the audit")

    def test_a_crash_of_what_it_depends_on_neither_ends_nor_fails_a_module(self):
        self.misbehaving("base", "link", restart=QUICK)
        echo_like(self.modules, "user", dependencies={"modules": {"base": "*"}}, restart=QUICK)
        daemon = self.daemon(modules=["base", "user"], modules_dir=self.modules)
        pid = daemon.module("user")["workers"][0]["pid"]
        while daemon.module("base")["observed"]["state"] != "QUARANTINED":
            daemon.get("/api/v1/m/base/crash")
        user = daemon.module("user")
        self.assertEqual((user["observed"]["state"], user["workers"][0]["pid"], user["exitCounts"]), ("RUNNING", pid, {}))
        self.assertEqual(daemon.get("/api/v1/m/user/echo").status, 200)

    def test_a_policy_beyond_the_caps_is_refused_with_its_place(self):
        daemon = self.daemon(modules_dir=self.modules)
        text = json.dumps({"name": "greedy", "version": "1.0.0", "restart": {"burst": 100_000, "backoff": {"base": 1}}}, indent=1)
        answer = daemon.post("/api/v1/modules/validate", {"text": text})
        found = [(error["path"], error["code"], error["line"] > 0) for error in answer.data["errors"]]
        self.assertEqual(found, [("/restart/burst", "OUT_OF_RANGE", True), ("/restart/backoff/base", "OUT_OF_RANGE", True)])
        self.assertError(daemon.post("/api/v1/modules", {"manifest": json.loads(text)}), 400, "MANIFEST_INVALID")


class Limits(SupervisionTest):
    def test_a_signal_that_tells_of_a_limit_is_told_as_one(self):
        self.misbehaving("writes", "file-size", restart={"policy": "never"})
        daemon = self.daemon(modules=["writes"], modules_dir=self.modules)
        module = daemon.wait_observed("writes", "FAILED")
        self.assertEqual((module["exits"][0]["cause"], module["exits"][0]["signal"]), ("LIMIT", signal.SIGXFSZ))
        self.assertEqual(module["observed"]["reason"]["code"], "LIMIT")

    def test_a_failure_after_the_kernel_had_refused_a_process_is_told_as_a_limit(self):
        self.misbehaving("counts", "ok", limits={"pids": 64})
        self.misbehaving("forks", "fork-until-refused", restart={"policy": "never"}, limits={"pids": 64})
        daemon = self.daemon(modules=["counts"], modules_dir=self.modules)
        item = next(item for item in daemon.wait_observed("counts", "RUNNING")["isolation"] if item["name"] == "cgroup.pids")
        if item["state"] != "active" or "RLIMIT_NPROC" in item["why"]:
            self.skipTest(f"no cgroup limits processes here: {item}")  # and nothing would end the other one's forking
        daemon.post("/api/v1/modules/forks/enable")
        module = daemon.wait_observed("forks", "FAILED")
        self.assertEqual((module["exits"][0]["cause"], module["exits"][0]["exitCode"]), ("LIMIT", 4), module["exits"][0])
        self.assertRegex(module["exits"][0]["message"], r"refused it a process or thread [1-9][0-9]* times: its limit of 64 \(limits.pids\)")


class Health(SupervisionTest):
    def test_unhealthy_as_often_as_it_says_leaves_the_directory_and_comes_back_in_the_same_process(self):
        self.misbehaving("told", "told-health", health={**WATCHED, "readiness": {"failureThreshold": 2, "successThreshold": 2}})
        daemon = self.daemon(modules=["told"], modules_dir=self.modules)
        pid = daemon.module("told")["workers"][0]["pid"]
        self.assertEqual(daemon.get("/api/v1/m/told/ok").status, 200)
        self.say(daemon, "told", "unhealthy")
        module = self.wait_ready(daemon, "told", False)
        observed = module["observed"]
        self.assertEqual((observed["state"], observed["reason"]["code"]), ("DEGRADED", "NOT_READY"))
        self.assertIn("told: the file says unhealthy", observed["reason"]["message"])
        # None is left, and still none is listed: 503 at once, and not after a wait.
        began = time.monotonic()
        answer = daemon.get("/api/v1/m/told/ok")
        self.assertError(answer, 503, "MODULE_UNAVAILABLE")
        self.assertTrue(answer.header("Retry-After"))
        self.assertLess(time.monotonic() - began, 4)
        self.say(daemon, "told", "healthy")
        module = self.wait_ready(daemon, "told", True)
        daemon.wait_observed("told", "RUNNING")
        self.assertEqual(daemon.get("/api/v1/m/told/ok").status, 200)
        self.assertEqual((module["workers"][0]["pid"], module["exitCounts"]), (pid, {}), "none of it is a reason to end it")

    def test_degraded_is_ready_and_shown(self):
        self.misbehaving("told", "told-health", health={**WATCHED, "readiness": {"failureThreshold": 1}})
        daemon = self.daemon(modules=["told"], modules_dir=self.modules)
        self.say(daemon, "told", "degraded")
        module = daemon.wait_observed("told", "DEGRADED")
        self.assertEqual((module["observed"]["reason"]["code"], module["workers"][0]["ready"]), ("HEALTH", True))
        self.assertEqual(daemon.get("/api/v1/m/told/ok").status, 200)
        self.say(daemon, "told", "healthy")
        daemon.wait_observed("told", "RUNNING")

    def test_one_worker_that_is_stopped_is_left_out_then_started_anew_and_the_other_serves_all_the_time(self):
        health = {"interval": 200, "timeout": 500 * SLOW, "readiness": {"failureThreshold": 1}, "liveness": {"failureThreshold": 4}}
        self.misbehaving("pair", "link", workers=2, health=health)
        daemon = self.daemon(modules=["pair"], modules_dir=self.modules)
        module = self.wait_ready(daemon, "pair", True, True)
        stopped, other = (worker["pid"] for worker in module["workers"])
        os.kill(stopped, signal.SIGSTOP)
        self.wait_ready(daemon, "pair", False, True)
        while not daemon.module("pair")["exitCounts"]:
            answer = daemon.get("/api/v1/m/pair/who")
            self.assertEqual((answer.status, answer.body), (200, str(other).encode()))
        module = self.wait_ready(daemon, "pair", True, True)
        self.assertEqual((module["exits"][0]["cause"], module["exitCounts"]), ("LIVENESS", {"LIVENESS": 1}))
        self.assertRegex(module["exits"][0]["message"], "Health did not answer 4 times in a row")
        self.assertEqual(module["workers"][1]["pid"], other)
        self.assertNotEqual(module["workers"][0]["pid"], stopped)

    def test_with_a_start_up_probe_it_is_started_until_it_says_that_it_is_well(self):
        self.misbehaving("slow", "told-unhealthy", health={"startup": {"interval": 100, "timeout": 5000, "failureThreshold": 1000}})
        daemon = self.daemon(modules_dir=self.modules)
        self.assertEqual(daemon.post("/api/v1/modules/slow/enable?wait=false").status, 202)
        wait_until(lambda: daemon.module("slow")["workers"][0]["pid"], "its process")
        pid = daemon.module("slow")["workers"][0]["pid"]
        for _ in range(20):  # a while in which it is asked a few times
            self.assertEqual((daemon.module("slow")["observed"]["state"], daemon.module("slow")["workers"][0]["ready"]), ("STARTING", False))
            time.sleep(0.05)
        self.say(daemon, "slow", "degraded")
        module = self.wait_ready(daemon, "slow", True)
        self.assertEqual(module["workers"][0]["pid"], pid)
        self.assertEqual(daemon.get("/api/v1/m/slow/ok").status, 200)

    def test_one_that_never_says_so_fails_its_enable(self):
        self.misbehaving("never", "told-unhealthy", health={"startup": {"interval": 100, "timeout": 5000, "failureThreshold": 3}})
        daemon = self.daemon(modules_dir=self.modules)
        answer = daemon.post("/api/v1/modules/never/enable")
        self.assertError(answer, 502, "MODULE_START_FAILED")
        self.assertEqual(answer.error["details"][0]["code"], "START_TIMEOUT")
        self.assertIn("told: the file says unhealthy", answer.error["message"])

    def test_one_that_its_cpu_limit_keeps_from_answering_in_time_is_not_ended_for_it(self):
        health = {"interval": 100, "timeout": 30, "readiness": {"failureThreshold": 3}, "liveness": {"failureThreshold": 10}}
        self.misbehaving("starved", "burn-cpu", health=health, limits={"cpu": 0.05})
        daemon = self.daemon(modules_dir=self.modules)
        answer = daemon.post("/api/v1/modules/starved/enable?wait=60s")
        module = daemon.module("starved")
        item = next((item for item in module["isolation"] if item["name"] == "cgroup.cpu"), None)
        if not item or item["state"] != "active":
            self.skipTest(f"no cgroup limits CPU time here: {item}")
        self.assertEqual(answer.status, 200, answer)
        # It is left out while it is so slow, and after ten calls without an answer it would be ended if it had had its time.
        self.wait_ready(daemon, "starved", False)
        until = time.monotonic() + WATCHED_S
        while time.monotonic() < until and not module["exits"]:
            module = daemon.module("starved")
        # Where others keep the processors busy, too, it is held back by its limit for a part of the time only, and ended so much later.
        for exit_ in module["exits"]:
            self.assertGreater(int(re.search("did not answer ([0-9]+) times", exit_["message"])[1]), 10, exit_)


if __name__ == "__main__":
    unittest.TestCase.maxDiff = None
    harness.main()
