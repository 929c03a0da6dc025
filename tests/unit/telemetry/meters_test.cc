#include "supervisor/telemetry/meters.h"

#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "supervisor/base/limits.h"
#include "supervisor/telemetry/job_meters.h"

namespace bulkhead {
namespace {

TEST(Histogram, ABoundBelongsToItsBucket) {
  for (size_t i = 0; i < kLatencyBounds.size(); ++i) {
    EXPECT_EQ(LatencyBucket(kLatencyBounds[i]), i);
    EXPECT_EQ(LatencyBucket(kLatencyBounds[i] - 1), i);
    EXPECT_EQ(LatencyBucket(kLatencyBounds[i] + 1), i + 1);
  }
  EXPECT_EQ(LatencyBucket(0), 0u);
  EXPECT_EQ(LatencyBucket(-5), 0u) << "a clock that went back";
  EXPECT_EQ(LatencyBucket(INT64_MAX), kLatencyBuckets - 1);
}

TEST(Histogram, OfThreadsIsTheirSum) {
  constexpr size_t kThreads = 4, kEach = 10'000;
  RouteMeter meter("m", "/a", "GET", kThreads);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&meter, t] {
      for (size_t i = 0; i < kEach; ++i) meter.Record(t, t < 2 ? 2 : 5, int64_t(400 + 1'000 * t), 10);
    });
  }
  uint64_t seen = 0;
  while (seen < kThreads * kEach) {  // scraped while it is written: never more than there is, and never less than before
    const uint64_t now = meter.Sum().requests();
    ASSERT_GE(now, seen);
    ASSERT_LE(now, kThreads * kEach);
    seen = now;
  }
  for (std::thread& thread : threads) thread.join();
  const RouteMeter::Totals totals = meter.Sum();
  EXPECT_EQ(totals.by_class[2], 2 * kEach);
  EXPECT_EQ(totals.by_class[5], 2 * kEach);
  EXPECT_EQ(totals.bytes, 10 * kThreads * kEach);
  EXPECT_EQ(totals.latency.count(), kThreads * kEach);
  EXPECT_EQ(totals.latency.micros, kEach * (400 + 1'400 + 2'400 + 3'400));
  EXPECT_EQ(totals.latency.buckets[LatencyBucket(400)], kEach);
  EXPECT_EQ(totals.latency.buckets[LatencyBucket(1'400)], 2 * kEach) << "1.4 ms and 2.4 ms are at most 2.5 ms";
  EXPECT_DOUBLE_EQ(totals.latency.mean_ms(), 1.9);
}

TEST(Histogram, QuantilesLieWithinTheirBucket) {
  Latency latency;
  EXPECT_EQ(latency.quantile_ms(0.5), 0);
  EXPECT_EQ(latency.mean_ms(), 0);
  latency.buckets[LatencyBucket(10'000)] = 100;  // above 5 ms, at most 10 ms
  EXPECT_DOUBLE_EQ(latency.quantile_ms(0.5), 7.5);
  EXPECT_DOUBLE_EQ(latency.quantile_ms(1), 10);
  latency.buckets[LatencyBucket(100'000)] = 100;
  EXPECT_DOUBLE_EQ(latency.quantile_ms(0.5), 10);
  EXPECT_DOUBLE_EQ(latency.quantile_ms(0.75), 75);
  latency.buckets[kLatencyBuckets - 1] = 10'000;
  EXPECT_DOUBLE_EQ(latency.quantile_ms(0.99), 30'000) << "beyond the last bound there is none to interpolate to";
}

TEST(Methods, ThatAreMadeUpAreOne) {
  for (size_t i = 0; i < kMeteredMethods.size(); ++i) EXPECT_EQ(MeteredMethod(kMeteredMethods[i]), i);
  for (const char* other : {"", "get", "PROPFIND", "GETX", "_OTHERS"}) EXPECT_EQ(MeteredMethod(other), kMeteredMethods.size() - 1) << other;
}

TEST(Routes, AreCountedAsLongAsTheGatewayLives) {
  GatewayMeters meters(2);
  RouteMeter* a = meters.Route("m", "/a", "GET");
  EXPECT_EQ(meters.Route("m", "/a", "GET"), a);
  EXPECT_NE(meters.Route("m", "/a", "POST"), a);
  EXPECT_NE(meters.Route("n", "/a", "GET"), a);
  EXPECT_EQ(meters.Routes().size(), 3u);
}

TEST(Routes, BeyondTheLimitOfAModuleShareOneMeter) {
  GatewayMeters meters(1);
  for (size_t i = 0; i < limits::kMaxMetersPerModule; ++i) EXPECT_EQ(meters.Route("m", "/" + std::to_string(i), "GET")->route, "/" + std::to_string(i));
  RouteMeter* beyond = meters.Route("m", "/one-more", "GET");
  EXPECT_EQ(beyond->route, kOverflow);
  EXPECT_EQ(beyond->module, "m");
  EXPECT_EQ(meters.Route("m", "/and-another", "POST"), beyond);
  EXPECT_EQ(meters.Route("m", "/7", "GET")->route, "/7") << "one that has its meter keeps it";
  EXPECT_EQ(meters.Route("n", "/a", "GET")->route, "/a") << "another module has a limit of its own";
  EXPECT_EQ(meters.Routes().size(), limits::kMaxMetersPerModule + 2);
}

TEST(Routes, OfTooManyModulesShareOneMeter) {
  GatewayMeters meters(1);
  for (size_t i = 0; i < limits::kMaxMeteredModules; ++i) meters.Route("m" + std::to_string(i), "/", "GET");
  RouteMeter* beyond = meters.Route("one-more", "/", "GET");
  EXPECT_EQ(beyond->module, kOverflow);
  EXPECT_EQ(meters.Route("another", "/b", "PUT"), beyond);
}

TEST(Gateway, GaugesAreWhatBeganAndHasNotEnded) {
  GatewayMeters meters(2);
  meters.thread(0).connections_opened.Add(3);
  meters.thread(1).connections_opened.Add(2);
  meters.thread(1).connections_closed.Add();
  meters.thread(0).unserved[size_t(Unserved::kOverloaded)].Add(4);
  const GatewayTotals sum = meters.Sum();
  EXPECT_EQ(sum.connections_opened, 5u);
  EXPECT_EQ(sum.connections_open, 4u);
  EXPECT_EQ(sum.unserved[size_t(Unserved::kOverloaded)], 4u);
  EXPECT_EQ(kUnservedNames[size_t(Unserved::kLogin)], "login");
}

TEST(Jobs, BeyondTheLimitAreCountedTogether) {
  JobMeters meters;
  for (size_t i = 0; i < limits::kMaxJobMeters; ++i) meters.Ended("m", std::to_string(i), "SUCCEEDED", Millis(500));
  meters.Ended("m", "one-more", "FAILED", Millis(1));
  meters.Ended("n", "another", "FAILED", Millis(1));
  meters.Ended("m", "7", "FAILED", Millis(1'000));
  const JobMeters::All all = meters.totals();
  EXPECT_EQ(all.size(), limits::kMaxJobMeters + 1);
  EXPECT_EQ(all.at({std::string(kOverflow), std::string(kOverflow)}).by_outcome.at("FAILED"), 2u);
  EXPECT_EQ(all.at({"m", "7"}).by_outcome.size(), 2u);
  EXPECT_DOUBLE_EQ(all.at({"m", "7"}).seconds, 1.5);
}

}  // namespace
}  // namespace bulkhead
