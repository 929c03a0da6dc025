#include "supervisor/store/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "supervisor/base/limits.h"
#include "supervisor/base/status.h"
#include "supervisor/store/migrations.h"
#include "tests/fakes/postgres_fixture.h"

namespace bulkhead {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

absl::Status Drop(Database& database, const std::string& module) {
  return database.Transaction([&](Connection& c) { return Registry::DropSchema(c, module); });
}

class RegistryTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(registry_.Open().ok()); }

  ModuleRow Insert(const std::string& name) {
    auto row = registry_.Insert({.name = name, .version = "1.0.0", .manifest_json = "{\"name\":  \"" + name + "\", \"z\": 1, \"a\": 2}"});
    EXPECT_TRUE(row.ok()) << row.status();
    return row.ok() ? *row : ModuleRow();
  }
  std::unique_ptr<Connection> Login(const ModuleSchema& schema) {
    auto connection = Connection::Open(schema.conninfo);
    EXPECT_TRUE(connection.ok()) << connection.status();
    return connection.ok() ? *std::move(connection) : nullptr;
  }

  const std::string conninfo_ = TestPostgres::Instance().FreshDatabase();
  Database database_{conninfo_, 4};
  Registry registry_{database_, std::string(32, 'k')};
};

TEST_F(RegistryTest, AModuleComesBackAsItWasRegistered) {
  const ModuleRow made = Insert("orders");
  EXPECT_EQ(made.id.size(), 36u);
  EXPECT_EQ(made.generation, 1);
  EXPECT_EQ(made.status, RegistryStatus::kRegistered);
  EXPECT_EQ(made.config_json, "{}");
  EXPECT_FALSE(made.enabled_at.has_value());
  auto read = registry_.Module("orders");
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->manifest_json, "{\"name\":  \"orders\", \"z\": 1, \"a\": 2}");
  EXPECT_EQ(read->id, made.id);
  EXPECT_GT(read->created_at, Clock::Real().Wall() - std::chrono::minutes(1));
  Insert("billing");
  auto all = registry_.Modules();
  ASSERT_EQ(all->size(), 2u);
  EXPECT_EQ((*all)[0].name, "billing");
}

TEST_F(RegistryTest, AModuleCanBeRegisteredInstalledAndEnabledInOneStep) {
  auto made = registry_.Insert({.name = "orders", .version = "1.0.0", .manifest_json = "{}", .package = "versions/orders/1.0.0-0a1b2c3d",
                                .package_sha = "0a1b2c3d", .status = RegistryStatus::kEnabled});
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(made->status, RegistryStatus::kEnabled);
  EXPECT_EQ(made->package, "versions/orders/1.0.0-0a1b2c3d");
  ASSERT_TRUE(made->enabled_at.has_value());
  EXPECT_EQ(*made->enabled_at, made->created_at);
}

TEST_F(RegistryTest, ANameIsRegisteredOnceAndAnUnknownOneIsNotFound) {
  Insert("orders");
  EXPECT_EQ(ErrorCode(registry_.Insert({.name = "orders", .version = "2", .manifest_json = "{}"}).status()), "MODULE_EXISTS");
  EXPECT_EQ(ErrorCode(registry_.Module("x").status()), "MODULE_NOT_FOUND");
  EXPECT_EQ(ErrorCode(registry_.SetStatus("x", RegistryStatus::kEnabled, std::nullopt).status()), "MODULE_NOT_FOUND");
  EXPECT_EQ(ErrorCode(registry_.SetPackage({.name = "x", .manifest_json = "{}"}).status()), "MODULE_NOT_FOUND");
  EXPECT_EQ(ErrorCode(registry_.Delete("x")), "MODULE_NOT_FOUND");
}

TEST_F(RegistryTest, AUidSlotIsKeptByItsModuleAndNeverGivenToAnother) {
  const int32_t a = Insert("a").uid_slot, b = Insert("b").uid_slot;
  EXPECT_EQ(a, 0);
  EXPECT_EQ(b, 1);
  (void)registry_.Insert({.name = "a", .version = "1", .manifest_json = "{}"}).status();
  ASSERT_TRUE(registry_.Delete("a").ok());
  EXPECT_EQ(Insert("c").uid_slot, 2);
  EXPECT_EQ(Insert("a").uid_slot, a);
}

