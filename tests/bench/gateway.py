#!/usr/bin/python3
"""Measures the gateway beside nginx and HAProxy and prints one table: medians of interleaved rounds with their extremes.

    /usr/bin/python3 -B tests/bench/gateway.py [--rounds N] [--seconds S] [--only bulkhead,nginx] [--json]

With the build in build/, or in $BULKHEAD_BUILD. Installs nginx, HAProxy and perf where they are missing (as root). Wants a machine that does
nothing else: a measurement waits while others take CPU, and is repeated when they did; without end it refuses. The whole proxy (all threads of
the daemon; nginx with one worker; HAProxy with one thread) is pinned to one CPU; load generator, module and backend are on another. Our side
checks a Bearer token and a permission; the peers pass on what they get.
"""

import argparse
import contextlib
import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

import harness  # noqa: E402
import peers  # noqa: E402
from harness import Daemon, wait_until  # noqa: E402
from run import kilobytes  # noqa: E402

LOAD, BACKEND = harness.BUILD / "tests" / "bench_load", harness.BUILD / "tests" / "bench_backend"
MODULES = harness.BUILD / "tests" / "bench" / "modules"
SYSTEMS = ("bulkhead", "pool", "nginx", "haproxy")  # pool: the daemon's other column, the same route on the module's worker pool
PREFIX = "/api/v1/m/bench"

LEVELS = (16, 64, 256)       # connections
DOWNLOADS = 4                # beside 16 connections with small answers
IDLE_CONNECTIONS = 2000
WARM_UP_S = 0.4
SYSCALLS_S = 0.5
COUNT = ("-e", "raw_syscalls:sys_enter")  # perf's
OTHERS_PERCENT = 10          # of one CPU taken by other processes; beyond: a measurement waits, or is repeated
TRIES = 10                   # of one measurement
LOOK_S = 0.3                 # whether the machine is quiet
TICKS = os.sysconf("SC_CLK_TCK")


class System:
    """Something that answers HTTP at `address`: the pids of the proxy, and those of what stands behind it."""

    def __init__(self, address, proxy, behind, header=None, small="/small"):
        self.address, self.proxy, self.behind, self.header, self.small = address, proxy, behind, header, small

    def pids(self):
        return self.proxy + self.behind

    def get(self, path):
        name, _colon, value = (self.header or "X-None: none").partition(": ")
        answer = harness.request(self.address, "GET", PREFIX + path, headers={name: value})
        if answer.status != 200:
            raise SystemExit(f"{path} of {self.address}: {answer}")
        return answer


def pin(pid, cpu):
    for task in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(task), {cpu})


def threads_named(pid, name):
    return sum(harness._read(f"/proc/{pid}/task/{task}/comm").strip() == name.encode() for task in os.listdir(f"/proc/{pid}/task"))


def stop_process(process):
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def running(names, cpus, notes):
    """{name: System} of fresh processes, each where it belongs; what is started here ends here."""
    with contextlib.ExitStack() as stack:
        systems = {}
        if "bulkhead" in names:
            daemon = Daemon(modules=["bench"], modules_dir=MODULES)
            stack.callback(daemon.clean_up)
            daemon.start()
            wait_until(lambda: daemon.module("bench")["observed"]["state"] == "RUNNING", "the module runs")
            module = daemon.module("bench")["workers"][0]["pid"]
            pin(daemon.process.pid, cpus["proxy"])
            pin(module, cpus["module"])
            notes["gateway threads"] = threads_named(daemon.process.pid, "gateway")
            header = "Authorization: Bearer " + daemon.make_token("bench", "bench:read")
            for name, small in (("bulkhead", "/small"), ("pool", "/pool/small")):
                systems[name] = System(daemon.address, [daemon.process.pid], [module], header, small)
        if set(names) & set(peers.SERVICES):
            folder = pathlib.Path(tempfile.mkdtemp(prefix="bh-bench-", dir="/tmp"))
            stack.callback(shutil.rmtree, folder, True)
            folder.chmod(0o711)  # nginx's worker is another user
            socket = folder / "backend"
            backend = subprocess.Popen([BACKEND, socket], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            stack.callback(stop_process, backend)
            backend.stdout.readline()
            pin(backend.pid, cpus["module"])
            for name in peers.SERVICES:
                if name in names:
                    address = f"127.0.0.1:{harness.free_port()}"
                    process = peers.start(name, folder, address, socket, cpus["proxy"])
                    stack.callback(stop_process, process)
                    wait_until(lambda: answers(address) or process.poll() is not None, f"{name} answers", 10)
                    if process.poll() is not None:
                        said = (folder / f"{name}.out").read_text() + harness._read(folder / "nginx.log").decode()
                        raise SystemExit(f"{name} did not start:\n{said}")
                    children = [pid for pid, _started in harness.descendants(process.pid)]
                    systems[name] = System(address, [process.pid, *children], [backend.pid])
        yield systems


def answers(address):
    with contextlib.suppress(OSError):
        return harness.request(address, "GET", PREFIX + "/small", timeout=1).status == 200


def same_lengths(systems):
    """{path: bytes}, after a look at whether all send the same."""
    found = {}
    for path in ("/small", "/64k", "/1m"):
        bodies = {name: system.get(system.small if path == "/small" else path).body for name, system in systems.items()}
        if len(set(bodies.values())) != 1:
            raise SystemExit(f"{path} differs: {({name: len(body) for name, body in bodies.items()})}")
        found[path] = len(next(iter(bodies.values())))
    return found


# ---- the machine ----


def cpu_ticks(pid):
    stat = harness._read(f"/proc/{pid}/stat").decode("utf-8", "replace")
    fields = stat[stat.rindex(")") + 2:].split() if stat else ["0"] * 13
    return int(fields[11]) + int(fields[12])


def busy_ticks():
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, harness._read("/proc/stat").split()[1:9])
    return user + nice + system + irq + softirq + steal


