// Down files, the plan and the status of a module's migrations, and who may write their history.
#include <gmock/gmock.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/unit/store/migrated_module.h"

namespace bulkhead {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class MigrationRollback : public MigratedModuleTest {
 protected:
  const std::vector<MigrationFile> three_ = {File("001_a.sql", "CREATE TABLE a (n int)", "DROP TABLE a"),
                                             File("002_b.sql", "CREATE TABLE b (n int)", "DROP TABLE b"),
                                             File("003_c.sql", "CREATE TABLE c (n int)", "DROP TABLE c")};
  absl::StatusOr<MigrationOverview> Inspect(const std::vector<MigrationFile>& files) { return InspectMigrations(admin_, "orders", files); }
};

TEST_F(MigrationRollback, TakesTheLastOneBackOrAllAboveANumberInReverseOrder) {
  ASSERT_TRUE(Run(three_).ok());
  auto last = Down(three_);
  ASSERT_TRUE(last.ok()) << last.status();
  EXPECT_THAT(last->applied, ElementsAre("003_c.sql"));
  EXPECT_FALSE(Exists("c"));
  EXPECT_TRUE(Exists("b"));
  ASSERT_TRUE(Run(three_).ok());
  auto to = Down(three_, 1);
  ASSERT_TRUE(to.ok()) << to.status();
  EXPECT_THAT(to->applied, ElementsAre("003_c.sql", "002_b.sql"));
  EXPECT_EQ(History(), 1);
  auto all = Down(three_, 0);
  EXPECT_THAT(all->applied, ElementsAre("001_a.sql"));
  EXPECT_EQ(History(), 0);
  EXPECT_THAT(Down(three_)->applied, IsEmpty());
  // And forward again.
  EXPECT_THAT(Run(three_)->applied, ElementsAre("001_a.sql", "002_b.sql", "003_c.sql"));
}

TEST_F(MigrationRollback, AFailingDownFileLeavesItAppliedAndNamesItsPlace) {
  const std::vector<MigrationFile> files = {three_[0], File("002_b.sql", "CREATE TABLE b (n int)", "DROP TABLE b;\nDROP TABLE nowhere;")};
  ASSERT_TRUE(Run(files).ok());
  auto failed = Down(files, 0);
  ASSERT_EQ(ErrorCode(failed.status()), "MIGRATION_FAILED");
  EXPECT_THAT(std::string(failed.status().message()), HasSubstr("002_b.down.sql of orders, line 2, column 1"));
  EXPECT_TRUE(Exists("b") && Exists("a"));
  EXPECT_EQ(History(), 2);
}

TEST_F(MigrationRollback, OneWithoutADownFileInTheWayIsRefusedBeforeAnythingRuns) {
  const std::vector<MigrationFile> files = {three_[0], File("002_b.sql", "CREATE TABLE b (n int)"), three_[2]};
  ASSERT_TRUE(Run(files).ok());
  auto refused = Down(files, 0);
  ASSERT_EQ(ErrorCode(refused.status()), "MIGRATION_IRREVERSIBLE");
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("002_b.sql"));
  EXPECT_EQ(History(), 3);
  EXPECT_THAT(Down(files)->applied, ElementsAre("003_c.sql"));
  EXPECT_EQ(ErrorCode(Down(files).status()), "MIGRATION_IRREVERSIBLE");
  // Nor does a version that does not know a file take it back.
  EXPECT_EQ(ErrorCode(Down({three_[0]}).status()), "MIGRATION_IRREVERSIBLE");
}

TEST_F(MigrationRollback, ANumberThatIsNotAppliedIsNoGoal) {
  ASSERT_TRUE(Run(three_).ok());
  EXPECT_EQ(ErrorCode(Down(three_, 7).status()), "INVALID_ARGUMENT");
  EXPECT_THAT(Down(three_, 3)->applied, IsEmpty());
}

