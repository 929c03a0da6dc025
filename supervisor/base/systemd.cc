#include "supervisor/base/systemd.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <cstring>

#include "supervisor/base/log.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

constexpr int kFirstGiven = 3;   // SD_LISTEN_FDS_START
constexpr int kMaxGiven = 64;    // beyond: refused as nonsense

std::string TakeVariable(const char* name) {
  const char* value = getenv(name);
  std::string text = value ? value : "";
  unsetenv(name);
  return text;
}

// Meant for this process: its variable names it, or there is none.
bool IsForUs(const std::string& pid) { return pid.empty() || atol(pid.c_str()) == static_cast<long>(getpid()); }

}  // namespace

ServiceEnvironment ServiceEnvironment::Take() {
  ServiceEnvironment taken;
  taken.notify_socket = TakeVariable("NOTIFY_SOCKET");
  const std::string watchdog = TakeVariable("WATCHDOG_USEC"), watchdog_pid = TakeVariable("WATCHDOG_PID");
  const int64_t micros = atoll(watchdog.c_str());
  if (micros > 0 && IsForUs(watchdog_pid)) taken.watchdog = std::chrono::duration_cast<Millis>(std::chrono::microseconds(micros));
  const std::string fds = TakeVariable("LISTEN_FDS"), pid = TakeVariable("LISTEN_PID");
  taken.socket_names = TakeVariable("LISTEN_FDNAMES");
  if (!fds.empty() && !pid.empty() && IsForUs(pid)) taken.sockets = atoi(fds.c_str());
  return taken;
}

ServiceNotifier::ServiceNotifier(const std::string& socket) {
  if (socket.empty()) return;
  const bool known = socket[0] == '/' || socket[0] == '@';
  if (!known || socket.size() < 2 || socket.size() > kMaxSocketPath) {
    LogWarn("systemd", "NOTIFY_SOCKET is no socket that can be written to", {{"socket", socket}});
    return;
  }
  address_.sun_family = AF_UNIX;
  memcpy(address_.sun_path, socket.data(), socket.size());
  if (socket[0] == '@') address_.sun_path[0] = 0;  // abstract: its length counts, not a NUL
  length_ = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + socket.size() + (socket[0] == '/' ? 1 : 0));
  fd_.Reset(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

// To the address each time: a manager that was started anew listens under the same name.
bool ServiceNotifier::Send(std::string_view state) {
  if (!fd_) return false;
  ssize_t sent;
  do {
    sent = sendto(fd_.get(), state.data(), state.size(), MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&address_), length_);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0) LogDebug("systemd", "a notification was not taken", {{"reason", strerror(errno)}});
  return sent == static_cast<ssize_t>(state.size());
}

std::string ServiceNotifier::MonotonicLine() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return "MONOTONIC_USEC=" + std::to_string(static_cast<int64_t>(now.tv_sec) * 1'000'000 + now.tv_nsec / 1'000);
}

std::string AddressOf(int socket) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  char text[INET6_ADDRSTRLEN] = "";
  if (getsockname(socket, reinterpret_cast<sockaddr*>(&address), &length) != 0) return "";
  if (address.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    inet_ntop(AF_INET, &v4.sin_addr, text, sizeof text);
    return std::string(text) + ":" + std::to_string(ntohs(v4.sin_port));
  }
  if (address.ss_family != AF_INET6) return "";
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
  inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof text);
  return "[" + std::string(text) + "]:" + std::to_string(ntohs(v6.sin6_port));
}

absl::StatusOr<std::vector<GivenSocket>> TakeSockets(const ServiceEnvironment& environment) {
  std::vector<GivenSocket> sockets;
  if (environment.sockets < 0 || environment.sockets > kMaxGiven)
    return Error("LISTEN_FAILED", "LISTEN_FDS says " + std::to_string(environment.sockets) + " sockets; at most 64 can be given.");
  std::string names = environment.socket_names;
  for (int i = 0; i < environment.sockets; ++i) {
    GivenSocket given;
    given.fd.Reset(kFirstGiven + i);
    const size_t colon = std::min(names.find(':'), names.size());
    given.name = names.substr(0, colon);
    names.erase(0, std::min(colon + 1, names.size()));
    int listening = 0, type = 0;
    socklen_t size = sizeof listening, type_size = sizeof type;
    const bool usable = getsockopt(given.fd.get(), SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) == 0 && listening == 1 &&
                        getsockopt(given.fd.get(), SOL_SOCKET, SO_TYPE, &type, &type_size) == 0 && type == SOCK_STREAM;
    given.address = AddressOf(given.fd.get());
    if (!usable || given.address.empty()) {
      return Error("LISTEN_FAILED", "Socket " + std::to_string(i) + " of the service manager (" + (given.name.empty() ? "without a name" : given.name) +
                                        ") is no listening TCP socket: use ListenStream=HOST:PORT and Accept=no.");
    }
    fcntl(given.fd.get(), F_SETFD, FD_CLOEXEC);
    fcntl(given.fd.get(), F_SETFL, fcntl(given.fd.get(), F_GETFL) | O_NONBLOCK);
    sockets.push_back(std::move(given));
  }
  return sockets;
}

}  // namespace bulkhead
