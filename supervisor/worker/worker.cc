#include "supervisor/worker/worker.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "supervisor/base/digest.h"
#include "supervisor/base/limits.h"
#include "supervisor/base/log.h"
#include "supervisor/base/random.h"
#include "supervisor/base/status.h"
#include "supervisor/base/text.h"
#include "supervisor/process/instance_journal.h"
#include "supervisor/worker/cpu_throttle.h"
#include "supervisor/worker/exit_report.h"
#include "supervisor/worker/client_message.h"
#include "supervisor/worker/flag_message.h"
#include "supervisor/worker/handshake.h"
#include "supervisor/worker/health_judge.h"

namespace bulkhead {
namespace {

constexpr Millis kExitGrace{1'000};         // for the exit of a process that seems to be dying, before it is ended
constexpr Millis kFirstHealthCheck{100};    // after ready: soon enough for the status, and behind the requests that have waited
constexpr Millis kHealthBeat{1'000}, kOnTheBeat{4'000};  // checks as rare as that come with whole seconds: many modules share what waking up costs
constexpr double kHeldBack = 0.5;           // a worker that its CPU limit kept from running for more than that part of the time did not have its time

}  // namespace

class WorkerProcess::Body : public std::enable_shared_from_this<WorkerProcess::Body> {
 public:
  Body(Loop& loop, Spawner& spawner, const Clock& clock, WorkerSpec spec, Callbacks callbacks)
      : loop_(loop),
        spawner_(spawner),
        clock_(clock),
        spec_(std::move(spec)),
        callbacks_(std::move(callbacks)),
        token_(RandomHex(24)),
        judge_(spec_.manifest->health) {
    spec_.secrets.push_back(token_);
  }
  ~Body() {
    loop_.Cancel(timer_);
    loop_.Cancel(health_timer_);
    if (handshake_) loop_.Unwatch(handshake_.get());
  }

  void Start() {
    began_ = clock_.Now();
    started_at_ = clock_.Wall();
    mode_t shared = spec_.change_user ? 02770 : 0700;
    // The spawner does what it is asked in order, so nothing waits for an answer; Spawned() comes after those of the folders.
    auto made = [self = weak_from_this()](absl::Status status) {
      if (auto body = self.lock()) body->folders_.Update(status);
    };
    spawner_.MakeFolder(spec_.data_dir, spec_.uid, spec_.gid, 0700, made);
    spawner_.MakeFolder(spec_.instance_dir, spec_.uid, spec_.gid, shared, made);
    spawner_.MakeFolder(TmpFolder(), spec_.uid, spec_.gid, 0700, made);
    Spawn();
  }

  void Stop(Millis budget) {
    if (ended_ || failure_) return;  // its end has come, or is under way for a reason of its own
    Instant deadline = clock_.Now() + budget;
    if (stop_asked_) {
      if (deadline < stop_deadline_) {
        stop_deadline_ = deadline;
        Arm(std::min(stage_deadline_, deadline));
      }
      return;
    }
    stop_asked_ = true;
    stop_deadline_ = deadline;
    loop_.Cancel(health_timer_);
    if (!spawned_) return;  // Spawned() looks at stop_asked_
    if (!started_) {
      // Not serving yet: there is nothing to finish, so no Stop RPC.
      Terminate();
      return;
    }
    stage_ = Stage::kStopRpc;
    // What is left of the budget is for SIGTERM: who does not answer may still end by it.
    stage_time_ = std::min(std::max(budget - limits::kTermGrace, budget / 2), spec_.manifest->stop_timeout);
    stage_deadline_ = clock_.Now() + stage_time_;
    Arm(stage_deadline_);
    auto self = weak_from_this();
    control_->Stop(stage_time_, [self, &loop = loop_](absl::Status status, auto) {
      loop.Post([self, status] {
        auto body = self.lock();
        if (body && body->stage_ == Stage::kStopRpc) body->StopAnswered(status);
      });
    });
  }

