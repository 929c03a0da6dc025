"""What is killed comes back, what cannot start says why, and neither takes anything else with it."""

import os
import signal
import threading
import time
import unittest

import harness
from harness import CONVERGE_TIMEOUT_S, SLOW, DaemonTest, wait_until, write_module

MODULE = "consumption-monitor"


class Crash(DaemonTest):
    def test_kill_9_is_noticed_at_once_told_with_its_cause_and_the_module_runs_again(self):
        daemon = self.daemon(modules=[MODULE])
        worker = daemon.module(MODULE)["workers"][0]
        statuses, done = [], threading.Event()

        def ask():
            while not done.is_set():
                answer = daemon.get(f"/api/v1/m/{MODULE}/live")
                statuses.append(answer)
                if answer.status == 503:
                    self.assertTrue(answer.header("Retry-After"), answer)

        client = threading.Thread(target=ask)
        client.start()
        try:
            os.kill(worker["pid"], signal.SIGKILL)
            module = wait_until(lambda: self.running_with_other_pid(daemon, worker["pid"]), "a new process", CONVERGE_TIMEOUT_S)
            wait_until(lambda: daemon.get(f"/api/v1/m/{MODULE}/live").status == 200, "an answer by the new process")
        finally:
            done.set()
            client.join()
        bad = [answer for answer in statuses if answer.status not in (200, 502, 503)]
        self.assertEqual(bad, [], "while it was away there was something else than success or 502/503")
        for answer in statuses:
            if answer.status == 503:
                self.assertTrue(answer.header("Retry-After"), answer)
        exit_ = module["exits"][0]
        self.assertEqual((exit_["cause"], exit_["signal"]), ("SIGNAL", signal.SIGKILL))
        self.assertGreater(exit_["ranMs"], 0)
        self.assertEqual(module["workers"][0]["restarts"], worker["restarts"] + 1)
        self.assertNotEqual(module["workers"][0]["instance"], worker["instance"])
        self.assertEqual(module["status"], "ENABLED")

    @staticmethod
    def running_with_other_pid(daemon, pid):
        module = daemon.module(MODULE)
        worker = module["workers"][0] if module["workers"] else {"pid": pid}
        return module if worker["pid"] not in (0, pid) and module["observed"]["state"] == "RUNNING" else None

    def test_a_crash_does_not_make_the_node_unready(self):
        daemon = self.daemon(modules=[MODULE])
        os.kill(daemon.module(MODULE)["workers"][0]["pid"], signal.SIGKILL)
        for _ in range(20):
            self.assertEqual(daemon.get("/readyz", token=None).status, 200)

    def test_a_stopped_process_does_not_hold_up_the_others_or_the_shutdown(self):
        daemon = self.daemon(modules=[MODULE])
        os.kill(daemon.module(MODULE)["workers"][0]["pid"], signal.SIGSTOP)
        self.assertEqual(daemon.get("/healthz", token=None).status, 200)
        self.assertEqual(daemon.get("/api/v1/modules").status, 200)
        _code, took = daemon.stop()
        self.assertLess(took, 30 * SLOW)
        daemon.assert_nothing_left()

    def test_what_a_module_started_itself_dies_with_it(self):
        modules = self.temporary_folder()
        write_module(modules, "parent", {"lifecycle": {"handshakeTimeout": 60000}},
                     entry="#!/bin/sh\nsetsid sleep 300 &\nsleep 300 &\nsleep 300\n")
        daemon = self.daemon(start=False, modules_dir=modules, modules=["parent"])
        daemon.launch()
        wait_until(lambda: sum("sleep" in harness.describe(p) for p in harness.descendants(daemon.process.pid)) >= 3,
                   "three processes of the module", CONVERGE_TIMEOUT_S)
        daemon.stop()
        daemon.assert_nothing_left()


