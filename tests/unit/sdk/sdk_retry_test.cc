// Which calls are tried again, after how long, and how many at most.
#include "retry.h"

#include <gtest/gtest.h>

#include <random>

namespace bulkhead::sdk {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
constexpr RetryTokens::Time kFirst{std::chrono::hours(1)};

RetryQuestion After(AttemptEnd end, int status = 0) {
  return {.end = end, .status = status, .repeatable = true, .attempt = 1, .retries = 2, .left = seconds(30)};
}

TEST(Retry, OnlyWhatMayBeRepeatedIs) {
  for (const char* method : {"GET", "HEAD", "OPTIONS", "PUT", "DELETE"}) EXPECT_TRUE(IsIdempotent(method)) << method;
  for (const char* method : {"POST", "PATCH", "get", ""}) EXPECT_FALSE(IsIdempotent(method)) << method;
  RetryQuestion question = After(AttemptEnd::kNotConnected);
  EXPECT_TRUE(NextAttempt(question, 0.5));
  question.repeatable = false;
  EXPECT_FALSE(NextAttempt(question, 0.5));
}

TEST(Retry, ConnectionsTimeoutsAndTheStatusesOfAServiceThatIsAwayAreWorthAnotherAttempt) {
  for (AttemptEnd end : {AttemptEnd::kNotConnected, AttemptEnd::kLost, AttemptEnd::kTimedOut}) EXPECT_TRUE(NextAttempt(After(end), 0));
  for (AttemptEnd end : {AttemptEnd::kUnusable, AttemptEnd::kCancelled}) EXPECT_FALSE(NextAttempt(After(end), 0));
  for (int status = 200; status < 600; ++status) {
    const bool again = status == 502 || status == 503 || status == 504;
    EXPECT_EQ(NextAttempt(After(AttemptEnd::kAnswered, status), 0).has_value(), again) << status;
    RetryQuestion told = After(AttemptEnd::kAnswered, status);
    told.retry_after = seconds(1);
    EXPECT_EQ(NextAttempt(told, 0).has_value(), again || status == 429) << status;
  }
}

TEST(Retry, NoMoreThanTheSettingsAllow) {
  RetryQuestion question = After(AttemptEnd::kLost);
  question.attempt = 2;
  EXPECT_TRUE(NextAttempt(question, 0));
  question.attempt = 3;
  EXPECT_FALSE(NextAttempt(question, 0));
  question.retries = 0;
  question.attempt = 1;
  EXPECT_FALSE(NextAttempt(question, 0));
}

TEST(Retry, TheWaitIsAnyShareOfABoundThatDoubles) {
  std::mt19937 random(7);
  std::uniform_real_distribution<double> chance(0, 1);
  RetryQuestion question = After(AttemptEnd::kLost);
  question.retries = 20;
  milliseconds bound{100};
  for (question.attempt = 1; question.attempt <= 20; ++question.attempt, bound = std::min<milliseconds>(bound * 2, seconds(5))) {
    milliseconds least = seconds(60), most{0};
    for (int i = 0; i < 1'000; ++i) {
      const milliseconds wait = NextAttempt(question, chance(random)).value();
      least = std::min(least, wait);
      most = std::max(most, wait);
    }
    EXPECT_LT(most, bound);
    EXPECT_GT(most, bound * 9 / 10);
    EXPECT_LT(least, bound / 10);
  }
}

TEST(Retry, WhatTheServiceSaysIsWaitedForAndNoWaitOutlastsTheCall) {
  RetryQuestion question = After(AttemptEnd::kAnswered, 503);
  question.retry_after = seconds(4);
  EXPECT_EQ(NextAttempt(question, 0.99), seconds(4));
  question.left = seconds(4);
  EXPECT_FALSE(NextAttempt(question, 0));
  question = After(AttemptEnd::kLost);
  question.left = milliseconds(0);
  EXPECT_FALSE(NextAttempt(question, 0));
  question.left = milliseconds(-5);
  EXPECT_FALSE(NextAttempt(question, 0));
}

TEST(Retry, TheBudgetIsAFifthOfTheCallsAndOneASecond) {
  RetryTokens tokens;
  int taken = 0;
  for (int i = 0; i < 1'000; ++i) {  // an outage, all at one moment
    tokens.Called();
    taken += tokens.Take(kFirst);
  }
  EXPECT_GE(taken, 205);
  EXPECT_LE(taken, 211);
  taken = 0;
  for (int i = 0; i < 100; ++i) taken += tokens.Take(kFirst + seconds(i));  // nobody calls
  EXPECT_GE(taken, 98);
  EXPECT_LE(taken, 101);
  taken = 0;
  for (int i = 0; i < 100; ++i) taken += tokens.Take(kFirst + seconds(10'000));
  EXPECT_EQ(taken, 10);
  for (int i = 0; i < 100'000; ++i) tokens.Called();
  taken = 0;
  for (int i = 0; i < 1'000; ++i) taken += tokens.Take(kFirst + seconds(10'000));
  EXPECT_EQ(taken, 100);
}

TEST(Retry, RetryAfterIsSecondsOrADate) {
  const auto now = std::chrono::system_clock::from_time_t(784'111'777);  // Sun, 06 Nov 1994 08:49:37 GMT
  EXPECT_EQ(ParseRetryAfter("120", now), seconds(120));
  EXPECT_EQ(ParseRetryAfter(" 0 ", now), seconds(0));
  EXPECT_EQ(ParseRetryAfter("Sun, 06 Nov 1994 08:49:47 GMT", now), seconds(10));
  EXPECT_EQ(ParseRetryAfter("Sun, 06 Nov 1994 08:00:00 GMT", now), seconds(0));
  EXPECT_EQ(ParseRetryAfter("99999999999999999999", now), seconds(365LL * 24 * 3'600));
  for (const char* wrong : {"", "-1", "1.5", "soon", "1e3", "Sun, 06 Nov 1994 08:49:47 CET", "Sun, 06 Nov 1994 08:49:47 GMT x"})
    EXPECT_FALSE(ParseRetryAfter(wrong, now)) << wrong;
}

}  // namespace
}  // namespace bulkhead::sdk
