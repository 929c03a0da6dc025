"""A PostgreSQL server as an operator would have one, and fresh databases on it for the daemons of tests.

    /usr/bin/python3 -B tests/integration/own_server.py own COMMAND…     runs COMMAND beside a server, which ends with it
    /usr/bin/python3 -B tests/integration/own_server.py URL COMMAND…     beside the server that a superuser's URL leads to

COMMAND has the server's URL in BULKHEAD_TEST_STORE_URL, where harness.py looks for it, and its exit code is ours. It is what
`sh tests/run.sh --store …` starts ctest with.
"""

import atexit
import contextlib
import glob
import os
import pathlib
import pwd
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse

from machine import awaited_pids, free_port

VARIABLE = "BULKHEAD_TEST_STORE_URL"
CONNECTIONS = 300        # of daemons and modules together, with three tests side by side
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 30
POLL_S = 0.02

# When our end of its stdin is closed, or we are gone in whatever way, the server ends, if it runs still, and the folder goes.
GUARD = """
read -r _
if pid=$(head -n 1 "$1/data/postmaster.pid") && kill -QUIT "$pid"; then
  for _ in $(seq 100); do kill -0 "$pid" || break; sleep 0.1; done
fi
rm -rf "$1"
"""


def postgres_tool(name):
    found = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), key=lambda path: int(path.split("/")[4]))
    if not found:
        raise AssertionError(f"{name} of PostgreSQL is not installed: run sh deploy/packages.sh")
    return found[-1]


def server_user():
    """Options of subprocess: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam("postgres")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def url_of(url, database):
    """The same server and user, another database."""
    parts = urllib.parse.urlsplit(url)
    query = "&".join(part for part in parts.query.split("&") if part and not part.startswith("dbname="))
    return urllib.parse.urlunsplit(parts._replace(path=f"/{database}", query=query))


def psql(url, *statements):
    """psql, done: each statement by itself, its rows without decoration. The password is in no argument, which everybody may read."""
    parts = urllib.parse.urlsplit(url)
    userinfo, _at, host = parts.netloc.rpartition("@")
    user, _colon, password = userinfo.partition(":")
    environment = dict(os.environ)
    if password:
        environment["PGPASSWORD"] = urllib.parse.unquote(password)
    commands = [argument for statement in statements for argument in ("-c", statement)]
    return subprocess.run(["psql", "-X", "-A", "-t", "-q", "-w", "-v", "ON_ERROR_STOP=1", *commands,
                           urllib.parse.urlunsplit(parts._replace(netloc=f"{user}@{host}" if user else host))],
                          env=environment, capture_output=True, text=True)


def ask(url, *statements):
    """What psql prints; AssertionError when it fails."""
    done = psql(url, *statements)
    if done.returncode != 0:
        raise AssertionError(f"{'; '.join(statements)}: {done.stderr}")
    return done.stdout.strip()


class OwnServer:
    """TCP on loopback, passwords. Its end is the test's at the latest."""

    def __init__(self):
        self.password = secrets.token_hex(16)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="bh-pg-", dir="/tmp"))
        self.port = free_port()
        self.process, self._user = None, server_user()
        self._guard = subprocess.Popen(["/bin/sh", "-c", GUARD, "guard", str(self.folder)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL, start_new_session=True)
        awaited_pids.add(self._guard.pid)
        try:
            self._make()
            self.start()
            self.sql("CREATE DATABASE bulkhead", database="postgres")
        except BaseException:
            self.remove()
            raise

    def _make(self):
        secret = self.folder / "password"
        secret.write_text(self.password)
        secret.chmod(0o644)
        if self._user:
            os.chown(self.folder, self._user["user"], self._user["group"])
        done = subprocess.run([postgres_tool("initdb"), "-D", self.folder / "data", "-U", "operator", "-A", "scram-sha-256", f"--pwfile={secret}",
                               "--no-sync", "-E", "UTF8", "--locale=C"], capture_output=True, text=True, cwd="/", **self._user)
        if done.returncode != 0:
            raise AssertionError(f"initdb: {done.stdout}{done.stderr}")
        with open(self.folder / "data" / "postgresql.conf", "a") as conf:
            conf.write(f"port = {self.port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\nfsync = off\n"
                       f"full_page_writes = off\nmax_connections = {CONNECTIONS}\n")

    @property
    def url(self):
        return f"postgresql://operator:{self.password}@127.0.0.1:{self.port}/bulkhead"

    def start(self):
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen([postgres_tool("postgres"), "-D", self.folder / "data"], stdout=log, stderr=log, cwd="/",
                                            start_new_session=True, **self._user)
        awaited_pids.add(self.process.pid)
        deadline = time.monotonic() + START_TIMEOUT_S
        while self.sql("SELECT 1", database="postgres", check=False) != "1":
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"PostgreSQL does not answer:\n{(self.folder / 'log').read_text()[-4000:]}")
            time.sleep(POLL_S)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(STOP_TIMEOUT_S)

    def remove(self):
        try:
            self.stop()
        finally:
            self._guard.communicate()

    def sql(self, statement, database="bulkhead", check=True, role=None):
        """What psql prints, without decoration."""
        statement = f"SET ROLE {role}; {statement}" if role else statement
        done = psql(url_of(self.url, database), statement)
        if check and done.returncode != 0:
            raise AssertionError(f"{statement}: {done.stderr}")
        return done.stdout.strip() if done.returncode == 0 else "error: " + done.stderr


