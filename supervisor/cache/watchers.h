// The workers of one module that keep cached values in their own memory, and the invalidations that wait for them. A worker may serve from its memory
// only while it holds a lease; so an invalidation is complete when each worker that held one has said that it has dropped what was named, or its
// lease is over. Pure; not thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "supervisor/worker/host_cache.h"

namespace bulkhead {

namespace limits {
// How long a worker serves from its memory without asking again: so long an invalidation waits for one that does not answer.
inline constexpr Millis kCacheLease{2'000};
}  // namespace limits

class CacheWatchers {
 public:
  using Completed = std::function<void()>;

  void Add(std::shared_ptr<HostCache::Watcher> watcher, std::string worker, int64_t version);
  // It is told nothing any more. It may not know yet that its stream has ended, so its lease still counts.
  void Remove(const HostCache::Watcher* watcher, Instant now);
  // The worker's process has ended. What this, or a call below, completes is handed back, to be called without locks.
  std::vector<Completed> Gone(const std::string& worker);
  std::vector<Completed> Heard(const HostCache::Watcher* watcher, int64_t seen, int64_t renew, int64_t version, Instant now);
  // Tells all of it. `completed` may be empty; handed back at once when nobody has to be waited for.
  std::vector<Completed> Tell(const cache::Names& names, int64_t version, Instant now, Completed completed);
  // Those whose leases are over are not waited for any more.
  std::vector<Completed> Lapse(Instant now);
  // When Lapse has something to do next.
  std::optional<Instant> next_lapse() const;

 private:
  struct Watched {
    std::shared_ptr<HostCache::Watcher> port;
    std::string worker;
    Instant lease_until{};
    bool left = false;
  };
  struct Pending {
    int64_t version = 0;
    std::map<const HostCache::Watcher*, Instant> waits_for;  // until when at most
    Completed completed;
  };
  // Takes out what nobody is waited for any more.
  std::vector<Completed> Settle();

  std::map<const HostCache::Watcher*, Watched> watchers_;
  std::vector<Pending> pending_;
};

}  // namespace bulkhead
