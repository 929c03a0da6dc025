// The only fork. A single-threaded process, split off before the daemon has a thread, that keeps the privileges the daemon
// drops: it clones children, signals them, reaps them and owns their cgroups. This header is the daemon's side of it:
// requests over a socketpair, answers on the control loop. When the daemon dies, whatever the reason, the spawner sees EOF,
// kills every tree, stops PostgreSQL (a child with `graceful_signal`) and leaves.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/base/clock.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/loop.h"
#include "supervisor/base/network_access.h"

namespace bulkhead {

// Bounds of one child, 0 = none. Each is applied where the machine can and reported in SpawnedProcess::isolation.
struct ProcessLimits {
  int64_t memory_bytes = 0;  // cgroup
  int32_t cpu_millis = 0;    // thousandths of a CPU, cgroup
  int32_t pids = 0;          // cgroup, else RLIMIT_NPROC when the uid is the child's own
  int32_t nofile = 0;        // RLIMIT_NOFILE; with a sandbox at most what the spawner has itself
  int64_t file_bytes = 0;    // RLIMIT_FSIZE: beyond, a write is answered SIGXFSZ
};

// What a child with a sandbox may reach beyond what every program needs (the system's libraries, /proc, harmless devices).
struct ReachSpec {
  std::vector<std::string> readable;  // to read and to execute, and to reach sockets in; a folder with all below it
  std::vector<std::string> writable;
  // Of these, what the child itself asks for: none may hold one of the folder roots or lie in it, wherever links lead.
  std::vector<std::string> foreign_readable, foreign_writable;
  std::string tmp;                    // a folder for it alone, of the writable ones: its /tmp and /var/tmp, where that can be
  NetworkAccess network = NetworkAccess::kOutbound;
  std::vector<uint16_t> ports;        // TCP, of kPorts
  bool lookups = false;               // of kPorts: UDP too, because a name must be looked up
  std::string why_network;            // for people: who says so
};

// What a child is to be. Paths are absolute.
struct SpawnSpec {
  std::string id;               // unique among all children ever, e.g. "consumption-monitor.0.3f2a"; also the cgroup's name
  std::string executable;
  std::vector<std::string> args;                           // argv[1..]; argv[0] is the executable
  std::vector<std::pair<std::string, std::string>> env;    // the whole environment; no secret belongs here
  std::string cwd;
  bool change_user = false;     // uid, gid below; only as root
  uid_t uid = 0;
  gid_t gid = 0;
  bool sandbox = false;         // all that stands in README.md of this room: for modules, not for PostgreSQL
  bool strict = false;          // with sandbox: refused (ISOLATION_INCOMPLETE) unless every measure is in force
  std::string kin;              // children of one name share a network namespace, which outlives them
  ReachSpec reach;              // with sandbox
  ProcessLimits limits;
  UniqueFd control;             // becomes fd 3 when set
  UniqueFd out, err;            // stdout and stderr; /dev/null when unset
  int graceful_signal = 0;      // on EOF of the daemon: this first (SIGINT for PostgreSQL), after all others are dead
  // What the record of it says beside who it is (instance_journal.h): no secret, one line each.
  std::vector<std::pair<std::string, std::string>> notes;
};

// One measure of the isolation of a child: whether it is in force, and why not.
struct IsolationItem {
  enum class State : uint8_t {
    kActive,
    kUnavailable,   // this machine can't
    kOff,           // Spawner::Options::off
    kNotAskedFor,   // by the child
  };
  // uid, no_new_privs, capabilities, rlimits, cgroup.memory, cgroup.cpu, cgroup.pids, landlock, seccomp, network, tmp, proc, ipc
  std::string name;
  State state = State::kUnavailable;
  std::string why;
  bool active() const { return state == State::kActive; }
  bool missing() const { return state == State::kUnavailable || state == State::kOff; }
};
// "landlock (switched off by isolation.off), tmp (…)"; empty when none is missing.
std::string MissingMeasures(const std::vector<IsolationItem>& items);
// Measures that an operator may switch off.
inline constexpr const char* kMeasuresToSwitchOff[] = {"landlock", "seccomp", "network", "tmp", "proc", "ipc"};

struct SpawnedProcess {
  pid_t pid = 0;      // for people; never signal it, use the Spawner
  std::vector<IsolationItem> isolation;
  std::string cpu_stat = {};  // file that tells for how long its CPU limit has held it back; empty: none does
};

struct ProcessExit {
  int exit_code = 0;        // when signal is 0
  int signal = 0;
  bool core_dumped = false;
  bool oom_killed = false;  // from the cgroup's events
  int forks_refused = 0;    // likewise, by its limit of processes; 0 where that is not kept by a cgroup
};

// A process of a child's tree that did not end by itself and was killed.
struct KilledProcess {
  std::string name;   // "4711 sleep"
  bool main = false;  // the child itself; false: something that it had started and left behind
};

// Lives on the control loop; not thread-safe. Answers come on the loop, never from inside the call.
class Spawner {
 public:
  struct Options {
    // "bulkhead-<hash of the data folder>": apart for two daemons on one machine. The cgroup is <name>.<pid of the spawner>, so
    // that a new daemon never meets its predecessor's; what a killed spawner has left under the name is swept.
    std::string cgroup_name;
    bool use_cgroups = true;  // false: trees are tracked by a keeper process each, as where no cgroup can be made
    // Where MakeFolder and RemoveFolder may work, by absolute paths; links below them are not followed. Empty: anywhere.
    std::vector<std::string> folder_roots;
    // As root: a child that would run as uid 0 is refused, whoever asks. The daemon sets it, because it parses hostile HTTP.
    bool refuse_root_children = false;
    // Ranges [first, last] of the uids and gids that children may be given; empty: any.
    std::vector<std::pair<uid_t, uid_t>> child_uids;
    std::vector<std::pair<gid_t, gid_t>> child_gids;
    std::set<std::string> off;  // of kMeasuresToSwitchOff: not applied
    // A descriptor of the daemon that stays open in the spawner for its life, which is that of the last child; -1: none.
    int keep_open = -1;
    // Where what is started is written down (instance_journal.h), an absolute path; empty: nowhere.
    std::string journal;
  };
  // Forks the spawner process. Before any thread exists and before privileges are dropped. Attach() comes later.
  static absl::StatusOr<std::unique_ptr<Spawner>> Fork(Options options);

