// Thousands of small worlds in simulated time, each a node with modules that depend on each other, through crashes, hangs, lost
// databases, administrators, jumps of time and a shutdown at any moment. A failure names its seed.
//   build/tests/lifecycle_sim_test --seed=17                  replays one world and tells its events
//   build/tests/lifecycle_sim_test --worlds=100000            more of them, from seed 1
//   build/tests/lifecycle_sim_test --worlds=1000 --seed=5000  … from seed 5000
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>

#include "tests/sim/node.h"

namespace bulkhead::sim {
namespace {

using namespace std::chrono_literals;

#ifdef BULKHEAD_SANITIZED
constexpr uint64_t kWorlds = 300;  // one thread and no memory of its own: the sanitizers have little to find in more of them
#else
constexpr uint64_t kWorlds = 3'000;
#endif
constexpr Millis kSoaked = 1min;
constexpr Millis kSettleTime = 2h;                    // faults off: far beyond the longest wait of a quarantine
constexpr Millis kQuietTime = 30min;                  // settled: nothing happens any more
constexpr Millis kShutdownGrace = kKillTime + 100ms;  // behind the budget: the kill itself, and the Directory without it

struct {
  uint64_t seed = 1, worlds = kWorlds;
  bool told = false;
} options;

class World {
 public:
  World(uint64_t seed, bool told, Totals& totals) : node_(seed, told, totals), random_(node_.random()) {}

  // Whether all held.
  bool Run() {
    Populate();
    // The boot: all that is enabled at once.
    for (auto& m : node_.modules())
      if (random_.Below(8) != 0) node_.Enable(*m);
    for (uint64_t i = 10 + random_.Below(25); i > 0 && !node_.broken(); --i) {
      Interfere();
      // Short or long; or to the middle of something that lasts a few milliseconds.
      if (random_.Below(3) != 0) {
        node_.RunFor(Between(random_, 1ms, 20min));
      } else {
        for (uint64_t n = random_.Below(40); n > 0 && node_.timeline().next() && !node_.broken(); --n) node_.RunNext();
      }
    }
    if (random_.Below(2) == 0) SettleAndStayQuiet();
    if (!node_.broken()) ShutDown();
    return !node_.broken() && !failed_;
  }

 private:
  void Fail(const std::string& what) {
    failed_ = true;
    ADD_FAILURE() << what;
  }

  // Up to five modules; each depends on some of those before it, and is not named in that order.
  void Populate() {
    std::string names = "abcde";
    for (size_t i = names.size(); i > 1; --i) std::swap(names[i - 1], names[random_.Below(i)]);
    for (size_t count = 1 + random_.Below(names.size()), i = 0; i < count; ++i) {
      std::vector<std::string> dependencies;
      for (size_t j = 0; j < i; ++j)
        if (random_.Below(5) < 2) dependencies.push_back(names.substr(j, 1));
      Times times;
      if (random_.Below(2) == 0) {
        times.start = Between(random_, 200ms, 60s);
        times.stop = Between(random_, 10ms, 60s);
        times.drain = Between(random_, 10ms, 30s);
        times.health_interval = Between(random_, 1s, 30s);
      }
      int workers = 1 + static_cast<int>(random_.Below(random_.Below(2) == 0 ? 1 : 4));
      std::string tale = "module " + names.substr(i, 1) + " with " + std::to_string(workers) + " workers, depends on";
      for (const std::string& name : dependencies) tale += " " + name;
      node_.Tell(tale);
      const RestartPolicy policy = random_.Below(3) == 0 ? DrawPolicy(random_) : RestartPolicy{};
      const bool spare = random_.Below(3) == 0;
      node_.Add(std::make_unique<SimModule>(names.substr(i, 1), std::move(dependencies), workers, times, policy, random_.Next())).warm_spare = spare;
    }
    if (random_.Below(4) != 0) return;
    doomed_ = node_.modules()[random_.Below(node_.modules().size())].get();
    doomed_->mood = Mood::kDoomed;
  }