  void Unresponsive(std::string why) {
    if (stage_ != Stage::kServing) return;
    const Instant now = clock_.Now();
    const double share = throttle_.ShareLately(now);
    // As of Health, only the time counts in which it could run; what it was forgiven long ago is forgotten.
    if (now - unresponsive_at_ >= limits::kThrottledGrace) unresponsive_ = 0;
    unresponsive_at_ = now;
    unresponsive_ += 1 - share;
    if (share < kHeldBack || unresponsive_ >= 1) return Fail({WorkerEnd::kLiveness, std::move(why)});
    Note(LogLevel::kWarn, "left alone although it does not answer: its CPU limit holds it back", why);
  }

  Loop& loop_;
  Spawner& spawner_;
  const Clock& clock_;
  WorkerSpec spec_;
  Callbacks callbacks_;
  const std::string token_;
  int pid_ = 0;
  WallTime started_at_;
  std::vector<IsolationItem> isolation_;
  std::shared_ptr<ControlPort> control_;

  std::string ControlSocket() const { return spec_.instance_dir + "/control"; }
  std::string DataSocket() const { return spec_.instance_dir + "/data"; }
  std::string TmpFolder() const { return spec_.instance_dir + "/tmp"; }

 private:
  enum class Stage { kStarting, kStartup, kServing, kStopRpc, kTerm, kKill };

  void Note(LogLevel level, std::string_view message, std::string_view detail = {}) {
    Log(level, "worker", message, {{"module", spec_.module}, {"instance", spec_.instance}, {"detail", std::string(detail)}});
  }

  // One timer for the stage that is under way.
  void Arm(Instant at) {
    loop_.Cancel(timer_);
    auto self = weak_from_this();
    timer_ = loop_.After(std::chrono::ceil<Millis>(at - clock_.Now()), [self] {
      if (auto body = self.lock()) body->Expired();
    });
  }

  void Spawn() {
    auto channel = SocketPair(SOCK_STREAM);
    auto out = MakeLogPipe();
    auto err = MakeLogPipe();
    if (!channel.ok() || !out.ok() || !err.ok()) {
      // Later: Ended() may not be called from within Start().
      loop_.Post([self = weak_from_this(), why = std::string(channel.status().message())] {
        if (auto body = self.lock()) body->Ended({WorkerEnd::kExit, "no descriptors left for the module's sockets: " + why});
      });
      return;
    }
    handshake_ = std::move(channel->first);
    fcntl(handshake_.get(), F_SETFL, O_NONBLOCK);
    tail_ = std::make_shared<OutputTail>();
    rate_ = std::make_shared<LogRate>(loop_, [self = weak_from_this(), notice = Lines("supervisor")](uint64_t lines, std::string_view text) {
      notice(text);
      if (auto body = self.lock()) body->LinesDropped(lines);
    });
    out_ = std::make_unique<LogPipe>(loop_, std::move(out->first), tail_, rate_, Lines("stdout"));
    err_ = std::make_unique<LogPipe>(loop_, std::move(err->first), tail_, rate_, Lines("stderr"));

    SpawnSpec spawn;
    spawn.id = spec_.instance;
    spawn.executable = spec_.package_dir + "/" + spec_.manifest->entry;
    spawn.args = spec_.manifest->args;
    spawn.env = {
        {"PATH", "/usr/local/bin:/usr/bin:/bin"}, {"LANG", "C.UTF-8"}, {"HOME", spec_.data_dir}, {"TMPDIR", TmpFolder()},
        {kInstanceVariable, spec_.instance}};
    spawn.notes = {{"module", spec_.module},
                   {"version", spec_.version},
                   {"slot", std::to_string(spec_.slot)},
                   {"controlSocket", ControlSocket()},
                   {"dataSocket", DataSocket()},
                   {"tokenSha256", DigestHex(token_)}};
    spawn.cwd = spec_.data_dir;
    spawn.change_user = spec_.change_user;
    spawn.uid = spec_.uid;
    // A group of its own: the daemon's would open every other module's folder to it. Its sockets get that group all the same,
    // from the setgid folder they are made in.
    spawn.gid = spec_.change_user ? static_cast<gid_t>(spec_.uid) : spec_.gid;
    spawn.sandbox = true;
    spawn.strict = spec_.manifest->strict_isolation;
    spawn.kin = spec_.module;
    spawn.reach = spec_.reach;
    spawn.reach.readable.push_back(spec_.package_dir);
    for (const std::string& folder : {spec_.instance_dir, spec_.data_dir, TmpFolder()}) spawn.reach.writable.push_back(folder);
    spawn.reach.tmp = TmpFolder();
    spawn.limits.memory_bytes = spec_.manifest->limit_memory;
    spawn.limits.cpu_millis = spec_.manifest->limit_cpu_millis;
    spawn.limits.pids = spec_.manifest->limit_pids > 0 ? spec_.manifest->limit_pids : limits::kModulePids;
    spawn.limits.nofile = limits::kModuleFiles;
    spawn.limits.file_bytes = limits::kModuleFileBytes;
    spawn.control = std::move(channel->second);
    spawn.out = std::move(out->second);
    spawn.err = std::move(err->second);
    stage_deadline_ = clock_.Now() + std::min(spec_.manifest->handshake_timeout, spec_.manifest->start_timeout);
    Arm(stage_deadline_);
    auto self = weak_from_this();
    spawner_.Spawn(
        std::move(spawn),
        [self](absl::StatusOr<SpawnedProcess> spawned) {
          if (auto body = self.lock()) body->Spawned(std::move(spawned));
        },
        [self](ProcessExit exit) {
          if (auto body = self.lock()) body->Exited(exit);
        });
  }

