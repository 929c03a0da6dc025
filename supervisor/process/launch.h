// From what the daemon asks for to what this machine can give: the plan of one child and the list of what confines it.
#pragma once

#include <string>
#include <vector>

#include "supervisor/process/cgroup.h"
#include "supervisor/process/exec_shim.h"
#include "supervisor/process/spawner.h"

namespace bulkhead {

struct Launch {
  ExecPlan plan;
  std::unique_ptr<Cgroup> cgroup;  // null: the child needs a keeper
  std::vector<IsolationItem> isolation;
};

// Moves the descriptors out of `spec`. `cgroups` null: not wanted. `report` is the write end of the child's report pipe.
// A cgroup that was made stays in `launch` when this fails; the caller removes it.
absl::Status PrepareLaunch(SpawnSpec& spec, CgroupTree* cgroups, UniqueFd report, Launch& launch);
// A tolerated failure in the shim: the item it belongs to was not put in force.
void NoteFailure(const ShimReport& report, Launch& launch);

}  // namespace bulkhead
