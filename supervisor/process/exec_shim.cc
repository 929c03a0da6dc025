#include "supervisor/process/exec_shim.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <initializer_list>

#include "supervisor/process/namespaces.h"
#include "supervisor/process/sandbox.h"

namespace bulkhead {
namespace {

constexpr int kControlFd = 3;  // the handshake's socket (proto/README.md, "The process")
constexpr int kShimFailed = 127;

void Report(const ExecPlan& plan, ShimStep step, int error, bool fatal) {
  ShimReport report{step, error, fatal};
  (void)!write(plan.report.get(), &report, sizeof report);
}

[[noreturn]] void Fail(const ExecPlan& plan, ShimStep step) {
  Report(plan, step, errno, true);
  _exit(kShimFailed);
}

void Require(const ExecPlan& plan, ShimStep step, bool worked) {
  if (!worked) Fail(plan, step);
}

void EnterCgroups(const ExecPlan& plan) {
  for (const UniqueFd& entry : plan.cgroup_entries) Require(plan, ShimStep::kCgroup, write(entry.get(), "0", 1) == 1);
}

// While it still has the privileges for it, and before Landlock forbids every mount.
void EnterNamespaces(const ExecPlan& plan) {
  if (plan.network) Require(plan, ShimStep::kNetwork, syscall(SYS_setns, plan.network.get(), CLONE_NEWNET) == 0);
  if (plan.namespaces & CLONE_NEWNET) namespaces::RaiseLoopback();
  if (!(plan.namespaces & CLONE_NEWNS)) return;
  Require(plan, ShimStep::kMounts, namespaces::PrivateMounts());
  for (const char* place : plan.tmp_places) Require(plan, ShimStep::kMounts, namespaces::MountTmp(plan.tmp.c_str(), place));
  if (plan.shared_memory) Require(plan, ShimStep::kMounts, namespaces::MountSharedMemory());
  if (plan.proc) Require(plan, ShimStep::kMounts, namespaces::MountProc());
  if (!plan.landlock) return;
  if (plan.shared_memory) Require(plan, ShimStep::kLandlock, sandbox::AllowMounted(plan.landlock.get(), "/dev/shm", true));
  if (plan.proc) Require(plan, ShimStep::kLandlock, sandbox::AllowMounted(plan.landlock.get(), "/proc", false));
}

// The spawner ignores some signals and blocks one; both would outlive execve.
void ResetSignals() {
  struct sigaction by_default {};
  by_default.sa_handler = SIG_DFL;
  for (int number = 1; number < NSIG; ++number) sigaction(number, &by_default, nullptr);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

void PlaceDescriptors(const ExecPlan& plan) {
  const int out = plan.out ? plan.out.get() : plan.null.get();
  const int err = plan.err ? plan.err.get() : plan.null.get();
  Require(plan, ShimStep::kDescriptors, dup2(plan.null.get(), 0) == 0 && dup2(out, 1) == 1 && dup2(err, 2) == 2);
  int first_unused = kControlFd;
  if (plan.control) Require(plan, ShimStep::kDescriptors, dup2(plan.control.get(), first_unused++) == kControlFd);
  // Marked, not closed: the report pipe and the Landlock rules are needed up to execve.
  Require(plan, ShimStep::kDescriptors, syscall(SYS_close_range, first_unused, ~0U, CLOSE_RANGE_CLOEXEC) == 0);
}

void SetLimits(const ExecPlan& plan) {
  auto set = [&](ShimStep step, auto resource, rlim_t value) {
    rlimit limit{value, value};
    // Raising needs CAP_SYS_RESOURCE, which some machines do not give: then it stays as it is, and the status says so.
    if (setrlimit(resource, &limit) != 0) plan.strict ? Fail(plan, step) : Report(plan, step, errno, false);
  };
  if (plan.nofile > 0) set(ShimStep::kNoFile, RLIMIT_NOFILE, plan.nofile);
  if (plan.file_bytes > 0) set(ShimStep::kFileSize, RLIMIT_FSIZE, plan.file_bytes);
  if (plan.nproc > 0) set(ShimStep::kNproc, RLIMIT_NPROC, plan.nproc);
  if (plan.sandbox) set(ShimStep::kCore, RLIMIT_CORE, 0);
}

void DropPrivileges(const ExecPlan& plan) {
  if (plan.drop_bounding_set) {
    for (int capability = 0; capability <= plan.last_capability; ++capability) {
      if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0) continue;
      if (plan.strict) Fail(plan, ShimStep::kCapabilities);
      Report(plan, ShimStep::kCapabilities, errno, false);  // root without CAP_SETPCAP, as in some containers
      break;
    }
  }
  if (plan.sandbox) {
    Require(plan, ShimStep::kCapabilities, prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) == 0);
  }
  if (!plan.change_user) return;
  // The raw calls: glibc's own would signal other threads, of which there are none.
  Require(plan, ShimStep::kGroups, syscall(SYS_setgroups, 0, nullptr) == 0);
  Require(plan, ShimStep::kGid, syscall(SYS_setresgid, plan.gid, plan.gid, plan.gid) == 0);
  Require(plan, ShimStep::kUid, syscall(SYS_setresuid, plan.uid, plan.uid, plan.uid) == 0);
}

void ClearCapabilities(const ExecPlan& plan) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {};
  Require(plan, ShimStep::kCapabilities, syscall(SYS_capset, &header, none) == 0);
}

}  // namespace

