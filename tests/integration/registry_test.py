"""The registry as an operator uses it: states, plans, dependencies, rescans, configuration and its secrets, flags, keys. audit_test.py has the audit."""

import concurrent.futures
import json
import shutil
import sys
import threading
import time
import unittest
import uuid

import harness
from harness import SLOW, DaemonTest, SharedDaemonTest, run_serve, wait_until
from modules_test import echo_like

ECHO = {"modules": ["echo"], "modules_dir": harness.FAKES}


def patch(daemon, path, body, **options):
    return daemon.request("PATCH", path, body, **options)


def audit(daemon, **filters):
    query = "&".join(f"{name}={value}" for name, value in filters.items())
    return daemon.get(f"/api/v1/audit?{query}").data


class States(DaemonTest):
    def test_what_a_state_does_not_allow_is_409_with_the_state_and_what_is_possible(self):
        modules = self.temporary_folder()
        echo_like(modules, "one")
        daemon = self.daemon(modules_dir=modules)
        for call in (lambda: daemon.post("/api/v1/modules/one/disable"), lambda: daemon.put("/api/v1/modules/one/status", {"status": "DISABLED"})):
            answer = call()
            self.assertError(answer, 409, "INVALID_TRANSITION")
            details = [(detail["code"], detail["message"]) for detail in answer.error["details"]]
            self.assertIn(("CURRENT_STATE", "REGISTERED"), details)
            self.assertEqual([m for code, m in details if code == "POSSIBLE_ACTION"], ["install", "enable", "configure", "scale", "upgrade", "delete"])
        self.assertEqual(daemon.post("/api/v1/modules/one/enable").status, 200)
        answer = daemon.delete("/api/v1/modules/one")
        self.assertError(answer, 409, "MODULE_ENABLED")
        self.assertIn(("CURRENT_STATE", "ENABLED"), [(d["code"], d["message"]) for d in answer.error["details"]])
        self.assertEqual(daemon.module("one")["status"], "ENABLED", "a refusal changes nothing")

    def test_a_refused_enable_has_not_installed_anything(self):
        modules = self.temporary_folder()
        echo_like(modules, "needy", dependencies={"modules": {"nowhere": "^1.0.0"}})
        echo_like(modules, "bare", config={"schema": {"site": {"type": "url", "required": True}}})
        daemon = self.daemon(modules_dir=modules)
        for name, status, code in (("needy", 409, "DEPENDENCY_UNSATISFIED"), ("bare", 400, "CONFIG_INVALID")):
            before = daemon.module(name)
            self.assertError(daemon.post(f"/api/v1/modules/{name}/enable"), status, code)
            after = daemon.module(name)
            self.assertEqual((after["status"], after["desired"]), ("REGISTERED", before["desired"]), name)
            self.assertFalse((daemon.data / "versions" / name).exists(), name)

    def test_also_what_is_refused_for_another_command_under_way_names_the_state_and_what_is_possible(self):
        modules = self.temporary_folder()
        hangs = echo_like(modules, "hangs", lifecycle={"handshakeTimeout": 60000, "stopTimeout": 2000})
        (hangs / "bin" / "hangs").write_text("#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 0.1; done\n")
        daemon = self.daemon(modules_dir=modules)
        self.assertEqual(daemon.post("/api/v1/modules/hangs/enable?wait=false").status, 202)
        wait_until(lambda: daemon.module("hangs")["workers"][0]["pid"], "its process")

        def refused(answer, code, *expected):
            self.assertError(answer, 409, code)
            self.assertEqual([(d["code"], d["message"]) for d in answer.error["details"]], list(expected))

        possible = ("disable", "configure", "scale", "reset", "reload", "restart", "upgrade", "rollback")
        refused(daemon.post("/api/v1/modules/hangs/migrations/up"), "MODULE_ENABLED", ("CURRENT_STATE", "ENABLED"),
                *[("POSSIBLE_ACTION", action) for action in possible])
        daemon.post("/api/v1/modules/hangs/disable?wait=false")
        possible = ("enable", "configure", "scale", "upgrade", "rollback", "delete")
        disabled = [("CURRENT_STATE", "DISABLED")] + [("POSSIBLE_ACTION", action) for action in possible]
        refused(daemon.delete("/api/v1/modules/hangs"), "MODULE_BUSY", *disabled)
        refused(daemon.post("/api/v1/modules/hangs/migrations/up"), "MODULE_BUSY", *disabled)

    def test_of_two_who_have_read_the_same_state_only_one_is_obeyed(self):
        daemon = self.daemon(**ECHO)
        answer = daemon.get("/api/v1/modules/echo")
        tag = answer.header("ETag")
        self.assertEqual(tag, f'"{answer.data["desired"]["generation"]}"')
        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            calls = [threads.submit(daemon.put, "/api/v1/modules/echo/config", {"config": {"greeting": f"hi {i}"}}, headers={"If-Match": tag})
                     for i in range(8)]
        statuses = sorted(call.result().status for call in calls)
        self.assertEqual(statuses, [200] + [412] * 7)
        self.assertError(daemon.post("/api/v1/modules/echo/disable", headers={"If-Match": tag}), 412, "PRECONDITION_FAILED")
        fresh = daemon.get("/api/v1/modules/echo").header("ETag")
        self.assertEqual(daemon.post("/api/v1/modules/echo/disable", headers={"If-Match": fresh}).status, 200)


