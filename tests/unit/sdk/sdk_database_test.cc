// The pool against a real PostgreSQL, started for this test on a Unix socket.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <thread>

#include "bulkhead/database.h"
#include "harness.h"

namespace bulkhead::sdk {
namespace {

constexpr const char* kBin = "/usr/lib/postgresql/15/bin/";

// One server for all tests of this file.
class Server : public ::testing::Environment {
 public:
  void SetUp() override {
    if (!std::filesystem::exists(std::string(kBin) + "initdb")) return;
    char name[] = "/tmp/bulkhead-pg-XXXXXX";
    folder = mkdtemp(name);
    Sh("chown postgres " + folder, true);
    As("initdb -D " + folder + "/data -A trust -U postgres --no-sync >" + folder + "/initdb.log 2>&1");
    Start();
  }
  void TearDown() override {
    if (folder.empty()) return;
    Stop();
    std::filesystem::remove_all(folder);
  }
  void Start() {
    As("pg_ctl -D " + folder + "/data -w -t 20 -l " + folder + "/log -o \"-c listen_addresses='' -c unix_socket_directories=" +
       folder + " -c fsync=off -c shared_buffers=16MB\" start >/dev/null 2>&1");
  }
  void Stop() { As("pg_ctl -D " + folder + "/data -m immediate stop >/dev/null 2>&1"); }
  std::string conninfo() const { return "host=" + folder + " user=postgres dbname=postgres"; }
  std::string folder;

 private:
  static void Sh(const std::string& command, bool root_only = false) {
    if (root_only && geteuid() != 0) return;
    EXPECT_EQ(system(command.c_str()), 0) << command;
  }
  // Runs one of the server's programs; as user postgres when this is root, because they refuse root.
  static void As(const std::string& command) {
    std::string script = "cd /tmp && " + std::string(kBin) + command;
    if (geteuid() == 0) script = "setpriv --reuid=postgres --regid=postgres --init-groups sh -c \"" + Quoted(script) + "\"";
    Sh(script);
  }
  static std::string Quoted(const std::string& text) {
    std::string out;
    for (char c : text) {
      if (c == '"' || c == '\\' || c == '$') out += '\\';
      out += c;
    }
    return out;
  }
};

Server* const server = static_cast<Server*>(::testing::AddGlobalTestEnvironment(new Server));

class DatabaseTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (server->folder.empty()) GTEST_SKIP() << "PostgreSQL 15's server is not installed";
    database = std::make_unique<Database>(server->conninfo());
  }
  std::unique_ptr<Database> database;
};

TEST_F(DatabaseTest, RefusesTextWithANul) {
  for (const Param& value : {Param(std::string("a\0b", 3)), Param(std::vector<std::string>{std::string("a\0b", 3)})}) {
    try {
      database->Query("SELECT $1::text", {value});
      ADD_FAILURE() << "the text was cut";
    } catch (const DatabaseError& error) {
      EXPECT_EQ(error.sqlstate(), "22021");
      EXPECT_FALSE(error.transient());
    }
  }
  EXPECT_EQ(database->Query("SELECT $1::text", {"whole"}).front().Get<std::string>(0), "whole");
}

