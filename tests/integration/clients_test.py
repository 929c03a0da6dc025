"""Service clients through the real daemon: configuration, module, server; what is missing, what is masked, what SIGHUP changes."""

import contextlib
import http.server
import json
import pathlib
import shutil
import signal
import ssl
import subprocess
import threading

import harness
from harness import DaemonTest, copies, run_serve, wait_until

SHOPPER = harness.BUILD / "tests" / "clients" / "modules" / "shopper"
SECRET = "cs_4f9d-secret-of-the-shop"
MASK = "********"
TRACE = "0af7651916cd43dd8448eb211c80319c"


class Service:
    """An HTTP/1.1 server that keeps what came: requests as dicts, and how many connections there were. `status`: what it answers, None: it hangs up; `tls`: a
    certificate and its key, of certificate()."""

    def __init__(self, status=200, tls=None):
        service = self
        self.status, self.came, self.connections, self.headers = status, [], 0, {}

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                service.connections += 1
                super().setup()

            def handle(self):
                with contextlib.suppress(OSError):
                    super().handle()

            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                service.came.append({"method": self.command, "path": self.path, "headers": headers, "body": body.decode()})
                if service.status is None:  # not a word
                    self.close_connection = True
                    return
                self.send_response(service.status)
                for name, value in service.headers.items():
                    self.send_header(name, value)
                sent = json.dumps({"number": len(service.came)}).encode()
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            do_GET = do_POST = do_PUT = do_DELETE = answer

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def certificate(folder):
    """Of 127.0.0.1, signed by itself: (certificate, key)."""
    made = folder / "cert.pem", folder / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext",
                    "subjectAltName=IP:127.0.0.1", "-out", made[0], "-keyout", made[1]], check=True, capture_output=True)
    made[0].chmod(0o644)
    return made


def clients(**each):
    """`clients` of a configuration file; each as a dict."""
    return "clients:\n" + "".join(f"  {name}: {json.dumps(client)}\n" for name, client in each.items())


class ClientsTest(DaemonTest):
    def setUp(self):
        super().setUp()
        self.modules = self.temporary_folder(0o755)

    def service(self, **options):
        service = Service(**options)
        self.addCleanup(service.close)
        return service

    def shopper(self, config, enabled=True, name="shopper", manifest=None, **options):
        copies(SHOPPER, [name], self.modules, **(manifest or {}))
        return self.daemon(modules=[name] if enabled else [], modules_dir=self.modules, config=config, **options)

    def call(self, daemon, headers=None, module="shopper", **what):
        answer = daemon.post(f"/api/v1/m/{module}/call", what, headers=headers)
        self.assertEqual(answer.status, 200, answer)
        return answer.data

    def reconfigure(self, daemon, text):
        """SIGHUP with this file, and the modules as before; answers the row of the audit."""
        modules = daemon.config_path.read_text().partition("\nmodules:")[2]
        daemon.config_path.write_text(text + ("\nmodules:" + modules if modules else ""))
        before = len(self.reloads(daemon))
        daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(self.reloads(daemon)) > before, "the row of the audit")
        return self.reloads(daemon)[0]

    def reloads(self, daemon):
        return daemon.get("/api/v1/audit?action=config.reload").data


