#!/usr/bin/python3
"""Interferes with a real daemon for minutes, under load, and says what came of it: requests, failures by kind, and whether an invariant was broken.

    /usr/bin/python3 -B tests/chaos/chaos.py [--seed N] [--minutes 10] [--clients 6] [--plan] [--json]

With the build in build/, or in $BULKHEAD_BUILD. Modules of tests/fakes/chaotic are killed (SIGKILL, SIGTERM), stopped, hung, slowed down, made to
exit, leak, flood their log, fork, use up their files and ignore their end; they are disabled, enabled and configured; the private PostgreSQL loses server
processes, is killed and frozen; the disk is slow. All of it at times that the seed alone decides (plan.py; --plan prints it and does
nothing). What a machine makes of it differs, so the same seed is the same trouble and not the same outcome. Two modules are not touched.

All the time: an answer is the asked module's and to this request (clients.py); an untouched module answers every GET; a failure is one of the
documented kinds, a 503 with Retry-After, a 404 only of a module that may be off; what is off answers nothing; administrative calls answer as documented
(faults.py); the API says what /proc shows, and answers (watch.py). At the end (ending.py): all recovers; the configuration in force is
the last accepted; what a client was told is stored is there, the registry is what the API tells, every index agrees with its table; no process,
descriptor, memory, folder or cgroup is left over; the daemon ends in order. Ends with 1 when any of it was broken.

The seed is printed first, and again with what was broken.
"""

import argparse
import collections
import json
import pathlib
import random
import shutil
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

import disk  # noqa: E402
import ending  # noqa: E402
import harness  # noqa: E402
from clients import Clients  # noqa: E402
from faults import Faults  # noqa: E402
from harness import Daemon, wait_until  # noqa: E402
from plan import plan  # noqa: E402
from record import Presence, Record  # noqa: E402
from watch import Watch  # noqa: E402

SOURCE = harness.BUILD / "tests" / "chaos" / "modules" / "chaotic"
STEADY = ["steady-1", "steady-2"]
TOUCHED = {"touched-1": 2, "touched-2": 2, "touched-3": 1, "touched-4": 1}  # and how many workers
ROUTE_TIMEOUT_MS = 3000 * harness.SLOW  # of what is interfered with
MEMORY_LIMIT = "320Mi"
# Of what is interfered with: found out and ended in seconds, so that much happens in a run.
IMPATIENT = {"health": {"interval": 1000, "timeout": 1000 * harness.SLOW}, "limits": {"memory": MEMORY_LIMIT},
             "lifecycle": {"handshakeTimeout": 10000, "startTimeout": 20000, "stopTimeout": 3000, "drainTimeout": 1000}}
LAST_LOOK_S = 2.0  # between the last fault and the end of the load


def make_modules(folder):
    harness.copies(SOURCE, STEADY, folder)
    document = json.loads((SOURCE / "manifest.json").read_text())
    routes = [{**route, "timeout": ROUTE_TIMEOUT_MS} for route in document["capabilities"]["api"]["routes"]]
    for name, workers in TOUCHED.items():
        harness.copies(SOURCE, [name], folder, workers=workers, **{**IMPATIENT, "capabilities": {"api": {"routes": routes}}})


