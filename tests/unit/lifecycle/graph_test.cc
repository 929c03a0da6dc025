#include "supervisor/lifecycle/graph.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace bulkhead {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

GraphNode Node(std::string version, bool enabled, std::vector<DependencySpec> dependencies = {}) {
  return {std::move(version), enabled, std::move(dependencies)};
}

TEST(GraphTest, NamesEachDependencyThatIsMissingDisabledOrOfTheWrongVersion) {
  Graph graph = {{"orders", Node("1.0.0", false, {{"pricing", "^2.0.0"}, {"stock", "*"}, {"users", "1.x"}, {"mail", "*"}})},
                 {"pricing", Node("1.9.0", true)},
                 {"stock", Node("1.0.0", false)},
                 {"users", Node("1.4.0", true)}};
  auto details = UnsatisfiedDependencies(graph, "orders");
  ASSERT_EQ(details.size(), 3u);
  EXPECT_EQ(details[0].code, "WRONG_VERSION");
  EXPECT_EQ(details[0].message, "pricing is 1.9.0, needed is ^2.0.0");
  EXPECT_EQ(details[1].code, "DISABLED");
  EXPECT_EQ(details[1].message, "stock 1.0.0 is not enabled, needed is *");
  EXPECT_EQ(details[2].code, "MISSING");
}

TEST(GraphTest, NamesThisSupervisorWhenTheModuleIsForAnotherOne) {
  Graph graph = {{"a", Node("1.0.0", true)}};
  graph.at("a").bulkhead_range = ">=0.1.0";
  EXPECT_THAT(UnsatisfiedDependencies(graph, "a"), IsEmpty());
  graph.at("a").bulkhead_range = ">=99.0.0";
  auto details = UnsatisfiedDependencies(graph, "a");
  ASSERT_EQ(details.size(), 1u);
  EXPECT_EQ(details[0].path, "/dependencies/system/bulkhead");
  EXPECT_THAT(details[0].message, ::testing::StartsWith("module a 1.0.0 needs bulkhead >=99.0.0, this is "));
}

TEST(GraphTest, AModuleForAnotherSupervisorIsNotStartedAndNotTriedAgainAndAgain) {
  Graph graph = {{"a", Node("1.0.0", true)}};
  graph.at("a").bulkhead_range = ">=99.0.0";
  graph.at("a").standing = {ObservedState::kFailed, true, true, false, true};
  EXPECT_EQ(JudgeDependencies(graph, "a").reason.code, "DEPENDENCY_UNSATISFIED");
  EXPECT_THAT(Unblocked(graph), IsEmpty());
}

TEST(GraphTest, FindsDependentsAndTellsEnabledOnesApart) {
  Graph graph = {{"a", Node("1.0.0", true)}, {"b", Node("1.0.0", true, {{"a", "*"}})}, {"c", Node("1.0.0", false, {{"a", "*"}})}};
  EXPECT_THAT(Dependents(graph, "a", false), ElementsAre("b", "c"));
  EXPECT_THAT(Dependents(graph, "a", true), ElementsAre("b"));
  EXPECT_THAT(Dependents(graph, "b", false), IsEmpty());
}

TEST(GraphTest, ShowsACycleAsItsPath) {
  Graph graph = {{"a", Node("1.0.0", true, {{"b", "*"}})},
                 {"b", Node("1.0.0", true, {{"c", "*"}})},
                 {"c", Node("1.0.0", true, {{"a", "*"}})},
                 {"d", Node("1.0.0", true, {{"a", "*"}})}};
  EXPECT_THAT(*FindCycle(graph, "a"), ElementsAre("a", "b", "c", "a"));
  EXPECT_FALSE(FindCycle(graph, "d").has_value());
}

using What = DependencyVerdict::What;

// Running modules a ← b ← c, and d alone.
class OrderTest : public ::testing::Test {
 protected:
  OrderTest() {
    graph = {{"a", Node("1.0.0", true)},
             {"b", Node("1.0.0", true, {{"a", "*"}})},
             {"c", Node("1.0.0", true, {{"b", "*"}})},
             {"d", Node("1.0.0", true)}};
    for (auto& [name, node] : graph) node.standing = {ObservedState::kRunning, true, true, true, false};
  }
  void Gone(const std::string& name) { graph.at(name).standing = {}; }
  Standing& At(const std::string& name) { return graph.at(name).standing; }

  Graph graph;
};

TEST_F(OrderTest, AModuleStartsWhenAllThatItDependsOnRunsEvenUnwell) {
  EXPECT_EQ(JudgeDependencies(graph, "b").what, What::kStart);
  At("a").observed = ObservedState::kDegraded;
  EXPECT_EQ(JudgeDependencies(graph, "b").what, What::kStart);
  EXPECT_EQ(JudgeDependencies(graph, "d").what, What::kStart);
}

TEST_F(OrderTest, ItWaitsForAStartAndFailsWithWhatIsNotStartingAnyMore) {
  At("a") = {ObservedState::kStarting, false, true, true, false};
  EXPECT_EQ(JudgeDependencies(graph, "b").what, What::kWait);
  At("a") = {ObservedState::kQuarantined, true, true, false, false};
  DependencyVerdict verdict = JudgeDependencies(graph, "b");
  EXPECT_EQ(verdict.what, What::kFail);
  EXPECT_EQ(verdict.reason, (Reason{"DEPENDENCY_FAILED", "it depends on a, which is QUARANTINED"}));
}

