// One unary call of the admin API from its guard to its answer. The answer may come from any thread, or never: the call also
// ends when the client leaves, its deadline passes or the server stops, and a late answer is then dropped.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"
#include "grpcpp/grpcpp.h"
#include "supervisor/admin/guard.h"
#include "supervisor/base/blocking_pool.h"

namespace bulkhead {

// Thread-safe. Everything but the type of the response.
class CallBase {
 public:
  CallBase(const Guard& guard, std::string_view method);
  virtual ~CallBase();
  CallBase(const CallBase&) = delete;

  // Ends the call with an error; nothing when it has ended.
  void Fail(const absl::Status& status);
  bool live() const;
  const Caller& caller() const { return caller_; }

 protected:
  // Ends the call: `write` fills the response while it is still there.
  void End(const absl::Status& status, const std::function<void()>& write);

 private:
  template <typename Request, typename Response, typename Body>
  friend grpc::ServerUnaryReactor* Serve(const Guard&, grpc::CallbackServerContext*, std::string_view, const Request*, Response*, Body);
  class Reactor;
  // Makes the reactor, which keeps the call until gRPC is done with it, and asks the guard. The token that it has to wait for, if there is one.
  static std::string Begin(const std::shared_ptr<CallBase>& call, grpc::CallbackServerContext* context, const Guard& guard,
                           const google::protobuf::Message& request, grpc::ServerUnaryReactor*& reactor);
  // Takes the guard's decision; true when the call goes on.
  bool Admit(Guard::Decision decision);
  static void Await(const std::shared_ptr<CallBase>& call, const Guard& guard, const std::string& pending, const google::protobuf::Message& request,
                    std::function<void()> then);

  const std::string method_;
  const bool writes_;
  Caller caller_;  // constant once the guard has decided; its identity is set under mutex_ while the call is live
  mutable std::mutex mutex_;
  grpc::ServerUnaryReactor* reactor_ = nullptr;  // null once the call has ended
};

template <typename Response>
class Call : public CallBase {
 public:
  Call(const Guard& guard, std::string_view method, Response* response) : CallBase(guard, method), response_(response) {}
  void Answer(Response response) {
    End(absl::OkStatus(), [&] { response_->Swap(&response); });
  }

 private:
  Response* response_;
};

template <typename Response>
using CallPtr = std::shared_ptr<Call<Response>>;

// The whole of a handler: guard, then `body(call, request)`, which answers now or later. `body` copies what it needs of the request, and
// captures nothing of the handler but `this`: where a token has still to be verified it runs after the handler has returned, on another
// thread and with a copy of the request.
template <typename Request, typename Response, typename Body>
grpc::ServerUnaryReactor* Serve(const Guard& guard, grpc::CallbackServerContext* context, std::string_view method, const Request* request,
                                Response* response, Body body) {
  auto call = std::make_shared<Call<Response>>(guard, method, response);
  grpc::ServerUnaryReactor* reactor = nullptr;
  const std::string pending = CallBase::Begin(call, context, guard, *request, reactor);
  if (!pending.empty()) {
    CallBase::Await(call, guard, pending, *request, [call, body, copy = std::make_shared<const Request>(*request)] { body(call, copy.get()); });
  } else if (call->live()) {
    body(call, request);
  }
  return reactor;
}

// Runs `work` on the pool; OVERLOADED for the call when the pool is full.
void OnPool(BlockingPool& pool, const std::shared_ptr<CallBase>& call, std::function<void()> work);

}  // namespace bulkhead
