// Jobs over time and over nodes: ticks, restarts, leases, fences, a database that is lost, history.
#include "supervisor/store/registry.h"
#include "tests/unit/jobs/jobs_harness.h"

namespace bulkhead::jobs_testing {
namespace {

TEST_F(JobsTest, ATickWhileTheJobRunsIsSkippedAndSaysSo) {
  Node node("n1", conninfo_);
  node.Publish({Spec("busy", 0, "* * * * * *")}, {{"m.0.a", port_}});
  auto first = port_->Await(0);
  for (const Instant end = Clock::Real().Now() + 10s;
       Clock::Real().Now() < end && node.List("busy", RunStatus::kSkipped).total == 0;) {
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

TEST_F(JobsTest, ATickRunsOnceAlthoughTwoNodesShareTheDatabase) {
  Node one("n1", conninfo_), two("n2", conninfo_);
  auto answer = [](std::shared_ptr<FakeRun> run) { run->Result("1"); };
  auto other = std::make_shared<FakePort>();
  port_->Answer(answer);
  other->Answer(answer);
  one.Publish({Spec("tick", 0, "* * * * * *")}, {{"m.0.a", port_}});
  two.Publish({Spec("tick", 0, "* * * * * *")}, {{"m.0.b", other}});
  for (const Instant end = Clock::Real().Now() + 15s;
       Clock::Real().Now() < end && one.List("tick", RunStatus::kSucceeded).total < 3;) {
    std::this_thread::sleep_for(50ms);
  }
  one.Stop(2s);
  two.Stop(2s);
  auto rows = one.database().Run(
      "SELECT count(*) AS rows, count(DISTINCT slot) AS slots, count(*) FILTER (WHERE status = 'SUCCEEDED') AS ok,"
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
  ASSERT_TRUE(
      database
          .Run("INSERT INTO bulkhead_internal.runs (module, job, status, attempt, max_attempts, trigger, node, lease_until)"
               " VALUES ('m', 'sync', 'RUNNING', 1, 1, 'manual', 'n1', now() + interval '1 hour')")
          .ok());
  Node node("n1", conninfo_);
  node.Publish({Spec("sync")}, {{"m.0.a", port_}});
  auto call = port_->Await(0);
  EXPECT_EQ(call->request.attempt(), 2);
  call->Result("1");
}

TEST_F(JobsTest, TheExpiredLeaseOfAnotherNodeIsTakenOver) {
  Database database(conninfo_, 1);
  ASSERT_TRUE(
      database
          .Run("INSERT INTO bulkhead_internal.runs (module, job, status, attempt, max_attempts, trigger, node, lease_until)"
               " VALUES ('m', 'dead', 'RUNNING', 1, 1, 'manual', 'n9', now() - interval '1 second'),"
               " ('m', 'alive', 'RUNNING', 1, 1, 'manual', 'n9', now() + interval '1 hour')")
          .ok());
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
  ASSERT_TRUE(node.database()
                  .Run("UPDATE bulkhead_internal.runs SET fence = fence + 1000, node = 'n9'")
                  .ok());  // another node took it over
  call->Result("\"stale\"");
  std::this_thread::sleep_for(200ms);
  EXPECT_EQ(node.Get(id)->status, RunStatus::kRunning);
  EXPECT_EQ(node.Get(id)->result_json, "null");
}

TEST_F(JobsTest, NoModuleCanStopTheClaimsByALock) {
  Node node("n1", conninfo_);
  node.Publish({Spec("sync")}, {{"m.0.a", port_}});
  port_->Answer([](std::shared_ptr<FakeRun> run) { run->Result("1"); });
  Database database(conninfo_, 2);
  Registry registry(database, std::string(32, 'k'));
  ASSERT_TRUE(registry.Open().ok());
  const auto schema = registry.EnsureSchema("greedy", 4, {});
  ASSERT_TRUE(schema.ok()) << schema.status();
  auto greedy = Connection::Open(schema->conninfo);
  ASSERT_TRUE(greedy.ok()) << greedy.status();
  ASSERT_TRUE((*greedy)->Run("BEGIN").ok());
  // The key under which claims were made once.
  ASSERT_TRUE((*greedy)->Run("SELECT pg_advisory_lock(108200601805427)").ok());
  EXPECT_EQ(node.Run("sync", 10s)->status, RunStatus::kSucceeded);
  EXPECT_EQ(SqlState((*greedy)->Run("LOCK TABLE bulkhead_internal.instance IN ACCESS SHARE MODE").status()), "42501");
}

TEST_F(JobsTest, CatchingUpRunsTheLatestMissedTick) {
  Database database(conninfo_, 1);
  ASSERT_TRUE(database
                  .Run("INSERT INTO bulkhead_internal.runs (module, job, status, trigger, slot)"
                       " VALUES ('m', 'daily', 'SUCCEEDED', 'schedule', date_trunc('hour', now()) - interval '5 hours')")
                  .ok());
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
  ASSERT_TRUE(database
                  .Run("INSERT INTO bulkhead_internal.runs (module, job, status, trigger, queued_at, finished_at)"
                       " SELECT 'm', 'sync', 'SUCCEEDED', 'manual', now() - n * interval '1 minute', now() FROM "
                       "generate_series(1, 1500) AS n")
                  .ok());
  Node node("n1", conninfo_);
  node.Publish({Spec("sync")}, {{"m.0.a", port_}});
  port_->Answer([](std::shared_ptr<FakeRun> run) { run->Result("1"); });
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(node.Run("sync", 10s).ok());
  for (const Instant end = Clock::Real().Now() + 10s; Clock::Real().Now() < end && node.List("sync").total > 1'000;)
    std::this_thread::sleep_for(20ms);
  EXPECT_EQ(node.List("sync").total, 1'000);
  EXPECT_EQ(node.List("sync").runs[0].result_json, "1");
}

}  // namespace
}  // namespace bulkhead::jobs_testing
