#!/usr/bin/env python3
"""Kills the supervisor in random moments, again and again on one data folder, and looks after each what is left and what the next boot finds.

    /usr/bin/python3 -B tests/chaos/kills.py --seed 7 --kills 200

What is killed: the daemon (most of the time), its spawner, or both at once. When: at rest, while it boots, while a worker is started again, while a
module is enabled, disabled, migrated, and while it stops. After each kill:
  - no process of a module is left, nor a cgroup: once the spawner is done, or, when it was killed itself, once the next boot has swept;
  - the next boot is ready, every module is ENABLED or DISABLED as it was last answered (either, when the kill cut the answer off), and those that
    are enabled run, no process but theirs beside them;
  - a migration is there as a whole or not at all, with its row of the history;
  - rows that were committed are there.
Prints its seed, a line for each kill, and a table of what was hit; ends with 1 at the first invariant that is broken.
"""

import argparse
import collections
import contextlib
import os
import pathlib
import random
import signal
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

import harness  # noqa: E402
from harness import SLOW, Daemon, wait_until  # noqa: E402
from left_running import cgroups_of_data, instances_running  # noqa: E402
from misbehaving import write_misbehaving, write_steady  # noqa: E402

GONE_WITHIN_S = 45 * SLOW  # the spawner has 30 s of its own, and a busy disk holds up the last checkpoint of PostgreSQL
MODULES = ("steady", "m-fork", "m-spare", "m-tables")
TABLES = 12         # migrations of m-tables, of which the last answered number is what must be there
MOMENTS = ("rest", "boot", "spawn", "enable", "disable", "migration", "shutdown")
WEIGHTS = {"rest": 1, "boot": 3, "spawn": 2, "enable": 3, "disable": 2, "migration": 3, "shutdown": 3}


class Broken(AssertionError):
    """An invariant that did not hold."""


def spawner_of(daemon):
    return next((pid for pid, (parent, _started, state, name) in harness.process_table().items()
                 if parent == daemon.process.pid and name == "bulkhead-spawn" and state not in "ZX"), None)


