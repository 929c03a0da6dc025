#include "supervisor/process/spawner_process.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "supervisor/base/log.h"
#include "supervisor/base/status.h"
#include "supervisor/process/folders.h"
#include "supervisor/process/keeper.h"

namespace bulkhead {
namespace {

constexpr Millis kGracefulBudget{10'000};  // between graceful_signal and SIGKILL when the daemon is gone
constexpr Millis kLeaveBudget{30'000};     // then the spawner leaves although a process can't be killed (stuck in the kernel)
constexpr int kSocketFd = 3, kKeptFd = 4;
constexpr size_t kMaxKilledNamed = 32;    // processes of one tree that are named to the daemon; the others are killed all the same

// No ranges at all are every number.
bool InOne(const std::vector<std::pair<id_t, id_t>>& ranges, id_t id) {
  return ranges.empty() ||
         std::any_of(ranges.begin(), ranges.end(), [&](const auto& range) { return id >= range.first && id <= range.second; });
}

}  // namespace

SpawnerProcess::SpawnerProcess(UniqueFd socket, Spawner::Options options, pid_t daemon)
    : daemon_socket_(std::move(socket)), options_(std::move(options)), cgroups_(options_.cgroup_name, daemon) {
  sigset_t child_ended;
  sigemptyset(&child_ended);
  sigaddset(&child_ended, SIGCHLD);
  sigprocmask(SIG_BLOCK, &child_ended, nullptr);
  child_signals_.Reset(signalfd(-1, &child_ended, SFD_CLOEXEC | SFD_NONBLOCK));
  if (options_.journal.empty()) return;
  auto journal = InstanceJournal::Open(options_.journal);
  if (journal.ok()) journal_ = *std::move(journal);
  else LogWarn("spawner", "what is started can't be written down", {{"reason", std::string(journal.status().message())}});
}

SpawnerProcess::~SpawnerProcess() { loop_.Unwatch(child_signals_.get()); }

void SpawnerProcess::Run() {
  loop_.Watch(child_signals_.get(), EPOLLIN, [this](uint32_t) {
    signalfd_siginfo info;
    while (read(child_signals_.get(), &info, sizeof info) > 0) {
    }
    ReapAll();
  });
  daemon_socket_.Attach(loop_, [this](std::string_view packet, std::vector<UniqueFd>& fds) { OnRequest(packet, fds); },
                        [this] { Leave(); });
  loop_.Run();
}

void SpawnerProcess::AnswerStatus(wire::Reply::Kind kind, uint64_t serial, const absl::Status& status) {
  wire::Reply reply;
  reply.kind = kind;
  reply.serial = serial;
  reply.code = static_cast<int32_t>(status.code());
  reply.text = std::string(status.message());
  Answer(reply);
}

void SpawnerProcess::OnRequest(std::string_view packet, std::vector<UniqueFd>& fds) {
  using Kind = wire::Request::Kind;
  wire::Request request;
  if (!wire::Decode(packet, fds, request)) {
    LogError("spawner", "a request of the daemon did not arrive whole");
    // The usual reason is that no descriptor was free for those beside it: whoever waits must hear of it.
    if (request.kind == Kind::kSpawn) {
      AnswerStatus(wire::Reply::Kind::kSpawned, request.serial, absl::ResourceExhaustedError("the spawner has too many open files"));
    }
    return;
  }
  auto it = children_.find(request.id);
  switch (request.kind) {
    case Kind::kSpawn:
      Spawn(request.serial, std::move(request.spec));
      break;
    case Kind::kInspect:
      Inspect(request.serial, std::move(request.spec));
      break;
    case Kind::kSignal:
      if (it == children_.end()) break;
      if (request.signal == SIGKILL && !it->second->ended && it->second->pid != 0) it->second->killed_name = NameOf(it->second->pid);
      SignalPidfd(it->second->pidfd.get(), request.signal);
      break;
    case Kind::kKillTree:
      if (it == children_.end()) {
        AnswerStatus(wire::Reply::Kind::kEmpty, request.serial, absl::OkStatus());
      } else {
        it->second->kill_serials.push_back(request.serial);
        EndTree(*it->second);
      }
      break;
    case Kind::kMakeFolder:
      AnswerStatus(wire::Reply::Kind::kFolder, request.serial,
                   folders::Make(options_.folder_roots, request.path, request.uid, request.gid, request.mode));
      break;
    case Kind::kRemoveFolder:
      RemoveFolder(request.serial, request.path);
      break;
  }
}

// ---- starting

absl::Status SpawnerProcess::Permit(const SpawnSpec& spec) const {
  if (children_.contains(spec.id)) return absl::AlreadyExistsError("a child with the id " + spec.id + " is there already");
  if (options_.refuse_root_children && geteuid() == 0 && (!spec.change_user || spec.uid == 0 || spec.gid == 0)) {
    return absl::PermissionDeniedError("the spawner starts nothing as root");
  }
  if (spec.change_user && !InOne(options_.child_uids, spec.uid)) {
    return absl::PermissionDeniedError("uid " + std::to_string(spec.uid) + " is none of those that children may have");
  }
  if (spec.change_user && !InOne(options_.child_gids, spec.gid)) {
    return absl::PermissionDeniedError("gid " + std::to_string(spec.gid) + " is none of those that children may have");
  }
  return absl::OkStatus();
}

void SpawnerProcess::Spawn(uint64_t serial, SpawnSpec spec) {
  absl::Status refused = Permit(spec);
  if (!refused.ok()) return AnswerStatus(wire::Reply::Kind::kSpawned, serial, refused);
  auto owned = std::make_unique<Child>();
  Child& child = *owned;
  child.serial = serial;
  child.id = spec.id;
  child.graceful_signal = spec.graceful_signal;
  child.record = {spec.id, spec.executable, boot_id_, spec.change_user ? spec.uid : geteuid(), spec.graceful_signal, IdentityOf(getpid()), {}, "", spec.notes};
  absl::Status started = Start(child, spec);
  if (!started.ok()) {
    journal_.Remove(child.id);
    if (child.launch.cgroup) child.launch.cgroup->Remove();
    return AnswerStatus(wire::Reply::Kind::kSpawned, serial, started);
  }
  children_[child.id] = std::move(owned);
}

void SpawnerProcess::Inspect(uint64_t serial, SpawnSpec spec) {
  Launch launch;
  const absl::Status prepared = PrepareLaunch(spec, {options_, options_.use_cgroups ? &cgroups_ : nullptr, networks_}, launch);
  if (launch.cgroup) launch.cgroup->Remove();
  wire::Reply reply;
  reply.kind = wire::Reply::Kind::kInspected;
  reply.serial = serial;
  if (prepared.ok()) reply.process.isolation = std::move(launch.isolation);
  if (!prepared.ok()) LogWarn("spawner", "what isolation there is can't be told", {{"reason", std::string(prepared.message())}});
  Answer(reply);
}

absl::Status SpawnerProcess::Start(Child& child, SpawnSpec& spec) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return ErrnoStatus(errno, "pipe2");
  child.report.Reset(ends[0]);
  UniqueFd report_end(ends[1]);
  RETURN_IF_ERROR(PrepareLaunch(spec, {options_, options_.use_cgroups ? &cgroups_ : nullptr, networks_}, child.launch));
  if (std::string missing = spec.strict ? MissingMeasures(child.launch.isolation) : ""; !missing.empty())
    return absl::Status(wire::kIsolationIncomplete, "the module wants all of its isolation (`isolation: strict`), and this is missing: " + missing);
  RETURN_IF_ERROR(child.launch.plan.Fill(spec, std::move(report_end)));
  child.launch.plan.parent = getpid();
  if (child.launch.cgroup) child.record.cgroup = child.launch.cgroup->tracked();
  Record(child);  // the intent: from here on it may run
  RETURN_IF_ERROR(child.launch.cgroup ? StartDirectly(child) : StartKept(child));
  if (child.pid != 0) Record(child);
  // The child has its own copies now; while the report pipe is open here, it would have no end.
  ExecPlan& plan = child.launch.plan;
  for (UniqueFd* fd : {&plan.null, &plan.out, &plan.err, &plan.control, &plan.report, &plan.landlock, &plan.network}) fd->Reset();
  plan.cgroup_entries.clear();
  loop_.Watch(child.report.get(), EPOLLIN, [this, &child](uint32_t) {
    ReadReport(child);
    MaybeFinish(child);
  });
  return absl::OkStatus();
}

void SpawnerProcess::Record(Child& child) {
  if (options_.journal.empty()) return;
  if (child.pid != 0) child.record.process = IdentityOf(child.pid, child.pidfd.get());
  absl::Status written = journal_.Write(child.record);
  if (!written.ok()) LogWarn("spawner", "what is started can't be written down", {{"id", child.id}, {"reason", std::string(written.message())}});
}

absl::Status SpawnerProcess::StartDirectly(Child& child) {
  ExecPlan& plan = child.launch.plan;
  auto open_entries = [&](bool with_v2) {
    plan.cgroup_entries = child.launch.cgroup->EntryFiles(with_v2);
    for (UniqueFd& fd : plan.cgroup_entries) fd.Reset(fcntl(fd.get(), F_DUPFD_CLOEXEC, kFirstPlanFd));
  };
  int into = child.launch.cgroup->v2_folder();
  open_entries(into < 0);
  int pidfd = -1;
  pid_t pid = CloneProcess(into, plan.namespaces, &pidfd);
  if (pid == 0) RunShim(plan);
  if (pid < 0 && into >= 0) {  // before Linux 5.7 there is no CLONE_INTO_CGROUP
    open_entries(true);
    pid = CloneProcess(-1, plan.namespaces, &pidfd);
    if (pid == 0) RunShim(plan);
  }
  if (pid < 0) return ErrnoStatus(-pid, "clone3");
  child.pid = pid;
  child.pidfd.Reset(pidfd);
  if (plan.namespaces & CLONE_NEWNET) networks_.Keep(child.launch.kin, pid);
  return absl::OkStatus();
}

absl::Status SpawnerProcess::StartKept(Child& child) {
  ASSIGN_OR_RETURN(auto ends, SocketPair(SOCK_SEQPACKET | SOCK_NONBLOCK));
  int pidfd = -1;
  pid_t pid = CloneProcess(-1, 0, &pidfd);
  if (pid == 0) {
    ends.first.Reset();
    RunKeeper(child.launch.plan, std::move(ends.second));
  }
  if (pid < 0) return ErrnoStatus(-pid, "clone3");
  child.kept = true;
  child.keeper = pid;
  close(pidfd);  // its end is seen by SIGCHLD, and it is never signalled
  child.keeper_socket = std::move(ends.first);
  loop_.Watch(child.keeper_socket.get(), EPOLLIN, [this, &child](uint32_t) { OnKeeperSocket(child); });
  return absl::OkStatus();
}

void SpawnerProcess::ReadReport(Child& child) {
  ShimReport report;
  ssize_t size;
  while ((size = read(child.report.get(), &report, sizeof report)) == sizeof report) {
    if (report.fatal) {
      child.error = Describe(report, child.launch.plan);
    } else {
      NoteFailure(report, child.launch);
    }
  }
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
  loop_.Unwatch(child.report.get());
  child.report.Reset();
  SettleStart(child);
}

void SpawnerProcess::OnKeeperSocket(Child& child) {
  std::string packet;
  std::vector<UniqueFd> fds;
  for (;;) {
    wire::Received received = wire::ReceivePacket(child.keeper_socket.get(), packet, fds);
    if (received == wire::Received::kNothing) return;
    KeeperMessage message;
    if (received == wire::Received::kEnd || packet.size() != sizeof message) {
      loop_.Unwatch(child.keeper_socket.get());  // it has ended, or will be: its exit status is what counts
      return;
    }
    memcpy(&message, packet.data(), sizeof message);
    if (message.kind == KeeperMessage::Kind::kStarted && fds.size() == 1) {
      child.pid = message.pid;
      child.pidfd = std::move(fds[0]);
      Record(child);
      if (child.kill_wanted) EndTree(child);
      SettleStart(child);
    } else if (message.kind == KeeperMessage::Kind::kExited) {
      OnEnded(child, message.code, message.status);
      return;  // the last message, and the child may be gone
    }
  }
}

// Answers the Spawn when it is known how it went: the report pipe has ended, and the pid is here.
void SpawnerProcess::SettleStart(Child& child) {
  if (child.phase != Child::Phase::kStarting || child.report) return;
  if (!child.error.empty()) {
    child.phase = Child::Phase::kFailed;  // answered when all of it is gone
    EndTree(child);
    return;
  }
  if (child.pid == 0 && !child.ended) return;
  child.phase = Child::Phase::kRunning;
  wire::Reply reply;
  reply.kind = wire::Reply::Kind::kSpawned;
  reply.serial = child.serial;
  reply.process = {child.pid, child.launch.isolation, child.launch.cgroup ? child.launch.cgroup->CpuStat() : ""};
  Answer(reply);
  TellEnd(child);
}

// ---- ending

void SpawnerProcess::ReapAll() {
  for (;;) {
    siginfo_t info{};
    if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG) != 0 || info.si_pid == 0) return;
    // Until this call the pid could not be another process's, so the look-up by number is sound. What is in neither map was
    // an orphan of some tree.
    for (auto& [id, child] : children_) {
      if (child->pid == info.si_pid && !child->ended) {
        OnEnded(*child, info.si_code, info.si_status);
        break;
      }
      if (child->keeper == info.si_pid) {
        OnKeeperEnded(*child, info.si_code == CLD_EXITED && info.si_status == kKeeperDone);
        break;
      }
    }
  }
}