class Together(DaemonTest):
    def setUp(self):
        super().setUp()
        self.modules = self.temporary_folder()
        echo_like(self.modules, "base")
        echo_like(self.modules, "middle", dependencies={"modules": {"base": "^1.0.0"}})
        echo_like(self.modules, "top", dependencies={"modules": {"middle": "^1.0.0"}})

    def test_a_module_is_enabled_with_all_that_it_depends_on(self):
        daemon = self.daemon(modules_dir=self.modules)
        answer = daemon.post("/api/v1/modules/top/enable?withDependencies=true")
        self.assertEqual(answer.status, 200, answer)
        for name in ("base", "middle", "top"):
            self.assertEqual(daemon.module(name)["observed"]["state"], "RUNNING")
        self.assertError(daemon.post("/api/v1/modules/top/disable?withDependencies=true"), 400, "INVALID_ARGUMENT")

    def test_who_may_not_enable_all_of_them_enables_none(self):
        daemon = self.daemon(modules_dir=self.modules)
        may_top = daemon.make_token("top", "module:top:write")
        before = [(module["name"], module["status"], module["desired"]["generation"]) for module in daemon.get("/api/v1/modules").data]
        answer = daemon.post("/api/v1/modules/top/enable?withDependencies=true", token=may_top)
        self.assertError(answer, 403, "FORBIDDEN")
        self.assertEqual([detail["path"] for detail in answer.error["details"]], ["/dependencies/modules/base", "/dependencies/modules/middle"])
        self.assertIn("base", answer.error["message"])
        self.assertEqual([(m["name"], m["status"], m["desired"]["generation"]) for m in daemon.get("/api/v1/modules").data], before)
        may_all = daemon.make_token("all", *(f"module:{name}:write" for name in ("base", "middle", "top")))
        self.assertEqual(daemon.post("/api/v1/modules/top/enable?withDependencies=true", token=may_all).status, 200)

    def test_when_one_of_them_fails_what_was_enabled_is_disabled_again(self):
        echo_like(self.modules, "broken", dependencies={"modules": {"base": "^1.0.0"}})
        (self.modules / "broken" / "bin" / "broken").write_text("#!/bin/sh\nexit 3\n")
        echo_like(self.modules, "needy", dependencies={"modules": {"broken": "*"}})
        daemon = self.daemon(modules_dir=self.modules)
        answer = daemon.post("/api/v1/modules/needy/enable?withDependencies=true")
        self.assertError(answer, 502, "MODULE_START_FAILED")
        self.assertIn("broken", answer.error["message"])
        for name in ("base", "broken", "needy"):
            view = daemon.module(name)
            self.assertEqual((view["desired"]["state"], view["observed"]["state"]), ("DISABLED", "STOPPED"), name)

    def test_what_is_missing_or_of_a_wrong_version_is_named_with_who_asks_for_it_before_anything_is_done(self):
        echo_like(self.modules, "wrong", dependencies={"modules": {"middle": "^2.0.0", "nowhere": "~1.2", "top": "*"}})
        daemon = self.daemon(modules_dir=self.modules)
        answer = daemon.post("/api/v1/modules/wrong/enable?withDependencies=true")
        self.assertError(answer, 409, "DEPENDENCY_UNSATISFIED")
        found = {detail["code"]: detail["message"] for detail in answer.error["details"]}
        self.assertIn("middle is 1.0.0, needed is ^2.0.0", found["WRONG_VERSION"])
        self.assertIn("nowhere ~1.2", found["MISSING"])
        self.assertIn("wrong", found["MISSING"])
        self.assertEqual(daemon.module("base")["desired"]["state"], "DISABLED")

    def test_a_cycle_is_shown_as_its_path(self):
        echo_like(self.modules, "hen", dependencies={"modules": {"egg": "*"}})
        echo_like(self.modules, "egg", dependencies={"modules": {"hen": "*"}})
        daemon = self.daemon(modules_dir=self.modules)
        answer = daemon.post("/api/v1/modules/hen/enable?withDependencies=true")
        self.assertError(answer, 409, "DEPENDENCY_UNSATISFIED")
        self.assertIn("hen -> egg -> hen", answer.error["message"])

    def test_a_plan_says_what_would_happen_and_does_nothing(self):
        daemon = self.daemon(modules_dir=self.modules)
        plan = daemon.get("/api/v1/modules/top/plan?action=enable&withDependencies=true").data
        self.assertTrue(plan["allowed"], plan)
        self.assertEqual([(step["module"], step["effect"]) for step in plan["steps"]],
                         [(name, effect) for name in ("base", "middle", "top") for effect in ("install", "start")])
        plan = daemon.get("/api/v1/modules/top/plan?action=enable").data
        self.assertFalse(plan["allowed"])
        self.assertEqual([refusal["code"] for refusal in plan["refusals"]], ["DEPENDENCY_UNSATISFIED", "DISABLED"])
        self.assertEqual(daemon.module("base")["status"], "REGISTERED")
        self.assertEqual(daemon.post("/api/v1/modules/top/enable?withDependencies=true").status, 200)
        plan = daemon.get("/api/v1/modules/base/plan?action=disable").data
        self.assertFalse(plan["allowed"])
        self.assertEqual(plan["refusals"][1]["message"], "middle 1.0.0 needs base ^1.0.0")
        self.assertEqual(daemon.module("base")["observed"]["state"], "RUNNING")
        self.assertError(daemon.get("/api/v1/modules/base/plan?action=explode"), 400, "INVALID_ARGUMENT")
        self.assertError(daemon.get("/api/v1/modules/nobody/plan?action=enable"), 404, "MODULE_NOT_FOUND")

    def test_a_plan_names_the_migrations_that_would_run_and_what_keeps_them_from_it(self):
        folder = echo_like(self.modules, "tables", database={})
        (folder / "migrations").mkdir()
        (folder / "migrations" / "001_a.sql").write_text("CREATE TABLE a (id int);\n")
        (folder / "migrations" / "002_b.sql").write_text("CREATE TABLE b (id int);\n")
        daemon = self.daemon(modules_dir=self.modules)
        plan = daemon.get("/api/v1/modules/tables/plan?action=enable").data
        self.assertEqual([step["message"] for step in plan["steps"] if step["effect"] == "migrate"], ["001_a.sql is run", "002_b.sql is run"])
        self.assertEqual(daemon.post("/api/v1/modules/tables/enable").status, 200)
        self.assertEqual(daemon.post("/api/v1/modules/tables/disable").status, 200)
        plan = daemon.get("/api/v1/modules/tables/plan?action=enable").data
        self.assertEqual([step["effect"] for step in plan["steps"]], ["start"])
        plan = daemon.get("/api/v1/modules/tables/plan?action=delete&purge=true").data
        self.assertEqual([step["effect"] for step in plan["steps"]], ["remove", "drop"])


