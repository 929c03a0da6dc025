"""Does what a plan says, to a real daemon. Each fault is done by a thread of its own, so that the next is not late."""

import concurrent.futures
import contextlib
import http.client
import os
import re
import signal
import threading
import time

import harness
from clients import error_code
from harness import SLOW

THREADS = 24
ACTION_TIMEOUT_S = 90 * SLOW   # of an administrative call; it waits 30 s for what it began
ORDER_TIMEOUT_S = 20 * SLOW    # of a request that tells a module to get into trouble
LEAK_MB = 96                   # at a time: the limit of the modules is a few of these
# What an administrative call may answer while modules die and the database goes and comes.
ADMIN_MAY = {(502, "MODULE_START_FAILED"), (502, "MIGRATION_FAILED"), (503, "DATABASE_UNAVAILABLE"), (503, "MIGRATION_LOCKED"), (409, "MODULE_BUSY"),
             (409, "CONFIG_REFUSED"), (409, "INVALID_TRANSITION")}
NOT_OFFERED = {(404, "ROUTE_NOT_FOUND"), (405, "METHOD_NOT_ALLOWED"), (501, "NOT_IMPLEMENTED")}
MAX_WORKERS = 3                # that a module is scaled to
GREETINGS = ("hello", "servus", "moin", "refused")