absl::Status ExecPlan::Fill(SpawnSpec& spec, UniqueFd report_pipe) {
  auto has_nul = [](const std::string& text) { return text.find('\0') != std::string::npos; };
  if (spec.executable.empty() || spec.executable[0] != '/') {
    return absl::InvalidArgumentError("the executable must be an absolute path, not '" + spec.executable + "'");
  }
  if (spec.cwd.empty() || spec.cwd[0] != '/') {
    return absl::InvalidArgumentError("the working folder must be an absolute path, not '" + spec.cwd + "'");
  }
  texts.push_back(spec.executable);
  for (const std::string& arg : spec.args) texts.push_back(arg);
  for (const auto& [name, value] : spec.env) {
    if (name.empty() || name.find('=') != std::string::npos) {
      return absl::InvalidArgumentError("'" + name + "' can't be the name of an environment variable");
    }
    texts.push_back(name + "=" + value);
  }
  for (const std::string& text : texts) {
    if (has_nul(text)) return absl::InvalidArgumentError("an argument or environment variable has a NUL byte");
  }
  if (has_nul(spec.cwd)) return absl::InvalidArgumentError("the working folder has a NUL byte");
  executable = spec.executable;
  cwd = spec.cwd;
  const size_t args = 1 + spec.args.size();
  for (size_t i = 0; i < texts.size(); ++i) (i < args ? argv : envp).push_back(texts[i].data());
  argv.push_back(nullptr);
  envp.push_back(nullptr);
  report = std::move(report_pipe);
  null.Reset(open("/dev/null", O_RDWR | O_CLOEXEC));
  out = std::move(spec.out);
  err = std::move(spec.err);
  control = std::move(spec.control);
  change_user = spec.change_user;
  uid = spec.uid;
  gid = spec.gid;
  sandbox = spec.sandbox;
  strict = spec.strict;
  mask = sandbox ? 007 : 027;  // modules share their instance folder with the daemon's group
  for (UniqueFd* fd : {&null, &out, &err, &control, &report, &landlock, &network}) {
    if (!*fd || fd->get() >= kFirstPlanFd) continue;
    fd->Reset(fcntl(fd->get(), F_DUPFD_CLOEXEC, kFirstPlanFd));
  }
  if (!null || !report) return ErrnoStatus(errno, "the descriptors of the child");
  return absl::OkStatus();
}

pid_t CloneProcess(int cgroup_v2, uint64_t namespaces, int* pidfd) {
  clone_args args{};
  args.flags = CLONE_PIDFD | namespaces;
  args.pidfd = reinterpret_cast<uint64_t>(pidfd);
  args.exit_signal = SIGCHLD;
  if (cgroup_v2 >= 0) {
    args.flags |= CLONE_INTO_CGROUP;
    args.cgroup = static_cast<uint64_t>(cgroup_v2);
  }
  long pid = syscall(SYS_clone3, &args, sizeof args);
  if (pid < 0 && errno == ENOSYS && cgroup_v2 < 0) {
    // Container engines forbid clone3, whose flags their filters can't see. The older call has the pidfd too.
    pid = syscall(SYS_clone, CLONE_PIDFD | SIGCHLD | namespaces, nullptr, pidfd, nullptr, nullptr);
  }
  return pid < 0 ? -errno : static_cast<pid_t>(pid);
}

