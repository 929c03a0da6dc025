"""Every error code of the table (supervisor/base/status.cc, proto/ERRORS.md) is provoked: through REST or the gateway, and where the admin API
gives it, over gRPC too. Which status, code and gRPC status that must be, the table says; that every code has its test here, the last one.
"""

import concurrent.futures
import os
import pathlib
import re
import shutil
import signal
import sys

import harness
from harness import SLOW, DaemonTest, SharedDaemonTest, wait_until, write_module
from http_test import Wire
from migrate_test import hold, module_with
from misbehaving import write_misbehaving
from modules_test import echo_like
from provoked import Grpc, Refusal, Rest
from provokers import GATEWAY_ALONE, PROVOKERS
import store_test  # as a module: its tests are not ours

sys.path.insert(0, str(harness.SOURCE / "tests/interface"))

import errors  # noqa: E402

CLIENTS, PROCESSES = errors.table()
TABLE = {code.code: code for code in CLIENTS + PROCESSES}
LOCK_CLASS = 1651862635  # of the locks of migrations
NOT_STARTED = '#!/bin/sh\nread -r line <&3\necho \'{"error": "not to be started"}\' >&3\n'
HANGS = "#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 1; done\n"

KEPT = "kept for the clients of earlier versions: "
ENDS = "ends a start: "
# What no client gets: why, and of what has another test that one, with words that stand there.
EXCEPTIONS = {
    "NOT_FOUND": (KEPT + "each kind of thing has a code of its own", None),
    "MODULE_SKIPPED": (KEPT + "MODULE_NOT_RUNNING is said instead", None),
    "MODULE_NOT_A_DEPENDENCY": ("said to a module that calls another one",
                                ("integration/module_calls_test.py", "test_what_is_no_declared_dependency_is_refused_with_what_to_do")),
    "LOOP_DETECTED": ("said to a module that calls another one",
                      ("integration/module_calls_test.py", "test_a_call_that_has_come_through_too_many_modules_is_refused")),
    "QUOTA_EXCEEDED": ("said to a module that stores a file, and by it to its client",
                       ("integration/files_test.py", "test_a_handler_that_lets_it_pass_answers_507")),
    "DISK_FULL": ("said to a module that stores a file, and by it to its client",
                  ("integration/files_test.py", "test_a_full_disk_is_told_and_loses_nothing")),
    "LISTEN_FAILED": (ENDS + "a port in use", ("integration/bad_input_test.py", "test_a_port_in_use_is_named")),
    "DATA_IN_USE": (ENDS + "a data folder of another", ("integration/bad_input_test.py", "test_a_data_folder_held_by_another_supervisor_is_refused")),
    "UIDS_TAKEN": (ENDS + "user ids of another", ("integration/two_daemons_test.py", "test_configured_users_that_another_daemon_has_are_refused")),
    "POSTGRES_FAILED": (ENDS + "a folder that is no cluster", ("integration/bad_input_test.py", "test_a_postgresql_folder_of_something_else")),
    "MASTER_KEY_MISMATCH": (ENDS + "a database of another key", ("integration/store_test.py", "test_a_node_with_another_master_key_is_refused")),
    "SCHEMA_NEWER": (ENDS + "a database of a later version", ("integration/migrate_test.py", "test_a_database_of_a_later_version_is_refused")),
    "SERVER_UNREACHABLE": ("said by the client, which has no answer", ("integration/migrate_test.py", "UNREACHABLE, [")),
    "SPAWN_FAILED": ("the reason of a failed start, whose code is another", ("unit/process/spawner_test.cc", "SPAWN_FAILED")),
}


class Provoked:
    """What every test of a code looks at."""

    def assertRefusal(self, code, refusal, caller):
        row = TABLE[code]
        self.assertIsNotNone(refusal, f"{code} over {caller}: it was done")
        self.assertEqual((refusal.status, refusal.code), (row.grpc if caller == "gRPC" else row.http, code), f"over {caller}: {refusal}")
        self.assertTrue(refusal.request_id, refusal)
        self.assertGreaterEqual(len(refusal.message.split()), 4, f"no sentence: {refusal}")
        self.assertNotRegex(refusal.message, r"\n|\.cc:\d+|0x[0-9a-f]{8}| at [\w:]+\(|Traceback|terminate called", refusal)
        if code in ("TOO_MANY_ATTEMPTS", "MODULE_UNAVAILABLE"):
            self.assertGreaterEqual(int(refusal.retry_after), 1, refusal)


