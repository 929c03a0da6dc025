// The spare of a module: `warmSpare` as Step keeps it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "supervisor/lifecycle/step.h"

namespace bulkhead {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

class SpareTest : public ::testing::Test {
 protected:
  // Sends it, and keeps what comes of it in `actions`. The world is quick: what is drained is drained, and who is stopped ends.
  void Send(const Event& event) {
    actions = Step(state, event, now);
    for (const SlotState& slot : state.slots) spares_seen += slot.role == SlotState::Role::kSpare;
  }
  template <typename T>
  std::vector<T> All() const {
    std::vector<T> all;
    for (const Action& action : actions) {
      if (auto* one = std::get_if<T>(&action)) all.push_back(*one);
    }
    return all;
  }
  event::Want Wanted(int workers = 1, bool warm_spare = true) { return {true, false, ++generation, workers, warm_spare}; }

  SlotState* At(int number, SlotState::Role role) {
    for (SlotState& slot : state.slots) {
      if (slot.role == role && slot.number == number) return &slot;
    }
    return nullptr;
  }
  SlotState& Member(int number) {
    SlotState* slot = At(number, SlotState::Role::kMember);
    if (slot == nullptr) throw std::runtime_error("no member " + std::to_string(number));
    return *slot;
  }
  SlotState& Spare() {
    for (SlotState& slot : state.slots) {
      if (slot.role == SlotState::Role::kSpare) return slot;
    }
    throw std::runtime_error("no spare");
  }
  int Index(const SlotState& slot) const { return static_cast<int>(&slot - state.slots.data()); }
  std::vector<int> Numbers(bool (*which)(const SlotState&)) const {
    std::vector<int> numbers;
    for (const SlotState& slot : state.slots) {
      if (which(slot)) numbers.push_back(slot.number);
    }
    return numbers;
  }
  std::vector<int> Listed() const { return Numbers(bulkhead::Listed); }
  bool HasSpare() const {
    return std::any_of(state.slots.begin(), state.slots.end(), [](const SlotState& slot) { return slot.role == SlotState::Role::kSpare; });
  }

  void Ready(const SlotState& slot) { Send(event::WorkerReady{Index(slot), slot.run}); }
  void Die(const SlotState& slot, ExitCause cause = ExitCause::kSignal, bool orderly = false) {
    Send(event::WorkerDied{Index(slot), slot.run, cause, "it died", "", "", orderly});
  }
  void Go(int index, uint64_t run) { Send(event::WorkerGone{index, run}); }
  // Drained, stopped and gone, as it was asked for.
  void Leave(const SlotState& slot) {
    const int index = Index(slot);
    const uint64_t run = slot.run;
    Send(event::WorkerDrained{index, run});
    Send(event::WorkerDied{index, run});
    Go(index, run);
  }
  // All that start become ready, until none does.
  void Settle() {
    for (bool again = true; std::exchange(again, false);) {
      for (size_t i = 0; i < state.slots.size(); ++i) {
        if (state.slots[i].phase != SlotState::Phase::kStarting) continue;
        Ready(state.slots[i]);
        again = true;
      }
    }
  }
  void Running(int workers = 1) {
    Send(Wanted(workers));
    Send(event::Prepared{true});
    Settle();
  }