TEST_F(RegistryTest, StatusIsComparedAndSetByGeneration) {
  Insert("orders");
  auto enabled = registry_.SetStatus("orders", RegistryStatus::kEnabled, 1);
  ASSERT_TRUE(enabled.ok()) << enabled.status();
  EXPECT_EQ(enabled->generation, 2);
  ASSERT_TRUE(enabled->enabled_at.has_value());
  auto stale = registry_.SetStatus("orders", RegistryStatus::kDisabled, 1);
  EXPECT_EQ(ErrorCode(stale.status()), "GENERATION_CHANGED");
  EXPECT_EQ(registry_.Module("orders")->status, RegistryStatus::kEnabled);
  auto disabled = registry_.SetStatus("orders", RegistryStatus::kDisabled, std::nullopt);
  EXPECT_EQ(disabled->generation, 3);
  EXPECT_EQ(disabled->enabled_at, enabled->enabled_at);
}

TEST_F(RegistryTest, ANumberOfWorkersIsKeptAndTheRoleMayHaveTheConnectionsForIt) {
  EXPECT_FALSE(Insert("orders").workers.has_value());
  auto without_role = registry_.SetWorkers("orders", 3, 1, 12);
  ASSERT_TRUE(without_role.ok()) << without_role.status();
  EXPECT_EQ(without_role->workers, 3);
  EXPECT_EQ(without_role->generation, 2);
  EXPECT_EQ(ErrorCode(registry_.SetWorkers("orders", 4, 1, 16).status()), "GENERATION_CHANGED");
  auto schema = registry_.EnsureSchema("orders", 12, {});
  ASSERT_TRUE(schema.ok()) << schema.status();
  auto limit = [&] { return database_.Run("SELECT rolconnlimit FROM pg_roles WHERE rolname = $1", {schema->role})->Int(0, "rolconnlimit"); };
  EXPECT_EQ(limit(), 12);
  auto manifests = registry_.SetWorkers("orders", std::nullopt, std::nullopt, 16);
  ASSERT_TRUE(manifests.ok()) << manifests.status();
  EXPECT_FALSE(manifests->workers.has_value());
  EXPECT_EQ(limit(), 16);
  ASSERT_TRUE(registry_.SetConnectionLimit("orders", 4).ok());
  EXPECT_EQ(limit(), 4);
  EXPECT_TRUE(registry_.SetConnectionLimit("nobody", 4).ok());
}

TEST_F(RegistryTest, OfManyWhoChangeTheSameGenerationOneWins) {
  Insert("orders");
  std::atomic<int> won{0}, lost{0};
  std::vector<std::thread> writers;
  for (int i = 0; i < 4; ++i) {
    writers.emplace_back([&] {
      auto row = registry_.SetStatus("orders", RegistryStatus::kEnabled, 1);
      if (row.ok()) ++won;
      else if (ErrorCode(row.status()) == "GENERATION_CHANGED") ++lost;
    });
  }
  for (std::thread& writer : writers) writer.join();
  EXPECT_EQ(won, 1);
  EXPECT_EQ(lost, 3);
}

TEST_F(RegistryTest, APackageReplacesVersionManifestAndPathAndNothingElse) {
  const ModuleRow made = Insert("orders");
  auto set = registry_.SetPackage({.name = "orders", .version = "2.0.0", .manifest_json = "{\"v\":2}", .path = "/p",
                                   .package = "versions/orders/2.0.0-ab", .package_sha = "ab"});
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_EQ(set->version, "2.0.0");
  EXPECT_EQ(set->package, "versions/orders/2.0.0-ab");
  EXPECT_EQ(set->generation, made.generation);
  EXPECT_EQ(set->id, made.id);
}

TEST_F(RegistryTest, TheNewestExitsAreKept) {
  Insert("orders");
  const WallTime at = WallTime(std::chrono::milliseconds(1768058276967));
  for (int i = 1; i <= 13; ++i) {
    ASSERT_TRUE(registry_.AddExit("orders", "n1", {.cause = i % 2 == 0 ? "OOM" : "EXIT", .exit_code = i, .at = at, .ran_ms = i * 10,
                                                   .output = std::string("line\0\n\"'", 8), .message = "exited with code " + std::to_string(i)}).ok());
  }
  auto exits = registry_.Exits("orders");
  ASSERT_TRUE(exits.ok());
  ASSERT_EQ(exits->size(), limits::kMaxExits);
  EXPECT_EQ((*exits)[0].exit_code, 13);
  EXPECT_EQ((*exits)[0].message, "exited with code 13");
  EXPECT_EQ((*exits)[9].exit_code, 4);
  EXPECT_EQ((*exits)[0].at, at);
  EXPECT_EQ((*exits)[0].output, "line\uFFFD\n\"'");
  EXPECT_EQ(database_.Run("SELECT count(*) AS n FROM bulkhead_internal.module_exits")->Int(0, "n"), 10);
  EXPECT_TRUE(registry_.AddExit("deleted-meanwhile", "n1", {.cause = "exit", .at = at}).ok());
  using Counts = std::map<std::string, Registry::ExitCounts>;
  EXPECT_EQ(*registry_.AllExitCounts(), (Counts{{"orders", {{"EXIT", 7}, {"OOM", 6}}}})) << "all that ever were";
  ASSERT_TRUE(registry_.Delete("orders").ok());
  EXPECT_EQ(*registry_.AllExitCounts(), Counts());
  EXPECT_THAT(*registry_.Exits("deleted-meanwhile"), IsEmpty());
}