void SpawnerProcess::OnEnded(Child& child, int code, int status) {
  if (child.ended) return;
  // Its pipe has ended with it; what it said comes before its end.
  if (child.report) ReadReport(child);
  child.ended = true;
  if (code == CLD_EXITED) {
    child.exit.exit_code = status;
  } else {
    child.exit.signal = status;
    child.exit.core_dumped = code == CLD_DUMPED;
    child.exit.oom_killed = status == SIGKILL && !child.kill && child.launch.cgroup && child.launch.cgroup->OomKilled();
  }
  // Before the end of its tree, for which forks are forbidden.
  if (!child.kill && child.launch.cgroup) child.exit.forks_refused = child.launch.cgroup->ForksRefused();
  if (leaving_ || child.kill_wanted) EndTree(child);
  SettleStart(child);
  TellEnd(child);
  MaybeFinish(child);
}

// After the answer to the Spawn, and once.
void SpawnerProcess::TellEnd(Child& child) {
  if (!child.ended || child.end_told || child.phase != Child::Phase::kRunning) return;
  child.end_told = true;
  wire::Reply reply;
  reply.kind = wire::Reply::Kind::kExited;
  reply.serial = child.serial;
  reply.exit = child.exit;
  Answer(reply);
}

void SpawnerProcess::OnKeeperEnded(Child& child, bool tree_ended) {
  child.keeper = 0;
  child.kept_tree_ended = tree_ended;
  if (!child.ended) OnKeeperSocket(child);  // what it said before; with kExited the child may be gone after this
  for (auto& [id, other] : children_) {
    if (other.get() != &child) continue;
    // Killed before it could reap the program, which the kernel has killed with it: that is this process's child now, unless
    // the keeper had reaped it and not yet said so.
    bool here = child.pidfd && waitid(P_PIDFD, static_cast<id_t>(child.pidfd.get()), nullptr, WEXITED | WNOHANG | WNOWAIT) == 0;
    if (!child.ended && !here) OnEnded(child, CLD_KILLED, SIGKILL);
    else MaybeFinish(child);
    return;
  }
}

