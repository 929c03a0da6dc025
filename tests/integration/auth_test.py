"""Logins, JSON Web Tokens, roles and their limits, through the real daemon over REST and gRPC."""

import base64
import hashlib
import hmac
import http.server
import json
import socket
import subprocess
import tempfile
import threading
import time

import grpc

import harness
from grpc_test import generate
from harness import DaemonTest, SharedDaemonTest, wait_until

MODULE = "consumption-monitor"
TIMEOUT_S = 30 * harness.SLOW
PASSWORD = "a long enough sentence"


def b64(data):
    if not isinstance(data, bytes):
        data = json.dumps(data).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def sign_hs256(claims, secret, **header):
    signed = f"{b64({'alg': 'HS256', 'typ': 'JWT', **header})}.{b64(claims)}"
    return f"{signed}.{b64(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"


class Key:
    """A key pair made by openssl, its JWK, and tokens signed with it."""

    def __init__(self, folder, kid, algorithm):
        self.kid, self.algorithm = kid, algorithm
        self.private, self.public = folder / f"{kid}.pem", folder / f"{kid}.pub"
        options = {"RS256": ["RSA", "-pkeyopt", "rsa_keygen_bits:2048"], "ES256": ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
                   "EdDSA": ["ED25519"]}[algorithm]
        subprocess.run(["openssl", "genpkey", "-algorithm", *options, "-out", self.private], check=True, capture_output=True)
        subprocess.run(["openssl", "pkey", "-in", self.private, "-pubout", "-out", self.public], check=True)
        self.folder = folder

    def jwk(self, **more):
        text = subprocess.run(["openssl", "pkey", "-in", self.private, "-noout", "-text_pub"], check=True, capture_output=True, text=True).stdout
        if self.algorithm == "RS256":
            modulus = subprocess.run(["openssl", "rsa", "-in", self.private, "-noout", "-modulus"], check=True, capture_output=True, text=True).stdout
            n = bytes.fromhex(modulus.strip().split("=")[1])
            key = {"kty": "RSA", "n": b64(n), "e": b64(b"\x01\x00\x01")}
        else:
            raw = bytes.fromhex("".join(line.strip() for line in text.splitlines() if line.startswith("    ")).replace(":", ""))
            key = ({"kty": "OKP", "crv": "Ed25519", "x": b64(raw)} if self.algorithm == "EdDSA"
                   else {"kty": "EC", "crv": "P-256", "x": b64(raw[1:33]), "y": b64(raw[33:65])})
        return {**key, "kid": self.kid, "use": "sig", "alg": self.algorithm, **more}

    def sign(self, claims, **header):
        signed = f"{b64({'alg': self.algorithm, 'kid': self.kid, **header})}.{b64(claims)}"
        message = self.folder / "message"
        message.write_text(signed)
        if self.algorithm == "EdDSA":
            command = ["openssl", "pkeyutl", "-sign", "-rawin", "-inkey", self.private, "-in", message]
        else:
            command = ["openssl", "dgst", "-sha256", "-sign", self.private, message]
        signature = subprocess.run(command, check=True, capture_output=True).stdout
        if self.algorithm == "ES256":
            signature = raw_signature(signature)
        return f"{signed}.{b64(signature)}"


def raw_signature(der):
    """R and S of a DER signature, 32 bytes each."""
    numbers, at = [], 2
    for _ in range(2):
        size = der[at + 1]
        numbers.append(der[at + 2:at + 2 + size].lstrip(b"\0").rjust(32, b"\0"))
        at += 2 + size
    return b"".join(numbers)


def claims(subject="jo", **more):
    return {"sub": subject, "exp": int(time.time()) + 600, **more}


