#include "supervisor/jobs/runner.h"

#include <algorithm>
#include <cmath>

#include "supervisor/base/log.h"
#include "supervisor/jobs/flight.h"

namespace bulkhead {

namespace {

constexpr Millis kAskTimeout{1'000}, kFirstAsk{20}, kLastAsk{500};
constexpr Millis kYoung{1'000};

// Whether the handler may still be at it, although its call has ended so.
bool MayGoOn(const absl::Status& status) {
  return status.code() == absl::StatusCode::kUnavailable || status.code() == absl::StatusCode::kDeadlineExceeded ||
         status.code() == absl::StatusCode::kCancelled;
}

// A module that stops ends the calls of its runs so, those of handlers that have not returned yet among them.
bool Interrupted(const RunMailbox::News& news) { return news.error && news.error->code() == "INTERRUPTED"; }

}  // namespace

Runner::Runner(StoreCalls& store, const Clock& clock, Events events, bool alone, JobMeters* meters, Tracer* tracer)
    : store_(store), clock_(clock), events_(std::move(events)), alone_(alone), meters_(meters), tracer_(tracer) {}

Runner::~Runner() {
  store_.loop().Cancel(retry_timer_);
  for (auto& [fence, flight] : flights_) {
    StopTimers(*flight);
    if (flight->call) flight->call->Cancel();
  }
}

void Runner::StopTimers(Flight& flight) {
  for (Loop::TimerId* timer : {&flight.timeout, &flight.progress_timer, &flight.ask_timer}) store_.loop().Cancel(std::exchange(*timer, 0));
}

void Runner::Launch(ClaimedRun run, const Schedule::Job& job, const DirectoryWorker& worker, Instant leased) {
  if (!alone_ && clock_.Now() - leased >= limits::kLeaseGivenUp) return Return(run);  // the answer to the claim came late
  const int64_t fence = run.fence;
  auto owned = std::make_unique<Flight>();
  Flight& flight = *owned;
  flight.run = std::move(run);
  flight.module = job.module;
  flight.spec = job.spec;
  flight.worker = &worker;
  flight.leased = leased;
  flights_[fence] = std::move(owned);
  RunView& view = flight.run.view;
  view.worker = worker.instance;
  ++executing_[flight.key()];
  ++instances_[worker.instance];

  Loop& loop = store_.loop();
  flight.mailbox =
      std::make_shared<RunMailbox>(clock_, view.module, view.job, view.id, fence,
                                   [&loop, hear = store_.GuardedWith<>([this, fence] { Hear(fence); })] { loop.Post(hear); });
  module::v1::RunJobRequest request;
  request.set_run_id(view.id);
  request.set_job(view.job);
  request.set_payload_json(view.payload_json);
  request.set_attempt(view.attempt);
  const JobSpec& spec = *job.spec;
  request.set_deadline_ms(spec.timeout.count());
  request.set_fence(fence);
  request.set_config_json(spec.config_json);
  flight.began = clock_.Now();
  flight.trace = tracer_ ? tracer_->Begin({}, random_) : ChildOf({}, random_);
  request.set_traceparent(FormatTraceparent(flight.trace));
  LogDebug("jobs", "run begins",
           {{"module", view.module}, {"job", view.job}, {"run", view.id}, {"attempt", std::to_string(view.attempt)}});
  flight.phase = Flight::Phase::kCalling;
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
  events_.news(flight.run.view, {});
}

void Runner::Return(const ClaimedRun& run) {
  auto flight = std::make_unique<Flight>();
  flight->run = run;
  Flight& kept = *(flights_[run.fence] = std::move(flight));
  Conclude(kept, {.kind = RunOutcome::Kind::kUnbegun});
}

Runner::Flight* Runner::Find(int64_t fence) {
  auto found = flights_.find(fence);
  return found == flights_.end() ? nullptr : found->second.get();
}

template <typename Condition>
std::vector<int64_t> Runner::FencesWhere(Condition condition) const {
  std::vector<int64_t> fences;
  for (const auto& [fence, flight] : flights_) {
    if (condition(*flight)) fences.push_back(fence);
  }
  return fences;
}

// Each may take others away with it.
template <typename Condition>
void Runner::CutWhere(CutShort why, Condition condition) {
  for (int64_t fence : FencesWhere(condition)) {
    if (Flight* flight = Find(fence)) Cut(*flight, why);
  }
}

Runner::Load Runner::load(Millis slow) const {
  Load load{executing_, instances_, {}, {}};
  const Instant before = clock_.Now() - slow;
  for (const auto& [fence, flight] : flights_) {
    if (!flight->here()) {
      ++load.unwritten[flight->key()];
    } else if (flight->began <= before) {
      ++load.slow[flight->key()];
    }
  }
  return load;
}

int Runner::Executing() const {
  int all = 0;
  for (const auto& [instance, runs] : instances_) all += runs;
  return all;
}

int Runner::Executing(const JobKey& key) const {
  const auto found = executing_.find(key);
  return found == executing_.end() ? 0 : found->second;
}

bool Runner::RunsId(const std::string& run_id) const {
  return std::any_of(flights_.begin(), flights_.end(), [&](const auto& entry) { return entry.second->run.view.id == run_id; });
}

std::optional<std::pair<RunView, std::vector<RunLogLine>>> Runner::Recent(const std::string& run_id) const {
  for (const auto& [fence, flight] : flights_) {
    if (flight->run.view.id == run_id) return std::pair(flight->run.view, std::vector<RunLogLine>(flight->recent.begin(), flight->recent.end()));
  }
  return std::nullopt;
}

int Runner::LoadOf(const std::string& instance) const {
  const auto found = instances_.find(instance);
  return found == instances_.end() ? 0 : found->second;
}

void Runner::Hear(int64_t fence) {
  Flight* flight = Find(fence);
  if (flight == nullptr || flight->phase != Flight::Phase::kCalling) return;
  NoteNews(*flight, flight->mailbox->Take());
}

void Runner::NoteNews(Flight& flight, const RunMailbox::News& news) {
  if (!news.progress && news.lines.empty()) return;
  RunView& view = flight.run.view;
  if (news.progress) {
    view.progress = std::isfinite(news.progress->fraction()) ? std::clamp(news.progress->fraction(), 0.0, 1.0) : view.progress;
    view.progress_message = news.progress->message();
  }
  flight.recent.insert(flight.recent.end(), news.lines.begin(), news.lines.end());
  while (flight.recent.size() > limits::kRecentLines) flight.recent.pop_front();
  flight.unwritten.insert(flight.unwritten.end(), news.lines.begin(), news.lines.end());
  events_.news(view, news.lines);
  if (flight.progress_timer != 0) return;
  flight.progress_timer = store_.loop().After(limits::kProgressInterval, [this, fence = flight.run.fence] {
    if (Flight* waiting = Find(fence)) {
      waiting->progress_timer = 0;
      WriteProgress(*waiting);
    }
  });
}

void Runner::Kept(int64_t fence, const Artifact& artifact) {
  Flight* flight = Find(fence);
  if (flight == nullptr) return;
  std::vector<Artifact>& artifacts = flight->run.view.artifacts;
  auto at = std::lower_bound(artifacts.begin(), artifacts.end(), artifact, [](const Artifact& a, const Artifact& b) { return a.name < b.name; });
  if (at != artifacts.end() && at->name == artifact.name) {
    *at = artifact;
  } else {
    artifacts.insert(at, artifact);
  }
  events_.news(flight->run.view, {});
}

void Runner::CallEnded(int64_t fence, const absl::Status& status) {
  Flight* flight = Find(fence);
  if (flight == nullptr || flight->phase != Flight::Phase::kCalling) return;
  const RunMailbox::News news = flight->mailbox->Take();
  NoteNews(*flight, news);
  if (!news.ended() && status.code() == absl::StatusCode::kUnavailable) return Cut(*flight, CutShort::kLost);
  RunOutcome outcome = OutcomeOf(*flight, news, status);
  const bool interrupted = Interrupted(news);
  if (interrupted) outcome = {.kind = RunOutcome::Kind::kReturned, .delay = flight->leaving ? Millis(0) : limits::kRetryBase};
  if (interrupted || (!news.ended() && MayGoOn(status))) return End(*flight, std::move(outcome), limits::kHastyGrace);
  Conclude(*flight, std::move(outcome));
}

void Runner::Cut(Flight& flight, CutShort why) {
  if (flight.phase != Flight::Phase::kCalling) return;
  // A result that came in whole counts, even when its worker died right after it, or the time ran out before the call's end.
  const RunMailbox::News news = flight.mailbox->Take();
  NoteNews(flight, news);
  if (news.ended() && !Interrupted(news)) {
    if (flight.call) flight.call->Cancel();
    return Conclude(flight, OutcomeOf(flight, news, absl::OkStatus()));
  }
  using Kind = RunOutcome::Kind;
  RunOutcome outcome;
  Millis grace = limits::kCancelGrace;
  switch (why) {
    case CutShort::kTimeout:
      outcome = Failure(flight, RunStatus::kTimedOut, "TIMED_OUT",
                        "The run took longer than " + std::to_string(flight.spec->timeout.count()) + " ms.", "", true);
      break;
    case CutShort::kReplaced:
      outcome = {.kind = Kind::kFinal,
                 .status = RunStatus::kCancelled,
                 .error_code = "REPLACED",
                 .error_message = "A later run of the job took its place."};
      break;
    case CutShort::kCancelled:
      outcome = {.kind = Kind::kFinal, .status = RunStatus::kCancelled, .error_code = "CANCELLED", .error_message = "The run was cancelled."};
      break;
    case CutShort::kShutdown:
      outcome = {.kind = Kind::kShutdown, .status = RunStatus::kInterrupted};
      grace = limits::kHastyGrace;
      break;
    case CutShort::kLost:
      outcome = {.kind = flight.leaving ? Kind::kReturned : Kind::kLost};
      grace = limits::kHastyGrace;
      break;
    case CutShort::kLeft:
      outcome = {.kind = Kind::kReturned};
      grace = limits::kHastyGrace;
      break;
  }
  if (flight.call) flight.call->Cancel();
  End(flight, std::move(outcome), grace);
}

void Runner::End(Flight& flight, RunOutcome outcome, Millis grace) {
  StopTimers(flight);
  flight.phase = Flight::Phase::kEnding;
  flight.call.reset();
  flight.outcome = std::move(outcome);
  flight.kill_at = clock_.Now() + grace;
  flight.ask_again = kFirstAsk;
  // A call that has just begun may still be on its way to its handler.
  if (clock_.Now() - flight.began >= kYoung) return AskWhetherItEnded(flight);
  AskAgain(flight);
}

void Runner::AskAgain(Flight& flight) {
  const Millis wait = std::exchange(flight.ask_again, std::min(flight.ask_again * 2, kLastAsk));
  flight.ask_timer = store_.loop().After(wait, [this, fence = flight.run.fence] {
    if (Flight* asked = Find(fence)) {
      asked->ask_timer = 0;
      AskWhetherItEnded(*asked);
    }
  });
}

void Runner::AskWhetherItEnded(Flight& flight) {
  using Response = module::v1::RunningJobsResponse;
  Loop& loop = store_.loop();
  auto answered = store_.GuardedWith<absl::Status, Response>(
      [this, fence = flight.run.fence](absl::Status status, Response response) { Answered(fence, status, response); });
  flight.worker->control->RunningJobs(kAskTimeout, [&loop, answered](absl::Status status, Response response) {
    loop.Post([answered, status = std::move(status), response = std::move(response)] { answered(status, response); });
  });
}

void Runner::Answered(int64_t fence, const absl::Status& status, const module::v1::RunningJobsResponse& response) {
  Flight* flight = Find(fence);
  if (flight == nullptr || flight->phase != Flight::Phase::kEnding) return;
  const auto& left = response.fences();
  const bool ended = status.ok() ? std::find(left.begin(), left.end(), fence) == left.end() : status.code() == absl::StatusCode::kUnimplemented;
  if (ended) return Conclude(*flight, *std::move(flight->outcome));
  const Instant now = clock_.Now();
  if (now >= flight->kill_at) {
    const RunView& view = flight->run.view;
    LogWarn("jobs", "a worker does not let go of a run and is killed",
            {{"module", view.module}, {"job", view.job}, {"run", view.id}, {"instance", flight->instance()}});
    if (flight->worker->faulty)
      flight->worker->faulty(WorkerFault::kUnresponsive, "did not end a run of the job \"" + view.job + "\" that was cancelled, within the grace for that");
    flight->kill_at = now + limits::kCancelGrace;  // again, should it have been spared; WorkerGone() ends this
  }
  AskAgain(*flight);
}

// Its place is free.
void Runner::Leave(const Flight& flight) {
  const auto less = [](auto& counts, const auto& key) {
    if (auto found = counts.find(key); --found->second == 0) counts.erase(found);
  };
  less(executing_, flight.key());
  less(instances_, flight.instance());
  events_.left(flight.key(), clock_.Now() - flight.began);
}

void Runner::Conclude(Flight& flight, RunOutcome outcome) {
  StopTimers(flight);
  if (flight.here()) Leave(flight);
  flight.phase = Flight::Phase::kOver;
  flight.call.reset();
  if (flight.mailbox) flight.mailbox->Close();
  WriteLines(flight);
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
  outcomes_.push_back(flight.run.fence);
  const std::string instance = flight.instance();
  WriteOutcomes();
  AnswerDrains(instance);
}

void Runner::CutAll(CutShort why) {
  const Instant soon = clock_.Now() + limits::kHastyGrace;
  for (auto& [fence, flight] : flights_) flight->kill_at = std::min(flight->kill_at, soon);
  CutWhere(why, [](const Flight&) { return true; });
}

void Runner::CutJob(const JobKey& key, CutShort why) {
  CutWhere(why, [&](const Flight& f) { return f.run.view.module == key.first && f.run.view.job == key.second; });
}

void Runner::CutRun(const std::string& run_id, CutShort why) {
  CutWhere(why, [&](const Flight& f) { return f.run.view.id == run_id; });
}

void Runner::WorkerLeaving(const std::string& instance) {
  CutWhere(CutShort::kLeft, [&](const Flight& f) { return f.instance() == instance; });
}

void Runner::WorkerGone(const std::string& instance) {
  for (int64_t fence : FencesWhere([&](const Flight& f) { return f.here() && f.instance() == instance; })) {
    Flight* flight = Find(fence);
    if (flight == nullptr) continue;
    Cut(*flight, CutShort::kLost);
    if (flight = Find(fence); flight != nullptr && flight->phase == Flight::Phase::kEnding) Conclude(*flight, *std::move(flight->outcome));
  }
  AnswerDrains(instance);
}

void Runner::Drain(const std::string& instance, std::function<void()> drained) {
  for (auto& [fence, flight] : flights_) {
    if (flight->instance() == instance) flight->leaving = true;
  }
  drains_.emplace(instance, std::move(drained));
  AnswerDrains(instance);
}

void Runner::AnswerDrains(const std::string& instance) {
  if (!drains_.contains(instance) || LoadOf(instance) > 0) return;
  auto [begin, end] = drains_.equal_range(instance);
  std::vector<std::function<void()>> answers;
  for (auto it = begin; it != end; ++it) answers.push_back(std::move(it->second));
  drains_.erase(begin, end);
  for (auto& answer : answers) answer();
}

void Runner::Heartbeat(std::function<void()> done) {
  const Instant now = clock_.Now();
  for (int64_t fence : FencesWhere([&](const Flight& f) { return !alone_ && f.phase == Flight::Phase::kCalling && now - f.leased >= limits::kLeaseGivenUp; })) {
    Flight* flight = Find(fence);
    if (flight == nullptr) continue;
    LogWarn("jobs", "the lease of a run can't be renewed; it is stopped before somebody else takes it over", {{"run", flight->run.view.id}});
    Cut(*flight, CutShort::kLeft);
  }
  std::vector<RunningRun> mine;
  for (const auto& [fence, flight] : flights_) mine.push_back({flight->run.view.id, fence, flight->instance()});
  if (mine.empty()) return done();
  store_.Call([mine](RunStore& store) { return store.Extend(mine); },
              [this, mine, now, done = std::move(done)](absl::StatusOr<std::vector<RunStore::Extended>> extended) {
                if (extended.ok()) {
                  std::map<int64_t, RunStore::Extended> renewed;
                  for (const RunStore::Extended& e : *extended) renewed[e.fence] = e;
                  for (const auto& [id, fence, worker] : mine) {
                    Flight* flight = Find(fence);
                    if (flight == nullptr) continue;
                    auto found = renewed.find(fence);
                    if (found != renewed.end()) flight->leased = now;
                    if (flight->phase != Flight::Phase::kCalling) continue;  // what has ended finds out when it writes
                    if (found == renewed.end()) {
                      LogWarn("jobs", "the lease of a run is lost; it is stopped here", {{"run", id}});
                      Cut(*flight, CutShort::kLeft);
                    } else if (found->second.cancelled) {
                      Cut(*flight, CutShort::kCancelled);
                    } else if (found->second.newer_waits && flight->spec->overlap == Overlap::kReplace && flight->spec->concurrency == 1) {
                      Cut(*flight, CutShort::kReplaced);
                    }
                  }
                }
                done();
              });
}

}  // namespace bulkhead
