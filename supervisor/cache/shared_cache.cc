#include "supervisor/cache/shared_cache.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "supervisor/base/status.h"
#include "supervisor/base/text.h"

namespace bulkhead {
namespace {

constexpr Millis kLapseCheck{100};  // how late the end of a lease is noticed

absl::Status CheckKey(const std::string& key) {
  if (!key.empty() && key.size() <= cache::kMaxKey) return absl::OkStatus();
  return Error("INVALID_ARGUMENT", absl::StrCat("A key of the cache has 1 to ", cache::kMaxKey, " bytes; this one has ", key.size(), "."));
}

absl::Status CheckTag(const std::string& tag) {
  if (!tag.empty() && tag.size() <= cache::kMaxTag) return absl::OkStatus();
  return Error("INVALID_ARGUMENT", absl::StrCat("A tag of the cache has 1 to ", cache::kMaxTag, " bytes; this one has ", tag.size(), "."));
}

absl::Status CheckEntry(const HostCache::NewEntry& entry) {
  RETURN_IF_ERROR(CheckKey(entry.key));
  for (const std::string& tag : entry.tags) RETURN_IF_ERROR(CheckTag(tag));
  if (entry.tags.size() > cache::kMaxTags)
    return Error("INVALID_ARGUMENT", absl::StrCat("A value of the cache has at most ", cache::kMaxTags, " tags; this one has ", entry.tags.size(), "."));
  if (entry.value && entry.value->size() > cache::kMaxValue) {
    return Error("INVALID_ARGUMENT",
                 absl::StrCat("A value of the cache has at most ", cache::kMaxValue, " bytes; this one has ", entry.value->size(), "."));
  }
  if (entry.ttl < Millis(0) || entry.version < 0) return Error("INVALID_ARGUMENT", "A time to live and a version are not negative.");
  return absl::OkStatus();
}

absl::Status CheckNames(const cache::Names& names) {
  if (names.keys.size() + names.tags.size() > cache::kMaxNames)
    return Error("INVALID_ARGUMENT", absl::StrCat("At most ", cache::kMaxNames, " keys and tags can be invalidated at a time."));
  for (const std::string& key : names.keys) RETURN_IF_ERROR(CheckKey(key));
  for (const std::string& tag : names.tags) RETURN_IF_ERROR(CheckTag(tag));
  return absl::OkStatus();
}

void CallAll(const std::vector<CacheWatchers::Completed>& completed) {
  for (const auto& one : completed) one();
}

// Calls when so many have said that they are done.
class Awaited {
 public:
  Awaited(int parts, std::function<void()> all) : left_(parts), all_(std::move(all)) {}
  void Done() {
    if (left_.fetch_sub(1) == 1) all_();
  }

