"""Modules call modules, over the gateway's private socket: who may, with what identity, for how long, and what becomes of it when something ends."""

import contextlib
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest

import collector as collecting
import harness
from harness import SLOW, DaemonTest, SharedDaemonTest, copies, wait_until
from http_test import Wire

CALLER = harness.BUILD / "tests" / "calls" / "modules" / "caller"
MEGABYTE = 1 << 20
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
MAX_HOPS = 8                   # limits::kMaxCallHops
MAX_CONNECTIONS = 1024         # limits::kMaxConnectionsPerModule
NOBODY = 65534
# What a process that is no module says on the socket; prints the status of each answer.
ASK = """
import socket, sys
for request in sys.argv[2:]:
    end = socket.socket(socket.AF_UNIX)
    end.settimeout(10)
    end.connect(sys.argv[1])
    end.sendall(request.encode())
    print(end.recv(65536).split()[1].decode())
"""


def needs(*modules):
    return {"modules": {module: "^1.0.0" for module in modules}}


class Private(Wire):
    """A raw connection to the modules' socket, with the token of a module, or another one."""

    def __init__(self, told, token=..., timeout=15 * SLOW):
        self.token = told["token"] if token is ... else token
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(told["socket"])
        self.buffer = b""

    def head(self, method, path, *headers, version="HTTP/1.1"):
        tokens = [f"x-bulkhead-token: {self.token}"] if self.token else []
        return ("\r\n".join([f"{method} {path} {version}", "Host: x", *tokens, *headers]) + "\r\n\r\n").encode("latin-1")


def credentials(daemon, module):
    return daemon.get(f"/api/v1/m/{module}/credentials").data


def worker(daemon, module):
    return daemon.module(module)["workers"][0]["pid"]


class Told:
    """What tests on a daemon of these modules share; on() is that daemon."""

    def call(self, module, path, by="front", **told):
        answer = self.on().post(f"/api/v1/m/{by}/call", {"module": module, "path": path, **told})
        self.assertEqual(answer.status, 200, answer)
        return answer.data

    def asked(self, module, path, **told):
        """What the called module says that it was asked."""
        result = self.call(module, path, **told)
        self.assertEqual(result.get("status"), 200, result)
        return json.loads(result["body"])["data"]

    def assertRefused(self, result, status, code):
        self.assertEqual(result.get("status"), status, result)
        error = json.loads(result["body"])["error"]
        self.assertEqual(error["code"], code, result)
        return error["message"]


