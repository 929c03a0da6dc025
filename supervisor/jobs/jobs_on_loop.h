// The Jobs that a daemon has, on its control loop. jobs.cc has what others ask for, ticks.cc what comes of time and of
// the database, claims.cc which runs begin where.
#pragma once

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "supervisor/jobs/ahead.h"
#include "supervisor/jobs/followers.h"
#include "supervisor/jobs/runner.h"
#include "supervisor/jobs/schedule.h"
#include "supervisor/jobs/store_calls.h"
#include "supervisor/store/notifications.h"

namespace bulkhead {

inline constexpr int kMaxPageSize = 500;

inline bool HasEnded(RunStatus status) { return status != RunStatus::kQueued && status != RunStatus::kRunning; }

class JobsOnLoop final : public Jobs {
 public:
  JobsOnLoop(Loop& loop, BlockingPool& pool, Database& database, const Clock& clock, Options options)
      : loop_(loop),
        clock_(clock),
        store_(loop, pool, std::make_shared<RunStore>(database, options.node)),
        runner_(store_, clock,
                {.ended = [this](const RunView& view) { RunEnded(view); },
                 .vacated = [this](Millis delay) { Vacated(delay); },
                 .left = [this](const JobKey& key, Instant::duration took) { Left(key, took); },
                 .news = [this](const RunView& view, const std::vector<RunLogLine>& lines) { followers_.Tell(view, lines); }},
                options.alone, options.meters, options.tracer),
        ahead_(clock),
        conninfo_(database.conninfo()) {}
  ~JobsOnLoop() override {
    listener_.reset();
    for (Loop::TimerId timer : {tick_timer_, poll_timer_, heartbeat_timer_, stop_timer_, late_timer_}) loop_.Cancel(timer);
  }

  void Adopt(std::shared_ptr<const Directory> directory, std::function<void()> adopted) override;
  void Drain(const std::string& instance, std::function<void()> drained) override { runner_.Drain(instance, std::move(drained)); }
  void Start() override { Begin(); }
  void Stop(Millis grace, std::function<void()> stopped) override;
  void WorkerLeaving(const std::string& instance) override { runner_.WorkerLeaving(instance); }
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
  void ListRuns(const RunFilter& filter, int page, int page_size, Done<RunPage> done) override {
    OnLoop([=, this, page = std::max(page, 1), size = std::clamp(page_size, 1, kMaxPageSize)] {
      store_.Call([=](RunStore& store) { return store.List(filter, page, size); }, done);
    });
  }
  void GetRun(const std::string& id, Done<RunView> done) override {
    OnLoop([this, id, done = std::move(done)] { store_.Call([id](RunStore& store) { return store.Get(id); }, done); });
  }
  void ListLogs(const std::string& id, int64_t after, int limit, Done<std::vector<RunLogLine>> done) override {
    OnLoop([=, this] { store_.Call([=](RunStore& store) { return store.Logs(id, after, limit); }, done); });
  }
  void KeepArtifact(const std::string& module, ArtifactUpload upload, Done<Artifact> done) override {
    OnLoop([this, module, upload = std::make_shared<ArtifactUpload>(std::move(upload)), done = std::move(done)] {
      store_.Call([module, upload](RunStore& store) { return store.KeepArtifact(module, *upload); },
                  [this, fence = upload->fence, done](absl::StatusOr<Artifact> kept) {
                    if (kept.ok()) runner_.Kept(fence, *kept);
                    done(std::move(kept));
                  });
    });
  }
  void FindArtifact(const std::string& run_id, const std::string& name, Done<Artifact> done) override {
    OnLoop([=, this] { store_.Call([=](RunStore& store) { return store.FindArtifact(run_id, name); }, done); });
  }
  void ReadArtifact(const Artifact& artifact, int part, Done<std::string> done) override {
    OnLoop([=, this] { store_.Call([=](RunStore& store) { return store.ReadArtifact(artifact, part); }, done); });
  }
  void Cancel(const std::string& id, Millis wait, AuditRecord audit, Done<RunView> done) override {
    OnLoop([this, id, wait, audit = std::move(audit), done = std::move(done)] { DoCancel(id, wait, audit, done); });
  }
  void Follow(const std::string& id, int64_t after, std::function<void()> wake, Done<std::shared_ptr<RunFollower>> done) override {
    OnLoop([this, id, after, wake = std::move(wake), done = std::move(done)] { DoFollow(id, after, wake, done); });
  }
  void Enqueue(const std::string& module, EnqueueRequest request, Done<Enqueued> done) override {
    OnLoop([this, module, request = std::move(request), done = std::move(done)] { DoEnqueue(module, request, done); });
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
  void DoCancel(const std::string& id, Millis wait, const AuditRecord& audit, const Done<RunView>& done);
  void DoFollow(const std::string& id, int64_t after, const std::function<void()>& wake, const Done<std::shared_ptr<RunFollower>>& done);
  void DoEnqueue(const std::string& module, const EnqueueRequest& request, const Done<Enqueued>& done);

  void Begin();
  void Listen();
  void Notified(bool cancelled);
  void ArmTicks();
  void TickNow();
  void InsertTick(const Tick& tick, std::function<void()> then = nullptr);
  void InsertTicks(std::shared_ptr<std::vector<Tick>> ticks, size_t next);
  void CatchUp(const JobKey& key);
  void Queued(const JobKey& key, Overlap overlap);

  void Claim();
  std::vector<RunClaim> Claimable(bool ahead_too);
  void Claimed(absl::StatusOr<std::vector<ClaimedRun>> runs, const std::vector<RunClaim>& claims, Instant asked);
  void Left(const JobKey& key, Instant::duration took);
  void Place();
  const DirectoryWorker* LeastLoaded(const DirectoryModule& module, const std::string& planned) const;
  void Late();
  void GiveBack(const std::vector<ClaimedRun>& runs);

  void Poll();
  void Heartbeat();
  void Housekeep();
  void CheckWaiters();
  void CheckFollowed();
  void TellFollowers(const std::string& id, int64_t after);
  void TellWaiters(const RunView& view);
  void RunEnded(const RunView& view);
  void Vacated(Millis delay);
  void AddWaiter(const RunView& run, Millis wait, Done<RunView> done);
  void MaybeStopped(bool out_of_time = false);

  Loop& loop_;
  const Clock& clock_;
  StoreCalls store_;
  Runner runner_;
  Ahead ahead_;
  std::shared_ptr<const Directory> directory_ = std::make_shared<Directory>();
  Schedule schedule_;
  std::map<JobKey, Tick> unwritten_ticks_;      // the latest of each job; the database was away
  std::multimap<std::string, Waiter> waiters_;  // by run id
  struct SinceTrim {
    int ended = 0;
    Instant at{};
  };
  std::map<JobKey, SinceTrim> since_trim_;
  RunFollowers followers_;
  const std::string conninfo_;
  std::unique_ptr<Notifications> listener_;
  std::atomic<bool> told_{false}, told_cancelled_{false};  // a notification is on its way to the loop
  Instant housekept_{};
  size_t first_claim_ = 0;  // where the next claim begins, so that all jobs come first in turn
  bool begun_ = false;  // what an earlier life left is released
  bool stopping_ = false;
  bool claiming_ = false, claim_again_ = false;
  bool placing_ = false;  // as soon as the loop comes round
  bool database_away_ = false;  // said once, not with every try
  std::function<void()> stopped_;
  Loop::TimerId tick_timer_ = 0, poll_timer_ = 0, heartbeat_timer_ = 0, stop_timer_ = 0, late_timer_ = 0;
};

}  // namespace bulkhead