class Accounts(SharedDaemonTest):
    options = {"modules": [MODULE]}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.generated = tempfile.TemporaryDirectory(prefix="bh-grpc-")
        generate(cls.generated.name)
        from bulkhead.admin.v1 import auth_pb2, auth_pb2_grpc, modules_pb2, modules_pb2_grpc
        cls.auth_pb2, cls.modules_pb2 = auth_pb2, modules_pb2
        cls.channel = grpc.insecure_channel(cls.daemon.admin_address)
        cls.auth, cls.users = auth_pb2_grpc.AuthStub(cls.channel), auth_pb2_grpc.UsersStub(cls.channel)
        cls.modules, cls.roles = modules_pb2_grpc.ModulesStub(cls.channel), auth_pb2_grpc.RolesStub(cls.channel)

    @classmethod
    def tearDownClass(cls):
        cls.channel.close()
        cls.generated.cleanup()
        super().tearDownClass()

    def make_user(self, name, *roles, password=PASSWORD, **more):
        answer = self.daemon.post("/api/v1/users", {"name": name, "password": password, "roles": list(roles), **more})
        self.assertEqual(answer.status, 201, answer)
        self.assertEqual(answer.header("Location"), f"/api/v1/users/{name}")
        return answer.data

    def log_in(self, name, password=PASSWORD):
        answer = self.daemon.post("/api/v1/auth/login", {"username": name, "password": password}, token=None)
        self.assertEqual(answer.status, 200, answer)
        return answer.data

    def metadata(self, token):
        return [("authorization", f"Bearer {token}")]

    def assert_rpc_error(self, code, reason, method, request, **options):
        with self.assertRaises(grpc.RpcError) as caught:
            method(request, timeout=TIMEOUT_S, **options)
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        self.assertIn(reason.encode(), dict(caught.exception.trailing_metadata())["grpc-status-details-bin"])
        return caught.exception

    def test_a_login_gives_a_token_that_works_over_rest_grpc_and_the_gateway(self):
        self.make_user("anna", "operator")
        login = self.log_in("anna")
        self.assertEqual((login["tokenType"], login["expiresIn"], login["refreshExpiresIn"]), ("Bearer", 900, 30 * 24 * 3600))
        access = login["accessToken"]
        me = self.daemon.get("/api/v1/auth/me", token=access)
        self.assertEqual((me.data["subject"], me.data["roles"], me.data["credential"]["kind"]), ("anna", ["operator"], "user"))
        self.assertEqual(me.data["credential"]["id"], json.loads(unb64(access.split(".")[1]))["jti"])
        self.assertEqual(self.daemon.get("/api/v1/modules", token=access).status, 200)
        self.assertEqual(self.daemon.get(f"/api/v1/m/{MODULE}/readings", token=access).status, 200)
        self.assertError(self.daemon.get("/api/v1/users", token=access), 403, "FORBIDDEN")
        over_grpc = self.auth.LogIn(self.auth_pb2.LogInRequest(username="anna", password=PASSWORD), timeout=TIMEOUT_S).login.access_token
        listed = self.modules.ListModules(self.modules_pb2.ListModulesRequest(), metadata=self.metadata(over_grpc), timeout=TIMEOUT_S)
        self.assertEqual(listed.meta.total, 1)
        self.assertEqual(self.auth.GetMe(self.auth_pb2.GetMeRequest(), metadata=self.metadata(over_grpc), timeout=TIMEOUT_S).me.subject, "anna")
        self.assert_rpc_error(grpc.StatusCode.PERMISSION_DENIED, "FORBIDDEN", self.users.ListUsers, self.auth_pb2.ListUsersRequest(),
                              metadata=self.metadata(over_grpc))
        listed = [user for user in self.daemon.get("/api/v1/users").data if user["name"] == "anna"]
        self.assertTrue(listed[0]["lastLoginAt"])

    def test_a_wrong_password_an_unknown_and_a_disabled_user_are_answered_alike(self):
        self.make_user("bert", "viewer")
        self.make_user("gone", "viewer", enabled=False)
        answers = [self.daemon.post("/api/v1/auth/login", {"username": name, "password": password}, token=None)
                   for name, password in (("bert", "not the right one"), ("nobody-here", PASSWORD), ("gone", PASSWORD), ("", ""), ("bert ", PASSWORD))]
        for answer in answers:
            self.assertError(answer, 401, "INVALID_CREDENTIALS")
        self.assertEqual(len({answer.error["message"] for answer in answers}), 1)
        # What is no text is told so, whoever there is.
        for name in ("bert\0", "nobody-here\0"):
            self.assertError(self.daemon.post("/api/v1/auth/login", {"username": name, "password": PASSWORD}, token=None), 400, "INVALID_ARGUMENT")
        self.assert_rpc_error(grpc.StatusCode.UNAUTHENTICATED, "INVALID_CREDENTIALS", self.auth.LogIn,
                              self.auth_pb2.LogInRequest(username="bert", password="not the right one"))

    def test_a_refresh_token_works_once_and_its_second_use_ends_the_session(self):
        self.make_user("cleo", "viewer")
        first = self.log_in("cleo")
        other = self.log_in("cleo")
        second = self.daemon.post("/api/v1/auth/refresh", {"refreshToken": first["refreshToken"]}, token=None)
        self.assertEqual(second.status, 200, second)
        self.assertNotEqual(second.data["refreshToken"], first["refreshToken"])
        self.assertEqual(self.daemon.get("/api/v1/modules", token=second.data["accessToken"]).status, 200)
        stolen = self.daemon.post("/api/v1/auth/refresh", {"refreshToken": first["refreshToken"]}, token=None)
        self.assertError(stolen, 401, "REFRESH_TOKEN_INVALID")
        self.assertError(self.daemon.post("/api/v1/auth/refresh", {"refreshToken": second.data["refreshToken"]}, token=None), 401, "REFRESH_TOKEN_INVALID")
        self.assertError(self.daemon.get("/api/v1/modules", token=second.data["accessToken"]), 401, "UNAUTHENTICATED")
        self.assertEqual(self.daemon.get("/api/v1/modules", token=other["accessToken"]).status, 200, "another session of the same user")
        self.assert_rpc_error(grpc.StatusCode.UNAUTHENTICATED, "REFRESH_TOKEN_INVALID", self.auth.RefreshLogin,
                              self.auth_pb2.RefreshLoginRequest(refresh_token="bhr_" + "0" * 64))

    def test_a_logout_ends_the_access_token_too(self):
        self.make_user("dora", "viewer")
        login = self.log_in("dora")
        self.assertEqual(self.daemon.get("/api/v1/modules", token=login["accessToken"]).status, 200)
        self.assertEqual(self.daemon.post("/api/v1/auth/logout", {"refreshToken": login["refreshToken"]}, token=None).status, 200)
        self.assertError(self.daemon.get("/api/v1/modules", token=login["accessToken"]), 401, "UNAUTHENTICATED")
        self.assertError(self.daemon.post("/api/v1/auth/refresh", {"refreshToken": login["refreshToken"]}, token=None), 401, "REFRESH_TOKEN_INVALID")
        self.assertEqual(self.daemon.post("/api/v1/auth/logout", {"refreshToken": "unknown"}, token=None).status, 200)

    def test_a_change_of_roles_password_or_enabling_holds_at_once(self):
        self.make_user("emil", "viewer")
        access = self.log_in("emil")["accessToken"]
        route = f"/api/v1/modules/{MODULE}/install"
        self.assertError(self.daemon.post(route, token=access), 403, "FORBIDDEN")
        self.assertEqual(self.daemon.put("/api/v1/users/emil", {"roles": ["operator"]}).status, 200)
        self.assertEqual(self.daemon.post(route, token=access).status, 200)
        self.assertEqual(self.daemon.put("/api/v1/users/emil", {"clearRoles": True}).data["roles"], [])
        self.assertError(self.daemon.get("/api/v1/modules", token=access), 403, "FORBIDDEN")
        self.assertEqual(self.daemon.put("/api/v1/users/emil", {"roles": ["viewer"], "enabled": False}).data["enabled"], False)
        self.assertError(self.daemon.get("/api/v1/modules", token=access), 401, "UNAUTHENTICATED")
        self.daemon.put("/api/v1/users/emil", {"enabled": True})
        self.assertError(self.daemon.get("/api/v1/modules", token=access), 401, "UNAUTHENTICATED")
        again = self.log_in("emil")
        changed = self.daemon.put("/api/v1/auth/password", {"currentPassword": PASSWORD, "newPassword": "another long sentence"}, token=again["accessToken"])
        self.assertEqual(changed.status, 200, changed)
        self.assertError(self.daemon.get("/api/v1/modules", token=again["accessToken"]), 401, "UNAUTHENTICATED")
        self.assertError(self.daemon.post("/api/v1/auth/refresh", {"refreshToken": again["refreshToken"]}, token=None), 401, "REFRESH_TOKEN_INVALID")
        access = self.log_in("emil", "another long sentence")["accessToken"]
        self.assertEqual(self.daemon.get(f"/api/v1/m/{MODULE}/live", token=access).status, 403)
        self.assertEqual(self.daemon.delete("/api/v1/users/emil").status, 200)
        self.assertError(self.daemon.get("/api/v1/modules", token=access), 401, "UNAUTHENTICATED")
        self.assertError(self.daemon.get("/api/v1/users/emil"), 404, "USER_NOT_FOUND")

    def test_passwords_and_names_are_checked_with_every_fault_named(self):
        for password in ("short", "x" * 257, "111111111111", "Password1234", "some-long-name"):
            answer = self.daemon.post("/api/v1/users", {"name": "some-long-name", "password": password})
            self.assertError(answer, 400, "INVALID_ARGUMENT")
            self.assertEqual([detail["path"] for detail in answer.error["details"]], ["/password"])
            self.assertNotIn(f'"{password}"', json.dumps(answer.json))
        answer = self.daemon.post("/api/v1/users", {"name": "Not This", "password": "x", "roles": ["nonesuch"]})
        self.assertEqual([detail["path"] for detail in answer.error["details"]], ["/name", "/password", "/roles/0"])
        self.assertError(self.daemon.post("/api/v1/users", {"name": "admin", "password": PASSWORD}), 400, "INVALID_ARGUMENT")
        self.make_user("fred")
        self.assertError(self.daemon.post("/api/v1/users", {"name": "fred", "password": PASSWORD}), 409, "USER_EXISTS")

    def test_nobody_gives_away_what_he_lacks(self):
        little = self.daemon.make_token("user-keeper", "users:read", "users:write", "roles:write", "tokens:write", "modules:read", "jobs:read", "events:read",
                                        "system:read", "flags:read", "migrations:read", "logs:read", "metrics:read")
        self.assertError(self.daemon.post("/api/v1/users", {"name": "greta", "password": PASSWORD, "roles": ["admin"]}, token=little), 403, "FORBIDDEN")
        self.assertEqual(self.daemon.post("/api/v1/users", {"name": "greta", "password": PASSWORD, "roles": ["viewer"]}, token=little).status, 201)
        self.assertError(self.daemon.put("/api/v1/users/greta", {"roles": ["operator"]}, token=little), 403, "FORBIDDEN")
        self.make_user("hugo", "admin")
        self.assertError(self.daemon.put("/api/v1/users/hugo", {"password": "taken over by somebody"}, token=little), 403, "FORBIDDEN")
        self.assertError(self.daemon.delete("/api/v1/users/hugo", token=little), 403, "FORBIDDEN")
        self.assertError(self.daemon.post("/api/v1/roles", {"name": "more", "permissions": ["modules:write"]}, token=little), 403, "FORBIDDEN")
        self.assertError(self.daemon.post("/api/v1/tokens", {"name": "more", "roles": ["operator"]}, token=little), 403, "FORBIDDEN")
        self.assertEqual(self.daemon.post("/api/v1/tokens", {"name": "the-same", "roles": ["viewer"]}, token=little).status, 201)

    def test_roles_are_kept_changed_and_not_deleted_while_somebody_holds_them(self):
        self.assertEqual([role["name"] for role in self.daemon.get("/api/v1/roles").data[:3]], ["admin", "operator", "viewer"])
        self.assertError(self.daemon.put("/api/v1/roles/viewer", {"permissions": ["*"]}), 409, "ROLE_BUILT_IN")
        self.assertError(self.daemon.delete("/api/v1/roles/admin"), 409, "ROLE_BUILT_IN")
        made = self.daemon.post("/api/v1/roles", {"name": "meter-reader", "permissions": [f"module:{MODULE}:read"]})
        self.assertEqual(made.status, 201, made)
        self.assertIs(made.data["builtIn"], False)
        self.assertError(self.daemon.post("/api/v1/roles", {"name": "meter-reader"}), 409, "ROLE_EXISTS")
        self.assertError(self.daemon.post("/api/v1/roles", {"name": "odd", "permissions": ["a b"]}), 400, "INVALID_ARGUMENT")
        self.make_user("ines", "meter-reader")
        token = self.daemon.post("/api/v1/tokens", {"name": "by-role", "roles": ["meter-reader"]}).data
        access = self.log_in("ines")["accessToken"]
        for secret in (access, token["secret"]):
            self.assertEqual(self.daemon.get(f"/api/v1/modules/{MODULE}", token=secret).status, 200)
            self.assertError(self.daemon.get("/api/v1/modules", token=secret), 403, "FORBIDDEN")
        self.assertError(self.daemon.get(f"/api/v1/modules/{MODULE}/jobs", token=access), 403, "FORBIDDEN")
        self.assertEqual(self.daemon.put("/api/v1/roles/meter-reader", {"permissions": [f"module:{MODULE}:*"]}).status, 200)
        for secret in (access, token["secret"]):
            self.assertEqual(self.daemon.get(f"/api/v1/modules/{MODULE}/jobs", token=secret).status, 200)
            self.assertEqual(self.daemon.get(f"/api/v1/m/{MODULE}/live", token=secret).status, 200)
            self.assertError(self.daemon.get("/api/v1/modules/other", token=secret), 403, "FORBIDDEN")
        answer = self.daemon.delete("/api/v1/roles/meter-reader")
        self.assertError(answer, 409, "ROLE_IN_USE")
        self.assertEqual({detail["message"] for detail in answer.error["details"]}, {"user ines holds it.", "token by-role holds it."})
        self.daemon.delete("/api/v1/users/ines")
        self.daemon.delete("/api/v1/tokens/by-role")
        self.assertEqual(self.daemon.delete("/api/v1/roles/meter-reader").status, 200)
        self.assertError(self.daemon.get("/api/v1/roles/meter-reader"), 404, "ROLE_NOT_FOUND")

    def test_a_token_for_one_module_is_enough_for_calls_about_it_over_both_apis(self):
        secret = self.daemon.make_token("one-module", f"module:{MODULE}:write", f"module:{MODULE}:jobs:run")
        self.assertEqual(self.daemon.post(f"/api/v1/modules/{MODULE}/install", token=secret).status, 200)
        self.assertError(self.daemon.post("/api/v1/modules/other/install", token=secret), 403, "FORBIDDEN")
        self.assertError(self.daemon.post("/api/v1/modules", {"manifest": {"name": MODULE}}, token=secret), 403, "FORBIDDEN")
        self.assertEqual(self.daemon.post(f"/api/v1/modules/{MODULE}/jobs/collect-readings/run", token=secret).status, 202)
        request = self.modules_pb2.ModuleActionRequest(name=MODULE)
        self.assertEqual(self.modules.InstallModule(request, metadata=self.metadata(secret), timeout=TIMEOUT_S).module.name, MODULE)
        self.assert_rpc_error(grpc.StatusCode.PERMISSION_DENIED, "FORBIDDEN", self.modules.InstallModule,
                              self.modules_pb2.ModuleActionRequest(name="other"), metadata=self.metadata(secret))

    def test_refusals_have_the_same_code_over_grpc(self):
        pb, admin = self.auth_pb2, {"metadata": self.metadata(self.daemon.token)}
        roles = self.roles
        self.make_user("olga")
        self.daemon.post("/api/v1/roles", {"name": "there", "permissions": ["a:b"]})
        self.daemon.post("/api/v1/tokens", {"name": "holder", "roles": ["there"]})
        status = grpc.StatusCode
        self.assert_rpc_error(status.NOT_FOUND, "USER_NOT_FOUND", self.users.GetUser, pb.GetUserRequest(name="nobody"), **admin)
        self.assert_rpc_error(status.ALREADY_EXISTS, "USER_EXISTS", self.users.CreateUser, pb.CreateUserRequest(name="olga", password=PASSWORD), **admin)
        self.assert_rpc_error(status.NOT_FOUND, "ROLE_NOT_FOUND", roles.DeleteRole, pb.DeleteRoleRequest(name="nonesuch"), **admin)
        self.assert_rpc_error(status.ALREADY_EXISTS, "ROLE_EXISTS", roles.CreateRole, pb.CreateRoleRequest(name="viewer"), **admin)
        self.assert_rpc_error(status.FAILED_PRECONDITION, "ROLE_BUILT_IN", roles.UpdateRole, pb.UpdateRoleRequest(name="viewer"), **admin)
        self.assert_rpc_error(status.FAILED_PRECONDITION, "ROLE_IN_USE", roles.DeleteRole, pb.DeleteRoleRequest(name="there"), **admin)
        for _ in range(5):
            self.assert_rpc_error(status.UNAUTHENTICATED, "INVALID_CREDENTIALS", self.auth.LogIn, pb.LogInRequest(username="olga", password="wrong"))
        error = self.assert_rpc_error(status.RESOURCE_EXHAUSTED, "TOO_MANY_ATTEMPTS", self.auth.LogIn, pb.LogInRequest(username="olga", password=PASSWORD))
        self.assertIn(b"google.rpc.RetryInfo", dict(error.trailing_metadata())["grpc-status-details-bin"])
        self.assert_rpc_error(status.UNAUTHENTICATED, "UNAUTHENTICATED", self.users.ListUsers, pb.ListUsersRequest(), metadata=self.metadata("ey.ey.ey"))

    def test_headers_beyond_ascii_are_refused_or_not_looked_at_and_end_nothing(self):
        process = self.daemon.process.pid
        for name in ("Idempotency-Key", "Authorization"):
            answer = self.daemon.post("/api/v1/auth/login", {"username": "nobody", "password": "wrong"}, token=None, headers={name: "\xff\x80"})
            self.assertIn(answer.status, (400, 401), name)
        self.assertError(self.daemon.post("/api/v1/modules/rescan", headers={"Idempotency-Key": "\xff"}), 400, "INVALID_ARGUMENT")
        self.assertEqual((self.daemon.get("/api/v1/auth/me").status, self.daemon.process.pid, self.daemon.process.poll()), (200, process, None))

    def test_a_login_needs_no_token_and_takes_a_small_body_only(self):
        self.assertError(self.daemon.post("/api/v1/auth/login", {"username": "x" * 20_000, "password": ""}, token=None), 413, "BODY_TOO_LARGE")
        self.assertError(self.daemon.post("/api/v1/auth/login", {"user": "x"}, token=None), 400, "INVALID_ARGUMENT")
        self.assertError(self.daemon.post("/api/v1/users", {"name": "x"}, token=None), 401, "UNAUTHENTICATED")
        self.assertError(self.daemon.get("/api/v1/auth/me", token=None), 401, "UNAUTHENTICATED")
        self.assertEqual(self.daemon.get("/api/v1/auth/me").data["credential"], {"kind": "admin-token", "id": ""})
        self.assertError(self.daemon.put("/api/v1/auth/password", {"currentPassword": "x", "newPassword": PASSWORD}), 403, "FORBIDDEN")

    def test_no_secret_stands_in_the_log_or_the_database(self):
        self.make_user("kurt", "viewer", password="the secret of kurt")
        login = self.log_in("kurt", "the secret of kurt")
        self.daemon.post("/api/v1/auth/login", {"username": "kurt", "password": "a wrong secret of kurt"}, token=None)
        self.daemon.get("/api/v1/modules", token=login["accessToken"])
        dump = "\n".join(str(self.daemon.sql(f"SELECT * FROM bulkhead_internal.{table}")) for table in ("users", "sessions", "refresh_tokens", "api_tokens"))
        for secret in ("the secret of kurt", "a wrong secret of kurt", login["refreshToken"], login["accessToken"].split(".")[2]):
            self.assertNotIn(secret, self.daemon.log())
            self.assertNotIn(secret, dump)
        self.assertIn("$argon2id$v=19$m=19456,t=2,p=1$", dump)


