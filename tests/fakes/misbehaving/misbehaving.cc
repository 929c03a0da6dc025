// A module without the SDK that breaks the contract of proto/README.md in one way, named by its first argument, and keeps the
// rest of it. For the tests of what a supervisor must stand: tests/integration/misbehaving_test.py, tests/unit/worker.
#include <arpa/inet.h>
#include <fcntl.h>
#include <grpcpp/grpcpp.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "bulkhead/module/v1/module.grpc.pb.h"
#include "nlohmann/json.hpp"
#include "tests/fakes/misbehaving/bad_link.h"

namespace bulkhead::misbehaving {
namespace {

namespace v1 = module::v1;
using std::chrono::milliseconds;

constexpr int kHandshakeFd = 3;
constexpr milliseconds kSoon{50};           // after Start has been answered: the worker is ready by then, or nearly
constexpr size_t kEndlessLine = 10 * 1024;  // of a handshake without a newline
constexpr size_t kBinary = 4 * 1024;        // bytes on each stream
constexpr size_t kLongLine = 8 * 1024;
constexpr milliseconds kAWhile{1'500}, kForEver{86'400'000};
constexpr rlim_t kFewFiles = 256;           // that are used up at once
constexpr size_t kMemoryPiece = 4 * 1024 * 1024;
constexpr size_t kMemoryAtMost = size_t{1} << 30;  // where nothing stops it

[[noreturn]] void WaitForever() {
  for (;;) pause();
}

void After(milliseconds wait, void (*what)()) {
  std::thread([wait, what] {
    std::this_thread::sleep_for(wait);
    what();
  }).detach();
}

void WriteAll(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    ssize_t n = write(fd, bytes.data(), bytes.size());
    if (n <= 0) return;
    bytes.remove_prefix(size_t(n));
  }
}

std::string ReadLine(int fd) {
  std::string line;
  for (char c; read(fd, &c, 1) == 1 && c != '\n';) line += c;
  return line;
}

// ---- what it does besides serving

// 1 MB/s of `bytes`, on both streams, for a while.
void Flood(const std::string& bytes, milliseconds time) {
  const auto pause = milliseconds(2 * bytes.size() / 1000);
  for (auto end = std::chrono::steady_clock::now() + time; std::chrono::steady_clock::now() < end;) {
    WriteAll(1, bytes);
    WriteAll(2, bytes);
    std::this_thread::sleep_for(pause);
  }
}

std::string ShortLines() {
  std::string lines;
  for (int i = 0; i < 50; ++i) lines += std::string(99, char('a' + i % 26)) + "\n";
  return lines;
}

std::string Binary() {
  std::string all;
  for (size_t i = 0; i < kBinary; ++i) all += char(i * 7);
  return all;
}

void PrintBinaryAndLeave() {
  WriteAll(1, Binary() + "\n{\"level\":\"info\",\"message\":\"\xff\xfe\\u0000\"}\n");
  WriteAll(2, Binary());
  _exit(7);
}

void UseUpFiles() {
  rlimit few{kFewFiles, kFewFiles};
  setrlimit(RLIMIT_NOFILE, &few);
  while (open("/dev/null", O_RDONLY | O_CLOEXEC) >= 0) {
  }
  // Nothing that a library closes makes room again: 0, 1 and 2 are open.
  rlimit none{3, 3};
  setrlimit(RLIMIT_NOFILE, &none);
}

void UseUpMemory() {
  for (size_t used = 0; used < kMemoryAtMost; used += kMemoryPiece) memset(malloc(kMemoryPiece), 1, kMemoryPiece);
  WaitForever();
}

// The kernel ends it with SIGXFSZ.
void PassFileSize() {
  rlimit little{4096, 4096};
  setrlimit(RLIMIT_FSIZE, &little);
  const int fd = open("large", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  for (;;) WriteAll(fd, std::string(1024, 'x'));
}

// Until it is refused another process; then it gives up, as one that needs it would.
void UseUpProcesses() {
  for (pid_t child; (child = fork()) >= 0;) {
    if (child == 0) WaitForever();
  }
  _exit(4);
}

void BurnProcessors() {
  for (int i = 0; i < 4; ++i) {
    std::thread([] {
      for (volatile uint64_t n = 0;; n = n + 1) {
      }
    }).detach();
  }
}

// What the first line of the file `health` in its data folder says, "" without one. So a test decides.
std::string ToldHealth() {
  std::string text(64, '\0');
  const int fd = open("health", O_RDONLY | O_CLOEXEC);
  const ssize_t n = fd < 0 ? 0 : read(fd, text.data(), text.size());
  if (fd >= 0) close(fd);
  text.resize(n > 0 ? size_t(n) : 0);
  return text.substr(0, text.find('\n'));
}

[[noreturn]] void Linger() {
  for (int number : {SIGTERM, SIGHUP, SIGINT}) signal(number, SIG_IGN);
  WaitForever();
}

// Before any thread: what a supervisor finds hard to find. Each is in a session of its own.
void ForkChildren() {
  if (fork() == 0) {  // one that stays its child
    setsid();
    Linger();
  }
  if (fork() == 0) {  // one that has no parent, no descriptor and no folder of the module any more
    setsid();
    if (fork() != 0) _exit(0);
    for (int fd = 0; fd < 1024; ++fd) close(fd);
    (void)!chdir("/");
    Linger();
  }
  if (fork() == 0) {  // one that is stopped
    setsid();
    raise(SIGSTOP);
    Linger();
  }
  if (fork() == 0) {  // one that is another process each moment
    for (;;) {
      setsid();
      if (fork() != 0) _exit(0);
      std::this_thread::sleep_for(milliseconds(1));
    }
  }
  while (waitpid(-1, nullptr, WNOHANG) > 0) {
  }
}

// A daemon of the module's own that keeps a port, which it writes into the file "port" of the working folder. Before any thread.
void HoldPort() {
  if (pid_t first = fork(); first != 0) {
    waitpid(first, nullptr, 0);
    return;
  }
  setsid();
  if (fork() != 0) _exit(0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(listener, 8) != 0) _exit(1);
  getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
  FILE* file = fopen("port.new", "w");
  fprintf(file, "%d\n", ntohs(address.sin_port));
  fclose(file);
  rename("port.new", "port");
  Linger();
}

// The thread waits in the kernel, state D, until its child is gone; the child has no intention to go.
void WaitForVfork() {
  if (vfork() == 0) {
    for (;;) pause();
  }
}

// Waits for a file that the test makes in the working folder, and reads it: with a file system that never answers it can't be killed.
void ReadWhatNeverComes() {
  int file;
  while ((file = open("stuck/file", O_RDONLY | O_CLOEXEC)) < 0) std::this_thread::sleep_for(milliseconds(10));
  char bytes[16];
  (void)!read(file, bytes, sizeof bytes);
}

// ---- the contract

class Service final : public v1::Module::Service {
 public:
  explicit Service(std::string mode) : mode_(std::move(mode)) {}

  grpc::Status Initialize(grpc::ServerContext*, const v1::InitializeRequest*, v1::InitializeResponse*) override {
    if (mode_ == "hang-initialize") WaitForever();
    return grpc::Status::OK;
  }
  grpc::Status Start(grpc::ServerContext*, const v1::StartRequest*, v1::StartResponse*) override {
    if (mode_ == "hang-start") WaitForever();
    if (mode_ == "exhaust-files") UseUpFiles();
    if (mode_ == "flood") std::thread(Flood, ShortLines(), kForEver).detach();
    if (mode_ == "flood-a-while") std::thread(Flood, ShortLines(), kAWhile).detach();
    if (mode_ == "flood-long-lines") std::thread(Flood, std::string(kLongLine, 'x') + "\n", kForEver).detach();
    if (mode_ == "binary-on") std::thread(Flood, Binary(), kForEver).detach();
    if (mode_ == "exit") After(kSoon, [] { _exit(3); });
    if (mode_ == "exit-125") After(kSoon, [] { _exit(125); });
    if (mode_ == "binary") After(kSoon, PrintBinaryAndLeave);
    if (mode_ == "stop-itself") After(kSoon, [] { raise(SIGSTOP); });
    if (mode_ == "eat-memory") After(kSoon, UseUpMemory);
    if (mode_ == "file-size") After(kSoon, PassFileSize);
    if (mode_ == "fork-until-refused") After(kSoon, UseUpProcesses);
    if (mode_ == "burn-cpu") BurnProcessors();
    if (mode_ == "exit-0") After(kSoon, [] { _exit(0); });
    if (mode_ == "vfork") After(kSoon, WaitForVfork);
    if (mode_ == "read-stuck") After(kSoon, ReadWhatNeverComes);
    return grpc::Status::OK;
  }
  grpc::Status Stop(grpc::ServerContext*, const v1::StopRequest*, v1::StopResponse*) override {
    if (mode_ == "hang-stop") WaitForever();
    return grpc::Status::OK;
  }
  grpc::Status Health(grpc::ServerContext*, const v1::HealthRequest*, v1::HealthResponse* response) override {
    if (mode_ == "hang-health") WaitForever();
    response->set_status(v1::HEALTHY);
    if (mode_ == "told-health" || mode_ == "told-unhealthy") {
      std::string told = ToldHealth();
      if (told.empty() && mode_ == "told-unhealthy") told = "unhealthy";
      if (told == "hang") WaitForever();
      if (told == "degraded") response->set_status(v1::DEGRADED);
      if (told == "unhealthy") response->set_status(v1::UNHEALTHY);
      if (!told.empty()) {
        auto& check = *response->add_checks();
        check.set_name("told");
        check.set_status(response->status());
        check.set_message("the file says " + told);
      }
    }
    return grpc::Status::OK;
  }

 private:
  const std::string mode_;
};

// The handshakes that are none. Returns for those modes that answer it rightly.
void AnswerWrongly(const std::string& mode) {
  if (mode == "close-fd3") {
    close(kHandshakeFd);
    WaitForever();
  }
  if (mode == "other-protocol") {
    WriteAll(kHandshakeFd, "{\"protocol\": 99, \"sdk\": \"misbehaving/1\"}\n");
    WaitForever();
  }
  if (mode == "garbage-handshake") {
    WriteAll(kHandshakeFd, "\x01\xff\xfe{\"protocol\"\x80 [[[[ 1}\n");
    WaitForever();
  }
  if (mode == "endless-handshake") {
    WriteAll(kHandshakeFd, std::string(kEndlessLine, 'x'));
    WaitForever();
  }
  if (mode == "silent") WaitForever();
}

int Serve(const std::string& mode) {
  if (mode == "exit-at-once" || mode == "exit-125-at-once") {
    fprintf(stderr, "no such thing as a free lunch\n");
    _exit(mode == "exit-at-once" ? 3 : 125);  // at once, also past a sanitizer's last look
  }
  if (mode == "ignore-sigterm") signal(SIGTERM, SIG_IGN);
  if (mode == "fork") ForkChildren();
  if (mode == "hold-port") HoldPort();
  auto offer = nlohmann::json::parse(ReadLine(kHandshakeFd), nullptr, false);
  if (!offer.is_object()) return 1;
  AnswerWrongly(mode);

  Service service(mode);
  std::string control = offer["controlSocket"];
  grpc::ServerBuilder builder;
  builder.AddListeningPort("unix:" + control, grpc::InsecureServerCredentials());
  builder.RegisterService(&service);
  auto server = builder.BuildAndStart();
  ServeLink(offer["dataSocket"], mode);
  WriteAll(kHandshakeFd, "{\"protocol\": 1, \"sdk\": \"misbehaving/1\"}\n");
  if (mode == "chatty-fd3") {
    for (;;) WriteAll(kHandshakeFd, std::string(64 * 1024, 'x'));
  }
  if (mode == "close-fd3-later") {
    close(kHandshakeFd);
    WaitForever();
  }
  // Nothing more comes on fd 3, so that it is readable means that the supervisor is gone.
  char c;
  while (read(kHandshakeFd, &c, 1) > 0) {
  }
  _exit(0);
}

}  // namespace
}  // namespace bulkhead::misbehaving

int main(int argc, char** argv) {
  signal(SIGPIPE, SIG_IGN);
  return bulkhead::misbehaving::Serve(argc > 1 ? argv[1] : "");
}
