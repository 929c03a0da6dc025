"""Several modules and workers together: dependencies, flags, configuration at first registration, changed packages, logs, identity."""

import concurrent.futures
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import unittest

import harness
from harness import CONVERGE_TIMEOUT_S, DaemonTest, wait_until


def echo_like(modules_dir, name, folder="", **manifest):
    """A module folder like echo's under another name, with fields of the manifest replaced."""
    source, target = harness.FAKES / "echo", pathlib.Path(modules_dir) / (folder or name)
    (target / "bin").mkdir(parents=True)
    shutil.copy(source / "bin" / "echo", target / "bin" / name)
    document = json.loads((source / "manifest.json").read_text())
    document.update({"name": name, **manifest})
    (target / "manifest.json").write_text(json.dumps(document))
    for path in (target.parent, target, target / "bin", target / "bin" / name):
        path.chmod(0o755)
    return target


class Dependencies(DaemonTest):
    def setUp(self):
        super().setUp()
        self.modules = self.temporary_folder()
        echo_like(self.modules, "base")
        echo_like(self.modules, "middle", dependencies={"modules": {"base": "^1.0.0"}})
        echo_like(self.modules, "top", dependencies={"modules": {"middle": ">=1.0.0 <2.0.0"}})

    def test_they_start_in_order_and_stop_in_reverse(self):
        daemon = self.daemon(modules=["top", "middle", "base"], modules_dir=self.modules)
        started = {name: daemon.module(name)["workers"][0]["startedAt"] for name in ("base", "middle", "top")}
        self.assertLess(started["base"], started["middle"])
        self.assertLess(started["middle"], started["top"])
        daemon.stop()
        log = daemon.log()
        stopped = [log.index(f"STOPPED  module={name}") for name in ("top", "middle", "base")]
        self.assertEqual(stopped, sorted(stopped))
        daemon.assert_nothing_left()

    def test_enable_is_refused_until_what_it_needs_is_enabled_and_disable_while_it_is_needed(self):
        daemon = self.daemon(modules_dir=self.modules)
        answer = daemon.post("/api/v1/modules/middle/enable")
        self.assertError(answer, 409, "DEPENDENCY_UNSATISFIED")
        self.assertIn("base 1.0.0 is not enabled, needed is ^1.0.0", answer.error["message"])
        self.assertEqual(daemon.module("middle")["desired"]["state"], "DISABLED")
        for name in ("base", "middle"):
            self.assertEqual(daemon.post(f"/api/v1/modules/{name}/enable").status, 200)
        answer = daemon.post("/api/v1/modules/base/disable")
        self.assertError(answer, 409, "HAS_DEPENDENTS")
        self.assertIn("middle", answer.error["message"])
        self.assertEqual(daemon.get("/api/v1/m/base/echo").status, 200)
        self.assertEqual(daemon.post("/api/v1/modules/middle/disable").status, 200)
        self.assertEqual(daemon.post("/api/v1/modules/base/disable").status, 200)

    def test_a_version_outside_the_range_is_refused(self):
        echo_like(self.modules, "picky", dependencies={"modules": {"base": "^2.0.0"}})
        daemon = self.daemon(modules=["base"], modules_dir=self.modules)
        answer = daemon.post("/api/v1/modules/picky/enable")
        self.assertError(answer, 409, "DEPENDENCY_UNSATISFIED")
        self.assertIn("^2.0.0", answer.error["message"])

    def test_a_circle_is_refused_with_its_whole_path(self):
        echo_like(self.modules, "hen", dependencies={"modules": {"egg": "*"}})
        echo_like(self.modules, "egg", dependencies={"modules": {"hen": "*"}})
        daemon = self.daemon(modules_dir=self.modules)
        answer = daemon.post("/api/v1/modules/hen/enable")
        self.assertError(answer, 409, "DEPENDENCY_UNSATISFIED")
        self.assertIn("hen -> egg -> hen", answer.error["message"])
        self.assertEqual([detail["code"] for detail in answer.error["details"]], ["DEPENDENCY_CYCLE"])


