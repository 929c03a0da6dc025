#include "supervisor/process/log_pipe.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <thread>

#include "gmock/gmock.h"
#include "nlohmann/json.hpp"
#include "supervisor/base/limits.h"
#include "supervisor/base/text.h"

namespace bulkhead {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class LogPipeTest : public testing::Test {
 protected:
  LogPipeTest() {
    int ends[2];
    EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
    writer.Reset(ends[1]);
    pipe = std::make_unique<class LogPipe>(loop, UniqueFd(ends[0]), tail, rate, [this](std::string_view line) { lines.emplace_back(line); });
  }
  // From another thread, because a pipe holds 64 KiB.
  void WriteAll(const std::string& text) {
    std::thread thread([&] {
      for (size_t done = 0; done < text.size();) {
        ssize_t n = write(writer.get(), text.data() + done, text.size() - done);
        if (n <= 0) break;
        done += static_cast<size_t>(n);
      }
      loop.Post([this] {
        pipe->Drain();
        loop.Stop();
      });
    });
    loop.Run();
    thread.join();
  }

  Loop loop;
  UniqueFd writer;
  std::shared_ptr<OutputTail> tail = std::make_shared<OutputTail>();
  std::vector<std::string> lines;
  std::shared_ptr<LogRate> rate = std::make_shared<LogRate>(loop, [this](uint64_t, std::string_view notice) { lines.emplace_back(notice); });
  std::unique_ptr<LogPipe> pipe;
};

TEST_F(LogPipeTest, LinesAreSplitAtNewlines) {
  WriteAll("one\ntwo\r\n\nfour");
  EXPECT_THAT(lines, ElementsAre("one", "two", "", "four"));
  EXPECT_EQ(tail->Text(), "one\ntwo\n\nfour\n");
}

TEST_F(LogPipeTest, ALineThatArrivesInPiecesIsOneLine) {
  (void)!write(writer.get(), "hel", 3);
  loop.After(Millis(5), [&] { (void)!write(writer.get(), "lo\nnext\n", 8); });
  loop.After(Millis(20), [&] { loop.Stop(); });
  loop.Run();
  EXPECT_THAT(lines, ElementsAre("hello", "next"));
}

TEST_F(LogPipeTest, AnUnfinishedLineComesAtTheEndOfTheStream) {
  (void)!write(writer.get(), "last words", 10);
  writer.Reset();
  loop.After(Millis(20), [&] { loop.Stop(); });
  loop.Run();
  EXPECT_THAT(lines, ElementsAre("last words"));
  pipe->Drain();  // harmless after the end
}

TEST_F(LogPipeTest, ALongLineIsCutMarkedAndItsRestSkipped) {
  WriteAll(std::string(limits::kMaxLogLine * 3, 'x') + "\nnext\n" + std::string(limits::kMaxLogLine, 'y') + "\n");
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0], std::string(limits::kMaxLogLine, 'x') + " … [cut at 16384 bytes]");
  EXPECT_EQ(lines[1], "next");
  EXPECT_EQ(lines[2], std::string(limits::kMaxLogLine, 'y'));  // exactly the limit is whole
}

TEST_F(LogPipeTest, ALongLineIsCutBetweenCharacters) {
  std::string text = "a";
  while (text.size() <= limits::kMaxLogLine) text += "é";
  WriteAll(text + "\n");
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0], ValidUtf8(lines[0]));
}

TEST_F(LogPipeTest, AStreamWithoutAnyNewlineIsCutOnce) {
  WriteAll(std::string(1 << 20, 'z'));
  EXPECT_EQ(lines.size(), 1u);
}

