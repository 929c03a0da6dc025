"""What keeps modules apart, tried from inside: a hostile module beside others that serve on, and a table of all that it tried."""

import json
import os
import pathlib
import shutil
import signal
import socket
import tempfile
import unittest

import harness
import hostile
import own_server
from harness import DaemonTest, SharedDaemonTest, wait_until
from hostile import Scene, active_measures, outcome, table
from misbehaving import STEADY, SteadyLoad, spawner_of, write_steady
from modules_test import echo_like
from own_server import OwnServer, postgres_tool

HOSTILE = harness.BUILD / "tests" / "hostile" / "hostile"
MEASURES = ["uid", "no_new_privs", "capabilities", "rlimits", "cgroup.memory", "cgroup.cpu", "cgroup.pids", "landlock", "seccomp", "network",
            "tmp", "proc", "ipc"]
# As root outside of /tmp, so that the modules' own /tmp hides nothing that they need.
PLACE = "/var/lib" if harness.IS_ROOT else "/tmp"
AS_ROOT = unittest.skipUnless(harness.IS_ROOT, "only as root do modules have users of their own")


def make_place():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bh-", dir=PLACE))
    folder.chmod(0o711)
    return folder


def write_hostile(modules_dir, **manifest):
    target = pathlib.Path(modules_dir) / "hostile"
    shutil.copytree(HOSTILE, target)
    document = json.loads((target / "manifest.json").read_text())
    document.update(manifest)
    (target / "manifest.json").write_text(json.dumps(document))
    for path in (target.parent, target, target / "bin", target / "bin" / "hostile"):
        path.chmod(0o755)
    return target


def attempt(daemon, name, /, **arguments):
    """One attempt of tests/fakes/hostile/attempts.py: (done, what came of it)."""
    answer = daemon.post("/api/v1/m/hostile/attempt", {"attempt": name, "with": arguments})
    if answer.status != 200:
        raise AssertionError(f"{name} {arguments}: {answer}")
    return outcome(answer.data)


def package_of(daemon, name):
    return next(str(path) for path in (daemon.data / "versions" / name).iterdir())


def states(module):
    return {item["name"]: item["state"] for item in module["isolation"]}


def why(module, name):
    return next(item["why"] for item in module["isolation"] if item["name"] == name)