class Limits(DaemonTest):
    def test_tries_are_slowed_down_per_user_with_retry_after_and_a_right_password_waits_too(self):
        daemon = self.daemon()
        daemon.post("/api/v1/users", {"name": "lena", "password": PASSWORD, "roles": ["viewer"]})

        def attempt(password):
            return daemon.post("/api/v1/auth/login", {"username": "lena", "password": password}, token=None)

        for _ in range(5):
            self.assertError(attempt("wrong"), 401, "INVALID_CREDENTIALS")
        refused = attempt(PASSWORD)
        self.assertError(refused, 429, "TOO_MANY_ATTEMPTS")
        self.assertEqual(refused.header("Retry-After"), "1")
        wait_until(lambda: attempt(PASSWORD).status == 200, "a login after the wait")
        self.assertEqual(attempt(PASSWORD).status, 200, "a success forgets the failures")

    def test_bad_tokens_are_slowed_down_and_good_ones_never(self):
        daemon = self.daemon()
        token = daemon.token
        answers = [daemon.get("/api/v1/modules", token=f"wrong-{n}").status for n in range(110)]
        self.assertEqual(set(answers[:100]), {401})
        self.assertIn(429, answers[100:])
        late = daemon.get("/api/v1/modules", token="wrong")
        if late.status == 429:
            self.assertGreaterEqual(int(late.header("Retry-After")), 1)
        self.assertEqual(daemon.get("/api/v1/modules", token=token).status, 200)

    def test_the_last_use_of_a_token_survives_a_restart(self):
        daemon = self.daemon()
        secret = daemon.make_token("used", "modules:read")
        self.assertIsNone(daemon.get("/api/v1/tokens").data[0]["lastUsedAt"])
        daemon.get("/api/v1/modules", token=secret)
        before = daemon.get("/api/v1/tokens").data[0]
        self.assertTrue(before["lastUsedAt"])
        self.assertRegex(before["id"], r"^[0-9a-f-]{36}$")
        daemon.stop()
        daemon.start()
        after = daemon.get("/api/v1/tokens").data[0]
        self.assertEqual((after["id"], after["lastUsedAt"][:19]), (before["id"], before["lastUsedAt"][:19]))


