#include "supervisor/process/launch.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "supervisor/process/sandbox.h"

namespace bulkhead {
namespace {

constexpr size_t kMaxIdLength = 200;  // a cgroup's name has at most 255 bytes
constexpr char kNotAskedFor[] = "not asked for";

bool IsId(const std::string& id) {
  return !id.empty() && id.size() <= kMaxIdLength && id[0] != '.' && std::all_of(id.begin(), id.end(), [](unsigned char c) {
    return std::isalnum(c) || c == '.' || c == '-' || c == '_';
  });
}

int LastCapability() {
  auto text = ReadFile("/proc/sys/kernel/cap_last_cap");
  return text.ok() ? atoi(text->c_str()) : 40;  // CAP_CHECKPOINT_RESTORE, the last one of Linux 5.9 to 6.x
}

IsolationItem Uid(const SpawnSpec& spec) {
  if (spec.change_user) return {"uid", true, "uid " + std::to_string(spec.uid)};
  return {"uid", false, geteuid() == 0 ? kNotAskedFor : "the supervisor does not run as root, so the module has its uid"};
}

IsolationItem Capabilities(const SpawnSpec& spec, ExecPlan& plan) {
  if (!spec.sandbox) return {"capabilities", false, kNotAskedFor};
  plan.drop_bounding_set = geteuid() == 0;
  plan.last_capability = LastCapability();
  return {"capabilities", true, plan.drop_bounding_set ? "" : "none held, and no_new_privs keeps it so"};
}

IsolationItem Rlimits(const SpawnSpec& spec, ExecPlan& plan) {
  plan.nofile = static_cast<rlim_t>(std::max(spec.limits.nofile, 0));
  if (!spec.sandbox && plan.nofile == 0) return {"rlimits", false, kNotAskedFor};
  return {"rlimits", true, ""};
}

absl::StatusOr<IsolationItem> Landlock(const SpawnSpec& spec, ExecPlan& plan) {
  if (!spec.sandbox) return IsolationItem{"landlock", false, kNotAskedFor};
  if (sandbox::LandlockAbi() == 0) return IsolationItem{"landlock", false, "the kernel has no Landlock, or it is switched off"};
  auto ruleset = sandbox::LandlockRuleset(spec.writable);
  if (!ruleset.ok()) return ruleset.status();
  plan.landlock = *std::move(ruleset);
  return IsolationItem{"landlock", true, "ABI " + std::to_string(sandbox::LandlockAbi())};
}

IsolationItem Seccomp(const SpawnSpec& spec, ExecPlan& plan) {
  if (!spec.sandbox) return {"seccomp", false, kNotAskedFor};
  const auto& filter = sandbox::SyscallFilter();
  if (filter.empty()) return {"seccomp", false, "there is no filter for this processor architecture"};
  plan.filter = filter.data();
  plan.filter_length = static_cast<unsigned short>(filter.size());
  return {"seccomp", true, ""};
}

IsolationItem* Find(std::vector<IsolationItem>& items, std::string_view name) {
  for (IsolationItem& item : items) {
    if (item.name == name) return &item;
  }
  return nullptr;
}

void MakeCgroup(const SpawnSpec& spec, CgroupTree* cgroups, Launch& launch) {
  std::string why = "switched off";
  std::vector<IsolationItem> items;
  if (cgroups != nullptr) {
    auto made = cgroups->Make(spec.id, spec.limits, items);
    if (made.ok()) {
      launch.cgroup = *std::move(made);
    } else {
      why = std::string(made.status().message());
    }
  }
  if (items.empty()) {
    for (auto [name, asked] : {std::pair{"cgroup.memory", spec.limits.memory_bytes > 0}, {"cgroup.cpu", spec.limits.cpu_millis > 0},
                               {"cgroup.pids", spec.limits.pids > 0}}) {
      items.push_back({name, false, asked ? why : kNotAskedFor});
    }
  }
  IsolationItem& pids = *Find(items, "cgroup.pids");
  if (!pids.active && spec.limits.pids > 0 && spec.change_user) {
    // The uid is the child's own, so counting by uid counts the child's processes.
    launch.plan.nproc = static_cast<rlim_t>(spec.limits.pids);
    pids = {"cgroup.pids", true, "by RLIMIT_NPROC, because: " + pids.why};
  }
  launch.isolation.insert(launch.isolation.end(), items.begin(), items.end());
}

}  // namespace

absl::Status PrepareLaunch(SpawnSpec& spec, CgroupTree* cgroups, UniqueFd report, Launch& launch) {
  if (!IsId(spec.id)) {
    return absl::InvalidArgumentError("'" + spec.id + "' is no id: letters, digits, '.', '-' and '_', at most " +
                                      std::to_string(kMaxIdLength));
  }
  if (spec.change_user && geteuid() != 0) {
    return absl::FailedPreconditionError("uid " + std::to_string(spec.uid) + " was asked for, and the supervisor does not run as root");
  }
  ExecPlan& plan = launch.plan;
  plan.report = std::move(report);
  auto& items = launch.isolation;
  items.push_back(Uid(spec));
  items.push_back({"no_new_privs", spec.sandbox, spec.sandbox ? "" : kNotAskedFor});
  items.push_back(Capabilities(spec, plan));
  items.push_back(Rlimits(spec, plan));
  auto landlock = Landlock(spec, plan);
  if (!landlock.ok()) return landlock.status();
  IsolationItem seccomp = Seccomp(spec, plan);
  MakeCgroup(spec, cgroups, launch);
  items.push_back(*landlock);
  items.push_back(seccomp);
  plan.parent_death_signal = spec.graceful_signal != 0 ? spec.graceful_signal : SIGKILL;
  return plan.Fill(spec);
}

void NoteFailure(const ShimReport& report, Launch& launch) {
  const char* name = report.step == ShimStep::kNproc ? "cgroup.pids" : report.step == ShimStep::kCapabilities ? "capabilities" : "rlimits";
  if (IsolationItem* item = Find(launch.isolation, name)) *item = {name, false, Describe(report, launch.plan)};
}

}  // namespace bulkhead
