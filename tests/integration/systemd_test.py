"""What systemd and the supervisor say to each other, spoken by the test: readiness, status, watchdog, reload, stop, and sockets that are given."""

import base64
import hashlib
import hmac
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest

import grpc

import harness
from harness import CONVERGE_TIMEOUT_S, SLOW, DaemonTest, wait_until, write_module
from misbehaving import write_steady
from service_socket import NotifySocket, give_sockets, held, threads_named

WATCHDOG_S = 1.5 * SLOW
UNITS = harness.SOURCE / "deploy" / "systemd"


class ServiceTest(DaemonTest):
    def notified(self, abstract=False, watchdog=None, **options):
        """A daemon that is not started yet, with its NOTIFY_SOCKET."""
        notify = NotifySocket(self.temporary_folder(), abstract)
        self.addCleanup(notify.close)
        env = {"NOTIFY_SOCKET": notify.name, **options.pop("env", {})}
        if watchdog:
            env["WATCHDOG_USEC"] = str(int(watchdog * 1e6))
        return self.daemon(start=False, env=env, **options), notify

    def steady_modules(self):
        modules = self.temporary_folder()
        write_steady(modules)
        modules.chmod(0o755)  # the daemon is another user when it reads it
        return modules


class Notifications(ServiceTest):
    def test_ready_comes_when_readyz_says_so_and_stopping_before_the_modules_stop(self):
        modules = self.steady_modules()
        for abstract in (False, True):
            with self.subTest(abstract=abstract):
                daemon, notify = self.notified(abstract, modules=["steady"], modules_dir=modules)
                daemon.launch()
                ready = notify.wait("READY", "1", within=harness.READY_TIMEOUT_S)
                self.assertEqual(daemon.get("/readyz", token=None).status, 200)
                self.assertEqual(ready["STATUS"], "1 of 1 modules run")
                self.assertIn("starting: the database", [message["STATUS"] for message in notify.of("STATUS")])
                self.assertEqual(daemon.module("steady")["observed"]["state"], "RUNNING", "what was told is so")
                self.assertEqual(daemon.stop()[0], 0)
                self.assertEqual(len(notify.of("STOPPING")), 1)
                self.assertEqual(notify.of("WATCHDOG"), [], "nobody has asked for it")
                self.assertEqual(len(notify.of("READY")), 1)

    def test_the_status_follows_the_modules(self):
        modules = self.steady_modules()
        write_module(modules, "quitter", entry="#!/bin/sh\nexit 3\n")
        daemon, notify = self.notified(modules=["steady", "quitter"], modules_dir=modules)
        daemon.start()
        self.assertRegex(notify.wait("READY")["STATUS"], r"1 of 2 modules run; not running: quitter \((BACKOFF|FAILED|QUARANTINED)\)")
        self.assertEqual(daemon.post("/api/v1/modules/quitter/disable").status, 200)
        notify.wait("STATUS", "1 of 1 modules run")
        self.assertEqual(daemon.post("/api/v1/modules/steady/disable").status, 200)
        notify.wait("STATUS", "0 of 0 modules run")

    def test_a_start_that_a_migration_holds_up_asks_for_more_time(self):
        modules = self.temporary_folder()
        folder = write_module(modules, "slow-migration", {"database": {}}, entry="#!/bin/sh\nexit 3\n")
        (folder / "migrations").mkdir()
        (folder / "migrations" / "001_slow.sql").write_text("SELECT pg_sleep(600);\n")
        (folder / "migrations" / "001_slow.down.sql").write_text("SELECT 1;\n")
        daemon, notify = self.notified(modules=["slow-migration"], modules_dir=modules)
        daemon.launch()
        extended = notify.wait("EXTEND_TIMEOUT_USEC", within=harness.READY_TIMEOUT_S)
        self.assertGreater(int(extended["EXTEND_TIMEOUT_USEC"]), 10_000_000)
        self.assertEqual(notify.of("READY"), [])
        daemon.stop()

    def test_no_process_that_it_starts_has_the_variables(self):
        daemon, notify = self.notified(modules=["steady"], modules_dir=self.steady_modules(), watchdog=30)
        daemon.start()
        notify.wait("READY")
        for pid, _started in daemon.remember_processes():
            # Copies of the daemon start nothing with their own environment.
            if harness.process_table()[pid][3] not in ("bulkhead-spawn", "bulkhead-keep"):
                self.assertNotRegex(harness._read(f"/proc/{pid}/environ").decode(), "NOTIFY_SOCKET|WATCHDOG|LISTEN_")


