"""Wrong input to every call of the admin API, over REST and over gRPC. The calls and their fields come from the protocol itself, so that none
can be forgotten: each text holds NUL, what is no UTF-8, SQL, 300 characters and 1 MiB, each number is out of range, each body too large, too
deep, of wrong types, with fields that nobody knows. Expected: an error of the table with its code, never 500; nothing has changed; the
supervisor lives."""

import importlib
import json
import re
import tempfile
import urllib.parse

import grpc

import harness
from grpc_test import generate
from harness import SharedDaemonTest, wait_until

PACKAGE = "bulkhead.admin.v1"
CODES = json.loads((harness.SOURCE / "tests/interface/errors.json").read_text())
TIMEOUT_S = 30 * harness.SLOW
MARK = "zqmarkqz"  # what is replaced in a request's bytes

SQL = "x'; DROP TABLE bulkhead_internal.modules; --"
LONG = "n" * 300
HUGE = "h" * (1 << 20)

# What the other fields of a request are while one of them is wrong: of things that are there, so that nothing else refuses it.
USUAL = {"name": "echo", "module": "echo", "job": "work", "wait": "false", "status": "DISABLED", "action": "enable", "format": "json",
         "username": "nobody", "password": "a long enough sentence", "enabled": True, "config": {}, "manifest": {"name": "bait"}}
USUAL_OF = {"CreateToken": {"name": "bait", "permissions": ["a:b"]}, "CreateUser": {"name": "bait"}, "UpdateUser": {"name": "bait"},
            "CreateRole": {"name": "bait"}, "UpdateRole": {"name": "bait"}, "SetFlag": {"name": "bait"}, "ListModules": {"status": ""},
            "ListRuns": {"status": ""}, "ValidateManifest": {"manifest": {"name": "bait"}}}
# Fields of writing calls that take any text without NUL, and so change what the test calls bait, or nothing.
FREE = {"SetFlag": {"identities", "description"}, "CreateRole": {"description"}, "UpdateRole": {"description"}, "CreateToken": {"subject"},
        "CreateUser": {"password"}, "UpdateUser": {"password"}, "RunJob": {"payload"}, "LogOut": {"refresh_token"}}


def snake(name):
    return re.sub(r"[A-Z]", lambda match: "_" + match.group().lower(), name)


class Field:
    """One place in a request's message: the way to it, and whether it is a text or a number."""

    def __init__(self, path, kind, bits=0):
        self.path, self.kind, self.bits = path, kind, bits

    def __str__(self):
        return "/".join(self.path)


def fields_of(message):
    """Every text and number that a message of this type can hold. A Struct has a key and a value."""
    for field in message.fields:
        if field.type == field.TYPE_MESSAGE:
            kind = field.message_type.full_name
            if kind == "google.protobuf.Struct":
                yield Field([field.name, MARK], "key")
                yield Field([field.name, "k"], "text")
            elif kind == "google.protobuf.Value":
                yield Field([field.name], "text")
            elif kind != "google.protobuf.Timestamp":
                for inner in fields_of(field.message_type):
                    yield Field([field.name, *inner.path], inner.kind, inner.bits)
        elif field.type == field.TYPE_STRING:
            yield Field([field.name], "texts" if field.label == field.LABEL_REPEATED else "text")
        elif field.type in (field.TYPE_INT32, field.TYPE_INT64):
            yield Field([field.name], "number", 32 if field.type == field.TYPE_INT32 else 64)


class Method:
    def __init__(self, service, descriptor, options_pb2):
        self.service, self.descriptor, self.name = service.name, descriptor, descriptor.name
        self.path = f"/{service.full_name}/{descriptor.name}"
        options = descriptor.GetOptions()
        self.routes = [(rest.method, rest.path, rest.body) for rest in options.Extensions[options_pb2.rest]]
        self.writes = bool(options.Extensions[options_pb2.action])
        self.fields = list(fields_of(descriptor.input_type))

    def usual(self):
        """The other fields, by their names in the protocol."""
        known = {field.name for field in self.descriptor.input_type.fields}
        return {name: value for name, value in {**USUAL, **USUAL_OF.get(self.name, {})}.items() if name in known}

    def document(self, field, value):
        """A request whose `field` is `value`, as JSON by the names of the protocol."""
        document = json.loads(json.dumps(self.usual()))
        if self.name == "ValidateManifest" and field.path[0] == "text":
            document.pop("manifest")
        at = document
        for name in field.path[:-1]:
            at = at.setdefault(name, {})
        if field.kind == "key":
            at[value] = "v"
        else:
            at[field.path[-1]] = [value] if field.kind == "texts" else value
        return document

    def free(self, field):
        return not self.writes or field.path[0] in FREE.get(self.name, ())


