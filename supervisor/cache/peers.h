// Invalidations to and from the other nodes on the same database, by NOTIFY. Any role may send and hear one, so each is sealed with a key that
// the nodes share: a module neither reads the keys of another one nor invalidates them. What can't be sent because the database is away is
// sent when it is back; what may have been missed meanwhile is answered by forgetting everything.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "bulkhead/cache/memory.h"
#include "supervisor/store/database.h"
#include "supervisor/store/notifications.h"
#include "supervisor/store/secret_box.h"

namespace bulkhead {

namespace limits {
inline constexpr size_t kMaxWaitingCacheNames = 10'000;  // of one module, that wait to be sent; beyond: everything of it is invalidated instead
}  // namespace limits

class CachePeers {
 public:
  struct Heard {
    // `missed_by_redis`: the node that tells it could not tell Redis.
    std::function<void(const std::string& module, const cache::Names& names, bool missed_by_redis)> invalidated;
    std::function<void()> missed;  // something may have been
  };
  // `heard` is called on a thread of its own.
  CachePeers(std::string conninfo, const SecretBox& box, Heard heard);
  ~CachePeers();
  CachePeers(const CachePeers&) = delete;

  // Thread-safe; returns at once.
  void Tell(const std::string& module, const cache::Names& names, bool missed_by_redis);

 private:
  void Send();
  void Received(const std::string& payload);

  const SecretBox& box_;
  const std::string origin_;  // our own notifications come back, too
  const Heard heard_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::map<std::pair<std::string, bool>, cache::Names> waiting_;  // by module, and whether Redis lacks it
  bool stopping_ = false;
  Database database_;  // one connection, of the sender
  std::thread sender_;
  Notifications listener_;  // last: calls what stands above
};

// The texts of one notification, each short enough for PostgreSQL; exposed for tests.
std::vector<std::string> CacheNotifications(const SecretBox& box, const std::string& origin, const std::string& module, const cache::Names& names,
                                            bool missed_by_redis);

}  // namespace bulkhead
