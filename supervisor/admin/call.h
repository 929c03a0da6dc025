// One unary call of the admin API from its guard to its answer. The answer may come from any thread, or never: the call also
// ends when the client leaves, its deadline passes or the server stops. What was asked for goes on then, and its outcome is for the audit
// alone; so it is behind an answer that says only that it goes on.
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
class CallBase : public std::enable_shared_from_this<CallBase> {
 public:
  CallBase(const Guard& guard, std::string_view method);
  virtual ~CallBase();
  CallBase(const CallBase&) = delete;

  // The outcome is an error; nothing when there is one already.
  void Fail(const absl::Status& status);
  bool live() const;
  // What the audit calls it, where that depends on the request.
  void IsAction(std::string action);
  // Before something is done for it: true while the client is there. Nothing more is done for one that has left, and the outcome says so.
  bool GoesOn();
  const Caller& caller() const { return caller_; }
  // On whose behalf it is; once the guard has admitted it.
  const Actor& actor() const { return actor_; }

 protected:
  // kGoesOn: an answer before the outcome, which is to follow.
  enum class Stage { kGoesOn, kOutcome };
  // The answer: `write` fills the response while it is still there, from `bytes` that are kept when the call has an idempotency key.
  void End(Stage stage, const absl::Status& status, std::function<void()> write, const std::function<std::string()>& bytes);
  // Fills the response from such bytes.
  virtual void Fill(const std::string& bytes) = 0;

 private:
  template <typename Request, typename Response, typename Body>
  friend grpc::ServerUnaryReactor* Serve(const Guard&, grpc::CallbackServerContext*, std::string_view, const Request*, Response*, Body);
  class Reactor;
  // What a call has to wait for before it is done; both empty: nothing.
  struct Wait {
    std::string token;  // to be verified
    std::string key;    // of idempotency
  };
  // Makes the reactor, which keeps the call until gRPC is done with it, and asks the guard.
  Wait Begin(grpc::CallbackServerContext* context, const google::protobuf::Message& request, grpc::ServerUnaryReactor*& reactor);
  // Takes the guard's decision; true when the call goes on.
  bool Admit(Guard::Decision decision);
  // Goes on with `then` when the call may be done and is the first with its key. `request` stays until then.
  void Later(const Wait& wait, std::shared_ptr<const google::protobuf::Message> request, std::function<void()> then);
  void Once(const std::string& key, const google::protobuf::Message& request, const std::function<void()>& then);
  void Replay(const IdempotentCalls::Answer& answer);
  void Remember(const absl::Status& status, const std::string& bytes);
  // Ends what the client sees, and tells the records.
  void Close(Stage stage, const absl::Status& status, const std::function<void()>& write);
  // The client is gone.
  void Leave();
  AuditedCall Audited() const;

  const Guard& guard_;
  const std::string method_;
  const bool writes_;
  Caller caller_;       // constant once the guard has decided; its identity is set under mutex_ while the call is live
  std::string module_, target_;  // that the request names
  absl::Status text_;   // what is wrong with the request's texts
  Actor actor_;
  mutable std::mutex mutex_;
  grpc::ServerUnaryReactor* reactor_ = nullptr;  // null once the call has ended
  std::string key_;                              // set while its outcome is to be kept
  std::string action_;                           // for the audit
  bool admitted_ = false;                        // by the guard
  bool answered_ = false;                        // that it goes on
  bool replayed_ = false;                        // its answer is one that was kept
  bool done_ = false;                            // it has an outcome, whether or not the client is still there
};

template <typename Response>
class Call : public CallBase {
 public:
  Call(const Guard& guard, std::string_view method, Response* response) : CallBase(guard, method), response_(response) {}
  void Answer(Response response) { Give(Stage::kOutcome, std::move(response)); }
  // Answers before the outcome is known; Answer() or Fail() then tells that to the audit.
  void AnswerEarly(Response response) { Give(Stage::kGoesOn, std::move(response)); }

 private:
  void Give(Stage stage, Response response) {
    auto kept = std::make_shared<Response>(std::move(response));
    End(stage, absl::OkStatus(), [this, kept] { response_->Swap(kept.get()); }, [kept] { return kept->SerializeAsString(); });
  }
  void Fill(const std::string& bytes) override { response_->ParseFromString(bytes); }
  Response* response_;
};

template <typename Response>
using CallPtr = std::shared_ptr<Call<Response>>;

// The whole of a handler: guard and the check of the request's texts, then `body(call, request)`, which answers now or later. `body` copies
// what it needs of the request, and captures nothing of the handler but `this`: where a token has still to be verified, or a
// key of idempotency to be looked up, it runs after the handler has returned, on another thread and with a copy of the request.
template <typename Request, typename Response, typename Body>
grpc::ServerUnaryReactor* Serve(const Guard& guard, grpc::CallbackServerContext* context, std::string_view method, const Request* request,
                                Response* response, Body body) {
  auto call = std::make_shared<Call<Response>>(guard, method, response);
  grpc::ServerUnaryReactor* reactor = nullptr;
  const CallBase::Wait wait = call->Begin(context, *request, reactor);
  if (!wait.token.empty() || !wait.key.empty()) {
    auto copy = std::make_shared<const Request>(*request);
    call->Later(wait, copy, [call, body, copy] { body(call, copy.get()); });
  } else if (call->live()) {
    body(call, request);
  }
  return reactor;
}

// Runs `work` on the pool unless the client has left by then; OVERLOADED for the call when the pool is full.
void OnPool(BlockingPool& pool, const std::shared_ptr<CallBase>& call, std::function<void()> work);

}  // namespace bulkhead
