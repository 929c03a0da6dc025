// Where a Redis is, as an operator writes it.
#include "supervisor/base/redis_address.h"

#include "gtest/gtest.h"

namespace bulkhead {
namespace {

TEST(RedisAddressTest, AUrlIsReadWithItsPartsAndTheirDefaults) {
  const auto plain = ParseRedisUrl("redis://127.0.0.1");
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->host, "127.0.0.1");
  EXPECT_EQ(plain->port, 6379);
  EXPECT_EQ(plain->database, 0);
  EXPECT_EQ(plain->password, "");
  const auto full = ParseRedisUrl("redis://us%2Fer:p%40ss%3a@[::1]:6380/15");
  ASSERT_TRUE(full);
  EXPECT_EQ(full->host, "::1");
  EXPECT_EQ(full->port, 6380);
  EXPECT_EQ(full->database, 15);
  EXPECT_EQ(full->user, "us/er");
  EXPECT_EQ(full->password, "p@ss:");
  EXPECT_EQ(ParseRedisUrl("redis://:p@h")->user, "");
  EXPECT_EQ(ParseRedisUrl("redis://h/")->host, "h");
}

TEST(RedisAddressTest, ASocketIsReadWithItsDatabase) {
  const auto socket = ParseRedisUrl("unix://:secret@/run/r@1.sock?db=2");
  ASSERT_TRUE(socket);
  EXPECT_EQ(socket->host, "");
  EXPECT_EQ(socket->socket, "/run/r@1.sock");
  EXPECT_EQ(socket->password, "secret");
  EXPECT_EQ(socket->database, 2);
  EXPECT_EQ(ParseRedisUrl("unix:///r")->socket, "/r");
}

TEST(RedisAddressTest, WhatIsNoAddressIsNone) {
  for (const char* bad : {"", "redis:", "redis://", "http://h", "redis://h:", "redis://h:0", "redis://h:65536", "redis://h:6379x", "redis://h/x",
                          "redis://h/-1", "redis://a:b:c", "redis://user@h", "redis://user:@h", "redis://:%4@h", "redis://:%zz@h", "redis://h#x",
                          "redis://h?db=1", "unix://", "unix:///", "unix://run/r", "unix:///r?db=", "unix:///r?db=x", "unix:///r?x=1", "redis://h h",
                          "redis://[::1", "redis://[]"}) {
    EXPECT_FALSE(ParseRedisUrl(bad)) << bad;
  }
  EXPECT_FALSE(ParseRedisUrl(std::string("redis://h\0x", 11)));
}

}  // namespace
}  // namespace bulkhead
