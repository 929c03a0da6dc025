#!/usr/bin/python3
"""Measures the registry as it grows, and prints a table: list, search and get, registration, plans, boots with modules that start.

    /usr/bin/python3 -B tests/bench/registry.py [--sizes 10,100,1000] [--rounds N] [--json]

Needs a machine that does nothing else. The floor beside each list is the time that Python takes to read the same bytes from a plain
HTTP server of its own, so that growth of the answer is told apart from growth of the work behind it. The last column is how a median grows
from the smallest size to the largest: the exponent x of n^x, so 0 is not at all and 1 is linear. The modules of the boots that start
some are copies of the test's echo module; four times as many as are enabled lie registered beside them.
"""

import argparse
import http.client
import http.server
import json
import math
import pathlib
import shutil
import statistics
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

import harness  # noqa: E402
from harness import Daemon  # noqa: E402
from run import kilobytes  # noqa: E402

CALLS = 300  # of one kind and size, per round
BOOTS = 3    # of one size, per round
STARTS = "boots that start modules"


class Client:
    """One kept connection to a daemon, as the administrator."""

    def __init__(self, address, token):
        host, port = address.rsplit(":", 1)
        self.connection = http.client.HTTPConnection(host, int(port), timeout=60)
        self.headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def call(self, method, path, body=None, status=200):
        self.connection.request(method, path, None if body is None else json.dumps(body).encode(), self.headers)
        answer = self.connection.getresponse()
        data = answer.read()
        if answer.status != status:
            raise SystemExit(f"{method} {path}: {answer.status} {data[:300]}")
        return data


def manifest(number):
    routes = [{"method": "GET", "path": f"/things/{i}"} for i in range(10)]
    return {"name": f"module-{number:04}", "version": "1.0.0", "displayName": f"Module {number}", "description": "one of many",
            "capabilities": {"api": {"routes": routes}}, "metadata": {"tags": ["bench", f"group-{number % 7}"]}}


def timed(calls, action):
    samples = []
    for i in range(calls):
        began = time.perf_counter()
        action(i)
        samples.append((time.perf_counter() - began) * 1000)
    samples.sort()
    return {"p50_ms": samples[len(samples) // 2], "p99_ms": samples[min(len(samples) - 1, int(len(samples) * 0.99))],
            "per_s": 1000 * len(samples) / sum(samples)}


def floor(payload):
    """The same bytes from a server that does nothing."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # or the client waits for a delayed acknowledgement

        def do_GET(self):  # noqa: N802
            self.send_response(200)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = Client(f"127.0.0.1:{server.server_port}", "none")
    result = timed(CALLS, lambda i: client.call("GET", "/"))
    server.shutdown()
    return result


def registered(size):
    """Figures of a node with so many registered modules, of which none runs."""
    daemon = Daemon(modules_dir=tempfile.mkdtemp(prefix="bh-bench-")).start()
    try:
        client = Client(daemon.address, daemon.token)
        figures = {"register": timed(size, lambda i: client.call("POST", "/api/v1/modules", {"manifest": manifest(i)}, 201))}
        page = min(size, 500)
        listed = client.call("GET", f"/api/v1/modules?pageSize={page}")
        figures["list a page"] = timed(CALLS, lambda i: client.call("GET", f"/api/v1/modules?pageSize={page}"))
        figures["its bytes alone"] = floor(listed)
        figures["list 10"] = timed(CALLS, lambda i: client.call("GET", "/api/v1/modules?pageSize=10"))
        figures["search"] = timed(CALLS, lambda i: client.call("GET", "/api/v1/modules?search=group-3&sort=-createdAt&pageSize=10"))
        figures["get one"] = timed(CALLS, lambda i: client.call("GET", f"/api/v1/modules/module-{i % size:04}"))
        figures["plan"] = timed(CALLS, lambda i: client.call("GET", f"/api/v1/modules/module-{i % size:04}/plan?action=delete"))
        figures["boot"] = timed(BOOTS, lambda i: restart(daemon))
        return figures
    finally:
        daemon.stop()
        daemon.clean_up()


def restart(daemon):
    daemon.stop()
    daemon.start()


def boots(enabled, registered=None):
    """A boot with so many enabled modules and, unless it is said, four times as many registered ones."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bh-bench-"))
    folder.chmod(0o755)
    try:
        names = harness.copies(harness.FAKES / "echo", [f"echo-{i:03}" for i in range(registered or enabled * 4)], folder)
        daemon = Daemon(modules=names[:enabled], modules_dir=folder).start()
        try:
            daemon.stop()
            began = time.monotonic()
            daemon.start()
            took = (time.monotonic() - began) * 1000
            running = sum(daemon.module(name)["observed"]["state"] == "RUNNING" for name in names[:enabled])
            if running != enabled:
                raise SystemExit(f"{running} of {enabled} modules run")
            below = [pid for pid, _started in harness.descendants(daemon.process.pid)]
            memory = sum(kilobytes(pid, "Pss") for pid in [daemon.process.pid, *below]) / 1024
            own = kilobytes(daemon.process.pid, "Pss") / 1024
            return {"boot_ms": took, "per_module_ms": took / enabled, "all_mb": memory, "daemon_mb": own}
        finally:
            daemon.stop()
            daemon.clean_up()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def growth(by_size, figure):
    small, large = min(by_size), max(by_size)
    if small == large:
        return ""
    return f"{math.log(by_size[large][figure] / by_size[small][figure]) / math.log(large / small):.2f}"


def median(rounds):
    return {figure: statistics.median(one[figure] for one in rounds) for figure in rounds[0]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10,100,1000", help="registered modules (default 10,100,1000)")
    parser.add_argument("--enabled", default="5,50", help="modules that a boot starts (default 5,50)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sizes, enabled = [int(n) for n in options.sizes.split(",")], [int(n) for n in options.enabled.split(",") if n]
    samples = {}
    for _ in range(options.rounds):
        for size in sizes:
            for name, figures in registered(size).items():
                samples.setdefault(name, {}).setdefault(size, []).append(figures)
        for count in enabled:
            samples.setdefault(STARTS, {}).setdefault(count, []).append(boots(count))
    result = {name: {size: median(rounds) for size, rounds in by_size.items()} for name, by_size in samples.items()}
    if options.json:
        print(json.dumps(result))
        return
    print(f"{'registered modules':<22}" + "".join(f"{size:>28}" for size in sizes) + f"{'n^x':>8}")
    for name, by_size in result.items():
        if name != STARTS:
            cells = "".join(f"{f['p50_ms']:>8.2f} {f['p99_ms']:>8.2f} ms{f['per_s']:>6.0f}/s" for f in by_size.values())
            print(f"{name:<22}{cells}{growth(by_size, 'p50_ms'):>8}")
    print("median, p99 and rate of one connection; of boot, a stop and a start")
    for count, figures in result.get(STARTS, {}).items():
        print(f"boot with {count} of {count * 4}: {figures['boot_ms']:.0f} ms, {figures['per_module_ms']:.1f} ms a module; "
              f"memory {figures['all_mb']:.0f} MB in all, the supervisor {figures['daemon_mb']:.1f} MB (PSS)")
    if len(enabled) > 1:
        print("of these " + ", ".join(f"{what} n^{growth(result[STARTS], figure)}" for figure, what in
                                     (("boot_ms", "the time grows as"), ("all_mb", "memory as"))))


if __name__ == "__main__":
    main()
