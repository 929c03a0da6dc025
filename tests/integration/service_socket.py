"""A service manager's end of the protocols that a service speaks (sd_notify(3), sd_listen_fds(3)), and a way to hold single threads of a
process, as a debugger does."""

import contextlib
import ctypes
import os
import pathlib
import socket
import sys
import time

import harness

PTRACE_CONT, PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 7, 17, 0x4206, 0x4207
WALL = 0x40000000


class NotifySocket:
    """NOTIFY_SOCKET with everything that arrived, as [(seconds, {variable: value})]."""

    def __init__(self, folder, abstract=False):
        self.name = f"@bulkhead-test-{os.getpid()}-{id(self)}" if abstract else str(pathlib.Path(folder) / "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + self.name[1:] if abstract else self.name)
        self.socket.setblocking(False)
        if not abstract:
            os.chmod(self.name, 0o777)  # as systemd has it: the daemon is another user by then
        self.messages = []

    def read(self):
        with contextlib.suppress(BlockingIOError):
            while True:
                text = self.socket.recv(8192).decode()
                self.messages.append((time.monotonic(), dict(line.split("=", 1) for line in text.splitlines())))
        return self.messages

    def of(self, variable, since=0.0):
        return [message for at, message in self.read() if variable in message and at >= since]

    def wait(self, variable, value=None, since=0.0, within=harness.CONVERGE_TIMEOUT_S):
        """The first message with this variable (and value) that came after `since`."""
        def found():
            return next((message for message in self.of(variable, since) if value is None or message[variable] == value), None)

        return harness.wait_until(found, f"{variable}={'' if value is None else value} in {[m for _at, m in self.read()][-8:]}", within)

    def close(self):
        self.socket.close()


def give_sockets(daemon, sockets, names):
    """Makes the daemon start as if systemd had opened these: descriptors from 3 on, and the variables that say so."""
    daemon.pass_fds = tuple(one.fileno() for one in sockets)
    plain = daemon.command()
    code = (f"import os\nfds = {list(daemon.pass_fds)}\nsafe = [os.dup2(fd, 200 + i, False) for i, fd in enumerate(fds)]\n"
            "for i, fd in enumerate(safe):\n    os.dup2(fd, 3 + i, True)\n"
            "import sys\nos.environ['LISTEN_PID'] = str(os.getpid())\nos.execv(sys.argv[1], sys.argv[1:])\n")
    daemon.env.update({"LISTEN_FDS": str(len(sockets)), "LISTEN_FDNAMES": ":".join(names)})
    daemon.command = lambda: [sys.executable, "-c", code, *plain]


def threads_named(pid, name):
    return [int(task.name) for task in pathlib.Path(f"/proc/{pid}/task").iterdir() if harness._read(task / "comm").decode().strip() == name]


@contextlib.contextmanager
def held(threads):
    """These threads stand still meanwhile, and no other of their process does. All calls come from one thread, as ptrace(2) wants it."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    seized = []
    try:
        for thread in threads:
            if libc.ptrace(PTRACE_SEIZE, thread, None, None) != 0:
                raise PermissionError(ctypes.get_errno(), "ptrace is not permitted here")
            seized.append(thread)
            libc.ptrace(PTRACE_INTERRUPT, thread, None, None)
            os.waitpid(thread, WALL)
        yield
    finally:
        for thread in seized:
            libc.ptrace(PTRACE_DETACH, thread, None, None)
