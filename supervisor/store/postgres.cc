// The life of the private server, on the control loop:
//   new → (initdb in the staging folder → adopt it) → starting → running ⇄ backoff → starting … → stopped
// Every process is reaped the same way: it ends, its tree is killed (backends outlive a killed postmaster by moments and
// would keep the next one from starting), and only then the next step is taken.
#include "supervisor/store/postgres.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "supervisor/base/fd.h"
#include "supervisor/base/log.h"
#include "supervisor/base/random.h"
#include "supervisor/base/status.h"
#include "supervisor/process/log_pipe.h"
#include "supervisor/store/postgres_cluster.h"
#include "supervisor/store/postgres_probe.h"

namespace bulkhead {
namespace {

constexpr char kComponent[] = "postgres";
constexpr Millis kBackoffBase{100};      // of restarts: at once, then this, doubled each time …
constexpr Millis kBackoffCap{5'000};     // … up to this
constexpr Millis kStableAfter{10'000};   // up for so long: the next end is the first again
constexpr Millis kFastShutdown{10'000};  // between SIGINT and SIGQUIT
constexpr Millis kImmediate{5'000};      // between SIGQUIT and the tree kill
constexpr Millis kOtherServer{15'000};   // for a server of an earlier life that is being stopped by its own spawner
constexpr Millis kOtherPoll{100};
constexpr Millis kSyncDelay{3'000};      // after the first start ever: initdb's files to disk, when the boot no longer needs it
constexpr Millis kProbeAnyway{2'000};    // if the server's line about being ready was not seen
constexpr size_t kTailLines = 8;         // of the server's log in an error
constexpr std::string_view kReadyLine = "database system is ready to accept connections";

// The last lines of a log as one, for an error.
std::string LastLines(const std::string& text) {
  std::vector<std::string> lines;
  size_t begin = 0;
  while (begin < text.size()) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    if (end > begin) lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  std::string joined;
  for (size_t i = lines.size() > kTailLines ? lines.size() - kTailLines : 0; i < lines.size(); ++i) joined += (joined.empty() ? "" : "; ") + lines[i];
  return joined.empty() ? "it wrote nothing to its log" : joined;
}

std::string Describe(const ProcessExit& exit) {
  if (exit.signal != 0) return "it was ended by signal " + std::to_string(exit.signal);
  return "it exited with code " + std::to_string(exit.exit_code);
}

// "WARNING:  text" and the like. Details and hints follow their line; LOG is news for nobody else, and that the server is
// starting or leaving everybody who asks is told.
void LogServerLine(std::string_view line) {
  if (line.find("  the database system is ") != std::string_view::npos) return LogDebug(kComponent, line);
  static constexpr std::pair<std::string_view, LogLevel> kLevels[] = {
      {"PANIC:", LogLevel::kError}, {"FATAL:", LogLevel::kWarn}, {"ERROR:", LogLevel::kWarn}, {"WARNING:", LogLevel::kWarn}};
  for (const auto& [prefix, level] : kLevels) {
    if (line.starts_with(prefix)) return Log(level, kComponent, line);
  }
  LogDebug(kComponent, line);
}

// The process of which the server says "Is another postmaster (PID 4711) running in data directory", 0 when it does not.
pid_t OtherPostmaster(const std::string& log) {
  constexpr std::string_view kWords[] = {"another postmaster (PID ", "another postgres (PID "};
  for (const std::string_view words : kWords) {
    if (const size_t at = log.find(words); at != std::string::npos) return std::atoi(log.c_str() + at + words.size());
  }
  return 0;
}

// Whether the process may be a server of `data_dir`. What postmaster.pid names may be anybody by now: numbers are given away again.
bool MayServe(pid_t pid, const std::string& data_dir) {
  auto command = ReadFile("/proc/" + std::to_string(pid) + "/cmdline");
  return !command.ok() || command->empty() || command->find(data_dir) != std::string::npos;  // one that is ending has none
}

bool SharedMemoryInUse(const std::string& log) { return log.find("shared memory block") != std::string::npos; }

}  // namespace

struct PrivatePostgres::State : std::enable_shared_from_this<PrivatePostgres::State> {
  State(Loop& loop, Spawner& spawner, PrivatePostgresOptions options) : loop(loop), spawner(spawner), options(std::move(options)) {}

  // One process and its log.
  struct Child {
    std::string id;
    std::shared_ptr<OutputTail> tail;
    std::unique_ptr<LogPipe> log;
    bool running = false;
  };
  using Ended = std::function<void(State&, const ProcessExit&, const std::string& log)>;

  void Start();
  void Initialize();
  void RunInitdb();
  void MakeSocketFolder();
  void StartServer();
  void OnLine(std::string_view line);
  void OnStarted(pid_t pid);
  void Probe();
  void OnProbed(uint64_t run, const absl::Status& status);
  void OnServerEnded(const ProcessExit& exit, const std::string& log);
  bool WaitForOther(const std::string& log);
  void RemoveStale(pid_t pid);
  void RestartLater(const std::string& why);
  void SyncInitialFiles();
  void Stop();
  void StopServer();
  void Finish();
  void Fail(const std::string& why) { Fail(Error("POSTGRES_FAILED", "the private PostgreSQL can't be started: " + why)); }
  void Fail(const absl::Status& status);

  void Launch(std::string name, std::string program, std::vector<std::string> args, std::string cwd, int graceful_signal,
              std::function<void(State&, pid_t)> started, Ended ended);
  void Reap(ProcessExit exit, const Ended& ended);
  void After(Millis delay, void (State::*next)());
  // A callback for the Spawner: nothing when this is gone, Finish() instead of `next` when Stop() came meanwhile.
  std::function<void(absl::Status)> Then(void (State::*next)(), std::string what);

  Loop& loop;
  Spawner& spawner;
  const PrivatePostgresOptions options;
  PostgresCluster cluster;
  std::function<void(absl::Status)> ready;   // until it was called
  std::function<void()> stopped;             // from Stop() until it was called

  Child child;
  std::unique_ptr<PostgresProbe> probe;
  uint64_t run = 0;            // of the server; tells a late answer of an earlier probe apart
  pid_t postmaster = 0;        // of this run; 0 until the Spawner has answered
  bool said_ready = false;
  bool serving = false;
  bool fresh = false;          // initdb ran in this life, and its files are not yet on disk for sure
  int restarts = 0;            // since it was last stable
  Instant started_at, serving_since;
  Instant other_deadline;      // 0: no other server seen
  bool stale_removed = false;  // a postmaster.pid that named somebody else; once is enough
  UniqueFd other;              // pidfd of a server of an earlier life
  Loop::TimerId timer = 0;     // the next step, when time must pass first
  std::string sync_id;
  bool busy = false;           // an answer of the Spawner is due
  bool stopping = false;
  bool over = false;           // failed or stopped: nothing more happens
};

// ---- processes

void PrivatePostgres::State::Launch(std::string name, std::string program, std::vector<std::string> args, std::string cwd, int graceful_signal,
                                    std::function<void(State&, pid_t)> started, Ended ended) {
  auto pipe = MakeLogPipe();
  if (!pipe.ok()) return Fail(std::string(pipe.status().message()));
  child.id = name + "." + RandomHex(4);
  child.tail = std::make_shared<OutputTail>();
  auto log_line = [this](std::string_view line) { OnLine(line); };
  auto rate = std::make_shared<LogRate>(loop, [log_line](uint64_t, std::string_view notice) { log_line(notice); });
  child.log = std::make_unique<LogPipe>(loop, std::move(pipe->first), child.tail, std::move(rate), log_line);
  SpawnSpec spec;
  spec.id = child.id;
  spec.executable = cluster.bin_dir + "/" + program;
  spec.args = std::move(args);
  spec.env = {{"PATH", "/usr/bin:/bin"}, {"LANG", "C.UTF-8"}, {"LC_ALL", "C.UTF-8"}, {"TZ", "UTC"}};
  spec.cwd = std::move(cwd);
  spec.change_user = cluster.change_user;
  spec.uid = cluster.uid;
  spec.gid = cluster.gid;
  spec.out.Reset(dup(pipe->second.get()));
  spec.err = std::move(pipe->second);
  spec.graceful_signal = graceful_signal;

  busy = true;
  std::weak_ptr<State> weak = weak_from_this();
  spawner.Spawn(
      std::move(spec),
      [weak, started = std::move(started), program](absl::StatusOr<SpawnedProcess> process) {
        auto self = weak.lock();
        if (!self) return;
        self->busy = false;
        if (!process.ok()) {
          if (self->stopping) return self->Finish();
          return self->Fail(program + ": " + std::string(process.status().message()));
        }
        self->child.running = true;
        if (self->stopping) return self->StopServer();
        started(*self, process->pid);
      },
      [weak, ended = std::move(ended)](ProcessExit exit) {
        if (auto self = weak.lock()) self->Reap(exit, ended);
      });
}

void PrivatePostgres::State::Reap(ProcessExit exit, const Ended& ended) {
  child.running = false;
  child.log->Drain();
  const std::string log = child.tail->Text();
  busy = true;
  std::weak_ptr<State> weak = weak_from_this();
  spawner.KillTree(child.id, [weak, exit, ended, log] {
    auto self = weak.lock();
    if (!self) return;
    self->busy = false;
    self->child.log.reset();
    ended(*self, exit, log);
  });
}

void PrivatePostgres::State::After(Millis delay, void (State::*next)()) {
  std::weak_ptr<State> weak = weak_from_this();
  timer = loop.After(delay, [weak, next] {
    auto self = weak.lock();
    if (!self) return;
    self->timer = 0;
    ((*self).*next)();
  });
}

std::function<void(absl::Status)> PrivatePostgres::State::Then(void (State::*next)(), std::string what) {
  busy = true;
  return [weak = weak_from_this(), next, what = std::move(what)](absl::Status status) {
    auto self = weak.lock();
    if (!self) return;
    self->busy = false;
    if (self->stopping) return self->Finish();
    if (!status.ok()) return self->Fail(what + ": " + std::string(status.message()));
    ((*self).*next)();
  };
}

// ---- the way up

void PrivatePostgres::State::Start() {
  if (!cluster.Exists()) return Initialize();
  MakeSocketFolder();
}

void PrivatePostgres::State::Initialize() {
  LogInfo(kComponent, "making the private database cluster", {{"folder", options.data_dir}});
  // What is there is of an initdb that did not finish.
  spawner.RemoveFolder(cluster.staging_dir, Then(&State::RunInitdb, "removing " + cluster.staging_dir));
}

void PrivatePostgres::State::RunInitdb() {
  const auto run_initdb = [](State& self) {
    self.Launch("initdb", "initdb", self.cluster.InitdbArgs(), "/", 0, [](State&, pid_t) {},
                [](State& self, const ProcessExit& exit, const std::string& log) {
                  if (self.stopping) return self.Finish();
                  if (exit.signal != 0 || exit.exit_code != 0) return self.Fail("initdb failed, " + Describe(exit) + ": " + LastLines(log));
                  if (absl::Status adopted = self.cluster.Adopt(); !adopted.ok()) return self.Fail(adopted);
                  self.fresh = true;
                  self.MakeSocketFolder();
                });
  };
  busy = true;
  spawner.MakeFolder(cluster.staging_dir, cluster.uid, cluster.gid, 0700, [weak = weak_from_this(), run_initdb](absl::Status status) {
    auto self = weak.lock();
    if (!self) return;
    self->busy = false;
    if (self->stopping) return self->Finish();
    if (!status.ok()) return self->Fail("making " + self->cluster.staging_dir + ": " + std::string(status.message()));
    run_initdb(*self);
  });
}

void PrivatePostgres::State::MakeSocketFolder() {
  // 0711: a module finds the socket by its name and sees no other.
  spawner.MakeFolder(options.socket_dir, cluster.uid, cluster.gid, 0711, Then(&State::StartServer, "making " + options.socket_dir));
}

void PrivatePostgres::State::StartServer() {
  started_at = Clock::Real().Now();
  ++run;
  postmaster = 0;
  said_ready = false;
  Launch("postgres", "postgres", cluster.ServerArgs(), options.data_dir, SIGINT, [](State& self, pid_t pid) { self.OnStarted(pid); },
         [](State& self, const ProcessExit& exit, const std::string& log) { self.OnServerEnded(exit, log); });
}

// Told by the server's own log when to look: connecting before only makes the start slower. The line alone proves nothing.
void PrivatePostgres::State::OnLine(std::string_view line) {
  LogServerLine(line);
  if (line.find(kReadyLine) == std::string_view::npos) return;
  said_ready = true;
  if (postmaster != 0) Probe();
}

void PrivatePostgres::State::OnStarted(pid_t pid) {
  postmaster = pid;
  if (said_ready) return Probe();
  After(kProbeAnyway, &State::Probe);
}

void PrivatePostgres::State::Probe() {
  if (probe || serving || stopping || !child.running) return;
  if (timer != 0) loop.Cancel(std::exchange(timer, 0));
  std::weak_ptr<State> weak = weak_from_this();
  probe = std::make_unique<PostgresProbe>(cluster.Conninfo("template1"), postmaster, [&loop = loop, weak, run = run](absl::Status status) {
    loop.Post([weak, run, status] {
      if (auto self = weak.lock()) self->OnProbed(run, status);
    });
  });
}

void PrivatePostgres::State::OnProbed(uint64_t probed_run, const absl::Status& status) {
  if (probed_run != run || !child.running || stopping || over) return;
  probe.reset();
  if (!status.ok()) {
    if (ready) {
      // Down again before anybody hears of it: nothing is left running behind an error.
      LogError(kComponent, "the server does not accept the supervisor", {{"reason", std::string(status.message())}});
      ready = [ready = std::move(ready), status](absl::Status) {
        ready(Error("POSTGRES_FAILED", "the private PostgreSQL runs, but does not accept the supervisor: " + std::string(status.message())));
      };
    }
    return spawner.Signal(child.id, SIGQUIT);
  }
  serving = true;
  serving_since = Clock::Real().Now();
  const Millis took = std::chrono::duration_cast<Millis>(serving_since - started_at);
  LogInfo(kComponent, restarts == 0 ? "ready" : "ready again", {{"ms", std::to_string(took.count())}});
  if (fresh) After(kSyncDelay, &State::SyncInitialFiles);
  if (auto first = std::exchange(ready, nullptr)) first(absl::OkStatus());
}

// initdb ran without fsync, which would have taken longer than all the rest. Nothing later writes these files to disk.
void PrivatePostgres::State::SyncInitialFiles() {
  if (!serving || stopping) return;
  fresh = false;
  SpawnSpec spec;
  sync_id = spec.id = "initdb-sync." + RandomHex(4);
  spec.executable = cluster.bin_dir + "/initdb";
  spec.args = {"--pgdata=" + options.data_dir, "--sync-only"};
  spec.env = {{"PATH", "/usr/bin:/bin"}, {"LANG", "C.UTF-8"}};
  spec.cwd = "/";
  spec.change_user = cluster.change_user;
  spec.uid = cluster.uid;
  spec.gid = cluster.gid;
  std::weak_ptr<State> weak = weak_from_this();
  spawner.Spawn(
      std::move(spec),
      [weak](absl::StatusOr<SpawnedProcess> process) {
        auto self = weak.lock();
        if (self && !process.ok()) self->sync_id.clear();
      },
      [weak](ProcessExit exit) {
        auto self = weak.lock();
        if (!self || self->sync_id.empty()) return;
        if (exit.exit_code != 0 || exit.signal != 0) LogWarn(kComponent, "initdb --sync-only failed: " + Describe(exit));
        self->spawner.KillTree(std::exchange(self->sync_id, ""), [] {});
      });
}

// ---- the way down

void PrivatePostgres::State::OnServerEnded(const ProcessExit& exit, const std::string& log) {
  probe.reset();
  if (timer != 0) loop.Cancel(std::exchange(timer, 0));
  const bool was_serving = std::exchange(serving, false);
  if (stopping) return Finish();
  if (const pid_t pid = OtherPostmaster(log); pid != 0 && !stale_removed && !MayServe(pid, options.data_dir)) return RemoveStale(pid);
  if (ready) {
    if (WaitForOther(log)) return;
    if (const pid_t pid = OtherPostmaster(log); pid != 0) {
      return Fail("another PostgreSQL (process " + std::to_string(pid) + ") from an earlier life of the supervisor still runs in " +
                  options.data_dir + ": end it with kill -INT " + std::to_string(pid));
    }
    return Fail(Describe(exit) + ": " + LastLines(log));
  }
  if (was_serving && Clock::Real().Now() - serving_since >= kStableAfter) restarts = 0;
  // What a server that served had to say stands in the log already.
  RestartLater(was_serving ? Describe(exit) : Describe(exit) + ": " + LastLines(log));
}

void PrivatePostgres::State::RestartLater(const std::string& why) {
  const int64_t factor = restarts == 0 ? 0 : int64_t{1} << std::min(restarts - 1, 10);
  const Millis delay = std::min(Millis(kBackoffBase.count() * factor), kBackoffCap);
  ++restarts;
  LogError(kComponent, "the private PostgreSQL ended and is started again", {{"in_ms", std::to_string(delay.count())}, {"reason", why}});
  After(delay, &State::StartServer);
}

// After a kill -9 of the supervisor its spawner is still stopping the server when the next supervisor comes. True: waiting.
bool PrivatePostgres::State::WaitForOther(const std::string& log) {
  const pid_t pid = OtherPostmaster(log);
  if (pid == 0 && !SharedMemoryInUse(log)) return false;
  const Instant now = Clock::Real().Now();
  if (other_deadline == Instant()) {
    other_deadline = now + kOtherServer;
    LogWarn(kComponent, "waiting for a server of an earlier life to end", {{"pid", std::to_string(pid)}});
  }
  if (now >= other_deadline) return false;
  if (pid != 0) other.Reset(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!other) {  // ended meanwhile, or only its backends are left
    After(kOtherPoll, &State::StartServer);
    return true;
  }
  const auto go_on = [](State& self) {
    self.loop.Unwatch(self.other.get());
    self.other.Reset();
    if (self.timer != 0) self.loop.Cancel(std::exchange(self.timer, 0));
    self.StartServer();
  };
  std::weak_ptr<State> weak = weak_from_this();
  loop.Watch(other.get(), EPOLLIN, [weak, go_on](uint32_t) {
    if (auto self = weak.lock()) go_on(*self);
  });
  timer = loop.After(std::chrono::ceil<Millis>(other_deadline - now), [weak, go_on] {
    auto self = weak.lock();
    if (!self) return;
    self->timer = 0;
    go_on(*self);  // the last attempt, whose error says what is in the way
  });
  return true;
}

// The server takes any living process of its user for the one that postmaster.pid names, and would never start again.
void PrivatePostgres::State::RemoveStale(pid_t pid) {
  stale_removed = true;
  LogWarn(kComponent, "postmaster.pid is left from an earlier life, its number belongs to another process: removed", {{"pid", std::to_string(pid)}});
  const std::string path = options.data_dir + "/postmaster.pid";
  spawner.RemoveFolder(path, Then(&State::StartServer, "removing " + path));
}

void PrivatePostgres::State::Fail(const absl::Status& status) {
  if (!ready) {  // it served before: only a restart went wrong
    if (!over && !stopping) RestartLater(std::string(status.message()));
    return;
  }
  over = true;
  std::exchange(ready, nullptr)(status);
}

void PrivatePostgres::State::Stop() {
  stopping = true;
  if (timer != 0) loop.Cancel(std::exchange(timer, 0));
  if (other) {
    loop.Unwatch(other.get());
    other.Reset();
  }
  if (!sync_id.empty()) spawner.KillTree(std::exchange(sync_id, ""), [] {});
  if (child.running) return StopServer();
  if (busy) return;  // the answer that is due ends in Finish()
  loop.Post([weak = weak_from_this()] {
    if (auto self = weak.lock()) self->Finish();
  });
}

void PrivatePostgres::State::StopServer() {
  if (child.id.starts_with("initdb")) return spawner.KillTree(child.id, [] {});  // its end comes by itself
  spawner.Signal(child.id, SIGINT);
  std::weak_ptr<State> weak = weak_from_this();
  timer = loop.After(kFastShutdown, [weak] {
    auto self = weak.lock();
    if (!self) return;
    LogWarn(kComponent, "the fast shutdown takes too long: an immediate one follows");
    self->spawner.Signal(self->child.id, SIGQUIT);
    self->timer = self->loop.After(kImmediate, [weak] {
      auto self = weak.lock();
      if (!self) return;
      self->timer = 0;
      self->spawner.KillTree(self->child.id, [] {});
    });
  });
}

void PrivatePostgres::State::Finish() {
  if (timer != 0) loop.Cancel(std::exchange(timer, 0));
  probe.reset();
  child.log.reset();
  over = true;
  if (auto waiting = std::exchange(ready, nullptr)) waiting(Error("SHUTTING_DOWN", "the private PostgreSQL was stopped before it was ready"));
  if (auto done = std::exchange(stopped, nullptr)) done();
}

// ---- the public face

PrivatePostgres::PrivatePostgres(Loop& loop, Spawner& spawner, PrivatePostgresOptions options)
    : state_(std::make_shared<State>(loop, spawner, std::move(options))) {}

PrivatePostgres::~PrivatePostgres() {
  if (state_->timer != 0) state_->loop.Cancel(state_->timer);
  if (state_->other) state_->loop.Unwatch(state_->other.get());
}

void PrivatePostgres::Start(std::function<void(absl::Status)> ready) {
  BULKHEAD_CHECK(!state_->ready && state_->run == 0);
  state_->ready = std::move(ready);
  auto cluster = PostgresCluster::Prepare(state_->options);
  if (!cluster.ok()) {
    state_->loop.Post([weak = std::weak_ptr(state_), status = cluster.status()] {
      if (auto self = weak.lock()) self->Fail(status);
    });
    return;
  }
  state_->cluster = *std::move(cluster);
  state_->Start();
}

void PrivatePostgres::Stop(std::function<void()> stopped) {
  BULKHEAD_CHECK(!state_->stopping);
  state_->stopped = std::move(stopped);
  state_->Stop();
}

std::string PrivatePostgres::conninfo() const { return state_->cluster.Conninfo("bulkhead"); }

}  // namespace bulkhead
