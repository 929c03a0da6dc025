"""Where the state lives: the private PostgreSQL and its death, and a server of the operator's own."""

import os
import shutil
import signal
import subprocess
import sys
import unittest.mock

import harness
import own_server
from harness import SLOW, DaemonTest, run_serve, wait_until
from own_server import OwnServer

MODULE = "consumption-monitor"
ECHO = {"modules": ["echo"], "modules_dir": harness.FAKES}


def postmaster(daemon):
    """(pid, addresses it listens on) of the private server."""
    lines = (daemon.data / "postgres" / "postmaster.pid").read_text().splitlines()
    return int(lines[0]), lines[5].strip() if len(lines) > 5 else ""


class PrivateServer(DaemonTest):
    private_store = True

    def test_it_has_no_tcp_port(self):
        daemon = self.daemon()
        pid, addresses = postmaster(daemon)
        self.assertEqual(addresses, "")
        listening = {line.split()[9] for table in ("tcp", "tcp6") for line in harness._read(f"/proc/{pid}/net/{table}").decode().splitlines()[1:]
                     if line.split()[3] == "0A"}
        own = {os.readlink(f"/proc/{pid}/fd/{fd}")[8:-1] for fd in os.listdir(f"/proc/{pid}/fd") if os.readlink(f"/proc/{pid}/fd/{fd}").startswith("socket:")}
        self.assertEqual(listening & own, set())

    def test_when_it_is_killed_it_comes_back_and_nothing_else_went(self):
        daemon = self.daemon(modules=[MODULE])
        worker = daemon.module(MODULE)["workers"][0]
        for _ in range(2):
            pid, _addresses = postmaster(daemon)
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: (daemon.data / "postgres" / "postmaster.pid").exists() and postmaster(daemon)[0] != pid, "another server", 30 * SLOW)
            wait_until(lambda: daemon.get(f"/api/v1/m/{MODULE}/readings").status == 200, "the module reads again", 30 * SLOW)
            wait_until(lambda: daemon.get("/api/v1/modules").status == 200, "the admin API reads again", 30 * SLOW)
        self.assertTrue(daemon.running())
        self.assertEqual(daemon.module(MODULE)["workers"][0]["pid"], worker["pid"], "the module was not restarted")
        run = wait_until(lambda: (lambda a: a if a.status == 200 else None)(
            daemon.post(f"/api/v1/modules/{MODULE}/jobs/collect-readings/run?wait=20s")), "a run", 30 * SLOW)
        self.assertEqual(run.data["status"], "SUCCEEDED", run)

    @staticmethod
    def cut_off(pid):
        """Ends the server processes of connections, and of those that are being made: they have no title yet."""
        titles = {child: harness._read(f"/proc/{child}/cmdline") for child, _started in harness.descendants(pid)}
        connections = [child for child, title in titles.items() if title and (b"[local]" in title or not title.startswith(b"postgres:"))]
        for child in connections:
            os.kill(child, signal.SIGTERM)
        return connections

    def test_what_needs_it_while_it_is_gone_is_503_and_what_needs_no_database_goes_on(self):
        daemon = self.daemon(**ECHO)
        pid, _addresses = postmaster(daemon)
        # It hangs rather than dies: nobody restarts it. What is connected is cut off, and nobody can connect anew.
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_until(lambda: not self.cut_off(pid), "no connection is left")
            for _ in range(20):
                self.assertEqual(daemon.get("/api/v1/m/echo/echo", timeout=5 * SLOW).status, 200)
            self.assertEqual(daemon.get("/healthz", token=None, timeout=5 * SLOW).status, 200)
            self.assertEqual(daemon.get("/api/v1/modules", timeout=5 * SLOW).data[0]["observed"]["state"], "RUNNING")
            self.assertError(daemon.get("/api/v1/modules/echo/jobs/work/runs", timeout=40 * SLOW), 503, "DATABASE_UNAVAILABLE")
            self.assertError(daemon.post("/api/v1/modules/echo/disable", timeout=40 * SLOW), 503, "DATABASE_UNAVAILABLE")
            self.assertEqual(daemon.get("/api/v1/m/echo/echo", timeout=5 * SLOW).status, 200, "what could not be recorded was not done")
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_until(lambda: daemon.get("/api/v1/modules/echo/jobs/work/runs").status == 200, "the runs are read again", 30 * SLOW)
        self.assertEqual(daemon.post("/api/v1/modules/echo/disable").status, 200)


