// Where no cgroup can be made (a plain user, a read-only cgroup file system), a child is tracked by a keeper: a process
// between the spawner and the child that is a subreaper (prctl(2)) and does nothing but wait. Whatever descends from the
// child, setsid or not, double fork or not, then has the keeper as an ancestor until it ends; so /proc names the tree at any
// time. When the keeper has no child left, the tree is empty, and it ends: that is what KillTree waits for. If the keeper
// itself is killed (a module of the same uid can do that), its orphans become direct children of the spawner, which knows
// all its other children and so finds them too; and the child itself dies with it (PDEATHSIG).
// If the spawner is killed, the keeper sees the end of their socket and kills the tree by itself.
#pragma once

#include <sys/types.h>

#include <cstdint>

#include "supervisor/base/fd.h"
#include "supervisor/process/exec_shim.h"

namespace bulkhead {

// What a keeper tells the spawner, one per packet.
struct KeeperMessage {
  enum class Kind : int32_t { kStarted, kExited };
  Kind kind;
  int32_t pid;     // kStarted, with the pidfd beside it
  int32_t code;    // kExited: si_code and si_status of waitid(2)
  int32_t status;
};

// The exit code that says: no process of the tree is left.
inline constexpr int kKeeperDone = 0;

// In the cloned process: starts the child by the plan, then keeps it until the tree and the spawner are gone.
[[noreturn]] void RunKeeper(ExecPlan& plan, UniqueFd socket);

}  // namespace bulkhead
