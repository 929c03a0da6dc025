"""A slow disk: what a process may do to make writes slow for real, and how slow they are then.

Two means, both real. Anybody can keep the disk of a folder busy with writes that are synced at once. And as root with a blkio controller (cgroup v1) the
PostgreSQL of a daemon is put into a cgroup whose writes are throttled; with cgroup v2 it stays where it is, because there a process has one place
only, and that is the supervisor's to choose. What a run really had is measured by a process that syncs small writes under the same conditions.
"""

import contextlib
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from machine import awaited_pids

BLKIO = pathlib.Path("/sys/fs/cgroup/blkio")
WRITES_PER_S = 15          # of the throttled
BUSY_BYTES = 4 << 20       # written and synced at a time by those who keep the disk busy
BUSY_PROCESSES = 2
PROBE_BYTES = 8 << 10
PROBES = 15

# Writes and syncs until its input ends.
BUSY = f"""
import os, select, sys
fd, data = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT), os.urandom({BUSY_BYTES})
while not select.select([0], [], [], 0)[0]:
    os.pwrite(fd, data, 0)
    os.fsync(fd)
os.unlink(sys.argv[1])
"""
# Prints milliseconds per synced write.
PROBE = f"""
import os, sys, time
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
for _ in range({PROBES}):
    began = time.monotonic()
    os.write(fd, bytes({PROBE_BYTES}))
    os.fsync(fd)
    print((time.monotonic() - began) * 1000, flush=True)
os.unlink(sys.argv[1])
"""


def whole_disk(folder):
    """"MAJOR:MINOR" of the disk that `folder` is on; None when there is none, as on tmpfs."""
    device = os.stat(folder).st_dev
    entry = pathlib.Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    if not entry.exists():
        return None
    real = entry.resolve()
    disk = real.parent if (real / "partition").exists() else real
    return (disk / "dev").read_text().strip()


class Throttle:
    """A blkio cgroup; None of it where that can't be had: `why` says so."""

    def __init__(self, folder):
        self.folder, self.why, self._back = None, "", {}
        disk = whole_disk(folder)
        if os.geteuid() != 0 or not (BLKIO / "blkio.throttle.write_iops_device").exists() or disk is None:
            self.why = "not root" if os.geteuid() else "no blkio controller of cgroup v1" if disk else "the folder is on no disk"
            return
        try:
            made = BLKIO / f"bulkhead-chaos-{os.getpid()}"
            made.mkdir()
            self.folder = made
            (made / "blkio.throttle.write_iops_device").write_text(f"{disk} {WRITES_PER_S}")
        except OSError as error:
            self.why = f"the blkio controller refuses: {error}"
            self.release()

    def take(self, pids):
        """Those that are gone already are left out."""
        for pid in pids if self.folder else ():
            with contextlib.suppress(OSError):
                was = next(line.split(":", 2)[2] for line in pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines() if ":blkio:" in line)
                (self.folder / "cgroup.procs").write_text(str(pid))
                self._back[pid] = was

    def release(self):
        if self.folder is None:
            return
        # New processes of the throttled were born in there.
        inside = {int(pid) for pid in (self.folder / "cgroup.procs").read_text().split()}
        for pid in inside:
            with contextlib.suppress(OSError):
                (BLKIO / self._back.get(pid, "/").lstrip("/") / "cgroup.procs").write_text(str(pid))
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                self.folder.rmdir()
                break
            time.sleep(0.05)
        self.folder = None


def probe(folder, throttle=None):
    """Milliseconds of synced writes by a process of its own: the median."""
    path = pathlib.Path(folder) / f"probe-{time.monotonic_ns()}"
    process = subprocess.Popen([sys.executable, "-B", "-c", PROBE, path], stdout=subprocess.PIPE, text=True)
    awaited_pids.add(process.pid)
    if throttle:
        throttle.take([process.pid])
    out, _err = process.communicate()
    awaited_pids.discard(process.pid)
    return statistics.median(map(float, out.split()))


class Busy:
    """Processes that keep the disk of `folder` busy until end()."""

    def __init__(self, folder):
        self.processes = []
        for number in range(BUSY_PROCESSES):
            path = pathlib.Path(folder) / f"busy-{number}-{time.monotonic_ns()}"
            self.processes.append(subprocess.Popen([sys.executable, "-B", "-c", BUSY, path], stdin=subprocess.PIPE))
            awaited_pids.add(self.processes[-1].pid)

    def end(self):
        for process in self.processes:
            process.communicate()
            awaited_pids.discard(process.pid)


class SlowDisk:
    """One per run. slow() blocks for its time and answers (what was done, ms of a synced write before, ms meanwhile)."""

    def __init__(self, beside):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="bh-disk-", dir=beside))

    def slow(self, pids, seconds):
        before = probe(self.folder)
        throttle, busy = Throttle(self.folder), Busy(self.folder)
        try:
            throttle.take(pids)
            until = time.monotonic() + seconds
            meanwhile = probe(self.folder, throttle)
            time.sleep(max(0.0, until - time.monotonic()))
        finally:
            busy.end()
            how = "kept busy" if throttle.folder is None else "kept busy and throttled"
            throttle.release()
        return how + (f" (not throttled: {throttle.why})" if throttle.why else ""), before, meanwhile

    def remove(self):
        self.folder.rmdir()
