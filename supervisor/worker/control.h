// The gRPC side of one worker: the contract's calls on its control socket, asynchronous. Thread-safe; callbacks come on a
// gRPC thread, once each. Made after the handshake; calls on a worker that is gone end with UNAVAILABLE.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "bulkhead/module/v1/module.pb.h"
#include "supervisor/base/clock.h"

namespace bulkhead {

// Cancels the run it stands for when told to; harmless afterwards.
class JobCall {
 public:
  virtual ~JobCall() = default;
  virtual void Cancel() = 0;
};

class ControlPort {
 public:
  template <typename T>
  using Done = std::function<void(absl::Status, T)>;

  // `socket` is the module's control socket, `token` its instance token, sent with each call.
  static std::shared_ptr<ControlPort> Open(const std::string& socket, const std::string& token);
  virtual ~ControlPort() = default;

  virtual void Initialize(const module::v1::InitializeRequest& request, Millis timeout, Done<module::v1::InitializeResponse> done) = 0;
  virtual void Start(Millis timeout, Done<module::v1::StartResponse> done) = 0;
  virtual void Stop(Millis timeout, Done<module::v1::StopResponse> done) = 0;
  virtual void Health(Millis timeout, Done<module::v1::HealthResponse> done) = 0;
  virtual void Metrics(Millis timeout, Done<module::v1::MetricsResponse> done) = 0;
  virtual void Configure(const module::v1::ConfigureRequest& request, Millis timeout, Done<module::v1::ConfigureResponse> done) = 0;
  // `update` for each message in order, then `done` once with the call's own status: OK when the stream ended by itself,
  // DEADLINE_EXCEEDED after `timeout`, CANCELLED, or UNAVAILABLE when the worker died.
  virtual std::shared_ptr<JobCall> RunJob(const module::v1::RunJobRequest& request, Millis timeout,
                                          std::function<void(const module::v1::RunJobUpdate&)> update,
                                          std::function<void(absl::Status)> done) = 0;
  // Sends the runs that RunJob was called for since the last time: many by one message, where the module takes them so.
  virtual void Flush() {}
  // Runs whose handlers have not returned; UNIMPLEMENTED by a module that can't tell.
  virtual void RunningJobs(Millis /*timeout*/, Done<module::v1::RunningJobsResponse> done) { done(absl::UnimplementedError("not offered"), {}); }
  virtual void DeliverEvents(const module::v1::DeliverEventsRequest& request, Millis timeout, Done<module::v1::DeliverEventsResponse> done) = 0;
};

}  // namespace bulkhead
