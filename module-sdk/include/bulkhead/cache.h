// The module's cache, in two levels: this worker's memory, and what all workers of the module on this node share in the supervisor, with `cache.engine:
// redis` all nodes. What one worker sets the others get, and an invalidation reaches all of them.
//
//   CacheValue price = context.cache().GetOrLoad("price/" + id, {.ttl = 10min, .tags = {"prices"}}, [&]() -> std::optional<std::string> {
//     Rows rows = context.database().Query("SELECT price FROM prices WHERE id = $1", {id});
//     if (rows.empty()) return std::nullopt;
//     return rows[0].Get<std::string>("price");
//   });
//   …
//   context.cache().Invalidate("price/" + id);   // after the commit of what has changed it
//
// What holds: when Set or an Invalidate has returned, no call that begins later in any worker of this node is answered with what was there before,
// nor with what a loader had begun to read before. Workers on other nodes follow within moments, at the latest when the value's time to live is over.
// Anything may be gone at any time; a cache that can't be reached finds nothing.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bulkhead/errors.h"

namespace bulkhead::sdk {

inline constexpr size_t kMaxCacheKey = 512;          // bytes, UTF-8; an empty one is none
inline constexpr size_t kMaxCacheValue = 1'000'000;  // bytes
inline constexpr size_t kMaxCacheTags = 16;          // of one value
inline constexpr size_t kMaxCacheTag = 128;          // bytes, UTF-8
inline constexpr size_t kDefaultCacheBytes = size_t{16} << 20;  // of this worker's memory

// Shared with the cache, never copied. Null: it is known that there is nothing.
using CacheValue = std::shared_ptr<const std::string>;

struct CacheLook {
  bool known = false;  // false: neither a value nor that there is none
  CacheValue value;
};

struct CacheOptions {
  std::chrono::milliseconds ttl{300'000};           // of a value; 0: until it has to make room
  std::chrono::milliseconds negative_ttl{10'000};   // of what was not there
  double jitter = 0.1;                              // share of these by which each is shortened at random, so that not all end at once; 0 to 1
  std::vector<std::string> tags = {};               // by which it can be invalidated together with others
  std::chrono::milliseconds wait{10'000};           // for a loader that another thread has begun; beyond: CacheTimeout
};

// What a handler lets pass becomes 503.
class CacheTimeout : public HttpError {
 public:
  explicit CacheTimeout(std::string_view key)
      : HttpError(503, "CACHE_TIMEOUT", "what is asked for is being loaded and does not come"), key_(key) {}
  const std::string& key() const { return key_; }

 private:
  std::string key_;
};

// Reads what is not in the cache; nullopt: there is nothing, which is remembered, too. What it throws goes to all that wait, and is not remembered.
using CacheLoader = std::function<std::optional<std::string>()>;

// Any thread. A hit in the worker's memory takes a fraction of a microsecond; everything else is a call to the supervisor and blocks, for 1 s at
// most where values are read, 5 s where they change. Throws std::invalid_argument beyond the limits above.
class Cache {
 public:
  virtual ~Cache() = default;

  virtual CacheLook Get(std::string_view key) = 0;
  // The value, from the cache or from `load`, which of all threads of this worker one calls and the others wait for. Throws what `load` throws, and
  // CacheTimeout; std::logic_error from a loader that asks for its own key. A value beyond kMaxCacheValue is handed out and not kept.
  virtual CacheValue GetOrLoad(std::string_view key, const CacheOptions& options, const CacheLoader& load) = 0;
  // nullopt: there is nothing. Of two at once the later one counts, whichever had read the newer value: where others change the same, invalidate
  // instead. Throws HostError when the supervisor does not answer, and then it may be either way.
  virtual void Set(std::string_view key, std::optional<std::string> value, const CacheOptions& options = {}) = 0;
  // Throw HostError when the supervisor does not answer: then others may still have what was there. To be repeated where that matters.
  virtual void InvalidateAll(std::vector<std::string> keys, std::vector<std::string> tags) = 0;
  virtual void Clear() = 0;  // everything of this module
  void Invalidate(std::string_view key) { InvalidateAll({std::string(key)}, {}); }
  void InvalidateTag(std::string_view tag) { InvalidateAll({}, {std::string(tag)}); }

  // The same as JSON. Null, and what is no JSON, count as nothing.
  std::optional<Json> GetJson(std::string_view key) { return ToJson(Get(key).value); }
  std::optional<Json> GetOrLoadJson(std::string_view key, const CacheOptions& options, const std::function<std::optional<Json>()>& load);
  void SetJson(std::string_view key, const Json& value, const CacheOptions& options = {});

  // The worker's own memory. Inside Module::Initialize only. Throws std::invalid_argument above 64 GiB; with 0 every look asks the supervisor.
  virtual void SetMaxBytes(size_t bytes) = 0;

 private:
  static std::optional<Json> ToJson(const CacheValue& value);
};

}  // namespace bulkhead::sdk