class Shared(Provoked, SharedDaemonTest):
    """All that breaks nothing, on one daemon. A test for each entry of PROVOKERS is added below."""

    @classmethod
    def setUpClass(cls):
        cls.modules = pathlib.Path(harness.tempfile.mkdtemp(prefix="bh-", dir="/tmp"))
        cls.modules.chmod(0o755)
        cls.write_modules()
        cls.options = {"modules": ["echo", "crashing", "malformed"], "modules_dir": cls.modules,
                       "env": {"FEATURE_FLAG_FIXED": "true", "BULKHEAD_STORE_EXTENSIONS": "pg_trgm,no-such-extension"}}
        super().setUpClass()
        cls.grpc = Grpc(cls.daemon)
        cls.rest = Rest(cls.daemon)
        # Those that take long run beside the others.
        cls.pool = concurrent.futures.ThreadPoolExecutor(4)
        cls.install("locked-a", "locked-b", "edited", "hole", "gone", "forward", "fails", "misnamed")
        cls.lock = hold(cls.daemon, *(f"pg_advisory_lock({LOCK_CLASS}, hashtext('locked-{x}'))" for x in "ab"))
        cls.locked = {caller.name: cls.pool.submit(caller, "Migrations.MigrateUp", name=name, wait="120s")
                      for caller, name in ((cls.rest, "locked-a"), (cls.grpc, "locked-b"))}
        cls.late = cls.pool.submit(cls.send_half_a_head, cls.daemon)

    @classmethod
    def tearDownClass(cls):
        cls.lock.communicate()
        cls.pool.shutdown()
        cls.grpc.close()
        super().tearDownClass()
        shutil.rmtree(cls.modules, ignore_errors=True)

    @classmethod
    def write_modules(cls):
        for name in ("echo", "crashing", "idle", "changed", "registered"):
            echo_like(cls.modules, name)
        write_misbehaving(cls.modules, "malformed", "link", {})
        echo_like(cls.modules, "needed")
        echo_like(cls.modules, "needing", dependencies={"modules": {"needed": "^1.0.0"}})
        write_module(cls.modules, "broken", entry="#!/bin/sh\nexit 3\n")
        write_module(cls.modules, "hangs", {"lifecycle": {"handshakeTimeout": 60000}}, entry=HANGS)
        write_module(cls.modules, "extended", {"database": {"extensions": ["dblink"]}}, entry=NOT_STARTED)
        write_module(cls.modules, "unavailable", {"database": {"extensions": ["no-such-extension"]}}, entry=NOT_STARTED)
        write_module(cls.modules, "unwritable", entry=NOT_STARTED)
        write_module(cls.modules, "reaching", {"access": {"files": ["/tmp"]}}, entry=NOT_STARTED)  # the data folder lies there
        write_module(cls.modules, "calling", {"capabilities": {"clients": ["shop"]}}, entry=NOT_STARTED)
        write_module(cls.modules, "strict", {"isolation": "strict"}, entry=NOT_STARTED)  # for the same reason, or not being root
        one, two, three = ({f"00{n}_{x}": f"CREATE TABLE {x} (n int);"} for n, x in enumerate("abc", 1))
        for name, files in {"locked-a": one, "locked-b": one, "edited": one, "forward": one, "hole": {**one, **two}, "gone": {**one, **three},
                            "fails": {"001_a": "SELECT nowhere;"}, "misnamed": {"1a": "SELECT 1;"}, "not-installed": one}.items():
            module_with(cls.modules, name, **files)

    @classmethod
    def install(cls, *names):
        for name in names:
            answer = cls.daemon.post(f"/api/v1/modules/{name}/install")
            assert answer.status == 200, answer

    @staticmethod
    def send_half_a_head(daemon):
        with Wire(daemon, timeout=60 * SLOW) as wire:
            return Refusal.of_answer(wire.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-").answer())

    # -- what the provokers use

    def get(self, path, **options):
        return Refusal.of_answer(self.daemon.get(path, **options))

    def wire(self, method, path, *headers, body=b"", version="HTTP/1.1"):
        with Wire(self.daemon) as wire:
            return Refusal.of_answer(wire.send(wire.head(method, path, *headers, version=version) + body).answer(method))

    def folder(self, name, **files):
        folder = self.modules.parent / f"{self.modules.name}.{name}"
        if not folder.exists():
            folder.mkdir()
            folder.chmod(0o755)
            self.addClassCleanup(shutil.rmtree, folder)
            for file, text in files.items():
                (folder / file.replace("_", ".")).write_text(text)
        return str(folder)

    def registered(self, name, **more):
        manifest = {"manifestVersion": 1, "name": name, "version": "1.0.0", "displayName": name, "description": "made by a test", "author": "tests"}
        answer = self.daemon.post("/api/v1/modules", {"manifest": manifest, **more})
        self.assertIn(answer.status, (201, 409), answer)
        return name

    def made(self, path, body):
        answer = self.daemon.post(path, body)
        self.assertIn(answer.status, (201, 409), answer)
        return answer

    def applied(self, name):
        answer = self.daemon.post(f"/api/v1/modules/{name}/migrations/up")
        self.assertIn(answer.status, (200, 409), answer)


def _test_of(code, provoke):
    def over_both(self):
        for caller in (self.rest, self.grpc):
            with self.subTest(caller.name):
                self.assertRefusal(code, provoke(self, caller), caller.name)

    def over_http(self):
        self.assertRefusal(code, provoke(self), "HTTP")

    return over_http if code in GATEWAY_ALONE else over_both


for _code, _provoke in PROVOKERS.items():
    setattr(Shared, f"test_{_code}_is_answered_as_the_table_says", _test_of(_code, _provoke))


class InDetails(Provoked, SharedDaemonTest):
    options = {}

    def test_CRON_INVALID_stands_in_the_details_of_an_invalid_manifest(self):
        jobs = {"handlers": [{"name": "work", "schedule": "61 * * * *"}]}
        grpc = Grpc(self.daemon)
        self.addCleanup(grpc.close)
        for caller in (Rest(self.daemon), grpc):
            with self.subTest(caller.name):
                refusal = caller("Modules.RegisterModule", manifest={"name": "odd-hours", "version": "1.0.0", "capabilities": {"jobs": jobs}})
                self.assertRefusal("MANIFEST_INVALID", refusal, caller.name)
                self.assertIn(("/capabilities/jobs/handlers/0/schedule", "CRON_INVALID"), refusal.details)


class Broken(Provoked, DaemonTest):
    """What is provoked by taking something away from the daemon: its keys, its database, its life."""

    private_store = True

    def setUp(self):
        super().setUp()
        modules = self.temporary_folder(0o755)
        echo_like(modules, "echo")
        self.running = self.daemon(modules=["echo"], modules_dir=modules)

    def callers(self):
        grpc = Grpc(self.running)
        self.addCleanup(grpc.close)
        return Rest(self.running), grpc

    def assertBoth(self, code, method, **fields):
        for caller in self.callers():
            with self.subTest(caller.name):
                self.assertRefusal(code, caller(method, **fields), caller.name)

    def test_SECRET_UNREADABLE_is_answered_when_the_key_is_lost(self):
        self.assertEqual(self.running.put("/api/v1/modules/echo/config", {"config": {"apiKey": "top secret"}}).status, 200)
        self.assertEqual(self.running.post("/api/v1/modules/echo/disable").status, 200)
        self.running.stop()
        keys = self.running.data / "secrets" / "config.keys"
        keys.write_text("22" * 32 + "\n")
        self.running.start()
        self.assertBoth("SECRET_UNREADABLE", "System.RotateSecrets")

    def test_DATABASE_UNAVAILABLE_is_answered_while_it_hangs(self):
        pid, _addresses = store_test.postmaster(self.running)
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_until(lambda: not store_test.PrivateServer.cut_off(pid), "no connection is left")
            self.assertBoth("DATABASE_UNAVAILABLE", "Jobs.ListRuns", module="echo", job="work")
        finally:
            os.kill(pid, signal.SIGCONT)

    def test_SHUTTING_DOWN_is_answered_to_who_waits_for_a_run(self):
        callers = self.callers()
        runs = "/api/v1/modules/echo/jobs/work/runs?status="
        self.assertEqual(self.running.post("/api/v1/modules/echo/jobs/work/run", {"payload": {"ms": 4500}}).status, 202)
        wait_until(lambda: len(self.running.get(runs + "RUNNING").data) == 1, "one runs, behind which the others wait")
        with concurrent.futures.ThreadPoolExecutor(2) as threads:
            refusals = [threads.submit(caller, "Jobs.RunJob", module="echo", job="work", wait="60s") for caller in callers]
            wait_until(lambda: len(self.running.get(runs + "QUEUED").data) == len(callers), "both wait")
            self.running.stop()
            for caller, refusal in zip(callers, refusals):
                self.assertRefusal("SHUTTING_DOWN", refusal.result(), caller.name)


class Everything(Provoked, harness.unittest.TestCase):
    def test_every_code_of_the_table_is_provoked_or_has_a_reason_why_not(self):
        text = pathlib.Path(__file__).read_text()
        provoked = set(PROVOKERS) | set(re.findall(r"def test_([A-Z_]+)_", text))
        self.assertEqual(provoked & set(EXCEPTIONS), set())
        self.assertEqual(set(TABLE) - provoked - set(EXCEPTIONS), set(), "provoke it, or say in EXCEPTIONS why no client gets it")
        self.assertEqual((provoked | set(EXCEPTIONS)) - set(TABLE), set(), "no longer in the table")
        self.assertLessEqual({code.code for code in PROCESSES}, set(EXCEPTIONS))

    def test_what_no_client_gets_is_tested_where_it_is_said(self):
        for code, (_why, other) in EXCEPTIONS.items():
            with self.subTest(code):
                if other is None:
                    self.assertNotIn(code, {entry.code for entry in PROCESSES})
                    continue
                file, words = other
                self.assertIn(words, (harness.SOURCE / "tests" / file).read_text())


if __name__ == "__main__":
    harness.main()
