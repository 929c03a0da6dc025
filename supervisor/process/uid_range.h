// The uids that a daemon's modules run as, apart from those of every other daemon on the machine, as root. A range is claimed by a
// lock on the bytes first…last of one file that all of them share, so ranges of any size are told apart. The kernel frees it when
// the daemon and its spawner are gone, however that came. Used once, before privileges are dropped; blocks while a predecessor on
// the same data folder still ends.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "supervisor/base/clock.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/limits.h"

namespace bulkhead {

struct UidRange {
  uid_t first = 0, last = 0;
  bool operator==(const UidRange&) const = default;
};

struct UidClaim {
  UidRange range;
  UniqueFd held;  // the claim lasts as long as this, or a copy of it, is open
};

struct UidOptions {
  std::string data_dir;                // absolute, held by the caller
  std::string hash;                    // 8 hex of it: where the search begins, and how a predecessor is known
  std::optional<UidRange> configured;  // isolation.uids: this range or none
  // Where the claims are, and which ranges there are without a configured one. What differs on one machine is not kept apart.
  std::string claims = "/run/bulkhead/uids";
  uid_t base = limits::kFirstModuleUid, size = limits::kUidsPerDaemon, ranges = limits::kUidRanges;
  Millis wait = limits::kUidClaimWait;
};

// The range that the data folder had before, as <data>/uids tells, if that is free, else the next one that is. With another range
// than before, the folders of the modules are given to their new owners. UIDS_TAKEN names who holds what was configured;
// DATA_UNUSABLE when the claims can't be kept.
absl::StatusOr<UidClaim> ClaimUids(const UidOptions& options);

}  // namespace bulkhead
