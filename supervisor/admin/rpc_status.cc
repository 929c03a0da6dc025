#include "supervisor/admin/rpc_status.h"

#include <string>
#include <vector>

#include "bulkhead/admin/v1/types.pb.h"
#include "google/rpc/status.pb.h"
#include "supervisor/base/status.h"
#include "supervisor/base/text.h"

namespace bulkhead {
namespace {

constexpr char kDomain[] = "bulkhead";

std::string Cut(std::string_view text, size_t limit) {
  if (text.size() <= limit) return ValidUtf8(text);
  return ValidUtf8(text.substr(0, limit)) + "…";
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status, std::string_view request_id, size_t max_details) {
  if (status.ok()) return grpc::Status::OK;
  const bool bounded = max_details != kUnlimitedDetails;
  const std::string message =
      Cut(std::string_view(status.message().data(), status.message().size()), bounded ? kMaxWireMessage : kUnlimitedDetails);
  google::rpc::ErrorInfo info;
  info.set_reason(ErrorCode(status));
  info.set_domain(kDomain);
  (*info.mutable_metadata())["requestId"] = ValidUtf8(request_id);
  google::rpc::BadRequest bad;
  admin::v1::Findings findings;
  size_t used = 0;
  for (const ErrorDetail& detail : ErrorDetails(status)) {
    const std::string path = ValidUtf8(detail.path), code = ValidUtf8(detail.code), text = ValidUtf8(detail.message);
    used += 2 * (path.size() + code.size() + text.size()) + 16;  // once in each of the two messages
    if (used > max_details) {
      findings.set_omitted(findings.omitted() + 1);
      continue;
    }
    auto* violation = bad.add_field_violations();
    violation->set_field(path);
    violation->set_description(text);
    violation->set_reason(code);
    auto* finding = findings.add_findings();
    finding->set_path(path);
    finding->set_line(detail.line);
    finding->set_code(code);
    finding->set_message(text);
  }
  const auto code = static_cast<grpc::StatusCode>(status.code());  // the two enums share their numbers
  google::rpc::Status wire;
  wire.set_code(code);
  wire.set_message(message);
  wire.add_details()->PackFrom(info);
  if (const int seconds = RetryAfter(status); seconds > 0) {
    google::rpc::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(seconds);
    wire.add_details()->PackFrom(retry);
  }
  if (bad.field_violations_size() > 0 || findings.omitted() > 0) {
    wire.add_details()->PackFrom(bad);
    wire.add_details()->PackFrom(findings);
  }
  return grpc::Status(code, message, wire.SerializeAsString());
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  const std::string message = status.error_message();
  google::rpc::Status wire;
  google::rpc::ErrorInfo info;
  google::rpc::RetryInfo retry;
  std::vector<ErrorDetail> details;
  if (wire.ParseFromString(status.error_details())) {
    for (const auto& any : wire.details()) {
      admin::v1::Findings findings;
      if (any.Is<google::rpc::ErrorInfo>()) {
        any.UnpackTo(&info);
      } else if (any.Is<google::rpc::RetryInfo>()) {
        any.UnpackTo(&retry);
      } else if (any.UnpackTo(&findings)) {
        for (const auto& f : findings.findings()) details.push_back({f.path(), f.code(), f.message(), f.line()});
      }
    }
  }
  if (info.domain() == kDomain && !info.reason().empty()) {
    absl::Status ours = Error(info.reason(), message, std::move(details));
    const int seconds = static_cast<int>(retry.retry_delay().seconds());
    return seconds > 0 ? WithRetryAfter(std::move(ours), seconds) : ours;
  }
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), message);
}

}  // namespace bulkhead
