// The module's schema in a real PostgreSQL, made by its own migrations through the real runner; for the tests of this folder.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "bulkhead/database.h"
#include "infrastructure/repository.h"
#include "supervisor/store/migrations.h"
#include "tests/fakes/postgres_fixture.h"

namespace consumption {

inline constexpr char kMigrations[] = CONSUMPTION_SOURCE "/migrations";

// Connection string of a database with all three migrations applied; empty after a failure. The session's time zone is far from
// UTC, because no answer may depend on it.
inline std::string MigratedDatabase() {
  const std::string base = bulkhead::TestPostgres::Instance().FreshDatabase(false);
  bulkhead::Database admin(base, 2);
  const auto schema = admin.Run("CREATE SCHEMA cm");
  const std::string login = base + " options='-c search_path=cm -c timezone=America/New_York'";
  const auto files = bulkhead::ReadMigrations(kMigrations);
  EXPECT_TRUE(schema.ok() && files.ok()) << schema.status() << files.status();
  if (!schema.ok() || !files.ok()) return {};
  const auto report = bulkhead::Migrate(admin, "bulkhead", login, *files);
  EXPECT_TRUE(report.ok()) << report.status();
  if (!report.ok()) return {};
  EXPECT_EQ(report->applied.size(), 3u);
  return login;
}

// One database for all tests of the process, without readings at the start of each.
class ModuleDatabaseTest : public testing::Test {
 protected:
  void SetUp() override {
    static const std::string login = MigratedDatabase();
    ASSERT_FALSE(login.empty());
    database_ = std::make_unique<bulkhead::sdk::Database>(login);
    repository_ = std::make_unique<Repository>(*database_);
    database_->Query("TRUNCATE readings");
    database_->Query("INSERT INTO endpoints (id, name, kind) VALUES ('host', 'This host', 'host') ON CONFLICT DO NOTHING");
  }

  static Timestamp At(const std::string& text) { return ParseTimestamp(text).value(); }

  // One reading of the host.
  void Store(const std::string& at, const std::string& metric, double value, const std::string& epoch = "boot",
             const std::string& scope = "") {
    Measurement measurement{.at = At(at), .values = {{metric, value, scope}}, .epoch = epoch};
    ASSERT_TRUE(repository_->Record(kHostEndpoint, [&] { return measurement; }));
  }

  std::unique_ptr<bulkhead::sdk::Database> database_;
  std::unique_ptr<Repository> repository_;
};

}  // namespace consumption
