"""Boot, second boot, and the end: what `serve` prints, how it stops, and that nothing is left behind."""

import os
import re
import shutil
import signal
import stat
import subprocess
import time
import unittest

import harness
from harness import CONVERGE_TIMEOUT_S, SLOW, Daemon, DaemonTest, wait_until

MODULE = "consumption-monitor"
SHUTDOWN_BUDGET_S = 30


class Boot(DaemonTest):
    def test_it_says_ready_with_its_address_and_then_the_commands_to_try_next(self):
        daemon = self.daemon(modules=[MODULE])
        self.assertEqual(daemon.ready_line(), f"bulkhead ready http://{daemon.address}")
        after = [line for line in daemon.stdout_lines[daemon.stdout_lines.index(daemon.ready_line()) + 1:]]
        wait_until(lambda: len(self.commands(daemon)) >= 3, "three commands below the ready line", 5)
        self.assertLessEqual(len(self.commands(daemon)), 6, after)

    @staticmethod
    def commands(daemon):
        lines = daemon.stdout_lines[daemon.stdout_lines.index(daemon.ready_line()) + 1:]
        return [line.strip() for line in lines if line.strip().startswith(("curl ", "TOKEN=", "export ", "bulkhead ", "build/bin/", "kill "))]

    def test_the_printed_commands_work_as_they_stand(self):
        daemon = self.daemon(modules=[MODULE])
        wait_until(lambda: len(self.commands(daemon)) >= 3, "three commands below the ready line", 5)
        script = "set -eu\n" + "\n".join(self.commands(daemon))
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60 * SLOW, cwd=daemon.folder)
        self.assertEqual(done.returncode, 0, f"{script}\n{done.stdout}\n{done.stderr}")
        self.assertNotIn('"success":false', done.stdout.replace(" ", ""))

    def test_when_it_says_ready_the_probes_and_the_module_answer(self):
        daemon = self.daemon(modules=[MODULE])
        self.assertEqual(daemon.get("/healthz", token=None).status, 200)
        self.assertEqual(daemon.get("/readyz", token=None).status, 200)
        self.assertEqual(daemon.get(f"/api/v1/m/{MODULE}/readings").status, 200)

    def test_the_second_boot_finds_everything_as_it_was(self):
        daemon = self.daemon(modules=[MODULE])
        token, id_ = daemon.token, daemon.module(MODULE)["id"]
        run = daemon.post(f"/api/v1/modules/{MODULE}/jobs/collect-readings/run?wait=30s")
        self.assertEqual(run.data["status"], "SUCCEEDED", run)
        before = daemon.get(f"/api/v1/m/{MODULE}/readings?limit=500").json
        code, _took = daemon.stop()
        self.assertEqual(code, 0)
        daemon.start()
        self.assertEqual(daemon.token, token)
        self.assertEqual(daemon.module(MODULE)["id"], id_)
        self.assertEqual(daemon.module(MODULE)["observed"]["state"], "RUNNING")
        after = daemon.get(f"/api/v1/m/{MODULE}/readings?limit=500")
        self.assertEqual(after.status, 200)
        kept = {reading["id"] for reading in rows(before)} - {reading["id"] for reading in rows(after.json)}
        self.assertEqual(kept, set(), "readings of the first run are gone")

    def test_a_module_that_was_disabled_stays_disabled_at_the_next_boot(self):
        daemon = self.daemon(modules=[MODULE])
        self.assertEqual(daemon.post(f"/api/v1/modules/{MODULE}/disable").status, 200)
        daemon.stop()
        daemon.start()
        self.assertEqual(daemon.module(MODULE)["status"], "DISABLED")
        self.assertEqual(daemon.get(f"/api/v1/m/{MODULE}/readings").status, 404)

    def test_the_option_disable_keeps_a_module_from_starting_in_this_run_only(self):
        daemon = self.daemon(start=False, modules=[MODULE], args=["--disable", MODULE])
        daemon.start()
        self.assertEqual(daemon.get("/readyz", token=None).status, 200)
        self.assertNotIn(daemon.module(MODULE)["observed"]["state"], ("RUNNING", "STARTING", "DEGRADED"))
        self.assertNotEqual(daemon.get(f"/api/v1/m/{MODULE}/readings").status, 200)
        daemon.stop()
        daemon.extra_args = []
        daemon.start()
        daemon.wait_observed(MODULE, "RUNNING")

    def test_secrets_are_for_their_owner_alone(self):
        daemon = self.daemon()
        token = (daemon.data / "admin.token").stat()
        self.assertEqual(stat.S_IMODE(token.st_mode), 0o600)
        self.assertEqual(stat.S_IMODE((daemon.data / "secrets").stat().st_mode), 0o700)
        self.assertRegex(daemon.token, r"^[0-9a-f]{64}$")
        for secret in (daemon.data / "secrets").rglob("*"):
            if secret.is_file():
                self.assertEqual(stat.S_IMODE(secret.stat().st_mode) & 0o077, 0, secret)

    def test_no_secret_stands_in_an_argument_an_environment_or_the_log(self):
        daemon = self.daemon(modules=[MODULE])
        secrets = [daemon.token] + [line for path in (daemon.data / "secrets").rglob("*") if path.is_file()
                                    for line in path.read_text(errors="replace").split() if len(line) >= 16]
        for pid, _started in daemon.remember_processes() | {(daemon.process.pid, 0)}:
            seen = harness._read(f"/proc/{pid}/cmdline") + harness._read(f"/proc/{pid}/environ")
            for secret in secrets:
                self.assertNotIn(secret.encode(), seen, harness.describe((pid, 0)))
        for secret in secrets:
            self.assertNotIn(secret, daemon.log())


