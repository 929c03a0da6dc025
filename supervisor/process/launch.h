// From what the daemon asks for to what this machine can give: the plan of one child and the list of what confines it.
#pragma once

#include <string>
#include <vector>

#include "supervisor/process/cgroup.h"
#include "supervisor/process/exec_shim.h"
#include "supervisor/process/namespaces.h"
#include "supervisor/process/spawner.h"

namespace bulkhead {

struct Launch {
  ExecPlan plan;
  std::unique_ptr<Cgroup> cgroup;  // null: the child needs a keeper
  std::string kin;
  std::vector<IsolationItem> isolation;
};

// What the spawner has for all children.
struct LaunchSite {
  const Spawner::Options& options;
  CgroupTree* cgroups;  // null: not wanted
  namespaces::Networks& networks;
};

// All of the plan but what ExecPlan::Fill takes from `spec`. A cgroup that was made stays in `launch` when this fails; the caller removes it.
absl::Status PrepareLaunch(const SpawnSpec& spec, const LaunchSite& site, Launch& launch);
// A tolerated failure in the shim: the item it belongs to was not put in force.
void NoteFailure(const ShimReport& report, Launch& launch);

}  // namespace bulkhead
