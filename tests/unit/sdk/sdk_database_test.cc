// The pool against a real PostgreSQL, started for this test on a Unix socket.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
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
    ASSERT_FALSE(server->folder.empty()) << "PostgreSQL 15's server is not installed: run sh deploy/packages.sh";
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

TEST_F(DatabaseTest, PreparesATextThatComesAgainAndNoMoreThanItsBound) {
  Database one(server->conninfo(), 1);
  const auto prepared = [&] { return one.Query("SELECT count(*) FROM pg_prepared_statements").front().Get<int64_t>(0); };
  for (int i = 0; i < 3; ++i) EXPECT_EQ(one.Query("SELECT $1::int + 1", {i}).front().Get<int>(0), i + 1);
  EXPECT_EQ(prepared(), 1);
  for (int i = 0; i < 400; ++i) {
    const std::string text = "SELECT " + std::to_string(i);
    for (int turn = 0; turn < 2; ++turn) EXPECT_EQ(one.Query(text).front().Get<int>(0), i);
  }
  EXPECT_LE(prepared(), int64_t(kMaxPrepared));
  EXPECT_GE(prepared(), int64_t(kMaxPrepared) - 2);
  EXPECT_EQ(one.Query("SELECT $1::int + 1", {7}).front().Get<int>(0), 8);
}

TEST_F(DatabaseTest, ATableThatIsAlteredUnderAPreparedStatementIsNotNoticed) {
  Database one(server->conninfo(), 1);
  one.Query("CREATE TABLE IF NOT EXISTS grows (n int)");
  one.Query("INSERT INTO grows VALUES (1)");
  const auto columns = [&] { return one.Query("SELECT * FROM grows").columns(); };
  for (int i = 0; i < 3; ++i) EXPECT_EQ(columns(), 1);
  one.Query("ALTER TABLE grows ADD COLUMN more text");
  EXPECT_EQ(columns(), 2);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(columns(), 2);
  one.Query("ALTER TABLE grows ADD COLUMN most text");
  int calls = 0;
  EXPECT_EQ(one.Transact([&](Transaction& t) { return ++calls, t.Query("SELECT * FROM grows").columns(); }), 3);
  EXPECT_EQ(calls, 2) << "the transaction was lost, and done again";
  columns();
  one.Query("DISCARD ALL");
  EXPECT_EQ(columns(), 3);
}

TEST_F(DatabaseTest, ATransactionThatOthersGotInTheWayOfIsDoneAgain) {
  database->Query("CREATE TABLE IF NOT EXISTS tally (id int PRIMARY KEY, n int NOT NULL)");
  database->Query("INSERT INTO tally VALUES (1, 0), (2, 0) ON CONFLICT (id) DO UPDATE SET n = 0");
  const auto add = [&](const TransactOptions& options) {
    database->Transact(options, [](Transaction& t) {
      const int n = t.Query("SELECT n FROM tally WHERE id = 1").front().Get<int>(0);
      t.Query("SELECT pg_sleep(0.002)");
      t.Query("UPDATE tally SET n = $1 WHERE id = 1", {n + 1});
    });
  };
  std::vector<std::future<void>> all;
  for (int i = 0; i < 4; ++i) {
    all.push_back(std::async(std::launch::async, [&] {
      for (int k = 0; k < 10; ++k) add({.isolation = Isolation::kSerializable, .attempts = 100});
    }));
  }
  for (auto& one : all) one.get();
  EXPECT_EQ(database->Query("SELECT n FROM tally WHERE id = 1").front().Get<int>(0), 40);
  // Two that lock the same rows in the other order: one of them is chosen by the server, and done again.
  std::atomic<int> calls{0};
  const auto lock_both = [&](int first, int second) {
    database->Transact([&](Transaction& t) {
      ++calls;
      t.Query("UPDATE tally SET n = n + 1 WHERE id = $1", {first});
      t.Query("SELECT pg_sleep(0.2)");
      t.Query("UPDATE tally SET n = n + 1 WHERE id = $1", {second});
    });
  };
  auto other = std::async(std::launch::async, [&] { lock_both(2, 1); });
  lock_both(1, 2);
  other.get();
  EXPECT_EQ(calls, 3);
  EXPECT_EQ(database->Query("SELECT n FROM tally WHERE id = 2").front().Get<int>(0), 2);
}