class AHostileModule(SharedDaemonTest):
    """On one daemon, beside a module with a database and a load on it. What it tries stands in hostile.py."""

    @classmethod
    def setUpClass(cls):
        cls.folder, cls.modules_dir, cls.outside = make_place(), make_place(), make_place()
        cls.modules_dir.chmod(0o755)
        try:
            write_steady(cls.modules_dir)
            manifest = cls.modules_dir / STEADY / "manifest.json"
            manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "database": {}}))
            (cls.modules_dir / STEADY / "migrations").mkdir()
            (cls.modules_dir / STEADY / "migrations" / "001_kept.sql").write_text("CREATE TABLE kept (id int);\nINSERT INTO kept VALUES (1);\n")
            write_hostile(cls.modules_dir)
            cls.outside.chmod(0o777)
            (cls.outside / "file").write_text("anybody's")
            (cls.outside / "file").chmod(0o666)
            # Its attempts on the database are for the private one, whose socket and superusers they name.
            cls.options = {"modules": [STEADY, "hostile"], "modules_dir": cls.modules_dir, "folder": cls.folder, "private_store": True}
            super().setUpClass()
        except BaseException:
            cls.remove_places()
            raise
        cls.load = SteadyLoad(cls.daemon)

    @classmethod
    def tearDownClass(cls):
        cls.load.stop()
        try:
            super().tearDownClass()
        finally:
            cls.remove_places()

    @classmethod
    def remove_places(cls):
        for place in (cls.folder, cls.modules_dir, cls.outside):
            shutil.rmtree(place, ignore_errors=True)

    def scene(self, listener):
        victim = self.daemon.module(STEADY)
        kept = self.daemon.data / "modules" / STEADY / "kept"
        kept.write_text("a secret of the other module's")
        kept.chmod(0o600)
        if harness.IS_ROOT:
            owner = kept.parent.stat()
            os.chown(kept, owner.st_uid, owner.st_gid)
        return Scene(daemon=self.daemon, spawner=spawner_of(self.daemon), victim=victim, victim_package=package_of(self.daemon, STEADY),
                     own_package=package_of(self.daemon, "hostile"), outside=str(self.outside), abstract=listener, psql=postgres_tool("psql"))

    def sql(self, statement):
        return self.daemon.post("/api/v1/m/hostile/sql", {"sql": statement}).data

    def call(self, module, path):
        return self.daemon.post("/api/v1/m/hostile/call", {"module": module, "path": path}).data

    def try_all(self, attempts, active):
        """Rows of the table; the attempts that ended otherwise than the measures say."""
        rows, unexpected, done_all = [], [], []
        for one in attempts:
            against = [measure for measure in one.against if measure in active]
            if one.untried:
                rows.append((one.what, "not tried", "-", one.untried))
                continue
            if callable(one.call):
                done, how = outcome(one.call())
            else:
                done, how = attempt(self.daemon, one.call[0], **one.call[1])
            rows.append((one.what, "DONE" if done else "refused", ", ".join(against) or "-", how))
            if done:
                done_all.append(one.what)
            if done == bool(against):
                unexpected.append((one.what, against, done, how))
        return rows, unexpected, done_all

    def test_each_of_its_attempts_is_refused_and_the_others_serve_on(self):
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        name = f"bulkhead-test-{os.getpid()}"
        listener.bind("\0" + name)
        listener.listen(8)
        scene = self.scene(name)
        before = self.daemon.module("hostile")
        active = active_measures(before["isolation"])
        attempts = [*hostile.of_files(scene), *hostile.of_processes(scene), *hostile.of_sockets(scene, self.call), *hostile.of_the_database(scene, self.sql),
                    *hostile.of_the_kernel(scene), *hostile.of_resources(scene, active)]
        rows, unexpected, done = self.try_all(attempts, active)
        printed = self.print_a_lot()
        rows.append((f"have {hostile.LOG_LINES} lines in the log at once", "refused" if printed < hostile.LOG_LINES / 2 else "DONE", "limit of the log",
                     f"{printed} are in the log"))
        who = "root" if harness.IS_ROOT else "an unprivileged user"
        print(f"\nA hostile module under a supervisor that was started as {who}; in force: {', '.join(sorted(active - {'always'}))}\n{table(rows)}\n"
              f"{len(rows)} attempts, of which {len(done)} could not be refused{': ' + '; '.join(done) if done else ''}", flush=True)
        self.assertEqual(unexpected, [], "ended otherwise than what is in force says")
        if harness.IS_ROOT:
            self.assertEqual(done, [])
        self.assertLess(printed, hostile.LOG_LINES / 2)
        self.assert_all_is_well(before, scene)

    def print_a_lot(self):
        """How many of the lines are in the log."""
        answer = self.daemon.post("/api/v1/m/hostile/print", {"lines": hostile.LOG_LINES})
        self.assertEqual(answer.status, 200, answer)
        return self.daemon.log().count("hostile xxxxxxxx")

    def assert_all_is_well(self, before, scene):
        self.assertEqual(self.load.failures, [], "the module beside it had errors")
        self.assertGreater(self.load.answered, 0)
        self.assertTrue(self.daemon.running())
        self.assertEqual(spawner_of(self.daemon), scene.spawner)
        for name, module in ((STEADY, scene.victim), ("hostile", before)):
            now = self.daemon.module(name)
            self.assertEqual(now["exits"], [], now["exits"])
            self.assertEqual([worker["pid"] for worker in now["workers"]], [worker["pid"] for worker in module["workers"]])
            wait_until(lambda: self.daemon.module(name)["observed"]["state"] == "RUNNING", f"{name} is well")  # DEGRADED for a while by its log
        for planted in (self.daemon.data / "versions" / "planted", self.daemon.data / "modules" / STEADY / "planted", self.outside / "planted",
                        pathlib.Path("/etc/bulkhead-planted"), pathlib.Path("/tmp/bulkhead-planted")):
            self.assertFalse(planted.exists(), planted)
        self.assertEqual(self.daemon.sql("SELECT count(*) FROM pg_roles WHERE rolname = 'planted'"), [["0"]])

    def test_every_measure_is_told_and_those_not_in_force_say_why(self):
        for name in (STEADY, "hostile"):
            module = self.daemon.module(name)
            self.assertEqual([item["name"] for item in module["isolation"]], MEASURES)
            for item in module["isolation"]:
                self.assertIn(item["state"], ("active", "unavailable", "off"))
                self.assertTrue(item["state"] == "active" or item["why"], item)
        self.assertEqual(states(self.daemon.module(STEADY))["cgroup.memory"], "off")
        self.assertEqual(why(self.daemon.module(STEADY), "cgroup.memory"), "not asked for")
        self.assertIn("names no access.network", why(self.daemon.module(STEADY), "network"))

    @AS_ROOT
    def test_as_root_every_measure_is_in_force_that_this_machine_has(self):
        given = states(self.daemon.module("hostile"))
        for name in ("uid", "no_new_privs", "capabilities", "rlimits", "landlock", "seccomp", "network", "tmp", "proc", "ipc"):
            self.assertEqual(given[name], "active", why(self.daemon.module("hostile"), name))

    @AS_ROOT
    def test_what_it_leaves_in_tmp_nobody_else_finds(self):
        for number, folder in enumerate(("/tmp", "/var/tmp", "/dev/shm")):
            self.assertEqual(attempt(self.daemon, "make_file", path=f"{folder}/bulkhead-left-{number}"), (True, "made"))
            self.assertFalse(os.path.exists(f"{folder}/bulkhead-left-{number}"), folder)
            self.assertEqual(attempt(self.daemon, "list_folder", path=folder)[0], True)

    def test_its_temporary_files_end_with_it(self):
        folder = attempt(self.daemon, "run_program", argv=["/bin/sh", "-c", "echo $TMPDIR"])[1]
        self.assertEqual(attempt(self.daemon, "make_file", path=f"{folder}/left"), (True, "made"))
        self.assertTrue(os.path.exists(f"{folder}/left"))
        pid = self.daemon.module("hostile")["workers"][0]["pid"]
        network = os.readlink(f"/proc/{pid}/ns/net")
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: self.daemon.module("hostile")["workers"][0]["pid"] not in (0, pid), "another process")
        self.daemon.wait_observed("hostile", "RUNNING")
        wait_until(lambda: not os.path.exists(folder), "its folder is gone")
        again = self.daemon.module("hostile")["workers"][0]["pid"]
        self.assertEqual(os.readlink(f"/proc/{again}/ns/net"), network, "its processes share a network, one after another too")

    def test_nothing_of_the_supervisor_is_in_its_environment(self):
        done, printed = attempt(self.daemon, "run_program", argv=["/bin/sh", "-c", "env | sed 's/=.*//' | grep -vx PWD | sort | tr '\\n' ' '"])
        self.assertEqual((done, printed), (True, "BULKHEAD_INSTANCE HOME LANG PATH TMPDIR"))