def greedy_others(over_s=1.0):
    """[(percent of one CPU, command)] of other processes that take more than they may beside a measurement."""
    before = {pid: cpu_ticks(pid) for pid in harness.process_table()}
    time.sleep(over_s)
    shares = [(100 * (cpu_ticks(pid) - ticks) / TICKS / over_s, harness.describe((pid, 0))) for pid, ticks in before.items() if pid != os.getpid()]
    return sorted((share for share in shares if share[0] > OTHERS_PERCENT), reverse=True)


class Watch:
    """How much of a CPU neither we nor the processes we watch took since begin(), in percent."""

    def __init__(self, pids):
        self.pids = pids
        self.began = (time.monotonic(), busy_ticks(), self._ours())

    def _ours(self):
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        own = resource.getrusage(resource.RUSAGE_SELF)
        return sum(cpu_ticks(pid) for pid in self.pids) / TICKS + sum(u.ru_utime + u.ru_stime for u in (children, own))

    def others(self):
        began, busy, ours = self.began
        return 100 * ((busy_ticks() - busy) / TICKS - (self._ours() - ours)) / (time.monotonic() - began)


# ---- measurements: each answers {figure: value} ----


def checked(command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stderr}")
    return done.stdout


def load_command(system, groups, *options):
    header = ["--header", system.header] if system.header else []
    return [str(LOAD), "--to", system.address, *header, *map(str, options), *(f"{n}:{length}:{PREFIX}{path}" for n, length, path in groups)]