// The members of a kept tree. If the keeper was killed, its orphans are children of this process, which knows all others.
std::vector<pid_t> SpawnerProcess::KeptMembers(const Child& child) const {
  if (child.keeper != 0) return Descendants({child.keeper});
  if (child.kept_tree_ended) return {};
  std::vector<pid_t> roots;
  for (pid_t pid : OwnChildren()) {
    bool known = removals_.contains(pid);
    for (const auto& [id, other] : children_) {
      known = known || (other.get() != &child && ((other->pid == pid && !other->ended) || other->keeper == pid));
    }
    if (!known) roots.push_back(pid);
  }
  auto members = Descendants(roots);
  members.insert(members.end(), roots.begin(), roots.end());
  return members;
}

void SpawnerProcess::EndTree(Child& child) {
  if (child.kill) return;
  child.kill_wanted = true;
  if (child.pid == 0 && !child.ended) return;  // its keeper is about to tell: a kill now could come before it is born
  TreeKill::Target target;
  target.main_pidfd = child.ended ? -1 : child.pidfd.get();
  if (Cgroup* cgroup = child.launch.cgroup.get()) {
    target.members = [cgroup] { return cgroup->Members(); };
    target.kill_all = [cgroup] {
      cgroup->ForbidForks();
      return cgroup->KillAll();
    };
    target.release = [cgroup] { return cgroup->Remove(); };
  } else {
    target.members = [this, &child] { return KeptMembers(child); };
    target.release = [&child] { return child.keeper == 0; };
  }
  child.kill = std::make_unique<TreeKill>(loop_, std::move(target), [this, &child] {
    child.tree_empty = true;
    MaybeFinish(child);
  });
}

