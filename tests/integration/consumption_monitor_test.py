"""The shipped module on real input: this host, measured by its job and told by its routes."""

import datetime
import os
import pathlib
import re

import harness
from harness import SharedDaemonTest

NAME = "consumption-monitor"
BASE = f"/api/v1/m/{NAME}"
RUN = f"/api/v1/modules/{NAME}/jobs/collect-readings/run?wait=30s"

METRICS = {"cpu_seconds": ("counter", "seconds"), "memory_bytes": ("gauge", "bytes"), "disk_read_bytes": ("counter", "bytes"),
           "disk_write_bytes": ("counter", "bytes"), "network_receive_bytes": ("counter", "bytes"), "network_transmit_bytes": ("counter", "bytes")}


def host_now():
    """{metric: value} of this host, read here by what modules/README.md says of each."""
    cpu = [int(word) for word in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    memory = {name: int(kilobytes) for name, kilobytes in re.findall(r"(\w+): +(\d+) kB", pathlib.Path("/proc/meminfo").read_text())}
    disks = [line.split() for line in pathlib.Path("/proc/diskstats").read_text().splitlines()]
    physical = [name for name in os.listdir("/sys/block")
                if not re.fullmatch(r"(loop|ram|zram|sr|fd)\d+", name) and not os.listdir(f"/sys/block/{name}/slaves")]
    disks = [disk for disk in disks if disk[2] in physical]
    net = [(name, numbers.split()) for name, numbers in re.findall(r"^ *(\S+):(.*)$", pathlib.Path("/proc/net/dev").read_text(), re.M)]
    real = [(name, numbers) for name, numbers in net if os.path.exists(f"/sys/class/net/{name}/device")]
    net = real or [(name, numbers) for name, numbers in net if name != "lo"]
    return {"cpu_seconds": sum(cpu[i] for i in (0, 1, 2, 5, 6)) / os.sysconf("SC_CLK_TCK"),
            "memory_bytes": (memory["MemTotal"] - memory["MemAvailable"]) * 1024,
            "disk_read_bytes": sum(int(disk[5]) for disk in disks) * 512, "disk_write_bytes": sum(int(disk[9]) for disk in disks) * 512,
            "network_receive_bytes": sum(int(numbers[0]) for _name, numbers in net),
            "network_transmit_bytes": sum(int(numbers[8]) for _name, numbers in net)}


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

    def test_readings_are_what_this_host_counts(self):
        before = host_now()
        self.assertEqual(self.daemon.post(RUN).data["status"], "SUCCEEDED")
        live = {reading["metric"]: reading for reading in self.data("/live")}
        after = host_now()
        self.assertEqual({metric: (reading["kind"], reading["unit"]) for metric, reading in live.items()}, METRICS)
        for metric, (kind, _unit) in METRICS.items():
            with self.subTest(metric):
                value = live[metric]["value"]
                if kind == "counter":  # never falls, so what was read in between lies in between; the kernel rounds each CPU's time
                    self.assertLessEqual(before[metric] - (1 if metric == "cpu_seconds" else 0), value)
                    self.assertLessEqual(value, after[metric] + (1 if metric == "cpu_seconds" else 0))
                else:
                    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
                    self.assertLess(abs(value - (before[metric] + after[metric]) / 2), total / 4)

    def test_what_was_consumed_is_the_difference_to_the_reading_before(self):
        for metric, (kind, _unit) in METRICS.items():
            with self.subTest(metric):
                readings = self.readings(f"?limit=500&metric={metric}")
                self.assertGreaterEqual(len(readings), len(self.runs))
                self.assertIsNone(readings[-1]["consumed"], "the first of all")
                for newer, older in zip(readings, readings[1:]):
                    self.assertGreater(newer["recordedAt"], older["recordedAt"])
                    if kind == "gauge":
                        self.assertIsNone(newer["consumed"])
                    else:
                        self.assertAlmostEqual(newer["consumed"], newer["value"] - older["value"], places=6)

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
        tables = self.daemon.sql("SELECT schemaname, tablename, tableowner FROM pg_tables WHERE tablename IN ('endpoints', 'metrics', 'readings')")
        self.assertEqual(sorted(table for _schema, table, _owner in tables), ["endpoints", "metrics", "readings"])
        self.assertEqual({schema for schema, _table, _owner in tables}, {"mod_consumption_monitor"})
        owners = {owner for _schema, _table, owner in tables}
        self.assertEqual(len(owners), 1)
        self.assertRegex(owners.pop(), r"^bh_[0-9a-f]{8}_consumption-monitor$")
        # Nobody was granted anything of them or of their schema, and it has nothing elsewhere.
        granted = self.daemon.sql("SELECT nspname FROM pg_namespace WHERE nspname = 'mod_consumption_monitor' AND nspacl IS NOT NULL UNION ALL "
                                  "SELECT relname FROM pg_class WHERE relnamespace = 'mod_consumption_monitor'::regnamespace AND relacl IS NOT NULL")
        self.assertEqual(granted, [])
        elsewhere = self.daemon.sql("SELECT relname FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner WHERE rolname LIKE 'bh\\_%' "
                                    "AND relnamespace <> 'mod_consumption_monitor'::regnamespace AND relnamespace::regnamespace::text !~ '^pg_toast'")
        self.assertEqual(elsewhere, [])


if __name__ == "__main__":
    harness.main()
