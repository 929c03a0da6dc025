#include "supervisor/process/sandbox.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>

namespace bulkhead::sandbox {
namespace {

// landlock(7). The header of the distribution stops at ABI 2, so these are written out.
constexpr uint32_t kCreateRulesetVersion = 1;
constexpr int kRulePathBeneath = 1;
enum Access : uint64_t {
  kWriteFile = 1 << 1,
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
};
constexpr uint64_t kScopeAbstractUnixSocket = 1 << 0;  // ABI 6
constexpr uint64_t kScopeSignal = 1 << 1;              // ABI 6

struct RulesetAttr {
  uint64_t handled_access_fs;
  uint64_t handled_access_net;  // ABI 4
  uint64_t scoped;              // ABI 6
};
struct __attribute__((packed)) PathBeneathAttr {
  uint64_t allowed_access;
  int32_t parent_fd;
};

// Where anybody writes: they keep nothing, or (/dev/shm) what the file modes already keep apart.
constexpr const char* kHarmlessDevices[] = {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/shm"};

uint64_t HandledAccess(int abi) {
  uint64_t access = kWriteFile | kRemoveDir | kRemoveFile | kMakeChar | kMakeDir | kMakeReg | kMakeSock | kMakeFifo | kMakeBlock | kMakeSym;
  if (abi >= 2) access |= kRefer;
  if (abi >= 3) access |= kTruncate;
  return access;
}

// 0 or an errno.
int Allow(int ruleset, const std::string& path, uint64_t access) {
  UniqueFd place(open(path.c_str(), O_PATH | O_CLOEXEC));
  struct stat info;
  if (!place || fstat(place.get(), &info) != 0) return errno;
  if (!S_ISDIR(info.st_mode)) access &= kWriteFile | kTruncate;  // the others mean something for folders only
  PathBeneathAttr rule{access, place.get()};
  return syscall(SYS_landlock_add_rule, ruleset, kRulePathBeneath, &rule, 0) == 0 ? 0 : errno;
}

#if defined(__x86_64__)
constexpr uint32_t kNativeArch = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr uint32_t kNativeArch = AUDIT_ARCH_AARCH64;
#else
constexpr uint32_t kNativeArch = 0;
#endif

constexpr uint32_t kX32Bit = 0x40000000;  // x86-64's second set of system call numbers, which would pass a deny-list
constexpr uint32_t kNamespaceFlags =
    CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET;

constexpr long kDenied[] = {
    // file systems
    SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot, SYS_swapon, SYS_swapoff, SYS_quotactl, SYS_open_by_handle_at,
    SYS_move_mount, SYS_open_tree, SYS_fsopen, SYS_fsconfig, SYS_fsmount, SYS_fspick, SYS_mount_setattr,
    // namespaces
    SYS_unshare, SYS_setns,
    // code in the kernel
    SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_kexec_load, SYS_kexec_file_load, SYS_bpf, SYS_perf_event_open,
    SYS_userfaultfd,
    // other processes
    SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_pidfd_getfd,
    // keys
    SYS_add_key, SYS_request_key, SYS_keyctl,
    // the machine
    SYS_reboot, SYS_acct, SYS_syslog, SYS_settimeofday, SYS_clock_settime, SYS_sethostname, SYS_setdomainname, SYS_vhangup,
#if defined(__x86_64__)
    SYS_iopl, SYS_ioperm,
#endif
};

std::vector<sock_filter> BuildFilter() {
  std::vector<sock_filter> code;
  if (kNativeArch == 0) return code;
  const sock_filter deny = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
  auto load = [&](size_t offset) { code.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset))); };
  load(offsetof(seccomp_data, arch));
  code.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kNativeArch, 1, 0));
  code.push_back(deny);  // 32-bit calls
  load(offsetof(seccomp_data, nr));
#if defined(__x86_64__)
  code.push_back(BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, kX32Bit, 0, 1));
  code.push_back(deny);
#endif
  for (long number : kDenied) {
    code.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(number), 0, 1));
    code.push_back(deny);
  }
  // A filter can't see the flags of clone3, which lie in memory: without it the C library falls back to clone.
  code.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 0, 1));
  code.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS));
  code.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 3));
  load(offsetof(seccomp_data, args[0]));  // the low half, on a little-endian machine
  code.push_back(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, kNamespaceFlags, 0, 1));
  code.push_back(deny);
  code.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  return code;
}

}  // namespace

int LandlockAbi() {
  static const int abi = static_cast<int>(syscall(SYS_landlock_create_ruleset, nullptr, 0, kCreateRulesetVersion));
  return abi < 0 ? 0 : abi;
}

absl::StatusOr<UniqueFd> LandlockRuleset(const std::vector<std::string>& writable) {
  int abi = LandlockAbi();
  RulesetAttr attr{HandledAccess(abi), 0, abi >= 6 ? kScopeAbstractUnixSocket | kScopeSignal : 0};
  UniqueFd ruleset(static_cast<int>(syscall(SYS_landlock_create_ruleset, &attr, sizeof attr, 0)));
  if (!ruleset) return ErrnoStatus(errno, "landlock_create_ruleset");
  for (const char* device : kHarmlessDevices) Allow(ruleset.get(), device, attr.handled_access_fs);  // not every machine has all
  for (const std::string& path : writable) {
    if (int error = Allow(ruleset.get(), path, attr.handled_access_fs); error != 0) {
      return ErrnoStatus(error, "landlock: the writable place " + path);
    }
  }
  return ruleset;
}

const std::vector<sock_filter>& SyscallFilter() {
  static const std::vector<sock_filter> filter = BuildFilter();
  return filter;
}

}  // namespace bulkhead::sandbox
