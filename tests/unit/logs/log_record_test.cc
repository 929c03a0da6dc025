#include "supervisor/logs/log_record.h"

#include <gtest/gtest.h>

#include "gmock/gmock.h"
#include "supervisor/base/limits.h"
#include "supervisor/logs/log_ring.h"

namespace bulkhead {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

WallTime At(int64_t us) { return WallTime(std::chrono::microseconds(us)); }

LogRecord Whole() {
  LogRecord record;
  record.at = {1'767'225'600'123'456, 4711};
  record.time = At(1'767'225'600'123'455);
  record.slot = 2;
  record.instance = "orders.2.abcd";
  record.stream = LogStream::kStderr;
  record.level = LogLevel::kWarn;
  record.structured = true;
  record.message = "a \"b\"\n\x01 é";
  record.fields = R"({"a":[1,{"b":null}],"z":"é"})";
  return record;
}

TEST(LogCursor, IsReadAsItIsWritten) {
  const LogCursor cursor{1'767'225'600'123'456, 4711};
  EXPECT_EQ(cursor.Text(), "1767225600123456-4711");
  EXPECT_EQ(LogCursor::Parse(cursor.Text()), cursor);
  EXPECT_EQ(LogCursor::Parse("0-0"), LogCursor());
  for (const char* wrong : {"", "-", "1", "1-", "-1", "1-2-3", "a-1", "1-a", " 1-1", "1-1 ", "-5-1", "5--1", "99999999999999999999-1", "+1-1"})
    EXPECT_EQ(LogCursor::Parse(wrong), std::nullopt) << wrong;
}

TEST(LogRecord, ComesBackFromItsLine) {
  const LogRecord record = Whole();
  const std::string line = ToFileLine(record);
  ASSERT_EQ(line.find('\n'), line.size() - 1);
  const auto read = FromFileLine(std::string_view(line).substr(0, line.size() - 1));
  ASSERT_TRUE(read);
  EXPECT_EQ(read->at, record.at);
  EXPECT_EQ(read->time, record.time);
  EXPECT_EQ(read->slot, record.slot);
  EXPECT_EQ(read->instance, record.instance);
  EXPECT_EQ(read->stream, record.stream);
  EXPECT_EQ(read->level, record.level);
  EXPECT_EQ(read->structured, record.structured);
  EXPECT_EQ(read->message, record.message);
  EXPECT_EQ(read->fields, record.fields);
  EXPECT_EQ(IdOfFileLine(line), record.at.id);
}

TEST(LogRecord, WhatIsNoLineOfOursIsNone) {
  const std::string line = ToFileLine(Whole());
  for (size_t cut = 0; cut < line.size() - 2; ++cut) EXPECT_FALSE(FromFileLine(line.substr(0, cut))) << cut;
  for (const char* other : {"", "{}", "[]", "7", R"({"id":"x","stream":"stdout","level":"info"})", R"({"id":"1-1","stream":"up","level":"info"})",
                            R"({"id":"1-1","stream":"stdout","level":"loud"})"})
    EXPECT_FALSE(FromFileLine(other)) << other;
  EXPECT_FALSE(IdOfFileLine(R"({"id":"x-1")"));
  EXPECT_FALSE(IdOfFileLine(R"({"id":")"));
}

TEST(LogFilter, EachPartSelects) {
  const LogRecord record = Whole();
  EXPECT_TRUE(LogFilter().Matches(record));
  const auto matches = [&](LogFilter filter) { return filter.Matches(record); };
  EXPECT_TRUE(matches({.level = LogLevel::kWarn}));
  EXPECT_FALSE(matches({.level = LogLevel::kError}));
  EXPECT_TRUE(matches({.since = record.time}));
  EXPECT_FALSE(matches({.since = record.time + std::chrono::microseconds(1)}));
  EXPECT_FALSE(matches({.until = record.time}));
  EXPECT_TRUE(matches({.until = record.time + std::chrono::microseconds(1)}));
  EXPECT_TRUE(matches({.slot = 2}));
  EXPECT_FALSE(matches({.slot = 0}));
  EXPECT_TRUE(matches({.search = "a \"b"}));
  EXPECT_TRUE(matches({.search = "null"}));  // in the fields
  EXPECT_FALSE(matches({.search = "nowhere"}));
  LogRecord loud = record;
  loud.message = "LOUD";
  EXPECT_TRUE((LogFilter{.search = "loud"}).Matches(loud));
}

RecordPtr Add(LogRing& ring, int64_t us, std::string message = "m") {
  auto record = std::make_shared<LogRecord>();
  record->time = At(us);
  record->message = std::move(message);
  record->at = ring.Place(record->time);
  ring.Add(record);
  return record;
}

std::vector<int64_t> Ids(const std::vector<RecordPtr>& records) {
  std::vector<int64_t> ids;
  for (const RecordPtr& record : records) ids.push_back(record->at.id);
  return ids;
}

TEST(LogRing, PlacesGrowWhateverTheClockDoes) {
  LogRing ring({100, 7});
  EXPECT_EQ(ring.Place(At(200)), (LogCursor{200, 8}));
  EXPECT_EQ(ring.Place(At(200)), (LogCursor{201, 9}));
  EXPECT_EQ(ring.Place(At(50)), (LogCursor{202, 10}));
  EXPECT_EQ(ring.Place(At(300)), (LogCursor{300, 11}));
  EXPECT_EQ(ring.last(), (LogCursor{300, 11}));
}

TEST(LogRing, GivesWhatIsBehindAPlace) {
  LogRing ring;
  for (int64_t us : {10, 20, 30}) Add(ring, us);
  EXPECT_THAT(Ids(ring.After(0, 10)), ElementsAre(10, 20, 30));
  EXPECT_THAT(Ids(ring.After(0, 2)), ElementsAre(10, 20));
  EXPECT_THAT(Ids(ring.After(10, 10)), ElementsAre(20, 30));
  EXPECT_THAT(Ids(ring.After(15, 10)), ElementsAre(20, 30));
  EXPECT_THAT(Ids(ring.After(30, 10)), IsEmpty());
  EXPECT_EQ(ring.older(), 0);
}

TEST(LogRing, HoldsSoManyLinesAndKnowsWhatIsOlder) {
  LogRing ring({5, 1});
  EXPECT_EQ(ring.older(), 5);
  for (size_t i = 1; i <= limits::kLogRingLines + 3; ++i) Add(ring, int64_t(1000 + i));
  EXPECT_EQ(ring.records().size(), limits::kLogRingLines);
  EXPECT_EQ(ring.older(), 1003);
  EXPECT_EQ(ring.records().front()->at.id, 1004);
}

TEST(LogRing, HoldsSoManyBytesButTheNewestLine) {
  LogRing ring;
  for (int i = 1; i <= 4; ++i) Add(ring, i, std::string(limits::kLogRingBytes / 3, 'x'));
  EXPECT_EQ(ring.records().size(), 2u);
  Add(ring, 9, std::string(2 * limits::kLogRingBytes, 'x'));
  ASSERT_EQ(ring.records().size(), 1u);
  EXPECT_EQ(ring.records().front()->at.id, 9);
  EXPECT_EQ(ring.older(), 4);
}

}  // namespace
}  // namespace bulkhead
