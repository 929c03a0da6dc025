#include "supervisor/logs/log_files.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <limits>

#include "gmock/gmock.h"

namespace bulkhead {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr int64_t kLast = std::numeric_limits<int64_t>::max();

class LogFilesTest : public testing::Test {
 protected:
  LogFilesTest() {
    char name[] = "/tmp/bh-logs-XXXXXX";
    root_ = mkdtemp(name);
    folder_ = root_ + "/orders";
  }
  ~LogFilesTest() override { fs::remove_all(root_); }

  // Lines whose ids are `first`, `first`+1, …, each of about `size` bytes.
  static std::vector<RecordPtr> Lines(int64_t first, int count, size_t size = 10) {
    std::vector<RecordPtr> records;
    for (int i = 0; i < count; ++i) {
      auto record = std::make_shared<LogRecord>();
      record->at = {first + i, first + i};
      record->time = WallTime(std::chrono::microseconds(first + i));
      record->message = std::string(size, char('a' + i % 26));
      records.push_back(record);
    }
    return records;
  }
  static std::vector<int64_t> Ids(const std::vector<RecordPtr>& records) {
    std::vector<int64_t> ids;
    for (const RecordPtr& record : records) ids.push_back(record->at.id);
    return ids;
  }
  static std::vector<int64_t> From(int64_t first, int64_t last) {
    std::vector<int64_t> ids;
    for (int64_t id = first; id <= last; ++id) ids.push_back(id);
    return ids;
  }
  void Write(LogFileWriter& writer, const std::vector<RecordPtr>& records) {
    size_t written = 0;
    ASSERT_TRUE(writer.Append(records, written).ok());
    ASSERT_EQ(written, records.size());
  }
  std::vector<int64_t> Backwards(int64_t before, size_t at_most = 1'000'000) {
    std::vector<int64_t> ids;
    ReadLogBackwards(folder_, before, [&](const RecordPtr& record) {
      ids.push_back(record->at.id);
      return ids.size() < at_most;
    });
    std::reverse(ids.begin(), ids.end());
    return ids;
  }
  std::vector<int64_t> Forwards(LogFileReader& reader, int64_t after) {
    std::vector<int64_t> ids;
    for (;;) {
      const LogFileReader::Piece piece = reader.Next(after);
      for (const RecordPtr& record : piece.records) ids.push_back(after = record->at.id);
      if (piece.at_end) return ids;
    }
  }
  int64_t Bytes() {
    int64_t bytes = 0;
    for (const auto& entry : fs::directory_iterator(folder_)) bytes += int64_t(entry.file_size());
    return bytes;
  }
  std::string NameOf(int64_t id) {
    char name[32];
    snprintf(name, sizeof name, "/%016lld.log", static_cast<long long>(id));
    return folder_ + name;
  }

