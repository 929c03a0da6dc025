// For the simulations of the cache: a worker's memory, and the news to it.
#pragma once

#include <deque>
#include <limits>
#include <memory>
#include <string>
#include <utility>

#include "level_one.h"
#include "supervisor/cache/shared_cache.h"

namespace bulkhead {

inline constexpr char kSimModule[] = "orders", kSimKey[] = "key", kTag[] = "tag";

inline cache::Bytes NumberText(int64_t number) { return std::make_shared<const std::string>(std::to_string(number)); }

// A worker whose news are on their way until they are delivered.
class SimWorker final : public HostCache::Watcher {
 public:
  explicit SimWorker(SharedCache& two, size_t max_bytes = size_t{1} << 20) : one(max_bytes), two_(two) {}
  void Tell(HostCache::News news) override { underway_.push_back(std::move(news)); }
  void Deliver() {
    if (underway_.empty()) return;
    const HostCache::News news = std::move(underway_.front());
    underway_.pop_front();
    if (news.renewed > 0) one.Grant(std::numeric_limits<int64_t>::max());
    one.Apply(first_ ? cache::Names{.all = true} : news.names, news.version);
    first_ = false;
    two_.Heard(kSimModule, this, news.version, 0);
  }
  void DeliverAll() {
    while (!underway_.empty()) Deliver();
  }

  sdk::LevelOne one;

 private:
  SharedCache& two_;
  std::deque<HostCache::News> underway_;
  bool first_ = true;
};

}  // namespace bulkhead
