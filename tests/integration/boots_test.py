"""Boots that do not find everything in order: manifests that are not valid any more."""

import shutil
import unittest

import harness
from harness import DaemonTest, run_serve
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


if __name__ == "__main__":
    harness.main()
