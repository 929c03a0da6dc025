"""The audit as an operator reads it: who did what, what came of it, what was there before and after; and that nobody can change it."""

import datetime
import http.client
import json
import time
import uuid

import grpc

import harness
from harness import SLOW, DaemonTest, SharedDaemonTest, wait_until
from migrate_test import module_with
from modules_test import echo_like

ECHO = {"modules": ["echo"], "modules_dir": harness.FAKES}
HANGS = "#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 0.1; done\n"


def audit(daemon, **filters):
    """Its rows, newest first."""
    query = "&".join(f"{name}={value}" for name, value in filters.items())
    return daemon.get(f"/api/v1/audit?pageSize=500&{query}").data


def story(daemon, request):
    """What became of one call, oldest first, as (action, target, outcome)."""
    return [(entry["action"], entry["target"], entry["outcome"]) for entry in reversed(audit(daemon, requestId=request))]


def wait_story(test, daemon, request, *rows, or_else=()):
    """`or_else`: the rows where the outcome was known before the acceptance could be written."""
    try:
        wait_until(lambda: story(daemon, request) in (list(rows), list(or_else or rows)), "its rows")
    except AssertionError:
        test.assertEqual(story(daemon, request), list(rows))


def forbid(daemon, action):
    """From now on the audit takes no row of this action: what is recorded with its change is then not done."""
    daemon.sql(f"ALTER TABLE bulkhead_internal.audit ADD CONSTRAINT forbidden CHECK (action <> '{action}') NOT VALID")


def allow(daemon):
    daemon.sql("ALTER TABLE bulkhead_internal.audit DROP CONSTRAINT forbidden")


