#include "supervisor/logs/module_logs.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <future>

#include "gmock/gmock.h"
#include "supervisor/base/status.h"
#include "supervisor/logs/log_follower.h"

namespace bulkhead {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::IsEmpty;
using Kind = LogFollower::Event::Kind;

constexpr auto kPatience = std::chrono::seconds(20);

class SetClock : public Clock {
 public:
  Instant Now() const override { return Instant(std::chrono::microseconds(us.load())); }
  WallTime Wall() const override { return WallTime(std::chrono::microseconds(us.load())); }
  std::atomic<int64_t> us{1'000'000'000'000'000};
};

// A follower and what it has got so far.
class Reader {
 public:
  Reader(ModuleLogs& logs, LogFollow what)
      : follower_(logs.Follow(std::move(what), [this] {
          std::lock_guard lock(mutex_);
          woken_ = true;
          changed_.notify_all();
        })) {}
  // Takes events until `count` lines or one that is no line; what came is in `lines`.
  LogFollower::Event Take(size_t count) {
    for (size_t taken = 0; taken < count;) {
      LogFollower::Event event = follower_->Next();
      if (event.kind == Kind::kNothing) {
        std::unique_lock lock(mutex_);
        if (!changed_.wait_for(lock, kPatience, [this] { return woken_; })) {
          ADD_FAILURE() << "not woken after " << taken << " of " << count << " lines";
          return event;
        }
        woken_ = false;
        continue;
      }
      if (event.kind != Kind::kLine) return event;
      lines.push_back(event.line->message);
      last = event.cursor;
      ++taken;
    }
    return {};
  }
  bool Idle() { return follower_->Next().kind == Kind::kNothing; }

  std::vector<std::string> lines;
  LogCursor last;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool woken_ = false;
  std::shared_ptr<LogFollower> follower_;  // last: it may wake at once
};

class ModuleLogsTest : public testing::Test {
 protected:
  ModuleLogsTest() {
    char name[] = "/tmp/bh-logs-XXXXXX";
    folder_ = mkdtemp(name);
    Open();
  }
  ~ModuleLogsTest() override {
    logs_.reset();
    fs::remove_all(folder_);
  }
  void Open(LogFileLimits files = {4, 1 << 20}) {
    logs_.reset();
    logs_ = std::make_unique<ModuleLogs>(clock_, ModuleLogs::Options{folder_, files});
  }
  void Say(const std::string& text, int slot = 0, const std::string& module = "orders", LogStream stream = LogStream::kStdout) {
    clock_.us += 1'000;
    logs_->Append({module, module + "." + std::to_string(slot) + ".x", slot}, stream, ReadModuleLine(text));
  }
  void SayMany(int first, int last) {
    for (int i = first; i <= last; ++i) Say("line " + std::to_string(i));
  }
  LogPage Find(LogQuery query) {
    query.module = query.module.empty() ? "orders" : query.module;
    auto page = std::make_shared<std::promise<LogPage>>();
    logs_->Find(query, [page](absl::StatusOr<LogPage> found) { page->set_value(*found); });
    return page->get_future().get();
  }
  static std::vector<std::string> Texts(const LogPage& page) {
    std::vector<std::string> texts;
    for (const RecordPtr& line : page.lines) texts.push_back(line->message);
    return texts;
  }
  static std::vector<std::string> Numbered(int first, int last) {
    std::vector<std::string> texts;
    for (int i = first; i <= last; ++i) texts.push_back("line " + std::to_string(i));
    return texts;
  }
  WallTime Now() { return clock_.Wall(); }