class Commands(DaemonTest):
    """Commands to one module at the same time."""

    def module_that_hangs(self):
        """Never answers the handshake."""
        modules = self.temporary_folder()
        target = echo_like(modules, "hangs", lifecycle={"handshakeTimeout": 60000})
        (target / "bin" / "hangs").write_text("#!/bin/sh\nexec sleep 600\n")
        return modules

    def test_a_disable_overtakes_an_enable_whose_start_hangs(self):
        daemon = self.daemon(modules_dir=self.module_that_hangs())
        enabling = concurrent.futures.ThreadPoolExecutor(1).submit(daemon.post, "/api/v1/modules/hangs/enable?wait=60s", timeout=90)
        daemon.wait_observed("hangs", "STARTING")
        wait_until(lambda: daemon.module("hangs")["workers"][0]["pid"], "its process")
        began = time.monotonic()
        answer = daemon.post("/api/v1/modules/hangs/disable")
        self.assertEqual((answer.status, answer.data["observed"]["state"]), (200, "STOPPED"), answer)
        self.assertLess(time.monotonic() - began, 30, "it waited for the start")
        answer = enabling.result()
        self.assertEqual(answer.status, 202, answer)
        self.assertIs(answer.json["meta"]["converged"], False)
        self.assertEqual(answer.data["desired"]["state"], "DISABLED")

    def test_of_two_that_name_the_same_generation_one_is_412(self):
        modules = self.temporary_folder()
        echo_like(modules, "one")
        daemon = self.daemon(modules=["one"], modules_dir=modules)
        for _ in range(5):
            generation = daemon.module("one")["desired"]["generation"]
            enabled = daemon.module("one")["status"] == "ENABLED"
            with concurrent.futures.ThreadPoolExecutor(4) as callers:
                answers = list(callers.map(lambda _: daemon.post(
                    f"/api/v1/modules/one/{'disable' if enabled else 'enable'}", headers={"If-Match": f'"{generation}"'}), range(4)))
            self.assertEqual(sorted(a.status for a in answers), [200, 412, 412, 412])

    def test_enable_of_one_that_runs_is_200_without_waiting(self):
        modules = self.temporary_folder()
        echo_like(modules, "one")
        daemon = self.daemon(modules=["one"], modules_dir=modules)
        self.assertEqual(daemon.post("/api/v1/modules/one/enable?wait=false").status, 200)

    def test_one_that_this_run_leaves_out_can_be_enabled(self):
        modules = self.temporary_folder()
        echo_like(modules, "one")
        daemon = self.daemon(modules=["one"], modules_dir=modules, args=["--disable", "one"])
        self.assertEqual(daemon.get("/api/v1/m/one/echo").status, 404)
        answer = daemon.post("/api/v1/modules/one/enable")
        self.assertEqual((answer.status, answer.data["observed"]["state"]), (200, "RUNNING"), answer)
        self.assertEqual(daemon.get("/api/v1/m/one/echo").status, 200)


class Workers(DaemonTest):
    def test_with_two_workers_one_may_die_and_the_other_answers(self):
        modules = self.temporary_folder()
        echo_like(modules, "pair", workers=2)
        daemon = self.daemon(modules=["pair"], modules_dir=modules)
        module = wait_until(lambda: (lambda m: m if len([w for w in m["workers"] if w["state"] == "RUNNING"]) == 2 else None)(daemon.module("pair")),
                            "two workers")
        pids = {worker["slot"]: worker["pid"] for worker in module["workers"]}
        self.assertEqual(set(pids), {0, 1})
        self.assertNotEqual(pids[0], pids[1])
        os.kill(pids[1], signal.SIGKILL)
        for number in range(100):
            # The one that dies may have the request already: a safe one is tried on the other.
            answer = daemon.get(f"/api/v1/m/pair/echo?n={number}")
            self.assertEqual(answer.status, 200, answer)
        after = wait_until(lambda: (lambda m: m if m["observed"]["state"] == "RUNNING" and m["exits"] else None)(daemon.module("pair")), "both again")
        self.assertEqual({w["slot"]: w["pid"] for w in after["workers"]}[0], pids[0], "the other worker was left alone")
        self.assertNotEqual({w["slot"]: w["pid"] for w in after["workers"]}[1], pids[1])


