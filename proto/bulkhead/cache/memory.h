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
    auto found = nodes_.find(key);
    if (found == nodes_.end()) return nullptr;
    if (found->expires != 0 && found->expires <= now) {
      Erase(found);
      return nullptr;
    }
    found->visited = true;
    return &*found;
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
    if (auto found = nodes_.find(entry.key); found != nodes_.end()) {
      if (found->version > entry.version) return Outcome::kOvertaken;
      Erase(found);
    }
    while (bytes_ + cost > max_bytes_ && EvictOne()) {
    }
    const Node& stored = *nodes_.emplace(std::move(entry)).first;
    stored.older = newest_;
    (newest_ != nullptr ? newest_->newer : oldest_) = &stored;
    newest_ = &stored;
    for (const std::string& tag : stored.tags) by_tag_[tag].insert(&stored);
    bytes_ += cost;
    return Outcome::kStored;
  }

  // Drops what the names mean and is older than `version`, and remembers it. Versions come in order.
  void Invalidate(const Names& names, int64_t version) {
    if (names.all) return Clear(version);
    for (const std::string& key : names.keys) {
      Remember(KeyName(key), version);
      if (auto found = nodes_.find(key); found != nodes_.end() && found->version < version) Erase(found);
    }
    for (const std::string& tag : names.tags) {
      Remember(TagName(tag), version);
      auto tagged = by_tag_.find(tag);
      if (tagged == by_tag_.end()) continue;
      std::vector<const Node*> old;
      for (const Node* node : tagged->second) {
        if (node->version < version) old.push_back(node);
      }
      for (const Node* node : old) Erase(nodes_.find(node->key));
    }
  }

  void Clear(int64_t version) {
    for (auto node = nodes_.begin(); node != nodes_.end();) {
      auto next = std::next(node);
      if (node->version < version) Erase(node);
      node = next;
    }
    if (version > floor_) floor_ = version;
  }

  // Drops all entries, whatever their version, and remembers nothing of it.
  void Forget() {
    by_tag_.clear();
    nodes_.clear();
    newest_ = oldest_ = hand_ = nullptr;
    bytes_ = 0;
  }

  // False when there is none.
  bool EvictOne() {
    if (oldest_ == nullptr) return false;
    const Node* at = hand_ != nullptr ? hand_ : oldest_;
    while (at->visited) {
      at->visited = false;
      at = at->newer != nullptr ? at->newer : oldest_;
    }
    hand_ = at;
    Erase(nodes_.find(at->key));
    ++evictions_;
    return true;
  }

  void Resize(size_t max_bytes) {
    max_bytes_ = max_bytes;
    while (bytes_ > max_bytes_ && EvictOne()) {
    }
  }

  size_t bytes() const { return bytes_; }
  size_t entries() const { return nodes_.size(); }
  int64_t evictions() const { return evictions_; }

  static size_t Cost(const Entry& entry) {
    size_t cost = kOverhead + entry.key.size() + (entry.value ? entry.value->size() : 0);
    for (const std::string& tag : entry.tags) cost += kTagOverhead + 2 * tag.size();
    return cost;
  }

 private:
  // One block of memory for an entry, so that a lookup waits for few. What a set does not order by may change in it.
  struct Node : Entry {
    explicit Node(Entry entry) : Entry(std::move(entry)) {}
    mutable bool visited = false;
    mutable const Node* newer = nullptr;
    mutable const Node* older = nullptr;
  };
  struct KeyHash {
    using is_transparent = void;
    // Not noexcept: the library keeps hashes of such with the nodes, instead of computing them from keys that it would have to fetch.
    size_t operator()(std::string_view key) const { return std::hash<std::string_view>()(key); }
    size_t operator()(const Node& node) const { return (*this)(std::string_view(node.key)); }
  };
  struct SameKey {
    using is_transparent = void;
    bool operator()(std::string_view key, const Node& node) const { return key == node.key; }
    bool operator()(const Node& node, std::string_view key) const { return key == node.key; }
    bool operator()(const Node& one, const Node& other) const { return one.key == other.key; }
  };
  using Nodes = std::unordered_set<Node, KeyHash, SameKey>;

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

  void Erase(Nodes::const_iterator node) {
    // The hand goes on to the next newer one; behind the newest it begins anew.
    if (hand_ == &*node) hand_ = node->newer;
    (node->newer != nullptr ? node->newer->older : newest_) = node->older;
    (node->older != nullptr ? node->older->newer : oldest_) = node->newer;
    for (const std::string& tag : node->tags) {
      auto tagged = by_tag_.find(tag);
      if (tagged == by_tag_.end()) continue;  // a tag that was given twice
      tagged->second.erase(&*node);
      if (tagged->second.empty()) by_tag_.erase(tagged);
    }
    bytes_ -= Cost(*node);
    nodes_.erase(node);
  }

  size_t max_bytes_;
  size_t bytes_ = 0;
  int64_t evictions_ = 0;
  Nodes nodes_;
  const Node* newest_ = nullptr;
  const Node* oldest_ = nullptr;
  const Node* hand_ = nullptr;  // where the eviction goes on; null: at the oldest
  std::unordered_map<std::string, std::unordered_set<const Node*>> by_tag_;
  std::unordered_map<size_t, int64_t> invalidated_;  // by name, the last time
  std::deque<std::pair<size_t, int64_t>> order_;     // of these, the oldest first
  int64_t floor_;  // whatever is of an older version is overtaken
};

}  // namespace bulkhead::cache