  SetClock clock_;
  std::string folder_;
  std::unique_ptr<ModuleLogs> logs_;
};

TEST_F(ModuleLogsTest, ALineIsKeptWithAllThatIsKnownOfIt) {
  Say(R"({"level":"warn","message":"late","order":7})", 3, "orders", LogStream::kStderr);
  const LogPage page = Find({});
  ASSERT_EQ(page.lines.size(), 1u);
  const LogRecord& line = *page.lines[0];
  EXPECT_EQ(line.message, "late");
  EXPECT_EQ(line.fields, R"({"order":7})");
  EXPECT_EQ(line.level, LogLevel::kWarn);
  EXPECT_EQ(line.slot, 3);
  EXPECT_EQ(line.instance, "orders.3.x");
  EXPECT_EQ(line.stream, LogStream::kStderr);
  EXPECT_EQ(line.time, Now());
  EXPECT_EQ(page.end, line.at);
}

TEST_F(ModuleLogsTest, ModulesHaveTheirOwnLinesAndUnknownOnesNone) {
  Say("a", 0, "orders");
  Say("b", 0, "billing");
  Say("", 0, "orders");
  EXPECT_THAT(Texts(Find({})), ElementsAre("a"));
  EXPECT_THAT(Texts(Find({.module = "billing"})), ElementsAre("b"));
  const LogPage none = Find({.module = "nobody"});
  EXPECT_THAT(none.lines, IsEmpty());
  EXPECT_EQ(none.end, LogCursor());
}

TEST_F(ModuleLogsTest, TheLastLinesAreGivenAndPagesGoBackAndForth) {
  SayMany(1, 10);
  const LogPage last = Find({.count = 4});
  EXPECT_EQ(Texts(last), Numbered(7, 10));
  EXPECT_TRUE(last.more);
  const LogPage before = Find({.count = 4, .before = last.lines.front()->at});
  EXPECT_EQ(Texts(before), Numbered(3, 6));
  EXPECT_TRUE(before.more);
  const LogPage first = Find({.count = 4, .before = before.lines.front()->at});
  EXPECT_EQ(Texts(first), Numbered(1, 2));
  EXPECT_FALSE(first.more);
  const LogPage after = Find({.count = 3, .after = first.lines.back()->at});
  EXPECT_EQ(Texts(after), Numbered(3, 5));
  EXPECT_TRUE(after.more);
  const LogPage rest = Find({.count = 5, .after = after.lines.back()->at});
  EXPECT_EQ(Texts(rest), Numbered(6, 10));
  EXPECT_FALSE(rest.more);
  EXPECT_EQ(Texts(Find({.after = rest.end})), Numbered(1, 0));
  EXPECT_EQ(Texts(Find({.count = 0})), Numbered(1, 0));
  EXPECT_EQ(Texts(Find({.before = last.lines[2]->at, .after = before.lines[0]->at})), Numbered(4, 8));
}

// Every count from every place, over lines that are in the files alone, in both, and in memory alone.
TEST_F(ModuleLogsTest, EveryPageIsWhatItShouldBeAcrossFilesAndMemory) {
  const int kLines = static_cast<int>(limits::kLogRingLines) + 60;
  SayMany(1, kLines);
  const std::vector<RecordPtr> all = Find({.count = kLines}).lines;
  ASSERT_EQ(all.size(), size_t(kLines));
  for (int i = 0; i < kLines; ++i) ASSERT_EQ(all[size_t(i)]->message, "line " + std::to_string(i + 1));
  for (int place : {1, 2, 30, 59, 60, 61, 62, 100, kLines - 1, kLines}) {
    for (int count : {1, 2, 59, 60, 61, 200}) {
      const LogCursor at = all[size_t(place - 1)]->at;
      const int from = std::max(1, place - count);
      const LogPage before = Find({.count = count, .before = at});
      ASSERT_EQ(Texts(before), Numbered(from, place - 1)) << place << " " << count;
      ASSERT_EQ(before.more, from > 1) << place << " " << count;
      const LogPage after = Find({.count = count, .after = at});
      ASSERT_EQ(Texts(after), Numbered(place + 1, std::min(kLines, place + count))) << place << " " << count;
      ASSERT_EQ(after.more, place + count < kLines) << place << " " << count;
    }
  }
}

TEST_F(ModuleLogsTest, TimesSelect) {
  SayMany(1, 5);
  const WallTime middle = Now();
  SayMany(6, 9);
  EXPECT_EQ(Texts(Find({.filter = {.since = middle + std::chrono::microseconds(1)}})), Numbered(6, 9));
  EXPECT_EQ(Texts(Find({.filter = {.since = middle}})), Numbered(5, 9));
  EXPECT_EQ(Texts(Find({.filter = {.until = middle}})), Numbered(1, 4));
  EXPECT_EQ(Texts(Find({.filter = {.since = middle - std::chrono::milliseconds(1), .until = middle}})), Numbered(4, 4));
  EXPECT_EQ(Texts(Find({.filter = {.since = Now() + std::chrono::hours(1)}})), Numbered(1, 0));
}

TEST_F(ModuleLogsTest, ASetBackClockLosesNoLineAndNoOrder) {
  SayMany(1, 3);
  clock_.us -= 3'600'000'000;
  const WallTime then = Now();
  SayMany(4, 6);
  EXPECT_EQ(Texts(Find({})), Numbered(1, 6));
  EXPECT_EQ(Texts(Find({.filter = {.since = then, .until = then + std::chrono::minutes(1)}})), Numbered(4, 6));
}

TEST_F(ModuleLogsTest, EverythingIsThereAgainAfterARestart) {
  SayMany(1, 5);
  const LogCursor end = Find({}).end;
  Open();
  const LogPage page = Find({});
  EXPECT_EQ(Texts(page), Numbered(1, 5));
  EXPECT_EQ(page.end, end);
  clock_.us -= 3'600'000'000;
  SayMany(6, 8);
  EXPECT_EQ(Texts(Find({})), Numbered(1, 8));
  EXPECT_EQ(Texts(Find({.after = end})), Numbered(6, 8));
  EXPECT_EQ(Find({}).end.number, end.number + 3);
}

TEST_F(ModuleLogsTest, WithoutFilesTheLastLinesAreThereAndNothingIsWritten) {
  Open({0, 0});
  SayMany(1, int(limits::kLogRingLines) + 10);
  EXPECT_EQ(Texts(Find({.count = 5'000})), Numbered(11, int(limits::kLogRingLines) + 10));
  logs_->Close();
  EXPECT_TRUE(fs::is_empty(folder_));
}

TEST_F(ModuleLogsTest, AFollowerGetsTheLastLinesAndThenEachAsItComes) {
  SayMany(1, 10);
  Reader reader(*logs_, {.module = "orders", .tail = 3});
  reader.Take(3);
  EXPECT_EQ(reader.lines, Numbered(8, 10));
  SayMany(11, 12);
  reader.Take(2);
  EXPECT_EQ(reader.lines, Numbered(8, 12));
  EXPECT_TRUE(reader.Idle());
}

TEST_F(ModuleLogsTest, AFollowerOfNothingYetGetsTheFirstLine) {
  Reader reader(*logs_, {.module = "orders", .tail = 0});
  EXPECT_TRUE(reader.Idle());
  Say("first");
  reader.Take(1);
  EXPECT_THAT(reader.lines, ElementsAre("first"));
}

TEST_F(ModuleLogsTest, AFollowerGetsWhatItAsksForAndHearsOfNoGapBetween) {
  for (int i = 1; i <= 6; ++i) Say("{\"level\":\"" + std::string(i % 2 ? "info" : "error") + "\",\"message\":\"line " + std::to_string(i) + "\"}", i % 3);
  Reader reader(*logs_, {.module = "orders", .filter = {.level = LogLevel::kError}});
  reader.Take(3);
  EXPECT_THAT(reader.lines, ElementsAre("line 2", "line 4", "line 6"));
  Say("no error");
  Say(R"({"level":"error","message":"line 8"})");
  EXPECT_EQ(reader.Take(1).kind, Kind::kNothing);
  EXPECT_THAT(reader.lines, ElementsAre("line 2", "line 4", "line 6", "line 8"));
}

TEST_F(ModuleLogsTest, FromEveryPlaceAFollowerGoesOnWithoutALineTwiceOrLost) {
  const int kLines = static_cast<int>(limits::kLogRingLines) + 700;
  SayMany(1, kLines);
  const std::vector<RecordPtr> all = Find({.count = kLines}).lines;
  for (int place : {1, 2, 128, 129, 699, 700, 701, 702, kLines - 1, kLines}) {
    Reader reader(*logs_, {.module = "orders", .after = all[size_t(place - 1)]->at});
    reader.Take(size_t(kLines - place));
    ASSERT_EQ(reader.lines, Numbered(place + 1, kLines)) << place;
    ASSERT_TRUE(reader.Idle());
  }
}

TEST_F(ModuleLogsTest, AFollowerGoesOnOverARestart) {
  SayMany(1, 50);
  LogCursor at;
  {
    Reader reader(*logs_, {.module = "orders"});
    reader.Take(20);
    at = reader.last;
  }
  Open();
  SayMany(51, 60);
  Reader reader(*logs_, {.module = "orders", .after = at});
  reader.Take(40);
  EXPECT_EQ(reader.lines, Numbered(21, 60));
}

TEST_F(ModuleLogsTest, ASlowFollowerReadsTheFilesAndLosesNothing) {
  Reader slow(*logs_, {.module = "orders", .tail = 0});
  EXPECT_TRUE(slow.Idle());
  Say("line 1");
  slow.Take(1);
  const int kLines = 3 * static_cast<int>(limits::kLogRingLines);
  SayMany(2, kLines);
  slow.Take(size_t(kLines - 1));
  EXPECT_EQ(slow.lines, Numbered(1, kLines));
  SayMany(kLines + 1, kLines + 3);
  slow.Take(3);
  EXPECT_EQ(slow.lines, Numbered(1, kLines + 3));
}

TEST_F(ModuleLogsTest, WhatIsNowhereAnyMoreIsToldByItsNumber) {
  Open({0, 0});
  Reader slow(*logs_, {.module = "orders", .tail = 0});
  EXPECT_TRUE(slow.Idle());
  Say("line 1");
  slow.Take(1);
  const int kMissed = 77, kLines = static_cast<int>(limits::kLogRingLines) + kMissed + 1;
  SayMany(2, kLines);
  const LogFollower::Event gap = slow.Take(1);
  EXPECT_EQ(gap.kind, Kind::kMissed);
  EXPECT_EQ(gap.missed, kMissed);
  slow.Take(limits::kLogRingLines);
  EXPECT_EQ(slow.lines.size(), limits::kLogRingLines + 1);
  EXPECT_EQ(slow.lines[1], "line " + std::to_string(kMissed + 2));
  // Who goes on from the gap is not told of it again.
  Reader again(*logs_, {.module = "orders", .after = gap.cursor});
  again.Take(1);
  EXPECT_EQ(again.lines[0], "line " + std::to_string(kMissed + 2));
}

TEST_F(ModuleLogsTest, WhatRotatedAwayIsToldByItsNumber) {
  Open({2, 100'000});
  Say("line 1");
  const LogCursor at = Find({}).end;
  const int kLines = 3'000 + static_cast<int>(limits::kLogRingLines);
  SayMany(2, kLines);
  Open({2, 100'000});
  const LogPage kept = Find({.count = kLines});
  ASSERT_LT(kept.lines.size(), 1'500u);
  Reader reader(*logs_, {.module = "orders", .after = at});
  const LogFollower::Event gap = reader.Take(1);
  EXPECT_EQ(gap.kind, Kind::kMissed);
  EXPECT_EQ(gap.missed, kept.lines.front()->at.number - 2);
  reader.Take(kept.lines.size());
  EXPECT_EQ(reader.lines, Texts(kept));
}

TEST_F(ModuleLogsTest, APlaceFromALogThatIsGoneIsNoReasonToWait) {
  Say("old");
  const LogCursor at{Find({}).end.id, 9'999};
  std::promise<absl::Status> removed;
  logs_->Deleted("orders", true, [&](absl::Status status) { removed.set_value(status); });
  EXPECT_TRUE(removed.get_future().get().ok());
  Say("new");
  Reader reader(*logs_, {.module = "orders", .after = at});
  reader.Take(1);
  EXPECT_THAT(reader.lines, ElementsAre("new"));
}

TEST_F(ModuleLogsTest, ADeletedModuleEndsItsFollowersAndAPurgeTakesItsLines) {
  SayMany(1, 3);
  Say("other", 0, "billing");
  Reader reader(*logs_, {.module = "orders"}), other(*logs_, {.module = "billing"});
  reader.Take(3);
  other.Take(1);
  std::promise<absl::Status> kept, removed;
  logs_->Deleted("orders", false, [&](absl::Status status) { kept.set_value(status); });
  EXPECT_TRUE(kept.get_future().get().ok());
  const LogFollower::Event end = reader.Take(1);
  EXPECT_EQ(end.kind, Kind::kEnded);
  EXPECT_EQ(ErrorCode(end.status), "MODULE_NOT_FOUND");
  EXPECT_EQ(Texts(Find({})), Numbered(1, 3)) << "without a purge it stays";
  logs_->Deleted("orders", true, [&](absl::Status status) { removed.set_value(status); });
  EXPECT_TRUE(removed.get_future().get().ok());
  EXPECT_THAT(Find({}).lines, IsEmpty());
  EXPECT_FALSE(fs::exists(folder_ + "/orders"));
  EXPECT_TRUE(other.Idle());
  logs_->Close();
  EXPECT_TRUE(fs::exists(folder_ + "/billing"));
  EXPECT_FALSE(fs::exists(folder_ + "/orders"));
}

TEST_F(ModuleLogsTest, WhereNothingCanBeWrittenMemoryServesAndItIsToldOnce) {
  logs_->Close();
  logs_.reset();
  fs::remove_all(folder_);
  { std::ofstream no_folder(folder_); }
  testing::internal::CaptureStderr();
  Open();
  SayMany(1, 20);
  Say("b", 0, "billing");
  EXPECT_EQ(Texts(Find({})), Numbered(1, 20));
  Reader reader(*logs_, {.module = "orders", .tail = 1});
  reader.Take(1);
  SayMany(21, 21);
  reader.Take(1);
  EXPECT_EQ(reader.lines, Numbered(20, 21));
  logs_->Close();
  const std::string told = testing::internal::GetCapturedStderr();
  EXPECT_EQ(told.find("can't be written"), told.rfind("can't be written")) << told;
  EXPECT_NE(told.find("can't be written"), std::string::npos);
  fs::remove(folder_);
  fs::create_directory(folder_);
}

TEST_F(ModuleLogsTest, WhatWasRefusedOnceIsTriedAgainAfterAWhile) {
  fs::remove_all(folder_);
  Say("lost");
  clock_.us += 1'000 * limits::kLogFileRetry.count() + 1'000'000;
  // The first try has failed by then: a line behind it is only looked at afterwards.
  std::promise<absl::Status> behind;
  logs_->Deleted("nobody", true, [&](absl::Status status) { behind.set_value(status); });
  behind.get_future().wait();
  fs::create_directory(folder_);
  clock_.us += 1'000 * limits::kLogFileRetry.count() + 1'000'000;
  Say("kept");
  Open();
  EXPECT_THAT(Texts(Find({})), ElementsAre("kept"));
}

// Writers, readers and followers at once: nothing is lost, twice or out of order.
TEST_F(ModuleLogsTest, ManyFollowersAtOnceSeeTheSame) {
  Open({1'000, 1 << 20});
  constexpr int kCount = 6'000, kReaders = 8;
  std::vector<std::future<std::vector<std::string>>> readers;
  for (int i = 0; i < kReaders; ++i) {
    readers.push_back(std::async(std::launch::async, [this, i] {
      LogFollow what{.module = "orders"};
      if (i % 2) what.after = LogCursor{1, 0};
      else what.tail = limits::kMaxLogTail * 10;
      Reader reader(*logs_, std::move(what));
      reader.Take(kCount);
      return reader.lines;
    }));
  }
  SayMany(1, kCount);
  for (auto& reader : readers) EXPECT_EQ(reader.get(), Numbered(1, kCount));
}

}  // namespace
}  // namespace bulkhead
