"""Boots that do not find everything in order: manifests that are not valid any more, critical modules that fail, work that was interrupted,
and what discovery finds in the modules directory."""

import datetime
import json
import re
import shutil
import unittest

import harness
from harness import DaemonTest, run_serve, wait_until, write_module
from modules_test import echo_like

CRITICAL_FAILED = 3  # what serve ends with
SECRET = "key-nobody-may-see"


def set_workers(daemon, value, name):
    """In the manifest that is registered."""
    daemon.sql(f"UPDATE bulkhead_internal.modules SET manifest = jsonb_set(manifest::jsonb, '{{workers}}', '{value}')::json WHERE name = '{name}'")


def spoil(daemon, *names):
    """What a later version of the supervisor may find: the manifest that was registered, and the copy that was installed, are not valid any more."""
    for name in names:
        for installed in daemon.data.glob(f"versions/{name}/*/manifest.json"):
            installed.chmod(0o644)
            installed.write_text("{}")
        set_workers(daemon, '"many"', name)


class InvalidManifests(DaemonTest):
    """Modules whose registered manifest is not valid any more."""

    def setUp(self):
        super().setUp()
        self.modules = self.temporary_folder()
        for name in ("fine", "idle", "used"):
            echo_like(self.modules, name, critical=False, config={"schema": {"apiKey": {"type": "password"}, "site": {"type": "string"}}})

    def spoiled(self):
        """`used` is enabled and configured, `idle` was only registered, and its folder is gone."""
        daemon = self.daemon(modules=["fine", "used"], modules_dir=self.modules)
        self.assertEqual(daemon.put("/api/v1/modules/used/config", {"config": {"apiKey": SECRET, "site": "inside"}}).status, 200)
        shutil.rmtree(self.modules / "idle")
        spoil(daemon, "used", "idle")
        daemon.stop()
        return daemon.start()

    def test_they_are_shown_with_what_is_wrong_and_skip_nobody_else(self):
        daemon = self.spoiled()
        self.assertEqual(daemon.get("/api/v1/m/fine/echo").status, 200)
        self.assertEqual(daemon.get("/readyz", token=None).status, 200)
        self.assertEqual([module["name"] for module in daemon.get("/api/v1/modules").data], ["fine", "idle", "used"])
        used, idle = daemon.module("used"), daemon.module("idle")
        self.assertEqual((used["status"], used["observed"]["state"]), ("ENABLED", "FAILED"))
        self.assertEqual((idle["status"], idle["observed"]["state"]), ("REGISTERED", "STOPPED"))
        for view in (used, idle):
            self.assertEqual(view["observed"]["reason"]["code"], "MANIFEST_INVALID")
            self.assertIn("/workers", view["observed"]["reason"]["message"])
        self.assertEqual(daemon.get("/api/v1/system/modules").json["modules"]["used"]["status"], "unhealthy")
        found = {folder["module"]: folder for folder in daemon.post("/api/v1/modules/rescan").data}
        self.assertEqual((found["used"]["outcome"], found["used"]["code"]), ("broken", "MANIFEST_INVALID"))
        self.assertTrue(any(detail["path"] == "/workers" for detail in found["used"]["details"]), found["used"])

    def test_their_values_are_hidden_and_their_secrets_stay_secrets(self):
        daemon = self.spoiled()
        self.assertEqual(daemon.module("used")["config"], {"apiKey": "********", "site": "********"})
        self.assertEqual(run_serve("secrets", "rotate", env={"BULKHEAD_SERVER": daemon.admin_address, "BULKHEAD_TOKEN": daemon.token})[0], 0)
        for place in (str(daemon.sql("SELECT config FROM bulkhead_internal.modules")), daemon.log(), daemon.get("/api/v1/modules").body.decode()):
            self.assertNotIn(SECRET, place)
        # With a manifest that is valid again, the value is there under the new key.
        set_workers(daemon, "1", "used")
        daemon.stop()
        daemon.start()
        self.assertEqual(daemon.module("used")["config"], {"apiKey": "********", "site": "inside"})
        self.assertTrue(daemon.get("/api/v1/m/used/config").data["hasKey"])

    def test_what_needs_a_manifest_is_refused(self):
        daemon = self.spoiled()
        for name in ("idle", "used"):
            for answer in (daemon.post(f"/api/v1/modules/{name}/enable"), daemon.post(f"/api/v1/modules/{name}/enable?withDependencies=true"),
                           daemon.put(f"/api/v1/modules/{name}/config", {"config": {}}), daemon.put(f"/api/v1/modules/{name}/status", {"status": "ENABLED"})):
                self.assertError(answer, 400, "MANIFEST_INVALID")
                self.assertIn("/workers", [detail["path"] for detail in answer.error["details"]])
            for action in ("enable", "configure"):
                plan = daemon.get(f"/api/v1/modules/{name}/plan?action={action}").data
                self.assertEqual((plan["allowed"], plan["refusals"][0]["code"]), (False, "MANIFEST_INVALID"), plan)

    def test_they_are_disabled_deleted_and_registered_anew(self):
        daemon = self.spoiled()
        self.assertError(daemon.delete("/api/v1/modules/used"), 409, "MODULE_ENABLED")
        self.assertEqual(daemon.post("/api/v1/modules/used/disable").status, 200)
        self.assertEqual(daemon.module("used")["observed"]["state"], "STOPPED")
        for name in ("used", "idle"):
            self.assertEqual(daemon.delete(f"/api/v1/modules/{name}?purge={'true' if name == 'used' else 'false'}").status, 200)
            self.assertError(daemon.get(f"/api/v1/modules/{name}"), 404, "MODULE_NOT_FOUND")
        self.assertFalse((daemon.data / "modules" / "used").exists(), "its data folder")
        found = {folder["module"]: folder["outcome"] for folder in daemon.post("/api/v1/modules/rescan").data}
        self.assertEqual(found, {"fine": "unchanged", "used": "registered"})
        self.assertEqual(daemon.post("/api/v1/modules/used/enable").status, 200)
        self.assertFalse(daemon.get("/api/v1/m/used/config").data["hasKey"])

    def test_installing_the_folder_mends_one_that_was_only_registered(self):
        daemon = self.daemon(modules_dir=self.modules)
        spoil(daemon, "idle")
        daemon.stop()
        daemon.start()
        self.assertError(daemon.post("/api/v1/modules/idle/enable"), 400, "MANIFEST_INVALID")
        self.assertEqual(daemon.post("/api/v1/modules/idle/install").status, 200)
        self.assertIsNone(daemon.module("idle")["observed"]["reason"])
        self.assertEqual(daemon.post("/api/v1/modules/idle/enable").status, 200)

    def test_one_that_is_critical_ends_the_boot(self):
        echo_like(self.modules, "vital", critical=True)
        daemon = self.daemon(modules=["vital"], modules_dir=self.modules)
        spoil(daemon, "vital")
        daemon.stop()
        daemon.launch()
        self.assertEqual(daemon.wait_exit(), CRITICAL_FAILED)
        self.assertIn("not valid any more: /workers", daemon.log())
        daemon.assert_nothing_left()


