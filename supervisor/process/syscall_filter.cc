// The system calls that modules don't get. The list was read beside what container engines leave out (Moby's default profile,
// moby/profiles seccomp/default.json, and containerd's), and the groups that systemd.exec(5) names for SystemCallFilter=: what is in @clock,
// @cpu-emulation, @debug, @keyring, @module, @mount, @obsolete, @raw-io, @reboot or @swap is here, unless a program without any capability
// uses it in earnest. It is a deny-list, because modules are written in any language: a call that is new to us must not break one.
#include <errno.h>
#include <linux/audit.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <utility>
#include <vector>

#include "supervisor/process/sandbox.h"

namespace bulkhead::sandbox {
namespace {

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
constexpr uint32_t kSocketType = 0xf;            // of the second argument of socket(2), beside its flags
constexpr uint32_t kFastOpen = MSG_FASTOPEN;     // a connection without connect(2), which Landlock's rules for ports don't see
// What Moby's profile lets personality(2) be: Linux, Linux of 32 bits, the same without a version of 2.6, and the question.
constexpr uint32_t kPersonalities[] = {0, 0x8, 0x20000, 0x20008, 0xffffffff};

constexpr long kDenied[] = {
    // file systems, and files past their paths
    SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot, SYS_swapon, SYS_swapoff, SYS_quotactl, SYS_quotactl_fd, SYS_open_by_handle_at,
    SYS_move_mount, SYS_open_tree, SYS_fsopen, SYS_fsconfig, SYS_fsmount, SYS_fspick, SYS_mount_setattr, SYS_fanotify_init,
    // namespaces
    SYS_unshare, SYS_setns,
    // code in the kernel, and what reads it. io_uring does system calls that no filter sees: sockets of every kind among them; and it has
    // been the way out of more than one sandbox (moby/moby#46762). Programs that use it know how to do without.
    SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_kexec_load, SYS_kexec_file_load, SYS_bpf, SYS_perf_event_open,
    SYS_userfaultfd, SYS_lookup_dcookie, SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register,
    // other processes
    SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_process_madvise, SYS_process_mrelease, SYS_pidfd_getfd, SYS_kcmp,
    SYS_migrate_pages, SYS_move_pages,
    // keys, which are no namespace's
    SYS_add_key, SYS_request_key, SYS_keyctl,
    // the machine
    SYS_reboot, SYS_acct, SYS_syslog, SYS_settimeofday, SYS_clock_settime, SYS_sethostname, SYS_setdomainname,
    SYS_vhangup, SYS_nfsservctl,
#if defined(__x86_64__)
    SYS_iopl, SYS_ioperm, SYS_modify_ldt, SYS_uselib, SYS_ustat, SYS_sysfs, SYS__sysctl, SYS_create_module, SYS_get_kernel_syms,
    SYS_query_module,
#endif
};

// A filter is cheap where its verdict hangs on the number alone: since Linux 5.11 those that are always allowed are not asked about
// again. So arguments are looked at for few calls, and none that carries data but where TCP is bounded.
class FilterWriter {
 public:
  std::vector<sock_filter> Write(Sockets sockets) {
    if (kNativeArch == 0) return {};
    Load(offsetof(seccomp_data, arch));
    JumpIf(BPF_JEQ, kNativeArch, 1, 0);
    Return(SECCOMP_RET_ERRNO | EPERM);  // 32-bit calls
    Load(offsetof(seccomp_data, nr));
#if defined(__x86_64__)
    JumpIf(BPF_JGE, kX32Bit, 0, 1);
    Return(SECCOMP_RET_ERRNO | EPERM);
#endif
    if (sockets == Sockets::kTcp) {
      for (auto [number, flags] : {std::pair<long, int>{SYS_sendto, 3}, {SYS_sendmsg, 2}, {SYS_sendmmsg, 3}}) {
        Only(number, {Argument(flags), Jump(BPF_JSET, kFastOpen, 0, 1), Deny(EPERM)});
      }
    }
    for (long number : kDenied) Only(number, {Deny(EPERM)}, false);
    // A filter can't see the flags of clone3, which lie in memory: without it the C library falls back to clone.
    Only(SYS_clone3, {Deny(ENOSYS)}, false);
    Only(SYS_clone, {Argument(0), Jump(BPF_JSET, kNamespaceFlags, 0, 1), Deny(EPERM)});
    // Not of another process: of the same uid the supervisor would be one, where it is not root.
    Only(SYS_prlimit64, {Argument(0), Jump(BPF_JEQ, 0, 1, 0), Deny(EPERM)});
    Personality();
    Socket(sockets);
    Return(SECCOMP_RET_ALLOW);
    return std::move(code_);
  }

