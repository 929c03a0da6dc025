// What nodes share in a real Redis: found by each, never older than what was invalidated, whatever Redis loses, and never waited for when it is away,
// hangs or has begun anew.
#include "supervisor/cache/redis_level.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <future>
#include <mutex>

#include "tests/unit/cache/cache_engine.h"

namespace bulkhead {
namespace {

using testing::HasSubstr;

constexpr Millis kBound = 2 * limits::kCacheRedisPatience + Millis(400);  // that a call may take, on a machine with other work

cache::Bytes RedisText(std::string text) { return std::make_shared<const std::string>(std::move(text)); }

class RedisNode {
 public:
  RedisNode(const RedisAddress& address, const std::string& name, const std::string& mark = "", size_t max_bytes = 0)
      : level_({address, "test:", name, mark}),
        cache_(Clock::Real(), {max_bytes, max_bytes, nullptr,
                               [this](const std::string& module, const cache::Names& names, bool missed) {
                                 std::lock_guard lock(mutex_);
                                 told_.push_back({module, names, missed});
                               },
                               &level_}) {
    Enable();
  }
  ~RedisNode() { level_.Stop(); }
  void Enable(const std::string& version = "1.0.0", int since = 1) {
    cache_.Adopt(EnabledModules({"orders", "prices"}, WallTime(std::chrono::seconds(since)), version), [] {});
  }
  HostCache::Look Look(const std::string& key, const std::string& module = "orders") {
    std::promise<absl::StatusOr<HostCache::Look>> answer;
    cache_.Get(module, key, [&](absl::StatusOr<HostCache::Look> look) { answer.set_value(std::move(look)); });
    return *answer.get_future().get();
  }
  std::string Get(const std::string& key, const std::string& module = "orders") {
    const auto look = Look(key, module);
    return !look.found ? "(miss)" : look.value ? *look.value : "(nothing)";
  }
  HostCache::Stored Set(HostCache::NewEntry entry, const std::string& module = "orders") {
    std::promise<absl::StatusOr<HostCache::Stored>> answer;
    cache_.Set(module, std::move(entry), [&](absl::StatusOr<HostCache::Stored> stored) { answer.set_value(std::move(stored)); });
    return *answer.get_future().get();
  }
  // Set by what was read when the cache was at this version. Another command behind it says when it has been done.
  void Fill(const std::string& key, const std::string& value, int64_t version, std::vector<std::string> tags = {}) {
    Set({key, RedisText(value), Millis(0), std::move(tags), version});
    Look("behind " + key);
  }
  void Invalidate(cache::Names names, const std::string& module = "orders") {
    std::promise<void> answer;
    cache_.Invalidate(module, std::move(names), [&](const absl::StatusOr<int64_t>&) { answer.set_value(); });
    answer.get_future().get();
  }
  struct Told {
    std::string module;
    cache::Names names;
    bool missed;
  };
  std::vector<Told> TakeTold() {
    std::lock_guard lock(mutex_);
    return std::exchange(told_, {});
  }
  void Up(bool up = true) { AwaitRedis(cache_, up); }
  SharedCache& cache() { return cache_; }
  RedisLevel& level() { return level_; }

