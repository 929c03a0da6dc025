// What a lookup in the cache of modules costs: found in the worker's memory, found in the supervisor over the host socket, found in a redis-server of this
// host behind that, loaded and invalidated, beside a std::unordered_map with a mutex, whose value is copied, in the same run. Values of 100 bytes. Medians
// of rounds.
#include <grpc/grpc.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "cache_watch.h"
#include "supervisor/base/loop.h"
#include "supervisor/cache/cache.h"
#include "supervisor/worker/host.h"
#include "tests/fakes/redis_fixture.h"
#include "worker_cache.h"

namespace {

using bulkhead::Cache;
using bulkhead::Clock;
using bulkhead::HostServer;
using bulkhead::Loop;
using bulkhead::sdk::LevelOne;
using bulkhead::sdk::WorkerCache;

constexpr int kKeys = 10'000, kHotKeys = 100, kRounds = 9;
constexpr size_t kValue = 100;

double ProcessorNanoseconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return double(time.tv_sec) * 1e9 + double(time.tv_nsec);
}

// Processor time of one call, which others on the machine disturb less than the time on the wall.
double NanosecondsEach(int times, int threads, const std::function<void(int thread, int i)>& work) {
  std::vector<double> rounds;
  for (int round = 0; round < kRounds; ++round) {
    std::vector<std::thread> all;
    std::vector<double> took(static_cast<size_t>(threads));
    for (int t = 0; t < threads; ++t) {
      all.emplace_back([&, t] {
        const double begin = ProcessorNanoseconds();
        for (int i = 0; i < times; ++i) work(t, i);
        took[static_cast<size_t>(t)] = (ProcessorNanoseconds() - begin) / times;
      });
    }
    double sum = 0;
    for (int t = 0; t < threads; ++t) {
      all[static_cast<size_t>(t)].join();
      sum += took[static_cast<size_t>(t)];
    }
    rounds.push_back(sum / threads);
  }
  std::nth_element(rounds.begin(), rounds.begin() + kRounds / 2, rounds.end());
  return rounds[kRounds / 2];
}

