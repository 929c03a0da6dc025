#include "job_run.h"

#include <grpcpp/alarm.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <deque>
#include <optional>
#include <system_error>
#include <thread>

#include "current_work.h"
#include "host_client.h"
#include "json_text.h"

namespace bulkhead::sdk {

namespace pb = ::bulkhead::module::v1;

namespace {
using Clock = std::chrono::steady_clock;
constexpr auto kProgressEvery = std::chrono::milliseconds(100);
constexpr std::chrono::milliseconds kArtifactPause{100}, kMaxArtifactPause{1'000};  // before the second try, doubled for each further one
constexpr auto kArtifactPatience = std::chrono::seconds(30);
constexpr int kMaxLogLines = 1'000;          // of one run; the rest is counted
constexpr size_t kMaxLogMessage = 4 * 1024;  // bytes; the rest is cut
}  // namespace

// Owned by its gRPC call until OnDone, and by its handler's thread.
class JobRun final : public JobRuns::Reactor, public JobContext, public std::enable_shared_from_this<JobRun> {
 public:
  JobRun(const pb::RunJobRequest& request, HostClient* host)
      : host_(host),
        run_id_(request.run_id()),
        job_(request.job()),
        attempt_(request.attempt()),
        fence_(request.fence()),
        deadline_(Clock::now() + std::chrono::milliseconds(request.deadline_ms())),
        trace_(TraceContext::Parse(request.traceparent())) {}

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

  bool WaitFor(std::chrono::milliseconds time) override {
    std::unique_lock lock(mutex_);
    cancel_.wait_until(lock, std::min(Clock::now() + time, deadline_), [&] { return cancelled_.load(); });
    return !cancelled();
  }

  void Progress(double fraction, std::string_view message) override {
    pb::RunJobUpdate update;
    update.mutable_progress()->set_fraction(std::isfinite(fraction) ? std::clamp(fraction, 0.0, 1.0) : 0);
    update.mutable_progress()->set_message(Utf8(message.substr(0, kMaxLogMessage)));
    std::unique_lock lock(mutex_);
    if (closed_) return;
    auto now = Clock::now();
    if (now - last_progress_ >= kProgressEvery && !pending_progress_) {
      last_progress_ = now;
      lock.unlock();
      Push(std::move(update));
      return;
    }
    bool first = !pending_progress_;
    pending_progress_ = std::move(update);
    if (!first) return;  // the alarm is on already and will take the newest
    auto in = std::chrono::system_clock::now() + (kProgressEvery - (now - last_progress_));
    lock.unlock();
    alarm_.Set(in, [weak = weak_from_this()](bool fired) {
      if (auto self = weak.lock(); self && fired) self->PushPendingProgress();
    });
  }

  void Log(std::string_view level, std::string_view message) override {
    if (++log_lines_ > kMaxLogLines) return;
    PushLog(level, message);
  }

  void Artifact(std::string_view name, std::string_view content_type, std::string_view bytes) override {
    ThrowIfCancelled();
    if (static_cast<int64_t>(bytes.size()) > kMaxArtifact) throw HostError("an artifact has at most 16 MiB", false);
    const Clock::time_point give_up = Clock::now() + kArtifactPatience;
    for (std::chrono::milliseconds pause = kArtifactPause;; pause = std::min(2 * pause, kMaxArtifactPause)) {
      try {
        return host_->PutArtifact(run_id_, fence_, name, content_type, bytes);
      } catch (const HostError& error) {
        if (!error.transient() || Clock::now() + pause > give_up) throw;
      }
      if (!WaitFor(pause)) throw JobCancelled();
    }
  }

  // ---- the call ----
  bool Prepare(const pb::RunJobRequest& request) {
    payload_ = request.payload_json().empty() ? Json() : Json::parse(request.payload_json(), nullptr, false);
    config_ = request.config_json().empty() ? Json::object() : Json::parse(request.config_json(), nullptr, false);
    return !payload_.is_discarded() && !config_.is_discarded();
  }

  void Execute(const JobHandler& handler) {
    const CurrentTrace::Scope scope(trace_);
    const CurrentWork work(*this);
    try {
      ThrowIfCancelled();  // before it has begun: then it does not begin
      std::string result = Dump(handler(*this));
      if (result.size() > kMaxJobResult) {
        Fail("RESULT_TOO_LARGE", "the result is longer than 256 KiB as JSON", "", false);
      } else {
        pb::RunJobUpdate update;
        update.mutable_result()->set_result_json(std::move(result));
        Close(std::move(update));
      }
    } catch (const JobFailure& failure) {
      Fail(failure.code(), failure.what(), "", failure.retryable());
    } catch (const JobCancelled&) {
      Fail(interrupted_ ? "INTERRUPTED" : "CANCELLED", interrupted_ ? "the module is stopping" : "the run was cancelled", "",
           true);
    } catch (const std::exception& error) {
      Fail("INTERNAL", error.what(), TypeName(error), true);
    } catch (...) {
      Fail("INTERNAL", "the handler threw something that is no std::exception", "", true);
    }
  }

  // Its result or error is on its way: who has read that may send the next run before this handler's thread has ended.
  bool closed() {
    std::lock_guard lock(mutex_);
    return closed_;
  }

  void Fail(std::string_view code, std::string_view message, std::string_view stack, bool retryable) {
    pb::RunJobUpdate update;
    pb::JobError& error = *update.mutable_error();
    error.set_code(Utf8(code));
    error.set_message(Utf8(message));
    error.set_stack(Utf8(stack));
    error.set_retryable(retryable);
    Close(std::move(update));
  }

