// Calls of the module on its supervisor (proto/bulkhead/host/v1). Thread-safe; each call blocks.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "bulkhead/jobs.h"

namespace bulkhead::sdk {

class HostClient {
 public:
  // Connects when it is first needed. An empty socket: every call throws.
  HostClient(std::string host_socket, std::string token);
  ~HostClient();
  HostClient(const HostClient&) = delete;

  EnqueuedRun Enqueue(std::string_view job, std::string payload_json, const EnqueueOptions& options);
  // One file of an attempt, once it is stored.
  void PutArtifact(const std::string& run_id, int64_t fence, std::string_view name, std::string_view content_type, std::string_view bytes);
  // The id of the run that sends it, once that is queued.
  std::string Notify(std::string_view channel, std::string message_json);
  // The event's id, once it is stored.
  std::string Publish(std::string_view topic, std::string_view key, std::string payload_json);

 private:
  struct Connection;
  Connection& connection();

  const std::string host_socket_, token_;
  std::mutex mutex_;
  std::unique_ptr<Connection> connection_;
};

}  // namespace bulkhead::sdk
