// The life of one module in this process: what Initialize, Start, Stop and the others do. Knows nothing of gRPC calls or of
// fd 3. The lifecycle functions run on one thread, one after another; Health, Metrics and RunJob come from others.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bulkhead/module.h"
#include "bulkhead/module/v1/module.pb.h"
#include "dispatcher.h"
#include "event_delivery.h"
#include "handshake.h"
#include "host_context.h"
#include "job_runs.h"
#include "link_server.h"

namespace bulkhead::sdk {

class ModuleHost {
 public:
  using Clock = std::chrono::steady_clock;
  // Takes the data socket, which listens already; connections wait in its backlog until Start.
  // `host_socket` may be empty: then the flags stay as Initialize has them. Without `call_socket` no module can be called.
  ModuleHost(std::unique_ptr<Module> module, std::vector<std::string> args, std::string token, int data_listener,
             std::string host_socket = {}, std::string call_socket = {});
  ~ModuleHost();

  // ---- lifecycle thread ----
  grpc::Status Initialize(const ::bulkhead::module::v1::InitializeRequest& request);
  grpc::Status Start();
  void Configure(const ::bulkhead::module::v1::ConfigureRequest& request, ::bulkhead::module::v1::ConfigureResponse& response);
  // Ends everything by `deadline`; the second call does nothing.
  void Stop(Clock::time_point deadline);

  // ---- any thread ----
  void Health(std::chrono::milliseconds budget, ::bulkhead::module::v1::HealthResponse& response);  // one at a time
  void Metrics(::bulkhead::module::v1::MetricsResponse& response);
  JobRuns::One* RunJob(const ::bulkhead::module::v1::RunJobRequest& request) { return runs_.Begin(request, around()); }
  JobRuns::Many* RunJobs() {
    return runs_.BeginMany([this] { return around(); });
  }
  std::vector<int64_t> RunningJobs() { return runs_.Running(); }
  void DeliverEvents(const ::bulkhead::module::v1::DeliverEventsRequest& request, ::bulkhead::module::v1::DeliverEventsResponse& response,
                     std::function<void()> done);
  // What the process should exit with: 0, 125 for a wrong configuration, 1 for another failed start.
  int exit_code() const { return exit_code_; }
  bool failed() const { return exit_code_ != 0; }
  // True when no handler, job or check still runs, so that everything may be destroyed.
  bool quiet();

 private:
  JobSurroundings around();
  void FlagsChanged(FlagStates flags);
  grpc::Status Guard(const char* where, const std::function<void()>& call);

  enum class State { kNew, kInitialized, kStarted, kStopped, kFailed };
  const std::unique_ptr<Module> module_;
  const std::vector<std::string> args_;
  const std::string token_;
  const std::string host_socket_, call_socket_;
  Logger log_;
  int data_listener_;
  State state_ = State::kNew;  // lifecycle thread
  std::atomic<int> exit_code_{0};
  std::unique_ptr<HostContext> context_;
  std::unique_ptr<Dispatcher> dispatcher_;
  std::unique_ptr<LinkServer> link_;  // after the dispatcher, which it uses
  JobRuns runs_;
  EventDeliveries deliveries_;
  std::unique_ptr<FlagWatch> flags_;  // between Start and Stop
  // Set once, when what they point to is complete.
  std::atomic<HostContext*> initialized_{nullptr};
  std::atomic<Dispatcher*> started_{nullptr};
};

}  // namespace bulkhead::sdk
