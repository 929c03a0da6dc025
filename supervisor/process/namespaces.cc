#include "supervisor/process/namespaces.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>

#include "supervisor/base/limits.h"
#include "supervisor/process/exec_shim.h"

namespace bulkhead::namespaces {
namespace {

// A child in new namespaces that does `work`, which answers 0 or an errno: why it could not, or nothing.
std::string Try(uint64_t flags, int (*work)()) {
  int pidfd = -1;
  pid_t pid = CloneProcess(-1, flags, &pidfd);
  if (pid == 0) _exit(work());
  if (pid < 0) return strerror(-pid);
  close(pidfd);
  int status = 0;
  while (waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) return "its trial can't be awaited";
  }
  if (!WIFEXITED(status)) return "its trial was killed";
  return WEXITSTATUS(status) == 0 ? "" : strerror(WEXITSTATUS(status));
}

int TryMounts() { return PrivateMounts() && MountTmp("/tmp", "/tmp") && MountSharedMemory() ? 0 : errno; }
int TryProc() { return PrivateMounts() && MountProc() ? 0 : errno; }
int TryNothing() { return 0; }

std::string Reason(const char* what, uint64_t flags, int (*work)()) {
  if (geteuid() != 0) return "the supervisor was not started as root";
  std::string why = Try(flags, work);
  return why.empty() ? why : std::string("the supervisor may not make ") + what + ": " + why;
}

Support TryAll() {
  Support support;
  support.mounts = Reason("mounts for modules alone", CLONE_NEWNS, TryMounts);
  support.proc = support.mounts.empty() ? Reason("a /proc for modules alone", CLONE_NEWNS, TryProc) : support.mounts;
  support.network = Reason("network namespaces", CLONE_NEWNET, TryNothing);
  support.ipc = Reason("IPC namespaces", CLONE_NEWIPC, TryNothing);
  return support;
}

}  // namespace

const Support& Supported() {
  static const Support support = TryAll();
  return support;
}

// As a slave: what is mounted on the machine later is seen here too.
bool PrivateMounts() { return mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) == 0; }

bool MountTmp(const char* folder, const char* at) { return mount(folder, at, nullptr, MS_BIND, nullptr) == 0; }

bool MountSharedMemory() {
  return mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, limits::kSharedMemoryOptions) == 0;
}

bool MountProc() {
  // By its name, which Linux knows since 5.8: before, the option would have been that of every /proc of the machine.
  return mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "hidepid=invisible") == 0;
}

void RaiseLoopback() {
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return;  // a kernel without IP has no loopback either
  ifreq request{};
  strcpy(request.ifr_name, "lo");
  request.ifr_flags = IFF_UP;
  (void)!ioctl(fd, SIOCSIFFLAGS, &request);
  close(fd);
}

UniqueFd Networks::Get(const std::string& kin) {
  auto found = std::find_if(kept_.begin(), kept_.end(), [&](const auto& one) { return one.first == kin; });
  if (found == kept_.end()) return UniqueFd();
  kept_.splice(kept_.begin(), kept_, found);
  return UniqueFd(fcntl(found->second.get(), F_DUPFD_CLOEXEC, kFirstPlanFd));
}

void Networks::Keep(const std::string& kin, pid_t process) {
  UniqueFd network(open(("/proc/" + std::to_string(process) + "/ns/net").c_str(), O_RDONLY | O_CLOEXEC));
  if (kin.empty() || !network) return;
  kept_.remove_if([&](const auto& one) { return one.first == kin; });
  kept_.emplace_front(kin, std::move(network));
  if (kept_.size() > limits::kKeptNetworks) kept_.pop_back();
}

}  // namespace bulkhead::namespaces