def programs(daemon):
    """{module: {pid}} of all processes that run a module's program, whoever their parent is."""
    versions, found = str(daemon.data / "versions") + "/", {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                program = os.readlink(f"/proc/{entry}/exe")
                if versions in program:  # as of processes_of in misbehaving.py
                    found.setdefault(program.split(versions, 1)[1].split("/")[0], set()).add(int(entry))
    return found


def postmaster(daemon):
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int((daemon.data / "postgres" / "postmaster.pid").read_text().splitlines()[0])
    return None


def state(pid):
    return harness.process_table().get(pid, (0, 0, "", ""))[2]


def tree(pid):
    """[(pid, start time)] of a process and all below it; empty when it is not there."""
    table = harness.process_table()
    return [(pid, table[pid][1]), *harness.descendants(pid)] if pid in table else []


class Faults:
    """presences: {module: Presence} of those that may be touched, in the order of the plan's numbers."""

    def __init__(self, daemon, record, presences, slow_disk):
        self.daemon, self.record, self.presences, self.slow_disk = daemon, record, presences, slow_disk
        self.names = list(presences)
        self.accepted = {name: {"hello"} for name in self.names}  # greetings that may be in force: the last accepted, and those whose answer was lost
        self.admin = {name: threading.Lock() for name in self.names}
        self._database = threading.Lock()  # one trouble at a time
        self.disk_notes = []
        self._pool = concurrent.futures.ThreadPoolExecutor(THREADS)

    def run(self, faults):
        """Until the last is done."""
        began, under_way = time.monotonic(), []
        for fault in faults:
            time.sleep(max(0.0, began + fault.at - time.monotonic()))
            under_way.append(self._pool.submit(self._do, fault))
        for future in under_way:
            future.result()
        self._pool.shutdown()
        self.continue_all()

    def _do(self, fault):
        try:
            outcome = getattr(self, f"_{fault.kind}")(self.names[fault.module], fault)
        except (OSError, http.client.HTTPException) as error:
            outcome = f"could not be done: {type(error).__name__}"
        self.record.fault(fault.kind, outcome)

    # -- signals

    def _signal(self, name, fault, number):
        """Sends it to a worker that is surely this module's; the pidfd of that worker, or None."""
        pids = sorted(worker["pid"] for worker in self._workers(name) if worker["pid"] > 0)
        if not pids:
            return None
        pid = pids[fault.worker % len(pids)]
        with contextlib.suppress(OSError):
            pidfd = os.pidfd_open(pid)
            if pid in programs(self.daemon).get(name, ()):
                signal.pidfd_send_signal(pidfd, number)
                return pidfd
            os.close(pidfd)
        return None

    def _workers(self, name):
        answer = self.daemon.get(f"/api/v1/modules/{name}", timeout=ACTION_TIMEOUT_S)
        return answer.data["workers"] if answer.status == 200 else []

    def _kill(self, name, fault, number=signal.SIGKILL):
        pidfd = self._signal(name, fault, number)
        if pidfd is None:
            return "no worker is there"
        os.close(pidfd)
        return "done"

    def _term(self, name, fault):
        return self._kill(name, fault, signal.SIGTERM)

    def _stop(self, name, fault):
        pidfd = self._signal(name, fault, signal.SIGSTOP)
        if pidfd is None:
            return "no worker is there"
        try:
            time.sleep(fault.seconds)
            signal.pidfd_send_signal(pidfd, signal.SIGCONT)
            return "done, and it went on"
        except ProcessLookupError:
            return "done, and it was ended"
        finally:
            os.close(pidfd)

    # -- orders to the module

    def _order(self, name, fault, what, **more):
        answer = self.daemon.post(f"/api/v1/m/{name}/do", {"what": what, "ms": int(fault.seconds * 1000), **more}, timeout=ORDER_TIMEOUT_S)
        return "done" if answer.status == 200 else f"not taken: {answer.status} {error_code(answer.body)}"

    def _exit(self, name, fault):
        return self._order(name, fault, "exit")

    def _abort(self, name, fault):
        return self._order(name, fault, "abort")

    def _unwell(self, name, fault):
        return self._order(name, fault, "unwell")

    def _slow(self, name, fault):
        return self._order(name, fault, "slow")

    def _leak(self, name, fault):
        return self._order(name, fault, "leak", mb=LEAK_MB)

    def _flood(self, name, fault):
        return self._order(name, fault, "flood")

    def _fork(self, name, fault):
        return self._order(name, fault, "fork")

    def _files(self, name, fault):
        return self._order(name, fault, "files")

    def _stubborn(self, name, fault):
        return self._order(name, fault, "stubborn")

    def _hang(self, name, fault):
        answer = self.daemon.post(f"/api/v1/m/{name}/hang?ms={int(fault.seconds * 1000)}", timeout=ORDER_TIMEOUT_S)
        return f"done, answered {answer.status}"

    # -- administration

    def _admin(self, method, name, path, body=None, optional=False):
        """One call: its status, with what it may be held against the promise; None when it is `optional` and not offered."""
        answer = self.daemon.request(method, f"/api/v1/modules/{name}{path}", body, timeout=ACTION_TIMEOUT_S)
        code = "" if answer.status in (200, 202) else error_code(answer.body)
        if optional and (answer.status, code) in NOT_OFFERED:
            return None
        self.record.check("an administrative call answers as documented", answer.status in (200, 202) or (answer.status, code) in ADMIN_MAY,
                          f"{method} {name}{path}: {answer}")
        return answer.status

    def _disable(self, name):
        self.presences[name].set("changing")
        status = self._admin("POST", name, "/disable?wait=30s")
        if status == 200:
            self.presences[name].set("away")
        return status

    def _enable(self, name):
        self.presences[name].set("changing")
        status = self._admin("POST", name, "/enable?wait=30s")
        if status == 200:
            self.presences[name].set("there")
        return status

    def _switch(self, name, fault):
        with self.admin[name]:
            off = self._disable(name)
            time.sleep(fault.seconds)
            return f"off {off}, on {self._enable(name)}"

    def _configure(self, name, fault):
        greeting = GREETINGS[fault.worker % len(GREETINGS)]
        with self.admin[name]:
            status = self._admin("PUT", name, "/config", {"config": {"greeting": greeting}})
            if status == 200:
                self.accepted[name] = {greeting}
            elif status != 409:
                self.accepted[name].add(greeting)
        return f"answered {status}"

    def _optional(self, method, name, path, body=None):
        with self.admin[name]:
            status = self._admin(method, name, path, body, optional=True)
        return "not offered by this daemon" if status is None else f"answered {status}"

    def _restart(self, name, _fault):
        return self._optional("POST", name, "/restart?wait=30s")

    def _reload(self, name, _fault):
        return self._optional("POST", name, "/reload?wait=30s")

    def _scale(self, name, fault):
        return self._optional("PUT", name, "/workers?wait=30s", {"workers": 1 + fault.worker % MAX_WORKERS})

    def heal(self, name):
        """What an operator does for a module that is quarantined, failed, or off because its enable failed."""
        if self.admin[name].acquire(blocking=False):
            try:
                self._disable(name)
                self.record.fault("heal", f"on {self._enable(name)}")
            finally:
                self.admin[name].release()

    # -- the database

    def _backend(self, _name, fault):
        with self._database:
            server = postmaster(self.daemon)
            backends = sorted(pid for pid, _started in harness.descendants(server or 0)
                              if re.search(rb"^postgres: .*\[local\]", harness._read(f"/proc/{pid}/cmdline")))
            if not backends:
                return "no connection is there"
            os.kill(backends[fault.worker % len(backends)], signal.SIGKILL)
            return "done"

    def _postmaster(self, _name, _fault):
        with self._database:
            server = postmaster(self.daemon)
            if server is None or state(server) == "":
                return "it is not there"
            os.kill(server, signal.SIGKILL)
            return "done"

    def _freeze(self, _name, fault):
        with self._database:
            server = postmaster(self.daemon)
            frozen = tree(server)
            self._signal_all(frozen, signal.SIGSTOP)
            time.sleep(fault.seconds)
            self._signal_all(frozen, signal.SIGCONT)
            return "done" if frozen else "it is not there"

    @staticmethod
    def _signal_all(processes, number):
        table = harness.process_table()
        for pid, started in processes:
            if table.get(pid, (0, 0))[1] == started:
                with contextlib.suppress(OSError):
                    os.kill(pid, number)

    def _disk(self, _name, fault):
        with self._database:
            pids = [pid for pid, _started in tree(postmaster(self.daemon))]
            how, before, meanwhile = self.slow_disk.slow(pids, fault.seconds)
            self.disk_notes.append(f"a synced write took {before:.1f} ms before and {meanwhile:.1f} ms meanwhile")
            return how

    # -- the end

    def continue_all(self):
        """No process stays stopped because its fault was cut short."""
        below = harness.descendants(self.daemon.process.pid)
        self._signal_all([process for process in below if state(process[0]) == "T"], signal.SIGCONT)
