// The quota of a module's files: at its edge, and under thousands of seeded interleavings of puts, removals and renames with crashes in between.
#include "supervisor/files/file_ledger.h"

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

FileLedger With(int64_t bytes, int64_t files = 100) {
  FileLedger ledger;
  ledger.SetQuota({bytes, files});
  return ledger;
}

void Store(FileLedger& ledger, const std::string& name, int64_t bytes) {
  static FileLedger::Put next = 1'000'000;
  ASSERT_TRUE(ledger.Begin(++next, name).ok());
  ASSERT_TRUE(ledger.Grow(next, bytes).ok());
  ledger.Commit(next, bytes, WallTime());
}

std::vector<std::string> NamesOf(const HostFiles::Page& page) {
  std::vector<std::string> names;
  for (const StoredFile& file : page.files) names.push_back(file.name);
  return names;
}

TEST(FileLedger, AFileMayFillTheQuotaToItsLastByteAndNoFurther) {
  FileLedger ledger = With(100);
  Store(ledger, "a", 60);
  Store(ledger, "b", 40);
  ASSERT_TRUE(ledger.Begin(1, "c").ok());
  const absl::Status refused = ledger.Grow(1, 1);
  EXPECT_EQ(ErrorCode(refused), "QUOTA_EXCEEDED");
  EXPECT_THAT(std::string(refused.message()), testing::HasSubstr("101 bytes"));
  EXPECT_EQ(ledger.counted_bytes(), 100);
  EXPECT_EQ(ledger.counted_files(), 2) << "what was refused counts no more";
}

TEST(FileLedger, OfTwoPutsThatTogetherAreTooMuchExactlyOneIsRefused) {
  FileLedger ledger = With(100);
  ASSERT_TRUE(ledger.Begin(1, "a").ok());
  ASSERT_TRUE(ledger.Begin(2, "b").ok());
  ASSERT_TRUE(ledger.Grow(1, 50).ok());
  ASSERT_TRUE(ledger.Grow(2, 50).ok());
  EXPECT_FALSE(ledger.Grow(1, 10).ok());
  EXPECT_TRUE(ledger.Grow(2, 10).ok()) << "the place of the refused one is free at once";
  ledger.Commit(2, 60, WallTime());
  EXPECT_EQ(ledger.bytes(), 60);
}

TEST(FileLedger, AFileMayBeReplacedByOneOfItsSizeInAFullQuota) {
  FileLedger ledger = With(100, 1);
  Store(ledger, "a", 100);
  Store(ledger, "a", 100);
  EXPECT_EQ(ledger.bytes(), 100);
  Store(ledger, "a", 10);
  EXPECT_EQ(ledger.bytes(), 10);
  EXPECT_EQ(ledger.counted_bytes(), 10);
}

TEST(FileLedger, TheNumberOfFilesIsCountedWithThoseOnTheirWay) {
  FileLedger ledger = With(100, 2);
  Store(ledger, "a", 0);
  ASSERT_TRUE(ledger.Begin(1, "b").ok());
  EXPECT_EQ(ErrorCode(ledger.Begin(2, "c")), "QUOTA_EXCEEDED");
  EXPECT_TRUE(ledger.Begin(3, "a").ok()) << "that name is there already";
  ledger.Abort(1);
  EXPECT_TRUE(ledger.Begin(4, "c").ok());
}

TEST(FileLedger, ASmallerQuotaTakesNothingAwayAndLetsTheModuleShrink) {
  FileLedger ledger = With(100);
  Store(ledger, "a", 60);
  Store(ledger, "b", 40);
  ledger.SetQuota({10, 1});
  EXPECT_FALSE(ledger.Begin(1, "c").ok());
  Store(ledger, "a", 60);  // no larger than it was
  EXPECT_TRUE(ledger.Rename("a", "z").ok());
  EXPECT_TRUE(ledger.Rename("z", "b").ok());
  EXPECT_EQ(ledger.bytes(), 60);
  ledger.Remove("b");
  Store(ledger, "c", 10);
}

TEST(FileLedger, ARenameIsRefusedOnlyForWhatIsOnItsWay) {
  FileLedger ledger = With(100);
  Store(ledger, "a", 60);
  ASSERT_TRUE(ledger.Begin(1, "a").ok());
  ASSERT_TRUE(ledger.Grow(1, 60).ok());
  EXPECT_EQ(ErrorCode(ledger.Rename("a", "b")), "QUOTA_EXCEEDED") << "both would be there in the end";
  EXPECT_EQ(ledger.Find("a")->bytes, 60);
  EXPECT_FALSE(ledger.Find("b"));
  ledger.Abort(1);
  EXPECT_TRUE(ledger.Rename("a", "b").ok());
  EXPECT_TRUE(ledger.Rename("b", "b").ok());
  ledger.TakeBack("a", "b", std::nullopt);
  EXPECT_EQ(ledger.Find("a")->bytes, 60);
  EXPECT_FALSE(ledger.Find("b"));
}

