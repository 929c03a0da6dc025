// Runs that are claimed before a place is free for them: how many, where they begin, and that nothing of it is left when they do not.
#include "supervisor/jobs/ahead.h"
#include "tests/unit/jobs/jobs_harness.h"

namespace bulkhead::jobs_testing {
namespace {

using testing::ElementsAre;

JobSpec Short() {
  JobSpec spec = Spec("short");
  spec.concurrency = 200;
  return spec;
}

class AheadTest : public JobsTest {
 protected:
  // So that short runs are what the node has seen of the job.
  static void Warm(Node& node, FakePort& port) {
    port.Answer([](std::shared_ptr<FakeRun> run) { run->Result("null"); });
    Fill(node, 300);
    Await([&] { return Count(node, "status = 'SUCCEEDED'") == 300; });
    port.Answer(nullptr);
  }
  static void Fill(Node& node, int runs) {
    const auto queued = node.database().Run(
        "SELECT count(bulkhead_internal.enqueue_run('m', 'short', to_jsonb(n), NULL, NULL, NULL)), pg_notify('bulkhead_runs', '') FROM"
        " generate_series(1, $1::int) AS n",
        {std::to_string(runs)});
    ASSERT_TRUE(queued.ok()) << queued.status();
  }
  static int Count(Node& node, const std::string& where) {
    const auto rows = node.database().Run("SELECT count(*) AS n FROM bulkhead_internal.runs WHERE " + where);
    return rows.ok() ? static_cast<int>(rows->Int(0, "n")) : -1;
  }
  static void Await(const std::function<bool()>& condition) {
    const Instant end = Clock::Real().Now() + 15s;
    while (!condition()) {
      ASSERT_LT(Clock::Real().Now(), end) << "it does not come to that";
      std::this_thread::sleep_for(2ms);
    }
  }
  // Sixteen runs that have begun and do not end, and others that were claimed behind them; the ids of those.
  std::vector<std::string> Waiting(Node& node, size_t begun, int runs) {
    Fill(node, runs);
    std::vector<std::string> waiting;
    Await([&] {
      const auto rows = node.database().Run("SELECT id FROM bulkhead_internal.runs WHERE status = 'RUNNING'");
      std::set<std::string> begun_ones;
      for (size_t i = begun; i < port_->count(); ++i) begun_ones.insert(port_->Await(i)->request.run_id());
      if (!rows.ok() || port_->count() < begun + 16) return false;
      waiting.clear();
      for (int i = 0; i < rows->size(); ++i) {
        if (!begun_ones.contains(rows->Text(i, "id"))) waiting.push_back(rows->Text(i, "id"));
      }
      return !waiting.empty() || Count(node, "status = 'QUEUED'") == runs - 16;
    });
    return waiting;
  }
  static constexpr char kHandlers[] = R"([{"name":"short"}])";
};

TEST_F(AheadTest, ASlowRunHoldsNoneBackThatAnotherNodeCouldTake) {
  Node node("n1", conninfo_);
  node.Register(kHandlers);
  node.Publish({Short()}, {{"m.0.a", port_}});
  Warm(node, *port_);
  const size_t before = port_->count();
  Fill(node, 216);
  port_->Await(before + 15);
  Await([&] { return Count(node, "status = 'QUEUED' AND attempt = 0 AND started_at IS NULL AND error_code IS NULL") == 200; });
  EXPECT_EQ(port_->count(), before + 16) << "no more than the worker takes";
  EXPECT_EQ(Count(node, "status = 'RUNNING'"), 16) << "what waited for the slow ones was given back";
  Node other("n2", conninfo_);
  auto fast = std::make_shared<FakePort>();
  fast->Answer([](std::shared_ptr<FakeRun> run) { run->Result("null"); });
  other.Publish({Short()}, {{"m.1.b", fast}});
  Await([&] { return fast->count() == 200; });
  Await([&] { return Count(node, "status = 'SUCCEEDED' AND attempt = 1") == 500; });
}

TEST_F(AheadTest, WhatWaitsIsGivenBackAtOnceWhenItsModuleIsDisabled) {
  Node node("n1", conninfo_);
  node.Register(kHandlers);
  node.Publish({Short()}, {{"m.0.a", port_}});
  Warm(node, *port_);
  const size_t before = port_->count();
  Waiting(node, before, 100);
  node.Publish({Short()}, {});
  Await([&] { return Count(node, "status = 'QUEUED' AND attempt = 0 AND started_at IS NULL") == 84; });
  EXPECT_EQ(port_->count(), before + 16);
}

TEST_F(AheadTest, ARunThatWasNotBegunIsCancelledWithoutAWorker) {
  Node node("n1", conninfo_);
  node.Register(kHandlers);
  node.Publish({Short()}, {{"m.0.a", port_}});
  Warm(node, *port_);
  const size_t before = port_->count();
  const auto waiting = Waiting(node, before, 100);
  ASSERT_FALSE(waiting.empty()) << "none was claimed ahead";
  const auto run = node.Cancel(waiting.back(), 5s);
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(run->status, RunStatus::kCancelled);
  EXPECT_EQ(run->attempt, 0);
  EXPECT_EQ(port_->count(), before + 16);
  for (size_t i = before; i < port_->count(); ++i) EXPECT_FALSE(port_->Await(i)->cancelled);
}

TEST_F(AheadTest, AShutdownGivesBackWhatWaitsAndInterruptsWhatRuns) {
  Node node("n1", conninfo_);
  node.Register(kHandlers);
  node.Publish({Short()}, {{"m.0.a", port_}});
  Warm(node, *port_);
  Waiting(node, port_->count(), 100);
  node.Stop(0ms);
  EXPECT_EQ(Count(node, "status = 'QUEUED' AND attempt = 0"), 84);
  EXPECT_EQ(Count(node, "status = 'INTERRUPTED' AND error_code = 'SHUTDOWN'"), 16);
}

TEST_F(AheadTest, ShortRunsOfOneJobLeaveThePlacesOfTheirWorkerToAnother) {
  Node node("n1", conninfo_);
  node.Register(R"([{"name":"short"},{"name":"other"}])");
  node.Publish({Short(), Spec("other")}, {{"m.0.a", port_}});
  Warm(node, *port_);
  port_->Answer([](std::shared_ptr<FakeRun> run) { run->Result("null"); });
  Fill(node, 5'000);
  const auto other = node.Run("other", 10s);
  ASSERT_TRUE(other.ok());
  EXPECT_EQ(other->status, RunStatus::kSucceeded);
  EXPECT_GT(Count(node, "status = 'QUEUED'"), 0) << "it was not the last one";
}

TEST_F(AheadTest, TwoNodesTogetherKeepAJobWithinItsConcurrency) {
  JobSpec spec = Short();
  spec.concurrency = 20;
  std::atomic<int> now{0}, most{0};
  std::mutex mutex;
  std::vector<std::thread> threads;
  const auto work = [&](std::shared_ptr<FakeRun> run) {
    std::lock_guard lock(mutex);
    int seen = ++now;
    for (int m = most; seen > m && !most.compare_exchange_weak(m, seen);) {
    }
    threads.emplace_back([&now, run] {
      std::this_thread::sleep_for(2ms);
      --now;
      run->Result("null");
    });
  };
  auto second = std::make_shared<FakePort>();
  port_->Answer(work);
  second->Answer(work);
  {
    Node node("n1", conninfo_), other("n2", conninfo_);
    node.Register(kHandlers);
    node.Publish({spec}, {{"m.0.a", port_}});
    other.Publish({spec}, {{"m.1.b", second}});
    Fill(node, 1'000);
    Await([&] { return Count(node, "status = 'SUCCEEDED' AND attempt = 1") == 1'000; });
    for (std::thread& thread : threads) thread.join();
  }
  EXPECT_LE(most, 20);
  EXPECT_GT(most, 16) << "more than one node alone has places for";
}

TEST_F(AheadTest, OutcomesAreClosedTogetherAndAStaleFenceAmongThemChangesNothing) {
  Node node("n1", conninfo_);
  node.Register(kHandlers);
  Fill(node, 3);
  RunStore store(node.database(), "n1");
  const auto claimed = store.Claim({{.module = "m", .job = "short", .concurrency = 2, .capacity = 16, .wanted = 16, .ahead = 1, .instances = {"m.0.a"}}}, 16);
  ASSERT_TRUE(claimed.ok()) << claimed.status();
  ASSERT_EQ(claimed->size(), 3u) << "two that may run and one that waits";
  EXPECT_EQ((*claimed)[0].slots, 2);
  std::vector<FinishedRun> runs;
  for (const ClaimedRun& run : *claimed)
    runs.push_back({run.view.id, run.fence, "m.1.b", {.kind = RunOutcome::Kind::kFinal, .status = RunStatus::kSucceeded, .result_json = "7"}});
  runs[1].fence -= 1'000;
  runs[2].outcome = {.kind = RunOutcome::Kind::kUnbegun};
  const auto closed = store.Finish(runs);
  ASSERT_TRUE(closed.ok()) << closed.status();
  ASSERT_TRUE((*closed)[0] && (*closed)[2]);
  EXPECT_EQ((*closed)[0]->status, RunStatus::kSucceeded);
  EXPECT_EQ((*closed)[0]->result_json, "7");
  EXPECT_FALSE((*closed)[1]) << "somebody else's by now";
  EXPECT_EQ((*closed)[2]->status, RunStatus::kQueued);
  EXPECT_EQ((*closed)[2]->attempt, 0);
  EXPECT_EQ(store.Get(runs[0].id)->worker, "m.1.b") << "that ran it, whichever was planned";
  EXPECT_EQ(store.Get(runs[1].id)->status, RunStatus::kRunning);
}

TEST_F(AheadTest, ARunThatIsGivenBackWaitsUnderItsKeyUnlessAnotherOneDoes) {
  Node node("n1", conninfo_);
  node.Register(kHandlers);
  RunStore store(node.database(), "n1");
  const auto claim = [&] { return store.Claim({{.module = "m", .job = "short", .instances = {"m.0.a"}}}, 1)->at(0); };
  const auto give_back = [&](const ClaimedRun& run) { return store.Finish({{run.view.id, run.fence, "", {.kind = RunOutcome::Kind::kUnbegun}}}).ok(); };
  const auto first = store.Enqueue("m", {.job = "short", .unique_key = "k"});
  const ClaimedRun run = claim();
  ASSERT_TRUE(give_back(run));
  EXPECT_EQ(store.Enqueue("m", {.job = "short", .unique_key = "k"})->id, first->id);
  const ClaimedRun again = claim();
  const auto second = store.Enqueue("m", {.job = "short", .unique_key = "k"});
  EXPECT_TRUE(second->fresh);
  ASSERT_TRUE(give_back(again));
  EXPECT_EQ(store.Enqueue("m", {.job = "short", .unique_key = "k"})->id, second->id);
}

ClaimedRun Claimed(const std::string& id, int priority) {
  ClaimedRun run;
  run.view.module = "m";
  run.view.job = "j";
  run.view.id = id;
  run.view.priority = priority;
  return run;
}

TEST(Ahead, AsManyWaitAsTheLastRunsPromiseToBeginSoon) {
  Ahead ahead(Clock::Real());
  const JobKey key{"m", "j"};
  EXPECT_EQ(ahead.Allowance(key, 16), 0) << "nothing is known";
  ahead.Took(key, 20ms);
  EXPECT_EQ(ahead.Allowance(key, 16), 40);
  EXPECT_EQ(ahead.Allowance(key, 0), 0) << "no place moves";
  for (int i = 0; i < 100; ++i) ahead.Took(key, 10s);
  EXPECT_EQ(ahead.Allowance(key, 16), 0);
  for (int i = 0; i < 200; ++i) ahead.Took(key, 0ms);
  EXPECT_EQ(ahead.Allowance(key, 32), limits::kFewRunsAhead) << "that many have not begun lately";
  for (int i = 0; i < 400; ++i) {
    ahead.Put(Claimed("x", 0), Clock::Real().Now());
    ahead.Take(key);
  }
  EXPECT_GT(ahead.Allowance(key, 32), limits::kFewRunsAhead);
  EXPECT_LE(ahead.Allowance(key, 32), 600);
}

TEST(Ahead, AHigherPriorityOvertakesWhatWaits) {
  Ahead ahead(Clock::Real());
  for (const auto& [id, priority] : std::vector<std::pair<std::string, int>>{{"a", 0}, {"b", 0}, {"c", 5}, {"d", -1}, {"e", 5}})
    ahead.Put(Claimed(id, priority), Clock::Real().Now());
  std::vector<std::string> order;
  while (ahead.size() > 0) order.push_back(ahead.Take({"m", "j"}).run.view.id);
  EXPECT_THAT(order, ElementsAre("c", "e", "a", "b", "d"));
}

}  // namespace
}  // namespace bulkhead::jobs_testing