class Watchdog(ServiceTest):
    def beats(self, notify, seconds):
        since = time.monotonic()
        wait_until(lambda: time.monotonic() - since > seconds, "time to pass", seconds + 5)
        return len(notify.of("WATCHDOG", since))

    def test_it_is_fed_while_all_threads_turn_and_by_nobody_while_one_stands_still(self):
        daemon, notify = self.notified(modules=["steady"], modules_dir=self.steady_modules(), watchdog=WATCHDOG_S)
        daemon.start()
        self.assertGreaterEqual(self.beats(notify, 2 * WATCHDOG_S), 2)
        pid = daemon.process.pid
        pool = threads_named(pid, "pool")
        self.assertGreaterEqual(len(pool), 6)
        for what, threads in (("the control loop", [pid]), ("a thread of the gateway", threads_named(pid, "gateway")[:1]), ("the pool", pool)):
            with self.subTest(what):
                try:
                    with held(threads):
                        self.beats(notify, WATCHDOG_S)  # one may have been on its way
                        self.assertEqual(self.beats(notify, 2 * WATCHDOG_S), 0, f"{what} stands still")
                except PermissionError as error:
                    self.skipTest(str(error))
                notify.wait("WATCHDOG", since=time.monotonic())
        self.assertIn("the watchdog is not fed", daemon.log())

    def test_a_migration_that_takes_every_thread_of_the_pool_is_no_reason_to_be_killed(self):
        modules = self.steady_modules()
        for number in range(6):
            folder = write_module(modules, f"slow-{number}", {"database": {}}, entry="#!/bin/sh\nexit 3\n")
            (folder / "migrations").mkdir()
            (folder / "migrations" / "001_slow.sql").write_text("SELECT pg_sleep(600);\n")
            (folder / "migrations" / "001_slow.down.sql").write_text("SELECT 1;\n")
        daemon, notify = self.notified(modules=["steady"], modules_dir=modules, watchdog=WATCHDOG_S)
        daemon.start()
        for number in range(6):
            daemon.post(f"/api/v1/modules/slow-{number}/enable?wait=false")
        sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND state = 'active' AND pid <> pg_backend_pid()"
        wait_until(lambda: daemon.sql(sleeping) == [["6"]], "six migrations under way", CONVERGE_TIMEOUT_S)
        self.assertGreaterEqual(self.beats(notify, 2 * WATCHDOG_S), 2)
        daemon.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()")


