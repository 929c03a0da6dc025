"""Notifications that a module sends through the supervisor: mails to a real SMTP server (aiosmtpd), webhooks to a real HTTP server; what is tried again, what
is not, and that none is lost. With fakes/jobber."""

import email
import email.policy
import hashlib
import hmac
import http.server
import json
import os
import signal
import ssl
import subprocess
import threading
import time
import unittest

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

import harness
from harness import SLOW, DaemonTest, wait_until
from jobs_queue_test import JOBBER, run_of

NOTIFY = "/api/v1/m/jobber/notify"
PASSWORD, SECRET = "a-password-of-the-mail-server", "a-secret-of-the-webhook"
MAIL = {"channel": "smtp", "to": ["ops@example.org"], "subject": "Hello", "text": "A body that nobody logs."}


class MailServer:
    """aiosmtpd on a port of its own. `replies` are given to the next mails; then they are taken."""

    def __init__(self, port=None, **options):
        self.mails, self.replies, self.attempts, self.hold = [], [], 0, None
        self.port = port or harness.free_port()
        self.options = options
        self.controller = None
        self.start()

    def start(self):
        self.controller = Controller(self, hostname="127.0.0.1", port=self.port, **self.options)
        self.controller.start()

    def stop(self):
        if self.controller:
            self.controller.stop()
            self.controller = None

    async def handle_DATA(self, _server, session, envelope):
        self.attempts += 1
        reply = self.replies.pop(0) if self.replies else "250 OK"
        if reply.startswith("250"):
            mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
            self.mails.append((envelope, mail, session.ssl is not None))
        if self.hold:
            hold, self.hold = self.hold, None
            hold()
        return reply


class Hook:
    """A webhook's HTTP server: `replies` are the statuses of the next calls, then 204."""

    def __init__(self):
        self.calls, self.replies = [], []
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.calls.append((dict(self.headers), body))
                self.send_response(hook.replies.pop(0) if hook.replies else 204)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


def smtp(port, more=""):
    return f"notifications:\n  smtp: {{host: localhost, port: {port}, tls: none, from: bulkhead@example.org, timeout: 10s{more}}}\n"


