// The pure part: counters, spans of time, and times as text.
#include "domain/consumption.h"

#include <gmock/gmock.h>

#include "domain/period.h"
#include "domain/timestamp.h"

namespace consumption {
namespace {

using std::chrono::seconds;

Timestamp At(const char* text) { return ParseTimestamp(text).value(); }
const Timestamp kStart = At("2026-01-31T23:59:00Z");

std::optional<CounterStep> Step(CounterPoint previous, CounterPoint current, seconds apart = seconds(60)) {
  previous.at = kStart;
  current.at = kStart + apart;
  return StepBetween(previous, current);
}

TEST(Counter, GrowsByItsDifference) {
  const auto step = Step({.value = 100, .epoch = "a"}, {.value = 160, .epoch = "a"});
  ASSERT_TRUE(step);
  EXPECT_DOUBLE_EQ(step->consumed, 60);
  EXPECT_DOUBLE_EQ(step->seconds, 60);
}

TEST(Counter, AfterARebootAllOfItIsNewEvenWhenItIsHigherThanBefore) {
  EXPECT_DOUBLE_EQ(Step({.value = 100, .epoch = "a"}, {.value = 30, .epoch = "b"})->consumed, 30);
  EXPECT_DOUBLE_EQ(Step({.value = 100, .epoch = "a"}, {.value = 130, .epoch = "b"})->consumed, 130);
}

TEST(Counter, AFallWithinOneBootIsAPartThatLeftAndConsumesNothing) {
  EXPECT_DOUBLE_EQ(Step({.value = 100, .epoch = "a"}, {.value = 30, .epoch = "a"})->consumed, 0);
}

TEST(Counter, WithoutAKnownBootAFallIsAReset) {
  EXPECT_DOUBLE_EQ(Step({.value = 100}, {.value = 30})->consumed, 30);
  EXPECT_DOUBLE_EQ(Step({.value = 100}, {.value = 130})->consumed, 30);
  EXPECT_DOUBLE_EQ(Step({.value = 100, .epoch = "a"}, {.value = 130})->consumed, 30);
}

TEST(Counter, OfAnotherScopeDoesNotCompare) {
  EXPECT_FALSE(Step({.value = 100, .epoch = "a"}, {.value = 900, .epoch = "a", .scope = "sd*"}));
}

TEST(Counter, MakesNoStepWhenTheClockDidNotAdvance) {
  EXPECT_FALSE(Step({.value = 100}, {.value = 130}, seconds(0)));
  EXPECT_FALSE(Step({.value = 100}, {.value = 130}, seconds(-5)));
}

TEST(Timestamps, AreReadInEveryFormOfTheRfc) {
  for (const char* text : {"2026-01-31T23:59:00Z", "2026-01-31t23:59:00z", "2026-01-31 23:59:00Z", "2026-02-01T01:59:00+02:00",
                           "2026-01-31T18:29:00-05:30", "2026-01-31T23:59:00.000Z", "2026-01-31T23:58:60Z"}) {
    EXPECT_EQ(ParseTimestamp(text), kStart) << text;
  }
  EXPECT_EQ(FormatTimestamp(At("2024-02-29T00:00:00.1234567Z")), "2024-02-29T00:00:00.123456Z");
  EXPECT_EQ(FormatTimestamp(At("1969-12-31T23:59:59.5Z")), "1969-12-31T23:59:59.500000Z");
}

TEST(Timestamps, ThatAreNoneAreRefused) {
  for (const char* text : {"", "now", "2026-01-31", "2026-01-31T23:59:00", "2026-02-29T00:00:00Z", "2026-13-01T00:00:00Z", "2026-00-01T00:00:00Z",
                           "2026-01-32T00:00:00Z", "2026-01-31T24:00:00Z", "2026-01-31T23:60:00Z", "2026-01-31T23:59:61Z", "2026-1-31T23:59:00Z",
                           "2026-01-31T23:59:00.Z", "2026-01-31T23:59:00+2:00", "2026-01-31T23:59:00+02", "2026-01-31T23:59:00Zulu", "+026-01-31T23:59:00Z"}) {
    EXPECT_EQ(ParseTimestamp(text), std::nullopt) << text;
  }
}

TEST(Periods, EndNow) {
  EXPECT_EQ(WindowEnding("hour", kStart)->from, At("2026-01-31T22:59:00Z"));
  EXPECT_EQ(WindowEnding("day", kStart)->from, At("2026-01-30T23:59:00Z"));
  EXPECT_EQ(WindowEnding("week", kStart)->from, At("2026-01-24T23:59:00Z"));
  EXPECT_EQ(WindowEnding("month", kStart)->from, At("2026-01-01T23:59:00Z"));
  EXPECT_EQ(WindowEnding("day", kStart)->to, kStart);
  EXPECT_EQ(WindowEnding("year", kStart), std::nullopt);
}

TEST(Months, ReachFromTheirFirstMomentToTheNextOnes) {
  EXPECT_EQ(WindowOf({2024, 2}).from, At("2024-02-01T00:00:00Z"));
  EXPECT_EQ(WindowOf({2024, 2}).to, At("2024-03-01T00:00:00Z"));
  EXPECT_EQ(WindowOf({2025, 12}).to, At("2026-01-01T00:00:00Z"));
  EXPECT_EQ(MonthOf(kStart).month, 1);
  EXPECT_EQ(MonthOf(kStart + seconds(60)).month, 2);
  EXPECT_EQ(MonthOf(At("2025-12-31T23:59:59.999999Z")).year, 2025);
}

}  // namespace
}  // namespace consumption