class Calls(ClientsTest):
    def test_a_call_goes_from_the_configuration_through_the_module_to_the_service(self):
        service = self.service()
        secret = self.temporary_folder() / "secret"
        secret.write_text(SECRET + "\n")
        secret.chmod(0o600)
        daemon = self.shopper(clients(shop={"baseUrl": service.url + "/wp-json/wc/v3/", "headers": {"Accept-Language": "de"},
                                           "auth": {"type": "header", "name": "X-Api-Key", "valueFile": str(secret)}}))
        self.assertEqual(daemon.get("/api/v1/m/shopper/clients").data, {"shop": True, "extra": False, "other": False})
        trace = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "X-Request-Id": "asked-7"}
        answer = self.call(daemon, trace, method="POST", path="/orders?status=new", body="hello", key="k1")
        self.assertEqual((answer["status"], answer["attempts"], json.loads(answer["body"])), (200, 1, {"number": 1}))
        came = service.came[0]
        self.assertEqual((came["method"], came["path"], came["body"]), ("POST", "/wp-json/wc/v3/orders?status=new", "hello"))
        self.assertEqual((came["headers"]["x-api-key"], came["headers"]["accept-language"], came["headers"]["idempotency-key"]), (SECRET, "de", "k1"))
        self.assertRegex(came["headers"]["traceparent"], rf"^00-{TRACE}-[0-9a-f]{{16}}-01$")
        self.assertTrue(came["headers"]["x-request-id"])
        for _ in range(20):
            self.assertEqual(self.call(daemon, path="/")["status"], 200)
        self.assertEqual(service.connections, 1)
        run = daemon.post("/api/v1/modules/shopper/jobs/call/run?wait=20s", {"payload": {"path": "/from-a-job"}}).data
        self.assertEqual((run["status"], run["result"]["status"]), ("SUCCEEDED", 200), run)
        self.assertEqual(service.came[-1]["path"], "/wp-json/wc/v3/from-a-job")
        self.assertIn("traceparent", service.came[-1]["headers"])

    def test_each_kind_of_login_is_sent_where_it_belongs(self):
        service = self.service()
        kinds = {"basic": {"type": "basic", "username": "ck_1", "password": SECRET}, "bearer": {"type": "bearer", "token": SECRET},
                 "query": {"type": "query", "name": "key", "value": SECRET}, "none": {"type": "none"}}
        daemon = self.shopper(clients(**{name: {"baseUrl": service.url, "auth": auth} for name, auth in kinds.items()}),
                             manifest={"capabilities": {**json.loads((SHOPPER / "manifest.json").read_text())["capabilities"], "clients": sorted(kinds)}})
        for kind in kinds:
            self.assertEqual(self.call(daemon, client=kind, path="/a?b=1")["status"], 200)
        sent = {kind: (came["path"], came["headers"].get("authorization")) for kind, came in zip(kinds, service.came)}
        self.assertEqual(sent, {"basic": ("/a?b=1", "Basic Y2tfMTpjc180ZjlkLXNlY3JldC1vZi10aGUtc2hvcA=="), "bearer": ("/a?b=1", f"Bearer {SECRET}"),
                                "query": (f"/a?b=1&key={SECRET}", None), "none": ("/a?b=1", None)})

    def test_a_service_that_is_down_degrades_the_module_until_it_is_back(self):
        service = self.service(status=500)
        daemon = self.shopper(clients(shop={"baseUrl": service.url, "breaker": {"failures": 3, "openFor": "1s"}}), manifest={"health": {"interval": 200}})
        for _ in range(3):
            self.assertEqual(self.call(daemon)["status"], 500)
        refused = self.call(daemon)
        self.assertEqual((refused["code"], refused["transient"]), ("CIRCUIT_OPEN", True))
        self.assertTrue(0 < refused["retryAfter"] <= 1000, refused)
        self.assertEqual(len(service.came), 3)
        reason = daemon.wait_observed("shopper", "DEGRADED")["observed"]["reason"]
        self.assertEqual(reason["code"], "HEALTH")
        self.assertIn("client:shop", reason["message"])
        custom = daemon.get("/api/v1/system/metrics").json["modules"]["shopper"]["workers"][0]["custom"]
        self.assertEqual({name: custom[f"client_shop_{name}"] for name in ("calls", "failures", "refused", "retries")},
                         {"calls": 4, "failures": 4, "refused": 1, "retries": 0})
        self.assertGreater(custom["client_shop_seconds"], 0)
        self.assertNotEqual(custom["client_shop_breaker"], 0)
        service.status = 200
        wait_until(lambda: self.call(daemon).get("status") == 200, "the breaker lets one through")
        daemon.wait_observed("shopper", "RUNNING")
        lines = [line for line in daemon.get("/api/v1/modules/shopper/logs?tail=100").data if "breaker" in line["message"]]
        self.assertEqual([line["level"] for line in lines[:1] + lines[-1:]], ["WARN", "WARN"])
        self.assertIn("opened", lines[0]["message"])
        self.assertIn("closed", lines[-1]["message"])

    def test_a_certificate_that_nobody_trusts_is_refused_and_one_of_the_operators_is_taken(self):
        folder = self.temporary_folder()
        made = certificate(folder)
        service = self.service(tls=made)
        daemon = self.shopper(clients(shop={"baseUrl": service.url, "breaker": False}, extra={"baseUrl": service.url, "caFile": str(made[0])}))
        refused = self.call(daemon)
        self.assertEqual((refused["code"], refused["transient"]), ("TLS_FAILED", False), refused)
        self.assertEqual(service.came, [])
        self.assertEqual(self.call(daemon, client="extra", path="/safe")["status"], 200)
        # A name that is not in it.
        self.reconfigure(daemon, clients(shop={"baseUrl": service.url.replace("127.0.0.1", "localhost"), "caFile": str(made[0])}))
        self.assertEqual(daemon.post("/api/v1/modules/shopper/reload").status, 200)
        self.assertEqual(self.call(daemon)["code"], "TLS_FAILED")

    def test_a_module_starts_without_libcurl_in_its_memory(self):
        service = self.service()
        daemon = self.shopper(clients(shop={"baseUrl": service.url}))
        maps = pathlib.Path(f"/proc/{daemon.module('shopper')['workers'][0]['pid']}/maps")
        self.assertNotIn("libcurl", maps.read_text())
        self.assertEqual(self.call(daemon)["status"], 200)
        self.assertIn("libcurl", maps.read_text())
        needed = subprocess.run(["ldd", str(SHOPPER / "bin" / "shopper")], capture_output=True, text=True, check=True).stdout
        self.assertNotIn("libcurl", needed)


