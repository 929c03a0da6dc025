"""HTTP/1.1 through the real gateway to a real module, byte by byte where it matters."""

import contextlib
import os
import re
import socket
import threading
import time
import unittest

import harness
from harness import SLOW, DaemonTest, SharedDaemonTest, wait_until

ECHO = "/api/v1/m/echo"
OPTIONS = {"modules": ["echo"], "modules_dir": harness.FAKES}
MEGABYTE = 1 << 20
LISTENING = "0A"  # a state of /proc/net/tcp


class Wire:
    """One raw connection that reads whole answers."""

    def __init__(self, daemon, timeout=15 * SLOW):
        self.daemon = daemon
        self.socket = daemon.connect(timeout)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def head(self, method, path, *headers, version="HTTP/1.1"):
        lines = [f"{method} {path} {version}", f"Host: {self.daemon.address}", f"Authorization: Bearer {self.daemon.token}", *headers]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def send(self, data):
        self.socket.sendall(data)
        return self

    def ask(self, method, path, *headers, body=b""):
        return self.send(self.head(method, path, *headers) + body).answer(method)

    def more(self):
        chunk = self.socket.recv(65536)
        self.buffer += chunk
        return bool(chunk)

    def read_until(self, mark):
        while mark not in self.buffer:
            if not self.more():
                raise EOFError(f"closed after {self.buffer[:200]!r}")
        taken, self.buffer = self.buffer.split(mark, 1)
        return taken

    def read_exactly(self, count):
        parts, got = [self.buffer], len(self.buffer)
        while got < count:  # joined once: a hundred megabytes, piece by piece, would be copied a thousand times
            parts.append(self.socket.recv(65536))
            if not parts[-1]:
                raise EOFError(f"closed {count - got} bytes too early")
            got += len(parts[-1])
        whole = b"".join(parts)
        taken, self.buffer = whole[:count], whole[count:]
        return taken

    def answer(self, method="GET"):
        while True:
            head = self.read_until(b"\r\n\r\n").decode("latin-1").split("\r\n")
            status = int(head[0].split(" ")[1])
            if status >= 200:
                break
        headers = [tuple(part.strip() for part in line.split(":", 1)) for line in head[1:]]
        names = {name.lower(): value for name, value in headers}
        trailers = []
        if method == "HEAD" or status in (204, 304):
            body = b""
        elif names.get("transfer-encoding", "").lower() == "chunked":
            chunks = []
            while size := int(self.read_until(b"\r\n").split(b";")[0], 16):
                chunks.append(self.read_exactly(size))
                assert self.read_exactly(2) == b"\r\n"
            body = b"".join(chunks)
            while line := self.read_until(b"\r\n"):
                trailers.append(tuple(part.strip() for part in line.decode("latin-1").split(":", 1)))
        elif "content-length" in names:
            body = self.read_exactly(int(names["content-length"]))
        else:
            while self.more():
                pass
            body, self.buffer = self.buffer, b""
        answer = harness.Response(status, headers, body)
        answer.trailers = dict(trailers)
        return answer

    def closed(self):
        """True when the other side has closed; reads away what still came."""
        try:
            while self.more():
                pass
            return True
        except ConnectionResetError:
            return True
        except socket.timeout:
            return False


