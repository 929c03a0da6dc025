"""A redis-server of the test's own on a free port of the loopback, with a password; it keeps nothing over a kill unless it is told to."""

import contextlib
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from machine import awaited_pids, free_port

START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 10
POLL_S = 0.02
PASSWORD = "not-for-logs"


class Redis:
    def __init__(self, keeps=False):
        self.keeps, self.port = keeps, free_port()
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="bh-redis-", dir="/tmp"))
        self.process = None
        self.start()

    def options(self, part="events"):
        """Of harness.Daemon: events, or the cache, go through this Redis."""
        return {"env": {f"BULKHEAD_{part.upper()}_ENGINE": "redis", f"BULKHEAD_{part.upper()}_REDIS": f"redis://:{PASSWORD}@127.0.0.1:{self.port}"}}

    def start(self):
        program = shutil.which("redis-server")
        if not program:
            raise AssertionError("there is no redis-server: sh deploy/packages.sh installs it")
        self.process = subprocess.Popen([program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", "",
                                         "--requirepass", PASSWORD, "--appendonly", "yes" if self.keeps else "no", "--logfile", str(self.folder / "log")],
                                        stdin=subprocess.DEVNULL)
        awaited_pids.add(self.process.pid)
        end = time.monotonic() + START_TIMEOUT_S
        while self.cli("ping") != "PONG":
            if time.monotonic() > end or self.process.poll() is not None:
                raise AssertionError(f"Redis did not start: {(self.folder / 'log').read_text()}")
            time.sleep(POLL_S)

    def kill(self):
        """kill -9."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(STOP_TIMEOUT_S)

    def hang(self):
        """It takes connections, and says nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def cli(self, *words):
        """The answer to one command without spaces in it, as a line; nothing when Redis is away."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=STOP_TIMEOUT_S) as connection:
                connection.sendall(f"AUTH {PASSWORD}\r\n{' '.join(words)}\r\n".encode())
                lines = connection.makefile("rb")
                lines.readline()
                return lines.readline().decode().strip().lstrip("+:")
        except OSError:
            return ""

    def end(self):
        with contextlib.suppress(ProcessLookupError):
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class ByRedis:
    """Before a class of tests that start daemons with `options`: the same once more with a Redis."""

    part = "events"  # of the configuration

    @classmethod
    def setUpClass(cls):
        cls.redis = Redis()
        cls.options = {**cls.options, **cls.redis.options(cls.part)}
        try:
            super().setUpClass()
        except BaseException:
            cls.redis.end()
            raise

    @classmethod
    def tearDownClass(cls):
        try:
            super().tearDownClass()
        finally:
            cls.redis.end()
