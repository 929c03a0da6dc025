#include "supervisor/telemetry/tracer.h"

#include "gtest/gtest.h"
#include "supervisor/base/limits.h"

namespace bulkhead {
namespace {

constexpr char kNobody[] = "http://127.0.0.1:1";  // where nothing listens

TEST(Sampling, FollowsTheCallerWhateverTheRatioIs) {
  Random random(1);
  for (double ratio : {0.0, 0.5, 1.0}) {
    Tracer tracer({kNobody, {}, ratio}, {}, Clock::Real());
    for (bool sampled : {false, true}) {
      const TraceContext parent{7, 8, 9, sampled};
      const TraceContext mine = tracer.Begin(parent, random);
      EXPECT_EQ(mine.sampled, sampled) << ratio;
      EXPECT_EQ(mine.trace_low, 8u);
      EXPECT_NE(mine.span, 9u);
      EXPECT_EQ(tracer.Records(mine), sampled);
    }
  }
}

TEST(Sampling, TakesTheGivenShareOfNewTraces) {
  constexpr int kTraces = 100'000;
  Random random(2);
  for (double ratio : {0.0, 0.01, 0.5, 1.0}) {
    Tracer tracer({kNobody, {}, ratio}, {}, Clock::Real());
    int sampled = 0;
    for (int i = 0; i < kTraces; ++i) sampled += tracer.Begin({}, random).sampled;
    EXPECT_NEAR(sampled, ratio * kTraces, ratio == 0 || ratio == 1 ? 0 : 0.02 * kTraces) << ratio;
  }
}

TEST(Sampling, WithoutExportNothingIsRecordedAndModulesMayTraceByThemselves) {
  Random random(3);
  Tracer tracer({}, {}, Clock::Real());
  const TraceContext mine = tracer.Begin({}, random);
  EXPECT_TRUE(mine.valid());
  EXPECT_TRUE(mine.sampled);
  EXPECT_FALSE(tracer.Records(mine));
}

TEST(Export, WhatDoesNotFitIsDroppedAndCounted) {
  constexpr uint64_t kBeyond = 1'000;
  Tracer tracer({kNobody, {}, 1}, {}, Clock::Real());
  // The batch that is being tried is not in the queue any more.
  for (uint64_t i = 0; i < limits::kMaxQueuedSpans + limits::kMaxSpanBatch + kBeyond; ++i) tracer.Put({});
  EXPECT_GE(tracer.totals().dropped, kBeyond);
  EXPECT_LE(tracer.totals().waiting, limits::kMaxQueuedSpans);
  const Instant began = Clock::Real().Now();
  tracer.Stop(Millis(200));
  EXPECT_LT(Clock::Real().Now() - began, std::chrono::seconds(10));
  EXPECT_EQ(tracer.totals().exported, 0u);
  tracer.Put({});
  EXPECT_GT(tracer.totals().dropped, kBeyond) << "after the end nothing is taken";
}

}  // namespace
}  // namespace bulkhead
