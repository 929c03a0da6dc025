"""s6, runit, supervisord and pm2 as peers: installed when missing, each in the foreground with one service, bench_backend on a TCP port.

Each at the best that its documentation offers for a quick restart:
  s6           s6-supervise; it lets a second pass between two starts, and no setting changes that
  runit        runsv; it restarts at once a service that has run for more than a second
  supervisord  autorestart=true, startsecs=0 (what has been started counts as up); it looks after its children once a second
  pm2          pm2-runtime, fork mode without an interpreter, no restart delay
"""

import contextlib
import json
import os
import shutil
import subprocess

import harness
import peers
from gateway import BACKEND, stop_process
from harness import wait_until
from run import Probe

PACKAGES = {"s6": "s6", "runit": "runit", "supervisord": "supervisor"}  # of Debian
COMMANDS = {"s6": "s6-supervise", "runit": "runsv", "supervisord": "supervisord"}
NAMES = (*COMMANDS, "pm2")
PM2 = "pm2@5"                                              # of the npm registry
PM2_HOME = harness.BUILD / "tests" / "bench" / "pm2"       # where it is installed, and nowhere else
START_TIMEOUT_S = 30

SUPERVISORD = """
[supervisord]
nodaemon=true
logfile={folder}/supervisord.log
pidfile={folder}/supervisord.pid
childlogdir={folder}
[program:backend]
command={backend} {address}
autorestart=true
startsecs=0
startretries=1000000
"""


def _install_packages(names):
    """{name: why not} of those that come from Debian."""
    missing = [name for name in names if name in PACKAGES and not shutil.which(COMMANDS[name], path=peers.PATH)]
    refused = {}
    for name in missing:
        try:
            peers.install_packages([PACKAGES[name]], services=["supervisor"] if name == "supervisord" else [])
        except SystemExit as error:
            refused[name] = str(error).strip().splitlines()[0]
    return refused


def _install_pm2():
    """Why it can't be had, or None."""
    if (PM2_HOME / "node_modules" / "pm2" / "bin" / "pm2-runtime").exists():
        return None
    if not shutil.which("npm"):
        try:
            peers.install_packages(["nodejs", "npm"])
        except SystemExit as error:
            return "npm is missing: " + str(error).strip().splitlines()[0]
    PM2_HOME.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["npm", "install", "--prefix", PM2_HOME, "--no-audit", "--no-fund", "--omit=optional", "--ignore-scripts", PM2],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode == 0:
        return None
    said = [line for line in done.stderr.splitlines() if line.strip()] or ["it says nothing"]
    return f"npm install failed: {said[0][:200]}"


def install(names):
    """Installs those of `names` that are missing; {name: why} of those that can't be had."""
    refused = _install_packages(names)
    if "pm2" in names and (why := _install_pm2()):
        refused["pm2"] = why
    return refused


def _service(folder, address):
    run = folder / "backend" / "run"
    run.parent.mkdir()
    run.write_text(f"#!/bin/sh\nexec {BACKEND} {address}\n")
    run.chmod(0o755)
    return run.parent


def _command(name, folder, address):
    if name == "supervisord":
        config = folder / "supervisord.conf"
        config.write_text(SUPERVISORD.format(folder=folder, backend=BACKEND, address=address))
        return [shutil.which("supervisord", path=peers.PATH), "-n", "-c", config]
    if name == "pm2":
        config = folder / "ecosystem.json"
        config.write_text(json.dumps({"apps": [{"name": "backend", "script": str(BACKEND), "args": [address], "interpreter": "none", "exec_mode": "fork",
                                                "autorestart": True, "restart_delay": 0, "max_restarts": 1_000_000}]}))
        return [shutil.which("node"), PM2_HOME / "node_modules" / "pm2" / "bin" / "pm2-runtime", "start", config, "--no-auto-exit"]
    return [shutil.which(COMMANDS[name], path=peers.PATH), _service(folder, address)]


class Supervised:
    """The backend under the peer `name`, answering at `address`. stop() ends both."""

    def __init__(self, name, folder):
        self.name, self.address = name, f"127.0.0.1:{harness.free_port()}"
        folder.mkdir()
        environment = {**os.environ, "PATH": peers.PATH, "PM2_HOME": str(folder / "pm2"), "HOME": str(folder)}
        with open(folder / "out", "wb") as log:
            self.process = subprocess.Popen(_command(name, folder, self.address), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
                                            start_new_session=True)
        self.probe = Probe(self.address, "/small")
        try:
            wait_until(lambda: self.process.poll() is not None or self.probe.status() == 200, f"an answer of the backend under {name}", START_TIMEOUT_S)
            if self.process.poll() is not None:
                raise AssertionError(f"{name} ended with {self.process.returncode}")
        except AssertionError as error:
            said = (folder / "out").read_text(errors="replace")[-2000:]
            self.stop()
            raise SystemExit(f"{error}\n{said}") from None

    def target(self):
        """(pid to kill, where to ask)"""
        table = harness.process_table()
        name = BACKEND.name[:15]
        pids = [pid for pid, _started in harness.descendants(self.process.pid) if table.get(pid, ("", "", "", ""))[3] == name]
        if len(pids) != 1:
            raise SystemExit(f"{name} under {self.name}: {pids}")
        return pids[0], self.probe

    def stop(self):
        below = harness.descendants(self.process.pid)
        stop_process(self.process)
        for process in below:
            if harness.alive(process):
                with contextlib.suppress(OSError):
                    os.kill(process[0], 9)
        harness.reap_orphans()