class Flags(DaemonTest):
    def test_a_module_whose_flag_is_off_is_skipped(self):
        modules = self.temporary_folder()
        echo_like(modules, "flagged", featureFlag="new-thing")
        daemon = self.daemon(start=False, modules=["flagged"], modules_dir=modules, env={"FEATURE_FLAG_NEW_THING": "false"})
        daemon.start()
        self.assertEqual(daemon.module("flagged")["observed"]["state"], "SKIPPED")
        self.assertEqual([worker["pid"] for worker in daemon.module("flagged")["workers"] if worker["pid"]], [])
        self.assertError(daemon.get("/api/v1/m/flagged/echo"), 404, "ROUTE_NOT_FOUND")
        self.assertEqual(daemon.get("/readyz", token=None).status, 200)
        daemon.stop()
        daemon.env = {"FEATURE_FLAG_NEW_THING": "true"}
        daemon.start()
        self.assertEqual(daemon.get("/api/v1/m/flagged/echo").status, 200)


class Configuration(DaemonTest):
    def settings(self, greeting):
        return f"modules:\n  echo:\n    enabled: true\n    config:\n      greeting: {greeting}\n      apiKey: key-nobody-may-see\n"

    def test_the_file_configures_a_module_at_its_first_registration_only(self):
        daemon = self.daemon(start=False, config=self.settings("servus"), modules_dir=harness.FAKES)
        daemon.start()
        self.assertEqual(daemon.get("/api/v1/m/echo/config").data["greeting"], "servus")
        daemon.stop()
        daemon.config_path.write_text(self.settings("moin"))
        daemon.start()
        self.assertEqual(daemon.get("/api/v1/m/echo/config").data["greeting"], "servus")

    def test_a_secret_of_the_configuration_is_never_shown_or_logged(self):
        daemon = self.daemon(config=self.settings("servus"), modules_dir=harness.FAKES, args=["--log-level", "debug"])
        module = daemon.get("/api/v1/modules/echo")
        self.assertEqual(module.data["config"]["apiKey"], "********")
        self.assertEqual(module.data["config"]["greeting"], "servus")
        self.assertNotIn("key-nobody-may-see", module.body.decode() + daemon.get("/api/v1/modules").body.decode() + daemon.log())


