#include "supervisor/admin/call.h"

#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "supervisor/admin/request_text.h"
#include "supervisor/admin/rpc_status.h"
#include "supervisor/base/log.h"
#include "supervisor/base/status.h"
#include "supervisor/base/text.h"

namespace bulkhead {

namespace {

// The same for the same request: maps in a fixed order.
std::string Deterministic(const google::protobuf::Message& message) {
  std::string bytes;
  google::protobuf::io::StringOutputStream stream(&bytes);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  message.SerializeToCodedStream(&coded);
  coded.Trim();
  return bytes;
}

constexpr char kKey[] = "idempotency-key";

absl::Status Left() {
  return Error("SHUTTING_DOWN", "The call ended before its answer: the client left, its deadline passed, or the supervisor stops.");
}

}  // namespace

// Lives until gRPC says that it is done, and keeps the call alive meanwhile.
class CallBase::Reactor : public grpc::ServerUnaryReactor {
 public:
  explicit Reactor(std::shared_ptr<CallBase> call) : call_(std::move(call)) {}
  void OnDone() override { delete this; }
  void OnCancel() override { call_->Leave(); }

 private:
  std::shared_ptr<CallBase> call_;
};

CallBase::CallBase(const Guard& guard, std::string_view method)
    : guard_(guard), method_(method), writes_(guard.Writes(method)), action_(guard.Action(method)) {}

CallBase::~CallBase() = default;

CallBase::Wait CallBase::Begin(grpc::CallbackServerContext* context, const google::protobuf::Message& request, grpc::ServerUnaryReactor*& reactor) {
  auto* made = new Reactor(shared_from_this());
  reactor = reactor_ = made;
  text_ = CheckRequestText(request);
  module_ = ValidUtf8(guard_.ModuleOf(method_, request));
  if (writes_) target_ = Guard::TargetOf(request);
  Guard::Decision decision = guard_.Check(context->client_metadata(), context->peer(), method_, module_, caller_);
  Wait wait;
  const auto key = context->client_metadata().find(kKey);
  if (writes_ && key != context->client_metadata().end()) wait.key = std::string(key->second.data(), key->second.size());
  wait.token = decision.pending;
  if (wait.token.empty() && !Admit(std::move(decision))) return {};
  return wait;
}

bool CallBase::Admit(Guard::Decision decision) {
  {
    std::lock_guard lock(mutex_);
    if (reactor_ == nullptr) return false;
    caller_.identity = std::move(decision.identity);
    actor_ = guard_.records().ActorOf(caller_.identity.get(), caller_.address, caller_.request_id);
    admitted_ = true;
    if (caller_.identity && guard_.AboutCaller(method_)) target_ = caller_.identity->subject;
  }
  // Nobody learns what is wrong with a call that he may not make.
  const absl::Status status = decision.status.ok() ? text_ : decision.status;
  if (status.ok()) return true;
  Fail(status);
  return false;
}

void CallBase::Later(const Wait& wait, std::shared_ptr<const google::protobuf::Message> request, std::function<void()> then) {
  auto self = shared_from_this();
  if (wait.token.empty()) return Once(wait.key, *request, then);
  guard_.Await(wait.token, method_, module_, caller_.address,
               [self, key = wait.key, request, then = std::move(then)](Guard::Decision decision) {
                 if (self->Admit(std::move(decision))) self->Once(key, *request, then);
               });
}

void CallBase::Once(const std::string& key, const google::protobuf::Message& request, const std::function<void()>& then) {
  if (key.empty()) return then();
  // Nobody's keys would be everybody's.
  if (actor_.subject.empty()) return Fail(Error("INVALID_ARGUMENT", "an idempotency key needs a login"));
  OnPool(guard_.records().pool(), shared_from_this(), [self = shared_from_this(), key, bytes = Deterministic(request), then] {
    auto known = self->guard_.records().idempotent().Begin(self->actor_.subject, key, self->method_, bytes);
    if (!known.ok()) return self->Fail(known.status());
    if (*known) return self->Replay(**known);
    {
      std::lock_guard lock(self->mutex_);
      self->key_ = key;
    }
    then();
  });
}

// In the log, and not in the audit: nothing is done, and what was is there.
void CallBase::Replay(const IdempotentCalls::Answer& answer) {
  {
    std::lock_guard lock(mutex_);
    replayed_ = true;
  }
  if (answer.code == 0) return End(Stage::kOutcome, absl::OkStatus(), [this, bytes = answer.bytes] { Fill(bytes); }, [] { return std::string(); });
  Fail(FromGrpcStatus(grpc::Status(static_cast<grpc::StatusCode>(answer.code), "", answer.bytes)));
}

bool CallBase::live() const {
  std::lock_guard lock(mutex_);
  return reactor_ != nullptr;
}

void CallBase::IsAction(std::string action) {
  std::lock_guard lock(mutex_);
  action_ = std::move(action);
}

AuditedCall CallBase::Audited() const {
  std::lock_guard lock(mutex_);
  return {action_, actor_, module_, target_};
}

bool CallBase::GoesOn() {
  if (live()) return true;
  Fail(Left());
  return false;
}

void CallBase::Fail(const absl::Status& status) {
  End(Stage::kOutcome, status, [] {}, [] { return std::string(); });
}

void CallBase::End(Stage stage, const absl::Status& status, std::function<void()> write, const std::function<std::string()>& bytes) {
  std::string key;
  {
    std::lock_guard lock(mutex_);
    const bool again = stage == Stage::kGoesOn && answered_;
    if (done_ || again) return;
    if (stage == Stage::kOutcome) done_ = true;
    // What was kept of the early answer stays the answer.
    if (!std::exchange(answered_, true)) key = key_;
  }
  if (key.empty()) return Close(stage, status, write);
  // The answer is kept before it is given: who asks again finds it.
  auto finish = [self = shared_from_this(), stage, status, write = std::move(write), kept = bytes()] {
    self->Remember(status, kept);
    self->Close(stage, status, write);
  };
  if (!guard_.records().pool().Submit(finish)) finish();
}

void CallBase::Remember(const absl::Status& status, const std::string& bytes) {
  IdempotentCalls& calls = guard_.records().idempotent();
  IdempotentCalls::Answer answer{static_cast<int>(status.code()), bytes};
  if (!status.ok()) answer.bytes = ToGrpcStatus(status, caller_.request_id, kUnlimitedDetails).error_details();
  const absl::Status kept = IsLasting(status) ? calls.Finish(actor_.subject, key_, answer) : calls.Forget(actor_.subject, key_);
  if (!kept.ok())
    LogWarn("admin", "the answer to a call with an idempotency key is not kept",
            {{"request", caller_.request_id}, {"reason", std::string(kept.message())}});
}

void CallBase::Close(Stage stage, const absl::Status& status, const std::function<void()>& write) {
  grpc::ServerUnaryReactor* reactor = nullptr;
  bool replayed = false;
  {
    std::lock_guard lock(mutex_);
    reactor = std::exchange(reactor_, nullptr);
    replayed = replayed_;
    if (reactor != nullptr && status.ok()) write();
  }
  if (writes_ && replayed) {
    guard_.records().Replayed(Audited(), status);
  } else if (writes_ && stage == Stage::kGoesOn) {
    guard_.records().Accepted(Audited(), "It was answered before the outcome, which follows.");
  } else if (writes_) {
    guard_.records().Ended(Audited(), status);
  }
  if (reactor != nullptr) reactor->Finish(ToGrpcStatus(status, caller_.request_id, caller_.in_process ? kUnlimitedDetails : kMaxWireDetails));
}

void CallBase::Leave() {
  grpc::ServerUnaryReactor* reactor = nullptr;
  bool admitted = false, done = false;
  {
    std::lock_guard lock(mutex_);
    reactor = std::exchange(reactor_, nullptr);
    admitted = admitted_;
    done = done_;  // its outcome is on its way to Close()
  }
  if (reactor == nullptr) return;
  if (writes_ && !admitted) guard_.records().Ended(Audited(), Left());
  if (writes_ && admitted && !done) guard_.records().Accepted(Audited(), "The client left before the outcome, which follows.");
  reactor->Finish(ToGrpcStatus(Left(), caller_.request_id, caller_.in_process ? kUnlimitedDetails : kMaxWireDetails));
}

void OnPool(BlockingPool& pool, const std::shared_ptr<CallBase>& call, std::function<void()> work) {
  const bool queued = pool.Submit([call, work = std::move(work)] {
    if (call->GoesOn()) work();
  });
  if (!queued) call->Fail(Error("OVERLOADED", "Too many calls wait for the database. Try again in a moment."));
}

}  // namespace bulkhead
