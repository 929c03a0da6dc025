#!/usr/bin/python3
"""Measures the supervision beside s6, runit, supervisord and pm2, and prints one table: medians of interleaved rounds, aims, and floors of the same run.

    /usr/bin/python3 -B tests/bench/supervision.py [--rounds N] [--only kill,enable,boot,upgrade,idle] [--peers s6,runit] [--json]

With the build in build/, or in $BULKHEAD_BUILD. Installs the peers, and perf, where they are missing (as root). Wants a machine that does nothing else.

kill     `kill -9` of the only worker → the next 200. Ours is asked through the gateway, with a token; the peers' backend (bench_backend, the same answer)
         directly. Each has run for a while before it is killed, which is what runit wants for a quick restart, and they take turns. The time
         runs from before the signal; the next request goes out when the process has ended. A peer starts a process that only has to listen, a
         module is a gRPC server that is initialised and started: the floors under the table are what each of them takes alone, without a supervisor.
         With `warmSpare` such a server is ready beside it: no floor applies to that.
enable   POST …/enable of a module without database → the first 200 through the gateway.
boot     a boot that starts N modules side by side; the floor is the start of PostgreSQL and N empty programs, as many at a time as there are CPUs.
upgrade  p99 of 64 connections in a closed loop while the module is upgraded again and again, beside the same without upgrades before and behind it.
idle     N modules that nobody asks: memory (PSS) of each, what each costs the supervisor, and the CPU that daemon and spawner, PostgreSQL and the
         modules take in a minute. Where the supervisor takes more than the aim, perf tells where it goes.
"""

import argparse
import contextlib
import json
import os
import pathlib
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

import gateway  # noqa: E402
import harness  # noqa: E402
import peers  # noqa: E402
import registry  # noqa: E402
import run  # noqa: E402
import supervisors  # noqa: E402
from harness import Daemon, wait_until  # noqa: E402
from misbehaving import syncing  # noqa: E402
from run import Probe, kilobytes  # noqa: E402

PARTS = ("kill", "enable", "boot", "upgrade", "idle")
SMALL = "/api/v1/m/{}/small"
UP_BEFORE_KILL_S = 1.3   # runit waits when a service has run for less than a second
KILLS_PER_MODULE = 4     # fewer than what is restarted without backoff: with more kills there are more modules, which take turns
CONNECTIONS = 64         # of the load beside upgrades
BASE_S = 5.0             # of the load without upgrades, before and behind
UPGRADES_WITHIN_S = 600  # beyond: the load ends
SETTLE_S = 12.0          # before an idle daemon is measured: a Health of each module, and what a boot leaves to do
PROFILE_S = 30
PROFILE_LINES, PROFILE_COLUMNS = 25, 130
CPUS = len(os.sched_getaffinity(0))
AIMS = {"bulkhead": 30.0, "bulkhead, warmSpare": 3.0}  # ms from the kill to the next 200
CPU_AIM = 0.5            # percent of a core, daemon and spawner together, at rest with 100 modules


def say(text):
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def folder_for(what):
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f"bh-{what}-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def daemon_with(modules, modules_dir):
    daemon = Daemon(modules=modules, modules_dir=modules_dir, private_store=True)
    try:
        yield daemon.start()
        daemon.stop()
    finally:
        daemon.clean_up()


def bench_modules(names, folder, **manifest):
    return harness.copies(gateway.MODULES / "bench", names, folder, **manifest)


def worker(daemon, name):
    """The one that serves, and no spare beside it."""
    return next(worker for worker in daemon.module(name)["workers"] if worker["ready"])


# ---- floors ----


def handshake():
    """Milliseconds from the spawn of an empty gRPC program to its line on fd 3, and to its answer to Initialize; medians."""
    return tuple(map(float, gateway.checked([run.HANDSHAKE]).split()))