// The last word on a child: it may be gone after this.
void SpawnerProcess::MaybeFinish(Child& child) {
  if (child.tree_empty && child.ended && child.phase != Child::Phase::kStarting) Finish(child);
}

void SpawnerProcess::Finish(Child& child) {
  if (child.keeper_socket) loop_.Unwatch(child.keeper_socket.get());
  if (child.phase == Child::Phase::kFailed) {
    AnswerStatus(wire::Reply::Kind::kSpawned, child.serial, absl::InternalError(child.error));
  }
  journal_.Remove(child.id);
  wire::Reply empty;
  empty.kind = wire::Reply::Kind::kEmpty;
  empty.killed = Killed(child);
  for (uint64_t serial : child.kill_serials) {
    empty.serial = serial;
    Answer(empty);
    empty.killed.clear();  // told once
  }
  children_.erase(std::string(child.id));
  MaybeStop();
}

std::vector<KilledProcess> SpawnerProcess::Killed(const Child& child) {
  std::vector<KilledProcess> killed;
  if (child.phase == Child::Phase::kFailed) return killed;  // what never ran
  if (!child.killed_name.empty()) killed.push_back({child.killed_name, true});
  for (const auto& [pid, name] : child.kill->killed()) {
    if (killed.size() == kMaxKilledNamed) break;
    if (name != child.killed_name) killed.push_back({name, pid == child.pid});
  }
  return killed;
}

