// What PostgreSQL tells by NOTIFY on one channel, on a connection and a thread of its own. A hint and no more: any role may send one, and none is
// told that comes while the connection is down.
#pragma once

#include <functional>
#include <string>
#include <thread>

#include "supervisor/base/fd.h"

namespace bulkhead {

class Notifications {
 public:
  // Both are called on the thread: `told` with the payload of each, `connected` after each (re)connection, when anything may have been missed.
  Notifications(std::string conninfo, std::string channel, std::function<void()> connected, std::function<void(const std::string& payload)> told);
  ~Notifications();  // waits until neither is running or called again
  Notifications(const Notifications&) = delete;

 private:
  void Follow();
  bool WaitFor(int fd, int timeout_ms);  // false: leave; a negative fd: the time alone

  const std::string conninfo_, channel_;
  const std::function<void()> connected_;
  const std::function<void(const std::string&)> told_;
  UniqueFd stop_;
  std::thread thread_;
};

}  // namespace bulkhead
