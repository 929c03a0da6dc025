"""What a hostile module tries (tests/fakes/hostile), and which measures of its isolation stand in the way of each attempt. For isolation_test.py.

An attempt is to be refused when any of the measures that it names is in force. Besides those of a module's status there are:
  always      refused on every machine: by PostgreSQL's roles, by tokens, by what the kernel lets nobody do
  scopes      Landlock from ABI 6 on, which bounds signals and abstract sockets
  namespace   a network of its own, rather than no sockets
  private tmp /tmp is the module's own
"""

import dataclasses
import os
import signal

import harness

AF_INET, AF_NETLINK, AF_PACKET, AF_ALG, AF_VSOCK = 2, 16, 17, 38, 40
STREAM, DGRAM, RAW, SEQPACKET = 1, 2, 3, 5
NEWNS, NEWUSER, NEWPID, NEWNET = 0x00020000, 0x10000000, 0x20000000, 0x40000000
FILES, PROCESSES, MEMORY_MIB = 16_384, 100, 256
FILE_BYTES = 16 << 30
LOG_LINES = 100_000


@dataclasses.dataclass
class Attempt:
    what: str
    against: tuple          # measures, each of which is enough
    call: object            # of attempts.py: (name, arguments), or a function of the test: () → {"done", "how"}
    untried: str = ""       # why it is not tried: nothing would stop it, and it would do harm


@dataclasses.dataclass
class Scene:
    """Where the attempts are made: the daemon, its spawner, another module's process, and the folders."""

    daemon: object
    spawner: int
    victim: dict            # its view: name and workers
    victim_package: str
    own_package: str
    outside: str            # a file and a folder that anybody may read and write, which no manifest names
    abstract: str           # the name of an abstract socket on which the test listens
    psql: str

    @property
    def data(self):
        return str(self.daemon.data)

    @property
    def victim_instance(self):
        """The folder with its sockets."""
        return os.path.dirname(next(p for p in socket_paths(self.victim["workers"][0]["pid"]) if p.endswith("/control")))


def socket_paths(pid):
    """Paths of the Unix sockets that a process listens on."""
    inodes = set()
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            link = os.readlink(f"/proc/{pid}/fd/{number}")
        except OSError:
            continue
        if link.startswith("socket:["):
            inodes.add(link[8:-1])
    with open(f"/proc/{pid}/net/unix", encoding="utf-8") as table:
        lines = [line.split() for line in table.readlines()[1:]]
    return [fields[7] for fields in lines if len(fields) > 7 and fields[6] in inodes]


def of_files(scene):
    data, home = scene.data, ("uid", "landlock")
    victim = f"{data}/modules/{scene.victim['name']}"
    return [
        Attempt("list another module's data folder", home, ("list_folder", {"path": victim})),
        Attempt("read a file in it", home, ("read_file", {"path": f"{victim}/kept"})),
        Attempt("make a file in it", home, ("make_file", {"path": f"{victim}/planted"})),
        Attempt("list the files that modules keep with the supervisor", home, ("list_folder", {"path": f"{data}/files"})),
        Attempt("store a file past the supervisor's count", home, ("make_file", {"path": f"{data}/files/planted"})),
        Attempt("read another module's package", ("landlock",), ("read_file", {"path": f"{scene.victim_package}/manifest.json"})),
        Attempt("write into another module's package", home, ("write_file", {"path": f"{scene.victim_package}/manifest.json"})),
        Attempt("write into its own package", home, ("write_file", {"path": f"{scene.own_package}/manifest.json"})),
        Attempt("replace its own program", home, ("rename_file", {"path": f"{scene.own_package}/bin/hostile", "to": f"{scene.own_package}/bin/other"})),
        Attempt("make a folder among the versions", home, ("make_file", {"path": f"{data}/versions/planted"})),
        Attempt("read the supervisor's master key", home, ("read_file", {"path": f"{data}/secrets/master.key"})),
        Attempt("list the supervisor's secrets", home, ("list_folder", {"path": f"{data}/secrets"})),
        Attempt("read the administrator's token", home, ("read_file", {"path": f"{data}/admin.token"})),
        Attempt("set the mode of that file", ("uid",), ("change_mode", {"path": f"{data}/admin.token"})),
        Attempt("read the database's files", home, ("list_folder", {"path": f"{data}/postgres/base"})),
        Attempt("list the folders of other instances", home, ("list_folder", {"path": os.path.dirname(scene.victim_instance)})),
        Attempt("read /etc/shadow", ("always",), ("read_file", {"path": "/etc/shadow"})),
        Attempt("read a file of somebody that all may read", ("landlock",), ("read_file", {"path": f"{scene.outside}/file"})),
        Attempt("write a file of somebody that all may write", ("landlock",), ("write_file", {"path": f"{scene.outside}/file"})),
        Attempt("make a file where all may", ("landlock",), ("make_file", {"path": f"{scene.outside}/planted"})),
        Attempt("write into /etc", ("always",), ("make_file", {"path": "/etc/bulkhead-planted"})),
        Attempt("make a block device", ("capabilities",), ("make_device", {"path": f"{data}/modules/hostile/disk"})),
        Attempt("move into another cgroup", ("always",), ("write_file", {"path": cgroup_file()})),
    ]


