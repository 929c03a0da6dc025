#include "flag_watch.h"

#include <grpcpp/alarm.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>

#include "bulkhead/host/v1/host.grpc.pb.h"

namespace bulkhead::sdk {

namespace host_pb = ::bulkhead::host::v1;

namespace {

constexpr std::chrono::milliseconds kFirstRetry{200}, kLastRetry{10'000};  // doubled each time, until a message has come

}  // namespace

FlagStates FlagStatesOf(const google::protobuf::Map<std::string, bool>& flags,
                        const google::protobuf::Map<std::string, host_pb::FlagRule>& rules) {
  FlagStates states;
  for (const auto& [name, enabled] : flags) {
    FlagState& state = states[FlagVariable(name)];
    state.enabled = enabled;
    auto rule = rules.find(name);
    if (rule == rules.end()) continue;
    if (rule->second.has_percentage()) state.percentage = rule->second.percentage();
    state.identities.assign(rule->second.identities().begin(), rule->second.identities().end());
  }
  return states;
}

std::string FlagVariable(std::string_view name) {
  std::string variable = "FEATURE_FLAG_";
  for (char c : name) variable += c == '-' || c == '.' ? '_' : c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  return variable;
}

bool FlagOnFor(const FlagState& flag, std::string_view name, std::string_view identity) {
  if (!flag.enabled) return false;
  if (std::find(flag.identities.begin(), flag.identities.end(), identity) != flag.identities.end()) return true;
  if (!flag.percentage) return flag.identities.empty();
  uint64_t hash = 14695981039346656037u;
  auto mix = [&](std::string_view text) {
    for (unsigned char c : text) hash = (hash ^ c) * 1099511628211u;
  };
  mix(FlagVariable(name));
  mix("/");
  mix(identity);
  hash ^= hash >> 33;
  hash *= 0xff51afd7ed558ccdu;
  hash ^= hash >> 33;
  return hash % 100 < static_cast<uint64_t>(std::max(*flag.percentage, 0));
}

struct FlagWatch::Connection {
  std::unique_ptr<host_pb::Host::Stub> stub;
};

// What the streams share with their owner, who may be gone before the last of them.
struct FlagWatch::State : std::enable_shared_from_this<FlagWatch::State> {
  std::string token;
  std::function<void(FlagStates)> changed;
  host_pb::Host::Stub* stub = nullptr;
  std::mutex mutex;
  std::condition_variable idle;
  bool stopping = false;
  bool telling = false;
  Stream* stream = nullptr;  // the open one
  grpc::Alarm retry;
  bool retrying = false;
  std::chrono::milliseconds wait = kFirstRetry;

  void Open();  // under the lock
  void Tell(const host_pb::Flags& message) {
    {
      std::lock_guard lock(mutex);
      if (stopping) return;
      telling = true;
      wait = kFirstRetry;
    }
    changed(FlagStatesOf(message.flags(), message.rules()));
    std::lock_guard lock(mutex);
    telling = false;
    idle.notify_all();
  }
  void Ended() {
    std::lock_guard lock(mutex);
    stream = nullptr;
    if (stopping) return idle.notify_all();
    retrying = true;
    retry.Set(std::chrono::system_clock::now() + wait, [self = shared_from_this()](bool) {
      std::lock_guard lock(self->mutex);
      self->retrying = false;
      self->stopping ? self->idle.notify_all() : self->Open();
    });
    wait = std::min(wait * 2, kLastRetry);
  }
};

class FlagWatch::Stream final : public grpc::ClientReadReactor<host_pb::Flags> {
 public:
  explicit Stream(std::shared_ptr<State> state) : state_(std::move(state)) {
    context_.AddMetadata("x-bulkhead-token", state_->token);
    state_->stub->async()->WatchFlags(&context_, &request_, this);
    StartRead(&message_);
    StartCall();
  }
  void Cancel() { context_.TryCancel(); }
  void OnReadDone(bool ok) override {
    if (!ok) return;
    state_->Tell(message_);
    StartRead(&message_);
  }
  void OnDone(const grpc::Status&) override {
    // The context, which holds the channel, goes first: the last channel may not go on one of gRPC's own threads.
    const std::shared_ptr<State> state = state_;
    delete this;
    state->Ended();
  }

 private:
  const std::shared_ptr<State> state_;
  grpc::ClientContext context_;
  host_pb::WatchFlagsRequest request_;
  host_pb::Flags message_;
};

void FlagWatch::State::Open() { stream = new Stream(shared_from_this()); }

FlagWatch::FlagWatch(const std::string& host_socket, const std::string& token, std::function<void(FlagStates)> changed)
    : connection_(std::make_unique<Connection>()), state_(std::make_shared<State>()) {
  state_->token = token;
  state_->changed = std::move(changed);
  connection_->stub = host_pb::Host::NewStub(grpc::CreateChannel("unix:" + host_socket, grpc::InsecureChannelCredentials()));
  state_->stub = connection_->stub.get();
  std::lock_guard lock(state_->mutex);
  state_->Open();
}

FlagWatch::~FlagWatch() {
  std::unique_lock lock(state_->mutex);
  state_->stopping = true;
  if (state_->stream != nullptr) state_->stream->Cancel();
  if (state_->retrying) state_->retry.Cancel();
  state_->idle.wait(lock, [&] { return state_->stream == nullptr && !state_->retrying && !state_->telling; });
}

}  // namespace bulkhead::sdk
