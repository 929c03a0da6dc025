"""Other versions and other processes of a module, under load: upgrade, rollback, restart, reload. What serves is replaced by what is ready."""

import http.client
import shutil
import threading
import unittest

import harness
from audit_test import audit
from harness import SLOW, DaemonTest, wait_until
from http_test import Wire
from modules_test import echo_like
from websocket_test import CLOSE, TEXT, WebSocket

GONE_WITHIN_S = 15 * SLOW
LOAD_CONNECTIONS = 8


class Load:
    """Clients that ask what version serves, one request behind the other on connections that they keep, until they are told to stop."""

    def __init__(self, daemon, path, connections=LOAD_CONNECTIONS):
        self.daemon, self.path, self.token = daemon, path, daemon.token
        self.failures, self.versions, self.answered = [], [], 0
        self.stopping = False
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(connections)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        wait_until(lambda: self.answered > len(self.threads), "the first answers")
        return self

    def __exit__(self, *_):
        self.stopping = True
        for thread in self.threads:
            thread.join()

    def run(self):
        host, port = self.daemon.address.rsplit(":", 1)
        connection = http.client.HTTPConnection(host, int(port), timeout=30 * SLOW)
        while not self.stopping:
            try:
                connection.request("GET", self.path, headers={"Authorization": f"Bearer {self.token}"})
                answer = connection.getresponse()
                body = answer.read().decode()
                if answer.status == 200:
                    body = harness.json.loads(body)["data"]["value"]
                else:
                    self.failures.append((answer.status, body))
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
            else:
                with self.lock:
                    self.answered += 1
                    if not self.versions or self.versions[-1] != body:
                        self.versions.append(body)
        connection.close()


class Upgrading(DaemonTest):
    def setUp(self):
        super().setUp()
        self.modules, self.elsewhere = self.temporary_folder(), self.temporary_folder()

    def version(self, version, name="shop", **manifest):
        """A folder of the module outside of the modules directory; GET /config/greeting answers its version."""
        manifest = {"config": {"schema": {"greeting": {"type": "string", "default": version}, "apiKey": {"type": "password", "sensitive": True}}}, **manifest}
        return echo_like(self.elsewhere, name, folder=f"{name}-{version}", version=version, **manifest)

    def enabled(self, **manifest):
        manifest.setdefault("lifecycle", {"soakTime": 0})
        echo_like(self.modules, "shop", version="1.0.0", **{
            "config": {"schema": {"greeting": {"type": "string", "default": "1.0.0"}, "apiKey": {"type": "password", "sensitive": True}}}, **manifest})
        return self.daemon(modules=["shop"], modules_dir=self.modules)

    def upgrade(self, daemon, version, status=200, name="shop", query="", **manifest):
        manifest.setdefault("lifecycle", {"soakTime": 0})
        folder = self.version(version, name, **manifest)
        answer = daemon.post(f"/api/v1/modules/{name}/upgrade{query}", {"path": str(folder)})
        self.assertEqual(answer.status, status, answer)
        return answer

    def says(self, daemon, name="shop"):
        return daemon.get(f"/api/v1/m/{name}/config/greeting").data["value"]

    def assert_only(self, daemon, version, name="shop"):
        """Nothing of another version is left."""
        def gone():
            workers = daemon.module(name)["workers"]
            return {worker["version"] for worker in workers} == {version} and {worker["state"] for worker in workers} == {"RUNNING"}
        wait_until(gone, f"nothing but {version} is left: {daemon.module(name)['workers']}", GONE_WITHIN_S)

    def broken(self, version, script="exit 3", **manifest):
        """A version whose program is a script."""
        folder = self.version(version, **{"lifecycle": {"soakTime": 0}, **manifest})
        program = folder / "bin" / "shop"
        program.write_text(f"#!/bin/sh\n{script}\n")
        return folder


