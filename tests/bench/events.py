#!/usr/bin/python3
"""Measures events beside Redis Streams and beside the ceiling of PostgreSQL, and prints a table.

    /usr/bin/python3 -B tests/bench/events.py [--seconds S] [--only bulkhead,engine,postgres,redis] [--json]

Needs a machine that does nothing else. All of Bulkhead's and PostgreSQL's figures are of one private PostgreSQL as the daemon sets it up, which waits for
the disk at each commit; Redis has `appendonly yes` and `appendfsync always`, on the same disk. Publishing is measured by pgbench as the module's role:
`SELECT bulkhead.publish(…)` in a transaction each, by one session and by eight, and `SELECT bulkhead.publish_many(…)` of 100; the ceiling is the same with
inserts into a table of the module's own, which has one index and no checks. Nobody subscribes meanwhile, as nobody reads Redis; the column "delivered" is
the same while a subscriber is given all of it, by the same two or more cores. Redis by redis-benchmark: XADD one by one, by one connection and by eight, and
100 in a pipeline. What part the disk has stands below: `fdatasync` of 8 KiB within a file, and commits of a row of one integer.
Then what was published is delivered to a handler that does nothing, events come at 1,000 a second, each with the time it was published at, and at last
many callers publish by RPC.
`engine` is the same by a daemon with `events.engine: redis`: published is into PostgreSQL there, too, and delivered through a Redis on the loopback.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

from harness import BUILD, Daemon, wait_until  # noqa: E402
from machine import free_port  # noqa: E402
from own_redis import Redis  # noqa: E402
from peers import install_packages  # noqa: E402

MODULES = BUILD / "tests" / "bench" / "event_modules"
BATCH = 100
CALLERS = 32  # that publish by RPC at once, and so share transactions
PUBLISH = "SELECT bulkhead.publish('bench.event', 'k' || (random() * 100)::int, '{\"n\": 1}');"
PUBLISH_MANY = "SELECT bulkhead.publish_many(:topics, :keys, :payloads);"
PUBLISH_CALLS = f"SELECT bulkhead.publish('bench.event', 'k' || (i % 100), '{{\"n\": 1}}') FROM generate_series(1, {BATCH}) i;"
INSERT = "INSERT INTO plain (key, payload) VALUES ('k' || (random() * 100)::int, '{\"n\": 1}');"
INSERT_MANY = "INSERT INTO plain (key, payload) SELECT * FROM unnest(:keys::text[], :payloads::jsonb[]);"
COMMIT = "INSERT INTO least VALUES (1);"
ARRAYS = {"topics": "{" + ",".join(["bench.event"] * BATCH) + "}", "keys": "{" + ",".join(f"k{n}" for n in range(BATCH)) + "}",
          "payloads": "{" + ",".join(['"{\\"n\\": 1}"'] * BATCH) + "}"}
WAYS = (("one by one, 1 connection", 1, 1), ("one by one, 8 connections", 8, 1), ("100 at a time, 1 connection", 1, BATCH))
SUBSCRIPTIONS = "/api/v1/events/subscriptions"
PAGE = 8_192  # of the WAL


def pgbench():
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/pgbench"))
    if not found:
        raise SystemExit("there is no pgbench: it comes with Debian's postgresql")
    return found[-1]


class Database:
    """pgbench as the module's role, with a password of its own for the time of the measurement."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.role = daemon.sql("SELECT role FROM bulkhead_internal.module_roles WHERE module = 'eventbench'")[0][0]
        self.own = daemon.sql(f"SELECT rolpassword FROM pg_authid WHERE rolname = '{self.role}'")[0][0]
        daemon.sql(f"ALTER ROLE {self.role} PASSWORD 'bench' CONNECTION LIMIT -1")

    def give_back(self):
        """The module's own password, which it needs for further connections."""
        self.daemon.sql(f"ALTER ROLE {self.role} PASSWORD '{self.own}'")

    def rates(self, one, many, seconds):
        return {name: self.rate(one if batch == 1 else many, connections, seconds, batch) for name, connections, batch in WAYS}

    def rate(self, statement, connections, seconds, events):
        """Events per second."""
        arrays = [option for name, value in ARRAYS.items() if f":{name}" in statement for option in ("-D", f"{name}={value}")]
        with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
            script.write(statement)
            script.flush()
            os.chmod(script.name, 0o644)
            done = subprocess.run([str(pgbench()), "-n", "-M", "prepared", "-c", str(connections), "-j", "1", "-T", str(seconds), "-f", script.name,
                                   *arrays, "-h", f"{self.daemon.data}/run/pg", "-U", self.role, "bulkhead"],
                                  env={**os.environ, "PGPASSWORD": "bench"}, capture_output=True, text=True)
        line = next((line for line in done.stdout.splitlines() if line.startswith("tps = ")), None)
        if done.returncode != 0 or not line:
            raise SystemExit(f"pgbench: {done.stdout}{done.stderr}")
        return float(line.split()[2]) * events


