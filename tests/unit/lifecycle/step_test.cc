#include "supervisor/lifecycle/step.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "supervisor/base/limits.h"

namespace bulkhead {
namespace {

using namespace std::chrono_literals;

template <typename T>
const T* Only(const std::vector<Action>& actions) {
  const T* found = nullptr;
  for (const Action& action : actions) {
    if (auto* one = std::get_if<T>(&action)) {
      EXPECT_EQ(found, nullptr) << "more than one";
      found = one;
    }
  }
  return found;
}

class StepTest : public ::testing::Test {
 protected:
  std::vector<Action> Send(const Event& event) { return Step(state, event, now); }
  // Wanted, prepared, with the first worker started: its run.
  uint64_t Started() {
    Send(event::Want{true, false, 1, 1});
    auto actions = Send(event::Prepared{true});
    return Only<action::StartWorker>(actions)->run;
  }
  uint64_t Running() {
    uint64_t run = Started();
    Send(event::WorkerReady{0, run});
    return run;
  }

  ModuleState state{7};
  Instant now{std::chrono::hours(1)};
};

TEST_F(StepTest, AWishIsPreparedBeforeAnythingIsStarted) {
  auto actions = Send(event::Want{true, false, 1, 2});
  EXPECT_NE(Only<action::Prepare>(actions), nullptr);
  EXPECT_EQ(Only<action::StartWorker>(actions), nullptr);
  EXPECT_EQ(state.observed, ObservedState::kStarting);
}

TEST_F(StepTest, ItRunsOnlyWhenEveryWorkerIsReady) {
  Send(event::Want{true, false, 1, 2});
  Send(event::Prepared{true});
  Send(event::WorkerReady{0, 1});
  EXPECT_EQ(state.observed, ObservedState::kStarting);
  Send(event::WorkerReady{1, 2});
  EXPECT_EQ(state.observed, ObservedState::kRunning);
}

TEST_F(StepTest, ACrashIsUnpublishedAtOnceAndRestartedWhenItsTreeIsGone) {
  uint64_t run = Running();
  auto died = Send(event::WorkerDied{0, run, ExitCause::kSignal, "ended by signal 9"});
  EXPECT_NE(Only<action::Publish>(died), nullptr);
  EXPECT_EQ(Only<action::StartWorker>(died), nullptr);
  EXPECT_EQ(state.reason.code, "SIGNAL");
  EXPECT_TRUE(Routed(state));
  auto gone = Send(event::WorkerGone{0, run});
  ASSERT_NE(Only<action::StartWorker>(gone), nullptr);
  EXPECT_EQ(state.slots[0].restarts, 1);
}

TEST_F(StepTest, AWorkerAtFaultServesOnAndIsDegradedForAWhile) {
  uint64_t run = Running();
  auto actions = Send(event::WorkerAtFault{0, run, "it answered twice"});
  EXPECT_EQ(state.observed, ObservedState::kDegraded);
  EXPECT_EQ(state.reason, (Reason{"LINK_FAULT", "it answered twice"}));
  EXPECT_TRUE(Listed(state.slots[0]));
  ASSERT_NE(Only<action::Wake>(actions), nullptr);
  EXPECT_EQ(Only<action::Wake>(actions)->at, now + limits::kFaultMemory);
  Send(event::WorkerHealthChanged{0, run, WorkerHealth::kHealthy, ""});
  EXPECT_EQ(state.observed, ObservedState::kDegraded) << "what it says of itself does not take it back";
  now += limits::kFaultMemory / 2;
  Send(event::WorkerAtFault{0, run, "it answered twice again"});
  now += limits::kFaultMemory - 1ms;
  Send(event::Tick{});
  EXPECT_EQ(state.observed, ObservedState::kDegraded);
  now += 1ms;
  Send(event::Tick{});
  EXPECT_EQ(state.observed, ObservedState::kRunning);
  EXPECT_EQ(state.reason, Reason{});
}

TEST_F(StepTest, AFaultIsForgottenWithItsProcess) {
  uint64_t run = Running();
  Send(event::WorkerAtFault{0, run, "it answered twice"});
  Send(event::WorkerDied{0, run, ExitCause::kExit, ""});
  auto gone = Send(event::WorkerGone{0, run});
  Send(event::WorkerAtFault{0, run, "told late"});
  Send(event::WorkerReady{0, Only<action::StartWorker>(gone)->run});
  EXPECT_EQ(state.observed, ObservedState::kRunning);
}

TEST_F(StepTest, AWorkerThatFloodsItsLogIsDegradedWhileItDoesAndSettledAndRoutedAllTheTime) {
  uint64_t run = Running();
  auto actions = Send(event::WorkerFloods{0, run, "1 line was dropped"});
  EXPECT_EQ(state.observed, ObservedState::kDegraded);
  EXPECT_EQ(state.reason, (Reason{"LOG_FLOOD", "1 line was dropped"}));
  EXPECT_NE(Only<action::Report>(actions), nullptr);
  EXPECT_EQ(Only<action::Publish>(actions), nullptr) << "nobody waits for anything else now";
  EXPECT_TRUE(Listed(state.slots[0]) && Settled(state) && Routed(state) && !StartsNow(state));
  ASSERT_NE(Only<action::Wake>(actions), nullptr);
  EXPECT_EQ(Only<action::Wake>(actions)->at, now + limits::kFloodMemory);
  now += 1s;
  EXPECT_EQ(Only<action::Report>(Send(event::WorkerFloods{0, run, "1 line was dropped"})), nullptr) << "it is told already";
  EXPECT_NE(Only<action::Report>(Send(event::WorkerFloods{0, run, "2 lines were dropped"})), nullptr);
  now += limits::kFloodMemory - 1ms;
  Send(event::Tick{});
  EXPECT_EQ(state.reason, (Reason{"LOG_FLOOD", "2 lines were dropped"}));
  now += 1ms;
  Send(event::Tick{});
  EXPECT_EQ(state.observed, ObservedState::kRunning);
  EXPECT_EQ(state.reason, Reason{});
}

TEST_F(StepTest, OfSeveralThingsThatAreWrongTheWorstIsToldAndNoneThatIsOver) {
  uint64_t run = Running();
  Send(event::WorkerHealthChanged{0, run, WorkerHealth::kDegraded, "database: slow"});
  Send(event::WorkerAtFault{0, run, "it answered twice"});
  Send(event::WorkerFloods{0, run, "1 line was dropped"});
  EXPECT_EQ(state.reason, (Reason{"HEALTH", "database: slow"}));
  Send(event::WorkerHealthChanged{0, run, WorkerHealth::kHealthy, ""});
  EXPECT_EQ(state.reason, (Reason{"LINK_FAULT", "it answered twice"}));
  now += limits::kFaultMemory - 1ms;
  Send(event::WorkerFloods{0, run, "2 lines were dropped"});
  now += 1ms;
  Send(event::Tick{});
  EXPECT_EQ(state.observed, ObservedState::kDegraded);
  EXPECT_EQ(state.reason, (Reason{"LOG_FLOOD", "2 lines were dropped"}));
}

TEST_F(StepTest, AFloodOfOneWorkerDoesNotHideWhyAnotherOneIsMissing) {
  Send(event::Want{true, false, 1, 2});
  Send(event::Prepared{true});
  Send(event::WorkerReady{0, 1});
  Send(event::WorkerReady{1, 2});
  Send(event::WorkerFloods{0, 1, "1 line was dropped"});
  Send(event::WorkerDied{1, 2, ExitCause::kHandshake, "no handshake", "", "HANDSHAKE_TIMEOUT"});
  Send(event::WorkerFloods{0, 1, "2 lines were dropped"});
  EXPECT_EQ(state.observed, ObservedState::kDegraded);
  EXPECT_EQ(state.reason, (Reason{"HANDSHAKE_TIMEOUT", "no handshake"}));
}

TEST_F(StepTest, ADisableUnroutesThenDrainsThenStops) {
  uint64_t run = Running();
  auto unwanted = Send(event::Want{false, false, 2, 1});
  EXPECT_FALSE(Routed(state));
  EXPECT_NE(Only<action::Publish>(unwanted), nullptr);
  EXPECT_NE(Only<action::DrainWorker>(unwanted), nullptr);
  EXPECT_EQ(Only<action::StopWorker>(unwanted), nullptr);
  EXPECT_NE(Only<action::StopWorker>(Send(event::WorkerDrained{0, run})), nullptr);
  Send(event::WorkerDied{0, run, ExitCause::kExit, ""});
  EXPECT_EQ(state.observed, ObservedState::kStopping);
  Send(event::WorkerGone{0, run});
  EXPECT_EQ(state.observed, ObservedState::kStopped);
}

TEST_F(StepTest, WhatWasOutOfOrderInAStopIsToldUntilItIsWantedAgain) {
  uint64_t run = Running();
  Send(event::Want{false, false, 2, 1});
  Send(event::WorkerDrained{0, run});
  Send(event::WorkerDied{0, run, ExitCause::kSignal, "ended by signal 9", "Stop did not answer within 5 ms"});
  Send(event::WorkerGone{0, run});
  EXPECT_EQ(state.observed, ObservedState::kStopped);
  EXPECT_EQ(state.reason, (Reason{"STOP_FAILED", "Stop did not answer within 5 ms"}));
  Send(event::Want{true, false, 3, 1});
  EXPECT_EQ(state.reason, Reason{});
}

TEST_F(StepTest, AnEnableDuringTheStopStartsAgainWhenTheOldProcessIsGone) {
  uint64_t run = Running();
  Send(event::Want{false, false, 2, 1});
  Send(event::Want{true, false, 3, 1});
  Send(event::Prepared{true});
  Send(event::WorkerDrained{0, run});
  Send(event::WorkerDied{0, run, ExitCause::kExit, ""});
  EXPECT_NE(Only<action::StartWorker>(Send(event::WorkerGone{0, run})), nullptr);
}

TEST_F(StepTest, OfFewerWorkersTheOnesBeyondAreDrainedAndTheirSlotsGo) {
  Send(event::Want{true, false, 1, 2});
  Send(event::Prepared{true});
  Send(event::WorkerReady{0, 1});
  Send(event::WorkerReady{1, 2});
  auto fewer = Send(event::Want{true, false, 2, 1});
  ASSERT_NE(Only<action::DrainWorker>(fewer), nullptr);
  EXPECT_EQ(Only<action::DrainWorker>(fewer)->run, 2u);
  EXPECT_EQ(state.observed, ObservedState::kRunning);
  EXPECT_NE(Only<action::StopWorker>(Send(event::WorkerDrained{1, 2})), nullptr);
  Send(event::WorkerDied{1, 2, ExitCause::kExit, ""});
  EXPECT_EQ(Only<action::StartWorker>(Send(event::WorkerGone{1, 2})), nullptr);
  EXPECT_EQ(state.slots.size(), 1u);
}

TEST_F(StepTest, WhenTheNodeClosesWhatRunsGoesOnAndNothingIsStarted) {
  uint64_t run = Running();
  Send(event::Close{});
  EXPECT_EQ(state.observed, ObservedState::kRunning);
  EXPECT_TRUE(Routed(state));
  Send(event::WorkerDied{0, run, ExitCause::kSignal, ""});
  EXPECT_EQ(Only<action::StartWorker>(Send(event::WorkerGone{0, run})), nullptr);
  EXPECT_EQ(state.observed, ObservedState::kStopping);
  EXPECT_FALSE(StartsNow(state));
  Send(event::Want{false, false, 2, 1});
  EXPECT_EQ(state.observed, ObservedState::kStopped);
}

TEST_F(StepTest, APreparationWithoutADatabaseIsNeverQuarantined) {
  Send(event::Want{true, false, 1, 1});
  for (int i = 0; i < 100; ++i) {
    auto away = Send(event::Prepared{false, true, {"DATABASE_UNAVAILABLE", ""}});
    auto* wake = Only<action::Wake>(away);
    ASSERT_NE(wake, nullptr);
    EXPECT_LE(wake->at - now, state.policy.cap);
    now = wake->at;
    ASSERT_NE(Only<action::Prepare>(Send(event::Tick{})), nullptr);
  }
}

TEST_F(StepTest, AWishAnewDuringAPreparationIsPreparedOnceMoreWhenThatEnds) {
  Send(event::Want{true, false, 1, 1});
  Send(event::Want{false, false, 2, 1});
  EXPECT_EQ(Only<action::Prepare>(Send(event::Want{true, false, 3, 1})), nullptr) << "two at once";
  auto old = Send(event::Prepared{false, false, {"MIGRATION_FAILED", "of a past wish"}});
  EXPECT_NE(Only<action::Prepare>(old), nullptr);
  EXPECT_EQ(state.observed, ObservedState::kStarting);
  EXPECT_NE(Only<action::StartWorker>(Send(event::Prepared{true})), nullptr);
}

TEST_F(StepTest, ThatAStartHasUsedUpItsAttemptsIsReportedAlthoughAnotherWorkerIsStillStarting) {
  Send(event::Want{true, false, 1, 2});
  Send(event::Prepared{true});
  uint64_t run = 1;
  for (int i = 0; i <= state.policy.burst; ++i) {
    EXPECT_FALSE(Settled(state));
    auto died = Send(event::WorkerDied{0, run, ExitCause::kExit, "exited with code 1"});
    if (i == state.policy.burst) {
      EXPECT_NE(Only<action::Report>(died), nullptr);
    }
    auto gone = Send(event::WorkerGone{0, run});
    if (auto* start = Only<action::StartWorker>(gone)) run = start->run;
  }
  EXPECT_EQ(state.observed, ObservedState::kStarting);
  EXPECT_TRUE(Settled(state));
}

TEST_F(StepTest, AStartThatTimesOutTooSlowlyForABackoffHasUsedUpItsAttemptsAllTheSame) {
  uint64_t run = Started();
  for (int i = 0; i <= state.policy.burst; ++i) {
    EXPECT_FALSE(Settled(state));
    now += limits::kStartTimeout;
    Send(event::WorkerDied{0, run, ExitCause::kStartTimeout, "Start did not answer"});
    auto gone = Send(event::WorkerGone{0, run});
    ASSERT_NE(Only<action::StartWorker>(gone), nullptr) << "at once, each time";
    run = Only<action::StartWorker>(gone)->run;
  }
  EXPECT_EQ(state.observed, ObservedState::kStarting);
  EXPECT_TRUE(Settled(state)) << "a boot does not wait for it any longer";
  Send(event::WorkerReady{0, run});
  EXPECT_EQ(state.observed, ObservedState::kRunning);
}

TEST_F(StepTest, AConfigurationErrorIsNotRetriedUntilSomethingChanges) {
  uint64_t run = Started();
  Send(event::WorkerDied{0, run, ExitCause::kConfig, "exited with code 125"});
  auto gone = Send(event::WorkerGone{0, run});
  EXPECT_EQ(Only<action::StartWorker>(gone), nullptr);
  EXPECT_EQ(Only<action::Wake>(gone), nullptr);
  EXPECT_EQ(state.observed, ObservedState::kFailed);
  EXPECT_NE(Only<action::StartWorker>(Send(event::Retry{})), nullptr);
}

TEST_F(StepTest, AFailedMigrationIsFinalAndALostDatabaseIsNot) {
  Send(event::Want{true, false, 1, 1});
  Send(event::Prepared{false, false, {"MIGRATION_FAILED", "002_x.sql line 3"}});
  EXPECT_EQ(state.observed, ObservedState::kFailed);
  EXPECT_EQ(state.reason.code, "MIGRATION_FAILED");
  EXPECT_NE(Only<action::Prepare>(Send(event::Retry{})), nullptr);
  auto away = Send(event::Prepared{false, true, {"DATABASE_UNAVAILABLE", ""}});
  auto* wake = Only<action::Wake>(away);
  ASSERT_NE(wake, nullptr);
  now = wake->at;
  EXPECT_NE(Only<action::Prepare>(Send(event::Tick{})), nullptr);
}

TEST_F(StepTest, AModuleWhoseFlagIsOffIsSkippedAndNotRouted) {
  EXPECT_EQ(Only<action::Prepare>(Send(event::Want{true, true, 1, 1})), nullptr);
  EXPECT_EQ(state.observed, ObservedState::kSkipped);
  EXPECT_FALSE(Routed(state));
}

TEST_F(StepTest, AnUnwellWorkerDegradesItAndAHealthyAnswerMendsIt) {
  uint64_t run = Running();
  Send(event::WorkerHealthChanged{0, run, WorkerHealth::kUnhealthy, "database: down"});
  EXPECT_EQ(state.observed, ObservedState::kDegraded);
  EXPECT_EQ(state.reason.message, "database: down");
  Send(event::WorkerHealthChanged{0, run, WorkerHealth::kHealthy, ""});
  EXPECT_EQ(state.observed, ObservedState::kRunning);
  EXPECT_EQ(state.reason.code, "");
}

TEST_F(StepTest, AWorkerThatIsNotReadyLeavesTheDirectoryAndComesBackInTheSameProcess) {
  const uint64_t run = Running();
  auto away = Send(event::WorkerReadiness{0, run, false, "database: down"});
  EXPECT_NE(Only<action::Publish>(away), nullptr);
  EXPECT_EQ(Only<action::DrainWorker>(away), nullptr) << "what it has in flight it may finish";
  EXPECT_FALSE(Listed(state.slots[0]));
  EXPECT_TRUE(Serves(state.slots[0]));
  EXPECT_EQ(state.observed, ObservedState::kDegraded);
  EXPECT_EQ(state.reason, (Reason{"NOT_READY", "database: down"}));
  EXPECT_FALSE(StartsNow(state)) << "nobody waits for a worker that may take long";
  EXPECT_EQ(Only<action::Publish>(Send(event::WorkerReadiness{0, run, false, "database: down"})), nullptr);
  Send(event::WorkerHealthChanged{0, run, WorkerHealth::kUnhealthy, "database: still down"});
  EXPECT_EQ(state.reason.code, "NOT_READY") << "the worst of what is wrong";
  Send(event::WorkerHealthChanged{0, run, WorkerHealth::kHealthy, ""});
  auto back = Send(event::WorkerReadiness{0, run, true, ""});
  EXPECT_NE(Only<action::Publish>(back), nullptr);
  EXPECT_TRUE(Listed(state.slots[0]));
  EXPECT_EQ(state.observed, ObservedState::kRunning);
  EXPECT_EQ(state.slots[0].restarts, 0);
}

TEST_F(StepTest, ThatItWasNotReadyIsForgottenWithItsProcess) {
  const uint64_t run = Running();
  Send(event::WorkerReadiness{0, run, false, "database: down"});
  Send(event::WorkerDied{0, run, ExitCause::kLiveness, "Health did not answer"});
  auto gone = Send(event::WorkerGone{0, run});
  Send(event::WorkerReadiness{0, run, false, "told late"});
  Send(event::WorkerReady{0, Only<action::StartWorker>(gone)->run});
  EXPECT_TRUE(Listed(state.slots[0]));
  EXPECT_EQ(state.observed, ObservedState::kRunning);
}

TEST_F(StepTest, ThePolicySaysWhichEndsAreAnsweredWithAStart) {
  struct Case {
    RestartWhen when;
    bool orderly, again;
  };
  for (const Case& one : {Case{RestartWhen::kAlways, true, true}, {RestartWhen::kAlways, false, true}, {RestartWhen::kOnFailure, true, false},
                          {RestartWhen::kOnFailure, false, true}, {RestartWhen::kNever, true, false}, {RestartWhen::kNever, false, false}}) {
    state = ModuleState(7);
    state.policy.when = one.when;
    const uint64_t run = Running();
    Send(event::WorkerDied{0, run, ExitCause::kExit, "it ended", "", "", one.orderly});
    auto gone = Send(event::WorkerGone{0, run});
    EXPECT_EQ(Only<action::StartWorker>(gone) != nullptr, one.again) << RestartWhenName(one.when) << one.orderly;
    EXPECT_EQ(state.observed, one.again ? ObservedState::kStarting : ObservedState::kFailed);
    EXPECT_EQ(state.reason.message.find("restart.policy is " + std::string(RestartWhenName(one.when))) != std::string::npos, !one.again);
    EXPECT_NE(Only<action::StartWorker>(one.again ? gone : Send(event::Retry{})), nullptr) << "a reset starts it in any case";
  }
}

TEST_F(StepTest, ARetryClearsBackoffQuarantineAndParkingOfAllSlotsAndTriesThemAtOnce) {
  Send(event::Want{true, false, 1, 3});
  Send(event::Prepared{true});
  std::vector<uint64_t> runs = {1, 2, 3};
  Send(event::WorkerDied{0, runs[0], ExitCause::kConfig, "exited with code 125"});
  Send(event::WorkerGone{0, runs[0]});
  while (!state.slots[1].backoff.quarantined()) {
    Send(event::WorkerDied{1, runs[1], ExitCause::kExit, ""});
    Send(event::WorkerGone{1, runs[1]});
    if (state.slots[1].backoff.quarantined()) break;
    if (state.slots[1].retry_at) now = *state.slots[1].retry_at;
    Send(event::Tick{});
    runs[1] = state.slots[1].run;
  }
  Send(event::WorkerReady{2, runs[2]});
  ASSERT_TRUE(state.slots[0].parked && state.slots[1].retry_at);
  EXPECT_EQ(state.slots[1].exits, (std::map<ExitCause, int>{{ExitCause::kExit, state.slots[1].restarts}}));
  std::vector<int> started;
  for (const Action& action : Send(event::Retry{})) {
    if (auto* start = std::get_if<action::StartWorker>(&action)) started.push_back(start->slot);
  }
  EXPECT_THAT(started, testing::ElementsAre(0, 1)) << "who serves is left alone";
  EXPECT_FALSE(state.slots[0].parked || state.slots[1].backoff.quarantined() || state.slots[1].retry_at);
}

TEST_F(StepTest, MoreWorkersAreStartedAtOnceAndThatIsWhyItIsNotComplete) {
  Running();
  auto more = Send(event::Want{true, false, 2, 3});
  EXPECT_EQ(std::count_if(more.begin(), more.end(), [](const Action& a) { return std::holds_alternative<action::StartWorker>(a); }), 2);
  EXPECT_EQ(state.observed, ObservedState::kDegraded);
  EXPECT_EQ(state.reason, (Reason{"SCALING", "it goes from 1 to 3 workers"}));
  Send(event::WorkerReady{1, 2});
  Send(event::WorkerReady{2, 3});
  EXPECT_EQ(state.observed, ObservedState::kRunning);
  EXPECT_EQ(state.reason, Reason{});
}

TEST_F(StepTest, EventsOfAnEarlierProcessChangeNothing) {
  uint64_t first = Running();
  Send(event::WorkerDied{0, first, ExitCause::kSignal, ""});
  Send(event::WorkerGone{0, first});
  Send(event::WorkerReady{0, first});
  EXPECT_EQ(state.slots[0].phase, SlotState::Phase::kStarting);
  EXPECT_TRUE(Send(event::WorkerDied{0, first, ExitCause::kSignal, ""}).empty());
}

TEST_F(StepTest, AnotherVersionTakesOverOnlyWhenAllItsWorkersAreReadyAndItIsToldTo) {
  const uint64_t old = Running();
  auto begun = Send(event::Replace{true, 2});
  std::vector<action::StartWorker> starts;
  for (const Action& action : begun) {
    if (auto* start = std::get_if<action::StartWorker>(&action)) starts.push_back(*start);
  }
  ASSERT_EQ(starts.size(), 2u);
  EXPECT_TRUE(starts[0].incoming && starts[1].incoming);
  EXPECT_EQ(starts[0].number, 0);
  EXPECT_EQ(starts[1].number, 1);
  EXPECT_EQ(state.observed, ObservedState::kRunning) << "the old one serves";
  EXPECT_EQ(Only<action::SuccessorsReady>(Send(event::WorkerReady{starts[0].slot, starts[0].run})), nullptr);
  EXPECT_FALSE(Listed(state.slots[static_cast<size_t>(starts[0].slot)]));
  auto ready = Send(event::WorkerReady{starts[1].slot, starts[1].run});
  EXPECT_NE(Only<action::SuccessorsReady>(ready), nullptr);
  EXPECT_EQ(Only<action::Publish>(ready), nullptr);
  auto taken = Send(event::TakeOver{});
  EXPECT_NE(Only<action::ReplaceDone>(taken), nullptr);
  EXPECT_NE(Only<action::Publish>(taken), nullptr);
  ASSERT_NE(Only<action::DrainWorker>(taken), nullptr);
  EXPECT_EQ(Only<action::DrainWorker>(taken)->run, old);
  EXPECT_FALSE(Listed(state.slots[0]));
  EXPECT_TRUE(Listed(state.slots[static_cast<size_t>(starts[0].slot)]) && Listed(state.slots[static_cast<size_t>(starts[1].slot)]));
  EXPECT_EQ(state.observed, ObservedState::kRunning);
  Send(event::WorkerDrained{0, old});
  Send(event::WorkerDied{0, old, ExitCause::kExit, ""});
  EXPECT_EQ(Only<action::StartWorker>(Send(event::WorkerGone{0, old})), nullptr) << "nobody takes its place";
  EXPECT_EQ(state.reason, Reason{});
}

TEST_F(StepTest, AVersionOfWhichOneWorkerDoesNotStartIsGivenUpAndTheOldOneServesOn) {
  const uint64_t old = Running();
  Send(event::Replace{true, 2});
  const SlotState first = state.slots[1], second = state.slots[2];
  Send(event::WorkerReady{1, first.run});
  auto died = Send(event::WorkerDied{2, second.run, ExitCause::kStartTimeout, "too slow"});
  ASSERT_NE(Only<action::ReplaceFailed>(died), nullptr);
  EXPECT_EQ(Only<action::ReplaceFailed>(died)->reason, (Reason{"START_TIMEOUT", "too slow"}));
  ASSERT_NE(Only<action::StopWorker>(died), nullptr);
  EXPECT_EQ(Only<action::StopWorker>(died)->run, first.run);
  EXPECT_EQ(Only<action::ReplaceDone>(Send(event::TakeOver{})), nullptr) << "there is nothing any more to take over";
  Send(event::WorkerGone{2, second.run});
  Send(event::WorkerDied{1, first.run, ExitCause::kExit, ""});
  Send(event::WorkerGone{1, first.run});
  EXPECT_EQ(state.slots.size(), 1u);
  EXPECT_EQ(state.slots[0].run, old);
  EXPECT_EQ(state.observed, ObservedState::kRunning);
  EXPECT_EQ(state.reason, Reason{});
}

TEST_F(StepTest, OneThatDiesWhileTheOthersWaitToTakeOverGivesItUp) {
  Running();
  Send(event::Replace{true, 1});
  const uint64_t run = state.slots[1].run;
  EXPECT_NE(Only<action::SuccessorsReady>(Send(event::WorkerReady{1, run})), nullptr);
  EXPECT_EQ(Only<action::ReplaceFailed>(Send(event::WorkerDied{1, run, ExitCause::kSignal, "gone"})), nullptr) << "who asked is answered first";
  auto taken = Send(event::TakeOver{});
  ASSERT_NE(Only<action::ReplaceFailed>(taken), nullptr);
  EXPECT_EQ(Only<action::ReplaceDone>(taken), nullptr);
  EXPECT_TRUE(Listed(state.slots[0]));
}

TEST_F(StepTest, AVersionOfWhichOneWorkerIsNotReadyAnyMoreBeforeItTakesOverIsGivenUp) {
  for (bool announced : {false, true}) {
    state = ModuleState(7);
    const uint64_t old = Running();
    Send(event::Replace{true, 2});
    const uint64_t first = state.slots[1].run, second = state.slots[2].run;
    Send(event::WorkerReady{1, first});
    if (announced) {
      EXPECT_NE(Only<action::SuccessorsReady>(Send(event::WorkerReady{2, second})), nullptr);
    }
    auto actions = Send(event::WorkerReadiness{1, first, false, "database: down"});
    if (announced) {
      EXPECT_EQ(Only<action::ReplaceFailed>(actions), nullptr) << "who asked is answered first";
      actions = Send(event::TakeOver{});
    }
    EXPECT_EQ(Only<action::Publish>(actions), nullptr) << "it has served nobody";
    ASSERT_NE(Only<action::ReplaceFailed>(actions), nullptr);
    EXPECT_EQ(Only<action::ReplaceFailed>(actions)->reason, (Reason{"NOT_READY", "database: down"}));
    EXPECT_EQ(std::count_if(actions.begin(), actions.end(), [](const Action& a) { return std::holds_alternative<action::StopWorker>(a); }), 2);
    EXPECT_EQ(state.slots[0].run, old);
    EXPECT_TRUE(Listed(state.slots[0]));
    EXPECT_EQ(state.observed, ObservedState::kRunning);
  }
}

TEST_F(StepTest, AWorkerThatIsNotReadyIsReplacedByARollingRestartToo) {
  const uint64_t old = Running();
  Send(event::WorkerReadiness{0, old, false, "database: down"});
  Send(event::Replace{});
  auto taken = Send(event::WorkerReady{1, state.slots[1].run});
  EXPECT_NE(Only<action::ReplaceDone>(taken), nullptr);
  ASSERT_NE(Only<action::DrainWorker>(taken), nullptr);
  EXPECT_EQ(Only<action::DrainWorker>(taken)->run, old);
  EXPECT_EQ(state.observed, ObservedState::kRunning);
}

TEST_F(StepTest, WithinTheSoakTimeAnExitOrBadHealthSpeaksAgainstTheNewVersionOnce) {
  for (const std::string what : {"SIGNAL", "LIVENESS", "HEALTH", "NOT_READY"}) {
    state = ModuleState(7);
    Running();
    Send(event::Replace{true, 1});
    const uint64_t run = state.slots[1].run;
    Send(event::WorkerReady{1, run});
    Send(event::TakeOver{10s});
    now += 9s;
    auto fault = what == "SIGNAL"     ? Send(event::WorkerDied{1, run, ExitCause::kSignal, "gone"})
                 : what == "LIVENESS" ? Send(event::WorkerDied{1, run, ExitCause::kLiveness, "silent"})
                 : what == "HEALTH"   ? Send(event::WorkerHealthChanged{1, run, WorkerHealth::kUnhealthy, "bad"})
                                      : Send(event::WorkerReadiness{1, run, false, "bad"});
    ASSERT_NE(Only<action::SoakFailed>(fault), nullptr);
    EXPECT_EQ(Only<action::SoakFailed>(fault)->reason.code, what);
    EXPECT_EQ(Only<action::SoakFailed>(Send(event::WorkerHealthChanged{1, run, WorkerHealth::kUnhealthy, "bad"})), nullptr);
  }
}

TEST_F(StepTest, AfterTheSoakTimeAFaultIsAFault) {
  Running();
  Send(event::Replace{true, 1});
  const uint64_t run = state.slots[1].run;
  Send(event::WorkerReady{1, run});
  Send(event::TakeOver{10s});
  now += 10s;
  EXPECT_EQ(Only<action::SoakFailed>(Send(event::WorkerDied{1, run, ExitCause::kSignal, "gone"})), nullptr);
}

TEST_F(StepTest, ARollingRestartHasOneSuccessorAtATimeAndNeverFewerWorkers) {
  Send(event::Want{true, false, 1, 3});
  Send(event::Prepared{true});
  for (int i = 0; i < 3; ++i) Send(event::WorkerReady{i, static_cast<uint64_t>(i + 1)});
  auto listed = [this] { return std::count_if(state.slots.begin(), state.slots.end(), Listed); };
  auto actions = Send(event::Replace{});
  for (int number = 0; number < 3; ++number) {
    const auto* start = Only<action::StartWorker>(actions);
    ASSERT_NE(start, nullptr);
    EXPECT_EQ(start->number, number);
    EXPECT_FALSE(start->incoming);
    EXPECT_EQ(listed(), 3);
    const auto copy = *start;
    actions = Send(event::WorkerReady{copy.slot, copy.run});
    EXPECT_EQ(listed(), 3);
    ASSERT_NE(Only<action::DrainWorker>(actions), nullptr);
    EXPECT_EQ(Only<action::DrainWorker>(actions)->run, static_cast<uint64_t>(number + 1));
  }
  EXPECT_NE(Only<action::ReplaceDone>(actions), nullptr);
  EXPECT_EQ(state.observed, ObservedState::kRunning);
}

TEST_F(StepTest, AStopEndsAReplacement) {
  for (const Event& stop : std::vector<Event>{event::Want{false, false, 2, 1}, event::Want{true, true, 2, 1}, event::Close{}}) {
    state = ModuleState(7);
    Running();
    Send(event::Replace{true, 1});
    auto actions = Send(stop);
    EXPECT_NE(Only<action::ReplaceFailed>(actions), nullptr);
    ASSERT_NE(Only<action::StopWorker>(actions), nullptr);
    EXPECT_EQ(Only<action::StopWorker>(actions)->slot, 1);
  }
}

}  // namespace
}  // namespace bulkhead
