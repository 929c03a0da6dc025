#!/usr/bin/python3
"""Many runs of jobs under random kills of workers and of the supervisor: each must end, none may be executed twice at a time, and no older attempt may
write behind a newer one.

    /usr/bin/python3 -B tests/chaos/job_runs.py [--runs N] [--supervisors N] [--worker-kills S] [--daemon-kills S] [--seed N]

Queues N runs (100,000) of a job of tests/fakes/jobber, each numbered, and kills a worker every --worker-kills seconds and the supervisor
every --daemon-kills seconds by the mean, until all have ended. A run holds a lock for its number that the kernel takes from a process as it dies, and writes
its fence beside its effect. With --supervisors 2 and more, each has workers of its own and all have one database; one that is killed stays away for some
leases, so that the others take over what it ran. Prints the seed and what was seen; ends with 1 when a run is missing, has failed, or a lock or a
fence was violated. With the build in build/, or in $BULKHEAD_BUILD.
"""

import argparse
import collections
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

from harness import BUILD, SLOW, Daemon, wait_until  # noqa: E402
from own_server import OwnServer, ask  # noqa: E402

JOB, BATCH = "once", 10_000
MODULES = BUILD / "tests" / "jobs" / "modules"
LEASE_S = 30  # kRunLease


def data(answer):
    if answer.status != 200:
        raise RuntimeError(f"unexpected: {answer}")
    return answer.json.get("data", answer.json)


