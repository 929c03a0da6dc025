// What modules may call on the supervisor (proto/bulkhead/host/v1), on one Unix socket for all of them. A caller is known by the
// token of its instance, sent as `x-bulkhead-token`; without a valid one every call is UNAUTHENTICATED.
// WatchFlags is answered from here; what is behind the others is given by On… and Serve…, and without it they are UNIMPLEMENTED.
// Thread-safe.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/base/clock.h"

namespace bulkhead {

class HostCache;  // host_cache.h
class HostFiles;  // host_files.h

// A feature flag as modules are told of it.
struct HostFlag {
  bool enabled = false;
  std::optional<int> percentage;
  std::vector<std::string> identities;
};

// A run that a module asks for (host.proto).
struct HostEnqueue {
  std::string job, payload_json;
  Millis delay{0};
  std::string unique_key;
  int priority = 0;
};

// A file that a run of a job has made (host.proto).
struct HostArtifact {
  std::string module, run_id;
  int64_t fence = 0;
  std::string name, content_type, data;
};

namespace limits {
inline constexpr int64_t kMaxUpload = 16 << 20;  // bytes of such a file; beyond: INVALID_ARGUMENT
}

class HostServer {
 public:
  using Enqueued = std::function<void(absl::Status status, const std::string& run_id, bool existed)>;  // once, any thread
  struct PublishedEvent {
    std::string module, topic, key, payload_json;
  };
  using PublishDone = std::function<void(absl::StatusOr<int64_t> id)>;  // once, any thread
  // `flags` are what WatchFlags answers. LISTEN_FAILED when the socket can't be made.
  static absl::StatusOr<std::unique_ptr<HostServer>> Listen(const std::string& socket, const std::map<std::string, HostFlag>& flags);
  virtual ~HostServer() = default;
  // They have changed: whoever watches is told. A module that reads slowly is told of the latest only.
  virtual void SetFlags(const std::map<std::string, HostFlag>& flags) = 0;
  // What answers Enqueue, on a gRPC thread; without it the call is UNIMPLEMENTED. Before the first instance.
  virtual void OnEnqueue(std::function<void(const std::string& module, HostEnqueue run, Enqueued done)> enqueue) = 0;
  // The same for Publish, which writes an event of `module` and answers with its number.
  virtual void OnPublish(std::function<void(PublishedEvent, PublishDone)> publish) = 0;
  // And for the calls of the cache, which must outlive the server.
  virtual void ServeCache(HostCache& cache) = 0;
  virtual void ServeFiles(HostFiles& files) = 0;  // the same
  using ArtifactDone = std::function<void(const absl::Status& status)>;  // once, any thread
  // The same for PutArtifact, with the whole file, of at most 16 MiB.
  virtual void OnArtifact(std::function<void(HostArtifact, ArtifactDone)> keep) = 0;
  struct Notice {
    std::string module, channel, message_json;
  };
  using NoticeDone = std::function<void(absl::StatusOr<std::string> run_id)>;  // once, any thread
  // The same for Notify of the service Notifications.
  virtual void OnNotify(std::function<void(Notice, NoticeDone)> notify) = 0;
  // An instance has been started with this token, or is gone.
  virtual void SetInstance(const std::string& token, const std::string& module, bool present) = 0;
  // Ends all calls. Blocking.
  virtual void Stop() = 0;
};

}  // namespace bulkhead
