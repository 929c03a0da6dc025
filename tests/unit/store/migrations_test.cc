#include "supervisor/store/migrations.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "supervisor/base/status.h"
#include "supervisor/store/registry.h"
#include "tests/fakes/postgres_fixture.h"

namespace bulkhead {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

MigrationFile File(const std::string& name, const std::string& sql) {
  auto file = MakeMigration(name, sql);
  EXPECT_TRUE(file.ok()) << file.status();
  return *std::move(file);
}

// A module "orders" with a role and schema of its own.
class MigrationsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(registry_.Open().ok());
    auto schema = registry_.EnsureSchema("orders", 8, {});
    ASSERT_TRUE(schema.ok()) << schema.status();
    schema_ = *schema;
  }

  absl::StatusOr<MigrationReport> Run(const std::vector<MigrationFile>& files) { return Migrate(admin_, "orders", schema_.conninfo, files); }
  bool Exists(const std::string& relation) {
    return admin_.Run("SELECT to_regclass($1) IS NOT NULL AS yes", {schema_.schema + "." + relation})->Bool(0, "yes");
  }
  int History() {
    return static_cast<int>(
        admin_.Run("SELECT count(*) AS n FROM bulkhead_internal.migrations WHERE owner = 'orders' AND applied_at IS NOT NULL")->Int(0, "n"));
  }

  const std::string conninfo_ = TestPostgres::Instance().FreshDatabase();
  Database admin_{conninfo_, 4};
  Registry registry_{admin_, std::string(32, 'k')};
  ModuleSchema schema_;
};

TEST_F(MigrationsTest, TheSupervisorsOwnFilesComeFromTheBinaryAndAreRecordedLikeAllOthers) {
  const std::vector<MigrationFile> own = OwnMigrations();
  ASSERT_FALSE(own.empty());
  auto rows = admin_.Run("SELECT name, checksum, applied_at FROM bulkhead_internal.migrations WHERE owner = 'bulkhead' ORDER BY number");
  ASSERT_EQ(rows->size(), static_cast<int>(own.size()));
  for (size_t i = 0; i < own.size(); ++i) {
    EXPECT_EQ(rows->Text(i, "name"), own[i].name);
    EXPECT_EQ(rows->Text(i, "checksum"), own[i].checksum);
    EXPECT_TRUE(rows->Time(i, "applied_at").has_value());
  }
  auto again = Migrate(admin_, "bulkhead", conninfo_, own);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_THAT(again->applied, IsEmpty());
  EXPECT_EQ(again->already, static_cast<int>(own.size()));
}

TEST_F(MigrationsTest, FilesRunInOrderAsTheModulesRoleAndOnlyOnce) {
  const std::vector<MigrationFile> files = {File("001_a.sql", "CREATE TABLE a (n int);"), File("005_b.sql", "INSERT INTO a VALUES (1)")};
  auto first = Run(files);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_THAT(first->applied, ElementsAre("001_a.sql", "005_b.sql"));
  auto second = Run(files);
  ASSERT_TRUE(second.ok());
  EXPECT_THAT(second->applied, IsEmpty());
  EXPECT_EQ(second->already, 2);
  EXPECT_EQ(admin_.Run("SELECT tableowner FROM pg_tables WHERE schemaname = $1", {schema_.schema})->Text(0, "tableowner"), schema_.role);
}