void RunShim(const ExecPlan& plan) {
  EnterCgroups(plan);
  // A session of its own: a Ctrl-C of the terminal reaches the daemon alone, which then stops its children in order.
  if (setsid() < 0 && errno != EPERM) Fail(plan, ShimStep::kSession);
  ResetSignals();
  EnterNamespaces(plan);
  PlaceDescriptors(plan);
  umask(plan.mask);
  SetLimits(plan);
  DropPrivileges(plan);
  // After setresuid, which clears it. It covers the one case in which nobody kills the tree: the spawner itself is killed.
  if (plan.parent_death_signal != 0) {
    prctl(PR_SET_PDEATHSIG, plan.parent_death_signal, 0, 0, 0);
    if (getppid() != plan.parent) Fail(plan, ShimStep::kParent);
  }
  // With the rights of the child, so that a folder it can't enter is an error here and not a riddle later.
  Require(plan, ShimStep::kChdir, chdir(plan.cwd.c_str()) == 0);
  if (plan.sandbox) {
    Require(plan, ShimStep::kNoNewPrivs, prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    if (plan.landlock) {
      Require(plan, ShimStep::kLandlock, syscall(SYS_landlock_restrict_self, plan.landlock.get(), 0) == 0);
    }
    ClearCapabilities(plan);
    if (plan.filter != nullptr) {
      sock_fprog program{plan.filter_length, const_cast<sock_filter*>(plan.filter)};
      // Without the flag kernels before 5.16 slow down all of a filtered process against speculation, which container engines don't want either.
      Require(plan, ShimStep::kSeccomp, syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program) == 0);
    }
  }
  execve(plan.executable.c_str(), plan.argv.data(), plan.envp.data());
  Fail(plan, ShimStep::kExec);
}

std::string Describe(const ShimReport& report, const ExecPlan& plan) {
  std::string reason = std::string(": ") + strerror(report.error);
  switch (report.step) {
    case ShimStep::kClone: return "clone" + reason;
    case ShimStep::kCgroup: return "entering the cgroup" + reason;
    case ShimStep::kSession: return "setsid" + reason;
    case ShimStep::kNetwork: return "entering the network namespace" + reason;
    case ShimStep::kMounts: return "mounting what is the module's alone" + reason;
    case ShimStep::kDescriptors: return "placing the descriptors" + reason;
    case ShimStep::kNoFile: return "the limit of open files" + reason;
    case ShimStep::kFileSize: return "the limit of a file's size" + reason;
    case ShimStep::kCore: return "the limit of core files" + reason;
    case ShimStep::kNproc: return "the limit of processes" + reason;
    case ShimStep::kCapabilities: return "dropping capabilities" + reason;
    case ShimStep::kGroups: return "setgroups" + reason;
    case ShimStep::kGid: return "setresgid " + std::to_string(plan.gid) + reason;
    case ShimStep::kUid: return "setresuid " + std::to_string(plan.uid) + reason;
    case ShimStep::kParent: return "the spawner ended meanwhile";
    case ShimStep::kNoNewPrivs: return "no_new_privs" + reason;
    case ShimStep::kChdir: return "chdir " + plan.cwd + reason;
    case ShimStep::kLandlock: return "landlock" + reason;
    case ShimStep::kSeccomp: return "seccomp" + reason;
    case ShimStep::kExec: break;
  }
  std::string text = "execve " + plan.executable + reason;
  if (report.error == ENOENT && access(plan.executable.c_str(), F_OK) == 0) {
    text += " (the file is there: its interpreter, named after '#!' or in the ELF header, is not)";
  } else if (report.error == ENOEXEC) {
    text += " (neither a program for this machine nor a script that begins with '#!')";
  }
  return text;
}

}  // namespace bulkhead