def cgroup_file():
    """Of the test's own cgroup: whoever may write it can move a process there."""
    with open("/proc/self/mountinfo", encoding="utf-8") as table:
        mounts = [line.split() for line in table]
    folder = next((fields[4] for fields in mounts if " - cgroup" in " ".join(fields)), "/sys/fs/cgroup")
    return f"{folder}/cgroup.procs"


def of_processes(scene):
    # In /proc a module sees its own processes alone, where it has a /proc of its own.
    others = {"another module": scene.victim["workers"][0]["pid"], "the supervisor": scene.daemon.process.pid, "the spawner": scene.spawner}
    attempts = []
    for who, pid in others.items():
        attempts += [
            Attempt(f"signal {who}", ("uid", "scopes"), ("send_signal", {"pid": pid})),
            Attempt(f"signal {who} by a pidfd", ("uid", "scopes"), ("send_pidfd_signal", {"pid": pid})),
            Attempt(f"trace {who}", ("uid", "seccomp", "landlock"), ("trace", {"pid": pid})),
            Attempt(f"read the memory of {who}", ("uid", "landlock"), ("read_memory", {"pid": pid})),
            Attempt(f"read the environment of {who}", ("uid", "landlock"), ("read_file", {"path": f"/proc/{pid}/environ"})),
            Attempt(f"see the descriptors of {who}", ("uid", "landlock"), ("see_descriptors", {"pid": pid})),
            Attempt(f"take a descriptor of {who}", ("uid", "seccomp", "landlock"), ("take_descriptor", {"pid": pid})),
            Attempt(f"bound {who} by prlimit", ("uid", "seccomp"), ("bound_another", {"pid": pid})),
            Attempt(f"set the priority of {who}", ("uid",), ("slow_another", {"pid": pid})),
        ]
    return attempts