  std::string root_, folder_;
};

TEST_F(LogFilesTest, NothingIsThereBeforeTheFirstLine) {
  LogFileWriter writer(folder_, {3, 1'000});
  EXPECT_FALSE(fs::exists(folder_));
  EXPECT_THAT(ListLogFiles(folder_), IsEmpty());
  EXPECT_THAT(Backwards(kLast), IsEmpty());
  LogFileReader reader(folder_);
  EXPECT_TRUE(reader.Next(0).at_end);
  EXPECT_EQ(LastOfLog(folder_), LogCursor());
  EXPECT_TRUE(RemoveLogFiles(folder_).ok());
}

TEST_F(LogFilesTest, WhatIsWrittenIsReadBothWays) {
  LogFileWriter writer(folder_, {3, 1 << 20});
  Write(writer, Lines(1, 5));
  Write(writer, Lines(6, 5));
  EXPECT_THAT(Backwards(kLast), ElementsAre(1, 2, 3, 4, 5, 6, 7, 8, 9, 10));
  EXPECT_THAT(Backwards(7), ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_THAT(Backwards(kLast, 3), ElementsAre(8, 9, 10));
  LogFileReader reader(folder_);
  EXPECT_EQ(Forwards(reader, 4), From(5, 10));
  EXPECT_EQ(LastOfLog(folder_), (LogCursor{10, 10}));
  EXPECT_THAT(ListLogFiles(folder_), ElementsAre(1));
}

TEST_F(LogFilesTest, ManyBlocksOfLinesOfEverySizeComeBackWhole) {
  LogFileWriter writer(folder_, {3, 64 << 20});
  int64_t id = 1;
  // Lengths that meet the ends of blocks at every place of a line.
  for (size_t size : {0, 1, 100, 16'384, 131'071, 300'000}) {
    const int count = size < 1'000 ? 3'000 : 40;
    Write(writer, Lines(id, count, size));
    id += count;
  }
  EXPECT_EQ(Backwards(kLast), From(1, id - 1));
  LogFileReader reader(folder_);
  EXPECT_EQ(Forwards(reader, 0), From(1, id - 1));
  for (int64_t middle : {int64_t(2), int64_t(2'999), int64_t(6'001), id - 3}) {
    EXPECT_EQ(Backwards(middle), From(1, middle - 1)) << middle;
    LogFileReader again(folder_);
    EXPECT_EQ(Forwards(again, middle), From(middle + 1, id - 1)) << middle;
  }
}

TEST_F(LogFilesTest, TheCapHoldsAtEveryMomentAndTheOldestGoesFirst) {
  constexpr LogFileLimits kLimits{3, 2'000};
  LogFileWriter writer(folder_, kLimits);
  for (int64_t id = 1; id <= 200; ++id) {
    Write(writer, Lines(id, 1, size_t(id * 7 % 400)));
    ASSERT_LE(Bytes(), kLimits.files * kLimits.bytes) << id;
    ASSERT_LE(ListLogFiles(folder_).size(), 3u) << id;
  }
  Write(writer, Lines(201, 300, 50));  // many files in one call
  EXPECT_LE(Bytes(), kLimits.files * kLimits.bytes);
  const std::vector<int64_t> kept = Backwards(kLast);
  EXPECT_GT(kept.size(), 10u);
  EXPECT_EQ(kept, From(500 - int64_t(kept.size()) + 1, 500));
  EXPECT_EQ(ListLogFiles(folder_).front(), kept.front());
}

TEST_F(LogFilesTest, ALineLongerThanAFileHasOneOfItsOwn) {
  LogFileWriter writer(folder_, {2, 100});
  Write(writer, Lines(1, 3, 5'000));
  EXPECT_THAT(ListLogFiles(folder_), ElementsAre(2, 3));
  EXPECT_THAT(Backwards(kLast), ElementsAre(2, 3));
}

TEST_F(LogFilesTest, AnotherWriterGoesOnWhereTheLastOneStopped) {
  { LogFileWriter writer(folder_, {3, 1 << 20}); Write(writer, Lines(1, 2)); }
  { LogFileWriter writer(folder_, {3, 1 << 20}); Write(writer, Lines(3, 2)); }
  EXPECT_THAT(ListLogFiles(folder_), ElementsAre(1));
  EXPECT_THAT(Backwards(kLast), ElementsAre(1, 2, 3, 4));
}

TEST_F(LogFilesTest, ALineThatWasCutOffIsPassedOver) {
  { LogFileWriter writer(folder_, {3, 1 << 20}); Write(writer, Lines(1, 3)); }
  fs::resize_file(NameOf(1), fs::file_size(NameOf(1)) - 5);
  EXPECT_EQ(LastOfLog(folder_), (LogCursor{2, 2}));
  LogFileReader reader(folder_);
  EXPECT_THAT(Forwards(reader, 0), ElementsAre(1, 2));
  { LogFileWriter writer(folder_, {3, 1 << 20}); Write(writer, Lines(4, 2)); }
  EXPECT_THAT(Backwards(kLast), ElementsAre(1, 2, 4, 5));
  EXPECT_THAT(Forwards(reader, 2), ElementsAre(4, 5)) << "by who was waiting for the rest of it";
}

TEST_F(LogFilesTest, WhatSomebodyElsePutThereDoesNoHarm) {
  LogFileWriter writer(folder_, {3, 1 << 20});
  Write(writer, Lines(5, 3));
  std::ofstream(folder_ + "/notes.txt") << "mine";
  std::ofstream(folder_ + "/abc.log") << "mine";
  std::ofstream(NameOf(1)) << std::string(3 << 20, 'x') << "\n{}\n\0\n" << ToFileLine(*Lines(2, 1)[0]);
  fs::create_symlink("/etc/passwd", NameOf(3));
  fs::create_directory(NameOf(4));
  EXPECT_THAT(Backwards(kLast), ElementsAre(2, 5, 6, 7));
  LogFileReader reader(folder_);
  EXPECT_THAT(Forwards(reader, 0), ElementsAre(2, 5, 6, 7));
}

TEST_F(LogFilesTest, AReaderFollowsThroughRotations) {
  LogFileWriter writer(folder_, {4, 3'000});
  LogFileReader reader(folder_);
  int64_t after = 0, id = 1;
  std::vector<int64_t> got;
  for (int round = 0; round < 60; ++round) {
    const int count = 1 + round % 7;
    Write(writer, Lines(id, count, 100));
    id += count;
    for (int64_t one : Forwards(reader, after)) got.push_back(after = one);
  }
  EXPECT_EQ(got, From(1, id - 1));
}

TEST_F(LogFilesTest, AReaderWhoIsOvertakenGoesOnWithWhatIsLeft) {
  LogFileWriter writer(folder_, {2, 2'000});
  Write(writer, Lines(1, 3, 100));
  LogFileReader reader(folder_);
  EXPECT_THAT(Forwards(reader, 0), ElementsAre(1, 2, 3));
  Write(writer, Lines(4, 200, 100));
  const std::vector<int64_t> rest = Forwards(reader, 3);
  // The file that he had open he reads to its end, although it is removed.
  EXPECT_TRUE(std::is_sorted(rest.begin(), rest.end()));
  const std::vector<int64_t> kept = Backwards(kLast);
  ASSERT_GE(rest.size(), kept.size());
  EXPECT_EQ(std::vector<int64_t>(rest.end() - std::ptrdiff_t(kept.size()), rest.end()), kept);
  EXPECT_EQ(rest.back(), 203);
}

TEST_F(LogFilesTest, WhatDoesNotFitOnTheDiskLeavesNothingBehindAndGoesOnLater) {
  signal(SIGXFSZ, SIG_IGN);
  LogFileWriter writer(folder_, {3, 1 << 20});
  Write(writer, Lines(1, 3));
  const auto size = fs::file_size(NameOf(1));
  rlimit before;
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit full{size + 50, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &full), 0);
  size_t written = 7;
  const absl::Status refused = writer.Append(Lines(4, 3, 200), written);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_FALSE(refused.ok());
  EXPECT_EQ(written, 0u);
  EXPECT_EQ(fs::file_size(NameOf(1)), size);
  Write(writer, Lines(7, 1));
  EXPECT_THAT(Backwards(kLast), ElementsAre(1, 2, 3, 7));
}

TEST_F(LogFilesTest, AFolderThatCantBeMadeIsNamed) {
  std::ofstream(root_ + "/file") << "no folder";
  LogFileWriter writer(root_ + "/file/orders", {3, 1 << 20});
  size_t written = 0;
  const absl::Status refused = writer.Append(Lines(1, 1), written);
  EXPECT_THAT(std::string(refused.message()), testing::HasSubstr("/file/orders"));
}

}  // namespace
}  // namespace bulkhead
