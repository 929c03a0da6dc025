// Both levels of the cache with loads, writes and news in every order: what a load answers that begins after an invalidation was answered is never older
// than that.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <random>

#include "tests/unit/cache/moved_clock.h"
#include "tests/unit/cache/sim_worker.h"

namespace bulkhead {
namespace {

struct Sim;

// What happens step by step; a step of one that has ended does nothing.
class Process {
 public:
  virtual ~Process() = default;
  virtual void Step(Sim& sim) = 0;
};

// The world: what the truth is, and what it was when the last invalidation was answered.
struct Sim {
  Sim() : two(clock, {size_t{1} << 20, size_t{1} << 20, nullptr, nullptr}) {
    for (int i = 0; i < 2; ++i) {
      workers.push_back(std::make_shared<SimWorker>(two));
      two.Watch(kSimModule, std::to_string(i), workers.back());
      two.Heard(kSimModule, workers.back().get(), 0, 1);
      workers.back()->DeliverAll();
    }
  }
  MovedClock clock;
  SharedCache two;
  std::vector<std::shared_ptr<SimWorker>> workers;
  int64_t truth = 1, answered = 1;
  Process* setting = nullptr;  // what it sets it has read from the truth
  std::string fault;
};

// A load in the four steps of WorkerCache::GetOrLoad.
class Loader final : public Process {
 public:
  explicit Loader(int worker) : worker_(worker) {}
  void Step(Sim& sim) override {
    SimWorker& worker = *sim.workers[static_cast<size_t>(worker_)];
    switch (step_++) {
      case 0: {
        least_ = sim.answered;
        if (const auto look = worker.one.Find(kSimKey, 0); look.found) return End(sim, std::stoll(*look.value), "level one");
        HostCache::Look look;
        sim.two.Get(kSimModule, kSimKey, [&](absl::StatusOr<HostCache::Look> told) { look = *std::move(told); });
        version_ = look.version;
        if (!look.found) return;
        worker.one.Put({kSimKey, look.value, look.tags, 0, look.version});
        return End(sim, std::stoll(*look.value), "level two");
      }
      case 1: value_ = sim.truth; return;
      case 2: sim.two.Set(kSimModule, {kSimKey, NumberText(value_), Millis(0), {kTag}, version_}, [](const absl::StatusOr<HostCache::Stored>&) {}); return;
      case 3: worker.one.Put({kSimKey, NumberText(value_), {kTag}, 0, version_}); return End(sim, value_, "its own load");
      default: return;
    }
  }
  void Finish(Sim& sim) {
    while (step_ < 4) Step(sim);
  }

 private:
  void End(Sim& sim, int64_t value, const char* where) {
    step_ = 4;
    if (value < least_) sim.fault = "a load was answered " + std::to_string(value) + " by " + where + " after " + std::to_string(least_) + " was told";
  }
  const int worker_;
  int step_ = 0;
  int64_t least_ = 0, version_ = 0, value_ = 0;
};

enum class Change { kKey, kTag, kAll, kSet };

// Changes the truth, then tells the cache. Of two sets the later one counts, so nobody else may change the truth between those two steps of a set, as a
// lock on its row would have it; invalidations need none.
class Writer final : public Process {
 public:
  explicit Writer(Change change) : change_(change) {}
  void Step(Sim& sim) override {
    if (step_ == 0 && sim.setting != nullptr) sim.setting->Step(sim);
    switch (step_++) {
      case 0:
        value_ = ++sim.truth;
        if (change_ == Change::kSet) sim.setting = this;
        return;
      case 1: {
        if (sim.setting == this) sim.setting = nullptr;
        const auto answered = [&sim, value = value_](const auto&) { sim.answered = std::max(sim.answered, value); };
        if (change_ == Change::kSet) return sim.two.Set(kSimModule, {kSimKey, NumberText(value_), Millis(0), {kTag}}, answered);
        cache::Names names;
        names.all = change_ == Change::kAll;
        (change_ == Change::kTag ? names.tags : names.keys) = {change_ == Change::kTag ? kTag : kSimKey};
        if (names.all) names.keys.clear();
        return sim.two.Invalidate(kSimModule, std::move(names), answered);
      }
      default: return;
    }
  }

 private:
  const Change change_;
  int step_ = 0;
  int64_t value_ = 0;
};

class Delivery final : public Process {
 public:
  explicit Delivery(int worker) : worker_(worker) {}
  void Step(Sim& sim) override { sim.workers[static_cast<size_t>(worker_)]->Deliver(); }

