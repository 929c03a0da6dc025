"""What provokes each error code, for errors_test.py: one function per code on its shared daemon, whose modules errors_test.py writes.

A function takes the test and a caller (provoked.Rest or Grpc) and answers the Refusal that the caller got. It may be called again.
"""

import concurrent.futures
import contextlib
import functools
import uuid

from harness import wait_until
from http_test import Wire
from provoked import Refusal

ECHO = "/api/v1/m/echo"
PASSWORD = "a long enough sentence"
MAX_FLAGS = 10_000

PROVOKERS, GATEWAY_ALONE = {}, set()


def provokes(code, gateway=False):
    """Registers what provokes `code`. `gateway`: the gateway or REST alone, so it is called without a caller."""
    def register(function):
        PROVOKERS[code] = function
        if gateway:
            GATEWAY_ALONE.add(code)
        return function
    return register


# ---- 400 ----------------------------------------------------------------------------------------------------------


@provokes("INVALID_ARGUMENT")
def _(_test, ask):
    return ask("Modules.ListModules", page_size=501)


@provokes("INVALID_JSON", gateway=True)
def _(test):
    return Refusal.of_answer(test.daemon.post("/api/v1/modules", b'{"manifest": ', headers={"Content-Type": "application/json"}))


@provokes("BAD_REQUEST", gateway=True)
def _(test):
    return test.wire("GET", "/healthz", "X-A : 1")


@provokes("MANIFEST_INVALID")
def _(_test, ask):
    return ask("Modules.RegisterModule", manifest={"name": "Bad Name"})


@provokes("MANIFEST_AMBIGUOUS")
def _(test, ask):
    folder = test.folder("two", manifest_json="{}", module_json="{}")
    return ask("Modules.InstallModule", name=test.registered("two-manifests", path=folder))


@provokes("MANIFEST_MISSING")
def _(test, ask):
    return ask("Modules.InstallModule", name=test.registered("no-manifest", path=test.folder("none")))


@provokes("CONFIG_INVALID")
def _(_test, ask):
    return ask("Modules.SetModuleConfig", name="echo", config={"greeting": 7})


@provokes("PACKAGE_INVALID")
def _(test, ask):
    return ask("Modules.InstallModule", name=test.registered("homeless"))


@provokes("MIGRATION_INVALID")
def _(_test, ask):
    return ask("Migrations.MigrateUp", name="misnamed")


@provokes("EXTENSION_NOT_ALLOWED")
def _(_test, ask):
    return ask("Modules.EnableModule", name="extended")


@provokes("ACCESS_CONFLICT")
def _(_test, ask):
    return ask("Modules.EnableModule", name="reaching")


@provokes("CLIENT_NOT_CONFIGURED")
def _(_test, ask):
    return ask("Modules.EnableModule", name="calling")


@provokes("ISOLATION_INCOMPLETE")
def _(_test, ask):
    return ask("Modules.EnableModule", name="strict")


@provokes("EXTENSION_UNAVAILABLE")
def _(_test, ask):
    return ask("Modules.EnableModule", name="unavailable")


# ---- 401, 403, 404, 405, 408 --------------------------------------------------------------------------------------


@provokes("UNAUTHENTICATED")
def _(_test, ask):
    return ask("Modules.ListModules", token=None)


@provokes("INVALID_CREDENTIALS")
def _(_test, ask):
    return ask("Auth.LogIn", token=None, username="nobody-here", password=PASSWORD)


@provokes("REFRESH_TOKEN_INVALID")
def _(_test, ask):
    return ask("Auth.RefreshLogin", token=None, refresh_token="bhr_" + "0" * 64)


@provokes("FORBIDDEN")
def _(test, ask):
    secret = test.daemon.make_token(f"reader-{uuid.uuid4().hex[:8]}", "modules:read")
    return ask("Modules.DisableModule", token=secret, name="echo")


@provokes("ROUTE_NOT_FOUND", gateway=True)
def _(test):
    return test.get(f"{ECHO}/nothing")


@provokes("MODULE_NOT_FOUND")
def _(_test, ask):
    return ask("Modules.GetModule", name="nobody")


@provokes("JOB_NOT_FOUND")
def _(_test, ask):
    return ask("Jobs.RunJob", module="echo", job="nothing")


@provokes("RUN_NOT_FOUND")
def _(_test, ask):
    return ask("Jobs.GetRun", id=str(uuid.uuid4()))