// ---- folders

// In a process of its own, so that a large tree does not keep anybody waiting for a signal or an exit.
void SpawnerProcess::RemoveFolder(uint64_t serial, const std::string& path) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return AnswerStatus(wire::Reply::Kind::kFolder, serial, ErrnoStatus(errno, "pipe2"));
  FolderRemoval removal{serial, UniqueFd(ends[0]), ""};
  UniqueFd result(ends[1]);
  int pidfd = -1;
  pid_t pid = CloneProcess(-1, 0, &pidfd);
  if (pid == 0) {
    prctl(PR_SET_NAME, "bulkhead-rm", 0, 0, 0);
    absl::Status status = folders::Remove(options_.folder_roots, path);
    std::string text = std::string(1, static_cast<char>(status.code())) + std::string(status.message());
    (void)!write(result.get(), text.data(), text.size());
    _exit(0);
  }
  if (pid < 0) return AnswerStatus(wire::Reply::Kind::kFolder, serial, ErrnoStatus(-pid, "clone3"));
  close(pidfd);
  fcntl(removal.result.get(), F_SETFL, O_NONBLOCK);
  loop_.Watch(removal.result.get(), EPOLLIN, [this, pid](uint32_t) { OnRemoval(pid); });
  removals_[pid] = std::move(removal);
}

