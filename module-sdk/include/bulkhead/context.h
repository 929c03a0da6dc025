// What the supervisor has given this module, and where the module registers what it offers. Lives from Initialize to the end
// of the process, so a module may keep a reference. Registration (router, jobs, events, health checks, instruments) only inside
// Module::Initialize; everything else from any thread.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bulkhead/cache.h"
#include "bulkhead/calls.h"
#include "bulkhead/client.h"
#include "bulkhead/database.h"
#include "bulkhead/events.h"
#include "bulkhead/files.h"
#include "bulkhead/jobs.h"
#include "bulkhead/log.h"
#include "bulkhead/router.h"

namespace bulkhead::sdk {

enum class HealthStatus { kHealthy = 1, kDegraded = 2, kUnhealthy = 3 };  // degraded: serves, but an operator should look

struct HealthResult {
  HealthStatus status = HealthStatus::kHealthy;
  std::string message;  // empty when healthy
};
// Called about every 10 s, each check on a thread of its own. One that throws is unhealthy with that text; one that takes
// over kHealthCheckTimeout is unhealthy "timed out" and not called again before it returns.
using HealthCheck = std::function<HealthResult()>;
inline constexpr std::chrono::milliseconds kHealthCheckTimeout{3'000};
inline constexpr size_t kMaxHealthChecks = 32;

// Instruments that appear under `custom` of the module's metrics. Lock-free; any thread.
class Counter {  // only grows, from the start of the process
 public:
  void Add(double by = 1) { value_.fetch_add(by, std::memory_order_relaxed); }
  double value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<double> value_{0};
};
class Gauge {  // the value now
 public:
  void Set(double to) { value_.store(to, std::memory_order_relaxed); }
  void Add(double by) { value_.fetch_add(by, std::memory_order_relaxed); }
  double value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<double> value_{0};
};

// A notification. For "smtp": `to`, `subject`, `text` or `html` or both. For a webhook, whose body is JSON with these fields: whatever is set, and any `data`.
struct Notification {
  std::string channel;          // "smtp" or "webhook:NAME", as the manifest's `capabilities.notifications` names it
  std::vector<std::string> to;  // up to 50 plain addresses, name@host
  std::string subject, text, html;
  Json data = nullptr;
};

class Context {
 public:
  virtual ~Context() = default;
  virtual const std::string& module() const = 0;             // name from the manifest
  virtual const std::string& version() const = 0;            // version from the manifest
  virtual int slot() const = 0;                              // worker number, from 0
  virtual const std::vector<std::string>& args() const = 0;  // the manifest's `args`, without argv[0]
  virtual const std::string& data_dir() const = 0;           // a writable folder of the module's own that outlives restarts
  virtual const std::string& schema() const = 0;             // the module's schema; empty without database

  // The configuration in force, an object; a copy, because OnConfigure may replace it.
  virtual Json config() const = 0;
  virtual int64_t config_revision() const = 0;
  // A feature flag now; `fallback` when the supervisor does not know it. Names that differ in letter case, "-", "." and "_" are one.
  virtual bool flag(std::string_view name, bool fallback = false) const = 0;
  // The same for somebody, such as a request's subject: a flag may be on for some identities, or for a share of them.
  virtual bool flag_for(std::string_view name, std::string_view identity, bool fallback = false) const = 0;

  virtual bool has_database() const = 0;
  virtual Database& database() = 0;  // throws ConfigError when the manifest has no `database`
  // A service that `capabilities.clients` of the manifest names. Throws ConfigError when it does not, or when it is optional and the operator
  // has not configured it. The reference stays valid.
  virtual ServiceClient& client(std::string_view name) = 0;
  virtual bool has_client(std::string_view name) const = 0;
  virtual const Logger& log() const = 0;

  // Another module, which must stand below `dependencies.modules` of this one's manifest; see calls.h. From any thread.
  virtual ModuleClient modules(std::string_view name) = 0;
  virtual Cache& cache() = 0;
  virtual Files& files() = 0;

  virtual Router& router() = 0;
  virtual Jobs& jobs() = 0;
  // Queues a run of one of the module's own jobs, which the supervisor begins at once or after `delay`. Blocks, for 5 s at most. Throws
  // HostError. `payload` is at most 256 KiB as JSON.
  virtual EnqueuedRun Enqueue(std::string_view job, const Json& payload = nullptr, const EnqueueOptions& options = {}) = 0;
  // The same inside a transaction of the module's: the run begins when that has been committed, and there is none when it is rolled back. The id
  // is that of the run, or of the one that waits under the key. Throws DatabaseError.
  virtual std::string Enqueue(Transaction& transaction, std::string_view job, const Json& payload = nullptr, const EnqueueOptions& options = {}) = 0;
  // Has the supervisor send a notification, which it tries again until it is taken or refused; who gets it may get it twice. The id of the run that sends
  // it. Blocks, for 5 s at most. Throws HostError: a channel that the manifest does not name, a message that is no good, over 100 a minute.
  virtual std::string Notify(const Notification& notification) = 0;
  // The same inside a transaction of the module's: it is sent when that has been committed, and never when it is rolled back. Throws DatabaseError.
  virtual std::string Notify(Transaction& transaction, const Notification& notification) = 0;
  virtual Events& events() = 0;
  // Whether this module does the event for the first time. It is remembered with `transaction`, so that the effects of a handler and that it has
  // had them commit together: false, and the handler has nothing to do any more. Of two at once the second waits for the first.
  bool once(const Event& event, Transaction& transaction) const {
    return transaction.Query("SELECT bulkhead.once($1)", {event.id}).front().Get<bool>(0);
  }
  // "database" is there by itself when the module has one. Throws std::invalid_argument for a doubled name or beyond
  // kMaxHealthChecks.
  virtual void AddHealthCheck(std::string name, HealthCheck check) = 0;
  // The instrument of that name, made on first use; the reference stays valid. Inside Initialize only.
  virtual Counter& counter(std::string name) = 0;
  virtual Gauge& gauge(std::string name) = 0;

  // Threads for handlers that are not Inline() and how many requests may wait for one; beyond: 503 OVERLOADED. Inside
  // Initialize only. Default 8 and 1,024. Throws std::invalid_argument outside 1 to 256 threads and 1 to 65,536 waiting.
  virtual void SetWorkers(int threads, int max_waiting) = 0;
};

}  // namespace bulkhead::sdk
