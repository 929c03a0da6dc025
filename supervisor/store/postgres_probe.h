// Waits on a thread of its own until a postmaster that was just started accepts connections, and makes the database
// `bulkhead` if it is missing. libpq blocks, which the control loop must not.
#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "supervisor/base/clock.h"

namespace bulkhead {

class PostgresProbe {
 public:
  // `conninfo` is of a database that every cluster has. Only `postmaster` counts: another one may still own the socket.
  // `done` comes once, on the probe's thread, with OK or with why it was given up; not at all once it is being destroyed.
  PostgresProbe(std::string conninfo, pid_t postmaster, std::function<void(absl::Status)> done);
  ~PostgresProbe();  // cancels and joins; an attempt under way ends first, within 2 s at the worst

 private:
  void Run();
  absl::Status Attempt();
  bool Pause();  // false when cancelled

  const std::string conninfo_;
  const pid_t postmaster_;
  const std::function<void(absl::Status)> done_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool cancelled_ = false;
  std::thread thread_;
};

}  // namespace bulkhead
