// What modules have for themselves of what the kernel otherwise shares: mounts, a network, System V objects. Each is tried once, in a
// child that does what the exec shim will do, so that what a machine forbids (a container without CAP_SYS_ADMIN, an AppArmor
// profile) is known before anybody counts on it. Only the spawner process uses this.
#pragma once

#include <sys/types.h>

#include <list>
#include <string>
#include <utility>

#include "supervisor/base/fd.h"

namespace bulkhead::namespaces {

// Why a child can't have one; empty: it can.
struct Support {
  std::string mounts;   // CLONE_NEWNS with bind mounts and a tmpfs
  std::string proc;     // a /proc in it that shows no processes of other users
  std::string network;  // CLONE_NEWNET
  std::string ipc;      // CLONE_NEWIPC
};
const Support& Supported();

// What the shim does in new namespaces, with the privileges of the spawner. Async-signal-safe; false with errno.
bool PrivateMounts();  // from now on no mount of this process is seen outside
bool MountTmp(const char* folder, const char* at);
bool MountSharedMemory();
bool MountProc();
void RaiseLoopback();  // the interface `lo` of a fresh network namespace; without it connections to 127.0.0.1 are refused

// The network namespaces of modules, with nothing in them but `lo`. One is made with the first process of a module and outlives it:
// making one takes half a millisecond and more, which a restart should not wait for. At most limits::kKeptNetworks; beyond, the one that was
// used longest ago is let go, and lives as long as a process in it.
class Networks {
 public:
  UniqueFd Get(const std::string& kin);              // a copy; unset when there is none
  void Keep(const std::string& kin, pid_t process);  // that of a process which has just been cloned into a new one

 private:
  std::list<std::pair<std::string, UniqueFd>> kept_;  // the last used first
};

}  // namespace bulkhead::namespaces
