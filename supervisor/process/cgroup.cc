#include "supervisor/process/cgroup.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "supervisor/process/cgroup_files.h"
#include "supervisor/process/tree_kill.h"

namespace bulkhead {
namespace {

constexpr int64_t kCpuPeriodUs = 100'000;    // the kernel's default period
constexpr int64_t kLeastCpuQuotaUs = 1'000;  // the kernel refuses less

}  // namespace

std::vector<UniqueFd> Cgroup::EntryFiles(bool with_v2) const {
  std::vector<UniqueFd> files;
  for (const std::string* folder : {&v2_, &memory_, &cpu_, &pids_}) {
    if (folder->empty() || (folder == &v2_ && !with_v2)) continue;
    // In v1 by its one thread: "0" in cgroup.procs takes a lock that waits for an RCU grace period, some 20 ms; "0" in tasks does not
    // (Linux, cgroup_procs_write_start).
    const char* file = folder == &v2_ ? "/cgroup.procs" : "/tasks";
    files.emplace_back(open((*folder + file).c_str(), O_WRONLY | O_CLOEXEC));
  }
  return files;
}

std::vector<pid_t> Cgroup::Members() const { return cgroup_files::Members(tracked_); }

void Cgroup::ForbidForks() {
  for (const std::string* folder : {&pids_, &v2_}) {
    if (!folder->empty()) cgroup_files::Write(*folder + "/pids.max", "0");  // absent without the controller
  }
}

bool Cgroup::KillAll() { return !v2_.empty() && cgroup_files::Write(v2_ + "/cgroup.kill", "1") == 0; }

bool Cgroup::OomKilled() const {
  if (!memory_.empty()) return cgroup_files::Counter(memory_ + "/memory.oom_control", "oom_kill") > 0;
  return !v2_.empty() && cgroup_files::Counter(v2_ + "/memory.events", "oom_kill") > 0;
}

int Cgroup::ForksRefused() const {
  const std::string& folder = pids_.empty() ? v2_ : pids_;
  return folder.empty() ? 0 : static_cast<int>(cgroup_files::Counter(folder + "/pids.events", "max"));
}

std::string Cgroup::CpuStat() const {
  const std::string& folder = cpu_.empty() ? v2_ : cpu_;
  return folder.empty() ? "" : folder + "/cpu.stat";
}

bool Cgroup::Remove() {
  bool removed = true;
  for (const std::string* folder : {&v2_, &memory_, &cpu_, &pids_}) {
    if (!folder->empty()) removed = cgroup_files::RemoveFolder(*folder) && removed;
  }
  return removed;
}

const CgroupTree::Hierarchy* CgroupTree::Find(const std::string& controller) const {
  for (const Hierarchy& tree : trees_) {
    if (tree.v2 ? controller.empty() : tree.controller == controller) return &tree;
  }
  return nullptr;
}

void CgroupTree::Prepare() {
  prepared_ = true;
  for (const cgroup_files::Mounted& mounted : cgroup_files::OwnCgroups()) {
    Hierarchy tree;
    tree.v2 = mounted.v2;
    tree.own = mounted.own;
    tree.controller = mounted.controller;
    if (tree.v2) {
      PrepareV2(tree);
    } else {
      MakeFolder(tree);
    }
    trees_.push_back(std::move(tree));
  }
}

// Ends what a spawner that was killed has left beside the new folder: a folder of our name that nobody has locked.
void CgroupTree::Sweep(const std::string& own) {
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(own, ignored)) {
    std::string path = entry.path().string();
    if (entry.path().filename().string().rfind(name_ + ".", 0) != 0 || !entry.is_directory(ignored)) continue;
    UniqueFd lock = cgroup_files::Lock(path);
    if (!lock) continue;
    if (cgroup_files::Write(path + "/cgroup.kill", "1") != 0) {
      StopAndKill([&] { return cgroup_files::Members(path); });
    }
    cgroup_files::RemoveFolder(path);  // fails while they are dying; the next sweep gets it
  }
}

bool CgroupTree::MakeFolder(Hierarchy& tree) {
  Sweep(tree.own);
  std::string folder = tree.own + "/" + name_ + "." + std::to_string(getpid());
  if (mkdir(folder.c_str(), 0755) != 0 && errno != EEXIST) {
    tree.why = "no cgroup can be made in " + tree.own + ": " + strerror(errno);
    return false;
  }
  tree.lock = cgroup_files::Lock(folder);
  tree.folder = std::move(folder);
  return true;
}

