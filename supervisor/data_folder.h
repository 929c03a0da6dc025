// The daemon's folders: made, owned, checked and locked before anything else happens.
#pragma once

#include <sys/types.h>

#include <string>

#include "absl/status/statusor.h"
#include "supervisor/base/fd.h"

namespace bulkhead {

struct DataFolder {
  std::string path;        // absolute
  std::string run;         // sockets: <data>/run, or a short one elsewhere when a socket path would be too long
  std::string instances;   // what is started is written down here (process/instance_journal.h); as root it stays root's
  std::string hash;        // 8 hex of the path: tells two daemons of one machine apart
  bool privileged = false; // started as root: drops to `uid`
  uid_t uid = 0;           // of the user `bulkhead`, or our own
  gid_t gid = 0;
  UniqueFd lock;
};

// DATA_UNUSABLE (can't be made or written; as root: a folder above that other users can't pass, named), DATA_IN_USE (another
// supervisor holds it; its pid).
absl::StatusOr<DataFolder> OpenDataFolder(const std::string& path);

// Gives up root for good: groups, gid, uid. Nothing to do when not privileged.
absl::Status DropPrivileges(const DataFolder& folder);

// Which supervisor did something, in rows that others on the same database read: HOST/HASH. One host may have several.
std::string NodeName(const DataFolder& folder);

// The key in `path`, 32 bytes in hex, made when there is none. DATA_UNUSABLE for a file that holds something else.
absl::StatusOr<std::string> MasterKey(const std::string& path);

}  // namespace bulkhead