// The median and the 99th of a hundred calls on the wall, in microseconds.
void Quantiles(const char* what, int times, const std::function<void(int i)>& work) {
  std::vector<double> took;
  for (int i = 0; i < times; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    work(i);
    took.push_back(double((std::chrono::steady_clock::now() - begin).count()) / 1'000);
  }
  std::sort(took.begin(), took.end());
  printf("%-58s %9.1f us  p99 %9.1f us\n", what, took[took.size() / 2], took[took.size() * 99 / 100]);
}

// The other ways to do it: a lock for all, and the value copied.
class PlainMap {
 public:
  void Set(const std::string& key, std::string value) {
    std::lock_guard lock(mutex_);
    map_[key] = std::move(value);
  }
  std::string Get(const std::string& key) {
    std::lock_guard lock(mutex_);
    const auto found = map_.find(key);
    return found == map_.end() ? std::string() : found->second;
  }

 private:
  std::mutex mutex_;
  std::unordered_map<std::string, std::string> map_;
};

size_t sink = 0;

std::unique_ptr<WorkerCache> WorkerOf(const std::string& socket, const char* token) {
  return std::make_unique<WorkerCache>([&](LevelOne& one) { return bulkhead::sdk::MakeHostLevelTwo(socket, token, one); }, bulkhead::sdk::SteadyNow);
}

// A supervisor that keeps nothing itself, so that each lookup of its workers is one of Redis.
void MeasureRedis(Loop& loop, const std::string& socket, const std::vector<std::string>& keys) {
  bulkhead::TestRedis redis;
  auto shared = *Cache::Make(loop, Clock::Real(), {0, 0, "", "", redis.address(), "bench"});
  auto manifest = std::make_shared<bulkhead::Manifest>();
  auto module = std::make_shared<bulkhead::DirectoryModule>();
  module->manifest = manifest;
  auto directory = std::make_shared<bulkhead::Directory>();
  directory->modules["bench"] = module;
  shared->shared().Adopt(directory, [] {});
  while (!shared->shared().RedisUsage()->up) std::this_thread::sleep_for(bulkhead::Millis(1));
  auto host = *HostServer::Listen(socket, {});
  host->ServeCache(shared->shared());
  host->SetInstance("one", "bench", true);
  {
    auto worker = WorkerOf(socket, "one");
    worker->SetMaxBytes(0);
    for (const std::string& key : keys) worker->Set(key, std::string(kValue, 'x'), {.tags = {"prices"}});
    const auto key_of = [&](int i) -> const std::string& { return keys[size_t(i * 31) % keys.size()]; };
    Quantiles("get, found in Redis", 20'000, [&](int i) { sink += worker->Get(key_of(i)).value->size(); });
    Quantiles("set in Redis", 10'000, [&](int i) { worker->Set(key_of(i), std::string(kValue, 'x'), {.tags = {"prices"}}); });
    Quantiles("invalidate in Redis", 10'000, [&](int i) { worker->Invalidate(key_of(i)); });
  }
  {
    auto client = *bulkhead::RedisClient::Open(redis.address(), bulkhead::limits::kRedisGreeting);
    (void)client->Run({{"SET", "plain", std::string(kValue, 'x')}});
    Quantiles("GET of redis-server by itself, over the same socket", 20'000, [&](int) { sink += client->Run({{"GET", "plain"}})->at(0).text.size(); });
  }
  host->Stop();
}

}  // namespace

int main() {
  grpc_init();
  char folder[] = "/tmp/bulkhead-bench-cache-XXXXXX";
  if (mkdtemp(folder) == nullptr) return 1;
  const std::string socket = std::string(folder) + "/host";
  std::vector<std::string> keys;
  for (int i = 0; i < kKeys; ++i) keys.push_back("product/" + std::to_string(i * 7919 % 1'000'000) + "/price");

  Loop loop;
  std::thread loop_thread([&] { loop.Run(); });
  auto shared = *Cache::Make(loop, Clock::Real(), {size_t{256} << 20, size_t{64} << 20, "", ""});
  auto host = *HostServer::Listen(socket, {});
  host->ServeCache(shared->shared());
  host->SetInstance("one", "bench", true);
  host->SetInstance("two", "bench", true);
  {
    auto one = WorkerOf(socket, "one"), two = WorkerOf(socket, "two");
    PlainMap plain;
    for (const std::string& key : keys) {
      plain.Set(key, std::string(kValue, 'x'));
      one->Set(key, std::string(kValue, 'x'), {.tags = {"prices"}});
    }
    // Both have a lease, and the first one everything in its memory.
    for (const std::string& key : keys) {
      one->Get(key);
      two->Get(key);
    }
    size_t among = kKeys;
    const auto key_of = [&](int t, int i) -> const std::string& { return keys[size_t(i * 31 + t * 4'001) % among]; };
    for (const auto& [threads, few] : {std::pair(1, kKeys), std::pair(2, kKeys), std::pair(1, kHotKeys)}) {
      among = size_t(few);
      printf("%d thread%s, %d keys\n", threads, threads == 1 ? "" : "s", few);
      const double map = NanosecondsEach(500'000, threads, [&](int t, int i) { sink += plain.Get(key_of(t, i)).size(); });
      const int64_t before = one->counts().one.hits;
      const double level_one = NanosecondsEach(500'000, threads, [&](int t, int i) { sink += one->Get(key_of(t, i)).value->size(); });
      printf("  get, std::unordered_map and a mutex %32.0f ns\n", map);
      printf("  get, found in the worker's memory %34.0f ns  (%.2f times; %.3f %% of the lookups were)\n", level_one, level_one / map,
             100.0 * double(one->counts().one.hits - before) / (500'000.0 * kRounds * threads));
      const double load = NanosecondsEach(500'000, threads, [&](int t, int i) {
        sink += one->GetOrLoad(key_of(t, i), {}, [] { return std::optional<std::string>("x"); })->size();
      });
      printf("  getOrLoad, found in the worker's memory %28.0f ns\n", load);
    }
    among = kKeys;
    auto without = WorkerOf(socket, "two");
    without->SetMaxBytes(0);
    Quantiles("get, found in the supervisor", 20'000, [&](int i) { sink += without->Get(key_of(0, i)).value->size(); });
    Quantiles("get, found nowhere", 20'000, [&](int i) { sink += without->Get("nothing " + std::to_string(i)).known; });
    Quantiles("getOrLoad of what is nowhere, with a loader that is at once", 10'000, [&](int i) {
      sink += one->GetOrLoad("fresh " + std::to_string(i), {}, [] { return std::optional(std::string(kValue, 'x')); })->size();
    });
    Quantiles("invalidate, until both workers have dropped it", 10'000, [&](int i) {
      one->Get(keys[0]);
      two->Get(keys[0]);
      one->Invalidate(key_of(0, i));
    });
  }
  host->Stop();
  host.reset();
  shared.reset();
  MeasureRedis(loop, socket, keys);
  loop.Stop();
  loop_thread.join();
  unlink(socket.c_str());
  rmdir(folder);
  return sink == 0;
}
