// Order per key, what waits for what, and what has to be written of it.
#include "supervisor/events/lanes.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bulkhead {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;
using Kind = Verdict::Kind;

class LanesTest : public testing::Test {
 protected:
  void Add(int64_t id, const std::string& key) { lanes_.Add({.id = id, .topic = "a.b", .key = key, .payload_json = "{}"}, now_); }
  static std::vector<int64_t> Ids(const Lanes::Batch& batch) {
    std::vector<int64_t> ids;
    for (const PendingEvent& event : batch.events) ids.push_back(event.event.id);
    return ids;
  }
  Lanes::Batch Take(size_t most = 100) { return lanes_.Take(now_, most, 1 << 20); }
  void Settle(const Lanes::Batch& batch, Kind kind) {
    lanes_.Settle(batch.number, now_, [&](int64_t) { return Verdict{kind, "why"}; });
  }
  void Settle(const Lanes::Batch& batch, const std::map<int64_t, Kind>& kinds, Kind rest = Kind::kAck) {
    lanes_.Settle(batch.number, now_, [&](int64_t id) {
      auto found = kinds.find(id);
      return Verdict{found == kinds.end() ? rest : found->second, "why"};
    });
  }
  static std::vector<int64_t> Parked(const Settlement& settlement) {
    std::vector<int64_t> ids;
    for (const auto& row : settlement.parked) ids.push_back(row.id);
    return ids;
  }

  Lanes lanes_{Random(1)};
  Instant now_ = Instant(Millis(1'000'000));
};

TEST_F(LanesTest, EventsOfAKeyAreUnderWayInOneCallAtATimeAndThoseOfOthersGoBeside) {
  Add(1, "a");
  Add(2, "b");
  const auto first = Take();
  EXPECT_THAT(Ids(first), ElementsAre(1, 2));
  Add(3, "a");
  Add(4, "c");
  const auto second = Take();
  EXPECT_THAT(Ids(second), ElementsAre(4));
  Settle(first, Kind::kAck);
  EXPECT_THAT(Ids(Take()), ElementsAre(3));
  EXPECT_THAT(lanes_.TakeClosed(), UnorderedElementsAre(1, 2));
  EXPECT_TRUE(lanes_.TakeSettlement().empty());
}

TEST_F(LanesTest, ACallHoldsAKeysEventsInTheirOrder) {
  for (int64_t id = 1; id <= 6; ++id) Add(id, id % 2 ? "odd" : "even");
  EXPECT_THAT(Ids(Take()), ElementsAre(1, 3, 5, 2, 4, 6));
}

TEST_F(LanesTest, EventsWithoutAKeyDoNotWaitForEachOther) {
  Add(1, "");
  Add(2, "");
  EXPECT_THAT(Ids(Take(1)), ElementsAre(1));
  EXPECT_THAT(Ids(Take(1)), ElementsAre(2));
}

TEST_F(LanesTest, AFailureHoldsUpItsKeyAloneAndParksWhatStandsBehindIt) {
  Add(1, "a");
  Add(2, "a");
  Add(3, "b");
  Settle(Take(), {{1, Kind::kRetry}, {2, Kind::kReturned}});
  EXPECT_FALSE(lanes_.MayGo(now_));
  const Settlement settlement = lanes_.TakeSettlement();
  EXPECT_THAT(Parked(settlement), ElementsAre(1, 2));
  EXPECT_EQ(settlement.parked[0].attempt, 1);
  EXPECT_EQ(settlement.parked[0].error, "why");
  EXPECT_GE(settlement.parked[0].delay, limits::kDeliveryBackoff / 2);
  EXPECT_THAT(lanes_.TakeClosed(), UnorderedElementsAre(1, 2, 3));
  Add(4, "a");
  EXPECT_THAT(Parked(lanes_.TakeSettlement()), ElementsAre(4));
  ASSERT_TRUE(lanes_.NextDue());
  now_ = *lanes_.NextDue();
  const auto again = Take();
  EXPECT_THAT(Ids(again), ElementsAre(1, 2, 4));
  EXPECT_EQ(again.events[0].attempt, 1);
  Settle(again, Kind::kAck);
  EXPECT_THAT(lanes_.TakeSettlement().unparked, ElementsAre(1, 2, 4));
  EXPECT_EQ(lanes_.size(), 0u);
  EXPECT_EQ(lanes_.parked(), 0u);
  EXPECT_EQ(lanes_.bytes(), 0u);
}

