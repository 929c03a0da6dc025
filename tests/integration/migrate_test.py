"""bulkhead migrate against the real daemon, and what a daemon does about migrations of others: the client half of the binary with its
tables, JSON, errors and exit codes, as the administrator and as somebody else."""

import json
import os
import pathlib
import pty
import pwd
import shutil
import subprocess
import threading
import unittest

import harness
from harness import IS_ROOT, SLOW, DaemonTest, SharedDaemonTest, run_serve, wait_until, write_module
from own_server import OwnServer

MODULE = "consumption-monitor"
DONE, REFUSED, USAGE, UNREACHABLE, UNFINISHED = range(5)
MIGRATIONS = f"/api/v1/modules/{MODULE}/migrations"


def migrate(daemon, *arguments, env=None, token=...):
    """Runs bulkhead migrate against `daemon` as its administrator, or with another token; None for no token of its own."""
    environment = {"BULKHEAD_SERVER": daemon.admin_address, **(env or {})}
    if token is not None:
        environment["BULKHEAD_TOKEN"] = daemon.token if token is ... else token
    return run_serve("migrate", *arguments, env=environment)


def module_with(modules, name, **files):
    """A module of migrations alone: what its program would do is to refuse."""
    folder = write_module(modules, name, entry='#!/bin/sh\nread -r line <&3\necho \'{"error": "not to be started"}\' >&3\n')
    (folder / "migrations").mkdir(mode=0o755)
    for file, sql in files.items():
        (folder / "migrations" / f"{file}.sql").write_text(sql)
    return folder


def hold(daemon, *locks):
    """psql that holds advisory locks, by default the number 7, until its input ends or unlocks them."""
    if database := daemon.database():
        command, env = ["psql", "-X", "-q", database.url()], dict(os.environ)
    else:
        command = ["psql", "-X", "-q", f"host={daemon.data}/run/pg user=bulkhead dbname=bulkhead"]
        env = {**os.environ, "PGPASSWORD": harness._read(daemon.data / "secrets" / "postgres.password").decode().strip()}
    holder = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    holder.stdin.write("".join(f"SELECT {lock};\n" for lock in locks or ["pg_advisory_lock(7)"]) + "\\echo held\n")
    holder.stdin.flush()
    for line in holder.stdout:
        if line == "held\n":
            return holder
    raise AssertionError("psql ended")