@provokes("ARTIFACT_NOT_FOUND")
def _(test, ask):
    run = test.daemon.post("/api/v1/modules/echo/jobs/work/run?wait=30s").data["id"]
    return ask("Jobs.GetArtifact", id=run, name="nothing")


@provokes("FILE_NOT_FOUND")
def _(_test, ask):
    return ask("Files.GetFile", module="echo", name="a/file/that/is/not.there")


@provokes("SUBSCRIPTION_NOT_FOUND")
def _(_test, ask):
    return ask("Events.ReplayEvents", module="nobody", since="2026-01-01T00:00:00Z")


@provokes("DEAD_LETTER_NOT_FOUND")
def _(_test, ask):
    return ask("Events.GetDeadLetter", id="999999999")


@provokes("TOKEN_NOT_FOUND")
def _(_test, ask):
    return ask("Tokens.DeleteToken", name="nobodys")


@provokes("FLAG_NOT_FOUND")
def _(_test, ask):
    return ask("Flags.GetFlag", name="nowhere-set")


@provokes("USER_NOT_FOUND")
def _(_test, ask):
    return ask("Users.GetUser", name="nobody-here")


@provokes("ROLE_NOT_FOUND")
def _(_test, ask):
    return ask("Roles.DeleteRole", name="nonesuch")


@provokes("METHOD_NOT_ALLOWED", gateway=True)
def _(test):
    return Refusal.of_answer(test.daemon.request("PATCH", "/api/v1/modules", {}))


@provokes("REQUEST_TIMEOUT", gateway=True)
def _(test):
    return test.late.result()


# ---- 409 ----------------------------------------------------------------------------------------------------------


@provokes("MODULE_EXISTS")
def _(test, ask):
    return ask("Modules.RegisterModule", manifest=test.daemon.module("echo")["manifest"])


@provokes("TOKEN_EXISTS")
def _(test, ask):
    test.made("/api/v1/tokens", {"name": "twice", "permissions": ["modules:read"]})
    return ask("Tokens.CreateToken", name="twice", permissions=["modules:read"])


@provokes("USER_EXISTS")
def _(test, ask):
    test.made("/api/v1/users", {"name": "twice", "password": PASSWORD})
    return ask("Users.CreateUser", name="twice", password=PASSWORD)


@provokes("ROLE_EXISTS")
def _(_test, ask):
    return ask("Roles.CreateRole", name="viewer", permissions=["a:b"])


@provokes("ROLE_BUILT_IN")
def _(_test, ask):
    return ask("Roles.DeleteRole", name="viewer")


@provokes("ROLE_IN_USE")
def _(test, ask):
    test.made("/api/v1/roles", {"name": "held", "permissions": ["a:b"]})
    test.made("/api/v1/tokens", {"name": "holder", "roles": ["held"]})
    return ask("Roles.DeleteRole", name="held")


@provokes("UNIQUE_VIOLATION")
def _(test, ask):
    """Only where somebody has added a rule to the tables: what is unique there has codes of its own."""
    test.daemon.sql("CREATE UNIQUE INDEX IF NOT EXISTS made_by_a_test ON bulkhead_internal.runs (job) WHERE job = 'impatient'")
    try:
        return ask("Jobs.RunJob", module="echo", job="impatient") or ask("Jobs.RunJob", module="echo", job="impatient")
    finally:
        test.daemon.sql("DROP INDEX bulkhead_internal.made_by_a_test; DELETE FROM bulkhead_internal.runs WHERE job = 'impatient'")


@provokes("INVALID_TRANSITION")
def _(_test, ask):
    return ask("Modules.DisableModule", name="registered")


@provokes("VERSION_NOT_FOUND")
def _(_test, ask):
    return ask("Modules.UpgradeModule", name="echo", version="7.7.7")


@provokes("NO_PREVIOUS_VERSION")
def _(_test, ask):
    return ask("Modules.RollbackModule", name="echo")


@provokes("MODULE_ENABLED")
def _(_test, ask):
    return ask("Modules.DeleteModule", name="echo")


@provokes("MODULE_BUSY")
def _(test, ask):
    """Its process is started, and ignores that it is told to end."""
    test.assertEqual(test.daemon.post("/api/v1/modules/hangs/enable?wait=false").status, 202)
    wait_until(lambda: [worker for worker in test.daemon.module("hangs")["workers"] if worker["pid"]], "its process")
    test.assertIn(test.daemon.post("/api/v1/modules/hangs/disable?wait=false").status, (200, 202))
    refusal = ask("Modules.DeleteModule", name="hangs")
    test.daemon.wait_observed("hangs", "STOPPED")
    return refusal


