"""Runs that a module queues, lists of all runs, cancelling, live progress, and what becomes of runs when a module is disabled or their worker is
killed: the whole way, with fakes/jobber."""

import http.client
import json
import os
import signal
import threading
import time
import unittest

import harness
from harness import SLOW, DaemonTest, SharedDaemonTest, wait_until

JOBBER = {"modules": ["jobber"], "modules_dir": harness.BUILD / "tests" / "jobs" / "modules"}
MODULE = "/api/v1/m/jobber"
ENDED = ("SUCCEEDED", "FAILED", "CANCELLED", "TIMED_OUT", "SKIPPED", "INTERRUPTED")


def run_of(daemon, run_id):
    return daemon.get(f"/api/v1/runs/{run_id}").data


def ended(daemon, run_id, within=20 * SLOW):
    return wait_until(lambda: (lambda r: r if r["status"] in ENDED else None)(run_of(daemon, run_id)), "the run's end", within)


def begun(daemon, run_id):
    return wait_until(lambda: (lambda r: r if r["status"] == "RUNNING" else None)(run_of(daemon, run_id)), "the run running")


class Events:
    """A run's Server-Sent Events, read to their end on a thread: [(event, data)]."""

    def __init__(self, daemon, run_id, last=None):
        self.events, self.ids = [], []
        host, port = daemon.address.rsplit(":", 1)
        self.connection = http.client.HTTPConnection(host, int(port), timeout=30 * SLOW)
        headers = {"Authorization": f"Bearer {daemon.token}"} | ({"Last-Event-ID": last} if last else {})
        self.connection.request("GET", f"/api/v1/runs/{run_id}?follow=true", headers=headers)
        self.answer = self.connection.getresponse()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        name = ""
        for raw in self.answer:
            line = raw.decode().rstrip("\n")
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("id: "):
                self.ids.append(line[4:])
            elif line.startswith("data: "):
                self.events.append((name, json.loads(line[6:])))
            elif not line:
                name = ""

    def all(self):
        self.thread.join(30 * SLOW)
        assert not self.thread.is_alive(), "the stream does not end"
        return self.events


