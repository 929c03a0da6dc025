// The cache behind CacheGet, CacheSet, CacheInvalidate and WatchCache of the host API, as the host server asks it. Another room is it (cache/).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bulkhead/cache/memory.h"
#include "supervisor/base/clock.h"

namespace bulkhead {

// Thread-safe; no call blocks. A module sees what is its own and nothing else.
class HostCache {
 public:
  struct Look {
    bool found = false;
    cache::Bytes value;  // null where nothing is what was found
    std::vector<std::string> tags;
    Millis ttl_left{0};  // 0: no expiry
    int64_t version = 0;
  };
  struct NewEntry {
    std::string key;
    cache::Bytes value;  // null: that there is nothing
    Millis ttl{0};       // 0: no expiry
    std::vector<std::string> tags;
    int64_t version = 0;  // of the Look before it was read; 0: it is the new value
  };
  struct Stored {
    bool stored = false;
    int64_t version = 0;
  };
  struct News {
    int64_t version = 0;
    cache::Names names;
    int64_t renewed = 0;  // 0: no lease is granted
    Millis lease{0};
  };
  // A worker that keeps values itself.
  class Watcher {
   public:
    virtual ~Watcher() = default;
    virtual void Tell(News news) = 0;  // any thread, also within the calls below; must not call back
  };

  virtual ~HostCache() = default;
  // `done` of each call once, on any thread. INVALID_ARGUMENT for a key, a value or tags beyond cache::kMax….
  virtual void Get(const std::string& module, const std::string& key, std::function<void(absl::StatusOr<Look>)> done) = 0;
  // Done when no watcher with a lease has what was there before.
  virtual void Set(const std::string& module, NewEntry entry, std::function<void(absl::StatusOr<Stored>)> done) = 0;
  virtual void Invalidate(const std::string& module, cache::Names names, std::function<void(absl::StatusOr<int64_t>)> done) = 0;

  // It is told of all invalidations from now on, the version first, until Unwatch. `worker` is the process that it belongs to.
  virtual void Watch(const std::string& module, const std::string& worker, std::shared_ptr<Watcher> watcher) = 0;
  // It has dropped all up to `seen`; with `renew` it wants a lease.
  virtual void Heard(const std::string& module, const Watcher* watcher, int64_t seen, int64_t renew) = 0;
  virtual void Unwatch(const std::string& module, const Watcher* watcher) = 0;
  // The process has ended, so nobody waits for it.
  virtual void Gone(const std::string& module, const std::string& worker) = 0;
};

}  // namespace bulkhead
