// The service Migrations over REST, with real files and the real database below modules in memory.
#include <gmock/gmock.h>

#include <fstream>

#include "tests/unit/admin/admin_harness.h"

namespace bulkhead {
namespace {

using ::testing::HasSubstr;

class MigrationsApi : public AdminTest {
 protected:
  MigrationsApi() {
    Register("stock");
    modules_.Edit("stock", [](ModuleView& view) {
      view.row.package = "versions/stock/1";
      Manifest manifest = *view.manifest;
      manifest.has_database = true;
      view.manifest = std::make_shared<const Manifest>(std::move(manifest));
    });
    std::filesystem::create_directories(Folder());
    Write("001_a.sql", "CREATE TABLE a (n int);");
    Write("001_a.down.sql", "DROP TABLE a;");
    Write("002_b.sql", "-- bulkhead: no-transaction\nCREATE TABLE b (n int);\nCREATE INDEX CONCURRENTLY bi ON b (n);");
  }
  std::string Folder() const { return folder_ + "/versions/stock/1/migrations"; }
  void Write(const std::string& name, const std::string& sql) { std::ofstream(Folder() + "/" + name) << sql; }
  static std::string Path(const std::string& what = "") { return "/api/v1/modules/stock/migrations" + what; }
};

TEST_F(MigrationsApi, ShowsPlansAppliesAndTakesBack) {
  Reply status = Get(Path());
  ASSERT_EQ(status.status, 200) << status.body;
  EXPECT_EQ(status.data()["applied"], 0);
  EXPECT_EQ(status.data()["pending"], 2);
  EXPECT_EQ(status.data()["files"][0]["state"], "PENDING");
  EXPECT_EQ(status.data()["files"][0]["reversible"], true);
  EXPECT_EQ(status.data()["files"][1]["transactional"], false);
  EXPECT_EQ(status.data()["files"][1]["statements"], 2);
  EXPECT_EQ(status.data()["running"], nullptr);

  Reply plan = Post(Path("/plan"));
  ASSERT_EQ(plan.status, 200) << plan.body;
  EXPECT_EQ(plan.data()["direction"], "up");
  EXPECT_EQ(plan.data()["steps"].size(), 2u);
  EXPECT_EQ(plan.data()["steps"][0]["checksum"].get<std::string>().size(), 64u);
  EXPECT_EQ(Get(Path()).data()["applied"], 0) << "a plan changes nothing";

  Reply up = Post(Path("/up"));
  ASSERT_EQ(up.status, 200) << up.body;
  EXPECT_EQ(up.data()["steps"][1]["name"], "002_b.sql");
  EXPECT_GE(up.data()["steps"][0]["tookMs"], 0);
  EXPECT_EQ(up.json()["meta"]["converged"], true);
  EXPECT_EQ(Post(Path("/up")).data()["steps"].size(), 0u);
  status = Get(Path());
  EXPECT_EQ(status.data()["files"][1]["state"], "APPLIED");
  EXPECT_TRUE(status.data()["files"][0]["appliedAt"].is_string());

  EXPECT_EQ(Post(Path("/down")).code(), "MIGRATION_IRREVERSIBLE");
  EXPECT_EQ(Post(Path("/plan"), {{"down", true}}).code(), "MIGRATION_IRREVERSIBLE");
  EXPECT_EQ(Post(Path("/down"), {{"to", 9}}).code(), "INVALID_ARGUMENT");
  EXPECT_EQ(Post(Path("/down"), {{"to", -1}}).code(), "INVALID_ARGUMENT");
  EXPECT_EQ(Post(Path("/plan"), {{"to", 1}}).code(), "INVALID_ARGUMENT");
  Write("002_b.down.sql", "DROP TABLE b;");
  Reply back = Post(Path("/plan"), {{"down", true}, {"to", 0}});
  ASSERT_EQ(back.data()["steps"].size(), 2u) << back.body;
  EXPECT_EQ(back.data()["steps"][0]["name"], "002_b.sql");
  Reply down = Post(Path("/down"), {{"to", 0}});
  ASSERT_EQ(down.status, 200) << down.body;
  EXPECT_EQ(down.data()["steps"].size(), 2u);
  EXPECT_EQ(Get(Path()).data()["files"][0]["state"], "ROLLED_BACK");
}

TEST_F(MigrationsApi, AFailureNamesFileLineColumnAndSqlstate) {
  Write("003_c.sql", "SELECT 1;\n  SELECT nowhere;");
  const Reply failed = Post(Path("/up"));
  ASSERT_EQ(failed.status, 502) << failed.body;
  EXPECT_EQ(failed.code(), "MIGRATION_FAILED");
  EXPECT_THAT(failed.json()["error"]["message"].get<std::string>(), HasSubstr("003_c.sql of stock, line 2, column 10"));
  const json detail = failed.json()["error"]["details"][0];
  EXPECT_EQ(detail["path"], "003_c.sql");
  EXPECT_EQ(detail["line"], 2);
  EXPECT_EQ(detail["code"], "42703");
}

TEST_F(MigrationsApi, ProblemsStandInStatusAndPlan) {
  ASSERT_EQ(Post(Path("/up")).status, 200);
  Write("001_a.sql", "CREATE TABLE a (n bigint);");
  Write("003_c.sql", "SELECT 1;\nCOMMIT;");
  for (const json& answer : {Get(Path()).data(), Post(Path("/plan")).data()}) {
    ASSERT_EQ(answer["problems"].size(), 2u) << answer;
    EXPECT_EQ(answer["problems"][0]["code"], "MIGRATION_EDITED");
    EXPECT_EQ(answer["problems"][0]["file"], "001_a.sql");
    EXPECT_EQ(answer["problems"][1]["line"], 2);
    EXPECT_EQ(answer["problems"][1]["column"], 1);
  }
  EXPECT_EQ(Post(Path("/up")).code(), "MIGRATION_EDITED");
}

TEST_F(MigrationsApi, AnEnabledModuleIsRefusedAndOneThatIsNotInstalledToo) {
  ASSERT_EQ(Post("/api/v1/modules/stock/enable").status, 200);
  for (const char* what : {"/up", "/down"}) {
    EXPECT_EQ(Post(Path(what)).status, 409);
    EXPECT_EQ(Post(Path(what)).code(), "MODULE_ENABLED");
  }
  EXPECT_EQ(Get(Path()).status, 200);
  Register("fresh");
  const std::string fresh = "/api/v1/modules/fresh/migrations";
  for (const Reply& reply : {Get(fresh), Post(fresh + "/plan"), Post(fresh + "/up")}) {
    EXPECT_EQ(reply.status, 409);
    EXPECT_EQ(reply.code(), "MODULE_NOT_INSTALLED");
  }
  EXPECT_EQ(Get("/api/v1/modules/nobody/migrations").code(), "MODULE_NOT_FOUND");
}

TEST_F(MigrationsApi, TheSupervisorsOwnHaveAStatusAndNothingElse) {
  const Reply own = Get("/api/v1/modules/bulkhead/migrations");
  ASSERT_EQ(own.status, 200) << own.body;
  EXPECT_EQ(own.data()["applied"], own.data()["files"].size());
  EXPECT_EQ(own.data()["pending"], 0);
  for (const char* what : {"up", "down", "plan"}) {
    EXPECT_EQ(Post("/api/v1/modules/bulkhead/migrations/" + std::string(what)).code(), "INVALID_ARGUMENT") << what;
  }
}

TEST_F(MigrationsApi, ReadingAndWritingHavePermissionsOfTheirOwn) {
  const std::string reader = MakeToken("reader", {"migrations:read"}), writer = MakeToken("writer", {"migrations:write"});
  EXPECT_EQ(As(reader, Request("GET", Path())).status, 200);
  EXPECT_EQ(As(reader, Request("POST", Path("/plan"))).status, 200);
  EXPECT_EQ(As(reader, Request("POST", Path("/up"))).code(), "FORBIDDEN");
  EXPECT_EQ(As(writer, Request("GET", Path())).code(), "FORBIDDEN");
  EXPECT_EQ(As(writer, Request("POST", Path("/up"))).status, 200);
}

TEST_F(MigrationsApi, AHoleInTheFilesAndALockOfSomebodyElseAreRefused) {
  Write("003_c.sql", "SELECT 1");
  ASSERT_EQ(Post(Path("/up")).status, 200);
  std::filesystem::rename(Folder() + "/002_b.sql", Folder() + "/002_b.gone");
  EXPECT_EQ(Post(Path("/up")).status, 409);
  EXPECT_EQ(Post(Path("/up")).code(), "MIGRATION_MISSING");
  auto holder = Connection::Open(database_.conninfo() + " application_name=somebody");
  ASSERT_TRUE((*holder)->Run("SELECT pg_advisory_lock(1651862635, hashtext('stock'))").ok());
  const Reply locked = Post(Path("/up"));
  EXPECT_EQ(locked.status, 503);
  EXPECT_EQ(locked.code(), "MIGRATION_LOCKED");
  EXPECT_THAT(locked.json()["error"]["message"].get<std::string>(), HasSubstr("somebody"));
}

TEST_F(MigrationsApi, AModuleThatAnotherSupervisorHasEnabledIsRefusedToo) {
  ASSERT_TRUE(registry_.Insert({.name = "stock", .version = "1", .manifest_json = "{}", .status = RegistryStatus::kEnabled}).ok());
  EXPECT_EQ(Post(Path("/up")).code(), "MODULE_ENABLED");
  EXPECT_EQ(Post(Path("/down")).code(), "MODULE_ENABLED");
}

TEST_F(MigrationsApi, AStaleGenerationIsRefused) {
  LocalRequest request = Request("POST", Path("/up"));
  request.if_match = "\"99\"";
  EXPECT_EQ(Send(request).status, 412);
}

}  // namespace
}  // namespace bulkhead