class Rescan(DaemonTest):
    def test_a_rescan_registers_what_is_new_offers_other_versions_and_names_what_is_broken(self):
        modules = self.temporary_folder()
        echo_like(modules, "one")
        daemon = self.daemon(modules=["one"], modules_dir=modules)
        echo_like(modules, "two")
        manifest = json.loads((modules / "one" / "manifest.json").read_text())
        (modules / "one" / "manifest.json").write_text(json.dumps({**manifest, "version": "1.1.0"}))
        (modules / "bad").mkdir()
        (modules / "bad" / "manifest.json").write_text('{"name": "Bad Name", "version": "x"}')
        answer = daemon.post("/api/v1/modules/rescan")
        self.assertEqual(answer.status, 200, answer)
        found = {folder["folder"].rsplit("/", 1)[1]: folder for folder in answer.data}
        self.assertEqual({name: folder["outcome"] for name, folder in found.items()}, {"one": "offered", "two": "registered", "bad": "broken"})
        self.assertEqual((found["one"]["version"], found["one"]["registeredVersion"]), ("1.1.0", "1.0.0"))
        self.assertEqual(found["bad"]["code"], "MANIFEST_INVALID")
        self.assertEqual({detail["code"] for detail in found["bad"]["details"]}, {"INVALID_NAME", "INVALID_VERSION"})
        self.assertTrue(all(detail["line"] == 1 for detail in found["bad"]["details"]))
        one = daemon.module("one")
        self.assertEqual((one["version"], one["observed"]["state"]), ("1.0.0", "RUNNING"), "an offer is not taken")
        self.assertEqual(one["offer"]["version"], "1.1.0")
        self.assertIsNone(daemon.module("two")["offer"])
        self.assertEqual(daemon.post("/api/v1/modules/two/enable").status, 200)
        again = {folder["module"]: folder["outcome"] for folder in daemon.post("/api/v1/modules/rescan").data}
        self.assertEqual(again["two"], "unchanged")

    def test_ten_rescans_at_once_register_a_module_once(self):
        modules = self.temporary_folder()
        daemon = self.daemon(modules_dir=modules)
        echo_like(modules, "one")
        with concurrent.futures.ThreadPoolExecutor(10) as threads:
            answers = list(threads.map(lambda _: daemon.post("/api/v1/modules/rescan"), range(10)))
        outcomes = sorted(answer.data[0]["outcome"] for answer in answers)
        self.assertEqual(outcomes, ["registered"] + ["unchanged"] * 9)