  virtual ~Spawner() = default;  // closes the socket: the spawner process kills what is left and ends
  virtual void Attach(Loop& loop) = 0;

  // `spawned` once; an error (SPAWN_FAILED, ISOLATION_INCOMPLETE) names what failed in the shim, e.g. "execve /x/bin/y: Permission
  // denied". After success `exited`
  // comes once, when the process itself has ended (pidfd); its tree may still live until KillTree.
  virtual void Spawn(SpawnSpec spec, std::function<void(absl::StatusOr<SpawnedProcess>)> spawned,
                     std::function<void(ProcessExit)> exited) = 0;
  // What of its isolation a child of this `spec` would have, without starting it. Empty when it can't be told.
  virtual void Inspect(SpawnSpec spec, std::function<void(std::vector<IsolationItem>)> done) = 0;
  // To the process itself, through its pidfd. Harmless when it has ended.
  virtual void Signal(const std::string& id, int signal) = 0;
  // SIGKILL to everything the child has started, setsid or not (cgroup.kill, else freezing and iterating its cgroup, else
  // group and subreaper); `empty` when no process of it is left. Also releases the cgroup: after this the id is gone.
  virtual void KillTree(const std::string& id, std::function<void()> empty) = 0;
  // A folder for a child, made with privileges: `path` (its parent exists and belongs to the daemon) with owner, group and mode.
  virtual void MakeFolder(const std::string& path, uid_t uid, gid_t gid, mode_t mode, std::function<void(absl::Status)> done) = 0;
  // Removes a folder tree, or a file, under the daemon's data or run folder, never following links.
  virtual void RemoveFolder(const std::string& path, std::function<void(absl::Status)> done) = 0;
  virtual pid_t pid() const = 0;  // of the spawner process
  // Told before `empty` of a KillTree, when something of the tree had to be killed, by it or by Signal(SIGKILL).
  virtual void OnKilled(std::function<void(const std::string& id, const std::vector<KilledProcess>&)> killed) { (void)killed; }
  // Called once when the spawner process has ended by itself, with how ("it was ended by signal 9"): nothing can be started or ended any
  // more, and what was asked for is never answered. Without it that is fatal.
  virtual void OnLost(std::function<void(const std::string& how)> lost) { (void)lost; }
};

}  // namespace bulkhead
