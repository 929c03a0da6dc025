// The routes as the SDK's router runs them, over a real PostgreSQL.
#include "api/routes.h"

#include <gmock/gmock.h>

#include "tests/unit/consumption_monitor/module_database.h"

namespace consumption {
namespace {

using bulkhead::sdk::Json;

class RoutesTest : public ModuleDatabaseTest {
 protected:
  void SetUp() override {
    ModuleDatabaseTest::SetUp();
    if (HasFatalFailure()) return;
    AddRoutes(router_, *repository_, [this] { return max_rows_; }, [this] { return now_; });
    Store("2026-02-28T23:59:30Z", "cpu_seconds", 95);
    Store("2026-03-01T00:00:30Z", "cpu_seconds", 100);
    Store("2026-03-01T00:01:30Z", "cpu_seconds", 130.5);
    Store("2026-03-02T00:00:30Z", "cpu_seconds", 200);
    Store("2026-03-02T00:00:30Z", "memory_bytes", 5e9);
  }

  // Status and document of a GET.
  std::pair<int, Json> Get(const std::string& target) {
    bulkhead::sdk::Request request("GET", target, {{"x-request-id", "r1"}});
    const bulkhead::sdk::Response response = router_.Dispatch(request);
    return {response.status, Json::parse(response.body)};
  }
  Json Data(const std::string& target) {
    const auto [status, document] = Get(target);
    EXPECT_EQ(status, 200) << target << " " << document;
    EXPECT_EQ(document["success"], true);
    return document.value("data", Json());
  }
  // "path code" of each detail of a 400.
  std::vector<std::string> Refused(const std::string& target) {
    const auto [status, document] = Get(target);
    EXPECT_EQ(status, 400) << target << " " << document;
    EXPECT_EQ(document["success"], false);
    EXPECT_EQ(document["error"]["code"], "INVALID_ARGUMENT");
    std::vector<std::string> found;
    for (const Json& detail : document["error"]["details"]) {
      EXPECT_FALSE(detail["message"].get<std::string>().empty());
      found.push_back(detail["path"].get<std::string>() + " " + detail["code"].get<std::string>());
    }
    return found;
  }