def disk_rate(seconds, folder):
    """fdatasync per second, of a page each within a file that is there already."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(16 << 20))
        file.flush()
        os.fsync(file.fileno())
        count, began = 0, time.monotonic()
        while time.monotonic() - began < seconds:
            os.pwrite(file.fileno(), b"x" * PAGE, count * PAGE % (16 << 20))
            os.fdatasync(file.fileno())
            count += 1
        return count / (time.monotonic() - began)


def redis_rates(seconds):
    if not shutil.which("redis-server"):
        install_packages(["redis-server"], services=["redis-server"])
    rates, folder = {}, tempfile.mkdtemp(prefix="bh-redis-", dir="/tmp")
    port = str(free_port())
    server = subprocess.Popen(["redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", folder, "--appendonly", "yes", "--appendfsync", "always",
                               "--save", ""], stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: subprocess.run(["redis-cli", "-p", port, "ping"], capture_output=True).returncode == 0, "Redis")
        for name, connections, batch in WAYS:
            count = 2_000 * seconds * (5 if batch > 1 else 1)
            done = subprocess.run(["redis-benchmark", "-p", port, "-c", str(connections), "-n", str(count), "-P", str(batch), "--csv",
                                   "XADD", "bench", "*", "key", "k1", "payload", '{"n": 1}'], capture_output=True, text=True, check=True)
            rates[name] = float(done.stdout.splitlines()[-1].split('","')[1].strip('"'))
    finally:
        server.terminate()
        server.wait(10)
        shutil.rmtree(folder, ignore_errors=True)
    return rates


def bulkhead(seconds, measured, engine=None):
    """{column: {way: events per second}}, and what was delivered. `measured`: "publish", "insert". `engine`: options of a daemon."""
    columns, delivered = {}, {}
    daemon = Daemon(modules=["eventbench"], modules_dir=MODULES, private_store=True, **(engine or {}))
    try:
        daemon.start()
        database = Database(daemon)
        api = "/api/v1/m/eventbench"

        def received():
            return daemon.get(f"{api}/received").data

        def settled():
            return daemon.get(SUBSCRIPTIONS).data["subscriptions"][0]["lag"] == 0

        # With the engine redis a place between two of its windows, or all would be read from the outbox.
        def place():
            return daemon.sql("SELECT coalesce((SELECT reach FROM bulkhead_internal.event_relay), pg_current_snapshot())")[0][0]

        def subscribe(topics, done):
            daemon.sql(f"UPDATE bulkhead_internal.event_subscriptions SET topics = '{topics}', fence = fence + 1, reach = NULL, position = 0, done = '{done}'")
            daemon.sql("SELECT pg_notify('bulkhead_events', '')")

        subscribe("{}", place())
        if "insert" in measured:
            delivered["fdatasync alone, per second"] = disk_rate(seconds, daemon.folder)
            delivered["commits of one integer, per second"] = database.rate(COMMIT, 1, seconds, 1)
            columns["plain inserts"] = database.rates(INSERT, INSERT_MANY, seconds)
        if "publish" in measured:
            column = "publish, engine redis" if engine else "bulkhead.publish"
            columns[column] = database.rates(PUBLISH, PUBLISH_MANY, seconds)
            delivered[f"{BATCH} calls of publish in a transaction, events/s"] = database.rate(PUBLISH_CALLS, 1, seconds, BATCH)
            subscribe("{bench.*}", place())
            columns[f"{column}, delivered"] = database.rates(PUBLISH, PUBLISH_MANY, seconds)
            database.give_back()
            wait_until(settled, "the end of the lag", 300)
            # A lag that is caught up: delivery alone.
            subscribe("{}", place())
            wait_until(settled, "the pause")
            daemon.post(f"{api}/reset")
            count = 50_000
            before = place()
            daemon.sql("SELECT count(bulkhead_internal.append_event('eventbench', 'bench.event', 'k' || (i % 100), '{\"n\": 1}'))"
                       f" FROM generate_series(1, {count}) i")
            began = time.monotonic()
            subscribe("{bench.*}", before)
            wait_until(lambda: received()["events"] >= count, "the delivery", 300)
            delivered["delivered, events/s"] = count / (time.monotonic() - began)
            for kind, transaction in (("with transactions", True), ("by RPC", False)):
                daemon.post(f"{api}/reset")
                answer = daemon.post(f"{api}/publish", {"count": 1_000 * seconds, "perSecond": 1_000, "transaction": transaction}).data
                wait_until(lambda: received()["events"] >= answer["published"], "the events", 60)  # noqa: B023
                times = received()
                delivered[f"publish→handler {kind}, ms"] = {name: times[name] for name in ("p50", "p99", "max")}
                delivered[f"published {kind}, events/s"] = answer["published"] / answer["seconds"]
            subscribe("{}", place())
            answer = daemon.post(f"{api}/publish", {"count": 5_000 * seconds, "threads": CALLERS, "transaction": False}).data
            delivered[f"published by RPC as fast as {CALLERS} callers can, events/s"] = answer["published"] / answer["seconds"]
    finally:
        daemon.clean_up()
    return columns, delivered


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seconds", type=int, default=10, help="of each measurement")
    options.add_argument("--only", default="bulkhead,engine,postgres,redis")
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    only = given.only.split(",")
    wanted = [measured for measured, word in (("publish", "bulkhead"), ("insert", "postgres")) if word in only]
    columns, delivered = bulkhead(given.seconds, wanted) if wanted else ({}, {})
    if "engine" in only:
        redis = Redis()
        try:
            more, also_delivered = bulkhead(given.seconds, ["publish"], redis.options())
        finally:
            redis.end()
        columns |= more
        delivered |= {f"{name} (engine redis)": value for name, value in also_delivered.items()}
    if "redis" in only:
        columns["Redis Streams, always"] = redis_rates(given.seconds)
    if given.json:
        print(json.dumps({"published, events/s": columns, **delivered}))
        return
    print(f"{'events/s':28}" + "".join(f"{name:>34}" for name in columns))
    for name, _connections, _batch in WAYS:
        print(f"{name:28}" + "".join(f"{column[name]:34,.0f}" for column in columns.values()))
    for name, value in delivered.items():
        print(f"{name:60} {json.dumps(value) if isinstance(value, dict) else f'{value:,.0f}'}")


if __name__ == "__main__":
    main()