def backend_alone():
    """Milliseconds from the spawn of the peers' backend to its first 200."""
    probe = Probe(f"127.0.0.1:{harness.free_port()}", "/small")
    began = time.monotonic()
    process = subprocess.Popen([gateway.BACKEND, f"127.0.0.1:{probe.connection.port}"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        return probe.until_200(began)
    finally:
        gateway.stop_process(process)


# ---- kill ----


class Modules:
    """Copies of the bench module in one daemon, killed in turn."""

    def __init__(self, daemon, names):
        self.daemon, self.names, self.turn = daemon, names, 0
        self.probes = {name: Probe(daemon.address, SMALL.format(name), daemon.token) for name in names}
        for probe in self.probes.values():
            probe.until_200(time.monotonic())

    def target(self):
        name = self.names[self.turn % len(self.names)]
        self.turn += 1
        return worker(self.daemon, name)["pid"], self.probes[name]


def kill(target):
    pid, probe = target
    pidfd = os.pidfd_open(pid)
    try:
        began = time.monotonic()
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        wait_for_end(pidfd)  # so that no answer is its own
        return probe.until_200(began)
    finally:
        os.close(pidfd)


def wait_for_end(pidfd):
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if not poll.poll(10_000):
        raise SystemExit("a killed process did not end within 10 s")


def kills(options, notes, add):
    count = -(-options.kills // KILLS_PER_MODULE)
    names = {"bulkhead": [f"bench-{i}" for i in range(count)]}
    with folder_for("modules") as modules_dir, folder_for("peers") as folder, contextlib.ExitStack() as stack:
        bench_modules(names["bulkhead"], modules_dir)
        names["bulkhead, warmSpare"] = bench_modules([f"spare-{i}" for i in range(count)], modules_dir, warmSpare=True)
        daemon = stack.enter_context(daemon_with(sum(names.values(), []), modules_dir))
        systems = {system: Modules(daemon, of) for system, of in names.items()}
        for name in options.peers:
            if name not in notes.get("peers not installed", {}):
                systems[name] = supervisors.Supervised(name, folder / name)
                stack.callback(systems[name].stop)
        up_since = dict.fromkeys(systems, time.monotonic())
        for number in range(options.kills):
            order = list(systems)
            for name in order[number % len(order):] + order[:number % len(order)]:
                time.sleep(max(0, up_since[name] + UP_BEFORE_KILL_S - time.monotonic()))
                add("kill", name, kill(systems[name].target()))
                up_since[name] = time.monotonic()
                if name == "bulkhead":
                    add("kill", "floor: the backend alone", backend_alone())
        listens, answers = handshake()
        add("kill", "floor: an empty gRPC program listens", listens)
        add("kill", "floor: it answers Initialize", answers)


# ---- enable, boot ----


def enables(options, _notes, add):
    with folder_for("modules") as modules_dir:
        bench_modules(["bench"], modules_dir)
        with daemon_with(["bench"], modules_dir) as daemon:
            probe = Probe(daemon.address, SMALL.format("bench"), daemon.token)
            for _ in range(options.enables):
                add("enable", "enable to the first 200", run.enable(daemon, probe, "bench"))
                add("enable", "floor: spawn and handshake of an empty program", handshake()[1])


def boots(options, _notes, add):
    for name, value in registry.boots(options.modules, options.modules).items():
        add("boot", name, value)
    _initdb, postgres = run.floors()
    add("boot", "floor_ms", postgres + handshake()[1] * options.modules / CPUS)


# ---- upgrade ----


def load_beside(daemon, work=None):
    """{figure: value} of a closed loop on the module, for a while or until work() has returned."""
    system = gateway.System(daemon.address, [daemon.process.pid], [], "Authorization: Bearer " + daemon.token)
    length = len(system.get("/small").body)
    seconds = UPGRADES_WITHIN_S if work else BASE_S
    command = gateway.load_command(system, [(CONNECTIONS, length, "/small")], "--warm-up", gateway.WARM_UP_S, "--seconds", seconds, "--until-eof")
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        if process.stdout.readline() == b"measuring\n":
            work() if work else time.sleep(BASE_S)
        out, err = process.communicate()  # whose end of the input ends the load
    except BaseException:
        process.kill()
        process.communicate()
        raise
    if process.returncode != 0:
        raise SystemExit(f"the load beside upgrades gave up: {err.decode()}")
    group = json.loads(out)["groups"][0]
    return {"p50_us": group["p50_us"], "p99_us": group["p99_us"], "max_us": group["max_us"], "requests": group["requests"], "failed": group["errors"]}


def upgrade(daemon, path):
    """The status of the answer, the milliseconds it took, and the answer."""
    began = time.monotonic()
    answer = daemon.post("/api/v1/modules/bench/upgrade", {"path": str(path)})
    return answer.status, (time.monotonic() - began) * 1000, answer


def upgrades(options, notes, add):
    with folder_for("modules") as modules_dir, folder_for("versions") as versions:
        bench_modules(["bench"], modules_dir)

        def version(number):
            bench_modules(["bench"], versions / str(number), version=f"1.0.{number}")
            return versions / str(number) / "bench"

        for number in range(options.upgrades + 1):
            version(number + 1)
        with daemon_with(["bench"], modules_dir) as daemon:
            status, _took, answer = upgrade(daemon, versions / "1" / "bench")
            if status in (404, 405, 501):
                notes["upgrade"] = f"this daemon does not upgrade (POST …/upgrade: {status} {answer.error['code']})"
                return
            if status != 200:
                raise SystemExit(f"the first upgrade failed: {answer}")

            def in_a_row():
                for number in range(2, options.upgrades + 2):
                    status, took, answer = upgrade(daemon, versions / str(number) / "bench")
                    if status != 200:
                        raise SystemExit(f"upgrade {number} failed: {answer}")
                    add("upgrade", "upgrade_ms", took)

            for which, work in (("without", None), ("with", in_a_row), ("without", None)):
                for figure, value in load_beside(daemon, work).items():
                    add("upgrade", f"{figure} {which}", value)
            if (running := daemon.module("bench")["version"]) != f"1.0.{options.upgrades + 1}":
                raise SystemExit(f"after the last upgrade it is at {running}")


# ---- idle ----


def cpu_s(pid):
    """CPU time of a process in seconds; 0 when it is gone. Its clock has no steps of 10 ms."""
    with contextlib.suppress(OSError):
        return time.clock_gettime(((~pid) << 3) | 2)
    return 0.0


def groups_of(daemon):
    """{who: pids} of what runs below and with the daemon."""
    table = harness.process_table()
    groups = {"supervisor": [daemon.process.pid], "PostgreSQL": [], "modules": []}
    for pid, _started in sorted(harness.descendants(daemon.process.pid)):
        name = table.get(pid, ("", "", "", ""))[3]
        for who, prefix in (("supervisor", "bulkhead"), ("PostgreSQL", "postgres"), ("modules", "bench-")):
            if name.startswith(prefix):
                groups[who].append(pid)
    return groups


def pss(pids):
    return sum(kilobytes(pid, "Pss") for pid in pids) / 1024


def at_rest(groups, seconds):
    """{who: percent of a core}; what ends meanwhile counts for nothing."""
    before, began = {pid: cpu_s(pid) for pids in groups.values() for pid in pids}, time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - began
    return {who: 100 * sum(max(0.0, cpu_s(pid) - before[pid]) for pid in pids) / took for who, pids in groups.items()}


def profile(pids):
    """Lines that say where the time of these goes: which thread in which library, and in which functions."""
    peers.install(["perf"])
    perf = shutil.which("perf", path=peers.PATH)
    with tempfile.NamedTemporaryFile(prefix="bh-perf-") as data:
        done = subprocess.run([perf, "record", "-q", "-F", "4999", "-o", data.name, "-p", ",".join(map(str, pids)), "--", "sleep", str(PROFILE_S)],
                              capture_output=True, text=True)
        if done.returncode != 0:
            return ["perf may not look here: " + " ".join(done.stderr.split())[:300]]
        lines = []
        for keys in ("comm,dso", "symbol"):
            report = gateway.checked([perf, "report", "-i", data.name, "--stdio", "--no-children", "-g", "none", "--percent-limit", "1", "-s", keys])
            found = [line.rstrip(" -").split() for line in report.splitlines() if line.strip() and not line.startswith("#")]
            lines += [" ".join(words)[:PROFILE_COLUMNS] for words in found[:PROFILE_LINES]]
    return lines


def idle(options, notes, add):
    with folder_for("modules") as modules_dir:
        with daemon_with([], modules_dir) as daemon:
            time.sleep(min(SETTLE_S, options.rest_seconds))
            empty = pss(groups_of(daemon)["supervisor"])
        names = bench_modules([f"bench-{i:03}" for i in range(options.idle_modules)], modules_dir)
        with daemon_with(names, modules_dir) as daemon:
            running = sum(module["observed"]["state"] == "RUNNING" for module in daemon.get("/api/v1/modules?pageSize=500").data)
            if running != len(names):
                raise SystemExit(f"{running} of {len(names)} modules run")
            wait_until(lambda: not syncing(daemon), "the end of initdb --sync-only", 120)
            time.sleep(min(SETTLE_S, options.rest_seconds))
            groups = groups_of(daemon)
            add("idle", "MB of a module", pss(groups["modules"]) / len(names))
            add("idle", "MB of the supervisor", pss(groups["supervisor"]))
            add("idle", "KB of the supervisor per module", 1024 * (pss(groups["supervisor"]) - empty) / len(names))
            shares = at_rest(groups, options.rest_seconds)
            for who, share in shares.items():
                add("idle", f"% of a core, {who}", share)
            if options.profile == "always" or (options.profile == "auto" and shares["supervisor"] > CPU_AIM):
                notes["where the supervisor's time goes at rest"] = profile(groups["supervisor"])


# ---- the table ----


def p95(values):
    return sorted(values)[min(len(values) - 1, int(0.95 * len(values)))]


def line(name, values, unit, aim=None, beside=""):
    median = statistics.median(values)
    missed = "  missed" if aim is not None and median > aim else ""
    numbers = "".join(f"{gateway.number(value):>9}" for value in (median, p95(values), min(values), max(values)))
    return (f"  {name:50}{numbers} {unit:4}{'' if aim is None else f'≤ {aim:g}':>8}{missed}{beside}").rstrip()


def ratio(samples, name, floor):
    return f"   {statistics.median(samples[name]) / statistics.median(samples[floor]):.1f}× of the floor" if floor in samples else ""


def print_table(samples, notes, options):
    print(f"\n{'':52}{'median':>9}{'p95':>9}{'min':>9}{'max':>9} {'':4}{'aim':>8}")
    if of := samples.get("kill"):
        print("kill -9 to the next 200")
        for name, values in of.items():
            floor = "floor: it answers Initialize" if name.startswith("bulkhead") else "floor: the backend alone"
            print(line(name, values, "ms", AIMS.get(name), "" if name.startswith(("floor", "bulkhead, ")) else ratio(of, name, floor)))
        for name, why in notes.get("peers not installed", {}).items():
            print(f"  {name:50}not installed: {why}")
    if of := samples.get("enable"):
        print("enable")
        for name, values in of.items():
            beside = "" if name.startswith("floor") else ratio(of, name, "floor: spawn and handshake of an empty program")
            print(line(name, values, "ms", None, beside))
    if of := samples.get("boot"):
        print(f"boot with {options.modules} modules side by side")
        for name, label, unit in (("boot_ms", "to ready", "ms"), ("floor_ms", "floor: PostgreSQL and as many empty programs", "ms"),
                                  ("per_module_ms", "a module", "ms"), ("all_mb", "memory of all of it (PSS)", "MB"),
                                  ("daemon_mb", "memory of the daemon (PSS)", "MB")):
            print(line(label, of[name], unit, None, ratio(of, name, "floor_ms") if name == "boot_ms" else ""))
    print_upgrades(samples.get("upgrade"), notes)
    if of := samples.get("idle"):
        print(f"at rest with {options.idle_modules} idle modules, {options.rest_seconds:g} s")
        for name, values in of.items():
            print(line(name, values, "", CPU_AIM if name == "% of a core, supervisor" else None))
    for text in notes.get("where the supervisor's time goes at rest", []):
        print("    " + text)


def print_upgrades(of, notes):
    if why := notes.get("upgrade"):
        print(f"upgrades under load: not measured, {why}")
    if of:
        print(f"{len(of['upgrade_ms'])} upgrades under {CONNECTIONS} connections: "
              f"{sum(of['failed with']):.0f} of {sum(of['requests with']):.0f} requests failed")
        print(line("an upgrade", of["upgrade_ms"], "ms"))
        for figure in ("p50", "p99", "max"):
            with_, without = of[f"{figure}_us with"], of[f"{figure}_us without"]
            print(line(f"{figure} without upgrades", without, "µs"))
            print(line(f"{figure} with", with_, "µs", None, f"   {statistics.median(with_) / statistics.median(without):.2f}×"))


def measure(options, notes):
    samples = {}

    def add(part, name, value):
        samples.setdefault(part, {}).setdefault(name, []).append(value)

    for number in range(options.rounds):
        for part, work in (("kill", kills), ("enable", enables), ("boot", boots), ("upgrade", upgrades), ("idle", idle)):
            if part in options.only and part not in notes:
                say(f"round {number + 1} of {options.rounds}: {part}…")
                work(options, notes, add)
    return samples


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is done, with fresh processes (default 3)")
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, with commas between (default {','.join(PARTS)})")
    parser.add_argument("--peers", default=",".join(supervisors.NAMES), help=f"with commas between, or none (default {','.join(supervisors.NAMES)})")
    parser.add_argument("--kills", type=int, default=16, help="of each system, per round (default 16)")
    parser.add_argument("--enables", type=int, default=5, help="per round (default 5)")
    parser.add_argument("--modules", type=int, default=50, help="that a boot starts (default 50)")
    parser.add_argument("--upgrades", type=int, default=100, help="in a row, per round (default 100)")
    parser.add_argument("--idle-modules", type=int, default=100, help="(default 100)")
    parser.add_argument("--rest-seconds", type=float, default=60, help="in which the CPU at rest is measured (default 60)")
    parser.add_argument("--profile", choices=("auto", "always", "never"), default="auto",
                        help="whether perf tells where the supervisor's time at rest goes; auto: when it takes more than the aim")
    parser.add_argument("--anyway", action="store_true", help="measure although others take CPU")
    parser.add_argument("--json", action="store_true", help="print the samples instead of the table")
    options = parser.parse_args()
    options.only = options.only.split(",")
    options.peers = [] if options.peers == "none" else options.peers.split(",")
    for what, given, known in (("--only", options.only, PARTS), ("--peers", options.peers, supervisors.NAMES)):
        if unknown := set(given) - set(known):
            parser.error(f"{what}: unknown {', '.join(sorted(unknown))}")
    return options


def main():
    options = arguments()
    for binary in (harness.BINARY, gateway.LOAD, gateway.BACKEND, run.HANDSHAKE):
        if not binary.exists():
            raise SystemExit(f"{binary} does not exist: build it first (sh tests/run.sh)")
    refused = supervisors.install(options.peers) if "kill" in options.only else {}
    notes = {"peers not installed": refused} if refused else {}
    if not options.anyway and (greedy := gateway.greedy_others()):
        raise SystemExit("the machine is not quiet, the figures would mean little (--anyway measures all the same):\n"
                         + "\n".join(f"  {share:.0f} % CPU  {command[:100]}" for share, command in greedy))
    notes["load average before"] = os.getloadavg()[0]
    try:
        samples = measure(options, notes)
    except AssertionError as error:
        raise SystemExit(str(error)) from None
    notes["load average after"] = os.getloadavg()[0]
    if options.json:
        print(json.dumps({"samples": samples, "notes": notes}))
        return
    print(f"{options.rounds} rounds, {CPUS} CPUs; load average {notes['load average before']:.2f} before, {notes['load average after']:.2f} after")
    print_table(samples, notes, options)


if __name__ == "__main__":
    main()
