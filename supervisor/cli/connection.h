// A supervisor's admin API from outside: address, token, deadline. Blocking; one call at a time per thread, any number of threads.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "grpcpp/grpcpp.h"
#include "supervisor/base/clock.h"
#include "supervisor/cli/command.h"

namespace bulkhead {

inline constexpr Millis kCallTimeout{30'000};  // of a call that does not wait for anything

class AdminConnection {
 public:
  // Reads the token. CONFIG_INVALID says where it was looked for. Nothing is connected yet.
  static absl::StatusOr<std::unique_ptr<AdminConnection>> Open(const ClientOptions& options);

  // One unary call: Call(&admin::v1::Modules::Stub::GetModule, request). Errors are the supervisor's own, and SERVER_UNREACHABLE when it
  // does not answer in time or at all.
  template <typename Stub, typename Request, typename Response>
  absl::StatusOr<Response> Call(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*), const Request& request,
                                Millis timeout = kCallTimeout) {
    grpc::ClientContext context;
    Prepare(context, timeout);
    Response response;
    Stub stub(channel_);
    const grpc::Status status = (stub.*method)(&context, request, &response);
    if (!status.ok()) return Failure(status, timeout);
    return response;
  }
  // The supervisor's id of the last call that failed on this thread, for its logs; empty when it never came there.
  static const std::string& LastRequestId();

 private:
  AdminConnection(std::string server, std::string token);
  void Prepare(grpc::ClientContext& context, Millis timeout) const;
  absl::Status Failure(const grpc::Status& status, Millis timeout) const;

  const std::string server_, token_;
  std::shared_ptr<grpc::Channel> channel_;
};

}  // namespace bulkhead
