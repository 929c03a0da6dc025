// Thousands of small worlds in which one module lives through random wishes, crashes, hangs, lost databases and jumps of time.
// The world carries out what Step asks for, badly; after every event what Check() demands must hold. A failure prints its seed:
//   build/tests/lifecycle_sim_test --seed=17          replays one world and prints its events
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <string>

#include "supervisor/lifecycle/step.h"

namespace bulkhead {
namespace {

using Phase = SlotState::Phase;

constexpr int kWorlds = 3'000;
constexpr int kEventsPerWorld = 400;
constexpr auto kSettleTime = std::chrono::hours(24);  // faults off: long enough for any backoff and quarantine

uint64_t only_seed = 0;  // set by --seed

// The outside: processes as Step believes them to be, and how they fail.
class World {
 public:
  explicit World(uint64_t seed) : random_(seed), state_(random_.Next()) {}

  // What was sent, when, and what came of it.
  const std::string& trace() const { return trace_; }

  void Run() {
    int workers = 1 + static_cast<int>(random_.Below(4));
    Send("want", event::Want{true, false, ++generation_, workers});
    if (random_.Below(4) == 0) CrashStorm();
    for (int i = 0; i < kEventsPerWorld && !::testing::Test::HasFailure(); ++i) RandomEvent(workers);
    // Faults off: what is observed reaches what is wanted, whatever happened before.
    faults_ = false;
    bool want = random_.Below(2) == 0;
    Send("last want", event::Want{want, false, ++generation_, workers});
    Send("retry", event::Retry{});
    Settle();
    EXPECT_EQ(ObservedStateName(state_.observed), want ? "RUNNING" : "STOPPED");
    EXPECT_EQ(processes_.size(), want ? static_cast<size_t>(workers) : 0u);
    EXPECT_EQ(listed_.size(), processes_.size());
  }

 private:
  struct Process {
    int slot;
    bool ready = false, dead = false, stop_asked = false;
  };

  void Send(const char* what, const Event& event) {
    std::vector<Action> actions = Step(state_, event, now_);
    std::string line = std::to_string(std::chrono::duration_cast<Millis>(now_.time_since_epoch()).count()) + " ms  " + what +
                       " -> " + std::string(ObservedStateName(state_.observed)) + ", " + std::to_string(actions.size()) +
                       " actions\n";
    if (only_seed) fputs(line.c_str(), stdout);
    trace_ += line;
    for (const Action& action : actions) Carry(action);
    Check();
  }

  void Carry(const Action& action) {
    if (std::holds_alternative<action::Prepare>(action)) {
      EXPECT_FALSE(preparing_) << "two preparations at once";
      preparing_ = true;
    } else if (auto* start = std::get_if<action::StartWorker>(&action)) {
      for (const auto& [run, process] : processes_) EXPECT_NE(process.slot, start->slot) << "a second process in one slot";
      EXPECT_FALSE(preparing_) << "started before the migrations were done";
      EXPECT_TRUE(state_.wanted && !state_.skipped) << "started although nobody wants it";
      EXPECT_TRUE(seen_.insert(start->run).second) << "a run number used twice";
      processes_[start->run] = {start->slot};
      starts_.push_back(now_);
    } else if (auto* stop = std::get_if<action::StopWorker>(&action)) {
      auto found = processes_.find(stop->run);
      ASSERT_NE(found, processes_.end()) << "stops what is not there";
      EXPECT_FALSE(found->second.stop_asked) << "stopped twice";
      found->second.stop_asked = true;
    } else if (std::holds_alternative<action::Publish>(action)) {
      listed_.clear();
      for (const SlotState& slot : state_.slots) {
        if (Listed(slot)) listed_.insert(slot.run);
      }
      routed_ = Routed(state_);
      told_to_wait_ = StartsNow(state_);
    } else if (auto* drain = std::get_if<action::DrainWorker>(&action)) {
      EXPECT_FALSE(listed_.contains(drain->run)) << "drains a worker that is still listed";
      draining_.insert(drain->run);
    } else if (auto* wake = std::get_if<action::Wake>(&action)) {
      EXPECT_GT(wake->at, now_) << "a wake-up in the past would spin";
      wake_ = wake->at;
    }
  }

