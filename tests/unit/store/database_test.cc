#include "supervisor/store/database.h"

#include <gtest/gtest.h>

#include <thread>

#include "supervisor/base/status.h"
#include "tests/fakes/postgres_fixture.h"

namespace bulkhead {
namespace {

using namespace std::chrono_literals;

class DatabaseTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { conninfo_ = TestPostgres::Instance().FreshDatabase(false); }
  Database database_{conninfo_, 3};
  static inline std::string conninfo_;
};

WallTime At(int64_t seconds, int64_t micros = 0) { return WallTime(std::chrono::seconds(seconds) + std::chrono::microseconds(micros)); }

TEST_F(DatabaseTest, ParametersTravelAsTextAndNullStaysNull) {
  auto rows = database_.Run("SELECT $1::int + 1 AS n, $2::text AS t, $3::text AS nothing, $4::bool AS b", {"41", "a'b\"c", std::nullopt, "true"});
  ASSERT_TRUE(rows.ok()) << rows.status();
  ASSERT_EQ(rows->size(), 1);
  EXPECT_EQ(rows->Int(0, "n"), 42);
  EXPECT_EQ(rows->Text(0, "t"), "a'b\"c");
  EXPECT_TRUE(rows->Null(0, "nothing"));
  EXPECT_EQ(rows->Text(0, "nothing"), "");
  EXPECT_FALSE(rows->Time(0, "nothing").has_value());
  EXPECT_TRUE(rows->Bool(0, "b"));
}

TEST_F(DatabaseTest, WhatHoldsANulIsRefusedAndNeverCutThere) {
  const std::string cut("ci\0x", 4);
  EXPECT_EQ(SqlState(database_.Run("SELECT $1::text AS t", {cut}).status()), "22021");
  EXPECT_EQ(SqlState(database_.Run("SELECT 1 AS n" + std::string(1, '\0') + ", garbage").status()), "22021");
  EXPECT_EQ(SqlState(database_.With([&](Connection& c) { return c.RunScript("SELECT 1;" + std::string(1, '\0') + "garbage"); })), "22021");
  EXPECT_TRUE(database_.Run("SELECT 1").ok());
}

TEST_F(DatabaseTest, ChangedRowsAreCounted) {
  ASSERT_TRUE(database_.Run("CREATE TABLE counted AS SELECT generate_series(1, 5) AS n").ok());
  auto rows = database_.Run("UPDATE counted SET n = n + 1 WHERE n > $1::int", {"2"});
  ASSERT_TRUE(rows.ok());
  EXPECT_EQ(rows->affected(), 3);
  EXPECT_EQ(rows->size(), 0);
}

TEST_F(DatabaseTest, TimesComeInUtcWithTheirFractions) {
  auto rows = database_.Run(
      "SELECT '2026-01-10 15:17:56.967123+00'::timestamptz AS a, '2026-01-10 15:17:56+05:30'::timestamptz AS b, "
      "'1970-01-01'::date AS c, 'infinity'::timestamptz AS d, '1969-12-31 23:59:59.5+00'::timestamptz AS e, "
      "'0044-03-15 12:00+00 BC'::timestamptz AS f, '2026-01-10 15:17:56.5'::timestamp AS g, '9999-12-31'::timestamptz AS h, "
      "'2026-02-29x' AS i, '12:00' AS j");
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_EQ(*rows->Time(0, "a"), At(1768058276, 967123));
  EXPECT_EQ(*rows->Time(0, "b"), At(1768058276 - 19800));
  EXPECT_EQ(*rows->Time(0, "c"), At(0));
  EXPECT_EQ(*rows->Time(0, "d"), WallTime::max());
  EXPECT_EQ(*rows->Time(0, "e"), At(-1, 500000));
  EXPECT_EQ(*rows->Time(0, "f"), WallTime::min());
  EXPECT_EQ(*rows->Time(0, "g"), At(1768058276, 500000));
  EXPECT_EQ(*rows->Time(0, "h"), WallTime::max());
  EXPECT_FALSE(rows->Time(0, "i").has_value());
  EXPECT_FALSE(rows->Time(0, "j").has_value());
}

TEST_F(DatabaseTest, TimesAreReadWhateverTheServersTimeZoneIs) {
  Database elsewhere(conninfo_ + " options='-c timezone=Asia/Kathmandu -c datestyle=German'", 1);
  auto rows = elsewhere.Run("SELECT '2026-01-10 15:17:56+00'::timestamptz AS t");
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_EQ(*rows->Time(0, "t"), At(1768058276));
}

TEST_F(DatabaseTest, ARefusedStatementCarriesItsSqlstateAndSentence) {
  auto rows = database_.Run("SELECT * FROM no_such_table");
  EXPECT_EQ(ErrorCode(rows.status()), "DATABASE_ERROR");
  EXPECT_EQ(SqlState(rows.status()), "42P01");
  EXPECT_NE(rows.status().message().find("no_such_table"), absl::string_view::npos);
  EXPECT_EQ(SqlState(absl::OkStatus()), "");
  EXPECT_EQ(SqlState(Error("MODULE_NOT_FOUND", "x")), "");
}

TEST_F(DatabaseTest, AViolatedUniqueKeyHasACodeOfItsOwnAndNamesTheConstraint) {
  ASSERT_TRUE(database_.Run("CREATE TABLE keyed (k int CONSTRAINT keyed_once UNIQUE)").ok());
  ASSERT_TRUE(database_.Run("INSERT INTO keyed VALUES (1)").ok());
  auto rows = database_.Run("INSERT INTO keyed VALUES (1)");
  EXPECT_EQ(ErrorCode(rows.status()), "UNIQUE_VIOLATION");
  EXPECT_EQ(SqlState(rows.status()), "23505");
  EXPECT_EQ(ErrorDetails(rows.status())[0].path, "keyed_once");
}

TEST_F(DatabaseTest, ATransactionIsKeptWholeOrNotAtAll) {
  ASSERT_TRUE(database_.Run("CREATE TABLE whole (n int)").ok());
  EXPECT_TRUE(database_.Transaction([](Connection& c) { return c.Run("INSERT INTO whole VALUES (1)").status(); }).ok());
  absl::Status failed = database_.Transaction([](Connection& c) -> absl::Status {
    RETURN_IF_ERROR(c.Run("INSERT INTO whole VALUES (2)").status());
    return Error("MODULE_BUSY", "no");
  });
  EXPECT_EQ(ErrorCode(failed), "MODULE_BUSY");
  EXPECT_EQ(database_.Run("SELECT sum(n) AS s FROM whole")->Int(0, "s"), 1);
}

TEST_F(DatabaseTest, ATransactionWhoseFailedStatementWasIgnoredIsNotReportedAsDone) {
  absl::Status status = database_.Transaction([](Connection& c) -> absl::Status {
    (void)c.Run("SELECT 1/0").status();
    return absl::OkStatus();
  });
  EXPECT_EQ(ErrorCode(status), "DATABASE_ERROR");
}

TEST_F(DatabaseTest, AConnectionLeftInsideATransactionIsNotLentAgain) {
  Database one(conninfo_, 1);
  std::string first;
  ASSERT_TRUE(one.With([&](Connection& c) -> absl::Status {
    first = c.Run("SELECT pg_backend_pid() AS pid")->Text(0, "pid");
    return c.Run("BEGIN").status();
  }).ok());
  auto rows = one.Run("SELECT pg_backend_pid() AS pid");
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_NE(rows->Text(0, "pid"), first);
}

TEST_F(DatabaseTest, AnIdleConnectionThatTheServerClosedIsReplacedUnseen) {
  Database victim(conninfo_, 2);
  const std::string pid = victim.Run("SELECT pg_backend_pid() AS pid")->Text(0, "pid");
  ASSERT_TRUE(database_.Run("SELECT pg_terminate_backend($1::int, 5000)", {pid}).ok());
  auto rows = victim.Run("SELECT pg_backend_pid() AS pid");
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_NE(rows->Text(0, "pid"), pid);
}

TEST_F(DatabaseTest, AConnectionLostUnderAStatementIsUnavailableAndThePoolRecovers) {
  Database victim(conninfo_, 1);
  const std::string pid = victim.Run("SELECT pg_backend_pid() AS pid")->Text(0, "pid");
  std::thread killer([&] {
    while (database_.Run("SELECT 1 FROM pg_stat_activity WHERE pid = $1::int AND state = 'active'", {pid})->size() == 0) {
    }
    (void)database_.Run("SELECT pg_terminate_backend($1::int)", {pid}).status();
  });
  auto lost = victim.Run("SELECT pg_sleep(30)");
  killer.join();
  EXPECT_EQ(ErrorCode(lost.status()), "DATABASE_UNAVAILABLE");
  EXPECT_EQ(SqlState(lost.status()), "");
  EXPECT_TRUE(victim.Run("SELECT 1").ok());
}

TEST_F(DatabaseTest, ThePoolSurvivesTheLossOfTheWholeServer) {
  Database pool(conninfo_, 3);
  ASSERT_TRUE(pool.Run("SELECT 1").ok());
  TestPostgres::Instance().Stop();
  auto lost = pool.Run("SELECT 1");
  EXPECT_EQ(ErrorCode(lost.status()), "DATABASE_UNAVAILABLE") << lost.status();
  TestPostgres::Instance().Start();
  EXPECT_TRUE(pool.Run("SELECT 1").ok());
}

TEST_F(DatabaseTest, NoMoreConnectionsAreOpenedThanAllowedAndCallersTakeTurns) {
  Database two(conninfo_ + " application_name=bounded", 2);
  std::vector<std::thread> callers;
  std::atomic<int> done{0}, most{0}, inside{0};
  for (int i = 0; i < 12; ++i) {
    callers.emplace_back([&] {
      absl::Status status = two.With([&](Connection& c) {
        const int now = ++inside;
        int seen = most;
        while (now > seen && !most.compare_exchange_weak(seen, now)) {
        }
        absl::Status slept = c.Run("SELECT pg_sleep(0.01)").status();
        --inside;
        return slept;
      });
      if (status.ok()) ++done;
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(done, 12);
  EXPECT_EQ(most, 2);
  EXPECT_EQ(database_.Run("SELECT count(*) AS n FROM pg_stat_activity WHERE application_name = 'bounded'")->Int(0, "n"), 2);
}

TEST_F(DatabaseTest, CopyDoesNotHangTheConnection) {
  ASSERT_TRUE(database_.Run("CREATE TABLE copied (n int)").ok());
  Database one(conninfo_, 1);
  EXPECT_EQ(ErrorCode(one.Run("COPY copied FROM STDIN").status()), "DATABASE_ERROR");
  absl::Status script = one.With([](Connection& c) { return c.RunScript("COPY copied FROM STDIN; SELECT 1"); });
  EXPECT_EQ(ErrorCode(script), "DATABASE_ERROR");
  EXPECT_TRUE(one.With([](Connection& c) { return c.RunScript("COPY (SELECT 1) TO STDOUT; SELECT 1"); }).ok());
  EXPECT_TRUE(one.Run("SELECT 1").ok());
}

TEST_F(DatabaseTest, AScriptStopsAtItsFirstErrorAndNamesTheLine) {
  absl::Status status = database_.With([](Connection& c) {
    int completed = -1;
    absl::Status script = c.RunScript("CREATE TABLE ä (n int);\nSELECT 'ü';\nSELECT nope;\nSELECT 1;", &completed);
    EXPECT_EQ(completed, 2);
    return script;
  });
  EXPECT_EQ(SqlState(status), "42703");
  EXPECT_EQ(ErrorDetails(status)[0].line, 3);
}

TEST(DatabaseWithoutServer, IsUnavailableAtOnceWithAReason) {
  Database nowhere("host=/nonexistent/folder user=x dbname=y", 1);
  auto rows = nowhere.Run("SELECT 1");
  EXPECT_EQ(ErrorCode(rows.status()), "DATABASE_UNAVAILABLE");
  EXPECT_NE(rows.status().message().find("/nonexistent/folder"), absl::string_view::npos);
  EXPECT_EQ(ErrorCode(Database("this is no connection string", 1).Run("SELECT 1").status()), "DATABASE_UNAVAILABLE");
}

}  // namespace
}  // namespace bulkhead
