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

absl::StatusOr<HostCache::Look> SharedCache::Get(const std::string& module, const std::string& key) {
  RETURN_IF_ERROR(CheckKey(key));
  const TenantPtr tenant = Of(module);
  const int64_t now = Nanoseconds();
  std::lock_guard lock(tenant->mutex);
  Look look{.version = tenant->version};
  const cache::Entry* entry = tenant->memory.Find(key, now);
  Account(*tenant);  // one that has expired is gone
  if (entry == nullptr) {
    ++tenant->counts.misses;
    return look;
  }
  ++tenant->counts.hits;
  look.found = true;
  look.value = entry->value;
  look.tags = entry->tags;
  if (entry->expires != 0) look.ttl_left = std::max(Millis(1), std::chrono::duration_cast<Millis>(std::chrono::nanoseconds(entry->expires - now)));
  return look;
}

void SharedCache::Set(const std::string& module, NewEntry entry, std::function<void(absl::StatusOr<Stored>)> done) {
  if (absl::Status checked = CheckEntry(entry); !checked.ok()) return done(checked);
  const TenantPtr tenant = Of(module);
  const bool fresh = entry.version == 0;
  const cache::Names names{.keys = {entry.key}};
  auto stored = std::make_shared<Stored>();
  std::vector<CacheWatchers::Completed> completed;
  {
    std::lock_guard lock(tenant->mutex);
    if (fresh) {
      completed = Drop(*tenant, names, [done, stored] { done(*stored); });
      entry.version = tenant->version;
    }
    stored->version = entry.version;
    const int64_t expires = entry.ttl > Millis(0) ? Nanoseconds() + std::chrono::nanoseconds(entry.ttl).count() : 0;
    const auto outcome = tenant->memory.Put({std::move(entry.key), std::move(entry.value), std::move(entry.tags), expires, entry.version});
    stored->stored = outcome == cache::Memory::Outcome::kStored;
    CacheUsage& counts = tenant->counts;
    ++(outcome == cache::Memory::Outcome::kStored ? counts.stored : outcome == cache::Memory::Outcome::kTooLarge ? counts.too_large : counts.overtaken);
    Account(*tenant);
  }
  MakeRoom();
  if (!fresh) return done(*stored);
  if (options_.tell_others) options_.tell_others(module, names);
  if (completed.empty()) Arm(tenant);
  CallAll(completed);
}

void SharedCache::Invalidate(const std::string& module, cache::Names names, std::function<void(absl::StatusOr<int64_t>)> done) {
  if (absl::Status checked = CheckNames(names); !checked.ok()) return done(checked);
  const TenantPtr tenant = Of(module);
  std::vector<CacheWatchers::Completed> completed;
  {
    std::lock_guard lock(tenant->mutex);
    auto version = std::make_shared<int64_t>(0);
    completed = Drop(*tenant, names, [done, version] { done(*version); });
    *version = tenant->version;
  }
  if (options_.tell_others) options_.tell_others(module, names);
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

void SharedCache::Heed(const std::string& module, const cache::Names& names) {
  const TenantPtr tenant = Known(module);
  if (!tenant) return;
  std::lock_guard lock(tenant->mutex);
  Drop(*tenant, names, nullptr);
}

void SharedCache::DropAll(const TenantPtr& tenant) {
  std::lock_guard lock(tenant->mutex);
  Drop(*tenant, {.all = true}, nullptr);
}

void SharedCache::ForgetAll() {
  const auto tenants = tenants_.With([](const auto& all) { return all; });
  for (const auto& [module, tenant] : tenants) DropAll(tenant);
}

void SharedCache::Adopt(std::shared_ptr<const Directory> directory, std::function<void()> adopted) {
  std::map<std::string, std::string> enabled;
  for (const auto& [name, module] : directory->modules) enabled[name] = module->manifest->version;
  const auto changed = [&](const std::string& module) {
    const auto now = enabled.find(module), before = enabled_.find(module);
    const bool is = now != enabled.end(), was = before != enabled_.end();
    return is != was || (is && now->second != before->second);
  };
  const auto tenants = tenants_.With([](const auto& all) { return all; });
  for (const auto& [module, tenant] : tenants) {
    if (changed(module)) DropAll(tenant);
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
