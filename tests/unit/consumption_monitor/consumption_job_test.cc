// The job, with a run of the test's own, over a real PostgreSQL; and what the module says of its health and configuration.
#include "api/collect_job.h"

#include <gmock/gmock.h>

#include "consumption_module.h"
#include "tests/unit/consumption_monitor/module_database.h"

namespace consumption {
namespace {

using bulkhead::sdk::ConfigError;
using bulkhead::sdk::HealthStatus;
using bulkhead::sdk::JobFailure;
using bulkhead::sdk::Json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class RecordedRun : public bulkhead::sdk::JobContext {
 public:
  const std::string& run_id() const override { return id_; }
  const std::string& job() const override { return id_; }
  const Json& payload() const override { return payload_; }
  const Json& config() const override { return config_; }
  int attempt() const override { return 1; }
  int64_t fence() const override { return 1; }
  std::chrono::steady_clock::time_point deadline() const override { return std::chrono::steady_clock::time_point::max(); }
  void Progress(double fraction, std::string_view) override { progress.push_back(fraction); }
  void Log(std::string_view level, std::string_view message) override { log.push_back(std::string(level) + " " + std::string(message)); }
  bool cancelled() const override { return is_cancelled; }
  bool WaitFor(std::chrono::milliseconds) override { return !is_cancelled; }

  std::vector<double> progress;
  std::vector<std::string> log;
  bool is_cancelled = false;

 private:
  std::string id_ = "collect-readings";
  Json payload_ = nullptr, config_ = Json::object();
};

class CollectJobTest : public ModuleDatabaseTest {
 protected:
  RecordedRun run_;
};

TEST_F(CollectJobTest, StoresThisHostsReadingsAndSaysHowMany) {
  const Json result = CollectReadings(run_, *repository_, [] { return MeasureHost({}); });
  EXPECT_EQ(result["readings"], 6);
  EXPECT_EQ(result["problems"], Json::array());
  EXPECT_THAT(run_.log, IsEmpty());
  EXPECT_THAT(run_.progress, ElementsAre(0, 0.3, 0.6, 1));
  const auto readings = repository_->Readings({}, 100, 0);
  ASSERT_EQ(readings.size(), 6u);
  EXPECT_EQ(result["recordedAt"], FormatTimestamp(readings[0].recorded_at));

  CollectReadings(run_, *repository_, [] { return MeasureHost({}); });
  for (const Reading& reading : repository_->Latest("host")) EXPECT_EQ(reading.consumed.has_value(), reading.kind == "counter");
}

TEST_F(CollectJobTest, WhatCantBeReadIsSaidInTheRunsLog) {
  const Json result = CollectReadings(run_, *repository_, [this] {
    return Measurement{.at = At("2026-03-01T00:00:00Z"), .values = {{"cpu_seconds", 1, ""}}, .problems = {"diskstats can't be read"}};
  });
  EXPECT_EQ(result["readings"], 1);
  EXPECT_THAT(run_.log, ElementsAre("warn diskstats can't be read"));
}

TEST_F(CollectJobTest, FailsWhenNothingCanBeMeasured) {
  try {
    CollectReadings(run_, *repository_, [] { return MeasureHost({}, "/nonexistent"); });
    FAIL();
  } catch (const JobFailure& failure) {
    EXPECT_EQ(failure.code(), "HOST_UNREADABLE");
    EXPECT_TRUE(failure.retryable());
    EXPECT_THAT(failure.what(), HasSubstr("/nonexistent/proc/stat can't be read: No such file or directory"));
  }
  EXPECT_EQ(repository_->CountReadings({}), 0);
}

TEST_F(CollectJobTest, FailsForGoodWhenTheEndpointWasRemoved) {
  database_->Query("DELETE FROM endpoints");
  try {
    CollectReadings(run_, *repository_, [] { return MeasureHost({}); });
    FAIL();
  } catch (const JobFailure& failure) {
    EXPECT_EQ(failure.code(), "ENDPOINT_NOT_FOUND");
    EXPECT_FALSE(failure.retryable());
  }
}

TEST_F(CollectJobTest, ACancelledRunStoresNothing) {
  run_.is_cancelled = true;
  EXPECT_THROW(CollectReadings(run_, *repository_, [] { return MeasureHost({}); }), bulkhead::sdk::JobCancelled);
  EXPECT_EQ(repository_->CountReadings({}), 0);
}

TEST(Health, IsDegradedOnlyWhenReadingsStoppedComing) {
  const Timestamp started = ParseTimestamp("2026-03-01T00:00:00Z").value();
  auto status = [&](std::optional<Timestamp> latest, int now) {
    return CollectionHealth(latest, started, started + std::chrono::seconds(now), std::chrono::seconds(300)).status;
  };
  EXPECT_EQ(status(std::nullopt, 0), HealthStatus::kHealthy);
  EXPECT_EQ(status(std::nullopt, 300), HealthStatus::kHealthy);
  EXPECT_EQ(status(std::nullopt, 301), HealthStatus::kDegraded);
  EXPECT_EQ(status(started - std::chrono::hours(24), 10), HealthStatus::kHealthy);  // it was off for a day
  EXPECT_EQ(status(started + std::chrono::seconds(500), 700), HealthStatus::kHealthy);
  EXPECT_EQ(status(started + std::chrono::seconds(500), 900), HealthStatus::kDegraded);
  EXPECT_EQ(status(started + std::chrono::seconds(500), 100), HealthStatus::kHealthy);  // the clock was set back
}

TEST(SettingsOf, TheConfigurationAreReadOrRefused) {
  EXPECT_EQ(ParseSettings(Json::object()).max_rows, 1000);
  const Settings settings = ParseSettings({{"diskDevices", "sd*"}, {"networkInterfaces", "eth0"}, {"maxRows", 50.0}, {"staleAfterSeconds", 120}});
  EXPECT_EQ(settings.host.disks, "sd*");
  EXPECT_EQ(settings.host.interfaces, "eth0");
  EXPECT_EQ(settings.max_rows, 50);
  EXPECT_EQ(settings.stale_after, std::chrono::seconds(120));
  EXPECT_THROW(ParseSettings({{"maxRows", 0}}), ConfigError);
  EXPECT_THROW(ParseSettings({{"maxRows", 1.5}}), ConfigError);
  EXPECT_THROW(ParseSettings({{"maxRows", "many"}}), ConfigError);
  EXPECT_THROW(ParseSettings({{"staleAfterSeconds", 1e300}}), ConfigError);
  EXPECT_THROW(ParseSettings({{"diskDevices", 7}}), ConfigError);
}

}  // namespace
}  // namespace consumption