class Missing(ClientsTest):
    def test_without_its_client_a_module_is_refused_until_sighup_brings_it(self):
        service = self.service()
        daemon = self.shopper("", enabled=False)
        plan = daemon.get("/api/v1/modules/shopper/plan?action=enable").data
        answer = daemon.post("/api/v1/modules/shopper/enable")
        self.assertError(answer, 409, "CLIENT_NOT_CONFIGURED")
        self.assertEqual((plan["refusals"][0]["code"], plan["refusals"][0]["message"]), ("CLIENT_NOT_CONFIGURED", answer.error["message"]))
        self.assertIn("clients.shop.baseUrl", answer.error["message"])
        self.assertEqual([detail["path"] for detail in answer.error["details"]], ["/capabilities/clients/0"])
        self.reconfigure(daemon, clients(shop={"baseUrl": service.url}))
        self.assertEqual(daemon.post("/api/v1/modules/shopper/enable").status, 200)
        self.assertEqual(self.call(daemon)["status"], 200)
        self.assertEqual(self.call(daemon, client="extra")["code"], "NO_CLIENT")
        self.assertEqual(self.call(daemon, client="unknown")["code"], "NO_CLIENT")

    def test_an_enabled_one_fails_at_boot_and_starts_by_itself_when_its_client_is_there(self):
        service = self.service()
        daemon = self.shopper("")
        module = daemon.wait_observed("shopper", "FAILED")
        self.assertEqual((module["observed"]["reason"]["code"], module["status"], module["exits"]), ("CLIENT_NOT_CONFIGURED", "ENABLED", []))
        self.reconfigure(daemon, clients(shop={"baseUrl": service.url}))
        daemon.wait_observed("shopper", "RUNNING")
        self.assertEqual(self.call(daemon)["status"], 200)

    def test_a_version_that_wants_another_client_is_refused_and_the_old_one_goes_on(self):
        service = self.service()
        daemon = self.shopper(clients(shop={"baseUrl": service.url}))
        document = json.loads((self.modules / "shopper" / "manifest.json").read_text())
        newer = self.modules / "newer"
        shutil.copytree(self.modules / "shopper", newer)
        document["version"] = "1.1.0"
        document["capabilities"]["clients"] = ["shop", "billing"]
        (newer / "manifest.json").write_text(json.dumps(document))
        upgrade = {"path": str(newer)}
        self.assertError(daemon.post("/api/v1/modules/shopper/upgrade", upgrade), 409, "CLIENT_NOT_CONFIGURED")
        self.assertEqual(daemon.module("shopper")["version"], "1.0.0")
        self.assertEqual(self.call(daemon)["status"], 200)
        other = self.service()
        self.reconfigure(daemon, clients(shop={"baseUrl": service.url}, billing={"baseUrl": other.url}))
        self.assertEqual(daemon.post("/api/v1/modules/shopper/upgrade", upgrade).status, 200)
        # Another port than the old version could reach.
        self.assertEqual(self.call(daemon, client="billing")["status"], 200)
        self.assertEqual(len(other.came), 1)


