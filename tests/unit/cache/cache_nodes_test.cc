// Two nodes with one real Redis, each with a worker's memory, and what they do in every kind of order at random. On the node where an invalidation was
// answered nobody is told anything older from then on; on the other one nobody is, once the notices between the nodes have come. Without memory of their
// own that holds at once on both.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <deque>
#include <future>
#include <mutex>
#include <random>

#include "tests/unit/cache/cache_engine.h"
#include "tests/unit/cache/moved_clock.h"
#include "tests/unit/cache/sim_worker.h"

namespace bulkhead {
namespace {

constexpr int kNodes = 2;
constexpr uint32_t kNodeRuns = 1'000;

// What Redis was asked before has been answered, and whoever waited for it called.
void SettleRedis(RedisLevel& level) {
  std::promise<void> settled;
  if (level.Get("settle", "nothing", [&](const RedisLevel::Found&) { settled.set_value(); })) settled.get_future().wait();
}

struct World;

class NodeProcess {
 public:
  virtual ~NodeProcess() = default;
  virtual void Step(World& world) = 0;
};

struct SimNode {
  SimNode(World& world, RedisLevel& redis, int number, size_t max_bytes, WallTime run);
  void Hear() {
    std::unique_lock lock(mutex);
    if (notices.empty()) return;
    const auto [names, missed] = std::move(notices.front());
    notices.pop_front();
    lock.unlock();
    two.Heed(kSimModule, names, missed);
  }
  bool Quiet() {
    std::lock_guard lock(mutex);
    return notices.empty();
  }
  RedisLevel& redis;
  MovedClock clock;
  SharedCache two;
  std::shared_ptr<SimWorker> worker;
  std::mutex mutex;
  std::deque<std::pair<cache::Names, bool>> notices;  // on their way here
  std::atomic<int64_t> answered{1};                   // the truth when the last invalidation here was answered
};

struct World {
  World(const std::vector<std::unique_ptr<RedisLevel>>& levels, size_t memory, WallTime run) : max_bytes(memory) {
    for (int i = 0; i < kNodes; ++i) nodes.push_back(std::make_unique<SimNode>(*this, *levels[static_cast<size_t>(i)], i, max_bytes, run));
  }
  void Settle() {
    for (const auto& node : nodes) SettleRedis(node->redis);
  }
  int64_t Answered(int node) const {
    if (max_bytes > 0) return nodes[static_cast<size_t>(node)]->answered;
    return std::max(nodes[0]->answered.load(), nodes[1]->answered.load());
  }
  const size_t max_bytes;
  std::vector<std::unique_ptr<SimNode>> nodes;
  int64_t truth = 1;
  NodeProcess* setting = nullptr;
  std::string fault;
};

SimNode::SimNode(World& world, RedisLevel& level, int number, size_t max_bytes, WallTime run)
    : redis(level),
      two(clock, {max_bytes, max_bytes, nullptr,
                  [&world, number](const std::string&, const cache::Names& names, bool missed) {
                    SimNode& other = *world.nodes[static_cast<size_t>(1 - number)];
                    std::lock_guard lock(other.mutex);
                    other.notices.emplace_back(names, missed);
                  },
                  &level}),
      worker(std::make_shared<SimWorker>(two, max_bytes)) {
  two.Adopt(EnabledModules({kSimModule}, run), [] {});
  two.Watch(kSimModule, "worker", worker);
  two.Heard(kSimModule, worker.get(), 0, 1);
  worker->DeliverAll();
}

class NodeLoader final : public NodeProcess {
 public:
  explicit NodeLoader(int node) : node_(node) {}
  void Step(World& world) override {
    SimNode& node = *world.nodes[static_cast<size_t>(node_)];
    switch (step_++) {
      case 0: {
        least_ = world.Answered(node_);
        if (const auto look = node.worker->one.Find(kSimKey, 0); look.found) return End(world, std::stoll(*look.value), "level one");
        HostCache::Look look;
        node.two.Get(kSimModule, kSimKey, [&](absl::StatusOr<HostCache::Look> told) { look = *std::move(told); });
        world.Settle();
        version_ = look.version;
        if (!look.found) return;
        node.worker->one.Put({kSimKey, look.value, look.tags, 0, look.version});
        return End(world, std::stoll(*look.value), "level two");
      }
      case 1: value_ = world.truth; return;
      case 2:
        node.two.Set(kSimModule, {kSimKey, NumberText(value_), Millis(0), {kTag}, version_}, [](const absl::StatusOr<HostCache::Stored>&) {});
        return world.Settle();
      case 3: node.worker->one.Put({kSimKey, NumberText(value_), {kTag}, 0, version_}); return End(world, value_, "its own load");
      default: return;
    }
  }
  void Finish(World& world) {
    while (step_ < 4) Step(world);
  }
  void FinishAbove(World& world, int64_t least) {
    Finish(world);
    if (last_ < least) world.fault = "at the end node " + std::to_string(node_) + " says " + std::to_string(last_) + " after " + std::to_string(least);
  }

