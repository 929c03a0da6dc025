#include "flag_watch.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>

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

FlagWatch::FlagWatch(const std::string& host_socket, std::string token, std::function<void(FlagStates)> changed)
    : token_(std::move(token)), changed_(std::move(changed)), thread_([this, host_socket] { Follow(host_socket); }) {}

FlagWatch::~FlagWatch() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    if (stream_ != nullptr) stream_->TryCancel();
  }
  stop_.notify_all();
  thread_.join();
}

void FlagWatch::Follow(const std::string& host_socket) {
  const auto stub = host_pb::Host::NewStub(grpc::CreateChannel("unix:" + host_socket, grpc::InsecureChannelCredentials()));
  std::chrono::milliseconds wait = kFirstRetry;
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    grpc::ClientContext context;
    context.AddMetadata("x-bulkhead-token", token_);
    stream_ = &context;
    lock.unlock();
    auto reader = stub->WatchFlags(&context, host_pb::WatchFlagsRequest());
    for (host_pb::Flags message; reader->Read(&message);) {
      wait = kFirstRetry;
      changed_(FlagStatesOf(message.flags(), message.rules()));
    }
    reader->Finish();
    lock.lock();
    stream_ = nullptr;
    stop_.wait_for(lock, wait, [this] { return stopping_; });
    wait = std::min(wait * 2, kLastRetry);
  }
}

}  // namespace bulkhead::sdk
