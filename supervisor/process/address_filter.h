// Sockets of a cgroup that reach loopback addresses alone. Neither Landlock nor seccomp can look at an address; a BPF program on
// the cgroup can, and where root has a cgroup v2 tree it may attach one. Only the spawner process uses this.
#pragma once

#include "absl/status/status.h"

namespace bulkhead {

// TCP and UDP of what is in the cgroup v2 `folder` go to 127.0.0.0/8 and ::1 and nowhere else: connect(2) and sendto(2) answer EPERM. Lasts
// as long as the cgroup. An error says why the kernel does not take the programs.
absl::Status AllowLoopbackOnly(int folder);

}  // namespace bulkhead
