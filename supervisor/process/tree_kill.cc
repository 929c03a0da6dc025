#include "supervisor/process/tree_kill.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <unordered_map>

namespace bulkhead {
namespace {

constexpr int kStopRounds = 64;             // a tree that still grows after these is killed as it is, and again
constexpr Millis kLongestPause{100};        // between rounds, when there is nothing to wait for but time

struct Stat {
  char state = 0;  // 0: there is no such process
  pid_t parent = 0;
  std::string name;
};

// The first fields of /proc/<pid>/stat; the second is a name that may hold spaces and parentheses.
Stat StatOf(pid_t pid) {
  char path[32], text[512];
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  UniqueFd fd(open(path, O_RDONLY | O_CLOEXEC));
  if (!fd) return {};
  ssize_t size = read(fd.get(), text, sizeof text - 1);
  if (size <= 0) return {};
  text[size] = 0;
  const char *name = strchr(text, '('), *name_end = strrchr(text, ')');
  Stat stat;
  if (name == nullptr || name_end == nullptr || sscanf(name_end + 1, " %c %d", &stat.state, &stat.parent) != 2) return {};
  stat.name.assign(name + 1, name_end);
  return stat;
}

pid_t ParentOf(pid_t pid) { return StatOf(pid).parent; }

// The numbers that name entries of a folder of /proc.
std::vector<pid_t> Numbers(const char* folder) {
  std::vector<pid_t> numbers;
  std::unique_ptr<DIR, int (*)(DIR*)> entries(opendir(folder), closedir);
  if (!entries) return numbers;
  while (dirent* entry = readdir(entries.get())) {
    char* end;
    long number = strtol(entry->d_name, &end, 10);
    if (number > 0 && *end == 0) numbers.push_back(static_cast<pid_t>(number));
  }
  return numbers;
}

// /proc/<pid>/task/<tid>/children is there on every common kernel (CONFIG_PROC_CHILDREN). It is quicker than reading all of
// /proc, and it cannot miss: while there is any child the list is not empty. A look through all of /proc can pass by a
// process that forks and ends all the time, before it is born and after it is dead.
bool HasChildrenFiles() {
  static const bool has = access("/proc/thread-self/children", R_OK) == 0;
  return has;
}

void AppendChildren(pid_t pid, std::vector<pid_t>& found) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/task", pid);
  for (pid_t thread : Numbers(path)) {
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", pid, thread);
    auto text = ReadFile(path);
    if (!text.ok()) continue;
    char* at = text->data();
    for (char* end; long child = strtol(at, &end, 10); at = end) found.push_back(static_cast<pid_t>(child));
  }
}

std::unordered_map<pid_t, std::vector<pid_t>> ChildrenByParent() {
  std::unordered_map<pid_t, std::vector<pid_t>> children;
  for (pid_t pid : Numbers("/proc")) {
    if (pid_t parent = ParentOf(pid); parent > 0) children[parent].push_back(pid);
  }
  return children;
}

bool Ended(int pidfd) {
  pollfd poll_fd{pidfd, POLLIN, 0};
  return poll(&poll_fd, 1, 0) == 1;
}

}  // namespace

std::vector<pid_t> Descendants(const std::vector<pid_t>& roots) {
  std::vector<pid_t> found;
  if (HasChildrenFiles()) {
    for (pid_t root : roots) AppendChildren(root, found);
    for (size_t next = 0; next < found.size(); ++next) AppendChildren(pid_t{found[next]}, found);
    return found;
  }
  auto children = ChildrenByParent();
  std::vector<pid_t> open = roots;
  while (!open.empty()) {
    pid_t pid = open.back();
    open.pop_back();
    for (pid_t child : children[pid]) {
      found.push_back(child);
      open.push_back(child);
    }
  }
  return found;
}

std::vector<pid_t> OwnChildren() {
  std::vector<pid_t> found;
  if (!HasChildrenFiles()) return ChildrenByParent()[getpid()];
  AppendChildren(getpid(), found);
  return found;
}

