"""Files of modules: the whole way from context.files() of fakes/keeper to the supervisor's disk and to an operator's download, with a quota at its edge,
hostile names, and processes that are killed in the middle."""

import concurrent.futures
import hashlib
import http.client
import os
import pathlib
import signal
import subprocess
import threading
import time
import unittest
import urllib.parse

import harness
from artifacts_test import Download
from harness import SLOW, DaemonTest, SharedDaemonTest, copies, wait_until

MODULES = harness.BUILD / "tests" / "files" / "modules"
MIB = 1 << 20
QUOTA, MOST_FILES = 8 * MIB, 20  # of fakes/keeper's manifest
KEEPER = {"modules": ["keeper"], "modules_dir": MODULES}


class Keeper:
    """A module of the test's, whose answers name their worker."""

    def __init__(self, daemon, name="keeper"):
        self.daemon, self.name, self.path = daemon, name, f"/api/v1/m/{name}"

    def answer(self, op, name="", **body):
        return self.daemon.post(f"{self.path}/do", {"op": op, "name": name, **body}, timeout=60 * SLOW)

    def do(self, op, name="", **body):
        answer = self.answer(op, name, **body)
        if answer.status != 200:
            raise AssertionError(f"{op} {name}: {answer}")
        return answer.data

    def on(self, slot, op, name="", **body):
        """The same, asked until that worker has answered. For what may be asked more than once."""
        return wait_until(lambda: (lambda data: data if data["slot"] == slot else None)(self.do(op, name, **body)), f"an answer of worker {slot}")

    def get(self, name, **range_):
        return self.do("get", name, **range_)["text"]

    def names(self, **page):
        return [file["name"] for file in self.do("list", **page)["files"]]

    def space(self):
        space = self.do("space")
        return space["bytes"], space["files"]

    def clear(self):
        for name in self.names():
            self.do("remove", name)

    def status(self):
        return self.daemon.module(self.name)["files"]

    def pids(self):
        return [worker["pid"] for worker in self.daemon.module(self.name)["workers"]]

    def connect(self):
        host, port = self.daemon.address.rsplit(":", 1)
        return http.client.HTTPConnection(host, int(port), timeout=60 * SLOW)


def left_over(daemon):
    """What is on its way in, or was."""
    return sorted(path.name for path in (daemon.data / "files" / ".new").iterdir())


def on_disk(daemon, module="keeper"):
    folder = daemon.data / "files" / module
    return {path.name.replace("\\", "/"): path.stat().st_size for path in folder.iterdir()} if folder.exists() else {}


