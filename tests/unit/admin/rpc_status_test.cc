#include "supervisor/admin/rpc_status.h"

#include "bulkhead/admin/v1/types.pb.h"
#include "google/rpc/status.pb.h"
#include "gtest/gtest.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

TEST(RpcStatus, CarriesCodeMessageAndDetailsBothWays) {
  const absl::Status error = Error("MANIFEST_INVALID", "Two things.",
                                   {{"/name", "INVALID_NAME", "No.", 3}, {"/version", "INVALID_VERSION", "Neither.", 0}});
  const grpc::Status wire = ToGrpcStatus(error, "req-1", kMaxWireDetails);
  EXPECT_EQ(wire.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(wire.error_message(), "Two things.");
  const absl::Status back = FromGrpcStatus(wire);
  EXPECT_EQ(ErrorCode(back), "MANIFEST_INVALID");
  const auto details = ErrorDetails(back);
  ASSERT_EQ(details.size(), 2u);
  EXPECT_EQ(details[0].path, "/name");
  EXPECT_EQ(details[0].line, 3);
  EXPECT_EQ(details[1].code, "INVALID_VERSION");
}

TEST(RpcStatus, IsTheWellKnownRichErrorThatForeignClientsRead) {
  const grpc::Status wire =
      ToGrpcStatus(Error("CONFIG_INVALID", "x", {{"/a", "REQUIRED", "Must be set."}}), "req-1", kMaxWireDetails);
  google::rpc::Status status;
  ASSERT_TRUE(status.ParseFromString(wire.error_details()));
  EXPECT_EQ(status.code(), 3);
  google::rpc::ErrorInfo info;
  ASSERT_TRUE(status.details(0).UnpackTo(&info));
  EXPECT_EQ(status.details(0).type_url(), "type.googleapis.com/google.rpc.ErrorInfo");
  EXPECT_EQ(info.reason(), "CONFIG_INVALID");
  EXPECT_EQ(info.domain(), "bulkhead");
  EXPECT_EQ(info.metadata().at("requestId"), "req-1");
  google::rpc::BadRequest bad;
  ASSERT_TRUE(status.details(1).UnpackTo(&bad));
  EXPECT_EQ(bad.field_violations(0).field(), "/a");
  EXPECT_EQ(bad.field_violations(0).description(), "Must be set.");
  EXPECT_EQ(bad.field_violations(0).reason(), "REQUIRED");
}

TEST(RpcStatus, StaysBelowWhatAClientTakesAsMetadataAndCountsTheRest) {
  std::vector<ErrorDetail> many;
  for (int i = 0; i < 500; ++i) many.push_back({"/field/" + std::to_string(i), "WRONG_TYPE", std::string(80, 'x')});
  const absl::Status error = Error("MANIFEST_INVALID", std::string(5000, 'm'), many);
  const grpc::Status wire = ToGrpcStatus(error, "r", kMaxWireDetails);
  EXPECT_LT(wire.error_details().size() + wire.error_message().size(), 6u * 1024);  // base64 makes a third more of the details
  google::rpc::Status status;
  ASSERT_TRUE(status.ParseFromString(wire.error_details()));
  admin::v1::Findings findings;
  ASSERT_TRUE(status.details(2).UnpackTo(&findings));
  EXPECT_GT(findings.findings_size(), 0);
  EXPECT_EQ(findings.findings_size() + findings.omitted(), 500);
  EXPECT_EQ(ErrorDetails(FromGrpcStatus(ToGrpcStatus(error, "r", kUnlimitedDetails))).size(), 500u);
}

TEST(RpcStatus, SurvivesTextThatIsNotUtf8) {
  const absl::Status error = Error("INTERNAL", "bad \xff byte", {{"/\xfe", "X", "\x80"}});
  const absl::Status back = FromGrpcStatus(ToGrpcStatus(error, "\xff", kMaxWireDetails));
  EXPECT_EQ(ErrorCode(back), "INTERNAL");
  EXPECT_EQ(back.message(), "bad \xEF\xBF\xBD byte");
}

TEST(RpcStatus, KeepsTheKindOfAStatusWithoutDetails) {
  EXPECT_EQ(FromGrpcStatus(grpc::Status(grpc::StatusCode::UNAVAILABLE, "gone")).code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(FromGrpcStatus(ToGrpcStatus(absl::OkStatus(), "", kMaxWireDetails)).ok());
}

TEST(RpcStatus, CarriesWhenToTryAgain) {
  const absl::Status status = WithRetryAfter(Error("TOO_MANY_ATTEMPTS", "Too many."), 7);
  for (const size_t most : {kMaxWireDetails, kUnlimitedDetails}) {
    const absl::Status back = FromGrpcStatus(ToGrpcStatus(status, "r", most));
    EXPECT_EQ(ErrorCode(back), "TOO_MANY_ATTEMPTS");
    EXPECT_EQ(RetryAfter(back), 7);
  }
  EXPECT_EQ(RetryAfter(FromGrpcStatus(ToGrpcStatus(Error("OVERLOADED", "Later."), "r", kMaxWireDetails))), 0);
}

}  // namespace
}  // namespace bulkhead
