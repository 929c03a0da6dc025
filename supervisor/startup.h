// What the daemon asks of the machine before it has a thread: users for its modules, limits, processors, signals.
#pragma once

#include "absl/status/statusor.h"
#include "supervisor/base/fd.h"
#include "supervisor/config.h"
#include "supervisor/data_folder.h"
#include "supervisor/process/spawner.h"
#include "supervisor/process/uid_range.h"

namespace bulkhead {

// As root: the uids of the modules, which no other supervisor of the machine gives to its own.
absl::StatusOr<UidClaim> ModuleUids(const Config& config, const DataFolder& folder);
// What the spawner may be asked for, should the daemon be taken over: our folders, and no uid and gid but the modules' and PostgreSQL's.
Spawner::Options SpawnerOptions(const Config& config, const DataFolder& folder, const UidClaim& uids);
// CPUs that we may run on: under taskset, CPUAffinity= or a cpuset fewer than the machine has.
int UsableCpus();
void RaiseFileLimit();
// SIGTERM, SIGINT and SIGHUP are blocked from now on and come out of this descriptor; SIGPIPE is ignored.
absl::StatusOr<UniqueFd> BlockSignals();

}  // namespace bulkhead
