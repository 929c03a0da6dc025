// The files of the cgroup file systems: where this process is, who is in a folder, reading and writing them. No state.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include "supervisor/base/fd.h"

namespace bulkhead::cgroup_files {

// A mounted hierarchy and the folder in it of the cgroup that this process is in.
struct Mounted {
  bool v2 = false;
  std::string controller;  // of v1: memory, cpu or pids; other hierarchies are left out
  std::string own;
};
std::vector<Mounted> OwnCgroups();
// The top of the v2 mount that `folder` is in; empty when it is in none.
std::string MountPointOf(const std::string& folder);

int Write(const std::string& file, std::string_view text);       // 0 or an errno
std::vector<std::string> Words(const std::string& file);         // separated by white space; empty when unreadable
int64_t Counter(const std::string& file, std::string_view key);  // of "key value" lines; 0 when absent
// Thread group leaders in `folder` and below.
std::vector<pid_t> Members(const std::string& folder);
bool RemoveFolder(const std::string& folder);                    // with the cgroups below; true when it is gone
UniqueFd Lock(const std::string& folder);                        // flock(2) without waiting; empty when another has it

}  // namespace bulkhead::cgroup_files