class Notifications(DaemonTest):
    def mail_server(self, **options):
        server = MailServer(**options)
        self.addCleanup(server.stop)
        return server

    def hook(self):
        hook = Hook()
        self.addCleanup(hook.stop)
        return hook

    def notify(self, daemon, **notification):
        answer = daemon.post(NOTIFY, notification)
        self.assertEqual(answer.status, 200, answer)
        return answer.json.get("data", answer.json)["id"]

    def ended(self, daemon, run_id, within=30 * SLOW):
        return wait_until(lambda: (lambda r: r if r["status"] in ("SUCCEEDED", "FAILED", "CANCELLED") else None)(run_of(daemon, run_id)), "its end", within)

    def refused(self, daemon, **notification):
        for how in ({}, {"sql": True}):
            answer = daemon.post(NOTIFY, {**notification, **how})
            self.assertIn(answer.status, (400, 503), answer)
        return answer.error["message"]

    def test_a_mail_arrives_as_it_was_meant_and_its_run_tells_without_what_it_says(self):
        server = self.mail_server()
        daemon = self.daemon(config=smtp(server.port), **JOBBER)
        run = self.ended(daemon, self.notify(daemon, channel="smtp", to=["ops@example.org", "b@example.org"],
                                             subject="Größe – überschritten " + "x" * 80, text=".\r\nzwei\n.\nüber\n", html="<b>zwei</b>"))
        self.assertEqual((run["status"], run["attempt"], run["result"]), ("SUCCEEDED", 1, {"status": 250}))
        self.assertEqual((run["module"], run["job"]), ("bulkhead.notifications", "smtp"))
        self.assertEqual(run["payload"], {"module": "jobber", "to": ["ops@example.org", "b@example.org"]})
        (envelope, mail, encrypted), = server.mails
        self.assertEqual((envelope.mail_from, envelope.rcpt_tos, encrypted), ("bulkhead@example.org", ["ops@example.org", "b@example.org"], False))
        self.assertEqual((mail["From"], mail["To"], mail["Message-ID"]), ("bulkhead@example.org", "ops@example.org, b@example.org",
                                                                         f"<{run['id']}@example.org>"))
        self.assertEqual(mail["Subject"], "Größe – überschritten " + "x" * 80)
        self.assertIsNotNone(mail["Date"].datetime)
        parts = {part.get_content_type(): part.get_content() for part in mail.iter_parts()}
        self.assertEqual(parts["text/plain"].replace("\r\n", "\n"), ".\nzwei\n.\nüber\n")
        self.assertEqual(parts["text/html"].strip(), "<b>zwei</b>")
        listed = daemon.get("/api/v1/runs?module=bulkhead.notifications").data
        self.assertEqual([r["id"] for r in listed], [run["id"]])

    def test_neither_secrets_nor_bodies_are_in_the_log(self):
        server, hook = self.mail_server(), self.hook()
        config = smtp(server.port, f", user: u, password: {PASSWORD}").replace("localhost", "127.0.0.1")
        config += f"  webhooks:\n    ops: {{url: 'http://127.0.0.1:{hook.port}/in', secret: {SECRET}, headers: {{Authorization: Bearer {SECRET}}}}}\n"
        daemon = self.daemon(config=config + "log: {level: debug}\n", **JOBBER)
        self.notify(daemon, **MAIL)
        self.ended(daemon, self.notify(daemon, channel="webhook:ops", text=MAIL["text"]))
        log = daemon.log()
        for hidden in (PASSWORD, SECRET, MAIL["text"]):
            self.assertNotIn(hidden, log)
        self.assertIn("a notification was sent", log)
        self.assertEqual(hook.calls[0][0]["Authorization"], f"Bearer {SECRET}")

    def test_starttls_and_a_login_with_a_certificate_that_the_operator_trusts(self):
        folder = self.temporary_folder()
        key, certificate = os.path.join(folder, "key.pem"), os.path.join(folder, "cert.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                        "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate], check=True, capture_output=True)
        os.chmod(certificate, 0o644)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)

        def login(_server, _session, _envelope, _mechanism, data):
            return AuthResult(success=(data.login, data.password) == (b"u", PASSWORD.encode()))

        server = self.mail_server(tls_context=context, require_starttls=True, authenticator=login, auth_required=True)
        trusted = smtp(server.port, f", user: u, password: {PASSWORD}, caFile: {certificate}").replace("tls: none", "tls: starttls")
        daemon = self.daemon(config=trusted, **JOBBER)
        self.assertEqual(self.ended(daemon, self.notify(daemon, **MAIL))["status"], "SUCCEEDED")
        self.assertTrue(server.mails[0][2], "encrypted")
        daemon.stop()
        # Another certificate authority, or another password: not sent, and tried again, since the operator can correct that.
        for wrong in (trusted.replace(f", caFile: {certificate}", ""), trusted.replace(PASSWORD, "another-password")):
            daemon = self.daemon(config=wrong, **JOBBER)
            run = self.notify(daemon, **MAIL)
            waiting = wait_until(lambda: (lambda r: r if r["error"] else None)(run_of(daemon, run)), "the first attempt", 30 * SLOW)
            self.assertEqual(waiting["error"]["code"], "NOTIFICATION_FAILED", waiting)
            self.assertIn(waiting["status"], ("QUEUED", "RUNNING"))
            self.assertNotIn("another-password", json.dumps(waiting))
            daemon.stop()
        self.assertEqual(len(server.mails), 1)

    def test_what_a_mail_server_refuses_for_now_is_sent_again_and_what_it_refuses_for_good_is_not(self):
        server = self.mail_server()
        daemon = self.daemon(config=smtp(server.port), **JOBBER)
        server.replies = ["451 Later", "421 Busy"]
        run = self.ended(daemon, self.notify(daemon, **MAIL))
        self.assertEqual((run["status"], run["attempt"], server.attempts), ("SUCCEEDED", 3, 3), run)
        server.replies = ["554 Never"]
        run = self.ended(daemon, self.notify(daemon, **MAIL))
        self.assertEqual((run["status"], run["attempt"], run["error"]["code"]), ("FAILED", 1, "NOTIFICATION_REFUSED"), run)
        again = self.ended(daemon, self.notify(daemon, **MAIL))  # a second attempt of the other would come within a second
        self.assertEqual((again["status"], server.attempts, run_of(daemon, run["id"])["attempt"]), ("SUCCEEDED", 5, 1))

    def test_a_mail_waits_for_a_server_that_is_away(self):
        server = self.mail_server()
        daemon = self.daemon(config=smtp(server.port), **JOBBER)
        server.stop()
        run = self.notify(daemon, **MAIL)
        wait_until(lambda: run_of(daemon, run)["attempt"] >= 2, "two attempts", 30 * SLOW)
        server.start()
        self.assertEqual(self.ended(daemon, run, 60 * SLOW)["status"], "SUCCEEDED")
        self.assertEqual(len(server.mails), 1)

    def test_a_supervisor_that_is_killed_while_it_sends_loses_none(self):
        server = self.mail_server()
        daemon = self.daemon(config=smtp(server.port), **JOBBER)
        killed = threading.Event()
        server.hold = lambda: (daemon.kill(), killed.set())  # after the mail has been taken, before anybody knows
        run = self.notify(daemon, **MAIL)
        others = []
        for _ in range(5):
            try:
                answer = daemon.post(NOTIFY, MAIL)
                if answer.status == 200:
                    others.append(answer.json.get("data", answer.json)["id"])
            except OSError:
                break
        self.assertTrue(killed.wait(20 * SLOW), "its end")
        daemon.start()
        for one in [run] + others:
            self.assertEqual(self.ended(daemon, one, 60 * SLOW)["status"], "SUCCEEDED")
        ids = [mail["Message-ID"] for _, mail, _ in server.mails]
        self.assertLessEqual({f"<{one}@example.org>" for one in [run] + others}, set(ids), "each once, or again with the same Message-ID")

    def test_a_webhook_is_signed_and_a_retry_has_the_same_id(self):
        hook = self.hook()
        config = f"notifications:\n  webhooks:\n    ops: {{url: 'http://127.0.0.1:{hook.port}/in?a=b', secret: {SECRET}}}\n"
        daemon = self.daemon(config=config, **JOBBER)
        hook.replies = [500, 429, 200]
        run = self.ended(daemon, self.notify(daemon, channel="webhook:ops", subject="Disk", data={"free": [1, "zwei – drei"]}), 60 * SLOW)
        self.assertEqual((run["status"], run["attempt"], run["result"]), ("SUCCEEDED", 3, {"status": 200}), run)
        self.assertEqual(len(hook.calls), 3)
        for headers, body in hook.calls:
            self.assertEqual((headers["X-Bulkhead-Delivery"], headers["Content-Type"]), (run["id"], "application/json"))
            signed = dict(part.split("=") for part in headers["X-Bulkhead-Signature"].split(","))
            self.assertLess(abs(time.time() - int(signed["t"])), 300)
            self.assertEqual(signed["v1"], hmac.new(SECRET.encode(), signed["t"].encode() + b"." + body, hashlib.sha256).hexdigest())
            self.assertEqual(json.loads(body), {"id": run["id"], "module": "jobber", "channel": "webhook:ops", "subject": "Disk",
                                                "data": {"free": [1, "zwei – drei"]}})
        hook.replies = [404]
        run = self.ended(daemon, self.notify(daemon, channel="webhook:ops", text="x"))
        self.assertEqual((run["status"], run["attempt"], run["error"]["code"]), ("FAILED", 1, "NOTIFICATION_REFUSED"), run)

    def test_it_is_sent_when_its_transaction_is_committed_and_never_when_it_is_rolled_back(self):
        hook = self.hook()
        daemon = self.daemon(config=f"notifications:\n  webhooks:\n    ops: {{url: 'http://127.0.0.1:{hook.port}/'}}\n", **JOBBER)
        gone = self.notify(daemon, channel="webhook:ops", text="gone", sql=True, rollback=True)
        run = self.ended(daemon, self.notify(daemon, channel="webhook:ops", text="kept", sql=True))
        self.assertEqual(run["status"], "SUCCEEDED")
        self.assertError(daemon.get(f"/api/v1/runs/{gone}"), 404, "RUN_NOT_FOUND")
        self.assertEqual([json.loads(body)["text"] for _, body in hook.calls], ["kept"])
        self.assertNotIn("X-Bulkhead-Signature", hook.calls[0][0])

    def test_what_is_no_good_is_refused_both_ways(self):
        daemon = self.daemon(config=smtp(1), **JOBBER)
        self.assertIn("does not name the channel", self.refused(daemon, channel="webhook:other", text="x"))
        self.assertIn("control character", self.refused(daemon, **{**MAIL, "subject": "Hello\r\nBcc: everybody@example.org"}))
        for address in ("ops@example.org\r\nRCPT TO:<b@example.org>", "ops", "<ops@example.org>", "Ops ops@example.org", "ops@", "a@b@c", "größe@example.org"):
            self.assertIn("no plain name@host", self.refused(daemon, **{**MAIL, "to": [address]}), address)
        self.assertIn("1 to 50", self.refused(daemon, **{**MAIL, "to": []}))
        self.assertIn("1 to 50", self.refused(daemon, **{**MAIL, "to": ["a@example.org"] * 51}))
        self.assertIn("text or html", self.refused(daemon, channel="smtp", to=["a@example.org"], subject="x"))
        self.assertIn("262144", self.refused(daemon, **{**MAIL, "text": "x" * 262_144}))
        self.assertEqual(daemon.get("/api/v1/runs?module=bulkhead.notifications").data, [])

    def test_a_module_sends_no_more_than_100_a_minute(self):
        daemon = self.daemon(config=smtp(1), **JOBBER)
        for _ in range(100):
            self.notify(daemon, **MAIL)
        answer = daemon.post(NOTIFY, MAIL)
        self.assertEqual(answer.status, 503, answer)
        self.assertIn("100 notifications in the last minute", answer.error["message"])

    def test_one_whose_channel_is_not_configured_waits_and_can_be_cancelled(self):
        daemon = self.daemon(config=smtp(1), **JOBBER)
        waiting = self.notify(daemon, channel="webhook:nowhere", text="x")
        failing = self.notify(daemon, **MAIL)  # nobody listens on port 1
        wait_until(lambda: run_of(daemon, failing)["attempt"] >= 1, "the first attempt")
        self.assertEqual(run_of(daemon, waiting)["status"], "QUEUED")
        self.assertEqual(daemon.delete(f"/api/v1/runs/{waiting}").data["status"], "CANCELLED")
        self.assertEqual(daemon.delete(f"/api/v1/runs/{failing}").data["status"], "CANCELLED")

    def test_they_go_with_the_module_that_is_purged(self):
        daemon = self.daemon(config=smtp(1), **JOBBER)
        self.notify(daemon, channel="webhook:nowhere", text="x")
        self.assertEqual(daemon.post("/api/v1/modules/jobber/disable?wait=60s").status, 200)
        self.assertEqual(daemon.delete("/api/v1/modules/jobber?purge=true").status, 200)
        self.assertEqual(daemon.sql("SELECT (SELECT count(*) FROM bulkhead_internal.notifications) + (SELECT count(*) FROM bulkhead_internal.runs)"), [["0"]])

    # ---- secrets apart, and SIGHUP

    def secret(self, text):
        path = self.temporary_folder(0o755) / "secret"
        path.write_text(text + "\n")
        path.chmod(0o644)  # the daemon has dropped root when it reads it again
        return path

    def reload(self, daemon, config):
        """SIGHUP with this file, and the modules as before; answers the row of the audit."""
        def rows():
            return daemon.get("/api/v1/audit?action=config.reload").data

        modules = daemon.config_path.read_text().partition("\nmodules:")[2]
        daemon.config_path.write_text(config + "\nmodules:" + modules)
        before = len(rows())
        daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(rows()) > before, "the row of the audit")
        return rows()[0]

    def test_secrets_come_from_files_and_variables_and_are_shown_nowhere(self):
        def login(_server, _session, _envelope, _mechanism, data):
            return AuthResult(success=(data.login, data.password) == (b"u", PASSWORD.encode()))

        server, hook = self.mail_server(authenticator=login, auth_required=True, auth_require_tls=False), self.hook()
        header, url = "Bearer of-the-webhooks-header", f"http://127.0.0.1:{hook.port}/services/T0-a-path-that-is-secret"
        config = smtp(server.port, f", user: u, passwordFile: {self.secret(PASSWORD)}")
        config += f"  webhooks:\n    ops: {{urlFile: {self.secret(url)}, headerFiles: {{Authorization: {self.secret(header)}}}}}\n"
        daemon = self.daemon(config=config + "log: {level: debug}\n", env={"BULKHEAD_WEBHOOK_OPS_SECRET": SECRET}, **JOBBER)
        self.assertEqual(self.ended(daemon, self.notify(daemon, **MAIL))["status"], "SUCCEEDED")
        self.assertEqual(self.ended(daemon, self.notify(daemon, channel="webhook:ops", text="x"))["status"], "SUCCEEDED")
        headers, _body = hook.calls[0]
        self.assertEqual(headers["Authorization"], header)
        self.assertIn("X-Bulkhead-Signature", headers)
        hook.stop()
        lost = self.notify(daemon, channel="webhook:ops", text="x")
        wait_until(lambda: run_of(daemon, lost)["error"], "the first attempt", 30 * SLOW)
        self.reload(daemon, config.replace("timeout: 10s", "timeout: 9s") + "log: {level: debug}\n")
        told = {path: daemon.get(path).body.decode() for path in ("/api/v1/runs", f"/api/v1/runs/{lost}", "/api/v1/audit", "/api/v1/modules",
                                                                  "/api/v1/system/metrics", "/metrics", "/health")}
        told["the log"] = daemon.log()
        self.assertIn("notifications.smtp", told["/api/v1/audit"])
        for place, text in told.items():
            for hidden in (PASSWORD, SECRET, "of-the-webhooks-header", "a-path-that-is-secret"):
                self.assertNotIn(hidden, text, place)

    def test_what_sighup_changes_counts_for_what_is_queued_already(self):
        away, server, hook = harness.free_port(), self.mail_server(), self.hook()
        daemon = self.daemon(config=smtp(away), **JOBBER)
        mail = self.notify(daemon, **MAIL)
        waiting = self.notify(daemon, channel="webhook:ops", text="before there was such a channel")
        wait_until(lambda: run_of(daemon, mail)["error"], "an attempt at the server that is away", 30 * SLOW)
        self.assertEqual(run_of(daemon, waiting)["attempt"], 0)
        row = self.reload(daemon, smtp(server.port) + f"  webhooks:\n    ops: {{url: 'http://127.0.0.1:{hook.port}/', secret: {SECRET}}}\n")
        self.assertIn("notifications.smtp, notifications.webhooks.ops", row["message"])
        self.assertEqual(self.ended(daemon, waiting)["status"], "SUCCEEDED")
        self.assertEqual(self.ended(daemon, mail, 60 * SLOW)["status"], "SUCCEEDED")
        self.assertEqual((len(server.mails), len(hook.calls)), (1, 1))
        self.assertIn("X-Bulkhead-Signature", hook.calls[0][0])
        # A channel that is gone keeps what it has, until it is there again.
        self.reload(daemon, "")
        kept = self.notify(daemon, **MAIL)
        self.assertEqual(run_of(daemon, kept)["status"], "QUEUED")
        self.reload(daemon, smtp(server.port))
        self.assertEqual(self.ended(daemon, kept)["status"], "SUCCEEDED")

    def test_sighup_takes_all_or_nothing(self):
        server, secret = self.mail_server(), self.secret("a-first-password")
        config = smtp(server.port, f", user: u, passwordFile: {secret}").replace("localhost", "127.0.0.1")
        daemon = self.daemon(config=config + "log: {level: info}\n", **JOBBER)
        secret.unlink()
        row = self.reload(daemon, config.replace(str(server.port), "1") + "log: {level: debug}\n")
        self.assertEqual(row["outcome"], "CONFIG_INVALID", row)
        self.assertIn("notifications.smtp.passwordFile", row["message"])
        self.assertEqual(self.ended(daemon, self.notify(daemon, **MAIL))["status"], "SUCCEEDED", "by the settings of before")
        self.assertNotIn("log.level", daemon.log())
        secret.write_text("another-password\n")
        secret.chmod(0o644)
        row = self.reload(daemon, config + "log: {level: info}\n")
        self.assertIn("other contents of what is not shown", json.dumps(row))
        self.assertNotIn("another-password", json.dumps(row) + daemon.log())

    def test_a_configuration_that_is_no_good_is_refused_without_its_secrets(self):
        for wrong, place in ((f"smtp: {{host: h, from: a@b, user: u, password: {PASSWORD}, tls: none}}", "over TLS only"),
                             (f"smtp: {{host: h, password: {PASSWORD}}}", "needs host and from"), ("smtp: {host: h, from: 'A <a@b>'}", "plain address"),
                             ("smtp: {hots: h}", "no such key"), ("webhooks: {Ops: {url: 'https://a'}}", "webhook's name"),
                             ("webhooks: {ops: {url: 'ftp://a'}}", "http://"), ("webhooks: {ops: {url: 'https://a', secret: short}}", "16 characters"),
                             ("webhooks: {ops: {url: 'https://a', headers: {A: \"b\\r\\nC: d\"}}}", "printable"), ("pager: {}", "no such key"),
                             (f"smtp: {{host: h, from: a@b, user: u, password: {PASSWORD}, passwordFile: f}}", "not both"),
                             ("smtp: {host: h, from: a@b, user: u}", "BULKHEAD_SMTP_PASSWORD"), ("webhooks: {ops: {urlFile: /nowhere}}", "/nowhere")):
            folder = self.temporary_folder()
            path = os.path.join(folder, "bulkhead.yaml")
            with open(path, "w", encoding="utf-8") as file:
                file.write(f"notifications:\n  {wrong}\n")
            _code, _stdout, told = harness.run_serve("serve", "--config", path, "--data", os.path.join(folder, "data"))
            self.assertIn(place, told, wrong)
            self.assertNotIn(PASSWORD, told)


if __name__ == "__main__":
    harness.main()
