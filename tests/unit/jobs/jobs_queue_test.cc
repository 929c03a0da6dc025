// What modules queue, what is cancelled, what runs say, and that no run begins again before its handler has returned.
#include "tests/unit/jobs/jobs_harness.h"

namespace bulkhead::jobs_testing {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

JobSpec Wide(const std::string& name, int concurrency, int retries = 0) {
  JobSpec spec = Spec(name, retries);
  spec.concurrency = concurrency;
  return spec;
}

TEST_F(JobsTest, QueuedRunsGoByPriorityAndThenByAge) {
  Node node("n1", conninfo_);
  node.Register(R"([{"name":"mail"}])");
  for (const auto& [payload, priority] : std::vector<std::pair<const char*, int>>{{"1", 0}, {"2", -5}, {"3", 7}, {"4", 0}})
    ASSERT_TRUE(node.Enqueue({.job = "mail", .payload_json = payload, .priority = priority}).ok());
  port_->Answer([](std::shared_ptr<FakeRun> run) { run->Result("null"); });
  node.Publish({Spec("mail")}, {{"m.0.a", port_}});
  std::vector<std::string> order;
  for (size_t i = 0; i < 4; ++i) order.push_back(port_->Await(i)->request.payload_json());
  EXPECT_THAT(order, ElementsAre("3", "1", "4", "2"));
  EXPECT_EQ(node.List("mail").runs[0].trigger, "enqueue");
}

TEST_F(JobsTest, AKeyWaitsOnceAndIsFreeWhenItsRunHasBegun) {
  Node node("n1", conninfo_);
  node.Register(R"([{"name":"sync"}])");
  const auto first = node.Enqueue({.job = "sync", .unique_key = "order 7"});
  const auto again = node.Enqueue({.job = "sync", .unique_key = "order 7"});
  const auto other = node.Enqueue({.job = "sync", .unique_key = "order 8"});
  ASSERT_TRUE(first.ok() && again.ok() && other.ok());
  EXPECT_EQ(first->id, again->id);
  EXPECT_FALSE(again->fresh);
  EXPECT_NE(first->id, other->id);
  node.Publish({Spec("sync")}, {{"m.0.a", port_}});
  auto call = port_->Await(0);
  const auto later = node.Enqueue({.job = "sync", .unique_key = "order 7"});
  EXPECT_TRUE(later->fresh);
  call->Fail("X", "x", true);
}

TEST_F(JobsTest, ADelayedRunBeginsThenAndKeepsNoTickAway) {
  Node node("n1", conninfo_);
  node.Register(R"([{"name":"sync"}])");
  node.Publish({Spec("sync", 0, "* * * * * *")}, {{"m.0.a", port_}});
  port_->Answer([](std::shared_ptr<FakeRun> run) { run->Result("null"); });
  const auto far = node.Enqueue({.job = "sync", .delay = 1h});
  const Instant begin = Clock::Real().Now();
  const auto soon = node.Enqueue({.job = "sync", .delay = 700ms});
  node.Until(soon->id, [](const RunView& r) { return r.status == RunStatus::kSucceeded; });
  EXPECT_GE(Clock::Real().Now() - begin, 700ms);
  for (const Instant end = Clock::Real().Now() + 10s; Clock::Real().Now() < end && node.List("sync", RunStatus::kSucceeded).total < 3;)
    std::this_thread::sleep_for(20ms);
  EXPECT_GE(node.List("sync", RunStatus::kSucceeded).total, 3) << "ticks";
  const auto waiting = node.Get(far->id);
  EXPECT_EQ(waiting->status, RunStatus::kQueued);
  EXPECT_GT(*waiting->not_before, Clock::Real().Wall() + 50min);
}

TEST_F(JobsTest, WhatCanNotBeQueuedIsRefusedWithItsCode) {
  Node node("n1", conninfo_);
  node.Register(R"([{"name":"sync"}])");
  const auto code = [&](EnqueueRequest request) { return ErrorCode(node.Enqueue(std::move(request)).status()); };
  EXPECT_EQ(code({.job = "snyc"}), "JOB_NOT_FOUND");
  EXPECT_EQ(code({.job = "sync", .payload_json = "{"}), "INVALID_ARGUMENT");
  EXPECT_EQ(code({.job = "sync", .payload_json = R"("\u0000")"}), "INVALID_ARGUMENT");
  EXPECT_EQ(code({.job = "sync", .payload_json = "\"" + std::string(limits::kMaxJobPayload, 'x') + "\""}), "INVALID_ARGUMENT");
  EXPECT_EQ(code({.job = "sync", .delay = -1ms}), "INVALID_ARGUMENT");
  EXPECT_EQ(code({.job = "sync", .delay = 24h * 367}), "INVALID_ARGUMENT");
  EXPECT_EQ(code({.job = "sync", .unique_key = std::string(257, 'k')}), "INVALID_ARGUMENT");
  EXPECT_EQ(code({.job = "sync", .unique_key = std::string("a\0b", 3)}), "INVALID_ARGUMENT");
  EXPECT_EQ(code({.job = "sync", .priority = 1'000'001}), "INVALID_ARGUMENT");
  ASSERT_TRUE(node.database().Run("UPDATE bulkhead_internal.module_jobs SET backlog = 1000000").ok());
  EXPECT_EQ(code({.job = "sync"}), "OVERLOADED");
  node.Register(R"([{"name":"other"}])");
  EXPECT_EQ(code({.job = "sync"}), "JOB_NOT_FOUND") << "the manifest has changed";
}

TEST_F(JobsTest, SoManyRunsOfAJobGoAtOnceAsItsConcurrencySaysInTheWholeCluster) {
  Node one("n1", conninfo_), two("n2", conninfo_);
  one.Register(R"([{"name":"mail"}])");
  auto other = std::make_shared<FakePort>();
  one.Publish({Wide("mail", 3)}, {{"m.0.a", port_}});
  two.Publish({Wide("mail", 3)}, {{"m.0.b", other}});
  for (int i = 0; i < 6; ++i) ASSERT_TRUE((i % 2 == 0 ? one : two).Enqueue({.job = "mail"}).ok());
  const auto begun = [&] { return port_->count() + other->count(); };
  for (const Instant end = Clock::Real().Now() + 10s; Clock::Real().Now() < end && begun() < 3;) std::this_thread::sleep_for(10ms);
  std::this_thread::sleep_for(1'500ms);  // longer than both look again
  EXPECT_EQ(begun(), 3u);
  for (FakePort* port : {port_.get(), other.get()}) port->Answer([](std::shared_ptr<FakeRun> run) { run->Result("null"); });
  const size_t here = port_->count(), there = other->count();
  for (size_t i = 0; i < here; ++i) port_->Await(i)->Result("null");
  for (size_t i = 0; i < there; ++i) other->Await(i)->Result("null");
  for (const Instant end = Clock::Real().Now() + 10s; Clock::Real().Now() < end && begun() < 6;) std::this_thread::sleep_for(10ms);
  EXPECT_EQ(begun(), 6u);
}

TEST_F(JobsTest, AWorkerGetsNoMoreRunsThanItTakes) {
  Node node("n1", conninfo_);
  node.Register(R"([{"name":"mail"}])");
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(node.Enqueue({.job = "mail"}).ok());
  auto other = std::make_shared<FakePort>();
  node.Publish({Wide("mail", 1'000)}, {{"m.0.a", port_}, {"m.1.b", other}});
  port_->Await(15);
  other->Await(15);
  std::this_thread::sleep_for(300ms);
  EXPECT_EQ(port_->count(), 16u);
  EXPECT_EQ(other->count(), 16u);
}

TEST_F(JobsTest, AWaitingRunIsCancelledAtOnceAndAnEndedOneCanNotBe) {
  Node node("n1", conninfo_);
  node.Register(R"([{"name":"sync"}])");
  const auto queued = node.Enqueue({.job = "sync"});
  const auto cancelled = node.Cancel(queued->id, 0ms);
  ASSERT_TRUE(cancelled.ok()) << cancelled.status();
  EXPECT_EQ(cancelled->status, RunStatus::kCancelled);
  EXPECT_EQ(cancelled->error_code, "CANCELLED");
  EXPECT_EQ(node.Cancel(queued->id, 0ms)->status, RunStatus::kCancelled) << "once more";
  node.Publish({Spec("sync")}, {{"m.0.a", port_}});
  port_->Answer([](std::shared_ptr<FakeRun> run) { run->Result("1"); });
  const auto done = node.Run("sync", 10s);
  EXPECT_EQ(ErrorCode(node.Cancel(done->id, 0ms).status()), "RUN_ENDED");
  EXPECT_EQ(ErrorCode(node.Cancel("00000000-0000-4000-8000-000000000000", 0ms).status()), "RUN_NOT_FOUND");
  auto audit = node.database().Run("SELECT count(*) AS rows FROM bulkhead_internal.audit WHERE action = 'jobs.cancel' AND module = 'm'");
  EXPECT_EQ(audit->Int(0, "rows"), 1);
}

TEST_F(JobsTest, ACancelledRunEndsWhenItsHandlerHasReturned) {
  Node node("n1", conninfo_);
  JobSpec spec = Spec("sync", 5);
  node.Publish({spec}, {{"m.0.a", port_}});
  const auto run = node.Run("sync", 0ms);
  auto call = port_->Await(0);
  const int64_t fence = call->request.fence();
  port_->Tell(fence);
  const auto going = node.Cancel(run->id, 300ms);
  ASSERT_TRUE(going.ok()) << going.status();
  EXPECT_TRUE(call->cancelled);
  EXPECT_EQ(going->status, RunStatus::kRunning);
  EXPECT_TRUE(going->cancel_requested);
  port_->Let(fence);
  const RunView ended = node.Until(run->id, [](const RunView& r) { return r.status != RunStatus::kRunning; });
  EXPECT_EQ(ended.status, RunStatus::kCancelled);
  EXPECT_EQ(ended.attempt, 1);
  EXPECT_TRUE(node.faults().empty());
}

TEST_F(JobsTest, ARunIsCancelledFromAnotherNode) {
  Node one("n1", conninfo_), two("n2", conninfo_);
  one.Publish({Spec("sync")}, {{"m.0.a", port_}});
  const auto run = one.Run("sync", 0ms);
  auto call = port_->Await(0);
  const Instant asked = Clock::Real().Now();
  EXPECT_EQ(two.Cancel(run->id, 10s)->status, RunStatus::kCancelled);
  EXPECT_TRUE(call->cancelled);
  EXPECT_LT(Clock::Real().Now() - asked, 5s) << "told at once, or, before the node listens, when it begins to";
}

TEST_F(JobsTest, ATimedOutRunIsTriedAgainOnlyWhenItsHandlerHasReturned) {
  Node node("n1", conninfo_);
  JobSpec spec = Spec("slow", 1);
  spec.timeout = 100ms;
  node.Publish({spec}, {{"m.0.a", port_}});
  port_->Answer([&](std::shared_ptr<FakeRun> run) { port_->Tell(run->request.fence()); });
  const auto run = node.Run("slow", 0ms);
  auto first = port_->Await(0);
  std::this_thread::sleep_for(1'500ms);
  EXPECT_TRUE(first->cancelled);
  EXPECT_EQ(port_->count(), 1u);
  EXPECT_EQ(node.Get(run->id)->status, RunStatus::kRunning);
  port_->Let(first->request.fence());
  auto second = port_->Await(1);
  EXPECT_EQ(second->request.attempt(), 2);
}

TEST_F(JobsTest, AWorkerThatDoesNotLetGoOfARunIsKilledAndTheRunEndsWithIt) {
  Node node("n1", conninfo_);
  node.Publish({Spec("stubborn")}, {{"m.0.a", port_}});
  const auto run = node.Run("stubborn", 0ms);
  auto call = port_->Await(0);
  port_->Tell(call->request.fence());
  const Instant asked = Clock::Real().Now();
  ASSERT_TRUE(node.Cancel(run->id, 0ms).ok());
  while (node.faults().empty() && Clock::Real().Now() - asked < 15s) std::this_thread::sleep_for(10ms);
  EXPECT_GE(Clock::Real().Now() - asked, 4'900ms);
  ASSERT_FALSE(node.faults().empty());
  EXPECT_THAT(node.faults()[0], HasSubstr("did not end a run of the job \"stubborn\""));
  EXPECT_EQ(node.Get(run->id)->status, RunStatus::kRunning) << "until the worker has died";
  node.WorkerGone("m.0.a");
  EXPECT_EQ(node.Until(run->id, [](const RunView& r) { return r.status != RunStatus::kRunning; }).status, RunStatus::kCancelled);
}

TEST_F(JobsTest, ABrokenCallIsFollowedByTheQuestionBeforeTheRunIsTriedAgain) {
  Node node("n1", conninfo_);
  node.Publish({Spec("sync")}, {{"m.0.a", port_}});
  const auto run = node.Run("sync", 0ms);
  auto call = port_->Await(0);
  port_->Tell(call->request.fence());
  call->End(absl::UnavailableError("Socket closed"));
  std::this_thread::sleep_for(700ms);
  EXPECT_EQ(port_->count(), 1u);
  port_->Let(call->request.fence());
  port_->Await(1)->Result("1");
}

TEST_F(JobsTest, ARunThatItsStoppingModuleInterruptsBurnsNoAttempt) {
  Node node("n1", conninfo_);
  node.Publish({Spec("sync")}, {{"m.0.a", port_}});
  const auto run = node.Run("sync", 0ms);
  auto call = port_->Await(0);
  node.Publish({Spec("sync")}, {});
  std::promise<void> drained;
  node.OnLoop([&] { node.jobs().Drain("m.0.a", [&] { drained.set_value(); }); });
  call->Fail("INTERRUPTED", "the module is stopping", true);
  EXPECT_EQ(drained.get_future().wait_for(5s), std::future_status::ready);
  EXPECT_EQ(node.Until(run->id, [](const RunView& r) { return r.status == RunStatus::kQueued; }).attempt, 0);
}

TEST_F(JobsTest, WhatARunSaysIsKeptAndFollowed) {
  Node node("n1", conninfo_);
  node.Publish({Spec("talk")}, {{"m.0.a", port_}});
  const auto run = node.Run("talk", 0ms);
  auto call = port_->Await(0);
  call->Log("info", "one");
  std::promise<absl::StatusOr<std::shared_ptr<RunFollower>>> answer;
  node.jobs().Follow(run->id, 0, [] {}, [&](absl::StatusOr<std::shared_ptr<RunFollower>> f) { answer.set_value(std::move(f)); });
  const auto follower = answer.get_future().get();
  ASSERT_TRUE(follower.ok()) << follower.status();
  call->Log("warn", "two");
  call->Progress(0.5, "half");
  std::vector<std::string> lines;
  RunView last;
  const auto read_until = [&](const std::function<bool()>& enough) {
    for (const Instant end = Clock::Real().Now() + 10s; Clock::Real().Now() < end && !enough();) {
      RunFollower::Event event = (*follower)->Next();
      if (event.kind == RunFollower::Event::Kind::kLine) lines.push_back(event.line.level + " " + event.line.message);
      if (event.kind == RunFollower::Event::Kind::kRun) last = event.run;
      if (event.kind == RunFollower::Event::Kind::kNothing) std::this_thread::sleep_for(5ms);
      if (event.kind == RunFollower::Event::Kind::kEnded) break;
    }
  };
  read_until([&] { return last.progress == 0.5; });
  EXPECT_EQ(last.progress_message, "half");
  call->Log("info", "three");
  call->Result("3");
  read_until([&] { return last.status == RunStatus::kSucceeded; });
  EXPECT_EQ(last.result_json, "3");
  EXPECT_EQ((*follower)->Next().kind, RunFollower::Event::Kind::kEnded);
  EXPECT_THAT(lines, ElementsAre("info one", "warn two", "info three"));
  std::promise<absl::StatusOr<std::vector<RunLogLine>>> kept;
  for (int i = 0; i < 100 && node.database().Run("SELECT FROM bulkhead_internal.run_logs")->size() < 3; ++i) std::this_thread::sleep_for(50ms);
  node.jobs().ListLogs(run->id, 0, 100, [&](absl::StatusOr<std::vector<RunLogLine>> l) { kept.set_value(std::move(l)); });
  const auto all = kept.get_future().get();
  ASSERT_TRUE(all.ok() && all->size() == 3u) << all.status();
  EXPECT_EQ((*all)[0].message + (*all)[1].message + (*all)[2].message, "onetwothree");
}

TEST_F(JobsTest, OfLinesBeyondALimitTheRestIsNotKept) {
  Node node("n1", conninfo_);
  node.Publish({Spec("talk")}, {{"m.0.a", port_}});
  port_->Answer([](std::shared_ptr<FakeRun> run) {
    for (int i = 0; i < 3'000; ++i) run->Log("info", std::to_string(i));
    run->Result("1");
  });
  ASSERT_TRUE(node.Run("talk", 10s).ok());
  Rows rows;
  for (int i = 0; i < 200 && rows.size() < 1'001; ++i) {
    std::this_thread::sleep_for(20ms);
    rows = *node.database().Run("SELECT message FROM bulkhead_internal.run_logs ORDER BY seq");
  }
  ASSERT_EQ(rows.size(), limits::kMaxRunLogLines + 1);
  EXPECT_EQ(rows.Text(999, "message"), "999");
  EXPECT_THAT(rows.Text(1'000, "message"), HasSubstr("not kept"));
}

TEST_F(JobsTest, MissedTicksAreAllMadeUpForWhereAllAreWanted) {
  Database database(conninfo_, 1);
  ASSERT_TRUE(database
                  .Run("INSERT INTO bulkhead_internal.runs (module, job, status, trigger, slot)"
                       " VALUES ('m', 'hourly', 'SUCCEEDED', 'schedule', date_trunc('hour', now()) - interval '5 hours')")
                  .ok());
  Node node("n1", conninfo_);
  JobSpec spec = Spec("hourly", 0, "0 * * * *");
  spec.catch_up = "all";
  spec.catch_up_most = 3;
  std::vector<std::string> slots;
  port_->Answer([](std::shared_ptr<FakeRun> run) { run->Result("1"); });
  node.Publish({spec}, {{"m.0.a", port_}});
  for (const Instant end = Clock::Real().Now() + 10s; Clock::Real().Now() < end && node.List("hourly", RunStatus::kSucceeded).total < 4;)
    std::this_thread::sleep_for(20ms);
  auto rows = database.Run("SELECT count(*) AS runs, count(*) FILTER (WHERE slot > date_trunc('hour', now()) - interval '3 hours') AS late"
                           " FROM bulkhead_internal.runs WHERE status = 'SUCCEEDED'");
  EXPECT_GE(rows->Int(0, "runs"), 4);
  EXPECT_GE(rows->Int(0, "late"), 3);
}

TEST_F(JobsTest, OldHistoryGoesByAgeButNotTheLatestTick) {
  Database database(conninfo_, 1);
  ASSERT_TRUE(database
                  .Run("INSERT INTO bulkhead_internal.runs (module, job, status, trigger, slot, queued_at, finished_at)"
                       " SELECT 'm', 'sync', 'SUCCEEDED', 'schedule', date_trunc('hour', now()) - n * interval '1 day', now() - n * interval '1 day',"
                       " now() - n * interval '1 day' FROM generate_series(1, 9) AS n")
                  .ok());
  Node node("n1", conninfo_);
  JobSpec spec = Spec("sync");
  spec.history_age = 3h;
  node.Publish({spec}, {{"m.0.a", port_}});
  port_->Answer([](std::shared_ptr<FakeRun> run) { run->Result("1"); });
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(node.Run("sync", 10s).ok());
  for (const Instant end = Clock::Real().Now() + 10s; Clock::Real().Now() < end && node.List("sync").total > 51;) std::this_thread::sleep_for(20ms);
  EXPECT_EQ(node.List("sync").total, 51);
}

TEST_F(JobsTest, WhereOthersMayTakeOverARunIsStoppedBeforeItsLeaseEnds) {
  Node node("n1", conninfo_, /*alone=*/false);
  node.Publish({Spec("sync")}, {{"m.0.a", port_}});
  ASSERT_TRUE(node.Run("sync", 0ms).ok());
  auto call = port_->Await(0);
  ASSERT_TRUE(node.database().Run("CHECKPOINT").ok());
  const Instant lost = Clock::Real().Now();
  TestPostgres::Instance().Stop();
  while (!call->cancelled && Clock::Real().Now() - lost < limits::kRunLease) std::this_thread::sleep_for(20ms);
  const bool cancelled = call->cancelled;
  const auto after = Clock::Real().Now() - lost;
  TestPostgres::Instance().Start();
  EXPECT_TRUE(cancelled);
  EXPECT_LT(after, limits::kRunLease - 2s);
  port_->Await(1)->Result("1");
}

}  // namespace
}  // namespace bulkhead::jobs_testing