class Chaos:
    def __init__(self, options):
        self.options, self.random = options, random.Random(options.seed)
        self.kills, self.away = collections.Counter(), {}
        self.server = OwnServer() if options.supervisors > 1 else None
        self.daemons = [Daemon(modules=["jobber"], modules_dir=MODULES, config=f"store:\n  url: {self.server.url}\n" if self.server else "")]

    def start(self):
        [first] = self.daemons
        first.start()
        if self.options.supervisors == 1:
            return
        first.stop()
        lock = first.data / "modules" / "jobber" / "runs.lock"
        lock.touch()
        lock.chmod(0o666)
        for _ in range(1, self.options.supervisors):
            # The same secrets and packages, as two machines of a cluster have them, and the one file whose locks are looked at.
            folder = pathlib.Path(tempfile.mkdtemp(prefix="bh-", dir="/tmp"))
            subprocess.run(["cp", "-a", first.data, folder / "data"], check=True)
            (folder / "bulkhead.yaml").write_text(first.config_path.read_text())
            other = folder / lock.relative_to(first.folder)
            other.unlink()
            os.link(lock, other)
            self.daemons.append(Daemon(folder=folder, modules_dir=MODULES))
        for daemon in self.daemons:
            daemon.start()
            daemon.wait_observed("jobber", "RUNNING", within=60 * SLOW)

    @property
    def daemon(self):
        return next(daemon for daemon in self.daemons if daemon.running())

    def sql(self, statement):
        if self.server is None:
            return self.daemon.sql(statement)
        return [line.split("|") for line in ask(self.server.url, statement).splitlines()]

    def waiting(self):
        return int(self.sql(f"SELECT count(*) FROM bulkhead_internal.runs WHERE job = '{JOB}' AND status IN ('QUEUED', 'RUNNING')"
                            " OR (status = 'INTERRUPTED' AND error_code = 'SHUTDOWN')")[0][0])

    def fill(self):
        for first in range(0, self.options.runs, BATCH):
            count = min(BATCH, self.options.runs - first)
            data(self.daemon.post("/api/v1/m/jobber/fill", {"job": JOB, "from": first, "count": count, "ms": self.options.ms}, timeout=600))

    def kill_worker(self):
        daemon = self.random.choice([daemon for daemon in self.daemons if daemon.running()])
        pids = [worker["pid"] for worker in daemon.module("jobber")["workers"] if worker["pid"]]
        if not pids:
            return
        try:
            os.kill(self.random.choice(pids), signal.SIGKILL)
            self.kills["worker"] += 1
        except ProcessLookupError:
            pass

    def kill_daemon(self):
        running = [daemon for daemon in self.daemons if daemon.running()]
        if len(running) == 1 < len(self.daemons):
            return  # one always goes on
        daemon = self.random.choice(running)
        daemon.kill()
        daemon.assert_nothing_left(30 * SLOW)
        self.kills["supervisor"] += 1
        if len(self.daemons) == 1:
            self.start_again(daemon)
        else:
            self.away[daemon] = time.monotonic() + self.random.uniform(0, 2 * LEASE_S)

    def start_again(self, daemon):
        daemon.start()
        daemon.wait_observed("jobber", "RUNNING", "DEGRADED", within=60 * SLOW)

    def clean_up(self):
        for daemon in self.daemons:
            daemon.clean_up()
            if not daemon.owns_folder:
                shutil.rmtree(daemon.folder, ignore_errors=True)
        if self.server:
            self.server.remove()

    def next_time(self, mean):
        return time.monotonic() + self.random.expovariate(1 / mean) if mean else float("inf")

    def run(self):
        self.start()
        self.fill()
        began = time.monotonic()
        worker_at, daemon_at = self.next_time(self.options.worker_kills), self.next_time(self.options.daemon_kills)
        told = 0
        while True:
            now = time.monotonic()
            if now - began > self.options.limit:
                raise RuntimeError(f"{self.waiting()} runs have not ended within {self.options.limit} s")
            if now >= worker_at:
                self.kill_worker()
                worker_at = self.next_time(self.options.worker_kills)
            if now >= daemon_at:
                self.kill_daemon()
                daemon_at = self.next_time(self.options.daemon_kills)
            for daemon in [daemon for daemon, until in self.away.items() if now >= until]:
                del self.away[daemon]
                self.start_again(daemon)
            if now - told >= 1:
                told = now
                left = self.waiting()
                if left == 0:
                    break
            time.sleep(0.05)
        return time.monotonic() - began

    def judge(self, took):
        daemon = self.daemon
        daemon.wait_observed("jobber", "RUNNING", within=60 * SLOW)
        statuses = dict((status, int(count)) for status, count in
                        self.sql(f"SELECT status, count(*) FROM bulkhead_internal.runs WHERE job = '{JOB}' GROUP BY 1"))
        attempts = self.sql(f"SELECT count(*) FILTER (WHERE attempt > 1), max(attempt) FROM bulkhead_internal.runs WHERE job = '{JOB}'")[0]
        seen = data(daemon.get("/api/v1/m/jobber/effects"))
        counts, runs = seen["counts"], self.options.runs
        nodes = self.sql(f"SELECT count(*) FROM bulkhead_internal.runs WHERE job = '{JOB}' GROUP BY node ORDER BY 1")
        print(f"{runs} runs in {took:.1f} s ({runs / took:.0f}/s); kills: {dict(self.kills)}; ended by each node: "
              f"{', '.join(count for (count,) in nodes)}; statuses: {statuses}; more than one attempt: "
              f"{attempts[0]}, at most {attempts[1]}; effects: {counts['effects']}, executions that got that far: {counts['executions']}; "
              f"faults: {len(seen['faults'])}")
        wrong = []
        if statuses != {"SUCCEEDED": runs}:
            wrong.append(f"not all runs have succeeded: {statuses}")
        if counts["effects"] != runs:
            wrong.append(f"{runs - counts['effects']} effects are missing")
        wrong += [f"run {fault['n']}: {fault['what']}" for fault in seen["faults"]]
        return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--ms", type=int, default=2, help="that a run takes at least")
    parser.add_argument("--supervisors", type=int, default=1)
    parser.add_argument("--worker-kills", type=float, default=1.0, help="seconds between two, by the mean; 0: none")
    parser.add_argument("--daemon-kills", type=float, default=20.0, help="the same of the supervisor")
    parser.add_argument("--limit", type=float, default=3600.0, help="seconds for all")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    chaos, wrong = Chaos(options), ["it was broken off"]
    try:
        wrong = chaos.judge(chaos.run())
    finally:
        if wrong:
            print("\n".join(wrong))
            for daemon in chaos.daemons:
                print(daemon.log_tail())
        chaos.clean_up()
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