 private:
  std::atomic<int> left_;
  const std::function<void()> all_;
};

}  // namespace

// The first version is the time in microseconds: what an earlier supervisor gave out is below.
SharedCache::SharedCache(const Clock& clock, Options options)
    : clock_(clock),
      options_(std::move(options)),
      version_(std::chrono::duration_cast<std::chrono::microseconds>(clock.Wall().time_since_epoch()).count()) {}

SharedCache::TenantPtr SharedCache::Of(const std::string& module) {
  return tenants_.With([&](auto& all) {
    TenantPtr& tenant = all[module];
    if (!tenant) {
      tenant = std::make_shared<Tenant>(std::min(options_.max_bytes, options_.max_bytes_per_module), NextVersion());
      tenant->counts.module = module;
    }
    return tenant;
  });
}

SharedCache::TenantPtr SharedCache::Known(const std::string& module) const {
  return tenants_.With([&](const auto& all) {
    const auto found = all.find(module);
    return found == all.end() ? nullptr : found->second;
  });
}

void SharedCache::Account(Tenant& tenant) {
  const size_t now = tenant.memory.bytes(), before = tenant.bytes.exchange(now);
  bytes_.fetch_add(now - before);  // modulo 2^64
}

void SharedCache::Get(const std::string& module, const std::string& key, std::function<void(absl::StatusOr<Look>)> done) {
  if (absl::Status checked = CheckKey(key); !checked.ok()) return done(checked);
  const TenantPtr tenant = Of(module);
  const int64_t now = Nanoseconds();
  Look look;
  {
    std::lock_guard lock(tenant->mutex);
    look.version = tenant->version;
    const cache::Entry* entry = tenant->memory.Find(key, now);
    Account(*tenant);  // one that has expired is gone
    ++(entry != nullptr ? tenant->counts.hits : tenant->counts.misses);
    if (entry != nullptr) {
      look.found = true;
      look.value = entry->value;
      look.tags = entry->tags;
      if (entry->expires != 0) look.ttl_left = std::max(Millis(1), std::chrono::duration_cast<Millis>(std::chrono::nanoseconds(entry->expires - now)));
    } else if (RedisLevel* redis = RedisOf(*tenant)) {
      const bool asked = redis->Get(tenant->space, key, [this, tenant, key, version = look.version, done](RedisLevel::Found found) {
        done(FromRedis(tenant, key, version, std::move(found)));
      });
      if (asked) return;
    }
  }
  done(std::move(look));
}

// What Redis had when the cache was at `version`.
HostCache::Look SharedCache::FromRedis(const TenantPtr& tenant, const std::string& key, int64_t version, RedisLevel::Found found) {
  Look look{.found = found.found, .value = std::move(found.value), .tags = std::move(found.tags), .ttl_left = found.ttl_left, .version = version};
  {
    std::lock_guard lock(tenant->mutex);
    if (found.answered) ++(look.found ? tenant->counts.redis_hits : tenant->counts.redis_misses);
    if (!look.found) {
      // What is loaded now is as new as Redis is, or newer.
      look.version = found.answered ? VersionAt(*tenant, found.stamp) : tenant->version;
      return look;
    }
    const int64_t expires = look.ttl_left > Millis(0) ? Nanoseconds() + std::chrono::nanoseconds(look.ttl_left).count() : 0;
    tenant->memory.Put({key, look.value, look.tags, expires, version});
    Account(*tenant);
  }
  MakeRoom();
  return look;
}

// A version has its stamp from when it is first given out. One that was given out without, while Redis was away or by an invalidation, gets none later:
// what was read meanwhile may be older.
int64_t SharedCache::VersionAt(Tenant& tenant, const RedisLevel::Stamp& stamp) {
  const auto found = tenant.stamps.find(tenant.version);
  if (found != tenant.stamps.end() && found->second == stamp) return tenant.version;
  tenant.version = NextVersion();
  tenant.stamps.emplace(tenant.version, stamp);
  if (tenant.stamps.size() > limits::kMaxCacheStamps) tenant.stamps.erase(tenant.stamps.begin());
  return tenant.version;
}

void SharedCache::TellOthers(const std::string& module, const cache::Names& names, bool applied) {
  if (options_.tell_others) options_.tell_others(module, names, !applied);
}

void SharedCache::Set(const std::string& module, NewEntry entry, std::function<void(absl::StatusOr<Stored>)> done) {
  if (absl::Status checked = CheckEntry(entry); !checked.ok()) return done(checked);
  const TenantPtr tenant = Of(module);
  const bool fresh = entry.version == 0;
  const cache::Names names{.keys = {entry.key}};
  auto stored = std::make_shared<Stored>();
  const auto both = std::make_shared<Awaited>(2, [done, stored] { done(*stored); });
  bool asked = false;
  std::vector<CacheWatchers::Completed> completed;
  {
    std::lock_guard lock(tenant->mutex);
    RedisLevel* const redis = RedisOf(*tenant);
    if (fresh) {
      completed = Drop(*tenant, names, [both] { both->Done(); });
      entry.version = tenant->version;
      asked = redis != nullptr && redis->Set(tenant->space, entry, [this, module, names, both](bool applied) {
        TellOthers(module, names, applied);
        both->Done();
      });
    }
    stored->version = entry.version;
    const int64_t expires = entry.ttl > Millis(0) ? Nanoseconds() + std::chrono::nanoseconds(entry.ttl).count() : 0;
    const auto outcome = tenant->memory.Put({entry.key, entry.value, entry.tags, expires, entry.version});
    stored->stored = outcome == cache::Memory::Outcome::kStored;
    if (!fresh && redis != nullptr && outcome != cache::Memory::Outcome::kOvertaken) {
      if (const auto stamp = tenant->stamps.find(entry.version); stamp != tenant->stamps.end()) redis->Fill(tenant->space, entry, stamp->second);
    }
    CacheUsage& counts = tenant->counts;
    ++(outcome == cache::Memory::Outcome::kStored ? counts.stored : outcome == cache::Memory::Outcome::kTooLarge ? counts.too_large : counts.overtaken);
    Account(*tenant);
  }
  MakeRoom();
  if (!fresh) return done(*stored);
  if (!asked) {
    TellOthers(module, names, false);
    both->Done();
  }
  if (completed.empty()) Arm(tenant);
  CallAll(completed);
}

void SharedCache::Invalidate(const std::string& module, cache::Names names, std::function<void(absl::StatusOr<int64_t>)> done) {
  if (absl::Status checked = CheckNames(names); !checked.ok()) return done(checked);
  const TenantPtr tenant = Of(module);
  std::vector<CacheWatchers::Completed> completed;
  auto version = std::make_shared<int64_t>(0);
  const auto both = std::make_shared<Awaited>(2, [done, version] { done(*version); });
  bool asked = false;
  {
    std::lock_guard lock(tenant->mutex);
    completed = Drop(*tenant, names, [both] { both->Done(); });
    *version = tenant->version;
    RedisLevel* const redis = RedisOf(*tenant);
    asked = redis != nullptr && redis->Invalidate(tenant->space, names, [this, module, names, both](bool applied) {
      TellOthers(module, names, applied);
      both->Done();
    });
  }
  if (!asked) {
    TellOthers(module, names, false);
    both->Done();
  }
  if (completed.empty()) Arm(tenant);
  CallAll(completed);
}

std::vector<CacheWatchers::Completed> SharedCache::Drop(Tenant& tenant, const cache::Names& names, CacheWatchers::Completed completed) {
  tenant.version = NextVersion();
  tenant.memory.Invalidate(names, tenant.version);
  ++tenant.counts.invalidations;
  Account(tenant);
  return tenant.watchers.Tell(names, tenant.version, clock_.Now(), std::move(completed));
}

// One timer at a time for a module, and only while somebody is waited for.
void SharedCache::Arm(const TenantPtr& tenant) {
  if (!options_.after) return;
  {
    std::lock_guard lock(tenant->mutex);
    if (tenant->timer || !tenant->watchers.next_lapse()) return;
    tenant->timer = true;
  }
  options_.after(kLapseCheck, [this, tenant] {
    std::vector<CacheWatchers::Completed> completed;
    {
      std::lock_guard lock(tenant->mutex);
      tenant->timer = false;
      completed = tenant->watchers.Lapse(clock_.Now());
    }
    CallAll(completed);
    Arm(tenant);
  });
}

void SharedCache::Watch(const std::string& module, const std::string& worker, std::shared_ptr<Watcher> watcher) {
  const TenantPtr tenant = Of(module);
  std::lock_guard lock(tenant->mutex);
  tenant->watchers.Add(std::move(watcher), worker, tenant->version);
}

void SharedCache::Heard(const std::string& module, const Watcher* watcher, int64_t seen, int64_t renew) {
  const TenantPtr tenant = Of(module);
  std::vector<CacheWatchers::Completed> completed;
  {
    std::lock_guard lock(tenant->mutex);
    completed = tenant->watchers.Heard(watcher, seen, renew, tenant->version, clock_.Now());
  }
  CallAll(completed);
}

void SharedCache::Unwatch(const std::string& module, const Watcher* watcher) {
  const TenantPtr tenant = Of(module);
  std::lock_guard lock(tenant->mutex);
  tenant->watchers.Remove(watcher, clock_.Now());
}

void SharedCache::Gone(const std::string& module, const std::string& worker) {
  const TenantPtr tenant = Known(module);
  if (!tenant) return;
  std::vector<CacheWatchers::Completed> completed;
  {
    std::lock_guard lock(tenant->mutex);
    completed = tenant->watchers.Gone(worker);
  }
  CallAll(completed);
}

void SharedCache::Heed(const std::string& module, const cache::Names& names, bool missed) {
  const TenantPtr tenant = Known(module);
  if (!tenant) return;
  std::lock_guard lock(tenant->mutex);
  Drop(*tenant, names, nullptr);
  // Lookups from here on come to Redis behind it.
  if (RedisLevel* redis = missed ? RedisOf(*tenant) : nullptr) (void)redis->Invalidate(tenant->space, names, [](bool) {});
}

void SharedCache::ForgetAll() {
  const auto tenants = tenants_.With([](const auto& all) { return all; });
  for (const auto& [module, tenant] : tenants) {
    std::lock_guard lock(tenant->mutex);
    Drop(*tenant, {.all = true}, nullptr);
  }
}

// What a module's is called in Redis has in it when it was enabled, and its version: so all nodes begin anew there, with nothing to be told.
void SharedCache::Adopt(std::shared_ptr<const Directory> directory, std::function<void()> adopted) {
  std::map<std::string, std::string> enabled;
  for (const auto& [name, module] : directory->modules) {
    const auto since = std::chrono::duration_cast<std::chrono::microseconds>(module->enabled_at.value_or(WallTime()).time_since_epoch());
    enabled[name] = absl::StrCat(name, " ", module->manifest->version, " ", since.count());
    if (options_.redis) Of(name);  // other nodes may tell of it before a worker here does
  }
  const auto tenants = tenants_.With([](const auto& all) { return all; });
  for (const auto& [module, tenant] : tenants) {
    const auto now = enabled.find(module), before = enabled_.find(module);
    const std::string is = now == enabled.end() ? "" : now->second, was = before == enabled_.end() ? "" : before->second;
    if (is == was) continue;
    std::lock_guard lock(tenant->mutex);
    tenant->space = is;
    tenant->stamps.clear();
    Drop(*tenant, {.all = true}, nullptr);
    // Another version takes over, which may have been here before.
    if (options_.redis && !is.empty() && !was.empty()) (void)options_.redis->Invalidate(is, {.all = true}, [](bool) {});
  }
  enabled_ = std::move(enabled);
  adopted();
}

// Beyond the bound for all, the module with the most gives way.
void SharedCache::MakeRoom() {
  while (bytes_.load() > options_.max_bytes) {
    const TenantPtr largest = tenants_.With([](const auto& all) {
      TenantPtr most;
      for (const auto& [module, tenant] : all) {
        if (!most || tenant->bytes.load() > most->bytes.load()) most = tenant;
      }
      return most;
    });
    if (!largest) return;
    std::lock_guard lock(largest->mutex);
    const bool evicted = largest->memory.EvictOne();
    Account(*largest);
    if (!evicted) return;
  }
}

std::vector<CacheUsage> SharedCache::Usage() const {
  const auto tenants = tenants_.With([](const auto& all) { return all; });
  std::vector<CacheUsage> usage;
  for (const auto& [module, tenant] : tenants) {
    std::lock_guard lock(tenant->mutex);
    usage.push_back(tenant->counts);
    usage.back().evictions = tenant->memory.evictions();
    usage.back().bytes = tenant->memory.bytes();
    usage.back().entries = tenant->memory.entries();
  }
  return usage;
}

}  // namespace bulkhead