class Audit(SharedDaemonTest):
    options = ECHO

    def test_a_change_is_there_with_who_and_from_where_and_what_it_changed(self):
        answer = self.daemon.post("/api/v1/modules/echo/disable", headers={"X-Request-Id": "req-17"})
        self.assertEqual(answer.status, 200)
        wait_story(self, self.daemon, "req-17", ("modules.disable", "echo", "ACCEPTED"), ("modules.disable", "echo", "OK"))
        outcome, entry = audit(self.daemon, requestId="req-17")
        self.assertEqual((entry["before"]["status"], entry["after"]["status"]), ("ENABLED", "DISABLED"))
        self.assertEqual((outcome["before"], outcome["after"]), (None, None), "the change stands in one of them")
        for row in (entry, outcome):
            self.assertEqual((row["module"], row["actor"]["subject"], row["actor"]["credential"]), ("echo", "admin", "admin-token"))
            self.assertRegex(row["actor"]["address"], r"^127\.0\.0\.1:\d+$")
        self.assertEqual(self.daemon.post("/api/v1/modules/echo/enable").status, 200)

    def test_refusals_and_calls_that_change_nothing_are_there_too(self):
        self.daemon.post("/api/v1/modules/echo/enable", headers={"X-Request-Id": "req-same"})
        self.daemon.delete("/api/v1/modules/echo", headers={"X-Request-Id": "req-refused"})
        made = self.daemon.post("/api/v1/tokens", {"name": "reader", "permissions": ["modules:read"]})
        denied = self.daemon.post("/api/v1/modules/echo/disable", token=made.data["secret"], headers={"X-Request-Id": "req-denied"})
        self.assertEqual(denied.status, 403)
        for request, outcome, subject in (("req-same", "OK", "admin"), ("req-refused", "MODULE_ENABLED", "admin"), ("req-denied", "FORBIDDEN", "reader")):
            (entry,) = wait_until(lambda: audit(self.daemon, requestId=request), f"{request} is in the audit")
            self.assertEqual((entry["outcome"], entry["actor"]["subject"], entry["module"]), (outcome, subject, "echo"))

    def test_a_refused_call_names_what_it_was_about(self):
        secret = self.daemon.post("/api/v1/tokens", {"name": "only-reads", "permissions": ["modules:read"]}).data["secret"]
        calls = {
            "token": ("POST", "/api/v1/tokens", {"name": "wanted", "permissions": ["a:b"]}, "wanted"),
            "token-2": ("DELETE", "/api/v1/tokens/gone", None, "gone"),
            "user": ("POST", "/api/v1/users", {"name": "kim", "password": "x"}, "kim"),
            "user-2": ("PUT", "/api/v1/users/lou", {"enabled": False}, "lou"),
            "role": ("DELETE", "/api/v1/roles/keeper", None, "keeper"),
            "flag": ("PUT", "/api/v1/flags/new-ui", {"enabled": True}, "new-ui"),
            "module": ("POST", "/api/v1/modules", {"manifest": {"name": "unwanted"}}, "unwanted"),
            "job": ("POST", "/api/v1/modules/echo/jobs/work/run", {}, "work"),
            "broken": ("PUT", "/api/v1/flags/new-ui", {"enabled": 7}, "new-ui"),
        }
        for name, (method, path, body, target) in calls.items():
            self.assertEqual(self.daemon.request(method, path, body, token=secret, headers={"X-Request-Id": f"req-no-{name}"}).status, 403, name)
            (entry,) = wait_until(lambda: audit(self.daemon, requestId=f"req-no-{name}"), f"{name} is in the audit")
            self.assertEqual((entry["target"], entry["outcome"], entry["actor"]["subject"]), (target, "FORBIDDEN", "only-reads"), name)
        for name, path, body, code in (("short", "/api/v1/users", {"name": "kim", "password": "x"}, 400), ("odd", "/api/v1/tokens", {"name": "kim"}, 400)):
            self.assertEqual(self.daemon.post(path, body, headers={"X-Request-Id": f"req-{name}"}).status, code)
            (entry,) = wait_until(lambda: audit(self.daemon, requestId=f"req-{name}"), f"{name} is in the audit")
            self.assertEqual((entry["target"], entry["outcome"]), ("kim", "INVALID_ARGUMENT"))

    def of(self, request):
        (entry,) = audit(self.daemon, requestId=request)
        self.assertEqual(entry["outcome"], "OK")
        return entry["action"], entry["target"], entry["actor"]["subject"], entry["before"], entry["after"]

    def test_changes_of_accounts_are_there_once_with_what_they_changed_and_no_secret(self):
        password, again = f"first-{uuid.uuid4()}", f"second-{uuid.uuid4()}"
        calls = {
            "role": ("POST", "/api/v1/roles", {"name": "keeper", "permissions": ["a:b"]}),
            "role-2": ("PUT", "/api/v1/roles/keeper", {"permissions": ["a:c"]}),
            "token": ("POST", "/api/v1/tokens", {"name": "audited", "roles": ["keeper"]}),
            "token-2": ("DELETE", "/api/v1/tokens/audited", None),
            "user": ("POST", "/api/v1/users", {"name": "kim", "password": password, "roles": ["viewer"]}),
            "user-2": ("PUT", "/api/v1/users/kim", {"password": again, "roles": ["keeper"]}),
        }
        for name, (method, path, body) in calls.items():
            answer = self.daemon.request(method, path, body, headers={"X-Request-Id": f"req-{name}"})
            self.assertLess(answer.status, 300, answer)
        masked = {"password": "********"}
        self.assertEqual(self.of("req-role"), ("roles.create", "keeper", "admin", None, {"description": "", "permissions": ["a:b"]}))
        self.assertEqual(self.of("req-role-2"), ("roles.update", "keeper", "admin", {"permissions": ["a:b"]}, {"permissions": ["a:c"]}))
        action, target, _subject, before, after = self.of("req-token")
        self.assertEqual((action, target, before, after["roles"]), ("tokens.create", "audited", None, ["keeper"]))
        self.assertEqual(self.of("req-token-2"), ("tokens.delete", "audited", "admin", after, None))
        self.assertEqual(self.of("req-user"), ("users.create", "kim", "admin", None, {"roles": ["viewer"], "enabled": True, **masked}))
        self.assertEqual(self.of("req-user-2"), ("users.update", "kim", "admin", {"roles": ["viewer"], **masked}, {"roles": ["keeper"], **masked}))
        stored = str(self.daemon.sql("SELECT * FROM bulkhead_internal.audit"))
        for secret in (password, again, "argon2", "bhk_"):
            self.assertNotIn(secret, stored)

    def test_logins_are_the_users_own_and_failed_ones_are_there_for_users_that_exist(self):
        self.daemon.post("/api/v1/users", {"name": "lou", "password": "a long enough sentence"})

        def ask(path, request, **body):
            return self.daemon.post(f"/api/v1/auth/{path}", body, token=None, headers={"X-Request-Id": request})

        self.assertEqual(ask("login", "req-wrong", username="lou", password="wrong").status, 401)
        self.assertEqual(ask("login", "req-nobody", username="nobody-here", password="wrong").status, 401)
        (entry,) = wait_until(lambda: audit(self.daemon, requestId="req-wrong"), "the failed login is in the audit")
        self.assertEqual((entry["action"], entry["target"], entry["outcome"], entry["actor"]["subject"]), ("auth.login", "lou", "INVALID_CREDENTIALS", ""))
        self.assertTrue(entry["actor"]["address"].startswith("127.0.0.1:"))
        login = ask("login", "req-login", username="lou", password="a long enough sentence").data
        action, target, subject, before, after = self.of("req-login")
        self.assertEqual((action, target, subject, before), ("auth.login", "lou", "lou", None))
        changed = self.daemon.put("/api/v1/auth/password", {"currentPassword": "a long enough sentence", "newPassword": "another long sentence"},
                                  token=login["accessToken"], headers={"X-Request-Id": "req-password"})
        self.assertEqual(changed.status, 200, changed)
        masked = {"password": "********"}
        self.assertEqual(self.of("req-password"), ("auth.change-password", "lou", "lou", masked, masked))
        login = ask("login", "req-again", username="lou", password="another long sentence").data
        self.assertEqual(ask("logout", "req-logout", refreshToken=login["refreshToken"]).status, 200)
        self.assertEqual(self.of("req-logout"), ("auth.logout", "lou", "lou", self.of("req-again")[4], None))
        self.assertEqual(audit(self.daemon, requestId="req-nobody"), [])

    def test_an_answer_that_is_given_again_is_no_second_row(self):
        key, body = str(uuid.uuid4()), {"name": f"once-{uuid.uuid4().hex[:8]}", "permissions": ["a:b"]}
        for request, status in (("req-first", 201), ("req-second", 201)):
            answer = self.daemon.post("/api/v1/tokens", body, headers={"Idempotency-Key": key, "X-Request-Id": request})
            self.assertEqual(answer.status, status, answer)
        refused = {"Idempotency-Key": str(uuid.uuid4())}
        for request in ("req-third", "req-fourth"):
            self.assertEqual(self.daemon.delete("/api/v1/tokens/nobody", headers={**refused, "X-Request-Id": request}).status, 404)
        # A refusal that comes behind them is written behind them.
        self.daemon.delete("/api/v1/tokens/nobody", headers={"X-Request-Id": "req-last"})
        wait_story(self, self.daemon, "req-last", ("tokens.delete", "nobody", "TOKEN_NOT_FOUND"))
        wait_story(self, self.daemon, "req-first", ("tokens.create", body["name"], "OK"))
        wait_story(self, self.daemon, "req-third", ("tokens.delete", "nobody", "TOKEN_NOT_FOUND"))
        self.assertEqual(story(self.daemon, "req-second") + story(self.daemon, "req-fourth"), [])

    def test_a_run_that_somebody_asked_for_is_there_and_what_came_of_it(self):
        def run(request, payload, query=""):
            return self.daemon.post(f"/api/v1/modules/echo/jobs/work/run{query}", {"payload": payload}, headers={"X-Request-Id": request}).data["id"]

        done = run("req-run", {}, "?wait=20s")
        wait_story(self, self.daemon, "req-run", ("jobs.run", done, "ACCEPTED"), ("jobs.run", done, "OK"))
        self.assertEqual(audit(self.daemon, requestId="req-run")[1]["after"], {"job": "work"})
        later = run("req-later", {"ms": 200})
        self.assertIn(("jobs.run", later, "ACCEPTED"), story(self.daemon, "req-later"))
        wait_story(self, self.daemon, "req-later", ("jobs.run", later, "ACCEPTED"), ("jobs.run", later, "OK"))
        failed = run("req-fails", {"fail": "NO_LUCK", "retryable": False})
        wait_story(self, self.daemon, "req-fails", ("jobs.run", failed, "ACCEPTED"), ("jobs.run", failed, "FAILED"))
        self.assertIn("NO_LUCK", audit(self.daemon, requestId="req-fails")[0]["message"])

    def test_each_filter_selects_what_it_says_and_nothing_else(self):
        secret = self.daemon.post("/api/v1/tokens", {"name": "filterer", "permissions": ["*"]}).data["secret"]
        self.daemon.put("/api/v1/flags/of-admin", {"enabled": True}, headers={"X-Request-Id": "req-f1"})
        between = datetime.datetime.now(datetime.timezone.utc).isoformat().replace("+00:00", "Z")
        self.daemon.put("/api/v1/flags/of-token", {"enabled": True}, token=secret, headers={"X-Request-Id": "req-f2"})
        self.daemon.delete("/api/v1/flags/nowhere", token=secret, headers={"X-Request-Id": "req-f3"})
        self.daemon.put("/api/v1/modules/echo/config", {"config": {"greeting": f"g-{uuid.uuid4()}"}}, headers={"X-Request-Id": "req-f4"})
        known = {f"req-f{n}" for n in range(1, 5)}
        wait_until(lambda: known <= {entry["requestId"] for entry in audit(self.daemon)}, "all four are in the audit")
        for filters, wanted in (({}, known), ({"actor": "filterer"}, {"req-f2", "req-f3"}), ({"actor": "nobody"}, set()),
                                ({"module": "echo"}, {"req-f4"}), ({"module": "ech"}, set()), ({"module": "echo%27%20OR%201=1--"}, set()),
                                ({"action": "flags.set"}, {"req-f1", "req-f2"}), ({"action": "flags.*"}, {"req-f1", "req-f2", "req-f3"}),
                                ({"action": "flags"}, set()), ({"action": "%25.*"}, set()), ({"action": "_lags.*"}, set()),
                                ({"outcome": "FLAG_NOT_FOUND"}, {"req-f3"}), ({"outcome": "OK"}, {"req-f1", "req-f2", "req-f4"}),
                                ({"requestId": "req-f2"}, {"req-f2"}), ({"until": between}, {"req-f1"}), ({"since": between}, known - {"req-f1"}),
                                ({"since": between, "actor": "admin"}, {"req-f4"}), ({"actor": "admin", "action": "flags.*"}, {"req-f1"}),
                                ({"since": "2100-01-01T00:00:00Z"}, set()), ({"until": "1999-01-01T00:00:00Z"}, set())):
            with self.subTest(filters):
                found = audit(self.daemon, **filters)
                self.assertEqual({entry["requestId"] for entry in found} & known, wanted)
                query = "&".join(f"{name}={value}" for name, value in filters.items())
                self.assertEqual(self.daemon.get(f"/api/v1/audit?pageSize=1&{query}").json["meta"]["total"], len(found))
        self.assertError(self.daemon.get("/api/v1/audit?since=yesterday"), 400, "INVALID_ARGUMENT")

    def test_it_is_paged_from_the_newest_on(self):
        for i in range(5):
            self.daemon.put(f"/api/v1/flags/paged-{i}", {"enabled": True})
        answer = self.daemon.get("/api/v1/audit?action=flags.set&actor=admin&pageSize=2&page=2")
        self.assertEqual((len(answer.data), answer.json["meta"]["page"], answer.json["meta"]["pageSize"]), (2, 2, 2))
        self.assertEqual([entry["target"] for entry in answer.data], ["paged-2", "paged-1"])
        ids = [entry["id"] for entry in audit(self.daemon)]
        self.assertEqual(ids, sorted(ids, reverse=True))

    def test_the_credential_is_told_by_its_id_and_never_by_its_secret(self):
        made = self.daemon.post("/api/v1/tokens", {"name": "identified", "permissions": ["*"]}).data
        self.daemon.put("/api/v1/flags/by-token", {"enabled": True}, token=made["secret"], headers={"X-Request-Id": "req-id"})
        (entry,) = audit(self.daemon, requestId="req-id")
        self.assertEqual((entry["actor"]["subject"], entry["actor"]["credential"], entry["actor"]["credentialId"]), ("identified", "api-token", made["id"]))
        self.assertNotIn(made["secret"], str(self.daemon.sql("SELECT * FROM bulkhead_internal.audit")))


