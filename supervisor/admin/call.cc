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

}  // namespace

// Lives until gRPC says that it is done, and keeps the call alive meanwhile.
class CallBase::Reactor : public grpc::ServerUnaryReactor {
 public:
  explicit Reactor(std::shared_ptr<CallBase> call) : call_(std::move(call)) {}
  void OnDone() override { delete this; }
  // What was asked for goes on, and its outcome is kept where it has a key.
  void OnCancel() override {
    const absl::Status left = Error("SHUTTING_DOWN", "The call ended before its answer: the client left, its deadline passed, or the supervisor stops.");
    call_->Close(left, [] {});
  }

 private:
  std::shared_ptr<CallBase> call_;
};

CallBase::CallBase(const Guard& guard, std::string_view method) : guard_(guard), method_(method), writes_(guard.Writes(method)) {}

CallBase::~CallBase() = default;

CallBase::Wait CallBase::Begin(grpc::CallbackServerContext* context, const google::protobuf::Message& request, grpc::ServerUnaryReactor*& reactor) {
  auto* made = new Reactor(shared_from_this());
  reactor = reactor_ = made;
  text_ = CheckRequestText(request);
  module_ = ValidUtf8(guard_.ModuleOf(method_, request));  // in the audit even of a refusal
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

// Also in the log and the audit: somebody asked again.
void CallBase::Replay(const IdempotentCalls::Answer& answer) {
  if (answer.code == 0) return End(absl::OkStatus(), [this, bytes = answer.bytes] { Fill(bytes); }, [] { return std::string(); });
  Fail(FromGrpcStatus(grpc::Status(static_cast<grpc::StatusCode>(answer.code), "", answer.bytes)));
}

bool CallBase::live() const {
  std::lock_guard lock(mutex_);
  return reactor_ != nullptr;
}

void CallBase::Fail(const absl::Status& status) {
  End(status, [] {}, [] { return std::string(); });
}

void CallBase::End(const absl::Status& status, std::function<void()> write, const std::function<std::string()>& bytes) {
  std::string key;
  {
    std::lock_guard lock(mutex_);
    if (std::exchange(done_, true)) return;
    key = key_;
  }
  if (key.empty()) {
    Close(status, write);
    return;
  }
  // The answer is kept before it is given: who asks again finds it.
  auto finish = [self = shared_from_this(), key, status, write = std::move(write), kept = bytes()] {
    self->Remember(status, kept);
    self->Close(status, write);
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

bool CallBase::Close(const absl::Status& status, const std::function<void()>& write) {
  grpc::ServerUnaryReactor* reactor = nullptr;
  {
    std::lock_guard lock(mutex_);
    reactor = std::exchange(reactor_, nullptr);
    if (reactor == nullptr) return false;
    if (status.ok()) write();
  }
  if (writes_) guard_.records().Ended(guard_.Action(method_), actor_, module_, status);
  reactor->Finish(ToGrpcStatus(status, caller_.request_id, caller_.in_process ? kUnlimitedDetails : kMaxWireDetails));
  return true;
}

void OnPool(BlockingPool& pool, const std::shared_ptr<CallBase>& call, std::function<void()> work) {
  if (!pool.Submit(std::move(work)))
    call->Fail(Error("OVERLOADED", "Too many calls wait for the database. Try again in a moment."));
}

}  // namespace bulkhead