class Migrate(DaemonTest):
    def refused(self, answer, code, *words):
        exit_code, out, err = answer
        self.assertEqual((exit_code, out), (REFUSED, ""), err)
        for word in (code, *words):
            self.assertIn(word, err)
        return err

    def test_a_real_module_is_taken_back_and_forth_and_runs_again(self):
        daemon = self.daemon(modules=[MODULE])
        code, out, err = migrate(daemon, "status", MODULE)
        self.assertEqual((code, err), (DONE, ""), err)
        self.assertIn(f"{MODULE}: 3 applied, 0 pending", out)
        self.assertRegex(out, r"(?m)^FILE +STATE +APPLIED +TOOK +DOWN +NOTE$")
        self.assertRegex(out, r"(?m)^001_endpoints\.sql +applied +\d{4}-\d\d-\d\dT\S+Z +\d+ ms +yes$")
        for command in ("up", "down"):
            self.refused(migrate(daemon, command, MODULE), "MODULE_ENABLED", "disable it first")
        self.assertEqual(daemon.post(f"/api/v1/modules/{MODULE}/disable").status, 200)

        code, out, _err = migrate(daemon, "down", "--dry-run", MODULE, "--to", "1")
        self.assertEqual(code, DONE)
        self.assertEqual([line.split()[0] for line in out.splitlines()[2:]], ["003_consumption.sql", "002_readings.sql"])
        self.assertEqual(migrate(daemon, "down", "--dry-run", MODULE, "--to", "9")[0], REFUSED)
        code, out, err = migrate(daemon, "down", MODULE)
        self.assertEqual((code, err), (DONE, ""))
        self.assertRegex(out, r"^rolled back 003_consumption\.sql \(\d+ ms\)\n$")
        self.assertRegex(migrate(daemon, "status", MODULE)[1], r"(?m)^003_consumption\.sql +rolled back +- +- +yes +rolled back \d{4}-")
        code, out, _err = migrate(daemon, "--dry-run", MODULE)
        self.assertEqual(code, DONE)
        self.assertRegex(out, r"(?m)^003_consumption\.sql +[0-9a-f]{12} +yes +\d+$")
        self.assertRegex(migrate(daemon, "up", MODULE)[1], r"^applied 003_consumption\.sql \(\d+ ms\)\n$")
        self.assertEqual(migrate(daemon, "up", MODULE)[:2], (DONE, "Nothing to do.\n"))

        self.assertEqual(migrate(daemon, "down", MODULE, "--to", "0")[0], DONE)
        tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'mod_consumption_monitor'"
        self.assertEqual(daemon.sql(tables), [["0"]], "nothing is left of it")
        # Enabling applies what is missing, and the module is what it was.
        self.assertEqual(daemon.post(f"/api/v1/modules/{MODULE}/enable").status, 200)
        self.assertEqual(daemon.get(f"/api/v1/m/{MODULE}/readings").status, 200)
        log = daemon.sql("SELECT number, action FROM bulkhead_internal.migration_log ORDER BY id")
        self.assertEqual([" ".join(row) for row in log],
                         ["1 applied", "2 applied", "3 applied", "3 rolled_back", "3 applied", "3 rolled_back", "2 rolled_back", "1 rolled_back",
                          "1 applied", "2 applied", "3 applied"])

    def test_a_failure_tells_file_line_column_and_sqlstate_and_is_resumed_when_corrected(self):
        modules = self.temporary_folder(0o755)
        module_with(modules, "stock", **{"001_a": "CREATE TABLE a (n int);", "002_b": "CREATE TABLE b (n int);\n-- ü\nSELECT 'ü', nowhere FROM b;\n"})
        daemon = self.daemon(modules_dir=modules)
        self.refused(migrate(daemon, "up", "stock"), "MODULE_NOT_INSTALLED", "install")
        self.assertEqual(daemon.post("/api/v1/modules/stock/install").status, 200)
        err = self.refused(migrate(daemon, "up", "stock"), "MIGRATION_FAILED", "002_b.sql of stock, line 3, column 13", "SQLSTATE 42703", "nowhere",
                           "(request ")
        self.assertIn("bulkhead migrate status", err)
        self.assertIn("1 applied, 1 pending", migrate(daemon, "status", "stock")[1])
        rest = daemon.post("/api/v1/modules/stock/migrations/up")
        self.assertError(rest, 502, "MIGRATION_FAILED")
        self.assertEqual((rest.error["details"][0]["path"], rest.error["details"][0]["line"], rest.error["details"][0]["code"]), ("002_b.sql", 3, "42703"))
        enabled = daemon.post("/api/v1/modules/stock/enable")
        self.assertError(enabled, 502, "MIGRATION_FAILED")
        self.assertEqual(enabled.error["details"], rest.error["details"], "an enable tells as much")
        self.assertEqual(daemon.module("stock")["status"], "DISABLED")

    def test_what_is_wrong_with_the_files_is_told_by_plan_and_status_and_refused_by_up(self):
        modules = self.temporary_folder(0o755)
        module_with(modules, "stock", **{"001_a": "CREATE TABLE a (n int);", "002_b": "SELECT 1;\n\\i more.sql\n", "003_c": "COPY a FROM stdin;\n1\n\\.\n"})
        daemon = self.daemon(modules_dir=modules)
        daemon.post("/api/v1/modules/stock/install")
        code, out, err = migrate(daemon, "--dry-run", "stock")
        self.assertEqual((code, err), (REFUSED, ""))
        self.assertIn("It would be refused:", out)
        self.assertIn("002_b.sql of stock, line 2, column 1: \\i is a command of psql", out)
        self.assertIn("003_c.sql of stock, line 1, column 1: COPY from STDIN", out)
        self.refused(migrate(daemon, "up", "stock"), "MIGRATION_FAILED", "002_b.sql")
        self.assertEqual(daemon.sql("SELECT count(*) FROM bulkhead_internal.migrations WHERE owner = 'stock'"), [["0"]], "nothing ran")
        daemon.sql("INSERT INTO bulkhead_internal.migrations VALUES ('stock', 1, '001_a.sql', 'another', NULL, now())")
        self.assertRegex(migrate(daemon, "status", "stock")[1], r"(?m)^001_a\.sql +applied .* edited$")
        self.refused(migrate(daemon, "up", "stock"), "MIGRATION_EDITED", "001_a.sql")

    def test_one_that_takes_long_is_seen_and_an_enable_waits_for_its_end(self):
        modules = self.temporary_folder(0o755)
        module_with(modules, "slow", **{"001_slow": "CREATE TABLE a (n int); SELECT pg_advisory_lock(7); SELECT pg_advisory_unlock(7);"})
        daemon = self.daemon(modules_dir=modules)
        daemon.post("/api/v1/modules/slow/install")
        holder = hold(daemon)
        answer = daemon.post("/api/v1/modules/slow/migrations/up?wait=false")
        self.assertEqual((answer.status, answer.json["meta"], answer.data["steps"]), (202, {"converged": False}, []))
        running = wait_until(lambda: daemon.get("/api/v1/modules/slow/migrations").data["running"], "it is seen running")
        self.assertEqual((running["file"], running["direction"]), ("001_slow.sql", "up"))
        self.assertIn("Running up: 001_slow.sql", migrate(daemon, "status", "slow")[1])
        enabled = []
        enabling = threading.Thread(target=lambda: enabled.append(daemon.post("/api/v1/modules/slow/enable")))
        enabling.start()
        self.assertEqual(daemon.get("/healthz", token=None).status, 200, "nobody else waits")
        self.assertEqual(daemon.module("slow")["status"], "DISABLED")
        holder.communicate("SELECT pg_advisory_unlock(7);\n", timeout=30)
        enabling.join(60 * SLOW)
        self.assertError(enabled[0], 502, "MODULE_START_FAILED")  # behind its migrations
        self.assertEqual(daemon.get("/api/v1/modules/slow/migrations").data["applied"], 1)

    def test_who_watches_is_told_which_file_runs(self):
        modules = self.temporary_folder(0o755)
        module_with(modules, "slow", **{"001_slow": "SELECT pg_advisory_lock(7); SELECT pg_advisory_unlock(7);"})
        daemon = self.daemon(modules_dir=modules)
        daemon.post("/api/v1/modules/slow/install")
        holder = hold(daemon)
        terminal, inside = pty.openpty()
        environment = {**os.environ, "BULKHEAD_SERVER": daemon.admin_address, "BULKHEAD_TOKEN": daemon.token}
        process = subprocess.Popen([harness.BINARY, "migrate", "up", "slow"], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=inside, text=True)
        os.close(inside)
        shown = ""
        while "slow: 001_slow.sql (" not in shown:
            shown += os.read(terminal, 4096).decode()
        holder.communicate("SELECT pg_advisory_unlock(7);\n", timeout=30)
        out, _err = process.communicate(timeout=60 * SLOW)
        os.close(terminal)
        self.assertEqual(process.returncode, DONE)
        self.assertRegex(out, r"^applied 001_slow\.sql \(\d+ m?s\)\n$")

    def test_a_database_of_a_later_version_is_refused_at_the_start(self):
        daemon = self.daemon()
        daemon.sql("INSERT INTO bulkhead_internal.migrations VALUES ('bulkhead', 9999, '9999_future.sql', 'x', NULL, now())")
        daemon.stop()
        daemon.launch()
        self.assertEqual(daemon.wait_exit(60 * SLOW), 1)
        self.assertIn("migrated by a later version of bulkhead (9999_future.sql)", daemon.log())
        self.assertIsNone(daemon.ready_line())


