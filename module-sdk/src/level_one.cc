#include "level_one.h"

#include <algorithm>
#include <utility>

namespace bulkhead::sdk {

static_assert(LevelOne::kShards == 16 && sizeof(size_t) == 8, "a shard is the upper four bits of a hash");

void CacheFlight::Land(cache::Bytes value) {
  {
    std::lock_guard lock(mutex_);
    done_ = true;
    value_ = std::move(value);
  }
  done_cv_.notify_all();
}

void CacheFlight::Fail(std::exception_ptr why) {
  {
    std::lock_guard lock(mutex_);
    if (done_) return;
    done_ = true;
    why_ = std::move(why);
  }
  done_cv_.notify_all();
}

bool CacheFlight::Await(std::chrono::milliseconds wait, cache::Bytes& value) {
  std::unique_lock lock(mutex_);
  if (!done_cv_.wait_for(lock, wait, [this] { return done_; })) return false;
  if (why_) std::rethrow_exception(why_);
  value = value_;
  return true;
}

LevelOne::LevelOne(size_t max_bytes) { Resize(max_bytes); }

void LevelOne::Resize(size_t max_bytes) {
  for (Shard& shard : shards_) {
    std::lock_guard lock(shard.mutex);
    shard.memory.Resize(max_bytes / kShards);
  }
}

LevelOne::Look LevelOne::Find(std::string_view key, Nanoseconds now) {
  Shard& shard = ShardOf(key);
  std::lock_guard lock(shard.mutex);
  const cache::Entry* entry = shard.memory.Find(key, now);
  if (entry == nullptr) return {};
  ++shard.hits;
  return {true, entry->value};
}

void LevelOne::Put(cache::Entry entry) {
  Shard& shard = ShardOf(entry.key);
  std::lock_guard lock(shard.mutex);
  shard.memory.Put(std::move(entry));
}

std::shared_ptr<CacheFlight> LevelOne::Join(std::string_view key, const std::vector<std::string>& tags, bool& leads) {
  Shard& shard = ShardOf(key);
  std::lock_guard lock(shard.mutex);
  auto found = shard.flights.find(key);
  leads = found == shard.flights.end();
  if (!leads) return found->second;
  return shard.flights.emplace(std::string(key), std::make_shared<CacheFlight>(tags)).first->second;
}

void LevelOne::Leave(std::string_view key, const std::shared_ptr<CacheFlight>& flight) {
  Shard& shard = ShardOf(key);
  std::lock_guard lock(shard.mutex);
  auto found = shard.flights.find(key);
  if (found != shard.flights.end() && found->second == flight) shard.flights.erase(found);
}

void LevelOne::Apply(const cache::Names& names, int64_t version) {
  const auto named = [&](const auto& flight) {
    return names.all || std::find(names.keys.begin(), names.keys.end(), flight.first) != names.keys.end() ||
           std::any_of(flight.second->tags.begin(), flight.second->tags.end(),
                       [&](const std::string& tag) { return std::find(names.tags.begin(), names.tags.end(), tag) != names.tags.end(); });
  };
  const bool one_key = !names.all && names.tags.empty() && names.keys.size() == 1;
  for (Shard& shard : shards_) {
    if (one_key && &shard != &ShardOf(names.keys[0])) continue;
    std::lock_guard lock(shard.mutex);
    shard.memory.Invalidate(names, version);
    // Who waits for them has begun before; who comes now loads anew.
    std::erase_if(shard.flights, named);
  }
}

void LevelOne::Grant(Nanoseconds until) {
  {
    std::lock_guard lock(lease_mutex_);
    lease_until_.store(until, std::memory_order_release);
  }
  leased_.notify_all();
}

void LevelOne::Break() { lease_until_.store(0, std::memory_order_release); }

void LevelOne::Forget() {
  for (Shard& shard : shards_) {
    std::lock_guard lock(shard.mutex);
    shard.memory.Forget();
  }
}

bool LevelOne::AwaitLease(std::chrono::milliseconds patience, const std::function<Nanoseconds()>& now) {
  std::unique_lock lock(lease_mutex_);
  return leased_.wait_for(lock, patience, [&] { return !lease_over(now()); });
}

LevelOne::Counts LevelOne::counts() {
  Counts sum;
  for (Shard& shard : shards_) {
    std::lock_guard lock(shard.mutex);
    sum.hits += shard.hits;
    sum.evictions += shard.memory.evictions();
    sum.bytes += shard.memory.bytes();
    sum.entries += shard.memory.entries();
  }
  return sum;
}

}  // namespace bulkhead::sdk
