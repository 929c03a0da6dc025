"""A real daemon for a test: started on free ports in a fresh data folder, talked to over HTTP, stopped, and searched for
what it left behind. Standard library only.

    class Boot(DaemonTest):
        def test_it_answers(self):
            daemon = self.daemon(modules=["echo"])
            self.assertEqual(daemon.get("/healthz").status, 200)

What a failed test needs to be understood, the end of the daemon's log, is printed with it.
"""

import contextlib
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import own_server
from machine import adopt_orphans, alive, awaited_pids, descendants, describe, free_port, process_table, processes_that_mention, reap_orphans
from machine import read as _read

SOURCE = pathlib.Path(os.environ.get("BULKHEAD_SOURCE") or pathlib.Path(__file__).resolve().parents[2])
BUILD = pathlib.Path(os.environ.get("BULKHEAD_BUILD") or SOURCE / "build")
BINARY = BUILD / "bin" / "bulkhead"
MODULES = BUILD / "modules"            # what the product ships
FAKES = BUILD / "tests" / "modules"    # modules made for tests
IS_ROOT = os.geteuid() == 0

# A sanitizer makes everything several times slower; the limits below are about hanging, not about speed.
SLOW = 4 if "asan" in BUILD.name or "tsan" in BUILD.name else 1
# And keeps what was freed, so that what a process holds says nothing about it.
MEASURES_MEMORY = SLOW == 1
READY_TIMEOUT_S = 60 * SLOW
STOP_TIMEOUT_S = 30 * SLOW        # the product's own promise is 30 s
CONVERGE_TIMEOUT_S = 20 * SLOW
REQUEST_TIMEOUT_S = 70 * SLOW     # a little more than the longest wait that the API grants by default
POLL_S = 0.02
LOG_TAIL_LINES = 80

adopt_orphans()


def wait_until(condition, what, within=CONVERGE_TIMEOUT_S):
    """The first true value of condition(); AssertionError with `what` after `within` seconds."""
    deadline = time.monotonic() + within
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within:.0f} s: {what}")
        time.sleep(POLL_S)


# ---- HTTP ---------------------------------------------------------------------------------------------------------


class Response:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def header(self, name, default=None):
        for key, value in self.headers:
            if key.lower() == name.lower():
                return value
        return default

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def data(self):
        return self.json["data"]

    @property
    def error(self):
        return self.json["error"]

    def __repr__(self):
        return f"HTTP {self.status} {self.body[:600]!r}"


def request(address, method, path, body=None, token=None, headers=None, timeout=REQUEST_TIMEOUT_S):
    """One request on a connection of its own. `body`: bytes as they are, anything else as JSON."""
    host, port = address.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=timeout)
    try:
        sent = {"Authorization": f"Bearer {token}"} if token else {}
        if body is not None and not isinstance(body, (bytes, bytearray)):
            body = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        sent.update(headers or {})
        connection.request(method, path, body=body, headers=sent)
        answer = connection.getresponse()
        return Response(answer.status, answer.getheaders(), answer.read())
    finally:
        connection.close()


# ---- the daemon ---------------------------------------------------------------------------------------------------


