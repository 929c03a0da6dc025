// What Health's answers come to, and what cpu.stat says, by themselves.
#include "supervisor/worker/health_judge.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>

#include "supervisor/base/limits.h"
#include "supervisor/base/random.h"
#include "supervisor/worker/cpu_throttle.h"

namespace bulkhead {
namespace {

using namespace std::chrono_literals;
using What = HealthJudge::Verdict::What;
using ::testing::HasSubstr;

class HealthJudgeTest : public ::testing::Test {
 protected:
  static HealthAnswer Well(Millis took = 1ms) { return {.answered = true, .well = true, .took = took}; }
  static HealthAnswer Unhealthy() { return {.answered = true, .well = false, .complaint = "database: down", .took = 1ms}; }
  static HealthAnswer Silent(Millis took) { return {.answered = false, .timed_out = true, .complaint = "Deadline Exceeded", .took = took}; }

  void Begin() {
    judge.emplace(policy);
    judge->Begin(now, 100ms, throttled);
  }
  // Lets time pass until the next question, asks it, and gives this answer.
  HealthJudge::Verdict Next(HealthAnswer answer) {
    const Instant before = now;
    now = std::max(now, judge->due());
    timeout = judge->Ask(now);
    now += answer.took;
    throttled += Millis(static_cast<int64_t>(held_back * static_cast<double>(std::chrono::duration_cast<Millis>(now - before).count())));
    answer.throttled = throttled;
    return judge->Judge(answer, now, 1);
  }

