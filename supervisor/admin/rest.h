// REST as the admin services transcoded: a request becomes one call through the in-process channel, its answer the envelope
// {success, data, meta} or {success, error}, or of a method with a stream of responses Server-Sent Events (decision 6 of
// supervisor/README.md). Thread-safe; Handle() never blocks.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/grpcpp.h"
#include "supervisor/admin/guard.h"
#include "supervisor/admin/routes.h"
#include "supervisor/gateway/local_service.h"

namespace bulkhead {

class Rest {
 public:
  Rest(const Guard& guard, const std::vector<const google::protobuf::ServiceDescriptor*>& services);
  ~Rest();

  // Before the first Handle().
  void Connect(std::shared_ptr<grpc::Channel> channel);
  // From now on 503 SHUTTING_DOWN, also for calls that the server's end cuts off.
  void Stop();
  // After Stop(): blocks until no call is under way, at most `at_most`. For the grace at the end, which gRPC does not give to
  // in-process calls: a server that shuts down cuts them at once.
  void AwaitEnd(Millis at_most);
  // After the server's own end: blocks until the last call has let go of the channel. gRPC joins its callback threads when the
  // last channel goes, and would join itself when that happened in a callback.
  void AwaitEnd();
  // The largest body that a request may have whose caller has no token; 0: none.
  int64_t AnonymousBody(std::string_view method, std::string_view path) const;
  // As of LocalService.
  std::string_view RouteOf(std::string_view method, std::string_view path) const;
  // Paths under /api/, and /metrics; others are 404.
  void Handle(LocalRequest request, std::unique_ptr<LocalResponder> responder);

 private:
  struct Exchange;
  class InFlight;
  class EventStream;
  // The caller is known, or the request is refused.
  void Go(const std::shared_ptr<Exchange>& exchange, Guard::Decision decision);
  // What the audit is told of one that is refused before its handler.
  AuditedCall Audited(const Exchange& exchange, const Identity* identity) const;
  // Whether the known caller may, and there is anything to call.
  absl::Status Check(const Exchange& exchange, const Identity* identity) const;
  void Call(std::shared_ptr<Exchange> exchange, const google::protobuf::Message& message);
  void BeginStream(std::shared_ptr<Exchange> exchange);

  const Guard& guard_;
  // Shared with the calls under way, which may end after this object.
  std::shared_ptr<RestRoutes> routes_ = std::make_shared<RestRoutes>();
  std::shared_ptr<InFlight> in_flight_;
  std::unique_ptr<grpc::GenericStub> stub_;
};

// The error envelope with the status and the headers that its code asks for.
void RespondError(LocalResponder& responder, const absl::Status& status, const std::string& request_id, HeaderList more = {});
void RespondJson(LocalResponder& responder, int status, std::string body, HeaderList more = {});

}  // namespace bulkhead