class Daemon:
    """One `bulkhead serve`. Every name in `modules` is enabled at its first registration.

    config   more YAML, as text, after what this class writes
    args     further options of serve
    folder   what holds data, configuration and log; kept by the caller when given

    Where the tests are told to use a PostgreSQL server (BULKHEAD_TEST_STORE_URL), its store is a fresh database there, the same one for all
    daemons on this folder; unless the test names a store itself, or is about the private server: private_store=True.
    """

    def __init__(self, modules=(), modules_dir=None, config="", args=(), env=None, folder=None, binary=BINARY, cwd=None,
                 listen=None, admin_listen=None, private_store=False):
        self.owns_folder = folder is None
        self.folder = pathlib.Path(folder or tempfile.mkdtemp(prefix="bh-", dir="/tmp"))
        self.folder.chmod(0o711)  # the modules' own users pass through it
        self.data = self.folder / "data"
        self.log_path = self.folder / "daemon.log"
        self.config_path = self.folder / "bulkhead.yaml"
        self.modules_dir = modules_dir or MODULES
        self.binary, self.cwd, self.private_store = binary, cwd, private_store
        self.pass_fds = ()  # descriptors that it inherits
        self.address = listen or f"127.0.0.1:{free_port()}"
        self.admin_address = admin_listen or f"127.0.0.1:{free_port()}"
        self.extra_args, self.env = list(args), dict(env or {})
        if not self.config_path.exists():
            text = config
            if modules:
                text += "\nmodules:\n" + "".join(f"  {name}:\n    enabled: true\n" for name in modules)
            self.config_path.write_text(text)
        self.process = self._guard_process = None
        self.stdout_lines = []
        self._stdout_changed = threading.Condition()
        self._stdout_ended = False
        self._seen = set()

    # -- starting

    def command(self):
        return [str(self.binary), "serve", "--config", str(self.config_path), "--data", str(self.data),
                "--listen", self.address, "--admin-listen", self.admin_address, "--modules", str(self.modules_dir)] + self.extra_args

    def database(self):
        """Where its state lives, when that is on the server that the tests are told to use; else None."""
        named = ("BULKHEAD_STORE_URL" in self.env or any(argument.startswith("--store-url") for argument in self.extra_args)
                 or re.search(r"(?m)^store:", self.config_path.read_text()))
        return None if named or self.private_store else own_server.database_of(self.folder)

    def launch(self):
        """Starts the process and waits for nothing."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("BULKHEAD_", "FEATURE_FLAG_"))}
        if database := self.database():
            environment["BULKHEAD_STORE_URL"] = database.url()
        environment.update(self.env)
        with self._stdout_changed:
            self.process, self.stdout_lines, self._stdout_ended = None, [], False
        self.started_at = time.monotonic()
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                                            env=environment, cwd=self.cwd, start_new_session=True, pass_fds=self.pass_fds)
        awaited_pids.add(self.process.pid)
        self._guard()
        threading.Thread(target=self._read_stdout, args=(self.process,), daemon=True).start()
        return self

    def _guard(self):
        """Should the test itself be killed, the daemon is told to stop: a shell sees the end of our pipe."""
        self._dismiss_guard()
        self._guard_process = subprocess.Popen(["/bin/sh", "-c", 'read -r dismissed || kill -TERM "$1"', "guard", str(self.process.pid)],
                                               stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        awaited_pids.add(self._guard_process.pid)

    def _dismiss_guard(self):
        if self._guard_process:
            with contextlib.suppress(OSError):
                self._guard_process.communicate(b"dismissed\n")
            awaited_pids.discard(self._guard_process.pid)
            self._guard_process = None

    def start(self, within=READY_TIMEOUT_S):
        """Starts it and waits for the line that says ready; fails with the log when it ends instead."""
        self.launch()
        try:
            self.wait_ready(within)
        except AssertionError as error:
            if "Address already in use" not in str(error):
                raise
            # A test beside this one has taken the port since it was chosen.
            self.address, self.admin_address = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
            self.launch()
            self.wait_ready(within)
        return self

    def wait_ready(self, within=READY_TIMEOUT_S):
        deadline = time.monotonic() + within
        with self._stdout_changed:
            while not self.ready_line():
                left = deadline - time.monotonic()
                if self._stdout_ended or left <= 0:
                    how = f"it ended with {self.process.wait(5)}" if self._stdout_ended else f"nothing within {within:.0f} s"
                    raise AssertionError(f"the daemon did not become ready: {how}\n{self.log_tail()}")
                self._stdout_changed.wait(left)
        self.ready_after_s = time.monotonic() - self.started_at

    def ready_line(self):
        return next((line for line in self.stdout_lines if line.startswith("bulkhead ready ")), None)

    def _read_stdout(self, process):
        for raw in process.stdout:
            with self._stdout_changed:
                if self.process is process:  # not of an earlier start
                    self.stdout_lines.append(raw.decode("utf-8", "replace").rstrip("\n"))
                    self._stdout_changed.notify_all()
        process.stdout.close()
        with self._stdout_changed:
            if self.process is process:
                self._stdout_ended = True
                self._stdout_changed.notify_all()

    # -- talking

    @property
    def url(self):
        return f"http://{self.address}"

    @property
    def token(self):
        return (self.data / "admin.token").read_text().strip()

    def request(self, method, path, body=None, token=..., headers=None, timeout=REQUEST_TIMEOUT_S):
        """As the administrator; token=None for nobody, or another secret."""
        return request(self.address, method, path, body, self.token if token is ... else token, headers, timeout)

    def get(self, path, **options):
        return self.request("GET", path, **options)

    def post(self, path, body=None, **options):
        return self.request("POST", path, body, **options)

    def put(self, path, body=None, **options):
        return self.request("PUT", path, body, **options)

    def delete(self, path, **options):
        return self.request("DELETE", path, **options)

    def module(self, name):
        answer = self.get(f"/api/v1/modules/{name}")
        if answer.status != 200:
            raise AssertionError(f"GET of module {name}: {answer}")
        return answer.data

    def wait_observed(self, name, *states, within=CONVERGE_TIMEOUT_S):
        last = {}

        def reached():
            last.update(self.module(name))
            return last["observed"]["state"] in states

        try:
            wait_until(reached, f"{name} observed as {' or '.join(states)}", within)
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {json.dumps(last.get('observed'))}, exits {json.dumps(last.get('exits'))}") from None
        return last

    def make_token(self, name, *permissions):
        answer = self.post("/api/v1/tokens", {"name": name, "permissions": list(permissions)})
        if answer.status != 201:
            raise AssertionError(f"making the token {name}: {answer}")
        return answer.data["secret"]

    def sql(self, statement):
        """Rows, as lists of texts, that its PostgreSQL answers to a superuser."""
        if database := self.database():
            return [line.split("|") for line in own_server.ask(database.url(), statement).splitlines()]
        password = _read(self.data / "secrets" / "postgres.password").decode().strip()  # none as root, who is known by the socket
        done = subprocess.run(["psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", statement,
                               f"host={self.data}/run/pg user=bulkhead dbname=bulkhead"],
                              env={**os.environ, "PGPASSWORD": password}, capture_output=True, text=True)
        if done.returncode != 0:
            raise AssertionError(f"{statement}: {done.stderr}")
        return [line.split("|") for line in done.stdout.splitlines()]

    def connect(self, timeout=10):
        """A raw connection to the gateway."""
        host, port = self.address.rsplit(":", 1)
        return socket.create_connection((host, int(port)), timeout)

    # -- ending

    def running(self):
        return self.process is not None and self.process.poll() is None

    def remember_processes(self):
        """Notes what runs below the daemon now; leftovers() looks for it later."""
        if self.running():
            self._seen |= descendants(self.process.pid)
        return self._seen

    def send_signal(self, number):
        self.remember_processes()
        self.process.send_signal(number)

    def wait_exit(self, within=STOP_TIMEOUT_S):
        try:
            code = self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the daemon did not end within {within} s\n{self.log_tail()}") from None
        awaited_pids.discard(self.process.pid)
        self._dismiss_guard()
        return code

    def stop(self, number=signal.SIGTERM, within=STOP_TIMEOUT_S):
        """Asks it to end; answers (exit code, seconds it took)."""
        began = time.monotonic()
        self.send_signal(number)
        code = self.wait_exit(within)
        return code, time.monotonic() - began

    def kill(self):
        self.send_signal(signal.SIGKILL)
        self.wait_exit()

    def leftovers(self):
        reap_orphans()
        return {p for p in self._seen if alive(p)} | processes_that_mention(self.folder)

    def assert_nothing_left(self, within=5 * SLOW):
        try:
            wait_until(lambda: not self.leftovers(), "nothing left running", within)
        except AssertionError:
            left = "\n  ".join(describe(p) for p in sorted(self.leftovers()))
            raise AssertionError(f"{within} s after the daemon's end these still run:\n  {left}\n{self.log_tail()}") from None

    def clean_up(self):
        """Ends what a failed test left, each process by its pid, and removes the folder."""
        if self.running():
            try:
                self.stop()
            except AssertionError:
                self.process.kill()
                self.process.wait()
        self._dismiss_guard()
        deadline = time.monotonic() + 5
        while self.leftovers() and time.monotonic() < deadline:
            time.sleep(POLL_S)
        for process in self.leftovers():
            if alive(process):
                with contextlib.suppress(OSError):
                    os.kill(process[0], signal.SIGKILL)
        reap_orphans()
        if self.owns_folder:
            own_server.drop_database_of(self.folder)
            shutil.rmtree(self.folder, ignore_errors=True)

    # -- explaining

    def log(self):
        return _read(self.log_path).decode("utf-8", "replace")

    def log_tail(self):
        lines = self.stdout_lines[-10:] + ["-- stderr:"] + self.log().splitlines()[-LOG_TAIL_LINES:]
        return f"-- output of {' '.join(self.command())}:\n" + "\n".join(lines)


def run_serve(*args, env=None, cwd=None, within=READY_TIMEOUT_S, binary=BINARY):
    """Runs `bulkhead …` to its end, for what must fail: (exit code, stdout, stderr)."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("BULKHEAD_", "FEATURE_FLAG_"))}
    environment.update(env or {})
    done = subprocess.run([str(binary), *map(str, args)], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                          env=environment, cwd=cwd, timeout=within, start_new_session=True)
    return done.returncode, done.stdout, done.stderr