class Client(SharedDaemonTest):
    """Everything about the client that needs no module of its own."""

    options = {"modules": ["echo"], "modules_dir": harness.FAKES}

    def test_without_a_name_each_module_has_a_line_and_the_supervisor_too(self):
        code, out, err = migrate(self.daemon, "status")
        self.assertEqual((code, err), (DONE, ""))
        self.assertRegex(out, r"(?m)^MODULE +APPLIED +PENDING +NOTE$")
        self.assertRegex(out, r"(?m)^bulkhead +[1-9]\d* +0$")
        self.assertRegex(out, r"(?m)^echo +\d+ +0$")
        data = json.loads(migrate(self.daemon, "status", "--json")[1])["data"]
        self.assertEqual([one["module"] for one in data], ["bulkhead", "echo"])
        code, out, _err = migrate(self.daemon, "status", "bulkhead")
        self.assertEqual(code, DONE)
        self.assertRegex(out, r"(?m)^0001_registry\.sql +applied")
        self.assertEqual(migrate(self.daemon, "up", "bulkhead")[0], REFUSED)

    def test_json_is_what_rest_answers(self):
        for arguments, answer in ((["status", "echo"], self.daemon.get("/api/v1/modules/echo/migrations")),
                                  (["--dry-run", "echo"], self.daemon.post("/api/v1/modules/echo/migrations/plan")),
                                  (["status", "bulkhead"], self.daemon.get("/api/v1/modules/bulkhead/migrations"))):
            code, out, err = migrate(self.daemon, "--json", *arguments)
            self.assertEqual((code, err), (DONE, ""))
            self.assertEqual(out, answer.body.decode() + "\n")
        code, out, err = migrate(self.daemon, "up", "nobody", "--json")
        self.assertEqual((code, err), (REFUSED, ""))
        rest = self.daemon.post("/api/v1/modules/nobody/migrations/up").error
        told = json.loads(out)["error"]
        self.assertEqual({**told, "requestId": ""}, {**rest, "requestId": ""})
        self.assertTrue(told["requestId"])

    def test_exit_codes_tell_what_happened(self):
        for code, arguments in ((DONE, ["status", "echo"]), (REFUSED, ["status", "nobody"]), (REFUSED, ["up", "echo"]), (USAGE, []), (USAGE, ["up"]),
                                (USAGE, ["sideways", "echo"]), (USAGE, ["status", "--nonsense"]), (USAGE, ["down", "echo", "--to", "x"]),
                                (UNREACHABLE, ["status", "--server", f"127.0.0.1:{harness.free_port()}"]),
                                (UNREACHABLE, ["status", "--server", self.daemon.address])):  # HTTP, no gRPC
            with self.subTest(arguments):
                answer = migrate(self.daemon, *arguments)
                self.assertEqual(answer[0], code, answer)
                self.assertEqual(bool(answer[2]), code != DONE, answer)

    def test_who_is_refused_is_told_why(self):
        for token, words in (("wrong", ("UNAUTHENTICATED", "--token-file")),
                             (self.daemon.make_token("reads-modules", "modules:read"), ("FORBIDDEN", "migrations:read"))):
            code, out, err = migrate(self.daemon, "status", "echo", token=token)
            self.assertEqual((code, out), (REFUSED, ""))
            for word in words:
                self.assertIn(word, err)
        reader = self.daemon.make_token("reads-migrations", "migrations:read")
        self.assertEqual(migrate(self.daemon, "status", "echo", token=reader)[0], DONE)
        self.assertIn("migrations:write", migrate(self.daemon, "up", "echo", token=reader)[2])

    def test_the_token_comes_from_the_option_the_variable_or_the_data_folder(self):
        environment = {"BULKHEAD_DATA": str(self.daemon.data)}
        self.assertEqual(migrate(self.daemon, "status", "echo", token=None, env=environment)[0], DONE)
        self.assertEqual(migrate(self.daemon, "status", "echo", "--token-file", self.daemon.data / "admin.token", token="wrong")[0], DONE)
        code, _out, err = migrate(self.daemon, "status", "echo", token=None, env={"BULKHEAD_DATA": "/nowhere"})
        self.assertEqual(code, USAGE)
        self.assertIn("/nowhere/admin.token", err)

    @unittest.skipUnless(IS_ROOT, "only root can become another user")
    def test_another_user_may_not_read_the_administrators_token_and_works_with_a_token_of_its_own(self):
        folder = pathlib.Path(harness.tempfile.mkdtemp(prefix="bh-", dir="/tmp"))
        self.addCleanup(shutil.rmtree, folder)
        folder.chmod(0o755)
        binary = shutil.copy(harness.BINARY, folder / "bulkhead")  # the checkout may be one that only root can enter
        nobody = pwd.getpwnam("nobody")

        def as_nobody(**environment):
            return subprocess.run([binary, "migrate", "status", "echo"], user=nobody.pw_uid, group=nobody.pw_gid, extra_groups=[], cwd="/",
                                  env={"BULKHEAD_SERVER": self.daemon.admin_address, "BULKHEAD_DATA": str(self.daemon.data), **environment},
                                  capture_output=True, text=True, timeout=60 * SLOW)

        done = as_nobody()
        self.assertEqual((done.returncode, done.stdout), (USAGE, ""))
        self.assertIn("Permission denied", done.stderr)
        self.assertIn("BULKHEAD_TOKEN", done.stderr)
        done = as_nobody(BULKHEAD_TOKEN=self.daemon.make_token("nobodys", "migrations:read"))
        self.assertEqual((done.returncode, done.stderr), (DONE, ""))


