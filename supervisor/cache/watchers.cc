#include "supervisor/cache/watchers.h"

#include <algorithm>
#include <utility>

namespace bulkhead {

void CacheWatchers::Add(std::shared_ptr<HostCache::Watcher> watcher, std::string worker, int64_t version) {
  watcher->Tell({.version = version});
  const HostCache::Watcher* key = watcher.get();
  watchers_[key] = {.port = std::move(watcher), .worker = std::move(worker)};
}

void CacheWatchers::Remove(const HostCache::Watcher* watcher, Instant now) {
  const auto known = watchers_.find(watcher);
  if (known == watchers_.end()) return;
  if (known->second.lease_until <= now) {
    watchers_.erase(known);
  } else {
    known->second.left = true;
  }
}

std::vector<CacheWatchers::Completed> CacheWatchers::Gone(const std::string& worker) {
  std::erase_if(watchers_, [&](const auto& entry) {
    if (entry.second.worker != worker) return false;
    for (Pending& one : pending_) one.waits_for.erase(entry.first);
    return true;
  });
  return Settle();
}

std::vector<CacheWatchers::Completed> CacheWatchers::Heard(const HostCache::Watcher* watcher, int64_t seen, int64_t renew, int64_t version, Instant now) {
  const auto known = watchers_.find(watcher);
  if (known == watchers_.end() || known->second.left) return {};
  if (renew > 0) {
    // Behind everything that it has been told: when it has the lease, it has dropped all that.
    known->second.lease_until = now + limits::kCacheLease;
    known->second.port->Tell({.version = version, .renewed = renew, .lease = limits::kCacheLease});
  }
  for (Pending& one : pending_) {
    if (one.version <= seen) one.waits_for.erase(watcher);
  }
  return Settle();
}

std::vector<CacheWatchers::Completed> CacheWatchers::Tell(const cache::Names& names, int64_t version, Instant now, Completed completed) {
  Pending one{version, {}, std::move(completed)};
  for (const auto& [key, watched] : watchers_) {
    if (!watched.left) watched.port->Tell({.version = version, .names = names});
    if (watched.lease_until > now) one.waits_for[key] = watched.lease_until;
  }
  pending_.push_back(std::move(one));
  return Settle();
}

std::vector<CacheWatchers::Completed> CacheWatchers::Lapse(Instant now) {
  for (Pending& one : pending_) std::erase_if(one.waits_for, [&](const auto& waits) { return waits.second <= now; });
  std::erase_if(watchers_, [&](const auto& entry) { return entry.second.left && entry.second.lease_until <= now; });
  return Settle();
}

std::optional<Instant> CacheWatchers::next_lapse() const {
  std::optional<Instant> next;
  for (const Pending& one : pending_) {
    for (const auto& [watcher, until] : one.waits_for) next = next ? std::min(*next, until) : until;
  }
  return next;
}

std::vector<CacheWatchers::Completed> CacheWatchers::Settle() {
  std::vector<Completed> completed;
  std::erase_if(pending_, [&](Pending& one) {
    if (!one.waits_for.empty()) return false;
    if (one.completed) completed.push_back(std::move(one.completed));
    return true;
  });
  return completed;
}

}  // namespace bulkhead
