// Folders made and removed with the spawner's privileges, for owners the daemon can't act as. No path from the daemon leads
// through a link below a root, and removing never follows one, because modules write what stands there.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace bulkhead::folders {

// `roots` empty: anywhere. An existing folder gets the owner and the mode too; anything else of that name is an error.
absl::Status Make(const std::vector<std::string>& roots, const std::string& path, uid_t uid, gid_t gid, mode_t mode);
// The folder and all in it; fine when it is not there. Blocks as long as it takes.
absl::Status Remove(const std::vector<std::string>& roots, const std::string& path);

// What stands in an opened folder.
std::vector<std::string> Names(int folder);
// Gives the folder `name` in `parent`, and of all in it what belongs to somebody (`theirs`, of a uid or a gid), to `owner`. The folder itself
// comes last, so that one whose owner is right is done. Goes on after an error, and answers the first; blocks as long as it takes.
absl::Status ChangeOwner(int parent, const std::string& name, uid_t owner, const std::function<bool(id_t)>& theirs);

}  // namespace bulkhead::folders
