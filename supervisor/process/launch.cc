#include "supervisor/process/launch.h"

#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <optional>
#include <utility>

#include "supervisor/base/status.h"
#include "supervisor/process/address_filter.h"
#include "supervisor/process/sandbox.h"

namespace bulkhead {
namespace {

constexpr size_t kMaxIdLength = 200;  // a cgroup's name has at most 255 bytes
constexpr char kNotAskedFor[] = "not asked for";
constexpr char kSwitchedOff[] = "switched off by isolation.off of the supervisor's configuration";

using State = IsolationItem::State;

bool IsId(const std::string& id) {
  return !id.empty() && id.size() <= kMaxIdLength && id[0] != '.' && std::all_of(id.begin(), id.end(), [](unsigned char c) {
    return std::isalnum(c) || c == '.' || c == '-' || c == '_';
  });
}

int LastCapability() {
  auto text = ReadFile("/proc/sys/kernel/cap_last_cap");
  return text.ok() ? atoi(text->c_str()) : 40;  // CAP_CHECKPOINT_RESTORE, the last one of Linux 5.9 to 6.x
}

IsolationItem Active(std::string name, std::string why = "") { return {std::move(name), State::kActive, std::move(why)}; }
IsolationItem Unavailable(std::string name, std::string why) { return {std::move(name), State::kUnavailable, std::move(why)}; }
IsolationItem NotAskedFor(std::string name, std::string why = kNotAskedFor) { return {std::move(name), State::kNotAskedFor, std::move(why)}; }

// A measure that can't be taken because it is not asked for, or not wanted.
std::optional<IsolationItem> LeftOut(const SpawnSpec& spec, const LaunchSite& site, const char* name) {
  if (!spec.sandbox) return NotAskedFor(name);
  if (site.options.off.contains(name)) return IsolationItem{name, State::kOff, kSwitchedOff};
  return std::nullopt;
}

IsolationItem Uid(const SpawnSpec& spec) {
  if (spec.change_user) return Active("uid", "uid " + std::to_string(spec.uid));
  if (geteuid() == 0 || !spec.sandbox) return NotAskedFor("uid");
  return Unavailable("uid", "the supervisor does not run as root, so the module has its uid");
}

IsolationItem Capabilities(const SpawnSpec& spec, ExecPlan& plan) {
  if (!spec.sandbox) return NotAskedFor("capabilities");
  plan.drop_bounding_set = geteuid() == 0;
  plan.last_capability = LastCapability();
  return Active("capabilities", plan.drop_bounding_set ? "" : "none held, and no_new_privs keeps it so");
}

IsolationItem Rlimits(const SpawnSpec& spec, ExecPlan& plan) {
  plan.nofile = static_cast<rlim_t>(std::max(spec.limits.nofile, 0));
  plan.file_bytes = static_cast<rlim_t>(std::max<int64_t>(spec.limits.file_bytes, 0));
  rlimit own;
  // Raising needs a privilege that not every machine gives, and a module needs none that the supervisor lacks.
  if (spec.sandbox && plan.nofile > 0 && getrlimit(RLIMIT_NOFILE, &own) == 0) plan.nofile = std::min(plan.nofile, own.rlim_max);
  if (spec.sandbox && plan.file_bytes > 0 && getrlimit(RLIMIT_FSIZE, &own) == 0) plan.file_bytes = std::min(plan.file_bytes, own.rlim_max);
  if (!spec.sandbox && plan.nofile == 0 && plan.file_bytes == 0) return NotAskedFor("rlimits");
  std::string what;
  if (plan.nofile > 0) what += std::to_string(plan.nofile) + " open files, ";
  if (plan.file_bytes > 0) what += std::to_string(plan.file_bytes) + " bytes a file, ";
  return Active("rlimits", what + "no core files");
}

absl::StatusOr<IsolationItem> Landlock(const SpawnSpec& spec, const LaunchSite& site, ExecPlan& plan) {
  if (auto item = LeftOut(spec, site, "landlock")) return *item;
  const int abi = sandbox::LandlockAbi();
  if (abi == 0) return Unavailable("landlock", "the kernel has no Landlock, or it is switched off");
  ReachSpec reach = spec.reach;
  if (site.options.off.contains("network")) reach.network = NetworkAccess::kOutbound;  // its rules for ports are that measure's
  auto ruleset = sandbox::LandlockRuleset(reach, site.options.folder_roots);
  if (!ruleset.ok()) return ruleset.status();
  plan.landlock = *std::move(ruleset);
  std::string why = "ABI " + std::to_string(abi);
  if (abi < sandbox::kAbiWithScopes) why += ", which bounds neither signals nor abstract sockets";
  return Active("landlock", why);
}

IsolationItem Seccomp(const SpawnSpec& spec, const LaunchSite& site, sandbox::Sockets sockets, ExecPlan& plan) {
  if (auto item = LeftOut(spec, site, "seccomp")) return *item;
  const auto& filter = sandbox::SyscallFilter(sockets);
  if (filter.empty()) return Unavailable("seccomp", "there is no filter for this processor architecture");
  plan.filter = filter.data();
  plan.filter_length = static_cast<unsigned short>(filter.size());
  return Active("seccomp");
}

bool HasFilter(const LaunchSite& site) { return !site.options.off.contains("seccomp") && !sandbox::SyscallFilter().empty(); }

IsolationItem NoNetwork(const SpawnSpec& spec, const LaunchSite& site, sandbox::Sockets& sockets, ExecPlan& plan) {
  const std::string& why = namespaces::Supported().network;
  if (why.empty()) {
    plan.network = site.networks.Get(spec.kin);
    if (!plan.network) plan.namespaces |= CLONE_NEWNET;
    return Active("network", "none: a namespace of its own, with a loopback of its own");
  }
  sockets = sandbox::Sockets::kUnix;
  if (HasFilter(site)) return Active("network", "none: no sockets but Unix ones, by seccomp (" + why + ")");
  return Unavailable("network", "none: " + why + ", and there is no seccomp filter");
}

IsolationItem LoopbackOnly(const Launch& launch) {
  const int folder = launch.cgroup ? launch.cgroup->v2_folder() : -1;
  if (geteuid() != 0 || folder < 0) {
    return Unavailable("network", std::string("loopback: every host can be reached, because addresses can't be told apart ") +
                                      (geteuid() != 0 ? "unless the supervisor is started as root" : "without a cgroup v2"));
  }
  const absl::Status allowed = AllowLoopbackOnly(folder);
  if (allowed.ok()) return Active("network", "loopback: by BPF on its cgroup");
  return Unavailable("network", "loopback: every host can be reached: " + std::string(allowed.message()));
}

IsolationItem SomePorts(const SpawnSpec& spec, const LaunchSite& site, sandbox::Sockets& sockets) {
  std::string what = "ports:";
  for (uint16_t port : spec.reach.ports) what += " " + std::to_string(port);
  if (spec.reach.ports.empty()) what += " none";
  if (!spec.reach.lookups) sockets = sandbox::Sockets::kTcp;
  if (site.options.off.contains("landlock")) return Unavailable("network", what + "; every TCP port can be reached, because landlock is switched off");
  if (sandbox::LandlockAbi() < sandbox::kAbiWithPorts)
    return Unavailable("network", what + "; every TCP port can be reached, because the kernel's Landlock has no rules for them (Linux 6.7)");
  if (!HasFilter(site)) return Unavailable("network", what + "; UDP is not refused, because there is no seccomp filter");
  if (spec.reach.lookups) {
    return Unavailable("network", what + "; UDP is not refused, because a name must be looked up: give its address in store.url, and in the baseUrl "
                                         "of its clients");
  }
  return Active("network", what + ", by Landlock; no UDP");
}

IsolationItem Network(const SpawnSpec& spec, const LaunchSite& site, Launch& launch, sandbox::Sockets& sockets) {
  if (auto item = LeftOut(spec, site, "network")) return *item;
  IsolationItem item = NotAskedFor("network", "outbound");
  switch (spec.reach.network) {
    case NetworkAccess::kOutbound: break;
    case NetworkAccess::kNone: item = NoNetwork(spec, site, sockets, launch.plan); break;
    case NetworkAccess::kLoopback: item = LoopbackOnly(launch); break;
    case NetworkAccess::kPorts: item = SomePorts(spec, site, sockets); break;
  }
  if (!spec.reach.why_network.empty()) item.why += ": " + spec.reach.why_network;
  return item;
}

bool Within(const std::string& folder, const std::string& path) { return path == folder || path.rfind(folder + "/", 0) == 0; }

// Places in which nothing lies that the child needs can be its own. Landlock takes what is mounted below a place for a part of it, so
// what lies there can't be mounted back.
IsolationItem Tmp(const SpawnSpec& spec, const LaunchSite& site, ExecPlan& plan) {
  if (auto item = LeftOut(spec, site, "tmp")) return *item;
  if (const std::string& why = namespaces::Supported().mounts; !why.empty())
    return Unavailable("tmp", why + "; TMPDIR names a folder of its own");
  const auto& reach = spec.reach;
  auto asks_for = [&](const char* place) {
    auto lies_there = [&](const std::string& path) { return Within(place, path); };
    return std::any_of(reach.foreign_readable.begin(), reach.foreign_readable.end(), lies_there) ||
           std::any_of(reach.foreign_writable.begin(), reach.foreign_writable.end(), lies_there);
  };
  std::string needed, asked;
  for (const char* place : {"/tmp", "/var/tmp"}) {
    auto lies_there = [&](const std::string& path) { return Within(place, path); };
    std::vector<std::string> own = site.options.folder_roots;
    own.insert(own.end(), reach.readable.begin(), reach.readable.end());
    own.insert(own.end(), reach.writable.begin(), reach.writable.end());
    if (auto first = std::find_if(own.begin(), own.end(), lies_there); first != own.end()) {
      needed = *first;
    } else if (asks_for(place)) {
      asked = place;
    } else {
      plan.tmp_places.push_back(place);
    }
  }
  plan.tmp = spec.reach.tmp;
  if (plan.tmp.empty()) plan.tmp_places.clear();  // Inspect
  plan.namespaces |= CLONE_NEWNS;
  plan.shared_memory = !asks_for("/dev/shm");
  if (!plan.shared_memory) asked = "/dev/shm";
  if (!needed.empty()) return Unavailable("tmp", "what it needs lies there, " + needed + "; TMPDIR names a folder of its own");
  if (!asked.empty()) return NotAskedFor("tmp", "access.files names a place in " + asked + "; TMPDIR names a folder of its own");
  return Active("tmp", "/tmp, /var/tmp and /dev/shm of its own");
}

IsolationItem Proc(const SpawnSpec& spec, const LaunchSite& site, ExecPlan& plan) {
  if (auto item = LeftOut(spec, site, "proc")) return *item;
  for (const auto* paths : {&spec.reach.foreign_readable, &spec.reach.foreign_writable}) {
    if (std::find(paths->begin(), paths->end(), "/proc") != paths->end()) return NotAskedFor("proc", "access.files names /proc");
  }
  if (const std::string& why = namespaces::Supported().proc; !why.empty()) return Unavailable("proc", why);
  plan.namespaces |= CLONE_NEWNS;
  plan.proc = true;
  return Active("proc", "no processes of other users in /proc");
}

IsolationItem Ipc(const SpawnSpec& spec, const LaunchSite& site, ExecPlan& plan) {
  if (auto item = LeftOut(spec, site, "ipc")) return *item;
  if (const std::string& why = namespaces::Supported().ipc; !why.empty()) return Unavailable("ipc", why);
  plan.namespaces |= CLONE_NEWIPC;
  return Active("ipc", "System V objects and message queues of its own, which end with it");
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
      items.push_back(asked ? Unavailable(name, why) : NotAskedFor(name));
    }
  }
  IsolationItem& pids = *Find(items, "cgroup.pids");
  if (!pids.active() && spec.limits.pids > 0 && spec.change_user) {
    // The uid is the child's own, so counting by uid counts the child's processes.
    launch.plan.nproc = static_cast<rlim_t>(spec.limits.pids);
    pids = Active("cgroup.pids", "by RLIMIT_NPROC, because: " + pids.why);
  }
  launch.isolation.insert(launch.isolation.end(), items.begin(), items.end());
}

}  // namespace