def moment(text):
    """Of the log, or of the API."""
    return datetime.datetime.strptime(re.sub(r"Z$", "", text), "%Y-%m-%dT%H:%M:%S.%f")


class Starts(DaemonTest):
    """What the modules of a node have to do with each other when it boots."""

    def setUp(self):
        super().setUp()
        self.modules = self.temporary_folder()

    def failing(self, name, **manifest):
        return write_module(self.modules, name, manifest, entry="#!/bin/sh\nexit 1\n")

    def slow(self, name, **manifest):
        """Takes 0.9 s until it answers the handshake."""
        folder = echo_like(self.modules, name, **manifest)
        (folder / "bin" / name).rename(folder / "bin" / "program")
        (folder / "bin" / name).write_text(f'#!/bin/sh\nsleep 0.9\nexec "$(dirname "$0")/program" "$@"\n')
        (folder / "bin" / name).chmod(0o755)
        return folder

    def started(self, daemon, name):
        return moment(daemon.module(name)["workers"][0]["startedAt"])

    def ready(self, daemon, name):
        lines = [json.loads(line) for line in daemon.log().splitlines() if line.startswith("{")]
        return moment(next(line["time"] for line in lines if line["message"] == "worker ready" and line["module"] == name))

    def test_a_critical_module_that_does_not_start_ends_the_boot(self):
        for name, manifest in (("itself", {"critical": True}), ("needed", {})):
            with self.subTest(name):
                self.modules = self.temporary_folder()
                self.failing(name, **manifest)
                echo_like(self.modules, "fine")
                enabled = [name, "fine"]
                if name == "needed":  # critical, since another one depends on it
                    echo_like(self.modules, "user", dependencies={"modules": {"needed": "*"}})
                    enabled.append("user")
                daemon = self.daemon(start=False, modules=enabled, modules_dir=self.modules)
                daemon.launch()
                wait_until(lambda: daemon.remember_processes(), "it runs")
                self.assertEqual(daemon.wait_exit(), CRITICAL_FAILED)
                self.assertIsNone(daemon.ready_line())
                self.assertRegex(daemon.log(), rf"a critical module did not start  module={name}")
                daemon.assert_nothing_left()

    def test_where_it_is_wanted_so_the_node_stays_up_with_what_is_left(self):
        self.failing("itself", critical=True)
        self.failing("needed")
        echo_like(self.modules, "user", dependencies={"modules": {"needed": "*"}})
        echo_like(self.modules, "fine")
        names = ("itself", "needed", "user", "fine")
        settings = "boot:\n  onCriticalFailure: degraded\nmodules:\n" + "".join(f"  {name}:\n    enabled: true\n" for name in names)
        daemon = self.daemon(config=settings, modules_dir=self.modules)
        self.assertEqual(daemon.get("/api/v1/m/fine/echo").status, 200)
        self.assertRegex(daemon.log(), r"a critical module did not start  module=itself")
        user = daemon.module("user")
        self.assertEqual((user["observed"]["state"], user["observed"]["reason"]["code"]), ("FAILED", "DEPENDENCY_FAILED"))
        for name in ("itself", "needed"):
            self.assertIn(daemon.module(name)["observed"]["state"], ("BACKOFF", "STARTING", "QUARANTINED"))
            self.assertEqual(daemon.module(name)["status"], "ENABLED", "it is tried on")
        self.assertEqual(daemon.stop()[0], 0)

    def test_one_that_is_not_critical_does_not_keep_the_node_from_being_ready(self):
        self.failing("optional", critical=False)
        echo_like(self.modules, "user", critical=False, dependencies={"modules": {"optional": "*"}})
        daemon = self.daemon(modules=["optional", "user"], modules_dir=self.modules)
        self.assertEqual(daemon.module("user")["observed"]["reason"]["code"], "DEPENDENCY_FAILED")

    def test_those_that_do_not_depend_on_each_other_start_at_the_same_time_and_the_others_one_after_another(self):
        for name in ("one", "two"):
            self.slow(name)
        self.slow("later", dependencies={"modules": {"one": "*", "two": "*"}})
        daemon = self.daemon(modules=["one", "two", "later"], modules_dir=self.modules, args=["--log-format", "json"])
        self.assertNotIn('"message":"FAILED"', daemon.log(), "one that has to wait does not fail meanwhile")
        started = {name: self.started(daemon, name) for name in ("one", "two", "later")}
        ready = {name: self.ready(daemon, name) for name in ("one", "two", "later")}
        self.assertLess(max(started["one"], started["two"]), min(ready["one"], ready["two"]), f"{started} {ready}")
        self.assertGreaterEqual(started["later"], max(ready["one"], ready["two"]), f"{started} {ready}")