class TwoSupervisors(DaemonTest):
    def setUp(self):
        super().setUp()
        self.server = OwnServer()

    def after_explaining(self):
        super().after_explaining()
        if hasattr(self, "server"):
            self.server.remove()

    def test_that_start_at_once_on_one_database_migrate_a_module_once(self):
        config = f"store:\n  url: {self.server.url}\n"
        first = self.daemon(config=config)
        self.assertEqual(first.post(f"/api/v1/modules/{MODULE}/install").status, 200)
        first.stop()
        # The second one has the same secrets and the same package, as two machines of a cluster would.
        folder = self.temporary_folder()
        subprocess.run(["cp", "-a", f"{first.data}", f"{folder}/data"], check=True)
        (folder / "bulkhead.yaml").write_text(config)
        second = self.daemon(start=False, folder=folder)
        self.server.sql("UPDATE bulkhead_internal.modules SET status = 'ENABLED'")
        for daemon in (first, second):
            daemon.launch()
        for daemon in (first, second):
            daemon.wait_ready()
            self.assertEqual(daemon.module(MODULE)["observed"]["state"], "RUNNING")
        self.assertEqual(self.server.sql("SELECT string_agg(number || action, ' ' ORDER BY id) FROM bulkhead_internal.migration_log"),
                         "1applied 2applied 3applied")


if __name__ == "__main__":
    harness.main()
