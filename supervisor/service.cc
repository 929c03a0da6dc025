#include "supervisor/service.h"

#include <algorithm>
#include <utility>

#include "supervisor/base/limits.h"
#include "supervisor/base/log.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

constexpr int kRoundsPerWatchdog = 3;     // one that is late or lost leaves time for the next
constexpr Millis kLeastRound{50};
constexpr Millis kExtendInterval{5'000};  // well within limits::kExtendStart
constexpr size_t kMaxStatus = 256;        // bytes; longer ones are cut

std::string StatusLine(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  if (text.size() > kMaxStatus) text = text.substr(0, kMaxStatus - 3) + "...";
  return "STATUS=" + text;
}

}  // namespace

void Service::Start(Watched watched) {
  watched_ = std::move(watched);
  pool_turned_at_ = Clock::Real().Now();
  if (!notifier_.wanted()) return;
  loop_.After(kExtendInterval, [this] { Extend(); });
  if (watchdog_) Round();
}

void Service::Extend() {
  if (ready_ || stopping_) return;
  if (watched_.migrations->load() > 0)
    notifier_.Send("EXTEND_TIMEOUT_USEC=" + std::to_string(std::chrono::microseconds(limits::kExtendStart).count()));
  loop_.After(kExtendInterval, [this] { Extend(); });
}

// A task of the pool that waits although threads have nothing to do, or for longer than anything may take, is what a stuck pool looks like.
bool Service::Excused() {
  if (!watched_.pool->AllBusy()) return false;
  return watched_.migrations->load() > 0 || Clock::Real().Now() - pool_turned_at_ < limits::kPoolPatience;
}

void Service::Round() {
  const bool turned = stopping_ || (gateway_turned_ && ((!pool_asked_ && !pool_full_) || Excused()));
  if (turned) {
    notifier_.Send("WATCHDOG=1");
    complained_ = false;
  } else if (!std::exchange(complained_, true)) {
    LogError("systemd", "the watchdog is not fed", {{"stuck", gateway_turned_ ? "the blocking pool" : "a thread of the gateway"}});
  }
  loop_.After(std::max(*watchdog_ / kRoundsPerWatchdog, kLeastRound), [this] { Round(); });
  if (stopping_) return;
  if (gateway_turned_) {
    gateway_turned_ = false;
    // From their threads, of which the last one answers.
    watched_.gateway([this] { loop_.Post([this] { gateway_turned_ = true; }); });
  }
  if (pool_asked_) return;
  pool_asked_ = watched_.pool->Submit([this] { loop_.Post([this] { PoolTold(); }); });
  pool_full_ = !pool_asked_;
}

// On the control loop again.
void Service::PoolTold() {
  pool_asked_ = false;
  pool_turned_at_ = Clock::Real().Now();
}

void Service::Status(const std::string& text) {
  if (text == status_) return;
  status_ = text;
  notifier_.Send(StatusLine(text));
}

void Service::Ready(const std::string& status) {
  ready_ = true;
  status_ = status;
  notifier_.Send("READY=1\n" + StatusLine(status));
}

void Service::Reloading() { notifier_.Send("RELOADING=1\n" + ServiceNotifier::MonotonicLine()); }

absl::StatusOr<ServedSockets> SocketsOf(const ServiceEnvironment& environment) {
  ASSIGN_OR_RETURN(std::vector<GivenSocket> given, TakeSockets(environment));
  ServedSockets served;
  for (GivenSocket& socket : given) {
    const bool grpc = socket.name == "grpc", http = socket.name == "http" || (!grpc && given.size() == 1);
    if (!grpc && !http) {
      return Error("LISTEN_FAILED", "The socket " + socket.address + " of the service manager is called \"" + socket.name +
                                        "\": say by FileDescriptorName=http or FileDescriptorName=grpc what is served there.");
    }
    UniqueFd& place = grpc ? served.grpc : served.http;
    if (place) {
      return Error("LISTEN_FAILED", "The service manager gives two sockets for " + std::string(grpc ? "grpc" : "http") +
                                        ", the second on " + socket.address + ": only one of each can be served.");
    }
    LogInfo("systemd", "serves on a socket of the service manager", {{"what", grpc ? "grpc" : "http"}, {"address", socket.address}});
    place = std::move(socket.fd);
  }
  return served;
}

void Service::Stopping(const std::string& status) {
  stopping_ = true;
  status_ = status;
  notifier_.Send("STOPPING=1\n" + StatusLine(status));
}

}  // namespace bulkhead
