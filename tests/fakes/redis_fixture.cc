#include "tests/fakes/redis_fixture.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <thread>
#include <vector>

#include "supervisor/base/clock.h"
#include "supervisor/base/fd.h"

namespace bulkhead {
namespace {

constexpr char kRedisServer[] = "/usr/bin/redis-server";
constexpr Millis kRedisStart{20'000};

[[noreturn]] void EndWithRedis(const std::string& why) {
  std::fprintf(stderr, "test Redis: %s\n", why.c_str());
  std::abort();
}

bool TakesConnections(const std::string& path) {
  const UniqueFd socket_fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  return connect(socket_fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

}  // namespace

TestRedis::TestRedis(Keeps keeps) : keeps_(keeps), root_("/tmp/bulkhead-redis-XXXXXX") {
  if (access(kRedisServer, X_OK) != 0) EndWithRedis("there is no redis-server; sh deploy/packages.sh installs it");
  signal(SIGPIPE, SIG_IGN);  // as the daemon has it
  if (!mkdtemp(root_.data())) EndWithRedis("mkdtemp failed");
  Start();
}

TestRedis::~TestRedis() {
  Kill();
  std::error_code error;
  std::filesystem::remove_all(root_, error);
}

RedisAddress TestRedis::address() const { return {.socket = root_ + "/socket"}; }

void TestRedis::Start() {
  if (pid_ > 0) return;
  const std::vector<std::string> command{kRedisServer, "--port", "0", "--unixsocket", root_ + "/socket", "--dir", root_, "--save", "",
                                         "--appendonly", keeps_ == Keeps::kAll ? "yes" : "no", "--appendfsync", "no", "--logfile", root_ + "/log"};
  std::vector<char*> argv;
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  char path[] = "PATH=/usr/bin:/bin";
  char* env[] = {path, nullptr};
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ < 0) EndWithRedis("fork failed");
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);  // a killed test takes its server along
    if (getppid() != parent) _exit(125);
    execve(argv[0], argv.data(), env);
    _exit(127);
  }
  for (const Instant deadline = Clock::Real().Now() + kRedisStart; !TakesConnections(root_ + "/socket");) {
    if (waitpid(pid_, nullptr, WNOHANG) == pid_ || Clock::Real().Now() > deadline) EndWithRedis("it did not start, see " + root_ + "/log");
    std::this_thread::sleep_for(Millis(5));
  }
}

void TestRedis::Kill() {
  if (pid_ <= 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

void TestRedis::Hang() { kill(pid_, SIGSTOP); }

void TestRedis::GoOn() { kill(pid_, SIGCONT); }

}  // namespace bulkhead
