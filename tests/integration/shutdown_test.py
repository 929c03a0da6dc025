"""The end of a daemon whose modules do not want to end: within its time whatever they do, in its order, saying what had to be killed, and with
nothing left, looked for by cgroup and by what the modules have in their environment."""

import contextlib
import os
import pathlib
import re
import signal
import socket
import time
import unittest

import harness
import machine
from harness import CONVERGE_TIMEOUT_S, SLOW, DaemonTest, wait_until
from left_running import cgroups_of_data, instances_running
from misbehaving import write_misbehaving, write_steady
from stuck_files import StuckFiles

BUDGET_S = 30
STOPPED, KILLED = 0, 4
QUICK = {"lifecycle": {"stopTimeout": 300, "drainTimeout": 200}, "access": {"network": "outbound"}}
NEVER = {"lifecycle": {"stopTimeout": 600_000, "drainTimeout": 200}}  # longer than the daemon itself has


class ShutdownTest(DaemonTest):
    def node(self, modes, manifests=None, steady=True):
        """A daemon with a module `m-<mode>` for each, all of them running, and the healthy one."""
        modules = self.temporary_folder()
        names = {mode: f"m-{mode}" for mode in modes}
        if steady:
            write_steady(modules)
        for mode, name in names.items():
            write_misbehaving(modules, name, mode, {**QUICK, **(manifests or {}).get(mode, {})})
        daemon = self.daemon(modules=[*names.values(), *(["steady"] if steady else [])], modules_dir=modules)
        for name in names.values():
            daemon.wait_observed(name, "RUNNING", "DEGRADED")
        daemon.remember_processes()
        self.names = set(names.values()) | {"steady"}
        return daemon

    def data_file(self, daemon, name, file):
        return daemon.data / "modules" / name / file

    def end(self, daemon, code, within=BUDGET_S):
        """Ends it by SIGTERM; answers the last line of its log."""
        took = self.stop(daemon, code)
        self.assertLess(took, within * SLOW)
        self.assert_nothing_left(daemon)
        return self.last_line(daemon)

    def stop(self, daemon, code):
        got, took = daemon.stop(within=BUDGET_S * SLOW)
        self.assertEqual(got, code, daemon.log_tail())
        return took

    def assert_nothing_left(self, daemon):
        daemon.assert_nothing_left()
        wait_until(lambda: not instances_running(daemon.data, self.names), f"the end of {instances_running(daemon.data, self.names)}", 5 * SLOW)
        wait_until(lambda: not cgroups_of_data(daemon.data), f"no cgroup: {cgroups_of_data(daemon.data)}", 5 * SLOW)
        self.assertEqual(os.listdir(daemon.data / "instances"), [], "what was started is forgotten when it has ended")

    @staticmethod
    def last_line(daemon):
        return daemon.log().strip().splitlines()[-1]

    def pid_of(self, daemon, name):
        return daemon.module(name)["workers"][0]["pid"]


class EachAlone(ShutdownTest):
    def test_of_modules_that_end_when_asked_nothing_is_killed(self):
        daemon = self.node([])
        line = self.end(daemon, STOPPED)
        self.assertIn("stopped", line)
        self.assertNotIn("killed", line)

    def test_one_that_ignores_sigterm_is_killed_and_named(self):
        daemon = self.node(["ignore-sigterm"])
        pid = self.pid_of(daemon, "m-ignore-sigterm")
        line = self.end(daemon, KILLED)
        self.assertRegex(line, rf"modules=m-ignore-sigterm +killed=m-ignore-sigterm: {pid} \S+ \(did not end when asked\)")
        self.assertIn("exit=4", line)

    def test_one_that_hangs_in_stop_is_ended_by_its_sigterm(self):
        self.assertNotIn("killed", self.end(self.node(["hang-stop"]), STOPPED))

    def test_daemons_that_a_module_forked_into_sessions_of_their_own_are_killed_and_named(self):
        daemon = self.node(["fork"])
        line = self.end(daemon, KILLED)
        self.assertRegex(line, r"modules=m-fork .*m-fork: .*\(left behind by it\)")

    def test_a_port_that_a_forked_daemon_held_is_free_again(self):
        daemon = self.node(["hold-port"])
        path = self.data_file(daemon, "m-hold-port", "port")
        wait_until(path.exists, "the port of the module's daemon", CONVERGE_TIMEOUT_S)
        port = int(path.read_text())
        socket.create_connection(("127.0.0.1", port), 5).close()
        line = self.end(daemon, KILLED)
        self.assertRegex(line, r"m-hold-port: .*\(left behind by it\)")
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 5)

    def test_a_thread_that_waits_in_the_kernel_for_a_vforked_child_keeps_nobody(self):
        daemon = self.node(["vfork"])
        pid = self.pid_of(daemon, "m-vfork")

        def waits_in_the_kernel():
            stats = [machine.read(task / "stat").decode("utf-8", "replace") for task in pathlib.Path(f"/proc/{pid}/task").iterdir()]
            return any(stat.rpartition(")")[2].split()[:1] == ["D"] for stat in stats)

        wait_until(waits_in_the_kernel, "a thread in state D", CONVERGE_TIMEOUT_S)
        self.assertIn("m-vfork: ", self.end(daemon, KILLED))

    @unittest.skipUnless(harness.IS_ROOT and os.path.exists("/dev/fuse"), "only root with /dev/fuse can make a file whose reader can't be killed")
    def test_one_that_no_signal_reaches_holds_up_nobody_and_is_named_as_stuck(self):
        daemon = self.node(["read-stuck"])
        folder = self.data_file(daemon, "m-read-stuck", "stuck")
        folder.mkdir()
        folder.chmod(0o755)
        try:
            files = StuckFiles(folder)
        except OSError as error:
            self.skipTest(f"no FUSE file system can be mounted here: {error}")
        try:
            # A process sees what was mounted before it was started.
            self.assertEqual(daemon.post("/api/v1/modules/m-read-stuck/disable").status, 200)
            self.assertEqual(daemon.post("/api/v1/modules/m-read-stuck/enable").status, 200)
            self.assertTrue(files.readers.acquire(timeout=CONVERGE_TIMEOUT_S), "the module reads")
            pid = self.pid_of(daemon, "m-read-stuck")
            took = self.stop(daemon, KILLED)
            self.assertLess(took, 15 * SLOW, "nobody waits for what can't be ended")
            self.assertIn(pid, harness.process_table(), "it is still there: no signal has reached it")
            line = self.last_line(daemon)
            self.assertRegex(line, r"modules=m-read-stuck .*stuck in the kernel")
            self.assertLess(daemon.log().index("STOPPED  module=steady"), daemon.log().index(line), "the others were stopped in order")
        finally:
            files.close()
        self.assert_nothing_left(daemon)  # the spawner was still about it