def of_sockets(scene, call):
    host, port = scene.daemon.admin_address.rsplit(":", 1)
    http = int(scene.daemon.address.rsplit(":", 1)[1])
    instance = scene.victim_instance
    forged = [["x-bulkhead-token", "0" * 48]]
    service, calls = f"{scene.data}/run/host", f"{scene.data}/run/calls"
    victims = f"/api/v1/m/{scene.victim['name']}/inline"
    return [
        Attempt("connect to another module's control socket", ("uid",), ("connect_unix", {"path": f"{instance}/control"})),
        Attempt("connect to another module's data socket", ("uid",), ("connect_unix", {"path": f"{instance}/data"})),
        Attempt("command another module without its token", ("always",),
                ("ask_service", {"path": f"{instance}/control", "method": "/bulkhead.module.v1.Module/Stop", "metadata": []})),
        Attempt("command another module with a forged token", ("always",),
                ("ask_service", {"path": f"{instance}/control", "method": "/bulkhead.module.v1.Module/Stop", "metadata": forged})),
        Attempt("connect to the admin port", ("network",), ("connect_tcp", {"host": host, "port": int(port)})),
        Attempt("connect to the HTTP port", ("network",), ("connect_tcp", {"host": host, "port": http})),
        Attempt("connect to another host", ("network",), ("connect_tcp", {"host": "192.0.2.1", "port": 443})),
        Attempt("send a datagram to another host", ("network",), ("send_udp", {"host": "192.0.2.1", "port": 53})),
        Attempt("connect to an abstract socket", ("namespace", "scopes"), ("connect_abstract", {"name": scene.abstract})),
        Attempt("open a raw socket", ("capabilities", "seccomp"), ("open_socket", {"family": AF_INET, "kind": RAW, "protocol": 1})),
        Attempt("open a socket for ping", ("seccomp",), ("open_socket", {"family": AF_INET, "kind": DGRAM, "protocol": 1})),
        Attempt("open a packet socket", ("capabilities", "seccomp"), ("open_socket", {"family": AF_PACKET, "kind": RAW, "protocol": 0})),
        Attempt("open a netlink socket of the audit", ("seccomp",), ("open_socket", {"family": AF_NETLINK, "kind": RAW, "protocol": 9})),
        Attempt("open a socket to the hypervisor", ("seccomp",), ("open_socket", {"family": AF_VSOCK, "kind": STREAM, "protocol": 0})),
        Attempt("open a socket of the kernel's ciphers", ("seccomp",), ("open_socket", {"family": AF_ALG, "kind": SEQPACKET, "protocol": 0})),
        Attempt("call the supervisor without a token", ("always",),
                ("ask_service", {"path": service, "method": "/bulkhead.host.v1.Host/Enqueue", "metadata": []})),
        Attempt("call the supervisor with a forged token", ("always",),
                ("ask_service", {"path": service, "method": "/bulkhead.host.v1.Host/Enqueue", "metadata": forged})),
        Attempt("call the supervisor with two tokens", ("always",),
                ("ask_service", {"path": service, "method": "/bulkhead.host.v1.Host/Enqueue", "metadata": forged + forged})),
        Attempt("call the supervisor as another module by name", ("always",),
                ("ask_service", {"path": service, "method": "/bulkhead.host.v1.Host/Enqueue", "metadata": [["x-bulkhead-module", scene.victim["name"]]]})),
        Attempt("call the supervisor with an administrator's header", ("always",),
                ("ask_service", {"path": service, "method": "/bulkhead.host.v1.Host/Enqueue", "metadata": [["authorization", "Bearer " + "0" * 64]]})),
        Attempt("list files with another module's name and no token", ("always",),
                ("ask_service", {"path": service, "method": "/bulkhead.host.v1.Files/ListFiles", "metadata": [["x-bulkhead-module", scene.victim["name"]]]})),
        Attempt("read a file with a forged token", ("always",),
                ("ask_service", {"path": service, "method": "/bulkhead.host.v1.Files/GetFile", "metadata": forged})),
        Attempt("call a module that it does not depend on", ("always",), lambda: call(scene.victim["name"], "/inline")),
        Attempt("call a module that is not there", ("always",), lambda: call("no-such-module", "/inline")),
        Attempt("call itself over the gateway", ("always",), lambda: call("hostile", "/sql")),
        Attempt("call a module without a token", ("always",), ("ask_http", {"path": calls, "target": victims, "headers": []})),
        Attempt("call a module with a forged token", ("always",), ("ask_http", {"path": calls, "target": victims, "headers": forged})),
        Attempt("call a module as another one by name", ("always",),
                ("ask_http", {"path": calls, "target": victims, "headers": [["x-bulkhead-subject", "module:" + scene.victim["name"]]]})),
        Attempt("reach the admin API where modules call modules", ("always",),
                ("ask_http", {"path": calls, "target": "/api/v1/modules", "headers": [["authorization", "Bearer " + "0" * 64]]})),
    ]