class Configuration(DaemonTest):
    def greeting(self, daemon):
        return daemon.get("/api/v1/m/echo/config").data

    def test_a_change_reaches_the_running_module_which_says_what_it_applied(self):
        daemon = self.daemon(**ECHO)
        before = self.greeting(daemon)
        answer = daemon.put("/api/v1/modules/echo/config", {"config": {"greeting": "good morning"}})
        self.assertEqual(answer.status, 200, answer)
        self.assertEqual((answer.data["configRevision"], answer.data["configAppliedRevision"]), (before["revision"] + 1,) * 2)
        self.assertEqual(self.greeting(daemon), {**before, "greeting": "good morning", "revision": before["revision"] + 1})
        again = daemon.put("/api/v1/modules/echo/config", {"config": {"greeting": "good morning"}})
        self.assertEqual(again.data["configRevision"], answer.data["configRevision"], "what changes nothing is no new revision")
        daemon.stop()
        daemon.start()
        self.assertEqual(self.greeting(daemon)["greeting"], "good morning")

    def test_a_patch_changes_what_it_names_and_null_brings_the_default_back(self):
        daemon = self.daemon(**ECHO)
        daemon.put("/api/v1/modules/echo/config", {"config": {"greeting": "hi", "apiKey": "k1"}})
        self.assertEqual(patch(daemon, "/api/v1/modules/echo/config", {"config": {"greeting": "hey"}}).status, 200)
        self.assertEqual((self.greeting(daemon)["greeting"], self.greeting(daemon)["hasKey"]), ("hey", True))
        self.assertEqual(patch(daemon, "/api/v1/modules/echo/config", {"config": {"greeting": None}}).data["config"]["greeting"], "hello")

    def test_a_refusal_leaves_everything_as_it_was_and_the_status_says_so(self):
        daemon = self.daemon(**ECHO)
        before = self.greeting(daemon)
        answer = daemon.put("/api/v1/modules/echo/config", {"config": {"greeting": "nonsense"}})
        self.assertError(answer, 409, "CONFIG_REFUSED")
        self.assertIn("nonsense is no greeting", answer.error["message"])
        self.assertEqual(self.greeting(daemon), before)
        view = daemon.module("echo")
        self.assertEqual((view["config"]["greeting"], view["configRevision"], view["observed"]["state"]), ("hello", before["revision"], "RUNNING"))
        self.assertEqual(view["observed"]["reason"]["code"], "CONFIG_REFUSED")
        self.assertEqual(daemon.put("/api/v1/modules/echo/config", {"config": {"greeting": "fine"}}).status, 200)
        self.assertIsNone(daemon.module("echo")["observed"]["reason"])

    def test_all_that_is_wrong_is_told_at_once_and_nothing_is_stored(self):
        modules = self.temporary_folder()
        echo_like(modules, "echo", config={"schema": {
            "port": {"type": "integer", "validation": {"min": 1, "max": 65535}}, "mode": {"type": "select", "options": ["a", "b"]},
            "site": {"type": "url", "required": True}, "secret": {"type": "password", "validation": {"minLength": 8}}}})
        daemon = self.daemon(modules_dir=modules)
        bad = {"port": 70000, "mode": "c", "secret": "hunter2", "extra": 1}
        answer = daemon.put("/api/v1/modules/echo/config", {"config": bad})
        self.assertError(answer, 400, "CONFIG_INVALID")
        self.assertEqual({detail["path"] for detail in answer.error["details"]}, {"/port", "/mode", "/site", "/secret", "/extra"})
        self.assertNotIn("hunter2", answer.body.decode())
        self.assertEqual(daemon.module("echo")["configRevision"], 1)
        for body in ({}, {"config": []}, {"config": None}, {"config": {"site": {"$sealed": "v1.x"}}}):
            self.assertEqual(daemon.put("/api/v1/modules/echo/config", body).status, 400, body)

    def test_secrets_are_seen_by_the_module_alone(self):
        daemon = self.daemon(**ECHO)
        secret = f"s3cret-{uuid.uuid4()}"
        answer = daemon.put("/api/v1/modules/echo/config", {"config": {"greeting": "hi", "apiKey": secret}})
        self.assertEqual(answer.data["config"]["apiKey"], "********")
        self.assertTrue(self.greeting(daemon)["hasKey"])
        # Sent back as it is shown, it stays; another field may be changed so.
        shown = daemon.module("echo")["config"]
        self.assertEqual(daemon.put("/api/v1/modules/echo/config", {"config": {**shown, "greeting": "ho"}}).status, 200)
        self.assertTrue(self.greeting(daemon)["hasKey"])
        stored = str(daemon.sql("SELECT config FROM bulkhead_internal.modules WHERE name = 'echo'"))
        self.assertIn("$sealed", stored)
        for place in (stored, daemon.log(), json.dumps(audit(daemon)), str(daemon.sql("SELECT * FROM bulkhead_internal.audit")),
                      json.dumps(daemon.get("/api/v1/modules/echo/plan?action=configure").json)):
            self.assertNotIn(secret, place)
        change = audit(daemon, action="modules.configure")[-1]
        self.assertEqual((change["before"], change["after"]), ({}, {"greeting": "hi", "apiKey": "********"}))

    def test_the_key_is_rotated_and_secrets_stay_readable(self):
        daemon = self.daemon(**ECHO)
        daemon.put("/api/v1/modules/echo/config", {"config": {"apiKey": "top secret"}})
        keys = daemon.data / "secrets" / "config.keys"
        before, sealed = keys.read_text(), daemon.sql("SELECT config FROM bulkhead_internal.modules WHERE name = 'echo'")
        self.assertEqual(keys.stat().st_mode & 0o777, 0o600)
        answer = daemon.post("/api/v1/system/secrets/rotate")
        self.assertEqual(answer.status, 200, answer)
        self.assertEqual((len(answer.json["keys"]), answer.json["modules"]), (1, 1))
        self.assertNotEqual(keys.read_text(), before)
        self.assertEqual(len(keys.read_text().split()), 1, "the old key is forgotten")
        self.assertNotEqual(daemon.sql("SELECT config FROM bulkhead_internal.modules WHERE name = 'echo'"), sealed)
        daemon.stop()
        daemon.start()
        self.assertTrue(self.greeting(daemon)["hasKey"])

    def test_a_command_rotates_the_key_too(self):
        daemon = self.daemon(**ECHO)
        daemon.put("/api/v1/modules/echo/config", {"config": {"apiKey": "top secret"}})
        keys = daemon.data / "secrets" / "config.keys"
        before = keys.read_text()
        environment = {"BULKHEAD_SERVER": daemon.admin_address, "BULKHEAD_TOKEN": daemon.token}
        code, out, err = run_serve("secrets", "rotate", env=environment)
        self.assertEqual((code, err), (0, ""))
        self.assertRegex(out, r"\AThe secrets of 1 module were sealed anew\.\nKEY +USE\n[0-9a-f]{8} +seals and opens\n\Z")
        self.assertNotEqual(keys.read_text(), before)
        code, out, _err = run_serve("secrets", "rotate", "--json", env=environment)
        self.assertEqual((code, json.loads(out)["modules"], len(json.loads(out)["keys"])), (0, 1, 1))
        environment["BULKHEAD_TOKEN"] = daemon.make_token("only-reads", "system:read")
        self.assertIn("system:write", run_serve("secrets", "rotate", env=environment)[2])

    def test_keys_of_the_environment_are_used_and_not_written(self):
        first, second = "11" * 32, "22" * 32
        daemon = self.daemon(env={"BULKHEAD_SECRETS_KEYS": first}, **ECHO)
        self.assertFalse((daemon.data / "secrets" / "config.keys").exists())
        daemon.put("/api/v1/modules/echo/config", {"config": {"apiKey": "top secret"}})
        daemon.stop()
        daemon.env["BULKHEAD_SECRETS_KEYS"] = f"{second},{first}"
        daemon.start()
        self.assertTrue(self.greeting(daemon)["hasKey"])
        self.assertEqual(daemon.post("/api/v1/system/secrets/rotate").json["modules"], 1)
        daemon.stop()
        daemon.env["BULKHEAD_SECRETS_KEYS"] = second
        daemon.start()
        self.assertTrue(self.greeting(daemon)["hasKey"])

    def test_a_module_that_says_so_is_restarted_with_it_worker_by_worker_and_no_request_is_lost(self):
        modules = self.temporary_folder()
        echo_like(modules, "echo", configReload="restart", workers=2)
        daemon = self.daemon(modules=["echo"], modules_dir=modules)
        pids = {worker["pid"] for worker in daemon.module("echo")["workers"]}
        failures, stop = [], threading.Event()

        def load():
            while not stop.is_set():
                answer = daemon.get("/api/v1/m/echo/config")
                if answer.status != 200:
                    failures.append(answer)

        clients = [threading.Thread(target=load) for _ in range(4)]
        for client in clients:
            client.start()
        try:
            answer = daemon.put("/api/v1/modules/echo/config", {"config": {"greeting": "anew"}})
        finally:
            stop.set()
            for client in clients:
                client.join()
        self.assertEqual(answer.status, 200, answer)
        self.assertEqual(failures, [])
        view = daemon.module("echo")
        self.assertEqual((view["observed"]["state"], view["configAppliedRevision"]), ("RUNNING", view["configRevision"]))
        self.assertFalse(pids & {worker["pid"] for worker in view["workers"]})
        self.assertEqual({self.greeting(daemon)["greeting"] for _ in range(20)}, {"anew"})

    def test_a_restart_that_fails_for_it_goes_back_to_what_was_and_spares_the_other_worker(self):
        modules = self.temporary_folder()
        echo_like(modules, "echo", configReload="restart", workers=2)
        daemon = self.daemon(modules=["echo"], modules_dir=modules)
        pids = {worker["pid"] for worker in daemon.module("echo")["workers"]}
        answer = daemon.put("/api/v1/modules/echo/config", {"config": {"greeting": "nonsense"}})
        self.assertError(answer, 409, "CONFIG_REFUSED")
        view = daemon.wait_observed("echo", "RUNNING")
        self.assertEqual(view["config"]["greeting"], "hello")
        self.assertEqual(len(pids & {worker["pid"] for worker in view["workers"]}), 1)
        self.assertEqual({self.greeting(daemon)["greeting"] for _ in range(20)}, {"hello"})

    def test_a_disabled_module_has_it_when_it_is_enabled(self):
        daemon = self.daemon(modules_dir=harness.FAKES)
        self.assertEqual(daemon.put("/api/v1/modules/echo/config", {"config": {"greeting": "early"}}).status, 200)
        self.assertEqual(daemon.post("/api/v1/modules/echo/enable").status, 200)
        self.assertEqual(self.greeting(daemon)["greeting"], "early")