# ---- test cases ---------------------------------------------------------------------------------------------------


class _Explained(unittest.TestCase):
    """Prints the daemon's log when a test fails."""

    longMessage = True

    def daemons_to_explain(self):
        return []

    def run(self, result=None):
        before = len(result.failures) + len(result.errors) if result else 0
        super().run(result)
        if result and len(result.failures) + len(result.errors) > before:
            for daemon in self.daemons_to_explain():
                print(daemon.log_tail(), file=sys.stderr, flush=True)
        self.after_explaining()
        return result

    def after_explaining(self):
        pass

    def assertError(self, answer, status, code):
        """One error in the one shape that every error has."""
        self.assertEqual(answer.status, status, answer)
        self.assertIs(answer.json["success"], False, answer)
        self.assertEqual(set(answer.json), {"success", "error"}, answer)
        self.assertEqual(set(answer.error), {"code", "message", "details", "requestId"}, answer)
        self.assertEqual(answer.error["code"], code, answer)
        self.assertTrue(answer.error["message"], answer)
        self.assertIsInstance(answer.error["details"], list)
        self.assertTrue(answer.error["requestId"], answer)


class DaemonTest(_Explained):
    """Each test makes the daemons that it needs."""

    private_store = False  # True where the private PostgreSQL is what the tests are about

    def setUp(self):
        self._daemons, self._folders = [], []

    def daemon(self, start=True, **options):
        daemon = Daemon(**{"private_store": self.private_store, **options})
        self._daemons.append(daemon)
        return daemon.start() if start else daemon

    def temporary_folder(self, mode=0o711):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="bh-", dir="/tmp"))
        folder.chmod(mode)
        self._folders.append(folder)
        return folder

    def daemons_to_explain(self):
        return self._daemons

    def after_explaining(self):
        for daemon in reversed(getattr(self, "_daemons", [])):
            daemon.clean_up()
        for folder in getattr(self, "_folders", []):
            with contextlib.suppress(OSError):
                folder.chmod(0o700)  # a test that closes one is not always root
            shutil.rmtree(folder, ignore_errors=True)