class Connections(SharedDaemonTest):
    options = OPTIONS

    def test_a_connection_is_kept_for_the_next_request(self):
        with Wire(self.daemon) as wire:
            for number in range(5):
                self.assertEqual(wire.ask("GET", f"{ECHO}/echo?n={number}").data["target"], f"/echo?n={number}")

    def test_pipelined_requests_are_answered_in_order(self):
        with Wire(self.daemon) as wire:
            targets = [f"{ECHO}/slow?ms=150", f"{ECHO}/echo?second", "/healthz", f"{ECHO}/nothing", f"{ECHO}/inline?last"]
            wire.send(b"".join(wire.head("GET", target) for target in targets))
            answers = [wire.answer() for _ in targets]
        self.assertEqual([answer.status for answer in answers], [200, 200, 200, 404, 200])
        self.assertEqual(answers[1].data["target"], "/echo?second")
        self.assertEqual(answers[4].data["target"], "/inline?last")

    def test_a_client_that_asks_for_close_is_closed(self):
        with Wire(self.daemon) as wire:
            answer = wire.ask("GET", f"{ECHO}/echo", "Connection: close")
            self.assertEqual(answer.status, 200)
            self.assertEqual(answer.header("Connection", "").lower(), "close")
            self.assertTrue(wire.closed())

    def test_http_1_0_is_answered_and_closed(self):
        with Wire(self.daemon) as wire:
            answer = wire.send(wire.head("GET", f"{ECHO}/stream?bytes=100000", version="HTTP/1.0")).answer()
            self.assertEqual((answer.status, len(answer.body)), (200, 100000))
            self.assertIsNone(answer.header("Transfer-Encoding"))
            self.assertTrue(wire.closed())

    def test_a_head_that_comes_byte_by_byte_is_understood(self):
        with Wire(self.daemon) as wire:
            wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in wire.head("GET", f"{ECHO}/echo?slowly"):
                wire.send(bytes([byte]))
            self.assertEqual(wire.answer().data["target"], "/echo?slowly")

    def test_many_connections_at_once_are_all_served(self):
        wires = [Wire(self.daemon) for _ in range(200)]
        try:
            for number, wire in enumerate(wires):
                wire.send(wire.head("GET", f"{ECHO}/echo?n={number}"))
            for number, wire in enumerate(wires):
                self.assertEqual(wire.answer().data["target"], f"/echo?n={number}")
        finally:
            for wire in wires:
                wire.socket.close()

    def test_a_client_that_goes_away_cancels_its_request(self):
        before = self.daemon.get(f"{ECHO}/cancelled").data
        with Wire(self.daemon) as wire:
            wire.send(wire.head("GET", f"{ECHO}/stream?bytes={1 << 30}"))
            wire.read_exactly(MEGABYTE)
            self.assertEqual(self.daemon.get(f"{ECHO}/cancelled").data, before)
        wait_until(lambda: self.daemon.get(f"{ECHO}/cancelled").data["streams"] == before["streams"] + 1, "the module told", 5 * SLOW)
        self.assertEqual(self.daemon.get(f"{ECHO}/echo").status, 200)


class Routing(SharedDaemonTest):
    options = OPTIONS

    def test_only_declared_routes_are_there(self):
        self.assertError(self.daemon.get(f"{ECHO}/nothing"), 404, "ROUTE_NOT_FOUND")
        self.assertError(self.daemon.get(f"{ECHO}"), 404, "ROUTE_NOT_FOUND")
        self.assertError(self.daemon.get("/api/v1/m/"), 404, "ROUTE_NOT_FOUND")
        self.assertError(self.daemon.get("/api/v1/m/ECHO/echo"), 404, "ROUTE_NOT_FOUND")

    def test_another_method_is_405_with_allow(self):
        answer = self.daemon.request("PATCH", f"{ECHO}/echo", {})
        self.assertError(answer, 405, "METHOD_NOT_ALLOWED")
        allow = {method.strip() for method in answer.header("Allow").split(",")}
        self.assertEqual(allow - {"HEAD", "OPTIONS"}, {"GET", "POST", "PUT", "DELETE"})

    def test_params_wildcards_and_the_query_reach_the_module_untouched(self):
        answer = self.daemon.get(f"{ECHO}/items/a%20b/parts/%C3%A4")
        self.assertEqual(answer.data, {"item": "a b", "part": "ä"})
        answer = self.daemon.get(f"{ECHO}/echo/some/deep%2Fpath?q=1&q=2&e=%26")
        self.assertEqual(answer.data["target"], "/echo/some/deep%2Fpath?q=1&q=2&e=%26")
        self.assertEqual(answer.data["query"], [["q", "1"], ["q", "2"], ["e", "&"]])

    def test_paths_do_not_climb_out_of_their_module(self):
        for path in (f"{ECHO}/../../modules", f"{ECHO}/%2e%2e/%2e%2e/modules", f"{ECHO}/./echo", f"{ECHO}//echo"):
            with self.subTest(path):
                with Wire(self.daemon) as wire:
                    self.assertIn(wire.ask("GET", path).status, (400, 404))

    def test_head_is_a_get_without_the_body(self):
        with Wire(self.daemon) as wire:
            head = wire.ask("HEAD", f"{ECHO}/echo")
            self.assertEqual((head.status, head.body), (200, b""))
            self.assertEqual(wire.ask("GET", f"{ECHO}/echo").status, 200)

    def test_a_public_route_wants_no_login_and_the_others_do(self):
        self.assertEqual(self.daemon.get(f"{ECHO}/public", token=None).status, 200)
        self.assertEqual(self.daemon.get(f"{ECHO}/public", token=None).data["subject"], "")
        self.assertError(self.daemon.get(f"{ECHO}/echo", token=None), 401, "UNAUTHENTICATED")

    def test_a_permission_of_the_manifest_is_wanted(self):
        plain = self.daemon.make_token("plain", "modules:read")
        special = self.daemon.make_token("special", "echo:special")
        self.assertEqual(self.daemon.get(f"{ECHO}/echo", token=plain).status, 200)
        self.assertError(self.daemon.get(f"{ECHO}/special", token=plain), 403, "FORBIDDEN")
        answer = self.daemon.get(f"{ECHO}/special", token=special)
        self.assertEqual((answer.status, answer.data["subject"], answer.data["permissions"]), (200, "special", ["echo:special"]))