TEST_F(RegistryTest, WhatANodeObservesIsMirroredAndGoesWithTheModule) {
  Insert("orders");
  ASSERT_TRUE(registry_.ReportObserved("n1", "orders", "STARTING", "", "", 1).ok());
  ASSERT_TRUE(registry_.ReportObserved("n1", "orders", "FAILED", "MODULE_START_FAILED", "no", 2).ok());
  auto rows = database_.Run("SELECT * FROM bulkhead_internal.node_modules");
  ASSERT_EQ(rows->size(), 1);
  EXPECT_EQ(rows->Text(0, "observed"), "FAILED");
  EXPECT_EQ(rows->Text(0, "reason_code"), "MODULE_START_FAILED");
  EXPECT_EQ(rows->Int(0, "generation"), 2);
  ASSERT_TRUE(registry_.Delete("orders").ok());
  EXPECT_EQ(database_.Run("SELECT FROM bulkhead_internal.node_modules")->size(), 0);
  EXPECT_TRUE(registry_.ReportObserved("n1", "orders", "STOPPED", "", "", 3).ok());
}

TEST_F(RegistryTest, ADatabaseOfAnotherMasterKeyIsRefused) {
  EXPECT_TRUE(Registry(database_, std::string(32, 'k')).Open().ok());
  EXPECT_EQ(ErrorCode(Registry(database_, std::string(32, 'x')).Open()), "MASTER_KEY_MISMATCH");
}

TEST_F(RegistryTest, AModuleLogsInByPasswordIntoItsOwnSchema) {
  auto schema = registry_.EnsureSchema("consumption-monitor", 4, {});
  ASSERT_TRUE(schema.ok()) << schema.status();
  EXPECT_THAT(schema->role, ::testing::MatchesRegex("bh_[0-9a-f]{8}_consumption-monitor"));
  EXPECT_EQ(schema->schema, "mod_consumption_monitor");
  auto login = Login(*schema);
  ASSERT_TRUE(login);
  EXPECT_TRUE(login->Run("CREATE TABLE t (n int)").ok());
  auto where = login->Run("SELECT schemaname, current_user AS me, current_setting('statement_timeout') AS st, "
                          "current_setting('idle_in_transaction_session_timeout') AS it FROM pg_tables WHERE tablename = 't'");
  ASSERT_EQ(where->size(), 1);
  EXPECT_EQ(where->Text(0, "schemaname"), schema->schema);
  EXPECT_EQ(where->Text(0, "me"), schema->role);
  EXPECT_EQ(where->Text(0, "st"), "5min");
  EXPECT_EQ(where->Text(0, "it"), "1min");
  // Another password is refused: the server really asks.
  EXPECT_FALSE(Connection::Open(schema->conninfo + " password=wrong").ok());
  auto verifier = database_.Run("SELECT rolpassword FROM pg_authid WHERE rolname = $1", {schema->role});
  EXPECT_THAT(verifier->Text(0, "rolpassword"), StartsWith("SCRAM-SHA-256$"));
}

TEST_F(RegistryTest, EnsuringASchemaAgainKeepsWhatIsInIt) {
  auto first = registry_.EnsureSchema("orders", 4, {});
  ASSERT_TRUE(Login(*first)->Run("CREATE TABLE t AS SELECT 42 AS n").ok());
  auto second = registry_.EnsureSchema("orders", 8, {});
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(second->conninfo, first->conninfo);
  EXPECT_EQ(Login(*second)->Run("SELECT n FROM t")->Int(0, "n"), 42);
  EXPECT_EQ(database_.Run("SELECT rolconnlimit FROM pg_roles WHERE rolname = $1", {second->role})->Int(0, "rolconnlimit"), 8);
}