void CgroupTree::PrepareV2(Hierarchy& tree) {
  if (!MakeFolder(tree)) return;
  if (Delegate(tree)) return;
  // The cgroup of this process has other processes, so it may give no controller to a folder below it (the "no internal
  // processes" rule). The root of the tree is exempt from it, and root may use it.
  auto root = cgroup_files::MountPointOf(tree.own);
  if (geteuid() != 0 || root.empty() || root == tree.own) return;
  Hierarchy at_root;
  at_root.v2 = true;
  at_root.own = root;
  if (!MakeFolder(at_root)) return;
  if (!Delegate(at_root) || at_root.controllers.size() <= tree.controllers.size()) {
    rmdir(at_root.folder.c_str());
    return;
  }
  if (!tree.moved_here) rmdir(tree.folder.c_str());
  tree = std::move(at_root);
}

// Enables memory, cpu and pids for the children of `tree`. False when the cgroup has them and yet they can't be enabled.
bool CgroupTree::Delegate(Hierarchy& tree) {
  auto offered = cgroup_files::Words(tree.own + "/cgroup.controllers");
  std::vector<std::string> wanted;
  for (const char* controller : {"memory", "cpu", "pids"}) {
    if (std::find(offered.begin(), offered.end(), controller) != offered.end()) wanted.push_back(controller);
  }
  auto enable_own = [&] {
    int error = 0;
    for (const std::string& c : wanted) {
      if (int e = cgroup_files::Write(tree.own + "/cgroup.subtree_control", "+" + c); e != 0) error = e;
    }
    return error;
  };
  int error = enable_own();
  if (error == EBUSY) {
    // Only when the daemon and this process are alone there may they move aside: a unit with Delegate=yes, or a container.
    auto here = cgroup_files::Members(tree.own);
    bool alone = std::all_of(here.begin(), here.end(), [&](pid_t pid) { return pid == daemon_ || pid == getpid(); });
    std::string aside = tree.folder + "/supervisor";
    if (alone && mkdir(aside.c_str(), 0755) == 0) {
      tree.moved_here = true;
      for (pid_t pid : here) cgroup_files::Write(aside + "/cgroup.procs", std::to_string(pid));
      error = enable_own();
    }
  }
  for (const std::string& c : wanted) {
    // With `supervisor` inside it the folder itself has no processes, so the rule holds there too.
    if (cgroup_files::Write(tree.folder + "/cgroup.subtree_control", "+" + c) == 0) tree.controllers.push_back(c);
  }
  if (tree.controllers.size() == wanted.size()) return true;
  tree.controllers_why = "the cgroup " + tree.own + " does not hand its controllers on: " +
                         (error == EBUSY ? "it holds other processes; run it as a service with Delegate=yes" : strerror(error));
  return false;
}

