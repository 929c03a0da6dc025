#!/usr/bin/python3
"""Events under kill -9 of workers, of the supervisor, of PostgreSQL and of Redis: none lost, none out of order within its key, no effect twice.

    /usr/bin/python3 -B tests/chaos/event_kills.py [--events N] [--keys N] [--pause S] [--seed N] [--engine redis]

One module publishes numbered events, each in the transaction that counts it; another writes each down in the transaction that remembers it
(`once`). Meanwhile something is killed every little while, chosen by chance. At the end what was counted is compared with what was written down.
With --engine redis events go through a Redis that is killed, too, and by chance comes back with what it had, with something older, or with nothing.
200,000 events by default. Prints the seed and a table; ends with 1 when anything was lost, doubled, out of order or dead.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import signal
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

from harness import BUILD, SLOW, Daemon, wait_until  # noqa: E402
from own_redis import Redis  # noqa: E402

MODULES = BUILD / "tests" / "events" / "modules"
KINDS = {"worker of the subscriber": 5, "worker of the publisher": 2, "PostgreSQL": 2, "supervisor": 2}
SEND = 500  # events of one request


class Sender:
    """Has events published until the publisher has counted as many as are wanted, whatever happens to it."""

    def __init__(self, daemon, events, keys):
        self.failed = collections.Counter()
        self._daemon, self._events, self._keys = daemon, events, keys
        self.done, self.given_up = threading.Event(), threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(3)]
        for thread in self._threads:
            thread.start()

    def sent(self):
        answer = self._daemon.get("/api/v1/m/sender/sent")
        return answer.data["events"] if answer.status == 200 else 0

    def _run(self):
        while not self.done.is_set() and not self.given_up.is_set():
            try:
                answer = self._daemon.post("/api/v1/m/sender/send", {"count": SEND, "keys": self._keys, "batch": 10})
                if answer.status != 200:
                    self.failed[f"{answer.status} {answer.error['code']}"] += 1
                    self.given_up.wait(0.05)
                if self.sent() >= self._events:
                    self.done.set()
            except (OSError, ValueError, AssertionError) as error:  # the supervisor is away
                self.failed[type(error).__name__] += 1
                self.given_up.wait(0.1)

    def stop(self):
        self.given_up.set()
        for thread in self._threads:
            thread.join()


def kill_one(kind, daemon, redis, chance):
    """True when something was killed."""
    if kind == "Redis":
        redis.kill()
        redis.keeps = chance.random() < 0.5
        time.sleep(chance.uniform(0, 1))
        redis.start()
        return True
    if kind == "supervisor":
        daemon.kill()
        daemon.start()
        return True
    if kind == "PostgreSQL":
        pid_file = daemon.data / "postgres" / "postmaster.pid"
        try:
            os.kill(int(pid_file.read_text().splitlines()[0]), signal.SIGKILL)
            return True
        except (OSError, ValueError, IndexError):  # it is just being started
            return False
    name = "ledger" if kind == "worker of the subscriber" else "sender"
    try:
        pids = [worker["pid"] for worker in daemon.module(name)["workers"] if worker["pid"]]
        if not pids:
            return False
        os.kill(chance.choice(sorted(pids)), signal.SIGKILL)
        return True
    except (OSError, ValueError, AssertionError):
        return False


def run(events, keys, pause, seed, engine):
    chance = random.Random(seed)
    redis = Redis(keeps=True) if engine == "redis" else None
    kinds = {**KINDS, "Redis": 4} if redis else KINDS
    daemon = Daemon(modules=["sender", "ledger"], modules_dir=MODULES, private_store=True, **(redis.options() if redis else {}))
    sender, kills, never = None, collections.Counter(), threading.Event()
    began = time.monotonic()
    try:
        daemon.start()
        sender = Sender(daemon, events, keys)
        while not sender.done.is_set() or sum(kills.values()) < len(kinds):
            never.wait(chance.uniform(0.3, 1.7) * pause)
            missing = [kind for kind in kinds if kind not in kills]
            kind = missing[0] if sender.done.is_set() and missing else chance.choices(list(kinds), list(kinds.values()))[0]
            if kill_one(kind, daemon, redis, chance):
                kills[kind] += 1
        sender.stop()
        published_s = time.monotonic() - began

        def settled():
            try:
                view = daemon.get("/api/v1/events/subscriptions").data["subscriptions"][0]
                return view["lag"] == 0
            except (OSError, ValueError, AssertionError, KeyError, TypeError, IndexError):
                return False

        wait_until(settled, "the end of the lag", 60 * SLOW + events / 100)
        state = wait_until(lambda: (lambda answer: answer.data if answer.status == 200 else None)(daemon.get("/api/v1/m/ledger/state")), "the ledger")
        sent = wait_until(sender.sent, "the sender")
        dead = daemon.get("/api/v1/events/dead-letters").json["meta"]["total"]
        return {"seed": seed, "published": sent, "written down": state["entries"], "lost": sent - state["different"],
                "done twice": state["entries"] - state["different"], "out of order": state["disorder"], "dead letters": dead,
                "kills": dict(kills), "requests that failed": dict(sender.failed), "published after, s": round(published_s, 1),
                "settled after, s": round(time.monotonic() - began, 1)}
    except AssertionError:
        print(daemon.log_tail(), flush=True)
        raise
    finally:
        if sender:
            sender.stop()
        daemon.clean_up()
        if redis:
            redis.end()


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--events", type=int, default=200_000)
    options.add_argument("--keys", type=int, default=200)
    options.add_argument("--pause", type=float, default=2.0, help="seconds between two kills, on average")
    options.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    options.add_argument("--engine", choices=("postgres", "redis"), default="postgres")
    given = options.parse_args()
    print(f"seed {given.seed}", flush=True)
    result = run(given.events, given.keys, given.pause, given.seed, given.engine)
    for name, value in result.items():
        print(f"{name:24} {json.dumps(value)}", flush=True)
    wrong = [name for name in ("lost", "done twice", "out of order", "dead letters") if result[name] != 0]
    if wrong or result["published"] < given.events:
        sys.exit(f"wrong: {', '.join(wrong) or 'too few were published'}")


if __name__ == "__main__":
    main()
