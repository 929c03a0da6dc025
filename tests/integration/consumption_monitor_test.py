"""The shipped module on real input: this host, measured by its job and told by its routes."""

import datetime
import unittest

import harness
from harness import SharedDaemonTest

NAME = "consumption-monitor"
BASE = f"/api/v1/m/{NAME}"
RUN = f"/api/v1/modules/{NAME}/jobs/collect-readings/run?wait=30s"


class ConsumptionMonitor(SharedDaemonTest):
    options = {"modules": [NAME]}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.runs = [cls.daemon.post(RUN) for _ in range(3)]

    def data(self, path):
        answer = self.daemon.get(BASE + path)
        self.assertEqual(answer.status, 200, answer)
        self.assertIs(answer.json["success"], True)
        return answer.data

    def readings(self, query=""):
        data = self.data(f"/readings{query}")
        return data["readings"] if isinstance(data, dict) else data

    def test_the_job_measures_the_host_and_leaves_a_row(self):
        for answer in self.runs:
            self.assertEqual((answer.status, answer.data["status"]), (200, "SUCCEEDED"), answer)
        listed = self.daemon.get(f"/api/v1/modules/{NAME}/jobs/collect-readings/runs").data
        self.assertLessEqual({answer.data["id"] for answer in self.runs}, {run["id"] for run in listed})

    def test_the_job_is_on_a_schedule(self):
        job = self.daemon.get(f"/api/v1/modules/{NAME}/jobs").data[0]
        self.assertEqual((job["name"], job["active"]), ("collect-readings", True))
        self.assertTrue(job["schedule"])
        now = datetime.datetime.now(datetime.timezone.utc)
        next_run = datetime.datetime.fromisoformat(job["nextRunAt"].replace("Z", "+00:00"))
        self.assertGreater(next_run, now - datetime.timedelta(seconds=2))

    def test_readings_are_plausible_for_this_host(self):
        text = self.daemon.get(f"{BASE}/readings?limit=500").body.decode().lower()
        for what in ("cpu", "mem", "disk", "net"):
            self.assertIn(what, text)
        self.assertGreaterEqual(len(self.readings("?limit=500")), 8, "three runs, at least four kinds (counters need two)")

    def test_readings_are_limited_and_filtered(self):
        self.assertEqual(len(self.readings("?limit=2")), 2)
        one = self.readings("?limit=1")[0]["endpointId"]
        self.assertEqual({reading["endpointId"] for reading in self.readings(f"?limit=50&endpointId={one}")}, {one})
        self.assertEqual(self.readings("?endpointId=00000000-0000-0000-0000-000000000000"), [])

    def test_parameters_are_validated(self):
        for path in ("/readings?limit=0", "/readings?limit=-1", "/readings?limit=x", "/readings?limit=1000000000", "/readings?from=yesterday",
                     "/summary?period=fortnight", "/monthly/x?month=13", "/monthly/x?year=abc"):
            with self.subTest(path):
                answer = self.daemon.get(BASE + path)
                self.assertEqual(answer.status, 400, answer)
                self.assertIs(answer.json["success"], False)
                self.assertTrue(answer.error["message"])

    def test_live_summary_and_monthly_tell_of_what_was_read(self):
        endpoint = self.readings("?limit=1")[0]["endpointId"]
        self.assertTrue(self.data("/live"))
        for period in ("hour", "day", "week", "month"):
            answer = self.daemon.get(f"{BASE}/summary?period={period}")
            self.assertEqual(answer.status, 200, answer)
        self.assertIn(endpoint, self.daemon.get(f"{BASE}/live").body.decode())
        now = datetime.datetime.now(datetime.timezone.utc)
        self.assertTrue(self.data(f"/monthly/{endpoint}?year={now.year}&month={now.month}"))
        self.assertTrue(self.data(f"/monthly/{endpoint}"))

    def test_an_endpoint_that_does_not_exist_is_404(self):
        answer = self.daemon.get(f"{BASE}/monthly/00000000-0000-0000-0000-000000000000")
        self.assertEqual(answer.status, 404, answer)

    def test_its_tables_are_its_own(self):
        module = self.daemon.module(NAME)
        self.assertEqual(module["observed"]["state"], "RUNNING")
        self.assertIsNone(module["observed"]["reason"])
        self.assertEqual(module["configRevision"], module["configAppliedRevision"])


if __name__ == "__main__":
    harness.main()