@provokes("MODULE_NOT_RUNNING")
def _(_test, ask):
    return ask("Jobs.RunJob", module="idle", job="work")


@provokes("RUN_ENDED")
def _(test, ask):
    run = test.daemon.post("/api/v1/modules/echo/jobs/work/run?wait=30s").data["id"]
    return ask("Jobs.CancelRun", id=run)


@provokes("CONFIG_REFUSED")
def _(_test, ask):
    return ask("Modules.SetModuleConfig", name="echo", config={"greeting": "nonsense"})


@provokes("FLAG_FIXED")
def _(_test, ask):
    return ask("Flags.SetFlag", name="fixed", enabled=False)


@provokes("IDEMPOTENCY_KEY_REUSED")
def _(_test, ask):
    key = str(uuid.uuid4())
    return ask("Flags.SetFlag", key=key, name="keyed", enabled=False) or ask("Flags.SetFlag", key=key, name="keyed", enabled=True)


@provokes("IDEMPOTENCY_KEY_IN_USE")
def _(_test, ask):
    run = functools.partial(ask, "Jobs.RunJob", key=str(uuid.uuid4()), module="echo", job="work", payload={"ms": 1500}, wait="20s")
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        first, second = threads.submit(run), threads.submit(run)
    return first.result() or second.result()


@provokes("MANIFEST_CHANGED")
def _(test, ask):
    path = test.modules / "changed" / "manifest.json"
    path.write_text(path.read_text().replace('"version": "1.0.0"', '"version": "1.0.1"'))
    return ask("Modules.InstallModule", name="changed")


@provokes("DEPENDENCY_UNSATISFIED")
def _(_test, ask):
    return ask("Modules.EnableModule", name="needing")


@provokes("HAS_DEPENDENTS")
def _(_test, ask):
    return ask("Modules.DeleteModule", name="needed")


@provokes("GENERATION_CHANGED")
def _(test, ask):
    """Of two who change a user at once one has read what is no longer so: both hash a password in between."""
    test.made("/api/v1/users", {"name": "torn", "password": PASSWORD})
    for _attempt in range(20):
        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            refusals = list(threads.map(lambda n: ask("Users.UpdateUser", name="torn", password=f"{PASSWORD} {n}"), range(4)))
        if any(refusals):
            return next(filter(None, refusals))
    return None


@provokes("MIGRATION_EDITED")
def _(test, ask):
    test.applied("edited")
    test.daemon.sql("UPDATE bulkhead_internal.migrations SET checksum = 'another' WHERE owner = 'edited'")
    return ask("Migrations.MigrateUp", name="edited")


@provokes("MIGRATION_OUT_OF_ORDER")
def _(test, ask):
    test.applied("hole")
    test.daemon.sql("DELETE FROM bulkhead_internal.migrations WHERE owner = 'hole' AND number = 1")
    return ask("Migrations.MigrateUp", name="hole")


@provokes("MIGRATION_MISSING")
def _(test, ask):
    test.applied("gone")
    test.daemon.sql("INSERT INTO bulkhead_internal.migrations VALUES ('gone', 2, '002_b.sql', 'x', NULL, now()) ON CONFLICT DO NOTHING")
    return ask("Migrations.MigrateUp", name="gone")


@provokes("MIGRATION_IRREVERSIBLE")
def _(test, ask):
    test.applied("forward")
    return ask("Migrations.MigrateDown", name="forward")


@provokes("MODULE_NOT_INSTALLED")
def _(_test, ask):
    return ask("Migrations.MigrateUp", name="not-installed")


# ---- 412 to 431 ---------------------------------------------------------------------------------------------------


@provokes("PRECONDITION_FAILED")
def _(_test, ask):
    return ask("Modules.DisableModule", name="echo", if_generation=999999)


@provokes("BODY_TOO_LARGE", gateway=True)
def _(test):
    return test.wire("POST", f"{ECHO}/small", "Content-Length: 1025")


@provokes("URI_TOO_LONG", gateway=True)
def _(test):
    return test.wire("GET", f"{ECHO}/echo?" + "x" * 9000)


