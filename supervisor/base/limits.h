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
// An expected body has so much time at first; each byte buys more of it at this rate, up to no more than that again. So who is silent
// for 30 s, or slower for long, is answered 408 and closed; who sends 1,920 bytes at once may then rest for 30 s. The time in which the
// module takes nothing, or the request is parked, does not count.
inline constexpr Millis kClientBodyTimeout{30'000};
inline constexpr int64_t kMinBodyRate = 64;              // bytes per second, framing included
inline constexpr Millis kTunnelIdleTimeout{300'000};     // an upgraded connection without a byte either way; beyond: close
inline constexpr size_t kMaxClientConnections = 16'384;  // per node; beyond: the newest is answered 503 and closed
inline constexpr size_t kMaxStreamsPerLink = 1'024;      // beyond: 503 OVERLOADED
// Calls from module to module, which have a socket of their own.
inline constexpr size_t kMaxModuleConnections = 4'096;   // per node; beyond: the newest is answered 503 and closed
inline constexpr size_t kMaxConnectionsPerModule = 1'024;  // of them; the same
inline constexpr int kMaxCallHops = 8;                   // calls behind one another; beyond: 508
inline constexpr int kRetryAfterSeconds = 1;             // Retry-After of a 503 while a module restarts
// Requests that wait for a worker to come back, per module and gateway thread; beyond: 503 at once.
inline constexpr size_t kMaxParkedRequests = 1'024;
inline constexpr size_t kMaxParkedBytes = 8 << 20;       // of their heads and first body bytes
inline constexpr Millis kParkTimeout{5'000};             // or the route's timeout, if that is less; beyond: 503
// Requests that are sent once more because their worker was lost, per module and gateway thread: a share of all that are sent, and so many
// per second in any case, which are saved up for kRetrySaving. As many as one worker can lose at once, at most. Beyond: 503.
inline constexpr double kRetryShare = 0.2;
inline constexpr double kRetriesPerSecond = 10;
inline constexpr Millis kRetrySaving{10'000};
inline constexpr double kMaxRetries = static_cast<double>(kMaxStreamsPerLink);

// Processes.
inline constexpr Millis kHandshakeTimeout{10'000};
inline constexpr Millis kStartTimeout{60'000};
inline constexpr Millis kStopTimeout{30'000};
inline constexpr Millis kDrainTimeout{10'000};           // in-flight requests of a worker that is leaving
inline constexpr Millis kTunnelGoodbye{1'500};           // its end, in which WebSockets are closed with 1001; at most half of it
inline constexpr Millis kSoakTime{30'000};               // in which a new version that does not do well is taken back
inline constexpr Millis kUpgradeWriteRetry{1'000};       // until the database takes how an upgrade ended
inline constexpr Millis kTermGrace{5'000};               // between SIGTERM and the kill of the tree
inline constexpr Millis kShutdownBudget{28'000};         // whole daemon; `serve --help` promises 30 s
inline constexpr Millis kHastenedBudget{8'000};          // after a second signal; beyond: the spawner is left to end the rest
inline constexpr Millis kHastenedWork{1'000};            // of those, for work on the database when all else has ended
inline constexpr Millis kKillPatience{2'000};            // after SIGKILL; beyond: stuck in the kernel, and a shutdown goes on without it
inline constexpr Millis kSpawnerLostBudget{5'000};       // from the spawner's end to the daemon's; beyond: it leaves at once
// A service manager. A pool that has work waiting while each of its threads has been busy for so long is stuck, unless a migration runs: a
// lost database lets go of a thread within half of it.
inline constexpr Millis kPoolPatience{60'000};
inline constexpr Millis kExtendStart{30'000};            // by so much a start is prolonged, again and again, while a migration runs
inline constexpr size_t kExitOutput = 64 * 1024;         // output kept with a crash report
inline constexpr size_t kMaxExits = 10;                  // crash reports kept per module
inline constexpr size_t kMaxLogLine = 16 * 1024;         // longer lines of a module are cut and marked
inline constexpr int kLogLinesPerSecond = 1'000;         // per worker process, both streams together; beyond: dropped and counted in one line
inline constexpr size_t kLogBytesPerSecond = 512 * 1024;  // the same, for lines that are long
// Logs of modules. In memory for each module its last lines, for those who follow; older ones, and all after a restart, from its files.
inline constexpr size_t kLogRingLines = 2'000;
inline constexpr size_t kLogRingBytes = 1 << 20;
inline constexpr int kLogFiles = 4;                      // per module, unless log.moduleFiles says otherwise; the oldest goes when there would be more
inline constexpr int kMaxLogFiles = 1'000;               // what log.moduleFiles may be; 0: no files
inline constexpr int64_t kLogFileSize = 8 << 20;         // bytes, unless log.moduleFileSize says otherwise; a line beyond begins the next file
inline constexpr int64_t kMinLogFileSize = 256 << 10;    // what log.moduleFileSize may be
inline constexpr int64_t kMaxLogFileSize = int64_t{1} << 30;
inline constexpr size_t kMaxUnwrittenLogs = 8 << 20;     // bytes of lines that wait for their file, of all modules; beyond: not in the file, counted
inline constexpr Millis kLogFileRetry{10'000};           // between two tries to write where it has failed; what comes meanwhile is not in the file
inline constexpr Millis kLogWriteWait{2'000};            // that a reader of files gives to lines on their way there; beyond: without them
inline constexpr int kLogReaders = 2;                    // requests that read files at a time
inline constexpr size_t kMaxQueuedLogReads = 256;        // beyond: 503 OVERLOADED
inline constexpr int kLogTail = 200;                     // lines of an answer without `tail`
inline constexpr int kMaxLogTail = 5'000;                // what `tail` may be; beyond: 400
inline constexpr size_t kMaxLogAnswer = 3 << 20;         // bytes of one answer with lines; beyond: fewer lines, and a cursor for the rest
// Health: what a manifest's `health` is by default, and what it may ask for; a manifest beyond is invalid.
inline constexpr Millis kHealthInterval{10'000};
inline constexpr Millis kHealthTimeout{5'000};
inline constexpr int kHealthFailures = 3;                // in a row, until a worker is not ready, or is ended
inline constexpr Millis kStartupInterval{1'000};         // with `health.startup`
inline constexpr int kStartupFailures = 30;              // beyond: START_TIMEOUT
inline constexpr Millis kMinHealthInterval{100};
inline constexpr Millis kMaxHealthInterval{3'600'000};   // also of a timeout
inline constexpr Millis kMinHealthTimeout{10};
inline constexpr int kMaxHealthThreshold = 1'000;
// A worker that its CPU limit holds back has the time that it was held back for on top of each timeout of its liveness, but who has been
// silent for so long is ended all the same.
inline constexpr Millis kThrottledGrace{600'000};
inline constexpr Millis kConfigureTimeout{10'000};       // for a module to take or refuse a new configuration; beyond: refused
inline constexpr Millis kFaultMemory{60'000};            // how long a worker is DEGRADED for breaking a rule of its link
inline constexpr Millis kFloodMemory{3'000};             // how long a worker is DEGRADED after its log was limited
// What a module's process may use where its manifest says nothing (status: rlimits, cgroup.pids, tmp).
inline constexpr int kModuleFiles = 16'384;              // open descriptors; beyond: EMFILE
inline constexpr int64_t kModuleFileBytes = int64_t{16} << 30;  // one file; beyond: SIGXFSZ, which ends it unless it is caught, and EFBIG
inline constexpr int kModulePids = 4'096;                // processes and threads without `limits.pids`; beyond: EAGAIN
inline constexpr char kSharedMemoryOptions[] = "mode=1777,size=1g";  // of its /dev/shm, as root; beyond: ENOSPC. It counts for limits.memory
inline constexpr size_t kKeptNetworks = 64;              // network namespaces kept for modules that don't run; beyond: made anew at the next start
// Uids of modules, as root without isolation.uids: each daemon takes one of so many ranges. All taken: UIDS_TAKEN.
inline constexpr uint32_t kFirstModuleUid = 200'000;
inline constexpr uint32_t kUidsPerDaemon = 1'000;        // modules ever registered; beyond: UIDS_EXHAUSTED
inline constexpr uint32_t kUidRanges = 20'000;
inline constexpr Millis kUidClaimWait{15'000};           // for what a predecessor on the data folder left to end; beyond: another range

// Restarts: what a manifest's `restart` is by default, and what it may ask for; a manifest beyond is invalid.
inline constexpr int kRestartBurst = 5;                  // immediate restarts within kRestartWindow
inline constexpr int kMaxRestartBurst = 1'000;
inline constexpr Millis kRestartWindow{30'000};
inline constexpr Millis kMinRestartWindow{1'000}, kMaxRestartWindow{3'600'000};
inline constexpr Millis kMinRestartSpacing{100};         // what a window must have for each start of its burst
inline constexpr Millis kBackoffBase{1'000};             // multiplied by the factor each time, full jitter
inline constexpr Millis kBackoffCap{60'000};
inline constexpr Millis kMinBackoff{100}, kMaxBackoff{3'600'000};  // of both
inline constexpr double kBackoffFactor = 2, kMaxBackoffFactor = 10;
inline constexpr int kQuarantineWindows = 3;             // exhausted windows within kQuarantineSpan
inline constexpr int kMaxQuarantineWindows = 100;
inline constexpr Millis kQuarantineSpan{3'600'000};
inline constexpr Millis kMaxQuarantineSpan{7 * 86'400'000};
inline constexpr Millis kQuarantineRetry{600'000};       // how often a quarantined slot is tried
inline constexpr Millis kMinQuarantineRetry{1'000}, kMaxQuarantineRetry{86'400'000};
inline constexpr Millis kMinResetAfter{1'000}, kMaxResetAfter{7 * 86'400'000};  // healthy for so long clears the slate; by default 2×cap
inline constexpr int kMaxWorkers = 32;                   // of one module; beyond: the manifest is invalid, or 400

// Migrations.
inline constexpr Millis kMigrationLockWait{60'000};      // for another supervisor that migrates the same; beyond: MIGRATION_LOCKED
inline constexpr Millis kMigrationStatementTimeout{3'600'000};  // of one statement, unless store.migrationTimeout says otherwise

// The store.
inline constexpr size_t kMaxExtensions = 64;             // that store.extensions may name; beyond: CONFIG_INVALID

// Answers that go on (server streams of the admin API).
inline constexpr size_t kMaxStreams = 256;               // per node; beyond: 503 OVERLOADED
inline constexpr size_t kMaxStreamsPerCaller = 32;       // beyond: 429 TOO_MANY_STREAMS
inline constexpr size_t kStreamRoom = 64 * 1024;         // unsent bytes of one client; while there are more, nothing more is fetched for it
inline constexpr Millis kStreamHeartbeat{15'000};        // without an event: a comment, so that nobody between takes the connection for dead
inline constexpr Millis kStreamCheck{5'000};             // how long the caller's right to a stream is taken for granted between two messages

// Calls.
inline constexpr Millis kDefaultWait{60'000};
inline constexpr Millis kMaxWait{600'000};
inline constexpr size_t kMaxFollowed = 256;              // calls per module answered 202 whose outcome the audit waits for; beyond: their acceptance alone
inline constexpr int kConnectionsPerWorker = 4;          // PostgreSQL connections of one module worker
inline constexpr size_t kMaxJobPayload = 256 * 1024;     // JSON bytes of a job's payload or result; beyond: 400, or the run fails
inline constexpr Millis kDefaultJobTimeout{300'000};

// Events.
inline constexpr Millis kEventsKept{int64_t{7} * 86'400'000};         // of what every subscriber has, unless events.keep says otherwise
inline constexpr Millis kEventsKeptUnread{int64_t{30} * 86'400'000};  // of what one has not, which is disabled, unless events.keepUnread says otherwise

// The cache that the workers of a module share.
inline constexpr int64_t kCacheBytes = int64_t{256} << 20;           // of all modules, unless cache.maxBytes says otherwise; beyond: entries go
inline constexpr int64_t kCacheBytesPerModule = int64_t{64} << 20;   // unless cache.maxBytesPerModule says otherwise
inline constexpr int64_t kMinCacheBytes = int64_t{1} << 20;          // what these may be, but for 0; below or beyond: CONFIG_INVALID
inline constexpr int64_t kMaxCacheBytes = int64_t{1} << 40;

// Authentication.
inline constexpr size_t kMaxJwt = 8 * 1024;              // bytes of a JSON Web Token; beyond: 401
inline constexpr size_t kMaxJwtDepth = 16;               // nesting of its header and claims; beyond: 401
inline constexpr Millis kMaxClockSkew{300'000};          // what auth.jwt.clockSkew may be; beyond: CONFIG_INVALID
inline constexpr size_t kMaxVerifiedTokens = 16'384;     // verified JWTs that are remembered; beyond: an older one is verified again
inline constexpr size_t kMaxVerifications = 4'096;       // JWTs that wait for their verification; beyond: 503 OVERLOADED
inline constexpr size_t kMaxJwks = 256 * 1024;           // bytes of a key set behind a URL; beyond: the last good set is kept
inline constexpr size_t kMaxKeys = 64;                   // of one key set; beyond: the last good set is kept
inline constexpr Millis kJwksTimeout{5'000};             // for the whole fetch; beyond: the last good set is kept
inline constexpr Millis kJwksPause{10'000};              // between two fetches because of an unknown `kid`; within: the token is refused
inline constexpr Millis kAccessTokenLife{900'000};       // of a user's access token
inline constexpr Millis kRefreshTokenLife{int64_t{30} * 24 * 3'600'000};
inline constexpr Millis kLastUsedInterval{60'000};       // how often `lastUsedAt` of the API tokens is written
inline constexpr Millis kStorePoll{2'000};               // how late a node notices what another one changed of tokens, users, roles and flags
inline constexpr size_t kMinPassword = 12;               // characters; below or beyond: 400
inline constexpr size_t kMaxPassword = 256;
inline constexpr int kParallelHashes = 2;                // passwords hashed at a time, 19 MiB each
inline constexpr size_t kMaxQueuedHashes = 64;           // beyond: 503 OVERLOADED
inline constexpr int64_t kLoginBodyLimit = 16 * 1024;    // body of a request that needs no token; beyond: 413
// Tries that fail: so many are free, then each failure doubles the wait for the next one, from the first pause up to the last;
// within it: 429 with Retry-After. A key that has not failed for kAttemptMemory is forgotten.
inline constexpr int kFreeLoginsPerUser = 5;
inline constexpr int kFreeLoginsPerAddress = 20;
inline constexpr int kFreeBadTokensPerAddress = 100;     // valid tokens from there are never refused
inline constexpr Millis kAttemptPause{1'000};
inline constexpr Millis kMaxAttemptPause{900'000};
inline constexpr Millis kAttemptMemory{900'000};
inline constexpr size_t kMaxAttemptKeys = 10'000;        // of each kind; beyond: the one that failed longest ago is forgotten

// Telemetry. Labels: a module may have so many pairs of route and method in the metrics, and so many modules may; those beyond share one meter
// whose route (or module) is "_overflow".
inline constexpr size_t kMaxMetersPerModule = 256;
inline constexpr size_t kMaxMeteredModules = 512;
inline constexpr size_t kMaxJobMeters = 4'096;           // jobs of all modules; beyond: counted together as "_overflow"
inline constexpr size_t kMaxInstruments = 1'000;         // own counters and gauges of one worker that are shown; beyond: left out, and their number told
inline constexpr size_t kMaxInstrumentName = 120;        // bytes; a longer one is left out, as is one that is no [a-zA-Z_][a-zA-Z0-9_]*
inline constexpr Millis kMetricsTimeout{1'000};          // for a worker to answer Metrics; beyond: its last values are shown, with their age
inline constexpr Millis kMetricsCache{5'000};            // Metrics is called at most once in this time, whoever asks
inline constexpr size_t kMaxMeteredWorkers = 1'024;      // that are asked; beyond: left out
inline constexpr size_t kMaxTracestate = 512;            // bytes that are passed on; beyond: long members go, then the last ones
inline constexpr size_t kMaxTracestateMembers = 32;      // beyond: none is passed on
inline constexpr size_t kMaxQueuedSpans = 8'192;         // that wait for their export; beyond: dropped and counted
inline constexpr size_t kMaxSpanBatch = 512;             // spans in one export
inline constexpr size_t kMaxSpanEvents = 16;             // of one span; beyond: left out
inline constexpr size_t kMaxSpanText = 1'024;            // bytes of one attribute; beyond: cut
inline constexpr Millis kSpanDelay{1'000};               // how long a span waits for others
inline constexpr Millis kExportTimeout{10'000};          // of one export; beyond: tried again
inline constexpr int kMaxExportTries = 5;                // of one batch; beyond: its spans are dropped and counted
inline constexpr Millis kExportBackoff{1'000};           // before the second try, doubled each time, full jitter; or the collector's Retry-After
inline constexpr Millis kMaxExportBackoff{30'000};       // also of a Retry-After
inline constexpr Millis kExportFlush{2'000};             // at a shutdown, for what still waits
inline constexpr size_t kMaxExportAnswer = 64 * 1024;    // bytes of a collector's answer that are read
inline constexpr size_t kMaxOtlpHeaders = 16;            // of telemetry.otlp.headers; beyond: CONFIG_INVALID
inline constexpr size_t kMaxQueuedAccess = 8'192;        // lines of the access log that wait to be written; beyond: dropped and counted
inline constexpr size_t kAccessErrorsPerSecond = 1'000;  // with log.access: errors; beyond: dropped and counted

}  // namespace bulkhead::limits
