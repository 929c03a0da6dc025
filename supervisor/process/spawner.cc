// The daemon's side of the spawner: requests out, answers to the callbacks that wait for them.
#include "supervisor/process/spawner.h"

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <unordered_map>

#include "supervisor/base/log.h"
#include "supervisor/base/status.h"
#include "supervisor/process/spawner_process.h"
#include "supervisor/process/tree_kill.h"
#include "supervisor/process/wire.h"

namespace bulkhead {
namespace {

// The end of the spawner is awaited, so that nothing is left when the daemon has ended: 10 s for PostgreSQL, and a little.
constexpr Millis kSpawnerEnd{12'000};
constexpr Millis kLastWords{200};  // between the end of its socket and that of the process

class ForkedSpawner final : public Spawner {
 public:
  ForkedSpawner(UniqueFd socket, pid_t pid)
      : pid_(pid), pidfd_(OpenPidfd(pid)), socket_(std::make_unique<wire::PacketSocket>(std::move(socket))) {}

  ~ForkedSpawner() override {
    socket_.reset();
    if (reaped_) return;
    pollfd ended{pidfd_.get(), POLLIN, 0};
    if (pidfd_ && poll(&ended, 1, static_cast<int>(kSpawnerEnd.count())) == 0) {
      LogError("spawner", "the spawner is still ending processes");
      return;
    }
    while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }

  void Attach(Loop& loop) override {
    loop_ = &loop;
    socket_->Attach(loop, [this](std::string_view packet, std::vector<UniqueFd>&) { OnReply(packet); },
                    [this] { Lost(); });
  }

  void Spawn(SpawnSpec spec, std::function<void(absl::StatusOr<SpawnedProcess>)> spawned,
             std::function<void(ProcessExit)> exited) override {
    wire::Request request;
    request.kind = wire::Request::Kind::kSpawn;
    request.spec = std::move(spec);
    uint64_t serial = Send(std::move(request));
    if (serial == 0) {
      loop_->Post([spawned = std::move(spawned)] {
        spawned(Error("SPAWN_FAILED", "arguments, environment and access.files are larger than " + std::to_string(wire::kMaxPacket) + " bytes"));
      });
      return;
    }
    starting_[serial] = std::move(spawned);
    running_[serial] = std::move(exited);
  }

  void Inspect(SpawnSpec spec, std::function<void(std::vector<IsolationItem>)> done) override {
    wire::Request request;
    request.kind = wire::Request::Kind::kInspect;
    request.spec = std::move(spec);
    uint64_t serial = Send(std::move(request));
    if (serial == 0) {
      loop_->Post([done = std::move(done)] { done({}); });
      return;
    }
    inspecting_[serial] = std::move(done);
  }

  void Signal(const std::string& id, int signal) override {
    wire::Request request;
    request.kind = wire::Request::Kind::kSignal;
    request.id = id;
    request.signal = signal;
    Send(std::move(request));
  }

  void KillTree(const std::string& id, std::function<void()> empty) override {
    wire::Request request;
    request.kind = wire::Request::Kind::kKillTree;
    request.id = id;
    killing_[Send(std::move(request))] = {id, std::move(empty)};
  }

  void MakeFolder(const std::string& path, uid_t uid, gid_t gid, mode_t mode, std::function<void(absl::Status)> done) override {
    wire::Request request;
    request.kind = wire::Request::Kind::kMakeFolder;
    request.path = path;
    request.uid = uid;
    request.gid = gid;
    request.mode = mode;
    folders_[Send(std::move(request))] = std::move(done);
  }

  void RemoveFolder(const std::string& path, std::function<void(absl::Status)> done) override {
    wire::Request request;
    request.kind = wire::Request::Kind::kRemoveFolder;
    request.path = path;
    folders_[Send(std::move(request))] = std::move(done);
  }

  pid_t pid() const override { return pid_; }
  void OnKilled(std::function<void(const std::string&, const std::vector<KilledProcess>&)> killed) override { killed_ = std::move(killed); }
  void OnLost(std::function<void(const std::string&)> lost) override { lost_ = std::move(lost); }

 private:
  struct Killing {
    std::string id;
    std::function<void()> empty;
  };

  // Nobody can end or start a process any more; the kernel has killed the children with it (PR_SET_PDEATHSIG).
  void Lost() {
    int status = 0;
    std::string how = "it closed its socket";
    pollfd ended{pidfd_.get(), POLLIN, 0};
    if (poll(&ended, 1, static_cast<int>(kLastWords.count())) == 1 && waitpid(pid_, &status, WNOHANG) == pid_) {
      reaped_ = true;
      how = WIFSIGNALED(status) ? "it was ended by signal " + std::to_string(WTERMSIG(status))
                                : "it exited with code " + std::to_string(WEXITSTATUS(status));
    }
    if (!lost_) Fatal(__FILE__, __LINE__, "the spawner process has ended: the supervisor can't go on without it");
    std::exchange(lost_, nullptr)(how);
  }

  // The serial of the request, 0 when it is too large for a packet.
  uint64_t Send(wire::Request request) {
    BULKHEAD_CHECK(loop_ != nullptr && loop_->InLoopThread());
    request.serial = next_serial_;
    std::vector<UniqueFd> fds;
    std::string packet = wire::Encode(request, fds);
    if (packet.size() > wire::kMaxPacket) {
      BULKHEAD_CHECK(request.kind == wire::Request::Kind::kSpawn || request.kind == wire::Request::Kind::kInspect);  // ids and paths are short
      return 0;
    }
    socket_->Send(std::move(packet), std::move(fds));
    return next_serial_++;
  }

  template <typename F>
  static F Take(std::unordered_map<uint64_t, F>& waiting, uint64_t serial) {
    auto node = waiting.extract(serial);
    return node.empty() ? F() : std::move(node.mapped());
  }

  void OnReply(std::string_view packet) {
    wire::Reply reply;
    BULKHEAD_CHECK(wire::Decode(packet, reply));
    absl::Status status(static_cast<absl::StatusCode>(reply.code), reply.text);
    switch (reply.kind) {
      case wire::Reply::Kind::kSpawned: {
        auto spawned = Take(starting_, reply.serial);
        if (!status.ok()) running_.erase(reply.serial);
        if (!spawned) break;
        if (status.ok()) {
          spawned(std::move(reply.process));
        } else {
          spawned(Error(status.code() == wire::kIsolationIncomplete ? "ISOLATION_INCOMPLETE" : "SPAWN_FAILED", reply.text));
        }
        break;
      }
      case wire::Reply::Kind::kInspected:
        if (auto done = Take(inspecting_, reply.serial)) done(std::move(reply.process.isolation));
        break;
      case wire::Reply::Kind::kExited:
        if (auto exited = Take(running_, reply.serial)) exited(reply.exit);
        break;
      case wire::Reply::Kind::kEmpty:
        if (Killing killing = Take(killing_, reply.serial); killing.empty) {
          if (!reply.killed.empty() && killed_) killed_(killing.id, reply.killed);
          killing.empty();
        }
        break;
      case wire::Reply::Kind::kFolder:
        if (auto done = Take(folders_, reply.serial)) done(status);
        break;
    }
  }

  pid_t pid_;
  UniqueFd pidfd_;
  std::unique_ptr<wire::PacketSocket> socket_;
  Loop* loop_ = nullptr;
  uint64_t next_serial_ = 1;
  std::unordered_map<uint64_t, std::function<void(absl::StatusOr<SpawnedProcess>)>> starting_;
  std::unordered_map<uint64_t, std::function<void(ProcessExit)>> running_;
  std::unordered_map<uint64_t, std::function<void(std::vector<IsolationItem>)>> inspecting_;
  std::unordered_map<uint64_t, Killing> killing_;
  std::unordered_map<uint64_t, std::function<void(absl::Status)>> folders_;
  std::function<void(const std::string&, const std::vector<KilledProcess>&)> killed_;
  std::function<void(const std::string&)> lost_;
  bool reaped_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Spawner>> Spawner::Fork(Options options) {
  auto ends = SocketPair(SOCK_SEQPACKET | SOCK_NONBLOCK);
  if (!ends.ok()) return ends.status();
  pid_t daemon = getpid();
  // A Ctrl-C right now must not find the new process with the default reactions: it unblocks when it ignores them.
  sigset_t all, before;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, &before);
  pid_t pid = fork();
  int error = errno;
  if (pid != 0) sigprocmask(SIG_SETMASK, &before, nullptr);
  if (pid < 0) return ErrnoStatus(error, "fork");
  if (pid == 0) {
    ends->first.Reset();
    RunSpawnerProcess(std::move(ends->second), std::move(options), daemon);
  }
  return std::make_unique<ForkedSpawner>(std::move(ends->first), pid);
}

}  // namespace bulkhead