class Manifests(DaemonTest):
    def setUp(self):
        super().setUp()
        self.modules = self.temporary_folder(0o755)

    def place(self):
        folder = make_place()
        self._folders.append(folder)  # removed after the daemon on it
        return folder

    def refused_everywhere(self, code, sentence, path, boot_args=None, **daemon_options):
        """By the plan, by the enabling, and at boot, where it is not tried again."""
        name = "hostile"
        daemon = self.daemon(modules_dir=self.modules, **daemon_options)
        plan = daemon.get(f"/api/v1/modules/{name}/plan?action=enable").data
        self.assertFalse(plan["allowed"], plan)
        self.assertEqual(plan["refusals"][0]["code"], code, plan)
        answer = daemon.post(f"/api/v1/modules/{name}/enable")
        self.assertError(answer, 409, code)
        self.assertEqual(answer.error["message"], plan["refusals"][0]["message"])
        self.assertRegex(answer.error["message"], sentence)
        self.assertIn(path, [detail["path"] for detail in answer.error["details"]])
        self.assertEqual(daemon.module(name)["status"], "DISABLED")
        daemon.stop()
        if boot_args:
            daemon_options["args"] = boot_args
        booted = self.daemon(modules=[name], modules_dir=self.modules, **daemon_options)
        module = booted.wait_observed(name, "FAILED")
        self.assertEqual(module["observed"]["reason"]["code"], code)
        self.assertEqual((module["exits"], module["status"]), ([], "ENABLED"))
        return booted