 private:
  static sock_filter Jump(uint16_t test, uint32_t value, uint8_t yes, uint8_t no) {
    return BPF_JUMP(static_cast<uint16_t>(BPF_JMP | test | BPF_K), value, yes, no);
  }
  static sock_filter Deny(int error) { return BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<uint32_t>(error)); }
  // The low half of it, on a little-endian machine.
  static sock_filter Argument(int index) {
    return BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offsetof(seccomp_data, args) + sizeof(uint64_t) * static_cast<size_t>(index)));
  }
  static sock_filter Allow() { return BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW); }
  static sock_filter And(uint32_t mask) { return BPF_STMT(BPF_ALU | BPF_AND | BPF_K, mask); }

  void Load(size_t offset) { code_.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset))); }
  void JumpIf(uint16_t test, uint32_t value, uint8_t yes, uint8_t no) { code_.push_back(Jump(test, value, yes, no)); }
  void Return(uint32_t verdict) { code_.push_back(BPF_STMT(BPF_RET | BPF_K, verdict)); }

  // `body` for the call `number` alone; what it lets through is allowed, because the number is no longer in the accumulator.
  void Only(long number, std::initializer_list<sock_filter> body, bool falls_through = true) {
    const auto size = static_cast<uint8_t>(body.size() + (falls_through ? 1 : 0));
    JumpIf(BPF_JEQ, static_cast<uint32_t>(number), 0, size);
    code_.insert(code_.end(), body);
    if (falls_through) code_.push_back(Allow());
  }

  void Personality() {
    std::vector<sock_filter> body{Argument(0)};
    for (uint32_t known : kPersonalities) {
      body.push_back(Jump(BPF_JEQ, known, 0, 1));
      body.push_back(Allow());
    }
    body.push_back(Deny(EPERM));
    JumpIf(BPF_JEQ, SYS_personality, 0, static_cast<uint8_t>(body.size()));
    code_.insert(code_.end(), body.begin(), body.end());
  }

  // The last part: nothing is behind it but the verdict for all other calls.
  void Socket(Sockets sockets) {
    std::vector<sock_filter> ip, body{Argument(0), Jump(BPF_JEQ, AF_UNIX, 0, 1), Allow()};
    // Of netlink the routing family, by which getifaddrs(3) and getaddrinfo(3) look at the machine's addresses.
    for (sock_filter part : {Jump(BPF_JEQ, AF_NETLINK, 0, 4), Argument(2), Jump(BPF_JEQ, NETLINK_ROUTE, 0, 1), Allow(), Deny(EAFNOSUPPORT)})
      body.push_back(part);
    if (sockets != Sockets::kUnix) {
      // Streams of TCP and no other protocol (MPTCP and SCTP are none to Landlock), datagrams of UDP: no raw ones, no ping.
      ip = {Argument(1), And(kSocketType), Jump(BPF_JEQ, SOCK_STREAM, 0, 5),
            Argument(2), Jump(BPF_JEQ, 0, 1, 0), Jump(BPF_JEQ, IPPROTO_TCP, 0, 1), Allow(), Deny(EPERM)};
      if (sockets == Sockets::kIp) {
        for (sock_filter part : {Jump(BPF_JEQ, SOCK_DGRAM, 0, 4), Argument(2), Jump(BPF_JEQ, 0, 1, 0), Jump(BPF_JEQ, IPPROTO_UDP, 0, 1), Allow()})
          ip.push_back(part);
      }
      ip.push_back(Deny(EPERM));
      body.push_back(Jump(BPF_JEQ, AF_INET, 1, 0));
      body.push_back(Jump(BPF_JEQ, AF_INET6, 0, static_cast<uint8_t>(ip.size())));
      body.insert(body.end(), ip.begin(), ip.end());
    }
    body.push_back(Deny(EAFNOSUPPORT));
    JumpIf(BPF_JEQ, SYS_socket, 0, static_cast<uint8_t>(body.size()));
    code_.insert(code_.end(), body.begin(), body.end());
  }

  std::vector<sock_filter> code_;
};

}  // namespace

const std::vector<sock_filter>& SyscallFilter(Sockets sockets) {
  static const std::array<std::vector<sock_filter>, 3> filters = {FilterWriter().Write(Sockets::kIp), FilterWriter().Write(Sockets::kTcp),
                                                                 FilterWriter().Write(Sockets::kUnix)};
  return filters[static_cast<size_t>(sockets)];
}

}  // namespace bulkhead::sandbox
