// Level one of the cache: the worker's own memory, in shards with a lock each, and the loads under way there. It may be served from only while it
// holds a lease of the supervisor (Host.WatchCache), which knows of it then and waits for it with each invalidation. Thread-safe.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <vector>

#include "bulkhead/cache/memory.h"

namespace bulkhead::sdk {

// One load, which its first caller does and others of the same key wait for.
class CacheFlight {
 public:
  explicit CacheFlight(std::vector<std::string> tags) : tags(std::move(tags)) {}
  void Land(cache::Bytes value);
  void Fail(std::exception_ptr why);
  // What came of it; throws what the load threw. False: not within `wait`.
  bool Await(std::chrono::milliseconds wait, cache::Bytes& value);

  const std::vector<std::string> tags;
  const std::thread::id leader = std::this_thread::get_id();

 private:
  std::mutex mutex_;
  std::condition_variable done_cv_;
  bool done_ = false;
  cache::Bytes value_;
  std::exception_ptr why_;
};

class LevelOne {
 public:
  static constexpr size_t kShards = 16;
  using Nanoseconds = int64_t;  // of the steady clock

  explicit LevelOne(size_t max_bytes);
  void Resize(size_t max_bytes);

  // Whether there is a lease.
  bool Serves(Nanoseconds now) {
    if (!used_.load(std::memory_order_relaxed)) used_.store(true, std::memory_order_relaxed);
    return now < lease_until_.load(std::memory_order_acquire);
  }
  struct Look {
    bool found = false;
    cache::Bytes value;
  };
  Look Find(std::string_view key, Nanoseconds now);
  // Stored unless it was overtaken.
  void Put(cache::Entry entry);

  // The load of this key that is under way, or a new one, which the caller leads.
  std::shared_ptr<CacheFlight> Join(std::string_view key, const std::vector<std::string>& tags, bool& leads);
  void Leave(std::string_view key, const std::shared_ptr<CacheFlight>& flight);

  // ---- what the supervisor tells ----
  // Drops what is older than `version`, entries and loads.
  void Apply(const cache::Names& names, int64_t version);
  void Grant(Nanoseconds until);
  void Break();   // the lease is over
  void Forget();  // all entries

  bool TakeUsed() { return used_.exchange(false, std::memory_order_relaxed); }  // since the last time
  bool lease_over(Nanoseconds now) const { return now >= lease_until_.load(std::memory_order_relaxed); }
  // False: none within `patience`.
  bool AwaitLease(std::chrono::milliseconds patience, const std::function<Nanoseconds()>& now);

  struct Counts {
    int64_t hits = 0, evictions = 0;
    size_t bytes = 0, entries = 0;
  };
  Counts counts();

 private:
  struct TextHash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  struct alignas(64) Shard {
    std::mutex mutex;
    cache::Memory memory{0};
    std::unordered_map<std::string, std::shared_ptr<CacheFlight>, TextHash, std::equal_to<>> flights;
    int64_t hits = 0;
  };
  Shard& ShardOf(std::string_view key) { return shards_[std::hash<std::string_view>()(key) >> 60]; }

  std::array<Shard, kShards> shards_;
  alignas(64) std::atomic<Nanoseconds> lease_until_{0};
  std::atomic<bool> used_{false};
  std::mutex lease_mutex_;
  std::condition_variable leased_;
};

}  // namespace bulkhead::sdk
