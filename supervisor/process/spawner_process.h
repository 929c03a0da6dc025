// The spawner process itself: one thread, one loop. It takes requests from the daemon's socket, clones, signals, reaps and
// cleans up, and leaves when the daemon is gone and nothing of its children is left. It never opens a network socket, never
// reads what a child writes, and never trusts a length in a request.
#pragma once

#include <sys/types.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "supervisor/base/loop.h"
#include "supervisor/process/cgroup.h"
#include "supervisor/process/instance_journal.h"
#include "supervisor/process/launch.h"
#include "supervisor/process/namespaces.h"
#include "supervisor/process/tree_kill.h"
#include "supervisor/process/wire.h"

namespace bulkhead {

class SpawnerProcess {
 public:
  SpawnerProcess(UniqueFd socket, Spawner::Options options, pid_t daemon);
  ~SpawnerProcess();
  void Run();  // returns when the daemon is gone and so are all children

 private:
  // A child from its Spawn to the end of its tree.
  struct Child {
    enum class Phase { kStarting, kRunning, kFailed };
    uint64_t serial = 0;  // of the Spawn
    std::string id;
    int graceful_signal = 0;
    Phase phase = Phase::kStarting;
    Launch launch;
    std::string error;         // kFailed
    UniqueFd report;           // read end, until execve
    pid_t pid = 0;             // of the program; 0 until a keeper has told it
    UniqueFd pidfd;
    bool ended = false;        // the program was reaped
    bool end_told = false;     // and the daemon knows
    ProcessExit exit;
    pid_t keeper = 0;          // 0: there is none, or it has ended
    bool kept = false;         // started by a keeper
    bool kept_tree_ended = false;  // the keeper ended because no child of its was left
    UniqueFd keeper_socket;
    bool kill_wanted = false;
    std::unique_ptr<TreeKill> kill;
    bool tree_empty = false;
    std::vector<uint64_t> kill_serials;  // KillTree requests to answer
    InstanceRecord record;
    std::string killed_name;             // of the program, when it was asked to be killed while it ran
  };
  struct FolderRemoval {
    uint64_t serial = 0;
    UniqueFd result;  // read end
    std::string text;
  };

  void OnRequest(std::string_view packet, std::vector<UniqueFd>& fds);
  void Answer(const wire::Reply& reply) { daemon_socket_.Send(wire::Encode(reply)); }
  void AnswerStatus(wire::Reply::Kind kind, uint64_t serial, const absl::Status& status);

  // Starting.
  absl::Status Permit(const SpawnSpec& spec) const;
  void Spawn(uint64_t serial, SpawnSpec spec);
  void Inspect(uint64_t serial, SpawnSpec spec);
  absl::Status Start(Child& child, SpawnSpec& spec);
  absl::Status StartDirectly(Child& child);
  absl::Status StartKept(Child& child);
  void Record(Child& child);
  void ReadReport(Child& child);
  void OnKeeperSocket(Child& child);
  void SettleStart(Child& child);

  // Ending.
  void ReapAll();
  void OnEnded(Child& child, int code, int status);
  void TellEnd(Child& child);
  void OnKeeperEnded(Child& child, bool tree_ended);
  void EndTree(Child& child);
  std::vector<pid_t> KeptMembers(const Child& child) const;
  void MaybeFinish(Child& child);
  void Finish(Child& child);
  static std::vector<KilledProcess> Killed(const Child& child);

  void RemoveFolder(uint64_t serial, const std::string& path);
  void OnRemoval(pid_t pid);

  // Leaving.
  void Leave();
  void MaybeStop();

  Loop loop_;
  wire::PacketSocket daemon_socket_;
  Spawner::Options options_;
  CgroupTree cgroups_;
  namespaces::Networks networks_;
  InstanceJournal journal_;
  const std::string boot_id_ = BootId();
  UniqueFd child_signals_;
  std::map<std::string, std::unique_ptr<Child>> children_;
  std::map<pid_t, FolderRemoval> removals_;
  bool leaving_ = false;
  bool asked_gracefully_ = false;
};

// What the forked process does: becomes the spawner, serves, leaves. `daemon` is its parent.
[[noreturn]] void RunSpawnerProcess(UniqueFd socket, Spawner::Options options, pid_t daemon);

}  // namespace bulkhead
