// The module's SQL against a real PostgreSQL.
#include "infrastructure/repository.h"

#include <gmock/gmock.h>

#include <atomic>
#include <fstream>
#include <limits>
#include <thread>

#include "tests/unit/consumption_monitor/module_database.h"

namespace consumption {
namespace {

using bulkhead::sdk::DatabaseError;
using testing::Optional;

using RepositoryTest = ModuleDatabaseTest;

Measurement AllMetrics(Timestamp at, double value) {
  Measurement measurement{.at = at, .epoch = "boot"};
  for (std::string_view name : {metric::kCpuSeconds, metric::kMemoryBytes, metric::kDiskReadBytes, metric::kDiskWriteBytes,
                                metric::kNetworkReceiveBytes, metric::kNetworkTransmitBytes}) {
    measurement.values.push_back({std::string(name), value, ""});
  }
  return measurement;
}

TEST_F(RepositoryTest, AnEndpointIsFoundByItsId) {
  const auto host = repository_->FindEndpoint("host");
  ASSERT_TRUE(host);
  EXPECT_EQ(host->kind, "host");
  EXPECT_FALSE(repository_->FindEndpoint("abc123"));
}

TEST_F(RepositoryTest, AMeasurementIsStoredWithTheStepsOfItsCounters) {
  const Timestamp start = At("2026-03-01T00:00:00.123456Z");
  ASSERT_TRUE(repository_->Record("host", [&] { return AllMetrics(start, 1000); }));
  ASSERT_TRUE(repository_->Record("host", [&] { return AllMetrics(start + std::chrono::seconds(30), 1600.5); }));
  const auto latest = repository_->Latest(std::nullopt);
  ASSERT_EQ(latest.size(), 6u);
  EXPECT_EQ(latest[0].metric, "cpu_seconds");
  EXPECT_EQ(latest[0].kind, "counter");
  EXPECT_EQ(latest[0].unit, "seconds");
  EXPECT_EQ(latest[0].recorded_at, start + std::chrono::seconds(30));  // to the microsecond
  EXPECT_DOUBLE_EQ(latest[0].value, 1600.5);
  EXPECT_THAT(latest[0].consumed, Optional(600.5));
  EXPECT_THAT(latest[0].elapsed_seconds, Optional(30.0));
  EXPECT_EQ(latest[3].metric, "memory_bytes");
  EXPECT_EQ(latest[3].kind, "gauge");
  EXPECT_EQ(latest[3].consumed, std::nullopt);
  EXPECT_EQ(repository_->CountReadings({}), 12);
  EXPECT_THAT(repository_->LatestTime("host"), Optional(start + std::chrono::seconds(30)));
}

TEST_F(RepositoryTest, AMeasurementIsStoredWholeOrNotAtAll) {
  Measurement measurement = AllMetrics(At("2026-03-01T00:00:00Z"), 1);
  measurement.values.back().value = -1;
  EXPECT_THROW(repository_->Record("host", [&] { return measurement; }), DatabaseError);
  measurement.values.back().value = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THROW(repository_->Record("host", [&] { return measurement; }), DatabaseError);
  measurement.values.back() = {"unheard_of", 1, ""};
  EXPECT_THROW(repository_->Record("host", [&] { return measurement; }), DatabaseError);
  EXPECT_THROW(repository_->Record("host", []() -> Measurement { throw std::runtime_error("unreadable"); }), std::runtime_error);
  EXPECT_EQ(repository_->CountReadings({}), 0);
}

TEST_F(RepositoryTest, AnUnknownEndpointIsNotMeasured) {
  EXPECT_FALSE(repository_->Record("nobody", []() -> Measurement { ADD_FAILURE(); return {}; }));
}

TEST_F(RepositoryTest, LargeCountersKeepEveryByte) {
  Store("2026-03-01T00:00:00Z", "disk_read_bytes", 9007199254740991.0);
  EXPECT_EQ(repository_->Latest("host")[0].value, 9007199254740991.0);
}

TEST_F(RepositoryTest, ARebootAndAChangeOfScopeAreSeen) {
  Store("2026-03-01T00:00:00Z", "disk_read_bytes", 100, "one");
  Store("2026-03-01T00:01:00Z", "disk_read_bytes", 130, "two");
  EXPECT_THAT(repository_->Latest("host")[0].consumed, Optional(130.0));
  Store("2026-03-01T00:02:00Z", "disk_read_bytes", 900, "two", "sd*");
  EXPECT_EQ(repository_->Latest("host")[0].consumed, std::nullopt);
  Store("2026-03-01T00:03:00Z", "disk_read_bytes", 50, "", "sd*");
  EXPECT_THAT(repository_->Latest("host")[0].consumed, Optional(50.0));
}

TEST_F(RepositoryTest, TwoRecordingsAtOnceAreStoredInTheOrderTheyWereMeasured) {
  std::atomic<int64_t> counter{0};
  auto record = [&] {
    for (int i = 0; i < 20; ++i) {
      repository_->Record("host", [&] {
        const int64_t n = ++counter;
        return Measurement{.at = At("2026-03-01T00:00:00Z") + std::chrono::seconds(n), .values = {{"cpu_seconds", double(n), ""}}, .epoch = "e"};
      });
    }
  };
  std::thread other(record);
  record();
  other.join();
  ASSERT_EQ(repository_->CountReadings({}), 40);
  const auto summary = repository_->Summary({At("2026-03-01T00:00:00Z"), At("2026-03-02T00:00:00Z")}, std::nullopt);
  EXPECT_THAT(summary.at(0).total, Optional(39.0));
}

TEST_F(RepositoryTest, ReadingsComeNewestFirstFilteredAndInPages) {
  for (int i = 0; i < 5; ++i) {
    const Timestamp at = At("2026-03-01T00:00:00Z") + std::chrono::minutes(i);
    ASSERT_TRUE(repository_->Record("host", [&] { return AllMetrics(at, i); }));
  }
  EXPECT_EQ(repository_->CountReadings({}), 30);
  EXPECT_EQ(repository_->CountReadings({.endpoint_id = "other"}), 0);
  const ReadingFilter cpu{.endpoint_id = "host", .metric = "cpu_seconds", .from = At("2026-03-01T00:01:00Z"), .to = At("2026-03-01T00:04:00Z")};
  EXPECT_EQ(repository_->CountReadings(cpu), 3);
  const auto readings = repository_->Readings(cpu, 2, 0);
  ASSERT_EQ(readings.size(), 2u);
  EXPECT_DOUBLE_EQ(readings[0].value, 3);
  EXPECT_DOUBLE_EQ(readings[1].value, 2);
  const auto rest = repository_->Readings(cpu, 2, 2);
  ASSERT_EQ(rest.size(), 1u);
  EXPECT_DOUBLE_EQ(rest[0].value, 1);
  const auto all = repository_->Readings({}, 100, 0);
  for (size_t i = 1; i < all.size(); ++i) EXPECT_GT(all[i - 1].id, all[i].id);
}

TEST_F(RepositoryTest, ASummaryHasTheEndsTheExtremesAndWhatWasConsumed) {
  Store("2026-03-01T00:00:00Z", "network_receive_bytes", 1000);
  Store("2026-03-01T00:01:00Z", "network_receive_bytes", 1600);  // 10 a second
  Store("2026-03-01T00:01:30Z", "network_receive_bytes", 4600);  // 100 a second
  Store("2026-03-01T00:03:00Z", "network_receive_bytes", 90, "next boot");  // 1 a second
  Store("2026-03-01T00:00:00Z", "memory_bytes", 10);
  Store("2026-03-01T00:01:00Z", "memory_bytes", 40);
  Store("2026-03-01T00:02:00Z", "memory_bytes", 25);
  const Window window{At("2026-03-01T00:00:30Z"), At("2026-03-02T00:00:00Z")};
  const auto summary = repository_->Summary(window, "host");
  ASSERT_EQ(summary.size(), 2u);
  const Statistics& memory = summary[0];
  EXPECT_EQ(memory.metric, "memory_bytes");
  EXPECT_EQ(memory.samples, 2);
  EXPECT_DOUBLE_EQ(memory.first, 40);
  EXPECT_DOUBLE_EQ(memory.last, 25);
  EXPECT_DOUBLE_EQ(memory.avg, 32.5);
  EXPECT_EQ(memory.total, std::nullopt);
  EXPECT_EQ(memory.avg_rate, std::nullopt);
  const Statistics& network = summary[1];
  EXPECT_EQ(network.samples, 3);
  EXPECT_EQ(network.start, window.from);
  EXPECT_DOUBLE_EQ(network.first, 1600);
  EXPECT_DOUBLE_EQ(network.last, 90);
  EXPECT_DOUBLE_EQ(network.min, 90);
  EXPECT_DOUBLE_EQ(network.max, 4600);
  EXPECT_THAT(network.total, Optional(600.0 + 3000 + 90));
  EXPECT_THAT(network.min_rate, Optional(1.0));
  EXPECT_THAT(network.max_rate, Optional(100.0));
  EXPECT_THAT(network.avg_rate, Optional(3690.0 / 180));
  EXPECT_TRUE(repository_->Summary(window, "other").empty());
}

TEST_F(RepositoryTest, AMonthBeginsAndEndsAtMidnightInUtcWhateverTheSessionsTimeZoneIs) {
  Store("2026-02-28T23:59:59.999999Z", "cpu_seconds", 100);
  Store("2026-03-01T00:00:00Z", "cpu_seconds", 107);
  Store("2026-03-01T23:59:59.999999Z", "cpu_seconds", 110);
  Store("2026-03-02T00:00:00Z", "cpu_seconds", 120);
  Store("2026-03-31T23:59:59.999999Z", "cpu_seconds", 150);
  Store("2026-04-01T00:00:00Z", "cpu_seconds", 151);

  const Window march = WindowOf({2026, 3});
  const auto total = repository_->Summary(march, "host");
  ASSERT_EQ(total.size(), 1u);
  EXPECT_EQ(total[0].samples, 4);
  EXPECT_THAT(total[0].total, Optional(50.0));

  const auto days = repository_->Daily(march, "host");
  ASSERT_EQ(days.size(), 3u);
  EXPECT_EQ(days[0].start, At("2026-03-01T00:00:00Z"));
  EXPECT_THAT(days[0].total, Optional(10.0));
  EXPECT_EQ(days[1].start, At("2026-03-02T00:00:00Z"));
  EXPECT_THAT(days[1].total, Optional(10.0));
  EXPECT_EQ(days[2].start, At("2026-03-31T00:00:00Z"));
  EXPECT_THAT(days[2].total, Optional(30.0));

  const auto february = repository_->Daily(WindowOf({2026, 2}), "host");
  ASSERT_EQ(february.size(), 1u);
  EXPECT_EQ(february[0].total, std::nullopt);  // a first reading has nothing before it
  EXPECT_EQ(repository_->Daily(WindowOf({2026, 4}), "host").size(), 1u);
  EXPECT_TRUE(repository_->Daily(WindowOf({2025, 3}), "host").empty());
}

TEST_F(RepositoryTest, DaysBeginInUtcWhenTheClocksChangeElsewhere) {
  Store("2026-03-08T04:59:00Z", "memory_bytes", 1);  // still the 7th in New York, whose clocks change that night
  Store("2026-03-08T23:59:00Z", "memory_bytes", 2);
  EXPECT_EQ(repository_->Daily(WindowOf({2026, 3}), "host").size(), 1u);
}

TEST(Migrations, BringTheHostAndAreUndoneByTheirDownFilesInReverse) {
  const std::string login = MigratedDatabase();
  ASSERT_FALSE(login.empty());
  bulkhead::sdk::Database database(login);
  EXPECT_TRUE(Repository(database).FindEndpoint("host"));
  for (const char* name : {"003_consumption", "002_readings", "001_endpoints"}) {
    std::ifstream file(std::string(kMigrations) + "/" + name + ".down.sql");
    std::string statement;
    int statements = 0;
    while (std::getline(file, statement, ';')) {  // these files are plain enough to be cut there
      if (statement.find_first_not_of(" \n") == std::string::npos) continue;
      database.Query(statement);
      ++statements;
    }
    EXPECT_GT(statements, 0) << name;
  }
  const auto left = database.Query(
      "SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = 'cm'::regnamespace)"
      " + (SELECT count(*) FROM pg_proc WHERE pronamespace = 'cm'::regnamespace)");
  EXPECT_EQ(left.front().Get<int64_t>(0), 0);
}

}  // namespace
}  // namespace consumption
