"""Long bodies, both ways, beside many short requests to the same worker: who is slow holds up nobody else, and nobody keeps what it does
not take. What a worker's end in the middle does to those who wait for it."""

import json
import os
import signal
import socket
import threading
import time

import harness
from harness import SLOW, DaemonTest, SharedDaemonTest, wait_until
from http_test import ECHO, MEGABYTE, OPTIONS, Wire, client_sockets, resident
from modules_test import echo_like

FAST_CLIENTS = 200
ROUNDS = 10                       # of one request of each of them
SLOWEST_ROUND_S = 3 * SLOW        # usual are some hundredths of a second
BIG = 100 * MEGABYTE
MEMORY_BOUND = 16 * MEGABYTE  # that daemon and module together may grow by; a window is 256 KiB
ALPHABET = b"abcdefghijklmnopqrstuvwxyz"
IN_FLIGHT = 20


def small_buffer(daemon):
    """A connection that takes little by itself, so that what is not read is soon held back."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    client.settimeout(60 * SLOW)
    host, port = daemon.address.rsplit(":", 1)
    client.connect((host, int(port)))
    return client


class Beside200FastClients(SharedDaemonTest):
    options = OPTIONS

    def setUp(self):
        self.clients = [Wire(self.daemon) for _ in range(FAST_CLIENTS)]
        for client in self.clients:
            self.addCleanup(client.socket.close)
        self.round()  # what is made at the first use is there

    def round(self):
        """One request of every client at once, all answered in time."""
        began = time.monotonic()
        for number, client in enumerate(self.clients):
            client.send(client.head("GET", f"{ECHO}/inline?n={number}"))
        for number, client in enumerate(self.clients):
            answer = client.answer()
            self.assertEqual((answer.status, answer.data["target"]), (200, f"/inline?n={number}"))
        took = time.monotonic() - began
        self.assertLess(took, SLOWEST_ROUND_S, "held up")

    def memory(self):
        return resident(self.daemon.process.pid) + resident(self.daemon.module("echo")["workers"][0]["pid"])

    def assert_flat(self, before, what):
        if harness.MEASURES_MEMORY:
            self.assertLess(self.memory() - before, MEMORY_BOUND, f"bytes more than before, {what}")

    def test_a_reader_of_100_mib_that_does_not_read_holds_up_nobody_and_gets_all_of_it_in_the_end(self):
        before = self.memory()
        with Wire(self.daemon) as slow:
            slow.socket.close()
            slow.socket = small_buffer(self.daemon)
            slow.send(slow.head("GET", f"{ECHO}/stream?bytes={BIG}&length=1"))
            slow.read_until(b"\r\n\r\n")
            for _ in range(ROUNDS):
                self.round()
                self.assert_flat(before, "while it does not read")
            pattern, got = ALPHABET * (MEGABYTE // len(ALPHABET) + 2), 0
            while got < BIG:
                if not slow.buffer:
                    self.assertTrue(slow.more(), f"closed after {got} bytes")
                piece, slow.buffer = slow.buffer, b""
                at = got % len(ALPHABET)
                self.assertEqual(piece, pattern[at:at + len(piece)])
                if got % (10 * MEGABYTE) + len(piece) >= 10 * MEGABYTE:
                    self.round()
                    self.assert_flat(before, "while it reads")
                got += len(piece)
            self.assertEqual(got, BIG)

    def test_a_module_that_does_not_take_an_upload_of_100_mib_holds_up_its_client_alone(self):
        before, answers, sent = self.memory(), [], [0]
        with Wire(self.daemon, timeout=60 * SLOW) as slow:
            def upload():
                slow.send(slow.head("POST", f"{ECHO}/sip?ms={2000 * SLOW}", f"Content-Length: {BIG}"))
                part = b"x" * MEGABYTE
                while sent[0] < BIG:
                    slow.send(part)
                    sent[0] += len(part)
                answers.append(slow.answer())

            client = threading.Thread(target=upload)
            client.start()
            for _ in range(ROUNDS):
                self.round()
                self.assert_flat(before, "while the module does not read")
            self.assertLess(sent[0], 8 * MEGABYTE, "it is the client that waits")
            client.join(60 * SLOW)
            self.assertEqual([(answer.status, answer.data) for answer in answers], [(200, {"bytes": BIG})])
            self.assert_flat(before, "afterwards")


class Events(SharedDaemonTest):
    options = OPTIONS

    def allow_one_more(self):
        self.assertEqual(self.daemon.post(f"{ECHO}/events").status, 200)

    def test_each_event_is_there_before_the_next_one_is_made(self):
        with Wire(self.daemon) as wire:
            wire.send(wire.head("GET", f"{ECHO}/events?n=20"))
            head = wire.read_until(b"\r\n\r\n").decode().lower()
            self.assertIn("content-type: text/event-stream", head)
            for number in range(20):
                wire.read_until(f"id: {number}\ndata: made\n\n".encode())
                self.allow_one_more()
            self.assertTrue(wire.read_until(b"0\r\n\r\n").endswith(b"\r\n"), "the end of the chunks")

    def streams_cancelled(self):
        return self.daemon.get(f"{ECHO}/cancelled").data["streams"]

    def test_the_module_hears_of_a_client_that_leaves(self):
        before = self.streams_cancelled()
        with Wire(self.daemon) as wire:
            wire.send(wire.head("GET", f"{ECHO}/events?n=2"))
            wire.read_until(b"id: 0\n")
        wait_until(lambda: self.streams_cancelled() == before + 1, "the handler told", 5 * SLOW)

    def test_head_of_a_stream_ends_the_stream_and_leaves_the_connection_usable(self):
        before = self.streams_cancelled()
        with Wire(self.daemon) as wire:
            self.assertEqual(wire.ask("HEAD", f"{ECHO}/events?n=2").status, 200)
            self.assertEqual(wire.ask("GET", f"{ECHO}/echo").status, 200)
        wait_until(lambda: self.streams_cancelled() == before + 1, "the handler told", 5 * SLOW)


class Pipelines(SharedDaemonTest):
    options = OPTIONS

    def test_fifty_requests_in_one_write_are_answered_in_order_behind_a_slow_one(self):
        with Wire(self.daemon) as wire:
            targets = [f"{ECHO}/slow?ms=200"] + [f"{ECHO}/{'inline' if n % 2 else 'echo'}?n={n}" for n in range(49)]
            wire.send(b"".join(wire.head("GET", target) for target in targets))
            answers = [wire.answer() for _ in targets]
        self.assertEqual({answer.status for answer in answers}, {200})
        self.assertEqual([answer.data["target"] for answer in answers[1:]], [target.removeprefix(ECHO) for target in targets[1:]])


class TheWorkerEnds(DaemonTest):
    def answers_of(self, daemon, method, path, *headers, body=b""):
        """What requests are answered that were with the worker when it was killed."""
        pid = daemon.module("echo")["workers"][0]["pid"]
        wires = [Wire(daemon, timeout=30 * SLOW) for _ in range(IN_FLIGHT)]
        try:
            for wire in wires:
                wire.send(wire.head(method, ECHO + path, *headers) + body)
            # Sent behind them: once this is answered, the worker has them all.
            wait_until(lambda: daemon.get(f"{ECHO}/inline").status == 200, "an answer")
            os.kill(pid, signal.SIGKILL)
            return [wire.answer() for wire in wires]
        finally:
            for wire in wires:
                wire.socket.close()

    def test_safe_requests_without_a_byte_of_an_answer_are_asked_again_after_the_restart(self):
        # The route's own timeout, which goes on meanwhile, is for a machine on which a restart takes no time.
        modules = self.temporary_folder()
        capabilities = json.loads((harness.FAKES / "echo" / "manifest.json").read_text())["capabilities"]
        next(route for route in capabilities["api"]["routes"] if route["path"] == "/slow")["timeout"] = 1000 * SLOW
        echo_like(modules, "echo", capabilities=capabilities)
        daemon = self.daemon(**{**OPTIONS, "modules_dir": modules})
        self.assertEqual([answer.status for answer in self.answers_of(daemon, "GET", "/slow?ms=150")], [200] * IN_FLIGHT)

    def test_others_are_told_and_not_asked_twice(self):
        daemon = self.daemon(**OPTIONS)
        for answer in self.answers_of(daemon, "POST", "/sip?ms=60000", "Content-Length: 1", body=b"x"):
            self.assertIn((answer.status, answer.error["code"]), ((502, "BAD_GATEWAY"), (503, "MODULE_UNAVAILABLE")), answer)

    def test_a_client_that_gives_up_while_its_request_waits_for_the_restart_is_forgotten(self):
        daemon = self.daemon(**OPTIONS)
        pid = daemon.module("echo")["workers"][0]["pid"]
        os.kill(pid, signal.SIGKILL)
        for _ in range(IN_FLIGHT):
            with Wire(daemon) as wire:
                wire.send(wire.head("GET", f"{ECHO}/echo"))
        wait_until(lambda: daemon.get(f"{ECHO}/echo").status == 200, "the successor's answer")
        wait_until(lambda: not client_sockets(daemon), "the end of their connections")


if __name__ == "__main__":
    harness.main()
