#include "supervisor/gateway/timer_wheel.h"

#include <functional>

#include "gtest/gtest.h"
#include "supervisor/base/random.h"

namespace bulkhead {
namespace {

struct Probe : Timer {
  void OnTimer() override { fired = *now; ++times; if (then) then(); }
  const Instant* now = nullptr;
  Instant fired{};
  int times = 0;
  std::function<void()> then;
};

TEST(TimerWheel, FiresNeverEarlyAndHardlyLate) {
  Instant now{Millis(1'000'003)};
  TimerWheel wheel(now);
  Random random(7);
  std::vector<Probe> probes(500);
  Instant start = now;
  for (Probe& probe : probes) {
    probe.now = &now;
    wheel.Arm(probe, start + Millis(random.Below(200'000)));
  }
  int turns = 0;
  for (int ms = wheel.NextMs(now); ms >= 0; ms = wheel.NextMs(now)) {
    now += Millis(ms);
    wheel.Advance(now);
    ASSERT_LT(++turns, 2'000) << "it wakes too often";
  }
  for (const Probe& probe : probes) {
    EXPECT_EQ(probe.times, 1);
    EXPECT_GE(probe.fired, probe.due());
    EXPECT_LE(probe.fired, probe.due() + Millis(17));
  }
}

TEST(TimerWheel, LetsWhatFiresArmAndDisarmOthers) {
  Instant now{};
  TimerWheel wheel(now);
  Probe a, b;
  a.now = b.now = &now;
  wheel.Arm(a, now + Millis(100));
  wheel.Arm(b, now + Millis(100));
  a.then = [&] { wheel.Disarm(b); if (a.times < 3) wheel.Arm(a, now + Millis(50)); };
  for (int i = 0; i < 100; ++i) wheel.Advance(now += Millis(10));
  EXPECT_EQ(a.times, 3);
  EXPECT_EQ(b.times, 0);
  EXPECT_EQ(wheel.NextMs(now), -1);
}

TEST(TimerWheel, SurvivesALongSleep) {
  Instant now{};
  TimerWheel wheel(now);
  Probe a, b;
  a.now = b.now = &now;
  wheel.Arm(a, now + Millis(10));
  wheel.Arm(b, now + std::chrono::hours(2));
  wheel.Advance(now += std::chrono::hours(1));
  EXPECT_EQ(a.times, 1);
  EXPECT_EQ(b.times, 0);
  wheel.Advance(now += std::chrono::hours(2));
  EXPECT_EQ(b.times, 1);
}

}  // namespace
}  // namespace bulkhead
