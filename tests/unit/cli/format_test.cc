// Values as people read them.
#include "supervisor/cli/format.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "supervisor/admin/json.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

TEST(Format, ATimeIsTakenAsItIsOrAsSoLongBeforeNow) {
  EXPECT_EQ(*SinceTime(""), "");
  EXPECT_EQ(*SinceTime("2026-01-31T10:30:00+01:00"), "2026-01-31T09:30:00.000000Z");
  const auto before = SinceTime("1h");
  ASSERT_TRUE(before.ok());
  const auto age = Clock::Real().Wall() - *ParseWall(*before);
  EXPECT_GE(age, std::chrono::hours(1));
  EXPECT_LT(age, std::chrono::hours(1) + std::chrono::minutes(1));
  EXPECT_EQ(ErrorCode(SinceTime("yesterday").status()), "CONFIG_INVALID");
}

TEST(Format, ATimeForPeopleIsOneThatSinceTakes) {
  const auto time = ToTimestamp(*ParseWall("2026-01-31T09:30:00.75Z"));
  EXPECT_EQ(Moment(time), "2026-01-31T09:30:00Z");
  EXPECT_TRUE(SinceTime(Moment(time)).ok());
  EXPECT_EQ(MillisBetween(ToTimestamp(*ParseWall("2026-01-31T09:30:00Z")), time), 750);
}

TEST(Format, WhatAModuleWroteObeysNoTerminal) {
  EXPECT_EQ(Escaped("a\x1b[2Jb\n"), "a\\x1b[2Jb\\x0a");
  google::protobuf::Value value;
  value.set_string_value("a\x1b");
  EXPECT_EQ(Inline(value), "\"a\\u001b\"");
  EXPECT_EQ(Inline(google::protobuf::Value()), "");
}

}  // namespace
}  // namespace bulkhead