class Network(ClientsTest):
    def test_without_a_word_a_module_reaches_its_clients_alone(self):
        service = self.service()
        daemon = self.shopper(clients(shop={"baseUrl": service.url}))
        network = next(item for item in daemon.module("shopper")["isolation"] if item["name"] == "network")
        self.assertIn(f"ports: {service.port}", network["why"])
        self.assertIn("its clients alone", network["why"])
        self.assertEqual(self.call(daemon)["status"], 200)

    def test_ports_of_clients_are_among_those_that_it_names(self):
        service = self.service()
        daemon = self.shopper(clients(shop={"baseUrl": service.url}), manifest={"access": {"network": {"ports": []}}})
        self.assertEqual(self.call(daemon)["status"], 200)

    def test_a_network_that_can_not_reach_them_is_a_conflict(self):
        for network, url in (("none", "http://127.0.0.1:9"), ("loopback", "https://192.0.2.7")):
            with self.subTest(network):
                modules = self.temporary_folder(0o755)
                copies(SHOPPER, ["shopper"], modules, access={"network": network})
                daemon = self.daemon(modules_dir=modules, config=clients(shop={"baseUrl": url}))
                answer = daemon.post("/api/v1/modules/shopper/enable")
                self.assertError(answer, 409, "ACCESS_CONFLICT")
                self.assertIn('the client "shop" is reached over TCP', answer.error["message"])
                self.assertEqual([detail["path"] for detail in answer.error["details"]], ["/access/network"])


class Secrets(ClientsTest):
    def test_a_secret_is_seen_by_the_service_alone(self):
        service = self.service()
        daemon = self.shopper(clients(shop={"baseUrl": service.url, "auth": {"type": "basic", "username": "ck_1"}}),
                             env={"BULKHEAD_CLIENT_SHOP_SECRET": SECRET})
        self.assertEqual(self.call(daemon)["status"], 200)
        login = service.came[0]["headers"]["authorization"]
        self.assertEqual(login, "Basic Y2tfMTpjc180ZjlkLXNlY3JldC1vZi10aGUtc2hvcA==")
        for text in (SECRET, login):
            self.assertEqual(daemon.post("/api/v1/m/shopper/print", f"it says {text}!".encode()).status, 204)
        wait_until(lambda: "it says" in daemon.get("/api/v1/modules/shopper/logs?tail=10").body.decode(), "the line of the log")
        service.status = None
        failed = self.call(daemon, path="/lost?and=more")
        self.assertEqual(failed["code"], "CONNECTION_LOST", failed)
        self.assertIn('client "shop": GET /lost (attempt 3)', failed["message"])
        daemon.env["BULKHEAD_CLIENT_SHOP_SECRET"] = "another-secret-altogether"
        self.reconfigure(daemon, clients(shop={"baseUrl": service.url, "auth": {"type": "basic", "username": "ck_2"}, "retries": 0}))
        row = self.reconfigure(daemon, clients(shop={"baseUrl": service.url, "auth": {"type": "bearer"}, "retries": 0}))
        self.assertIn("clients.shop", json.dumps(row))
        pid = daemon.module("shopper")["workers"][0]["pid"]
        shown = {path: daemon.get(path).body.decode() for path in (
            "/api/v1/modules", "/api/v1/modules/shopper", "/api/v1/modules/shopper/logs?tail=500", "/api/v1/audit", "/api/v1/system/modules",
            "/api/v1/system/metrics", "/metrics", "/health")}
        shown.update({"the log": daemon.log(), "the answer": json.dumps(failed), "environ": pathlib.Path(f"/proc/{pid}/environ").read_text(),
                      "cmdline": pathlib.Path(f"/proc/{pid}/cmdline").read_text(),
                      "files": "".join(path.read_text(errors="replace") for path in (daemon.data / "logs").rglob("*") if path.is_file())})
        for place, text in shown.items():
            self.assertNotIn(SECRET, text, place)
            self.assertNotIn(login.split()[1], text, place)
        self.assertIn("it says " + MASK, shown["/api/v1/modules/shopper/logs?tail=500"])

    def test_mistakes_are_told_with_their_place_and_without_their_values(self):
        folder = self.temporary_folder()
        for client, key, sentence in (
                ({}, "clients.shop", "needs a baseUrl"), ({"baseUrl": "ftp://a"}, "clients.shop.baseUrl", "https:// or http://"),
                ({"baseUrl": f"https://u:{SECRET}@a"}, "clients.shop.baseUrl", 'belong into "auth"'),
                ({"baseUrl": "https://a", "retrys": 1}, "clients.shop.retrys", "Did you mean"),
                ({"baseUrl": "https://a", "retries": 11}, "clients.shop.retries", "from 0 to 10"),
                ({"baseUrl": "https://a", "timeout": "soon"}, "clients.shop.timeout", "duration"),
                ({"baseUrl": "https://a", "breaker": {"failure": 1}}, "clients.shop.breaker.failure", "Did you mean"),
                ({"baseUrl": "https://a", "auth": {"type": "digest"}}, "clients.shop.auth", "basic, bearer"),
                ({"baseUrl": "https://a", "auth": {"type": "bearer", "password": SECRET}}, "clients.shop.auth.password", "does not go with"),
                ({"baseUrl": "https://a", "auth": {"type": "bearer", "token": SECRET + "\n"}}, "clients.shop.auth.token", "printable"),
                ({"baseUrl": "https://a", "auth": {"type": "bearer"}}, "clients.shop.auth", "BULKHEAD_CLIENT_SHOP_SECRET"),
                ({"baseUrl": "https://a", "headers": {"Host": "b"}}, "clients.shop.headers.Host", "can be set"),
                ({"baseUrl": "https://a", "auth": {"type": "bearer", "tokenFile": "/nowhere"}}, "clients.shop.auth", "/nowhere"),
                ({"baseUrl": "https://a", "caFile": "/etc/hostname"}, "clients.shop.caFile", "no certificate")):
            with self.subTest(key=key, client=client):
                (folder / "b.yaml").write_text("# a line\n" + clients(shop=client))
                code, out, err = run_serve("serve", "--config", folder / "b.yaml", "--data", folder / "data", "--listen", "127.0.0.1:0",
                                           "--admin-listen", "127.0.0.1:0")
                self.assertEqual(code, 1, out + err)
                self.assertIn(key, err)
                self.assertIn(sentence, err)
                self.assertNotIn(SECRET, err)


