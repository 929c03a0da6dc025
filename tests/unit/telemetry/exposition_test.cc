#include "supervisor/telemetry/exposition.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bulkhead {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Exposition, IsTheTextFormatOfPrometheus) {
  Exposition page;
  page.Counter("a_total", "Counts.");
  page.Sample({{"x", "one"}}, 3);
  page.Sample({{"x", "two"}}, 0.5);
  page.Gauge("b", "Measures.");
  page.Sample(-1);
  EXPECT_EQ(page.Text(),
            "# HELP a_total Counts.\n# TYPE a_total counter\na_total{x=\"one\"} 3\na_total{x=\"two\"} 0.5\n"
            "# HELP b Measures.\n# TYPE b gauge\nb -1\n");
}

TEST(Exposition, AHistogramIsCumulativeAndInSeconds) {
  Latency latency;
  latency.buckets[0] = 2;
  latency.buckets[1] = 1;
  latency.buckets[kLatencyBuckets - 1] = 1;
  latency.micros = 40'002'000;
  Exposition page;
  page.Histogram("h_seconds", "Times.");
  page.Sample({{"route", "/a"}}, latency);
  const std::string text = page.Text();
  EXPECT_THAT(text, HasSubstr("h_seconds_count{route=\"/a\"} 4\n"));
  EXPECT_THAT(text, HasSubstr("h_seconds_sum{route=\"/a\"} 40.002"));
  EXPECT_THAT(text, HasSubstr("le=\"0.0005\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("le=\"0.001\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("le=\"30\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("le=\"+Inf\"} 4\n"));
}

TEST(Exposition, LabelsOfStrangersBreakNoLine) {
  Exposition page;
  page.Gauge("g", "Measures.");
  page.Sample({{"name", "a\"b\\c\nd\xff"}}, 1);
  EXPECT_THAT(page.Text(), HasSubstr("g{name=\"a\\\"b\\\\c\\nd\xef\xbf\xbd\"} 1\n"));
}

TEST(Exposition, AFamilyWithoutSamplesIsLeftOut) {
  Exposition page;
  page.Counter("none_total", "Nothing.");
  page.Gauge("some", "Something.");
  page.Sample(1);
  EXPECT_THAT(page.Text(), Not(HasSubstr("none_total")));
}

}  // namespace
}  // namespace bulkhead
