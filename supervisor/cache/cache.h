// The cache of this node: what its modules share, and its ways to the other nodes on the database and to Redis.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "supervisor/base/loop.h"
#include "supervisor/cache/peers.h"
#include "supervisor/cache/shared_cache.h"

namespace bulkhead {

class Cache {
 public:
  struct Options {
    size_t max_bytes = 0, max_bytes_per_module = 0;
    std::string conninfo;    // of the database that other nodes may be on; empty: this one is alone
    std::string master_key;  // which all of them have
    std::optional<RedisAddress> redis;  // where level two is shared; without: each node has its own
    std::string node, redis_mark;       // see RedisLevel::Options
  };
  // `loop` outlives it.
  static absl::StatusOr<std::unique_ptr<Cache>> Make(Loop& loop, const Clock& clock, Options options);
  ~Cache();
  SharedCache& shared() { return shared_; }

 private:
  Cache(Loop& loop, const Clock& clock, const Options& options);
  const std::unique_ptr<RedisLevel> redis_;  // stopped first: its thread calls what stands below
  SharedCache shared_;
  std::unique_ptr<SecretBox> box_;
  std::unique_ptr<CachePeers> peers_;  // last: its threads call what stands above
};

}  // namespace bulkhead