  HealthPolicy policy;
  std::optional<HealthJudge> judge;
  Instant now{1h};
  Millis timeout{0}, throttled{5h};
  double held_back = 0;  // the part of the time from now on
};

TEST_F(HealthJudgeTest, AWorkerIsReadyAtOnceWhereNoStartUpProbeIsAskedFor) {
  Begin();
  EXPECT_TRUE(judge->ready());
  EXPECT_EQ(judge->due(), now + 100ms);
  EXPECT_EQ(Next(Well()).what, What::kNothing);
  EXPECT_EQ(judge->due(), now + limits::kHealthInterval);
}

TEST_F(HealthJudgeTest, OneQuestionServesReadinessAndLivenessWhereBothAreDue) {
  policy.readiness = {1s, 500ms};
  policy.liveness = {3s, 2s};
  Begin();
  std::vector<Millis> timeouts;
  for (int i = 0; i < 7; ++i) {
    Next(Well(0ms));
    timeouts.push_back(timeout);
  }
  EXPECT_THAT(timeouts, testing::ElementsAre(2s, 500ms, 500ms, 2s, 500ms, 500ms, 2s));
}

TEST_F(HealthJudgeTest, UnhealthyAsOftenAsTheThresholdIsNotReadyAndWellAsOftenAsTheOtherOneIsReadyAgain) {
  policy.readiness.failures = 3;
  policy.readiness.successes = 2;
  Begin();
  EXPECT_EQ(Next(Unhealthy()).what, What::kNothing);
  EXPECT_EQ(Next(Unhealthy()).what, What::kNothing);
  EXPECT_EQ(Next(Well()).what, What::kNothing) << "and it begins anew";
  EXPECT_EQ(Next(Unhealthy()).what, What::kNothing);
  EXPECT_EQ(Next(Unhealthy()).what, What::kNothing);
  const auto verdict = Next(Unhealthy());
  EXPECT_EQ(verdict.what, What::kNotReady);
  EXPECT_EQ(verdict.why, "it gets no requests before it is well again: database: down");
  EXPECT_FALSE(judge->ready());
  for (int i = 0; i < 100; ++i) EXPECT_EQ(Next(Unhealthy()).what, What::kNothing) << "told once, and never a reason to end it";
  EXPECT_EQ(Next(Well()).what, What::kNothing);
  EXPECT_EQ(Next(Unhealthy()).what, What::kNothing);
  EXPECT_EQ(Next(Well()).what, What::kNothing);
  EXPECT_EQ(Next(Well()).what, What::kReady);
}

TEST_F(HealthJudgeTest, AnAnswerThatComesTooLateForReadinessIsStillASignOfLife) {
  policy.readiness = {1s, 100ms, 2};
  policy.liveness = {1s, 1s, 2};
  Begin();
  EXPECT_EQ(Next(Well(500ms)).what, What::kNothing);
  const auto verdict = Next(Well(500ms));
  EXPECT_EQ(verdict.what, What::kNotReady);
  EXPECT_THAT(verdict.why, HasSubstr("Health took longer than 100 ms"));
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Next(Well(500ms)).what, What::kNothing);
  EXPECT_EQ(Next(Well(50ms)).what, What::kReady);
}

TEST_F(HealthJudgeTest, NoAnswerAsOftenAsTheThresholdEndsItAndAnyAnswerBeginsAnew) {
  policy.readiness.failures = 100;
  Begin();
  for (int i = 0; i < 2; ++i) EXPECT_EQ(Next(Silent(5s)).what, What::kNothing);
  EXPECT_EQ(Next(Unhealthy()).what, What::kNothing);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(Next(Silent(5s)).what, What::kNothing);
  const auto verdict = Next(Silent(5s));
  EXPECT_EQ(verdict.what, What::kDead);
  EXPECT_EQ(verdict.why, "Health did not answer 3 times in a row: Deadline Exceeded");
}

TEST_F(HealthJudgeTest, ACallThatFailsAtOnceCountsLikeOneThatIsNotAnswered) {
  Begin();
  HealthAnswer failed{.answered = false, .complaint = "unimplemented", .took = 0ms};
  Next(failed);
  Next(failed);
  EXPECT_EQ(Next(failed).what, What::kDead);
}

TEST_F(HealthJudgeTest, ForLivenessTheTimeCountsInWhichItsCpuLimitLetItRun) {
  policy.readiness = policy.liveness = {1s, 5s, 3};
  held_back = 0.9;
  Begin();
  int calls = 1;
  while (Next(Silent(5s)).what != What::kDead) ++calls;
  EXPECT_EQ(calls, 30) << "nine tenths held back: ten times as many";
}

TEST_F(HealthJudgeTest, OneThatIsHeldBackAllTheTimeIsNotReadyAndEndedAfterTheGraceAllTheSame) {
  held_back = 1.8;  // of two CPUs
  Begin();
  const Instant began = now;
  What last = What::kNothing;
  std::vector<What> told;
  while (last != What::kDead) {
    EXPECT_LT(now, began + limits::kThrottledGrace);
    last = Next(Silent(5s)).what;
    if (last != What::kNothing) told.push_back(last);
  }
  EXPECT_GE(now, began + limits::kThrottledGrace);
  EXPECT_THAT(told, testing::ElementsAre(What::kNotReady, What::kDead));
}

TEST_F(HealthJudgeTest, WithAStartUpProbeItIsReadyWhenItSaysSoAndNothingElseIsAskedBefore) {
  policy.startup = HealthProbe{1s, 200ms, 3};
  Begin();
  EXPECT_FALSE(judge->ready());
  EXPECT_EQ(judge->due(), now) << "asked at once";
  EXPECT_EQ(Next(Unhealthy()).what, What::kNothing);
  EXPECT_EQ(timeout, 200ms);
  EXPECT_EQ(Next(Silent(200ms)).what, What::kNothing);
  EXPECT_EQ(Next(Well()).what, What::kReady);
  EXPECT_TRUE(judge->ready());
  EXPECT_EQ(judge->due(), now + limits::kHealthInterval);
  EXPECT_EQ(Next(Silent(5s)).what, What::kNothing) << "failures of the start-up are no failures of its life";
}

TEST_F(HealthJudgeTest, AStartUpThatNeverComesToBeEndsIt) {
  policy.startup = HealthProbe{1s, 200ms, 3};
  Begin();
  Next(Unhealthy());
  Next(Silent(200ms));
  const auto verdict = Next(Unhealthy());
  EXPECT_EQ(verdict.what, What::kNeverReady);
  EXPECT_EQ(verdict.why, "it has not become ready: Health was asked 3 times in a row, the last time: database: down");
}

TEST(HealthComplaint, NamesTheFirstCheckThatIsNotHealthyElseTheStatus) {
  module::v1::HealthResponse response;
  EXPECT_EQ(HealthComplaint(response), "");
  response.set_status(module::v1::UNHEALTHY);
  EXPECT_EQ(HealthComplaint(response), "it says that it is unhealthy");
  auto& fine = *response.add_checks();
  fine.set_status(module::v1::HEALTHY);
  auto& check = *response.add_checks();
  check.set_name("database");
  check.set_status(module::v1::DEGRADED);
  check.set_message("slow");
  EXPECT_EQ(HealthComplaint(response), "database: slow");
}

TEST(CpuThrottle, ReadsBothVersionsOfCpuStat) {
  EXPECT_EQ(ThrottledOf("usage_usec 100\nnr_periods 3\nnr_throttled 2\nthrottled_usec 1500000\nnr_bursts 0\n"), 1'500ms);
  EXPECT_EQ(ThrottledOf("nr_periods 3\nnr_throttled 2\nthrottled_time 2500000000\n"), 2'500ms);
  EXPECT_EQ(ThrottledOf("usage_usec 100\n"), 0ms) << "a cgroup without the controller";
  EXPECT_EQ(ThrottledOf(""), 0ms);
}

TEST(CpuThrottle, TellsThePartOfTheLastSecondsInWhichItWasHeldBack) {
  const std::string file = std::filesystem::temp_directory_path() / ("bh-cpu-stat-" + RandomHex(6));
  auto held_back = [&](int64_t usec) { std::ofstream(file) << "throttled_usec " << usec << "\n"; };
  CpuThrottle throttle(file);
  Instant now{1h};
  held_back(0);
  EXPECT_EQ(throttle.ShareLately(now), 0);
  throttle.Look(now);
  now += 10s;
  held_back(9'000'000);
  EXPECT_DOUBLE_EQ(throttle.ShareLately(now), 0.9);
  throttle.Look(now);
  now += 10s;
  throttle.Look(now);
  EXPECT_DOUBLE_EQ(throttle.ShareLately(now), 0) << "since the look before the last: nothing";
  std::filesystem::remove(file);
  EXPECT_EQ(throttle.Total(), 0ms);
  EXPECT_EQ(CpuThrottle().ShareLately(now), 0);
}

}  // namespace
}  // namespace bulkhead
