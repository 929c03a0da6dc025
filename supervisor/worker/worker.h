// One module process as the supervisor sees it: folders, spawn, handshake on fd 3, Initialize, Start, health, stop, end.
// A resource with one owner (the Reconciler); lives on the control loop; its callbacks come from there and may destroy it
// (gone) but nothing else. It decides nothing: when to start, stop or try again is the lifecycle's.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "supervisor/base/loop.h"
#include "supervisor/base/service_client.h"
#include "supervisor/manifest/manifest.h"
#include "supervisor/process/log_pipe.h"
#include "supervisor/process/spawner.h"
#include "supervisor/worker/control.h"
#include "supervisor/worker/host.h"

namespace bulkhead {

// How a process ended, as far as it concerns a restart.
enum class WorkerEnd { kExit, kSignal, kOom, kHandshake, kStartTimeout, kLiveness, kLimit, kConfig };

struct WorkerExit {
  WorkerEnd end = WorkerEnd::kExit;
  std::string message;   // a sentence for people
  std::string code = {};  // UPPER_SNAKE, where `end` has several causes: what went wrong in the handshake; else empty
  int exit_code = 0, signal = 0;
  Millis ran{0};
  std::string output;    // its last lines
  bool asked = false;    // Stop() came before
  bool orderly = false;  // by itself with exit code 0, or by a signal that asks for an end, as systemd's Restart=on-failure has it
  std::string stop_notes;  // of an end that was asked for: what was out of order, a sentence; empty: nothing
};

struct WorkerSpec {
  std::string module, version, instance;
  int slot = 0;
  std::shared_ptr<const Manifest> manifest;
  std::string package_dir;    // absolute; the entry is below it
  std::string instance_dir;   // to be made for the sockets, removed at the end
  std::string data_dir;       // the module's own, to be made when missing
  bool change_user = false;
  uid_t uid = 0;
  gid_t gid = 0;              // the daemon's own group, of the folders, so that it reaches the sockets
  ReachSpec reach;            // beside its own folders
  std::string host_socket, call_socket;
  std::string conninfo, schema;  // empty without database
  std::string config_json;
  int64_t config_revision = 0;
  std::map<std::string, HostFlag> flags;
  ServiceClients clients;            // that it may call
  std::vector<std::string> secrets;  // texts that are "********" in what it prints
};

// One line that a worker has printed, for the length of the call.
struct PrintedLine {
  std::string_view module, instance;
  int slot;
  std::string_view stream;  // stdout, stderr; "supervisor": what the supervisor has to say there
  std::string_view text;    // any bytes, cut at limits::kMaxLogLine
};

class WorkerProcess {
 public:
  struct Callbacks {
    std::function<void()> ready;               // Initialize and Start have answered, and a start-up probe is content
    std::function<void(const WorkerExit&)> died;  // once; the process has ended or could not be started
    std::function<void()> gone;                // once, after died: no process of it is left
    std::function<void(absl::Status, const module::v1::HealthResponse&)> health;  // after each check
    // After `ready`: it is not to be sent anything any more (`why`, a sentence), or again.
    std::function<void(bool ready, const std::string& why)> readiness = {};
    // While it serves: each second in which lines of its log were dropped. A sentence, the same until it has doubled.
    std::function<void(const std::string& message)> floods = {};
    // It was killed, and something of it does not end: a process that is stuck in the kernel. `gone` comes when that is over.
    std::function<void()> stuck = {};
    std::function<void(const PrintedLine& line)> printed = {};
    std::function<void(uint64_t lines)> lines_dropped = {};  // of its log, at any time of its life
  };
  WorkerProcess(Loop& loop, Spawner& spawner, const Clock& clock, WorkerSpec spec, Callbacks callbacks);
  ~WorkerProcess();

  void Start();
  // Stop RPC (manifest's stopTimeout, at most `budget`), then SIGTERM, then the tree. Hastens when called again with less.
  void Stop(Millis budget);
  // More texts to hide, of a configuration that it is about to be told.
  void Hide(std::vector<std::string> secrets);
  // Somebody found that it does not answer (`why`, a sentence): it is ended, with cause LIVENESS, unless its CPU limit has held it back.
  void Unresponsive(std::string why);

  const WorkerSpec& spec() const;
  const std::string& token() const;
  std::string data_socket() const;
  int pid() const;
  WallTime started_at() const;
  const std::vector<IsolationItem>& isolation() const;
  const std::shared_ptr<ControlPort>& control() const;

 private:
  class Body;
  std::shared_ptr<Body> body_;  // callbacks of the loop and of gRPC hold it weakly
};

}  // namespace bulkhead
