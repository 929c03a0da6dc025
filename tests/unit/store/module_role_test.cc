// What a module's database role can do outside of its own schema: nothing. Each attempt is made by a real login of the role.
#include <gmock/gmock.h>

#include "tests/unit/store/migrated_module.h"

namespace bulkhead {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;

class ModuleRole : public MigratedModuleTest {
 protected:
  void SetUp() override {
    MigratedModuleTest::SetUp();
    auto other = registry_.EnsureSchema("billing", 4, {});
    ASSERT_TRUE(other.ok());
    other_ = *other;
    victim_ = *Connection::Open(other_.conninfo);
    ASSERT_TRUE(victim_->RunScript("CREATE TABLE secret AS SELECT 1 AS n; CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'").ok());
    login_ = Login();
  }
  // Refused for want of a right, and not for another reason.
  void Denied(const std::string& sql, const std::string& state = "42501") {
    absl::Status status = login_->RunScript(sql);
    EXPECT_EQ(SqlState(status), state) << sql << ": " << status;
    if (!login_->alive()) login_ = Login();
    (void)login_->RunScript("ROLLBACK");
  }
  std::string Quoted(const std::string& role) { return "\"" + role + "\""; }

  ModuleSchema other_;
  std::unique_ptr<Connection> victim_, login_;
};

TEST_F(ModuleRole, ReachesNothingOfTheSupervisors) {
  auto tables = admin_.Run("SELECT c.oid::regclass::text AS name, c.relkind FROM pg_class c WHERE c.relnamespace = 'bulkhead_internal'::regnamespace "
                           "AND c.relkind IN ('r', 'S', 'v')");
  ASSERT_GT(tables->size(), 8);
  for (int r = 0; r < tables->size(); ++r) {
    const std::string name = tables->Text(r, "name");
    Denied("SELECT * FROM " + name);
    if (tables->Text(r, "relkind") != "r") continue;
    Denied("DELETE FROM " + name);
    Denied("ALTER TABLE " + name + " ADD x int");
    Denied("DROP TABLE " + name);
    Denied("BEGIN; LOCK TABLE " + name);
    Denied("TRUNCATE " + name);
    Denied("CREATE INDEX ON " + name + " ((1))");
    Denied("CREATE TABLE child () INHERITS (" + name + ")");
    Denied("CREATE TRIGGER t BEFORE INSERT ON " + name + " FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()");
  }
  Denied("CREATE FUNCTION bulkhead.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'");
  Denied("CREATE OR REPLACE FUNCTION bulkhead.record_migration(number integer, name text, checksum text, step integer, finished boolean) "
         "RETURNS void LANGUAGE sql AS ''");
  Denied("ALTER SCHEMA bulkhead RENAME TO mine");
  Denied("GRANT USAGE ON SCHEMA bulkhead_internal TO " + Quoted(schema_.role));
}

TEST_F(ModuleRole, ReachesNothingOfAnotherModules) {
  const std::string theirs = other_.schema + ".secret";
  for (const std::string& sql : {"SELECT * FROM " + theirs, "INSERT INTO " + theirs + " VALUES (2)", "DROP TABLE " + theirs,
                                 "CREATE TABLE " + other_.schema + ".mine (n int)", "SELECT " + other_.schema + ".f()",
                                 "GRANT SELECT ON " + theirs + " TO " + Quoted(schema_.role),
                                 "GRANT USAGE ON SCHEMA " + other_.schema + " TO " + Quoted(schema_.role), "DROP SCHEMA " + other_.schema + " CASCADE",
                                 "CREATE TABLE mine (n int REFERENCES " + theirs + ")", "CREATE VIEW mine AS SELECT * FROM " + theirs,
                                 "ALTER DEFAULT PRIVILEGES FOR ROLE " + Quoted(other_.role) + " GRANT ALL ON TABLES TO PUBLIC",
                                 "REASSIGN OWNED BY " + Quoted(other_.role) + " TO " + Quoted(schema_.role),
                                 "ALTER TABLE " + theirs + " OWNER TO " + Quoted(schema_.role)}) {
    Denied(sql);
  }
  // What it makes it can't plant there either, nor hand to another.
  ASSERT_TRUE(login_->Run("CREATE TABLE mine (n int)").ok());
  Denied("ALTER TABLE mine SET SCHEMA " + other_.schema);
  Denied("ALTER TABLE mine OWNER TO " + Quoted(other_.role));
  Denied("ALTER TABLE mine OWNER TO bulkhead");
}

TEST_F(ModuleRole, BecomesNobodyElse) {
  for (const std::string& role : {std::string("bulkhead"), other_.role, std::string("pg_read_all_data"), std::string("pg_execute_server_program")}) {
    Denied("SET ROLE " + Quoted(role));
    Denied("SET SESSION AUTHORIZATION " + Quoted(role));
    Denied("GRANT " + Quoted(role) + " TO " + Quoted(schema_.role));
  }
  Denied("ALTER ROLE bulkhead PASSWORD 'x'");
  Denied("ALTER ROLE " + Quoted(other_.role) + " PASSWORD 'x'");
  Denied("ALTER ROLE " + Quoted(other_.role) + " SET search_path = mine");
  for (const char* right : {"SUPERUSER", "CREATEDB", "CREATEROLE", "REPLICATION", "BYPASSRLS", "CONNECTION LIMIT -1", "VALID UNTIL 'infinity'"}) {
    Denied("ALTER ROLE " + Quoted(schema_.role) + " " + right);
  }
  for (const char* sql : {"CREATE ROLE mine", "CREATE DATABASE mine", "CREATE SCHEMA mine", "CREATE TABLESPACE mine LOCATION '/tmp'", "DROP DATABASE postgres",
                          "CREATE SERVER mine FOREIGN DATA WRAPPER dblink_fdw", "CREATE PUBLICATION mine FOR ALL TABLES",
                          "CREATE EVENT TRIGGER mine ON ddl_command_start EXECUTE FUNCTION suppress_redundant_updates_trigger()",
                          "CREATE FUNCTION c() RETURNS int LANGUAGE c AS 'libc.so.6', 'getpid'", "CREATE CAST (text AS int) WITH INOUT"}) {
    EXPECT_THAT(SqlState(login_->RunScript(sql)), AnyOf("42501", "42704")) << sql;
  }
  Denied("ALTER DATABASE " + admin_.Run("SELECT quote_ident(current_database()) AS d")->Text(0, "d") + " SET work_mem = '1GB'");
}

TEST_F(ModuleRole, ReachesNeitherFilesNorProgramsNorSettingsOfTheServer) {
  ASSERT_TRUE(login_->Run("CREATE TABLE lines (l text)").ok());
  for (const char* sql : {"COPY (SELECT 1) TO PROGRAM 'cat'", "COPY lines FROM PROGRAM 'id'", "COPY lines FROM '/etc/passwd'",
                          "COPY lines TO '/tmp/bh-module-role'", "SELECT pg_read_file('/etc/passwd')", "SELECT pg_read_binary_file('/etc/passwd')",
                          "SELECT pg_ls_dir('/')", "SELECT lo_import('/etc/passwd')", "SELECT lo_export(1, '/tmp/x')", "ALTER SYSTEM SET work_mem = '1GB'",
                          "SELECT pg_reload_conf()", "SET session_preload_libraries = 'x'", "LOAD 'auth_delay'", "SET log_statement = 'none'",
                          "CHECKPOINT", "SELECT pg_switch_wal()", "SELECT * FROM pg_authid", "SELECT * FROM pg_hba_file_rules",
                          "SELECT pg_create_logical_replication_slot('x', 'pgoutput')", "SELECT pg_stat_reset()"}) {
    Denied(sql);
  }
}

TEST_F(ModuleRole, TouchesNoSessionOfOthersAndSeesNoQueryOfTheirs) {
  const std::string supervisor = admin_.Run("SELECT pg_backend_pid() AS pid")->Text(0, "pid");
  const std::string other = victim_->Run("SELECT pg_backend_pid() AS pid")->Text(0, "pid");
  for (const std::string& pid : {supervisor, other}) {
    for (const char* function : {"pg_terminate_backend", "pg_cancel_backend"}) Denied("SELECT " + std::string(function) + "(" + pid + ")");
  }
  auto rows = login_->Run("SELECT query FROM pg_stat_activity WHERE pid = $1::int", {other});
  EXPECT_EQ(rows->Text(0, "query"), "<insufficient privilege>");
}

TEST_F(ModuleRole, LargeObjectsOfOthersAreClosedToIt) {
  const std::string theirs = victim_->Run("SELECT lo_from_bytea(0, 'secret') AS oid")->Text(0, "oid");
  Denied("SELECT lo_get(" + theirs + ")");
  Denied("SELECT lo_put(" + theirs + ", 0, 'x')");
  Denied("SELECT lo_unlink(" + theirs + ")");
  Denied("ALTER LARGE OBJECT " + theirs + " OWNER TO " + Quoted(schema_.role));
}

TEST_F(ModuleRole, ItsOwnNamesDoNotReachIntoTheSupervisorsFunctions) {
  // Shadows of everything that record_migration uses, in its schema and in its temporary one, in front of the search path.
  ASSERT_TRUE(login_->RunScript(R"sql(
CREATE TEMP TABLE migrations (owner text, number int, name text, checksum text, progress int, applied_at timestamptz);
CREATE TEMP TABLE module_roles (role text, module text, schema text);
INSERT INTO module_roles VALUES (session_user, 'billing', 'x');
CREATE TEMP TABLE pg_stat_activity (pid int, backend_start timestamptz);
CREATE FUNCTION pg_backend_pid() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT 'epoch'::timestamptz $$;
CREATE FUNCTION eq(text, name) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE OPERATOR = (LEFTARG = text, RIGHTARG = name, FUNCTION = eq);
)sql").ok());
  Denied("SET search_path = pg_temp, " + schema_.schema + ", pg_catalog, bulkhead; SELECT bulkhead.record_migration(1, 'x', 'y', NULL, true)");
  // The same inside a migration: what is recorded is the module's own, with the server's time.
  auto report = Run({File("001_x.sql", "CREATE FUNCTION pg_temp.now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT 'epoch'::timestamptz $$;\n"
                                       "CREATE TEMP TABLE module_roles AS SELECT session_user AS role, 'billing' AS module;\n"
                                       "SET LOCAL search_path = pg_temp, " + schema_.schema + ", pg_catalog;")});
  ASSERT_TRUE(report.ok()) << report.status();
  auto row = admin_.Run("SELECT owner, applied_at > now() - interval '1 minute' AS fresh FROM bulkhead_internal.migrations WHERE name = '001_x.sql'");
  EXPECT_EQ(row->Text(0, "owner"), "orders");
  EXPECT_TRUE(row->Bool(0, "fresh"));
}

TEST_F(ModuleRole, WhatItSetsForItselfIsSetRightAtTheNextEnable) {
  // Its own password and defaults are the one thing that PostgreSQL lets every role change.
  ASSERT_TRUE(login_->RunScript("ALTER ROLE CURRENT_USER PASSWORD 'mine'; ALTER ROLE CURRENT_USER SET search_path = pg_catalog;"
                                "ALTER ROLE CURRENT_USER SET statement_timeout = 0").ok());
  EXPECT_FALSE(Connection::Open(schema_.conninfo).ok());
  ASSERT_TRUE(registry_.EnsureSchema("orders", 8, {}).ok());
  auto again = Login();
  ASSERT_TRUE(again);
  auto settings = again->Run("SELECT current_setting('search_path') AS path, current_setting('statement_timeout') AS timeout");
  EXPECT_EQ(settings->Text(0, "path"), schema_.schema);
  EXPECT_EQ(settings->Text(0, "timeout"), "5min");
}

TEST_F(ModuleRole, MayListenAndNotify) {
  // A side channel that PostgreSQL has for everybody, told in the authors' document: nothing secret belongs into it.
  ASSERT_TRUE(victim_->Run("LISTEN news").ok());
  EXPECT_TRUE(login_->Run("NOTIFY news, 'hello'").ok());
}

TEST_F(ModuleRole, MigrationsRunAsItAndHaveNoMoreRights) {
  for (const std::string& sql : {"SELECT * FROM " + other_.schema + ".secret", std::string("SELECT * FROM bulkhead_internal.api_tokens"),
                                 std::string("COPY (SELECT 1) TO PROGRAM 'cat'"), std::string("SET ROLE bulkhead"),
                                 std::string("SET SESSION AUTHORIZATION bulkhead"), std::string("CREATE ROLE mine"), std::string("CREATE EXTENSION dblink"),
                                 std::string("RESET ROLE; RESET SESSION AUTHORIZATION; CREATE SCHEMA mine")}) {
    auto refused = Run({File("001_x.sql", sql)});
    ASSERT_EQ(ErrorCode(refused.status()), "MIGRATION_FAILED") << sql;
    EXPECT_EQ(ErrorDetails(refused.status())[0].code, "42501") << refused.status();
  }
  EXPECT_EQ(ErrorCode(registry_.EnsureSchema("orders", 8, {"dblink"}).status()), "EXTENSION_NOT_ALLOWED");
  EXPECT_EQ(ErrorCode(registry_.EnsureSchema("orders", 8, {"postgres_fdw"}).status()), "EXTENSION_NOT_ALLOWED");
}

}  // namespace
}  // namespace bulkhead
