"""nginx and HAProxy as the benchmark's peers: installed when missing, started in the foreground with a configuration of their own."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys

PATH = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
PACKAGES = {"nginx": "nginx-light", "haproxy": "haproxy", "perf": "linux-perf"}  # command: package
SERVICES = ("nginx", "haproxy")
POLICY = pathlib.Path("/usr/sbin/policy-rc.d")  # asked by maintainer scripts before they start a service
KEPT_TO_BACKEND = 512                           # idle connections; more than clients, so that none is ever opened anew

# Both do for a request what a reverse proxy must and no more: no log, no header added, no buffering to disk.
NGINX = """
daemon off;
worker_processes 1;
worker_rlimit_nofile 16384;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  keepalive_timeout 1h;
  keepalive_requests 1000000000;
  client_body_temp_path {folder}/nginx-body;
  proxy_temp_path {folder}/nginx-proxy;
  fastcgi_temp_path {folder}/nginx-fastcgi;
  uwsgi_temp_path {folder}/nginx-uwsgi;
  scgi_temp_path {folder}/nginx-scgi;
  upstream backend {{
    server unix:{socket};
    keepalive {kept};
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
  }}
  server {{
    listen {address} backlog=4096;
    location / {{
      proxy_pass http://backend;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_max_temp_file_size 0;
    }}
  }}
}}
"""

HAPROXY = """
global
  nbthread 1
  maxconn 8192
defaults
  mode http
  timeout connect 10s
  timeout client 1h
  timeout server 1h
  timeout http-keep-alive 1h
  http-reuse always
frontend clients
  bind {address} backlog 4096
  default_backend module
backend module
  server one unix@{socket} pool-max-conn {kept}
"""


@contextlib.contextmanager
def no_service_starts():
    """Whatever the policy of this machine is: while packages are installed, none of their services is started."""
    before = (POLICY.read_bytes(), POLICY.stat().st_mode & 0o7777) if POLICY.exists() else None
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        if before is None:
            POLICY.unlink()
        else:
            POLICY.write_bytes(before[0])
            POLICY.chmod(before[1])


def install(commands):
    """Installs those of `commands` that are missing; their services neither start now nor at the next boot."""
    missing = [name for name in commands if not shutil.which(name, path=PATH)]
    if missing:
        install_packages([PACKAGES[name] for name in missing], services=set(missing) & set(SERVICES))


def install_packages(packages, services=()):
    """Debian's packages; SystemExit with the reason when they can't be had."""
    if os.geteuid() != 0:
        raise SystemExit(f"missing: {' '.join(packages)}. Run this once as root, which installs them, or leave the peers out with --only bulkhead.")
    print(f"installing {' '.join(packages)}…", file=sys.stderr, flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "PATH": PATH}
    with no_service_starts():
        for command in (["update", "-q"], ["install", "-y", "-q", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120", *packages]):
            done = subprocess.run(["apt-get", *command], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
            if done.returncode != 0:
                raise SystemExit(f"apt-get {command[0]} failed:\n{(done.stdout + done.stderr)[-2000:]}")
        for service in services:
            for command in (["systemctl", "disable", service], ["update-rc.d", service, "disable"]):
                if shutil.which(command[0], path=PATH):
                    subprocess.run(command, env=environment, capture_output=True)


def start(name, folder, address, socket, cpu):
    """The process of the peer `name` on `cpu`, which proxies from `address` to the Unix socket."""
    text = (NGINX if name == "nginx" else HAPROXY).format(folder=folder, address=address, socket=socket, kept=KEPT_TO_BACKEND)
    config = folder / f"{name}.conf"
    config.write_text(text)
    binary = shutil.which(name, path=PATH)
    command = [binary, "-e", folder / "nginx.log", "-p", folder, "-c", config] if name == "nginx" else [binary, "-db", "-f", config]
    with open(folder / f"{name}.out", "wb") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=lambda: os.sched_setaffinity(0, {cpu}))