TEST_F(LogPipeTest, BeyondTheRateLinesAreDroppedCountedAndKeptInTheTail) {
  std::string text;
  const int count = limits::kLogLinesPerSecond + 500;
  for (int i = 0; i < count; ++i) text += "line " + std::to_string(i) + "\n";
  WriteAll(text);
  ASSERT_EQ(lines.size(), static_cast<size_t>(limits::kLogLinesPerSecond));
  loop.After(Millis(1'100), [&] { loop.Stop(); });
  loop.Run();
  ASSERT_EQ(lines.size(), static_cast<size_t>(limits::kLogLinesPerSecond) + 1);
  EXPECT_EQ(lines.back(), "[500 lines dropped: more than 1000 lines or 512 KiB in a second]");
  EXPECT_THAT(tail->Text(), HasSubstr("line 1499\n"));
  WriteAll("again\n");
  EXPECT_EQ(lines.back(), "again");
}

TEST_F(LogPipeTest, LongLinesAreLimitedByTheirBytes) {
  const std::string line(limits::kMaxLogLine - 1, 'x');
  std::string text;
  for (size_t i = 0; i < 3 * limits::kLogBytesPerSecond / 2 / line.size(); ++i) text += line + "\n";
  WriteAll(text);
  EXPECT_EQ(lines.size(), limits::kLogBytesPerSecond / line.size());
  rate->Flush();
  EXPECT_THAT(lines.back(), HasSubstr("lines dropped"));
}

TEST_F(LogPipeTest, AStreamWithoutAnyNewlineThatIsMuchIsAFloodToo) {
  WriteAll(std::string(2 * limits::kLogBytesPerSecond, 'z'));
  rate->Flush();
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_THAT(lines.back(), HasSubstr("lines dropped"));
}

TEST_F(LogPipeTest, TwoStreamsShareOneRate) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  UniqueFd other_end(ends[1]);
  int others = 0;
  class LogPipe other(loop, UniqueFd(ends[0]), tail, rate, [&](std::string_view) { ++others; });
  std::string text;
  for (int i = 0; i < limits::kLogLinesPerSecond - 1; ++i) text += "line\n";
  WriteAll(text);
  ASSERT_EQ(write(other_end.get(), "a\nb\nc\n", 6), 6);
  other.Drain();
  EXPECT_EQ(others, 1);
  EXPECT_THAT(tail->Text(), HasSubstr("a\nb\nc\n"));
  rate->Flush();  // as at the end of the process, which may come before the end of the second
  EXPECT_EQ(lines.back(), "[2 lines dropped: more than 1000 lines or 512 KiB in a second]");
  EXPECT_EQ(lines.size(), static_cast<size_t>(limits::kLogLinesPerSecond));
}

TEST_F(LogPipeTest, BinaryOutputIsHandedOnAndValidInTheTail) {
  std::string binary("\x00\xff\xfe\x80ok\n\xed\xa0\x80\n", 11);
  WriteAll(binary);
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0], binary.substr(0, 6));
  std::string text = tail->Text();
  EXPECT_EQ(text, ValidUtf8(text));
  EXPECT_THAT(text, HasSubstr("ok"));
  EXPECT_NO_THROW((void)nlohmann::json(text).dump());
}

TEST_F(LogPipeTest, TheLineFunctionMayDestroyThePipe) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  UniqueFd end(ends[1]);
  int seen = 0;
  std::unique_ptr<LogPipe> other;
  other = std::make_unique<class LogPipe>(loop, UniqueFd(ends[0]), nullptr, rate, [&](std::string_view) {
    ++seen;
    other.reset();
  });
  (void)!write(end.get(), "a\nb\n", 4);
  loop.After(Millis(20), [&] { loop.Stop(); });
  loop.Run();
  EXPECT_EQ(seen, 1);
}

TEST(OutputTail, KeepsTheEndWithinItsLimitFromTheStartOfALine) {
  OutputTail tail;
  for (int i = 0; i < 100'000; ++i) tail.Append("line " + std::to_string(i));
  std::string text = tail.Text();
  EXPECT_LE(text.size(), limits::kExitOutput);
  EXPECT_GT(text.size(), limits::kExitOutput / 2);
  EXPECT_EQ(text.substr(0, 5), "line ");
  EXPECT_EQ(text.substr(text.size() - 11), "line 99999\n");
}

TEST(OutputTail, StaysWithinItsLimitWhenBytesAreReplaced) {
  OutputTail tail;
  for (int i = 0; i < 200; ++i) tail.Append(std::string(1'000, '\xff'));
  std::string text = tail.Text();
  EXPECT_LE(text.size(), limits::kExitOutput);
  EXPECT_EQ(text, ValidUtf8(text));
}

TEST(MaskSecrets, HidesEachAndTheLongestFirst) {
  EXPECT_EQ(MaskSecrets("nothing here", {"hunter22"}), "nothing here");
  EXPECT_EQ(MaskSecrets("hunter22 and hunter22hunter22", {"hunter22"}), "******** and ****************");
  EXPECT_EQ(MaskSecrets("key=hunter22-long", {"hunter22", "hunter22-long", ""}), "key=********");
  EXPECT_EQ(MaskSecrets("", {"hunter22"}), "");
}

TEST(ValidUtf8, ReplacesWhatIsNoCharacterAndNothingElse) {
  EXPECT_EQ(ValidUtf8("aé€😀"), "aé€😀");
  EXPECT_EQ(ValidUtf8("\xc0\xaf"), "\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(ValidUtf8("\xe2\x82"), "\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(ValidUtf8("\xf5\x80\x80\x80x").substr(12), "x");
  EXPECT_EQ(ValidUtf8(std::string_view("a\0b", 3)), "a\xEF\xBF\xBD" "b");
}

}  // namespace
}  // namespace bulkhead