TEST_F(MigrationsTest, BlocksFunctionsStringsAndCommentsMayHoldWhatLooksLikeTheirEnd) {
  auto report = Run({File("001_all.sql", R"sql(
-- COMMIT; it's a comment
CREATE TABLE t (s text); /* ; /* COMMIT; */ ' */
INSERT INTO t VALUES ('a;COMMIT;'), (E'b\';ROLLBACK;'), ($x$c; $$ END; $x$);
DO $$
BEGIN
  INSERT INTO t VALUES ('d;');
  BEGIN
    PERFORM 1/0;
  EXCEPTION WHEN division_by_zero THEN NULL;
  END;
END
$$;
CREATE FUNCTION count_them() RETURNS bigint LANGUAGE sql BEGIN ATOMIC
  SELECT CASE WHEN true THEN count(*) END FROM t;
END;
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.s := NEW.s || ''!''; RETURN NEW; END';
SAVEPOINT here;
INSERT INTO t VALUES ('gone');
ROLLBACK TO SAVEPOINT here;
)sql")});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(admin_.Run("SELECT " + schema_.schema + ".count_them() AS n")->Int(0, "n"), 4);
}

TEST_F(MigrationsTest, AFailingFileLeavesNothingAndNamesFileLineStateAndSentence) {
  auto report = Run({File("001_good.sql", "CREATE TABLE good (n int)"),
                     File("002_bad.sql", "CREATE TABLE half (n int);\nINSERT INTO half VALUES (1);\n\nINSERT INTO nowhere VALUES (1);\n"),
                     File("003_after.sql", "CREATE TABLE after (n int)")});
  ASSERT_EQ(ErrorCode(report.status()), "MIGRATION_FAILED") << report.status();
  const ErrorDetail detail = ErrorDetails(report.status())[0];
  EXPECT_EQ(detail.path, "002_bad.sql");
  EXPECT_EQ(detail.code, "42P01");
  EXPECT_EQ(detail.line, 4);
  EXPECT_THAT(detail.message, HasSubstr("nowhere"));
  EXPECT_THAT(std::string(report.status().message()), HasSubstr("002_bad.sql of orders, line 4"));
  EXPECT_TRUE(Exists("good"));
  EXPECT_FALSE(Exists("half"));
  EXPECT_FALSE(Exists("after"));
  EXPECT_EQ(History(), 1);
  // Corrected, it goes on where it stopped.
  auto corrected = Run({File("001_good.sql", "CREATE TABLE good (n int)"), File("002_bad.sql", "CREATE TABLE half (n int);")});
  ASSERT_TRUE(corrected.ok()) << corrected.status();
  EXPECT_THAT(corrected->applied, ElementsAre("002_bad.sql"));
}

TEST_F(MigrationsTest, AnErrorAtRunTimeNamesTheLineOfItsStatement) {
  auto report = Run({File("001_x.sql", "CREATE TABLE u (n int UNIQUE);\nINSERT INTO u\n VALUES (1);\nINSERT INTO u\n VALUES (1);")});
  EXPECT_EQ(ErrorDetails(report.status())[0].line, 4);
  EXPECT_EQ(ErrorDetails(report.status())[0].code, "23505");
  EXPECT_EQ(ErrorCode(report.status()), "MIGRATION_FAILED");
}

TEST_F(MigrationsTest, TransactionControlInsideAFileIsRefusedWithItsLineBeforeAnythingRuns) {
  for (const char* control : {"COMMIT", "BEGIN", "ROLLBACK", "end", "ABORT", "START TRANSACTION", "PREPARE TRANSACTION 'x'", "COMMIT PREPARED 'x'"}) {
    auto report = Run({File("001_a.sql", "CREATE TABLE a (n int)"), File("002_b.sql", std::string("CREATE TABLE b (n int);\n\n") + control + ";\n")});
    ASSERT_EQ(ErrorCode(report.status()), "MIGRATION_FAILED") << control;
    EXPECT_EQ(ErrorDetails(report.status())[0].line, 3) << control;
    EXPECT_EQ(ErrorDetails(report.status())[0].path, "002_b.sql");
    EXPECT_FALSE(Exists("a"));
    EXPECT_EQ(History(), 0);
  }
}

TEST_F(MigrationsTest, ACommitSmuggledPastTheCheckIsNoticed) {
  auto report = Run({File("001_x.sql", "SET standard_conforming_strings = off;\nSELECT 'a\\'; COMMIT; BEGIN; --'\n;")});
  EXPECT_EQ(ErrorCode(report.status()), "MIGRATION_FAILED") << report.status();
  EXPECT_EQ(History(), 0);
}

TEST_F(MigrationsTest, AnEditedFileIsNamedAndNothingRuns) {
  ASSERT_TRUE(Run({File("001_a.sql", "CREATE TABLE a (n int)")}).ok());
  auto report = Run({File("001_a.sql", "CREATE TABLE a (n bigint)"), File("002_b.sql", "CREATE TABLE b (n int)")});
  EXPECT_EQ(ErrorCode(report.status()), "MIGRATION_EDITED");
  EXPECT_THAT(std::string(report.status().message()), HasSubstr("001_a.sql"));
  EXPECT_FALSE(Exists("b"));
}

TEST_F(MigrationsTest, AFileBelowTheLastAppliedOneIsOutOfOrder) {
  ASSERT_TRUE(Run({File("003_c.sql", "CREATE TABLE c (n int)")}).ok());
  auto report = Run({File("002_b.sql", "CREATE TABLE b (n int)"), File("003_c.sql", "CREATE TABLE c (n int)")});
  EXPECT_EQ(ErrorCode(report.status()), "MIGRATION_OUT_OF_ORDER");
  EXPECT_THAT(std::string(report.status().message()), HasSubstr("002_b.sql"));
  EXPECT_FALSE(Exists("b"));
  // An older version of the module, which does not know the file, still starts.
  EXPECT_TRUE(Run({}).ok());
}

TEST_F(MigrationsTest, AFileWithoutATransactionRunsStatementByStatement) {
  auto report = Run({File("001_t.sql", "CREATE TABLE t (n int)"),
                     File("002_index.sql", "-- bulkhead: no-transaction\nCREATE INDEX CONCURRENTLY one ON t (n);\n"
                                           "CREATE INDEX CONCURRENTLY two ON t ((n + 1));\nVACUUM t;\n")});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(Exists("one"));
  EXPECT_TRUE(Exists("two"));
  EXPECT_EQ(History(), 2);
  EXPECT_EQ(admin_.Run("SELECT progress FROM bulkhead_internal.migrations WHERE owner = 'orders' AND number = 2")->Int(0, "progress"), 3);
}

TEST_F(MigrationsTest, AFileWithoutATransactionGoesOnBehindWhatIsDone) {
  const std::string head = "-- bulkhead: no-transaction\nCREATE TABLE once (n int);\nINSERT INTO once VALUES (1);\n";
  auto failed = Run({File("001_x.sql", head + "\nINSERT INTO once\nSELECT missing;\nINSERT INTO once VALUES (3);")});
  ASSERT_EQ(ErrorCode(failed.status()), "MIGRATION_FAILED");
  EXPECT_EQ(ErrorDetails(failed.status())[0].line, 6);
  EXPECT_EQ(History(), 0);
  // What has run may not change …
  auto edited = Run({File("001_x.sql", "-- bulkhead: no-transaction\nCREATE TABLE once (n bigint);\nINSERT INTO once VALUES (1);\n")});
  EXPECT_EQ(ErrorCode(edited.status()), "MIGRATION_EDITED") << edited.status();
  auto whole = Run({File("001_x.sql", "CREATE TABLE once (n int);")});
  EXPECT_EQ(ErrorCode(whole.status()), "MIGRATION_EDITED");
  // … what has not, may.
  auto corrected = Run({File("001_x.sql", head + "INSERT INTO once VALUES (2);")});
  ASSERT_TRUE(corrected.ok()) << corrected.status();
  EXPECT_EQ(admin_.Run("SELECT sum(n) AS s FROM " + schema_.schema + ".once")->Int(0, "s"), 3);
  EXPECT_EQ(History(), 1);
  // And once it is applied, it is like any other.
  EXPECT_EQ(ErrorCode(Run({File("001_x.sql", head)}).status()), "MIGRATION_EDITED");
}

TEST_F(MigrationsTest, AFileWithoutATransactionMayNotOpenOneEither) {
  auto report = Run({File("001_x.sql", "-- bulkhead: no-transaction\nBEGIN;\nSELECT 1;\nCOMMIT")});
  EXPECT_EQ(ErrorCode(report.status()), "MIGRATION_FAILED");
  EXPECT_EQ(ErrorDetails(report.status())[0].line, 2);
}

TEST_F(MigrationsTest, RunnersAtTheSameTimeTakeTurns) {
  std::vector<MigrationFile> files;
  for (int i = 1; i <= 4; ++i) {
    files.push_back(File("00" + std::to_string(i) + "_x.sql", "CREATE TABLE t" + std::to_string(i) + " (n int); SELECT pg_sleep(0.02)"));
  }
  std::vector<std::thread> runners;
  std::atomic<int> applied{0}, failed{0};
  for (int i = 0; i < 4; ++i) {
    runners.emplace_back([&] {
      auto report = Run(files);
      if (report.ok()) applied += static_cast<int>(report->applied.size());
      else ++failed;
    });
  }
  for (std::thread& runner : runners) runner.join();
  EXPECT_EQ(failed, 0);
  EXPECT_EQ(applied, 4);
}

TEST(OwnMigrations, RunByManySupervisorsAtOnceOnAnEmptyDatabaseApplyOnce) {
  const std::string conninfo = TestPostgres::Instance().FreshDatabase(false);
  std::vector<std::thread> runners;
  std::atomic<int> applied{0};
  for (int i = 0; i < 4; ++i) {
    runners.emplace_back([&] {
      Database database(conninfo, 1);
      auto report = Migrate(database, "bulkhead", conninfo, OwnMigrations());
      ASSERT_TRUE(report.ok()) << report.status();
      applied += static_cast<int>(report->applied.size());
    });
  }
  for (std::thread& runner : runners) runner.join();
  EXPECT_EQ(applied, static_cast<int>(OwnMigrations().size()));
}

TEST_F(MigrationsTest, ALockHeldByAnotherIsWaitedForAndTheFileTriedAgain) {
  ASSERT_TRUE(Run({File("001_a.sql", "CREATE TABLE a (n int)")}).ok());
  auto holder = Connection::Open(conninfo_);
  ASSERT_TRUE(holder.ok());
  ASSERT_TRUE((*holder)->RunScript("BEGIN; LOCK TABLE " + schema_.schema + ".a").ok());
  // The file lowers the lock timeout for itself, so that the test need not wait for the real one.
  const MigrationFile waits = File("002_b.sql", "SET LOCAL lock_timeout = '20ms'; CREATE TABLE b (n int); ALTER TABLE a ADD m int");
  absl::StatusOr<MigrationReport> report = absl::UnknownError("");
  std::thread runner([&] { report = Run({File("001_a.sql", "CREATE TABLE a (n int)"), waits}); });
  // Released once the first attempt has certainly failed: its backend waits, then no longer does.
  while (admin_.Run("SELECT FROM pg_stat_activity WHERE usename = $1 AND wait_event_type = 'Lock'", {schema_.role})->size() == 0) {
  }
  while (admin_.Run("SELECT FROM pg_stat_activity WHERE usename = $1 AND wait_event_type = 'Lock'", {schema_.role})->size() != 0) {
  }
  ASSERT_TRUE((*holder)->RunScript("COMMIT").ok());
  runner.join();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(Exists("b"));
}

TEST_F(MigrationsTest, SettingsOfOneFileDoNotReachTheNext) {
  auto report = Run({File("001_a.sql", "SET search_path = pg_catalog; SET lock_timeout = 0;"),
                     File("002_b.sql", "CREATE TABLE b (n int);\nDO $$ BEGIN IF current_setting('lock_timeout') <> '5s' THEN RAISE 'leaked'; END IF; END $$")});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(Exists("b"));
}

class MigrationFolderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char path[] = "/tmp/bulkhead-migrations-XXXXXX";
    ASSERT_NE(mkdtemp(path), nullptr);
    folder_ = path;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  void Write(const std::string& name, const std::string& text) { std::ofstream(folder_ + "/" + name) << text; }
  std::string folder_;
};

TEST_F(MigrationFolderTest, GivesTheForwardFilesInOrderOfTheirNumbers) {
  Write("010_b.sql", "SELECT 2");
  Write("002_a.sql", "-- bulkhead: no-transaction \r\nSELECT 1");
  Write("002_a.down.sql", "SELECT -1");
  Write("README.md", "hello");
  auto files = ReadMigrations(folder_);
  ASSERT_TRUE(files.ok()) << files.status();
  ASSERT_EQ(files->size(), 2u);
  EXPECT_EQ((*files)[0].number, 2);
  EXPECT_FALSE((*files)[0].transactional);
  EXPECT_EQ((*files)[1].name, "010_b.sql");
  EXPECT_TRUE((*files)[1].transactional);
  EXPECT_EQ((*files)[1].checksum, "ebbb5b332060a3ede7047bd7528883b0a560e729848f9feb8ff742145e909b01");
}

TEST_F(MigrationFolderTest, ThatDoesNotExistIsEmpty) {
  auto files = ReadMigrations(folder_ + "/none");
  ASSERT_TRUE(files.ok());
  EXPECT_THAT(*files, IsEmpty());
}

TEST_F(MigrationFolderTest, WithTwoFilesOfOneNumberIsInvalid) {
  Write("002_a.sql", "SELECT 1");
  Write("0002_b.sql", "SELECT 1");
  EXPECT_EQ(ErrorCode(ReadMigrations(folder_).status()), "MIGRATION_INVALID");
}

TEST_F(MigrationFolderTest, WithANameThatIsNoneIsInvalid) {
  for (const char* name : {"a.sql", "1_a.sql", "001.sql", "001_.sql", "000_zero.sql", "0000001_long.sql", "-01_a.sql", "abc_x.down.sql"}) {
    Write(name, "SELECT 1");
    auto files = ReadMigrations(folder_);
    EXPECT_EQ(ErrorCode(files.status()), "MIGRATION_INVALID") << name;
    EXPECT_THAT(std::string(files.status().message()), HasSubstr(name));
    std::filesystem::remove(folder_ + "/" + name);
  }
  Write("001_nul.sql", std::string("SELECT\0 1", 9));
  EXPECT_EQ(ErrorCode(ReadMigrations(folder_).status()), "MIGRATION_INVALID");
}

}  // namespace
}  // namespace bulkhead
