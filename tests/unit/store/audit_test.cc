#include "supervisor/store/audit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "supervisor/base/status.h"
#include "supervisor/store/migrations.h"
#include "supervisor/store/registry.h"
#include "tests/fakes/postgres_fixture.h"

namespace bulkhead {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// One call whose acceptance and outcome are written by two threads, in the orders in which they may come.
class AuditOrderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(Registry(database_, std::string(32, 'k')).Open().ok());
    by_.node = "n1";
    by_.subject = "root";
    by_.credential = "admin-token";
    by_.recorded = std::make_shared<RecordedCall>();
  }
  AuditRecord Row(std::string_view outcome) { return {.by = by_, .action = "modules.install", .target = "one", .outcome = std::string(outcome)}; }
  std::vector<std::string> Outcomes() {
    std::vector<std::string> outcomes;
    auto page = log_.Find({});
    EXPECT_TRUE(page.ok()) << page.status();
    for (auto row = page->rows.rbegin(); row != page->rows.rend(); ++row) outcomes.push_back(row->record.outcome);
    return outcomes;
  }

  Database database_{TestPostgres::Instance().FreshDatabase(), 4};
  AuditLog log_{database_};
  Actor by_;
};

TEST_F(AuditOrderTest, AnAcceptanceStandsBeforeItsOutcome) {
  ASSERT_TRUE(log_.Append(Row(kAccepted)).ok());
  ASSERT_TRUE(log_.Append(Row("OK")).ok());
  EXPECT_THAT(Outcomes(), ElementsAre("ACCEPTED", "OK"));
}

TEST_F(AuditOrderTest, AnAcceptanceIsLeftOutOnceTheOutcomeIsWritten) {
  ASSERT_TRUE(database_.Transaction([&](Connection& change) -> absl::Status {
    RETURN_IF_ERROR(AppendAudit(change, Row("OK")));
    // Not committed yet.
    EXPECT_TRUE(log_.Append(Row(kAccepted)).ok());
    EXPECT_THAT(Outcomes(), IsEmpty());
    return absl::OkStatus();
  }).ok());
  EXPECT_TRUE(log_.Append(Row(kAccepted)).ok());
  EXPECT_THAT(Outcomes(), ElementsAre("OK"));
}

TEST_F(AuditOrderTest, AnotherCallIsNotConcerned) {
  ASSERT_TRUE(log_.Append(Row("OK")).ok());
  by_.recorded = std::make_shared<RecordedCall>();
  ASSERT_TRUE(log_.Append(Row(kAccepted)).ok());
  EXPECT_THAT(Outcomes(), ElementsAre("OK", "ACCEPTED"));
}

}  // namespace
}  // namespace bulkhead
