// Level two of the modules' cache: what the workers of one module share on this node, in memory, bounded by bytes for each module and for all, and behind
// that in Redis, where it is configured, what the nodes share. A module's cache is emptied when it is enabled, disabled or deleted and when another version
// of it takes over.
//
// Versions grow with each invalidation and are never used twice, also not by the next supervisor: by them a value that was read before an
// invalidation and comes after it is refused, here (CacheSet.version) and in the memory of the workers (WatchCache). To each belongs how far the
// invalidations in Redis were when it was given out, by which Redis refuses the same.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "supervisor/base/clock.h"
#include "supervisor/base/guarded.h"
#include "supervisor/cache/redis_level.h"
#include "supervisor/cache/watchers.h"
#include "supervisor/lifecycle/directory.h"
#include "supervisor/worker/host_cache.h"

namespace bulkhead {

// What a module's cache has done since it was first asked. Levels of counters of one moment.
struct CacheUsage {
  std::string module;
  int64_t hits = 0, misses = 0;                      // in the memory of this node
  int64_t redis_hits = 0, redis_misses = 0;          // of these misses, those that Redis was asked about and has answered
  int64_t stored = 0, overtaken = 0, too_large = 0;  // of what was set
  int64_t invalidations = 0;                         // also by other nodes, and by a set
  int64_t evictions = 0;
  size_t bytes = 0, entries = 0;
};

namespace limits {
inline constexpr size_t kMaxCacheStamps = 4'096;  // versions of one module whose fills Redis still takes; older ones stay on their node
}  // namespace limits

// Thread-safe; holds no lock while it calls `completed`s.
class SharedCache final : public HostCache, public DirectoryReader {
 public:
  struct Options {
    size_t max_bytes = 0, max_bytes_per_module = 0;
    // Calls back after a time, on any thread. Where there is no one to be waited for it is not used.
    std::function<void(Millis, std::function<void()>)> after;
    // An invalidation of ours, for the other nodes, once Redis has it, or where it is not told (`missed`: it is away, or not configured here); may be
    // empty. Must not block.
    std::function<void(const std::string& module, const cache::Names& names, bool missed)> tell_others;
    RedisLevel* redis = nullptr;  // null: none. Outlives the cache
  };
  SharedCache(const Clock& clock, Options options);

  void Get(const std::string& module, const std::string& key, std::function<void(absl::StatusOr<Look>)> done) override;
  void Set(const std::string& module, NewEntry entry, std::function<void(absl::StatusOr<Stored>)> done) override;
  void Invalidate(const std::string& module, cache::Names names, std::function<void(absl::StatusOr<int64_t>)> done) override;
  void Watch(const std::string& module, const std::string& worker, std::shared_ptr<Watcher> watcher) override;
  void Heard(const std::string& module, const Watcher* watcher, int64_t seen, int64_t renew) override;
  void Unwatch(const std::string& module, const Watcher* watcher) override;
  void Gone(const std::string& module, const std::string& worker) override;

  // What another node has invalidated. `missed`: it could not tell Redis, so this one does.
  void Heed(const std::string& module, const cache::Names& names, bool missed);
  // Something of other nodes may have been missed.
  void ForgetAll();

  void Adopt(std::shared_ptr<const Directory> directory, std::function<void()> adopted) override;
  void Drain(const std::string& /*instance*/, std::function<void()> drained) override { drained(); }

  std::vector<CacheUsage> Usage() const;  // by module
  // Nullopt: Redis is not configured.
  std::optional<RedisLevel::Usage> RedisUsage() const { return options_.redis ? std::optional(options_.redis->usage()) : std::nullopt; }
  size_t max_bytes() const { return options_.max_bytes; }
  size_t bytes() const { return bytes_.load(std::memory_order_relaxed); }

 private:
  // Everything of one module, under its own lock.
  struct Tenant {
    Tenant(size_t max_bytes, int64_t version) : memory(max_bytes, version), version(version) {}
    std::mutex mutex;
    cache::Memory memory;
    CacheWatchers watchers;
    int64_t version;
    CacheUsage counts;
    std::string space;                            // what the module's is called in Redis; empty: it is not enabled, and nothing of it is there
    std::map<int64_t, RedisLevel::Stamp> stamps;  // by version
    bool timer = false;                           // runs
    std::atomic<size_t> bytes{0};  // of the memory, readable without the lock
  };
  using TenantPtr = std::shared_ptr<Tenant>;

  TenantPtr Of(const std::string& module);
  TenantPtr Known(const std::string& module) const;  // null: nothing was ever asked of it
  int64_t NextVersion() { return version_.fetch_add(1) + 1; }
  int64_t Nanoseconds() const { return clock_.Now().time_since_epoch().count(); }
  // Under the lock of the tenant: drops, tells the watchers; returns what is to be called without it.
  std::vector<CacheWatchers::Completed> Drop(Tenant& tenant, const cache::Names& names, CacheWatchers::Completed completed);
  RedisLevel* RedisOf(const Tenant& tenant) const { return tenant.space.empty() ? nullptr : options_.redis; }
  Look FromRedis(const TenantPtr& tenant, const std::string& key, int64_t version, RedisLevel::Found found);
  int64_t VersionAt(Tenant& tenant, const RedisLevel::Stamp& stamp);
  void TellOthers(const std::string& module, const cache::Names& names, bool applied);
  void Account(Tenant& tenant);  // the same lock
  void MakeRoom();
  void Arm(const TenantPtr& tenant);

  const Clock& clock_;
  const Options options_;
  std::atomic<int64_t> version_;
  std::atomic<size_t> bytes_{0};
  Guarded<std::map<std::string, TenantPtr>> tenants_;
  std::map<std::string, std::string> enabled_;  // module → space, of the last Directory; control loop
};

}  // namespace bulkhead