TEST_F(DatabaseTest, PassesValuesThereAndBack) {
  WallTime when =
      std::chrono::sys_days(std::chrono::year(2026) / 1 / 10) + std::chrono::hours(15) + std::chrono::microseconds(967'123);
  std::string bytes("\0\x01\xff", 3);
  Row row = database
                ->Query(
                    "SELECT $1::bool b, $2::int i, $3::bigint l, $4::float8 d, $5::text t, $6::jsonb j, $7::timestamptz w, "
                    "$8::bytea y, $9::int n",
                    {true, -7, int64_t{1} << 40, 0.1, "it's \"q\"", Json{{"a", {1, 2}}}, when, Bytes{bytes}, nullptr})
                .front();
  EXPECT_EQ(row.Get<bool>("b"), true);
  EXPECT_EQ(row.Get<int32_t>("i"), -7);
  EXPECT_EQ(row.Get<int64_t>("l"), int64_t{1} << 40);
  EXPECT_EQ(row.Get<double>("d"), 0.1);
  EXPECT_EQ(row.Get<std::string>("t"), "it's \"q\"");
  EXPECT_EQ(row.Get<Json>("j"), Json({{"a", {1, 2}}}));
  EXPECT_EQ(row.Get<WallTime>("w"), when);
  EXPECT_EQ(row.Get<Bytes>("y").data, bytes);
  EXPECT_EQ(row.Get<std::optional<int>>("n"), std::nullopt);
  EXPECT_EQ(row.Get<std::optional<int>>("i"), -7);
  EXPECT_THROW(row.Get<int>("n"), DatabaseError);
  EXPECT_THROW(row.Get<int>("t"), DatabaseError);
  EXPECT_THROW(row.Get<int>("missing"), DatabaseError);
  EXPECT_THROW(row.Get<int32_t>("l"), DatabaseError);
}

TEST_F(DatabaseTest, PassesArrays) {
  Rows rows = database->Query("SELECT t, n FROM unnest($1::text[], $2::bigint[]) AS x(t, n)",
                              {std::vector<std::string>{"a,b", "q\"\\", "", "NULL"}, std::vector<int64_t>{1, 2, 3, 4}});
  ASSERT_EQ(rows.size(), 4);
  EXPECT_EQ(rows[0].Get<std::string>("t"), "a,b");
  EXPECT_EQ(rows[1].Get<std::string>("t"), "q\"\\");
  EXPECT_EQ(rows[2].Get<std::string>("t"), "");
  EXPECT_EQ(rows[3].Get<std::string>("t"), "NULL");
  EXPECT_TRUE(database->Query("SELECT 1 WHERE 1 = ANY($1::int[])", {std::vector<int>{}}).empty());
}

TEST_F(DatabaseTest, TurnsRowsIntoJson) {
  Json json = database
                  ->Query(
                      "SELECT 1 AS i, 2.5::numeric AS n, true AS b, 'x' AS t, '{\"a\":1}'::json AS j, NULL::int AS nothing, "
                      "'2026-01-10 15:17:56.967+00'::timestamptz AS w, 'NaN'::float8 AS nan, '2026-01-10'::date AS d")
                  .ToJson();
  EXPECT_EQ(json, Json::parse(R"([{"i":1,"n":2.5,"b":true,"t":"x","j":{"a":1},"nothing":null,)"
                              R"("w":"2026-01-10T15:17:56.967Z","nan":"NaN","d":"2026-01-10"}])"));
}

TEST_F(DatabaseTest, CommitsWhatReturnsAndRollsBackWhatThrows) {
  database->Query("CREATE TABLE IF NOT EXISTS kept (n int)");
  int size = database->Transact([](Transaction& t) {
    t.Query("INSERT INTO kept VALUES (1)");
    return t.Query("SELECT * FROM kept").size();
  });
  EXPECT_EQ(size, 1);
  EXPECT_THROW(database->Transact([](Transaction& t) {
    t.Query("INSERT INTO kept VALUES (2)");
    throw std::runtime_error("changed my mind");
  }),
               std::runtime_error);
  EXPECT_THROW(database->Transact([](Transaction& t) {
    t.Query("INSERT INTO kept VALUES (3)");
    try {
      t.Query("SELECT 1 / 0");
    } catch (const DatabaseError&) {  // swallowed: the transaction is lost all the same, and its COMMIT must say so
    }
  }),
               DatabaseError);
  EXPECT_EQ(database->Query("SELECT count(*) AS n FROM kept").front().Get<int64_t>("n"), 1);
  EXPECT_EQ(database->Query("UPDATE kept SET n = 5").affected(), 1);
}

TEST_F(DatabaseTest, SaysWhatTheServerSaid) {
  try {
    database->Query("SELECT 1 / $1::int", {0});
    FAIL();
  } catch (const DatabaseError& error) {
    EXPECT_EQ(error.sqlstate(), "22012");
    EXPECT_STREQ(error.what(), "division by zero");
    EXPECT_FALSE(error.transient());
  }
  EXPECT_THROW(database->Query("SELECT 1; SELECT 2"), DatabaseError);
  EXPECT_THROW(database->Query("COPY pg_class TO STDOUT"), DatabaseError);
  EXPECT_NO_THROW(database->Ping());
}

TEST_F(DatabaseTest, OpensAtMostFourConnections) {
  std::vector<std::future<int>> pids;
  for (int i = 0; i < 12; ++i) {
    pids.push_back(std::async(std::launch::async, [&] {
      return database->Query("SELECT pg_backend_pid() AS p FROM pg_sleep(0.05)").front().Get<int>("p");
    }));
  }
  std::set<int> seen;
  for (auto& pid : pids) seen.insert(pid.get());
  EXPECT_LE(seen.size(), 4u);
}

TEST_F(DatabaseTest, ClosingCancelsWhatRuns) {
  auto running = std::async(std::launch::async, [&] { database->Query("SELECT pg_sleep(60)"); });
  Database other(server->conninfo());
  ASSERT_TRUE(sdk_test::Eventually([&] {
    return !other.Query("SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'").empty();
  }));
  database->Close();
  EXPECT_THROW(running.get(), DatabaseError);
  EXPECT_THROW(database->Query("SELECT 1"), DatabaseError);
}

TEST_F(DatabaseTest, ComesBackAfterTheServerDid) {
  int before = database->Query("SELECT pg_backend_pid() AS p").front().Get<int>("p");
  server->Stop();
  try {
    database->Ping();
    ADD_FAILURE() << "nobody is there";
  } catch (const DatabaseError& error) {
    EXPECT_TRUE(error.transient());
  }
  server->Start();
  EXPECT_NE(database->Query("SELECT pg_backend_pid() AS p").front().Get<int>("p"), before);
}

TEST_F(DatabaseTest, IsAHealthCheckOfAModuleThatHasOne) {
  sdk_test::ModuleProcess module({.conninfo = server->conninfo(), .schema = "public"});
  sdk_test::pb::HealthResponse health;
  ASSERT_TRUE(module.stub().Health(module.Call().get(), {}, &health).ok());
  EXPECT_EQ(health.status(), sdk_test::pb::HEALTHY);
  EXPECT_EQ(health.checks(0).name(), "database");
  server->Stop();
  ASSERT_TRUE(module.stub().Health(module.Call().get(), {}, &health).ok());
  EXPECT_EQ(health.status(), sdk_test::pb::UNHEALTHY);
  EXPECT_NE(health.checks(0).message(), "");
  server->Start();
  ASSERT_TRUE(module.stub().Health(module.Call().get(), {}, &health).ok());
  EXPECT_EQ(health.status(), sdk_test::pb::HEALTHY);
}

}  // namespace
}  // namespace bulkhead::sdk
