#include "supervisor/cli/connection.h"

#include <chrono>

#include "google/rpc/status.pb.h"
#include "supervisor/admin/rpc_status.h"
#include "supervisor/base/duration.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

constexpr size_t kMaxToken = 16 << 10;  // bytes of a token file; beyond it is none
thread_local std::string last_request_id;

std::string RequestId(const grpc::Status& status) {
  google::rpc::Status wire;
  if (!wire.ParseFromString(status.error_details())) return "";
  for (const auto& any : wire.details()) {
    google::rpc::ErrorInfo info;
    if (!any.UnpackTo(&info)) continue;
    const auto found = info.metadata().find("requestId");
    return found == info.metadata().end() ? "" : found->second;
  }
  return "";
}

absl::StatusOr<std::string> ReadToken(const ClientOptions& options) {
  if (!options.token.empty()) return options.token;
  auto text = ReadFile(options.token_file, kMaxToken);
  if (!text.ok()) {
    return Error("CONFIG_INVALID", "The token can't be read: " + std::string(text.status().message()) + ". Give one that you may read "
                 "with --token-file FILE or in BULKHEAD_TOKEN; the supervisor keeps the administrator's in <data>/admin.token.",
                 {{.path = options.token_file}});
  }
  std::string token = *std::move(text);
  while (!token.empty() && (token.back() == '\n' || token.back() == '\r' || token.back() == ' ')) token.pop_back();
  // A header may hold nothing else, and gRPC ends the process at a wrong one.
  for (const char c : token) {
    if (c <= ' ' || c > '~') return Error("CONFIG_INVALID", options.token_file + " holds no token.", {{.path = options.token_file}});
  }
  if (token.empty()) return Error("CONFIG_INVALID", options.token_file + " is empty.", {{.path = options.token_file}});
  return token;
}

}  // namespace

absl::StatusOr<std::unique_ptr<AdminConnection>> AdminConnection::Open(const ClientOptions& options) {
  ASSIGN_OR_RETURN(std::string token, ReadToken(options));
  return std::unique_ptr<AdminConnection>(new AdminConnection(options.server, std::move(token)));
}

AdminConnection::AdminConnection(std::string server, std::string token) : server_(std::move(server)), token_(std::move(token)) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);  // the admin API is on the loopback or behind one's own tunnel
  channel_ = grpc::CreateCustomChannel(server_, grpc::InsecureChannelCredentials(), arguments);
}

void AdminConnection::Prepare(grpc::ClientContext& context, Millis timeout) const {
  context.set_deadline(std::chrono::system_clock::now() + timeout);
  Authorize(context);
}

void AdminConnection::Authorize(grpc::ClientContext& context) const { context.AddMetadata("authorization", "Bearer " + token_); }

absl::Status AdminConnection::Failure(const grpc::Status& status, Millis timeout) const {
  last_request_id = RequestId(status);
  const bool ours = !status.error_details().empty();
  if (!ours && status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
    return Error("SERVER_UNREACHABLE", "The supervisor at " + server_ + " has not answered within " + FormatDuration(timeout) + ".");
  }
  if (!ours && (status.error_code() == grpc::StatusCode::UNAVAILABLE || status.error_code() == grpc::StatusCode::UNIMPLEMENTED)) {
    return Error("SERVER_UNREACHABLE", "There is no supervisor to talk to at " + server_ + ": " + status.error_message() + ".");
  }
  return FromGrpcStatus(status);
}

const std::string& AdminConnection::LastRequestId() { return last_request_id; }

}  // namespace bulkhead
