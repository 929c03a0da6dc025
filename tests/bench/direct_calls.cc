// What calls.py compares with: a plain process that asks bench_backend over HTTP/1.1 on a kept connection, one request after another.
//   bench_direct_calls SOCKET | 127.0.0.1:PORT CALLS      prints {"p50": microseconds, "p99": …, "cpu": its own, per call}
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "tests/bench/answers.h"

namespace {

int Connect(const std::string& to) {
  if (const size_t colon = to.rfind(':'); colon != std::string::npos) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(uint16_t(atoi(to.c_str() + colon + 1)));
    inet_pton(AF_INET, to.substr(0, colon).c_str(), &address.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 ? fd : -1;
  }
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  to.copy(address.sun_path, sizeof address.sun_path - 1);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  return connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 ? fd : -1;
}

// False: not the answer that is expected.
bool Ask(int fd, const std::string& request) {
  if (send(fd, request.data(), request.size(), MSG_NOSIGNAL) != ssize_t(request.size())) return false;
  std::string answer;
  char buffer[4096];
  while (!answer.ends_with(bench::kSmall)) {
    const ssize_t n = recv(fd, buffer, sizeof buffer, 0);
    if (n <= 0) return false;
    answer.append(buffer, size_t(n));
  }
  return answer.starts_with("HTTP/1.1 200 ");
}

}  // namespace

int main(int argc, char** argv) {
  const int fd = argc == 3 ? Connect(argv[1]) : -1;
  if (fd < 0) {
    fprintf(stderr, "usage: bench_direct_calls SOCKET | ADDRESS:PORT CALLS (%s)\n", strerror(errno));
    return 2;
  }
  const long calls = std::max(1L, atol(argv[2]));
  const std::string request = "GET /api/v1/m/bench/small HTTP/1.1\r\nhost: bench\r\n\r\n";
  std::vector<double> micros;
  for (long i = 0; i < calls; ++i) {
    const auto began = std::chrono::steady_clock::now();
    if (!Ask(fd, request)) return 1;
    micros.push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - began).count());
  }
  std::sort(micros.begin(), micros.end());
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  const double cpu = double(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1e6 + double(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
  printf("{\"p50\": %.2f, \"p99\": %.2f, \"cpu\": %.3f}\n", micros[size_t(calls) / 2], micros[size_t(calls) * 99 / 100], cpu / double(calls));
}