class GivenSockets(ServiceTest):
    def listener(self):
        one = socket.socket()
        self.addCleanup(one.close)
        one.bind(("127.0.0.1", 0))
        one.listen(64)
        return one, f"127.0.0.1:{one.getsockname()[1]}"

    def test_http_and_grpc_are_served_on_them_and_who_came_while_nobody_served_is_answered(self):
        (http, http_address), (rpc, rpc_address) = self.listener(), self.listener()
        daemon = self.daemon(start=False, modules=["steady"], modules_dir=self.steady_modules())
        give_sockets(daemon, [rpc, http], ["grpc", "http"])
        early = socket.create_connection(http.getsockname())
        early.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        daemon.address = http_address
        daemon.start()
        self.assertEqual(daemon.ready_line(), f"bulkhead ready http://{http_address}")
        early.settimeout(10)
        self.assertTrue(early.recv(100).startswith(b"HTTP/1.1 200"))
        early.close()
        for _ in range(50):
            self.assertEqual(daemon.get("/api/v1/m/steady/echo").status, 200)
        self.assert_grpc_serves(daemon, rpc_address)
        self.assertEqual(daemon.stop()[0], 0)
        daemon.assert_nothing_left()
        # The sockets are the test's and go on listening; who comes now waits for the next one.
        waiting = socket.create_connection(http.getsockname())
        waiting.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        daemon.start()
        waiting.settimeout(10)
        self.assertTrue(waiting.recv(100).startswith(b"HTTP/1.1 200"))
        waiting.close()

    def assert_grpc_serves(self, daemon, address):
        with grpc.insecure_channel(address) as channel:
            call = channel.unary_unary("/grpc.health.v1.Health/Check", request_serializer=bytes, response_deserializer=bytes)
            self.assertEqual(call(b"", timeout=10), b"\x08\x01")
            create = channel.unary_unary("/bulkhead.admin.v1.Flags/DeleteFlag", request_serializer=bytes, response_deserializer=bytes)
            with self.assertRaises(grpc.RpcError):
                create(b"\n\x05no-no", timeout=10, metadata=(("authorization", f"Bearer {daemon.token}"),))
        row = daemon.get("/api/v1/audit?action=flags.delete").data[0]
        self.assertRegex(row["actor"]["address"], r"^127\.0\.0\.1:\d+$", "a call on a given socket has the address of its client")

    def test_a_single_socket_is_for_http_whatever_its_name(self):
        http, address = self.listener()
        daemon = self.daemon(start=False)
        give_sockets(daemon, [http], ["bulkhead.socket"])
        daemon.address = address
        daemon.start()
        self.assertEqual(daemon.get("/healthz", token=None).status, 200)

    def test_what_can_not_be_served_is_refused_with_a_sentence(self):
        (one, _address), (other, _address) = self.listener(), self.listener()
        plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(plain.close)
        for sockets, names, sentence in (([one, other], ["http", "web"], 'called "web"'), ([one, other], ["http", "http"], "two sockets for http"),
                                         ([plain], ["http"], "no listening TCP socket")):
            with self.subTest(names):
                daemon = self.daemon(start=False)
                give_sockets(daemon, sockets, names)
                daemon.launch()
                self.assertEqual(daemon.wait_exit(), 1)
                self.assertIn(sentence, daemon.log())

    def test_sockets_meant_for_another_process_are_left_alone(self):
        daemon = self.daemon(start=False, env={"LISTEN_FDS": "1", "LISTEN_PID": "1", "LISTEN_FDNAMES": "http"})
        daemon.start()
        self.assertEqual(daemon.ready_line(), f"bulkhead ready http://{daemon.address}")


