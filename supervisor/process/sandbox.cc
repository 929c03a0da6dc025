#include "supervisor/process/sandbox.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdint>

namespace bulkhead::sandbox {
namespace {

// landlock(7). The header of the distribution stops at ABI 2, so these are written out.
constexpr uint32_t kCreateRulesetVersion = 1;
constexpr int kRulePathBeneath = 1, kRuleNetPort = 2;
enum Access : uint64_t {
  kExecute = 1 << 0,
  kWriteFile = 1 << 1,
  kReadFile = 1 << 2,
  kReadDir = 1 << 3,
  kRemoveDir = 1 << 4,
  kRemoveFile = 1 << 5,
  kMakeChar = 1 << 6,
  kMakeDir = 1 << 7,
  kMakeReg = 1 << 8,
  kMakeSock = 1 << 9,
  kMakeFifo = 1 << 10,
  kMakeBlock = 1 << 11,
  kMakeSym = 1 << 12,
  kRefer = 1 << 13,     // ABI 2
  kTruncate = 1 << 14,  // ABI 3
  kIoctlDev = 1 << 15,  // ABI 5
};
constexpr uint64_t kToRead = kExecute | kReadFile | kReadDir;
constexpr uint64_t kOfFiles = kExecute | kWriteFile | kReadFile | kTruncate | kIoctlDev;  // the others mean something for folders only
constexpr uint64_t kBindTcp = 1 << 0, kConnectTcp = 1 << 1;                               // ABI 4
constexpr uint64_t kScopeAbstractUnixSocket = 1 << 0;                                     // ABI 6
constexpr uint64_t kScopeSignal = 1 << 1;                                                 // ABI 6

struct RulesetAttr {
  uint64_t handled_access_fs;
  uint64_t handled_access_net;  // ABI 4
  uint64_t scoped;              // ABI 6
};
struct __attribute__((packed)) PathBeneathAttr {
  uint64_t allowed_access;
  int32_t parent_fd;
};
struct NetPortAttr {
  uint64_t allowed_access;
  uint64_t port;
};

// Where anybody writes: they keep nothing, or (/dev/shm) what the file modes already keep apart.
constexpr const char* kHarmlessDevices[] = {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/shm"};

// What programs in C, C++, Python, Java, Go or Node read to start and to look up names, users, times and certificates; tried with those of
// this repository. Of /etc only what is named here, because the rest is other programs' settings. /proc is whole: a rule is for a
// folder that is there now, and /proc/self of a child to come is not; what it tells of other processes the kernel guards by itself.
constexpr const char* kNeededByPrograms[] = {
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store",
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/ld.so.preload", "/etc/alternatives",
    "/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/etc/crypto-policies",
    "/etc/localtime", "/etc/timezone", "/etc/locale.alias", "/etc/locale.conf", "/etc/default/locale",
    "/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/hosts", "/etc/host.conf", "/etc/hostname", "/etc/resolv.conf", "/etc/gai.conf",
    "/etc/services", "/etc/protocols", "/etc/mime.types", "/etc/os-release", "/etc/machine-id", "/etc/krb5.conf",
    "/etc/python3", "/etc/java", "/etc/node",
    // Where /etc/resolv.conf leads to on many machines; the folder, because the file is replaced by a new one at each change.
    "/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager/resolv.conf",
    "/proc", "/sys/devices/system/cpu", "/sys/devices/system/node", "/sys/fs/cgroup", "/sys/kernel/mm/transparent_hugepage",
};

uint64_t HandledAccess(int abi) {
  uint64_t access = kToRead | kWriteFile | kRemoveDir | kRemoveFile | kMakeChar | kMakeDir | kMakeReg | kMakeSock | kMakeFifo | kMakeBlock |
                    kMakeSym;
  if (abi >= 2) access |= kRefer;
  if (abi >= 3) access |= kTruncate;
  if (abi >= 5) access |= kIoctlDev;
  return access;
}

UniqueFd OpenPlace(const std::string& path) { return UniqueFd(open(path.c_str(), O_PATH | O_CLOEXEC)); }

// 0 or an errno.
int Allow(int ruleset, const UniqueFd& place, uint64_t access) {
  struct stat info;
  if (!place || fstat(place.get(), &info) != 0) return errno;
  if (!S_ISDIR(info.st_mode)) access &= kOfFiles;
  PathBeneathAttr rule{access, place.get()};
  return syscall(SYS_landlock_add_rule, ruleset, kRulePathBeneath, &rule, 0) == 0 ? 0 : errno;
}

bool IsOrHolds(const std::string& folder, const std::string& path) {
  return folder == "/" || path == folder || path.rfind(folder + "/", 0) == 0;
}

// Where the opened place really is, links followed, must be apart from all of `roots`.
absl::Status CheckForeign(const UniqueFd& place, const std::string& path, const std::vector<std::string>& roots) {
  char real[PATH_MAX];
  ssize_t size = readlink(("/proc/self/fd/" + std::to_string(place.get())).c_str(), real, sizeof real);
  if (size < 0) return ErrnoStatus(errno, "access.files: " + path);
  const std::string where(real, static_cast<size_t>(size));
  for (const std::string& root : roots) {
    if (IsOrHolds(root, where) || IsOrHolds(where, root))
      return absl::PermissionDeniedError("access.files: " + path + " reaches into the supervisor's own folder " + root);
  }
  return absl::OkStatus();
}

absl::Status AllowAll(int ruleset, const std::vector<std::string>& paths, uint64_t access, const std::vector<std::string>* foreign_to) {
  for (const std::string& path : paths) {
    const UniqueFd place = OpenPlace(path);
    if (place && foreign_to != nullptr) RETURN_IF_ERROR(CheckForeign(place, path, *foreign_to));
    if (int error = Allow(ruleset, place, access); error != 0)
      return ErrnoStatus(error, (foreign_to != nullptr ? "access.files: " : "landlock: the place ") + path);
  }
  return absl::OkStatus();
}

absl::Status AllowPorts(int ruleset, const std::vector<uint16_t>& ports) {
  for (uint16_t port : ports) {
    NetPortAttr rule{kConnectTcp, port};
    if (syscall(SYS_landlock_add_rule, ruleset, kRuleNetPort, &rule, 0) != 0)
      return ErrnoStatus(errno, "landlock: the TCP port " + std::to_string(port));
  }
  return absl::OkStatus();
}

}  // namespace

bool AllowMounted(int ruleset, const char* path, bool write) {
  const int place = open(path, O_PATH | O_CLOEXEC);
  PathBeneathAttr rule{write ? HandledAccess(LandlockAbi()) : kToRead, place};
  return place >= 0 && syscall(SYS_landlock_add_rule, ruleset, kRulePathBeneath, &rule, 0) == 0;
}

int LandlockAbi() {
  static const int abi = static_cast<int>(syscall(SYS_landlock_create_ruleset, nullptr, 0, kCreateRulesetVersion));
  return abi < 0 ? 0 : abi;
}

absl::StatusOr<UniqueFd> LandlockRuleset(const ReachSpec& reach, const std::vector<std::string>& roots) {
  const int abi = LandlockAbi();
  const bool ports = abi >= kAbiWithPorts && reach.network == NetworkAccess::kPorts;
  const uint64_t access = HandledAccess(abi);
  // A module is reached through its Unix sockets: with kPorts it has no TCP port to listen on.
  RulesetAttr attr{access, ports ? kBindTcp | kConnectTcp : 0, abi >= kAbiWithScopes ? kScopeAbstractUnixSocket | kScopeSignal : 0};
  UniqueFd ruleset(static_cast<int>(syscall(SYS_landlock_create_ruleset, &attr, sizeof attr, 0)));
  if (!ruleset) return ErrnoStatus(errno, "landlock_create_ruleset");
  // Not every machine has all of these.
  for (const char* path : kNeededByPrograms) Allow(ruleset.get(), OpenPlace(path), kToRead);
  for (const char* device : kHarmlessDevices) Allow(ruleset.get(), OpenPlace(device), access);
  RETURN_IF_ERROR(AllowAll(ruleset.get(), reach.readable, kToRead, nullptr));
  RETURN_IF_ERROR(AllowAll(ruleset.get(), reach.writable, access, nullptr));
  RETURN_IF_ERROR(AllowAll(ruleset.get(), reach.foreign_readable, kToRead, &roots));
  RETURN_IF_ERROR(AllowAll(ruleset.get(), reach.foreign_writable, access, &roots));
  if (ports) RETURN_IF_ERROR(AllowPorts(ruleset.get(), reach.ports));
  return ruleset;
}

}  // namespace bulkhead::sandbox
