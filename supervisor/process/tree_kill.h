// SIGKILL to everything a child has started, and the proof that nothing of it is left. Only the spawner process uses this.
// A pid that was read from a list may be another process by the time it is signalled; so each is opened as a pidfd, and
// signalled through it only if a second reading of the list still has it.
#pragma once

#include <sys/types.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "supervisor/base/fd.h"
#include "supervisor/base/loop.h"

namespace bulkhead {

// What descends from `roots` according to /proc, zombies included, without the roots themselves.
std::vector<pid_t> Descendants(const std::vector<pid_t>& roots);
// Processes whose parent is this one.
std::vector<pid_t> OwnChildren();

UniqueFd OpenPidfd(pid_t pid);
void SignalPidfd(int pidfd, int signal);  // harmless when the process has ended
// "4711 sleep": number and name, for people; empty when it has ended, reaped or not.
std::string NameOf(pid_t pid);

using MembersFn = std::function<std::vector<pid_t>()>;
// Stops all members until no new one appears, so that none can fork away, then kills them. Their pidfds, to wait on.
std::map<pid_t, UniqueFd> StopAndKill(const MembersFn& members);

// Rounds of killing and waiting, until a round finds nothing. Lives on the loop of the spawner process.
class TreeKill {
 public:
  struct Target {
    int main_pidfd = -1;              // the child itself: killed too, in the cgroup or not yet; stays the caller's
    MembersFn members;
    std::function<bool()> kill_all;   // one call that kills all members (cgroup.kill); false where there is none
    std::function<bool()> release;    // when no member is left; false: the kernel is not done with one, ask again
  };
  TreeKill(Loop& loop, Target target, std::function<void()> empty);
  ~TreeKill();
  // Who still ran and was killed, by NameOf(); complete when `empty` comes.
  const std::map<pid_t, std::string>& killed() const { return names_; }

 private:
  void Round();
  void Note(const std::vector<pid_t>& members);
  void WaitFor(std::map<pid_t, UniqueFd> killed);
  void Again();

  Loop& loop_;
  Target target_;
  std::function<void()> empty_;
  std::map<pid_t, UniqueFd> waiting_;
  std::map<pid_t, std::string> names_;
  UniqueFd main_;
  int idle_rounds_ = 0;  // rounds that had to come back for something no pidfd tells of
  Loop::TimerId timer_ = 0;
};

}  // namespace bulkhead