def of_the_database(scene, sql):
    socket = f"{scene.data}/run/pg"

    def log_in(user, database="bulkhead"):
        return ("run_program", {"argv": [scene.psql, "-X", "-w", "-A", "-t", "-c", "SELECT current_user", f"host={socket} user={user} dbname={database}"]})

    victims = scene.daemon.sql(f"SELECT rolname FROM pg_roles WHERE rolname LIKE 'bh\\_%\\_{scene.victim['name']}'")[0][0]
    schema = scene.daemon.sql(f"SELECT nspname FROM pg_namespace WHERE pg_get_userbyid(nspowner) = '{victims}'")[0][0]
    backend = "(SELECT min(pid) FROM pg_stat_activity WHERE usename = 'bulkhead')"
    attempts = [Attempt(f"log in to the database as {user}", ("always",), log_in(user))
                for user in ("bulkhead", "postgres", "root", victims)]
    attempts += [Attempt(what, ("always",), lambda statement=statement: sql(statement)) for what, statement in {
        "become another module's role": f"SET ROLE {victims}",
        "become a superuser": "SET ROLE bulkhead",
        "make itself a superuser": "DO $$ BEGIN EXECUTE format('ALTER ROLE %I SUPERUSER', session_user); END $$",
        "read another module's table": f"SELECT * FROM {schema}.kept",
        "make a table in another module's schema": f"CREATE TABLE {schema}.planted (id int)",
        "read the supervisor's tokens": "SELECT * FROM bulkhead_internal.api_tokens",
        "write the supervisor's registry": "UPDATE bulkhead_internal.modules SET status = 'DISABLED'",
        "run a program on the server": "COPY (SELECT 1) TO PROGRAM 'true'",
        "write a file on the server": "COPY (SELECT 1) TO '/tmp/bulkhead-planted'",
        "read a file on the server": "SELECT pg_read_file('postgresql.conf')",
        "list a folder on the server": "SELECT pg_ls_dir('.')",
        "change the server's settings": "ALTER SYSTEM SET jit = on",
        "end the supervisor's connections": f"SELECT 1 / (pg_terminate_backend({backend}))::int",
        "read what others ask the database": "SELECT 1 / count(*) FROM pg_stat_activity WHERE usename = 'bulkhead' AND query NOT LIKE '<%' AND query <> ''",
        "make an extension that reaches files": "CREATE EXTENSION file_fdw",
        "make a role": "CREATE ROLE planted LOGIN SUPERUSER",
        "make a database": "CREATE DATABASE planted",
    }.items()]
    return attempts


