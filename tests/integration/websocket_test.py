"""WebSockets (RFC 6455) through the real gateway to a real module, byte by byte."""

import base64
import hashlib
import os
import signal
import struct
import threading

import harness
from harness import SLOW, DaemonTest, SharedDaemonTest, wait_until
from http_test import ECHO, OPTIONS, Wire, client_sockets

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 1.3
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
SOCKETS = 200


class WebSocket(Wire):
    """A client: handshake, masked frames out, frames in."""

    def shake_hands(self, path=f"{ECHO}/ws", token=..., *headers):
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"GET {path} HTTP/1.1", f"Host: {self.daemon.address}", "Connection: Upgrade", "Upgrade: websocket", f"Sec-WebSocket-Key: {key}",
                 "Sec-WebSocket-Version: 13", *headers]
        if token:
            lines.append(f"Authorization: Bearer {self.daemon.token if token is ... else token}")
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode())
        head = self.read_until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        self.headers = {name.strip().lower(): value.strip() for name, value in (line.split(":", 1) for line in head[1:])}
        self.expected = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()
        return int(head[0].split(" ")[1])

    def open(self, **options):
        status = self.shake_hands(**options)
        assert status == 101, status
        return self

    def frame(self, opcode, payload=b"", end=True, mask=True, sent=None):
        """Sends it, or its first `sent` bytes."""
        length = len(payload)
        size = bytes([length]) if length < 126 else b"\x7e" + struct.pack(">H", length) if length < 65536 else b"\x7f" + struct.pack(">Q", length)
        head = bytes([opcode | (0x80 if end else 0), size[0] | (0x80 if mask else 0)]) + size[1:]
        if mask:
            key = os.urandom(4)
            pad = (key * (length // 4 + 1))[:length]
            payload = (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(length, "big")
            head += key
        return self.send((head + payload)[:sent])

    def receive(self, whole=True):
        """(opcode, payload) of the next frame; of a message that may come in several, (…, whether it was the last)."""
        first, second = self.read_exactly(2)
        assert not first & 0x70 and not second & 0x80, (first, second)
        length = second & 0x7f
        if length == 126:
            length = struct.unpack(">H", self.read_exactly(2))[0]
        elif length == 127:
            length = struct.unpack(">Q", self.read_exactly(8))[0]
        last = bool(first & 0x80)
        assert last or not whole
        return (first & 0x0f, self.read_exactly(length)) + (() if whole else (last,))

    def message(self):
        """(opcode, payload) of the next message, put together from its frames."""
        kind, payload, last = self.receive(whole=False)
        while not last:
            _continuation, more, last = self.receive(whole=False)
            payload += more
        return kind, payload

    def close_code(self):
        """(code, reason) of the Close that comes, behind whatever comes before it."""
        while True:
            opcode, payload = self.receive()
            if opcode == CLOSE:
                return struct.unpack(">H", payload[:2])[0], payload[2:].decode()


class Sockets(SharedDaemonTest):
    options = OPTIONS

    def test_the_handshake_is_as_the_rfc_wants_it(self):
        with WebSocket(self.daemon) as client:
            self.assertEqual(client.shake_hands(), 101)
            self.assertEqual((client.headers["upgrade"], client.headers["connection"].lower()), ("websocket", "upgrade"))
            self.assertEqual(client.headers["sec-websocket-accept"], client.expected)
            self.assertTrue(client.headers["x-request-id"])

    def test_who_may_not_is_refused_before_any_upgrade(self):
        with WebSocket(self.daemon) as client:
            self.assertEqual(client.shake_hands(token=None), 401)
        with WebSocket(self.daemon) as client:
            self.assertEqual(client.shake_hands(path=f"{ECHO}/special"), 200, "a route without sockets answers as if nobody had asked")

    def test_messages_of_every_size_of_length_field_come_back(self):
        with WebSocket(self.daemon).open() as client:
            for size in (0, 1, 125, 126, 127, 65535, 65536, 1 << 20):
                with self.subTest(size):
                    self.assertEqual(client.frame(BINARY, bytes(range(256)) * (size // 256) + bytes(size % 256)).message(),
                                     (BINARY, bytes(range(256)) * (size // 256) + bytes(size % 256)))
                    self.assertEqual(client.frame(TEXT, b"a" * size).message(), (TEXT, b"a" * size))

    def test_a_message_in_pieces_is_one_message_and_a_ping_between_them_is_answered(self):
        with WebSocket(self.daemon).open() as client:
            client.frame(TEXT, "grü".encode()[:-1], end=False).frame(PING, b"still there?").frame(CONTINUATION, "ü".encode()[1:] + b"ne", end=True)
            self.assertEqual(client.receive(), (PONG, b"still there?"))
            self.assertEqual(client.message(), (TEXT, "grüne".encode()))

    def test_close_is_answered_with_its_code_and_ends_the_connection(self):
        with WebSocket(self.daemon).open() as client:
            client.frame(CLOSE, struct.pack(">H", 1000) + b"bye")
            self.assertEqual(client.close_code()[0], 1000)
            self.assertTrue(client.closed())
        with WebSocket(self.daemon).open() as client:
            self.assertEqual(client.frame(TEXT, b"close 4001 enough").close_code(), (4001, "enough"))
            client.frame(CLOSE, struct.pack(">H", 4001))
            self.assertTrue(client.closed())

    def test_what_the_rfc_forbids_ends_the_socket_with_its_code(self):
        cases = {"unmasked": ((TEXT, b"x", True, False), 1002), "unknown opcode": ((3, b"x"), 1002), "a long ping": ((PING, b"x" * 126), 1002),
                 "a continuation of nothing": ((CONTINUATION, b"x"), 1002), "text that is not UTF-8": ((TEXT, b"\xff\xfe"), 1007),
                 "too long, as its head says": ((BINARY, b"x" * ((1 << 20) + 1), True, True, 1000), 1009)}
        for what, (frame, code) in cases.items():
            with self.subTest(what), WebSocket(self.daemon).open() as client:
                self.assertEqual(client.frame(*frame).close_code()[0], code)
                client.frame(CLOSE, struct.pack(">H", code))
                self.assertTrue(client.closed())

    def test_two_hundred_sockets_echo_while_other_requests_are_served(self):
        clients = [WebSocket(self.daemon) for _ in range(SOCKETS)]
        try:
            for client in clients:
                client.open()
            for turn in range(3):
                for number, client in enumerate(clients):
                    client.frame(TEXT, f"{turn} {number}".encode())
                self.assertEqual(self.daemon.get(f"{ECHO}/inline").status, 200)
                for number, client in enumerate(clients):
                    self.assertEqual(client.message(), (TEXT, f"{turn} {number}".encode()))
        finally:
            for client in clients:
                client.socket.close()

    def test_clients_that_vanish_leave_nothing(self):
        for _ in range(20):
            client = WebSocket(self.daemon).open().frame(TEXT, b"hello")
            client.socket.setsockopt(harness.socket.SOL_SOCKET, harness.socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.socket.close()  # a reset
        wait_until(lambda: not client_sockets(self.daemon), "no socket of a client", 10 * SLOW)


class TheModuleGoes(DaemonTest):
    def test_a_disable_closes_the_sockets_as_going_away_and_does_not_wait_for_them(self):
        daemon = self.daemon(**OPTIONS)
        clients = [WebSocket(daemon).open() for _ in range(10)]
        codes, lock = [], threading.Lock()

        def listen(client):
            code, _reason = client.close_code()
            client.frame(CLOSE, struct.pack(">H", code))
            with lock:
                codes.append((code, client.closed()))

        listeners = [threading.Thread(target=listen, args=(client,)) for client in clients]
        for listener in listeners:
            listener.start()
        self.assertEqual(daemon.post("/api/v1/modules/echo/disable").status, 200)
        for listener in listeners:
            listener.join(10 * SLOW)
        self.assertEqual(codes, [(1001, True)] * len(clients))
        with WebSocket(daemon) as client:
            self.assertEqual(client.shake_hands(), 404)
        for client in clients:
            client.socket.close()

    def test_a_crash_ends_the_sockets_and_the_next_handshake_reaches_the_successor(self):
        daemon = self.daemon(**OPTIONS)
        with WebSocket(daemon).open() as client:
            os.kill(daemon.module("echo")["workers"][0]["pid"], signal.SIGKILL)
            self.assertTrue(client.closed())
        with WebSocket(daemon).open() as client:
            self.assertEqual(client.frame(TEXT, b"again").message(), (TEXT, b"again"))


if __name__ == "__main__":
    harness.main()
