#include "supervisor/admin/stream.h"

#include "supervisor/admin/request_text.h"
#include "supervisor/admin/rpc_status.h"
#include "supervisor/base/limits.h"
#include "supervisor/base/status.h"
#include "supervisor/base/text.h"

namespace bulkhead {
namespace {

absl::Status Stopping() { return Error("SHUTTING_DOWN", "The supervisor stops."); }

}  // namespace

absl::Status Streams::Enter(const std::shared_ptr<StreamCallBase>& stream, const std::string& caller) {
  std::lock_guard lock(mutex_);
  if (ended_) return Stopping();
  if (entered_.size() >= limits::kMaxStreams)
    return Error("OVERLOADED", "This node serves as many streams as it may, " + std::to_string(limits::kMaxStreams) + ". End one, or try again.");
  size_t& open = by_caller_[caller];
  if (open >= limits::kMaxStreamsPerCaller) {
    return Error("TOO_MANY_STREAMS", "\"" + caller + "\" has as many streams open as one caller may, " +
                                         std::to_string(limits::kMaxStreamsPerCaller) + ". End one before the next.");
  }
  ++open;
  entered_[stream.get()] = {stream, caller};
  return absl::OkStatus();
}

void Streams::Leave(const StreamCallBase* stream) {
  std::lock_guard lock(mutex_);
  const auto entry = entered_.find(stream);
  if (entry == entered_.end()) return;
  const auto caller = by_caller_.find(entry->second.second);
  if (--caller->second == 0) by_caller_.erase(caller);
  entered_.erase(entry);
}

void Streams::EndAll() {
  std::vector<std::shared_ptr<StreamCallBase>> open;
  {
    std::lock_guard lock(mutex_);
    ended_ = true;
    for (const auto& [key, entry] : entered_) {
      if (auto stream = entry.first.lock()) open.push_back(std::move(stream));
    }
  }
  for (const auto& stream : open) stream->End(Stopping());
}

StreamCallBase::StreamCallBase(const Guard& guard, Streams& streams, const Clock& clock, std::string_view method)
    : guard_(guard), streams_(streams), clock_(clock), method_(method) {}

StreamCallBase::~StreamCallBase() { streams_.Leave(this); }

void StreamCallBase::Begin(grpc::CallbackServerContext* context, const google::protobuf::Message& request, std::function<void()> open) {
  text_ = CheckRequestText(request);
  module_ = ValidUtf8(guard_.ModuleOf(method_, request));
  const auto found = context->client_metadata().find("authorization");
  if (found != context->client_metadata().end()) authorization_.assign(found->second.data(), found->second.size());
  Guard::Decision decision = guard_.Check(context->client_metadata(), context->peer(), method_, module_, caller_);
  if (decision.pending.empty()) return Admit(std::move(decision), open);
  const std::string token = decision.pending;
  guard_.Await(token, method_, module_, caller_.address,
               [self = shared_from_this(), open = std::move(open)](Guard::Decision verdict) { self->Admit(std::move(verdict), open); });
}

void StreamCallBase::Admit(Guard::Decision decision, const std::function<void()>& open) {
  // Nobody learns what is wrong with a call that he may not make.
  absl::Status status = decision.status.ok() ? text_ : decision.status;
  if (status.ok()) status = streams_.Enter(shared_from_this(), decision.identity ? decision.identity->subject : "");
  if (!status.ok()) return End(std::move(status));
  {
    std::lock_guard lock(mutex_);
    check_at_ = clock_.Now() + limits::kStreamCheck;
    if (end_) return;  // the client has left
  }
  open();
}

bool StreamCallBase::live() const {
  std::lock_guard lock(mutex_);
  return !end_;
}

void StreamCallBase::Start() {
  {
    std::lock_guard lock(mutex_);
    started_ = true;
  }
  Wake();
}

void StreamCallBase::Sent(bool ok) {
  {
    std::lock_guard lock(mutex_);
    sending_ = false;
    if (!ok && !end_) end_ = absl::CancelledError("The client has left.");
  }
  Wake();
}

void StreamCallBase::End(absl::Status status) {
  {
    std::lock_guard lock(mutex_);
    if (!end_) end_ = std::move(status);
  }
  Wake();
}

bool StreamCallBase::StillMay(std::unique_lock<std::mutex>& lock) {
  if (checking_) return false;
  if (clock_.Now() < check_at_) return true;
  lock.unlock();
  Guard::Decision decision = guard_.Authenticate(authorization_, caller_.address);
  if (decision.identity) decision.status = guard_.Authorize(*decision.identity, method_, module_);
  lock.lock();
  check_at_ = clock_.Now() + limits::kStreamCheck;
  if (decision.pending.empty()) {
    if (!decision.status.ok() && !end_) end_ = decision.status;
    return decision.status.ok();
  }
  checking_ = true;
  lock.unlock();
  guard_.Await(decision.pending, method_, module_, caller_.address, [self = shared_from_this()](Guard::Decision verdict) {
    {
      std::lock_guard relock(self->mutex_);
      self->checking_ = false;
      if (!verdict.status.ok() && !self->end_) self->end_ = verdict.status;
    }
    self->Wake();
  });
  lock.lock();
  return false;
}

// One thread at a time: who comes while another is at it leaves it to that one.
void StreamCallBase::Wake() {
  const std::shared_ptr<StreamCallBase> self = shared_from_this();  // Finish() may end the reactor, which holds it
  std::unique_lock lock(mutex_);
  again_ = true;
  if (pumping_) return;
  pumping_ = true;
  while (std::exchange(again_, false) && !finished_ && !sending_) {
    if (!end_ && (!started_ || !StillMay(lock))) {
      if (end_) again_ = true;
      continue;
    }
    if (end_) {
      finished_ = true;
      const absl::Status status = *end_;
      lock.unlock();
      DropSource();
      streams_.Leave(this);
      Finish(ToGrpcStatus(status, caller_.request_id, caller_.in_process ? kUnlimitedDetails : kMaxWireDetails));
      lock.lock();
      break;
    }
    lock.unlock();
    absl::Status why;
    const Found found = Next(why);
    lock.lock();
    if (found == Found::kEnd) {
      if (!end_) end_ = std::move(why);
      again_ = true;
    } else if (found == Found::kMessage) {
      sending_ = true;
      lock.unlock();
      Send();
      lock.lock();
    }
  }
  pumping_ = false;
}

}  // namespace bulkhead