class Together(ShutdownTest):
    MODES = ["ignore-sigterm", "hang-stop", "fork", "hold-port", "vfork", "hang-health", "flood"]

    def test_all_at_once_end_within_the_time_and_each_is_named(self):
        daemon = self.node(self.MODES, {"hang-health": {"health": {"interval": 60_000, "timeout": 5_000}}})
        line = self.end(daemon, KILLED)
        modules = re.search(r"modules=(.*?)  killed=", line).group(1).split(", ")
        self.assertLessEqual({"m-ignore-sigterm", "m-fork", "m-hold-port"}, set(modules), line)
        self.assertNotIn("steady", modules)
        self.assertNotIn("postgres", modules)

    def test_one_that_wants_more_time_than_there_is_gets_none_of_it_from_the_others(self):
        daemon = self.node(["hang-stop"], {"hang-stop": NEVER})
        began = time.monotonic()
        line = self.end(daemon, STOPPED)  # ended by SIGTERM, once its time was over
        self.assertGreater(time.monotonic() - began, 10, "it had its share")
        self.assertIn("stopped", line)
        self.assertIn("Stop did not answer", daemon.log())

    def test_dependents_stop_first_whatever_they_do(self):
        modules = self.temporary_folder()
        write_misbehaving(modules, "m-base", "serve", QUICK)
        write_misbehaving(modules, "m-user", "ignore-sigterm", {**QUICK, "dependencies": {"modules": {"m-base": "^1.0.0"}}})
        daemon = self.daemon(modules=["m-base", "m-user"], modules_dir=modules)
        daemon.wait_observed("m-user", "RUNNING")
        self.names = {"m-base", "m-user"}
        self.end(daemon, KILLED)
        log = daemon.log()
        self.assertLess(log.index("STOPPED  module=m-user"), log.index("STOPPING  module=m-base"), "the user is gone before its base is asked")

    def test_a_second_signal_hastens_and_the_line_says_so(self):
        daemon = self.node(["hang-stop", "ignore-sigterm"], {"hang-stop": NEVER, "ignore-sigterm": NEVER})
        daemon.send_signal(signal.SIGTERM)
        wait_until(lambda: "STOPPING  module=m-hang-stop" in daemon.log(), "the stop of the module", CONVERGE_TIMEOUT_S)
        began = time.monotonic()
        daemon.send_signal(signal.SIGTERM)
        self.assertEqual(daemon.wait_exit(BUDGET_S * SLOW), KILLED, daemon.log_tail())
        self.assertLess(time.monotonic() - began, 10 * SLOW)
        self.assertRegex(self.last_line(daemon), r"because of a second signal")
        self.assert_nothing_left(daemon)

    def test_a_third_signal_leaves_at_once_and_the_spawner_ends_the_rest(self):
        daemon = self.node(["hang-stop"], {"hang-stop": NEVER})
        spawner = next(iter(p for p in daemon.remember_processes() if harness.process_table().get(p[0], (0,))[0] == daemon.process.pid))
        os.kill(spawner[0], signal.SIGSTOP)  # nothing that is asked for happens
        try:
            for _ in range(3):
                with contextlib.suppress(ProcessLookupError):
                    daemon.send_signal(signal.SIGTERM)
                wait_until(lambda: not daemon.running() or "signal" in daemon.log(), "the signal in the log", CONVERGE_TIMEOUT_S)
                time.sleep(0.2)
            self.assertEqual(daemon.wait_exit(BUDGET_S * SLOW), KILLED, daemon.log_tail())
        finally:
            os.kill(spawner[0], signal.SIGCONT)
        self.assertRegex(self.last_line(daemon), r"left=.*m-hang-stop")
        self.assert_nothing_left(daemon)

    def test_the_exit_codes_are_documented(self):
        _code, out, _err = harness.run_serve("serve", "--help")
        self.assertRegex(out, r"4 stopped, but something had to be killed")
        self.assertRegex(out, r"5 the spawner process has ended")


if __name__ == "__main__":
    harness.main()
