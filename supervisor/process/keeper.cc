#include "supervisor/process/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string_view>
#include <vector>

#include "supervisor/process/tree_kill.h"
#include "supervisor/process/wire.h"

namespace bulkhead {
namespace {

constexpr int kKeeperSocket = 3;
constexpr int kSignalFd = 4;
constexpr int kGracefulMs = 10'000, kLookMs = 20;  // an end in order, before SIGKILL

void Tell(int socket, const KeeperMessage& message, std::vector<UniqueFd> fds = {}) {
  wire::SendPacket(socket, std::string_view(reinterpret_cast<const char*>(&message), sizeof message), fds);
}

// False when no child is left: the one proof that a tree has ended which no race can spoil.
bool ReapAll(int socket, pid_t child) {
  for (;;) {
    siginfo_t info{};
    if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG) != 0) return errno != ECHILD;
    if (info.si_pid == 0) return true;
    if (info.si_pid == child) Tell(socket, {KeeperMessage::Kind::kExited, child, info.si_code, info.si_status});
  }
}

// PostgreSQL is stopped in order, as its spawner would have done it.
void EndInOrder(pid_t child, int signal) {
  for (int waited = 0; waited < kGracefulMs; waited += kLookMs) {
    siginfo_t info{};
    if (waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == child) return;
    if (waited == 0) {
      kill(child, signal);
      kill(child, SIGCONT);  // a stopped process can't act on it
    }
    poll(nullptr, 0, kLookMs);
  }
}

// The spawner was killed, so nobody else ends this tree.
[[noreturn]] void KillAllAndLeave() {
  for (;;) {
    StopAndKill([] { return Descendants({getpid()}); });
    if (waitid(P_ALL, 0, nullptr, WEXITED) != 0 && errno == ECHILD) _exit(kKeeperDone);
  }
}

}  // namespace

void RunKeeper(ExecPlan& plan, UniqueFd socket) {
  prctl(PR_SET_NAME, "bulkhead-keep", 0, 0, 0);
  prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  setsid();
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, nullptr);
  sigset_t child_ended;
  sigemptyset(&child_ended);
  sigaddset(&child_ended, SIGCHLD);

  plan.parent = getpid();
  int pidfd = -1;
  pid_t child = CloneProcess(-1, plan.namespaces, &pidfd);
  if (child == 0) RunShim(plan);
  if (child < 0) {
    ShimReport report{ShimStep::kClone, -child, 1};
    (void)!write(plan.report.get(), &report, sizeof report);
    _exit(1);
  }
  std::vector<UniqueFd> fds;
  fds.emplace_back(pidfd);
  Tell(socket.get(), {KeeperMessage::Kind::kStarted, child, 0, 0}, std::move(fds));

  // Nothing inherited is kept open: neither the child's report pipe nor the spawner's socket to the daemon.
  dup2(plan.null.get(), 0);
  dup2(plan.null.get(), 1);
  dup2(plan.null.get(), 2);
  int signals = signalfd(-1, &child_ended, 0);
  int high_socket = fcntl(socket.get(), F_DUPFD, kFirstPlanFd);
  int high_signals = fcntl(signals, F_DUPFD, kFirstPlanFd);
  dup2(high_socket, kKeeperSocket);
  dup2(high_signals, kSignalFd);
  syscall(SYS_close_range, kSignalFd + 1, ~0U, 0);
  for (;;) {
    pollfd fds_to_watch[] = {{kKeeperSocket, POLLIN, 0}, {kSignalFd, POLLIN, 0}};
    if (poll(fds_to_watch, 2, -1) < 0) continue;
    if (fds_to_watch[1].revents != 0) {
      signalfd_siginfo info;
      (void)!read(kSignalFd, &info, sizeof info);
      if (!ReapAll(kKeeperSocket, child)) _exit(kKeeperDone);
    }
    if (fds_to_watch[0].revents & (POLLHUP | POLLIN)) {
      if (plan.parent_death_signal != SIGKILL) EndInOrder(child, plan.parent_death_signal);
      KillAllAndLeave();
    }
  }
}

}  // namespace bulkhead
