#include "supervisor/store/notifications.h"

#include <libpq-fe.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "supervisor/base/log.h"
#include "supervisor/store/database.h"

namespace bulkhead {
namespace {

constexpr int kReconnectMs = 1'000;
constexpr int kIdleCheckMs = 30'000;  // a connection that is dead and says nothing is noticed

}  // namespace

Notifications::Notifications(std::string conninfo, std::string channel, std::function<void()> connected,
                             std::function<void(const std::string&)> told)
    : conninfo_(std::move(conninfo)), channel_(std::move(channel)), connected_(std::move(connected)), told_(std::move(told)),
      stop_(eventfd(0, EFD_CLOEXEC)), thread_([this] { Follow(); }) {}

Notifications::~Notifications() {
  const uint64_t one = 1;
  if (write(stop_.get(), &one, sizeof one) != sizeof one) LogWarn("store", "a thread that listens can't be told to end");
  thread_.join();
}

bool Notifications::WaitFor(int fd, int timeout_ms) {
  pollfd fds[] = {{.fd = stop_.get(), .events = POLLIN, .revents = 0}, {.fd = fd, .events = POLLIN, .revents = 0}};
  poll(fds, 2, timeout_ms);
  return fds[0].revents == 0;
}

void Notifications::Follow() {
  while (true) {
    auto connection = Connection::Open(conninfo_);
    if (connection.ok() && (*connection)->Run("LISTEN " + channel_).ok()) {
      connected_();
      PGconn* const raw = (*connection)->raw();
      while (PQconsumeInput(raw) && (*connection)->alive()) {
        // Several that say the same are one.
        std::string last;
        bool any = false;
        while (PGnotify* notify = PQnotifies(raw)) {
          const std::string payload = notify->extra;
          PQfreemem(notify);
          if (any && payload == last) continue;
          any = true;
          last = payload;
          told_(payload);
        }
        if (!WaitFor(PQsocket(raw), kIdleCheckMs)) return;
      }
    }
    if (!WaitFor(-1, kReconnectMs)) return;
  }
}

}  // namespace bulkhead
