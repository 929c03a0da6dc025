// A supervisor's admin API from outside: address, token, deadline. Blocking; one call at a time per thread, any number of threads.
#pragma once

#include <functional>
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
  // A call with a stream of responses, each given to `take` as it comes, without a deadline: Follow<Response>(&admin::v1::Logs::Stub::FollowModuleLogs, …).
  template <typename Response, typename Stub, typename Request>
  absl::Status Follow(std::unique_ptr<grpc::ClientReader<Response>> (Stub::*method)(grpc::ClientContext*, const Request&), const Request& request,
                      const std::function<void(const Response&)>& take) {
    grpc::ClientContext context;
    Authorize(context);
    Stub stub(channel_);
    const auto reader = (stub.*method)(&context, request);
    for (Response response; reader->Read(&response);) take(response);
    const grpc::Status status = reader->Finish();
    return status.ok() ? absl::OkStatus() : Failure(status, kCallTimeout);
  }
  // The supervisor's id of the last call that failed on this thread, for its logs; empty when it never came there.
  static const std::string& LastRequestId();

 private:
  AdminConnection(std::string server, std::string token);
  void Prepare(grpc::ClientContext& context, Millis timeout) const;
  void Authorize(grpc::ClientContext& context) const;
  absl::Status Failure(const grpc::Status& status, Millis timeout) const;

  const std::string server_, token_;
  std::shared_ptr<grpc::Channel> channel_;
};

}  // namespace bulkhead
