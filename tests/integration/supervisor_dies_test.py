"""The daemon, its spawner, or both are killed: nothing of what they started goes on, the next boot finds everything as it was, and says what it
had to end. tests/chaos/kills.py does this in random moments; here is each way to die, by itself."""

import os
import pwd
import signal
import subprocess
import time
import unittest

import harness
from harness import CONVERGE_TIMEOUT_S, SLOW, DaemonTest, wait_until
from left_running import cgroups_of_data, instances_running, members
from misbehaving import write_misbehaving, write_steady

SPAWNER_LOST = 5
NOTICED_WITHIN_S = 10
GONE_WITHIN_S = 40  # the spawner has 30 s of its own


def spawner_of(daemon):
    return next(pid for pid, (parent, _started, _state, name) in harness.process_table().items()
                if parent == daemon.process.pid and name == "bulkhead-spawn")


class Dies(DaemonTest):
    private_store = True

    def node(self):
        """With a module that is well, and one whose forked daemons are hard to find."""
        modules = self.temporary_folder()
        write_steady(modules)
        write_misbehaving(modules, "m-fork", "fork", {})
        daemon = self.daemon(modules=["steady", "m-fork"], modules_dir=modules)
        daemon.wait_observed("m-fork", "RUNNING")
        wait_until(lambda: len(instances_running(daemon.data, {"m-fork"})) >= 4, "the module and its daemons", CONVERGE_TIMEOUT_S)
        daemon.sql("CREATE TABLE kept AS SELECT 42 AS n")
        daemon.remember_processes()
        daemon._seen |= set(instances_running(daemon.data, {"steady", "m-fork"}))
        return daemon

    def postmaster(self, daemon):
        return int((daemon.data / "postgres" / "postmaster.pid").read_text().split()[0])

    def assert_all_as_it_was(self, daemon):
        """After the next boot."""
        self.assertEqual(daemon.module("steady")["observed"]["state"], "RUNNING")
        self.assertEqual(daemon.get("/api/v1/m/steady/echo").status, 200)
        self.assertEqual(daemon.sql("SELECT n FROM kept"), [["42"]])
        running = {instance for instance in instances_running(daemon.data, {"steady", "m-fork"}).values()}
        known = {worker["instance"] for name in ("steady", "m-fork") for worker in daemon.module(name)["workers"]}
        self.assertLessEqual(running, known, "nothing runs that this daemon has not started")
        with open(daemon.log_path, encoding="utf-8") as log:
            self.assertNotIn("check failed", log.read())

    def test_the_daemon_is_killed_and_the_spawner_ends_every_tree(self):
        daemon = self.node()
        daemon.kill()
        daemon.assert_nothing_left(GONE_WITHIN_S * SLOW)
        self.assertEqual(instances_running(daemon.data, {"steady", "m-fork"}), {})
        wait_until(lambda: not cgroups_of_data(daemon.data), "no cgroup", GONE_WITHIN_S * SLOW)
        self.assertEqual(os.listdir(daemon.data / "instances"), [], "the spawner forgets what has ended")
        self.assertFalse((daemon.data / "postgres" / "postmaster.pid").exists(), "PostgreSQL was stopped in order")
        daemon.start()
        self.assert_all_as_it_was(daemon)

    def test_the_next_daemon_may_come_while_the_spawner_of_the_killed_one_is_still_about_it(self):
        daemon = self.node()
        daemon.process.kill()
        daemon.wait_exit()
        daemon.start()
        self.assert_all_as_it_was(daemon)

    def test_the_spawner_is_killed_and_the_daemon_ends_in_order_with_a_code_of_its_own(self):
        daemon = self.node()
        began = time.monotonic()
        os.kill(spawner_of(daemon), signal.SIGKILL)
        self.assertEqual(daemon.wait_exit(NOTICED_WITHIN_S * SLOW), SPAWNER_LOST, daemon.log_tail())
        self.assertLess(time.monotonic() - began, NOTICED_WITHIN_S * SLOW)
        self.assertRegex(daemon.log(), r"the spawner process has ended.*it was ended by signal 9")
        self.assertRegex(daemon.log().strip().splitlines()[-1], "exit=5")
        daemon.start()
        self.assert_all_as_it_was(daemon)

    def test_both_are_killed_at_once_and_the_next_boot_names_and_ends_what_was_left(self):
        daemon = self.node()
        spawner = spawner_of(daemon)
        in_cgroups = bool(members(cgroups_of_data(daemon.data)))
        for pid in (spawner, daemon.process.pid):
            os.kill(pid, signal.SIGSTOP)  # neither sees the other's end
        for pid in (spawner, daemon.process.pid):
            os.kill(pid, signal.SIGKILL)
        daemon.wait_exit()
        daemon.start()
        self.assert_all_as_it_was(daemon)
        if in_cgroups:  # where there are none, a keeper has ended the tree by itself
            self.assertRegex(daemon.log(), r"ended what an earlier life left +instance=m-fork\.0\.\S+ +processes=\d+ \S+")
        daemon.stop()
        self.assertEqual(instances_running(daemon.data, {"steady", "m-fork"}), {})
        self.assertEqual(cgroups_of_data(daemon.data), [])

    def test_a_postgres_that_outlived_them_is_stopped_in_order_and_started_again(self):
        daemon = self.node()
        spawner, postmaster = spawner_of(daemon), self.postmaster(daemon)
        in_cgroups = bool(members(cgroups_of_data(daemon.data)))
        for pid in (postmaster, spawner, daemon.process.pid):
            os.kill(pid, signal.SIGSTOP)  # it gets the signal of its parent's death, and can't act on it
        for pid in (spawner, daemon.process.pid):
            os.kill(pid, signal.SIGKILL)
        daemon.wait_exit()
        if in_cgroups:  # where there are none, its keeper lets it go on and stops it in order
            self.assertIn(postmaster, harness.process_table())
        daemon.start()
        self.assert_all_as_it_was(daemon)
        if in_cgroups:
            self.assertRegex(daemon.log(), rf"ended what an earlier life left +instance=postgres\.\S+ +processes={postmaster} postgres")
        self.assertNotIn("was not properly shut down", daemon.log())

    def test_a_postmaster_pid_whose_number_belongs_to_somebody_else_by_now_keeps_nothing_from_starting(self):
        daemon = self.node()
        file = daemon.data / "postgres" / "postmaster.pid"
        written = file.read_text()
        owner = file.stat()
        daemon.stop()

        def become():  # of the server's own user: of others' processes it knows that they are none of its own
            if harness.IS_ROOT:
                os.setgroups([])
                os.setgid(pwd.getpwnam("postgres").pw_gid)
                os.setuid(pwd.getpwnam("postgres").pw_uid)

        somebody = subprocess.Popen(["sleep", "1000"], preexec_fn=become)
        try:
            file.write_text("\n".join([str(somebody.pid), *written.splitlines()[1:]]) + "\n")
            os.chown(file, owner.st_uid, owner.st_gid)
            file.chmod(0o600)
            daemon.start()
            self.assert_all_as_it_was(daemon)
            self.assertIsNone(somebody.poll(), "and nothing was done to it")
            self.assertRegex(daemon.log(), rf"postmaster.pid is left from an earlier life.*pid={somebody.pid}")
        finally:
            somebody.kill()
            somebody.wait()

    def test_the_records_of_what_runs_say_who_it_is(self):
        daemon = self.node()
        worker = daemon.module("steady")["workers"][0]
        text = (daemon.data / "instances" / worker["instance"]).read_text()
        values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        self.assertEqual(values["processPid"], str(worker["pid"]))
        self.assertEqual(values["processStartTime"], str(harness.process_table()[worker["pid"]][1]))
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            self.assertEqual(values["bootId"], file.read().strip())
        self.assertEqual((values["note.module"], values["note.slot"], values["note.version"]), ("steady", "0", worker["version"]))
        self.assertRegex(values["note.tokenSha256"], "^[0-9a-f]{64}$")
        folder = (daemon.data / "instances").stat()
        self.assertEqual((folder.st_uid, folder.st_mode & 0o777), (os.geteuid(), 0o700))


if __name__ == "__main__":
    unittest.TestCase.maxDiff = None
    harness.main()
