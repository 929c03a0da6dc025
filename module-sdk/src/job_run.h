// Runs of jobs: one RunJob call, one thread, one result or error. Thread-safe.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "bulkhead/jobs.h"
#include "bulkhead/module/v1/module.pb.h"

namespace bulkhead::sdk {

class HostClient;
class JobRun;

class JobRuns {
 public:
  using Reactor = grpc::ServerWriteReactor<::bulkhead::module::v1::RunJobUpdate>;
  // Answers the call; starts the handler's thread. `jobs` null: the module has not started. `host` keeps what the run leaves.
  Reactor* Begin(const ::bulkhead::module::v1::RunJobRequest& request, const Jobs* jobs, HostClient* host);
  // Tells every handler to stop; new runs are refused as INTERRUPTED.
  void Interrupt();
  bool WaitIdle(std::chrono::steady_clock::time_point until);
  // Fences of the runs whose handlers have not returned, whatever became of their calls.
  std::vector<int64_t> Running();
  // Ends the calls of handlers that did not stop, so that the server can shut down. What they still return is dropped.
  void Abandon();

 private:
  friend class JobRun;
  void Ended(const std::shared_ptr<JobRun>& run);
  std::mutex mutex_;
  std::condition_variable idle_;
  std::set<std::shared_ptr<JobRun>> running_;
  bool interrupted_ = false;
};

}  // namespace bulkhead::sdk