class Packages(DaemonTest):
    def change(self, folder, route):
        document = json.loads((folder / "manifest.json").read_text())
        document["capabilities"]["api"]["routes"] = [{"method": "GET", "path": route}]
        (folder / "manifest.json").write_text(json.dumps(document))

    def test_what_is_installed_is_a_copy_that_the_source_no_longer_touches(self):
        modules = self.temporary_folder()
        folder = echo_like(modules, "copied")
        daemon = self.daemon(modules=["copied"], modules_dir=modules)
        shutil.rmtree(folder)
        os.kill(daemon.module("copied")["workers"][0]["pid"], signal.SIGKILL)
        wait_until(lambda: daemon.get("/api/v1/m/copied/echo").status == 200, "an answer by a process of the copy")
        versions = list((daemon.data / "versions" / "copied").iterdir())
        self.assertEqual(len(versions), 1)
        self.assertRegex(versions[0].name, r"^1\.0\.0-[0-9a-f]{8}$")
        for path in [versions[0], *versions[0].rglob("*")]:
            self.assertEqual(path.stat().st_mode & (0o222 if path.is_file() else 0o022), 0, f"{path} can be written")

    def test_a_changed_package_of_the_same_version_is_taken_in_development_only(self):
        modules = self.temporary_folder()
        folder = echo_like(modules, "changing")
        daemon = self.daemon(modules=["changing"], modules_dir=modules)
        self.assertEqual(daemon.get("/api/v1/m/changing/echo").status, 200)
        daemon.stop()
        self.change(folder, "/inline")
        daemon.start()
        self.assertEqual(daemon.get("/api/v1/m/changing/echo").status, 200, "taken without development")
        self.assertIn("changing", daemon.log())
        daemon.stop()
        daemon.extra_args = ["--development", "true"]
        daemon.start()
        self.assertEqual(daemon.get("/api/v1/m/changing/inline").status, 200)
        self.assertError(daemon.get("/api/v1/m/changing/echo"), 404, "ROUTE_NOT_FOUND")

    def test_a_folder_may_be_named_otherwise_than_its_module_and_that_is_said(self):
        modules = self.temporary_folder()
        echo_like(modules, "inside", folder="outside")
        daemon = self.daemon(modules=["inside"], modules_dir=modules)
        self.assertEqual([(module["name"], module["path"]) for module in daemon.get("/api/v1/modules").data], [("inside", f"{modules}/outside")])
        self.assertRegex(daemon.log(), rf"registered  module=inside .*folder={modules}/outside")
        self.assertEqual(daemon.get("/api/v1/m/inside/echo").status, 200)
        self.assertError(daemon.get("/api/v1/m/outside/echo"), 404, "ROUTE_NOT_FOUND")

    def test_a_module_for_another_version_of_the_supervisor_is_left_out_and_refused(self):
        modules = self.temporary_folder()
        echo_like(modules, "fits", dependencies={"system": {"bulkhead": ">=0.1.0"}})
        folder = echo_like(modules, "later", dependencies={"system": {"bulkhead": ">=99.0.0"}})
        daemon = self.daemon(modules=["fits", "later"], modules_dir=modules)
        self.assertEqual([module["name"] for module in daemon.get("/api/v1/modules").data], ["fits"])
        self.assertIn("module later 1.0.0 needs bulkhead >=99.0.0", daemon.log())
        manifest = json.loads((folder / "manifest.json").read_text())
        answer = daemon.post("/api/v1/modules", {"manifest": manifest, "path": str(folder)})
        self.assertError(answer, 409, "DEPENDENCY_UNSATISFIED")
        self.assertEqual(answer.error["details"][0]["path"], "/dependencies/system/bulkhead")

    def test_an_installed_module_that_is_for_another_supervisor_is_not_started_and_says_why(self):
        modules = self.temporary_folder()
        echo_like(modules, "fits")
        folder = echo_like(modules, "later")
        daemon = self.daemon(modules=["fits", "later"], modules_dir=modules)
        daemon.stop()
        shutil.rmtree(folder)
        (installed,) = (daemon.data / "versions" / "later").iterdir()
        manifest = json.loads((installed / "manifest.json").read_text())
        (installed / "manifest.json").chmod(0o644)
        (installed / "manifest.json").write_text(json.dumps({**manifest, "dependencies": {"system": {"bulkhead": ">=99.0.0"}}}))
        daemon.start()
        later = daemon.module("later")
        self.assertEqual((later["observed"]["state"], later["observed"]["reason"]["code"]), ("FAILED", "DEPENDENCY_UNSATISFIED"))
        self.assertIn("module later 1.0.0 needs bulkhead >=99.0.0", later["observed"]["reason"]["message"])
        self.assertEqual([worker["pid"] for worker in later["workers"] if worker["pid"]], [])
        self.assertEqual(daemon.get("/api/v1/m/fits/echo").status, 200)
        self.assertEqual(daemon.post("/api/v1/modules/later/disable").status, 200)
        answer = daemon.post("/api/v1/modules/later/enable")
        self.assertError(answer, 409, "DEPENDENCY_UNSATISFIED")
        self.assertEqual(answer.error["details"][0]["path"], "/dependencies/system/bulkhead")

    def test_a_modules_folder_that_cannot_be_read_is_told(self):
        modules = self.temporary_folder(0o300)
        daemon = self.daemon(modules_dir=modules)
        self.assertEqual(daemon.get("/api/v1/modules").data, [])
        self.assertIn(f"can't read the modules directory: nothing new is found there  folder={modules}", daemon.log())


