// The cache of this node: what its modules share, and its way to the other nodes on the database.
#pragma once

#include <memory>
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
  };
  // `loop` outlives it.
  static absl::StatusOr<std::unique_ptr<Cache>> Make(Loop& loop, const Clock& clock, Options options);
  SharedCache& shared() { return shared_; }

 private:
  Cache(Loop& loop, const Clock& clock, const Options& options);
  SharedCache shared_;
  std::unique_ptr<SecretBox> box_;
  std::unique_ptr<CachePeers> peers_;  // last: its threads call what stands above
};

}  // namespace bulkhead
