// The immutable picture of which modules can be reached now: the only thing that the gateway, the jobs and the events read
// of the lifecycle. Lifecycle writes it, nobody else; a snapshot never changes (the one idea of supervisor/README.md).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "supervisor/base/loop.h"
#include "supervisor/manifest/manifest.h"
#include "supervisor/worker/control.h"

namespace bulkhead {

// What a data thread has found out about a worker.
enum class WorkerFault {
  kUnresponsive,  // it does not answer a PING: it is ended and started anew
  kLink,          // it broke a rule of its data link, or holds up what is sent to it: told in its status for a while
};

// One ready worker.
struct DirectoryWorker {
  int slot = 0;
  std::string instance;      // unique per process, e.g. "consumption-monitor.0.3f2a9c"
  std::string data_socket;   // where the link or HTTP/1.1 is served
  std::string token;         // for HELLO
  std::shared_ptr<ControlPort> control;
  std::function<void(WorkerFault, std::string why)> faulty;  // `why` goes on from "it …". Thread-safe; a link calls it at most once a second
};

// One enabled module, ready or not.
struct DirectoryModule {
  std::string name;
  std::shared_ptr<const Manifest> manifest;  // routes, jobs, subscriptions
  std::optional<WallTime> enabled_at;        // the last time; the same on every node
  std::vector<DirectoryWorker> workers;      // ready ones only
  std::vector<DirectoryWorker> standby;      // the spare that is ready: for requests that reach none of those, before the next Directory says why
  bool starting = false;                     // a worker is on its way, so a request may wait; else without workers: 503
};

struct Directory {
  uint64_t version = 0;
  std::map<std::string, std::shared_ptr<const DirectoryModule>, std::less<>> modules;
};

// A data thread, or whatever else holds a snapshot. Called on the control loop; all calls return at once.
class DirectoryReader {
 public:
  virtual ~DirectoryReader() = default;
  // Use `directory` from now on; `adopted` (thread-safe, any thread) once no decision is made by an older one any more.
  virtual void Adopt(std::shared_ptr<const Directory> directory, std::function<void()> adopted) = 0;
  // `drained` (any thread, once) when no request to this instance is in flight here. The instance has left the Directory before.
  virtual void Drain(const std::string& instance, std::function<void()> drained) = 0;
  // What would not end by itself, WebSockets, is to be closed now. The instance has left the Directory before.
  virtual void EndTunnels(const std::string& /*instance*/) {}
};

// Publishing: all readers adopt, then `done` on the control loop. Control loop only.
class DirectoryPublisher {
 public:
  explicit DirectoryPublisher(Loop& loop) : loop_(loop) {}
  void AddReader(DirectoryReader* reader) { readers_.push_back(reader); }  // before the first Publish
  void Publish(std::shared_ptr<const Directory> directory, std::function<void()> done);
  void Drain(const std::string& instance, std::function<void()> done);
  void EndTunnels(const std::string& instance);
  const std::shared_ptr<const Directory>& current() const { return current_; }

 private:
  Loop& loop_;
  std::vector<DirectoryReader*> readers_;
  std::shared_ptr<const Directory> current_ = std::make_shared<Directory>();
};

}  // namespace bulkhead