class Heads(SharedDaemonTest):
    options = OPTIONS

    def seen(self, *headers, path=f"{ECHO}/echo"):
        with Wire(self.daemon) as wire:
            answer = wire.ask("GET", path, *headers)
        self.assertEqual(answer.status, 200, answer)
        found = {}
        for name, value in answer.data["headers"]:
            found.setdefault(name, []).append(value)
        return found

    def test_what_only_the_gateway_may_say_is_stripped_from_the_client(self):
        seen = self.seen("X-Bulkhead-Subject: root", "x-bulkhead-ROLES: owner", "X-Bulkhead-Permissions: *", "X-Bulkhead-Anything: x",
                         "X-Forwarded-For: 6.6.6.6", "X-Forwarded-Host: evil", "X-Forwarded-Proto: gopher",
                         "X_Bulkhead_Subject: root")
        self.assertNotIn("authorization", seen)
        self.assertNotIn("x-bulkhead-anything", seen)
        self.assertEqual(len(seen["x-bulkhead-subject"]), 1)
        self.assertNotIn("root", seen["x-bulkhead-subject"])
        self.assertNotIn("owner", str(seen.get("x-bulkhead-roles")))
        self.assertEqual(seen["x-forwarded-for"], ["127.0.0.1"])
        self.assertEqual(seen["x-forwarded-host"], [self.daemon.address])
        self.assertEqual(seen["x-forwarded-proto"], ["http"])

    def test_hop_by_hop_headers_stay_on_their_hop(self):
        seen = self.seen("Connection: keep-alive, X-Private", "X-Private: 1", "Keep-Alive: 5", "TE: trailers", "Proxy-Authorization: x",
                         "X-Public: 2")
        for name in ("connection", "keep-alive", "te", "proxy-authorization", "x-private", "transfer-encoding"):
            self.assertNotIn(name, seen)
        self.assertEqual(seen["x-public"], ["2"])

    def test_every_request_has_an_id_and_a_trace(self):
        seen = self.seen()
        self.assertTrue(seen["x-request-id"][0])
        self.assertRegex(seen["traceparent"][0], r"^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")
        trace = "0af7651916cd43dd8448eb211c80319c"
        seen = self.seen("X-Request-Id: order-4711", f"traceparent: 00-{trace}-b7ad6b7169203331-01")
        self.assertEqual(seen["x-request-id"], ["order-4711"])
        self.assertIn(trace, seen["traceparent"][0])
        seen = self.seen("X-Request-Id: " + "x" * 5000, "traceparent: rubbish")
        self.assertLess(len(seen["x-request-id"][0]), 200)
        self.assertNotEqual(seen["traceparent"], ["rubbish"])

    def test_a_head_beyond_the_limits_is_431_and_a_target_414(self):
        with Wire(self.daemon) as wire:
            self.assertError(wire.ask("GET", f"{ECHO}/echo", "X-Big: " + "x" * 70_000), 431, "HEADERS_TOO_LARGE")
            self.assertTrue(wire.closed())
        with Wire(self.daemon) as wire:
            self.assertError(wire.ask("GET", f"{ECHO}/echo", *[f"X-{n}: 1" for n in range(120)]), 431, "HEADERS_TOO_LARGE")
        with Wire(self.daemon) as wire:
            self.assertError(wire.ask("GET", f"{ECHO}/echo?" + "x" * 9000), 414, "URI_TOO_LONG")

    def test_malformed_requests_are_400_and_the_connection_closed(self):
        host = f"Host: {self.daemon.address}\r\nAuthorization: Bearer {self.daemon.token}\r\n"
        requests = {
            "no host": "GET /healthz HTTP/1.1\r\n\r\n",
            "two hosts": f"GET /healthz HTTP/1.1\r\n{host}Host: {self.daemon.address}\r\n\r\n",
            "space before colon": f"GET /healthz HTTP/1.1\r\n{host}X-A : 1\r\n\r\n",
            "folded line": f"GET /healthz HTTP/1.1\r\n{host}X-A: 1\r\n  2\r\n\r\n",
            "two lengths": f"POST {ECHO}/echo HTTP/1.1\r\n{host}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
            "list of lengths": f"POST {ECHO}/echo HTTP/1.1\r\n{host}Content-Length: 3, 3\r\n\r\nabc",
            "signed length": f"POST {ECHO}/echo HTTP/1.1\r\n{host}Content-Length: +3\r\n\r\nabc",
            "length and chunked": f"POST {ECHO}/echo HTTP/1.1\r\n{host}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "odd coding": f"POST {ECHO}/echo HTTP/1.1\r\n{host}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
            "bad chunk size": f"POST {ECHO}/echo HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
            "bare rubbish": "\x00\x01\x02\x03 what\r\n\r\n",
            "bare LF in a value": f"GET /healthz HTTP/1.1\r\n{host}X-A: 1\nX-B: 2\r\n\r\n",
            "NUL in a value": f"GET /healthz HTTP/1.1\r\n{host}X-A: 1\x002\r\n\r\n",
        }
        for what, text in requests.items():
            with self.subTest(what), Wire(self.daemon) as wire:
                answer = wire.send(text.encode("latin-1")).answer()
                self.assertIn(answer.status, (400, 501), answer)
                self.assertTrue(wire.closed())
        self.assertEqual(self.daemon.get(f"{ECHO}/echo").status, 200)

    def test_an_unknown_version_is_505(self):
        with Wire(self.daemon) as wire:
            answer = wire.send(f"GET /healthz HTTP/3.0\r\nHost: {self.daemon.address}\r\n\r\n".encode()).answer()
            self.assertIn(answer.status, (400, 505))


