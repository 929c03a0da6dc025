"""Files that runs leave behind: the whole way from a job's handler to the bytes that somebody downloads, with fakes/jobber."""

import hashlib
import http.client
import os
import signal
import time
import unittest

import harness
from harness import SLOW, DaemonTest, SharedDaemonTest, wait_until
from jobs_queue_test import JOBBER, begun, ended, run_of

MIB = 1 << 20


def pattern(size):
    """What fakes/jobber writes into a file of that size."""
    return bytes((i * 31 + i // 256) % 251 for i in range(size))


def leave(daemon, files, wait="30s", **payload):
    answer = daemon.post(f"/api/v1/modules/jobber/jobs/leave/run?wait={wait}", {"payload": {"files": files, **payload}})
    assert answer.status in (200, 202), answer
    return answer.data


class Download:
    """GET of an artifact, read to its end."""

    def __init__(self, daemon, path, method="GET", read=True, keep=False):
        host, port = daemon.address.rsplit(":", 1)
        self.connection = http.client.HTTPConnection(host, int(port), timeout=60 * SLOW)
        self.connection.request(method, path, headers={"Authorization": f"Bearer {daemon.token}"})
        self.answer = self.connection.getresponse()
        self.status, self.header = self.answer.status, self.answer.getheader
        self.body = self.answer.read() if read else b""
        if read and not keep:
            self.connection.close()


class Artifacts(SharedDaemonTest):
    options = JOBBER

    def test_a_file_is_listed_with_the_run_and_downloaded_as_it_was_left(self):
        run = leave(self.daemon, [{"name": "report.txt", "type": "text/plain; charset=utf-8", "text": "grün\n"}, {"name": "all.bin", "size": 700_001}])
        self.assertEqual((run["status"], run["result"]["refused"]), ("SUCCEEDED", []))
        self.assertEqual([(a["name"], a["contentType"], a["bytes"]) for a in run["artifacts"]],
                         [("all.bin", "application/octet-stream", 700_001), ("report.txt", "text/plain; charset=utf-8", 6)])
        self.assertGreaterEqual(run["artifacts"][0]["at"], run["startedAt"])
        self.assertEqual(run_of(self.daemon, run["id"])["artifacts"], run["artifacts"])
        self.assertEqual(self.daemon.get(f"/api/v1/runs/{run['id']}/artifacts").data, run["artifacts"])
        listed = self.daemon.get("/api/v1/modules/jobber/jobs/leave/runs?pageSize=500").data
        self.assertIn(run["artifacts"], [r["artifacts"] for r in listed])
        got = Download(self.daemon, f"/api/v1/runs/{run['id']}/artifacts/all.bin")
        self.assertEqual((got.status, got.header("Content-Type"), got.header("Content-Length"), got.header("Transfer-Encoding")),
                         (200, "application/octet-stream", "700001", None))
        self.assertEqual((got.header("X-Content-Type-Options"), got.header("Content-Disposition"), got.header("Cache-Control")),
                         ("nosniff", "attachment; filename=\"all.bin\"; filename*=UTF-8''all.bin", "no-store"))
        self.assertEqual(got.body, pattern(700_001))
        got = Download(self.daemon, f"/api/v1/runs/{run['id']}/artifacts/report.txt")
        self.assertEqual((got.header("Content-Type"), got.body.decode()), ("text/plain; charset=utf-8", "grün\n"))

    def test_the_connection_serves_on_behind_a_download_and_a_head_has_no_body(self):
        run = leave(self.daemon, [{"name": "a.bin", "size": 300_000}, {"name": "empty"}])
        got = Download(self.daemon, f"/api/v1/runs/{run['id']}/artifacts/a.bin", keep=True)
        self.addCleanup(got.connection.close)
        for method, name, length, body in (("HEAD", "a.bin", "300000", b""), ("GET", "empty", "0", b""), ("GET", "a.bin", "300000", pattern(300_000))):
            got.connection.request(method, f"/api/v1/runs/{run['id']}/artifacts/{name}", headers={"Authorization": f"Bearer {self.daemon.token}"})
            answer = got.connection.getresponse()
            self.assertEqual((answer.status, answer.getheader("Content-Length"), answer.read()), (200, length, body), (method, name))

    def test_one_of_16_mib_comes_whole_and_costs_the_daemon_no_such_memory_to_answer(self):
        run = leave(self.daemon, [{"name": "large.bin", "size": 16 * MIB, "byPath": True}], wait="120s")
        self.assertEqual((run["status"], run["artifacts"][0]["bytes"]), ("SUCCEEDED", 16 * MIB), run)
        path = f"/api/v1/runs/{run['id']}/artifacts/large.bin"
        self.assertEqual(hashlib.sha256(Download(self.daemon, path).body).digest(), hashlib.sha256(pattern(16 * MIB)).digest())

        def resident():
            with open(f"/proc/{self.daemon.process.pid}/statm", encoding="ascii") as statm:
                return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")

        before = resident()
        idle = [Download(self.daemon, path, read=False) for _ in range(8)]  # nobody reads
        watched = time.monotonic() + 2
        while time.monotonic() < watched:
            self.assertLess(resident() - before, 64 * MIB, "eight readers of 16 MiB who do not read")
            time.sleep(0.1)
        for download in idle:
            download.connection.close()

    def test_names_of_any_script_are_told_to_browsers(self):
        run = leave(self.daemon, [{"name": "Übersicht \"2026\"; 100%.pdf", "type": "application/pdf", "text": "%PDF"}])
        self.assertEqual(run["result"]["refused"], [])
        got = Download(self.daemon, f"/api/v1/runs/{run['id']}/artifacts/%C3%9Cbersicht%20%222026%22%3B%20100%25.pdf")
        self.assertEqual((got.status, got.body), (200, b"%PDF"))
        self.assertEqual(got.header("Content-Disposition"),
                         "attachment; filename=\"__bersicht__2026___100_.pdf\"; filename*=UTF-8''%C3%9Cbersicht%20%222026%22%3B%20100%25.pdf")

    def test_what_is_no_file_is_refused_and_the_handler_told_why(self):
        run = leave(self.daemon, [{"name": "../../etc/passwd", "text": "x"}, {"name": "..", "text": "x"}, {"name": "", "text": "x"},
                                  {"name": "n" * 129, "text": "x"}, {"name": "a", "type": "text/html\r\nX-Evil: 1", "text": "x"},
                                  {"name": "large", "size": 16 * MIB + 1}])
        self.assertEqual((run["status"], run["artifacts"]), ("SUCCEEDED", []))
        refused = run["result"]["refused"]
        self.assertEqual(len(refused), 6, refused)
        self.assertEqual({r["transient"] for r in refused}, {False})
        self.assertIn("file alone", refused[0]["why"])
        self.assertIn("128 bytes", refused[3]["why"])
        self.assertIn("content type", refused[4]["why"])
        self.assertIn("16 MiB", refused[5]["why"])

    def test_a_run_leaves_16_files_and_no_more(self):
        run = leave(self.daemon, [{"name": f"{n:02}", "text": str(n)} for n in range(18)])
        self.assertEqual([a["name"] for a in run["artifacts"]], [f"{n:02}" for n in range(16)])
        self.assertEqual([r["name"] for r in run["result"]["refused"]], ["16", "17"])

    def test_many_runs_leave_files_at_once(self):
        files = [{"name": f"f{i}", "size": 2 * MIB} for i in range(3)]
        runs = [leave(self.daemon, files, wait="false")["id"] for _ in range(8)]
        for run in runs:
            done = ended(self.daemon, run, 60 * SLOW)
            self.assertEqual((done["status"], done["result"]["refused"], len(done["artifacts"])), ("SUCCEEDED", [], 3), done)

    def test_a_file_is_seen_while_the_run_goes_on(self):
        run = leave(self.daemon, [{"name": "early.txt", "text": "early"}], wait="false", ms=4_000)["id"]
        wait_until(lambda: run_of(self.daemon, run)["artifacts"], "the file")
        self.assertEqual(run_of(self.daemon, run)["status"], "RUNNING")
        self.assertEqual(Download(self.daemon, f"/api/v1/runs/{run}/artifacts/early.txt").body, b"early")
        self.daemon.delete(f"/api/v1/runs/{run}")
        self.assertEqual([a["name"] for a in run_of(self.daemon, run)["artifacts"]], ["early.txt"], "a cancelled run keeps it")

    def test_who_may_not_read_runs_may_not_download(self):
        run = leave(self.daemon, [{"name": "secret.txt", "text": "x"}])["id"]
        token = self.daemon.make_token("nobody-of-artifacts", "modules:read")
        for path in (f"/api/v1/runs/{run}/artifacts", f"/api/v1/runs/{run}/artifacts/secret.txt"):
            self.assertError(self.daemon.get(path, token=token), 403, "FORBIDDEN")
            self.assertError(self.daemon.get(path, token=None), 401, "UNAUTHENTICATED")
        self.assertError(self.daemon.get(f"/api/v1/runs/{run}/artifacts/nothing"), 404, "ARTIFACT_NOT_FOUND")
        self.assertError(self.daemon.get("/api/v1/runs/nothing/artifacts/a"), 404, "RUN_NOT_FOUND")
        self.assertError(self.daemon.get("/api/v1/runs/nothing/artifacts"), 404, "RUN_NOT_FOUND")
        self.assertError(self.daemon.post(f"/api/v1/runs/{run}/artifacts/secret.txt"), 405, "METHOD_NOT_ALLOWED")

    def test_a_file_that_goes_while_it_is_downloaded_is_broken_off(self):
        run = leave(self.daemon, [{"name": "large.bin", "size": 16 * MIB}], wait="120s")["id"]
        slow = Download(self.daemon, f"/api/v1/runs/{run}/artifacts/large.bin", read=False)
        self.addCleanup(slow.connection.close)
        self.assertEqual(slow.status, 200)
        self.daemon.sql(f"DELETE FROM bulkhead_internal.runs WHERE id = '{run}'")
        with self.assertRaises((http.client.IncompleteRead, ConnectionError)):
            slow.answer.read()
        self.assertEqual(self.daemon.sql("SELECT count(*) FROM bulkhead_internal.run_artifact_parts p LEFT JOIN bulkhead_internal.run_artifacts a"
                                         " ON a.id = p.artifact WHERE a.id IS NULL"), [["0"]])


class Attempts(DaemonTest):
    def test_what_a_lost_attempt_has_left_does_not_appear_among_the_files_of_the_next(self):
        daemon = self.daemon(**JOBBER)
        run = leave(daemon, [{"name": "a.txt", "text": "x"}, {"name": "b.txt", "text": "x"}], wait="60s", dieAt=1, onlyAt=1)
        self.assertEqual((run["status"], run["attempt"], run["artifacts"]), ("SUCCEEDED", 2, []), run)
        self.assertError(daemon.get(f"/api/v1/runs/{run['id']}/artifacts/a.txt"), 404, "ARTIFACT_NOT_FOUND")

    def test_a_failed_run_keeps_what_its_last_attempt_has_left(self):
        daemon = self.daemon(**JOBBER)
        run = leave(daemon, [{"name": "screenshot.png", "type": "image/png", "text": "PNG"}], wait="60s", fails=True)
        self.assertEqual((run["status"], run["attempt"], [a["name"] for a in run["artifacts"]]), ("FAILED", 3, ["screenshot.png"]), run)
        self.assertEqual(Download(daemon, f"/api/v1/runs/{run['id']}/artifacts/screenshot.png").body, b"PNG")

    def test_they_are_there_after_a_restart_and_go_with_the_module(self):
        daemon = self.daemon(**JOBBER)
        run = leave(daemon, [{"name": "kept.bin", "size": MIB}])["id"]
        daemon.kill()
        daemon.start()
        self.assertEqual(Download(daemon, f"/api/v1/runs/{run}/artifacts/kept.bin").body, pattern(MIB))
        self.assertEqual(daemon.post("/api/v1/modules/jobber/disable?wait=60s").status, 200)
        self.assertEqual(daemon.delete("/api/v1/modules/jobber?purge=true").status, 200)
        for table in ("run_artifacts", "run_artifact_parts"):
            self.assertEqual(daemon.sql(f"SELECT count(*) FROM bulkhead_internal.{table}"), [["0"]])

    def test_they_go_with_the_history_of_the_job(self):
        daemon = self.daemon(**JOBBER)
        for n in range(160):
            daemon.post("/api/v1/modules/jobber/jobs/leave/run", {"payload": {"files": [{"name": "n", "text": str(n)}]}})
        wait_until(lambda: daemon.sql("SELECT count(*) FROM bulkhead_internal.runs WHERE status IN ('QUEUED', 'RUNNING')") == [["0"]], "their end", 60 * SLOW)

        def trimmed():
            leave(daemon, [])
            runs = int(daemon.sql("SELECT count(*) FROM bulkhead_internal.runs")[0][0])
            return runs < 160 and int(daemon.sql("SELECT count(*) FROM bulkhead_internal.run_artifacts")[0][0]) <= runs

        wait_until(trimmed, "the history's end", 60 * SLOW)

    def test_a_database_that_is_away_for_a_moment_loses_no_file(self):
        daemon = self.daemon(**JOBBER)
        run = leave(daemon, [{"name": f"f{n}", "size": MIB} for n in range(12)], wait="false")["id"]
        begun(daemon, run)
        with open(f"{daemon.data}/postgres/postmaster.pid", encoding="ascii") as pid_file:
            os.kill(int(pid_file.readline()), signal.SIGKILL)

        def done():
            answer = daemon.get(f"/api/v1/runs/{run}")
            return answer.data if answer.status == 200 and answer.data["status"] not in ("QUEUED", "RUNNING") else None

        result = wait_until(done, "the run's end", 60 * SLOW)
        self.assertEqual((result["status"], result["result"]["refused"], len(result["artifacts"])), ("SUCCEEDED", [], 12), result)


if __name__ == "__main__":
    harness.main()
