#include "supervisor/jobs/runner.h"

#include <algorithm>
#include <cmath>

#include "nlohmann/json.hpp"
#include "supervisor/base/log.h"

namespace bulkhead {

struct Runner::Flight {
  ClaimedRun run;
  JobSpec spec;
  std::string instance;
  std::shared_ptr<RunMailbox> mailbox;
  std::shared_ptr<JobCall> call;  // null once the call is over for us
  bool calling = false;
  bool leaving = false;  // its worker is being drained: losing it is nobody's fault
  Instant due{};  // when its time is up
  Instant began{};
  TraceContext trace;  // of this attempt, a trace of its own
  Loop::TimerId timeout = 0;
  Loop::TimerId progress_timer = 0;  // set while progress waits to be written
  Loop::TimerId outcome_timer = 0;
  std::optional<RunOutcome> outcome;  // set by Conclude
  bool announced = false;             // `ended` was called
  int refusals = 0;                   // of the outcome, by a database that is there
};

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
    case RunOutcome::Kind::kReturned: return "RETURNED";
  }
  return "RETURNED";
}

}  // namespace

Runner::Runner(StoreCalls& store, const Clock& clock, Events events, JobMeters* meters, Tracer* tracer)
    : store_(store), clock_(clock), events_(std::move(events)), meters_(meters), tracer_(tracer) {}

Runner::~Runner() {
  for (auto& [fence, flight] : flights_) {
    for (Loop::TimerId timer : {flight->timeout, flight->progress_timer, flight->outcome_timer}) store_.loop().Cancel(timer);
    if (flight->call) flight->call->Cancel();
  }
}

void Runner::Launch(ClaimedRun run, const JobSpec& spec, const DirectoryWorker& worker) {
  const int64_t fence = run.fence;
  auto owned = std::make_unique<Flight>();
  Flight& flight = *owned;
  flight.run = std::move(run);
  flight.run.view.worker = worker.instance;
  flight.spec = spec;
  flight.instance = worker.instance;
  flights_[fence] = std::move(owned);
  RunView& view = flight.run.view;

  Loop& loop = store_.loop();
  flight.mailbox =
      std::make_shared<RunMailbox>(clock_, view.module, view.job, view.id,
                                   [&loop, hear = store_.GuardedWith<>([this, fence] { Hear(fence); })] { loop.Post(hear); });
  module::v1::RunJobRequest request;
  request.set_run_id(view.id);
  request.set_job(view.job);
  request.set_payload_json(view.payload_json);
  request.set_attempt(view.attempt);
  request.set_deadline_ms(spec.timeout.count());
  request.set_fence(fence);
  request.set_config_json(spec.config_json);
  flight.began = clock_.Now();
  flight.trace = tracer_ ? tracer_->Begin({}, random_) : ChildOf({}, random_);
  request.set_traceparent(FormatTraceparent(flight.trace));
  LogDebug("jobs", "run begins",
           {{"module", view.module}, {"job", view.job}, {"run", view.id}, {"attempt", std::to_string(view.attempt)}});
  flight.calling = true;
  flight.due = clock_.Now() + spec.timeout;
  flight.timeout = loop.After(spec.timeout, [this, fence] {
    if (Flight* late = Find(fence)) {
      late->timeout = 0;
      Cut(*late, CutShort::kTimeout);
    }
  });
  auto mailbox = flight.mailbox;
  auto ended = store_.GuardedWith<absl::Status>([this, fence](absl::Status status) { CallEnded(fence, status); });
  auto call = worker.control->RunJob(
      request, spec.timeout + limits::kRunDeadlineSlack,
      [mailbox](const module::v1::RunJobUpdate& update) { mailbox->Put(update); },
      [&loop, ended](absl::Status status) { loop.Post([ended, status = std::move(status)] { ended(status); }); });
  flight.call = std::move(call);
}

void Runner::Return(const ClaimedRun& run) {
  auto flight = std::make_unique<Flight>();
  flight->run = run;
  Flight& kept = *(flights_[run.fence] = std::move(flight));
  Conclude(kept, {.kind = RunOutcome::Kind::kReturned});
}

Runner::Flight* Runner::Find(int64_t fence) {
  auto found = flights_.find(fence);
  return found == flights_.end() ? nullptr : found->second.get();
}

bool Runner::Runs(const JobKey& key) const {
  return std::any_of(flights_.begin(), flights_.end(), [&](const auto& entry) {
    return entry.second->run.view.module == key.first && entry.second->run.view.job == key.second;
  });
}

bool Runner::RunsId(const std::string& run_id) const {
  return std::any_of(flights_.begin(), flights_.end(), [&](const auto& entry) { return entry.second->run.view.id == run_id; });
}

int Runner::LoadOf(const std::string& instance) const {
  return static_cast<int>(std::count_if(flights_.begin(), flights_.end(),
                                        [&](const auto& e) { return e.second->calling && e.second->instance == instance; }));
}

