"""Service clients as they are met in the field: hosts that must be looked up, by /etc/hosts and by DNS, from within the isolation; HTTP/2 over TLS with a
certificate authority of the operator's own; certificates that don't fit."""

import json
import pathlib
import socket
import ssl
import subprocess
import threading
import unittest

import h2.config
import h2.connection
import h2.events

import harness
from clients_test import ClientsTest, clients
from harness import IS_ROOT, Daemon, wait_until
from name_server import NameServer, machine_with

SERVICE, ELSEWHERE = "shop.bulkhead.test", "billing.bulkhead.test"


class Authority:
    """A certificate authority, and certificates that it signs."""

    def __init__(self, folder):
        self.folder, self.made = pathlib.Path(folder), 0
        self.key, self.certificate = self.folder / "ca.key", self.folder / "ca.pem"
        self._openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=An authority of a test", "-keyout", self.key,
                      "-out", self.certificate)
        self.certificate.chmod(0o644)

    def sign(self, *names, days=("-days", "2")):
        """(certificate, key) of a server with these names."""
        self.made += 1
        key, request, certificate, more = (self.folder / f"{self.made}.{kind}" for kind in ("key", "csr", "pem", "ext"))
        more.write_text("subjectAltName=" + ",".join(f"DNS:{name}" for name in names))
        self._openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={names[0]}", "-keyout", key, "-out", request)
        self._openssl("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.key, "-CAcreateserial", "-extfile", more,
                      "-out", certificate, *days)
        return certificate, key

    @staticmethod
    def _openssl(*arguments):
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


class SecureService:
    """An HTTP/2 server (python3-h2) behind TLS; `protocols`: what it offers by ALPN. `came`: (protocol, TLS name, pseudo-headers and headers, body)."""

    def __init__(self, certificate, key, protocols=("h2", "http/1.1")):
        self.came, self.connections = [], 0
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        context.set_alpn_protocols(list(protocols))
        self.names = []
        context.sni_callback = lambda _socket, name, _context: self.names.append(name)
        self.context = context
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, host=SERVICE):
        return f"https://{host}:{self.port}"

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _accept(self):
        while True:
            try:
                client, _address = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        try:
            with self.context.wrap_socket(client, server_side=True) as secure:
                self.connections += 1
                self._http2(secure) if secure.selected_alpn_protocol() == "h2" else self._http1(secure)
        except OSError:
            client.close()  # a handshake that the other side has broken off

    def _http2(self, secure):
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        connection.initiate_connection()
        secure.sendall(connection.data_to_send())
        heads, bodies = {}, {}
        while data := secure.recv(65_536):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    heads[event.stream_id], bodies[event.stream_id] = dict(event.headers), b""
                elif isinstance(event, h2.events.DataReceived):
                    bodies[event.stream_id] += event.data
                    connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    self.came.append(("h2", heads[event.stream_id], bodies[event.stream_id].decode()))
                    answer = json.dumps({"number": len(self.came)}).encode()
                    connection.send_headers(event.stream_id, [(":status", "200"), ("content-length", str(len(answer)))])
                    connection.send_data(event.stream_id, answer, end_stream=True)
            secure.sendall(connection.data_to_send())

    def _http1(self, secure):
        head = b""
        while b"\r\n\r\n" not in head:
            if not (data := secure.recv(65_536)):
                return
            head += data
        self.came.append(("http/1.1", head.split(b"\r\n")[0].decode(), ""))
        secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")


class OnAnotherMachine(Daemon):
    """A daemon behind a command that changes what it finds in /etc."""

    prefix = ()

    def command(self):
        return [*self.prefix, *super().command()]


class FieldTest(ClientsTest):
    def secure_service(self, *names, **options):
        certificate, key = options.pop("made", None) or self.authority.sign(*names)
        service = SecureService(certificate, key, **options)
        self.addCleanup(service.close)
        return service

    def setUp(self):
        super().setUp()
        self.authority = Authority(self.temporary_folder(0o755))

    def trusting(self, service, host=SERVICE, **more):
        return {"baseUrl": service.url(host), "caFile": str(self.authority.certificate), "breaker": False, **more}


