"""One call of the admin API, made over REST or over gRPC from the same words, and what an error looks like in both. For errors_test.py.

REST is built from the routes that the protos name for each method, gRPC from Python that protoc makes of them; so a call that provokes an
error is written once.
"""

import json
import os
import re
import sys
import tempfile
import urllib.parse

import grpc

import harness
from grpc_test import generate

sys.path.insert(0, str(harness.SOURCE / "tests/interface"))

import golden  # noqa: E402

TIMEOUT_S = 130 * harness.SLOW
PACKAGE = "bulkhead.admin.v1."


class Refusal:
    """An error as a client has it. `status` is HTTP's number, or the name of gRPC's code."""

    def __init__(self, status, code, message, request_id, details, retry_after=None):
        self.status, self.code, self.message, self.request_id, self.details = status, code, message, request_id, details
        self.retry_after = retry_after

    def __repr__(self):
        return f"{self.status} {self.code}: {self.message}"

    @classmethod
    def of_answer(cls, answer):
        """Of an HTTP answer; None when it is none."""
        if answer.status < 400:
            return None
        error = answer.error
        return cls(answer.status, error["code"], error["message"], error["requestId"], [(d["path"], d["code"]) for d in error["details"]],
                   answer.header("Retry-After"))


def camel(name):
    return re.sub(r"_(\w)", lambda match: match.group(1).upper(), name)


class Rest:
    """Calls of the admin API as its routes have them; an instance is called with the method and its fields, and answers a Refusal or None."""

    name = "REST"

    def __init__(self, daemon):
        self.daemon = daemon
        self.routes = {name.removeprefix(PACKAGE): rpc["rest"][0].split(" ") for name, rpc in golden.protos()["rpcs"].items() if "rest" in rpc}

    def __call__(self, method, token=..., key=None, **fields):
        verb, template = self.routes[method]
        fields = {camel(name): value for name, value in fields.items()}
        path = re.sub(r"[:*](\w+)", lambda match: urllib.parse.quote(str(fields.pop(match.group(1)))), template)
        headers = {"Idempotency-Key": key} if key else {}
        if "ifGeneration" in fields:
            headers["If-Match"] = f'"{fields.pop("ifGeneration")}"'
        if verb in ("GET", "DELETE") and fields:
            path += "&" if "?" in path else "?"
            path += urllib.parse.urlencode({name: json.dumps(value) if isinstance(value, bool) else value for name, value in fields.items()})
            fields = {}
        return Refusal.of_answer(self.daemon.request(verb, path, fields or None, token=token, headers=headers, timeout=TIMEOUT_S))


class Grpc:
    """The same over gRPC."""

    name = "gRPC"

    def __init__(self, daemon):
        self.daemon = daemon
        self.generated = tempfile.TemporaryDirectory(prefix="bh-grpc-")
        generate(self.generated.name)
        # What the status details are made of, with its packages: Debian has no Python of google.rpc.
        from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
        files = descriptor_pb2.FileDescriptorSet()
        path = os.path.join(self.generated.name, "rpc.set")
        harness.subprocess.run(["protoc", f"-I{harness.SOURCE / 'proto'}", "--include_imports", "-o", path, "google/rpc/status.proto"], check=True)
        with open(path, "rb") as file:
            files.ParseFromString(file.read())
        pool = descriptor_pool.DescriptorPool()
        for file in files.file:
            pool.Add(file)
        factory = message_factory.MessageFactory(pool)
        self.rpc = {name: factory.GetPrototype(pool.FindMessageTypeByName(f"google.rpc.{name}")) for name in ("Status", "ErrorInfo", "BadRequest", "RetryInfo")}
        self.json_format = json_format
        self.channel = grpc.insecure_channel(daemon.admin_address)

    def close(self):
        self.channel.close()
        self.generated.cleanup()

    def __call__(self, method, token=..., key=None, **fields):
        service, name = method.split(".")
        stub, request = self._of(service, name)
        self.json_format.ParseDict({camel(field): value for field, value in fields.items()}, request)
        secret = self.daemon.token if token is ... else token
        metadata = [("authorization", f"Bearer {secret}")] if secret else []
        metadata += [("idempotency-key", key)] if key else []
        try:
            answer = getattr(stub, name)(request, metadata=metadata, timeout=TIMEOUT_S)
            if hasattr(answer, "cancel"):  # of a stream: its first message, or the refusal
                next(answer)
                answer.cancel()
        except grpc.RpcError as error:
            return self._refusal(error)
        return None

    def _of(self, service, name):
        """(stub of the service, empty request of the method)"""
        import importlib
        for file in (harness.SOURCE / "proto/bulkhead/admin/v1").glob("*.proto"):
            messages = importlib.import_module(f"bulkhead.admin.v1.{file.stem}_pb2")
            described = messages.DESCRIPTOR.services_by_name.get(service)
            if described:
                stubs = importlib.import_module(f"bulkhead.admin.v1.{file.stem}_pb2_grpc")
                request = getattr(messages, described.methods_by_name[name].input_type.name)()
                return getattr(stubs, f"{service}Stub")(self.channel), request
        raise AssertionError(f"no service {service}")

    def _refusal(self, error):
        status = self.rpc["Status"].FromString(dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b""))
        found = {}
        for detail in status.details:
            kind = detail.type_url.rsplit(".", 1)[1]
            if kind in self.rpc:
                found[kind] = self.rpc[kind].FromString(detail.value)
        info = found.get("ErrorInfo")
        if info is None or info.domain != "bulkhead":
            raise AssertionError(f"an error without ErrorInfo: {error.code()} {error.details()}")
        bad, retry = found.get("BadRequest"), found.get("RetryInfo")
        details = [(violation.field, violation.reason) for violation in bad.field_violations] if bad else []
        return Refusal(error.code().name, info.reason, error.details(), info.metadata.get("requestId"), details,
                       str(retry.retry_delay.seconds) if retry else None)