class Closed(SharedDaemonTest):
    """With a module that has a database, and so a role."""

    options = {"modules": ["consumption-monitor"]}

    def test_rows_are_only_ever_added(self):
        for statement in ("UPDATE bulkhead_internal.audit SET subject = 'nobody'", "DELETE FROM bulkhead_internal.audit", "TRUNCATE bulkhead_internal.audit"):
            with self.assertRaisesRegex(Exception, "append-only"):
                self.daemon.sql(statement)
        self.assertNotEqual(self.daemon.sql("SELECT id FROM bulkhead_internal.audit"), [])

    def test_no_role_that_the_daemon_gives_out_reaches_it(self):
        roles = [row[0] for row in self.daemon.sql("SELECT role FROM bulkhead_internal.module_roles")]
        self.assertTrue(roles)
        before = self.daemon.sql("SELECT count(*) FROM bulkhead_internal.audit")
        insert = "INSERT INTO bulkhead_internal.audit (node, subject, credential, action) VALUES ('n', 'admin', 'admin-token', 'x')"
        for role in roles + ["public"]:
            for right in ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"):
                if role != "public":
                    self.assertEqual(self.daemon.sql(f"SELECT has_table_privilege('{role}', 'bulkhead_internal.audit', '{right}')"), [["f"]], (role, right))
            if role == "public":
                self.assertEqual(self.daemon.sql("SELECT count(*) FROM information_schema.table_privileges WHERE table_schema = 'bulkhead_internal' "
                                                 "AND grantee = 'PUBLIC'"), [["0"]])
                continue
            for statement in ("SELECT * FROM bulkhead_internal.audit", insert, "UPDATE bulkhead_internal.audit SET subject = 'x'",
                              "DELETE FROM bulkhead_internal.audit", "TRUNCATE bulkhead_internal.audit", "DROP TABLE bulkhead_internal.audit",
                              "ALTER TABLE bulkhead_internal.audit DISABLE TRIGGER ALL", "SELECT bulkhead_internal.audit_run_outcome()"):
                with self.subTest(role=role, statement=statement), self.assertRaisesRegex(Exception, "permission denied|must be owner"):
                    self.daemon.sql(f'SET SESSION AUTHORIZATION "{role}"; {statement}')
        self.assertEqual(self.daemon.sql("SELECT count(*) FROM bulkhead_internal.audit"), before)


