// Calls of other modules over the gateway's private socket (proto/README.md, "Calling another module"): HTTP/1.1 on kept connections.
// Thread-safe; each call blocks its thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "bulkhead/calls.h"

namespace bulkhead::sdk {

inline constexpr int kMaxCalls = 128;       // of a process at a time; beyond, a call waits within its time
inline constexpr size_t kMaxIdleCalls = 32;  // connections that are kept
inline constexpr std::chrono::seconds kMaxCallIdle{60};  // the gateway closes after 75 s

class ModuleCalls {
 public:
  using Clock = std::chrono::steady_clock;

  // An empty socket: the supervisor has none, and every call throws.
  ModuleCalls(std::string socket, std::string token) : socket_(std::move(socket)), token_(std::move(token)) {}
  ~ModuleCalls();
  ModuleCalls(const ModuleCalls&) = delete;

  CallAnswer Call(const std::string& module, std::string_view method, std::string_view path, std::string_view body, const CallOptions& options);

 private:
  struct Connection;
  struct Kept {
    int fd;
    Clock::time_point since;
  };
  class Turn;
  Connection Take(bool fresh, Clock::time_point deadline);
  void Keep(int fd);
  std::string Head(const std::string& module, std::string_view method, std::string_view path, size_t body, const CallOptions& options,
                   std::chrono::milliseconds left) const;

  const std::string socket_, token_;
  std::mutex mutex_;
  std::condition_variable room_;
  int running_ = 0;
  std::vector<Kept> idle_;  // the last used is taken first
};

}  // namespace bulkhead::sdk
