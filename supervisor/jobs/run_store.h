// The rows of bulkhead_internal.runs: all SQL of the jobs. Blocking; thread-safe. Leases and times are by the database's
// clock. A claim gives a new fence; whoever comes with an old one changes nothing.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "supervisor/jobs/jobs.h"

namespace bulkhead {

namespace limits {
inline constexpr Millis kRunLease{30'000};               // after which another node takes a run over
inline constexpr int kMaxWaitingRuns = 1'000;            // QUEUED ones of one job; beyond: OVERLOADED, and a tick is SKIPPED
inline constexpr int kMaxRunHistory = 1'000;             // ended runs kept per job; the oldest go
inline constexpr int kMinAttemptsAfterLoss = 4;          // attempts that a run gets although its workers keep dying under it
inline constexpr Millis kMaxInterruptedAge{86'400'000};  // a run that a shutdown interrupted longer ago is not taken up again
}  // namespace limits

// A run together with what only its executor needs.
struct ClaimedRun {
  RunView view;
  int64_t fence = 0;
  int max_attempts = 1;
};

struct RunClaim {  // a job that this node could run now
  std::string module, job, instance;
};

// How an attempt ended.
struct RunOutcome {
  enum class Kind {
    kFinal,     // `status` is the last word
    kRetry,     // queued again after `delay`
    kLost,      // the worker died: queued at once while attempts are left, else INTERRUPTED; the attempt counts
    kShutdown,  // INTERRUPTED; does not count; taken up again by the next node that looks
    kReturned,  // nothing happened to the work itself: queued at once; does not count
  };
  Kind kind = Kind::kFinal;
  RunStatus status = RunStatus::kFailed;
  Millis delay{0};
  std::optional<std::string> result_json;
  std::string error_code, error_message, error_stack;
  double progress = 0;           // of kFinal, as the module said it last
  std::string progress_message;
};

class RunStore {
 public:
  RunStore(Database& database, std::string node) : database_(database), node_(std::move(node)) {}

  // The tick `slot`, unless a node was first: nullopt then. With kSkip and a run under way or waiting: a SKIPPED row.
  // With kReplace, waiting scheduled runs of the job become SKIPPED.
  absl::StatusOr<std::optional<RunView>> InsertTick(const std::string& module, const JobSpec& spec, WallTime slot);
  // OVERLOADED beyond limits::kMaxWaitingRuns. `audit` is written in the same transaction, with the run's id as its target.
  absl::StatusOr<RunView> InsertManual(const std::string& module, const JobSpec& spec, const std::string& payload_json,
                                       const AuditRecord* audit = nullptr);
  absl::StatusOr<std::optional<WallTime>> LastSlot(const std::string& module, const std::string& job);

  // At most one waiting run of each, at most `limit`, never two of one job at a time in the whole cluster.
  absl::StatusOr<std::vector<ClaimedRun>> Claim(const std::vector<RunClaim>& claims, int limit);
  // nullopt when the fence is an old one. A result that jsonb can't hold makes the run FAILED with RESULT_INVALID.
  absl::StatusOr<std::optional<RunView>> Finish(const std::string& id, int64_t fence, const RunOutcome& outcome);
  absl::Status SetProgress(const std::string& id, int64_t fence, double progress, const std::string& message);

  struct Extended {
    int64_t fence = 0;
    bool newer_waits = false;  // a later run of the same job is queued
  };
  // Renews leases. Those missing in the answer are lost.
  absl::StatusOr<std::vector<Extended>> Extend(const std::vector<std::pair<std::string, int64_t>>& ids_and_fences);
  // Runs that expired anywhere, and those that a shutdown interrupted, become claimable; the number of them.
  absl::StatusOr<int> ReleaseExpired();
  // The same for what an earlier life of this node left RUNNING.
  absl::StatusOr<int> ReleaseOwn();
  absl::Status Trim(const std::string& module, const std::string& job);

  absl::StatusOr<RunView> Get(const std::string& id);  // RUN_NOT_FOUND
  absl::StatusOr<RunPage> List(const std::string& module, const std::string& job, std::optional<RunStatus> status, int page,
                               int page_size);

 private:
  Database& database_;
  const std::string node_;
};

}  // namespace bulkhead
