// Jobs of the modules: cron ticks, manual runs and those that modules queue, each a row in bulkhead_internal.runs, executed by RunJob of the contract
// on a ready worker (decision 11). Public calls are thread-safe and answer once, on the control loop.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/base/blocking_pool.h"
#include "supervisor/base/loop.h"
#include "supervisor/jobs/artifact.h"
#include "supervisor/lifecycle/directory.h"
#include "supervisor/store/audit.h"
#include "supervisor/store/database.h"
#include "supervisor/telemetry/job_meters.h"
#include "supervisor/telemetry/tracer.h"

namespace bulkhead {

enum class RunStatus { kQueued, kRunning, kSucceeded, kFailed, kCancelled, kTimedOut, kSkipped, kInterrupted };
std::string_view RunStatusName(RunStatus status);
std::optional<RunStatus> ParseRunStatus(std::string_view name);

struct RunView {
  std::string id, module, job;
  RunStatus status = RunStatus::kQueued;
  int attempt = 0, max_attempts = 1;
  std::string trigger;  // schedule, manual, enqueue
  std::optional<WallTime> slot;
  std::string payload_json = "null";
  double progress = 0;
  std::string progress_message;
  std::string result_json = "null";
  std::string error_code, error_message, error_stack;  // code empty: no error
  WallTime queued_at;
  std::optional<WallTime> started_at, finished_at;
  std::string node, worker;
  int priority = 0;
  std::optional<WallTime> not_before;  // of a queued run
  bool cancel_requested = false;       // and not ended yet
  std::vector<Artifact> artifacts;     // of the latest attempt, by name
};

struct RunLogLine {
  int64_t seq = 0;  // grows from line to line and from attempt to attempt
  WallTime at;
  std::string level, message;
};

// What a module asks for; see host.proto.
struct EnqueueRequest {
  std::string job, payload_json = "null";
  Millis delay{0};
  std::string unique_key;
  int priority = 0;
};
struct Enqueued {
  std::string id;
  bool fresh = true;  // false: a run with that key waits already
};

struct RunFilter {  // what is empty is not asked for
  std::string module, job, trigger;
  std::optional<RunStatus> status;
};

struct JobView {
  std::string module;
  JobSpec spec;
  bool active = false;  // the module has a ready worker
  std::optional<WallTime> next_run_at;
};

struct RunPage {
  std::vector<RunView> runs;
  int total = 0;
};

// One run as it goes on, for one reader. Thread-safe.
class RunFollower {
 public:
  struct Event {
    enum class Kind { kNothing, kRun, kLine, kEnded } kind = Kind::kNothing;
    RunView run;      // of kRun: the latest
    RunLogLine line;  // of kLine
  };
  virtual ~RunFollower() = default;
  // Lines come before the run's last state, kEnded for good after it.
  virtual Event Next() = 0;
};

class Jobs : public DirectoryReader {
 public:
  template <typename T>
  using Done = std::function<void(absl::StatusOr<T>)>;
  struct Options {
    std::string node;
    JobMeters* meters = nullptr;  // where attempts are counted; both outlive the jobs
    Tracer* tracer = nullptr;     // where they are traced
    bool alone = true;            // nobody else can reach the database: without it, runs go on however long it is away
  };
  // On boot it releases what an earlier life of this node left RUNNING (INTERRUPTED, then queued again when attempts are left).
  static std::unique_ptr<Jobs> Make(Loop& loop, BlockingPool& pool, Database& database, const Clock& clock, Options options);
  ~Jobs() override = default;

  // Begins to claim and tick; after the migrations. Control loop.
  virtual void Start() = 0;
  // Claims nothing more; running runs get `grace`, then are cancelled and marked INTERRUPTED. `stopped` once. Control loop.
  virtual void Stop(Millis grace, std::function<void()> stopped) = 0;
  // An instance is being stopped: its runs are cancelled, and queued again once their handlers have ended. Control loop.
  virtual void WorkerLeaving(const std::string& instance) = 0;
  // It has died: what it ran is released at once. Control loop.
  virtual void WorkerGone(const std::string& instance) = 0;

  // `jobs` of the manifest are known only while the module is enabled, through the Directory; ListJobs of a disabled one uses `manifest`.
  virtual void ListJobs(const std::string& module, std::shared_ptr<const Manifest> manifest, Done<std::vector<JobView>> done) = 0;
  // MODULE_NOT_RUNNING, JOB_NOT_FOUND, INVALID_ARGUMENT (payload too large). With `wait` > 0 it answers when the run has
  // ended or the wait has, whichever is first. `audit` is written together with the run.
  virtual void Run(const std::string& module, const std::string& job, std::string payload_json, Millis wait, std::optional<AuditRecord> audit,
                   Done<RunView> done) = 0;
  virtual void ListRuns(const RunFilter& filter, int page, int page_size, Done<RunPage> done) = 0;
  virtual void GetRun(const std::string& id, Done<RunView> done) = 0;  // RUN_NOT_FOUND
  // Lines behind `after`, of all attempts. RUN_NOT_FOUND.
  virtual void ListLogs(const std::string& id, int64_t after, int limit, Done<std::vector<RunLogLine>> done) = 0;
  // Keeps a file of the attempt; one of the same name is replaced. Its size is bounded by who has read it. INVALID_ARGUMENT, FailedPrecondition when
  // the attempt is not the one under way, OutOfRange when it has as much as it may, DATABASE_UNAVAILABLE.
  virtual void KeepArtifact(const std::string& module, ArtifactUpload upload, Done<Artifact> done) = 0;
  virtual void FindArtifact(const std::string& run_id, const std::string& name, Done<Artifact> done) = 0;  // RUN_NOT_FOUND, ARTIFACT_NOT_FOUND
  // The n-th part (from 0) of limits::kArtifactPart bytes, the last one what remains. ARTIFACT_NOT_FOUND: it has gone meanwhile.
  virtual void ReadArtifact(const Artifact& artifact, int part, Done<std::string> done) = 0;
  // The run as it is when it has ended, or after `wait`. RUN_NOT_FOUND, RUN_ENDED; one that is CANCELLED already is answered.
  virtual void Cancel(const std::string& id, Millis wait, AuditRecord audit, Done<RunView> done) = 0;
  // `wake` (any thread) when Next() has something again after kNothing; it must not call back. Lines behind `after`. RUN_NOT_FOUND, OVERLOADED.
  virtual void Follow(const std::string& id, int64_t after, std::function<void()> wake, Done<std::shared_ptr<RunFollower>> done) = 0;
  // For the module itself. JOB_NOT_FOUND, INVALID_ARGUMENT, OVERLOADED, DATABASE_UNAVAILABLE.
  virtual void Enqueue(const std::string& module, EnqueueRequest request, Done<Enqueued> done) = 0;
};

}  // namespace bulkhead