class Sighup(ClientsTest):
    def test_what_changes_reaches_a_worker_at_its_next_start(self):
        first, second = self.service(), self.service()
        daemon = self.shopper(clients(shop={"baseUrl": first.url, "auth": {"type": "bearer", "token": SECRET}}))
        self.assertEqual(self.call(daemon)["status"], 200)
        row = self.reconfigure(daemon, clients(shop={"baseUrl": second.url, "auth": {"type": "bearer", "token": SECRET + "-2"}}))
        self.assertIn("clients.shop", row["message"])
        self.assertIn(second.url, json.dumps(row))
        self.assertNotIn(SECRET, json.dumps(row))
        self.assertEqual(self.call(daemon)["status"], 200)
        self.assertEqual((len(first.came), len(second.came)), (2, 0))
        wait_until(lambda: "its workers have it from their next start  module=shopper  next=POST /api/v1/modules/shopper/reload" in daemon.log(),
                   "the line of the log")
        self.assertEqual(daemon.post("/api/v1/modules/shopper/reload").status, 200)
        self.assertEqual(self.call(daemon)["status"], 200)
        self.assertEqual(second.came[0]["headers"]["authorization"], f"Bearer {SECRET}-2")

    def test_a_file_of_a_secret_is_read_again_and_a_mistake_changes_nothing(self):
        service, secret = self.service(), self.temporary_folder(0o755) / "secret"
        secret.write_text(SECRET)
        secret.chmod(0o644)  # the daemon has dropped root when it reads it again
        config = clients(shop={"baseUrl": service.url, "auth": {"type": "bearer", "tokenFile": str(secret)}})
        daemon = self.shopper(config)
        secret.write_text(SECRET + "-new")
        row = self.reconfigure(daemon, config)
        self.assertIn("other contents of what is not shown", json.dumps(row))
        row = self.reconfigure(daemon, config.replace('"baseUrl"', '"baseURL"'))
        self.assertIn("clients.shop", json.dumps(row))
        self.assertEqual(daemon.post("/api/v1/modules/shopper/reload").status, 200)
        self.assertEqual(self.call(daemon)["status"], 200)
        self.assertEqual(service.came[0]["headers"]["authorization"], f"Bearer {SECRET}-new")


if __name__ == "__main__":
    harness.main()
