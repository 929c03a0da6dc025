// The cgroups of the spawner's children. One folder for this spawner, below the cgroup it runs in, and below that one for
// each child: in the v2 tree, which can kill a tree even where it has no controllers (hybrid machines), and in those v1
// trees that hold the limits there. Only the spawner process uses this.
//
// <own cgroup>/<name>.<pid of the spawner>/<id of the child>
//
// The folder carries the spawner's pid, so that a new daemon never meets the one of its predecessor, whose spawner may still
// be ending PostgreSQL. A flock(2) on the folder says that its spawner lives; what has no lock was left by a spawner that
// was killed, and is swept.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/base/fd.h"
#include "supervisor/process/spawner.h"

namespace bulkhead {

// The cgroup folders of one child, and its processes as the kernel knows them.
class Cgroup {
 public:
  // The v2 folder for CLONE_INTO_CGROUP, -1 where there is none.
  int v2_folder() const { return v2_folder_.get(); }
  // One file of each tree, for writing: the child, which has one thread, writes "0" to enter. Without v2 when the clone put it there.
  std::vector<UniqueFd> EntryFiles(bool with_v2) const;
  // Thread group leaders in it now, zombies excepted.
  std::vector<pid_t> Members() const;
  void ForbidForks();     // pids.max = 0, where there is a pids controller
  bool KillAll();         // cgroup.kill; false where the kernel has none (before 5.14, or v1)
  bool OomKilled() const;
  int ForksRefused() const;     // by its limit of processes
  std::string CpuStat() const;  // file that tells for how long its CPU limit has held it back; empty: none does
  const std::string& tracked() const { return tracked_; }  // the folder whose members are the tree's
  bool Remove();          // false while the kernel still counts a process in it

 private:
  friend class CgroupTree;
  std::string v2_;                      // folder in the v2 tree, may be empty
  std::string memory_, cpu_, pids_;     // v1 folders, each may be empty
  std::string tracked_;                 // the one whose members count
  UniqueFd v2_folder_;
};

class CgroupTree {
 public:
  CgroupTree(std::string name, pid_t daemon) : name_(std::move(name)), daemon_(daemon) {}
  // A child's cgroup with its limits, or why there can be none. Adds cgroup.memory, cgroup.cpu and cgroup.pids to `items`
  // in both cases. The first call makes the spawner's own folder and sweeps what killed spawners left.
  absl::StatusOr<std::unique_ptr<Cgroup>> Make(const std::string& id, const ProcessLimits& limits, std::vector<IsolationItem>& items);
  // Removes the spawner's own folders; when all children are gone.
  void Remove();

 private:
  // One mounted hierarchy and this spawner's folder in it.
  struct Hierarchy {
    bool v2 = false;
    std::string controller;  // of v1: memory, cpu or pids
    std::string own;         // folder of the cgroup this process is in
    std::string folder;      // own + "/" + name.pid, empty when it can't be made
    UniqueFd lock;
    std::string why;         // when `folder` is empty
    std::vector<std::string> controllers;  // of v2: those that children can have
    std::string controllers_why;           // why not all
    bool moved_here = false;               // v2: daemon and spawner sit in <folder>/supervisor
  };
  void Prepare();
  void PrepareV2(Hierarchy& tree);
  bool MakeFolder(Hierarchy& tree);
  void Sweep(const std::string& own);
  bool Delegate(Hierarchy& tree);
  const Hierarchy* Find(const std::string& controller) const;
  IsolationItem Limit(Cgroup& cgroup, const std::string& id, const std::string& controller, int64_t value);

  std::string name_;
  pid_t daemon_;
  bool prepared_ = false;
  std::vector<Hierarchy> trees_;
};

}  // namespace bulkhead
