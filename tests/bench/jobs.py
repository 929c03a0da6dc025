#!/usr/bin/python3
"""Jobs per second and the time from queueing a run to its handler's begin, beside graphile-worker and pg-boss on the same PostgreSQL, in turns; and how
long it takes until a run whose worker was killed has begun again.

    /usr/bin/python3 -B tests/bench/jobs.py [--rounds N] [--runs N] [--latencies N] [--peers graphile-tuned,…] [--json]

With the build in build/, or in $BULKHEAD_BUILD. The server is one of our own with fsync on; each system has a fresh database in it. Peers come from
the npm registry into the build folder. Handlers do nothing. Runs are queued before anybody begins to work on them; a second is counted from the begin of
the work. Needs a machine that does nothing else.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

import harness  # noqa: E402
from harness import Daemon, wait_until  # noqa: E402
from own_server import OwnServer, ask, url_of  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
NPM_HOME = harness.BUILD / "tests" / "bench" / "job_peers"
PACKAGES = ["graphile-worker@0.17", "pg-boss@10", "pg@8"]
PEERS = ("graphile", "graphile-tuned", "pg-boss")
MODULE = "/api/v1/m/jobber"
AIM_RATIO, AIM_P50_MS, AIM_RERUN_S = 1.2, 2.0, 1.0


def install():
    """Why the peers can't be had, or None."""
    if (NPM_HOME / "node_modules" / "pg-boss").is_dir():
        return None
    if not shutil.which("npm"):
        return "npm is missing"
    done = subprocess.run(["npm", "install", "--prefix", NPM_HOME, "--no-audit", "--no-fund", "--ignore-scripts", *PACKAGES], capture_output=True, text=True)
    return None if done.returncode == 0 else f"npm install failed: {(done.stderr.strip().splitlines() or ['?'])[0][:200]}"


class Server:
    def __init__(self):
        self.own, self.number = OwnServer(), 0
        ask(url_of(self.own.url, "postgres"), "ALTER SYSTEM SET fsync = on", "ALTER SYSTEM SET full_page_writes = on",
            "ALTER SYSTEM SET jit = off", "SELECT pg_reload_conf()")

    def database(self):
        self.number += 1
        ask(url_of(self.own.url, "postgres"), f"CREATE DATABASE bench_{self.number}")
        return url_of(self.own.url, f"bench_{self.number}")


def peer(server, name, what, count):
    done = subprocess.run(["node", HERE / "job_peers.js", name, server.database(), what, str(count)], capture_output=True, text=True,
                          env={**os.environ, "NODE_PATH": str(NPM_HOME / "node_modules")}, timeout=900)
    if done.returncode != 0:
        raise RuntimeError(f"{name}: {done.stderr[-600:]}")
    return json.loads(done.stdout.splitlines()[-1])


