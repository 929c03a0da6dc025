// Cached values in memory: bounded by bytes, expiring, tagged, and never older than the last invalidation.
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "bulkhead/cache/memory.h"

namespace bulkhead::cache {
namespace {

constexpr size_t kMiB = 1 << 20;

Bytes ValueOf(size_t size) { return std::make_shared<const std::string>(size, 'x'); }

Entry Make(const std::string& key, size_t size = 10, std::vector<std::string> tags = {}, int64_t version = 1, int64_t expires = 0) {
  return {key, ValueOf(size), std::move(tags), expires, version};
}

TEST(CacheMemory, HoldsNeverMoreThanItsBytesAndCountsWhatHadToGo) {
  Memory memory(kMiB);
  for (int i = 0; i < 5'000; ++i) {
    ASSERT_EQ(memory.Put(Make("key " + std::to_string(i), size_t(i % 4'000))), Memory::Outcome::kStored);
    ASSERT_LE(memory.bytes(), kMiB);
  }
  EXPECT_GT(memory.bytes(), kMiB * 9 / 10);
  EXPECT_EQ(int64_t(memory.entries()) + memory.evictions(), 5'000);
  EXPECT_EQ(memory.Put(Make("large", kMiB)), Memory::Outcome::kTooLarge);
  memory.Resize(kMiB / 8);
  EXPECT_LE(memory.bytes(), kMiB / 8);
  memory.Forget();
  EXPECT_EQ(memory.bytes(), 0u);
  EXPECT_EQ(memory.entries(), 0u);
}

TEST(CacheMemory, BytesAreThoseOfWhatIsThereWhateverWasDone) {
  std::mt19937 random(7);  // NOLINT: the same each time
  Memory memory(64 * 1024);
  int64_t version = 1;
  std::set<std::string> keys;
  for (int i = 0; i < 30'000; ++i) {
    const std::string key = "key " + std::to_string(random() % 300), tag = "tag " + std::to_string(random() % 5);
    keys.insert(key);
    switch (random() % 6) {
      case 0: memory.Invalidate({.keys = {key}}, ++version); break;
      case 1: memory.Find(key, int64_t(i)); break;
      case 2:
        if (random() % 50 == 0) memory.Invalidate({.tags = {tag}}, ++version);
        break;
      case 3: memory.Find(key, 0); break;
      default: memory.Put(Make(key, random() % 2'000, {tag, tag}, version, int64_t(i + random() % 1'000)));
    }
    ASSERT_LE(memory.bytes(), 64u * 1024);
  }
  size_t bytes = 0, entries = 0;
  for (const std::string& key : keys) {
    if (const Entry* entry = memory.Find(key, 0)) {
      bytes += Memory::Cost(*entry);
      ++entries;
    }
  }
  EXPECT_EQ(memory.bytes(), bytes);
  EXPECT_EQ(memory.entries(), entries);
  memory.Invalidate({.all = true}, ++version);
  EXPECT_EQ(memory.bytes(), 0u);
}

TEST(CacheMemory, WhatIsAskedForStaysWhileWhatIsAskedForOnceGoes) {
  Memory memory(100 * Memory::Cost(Make("wanted 00")));
  for (int i = 0; i < 20; ++i) memory.Put(Make("wanted " + std::to_string(10 + i)));
  for (int i = 0; i < 5'000; ++i) {
    for (int j = 0; j < 20; ++j) ASSERT_NE(memory.Find("wanted " + std::to_string(10 + j), 0), nullptr) << i;
    memory.Put(Make("passing " + std::to_string(i)));
  }
}

TEST(CacheMemory, AnEntryEndsWithItsTime) {
  Memory memory(kMiB);
  memory.Put(Make("key", 10, {}, 1, 100));
  EXPECT_NE(memory.Find("key", 99), nullptr);
  EXPECT_EQ(memory.Find("key", 100), nullptr);
  EXPECT_EQ(memory.bytes(), 0u);
  memory.Put(Make("for ever"));
  EXPECT_NE(memory.Find("for ever", std::numeric_limits<int64_t>::max()), nullptr);
}

TEST(CacheMemory, AnInvalidationDropsTheKeysAndTheTagsThatItNamesAndNothingElse) {
  Memory memory(kMiB);
  memory.Put(Make("a", 10, {"red", "round"}));
  memory.Put(Make("b", 10, {"red"}));
  memory.Put(Make("c", 10, {"blue"}));
  memory.Put(Make("red", 10));
  memory.Invalidate({.tags = {"red", "unknown"}}, 2);
  EXPECT_EQ(memory.Find("a", 0), nullptr);
  EXPECT_EQ(memory.Find("b", 0), nullptr);
  EXPECT_NE(memory.Find("c", 0), nullptr);
  EXPECT_NE(memory.Find("red", 0), nullptr) << "a key is no tag";
  memory.Invalidate({.keys = {"c", "nothing"}}, 3);
  EXPECT_EQ(memory.Find("c", 0), nullptr);
}

TEST(CacheMemory, WhatWasReadBeforeAnInvalidationIsNotStoredAfterIt) {
  Memory memory(kMiB);
  memory.Invalidate({.keys = {"key"}, .tags = {"tag"}}, 5);
  EXPECT_EQ(memory.Put(Make("key", 10, {}, 4)), Memory::Outcome::kOvertaken);
  EXPECT_EQ(memory.Put(Make("other", 10, {"tag"}, 4)), Memory::Outcome::kOvertaken);
  EXPECT_EQ(memory.Put(Make("other", 10, {"another"}, 4)), Memory::Outcome::kStored);
  EXPECT_EQ(memory.Put(Make("key", 10, {"tag"}, 5)), Memory::Outcome::kStored);
  memory.Invalidate({.keys = {"key"}}, 5);
  EXPECT_NE(memory.Find("key", 0), nullptr) << "what came ahead of the news of its own version stays";
  EXPECT_EQ(memory.Put(Make("key", 10, {}, 4)), Memory::Outcome::kOvertaken);
  memory.Clear(9);
  EXPECT_EQ(memory.Put(Make("any", 10, {}, 8)), Memory::Outcome::kOvertaken);
  EXPECT_EQ(memory.Put(Make("any", 10, {}, 9)), Memory::Outcome::kStored);
}

TEST(CacheMemory, AnInvalidationThatIsNotRememberedAnyMoreOvertakesAllThatIsOlder) {
  Memory memory(kMiB);
  memory.Invalidate({.keys = {"key"}}, 10);
  for (size_t i = 0; i < Memory::kMaxRemembered; ++i) memory.Invalidate({.keys = {"other " + std::to_string(i)}}, 11 + int64_t(i));
  EXPECT_EQ(memory.Put(Make("key", 10, {}, 9)), Memory::Outcome::kOvertaken);
  EXPECT_EQ(memory.Put(Make("innocent", 10, {}, 9)), Memory::Outcome::kOvertaken) << "nobody knows any more";
  EXPECT_EQ(memory.Put(Make("innocent", 10, {}, 10)), Memory::Outcome::kStored);
}

}  // namespace
}  // namespace bulkhead::cache