  ModuleState state{7};
  Instant now{std::chrono::hours(1)};
  std::vector<Action> actions;
  int64_t generation = 0;
  int spares_seen = 0;
};

TEST_F(SpareTest, IsStartedWhenTheOthersAreReadyAndIsListedNowhere) {
  Send(Wanted(2));
  Send(event::Prepared{true});
  EXPECT_EQ(All<action::StartWorker>().size(), 2u);
  Ready(Member(0));
  EXPECT_THAT(All<action::StartWorker>(), IsEmpty()) << "not before all are ready";
  Ready(Member(1));
  ASSERT_EQ(All<action::StartWorker>().size(), 1u);
  EXPECT_EQ(All<action::StartWorker>()[0].number, 2);
  EXPECT_EQ(state.observed, ObservedState::kRunning) << "it is complete without";
  Ready(Spare());
  EXPECT_EQ(All<action::Publish>().size(), 1u) << "as one that stands by";
  EXPECT_THAT(Listed(), ElementsAre(0, 1));
  EXPECT_TRUE(InService(Spare()) && StandsBy(Spare()));
}

TEST_F(SpareTest, ServesInTheSameStepInWhichAWorkerIsLost) {
  Running();
  SlotState& lost = Member(0);
  Die(lost);
  EXPECT_THAT(Listed(), ElementsAre(1));
  EXPECT_EQ(All<action::Publish>().size(), 1u);
  EXPECT_EQ(state.observed, ObservedState::kRunning);
  EXPECT_FALSE(StartsNow(state));
  EXPECT_EQ(&Spare(), &lost);
  EXPECT_EQ(Spare().number, 0) << "nobody changes his number";
  EXPECT_EQ(Spare().restarts, 1) << "nor his history";
  Go(Index(lost), lost.run);
  ASSERT_EQ(All<action::StartWorker>().size(), 1u) << "the next spare";
  EXPECT_EQ(All<action::StartWorker>()[0].number, 0);
  Ready(Spare());
  EXPECT_THAT(Listed(), ElementsAre(1));
  Die(Member(1));
  EXPECT_THAT(Listed(), ElementsAre(0));
}

TEST_F(SpareTest, TakesThePlaceOfAWorkerThatIsStillAwayWhenItIsReady) {
  Running(2);
  Die(Member(0));
  Die(Member(1));  // before there is another spare
  EXPECT_EQ(state.observed, ObservedState::kDegraded);
  EXPECT_THAT(Listed(), ElementsAre(2));
  SlotState &spare = Spare(), &lost = Member(1);
  Go(Index(spare), spare.run);
  EXPECT_THAT(All<action::StartWorker>(), IsEmpty()) << "never instead of a worker";
  Go(Index(lost), lost.run);
  Ready(lost);
  EXPECT_EQ(spare.phase, SlotState::Phase::kStarting);
  Die(lost);
  EXPECT_EQ(state.observed, ObservedState::kDegraded);
  Ready(spare);
  EXPECT_THAT(Listed(), UnorderedElementsAre(0, 2));
  EXPECT_EQ(state.observed, ObservedState::kRunning);
}

TEST_F(SpareTest, ThatFailsWaitsForItsOwnBackoffAndTheModuleRuns) {
  Running();
  state.soak_until = now + 1h;
  while (!Spare().backoff.waiting_long()) {
    Die(Spare(), ExitCause::kExit);
    EXPECT_THAT(All<action::Report>(), IsEmpty());
    EXPECT_THAT(All<action::SoakFailed>(), IsEmpty());
    Go(Index(Spare()), Spare().run);
  }
  EXPECT_EQ(state.observed, ObservedState::kRunning);
  EXPECT_EQ(state.reason, Reason{});
  EXPECT_FALSE(state.start_exhausted);
  EXPECT_FALSE(Member(0).backoff.waiting_long());
  EXPECT_EQ(Spare().exits[ExitCause::kExit], Spare().restarts);
  ASSERT_EQ(All<action::Wake>().size(), 1u);
  now = All<action::Wake>()[0].at;
  Send(event::Tick{});
  EXPECT_EQ(Spare().phase, SlotState::Phase::kStarting);
  Die(Spare(), ExitCause::kConfig);
  Go(Index(Spare()), Spare().run);
  EXPECT_TRUE(Spare().parked);
  EXPECT_EQ(state.observed, ObservedState::kRunning);
  Send(event::Retry{});
  EXPECT_EQ(Spare().phase, SlotState::Phase::kStarting);
}

TEST_F(SpareTest, ThatIsNotReadyAnyMoreTakesNoPlaceUntilItIsWell) {
  Running();
  Send(event::WorkerReadiness{Index(Spare()), Spare().run, false, "away"});
  EXPECT_EQ(state.observed, ObservedState::kRunning);
  EXPECT_TRUE(Unwell(Spare()));
  EXPECT_FALSE(StandsBy(Spare()));
  EXPECT_EQ(All<action::Publish>().size(), 1u);
  SlotState& spare = Spare();
  Die(Member(0));
  EXPECT_THAT(Listed(), IsEmpty());
  EXPECT_TRUE(StartsNow(state));
  Send(event::WorkerReadiness{Index(spare), spare.run, true, ""});
  EXPECT_THAT(Listed(), ElementsAre(1));
}

TEST_F(SpareTest, AnExitOfAWorkerSpeaksAgainstItsVersionAlthoughTheSpareServes) {
  Running();
  state.soak_until = now + 10s;
  Die(Member(0));
  EXPECT_EQ(All<action::SoakFailed>().size(), 1u);
  EXPECT_THAT(Listed(), ElementsAre(1));
}

TEST_F(SpareTest, TakesThePlaceOfAWorkerThatIsNotStartedAgain) {
  state.policy.when = RestartWhen::kOnFailure;
  Running();
  Die(Member(0), ExitCause::kExit, true);
  Go(Index(Spare()), Spare().run);
  EXPECT_EQ(state.observed, ObservedState::kRunning);
  EXPECT_THAT(Listed(), ElementsAre(1));
  EXPECT_TRUE(Spare().parked);
  EXPECT_THAT(All<action::StartWorker>(), IsEmpty());
}

TEST_F(SpareTest, ServesAtOnceWhenMoreAreWanted) {
  Running();
  Send(Wanted(3));
  EXPECT_THAT(Listed(), ElementsAre(0, 1));
  ASSERT_EQ(All<action::StartWorker>().size(), 1u) << "the third, and its spare behind it";
  Settle();
  EXPECT_THAT(Listed(), UnorderedElementsAre(0, 1, 3));
  EXPECT_EQ(state.observed, ObservedState::kRunning);
  EXPECT_TRUE(InService(Spare()));
}

TEST_F(SpareTest, IsOneOfThoseThatServedWhenFewerAreWanted) {
  Running(3);
  Die(Member(0));  // 1, 2 and 3 serve, 0 is the spare
  Go(Index(Spare()), Spare().run);
  Settle();
  EXPECT_EQ(Spare().number, 0);
  Die(Member(1));  // 0, 2 and 3
  Go(Index(Spare()), Spare().run);
  Settle();
  Die(Member(2));  // 0, 1 and 3, of which 3 leaves, and so does the spare
  EXPECT_EQ(Spare().number, 2);
  Go(Index(Spare()), Spare().run);
  Settle();
  Send(Wanted(1));
  EXPECT_THAT(Listed(), ElementsAre(0));
  EXPECT_EQ(Spare().number, 1);
  EXPECT_TRUE(InService(Spare())) << "it is the process that served";
  EXPECT_EQ(All<action::DrainWorker>().size(), 2u);
  EXPECT_THAT(All<action::StartWorker>(), IsEmpty());
  EXPECT_EQ(state.observed, ObservedState::kRunning);
}

TEST_F(SpareTest, StopsWithTheOthers) {
  for (const Event& stop : std::vector<Event>{event::Want{false, false, 2, 1, true}, event::Want{true, true, 2, 1, true}}) {
    state = ModuleState(7);
    Running();
    Send(stop);
    EXPECT_EQ(All<action::DrainWorker>().size(), 2u);
    EXPECT_EQ(state.observed, ObservedState::kStopping);
    Leave(Member(0));
    EXPECT_EQ(state.observed, ObservedState::kStopping) << "it is still there";
    Leave(Spare());
    EXPECT_NE(state.observed, ObservedState::kStopping);
    EXPECT_THAT(All<action::StartWorker>(), IsEmpty());
    Send(Wanted());
    Send(event::Prepared{true});
    ASSERT_EQ(All<action::StartWorker>().size(), 1u);
    EXPECT_EQ(All<action::StartWorker>()[0].number, 0);
    Settle();
    EXPECT_TRUE(InService(Spare()));
  }
}

TEST_F(SpareTest, ServesWhileTheNodeClosesAndHasNoSuccessor) {
  Running();
  Send(event::Close{});
  Die(Member(0));
  EXPECT_THAT(Listed(), ElementsAre(1));
  Go(Index(Spare()), Spare().run);
  EXPECT_THAT(All<action::StartWorker>(), IsEmpty());
  EXPECT_EQ(state.observed, ObservedState::kRunning);
}

TEST_F(SpareTest, OfAnOldVersionLeavesWithItAndTheNewOneGetsItsOwn) {
  Running();
  Send(event::Replace{true, 1});
  Die(Spare());
  Go(Index(Spare()), Spare().run);
  EXPECT_THAT(All<action::StartWorker>(), IsEmpty()) << "there are enough processes now";
  Send(event::KeepOld{{"", ""}});
  EXPECT_EQ(Spare().phase, SlotState::Phase::kStarting);
  while (SlotState* given_up = At(0, SlotState::Role::kLeaving)) {
    Send(event::WorkerDied{Index(*given_up), given_up->run});
    Go(Index(*given_up), given_up->run);
  }
  Settle();
  Send(event::Replace{true, 1});
  Ready(*At(0, SlotState::Role::kSuccessor));
  Send(event::TakeOver{0ms, true});
  EXPECT_EQ(All<action::DrainWorker>().size(), 2u);
  EXPECT_THAT(All<action::StartWorker>(), IsEmpty()) << "the old one still has its number";
  EXPECT_THAT(Listed(), ElementsAre(0));
  Leave(*At(1, SlotState::Role::kLeaving));
  ASSERT_EQ(All<action::StartWorker>().size(), 1u);
  EXPECT_EQ(All<action::StartWorker>()[0].number, 1);
  EXPECT_FALSE(All<action::StartWorker>()[0].incoming);
}

TEST_F(SpareTest, OfAVersionThatHasNoneIsNotKept) {
  Running();
  Send(event::Replace{true, 2});
  Settle();
  Send(event::TakeOver{0ms, false});
  EXPECT_FALSE(HasSpare());
  EXPECT_THAT(Listed(), UnorderedElementsAre(0, 1));
}

TEST_F(SpareTest, IsRestartedWithoutASuccessorWhenAllOthersAreReplaced) {
  Running();
  const uint64_t old_spare = Spare().run;
  Send(event::Replace{});
  Ready(*At(0, SlotState::Role::kSuccessor));
  EXPECT_EQ(All<action::ReplaceDone>().size(), 1u);
  EXPECT_EQ(All<action::DrainWorker>().size(), 2u) << "the old worker, and the spare";
  EXPECT_THAT(Listed(), ElementsAre(0));
  Leave(Spare());
  EXPECT_EQ(All<action::StartWorker>().size(), 1u);
  EXPECT_GT(Spare().run, old_spare);
  EXPECT_EQ(state.observed, ObservedState::kRunning);
}

TEST_F(SpareTest, ThatTakesOverDuringARollingRestartIsReplacedAsWell) {
  Running();
  const uint64_t old_spare = Spare().run;
  Send(event::Replace{});
  Die(Member(0));
  EXPECT_THAT(Listed(), ElementsAre(1));
  Ready(*At(0, SlotState::Role::kSuccessor));
  EXPECT_EQ(Spare().number, 0) << "what was started for the worker that was lost";
  EXPECT_TRUE(InService(Spare()));
  ASSERT_NE(At(1, SlotState::Role::kSuccessor), nullptr);
  Ready(*At(1, SlotState::Role::kSuccessor));
  EXPECT_THAT(Listed(), ElementsAre(1));
  EXPECT_NE(Member(1).run, old_spare);
  EXPECT_EQ(All<action::ReplaceDone>().size(), 1u);
}

TEST_F(SpareTest, IsTheFirstToBeReloadedAndServesWhileEachOfTheOthersIs) {
  Running();
  Send(event::Restart{{0, 1}});
  ASSERT_EQ(All<action::DrainWorker>().size(), 1u);
  EXPECT_EQ(All<action::DrainWorker>()[0].slot, Index(Spare()));
  Leave(Spare());
  Ready(Spare());
  EXPECT_THAT(Listed(), ElementsAre(1)) << "in the Step in which the other one goes";
  EXPECT_EQ(All<action::DrainWorker>().size(), 1u);
  Leave(Spare());
  Ready(Spare());
  EXPECT_THAT(All<action::DrainWorker>(), IsEmpty());
  EXPECT_THAT(Listed(), ElementsAre(1));
  EXPECT_EQ(Spare().number, 0);
}

TEST_F(SpareTest, NeverWasOfAModuleThatDoesNotAskForOne) {
  Send(Wanted(2, false));
  Send(event::Prepared{true});
  Settle();
  Die(Member(0));
  Go(0, state.slots[0].run);
  Settle();
  EXPECT_EQ(spares_seen, 0);
  EXPECT_THAT(Listed(), ElementsAre(0, 1));
}

}  // namespace
}  // namespace bulkhead
