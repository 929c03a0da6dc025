"""What a hostile module tries, each attempt by its name: python3 attempts.py NAME {"arguments": "as JSON"}

Prints one line of JSON: {"done": whether it worked, "how": what came of it}. An attempt that works does as little harm as it can.
"""

import ctypes
import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
MIB = 1024 * 1024

# Of x86-64 and, where they differ, of arm64.
NUMBERS = {
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "swapon": (167, 224), "unshare": (272, 97),
    "setns": (308, 268), "init_module": (175, 105), "finit_module": (313, 273), "kexec_load": (246, 104), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424),
    "kcmp": (312, 272), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "reboot": (169, 142), "acct": (163, 89),
    "syslog": (103, 116), "settimeofday": (164, 170), "clock_settime": (227, 112), "sethostname": (170, 161), "open_by_handle_at": (304, 265),
    "fsopen": (430, 430), "open_tree": (428, 428), "move_mount": (429, 429), "fanotify_init": (300, 262), "quotactl": (179, 60),
    "personality": (135, 92), "move_pages": (279, 239), "clone": (56, 220), "prlimit64": (302, 261), "lookup_dcookie": (212, 18),
}


def syscall(name, *arguments):
    """Its answer; an OSError for a refusal."""
    number = NUMBERS[name][0 if os.uname().machine == "x86_64" else 1]
    answer = LIBC.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer


# ---- files


def read_file(path):
    with open(path, "rb") as file:
        return f"read {len(file.read(64))} bytes"


def list_folder(path):
    return f"{len(os.listdir(path))} entries"


def write_file(path):
    with open(path, "ab") as file:
        file.write(b"")
    return "opened for writing"


def make_file(path):
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    return "made"


def rename_file(path, to):
    os.rename(path, to)
    os.rename(to, path)
    return "renamed, and back"


def change_mode(path):
    os.chmod(path, os.stat(path).st_mode & 0o7777)
    return "its mode was set to what it was"


def make_device(path):
    os.mknod(path, 0o600 | 0o060000, os.makedev(8, 0))
    return "made a block device"


def become(uid):
    os.setuid(uid)
    return f"is uid {os.getuid()}"


# ---- processes


def send_signal(pid):
    os.kill(pid, signal.SIGCONT)
    return "SIGCONT was taken"


def send_pidfd_signal(pid):
    fd = syscall("pidfd_open", pid, 0)
    syscall("pidfd_send_signal", fd, int(signal.SIGCONT), 0, 0)
    return "SIGCONT was taken"


def trace(pid):
    syscall("ptrace", 0x4206, pid, 0, 0)  # PTRACE_SEIZE; ends with this process
    return "traced"


def read_memory(pid):
    with open(f"/proc/{pid}/maps", encoding="ascii") as maps:
        start = int(maps.readline().split("-")[0], 16)
    with open(f"/proc/{pid}/mem", "rb") as memory:
        memory.seek(start)
        return f"read {len(memory.read(16))} bytes"


def see_descriptors(pid):
    return f"sees {os.readlink(f'/proc/{pid}/fd/0')}"


def bound_another(pid):
    syscall("prlimit64", pid, resource.RLIMIT_NOFILE, 0, ctypes.create_string_buffer(16))
    return "its limits can be read and set"


def slow_another(pid):
    os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, pid))
    return "its priority was set to what it was"


def take_descriptor(pid):
    fd = syscall("pidfd_open", pid, 0)
    syscall("pidfd_getfd", fd, 0, 0)
    return "has its descriptor"


# ---- sockets


def connect_unix(path):
    """Connects; whether anybody listens to what it says is another attempt."""
    with socket.socket(socket.AF_UNIX) as end:
        end.settimeout(10)
        end.connect(path)
    return "connected"


def connect_abstract(name):
    return connect_unix("\0" + name)


def connect_tcp(host, port):
    with socket.create_connection((host, port), 10):
        return "connected"