class Interrupted(DaemonTest):
    """What a supervisor that was killed had begun."""

    def setUp(self):
        super().setUp()
        self.modules = self.temporary_folder()

    def states(self, daemon):
        return {module["name"]: (module["status"], module["observed"]["state"]) for module in daemon.get("/api/v1/modules").data}

    def test_states_on_the_way_are_mended(self):
        for name in ("installing", "removing", "updating", "half-removed"):
            echo_like(self.modules, name)
        daemon = self.daemon(modules_dir=self.modules)
        for name in ("removing", "updating"):
            self.assertEqual(daemon.post(f"/api/v1/modules/{name}/install").status, 200)
        daemon.kill()
        daemon.start()
        for name, status in (("installing", "INSTALLING"), ("removing", "REMOVING"), ("updating", "UPDATING"), ("half-removed", "REMOVING")):
            daemon.sql(f"UPDATE bulkhead_internal.modules SET status = '{status}' WHERE name = '{name}'")
        daemon.kill()
        daemon.start()
        self.assertEqual(self.states(daemon), {"installing": ("REGISTERED", "STOPPED"), "removing": ("DISABLED", "STOPPED"),
                                               "updating": ("DISABLED", "STOPPED"), "half-removed": ("REGISTERED", "STOPPED")})
        for name, sentence in (("installing", "its installation was interrupted"), ("removing", "its removal was interrupted: delete it again")):
            self.assertRegex(daemon.log(), rf"{sentence}  module={name}")
        self.assertRegex(daemon.log(), "its upgrade was interrupted  module=updating")
        for name in ("installing", "updating"):
            self.assertEqual(daemon.post(f"/api/v1/modules/{name}/enable").status, 200)
        for name in ("removing", "half-removed"):
            self.assertEqual(daemon.delete(f"/api/v1/modules/{name}?purge=true").status, 200)

    def test_an_installation_in_whose_middle_it_was_killed_is_begun_anew(self):
        folder = echo_like(self.modules, "large")
        for number in range(40):
            (folder / f"part-{number}").write_bytes(bytes(8_000_000))
        daemon = self.daemon(modules_dir=self.modules)
        self.assertEqual(daemon.post("/api/v1/modules/large/install?wait=false").status, 202)
        wait_until(lambda: list(daemon.data.glob("versions/large/.tmp-*/part-*")), "the copy is being made")
        daemon.kill()
        (copy,) = (daemon.data / "versions" / "large").iterdir()
        self.assertTrue(copy.name.startswith(".tmp-"), "it was done already")
        daemon.start()
        self.assertEqual(daemon.module("large")["status"], "REGISTERED")
        self.assertEqual(list((daemon.data / "versions" / "large").iterdir()), [], "half a copy was left")
        self.assertEqual(daemon.post("/api/v1/modules/large/enable").status, 200)