def of_the_kernel(_scene):
    calls = {
        "mount a file system": ("mount", [0, 0, 0, 0, 0]),
        "unmount one": ("umount2", [0, 0]),
        "open a file system by the newer calls": ("fsopen", [0, 0]),
        "copy a mount": ("open_tree", [-100, 0, 1]),
        "change the root": ("chroot", [0]),
        "turn the root": ("pivot_root", [0, 0]),
        "add swap space": ("swapon", [0, 0]),
        "load a kernel module": ("init_module", [0, 0, 0]),
        "load a kernel module from a file": ("finit_module", [-1, 0, 0]),
        "load another kernel": ("kexec_load", [0, 0, 0, 0]),
        "restart the machine": ("reboot", [0, 0, 0, 0]),  # with a wrong magic number: it would be EINVAL
        "set the clock": ("clock_settime", [0, 0]),
        "set the host's name": ("sethostname", [0, 1 << 20]),
        "account processes": ("acct", [0]),
        "open a file by a handle": ("open_by_handle_at", [-100, 0, 0]),
        "set quotas": ("quotactl", [0, 0, 0, 0]),
        "load a BPF program": ("bpf", [5, 0, 0]),
        "count with perf": ("perf_event_open", [0, 0, -1, -1, 0]),
        "handle page faults": ("userfaultfd", [0]),
        "make an io_uring": ("io_uring_setup", [1, 0]),
        "use an io_uring": ("io_uring_enter", [-1, 0, 0, 0, 0, 0]),
        "add a key": ("add_key", [0, 0, 0, 0, -3]),
        "ask for a key": ("request_key", [0, 0, 0, 0]),
        "reach the session's keys": ("keyctl", [0, -3, 1]),
        "watch file systems": ("fanotify_init", [0, 0]),
        "compare processes": ("kcmp", [1, 1, 0, 0, 0]),
        "switch off the randomness of addresses": ("personality", [0x0040000]),
        "read a process's memory": ("process_vm_readv", [1, 0, 0, 0, 0, 0]),
    }
    attempts = [Attempt(what, ("seccomp",), ("call_kernel", {"name": name, "arguments": arguments})) for what, (name, arguments) in calls.items()]
    for what, flags in {"user": NEWUSER, "mount": NEWNS | NEWUSER, "process": NEWPID | NEWUSER, "network": NEWNET | NEWUSER}.items():
        attempts.append(Attempt(f"make a {what} namespace", ("seccomp",), ("make_namespace", {"flags": flags})))
    return attempts + [
        Attempt("clone into a user namespace", ("seccomp",), ("clone_namespace", {"flags": NEWUSER})),
        Attempt("enter a namespace", ("capabilities", "seccomp"), ("enter_namespace", {"path": "/proc/self/ns/net"})),
        Attempt("become root", ("capabilities",), ("become", {"uid": 0})),
        Attempt("become another user", ("capabilities",), ("become", {"uid": 65533})),
        Attempt("become root by a setuid program", ("no_new_privs",), ("run_program", {"argv": ["/usr/bin/su", "-c", "true"]})),
    ]


def of_resources(scene, active):
    own = f"{scene.data}/modules/hostile"

    def bounded(measure, *rest):
        return Attempt(*rest, untried="" if measure in active else "nothing bounds it here")

    return [
        bounded("cgroup.memory", f"use {4 * MEMORY_MIB} MiB of memory", ("cgroup.memory",), ("use_memory", {"most": 4 * MEMORY_MIB})),
        bounded("cgroup.pids", f"have {2 * PROCESSES} processes", ("cgroup.pids",), ("use_processes", {"most": 2 * PROCESSES})),
        Attempt(f"open {2 * FILES} files", ("rlimits",), ("use_descriptors", {"most": 2 * FILES})),
        Attempt(f"make a file of {FILE_BYTES + 1} bytes", ("rlimits",), ("grow_file", {"path": f"{own}/large", "most": FILE_BYTES + 1})),
        Attempt("raise its limits", ("capabilities", "rlimits"), ("raise_limits", {})),
    ]


def outcome(answer):
    """(done, what came of it): killed is refused."""
    if "done" in answer:
        return answer["done"], answer["how"]
    if answer["signal"]:
        return False, f"killed by {signal.Signals(answer['signal']).name}"
    if answer["exit"] == 0:
        told = harness.json.loads(answer["output"].splitlines()[-1])
        return told["done"], told["how"]
    raise AssertionError(f"the attempt itself has failed: {answer}")


def active_measures(items):
    """Those of a module's status, and what they imply."""
    active = {item["name"] for item in items if item["state"] == "active"} | {"always"}
    why = {item["name"]: item["why"] for item in items}
    if "landlock" in active and "neither signals" not in why["landlock"]:
        active.add("scopes")
    if "network" in active and "namespace of its own" in why["network"]:
        active.add("namespace")
    return active


def table(rows):
    """Attempt, result and by what, as text."""
    heads = ("attempt", "result", "by", "what came of it")
    widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(3)]
    lines = ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[3][:100]]).rstrip() for row in (heads, *rows)]
    return "\n".join([lines[0], "  ".join("-" * width for width in (*widths, 15)), *lines[1:]])
