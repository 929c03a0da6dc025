// What the workers of a module share: apart from those of other modules, bounded, and invalidated when no worker serves it any more.
#include "supervisor/cache/shared_cache.h"

#include <gtest/gtest.h>

#include "supervisor/base/status.h"
#include "tests/unit/cache/moved_clock.h"

namespace bulkhead {
namespace {

cache::Bytes SharedText(std::string text) { return std::make_shared<const std::string>(std::move(text)); }

class ListeningWorker final : public HostCache::Watcher {
 public:
  void Tell(HostCache::News news) override { news_.push_back(std::move(news)); }
  std::vector<HostCache::News> Take() { return std::exchange(news_, {}); }

 private:
  std::vector<HostCache::News> news_;
};

class SharedCacheTest : public testing::Test {
 protected:
  SharedCacheTest() { Make(1 << 20, 1 << 19); }
  void Make(size_t all, size_t each) {
    SharedCache::Options options{all, each};
    options.after = [this](Millis, std::function<void()> then) { timers_.push_back(std::move(then)); };
    options.tell_others = [this](const std::string& module, const cache::Names& names, bool missed) {
      EXPECT_TRUE(missed) << "other nodes may have a Redis";
      told_others_.emplace_back(module, names);
    };
    cache_ = std::make_unique<SharedCache>(clock_, options);
  }
  absl::StatusOr<HostCache::Look> Look(const std::string& module, const std::string& key) {
    absl::StatusOr<HostCache::Look> answer = absl::UnknownError("no answer");
    cache_->Get(module, key, [&](absl::StatusOr<HostCache::Look> look) { answer = std::move(look); });
    return answer;
  }
  std::string Get(const std::string& module, const std::string& key) {
    const auto look = Look(module, key);
    if (!look.ok()) return "error: " + ErrorCode(look.status());
    return !look->found ? "(miss)" : look->value ? *look->value : "(nothing)";
  }
  int64_t VersionOf(const std::string& module, const std::string& key) { return Look(module, key)->version; }
  absl::StatusOr<HostCache::Stored> Set(const std::string& module, HostCache::NewEntry entry) {
    absl::StatusOr<HostCache::Stored> answer = absl::UnknownError("no answer yet");
    cache_->Set(module, std::move(entry), [&](absl::StatusOr<HostCache::Stored> stored) { answer = std::move(stored); });
    return answer;
  }
  // Whether it was answered, which an answer of later changes.
  std::shared_ptr<bool> Invalidate(const std::string& module, cache::Names names) {
    auto answered = std::make_shared<bool>(false);
    cache_->Invalidate(module, std::move(names), [answered](const absl::StatusOr<int64_t>& version) { *answered = version.ok(); });
    return answered;
  }
  std::shared_ptr<ListeningWorker> Leased(const std::string& module, const std::string& name) {
    auto worker = std::make_shared<ListeningWorker>();
    cache_->Watch(module, name, worker);
    cache_->Heard(module, worker.get(), 0, 1);
    const auto news = worker->Take();
    EXPECT_EQ(news.size(), 2u);
    EXPECT_EQ(news.at(1).renewed, 1);
    EXPECT_EQ(news.at(1).lease, limits::kCacheLease);
    return worker;
  }
  void RunTimers() {
    for (const auto& timer : std::exchange(timers_, {})) timer();
  }