class Discovery(DaemonTest):
    """What lies in the modules directory when the supervisor starts."""

    def setUp(self):
        super().setUp()
        self.modules = self.temporary_folder()

    def edit(self, folder, **manifest):
        document = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps({**document, **manifest}))

    def rescan(self, daemon):
        return {folder["folder"].rsplit("/", 1)[1]: folder for folder in daemon.post("/api/v1/modules/rescan").data}

    def test_another_version_is_on_offer_and_not_taken_in_development_neither(self):
        folder = echo_like(self.modules, "one")
        daemon = self.daemon(modules=["one"], modules_dir=self.modules)
        daemon.stop()
        self.edit(folder, version="1.1.0")
        for arguments in ([], ["--development", "true"]):
            daemon.extra_args = arguments
            daemon.start()
            one = daemon.module("one")
            self.assertEqual((one["version"], one["observed"]["state"], one["offer"]), ("1.0.0", "RUNNING", {"version": "1.1.0", "path": str(folder)}))
            self.assertRegex(daemon.log(), r"another version is on offer.*module=one  registered=1\.0\.0  found=1\.1\.0")
            daemon.stop()

    def test_of_several_versions_the_highest_is_on_offer(self):
        echo_like(self.modules, "one")
        daemon = self.daemon(modules_dir=self.modules)
        for version in ("1.10.0", "1.9.0", "0.9.0"):
            echo_like(self.modules, "one", folder=f"one-{version}", version=version)
        found = self.rescan(daemon)
        self.assertEqual({folder["outcome"] for name, folder in found.items() if name != "one"}, {"offered"})
        self.assertEqual(daemon.module("one")["offer"], {"version": "1.10.0", "path": f"{self.modules}/one-1.10.0"})

    def test_of_two_folders_with_the_same_module_the_registered_one_counts_and_the_other_is_named(self):
        echo_like(self.modules, "one", folder="b")
        daemon = self.daemon(modules=["one"], modules_dir=self.modules)
        daemon.stop()
        for folder in ("a", "c"):
            echo_like(self.modules, "one", folder=folder)
        daemon.start()
        self.assertEqual([(module["name"], module["path"]) for module in daemon.get("/api/v1/modules").data], [("one", f"{self.modules}/b")])
        self.assertRegex(daemon.log(), rf"skipping a module folder  folder={self.modules}/a  code=MODULE_EXISTS")
        found = self.rescan(daemon)
        self.assertEqual({name: (folder["outcome"], folder["code"]) for name, folder in found.items()},
                         {"a": ("broken", "MODULE_EXISTS"), "b": ("unchanged", ""), "c": ("broken", "MODULE_EXISTS")})
        self.assertIn(f"{self.modules}/b holds one 1.0.0", found["a"]["message"])
        self.assertEqual(daemon.get("/api/v1/m/one/echo").status, 200)

    def test_of_two_folders_with_the_same_new_module_the_first_is_registered(self):
        for folder in ("x", "y"):
            echo_like(self.modules, "one", folder=folder)
        daemon = self.daemon(modules=["one"], modules_dir=self.modules)
        self.assertEqual(daemon.module("one")["path"], f"{self.modules}/x")
        self.assertRegex(daemon.log(), rf"skipping a module folder  folder={self.modules}/y  code=MODULE_EXISTS")
        self.assertEqual(daemon.get("/api/v1/m/one/echo").status, 200)

    def test_a_manifest_may_be_named_otherwise_and_be_yaml_and_two_of_them_are_none(self):
        names = {"inyaml": "module.yaml", "injson": "module.json"}
        for name, file in names.items():
            folder = echo_like(self.modules, name)
            if file.endswith(".yaml"):
                manifest = (folder / "manifest.json").read_text()
                (folder / file).write_text("# A comment, which JSON has not.\n" + manifest)
                (folder / "manifest.json").unlink()
            else:
                (folder / "manifest.json").rename(folder / file)
        plain = echo_like(self.modules, "block")
        (plain / "manifest.json").unlink()
        (plain / "module.yaml").write_text("manifestVersion: 1\nname: block\nversion: 1.0.0\ndisplayName: Block\ndescription: YAML in its own form.\n"
                                           "author: tests\ncapabilities:\n  api:\n    routes:\n      - {method: GET, path: /echo}\n")
        both = echo_like(self.modules, "both")
        shutil.copy(both / "manifest.json", both / "module.json")
        daemon = self.daemon(modules=["inyaml", "injson", "block", "both"], modules_dir=self.modules)
        self.assertEqual([module["name"] for module in daemon.get("/api/v1/modules").data], ["block", "injson", "inyaml"])
        for name in ("inyaml", "injson", "block"):
            self.assertEqual(daemon.get(f"/api/v1/m/{name}/echo").status, 200)
        self.assertRegex(daemon.log(), rf"skipping a module folder  folder={self.modules}/both  code=MANIFEST_AMBIGUOUS")
        found = self.rescan(daemon)["both"]
        self.assertEqual((found["outcome"], found["code"]), ("broken", "MANIFEST_AMBIGUOUS"))
        self.assertIn("both manifest.json and module.json", found["message"])

    def test_the_list_is_sorted_by_when_a_module_was_changed_last(self):
        for name in ("one", "three", "two"):
            echo_like(self.modules, name)
        daemon = self.daemon(modules_dir=self.modules)
        for name in ("two", "one", "three"):
            self.assertEqual(daemon.put(f"/api/v1/modules/{name}/config", {"config": {"greeting": "hi"}}).status, 200)

        def order(sort):
            return [module["name"] for module in daemon.get(f"/api/v1/modules?sort={sort}").data]

        self.assertEqual(order("updatedAt"), ["two", "one", "three"])
        self.assertEqual(order("-updatedAt"), ["three", "one", "two"])
        self.assertEqual(daemon.put("/api/v1/modules/two/config", {"config": {"greeting": "ho"}}).status, 200)
        self.assertEqual(order("-updatedAt"), ["two", "three", "one"])


if __name__ == "__main__":
    harness.main()
