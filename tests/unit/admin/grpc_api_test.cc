// The admin services as a gRPC client sees them on adminListen.
#include "bulkhead/admin/v1/jobs.grpc.pb.h"
#include "bulkhead/admin/v1/modules.grpc.pb.h"
#include "bulkhead/admin/v1/system.grpc.pb.h"
#include "bulkhead/admin/v1/tokens.grpc.pb.h"
#include "gmock/gmock.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/grpcpp.h"
#include "supervisor/admin/guard.h"
#include "supervisor/admin/rpc_status.h"
#include "tests/unit/admin/admin_harness.h"

namespace bulkhead {
namespace {

using testing::HasSubstr;

class GrpcApi : public AdminTest {
 protected:
  std::shared_ptr<grpc::Channel> channel_ = grpc::CreateChannel(admin_->address(), grpc::InsecureChannelCredentials());
  std::unique_ptr<admin::v1::Modules::Stub> modules_stub_ = admin::v1::Modules::NewStub(channel_);

  grpc::Status List(const std::vector<std::pair<std::string, std::string>>& metadata,
                    admin::v1::ListModulesResponse* response = nullptr) {
    grpc::ClientContext context;
    for (const auto& [key, value] : metadata) context.AddMetadata(key, value);
    admin::v1::ListModulesResponse ignored;
    return modules_stub_->ListModules(&context, {}, response ? response : &ignored);
  }
  std::pair<std::string, std::string> Bearer() const { return {"authorization", "Bearer " + admin_token_}; }
  // A unary call with plain bytes, for services whose stubs we don't have.
  grpc::Status CallRaw(const std::string& method, const std::string& request, std::string* response, bool bidi = false);
};

grpc::Status GrpcApi::CallRaw(const std::string& method, const std::string& request, std::string* response, bool bidi) {
  grpc::GenericStub stub(channel_);
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  grpc::Slice slice(request);
  grpc::ByteBuffer sent(&slice, 1), received;
  grpc::Status status;
  void* tag = nullptr;
  bool ok = false;
  const auto next = [&] { return queue.Next(&tag, &ok); };
  auto call = stub.PrepareCall(&context, method, &queue);
  call->StartCall(nullptr);
  next();
  call->WriteLast(sent, grpc::WriteOptions(), nullptr);
  next();
  call->Read(&received, nullptr);
  next();
  call->Finish(&status, nullptr);
  next();
  grpc::Slice answer;
  if (received.Valid() && received.DumpToSingleSlice(&answer).ok())
    response->assign(reinterpret_cast<const char*>(answer.begin()), answer.size());
  queue.Shutdown();
  while (next()) {
  }
  return status;
}

TEST_F(GrpcApi, AnswersWhoHoldsTheToken) {
  Register("meter");
  admin::v1::ListModulesResponse response;
  ASSERT_TRUE(List({Bearer()}, &response).ok());
  ASSERT_EQ(response.modules_size(), 1);
  EXPECT_EQ(response.modules(0).name(), "meter");
  EXPECT_EQ(response.meta().total(), 1);
}

TEST_F(GrpcApi, ANameThatHoldsNulIsNotTheNameBeforeIt) {
  MakeToken("ci", {"modules:read"});
  auto tokens = admin::v1::Tokens::NewStub(channel_);
  grpc::ClientContext context;
  context.AddMetadata("authorization", "Bearer " + admin_token_);
  admin::v1::DeleteTokenRequest request;
  request.set_name(std::string("ci\0x", 4));
  admin::v1::DeleteTokenResponse response;
  const grpc::Status status = tokens->DeleteToken(&context, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  const absl::Status ours = FromGrpcStatus(status);
  ASSERT_EQ(ErrorDetails(ours).size(), 1u) << ours;
  EXPECT_EQ(ErrorDetails(ours)[0].path, "/name");
  EXPECT_EQ(Get("/api/v1/tokens").data().size(), 1u);
}

TEST_F(GrpcApi, WhatCannotBeDecodedIsWrongInputAndNotAnUnknownCall) {
  std::string ignored;
  for (const std::string& bytes : {std::string("\x0a\x02\xff\xfe"), std::string("\x0a\x7f"), std::string("\x07")}) {
    const grpc::Status status = CallRaw("/bulkhead.admin.v1.Tokens/DeleteToken", bytes, &ignored);
    EXPECT_EQ(ErrorCode(FromGrpcStatus(status)), "INVALID_ARGUMENT") << status.error_code() << status.error_message();
  }
  EXPECT_EQ(CallRaw("/bulkhead.admin.v1.Tokens/Nothing", "", &ignored).error_code(), grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(GrpcApi, RefusesNobodyAndThoseWhoMayNot) {
  EXPECT_EQ(List({}).error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(List({{"authorization", "Bearer wrong"}}).error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(List({Bearer(), {"authorization", "Bearer wrong"}}).error_code(), grpc::StatusCode::UNAUTHENTICATED);
  const std::string small = MakeToken("small", {"jobs:read"});
  EXPECT_EQ(List({{"authorization", "Bearer " + small}}).error_code(), grpc::StatusCode::PERMISSION_DENIED);
}

TEST_F(GrpcApi, RefusesMetadataThatOnlyTheSupervisorMaySend) {
  const std::string method = "bulkhead.admin.v1.Modules.ListModules";
  EXPECT_EQ(List({Bearer(), {"x-bulkhead-subject", "root"}}).error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(List({Bearer(), {"x-bulkhead-origin-bin", "{}"}}).error_code(), grpc::StatusCode::PERMISSION_DENIED);
  // Well-formed, signed with the secret of another boot.
  Guard other(authenticator_, records_);
  auto forged = other.SignOrigin("10.0.0.1:1", "r", method);
  forged.push_back(Bearer());
  EXPECT_EQ(List(forged).error_code(), grpc::StatusCode::PERMISSION_DENIED);
  forged[1].second.clear();
  EXPECT_EQ(List(forged).error_code(), grpc::StatusCode::PERMISSION_DENIED);
}

TEST_F(GrpcApi, AGenuineOriginIsForItsMethodAloneAndNeverInPlaceOfAToken) {
  Guard guard(authenticator_, records_);
  ASSERT_TRUE(guard.Add(*admin::v1::ListModulesRequest::descriptor()->file()->service(0)).ok());
  const std::string list = "bulkhead.admin.v1.Modules.ListModules", get = "bulkhead.admin.v1.Modules.GetModule";
  const auto check = [&](const std::vector<std::pair<std::string, std::string>>& metadata, const std::string& method) {
    Guard::Metadata map;
    for (const auto& [key, value] : metadata) map.emplace(grpc::string_ref(key), grpc::string_ref(value));
    Caller caller;
    const absl::Status checked = guard.Check(map, "inproc", method, "", caller).status;
    return checked.ok() ? absl::StatusOr<Caller>(caller) : checked;
  };
  auto origin = guard.SignOrigin("192.0.2.7:1", "request-9", list);
  EXPECT_EQ(ErrorCode(check(origin, list).status()), "UNAUTHENTICATED");
  origin.push_back(Bearer());
  const auto caller = check(origin, list);
  ASSERT_TRUE(caller.ok());
  EXPECT_EQ(caller->address, "192.0.2.7:1");
  EXPECT_EQ(caller->request_id, "request-9");
  EXPECT_TRUE(caller->in_process);
  EXPECT_EQ(ErrorCode(check(origin, get).status()), "FORBIDDEN");
  auto tampered = origin;
  tampered[0].second.replace(tampered[0].second.find("192.0.2.7"), 9, "127.0.0.1");
  EXPECT_EQ(ErrorCode(check(tampered, list).status()), "FORBIDDEN");
}

TEST_F(GrpcApi, ErrorsHaveTheirStableCodeInTheDetails) {
  grpc::ClientContext context;
  context.AddMetadata("authorization", "Bearer " + admin_token_);
  context.AddMetadata("x-request-id", "order-4711");
  admin::v1::GetModuleRequest request;
  request.set_name("nobody");
  admin::v1::ModuleResponse response;
  const grpc::Status status = modules_stub_->GetModule(&context, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  google::rpc::ErrorInfo info;
  ASSERT_TRUE(details.details(0).UnpackTo(&info));
  EXPECT_EQ(info.reason(), "MODULE_NOT_FOUND");
  EXPECT_EQ(info.metadata().at("requestId"), "order-4711");
}

TEST_F(GrpcApi, ARefusedWriteIsWrittenDownWithItsSenderAndAnsweredWithItsId) {
  const auto enable = [&](const std::string& authorization) {
    grpc::ClientContext context;
    context.AddMetadata("authorization", authorization);
    context.AddMetadata("x-request-id", "order-4711");
    admin::v1::ModuleActionRequest request;
    request.set_name("meter");
    admin::v1::ModuleActionResponse response;
    testing::internal::CaptureStderr();
    const grpc::Status status = modules_stub_->EnableModule(&context, request, &response);
    const std::string log = testing::internal::GetCapturedStderr();
    google::rpc::Status details;
    google::rpc::ErrorInfo info;
    EXPECT_TRUE(details.ParseFromString(status.error_details()) && details.details(0).UnpackTo(&info));
    EXPECT_EQ(info.metadata().at("requestId"), "order-4711");
    EXPECT_THAT(log, testing::AllOf(HasSubstr("modules.enable"), HasSubstr("order-4711"), HasSubstr("127.0.0.1:")));
    return log;
  };
  EXPECT_THAT(enable("Bearer wrong"), testing::AllOf(HasSubstr("UNAUTHENTICATED"), HasSubstr("subject=-")));
  EXPECT_THAT(enable("Bearer " + MakeToken("small", {"jobs:read"})),
              testing::AllOf(HasSubstr("FORBIDDEN"), HasSubstr("subject=small")));
}

TEST_F(GrpcApi, AnErrorWithManyFindingsStillArrives) {
  grpc::ClientContext context;
  context.AddMetadata("authorization", "Bearer " + admin_token_);
  admin::v1::RegisterModuleRequest request;
  auto& routes =
      *(*(*(*request.mutable_manifest()->mutable_fields())["capabilities"].mutable_struct_value()->mutable_fields())["api"]
             .mutable_struct_value()
             ->mutable_fields())["routes"]
           .mutable_list_value();
  for (int i = 0; i < 200; ++i)
    (*routes.add_values()->mutable_struct_value()->mutable_fields())["method"].set_string_value("FETCH");
  admin::v1::ModuleResponse response;
  const grpc::Status status = modules_stub_->RegisterModule(&context, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << status.error_message();
  EXPECT_EQ(ErrorCode(FromGrpcStatus(status)), "MANIFEST_INVALID");
}

TEST_F(GrpcApi, ReflectionAndHealthNeedNoToken) {
  std::string answer;
  // ServerReflectionRequest{list_services: "*"}
  const grpc::Status listed =
      CallRaw("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", std::string("\x3a\x01*", 3), &answer);
  EXPECT_TRUE(listed.ok()) << listed.error_message();
  for (const char* service : {"Modules", "Jobs", "System", "Tokens"})
    EXPECT_THAT(answer, HasSubstr(std::string("bulkhead.admin.v1.") + service));
  EXPECT_TRUE(CallRaw("/grpc.health.v1.Health/Check", "", &answer).ok());
  EXPECT_EQ(answer, std::string("\x08\x01", 2));
}

TEST_F(GrpcApi, ACallWhoseClientLeavesHoldsNothing) {
  Register("slow");
  modules_.HoldStarts(true);
  grpc::ClientContext context;
  context.AddMetadata("authorization", "Bearer " + admin_token_);
  context.set_deadline(gpr_time_from_millis(100, GPR_TIMESPAN));
  admin::v1::ModuleActionRequest request;
  request.set_name("slow");
  admin::v1::ModuleActionResponse response;
  EXPECT_EQ(modules_stub_->EnableModule(&context, request, &response).error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  modules_.HoldStarts(false);
  EXPECT_EQ(Get("/api/v1/modules/slow").data()["observed"]["state"], "RUNNING");
}

TEST_F(GrpcApi, EveryServiceAnswers) {
  Run("meter");
  const auto context = [&] {
    auto made = std::make_unique<grpc::ClientContext>();
    made->AddMetadata("authorization", "Bearer " + admin_token_);
    return made;
  };
  admin::v1::RunJobRequest run;
  run.set_module("meter");
  run.set_job("collect");
  run.set_wait("10s");
  admin::v1::RunJobResponse ran;
  ASSERT_TRUE(admin::v1::Jobs::NewStub(channel_)->RunJob(context().get(), run, &ran).ok());
  EXPECT_TRUE(ran.meta().converged());
  EXPECT_EQ(ran.run().status(), admin::v1::RunStatus::SUCCEEDED);
  admin::v1::SystemHealth health;
  ASSERT_TRUE(admin::v1::System::NewStub(channel_)->GetSystemHealth(context().get(), {}, &health).ok());
  EXPECT_EQ(health.modules().count("meter"), 1u);
  admin::v1::ListTokensResponse tokens;
  ASSERT_TRUE(admin::v1::Tokens::NewStub(channel_)->ListTokens(context().get(), {}, &tokens).ok());
}

TEST_F(GrpcApi, APortInUseOrAWrongAddressIsSaidBeforeAnythingStarts) {
  const auto second = Admin::Serve(admin_->address(), parts());
  EXPECT_EQ(ErrorCode(second.status()), "LISTEN_FAILED");
  EXPECT_THAT(std::string(second.status().message()),
              testing::AllOf(HasSubstr(admin_->address()), HasSubstr("Address already in use")));
  for (const char* bad : {"", "127.0.0.1", "127.0.0.1:", "127.0.0.1:http-alt-no", "192.0.2.1:0", "nowhere.invalid:4001"}) {
    EXPECT_EQ(ErrorCode(Admin::Serve(bad, parts()).status()), "LISTEN_FAILED") << bad;
  }
  auto six = Admin::Serve("[::1]:0", parts());
  if (six.ok()) {
    EXPECT_THAT((*six)->address(), testing::StartsWith("[::1]:"));
  }
}

}  // namespace
}  // namespace bulkhead
