// One run of a job, as its handler sees it. What it says goes to a channel, which is the call that carries the run: RunJob, or RunJobs with many
// others. Thread-safe.
#pragma once

#include <grpcpp/alarm.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "bulkhead/jobs.h"
#include "bulkhead/module/v1/module.pb.h"

namespace bulkhead::sdk {

class HostClient;

class RunChannel {
 public:
  virtual ~RunChannel() = default;
  // Keeps it to be sent, in the order of these calls; `last`: the run's result or error, behind which nothing comes. Under the run's lock.
  virtual void Put(int64_t fence, ::bulkhead::module::v1::RunJobUpdate update, bool last) = 0;
  // Sends what is kept, as far as the call takes it; the rest follows by itself. Under no lock.
  virtual void Pump() = 0;
};

class JobRun final : public JobContext, public std::enable_shared_from_this<JobRun> {
 public:
  using Clock = std::chrono::steady_clock;
  JobRun(const ::bulkhead::module::v1::RunJobRequest& request, std::shared_ptr<RunChannel> channel, HostClient* host);

  // ---- JobContext ----
  const std::string& run_id() const override { return run_id_; }
  const std::string& job() const override { return job_; }
  const Json& payload() const override { return payload_; }
  const Json& config() const override { return config_; }
  int attempt() const override { return attempt_; }
  int64_t fence() const override { return fence_; }
  Clock::time_point deadline() const override { return deadline_; }
  const TraceContext& trace() const override { return trace_; }
  bool cancelled() const override { return cancelled_.load(std::memory_order_acquire) || Clock::now() >= deadline_; }
  bool WaitFor(std::chrono::milliseconds time) override;
  void Progress(double fraction, std::string_view message) override;
  void Log(std::string_view level, std::string_view message) override;
  void Artifact(std::string_view name, std::string_view content_type, std::string_view bytes) override;

  // ---- for who runs it ----
  // False: payload or config is not JSON.
  bool Prepare(const ::bulkhead::module::v1::RunJobRequest& request);
  // These leave the last word with the channel; who calls pumps it.
  void Execute(const JobHandler& handler);
  void Fail(std::string_view code, std::string_view message, std::string_view stack, bool retryable);
  const std::shared_ptr<RunChannel>& channel() const { return channel_; }
  void Cancel(bool by_stop);
  // Its result or error is on its way: who has read that may send the next run before this handler's thread has ended.
  bool closed();

 private:
  void PushLog(std::string_view level, std::string_view message);
  void Push(::bulkhead::module::v1::RunJobUpdate update);
  void PushPendingProgress();
  // The one last message; everything after it is dropped.
  void Close(::bulkhead::module::v1::RunJobUpdate last);

  HostClient* const host_;
  const std::shared_ptr<RunChannel> channel_;
  const std::string run_id_, job_;
  const int attempt_;
  const int64_t fence_;
  const Clock::time_point deadline_;
  const TraceContext trace_;
  Json payload_, config_;
  std::atomic<bool> cancelled_{false};
  std::atomic<bool> interrupted_{false};
  std::atomic<int> log_lines_{0};
  std::mutex mutex_;
  std::condition_variable cancel_;
  std::optional<::bulkhead::module::v1::RunJobUpdate> pending_progress_;
  Clock::time_point last_progress_{};
  bool closed_ = false;
  std::optional<grpc::Alarm> alarm_;  // made when it is needed first: of most runs never
};

}  // namespace bulkhead::sdk
