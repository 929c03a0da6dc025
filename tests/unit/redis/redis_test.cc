// A connection to Redis: what is wrong is said, a Redis that hangs is noticed in time, and tries for another one are somebody else's.
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "supervisor/redis/redis_connector.h"
#include "tests/fakes/redis_fixture.h"

namespace bulkhead {
namespace {

using testing::HasSubstr;

constexpr Millis kPatience{100};
constexpr Millis kLongest{20'000};  // about hanging, not about speed

TEST(RedisClient, WhatIsWrongIsSaidWithoutThePassword) {
  const auto away = RedisClient::Open({.socket = "/nowhere/redis.sock", .password = "secret"}, kPatience);
  EXPECT_EQ(away.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(away.status().message()), testing::AllOf(HasSubstr("No such file"), testing::Not(HasSubstr("secret"))));
  TestRedis redis;
  RedisAddress address = redis.address();
  auto client = RedisClient::Open(address, kPatience);
  ASSERT_TRUE(client.ok());
  ASSERT_TRUE((*client)->Run({{"CONFIG", "SET", "requirepass", "secret"}}).ok());
  EXPECT_THAT(std::string(RedisClient::Open(address, kPatience).status().message()), HasSubstr("NOAUTH"));
  address.password = "other secret";
  EXPECT_THAT(std::string(RedisClient::Open(address, kPatience).status().message()), testing::AllOf(HasSubstr("WRONGPASS"), testing::Not(HasSubstr("secret"))));
  address.password = "secret";
  address.database = 3;
  EXPECT_TRUE(RedisClient::Open(address, kPatience).ok());
}

TEST(RedisClient, OneThatHangsIsAwayAfterThePatience) {
  TestRedis redis;
  auto client = RedisClient::Open(redis.address(), kPatience);
  ASSERT_TRUE(client.ok()) << client.status();
  redis.Hang();
  const Instant asked = Clock::Real().Now();
  const auto replies = (*client)->Run({{"PING"}, {"PING"}});
  EXPECT_GE(Clock::Real().Now() - asked, kPatience - Millis(10));
  EXPECT_EQ(replies.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(replies.status().message()), HasSubstr("no answer within 100 ms"));
  redis.GoOn();
}

TEST(RedisClient, AllAnswersOfOneGoHaveTheirTimeTogether) {
  TestRedis redis;
  auto client = RedisClient::Open(redis.address(), kPatience);
  ASSERT_TRUE(client.ok()) << client.status();
  // Each is in time, all together are not.
  const RedisClient::Command slow{"BLPOP", "nothing", "0.06"};
  const auto replies = (*client)->Run({slow, slow, slow, slow, slow});
  EXPECT_THAT(std::string(replies.status().message()), HasSubstr("of 5 answers within 100 ms"));
}

TEST(RedisConnector, NobodyWaitsForAConnectionThatIsNotThere) {
  TestRedis redis;
  redis.Hang();
  RedisConnector connector(redis.address(), kPatience);
  const Instant end = Clock::Real().Now() + kLongest;
  while (connector.fault().empty() && Clock::Real().Now() < end) {
    const Instant asked = Clock::Real().Now();
    EXPECT_EQ(connector.Take(), nullptr);
    EXPECT_LT(Clock::Real().Now() - asked, limits::kRedisGreeting / 2);
    std::this_thread::sleep_for(Millis(5));
  }
  EXPECT_THAT(connector.fault(), HasSubstr("no answer"));
  redis.GoOn();
  std::unique_ptr<RedisClient> client;
  while (!client && Clock::Real().Now() < end) client = connector.Take();
  ASSERT_TRUE(client);
  EXPECT_TRUE(client->RunAll({{"PING"}}).ok());
  EXPECT_EQ(connector.fault(), "");
}

TEST(RedisPause, GrowsUntilRedisHasProvedItself) {
  RedisPause pause;
  Instant now = Clock::Real().Now();
  std::vector<int64_t> waits;
  const auto lost = [&] {
    pause.Lost(now);
    waits.push_back(std::chrono::duration_cast<Millis>(pause.next() - now).count());
    now = pause.next();
  };
  for (int i = 0; i < 8; ++i) lost();
  EXPECT_EQ(waits, (std::vector<int64_t>{100, 200, 400, 800, 1'600, 3'200, 5'000, 5'000}));
  pause.Up(now);
  now += limits::kRedisProven - Millis(1);
  lost();
  EXPECT_EQ(waits.back(), 5'000) << "it was lost too soon";
  pause.Up(now);
  now += limits::kRedisProven;
  lost();
  EXPECT_EQ(waits.back(), 100);
}

}  // namespace
}  // namespace bulkhead
