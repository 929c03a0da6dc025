#include "supervisor/gateway/gateway.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <vector>

#include "supervisor/base/guarded.h"
#include "supervisor/base/status.h"
#include "supervisor/base/systemd.h"
#include "supervisor/gateway/gateway_thread.h"

namespace bulkhead {
namespace {

constexpr int kBacklog = 1024;

struct ListenAddress {
  sockaddr_storage address{};
  socklen_t length = 0;
  std::string host;  // as it was given, with brackets
};

absl::Status CannotListen(const std::string& listen, std::string_view why) {
  return Error("LISTEN_FAILED", "Cannot listen on " + listen + ": " + std::string(why) + ".");
}

absl::StatusOr<ListenAddress> Resolve(const std::string& listen) {
  size_t colon = listen.rfind(':');
  if (colon == std::string::npos || colon == 0 || colon + 1 == listen.size()) return CannotListen(listen, "the address is not HOST:PORT");
  ListenAddress result;
  result.host = listen.substr(0, colon);
  std::string host = result.host, port = listen.substr(colon + 1);
  if (host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  if (port.find_first_not_of("0123456789") != std::string::npos || port.size() > 5 || std::stoi(port) > 65535) {
    return CannotListen(listen, "the port is not a number from 0 to 65535");
  }
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  if (int error = getaddrinfo(host.c_str(), port.c_str(), &hints, &found); error != 0) return CannotListen(listen, gai_strerror(error));
  memcpy(&result.address, found->ai_addr, found->ai_addrlen);
  result.length = found->ai_addrlen;
  freeaddrinfo(found);
  return result;
}

uint16_t& PortOf(sockaddr_storage& address) {
  return address.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(address).sin6_port : reinterpret_cast<sockaddr_in&>(address).sin_port;
}

// One listening socket. The first is bound without SO_REUSEPORT, so that a port which another process shares in that way is still
// "in use" for us; it gets the option afterwards, and the other threads' sockets join it.
absl::StatusOr<UniqueFd> Bind(const std::string& listen, ListenAddress& at, bool first) {
  UniqueFd fd(socket(at.address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return CannotListen(listen, strerror(errno));
  int on = 1;
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (!first) setsockopt(fd.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&at.address), at.length) != 0) return CannotListen(listen, strerror(errno));
  if (first) {
    setsockopt(fd.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    socklen_t length = sizeof at.address;
    getsockname(fd.get(), reinterpret_cast<sockaddr*>(&at.address), &length);  // the real port
  }
  if (::listen(fd.get(), kBacklog) != 0) return CannotListen(listen, strerror(errno));
  return fd;
}

// One socket for all threads: a path belongs to one alone.
absl::StatusOr<UniqueFd> BindForModules(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return CannotListen(path, "the path is longer than a socket's may be");
  memcpy(address.sun_path, path.data(), path.size());
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  unlink(path.c_str());
  if (!fd || bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 || ::listen(fd.get(), kBacklog) != 0 ||
      chmod(path.c_str(), 0666) != 0) {  // every module's uid may connect
    return CannotListen(path, strerror(errno));
  }
  return fd;
}

absl::StatusOr<std::vector<UniqueFd>> Copies(const std::string& name, const UniqueFd& of, size_t count) {
  std::vector<UniqueFd> copies;
  for (size_t i = 0; i < count; ++i) {
    copies.emplace_back(fcntl(of.get(), F_DUPFD_CLOEXEC, 0));
    if (!copies.back()) return CannotListen(name, strerror(errno));
  }
  return copies;
}

// Calls `done` when it has been told so by everybody.
std::function<void()> CountDown(size_t count, std::function<void()> done) {
  auto left = std::make_shared<std::atomic<size_t>>(count);
  return [left, done = std::move(done)] {
    if (left->fetch_sub(1, std::memory_order_acq_rel) == 1) done();
  };
}

class GatewayImpl final : public Gateway {
 public:
  GatewayImpl(std::string address, std::vector<UniqueFd> listeners, const Clock& clock)
      : address_(std::move(address)), no_tracer_({}, {}, clock), no_access_log_(AccessLogging::kOff, clock), meters_(listeners.size()) {
    for (size_t i = 0; i < listeners.size(); ++i) {
      threads_.push_back(std::make_unique<GatewayThread>(std::move(listeners[i]), clock, connected_, meters_, i));
    }
  }
  ~GatewayImpl() override { Stop(Millis{0}); }

  std::string address() const override { return address_; }

  const GatewayMeters& meters() const override { return meters_; }

  absl::Status ListenForModules(const std::string& socket) override {
    ASSIGN_OR_RETURN(UniqueFd bound, BindForModules(socket));
    ASSIGN_OR_RETURN(std::vector<UniqueFd> copies, Copies(socket, bound, threads_.size()));
    for (size_t i = 0; i < threads_.size(); ++i) threads_[i]->ListenForModules(std::move(copies[i]));
    return absl::OkStatus();
  }

  void SetInstance(const std::string& token, std::shared_ptr<const Manifest> manifest) override {
    manifest ? connected_.callers.Add(token, std::move(manifest)) : connected_.callers.Remove(token);
  }

  void Start(const Authenticator& authenticator, LocalService& local, GatewayTelemetry telemetry) override {
    Tracer& tracer = telemetry.tracer ? *telemetry.tracer : no_tracer_;
    AccessLog& access_log = telemetry.access_log ? *telemetry.access_log : no_access_log_;
    phase_.With([&](Phase& phase) {
      for (auto& thread : threads_) thread->Start({authenticator, local, tracer, access_log}, phase.snapshot);
      phase.running = true;
    });
  }

  void Stop(Millis drain) override {
    bool running = phase_.With([](Phase& phase) { return std::exchange(phase.running, false); });
    if (!running) return;
    for (auto& thread : threads_) thread->BeginStop(drain);
    for (auto& thread : threads_) thread->Join();
    // They stay: the control loop may be asking them right now, and is told that they have ended. What was posted too late to run is
    // answered here: nothing is in flight any more.
    unanswered_.With([](auto& waiting) {
      for (auto& [id, done] : waiting) (*done)();
      waiting.clear();
    });
  }

  void Adopt(std::shared_ptr<const Directory> directory, std::function<void()> adopted) override {
    bool running = false;
    std::shared_ptr<const RoutingSnapshot> snapshot;
    phase_.With([&](Phase& phase) {
      phase.snapshot = snapshot = Compile(*directory, *phase.snapshot);
      running = phase.running;
    });
    if (!running) return adopted();
    ForAll(std::move(adopted), [&](GatewayThread& thread, std::function<void()> done) { return thread.Adopt(snapshot, std::move(done)); });
  }

  void Drain(const std::string& instance, std::function<void()> drained) override {
    if (!phase_.With([](Phase& phase) { return phase.running; })) return drained();
    ForAll(std::move(drained), [&](GatewayThread& thread, std::function<void()> done) { return thread.Drain(instance, std::move(done)); });
  }

  void EndTunnels(const std::string& instance) override {
    if (!phase_.With([](Phase& phase) { return phase.running; })) return;
    for (auto& thread : threads_) thread->EndTunnels(instance);
  }

  void Turn(std::function<void()> turned) override {
    if (!phase_.With([](Phase& phase) { return phase.running; })) return turned();
    ForAll(std::move(turned), [](GatewayThread& thread, std::function<void()> done) { return thread.Turn(std::move(done)); });
  }

 private:
  struct Phase {
    bool running = false;
    std::shared_ptr<const RoutingSnapshot> snapshot = std::make_shared<RoutingSnapshot>();
  };

  // Asks each thread, and answers `done` once when all have; Stop() answers for those that ended before.
  template <typename Ask>
  void ForAll(std::function<void()> done, Ask ask) {
    uint64_t id = next_id_.fetch_add(1);
    auto once = std::make_shared<std::function<void()>>([this, id, done = std::move(done), told = std::make_shared<std::atomic<bool>>(false)] {
      if (!told->exchange(true)) done();
    });
    unanswered_.With([&](auto& waiting) { waiting.emplace(id, once); });
    std::function<void()> one = CountDown(threads_.size(), [this, id, once] {
      unanswered_.With([&](auto& waiting) { waiting.erase(id); });
      (*once)();
    });
    for (auto& thread : threads_) {
      if (!ask(*thread, one)) one();
    }
  }

  std::shared_ptr<const ModuleMeters> Metered(const Manifest& manifest) {
    auto meters = std::make_shared<ModuleMeters>();
    meters->unmatched = meters_.Unmatched(manifest.name);
    for (const RouteSpec& route : manifest.routes) meters->routes.push_back(meters_.Route(manifest.name, route.path, route.method));
    return meters;
  }

  std::shared_ptr<const RoutingSnapshot> Compile(const Directory& directory, const RoutingSnapshot& before) {
    auto snapshot = std::make_shared<RoutingSnapshot>();
    for (const auto& [name, module] : directory.modules) {
      auto old = before.modules.find(name);
      bool same = old != before.modules.end() && old->second.module->manifest == module->manifest;
      snapshot->modules[name] = {module, same ? old->second.routes : std::make_shared<RouteTable>(module->manifest),
                                 same ? old->second.meters : Metered(*module->manifest)};
    }
    return snapshot;
  }

  const std::string address_;
  Tracer no_tracer_;
  AccessLog no_access_log_;
  GatewayMeters meters_;
  Connected connected_;
  Guarded<Phase> phase_;
  std::atomic<uint64_t> next_id_{1};
  Guarded<std::unordered_map<uint64_t, std::shared_ptr<std::function<void()>>>> unanswered_;
  std::vector<std::unique_ptr<GatewayThread>> threads_;
};

}  // namespace

Gateway::~Gateway() = default;

absl::StatusOr<std::unique_ptr<Gateway>> Gateway::Listen(GatewayOptions options, const Clock& clock) {
  if (options.given) {
    // One socket for all threads: connections wait in it while no supervisor runs, so none of our own may take some of them.
    ASSIGN_OR_RETURN(std::vector<UniqueFd> copies, Copies("a given socket", options.given, size_t(std::max(options.threads, 1))));
    return std::make_unique<GatewayImpl>(AddressOf(options.given.get()), std::move(copies), clock);
  }
  ASSIGN_OR_RETURN(ListenAddress at, Resolve(options.listen));
  std::vector<UniqueFd> listeners;
  for (int i = 0; i < std::max(options.threads, 1); ++i) {
    ASSIGN_OR_RETURN(UniqueFd fd, Bind(options.listen, at, i == 0));
    listeners.push_back(std::move(fd));
  }
  std::string address = at.host + ":" + std::to_string(ntohs(PortOf(at.address)));
  return std::make_unique<GatewayImpl>(std::move(address), std::move(listeners), clock);
}

}  // namespace bulkhead