class Queue(SharedDaemonTest):
    options = JOBBER

    def enqueue(self, how="enqueue", **body):
        answer = self.daemon.post(f"{MODULE}/{how}", body)
        self.assertEqual(answer.status, 200, answer)
        return answer.json.get("data", answer.json)

    def test_a_module_queues_a_run_by_a_call(self):
        queued = self.enqueue(job="once", payload={"n": 100_001}, priority=3)
        self.assertFalse(queued["existed"])
        run = ended(self.daemon, queued["id"])
        self.assertEqual((run["status"], run["trigger"], run["priority"], run["result"]["n"]), ("SUCCEEDED", "enqueue", 3, 100_001))

    def test_a_run_that_is_queued_in_a_transaction_is_there_when_that_is_committed_and_not_when_it_is_rolled_back(self):
        queued = self.enqueue("enqueue-sql", job="once", payload={"n": 100_002})
        self.assertEqual(ended(self.daemon, queued["id"])["status"], "SUCCEEDED")
        gone = self.enqueue("enqueue-sql", job="once", payload={"n": 100_003}, rollback=True)
        self.assertTrue(gone["rolledBack"])
        self.assertError(self.daemon.get(f"/api/v1/runs/{gone['id']}"), 404, "RUN_NOT_FOUND")

    def test_a_run_that_is_queued_in_sql_begins_without_waiting_for_the_next_look(self):
        took = []
        for n in range(5):
            began = time.monotonic()
            queued = self.enqueue("enqueue-sql", job="once", payload={"n": 100_010 + n})
            ended(self.daemon, queued["id"])
            took.append(time.monotonic() - began)
        self.assertLess(sorted(took)[2], 0.7 * SLOW, took)  # the look comes once a second

    def test_a_key_waits_once_and_a_delay_is_kept(self):
        first = self.enqueue(job="once", payload={"n": 100_020}, key="k", delay=1500)
        again = self.enqueue(job="once", payload={"n": 100_021}, key="k", delay=1500)
        in_sql = self.enqueue("enqueue-sql", job="once", payload={"n": 100_021}, key="k")
        self.assertEqual((again["id"], again["existed"], in_sql["id"]), (first["id"], True, first["id"]))
        waiting = run_of(self.daemon, first["id"])
        self.assertEqual(waiting["status"], "QUEUED")
        self.assertGreater(waiting["notBefore"], waiting["queuedAt"])
        run = ended(self.daemon, first["id"])
        self.assertGreaterEqual(run["startedAt"], waiting["notBefore"])
        self.assertEqual(run["result"]["n"], 100_020)

    def test_what_can_not_be_queued_is_refused_both_ways(self):
        for how in ("enqueue", "enqueue-sql"):
            self.assertEqual(self.daemon.post(f"{MODULE}/{how}", {"job": "nothing"}).status, 400)
            self.assertEqual(self.daemon.post(f"{MODULE}/{how}", {"job": "once", "delay": -5}).status, 400)
            self.assertEqual(self.daemon.post(f"{MODULE}/{how}", {"job": "once", "payload": "x" * 300_000}).status, 400)
            self.assertEqual(self.daemon.post(f"{MODULE}/{how}", {"job": "once", "priority": 2_000_000}).status, 400)
        self.assertIn("42704", self.daemon.post(f"{MODULE}/enqueue-sql", {"job": "nothing"}).json["error"]["message"])

    def test_runs_of_all_modules_are_listed_and_filtered(self):
        queued = self.enqueue(job="once", payload={"n": 100_030})
        ended(self.daemon, queued["id"])
        for query in ("", "module=jobber", "module=jobber&status=SUCCEEDED", "job=once&trigger=enqueue&pageSize=500"):
            listed = self.daemon.get(f"/api/v1/runs?{query}")
            self.assertEqual(listed.status, 200, listed)
            self.assertIn(queued["id"], [run["id"] for run in listed.data])
            self.assertGreaterEqual(listed.json["meta"]["total"], 1)
        self.assertEqual(self.daemon.get("/api/v1/runs?module=nobody").data, [])
        self.assertEqual(self.daemon.get("/api/v1/runs?trigger=schedule").data, [])
        for wrong in ("status=HAPPY", "trigger=nobody", "page=0", "pageSize=501"):
            self.assertError(self.daemon.get(f"/api/v1/runs?{wrong}"), 400, "INVALID_ARGUMENT")

    def test_a_job_tells_its_policies(self):
        jobs = {job["name"]: job for job in self.daemon.get("/api/v1/modules/jobber/jobs").data}
        once = jobs["once"]
        self.assertEqual((once["concurrency"], once["retries"], once["catchUp"], once["historyCount"]), (32, 20, "none", 100_000))
        self.assertEqual((jobs["single"]["concurrency"], jobs["single"]["config"]), (1, {}))

    def test_progress_and_lines_come_live_and_are_kept(self):
        run = self.daemon.post("/api/v1/modules/jobber/jobs/talk/run", {"payload": {"lines": 8, "ms": 150}}).data["id"]
        begun(self.daemon, run)
        events = Events(self.daemon, run)
        self.assertEqual((events.answer.status, events.answer.getheader("Content-Type")), (200, "text/event-stream"))
        seen = events.all()
        lines = [data["message"] for name, data in seen if name == "log"]
        states = [data for name, data in seen if name == ""]
        self.assertEqual(lines[-2:], ["line 7", "line 8"])
        self.assertEqual(states[-1]["status"], "SUCCEEDED")
        self.assertGreater(len({state["progress"]["fraction"] for state in states}), 3, "while it runs")
        kept = wait_until(lambda: (lambda l: l if len(l) == 8 else None)(self.daemon.get(f"/api/v1/runs/{run}/logs").data), "all lines")
        self.assertEqual([(line["level"], line["message"]) for line in kept[:2]], [("info", "line 1"), ("warn", "line 2")])
        self.assertEqual([line["message"] for line in self.daemon.get(f"/api/v1/runs/{run}/logs?after={kept[5]['seq']}").data], ["line 7", "line 8"])
        # Who comes back goes on where he was, and a run that has ended is told as it is.
        again = Events(self.daemon, run, last=str(kept[6]["seq"])).all()
        self.assertEqual([data["message"] for name, data in again if name == "log"], ["line 8"])
        self.assertEqual(again[-1][1]["status"], "SUCCEEDED")

    def test_who_may_not_read_runs_may_not_follow_them(self):
        token = self.daemon.make_token("nobody-of-runs", "modules:read")
        run = self.daemon.post("/api/v1/modules/jobber/jobs/talk/run?wait=10s").data["id"]
        for path in (f"/api/v1/runs/{run}?follow=true", f"/api/v1/runs/{run}/logs", "/api/v1/runs"):
            self.assertError(self.daemon.get(path, token=token), 403, "FORBIDDEN")
        self.assertError(self.daemon.delete(f"/api/v1/runs/{run}", token=token), 403, "FORBIDDEN")
        self.assertError(self.daemon.get("/api/v1/runs/nothing?follow=true"), 404, "RUN_NOT_FOUND")

    def test_a_running_run_is_cancelled_through_the_contract(self):
        run = self.daemon.post("/api/v1/modules/jobber/jobs/talk/run", {"payload": {"lines": 100, "ms": 100}}).data["id"]
        begun(self.daemon, run)
        began = time.monotonic()
        answer = self.daemon.delete(f"/api/v1/runs/{run}")
        self.assertEqual((answer.status, answer.data["status"], answer.data["error"]["code"]), (200, "CANCELLED", "CANCELLED"), answer)
        self.assertLess(time.monotonic() - began, 2 * SLOW)
        self.assertEqual(self.daemon.delete(f"/api/v1/runs/{run}").status, 200)
        actions = [entry["action"] for entry in self.daemon.get("/api/v1/audit?action=jobs.cancel&pageSize=500").data]
        self.assertIn("jobs.cancel", actions)

    def test_a_waiting_run_is_cancelled_and_an_ended_one_is_not(self):
        waiting = self.enqueue(job="once", payload={"n": 100_040}, delay=600_000)["id"]
        self.assertEqual(self.daemon.delete(f"/api/v1/runs/{waiting}").data["status"], "CANCELLED")
        done = self.enqueue(job="once", payload={"n": 100_041})["id"]
        ended(self.daemon, done)
        self.assertError(self.daemon.delete(f"/api/v1/runs/{done}"), 409, "RUN_ENDED")
        self.assertError(self.daemon.delete("/api/v1/runs/nothing"), 404, "RUN_NOT_FOUND")
        self.assertError(self.daemon.delete(f"/api/v1/runs/{done}?wait=soon"), 400, "INVALID_ARGUMENT")

    def test_a_worker_that_has_its_fill_takes_the_next_run_as_soon_as_one_has_its_result(self):
        runs = 5_000  # of a job without retries, which waits for nothing: a run that is refused has failed
        self.assertEqual(self.daemon.post(f"{MODULE}/fill", {"job": "stamp", "from": 0, "count": runs, "ms": 0}).status, 200)
        count = "SELECT count(*) FROM bulkhead_internal.runs WHERE job = 'stamp' AND status"
        wait_until(lambda: self.daemon.sql(f"{count} IN ('QUEUED', 'RUNNING')")[0][0] == "0", "the end of all", 60 * SLOW)
        self.assertEqual(self.daemon.sql(f"{count} = 'SUCCEEDED'")[0][0], str(runs))