void Runner::Hear(int64_t fence) {
  Flight* flight = Find(fence);
  if (flight == nullptr || !flight->calling) return;
  const RunMailbox::News news = flight->mailbox->Take();
  if (!news.progress) return;
  NoteProgress(*flight, news);
  if (flight->progress_timer != 0) return;
  flight->progress_timer = store_.loop().After(limits::kProgressInterval, [this, fence] {
    if (Flight* waiting = Find(fence)) {
      waiting->progress_timer = 0;
      WriteProgress(*waiting);
    }
  });
}

void Runner::NoteProgress(Flight& flight, const RunMailbox::News& news) {
  if (!news.progress) return;
  RunView& view = flight.run.view;
  view.progress = std::isfinite(news.progress->fraction()) ? std::clamp(news.progress->fraction(), 0.0, 1.0) : view.progress;
  view.progress_message = news.progress->message();
}

void Runner::WriteProgress(Flight& flight) {
  const RunView& view = flight.run.view;
  store_.Call([id = view.id, fence = flight.run.fence, progress = view.progress,
               message = view.progress_message](RunStore& store) { return store.SetProgress(id, fence, progress, message); },
              [](absl::Status status) {
                if (!status.ok()) LogDebug("jobs", "progress was not written", {{"error", std::string(status.message())}});
              });
}

void Runner::CallEnded(int64_t fence, const absl::Status& status) {
  Flight* flight = Find(fence);
  if (flight == nullptr || !flight->calling) return;
  const RunMailbox::News news = flight->mailbox->Take();
  NoteProgress(*flight, news);
  if (!news.ended() && status.code() == absl::StatusCode::kUnavailable) return Cut(*flight, CutShort::kLost);
  Conclude(*flight, OutcomeOf(*flight, news, status));
}

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
                   "The run took longer than " + std::to_string(flight.spec.timeout.count()) + " ms.", "", true);
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
  if (retryable && flight.run.view.attempt < flight.run.max_attempts) {
    outcome.kind = RunOutcome::Kind::kRetry;
    const int doublings = std::min(flight.run.view.attempt - 1, 16);
    const int64_t most = std::min<int64_t>(limits::kRetryBase.count() << doublings, limits::kRetryCap.count());
    outcome.delay = Millis(static_cast<int64_t>(random_.Below(static_cast<uint64_t>(most) + 1)));
  }
  return outcome;
}

void Runner::Cut(Flight& flight, CutShort why) {
  if (!flight.calling) return;
  // A result that came in whole counts, even when its worker died right after it, or the time ran out before the call's end.
  const RunMailbox::News news = flight.mailbox->Take();
  NoteProgress(flight, news);
  if (news.ended()) {
    if (flight.call) flight.call->Cancel();
    return Conclude(flight, OutcomeOf(flight, news, absl::OkStatus()));
  }
  using Kind = RunOutcome::Kind;
  RunOutcome outcome;
  switch (why) {
    case CutShort::kTimeout:
      outcome = Failure(flight, RunStatus::kTimedOut, "TIMED_OUT",
                        "The run took longer than " + std::to_string(flight.spec.timeout.count()) + " ms.", "", true);
      break;
    case CutShort::kReplaced:
      outcome = {.kind = Kind::kFinal,
                 .status = RunStatus::kCancelled,
                 .error_code = "REPLACED",
                 .error_message = "A later run of the job took its place."};
      break;
    case CutShort::kShutdown: outcome = {.kind = Kind::kShutdown, .status = RunStatus::kInterrupted}; break;
    case CutShort::kLost: outcome = {.kind = flight.leaving ? Kind::kReturned : Kind::kLost}; break;
    case CutShort::kLeft: outcome = {.kind = Kind::kReturned}; break;
  }
  if (flight.call) flight.call->Cancel();
  Conclude(flight, std::move(outcome));
}