class Outcomes(DaemonTest):
    def wait_off(self, daemon, path, request, body=None, method="POST"):
        answer = daemon.request(method, f"/api/v1/modules/{path}{'&' if '?' in path else '?'}wait=false", body, headers={"X-Request-Id": request})
        self.assertEqual(answer.status, 202, answer)

    def test_what_is_answered_before_it_is_so_is_accepted_and_its_outcome_follows(self):
        modules = self.temporary_folder()
        echo_like(modules, "one")
        echo_like(modules, "broken")
        (modules / "broken" / "bin" / "broken").write_text("#!/bin/sh\nexit 3\n")
        daemon = self.daemon(modules_dir=modules)
        self.wait_off(daemon, "one/install", "req-install")
        wait_story(self, daemon, "req-install", ("modules.install", "one", "ACCEPTED"), ("modules.install", "one", "OK"),
                   or_else=[("modules.install", "one", "OK")])
        self.wait_off(daemon, "one/enable", "req-enable")
        wait_story(self, daemon, "req-enable", ("modules.enable", "one", "ACCEPTED"), ("modules.enable", "one", "OK"))
        self.wait_off(daemon, "one/disable", "req-disable")
        wait_story(self, daemon, "req-disable", ("modules.disable", "one", "ACCEPTED"), ("modules.disable", "one", "OK"))
        self.wait_off(daemon, "one/status", "req-status", {"status": "ENABLED"}, "PUT")
        wait_story(self, daemon, "req-status", ("modules.enable", "one", "ACCEPTED"), ("modules.enable", "one", "OK"))
        self.wait_off(daemon, "broken/enable", "req-broken")
        wait_story(self, daemon, "req-broken", ("modules.install", "broken", "OK"), ("modules.enable", "broken", "ACCEPTED"),
                   ("modules.enable-reverted", "broken", "MODULE_START_FAILED"), ("modules.enable", "broken", "MODULE_START_FAILED"))
        # The same with somebody who waits: the outcome is his answer.
        answer = daemon.post("/api/v1/modules/broken/enable", headers={"X-Request-Id": "req-waits"})
        self.assertError(answer, 502, "MODULE_START_FAILED")
        wait_story(self, daemon, "req-waits", ("modules.enable", "broken", "ACCEPTED"),
                   ("modules.enable-reverted", "broken", "MODULE_START_FAILED"), ("modules.enable", "broken", "MODULE_START_FAILED"))

    def test_a_configuration_is_accepted_and_then_taken_or_refused(self):
        modules = self.temporary_folder()
        echo_like(modules, "echo", configReload="restart")
        daemon = self.daemon(modules=["echo"], modules_dir=modules)
        self.wait_off(daemon, "echo/config", "req-taken", {"config": {"greeting": "fine"}}, "PUT")
        wait_story(self, daemon, "req-taken", ("modules.configure", "echo", "ACCEPTED"), ("modules.configure", "echo", "OK"))
        self.assertEqual(audit(daemon, requestId="req-taken")[0]["after"], {"greeting": "fine"})

    def test_dependencies_are_told_of_and_so_is_what_fails_behind_the_answer(self):
        modules = self.temporary_folder()
        echo_like(modules, "base")
        echo_like(modules, "middle", dependencies={"modules": {"base": "^1.0.0"}})
        echo_like(modules, "top", dependencies={"modules": {"middle": "^1.0.0"}})
        (modules / "middle" / "bin" / "middle").write_text("#!/bin/sh\nexit 3\n")
        daemon = self.daemon(modules_dir=modules)
        answer = daemon.post("/api/v1/modules/top/enable?withDependencies=true&wait=false", headers={"X-Request-Id": "req-chain"})
        self.assertEqual(answer.status, 202, answer)

        def rows(name):
            return [(action, outcome) for action, target, outcome in story(daemon, "req-chain") if target == name]

        wait_until(lambda: len(rows("top")) == 2, "the outcome of the chain is in the audit")
        self.assertEqual(rows("top"), [("modules.enable", "ACCEPTED"), ("modules.enable", "MODULE_START_FAILED")])
        self.assertEqual(rows("base"), [("modules.install", "OK"), ("modules.enable", "ACCEPTED"), ("modules.enable", "OK"),
                                        ("modules.disable", "ACCEPTED"), ("modules.disable", "OK")])
        self.assertEqual(rows("middle")[-1], ("modules.enable", "MODULE_START_FAILED"))
        self.assertEqual(daemon.module("base")["status"], "DISABLED")

    def test_a_client_that_leaves_while_it_waits_leaves_an_outcome_behind(self):
        modules = self.temporary_folder()
        folder = echo_like(modules, "slow", lifecycle={"handshakeTimeout": 1500})
        (folder / "bin" / "slow").write_text(HANGS)
        daemon = self.daemon(modules_dir=modules)
        host, port = daemon.address.rsplit(":", 1)
        client = http.client.HTTPConnection(host, int(port))
        client.request("POST", "/api/v1/modules/slow/enable", headers={"Authorization": f"Bearer {daemon.token}", "X-Request-Id": "req-left"})
        wait_until(lambda: ("modules.enable", "slow", "ACCEPTED") in story(daemon, "req-left"), "it is accepted")
        client.close()
        wait_until(lambda: story(daemon, "req-left")[-1] == ("modules.enable", "slow", "MODULE_START_FAILED"), "its outcome is there", 30 * SLOW)
        self.assertNotIn("SHUTTING_DOWN", [outcome for _action, _target, outcome in story(daemon, "req-left")])

    def test_a_grpc_client_whose_deadline_passes_leaves_an_outcome_behind(self):
        modules = self.temporary_folder()
        folder = echo_like(modules, "slow", lifecycle={"handshakeTimeout": 1500})
        (folder / "bin" / "slow").write_text(HANGS)
        daemon = self.daemon(modules_dir=modules)
        with grpc.insecure_channel(daemon.admin_address) as channel:
            enable = channel.unary_unary("/bulkhead.admin.v1.Modules/EnableModule")
            with self.assertRaises(grpc.RpcError) as caught:
                enable(b"\x0a\x04slow", metadata=[("authorization", f"Bearer {daemon.token}"), ("x-request-id", "req-late")], timeout=1)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        wait_story(self, daemon, "req-late", ("modules.install", "slow", "OK"), ("modules.enable", "slow", "ACCEPTED"),
                   ("modules.enable-reverted", "slow", "MODULE_START_FAILED"), ("modules.enable", "slow", "MODULE_START_FAILED"))
        self.assertRegex(audit(daemon, requestId="req-late")[0]["actor"]["address"], r"^127\.0\.0\.1:\d+$")

    def test_a_wish_that_another_one_overtakes_says_so(self):
        modules = self.temporary_folder()
        folder = echo_like(modules, "slow", lifecycle={"handshakeTimeout": 60000, "stopTimeout": 500})
        (folder / "bin" / "slow").write_text("#!/bin/sh\nexec sleep 60\n")
        daemon = self.daemon(modules_dir=modules)
        self.wait_off(daemon, "slow/enable", "req-over")
        self.assertEqual(daemon.post("/api/v1/modules/slow/disable").status, 200)
        wait_story(self, daemon, "req-over", ("modules.install", "slow", "OK"), ("modules.enable", "slow", "ACCEPTED"),
                   ("modules.enable", "slow", "GENERATION_CHANGED"))


    def test_so_many_outcomes_are_waited_for_and_no_more(self):
        followed = 256  # limits::kMaxFollowed
        modules = self.temporary_folder()
        folder = echo_like(modules, "slow", lifecycle={"handshakeTimeout": 60000, "stopTimeout": 500})
        (folder / "bin" / "slow").write_text("#!/bin/sh\nexec sleep 60\n")
        daemon = self.daemon(modules_dir=modules)
        for _ in range(followed + 5):
            self.wait_off(daemon, "slow/enable", "req-many")

        def count(outcome):
            (row,) = daemon.sql(f"SELECT count(*) FROM bulkhead_internal.audit WHERE action = 'modules.enable' AND outcome = '{outcome}'")
            return int(row[0])

        wait_until(lambda: count("ACCEPTED") == followed + 5, "all of them are accepted")
        self.assertEqual(daemon.post("/api/v1/modules/slow/disable", headers={"X-Request-Id": "req-end"}).status, 200)
        wait_until(lambda: ("modules.disable", "slow", "OK") in story(daemon, "req-end"), "what was wished last is so")
        self.assertEqual(count("GENERATION_CHANGED"), followed)