class Localhost(FieldTest):
    """What any user can try: localhost is a name, too."""

    def test_a_service_on_localhost_is_found_by_its_name_and_called_over_http_2(self):
        service = self.secure_service("localhost")
        daemon = self.shopper(clients(shop=self.trusting(service, "localhost", headers={"Accept-Language": "de"})))
        network = next(item for item in daemon.module("shopper")["isolation"] if item["name"] == "network")
        self.assertIn(f"ports: {service.port}", network["why"])
        for n in range(1, 6):
            answer = self.call(daemon, method="POST", path=f"/orders?n={n}", body="x" * 100_000, key=f"k{n}")
            self.assertEqual((answer["status"], json.loads(answer["body"])), (200, {"number": n}), answer)
        protocol, headers, body = service.came[0]
        self.assertEqual((protocol, headers[":method"], headers[":path"], headers[":scheme"], len(body)), ("h2", "POST", "/orders?n=1", "https", 100_000))
        self.assertEqual((headers["accept-language"], headers["idempotency-key"], headers[":authority"]), ("de", "k1", f"localhost:{service.port}"))
        self.assertIn("traceparent", headers)
        self.assertEqual((service.connections, service.names[0]), (1, "localhost"), "one kept connection")

    def test_a_server_without_http_2_is_called_as_it_can(self):
        service = self.secure_service("localhost", protocols=("http/1.1",))
        daemon = self.shopper(clients(shop=self.trusting(service, "localhost")))
        self.assertEqual(self.call(daemon, path="/a")["status"], 200)
        self.assertEqual(service.came, [("http/1.1", "GET /a HTTP/1.1", "")])

    def test_certificates_that_do_not_fit_are_refused_with_the_reason(self):
        other = Authority(self.temporary_folder(0o755))
        cases = {"another-name": (self.authority.sign(SERVICE), "localhost", "does not match|no alternative certificate subject name matches"),
                 "another-authority": (other.sign("localhost"), "localhost", "unable to get (local )?issuer certificate"),
                 "expired": (self.authority.sign("localhost", days=("-days", "-1")), "localhost", "expired"),
                 "by-address": (self.authority.sign("localhost"), "127.0.0.1", "does not match|no alternative certificate subject name matches")}
        settings, services = {}, {}
        for name, (made, host, _sentence) in cases.items():
            services[name] = self.secure_service(made=made)
            settings[name] = self.trusting(services[name], host)
        manifest = json.loads((harness.BUILD / "tests/clients/modules/shopper/manifest.json").read_text())
        daemon = self.shopper(clients(**settings), manifest={"capabilities": {**manifest["capabilities"], "clients": sorted(settings)}})
        for name, (_made, _host, sentence) in cases.items():
            with self.subTest(name):
                refused = self.call(daemon, client=name)
                self.assertEqual((refused.get("code"), refused.get("transient")), ("TLS_FAILED", False), refused)
                self.assertRegex(refused["message"], rf'^client "{name}": GET /: .*({sentence})')
                self.assertEqual(services[name].came, [], "nothing was sent to it")


@unittest.skipUnless(IS_ROOT, "a name server's port and another /etc are root's to have")
class Names(FieldTest):
    def setUp(self):
        super().setUp()
        if subprocess.run(["unshare", "--mount", "true"], stderr=subprocess.DEVNULL).returncode != 0:
            self.skipTest("this root may make no mount namespace")
        self.server = NameServer({SERVICE: ["127.0.0.1"]})
        self.addCleanup(self.server.close)

    def shopper_there(self, config, hosts=(), **manifest):
        harness.copies(harness.BUILD / "tests/clients/modules/shopper", ["shopper"], self.modules, **manifest)
        folder = self.temporary_folder(0o755)
        daemon = OnAnotherMachine(modules=["shopper"], modules_dir=self.modules, config=config)
        daemon.prefix = machine_with(folder, self.server, hosts)
        self._daemons.append(daemon)
        return daemon.start()

    def test_a_name_is_looked_up_by_dns_from_within_the_isolation(self):
        service = self.secure_service(SERVICE)
        daemon = self.shopper_there(clients(shop=self.trusting(service)))
        answer = self.call(daemon, path="/a")
        self.assertEqual(answer.get("status"), 200, answer)
        self.assertIn(SERVICE, self.server.asked)
        self.assertEqual((service.came[0][0], service.names[0]), ("h2", SERVICE))
        isolation = {item["name"]: item for item in daemon.module("shopper")["isolation"]}
        self.assertEqual(isolation["landlock"]["state"], "active", "or the kernel has none")
        self.assertIn("a name must be looked up", isolation["network"]["why"])

    def test_a_name_is_looked_up_whatever_network_the_manifest_asks_for(self):
        service = self.secure_service(SERVICE)
        for network in ("outbound", {"ports": []}):
            with self.subTest(network):
                self.modules = self.temporary_folder(0o755)
                daemon = self.shopper_there(clients(shop=self.trusting(service)), access={"network": network})
                answer = self.call(daemon)
                self.assertEqual(answer.get("status"), 200, answer)
                daemon.stop()

    def test_an_answer_that_is_too_long_for_udp_is_fetched_over_tcp(self):
        service = self.secure_service(SERVICE)
        daemon = self.shopper_there(clients(shop=self.trusting(service)))
        self.server.truncates = True
        answer = self.call(daemon)
        self.assertEqual(answer.get("status"), 200, answer)

    def test_a_name_in_etc_hosts_needs_no_name_server(self):
        service = self.secure_service(ELSEWHERE)
        daemon = self.shopper_there(clients(shop=self.trusting(service, ELSEWHERE)), hosts=[f"127.0.0.1 {ELSEWHERE}"])
        answer = self.call(daemon)
        self.assertEqual(answer.get("status"), 200, answer)
        self.assertNotIn(ELSEWHERE, self.server.asked)

    def test_a_name_that_nobody_knows_is_told_and_is_found_as_soon_as_somebody_does(self):
        service = self.secure_service(ELSEWHERE)
        daemon = self.shopper_there(clients(shop=self.trusting(service, ELSEWHERE, retries=0)))
        unknown = self.call(daemon)
        self.assertEqual((unknown.get("code"), unknown.get("transient")), ("CONNECT_FAILED", True), unknown)
        self.assertIn(f"Could not resolve host: {ELSEWHERE}", unknown["message"])
        self.server.names[ELSEWHERE] = ["127.0.0.1"]
        wait_until(lambda: self.call(daemon).get("status") == 200, "the name")

    def test_a_name_server_that_says_nothing_costs_no_more_than_the_call_may_take(self):
        service = self.secure_service(SERVICE)
        daemon = self.shopper_there(clients(shop=self.trusting(service, retries=0, connectTimeout="1s", timeout="2s")))
        self.server.silent = True
        late = self.call(daemon)
        self.assertIn(late.get("code"), ("TIMEOUT", "CONNECT_FAILED"), late)
        self.server.silent = False
        wait_until(lambda: self.call(daemon).get("status") == 200, "the name server again")


if __name__ == "__main__":
    harness.main()
