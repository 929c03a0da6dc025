// Level two of the cache as a worker sees it: what the supervisor keeps for all workers of the module.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "bulkhead/cache/memory.h"
#include "level_one.h"

namespace bulkhead::sdk {

// Thread-safe; calls block. It tells the LevelOne of its worker what to drop, and grants it the lease.
class LevelTwo {
 public:
  struct Look {
    bool answered = false;  // false: nobody is there to be asked, and nothing else counts
    bool found = false;
    cache::Bytes value;
    std::vector<std::string> tags;
    std::chrono::milliseconds ttl_left{0};  // 0: no expiry
    int64_t version = 0;
  };
  virtual ~LevelTwo() = default;
  virtual Look Get(std::string_view key) = 0;
  // `entry.version` is that of the Look before the value was read, or 0 for the new value. The version in which it is new. Throws HostError.
  virtual int64_t Set(const cache::Entry& entry, std::chrono::milliseconds ttl) = 0;
  virtual void Invalidate(const cache::Names& names) = 0;  // throws HostError
  virtual void WantLease() = 0;                            // returns at once
  virtual void Close() {}                                  // no lease from now on
};

std::unique_ptr<LevelTwo> MakeHostLevelTwo(const std::string& host_socket, const std::string& token, LevelOne& one);
// Without a supervisor: nothing is ever found there.
std::unique_ptr<LevelTwo> MakeNoLevelTwo(LevelOne& one);

}  // namespace bulkhead::sdk