TEST_F(DatabaseTest, OneAttemptMeansThatTheFirstFailureIsThrown) {
  int calls = 0;
  const auto fails = [&](const TransactOptions& options) {
    calls = 0;
    database->Transact(options, [&](Transaction& t) {
      ++calls;
      t.Query("DO $$ BEGIN RAISE EXCEPTION 'in the way' USING ERRCODE = 'serialization_failure'; END $$");
    });
  };
  EXPECT_THROW(fails({.attempts = 1}), DatabaseError);
  EXPECT_EQ(calls, 1);
  EXPECT_THROW(fails({}), DatabaseError);
  EXPECT_EQ(calls, kTransactionAttempts);
  EXPECT_THROW(database->Transact({.read_only = true}, [](Transaction& t) { t.Query("CREATE TABLE never (n int)"); }), DatabaseError);
}

TEST_F(DatabaseTest, APipelineIsOneTransactionInTheOrderOfItsStatements) {
  database->Query("CREATE TABLE IF NOT EXISTS piped (n int PRIMARY KEY)");
  database->Query("TRUNCATE piped");
  std::vector<Statement> statements;
  for (int i = 0; i < 2'000; ++i) statements.push_back({"INSERT INTO piped VALUES ($1) RETURNING n", {i}});
  statements.push_back({"SELECT count(*), repeat('x', 2000000) FROM piped"});
  const std::vector<Rows> all = database->Pipeline(statements);
  ASSERT_EQ(all.size(), 2'001u);
  EXPECT_EQ(all[1'234].front().Get<int>(0), 1'234);
  EXPECT_EQ(all.back().front().Get<int64_t>(0), 2'000);
  try {
    database->Pipeline({{"DELETE FROM piped"}, {"INSERT INTO piped VALUES ($1), ($1)", {7}}, {"DELETE FROM piped"}});
    FAIL();
  } catch (const DatabaseError& error) {
    EXPECT_EQ(error.sqlstate(), "23505");
  }
  EXPECT_EQ(database->Query("SELECT count(*) FROM piped").front().Get<int64_t>(0), 2'000) << "all of it or none";
  EXPECT_TRUE(database->Pipeline({}).empty());
  database->Transact([](Transaction& t) {
    EXPECT_EQ(t.Pipeline({{"DELETE FROM piped WHERE n < 1000"}, {"SELECT count(*) FROM piped"}})[1].front().Get<int64_t>(0), 1'000);
    EXPECT_EQ(t.Query("SELECT count(*) FROM piped").front().Get<int64_t>(0), 1'000);
  });
  EXPECT_THROW(database->Pipeline({{"SELECT $1::text", {std::string("a\0b", 3)}}}), DatabaseError);
  EXPECT_THROW(database->Pipeline(std::vector<Statement>(kMaxPipeline + 1, Statement{"SELECT 1"})), DatabaseError);
  EXPECT_NO_THROW(database->Ping());
}

TEST_F(DatabaseTest, ASlowStatementIsLoggedWithoutItsParameters) {
  ::testing::internal::CaptureStdout();
  database->SetSlowStatement(std::chrono::milliseconds(100));
  database->Query("SELECT pg_sleep(0.15), $1::text", {"the secret"});
  database->Query("SELECT pg_sleep(0.01)");
  database->SetSlowStatement(std::chrono::milliseconds(0));
  database->Query("SELECT pg_sleep(0.15)");
  const std::string out = ::testing::internal::GetCapturedStdout();
  const Json line = Json::parse(out, nullptr, false);
  ASSERT_TRUE(line.is_object()) << "one line: " << out;
  EXPECT_EQ(line["level"], "warn");
  EXPECT_EQ(line["sql"], "SELECT pg_sleep(0.15), $1::text");
  EXPECT_GE(line["ms"], 150);
  EXPECT_EQ(out.find("secret"), std::string::npos);
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