absl::Status PrepareLaunch(const SpawnSpec& spec, const LaunchSite& site, Launch& launch) {
  if (!IsId(spec.id)) {
    return absl::InvalidArgumentError("'" + spec.id + "' is no id: letters, digits, '.', '-' and '_', at most " +
                                      std::to_string(kMaxIdLength));
  }
  if (spec.change_user && geteuid() != 0) {
    return absl::PermissionDeniedError("uid " + std::to_string(spec.uid) + " was asked for, and the supervisor does not run as root");
  }
  ExecPlan& plan = launch.plan;
  launch.kin = spec.kin;
  auto& items = launch.isolation;
  items.push_back(Uid(spec));
  items.push_back(spec.sandbox ? Active("no_new_privs") : NotAskedFor("no_new_privs"));
  items.push_back(Capabilities(spec, plan));
  items.push_back(Rlimits(spec, plan));
  MakeCgroup(spec, site.cgroups, launch);
  ASSIGN_OR_RETURN(IsolationItem landlock, Landlock(spec, site, plan));
  items.push_back(std::move(landlock));
  auto sockets = sandbox::Sockets::kIp;
  IsolationItem network = Network(spec, site, launch, sockets);
  items.push_back(Seccomp(spec, site, sockets, plan));
  items.push_back(std::move(network));
  items.push_back(Tmp(spec, site, plan));
  items.push_back(Proc(spec, site, plan));
  items.push_back(Ipc(spec, site, plan));
  plan.parent_death_signal = spec.graceful_signal != 0 ? spec.graceful_signal : SIGKILL;
  return absl::OkStatus();
}

std::string MissingMeasures(const std::vector<IsolationItem>& items) {
  std::string missing;
  for (const IsolationItem& item : items) {
    if (item.missing()) missing += (missing.empty() ? "" : ", ") + item.name + " (" + item.why + ")";
  }
  return missing;
}

void NoteFailure(const ShimReport& report, Launch& launch) {
  const char* name = report.step == ShimStep::kNproc ? "cgroup.pids" : report.step == ShimStep::kCapabilities ? "capabilities" : "rlimits";
  if (IsolationItem* item = Find(launch.isolation, name)) *item = Unavailable(name, Describe(report, launch.plan));
}

}  // namespace bulkhead