 private:
  const int worker_;
};

// Runs the processes in this order of steps, then lets all news arrive and reads once more everywhere.
std::string RunOrder(const std::vector<int>& order, std::vector<std::unique_ptr<Process>> processes) {
  Sim sim;
  for (int process : order) processes[static_cast<size_t>(process)]->Step(sim);
  for (const auto& worker : sim.workers) worker->DeliverAll();
  for (int worker = 0; worker < 2 && sim.fault.empty(); ++worker) {
    for (int again = 0; again < 2; ++again) Loader(worker).Finish(sim);
  }
  return sim.fault;
}

// Every order of so many steps of each.
template <typename Make>
size_t EveryOrder(const std::vector<int>& steps, Make make) {
  std::vector<int> order;
  for (size_t process = 0; process < steps.size(); ++process) order.insert(order.end(), static_cast<size_t>(steps[process]), static_cast<int>(process));
  size_t orders = 0;
  do {
    ++orders;
    const std::string fault = RunOrder(order, make());
    if (fault.empty()) continue;
    std::string text;
    for (int process : order) text += std::to_string(process);
    ADD_FAILURE() << fault << " in the order " << text;
    return orders;
  } while (std::next_permutation(order.begin(), order.end()));
  return orders;
}

template <typename... Processes>
std::vector<std::unique_ptr<Process>> All(std::unique_ptr<Processes>... processes) {
  std::vector<std::unique_ptr<Process>> all;
  (all.push_back(std::move(processes)), ...);
  return all;
}

class CacheInterleavings : public testing::TestWithParam<Change> {};

TEST_P(CacheInterleavings, TwoLoadsOfOneWorkerAndAChange) {
  const size_t orders = EveryOrder({4, 4, 2, 1}, [&] {
    return All(std::make_unique<Loader>(0), std::make_unique<Loader>(0), std::make_unique<Writer>(GetParam()), std::make_unique<Delivery>(0));
  });
  EXPECT_EQ(orders, 34'650u);
}

TEST_P(CacheInterleavings, ALoadHereAndALateOneThereAndAChange) {
  const size_t orders = EveryOrder({4, 2, 2, 1, 1}, [&] {
    return All(std::make_unique<Loader>(0), std::make_unique<Loader>(1), std::make_unique<Writer>(GetParam()), std::make_unique<Delivery>(0),
               std::make_unique<Delivery>(1));
  });
  EXPECT_EQ(orders, 37'800u);
}

TEST_P(CacheInterleavings, ALoadAndTwoChangesOfWhichOneIsASet) {
  const size_t orders = EveryOrder({4, 2, 2, 2}, [&] {
    return All(std::make_unique<Loader>(0), std::make_unique<Writer>(GetParam()), std::make_unique<Writer>(Change::kSet), std::make_unique<Delivery>(0));
  });
  EXPECT_EQ(orders, 18'900u);
}

// More of everything than could be tried in every order. BULKHEAD_SEED replays one.
TEST_P(CacheInterleavings, ManyOfEverythingAtRandom) {
  const char* given = std::getenv("BULKHEAD_SEED");
  for (uint32_t seed = given ? static_cast<uint32_t>(std::atoi(given)) : 1, last = given ? seed : 4'000; seed <= last; ++seed) {
    std::mt19937 random(seed);
    std::vector<std::unique_ptr<Process>> processes;
    std::vector<int> order;
    const auto add = [&](std::unique_ptr<Process> process, size_t steps) {
      order.insert(order.end(), steps, static_cast<int>(processes.size()));
      processes.push_back(std::move(process));
    };
    for (int i = 0; i < 8; ++i) add(std::make_unique<Loader>(static_cast<int>(random() % 2)), 4);
    for (int i = 0; i < 4; ++i) add(std::make_unique<Writer>(random() % 2 == 0 ? GetParam() : static_cast<Change>(random() % 3)), 2);
    for (int i = 0; i < 2; ++i) add(std::make_unique<Delivery>(i), 6);
    std::shuffle(order.begin(), order.end(), random);
    ASSERT_EQ(RunOrder(order, std::move(processes)), "") << "BULKHEAD_SEED=" << seed;
  }
}

std::string ChangeName(const testing::TestParamInfo<Change>& info) {
  switch (info.param) {
    case Change::kKey: return "Key";
    case Change::kTag: return "Tag";
    case Change::kAll: return "All";
    case Change::kSet: return "Set";
  }
  return "";
}

INSTANTIATE_TEST_SUITE_P(Each, CacheInterleavings, testing::Values(Change::kKey, Change::kTag, Change::kAll, Change::kSet), ChangeName);

}  // namespace
}  // namespace bulkhead