  // Of what a manifest may ask for, what is over within the time that a world has to settle.
  static RestartPolicy DrawPolicy(Random& random) {
    RestartPolicy policy;
    policy.when = static_cast<RestartWhen>(random.Below(3));
    policy.burst = static_cast<int>(random.Below(20));
    policy.window = Between(random, std::max<Millis>(1s, policy.burst * limits::kMinRestartSpacing), 10min);
    policy.base = Between(random, limits::kMinBackoff, 30s);
    policy.cap = Between(random, policy.base, 5min);
    policy.factor = 1 + 9 * random.Unit();
    policy.quarantine_windows = 1 + static_cast<int>(random.Below(5));
    policy.quarantine_span = Between(random, 1min, 10h);
    policy.quarantine_retry = Between(random, std::max(limits::kMinQuarantineRetry, policy.cap), 20min);
    policy.reset_after = Between(random, limits::kMinResetAfter, 20min);
    return policy;
  }

  void Interfere() {
    SimModule& m = *node_.modules()[random_.Below(node_.modules().size())];
    switch (random_.Below(20)) {
      case 0: return node_.Enable(m);
      case 1: return node_.Disable(m);
      case 2:  // and the other way round, before anything has come of it
        node_.Disable(m);
        return node_.Enable(m);
      case 3: return node_.Scale(m, 1 + static_cast<int>(random_.Below(5)));
      case 4: return node_.Skip(m, !m.skipped && random_.Below(3) == 0);
      case 5: return node_.SetDatabaseAway(random_.Below(2) == 0);
      case 6: return node_.timeline().Jump(Between(random_, 1s, 3h));
      case 7:
      case 8: return node_.SendOddity(m);
      case 9:
      case 10: return node_.CrashOne(m);
      case 11:
      case 12: return node_.Restart(m);
      case 13:
      case 14:
      case 15: return node_.Replace(m, true);
      case 16: return node_.Replace(m, false);
      default:
        if (&m != doomed_) m.mood = static_cast<Mood>(random_.Below(5));
        return;
    }
  }

  // Faults off: what is observed reaches what is wanted, whatever was before, and stays there.
  void SettleAndStayQuiet() {
    node_.Tell("faults off");
    node_.EndFaults(doomed_);
    for (auto& m : node_.modules()) {
      node_.Skip(*m, false);
      if (random_.Below(2) == 0) node_.Enable(*m);
    }
    node_.RunFor(kSoaked);  // what was said of a version before may still bring the one before it back
    Instant end = node_.now() + kSettleTime;
    while (!node_.broken() && !AtRest() && node_.now() < end) {
      // What only an administrator can mend, he does.
      for (auto& m : node_.modules())
        if (m.get() != doomed_ && NeedsAdministrator(*m)) node_.Retry(*m);
      if (!node_.timeline().next()) break;
      node_.RunNext();
    }
    if (node_.broken()) return;
    if (!AtRest()) return Fail("it does not settle: " + Unsettled());
    std::vector<uint64_t> starts;
    for (auto& m : node_.modules()) starts.push_back(m->starts);
    node_.RunFor(kQuietTime);
    if (node_.broken()) return;
    if (!AtRest()) return Fail("it does not stay settled: " + Unsettled());
    for (size_t i = 0; i < starts.size(); ++i) {
      const SimModule& m = *node_.modules()[i];
      if (&m != doomed_ && m.starts != starts[i]) Fail("something is started although all runs: module " + m.name);
    }
  }

  void ShutDown() {
    Millis budget = Between(random_, 10ms, 60s);
    Instant end = node_.now() + budget + kShutdownGrace;
    node_.ShutDown(budget);
    while (!node_.broken() && !node_.stopped() && node_.timeline().next() && *node_.timeline().next() <= end) node_.RunNext();
    if (node_.broken()) return;
    if (!node_.stopped()) return Fail("the shutdown does not end within its budget: " + Unsettled());
    node_.RunFor(kQuietTime);
    for (auto& m : node_.modules())
      if (m->state.observed != ObservedState::kStopped) Fail("module " + m->name + " does not stay stopped");
  }

  static bool NeedsAdministrator(const SimModule& m) {
    if (m.state.wanted && m.state.observed == ObservedState::kFailed && m.state.reason.code == "MIGRATION_FAILED") return true;
    for (size_t i = 0; i < m.state.slots.size(); ++i)
      if ((m.IsMember(i) || m.IsSpare(i)) && m.laws[i].parked() && !m.running[i].process) return true;
    return false;
  }

