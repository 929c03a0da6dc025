// A module's process from main to exit: handshake, servers, then waiting for the reason to leave.
#include "bulkhead/module.h"

#include <absl/synchronization/mutex.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <thread>

#include "control_service.h"
#include "handshake.h"
#include "link_server.h"

namespace bulkhead::sdk {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kOrphanGrace{1'000};  // after EOF on fd 3: the supervisor is gone
constexpr milliseconds kTermGrace{4'000};    // after SIGTERM without Stop; the supervisor kills after 5 s
constexpr milliseconds kFailedGrace{5'000};  // after a failed start, for the supervisor to end the process itself
constexpr milliseconds kCloseGrace{2'000};   // to close servers and join threads
constexpr milliseconds kReplyGrace{200};     // for the last replies to be read
constexpr milliseconds kSlack{500};          // over a grace before the process is left whatever still runs
constexpr int kExitByHand = 2;
constexpr int kExitHandshake = 1;
constexpr int kMaxControlMessage = 16 << 20;  // bytes; a batch of events is the largest

int wake_fd = -1;  // eventfd; written by the signal handler, so it can't be a member
std::atomic<bool> terminate_requested{false};

void Wake() {
  uint64_t one = 1;
  while (write(wake_fd, &one, sizeof one) < 0 && errno == EINTR) {
  }
}

void OnTerminate(int) {
  int saved = errno;
  terminate_requested = true;
  Wake();
  errno = saved;
}

// Handlers, not SIG_IGN: what a module executes starts with default signals.
void InstallSignals() {
  struct sigaction action {};
  action.sa_flags = SA_RESTART;
  action.sa_handler = OnTerminate;
  sigaction(SIGTERM, &action, nullptr);
  action.sa_handler = [](int) {};
  sigaction(SIGINT, &action, nullptr);   // Ctrl-C is the supervisor's, which then stops its modules
  sigaction(SIGPIPE, &action, nullptr);  // a closed log pipe or socket is an error code, not the end
}

std::unique_ptr<grpc::Server> ServeControl(ControlService& service, const std::string& socket) {
  grpc::ServerBuilder builder;
  builder.AddListeningPort("unix:" + socket, grpc::InsecureServerCredentials());
  builder.RegisterService(&service);
  builder.SetMaxReceiveMessageSize(kMaxControlMessage);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  auto server = builder.BuildAndStart();
  if (!server) throw std::runtime_error("can't serve the control socket " + socket);
  return server;
}

// True at EOF. Nothing is expected on fd 3 after the handshake; what comes is dropped.
bool SupervisorGone() {
  char drop[256];
  ssize_t n = recv(kHandshakeFd, drop, sizeof drop, MSG_DONTWAIT);
  return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

// Waits for the end: Stop, SIGTERM, EOF on fd 3, or a failed start nobody reacts to. False when the module did not stop in time.
bool AwaitEnd(ControlService& control, ModuleHost& host) {
  std::optional<Clock::time_point> hard;  // leave whatever runs
  std::optional<Clock::time_point> failed_until;
  int watched = kHandshakeFd;
  auto stop = [&](milliseconds grace) {
    auto until = Clock::now() + grace + kSlack;
    if (!hard || until < *hard) hard = until;
    control.StopModule(grace);
  };
  for (;;) {
    auto now = Clock::now();
    if (control.stopped()) return true;
    if (hard && now >= *hard) return false;
    if (host.failed() && !failed_until) failed_until = now + kFailedGrace;
    if (failed_until && now >= *failed_until && !hard) stop(milliseconds(0));
    if (terminate_requested.exchange(false)) stop(kTermGrace);
    std::optional<Clock::time_point> next = hard ? hard : failed_until;
    int timeout = next ? int(std::max<int64_t>(0, std::chrono::ceil<milliseconds>(*next - now).count())) : -1;
    pollfd fds[2] = {{watched, POLLIN, 0}, {wake_fd, POLLIN, 0}};
    if (poll(fds, 2, timeout) < 0) continue;
    if (fds[1].revents) {
      uint64_t count;
      [[maybe_unused]] ssize_t n = read(wake_fd, &count, sizeof count);
    }
    if (fds[0].revents && SupervisorGone()) {
      watched = -1;
      stop(kOrphanGrace);
    }
  }
}

}  // namespace

int RunModule(std::unique_ptr<Module> module, int argc, char** argv) {
  if (!StartedBySupervisor()) {
    fprintf(stderr,
            "%s is a module of a Bulkhead supervisor, which starts it: put its folder under the supervisor's modules "
            "folder and enable it (bulkhead serve --help).\n",
            argc > 0 ? argv[0] : "this");
    return kExitByHand;
  }
  // Debian's abseil is built with a check that ends the process at an order of locks that might deadlock one day, gRPC's own included.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  InstallSignals();
  std::unique_ptr<ModuleHost> host;
  std::unique_ptr<ControlService> control;
  std::unique_ptr<grpc::Server> server;
  try {
    Handshake handshake = ReadHandshake();
    host = std::make_unique<ModuleHost>(std::move(module), std::vector<std::string>(argv + 1, argv + argc), handshake.token,
                                        ListenUnix(handshake.data_socket), handshake.host_socket, handshake.call_socket);
    control = std::make_unique<ControlService>(*host, handshake.token, Wake);
    server = ServeControl(*control, handshake.control_socket);
    AnswerHandshake();
  } catch (const std::exception& error) {
    AnswerHandshakeError(error.what());
    Logger().Error("the handshake failed", {{"error", error.what()}});
    return kExitHandshake;
  }
  bool ended = AwaitEnd(*control, *host);
  int code = host->exit_code();
  if (!ended) {
    Logger().Error("the module did not stop in time; leaving with work unfinished");
    _exit(code);
  }
  // Closing is done beside this thread, because what an author's code still holds must not hold up the exit.
  std::atomic<bool> closed{false}, clean{false};
  std::thread closer([&] {
    server->Shutdown(std::chrono::system_clock::now() + kReplyGrace);
    if (host->quiet()) {
      control.reset();
      server.reset();
      host.reset();
      clean = true;
    }
    closed = true;
    Wake();
  });
  auto until = Clock::now() + kCloseGrace;
  while (!closed && Clock::now() < until) {
    pollfd wait{wake_fd, POLLIN, 0};
    if (poll(&wait, 1, int(std::max<int64_t>(0, std::chrono::ceil<milliseconds>(until - Clock::now()).count()))) > 0) {
      uint64_t count;
      [[maybe_unused]] ssize_t n = read(wake_fd, &count, sizeof count);
    }
  }
  if (!clean) {
    closer.detach();  // whatever it waits for, nobody waits for it
    _exit(code);
  }
  closer.join();
  return code;
}

}  // namespace bulkhead::sdk
