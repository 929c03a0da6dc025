// The Cache that a running module has: level one in this process, level two behind it.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "bulkhead/cache.h"
#include "level_one.h"
#include "level_two.h"

namespace bulkhead::sdk {

class WorkerCache final : public Cache {
 public:
  using Clock = std::function<LevelOne::Nanoseconds()>;
  using MakeTwo = std::function<std::unique_ptr<LevelTwo>(LevelOne& one)>;
  WorkerCache(const MakeTwo& two, Clock now);

  CacheLook Get(std::string_view key) override;
  CacheValue GetOrLoad(std::string_view key, const CacheOptions& options, const CacheLoader& load) override;
  void Set(std::string_view key, std::optional<std::string> value, const CacheOptions& options) override;
  void InvalidateAll(std::vector<std::string> keys, std::vector<std::string> tags) override;
  void Clear() override;
  void SetMaxBytes(size_t bytes) override;

  // After Initialize.
  void Freeze() { frozen_ = true; }
  void Close() { two_->Close(); }
  struct Counts {
    LevelOne::Counts one;
    int64_t shared_hits = 0, misses = 0;
    int64_t lookups() const { return one.hits + shared_hits + misses; }
    double hit_rate() const { return lookups() == 0 ? 0 : 100.0 * double(one.hits + shared_hits) / double(lookups()); }  // percent
  };
  Counts counts();

 private:
  // Level two; what it finds is in level one then.
  LevelTwo::Look Ask(std::string_view key, LevelOne::Nanoseconds now);
  // Level two, else `load`; to whom else waits for it once it is known, and into both levels.
  CacheValue Load(std::string_view key, const CacheOptions& options, const CacheLoader& load, CacheFlight* flight);
  void Drop(const cache::Names& names);
  static std::chrono::milliseconds TimeToLive(const CacheOptions& options, bool nothing);

  const Clock now_;
  LevelOne one_;
  const std::unique_ptr<LevelTwo> two_;  // uses one_
  std::atomic<int64_t> shared_hits_{0}, misses_{0};
  std::atomic<int64_t> joined_{0};  // answered by a load of another thread: hits of level one
  std::atomic<bool> frozen_{false};
};

}  // namespace bulkhead::sdk
