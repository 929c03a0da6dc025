// What becomes of a run: results, errors, retries, timeouts, lost workers, drains.
#include "tests/unit/jobs/jobs_harness.h"

namespace bulkhead::jobs_testing {
namespace {

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

TEST_F(JobsTest, AResultThatHasArrivedCountsThoughTheWorkerIsGoneOrTheTimeIsUp) {
  Node node("n1", conninfo_);
  JobSpec brief = Spec("brief");
  brief.timeout = 200ms;
  node.Publish({Spec("sync"), brief}, {{"m.0.a", port_}});
  port_->Answer([](std::shared_ptr<FakeRun> run) {  // the end of the call never comes
    module::v1::RunJobUpdate update;
    update.mutable_result()->set_result_json(R"({"rows":3})");
    run->update(update);
  });
  const auto timed = node.Run("brief", 10s);
  ASSERT_TRUE(timed.ok()) << timed.status();
  EXPECT_EQ(timed->status, RunStatus::kSucceeded);
  EXPECT_TRUE(port_->Await(0)->cancelled);
  const auto queued = node.Run("sync", 0ms);
  ASSERT_TRUE(queued.ok());
  port_->Await(1);
  node.OnLoop([&] { node.jobs().WorkerGone("m.0.a"); });
  const RunView lost = node.Until(queued->id, [](const RunView& r) { return r.status != RunStatus::kRunning; });
  EXPECT_EQ(lost.status, RunStatus::kSucceeded);
  EXPECT_EQ(lost.result_json, R"({"rows": 3})");
  EXPECT_EQ(port_->count(), 2u);
}

TEST_F(JobsTest, WhatAModuleSaysInBytesThatAreNoTextIsKeptAsText) {
  Node node("n1", conninfo_);
  node.Publish({Spec("sync")}, {{"m.0.a", port_}});
  port_->Answer([](std::shared_ptr<FakeRun> run) { run->End(absl::InvalidArgumentError("caf\xe9 \xff" + std::string(1, '\0'))); });
  const auto run = node.Run("sync", 10s);
  ASSERT_TRUE(run.ok()) << run.status();
  const RunView stored = node.Until(run->id, [](const RunView& r) { return r.status == RunStatus::kFailed; });
  EXPECT_EQ(stored.error_message, "caf\uFFFD \uFFFD\uFFFD");
}

TEST_F(JobsTest, TheLastProgressBeforeTheEndIsInTheRow) {
  Node node("n1", conninfo_);
  node.Publish({Spec("sync")}, {{"m.0.a", port_}});
  port_->Answer([](std::shared_ptr<FakeRun> run) {
    run->Progress(0.75, "three of four");
    run->Fail("UPSTREAM_DOWN", "no answer", false);
  });
  const auto run = node.Run("sync", 10s);
  ASSERT_TRUE(run.ok()) << run.status();
  const RunView stored = *node.Get(run->id);
  EXPECT_EQ(stored.progress_message, "three of four");
  EXPECT_EQ(stored.progress, 0.75);
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

TEST_F(JobsTest, RequestsThatCanNotBeMetAreRefusedWithTheirCodes) {
  Node node("n1", conninfo_);
  EXPECT_EQ(ErrorCode(node.Run("sync", 0ms).status()), "MODULE_NOT_RUNNING");
  node.Publish({Spec("sync")}, {});
  EXPECT_EQ(ErrorCode(node.Run("sync", 0ms).status()), "MODULE_NOT_RUNNING");
  node.Publish({Spec("sync")}, {{"m.0.a", port_}});
  EXPECT_EQ(ErrorCode(node.Run("snyc", 0ms).status()), "JOB_NOT_FOUND");
  EXPECT_EQ(ErrorCode(node.Run("sync", 0ms, "{").status()), "INVALID_ARGUMENT");
  EXPECT_EQ(ErrorCode(node.Run("sync", 0ms, "\"\\u0000\"").status()), "INVALID_ARGUMENT");
  EXPECT_EQ(ErrorCode(node.Run("sync", 0ms, "\"" + std::string(limits::kMaxJobPayload, 'x') + "\"").status()),
            "INVALID_ARGUMENT");
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

}  // namespace
}  // namespace bulkhead::jobs_testing