# ---- databases for daemons ----------------------------------------------------------------------------------------


class OwnDatabase:
    """A database that is made when a daemon first wants it."""

    def __init__(self, server):
        self.server, self.name, self._made = server, f"bh_test_{secrets.token_hex(6)}", False

    def url(self):
        """For BULKHEAD_STORE_URL. The database is there."""
        if not self._made:
            ask(self.server, f"CREATE DATABASE {self.name} TEMPLATE template0")
            self._made = True
        return url_of(self.server, self.name)

    def drop(self):
        """And the roles that the supervisor made for its modules: these belong to the server and not to the database."""
        if not self._made:
            return
        self._made = False
        roles = psql(url_of(self.server, self.name), "SELECT quote_ident(rolname) FROM pg_roles, bulkhead_internal.instance "
                     "WHERE starts_with(rolname, 'bh_' || left(id::text, 8) || '_')").stdout.splitlines()  # none where it was never migrated
        done = psql(self.server, f"DROP DATABASE {self.name} WITH (FORCE)", *(f"DROP ROLE {role}" for role in roles))
        if done.returncode != 0:
            print(f"the database {self.name} or a role of its modules is left: {done.stderr}", file=sys.stderr, flush=True)


_of_folders = {}


def database_of(folder):
    """The one of all daemons on this folder; None when the tests are not to use a server."""
    if server := os.environ.get(VARIABLE):
        _of_folders.setdefault(str(folder), OwnDatabase(server))
    return _of_folders.get(str(folder))


def drop_database_of(folder):
    if database := _of_folders.pop(str(folder), None):
        database.drop()


@atexit.register
def _drop_all():
    """Those of folders that outlived their daemons."""
    for folder in list(_of_folders):
        drop_database_of(folder)


# ---- a command beside a server ------------------------------------------------------------------------------------


def objection(url):
    """Why tests can't use this server; None when they can."""
    done = psql(url, "SELECT usesuper FROM pg_user WHERE usename = current_user")
    if done.returncode != 0:
        return done.stderr.strip()
    return None if done.stdout.strip() == "t" else "the tests want a superuser of the server"


def main(store, *command):
    child, interrupted = None, False

    def heed(number, _frame):
        """The command is told, its end is waited for, and then the server ends."""
        nonlocal interrupted
        if child is None:
            sys.exit(128 + number)
        interrupted = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, heed)
    with contextlib.ExitStack() as stack:
        if store == "own":
            server = OwnServer()
            stack.callback(server.remove)
            store = server.url
        elif why := objection(store):
            print(f"{sys.argv[0]}: {why}", file=sys.stderr)
            return 2
        # In a session of its own, so that Ctrl-C reaches it once and through us. It has all our descriptors: tests/run.sh opens one for it.
        child = subprocess.Popen(command, env={**os.environ, VARIABLE: store}, close_fds=False, start_new_session=True)
        code = child.wait()
        # ctest, interrupted, does not wait for its tests. They have been told with it and end their daemons, which want the server.
        deadline = time.monotonic() + STOP_TIMEOUT_S
        with contextlib.suppress(ProcessLookupError):
            while interrupted and time.monotonic() < deadline:
                os.killpg(child.pid, 0)
                time.sleep(POLL_S)
        return 128 - code if code < 0 else code


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