class CannotStart(DaemonTest):
    def enable(self, name, manifest=None, **entry):
        """A daemon with consumption-monitor and one module that can't start; answers the daemon and the answer of enable."""
        modules = self.temporary_folder()
        write_module(modules, name, manifest, **entry)
        os.symlink(harness.MODULES / MODULE, modules / MODULE)
        daemon = self.daemon(modules=[MODULE], modules_dir=modules)
        return daemon, daemon.post(f"/api/v1/modules/{name}/enable?wait=30s")

    def assert_harmless(self, daemon, name):
        self.assertEqual(daemon.get(f"/api/v1/m/{MODULE}/live").status, 200)
        self.assertEqual(daemon.module(name)["desired"]["state"], "DISABLED", "a failed enable takes the wish back")
        self.assertEqual(daemon.get(f"/api/v1/m/{name}/x").status, 404)

    def test_a_program_that_ends_at_once_fails_the_enable_with_its_exit_code_and_output(self):
        daemon, answer = self.enable("quitter", entry="#!/bin/sh\necho no such thing as a free lunch >&2\nexit 3\n")
        self.assertError(answer, 502, "MODULE_START_FAILED")
        self.assertIn("quitter", answer.error["message"])
        exit_ = daemon.module("quitter")["exits"][0]
        self.assertEqual((exit_["cause"] in ("EXIT", "HANDSHAKE"), exit_["exitCode"]), (True, 3), exit_)
        self.assertIn("free lunch", exit_["output"])
        self.assert_harmless(daemon, "quitter")
        daemon.stop()
        daemon.start()
        module = daemon.module("quitter")
        self.assertEqual((module["exits"], module["exitCounts"]), ([exit_], {exit_["cause"]: 1}), "all of it is kept")
        self.assertEqual(exit_["message"], "exited with code 3 before the handshake")

    def test_a_program_that_never_shakes_hands_fails_the_enable_in_its_time(self):
        daemon, answer = self.enable("silent", {"lifecycle": {"handshakeTimeout": 500}}, entry="#!/bin/sh\nexec sleep 300\n")
        self.assertError(answer, 502, "MODULE_START_FAILED")
        self.assertEqual(daemon.module("silent")["exits"][0]["cause"], "HANDSHAKE")
        self.assert_harmless(daemon, "silent")

    def test_a_program_that_speaks_another_protocol_is_refused_with_its_own_words(self):
        daemon, answer = self.enable("stranger", entry="#!/bin/sh\nread -r line <&3\necho '{\"error\":\"I only speak protocol 99\"}' >&3\nsleep 5\n")
        self.assertError(answer, 502, "MODULE_START_FAILED")
        self.assertIn("I only speak protocol 99", answer.body.decode())
        self.assert_harmless(daemon, "stranger")

    def test_a_program_that_answers_rubbish_on_fd_3_is_refused(self):
        daemon, answer = self.enable("babbler", entry="#!/bin/sh\nread -r line <&3\nhead -c 300000 /dev/zero >&3\nsleep 5\n")
        self.assertError(answer, 502, "MODULE_START_FAILED")
        self.assert_harmless(daemon, "babbler")

    def test_a_binary_that_is_missing_or_not_executable_is_told_at_install(self):
        for name, entry in (("missing-binary", {}), ("not-executable", {"entry": "#!/bin/sh\n", "mode": 0o644})):
            with self.subTest(name):
                daemon, answer = self.enable(name, **entry)
                self.assertError(answer, 400, "PACKAGE_INVALID")
                self.assertIn(f"bin/{name}", answer.error["message"])
                self.assert_harmless(daemon, name)

    def test_a_module_that_cannot_start_at_boot_stops_nobody_else(self):
        modules = self.temporary_folder()
        write_module(modules, "quitter", entry="#!/bin/sh\nexit 3\n")
        os.symlink(harness.MODULES / MODULE, modules / MODULE)
        daemon = self.daemon(modules=[MODULE, "quitter"], modules_dir=modules)
        self.assertEqual(daemon.get(f"/api/v1/m/{MODULE}/live").status, 200)
        quitter = daemon.wait_observed("quitter", "FAILED", "BACKOFF", "QUARANTINED")
        self.assertEqual(quitter["desired"]["state"], "ENABLED", "a failure at boot doesn't take the wish back")
        self.assertTrue(quitter["observed"]["reason"]["message"])

    def test_broken_folders_are_reported_and_stop_nobody_else(self):
        modules = self.temporary_folder()
        write_module(modules, "not-json", text="{ this is not JSON")
        write_module(modules, "wrong-fields", text='{"name": "wrong-fields", "version": "latest"}')
        write_module(modules, "two-manifests")
        (modules / "two-manifests" / "module.yaml").write_text("name: two-manifests\n")
        write_module(modules, "another-name", text='{"manifestVersion": 1, "name": "not-the-folder", "version": "1.0.0"}')
        (modules / "no-manifest").mkdir()
        os.symlink(harness.MODULES / MODULE, modules / MODULE)
        daemon = self.daemon(modules=[MODULE], modules_dir=modules)
        self.assertEqual(daemon.get(f"/api/v1/m/{MODULE}/live").status, 200)
        log = daemon.log()
        for broken in ("not-json", "wrong-fields", "two-manifests"):
            self.assertIn(broken, log)
        names = {module["name"] for module in daemon.get("/api/v1/modules").data}
        self.assertTrue(names.isdisjoint({"not-json", "wrong-fields", "two-manifests"}), names)

    def test_a_failing_migration_undoes_itself_and_names_file_and_sqlstate(self):
        modules = self.temporary_folder()
        folder = write_module(modules, "bad-migration", {"database": {}}, entry="#!/bin/sh\nsleep 5\n")
        (folder / "migrations").mkdir()
        (folder / "migrations" / "001_good.sql").write_text("CREATE TABLE good (id int);\n")
        (folder / "migrations" / "001_good.down.sql").write_text("DROP TABLE good;\n")
        (folder / "migrations" / "002_bad.sql").write_text("CREATE TABLE half (id int);\nSELECT * FROM nowhere;\n")
        (folder / "migrations" / "002_bad.down.sql").write_text("DROP TABLE half;\n")
        daemon = self.daemon(modules_dir=modules)
        for _ in range(2):
            answer = daemon.post("/api/v1/modules/bad-migration/enable")
            self.assertError(answer, 502, "MIGRATION_FAILED")
            self.assertIn("002_bad.sql", answer.body.decode())
            self.assertIn("42P01", answer.body.decode())
        self.assertEqual(daemon.module("bad-migration")["desired"]["state"], "DISABLED")


if __name__ == "__main__":
    harness.main()
