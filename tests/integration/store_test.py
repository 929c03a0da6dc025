"""Where the state lives: the private PostgreSQL and its death, and a server of the operator's own."""

import glob
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import tempfile
import unittest

import harness
from harness import SLOW, DaemonTest, run_serve, wait_until

MODULE = "consumption-monitor"
ECHO = {"modules": ["echo"], "modules_dir": harness.FAKES}


def postgres_tool(name):
    found = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), key=lambda path: int(path.split("/")[4]))
    if not found:
        raise unittest.SkipTest(f"{name} of PostgreSQL is not installed")
    return found[-1]


class OwnServer:
    """A PostgreSQL server as an operator would have one: TCP on loopback, passwords."""

    password = "own-server-password"

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="bh-pg-", dir="/tmp"))
        self.user = {}
        if harness.IS_ROOT:  # PostgreSQL refuses to run as root
            entry = pwd.getpwnam("postgres")
            os.chown(self.folder, entry.pw_uid, entry.pw_gid)
            self.user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        self.port = harness.free_port()
        secret = self.folder / "password"
        secret.write_text(self.password)
        secret.chmod(0o644)
        subprocess.run([postgres_tool("initdb"), "-D", self.folder / "data", "-U", "operator", "-A", "scram-sha-256", f"--pwfile={secret}",
                        "--no-sync", "-E", "UTF8", "--locale=C"], check=True, capture_output=True, cwd="/", **self.user)
        with open(self.folder / "data" / "postgresql.conf", "a") as conf:
            conf.write(f"port = {self.port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\nfsync = off\nmax_connections = 100\n")
        self.process = None
        self.start()
        self.sql("CREATE DATABASE bulkhead", database="postgres")

    @property
    def url(self):
        return f"postgresql://operator:{self.password}@127.0.0.1:{self.port}/bulkhead"

    def start(self):
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen([postgres_tool("postgres"), "-D", self.folder / "data"], stdout=log, stderr=log, cwd="/",
                                            start_new_session=True, **self.user)
        harness.Daemon.own_pids.add(self.process.pid)
        wait_until(lambda: self.sql("SELECT 1", database="postgres", check=False) == "1", "PostgreSQL answers", 30 * SLOW)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(30)

    def remove(self):
        self.stop()
        subprocess.run(["rm", "-rf", str(self.folder)], check=False)

    def sql(self, statement, database="bulkhead", check=True, role=None):
        """What psql prints, without decoration."""
        statement = f"SET ROLE {role}; {statement}" if role else statement
        done = subprocess.run(["psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", statement,
                               f"postgresql://operator@127.0.0.1:{self.port}/{database}"],
                              env={**os.environ, "PGPASSWORD": self.password}, capture_output=True, text=True)
        if check and done.returncode != 0:
            raise AssertionError(f"{statement}: {done.stderr}")
        return done.stdout.strip() if done.returncode == 0 else "error: " + done.stderr


def postmaster(daemon):
    """(pid, addresses it listens on) of the private server."""
    lines = (daemon.data / "postgres" / "postmaster.pid").read_text().splitlines()
    return int(lines[0]), lines[5].strip() if len(lines) > 5 else ""


class PrivateServer(DaemonTest):
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

    def test_what_is_told_while_it_is_gone_is_503_and_what_needs_no_database_goes_on(self):
        daemon = self.daemon(**ECHO)
        pid, _addresses = postmaster(daemon)
        os.kill(pid, signal.SIGSTOP)  # hangs rather than dies: nothing can tell, and nothing may wait for it
        try:
            for _ in range(20):
                self.assertEqual(daemon.get("/api/v1/m/echo/echo", timeout=5 * SLOW).status, 200)
            self.assertEqual(daemon.get("/healthz", token=None, timeout=5 * SLOW).status, 200)
            answer = daemon.get("/api/v1/modules", timeout=40 * SLOW)
            self.assertIn(answer.status, (200, 503), answer)
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_until(lambda: daemon.get("/api/v1/modules").status == 200, "the admin API reads again", 30 * SLOW)


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
        self.assertIn("skipping a module folder: its name is registered with a manifest that is not valid any more  module=aaa", daemon.log())

    def test_a_node_with_another_master_key_is_refused(self):
        first = self.daemon(config=self.config)
        first.stop()
        folder = self.temporary_folder()
        (folder / "bulkhead.yaml").write_text(self.config)
        code, _out, err = run_serve("serve", "--config", folder / "bulkhead.yaml", "--data", folder / "data", "--modules", harness.MODULES,
                                    "--listen", f"127.0.0.1:{harness.free_port()}", "--admin-listen", f"127.0.0.1:{harness.free_port()}")
        self.assertGreater(code, 0)
        self.assertIn("key", err.lower())


if __name__ == "__main__":
    harness.main()
