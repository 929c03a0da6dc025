"""The admin API over REST: who may, what the answers look like, and the life of a module through it."""

import time
import unittest

import harness
from harness import SharedDaemonTest, wait_until

MODULE = "consumption-monitor"


def manifest(name, **more):
    return {"manifestVersion": 1, "name": name, "version": "1.0.0", "displayName": name.title(), "description": "made by a test",
            "author": "tests", **more}


class WhoMay(SharedDaemonTest):
    options = {"modules": [MODULE]}

    def test_everything_but_the_probes_wants_a_token(self):
        for method, path in (("GET", "/api/v1/modules"), ("POST", "/api/v1/modules"), ("GET", f"/api/v1/modules/{MODULE}"),
                             ("POST", f"/api/v1/modules/{MODULE}/disable"), ("DELETE", f"/api/v1/modules/{MODULE}"),
                             ("GET", "/api/v1/system/modules"), ("GET", f"/api/v1/m/{MODULE}/readings"),
                             ("POST", f"/api/v1/modules/{MODULE}/jobs/collect-readings/run"), ("GET", "/api/v1/tokens")):
            with self.subTest(f"{method} {path}"):
                answer = self.daemon.request(method, path, token=None)
                self.assertError(answer, 401, "UNAUTHENTICATED")
                self.assertIn("Bearer", answer.header("WWW-Authenticate", ""))
        for path in ("/health", "/healthz", "/readyz"):
            with self.subTest(path):
                self.assertEqual(self.daemon.get(path, token=None).status, 200)
        self.assertEqual(self.daemon.module(MODULE)["status"], "ENABLED")

    def test_a_wrong_token_is_nobodys(self):
        real = self.daemon.token
        for token in ("x", real[:-1], real + "0", real.upper() + "x", "bhk_" + "0" * 40):
            with self.subTest(token=token[:8]):
                self.assertError(self.daemon.get("/api/v1/modules", token=token), 401, "UNAUTHENTICATED")
        for header in ("Basic YWRtaW46YWRtaW4=", "Bearer", "Bearer ", real):
            with self.subTest(header=header[:8]):
                answer = self.daemon.get("/api/v1/modules", token=None, headers={"Authorization": header})
                self.assertError(answer, 401, "UNAUTHENTICATED")

    def test_a_token_may_what_it_was_made_for_and_nothing_else(self):
        secret = self.daemon.make_token("reader", "modules:read")
        self.assertEqual(self.daemon.get("/api/v1/modules", token=secret).status, 200)
        for method, path in (("POST", "/api/v1/modules"), ("POST", f"/api/v1/modules/{MODULE}/disable"),
                             ("DELETE", f"/api/v1/modules/{MODULE}"), ("GET", "/api/v1/tokens"), ("GET", "/api/v1/system/modules")):
            with self.subTest(f"{method} {path}"):
                self.assertError(self.daemon.request(method, path, {} if method == "POST" else None, token=secret), 403, "FORBIDDEN")

    def test_the_permissions_of_a_modules_routes_are_enforced(self):
        reader = self.daemon.make_token("consumption-reader", "consumption:*")
        other = self.daemon.make_token("somebody-else", "modules:read")
        self.assertEqual(self.daemon.get(f"/api/v1/m/{MODULE}/readings", token=reader).status, 200)
        self.assertError(self.daemon.get(f"/api/v1/m/{MODULE}/readings", token=other), 403, "FORBIDDEN")

    def test_nobody_makes_a_token_that_may_more_than_himself(self):
        secret = self.daemon.make_token("token-maker", "tokens:write", "modules:read")
        body = {"name": "too-much", "permissions": ["modules:write"]}
        self.assertError(self.daemon.post("/api/v1/tokens", body, token=secret), 403, "FORBIDDEN")
        body = {"name": "just-right", "permissions": ["modules:read"]}
        self.assertEqual(self.daemon.post("/api/v1/tokens", body, token=secret).status, 201)

    def test_a_deleted_token_is_refused_at_once(self):
        secret = self.daemon.make_token("short-lived", "modules:read")
        self.assertEqual(self.daemon.get("/api/v1/modules", token=secret).status, 200)
        self.assertEqual(self.daemon.delete("/api/v1/tokens/short-lived").status, 200)
        self.assertError(self.daemon.get("/api/v1/modules", token=secret), 401, "UNAUTHENTICATED")
        self.assertError(self.daemon.delete("/api/v1/tokens/short-lived"), 404, "TOKEN_NOT_FOUND")

    def test_an_expired_token_is_refused(self):
        soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2))
        answer = self.daemon.post("/api/v1/tokens", {"name": "expiring", "permissions": ["modules:read"], "expiresAt": soon})
        self.assertEqual(answer.status, 201, answer)
        wait_until(lambda: self.daemon.get("/api/v1/modules", token=answer.data["secret"]).status == 401, "the token expired")

    def test_the_secret_of_a_token_is_shown_once(self):
        answer = self.daemon.post("/api/v1/tokens", {"name": "shown-once", "permissions": ["modules:read"]})
        self.assertEqual(answer.status, 201, answer)
        self.assertTrue(answer.data["secret"].startswith("bhk_"), answer)
        listed = self.daemon.get("/api/v1/tokens")
        self.assertIn("shown-once", [token["name"] for token in listed.data])
        self.assertNotIn(answer.data["secret"], listed.body.decode())
        self.assertError(self.daemon.post("/api/v1/tokens", {"name": "shown-once", "permissions": ["modules:read"]}), 409, "TOKEN_EXISTS")