void SpawnerProcess::OnRemoval(pid_t pid) {
  FolderRemoval& removal = removals_[pid];
  char buffer[4096];
  ssize_t size;
  while ((size = read(removal.result.get(), buffer, sizeof buffer)) > 0) removal.text.append(buffer, static_cast<size_t>(size));
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
  loop_.Unwatch(removal.result.get());
  absl::Status status = absl::InternalError("the removal was killed");
  if (!removal.text.empty()) status = absl::Status(static_cast<absl::StatusCode>(removal.text[0]), removal.text.substr(1));
  AnswerStatus(wire::Reply::Kind::kFolder, removal.serial, status);
  removals_.erase(pid);
  MaybeStop();
}

// ---- leaving

// The daemon is gone, whatever the reason. Modules are killed at once; then what wants a graceful end gets its signal.
void SpawnerProcess::Leave() {
  leaving_ = true;
  loop_.After(kLeaveBudget, [this] {
    for (auto& [id, child] : children_) LogError("spawner", "a process could not be killed and is left", {{"id", id}});
    loop_.Stop();
  });
  for (auto& [id, child] : children_) {
    if (child->graceful_signal == 0 || child->ended) EndTree(*child);
  }
  MaybeStop();
}

void SpawnerProcess::MaybeStop() {
  if (!leaving_) return;
  for (auto& [id, child] : children_) {
    if (child->graceful_signal == 0) return;
  }
  if (children_.empty()) {
    if (!removals_.empty()) return;
    cgroups_.Remove();
    loop_.Stop();
    return;
  }
  if (asked_gracefully_) return;
  asked_gracefully_ = true;
  for (auto& [id, child] : children_) SignalPidfd(child->pidfd.get(), child->graceful_signal);
  loop_.After(kGracefulBudget, [this] {
    for (auto& [id, child] : children_) EndTree(*child);
  });
}

void RunSpawnerProcess(UniqueFd socket, Spawner::Options options, pid_t daemon) {
  prctl(PR_SET_NAME, "bulkhead-spawn", 0, 0, 0);
  // Orphans of its children come to it, and not to init.
  prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  // Neither Ctrl-C nor a SIGTERM to the group ends it before its work is done: it leaves when the daemon does.
  setsid();
  for (int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGTSTP, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2}) signal(number, SIG_IGN);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);  // Fork() has blocked all
  // Nothing of the daemon's is kept but stderr, for its own log lines: a listener's descriptor here would keep a port taken.
  UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  dup2(null.get(), 0);
  dup2(null.get(), 1);
  UniqueFd high(fcntl(socket.get(), F_DUPFD_CLOEXEC, kFirstPlanFd));
  UniqueFd high_kept(options.keep_open < 0 ? -1 : fcntl(options.keep_open, F_DUPFD_CLOEXEC, kFirstPlanFd));
  dup3(high.get(), kSocketFd, O_CLOEXEC);
  if (high_kept) dup3(high_kept.get(), kKeptFd, O_CLOEXEC);
  syscall(SYS_close_range, high_kept ? kKeptFd + 1 : kSocketFd + 1, ~0U, 0);
  (void)high.Release();
  (void)high_kept.Release();
  (void)null.Release();
  if (socket.get() != kSocketFd) (void)socket.Release();
  SpawnerProcess(UniqueFd(kSocketFd), std::move(options), daemon).Run();
  _exit(0);
}

}  // namespace bulkhead