  MovedClock clock_;
  std::vector<std::function<void()>> timers_;
  std::vector<std::pair<std::string, cache::Names>> told_others_;
  std::unique_ptr<SharedCache> cache_;
};

TEST_F(SharedCacheTest, WhatIsSetIsFoundByTheSameModuleAndByNoOther) {
  ASSERT_TRUE(Set("orders", {"key", SharedText("of orders")})->stored);
  ASSERT_TRUE(Set("prices", {"key", SharedText("of prices")})->stored);
  EXPECT_EQ(Get("orders", "key"), "of orders");
  EXPECT_EQ(Get("prices", "key"), "of prices");
  EXPECT_EQ(Get("third", "key"), "(miss)");
  Invalidate("orders", {.all = true});
  EXPECT_EQ(Get("orders", "key"), "(miss)");
  EXPECT_EQ(Get("prices", "key"), "of prices");
}

TEST_F(SharedCacheTest, ThatThereIsNothingIsFoundAsWell) {
  ASSERT_TRUE(Set("orders", {"key", nullptr, Millis(500)})->stored);
  EXPECT_EQ(Get("orders", "key"), "(nothing)");
  clock_.Move(Millis(500));
  EXPECT_EQ(Get("orders", "key"), "(miss)");
}

TEST_F(SharedCacheTest, ALookTellsWhatIsLeftOfTheTime) {
  EXPECT_TRUE(Set("orders", {"key", SharedText("v"), Millis(10'000), {"a", "b"}}).ok());
  clock_.Move(Millis(4'000));
  const auto look = Look("orders", "key");
  EXPECT_EQ(look->ttl_left, Millis(6'000));
  EXPECT_EQ(look->tags, (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(Set("orders", {"for ever", SharedText("v")}).ok());
  EXPECT_EQ(Look("orders", "for ever")->ttl_left, Millis(0));
}

TEST_F(SharedCacheTest, WhatWasReadBeforeAnInvalidationOrASetIsRefused) {
  for (const cache::Names& names : {cache::Names{.keys = {"key"}}, cache::Names{.tags = {"tag"}}, cache::Names{.all = true}}) {
    const int64_t before = VersionOf("orders", "key");
    Invalidate("orders", names);
    const auto refused = Set("orders", {"key", SharedText("old"), Millis(0), {"tag"}, before});
    ASSERT_TRUE(refused.ok());
    EXPECT_FALSE(refused->stored);
    EXPECT_EQ(Get("orders", "key"), "(miss)");
  }
  const int64_t before = VersionOf("orders", "key");
  EXPECT_TRUE(Set("orders", {"key", SharedText("new")}).ok());
  EXPECT_FALSE(Set("orders", {"key", SharedText("old"), Millis(0), {}, before})->stored);
  EXPECT_EQ(Get("orders", "key"), "new");
  EXPECT_EQ(cache_->Usage().at(0).overtaken, 4);
}

TEST_F(SharedCacheTest, KeysValuesTagsAndNamesBeyondTheirLimitsAreRefusedAndTheLimitsThemselvesAreNot) {
  Make(8 << 20, 8 << 20);
  const auto code = [&](HostCache::NewEntry entry) {
    const auto stored = Set("orders", std::move(entry));
    return stored.ok() ? "" : ErrorCode(stored.status());
  };
  EXPECT_EQ(code({std::string(cache::kMaxKey, 'k'), SharedText(std::string(cache::kMaxValue, 'v')), Millis(0),
                  std::vector<std::string>(cache::kMaxTags, std::string(cache::kMaxTag, 't'))}),
            "");
  EXPECT_EQ(code({std::string(cache::kMaxKey + 1, 'k'), SharedText("v")}), "INVALID_ARGUMENT");
  EXPECT_EQ(code({"", SharedText("v")}), "INVALID_ARGUMENT");
  EXPECT_EQ(code({"k", SharedText(std::string(cache::kMaxValue + 1, 'v'))}), "INVALID_ARGUMENT");
  EXPECT_EQ(code({"k", SharedText("v"), Millis(0), std::vector<std::string>(cache::kMaxTags + 1, "t")}), "INVALID_ARGUMENT");
  EXPECT_EQ(code({"k", SharedText("v"), Millis(0), {std::string(cache::kMaxTag + 1, 't')}}), "INVALID_ARGUMENT");
  EXPECT_EQ(code({"k", SharedText("v"), Millis(0), {}, -1}), "INVALID_ARGUMENT");
  EXPECT_EQ(Get("orders", std::string(cache::kMaxKey + 1, 'k')), "error: INVALID_ARGUMENT");
  EXPECT_TRUE(*Invalidate("orders", {.keys = std::vector<std::string>(cache::kMaxNames, "k")}));
  EXPECT_FALSE(*Invalidate("orders", {.keys = std::vector<std::string>(cache::kMaxNames, "k"), .tags = {"t"}}));
}

TEST_F(SharedCacheTest, AModuleHasItsBoundAndAllHaveTheirsWhereTheLargestGivesWay) {
  Make(100'000, 60'000);
  const auto fill = [&](const std::string& module, int entries) {
    for (int i = 0; i < entries; ++i) EXPECT_TRUE(Set(module, {"key " + std::to_string(i), SharedText(std::string(1'000, 'x'))}).ok());
  };
  fill("large", 200);
  EXPECT_LE(cache_->Usage().at(0).bytes, 60'000u);
  EXPECT_GT(cache_->Usage().at(0).evictions, 100);
  fill("small", 10);
  fill("third", 200);
  EXPECT_LE(cache_->bytes(), 100'000u);
  size_t sum = 0;
  for (const CacheUsage& usage : cache_->Usage()) {
    sum += usage.bytes;
    EXPECT_EQ(usage.module == "small" ? usage.entries : 10u, 10u) << "the small one gave way";
  }
  EXPECT_EQ(cache_->bytes(), sum);
}

TEST_F(SharedCacheTest, WithoutAnyRoomNothingIsFoundAndInvalidationsAreToldAllTheSame) {
  Make(0, 1 << 20);
  auto worker = Leased("orders", "one");
  EXPECT_FALSE(Set("orders", {"key", SharedText("v"), Millis(0), {}, VersionOf("orders", "key")})->stored);
  EXPECT_EQ(Get("orders", "key"), "(miss)");
  Invalidate("orders", {.keys = {"key"}});
  EXPECT_EQ(worker->Take().size(), 1u);
  EXPECT_EQ(cache_->Usage().at(0).too_large, 1);
}

TEST_F(SharedCacheTest, AnInvalidationIsAnsweredWhenEachWorkerWithALeaseHasDroppedWhatItNames) {
  auto one = Leased("orders", "one"), two = Leased("orders", "two"), other = Leased("prices", "three");
  auto without = std::make_shared<ListeningWorker>();
  cache_->Watch("orders", "four", without);
  const auto answered = Invalidate("orders", {.keys = {"a"}, .tags = {"t"}});
  EXPECT_FALSE(*answered);
  const auto news = one->Take();
  ASSERT_EQ(news.size(), 1u);
  EXPECT_EQ(news[0].names.keys, std::vector<std::string>{"a"});
  EXPECT_EQ(news[0].names.tags, std::vector<std::string>{"t"});
  EXPECT_EQ(other->Take().size(), 0u);
  cache_->Heard("orders", one.get(), news[0].version, 0);
  EXPECT_FALSE(*answered);
  cache_->Heard("orders", two.get(), news[0].version - 1, 0);
  EXPECT_FALSE(*answered) << "that was an earlier one";
  cache_->Heard("orders", two.get(), news[0].version, 0);
  EXPECT_TRUE(*answered);
}

TEST_F(SharedCacheTest, ASetOfTheNewValueWaitsForTheOldOneToBeDroppedAndAFillForNobody) {
  auto one = Leased("orders", "one");
  EXPECT_TRUE(Set("orders", {"key", SharedText("loaded"), Millis(0), {}, VersionOf("orders", "key")}).ok());
  EXPECT_EQ(one->Take().size(), 0u);
  auto answered = std::make_shared<bool>(false);
  cache_->Set("orders", {"key", SharedText("new")}, [answered](const absl::StatusOr<HostCache::Stored>& stored) { *answered = stored.ok() && stored->stored; });
  EXPECT_FALSE(*answered);
  const auto news = one->Take();
  ASSERT_EQ(news.size(), 1u);
  cache_->Heard("orders", one.get(), news[0].version, 0);
  EXPECT_TRUE(*answered);
  EXPECT_EQ(Get("orders", "key"), "new");
}

TEST_F(SharedCacheTest, AWorkerThatSaysNothingIsWaitedForUntilItsLeaseIsOver) {
  auto one = Leased("orders", "one");
  const auto answered = Invalidate("orders", {.keys = {"a"}});
  clock_.Move(limits::kCacheLease - Millis(1));
  RunTimers();
  EXPECT_FALSE(*answered);
  clock_.Move(Millis(1));
  RunTimers();
  EXPECT_TRUE(*answered);
  EXPECT_TRUE(timers_.empty()) << "nobody is waited for";
  EXPECT_TRUE(*Invalidate("orders", {.keys = {"a"}})) << "it has no lease";
}

TEST_F(SharedCacheTest, AStreamThatEndsIsNoEndOfTheLeaseAndAProcessThatEndsIs) {
  auto one = Leased("orders", "one");
  cache_->Unwatch("orders", one.get());
  const auto answered = Invalidate("orders", {.keys = {"a"}});
  EXPECT_FALSE(*answered) << "it may not know yet";
  EXPECT_EQ(one->Take().size(), 0u);
  cache_->Gone("orders", "another");
  EXPECT_FALSE(*answered);
  cache_->Gone("orders", "one");
  EXPECT_TRUE(*answered);
  EXPECT_TRUE(*Invalidate("orders", {.keys = {"a"}}));
}

TEST_F(SharedCacheTest, OtherNodesAreToldOfWhatAModuleInvalidatesHereAndNotOfWhatTheySaid) {
  EXPECT_TRUE(Set("orders", {"key", SharedText("v"), Millis(0), {"t"}, VersionOf("orders", "key")}).ok());
  EXPECT_EQ(told_others_.size(), 0u);
  Invalidate("orders", {.tags = {"x"}});
  EXPECT_TRUE(Set("orders", {"key", SharedText("w"), Millis(0), {"t"}}).ok());
  ASSERT_EQ(told_others_.size(), 2u);
  EXPECT_EQ(told_others_[0].second.tags, std::vector<std::string>{"x"});
  EXPECT_EQ(told_others_[1].second.keys, std::vector<std::string>{"key"});
  auto worker = Leased("orders", "one");
  const int64_t before = VersionOf("orders", "key");
  cache_->Heed("orders", {.tags = {"t"}}, false);
  EXPECT_EQ(Get("orders", "key"), "(miss)");
  EXPECT_FALSE(Set("orders", {"key", SharedText("old"), Millis(0), {"t"}, before})->stored);
  EXPECT_EQ(worker->Take().size(), 1u);
  cache_->Heed("unknown", {.all = true}, false);
  EXPECT_TRUE(Set("orders", {"key", SharedText("w"), Millis(0), {}, VersionOf("orders", "key")}).ok());
  cache_->ForgetAll();
  EXPECT_EQ(Get("orders", "key"), "(miss)");
  EXPECT_EQ(told_others_.size(), 2u);
}

TEST_F(SharedCacheTest, AModulesCacheIsEmptiedWhenItIsEnabledDisabledAndOfAnotherVersion) {
  const auto publish = [&](std::map<std::string, std::string> versions) {
    auto directory = std::make_shared<Directory>();
    for (const auto& [name, version] : versions) {
      auto manifest = std::make_shared<Manifest>();
      manifest->version = version;
      auto module = std::make_shared<DirectoryModule>();
      module->name = name;
      module->manifest = manifest;
      directory->modules[name] = module;
    }
    bool adopted = false;
    cache_->Adopt(directory, [&] { adopted = true; });
    EXPECT_TRUE(adopted);
  };
  const auto kept = [&](std::map<std::string, std::string> versions) {
    EXPECT_TRUE(Set("orders", {"key", SharedText("v")}).ok());
    publish(std::move(versions));
    return Get("orders", "key") == "v";
  };
  EXPECT_FALSE(kept({{"orders", "1.0.0"}}));
  EXPECT_TRUE(kept({{"orders", "1.0.0"}, {"prices", "1.0.0"}}));
  EXPECT_FALSE(kept({{"orders", "1.1.0"}}));
  EXPECT_FALSE(kept({}));
  EXPECT_FALSE(kept({{"orders", "1.1.0"}}));
}

TEST_F(SharedCacheTest, TheVersionsOfTheNextSupervisorAreAboveThoseOfThisOne) {
  Invalidate("orders", {.all = true});
  const int64_t here = VersionOf("orders", "key");
  EXPECT_GE(here, int64_t{1'700'000'000} * 1'000'000);
}

}  // namespace
}  // namespace bulkhead