TEST_F(LanesTest, WhatFailsTooOftenDiesAndTheNextOfItsKeyComes) {
  Add(1, "a");
  Add(2, "a");
  for (int i = 1; i < limits::kMaxDeliveryAttempts; ++i) {
    Settle(Take(), {{1, Kind::kRetry}, {2, Kind::kReturned}});
    lanes_.TakeSettlement();
    now_ = lanes_.NextDue().value();
  }
  const auto last = Take();
  Settle(last, {{1, Kind::kRetry}, {2, Kind::kReturned}});
  const Settlement settlement = lanes_.TakeSettlement();
  ASSERT_EQ(settlement.dead.size(), 1u);
  EXPECT_EQ(settlement.dead[0].event.event.id, 1);
  EXPECT_EQ(settlement.dead[0].event.attempt, limits::kMaxDeliveryAttempts);
  EXPECT_EQ(settlement.dead[0].error, "why");
  EXPECT_THAT(Ids(Take()), ElementsAre(2));
}

TEST_F(LanesTest, ADeadVerdictLetsTheNextOfItsKeyGoOnInTheSameCall) {
  Add(1, "a");
  Add(2, "a");
  Settle(Take(), {{1, Kind::kDead}});
  EXPECT_EQ(lanes_.TakeSettlement().dead.size(), 1u);
  EXPECT_EQ(lanes_.size(), 0u);
}

TEST_F(LanesTest, WhatIsReturnedGoesAgainAtOnceAndCountsNoAttempt) {
  Add(1, "a");
  for (int i = 0; i < 50; ++i) Settle(Take(), Kind::kReturned);
  EXPECT_TRUE(lanes_.TakeSettlement().empty());
  EXPECT_EQ(Take().events.at(0).attempt, 0);
}

TEST_F(LanesTest, AnEventThatWorkersDieWithIsTriedAloneAndAtLastGivenUp) {
  Add(1, "poison");
  Add(2, "innocent");
  for (int i = 0; i < limits::kLossesTillAlone; ++i) {
    const auto batch = Take();
    EXPECT_EQ(batch.events.size(), 2u);
    Settle(batch, Kind::kLost);
    if (lanes_.NextDue()) now_ = *lanes_.NextDue() + limits::kMaxDeliveryBackoff;
  }
  int calls = 0;
  while (lanes_.size() > 0 && ++calls < 100) {
    now_ += limits::kMaxDeliveryBackoff;
    const auto batch = Take();
    ASSERT_EQ(batch.events.size(), 1u);
    Settle(batch, batch.events[0].event.id == 1 ? Kind::kLost : Kind::kAck);
  }
  const Settlement settlement = lanes_.TakeSettlement();
  ASSERT_EQ(settlement.dead.size(), 1u);
  EXPECT_EQ(settlement.dead[0].event.event.key, "poison");
}

TEST_F(LanesTest, WhatIsTakenBackStandsBeforeLaterEventsOfItsKeyAndBehindWhatIsUnderWay) {
  Add(5, "a");
  const auto under_way = Take();
  Add(7, "a");
  lanes_.AddParked({.event = {.id = 3, .topic = "a.b", .key = "a"}}, Millis(0), now_);
  lanes_.AddParked({.event = {.id = 3, .topic = "a.b", .key = "a"}}, Millis(0), now_);
  Settle(under_way, Kind::kAck);
  EXPECT_THAT(Ids(Take()), ElementsAre(3, 7));
}

TEST_F(LanesTest, AParkedEventThatTheOutboxHasTooIsDeliveredOnce) {
  lanes_.AddParked({.event = {.id = 1, .topic = "a.b", .key = "a"}}, Millis(0), now_);
  Add(1, "a");
  Add(2, "b");
  lanes_.AddParked({.event = {.id = 2, .topic = "a.b", .key = "b"}}, Millis(0), now_);
  const auto batch = Take();
  EXPECT_THAT(Ids(batch), UnorderedElementsAre(1, 2));
  Settle(batch, Kind::kAck);
  EXPECT_THAT(lanes_.TakeSettlement().unparked, UnorderedElementsAre(1, 2));
  EXPECT_THAT(Ids(Take()), IsEmpty());
}

}  // namespace
}  // namespace bulkhead
