// The two protocols between a service and the service manager that has started it, as systemd speaks them and others do after it:
// notifications (sd_notify(3): one datagram of VARIABLE=value lines to the socket in NOTIFY_SOCKET) and sockets that were opened for it
// (sd_listen_fds(3): descriptors from 3 on, told by LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES). No library is needed for either.
#pragma once

#include <sys/socket.h>
#include <sys/un.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/base/clock.h"
#include "supervisor/base/fd.h"

namespace bulkhead {

// What of the environment is the service manager's. Reading it removes it, so that no child takes it for its own. Before any thread.
struct ServiceEnvironment {
  std::string notify_socket;        // a path, or an abstract one as "@name"; "": nobody listens
  std::optional<Millis> watchdog;   // WATCHDOG_USEC, when it is meant for this process (WATCHDOG_PID)
  int sockets = 0;                  // LISTEN_FDS, when they are meant for this process (LISTEN_PID)
  std::string socket_names;         // LISTEN_FDNAMES, split by colons
  static ServiceEnvironment Take();
};

// Sends notifications. Never blocks: what the service manager does not take at once is lost, and told by Send(). Thread-compatible.
class ServiceNotifier {
 public:
  // A socket that can't be one (neither absolute nor abstract, or too long) is as none, with a log line.
  explicit ServiceNotifier(const std::string& socket);
  bool wanted() const { return static_cast<bool>(fd_); }
  // `state` is "READY=1" or several such lines; a line break inside a value is the caller's to avoid. False when it was not taken.
  bool Send(std::string_view state);
  // "MONOTONIC_USEC=…" of this moment, which belongs to RELOADING=1.
  static std::string MonotonicLine();

 private:
  UniqueFd fd_;
  sockaddr_un address_{};
  socklen_t length_ = 0;
};

// A listening socket that the service manager has opened.
struct GivenSocket {
  std::string name;     // FileDescriptorName= of its unit, else what the manager makes of that: "bulkhead.socket"
  std::string address;  // "127.0.0.1:4000", "[::1]:4000"
  UniqueFd fd;          // close-on-exec
};
// Takes them over. LISTEN_FAILED names a descriptor that is no listening stream socket of IPv4 or IPv6.
absl::StatusOr<std::vector<GivenSocket>> TakeSockets(const ServiceEnvironment& environment);
// "127.0.0.1:4000" of a bound socket; empty when it is none of IPv4 or IPv6.
std::string AddressOf(int socket);

}  // namespace bulkhead
