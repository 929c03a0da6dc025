// Follows the supervisor's feature flags (Host.WatchFlags) from the start of the module to its end. When the stream breaks it is opened
// again; until then the last flags count.
#pragma once

#include <grpcpp/client_context.h>

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "bulkhead/host/v1/host.pb.h"

namespace bulkhead::sdk {

struct FlagState {
  bool enabled = false;
  std::optional<int> percentage;
  std::vector<std::string> identities;
  bool operator==(const FlagState&) const = default;
};
// By the name of the flag's environment variable, under which spellings of one name meet.
using FlagStates = std::map<std::string, FlagState, std::less<>>;

// As Initialize and Host.WatchFlags tell them.
FlagStates FlagStatesOf(const google::protobuf::Map<std::string, bool>& flags,
                        const google::protobuf::Map<std::string, ::bulkhead::host::v1::FlagRule>& rules);

std::string FlagVariable(std::string_view name);  // "FEATURE_FLAG_NEW_PRICING"
// Whether a flag is on for an identity, as host.proto says.
bool FlagOnFor(const FlagState& flag, std::string_view name, std::string_view identity);

class FlagWatch {
 public:
  // `changed` is called on a thread of the watch's own, with all flags, first soon after the construction.
  FlagWatch(const std::string& host_socket, std::string token, std::function<void(FlagStates)> changed);
  ~FlagWatch();  // waits until `changed` is not running and never called again
  FlagWatch(const FlagWatch&) = delete;

 private:
  void Follow(const std::string& host_socket);

  const std::string token_;
  const std::function<void(FlagStates)> changed_;
  std::mutex mutex_;
  std::condition_variable stop_;
  bool stopping_ = false;
  grpc::ClientContext* stream_ = nullptr;  // of the open one
  std::thread thread_;
};

}  // namespace bulkhead::sdk