class FeatureFlags(DaemonTest):
    def test_a_flag_starts_and_stops_its_module(self):
        modules = self.temporary_folder()
        echo_like(modules, "echo", featureFlag="new-echo")
        daemon = self.daemon(modules=["echo"], modules_dir=modules)
        self.assertEqual(daemon.module("echo")["observed"]["state"], "SKIPPED")
        self.assertError(daemon.get("/api/v1/m/echo/echo"), 404, "ROUTE_NOT_FOUND")
        flag = daemon.get("/api/v1/flags/NEW_ECHO").data
        self.assertEqual((flag["name"], flag["enabled"], flag["source"], flag["modules"]), ("new-echo", False, "default", ["echo"]))
        for enabled, state in ((True, "RUNNING"), (False, "SKIPPED"), (True, "RUNNING")):
            answer = daemon.put("/api/v1/flags/new-echo", {"enabled": enabled})
            self.assertEqual((answer.status, answer.data["enabled"], answer.data["source"]), (200, enabled, "api"))
            daemon.wait_observed("echo", state)
        self.assertEqual(daemon.get("/api/v1/m/echo/echo").status, 200)
        self.assertEqual(daemon.delete("/api/v1/flags/new-echo").status, 200)
        daemon.wait_observed("echo", "SKIPPED")
        self.assertError(daemon.delete("/api/v1/flags/new-echo"), 404, "FLAG_NOT_FOUND")

    def test_the_environment_counts_for_more_than_the_api_and_that_for_more_than_the_file(self):
        daemon = self.daemon(config="flags:\n  from-file: true\n  both: false\n", env={"FEATURE_FLAG_FROM_ENV": "true", "FEATURE_FLAG_BOTH": "true"})
        flags = {flag["name"]: (flag["enabled"], flag["source"]) for flag in daemon.get("/api/v1/flags").data}
        self.assertEqual(flags, {"from-file": (True, "file"), "from_env": (True, "environment"), "both": (True, "environment")})
        self.assertError(daemon.put("/api/v1/flags/both", {"enabled": False}), 409, "FLAG_FIXED")
        self.assertEqual(daemon.put("/api/v1/flags/from-file", {"enabled": False}).data["source"], "api")
        daemon.stop()
        daemon.start()
        self.assertEqual(daemon.get("/api/v1/flags/from-file").data["enabled"], False, "it outlives a restart")

    def test_a_running_module_is_told_of_each_change_and_of_whom_it_is_for(self):
        daemon = self.daemon(**ECHO)
        ask = lambda identity="": daemon.get(f"/api/v1/m/echo/flags/new-pricing?identity={identity}").data  # noqa: E731
        self.assertEqual((ask()["on"], ask("ann")["onFor"]), (False, False))
        daemon.put("/api/v1/flags/new-pricing", {"enabled": True, "identities": ["ann"], "percentage": 30})
        wait_until(lambda: ask()["on"], "the module is told")
        self.assertTrue(ask("ann")["onFor"])
        share = sum(ask(f"user-{i}")["onFor"] for i in range(200))
        self.assertTrue(30 <= share <= 95, share)
        daemon.put("/api/v1/flags/new-pricing", {"enabled": False})
        wait_until(lambda: not ask("ann")["onFor"], "the module is told again")
        self.assertGreaterEqual(ask()["told"], 2)

    def test_bad_input_is_named(self):
        daemon = self.daemon()
        for body in ({}, {"enabled": "yes"}, {"enabled": True, "percentage": 101}, {"enabled": True, "percentage": -1},
                     {"enabled": True, "identities": [""]}, {"enabled": True, "identities": ["x"] * 1001}, {"enabled": True, "description": "d" * 501}):
            self.assertError(daemon.put("/api/v1/flags/x", body), 400, "INVALID_ARGUMENT")
        self.assertError(daemon.put("/api/v1/flags/" + "n" * 300, {"enabled": True}), 400, "INVALID_ARGUMENT")
        self.assertError(daemon.put("/api/v1/flags/a%27%3B%20DROP", {"enabled": True}), 400, "INVALID_ARGUMENT")
        self.assertError(daemon.get("/api/v1/flags/x"), 404, "FLAG_NOT_FOUND")