class Requests(SharedDaemonTest):
    options = {}

    def test_an_unknown_path_is_404_and_a_wrong_method_405_with_allow(self):
        self.assertError(self.daemon.get("/api/v1/nothing"), 404, "ROUTE_NOT_FOUND")
        self.assertError(self.daemon.get("/"), 404, "ROUTE_NOT_FOUND")
        answer = self.daemon.request("PATCH", "/api/v1/modules", {})
        self.assertError(answer, 405, "METHOD_NOT_ALLOWED")
        self.assertEqual(allowed(answer) - {"HEAD", "OPTIONS"}, {"GET", "POST"})
        answer = self.daemon.request("POST", "/healthz", {})
        self.assertError(answer, 405, "METHOD_NOT_ALLOWED")
        self.assertIn("GET", allowed(answer))

    def test_a_module_nobody_registered_is_404_everywhere(self):
        for method, path in (("GET", ""), ("POST", "/install"), ("POST", "/enable"), ("POST", "/disable"), ("DELETE", ""), ("GET", "/jobs")):
            with self.subTest(f"{method} {path}"):
                self.assertError(self.daemon.request(method, f"/api/v1/modules/nobody{path}"), 404, "MODULE_NOT_FOUND")
        self.assertError(self.daemon.get("/api/v1/m/nobody/x"), 404, "ROUTE_NOT_FOUND")

    def test_bad_input_is_400_never_422(self):
        def refused(answer, code="INVALID_ARGUMENT"):
            self.assertError(answer, 400, code)

        refused(self.daemon.post("/api/v1/modules", b'{"manifest": ', headers={"Content-Type": "application/json"}), "INVALID_JSON")
        refused(self.daemon.post("/api/v1/modules", b"\xff\xfe", headers={"Content-Type": "application/json"}), "INVALID_JSON")
        for query in ("pageSize=501", "page=-1", "page=x", "sort=shoe-size", "status=HAPPY", "observed=HAPPY", "pageSize=-5"):
            with self.subTest(query):
                refused(self.daemon.get(f"/api/v1/modules?{query}"))
        refused(self.daemon.post("/api/v1/tokens", {"name": "Not Kebab", "permissions": ["modules:read"]}))
        refused(self.daemon.post("/api/v1/tokens", {"name": "no-permissions", "permissions": []}))
        refused(self.daemon.post("/api/v1/tokens", {"name": "odd-permission", "permissions": ["modules read"]}))

    def test_a_body_beyond_the_limit_is_413(self):
        answer = self.daemon.post("/api/v1/modules", b'{"manifest": {"name": "' + b"x" * (1 << 20) + b'"}}',
                                  headers={"Content-Type": "application/json"})
        self.assertError(answer, 413, "BODY_TOO_LARGE")

    def test_the_request_id_is_answered_and_a_well_formed_one_kept(self):
        answer = self.daemon.get("/api/v1/modules/nobody", headers={"X-Request-Id": "order-4711"})
        self.assertEqual(answer.header("X-Request-Id"), "order-4711")
        self.assertEqual(answer.error["requestId"], "order-4711")
        other = self.daemon.get("/api/v1/modules/nobody")
        self.assertTrue(other.error["requestId"])
        self.assertEqual(other.header("X-Request-Id"), other.error["requestId"])

    def test_health_is_raw(self):
        answer = self.daemon.get("/health", token=None)
        self.assertEqual(set(answer.json), {"status", "timestamp", "uptime", "environment"}, answer)
        self.assertEqual(answer.json["status"], "ok")
        self.assertGreater(answer.json["uptime"], 0)
        self.assertRegex(answer.json["timestamp"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")


class Registry(SharedDaemonTest):
    options = {}

    def test_register_is_201_and_the_same_again_409(self):
        answer = self.daemon.post("/api/v1/modules", {"manifest": manifest("registered-twice")})
        self.assertEqual(answer.status, 201, answer)
        self.assertEqual(answer.data["status"], "REGISTERED")
        self.assertEqual(answer.data["desired"]["state"], "DISABLED")
        self.assertError(self.daemon.post("/api/v1/modules", {"manifest": manifest("registered-twice")}), 409, "MODULE_EXISTS")

    def test_an_invalid_manifest_is_refused_with_every_finding(self):
        bad = {"name": "Bad Name", "version": "one", "capabilities": {"api": {"routes": [{"method": "FETCH", "path": "no-slash"}]}}}
        answer = self.daemon.post("/api/v1/modules", {"manifest": bad})
        self.assertError(answer, 400, "MANIFEST_INVALID")
        paths = {detail["path"] for detail in answer.error["details"]}
        self.assertLessEqual({"/name", "/version", "/capabilities/api/routes/0/method", "/capabilities/api/routes/0/path"}, paths)
        self.assertError(self.daemon.get("/api/v1/modules/Bad%20Name"), 404, "MODULE_NOT_FOUND")

    def test_validate_answers_200_and_stores_nothing(self):
        good = self.daemon.post("/api/v1/modules/validate", {"manifest": manifest("only-checked", somethingNew=1)})
        self.assertEqual(good.status, 200, good)
        self.assertIs(good.data["valid"], True)
        self.assertEqual(good.data["errors"], [])
        self.assertIn("/somethingNew", [warning["path"] for warning in good.data["warnings"]])
        bad = self.daemon.post("/api/v1/modules/validate", {"manifest": manifest("only-checked", version="1.x")})
        self.assertEqual(bad.status, 200, bad)
        self.assertIs(bad.data["valid"], False)
        self.assertEqual(set(bad.data["errors"][0]), {"path", "line", "code", "message"})
        self.assertEqual(bad.data["errors"][0]["path"], "/version")
        self.assertError(self.daemon.get("/api/v1/modules/only-checked"), 404, "MODULE_NOT_FOUND")

    def test_lists_are_filtered_sorted_and_paged(self):
        for name in ("paged-a", "paged-b", "paged-c"):
            self.assertEqual(self.daemon.post("/api/v1/modules", {"manifest": manifest(name)}).status, 201)

        def names(query):
            answer = self.daemon.get(f"/api/v1/modules?search=PAGED&{query}")
            self.assertEqual(answer.status, 200, answer)
            return [module["name"] for module in answer.data], answer.json["meta"]

        self.assertEqual(names(""), (["paged-a", "paged-b", "paged-c"], {"total": 3, "page": 1, "pageSize": 50}))
        self.assertEqual(names("sort=-name"), (["paged-c", "paged-b", "paged-a"], {"total": 3, "page": 1, "pageSize": 50}))
        self.assertEqual(names("pageSize=2"), (["paged-a", "paged-b"], {"total": 3, "page": 1, "pageSize": 2}))
        self.assertEqual(names("pageSize=2&page=2"), (["paged-c"], {"total": 3, "page": 2, "pageSize": 2}))
        self.assertEqual(names("page=9"), ([], {"total": 3, "page": 9, "pageSize": 50}))
        self.assertEqual(names("status=ENABLED")[0], [])
        self.assertEqual(names("status=REGISTERED")[1]["total"], 3)

    def test_what_was_registered_without_a_folder_cannot_be_installed(self):
        self.daemon.post("/api/v1/modules", {"manifest": manifest("homeless")})
        self.assertError(self.daemon.post("/api/v1/modules/homeless/install"), 400, "PACKAGE_INVALID")
        self.assertError(self.daemon.post("/api/v1/modules/homeless/enable"), 400, "PACKAGE_INVALID")
        self.assertEqual(self.daemon.module("homeless")["desired"]["state"], "DISABLED")

    def test_delete_removes_what_is_not_enabled(self):
        self.daemon.post("/api/v1/modules", {"manifest": manifest("short-stay")})
        self.assertEqual(self.daemon.delete("/api/v1/modules/short-stay").status, 200)
        self.assertError(self.daemon.get("/api/v1/modules/short-stay"), 404, "MODULE_NOT_FOUND")
        self.assertEqual(self.daemon.post("/api/v1/modules", {"manifest": manifest("short-stay")}).status, 201)

    def test_delete_is_refused_while_another_depends_on_it(self):
        self.daemon.post("/api/v1/modules", {"manifest": manifest("needed")})
        self.daemon.post("/api/v1/modules", {"manifest": manifest("needing", dependencies={"modules": {"needed": "^1.0.0"}})})
        answer = self.daemon.delete("/api/v1/modules/needed")
        self.assertError(answer, 409, "HAS_DEPENDENTS")
        self.assertIn("needing", answer.error["message"])
        self.assertEqual(self.daemon.delete("/api/v1/modules/needing").status, 200)
        self.assertEqual(self.daemon.delete("/api/v1/modules/needed").status, 200)


class Lifecycle(SharedDaemonTest):
    options = {"modules": [MODULE]}

    def setUp(self):
        self.assertEqual(self.daemon.post(f"/api/v1/modules/{MODULE}/enable").status, 200)

    def test_install_enable_and_disable_do_nothing_where_it_is_so_already(self):
        before = self.daemon.module(MODULE)
        for action in ("install", "enable"):
            self.assertEqual(self.daemon.post(f"/api/v1/modules/{MODULE}/{action}").status, 200)
        after = self.daemon.module(MODULE)
        self.assertEqual(after["desired"], before["desired"])
        self.assertEqual(after["workers"][0]["pid"], before["workers"][0]["pid"])
        self.assertEqual(self.daemon.post(f"/api/v1/modules/{MODULE}/disable").status, 200)
        generation = self.daemon.module(MODULE)["desired"]["generation"]
        self.assertEqual(self.daemon.post(f"/api/v1/modules/{MODULE}/disable").status, 200)
        self.assertEqual(self.daemon.module(MODULE)["desired"]["generation"], generation)

    def test_disable_answers_when_process_and_routes_are_gone_and_enable_brings_them_back_with_the_data(self):
        run = self.daemon.post(f"/api/v1/modules/{MODULE}/jobs/collect-readings/run?wait=30s")
        self.assertEqual(run.data["status"], "SUCCEEDED", run)
        readings = self.daemon.get(f"/api/v1/m/{MODULE}/readings").json
        pid = self.daemon.module(MODULE)["workers"][0]["pid"]
        self.assertIn(pid, harness.process_table())
        answer = self.daemon.post(f"/api/v1/modules/{MODULE}/disable")
        gone = pid not in harness.process_table()
        self.assertEqual(answer.status, 200, answer)
        self.assertTrue(gone, "the process still ran when disable answered")
        for path in ("readings", "live", "summary", "monthly/x", "anything"):
            self.assertError(self.daemon.get(f"/api/v1/m/{MODULE}/{path}"), 404, "ROUTE_NOT_FOUND")
        self.assertEqual(answer.data["status"], "DISABLED")
        self.assertEqual(answer.data["observed"]["state"], "STOPPED")
        self.assertError(self.daemon.post(f"/api/v1/modules/{MODULE}/jobs/collect-readings/run"), 409, "MODULE_NOT_RUNNING")
        answer = self.daemon.post(f"/api/v1/modules/{MODULE}/enable")
        self.assertEqual(answer.status, 200, answer)
        self.assertEqual(answer.data["observed"]["state"], "RUNNING")
        back = self.daemon.get(f"/api/v1/m/{MODULE}/readings")
        self.assertEqual(back.status, 200)
        self.assertGreaterEqual(len(str(back.json)), len(str(readings)), "data of before the disable is missing")

    def test_status_can_be_put(self):
        answer = self.daemon.put(f"/api/v1/modules/{MODULE}/status", {"status": "DISABLED"})
        self.assertEqual((answer.status, answer.data["status"]), (200, "DISABLED"))
        for other in ("REGISTERED", "UPDATING", "enabled", "", 7):
            with self.subTest(other):
                self.assertEqual(self.daemon.put(f"/api/v1/modules/{MODULE}/status", {"status": other}).status, 400)
        answer = self.daemon.put(f"/api/v1/modules/{MODULE}/status", {"status": "ENABLED"})
        self.assertEqual((answer.status, answer.data["status"], answer.data["observed"]["state"]), (200, "ENABLED", "RUNNING"))

    def test_without_waiting_an_action_is_202_and_not_converged(self):
        self.assertEqual(self.daemon.post(f"/api/v1/modules/{MODULE}/disable").status, 200)
        answer = self.daemon.post(f"/api/v1/modules/{MODULE}/enable?wait=false")
        self.assertEqual(answer.status, 202, answer)
        self.assertIs(answer.json["meta"]["converged"], False)
        self.assertEqual(answer.data["desired"]["state"], "ENABLED")
        self.daemon.wait_observed(MODULE, "RUNNING")
        for wait in ("soon", "-1s", "601s", "5"):
            with self.subTest(wait):
                self.assertEqual(self.daemon.post(f"/api/v1/modules/{MODULE}/enable?wait={wait}").status, 400)

    def test_delete_is_refused_while_it_is_enabled(self):
        self.assertError(self.daemon.delete(f"/api/v1/modules/{MODULE}"), 409, "MODULE_ENABLED")
        self.assertEqual(self.daemon.get(f"/api/v1/m/{MODULE}/readings").status, 200)

    def test_a_stale_if_match_is_412(self):
        answer = self.daemon.post(f"/api/v1/modules/{MODULE}/disable", headers={"If-Match": '"999999"'})
        self.assertError(answer, 412, "PRECONDITION_FAILED")
        self.assertEqual(self.daemon.module(MODULE)["status"], "ENABLED")

    def test_what_is_in_force_of_its_isolation_is_told(self):
        items = self.daemon.module(MODULE)["isolation"]
        self.assertTrue(items)
        for item in items:
            self.assertEqual(set(item), {"name", "state", "why"})
            self.assertIn(item["state"], ("active", "unavailable", "off"))
            self.assertTrue(item["state"] == "active" or item["why"], item)
        if harness.IS_ROOT:
            self.assertEqual({item["name"]: item["state"] for item in items}.get("uid"), "active")

    def test_the_system_view_tells_the_health_of_each_module_raw(self):
        def checked():
            answer = self.daemon.get("/api/v1/system/modules")
            self.assertEqual(answer.status, 200, answer)
            return answer if answer.json["modules"].get(MODULE, {}).get("lastChecked") else None

        answer = wait_until(checked, "a first health check")
        self.assertEqual(set(answer.json), {"status", "modules", "checkedAt", "details"})
        self.assertIn(answer.json["modules"][MODULE]["status"], ("healthy", "degraded", "unhealthy"))

    def test_delete_keeps_the_data_and_purge_drops_it(self):
        self.daemon.post(f"/api/v1/modules/{MODULE}/jobs/collect-readings/run?wait=30s")
        path = self.daemon.module(MODULE)["path"]
        manifest_json = self.daemon.module(MODULE)["manifest"]

        def leave_and_return(query):
            self.assertEqual(self.daemon.post(f"/api/v1/modules/{MODULE}/disable").status, 200)
            answer = self.daemon.delete(f"/api/v1/modules/{MODULE}{query}")
            self.assertEqual(answer.status, 200, answer)
            self.assertError(self.daemon.get(f"/api/v1/m/{MODULE}/readings"), 404, "ROUTE_NOT_FOUND")
            answer = self.daemon.post("/api/v1/modules", {"manifest": manifest_json, "path": path})
            self.assertEqual(answer.status, 201, answer)
            self.assertEqual(self.daemon.post(f"/api/v1/modules/{MODULE}/enable").status, 200)
            return self.daemon.get(f"/api/v1/m/{MODULE}/readings?to=2000-01-01T00:00:00Z"), self.daemon.get(f"/api/v1/m/{MODULE}/readings")

        kept = leave_and_return("")[1]
        self.assertIn("endpointId", kept.body.decode())
        purged = leave_and_return("?purge=true")[1]
        self.assertNotIn("endpointId", purged.body.decode())


def allowed(answer):
    return {method.strip() for method in answer.header("Allow", "").split(",") if method.strip()}


if __name__ == "__main__":
    harness.main()