class Access(Manifests):
    """What a manifest asks for, and what is refused of it."""

    def test_files_that_are_named_are_reached_as_they_are_named(self):
        outside = self.place()
        for name in ("read", "write", "else"):
            (outside / name).mkdir()
            (outside / name).chmod(0o777)
            (outside / name / "file").write_text("x")
            (outside / name / "file").chmod(0o666)
        write_hostile(self.modules, access={"files": [f"{outside}/read", {"path": f"{outside}/write", "mode": "write"}], "network": "none"})
        daemon = self.daemon(modules=["hostile"], modules_dir=self.modules, folder=self.place())
        found = {(name, what): attempt(daemon, what, path=f"{outside}/{name}/file")[0]
                 for name in ("read", "write", "else") for what in ("read_file", "write_file")}
        confined = states(daemon.module("hostile"))["landlock"] == "active"
        self.assertEqual(found, {("read", "read_file"): True, ("read", "write_file"): not confined, ("write", "read_file"): True, ("write", "write_file"): True,
                                 ("else", "read_file"): not confined, ("else", "write_file"): not confined})

    def test_a_place_that_is_not_there_is_named(self):
        write_hostile(self.modules, access={"files": ["/nowhere/at/all"]})
        daemon = self.daemon(modules_dir=self.modules)
        answer = daemon.post("/api/v1/modules/hostile/enable?wait=20s")
        if answer.status == 200:
            self.skipTest("this kernel has no Landlock")
        self.assertError(answer, 502, "MODULE_START_FAILED")
        self.assertIn("access.files: /nowhere/at/all: No such file or directory", answer.error["message"])

    def test_the_supervisors_own_folders_are_refused(self):
        write_hostile(self.modules, access={"files": ["/etc/fstab", "/tmp"]})
        self.refused_everywhere("ACCESS_CONFLICT", r"/tmp, which holds the supervisor's own folder /tmp/", "/access/files/1")

    def test_a_database_over_tcp_is_refused_without_a_network(self):
        server = OwnServer()
        self.addCleanup(server.remove)
        server.sql("CREATE DATABASE second", database="postgres")
        write_hostile(self.modules, access={"network": "none"})
        self.refused_everywhere("ACCESS_CONFLICT", r"reached over TCP", "/access/network", args=["--store-url", server.url],
                                boot_args=["--store-url", own_server.url_of(server.url, "second")])

    def test_over_tcp_a_module_that_names_no_network_reaches_its_database_alone(self):
        server = OwnServer()
        self.addCleanup(server.remove)
        write_hostile(self.modules, access={})
        daemon = self.daemon(modules=["hostile"], modules_dir=self.modules, args=["--store-url", server.url])
        self.assertEqual(daemon.post("/api/v1/m/hostile/sql", {"sql": "SELECT 1"}).data, {"done": True, "how": ""})
        host, port = daemon.admin_address.rsplit(":", 1)
        active = states(daemon.module("hostile"))["network"] == "active"
        self.assertEqual(attempt(daemon, "connect_tcp", host=host, port=int(port))[0], not active)
        self.assertEqual(attempt(daemon, "send_udp", host="127.0.0.1", port=53)[0], states(daemon.module("hostile"))["seccomp"] != "active")
        self.assertIn(f"ports: {server.port}", why(daemon.module("hostile"), "network"))

    def test_outbound_reaches_all_and_says_so(self):
        write_hostile(self.modules, access={"network": "outbound"})
        daemon = self.daemon(modules=["hostile"], modules_dir=self.modules)
        host, port = daemon.admin_address.rsplit(":", 1)
        self.assertEqual(attempt(daemon, "connect_tcp", host=host, port=int(port)), (True, "connected"))
        self.assertEqual((states(daemon.module("hostile"))["network"], why(daemon.module("hostile"), "network")),
                         ("off", "outbound: access.network of the manifest says so"))

    def test_a_manifest_that_is_applied_is_not_warned_about(self):
        manifest = {"name": "a", "version": "1.0.0", "access": {"files": ["/opt/a"], "network": {"ports": [443]}}, "isolation": "strict"}
        daemon = self.daemon(modules_dir=self.modules)
        self.assertEqual(daemon.post("/api/v1/modules/validate", {"manifest": manifest}).data["warnings"], [])