IsolationItem CgroupTree::Limit(Cgroup& cgroup, const std::string& id, const std::string& controller, int64_t value) {
  IsolationItem item{"cgroup." + controller, IsolationItem::State::kUnavailable, ""};
  const Hierarchy* v1 = Find(controller);
  const Hierarchy* v2 = Find("");
  bool in_v2 = !cgroup.v2_.empty() && std::find(v2->controllers.begin(), v2->controllers.end(), controller) != v2->controllers.end();
  std::string& v1_folder = controller == "memory" ? cgroup.memory_ : controller == "cpu" ? cgroup.cpu_ : cgroup.pids_;
  // memory always, because it is what tells an OOM kill from another SIGKILL.
  if (!in_v2 && v1 != nullptr && !v1->folder.empty() && (value > 0 || controller == "memory")) {
    std::string folder = v1->folder + "/" + id;
    if (mkdir(folder.c_str(), 0755) == 0) {
      v1_folder = folder;
    } else {
      item.why = "mkdir " + folder + ": " + strerror(errno);
    }
  }
  if (value <= 0) {
    item.state = IsolationItem::State::kNotAskedFor;
    item.why = "not asked for";
    return item;
  }
  if (!in_v2 && v1_folder.empty()) {
    if (item.why.empty() && v1 != nullptr) item.why = v1->why;
    if (item.why.empty() && v2 != nullptr) item.why = v2->folder.empty() ? v2->why : v2->controllers_why;
    if (item.why.empty()) item.why = "this machine has no " + controller + " controller";
    return item;
  }
  int error = 0;
  if (controller == "memory") {
    if (in_v2) {
      error = cgroup_files::Write(cgroup.v2_ + "/memory.max", std::to_string(value));
      cgroup_files::Write(cgroup.v2_ + "/memory.swap.max", "0");  // absent without swap accounting
    } else {
      error = cgroup_files::Write(v1_folder + "/memory.limit_in_bytes", std::to_string(value));
      cgroup_files::Write(v1_folder + "/memory.memsw.limit_in_bytes", std::to_string(value));
    }
  } else if (controller == "cpu") {
    std::string quota = std::to_string(std::max(value * kCpuPeriodUs / 1000, kLeastCpuQuotaUs));
    std::string period = std::to_string(kCpuPeriodUs);
    if (in_v2) {
      error = cgroup_files::Write(cgroup.v2_ + "/cpu.max", quota + " " + period);
    } else {
      cgroup_files::Write(v1_folder + "/cpu.cfs_period_us", period);
      error = cgroup_files::Write(v1_folder + "/cpu.cfs_quota_us", quota);
    }
  } else {
    error = cgroup_files::Write((in_v2 ? cgroup.v2_ : v1_folder) + "/pids.max", std::to_string(value));
  }
  if (error == 0) item.state = IsolationItem::State::kActive;
  if (error != 0) item.why = std::string("the kernel refused the limit: ") + strerror(error);
  return item;
}

absl::StatusOr<std::unique_ptr<Cgroup>> CgroupTree::Make(const std::string& id, const ProcessLimits& limits,
                                                         std::vector<IsolationItem>& items) {
  if (!prepared_) Prepare();
  auto cgroup = std::make_unique<Cgroup>();
  if (const Hierarchy* v2 = Find(""); v2 != nullptr && !v2->folder.empty()) {
    std::string folder = v2->folder + "/" + id;
    if (mkdir(folder.c_str(), 0755) == 0) {
      cgroup->v2_ = folder;
      cgroup->v2_folder_.Reset(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    }
  }
  items.push_back(Limit(*cgroup, id, "memory", limits.memory_bytes));
  items.push_back(Limit(*cgroup, id, "cpu", limits.cpu_millis));
  items.push_back(Limit(*cgroup, id, "pids", limits.pids));
  if (cgroup->v2_.empty() && cgroup->pids_.empty()) {
    // Without v2 the tree is tracked in v1, best where forks can be forbidden.
    if (const Hierarchy* pids = Find("pids"); pids != nullptr && !pids->folder.empty()) {
      std::string folder = pids->folder + "/" + id;
      if (mkdir(folder.c_str(), 0755) == 0) cgroup->pids_ = folder;
    }
  }
  for (const std::string* folder : {&cgroup->v2_, &cgroup->pids_, &cgroup->memory_, &cgroup->cpu_}) {
    if (cgroup->tracked_.empty()) cgroup->tracked_ = *folder;
  }
  if (!cgroup->tracked_.empty()) return cgroup;
  for (const Hierarchy& tree : trees_) {
    if (!tree.why.empty()) return absl::UnavailableError(tree.why);
  }
  return absl::UnavailableError("this machine has no usable cgroup tree");
}

void CgroupTree::Remove() {
  for (Hierarchy& tree : trees_) {
    if (tree.folder.empty()) continue;
    if (tree.moved_here) {
      for (const char* controller : {"memory", "cpu", "pids"}) {
        cgroup_files::Write(tree.folder + "/cgroup.subtree_control", std::string("-") + controller);
        cgroup_files::Write(tree.own + "/cgroup.subtree_control", std::string("-") + controller);
      }
      // This process, and the daemon when it still lives.
      for (pid_t pid : cgroup_files::Members(tree.folder)) cgroup_files::Write(tree.own + "/cgroup.procs", std::to_string(pid));
    }
    cgroup_files::RemoveFolder(tree.folder);
  }
  trees_.clear();
}

}  // namespace bulkhead