class Upgrade(Upgrading):
    def test_no_request_is_lost_and_each_version_answers_from_the_switch_on(self):
        daemon = self.enabled(workers=2)
        with Load(daemon, "/api/v1/m/shop/config/greeting") as load:
            for version in ("1.1.0", "1.2.0", "2.0.0-beta.1"):
                module = self.upgrade(daemon, version, workers=2).data
                self.assertEqual((module["version"], module["status"], module["observed"]["state"]), (version, "ENABLED", "RUNNING"))
                self.assertEqual(self.says(daemon), version)
                self.assertEqual((module["lastUpgrade"]["to"], module["lastUpgrade"]["outcome"]), (version, "SUCCEEDED"))
                self.assert_only(daemon, version)
        self.assertEqual(load.failures, [])
        self.assertEqual(sorted(worker["slot"] for worker in daemon.module("shop")["workers"]), [0, 1])
        self.assertEqual(daemon.module("shop")["exits"], [], "nobody crashed")

    def test_the_new_version_has_its_own_routes_workers_and_configuration_at_once(self):
        daemon = self.enabled()
        routes = {"api": {"routes": [{"method": "GET", "path": "/config/:field"}, {"method": "GET", "path": "/inline"}]}}
        self.assertEqual(daemon.get("/api/v1/m/shop/echo").status, 200)
        module = self.upgrade(daemon, "1.1.0", workers=3, capabilities=routes).data
        self.assertEqual(daemon.get("/api/v1/m/shop/echo").status, 404)
        self.assertEqual(daemon.get("/api/v1/m/shop/inline").status, 200)
        self.assert_only(daemon, "1.1.0")
        self.assertEqual(len(daemon.module("shop")["workers"]), 3)
        self.assertEqual(module["manifest"]["version"], "1.1.0")
        self.assertNotEqual(module["path"], str(self.modules / "shop"))

    def test_the_number_of_workers_that_was_set_outlives_it_and_its_role_has_connections_for_both_versions_meanwhile(self):
        echo_like(self.modules, "shop", version="1.0.0", workers=2, database={})
        (self.modules / "shop" / "migrations").mkdir()
        daemon = self.daemon(modules=["shop"], modules_dir=self.modules)

        def limit():
            return int(daemon.sql("SELECT rolconnlimit FROM pg_roles JOIN bulkhead_internal.module_roles ON role = rolname WHERE module = 'shop'")[0][0])

        self.assertEqual(daemon.put("/api/v1/modules/shop/workers", {"workers": 3}).status, 200)
        self.assertEqual(limit(), 12)
        hanging = self.broken("1.1.0", "exec sleep 1000", database={}, workers=1, lifecycle={"soakTime": 0, "handshakeTimeout": 5_000 * SLOW})
        (hanging / "migrations").mkdir(exist_ok=True)
        begun = daemon.post("/api/v1/modules/shop/upgrade?wait=0s", {"path": str(hanging)})
        self.assertEqual(begun.status, 202, begun)
        wait_until(lambda: limit() == 24, "connections for three workers of each version")
        wait_until(lambda: daemon.module("shop")["status"] == "ENABLED", "it was given up", GONE_WITHIN_S)
        wait_until(lambda: limit() == 12, "what was for the other version is taken back")
        folder = self.version("1.2.0", database={}, workers=1, lifecycle={"soakTime": 0})
        (folder / "migrations").mkdir(exist_ok=True)
        module = daemon.post("/api/v1/modules/shop/upgrade", {"path": str(folder)}).data
        self.assertEqual((module["version"], module["desired"]["workers"], module["desired"]["workersOverride"]), ("1.2.0", 3, 3))
        self.assert_only(daemon, "1.2.0")
        self.assertEqual(len(daemon.module("shop")["workers"]), 3)
        wait_until(lambda: limit() == 12, "and after the switch, too")
        module = daemon.put("/api/v1/modules/shop/workers", {"workers": None}).data
        self.assertEqual((module["desired"]["workers"], len(module["workers"])), (1, 1), "as many as its new manifest says")

    def test_its_restart_policy_is_in_force_from_the_switch_on(self):
        daemon = self.enabled()
        module = self.upgrade(daemon, "1.1.0", restart={"policy": "never"}).data
        self.assertEqual(module["restartPolicy"]["policy"], "never")
        daemon.post("/api/v1/m/shop/crash")
        wait_until(lambda: daemon.module("shop")["observed"]["state"] == "FAILED", "it is not started again")
        module = self.upgrade(daemon, "1.2.0").data
        self.assertEqual((module["restartPolicy"]["policy"], module["observed"]["state"]), ("always", "RUNNING"))
        daemon.post("/api/v1/m/shop/crash")
        wait_until(lambda: len(daemon.module("shop")["exits"]) == 2 and daemon.module("shop")["observed"]["state"] == "RUNNING", "it runs again")

    def test_what_is_in_flight_is_finished_by_the_old_version(self):
        daemon = self.enabled(lifecycle={"soakTime": 0, "drainTimeout": 6_000 * SLOW})
        with Wire(daemon) as slow, WebSocket(daemon).open(path="/api/v1/m/shop/ws") as chat:
            slow.send(slow.head("GET", "/api/v1/m/shop/stream?bytes=8000000"))
            slow.read_until(b"\r\n\r\n")
            chat.frame(TEXT, b"before")
            self.assertEqual(chat.receive(), (TEXT, b"before"))
            self.upgrade(daemon, "1.1.0")
            self.assertEqual(self.says(daemon), "1.1.0")
            self.assertEqual(slow.read_until(b"\r\n0\r\nx-bytes: 8000000\r\n\r\n").count(b"abcdefghij") > 100_000, True)
            chat.frame(TEXT, b"after")
            self.assertEqual(chat.receive(), (TEXT, b"after"), "a WebSocket has the time of the drain")
            self.assertEqual(chat.receive(), (CLOSE, b"\x03\xe9the module is stopping"), "then its client connects anew, to the new version")
        self.assert_only(daemon, "1.1.0")

    def test_one_that_does_not_start_changes_nothing(self):
        daemon = self.enabled(workers=2)
        before = daemon.module("shop")
        with Load(daemon, "/api/v1/m/shop/config/greeting") as load:
            folder = self.broken("1.1.0")
            answer = daemon.post("/api/v1/modules/shop/upgrade", {"path": str(folder)}, headers={"X-Request-Id": "req-broken"})
            self.assertError(answer, 502, "MODULE_START_FAILED")
            self.assertRegex(answer.error["message"], "exited with code 3.*version 1.0.0 goes on")
        self.assertEqual((load.failures, load.versions), ([], ["1.0.0"]))
        after = wait_until(lambda: (module := daemon.module("shop"))["workers"] == before["workers"] and module, "the new one's process is gone")
        for field in ("version", "status", "path", "manifest"):
            self.assertEqual(after[field], before[field], field)
        last = after["lastUpgrade"]
        self.assertEqual((last["from"], last["to"], last["outcome"], last["reason"]["code"]), ("1.0.0", "1.1.0", "FAILED", "MODULE_START_FAILED"))
        self.assertEqual([exit_["cause"] for exit_ in after["exits"]], ["HANDSHAKE"])
        (entry,) = wait_until(lambda: audit(daemon, requestId="req-broken"), "it is in the audit")
        self.assertEqual((entry["action"], entry["outcome"]), ("modules.upgrade", "MODULE_START_FAILED"))
        self.upgrade(daemon, "1.2.0")

    def test_one_that_is_given_up_while_it_is_written_down_is_taken_back_there_too(self):
        echo_like(self.modules, "shop", version="1.0.0", featureFlag="shop-on")
        daemon = self.daemon(modules_dir=self.modules)
        daemon.put("/api/v1/flags/shop-on", {"enabled": True})
        self.assertEqual(daemon.post("/api/v1/modules/shop/enable").status, 200)
        folder = self.version("1.1.0", featureFlag="shop-on")
        (folder / "bin" / "shop").rename(folder / "bin" / "real")
        (folder / "bin" / "shop").write_text(f"#!/bin/sh\nsleep {3 * SLOW}\nexec $(dirname \"$0\")/real\n")
        (folder / "bin" / "shop").chmod(0o755)
        self.assertEqual(daemon.post("/api/v1/modules/shop/upgrade?wait=false", {"path": str(folder)}).status, 202)
        row = "SELECT status, version FROM bulkhead_internal.modules WHERE name = 'shop'"
        wait_until(lambda: daemon.sql(row)[0][0] == "UPDATING", "it has begun")
        hold = f"BEGIN; LOCK TABLE bulkhead_internal.modules IN SHARE MODE; SELECT pg_sleep({7 * SLOW})"
        holder = threading.Thread(target=daemon.sql, args=(hold,))
        holder.start()
        waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'bulkhead_internal.modules'::regclass AND NOT granted"
        wait_until(lambda: daemon.sql(waiting) == [["1"]], "the new version is being written down")
        daemon.put("/api/v1/flags/shop-on", {"enabled": False})
        wait_until(lambda: daemon.module("shop")["observed"]["state"] == "SKIPPED", "it is given up")
        holder.join()
        wait_until(lambda: daemon.sql(row) == [["ENABLED", "1.0.0"]], "the old one stays")
        daemon.put("/api/v1/flags/shop-on", {"enabled": True})
        wait_until(lambda: daemon.module("shop")["observed"]["state"] == "RUNNING", "it runs")
        module = daemon.module("shop")
        self.assertEqual((module["version"], module["lastUpgrade"]["outcome"]), ("1.0.0", "FAILED"))

    def test_migrations_run_while_the_old_version_serves_and_one_that_fails_stops_the_upgrade(self):
        daemon = self.enabled()
        folder = self.version("1.1.0", lifecycle={"soakTime": 0})
        (folder / "migrations").mkdir()
        (folder / "migrations" / "001_a.sql").write_text("CREATE TABLE t (id int);\n")
        self.assertEqual(daemon.post("/api/v1/modules/shop/upgrade", {"path": str(folder)}).status, 200)
        folder = self.version("1.2.0", lifecycle={"soakTime": 0})
        (folder / "migrations").mkdir()
        (folder / "migrations" / "001_a.sql").write_text("CREATE TABLE t (id int);\n")
        (folder / "migrations" / "002_b.sql").write_text("CREATE TABLE u (id int);\nALTER TABLE nowhere ADD x int;\n")
        answer = daemon.post("/api/v1/modules/shop/upgrade", {"path": str(folder)})
        self.assertError(answer, 502, "MIGRATION_FAILED")
        self.assertEqual((self.says(daemon), daemon.module("shop")["version"]), ("1.1.0", "1.1.0"))
        self.assertEqual(daemon.post("/api/v1/modules/shop/rollback").status, 200)
        self.assertEqual(self.says(daemon), "1.0.0")

    def test_a_crash_within_the_soak_time_brings_the_old_version_back(self):
        daemon = self.enabled()
        self.upgrade(daemon, "1.1.0", lifecycle={"soakTime": 60_000})
        daemon.post("/api/v1/m/shop/crash")
        wait_until(lambda: daemon.module("shop")["version"] == "1.0.0" and daemon.module("shop")["status"] == "ENABLED", "1.0.0 is back", GONE_WITHIN_S)
        self.assert_only(daemon, "1.0.0")
        last = daemon.module("shop")["lastUpgrade"]
        self.assertEqual((last["from"], last["to"], last["outcome"], last["reason"]["code"]), ("1.0.0", "1.1.0", "ROLLED_BACK", "SIGNAL"))
        self.assertEqual(self.says(daemon), "1.0.0")
        (entry,) = audit(daemon, action="modules.rollback")
        self.assertEqual((entry["outcome"], entry["actor"]["credential"]), ("OK", "system"))
        self.assertError(daemon.post("/api/v1/modules/shop/rollback"), 409, "NO_PREVIOUS_VERSION")

    def test_a_crash_after_the_soak_time_is_a_crash(self):
        daemon = self.enabled()
        self.upgrade(daemon, "1.1.0", lifecycle={"soakTime": 0})
        daemon.post("/api/v1/m/shop/crash")
        wait_until(lambda: daemon.module("shop")["exits"] and daemon.module("shop")["observed"]["state"] == "RUNNING", "it runs again")
        self.assertEqual(daemon.module("shop")["version"], "1.1.0")

    def test_a_rollback_goes_back_once_and_what_was_left_is_taken_again_by_its_version(self):
        daemon = self.enabled()
        self.assertError(daemon.post("/api/v1/modules/shop/rollback"), 409, "NO_PREVIOUS_VERSION")
        self.upgrade(daemon, "1.1.0")
        with Load(daemon, "/api/v1/m/shop/config/greeting") as load:
            module = daemon.post("/api/v1/modules/shop/rollback").data
            last = module["lastUpgrade"]
            self.assertEqual((module["version"], last["outcome"], last["reason"]["code"]), ("1.0.0", "ROLLED_BACK", "REQUESTED"))
            self.assertEqual(self.says(daemon), "1.0.0")
            self.assertError(daemon.post("/api/v1/modules/shop/rollback"), 409, "NO_PREVIOUS_VERSION")
            shutil.rmtree(self.elsewhere / "shop-1.1.0")  # its copy is still there
            self.assertEqual(daemon.post("/api/v1/modules/shop/upgrade", {"version": "1.1.0"}).data["version"], "1.1.0")
        self.assertEqual(load.failures, [])

    def test_what_is_on_offer_is_taken_without_a_name(self):
        daemon = self.enabled()
        self.assertError(daemon.post("/api/v1/modules/shop/upgrade"), 404, "VERSION_NOT_FOUND")
        shutil.copytree(self.version("1.3.0"), self.modules / "shop-next")
        self.assertEqual(daemon.post("/api/v1/modules/rescan").status, 200)
        self.assertEqual(daemon.module("shop")["offer"]["version"], "1.3.0")
        module = daemon.post("/api/v1/modules/shop/upgrade").data
        self.assertEqual((module["version"], module["offer"]), ("1.3.0", None))
        self.assertEqual(daemon.post("/api/v1/modules/shop/upgrade", {"version": "1.0.0"}).data["version"], "1.0.0", "of the modules directory")

    def test_it_is_refused_with_its_reason_and_nothing_is_done(self):
        daemon = self.enabled()
        echo_like(self.modules, "cart", dependencies={"modules": {"shop": "^1.0.0"}})
        daemon.post("/api/v1/modules/rescan")
        self.assertEqual(daemon.post("/api/v1/modules/cart/enable").status, 200)
        before = daemon.module("shop")

        def refused(body, status, code, pattern):
            answer = daemon.post("/api/v1/modules/shop/upgrade", body)
            self.assertError(answer, status, code)
            self.assertRegex(str(answer.error), pattern)

        refused({"path": str(self.version("2.0.0"))}, 409, "HAS_DEPENDENTS", r"cart 1\.0\.0 needs shop \^1\.0\.0")
        refused({"path": str(self.version("1.1.0", dependencies={"modules": {"nobody": "*"}}))}, 409, "DEPENDENCY_UNSATISFIED", "nobody")
        refused({"path": str(self.version("1.2.0", dependencies={"modules": {"cart": "*"}}))}, 409, "DEPENDENCY_UNSATISFIED", "cycle: shop -> cart -> shop")
        refused({"path": str(self.version("1.3.0", dependencies={"system": {"bulkhead": ">=99.0.0"}}))}, 409, "DEPENDENCY_UNSATISFIED", "99")
        refused({"path": str(self.version("1.4.0", config={"schema": {"site": {"type": "url", "required": True}}}))}, 400, "CONFIG_INVALID", "site")
        refused({"path": "relative"}, 400, "INVALID_ARGUMENT", "/path")
        refused({"path": "/nowhere/at/all"}, 400, "PACKAGE_INVALID", "not a folder")
        refused({"path": str(self.modules / "cart")}, 400, "PACKAGE_INVALID", "holds the module cart")
        refused({"path": str(self.version("1.5.0")), "version": "1.6.0"}, 400, "PACKAGE_INVALID", "holds shop 1.5.0, not 1.6.0")
        refused({"version": "7.7.7"}, 404, "VERSION_NOT_FOUND", "7.7.7")
        other = self.version("1.0.0", description="other contents")
        refused({"path": str(other)}, 409, "MANIFEST_CHANGED", "other contents")
        broken = self.version("1.7.0")
        (broken / "manifest.json").write_text('{"name": "shop", "version": "one"}')
        refused({"path": str(broken)}, 400, "MANIFEST_INVALID", "/version")
        after = daemon.module("shop")
        self.assertEqual({**after, "updatedAt": ""}, {**before, "updatedAt": ""})
        self.assertError(daemon.post("/api/v1/modules/shop/upgrade?wait=false", {"version": "7.7.7"}), 404, "VERSION_NOT_FOUND")
        same = daemon.post("/api/v1/modules/shop/upgrade", {"path": str(self.modules / "shop")})
        self.assertEqual((same.status, same.data["desired"]), (200, before["desired"]))

    def test_one_that_does_not_run_is_only_replaced(self):
        daemon = self.enabled()
        daemon.post("/api/v1/modules/shop/disable")
        module = self.upgrade(daemon, "1.1.0").data
        self.assertEqual((module["version"], module["status"], module["observed"]["state"]), ("1.1.0", "DISABLED", "STOPPED"))
        self.assertEqual(daemon.post("/api/v1/modules/shop/enable").data["workers"][0]["version"], "1.1.0")
        daemon.post("/api/v1/modules/shop/disable")
        self.assertEqual(daemon.post("/api/v1/modules/shop/rollback").data["version"], "1.0.0")
        self.assertEqual(daemon.post("/api/v1/modules/shop/enable").status, 200)
        self.assertEqual(self.says(daemon), "1.0.0")

    def test_one_that_is_only_registered_is_installed_in_the_other_version(self):
        daemon = self.daemon(modules_dir=self.modules)
        folder = self.version("1.0.0")
        self.assertEqual(daemon.post("/api/v1/modules", {"manifest": harness.json.loads((folder / "manifest.json").read_text())}).status, 201)
        module = self.upgrade(daemon, "1.1.0").data
        self.assertEqual((module["version"], module["status"]), ("1.1.0", "DISABLED"))
        self.assertError(daemon.post("/api/v1/modules/shop/rollback"), 409, "NO_PREVIOUS_VERSION")

    def test_a_supervisor_killed_on_the_way_starts_one_version_or_the_other_and_whole(self):
        daemon = self.enabled()
        folder = self.broken("1.1.0", "sleep 60", lifecycle={"soakTime": 0, "handshakeTimeout": 50_000})
        self.assertEqual(daemon.post("/api/v1/modules/shop/upgrade?wait=false", {"path": str(folder)}).status, 202)
        wait_until(lambda: any(worker["version"] == "1.1.0" and worker["pid"] for worker in daemon.module("shop")["workers"]), "the new one is on its way")
        self.assertEqual((daemon.module("shop")["status"], daemon.module("shop")["desired"]["state"]), ("UPDATING", "ENABLED"))
        daemon.kill()
        daemon.start()
        module = daemon.wait_observed("shop", "RUNNING")
        self.assertEqual((module["version"], module["status"]), ("1.0.0", "ENABLED"))
        self.assertEqual((module["lastUpgrade"]["outcome"], module["lastUpgrade"]["reason"]["code"]), ("FAILED", "INTERRUPTED"))
        self.upgrade(daemon, "1.2.0")
        daemon.kill()
        daemon.start()
        self.assertEqual(daemon.wait_observed("shop", "RUNNING")["version"], "1.2.0")

    def test_a_shutdown_ends_an_upgrade_that_hangs(self):
        daemon = self.enabled()
        folder = self.broken("1.1.0", "trap '' TERM; sleep 60", lifecycle={"soakTime": 0, "handshakeTimeout": 50_000})
        self.assertEqual(daemon.post("/api/v1/modules/shop/upgrade?wait=false", {"path": str(folder)}).status, 202)
        wait_until(lambda: any(worker["version"] == "1.1.0" and worker["pid"] for worker in daemon.module("shop")["workers"]), "the new one is on its way")
        self.assertEqual(daemon.stop()[0], 4, "it does not heed SIGTERM, so it had to be killed")
        daemon.assert_nothing_left()
        daemon.start()
        self.assertEqual(daemon.wait_observed("shop", "RUNNING")["version"], "1.0.0")