TEST_F(MigrationRollback, TransactionControlInADownFileIsRefusedBeforeAnythingRuns) {
  const std::vector<MigrationFile> files = {File("001_a.sql", "CREATE TABLE a (n int)", "DROP TABLE a;\nCOMMIT;"), three_[1]};
  ASSERT_TRUE(Run(files).ok());
  auto refused = Down(files, 0);
  EXPECT_EQ(ErrorCode(refused.status()), "MIGRATION_FAILED");
  EXPECT_EQ(ErrorDetails(refused.status())[0].line, 2);
  EXPECT_EQ(History(), 2);
}

TEST_F(MigrationRollback, AHalfAppliedFileIsNotTakenBack) {
  const std::vector<MigrationFile> files = {File("001_a.sql", "-- bulkhead: no-transaction\nCREATE TABLE a (n int);\nSELECT nowhere;", "DROP TABLE a")};
  ASSERT_FALSE(Run(files).ok());
  auto refused = Down(files);
  EXPECT_EQ(ErrorCode(refused.status()), "MIGRATION_IRREVERSIBLE");
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("half done"));
}

TEST_F(MigrationRollback, TheLogKeepsWhatWasAppliedAndTakenBackAndWhen) {
  ASSERT_TRUE(Run(three_).ok());
  ASSERT_TRUE(Down(three_, 1).ok());
  ASSERT_TRUE(Run({three_[0], three_[1]}).ok());
  auto log = admin_.Run("SELECT string_agg(number || ':' || action, ' ' ORDER BY id) AS all, bool_and(at > now() - interval '1 minute') AS fresh "
                        "FROM bulkhead_internal.migration_log WHERE owner = 'orders'");
  EXPECT_EQ(log->Text(0, "all"), "1:applied 2:applied 3:applied 3:rolled_back 2:rolled_back 2:applied");
  EXPECT_TRUE(log->Bool(0, "fresh"));
  auto overview = Inspect(three_);
  ASSERT_TRUE(overview.ok()) << overview.status();
  ASSERT_EQ(overview->files.size(), 3u);
  EXPECT_EQ(overview->files[0].state, MigrationState::kApplied);
  EXPECT_TRUE(overview->files[0].took_ms.has_value());
  EXPECT_EQ(overview->files[1].state, MigrationState::kApplied);
  EXPECT_EQ(overview->files[2].state, MigrationState::kRolledBack);
  EXPECT_TRUE(overview->files[2].rolled_back_at.has_value());
  EXPECT_FALSE(overview->running.has_value());
}

TEST_F(MigrationRollback, TheOverviewShowsWhatWouldRunAndEverythingThatIsWrongAndChangesNothing) {
  ASSERT_TRUE(Run({three_[0], three_[1], three_[2], File("009_i.sql", "CREATE TABLE i (n int)")}).ok());
  auto overview = Inspect({File("001_a.sql", "CREATE TABLE a (n bigint)"), three_[2], File("005_e.sql", "SELECT 1; SELECT 2"),
                           File("010_j.sql", "-- bulkhead: no-transaction\nSELECT 1;\nCOMMIT"), File("011_k.sql", "SELECT 1")});
  ASSERT_TRUE(overview.ok()) << overview.status();
  std::vector<std::string> problems;
  for (const MigrationProblem& problem : overview->problems) problems.push_back(problem.code + " " + problem.file);
  EXPECT_THAT(problems, ElementsAre("MIGRATION_EDITED 001_a.sql", "MIGRATION_MISSING 002_b.sql", "MIGRATION_OUT_OF_ORDER 005_e.sql",
                                    "MIGRATION_MISSING 009_i.sql", "MIGRATION_FAILED 010_j.sql"));
  EXPECT_EQ(overview->problems[4].line, 3);
  EXPECT_EQ(overview->files[3].statements, 2);
  EXPECT_FALSE(overview->files[1].present);
  EXPECT_FALSE(overview->files[5].transactional);
  EXPECT_EQ(History(), 4);
  EXPECT_EQ(ErrorCode(Run({three_[0], three_[2]}).status()), "MIGRATION_MISSING");
}

