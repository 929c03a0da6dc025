// Files on a real disk: replaced whole, counted again, gone with their module, and what a crash leaves.
#include "supervisor/files/file_store.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr int64_t kMiB = 1 << 20;

class FileStoreTest : public testing::Test {
 protected:
  FileStoreTest() {
    char folder[] = "/tmp/bh-files-XXXXXX";
    folder_ = mkdtemp(folder);
    Reopen();
  }
  ~FileStoreTest() override {
    store_.reset();
    fs::remove_all(folder_);
  }

  void Reopen(int64_t most = 64 * kMiB) {
    store_.reset();
    auto opened = FileStore::Open(folder_, most);
    ASSERT_TRUE(opened.ok()) << opened.status();
    store_ = *std::move(opened);
    store_->SetInstance("token", "m", {kMiB, 100}, true);
  }
  absl::Status Put(const std::string& name, std::string_view bytes, const std::string& module = "m") {
    auto writer = store_->Create(module, name, 0);
    if (!writer.ok()) return writer.status();
    RETURN_IF_ERROR((*writer)->Write(bytes));
    return (*writer)->Commit().status();
  }
  std::string Get(const std::string& name, int64_t offset = 0, int64_t length = -1, const std::string& module = "m") {
    auto reader = store_->Open(module, name, offset, length);
    if (!reader.ok()) return "(" + ErrorCode(reader.status()) + ")";
    std::string all;
    while (true) {
      auto part = (*reader)->Read(7);
      if (!part.ok()) return "(" + ErrorCode(part.status()) + ")";
      if (part->empty()) return all;
      all += *part;
    }
  }
  std::vector<std::string> Names(const std::string& module = "m") {
    std::vector<std::string> names;
    for (const StoredFile& file : store_->List(module, "", "", 1'000).files) names.push_back(file.name);
    return names;
  }
  std::vector<std::string> OnDisk(const std::string& below) {
    std::vector<std::string> names;
    if (!fs::exists(folder_ + "/" + below)) return names;
    for (const auto& entry : fs::directory_iterator(folder_ + "/" + below)) names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }
  FileUsage Usage(const std::string& module = "m") { return store_->Usage(module, {}); }

  std::string folder_;
  std::unique_ptr<FileStore> store_;
};

TEST_F(FileStoreTest, WhatIsStoredIsReadWholeAndInRanges) {
  ASSERT_TRUE(Put("a/b.txt", "0123456789abcdef").ok());
  EXPECT_EQ(Get("a/b.txt"), "0123456789abcdef");
  EXPECT_EQ(Get("a/b.txt", 10), "abcdef");
  EXPECT_EQ(Get("a/b.txt", 2, 9), "23456789a");
  EXPECT_EQ(Get("a/b.txt", 14, 100), "ef");
  EXPECT_EQ(Get("a/b.txt", 16), "");
  EXPECT_EQ(Get("a/b.txt", 1'000, 5), "");
  EXPECT_EQ(Get("a/b.txt", 0, 0), "");
  EXPECT_EQ(Get("a/b.txt", -1), "(INVALID_ARGUMENT)");
  EXPECT_EQ(Get("a"), "(FILE_NOT_FOUND)");
  EXPECT_EQ(Get("../m/a"), "(INVALID_ARGUMENT)");
  EXPECT_EQ(store_->Stat("m", "a/b.txt")->bytes, 16);
  EXPECT_THAT(OnDisk("m"), ElementsAre("a\\b.txt")) << "an operator can read it";
}

TEST_F(FileStoreTest, AFileAndOneBelowItsNameAreTwoFiles) {
  ASSERT_TRUE(Put("a", "one").ok());
  ASSERT_TRUE(Put("a/b", "two").ok());
  EXPECT_EQ(Get("a") + Get("a/b"), "onetwo");
  EXPECT_TRUE(*store_->Remove("m", "a"));
  EXPECT_FALSE(*store_->Remove("m", "a"));
  EXPECT_EQ(Get("a/b"), "two");
}

TEST_F(FileStoreTest, WhoReadsHasTheOldFileToItsEnd) {
  ASSERT_TRUE(Put("a", "the old one").ok());
  auto reader = store_->Open("m", "a", 0, -1);
  ASSERT_TRUE(reader.ok());
  ASSERT_TRUE(Put("a", "new").ok());
  EXPECT_EQ(*(*reader)->Read(100), "the old one");
  EXPECT_EQ(Get("a"), "new");
  EXPECT_EQ(Usage().bytes, 3);
}

TEST_F(FileStoreTest, WhatIsNotCommittedLeavesNothing) {
  ASSERT_TRUE(Put("a", "old").ok());
  {
    auto writer = store_->Create("m", "a", 0);
    ASSERT_TRUE((*writer)->Write("half of the n").ok());
    EXPECT_EQ(Get("a"), "old");
    EXPECT_EQ(OnDisk(".new").size(), 1u);
  }
  EXPECT_EQ(Get("a"), "old");
  EXPECT_THAT(OnDisk(".new"), IsEmpty());
  EXPECT_EQ(Usage().bytes, 3);
}

TEST_F(FileStoreTest, ACrashInTheMiddleOfAPutLeavesWhatTheNextStartRemoves) {
  ASSERT_TRUE(Put("a", "old").ok());
  const pid_t child = fork();
  if (child == 0) {
    auto opened = FileStore::Open(folder_, kMiB);
    (*opened)->SetInstance("t", "m", {kMiB, 100}, true);
    auto writer = (*opened)->Create("m", "a", 0);
    (void)(*writer)->Write("half of the n");
    kill(getpid(), SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(OnDisk(".new").size(), 1u);
  Reopen();
  EXPECT_THAT(OnDisk(".new"), IsEmpty());
  EXPECT_EQ(Get("a"), "old");
  EXPECT_EQ(Usage().bytes, 3);
  EXPECT_EQ(Usage().files, 1);
}

TEST_F(FileStoreTest, AStartCountsAgainAndLeavesAloneWhatIsNotItsOwn) {
  ASSERT_TRUE(Put("a", "12345").ok());
  ASSERT_TRUE(Put("b/c", "678").ok());
  fs::create_directory(folder_ + "/m/folder");
  std::ofstream(folder_ + "/m/\\") << "no name";
  fs::create_symlink("/etc/passwd", folder_ + "/m/link");
  Reopen();
  EXPECT_THAT(Names(), ElementsAre("a", "b/c"));
  EXPECT_EQ(Usage().bytes, 8);
  EXPECT_EQ(Get("link"), "(INTERNAL)") << "never followed";
  EXPECT_EQ(Get("folder"), "(FILE_NOT_FOUND)");
  EXPECT_EQ(Get("b/c"), "678");
}

TEST_F(FileStoreTest, TheQuotaIsThatOfTheManifestWithinTheOperators) {
  Reopen(10);
  EXPECT_EQ(Usage().quota.bytes, 10);
  EXPECT_TRUE(Put("a", "0123456789").ok());
  EXPECT_EQ(ErrorCode(Put("b", "x")), "QUOTA_EXCEEDED");
  EXPECT_TRUE(Put("a", "9876543210").ok());
  EXPECT_EQ(Usage().refused_by_quota, 1);
  EXPECT_THAT(Names(), ElementsAre("a"));
  EXPECT_THAT(OnDisk(".new"), IsEmpty());
  EXPECT_EQ(store_->Usage("nobody", {1'000, 7}).quota.bytes, 10);
}

TEST_F(FileStoreTest, WhileTwoVersionsRunTheLargerQuotaHolds) {
  store_->SetInstance("successor", "m", {4, 100}, true);
  EXPECT_EQ(Usage().quota.bytes, kMiB);
  store_->SetInstance("token", "m", {}, false);
  EXPECT_EQ(Usage().quota.bytes, 4);
  EXPECT_EQ(ErrorCode(Put("a", "12345")), "QUOTA_EXCEEDED");
  store_->SetInstance("successor", "m", {}, false);
  EXPECT_EQ(store_->Usage("m", {77, 1}).quota.bytes, 77) << "with no process, what its manifest asks for";
}

TEST_F(FileStoreTest, RoomThatIsReservedIsRefusedBeforeTheFirstByte) {
  EXPECT_EQ(ErrorCode(store_->Create("m", "a", 2 * kMiB).status()), "QUOTA_EXCEEDED");
  auto writer = store_->Create("m", "a", kMiB);
  ASSERT_TRUE(writer.ok());
  EXPECT_EQ(ErrorCode(Put("b", "x")), "QUOTA_EXCEEDED");
  ASSERT_TRUE((*writer)->Write("less").ok());
  ASSERT_TRUE((*writer)->Commit().ok());
  EXPECT_TRUE(Put("b", "x").ok()) << "what was not needed is free again";
}

TEST_F(FileStoreTest, ARenameReplaces) {
  ASSERT_TRUE(Put("a", "one").ok());
  ASSERT_TRUE(Put("b", "second").ok());
  ASSERT_TRUE(store_->Rename("m", "a", "b").ok());
  EXPECT_EQ(Get("b"), "one");
  EXPECT_EQ(ErrorCode(store_->Rename("m", "a", "b")), "FILE_NOT_FOUND");
  EXPECT_EQ(ErrorCode(store_->Rename("m", "b", "../b")), "INVALID_ARGUMENT");
  EXPECT_TRUE(store_->Rename("m", "b", "b").ok());
  EXPECT_EQ(Usage().bytes, 3);
  EXPECT_THAT(Names(), ElementsAre("b"));
}

TEST_F(FileStoreTest, AFullDiskIsToldAndLosesNothing) {
  ASSERT_TRUE(Put("a", "old").ok());
  // As a disk that is full does: a file gets no longer than the limit of the process.
  signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  rlimit little = before;
  little.rlim_cur = 4'096;
  setrlimit(RLIMIT_FSIZE, &little);
  const absl::Status full = Put("a", std::string(10'000, 'n'));
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_EQ(ErrorCode(full), "DISK_FULL") << full;
  EXPECT_EQ(HttpStatus("DISK_FULL"), 507);
  EXPECT_EQ(Get("a"), "old");
  EXPECT_THAT(OnDisk(".new"), IsEmpty());
  EXPECT_EQ(Usage().refused_by_disk, 1);
  EXPECT_EQ(Usage().bytes, 3);
  EXPECT_TRUE(Put("a", "new").ok());
}

TEST_F(FileStoreTest, AModuleSeesNothingOfAnotherAndItsEndTakesItsFilesAlone) {
  store_->SetInstance("other", "n", {kMiB, 100}, true);
  ASSERT_TRUE(Put("a", "of m").ok());
  ASSERT_TRUE(Put("a", "of n", "n").ok());
  EXPECT_EQ(Get("a") + Get("a", 0, -1, "n"), "of mof n");
  auto late = store_->Create("m", "late", 0);
  ASSERT_TRUE(store_->Purge("m").ok());
  EXPECT_FALSE((*late)->Commit().ok()) << "a worker that was still at it";
  late->reset();
  EXPECT_THAT(Names(), IsEmpty());
  EXPECT_EQ(Get("a"), "(FILE_NOT_FOUND)");
  EXPECT_THAT(OnDisk(""), ElementsAre(".new", "n"));
  EXPECT_THAT(OnDisk(".new"), IsEmpty());
  EXPECT_EQ(Get("a", 0, -1, "n"), "of n");
  ASSERT_TRUE(store_->Purge("nobody").ok());
  store_->SetInstance("again", "m", {kMiB, 100}, true);
  EXPECT_TRUE(Put("a", "anew").ok());
}

// One step of a process that is killed in the middle of its steps.
struct Step {
  char what = 0;  // p: put `size` times `of` to `name`, r: remove, m: rename to `other`
  char name = 0, other = 0, of = 0;
  int32_t size = 0;
  using Contents = std::map<std::string, std::pair<char, int64_t>>;
  void ApplyTo(Contents& contents) const {
    const std::string from(1, name), to(1, other);
    if (what == 'p') contents[from] = {of, size};
    if (what == 'r') contents.erase(from);
    if (what != 'm' || !contents.contains(from) || from == to) return;
    contents[to] = contents[from];
    contents.erase(from);
  }
};

// Says each step before it and behind it, until it is killed.
[[noreturn]] void StepOn(const std::string& folder, uint64_t seed, int said) {
  auto opened = FileStore::Open(folder, 64 * kMiB);
  (*opened)->SetInstance("t", "m", {kMiB, 100}, true);
  for (std::mt19937_64 random(seed);;) {
    Step step{"pppprm"[random() % 6], static_cast<char>('a' + random() % 4), static_cast<char>('a' + random() % 4), static_cast<char>('A' + random() % 26),
              static_cast<int32_t>(1 + random() % 60'000)};
    if (write(said, &step, sizeof step) != sizeof step) _exit(1);
    if (step.what == 'p') {
      auto writer = (*opened)->Create("m", std::string(1, step.name), 0);
      for (int32_t left = step.size; left > 0; left -= 10'000)
        if (!(*writer)->Write(std::string(static_cast<size_t>(std::min(left, 10'000)), step.of)).ok()) _exit(1);
      if (!(*writer)->Commit().ok()) _exit(1);
    } else if (step.what == 'r') {
      if (!(*opened)->Remove("m", std::string(1, step.name)).ok()) _exit(1);
    } else {
      (void)(*opened)->Rename("m", std::string(1, step.name), std::string(1, step.other));
    }
    step.what = 'd';
    if (write(said, &step, sizeof step) != sizeof step) _exit(1);
  }
}

TEST_F(FileStoreTest, KilledAtAnyMomentItHasWhatWasDoneAndAtMostTheStepThatWasBegun) {
  Step::Contents expected;
  for (uint64_t seed = 1; seed <= 25; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    store_.reset();
    int said[2];
    ASSERT_EQ(pipe(said), 0);
    const pid_t child = fork();
    if (child == 0) StepOn(folder_, seed, said[1]);
    close(said[1]);
    // So many steps, and then somewhere in the next one.
    Step::Contents with_begun = expected;
    Step step, begun;
    uint64_t done = 0;
    while (read(said[0], &step, sizeof step) == sizeof step) {
      if (step.what == 'd') {
        expected = with_begun;
        ++done;
      } else {
        begun = step;
        begun.ApplyTo(with_begun);
        if (done >= seed % 7) {
          std::this_thread::sleep_for(std::chrono::microseconds(seed * 150));
          kill(child, SIGKILL);
        }
      }
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "it ended by itself";
    close(said[0]);
    Reopen();
    Step::Contents found;
    int64_t bytes = 0;
    for (const std::string& name : Names()) {
      const std::string content = Get(name);
      ASSERT_EQ(content.find_first_not_of(content[0]), std::string::npos) << name << " is a mixture";
      found[name] = {content[0], static_cast<int64_t>(content.size())};
      bytes += static_cast<int64_t>(content.size());
    }
    ASSERT_TRUE(found == expected || found == with_begun) << done << " steps, then " << begun.what << " " << begun.name;
    EXPECT_EQ(Usage().bytes, bytes);
    EXPECT_THAT(OnDisk(".new"), IsEmpty());
    expected = found;
  }
}

// Many threads, few names, a quota that holds three of the five sizes at most: each content is recognisable by its every byte.
TEST_F(FileStoreTest, UnderManyThreadsEachReadIsOneWholeContentAndTheQuotaHolds) {
  constexpr int kThreads = 6, kRounds = 150;
  store_->SetInstance("token", "m", {90'000, 3}, true);
  std::atomic<int> torn{0}, stored{0}, refused{0}, wrong{0};
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      std::mt19937_64 random(static_cast<uint64_t>(thread) + 1);
      for (int round = 0; round < kRounds; ++round) {
        const std::string name = "f" + std::to_string(random() % 4), other = "f" + std::to_string(random() % 4);
        const uint64_t what = random() % 10;
        if (what < 5) {
          const absl::Status put = Put(name, std::string(1'000 + random() % 40'000, static_cast<char>('a' + random() % 26)));
          put.ok() ? ++stored : ErrorCode(put) == "QUOTA_EXCEEDED" ? ++refused : ++wrong;
        } else if (what < 8) {
          const std::string content = Get(name);
          if (content != "(FILE_NOT_FOUND)" && content.find_first_not_of(content[0]) != std::string::npos) ++torn;
        } else if (what == 8) {
          if (!store_->Remove("m", name).ok()) ++wrong;
        } else {
          const absl::Status renamed = store_->Rename("m", name, other);
          if (!renamed.ok() && ErrorCode(renamed) != "FILE_NOT_FOUND" && ErrorCode(renamed) != "QUOTA_EXCEEDED") ++wrong;
        }
        const FileUsage usage = Usage();
        if (usage.bytes > 90'000 || usage.files > 3) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(torn, 0);
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(stored, 0);
  EXPECT_GT(refused, 0);
  const FileUsage before = Usage();
  const auto names = Names();
  Reopen();
  EXPECT_EQ(Usage().bytes, before.bytes) << "what was counted is what is on the disk";
  EXPECT_EQ(Names(), names);
  EXPECT_THAT(OnDisk(".new"), IsEmpty());
}

}  // namespace
}  // namespace bulkhead
