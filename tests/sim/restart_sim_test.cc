// Millions of ends of one slot under policies of every kind that a manifest may ask for, held against the law of restarts (restart_law.h).
//   build/tests/restart_sim_test --steps=20000000     more of them, from seed 1; prints figures
//   build/tests/restart_sim_test --seed=17            from seed 17
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>

#include "supervisor/base/limits.h"
#include "tests/sim/process.h"
#include "tests/sim/restart_law.h"

namespace bulkhead::sim {
namespace {

using namespace std::chrono_literals;

#ifdef BULKHEAD_SANITIZED
constexpr uint64_t kSteps = 200'000;
#else
constexpr uint64_t kSteps = 500'000;
#endif
constexpr uint64_t kStepsPerSlot = 2'000;
constexpr Millis kHour = 1h;

struct {
  uint64_t seed = 1, steps = kSteps;
} options;

struct Figures {
  uint64_t steps = 0, slots = 0, at_once = 0, quarantines = 0, parked = 0, resets = 0, cleared = 0;
  double fullest = 0;         // of the hour that a policy allows at most, the largest part that was used
  double most_per_second = 0; // starts, over an hour
  Millis longest{0};          // wait
  double days = 0;
};

// Within the caps of the manifest, its corners as likely as what lies between them.
RestartPolicy DrawAny(Random& random) {
  auto millis = [&](Millis least, Millis most) {
    switch (random.Below(4)) {
      case 0: return least;
      case 1: return most;
      default: return Between(random, least, most);
    }
  };
  RestartPolicy policy;
  policy.when = random.Below(4) == 0 ? static_cast<RestartWhen>(random.Below(3)) : RestartWhen::kAlways;
  policy.burst = random.Below(3) == 0 ? static_cast<int>(random.Below(limits::kMaxRestartBurst + 1)) : static_cast<int>(random.Below(10));
  policy.window = millis(std::max(limits::kMinRestartWindow, policy.burst * limits::kMinRestartSpacing), limits::kMaxRestartWindow);
  policy.base = millis(limits::kMinBackoff, limits::kMaxBackoff);
  policy.cap = millis(policy.base, limits::kMaxBackoff);
  policy.factor = random.Below(3) == 0 ? 1 : 1 + (limits::kMaxBackoffFactor - 1) * random.Unit();
  policy.quarantine_windows = 1 + static_cast<int>(random.Below(random.Below(2) == 0 ? 3 : limits::kMaxQuarantineWindows));
  policy.quarantine_span = millis(limits::kMinQuarantineRetry, limits::kMaxQuarantineSpan);
  policy.quarantine_retry = millis(std::max(limits::kMinQuarantineRetry, policy.cap), limits::kMaxQuarantineRetry);
  policy.reset_after = millis(limits::kMinResetAfter, limits::kMaxResetAfter);
  return policy;
}

// One slot of a module, from outside: what ends is started again when Step says so.
class Slot {
 public:
  Slot(uint64_t seed, Figures& figures) : random_(seed), policy_(DrawAny(random_)), state_(random_.Next(), policy_), law_(policy_), figures_(figures) {
    // How long its processes live: not at all, up to what clears the slate, or of every kind.
    lives_ = random_.Below(3);
    ++figures_.slots;
  }

  void Run(uint64_t steps) {
    Apply(event::Want{true, false, 1, 1});
    Apply(event::Prepared{true});
    for (uint64_t i = 0; i < steps && !::testing::Test::HasFailure(); ++i) Step1();
    figures_.days += std::chrono::duration<double, std::ratio<86400>>(now_ - began_).count();
  }

 private:
  SlotState& slot() { return state_.slots[0]; }

  void Apply(const Event& event) {
    for (const Action& action : Step(state_, event, now_)) {
      if (std::holds_alternative<action::StartWorker>(action)) Started();
    }
  }