def camel(name):
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)


class ApiInput(SharedDaemonTest):
    options = {"modules": ["echo"], "modules_dir": harness.FAKES}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.generated = tempfile.TemporaryDirectory(prefix="bh-input-")
        generate(cls.generated.name)
        files = [path.stem for path in sorted((harness.SOURCE / "proto/bulkhead/admin/v1").glob("*.proto"))]
        modules = [importlib.import_module(f"{PACKAGE}.{name}_pb2") for name in files]
        options_pb2 = importlib.import_module(f"{PACKAGE}.options_pb2")
        cls.messages = importlib.import_module("google.protobuf.message_factory")
        cls.json_format = importlib.import_module("google.protobuf.json_format")
        cls.methods = [Method(service, method, options_pb2) for module in modules for service in module.DESCRIPTOR.services_by_name.values()
                       for method in service.methods]
        cls.channel = grpc.insecure_channel(cls.daemon.admin_address)
        for path, body in (("tokens", {"name": "kept", "permissions": ["a:b"]}), ("roles", {"name": "kept", "permissions": ["a:b"]}),
                           ("users", {"name": "kept", "password": "a long enough sentence"})):
            assert cls.daemon.post(f"/api/v1/{path}", body).status == 201
        assert cls.daemon.put("/api/v1/flags/kept", {"enabled": True}).status == 200

    @classmethod
    def tearDownClass(cls):
        cls.channel.close()
        cls.generated.cleanup()
        super().tearDownClass()

    def setUp(self):
        self.before = self.state()

    def tearDown(self):
        self.assertEqual(self.state(), self.before)
        self.assertTrue(self.daemon.running())
        self.assertEqual(self.daemon.get("/healthz", token=None).status, 200)

    def state(self):
        """All that calls could have changed but bait."""
        daemon = self.daemon
        modules = [(m["name"], m["version"], m["status"], m["desired"], m["config"], m["configRevision"], [w["pid"] for w in m["workers"]])
                   for m in daemon.get("/api/v1/modules").data]
        rest = {}
        for kind, volatile in (("tokens", {"lastUsedAt"}), ("users", set()), ("roles", set()), ("flags", set())):
            rest[kind] = [{key: value for key, value in one.items() if key not in volatile} for one in daemon.get(f"/api/v1/{kind}").data
                          if one["name"] != "bait"]
        tables = daemon.sql("SELECT count(*) FROM information_schema.tables WHERE table_schema LIKE 'bulkhead%'")
        return modules, rest, tables, [m["name"] for m in daemon.get("/api/v1/modules").data]

    # -- asking

    def bytes_of(self, method, document):
        message = self.messages.MessageFactory().GetPrototype(method.descriptor.input_type)() if not hasattr(self.messages, "GetMessageClass") \
            else self.messages.GetMessageClass(method.descriptor.input_type)()
        return self.json_format.ParseDict(document, message).SerializeToString()

    def grpc(self, method, request):
        """The code of the error that the call with these bytes ends with; None for none."""
        metadata = [("authorization", f"Bearer {self.daemon.token}")]
        try:
            if method.descriptor.server_streaming:
                stream = self.channel.unary_stream(method.path)(request, metadata=metadata, timeout=TIMEOUT_S)
                next(stream)  # the first message says that it is not refused
                stream.cancel()
            else:
                self.channel.unary_unary(method.path)(request, metadata=metadata, timeout=TIMEOUT_S)
            return None
        except grpc.RpcError as error:
            details = dict(error.trailing_metadata()).get("grpc-status-details-bin", b"")
            self.details = details
            self.assertNotIn(error.code(), (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED), error.details())
            codes = [code for code in re.findall(r"[A-Z][A-Z_]+", details.decode("latin-1")) if code in CODES]
            self.assertTrue(codes, f"{error.code()} {error.details()}")
            return codes[0]

    def rest_request(self, method, route, field, value):
        """(verb, target, body) of a REST request whose `field` is the text `value`, percent-encoded or in JSON; None where REST has no such field."""
        verb, path, body = route
        document = method.document(field, MARK)
        bound = [snake(name) for name in re.findall(r"[:*](\w+)", path)]
        for name in bound:
            path = re.sub(f"[:*]{camel(name)}(?=/|$)", lambda _found, text=urllib.parse.quote(str(document.pop(name, "echo")), safe=""): text, path)
        sent = None
        if body == "*":
            sent = {camel(name): inner for name, inner in document.items()}
        elif body:
            sent = document.pop(body, {})
        if body != "*":
            document = {name: inner for name, inner in document.items() if not isinstance(inner, dict) and name != "if_generation"}
            texts = {camel(name): str(inner).lower() if isinstance(inner, bool) else inner for name, inner in document.items()}
            query = urllib.parse.urlencode(texts, doseq=True)
            path += f"?{query}" if query else ""
        text = json.dumps(sent).encode() if sent is not None else None
        if MARK in path:
            return verb, path.replace(MARK, urllib.parse.quote(value, safe="")), text
        if text is None or MARK.encode() not in text:
            return None
        encoded = value if isinstance(value, bytes) else json.dumps(value)[1:-1].encode()
        return verb, path, text.replace(MARK.encode(), encoded)

    def rest(self, verb, target, body):
        """(status, code) of the answer; code None for a success."""
        answer = self.daemon.request(verb, target, body, headers={"Content-Type": "application/json"} if body is not None else None)
        self.assertLess(answer.status, 500, answer)
        if answer.status < 400:
            return answer.status, None
        code = answer.error["code"]
        self.assertEqual(CODES[code], answer.status, answer)
        self.assertTrue(answer.error["requestId"])
        return answer.status, code

    def each_text(self):
        for method in self.methods:
            for field in method.fields:
                if field.kind != "number":
                    yield method, field

    # -- the tests

    def test_every_service_and_every_route_is_looked_at(self):
        self.assertGreaterEqual(len(self.methods), 40)
        self.assertEqual([method.name for method in self.methods if not method.routes], [], "a call without a REST route")
        known = {name for method in self.methods for name in (method.name,)}
        self.assertLessEqual(set(FREE) | set(USUAL_OF), known, "a call that is gone")

    def test_nul_is_refused_in_every_text_of_every_call_with_its_field(self):
        for method, field in self.each_text():
            with self.subTest(call=method.name, field=str(field)):
                request = self.bytes_of(method, method.document(field, MARK))
                self.assertIn(MARK.encode(), request)
                self.assertEqual(self.grpc(method, request.replace(MARK.encode(), b"zq\0arkqz")), "INVALID_ARGUMENT")
                self.assertIn(("/" + camel(field.path[0])).encode(), self.details)
                for route in method.routes:
                    if asked := self.rest_request(method, route, field, "zq\0arkqz"):
                        self.assertEqual(self.rest(*asked)[0], 400, asked)

    def test_what_is_no_utf8_is_refused_in_every_text_of_every_call(self):
        for method, field in self.each_text():
            with self.subTest(call=method.name, field=str(field)):
                request = self.bytes_of(method, method.document(field, MARK))
                self.assertEqual(self.grpc(method, request.replace(MARK.encode(), b"zq\xff\xfekqz\xc0")), "INVALID_ARGUMENT")
                for route in method.routes:
                    if asked := self.rest_request(method, route, field, b"zq\xff\xfekqz\xc0"):
                        self.assertEqual(self.rest(*asked)[0], 400, asked)

    def strange(self, value, over_rest=True):
        for method, field in self.each_text():
            with self.subTest(call=method.name, field=str(field), size=len(value)):
                code = self.grpc(method, self.bytes_of(method, method.document(field, value)))
                if not method.free(field):
                    self.assertIsNotNone(code, "it was taken over gRPC")
                    self.assertLess(CODES[code], 500)
                for route in method.routes if over_rest else ():
                    if asked := self.rest_request(method, route, field, value):
                        status, code = self.rest(*asked)
                        if not method.free(field):
                            self.assertGreaterEqual(status, 400, "it was taken over REST")

    def test_sql_is_a_text_like_any_other(self):
        self.strange(SQL)

    def test_a_name_of_300_characters_is_refused(self):
        self.strange(LONG)

    def test_a_text_of_a_mebibyte_is_refused(self):
        self.strange(HUGE)
        self.daemon.get("/api/v1/modules", headers={"X-Request-Id": "req-behind"})
        # Also these refusals are in the audit, cut.
        wait_until(lambda: self.daemon.sql("SELECT 1 FROM bulkhead_internal.audit WHERE target LIKE 'hhh%' LIMIT 1"), "a huge name is in the audit, cut")
        self.assertEqual(self.daemon.sql("SELECT max(length(target)) <= 512, max(length(message)) <= 2000 FROM bulkhead_internal.audit"), [["t", "t"]])

    def test_numbers_out_of_range_are_refused_or_ask_for_nothing(self):
        for method in self.methods:
            for field in method.fields:
                if field.kind != "number":
                    continue
                for value in (-1, -(1 << field.bits - 1), (1 << field.bits - 1) - 1):
                    with self.subTest(call=method.name, field=str(field), value=value):
                        code = self.grpc(method, self.bytes_of(method, method.document(field, value)))
                        if method.writes:
                            self.assertIsNotNone(code, "it was taken")
                            self.assertLess(CODES[code], 500)
                for route in method.routes:
                    for text in ("1" + "0" * 30, "-" + "9" * 25, "1.5", "1e400", "NaN", "seven", "0x10", " 1", ""):
                        asked = self.rest_request(method, route, Field(field.path, "text"), text)
                        if not asked or (text == " 1" and asked[2] is not None):
                            continue  # JSON has spaces around its numbers
                        verb, target, body = asked
                        if body is not None:
                            body = body.replace(f'"{text}"'.encode(), text.encode() or b'""')  # a number, as far as it is one
                        with self.subTest(call=method.name, field=str(field), text=text):
                            self.assertEqual(self.rest(verb, target, body)[0], 400, (target, body))

    def bodies(self):
        for method in self.methods:
            for verb, path, body in method.routes:
                if body:
                    yield method, verb, re.sub(r"[:*](\w+)", lambda match: USUAL.get(snake(match.group(1)), "echo"), path), body

    def test_a_body_that_is_too_large_too_deep_or_of_a_wrong_kind_is_refused(self):
        looked_at = 0
        deep = b"[" * 10_000 + b"]" * 10_000
        for method, verb, path, _body in self.bodies():
            looked_at += 1
            with self.subTest(call=method.name):
                self.assertEqual(self.rest(verb, path, b'{"a":"' + b"x" * (1 << 20) + b'"}')[1], "BODY_TOO_LARGE")
                for text in (deep, b'{"a":' * 10_000 + b"1" + b"}" * 10_000, b"[]", b"7", b'"text"', b"true", b"{", b'{"a":1}x', b"\xff", b'{"a":"\\ud800"}',
                             b"{'a':1}", b'{"nobodyKnowsThis": 1}'):
                    status, code = self.rest(verb, path, text)
                    if code == "BODY_TOO_LARGE" and method.service == "Auth":
                        continue  # nobody may send so much before he has logged in
                    self.assertEqual((status, code in ("INVALID_ARGUMENT", "INVALID_JSON", "CONFIG_INVALID")), (400, True), (text[:40], code))
        self.assertGreaterEqual(looked_at, 15)

    def test_fields_of_a_wrong_type_are_refused(self):
        wrong = {"string": (7, True, {}, []), "number": ("7", True, {}, [], 1.5), "bool": (1, "true", {}, []), "message": (7, "x", True)}
        for method, verb, path, body in self.bodies():
            bound = {snake(name) for route in method.routes for name in re.findall(r"[:*](\w+)", route[1])}
            for field in method.descriptor.input_type.fields:
                if field.name in bound or field.name == "if_generation" or (body != "*" and body != field.name):
                    continue
                if field.message_type and field.message_type.full_name == "google.protobuf.Value":
                    continue  # takes any JSON
                kind = {field.TYPE_STRING: "string", field.TYPE_BOOL: "bool", field.TYPE_MESSAGE: "message"}.get(field.type, "number")
                for value in wrong[kind]:
                    if field.label == field.LABEL_REPEATED and value == []:
                        continue
                    document = {camel(name): inner for name, inner in method.usual().items() if name not in bound}
                    document[camel(field.name)] = value
                    with self.subTest(call=method.name, field=field.name, value=value):
                        status, code = self.rest(verb, path, json.dumps(document if body == "*" else value).encode())
                        self.assertEqual(status, 400)
                        self.assertIn(code, ("INVALID_ARGUMENT", "CONFIG_INVALID", "MANIFEST_INVALID"))

    def test_a_parameter_that_nobody_knows_is_refused_everywhere(self):
        for method in self.methods:
            for verb, path, _body in method.routes:
                path = re.sub(r"[:*](\w+)", lambda match: USUAL.get(snake(match.group(1)), "echo"), path)
                with self.subTest(call=method.name):
                    self.assertEqual(self.rest(verb, f"{path}?nobodyKnowsThis=1", None), (400, "INVALID_ARGUMENT"))
                    self.assertEqual(self.rest(verb, f"{path}?%ff=1", None)[0], 400)

    def test_bytes_that_are_no_message_are_refused_by_every_call(self):
        for method in self.methods:
            for request in (b"\x0a\x7f", b"\x07", b"\xff" * 64):
                with self.subTest(call=method.name, request=request[:4]):
                    self.assertEqual(self.grpc(method, request), "INVALID_ARGUMENT")


if __name__ == "__main__":
    harness.main()