 private:
  RedisLevel level_;
  SharedCache cache_;
  std::mutex mutex_;
  std::vector<Told> told_;
};

class RedisLevelTest : public testing::Test {
 protected:
  std::unique_ptr<RedisNode> Node(const std::string& name, const std::string& mark = "", size_t max_bytes = 0) {
    auto node = std::make_unique<RedisNode>(redis_.address(), name, mark, max_bytes);
    node->Up();
    return node;
  }
  std::vector<RedisReply> Redis(std::vector<RedisClient::Command> commands) {
    auto client = RedisClient::Open(redis_.address(), limits::kRedisGreeting);
    EXPECT_TRUE(client.ok()) << client.status();
    auto replies = (*client)->RunAll(commands);
    EXPECT_TRUE(replies.ok()) << replies.status();
    return replies.ok() ? *std::move(replies) : std::vector<RedisReply>(commands.size());
  }
  std::vector<std::string> Keys(const std::string& pattern = "*") {
    std::vector<std::string> keys;
    const auto replies = Redis({{"KEYS", pattern}});
    for (const RedisReply& one : replies[0].list) keys.push_back(one.text);
    return keys;
  }
  template <typename Work>
  Millis Took(Work work) {
    const Instant begin = Clock::Real().Now();
    work();
    return std::chrono::duration_cast<Millis>(Clock::Real().Now() - begin);
  }
  TestRedis redis_;
};

TEST_F(RedisLevelTest, WhatOneNodeSetsTheOtherFindsWithItsTagsAndTheRestOfItsTime) {
  auto one = Node("one"), two = Node("two");
  one->Set({"key", RedisText(std::string("with\0zero\r\n", 11)), Millis(60'000), {"a", "b"}});
  const auto look = two->Look("key");
  ASSERT_TRUE(look.found && look.value);
  EXPECT_EQ(*look.value, std::string("with\0zero\r\n", 11));
  EXPECT_EQ(look.tags, (std::vector<std::string>{"a", "b"}));
  EXPECT_GT(look.ttl_left, Millis(30'000));
  EXPECT_LE(look.ttl_left, Millis(60'000));
  one->Set({"gone", nullptr, Millis(60'000)});
  EXPECT_EQ(two->Get("gone"), "(nothing)");
  one->Set({"for ever", RedisText("v")});
  EXPECT_EQ(two->Look("for ever").ttl_left, Millis(0));
  one->Set({"brief", RedisText("v"), Millis(30)});
  std::this_thread::sleep_for(Millis(60));
  EXPECT_EQ(two->Get("brief"), "(miss)");
  EXPECT_EQ(two->Get("unknown"), "(miss)");
  two->Fill("loaded", "there", two->Look("loaded").version);
  EXPECT_EQ(one->Get("loaded"), "there");
}

TEST_F(RedisLevelTest, AValueFromRedisIsKeptInTheMemoryOfTheNodeUntilItHearsThatItIsNone) {
  auto one = Node("one", "", 1 << 20), two = Node("two", "", 1 << 20);
  one->Set({"key", RedisText("value"), Millis(0), {"tag"}});
  for (int i = 0; i < 3; ++i) EXPECT_EQ(two->Get("key"), "value");
  EXPECT_EQ(two->cache().Usage().at(0).redis_hits, 1);
  EXPECT_EQ(two->cache().Usage().at(0).hits, 2);
  one->Invalidate({.tags = {"tag"}});
  EXPECT_EQ(two->Get("key"), "value") << "it has not heard of it";
  const auto told = one->TakeTold();
  ASSERT_EQ(told.size(), 2u);
  EXPECT_FALSE(told[1].missed);
  two->cache().Heed("orders", told[1].names, told[1].missed);
  EXPECT_EQ(two->Get("key"), "(miss)");
}

TEST_F(RedisLevelTest, LimitsOfValuesKeysAndTagsTravel) {
  auto one = Node("one"), two = Node("two");
  const std::string key(cache::kMaxKey, 'k'), large(cache::kMaxValue, '\xff');
  std::vector<std::string> tags;
  for (size_t i = 0; i < cache::kMaxTags; ++i) tags.push_back(std::string(cache::kMaxTag - 1, 't') + static_cast<char>('a' + i));
  one->Set({key, RedisText(large), Millis(0), tags});
  EXPECT_EQ(two->Get(key), large);
  cache::Names many;
  for (size_t i = 0; i < cache::kMaxNames - 1; ++i) many.keys.push_back(std::to_string(i) + std::string(cache::kMaxKey - 4, 'x'));
  many.tags = {tags.back()};
  one->Invalidate(many);
  EXPECT_EQ(two->Get(key), "(miss)");
}

TEST_F(RedisLevelTest, ModulesAreApartAndNoKeyIsTakenForAnothers) {
  auto node = Node("one");
  node->Set({"key", RedisText("of orders"), Millis(0), {"t"}}, "orders");
  node->Set({"key", RedisText("of prices"), Millis(0), {"t"}}, "prices");
  EXPECT_EQ(node->Get("key", "orders"), "of orders");
  EXPECT_EQ(node->Get("key", "prices"), "of prices");
  node->Invalidate({.tags = {"t"}}, "orders");
  EXPECT_EQ(node->Get("key", "orders"), "(miss)");
  EXPECT_EQ(node->Get("key", "prices"), "of prices");
  node->Invalidate({.all = true}, "orders");
  EXPECT_EQ(node->Get("key", "prices"), "of prices");
  // Space and key together are the same text.
  const auto direct = [&](const std::string& space, const std::string& key) {
    std::promise<RedisLevel::Found> answer;
    EXPECT_TRUE(node->level().Get(space, key, [&](RedisLevel::Found found) { answer.set_value(std::move(found)); }));
    return answer.get_future().get().found;
  };
  std::promise<bool> applied;
  ASSERT_TRUE(node->level().Set("a", {"bc", RedisText("v")}, [&](bool was) { applied.set_value(was); }));
  ASSERT_TRUE(applied.get_future().get());
  EXPECT_TRUE(direct("a", "bc"));
  EXPECT_FALSE(direct("ab", "c"));
  EXPECT_FALSE(direct("", "abc"));
}

TEST_F(RedisLevelTest, WhatWasReadBeforeAnInvalidationOfAnotherNodeIsRefused) {
  auto one = Node("one"), two = Node("two");
  for (const cache::Names& names : {cache::Names{.keys = {"key"}}, cache::Names{.tags = {"tag"}}, cache::Names{.all = true}}) {
    const int64_t before = one->Look("key").version;
    two->Invalidate(names);
    one->Fill("key", "old", before, {"tag"});
    EXPECT_EQ(two->Get("key"), "(miss)");
    EXPECT_EQ(one->Get("key"), "(miss)");
    one->Fill("key", "new", one->Look("key").version, {"tag"});
    EXPECT_EQ(two->Get("key"), "new");
  }
  two->Invalidate({.all = true});
  const int64_t before = one->Look("key").version;
  two->Set({"key", RedisText("newer")});
  one->Fill("key", "old", before);
  EXPECT_EQ(one->Get("key"), "newer");
  const int64_t other = one->Look("other").version;
  two->Invalidate({.keys = {"another"}, .tags = {"unused"}});
  one->Fill("other", "fine", other, {"tag"});
  EXPECT_EQ(two->Get("other"), "fine") << "nothing of it was invalidated";
}

TEST_F(RedisLevelTest, RedisRemembersSoManyInvalidationsAndRefusesWhatWasReadBeforeThose) {
  auto one = Node("one"), two = Node("two");
  one->Set({"kept", RedisText("v"), Millis(0), {"tag"}});
  const int64_t before = one->Look("key").version;
  for (size_t i = 0; i <= limits::kMaxRedisNames / cache::kMaxNames; ++i) {
    cache::Names names;
    for (size_t n = 0; n < cache::kMaxNames; ++n) names.keys.push_back(std::to_string(i) + " " + std::to_string(n));
    two->Invalidate(names);
  }
  one->Fill("key", "old", before);
  EXPECT_EQ(two->Get("key"), "(miss)");
  one->Fill("key", "new", one->Look("key").version);
  EXPECT_EQ(two->Get("key"), "new");
  EXPECT_EQ(two->Get("kept"), "v") << "what is there stays";
  for (const std::string& key : Keys("*:m*")) {
    const auto length = Redis({{"HLEN", key}});
    EXPECT_LE(std::stoul(length[0].text), limits::kMaxRedisNames + 4);
  }
}

TEST_F(RedisLevelTest, NothingStaysForEver) {
  auto node = Node("one");
  node->Set({"a", RedisText("v"), Millis(0), {"tag"}});
  node->Set({"b", RedisText("v"), Millis(int64_t{400} * 86'400'000)});
  node->Invalidate({.keys = {"c"}, .tags = {"d"}});
  const auto keys = Keys();
  EXPECT_GE(keys.size(), 6u);
  for (const std::string& key : keys) {
    const int64_t left = std::stoll(Redis({{"PTTL", key}})[0].text);
    EXPECT_GT(left, 0) << key;
    EXPECT_LE(left, limits::kCacheRedisUpkeep.count()) << key;
    EXPECT_THAT(key, testing::StartsWith("test:"));
  }
}

// As an eviction would.
TEST_F(RedisLevelTest, WhateverIsMissingInRedisMakesLessValidAndNeverMore) {
  auto one = Node("one"), two = Node("two");
  for (const char* kind : {"l", "m", "t"}) {
    one->Set({"tagged", RedisText("v"), Millis(0), {"tag"}});
    ASSERT_EQ(two->Get("tagged"), "v");
    const int64_t before = one->Look("key").version;
    two->Invalidate({.keys = {"key"}});
    for (const std::string& key : Keys(std::string("test:*:") + kind + "*")) Redis({{"DEL", key}});
    EXPECT_EQ(two->Get("tagged"), "(miss)") << kind;
    one->Fill("key", "old", before);
    EXPECT_EQ(two->Get("key"), "(miss)") << kind;
    // A tag that is made anew is another one.
    one->Set({"another", RedisText("w"), Millis(0), {"tag"}});
    EXPECT_EQ(two->Get("tagged"), "(miss)") << kind;
  }
  for (const std::string& key : Keys("test:*:f*")) Redis({{"DEL", key}});
  one->Set({"key", RedisText("v")});
  one->Up();
  EXPECT_EQ(two->Get("key"), "(miss)") << "it could not be stored, and is to be dropped";
  one->Set({"key", RedisText("v")});
  EXPECT_EQ(two->Get("key"), "v");
  Redis({{"FLUSHALL"}});
  EXPECT_EQ(two->Get("key"), "(miss)");
}

TEST_F(RedisLevelTest, AnEnabledAnUpgradedAndARolledBackModuleFindsNothingOfBefore) {
  auto node = Node("one");
  const auto kept = [&](const std::string& version, int since) {
    node->Set({"key", RedisText("v")});
    node->Enable(version, since);
    return node->Get("key") == "v";
  };
  EXPECT_TRUE(kept("1.0.0", 1));
  EXPECT_FALSE(kept("1.1.0", 1));
  EXPECT_FALSE(kept("1.0.0", 1));
  EXPECT_FALSE(kept("1.0.0", 2));
  node->cache().Adopt(EnabledModules({}), [] {});
  node->Set({"key", RedisText("of nobody")});
  node->Enable("1.0.0", 3);
  EXPECT_EQ(node->Get("key"), "(miss)");
}

TEST_F(RedisLevelTest, TheNextLifeOfANodeFindsWhatThisOneHasLeft) {
  const std::string mark = std::filesystem::temp_directory_path() / ("bulkhead-mark-" + std::to_string(getpid()));
  auto node = Node("one", mark);
  EXPECT_TRUE(std::filesystem::exists(mark));
  node->Set({"key", RedisText("v")});
  node.reset();
  EXPECT_TRUE(std::filesystem::exists(mark));
  node = Node("one", mark);
  EXPECT_EQ(node->Get("key"), "v");
  node.reset();
  // As a life without Redis does.
  std::filesystem::remove(mark);
  node = Node("one", mark);
  EXPECT_EQ(node->Get("key"), "(miss)");
  node.reset();
  std::filesystem::remove(mark);
}

TEST_F(RedisLevelTest, ALifeThatEndsWhileRedisLacksSomethingLetsTheNextOneEmptyIt) {
  const std::string mark = std::filesystem::temp_directory_path() / ("bulkhead-mark-" + std::to_string(getpid()));
  auto node = Node("one", mark), other = Node("two");
  node->Set({"key", RedisText("v")});
  redis_.Hang();
  node->Invalidate({.keys = {"key"}});
  EXPECT_FALSE(std::filesystem::exists(mark));
  node.reset();
  redis_.GoOn();
  other->Up();
  EXPECT_FALSE(std::filesystem::exists(mark));
  node = Node("one", mark);
  EXPECT_TRUE(std::filesystem::exists(mark));
  EXPECT_EQ(node->Get("key"), "(miss)");
  EXPECT_EQ(other->Get("key"), "(miss)");
  node.reset();
  std::filesystem::remove(mark);
}

TEST_F(RedisLevelTest, ARedisThatIsKilledIsLeftOutAndBeginsEmptyWhateverItHasKept) {
  for (const TestRedis::Keeps keeps : {TestRedis::Keeps::kNothing, TestRedis::Keeps::kAll}) {
    TestRedis redis(keeps);
    RedisNode one(redis.address(), "one"), two(redis.address(), "two", "", 1 << 20);
    one.Up(), two.Up();
    one.Set({"key", RedisText("old")});
    one.Set({"other", RedisText("old")});
    EXPECT_EQ(two.Get("key"), "old");
    one.TakeTold();
    redis.Kill();
    EXPECT_LT(Took([&] { EXPECT_EQ(one.Get("key"), "(miss)"); }), kBound);
    EXPECT_LT(Took([&] { one.Invalidate({.keys = {"key"}}); }), kBound);
    const auto told = one.TakeTold();
    ASSERT_EQ(told.size(), 1u);
    EXPECT_TRUE(told[0].missed);
    EXPECT_EQ(two.Get("key"), "old") << "its own memory goes on";
    two.Get("unknown");  // which finds out
    one.Up(false), two.Up(false);
    EXPECT_NE(one.level().usage().fault, "");
    EXPECT_GT(one.level().usage().failures, 0);
    const int64_t before = one.Look("new").version;
    redis.Start();
    one.Up(), two.Up();
    for (const char* key : {"key", "other"}) EXPECT_EQ(one.Get(key), "(miss)") << key;
    one.Fill("new", "loaded meanwhile", before);
    EXPECT_EQ(two.Get("new"), "(miss)") << "nobody knows what was invalidated meanwhile";
    one.Set({"key", RedisText("new")});
    EXPECT_EQ(two.Get("key"), "old") << "its own memory, until it hears of it";
    two.cache().Heed("orders", {.keys = {"key"}}, false);
    EXPECT_EQ(two.Get("key"), "new");
  }
}

TEST_F(RedisLevelTest, ARedisThatHangsIsWaitedForOnceAndDoesNotBringBackWhatWasInvalidatedMeanwhile) {
  auto one = Node("one"), two = Node("two");
  for (const char* key : {"invalidated", "untouched", "set"}) one->Set({key, RedisText("old")});
  redis_.Hang();
  EXPECT_LT(Took([&] { EXPECT_EQ(one->Get("untouched"), "(miss)"); }), kBound);
  for (int i = 0; i < 20; ++i) {
    EXPECT_LT(Took([&] { one->Get("untouched"); }), limits::kCacheRedisPatience / 2) << "left out";
    EXPECT_LT(Took([&] { one->Invalidate({.keys = {"invalidated"}}); }), limits::kCacheRedisPatience / 2);
  }
  EXPECT_GE(one->level().usage().left_out, 40);
  one->Set({"set", RedisText("new")});
  redis_.GoOn();
  one->Up(), two->Up();
  for (auto* node : {one.get(), two.get()}) {
    EXPECT_EQ(node->Get("invalidated"), "(miss)");
    EXPECT_EQ(node->Get("set"), "(miss)");
    EXPECT_EQ(node->Get("untouched"), "old") << "the same Redis, which has all it had";
  }
}

TEST_F(RedisLevelTest, WhatIsLoadedWhileRedisIsLeftOutStaysOnItsNode) {
  auto one = Node("one"), two = Node("two");
  redis_.Hang();
  one->Invalidate({.keys = {"another"}});
  const int64_t before = one->Look("key").version;
  redis_.GoOn();
  one->Up(), two->Up();
  two->Invalidate({.keys = {"key"}});
  one->Look("third");  // Redis is asked again, and says how far it is
  one->Fill("key", "old", before);
  EXPECT_EQ(two->Get("key"), "(miss)");
  EXPECT_EQ(one->Get("key"), "(miss)");
}

// What it was sent before it was given up is done when it goes on, behind whatever its connection's successor says.
TEST_F(RedisLevelTest, ASetThatRedisDoesLateIsRefused) {
  for (int round = 0; round < 5; ++round) {
    auto one = Node("one");
    redis_.Hang();
    one->Set({"key", RedisText("given up " + std::string(500'000, 'x'))});
    one->Set({"key", RedisText("meanwhile")});
    one->Invalidate({.keys = {"key"}});
    redis_.GoOn();
    one->Up();
    for (int i = 0; i < 50; ++i) {
      ASSERT_EQ(one->Get("key"), "(miss)");
      std::this_thread::sleep_for(Millis(1));
    }
  }
}

// The same where it is sure that the later connection was first: that of the node's next life.
TEST_F(RedisLevelTest, ASetOfAConnectionThatHasASuccessorIsRefused) {
  auto before = Node("one"), now = Node("one");
  before->Set({"key", RedisText("late")});
  EXPECT_EQ(now->Get("key"), "(miss)");
  const auto told = before->TakeTold();
  ASSERT_EQ(told.size(), 1u);
  EXPECT_TRUE(told[0].missed);
}

TEST_F(RedisLevelTest, WhatANodeCannotTellRedisAnotherOneDoes) {
  const std::string path = std::filesystem::temp_directory_path() / ("bulkhead-cut-" + std::to_string(getpid()));
  std::filesystem::create_symlink(redis_.address().socket, path);
  RedisNode one({.socket = path}, "one");
  auto two = Node("two");
  one.Up();
  one.Set({"key", RedisText("old")});
  EXPECT_EQ(two->Get("key"), "old");
  one.TakeTold();
  std::filesystem::remove(path);
  Redis({{"CLIENT", "KILL", "TYPE", "normal"}});
  one.Up(false);
  two->Up();
  one.Invalidate({.keys = {"key"}});
  const auto told = one.TakeTold();
  ASSERT_EQ(told.size(), 1u);
  EXPECT_TRUE(told[0].missed);
  two->Up();
  EXPECT_EQ(two->Get("key"), "old") << "it has not heard of it";
  two->cache().Heed("orders", told[0].names, told[0].missed);
  EXPECT_EQ(two->Get("key"), "(miss)");
}

TEST_F(RedisLevelTest, ARedisThatIsFullAndEvictsNothingIsAwayAndSaysWhy) {
  auto node = Node("one");
  Redis({{"CONFIG", "SET", "maxmemory", "1"}});
  node->Set({"key", RedisText("v")});
  node->Up(false);
  EXPECT_THAT(node->level().usage().fault, HasSubstr("OOM"));
  EXPECT_EQ(node->Get("key"), "(miss)");
  Redis({{"CONFIG", "SET", "maxmemory", "0"}});
  node->Up();
  node->Set({"key", RedisText("v")});
  EXPECT_EQ(node->Get("key"), "v");
}

// Both nodes read and change one key while Redis is killed, hangs and goes on; no answer may be older than what was answered before on that node.
TEST_F(RedisLevelTest, UnderThreadsAndFaultsNoNodeIsToldWhatItHasInvalidatedBefore) {
  RedisNode one(redis_.address(), "one"), two(redis_.address(), "two");
  one.Up(), two.Up();
  struct Truth {
    std::atomic<int64_t> now{1}, told{1};
  };
  Truth truths[2];  // a key of each node, which the other one reads and fills, too
  std::atomic<bool> over{false};
  std::atomic<int64_t> reads{0}, found{0}, stale{0};
  std::vector<std::thread> threads;
  for (int which = 0; which < 2; ++which) {
    RedisNode& own = which == 0 ? one : two;
    RedisNode& other = which == 0 ? two : one;
    const std::string key = "key " + std::to_string(which);
    Truth& truth = truths[which];
    for (RedisNode* reader : {&own, &other}) {
      threads.emplace_back([&, reader, key] {
        while (!over) {
          const int64_t least = truth.told;
          const auto look = reader->Look(key);
          if (look.found) {
            ++found;
            if (reader == &own && std::stoll(*look.value) < least) ++stale;
          } else {
            const int64_t read = truth.now;
            reader->Set({key, RedisText(std::to_string(read)), Millis(0), {"tag " + key}, look.version});
          }
          ++reads;
        }
      });
    }
    threads.emplace_back([&, key] {
      for (int64_t next = 2; !over; ++next) {
        truth.now = next;
        if (next % 3 == 0) own.Invalidate({.keys = {key}});
        if (next % 3 == 1) own.Invalidate({.tags = {"tag " + key}});
        if (next % 3 == 2) own.Set({key, RedisText(std::to_string(next)), Millis(0), {"tag " + key}});
        truth.told = next;
        std::this_thread::sleep_for(Millis(2));
      }
    });
  }
  for (int fault = 0; fault < 6; ++fault) {
    std::this_thread::sleep_for(Millis(200));
    fault % 2 == 0 ? redis_.Hang() : redis_.Kill();
    std::this_thread::sleep_for(Millis(300));
    fault % 2 == 0 ? redis_.GoOn() : redis_.Start();
    one.Up(), two.Up();
  }
  std::this_thread::sleep_for(Millis(200));
  over = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(stale, 0) << "of " << reads << ", " << found << " found";
  EXPECT_GT(found, 0);
}

}  // namespace
}  // namespace bulkhead
