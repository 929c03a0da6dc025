#!/usr/bin/python3
"""Many runs of jobs under random kills of workers and of the supervisor: each must end, none may be executed twice at a time, and no older attempt may
write behind a newer one.

    /usr/bin/python3 -B tests/chaos/job_runs.py [--runs N] [--worker-kills S] [--daemon-kills S] [--seed N]

Queues N runs (100,000) of a job of tests/fakes/jobber, each numbered, and kills a worker every --worker-kills seconds and the supervisor
every --daemon-kills seconds by the mean, until all have ended. A run holds a lock for its number that the kernel takes from a process as it dies, and writes
its fence beside its effect. Prints the seed and what was seen; ends with 1 when a run is missing, has failed, or a lock or a fence was violated. With
the build in build/, or in $BULKHEAD_BUILD.
"""

import argparse
import collections
import os
import pathlib
import random
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

from harness import BUILD, SLOW, Daemon, wait_until  # noqa: E402

JOB, BATCH = "once", 10_000


def data(answer):
    if answer.status != 200:
        raise RuntimeError(f"unexpected: {answer}")
    return answer.json.get("data", answer.json)


def waiting(daemon):
    return int(daemon.sql(f"SELECT count(*) FROM bulkhead_internal.runs WHERE job = '{JOB}' AND status IN ('QUEUED', 'RUNNING')"
                          " OR (status = 'INTERRUPTED' AND error_code = 'SHUTDOWN')")[0][0])


class Chaos:
    def __init__(self, options):
        self.options, self.random = options, random.Random(options.seed)
        self.kills = collections.Counter()
        self.daemon = Daemon(modules=["jobber"], modules_dir=BUILD / "tests" / "jobs" / "modules")

    def fill(self):
        for first in range(0, self.options.runs, BATCH):
            count = min(BATCH, self.options.runs - first)
            data(self.daemon.post("/api/v1/m/jobber/fill", {"job": JOB, "from": first, "count": count, "ms": self.options.ms}, timeout=600))

    def kill_worker(self):
        pids = [worker["pid"] for worker in self.daemon.module("jobber")["workers"] if worker["pid"]]
        if not pids:
            return
        try:
            os.kill(self.random.choice(pids), signal.SIGKILL)
            self.kills["worker"] += 1
        except ProcessLookupError:
            pass

    def kill_daemon(self):
        self.daemon.kill()
        self.daemon.assert_nothing_left(30 * SLOW)
        self.kills["supervisor"] += 1
        self.daemon.start()
        self.daemon.wait_observed("jobber", "RUNNING", "DEGRADED", within=60 * SLOW)

    def next_time(self, mean):
        return time.monotonic() + self.random.expovariate(1 / mean) if mean else float("inf")

    def run(self):
        self.daemon.start()
        self.fill()
        began = time.monotonic()
        worker_at, daemon_at = self.next_time(self.options.worker_kills), self.next_time(self.options.daemon_kills)
        told = 0
        while True:
            now = time.monotonic()
            if now - began > self.options.limit:
                raise RuntimeError(f"{waiting(self.daemon)} runs have not ended within {self.options.limit} s")
            if now >= worker_at:
                self.kill_worker()
                worker_at = self.next_time(self.options.worker_kills)
            if now >= daemon_at:
                self.kill_daemon()
                daemon_at = self.next_time(self.options.daemon_kills)
            if now - told >= 1:
                told = now
                left = waiting(self.daemon)
                if left == 0:
                    break
            time.sleep(0.05)
        return time.monotonic() - began

    def judge(self, took):
        daemon = self.daemon
        wait_until(lambda: daemon.module("jobber")["observed"]["state"] == "RUNNING", "the module at rest", 60 * SLOW)
        statuses = dict((status, int(count)) for status, count in
                        daemon.sql(f"SELECT status, count(*) FROM bulkhead_internal.runs WHERE job = '{JOB}' GROUP BY 1"))
        attempts = daemon.sql(f"SELECT count(*) FILTER (WHERE attempt > 1), max(attempt) FROM bulkhead_internal.runs WHERE job = '{JOB}'")[0]
        seen = data(daemon.get("/api/v1/m/jobber/effects"))
        counts, runs = seen["counts"], self.options.runs
        print(f"{runs} runs in {took:.1f} s ({runs / took:.0f}/s); kills: {dict(self.kills)}; statuses: {statuses}; more than one attempt: "
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
    parser.add_argument("--worker-kills", type=float, default=1.0, help="seconds between two, by the mean; 0: none")
    parser.add_argument("--daemon-kills", type=float, default=20.0, help="the same of the supervisor")
    parser.add_argument("--limit", type=float, default=3600.0, help="seconds for all")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    chaos = Chaos(options)
    try:
        wrong = chaos.judge(chaos.run())
        if wrong:
            print("\n".join(wrong))
            print(chaos.daemon.log_tail())
    finally:
        chaos.daemon.clean_up()
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
