"""The admin API over gRPC on adminListen, from its .proto files alone, and reflection."""

import pathlib
import subprocess
import sys
import tempfile

import grpc

import harness
from harness import SharedDaemonTest

MODULE = "consumption-monitor"
TIMEOUT_S = 30 * harness.SLOW

# The part of grpc/reflection/v1alpha/reflection.proto that listing services takes; Debian packs no Python for it.
REFLECTION = """
syntax = "proto3";
package grpc.reflection.v1alpha;
service ServerReflection { rpc ServerReflectionInfo(stream ServerReflectionRequest) returns (stream ServerReflectionResponse); }
message ServerReflectionRequest {
  string host = 1;
  oneof message_request { string file_containing_symbol = 4; string list_services = 7; }
}
message ServiceResponse { string name = 1; }
message ListServiceResponse { repeated ServiceResponse service = 1; }
message FileDescriptorResponse { repeated bytes file_descriptor_proto = 1; }
message ServerReflectionResponse {
  string valid_host = 1;
  oneof message_response { FileDescriptorResponse file_descriptor_response = 4; ListServiceResponse list_services_response = 6; }
}
"""


def generate(folder):
    """Python of the admin protocol and of reflection, made as any client would make it."""
    folder = pathlib.Path(folder)
    (folder / "reflection.proto").write_text(REFLECTION)
    protos = sorted(str(path.relative_to(harness.SOURCE / "proto")) for path in (harness.SOURCE / "proto/bulkhead/admin/v1").glob("*.proto"))
    plugin = "--plugin=protoc-gen-grpc_python=/usr/bin/grpc_python_plugin"
    for root, names in ((harness.SOURCE / "proto", protos), (folder, ["reflection.proto"])):
        subprocess.run(["protoc", f"-I{root}", f"--python_out={folder}", f"--grpc_python_out={folder}", plugin, *names], check=True)
    sys.path.insert(0, str(folder))


class Grpc(SharedDaemonTest):
    options = {"modules": [MODULE]}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.generated = tempfile.TemporaryDirectory(prefix="bh-grpc-")
        generate(cls.generated.name)
        from bulkhead.admin.v1 import jobs_pb2, jobs_pb2_grpc, modules_pb2, modules_pb2_grpc, types_pb2
        import reflection_pb2
        import reflection_pb2_grpc
        cls.modules_pb2, cls.jobs_pb2, cls.types_pb2, cls.reflection_pb2 = modules_pb2, jobs_pb2, types_pb2, reflection_pb2
        cls.channel = grpc.insecure_channel(cls.daemon.admin_address)
        cls.modules = modules_pb2_grpc.ModulesStub(cls.channel)
        cls.jobs = jobs_pb2_grpc.JobsStub(cls.channel)
        cls.reflection = reflection_pb2_grpc.ServerReflectionStub(cls.channel)

    @classmethod
    def tearDownClass(cls):
        cls.channel.close()
        cls.generated.cleanup()
        super().tearDownClass()

    def call(self, method, request, token=..., **metadata):
        secret = self.daemon.token if token is ... else token
        sent = [("authorization", f"Bearer {secret}")] if secret else []
        return method(request, metadata=sent + [(key.replace("_", "-"), value) for key, value in metadata.items()], timeout=TIMEOUT_S)

    def assert_status(self, code, method, request, **options):
        with self.assertRaises(grpc.RpcError) as caught:
            self.call(method, request, **options)
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        return caught.exception

    def test_it_lists_what_rest_lists(self):
        listed = self.call(self.modules.ListModules, self.modules_pb2.ListModulesRequest())
        rest = self.daemon.get("/api/v1/modules").data
        self.assertEqual([module.name for module in listed.modules], [module["name"] for module in rest])
        self.assertEqual(listed.meta.total, 1)
        module = listed.modules[0]
        self.assertEqual(module.status, self.types_pb2.RegistryState.ENABLED)
        self.assertEqual(module.observed.state, self.types_pb2.ObservedState.RUNNING)
        self.assertEqual(module.workers[0].pid, rest[0]["workers"][0]["pid"])

    def test_no_token_is_unauthenticated_and_a_small_one_denied(self):
        request = self.modules_pb2.ModuleActionRequest(name=MODULE)
        self.assert_status(grpc.StatusCode.UNAUTHENTICATED, self.modules.DisableModule, request, token=None)
        self.assert_status(grpc.StatusCode.UNAUTHENTICATED, self.modules.DisableModule, request, token="wrong")
        reader = self.daemon.make_token("grpc-reader", "modules:read")
        self.assert_status(grpc.StatusCode.PERMISSION_DENIED, self.modules.DisableModule, request, token=reader)
        self.assertEqual(self.call(self.modules.GetModule, self.modules_pb2.GetModuleRequest(name=MODULE), token=reader).module.name, MODULE)
        self.assertEqual(self.daemon.module(MODULE)["status"], "ENABLED")

    def test_what_only_the_supervisor_may_say_is_refused(self):
        request = self.modules_pb2.ListModulesRequest()
        for name in ("x_bulkhead_origin_bin", "x_bulkhead_subject"):
            value = b"{}" if name.endswith("_bin") else "root"
            self.assert_status(grpc.StatusCode.PERMISSION_DENIED, self.modules.ListModules, request, **{name: value})

    def test_an_error_has_its_stable_code_in_the_status_details(self):
        error = self.assert_status(grpc.StatusCode.NOT_FOUND, self.modules.GetModule, self.modules_pb2.GetModuleRequest(name="nobody"))
        self.assertIn("nobody", error.details())
        details = dict(error.trailing_metadata()).get("grpc-status-details-bin", b"")
        self.assertIn(b"MODULE_NOT_FOUND", details)

    def test_a_job_runs_through_it(self):
        answer = self.call(self.jobs.RunJob, self.jobs_pb2.RunJobRequest(module=MODULE, job="collect-readings", wait="30s"))
        self.assertEqual(answer.run.module, MODULE)
        self.assertTrue(answer.meta.converged)

    def test_reflection_tells_the_services_and_their_messages(self):
        requests = [self.reflection_pb2.ServerReflectionRequest(list_services=""),
                    self.reflection_pb2.ServerReflectionRequest(file_containing_symbol="bulkhead.admin.v1.Modules")]
        listed, described = list(self.reflection.ServerReflectionInfo(iter(requests), timeout=TIMEOUT_S))
        names = {service.name for service in listed.list_services_response.service}
        self.assertLessEqual({f"bulkhead.admin.v1.{name}" for name in ("Modules", "Jobs", "System", "Tokens")}, names)
        self.assertIn(b"ListModulesRequest", b"".join(described.file_descriptor_response.file_descriptor_proto))

    def test_the_health_service_answers(self):
        method = self.channel.unary_unary("/grpc.health.v1.Health/Check")
        self.assertEqual(method(b"", timeout=TIMEOUT_S), b"\x08\x01")  # status: SERVING


if __name__ == "__main__":
    harness.main()
