// The admin API: gRPC services on adminListen with reflection and health, and the same services as REST through the
// in-process channel (decision 6). Owns its threads. Every handler begins with the guard.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "supervisor/auth/accounts.h"
#include "supervisor/admin/metrics.h"
#include "supervisor/admin/records.h"
#include "supervisor/auth/authenticator.h"
#include "supervisor/base/blocking_pool.h"
#include "supervisor/base/fd.h"
#include "supervisor/events/event_queries.h"
#include "supervisor/gateway/local_service.h"
#include "supervisor/flags/flags.h"
#include "supervisor/jobs/jobs.h"
#include "supervisor/lifecycle/modules.h"
#include "supervisor/logs/module_logs.h"
#include "supervisor/store/module_migrations.h"

namespace bulkhead {

// What /readyz and /health say; set by the daemon, read by any thread.
struct NodeStatus {
  std::atomic<bool> ready{false};
  std::atomic<bool> stopping{false};
  WallTime started_at;
  std::string environment;  // "production" unless BULKHEAD_ENVIRONMENT says otherwise
};

class Admin : public LocalService {
 public:
  struct Parts {
    Authenticator& authenticator;
    Accounts& accounts;
    Modules& modules;
    Jobs& jobs;
    BlockingPool& pool;
    const Clock& clock;
    const NodeStatus& node;
    ModuleMigrations& migrations;
    Flags& flags;
    Records& records;
    ModuleLogs& logs;
    EventQueries& events;
    MetricsSources metrics = {};
    HostFiles* files = nullptr;  // without them there is no service Files
  };
  // Whether `listen` can be bound now: LISTEN_FAILED names address and reason. gRPC can bind only when it serves, which is late.
  static absl::Status CheckListen(const std::string& listen);
  // Binds `listen` (LISTEN_FAILED names address and reason) and serves; with `given`, a listening socket that somebody else has bound and keeps,
  // on that instead. Handle() may be called from then on.
  static absl::StatusOr<std::unique_ptr<Admin>> Serve(const std::string& listen, Parts parts, UniqueFd given = {});
  virtual std::string address() const = 0;
  // Ends the answers that go on, each client told; new ones are refused. Before the gateway stops, so that there is somebody who tells.
  virtual void EndStreams() = 0;
  // Ends calls after `grace`, joins. Blocking.
  virtual void Stop(Millis grace) = 0;
};

}  // namespace bulkhead