class Run:
    """One run. `grown_kb` and the record are there when it is over."""

    def __init__(self, seed, seconds, clients, log=None):
        self.seed, self.seconds, self.client_count, self.log = seed, seconds, clients, log
        self.plan = plan(seed, seconds, len(TOUCHED))
        self.record, self.grown_kb, self.disk_notes, self.daemon = Record(), 0, [], None

    def run(self):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="bh-chaos-", dir="/tmp"))
        folder.chmod(0o755)
        try:
            make_modules(folder)
            self.daemon = Daemon(modules=[*STEADY, *TOUCHED], modules_dir=folder, private_store=True)
            try:
                self._trouble(self.daemon.start())
            finally:
                if self.log:
                    shutil.copy(self.daemon.log_path, self.log)
                self.daemon.clean_up()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return self

    def _trouble(self, daemon):
        names = [*STEADY, *TOUCHED]
        before = self._before(daemon, names)
        presences = {name: Presence() for name in TOUCHED}
        for name in names:
            if (answer := daemon.post(f"/api/v1/modules/{name}/enable?wait=60s")).status != 200:
                raise AssertionError(f"enable of {name} before anything was done to it: {answer}")
        for presence in presences.values():
            presence.set("there")
        slow_disk = disk.SlowDisk(daemon.folder)
        faults = Faults(daemon, self.record, presences, slow_disk)
        self.record.began = time.monotonic()
        clients = Clients(self.record, self.seed, self.client_count, daemon.address, daemon.token, STEADY, presences)
        watch = Watch(daemon, self.record, presences, faults.heal)
        try:
            faults.run(self.plan)
            time.sleep(max(LAST_LOOK_S, self.record.began + self.seconds - time.monotonic()))
        finally:
            watch.stop()
            clients.stop()
        slow_disk.remove()
        self.disk_notes = faults.disk_notes
        if not self.record.check("the daemon runs", daemon.running(), daemon.log_tail()):
            return
        ending.recovers(daemon, self.record, faults)
        ending.configuration(daemon, self.record, faults)
        ending.database(daemon, self.record, clients)
        self.grown_kb = ending.nothing_held(daemon, self.record, names, before)
        ending.ends(daemon, self.record)

    def _before(self, daemon, names):
        """What it holds when each module has run and been asked once: what is made for good is made."""
        for name in names:
            wait_until(lambda: daemon.get(f"/api/v1/m/{name}/work?n=0").status == 200, f"an answer of {name}")
        return ending.quiet(daemon, names)

    def as_json(self):
        record = self.record
        return {"seed": self.seed, "seconds": self.seconds, "faults": [[kind, outcome, n] for (kind, outcome), n in sorted(record.faults.items())],
                "requests": [[group, outcome, n] for (group, outcome), n in sorted(record.outcomes.items())],
                "slowest_s": dict(record.slowest_s), "checks": dict(record.checks), "grown_kb": self.grown_kb, "disk": self.disk_notes,
                "broken": record.broken, "broken_count": record.broken_count}


def print_report(run):
    record, total = run.record, sum(run.record.outcomes.values())
    print(f"\nseed {run.seed}, {run.seconds:g} s: {len(run.plan)} faults, {total} requests, "
          f"{total - sum(n for (_g, outcome), n in record.outcomes.items() if outcome == '200')} failed")
    print("\nwhat was done")
    kinds = collections.defaultdict(list)
    for (kind, outcome), count in sorted(record.faults.items()):
        kinds[kind].append(f"{count}× {outcome}")
    for kind, outcomes in kinds.items():
        print(f"  {kind:12}" + "; ".join(outcomes))
    for note in run.disk_notes:
        print(f"  {'':12}{note}")
    print("\nrequests")
    for (group, outcome), count in sorted(record.outcomes.items()):
        print(f"  {group:16}{outcome:46}{count:>9}")
    for group, slowest in sorted(record.slowest_s.items()):
        print(f"  {group:16}{'the slowest took':46}{slowest:>7.2f} s")
    print("\ninvariants, and how often each was looked at")
    for invariant, count in sorted(record.checks.items()):
        print(f"  {invariant:62}{count:>9}")
    print(f"  daemon and spawner have grown by {run.grown_kb / 1024:.1f} MiB")
    print(f"\n{record.broken_count} broken" + "".join(f"\n  {sentence}" for sentence in record.broken))
    if record.broken:
        print(f"again: chaos.py --seed {run.seed} --minutes {run.seconds / 60:g}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, help="what is done and when (default: drawn, and printed)")
    parser.add_argument("--minutes", type=float, default=10, help="under load and trouble (default 10)")
    parser.add_argument("--clients", type=int, default=6, help="connections that ask (default 6)")
    parser.add_argument("--plan", action="store_true", help="print the plan and do nothing")
    parser.add_argument("--log", help="a file that is given the daemon's log")
    parser.add_argument("--json", action="store_true", help="print the counts instead of the report")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 31)
    print(f"seed {seed}", file=sys.stderr, flush=True)
    if options.plan:
        for fault in plan(seed, options.minutes * 60, len(TOUCHED)):
            print(f"{fault.at:9.3f} s  {fault.kind:12} {list(TOUCHED)[fault.module]}, worker {fault.worker}, for {fault.seconds} s")
        return
    if not harness.BINARY.exists() or not SOURCE.exists():
        raise SystemExit(f"{harness.BINARY} or {SOURCE} does not exist: build it first (sh tests/run.sh)")
    run = Run(seed, options.minutes * 60, options.clients, options.log).run()
    if options.json:
        print(json.dumps(run.as_json()))
    else:
        print_report(run)
    raise SystemExit(1 if run.record.broken_count else 0)


if __name__ == "__main__":
    main()