class Strict(Manifests):
    """isolation: strict, and what the operator has switched off."""

    def test_it_is_refused_where_a_measure_is_switched_off(self):
        write_hostile(self.modules, isolation="strict")
        daemon = self.refused_everywhere("ISOLATION_INCOMPLETE", r"seccomp \(switched off by isolation.off of the supervisor's configuration\)", "/isolation",
                                         args=["--isolation-off", "seccomp"])
        self.assertEqual(daemon.module("hostile")["workers"][0]["state"], "STOPPED")

    @unittest.skipIf(harness.IS_ROOT, "root may give modules users of their own")
    def test_without_root_it_is_refused(self):
        write_hostile(self.modules, isolation="strict")
        self.refused_everywhere("ISOLATION_INCOMPLETE", r"uid \(the supervisor does not run as root", "/isolation")

    @AS_ROOT
    def test_it_runs_where_all_is_in_force(self):
        write_hostile(self.modules, isolation={"mode": "strict"}, limits={})
        daemon = self.daemon(modules_dir=self.modules, folder=self.place())
        answer = daemon.post("/api/v1/modules/hostile/enable")
        if answer.status == 409:
            self.assertError(answer, 409, "ISOLATION_INCOMPLETE")
            self.skipTest(answer.error["message"])
        self.assertEqual(answer.status, 200, answer)
        module = daemon.module("hostile")
        self.assertEqual([item for item in module["isolation"] if item["state"] == "unavailable"], [])

    def test_what_the_operator_switches_off_is_off_and_said(self):
        echo_like(self.modules, "plain")
        names = ["landlock", "seccomp", "network", "tmp", "proc", "ipc"]
        daemon = self.daemon(modules=["plain"], modules_dir=self.modules, config=f"isolation:\n  off: [{', '.join(names)}]\n")
        module = daemon.module("plain")
        for name in names:
            self.assertEqual((states(module)[name], why(module, name)), ("off", "switched off by isolation.off of the supervisor's configuration"))
        pid = module["workers"][0]["pid"]
        self.assertEqual(os.readlink(f"/proc/{pid}/ns/net"), os.readlink(f"/proc/{daemon.process.pid}/ns/net"))
        self.assertEqual(daemon.get("/api/v1/m/plain/echo").status, 200)


if __name__ == "__main__":
    harness.main()