class Reload(ServiceTest):
    CONFIG = "log:\n  level: info\nflags:\n  loud: true\n  gone: true\n"

    def reload(self, daemon, notify, text=None):
        """Sends SIGHUP with this file; answers the READY that follows."""
        if text is not None:
            daemon.config_path.write_text(text + "\nmodules:\n  steady:\n    enabled: true\n")
        since = time.monotonic()
        daemon.process.send_signal(signal.SIGHUP)
        reloading = notify.wait("RELOADING", "1", since=since)
        self.assertGreater(int(reloading["MONOTONIC_USEC"]), 0)
        self.assertLess(abs(int(reloading["MONOTONIC_USEC"]) / 1e6 - time.monotonic()), 60)
        return notify.wait("READY", "1", since=since)["STATUS"]

    def started(self, config=CONFIG, **options):
        daemon, notify = self.notified(config=config, modules=["steady"], modules_dir=self.steady_modules(), **options)
        daemon.start()
        notify.wait("READY")
        return daemon, notify

    def flags(self, daemon):
        return {flag["name"]: (flag["enabled"], flag["source"]) for flag in daemon.get("/api/v1/flags").data}

    def audit(self, daemon):
        return wait_until(lambda: daemon.get("/api/v1/audit?action=config.reload").data, "the row of the audit")[0]

    def test_flags_and_the_log_change_while_it_runs_and_the_audit_has_it(self):
        daemon, notify = self.started()
        worker = daemon.module("steady")["workers"][0]["pid"]
        status = self.reload(daemon, notify, "log:\n  level: debug\n  format: json\nflags:\n  loud: false\n  fresh: true\n")
        self.assertRegex(status, r"^the configuration was read again: log\.level, log\.format, flags\.fresh, flags\.gone, flags\.loud; 1 of 1 modules run$")
        self.assertEqual(self.flags(daemon), {"loud": (False, "file"), "fresh": (True, "file")})
        row = self.audit(daemon)
        self.assertEqual((row["outcome"], row["before"]["log.level"], row["after"]["log.level"]), ("OK", "info", "debug"))
        self.assertEqual((row["before"]["flags.gone"], row["after"]["flags.gone"]), ("true", "not set"))
        self.assertEqual(json.loads(daemon.log().strip().splitlines()[-1])["level"], "info", "and its lines are JSON by now")
        self.assertEqual(daemon.module("steady")["workers"][0]["pid"], worker, "no module notices")
        self.assertRegex(self.reload(daemon, notify), "nothing has changed")

    def test_a_mistake_keeps_everything_and_names_file_line_and_key(self):
        daemon, notify = self.started()
        before = self.flags(daemon)
        status = self.reload(daemon, notify, "flags:\n  loud: false\nlog:\n  level: shout\n")
        self.assertRegex(status, r"^configuration not taken: .*bulkhead\.yaml:4: log\.level: .*shout")
        self.assertEqual(self.flags(daemon), before)
        self.assertEqual(self.audit(daemon)["outcome"], "CONFIG_INVALID")
        daemon.config_path.unlink()
        self.assertRegex(self.reload(daemon, notify), "can't be read")
        self.assertEqual(self.flags(daemon), before)
        self.assertEqual(daemon.get("/readyz", token=None).status, 200)
        self.assertRegex(self.reload(daemon, notify, "flags:\n  loud: false\n"), r"read again: .*flags\.loud")

    def test_what_needs_a_restart_refuses_the_whole_file_and_is_named_with_its_line(self):
        daemon, notify = self.started()
        before = self.flags(daemon)
        status = self.reload(daemon, notify, "flags:\n  loud: false\ndiscovery:\n  development: true\n")
        self.assertRegex(status, r"bulkhead\.yaml:4: discovery\.development: .*restart")
        self.assertEqual(self.flags(daemon), before)

    def test_what_an_option_or_a_variable_says_goes_before_the_file(self):
        daemon, notify = self.started(env={"FEATURE_FLAG_LOUD": "true"}, args=["--log-level", "warn"])
        status = self.reload(daemon, notify, "log:\n  level: debug\nflags:\n  loud: false\n  gone: true\nlisten: 127.0.0.1:1\n")
        self.assertRegex(status, r"read again: flags\.loud;")
        self.assertEqual(self.flags(daemon)["loud"], (True, "environment"))

    def test_extensions_and_keys_of_an_issuer_change_while_it_runs(self):
        daemon, notify = self.started()
        secret = daemon.folder / "hs256.secret"
        secret.write_text("0123456789abcdef0123456789abcdef")
        if harness.IS_ROOT:
            shutil.chown(secret, "bulkhead")
        secret.chmod(0o600)
        token = self.jwt(secret.read_bytes())
        self.assertEqual(daemon.get("/api/v1/modules", token=token).status, 401)
        keys = f"auth:\n  jwt:\n    issuer: somebody\n    keys:\n      - {{id: one, algorithm: HS256, secretFile: {secret}}}\nstore:\n  extensions: [citext]\n"
        self.assertRegex(self.reload(daemon, notify, self.CONFIG + keys), r"read again: store\.extensions, auth\.jwt")
        self.assertEqual(daemon.get("/api/v1/modules", token=token).status, 200)
        secret.write_text("fedcba9876543210fedcba9876543210")
        self.assertRegex(self.reload(daemon, notify), r"read again: auth\.jwt\.keys")
        self.assertEqual(daemon.get("/api/v1/modules", token=token).status, 401, "what the old key has signed is worth nothing")
        self.assertEqual(daemon.get("/api/v1/modules", token=self.jwt(secret.read_bytes())).status, 200)
        self.assertNotIn("fedcba", daemon.log() + json.dumps(daemon.get("/api/v1/audit").data))
        self.assertRegex(self.reload(daemon, notify, self.CONFIG), r"read again: store\.extensions, auth\.jwt")
        self.assertEqual(daemon.get("/api/v1/modules", token=self.jwt(secret.read_bytes())).status, 401)

    @staticmethod
    def jwt(key):
        def text(value):
            return base64.urlsafe_b64encode(value if isinstance(value, bytes) else json.dumps(value).encode()).rstrip(b"=")

        claims = {"iss": "somebody", "sub": "ann", "exp": int(time.time()) + 600, "roles": ["admin"]}
        signed = text({"alg": "HS256", "typ": "JWT", "kid": "one"}) + b"." + text(claims)
        return (signed + b"." + text(hmac.new(key, signed, hashlib.sha256).digest())).decode()

    def test_a_signal_during_the_boot_is_kept_until_it_is_over(self):
        daemon, notify = self.notified(config=self.CONFIG, modules=["steady"], modules_dir=self.steady_modules())
        daemon.launch()
        notify.wait("STATUS")
        daemon.process.send_signal(signal.SIGHUP)
        notify.wait("RELOADING", within=harness.READY_TIMEOUT_S)
        first = next(message for _at, message in notify.read() if "READY" in message or "RELOADING" in message)
        self.assertIn("READY", first, "ready before it reloads")
        wait_until(lambda: len(notify.of("READY")) == 2, "the end of the reload")