class Bench:
    def __init__(self, options, cpus):
        self.options, self.cpus = options, cpus
        self.notes = {"measurements repeated": 0, "disturbed all the same": 0}
        self.perf = shutil.which("perf", path=peers.PATH)
        self.counts = self.perf is not None and subprocess.run([self.perf, "stat", *COUNT, "true"], capture_output=True).returncode == 0
        self.notes["syscalls"] = "counted by perf" if self.counts else "not counted: perf is missing or may not see them here"
        self.samples = {}  # {scenario: {figure: {system: [a value per round]}}}
        self.lengths = {}

    def wait_for_quiet(self):
        deadline = time.monotonic() + (0 if self.options.anyway else self.options.patience)
        while time.monotonic() < deadline:
            watch = Watch([])
            time.sleep(LOOK_S)
            if watch.others() <= OTHERS_PERCENT:
                return

    def load(self, system, groups):
        watched = (word for pid in system.pids() for word in ("--cpu", pid))
        command = load_command(system, groups, "--warm-up", min(WARM_UP_S, self.options.seconds), "--seconds", self.options.seconds, *watched)
        for left in reversed(range(1 if self.options.anyway else TRIES)):
            self.wait_for_quiet()
            watch = Watch(system.pids())
            result = json.loads(checked(command))
            if watch.others() <= OTHERS_PERCENT:
                break
            self.notes["measurements repeated" if left else "disturbed all the same"] += 1
        errors = sum(group["errors"] for group in result["groups"])
        if errors:
            raise SystemExit(f"{errors} answers were wrong: {' '.join(command)}")
        result["proxy_s"], result["both_s"] = sum(result["cpu_s"][:len(system.proxy)]), sum(result["cpu_s"])
        return result

    def small_gets(self, system, level):
        result = self.load(system, [(level, self.lengths["/small"], system.small)])
        group = result["groups"][0]
        per_request = 1e6 / group["requests"]
        return {"proxy_us": result["proxy_s"] * per_request, "behind_us": (result["both_s"] - result["proxy_s"]) * per_request,
                "both_us": result["both_s"] * per_request, "rate": group["requests"] / result["seconds"], "p50_us": group["p50_us"],
                "p99_us": group["p99_us"], "busy": 100 * result["proxy_s"] / result["seconds"], "load_us": result["own_cpu_s"] * per_request}

    def beside_downloads(self, system):
        length = self.lengths["/1m"]
        result = self.load(system, [(16, self.lengths["/small"], system.small), (DOWNLOADS, length, "/1m")])
        small, large = result["groups"]
        return {"p50_us": small["p50_us"], "p99_us": small["p99_us"], "rate": small["requests"] / result["seconds"],
                "mb_s": large["requests"] * length / 1e6 / result["seconds"]}

    def downloads(self, system, connections, path):
        result = self.load(system, [(connections, self.lengths[path], path)])
        megabytes = result["groups"][0]["requests"] * self.lengths[path] / 1e6
        return {"mb_s": megabytes / result["seconds"], "proxy_us_mb": result["proxy_s"] * 1e6 / megabytes,
                "both_us_mb": result["both_s"] * 1e6 / megabytes}

    def syscalls(self, system, level):
        """Counted from connecting to the end, so with the warm-up on both sides of the division."""
        group = (level, self.lengths["/small"], system.small)
        of_proxy = {task for pid in system.proxy for task in os.listdir(f"/proc/{pid}/task")}
        with tempfile.NamedTemporaryFile(prefix="bh-perf-") as out:
            output = checked([self.perf, "stat", "-x,", "--per-thread", *COUNT, "-o", out.name,
                              "-p", ",".join(map(str, system.pids())), "--",
                              *load_command(system, [group], "--warm-up", 0.1, "--seconds", min(self.options.seconds, SYSCALLS_S))])
            lines = [line.split(",") for line in pathlib.Path(out.name).read_text().splitlines()]
        calls = {"syscalls": 0, "behind_syscalls": 0}
        for thread, count, *_rest in (line for line in lines if len(line) > 3 and line[1].isdigit()):
            calls["syscalls" if thread.rsplit("-", 1)[1] in of_proxy else "behind_syscalls"] += int(count)
        requests = json.loads(output)["groups"][0]["total"]
        return {name: count / requests for name, count in calls.items()}

    def idle_memory(self, system):
        connections = self.options.idle
        before = sum(kilobytes(pid, "Pss_Anon") for pid in system.proxy)
        command = load_command(system, [(connections, self.lengths["/small"], system.small)], "--idle")
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if process.stdout.readline() != b"ready\n":
            raise SystemExit("the idle connections could not be made")
        after = sum(kilobytes(pid, "Pss_Anon") for pid in system.proxy)
        process.communicate()
        return {"kib": (after - before) / connections}

    def round(self, systems, number):
        """Everything once; the systems take turns within each scenario, and each round begins with another."""
        self.lengths = same_lengths(systems)
        order = list(systems.items())
        order = order[number % len(order):] + order[:number % len(order)]

        def scenario(title, run, *arguments, pool=False):
            for name, system in order:
                if name == "pool" and not pool:
                    continue
                for figure, value in run(system, *arguments).items():
                    self.samples.setdefault(title, {}).setdefault(figure, {}).setdefault(name, []).append(value)

        scenario("idle", self.idle_memory)
        for level in LEVELS:
            scenario(f"small {level}", self.small_gets, level, pool=True)
        scenario("beside", self.beside_downloads)
        scenario("64k", self.downloads, 16, "/64k")
        scenario("1m", self.downloads, 4, "/1m")
        for level in LEVELS if self.counts else ():
            scenario(f"small {level}", self.syscalls, level, pool=True)

    def run(self, names):
        for number in range(self.options.rounds):
            print(f"round {number + 1} of {self.options.rounds}…", file=sys.stderr, flush=True)
            with running(names, self.cpus, self.notes) as systems:
                self.round(systems, number)


# ---- the table ----

SMALL = [("proxy_us", "CPU of the proxy, µs per request"), ("behind_us", "CPU of module or backend, µs"), ("both_us", "both, µs"),
         ("rate", "requests/s"), ("p50_us", "p50, µs"), ("p99_us", "p99, µs"), ("syscalls", "syscalls of the proxy per request"),
         ("behind_syscalls", "syscalls of module or backend"), ("busy", "share of its CPU the proxy takes, %"),
         ("load_us", "CPU of the load generator, µs")]
