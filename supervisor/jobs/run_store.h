// The rows of bulkhead_internal.runs: all SQL of the jobs (what claims and closes runs is in migrations/0015_jobs.sql). Blocking; thread-safe.
// Leases and times are by the database's clock. A claim gives a new fence; whoever comes with an old one changes nothing.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "supervisor/jobs/jobs.h"

namespace bulkhead {

namespace limits {
inline constexpr Millis kRunLease{30'000};               // after which another node takes a run over
inline constexpr int kMaxWaitingRuns = 1'000;            // QUEUED ones of one job; beyond: OVERLOADED, and a tick is SKIPPED
inline constexpr Millis kMaxInterruptedAge{86'400'000};  // a run that a shutdown interrupted longer ago is not taken up again
inline constexpr int kMaxRunLogLines = 1'000;            // of one attempt that are kept
}  // namespace limits

bool IsRunId(const std::string& id);  // others name no run

// A run together with what only its executor needs.
struct ClaimedRun {
  RunView view;
  int64_t fence = 0;
  int slots = 1;  // of the job's runs this node may execute so many at once
};

struct RunClaim {  // a job that this node could run now
  std::string module, job;
  int concurrency = 1;                 // runs at once in the whole cluster
  int capacity = 1;                    // of them here, were all places of the job's workers free
  int busy = 0;                        // of them here now, those that wait here among them
  int wanted = 1;                      // to claim at most
  int ahead = 0;                       // runs that may wait here
  std::vector<std::string> instances;  // planned for the runs, in turns
};

struct RunningRun {  // an attempt that is not over, by its fence
  std::string id;
  int64_t fence = 0;
  std::string worker;  // which has it
};

// How an attempt ended; the kinds are explained at finish_runs() in migrations 0015 and 0020.
struct RunOutcome {
  enum class Kind { kFinal, kRetry, kLost, kShutdown, kReturned, kUnbegun };
  Kind kind = Kind::kFinal;
  RunStatus status = RunStatus::kFailed;
  Millis delay{0};
  std::optional<std::string> result_json;
  std::string error_code, error_message, error_stack;
  double progress = 0;  // as the module said it last
  std::string progress_message;
};
struct FinishedRun {
  std::string id;
  int64_t fence = 0;
  std::string worker;  // that had it; empty: none
  RunOutcome outcome;
};
struct ClosedRun {  // what has become of its row
  RunStatus status = RunStatus::kFailed;
  int attempt = 0;
  std::string result_json = "null", error_code, error_message, error_stack;
  double progress = 0;
  std::string progress_message;
  std::optional<WallTime> started_at, finished_at, not_before;
  bool cancel_requested = false;
};

class RunStore {
 public:
  RunStore(Database& database, std::string node) : database_(database), node_(std::move(node)) {}

  // The tick `slot`, unless a node was first: nullopt then. With kSkip and a run under way or due: a SKIPPED row, unless it is one that is made
  // up for. With kReplace, waiting scheduled runs of the job become SKIPPED.
  absl::StatusOr<std::optional<RunView>> InsertTick(const std::string& module, const JobSpec& spec, WallTime slot, bool made_up_for = false);
  // OVERLOADED beyond limits::kMaxWaitingRuns. `audit` is written in the same transaction, with the run's id as its target.
  absl::StatusOr<RunView> InsertManual(const std::string& module, const JobSpec& spec, const std::string& payload_json,
                                       const AuditRecord* audit = nullptr);
  // JOB_NOT_FOUND, INVALID_ARGUMENT, OVERLOADED.
  absl::StatusOr<Enqueued> Enqueue(const std::string& module, const EnqueueRequest& request);
  struct Queued {
    Enqueued run;
    std::vector<ClaimedRun> claimed;
  };
  // The same, and a claim for the job, with one commit.
  absl::StatusOr<Queued> EnqueueAndClaim(const std::string& module, const EnqueueRequest& request, const std::vector<RunClaim>& claims);
  absl::StatusOr<std::optional<WallTime>> LastSlot(const std::string& module, const std::string& job);

  absl::StatusOr<std::vector<ClaimedRun>> Claim(const std::vector<RunClaim>& claims, int limit);
  // In the order of `runs`; nullopt when the fence is an old one. A result that jsonb can't hold makes the run FAILED with RESULT_INVALID.
  absl::StatusOr<std::vector<std::optional<ClosedRun>>> Finish(const std::vector<FinishedRun>& runs);
  absl::Status SetProgress(const std::string& id, int64_t fence, double progress, const std::string& message);
  absl::Status AddLogs(const std::string& id, const std::vector<RunLogLine>& lines);

  struct Extended {
    int64_t fence = 0;
    bool newer_waits = false;  // a later run of the same job is due
    bool cancelled = false;    // somebody has asked for that
  };
  // Renews leases. Those missing in the answer are lost.
  absl::StatusOr<std::vector<Extended>> Extend(const std::vector<RunningRun>& runs);
  // Runs that expired anywhere, and those that a shutdown interrupted, become claimable; the number of them.
  absl::StatusOr<int> ReleaseExpired();
  // The same for what an earlier life of this node left RUNNING.
  absl::StatusOr<int> ReleaseOwn();
  // Ended runs beyond the job's history; the one of the latest tick stays, from which missed ones are counted.
  absl::Status Trim(const std::string& module, const JobSpec& spec);
  // How many runs of each job of these modules wait, for the limit that enqueue() keeps.
  absl::Status CountBacklog(const std::vector<std::string>& modules);

  absl::StatusOr<RunView> Get(const std::string& id);  // RUN_NOT_FOUND
  absl::StatusOr<RunPage> List(const RunFilter& filter, int page, int page_size);
  absl::StatusOr<std::vector<RunLogLine>> Logs(const std::string& id, int64_t after, int limit);  // RUN_NOT_FOUND
  // As Jobs has them.
  absl::StatusOr<Artifact> KeepArtifact(const std::string& module, const ArtifactUpload& upload);
  absl::StatusOr<Artifact> FindArtifact(const std::string& run_id, const std::string& name);
  absl::StatusOr<std::string> ReadArtifact(const Artifact& artifact, int part);
  // RUN_NOT_FOUND, RUN_ENDED. `audit` in the same transaction.
  absl::StatusOr<RunView> Cancel(const std::string& id, const AuditRecord& audit);

 private:
  absl::StatusOr<std::vector<std::optional<ClosedRun>>> FinishOneByOne(const std::vector<FinishedRun>& runs);

  Database& database_;
  const std::string node_;
};

}  // namespace bulkhead
