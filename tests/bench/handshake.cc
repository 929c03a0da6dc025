// The floor of a module's start: an empty program with a gRPC server is spawned, says on fd 3 that it listens, and answers Initialize.
// Nothing of the supervisor or the SDK is in it.
//
//   bench_handshake [RUNS]     prints the median, in milliseconds: from before the spawn to the answer on fd 3, and to that of Initialize
#include <fcntl.h>
#include <grpcpp/grpcpp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "bulkhead/module/v1/module.grpc.pb.h"

namespace {

namespace v1 = bulkhead::module::v1;
using Clock = std::chrono::steady_clock;

constexpr int kHandshakeFd = 3;
constexpr int kDefaultRuns = 11;

class Empty final : public v1::Module::Service {
  grpc::Status Initialize(grpc::ServerContext*, const v1::InitializeRequest*, v1::InitializeResponse*) override { return grpc::Status::OK; }
};

int Serve(const std::string& socket) {
  Empty service;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("unix:" + socket, grpc::InsecureServerCredentials());
  builder.RegisterService(&service);
  auto server = builder.BuildAndStart();
  char byte = '\n';
  if (!server || write(kHandshakeFd, &byte, 1) != 1) return 1;
  (void)!read(kHandshakeFd, &byte, 1);  // until the parent has seen enough
  _exit(0);
}

double Since(Clock::time_point began) { return std::chrono::duration<double, std::milli>(Clock::now() - began).count(); }

[[noreturn]] void Die(const char* what) {
  fprintf(stderr, "bench_handshake: %s: %s\n", what, strerror(errno));
  exit(2);
}

struct Took {
  double listens = 0, answers = 0;
};

Took Once(const std::string& socket) {
  unlink(socket.c_str());
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) Die("socketpair");
  Took took;
  auto began = Clock::now();
  pid_t pid = vfork();
  if (pid < 0) Die("vfork");
  if (pid == 0) {
    if (pair[1] == kHandshakeFd) fcntl(kHandshakeFd, F_SETFD, 0);
    else dup2(pair[1], kHandshakeFd);
    execl("/proc/self/exe", "bench_handshake", "serve", socket.c_str(), nullptr);
    _exit(127);
  }
  close(pair[1]);
  char byte;
  if (read(pair[0], &byte, 1) != 1) Die("the program did not come up");
  took.listens = Since(began);
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  auto stub = v1::Module::NewStub(grpc::CreateCustomChannel("unix:" + socket, grpc::InsecureChannelCredentials(), arguments));
  grpc::ClientContext context;
  v1::InitializeResponse response;
  if (!stub->Initialize(&context, v1::InitializeRequest(), &response).ok()) Die("Initialize");
  took.answers = Since(began);
  close(pair[0]);
  waitpid(pid, nullptr, 0);
  return took;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  signal(SIGPIPE, SIG_IGN);
  if (argc > 2 && strcmp(argv[1], "serve") == 0) return Serve(argv[2]);
  char folder[] = "/tmp/bh-handshake-XXXXXX";
  if (!mkdtemp(folder)) Die("mkdtemp");
  std::string socket = std::string(folder) + "/control";
  Once(socket);  // gRPC's own start in this process is not what is measured
  std::vector<double> listens, answers;
  for (int i = argc > 1 ? std::max(atoi(argv[1]), 1) : kDefaultRuns; i > 0; --i) {
    Took took = Once(socket);
    listens.push_back(took.listens);
    answers.push_back(took.answers);
  }
  unlink(socket.c_str());
  rmdir(folder);
  printf("%.2f %.2f\n", Median(listens), Median(answers));
}
