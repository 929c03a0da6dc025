"""Daemons with a healthy module under load and others that misbehave (tests/fakes/misbehaving), and what such a daemon and its spawner
hold at a moment: descriptors, memory, processes, folders, cgroups. For misbehaving_test.py."""

import collections
import contextlib
import http.client
import json
import os
import pathlib
import re
import shutil
import socket
import sys
import tempfile
import threading
import time

import harness
from harness import SLOW, SharedDaemonTest, wait_until

PROGRAM = harness.BUILD / "tests" / "misbehaving"
STEADY = "steady"                     # the healthy one
LOAD_CONNECTIONS = 4
LOAD_PAUSE_S = 0.02
LOAD_SLOWEST_S = 2 * SLOW             # an answer of the healthy module; usual are a few ms
QUIET_S = 0.3 * SLOW                  # without a change: what was under way has ended
QUIET_LOOKS = 6
DAEMON_POOL_THREADS = 6               # kPoolThreads of supervisor/daemon.cc: each holds one database connection at most
GONE_WITHIN_S = 10 * SLOW
ROUTE_TIMEOUT_MS = 500 * SLOW         # after which a request that is never answered is a 504
LATE_TIMEOUT_MS = 300 * SLOW
HELD_TIMEOUT_MS = 100_000 * SLOW      # longer than the gateway waits for the answer to a PING
SILENCE_S = 0.3 * SLOW                # after an answer: nothing more is coming
BODY_LIMIT = 4 * 1024 * 1024
# What repeating a case may cost the daemon and the spawner together: pages that the allocator keeps, not data that is kept.
MEMORY_BOUND_KB = 2 * 1024


def write_misbehaving(modules_dir, name, mode, manifest):
    """A module folder whose program does `mode`. The program is one file under many names."""
    routes = [{"method": "GET", "path": "/*", "timeout": ROUTE_TIMEOUT_MS}, {"method": "GET", "path": "/late", "timeout": LATE_TIMEOUT_MS},
              {"method": "POST", "path": "/hold", "timeout": HELD_TIMEOUT_MS}, {"method": "POST", "path": "/block", "timeout": HELD_TIMEOUT_MS},
              {"method": "POST", "path": "/upload", "timeout": ROUTE_TIMEOUT_MS, "bodyLimit": BODY_LIMIT}]
    folder = harness.write_module(modules_dir, name, {"args": [mode], "capabilities": {"api": {"routes": routes}}, **manifest})
    program = pathlib.Path(modules_dir) / ".program"
    if not program.exists():
        shutil.copy(PROGRAM, program)
        program.chmod(0o755)
    os.link(program, folder / "bin" / name)


def write_steady(modules_dir):
    """The healthy module, echo under another name."""
    folder = pathlib.Path(modules_dir) / STEADY
    (folder / "bin").mkdir(parents=True)
    shutil.copy(harness.FAKES / "echo" / "bin" / "echo", folder / "bin" / STEADY)
    manifest = json.loads((harness.FAKES / "echo" / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "name": STEADY}))
    for path in (folder, folder / "bin", folder / "bin" / STEADY):
        path.chmod(0o755)


class SteadyLoad:
    """A small load on the healthy module, over connections that stay open, until the end. Keeps what went wrong and how slow it was."""

    def __init__(self, daemon):
        self.failures, self.answered, self.slowest_s = [], 0, 0.0
        self._address, self._headers = daemon.address, {"Authorization": f"Bearer {daemon.token}"}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        connections = [http.client.HTTPConnection(*self._address.rsplit(":", 1), timeout=10 * SLOW) for _ in range(LOAD_CONNECTIONS)]
        while not self._done.is_set():
            for number, connection in enumerate(connections):
                began = time.monotonic()
                try:
                    connection.request("GET", f"/api/v1/m/{STEADY}/inline?n={number}", headers=self._headers)
                    answer = connection.getresponse()
                    answer.read()
                    if answer.status != 200:
                        self.failures.append(f"HTTP {answer.status}")
                except (OSError, http.client.HTTPException) as error:
                    self.failures.append(repr(error))
                    connection.close()
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)
                self.answered += 1
            self._done.wait(LOAD_PAUSE_S)
        for connection in connections:
            connection.close()

    def stop(self):
        self._done.set()
        self._thread.join()


# ---- what a daemon holds ------------------------------------------------------------------------------------------


def spawner_of(daemon):
    table = harness.process_table()
    return next(pid for pid, (parent, _started, _state, name) in table.items() if parent == daemon.process.pid and name == "bulkhead-spawn")


def descriptors(pid):
    """What its descriptors are, without their numbers, and how many of each. A module's log is one for each module that has ever printed."""
    kinds = collections.Counter()
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):  # closed meanwhile
            target = os.readlink(f"/proc/{pid}/fd/{number}")
            if "/data/logs/" not in target:
                kinds[re.sub(r"\d+", "N", target)] += 1
    return kinds


