#include "supervisor/store/sql_script.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "supervisor/base/status.h"
#include "supervisor/store/database.h"

namespace bulkhead {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> Texts(std::string_view script) {
  auto statements = SplitSql(script);
  EXPECT_TRUE(statements.ok()) << statements.status();
  std::vector<std::string> texts;
  for (const SqlStatement& s : *statements) texts.emplace_back(s.text);
  return texts;
}

// The line of the first transaction control statement, 0 when there is none.
int ControlLine(std::string_view script) {
  auto statements = SplitSql(script);
  EXPECT_TRUE(statements.ok()) << statements.status();
  for (const SqlStatement& s : *statements) {
    if (IsTransactionControl(s)) return s.line;
  }
  return 0;
}

TEST(SqlScript, IsCutAtSemicolonsAndEmptyStatementsAreNone) {
  EXPECT_THAT(Texts("SELECT 1; SELECT 2;\n;; -- nothing\n;SELECT 3"), ElementsAre("SELECT 1", "SELECT 2", "SELECT 3"));
  EXPECT_THAT(Texts(""), ElementsAre());
  EXPECT_THAT(Texts(" \n-- only a comment"), ElementsAre());
  EXPECT_THAT(Texts("/* only /* a nested */ ; */"), ElementsAre());
}

TEST(SqlScript, QuotesOfAllKindsHideSemicolons) {
  EXPECT_THAT(Texts("SELECT 'a;b''c;', \"d;\"\"e\"; SELECT 2"), ElementsAre("SELECT 'a;b''c;', \"d;\"\"e\"", "SELECT 2"));
  EXPECT_THAT(Texts("SELECT E'a\\';b'; SELECT e'\\\\'; SELECT 3"), ElementsAre("SELECT E'a\\';b'", "SELECT e'\\\\'", "SELECT 3"));
  // Without E a backslash is a character like any other.
  EXPECT_THAT(Texts("SELECT 'a\\'; SELECT 2"), ElementsAre("SELECT 'a\\'", "SELECT 2"));
  EXPECT_THAT(Texts("SELECT name'x'; SELECT U&'\\0041;', B'01', N';'"), ElementsAre("SELECT name'x'", "SELECT U&'\\0041;', B'01', N';'"));
  EXPECT_THAT(Texts("SELECT $$a;b$$; SELECT $x$ $$; $y$ $x$; SELECT 3"), ElementsAre("SELECT $$a;b$$", "SELECT $x$ $$; $y$ $x$", "SELECT 3"));
  // $1 is a parameter, and a$b$ a name.
  EXPECT_THAT(Texts("SELECT $1; SELECT a$b$; SELECT 3"), ElementsAre("SELECT $1", "SELECT a$b$", "SELECT 3"));
}

TEST(SqlScript, CommentsHideSemicolonsAndQuotes) {
  EXPECT_THAT(Texts("SELECT 1 -- it's; \n+ 2; SELECT /* ' /* ; */ \" */ 3"), ElementsAre("SELECT 1 -- it's; \n+ 2", "SELECT /* ' /* ; */ \" */ 3"));
}

TEST(SqlScript, RulesAndFunctionBodiesStayWhole) {
  EXPECT_THAT(Texts("CREATE RULE r AS ON INSERT TO t DO (DELETE FROM a; DELETE FROM b); SELECT 1"),
              ElementsAre("CREATE RULE r AS ON INSERT TO t DO (DELETE FROM a; DELETE FROM b)", "SELECT 1"));
  const std::string atomic =
      "CREATE OR REPLACE FUNCTION f(n int) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT CASE WHEN n > 1 THEN 1 ELSE 2 END; END";
  EXPECT_THAT(Texts(atomic + "; SELECT 2"), ElementsAre(atomic, "SELECT 2"));
  const std::string procedure = "create procedure p() begin atomic insert into t values (1); end";
  EXPECT_THAT(Texts(procedure + "; commit"), ElementsAre(procedure, "commit"));
}

TEST(SqlScript, LinesAreThoseOfTheFirstToken) {
  auto statements = SplitSql("-- one\n\nSELECT\n1;\n/* five\n six */ SELECT 2; SELECT 3");
  ASSERT_TRUE(statements.ok());
  ASSERT_EQ(statements->size(), 3u);
  EXPECT_EQ((*statements)[0].line, 3);
  EXPECT_EQ((*statements)[1].line, 6);
  EXPECT_EQ((*statements)[2].line, 6);
}

TEST(SqlScript, TransactionControlIsSeenHoweverItIsWritten) {
  for (const char* control : {"BEGIN", "begin work", "Start Transaction isolation level serializable", "COMMIT", "commit and chain", "END",
                              "ROLLBACK", "rollback work", "ROLLBACK PREPARED 'x'", "COMMIT PREPARED 'x'", "ABORT",
                              "PREPARE TRANSACTION 'x'", "/* hidden */ COMMIT", "COMMIT/**/"}) {
    EXPECT_EQ(ControlLine(std::string("SELECT 1;\n\n") + control + ";\nSELECT 2"), 3) << control;
  }
}

TEST(SqlScript, WhatOnlyLooksLikeTransactionControlIsNot) {
  for (const char* harmless :
       {"SAVEPOINT a", "RELEASE SAVEPOINT a", "ROLLBACK TO a", "ROLLBACK TO SAVEPOINT a", "ROLLBACK WORK TO SAVEPOINT a",
        "rollback transaction to a", "PREPARE p AS SELECT 1", "DO $$ BEGIN RAISE NOTICE ';'; COMMIT; END $$", "SELECT 'COMMIT; COMMIT;'",
        "-- COMMIT;\nSELECT 1", "/* ; COMMIT; */ SELECT 1", "INSERT INTO \"commit\" VALUES ($a$;\nCOMMIT;$a$)", "\"COMMIT\"",
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $f$\nBEGIN\n  RETURN NEW;\nEND;\n$f$",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; END", "SELECT E'\\'; COMMIT; '"}) {
    EXPECT_EQ(ControlLine(harmless), 0) << harmless;
  }
}

TEST(SqlScript, ColumnsCountCharacters) {
  auto statements = SplitSql("SELECT 'äö'; SELECT 2;\r\n\t/* é */ SELECT 3");
  ASSERT_EQ(statements->size(), 3u);
  EXPECT_EQ((*statements)[1].column, 14);
  EXPECT_EQ((*statements)[2].line, 2);
  EXPECT_EQ((*statements)[2].column, 10);
  EXPECT_EQ(PlaceOfCharacter("ä\nöx", 4).line, 2);
  EXPECT_EQ(PlaceOfCharacter("ä\nöx", 4).column, 2);
  EXPECT_EQ(PlaceOfCharacter("ab", 3).column, 3);
  EXPECT_EQ(PlaceOfCharacter("ab", 0).line, 0);
}

TEST(SqlScript, WhatOnlyPsqlUnderstandsIsRefusedWhereItStands) {
  for (const char* script : {"SELECT 1;\n  \\i other.sql", "SELECT 1\n  \\gx", "SELECT 1;\n  \\copy t from 'x'", "SELECT 1;\n  \\."}) {
    auto refused = SplitSql(script);
    ASSERT_EQ(ErrorCode(refused.status()), "MIGRATION_FAILED") << script;
    EXPECT_EQ(ErrorDetails(refused.status())[0].line, 2) << script;
    EXPECT_EQ(ErrorDetails(refused.status())[0].column, 3) << script;
  }
  EXPECT_TRUE(SplitSql("SELECT 'a\\b', \"c\\d\", $$\\i$$; -- \\c\n/* \\! */").ok());
}

TEST(SqlScript, CopyWithTheClientIsRefusedAndItsDataNeverRead) {
  for (const char* script : {"COPY t FROM stdin;\n'\"$$", "copy t (a, b) from STDIN with csv;\n\\.",
                             "COPY (SELECT 1) TO STDOUT", "/* ; */ COPY t FROM /* x */ STDIN"}) {
    EXPECT_EQ(ErrorCode(SplitSql(script).status()), "MIGRATION_FAILED") << script;
  }
  for (const char* script : {"COPY t FROM '/x/stdin'", "COPY (SELECT * FROM stdin) TO '/x'", "SELECT * FROM stdin", "COPY t TO PROGRAM 'stdout'"}) {
    EXPECT_TRUE(SplitSql(script).ok()) << script;
  }
}

TEST(SqlScript, TheIndexThatIsMadeConcurrentlyIsNamedAsTheServerWouldReadIt) {
  const auto index = [](const char* script) { return ConcurrentIndex((*SplitSql(script))[0]); };
  EXPECT_EQ(index("CREATE INDEX CONCURRENTLY Sales_ix ON t (n)"), "sales_ix");
  EXPECT_EQ(index("create unique index concurrently if not exists a ON t (n)"), "a");
  EXPECT_EQ(index("CREATE UNIQUE INDEX CONCURRENTLY \"My \"\"ix\"\"\" ON t (n)"), "\"My \"\"ix\"\"\"");
  EXPECT_EQ(index("CREATE INDEX CONCURRENTLY IF NOT EXISTS \"a\" ON t (n)"), "\"a\"");
  EXPECT_EQ(index("CREATE INDEX CONCURRENTLY ON t (n)"), "");
  EXPECT_EQ(index("CREATE INDEX a ON t (n)"), "");
  EXPECT_EQ(index("DROP INDEX CONCURRENTLY a"), "");
}

TEST(SqlScript, AnyTextIsCutIntoPiecesOfItselfInOrderOrRefusedWithAPlaceInIt) {
  const std::vector<std::string> pieces = {"'", "\"", "$$", "$a$", "/*", "*/", "--", "\n", ";", "E'", "\\", "(", ")", " ", "COPY", "FROM", "STDIN", "BEGIN",
                                           "ATOMIC", "END", "CASE", "CREATE", "FUNCTION", "INDEX", "CONCURRENTLY", "ü", "x", "1", "\xFF", "$"};
  uint64_t state = 42;
  const auto chance = [&](size_t below) { return static_cast<size_t>((state = state * 6364136223846793005u + 1442695040888963407u) >> 33) % below; };
  int cut = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string script;
    for (size_t n = chance(24); n > 0; --n) script += pieces[chance(pieces.size())];
    auto statements = SplitSql(script);
    if (!statements.ok()) {
      const ErrorDetail detail = ErrorDetails(statements.status()).at(0);
      EXPECT_GE(detail.line, 1) << script;
      EXPECT_GE(detail.column, 1) << script;
      EXPECT_LE(detail.line, 1 + std::count(script.begin(), script.end(), '\n')) << script;
      continue;
    }
    size_t end = 0;
    for (const SqlStatement& statement : *statements) {
      const size_t begin = static_cast<size_t>(statement.text.data() - script.data());
      ASSERT_LE(end, begin) << script;
      end = begin + statement.text.size();
      ASSERT_LE(end, script.size()) << script;
      ASSERT_FALSE(statement.text.empty()) << script;
      EXPECT_EQ(statement.line, PlaceOfByte(script, begin).line) << script;
      EXPECT_EQ(statement.column, PlaceOfByte(script, begin).column) << script;
      (void)ConcurrentIndex(statement);
      (void)IsTransactionControl(statement);
      ++cut;
    }
  }
  EXPECT_GT(cut, 5'000) << "too little was not refused to say anything";
}

TEST(SqlScript, WhatNeverEndsIsAnErrorWithTheLineWhereItOpens) {
  for (const char* open : {"'abc", "\"abc", "E'abc\\'", "$$ abc $ $", "$a$ $b$", "/* /* */"}) {
    auto statements = SplitSql(std::string("SELECT 1;\nSELECT ") + open + "\n\n");
    ASSERT_FALSE(statements.ok()) << open;
    EXPECT_EQ(SqlState(statements.status()), "42601");
    EXPECT_EQ(ErrorDetails(statements.status())[0].line, 2) << open;
  }
}

}  // namespace
}  // namespace bulkhead
