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

class ModuleDatabaseTest : public testing::Test {
 protected:
  void SetUp() override {
    const std::string base = bulkhead::TestPostgres::Instance().FreshDatabase(false);
    bulkhead::Database admin(base, 2);
    ASSERT_TRUE(admin.Run("CREATE SCHEMA cm").ok());
    const std::string login = base + " options='-c search_path=cm -c timezone=America/New_York'";  // no answer may depend on it
    const auto files = bulkhead::ReadMigrations(kMigrations);
    ASSERT_TRUE(files.ok()) << files.status();
    const auto report = bulkhead::Migrate(admin, "bulkhead", login, *files);
    ASSERT_TRUE(report.ok()) << report.status();
    ASSERT_EQ(report->applied.size(), 3u);
    database_ = std::make_unique<bulkhead::sdk::Database>(login);
    repository_ = std::make_unique<Repository>(*database_);
  }

  static Timestamp At(const std::string& text) { return ParseTimestamp(text).value(); }

  // One reading of the host.
  void Store(const std::string& at, const std::string& metric, double value, const std::string& epoch = "boot",
             const std::string& scope = "") {
    Measurement measurement{.values = {{metric, value, scope}}, .at = At(at), .epoch = epoch};
    ASSERT_TRUE(repository_->Record(kHostEndpoint, [&] { return measurement; }));
  }

  std::unique_ptr<bulkhead::sdk::Database> database_;
  std::unique_ptr<Repository> repository_;
};

}  // namespace consumption
