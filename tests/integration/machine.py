"""The machine that a test runs on: processes, as /proc tells them, and free ports."""

import contextlib
import ctypes
import os
import random
import socket

# Below the range of ephemeral ports, so that no outgoing connection of another test takes one between the choice and the bind.
PORTS = range(15000, 32000)

PR_SET_CHILD_SUBREAPER = 36

awaited_pids = set()  # children that somebody waits for


def free_port():
    for _ in range(200):
        port = random.SystemRandom().choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port was found")


def read(path):
    """The bytes of a file, none when it can't be read (any more)."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def process_table():
    """{pid: (parent, start time, state, name)} of all processes."""
    table = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            stat = read(f"/proc/{entry}/stat").decode("utf-8", "replace")
            if not stat:
                continue
            name = stat[stat.index("(") + 1:stat.rindex(")")]
            fields = stat[stat.rindex(")") + 2:].split()
            table[int(entry)] = (int(fields[1]), int(fields[19]), fields[0], name)
    return table


def descendants(pid):
    """{(pid, start time)} of everything below `pid`, zombies left out."""
    table = process_table()
    children = {}
    for child, (parent, *_rest) in table.items():
        children.setdefault(parent, []).append(child)
    found, queue = set(), list(children.get(pid, []))
    while queue:
        child = queue.pop()
        if table[child][2] not in "ZX":
            found.add((child, table[child][1]))
        queue.extend(children.get(child, []))
    return found


def alive(process):
    pid, started = process
    entry = process_table().get(pid)
    return entry is not None and entry[1] == started and entry[2] not in "ZX"


def processes_that_mention(folder):
    """Pids whose command line, environment, working folder or executable lies in `folder`."""
    needle = os.fsencode(str(folder))
    found = set()
    for pid, (_parent, started, state, _name) in process_table().items():
        if pid == os.getpid() or state in "ZX":
            continue
        links = b""
        for link in ("cwd", "exe", "root"):
            with contextlib.suppress(OSError):
                links += os.fsencode(os.readlink(f"/proc/{pid}/{link}")) + b"\0"
        if needle in read(f"/proc/{pid}/cmdline") + links or needle in read(f"/proc/{pid}/environ"):
            found.add((pid, started))
    return found


def describe(process):
    pid, _started = process
    command = read(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode("utf-8", "replace").strip()
    return f"{pid} {command or process_table().get(pid, ('', '', '', 'gone'))[3]}"


def adopt_orphans():
    """What a killed daemon leaves behind becomes a child of this process, so that none can hide."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_orphans():
    """Collects adopted children that have ended, so that they don't stay as zombies of the test."""
    for pid, (parent, _started, state, _name) in process_table().items():
        if parent == os.getpid() and state == "Z" and pid not in awaited_pids:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
