// Cached values in memory, as both levels of the cache keep them: bounded by bytes, with expiry, tags, and versions by which a value that was read
// before an invalidation is told from one that was read after it. Neither the supervisor nor the SDK is known here. Not thread-safe.
//
// Eviction is SIEVE (Zhang et al., NSDI 2024): a hit sets a mark and moves nothing; a hand goes from the oldest to the newest, takes marks away and
// evicts the first entry without one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <iterator>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace bulkhead::cache {

inline constexpr size_t kMaxKey = 512;          // bytes
inline constexpr size_t kMaxValue = 1'000'000;  // bytes, so that a message with key and tags stays below 1 MiB
inline constexpr size_t kMaxTags = 16;
inline constexpr size_t kMaxTag = 128;          // bytes
inline constexpr size_t kMaxNames = 1'000;      // keys and tags of one CacheInvalidate

using Bytes = std::shared_ptr<const std::string>;  // null: that there is nothing

struct Entry {
  std::string key;
  Bytes value;
  std::vector<std::string> tags;
  int64_t expires = 0;  // nanoseconds of the owner's clock; 0: never
  int64_t version = 0;  // of the cache when the value was read, or later
  bool visited = false;
};

// What an invalidation names.
struct Names {
  std::vector<std::string> keys, tags;
  bool all = false;
};

class Memory {
 public:
  // What an entry takes beside its texts, about.
  static constexpr size_t kOverhead = 192, kTagOverhead = 96;
  // Invalidations that are remembered one by one; what was read before an older one is taken for overtaken.
  static constexpr size_t kMaxRemembered = 4'096;

  explicit Memory(size_t max_bytes, int64_t version = 0) : max_bytes_(max_bytes), floor_(version) {}
  Memory(const Memory&) = delete;

  // Null when it is not there, or not any more.
  const Entry* Find(std::string_view key, int64_t now) {
    auto found = by_key_.find(key);
    if (found == by_key_.end()) return nullptr;
    Entry& entry = *found->second;
    if (entry.expires != 0 && entry.expires <= now) {
      Erase(found->second);
      return nullptr;
    }
    entry.visited = true;
    return &entry;
  }

  // Whether something of `version` may be out of date: since then the key, one of the tags or everything was invalidated.
  bool Overtaken(std::string_view key, const std::vector<std::string>& tags, int64_t version) const {
    if (version < floor_) return true;
    const auto later = [&](size_t name) {
      auto found = invalidated_.find(name);
      return found != invalidated_.end() && found->second > version;
    };
    if (later(KeyName(key))) return true;
    for (const std::string& tag : tags) {
      if (later(TagName(tag))) return true;
    }
    return false;
  }

  enum class Outcome { kStored, kOvertaken, kTooLarge };
  // One of the same key that is newer stays.
  Outcome Put(Entry entry) {
    if (Overtaken(entry.key, entry.tags, entry.version)) return Outcome::kOvertaken;
    const size_t cost = Cost(entry);
    if (cost > max_bytes_) return Outcome::kTooLarge;
    if (auto found = by_key_.find(entry.key); found != by_key_.end()) {
      if (found->second->version > entry.version) return Outcome::kOvertaken;
      Erase(found->second);
    }
    while (bytes_ + cost > max_bytes_ && EvictOne()) {
    }
    entries_.push_front(std::move(entry));
    Entry& stored = entries_.front();
    by_key_.emplace(stored.key, entries_.begin());
    for (const std::string& tag : stored.tags) by_tag_[tag].insert(&stored);
    bytes_ += cost;
    return Outcome::kStored;
  }

