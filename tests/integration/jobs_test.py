"""Jobs, from the call to the run's row, and what becomes of a run whose worker dies."""

import os
import signal
import unittest

import harness
from harness import SLOW, DaemonTest, SharedDaemonTest, wait_until

OPTIONS = {"modules": ["echo"], "modules_dir": harness.FAKES}
RUN = "/api/v1/modules/echo/jobs/work/run"


class Runs(SharedDaemonTest):
    options = OPTIONS

    def run_job(self, payload=None, job="work", wait="30s"):
        return self.daemon.post(f"/api/v1/modules/echo/jobs/{job}/run?wait={wait}", {"payload": payload})

    def test_a_run_that_is_waited_for_answers_200_with_its_result(self):
        answer = self.run_job({"steps": 3, "greeting": "hello"})
        self.assertEqual(answer.status, 200, answer)
        run = answer.data
        self.assertEqual((run["status"], run["module"], run["job"], run["attempt"], run["trigger"]), ("SUCCEEDED", "echo", "work", 1, "manual"))
        self.assertEqual(run["payload"], {"steps": 3, "greeting": "hello"})
        self.assertEqual(run["result"], {"payload": {"steps": 3, "greeting": "hello"}, "attempt": 1})
        self.assertEqual(run["progress"]["fraction"], 1)
        self.assertIsNone(run["error"])
        self.assertIsNone(run["slot"])
        self.assertLessEqual(run["queuedAt"], run["startedAt"])
        self.assertLessEqual(run["startedAt"], run["finishedAt"])
        self.assertEqual(run["worker"], self.daemon.module("echo")["workers"][0]["instance"])
        self.assertIs(answer.json["meta"]["converged"], True)

    def test_a_run_that_is_not_waited_for_answers_202_and_can_be_followed(self):
        answer = self.daemon.post(RUN, {"payload": {"ms": 300, "steps": 3}})
        self.assertEqual(answer.status, 202, answer)
        self.assertIn(answer.data["status"], ("QUEUED", "RUNNING"))

        def ended():
            run = self.daemon.get(f"/api/v1/runs/{answer.data['id']}").data
            return run if run["status"] not in ("QUEUED", "RUNNING") else None

        self.assertEqual(wait_until(ended, "the end of the run")["status"], "SUCCEEDED")

    def test_a_wait_that_is_too_short_answers_202_with_the_run_still_going(self):
        answer = self.run_job({"ms": 1500}, wait="100ms")
        self.assertEqual(answer.status, 202, answer)
        self.assertIs(answer.json["meta"]["converged"], False)

    def test_a_run_without_a_body_has_a_null_payload(self):
        answer = self.daemon.post(RUN + "?wait=30s")
        self.assertEqual(answer.data["status"], "SUCCEEDED", answer)
        self.assertIsNone(answer.data["payload"])

    def test_a_run_that_fails_says_why(self):
        run = self.run_job({"fail": "OUT_OF_PAPER", "retryable": False}).data
        self.assertEqual((run["status"], run["error"]["code"], run["error"]["message"]), ("FAILED", "OUT_OF_PAPER", "told to fail"))
        self.assertIsNone(run["result"])

    def test_a_run_that_takes_too_long_is_ended(self):
        run = self.run_job({"ms": 20_000}, job="impatient").data
        self.assertEqual(run["status"], "TIMED_OUT")

    def test_runs_are_listed_newest_first_and_filtered(self):
        first = self.run_job({"n": 1}).data["id"]
        second = self.run_job({"n": 2}).data["id"]
        listed = self.daemon.get("/api/v1/modules/echo/jobs/work/runs?pageSize=500")
        self.assertEqual(listed.status, 200, listed)
        ids = [run["id"] for run in listed.data]
        self.assertLess(ids.index(second), ids.index(first))
        self.assertEqual(set(listed.json["meta"]), {"total", "page", "pageSize"})
        only = self.daemon.get("/api/v1/modules/echo/jobs/work/runs?status=SUCCEEDED&pageSize=500").data
        self.assertEqual({run["status"] for run in only}, {"SUCCEEDED"})

    def test_the_jobs_of_a_module_are_listed(self):
        listed = self.daemon.get("/api/v1/modules/echo/jobs")
        self.assertEqual([job["name"] for job in listed.data], ["impatient", "work"] if listed.data[0]["name"] == "impatient" else ["work", "impatient"])
        self.assertTrue(all(job["active"] for job in listed.data))

    def test_what_is_not_there_is_404_and_what_is_wrong_400(self):
        self.assertError(self.daemon.post("/api/v1/modules/echo/jobs/nothing/run"), 404, "JOB_NOT_FOUND")
        self.assertError(self.daemon.post("/api/v1/modules/nobody/jobs/work/run"), 404, "MODULE_NOT_FOUND")
        self.assertError(self.daemon.get("/api/v1/runs/nothing"), 404, "RUN_NOT_FOUND")
        self.assertEqual(self.daemon.post(RUN + "?wait=soon").status, 400)
        self.assertEqual(self.daemon.get("/api/v1/modules/echo/jobs/work/runs?status=HAPPY").status, 400)
        self.assertEqual(self.run_job("x" * (300 * 1024)).status, 400)