void Runner::Conclude(Flight& flight, RunOutcome outcome) {
  Loop& loop = store_.loop();
  loop.Cancel(std::exchange(flight.timeout, 0));
  loop.Cancel(std::exchange(flight.progress_timer, 0));
  flight.calling = false;
  flight.call.reset();
  if (flight.mailbox) flight.mailbox->Close();
  RunView& view = flight.run.view;
  outcome.progress = view.progress;
  outcome.progress_message = view.progress_message;
  if (outcome.kind == RunOutcome::Kind::kFinal || outcome.kind == RunOutcome::Kind::kShutdown) {
    view.status = outcome.status;
    view.finished_at = clock_.Wall();
    if (outcome.status == RunStatus::kSucceeded) view.progress = 1;
    if (outcome.result_json) view.result_json = *outcome.result_json;
    view.error_code = outcome.error_code;
    view.error_message = outcome.error_message;
    view.error_stack = outcome.error_stack;
  }
  if (!outcome.error_code.empty()) {
    LogWarn("jobs", outcome.kind == RunOutcome::Kind::kRetry ? "an attempt of a run failed" : "a run ended badly",
            {{"module", view.module},
             {"job", view.job},
             {"run", view.id},
             {"attempt", std::to_string(view.attempt)},
             {"code", outcome.error_code},
             {"error", outcome.error_message.substr(0, 1024)}});
  }
  flight.outcome = std::move(outcome);
  Tell(flight);
  const std::string instance = flight.instance;
  WriteOutcome(flight);
  AnswerDrains(instance);
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
  span.attributes = {{"bulkhead.module", view.module},           {"bulkhead.worker", flight.instance},
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

void Runner::WriteOutcome(Flight& flight) {
  const int64_t fence = flight.run.fence;
  store_.Call(
      [id = flight.run.view.id, fence, outcome = *flight.outcome](RunStore& store) { return store.Finish(id, fence, outcome); },
      [this, fence](absl::StatusOr<std::optional<RunView>> written) {
        Flight* flight = Find(fence);
        if (flight == nullptr) return;
        const RunOutcome& outcome = *flight->outcome;
        const bool ended_here = outcome.kind == RunOutcome::Kind::kFinal || outcome.kind == RunOutcome::Kind::kShutdown;
        if (!written.ok()) {
          // Whoever waits for the run is told from memory; the row follows.
          if (ended_here && !std::exchange(flight->announced, true)) events_.ended(flight->run.view);
          const std::string error(written.status().message());
          if (flight->outcome_timer == 0)
            LogWarn("jobs", "the outcome of a run is not written yet", {{"run", flight->run.view.id}, {"error", error}});
          if (ErrorCode(written.status()) != "DATABASE_UNAVAILABLE" && ++flight->refusals >= limits::kMaxOutcomeRefusals) {
            LogError("jobs", "the outcome of a run is given up; its lease will run out",
                     {{"run", flight->run.view.id}, {"error", error}});
            return Forget(fence, Millis(0));
          }
          flight->outcome_timer = store_.loop().After(limits::kOutcomeRetry, [this, fence] {
            if (Flight* waiting = Find(fence)) WriteOutcome(*waiting);
          });
          return;
        }
        // Without a row the lease was lost, and somebody else runs it now.
        if (*written && (*written)->status != RunStatus::kQueued && !flight->announced) events_.ended(**written);
        Forget(fence, outcome.delay);
      });
}

void Runner::Forget(int64_t fence, Millis delay) {
  Flight* flight = Find(fence);
  if (flight == nullptr) return;
  store_.loop().Cancel(flight->outcome_timer);
  flights_.erase(fence);
  events_.vacated(delay);
}

void Runner::CutAll(CutShort why) {
  std::vector<int64_t> fences;
  for (const auto& [fence, flight] : flights_) fences.push_back(fence);
  for (int64_t fence : fences) {
    if (Flight* flight = Find(fence)) Cut(*flight, why);
  }
}

void Runner::CutJob(const JobKey& key, CutShort why) {
  std::vector<int64_t> fences;
  for (const auto& [fence, flight] : flights_) {
    if (flight->run.view.module == key.first && flight->run.view.job == key.second) fences.push_back(fence);
  }
  for (int64_t fence : fences) {
    if (Flight* flight = Find(fence)) Cut(*flight, why);
  }
}

void Runner::WorkerGone(const std::string& instance) {
  std::vector<int64_t> fences;
  for (const auto& [fence, flight] : flights_) {
    if (flight->instance == instance) fences.push_back(fence);
  }
  for (int64_t fence : fences) {
    if (Flight* flight = Find(fence)) Cut(*flight, CutShort::kLost);
  }
  AnswerDrains(instance);
}

void Runner::Drain(const std::string& instance, std::function<void()> drained) {
  for (auto& [fence, flight] : flights_) {
    if (flight->instance == instance) flight->leaving = true;
  }
  drains_.emplace(instance, std::move(drained));
  AnswerDrains(instance);
}

void Runner::AnswerDrains(const std::string& instance) {
  if (LoadOf(instance) > 0) return;
  auto [begin, end] = drains_.equal_range(instance);
  std::vector<std::function<void()>> answers;
  for (auto it = begin; it != end; ++it) answers.push_back(std::move(it->second));
  drains_.erase(begin, end);
  for (auto& answer : answers) answer();
}

void Runner::Heartbeat(std::function<void()> done) {
  std::vector<std::pair<std::string, int64_t>> mine;
  for (const auto& [fence, flight] : flights_) mine.emplace_back(flight->run.view.id, fence);
  if (mine.empty()) return done();
  store_.Call([mine](RunStore& store) { return store.Extend(mine); },
              [this, mine, done = std::move(done)](absl::StatusOr<std::vector<RunStore::Extended>> extended) {
                if (extended.ok()) {
                  std::map<int64_t, bool> newer;
                  for (const RunStore::Extended& e : *extended) newer[e.fence] = e.newer_waits;
                  for (const auto& [id, fence] : mine) {
                    Flight* flight = Find(fence);
                    if (flight == nullptr || !flight->calling) continue;  // what has ended finds out when it writes
                    if (!newer.contains(fence)) {
                      LogWarn("jobs", "the lease of a run is lost; it is stopped here", {{"run", id}});
                      Cut(*flight, CutShort::kLeft);
                    } else if (newer[fence] && flight->spec.overlap == Overlap::kReplace) {
                      Cut(*flight, CutShort::kReplaced);
                    }
                  }
                }
                done();
              });
}

}  // namespace bulkhead