TEST_F(RegistryTest, AModuleReachesNeitherOtherModulesNorTheSupervisorsTablesNorMoreRights) {
  auto a = registry_.EnsureSchema("a", 4, {}), b = registry_.EnsureSchema("b", 4, {});
  ASSERT_TRUE(a.ok() && b.ok());
  ASSERT_TRUE(Login(*b)->Run("CREATE TABLE secret AS SELECT 1 AS n").ok());
  auto login = Login(*a);
  for (const std::string& sql : {
           "SELECT * FROM " + b->schema + ".secret",
           "CREATE TABLE " + b->schema + ".mine (n int)",
           std::string("SELECT * FROM bulkhead_internal.api_tokens"),
           std::string("SELECT nextval('bulkhead_internal.run_fence')"),
           std::string("UPDATE bulkhead_internal.instance SET master_key_fingerprint = 'x'"),
           std::string("CREATE TABLE public.mine (n int)"),
           std::string("CREATE TABLE bulkhead.mine (n int)"),
           std::string("CREATE TABLE bulkhead_extensions.mine (n int)"),
           std::string("CREATE SCHEMA mine"),
           std::string("CREATE ROLE mine"),
           std::string("CREATE DATABASE mine"),
           "SET ROLE " + std::string("\"") + b->role + "\"",
           std::string("SET ROLE bulkhead"),
           std::string("COPY (SELECT 1) TO PROGRAM 'cat'"),
           std::string("SELECT pg_read_file('/etc/passwd')"),
           "ALTER ROLE \"" + a->role + "\" CONNECTION LIMIT -1",
       }) {
    absl::Status status = login->RunScript(sql);
    EXPECT_EQ(SqlState(status), "42501") << sql << ": " << status;
  }
}

TEST_F(RegistryTest, AModuleHasNoMoreConnectionsThanItsLimit) {
  auto schema = registry_.EnsureSchema("orders", 2, {});
  auto one = Login(*schema), two = Login(*schema);
  auto three = Connection::Open(schema->conninfo);
  EXPECT_EQ(ErrorCode(three.status()), "DATABASE_UNAVAILABLE");
  EXPECT_THAT(std::string(three.status().message()), HasSubstr("too many connections"));
}

TEST_F(RegistryTest, NamesThatAreLongOrWouldMeetGetNamesOfTheirOwn) {
  const std::string longer(60, 'a');
  auto one = registry_.EnsureSchema(longer + "x", 4, {}), two = registry_.EnsureSchema(longer + "y", 4, {});
  ASSERT_TRUE(one.ok()) << one.status();
  ASSERT_TRUE(two.ok()) << two.status();
  EXPECT_NE(one->role, two->role);
  EXPECT_NE(one->schema, two->schema);
  EXPECT_LE(one->role.size(), 63u);
  EXPECT_LE(one->schema.size(), 63u);
  EXPECT_TRUE(Login(*one)->Run("CREATE TABLE t (n int)").ok());
  auto dash = registry_.EnsureSchema("a-b", 4, {}), underscore = registry_.EnsureSchema("a_b", 4, {});
  ASSERT_TRUE(dash.ok() && underscore.ok());
  EXPECT_NE(dash->schema, underscore->schema);
  auto odd = registry_.EnsureSchema("it's \"odd\"", 4, {});
  ASSERT_TRUE(odd.ok()) << odd.status();
  EXPECT_TRUE(Login(*odd)->Run("CREATE TABLE t (n int)").ok());
  EXPECT_EQ(ErrorCode(registry_.EnsureSchema("bulkhead", 4, {}).status()), "INVALID_ARGUMENT");
}

TEST_F(RegistryTest, ExtensionsAreThoseOfTheListAndUsableWithoutASchema) {
  auto schema = registry_.EnsureSchema("orders", 4, {"citext", "pgcrypto"});
  ASSERT_TRUE(schema.ok()) << schema.status();
  auto login = Login(*schema);
  EXPECT_TRUE(login->Run("SELECT 'A'::citext = 'a', gen_salt('bf')").ok());
  EXPECT_TRUE(registry_.EnsureSchema("billing", 4, {"citext"}).ok());
  auto refused = registry_.EnsureSchema("orders", 4, {"file_fdw"});
  EXPECT_EQ(ErrorCode(refused.status()), "EXTENSION_NOT_ALLOWED");
  EXPECT_THAT(std::string(refused.status().message()), testing::AllOf(HasSubstr("file_fdw"), HasSubstr("store.extensions")));
}