TEST_F(OrderTest, OneThatHasFailedCountsMoreThanAnotherThatIsStarting) {
  graph["e"] = Node("1.0.0", true, {{"a", "*"}, {"d", "*"}});
  At("e").wanted = true;
  At("a") = {ObservedState::kStarting, false, true, true, false};
  At("d") = {ObservedState::kFailed, true, true, false, false};
  EXPECT_EQ(JudgeDependencies(graph, "e").reason.code, "DEPENDENCY_FAILED");
}

TEST_F(OrderTest, ItFailsWithADependencyThatIsDisabledAndWithACycle) {
  graph.at("a").enabled = false;
  EXPECT_EQ(JudgeDependencies(graph, "b").reason, (Reason{"DEPENDENCY_UNSATISFIED", "a 1.0.0 is not enabled, needed is *"}));
  graph.at("a").enabled = true;
  graph.at("a").dependencies = {{"c", "*"}};
  EXPECT_EQ(JudgeDependencies(graph, "a").reason.message, "the dependencies form a cycle: a -> c -> b -> a");
}

TEST_F(OrderTest, ACycleIsShownAlsoWhereADependencyInItIsDisabled) {
  graph.at("a").enabled = graph.at("b").enabled = false;
  graph.at("a").dependencies = {{"c", "*"}};
  EXPECT_EQ(JudgeDependencies(graph, "c").reason, (Reason{"DEPENDENCY_CYCLE", "the dependencies form a cycle: c -> b -> a -> c"}));
}

TEST_F(OrderTest, WhatNobodyWantsAnyMoreIsNotStarted) {
  At("b") = {ObservedState::kStopped, true, false, false, false};
  EXPECT_EQ(JudgeDependencies(graph, "b").what, What::kWait);
  At("b") = {ObservedState::kSkipped, true, true, false, false};
  EXPECT_EQ(JudgeDependencies(graph, "b").what, What::kWait);
}

TEST_F(OrderTest, ABlockedModuleIsTriedAgainWhenAllThatItDependsOnRuns) {
  At("b") = {ObservedState::kFailed, true, true, false, true};
  At("a") = {ObservedState::kStarting, false, true, true, false};
  EXPECT_THAT(Unblocked(graph), IsEmpty());
  At("a") = {ObservedState::kRunning, true, true, true, false};
  EXPECT_THAT(Unblocked(graph), ElementsAre("b"));
}

TEST_F(OrderTest, AModuleIsBlockedOnlyByAnother) {
  ModuleState state(1);
  Step(state, event::Want{true, false, 1, 1}, Instant());
  Step(state, event::Prepared{false, false, {"MIGRATION_FAILED", "line 3"}}, Instant());
  EXPECT_FALSE(StandingOf(state).blocked);
  Step(state, event::Retry{}, Instant());
  Step(state, event::Prepared{false, false, {"DEPENDENCY_FAILED", "it depends on a"}}, Instant());
  EXPECT_TRUE(StandingOf(state).blocked);
  EXPECT_TRUE(StandingOf(state).wanted);
  EXPECT_FALSE(StandingOf(state).present);
}

TEST_F(OrderTest, ANodeStopsDependentsFirstAndIndependentOnesAtOnce) {
  EXPECT_THAT(StopNext(graph), ElementsAre("c", "d"));
  At("c").wanted = At("d").wanted = false;  // they are leaving
  EXPECT_THAT(StopNext(graph), IsEmpty());
  Gone("c");
  EXPECT_THAT(StopNext(graph), ElementsAre("b"));
  Gone("b");
  Gone("d");
  EXPECT_FALSE(NothingLeft(graph));
  EXPECT_THAT(StopNext(graph), ElementsAre("a"));
  Gone("a");
  EXPECT_TRUE(NothingLeft(graph));
}

TEST_F(OrderTest, AModuleWithoutAProcessStopsAtOnceAndHoldsWhatItStandsBetween) {
  At("b") = {ObservedState::kBackoff, true, true, false, false};
  EXPECT_THAT(StopNext(graph), ElementsAre("c", "d"));  // c may reach a, by way of b
  Gone("c");
  EXPECT_THAT(StopNext(graph), ElementsAre("a", "b", "d"));
}

TEST_F(OrderTest, ModulesThatNeverStartedForACycleDoNotHoldUpTheEnd) {
  Graph cycle = {{"a", Node("1.0.0", true, {{"b", "*"}})}, {"b", Node("1.0.0", true, {{"a", "*"}})}};
  for (auto& [name, node] : cycle) node.standing = {ObservedState::kFailed, true, true, false, true};
  EXPECT_THAT(StopNext(cycle), ElementsAre("a", "b"));
}

TEST(TimeLeftTest, WithoutAnEndEverybodyHasWhatItAsksFor) {
  EXPECT_EQ(TimeLeft().ToDrain(Millis(10'000), Instant()), Millis(10'000));
  EXPECT_EQ(TimeLeft().ToStop(Millis(35'000), Instant()), Millis(35'000));
}

TEST(TimeLeftTest, BeforeAnEndADrainLeavesTimeForTheStop) {
  TimeLeft left{Instant(Millis(9'000))};
  EXPECT_EQ(left.ToDrain(Millis(10'000), Instant()), Millis(3'000));
  EXPECT_EQ(left.ToDrain(Millis(10), Instant()), Millis(10));
  EXPECT_EQ(left.ToStop(Millis(35'000), Instant()), Millis(9'000));
  EXPECT_EQ(left.ToStop(Millis(35'000), Instant(Millis(9'001))), Millis(0));
}

}  // namespace
}  // namespace bulkhead
