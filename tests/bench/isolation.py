#!/usr/bin/python3
"""Measures what isolation costs: one daemon with every measure beside one on which the operator has switched off what can be, in turns; medians and extremes.

    /usr/bin/python3 -B tests/bench/isolation.py [--rounds N] [--seconds S] [--starts N] [--json]

With the build in build/, or in $BULKHEAD_BUILD. As root, because only then there is anything to compare but Landlock and seccomp. Wants a
machine that does nothing else. The data folders are outside of /tmp, so that the modules have one of their own.
"""

import argparse
import contextlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

import harness  # noqa: E402
from harness import Daemon, wait_until  # noqa: E402

LOAD = harness.BUILD / "tests" / "bench_load"
MODULES = harness.BUILD / "tests" / "bench" / "modules"
MODULE, PATH = "bench", "/api/v1/m/bench/small"
OFF = "landlock,seccomp,network,tmp,proc,ipc"
SIDES = {"isolated": (), "without": ("--isolation-off", OFF)}
CONNECTIONS = 16
PROBE_S, PATIENCE_S = 0.001, 30
KILLS_BETWEEN_ENABLES = 3  # fewer than what is restarted without backoff
FIGURES = [("start_ms", "enable -> first 200, ms"), ("restart_ms", "kill -9 -> next 200, ms"), ("module_us", "CPU of the module, us per request"),
           ("both_us", "CPU of gateway and module, us per request"), ("rate", "requests/s"), ("p50_us", "p50, us"), ("p99_us", "p99, us")]


class Probe:
    """Asks the module again and again on one kept connection."""

    def __init__(self, daemon):
        host, port = daemon.address.rsplit(":", 1)
        self.connection = http.client.HTTPConnection(host, int(port), timeout=10)
        self.headers = {"Authorization": f"Bearer {daemon.token}"}

    def status(self):
        try:
            self.connection.request("GET", PATH, headers=self.headers)
            answer = self.connection.getresponse()
            answer.read()
            return answer.status
        except (OSError, http.client.HTTPException):
            self.connection.close()
            return 0

    def until_200(self, began):
        """Milliseconds."""
        while self.status() != 200:
            if time.monotonic() - began > PATIENCE_S:
                raise SystemExit(f"no 200 within {PATIENCE_S} s")
            time.sleep(PROBE_S)
        return (time.monotonic() - began) * 1000


@contextlib.contextmanager
def both():
    """{side: (daemon, probe)}, both running."""
    with contextlib.ExitStack() as stack:
        sides = {}
        for side, options in SIDES.items():
            folder = pathlib.Path(tempfile.mkdtemp(prefix="bh-bench-", dir="/var/lib" if harness.IS_ROOT else "/tmp"))
            stack.callback(shutil.rmtree, folder, True)
            folder.chmod(0o711)
            daemon = Daemon(modules=[MODULE], modules_dir=MODULES, folder=folder, args=options, private_store=True)
            stack.callback(daemon.clean_up)
            daemon.start()
            sides[side] = daemon, Probe(daemon)
        yield sides


def start(daemon, probe):
    if daemon.post(f"/api/v1/modules/{MODULE}/disable").status != 200:
        raise SystemExit("disable failed")
    began = time.monotonic()
    answer = daemon.post(f"/api/v1/modules/{MODULE}/enable")
    if answer.status != 200:
        raise SystemExit(f"enable failed: {answer}")
    return {"start_ms": probe.until_200(began)}


def restart(daemon, probe):
    pid = daemon.module(MODULE)["workers"][0]["pid"]
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    took = probe.until_200(began)
    wait_until(lambda: daemon.module(MODULE)["observed"]["state"] == "RUNNING" and daemon.module(MODULE)["workers"][0]["pid"] != pid, "running again")
    return {"restart_ms": took}


def requests(daemon, header, length, seconds):
    pids = [daemon.process.pid, daemon.module(MODULE)["workers"][0]["pid"]]
    watched = [word for pid in pids for word in ("--cpu", str(pid))]
    command = [str(LOAD), "--to", daemon.address, "--header", header, "--warm-up", str(min(0.4, seconds)), "--seconds", str(seconds), *watched,
               f"{CONNECTIONS}:{length}:{PATH}"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    result = json.loads(done.stdout)
    group = result["groups"][0]
    if group["errors"]:
        raise SystemExit(f"{group['errors']} answers were wrong: {' '.join(command)}")
    per_request = 1e6 / group["requests"]
    return {"module_us": result["cpu_s"][1] * per_request, "both_us": sum(result["cpu_s"]) * per_request, "rate": group["requests"] / result["seconds"],
            "p50_us": group["p50_us"], "p99_us": group["p99_us"]}


def measure(options):
    """{figure: {side: [values]}} and what was in force on each side."""
    samples, in_force = {}, {}

    def add(side, figures):
        for figure, value in figures.items():
            samples.setdefault(figure, {}).setdefault(side, []).append(value)

    with both() as sides:
        headers = {side: "Authorization: Bearer " + daemon.make_token("bench", "bench:read") for side, (daemon, _probe) in sides.items()}
        length = len(next(iter(sides.values()))[0].get(PATH).body)
        for side, (daemon, _probe) in sides.items():
            in_force[side] = [item["name"] for item in daemon.module(MODULE)["isolation"] if item["state"] == "active"]
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}…", file=sys.stderr, flush=True)
            turns = list(sides.items())
            turns = turns[number % 2:] + turns[:number % 2]
            for _ in range(options.starts):
                for side, (daemon, probe) in turns:
                    add(side, start(daemon, probe))
                for _ in range(KILLS_BETWEEN_ENABLES):
                    for side, (daemon, probe) in turns:
                        add(side, restart(daemon, probe))
            for side, (daemon, _probe) in turns:
                add(side, requests(daemon, headers[side], length, options.seconds))
    return samples, in_force


def print_table(samples, in_force):
    print(f"{'':46}" + "".join(f"{side:>28}" for side in SIDES) + f"{'difference':>14}")
    for figure, label in FIGURES:
        medians = {side: statistics.median(samples[figure][side]) for side in SIDES}
        cells = "".join(f"{medians[side]:>10.2f} ({min(samples[figure][side]):.2f}..{max(samples[figure][side]):.2f})".rjust(28) for side in SIDES)
        print(f"{label:46}{cells}{medians['isolated'] - medians['without']:>+14.2f}")
    for side in SIDES:
        print(f"in force, {side}: {', '.join(in_force[side])}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--starts", type=int, default=3, help="enables of each side in a round, and three kills after each")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    samples, in_force = measure(options)
    if options.json:
        print(json.dumps({"samples": samples, "inForce": in_force}))
    else:
        print_table(samples, in_force)


if __name__ == "__main__":
    main()
