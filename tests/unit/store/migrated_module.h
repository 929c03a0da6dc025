// A module "orders" with a role and a schema of its own on a real server, for tests of its migrations.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "supervisor/base/status.h"
#include "supervisor/store/migrations.h"
#include "supervisor/store/registry.h"
#include "tests/fakes/postgres_fixture.h"

namespace bulkhead {

class MigratedModuleTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(registry_.Open().ok());
    auto schema = registry_.EnsureSchema("orders", 8, {});
    ASSERT_TRUE(schema.ok()) << schema.status();
    schema_ = *schema;
  }

  static MigrationFile File(const std::string& name, const std::string& sql, const std::string& down = "") {
    auto file = MakeMigration(name, sql);
    EXPECT_TRUE(file.ok()) << file.status();
    if (!down.empty()) {
      EXPECT_TRUE(AddDown(*file, down).ok());
    }
    return *std::move(file);
  }
  absl::StatusOr<MigrationReport> Run(const std::vector<MigrationFile>& files, const MigrationLimits& limits = {}) {
    return Migrate(admin_, "orders", schema_.conninfo, files, limits);
  }
  absl::StatusOr<MigrationReport> Down(const std::vector<MigrationFile>& files, std::optional<int> to = std::nullopt) {
    return Rollback(admin_, "orders", schema_.conninfo, files, to);
  }
  std::unique_ptr<Connection> Login() {
    auto connection = Connection::Open(schema_.conninfo);
    EXPECT_TRUE(connection.ok()) << connection.status();
    return connection.ok() ? *std::move(connection) : nullptr;
  }
  bool Exists(const std::string& relation) {
    return admin_.Run("SELECT to_regclass($1) IS NOT NULL AS yes", {schema_.schema + "." + relation})->Bool(0, "yes");
  }
  int History() { return Count("bulkhead_internal.migrations WHERE owner = 'orders' AND applied_at IS NOT NULL"); }
  int Count(const std::string& from) { return static_cast<int>(admin_.Run("SELECT count(*) AS n FROM " + from)->Int(0, "n")); }
  // Waits until the module's role has a session of which `condition`, on pg_stat_activity, is true; its pid.
  int AwaitSession(const std::string& condition) {
    while (true) {
      auto rows = admin_.Run("SELECT pid FROM pg_stat_activity WHERE usename = $1 AND " + condition, {schema_.role});
      if (rows.ok() && rows->size() > 0) return static_cast<int>(rows->Int(0, "pid"));
    }
  }

  const std::string conninfo_ = TestPostgres::Instance().FreshDatabase();
  Database admin_{conninfo_, 4};
  Registry registry_{admin_, std::string(32, 'k')};
  ModuleSchema schema_;
};

}  // namespace bulkhead
