// Scripts as people write them for PostgreSQL, through the runner and the real server: what must pass, what is refused, and where an
// error is said to be.
#include <gmock/gmock.h>

#include "tests/unit/store/migrated_module.h"

namespace bulkhead {
namespace {

using ::testing::HasSubstr;

class MigrationScripts : public MigratedModuleTest {
 protected:
  // The one detail of a refusal.
  ErrorDetail Refused(const std::string& sql) {
    auto report = Run({File("001_x.sql", sql)});
    EXPECT_EQ(ErrorCode(report.status()), "MIGRATION_FAILED") << sql << "\n" << report.status();
    EXPECT_EQ(History(), 0) << sql;
    const auto details = ErrorDetails(report.status());
    if (details.size() != 1) return {};
    if (details[0].line > 0) {
      EXPECT_THAT(std::string(report.status().message()),
                  HasSubstr("line " + std::to_string(details[0].line) + ", column " + std::to_string(details[0].column)));
    }
    return details[0];
  }
};

TEST_F(MigrationScripts, StringsOfEveryKindMayHoldWhatEndsAStatement) {
  auto report = Run({File("001_strings.sql", R"sql(
CREATE TABLE s (id int PRIMARY KEY, v text);
INSERT INTO s VALUES (1, E'it\'s; \\ fine;\n'), (2, U&'\0041;\0042' ), (3, U&'d!0061t;' UESCAPE '!'), (4, 'a'
  ';b'), (5, $$ ' ; "$$), (6, $q$ $$ ; $notq$ $q$), (7, e'\\'';'), (8, B'101'::text || ';'), (9, N';');
CREATE TABLE "odd;""name" ("a;b" int);
-- comment with $$ and ' and /* in it;
/* block with -- and $x$ and ' ; /* nested ; $$ */ still ; */
COMMENT ON TABLE s IS $c$ends -- not; here$c$;
)sql")});
  ASSERT_TRUE(report.ok()) << report.status();
  auto rows = Login()->Run("SELECT string_agg(v, '|' ORDER BY id) AS all FROM s");
  EXPECT_EQ(rows->Text(0, "all"), "it's; \\ fine;\n|A;B|dat;|a;b| ' ; \"| $$ ; $notq$ |\\';|101;|;");
}

TEST_F(MigrationScripts, DollarQuotesInCommentsOpenNothing) {
  auto report = Run({File("001_x.sql", "-- $$\nCREATE TABLE a (n int);\n/* $body$ */ CREATE TABLE b (n int); -- $body$\nCREATE TABLE c (n int);")});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(Exists("a") && Exists("b") && Exists("c"));
}

TEST_F(MigrationScripts, BlocksFunctionsTriggersRulesAndPoliciesPass) {
  auto report = Run({File("001_all.sql", R"sql(
CREATE TABLE t (n int, s text);
CREATE FUNCTION plain() RETURNS int LANGUAGE plpgsql AS $$ DECLARE x int; BEGIN x := 1; RETURN x; END; $$;
CREATE FUNCTION nested() RETURNS text LANGUAGE plpgsql AS $outer$
BEGIN
  EXECUTE $inner$ CREATE TABLE made (n int); $inner$;
  RETURN 'BEGIN; COMMIT;';
END $outer$;
CREATE FUNCTION quoted() RETURNS text LANGUAGE sql AS 'SELECT ''a;b''; SELECT ''c;''';
CREATE OR REPLACE FUNCTION atomic(n int) RETURNS int LANGUAGE sql
BEGIN ATOMIC
  SELECT CASE WHEN n > 1 THEN CASE n WHEN 2 THEN 20 END ELSE 1 END;
END;
CREATE PROCEDURE fill(n int) LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t VALUES (n, ';'); END $$;
CREATE RULE twice AS ON DELETE TO t DO ALSO (SELECT 1; SELECT 2);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.s := NEW.s || '!'; RETURN NEW; END $$;
CREATE TRIGGER touched BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION touch();
DO LANGUAGE plpgsql $do$ BEGIN CALL fill(7); PERFORM nested(); END $do$;
WITH changed AS (UPDATE t SET n = n RETURNING n) SELECT count(*) FROM changed;
SELECT atomic(2);
)sql")});
  ASSERT_TRUE(report.ok()) << report.status();
  auto login = Login();
  EXPECT_EQ(login->Run("SELECT s FROM t")->Text(0, "s"), ";!");
  EXPECT_EQ(login->Run("SELECT atomic(2) AS n")->Int(0, "n"), 20);
  EXPECT_EQ(login->Run("SELECT quoted() AS s")->Text(0, "s"), "c;");
  EXPECT_TRUE(Exists("made"));
}

TEST_F(MigrationScripts, CopyWithTheClientIsRefusedWithItsPlaceBeforeAnythingRuns) {
  ErrorDetail detail = Refused("CREATE TABLE t (a text);\n  COPY t (a) FROM stdin;\nit's \\N \"data\" $$\n\\.\nSELECT 1;");
  EXPECT_EQ(detail.line, 2);
  EXPECT_EQ(detail.column, 3);
  EXPECT_THAT(detail.message, HasSubstr("INSERT"));
  EXPECT_FALSE(Exists("t"));
  EXPECT_EQ(Refused("SELECT 1;\ncopy t from STDIN with (format csv)").line, 2);
  EXPECT_EQ(Refused("COPY t TO STDOUT").line, 1);
  EXPECT_EQ(Refused("-- bulkhead: no-transaction\nCOPY t FROM STDIN").line, 2);
  // With a file or a program it is the server that refuses.
  ASSERT_TRUE(Run({File("001_x.sql", "CREATE TABLE stdin (n int); INSERT INTO stdin VALUES (1); CREATE TABLE u AS SELECT n FROM stdin;")}).ok());
}

TEST_F(MigrationScripts, CommandsOfPsqlAreRefusedWithTheirPlace) {
  for (const std::string command : {"\\i other.sql", "\\c postgres", "\\copy t FROM 'x'", "\\set x 1", "\\echo hi", "\\."}) {
    const ErrorDetail detail = Refused("CREATE TABLE t (a text);\n\n " + command + "\n");
    EXPECT_EQ(detail.line, 3) << command;
    EXPECT_EQ(detail.column, 2) << command;
    EXPECT_THAT(detail.message, HasSubstr("psql")) << command;
    EXPECT_THAT(detail.message, HasSubstr(command.substr(0, command.find(' '))));
  }
  EXPECT_FALSE(Exists("t"));
}

TEST_F(MigrationScripts, ACommitInsideABlockFailsAndLeavesNothing) {
  const ErrorDetail block = Refused("CREATE TABLE t (n int);\nDO $$ BEGIN INSERT INTO t VALUES (1); COMMIT; END $$;");
  EXPECT_EQ(block.code, "2D000");
  EXPECT_EQ(block.line, 2);
  const ErrorDetail procedure = Refused(
      "CREATE TABLE t (n int);\nCREATE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN ROLLBACK; END $$;\nINSERT INTO t VALUES (1);\nCALL p();");
  EXPECT_EQ(procedure.code, "2D000");
  EXPECT_EQ(procedure.line, 4);
  EXPECT_FALSE(Exists("t"));
}

TEST_F(MigrationScripts, WithoutATransactionABlockMayCommit) {
  auto report = Run({File("001_x.sql", "-- bulkhead: no-transaction\nCREATE TABLE t (n int);\n"
                                       "DO $$ BEGIN FOR i IN 1..3 LOOP INSERT INTO t VALUES (i); COMMIT; END LOOP; END $$;")});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(Count(schema_.schema + ".t"), 3);
}

TEST_F(MigrationScripts, WhatNeedsAFileWithoutATransactionSaysHowToWriteOne) {
  const ErrorDetail detail = Refused("CREATE TABLE t (n int);\nCREATE INDEX CONCURRENTLY i ON t (n);");
  EXPECT_EQ(detail.code, "25001");
  EXPECT_THAT(detail.message, HasSubstr("-- bulkhead: no-transaction"));
}

TEST_F(MigrationScripts, SavepointsAreTheFilesOwn) {
  auto report = Run({File("001_x.sql", "CREATE TABLE t (n int);\nSAVEPOINT a;\nINSERT INTO t VALUES (1);\nROLLBACK TO a;\n"
                                       "RELEASE a;\nINSERT INTO t VALUES (2);")});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(Login()->Run("SELECT sum(n) AS n FROM t")->Int(0, "n"), 2);
}

TEST_F(MigrationScripts, PlacesCountCharactersAndAreThoseOfTheFile) {
  // "Größe" has seven bytes and five characters.
  ErrorDetail detail = Refused("CREATE TABLE \"Größe\" (n int);\n-- äöü\nSELECT 'Größe', nowhere FROM \"Größe\";");
  EXPECT_EQ(detail.code, "42703");
  EXPECT_EQ(detail.line, 3);
  EXPECT_EQ(detail.column, 17);
  detail = Refused("SELECT 1;\r\n\tSELEKT 2;");
  EXPECT_EQ(detail.code, "42601");
  EXPECT_EQ(detail.line, 2);
  EXPECT_EQ(detail.column, 2);
  // At the end of the file.
  detail = Refused("SELECT 1;\nSELECT (1\n");
  EXPECT_EQ(detail.code, "42601");
  EXPECT_EQ(detail.line, 3);
  // Without a position: the statement's first token, after a comment and in the middle of a line.
  detail = Refused("SELECT 'é'; /* ü */ SELECT 1/(SELECT 0);");
  EXPECT_EQ(detail.code, "22012");
  EXPECT_EQ(detail.line, 1);
  EXPECT_EQ(detail.column, 21);
}

TEST_F(MigrationScripts, PlacesOfLaterStatementsWithoutATransactionAreThoseOfTheFile) {
  ErrorDetail detail = Refused("-- bulkhead: no-transaction\nSELECT 'ü'; SELECT\n  'é', nowhere;");
  EXPECT_EQ(detail.line, 3);
  EXPECT_EQ(detail.column, 8);
  admin_.Run("DELETE FROM bulkhead_internal.migrations WHERE owner = 'orders'").status().IgnoreError();
  detail = Refused("-- bulkhead: no-transaction\nSELECT 'ü'; SELECT nowhere;");
  EXPECT_EQ(detail.line, 2);
  EXPECT_EQ(detail.column, 20);
}

TEST_F(MigrationScripts, DetailHintAndContextOfTheServerAreToldToo) {
  const ErrorDetail detail = Refused(
      "CREATE TABLE t (n int PRIMARY KEY);\nCREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN\n"
      "RAISE 'it broke' USING DETAIL = 'the detail', HINT = 'try the hint', ERRCODE = 'P0042'; END $$;\nSELECT f();");
  EXPECT_EQ(detail.code, "P0042");
  EXPECT_EQ(detail.line, 4);
  for (const char* part : {"it broke", "the detail", "try the hint", "PL/pgSQL function f() line 2"}) EXPECT_THAT(detail.message, HasSubstr(part));
  EXPECT_THAT(Refused("CREATE TABLE t (n int PRIMARY KEY); INSERT INTO t VALUES (1), (1)").message, HasSubstr("Key (n)=(1) already exists"));
}

TEST_F(MigrationScripts, AModuleHasNoExtensionsButThoseItWasGiven) {
  EXPECT_EQ(Refused("CREATE EXTENSION dblink").code, "42501");
  EXPECT_EQ(Refused("CREATE EXTENSION postgres_fdw").code, "42501");
  EXPECT_EQ(Refused("CREATE EXTENSION hstore SCHEMA " + schema_.schema).code, "42501");  // a trusted one
}

}  // namespace
}  // namespace bulkhead