TEST(FileLedger, ListsInOrderPageByPage) {
  FileLedger ledger = With(100);
  for (const char* name : {"b", "a/2", "a/1", "a", "a!", "c"}) Store(ledger, name, 1);
  ASSERT_TRUE(ledger.Begin(1, "a/0").ok());  // on its way: not there yet
  EXPECT_THAT(NamesOf(ledger.List("", "", 100)), testing::ElementsAre("a", "a!", "a/1", "a/2", "b", "c"));
  EXPECT_THAT(NamesOf(ledger.List("a/", "", 100)), testing::ElementsAre("a/1", "a/2"));
  EXPECT_THAT(NamesOf(ledger.List("a/", "a/1", 100)), testing::ElementsAre("a/2"));
  EXPECT_THAT(NamesOf(ledger.List("a/", "b", 100)), testing::IsEmpty());
  EXPECT_TRUE(ledger.List("", "", 5).more);
  EXPECT_FALSE(ledger.List("", "", 6).more);
  EXPECT_FALSE(ledger.List("a/", "", 2).more);
  EXPECT_EQ(ledger.Count("a/"), 2u);
  EXPECT_EQ(ledger.Count(""), 6u);
}

// What the ledger should be, written down the slow way.
struct Model {
  struct Put {
    std::string name;
    int64_t bytes = 0;
  };
  std::map<std::string, int64_t> disk;
  std::map<FileLedger::Put, Put> puts;
  FileQuota quota;

  // Bytes and files that count.
  std::pair<int64_t, int64_t> Counted() const {
    std::map<std::string, int64_t> coming;
    for (const auto& [id, put] : puts) coming[put.name] += put.bytes;
    for (const auto& [name, bytes] : disk) coming[name] = std::max(coming[name], bytes);
    int64_t all = 0;
    for (const auto& [name, bytes] : coming) all += bytes;
    return {all, static_cast<int64_t>(coming.size())};
  }
  bool Admits(std::pair<int64_t, int64_t> before) const {
    const auto now = Counted();
    return (now.first <= before.first || now.first <= quota.bytes) && (now.second <= before.second || now.second <= quota.files);
  }
};

TEST(FileLedger, AgreesWithTheSlowModelUnderEveryInterleaving) {
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    const auto upto = [&](int64_t most) { return static_cast<int64_t>(random() % static_cast<uint64_t>(most + 1)); };
    Model model;
    model.quota = {50 + upto(100), 2 + upto(4)};
    FileLedger ledger;
    ledger.SetQuota(model.quota);
    FileLedger::Put next = 1;
    bool lowered = false;
    for (int step = 0; step < 400; ++step) {
      const std::string name = "f" + std::to_string(upto(5)), other = "f" + std::to_string(upto(5));
      const auto put = model.puts.empty() ? model.puts.end() : std::next(model.puts.begin(), upto(static_cast<int64_t>(model.puts.size()) - 1));
      const auto before = model.Counted();
      switch (upto(9)) {
        case 0: case 1: {
          Model tried = model;
          tried.puts[next] = {name, 0};
          ASSERT_EQ(ledger.Begin(next, name).ok(), tried.Admits(before));
          if (tried.Admits(before)) model = tried;
          ++next;
          break;
        }
        case 2: case 3: case 4: {
          if (put == model.puts.end()) break;
          const FileLedger::Put id = put->first;
          const int64_t by = upto(40);
          Model tried = model;
          tried.puts[id].bytes += by;
          ASSERT_EQ(ledger.Grow(id, by).ok(), tried.Admits(before));
          if (tried.Admits(before)) {
            model = tried;
          } else {
            model.puts.erase(id);
          }
          break;
        }
        case 5:
          if (put == model.puts.end()) break;
          ledger.Commit(put->first, put->second.bytes, WallTime());
          model.disk[put->second.name] = put->second.bytes;
          model.puts.erase(put);
          break;
        case 6:
          if (put == model.puts.end()) break;
          ledger.Abort(put->first);
          model.puts.erase(put);
          break;
        case 7:
          ledger.Remove(name);
          model.disk.erase(name);
          break;
        case 8: {
          if (!model.disk.contains(name)) break;
          Model tried = model;
          const int64_t bytes = tried.disk[name];
          tried.disk.erase(name);
          tried.disk[other] = bytes;
          ASSERT_EQ(ledger.Rename(name, other).ok(), tried.Admits(before));
          if (tried.Admits(before)) model = tried;
          break;
        }
        case 9:
          if (upto(9) == 0) {  // the supervisor dies: what was on its way is gone, the rest is counted again
            model.puts.clear();
            ledger = FileLedger();
            ledger.SetQuota(model.quota);
            for (const auto& [each, bytes] : model.disk) ledger.Restore(each, bytes, WallTime());
          } else if (upto(20) == 0) {
            lowered = true;
            model.quota = {upto(100), upto(4)};
            ledger.SetQuota(model.quota);
          }
          break;
      }
      ASSERT_EQ((std::pair{ledger.counted_bytes(), ledger.counted_files()}), model.Counted());
      int64_t stored = 0;
      for (const auto& [each, bytes] : model.disk) stored += bytes;
      ASSERT_EQ(ledger.bytes(), stored);
      ASSERT_EQ(ledger.files(), static_cast<int64_t>(model.disk.size()));
      ASSERT_EQ(ledger.List("", "", 100).files.size(), model.disk.size());
      if (lowered) continue;
      ASSERT_LE(ledger.counted_bytes(), model.quota.bytes) << "never more than the quota";
      ASSERT_LE(ledger.counted_files(), model.quota.files);
      int64_t on_disk = stored;
      for (const auto& [id, each] : model.puts) on_disk += each.bytes;
      ASSERT_LE(on_disk, 2 * model.quota.bytes) << "nor twice as much on the disk";
    }
  }
}

}  // namespace
}  // namespace bulkhead