TEST_F(RegistryTest, TheOperatorSaysWhichExtensionsAreAllowed) {
  Registry wider(database_, std::string(32, 'k'), {"hstore", "no_such_extension"});
  ASSERT_TRUE(wider.Open().ok());
  auto schema = wider.EnsureSchema("orders", 4, {"hstore"});
  ASSERT_TRUE(schema.ok()) << schema.status();
  EXPECT_TRUE(Login(*schema)->Run("SELECT 'a=>1'::hstore").ok());
  const absl::Status refused = wider.EnsureSchema("orders", 4, {"hstore", "citext", "dblink"}).status();
  EXPECT_EQ(ErrorCode(refused), "EXTENSION_NOT_ALLOWED");
  EXPECT_THAT(std::string(refused.message()), HasSubstr("\"citext\", \"dblink\"; allowed are hstore, no_such_extension."));
  std::vector<std::string> paths;
  for (const ErrorDetail& detail : ErrorDetails(refused)) paths.push_back(detail.path);
  EXPECT_THAT(paths, testing::ElementsAre("/database/extensions/1", "/database/extensions/2"));
  const absl::Status unavailable = wider.EnsureSchema("orders", 4, {"no_such_extension"}).status();
  EXPECT_EQ(ErrorCode(unavailable), "EXTENSION_UNAVAILABLE");
  EXPECT_THAT(std::string(unavailable.message()), HasSubstr("has no extension \"no_such_extension\""));
  Registry two(database_, std::string(32, 'k'), {"cube", "earthdistance"});
  ASSERT_TRUE(two.Open().ok());
  const absl::Status wanting = two.EnsureSchema("orders", 4, {"earthdistance"}).status();
  EXPECT_EQ(ErrorCode(wanting), "EXTENSION_UNAVAILABLE");
  EXPECT_THAT(std::string(wanting.message()), HasSubstr("required extension \"cube\" is not installed"));
  EXPECT_TRUE(two.EnsureSchema("orders", 4, {"cube", "earthdistance"}).ok());
  Registry none(database_, std::string(32, 'k'), {});
  ASSERT_TRUE(none.Open().ok());
  EXPECT_THAT(std::string(none.EnsureSchema("orders", 4, {"citext"}).status().message()), HasSubstr("allowed are none."));
}

TEST_F(RegistryTest, DroppingASchemaTakesRoleDataAndHistoryAndMayBeRepeated) {
  auto schema = registry_.EnsureSchema("orders", 4, {});
  auto lingering = Login(*schema);
  ASSERT_TRUE(lingering->Run("CREATE TABLE t (n int)").ok());
  ASSERT_TRUE(lingering->RunScript("BEGIN; LOCK TABLE t").ok());
  ASSERT_TRUE(database_.Run("INSERT INTO bulkhead_internal.migrations (owner, number, name, checksum) VALUES ('orders', 1, 'x', 'y')").ok());
  ASSERT_TRUE(database_.Run("INSERT INTO bulkhead_internal.migration_log (owner, number, name, checksum, action, took_ms) "
                            "VALUES ('orders', 1, 'x', 'y', 'applied', 1)").ok());
  absl::Status dropped = Drop(database_, "orders");
  ASSERT_TRUE(dropped.ok()) << dropped;
  EXPECT_EQ(database_.Run("SELECT FROM pg_namespace WHERE nspname = $1", {schema->schema})->size(), 0);
  EXPECT_EQ(database_.Run("SELECT FROM pg_roles WHERE rolname = $1", {schema->role})->size(), 0);
  EXPECT_EQ(database_.Run("SELECT FROM bulkhead_internal.migrations WHERE owner = 'orders'")->size(), 0);
  EXPECT_EQ(database_.Run("SELECT FROM bulkhead_internal.migration_log WHERE owner = 'orders'")->size(), 0);
  EXPECT_FALSE(lingering->Run("SELECT 1").ok());
  EXPECT_TRUE(Drop(database_, "orders").ok());
  EXPECT_TRUE(registry_.EnsureSchema("orders", 4, {}).ok());
}

