// What confines a module beyond its uid: Landlock rules and a seccomp filter, both made in the spawner before the clone, so
// that the exec shim only has to switch them on. README.md of this room says what they let through, and what they can't stop.
#pragma once

#include <linux/filter.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/base/fd.h"
#include "supervisor/process/spawner.h"

namespace bulkhead::sandbox {

// The Landlock ABI of the running kernel, 0 when it has none or it is switched off.
int LandlockAbi();
inline constexpr int kAbiWithPorts = 4;   // Linux 6.7
inline constexpr int kAbiWithScopes = 6;  // Linux 6.12
// A ruleset under which nothing may be opened, run, made, renamed or removed but what every program needs, and `reach`. From ABI 4 on a
// reach of kPorts also bounds TCP; from ABI 6 on no signal and no abstract Unix socket goes beyond the process's own domain. An error
// names the path that can't be opened, or that reaches into one of `roots` although it is a foreign one.
absl::StatusOr<UniqueFd> LandlockRuleset(const ReachSpec& reach, const std::vector<std::string>& roots);

// The same for a place that is mounted in the child alone: rules are for what is there when they are made, and none for what a mount hides
// counts. Async-signal-safe; false with errno.
bool AllowMounted(int ruleset, const char* path, bool write);

// The sockets that a filter lets a module make.
enum class Sockets {
  kIp,    // Unix, IPv4 and IPv6 (TCP and UDP), and the netlink ones that list the machine's interfaces
  kTcp,   // the same without UDP
  kUnix,  // Unix ones, and netlink
};
// A deny-list for seccomp(2): what no module needs and exploits want fails with EPERM. Empty on an architecture this is not written for.
const std::vector<sock_filter>& SyscallFilter(Sockets sockets = Sockets::kIp);

}  // namespace bulkhead::sandbox