  LogPipe::LineFn Lines(std::string_view stream) {
    return [self = weak_from_this(), stream](std::string_view line) {
      auto body = self.lock();
      if (!body || !body->callbacks_.printed) return;
      const std::string masked = MaskSecrets(line, body->spec_.secrets);
      body->callbacks_.printed({body->spec_.module, body->spec_.instance, body->spec_.slot, stream, masked});
    };
  }

  // A flood ends when nothing has been dropped for a while: what comes then is another one.
  void LinesDropped(uint64_t lines) {
    if (callbacks_.lines_dropped) callbacks_.lines_dropped(lines);
    if (stage_ != Stage::kServing || exited_) return;
    const Instant now = clock_.Now();
    if (now >= flood_until_) dropped_ = dropped_told_ = 0;
    flood_until_ = now + limits::kFloodMemory;
    dropped_ += lines;
    if (dropped_ >= 2 * dropped_told_) dropped_told_ = dropped_;
    if (!callbacks_.floods) return;
    callbacks_.floods("it prints more than " + std::to_string(limits::kLogLinesPerSecond) + " lines or " +
                      std::to_string(limits::kLogBytesPerSecond / 1024) + " KiB a second, so " + std::to_string(dropped_told_) +
                      " lines or more were dropped: let it print less, by its log level for instance");
  }

