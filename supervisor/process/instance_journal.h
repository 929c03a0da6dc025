// What was started, on disk: one small file for each child, written before it is cloned, completed once it runs, and removed when nothing
// of its tree is left. So whatever is killed, and in whichever moment, the next life of the supervisor can name what was left and end it.
// (It is also what a later one would need to take a running module over: the notes have its version, sockets and the hash of its token.)
//
// A process is never signalled by its number alone. A record is of one boot of the machine (boot_id); a number counts with the start time
// that the kernel gave it, and is signalled through a pidfd that was opened before both were compared. What a child has started itself is
// found by its cgroup, by the variable BULKHEAD_INSTANCE that it was given, and by descent.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/base/clock.h"
#include "supervisor/base/fd.h"

namespace bulkhead {

// The variable in a module's environment that holds its instance, and which what it starts inherits.
inline constexpr char kInstanceVariable[] = "BULKHEAD_INSTANCE";

// Who a process is, for as long as the machine is up: the number may be another's by the time that somebody looks, this may not.
struct ProcessIdentity {
  pid_t pid = 0;
  uint64_t start_time = 0;   // in clock ticks since the machine's start: field 22 of /proc/<pid>/stat
  uint64_t pidfd_inode = 0;  // of its pidfd, where the kernel makes them unique (6.9); 0 else
};
// Of a process that can't be reaped meanwhile, such as an own child; start_time 0 when there is none.
ProcessIdentity IdentityOf(pid_t pid, int pidfd = -1);

struct InstanceRecord {
  std::string id;          // of the child (SpawnSpec::id); also the file's name
  std::string executable;
  std::string boot_id;     // /proc/sys/kernel/random/boot_id
  uid_t uid = 0;
  int graceful_signal = 0;
  ProcessIdentity spawner;
  ProcessIdentity process;  // pid 0: an intent, it may or may not have been started
  std::string cgroup;       // the folder that tells its members; empty: none
  std::vector<std::pair<std::string, std::string>> notes;  // SpawnSpec::notes
};
std::string EncodeRecord(const InstanceRecord& record);
// False for what is not whole, or not of this form.
bool DecodeRecord(const std::string& text, InstanceRecord& record);

// For one thread. Failures are returned and harm nothing: a full disk is no reason to start nothing any more.
class InstanceJournal {
 public:
  // `folder` exists. Not through a link.
  static absl::StatusOr<InstanceJournal> Open(const std::string& folder);
  InstanceJournal() = default;  // keeps nothing
  absl::Status Write(const InstanceRecord& record);
  void Remove(const std::string& id);

 private:
  UniqueFd folder_;
};

std::string BootId();

// One child of an earlier life, and what became of it.
struct Leftover {
  std::string id;
  std::vector<std::pair<std::string, std::string>> notes;
  std::vector<std::string> ended;  // "4711 sleep": what still ran and was ended
  std::vector<std::string> left;   // what could not be ended: not permitted, or stuck in the kernel
};

struct LeftoverOptions {
  std::string folder;          // of the journal
  Millis predecessor{15'000};  // for a spawner of an earlier life that is still ending its children by itself
  Millis graceful{10'000};     // after graceful_signal, before SIGKILL
  Millis killed{3'000};        // after SIGKILL
};
// Ends what an earlier life left, says so in the log, and forgets it. Only records that belong to the caller's own user count: as root nobody else could have
// written them. Answers those children of which something still ran. Blocks; before the daemon has a thread, and while it is root.
std::vector<Leftover> EndLeftovers(const LeftoverOptions& options);

}  // namespace bulkhead
