#include "job_run.h"

#include <algorithm>
#include <cmath>

#include "current_work.h"
#include "host_client.h"
#include "json_text.h"

namespace bulkhead::sdk {

namespace pb = ::bulkhead::module::v1;

namespace {
constexpr auto kProgressEvery = std::chrono::milliseconds(100);
constexpr std::chrono::milliseconds kArtifactPause{100}, kMaxArtifactPause{1'000};  // before the second try, doubled for each further one
constexpr auto kArtifactPatience = std::chrono::seconds(30);
constexpr int kMaxLogLines = 1'000;          // of one run; the rest is counted
constexpr size_t kMaxLogMessage = 4 * 1024;  // bytes; the rest is cut
constexpr size_t kMaxErrorCode = 64, kMaxErrorMessage = 8 * 1024, kMaxErrorStack = 64 * 1024;  // bytes, as many as the supervisor keeps; the rest is cut
}  // namespace

JobRun::JobRun(const pb::RunJobRequest& request, std::shared_ptr<RunChannel> channel, HostClient* host)
    : host_(host),
      channel_(std::move(channel)),
      run_id_(request.run_id()),
      job_(request.job()),
      attempt_(request.attempt()),
      fence_(request.fence()),
      deadline_(Clock::now() + std::chrono::milliseconds(request.deadline_ms())),
      trace_(TraceContext::Parse(request.traceparent())) {}

bool JobRun::WaitFor(std::chrono::milliseconds time) {
  std::unique_lock lock(mutex_);
  cancel_.wait_until(lock, std::min(Clock::now() + time, deadline_), [&] { return cancelled_.load(); });
  return !cancelled();
}

void JobRun::Progress(double fraction, std::string_view message) {
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
  if (!alarm_) alarm_.emplace();
  lock.unlock();
  alarm_->Set(in, [weak = weak_from_this()](bool fired) {
    if (auto self = weak.lock(); self && fired) self->PushPendingProgress();
  });
}

void JobRun::Log(std::string_view level, std::string_view message) {
  if (++log_lines_ > kMaxLogLines) return;
  PushLog(level, message);
}

void JobRun::Artifact(std::string_view name, std::string_view content_type, std::string_view bytes) {
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

bool JobRun::Prepare(const pb::RunJobRequest& request) {
  payload_ = request.payload_json().empty() ? Json() : Json::parse(request.payload_json(), nullptr, false);
  config_ = request.config_json().empty() ? Json::object() : Json::parse(request.config_json(), nullptr, false);
  return !payload_.is_discarded() && !config_.is_discarded();
}

void JobRun::Execute(const JobHandler& handler) {
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
    Fail(interrupted_ ? "INTERRUPTED" : "CANCELLED", interrupted_ ? "the module is stopping" : "the run was cancelled", "", true);
  } catch (const std::exception& error) {
    Fail("INTERNAL", error.what(), TypeName(error), true);
  } catch (...) {
    Fail("INTERNAL", "the handler threw something that is no std::exception", "", true);
  }
}

bool JobRun::closed() {
  std::lock_guard lock(mutex_);
  return closed_;
}

void JobRun::Fail(std::string_view code, std::string_view message, std::string_view stack, bool retryable) {
  pb::RunJobUpdate update;
  pb::JobError& error = *update.mutable_error();
  error.set_code(Utf8(code.substr(0, kMaxErrorCode)));
  error.set_message(Utf8(message.substr(0, kMaxErrorMessage)));
  error.set_stack(Utf8(stack.substr(0, kMaxErrorStack)));
  error.set_retryable(retryable);
  Close(std::move(update));
}

void JobRun::Cancel(bool by_stop) {
  {
    std::lock_guard lock(mutex_);
    if (by_stop) interrupted_ = true;
    cancelled_.store(true, std::memory_order_release);
  }
  cancel_.notify_all();
}

void JobRun::PushLog(std::string_view level, std::string_view message) {
  pb::RunJobUpdate update;
  update.mutable_log()->set_level(Utf8(level));
  update.mutable_log()->set_message(Utf8(message.substr(0, kMaxLogMessage)));
  Push(std::move(update));
}

void JobRun::Push(pb::RunJobUpdate update) {
  {
    std::lock_guard lock(mutex_);
    if (closed_) return;
    channel_->Put(fence_, std::move(update), false);
  }
  channel_->Pump();
}

void JobRun::PushPendingProgress() {
  {
    std::lock_guard lock(mutex_);
    if (closed_ || !pending_progress_) return;
    last_progress_ = Clock::now();
    channel_->Put(fence_, *std::exchange(pending_progress_, std::nullopt), false);
  }
  channel_->Pump();
}

void JobRun::Close(pb::RunJobUpdate last) {
  if (int dropped = log_lines_ - kMaxLogLines; dropped > 0) PushLog("warn", std::to_string(dropped) + " more lines were dropped");
  PushPendingProgress();
  std::lock_guard lock(mutex_);
  if (closed_) return;
  closed_ = true;
  channel_->Put(fence_, std::move(last), true);
}

}  // namespace bulkhead::sdk
