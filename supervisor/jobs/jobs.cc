#include "supervisor/jobs/jobs.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "supervisor/base/log.h"
#include "supervisor/base/status.h"
#include "supervisor/jobs/runner.h"
#include "supervisor/jobs/schedule.h"
#include "supervisor/jobs/store_calls.h"

namespace bulkhead {
namespace {

constexpr Millis kPoll{2'000};         // looks for runs that another node queued or gave up
constexpr Millis kClockCheck{60'000};  // the longest sleep towards a tick: the wall clock may have been set meanwhile
constexpr Millis kTickRetry{1'000};    // between two tries to write a tick, or to begin, while the database is away
constexpr Millis kStopWrites{3'000};   // for the last outcomes to be written when stopping
constexpr int kTrimEvery = 50;         // ended runs of a job between two looks at its history
constexpr size_t kMaxWaiters = 1'000;  // callers that wait for a run to end; beyond: answered at once
constexpr int kMaxPageSize = 500;

constexpr std::pair<RunStatus, std::string_view> kStatusNames[] = {
    {RunStatus::kQueued, "QUEUED"},   {RunStatus::kRunning, "RUNNING"},        {RunStatus::kSucceeded, "SUCCEEDED"},
    {RunStatus::kFailed, "FAILED"},   {RunStatus::kCancelled, "CANCELLED"},    {RunStatus::kTimedOut, "TIMED_OUT"},
    {RunStatus::kSkipped, "SKIPPED"}, {RunStatus::kInterrupted, "INTERRUPTED"}};

bool HasEnded(RunStatus status) { return status != RunStatus::kQueued && status != RunStatus::kRunning; }

class JobsOnLoop final : public Jobs {
 public:
  JobsOnLoop(Loop& loop, BlockingPool& pool, Database& database, const Clock& clock, Options options)
      : loop_(loop),
        clock_(clock),
        store_(loop, pool, std::make_shared<RunStore>(database, options.node)),
        runner_(store_, clock,
                {.ended = [this](const RunView& view) { RunEnded(view); }, .vacated = [this](Millis delay) { Vacated(delay); }},
                options.meters, options.tracer) {
  }
  ~JobsOnLoop() override {
    for (Loop::TimerId timer : {tick_timer_, poll_timer_, heartbeat_timer_, stop_timer_}) loop_.Cancel(timer);
  }

  void Adopt(std::shared_ptr<const Directory> directory, std::function<void()> adopted) override;
  void Drain(const std::string& instance, std::function<void()> drained) override { runner_.Drain(instance, std::move(drained)); }
  void Start() override { Begin(); }
  void Stop(Millis grace, std::function<void()> stopped) override;
  void WorkerGone(const std::string& instance) override { runner_.WorkerGone(instance); }

  void ListJobs(const std::string& module, std::shared_ptr<const Manifest> manifest, Done<std::vector<JobView>> done) override {
    OnLoop([this, module, manifest, done = std::move(done)] { DoListJobs(module, manifest, done); });
  }
  void Run(const std::string& module, const std::string& job, std::string payload_json, Millis wait, std::optional<AuditRecord> audit,
           Done<RunView> done) override {
    OnLoop([this, module, job, payload = std::move(payload_json), wait, audit = std::move(audit), done = std::move(done)] {
      DoRun(module, job, payload, wait, audit, done);
    });
  }
  void ListRuns(const std::string& module, const std::string& job, std::optional<RunStatus> status, int page, int page_size,
                Done<RunPage> done) override {
    OnLoop([=, this, page = std::max(page, 1), size = std::clamp(page_size, 1, kMaxPageSize)] {
      store_.Call([=](RunStore& store) { return store.List(module, job, status, page, size); }, done);
    });
  }
  void GetRun(const std::string& id, Done<RunView> done) override {
    OnLoop([this, id, done = std::move(done)] { store_.Call([id](RunStore& store) { return store.Get(id); }, done); });
  }

 private:
  struct Waiter {
    Done<RunView> done;
    Loop::TimerId timer;
  };

  void OnLoop(std::function<void()> task) { loop_.Post(store_.GuardedWith<>(std::move(task))); }
  void DoListJobs(const std::string& module, const std::shared_ptr<const Manifest>& manifest,
                  const Done<std::vector<JobView>>& done);
  void DoRun(const std::string& module, const std::string& job, const std::string& payload, Millis wait,
             const std::optional<AuditRecord>& audit, const Done<RunView>& done);

  void Begin();
  void ArmTicks();
  void TickNow();
  void InsertTick(const Tick& tick);
  void CatchUp(const JobKey& key);
  void Queued(const JobKey& key, Overlap overlap);

  void Claim();
  std::vector<RunClaim> Claimable() const;
  void Claimed(absl::StatusOr<std::vector<ClaimedRun>> runs);
  const DirectoryWorker* LeastLoaded(const DirectoryModule& module) const;

  void Poll();
  void Heartbeat();
  void CheckWaiters();
  void TellWaiters(const RunView& view);
  void RunEnded(const RunView& view);
  void Vacated(Millis delay);
  void AddWaiter(const RunView& run, Millis wait, Done<RunView> done);
  void MaybeStopped(bool out_of_time = false);

  Loop& loop_;
  const Clock& clock_;
  StoreCalls store_;
  Runner runner_;
  std::shared_ptr<const Directory> directory_ = std::make_shared<Directory>();
  Schedule schedule_;
  std::map<JobKey, Tick> unwritten_ticks_;      // the latest of each job; the database was away
  std::multimap<std::string, Waiter> waiters_;  // by run id
  std::map<JobKey, int> ended_since_trim_;
  bool begun_ = false;  // what an earlier life left is released
  bool stopping_ = false;
  bool claiming_ = false, claim_again_ = false;
  bool database_away_ = false;  // said once, not with every try
  std::function<void()> stopped_;
  Loop::TimerId tick_timer_ = 0, poll_timer_ = 0, heartbeat_timer_ = 0, stop_timer_ = 0;
};

void JobsOnLoop::Adopt(std::shared_ptr<const Directory> directory, std::function<void()> adopted) {
  directory_ = std::move(directory);
  const auto catching_up = schedule_.Adopt(*directory_, clock_.Wall());
  // A claim that is under way is checked against this directory when it comes back.
  adopted();
  if (!begun_ || stopping_) return;
  for (const JobKey& key : catching_up) CatchUp(key);
  ArmTicks();
  Claim();
}

void JobsOnLoop::Begin() {
  store_.Call(
      [](RunStore& store) { return store.ReleaseOwn(); },
      [this](absl::StatusOr<int> released) {
        if (stopping_) return;
        if (!released.ok()) {
          LogWarn("jobs", "jobs wait for the database", {{"error", std::string(released.status().message())}});
          tick_timer_ = loop_.After(kTickRetry, [this] { Begin(); });
          return;
        }
        if (*released > 0)
          LogWarn("jobs", "runs that an earlier life of this node left were released", {{"runs", std::to_string(*released)}});
        begun_ = true;
        for (const auto& [key, job] : schedule_.jobs()) {
          if (job.spec->catch_up == "latest") CatchUp(key);
        }
        Heartbeat();
        ArmTicks();
        Poll();
      });
}

void JobsOnLoop::ArmTicks() {
  loop_.Cancel(std::exchange(tick_timer_, 0));
  if (!begun_ || stopping_) return;
  Millis delay = kClockCheck;
  if (auto due = schedule_.NextDue()) {
    delay = std::clamp(std::chrono::ceil<Millis>(*due - clock_.Wall()), Millis(0), kClockCheck);
  } else if (unwritten_ticks_.empty()) {
    return;
  }
  if (!unwritten_ticks_.empty()) delay = std::min(delay, kTickRetry);
  tick_timer_ = loop_.After(delay, [this] {
    tick_timer_ = 0;
    TickNow();
  });
}

void JobsOnLoop::TickNow() {
  for (const auto& [key, tick] : std::exchange(unwritten_ticks_, {})) InsertTick(tick);
  for (const Tick& tick : schedule_.TakeDue(clock_.Wall())) InsertTick(tick);
  ArmTicks();
}

void JobsOnLoop::InsertTick(const Tick& tick) {
  store_.Call([tick](RunStore& store) { return store.InsertTick(tick.key.first, tick.spec, tick.slot); },
              [this, tick](absl::StatusOr<std::optional<RunView>> inserted) {
                if (inserted.ok()) {
                  if (*inserted && (*inserted)->status == RunStatus::kSkipped) RunEnded(**inserted);
                  return Queued(tick.key, *inserted ? tick.spec.overlap : Overlap::kSkip);
                }
                LogWarn(
                    "jobs", "a tick is not written yet",
                    {{"module", tick.key.first}, {"job", tick.key.second}, {"error", std::string(inserted.status().message())}});
                auto [kept, fresh] = unwritten_ticks_.try_emplace(tick.key, tick);
                if (!fresh && kept->second.slot < tick.slot) kept->second = tick;
                ArmTicks();
              });
}

void JobsOnLoop::CatchUp(const JobKey& key) {
  store_.Call([key](RunStore& store) { return store.LastSlot(key.first, key.second); },
              [this, key](absl::StatusOr<std::optional<WallTime>> last) {
                if (!last.ok() || !*last) return;  // never ran: nothing was missed
                const Schedule::Job* job = schedule_.Find(key);
                const auto missed = schedule_.LatestMissed(key, **last, clock_.Wall());
                if (job != nullptr && missed) InsertTick({key, *job->spec, *missed});
              });
}

// A run of the job was queued.
void JobsOnLoop::Queued(const JobKey& key, Overlap overlap) {
  if (overlap == Overlap::kReplace) runner_.CutJob(key, CutShort::kReplaced);
  Claim();
}

const DirectoryWorker* JobsOnLoop::LeastLoaded(const DirectoryModule& module) const {
  const DirectoryWorker* best = nullptr;
  int best_load = 0;
  for (const DirectoryWorker& worker : module.workers) {
    const int load = runner_.LoadOf(worker.instance);
    if (best == nullptr || load < best_load) {
      best = &worker;
      best_load = load;
    }
  }
  return best;
}

std::vector<RunClaim> JobsOnLoop::Claimable() const {
  std::vector<RunClaim> claims;
  for (const auto& [key, job] : schedule_.jobs()) {
    if (runner_.Runs(key)) continue;
    if (const DirectoryWorker* worker = LeastLoaded(*job.module)) claims.push_back({key.first, key.second, worker->instance});
  }
  return claims;
}

void JobsOnLoop::Claim() {
  if (!begun_ || stopping_) return;
  if (claiming_) {
    claim_again_ = true;
    return;
  }
  const int places = limits::kMaxRunsPerNode - static_cast<int>(runner_.size());
  if (places <= 0) return;  // the next one to leave looks again
  std::vector<RunClaim> claims = Claimable();
  if (claims.empty()) return;
  claiming_ = true;
  claim_again_ = false;
  store_.Call([claims = std::move(claims), places](RunStore& store) { return store.Claim(claims, places); },
              [this](absl::StatusOr<std::vector<ClaimedRun>> runs) { Claimed(std::move(runs)); });
}

void JobsOnLoop::Claimed(absl::StatusOr<std::vector<ClaimedRun>> runs) {
  claiming_ = false;
  if (!runs.ok()) {
    if (!std::exchange(database_away_, true))
      LogWarn("jobs", "runs can't be claimed", {{"error", std::string(runs.status().message())}});
    return MaybeStopped();  // the next poll tries again
  }
  database_away_ = false;
  for (ClaimedRun& run : *runs) {
    // The world may have moved on while the claim was made.
    const Schedule::Job* job = schedule_.Find({run.view.module, run.view.job});
    const DirectoryWorker* worker = job == nullptr || stopping_ ? nullptr : LeastLoaded(*job->module);
    if (worker == nullptr) {
      runner_.Return(run);
    } else {
      runner_.Launch(std::move(run), *job->spec, *worker);
    }
  }
  if (claim_again_) Claim();
  MaybeStopped();
}

void JobsOnLoop::Vacated(Millis delay) {
  if (delay > Millis(0) && !stopping_) {
    loop_.After(delay, store_.GuardedWith<>([this] { Claim(); }));
  }
  Claim();
  MaybeStopped();
}

void JobsOnLoop::Poll() {
  poll_timer_ = 0;
  if (stopping_) return;
  Claim();
  CheckWaiters();
  poll_timer_ = loop_.After(kPoll, [this] { Poll(); });
}

void JobsOnLoop::Heartbeat() {
  heartbeat_timer_ = loop_.After(limits::kRunHeartbeat, [this] { Heartbeat(); });
  runner_.Heartbeat([this] {
    if (stopping_) return;
    store_.Call([](RunStore& store) { return store.ReleaseExpired(); },
                [this](absl::StatusOr<int> released) {
                  if (!released.ok() || *released == 0) return;
                  LogInfo("jobs", "runs without an executor were released", {{"runs", std::to_string(*released)}});
                  Claim();
                });
  });
}

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
  const JobKey key(view.module, view.job);
  if (++ended_since_trim_[key] < kTrimEvery) return;
  ended_since_trim_.erase(key);
  store_.Call([key](RunStore& store) { return store.Trim(key.first, key.second); }, [](absl::Status) {});
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
              [this, module, job, wait, done, overlap = known->spec->overlap](absl::StatusOr<RunView> run) {
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
  for (Loop::TimerId* timer : {&tick_timer_, &poll_timer_}) loop_.Cancel(std::exchange(*timer, 0));
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

}  // namespace

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
