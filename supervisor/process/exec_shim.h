// From the spawner to the program: the clone, and what the child does before execve. Everything that allocates, reads files
// or can be looked up is done before the clone and lies in an ExecPlan; the child only makes system calls.
#pragma once

#include <linux/filter.h>
#include <sys/resource.h>
#include <sys/types.h>

#include <string>
#include <vector>

#include "supervisor/base/fd.h"
#include "supervisor/process/spawner.h"

namespace bulkhead {

// The steps of the shim, for the report.
enum class ShimStep : int32_t {
  kClone, kCgroup, kSession, kNetwork, kMounts, kDescriptors, kNoFile, kFileSize, kCore, kNproc, kCapabilities, kGroups, kGid, kUid,
  kParent, kNoNewPrivs, kChdir, kLandlock, kSeccomp, kExec,
};

// What the shim writes into the report pipe: one per tolerated or fatal failure. End of file without a fatal one: execve worked.
struct ShimReport {
  ShimStep step;
  int32_t error;  // errno
  int32_t fatal;
};

// Descriptors in it are at or above kFirstPlanFd, so that placing 0 to 3 overwrites none of them; all are close-on-exec.
inline constexpr int kFirstPlanFd = 10;

struct ExecPlan {
  // Owned text, and the arrays that point into it: filled by Fill(), not to be copied afterwards.
  std::string executable, cwd;
  std::vector<std::string> texts;
  std::vector<char*> argv, envp;

  UniqueFd null, out, err, control, report, landlock;
  std::vector<UniqueFd> cgroup_entries;

  uint64_t namespaces = 0;   // CLONE_NEW… of the clone
  UniqueFd network;          // a network namespace that is there already, to enter
  std::string tmp;           // with CLONE_NEWNS, where it is asked for: what is mounted at each of `tmp_places`
  std::vector<const char*> tmp_places;
  bool shared_memory = false;  // with CLONE_NEWNS: a /dev/shm of its own
  bool proc = false;           // with CLONE_NEWNS: a /proc without the processes of others

  bool change_user = false;
  uid_t uid = 0;
  gid_t gid = 0;
  bool sandbox = false;
  bool strict = false;       // what is tolerated otherwise is fatal
  bool drop_bounding_set = false;
  int last_capability = 0;
  const sock_filter* filter = nullptr;
  unsigned short filter_length = 0;
  rlim_t nofile = 0, nproc = 0, file_bytes = 0;  // 0: as inherited
  int parent_death_signal = 0;
  pid_t parent = 0;              // who must still be the parent, else there is nobody to report to
  mode_t mask = 027;

  ExecPlan() = default;
  ExecPlan(const ExecPlan&) = delete;
  ExecPlan& operator=(const ExecPlan&) = delete;

  // Copies the texts, moves the descriptors. `report_pipe` is the write end of the child's report pipe. An error names what is wrong with the spec.
  absl::Status Fill(SpawnSpec& spec, UniqueFd report_pipe);
};

// clone3 with a pidfd, into `cgroup_v2` when that is not -1, in new `namespaces` (CLONE_NEW…). As fork(): 0 in the child; -errno when it fails.
pid_t CloneProcess(int cgroup_v2, uint64_t namespaces, int* pidfd);
// In the child: all of the plan, then execve. Async-signal-safe.
[[noreturn]] void RunShim(const ExecPlan& plan);
// "execve /x/bin/y: Permission denied"
std::string Describe(const ShimReport& report, const ExecPlan& plan);

}  // namespace bulkhead