class Kills:
    def __init__(self, seed, verbose):
        self.random = random.Random(seed)
        self.verbose = verbose
        self.folder = harness.tempfile.mkdtemp(prefix="bh-kills-", dir="/tmp")
        self.modules_dir = pathlib.Path(self.folder) / "modules"
        self.modules_dir.mkdir(mode=0o755)
        write_steady(self.modules_dir)
        write_misbehaving(self.modules_dir, "m-fork", "fork", {"lifecycle": {"stopTimeout": 500}})
        write_misbehaving(self.modules_dir, "m-spare", "serve", {"lifecycle": {"stopTimeout": 500}})
        write_misbehaving(self.modules_dir, "m-tables", "serve", {"lifecycle": {"stopTimeout": 500}, "database": {}})
        self.write_migrations()
        self.daemon = Daemon(modules=["steady", "m-fork"], modules_dir=self.modules_dir, folder=self.folder, private_store=True)
        self.wanted = {"steady": {"ENABLED"}, "m-fork": {"ENABLED"}, "m-spare": {"REGISTERED"}, "m-tables": {"REGISTERED"}}
        self.rows = 0
        self.hit = collections.Counter()
        self.swept = self.slowest_s = self.ended = 0

    def write_migrations(self):
        folder = self.modules_dir / "m-tables" / "migrations"
        folder.mkdir()
        for number in range(1, TABLES + 1):
            name = f"{number:03}_table"
            (folder / f"{name}.sql").write_text(f"CREATE TABLE t{number} (id int);\nSELECT pg_sleep(0.05);\nINSERT INTO t{number} VALUES ({number});\n")
            (folder / f"{name}.down.sql").write_text(f"DROP TABLE t{number};\n")
        for path in (folder, *folder.iterdir()):
            path.chmod(0o755)

    # -- what is under way when it is killed

    def aside(self, method, path, name=None, expects=()):
        """A call that the kill may cut off. Until it is answered, both what was and what is asked for may be found."""
        if name:
            self.wanted[name] = self.wanted[name] | set(expects)

        def call():
            with contextlib.suppress(OSError, harness.http.client.HTTPException):
                answer = self.daemon.request(method, path)
                if name and answer.status == 200:
                    self.wanted[name] = set(expects[:1])

        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        return thread

    def begin(self, moment):
        """Begins what the kill shall hit; answers the longest pause before it, and what to wait for after it."""
        daemon = self.daemon
        if moment == "boot":
            daemon.stop()
            daemon.launch()
            return 1.5 * SLOW, []
        self.start()
        if moment == "spawn":
            workers = [w["pid"] for name in ("steady", "m-fork") for w in daemon.module(name)["workers"] if w["pid"]]
            for pid in workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return 0.08 * SLOW, []
        if moment == "enable":
            self.settle("m-spare", "disable", "DISABLED")
            return 0.15 * SLOW, [self.aside("POST", "/api/v1/modules/m-spare/enable", "m-spare", ("ENABLED", "INSTALLING", "REGISTERED", "DISABLED"))]
        if moment == "disable":
            self.settle("m-spare", "enable", "ENABLED")
            return 0.15 * SLOW, [self.aside("POST", "/api/v1/modules/m-spare/disable", "m-spare", ("DISABLED",))]
        if moment == "migration":
            self.settle("m-tables", "disable", "DISABLED")
            daemon.post("/api/v1/modules/m-tables/migrations/down", {"to": 0})  # refused where nothing was applied yet
            return 0.9 * SLOW, [self.aside("POST", "/api/v1/modules/m-tables/enable", "m-tables", ("ENABLED", "INSTALLING", "REGISTERED", "DISABLED"))]
        if moment == "shutdown":
            daemon.send_signal(signal.SIGTERM)
            return 1.2 * SLOW, []
        return 0.05, []

    def settle(self, name, action, status):
        """The state that the next step begins with; a module that was never installed stays so."""
        if self.wanted[name] == {status} or (action == "disable" and self.wanted[name] == {"REGISTERED"}):
            return
        answer = self.daemon.post(f"/api/v1/modules/{name}/{action}")
        if answer.status != 200:
            raise Broken(f"{action} of {name}: {answer}")
        self.wanted[name] = {status}

    def start(self):
        if not self.daemon.running():
            self.daemon.start()
            self.check_boot()

    # -- the kill

    def strike(self, number):
        moment = self.random.choices(MOMENTS, [WEIGHTS[m] for m in MOMENTS])[0]
        whom = self.random.choices(("daemon", "spawner", "both"), (8, 1, 1))[0]
        longest, calls = self.begin(moment)
        pause = self.random.random() * longest
        time.sleep(pause)
        daemon = self.daemon
        daemon.remember_processes()
        spawner = spawner_of(daemon) if daemon.running() else None
        over = not daemon.running()
        if whom != "daemon" and spawner is None:
            whom = "daemon"
        if whom == "both":
            os.kill(spawner, signal.SIGSTOP)  # so that it does not see the other's end
        with contextlib.suppress(ProcessLookupError):
            if whom != "spawner":
                os.kill(daemon.process.pid, signal.SIGKILL)
            if whom != "daemon":
                os.kill(spawner, signal.SIGKILL)
        code = daemon.wait_exit()
        for call in calls:
            call.join(harness.REQUEST_TIMEOUT_S)
        if over:
            self.ended += 1
        elif whom == "spawner" and code not in (5, 0, 4):
            raise Broken(f"the daemon ended with {code} after its spawner")
        self.hit[(moment, "over" if over else whom)] += 1
        if self.verbose:
            print(f"{number:4} {moment:10} {whom:8} after {1000 * pause:6.0f} ms{'  (had ended by itself)' if over else ''}", flush=True)
        # What the spawner ends it ends whether or not anybody comes after it; sometimes somebody comes at once.
        if whom == "daemon" and self.random.random() < 0.7:
            self.await_nothing()
        self.boot()

    def await_nothing(self):
        try:
            wait_until(lambda: not self.left(), "nothing left", GONE_WITHIN_S)
        except AssertionError:
            raise Broken(f"left running after the spawner's end: {self.left()}") from None
        if instances := os.listdir(self.daemon.data / "instances"):
            raise Broken(f"records of what has ended: {instances}")

    def left(self):
        left = [f"{harness.describe(one)} ({instance})" for one, instance in instances_running(self.daemon.data, set(MODULES)).items()]
        return left + [harness.describe(one) for one in self.daemon.leftovers()] + cgroups_of_data(self.daemon.data)

    # -- the next boot

    def boot(self):
        self.daemon.start()
        self.slowest_s = max(self.slowest_s, self.daemon.ready_after_s)
        self.swept = self.daemon.log().count("ended what an earlier life left")  # the log goes on over all lives
        self.check_boot()
        self.daemon.sql(f"INSERT INTO kills VALUES ({self.rows + 1})")
        self.rows += 1

    def check_boot(self):
        daemon = self.daemon
        known = {}
        for name in MODULES:
            module = daemon.module(name)
            if module["status"] not in self.wanted[name]:
                raise Broken(f"{name} is {module['status']}, expected {self.wanted[name]}")
            self.wanted[name] = {module["status"]}
            if module["status"] == "ENABLED":
                daemon.wait_observed(name, "RUNNING")
            known.update({worker["instance"]: name for worker in daemon.module(name)["workers"]})
        strangers = {instance for instance in instances_running(self.daemon.data, set(MODULES)).values() if instance not in known}
        if strangers:
            now = {w["instance"] for name in MODULES for w in daemon.module(name)["workers"]}
            if strangers - now:
                raise Broken(f"these run beside those that were started: {strangers - now}")
        if daemon.sql("SELECT to_regclass('kills')") == [[""]]:
            daemon.sql("CREATE TABLE kills (n int)")
        if (count := daemon.sql("SELECT count(*) FROM kills")) != [[str(self.rows)]]:
            raise Broken(f"{count} rows of {self.rows} are there")
        self.check_migrations()

    def check_migrations(self):
        applied = {int(row[0]) for row in self.daemon.sql(
            "SELECT number FROM bulkhead_internal.migrations WHERE owner = 'm-tables' AND applied_at IS NOT NULL") if row[0]}
        tables = {int(row[0][1:]) for row in self.daemon.sql("SELECT tablename FROM pg_tables WHERE schemaname LIKE '%tables%' AND tablename ~ '^t[0-9]+$'")
                  if row[0]}
        if applied != tables:
            raise Broken(f"migrations {sorted(applied)} are recorded, tables {sorted(tables)} are there")

    def run(self, kills):
        self.daemon.start()
        self.check_boot()
        for number in range(1, kills + 1):
            self.strike(number)
        code, _took = self.daemon.stop()
        if code not in (0, 4):
            raise Broken(f"the last daemon ended with {code}")
        self.await_nothing()

    def table(self):
        whoms = ("daemon", "spawner", "both", "over")
        lines = [f"{'moment':10}" + "".join(f"{'had ended' if whom == 'over' else whom:>11}" for whom in whoms)]
        lines += [f"{moment:10}" + "".join(f"{self.hit[(moment, whom)]:>11}" for whom in whoms) for moment in MOMENTS]
        lines.append(f"{'all':10}" + "".join(f"{sum(self.hit[(moment, whom)] for moment in MOMENTS):>11}" for whom in whoms))
        return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32), help="what is killed when (default: another each time)")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--quiet", action="store_true", help="only the seed and the table")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    run = Kills(arguments.seed, not arguments.quiet)
    began = time.monotonic()
    try:
        run.run(arguments.kills)
    except AssertionError as error:
        print(f"broken with seed {arguments.seed}: {error}\n{run.daemon.log_tail()}", flush=True)
        return 1
    finally:
        run.daemon.clean_up()
        harness.shutil.rmtree(run.folder, ignore_errors=True)
    print(f"{run.table()}\n{sum(run.hit.values())} kills in {time.monotonic() - began:.0f} s, no invariant broken; processes of an earlier life that a boot "
          f"had to end: {run.swept}; slowest boot {run.slowest_s:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
