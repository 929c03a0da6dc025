// When a worker that has ended is started again: the burst, the backoff and the quarantine of one slot.
#include <gtest/gtest.h>

#include <cmath>

#include "supervisor/base/limits.h"
#include "supervisor/lifecycle/step.h"

namespace bulkhead {
namespace {

using namespace std::chrono_literals;

class BackoffTest : public ::testing::Test {
 protected:
  Millis Wait(Millis ready_for = 0ms) {
    Instant at = backoff.OnExit(policy, now, ready_for, random);
    return std::chrono::duration_cast<Millis>(at - now);
  }
  RestartPolicy policy;
  Random random{1};
  Backoff backoff;
  Instant now{std::chrono::hours(1)};
};

TEST_F(BackoffTest, TheBurstIsAnsweredAtOnceAndTheNextExitWaits) {
  for (int i = 0; i < policy.burst; ++i) EXPECT_EQ(Wait(), 0ms);
  EXPECT_GT(Wait(), 0ms);
  EXPECT_TRUE(backoff.waiting_long());
}

TEST_F(BackoffTest, ExitsFartherApartThanTheWindowNeverWait) {
  for (int i = 0; i < 100; ++i) {
    now += policy.window / policy.burst + 1ms;
    EXPECT_EQ(Wait(), 0ms);
  }
}

TEST_F(BackoffTest, WaitsDoubleUpToTheCapWithFullJitter) {
  for (int i = 0; i < policy.burst; ++i) Wait();
  for (int i = 0; i < 9; ++i) {
    Millis most = std::min(policy.base * (1 << i), policy.cap);
    Millis wait = Wait();
    EXPECT_LE(wait, most);
    EXPECT_GE(wait, most / 10 - 1ms);
    now += wait;
  }
}

TEST_F(BackoffTest, WaitsGrowByThePolicysFactorAndNeverBeyondItsCapHoweverManyThereAre) {
  policy.factor = 10;
  policy.cap = 3'600s;
  policy.quarantine_windows = 100'000;
  for (int i = 0; i < policy.burst; ++i) Wait();
  for (int i = 0; i < 2'000; ++i) {
    const Millis most = i < 4 ? std::min<Millis>(policy.base * static_cast<int>(std::pow(10, i)), policy.cap) : policy.cap;
    const Millis wait = Wait();
    EXPECT_LE(wait, most);
    EXPECT_GE(wait, most / 10 - 1ms);
  }
}

TEST_F(BackoffTest, WithoutABurstTheFirstExitWaitsAndEachOneCountsForTheQuarantine) {
  policy.burst = 0;
  EXPECT_GT(Wait(), 0ms);
  EXPECT_TRUE(backoff.waiting_long());
  Wait();
  EXPECT_FALSE(backoff.quarantined());
  Wait();
  EXPECT_TRUE(backoff.quarantined());
}

TEST_F(BackoffTest, ThePolicySaysHowLongAHealthySpellIs) {
  policy.reset_after = 5s;
  for (int i = 0; i < 8; ++i) Wait();
  EXPECT_GT(Wait(5s - 1ms), 0ms);
  EXPECT_EQ(Wait(5s), 0ms);
}

TEST_F(BackoffTest, ALongHealthySpellClearsTheSlate) {
  for (int i = 0; i < 8; ++i) Wait();
  EXPECT_GT(Wait(2 * policy.cap - 1ms), 0ms);
  EXPECT_EQ(Wait(2 * policy.cap), 0ms);
  EXPECT_FALSE(backoff.waiting_long());
}

TEST_F(BackoffTest, ThreeExhaustedWindowsWithinTheSpanQuarantineAndAreTriedSlowly) {
  int exits = 0;
  while (!backoff.quarantined() && exits < 100) {
    now += Wait();
    ++exits;
  }
  EXPECT_EQ(exits, policy.burst + 1 + 2 * policy.burst);
  EXPECT_GE(Wait(), policy.quarantine_retry / 10 - 1ms);
}

TEST_F(BackoffTest, OnlyAHealthySpellEndsAQuarantine) {
  while (!backoff.quarantined()) now += Wait();
  for (int i = 0; i < 100; ++i) {
    now += policy.quarantine_retry;
    Wait();
    EXPECT_TRUE(backoff.quarantined());
  }
  EXPECT_EQ(Wait(2 * policy.cap), 0ms);
  EXPECT_FALSE(backoff.quarantined());
}

}  // namespace
}  // namespace bulkhead