class Ending(DaemonTest):
    def assert_stops(self, daemon, number, group=False):
        daemon.remember_processes()
        began = time.monotonic()
        if group:
            os.killpg(daemon.process.pid, number)
        else:
            daemon.process.send_signal(number)
        code = daemon.wait_exit(SHUTDOWN_BUDGET_S * SLOW)
        self.assertLess(time.monotonic() - began, SHUTDOWN_BUDGET_S * SLOW)
        self.assertEqual(code, 0)
        daemon.assert_nothing_left()

    def test_sigterm_stops_everything_and_leaves_nothing(self):
        self.assert_stops(self.daemon(modules=[MODULE]), signal.SIGTERM)

    def test_ctrl_c_in_the_terminal_stops_everything_and_leaves_nothing(self):
        self.assert_stops(self.daemon(modules=[MODULE]), signal.SIGINT, group=True)

    def test_a_stop_during_the_boot_leaves_nothing(self):
        daemon = self.daemon(start=False, modules=[MODULE], private_store=True)  # whose initdb takes long enough to be stopped in
        daemon.launch()
        wait_until(lambda: (daemon.data / "postgres").exists(), "the data folder being made", CONVERGE_TIMEOUT_S)
        daemon.send_signal(signal.SIGTERM)
        daemon.wait_exit(SHUTDOWN_BUDGET_S * SLOW)
        daemon.assert_nothing_left()
        self.assertIsNone(daemon.ready_line())
        daemon.start()  # and the next boot isn't hindered by what was half done

    def test_kill_9_of_the_daemon_leaves_nothing_and_the_next_boot_works(self):
        daemon = self.daemon(modules=[MODULE])
        daemon.kill()
        daemon.assert_nothing_left(15 * SLOW)
        daemon.start()
        self.assertEqual(daemon.get(f"/api/v1/m/{MODULE}/readings").status, 200)

    def test_kill_9_of_the_spawner_ends_the_daemon_and_leaves_nothing(self):
        daemon = self.daemon(modules=[MODULE])
        daemon.remember_processes()
        children = [p for p in daemon._seen if harness.process_table().get(p[0], (0,))[0] == daemon.process.pid]
        self.assertEqual(len(children), 1, "the spawner is the daemon's only child")
        os.kill(children[0][0], signal.SIGKILL)
        self.assertNotEqual(daemon.wait_exit(SHUTDOWN_BUDGET_S * SLOW), 0)
        daemon.assert_nothing_left(15 * SLOW)