  void Started() {
    const char* wrong = law_.Started(now_);
    EXPECT_EQ(*wrong, 0) << wrong;
    starts_.push_back(now_);
    while (starts_.front() + kHour <= now_) starts_.pop_front();
    const double allowed = RestartLaw::MaxStarts(policy_, kHour);
    EXPECT_LE(static_cast<double>(starts_.size()), allowed) << "a hot loop";
    figures_.fullest = std::max(figures_.fullest, static_cast<double>(starts_.size()) / allowed);
    figures_.most_per_second = std::max(figures_.most_per_second, static_cast<double>(starts_.size()) / 3'600);
  }

  // A process from its start to the start of the next one.
  void Step1() {
    ++figures_.steps;
    const uint64_t run = slot().run;
    const bool ready = random_.Below(4) != 0;
    now_ += random_.Below(2) == 0 ? 0ms : Between(random_, 1ms, 60s);
    const Instant ready_at = now_;
    if (ready) {
      Apply(event::WorkerReady{0, run});
      if (lives_ > 0) now_ += Between(random_, 1ms, lives_ == 1 ? policy_.reset_after : 3 * policy_.reset_after);
      if (random_.Below(50) == 0) now_ = ready_at + policy_.reset_after;  // to the millisecond
    }
    const ExitCause cause = random_.Below(200) == 0 ? ExitCause::kConfig : random_.Below(2) == 0 ? ExitCause::kExit : ExitCause::kSignal;
    const bool orderly = cause == ExitCause::kExit && random_.Below(2) == 0;
    const bool quarantined = slot().backoff.quarantined();
    law_.Exited(now_, cause, ready ? std::chrono::duration_cast<Millis>(now_ - ready_at) : 0ms, orderly);
    Apply(event::WorkerDied{0, run, cause, "simulated", "", "", orderly});
    if (!law_.parked()) Judge(quarantined);
    now_ += Millis(random_.Below(60));
    Apply(event::WorkerGone{0, run});
    Restart();
  }

  void Judge(bool was_quarantined) {
    const bool is = slot().backoff.quarantined();
    if (law_.after_healthy_spell()) {
      ++figures_.resets;
      EXPECT_FALSE(is && policy_.burst > 0) << "a healthy spell ends a quarantine";
      EXPECT_TRUE(policy_.burst == 0 || *slot().retry_at == now_) << "and clears the slate";
    } else {
      EXPECT_TRUE(is || !was_quarantined) << "a quarantine ends without a healthy spell";
    }
    if (is && !was_quarantined) {
      ++figures_.quarantines;
      EXPECT_TRUE(law_.MayBeQuarantined(now_)) << "a quarantine comes too early";
    }
    EXPECT_LE(*slot().retry_at, law_.DueBy(is) == Instant::min() ? now_ : law_.DueBy(is)) << "a wait beyond the cap";
    figures_.longest = std::max(figures_.longest, std::chrono::duration_cast<Millis>(*slot().retry_at - now_));
    figures_.at_once += *slot().retry_at == now_;
  }

  // Lets the time of its wait pass, or an administrator come.
  void Restart() {
    if (slot().phase == SlotState::Phase::kStarting) return;
    if (law_.parked()) {
      ++figures_.parked;
      now_ += 24h;
      Apply(event::Tick{});
      EXPECT_EQ(slot().phase, SlotState::Phase::kEmpty) << "what is parked is started by itself";
    }
    if (law_.parked() || random_.Below(500) == 0) {
      ++figures_.cleared;
      law_.SlateCleared();
      // An administrator can do that as often as he likes: no law counts it.
      starts_.clear();
      Apply(event::Retry{});
      EXPECT_FALSE(slot().backoff.quarantined() || slot().backoff.waiting_long() || slot().parked);
    } else {
      const Instant due = *slot().retry_at;
      if (due - 1ms > now_) {
        now_ = due - 1ms;
        Apply(event::Tick{});
        EXPECT_EQ(slot().phase, SlotState::Phase::kEmpty) << "it does not wait";
      }
      now_ = std::max(now_, due);
      Apply(event::Tick{});
    }
    EXPECT_EQ(slot().phase, SlotState::Phase::kStarting) << "it is not started when it is due";
  }

  Random random_;
  const RestartPolicy policy_;
  ModuleState state_;
  RestartLaw law_;
  Figures& figures_;
  uint64_t lives_ = 0;
  const Instant began_{1h};
  Instant now_ = began_;
  std::deque<Instant> starts_;  // within the last hour
};

TEST(RestartSimulation, NoPolicyMakesAHotLoopOrWaitsBeyondItsCap) {
  Figures figures;
  uint64_t seed = options.seed;
  for (; figures.steps < options.steps && !HasFailure(); ++seed) Slot(seed, figures).Run(kStepsPerSlot);
  ASSERT_FALSE(HasFailure()) << "replay it with --seed=" << seed - 1 << " --steps=1";
  auto n = [](uint64_t count) { return static_cast<unsigned long long>(count); };
  printf("%llu ends of %llu slots, each under a policy of its own, in %.0f days of simulated time: %llu answered at once, %llu quarantines, ",
         n(figures.steps), n(figures.slots), figures.days, n(figures.at_once), n(figures.quarantines));
  printf("%llu healthy spells, %llu not tried again by themselves, %llu slates cleared by hand; ", n(figures.resets), n(figures.parked), n(figures.cleared));
  printf("longest wait %.1f h, most starts of a slot in an hour %.2f per second, at most %.0f %% of what its policy allows\n",
         static_cast<double>(figures.longest.count()) / 3.6e6, figures.most_per_second, figures.fullest * 100);
  if (options.steps < kSteps) return;
  for (uint64_t seen : {figures.at_once, figures.quarantines, figures.parked, figures.resets, figures.cleared}) EXPECT_GT(seen, figures.slots / 10);
}

}  // namespace
}  // namespace bulkhead::sim

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  auto& options = bulkhead::sim::options;
  for (int i = 1; i < argc; ++i) {
    if (strncmp(argv[i], "--seed=", 7) == 0) options.seed = strtoull(argv[i] + 7, nullptr, 10);
    if (strncmp(argv[i], "--steps=", 8) == 0) options.steps = strtoull(argv[i] + 8, nullptr, 10);
  }
  return RUN_ALL_TESTS();
}