class Loss(DaemonTest):
    def test_a_run_whose_worker_dies_ends_at_once_and_says_so(self):
        daemon = self.daemon(**OPTIONS)
        answer = daemon.post(f"{RUN}?wait=20s", {"payload": {"crash": True}})
        self.assertEqual(answer.status, 200, answer)
        self.assertIn(answer.data["status"], ("FAILED", "INTERRUPTED"))
        self.assertTrue(answer.data["error"]["message"])
        wait_until(lambda: daemon.post(f"{RUN}?wait=20s").json.get("data", {}).get("status") == "SUCCEEDED", "a run by the next worker")

    def test_a_run_that_a_shutdown_interrupts_is_marked_and_not_lost(self):
        daemon = self.daemon(**OPTIONS)
        run = daemon.post(RUN, {"payload": {"ms": 4000}}).data["id"]
        wait_until(lambda: daemon.get(f"/api/v1/runs/{run}").data["status"] == "RUNNING", "the run running")
        code, _took = daemon.stop()
        self.assertEqual(code, 0)
        # Without its module nobody can take it up, so it stays as it was marked: the attempt does not count.
        daemon.extra_args = ["--disable", "echo"]
        daemon.start()
        marked = daemon.get(f"/api/v1/runs/{run}").data
        self.assertEqual(marked["attempt"], 0, marked)
        if marked["status"] == "INTERRUPTED":  # it is queued again soon after the start
            self.assertEqual(marked["error"]["code"], "SHUTDOWN")
        queued = wait_until(lambda: (lambda r: r if r["status"] == "QUEUED" else None)(daemon.get(f"/api/v1/runs/{run}").data), "it queued again")
        self.assertIsNone(queued["error"])
        daemon.stop()
        daemon.extra_args = []
        daemon.start()
        after = wait_until(lambda: (lambda r: r if r["status"] not in ("QUEUED", "RUNNING") else None)(daemon.get(f"/api/v1/runs/{run}").data),
                           "the run's end")
        self.assertEqual((after["status"], after["attempt"], after["error"]), ("SUCCEEDED", 1, None))
        self.assertEqual(after["worker"], daemon.module("echo")["workers"][0]["instance"])

    def test_a_run_that_a_killed_daemon_left_running_is_not_running_afterwards(self):
        daemon = self.daemon(**OPTIONS)
        run = daemon.post(RUN, {"payload": {"ms": 4500}}).data["id"]
        wait_until(lambda: daemon.get(f"/api/v1/runs/{run}").data["status"] == "RUNNING", "the run running")
        daemon.kill()
        daemon.assert_nothing_left(15 * SLOW)
        daemon.start()
        after = wait_until(lambda: (lambda r: r if r["status"] not in ("QUEUED", "RUNNING") else None)(daemon.get(f"/api/v1/runs/{run}").data),
                           "the run's end")
        self.assertEqual((after["status"], after["attempt"]), ("SUCCEEDED", 2), "by the next daemon, and the lost attempt counts")


if __name__ == "__main__":
    harness.main()