class Surroundings(DaemonTest):
    def copy_of_checkout(self, mode):
        """What `serve` needs of a checkout, in a folder of its own."""
        folder = self.temporary_folder()
        checkout = folder / "checkout"
        for part in ("deploy", "migrations"):
            shutil.copytree(harness.SOURCE / part, checkout / part)
        shutil.copytree(harness.BUILD / "bin", checkout / "build" / "bin", ignore=lambda _d, names: [n for n in names if n != "bulkhead"])
        shutil.copytree(harness.MODULES, checkout / "build" / "modules")
        checkout.chmod(mode)
        return checkout

    def test_it_works_from_a_checkout_that_only_its_owner_can_enter(self):
        checkout = self.copy_of_checkout(0o700)
        daemon = self.daemon(start=False, modules=[MODULE], binary=checkout / "build" / "bin" / "bulkhead",
                             modules_dir=checkout / "build" / "modules", cwd=checkout)
        daemon.start()
        self.assertEqual(daemon.get(f"/api/v1/m/{MODULE}/readings").status, 200)

    def test_two_daemons_on_one_machine_do_not_know_each_other(self):
        one, two = self.daemon(modules=[MODULE]), self.daemon(modules=[MODULE])
        self.assertEqual(one.get("/api/v1/modules", token=two.token).status, 401)
        self.assertNotEqual(one.module(MODULE)["observed"]["node"], two.module(MODULE)["observed"]["node"])
        two.stop()
        two.assert_nothing_left()
        self.assertEqual(one.get(f"/api/v1/m/{MODULE}/readings").status, 200)
        self.assertEqual(one.module(MODULE)["exits"], [])

    def test_a_long_data_path_moves_the_sockets_elsewhere(self):
        folder = self.temporary_folder()
        deep = folder / ("d" * 60) / ("e" * 60)
        deep.mkdir(parents=True)
        daemon = self.daemon(start=False, modules=[MODULE], folder=deep)
        daemon.start()
        self.assertEqual(daemon.get(f"/api/v1/m/{MODULE}/readings").status, 200)
        daemon.stop()
        daemon.assert_nothing_left()

    def test_a_link_where_a_folder_of_the_data_folder_should_be_is_refused_and_not_followed(self):
        victim = self.temporary_folder(0o750)
        (victim / "w").mkdir()
        (victim / "w" / "kept").touch()
        before = victim.stat()
        for name in ("secrets", "versions", "modules", "run"):
            with self.subTest(name):
                daemon = self.daemon(start=False)
                daemon.data.mkdir()
                (daemon.data / name).symlink_to(victim)
                daemon.launch()
                self.assertEqual(daemon.wait_exit(), 1)
                self.assertIn(f"{daemon.data}/{name}: is not a folder", daemon.log())
                after = victim.stat()
                self.assertEqual((after.st_uid, after.st_gid, after.st_mode), (before.st_uid, before.st_gid, before.st_mode))
                self.assertTrue((victim / "w" / "kept").exists())

    def test_what_a_killed_daemon_left_below_run_is_gone_after_the_next_start(self):
        daemon = self.daemon(start=False)
        (daemon.data / "run" / "w" / "0badf00d" / "deep").mkdir(parents=True)
        victim = self.temporary_folder()
        (victim / "kept").touch()
        (daemon.data / "run" / "w" / "link").symlink_to(victim)
        daemon.start()
        self.assertEqual(os.listdir(daemon.data / "run" / "w"), [])
        self.assertTrue((victim / "kept").exists())

    def test_what_is_configured_by_flag_environment_and_file_wins_in_this_order(self):
        file_port, env_port, flag_port = (f"127.0.0.1:{harness.free_port()}" for _ in range(3))
        daemon = self.daemon(start=False, config=f"listen: {file_port}\n", env={"BULKHEAD_LISTEN": env_port}, listen=flag_port)
        daemon.start()
        self.assertEqual(daemon.ready_line(), f"bulkhead ready http://{flag_port}")
        daemon.stop()
        without = [a for a in daemon.command()]
        at = without.index("--listen")
        del without[at:at + 2]
        daemon.command = lambda: without
        daemon.address = env_port
        daemon.start()
        self.assertEqual(daemon.ready_line(), f"bulkhead ready http://{env_port}")
        daemon.stop()
        daemon.env, daemon.address = {}, file_port
        daemon.start()
        self.assertEqual(daemon.ready_line(), f"bulkhead ready http://{file_port}")


def rows(answer):
    """The rows of a list answer of consumption-monitor, whatever frames them."""
    data = answer.get("data", answer) if isinstance(answer, dict) else answer
    if isinstance(data, dict):
        data = data.get("readings") or next(value for value in data.values() if isinstance(value, list))
    return data


if __name__ == "__main__":
    harness.main()