  // Whether it is as it is wanted, faults off.
  bool Settled(const SimModule& m) const {
    bool runs = m.enabled && !node_.stopping();
    if (runs && &m == doomed_) return true;
    ObservedState right = runs ? ObservedState::kRunning : ObservedState::kStopped;
    size_t expected = runs ? static_cast<size_t>(m.workers) : 0, spares = runs && m.warm_spare;
    if (runs && doomed_ && node_.DependsOn(m, *doomed_)) {
      right = ObservedState::kFailed;
      expected = spares = 0;
    }
    if (m.state.replacement) return false;
    for (size_t i = 0; runs && i < m.state.slots.size(); ++i)
      if (m.running[i].process && m.running[i].outdated) return false;
    for (size_t i : m.Spares())
      if (spares > 0 && !SimModule::Serves(m.running[i])) return false;
    return m.state.observed == right && Processes(m) == expected + spares && m.adopted.size() == expected + spares && m.publishing == 0;
  }
  bool AtRest() const {
    return std::all_of(node_.modules().begin(), node_.modules().end(), [this](const auto& m) { return Settled(*m); });
  }
  static size_t Processes(const SimModule& m) {
    return static_cast<size_t>(
        std::count_if(m.running.begin(), m.running.end(), [](const auto& one) { return one.process != nullptr; }));
  }
  std::string Unsettled() const {
    std::string all;
    for (auto& m : node_.modules()) {
      if (Settled(*m)) continue;
      all += "module " + m->name + " is " + std::string(ObservedStateName(m->state.observed)) + " (" + m->state.reason.code +
             ") with " + std::to_string(Processes(*m)) + " processes; ";
    }
    return all;
  }

  Node node_;
  Random& random_;
  SimModule* doomed_ = nullptr;
  bool failed_ = false;
};

void Tell(const Totals& totals) {
  auto n = [](uint64_t count) { return static_cast<unsigned long long>(count); };
  printf("%llu worlds, %llu events, %llu starts, %llu exits, %llu configuration errors, %llu quarantines, ", n(totals.worlds),
         n(totals.events), n(totals.starts), n(totals.exits), n(totals.parked), n(totals.quarantines));
  printf("%llu failures of a dependency, %llu preparations without a database, %llu shutdowns, %llu killed in a stop, ",
         n(totals.blocked), n(totals.database_away), n(totals.shutdowns), n(totals.killed));
  printf("%llu upgrades, %llu that failed, %llu taken back, ", n(totals.upgrades), n(totals.upgrades_failed), n(totals.rollbacks));
  printf("%llu spares, %llu that took a place, ", n(totals.spares), n(totals.taken_over));
  printf("%.0f days of simulated time\n", std::chrono::duration<double, std::ratio<86400>>(totals.simulated).count());
}

TEST(LifecycleSimulation, KeepsItsInvariantsInThousandsOfWorldsAndSettlesWhenFaultsStop) {
  Totals totals;
  for (uint64_t seed = options.seed; seed < options.seed + options.worlds; ++seed) {
    ASSERT_TRUE(World(seed, options.told, totals).Run()) << "replay it with --seed=" << seed;
  }
  Tell(totals);
  if (totals.worlds < kWorlds) return;
  // One that does not come to what it is about would say nothing.
  for (uint64_t seen : {totals.quarantined, totals.backed_off, totals.quarantines, totals.parked, totals.blocked, totals.database_away, totals.killed,
                        totals.upgrades, totals.upgrades_failed, totals.taken_over})
    EXPECT_GT(seen, totals.worlds / 10);
}

TEST(LifecycleSimulation, ReplaysAWorldFromItsSeed) {
  auto fingerprint = [](uint64_t seed) {
    Totals totals;
    World(seed, false, totals).Run();
    return totals.fingerprint;
  };
  EXPECT_EQ(fingerprint(17), fingerprint(17));
  EXPECT_NE(fingerprint(17), fingerprint(18));
}

}  // namespace
}  // namespace bulkhead::sim

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  auto& options = bulkhead::sim::options;
  bool one = false, many = false;
  for (int i = 1; i < argc; ++i) {
    if (strncmp(argv[i], "--seed=", 7) == 0) options.seed = strtoull(argv[i] + 7, nullptr, 10), one = true;
    if (strncmp(argv[i], "--worlds=", 9) == 0) options.worlds = strtoull(argv[i] + 9, nullptr, 10), many = true;
  }
  if (one && !many) {
    options.worlds = 1;
    options.told = true;
  }
  return RUN_ALL_TESTS();
}