class Bodies(SharedDaemonTest):
    options = OPTIONS

    def test_a_body_of_known_length_and_one_in_chunks_are_the_same_to_the_module(self):
        payload = bytes(range(256)) * 4096
        with Wire(self.daemon) as wire:
            answer = wire.ask("POST", f"{ECHO}/upload", f"Content-Length: {len(payload)}", body=payload)
            self.assertEqual(answer.data, {"bytes": len(payload), "sum": sum(payload)})
            chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (payload[i:i + 50_000] for i in range(0, len(payload), 50_000)))
            answer = wire.ask("POST", f"{ECHO}/upload", "Transfer-Encoding: chunked", body=chunks + b"0\r\n\r\n")
            self.assertEqual(answer.data, {"bytes": len(payload), "sum": sum(payload)})
            self.assertEqual(wire.ask("GET", f"{ECHO}/echo").status, 200)

    def test_a_large_body_streams_through_without_filling_the_memory(self):
        size = 128 * MEGABYTE
        before = resident(self.daemon.process.pid)
        part = b"\x01" * MEGABYTE
        with Wire(self.daemon, timeout=120 * SLOW) as wire:
            wire.send(wire.head("POST", f"{ECHO}/upload", f"Content-Length: {size}"))
            for _ in range(size // len(part)):
                wire.send(part)
            self.assertEqual(wire.answer().data, {"bytes": size, "sum": size})
        self.assertLess(resident(self.daemon.process.pid) - before, 32 * MEGABYTE * SLOW)

    def test_a_large_answer_streams_through_to_a_slow_reader(self):
        size = 64 * MEGABYTE
        before = resident(self.daemon.process.pid)
        with Wire(self.daemon, timeout=120 * SLOW) as wire:
            wire.send(wire.head("GET", f"{ECHO}/stream?bytes={size}"))
            time.sleep(0.5)  # the module is faster than we read: it has to wait, and nobody may keep what it says meanwhile
            self.assertLess(resident(self.daemon.process.pid) - before, 32 * MEGABYTE * SLOW)
            answer = wire.answer()
        self.assertEqual(len(answer.body), size)
        self.assertEqual(answer.body[:26], b"abcdefghijklmnopqrstuvwxyz")
        self.assertEqual(answer.trailers.get("x-bytes"), str(size))

    def test_an_answer_of_known_length_is_framed_by_it(self):
        with Wire(self.daemon) as wire:
            answer = wire.ask("GET", f"{ECHO}/stream?bytes=300000&length=1")
            self.assertEqual((answer.header("Content-Length"), len(answer.body)), ("300000", 300000))
            self.assertEqual(wire.ask("GET", f"{ECHO}/echo").status, 200)

    def test_a_body_beyond_the_routes_limit_is_413(self):
        with Wire(self.daemon) as wire:
            self.assertEqual(wire.ask("POST", f"{ECHO}/small", "Content-Length: 1024", body=b"x" * 1024).data, {"bytes": 1024})
            self.assertError(wire.ask("POST", f"{ECHO}/small", "Content-Length: 1025"), 413, "BODY_TOO_LARGE")
        with Wire(self.daemon) as wire:
            chunks = b"400\r\n" + b"x" * 1024 + b"\r\n1\r\nx\r\n0\r\n\r\n"
            self.assertError(wire.ask("POST", f"{ECHO}/small", "Transfer-Encoding: chunked", body=chunks), 413, "BODY_TOO_LARGE")

    def test_expect_100_continue_is_answered_before_the_body(self):
        with Wire(self.daemon) as wire:
            wire.send(wire.head("POST", f"{ECHO}/upload", "Content-Length: 5", "Expect: 100-continue"))
            self.assertIn(b" 100 ", wire.read_until(b"\r\n\r\n"))
            self.assertEqual(wire.send(b"hello").answer().data["bytes"], 5)

    def test_a_status_without_a_body_has_none(self):
        with Wire(self.daemon) as wire:
            for status in (204, 304):
                answer = wire.ask("GET", f"{ECHO}/status/{status}")
                self.assertEqual((answer.status, answer.body), (status, b""))
            self.assertEqual(wire.ask("GET", f"{ECHO}/status/418").status, 418)
            self.assertEqual(wire.ask("GET", f"{ECHO}/echo").status, 200)


class Failures(DaemonTest):
    def test_a_route_that_takes_too_long_is_504_and_the_module_hears_of_it(self):
        daemon = self.daemon(**OPTIONS)
        began = time.monotonic()
        self.assertError(daemon.get(f"{ECHO}/slow?ms=30000"), 504, "GATEWAY_TIMEOUT")
        self.assertLess(time.monotonic() - began, 5 * SLOW)
        wait_until(lambda: daemon.get(f"{ECHO}/cancelled").data == {"waits": 1, "streams": 0}, "the module told", 5 * SLOW)

    def test_a_handler_that_throws_is_500_without_its_text_and_stops_nothing(self):
        daemon = self.daemon(**OPTIONS)
        answer = daemon.get(f"{ECHO}/throws")
        self.assertError(answer, 500, "INTERNAL")
        self.assertNotIn("no client should read", answer.body.decode())
        wait_until(lambda: "no client should read" in daemon.log(), "the text in the log")
        self.assertEqual(daemon.get(f"{ECHO}/echo").status, 200)

    def assert_lost(self, answer):
        """The worker ended in the request: which of the two is a matter of whether its end or that of its link is seen first."""
        self.assertIn((answer.status, answer.error["code"]), ((502, "BAD_GATEWAY"), (503, "MODULE_UNAVAILABLE")), answer)
        self.assertIn("in flight", answer.error["message"])

    def test_a_worker_lost_in_a_request_is_an_error_and_a_new_one_serves(self):
        daemon = self.daemon(**OPTIONS)
        self.assert_lost(daemon.post(f"{ECHO}/crash", {}))
        self.assertEqual(daemon.get(f"{ECHO}/echo").status, 200, "it waits for the new worker")
        exit_ = daemon.module("echo")["exits"][0]
        self.assertEqual((exit_["cause"], exit_["signal"]), ("SIGNAL", 6))

    def test_an_answer_cut_off_midway_is_seen_as_cut_off(self):
        daemon = self.daemon(**OPTIONS)
        with Wire(daemon) as wire:
            wire.send(wire.head("GET", f"{ECHO}/crash-midway"))
            with self.assertRaises((EOFError, ConnectionResetError)):
                wire.answer()

    def test_while_a_restart_is_put_off_it_is_503_with_retry_after(self):
        daemon = self.daemon(**OPTIONS)
        # More crashes than are forgiven at once: each request waits for the restart, until the module has to wait for its next start.
        for _ in range(30):
            answer = daemon.post(f"{ECHO}/crash", {})
            if answer.status == 503 and "in flight" not in answer.error["message"]:
                break
            self.assert_lost(answer)
        self.assertError(answer, 503, "MODULE_UNAVAILABLE")
        self.assertGreaterEqual(int(answer.header("Retry-After")), 1)
        wait_until(lambda: daemon.get(f"{ECHO}/echo").status == 200, "an answer after the backoff", 30 * SLOW)

    def test_requests_in_flight_are_finished_before_a_disable_is_done(self):
        daemon = self.daemon(**OPTIONS)
        answers = []
        client = threading.Thread(target=lambda: answers.append(daemon.get(f"{ECHO}/slow?ms=700")))
        client.start()
        wait_until(lambda: open_connections(daemon) >= 1, "the request in flight", 5)
        time.sleep(0.2)  # its bytes are with the module
        self.assertEqual(daemon.post("/api/v1/modules/echo/disable").status, 200)
        client.join(10)
        self.assertEqual([answer.status for answer in answers], [200])
        self.assertError(daemon.get(f"{ECHO}/echo"), 404, "ROUTE_NOT_FOUND")

    def test_a_stop_lets_requests_in_flight_end(self):
        daemon = self.daemon(**OPTIONS)
        answers = []
        client = threading.Thread(target=lambda: answers.append(daemon.get(f"{ECHO}/slow?ms=700")))
        client.start()
        wait_until(lambda: open_connections(daemon) >= 1, "the request in flight", 5)
        time.sleep(0.2)
        code, _took = daemon.stop()
        client.join(10)
        self.assertEqual((code, [answer.status for answer in answers]), (0, [200]))


def resident(pid):
    status = harness._read(f"/proc/{pid}/status").decode()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1)) * 1024


