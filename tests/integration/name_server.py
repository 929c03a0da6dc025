"""A name server of a test's own, on port 53 of a loopback address that nobody else has, and a machine on which it is the only one: a mount namespace with other
/etc/resolv.conf, /etc/hosts and /etc/nsswitch.conf. For root."""

import random
import socket
import struct
import threading

A, AAAA, IN = 1, 28, 1
NO_ERROR, NO_SUCH_NAME = 0, 3


class NameServer:
    """Answers A and AAAA. `names`: {name: [IPv4 address]}; `asked`: the names that it was asked for; `silent`: it answers nothing; `truncates`: answers are
    too long for UDP, so that they must be asked for over TCP (RFC 7766)."""

    def __init__(self, names):
        self.names, self.asked, self.silent, self.truncates = dict(names), [], False, False
        self.socket, self.listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for _ in range(20):
            self.address = f"127.{random.randint(10, 250)}.{random.randint(1, 250)}.{random.randint(1, 250)}"
            try:
                self.socket.bind((self.address, 53))
                self.listener.bind((self.address, 53))
                break
            except OSError:
                continue
        else:
            raise AssertionError("no loopback address has its port 53 free")
        self.listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()
        threading.Thread(target=self._serve_tcp, daemon=True).start()

    def close(self):
        self.socket.close()
        self.listener.close()

    def _serve(self):
        while True:
            try:
                query, client = self.socket.recvfrom(4096)
            except OSError:
                return
            if not self.silent:
                self.socket.sendto(self._answer(query, self.truncates), client)

    def _serve_tcp(self):
        while True:
            try:
                client, _address = self.listener.accept()
            except OSError:
                return
            with client, client.makefile("rb") as queries:
                while length := queries.read(2):
                    answer = self._answer(queries.read(struct.unpack("!H", length)[0]), False)
                    client.sendall(struct.pack("!H", len(answer)) + answer)

    def _answer(self, query, truncated):
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode())
            at += 1 + query[at]
        name, question = ".".join(labels).lower(), query[12:at + 5]
        kind = struct.unpack("!H", query[at + 1:at + 3])[0]
        self.asked.append(name)
        if truncated:
            return query[:2] + struct.pack("!HHHHH", 0x8380, 1, 0, 0, 0) + question
        addresses = self.names.get(name)
        code = NO_SUCH_NAME if addresses is None else NO_ERROR
        records = b"".join(struct.pack("!HHHIH", 0xC00C, A, IN, 0, 4) + socket.inet_aton(one) for one in (addresses or []) if kind == A)
        head = query[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, len(addresses or []) if kind == A else 0, 0, 0)
        return head + question + records


def machine_with(folder, server, hosts=()):
    """A command that runs the one behind it on such a machine; `hosts`: lines of /etc/hosts. The files are written into `folder`."""
    files = {"resolv.conf": f"nameserver {server.address}\noptions timeout:1 attempts:2\n",
             "hosts": "".join(f"{line}\n" for line in ("127.0.0.1 localhost", *hosts)),
             "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n"}
    script = "set -e; mount --make-rprivate /\n"
    for name, text in files.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o644)
        script += f"mount --bind {folder / name} /etc/{name}\n"
    return ["unshare", "--mount", "sh", "-c", script + 'exec "$@"', "sh"]
