// Jobs against a real PostgreSQL, with workers that are scripted by the test.
#include "supervisor/jobs/jobs.h"

#include <condition_variable>
#include <future>
#include <mutex>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "supervisor/base/status.h"
#include "tests/fakes/postgres_fixture.h"

namespace bulkhead {
namespace {

using testing::HasSubstr;
using namespace std::chrono_literals;

// One RunJob call as the module sees it.
class FakeRun : public JobCall {
 public:
  module::v1::RunJobRequest request;
  std::function<void(const module::v1::RunJobUpdate&)> update;

  void Progress(double fraction, const std::string& message) {
    module::v1::RunJobUpdate u;
    u.mutable_progress()->set_fraction(fraction);
    u.mutable_progress()->set_message(message);
    update(u);
  }
  void Log(const std::string& level, const std::string& message) {
    module::v1::RunJobUpdate u;
    u.mutable_log()->set_level(level);
    u.mutable_log()->set_message(message);
    update(u);
  }
  void Result(const std::string& json) {
    module::v1::RunJobUpdate u;
    u.mutable_result()->set_result_json(json);
    update(u);
    End(absl::OkStatus());
  }
  void Fail(const std::string& code, const std::string& message, bool retryable) {
    module::v1::RunJobUpdate u;
    u.mutable_error()->set_code(code);
    u.mutable_error()->set_message(message);
    u.mutable_error()->set_stack("at line 7");
    u.mutable_error()->set_retryable(retryable);
    update(u);
    End(absl::OkStatus());
  }
  void End(absl::Status status) {
    if (auto done = std::exchange(done_, nullptr)) done(std::move(status));
  }
  void Cancel() override {
    cancelled = true;
    End(absl::CancelledError());
  }
  std::atomic<bool> cancelled = false;
  std::function<void(absl::Status)> done_;
};

// A worker's control port that hands each run to the test.
class FakePort : public ControlPort {
 public:
  using Behaviour = std::function<void(std::shared_ptr<FakeRun>)>;
  void Initialize(const module::v1::InitializeRequest&, Millis, Done<module::v1::InitializeResponse>) override {}
  void Start(Millis, Done<module::v1::StartResponse>) override {}
  void Stop(Millis, Done<module::v1::StopResponse>) override {}
  void Health(Millis, Done<module::v1::HealthResponse>) override {}
  void Metrics(Millis, Done<module::v1::MetricsResponse>) override {}
  std::shared_ptr<JobCall> RunJob(const module::v1::RunJobRequest& request, Millis, std::function<void(const module::v1::RunJobUpdate&)> update,
                                  std::function<void(absl::Status)> done) override {
    auto run = std::make_shared<FakeRun>();
    run->request = request;
    run->update = std::move(update);
    run->done_ = std::move(done);
    Behaviour behaviour;
    {
      std::lock_guard lock(mutex_);
      runs_.push_back(run);
      behaviour = behaviour_;
    }
    came_.notify_all();
    if (behaviour) behaviour(run);
    return run;
  }
  // Called with each run as it begins; without one, runs wait for the test.
  void Answer(Behaviour behaviour) {
    std::lock_guard lock(mutex_);
    behaviour_ = std::move(behaviour);
  }
  // The n-th run (from 0), waiting for it.
  std::shared_ptr<FakeRun> Await(size_t n) {
    std::unique_lock lock(mutex_);
    const bool came = came_.wait_for(lock, 10s, [&] { return runs_.size() > n; });
    EXPECT_TRUE(came) << "run " << n << " did not begin";
    return came ? runs_[n] : nullptr;
  }
  size_t count() {
    std::lock_guard lock(mutex_);
    return runs_.size();
  }