class Calls(Told, SharedDaemonTest):
    """front and middle depend on back, closed too and has no network at all; stranger depends on nobody."""

    @classmethod
    def setUpClass(cls):
        cls.modules = harness.pathlib.Path(harness.tempfile.mkdtemp(prefix="bh-", dir="/tmp"))
        cls.modules.chmod(0o755)
        copies(CALLER, ["back", "stranger"], cls.modules)
        copies(CALLER, ["middle"], cls.modules, dependencies=needs("back"))
        copies(CALLER, ["front"], cls.modules, dependencies=needs("middle", "back"), workers=2)
        copies(CALLER, ["closed"], cls.modules, dependencies=needs("back"), access={"network": "none"})
        cls.options = {"modules": ["back", "stranger", "middle", "front", "closed"], "modules_dir": cls.modules}
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        try:
            super().tearDownClass()
        finally:
            harness.shutil.rmtree(cls.modules, ignore_errors=True)

    def on(self):
        return self.daemon

    def private(self, module="front", token=..., **options):
        wire = Private(credentials(self.daemon, module), token, **options)
        self.addCleanup(wire.socket.close)
        return wire

    # ---- who may, and as whom

    def test_a_module_calls_one_that_it_depends_on_and_is_the_subject(self):
        asked = self.asked("back", "/echo", method="POST", body="told", headers={"X-Of-Mine": "kept", "content-type": "text/plain"})
        self.assertEqual((asked["subject"], asked["roles"], asked["body"]), ("module:front", [], "told"))
        self.assertEqual(asked["permissions"], ["caller:guarded", "caller:other"], "those that the called manifest declares")
        headers = asked["headers"]
        self.assertEqual((headers["x-of-mine"], headers["content-type"], headers["x-bulkhead-hops"]), ("kept", "text/plain", "1"))
        for absent in ("x-bulkhead-token", "authorization", "x-forwarded-for"):
            self.assertNotIn(absent, headers)

    def test_it_may_call_the_routes_whose_permissions_the_called_module_declares_and_public_ones(self):
        self.assertEqual(self.asked("back", "/guarded")["subject"], "module:front")
        self.assertEqual(self.asked("back", "/open")["subject"], "module:front")
        self.assertRefused(self.call("back", "/nowhere"), 404, "ROUTE_NOT_FOUND")
        self.assertRefused(self.call("back", "/open", method="DELETE"), 405, "METHOD_NOT_ALLOWED")

    def test_what_is_no_declared_dependency_is_refused_with_what_to_do(self):
        sentence = self.assertRefused(self.call("back", "/echo", by="stranger"), 403, "MODULE_NOT_A_DEPENDENCY")
        self.assertIn('Add "back": "<range of its versions>" to dependencies.modules in the manifest of stranger.', sentence)
        for module, by in (("front", "back"), ("stranger", "front"), ("no-such-module", "front"), ("closed", "middle"), ("back", "back")):
            self.assertRefused(self.call(module, "/open", by=by), 403, "MODULE_NOT_A_DEPENDENCY")

    def test_nothing_else_is_served_on_the_private_socket(self):
        wire = self.private()
        for method, path in (("GET", "/api/v1/modules"), ("GET", "/healthz"), ("GET", "/metrics"), ("GET", "/"), ("OPTIONS", "*"),
                             ("POST", "/api/v1/modules/back/disable"), ("GET", "/api/v1/m")):
            answer = wire.ask(method, path, f"Authorization: Bearer {self.daemon.token}", "Content-Length: 0")
            self.assertError(answer, 404, "ROUTE_NOT_FOUND")
        self.assertEqual(wire.ask("GET", "/api/v1/m/back/echo").status, 200, "the connection goes on")

    def test_the_identity_can_be_neither_forged_nor_lent(self):
        forged = ["x-bulkhead-subject: admin", "X-Bulkhead-Permissions: *", "x_bulkhead_roles: admin", "x-bulkhead-on-behalf-of: ann",
                  "x-forwarded-for: 192.0.2.1", f"Authorization: Bearer {self.daemon.token}"]
        asked = self.private().ask("GET", "/api/v1/m/back/echo", *forged).data
        self.assertEqual((asked["subject"], asked["permissions"], asked["roles"]), ("module:front", ["caller:guarded", "caller:other"], []))
        for name in ("x_bulkhead_roles", "x-bulkhead-on-behalf-of", "x-forwarded-for", "authorization", "x-bulkhead-token"):
            self.assertNotIn(name, asked["headers"])
        self.assertError(self.private("stranger").ask("GET", "/api/v1/m/back/echo", *forged), 403, "MODULE_NOT_A_DEPENDENCY")
        for header in ("x-bulkhead-subject", "X-Bulkhead-Token", "Content-Length", "Connection"):
            self.assertIn("can't be sent", self.call("back", "/echo", headers={header: "1"})["invalid"])
        # And nobody from outside passes for a module.
        self.assertEqual(self.daemon.get("/api/v1/m/back/open", token=None, headers={"x-bulkhead-token": credentials(self.daemon, "front")["token"],
                                                                                     "x-bulkhead-subject": "module:front"}).data["subject"], "")
        answer = self.daemon.post("/api/v1/tokens", {"name": "posing", "subject": "module:front", "permissions": ["caller:guarded"]})
        self.assertError(answer, 400, "INVALID_ARGUMENT")

    def test_without_the_token_of_a_running_instance_nothing_is_answered_but_401(self):
        told = credentials(self.daemon, "front")
        twice = f"{told['token']}\r\nx-bulkhead-token: {told['token']}"
        for token in (None, "0" * 48, told["token"][:-1], told["token"].upper() + " ", self.daemon.token, twice):
            wire = self.private(token=token)
            answer = wire.ask("GET", "/api/v1/m/back/open", f"Authorization: Bearer {self.daemon.token}")
            self.assertError(answer, 401, "UNAUTHENTICATED")
            self.assertTrue(wire.closed(), "nothing is kept for one that is nobody")

    def test_a_process_that_is_no_module_is_answered_401_whoever_runs_it(self):
        told = credentials(self.daemon, "front")
        head = "GET /api/v1/m/back/open HTTP/1.1\r\nHost: x\r\n"
        requests = [head + "\r\n", head + "x-bulkhead-token: " + "1" * 48 + "\r\n\r\n", head + f"Authorization: Bearer {self.daemon.token}\r\n\r\n"]
        users = [None, NOBODY] if harness.IS_ROOT else [None]
        for user in users:
            done = subprocess.run([sys.executable, "-c", ASK, told["socket"], *requests], capture_output=True, text=True, user=user,
                                  group=user, extra_groups=[] if user else None, timeout=30 * SLOW)
            self.assertEqual((done.stdout.split(), done.stderr), (["401"] * 3, ""), user)

    def test_the_token_of_an_instance_that_has_ended_is_refused_also_on_a_kept_connection(self):
        told = credentials(self.daemon, "stranger")
        kept = self.private("stranger")
        self.assertError(kept.ask("GET", "/api/v1/m/back/echo"), 403, "MODULE_NOT_A_DEPENDENCY")
        pid = worker(self.daemon, "stranger")
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: worker(self.daemon, "stranger") not in (0, pid), "another process")
        self.daemon.wait_observed("stranger", "RUNNING")
        self.assertError(kept.ask("GET", "/api/v1/m/back/echo"), 401, "UNAUTHENTICATED")
        self.assertError(self.private("stranger", token=told["token"]).ask("GET", "/api/v1/m/back/echo"), 401, "UNAUTHENTICATED")
        self.assertError(self.private("stranger").ask("GET", "/api/v1/m/back/echo"), 403, "MODULE_NOT_A_DEPENDENCY")

    def test_no_token_is_in_the_log(self):
        for module in ("front", "stranger"):
            token = credentials(self.daemon, module)["token"]
            self.private(module).ask("GET", "/api/v1/m/back/echo")
            self.assertNotIn(token, self.daemon.log())

    def test_a_module_without_any_network_calls_all_the_same(self):
        self.assertEqual(self.asked("back", "/echo", by="closed")["subject"], "module:closed")
        network = next(item for item in self.daemon.module("closed")["isolation"] if item["name"] == "network")
        self.assertEqual(network["state"], "active", network)

    def test_a_run_of_a_job_calls_too(self):
        run = self.daemon.post("/api/v1/modules/front/jobs/call/run?wait=20s", {"payload": {"module": "back", "path": "/echo"}}).data
        self.assertEqual((run["status"], run["result"].get("status")), ("SUCCEEDED", 200), run)
        asked = json.loads(run["result"]["body"])["data"]
        self.assertEqual(asked["subject"], "module:front")
        self.assertLessEqual(asked["leftMs"], 5000, "the run has 5 s")

    # ---- time

    def test_a_call_has_the_time_that_its_caller_has_left_and_no_more(self):
        wire = self.private()
        began = time.monotonic()
        self.assertError(wire.ask("GET", "/api/v1/m/back/slow?ms=8000", "x-bulkhead-timeout-ms: 300"), 504, "GATEWAY_TIMEOUT")
        self.assertLess(time.monotonic() - began, 3 * SLOW)
        self.assertError(wire.ask("GET", "/api/v1/m/back/slow?ms=8000", "x-bulkhead-timeout-ms: 0"), 504, "GATEWAY_TIMEOUT")
        # A body that does not come does not prolong it.
        wire.send(wire.head("POST", "/api/v1/m/back/upload", "x-bulkhead-timeout-ms: 300", "Content-Length: 1000") + b"x")
        self.assertError(wire.answer(), 504, "GATEWAY_TIMEOUT")
        for bad in (("x-bulkhead-timeout-ms: soon",), ("x-bulkhead-timeout-ms: -1",), ("x-bulkhead-timeout-ms: 5", "x-bulkhead-timeout-ms: 5"),
                    ("x-bulkhead-hops: many",)):
            self.assertError(self.private().ask("GET", "/api/v1/m/back/echo", *bad), 400, "INVALID_ARGUMENT")

    def test_what_is_told_of_it_is_never_more_than_the_route_has(self):
        wire = self.private()
        for asked, told in (("999999999999", 30_000), ("1500", 1_500), (None, 30_000)):
            answer = wire.ask("GET", "/api/v1/m/back/echo", *([f"x-bulkhead-timeout-ms: {asked}"] if asked else []))
            self.assertEqual(answer.data["headers"]["x-bulkhead-timeout-ms"], str(told))
            self.assertLessEqual(answer.data["leftMs"], told)
        from_outside = self.daemon.get("/api/v1/m/back/echo", headers={"x-bulkhead-timeout-ms": "1", "x-bulkhead-hops": "7"}).data["headers"]
        self.assertEqual((from_outside["x-bulkhead-timeout-ms"], from_outside.get("x-bulkhead-hops")), ("30000", None))

    def chain(self, *through, **told):
        body = json.dumps({"through": through[1:], **told}).encode()
        with Wire(self.daemon, timeout=25 * SLOW) as wire:  # head and body at once, else the time of the first request would not be known
            return wire.ask("POST", f"/api/v1/m/{through[0]}/chain", f"traceparent: 00-{TRACE}-{SPAN}-01", "X-Request-Id: of-the-chain",
                            "Content-Type: application/json", f"Content-Length: {len(body)}", body=body)

    def test_each_call_of_a_chain_has_less_time_than_the_one_before(self):
        answer = self.chain("front", "middle", "back", timeout=9_000)
        self.assertEqual(answer.status, 200, answer)
        front, middle, back = answer.data["chain"]
        self.assertEqual([one["module"] for one in (front, middle, back)], ["front", "middle", "back"])
        self.assertEqual([one["subject"] for one in (front, middle, back)], ["admin", "module:front", "module:middle"])
        self.assertEqual([one["hops"] for one in (front, middle, back)], ["", "1", "2"])
        self.assertTrue(20_000 >= front["leftMs"] > 9_000 >= middle["leftMs"] >= back["leftMs"] > 0, answer.data)
        self.assertEqual({one["requestId"] for one in (front, middle, back)}, {"of-the-chain"})
        self.assertEqual({one["traceparent"].split("-")[1] for one in (front, middle, back)}, {TRACE})
        self.assertEqual(len({one["traceparent"] for one in (front, middle, back)}), 3)

    def test_a_chain_that_takes_too_long_ends_everywhere_in_time(self):
        began = time.monotonic()
        result = self.call("middle", "/chain", method="POST", body=json.dumps({"through": ["back"], "slow": 15_000}), timeout=700)
        # Whoever is first says so: the gateway to a caller, or that to itself.
        self.assertTrue(result.get("status") in (503, 504) or "in time" in result.get("error", ""), result)
        self.assertTrue(result.get("transient", True))
        self.assertLess(time.monotonic() - began, 3 * SLOW)

    def test_a_client_that_leaves_ends_the_calls_behind_its_request(self):
        def in_flight():
            return int(next(line.split()[-1] for line in self.daemon.get("/metrics").body.decode().splitlines()
                            if line.startswith("bulkhead_gateway_requests_in_flight ")))

        with Wire(self.daemon) as wire:
            body = json.dumps({"through": ["middle", "back"], "slow": 15_000}).encode()
            wire.send(wire.head("POST", "/api/v1/m/front/chain", f"Content-Length: {len(body)}", "Content-Type: application/json") + body)
            wait_until(lambda: in_flight() >= 4, "three calls and our own question")
        wait_until(lambda: in_flight() == 1, "all of them have ended", 5 * SLOW)

    def test_a_call_that_has_come_through_too_many_modules_is_refused(self):
        wire = self.private()
        self.assertEqual(wire.ask("GET", "/api/v1/m/back/echo", f"x-bulkhead-hops: {MAX_HOPS - 1}").data["headers"]["x-bulkhead-hops"], str(MAX_HOPS))
        for hops in (MAX_HOPS, 10 ** 12):
            self.assertError(wire.ask("GET", "/api/v1/m/back/echo", f"x-bulkhead-hops: {hops}"), 508, "LOOP_DETECTED")

    # ---- bodies

    def test_bodies_of_any_length_go_both_ways(self):
        self.assertEqual(self.asked("back", "/upload", method="POST", bytes=0)["bytes"], 0)
        self.assertEqual(self.asked("back", "/upload", method="POST", bytes=20 * MEGABYTE)["bytes"], 20 * MEGABYTE)
        result = self.call("back", f"/stream?bytes={20 * MEGABYTE}", streamed=True)
        self.assertEqual((result["status"], result["bytes"]), (200, 20 * MEGABYTE), result)
        self.assertGreater(result["pieces"], 10)
        result = self.call("back", f"/stream?bytes={3 * MEGABYTE}")
        self.assertEqual((result["status"], result["bytes"]), (200, 3 * MEGABYTE))
        result = self.call("back", f"/stream?bytes={3 * MEGABYTE}", maxBody=MEGABYTE)
        self.assertIn("longer than max_body", result["error"])

    def test_an_answer_that_comes_before_the_body_is_there_is_heard(self):
        self.assertRefused(self.call("back", "/echo", method="POST", bytes=8 * MEGABYTE), 413, "BODY_TOO_LARGE")
        self.assertRefused(self.call("back", "/nowhere", method="POST", bytes=8 * MEGABYTE), 404, "ROUTE_NOT_FOUND")

    def test_data_of_an_answer_that_says_no_is_an_error_of_the_handler(self):
        self.assertEqual(self.daemon.get("/api/v1/m/front/data/echo").data["subject"], "module:front")
        answer = self.daemon.get("/api/v1/m/front/data/nowhere")
        self.assertError(answer, 500, "INTERNAL")
        self.assertNotIn("no such route", answer.body.decode())
        wait_until(lambda: "the module answered 404: The module has no such route." in self.daemon.log(), "the reason is in the log")

    # ---- many

    def test_many_calls_at_once_are_all_answered(self):
        failures = []

        def many(number):
            for n in range(20):
                result = self.call("back", "/echo", method="POST", body=f"{number}/{n}", by=("front", "middle", "closed")[number % 3])
                if result.get("status") != 200 or json.loads(result["body"])["data"]["body"] != f"{number}/{n}":
                    failures.append(result)

        threads = [threading.Thread(target=many, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])

    @unittest.skipUnless(harness.IS_ROOT, "only as root do modules have users of their own, who are counted apart")
    def test_who_opens_too_many_connections_takes_none_from_the_others(self):
        told = credentials(self.daemon, "front")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4 * MAX_CONNECTIONS, hard), hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        with contextlib.ExitStack() as stack:
            connections = [stack.enter_context(Private(told)) for _ in range(MAX_CONNECTIONS + 1)]
            # The gateway's threads accept side by side: it need not be the last one.
            poll = select.poll()
            for connection in connections:
                poll.register(connection.socket, select.POLLIN)
            refused = wait_until(lambda: poll.poll(0), "one of them is refused")
            self.assertEqual(len(refused), 1)
            [answer] = [connection.answer() for connection in connections if connection.socket.fileno() == refused[0][0]]
            self.assertError(answer, 503, "OVERLOADED")
            self.assertEqual(answer.header("Retry-After"), "1")
            self.assertEqual(self.asked("back", "/echo", by="closed")["subject"], "module:closed")
            self.assertEqual(self.daemon.get("/healthz").status, 200)
        wait_until(lambda: self.private().ask("GET", "/api/v1/m/back/echo").status == 200, "they count no more once they are closed")