  void Spawned(absl::StatusOr<SpawnedProcess> spawned) {
    std::string folders = folders_.ok() ? "" : "the module's folders could not be made: " + std::string(folders_.message());
    if (!spawned.ok()) {
      const std::string code = ErrorCode(spawned.status());
      if (code == "ISOLATION_INCOMPLETE") return Ended({WorkerEnd::kConfig, std::string(spawned.status().message()), code});
      return Ended({WorkerEnd::kExit, folders.empty() ? std::string(spawned.status().message()) : folders});
    }
    spawned_ = true;
    pid_ = spawned->pid;
    if (spec_.manifest->limit_cpu_millis > 0) throttle_ = CpuThrottle(spawned->cpu_stat);
    isolation_ = std::move(spawned->isolation);
    if (failure_) return Kill();  // it failed before it could be signalled
    if (!folders.empty()) return Fail({WorkerEnd::kExit, folders});
    if (stop_asked_) return Terminate();
    const std::string line = HandshakeOffer({.module = spec_.module,
                                             .instance = spec_.instance,
                                             .token = token_,
                                             .control_socket = ControlSocket(),
                                             .data_socket = DataSocket(),
                                             .host_socket = spec_.host_socket,
                                             .call_socket = spec_.call_socket,
                                             .transport = spec_.manifest->transport});
    // A fresh socket buffer always takes one line.
    if (send(handshake_.get(), line.data(), line.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(line.size())) {
      return AwaitExit(HandshakeFault("HANDSHAKE_CLOSED", "it closed fd 3 before the handshake"));
    }
    auto self = weak_from_this();
    loop_.Watch(handshake_.get(), EPOLLIN, [self](uint32_t) {
      if (auto body = self.lock()) body->ReadHandshake();
    });
  }

  void ReadHandshake() {
    char buffer[1024];
    ssize_t n = recv(handshake_.get(), buffer, sizeof buffer, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) {
      loop_.Unwatch(handshake_.get());
      return AwaitExit(HandshakeFault("HANDSHAKE_CLOSED", "it closed fd 3 without answering the handshake"));
    }
    answer_.append(buffer, static_cast<size_t>(n));
    size_t end = answer_.find('\n');
    // Nothing more is expected, whether the answer is good or bad: who goes on writing fills a buffer, and nobody's time.
    if (end != std::string::npos || answer_.size() > kMaxHandshakeLine) loop_.Unwatch(handshake_.get());
    if (stage_ != Stage::kStarting) return;
    if (end == std::string::npos) {
      if (answer_.size() > kMaxHandshakeLine) Fail(HandshakeFault("HANDSHAKE_MALFORMED", "its handshake is longer than 4096 bytes"));
      return;
    }
    if (auto fault = CheckHandshakeAnswer(std::string_view(answer_).substr(0, end))) return Fail(*std::move(fault));
    control_ = ControlPort::Open(ControlSocket(), token_);
    Initialize();
  }

  void Initialize() {
    stage_deadline_ = clock_.Now() + spec_.manifest->start_timeout;
    Arm(stage_deadline_);
    calling_ = "Initialize";
    module::v1::InitializeRequest request;
    request.set_module(spec_.module);
    request.set_version(spec_.version);
    request.set_slot(spec_.slot);
    request.set_config_json(spec_.config_json);
    request.set_config_revision(spec_.config_revision);
    request.set_conninfo(spec_.conninfo);
    request.set_schema(spec_.schema);
    request.set_data_dir(spec_.data_dir);
    FillFlags(spec_.flags, *request.mutable_flags(), *request.mutable_flag_rules());
    FillClients(spec_.clients, *request.mutable_clients());
    auto self = weak_from_this();
    control_->Initialize(request, spec_.manifest->start_timeout, [self, &loop = loop_](absl::Status status, auto) {
      loop.Post([self, status] {
        if (auto body = self.lock()) body->Initialized(status);
      });
    });
  }

  void Initialized(const absl::Status& status) {
    if (stage_ != Stage::kStarting || ended_) return;
    if (!status.ok()) return StartFailed(status);
    calling_ = "Start";
    auto self = weak_from_this();
    control_->Start(std::chrono::ceil<Millis>(stage_deadline_ - clock_.Now()), [self, &loop = loop_](absl::Status status, auto) {
      loop.Post([self, status] {
        auto body = self.lock();
        if (!body || body->stage_ != Stage::kStarting || body->ended_) return;
        if (!status.ok()) return body->StartFailed(status);
        body->Started();
      });
    });
  }

  void Started() {
    started_ = true;
    loop_.Cancel(timer_);
    judge_.Begin(clock_.Now(), kFirstHealthCheck, throttle_.Total());
    stage_ = Stage::kStartup;
    if (judge_.ready()) Ready();
    AwaitHealthCheck();
  }

  void Ready() {
    stage_ = Stage::kServing;
    callbacks_.ready();
  }

  // Whether Health is asked at all.
  bool Watched() const { return (stage_ == Stage::kServing || stage_ == Stage::kStartup) && !ended_; }

  void StartFailed(const absl::Status& status) {
    if (status.code() == absl::StatusCode::kUnavailable)
      return AwaitExit({WorkerEnd::kExit, std::string(calling_) + " could not be called: " + std::string(status.message())});
    if (status.code() == absl::StatusCode::kDeadlineExceeded) return StartOverdue();
    bool config = status.code() == absl::StatusCode::kFailedPrecondition || status.code() == absl::StatusCode::kInvalidArgument;
    Fail({config ? WorkerEnd::kConfig : WorkerEnd::kExit, std::string(calling_) + " failed: " + std::string(status.message())});
  }

  // The call's own deadline and our timer are the same moment: whichever comes first says it.
  void StartOverdue() {
    std::string timeout = std::to_string(spec_.manifest->start_timeout.count());
    Fail({WorkerEnd::kStartTimeout, std::string(calling_) + " did not answer: Initialize and Start have " + timeout + " ms together"});
  }

  // Something broke because the process is ending, as it seems. Its exit, which comes within moments, says more; if it does not
  // come, `failure` is what there is to say.
  void AwaitExit(WorkerExit failure) {
    if (stage_ != Stage::kStarting || ended_) return;
    late_failure_ = std::move(failure);
    Arm(std::min(stage_deadline_, clock_.Now() + kExitGrace));
  }

  void AwaitHealthCheck() {
    if (!Watched()) return;
    auto self = weak_from_this();
    Millis wait = std::max(std::chrono::ceil<Millis>(judge_.due() - clock_.Now()), Millis(0));
    if (wait >= kOnTheBeat) wait += kHealthBeat - std::chrono::floor<Millis>(judge_.due().time_since_epoch()) % kHealthBeat;
    health_timer_ = loop_.After(wait, [self] {
      if (auto body = self.lock()) body->CheckHealth();
    });
  }

  void CheckHealth() {
    if (!Watched()) return;
    auto self = weak_from_this();
    health_asked_ = clock_.Now();
    throttle_.Look(health_asked_);
    control_->Health(judge_.Ask(health_asked_), [self, &loop = loop_](absl::Status status, module::v1::HealthResponse response) {
      loop.Post([self, status, response = std::move(response)] {
        if (auto body = self.lock()) body->HealthAnswered(status, response);
      });
    });
  }

  void HealthAnswered(const absl::Status& status, const module::v1::HealthResponse& response) {
    if (!Watched()) return;
    // A connection that breaks is a process that ends, as it seems: its exit, which comes within moments, says more.
    const bool broken = status.code() == absl::StatusCode::kUnavailable;
    if (broken && !std::exchange(health_broken_, true)) {
      health_timer_ = loop_.After(kExitGrace, [self = weak_from_this(), status, response] {
        if (auto body = self.lock()) body->JudgeHealth(status, response);
      });
      return;
    }
    health_broken_ = broken;
    JudgeHealth(status, response);
  }

  void JudgeHealth(const absl::Status& status, const module::v1::HealthResponse& response) {
    if (!Watched()) return;
    const Instant now = clock_.Now();
    HealthAnswer answer{.answered = status.ok(), .timed_out = status.code() == absl::StatusCode::kDeadlineExceeded};
    answer.well = response.status() != module::v1::UNHEALTHY;
    answer.complaint = status.ok() ? HealthComplaint(response) : std::string(status.message());
    answer.took = std::chrono::duration_cast<Millis>(now - health_asked_);
    answer.throttled = throttle_.Total();
    // Jitter keeps many modules from being asked in step.
    const HealthJudge::Verdict verdict = judge_.Judge(answer, now, 0.9 + 0.2 * jitter_.Unit());
    switch (verdict.what) {
      case HealthJudge::Verdict::What::kNothing: break;
      case HealthJudge::Verdict::What::kReady: stage_ == Stage::kStartup ? Ready() : TellReadiness(true, ""); break;
      case HealthJudge::Verdict::What::kNotReady: TellReadiness(false, verdict.why); break;
      case HealthJudge::Verdict::What::kNeverReady: return Fail({WorkerEnd::kStartTimeout, verdict.why});
      case HealthJudge::Verdict::What::kDead: return Fail({WorkerEnd::kLiveness, verdict.why});
    }
    AwaitHealthCheck();
    callbacks_.health(status, response);
  }

  void TellReadiness(bool ready, const std::string& why) {
    Note(ready ? LogLevel::kInfo : LogLevel::kWarn, ready ? "ready again" : "not ready", why);
    if (callbacks_.readiness) callbacks_.readiness(ready, why);
  }

  // It is of no use any more: remember why, and end it.
  void Fail(WorkerExit failure) {
    if (ended_ || failure_) return;
    failure_ = std::make_unique<WorkerExit>(std::move(failure));
    Note(LogLevel::kWarn, "ending the worker", failure_->message);
    Kill();
  }

  void StopAnswered(const absl::Status& status) {
    if (status.code() == absl::StatusCode::kDeadlineExceeded) return StopOverdue();
    // UNAVAILABLE: it has left without an answer, and how is what its exit says.
    if (!status.ok() && status.code() != absl::StatusCode::kUnavailable)
      NoteStop("Stop failed: " + std::string(status.message()));
    Terminate();
  }

  void StopOverdue() {
    NoteStop("Stop did not answer within " + std::to_string(stage_time_.count()) + " ms");
    Terminate();
  }

  // What an end that was asked for lacked, for the status.
  void NoteStop(const std::string& what) {
    stop_notes_ += (stop_notes_.empty() ? "" : "; ") + what;
    Note(LogLevel::kWarn, "stopping out of order", what);
  }

  void Terminate() {
    stage_ = Stage::kTerm;
    spawner_.Signal(spec_.instance, SIGTERM);
    spawner_.Signal(spec_.instance, SIGCONT);  // a stopped process can't act on SIGTERM
    Instant now = clock_.Now();
    stage_deadline_ = std::min(stop_deadline_, now + limits::kTermGrace);
    stage_time_ = std::max(std::chrono::ceil<Millis>(stage_deadline_ - now), Millis(0));
    Arm(stage_deadline_);
  }

  void Kill() {
    stage_ = Stage::kKill;
    loop_.Cancel(timer_);
    loop_.Cancel(health_timer_);
    spawner_.Signal(spec_.instance, SIGKILL);  // Exited() does the rest, and the tree
    Arm(clock_.Now() + limits::kKillPatience);
  }

  void Expired() {
    switch (stage_) {
      case Stage::kStarting:
        if (!late_failure_.message.empty()) return Fail(late_failure_);
        if (control_) return StartOverdue();
        return Fail(HandshakeFault("HANDSHAKE_TIMEOUT",
                                   "no handshake within " + std::to_string(spec_.manifest->handshake_timeout.count()) + " ms"));
      case Stage::kStartup:
      case Stage::kServing: return;
      case Stage::kStopRpc: return StopOverdue();
      case Stage::kTerm:
        NoteStop("it did not end within " + std::to_string(stage_time_.count()) + " ms of SIGTERM and was killed");
        return Kill();
      case Stage::kKill:
        if (callbacks_.stuck) callbacks_.stuck();
        return;
    }
  }

  void Exited(const ProcessExit& exit) {
    exited_ = true;
    WorkerExit report;
    if (failure_) {
      report = *failure_;
    } else {
      report = ExitOf(exit, *spec_.manifest, control_ != nullptr);
      // SIGTERM is how it was asked, and our own SIGKILL has been noted.
      if (exit.signal != 0 && !exit.oom_killed && stop_asked_ && exit.signal != SIGTERM && stage_ != Stage::kKill)
        NoteStop("it was " + report.message + " while it stopped");
    }
    report.exit_code = exit.exit_code;
    report.signal = exit.signal;
    if (out_) out_->Drain();
    if (err_) err_->Drain();
    if (rate_) rate_->Flush();
    report.output = tail_ ? MaskSecrets(tail_->Text(), spec_.secrets) : "";
    Ended(std::move(report));
  }

  void Ended(WorkerExit report) {
    if (ended_) return;
    ended_ = true;
    stage_ = Stage::kKill;
    loop_.Cancel(timer_);
    loop_.Cancel(health_timer_);
    if (handshake_) {
      loop_.Unwatch(handshake_.get());
      handshake_.Reset();
    }
    report.ran = std::chrono::duration_cast<Millis>(clock_.Now() - began_);
    report.asked = stop_asked_;
    report.stop_notes = std::move(stop_notes_);
    auto self = shared_from_this();  // `gone` destroys the owner
    callbacks_.died(report);
    pid_ = 0;
    Arm(clock_.Now() + limits::kKillPatience);
    spawner_.KillTree(spec_.instance, [self] {
      self->loop_.Cancel(self->timer_);
      self->out_.reset();
      self->err_.reset();
      auto gone = std::move(self->callbacks_.gone);
      gone();
      // After `gone`, so that a successor's start does not wait behind it.
      self->spawner_.RemoveFolder(self->spec_.instance_dir, [](absl::Status) {});
    });
  }

  absl::Status folders_;
  Stage stage_ = Stage::kStarting;
  bool spawned_ = false, started_ = false, exited_ = false, ended_ = false, stop_asked_ = false;
  Instant began_{}, stage_deadline_{}, stop_deadline_{};
  Loop::TimerId timer_ = 0, health_timer_ = 0;
  UniqueFd handshake_;
  Millis stage_time_{0};      // what the stage of a stop was given
  std::string_view calling_;  // the call of a start that is under way
  std::string answer_;
  WorkerExit late_failure_;
  Instant flood_until_{};
  uint64_t dropped_ = 0, dropped_told_ = 0;  // lines, in the flood that is under way
  std::string stop_notes_;
  std::shared_ptr<OutputTail> tail_;
  std::shared_ptr<LogRate> rate_;
  std::unique_ptr<LogPipe> out_, err_;
  std::unique_ptr<WorkerExit> failure_;
  HealthJudge judge_;
  bool health_broken_ = false;  // the last call failed with its connection
  CpuThrottle throttle_;
  Instant health_asked_{}, unresponsive_at_{};
  double unresponsive_ = 0;  // reports that its link does not answer, each as far as it counts
  Random jitter_ = Random::FromEntropy();
};

WorkerProcess::WorkerProcess(Loop& loop, Spawner& spawner, const Clock& clock, WorkerSpec spec, Callbacks callbacks)
    : body_(std::make_shared<Body>(loop, spawner, clock, std::move(spec), std::move(callbacks))) {}
WorkerProcess::~WorkerProcess() = default;

void WorkerProcess::Start() { body_->Start(); }
void WorkerProcess::Stop(Millis budget) { body_->Stop(budget); }
void WorkerProcess::Hide(std::vector<std::string> secrets) {
  for (std::string& secret : secrets) {
    if (std::find(body_->spec_.secrets.begin(), body_->spec_.secrets.end(), secret) == body_->spec_.secrets.end())
      body_->spec_.secrets.push_back(std::move(secret));
  }
}
void WorkerProcess::Unresponsive(std::string why) { body_->Unresponsive(std::move(why)); }
const WorkerSpec& WorkerProcess::spec() const { return body_->spec_; }
const std::string& WorkerProcess::token() const { return body_->token_; }
std::string WorkerProcess::data_socket() const { return body_->DataSocket(); }
int WorkerProcess::pid() const { return body_->pid_; }
WallTime WorkerProcess::started_at() const { return body_->started_at_; }
const std::vector<IsolationItem>& WorkerProcess::isolation() const { return body_->isolation_; }
const std::shared_ptr<ControlPort>& WorkerProcess::control() const { return body_->control_; }

}  // namespace bulkhead
