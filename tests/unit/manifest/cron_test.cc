// Cron expressions: fields, days, time zones with daylight saving; and what npm's `croner` says (cron_vectors.txt, made by make_cron_vectors.js).
#include "supervisor/manifest/cron.h"

#include <cstdlib>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

WallTime At(const char* utc) {
  absl::Time time;
  std::string error;
  EXPECT_TRUE(absl::ParseTime(absl::RFC3339_full, utc, &time, &error)) << error;
  return absl::ToChronoTime(time);
}

// The next `count` ticks after `after`, in UTC.
std::vector<std::string> Ticks(const char* expression, const char* zone, const char* after, int count) {
  auto cron = Cron::Parse(expression, zone);
  EXPECT_TRUE(cron.ok()) << cron.status();
  std::vector<std::string> ticks;
  WallTime at = At(after);
  for (int i = 0; cron.ok() && i < count; ++i) {
    const auto next = cron->Next(at);
    if (!next) {
      ticks.push_back("none");
      break;
    }
    EXPECT_GT(*next, at);
    at = *next;
    ticks.push_back(absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", absl::FromChrono(at), absl::UTCTimeZone()));
  }
  return ticks;
}
using List = std::vector<std::string>;

TEST(Cron, FiveFieldsTickOnTheMinute) {
  EXPECT_EQ(Ticks("0 */6 * * *", "UTC", "2026-01-10T05:59:59Z", 3),
            (List{"2026-01-10T06:00:00Z", "2026-01-10T12:00:00Z", "2026-01-10T18:00:00Z"}));
  EXPECT_EQ(Ticks("* * * * *", "UTC", "2026-01-10T23:59:30Z", 2), (List{"2026-01-11T00:00:00Z", "2026-01-11T00:01:00Z"}));
  EXPECT_EQ(Ticks("15,45 8-10/2 * * *", "UTC", "2026-01-10T08:15:00Z", 4),
            (List{"2026-01-10T08:45:00Z", "2026-01-10T10:15:00Z", "2026-01-10T10:45:00Z", "2026-01-11T08:15:00Z"}));
}

TEST(Cron, AStepPastTheEndOfItsFieldLeavesItsFirstValue) {
  for (const char* expression : {"5/2147483647 * * * *", "5-50/2147483647 * * * *", "5/55 0/2147483643 * * *", "5/100 * 1-31/1 * *"}) {
    EXPECT_EQ(Ticks(expression, "UTC", "2026-01-09T23:30:00Z", 1), (List{"2026-01-10T00:05:00Z"})) << expression;
  }
  EXPECT_EQ(Ticks("5/2147483647 * * * *", "UTC", "2026-01-10T05:30:00Z", 2), (List{"2026-01-10T06:05:00Z", "2026-01-10T07:05:00Z"}));
}

TEST(Cron, TheSixthFieldFirstInPlaceIsSeconds) {
  EXPECT_EQ(Ticks("*/20 * * * * *", "UTC", "2026-01-10T00:00:20Z", 3),
            (List{"2026-01-10T00:00:40Z", "2026-01-10T00:01:00Z", "2026-01-10T00:01:20Z"}));
  EXPECT_EQ(Ticks("30 59 23 31 12 *", "UTC", "2026-01-01T00:00:00Z", 2), (List{"2026-12-31T23:59:30Z", "2027-12-31T23:59:30Z"}));
}

TEST(Cron, TheTickItselfIsNotAfterItself) {
  EXPECT_EQ(Ticks("0 12 * * *", "UTC", "2026-01-10T12:00:00Z", 1), (List{"2026-01-11T12:00:00Z"}));
  EXPECT_EQ(Ticks("0 12 * * *", "UTC", "2026-01-10T11:59:59.999Z", 1), (List{"2026-01-10T12:00:00Z"}));
  EXPECT_EQ(Ticks("0 * * * *", "UTC", "2026-01-10T11:59:59.999Z", 1), (List{"2026-01-10T12:00:00Z"}));
}

TEST(Cron, NamesAndMacrosAreUnderstood) {
  EXPECT_EQ(Ticks("0 9 * JAN-mar Mon-FRI", "UTC", "2026-03-31T09:00:00Z", 1), (List{"2027-01-01T09:00:00Z"}));
  EXPECT_EQ(Ticks("@hourly", "UTC", "2026-01-10T11:30:00Z", 1), (List{"2026-01-10T12:00:00Z"}));
  EXPECT_EQ(Ticks("@Daily", "UTC", "2026-01-10T11:30:00Z", 1), (List{"2026-01-11T00:00:00Z"}));
  EXPECT_EQ(Ticks("@weekly", "UTC", "2026-01-10T11:30:00Z", 1), (List{"2026-01-11T00:00:00Z"}));  // a Sunday
  EXPECT_EQ(Ticks("@monthly", "UTC", "2026-01-10T11:30:00Z", 1), (List{"2026-02-01T00:00:00Z"}));
  EXPECT_EQ(Ticks("@yearly", "UTC", "2026-01-10T11:30:00Z", 1), (List{"2027-01-01T00:00:00Z"}));
}

TEST(Cron, SundayIsZeroAndSeven) {
  EXPECT_EQ(Ticks("0 0 * * 0", "UTC", "2026-01-10T11:30:00Z", 1), Ticks("0 0 * * 7", "UTC", "2026-01-10T11:30:00Z", 1));
  EXPECT_EQ(Ticks("0 0 * * 6-7", "UTC", "2026-01-09T11:30:00Z", 3),
            (List{"2026-01-10T00:00:00Z", "2026-01-11T00:00:00Z", "2026-01-17T00:00:00Z"}));
}

TEST(Cron, EitherDayFieldIsEnoughWhenBothAreRestricted) {
  // The 13th or a Friday.
  EXPECT_EQ(Ticks("0 0 13 * 5", "UTC", "2026-01-09T00:00:00Z", 3),
            (List{"2026-01-13T00:00:00Z", "2026-01-16T00:00:00Z", "2026-01-23T00:00:00Z"}));
  EXPECT_EQ(Ticks("0 0 13 * ?", "UTC", "2026-01-09T00:00:00Z", 2), (List{"2026-01-13T00:00:00Z", "2026-02-13T00:00:00Z"}));
}

TEST(Cron, LeapDaysAreFoundAndImpossibleDatesRefused) {
  EXPECT_EQ(Ticks("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", 1), (List{"2028-02-29T00:00:00Z"}));
  EXPECT_EQ(Ticks("0 0 29 2 *", "UTC", "2096-03-01T00:00:00Z", 1), (List{"none"}));  // 2100 is no leap year: over five years away
  EXPECT_FALSE(Cron::Parse("0 0 30 2 *").ok());
  EXPECT_FALSE(Cron::Parse("0 0 31 4,6,9,11 *").ok());
  EXPECT_TRUE(Cron::Parse("0 0 30 2 1").ok());  // or a Monday of February
}

TEST(Cron, AFixedTimeSkippedByTheGapRunsAtItsEnd) {
  // Berlin, 2026-03-29: 02:00 becomes 03:00 at 01:00 UTC.
  EXPECT_EQ(Ticks("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z", 3),
            (List{"2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"}));
  EXPECT_EQ(Ticks("0,30 2 * * *", "Europe/Berlin", "2026-03-29T00:30:00Z", 2),
            (List{"2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"}));
  // New York, 2026-03-08: 02:00 becomes 03:00 at 07:00 UTC.
  EXPECT_EQ(Ticks("15 2 8 3 *", "America/New_York", "2026-01-01T00:00:00Z", 1), (List{"2026-03-08T07:00:00Z"}));
}

TEST(Cron, AFixedTimeRepeatedByTheOverlapRunsOnce) {
  // Berlin, 2026-10-25: 03:00 becomes 02:00 at 01:00 UTC; 02:30 is 00:30 and 01:30 UTC.
  EXPECT_EQ(Ticks("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2),
            (List{"2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"}));
  // Asked between the two, or within the second pass: the next day.
  EXPECT_EQ(Ticks("30 2 * * *", "Europe/Berlin", "2026-10-25T00:45:00Z", 1), (List{"2026-10-26T01:30:00Z"}));
  EXPECT_EQ(Ticks("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", 1), (List{"2026-10-26T01:30:00Z"}));
}

TEST(Cron, AWildHourFollowsTheClockOnTheWall) {
  EXPECT_EQ(Ticks("30 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", 3),
            (List{"2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z", "2026-03-29T02:30:00Z"}));
  EXPECT_EQ(Ticks("30 * * * *", "Europe/Berlin", "2026-10-24T23:00:00Z", 4),
            (List{"2026-10-24T23:30:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"}));
  EXPECT_EQ(Ticks("0 */2 * * *", "Europe/Berlin", "2026-10-24T22:30:00Z", 3),  // 02:00 twice
            (List{"2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z", "2026-10-25T03:00:00Z"}));
  EXPECT_EQ(Ticks("0 */2 * * *", "Europe/Berlin", "2026-03-28T23:30:00Z", 2),  // no 02:00
            (List{"2026-03-29T02:00:00Z", "2026-03-29T04:00:00Z"}));
}

TEST(Cron, HalfHourZonesAndALostDay) {
  EXPECT_EQ(Ticks("0 6 * * *", "Asia/Kolkata", "2026-01-10T00:00:00Z", 2),
            (List{"2026-01-10T00:30:00Z", "2026-01-11T00:30:00Z"}));
  // Lord Howe Island moves by half an hour: 2026-10-04 02:00 becomes 02:30 (15:30 UTC the day before).
  EXPECT_EQ(Ticks("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00Z", 1), (List{"2026-10-03T15:30:00Z"}));
  // Samoa had no 2011-12-30: its noon runs when the 31st begins.
  EXPECT_EQ(Ticks("0 12 30 12 *", "Pacific/Apia", "2011-12-01T00:00:00Z", 1), (List{"2011-12-30T10:00:00Z"}));
}

TEST(Cron, AStepFromAStarIsARestriction) {
  // Every other day, or a Monday.
  EXPECT_EQ(Ticks("0 0 */2 * 1", "UTC", "2026-01-09T12:00:00Z", 4),
            (List{"2026-01-11T00:00:00Z", "2026-01-12T00:00:00Z", "2026-01-13T00:00:00Z", "2026-01-15T00:00:00Z"}));
}

TEST(Cron, TicksWhenCronerDoes) {
  const char* other = std::getenv("CRON_VECTORS");
  std::ifstream file(other ? other : BULKHEAD_TEST_FOLDER "/cron_vectors.txt");
  int ticking = 0, refused = 0;
  for (std::string line; std::getline(file, line);) {
    const auto record = nlohmann::json::parse(line);
    const auto expression = record[0].get<std::string>();
    if (record[1].is_null()) {
      EXPECT_FALSE(Cron::Parse(expression).ok()) << line;
      ++refused;
      continue;
    }
    const auto cron = Cron::Parse(expression, record[1].get<std::string>());
    ASSERT_TRUE(cron.ok()) << line << cron.status();
    std::vector<int64_t> ticks;
    const size_t count = record[3].size();
    for (auto at = cron->Next(WallTime(std::chrono::seconds(record[2].get<int64_t>()))); at && ticks.size() < count; at = cron->Next(*at))
      ticks.push_back(std::chrono::duration_cast<std::chrono::seconds>(at->time_since_epoch()).count());
    EXPECT_EQ(ticks, record[3].get<std::vector<int64_t>>()) << line;
    ++ticking;
  }
  EXPECT_GT(ticking, 700);
  EXPECT_GT(refused, 15);
}

TEST(Cron, EveryErrorNamesItsField) {
  const std::pair<const char*, const char*> wrong[] = {
      {"60 * * * *", "minute"},     {"* 24 * * *", "hour"},     {"* * 0 * *", "day of month"},   {"* * * 13 *", "month"},
      {"* * * * 8", "day of week"}, {"61 * * * * *", "second"}, {"*/0 * * * *", "minute"},       {"5-1 * * * *", "minute"},
      {"a * * * *", "minute"},      {"1,,2 * * * *", "minute"}, {"* * * foo *", "month"},        {"*/x * * * *", "minute"},
      {"-5 * * * *", "minute"},     {"1- * * * *", "minute"},   {"* * * * mon-", "day of week"}, {"*/+5 * * * *", "minute"},
      {"*/5\r * * * *", "minute"}};
  for (const auto& [expression, field] : wrong) {
    const auto cron = Cron::Parse(expression);
    ASSERT_FALSE(cron.ok()) << expression;
    EXPECT_EQ(ErrorCode(cron.status()), "CRON_INVALID");
    EXPECT_THAT(std::string(cron.status().message()), testing::HasSubstr(field)) << expression;
  }
  for (const char* expression : {"", "* * * *", "* * * * * * *", "@often", "@"})
    EXPECT_FALSE(Cron::Parse(expression).ok()) << expression;
}

TEST(Cron, OnlyRealTimeZonesAreTaken) {
  for (const char* zone :
       {"Europe/Atlantis", "", "/etc/localtime", "../../etc/passwd", "localtime", "file:/etc/passwd", "Europe", "right/UTC"}) {
    EXPECT_FALSE(Cron::Parse("* * * * *", zone).ok()) << zone;
  }
  for (const char* zone : {"UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+5"}) {
    EXPECT_TRUE(Cron::Parse("* * * * *", zone).ok()) << zone;
  }
}

}  // namespace
}  // namespace bulkhead