class Ends(Told, DaemonTest):
    """Daemons of their own, for what ends something."""

    def made(self, config="", **modules):
        """A daemon with these modules, each given as changes of the manifest."""
        folder = self.temporary_folder(0o755)
        for name, changes in modules.items():
            copies(CALLER, [name], folder, **changes)
        return self.daemon(modules=list(modules), modules_dir=folder, config=config)

    def on(self):
        return self._daemons[-1]

    def test_kill_9_of_the_called_worker_is_not_seen_by_a_safe_call_and_told_by_another(self):
        daemon = self.made(back={}, front={"dependencies": needs("back")})
        for method, expected in (("GET", {200}), ("POST", {502, 503})):
            results = []
            pid = worker(daemon, "back")
            thread = threading.Thread(target=lambda: results.append(self.call("back", "/slow?ms=1500", method=method, timeout=9_000)))
            thread.start()
            time.sleep(0.5)  # it is in the middle
            os.kill(pid, signal.SIGKILL)
            thread.join()
            self.assertIn(results[0].get("status"), expected, results)
            if method == "GET":
                self.assertNotEqual(json.loads(results[0]["body"])["data"]["pid"], pid)
            daemon.wait_observed("back", "RUNNING")

    def test_calls_while_the_called_worker_restarts_wait_for_it(self):
        daemon = self.made(back={}, front={"dependencies": needs("back")})
        for _ in range(3):
            pid = worker(daemon, "back")
            os.kill(pid, signal.SIGKILL)
            result = self.call("back", "/echo")
            self.assertEqual(result.get("status"), 200, result)
            self.assertNotEqual(json.loads(result["body"])["data"]["pid"], pid)
            daemon.wait_observed("back", "RUNNING")

    def test_a_dependency_that_is_not_there_is_unavailable_and_comes_back(self):
        daemon = self.made("flags:\n  back: true\n", back={"featureFlag": "back"}, front={"dependencies": needs("back")})
        told = credentials(daemon, "front")
        self.assertError(daemon.post("/api/v1/modules/back/disable"), 409, "HAS_DEPENDENTS")
        self.assertEqual(self.asked("back", "/echo")["subject"], "module:front")
        daemon.put("/api/v1/flags/back", {"enabled": False})
        daemon.wait_observed("back", "SKIPPED")
        with Private(told) as wire:
            answer = wire.ask("GET", "/api/v1/m/back/echo")
            self.assertError(answer, 503, "MODULE_UNAVAILABLE")
            self.assertEqual(answer.header("Retry-After"), "1")
            daemon.put("/api/v1/flags/back", {"enabled": True})
            daemon.wait_observed("back", "RUNNING")
            self.assertEqual(wire.ask("GET", "/api/v1/m/back/echo").status, 200, "the same connection")

    def test_a_call_is_finished_when_the_called_module_is_disabled_or_the_daemon_stops(self):
        daemon = self.made(back={}, front={"dependencies": needs("back")})
        results = []
        thread = threading.Thread(target=lambda: results.append(self.call("back", "/slow?ms=1500", timeout=9_000)))
        thread.start()
        time.sleep(0.5)
        code, _took = daemon.stop()  # front first, whose request is waited for; then back
        thread.join()
        self.assertEqual(code, 0)
        self.assertEqual(results[0].get("status"), 200, results)
        daemon.assert_nothing_left()

    def test_a_chain_as_long_as_may_be_works_and_a_longer_one_is_a_loop(self):
        names = [f"m{number}" for number in range(MAX_HOPS + 2)]
        daemon = self.made(**{name: {"dependencies": needs(following)} for name, following in zip(names, names[1:])}, **{names[-1]: {}})
        answer = daemon.post(f"/api/v1/m/{names[0]}/chain", {"through": names[1:MAX_HOPS + 1]})
        self.assertEqual(answer.status, 200, answer)
        self.assertEqual([one["hops"] for one in answer.data["chain"]], [""] + [str(n) for n in range(1, MAX_HOPS + 1)])
        self.assertError(daemon.post(f"/api/v1/m/{names[0]}/chain", {"through": names[1:]}), 508, "LOOP_DETECTED")

    def test_a_request_and_the_calls_behind_it_are_one_tree_of_spans(self):
        collector = collecting.Collector(collecting.descriptors())
        self.addCleanup(collector.stop)
        daemon = self.made(f"telemetry:\n  otlp:\n    endpoint: {collector.url}\n",
                           back={}, middle={"dependencies": needs("back")}, front={"dependencies": needs("middle", "back")})
        answer = daemon.post("/api/v1/m/front/chain", {"through": ["middle", "back"]}, headers={"traceparent": f"00-{TRACE}-{SPAN}-01"})
        self.assertEqual(answer.status, 200, answer)
        parent = bytes.fromhex(SPAN)
        for name, caller in (("front", None), ("middle", "front"), ("back", "middle")):
            span = collector.span(f"POST /api/v1/m/{name}/chain")
            has = collecting.attributes(span)
            self.assertEqual((span.trace_id.hex(), span.parent_span_id), (TRACE, parent), name)
            self.assertEqual((has["bulkhead.module"], has.get("bulkhead.caller")), (name, caller))
            parent = span.span_id


if __name__ == "__main__":
    harness.main()