UniqueFd OpenPidfd(pid_t pid) { return UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0))); }

void SignalPidfd(int pidfd, int signal) {
  if (pidfd >= 0) syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0);
}

std::string NameOf(pid_t pid) {
  const Stat stat = StatOf(pid);
  return stat.state == 0 || stat.state == 'Z' || stat.state == 'X' ? "" : std::to_string(pid) + " " + stat.name;
}

std::map<pid_t, UniqueFd> StopAndKill(const MembersFn& members) {
  std::map<pid_t, UniqueFd> held;
  for (int round = 0; round < kStopRounds; ++round) {
    std::map<pid_t, UniqueFd> fresh;
    for (pid_t pid : members()) {
      if (held.contains(pid)) continue;
      if (UniqueFd fd = OpenPidfd(pid)) fresh[pid] = std::move(fd);
    }
    if (fresh.empty()) break;
    auto still = members();
    for (pid_t pid : still) {
      auto it = fresh.find(pid);
      if (it == fresh.end()) continue;
      SignalPidfd(it->second.get(), SIGSTOP);
      held[pid] = std::move(it->second);
    }
  }
  for (auto& [pid, fd] : held) SignalPidfd(fd.get(), SIGKILL);
  return held;
}

TreeKill::TreeKill(Loop& loop, Target target, std::function<void()> empty)
    : loop_(loop), target_(std::move(target)), empty_(std::move(empty)) {
  if (target_.main_pidfd >= 0) main_.Reset(fcntl(target_.main_pidfd, F_DUPFD_CLOEXEC, 0));
  Round();
}

TreeKill::~TreeKill() {
  loop_.Cancel(timer_);
  for (auto& [pid, fd] : waiting_) loop_.Unwatch(fd.get());
}

// Before the kill: afterwards there is nobody to ask.
void TreeKill::Note(const std::vector<pid_t>& members) {
  for (pid_t pid : members) {
    if (names_.contains(pid)) continue;
    if (std::string name = NameOf(pid); !name.empty()) names_[pid] = std::move(name);
  }
}

void TreeKill::Round() {
  timer_ = 0;
  Note(target_.members());
  std::map<pid_t, UniqueFd> killed;
  if (target_.kill_all) {
    // The pidfds are only to wait for: cgroup.kill reaches also what is forked meanwhile.
    for (pid_t pid : target_.members()) {
      if (UniqueFd fd = OpenPidfd(pid)) killed[pid] = std::move(fd);
    }
  }
  if (!target_.kill_all || !target_.kill_all()) killed = StopAndKill(target_.members);
  if (main_ && !Ended(main_.get())) {
    SignalPidfd(main_.get(), SIGKILL);
    killed[0] = UniqueFd(fcntl(main_.get(), F_DUPFD_CLOEXEC, 0));
  }
  // One that has ended and not been reaped says nothing more through its pidfd.
  std::erase_if(killed, [](const auto& entry) { return Ended(entry.second.get()); });
  if (!killed.empty()) {
    WaitFor(std::move(killed));
  } else if (target_.members().empty() && target_.release()) {
    // Posted: this may be the constructor, or called from within the owner's.
    timer_ = loop_.After(Millis(0), [this] {
      timer_ = 0;
      auto empty = std::move(empty_);
      empty();
    });
  } else {
    Again();
  }
}

void TreeKill::Again() {
  Millis pause = std::min(Millis(1 << std::min(idle_rounds_++, 10)), kLongestPause);
  timer_ = loop_.After(pause, [this] { Round(); });
}

void TreeKill::WaitFor(std::map<pid_t, UniqueFd> killed) {
  waiting_ = std::move(killed);
  for (auto& [pid, fd] : waiting_) {
    loop_.Watch(fd.get(), EPOLLIN, [this, pid = pid](uint32_t) {
      auto it = waiting_.find(pid);
      loop_.Unwatch(it->second.get());
      waiting_.erase(it);
      if (waiting_.empty()) Round();
    });
  }
}

}  // namespace bulkhead
