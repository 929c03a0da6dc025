// What modules may call on the supervisor (proto/bulkhead/host/v1), on one Unix socket for all of them. A caller is known by the
// token of its instance, sent as `x-bulkhead-token`; without a valid one every call is UNAUTHENTICATED.
// This version answers Publish, and WatchFlags again after each change; the other calls are UNIMPLEMENTED until the rooms behind them exist
// (proto/README.md).
// Thread-safe.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace bulkhead {

// A feature flag as modules are told of it.
struct HostFlag {
  bool enabled = false;
  std::optional<int> percentage;
  std::vector<std::string> identities;
};

class HostServer {
 public:
  // `flags` are what WatchFlags answers. LISTEN_FAILED when the socket can't be made.
  static absl::StatusOr<std::unique_ptr<HostServer>> Listen(const std::string& socket, const std::map<std::string, HostFlag>& flags);
  virtual ~HostServer() = default;
  // They have changed: whoever watches is told. A module that reads slowly is told of the latest only.
  virtual void SetFlags(const std::map<std::string, HostFlag>& flags) = 0;
  // An instance has been started with this token, or is gone.
  virtual void SetInstance(const std::string& token, const std::string& module, bool present) = 0;
  // What Publish does: writes an event of `module` and answers with its number. Before modules are started; until then UNAVAILABLE.
  struct PublishedEvent {
    std::string module, topic, key, payload_json;
  };
  using PublishDone = std::function<void(absl::StatusOr<int64_t>)>;
  virtual void OnPublish(std::function<void(PublishedEvent, PublishDone)> publish) = 0;
  // Ends all calls. Blocking.
  virtual void Stop() = 0;
};

}  // namespace bulkhead