def own_memory_kb(pid):
    """Without what it shares with files: the share of a program's text changes whenever another daemon starts or ends beside this one."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss_Anon:"))


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def processes_of(daemon, name):
    """Everything that runs the module's program, whoever its parent is by now. In a changed root the path of a process with mounts of its own
    is the one outside, so it only has to hold ours."""
    program, found = os.fsencode(str(daemon.data / "versions" / name)) + b"/", set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if os.fsencode(os.readlink(f"/proc/{entry}/exe")).find(program) >= 0:
                    found.add(int(entry))
    return found


def zombies_of(pid):
    return [child for child, (parent, _started, state, _name) in harness.process_table().items() if parent == pid and state == "Z"]


def cgroups_of(spawner):
    """The cgroups of all children that this spawner knows."""
    found = set()
    for folder, folders, _files in os.walk("/sys/fs/cgroup"):
        if folder.endswith(f".{spawner}"):
            found |= {f"{folder}/{name}" for name in folders}
    return found


class Held:
    """What the daemon and its spawner hold at one moment."""

    def __init__(self, daemon):
        spawner = spawner_of(daemon)
        self.descriptors = {"daemon": descriptors(daemon.process.pid), "spawner": descriptors(spawner)}
        self.memory_kb = own_memory_kb(daemon.process.pid) + own_memory_kb(spawner)
        self.instances = sorted(os.listdir(daemon.data / "run" / "w"))
        self.cgroups = cgroups_of(spawner)
        self.zombies = zombies_of(daemon.process.pid) + zombies_of(spawner)

    def more_than(self, before):
        """What it holds that it did not hold before, but for memory; empty when nothing."""
        more = {}
        for who, now in self.descriptors.items():
            if now != before.descriptors[who]:
                more[who] = {"more descriptors": list((now - before.descriptors[who]).elements()),
                             "fewer descriptors": list((before.descriptors[who] - now).elements())}
        if self.instances != before.instances:
            more["run/w"] = (before.instances, self.instances)
        if self.cgroups != before.cgroups:
            more["cgroups"] = sorted(self.cgroups - before.cgroups)
        if self.zombies:
            more["zombies"] = self.zombies
        return more


def open_all_pools(daemon):
    """Database connections and threads are made when first needed: all that ever will be are needed now, while a lock holds up each of them."""
    def locks(which):
        of_table = "relation = 'bulkhead_internal.api_tokens'::regclass"
        return int(daemon.sql(f"SELECT count(*) FROM pg_locks WHERE {of_table} AND {which}")[0][0])

    lock = threading.Thread(target=daemon.sql, args=(f"LOCK TABLE bulkhead_internal.api_tokens IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep({3 * SLOW})",))
    readers = [threading.Thread(target=daemon.get, args=("/api/v1/tokens",)) for _ in range(24)]
    lock.start()
    wait_until(lambda: locks("granted AND mode = 'AccessExclusiveLock'") == 1, "the table is locked")
    for reader in readers:
        reader.start()
    wait_until(lambda: locks("NOT granted") >= DAEMON_POOL_THREADS, "every thread of the pool waits for the database", 3 * SLOW)
    for thread in (lock, *readers):
        thread.join()


def syncing(daemon):
    """Whether its fresh cluster is still on its way to the disk."""
    table = harness.process_table()
    return any(table.get(pid, ("", "", "", ""))[3] == "initdb" for pid, _started in harness.descendants(daemon.process.pid))


def held_when_quiet(daemon):
    """What it holds once nothing has changed for a while: what the last request, process and folder left is closed, and a fresh cluster is synced."""
    wait_until(lambda: not syncing(daemon), "the end of initdb --sync-only", 60 * SLOW)
    looks = []

    def same_again():
        now = Held(daemon)
        if looks and now.more_than(looks[-1]):
            looks.clear()
        looks.append(now)
        time.sleep(QUIET_S / QUIET_LOOKS)
        return len(looks) > QUIET_LOOKS

    wait_until(same_again, "a quiet daemon", GONE_WITHIN_S)
    return looks[-1]


def raw_exchange(daemon, module, path, method="GET", body=b"", read_after_s=0.0, within=30 * SLOW):
    """One request on a connection of its own that stays open: the bytes that came until its end, or until it has been silent for a while."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    client.settimeout(within)
    host, port = daemon.address.rsplit(":", 1)
    client.connect((host, int(port)))
    head = (f"{method} /api/v1/m/{module}{path} HTTP/1.1\r\nhost: {daemon.address}\r\nauthorization: Bearer {daemon.token}\r\n"
            + (f"content-length: {len(body)}\r\n" if body else "") + "\r\n")

    def send():
        with contextlib.suppress(OSError):  # refused in the middle, which the answer tells
            client.sendall(head.encode() + body)

    sender = threading.Thread(target=send)
    sender.start()
    time.sleep(read_after_s)
    came = b""
    try:
        with contextlib.suppress(ConnectionResetError, TimeoutError):
            while piece := client.recv(256 * 1024):
                came += piece
                client.settimeout(SILENCE_S)
    finally:
        client.close()
        sender.join()
    return came