class SharedDaemonTest(_Explained):
    """One daemon for all tests of the class: `options` are those of Daemon."""

    options = {}

    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(**cls.options)
        try:
            cls.daemon.start()
        except BaseException:
            cls.daemon.clean_up()
            raise

    @classmethod
    def tearDownClass(cls):
        try:
            code, _took = cls.daemon.stop()
            if code != 0:
                raise AssertionError(f"the daemon ended with {code}\n{cls.daemon.log_tail()}")
            cls.daemon.assert_nothing_left()
        finally:
            cls.daemon.clean_up()

    def daemons_to_explain(self):
        return [self.daemon]


# ---- modules made on the spot -------------------------------------------------------------------------------------


def write_module(modules_dir, name, manifest=None, entry=None, mode=0o755, text=None):
    """A module folder with a manifest (a dict, or `text` as it is) and, when `entry` is given, that script as bin/<name>."""
    folder = pathlib.Path(modules_dir) / name
    (folder / "bin").mkdir(parents=True)
    if text is None:
        text = json.dumps({"manifestVersion": 1, "name": name, "version": "1.0.0", "displayName": name, "description": "made by a test",
                           "author": "tests", **(manifest or {})})
    (folder / "manifest.json").write_text(text)
    if entry is not None:
        (folder / "bin" / name).write_text(entry)
        (folder / "bin" / name).chmod(mode)
    for path in (pathlib.Path(modules_dir), folder, folder / "bin"):
        path.chmod(0o755)
    return folder


def copies(source, names, modules_dir, **manifest):
    """Modules of these names, made of the one in the folder `source`, with these fields of its manifest changed; answers the names."""
    document = json.loads((source / "manifest.json").read_text())
    for name in names:
        folder = pathlib.Path(modules_dir) / name
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns("bin"))
        (folder / "bin").mkdir()
        shutil.copy(source / "bin" / document["name"], folder / "bin" / name)
        (folder / "manifest.json").write_text(json.dumps({**document, "name": name, **manifest}))
        for path in (pathlib.Path(modules_dir), folder, folder / "bin", folder / "bin" / name):
            path.chmod(0o755)
    return names


class _Result(unittest.TextTestResult):
    """Leaves a line about each skipped test where tests/skips.py looks for it."""

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        if folder := os.environ.get("BULKHEAD_SKIPS"):
            with open(pathlib.Path(folder) / pathlib.Path(sys.argv[0]).stem, "a") as file:
                file.write(f"{pathlib.Path(sys.argv[0]).stem} {test.id().removeprefix('__main__.')}: {reason}\n")


class _Runner(unittest.TextTestRunner):
    resultclass = _Result


def main():
    if not BINARY.exists():
        sys.exit(f"{BINARY} does not exist: build it first (sh tests/run.sh)")
    unittest.main(testRunner=_Runner, verbosity=2)
