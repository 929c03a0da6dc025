// What the supervisor tells the service manager that started it: that it is ready, what it is doing, and that it lives. Nothing where there
// is none to tell. Lives on the control loop; never blocks.
//
// The watchdog is fed by nobody who could turn while others stand still: in each third of its time the control loop asks each thread of the
// gateway and the pool to do something, and only when all of them have done it, and the control loop has heard of it, WATCHDOG=1 goes out.
// A pool that has no thread to spare is no failure for a while (limits::kPoolPatience), nor while a migration runs. In a shutdown, which has
// its own budget, the control loop alone counts.
#pragma once

#include <atomic>
#include <functional>
#include <optional>
#include <string>

#include "supervisor/base/blocking_pool.h"
#include "supervisor/base/loop.h"
#include "supervisor/base/systemd.h"

namespace bulkhead {

class Service {
 public:
  struct Watched {
    std::function<void(std::function<void()> turned)> gateway;  // asks every thread of it
    BlockingPool* pool = nullptr;
    const std::atomic<int>* migrations = nullptr;               // that are under way
  };
  Service(Loop& loop, const ServiceEnvironment& environment) : loop_(loop), notifier_(environment.notify_socket), watchdog_(environment.watchdog) {}
  Service(const Service&) = delete;

  // Begins to feed the watchdog, and to ask for more time while the start is held up by a migration.
  void Start(Watched watched);
  void Status(const std::string& text);  // one line for people; the same again is not sent again
  void Ready(const std::string& status);
  void Reloading();                      // until Ready()
  void Stopping(const std::string& status);

 private:
  void Round();
  void PoolTold();
  void Extend();
  bool Excused();  // of the pool

  Loop& loop_;
  ServiceNotifier notifier_;
  const std::optional<Millis> watchdog_;
  Watched watched_;
  std::string status_;
  bool ready_ = false, stopping_ = false;
  // Of the round of the watchdog that is under way.
  bool gateway_turned_ = true;
  bool pool_asked_ = false;  // a task of ours waits in it, or runs
  bool pool_full_ = false;
  bool complained_ = false;
  Instant pool_turned_at_{};
};

// The sockets that the service manager has opened, by what is served there. A single one without either name is for HTTP.
struct ServedSockets {
  UniqueFd http, grpc;
};
// LISTEN_FAILED: a socket that can't be used, a name that is neither `http` nor `grpc`, a name that comes twice.
absl::StatusOr<ServedSockets> SocketsOf(const ServiceEnvironment& environment);

}  // namespace bulkhead