 private:
  std::mutex mutex_;
  std::condition_variable came_;
  std::vector<std::shared_ptr<FakeRun>> runs_;
  Behaviour behaviour_;
};

// One supervisor's jobs: its own loop, pool and pool of connections.
class Node {
 public:
  Node(const std::string& name, const std::string& conninfo)
      : database_(conninfo, 4), pool_(3, 1'000), jobs_(Jobs::Make(loop_, pool_, database_, Clock::Real(), {.node = name})),
        thread_([this] { loop_.Run(); }) {
    OnLoop([&] { jobs_->Start(); });
  }
  ~Node() {
    if (!stopped_) Stop(0ms);
    OnLoop([&] { jobs_.reset(); });
    loop_.Stop();
    thread_.join();
    pool_.Shutdown();
  }

  void OnLoop(std::function<void()> task) {
    std::promise<void> done;
    loop_.Post([&] {
      task();
      done.set_value();
    });
    done.get_future().wait();
  }
  // The module "m" with these jobs on these workers; no workers: enabled, not ready.
  void Publish(std::vector<JobSpec> jobs, std::map<std::string, std::shared_ptr<ControlPort>> workers) {
    auto manifest = std::make_shared<Manifest>();
    manifest->name = "m";
    manifest->jobs = std::move(jobs);
    auto module = std::make_shared<DirectoryModule>();
    module->name = "m";
    module->manifest = manifest;
    for (auto& [instance, port] : workers) module->workers.push_back({.slot = 0, .instance = instance, .control = port});
    auto directory = std::make_shared<Directory>();
    directory->modules["m"] = module;
    bool adopted = false;
    OnLoop([&] { jobs_->Adopt(directory, [&] { adopted = true; }); });
    EXPECT_TRUE(adopted);
  }
  absl::StatusOr<RunView> Run(const std::string& job, Millis wait, const std::string& payload = "null") {
    return Async(job, wait, payload).get();
  }
  std::future<absl::StatusOr<RunView>> Async(const std::string& job, Millis wait, const std::string& payload = "null") {
    auto answer = std::make_shared<std::promise<absl::StatusOr<RunView>>>();
    jobs_->Run("m", job, payload, wait, [answer](absl::StatusOr<RunView> run) { answer->set_value(std::move(run)); });
    return answer->get_future();
  }
  absl::StatusOr<RunView> Get(const std::string& id) {
    std::promise<absl::StatusOr<RunView>> answer;
    jobs_->GetRun(id, [&](absl::StatusOr<RunView> run) { answer.set_value(std::move(run)); });
    return answer.get_future().get();
  }
  RunPage List(const std::string& job, std::optional<RunStatus> status = std::nullopt, int page = 1, int size = 50) {
    std::promise<absl::StatusOr<RunPage>> answer;
    jobs_->ListRuns("m", job, status, page, size, [&](absl::StatusOr<RunPage> runs) { answer.set_value(std::move(runs)); });
    auto runs = answer.get_future().get();
    EXPECT_TRUE(runs.ok()) << runs.status();
    return runs.ok() ? *runs : RunPage();
  }
  // Polls the row until `wanted` holds.
  RunView Until(const std::string& id, const std::function<bool(const RunView&)>& wanted) {
    for (const Instant end = Clock::Real().Now() + 15s; Clock::Real().Now() < end;) {
      auto run = Get(id);
      if (run.ok() && wanted(*run)) return *run;
      std::this_thread::sleep_for(10ms);
    }
    ADD_FAILURE() << "the run " << id << " did not come that far";
    return {};
  }
  void WorkerGone(const std::string& instance) { OnLoop([&] { jobs_->WorkerGone(instance); }); }
  void Stop(Millis grace) {
    std::promise<void> stopped;
    loop_.Post([&] { jobs_->Stop(grace, [&] { stopped.set_value(); }); });
    EXPECT_EQ(stopped.get_future().wait_for(20s), std::future_status::ready);
    stopped_ = true;
  }
  Jobs& jobs() { return *jobs_; }
  Database& database() { return database_; }

 private:
  Loop loop_;
  Database database_;
  BlockingPool pool_;
  std::unique_ptr<Jobs> jobs_;
  std::thread thread_;
  bool stopped_ = false;
};

JobSpec Spec(const std::string& name, int retries = 0, const std::string& schedule = "") {
  JobSpec spec;
  spec.name = name;
  spec.retries = retries;
  spec.schedule = schedule;
  return spec;
}

class JobsTest : public testing::Test {
 protected:
  std::string conninfo_ = TestPostgres::Instance().FreshDatabase();
  std::shared_ptr<FakePort> port_ = std::make_shared<FakePort>();
};

TEST_F(JobsTest, AManualRunGoesThroughTheWorkerAndLeavesItsRow) {
  Node node("n1", conninfo_);
  JobSpec spec = Spec("sync");
  spec.config_json = R"({"k":1})";
  node.Publish({spec}, {{"m.0.a", port_}});
  port_->Answer([](std::shared_ptr<FakeRun> run) {
    run->Log("info", "half way");
    run->Progress(0.5, "half");
    run->Result(R"({"rows":3})");
  });
  const auto run = node.Run("sync", 10s, R"({"since":"2026-01-01"})");
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(run->status, RunStatus::kSucceeded);
  EXPECT_EQ(run->attempt, 1);
  EXPECT_EQ(run->trigger, "manual");
  EXPECT_EQ(run->result_json, R"({"rows": 3})");
  EXPECT_EQ(run->payload_json, R"({"since": "2026-01-01"})");
  EXPECT_EQ(run->progress, 1);
  EXPECT_EQ(run->node, "n1");
  EXPECT_EQ(run->worker, "m.0.a");
  EXPECT_FALSE(run->slot);
  ASSERT_TRUE(run->started_at && run->finished_at);
  EXPECT_GE(*run->finished_at, *run->started_at);
  const auto& request = port_->Await(0)->request;
  EXPECT_EQ(request.run_id(), run->id);
  EXPECT_EQ(request.job(), "sync");
  EXPECT_EQ(request.attempt(), 1);
  EXPECT_EQ(request.config_json(), R"({"k":1})");
  EXPECT_EQ(request.deadline_ms(), 300'000);
  EXPECT_GT(request.fence(), 0);
  const auto stored = node.Get(run->id);
  ASSERT_TRUE(stored.ok());
  EXPECT_EQ(stored->status, RunStatus::kSucceeded);
}

TEST_F(JobsTest, WithoutAWaitTheQueuedRunIsTheAnswerAndALateWaitAnswersHowFarItCame) {
  Node node("n1", conninfo_);
  node.Publish({Spec("a"), Spec("b")}, {{"m.0.a", port_}});
  const auto queued = node.Run("a", 0ms);
  ASSERT_TRUE(queued.ok());
  EXPECT_EQ(queued->status, RunStatus::kQueued);
  const auto late = node.Run("b", 300ms);
  ASSERT_TRUE(late.ok());
  EXPECT_EQ(late->status, RunStatus::kRunning);
  port_->Await(1)->Result("1");
  EXPECT_EQ(node.Until(late->id, [](const RunView& r) { return r.status == RunStatus::kSucceeded; }).result_json, "1");
}

TEST_F(JobsTest, ProgressReachesTheRowWhileTheJobRuns) {
  Node node("n1", conninfo_);
  node.Publish({Spec("slow")}, {{"m.0.a", port_}});
  const auto run = node.Run("slow", 0ms);
  ASSERT_TRUE(run.ok());
  auto call = port_->Await(0);
  for (int i = 0; i < 10'000; ++i) call->Progress(i / 20'000.0, "step " + std::to_string(i));  // coalesced
  const RunView seen = node.Until(run->id, [](const RunView& r) { return r.progress > 0.49; });
  EXPECT_EQ(seen.progress_message, "step 9999");
  EXPECT_EQ(seen.status, RunStatus::kRunning);
  call->Result("null");
}

TEST_F(JobsTest, AFailingJobIsRetriedAndThenFails) {
  Node node("n1", conninfo_);
  node.Publish({Spec("shaky", 1)}, {{"m.0.a", port_}});
  port_->Answer([](std::shared_ptr<FakeRun> run) { run->Fail("UPSTREAM_DOWN", "no answer", true); });
  const auto run = node.Run("shaky", 30s);
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(run->status, RunStatus::kFailed);
  EXPECT_EQ(run->attempt, 2);
  EXPECT_EQ(run->error_code, "UPSTREAM_DOWN");
  EXPECT_EQ(run->error_message, "no answer");
  EXPECT_EQ(run->error_stack, "at line 7");
  EXPECT_EQ(port_->count(), 2u);
  EXPECT_LT(port_->Await(0)->request.fence(), port_->Await(1)->request.fence());
}

TEST_F(JobsTest, AnErrorThatIsNotRetryableEndsTheRun) {
  Node node("n1", conninfo_);
  node.Publish({Spec("shaky", 5)}, {{"m.0.a", port_}});
  port_->Answer([](std::shared_ptr<FakeRun> run) { run->Fail("BAD_INPUT", "no", false); });
  const auto run = node.Run("shaky", 30s);
  ASSERT_TRUE(run.ok());
  EXPECT_EQ(run->status, RunStatus::kFailed);
  EXPECT_EQ(run->attempt, 1);
}

TEST_F(JobsTest, ASecondAttemptCanSucceed) {
  Node node("n1", conninfo_);
  node.Publish({Spec("shaky", 2)}, {{"m.0.a", port_}});
  port_->Answer([](std::shared_ptr<FakeRun> run) {
    if (run->request.attempt() == 1) {
      run->End(absl::UnknownError("it threw"));
    } else {
      run->Result("true");
    }
  });
  const auto run = node.Run("shaky", 30s);
  ASSERT_TRUE(run.ok());
  EXPECT_EQ(run->status, RunStatus::kSucceeded);
  EXPECT_EQ(run->attempt, 2);
  EXPECT_EQ(run->error_code, "");
}

TEST_F(JobsTest, ARunThatTakesTooLongIsCancelledAndTimedOut) {
  Node node("n1", conninfo_);
  JobSpec spec = Spec("slow");
  spec.timeout = 100ms;
  node.Publish({spec}, {{"m.0.a", port_}});
  const auto run = node.Run("slow", 10s);
  ASSERT_TRUE(run.ok());
  EXPECT_EQ(run->status, RunStatus::kTimedOut);
  EXPECT_EQ(run->error_code, "TIMED_OUT");
  EXPECT_TRUE(port_->Await(0)->cancelled);
}

TEST_F(JobsTest, WhatAModuleSaysWrongEndsTheRunWithASentence) {
  Node node("n1", conninfo_);
  node.Publish({Spec("x")}, {{"m.0.a", port_}});
  const std::pair<std::function<void(std::shared_ptr<FakeRun>)>, const char*> cases[] = {
      {[](auto run) { run->End(absl::OkStatus()); }, "NO_RESULT"},
      {[](auto run) { run->Result("{"); }, "RESULT_INVALID"},
      {[](auto run) { run->Result("\"a\\u0000b\""); }, "RESULT_INVALID"},
      {[](auto run) { run->Result("1e999999"); }, "RESULT_INVALID"},
      {[](auto run) { run->Result("\"" + std::string(300'000, 'x') + "\""); }, "RESULT_TOO_LARGE"},
      {[](auto run) { run->End(absl::UnimplementedError("no such job")); }, "UNIMPLEMENTED"},
      {[](auto run) { run->Fail("", std::string(1'000, '\0') + std::string(100'000, 'x'), false); }, "JOB_FAILED"},
  };
  for (const auto& [behaviour, code] : cases) {
    port_->Answer(behaviour);
    const auto run = node.Run("x", 10s);
    ASSERT_TRUE(run.ok()) << run.status();
    EXPECT_EQ(run->status, RunStatus::kFailed) << code;
    EXPECT_EQ(run->error_code, code);
    EXPECT_EQ(node.Get(run->id)->error_code, code);
  }
}

TEST_F(JobsTest, ARunWhoseWorkerDiesRunsAgainAtOnceOnAnother) {
  Node node("n1", conninfo_);
  auto second = std::make_shared<FakePort>();
  node.Publish({Spec("sync")}, {{"m.0.a", port_}});
  auto answer = node.Async("sync", 20s);
  port_->Await(0);
  const Instant died = Clock::Real().Now();
  node.Publish({Spec("sync")}, {{"m.0.b", second}});
  node.WorkerGone("m.0.a");
  auto again = second->Await(0);
  EXPECT_LT(Clock::Real().Now() - died, 1s);
  EXPECT_EQ(again->request.attempt(), 2);
  again->Result("1");
  const auto run = answer.get();
  ASSERT_TRUE(run.ok());
  EXPECT_EQ(run->status, RunStatus::kSucceeded);
  EXPECT_EQ(run->worker, "m.0.b");
}

TEST_F(JobsTest, ABrokenCallIsADeadWorkerAndARunThatKillsItsWorkersIsGivenUp) {
  Node node("n1", conninfo_);
  node.Publish({Spec("killer")}, {{"m.0.a", port_}});
  port_->Answer([](std::shared_ptr<FakeRun> run) { run->End(absl::UnavailableError("Socket closed")); });
  const auto run = node.Run("killer", 20s);
  ASSERT_TRUE(run.ok());
  EXPECT_EQ(run->status, RunStatus::kInterrupted);
  EXPECT_EQ(run->attempt, 4);
  EXPECT_EQ(run->error_code, "WORKER_LOST");
  EXPECT_EQ(port_->count(), 4u);
}

TEST_F(JobsTest, TheLateWordOfALostWorkerChangesNothing) {
  Node node("n1", conninfo_);
  auto second = std::make_shared<FakePort>();
  node.Publish({Spec("sync")}, {{"m.0.a", port_}});
  auto answer = node.Async("sync", 20s);
  auto first = port_->Await(0);
  auto late = std::exchange(first->done_, nullptr);
  node.Publish({Spec("sync")}, {{"m.0.b", second}});
  node.WorkerGone("m.0.a");
  second->Await(0);
  module::v1::RunJobUpdate update;
  update.mutable_result()->set_result_json("\"stale\"");
  first->update(update);
  late(absl::OkStatus());
  second->Await(0)->Result("\"fresh\"");
  EXPECT_EQ(answer.get()->result_json, "\"fresh\"");
}

TEST_F(JobsTest, DrainingAnswersWhenNothingRunsOnTheInstance) {
  Node node("n1", conninfo_);
  node.Publish({Spec("sync")}, {{"m.0.a", port_}});
  std::promise<void> idle, busy;
  node.OnLoop([&] { node.jobs().Drain("m.0.zzz", [&] { idle.set_value(); }); });
  EXPECT_EQ(idle.get_future().wait_for(5s), std::future_status::ready);
  const auto run = node.Run("sync", 0ms);
  auto call = port_->Await(0);
  node.Publish({Spec("sync")}, {});
  node.OnLoop([&] { node.jobs().Drain("m.0.a", [&] { busy.set_value(); }); });
  auto drained = busy.get_future();
  EXPECT_EQ(drained.wait_for(100ms), std::future_status::timeout);
  call->Result("7");
  EXPECT_EQ(drained.wait_for(5s), std::future_status::ready);
  EXPECT_EQ(node.Until(run->id, [](const RunView& r) { return r.status == RunStatus::kSucceeded; }).result_json, "7");
}

TEST_F(JobsTest, ARunThatOutlastsTheDrainIsQueuedAgainAndBurnsNoAttempt) {
  Node node("n1", conninfo_);
  node.Publish({Spec("sync")}, {{"m.0.a", port_}});
  const auto run = node.Run("sync", 0ms);
  auto call = port_->Await(0);
  node.Publish({Spec("sync")}, {});
  std::promise<void> drained;
  node.OnLoop([&] {
    node.jobs().Drain("m.0.a", [&] { drained.set_value(); });
    node.jobs().WorkerGone("m.0.a");
  });
  EXPECT_EQ(drained.get_future().wait_for(5s), std::future_status::ready);
  EXPECT_TRUE(call->cancelled);
  EXPECT_EQ(node.Until(run->id, [](const RunView& r) { return r.status == RunStatus::kQueued; }).attempt, 0);
  // It waits while the module is disabled, and goes on with it.
  node.Publish({Spec("sync")}, {{"m.0.b", port_}});
  auto again = port_->Await(1);
  EXPECT_EQ(again->request.attempt(), 1);
  again->Result("1");
}

TEST_F(JobsTest, TwoRunsOfOneJobNeverOverlap) {
  Node node("n1", conninfo_);
  node.Publish({Spec("sync"), Spec("other")}, {{"m.0.a", port_}, {"m.1.b", port_}});
  const auto first = node.Run("sync", 0ms), second = node.Run("sync", 0ms), other = node.Run("other", 0ms);
  auto one = port_->Await(0), two = port_->Await(1);
  EXPECT_NE(one->request.job(), two->request.job());
  EXPECT_EQ(node.Get(second->id)->status, RunStatus::kQueued);
  std::this_thread::sleep_for(200ms);
  EXPECT_EQ(port_->count(), 2u);
  (one->request.job() == "sync" ? one : two)->Result("1");
  auto three = port_->Await(2);
  EXPECT_EQ(three->request.run_id(), second->id);
  three->Result("2");
  (one->request.job() == "sync" ? two : one)->Result("3");
}

TEST_F(JobsTest, ATickWhileTheJobRunsIsSkippedAndSaysSo) {
  Node node("n1", conninfo_);
  node.Publish({Spec("busy", 0, "* * * * * *")}, {{"m.0.a", port_}});
  auto first = port_->Await(0);
  for (const Instant end = Clock::Real().Now() + 10s; Clock::Real().Now() < end && node.List("busy", RunStatus::kSkipped).total == 0;) {
    std::this_thread::sleep_for(50ms);
  }
  const RunPage skipped = node.List("busy", RunStatus::kSkipped);
  ASSERT_GE(skipped.total, 1);
  EXPECT_EQ(skipped.runs[0].error_code, "OVERLAP");
  EXPECT_EQ(skipped.runs[0].trigger, "schedule");
  EXPECT_TRUE(skipped.runs[0].slot && skipped.runs[0].finished_at);
  EXPECT_EQ(port_->count(), 1u);
  first->Result("1");
}

TEST_F(JobsTest, WithReplaceALaterRunCancelsTheEarlier) {
  Node node("n1", conninfo_);
  JobSpec spec = Spec("latest");
  spec.overlap = Overlap::kReplace;
  node.Publish({spec}, {{"m.0.a", port_}});
  auto first = node.Async("latest", 10s);
  auto call = port_->Await(0);
  auto second = node.Async("latest", 10s);
  EXPECT_EQ(first.get()->status, RunStatus::kCancelled);
  EXPECT_TRUE(call->cancelled);
  port_->Await(1)->Result("1");
  EXPECT_EQ(second.get()->status, RunStatus::kSucceeded);
}

TEST_F(JobsTest, ATickRunsOnceAlthoughTwoNodesShareTheDatabase) {
  Node one("n1", conninfo_), two("n2", conninfo_);
  auto answer = [](std::shared_ptr<FakeRun> run) { run->Result("1"); };
  auto other = std::make_shared<FakePort>();
  port_->Answer(answer);
  other->Answer(answer);
  one.Publish({Spec("tick", 0, "* * * * * *")}, {{"m.0.a", port_}});
  two.Publish({Spec("tick", 0, "* * * * * *")}, {{"m.0.b", other}});
  for (const Instant end = Clock::Real().Now() + 15s; Clock::Real().Now() < end && one.List("tick", RunStatus::kSucceeded).total < 3;) {
    std::this_thread::sleep_for(50ms);
  }
  one.Stop(2s);
  two.Stop(2s);
  auto rows = one.database().Run("SELECT count(*) AS rows, count(DISTINCT slot) AS slots, count(*) FILTER (WHERE status = 'SUCCEEDED') AS ok,"
                                 " max(attempt) AS attempts FROM bulkhead_internal.runs");
  ASSERT_TRUE(rows.ok());
  EXPECT_GE(rows->Int(0, "ok"), 3);
  EXPECT_EQ(rows->Int(0, "rows"), rows->Int(0, "slots"));
  EXPECT_EQ(rows->Int(0, "ok"), static_cast<int64_t>(port_->count() + other->count()));
  EXPECT_EQ(rows->Int(0, "attempts"), 1);
}

TEST_F(JobsTest, StoppingMarksRunsInterruptedAndTheNextLifeTakesThemUp) {
  std::string id;
  {
    Node node("n1", conninfo_);
    node.Publish({Spec("slow")}, {{"m.0.a", port_}});
    id = node.Run("slow", 0ms)->id;
    auto call = port_->Await(0);
    const Instant begin = Clock::Real().Now();
    node.Stop(200ms);
    EXPECT_GE(Clock::Real().Now() - begin, 200ms);
    EXPECT_TRUE(call->cancelled);
    const auto run = node.Get(id);
    EXPECT_EQ(run->status, RunStatus::kInterrupted);
    EXPECT_EQ(run->attempt, 0);
    EXPECT_EQ(run->error_code, "SHUTDOWN");
  }
  Node node("n1", conninfo_);
  node.Publish({Spec("slow")}, {{"m.0.b", port_}});
  auto again = port_->Await(1);
  EXPECT_EQ(again->request.run_id(), id);
  EXPECT_EQ(again->request.attempt(), 1);
  again->Result("1");
  node.Until(id, [](const RunView& r) { return r.status == RunStatus::kSucceeded; });
}

TEST_F(JobsTest, StoppingWaitsForARunThatEndsWithinTheGrace) {
  Node node("n1", conninfo_);
  node.Publish({Spec("slow")}, {{"m.0.a", port_}});
  const auto id = node.Run("slow", 0ms)->id;
  auto call = port_->Await(0);
  std::thread finisher([&] {
    std::this_thread::sleep_for(100ms);
    call->Result("1");
  });
  node.Stop(10s);
  finisher.join();
  EXPECT_EQ(node.Get(id)->status, RunStatus::kSucceeded);
}

TEST_F(JobsTest, WhatAnEarlierLifeLeftRunningIsReleasedAtTheStart) {
  Database database(conninfo_, 1);
  ASSERT_TRUE(database.Run("INSERT INTO bulkhead_internal.runs (module, job, status, attempt, max_attempts, trigger, node, lease_until)"
                           " VALUES ('m', 'sync', 'RUNNING', 1, 1, 'manual', 'n1', now() + interval '1 hour')").ok());
  Node node("n1", conninfo_);
  node.Publish({Spec("sync")}, {{"m.0.a", port_}});
  auto call = port_->Await(0);
  EXPECT_EQ(call->request.attempt(), 2);
  call->Result("1");
}

TEST_F(JobsTest, TheExpiredLeaseOfAnotherNodeIsTakenOver) {
  Database database(conninfo_, 1);
  ASSERT_TRUE(database.Run("INSERT INTO bulkhead_internal.runs (module, job, status, attempt, max_attempts, trigger, node, lease_until)"
                           " VALUES ('m', 'dead', 'RUNNING', 1, 1, 'manual', 'n9', now() - interval '1 second'),"
                           " ('m', 'alive', 'RUNNING', 1, 1, 'manual', 'n9', now() + interval '1 hour')").ok());
  Node node("n1", conninfo_);
  node.Publish({Spec("dead"), Spec("alive")}, {{"m.0.a", port_}});
  auto call = port_->Await(0);
  EXPECT_EQ(call->request.job(), "dead");
  call->Result("1");
  std::this_thread::sleep_for(200ms);
  EXPECT_EQ(port_->count(), 1u);
}

TEST_F(JobsTest, AnOldFenceWritesNothing) {
  Node node("n1", conninfo_);
  node.Publish({Spec("sync")}, {{"m.0.a", port_}});
  const auto id = node.Run("sync", 0ms)->id;
  auto call = port_->Await(0);
  ASSERT_TRUE(node.database().Run("UPDATE bulkhead_internal.runs SET fence = fence + 1000, node = 'n9'").ok());  // another node took it over
  call->Result("\"stale\"");
  std::this_thread::sleep_for(200ms);
  EXPECT_EQ(node.Get(id)->status, RunStatus::kRunning);
  EXPECT_EQ(node.Get(id)->result_json, "null");
}

TEST_F(JobsTest, CatchingUpRunsTheLatestMissedTick) {
  Database database(conninfo_, 1);
  ASSERT_TRUE(database.Run("INSERT INTO bulkhead_internal.runs (module, job, status, trigger, slot)"
                           " VALUES ('m', 'daily', 'SUCCEEDED', 'schedule', date_trunc('hour', now()) - interval '5 hours')").ok());
  Node node("n1", conninfo_);
  JobSpec spec = Spec("daily", 0, "0 * * * *");
  spec.catch_up = "latest";
  node.Publish({spec}, {{"m.0.a", port_}});
  auto call = port_->Await(0);
  const auto run = node.Get(call->request.run_id());
  ASSERT_TRUE(run.ok() && run->slot);
  EXPECT_LE(Clock::Real().Wall() - *run->slot, 1h + 1s);
  call->Result("1");
}

TEST_F(JobsTest, RequestsThatCanNotBeMetAreRefusedWithTheirCodes) {
  Node node("n1", conninfo_);
  EXPECT_EQ(ErrorCode(node.Run("sync", 0ms).status()), "MODULE_NOT_RUNNING");
  node.Publish({Spec("sync")}, {});
  EXPECT_EQ(ErrorCode(node.Run("sync", 0ms).status()), "MODULE_NOT_RUNNING");
  node.Publish({Spec("sync")}, {{"m.0.a", port_}});
  EXPECT_EQ(ErrorCode(node.Run("snyc", 0ms).status()), "JOB_NOT_FOUND");
  EXPECT_EQ(ErrorCode(node.Run("sync", 0ms, "{").status()), "INVALID_ARGUMENT");
  EXPECT_EQ(ErrorCode(node.Run("sync", 0ms, "\"\\u0000\"").status()), "INVALID_ARGUMENT");
  EXPECT_EQ(ErrorCode(node.Run("sync", 0ms, "\"" + std::string(limits::kMaxJobPayload, 'x') + "\"").status()), "INVALID_ARGUMENT");
  EXPECT_EQ(ErrorCode(node.Get("nonsense").status()), "RUN_NOT_FOUND");
  EXPECT_EQ(ErrorCode(node.Get("00000000-0000-4000-8000-000000000000").status()), "RUN_NOT_FOUND");
  EXPECT_EQ(node.List("sync").total, 0);
}

TEST_F(JobsTest, JobsAreListedWithTheirNextRun) {
  Node node("n1", conninfo_);
  auto list = [&](std::shared_ptr<const Manifest> manifest) {
    std::promise<absl::StatusOr<std::vector<JobView>>> answer;
    node.jobs().ListJobs("m", manifest, [&](absl::StatusOr<std::vector<JobView>> jobs) { answer.set_value(std::move(jobs)); });
    return answer.get_future().get();
  };
  EXPECT_EQ(ErrorCode(list(nullptr).status()), "MODULE_NOT_FOUND");
  auto manifest = std::make_shared<Manifest>();
  manifest->jobs = {Spec("hourly", 0, "0 * * * *")};
  auto disabled = list(manifest);
  ASSERT_TRUE(disabled.ok());
  ASSERT_EQ(disabled->size(), 1u);
  EXPECT_FALSE((*disabled)[0].active);
  EXPECT_FALSE((*disabled)[0].next_run_at);
  node.Publish({Spec("hourly", 0, "0 * * * *"), Spec("manual")}, {{"m.0.a", port_}});
  auto enabled = list(manifest);
  ASSERT_TRUE(enabled.ok());
  ASSERT_EQ(enabled->size(), 2u);
  EXPECT_TRUE((*enabled)[0].active);
  EXPECT_GT((*enabled)[0].next_run_at, Clock::Real().Wall());
  EXPECT_FALSE((*enabled)[1].next_run_at);
}

TEST_F(JobsTest, RunsAreListedNewestFirstInPages) {
  Node node("n1", conninfo_);
  node.Publish({Spec("sync")}, {{"m.0.a", port_}});
  port_->Answer([](std::shared_ptr<FakeRun> run) { run->Result(run->request.payload_json()); });
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(node.Run("sync", 10s, std::to_string(i)).ok());
  const RunPage page = node.List("sync", std::nullopt, 2, 2);
  EXPECT_EQ(page.total, 5);
  ASSERT_EQ(page.runs.size(), 2u);
  EXPECT_EQ(page.runs[0].result_json, "2");
  EXPECT_EQ(page.runs[1].result_json, "1");
  EXPECT_EQ(node.List("sync", RunStatus::kFailed).total, 0);
  EXPECT_EQ(node.List("sync", RunStatus::kSucceeded).total, 5);
}

TEST_F(JobsTest, ALostDatabaseStopsNoRunAndItsOutcomeIsWrittenLater) {
  Node node("n1", conninfo_);
  node.Publish({Spec("sync")}, {{"m.0.a", port_}});
  auto answer = node.Async("sync", 60s);
  auto call = port_->Await(0);
  ASSERT_TRUE(node.database().Run("CHECKPOINT").ok());  // the test's server commits lazily; what it has said must survive its end
  TestPostgres::Instance().Stop();
  call->Result("5");
  const auto run = answer.get();  // from memory, while the database is away
  TestPostgres::Instance().Start();
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(run->status, RunStatus::kSucceeded);
  EXPECT_EQ(run->result_json, "5");
  EXPECT_EQ(node.Until(run->id, [](const RunView& r) { return r.status == RunStatus::kSucceeded; }).result_json, "5");
}

TEST_F(JobsTest, LongHistoryIsTrimmedToTheNewest) {
  Database database(conninfo_, 1);
  ASSERT_TRUE(database.Run("INSERT INTO bulkhead_internal.runs (module, job, status, trigger, queued_at, finished_at)"
                           " SELECT 'm', 'sync', 'SUCCEEDED', 'manual', now() - n * interval '1 minute', now() FROM generate_series(1, 1500) AS n").ok());
  Node node("n1", conninfo_);
  node.Publish({Spec("sync")}, {{"m.0.a", port_}});
  port_->Answer([](std::shared_ptr<FakeRun> run) { run->Result("1"); });
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(node.Run("sync", 10s).ok());
  for (const Instant end = Clock::Real().Now() + 10s; Clock::Real().Now() < end && node.List("sync").total > 1'000;) std::this_thread::sleep_for(20ms);
  EXPECT_EQ(node.List("sync").total, 1'000);
  EXPECT_EQ(node.List("sync").runs[0].result_json, "1");
}

}  // namespace
}  // namespace bulkhead
