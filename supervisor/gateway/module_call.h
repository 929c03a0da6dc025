// Calls of modules to modules, as they come in on the gateway's private socket: who calls, what he may, and what a call says of itself
// (proto/README.md, "Calling another module").
//
// An instance may call what its manifest declares below `dependencies.modules`, and nothing else. There it has the permissions that the called
// manifest declares as its own, in no call of anybody else: who depends on a module was accepted by the operator who enabled both.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "absl/status/statusor.h"
#include "supervisor/auth/identity.h"
#include "supervisor/base/guarded.h"
#include "supervisor/gateway/http1.h"
#include "supervisor/manifest/manifest.h"

namespace bulkhead {

// A running instance of a module.
struct ModuleCaller {
  std::shared_ptr<const Manifest> manifest;  // of the version that it runs
  std::string subject;                       // "module:orders"
};

// Those that run now, by the tokens of their handshakes. Thread-safe.
class ModuleCallers {
 public:
  void Add(const std::string& token, std::shared_ptr<const Manifest> manifest);
  void Remove(const std::string& token);
  // Null: no running instance has it.
  std::shared_ptr<const ModuleCaller> Find(std::string_view token) const;
  // Moves with each of them: who keeps an answer of Find() looks here before each use.
  uint64_t version() const { return version_.load(std::memory_order_acquire); }

 private:
  // By SHA-256, so that the time of a lookup tells nothing about a token.
  Guarded<std::unordered_map<std::string, std::shared_ptr<const ModuleCaller>>> callers_;
  std::atomic<uint64_t> version_{1};
};

// How many connections the socket has, of all and of each who connects: by his user where modules have users of their own, else by his
// process. So one module takes no connection from another. Thread-safe.
class ModuleConnections {
 public:
  // Counts a connection and says whose it is; nothing when there are too many (limits::kMaxModuleConnections, kMaxConnectionsPerModule).
  std::optional<uint64_t> Take(int fd);
  void Release(uint64_t peer);

 private:
  struct Counts {
    size_t all = 0;
    std::unordered_map<uint64_t, size_t> by_peer;
  };
  Guarded<Counts> counts_;
};

// What a request on the private socket says of itself. The views point into the head.
struct CallTerms {
  std::string_view token;         // empty: none, or more than one
  std::optional<Millis> timeout;  // what the caller has left for it
  int hops = 0;                   // calls behind it: 0 for the first module of a chain
};
// Reads `x-bulkhead-token`, `x-bulkhead-timeout-ms` and `x-bulkhead-hops`. INVALID_ARGUMENT, LOOP_DETECTED (limits::kMaxCallHops).
absl::StatusOr<CallTerms> ReadCallTerms(const http1::RequestHead& head);

// MODULE_NOT_A_DEPENDENCY, with a sentence that tells what belongs into the caller's manifest.
absl::Status MayCall(const Manifest& caller, std::string_view called);
// Who the caller is to the module that it calls.
Identity CallerIdentity(const ModuleCaller& caller, const Manifest& called);

}  // namespace bulkhead