  // Drops what the names mean and is older than `version`, and remembers it. Versions come in order.
  void Invalidate(const Names& names, int64_t version) {
    if (names.all) return Clear(version);
    for (const std::string& key : names.keys) {
      Remember(KeyName(key), version);
      if (auto found = by_key_.find(key); found != by_key_.end() && found->second->version < version) Erase(found->second);
    }
    for (const std::string& tag : names.tags) {
      Remember(TagName(tag), version);
      auto tagged = by_tag_.find(tag);
      if (tagged == by_tag_.end()) continue;
      std::vector<std::string_view> old;
      for (const Entry* entry : tagged->second) {
        if (entry->version < version) old.push_back(entry->key);
      }
      for (std::string_view key : old) Erase(by_key_.find(key)->second);
    }
  }

  void Clear(int64_t version) {
    for (auto entry = entries_.begin(); entry != entries_.end();) {
      auto next = std::next(entry);
      if (entry->version < version) Erase(entry);
      entry = next;
    }
    if (version > floor_) floor_ = version;
  }

  // Drops all entries, whatever their version, and remembers nothing of it.
  void Forget() {
    by_key_.clear();
    by_tag_.clear();
    entries_.clear();
    hand_ = entries_.end();
    bytes_ = 0;
  }

  // False when there is none.
  bool EvictOne() {
    if (entries_.empty()) return false;
    auto at = hand_ == entries_.end() ? std::prev(entries_.end()) : hand_;
    while (at->visited) {
      at->visited = false;
      at = at == entries_.begin() ? std::prev(entries_.end()) : std::prev(at);
    }
    hand_ = at;
    Erase(at);
    ++evictions_;
    return true;
  }

  void Resize(size_t max_bytes) {
    max_bytes_ = max_bytes;
    while (bytes_ > max_bytes_ && EvictOne()) {
    }
  }

  size_t bytes() const { return bytes_; }
  size_t entries() const { return by_key_.size(); }
  int64_t evictions() const { return evictions_; }

  static size_t Cost(const Entry& entry) {
    size_t cost = kOverhead + entry.key.size() + (entry.value ? entry.value->size() : 0);
    for (const std::string& tag : entry.tags) cost += kTagOverhead + 2 * tag.size();
    return cost;
  }

 private:
  using Place = std::list<Entry>::iterator;

  // Two names that meet here only make more be dropped than must be.
  static size_t KeyName(std::string_view key) { return std::hash<std::string_view>()(key); }
  static size_t TagName(std::string_view tag) { return std::hash<std::string_view>()(tag) * 0x9e3779b97f4a7c15u + 1; }

  void Remember(size_t name, int64_t version) {
    invalidated_[name] = version;
    order_.emplace_back(name, version);
    if (order_.size() <= kMaxRemembered) return;
    const auto [oldest, at] = order_.front();
    order_.pop_front();
    if (at > floor_) floor_ = at;
    if (auto found = invalidated_.find(oldest); found != invalidated_.end() && found->second == at) invalidated_.erase(found);
  }

  void Erase(Place entry) {
    // The hand goes on to the next newer one; behind the newest it begins anew.
    if (hand_ == entry) hand_ = entry == entries_.begin() ? entries_.end() : std::prev(entry);
    for (const std::string& tag : entry->tags) {
      auto tagged = by_tag_.find(tag);
      if (tagged == by_tag_.end()) continue;  // a tag that was given twice
      tagged->second.erase(&*entry);
      if (tagged->second.empty()) by_tag_.erase(tagged);
    }
    bytes_ -= Cost(*entry);
    by_key_.erase(entry->key);
    entries_.erase(entry);
  }

  size_t max_bytes_;
  size_t bytes_ = 0;
  int64_t evictions_ = 0;
  std::list<Entry> entries_;  // the newest first
  Place hand_ = entries_.end();
  std::unordered_map<std::string_view, Place> by_key_;  // views of the entries' own keys
  std::unordered_map<std::string, std::unordered_set<const Entry*>> by_tag_;
  std::unordered_map<size_t, int64_t> invalidated_;  // by name, the last time
  std::deque<std::pair<size_t, int64_t>> order_;     // of these, the oldest first
  int64_t floor_;  // whatever is of an older version is overtaken
};

}  // namespace bulkhead::cache