class Restart(Upgrading):
    def processes(self, daemon):
        return {worker["slot"]: worker["pid"] for worker in daemon.module("shop")["workers"]}

    def test_a_restart_replaces_every_process_and_loses_no_request(self):
        for workers in (1, 3):
            with self.subTest(workers=workers):
                self.setUp()
                daemon = self.enabled(workers=workers)
                before = self.processes(daemon)
                with Load(daemon, "/api/v1/m/shop/config/greeting") as load:
                    answer = daemon.post("/api/v1/modules/shop/restart", headers={"X-Request-Id": "req-restart"})
                    self.assertEqual(answer.status, 200, answer)
                self.assertEqual(load.failures, [])
                self.assert_only(daemon, "1.0.0")
                after = self.processes(daemon)
                self.assertEqual(set(before), set(after))
                self.assertEqual(set(before.values()) & set(after.values()), set())
                self.assertEqual([(entry["action"], entry["outcome"]) for entry in audit(daemon, requestId="req-restart")],
                                 [("modules.restart", "OK"), ("modules.restart", "ACCEPTED")])

    def test_a_reload_stops_each_process_before_its_next_one(self):
        daemon = self.enabled(workers=2)
        before = self.processes(daemon)
        with Load(daemon, "/api/v1/m/shop/config/greeting") as load:
            self.assertEqual(daemon.post("/api/v1/modules/shop/reload").status, 200)
        self.assertEqual(load.failures, [], "the other worker served")
        self.assertEqual(set(before.values()) & set(self.processes(daemon).values()), set())
        self.assertEqual(daemon.module("shop")["observed"]["state"], "RUNNING")

    def test_requests_wait_while_the_only_worker_is_reloaded(self):
        daemon = self.enabled()
        with Load(daemon, "/api/v1/m/shop/config/greeting") as load:
            self.assertEqual(daemon.post("/api/v1/modules/shop/reload").status, 200)
        self.assertEqual(load.failures, [])

    def test_a_worker_that_does_not_come_back_leaves_the_others(self):
        for action in ("restart", "reload"):
            with self.subTest(action=action):
                self.setUp()
                daemon = self.enabled(workers=3, restart={})
                before = self.processes(daemon)
                program = next((daemon.data / "versions" / "shop").glob("1.0.0-*/bin/shop"))
                program.unlink()  # it is busy
                program.touch(0o755)
                program.write_text("#!/bin/sh\nexit 3\n")
                self.assertError(daemon.post(f"/api/v1/modules/shop/{action}"), 502, "MODULE_START_FAILED")
                kept = set(before.values()) & {worker["pid"] for worker in daemon.module("shop")["workers"]}
                self.assertEqual(len(kept), 3 if action == "restart" else 2)
                self.assertEqual(self.says(daemon), "1.0.0")

    def test_they_are_refused_where_nothing_is_enabled(self):
        daemon = self.enabled()
        daemon.post("/api/v1/modules/shop/disable")
        for action in ("restart", "reload"):
            self.assertError(daemon.post(f"/api/v1/modules/shop/{action}"), 409, "INVALID_TRANSITION")
            self.assertError(daemon.post(f"/api/v1/modules/nobody/{action}"), 404, "MODULE_NOT_FOUND")

    def test_of_two_commands_at_once_the_second_waits(self):
        daemon = self.enabled(workers=2)
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(daemon.post("/api/v1/modules/shop/restart").status)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(answers, [200] * 3)
        self.assert_only(daemon, "1.0.0")


if __name__ == "__main__":
    unittest.main()