 private:
  void End(World& world, int64_t value, const char* where) {
    step_ = 4;
    last_ = value;
    if (value < least_)
      world.fault = "a load on node " + std::to_string(node_) + " was answered " + std::to_string(value) + " by " + where + " after " + std::to_string(least_);
  }
  const int node_;
  int step_ = 0;
  int64_t least_ = 0, version_ = 0, value_ = 0, last_ = 0;
};

enum class NodeChange { kKey, kTag, kAll, kSet };

class NodeWriter final : public NodeProcess {
 public:
  NodeWriter(int node, NodeChange change) : node_(node), change_(change) {}
  void Step(World& world) override {
    if (step_ == 0 && world.setting != nullptr) world.setting->Step(world);
    SimNode& node = *world.nodes[static_cast<size_t>(node_)];
    switch (step_++) {
      case 0:
        value_ = ++world.truth;
        if (change_ == NodeChange::kSet) world.setting = this;
        return;
      case 1: {
        if (world.setting == this) world.setting = nullptr;
        const auto answered = [&node, value = value_](const auto&) { node.answered = std::max(node.answered.load(), value); };
        if (change_ == NodeChange::kSet) {
          node.two.Set(kSimModule, {kSimKey, NumberText(value_), Millis(0), {kTag}}, answered);
        } else {
          cache::Names names{.all = change_ == NodeChange::kAll};
          if (change_ == NodeChange::kKey) names.keys = {kSimKey};
          if (change_ == NodeChange::kTag) names.tags = {kTag};
          node.two.Invalidate(kSimModule, std::move(names), answered);
        }
        return world.Settle();
      }
      default: return;
    }
  }

 private:
  const int node_;
  const NodeChange change_;
  int step_ = 0;
  int64_t value_ = 0;
};

class NodeDelivery final : public NodeProcess {
 public:
  explicit NodeDelivery(int node) : node_(node) {}
  void Step(World& world) override {
    world.nodes[static_cast<size_t>(node_)]->worker->Deliver();
    world.Settle();
  }

 private:
  const int node_;
};

class NodeNotice final : public NodeProcess {
 public:
  explicit NodeNotice(int node) : node_(node) {}
  void Step(World& world) override {
    world.nodes[static_cast<size_t>(node_)]->Hear();
    world.Settle();
  }

 private:
  const int node_;
};

class CacheNodes : public testing::TestWithParam<bool> {
 protected:
  CacheNodes() {
    for (int i = 0; i < kNodes; ++i)
      levels_.push_back(std::make_unique<RedisLevel>(RedisLevel::Options{redis_.address(), "test:", "node " + std::to_string(i), ""}));
    for (const auto& level : levels_) {
      while (!level->usage().up) std::this_thread::sleep_for(Millis(1));
    }
  }
  std::string RunSeed(uint32_t seed, size_t max_bytes) {
    std::mt19937 random(seed);
    World world(levels_, max_bytes, WallTime(std::chrono::seconds(seed)));
    std::vector<std::unique_ptr<NodeProcess>> processes;
    std::vector<size_t> order;
    const auto add = [&](std::unique_ptr<NodeProcess> process, size_t steps) {
      order.insert(order.end(), steps, processes.size());
      processes.push_back(std::move(process));
    };
    for (int i = 0; i < 8; ++i) add(std::make_unique<NodeLoader>(static_cast<int>(random() % kNodes)), 4);
    for (int i = 0; i < 4; ++i) add(std::make_unique<NodeWriter>(static_cast<int>(random() % kNodes), static_cast<NodeChange>(random() % 4)), 2);
    for (int i = 0; i < kNodes; ++i) {
      add(std::make_unique<NodeDelivery>(i), 6);
      add(std::make_unique<NodeNotice>(i), 2);
    }
    std::shuffle(order.begin(), order.end(), random);
    for (const size_t process : order) processes[process]->Step(world);
    for (const auto& node : world.nodes) {
      while (!node->Quiet()) node->Hear();
      node->worker->DeliverAll();
    }
    world.Settle();
    const int64_t most = std::max(world.nodes[0]->answered.load(), world.nodes[1]->answered.load());
    for (int node = 0; node < kNodes && world.fault.empty(); ++node) {
      for (int again = 0; again < 2 && world.fault.empty(); ++again) NodeLoader(node).FinishAbove(world, most);
    }
    for (const auto& node : world.nodes) found_in_redis_ += node->two.Usage().at(0).redis_hits;
    world.Settle();
    return world.fault;
  }
  TestRedis redis_;
  std::vector<std::unique_ptr<RedisLevel>> levels_;
  int64_t found_in_redis_ = 0;
};
INSTANTIATE_TEST_SUITE_P(Memory, CacheNodes, testing::Bool(), [](const auto& with) { return with.param ? "OfTheirOwn" : "None"; });

// BULKHEAD_SEED replays one.
TEST_P(CacheNodes, ManyOfEverythingAtRandom) {
  const char* given = std::getenv("BULKHEAD_SEED");
  for (uint32_t seed = given ? static_cast<uint32_t>(std::atoi(given)) : 1, last = given ? seed : kNodeRuns; seed <= last; ++seed)
    ASSERT_EQ(RunSeed(seed, GetParam() ? size_t{1} << 20 : 0), "") << "BULKHEAD_SEED=" << seed;
  EXPECT_GT(found_in_redis_, 0);
}

}  // namespace
}  // namespace bulkhead
