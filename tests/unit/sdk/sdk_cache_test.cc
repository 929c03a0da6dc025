// The cache of one worker by itself, with a clock that the test moves: time to live and its jitter, loads that are shared, absence, tags, bounds. With
// the supervisor behind it: tests/unit/cache/cache_levels_test.cc.
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>

#include "worker_cache.h"

namespace bulkhead::sdk {
namespace {

using std::chrono::milliseconds;

class SdkCache : public testing::Test {
 protected:
  void Move(milliseconds by) { now_ += std::chrono::nanoseconds(by).count(); }
  static std::string Text(const CacheLook& look) { return !look.known ? "(miss)" : look.value ? *look.value : "(nothing)"; }
  CacheLoader Counting(std::optional<std::string> value) {
    return [this, value] { return ++loads_, value; };
  }

  std::atomic<int64_t> now_{1'000'000'000};
  std::atomic<int> loads_{0};
  WorkerCache cache_{MakeNoLevelTwo, [this] { return now_.load(); }};
};

TEST_F(SdkCache, AValueIsFoundUntilItsTimeIsOverAndAbsenceUntilItsOwn) {
  const CacheOptions options{.ttl = milliseconds(1'000), .negative_ttl = milliseconds(100), .jitter = 0};
  cache_.Set("key", "value", options);
  cache_.Set("gone", std::nullopt, options);
  Move(milliseconds(99));
  EXPECT_EQ(Text(cache_.Get("gone")), "(nothing)");
  Move(milliseconds(1));
  EXPECT_EQ(Text(cache_.Get("gone")), "(miss)");
  Move(milliseconds(899));
  EXPECT_EQ(Text(cache_.Get("key")), "value");
  Move(milliseconds(1));
  EXPECT_EQ(Text(cache_.Get("key")), "(miss)");
  cache_.Set("for ever", "value", {.ttl = milliseconds(0)});
  Move(std::chrono::hours(10'000));
  EXPECT_EQ(Text(cache_.Get("for ever")), "value");
}

TEST_F(SdkCache, WhatIsMadeAtOnceDoesNotEndAtOnceAndNothingLivesLongerThanItMay) {
  constexpr int kValues = 1'000;
  for (int i = 0; i < kValues; ++i) cache_.Set("key " + std::to_string(i), "v", {.ttl = milliseconds(10'000), .jitter = 0.5});
  const auto alive = [&] {
    int count = 0;
    for (int i = 0; i < kValues; ++i) count += cache_.Get("key " + std::to_string(i)).known ? 1 : 0;
    return count;
  };
  Move(milliseconds(4'999));
  EXPECT_EQ(alive(), kValues);
  Move(milliseconds(2'501));
  EXPECT_NEAR(alive(), kValues / 2, 100);
  Move(milliseconds(2'500));
  EXPECT_EQ(alive(), 0);
}

TEST_F(SdkCache, OneOfManyThreadsLoadsAndTheOthersGetWhatItGot) {
  constexpr int kThreads = 16;
  std::promise<void> begun, go;
  auto gone = go.get_future().share();
  std::vector<std::future<CacheValue>> all;
  const auto load = [&]() -> std::optional<std::string> {
    if (++loads_ == 1) begun.set_value();
    gone.wait();
    return "value";
  };
  all.push_back(std::async(std::launch::async, [&] { return cache_.GetOrLoad("key", {}, load); }));
  begun.get_future().wait();
  for (int i = 1; i < kThreads; ++i) all.push_back(std::async(std::launch::async, [&] { return cache_.GetOrLoad("key", {}, load); }));
  EXPECT_EQ(*cache_.GetOrLoad("another", {}, [] { return std::optional<std::string>("not held up"); }), "not held up");
  go.set_value();
  for (auto& one : all) EXPECT_EQ(*one.get(), "value");
  EXPECT_EQ(loads_, 1);
}

TEST_F(SdkCache, WhatALoaderThrowsGoesToAllThatWaitAndIsNotRemembered) {
  std::promise<void> begun, go;
  const auto failing = [&]() -> std::optional<std::string> {
    ++loads_;
    begun.set_value();
    go.get_future().wait();
    throw HttpError(502, "SOURCE_AWAY", "no");
  };
  auto first = std::async(std::launch::async, [&] { return cache_.GetOrLoad("key", {}, failing); });
  begun.get_future().wait();
  auto second = std::async(std::launch::async, [&] { return cache_.GetOrLoad("key", {}, Counting("too early")); });
  std::this_thread::sleep_for(milliseconds(20));
  go.set_value();
  EXPECT_THROW(first.get(), HttpError);
  // The second one has joined, or has come after the end of the first.
  try {
    EXPECT_EQ(*second.get(), "too early");
  } catch (const HttpError& error) {
    EXPECT_EQ(error.code(), "SOURCE_AWAY");
    EXPECT_EQ(*cache_.GetOrLoad("key", {}, Counting("value")), "value");
  }
  EXPECT_EQ(loads_, 2);
}

TEST_F(SdkCache, WhoWaitsTooLongForTheLoadOfAnotherIsToldSo) {
  std::promise<void> begun, go;
  auto slow = std::async(std::launch::async, [&] {
    return cache_.GetOrLoad("key", {}, [&]() -> std::optional<std::string> {
      begun.set_value();
      go.get_future().wait();
      return "value";
    });
  });
  begun.get_future().wait();
  try {
    cache_.GetOrLoad("key", {.wait = milliseconds(10)}, Counting("other"));
    ADD_FAILURE() << "nothing was thrown";
  } catch (const CacheTimeout& timeout) {
    EXPECT_EQ(timeout.status(), 503);
    EXPECT_EQ(timeout.key(), "key");
  }
  go.set_value();
  EXPECT_EQ(*slow.get(), "value");
  EXPECT_EQ(loads_, 0);
}

TEST_F(SdkCache, AnInvalidationLetsLaterCallersLoadAnewWhileThoseThatWaitGetTheOldLoad) {
  for (const bool by_tag : {false, true}) {
    const std::string key = by_tag ? "tagged" : "plain";
    std::promise<void> begun, go;
    auto old = std::async(std::launch::async, [&] {
      return cache_.GetOrLoad(key, {.tags = {"tag"}}, [&]() -> std::optional<std::string> {
        begun.set_value();
        go.get_future().wait();
        return "old";
      });
    });
    begun.get_future().wait();
    by_tag ? cache_.InvalidateTag("tag") : cache_.Invalidate(key);
    EXPECT_EQ(*cache_.GetOrLoad(key, {.tags = {"tag"}}, Counting("new")), "new");
    go.set_value();
    EXPECT_EQ(*old.get(), "old");
    EXPECT_EQ(Text(cache_.Get(key)), "new") << "what was loaded before is not kept";
  }
}

TEST_F(SdkCache, ALoaderThatAsksForItsOwnKeyIsToldInsteadOfWaitingForItself) {
  EXPECT_THROW(cache_.GetOrLoad("key", {}, [&] { return std::optional(*cache_.GetOrLoad("key", {}, Counting("inner"))); }), std::logic_error);
  EXPECT_EQ(*cache_.GetOrLoad("key", {}, [&] { return std::optional(*cache_.GetOrLoad("another", {}, Counting("inner"))); }), "inner");
}

TEST_F(SdkCache, AbsenceIsLoadedOnce) {
  for (int i = 0; i < 5; ++i) EXPECT_EQ(cache_.GetOrLoad("key", {}, Counting(std::nullopt)), nullptr);
  EXPECT_EQ(loads_, 1);
  EXPECT_EQ(Text(cache_.Get("key")), "(nothing)");
}

TEST_F(SdkCache, TagsDropAllThatHaveThemInWhicheverShard) {
  for (int i = 0; i < 200; ++i) cache_.Set("key " + std::to_string(i), "v", {.tags = {i % 2 == 0 ? "even" : "odd", "all"}});
  cache_.InvalidateTag("even");
  for (int i = 0; i < 200; ++i) EXPECT_EQ(cache_.Get("key " + std::to_string(i)).known, i % 2 == 1) << i;
  std::vector<std::string> keys;
  for (int i = 0; i < 2'500; ++i) keys.push_back("key " + std::to_string(i));
  cache_.InvalidateAll(keys, {});
  EXPECT_EQ(cache_.counts().one.entries, 0u);
}

TEST_F(SdkCache, TheMemoryIsBoundedByTheBytesThatWereSet) {
  cache_.SetMaxBytes(1 << 20);
  for (int i = 0; i < 5'000; ++i) cache_.Set("key " + std::to_string(i), std::string(1'000, 'x'), {});
  const auto counts = cache_.counts();
  EXPECT_LE(counts.one.bytes, size_t{1} << 20);
  EXPECT_GT(counts.one.bytes, size_t{1} << 19);
  EXPECT_EQ(counts.one.evictions + int64_t(counts.one.entries), 5'000);
  cache_.Freeze();
  EXPECT_THROW(cache_.SetMaxBytes(1 << 20), std::logic_error);
}

TEST_F(SdkCache, WhatIsBeyondTheLimitsOrNoTextIsAnInvalidArgument) {
  EXPECT_THROW(cache_.Set("", "v", {}), std::invalid_argument);
  EXPECT_THROW(cache_.Set(std::string(kMaxCacheKey + 1, 'k'), "v", {}), std::invalid_argument);
  EXPECT_THROW(cache_.Get("\xff"), std::invalid_argument);
  EXPECT_THROW(cache_.Set("k", "v", {.tags = std::vector<std::string>(kMaxCacheTags + 1, "t")}), std::invalid_argument);
  EXPECT_THROW(cache_.GetOrLoad("k", {.tags = {std::string(kMaxCacheTag + 1, 't')}}, Counting("v")), std::invalid_argument);
  EXPECT_THROW(cache_.Set("k", "v", {.ttl = milliseconds(-1)}), std::invalid_argument);
  EXPECT_THROW(cache_.Set("k", "v", {.jitter = 1.5}), std::invalid_argument);
  EXPECT_THROW(cache_.InvalidateTag(""), std::invalid_argument);
  EXPECT_EQ(loads_, 0);
}

TEST_F(SdkCache, JsonGoesInAndComesOut) {
  cache_.SetJson("key", {{"a", 1}});
  EXPECT_EQ(cache_.GetJson("key")->at("a"), 1);
  EXPECT_FALSE(cache_.GetJson("another"));
  EXPECT_EQ(cache_.GetOrLoadJson("loaded", {}, [] { return std::optional(Json::array({1, 2})); })->size(), 2u);
  EXPECT_FALSE(cache_.GetOrLoadJson("nothing", {}, [] { return std::optional<Json>(); }));
  cache_.Set("no json", "{", {});
  EXPECT_FALSE(cache_.GetJson("no json"));
}

TEST_F(SdkCache, HitsAndMissesAreCounted) {
  cache_.Get("key");
  cache_.GetOrLoad("key", {}, Counting("v"));
  cache_.Get("key");
  cache_.Get("key");
  EXPECT_EQ(cache_.counts().one.hits, 2);
  EXPECT_EQ(cache_.counts().misses, 2);
  EXPECT_DOUBLE_EQ(cache_.counts().hit_rate(), 50);
}

TEST_F(SdkCache, ThreadsOnTheSameKeysFindWhatWasSetOrNothing) {
  cache_.SetMaxBytes(1 << 18);
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 5'000; ++i) {
        const std::string key = "key " + std::to_string((i * 7 + t) % 400);
        if (i % 10 == 0) {
          cache_.InvalidateTag("tag " + std::to_string(i % 30));
        } else if (i % 3 == 0) {
          cache_.Set(key, key, {.tags = {"tag " + std::to_string(i % 30)}});
        } else if (const CacheLook look = cache_.Get(key); look.known && *look.value != key) {
          ++wrong;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace bulkhead::sdk