  // What holds after every event.
  void Check() {
    for (uint64_t run : listed_) {
      auto found = processes_.find(run);
      ASSERT_NE(found, processes_.end()) << "the Directory lists a worker that is gone";
      EXPECT_TRUE(found->second.ready && !found->second.dead) << "the Directory lists a worker that is not ready";
    }
    if (!state_.wanted || state_.skipped) {
      EXPECT_FALSE(routed_) << "routes of a module that is not wanted";
    }
    EXPECT_EQ(told_to_wait_, StartsNow(state_)) << "requests wait, or are refused, by what was true before";
    // No hot loop: at most the burst and one more per slot within a window, whatever happens, unless an administrator cleared the
    // slate.
    size_t recent = 0;
    for (auto it = starts_.rbegin(); it != starts_.rend() && *it + state_.policy.window > now_ && *it >= cleared_; ++it) ++recent;
    // Beyond the burst each start waits at least a tenth of the base, and the waits double.
    EXPECT_LE(recent, state_.slots.size() * static_cast<size_t>(2 * state_.policy.burst + 10)) << "a hot restart loop";
  }

  void RandomEvent(int workers) {
    if (random_.Below(100) < 40) now_ += Millis(random_.Below(3'000));
    if (random_.Below(1000) < 5) now_ += std::chrono::hours(random_.Below(3));
    if (wake_ && *wake_ <= now_) {
      wake_.reset();
      Send("tick", event::Tick{});
    }
    switch (random_.Below(10)) {
      case 0:
        if (random_.Below(4) == 0) {
          cleared_ = now_;
          Send("want", event::Want{random_.Below(3) != 0, random_.Below(10) == 0, ++generation_, workers});
        }
        break;
      case 1:
        if (random_.Below(20) == 0) {
          cleared_ = now_;
          Send("retry", event::Retry{});
        }
        break;
      case 2: FinishPreparing(); break;
      case 3: {  // events of processes long gone are ignored
        uint64_t old = random_.Below(state_.next_run + 2);
        if (!processes_.contains(old)) {
          Send("stale ready", event::WorkerReady{static_cast<int>(random_.Below(5)), old});
          Send("stale gone", event::WorkerGone{static_cast<int>(random_.Below(5)), old});
        }
        break;
      }
      default: StepProcess();
    }
  }

  // Every process dies as soon as it is started, for a window: what a restart loop looks like.
  void CrashStorm() {
    preparing_ = false;
    Send("prepared", event::Prepared{true});
    for (Instant end = now_ + state_.policy.window; now_ < end; now_ += Millis(50)) {
      if (wake_ && *wake_ <= now_) {
        wake_.reset();
        Send("tick", event::Tick{});
      }
      while (!processes_.empty() && !::testing::Test::HasFailure()) {
        auto [run, process] = *processes_.begin();
        Send("died", event::WorkerDied{process.slot, run, ExitCause::kExit, "simulated"});
        processes_.erase(run);
        Send("gone", event::WorkerGone{process.slot, run});
      }
    }
  }

  void FinishPreparing() {
    if (!preparing_) return;
    preparing_ = false;
    uint64_t luck = faults_ ? random_.Below(10) : 9;
    if (luck == 0) {
      Send("migration failed", event::Prepared{false, false, {"MIGRATION_FAILED", "simulated"}});
    } else if (luck <= 2) {
      Send("database away", event::Prepared{false, true, {"DATABASE_UNAVAILABLE", "simulated"}});
    } else {
      Send("prepared", event::Prepared{true});
    }
  }

  void StepProcess() {
    if (processes_.empty()) return;
    auto it = std::next(processes_.begin(), static_cast<ptrdiff_t>(random_.Below(processes_.size())));
    auto& [run, process] = *it;
    int slot = process.slot;
    uint64_t id = run;
    if (process.dead) {
      processes_.erase(it);
      draining_.erase(id);
      Send("gone", event::WorkerGone{slot, id});
    } else if (process.stop_asked) {
      Die(process, id, ExitCause::kExit);
    } else if (draining_.contains(id) && random_.Below(2) == 0) {
      draining_.erase(id);
      Send("drained", event::WorkerDrained{slot, id});
    } else if (faults_ && random_.Below(4) == 0) {
      static constexpr ExitCause kCauses[] = {ExitCause::kExit,      ExitCause::kSignal,       ExitCause::kOom,
                                              ExitCause::kHandshake, ExitCause::kStartTimeout, ExitCause::kLiveness,
                                              ExitCause::kConfig};
      Die(process, id, kCauses[random_.Below(random_.Below(8) == 0 ? 7 : 6)]);
    } else if (!process.ready) {
      process.ready = true;
      Send("ready", event::WorkerReady{slot, id});
    } else if (faults_ && random_.Below(4) == 0) {
      Send("health", event::WorkerHealthChanged{slot, id, static_cast<WorkerHealth>(random_.Below(3)), "simulated"});
    } else if (!faults_) {
      Send("healthy", event::WorkerHealthChanged{slot, id, WorkerHealth::kHealthy, ""});
    }
  }

  void Die(Process& process, uint64_t run, ExitCause cause) {
    process.dead = true;
    // The Directory must be without it before anything else happens: Check() looks right after this event.
    Send("died", event::WorkerDied{process.slot, run, cause, "simulated"});
  }

  void Settle() {
    Instant end = now_ + kSettleTime;
    while (now_ < end) {
      FinishPreparing();
      bool moved = false;
      for (int i = 0; i < 64; ++i) {
        StepProcess();
        moved = true;
      }
      if (wake_) now_ = std::max(now_, *wake_);
      wake_.reset();
      now_ += Millis(10);
      Send("tick", event::Tick{});
      bool rest =
          state_.observed == ObservedState::kRunning || (state_.observed == ObservedState::kStopped && processes_.empty());
      if (moved && rest && !preparing_) return;
    }
    ADD_FAILURE() << "did not settle: " << ObservedStateName(state_.observed) << " " << state_.reason.code;
  }

  Random random_;
  ModuleState state_;
  Instant now_ = Instant(std::chrono::hours(1));
  Instant cleared_ = now_;
  int64_t generation_ = 0;
  bool preparing_ = false, faults_ = true, routed_ = false, told_to_wait_ = false;
  std::map<uint64_t, Process> processes_;
  std::set<uint64_t> listed_, draining_, seen_;
  std::vector<Instant> starts_;
  std::optional<Instant> wake_;
  std::string trace_;
};

TEST(LifecycleSimulation, KeepsItsInvariantsInThousandsOfWorldsAndSettlesWhenFaultsStop) {
  if (only_seed) return World(only_seed).Run();
  for (uint64_t seed = 1; seed <= kWorlds; ++seed) {
    World(seed).Run();
    ASSERT_FALSE(HasFailure()) << "replay with --seed=" << seed;
  }
}

TEST(LifecycleSimulation, ReplaysAWorldFromItsSeed) {
  auto trace = [](uint64_t seed) {
    World world(seed);
    world.Run();
    return world.trace();
  };
  EXPECT_EQ(trace(17), trace(17));
  EXPECT_NE(trace(17), trace(18));
}

}  // namespace
}  // namespace bulkhead

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i < argc; ++i) {
    if (strncmp(argv[i], "--seed=", 7) == 0) bulkhead::only_seed = strtoull(argv[i] + 7, nullptr, 10);
  }
  return RUN_ALL_TESTS();
}
