// What a job says of its runs.
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "supervisor/manifest/manifest.h"
#include "tests/unit/manifest/brief.h"

namespace bulkhead {
namespace {

ManifestResult WithJobs(const char* handlers) {
  auto document = nlohmann::json::parse(R"({"name":"m","version":"1.0.0"})");
  document["capabilities"]["jobs"]["handlers"] = nlohmann::json::parse(handlers);
  return ParseManifestJson(document);
}

TEST(JobFields, AJobSaysHowManyOfItsRunsGoAtOnceAndHowLongTheyAreKept) {
  const auto result = WithJobs(R"([{"name":"a","concurrency":8,"history":{"count":20,"age":3600000},"displayName":"A"},{"name":"b"}])");
  ASSERT_TRUE(result.manifest) << testing::PrintToString(Brief(result.errors));
  const auto& jobs = result.manifest->jobs;
  EXPECT_EQ(jobs[0].concurrency, 8);
  EXPECT_EQ(jobs[0].history_count, 20);
  EXPECT_EQ(jobs[0].history_age, Millis(3'600'000));
  EXPECT_EQ(jobs[0].display_name, "A");
  EXPECT_EQ(jobs[1].concurrency, 1);
  EXPECT_EQ(jobs[1].history_count, 1'000);
}

TEST(JobFields, WhatCanNotBeIsRefusedWithItsPlace) {
  const auto result = WithJobs(
      R"([{"name":"a","concurrency":0},{"name":"b","concurrency":1001},{"name":"c","history":{"count":0,"age":-1}},{"name":"d","history":5}])");
  const std::string jobs = "/capabilities/jobs/handlers/";
  EXPECT_THAT(Brief(result.errors), testing::UnorderedElementsAre(jobs + "0/concurrency OUT_OF_RANGE", jobs + "1/concurrency OUT_OF_RANGE",
                                                                  jobs + "2/history/count OUT_OF_RANGE", jobs + "2/history/age OUT_OF_RANGE",
                                                                  jobs + "3/history WRONG_TYPE"));
}

}  // namespace
}  // namespace bulkhead
