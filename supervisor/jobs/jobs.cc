#include "supervisor/jobs/jobs.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "supervisor/base/log.h"
#include "supervisor/base/status.h"
#include "supervisor/jobs/jobs_on_loop.h"

namespace bulkhead {
namespace {

constexpr Millis kStopWrites{4'000};   // for handlers to return and the last outcomes to be written when stopping
constexpr int kTrimEvery = 50;         // ended runs of a job between two looks at its history,
constexpr Millis kTrimInterval{1'000};  // which come no more often than this
constexpr size_t kMaxWaiters = 1'000;  // callers that wait for a run to end; beyond: answered at once
constexpr Millis kMaxDelay{366LL * 24 * 3'600'000};
constexpr Millis kMaxTimedDelay{3'600'000};  // beyond, the poll finds it

constexpr std::pair<RunStatus, std::string_view> kStatusNames[] = {
    {RunStatus::kQueued, "QUEUED"},   {RunStatus::kRunning, "RUNNING"},        {RunStatus::kSucceeded, "SUCCEEDED"},
    {RunStatus::kFailed, "FAILED"},   {RunStatus::kCancelled, "CANCELLED"},    {RunStatus::kTimedOut, "TIMED_OUT"},
    {RunStatus::kSkipped, "SKIPPED"}, {RunStatus::kInterrupted, "INTERRUPTED"}};

struct FollowedRun {
  RunView run;
  std::vector<RunLogLine> lines;
};

}  // namespace

void JobsOnLoop::TellWaiters(const RunView& view) {
  auto [begin, end] = waiters_.equal_range(view.id);
  std::vector<Waiter> waiting;
  for (auto it = begin; it != end; ++it) waiting.push_back(std::move(it->second));
  waiters_.erase(begin, end);
  for (Waiter& waiter : waiting) {
    loop_.Cancel(waiter.timer);
    waiter.done(view);
  }
}

void JobsOnLoop::RunEnded(const RunView& view) {
  TellWaiters(view);
  followers_.Tell(view, {});
  const JobKey key(view.module, view.job);
  SinceTrim& since = since_trim_[key];
  if (++since.ended < kTrimEvery || clock_.Now() - since.at < kTrimInterval) return;
  since = {0, clock_.Now()};
  if (const Schedule::Job* job = schedule_.Find(key))
    store_.Call([key, spec = *job->spec](RunStore& store) { return store.Trim(key.first, spec); }, [](absl::Status) {});
}

// Runs that another node executes: their end is only seen in the database. That node counts them, to trim the history.
void JobsOnLoop::CheckWaiters() {
  std::string last;
  for (const auto& [id, waiter] : waiters_) {
    if (id == last || runner_.RunsId(id)) continue;
    last = id;
    store_.Call([id = id](RunStore& store) { return store.Get(id); },
                [this](absl::StatusOr<RunView> run) {
                  if (run.ok() && HasEnded(run->status)) TellWaiters(*run);
                });
  }
}

// The same for who follows them.
void JobsOnLoop::CheckFollowed() {
  for (const RunFollowers::Followed& followed : followers_.followed()) {
    if (followed.waiting || !runner_.RunsId(followed.run_id)) TellFollowers(followed.run_id, followed.after);
  }
}

void JobsOnLoop::TellFollowers(const std::string& id, int64_t after) {
  // The run first: what is said until it has ended is in the lines then.
  store_.Call([id, after](RunStore& store) -> absl::StatusOr<FollowedRun> {
                FollowedRun followed;
                ASSIGN_OR_RETURN(followed.run, store.Get(id));
                ASSIGN_OR_RETURN(followed.lines, store.Logs(id, after, limits::kMaxRunLogLines));
                return followed;
              },
              [this](absl::StatusOr<FollowedRun> followed) {
                if (!followed.ok()) return;
                // Of a run here the row is the older news.
                auto recent = runner_.Recent(followed->run.id);
                followers_.Tell(recent ? recent->first : followed->run, followed->lines, /*stored=*/true);
              });
}

void JobsOnLoop::DoFollow(const std::string& id, int64_t after, const std::function<void()>& wake,
                          const Done<std::shared_ptr<RunFollower>>& done) {
  store_.Call([id](RunStore& store) { return store.Get(id); },
              [this, id, after, wake, done](absl::StatusOr<RunView> run) {
                if (!run.ok()) return done(run.status());
                auto follower = followers_.Add(id, after, wake);
                if (follower == nullptr)
                  return done(Error("OVERLOADED", "As many runs are followed on this node as may be; end one, or try again later."));
                done(std::move(follower));
                if (auto recent = runner_.Recent(id)) followers_.Tell(recent->first, recent->second);
                TellFollowers(id, after);
              });
}

void JobsOnLoop::DoCancel(const std::string& id, Millis wait, const AuditRecord& audit, const Done<RunView>& done) {
  store_.Call([id, audit](RunStore& store) { return store.Cancel(id, audit); },
              [this, wait, done](absl::StatusOr<RunView> run) {
                if (!run.ok()) return done(run.status());
                if (HasEnded(run->status)) {
                  RunEnded(*run);
                  return done(*run);
                }
                if (wait > Millis(0) && !stopping_) {
                  AddWaiter(*run, wait, done);
                } else {
                  done(*run);
                }
                runner_.CutRun(run->id, CutShort::kCancelled);
                GiveBack(ahead_.TakeRun(run->id));
              });
}

void JobsOnLoop::DoEnqueue(const std::string& module, const EnqueueRequest& request, const Done<Enqueued>& done) {
  if (request.payload_json.size() > limits::kMaxJobPayload)
    return done(Error("INVALID_ARGUMENT", absl::StrCat("The payload has more than ", limits::kMaxJobPayload, " bytes as JSON.")));
  if (!nlohmann::json::accept(request.payload_json)) return done(Error("INVALID_ARGUMENT", "The payload is not JSON."));
  if (request.delay < Millis(0) || request.delay > kMaxDelay)
    return done(Error("INVALID_ARGUMENT", "The delay is from 0 to 366 days."));
  if (request.unique_key.find('\0') != std::string::npos) return done(Error("INVALID_ARGUMENT", "The unique key has a character U+0000."));
  // Where a worker is free the run is claimed as it is queued.
  std::vector<RunClaim> claims;
  if (request.delay == Millis(0) && begun_ && !stopping_ && !claiming_ && static_cast<int>(runner_.size()) + ahead_.size() < limits::kMaxClaimedRuns) {
    for (RunClaim& claim : Claimable(false)) {
      if (claim.module == module && claim.job == request.job) claims.push_back(std::move(claim));
    }
  }
  if (!claims.empty()) {
    claiming_ = true;
    claim_again_ = false;
  }
  store_.Call([module, request, claims](RunStore& store) { return store.EnqueueAndClaim(module, request, claims); },
              [this, module, job = request.job, delay = request.delay, done, claims, asked = clock_.Now()](absl::StatusOr<RunStore::Queued> queued) {
                queued.ok() ? done(queued->run) : done(queued.status());
                if (!claims.empty()) {
                  Claimed(queued.ok() ? std::move(queued->claimed) : std::vector<ClaimedRun>(), claims, asked);
                } else if (queued.ok() && queued->run.fresh && !stopping_) {
                  if (delay == Millis(0)) {
                    const Schedule::Job* known = schedule_.Find({module, job});
                    Queued({module, job}, known == nullptr || known->spec->concurrency > 1 ? Overlap::kSkip : known->spec->overlap);
                  } else if (delay <= kMaxTimedDelay) {
                    loop_.After(delay, store_.GuardedWith<>([this] { Claim(); }));
                  }
                }
              });
}

void JobsOnLoop::AddWaiter(const RunView& run, Millis wait, Done<RunView> done) {
  if (waiters_.size() >= kMaxWaiters) return done(run);
  auto entry = waiters_.emplace(run.id, Waiter{std::move(done), 0});
  entry->second.timer = loop_.After(std::min(wait, limits::kMaxWait), [this, entry, run] {
    Done<RunView> late = std::move(entry->second.done);
    waiters_.erase(entry);
    // As far as it has come; as it was queued when the database is away.
    store_.Call([id = run.id](RunStore& store) { return store.Get(id); },
                [run, late](absl::StatusOr<RunView> now) { late(now.ok() ? *std::move(now) : run); });
  });
}

void JobsOnLoop::DoListJobs(const std::string& module, const std::shared_ptr<const Manifest>& manifest,
                            const Done<std::vector<JobView>>& done) {
  auto enabled = directory_->modules.find(module);
  const Manifest* source = enabled != directory_->modules.end() ? enabled->second->manifest.get() : manifest.get();
  if (source == nullptr) return done(Error("MODULE_NOT_FOUND", absl::StrCat("There is no module \"", module, "\".")));
  std::vector<JobView> views;
  for (const JobSpec& spec : source->jobs) {
    const Schedule::Job* job = schedule_.Find({module, spec.name});
    views.push_back({module, spec, job != nullptr, job != nullptr ? job->next : std::nullopt});
  }
  done(std::move(views));
}

void JobsOnLoop::DoRun(const std::string& module, const std::string& job, const std::string& payload, Millis wait,
                       const std::optional<AuditRecord>& audit, const Done<RunView>& done) {
  auto enabled = directory_->modules.find(module);
  if (enabled == directory_->modules.end() || enabled->second->workers.empty() || stopping_) {
    return done(
        Error("MODULE_NOT_RUNNING",
              absl::StrCat("The module \"", module, "\" is not running, so its jobs can't run: enable it first, or try again.")));
  }
  const Schedule::Job* known = schedule_.Find({module, job});
  if (known == nullptr)
    return done(Error("JOB_NOT_FOUND", absl::StrCat("The module \"", module, "\" has no job \"", job, "\".")));
  const std::string text = payload.empty() ? "null" : payload;
  if (text.size() > limits::kMaxJobPayload) {
    return done(Error("INVALID_ARGUMENT", absl::StrCat("The payload has ", text.size(), " bytes as JSON; at most ",
                                                       limits::kMaxJobPayload, " are taken.")));
  }
  if (!nlohmann::json::accept(text)) return done(Error("INVALID_ARGUMENT", "The payload is not JSON."));
  store_.Call([module, spec = *known->spec, text, audit](RunStore& store) {
                return store.InsertManual(module, spec, text, audit ? &*audit : nullptr);
              },
              [this, module, job, wait, done, overlap = known->spec->concurrency > 1 ? Overlap::kSkip : known->spec->overlap](absl::StatusOr<RunView> run) {
                if (!run.ok()) return done(run.status());
                if (wait > Millis(0) && !stopping_) {
                  AddWaiter(*run, wait, done);
                } else {
                  done(*run);
                }
                Queued({module, job}, overlap);
              });
}

void JobsOnLoop::Stop(Millis grace, std::function<void()> stopped) {
  BULKHEAD_CHECK(!stopping_);
  stopping_ = true;
  stopped_ = std::move(stopped);
  for (Loop::TimerId* timer : {&tick_timer_, &poll_timer_, &late_timer_}) loop_.Cancel(std::exchange(*timer, 0));
  Place();
  stop_timer_ = loop_.After(grace, [this] {
    runner_.CutAll(CutShort::kShutdown);
    stop_timer_ = loop_.After(kStopWrites, [this] { MaybeStopped(true); });
    MaybeStopped();
  });
  loop_.Post(store_.GuardedWith<>([this] { MaybeStopped(); }));
}

void JobsOnLoop::MaybeStopped(bool out_of_time) {
  if (!stopping_ || !stopped_ || (!out_of_time && (runner_.size() > 0 || claiming_))) return;
  if (out_of_time) LogWarn("jobs", "stopped before all outcomes were written; their runs are released at the next start");
  for (Loop::TimerId* timer : {&stop_timer_, &heartbeat_timer_}) loop_.Cancel(std::exchange(*timer, 0));
  for (auto& [id, waiter] : std::exchange(waiters_, {})) {
    loop_.Cancel(waiter.timer);
    waiter.done(Error("SHUTTING_DOWN", "The supervisor is stopping; the run is taken up again when it is back."));
  }
  std::exchange(stopped_, nullptr)();
}

std::string_view RunStatusName(RunStatus status) {
  for (const auto& [value, name] : kStatusNames) {
    if (value == status) return name;
  }
  return "FAILED";
}

std::optional<RunStatus> ParseRunStatus(std::string_view name) {
  for (const auto& [value, text] : kStatusNames) {
    if (text == name) return value;
  }
  return std::nullopt;
}

std::unique_ptr<Jobs> Jobs::Make(Loop& loop, BlockingPool& pool, Database& database, const Clock& clock, Options options) {
  return std::make_unique<JobsOnLoop>(loop, pool, database, clock, std::move(options));
}

}  // namespace bulkhead