class Trouble(DaemonTest):
    def test_a_worker_that_ignores_the_cancelling_of_its_run_is_killed_after_a_grace(self):
        daemon = self.daemon(**JOBBER)
        run = daemon.post("/api/v1/modules/jobber/jobs/stubborn/run").data["id"]
        pid = {w["instance"]: w["pid"] for w in daemon.module("jobber")["workers"]}[begun(daemon, run)["worker"]]
        began = time.monotonic()
        answer = daemon.delete(f"/api/v1/runs/{run}?wait=20s")
        took = time.monotonic() - began
        self.assertEqual((answer.status, answer.data["status"]), (200, "CANCELLED"), answer)
        self.assertGreater(took, 4.5)
        self.assertLess(took, 10 * SLOW)
        self.assertFalse(os.path.exists(f"/proc/{pid}"))
        self.assertIn("LIVENESS", [exit["cause"] for exit in daemon.module("jobber")["exits"]])

    def test_a_run_that_is_late_and_ignores_it_is_timed_out_with_its_worker(self):
        daemon = self.daemon(**JOBBER)
        answer = daemon.post("/api/v1/modules/jobber/jobs/late/run?wait=20s")
        self.assertEqual((answer.data["status"], answer.data["error"]["code"]), ("TIMED_OUT", "TIMED_OUT"), answer)

    def test_a_run_whose_worker_is_killed_begins_again_within_a_second(self):
        daemon = self.daemon(**JOBBER)
        run = daemon.post(f"{MODULE}/enqueue", {"job": "single", "payload": {"n": 1, "ms": 3000}}).json
        run = run.get("data", run)["id"]
        first = begun(daemon, run)
        pid = {w["instance"]: w["pid"] for w in daemon.module("jobber")["workers"]}[first["worker"]]
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        wait_until(lambda: run_of(daemon, run)["attempt"] == 2 and run_of(daemon, run)["status"] == "RUNNING", "the second attempt")
        self.assertLess(time.monotonic() - killed, 1 * SLOW)
        self.assertEqual((ended(daemon, run)["status"], run_of(daemon, run)["attempt"]), ("SUCCEEDED", 2))
        self.assertEqual(daemon.get(f"{MODULE}/effects").json.get("data", daemon.get(f"{MODULE}/effects").json)["faults"], [])

    def test_a_disable_stops_claiming_at_once_and_what_runs_waits_for_the_module(self):
        daemon = self.daemon(**JOBBER)
        running = daemon.post("/api/v1/modules/jobber/jobs/talk/run", {"payload": {"lines": 1000, "ms": 1000}}).data["id"]
        begun(daemon, running)
        queued = daemon.post(f"{MODULE}/enqueue", {"job": "once", "payload": {"n": 7}, "delay": 3000}).json
        queued = queued.get("data", queued)["id"]
        self.assertEqual(daemon.post("/api/v1/modules/jobber/disable?wait=60s").status, 200)
        self.assertEqual({(job["name"], job["active"]) for job in daemon.get("/api/v1/modules/jobber/jobs").data if job["name"] == "talk"}, {("talk", False)})
        back = wait_until(lambda: (lambda r: r if r["status"] == "QUEUED" else None)(run_of(daemon, running)), "the run queued again")
        self.assertEqual(back["attempt"], 0, "it burns no attempt")
        self.assertError(daemon.post("/api/v1/modules/jobber/jobs/once/run"), 409, "MODULE_NOT_RUNNING")
        wait_until(lambda: daemon.sql(f"SELECT now() > not_before + interval '2 seconds' FROM bulkhead_internal.runs WHERE id = '{queued}'") == [["t"]],
                   "its time")
        self.assertEqual(run_of(daemon, queued)["status"], "QUEUED", "its time has come, and nobody claims it")
        daemon.post("/api/v1/modules/jobber/enable")
        self.assertEqual(ended(daemon, queued)["status"], "SUCCEEDED")
        begun(daemon, running)
        daemon.delete(f"/api/v1/runs/{running}")

    def test_of_many_short_runs_a_disable_leaves_none_behind_and_each_is_executed_once(self):
        daemon, runs = self.daemon(**JOBBER), 4_000
        self.assertEqual(daemon.post(f"{MODULE}/fill", {"job": "once", "from": 0, "count": runs, "ms": 0}).status, 200)
        count = "SELECT count(*) FROM bulkhead_internal.runs WHERE job = 'once' AND"
        wait_until(lambda: int(daemon.sql(f"{count} status = 'SUCCEEDED'")[0][0]) > 300, "a part of them")
        self.assertEqual(daemon.post("/api/v1/modules/jobber/disable?wait=60s").status, 200)
        wait_until(lambda: daemon.sql(f"{count} status = 'RUNNING'") == [["0"]], "that none is under way")
        self.assertEqual(daemon.sql(f"{count} status = 'QUEUED' AND (attempt > 0 OR started_at IS NOT NULL)"), [["0"]], "as if nobody had claimed them")
        self.assertNotEqual(daemon.sql(f"{count} status = 'QUEUED'"), [["0"]])
        daemon.post("/api/v1/modules/jobber/enable?wait=60s")
        wait_until(lambda: daemon.sql(f"{count} status = 'SUCCEEDED' AND attempt = 1") == [[str(runs)]], "the end of all", 60 * SLOW)
        effects = daemon.get(f"{MODULE}/effects").json
        effects = effects.get("data", effects)
        self.assertEqual((effects["counts"]["effects"], effects["counts"]["executions"], effects["faults"]), (runs, runs, []))


if __name__ == "__main__":
    harness.main()
