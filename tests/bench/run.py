#!/usr/bin/python3
"""Measures the supervisor and prints a table: medians of several rounds, the aims, and what the parts cost by themselves in the same run.

    /usr/bin/python3 -B tests/bench/run.py [--rounds N] [--json]      with the build in build/, or in $BULKHEAD_BUILD
    /usr/bin/python3 -B tests/bench/run.py --all                      and then gateway.py: everything, in about fifteen minutes

Needs a machine that does nothing else. The module is consumption-monitor: three migrations, a database, one worker.
"""

import argparse
import http.client
import json
import os
import pathlib
import re
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
from own_server import postgres_tool, server_user  # noqa: E402

MODULE = "consumption-monitor"
HANDSHAKE = harness.BUILD / "tests" / "bench_handshake"  # an empty program, its medians of several runs
PATH = f"/api/v1/m/{MODULE}/live"
ENABLES = 3       # per round
KILLS = 2         # per round: fewer than what is restarted without backoff
SETTLE_S = 0.5    # before memory is read
PROBE_S = 0.001   # between two tries for an answer


class Probe:
    """Asks one path again and again on one kept connection, or on a new one when that has broken."""

    def __init__(self, address, path, token="none"):
        host, port = address.rsplit(":", 1)
        self.path = path
        self.connection = http.client.HTTPConnection(host, int(port), timeout=10)
        self.headers = {"Authorization": f"Bearer {token}"}

    def status(self):
        try:
            self.connection.request("GET", self.path, headers=self.headers)
            answer = self.connection.getresponse()
            answer.read()
            return answer.status
        except (OSError, http.client.HTTPException):
            self.connection.close()
            return 0

    def until_200(self, began, within=30):
        while self.status() != 200:
            if time.monotonic() - began > within:
                raise SystemExit(f"no 200 within {within} s")
            time.sleep(PROBE_S)
        return (time.monotonic() - began) * 1000


def kilobytes(pid, field, file="smaps_rollup"):
    found = re.search(rf"^{field}:\s+(\d+) kB", harness._read(f"/proc/{pid}/{file}").decode(), re.M)
    return int(found.group(1)) if found else 0


def memory(daemon):
    """Megabytes of the supervisor (daemon and spawner), of PostgreSQL and of the module."""
    table = harness.process_table()
    below = [pid for pid, _started in harness.descendants(daemon.process.pid)]
    spawner = [pid for pid in below if table[pid][0] == daemon.process.pid]
    postgres = [pid for pid in below if table[pid][3].startswith("postgres")]
    module = [pid for pid in below if table[pid][3].startswith("consumption")]
    ours = [daemon.process.pid, *spawner]
    return {"RSS of daemon and spawner": sum(kilobytes(pid, "VmRSS", "status") for pid in ours) / 1024,
            "PSS of daemon and spawner": sum(kilobytes(pid, "Pss") for pid in ours) / 1024,
            "PSS of PostgreSQL": sum(kilobytes(pid, "Pss") for pid in postgres) / 1024,
            "PSS of the module": sum(kilobytes(pid, "Pss") for pid in module) / 1024}