  bulkhead::sdk::Router router_;
  int64_t max_rows_ = 1000;
  Timestamp now_ = At("2026-03-02T00:01:00Z");
};

using testing::ElementsAre;

TEST_F(RoutesTest, ReadingsAreListedNewestFirstWithTheirTotal) {
  const auto [status, document] = Get("/readings?limit=2&endpointId=host&metric=cpu_seconds");
  ASSERT_EQ(status, 200);
  EXPECT_EQ(document["meta"], Json({{"total", 4}, {"page", 1}, {"limit", 2}}));
  ASSERT_EQ(document["data"].size(), 2u);
  Json newest = document["data"][0];
  EXPECT_TRUE(newest["id"].is_number_integer());
  newest.erase("id");
  EXPECT_EQ(newest, Json({{"endpointId", "host"}, {"metric", "cpu_seconds"}, {"kind", "counter"}, {"unit", "seconds"},
                          {"value", 200}, {"consumed", 69.5}, {"recordedAt", "2026-03-02T00:00:30.000000Z"}}));
  EXPECT_EQ(Data("/readings?limit=2&page=2&metric=cpu_seconds")[1]["consumed"], nullptr);
}

TEST_F(RoutesTest, ReadingsOfASpanOfTimeIncludeItsStartAndNotItsEnd) {
  EXPECT_EQ(Data("/readings?from=2026-03-01T00:00:30Z&to=2026-03-01T00:01:30Z").size(), 1u);
  EXPECT_EQ(Data("/readings?from=2026-03-01T01:00:30%2B01:00&to=2026-03-01T01:01:31+01:00").size(), 2u);
  EXPECT_EQ(Data("/readings?endpointId=abc123").size(), 0u);
  EXPECT_EQ(Data("/readings").size(), 5u);
}

TEST_F(RoutesTest, TimesFarOffAreFarOff) {
  EXPECT_EQ(Data("/readings?to=9999-12-31T23:59:59Z").size(), 5u);
  EXPECT_EQ(Data("/readings?from=0001-01-01T00:00:00Z").size(), 5u);
  EXPECT_EQ(Data("/readings?from=0000-01-01T00:00:00Z&to=9999-12-31T23:59:59Z").size(), 5u);
  EXPECT_EQ(Data("/readings?from=9999-12-31T23:59:59Z").size(), 0u);
  EXPECT_EQ(Data("/readings?to=1000-01-01T00:00:00Z").size(), 0u);
  for (const char* year : {"2263", "2610", "2611", "9998"}) {
    for (int month = 1; month <= 12; ++month) {
      const Json data = Data("/monthly/host?year=" + std::string(year) + "&month=" + std::to_string(month));
      EXPECT_TRUE(data["days"].empty() && data["totals"].empty()) << data;
    }
  }
}

TEST_F(RoutesTest, AllWrongParametersAreNamedAtOnce) {
  EXPECT_THAT(Refused("/readings?limit=0&page=x&from=yesterday&endpointId=a%20b&offset=3&metric=a&metric=b"),
              ElementsAre("query.offset UNKNOWN_PARAMETER", "query.metric REPEATED_PARAMETER", "query.endpointId NOT_A_NAME",
                          "query.from NOT_A_TIME", "query.limit OUT_OF_RANGE", "query.page NOT_AN_INTEGER"));
}

TEST_F(RoutesTest, LimitsHaveBounds) {
  EXPECT_EQ(Data("/readings?limit=1000").size(), 5u);
  for (const char* limit : {"1001", "-1", "0", "99999999999999999999", "-99999999999999999999"}) {
    EXPECT_THAT(Refused("/readings?limit=" + std::string(limit)), ElementsAre("query.limit OUT_OF_RANGE")) << limit;
  }
  for (const char* limit : {"", "1.5", "1e2", "%2B5", "ten", "0x10", "5%20"}) {
    EXPECT_THAT(Refused("/readings?limit=" + std::string(limit)), ElementsAre("query.limit NOT_AN_INTEGER")) << limit;
  }
  EXPECT_THAT(Refused("/readings?page=1000001"), ElementsAre("query.page OUT_OF_RANGE"));
  EXPECT_EQ(Data("/readings?page=1000000&limit=1000").size(), 0u);
  EXPECT_THAT(Refused("/readings?from=2026-03-02T00:00:00Z&to=2026-03-01T00:00:00Z"), ElementsAre("query.from OUT_OF_RANGE"));
}

TEST_F(RoutesTest, TheConfiguredLargestPageHoldsForTheDefaultToo) {
  max_rows_ = 3;
  EXPECT_EQ(Data("/readings").size(), 3u);
  EXPECT_THAT(Refused("/readings?limit=4"), ElementsAre("query.limit OUT_OF_RANGE"));
}

TEST_F(RoutesTest, BytesThatAreNoTextAreRefusedAndNotEchoed) {
  EXPECT_THAT(Refused("/readings?%ff%fe=1"), ElementsAre("query.?? UNKNOWN_PARAMETER"));
  EXPECT_THAT(Refused("/readings?from=%ff"), ElementsAre("query.from NOT_A_TIME"));
  EXPECT_THAT(Refused("/readings?endpointId=%ff"), ElementsAre("query.endpointId NOT_A_NAME"));
  EXPECT_THAT(Refused("/readings?endpointId=" + std::string(65, 'a')), ElementsAre("query.endpointId NOT_A_NAME"));
  EXPECT_EQ(Get("/monthly/%ff").first, 404);
}

TEST_F(RoutesTest, LiveIsTheNewestReadingOfEachSeriesWithItsRate) {
  const auto [status, document] = Get("/live");
  ASSERT_EQ(status, 200);
  EXPECT_EQ(document["meta"]["total"], 2);
  const Json& cpu = document["data"][0];
  EXPECT_EQ(cpu["metric"], "cpu_seconds");
  EXPECT_EQ(cpu["value"], 200);
  EXPECT_EQ(cpu["elapsedSeconds"], 86340);
  EXPECT_DOUBLE_EQ(cpu["ratePerSecond"].get<double>(), 69.5 / 86340);
  const Json& memory = document["data"][1];
  EXPECT_EQ(memory["value"], 5000000000);
  EXPECT_EQ(memory["ratePerSecond"], nullptr);
  EXPECT_EQ(Data("/live?endpointId=other").size(), 0u);
  EXPECT_THAT(Refused("/live?limit=3"), ElementsAre("query.limit UNKNOWN_PARAMETER"));
}

TEST_F(RoutesTest, ASummaryCoversTheSpanThatEndsNow) {
  const Json hour = Data("/summary?period=hour");
  EXPECT_EQ(hour["period"], "hour");
  EXPECT_EQ(hour["from"], "2026-03-01T23:01:00.000000Z");
  EXPECT_EQ(hour["to"], "2026-03-02T00:01:00.000000Z");
  ASSERT_EQ(hour["metrics"].size(), 2u);
  EXPECT_EQ(hour["metrics"][0]["total"], 69.5);
  EXPECT_EQ(hour["metrics"][1]["total"], nullptr);
  EXPECT_EQ(hour["metrics"][1]["ratePerSecond"], nullptr);
  EXPECT_EQ(Data("/summary")["period"], "day");
  EXPECT_EQ(Data("/summary")["metrics"][0]["total"], 100);
  EXPECT_EQ(Data("/summary?period=week")["metrics"][0]["total"], 105);
  EXPECT_EQ(Data("/summary?period=month&endpointId=host")["metrics"][0]["samples"], 4);
  EXPECT_THAT(Refused("/summary?period=year"), ElementsAre("query.period NOT_ALLOWED"));
  EXPECT_THAT(Refused("/summary?period="), ElementsAre("query.period NOT_ALLOWED"));
}

TEST_F(RoutesTest, AMonthHasItsTotalAndItsDays) {
  const Json march = Data("/monthly/host?year=2026&month=3");
  EXPECT_EQ(march["endpointId"], "host");
  EXPECT_EQ(march["from"], "2026-03-01T00:00:00.000000Z");
  EXPECT_EQ(march["to"], "2026-04-01T00:00:00.000000Z");
  EXPECT_EQ(march["totals"][0]["total"], 105);
  ASSERT_EQ(march["days"].size(), 2u);
  EXPECT_EQ(march["days"][0]["date"], "2026-03-01");
  EXPECT_EQ(march["days"][0]["metrics"][0]["total"], 35.5);
  EXPECT_EQ(march["days"][1]["date"], "2026-03-02");
  EXPECT_EQ(march["days"][1]["metrics"].size(), 2u);
  const Json current = Data("/monthly/host");
  EXPECT_EQ(current["year"], 2026);
  EXPECT_EQ(current["month"], 3);
  EXPECT_EQ(Data("/monthly/host?month=12")["to"], "2027-01-01T00:00:00.000000Z");
  EXPECT_TRUE(Data("/monthly/host?year=9998&month=12")["days"].empty());
}

TEST_F(RoutesTest, AMonthOfAnUnknownEndpointIsNotFound) {
  for (const char* id : {"abc123", "HOST", "a%20b", "..", "%27%20OR%201=1"}) {
    const auto [status, document] = Get("/monthly/" + std::string(id));
    EXPECT_EQ(status, 404) << id;
    EXPECT_EQ(document["error"]["code"], "ENDPOINT_NOT_FOUND");
    EXPECT_EQ(document["error"]["requestId"], "r1");
  }
  EXPECT_THAT(Refused("/monthly/host?year=1969&month=13"), ElementsAre("query.year OUT_OF_RANGE", "query.month OUT_OF_RANGE"));
}

}  // namespace
}  // namespace consumption
