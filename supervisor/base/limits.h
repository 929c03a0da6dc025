// Every named limit of the supervisor that is not a manifest's or the configuration's to set, with what happens at it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "supervisor/base/clock.h"

namespace bulkhead::limits {

// HTTP from clients.
inline constexpr size_t kMaxHead = 64 * 1024;            // request line and headers; beyond: 431
inline constexpr size_t kMaxTarget = 8 * 1024;           // request target; beyond: 414
inline constexpr size_t kMaxHeaders = 100;               // header fields; beyond: 431
inline constexpr int64_t kDefaultBodyLimit = 1 << 20;    // request body of a route without `bodyLimit`; beyond: 413
inline constexpr int64_t kMaxBodyLimit = int64_t{1} << 30;  // what `bodyLimit` may ask for; a manifest beyond is invalid
inline constexpr size_t kAdminBodyLimit = 1 << 20;       // body of an admin request; beyond: 413
inline constexpr Millis kDefaultRouteTimeout{30'000};    // to the first response byte, for a route without `timeout`; beyond: 504
inline constexpr Millis kMaxRouteTimeout{3'600'000};
inline constexpr Millis kClientHeadTimeout{10'000};      // to receive a whole head; beyond: 408 and close
inline constexpr Millis kClientIdleTimeout{75'000};      // keep-alive without a request; beyond: close
inline constexpr Millis kClientBodyTimeout{30'000};      // without a byte of an expected body; beyond: 408 and close
inline constexpr Millis kTunnelIdleTimeout{300'000};     // an upgraded connection without a byte either way; beyond: close
inline constexpr size_t kMaxClientConnections = 16'384;  // per node; beyond: the newest is answered 503 and closed
inline constexpr size_t kMaxStreamsPerLink = 1'024;      // beyond: 503 OVERLOADED
inline constexpr int kRetryAfterSeconds = 1;             // Retry-After of a 503 while a module restarts
// Requests that wait for a worker to come back, per module and gateway thread; beyond: 503 at once.
inline constexpr size_t kMaxParkedRequests = 1'024;
inline constexpr size_t kMaxParkedBytes = 8 << 20;       // of their heads and first body bytes
inline constexpr Millis kParkTimeout{5'000};             // or the route's timeout, if that is less; beyond: 503

// Processes.
inline constexpr Millis kHandshakeTimeout{10'000};
inline constexpr Millis kStartTimeout{60'000};
inline constexpr Millis kStopTimeout{30'000};
inline constexpr Millis kDrainTimeout{10'000};           // in-flight requests of a worker that is leaving
inline constexpr Millis kTermGrace{5'000};               // between SIGTERM and the kill of the tree
inline constexpr Millis kShutdownBudget{28'000};         // whole daemon; `serve --help` promises 30 s
inline constexpr size_t kExitOutput = 64 * 1024;         // output kept with a crash report
inline constexpr size_t kMaxExits = 10;                  // crash reports kept per module
inline constexpr size_t kMaxLogLine = 16 * 1024;         // longer lines of a module are cut and marked
inline constexpr int kLogLinesPerSecond = 1'000;         // per worker process, both streams together; beyond: dropped and counted in one line
inline constexpr Millis kHealthInterval{10'000};
inline constexpr Millis kHealthTimeout{5'000};
inline constexpr Millis kFaultMemory{60'000};            // how long a worker is DEGRADED for breaking a rule of its link

// Restarts.
inline constexpr int kRestartBurst = 5;                  // immediate restarts within kRestartWindow
inline constexpr Millis kRestartWindow{30'000};
inline constexpr Millis kBackoffBase{1'000};             // doubled each time, full jitter
inline constexpr Millis kBackoffCap{60'000};
inline constexpr int kQuarantineWindows = 3;             // exhausted windows within kQuarantineSpan
inline constexpr Millis kQuarantineSpan{3'600'000};
inline constexpr Millis kQuarantineRetry{600'000};       // how often a quarantined slot is tried

// Migrations.
inline constexpr Millis kMigrationLockWait{60'000};      // for another supervisor that migrates the same; beyond: MIGRATION_LOCKED
inline constexpr Millis kMigrationStatementTimeout{3'600'000};  // of one statement, unless store.migrationTimeout says otherwise

// Calls.
inline constexpr Millis kDefaultWait{60'000};
inline constexpr Millis kMaxWait{600'000};
inline constexpr int kConnectionsPerWorker = 4;          // PostgreSQL connections of one module worker
inline constexpr size_t kMaxJobPayload = 256 * 1024;     // JSON bytes of a job's payload or result; beyond: 400, or the run fails
inline constexpr Millis kDefaultJobTimeout{300'000};

}  // namespace bulkhead::limits