class Ours:
    def __init__(self, server):
        self.url = server.database()
        self.daemon = Daemon(modules=["jobber"], modules_dir=harness.BUILD / "tests" / "jobs" / "modules", env={"BULKHEAD_STORE_URL": self.url},
                             private_store=True)
        self.daemon.start()

    def sql(self, statement):
        return ask(self.url, statement)

    def throughput(self, runs):
        daemon = self.daemon
        daemon.post("/api/v1/modules/jobber/disable?wait=60s")
        self.sql("DELETE FROM bulkhead_internal.runs")
        self.sql("SELECT count(bulkhead_internal.enqueue_run('jobber', 'stamp', jsonb_build_object('n', n), NULL, NULL, NULL))"
                 f" FROM generate_series(1, {runs}) AS n")
        self.sql("ANALYZE bulkhead_internal.runs")
        daemon.post("/api/v1/modules/jobber/enable?wait=60s")
        left = "SELECT count(*) FROM bulkhead_internal.runs WHERE job = 'stamp' AND status IN ('QUEUED', 'RUNNING')"
        deadline = time.monotonic() + 900
        while self.sql(left) != "0":
            if time.monotonic() > deadline:
                raise RuntimeError("the runs do not end")
            time.sleep(0.5)
        rows = self.sql("SELECT extract(epoch FROM max(finished_at) - min(started_at)), count(*) FILTER (WHERE status = 'SUCCEEDED'),"
                        " max(attempt) FROM bulkhead_internal.runs WHERE job = 'stamp'").split("|")
        if int(rows[1]) != runs:
            seen = self.sql("SELECT status, trigger, error_code, left(error_message, 99), count(*) FROM bulkhead_internal.runs GROUP BY 1, 2, 3, 4")
            raise RuntimeError(f"{rows[1]} of {runs} runs have succeeded: {seen}")
        seconds = float(rows[0])
        return {"seconds": seconds, "perSecond": runs / seconds}

    def latency(self, runs, how="enqueue"):
        daemon = self.daemon
        for n in range(runs):
            daemon.post(f"{MODULE}/{how}", {"job": "stamp", "payload": {"n": self.next_n()}, "stamp": True})
            time.sleep(0.015)
        wait_until(lambda: self.answer(daemon.get(f"{MODULE}/latency"))["count"] >= self.n, "all stamps", 60)
        seen = self.answer(daemon.get(f"{MODULE}/latency"))
        return {"p50": seen["p50"] * 1000, "p99": seen["p99"] * 1000}

    n = 0

    def next_n(self):
        self.n += 1
        return self.n

    @staticmethod
    def answer(answer):
        return answer.json.get("data", answer.json)

    def rerun(self):
        """Seconds from kill -9 of a worker to the begin of its run's next attempt."""
        daemon = self.daemon
        run = self.answer(daemon.post(f"{MODULE}/enqueue", {"job": "single", "payload": {"n": 1_000_000 + self.next_n(), "ms": 5000}}))["id"]
        first = wait_until(lambda: (lambda r: r if r["status"] == "RUNNING" else None)(daemon.get(f"/api/v1/runs/{run}").data), "the run")
        pid = {worker["instance"]: worker["pid"] for worker in daemon.module("jobber")["workers"]}[first["worker"]]
        killed = time.time()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: daemon.get(f"/api/v1/runs/{run}").data["attempt"] == 2, "the second attempt")
        began = float(self.sql(f"SELECT extract(epoch FROM started_at) FROM bulkhead_internal.runs WHERE id = '{run}'"))
        daemon.delete(f"/api/v1/runs/{run}")
        return began - killed

    def close(self):
        self.daemon.clean_up()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--latencies", type=int, default=200)
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    missing = install()
    peers = [name for name in options.peers.split(",") if name] if not missing else []
    server = Server()
    result = {name: {"perSecond": [], "p50": [], "p99": []} for name in ["bulkhead", *peers]}
    reruns = []
    try:
        for _ in range(options.rounds):
            ours = Ours(server)
            try:
                seen = ours.latency(options.latencies)  # in a database without a history, as that of the peers
                result["bulkhead"]["p50"].append(seen["p50"])
                result["bulkhead"]["p99"].append(seen["p99"])
                reruns.append(ours.rerun())
                result["bulkhead"]["perSecond"].append(ours.throughput(options.runs)["perSecond"])
            finally:
                ours.close()
            for name in peers:
                result[name]["perSecond"].append(peer(server, name, "throughput", options.runs)["perSecond"])
                seen = peer(server, name, "latency", options.latencies)
                result[name]["p50"].append(seen["p50"])
                result[name]["p99"].append(seen["p99"])
    finally:
        server.own.remove()
    medians = {name: {key: statistics.median(values) for key, values in seen.items()} for name, seen in result.items()}
    if options.json:
        print(json.dumps({"medians": medians, "rounds": result, "rerun": reruns}))
        return
    if missing:
        print(f"peers are not installed: {missing}")
    print(f"{'':16}{'jobs/s':>10}{'pick-up p50':>14}{'p99':>10}")
    for name, seen in medians.items():
        print(f"{name:16}{seen['perSecond']:>10.0f}{seen['p50']:>11.2f} ms{seen['p99']:>7.2f} ms")
    if "graphile-tuned" in medians:
        ratio = medians["bulkhead"]["perSecond"] / medians["graphile-tuned"]["perSecond"]
        print(f"to graphile-worker tuned: {ratio:.2f} (aim {AIM_RATIO})")
    print(f"pick-up p50: {medians['bulkhead']['p50']:.2f} ms (aim {AIM_P50_MS} ms)")
    print(f"begun again after kill -9 of its worker: {statistics.median(reruns):.3f} s, at most {max(reruns):.3f} s (aim {AIM_RERUN_S:.0f} s)")


if __name__ == "__main__":
    main()