@provokes("UNSUPPORTED_MEDIA_TYPE", gateway=True)
def _(test):
    return Refusal.of_answer(test.daemon.post("/api/v1/modules", b"manifest: {}", headers={"Content-Type": "application/yaml"}))


@provokes("EXPECTATION_FAILED", gateway=True)
def _(test):
    return test.wire("POST", f"{ECHO}/upload", "Content-Length: 1", "Expect: the-best")


@provokes("TOO_MANY_ATTEMPTS")
def _(test, ask):
    test.made("/api/v1/users", {"name": "guessed", "password": PASSWORD})
    for _attempt in range(7):
        refusal = ask("Auth.LogIn", token=None, username="guessed", password="a wrong one")
        if refusal.code != "INVALID_CREDENTIALS":
            break
    return refusal


@provokes("TOO_MANY_STREAMS")
def _(test, ask):
    secret = test.daemon.make_token(f"greedy-{uuid.uuid4()}", "logs:read")
    with contextlib.ExitStack() as open_ones:
        for _stream in range(32):
            wire = open_ones.enter_context(Wire(test.daemon))
            wire.send(f"GET /api/v1/modules/echo/logs?follow=true HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {secret}\r\n\r\n".encode())
            wire.read_until(b"\r\n\r\n")
        return ask("Logs.FollowModuleLogs", token=secret, module="echo")


@provokes("HEADERS_TOO_LARGE", gateway=True)
def _(test):
    return test.wire("GET", f"{ECHO}/echo", "X-Big: " + "x" * 70_000)


# ---- 5xx ----------------------------------------------------------------------------------------------------------


@provokes("INTERNAL")
def _(test, ask):
    """Where a module's data folder should be there is a link, which nobody follows or removes."""
    name = test.registered("odd-folder")
    path = test.daemon.data / "modules" / name
    path.parent.mkdir(exist_ok=True)
    path.symlink_to("/nowhere")
    try:
        return ask("Modules.DeleteModule", name=name, purge=True)
    finally:
        path.unlink(missing_ok=True)


@provokes("DATABASE_ERROR")
def _(test, ask):
    test.daemon.sql("ALTER TABLE bulkhead_internal.flags RENAME TO flags_away")
    try:
        return ask("Flags.SetFlag", name="lost", enabled=True)
    finally:
        test.daemon.sql("ALTER TABLE bulkhead_internal.flags_away RENAME TO flags")


@provokes("DATA_UNUSABLE")
def _(test, ask):
    path = test.daemon.data / "versions" / "unwritable"
    path.write_text("no folder")
    try:
        return ask("Modules.InstallModule", name="unwritable")
    finally:
        path.unlink()


@provokes("NOT_IMPLEMENTED", gateway=True)
def _(test):
    return test.wire("CONNECT", "example.org:443")


@provokes("MODULE_START_FAILED")
def _(_test, ask):
    return ask("Modules.EnableModule", name="broken")


@provokes("MIGRATION_FAILED")
def _(_test, ask):
    return ask("Migrations.MigrateUp", name="fails")


@provokes("BAD_GATEWAY", gateway=True)
def _(test):
    return test.get("/api/v1/m/malformed/crlf-value")


@provokes("MODULE_UNAVAILABLE", gateway=True)
def _(test):
    """More crashes than are forgiven at once, so that requests need not wait for the next start."""
    for _attempt in range(30):
        refusal = Refusal.of_answer(test.daemon.post("/api/v1/m/crashing/crash", {}))
        if refusal.code == "MODULE_UNAVAILABLE" and "in flight" not in refusal.message:
            break
    return refusal


@provokes("MIGRATION_LOCKED")
def _(test, ask):
    return test.locked[ask.name].result()


@provokes("OVERLOADED")
def _(test, ask):
    test.daemon.sql(f"INSERT INTO bulkhead_internal.flags (name, enabled, updated_by) SELECT 'many-' || n, false, 'a test' "
                    f"FROM generate_series(1, {MAX_FLAGS}) n")
    try:
        return ask("Flags.SetFlag", name="one-too-many", enabled=True)
    finally:
        test.daemon.sql("DELETE FROM bulkhead_internal.flags WHERE name LIKE 'many-%'")


@provokes("GATEWAY_TIMEOUT", gateway=True)
def _(test):
    return test.get(f"{ECHO}/slow?ms=30000")


@provokes("HTTP_VERSION_NOT_SUPPORTED", gateway=True)
def _(test):
    return test.wire("GET", "/healthz", version="HTTP/3.0")