def floors():
    """What initdb and the start of PostgreSQL cost alone: (initdb ms, start ms)."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bh-floor-", dir="/tmp"))
    user = server_user()
    if user:
        os.chown(folder, user["user"], user["group"])
    try:
        began = time.monotonic()
        subprocess.run([postgres_tool("initdb"), "-D", folder / "data", "-U", "bulkhead", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"],
                       check=True, capture_output=True, cwd="/", **user)
        initdb = (time.monotonic() - began) * 1000
        began = time.monotonic()
        server = subprocess.Popen([postgres_tool("postgres"), "-D", folder / "data", "-k", folder, "-c", "listen_addresses=",
                                   "-c", "shared_buffers=16MB"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd="/", **user)
        for line in server.stderr:
            if b"ready to accept connections" in line:
                break
        start = (time.monotonic() - began) * 1000
        server.send_signal(signal.SIGINT)
        server.wait()
        server.stderr.close()
        return initdb, start
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def enable(daemon, probe, module=MODULE):
    if daemon.post(f"/api/v1/modules/{module}/disable").status != 200:
        raise SystemExit("disable failed")
    began = time.monotonic()
    answer = daemon.post(f"/api/v1/modules/{module}/enable")
    if answer.status != 200:
        raise SystemExit(f"enable failed: {answer}")
    return probe.until_200(began)


def kill(daemon, probe):
    pid = daemon.module(MODULE)["workers"][0]["pid"]
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    took = probe.until_200(began)
    wait_until(lambda: daemon.module(MODULE)["observed"]["state"] == "RUNNING", "running again")
    if daemon.module(MODULE)["workers"][0]["pid"] == pid:
        raise SystemExit("the killed process still answers")
    return took


def measure(rounds):
    samples = {}

    def add(name, value):
        samples.setdefault(name, []).append(value)

    for round_ in range(rounds):
        print(f"round {round_ + 1} of {rounds}…", file=sys.stderr, flush=True)
        initdb, start = floors()
        add("initdb alone", initdb)
        add("PostgreSQL start alone", start)
        add("spawn and gRPC handshake alone", float(subprocess.run([HANDSHAKE], check=True, capture_output=True, text=True).stdout.split()[1]))
        daemon = Daemon(modules=[MODULE], private_store=True)
        try:
            for name in ("boot to ready, first", "boot to ready, again"):
                daemon.start()
                add(name, daemon.ready_after_s * 1000)
                if name.endswith("first"):
                    daemon.stop()
            probe = Probe(daemon.address, PATH, daemon.token)
            probe.until_200(time.monotonic())
            time.sleep(SETTLE_S)
            for name, value in memory(daemon).items():
                add(name, value)
            for _ in range(ENABLES):
                add("enable to the first 200", enable(daemon, probe))
            for _ in range(KILLS):
                add("kill -9 to the next 200", kill(daemon, probe))
            _code, took = daemon.stop()
            add("stop", took * 1000)
        except AssertionError as error:
            raise SystemExit(str(error)) from None
        finally:
            daemon.clean_up()
    return samples


# What a figure cannot go below: the sum of these, measured in the same round.
FLOORS = {
    "boot to ready, first": ("initdb alone", "PostgreSQL start alone", "spawn and gRPC handshake alone"),
    "boot to ready, again": ("PostgreSQL start alone", "spawn and gRPC handshake alone"),
    "enable to the first 200": ("spawn and gRPC handshake alone",), "kill -9 to the next 200": ("spawn and gRPC handshake alone",),
}
# name: (aim, unit)
ROWS = {
    "boot to ready, first": (2000, "ms"), "boot to ready, again": (500, "ms"), "enable to the first 200": (80, "ms"),
    "kill -9 to the next 200": (60, "ms"), "stop": (30000, "ms"), "RSS of daemon and spawner": (None, "MB"), "PSS of daemon and spawner": (40, "MB"),
    "PSS of PostgreSQL": (None, "MB"), "PSS of the module": (None, "MB"), "initdb alone": (None, "ms"), "PostgreSQL start alone": (None, "ms"),
    "spawn and gRPC handshake alone": (None, "ms"),
}


def print_table(samples):
    print(f"\n{'':32}{'median':>10}{'min':>9}{'max':>9}{'floor':>9}{'to floor':>10}{'aim':>8}")
    for name, (aim, unit) in ROWS.items():
        values, median = samples[name], statistics.median(samples[name])
        digits = 1 if unit == "MB" or median < 100 else 0
        floor = sum(statistics.median(samples[part]) for part in FLOORS.get(name, ()))
        beside = f"{floor:>9.{0 if floor >= 100 else 1}f}{median / floor:>9.1f}×" if floor else " " * 19
        print(f"{name:32}{median:>7.{digits}f} {unit}{min(values):>9.{digits}f}{max(values):>9.{digits}f}{beside}"
              f"{'' if aim is None else aim:>8}{'' if aim is None or median <= aim else '  missed'}".rstrip())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is done (default 5)")
    parser.add_argument("--all", action="store_true", help="behind it the gateway beside nginx and HAProxy, too (gateway.py)")
    parser.add_argument("--json", action="store_true", help="print the samples instead of the table")
    options = parser.parse_args()
    if not harness.BINARY.exists():
        raise SystemExit(f"{harness.BINARY} does not exist: build it first (sh deploy/quickstart.sh or sh tests/run.sh)")
    samples = measure(options.rounds)
    if options.json:
        print(json.dumps(samples))
        return
    print_table(samples)
    if options.all:
        sys.stdout.flush()
        raise SystemExit(subprocess.run([sys.executable, "-B", pathlib.Path(__file__).with_name("gateway.py")]).returncode)


if __name__ == "__main__":
    main()
