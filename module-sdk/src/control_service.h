// The gRPC service on the control socket: checks the token, puts each call on its thread, answers. gRPC's own threads never
// run an author's code, so that no call holds up another's.
#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <string>

#include "bulkhead/module/v1/module.grpc.pb.h"
#include "module_host.h"
#include "serial_thread.h"

namespace bulkhead::sdk {

class ControlService final : public ::bulkhead::module::v1::Module::CallbackService {
 public:
  // `changed` is called, on some thread, after a failed start and after Stop has been answered.
  ControlService(ModuleHost& host, std::string token, std::function<void()> changed);

  // Stops the module without an RPC (SIGTERM, EOF on fd 3), then calls `changed`.
  void StopModule(std::chrono::milliseconds budget);
  bool stopped() const { return stopped_; }

 private:
  using Context = grpc::CallbackServerContext;
  using Unary = grpc::ServerUnaryReactor;
  Unary* Initialize(Context*, const ::bulkhead::module::v1::InitializeRequest*,
                    ::bulkhead::module::v1::InitializeResponse*) override;
  Unary* Start(Context*, const ::bulkhead::module::v1::StartRequest*, ::bulkhead::module::v1::StartResponse*) override;
  Unary* Stop(Context*, const ::bulkhead::module::v1::StopRequest*, ::bulkhead::module::v1::StopResponse*) override;
  Unary* Health(Context*, const ::bulkhead::module::v1::HealthRequest*, ::bulkhead::module::v1::HealthResponse*) override;
  Unary* Metrics(Context*, const ::bulkhead::module::v1::MetricsRequest*, ::bulkhead::module::v1::MetricsResponse*) override;
  Unary* Configure(Context*, const ::bulkhead::module::v1::ConfigureRequest*,
                   ::bulkhead::module::v1::ConfigureResponse*) override;
  JobRuns::One* RunJob(Context*, const ::bulkhead::module::v1::RunJobRequest*) override;
  JobRuns::Many* RunJobs(Context*) override;
  Unary* RunningJobs(Context*, const ::bulkhead::module::v1::RunningJobsRequest*, ::bulkhead::module::v1::RunningJobsResponse*) override;
  Unary* DeliverEvents(Context*, const ::bulkhead::module::v1::DeliverEventsRequest*,
                       ::bulkhead::module::v1::DeliverEventsResponse*) override;

  bool Authorized(Context* context) const;
  // Runs `work` on `thread` and finishes the call with what it returns.
  Unary* On(SerialThread& thread, Context* context, std::function<grpc::Status()> work);

  ModuleHost& host_;
  const std::string token_;
  const std::function<void()> changed_;
  std::atomic<bool> stopped_{false};
  SerialThread health_thread_;
  SerialThread metrics_thread_;
  SerialThread lifecycle_thread_;
};

}  // namespace bulkhead::sdk
