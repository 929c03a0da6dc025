#include "supervisor/admin/call.h"

#include "supervisor/admin/rpc_status.h"
#include "supervisor/base/status.h"

namespace bulkhead {

// Lives until gRPC says that it is done, and keeps the call alive meanwhile.
class CallBase::Reactor : public grpc::ServerUnaryReactor {
 public:
  explicit Reactor(std::shared_ptr<CallBase> call) : call_(std::move(call)) {}
  void OnDone() override { delete this; }
  void OnCancel() override {
    call_->Fail(Error("SHUTTING_DOWN",
                      "The call ended before its answer: the client left, its deadline passed, or the supervisor stops."));
  }

 private:
  std::shared_ptr<CallBase> call_;
};

CallBase::CallBase(const Guard& guard, std::string_view method) : method_(method), writes_(guard.Writes(method)) {}

CallBase::~CallBase() = default;

std::string CallBase::Begin(const std::shared_ptr<CallBase>& call, grpc::CallbackServerContext* context, const Guard& guard,
                            const google::protobuf::Message& request, grpc::ServerUnaryReactor*& reactor) {
  auto* made = new Reactor(call);
  reactor = call->reactor_ = made;
  Guard::Decision decision =
      guard.Check(context->client_metadata(), context->peer(), call->method_, guard.ModuleOf(call->method_, request), call->caller_);
  if (decision.pending.empty()) call->Admit(std::move(decision));
  return decision.pending;
}

bool CallBase::Admit(Guard::Decision decision) {
  {
    std::lock_guard lock(mutex_);
    if (reactor_ == nullptr) return false;
    caller_.identity = std::move(decision.identity);
  }
  if (decision.status.ok()) return true;
  Fail(decision.status);
  return false;
}

void CallBase::Await(const std::shared_ptr<CallBase>& call, const Guard& guard, const std::string& pending,
                     const google::protobuf::Message& request, std::function<void()> then) {
  guard.Await(pending, call->method_, guard.ModuleOf(call->method_, request), call->caller_.address,
              [call, then = std::move(then)](Guard::Decision decision) {
                if (call->Admit(std::move(decision))) then();
              });
}

bool CallBase::live() const {
  std::lock_guard lock(mutex_);
  return reactor_ != nullptr;
}

void CallBase::Fail(const absl::Status& status) {
  End(status, [] {});
}

void CallBase::End(const absl::Status& status, const std::function<void()>& write) {
  grpc::ServerUnaryReactor* reactor = nullptr;
  {
    std::lock_guard lock(mutex_);
    reactor = std::exchange(reactor_, nullptr);
    if (reactor == nullptr) return;
    if (status.ok()) write();
  }
  if (writes_) Audit(method_, caller_, status);
  reactor->Finish(ToGrpcStatus(status, caller_.request_id, caller_.in_process ? kUnlimitedDetails : kMaxWireDetails));
}

void OnPool(BlockingPool& pool, const std::shared_ptr<CallBase>& call, std::function<void()> work) {
  if (!pool.Submit(std::move(work)))
    call->Fail(Error("OVERLOADED", "Too many calls wait for the database. Try again in a moment."));
}

}  // namespace bulkhead