class Kept(SharedDaemonTest):
    options = KEEPER

    def setUp(self):
        self.keeper = Keeper(self.daemon)
        self.keeper.clear()

    def test_what_one_worker_puts_the_other_gets_whole_and_in_ranges(self):
        self.keeper.on(0, "put", "reports/2026/a.txt", text="0123456789")
        for slot in (0, 1):
            self.assertEqual(self.keeper.on(slot, "get", "reports/2026/a.txt")["text"], "0123456789")
        self.keeper.on(1, "put", "reports/2026/a.txt", text="grün\0bytes")
        self.assertEqual(self.keeper.on(0, "get", "reports/2026/a.txt")["text"], "grün\0bytes")
        self.keeper.do("put", "a", text="0123456789")
        self.assertEqual([self.keeper.get("a", offset=4), self.keeper.get("a", offset=2, length=3), self.keeper.get("a", offset=8, length=99),
                          self.keeper.get("a", offset=10), self.keeper.get("a", length=0)], ["456789", "234", "89", "", ""])
        self.assertIsNone(self.keeper.get("nothing"))
        self.assertIsNone(self.keeper.do("stat", "nothing")["file"])
        stat = self.keeper.do("stat", "a")["file"]
        self.assertEqual((stat["name"], stat["bytes"]), ("a", 10))
        self.assertAlmostEqual(stat["at"] / 1000, time.time(), delta=60 * SLOW)

    def test_lists_by_prefix_page_by_page(self):
        for name in ("b", "a/3", "a/1", "a/2", "a", "äh"):
            self.keeper.do("put", name, text=name)
        self.assertEqual(self.keeper.names(), ["a", "a/1", "a/2", "a/3", "b", "äh"])
        first = self.keeper.do("list", prefix="a/", limit=2)
        self.assertEqual(([file["name"] for file in first["files"]], first["more"]), (["a/1", "a/2"], True))
        second = self.keeper.do("list", prefix="a/", after="a/2", limit=2)
        self.assertEqual(([file["name"] for file in second["files"]], second["more"]), (["a/3"], False))
        self.assertEqual(self.keeper.do("list", limit=1_001)["error"], "invalid_argument")

    def test_removes_and_renames(self):
        self.keeper.do("put", "a", text="one")
        self.keeper.do("put", "b", text="second")
        self.assertEqual([self.keeper.do("rename", "a", to="b")["renamed"], self.keeper.do("rename", "a", to="b")["renamed"]], [True, False])
        self.assertEqual((self.keeper.get("a"), self.keeper.get("b"), self.keeper.space()), (None, "one", (3, 1)))
        self.assertEqual([self.keeper.do("remove", "b")["removed"], self.keeper.do("remove", "b")["removed"]], [True, False])
        self.assertEqual((self.keeper.space(), on_disk(self.daemon)), ((0, 0), {}))

    def test_names_that_are_none_are_refused_and_nothing_is_written(self):
        before = sorted(str(path) for path in self.daemon.data.rglob("*") if "postgres" not in path.parts and "logs" not in path.parts)
        for name in ("", "/", "/etc/passwd", "..", "../keeper/a", "a/../../../admin.token", "a/..", "a//b", "a/", "./a", "a\\b", "..\\a", "a\0b", "a\nb",
                     "n" * 241, "ü" * 121):
            for op in ("put", "get", "stat", "remove"):
                answer = self.keeper.do(op, name, text="x")
                self.assertEqual(answer.get("error"), "invalid_argument", (op, name, answer))
            self.assertEqual(self.keeper.do("rename", "a", to=name).get("error"), "invalid_argument", name)
        self.assertEqual(sorted(str(path) for path in self.daemon.data.rglob("*") if "postgres" not in path.parts and "logs" not in path.parts), before)
        for name in ("n" * 240, "ü" * 120, "...", "a/b c/ü; 100%.txt", ".new", "-rf"):
            self.assertNotIn("error", self.keeper.do("put", name, text=name))
            self.assertEqual(self.keeper.get(name), name)

    def test_the_quota_holds_to_the_byte_and_to_the_file(self):
        self.keeper.do("put", "half", size=QUOTA // 2)
        self.assertEqual(self.keeper.do("put", "rest", size=QUOTA // 2)["file"]["bytes"], QUOTA // 2)
        refused = self.keeper.do("put", "more", text="x")
        self.assertEqual((refused["error"], refused["code"]), ("NoRoom", "QUOTA_EXCEEDED"), refused)
        self.assertIn("limits.storage", refused["what"])
        self.assertEqual(self.keeper.do("slow", "more", parts=3, size=10)["code"], "QUOTA_EXCEEDED")
        self.assertEqual(self.keeper.do("put", "half", size=QUOTA // 2, of="y")["file"]["bytes"], QUOTA // 2)
        self.assertEqual(self.keeper.do("put", "half", size=QUOTA // 2 + 1)["code"], "QUOTA_EXCEEDED")
        half = self.keeper.do("whole", "half")
        self.assertEqual((half["whole"], half["of"], half["bytes"]), (True, "y", QUOTA // 2))
        self.assertEqual((self.keeper.space(), left_over(self.daemon)), ((QUOTA, 2), []))
        self.keeper.clear()
        for n in range(MOST_FILES):
            self.keeper.do("put", f"f{n}")
        refused = self.keeper.do("put", "one more")
        self.assertEqual(refused["code"], "QUOTA_EXCEEDED")
        self.assertIn("limits.files", refused["what"])
        self.keeper.do("put", "f0", text="that is there")
        self.assertEqual(self.keeper.space(), (13, MOST_FILES))

    def test_a_handler_that_lets_it_pass_answers_507(self):
        answer = self.keeper.answer("put", "large", size=QUOTA + 1, **{"pass": True})
        self.assertError(answer, 507, "QUOTA_EXCEEDED")

    def test_of_two_workers_that_together_want_too_much_one_is_refused(self):
        for _round in range(3):
            self.keeper.clear()
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                # Both are in the middle when the first of them comes to the edge.
                both = [pool.submit(self.keeper.do, "slow", f"f{n}", parts=6, size=MIB - 1, ms=40) for n in (0, 1)]
                answers = [one.result() for one in both]
            self.assertEqual(sorted(answer.get("code", "stored") for answer in answers), ["QUOTA_EXCEEDED", "stored"], answers)
            self.assertEqual((self.keeper.space(), left_over(self.daemon)), ((6 * (MIB - 1), 1), []))

    def test_many_at_once_never_pass_the_quota_and_what_was_answered_is_there(self):
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(lambda n: self.keeper.do("put", f"f{n}", size=MIB, of=chr(97 + n)), range(15)))
        stored = {answer["file"]["name"] for answer in answers if "file" in answer}
        self.assertEqual({answer.get("code") for answer in answers if "file" not in answer}, {"QUOTA_EXCEEDED"})
        self.assertEqual((len(stored), set(self.keeper.names())), (QUOTA // MIB, stored))
        for name in stored:
            self.assertTrue(self.keeper.do("whole", name)["whole"])

    def test_the_last_of_several_at_once_is_there_whole(self):
        sizes = {chr(97 + n): 200_000 + n * 1_000 for n in range(10)}
        stop = threading.Event()
        seen = []

        def read():
            while not stop.is_set():
                seen.append(self.keeper.do("whole", "contested"))

        with concurrent.futures.ThreadPoolExecutor(14) as pool:
            readers = [pool.submit(read) for _ in range(2)]
            list(pool.map(lambda of: self.keeper.do("put", "contested", size=sizes[of], of=of), list(sizes) * 3))
            stop.set()
            for reader in readers:
                reader.result()
        last = self.keeper.do("whole", "contested")
        for look in [*(look for look in seen if look["there"]), last]:
            self.assertEqual((look["whole"], look["bytes"]), (True, sizes[look["of"]]), look)
        self.assertEqual((self.keeper.space(), on_disk(self.daemon)), ((last["bytes"], 1), {"contested": last["bytes"]}))

    def test_what_is_given_up_or_broken_off_leaves_nothing(self):
        self.keeper.do("put", "a", text="old")
        self.keeper.do("slow", "a", parts=2, size=1_000, abandon=True)
        wait_until(lambda: left_over(self.daemon) == [], "the end of what was given up")
        connection = self.keeper.connect()
        connection.putrequest("PUT", f"{self.keeper.path}/files/a")
        connection.putheader("Authorization", f"Bearer {self.daemon.token}")
        connection.putheader("Content-Length", str(MIB))
        connection.endheaders(b"x" * 200_000)
        wait_until(lambda: left_over(self.daemon), "the beginning of the upload")
        connection.close()
        wait_until(lambda: left_over(self.daemon) == [], "the end of what was broken off")
        self.assertEqual((self.keeper.get("a"), self.keeper.space()), ("old", (3, 1)))

    def test_operators_list_and_download_them(self):
        names = ["a b/ü; 100%.txt", "a/1", "a/2", "a/3", "large"]
        for name in names[:-1]:
            self.keeper.do("put", name, text=name)
        self.keeper.do("put", "large", size=3 * MIB)
        listed = self.daemon.get("/api/v1/modules/keeper/files")
        self.assertEqual([(file["name"], file["bytes"]) for file in listed.data], [(name, len(name.encode())) for name in names[:-1]] + [("large", 3 * MIB)])
        self.assertEqual(listed.json["meta"], {"total": 5, "page": 1, "pageSize": 50})
        page = self.daemon.get("/api/v1/modules/keeper/files?prefix=a/&page=2&pageSize=2")
        self.assertEqual(([file["name"] for file in page.data], page.json["meta"]["total"]), (["a/3"], 3))
        got = Download(self.daemon, "/api/v1/modules/keeper/files/large")
        self.assertEqual((got.status, got.header("Content-Length"), hashlib.sha256(got.body).digest()),
                         (200, str(3 * MIB), hashlib.sha256(b"x" * (3 * MIB)).digest()))
        got = Download(self.daemon, "/api/v1/modules/keeper/files/" + urllib.parse.quote(names[0]))
        self.assertEqual((got.body.decode(), got.header("X-Content-Type-Options"), got.header("Content-Type")),
                         (names[0], "nosniff", "application/octet-stream"))
        self.assertEqual(got.header("Content-Disposition"), "attachment; filename=\"____100_.txt\"; filename*=UTF-8''%C3%BC%3B%20100%25.txt")
        self.keeper.do("put", "empty")
        self.assertEqual(Download(self.daemon, "/api/v1/modules/keeper/files/empty").body, b"")
        self.assertError(self.daemon.get("/api/v1/modules/keeper/files/a"), 404, "FILE_NOT_FOUND")
        self.assertError(self.daemon.get("/api/v1/modules/nobody/files"), 404, "MODULE_NOT_FOUND")
        self.assertError(self.daemon.get("/api/v1/modules/nobody/files/a"), 404, "MODULE_NOT_FOUND")
        for path in ("..%2fadmin.token", "a/..%2f..%2f..%2fadmin.token", "%2fetc/passwd", "a%5cb"):
            self.assertIn(self.daemon.get(f"/api/v1/modules/keeper/files/{path}").status, (400, 404), path)

    def test_reading_them_asks_for_its_own_permission(self):
        self.keeper.do("put", "a", text="one")
        for permission, allowed in (("files:read", True), ("module:keeper:files:read", True), ("module:keeper:*", True), ("modules:read", False),
                                    ("module:other:files:read", False)):
            token = self.daemon.make_token("t-" + permission.replace(":", "-").replace("*", "all"), permission)
            for path in ("files", "files/a"):
                answer = self.daemon.get(f"/api/v1/modules/keeper/{path}", token=token)
                self.assertEqual(answer.status, 200 if allowed else 403, (permission, path, answer))

    def test_status_and_metrics_tell_what_is_used(self):
        self.keeper.do("put", "a", size=1_234)
        self.keeper.do("put", "b", size=QUOTA)  # refused
        self.assertEqual(self.keeper.status(), {"bytes": 1_234, "count": 1, "maxBytes": QUOTA, "maxCount": MOST_FILES})
        page = self.daemon.get("/metrics").body.decode()
        for sample in ('bulkhead_files_bytes{module="keeper"} 1234', f'bulkhead_files_limit_bytes{{module="keeper"}} {QUOTA}',
                       'bulkhead_files_stored{module="keeper"} 1', f'bulkhead_files_limit{{module="keeper"}} {MOST_FILES}',
                       'bulkhead_files_refused_total{module="keeper",reason="disk"} 0'):
            self.assertIn(sample, page)
        refused = next(line for line in page.splitlines() if line.startswith('bulkhead_files_refused_total{module="keeper",reason="quota"}'))
        self.assertGreaterEqual(float(refused.split()[-1]), 1)

    def test_only_the_supervisor_may_enter_the_folder(self):
        self.keeper.do("put", "a", text="one")
        with open(f"/proc/{self.daemon.process.pid}/status", encoding="ascii") as status:
            uid = int(next(line for line in status if line.startswith("Uid:")).split()[2])
        for path in (self.daemon.data / "files", self.daemon.data / "files" / "keeper", self.daemon.data / "files" / "keeper" / "a"):
            self.assertEqual((path.stat().st_mode & 0o077, path.stat().st_uid), (0, uid), path)


class Large(SharedDaemonTest):
    """64 MiB through a supervisor that has no such memory to spare."""

    options = {**KEEPER, "modules_dir": None}

    @classmethod
    def setUpClass(cls):
        cls.modules = pathlib.Path(harness.tempfile.mkdtemp(prefix="bh-", dir="/tmp"))
        copies(MODULES / "keeper", ["keeper"], cls.modules, limits={"storage": "256Mi"})
        cls.options = {"modules": ["keeper"], "modules_dir": cls.modules}
        super().setUpClass()

    def test_it_goes_in_and_out_in_parts_and_nobody_waits_for_it(self):
        keeper, daemon, size = Keeper(self.daemon), self.daemon, 64 * MIB

        def resident():
            with open(f"/proc/{daemon.process.pid}/statm", encoding="ascii") as statm:
                return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")

        before, most, slowest, stop = resident(), [0], [0.0], threading.Event()

        def watch():
            while not stop.is_set():
                began = time.monotonic()
                daemon.get("/api/v1/modules/keeper")
                slowest[0] = max(slowest[0], time.monotonic() - began)
                most[0] = max(most[0], resident() - before)
                time.sleep(0.02)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            content = os.urandom(MIB) * 64
            with concurrent.futures.ThreadPoolExecutor(3) as pool:
                def upload(n):
                    connection = keeper.connect()
                    connection.request("PUT", f"{keeper.path}/files/large{n}", content, {"Authorization": f"Bearer {daemon.token}"})
                    answer = connection.getresponse()
                    text = answer.read()
                    connection.close()
                    return answer.status, text
                for status, text in pool.map(upload, range(3)):
                    self.assertEqual(status, 200, text)
            for n in range(3):
                got = Download(daemon, f"{keeper.path}/files/large{n}")
                self.assertEqual(hashlib.sha256(got.body).digest(), hashlib.sha256(content).digest())
            self.assertEqual(hashlib.sha256(Download(daemon, "/api/v1/modules/keeper/files/large0").body).digest(), hashlib.sha256(content).digest())
            idle = [Download(daemon, f"/api/v1/modules/keeper/files/large{n % 3}", read=False) for n in range(8)]  # nobody reads
            watched = time.monotonic() + 2
            while time.monotonic() < watched:
                self.assertLess(resident() - before, size, "eight readers of 64 MiB who do not read")
                time.sleep(0.1)
            for download in idle:
                download.connection.close()
        finally:
            stop.set()
            watcher.join()
        self.assertLess(most[0], size, "of 192 MiB that went through")
        self.assertLess(slowest[0], 10 * SLOW, "the supervisor answered all the while")


class Lives(DaemonTest):
    def test_they_outlive_restarts_a_disable_and_an_upgrade_and_go_with_the_modules_data(self):
        daemon = self.daemon(**KEEPER)
        keeper = Keeper(daemon)
        keeper.do("put", "kept/a", text="one")
        self.assertEqual(daemon.post("/api/v1/modules/keeper/restart?wait=60s").status, 200)
        self.assertEqual(keeper.get("kept/a"), "one")
        daemon.stop()
        daemon.start()
        self.assertEqual((keeper.get("kept/a"), keeper.space()), ("one", (3, 1)))
        self.assertEqual(daemon.post("/api/v1/modules/keeper/disable?wait=60s").status, 200)
        self.assertEqual(keeper.status(), {"bytes": 3, "count": 1, "maxBytes": QUOTA, "maxCount": MOST_FILES})
        self.assertEqual(daemon.get("/api/v1/modules/keeper/files").json["meta"]["total"], 1)
        self.assertEqual(daemon.post("/api/v1/modules/keeper/enable?wait=60s").status, 200)
        newer = self.temporary_folder(0o755)
        copies(MODULES / "keeper", ["keeper"], newer, version="1.1.0", limits={"storage": 2})
        self.assertEqual(daemon.post("/api/v1/modules/keeper/upgrade?wait=60s", {"path": str(newer / "keeper")}).status, 200)
        wait_until(lambda: keeper.status()["maxBytes"] == 2, "the end of the last process of the old version")
        self.assertEqual(keeper.get("kept/a"), "one", "a smaller quota takes nothing away")
        self.assertEqual(keeper.do("put", "b", text="x")["code"], "QUOTA_EXCEEDED")
        self.assertEqual(keeper.do("put", "kept/a", text="ONE")["file"]["bytes"], 3)
        self.assertEqual(daemon.post("/api/v1/modules/keeper/disable?wait=60s").status, 200)
        self.assertEqual(daemon.delete("/api/v1/modules/keeper").status, 200)
        self.assertEqual(on_disk(daemon), {"kept/a": 3}, "as the schema is")
        self.assertEqual(daemon.post("/api/v1/modules/rescan").status, 200)
        self.assertEqual(daemon.post("/api/v1/modules/keeper/enable?wait=60s").status, 200)
        self.assertEqual(keeper.get("kept/a"), "ONE")
        self.assertEqual(daemon.post("/api/v1/modules/keeper/disable?wait=60s").status, 200)
        self.assertEqual(daemon.delete("/api/v1/modules/keeper?purge=true").status, 200)
        self.assertFalse((daemon.data / "files" / "keeper").exists())

    def test_the_operators_bound_counts_whatever_the_manifest_asks_for(self):
        daemon = self.daemon(**KEEPER, config="files:\n  maxBytesPerModule: 1KiB\n")
        keeper = Keeper(daemon)
        self.assertEqual(keeper.status()["maxBytes"], 1_024)
        self.assertNotIn("error", keeper.do("put", "a", size=1_024))
        self.assertEqual(keeper.do("put", "b", text="x")["code"], "QUOTA_EXCEEDED")

    def test_a_worker_that_is_killed_in_the_middle_leaves_the_old_file_and_its_room(self):
        daemon = self.daemon(**KEEPER)
        keeper = Keeper(daemon)
        keeper.do("put", "a", text="old")
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            lost = pool.submit(keeper.answer, "slow", "a", parts=100, size=10_000, ms=100, reserve=7 * MIB)
            wait_until(lambda: left_over(daemon), "the beginning of the put")
            for pid in keeper.pids():
                os.kill(pid, signal.SIGKILL)
            self.assertIn(lost.result().status, (502, 503))
        wait_until(lambda: left_over(daemon) == [], "the end of the put")
        daemon.wait_observed("keeper", "RUNNING")
        self.assertEqual((keeper.get("a"), keeper.space()), ("old", (3, 1)))
        self.assertNotIn("error", keeper.do("put", "b", size=QUOTA - 3))

    def test_a_supervisor_that_is_killed_in_the_middle_leaves_old_or_new_and_counts_again(self):
        daemon = self.daemon(**KEEPER)
        for kill in range(4):
            keeper = Keeper(daemon)
            keeper.do("put", "steady", size=100_000, of="s")
            acknowledged, stop = {"of": None}, threading.Event()

            def write(keeper=keeper, acknowledged=acknowledged, stop=stop):
                for n in range(1_000):
                    of = chr(97 + n % 26)
                    try:
                        if stop.is_set() or "file" not in keeper.do("put", "changing", size=50_000 + n % 26, of=of):
                            return
                    except (OSError, AssertionError, http.client.HTTPException):
                        return  # the supervisor has gone
                    acknowledged["of"] = of

            writer = threading.Thread(target=write)
            hanging = threading.Thread(target=lambda keeper=keeper: self._ignore(keeper.answer, "slow", "hanging", parts=200, size=10_000, ms=50))
            writer.start()
            hanging.start()
            wait_until(lambda: acknowledged["of"] and left_over(daemon), "puts under way")
            time.sleep(0.05 * kill)
            daemon.kill()
            stop.set()
            writer.join()
            hanging.join()
            daemon.start()
            self.assertEqual(left_over(daemon), [])
            keeper = Keeper(daemon)
            changing = keeper.do("whole", "changing")
            newest = chr(97 + (ord(acknowledged["of"]) - 97 + 1) % 26)
            self.assertIn(changing["of"], (acknowledged["of"], newest), "what was answered, or the one behind it")
            self.assertEqual((changing["whole"], changing["bytes"]), (True, 50_000 + ord(changing["of"]) - 97))
            self.assertEqual(keeper.do("whole", "steady")["of"], "s")
            self.assertEqual((keeper.names(), keeper.space()), (["changing", "steady"], (100_000 + changing["bytes"], 2)))

    @staticmethod
    def _ignore(call, *arguments, **named):
        try:
            call(*arguments, **named)
        except (OSError, http.client.HTTPException):
            pass

    @unittest.skipUnless(harness.IS_ROOT, "only root can mount a small file system")
    def test_a_full_disk_is_told_and_loses_nothing(self):
        daemon = self.daemon(start=False, **KEEPER)
        files = daemon.data / "files"
        files.mkdir(parents=True)
        daemon.data.chmod(0o711)
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m,mode=0700", "tmpfs", str(files)], capture_output=True, text=True, check=False)
        if mounted.returncode != 0:
            self.skipTest(f"no tmpfs can be mounted here: {mounted.stderr}")
        self.addCleanup(subprocess.run, ["umount", "-l", str(files)], check=False)
        self.addCleanup(daemon.stop)
        daemon.start()
        keeper = Keeper(daemon)
        keeper.do("put", "a", size=2 * MIB, of="o")
        for op in ({"op": "put", "size": 2 * MIB}, {"op": "slow", "parts": 20, "size": 100_000}):
            refused = keeper.do(op.pop("op"), "a", of="n", **op)
            self.assertEqual((refused["error"], refused["code"]), ("NoRoom", "DISK_FULL"), refused)
        self.assertError(keeper.answer("put", "b", size=2 * MIB, **{"pass": True}), 507, "DISK_FULL")
        self.assertEqual((keeper.do("whole", "a")["of"], keeper.space(), left_over(daemon)), ("o", (2 * MIB, 1), []))
        self.assertIn('bulkhead_files_refused_total{module="keeper",reason="disk"} 3', daemon.get("/metrics").body.decode())
        keeper.do("remove", "a")
        self.assertNotIn("error", keeper.do("put", "b", size=2 * MIB))


class Apart(SharedDaemonTest):
    """Two modules with the same program: what one keeps is nothing to the other."""

    @classmethod
    def setUpClass(cls):
        cls.modules = pathlib.Path(harness.tempfile.mkdtemp(prefix="bh-", dir="/tmp"))
        copies(MODULES / "keeper", ["one", "two"], cls.modules)
        cls.options = {"modules": ["one", "two"], "modules_dir": cls.modules}
        super().setUpClass()

    def test_the_same_name_is_two_files_and_each_has_its_own_quota(self):
        one, two = Keeper(self.daemon, "one"), Keeper(self.daemon, "two")
        one.do("put", "a", size=QUOTA, of="1")
        two.do("put", "a", size=QUOTA, of="2")
        self.assertEqual((one.do("whole", "a")["of"], two.do("whole", "a")["of"]), ("1", "2"))
        self.assertEqual(one.do("put", "b", text="x")["code"], "QUOTA_EXCEEDED")
        for name in ("../one/a", "../../files/one/a", "/one/a", "..\\one\\a"):
            self.assertEqual(two.do("get", name).get("error"), "invalid_argument", name)
        two.do("remove", "a")
        self.assertEqual(one.do("whole", "a")["bytes"], QUOTA)


if __name__ == "__main__":
    harness.main()