def send_udp(host, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.connect((host, port))
        end.send(b"x")
    return "sent"


def open_socket(family, kind, protocol):
    socket.socket(family, kind, protocol).close()
    return "opened"


def ask_service(path, method, metadata):
    """A call of gRPC over a Unix socket, with what identity one likes. To work is to be answered with anything but UNAUTHENTICATED."""
    import grpc  # of Debian's python3-grpcio

    with grpc.insecure_channel("unix:" + path) as channel:
        call = channel.unary_unary(method, request_serializer=None, response_deserializer=None)
        try:
            call(b"", metadata=[tuple(pair) for pair in metadata], timeout=10)
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNAVAILABLE):
                raise PermissionError(errno.EACCES, f"{error.code().name} {error.details()}") from None
            return f"{error.code().name} {error.details()}"
    return "answered"


def ask_http(path, target, headers):
    """A request over a Unix socket. To work is to be answered with a status below 400."""
    with socket.socket(socket.AF_UNIX) as end:
        end.settimeout(10)
        end.connect(path)
        end.sendall(f"GET {target} HTTP/1.1\r\nhost: x\r\n{''.join(f'{name}: {value}' + chr(13) + chr(10) for name, value in headers)}\r\n".encode())
        status = end.recv(65536).split()[1].decode()
    if int(status) >= 400:
        raise PermissionError(errno.EACCES, f"HTTP {status}")
    return f"HTTP {status}"


# ---- the kernel


def make_namespace(flags):
    syscall("unshare", flags)
    return "unshared"


def clone_namespace(flags):
    pid = syscall("clone", flags | int(signal.SIGCHLD), 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return "cloned"


def enter_namespace(path):
    fd = os.open(path, os.O_RDONLY)
    syscall("setns", fd, 0)
    return "entered"


def call_kernel(name, arguments):
    """A system call by its name. What fails for another reason than a refusal has reached the kernel: it counts as done."""
    try:
        return f"answered {syscall(name, *arguments)}"
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            raise
        return f"reached the kernel: {errno.errorcode[error.errno]}"


# ---- the machine's resources: what stops one is the measure; to work is to go beyond `most`


def use_memory(most):
    """Has as many MiB at once; a limit ends it."""
    kept = [bytearray(os.urandom(1) * MIB) for _ in range(most)]
    return f"has {len(kept)} MiB"


def use_processes(most):
    children = []
    try:
        for _ in range(most):
            pid = os.fork()
            if pid == 0:
                signal.pause()
            children.append(pid)
        return f"has {len(children)} processes"
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror} after {len(children)}") from None
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        for pid in children:
            os.waitpid(pid, 0)


def use_descriptors(most):
    kept = []
    try:
        for _ in range(most):
            kept.append(os.open("/dev/null", os.O_RDONLY))
        return f"has {len(kept)} descriptors"
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror} after {len(kept)}") from None
    finally:
        for fd in kept:
            os.close(fd)


def raise_limits():
    try:
        for limit in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE, resource.RLIMIT_NOFILE):
            resource.setrlimit(limit, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except ValueError as error:
        raise PermissionError(errno.EPERM, str(error)) from None
    return "the limits are gone"


def grow_file(path, most):
    """Without a byte on the disk: the limit is for the size."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        os.ftruncate(fd, most)
        return f"has {most} bytes"
    finally:
        os.close(fd)
        os.unlink(path)


def run_program(argv):
    """Another program, in its place; to work is to end with 0."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=60)
    if done.returncode != 0:
        raise PermissionError(errno.EACCES, f"exit {done.returncode}: {done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ''}")
    return done.stdout.strip()[:200]


def main():
    name, arguments = sys.argv[1], json.loads(sys.argv[2])
    try:
        print(json.dumps({"done": True, "how": globals()[name](**arguments)}))
    except OSError as error:
        print(json.dumps({"done": False, "how": f"{errno.errorcode.get(error.errno, '')} {error.strerror}".strip()}))


main()
