// What confines a module beyond its uid: Landlock rules and a seccomp filter, both made in the spawner before the clone, so
// that the exec shim only has to switch them on.
#pragma once

#include <linux/filter.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/base/fd.h"

namespace bulkhead::sandbox {

// The Landlock ABI of the running kernel, 0 when it has none or it is switched off.
int LandlockAbi();
// A ruleset under which nothing may be written, made, renamed or removed but in `writable` and the harmless devices;
// reading and executing stay as the file modes say. From ABI 6 on also: no signal and no abstract Unix socket beyond the
// process's own domain. An error names the path that can't be opened.
absl::StatusOr<UniqueFd> LandlockRuleset(const std::vector<std::string>& writable);

// A deny-list for seccomp(2): what no module needs and exploits want (mounting, namespaces, loading code into the kernel,
// looking into other processes, keys, clocks) fails with EPERM. Empty on an architecture this is not written for.
const std::vector<sock_filter>& SyscallFilter();

}  // namespace bulkhead::sandbox