class WithTheChange(DaemonTest):
    """What can't be recorded is not done."""

    def test_a_migration_and_its_rollback_are_recorded_in_their_transaction(self):
        modules = self.temporary_folder()
        module_with(modules, "orders", **{"001_a": "CREATE TABLE a (n int);", "001_a.down": "DROP TABLE a;",
                                          "002_b": "-- bulkhead: no-transaction\nCREATE TABLE IF NOT EXISTS b (n int);"})
        manifest = json.loads((modules / "orders" / "manifest.json").read_text())
        (modules / "orders" / "manifest.json").write_text(json.dumps({**manifest, "database": {"migrations": "migrations"}}))
        daemon = self.daemon(modules_dir=modules)
        self.assertEqual(daemon.post("/api/v1/modules/orders/install").status, 200)
        path, applied = "/api/v1/modules/orders/migrations", "SELECT number FROM bulkhead_internal.migrations WHERE owner = 'orders' AND applied_at IS NOT NULL"
        forbid(daemon, "migrations.up")
        self.assertGreaterEqual(daemon.post(f"{path}/up").status, 400)
        self.assertEqual(daemon.sql(applied), [])
        self.assertEqual(daemon.sql("SELECT to_regclass('mod_orders.a') IS NULL"), [["t"]])
        allow(daemon)
        self.assertEqual(daemon.post(f"{path}/up", headers={"X-Request-Id": "req-up"}).status, 200)
        wait_story(self, daemon, "req-up", ("migrations.up", "001_a.sql", "OK"), ("migrations.up", "002_b.sql", "OK"), ("migrations.up", "orders", "OK"))
        entry = audit(daemon, requestId="req-up")[2]
        self.assertEqual((entry["before"], entry["after"]["number"], entry["module"], entry["actor"]["subject"]), (None, 1, "orders", "admin"))
        daemon.sql("DELETE FROM bulkhead_internal.migrations WHERE owner = 'orders' AND number = 2")
        forbid(daemon, "migrations.down")
        self.assertGreaterEqual(daemon.post(f"{path}/down", {"to": 0}).status, 400)
        self.assertEqual((daemon.sql(applied), daemon.sql("SELECT to_regclass('mod_orders.a') IS NULL")), ([["1"]], [["f"]]))
        allow(daemon)
        self.assertEqual(daemon.post(f"{path}/down", {"to": 0}, headers={"X-Request-Id": "req-down"}).status, 200)
        wait_story(self, daemon, "req-down", ("migrations.down", "001_a.down.sql", "OK"), ("migrations.down", "orders", "OK"))
        self.assertEqual(audit(daemon, requestId="req-down")[1]["after"], None)
        # The purge drops schema and row together, or neither.
        forbid(daemon, "modules.purge")
        self.assertGreaterEqual(daemon.delete("/api/v1/modules/orders?purge=true").status, 400)
        self.assertEqual(daemon.sql("SELECT count(*) FROM pg_namespace WHERE nspname = 'mod_orders'"), [["1"]])
        self.assertEqual(daemon.module("orders")["status"], "DISABLED")
        allow(daemon)
        self.assertEqual(daemon.delete("/api/v1/modules/orders?purge=true", headers={"X-Request-Id": "req-purge"}).status, 200)
        self.assertEqual(story(daemon, "req-purge"), [("modules.purge", "orders", "OK")])
        self.assertEqual(daemon.sql("SELECT count(*) FROM pg_namespace WHERE nspname = 'mod_orders'"), [["0"]])

    def test_a_rotation_is_recorded_before_a_key_is_made_and_with_each_module(self):
        daemon = self.daemon(**ECHO)
        self.assertEqual(daemon.put("/api/v1/modules/echo/config", {"config": {"apiKey": "top secret"}}).status, 200)
        keys = daemon.data / "secrets" / "config.keys"
        before, sealed = keys.read_text(), daemon.sql("SELECT config FROM bulkhead_internal.modules WHERE name = 'echo'")
        forbid(daemon, "system.rotate-secrets")
        self.assertGreaterEqual(daemon.post("/api/v1/system/secrets/rotate").status, 400)
        self.assertEqual((keys.read_text(), daemon.sql("SELECT config FROM bulkhead_internal.modules WHERE name = 'echo'")), (before, sealed))
        allow(daemon)
        self.assertEqual(daemon.post("/api/v1/system/secrets/rotate", headers={"X-Request-Id": "req-rotate"}).status, 200)
        wait_story(self, daemon, "req-rotate", ("system.rotate-secrets", "", "ACCEPTED"), ("system.rotate-secrets", "echo", "OK"),
                   ("system.rotate-secrets", "", "OK"))

    def test_secrets_are_masked_before_and_after_and_as_the_manifest_shows_their_defaults(self):
        modules = self.temporary_folder()
        secrets = [f"s3cret-{uuid.uuid4()}" for _ in range(4)]
        echo_like(modules, "echo", config={"schema": {"greeting": {"type": "string", "default": "hello"}, "apiKey": {"type": "password", "default": secrets[0]},
                                                      "pin": {"type": "string", "sensitive": True}}, "defaults": {"pin": secrets[1]}})
        daemon = self.daemon(modules=["echo"], modules_dir=modules)
        for number, secret in enumerate(secrets[2:]):
            answer = daemon.put("/api/v1/modules/echo/config", {"config": {"apiKey": secret}}, headers={"X-Request-Id": f"req-secret-{number}"})
            self.assertEqual(answer.status, 200, answer)
        change = audit(daemon, requestId="req-secret-1")[0]
        self.assertEqual((change["before"], change["after"]), ({"apiKey": "********"}, {"apiKey": "********"}))
        shown = daemon.module("echo")
        self.assertEqual(shown["manifest"]["config"]["schema"]["apiKey"]["default"], "********")
        self.assertEqual(shown["manifest"]["config"]["defaults"], {"pin": "********"})
        self.assertEqual(shown["manifest"]["config"]["schema"]["greeting"]["default"], "hello")
        self.assertEqual(daemon.get("/api/v1/m/echo/config").data["hasKey"], True, "the module has it all the same")
        told = "".join((json.dumps(shown), json.dumps(audit(daemon)), str(daemon.sql("SELECT * FROM bulkhead_internal.audit")), daemon.log(),
                        daemon.get("/api/v1/modules").body.decode(), daemon.get("/api/v1/modules/echo/plan?action=configure").body.decode()))
        for secret in secrets:
            self.assertNotIn(secret, told)


if __name__ == "__main__":
    harness.main()
