"""Plans beside what they plan: for each state and action the plan is asked for, then the action is done. Both must say the same."""

import json
import shutil
import time
import unittest

import harness
from harness import DaemonTest, wait_until
from modules_test import echo_like

ACTIONS = {
    "install": lambda daemon, name, query: daemon.post(f"/api/v1/modules/{name}/install{query}"),
    "enable": lambda daemon, name, query: daemon.post(f"/api/v1/modules/{name}/enable{query}"),
    "disable": lambda daemon, name, query: daemon.post(f"/api/v1/modules/{name}/disable{query}"),
    "configure": lambda daemon, name, query: daemon.put(f"/api/v1/modules/{name}/config{query}", {"config": {"greeting": f"hello, {time.monotonic()}"}}),
    "scale": lambda daemon, name, query: daemon.put(f"/api/v1/modules/{name}/workers", {"workers": int(query.partition("=")[2] or 1)}),
    "reset": lambda daemon, name, query: daemon.post(f"/api/v1/modules/{name}/reset{query}"),
    "delete": lambda daemon, name, query: daemon.delete(f"/api/v1/modules/{name}{query}"),
}
NEEDY = {"schema": {"site": {"type": "url", "required": True}, "greeting": {"type": "string"}}}


class Plans(DaemonTest):
    def setUp(self):
        super().setUp()
        self.modules, self.elsewhere = self.temporary_folder(), self.temporary_folder()

    def module(self, name, **manifest):
        return echo_like(self.modules, name, **manifest)

    def tables(self, name, files=("001_a.sql",), modules=None, **manifest):
        """Only its folder tells that it has a database."""
        folder = echo_like(modules or self.modules, name, **manifest)
        (folder / "migrations").mkdir()
        for file in files:
            (folder / "migrations" / file).write_text(f"CREATE TABLE t_{file[:3]} (id int);\n")
        return folder

    def register(self, daemon, folder, path=...):
        manifest = json.loads((folder / "manifest.json").read_text())
        body = {"manifest": manifest} if path is None else {"manifest": manifest, "path": str(folder if path is ... else path)}
        self.assertEqual(daemon.post("/api/v1/modules", body).status, 201)

    def plan(self, daemon, name, action, **query):
        query = "".join(f"&{key}={value}" for key, value in query.items())
        return daemon.get(f"/api/v1/modules/{name}/plan?action={action}{query}").data

    def steps(self, daemon, name, action, **query):
        return [(step["module"], step["effect"]) for step in self.plan(daemon, name, action, **query)["steps"]]

    def both(self, daemon, name, action, code, **query):
        """Asks for the plan, does it, and compares; `code` is what both should say, None for success."""
        before = [(module["name"], module["status"], module["desired"]) for module in daemon.get("/api/v1/modules").data]
        plan = self.plan(daemon, name, action, **query)
        after = [(module["name"], module["status"], module["desired"]) for module in daemon.get("/api/v1/modules").data]
        self.assertEqual(after, before, "a plan does nothing")
        answer = ACTIONS[action](daemon, name, "?" + "&".join(f"{key}={value}" for key, value in query.items()) if query else "")
        done = None if answer.status == 200 else answer.error["code"]
        planned = plan["refusals"][0]["code"] if plan["refusals"] else None
        with self.subTest(module=name, action=action, **query):
            self.assertEqual((done, planned, plan["allowed"]), (code, code, code is None), f"{answer}\n{plan}")
            self.assertEqual(bool(plan["refusals"]), not plan["allowed"])
            if planned:
                self.assertEqual(plan["steps"], [])
                self.assertEqual(answer.error["message"], plan["refusals"][0]["message"])
                details = [(detail["path"], detail["code"], detail["message"]) for detail in answer.error["details"]]
                self.assertEqual([(r["path"], r["code"], r["message"]) for r in plan["refusals"]][1:1 + len(details)], details)
        return plan

    def test_in_each_state_each_action(self):
        self.module("one")
        daemon = self.daemon(modules_dir=self.modules)
        into = {"REGISTERED": [], "DISABLED": ["install"], "ENABLED": ["enable"]}
        expected = {("REGISTERED", "disable"): "INVALID_TRANSITION", ("ENABLED", "delete"): "MODULE_ENABLED",
                    ("REGISTERED", "reset"): "INVALID_TRANSITION", ("DISABLED", "reset"): "INVALID_TRANSITION"}
        for state, way in into.items():
            for action in ACTIONS:
                for step in way:
                    self.assertEqual(ACTIONS[step](daemon, "one", "").status, 200)
                self.assertEqual(daemon.module("one")["status"], state)
                self.both(daemon, "one", action, expected.get((state, action)))
                # And back to the beginning.
                if daemon.get("/api/v1/modules/one").status == 200:
                    if daemon.module("one")["status"] == "ENABLED":
                        self.assertEqual(daemon.post("/api/v1/modules/one/disable").status, 200)
                    self.assertEqual(daemon.delete("/api/v1/modules/one").status, 200)
                self.assertEqual(daemon.post("/api/v1/modules/rescan").data[0]["outcome"], "registered")

    def test_a_scale_says_how_many_workers_come_or_go_and_refuses_what_no_module_can_have(self):
        self.module("one")
        daemon = self.daemon(modules=["one"], modules_dir=self.modules)
        plan = self.both(daemon, "one", "scale", None, workers=3)
        self.assertEqual([step["message"] for step in plan["steps"]], ["2 more of its workers, so that there are 3, are started"])
        self.assertEqual(self.steps(daemon, "one", "scale", workers=3), [])
        self.assertEqual(self.steps(daemon, "one", "scale"), [("one", "stop")], "back to the manifest's one")
        for number in (0, -1, 33):
            self.both(daemon, "one", "scale", "INVALID_ARGUMENT", workers=number)

    def test_on_the_way_to_another_state_everything_is_refused(self):
        self.module("one")
        daemon = self.daemon(modules_dir=self.modules)
        folder = self.modules / "one" / "bin"
        for number in range(40):  # so that copying it takes a while
            (folder / f"part-{number}").write_bytes(bytes(8_000_000))
        self.assertEqual(daemon.post("/api/v1/modules/one/install?wait=false").status, 202)
        plans = {action: self.plan(daemon, "one", action) for action in ACTIONS}
        self.assertEqual(daemon.module("one")["status"], "INSTALLING", "it was too fast to be seen")
        for action, plan in plans.items():
            self.assertEqual((plan["allowed"], plan["refusals"][0]["code"]), (False, "MODULE_BUSY"), action)
        wait_until(lambda: daemon.module("one")["status"] == "DISABLED", "it is installed")

    def test_what_is_wrong_with_the_folder_of_one_that_is_not_installed(self):
        daemon = self.daemon(modules_dir=self.modules)
        spoiled = {
            "pathless": (lambda folder: None, "PACKAGE_INVALID"),
            "gone": (shutil.rmtree, "PACKAGE_INVALID"),
            "empty": (lambda folder: (folder / "manifest.json").unlink(), "MANIFEST_MISSING"),
            "twice": (lambda folder: shutil.copy(folder / "manifest.json", folder / "module.json"), "MANIFEST_AMBIGUOUS"),
            "wrong": (lambda folder: (folder / "manifest.json").write_text("{}"), "MANIFEST_INVALID"),
            "other": (lambda folder: self.edit(folder, version="2.0.0"), "MANIFEST_CHANGED"),
            "later": (lambda folder: self.edit(folder, dependencies={"system": {"bulkhead": ">=99.0.0"}}), "DEPENDENCY_UNSATISFIED"),
            "headless": (lambda folder: (folder / "bin" / "headless").unlink(), "PACKAGE_INVALID"),
            "closed": (lambda folder: (folder / "bin" / "closed").chmod(0o644), "PACKAGE_INVALID"),
            "linked": (lambda folder: (folder / "link").symlink_to("/etc/passwd"), "PACKAGE_INVALID"),
        }
        for name, (spoil, code) in spoiled.items():
            folder = echo_like(self.elsewhere, name)
            self.register(daemon, folder, None if name == "pathless" else folder)
            self.register(daemon, echo_like(self.elsewhere, f"{name}-user", dependencies={"modules": {name: "*"}}))
            spoil(folder)
            self.both(daemon, name, "install", code)
            self.both(daemon, name, "enable", code)
            plan = self.both(daemon, f"{name}-user", "enable", code, withDependencies="true")
            self.assertEqual(plan["refusals"][1]["path"], f"/dependencies/modules/{name}")

    def edit(self, folder, **manifest):
        document = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps({**document, **manifest}))

    def test_what_the_folder_asks_for_that_was_not_registered(self):
        daemon = self.daemon(modules_dir=self.modules)
        for name, code, change in (("needs", "DEPENDENCY_UNSATISFIED", {"dependencies": {"modules": {"nowhere": "*"}}}),
                                   ("wants", "CONFIG_INVALID", {"config": NEEDY})):
            folder = echo_like(self.elsewhere, name)
            self.register(daemon, folder)
            self.edit(folder, **change)
            self.both(daemon, name, "enable", code)

    def test_dependencies(self):
        self.module("base")
        self.module("middle", dependencies={"modules": {"base": "^1.0.0"}})
        self.module("top", dependencies={"modules": {"middle": "^1.0.0"}})
        self.module("picky", dependencies={"modules": {"base": "^2.0.0"}})
        self.module("lost", dependencies={"modules": {"nowhere": "*"}})
        self.module("hen", dependencies={"modules": {"egg": "*"}})
        self.module("egg", dependencies={"modules": {"hen": "*"}})
        daemon = self.daemon(modules_dir=self.modules)
        for name in ("middle", "top", "picky", "lost", "hen"):
            self.both(daemon, name, "enable", "DEPENDENCY_UNSATISFIED")
        for name in ("picky", "lost", "hen"):
            self.both(daemon, name, "enable", "DEPENDENCY_UNSATISFIED", withDependencies="true")
        self.both(daemon, "top", "enable", None, withDependencies="true")
        for name in ("base", "middle"):
            self.both(daemon, name, "disable", "HAS_DEPENDENTS")
        for name in ("top", "middle"):
            self.both(daemon, name, "disable", None)
        self.both(daemon, "middle", "delete", "HAS_DEPENDENTS")
        self.both(daemon, "picky", "delete", None)
        self.both(daemon, "base", "delete", "MODULE_ENABLED")

    def test_with_dependencies_the_steps_are_those_of_each_and_done_so(self):
        self.tables("base", ("001_a.sql", "002_b.sql"))
        self.module("middle", dependencies={"modules": {"base": "^1.0.0"}})
        self.tables("top", dependencies={"modules": {"middle": "^1.0.0"}})
        daemon = self.daemon(modules_dir=self.modules)
        self.assertEqual(daemon.post("/api/v1/modules/middle/install").status, 200)
        plan = self.both(daemon, "top", "enable", None, withDependencies="true")
        self.assertEqual([(step["module"], step["effect"]) for step in plan["steps"]],
                         [("base", "install"), ("base", "migrate"), ("base", "migrate"), ("base", "start"), ("middle", "start"),
                          ("top", "install"), ("top", "migrate"), ("top", "start")])
        for name in ("base", "top"):
            planned = [step["message"].split()[0] for step in plan["steps"] if (step["module"], step["effect"]) == (name, "migrate")]
            files = daemon.get(f"/api/v1/modules/{name}/migrations").data["files"]
            self.assertEqual([file["name"] for file in files if file["state"] == "APPLIED"], planned)

    def test_migrations_of_one_that_was_registered_by_hand_are_read_in_its_folder(self):
        daemon = self.daemon(modules_dir=self.modules)
        self.register(daemon, self.tables("byhand", ("001_a.sql", "002_b.sql"), modules=self.elsewhere))
        self.assertEqual(self.steps(daemon, "byhand", "enable"),
                         [("byhand", "install"), ("byhand", "migrate"), ("byhand", "migrate"), ("byhand", "start")])
        self.both(daemon, "byhand", "enable", None)
        self.assertEqual(daemon.get("/api/v1/modules/byhand/migrations").data["pending"], 0)

    def test_migrations_and_extensions_that_can_not_be_run(self):
        bad = {
            "nameless": (self.tables("nameless", ("a.sql",)), "MIGRATION_INVALID"),
            "unfit": (self.module("unfit", database={"extensions": ["plpython3u"]}), "EXTENSION_NOT_ALLOWED"),
            "commits": (self.tables("commits"), "MIGRATION_FAILED"),
        }
        (bad["commits"][0] / "migrations" / "001_a.sql").write_text("CREATE TABLE a (id int);\nCOMMIT;\n")
        self.tables("edited")
        daemon = self.daemon(modules=["edited"], modules_dir=self.modules)
        for name, (_folder, code) in bad.items():
            if name != "unfit" or daemon.get(f"/api/v1/modules/{name}").status == 200:
                self.both(daemon, name, "enable", code)
        self.assertEqual(daemon.post("/api/v1/modules/edited/disable").status, 200)
        (file,) = daemon.data.glob("versions/edited/*/migrations/001_a.sql")
        file.chmod(0o644)
        file.write_text("CREATE TABLE other (id int);\n")
        self.both(daemon, "edited", "enable", "MIGRATION_EDITED")

    def test_configurations(self):
        self.module("bare", config=NEEDY)
        self.module("user", dependencies={"modules": {"bare": "*"}})
        daemon = self.daemon(modules_dir=self.modules)
        self.both(daemon, "bare", "enable", "CONFIG_INVALID")
        self.both(daemon, "user", "enable", "CONFIG_INVALID", withDependencies="true")
        self.assertEqual(daemon.put("/api/v1/modules/bare/config", {"config": {"site": "https://example.org"}}).status, 200)
        self.both(daemon, "user", "enable", None, withDependencies="true")

    def test_feature_flags(self):
        self.module("flagged", featureFlag="new-thing")
        self.module("user", dependencies={"modules": {"flagged": "*"}})
        daemon = self.daemon(modules_dir=self.modules)
        self.assertEqual(self.steps(daemon, "flagged", "enable"), [("flagged", "install"), ("flagged", "skip")])
        # What depends on a module that is skipped can't start.
        self.both(daemon, "user", "enable", "MODULE_START_FAILED", withDependencies="true")
        self.both(daemon, "flagged", "enable", None)
        self.assertEqual(daemon.module("flagged")["observed"]["state"], "SKIPPED")
        plan = self.both(daemon, "flagged", "enable", None)
        self.assertEqual([step["effect"] for step in plan["steps"]], ["skip"])
        self.assertIn("new-thing", plan["steps"][0]["message"])
        self.both(daemon, "user", "enable", "MODULE_START_FAILED")
        self.assertEqual(daemon.put("/api/v1/flags/new-thing", {"enabled": True}).status, 200)
        daemon.wait_observed("flagged", "RUNNING")
        self.assertEqual(self.steps(daemon, "flagged", "enable"), [])
        self.assertEqual(self.steps(daemon, "user", "enable"), [("user", "start")])
        self.both(daemon, "user", "enable", None)

    def test_one_that_was_installed_and_is_for_another_supervisor(self):
        self.module("later")
        self.module("user", dependencies={"modules": {"later": "*"}})
        daemon = self.daemon(modules_dir=self.modules)
        self.assertEqual(daemon.post("/api/v1/modules/later/install").status, 200)
        daemon.stop()
        (manifest,) = daemon.data.glob("versions/later/*/manifest.json")
        manifest.chmod(0o644)
        self.edit(manifest.parent, dependencies={"system": {"bulkhead": ">=99.0.0"}})
        daemon.start()
        plan = self.both(daemon, "later", "enable", "DEPENDENCY_UNSATISFIED")
        self.assertEqual(plan["refusals"][1]["path"], "/dependencies/system/bulkhead")
        self.both(daemon, "later", "enable", "DEPENDENCY_UNSATISFIED", withDependencies="true")
        self.both(daemon, "user", "enable", "DEPENDENCY_UNSATISFIED", withDependencies="true")

    def test_one_that_is_enabled_and_does_not_run(self):
        self.module("held")
        self.module("bare", config=NEEDY)
        daemon = self.daemon(modules=["held", "bare"], modules_dir=self.modules, args=["--disable", "held"])
        self.assertEqual(daemon.module("bare")["observed"]["state"], "FAILED")
        self.assertEqual(self.steps(daemon, "held", "enable"), [("held", "start")])
        self.both(daemon, "held", "enable", None)
        plan = self.both(daemon, "bare", "enable", "MODULE_START_FAILED")
        self.assertIn("CONFIG_INVALID", [refusal["code"] for refusal in plan["refusals"]])

    def test_one_that_still_stops_is_not_deleted(self):
        folder = self.module("hangs", lifecycle={"handshakeTimeout": 60000, "stopTimeout": 4000})
        (folder / "bin" / "hangs").write_text("#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 0.1; done\n")
        daemon = self.daemon(modules_dir=self.modules)
        self.assertEqual(daemon.post("/api/v1/modules/hangs/enable?wait=false").status, 202)
        wait_until(lambda: daemon.module("hangs")["workers"][0]["pid"], "its process")
        daemon.post("/api/v1/modules/hangs/disable?wait=false")
        self.both(daemon, "hangs", "delete", "MODULE_BUSY")


if __name__ == "__main__":
    harness.main()