class KeyServer:
    """A real HTTP server whose key set the test changes."""

    def __init__(self):
        self.document, self.status, self.requests = {"keys": []}, 200, 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.requests += 1
                body = json.dumps(outer.document).encode()
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/keys"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Tokens(DaemonTest):
    def config(self, folder, keys, **more):
        lines = ["auth:", "  jwt:", "    issuer: https://issuer.example", "    audience: [bulkhead, other]", "    rolesClaim: realm.roles"]
        lines += [f"    {name}: {value}" for name, value in more.items()]
        if keys:
            lines.append("    keys:")
            for key in keys:
                lines += [f"      - id: {key['id']}", *[f"        {name}: {value}" for name, value in key.items() if name != "id"]]
        return "\n".join(lines) + "\n"

    def said(self, subject="jo", **more):
        return claims(subject, **{"iss": "https://issuer.example", "aud": "bulkhead", **more})

    def test_tokens_of_all_algorithms_are_taken_and_attacks_are_not(self):
        folder = self.temporary_folder()
        secret = b"0123456789abcdef0123456789abcdef"
        (folder / "secret").write_bytes(secret + b"\n")
        keys = {name: Key(folder, name.lower(), name) for name in ("RS256", "ES256", "EdDSA")}
        listed = [{"id": "hs", "algorithm": "HS256", "secretFile": folder / "secret"}]
        listed += [{"id": key.kid, "algorithm": key.algorithm, "publicKeyFile": key.public} for key in keys.values()]
        daemon = self.daemon(modules=[MODULE], config=self.config(folder, listed))
        viewer = self.said(realm={"roles": ["viewer", "unknown"]}, permissions=["consumption:read"], jti="number-1")
        tokens = {name: key.sign(viewer) for name, key in keys.items()} | {"HS256": sign_hs256(viewer, secret, kid="hs")}
        for name, token in tokens.items():
            with self.subTest(name):
                self.assertEqual(daemon.get(f"/api/v1/m/{MODULE}/readings", token=token).status, 200, "the gateway, before anybody else has verified it")
                me = daemon.get("/api/v1/auth/me", token=token).data
                self.assertEqual((me["subject"], me["roles"], me["credential"]), ("jo", ["viewer", "unknown"], {"kind": "jwt", "id": "number-1"}))
                self.assertEqual(daemon.get("/api/v1/modules", token=token).status, 200)
                self.assertError(daemon.post(f"/api/v1/modules/{MODULE}/disable", token=token), 403, "FORBIDDEN")
        public = keys["RS256"].public.read_bytes()
        head, body, signature = tokens["ES256"].split(".")
        attacks = {
            "alg none": f"{b64({'alg': 'none', 'kid': 'hs'})}.{b64(viewer)}.",
            "the public key as an HMAC secret": sign_hs256(viewer, public, kid="rs256"),
            "an unknown key": sign_hs256(viewer, secret, kid="../../etc/passwd"),
            "another key's kid": keys["RS256"].sign(viewer, kid="es256"),
            "a wrong audience": keys["RS256"].sign({**viewer, "aud": "elsewhere"}),
            "a wrong issuer": keys["RS256"].sign({**viewer, "iss": "https://evil.example"}),
            "expired": keys["RS256"].sign({**viewer, "exp": int(time.time()) - 120}),
            "no exp": keys["RS256"].sign({key: value for key, value in viewer.items() if key != "exp"}),
            "not yet": keys["RS256"].sign({**viewer, "nbf": int(time.time()) + 600}),
            "crit": keys["RS256"].sign(viewer, crit=["exp"]),
            "padding": f"{head}=.{body}.{signature}",
            "truncated": tokens["RS256"][:-4],
            "the admin's name": keys["RS256"].sign({**viewer, "sub": "admin"}),
            "an own access token that is not ours": sign_hs256({**viewer, "iss": "bulkhead", "aud": "bulkhead"}, secret, kid="bulkhead"),
        }
        for name, token in attacks.items():
            with self.subTest(name):
                self.assertError(daemon.get(f"/api/v1/m/{MODULE}/readings", token=token), 401, "UNAUTHENTICATED")
                self.assertError(daemon.get("/api/v1/modules", token=token), 401, "UNAUTHENTICATED")
        # With a body it is the gateway that looks first.
        self.assertEqual(daemon.post("/api/v1/modules/validate", {"manifest": {"name": "x"}}, token=keys["EdDSA"].sign(viewer)).status, 200)
        self.assertError(daemon.post("/api/v1/modules/validate", {"manifest": {}}, token=attacks["crit"]), 401, "UNAUTHENTICATED")
        skewed = keys["RS256"].sign({**viewer, "exp": int(time.time()) - 30})
        self.assertEqual(daemon.get("/api/v1/modules", token=skewed).status, 200, "within the clock skew")

    def test_keys_behind_a_url_are_rotated_and_the_last_good_ones_are_kept(self):
        folder = self.temporary_folder()
        server = KeyServer()
        self.addCleanup(server.close)
        old, new = Key(folder, "old", "ES256"), Key(folder, "new", "RS256")
        server.document = {"keys": [old.jwk(), {"kty": "oct", "kid": "oct", "k": b64(b"0" * 32)}, new.jwk(kid="enc", use="enc")]}
        daemon = self.daemon(config=self.config(folder, [], jwksUrl=server.url, jwksRefresh="10s"))
        first = old.sign(self.said(permissions=["modules:read"]))
        self.assertEqual(daemon.get("/api/v1/modules", token=first).status, 200)
        self.assertError(daemon.get("/api/v1/modules", token=sign_hs256(self.said(), b"0" * 32, kid="oct")), 401, "UNAUTHENTICATED")
        server.document = {"keys": [new.jwk()]}
        second = new.sign(self.said(permissions=["modules:read"]))
        # Refused while the pause after the last fetch lasts, then fetched at once.
        wait_until(lambda: daemon.get("/api/v1/modules", token=second).status == 200, "the new key is known", 30 * harness.SLOW)
        # So many tries of an unknown key may have become too many bad tokens.
        self.assertIn(daemon.get("/api/v1/modules", token=first).status, (401, 429))
        server.status, server.document = 500, {"keys": []}
        before = server.requests
        wait_until(lambda: server.requests > before, "another fetch", 30 * harness.SLOW)
        self.assertEqual(daemon.get("/api/v1/modules", token=second).status, 200)

    def test_a_fetch_that_hangs_holds_nobody_else_up_and_a_client_that_leaves_is_forgotten(self):
        listener = socket.create_server(("127.0.0.1", 0))  # accepts, and says nothing
        self.addCleanup(listener.close)
        folder = self.temporary_folder()
        key = Key(folder, "far-away", "EdDSA")
        daemon = self.daemon(modules=[MODULE], config=self.config(folder, [], jwksUrl=f"http://127.0.0.1:{listener.getsockname()[1]}/"))
        token = key.sign(self.said())
        leaving = []
        for _ in range(20):
            connection = daemon.connect()
            connection.sendall(f"GET /api/v1/m/{MODULE}/readings HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
            leaving.append(connection)
        began = time.monotonic()
        self.assertEqual(daemon.get(f"/api/v1/m/{MODULE}/readings").status, 200)
        self.assertEqual(daemon.get("/api/v1/modules").status, 200)
        self.assertLess(time.monotonic() - began, 4 * harness.SLOW)
        for connection in leaving[:10]:
            connection.close()
        for connection in leaving[10:]:
            connection.settimeout(20 * harness.SLOW)
            self.assertTrue(connection.recv(4096).startswith(b"HTTP/1.1 401 "))
            connection.close()

    def test_a_wrong_configuration_is_told_with_its_line(self):
        folder = self.temporary_folder()
        path = folder / "b.yaml"
        (folder / "short").write_text("too short")
        cases = {
            "clockSkew: 301s": "clockSkew", "jwksUrl: http://issuer.example/keys": "https", "issure: x": 'Did you mean "issuer"?',
            "keys: [{id: a, algorithm: HS512, secretFile: short}]": "HS256, RS256, ES256 or EdDSA",
            "keys: [{id: a, algorithm: RS256, secretFile: short}]": "publicKeyFile",
            "keys: [{id: bulkhead, algorithm: HS256, secretFile: short}]": "belongs to the supervisor",
            "keys: [{id: a, algorithm: HS256, secretFile: short}]": "at least 32 bytes",
            "keys: [{id: a, algorithm: RS256, publicKeyFile: short}]": "no public key",
            "keys: [{id: a, algorithm: RS256, publicKeyFile: missing}]": "can't be read",
        }
        for line, told in cases.items():
            with self.subTest(line):
                path.write_text(f"auth:\n  jwt:\n    {line}\n")
                code, _out, err = harness.run_serve("serve", "--config", path, "--data", folder / "data", "--listen", "127.0.0.1:0",
                                                    "--admin-listen", "127.0.0.1:0", cwd=folder)
                self.assertGreater(code, 0)
                self.assertIn(told, err)


if __name__ == "__main__":
    harness.main()
