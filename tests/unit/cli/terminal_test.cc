// Tables and lines as a terminal shows them.
#include "supervisor/cli/terminal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>

namespace bulkhead {
namespace {

// A Terminal whose two streams are read back as text.
class Recorded {
 public:
  Recorded(int columns, bool watched)
      : out_file_(open_memstream(&out_, &out_size_)), err_file_(open_memstream(&err_, &err_size_)), terminal(out_file_, err_file_, columns, watched) {}
  ~Recorded() {
    fclose(out_file_);
    fclose(err_file_);
    free(out_);
    free(err_);
  }
  std::string out() {
    fflush(out_file_);
    return std::string(out_, out_size_);
  }
  std::string err() {
    fflush(err_file_);
    return std::string(err_, err_size_);
  }

 private:
  char *out_ = nullptr, *err_ = nullptr;
  size_t out_size_ = 0, err_size_ = 0;
  FILE *out_file_, *err_file_;

 public:
  Terminal terminal;
};

TEST(Table, AlignsItsColumnsAndEndsNoLineInBlanks) {
  Table table({"FILE", "STATE", "NOTE"});
  table.Add({"001_a.sql", "applied", ""});
  table.Add({"002_größer.sql", "pending", "edited"});
  EXPECT_EQ(table.Text(0), "FILE            STATE    NOTE\n001_a.sql       applied\n002_größer.sql  pending  edited\n");
}

TEST(Table, CutsTheLastColumnToTheTerminalAndNothingForAPipe) {
  Table table({"A", "NOTE"});
  table.Add({"x", "a sentence that is far too long for it"});
  EXPECT_EQ(table.Text(20), "A  NOTE\nx  a sentence that …\n");
  EXPECT_NE(table.Text(0).find("for it\n"), std::string::npos);
}

TEST(Table, OnATerminalNoColumnTakesTheRoomOfTheOthers) {
  Table table({"A", "B"});
  table.Add({std::string(100, 'x'), "y"});
  EXPECT_EQ(table.Text(80), "A" + std::string(41, ' ') + "B\n" + std::string(39, 'x') + "…  y\n");
  EXPECT_NE(table.Text(0).find(std::string(100, 'x')), std::string::npos);
}

TEST(Table, CountsColumnsAndNotBytesOrCharacters) {
  EXPECT_EQ(DisplayWidth("größe"), 5);
  EXPECT_EQ(DisplayWidth("日本"), 4);
  EXPECT_EQ(DisplayWidth("e\u0301"), 1);
  Table table({"A", "B"});
  table.Add({"日本", "x"});
  EXPECT_EQ(table.Text(0), "A     B\n日本  x\n");
}

TEST(Table, LetsNothingThroughThatATerminalWouldObey) {
  Table table({"A"});
  table.Add({"x\x1b[2Jy\nz"});
  EXPECT_EQ(table.Text(0), "A\nx [2Jy z\n");
}

TEST(TerminalOutput, ProgressIsForWhoWatchesAndGoesBeforeWhatFollows) {
  Recorded watched(0, true);
  watched.terminal.Progress("one");
  watched.terminal.Progress("two");
  watched.terminal.Out("done\n");
  EXPECT_EQ(watched.err(), "one\r\x1b[Ktwo\r\x1b[K");
  EXPECT_EQ(watched.out(), "done\n");
  Recorded piped(0, false);
  piped.terminal.Progress("one");
  EXPECT_EQ(piped.err(), "");
}

TEST(TerminalOutput, AQuestionWaitsForAYesAndNobodyIsNotAsked) {
  for (const auto& [said, meant] : {std::pair("y\n", true), {"yes\n", true}, {"n\n", false}, {"\n", false}, {"", false}, {"yesterday\n", false}}) {
    char *out = nullptr, *err = nullptr;
    size_t out_size = 0, err_size = 0;
    FILE *out_file = open_memstream(&out, &out_size), *err_file = open_memstream(&err, &err_size), *in = tmpfile();
    fputs(said, in);
    rewind(in);
    Terminal terminal(out_file, err_file, 0, true, in);
    EXPECT_EQ(terminal.Ask("All of it?"), meant) << said;
    for (FILE* file : {out_file, err_file, in}) fclose(file);
    EXPECT_STREQ(err, "All of it? [y/N] ");
    EXPECT_STREQ(out, "");
    free(out);
    free(err);
  }
  Recorded piped(0, false);
  EXPECT_EQ(piped.terminal.Ask("All of it?"), std::nullopt);
  EXPECT_EQ(piped.err(), "");
}

}  // namespace
}  // namespace bulkhead
