// Job handlers. The supervisor decides when a job runs (the manifest's schedule, or a call); a run is one RunJob call, which
// ends with one result or one error. Each run has a thread of its own, apart from the request workers; at most
// kMaxConcurrentJobs at once, beyond that a run fails as OVERLOADED, retryable.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "bulkhead/errors.h"
#include "bulkhead/trace.h"

namespace bulkhead::sdk {

inline constexpr int kMaxConcurrentJobs = 16;        // per worker process
inline constexpr int64_t kMaxArtifact = 16 << 20;    // bytes of one file that a run leaves
inline constexpr size_t kMaxJobResult = 256 * 1024;  // bytes of the result as JSON; beyond the run fails with RESULT_TOO_LARGE

// One run. Belongs to the thread of the handler, except cancelled().
class JobContext {
 public:
  virtual ~JobContext() = default;
  virtual const std::string& run_id() const = 0;
  virtual const std::string& job() const = 0;
  // Null when none was given. Read keys with at(), which throws for a missing one; operator[] of a const Json aborts the process.
  virtual const Json& payload() const = 0;
  virtual const Json& config() const = 0;  // the handler's `config` of the manifest; an object
  virtual int attempt() const = 0;         // from 1
  // Grows with every attempt of every run of this module: write it beside what the run changes, and refuse a lower one.
  virtual int64_t fence() const = 0;
  virtual std::chrono::steady_clock::time_point deadline() const = 0;
  virtual const TraceContext& trace() const { return CurrentTrace::Get(); }  // of this attempt: what it calls belongs below it

  // `fraction` 0 to 1. The supervisor keeps the last one; sent at most once per 100 ms, so call as often as is convenient.
  virtual void Progress(double fraction, std::string_view message = {}) = 0;
  // A line of the run's own log. `level` debug, info, warn, error. At most 1,000 lines a run; the rest is dropped and counted in
  // one last line.
  virtual void Log(std::string_view level, std::string_view message) = 0;

  // Leaves a file with the run, such as a screenshot or a report, which people download from it. It is stored when this returns, and one of this attempt
  // with the same name is replaced. It belongs to the attempt: a later one begins with none. `name` is that of a file alone, at most 128 bytes; an empty
  // `content_type` is application/octet-stream. At most 16 of an attempt, kMaxArtifact each and 64 MiB together. Blocks; while the supervisor can't take it, it
  // is tried again for up to 30 s. Throws HostError, and JobCancelled.
  virtual void Artifact(std::string_view name, std::string_view content_type, std::string_view bytes);  // here: HostError, nobody keeps it
  // The same with what is in the file at `path` now. Throws HostError also when that can't be read.
  void ArtifactFile(std::string_view name, std::string_view content_type, const std::string& path);

  // True once the run was cancelled, its deadline has passed, or the module stops. The handler should return or throw soon;
  // what it returns then is ignored. Any thread.
  virtual bool cancelled() const = 0;
  void ThrowIfCancelled() const {
    if (cancelled()) throw JobCancelled();
  }
  // Waits; false, at once, when cancelled. Instead of sleeping.
  virtual bool WaitFor(std::chrono::milliseconds time) = 0;
};

// The result, any JSON. Throws JobFailure, or anything derived from std::exception (INTERNAL, retryable).
using JobHandler = std::function<Json(JobContext&)>;

// How a module queues a run of one of its own jobs.
struct EnqueueOptions {
  std::chrono::milliseconds delay{0};  // it begins that much later, at most 366 days
  std::string unique_key = {};         // at most one queued run per key, until it begins; empty: no such bound. At most 256 bytes
  int priority = 0;                    // higher runs first; ±1,000,000
};
struct EnqueuedRun {
  std::string id;
  bool existed = false;  // a run with that key was waiting: `id` is that one's, and nothing was queued
};

// The module's jobs by the names of the manifest's `capabilities.jobs.handlers`. Filled in Module::Initialize, fixed after it.
class Jobs {
 public:
  // Throws std::invalid_argument for a name that has a handler already.
  void Handle(std::string name, JobHandler handler);
  const JobHandler* Find(std::string_view name) const;  // null when there is none
  // Called by the SDK after Initialize: from then on Handle throws std::logic_error.
  void Freeze() { frozen_ = true; }

 private:
  bool frozen_ = false;
  std::map<std::string, JobHandler, std::less<>> handlers_;
};

}  // namespace bulkhead::sdk
