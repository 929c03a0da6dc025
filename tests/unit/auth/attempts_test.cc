#include "supervisor/auth/attempts.h"

#include "gtest/gtest.h"
#include "supervisor/base/limits.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

class HandClock : public Clock {
 public:
  Instant Now() const override { return now; }
  WallTime Wall() const override { return WallTime(now.time_since_epoch()); }
  Instant now{std::chrono::hours(1000)};
};

class AttemptsTest : public testing::Test {
 protected:
  // Fails `times` and waits as long as it is told to; the last wait.
  Millis Fail(const std::string& key, int times) {
    for (int i = 0; i < times; ++i) {
      clock_.now += attempts_.Wait(key);
      EXPECT_EQ(attempts_.Begin(key), Millis(0));
    }
    return attempts_.Wait(key);
  }
  HandClock clock_;
  Attempts attempts_{clock_, 3};
};

TEST_F(AttemptsTest, TheFirstAreFreeThenTheWaitDoublesUpToItsCap) {
  EXPECT_EQ(Fail("a", 2), Millis(0));
  EXPECT_EQ(Fail("a", 1), limits::kAttemptPause);
  EXPECT_EQ(attempts_.Begin("a"), limits::kAttemptPause) << "a try within the wait is refused, and not counted";
  EXPECT_EQ(attempts_.Wait("a"), limits::kAttemptPause);
  EXPECT_EQ(Fail("a", 1), 2 * limits::kAttemptPause);
  EXPECT_EQ(Fail("a", 1), 4 * limits::kAttemptPause);
  EXPECT_EQ(Fail("a", 20), limits::kMaxAttemptPause);
  EXPECT_EQ(attempts_.Wait("b"), Millis(0)) << "others are not concerned";
}

TEST_F(AttemptsTest, ASuccessForgetsAndSoDoesTime) {
  Fail("a", 5);
  attempts_.Succeeded("a");
  EXPECT_EQ(attempts_.Wait("a"), Millis(0));
  EXPECT_EQ(Fail("a", 2), Millis(0));
  Fail("b", 4);
  clock_.now += attempts_.Wait("b") + limits::kAttemptMemory;
  EXPECT_EQ(Fail("b", 2), Millis(0));
}

TEST_F(AttemptsTest, ManyAtOnceAreCountedBeforeAnyHasFailed) {
  int made = 0;
  for (int i = 0; i < 50; ++i) made += attempts_.Begin("a") == Millis(0);
  EXPECT_EQ(made, 3);
}

TEST_F(AttemptsTest, WhatIsTakenBackLeavesOnlyTheOthers) {
  Fail("a", 2);
  for (int i = 0; i < 10; ++i) {
    clock_.now += attempts_.Wait("a");
    ASSERT_EQ(attempts_.Begin("a"), Millis(0));
    attempts_.TakeBack("a");
  }
  EXPECT_EQ(attempts_.Wait("a"), Millis(0));
  EXPECT_EQ(Fail("a", 1), limits::kAttemptPause);
}

TEST_F(AttemptsTest, TheTableIsBoundedAndForgetsWhoFailedLongestAgo) {
  Fail("first", 3);
  for (size_t i = 0; i < limits::kMaxAttemptKeys - 1; ++i) attempts_.Begin("key-" + std::to_string(i));
  EXPECT_GT(attempts_.Wait("first"), Millis(0));
  attempts_.Begin("one more");
  EXPECT_EQ(attempts_.Wait("first"), Millis(0));
}

TEST(AttemptAddress, IsTheHostAndOfIpv6TheNetwork) {
  EXPECT_EQ(AttemptAddress("192.0.2.1:5000"), "192.0.2.1");
  EXPECT_EQ(AttemptAddress("192.0.2.1"), "192.0.2.1");
  EXPECT_EQ(AttemptAddress("[2001:db8:1:2:3::1]:5000"), "2001:db8:1:2::/64");
  EXPECT_EQ(AttemptAddress("2001:db8:1:2:3::9"), "2001:db8:1:2::/64");
  EXPECT_EQ(AttemptAddress(""), "");
}

TEST(TooManyAttempts, SaysHowLongInWholeSeconds) {
  const absl::Status status = TooManyAttempts(Millis(1'001));
  EXPECT_EQ(ErrorCode(status), "TOO_MANY_ATTEMPTS");
  EXPECT_EQ(HttpStatus("TOO_MANY_ATTEMPTS"), 429);
  EXPECT_EQ(RetryAfter(status), 2);
  EXPECT_EQ(RetryAfter(TooManyAttempts(Millis(1))), 1);
}

}  // namespace
}  // namespace bulkhead
