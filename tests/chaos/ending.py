"""What must be so when the trouble is over: everybody recovers, nothing is held, the database has what was confirmed, the daemon ends in order."""

import collections
import os
import re
import signal
import time

import harness
from faults import programs
from harness import SLOW, wait_until
from misbehaving import Held, held_when_quiet, open_all_pools

RECOVERS_WITHIN_S = 90 * SLOW
GONE_WITHIN_S = 15 * SLOW
STOPS_WITHIN_S = 30 * SLOW
MEMORY_BOUND_KB = 32 * 1024    # what the allocator may keep of a run, however long


def quiet(daemon, names):
    """What the daemon holds with all modules off and all of its own pools open; and the folders and processes that there are."""
    for name in names:
        answer = daemon.post(f"/api/v1/modules/{name}/disable?wait=30s")
        if answer.status != 200:
            raise AssertionError(f"disable of {name} when all is over: {answer}")
    wait_until(lambda: not any(programs(daemon).get(name) for name in names), "the end of all modules' processes", GONE_WITHIN_S)
    open_all_pools(daemon)
    return whichever_server(held_when_quiet(daemon)), folders(daemon), processes(daemon)


def whichever_server(held):
    """A PostgreSQL that was started anew is in a cgroup of another name."""
    def plain(text):
        return re.sub(r"postgres\.[0-9a-fN]+", "postgres", text)

    for who, kinds in held.descriptors.items():
        held.descriptors[who] = collections.Counter(plain(kind) for kind in kinds.elements())
    held.cgroups = {plain(cgroup) for cgroup in held.cgroups}
    return held


def folders(daemon):
    """All folders and sockets of the data folder, without PostgreSQL's, the logs, and what modules keep there themselves."""
    found = set()
    kept = {str(daemon.data / "postgres"), str(daemon.data / "logs")}
    for here, inside, files in os.walk(daemon.data):
        inside[:] = [name for name in inside if os.path.join(here, name) not in kept]
        found |= {os.path.join(here, name) for name in inside}
        found |= {os.path.join(here, name) for name in files if name.endswith(".sock") or "/run/" in here}
    return found


def processes(daemon):
    """Names of what runs below the daemon, without PostgreSQL's, whose number is its own business."""
    table = harness.process_table()
    names = [table[pid][3] for pid, _started in harness.descendants(daemon.process.pid) if pid in table]
    return sorted(name for name in names if not name.startswith("postgres"))


def recovers(daemon, record, faults):
    """The database is back, and each module that was interfered with is enabled anew and answers."""
    def database_is_back():
        try:
            return daemon.sql("SELECT 1") == [["1"]]
        except AssertionError:
            return False

    def on(name):
        return daemon.post(f"/api/v1/modules/{name}/enable?wait=30s").status == 200

    def off(name):
        return daemon.post(f"/api/v1/modules/{name}/disable?wait=30s").status == 200

    def answers(name):
        return daemon.get(f"/api/v1/m/{name}/work?n=behind").status == 200

    def reached(what, done):
        try:
            wait_until(done, what, RECOVERS_WITHIN_S)
            record.check("all recovers when the trouble is over", True)
        except AssertionError as error:
            record.check("all recovers when the trouble is over", False, str(error))

    reached("the database is back", database_is_back)
    for name in faults.names:
        for what, done in (("is disabled", off), ("is enabled", on), ("answers", answers)):
            reached(f"{name} {what}", lambda done=done, name=name: done(name))


def configuration(daemon, record, faults):
    """What is in force is what was accepted last."""
    for name in faults.names:
        told = daemon.module(name)["config"].get("greeting")
        answer = daemon.get(f"/api/v1/m/{name}/who?n=behind")
        used = answer.data.get("greeting") if answer.status == 200 else str(answer)
        record.check("the configuration in force is the last accepted", told in faults.accepted[name] and used == told,
                     f"{name}: {told!r} is told and {used!r} used, accepted was {sorted(faults.accepted[name])}")


def database(daemon, record, clients):
    """What was confirmed is there; the registry agrees with the API; no index lacks a row of its table."""
    schemas = dict(daemon.sql("SELECT module, schema FROM bulkhead_internal.module_roles"))
    for name, stored in clients.stored.items():
        kept = {row[0] for row in daemon.sql(f'SELECT id FROM "{schemas[name]}".entries')}
        lost = stored - kept
        record.check("what a client was told is stored is there", not lost, f"{name}: {len(lost)} of {len(stored)} are lost: {sorted(lost)[:5]}")
    rows = {name: (status, int(revision)) for name, status, revision in daemon.sql("SELECT name, status, config_revision FROM bulkhead_internal.modules")}
    told = {module["name"]: (module["status"], module["configRevision"]) for module in daemon.get("/api/v1/modules?pageSize=100").data}
    record.check("the registry is what the API tells", rows == told, f"{rows} and {told}")
    try:
        daemon.sql("CREATE EXTENSION IF NOT EXISTS amcheck")
        daemon.sql("SELECT bt_index_check(c.oid, true) FROM pg_class c JOIN pg_am a ON a.oid = c.relam AND a.amname = 'btree'"
                   " JOIN pg_index i ON i.indexrelid = c.oid WHERE c.relkind = 'i' AND c.relpersistence = 'p' AND i.indisvalid")
        record.check("every index agrees with its table", True)
    except AssertionError as error:
        record.check("every index agrees with its table", False, str(error))


def nothing_held(daemon, record, names, before):
    """Answers by how many KiB daemon and spawner have grown."""
    held_before, folders_before, processes_before = before
    held, folders_now, processes_now = quiet(daemon, names)
    deadline = time.monotonic() + GONE_WITHIN_S
    while (more := held.more_than(held_before)) and time.monotonic() < deadline:
        held = whichever_server(Held(daemon))
    record.check("no descriptor, cgroup, instance folder or zombie is left", not more, str(more))
    record.check("no folder is left", folders_now <= folders_before, str(sorted(folders_now - folders_before)[:10]))
    record.check("no process is left", processes_now == processes_before, f"{processes_before} before, {processes_now} now")
    grown = held.memory_kb - held_before.memory_kb
    if harness.MEASURES_MEMORY:
        record.check("daemon and spawner have not grown", grown < MEMORY_BOUND_KB, f"by {grown} KiB")
    return grown


def ends(daemon, record):
    try:
        code, took = daemon.stop(signal.SIGTERM, STOPS_WITHIN_S)
        record.check("the daemon ends in order", code == 0, f"with {code} after {took:.1f} s")
        daemon.assert_nothing_left()
        record.check("nothing runs when it has ended", True)
    except AssertionError as error:
        record.check("the daemon ends in order", False, str(error)[:3000])