BIG = [("mb_s", "MB/s"), ("proxy_us_mb", "CPU of the proxy, µs per MB"), ("both_us_mb", "with module or backend, µs per MB")]
SECTIONS = [*((f"small {n}", f"small GETs, {n} connections", SMALL) for n in LEVELS),
            ("beside", f"small GETs, 16 connections, beside {DOWNLOADS} downloads of 1 MiB",
             [("p50_us", "p50, µs"), ("p99_us", "p99, µs"), ("rate", "requests/s"), ("mb_s", "MB/s of the downloads")]),
            ("64k", "answers of 64 KiB, 16 connections", BIG), ("1m", "answers of 1 MiB, 4 connections", BIG),
            ("idle", "an idle connection that has made one request", [("kib", "memory of the proxy, KiB")])]
# Of the ratio to nginx: at most, but at least for rates.
AIMS = {("small 16", "proxy_us"): 0.8, ("small 64", "proxy_us"): 0.65, ("small 256", "proxy_us"): 0.55, ("small 64", "both_us"): 0.6,
        ("small 64", "rate"): 1.2, ("beside", "p99_us"): 0.4}


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def print_table(samples, names):
    print(f"\n{'':38}" + "".join(f"{name:>24}" for name in names) + f"{'to nginx':>10}{'aim':>8}")
    for scenario, title, figures in SECTIONS:
        print(title)
        for figure, label in figures:
            values = samples[scenario].get(figure, {})
            if not values:
                print(f"  {label:36}{'not counted':>9}")
                continue
            line = f"  {label:36}"
            for name in names:
                of = values.get(name)
                spread = f"{number(min(of))}–{number(max(of))}" if of and len(of) > 1 else ""
                line += f"{number(statistics.median(of)):>9}  {spread:13}" if of else f"{'':24}"
            if "bulkhead" in values and "nginx" in values and statistics.median(values["nginx"]) > 0:
                ratio, aim = statistics.median(values["bulkhead"]) / statistics.median(values["nginx"]), AIMS.get((scenario, figure))
                line += f"{ratio:>9.2f}×"
                if aim is not None:
                    met = ratio >= aim if figure == "rate" else ratio <= aim
                    line += f"{'≥' if figure == 'rate' else '≤'} {aim:.2f}×".rjust(8) + ("" if met else "  missed")
            print(line.rstrip())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is done, with fresh processes (default 5)")
    parser.add_argument("--seconds", type=float, default=2, help="of each measurement, behind a warm-up (default 2)")
    parser.add_argument("--only", help="of bulkhead, nginx and haproxy, with commas between (default all)")
    parser.add_argument("--idle", type=int, default=IDLE_CONNECTIONS, help=f"idle connections (default {IDLE_CONNECTIONS})")
    parser.add_argument("--patience", type=float, default=60, help="seconds that a measurement waits for a quiet machine (default 60)")
    parser.add_argument("--anyway", action="store_true", help="measure although others take CPU; neither wait nor repeat")
    parser.add_argument("--json", action="store_true", help="print the samples instead of the table")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else ["bulkhead", *peers.SERVICES]
    if unknown := set(names) - {"bulkhead", *peers.SERVICES}:
        parser.error(f"--only: unknown {', '.join(sorted(unknown))}")
    for binary in (harness.BINARY, LOAD, BACKEND):
        if not binary.exists():
            raise SystemExit(f"{binary} does not exist: build it first (sh tests/run.sh)")
    peers.install([name for name in names if name in peers.SERVICES] + (["perf"] if len(names) > 1 else []))
    usable = sorted(os.sched_getaffinity(0))
    cpus = {"proxy": usable[-1], "load": usable[0], "module": usable[1] if len(usable) > 2 else usable[0]}
    os.sched_setaffinity(0, {cpus["load"]})  # and so everything started from here
    bench = Bench(options, cpus)
    bench.wait_for_quiet()
    if not options.anyway and (greedy := greedy_others()):
        raise SystemExit("the machine is not quiet, the figures would mean little (--anyway measures all the same):\n"
                         + "\n".join(f"  {share:.0f} % CPU  {command[:100]}" for share, command in greedy))
    bench.notes["load average before"] = os.getloadavg()[0]
    try:
        bench.run(names)
    except AssertionError as error:
        raise SystemExit(str(error)) from None
    bench.notes["load average after"] = os.getloadavg()[0]
    if options.json:
        print(json.dumps({"samples": bench.samples, "notes": bench.notes, "cpus": cpus}))
        return
    print(f"proxy on CPU {cpus['proxy']}; load generator on CPU {cpus['load']}, module and backend on CPU {cpus['module']}; "
          f"{options.rounds} rounds of {options.seconds:g} s; median, least–most")
    print("; ".join(f"{name}: {round(value, 2)}" if isinstance(value, float) else f"{name}: {value}" for name, value in bench.notes.items()))
    samples = bench.samples
    print_table(samples, [name for name in SYSTEMS if name in samples["small 64"]["rate"]])


if __name__ == "__main__":
    main()