class Keys(SharedDaemonTest):
    options = ECHO

    def once(self, key, greeting):
        return self.daemon.put("/api/v1/modules/echo/config", {"config": {"greeting": greeting}}, headers={"Idempotency-Key": key})

    def test_a_call_that_comes_again_has_its_answer_and_is_not_done_again(self):
        key = str(uuid.uuid4())
        first = self.once(key, "first")
        self.assertEqual(first.status, 200, first)
        self.once(str(uuid.uuid4()), "second")
        again = self.once(key, "first")
        self.assertEqual((again.status, again.data["configRevision"]), (200, first.data["configRevision"]))
        self.assertEqual(self.daemon.module("echo")["config"]["greeting"], "second")

    def test_errors_of_the_request_are_kept_and_another_request_is_refused(self):
        key = str(uuid.uuid4())
        body = {"name": key, "permissions": ["modules:read"]}
        made = self.daemon.post("/api/v1/tokens", body, headers={"Idempotency-Key": key})
        self.assertEqual(made.status, 201, made)
        again = self.daemon.post("/api/v1/tokens", body, headers={"Idempotency-Key": key})
        self.assertEqual((again.status, again.data["secret"]), (201, made.data["secret"]))
        self.assertError(self.daemon.post("/api/v1/tokens", {**body, "name": "other"}, headers={"Idempotency-Key": key}), 409, "IDEMPOTENCY_KEY_REUSED")
        self.assertNotIn(made.data["secret"], str(self.daemon.sql("SELECT * FROM bulkhead_internal.idempotent_calls")))

    def test_of_twenty_at_once_one_is_done(self):
        key, name = str(uuid.uuid4()), f"t-{uuid.uuid4()}"
        call = lambda _: self.daemon.post("/api/v1/tokens", {"name": name, "permissions": ["modules:read"]}, headers={"Idempotency-Key": key})  # noqa: E731
        with concurrent.futures.ThreadPoolExecutor(20) as threads:
            answers = list(threads.map(call, range(20)))
        self.assertTrue({answer.status for answer in answers} <= {201, 409}, answers)
        self.assertEqual(len({answer.data["secret"] for answer in answers if answer.status == 201}), 1)
        self.assertTrue(all(answer.error["code"] == "IDEMPOTENCY_KEY_IN_USE" for answer in answers if answer.status == 409))

    def test_a_call_whose_supervisor_died_may_be_done_again_after_a_quarter_of_an_hour(self):
        key = str(uuid.uuid4())
        self.once(key, "first")
        revision = self.once(str(uuid.uuid4()), "second").data["configRevision"]

        def unanswered_for(minutes):
            self.daemon.sql(f"UPDATE bulkhead_internal.idempotent_calls SET status = NULL, answer = NULL, "
                            f"started_at = now() - interval '{minutes} minutes' WHERE key = '{key}'")

        unanswered_for(14)
        self.assertError(self.once(key, "first"), 409, "IDEMPOTENCY_KEY_IN_USE")
        self.assertError(self.once(key, "other"), 409, "IDEMPOTENCY_KEY_REUSED")
        unanswered_for(16)
        self.assertGreater(self.once(key, "first").data["configRevision"], revision)
        self.assertEqual(self.daemon.module("echo")["config"]["greeting"], "first")

    def test_what_was_asked_and_answered_is_kept_under_each_new_key_of_secrets(self):
        key, body = str(uuid.uuid4()), {"name": f"t-{uuid.uuid4()}", "permissions": ["modules:read"]}
        made = self.daemon.post("/api/v1/tokens", body, headers={"Idempotency-Key": key})
        kept = "SELECT request, answer FROM bulkhead_internal.idempotent_calls WHERE key = '" + key + "'"
        before = self.daemon.sql(kept)
        self.assertEqual(self.daemon.post("/api/v1/system/secrets/rotate").status, 200)
        self.assertNotEqual(self.daemon.sql(kept), before)
        again = self.daemon.post("/api/v1/tokens", body, headers={"Idempotency-Key": key})
        self.assertEqual((again.status, again.data["secret"]), (201, made.data["secret"]))

    def test_a_key_that_is_none_is_refused(self):
        for key in ("k" * 256, "with space"):
            self.assertError(self.once(key, "x"), 400, "INVALID_ARGUMENT")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + ["-v"] + sys.argv[1:])
