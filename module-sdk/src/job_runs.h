// The runs of jobs under way in this process, by whichever call they have come, and the threads of their handlers. Thread-safe.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <functional>
#include <memory>
#include <vector>

#include "bulkhead/jobs.h"
#include "bulkhead/module/v1/module.pb.h"

namespace bulkhead::sdk {

class HostClient;
class JobRun;
class RunsReactor;

// Where handlers are found, and what keeps the files that runs leave; `jobs` null: the module has not started.
struct JobSurroundings {
  const Jobs* jobs = nullptr;
  HostClient* host = nullptr;
};

class JobRuns {
 public:
  using One = grpc::ServerWriteReactor<::bulkhead::module::v1::RunJobUpdate>;
  using Many = grpc::ServerBidiReactor<::bulkhead::module::v1::RunJobsRequest, ::bulkhead::module::v1::RunJobsUpdate>;
  JobRuns();
  JobRuns(const JobRuns&) = delete;
  ~JobRuns();  // waits for no handler

  // The calls RunJob and RunJobs.
  One* Begin(const ::bulkhead::module::v1::RunJobRequest& request, const JobSurroundings& around);
  Many* BeginMany(std::function<JobSurroundings()> around);
  // Tells every handler to stop; new runs are refused as INTERRUPTED.
  void Interrupt();
  bool WaitIdle(std::chrono::steady_clock::time_point until);
  // Fences of the runs whose handlers have not returned, whatever became of their calls.
  std::vector<int64_t> Running();
  // Ends the calls, those of handlers that did not stop among them, so that the server can shut down. What they still return is dropped.
  void Abandon();

 private:
  friend class RunsReactor;
  struct State;
  static void Start(const std::shared_ptr<State>& state, const std::shared_ptr<JobRun>& run, const ::bulkhead::module::v1::RunJobRequest& request,
                    const Jobs* jobs);
  static bool GetThread(const std::shared_ptr<State>& state);
  static void WakeOne(State& state);
  static void Work(State& state);

  const std::shared_ptr<State> state_;  // also its threads', as a hung handler must not hold up the end of the process
};

}  // namespace bulkhead::sdk