def client_sockets(daemon):
    """The sockets that the daemon holds for its clients, also those that have been reset, which no table lists any more."""
    port, held, others = f":{int(daemon.address.rsplit(':', 1)[1]):04X}", set(), set()
    for number in os.listdir(f"/proc/{daemon.process.pid}/fd"):
        with contextlib.suppress(OSError):  # closed meanwhile
            held.add(os.readlink(f"/proc/{daemon.process.pid}/fd/{number}"))
    # A connection that was accepted is listed in the network of who connected: a module may have one of its own.
    for one in (daemon.process.pid, *(pid for pid, _started in harness.descendants(daemon.process.pid))):
        with contextlib.suppress(OSError):
            others.update(line.split()[6] for line in harness._read(f"/proc/{one}/net/unix").decode().splitlines()[1:])
    for line in (harness._read("/proc/net/tcp") + harness._read("/proc/net/tcp6")).decode().splitlines():
        fields = line.split()
        if fields[0] != "sl" and (not fields[1].endswith(port) or fields[3] == LISTENING):
            others.add(fields[9])
    return {link for link in held if link.startswith("socket:")} - {f"socket:[{inode}]" for inode in others}


def open_connections(daemon):
    """Established TCP connections to the gateway."""
    port = int(daemon.address.rsplit(":", 1)[1])
    count = 0
    for line in harness._read("/proc/net/tcp").decode().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].split(":")[1], 16) == port and fields[3] == "01":
            count += 1
    return count


if __name__ == "__main__":
    harness.main()