class Units(unittest.TestCase):
    def test_systemd_takes_the_units(self):
        if not shutil.which("systemd-analyze"):
            self.skipTest("systemd-analyze is not installed")
        with tempfile.TemporaryDirectory() as folder:
            for name in ("bulkhead.service", "bulkhead.socket"):
                text = (UNITS / name).read_text().replace("/usr/local/bin/bulkhead", str(harness.BINARY))
                (pathlib.Path(folder) / name).write_text(text)
            done = subprocess.run(["systemd-analyze", "verify", *sorted(map(str, pathlib.Path(folder).iterdir()))], capture_output=True, text=True,
                                  env={**os.environ, "SYSTEMD_PAGER": ""})
            self.assertEqual((done.returncode, [line for line in done.stderr.splitlines() if "bulkhead" in line]), (0, []), done.stderr)

    def test_the_unit_agrees_with_the_daemon(self):
        text = (UNITS / "bulkhead.service").read_text()
        keys = dict(re.findall(r"^(\w+)=(.*)$", text, re.M))
        self.assertEqual(keys["SuccessExitStatus"], "4")
        self.assertEqual(keys["Restart"], "on-failure")
        self.assertGreater(int(keys["TimeoutStopSec"]), 30, "more than a shutdown takes")
        self.assertGreater(int(keys["WatchdogSec"]), int(keys["TimeoutStopSec"]))
        self.assertEqual((keys["KillMode"], keys["Delegate"], keys["Type"]), ("mixed", "yes", "notify"))
        self.assertEqual(dict(re.findall(r"^(\w+)=(.*)$", (UNITS / "bulkhead.socket").read_text(), re.M))["FileDescriptorName"], "http")


if __name__ == "__main__":
    harness.main()
