// What the Runner writes of its runs, and what it says of those that have ended.
#include <algorithm>
#include <set>

#include "nlohmann/json.hpp"
#include "supervisor/base/log.h"
#include "supervisor/jobs/flight.h"

namespace bulkhead {

namespace {

// gRPC's code as one of ours, for a call that ended without the module saying why.
std::string CodeOf(const absl::Status& status) { return absl::StatusCodeToString(status.code()); }

// How an attempt is counted: by the status of the run, or why it is not the last one.
std::string_view AttemptOutcome(const RunOutcome& outcome) {
  switch (outcome.kind) {
    case RunOutcome::Kind::kFinal:
    case RunOutcome::Kind::kShutdown: return RunStatusName(outcome.status);
    case RunOutcome::Kind::kRetry: return "RETRIED";
    case RunOutcome::Kind::kLost: return "LOST";
    case RunOutcome::Kind::kReturned:
    case RunOutcome::Kind::kUnbegun: return "RETURNED";
  }
  return "RETURNED";
}

constexpr int kMaxWriting = 2;  // one works while the other one waits for its commit

// What the row of a run has become, with the rest of it as it was.
void Close(RunView& view, const ClosedRun& row) {
  view.status = row.status;
  view.attempt = row.attempt;
  view.result_json = row.result_json;
  view.error_code = row.error_code;
  view.error_message = row.error_message;
  view.error_stack = row.error_stack;
  view.progress = row.progress;
  view.progress_message = row.progress_message;
  view.started_at = row.started_at;
  view.finished_at = row.finished_at;
  view.not_before = row.status == RunStatus::kQueued ? row.not_before : std::nullopt;
  view.cancel_requested = row.cancel_requested && row.status == RunStatus::kQueued;
}

}  // namespace

RunOutcome Runner::OutcomeOf(Flight& flight, const RunMailbox::News& news, const absl::Status& status) {
  // A module that keeps the time itself says that the run was cancelled; nobody has, its time is up.
  bool out_of_time = news.error && news.error->code() == "CANCELLED" && clock_.Now() >= flight.due;
  if (news.error && !out_of_time) {
    const std::string code = news.error->code().empty() ? "JOB_FAILED" : news.error->code();
    return Failure(flight, RunStatus::kFailed, code, news.error->message(), news.error->stack(), news.error->retryable());
  }
  if (news.result_too_large) {
    return Failure(flight, RunStatus::kFailed, "RESULT_TOO_LARGE",
                   "The result has more than " + std::to_string(limits::kMaxJobPayload) + " bytes.", "", false);
  }
  if (news.result_json) {
    const std::string& result = news.result_json->empty() ? "null" : *news.result_json;
    if (result.find("\\u0000") != std::string::npos || !nlohmann::json::accept(result))
      return Failure(flight, RunStatus::kFailed, "RESULT_INVALID", "The result is not JSON that the database can keep.", "",
                     false);
    return {.kind = RunOutcome::Kind::kFinal, .status = RunStatus::kSucceeded, .result_json = result};
  }
  if (out_of_time || status.code() == absl::StatusCode::kDeadlineExceeded) {
    return Failure(flight, RunStatus::kTimedOut, "TIMED_OUT",
                   "The run took longer than " + std::to_string(flight.spec->timeout.count()) + " ms.", "", true);
  }
  if (status.ok())
    return Failure(flight, RunStatus::kFailed, "NO_RESULT", "The module ended the run without a result or an error.", "", true);
  const bool retryable = status.code() != absl::StatusCode::kUnimplemented && status.code() != absl::StatusCode::kInvalidArgument;
  return Failure(flight, RunStatus::kFailed, CodeOf(status), Clip(std::string(status.message()), limits::kMaxErrorMessage), "", retryable);
}

RunOutcome Runner::Failure(const Flight& flight, RunStatus status, std::string code, std::string message, std::string stack,
                           bool retryable) {
  RunOutcome outcome{.kind = RunOutcome::Kind::kFinal, .status = status};
  outcome.error_code = std::move(code);
  outcome.error_message = std::move(message);
  outcome.error_stack = std::move(stack);
  if (retryable && flight.run.view.attempt < flight.run.view.max_attempts) {
    outcome.kind = RunOutcome::Kind::kRetry;
    const int doublings = std::min(flight.run.view.attempt - 1, 16);
    const int64_t most = std::min<int64_t>(limits::kRetryBase.count() << doublings, limits::kRetryCap.count());
    outcome.delay = Millis(static_cast<int64_t>(random_.Below(static_cast<uint64_t>(most) + 1)));
  }
  return outcome;
}

void Runner::Tell(const Flight& flight) const {
  if (flight.began == Instant{}) return;  // it was given back before it began
  const RunView& view = flight.run.view;
  const RunOutcome& outcome = *flight.outcome;
  const auto took = clock_.Now() - flight.began;
  if (meters_) meters_->Ended(view.module, view.job, AttemptOutcome(outcome), std::chrono::duration_cast<Millis>(took));
  if (!tracer_ || !tracer_->Records(flight.trace)) return;
  Span span;
  span.name = "job " + view.job;
  span.context = flight.trace;
  span.end_ns = std::chrono::duration_cast<std::chrono::nanoseconds>(clock_.Wall().time_since_epoch()).count();
  span.begin_ns = span.end_ns - std::chrono::duration_cast<std::chrono::nanoseconds>(took).count();
  span.attributes = {{"bulkhead.module", view.module},           {"bulkhead.worker", flight.instance()},
                     {"bulkhead.job", view.job},                 {"bulkhead.run_id", view.id},
                     {"bulkhead.attempt", int64_t{view.attempt}}, {"bulkhead.trigger", view.trigger},
                     {"bulkhead.outcome", std::string(AttemptOutcome(outcome))}};
  const bool succeeded = outcome.kind == RunOutcome::Kind::kFinal && outcome.status == RunStatus::kSucceeded;
  span.failed = !succeeded && outcome.kind != RunOutcome::Kind::kReturned;
  if (span.failed) {
    span.message = outcome.error_message;
    span.attributes.emplace_back("error.type", outcome.error_code.empty() ? std::string(AttemptOutcome(outcome)) : outcome.error_code);
  }
  tracer_->Put(std::move(span));
}

void Runner::WriteOutcomes() {
  if (outcomes_.empty() || retry_timer_ != 0 || writing_ >= kMaxWriting) return;
  if (writing_ > 0 && (one_by_one_ || outcomes_.size() < limits::kManyOutcomes)) return;
  const size_t count = one_by_one_ ? 1 : std::min(outcomes_.size(), limits::kMaxOutcomesAtOnce);
  const std::vector<int64_t> fences(outcomes_.begin(), outcomes_.begin() + static_cast<std::ptrdiff_t>(count));
  outcomes_.erase(outcomes_.begin(), outcomes_.begin() + static_cast<std::ptrdiff_t>(count));
  std::vector<FinishedRun> runs;
  for (int64_t fence : fences) {
    const Flight& flight = *flights_.at(fence);
    runs.push_back({flight.run.view.id, fence, flight.instance(), *flight.outcome});
  }
  ++writing_;
  store_.Call([runs = std::move(runs)](RunStore& store) { return store.Finish(runs); },
              [this, fences](absl::StatusOr<std::vector<std::optional<ClosedRun>>> written) { Written(fences, std::move(written)); });
}

void Runner::Written(const std::vector<int64_t>& fences, absl::StatusOr<std::vector<std::optional<ClosedRun>>> written) {
  --writing_;
  const auto ended_here = [](const RunOutcome& outcome) {
    return outcome.kind == RunOutcome::Kind::kFinal || outcome.kind == RunOutcome::Kind::kShutdown;
  };
  if (!written.ok()) {
    one_by_one_ = fences.size() > 1;
    for (int64_t fence : fences) {
      Flight& flight = *flights_.at(fence);
      // Whoever waits for the run is told from memory; the row follows.
      if (ended_here(*flight.outcome) && !std::exchange(flight.announced, true)) events_.ended(flight.run.view);
      NotWritten(flight, written.status());
    }
    if (retry_timer_ != 0) return;
    retry_timer_ = store_.loop().After(limits::kOutcomeRetry, [this] {
      retry_timer_ = 0;
      WriteOutcomes();
    });
    return;
  }
  std::set<Millis> delays;
  for (size_t i = 0; i < fences.size(); ++i) {
    Flight& flight = *flights_.at(fences[i]);
    // Without a row the lease was lost, and somebody else runs it now.
    if (const auto& row = (*written)[i]; row && !flight.announced) {
      Close(flight.run.view, *row);
      row->status == RunStatus::kQueued ? events_.news(flight.run.view, {}) : events_.ended(flight.run.view);
    }
    if (flight.outcome->delay > Millis(0)) delays.insert(flight.outcome->delay);
    flights_.erase(fences[i]);
  }
  events_.vacated(Millis(0));
  for (Millis delay : delays) events_.vacated(delay);
  if (outcomes_.empty()) one_by_one_ = false;
  WriteOutcomes();
}

void Runner::NotWritten(Flight& flight, const absl::Status& why) {
  const int64_t fence = flight.run.fence;
  const std::string error(why.message());
  if (!std::exchange(flight.warned, true))
    LogWarn("jobs", "the outcome of a run is not written yet", {{"run", flight.run.view.id}, {"error", error}});
  if (ErrorCode(why) != "DATABASE_UNAVAILABLE" && !one_by_one_ && ++flight.refusals >= limits::kMaxOutcomeRefusals) {
    LogError("jobs", "the outcome of a run is given up; its lease will run out", {{"run", flight.run.view.id}, {"error", error}});
    flights_.erase(fence);
    return events_.vacated(Millis(0));
  }
  outcomes_.push_back(fence);
}

void Runner::WriteProgress(Flight& flight) {
  const RunView& view = flight.run.view;
  store_.Call([id = view.id, fence = flight.run.fence, progress = view.progress,
               message = view.progress_message](RunStore& store) { return store.SetProgress(id, fence, progress, message); },
              [](absl::Status status) {
                if (!status.ok()) LogDebug("jobs", "progress was not written", {{"error", std::string(status.message())}});
              });
  WriteLines(flight);
}

void Runner::WriteLines(Flight& flight) {
  if (flight.unwritten.empty()) return;
  store_.Call([id = flight.run.view.id, lines = std::exchange(flight.unwritten, {})](RunStore& store) { return store.AddLogs(id, lines); },
              [id = flight.run.view.id](absl::Status status) {
                if (!status.ok()) LogWarn("jobs", "what a run has said is not kept", {{"run", id}, {"error", std::string(status.message())}});
              });
}

}  // namespace bulkhead
