#!/usr/bin/python3
"""Measures a call from module to module beside the same call directly over HTTP between two plain processes, in turns.

    /usr/bin/python3 -B tests/bench/calls.py [--rounds N] [--calls N] [--json]

With the build in build/, or in $BULKHEAD_BUILD. One call at a time, on kept connections; the answers are the same bytes. A module's call goes
through the gateway: token, dependency, permission and route are checked, a worker is chosen, the call is counted. The direct one does nothing of this: a
blocking client and tests/bench/backend.cc, which answers whatever it is asked. CPU is what the kernel counts for all processes that take part.
Each is measured with all of them on one CPU, which is what a call costs, and with the caller on another CPU than the rest, where waking an
idle CPU costs more than all else.
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

import harness  # noqa: E402
from gateway import pin, stop_process  # noqa: E402
from harness import Daemon  # noqa: E402

BENCH = harness.BUILD / "tests"
BACKEND, DIRECT = BENCH / "bench_backend", BENCH / "bench_direct_calls"
WARM_UP = 500  # calls


def cpu_us(pid):
    """Of all threads that live now, in microseconds."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError):
            total += int(pathlib.Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
    return total / 1000


def by_modules(daemon, path):
    """A measurement: (calls, CPU of the caller, CPU of the rest) → {"p50", "p99", "cpu", and the shares of it}."""
    pids = {name: daemon.module(name)["workers"][0]["pid"] for name in ("callbench", "bench")}
    pids["supervisor"] = daemon.process.pid

    def measure(calls, caller, rest):
        for name, pid in pids.items():
            pin(pid, caller if name == "callbench" else rest)
        before = {name: cpu_us(pid) for name, pid in pids.items()}
        answer = daemon.get(f"/api/v1/m/callbench/run{path}?calls={calls}", timeout=300)
        if answer.status != 200:
            raise SystemExit(f"{path}: {answer}")
        share = {name: (cpu_us(pid) - before[name]) / calls for name, pid in pids.items()}
        return {**answer.data, "cpu": sum(share.values()), "caller": share["callbench"], "supervisor": share["supervisor"], "called": share["bench"]}
    return measure


def directly(address, backend):
    def measure(calls, caller, rest):
        pin(backend.pid, rest)
        before = cpu_us(backend.pid)
        command = ["taskset", "-c", str(caller), DIRECT, str(address), str(calls)]
        told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        called = (cpu_us(backend.pid) - before) / calls
        return {"p50": told["p50"], "p99": told["p99"], "cpu": told["cpu"] + called, "caller": told["cpu"], "supervisor": 0.0, "called": called}
    return measure


@contextlib.contextmanager
def ways():
    """{name: measurement}."""
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="bh-calls-", dir="/tmp"))
        stack.callback(shutil.rmtree, folder, True)
        folder.chmod(0o755)
        for source in (BENCH / "bench/modules/bench", BENCH / "bench/call_modules/callbench"):
            shutil.copytree(source, folder / source.name)
        daemon = Daemon(modules=["bench", "callbench"], modules_dir=folder)
        stack.callback(daemon.clean_up)
        daemon.start()
        for name in ("bench", "callbench"):
            daemon.wait_observed(name, "RUNNING")
        backends = {}
        for address in (f"127.0.0.1:{harness.free_port()}", folder / "backend"):
            backends[address] = subprocess.Popen([BACKEND, str(address)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            stack.callback(stop_process, backends[address])
            backends[address].stdout.readline()
        (tcp, tcp_backend), (unix, unix_backend) = backends.items()
        yield {"module to module, inline handler": by_modules(daemon, "/small"), "module to module, worker pool": by_modules(daemon, "/pool/small"),
               "direct, TCP on loopback": directly(tcp, tcp_backend), "direct, Unix socket": directly(unix, unix_backend)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=5000, help="in a round")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    first, *others = sorted(os.sched_getaffinity(0))
    places = {"one CPU": (first, first), **({"caller apart": (others[0], first)} if others else {})}
    results = {}
    with ways() as measures:
        for measure in measures.values():
            measure(WARM_UP, first, first)
        for _ in range(options.rounds):
            for place, cpus in places.items():
                for name, measure in measures.items():
                    results.setdefault(f"{name}; {place}", []).append(measure(options.calls, *cpus))
    if options.json:
        return print(json.dumps(results))
    print(f"microseconds of a call, one at a time; medians of {options.rounds} rounds of {options.calls} (lowest to highest)")
    print(f"{'':48}{'p50':>22}{'p99':>9}{'CPU':>20}   of it caller, supervisor, called")
    for name, rounds in results.items():
        of = {key: [one[key] for one in rounds] for key in rounds[0]}
        middle = {key: statistics.median(values) for key, values in of.items()}
        p50 = f"{middle['p50']:.1f} ({min(of['p50']):.1f}–{max(of['p50']):.1f})"
        cpu = f"{middle['cpu']:.1f} ({min(of['cpu']):.1f}–{max(of['cpu']):.1f})"
        print(f"{name:48}{p50:>22}{middle['p99']:>9.1f}{cpu:>20}   {middle['caller']:.1f}, {middle['supervisor']:.1f}, {middle['called']:.1f}")


if __name__ == "__main__":
    main()
