// Errors across gRPC: an absl::Status with its stable code and details as a grpc::Status whose details are a serialized
// google.rpc.Status{ErrorInfo, RetryInfo, BadRequest, bulkhead Findings}, and back. Pure.
#pragma once

#include <cstddef>
#include <limits>
#include <string_view>

#include "absl/status/status.h"
#include "grpcpp/support/status.h"

namespace bulkhead {

// A gRPC client takes 8 KiB of metadata by default, and loses the whole status when there is more. Findings beyond are left
// out and counted; the message is cut.
inline constexpr size_t kMaxWireDetails = 3 * 1024;
inline constexpr size_t kMaxWireMessage = 1024;
inline constexpr size_t kUnlimitedDetails = std::numeric_limits<size_t>::max();  // for the in-process channel

grpc::Status ToGrpcStatus(const absl::Status& status, std::string_view request_id, size_t max_details);
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace bulkhead