class Processes(DaemonTest):
    def test_what_a_module_logs_stands_in_the_log_under_its_name(self):
        daemon = self.daemon(modules=["echo"], modules_dir=harness.FAKES)
        line = wait_until(lambda: next((line for line in daemon.log().splitlines() if "the echo module is ready" in line), None), "the line in the log")
        self.assertIn("module/echo", line)

    def test_the_log_can_be_json_line_by_line(self):
        daemon = self.daemon(modules=["echo"], modules_dir=harness.FAKES, args=["--log-format", "json"])
        wait_until(lambda: "the echo module is ready" in daemon.log(), "the line in the log")
        daemon.stop()
        for line in daemon.log().splitlines():
            self.assertIsInstance(json.loads(line), dict, line)

    @unittest.skipUnless(harness.IS_ROOT, "only as root do modules have users of their own")
    def test_daemon_module_and_postgresql_run_as_different_users_and_none_as_root_but_the_spawner(self):
        modules = self.temporary_folder()
        for name in ("one", "two"):
            echo_like(modules, name)
        daemon = self.daemon(modules=["one", "two"], modules_dir=modules, private_store=True)

        def uid(pid):
            return int(harness._read(f"/proc/{pid}/status").decode().split("Uid:")[1].split()[0])

        pids = {name: daemon.module(name)["workers"][0]["pid"] for name in ("one", "two")}
        uids = {"daemon": uid(daemon.process.pid), **{name: uid(pid) for name, pid in pids.items()}}
        postgres = [pid for pid, _started in harness.descendants(daemon.process.pid) if harness.process_table()[pid][3] == "postgres"]
        uids["postgres"] = uid(postgres[0])
        self.assertNotIn(0, uids.values())
        self.assertEqual(len(set(uids.values())), 4, uids)
        for pid in pids.values():
            status = harness._read(f"/proc/{pid}/status").decode()
            self.assertIn("NoNewPrivs:\t1", status)
            self.assertIn("CapEff:\t0000000000000000", status)
        before = uids
        daemon.stop()
        daemon.start()
        self.assertEqual(uid(daemon.module("one")["workers"][0]["pid"]), before["one"], "a module keeps its user")

    @unittest.skipUnless(harness.IS_ROOT, "only as root do modules have users of their own")
    def test_a_module_can_neither_list_the_folders_of_another_nor_connect_to_its_sockets(self):
        modules = self.temporary_folder()
        for name in ("one", "two"):
            echo_like(modules, name)
        daemon = self.daemon(modules=["one", "two"], modules_dir=modules)

        def credentials(pid):
            status = harness._read(f"/proc/{pid}/status").decode()
            ids = {field: [int(n) for n in status.split(f"\n{field}:")[1].split("\n")[0].split()] for field in ("Uid", "Gid", "Groups")}
            return {"user": ids["Uid"][0], "group": ids["Gid"][0], "extra_groups": ids["Groups"]}

        def attempt(code, path, who):
            done = subprocess.run([sys.executable, "-c", f"import os, socket, sys\npath = sys.argv[1]\n{code}", str(path)], cwd="/",
                                  capture_output=True, text=True, **who)
            return done.returncode, done.stderr

        connect = "socket.socket(socket.AF_UNIX).connect(path)"
        pids = {name: daemon.module(name)["workers"][0]["pid"] for name in ("one", "two")}
        sockets = {line.split()[7] for line in harness._read("/proc/net/unix").decode().splitlines() if f"{daemon.data}/run/w/" in line}
        owned = {name: [path for path in sockets if os.stat(path).st_uid == credentials(pid)["user"]] for name, pid in pids.items()}
        for own, other in (("one", "two"), ("two", "one")):
            who = credentials(pids[own])
            self.assertEqual(len(owned[other]), 2, owned)
            for path in owned[other]:
                self.assertIn("PermissionError", attempt(connect, path, who)[1])
                self.assertIn("PermissionError", attempt("os.listdir(path)", os.path.dirname(path), who)[1])
            self.assertIn("PermissionError", attempt("os.listdir(path)", daemon.data / "modules" / other, who)[1])
            for path in owned[own]:
                self.assertEqual(attempt(connect, path, who), (0, ""), "its own socket, by the same means")

    def test_a_module_has_no_descriptor_of_the_daemon_or_of_another_module(self):
        modules = self.temporary_folder()
        for name in ("one", "two"):
            echo_like(modules, name)
        daemon = self.daemon(modules=["one", "two"], modules_dir=modules)
        pid = daemon.module("two")["workers"][0]["pid"]
        for fd in os.listdir(f"/proc/{pid}/fd"):
            target = os.readlink(f"/proc/{pid}/fd/{fd}")
            allowed = target.startswith(("socket:", "pipe:", "anon_inode:", "/dev/null")) or "/two" in target
            self.assertTrue(allowed, f"descriptor {fd} is {target}")
        wait_until(lambda: daemon.module("one")["observed"]["state"] == "RUNNING", "one running", CONVERGE_TIMEOUT_S)


if __name__ == "__main__":
    harness.main()