  void Cancel(bool by_stop) {
    {
      std::lock_guard lock(mutex_);
      if (by_stop) interrupted_ = true;
      cancelled_.store(true, std::memory_order_release);
    }
    cancel_.notify_all();
  }

  void OnCancel() override { Cancel(false); }
  void OnWriteDone(bool ok) override {
    {
      std::lock_guard lock(mutex_);
      writing_ = false;
      if (!ok) queue_.clear();
    }
    Pump();
  }
  void OnDone() override { keep_.reset(); }
  void Keep() { keep_ = shared_from_this(); }

 private:
  void PushLog(std::string_view level, std::string_view message) {
    pb::RunJobUpdate update;
    update.mutable_log()->set_level(Utf8(level));
    update.mutable_log()->set_message(Utf8(message.substr(0, kMaxLogMessage)));
    Push(std::move(update));
  }

  void Push(pb::RunJobUpdate update) {
    {
      std::lock_guard lock(mutex_);
      if (closed_) return;
      queue_.push_back(std::move(update));
    }
    Pump();
  }

  void PushPendingProgress() {
    {
      std::lock_guard lock(mutex_);
      if (closed_ || !pending_progress_) return;
      last_progress_ = Clock::now();
      queue_.push_back(*std::exchange(pending_progress_, std::nullopt));
    }
    Pump();
  }

  // The one last message; everything after it is dropped.
  void Close(pb::RunJobUpdate last) {
    if (int dropped = log_lines_ - kMaxLogLines; dropped > 0)
      PushLog("warn", std::to_string(dropped) + " more lines were dropped");
    PushPendingProgress();
    {
      std::lock_guard lock(mutex_);
      if (closed_) return;
      queue_.push_back(std::move(last));
      closed_ = true;
    }
    Pump();
  }

  // Starts the next write, or ends the call; gRPC wants one at a time, and no lock held.
  void Pump() {
    bool finish = false;
    {
      std::lock_guard lock(mutex_);
      if (writing_ || finished_) return;
      if (!queue_.empty()) {
        current_ = std::move(queue_.front());
        queue_.pop_front();
        writing_ = true;
      } else if (closed_) {
        finished_ = finish = true;
      } else {
        return;
      }
    }
    if (finish) return Finish(grpc::Status::OK);
    StartWrite(&current_);
  }

  HostClient* const host_;
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
  std::deque<pb::RunJobUpdate> queue_;
  pb::RunJobUpdate current_;
  std::optional<pb::RunJobUpdate> pending_progress_;
  Clock::time_point last_progress_{};
  bool writing_ = false, closed_ = false, finished_ = false;
  grpc::Alarm alarm_;
  std::shared_ptr<JobRun> keep_;
};

JobRuns::Reactor* JobRuns::Begin(const pb::RunJobRequest& request, const Jobs* jobs, HostClient* host) {
  auto run = std::make_shared<JobRun>(request, host);
  run->Keep();
  JobRuns::Reactor* reactor = run.get();
  const JobHandler* handler = jobs ? jobs->Find(request.job()) : nullptr;
  if (!jobs) {
    run->Fail("NOT_STARTED", "the module has not started", "", true);
  } else if (!handler) {
    run->Fail("JOB_NOT_FOUND", "the module has no handler for the job " + request.job(), "", false);
  } else if (!run->Prepare(request)) {
    run->Fail("INVALID_ARGUMENT", "payload or config is not JSON", "", false);
  } else {
    std::lock_guard lock(mutex_);
    if (interrupted_) {
      run->Fail("INTERRUPTED", "the module is stopping", "", true);
    } else if (std::count_if(running_.begin(), running_.end(), [](const auto& one) { return !one->closed(); }) >= kMaxConcurrentJobs) {
      run->Fail("OVERLOADED", "the module has 16 runs already", "", true);
    } else {
      running_.insert(run);
      try {
        std::thread([this, run, handler] {
          run->Execute(*handler);
          Ended(run);
        }).detach();  // a hung handler must not hold up the end of the process; WaitIdle() knows of it
      } catch (const std::system_error&) {  // the limit on processes
        running_.erase(run);
        run->Fail("OVERLOADED", "no thread could be started", "", true);
      }
    }
  }
  return reactor;
}

void JobRuns::Ended(const std::shared_ptr<JobRun>& run) {
  std::lock_guard lock(mutex_);
  running_.erase(run);
  if (running_.empty()) idle_.notify_all();
}

void JobRuns::Interrupt() {
  std::lock_guard lock(mutex_);
  interrupted_ = true;
  for (const auto& run : running_) run->Cancel(true);
}

bool JobRuns::WaitIdle(Clock::time_point until) {
  std::unique_lock lock(mutex_);
  return idle_.wait_until(lock, until, [&] { return running_.empty(); });
}

std::vector<int64_t> JobRuns::Running() {
  std::lock_guard lock(mutex_);
  std::vector<int64_t> fences;
  for (const auto& run : running_) fences.push_back(run->fence());
  return fences;
}

void JobRuns::Abandon() {
  std::lock_guard lock(mutex_);
  for (const auto& run : running_) run->Fail("INTERRUPTED", "the module stopped before the run ended", "", true);
}

}  // namespace bulkhead::sdk
