#include "worker_cache.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "json_text.h"

namespace bulkhead::sdk {
namespace {

// How long a load waits for the lease that lets others join it: about what a stream needs to be opened. Without one everybody loads for himself,
// because nobody would tell that what is being loaded is out of date.
constexpr std::chrono::milliseconds kLeasePatience{100};
constexpr size_t kMaxOwnBytes = size_t{64} << 30;

static_assert(kMaxCacheKey == cache::kMaxKey && kMaxCacheValue == cache::kMaxValue && kMaxCacheTags == cache::kMaxTags && kMaxCacheTag == cache::kMaxTag);

void CheckCacheText(const char* what, std::string_view text, size_t most) {
  if (text.empty() || text.size() > most || Utf8(text) != text)
    throw std::invalid_argument(std::string("a ") + what + " of the cache is UTF-8 of 1 to " + std::to_string(most) + " bytes");
}

void CheckCacheOptions(const CacheOptions& options) {
  if (options.tags.size() > kMaxCacheTags) throw std::invalid_argument("a value of the cache has at most 16 tags");
  for (const std::string& tag : options.tags) CheckCacheText("tag", tag, kMaxCacheTag);
  if (options.ttl.count() < 0 || options.negative_ttl.count() < 0 || !(options.jitter >= 0 && options.jitter <= 1))
    throw std::invalid_argument("a time to live is not negative, and its jitter is 0 to 1");
}

// 0 to 1. Not for secrets.
double RandomUnit() {
  thread_local uint64_t state =
      std::hash<std::thread::id>()(std::this_thread::get_id()) ^ uint64_t(std::chrono::steady_clock::now().time_since_epoch().count());
  uint64_t z = state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return double((z ^ (z >> 31)) >> 11) * 0x1.0p-53;
}

// The end of a time to live; 0: none.
LevelOne::Nanoseconds EndOf(LevelOne::Nanoseconds now, std::chrono::milliseconds ttl) {
  constexpr std::chrono::milliseconds kLongest{std::chrono::hours(24 * 3650)};
  return ttl.count() == 0 ? 0 : now + std::chrono::nanoseconds(std::min(ttl, kLongest)).count();
}

}  // namespace

WorkerCache::WorkerCache(const MakeTwo& two, Clock now) : now_(std::move(now)), one_(kDefaultCacheBytes), two_(two(one_)) {}

CacheLook WorkerCache::Get(std::string_view key) {
  const auto now = now_();
  if (one_.Serves(now)) {
    if (LevelOne::Look look = one_.Find(key, now); look.found) return {true, std::move(look.value)};
  } else {
    two_->WantLease();
  }
  CheckCacheText("key", key, kMaxCacheKey);
  LevelTwo::Look look = Ask(key, now);
  if (!look.found) misses_.fetch_add(1, std::memory_order_relaxed);
  return {look.found, std::move(look.value)};
}

LevelTwo::Look WorkerCache::Ask(std::string_view key, LevelOne::Nanoseconds now) {
  LevelTwo::Look look = two_->Get(key);
  if (!look.found) return look;
  shared_hits_.fetch_add(1, std::memory_order_relaxed);
  one_.Put({std::string(key), look.value, look.tags, EndOf(now, look.ttl_left), look.version});
  return look;
}

CacheValue WorkerCache::GetOrLoad(std::string_view key, const CacheOptions& options, const CacheLoader& load) {
  const auto now = now_();
  bool leased = one_.Serves(now);
  if (leased) {
    if (LevelOne::Look look = one_.Find(key, now); look.found) return std::move(look.value);
  }
  CheckCacheText("key", key, kMaxCacheKey);
  CheckCacheOptions(options);
  if (!leased) {
    two_->WantLease();
    leased = one_.AwaitLease(kLeasePatience, now_);
  }
  if (!leased) return Load(key, options, load, nullptr);
  bool leads = false;
  const std::shared_ptr<CacheFlight> flight = one_.Join(key, options.tags, leads);
  if (!leads) {
    if (flight->leader == std::this_thread::get_id()) throw std::logic_error("a loader asks the cache for the key that it loads");
    CacheValue value;
    if (!flight->Await(options.wait, value)) throw CacheTimeout(key);
    joined_.fetch_add(1, std::memory_order_relaxed);
    return value;
  }
  try {
    // The load of another may have ended between the look above and Join: what it got is there then.
    LevelOne::Look look = one_.Find(key, now);
    CacheValue value = look.found ? std::move(look.value) : Load(key, options, load, flight.get());
    if (look.found) flight->Land(value);
    one_.Leave(key, flight);
    return value;
  } catch (...) {
    one_.Leave(key, flight);
    flight->Fail(std::current_exception());
    throw;
  }
}

CacheValue WorkerCache::Load(std::string_view key, const CacheOptions& options, const CacheLoader& load, CacheFlight* flight) {
  LevelTwo::Look look = Ask(key, now_());
  CacheValue value = std::move(look.value);
  if (!look.found) {
    misses_.fetch_add(1, std::memory_order_relaxed);
    if (std::optional<std::string> loaded = load()) value = std::make_shared<const std::string>(*std::move(loaded));
  }
  if (flight != nullptr) flight->Land(value);
  if (look.found || !look.answered || (value && value->size() > kMaxCacheValue)) return value;
  const auto ttl = TimeToLive(options, value == nullptr);
  cache::Entry entry{std::string(key), value, options.tags, EndOf(now_(), ttl), look.version};
  try {
    two_->Set(entry, ttl);
  } catch (const HostError&) {
    // It is not there for the others; that is all.
  }
  one_.Put(std::move(entry));
  return value;
}

void WorkerCache::Set(std::string_view key, std::optional<std::string> value, const CacheOptions& options) {
  CheckCacheText("key", key, kMaxCacheKey);
  CheckCacheOptions(options);
  if (value && value->size() > kMaxCacheValue) throw std::invalid_argument("a value of the cache has at most 1,000,000 bytes");
  const auto ttl = TimeToLive(options, !value);
  cache::Entry entry{std::string(key), value ? std::make_shared<const std::string>(*std::move(value)) : nullptr, options.tags, EndOf(now_(), ttl), 0};
  try {
    entry.version = two_->Set(entry, ttl);
  } catch (const HostError&) {
    one_.Forget();
    throw;
  }
  one_.Put(std::move(entry));
}

void WorkerCache::InvalidateAll(std::vector<std::string> keys, std::vector<std::string> tags) {
  for (const std::string& key : keys) CheckCacheText("key", key, kMaxCacheKey);
  for (const std::string& tag : tags) CheckCacheText("tag", tag, kMaxCacheTag);
  // In pieces that the supervisor takes.
  cache::Names piece;
  const auto add = [&](std::vector<std::string>& to, std::string name) {
    to.push_back(std::move(name));
    if (piece.keys.size() + piece.tags.size() == cache::kMaxNames) Drop(std::exchange(piece, {}));
  };
  for (std::string& key : keys) add(piece.keys, std::move(key));
  for (std::string& tag : tags) add(piece.tags, std::move(tag));
  if (!piece.keys.empty() || !piece.tags.empty()) Drop(piece);
}

void WorkerCache::Clear() { Drop({.all = true}); }

void WorkerCache::Drop(const cache::Names& names) {
  try {
    two_->Invalidate(names);
  } catch (const HostError&) {
    one_.Forget();
    throw;
  }
}

void WorkerCache::SetMaxBytes(size_t bytes) {
  if (frozen_) throw std::logic_error("the size of the cache is set in Initialize only");
  if (bytes > kMaxOwnBytes) throw std::invalid_argument("the cache of a worker has at most 64 GiB");
  one_.Resize(bytes);
}

std::chrono::milliseconds WorkerCache::TimeToLive(const CacheOptions& options, bool nothing) {
  const auto ttl = nothing ? options.negative_ttl : options.ttl;
  if (ttl.count() == 0) return ttl;
  return std::max(std::chrono::milliseconds(1), ttl - std::chrono::milliseconds(int64_t(double(ttl.count()) * options.jitter * RandomUnit())));
}

WorkerCache::Counts WorkerCache::counts() {
  Counts counts{one_.counts(), shared_hits_.load(), misses_.load()};
  counts.one.hits += joined_.load();
  return counts;
}

std::optional<Json> Cache::ToJson(const CacheValue& value) {
  if (!value) return std::nullopt;
  Json json = Json::parse(*value, nullptr, false);
  return json.is_discarded() ? std::nullopt : std::optional(std::move(json));
}

std::optional<Json> Cache::GetOrLoadJson(std::string_view key, const CacheOptions& options, const std::function<std::optional<Json>()>& load) {
  return ToJson(GetOrLoad(key, options, [&]() -> std::optional<std::string> {
    const std::optional<Json> loaded = load();
    return loaded ? std::optional(Dump(*loaded)) : std::nullopt;
  }));
}

void Cache::SetJson(std::string_view key, const Json& value, const CacheOptions& options) { Set(key, Dump(value), options); }

}  // namespace bulkhead::sdk