class OwnServerTest(DaemonTest):
    def setUp(self):
        super().setUp()
        self.server = OwnServer()

    def after_explaining(self):
        super().after_explaining()
        if hasattr(self, "server"):
            self.server.remove()

    @property
    def config(self):
        return f"store:\n  url: {self.server.url}\n"

    def test_with_a_url_that_server_is_used_and_none_is_made(self):
        daemon = self.daemon(modules=[MODULE], config=self.config)
        self.assertFalse((daemon.data / "postgres").exists())
        run = daemon.post(f"/api/v1/modules/{MODULE}/jobs/collect-readings/run?wait=30s")
        self.assertEqual(run.data["status"], "SUCCEEDED", run)
        self.assertEqual(self.server.sql("SELECT name FROM bulkhead_internal.modules"), MODULE)
        self.assertNotIn(self.server.password, daemon.log())
        daemon.stop()
        daemon.assert_nothing_left()
        self.assertIsNone(self.server.process.poll(), "the operator's server is not ours to stop")
        left = self.server.sql("SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'bh\\_%'")
        self.assertEqual(left, "0", "connections of modules are still open")

    def test_a_module_has_a_role_and_a_schema_of_its_own_and_sees_nothing_else(self):
        self.daemon(modules=[MODULE], config=self.config)
        roles = self.server.sql("SELECT rolname FROM pg_roles WHERE rolname LIKE 'bh\\_%'").split()
        self.assertEqual(len(roles), 1, roles)
        self.assertRegex(roles[0], r"^bh_[0-9a-f]{8}_consumption[-_]monitor$")
        role = f'"{roles[0]}"'
        flags = self.server.sql(f"SELECT rolsuper, rolcreaterole, rolcreatedb, rolbypassrls, rolconnlimit FROM pg_roles WHERE rolname = '{roles[0]}'")
        self.assertTrue(flags.startswith("f|f|f|f|"), flags)
        self.assertGreater(int(flags.rsplit("|", 1)[1]), 0, "no limit on its connections")
        for statement in ("SELECT * FROM bulkhead_internal.modules", "SELECT * FROM bulkhead_internal.api_tokens",
                          "CREATE TABLE public.mine (id int)", "CREATE SCHEMA mine", "DELETE FROM bulkhead_internal.migrations"):
            with self.subTest(statement):
                self.assertIn("permission denied", self.server.sql(statement, check=False, role=role))
        tables = self.server.sql(f"SELECT count(*) FROM pg_tables WHERE tableowner = '{roles[0]}'")
        self.assertGreaterEqual(int(tables), 2, "its tables are its own")

    def test_a_malformed_url_is_told_without_the_password_in_it(self):
        for password in ("pa%zzw0rd-secret", "pass@word-secret@", "secret%"):
            with self.subTest(password):
                folder = self.temporary_folder()
                (folder / "bulkhead.yaml").write_text("")
                code, out, err = run_serve("serve", "--config", folder / "bulkhead.yaml", "--data", folder / "data", "--modules", harness.FAKES,
                                           "--listen", f"127.0.0.1:{harness.free_port()}", "--admin-listen", f"127.0.0.1:{harness.free_port()}",
                                           env={"BULKHEAD_STORE_URL": f"postgresql://operator:{password}@127.0.0.1:{self.server.port}/bulkhead?x"})
                self.assertEqual(code, 1, err)
                self.assertIn("the connection string is malformed", err)
                self.assertNotIn("secret", out + err)

    def migrating_for_ever(self):
        """A daemon in the middle of a module's migration that takes ten minutes."""
        modules = self.temporary_folder(0o755)
        folder = harness.write_module(modules, "slow", entry="#!/bin/sh\n")
        (folder / "migrations").mkdir()
        (folder / "migrations" / "001_slow.sql").write_text("SELECT pg_sleep(600);")
        daemon = self.daemon(start=False, modules_dir=modules, modules=["slow"], config=self.config)
        daemon.launch()
        wait_until(lambda: self.server.sql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600);'", check=False) == "1",
                   "the migration runs", 30 * SLOW)
        return daemon

    def test_it_stops_within_its_budget_in_the_middle_of_a_migration(self):
        daemon = self.migrating_for_ever()
        daemon.stop()
        daemon.assert_nothing_left()

    def test_a_second_signal_ends_it_at_once_in_the_middle_of_a_migration(self):
        daemon = self.migrating_for_ever()
        daemon.send_signal(signal.SIGTERM)
        wait_until(lambda: "stopping  signal=" in daemon.log(), "the first signal is heeded", 10 * SLOW)
        _code, took = daemon.stop()
        self.assertLess(took, 5 * SLOW)
        daemon.assert_nothing_left()

    def test_losing_it_stops_nothing_that_runs(self):
        daemon = self.daemon(config=self.config, **ECHO)
        pid = daemon.module("echo")["workers"][0]["pid"]
        self.server.stop()
        for _ in range(10):
            self.assertEqual(daemon.get("/api/v1/m/echo/echo").status, 200)
        self.assertEqual(daemon.get("/healthz", token=None).status, 200)
        answer = daemon.post("/api/v1/modules/echo/disable?wait=10s")
        self.assertError(answer, 503, "DATABASE_UNAVAILABLE")
        self.assertEqual(daemon.get("/api/v1/m/echo/echo").status, 200, "what could not be recorded was not done")
        self.server.start()
        module = wait_until(lambda: (lambda a: a.data if a.status == 200 else None)(daemon.get("/api/v1/modules/echo")), "reading again", 30 * SLOW)
        self.assertEqual((module["workers"][0]["pid"], module["status"]), (pid, "ENABLED"))
        self.assertEqual(daemon.post("/api/v1/modules/echo/disable").status, 200)

    def test_a_module_that_crashes_without_the_database_is_restarted_all_the_same(self):
        daemon = self.daemon(config=self.config, **ECHO)
        pid = daemon.module("echo")["workers"][0]["pid"]
        self.server.stop()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: daemon.get("/api/v1/m/echo/echo").status == 200, "an answer by a new process", 30 * SLOW)

    def test_a_module_that_is_enabled_from_the_start_is_registered_in_one_step(self):
        folder = self.temporary_folder(0o755)
        daemon = self.daemon(modules_dir=folder, modules=["echo"], config=self.config)
        daemon.stop()
        # A crash between two steps would leave the first of them; here the second one can't be taken.
        self.server.sql("CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no'; END$$;"
                        "CREATE TRIGGER refuse BEFORE UPDATE ON bulkhead_internal.modules EXECUTE FUNCTION public.refuse()")
        shutil.copytree(harness.FAKES / "echo", folder / "echo")
        daemon.start()
        module = daemon.module("echo")
        self.assertEqual((module["status"], module["observed"]["state"]), ("ENABLED", "RUNNING"))
        self.assertEqual(self.server.sql("SELECT status, enabled_at = created_at FROM bulkhead_internal.modules"), "ENABLED|t")

    def test_of_two_supervisors_that_find_a_module_at_once_the_second_takes_the_row_of_the_first(self):
        folder = self.temporary_folder(0o755)
        daemon = self.daemon(modules_dir=folder, modules=["echo"], config=self.config)
        daemon.stop()
        shutil.copytree(harness.FAKES / "echo", folder / "echo")
        other = subprocess.Popen(["psql", "-X", "-q", "-A", "-t", f"postgresql://operator@127.0.0.1:{self.server.port}/bulkhead"], text=True,
                                 env={**os.environ, "PGPASSWORD": self.server.password}, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            other.stdin.write(f"\\set manifest `cat {folder}/echo/manifest.json`\nBEGIN; INSERT INTO bulkhead_internal.uid_slots (module) VALUES ('echo');\n"
                              "INSERT INTO bulkhead_internal.modules (name, version, manifest, path, uid_slot) SELECT 'echo', :'manifest'::json->>'version',"
                              " :'manifest', '/elsewhere', slot FROM bulkhead_internal.uid_slots;\nSELECT 'inserted';\n")
            other.stdin.flush()
            self.assertEqual(other.stdout.readline(), "inserted\n")
            daemon.launch()
            wait_until(lambda: self.server.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'") == "1", "the daemon waits", 30 * SLOW)
            other.stdin.write("COMMIT;\n")
        finally:
            other.communicate(timeout=30)
        daemon.wait_ready()
        self.assertEqual(daemon.module("echo")["status"], "REGISTERED")
        self.assertEqual(self.server.sql("SELECT path FROM bulkhead_internal.modules"), "/elsewhere")

    def test_a_registered_manifest_that_is_not_valid_any_more_keeps_nothing_else_from_starting(self):
        folder = self.temporary_folder(0o755)
        for name in ("aaa", "echo"):
            shutil.copytree(harness.FAKES / "echo", folder / name)
        manifest = folder / "aaa" / "manifest.json"
        manifest.write_text(manifest.read_text().replace('"echo"', '"aaa"'))
        daemon = self.daemon(modules_dir=folder, modules=["echo"], config=self.config)
        daemon.stop()
        self.server.sql("UPDATE bulkhead_internal.modules SET manifest = '{}' WHERE name = 'aaa'")
        daemon.start()
        self.assertEqual(daemon.module("echo")["observed"]["state"], "RUNNING")
        self.assertIn("the manifest that aaa was registered with is not valid any more: /name: ", daemon.log())

    def test_the_password_of_the_url_is_in_no_command_line(self):
        url = f"{self.server.url}?password={self.server.password}"
        daemon = self.daemon(args=["--store-url", url])
        self.assertEqual(daemon.get("/api/v1/modules").status, 200)
        daemon.process.send_signal(signal.SIGHUP)  # reads the command line again
        wait_until(lambda: "the configuration was read again, nothing has changed" in daemon.log(), "it was")
        pids = [daemon.process.pid, *(pid for pid, _started in harness.descendants(daemon.process.pid))]
        lines = {pid: harness._read(f"/proc/{pid}/cmdline").decode() for pid in pids}
        self.assertIn(f"operator:{'*' * len(self.server.password)}@", lines[daemon.process.pid])
        self.assertNotIn(self.server.password, "".join(lines.values()))

    def test_a_node_with_another_master_key_is_refused(self):
        first = self.daemon(config=self.config)
        first.stop()
        folder = self.temporary_folder()
        (folder / "bulkhead.yaml").write_text(self.config)
        code, _out, err = run_serve("serve", "--config", folder / "bulkhead.yaml", "--data", folder / "data", "--modules", harness.MODULES,
                                    "--listen", f"127.0.0.1:{harness.free_port()}", "--admin-listen", f"127.0.0.1:{harness.free_port()}")
        self.assertGreater(code, 0)
        self.assertIn("key", err.lower())


class TestsOnAServer(DaemonTest):
    """What `sh tests/run.sh --store …` does: own_server.py around ctest, and databases for the daemons of tests."""

    def beside(self, store, *command, **options):
        return subprocess.Popen([sys.executable, "-B", own_server.__file__, store, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                start_new_session=True, **options)

    def assert_gone(self, folder):
        def gone():
            harness.reap_orphans()  # of a killed run
            return not os.path.exists(folder) and not harness.processes_that_mention(folder)

        wait_until(gone, "the end of the server", 30 * SLOW)

    def test_each_daemon_of_a_test_has_a_fresh_database_which_is_dropped_with_the_roles_of_its_modules(self):
        server = OwnServer()
        self.addCleanup(server.remove)
        databases, roles = "SELECT datname FROM pg_database WHERE datname LIKE 'bh\\_test\\_%'", "SELECT rolname FROM pg_roles WHERE rolname LIKE 'bh\\_%'"
        with unittest.mock.patch.dict(os.environ, {own_server.VARIABLE: server.url}):
            daemon, other = self.daemon(modules=[MODULE]), self.daemon(modules=[MODULE])
            private, elsewhere = self.daemon(start=False, private_store=True), self.daemon(start=False, config=f"store:\n  url: {server.url}\n")
        self.assertIsNone(private.database())
        self.assertIsNone(elsewhere.database())
        self.assertFalse((daemon.data / "postgres").exists())
        self.assertEqual(len(server.sql(databases).split()), 2)
        self.assertEqual(len(server.sql(roles).split()), 2)
        first = daemon.module(MODULE)["id"]
        self.assertEqual(daemon.sql("SELECT id, name FROM bulkhead_internal.modules"), [[first, MODULE]])
        self.assertNotEqual(other.sql("SELECT id FROM bulkhead_internal.modules"), [[first]])
        daemon.stop()
        daemon.start()
        self.assertEqual(daemon.module(MODULE)["id"], first, "another start has the same database")
        daemon.clean_up()
        self.assertEqual(server.sql(databases), other.database().name)
        other.clean_up()
        self.assertEqual((server.sql(databases), server.sql(roles)), ("", ""))

    def test_a_command_runs_beside_a_server_and_has_the_last_word(self):
        show = f'psql -X -A -t -c "SHOW data_directory" "${own_server.VARIABLE}"; echo last; exit 7'
        run = self.beside("own", "sh", "-c", show)
        out, err = run.communicate(timeout=60 * SLOW)
        self.assertEqual((run.returncode, err), (7, ""))
        data, last = out.splitlines()
        self.assertEqual(last, "last")
        self.assert_gone(os.path.dirname(data))

    def test_the_server_ends_when_the_run_is_interrupted_or_killed(self):
        show = f'echo $$; psql -X -A -t -c "SHOW data_directory" "${own_server.VARIABLE}"; exec sleep 600'
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            with self.subTest(number.name):
                run = self.beside("own", "sh", "-c", show)
                command, data = int(run.stdout.readline()), run.stdout.readline().strip()
                run.send_signal(number)
                try:
                    self.assertEqual(run.wait(60 * SLOW), -number if number == signal.SIGKILL else 128 + number)
                    self.assert_gone(os.path.dirname(data))
                finally:
                    if number == signal.SIGKILL:
                        os.kill(command, signal.SIGKILL)
                    run.communicate()

    def test_a_server_that_cannot_be_used_is_told_before_anything_runs(self):
        server = OwnServer()
        self.addCleanup(server.remove)
        server.sql("CREATE ROLE weak LOGIN PASSWORD 'weak'")
        for url, words in ((server.url.replace("operator:", "operator:not-"), "password authentication failed"),
                           (server.url.replace("operator:" + server.password, "weak:weak"), "superuser")):
            with self.subTest(words):
                run = self.beside(url, "echo", "ran")
                out, err = run.communicate(timeout=60 * SLOW)
                self.assertEqual((run.returncode, out), (2, ""))
                self.assertIn(words, err)
                self.assertNotIn(server.password, err)
        run = self.beside(server.url, "sh", "-c", f'echo "${own_server.VARIABLE}"')
        self.assertEqual(run.communicate(timeout=60 * SLOW), (server.url + "\n", ""))


if __name__ == "__main__":
    harness.main()