# ---- the cases ----------------------------------------------------------------------------------------------------


class BesideAHealthyModule(SharedDaemonTest):
    """One daemon with the modules of the class, none of them enabled, and the healthy one under its load, which no test may disturb."""

    modules = {}  # name: (mode of the program, manifest)

    @classmethod
    def setUpClass(cls):
        cls.modules_dir = pathlib.Path(tempfile.mkdtemp(prefix="bh-", dir="/tmp"))
        try:
            harness.copies(harness.FAKES / "echo", [STEADY], cls.modules_dir)
            for name, (mode, manifest) in cls.modules.items():
                write_misbehaving(cls.modules_dir, name, mode, manifest)
            cls.options = {"modules": [STEADY], "modules_dir": cls.modules_dir}
            super().setUpClass()
        except BaseException:
            shutil.rmtree(cls.modules_dir, ignore_errors=True)
            raise
        cls.growth_kb = {}
        open_all_pools(cls.daemon)
        cls.load = SteadyLoad(cls.daemon)
        wait_until(lambda: cls.load.answered > 10 * LOAD_CONNECTIONS, "the first answers of the healthy module")

    @classmethod
    def tearDownClass(cls):
        cls.load.stop()
        if cls.growth_kb:
            print(f"KiB by which daemon and spawner grew, per case run again: {cls.growth_kb}", file=sys.stderr, flush=True)
        try:
            super().tearDownClass()
        finally:
            shutil.rmtree(cls.modules_dir, ignore_errors=True)

    def setUp(self):
        self.failures_before, self.answered_before = len(self.load.failures), self.load.answered
        self.load.slowest_s = 0.0
        self.addCleanup(self.assert_the_others_served_on)

    def assert_the_others_served_on(self):
        self.assertEqual(self.load.failures[self.failures_before:], [], "the healthy module beside it had errors")
        wait_until(lambda: self.load.answered > self.answered_before + LOAD_CONNECTIONS, "answers of the healthy module", LOAD_SLOWEST_S)
        self.assertLess(self.load.slowest_s, LOAD_SLOWEST_S, "the healthy module beside it was held up")

    def enable(self, name, status=200):
        answer = self.daemon.post(f"/api/v1/modules/{name}/enable?wait=30s")
        self.assertEqual(answer.status, status, answer)
        return answer

    def disable(self, name):
        answer = self.daemon.post(f"/api/v1/modules/{name}/disable?wait=30s")
        self.assertEqual(answer.status, 200, answer)
        return answer.data

    def ask(self, name, path, **options):
        return self.daemon.get(f"/api/v1/m/{name}{path}", **options)

    def assert_status(self, module, cause, sentence, code=None):
        """The newest exit's cause and sentence, and the reason of the state that the module was seen in; `code` where that is finer than the
        cause."""
        self.assertEqual(module["exits"][0]["cause"], cause, module["exits"][0])
        self.assertRegex(module["exits"][0]["message"], sentence)
        self.assertEqual(module["observed"]["reason"]["code"], code or cause, module["observed"])
        self.assertRegex(module["observed"]["reason"]["message"], sentence)

    @classmethod
    def wait_gone(cls, names):
        running = {name: processes_of(cls.daemon, name) for name in names}
        wait_until(lambda: not any(processes_of(cls.daemon, name) for name in names), f"the end of the processes {running}", GONE_WITHIN_S)

    def assert_nothing_held(self, names, before, after_what):
        """That daemon and spawner hold what they held before; answers by how many KiB they have grown."""
        self.wait_gone(names)
        deadline = time.monotonic() + GONE_WITHIN_S
        while (more := Held(self.daemon).more_than(before)) and time.monotonic() < deadline:
            time.sleep(harness.POLL_S)
        self.assertEqual(more, {}, f"left after {after_what}: {more}")
        return Held(self.daemon).memory_kb - before.memory_kb

    def several_times(self, names, once, runs=3):
        """once() and again: what the first time opened for good (pools, caches, threads) is no leak, what each further time adds is one."""
        names = [names] if isinstance(names, str) else list(names)

        def grown_after_runs(before):
            for _ in range(runs):
                once()
            return self.assert_nothing_held(names, before, f"{runs} runs")

        once()
        self.wait_gone(names)
        grown = grown_after_runs(self.held_when_quiet())
        self.growth_kb[" ".join(names)] = grown
        if harness.MEASURES_MEMORY and grown >= MEMORY_BOUND_KB:
            # What the allocator keeps of a first peak is not asked for again; a leak grows each time.
            again = grown_after_runs(self.held_when_quiet())
            self.assertLess(again, MEMORY_BOUND_KB, f"KiB that daemon and spawner have grown by in {runs} runs, after {grown} in as many before")

    @classmethod
    def held_when_quiet(cls):
        return held_when_quiet(cls.daemon)