TEST_F(RegistryTest, WhatIsDroppedTakesItsRunsAlongAndNobodyElses) {
  ASSERT_TRUE(database_.Run("INSERT INTO bulkhead_internal.runs (module, job, trigger) VALUES ('orders', 'sync', 'manual'), "
                            "('orders', 'sync', 'schedule'), ('billing', 'sync', 'manual')").ok());
  ASSERT_TRUE(Drop(database_, "orders").ok());  // it has no schema: a module without a database has runs all the same
  auto left = database_.Run("SELECT module FROM bulkhead_internal.runs");
  ASSERT_EQ(left->size(), 1);
  EXPECT_EQ(left->Text(0, "module"), "billing");
}

TEST_F(RegistryTest, ManyNodesEnsureSchemasAtOnce) {
  std::vector<std::thread> nodes;
  std::atomic<int> done{0};
  for (int i = 0; i < 4; ++i) {
    nodes.emplace_back([&, i] {
      for (const std::string& module : {std::string("shared"), "own-" + std::to_string(i)}) {
        auto schema = registry_.EnsureSchema(module, 4, {});
        EXPECT_TRUE(schema.ok()) << schema.status();
        if (schema.ok()) ++done;
      }
    });
  }
  for (std::thread& node : nodes) node.join();
  EXPECT_EQ(done, 8);
}

// An operator's database (store.url): the supervisor owns the database and may create roles, and is no superuser.
TEST(RegistryOfAnOperatorsDatabase, NeedsNoSuperuser) {
  TestPostgres& server = TestPostgres::Instance();
  Database admin(server.FreshDatabase(false), 1);
  ASSERT_TRUE(admin.Run("CREATE ROLE supervisor LOGIN CREATEROLE PASSWORD 'pw'").ok());
  ASSERT_TRUE(admin.Run("CREATE DATABASE operators OWNER supervisor").ok());
  const std::string conninfo = server.Conninfo("operators") + " user=supervisor password=pw";
  Database database(conninfo, 2);
  auto migrated = Migrate(database, "bulkhead", conninfo, OwnMigrations());
  ASSERT_TRUE(migrated.ok()) << migrated.status();
  Registry registry(database, std::string(32, 'o'));
  ASSERT_TRUE(registry.Open().ok());
  for (int twice = 0; twice < 2; ++twice) {
    auto schema = registry.EnsureSchema("orders", 4, {"pg_trgm"});
    ASSERT_TRUE(schema.ok()) << schema.status();
    auto login = Connection::Open(schema->conninfo);
    ASSERT_TRUE(login.ok()) << login.status();
    ASSERT_TRUE((*login)->Run("CREATE TABLE IF NOT EXISTS t (n int)").ok());
  }
  EXPECT_TRUE(Migrate(database, "orders", registry.EnsureSchema("orders", 4, {})->conninfo, {*MakeMigration("001_a.sql", "CREATE TABLE a (n int)")}).ok());
  // A module that holds the lock of migrations is in nobody's way here either.
  auto greedy = Connection::Open(registry.EnsureSchema("billing", 4, {})->conninfo);
  ASSERT_TRUE((*greedy)->Run("SELECT pg_advisory_lock(1651862635, hashtext('orders'))").ok());
  auto again = Migrate(database, "orders", registry.EnsureSchema("orders", 4, {})->conninfo,
                       {*MakeMigration("001_a.sql", "CREATE TABLE a (n int)"), *MakeMigration("002_b.sql", "CREATE TABLE b (n int)")});
  EXPECT_TRUE(again.ok()) << again.status();
  EXPECT_FALSE((*greedy)->Run("SELECT 1").ok());
  absl::Status dropped = Drop(database, "orders");
  EXPECT_TRUE(dropped.ok()) << dropped;
  // Allowed by the operator, and not by PostgreSQL, which does not trust it.
  Registry wider(database, std::string(32, 'o'), {"dblink"});
  ASSERT_TRUE(wider.Open().ok());
  const absl::Status untrusted = wider.EnsureSchema("orders", 4, {"dblink"}).status();
  EXPECT_EQ(ErrorCode(untrusted), "EXTENSION_UNAVAILABLE");
  EXPECT_THAT(std::string(untrusted.message()), HasSubstr("role supervisor may not make the PostgreSQL extension \"dblink\""));
  ASSERT_TRUE(Database(server.Conninfo("operators"), 1).Run("CREATE EXTENSION dblink SCHEMA bulkhead_extensions").ok());
  EXPECT_TRUE(wider.EnsureSchema("orders", 4, {"dblink"}).ok()) << "once a superuser has made it";
}

}  // namespace
}  // namespace bulkhead
