#!/usr/bin/python3
"""kill -9 of a module's workers under load, and what its clients see of that.

    /usr/bin/python3 -B tests/chaos/worker_kills.py [--seconds S] [--interval S] [--connections N] [--seed N]

Two rounds, each 30 s with one kill a second by default: first one of two workers is killed each time, chosen by chance, then the only one. A
kill waits until all workers serve. Prints the seed and a table. Of two workers no GET may fail; of one, each that fails must be a 503 with
Retry-After. Ends with 1 when it was otherwise. With the build in build/, or in $BULKHEAD_BUILD.
"""

import argparse
import collections
import http.client
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

from harness import REQUEST_TIMEOUT_S, SLOW, Daemon, wait_until  # noqa: E402
from modules_test import echo_like  # noqa: E402

MODULE = "killed"
# Some that take a moment, so that a kill finds them in flight.
PATHS = ("/inline", "/echo", "/slow?ms=10")
RESTART = {"burst": 1000, "window": 100_000}


class Load:
    """GETs in a closed loop on kept connections; counts the outcomes."""

    def __init__(self, daemon, connections):
        self.outcomes, self.slowest_s = collections.Counter(), 0.0
        self._lock, self._done = threading.Lock(), threading.Event()
        self._address, self._headers = daemon.address, {"Authorization": f"Bearer {daemon.token}"}
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(connections)]
        for thread in self._threads:
            thread.start()

    def _run(self, number):
        path = f"/api/v1/m/{MODULE}{PATHS[number % len(PATHS)]}"
        connection = http.client.HTTPConnection(*self._address.rsplit(":", 1), timeout=REQUEST_TIMEOUT_S)
        while not self._done.is_set():
            began = time.monotonic()
            try:
                connection.request("GET", path, headers=self._headers)
                answer = connection.getresponse()
                body = answer.read()
                outcome = str(answer.status)
                if answer.status == 503 and not answer.getheader("Retry-After"):
                    outcome = "503 without Retry-After"
                elif answer.status not in (200, 503):
                    outcome = f"{answer.status} {body[:120]!r}"
            except (OSError, http.client.HTTPException) as error:
                outcome = repr(error)
                connection.close()
            with self._lock:
                self.outcomes[outcome] += 1
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        connection.close()

    def total(self):
        with self._lock:
            return sum(self.outcomes.values())

    def stop(self):
        self._done.set()
        for thread in self._threads:
            thread.join()


def running_pids(daemon, workers):
    """The pids of all workers, once as many as are wanted serve; else nothing."""
    found = [worker["pid"] for worker in daemon.module(MODULE)["workers"] if worker["ready"]]
    return found if len(found) == workers else None


def kill_workers(workers, seconds, interval, connections, seed):
    """One round: {workers, kills, requests, outcomes, slowest_s, causes}."""
    chance = random.Random(f"{seed} {workers}")
    modules = pathlib.Path(tempfile.mkdtemp(prefix="bh-", dir="/tmp"))
    modules.chmod(0o755)
    echo_like(modules, MODULE, workers=workers, restart=RESTART)
    daemon = Daemon(modules=[MODULE], modules_dir=modules)
    load, kills, never = None, 0, threading.Event()
    try:
        daemon.start()
        pids = wait_until(lambda: running_pids(daemon, workers), f"{workers} workers")
        load = Load(daemon, connections)
        wait_until(lambda: load.total() > 10 * connections, "the first answers")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            next_kill = time.monotonic() + interval
            pid = chance.choice(sorted(pids))
            os.kill(pid, signal.SIGKILL)
            kills += 1
            pids = wait_until(lambda: (lambda now: now if now and pid not in now else None)(running_pids(daemon, workers)),  # noqa: B023
                              f"a successor of {pid}", 30 * SLOW)
            never.wait(max(0, next_kill - time.monotonic()))
        before = load.total()
        wait_until(lambda: load.total() > before + connections, "answers after the last kill")
        load.stop()
        module = daemon.module(MODULE)
        return {"workers": workers, "kills": kills, "requests": load.total(), "outcomes": dict(load.outcomes), "slowest_s": load.slowest_s,
                "causes": module["exitCounts"]}
    finally:
        if load:
            load.stop()
        daemon.clean_up()
        shutil.rmtree(modules, ignore_errors=True)


def forbidden(result):
    """Of the outcomes those that must not be."""
    allowed = {"200"} if result["workers"] > 1 else {"200", "503"}
    return {outcome: count for outcome, count in result["outcomes"].items() if outcome not in allowed}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=30, help="of each round")
    parser.add_argument("--interval", type=float, default=1, help="between two kills")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    print(f"{'workers':>7} {'kills':>5} {'requests':>8} {'200':>8} {'503':>5} {'other':>5} {'slowest':>8}  exits", flush=True)
    wrong = []
    for workers in (2, 1):
        result = kill_workers(workers, options.seconds, options.interval, options.connections, options.seed)
        well, unavailable = (result["outcomes"].get(status, 0) for status in ("200", "503"))
        causes = ", ".join(f"{count} {cause}" for cause, count in result["causes"].items())
        print(f"{workers:>7} {result['kills']:>5} {result['requests']:>8} {well:>8} {unavailable:>5} {result['requests'] - well - unavailable:>5} "
              f"{result['slowest_s'] * 1000:>5.0f} ms  {causes}", flush=True)
        if bad := forbidden(result):
            wrong.append(f"with {workers} workers: {bad}")
    for sentence in wrong:
        print(f"must not be, {sentence}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