TEST_F(MigrationRollback, AModuleWritesNoHistoryOutsideOfAMigrationAndNoneButThatOfTheFileThatRuns) {
  auto login = Login();
  EXPECT_EQ(SqlState(login->Run("SELECT * FROM bulkhead_internal.migrations").status()), "42501");
  EXPECT_EQ(SqlState(login->Run("INSERT INTO bulkhead_internal.migration_runs VALUES ('orders', 1, 'x', 'up', 1, now())").status()), "42501");
  EXPECT_EQ(SqlState(login->Run("SELECT bulkhead_internal.announced_migration(1, 'up')").status()), "42501");
  EXPECT_EQ(SqlState(login->Run("SELECT bulkhead.record_migration(7, '007_x.sql', 'abc', NULL, true)").status()), "42501");
  ASSERT_TRUE(Run(three_).ok());
  EXPECT_EQ(SqlState(login->Run("SELECT bulkhead.record_rollback(3)").status()), "42501");
  EXPECT_EQ(History(), 3);
  // A file forges neither another's row nor another module's; what it says of itself only makes it fail.
  auto other = Run({three_[0], three_[1], three_[2], File("004_d.sql", "SELECT bulkhead.record_migration(5, '005_e.sql', 'abc', NULL, true)")});
  EXPECT_EQ(ErrorDetails(other.status())[0].code, "42501") << other.status();
  auto itself = Run({three_[0], three_[1], three_[2], File("004_d.sql", "SELECT bulkhead.record_migration(4, '004_d.sql', 'abc', NULL, true)")});
  EXPECT_EQ(ErrorDetails(itself.status())[0].code, "23505") << itself.status();
  auto back = Run({three_[0], three_[1], three_[2], File("004_d.sql", "SELECT bulkhead.record_rollback(1)")});
  EXPECT_EQ(ErrorDetails(back.status())[0].code, "42501") << back.status();
  EXPECT_EQ(History(), 3);
  // Another session of the module, while a file runs, is not the one that was announced.
  auto sneaks = Run({three_[0], three_[1], three_[2], File("004_d.sql", "CREATE TABLE d (n int)")});
  EXPECT_TRUE(sneaks.ok());
  EXPECT_EQ(Count("bulkhead_internal.migration_runs"), 0);
}

TEST(OwnMigrations, OfALaterVersionAreRefusedWithASentence) {
  const std::string conninfo = TestPostgres::Instance().FreshDatabase();
  Database database(conninfo, 1);
  ASSERT_TRUE(database.Run("INSERT INTO bulkhead_internal.migrations VALUES ('bulkhead', 9999, '9999_future.sql', 'x', NULL, now())").ok());
  auto refused = Migrate(database, "bulkhead", conninfo, OwnMigrations());
  ASSERT_EQ(ErrorCode(refused.status()), "SCHEMA_NEWER") << refused.status();
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("9999_future.sql"));
}

TEST(MigrationFolder, PairsDownFilesAndRefusesThoseThatBelongToNothing) {
  char path[] = "/tmp/bulkhead-migrations-XXXXXX";
  ASSERT_NE(mkdtemp(path), nullptr);
  const std::string folder = path;
  const auto write = [&](const std::string& name, const std::string& text) { std::ofstream(folder + "/" + name) << text; };
  write("001_a.sql", "SELECT 1");
  write("001_a.down.sql", "SELECT -1");
  auto files = ReadMigrations(folder);
  ASSERT_TRUE(files.ok()) << files.status();
  ASSERT_EQ(files->size(), 1u);
  EXPECT_EQ((*files)[0].down_name, "001_a.down.sql");
  EXPECT_EQ((*files)[0].down_sql, "SELECT -1");
  EXPECT_EQ((*files)[0].down_checksum.size(), 64u);
  write("002_b.down.sql", "SELECT -1");
  auto alone = ReadMigrations(folder);
  EXPECT_EQ(ErrorCode(alone.status()), "MIGRATION_INVALID");
  EXPECT_THAT(std::string(alone.status().message()), HasSubstr("002_b.down.sql"));
  std::filesystem::remove(folder + "/002_b.down.sql");
  write("001_a.down.sql", "-- bulkhead: no-transaction\nSELECT -1");
  EXPECT_EQ(ErrorCode(ReadMigrations(folder).status()), "MIGRATION_INVALID");
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace bulkhead
