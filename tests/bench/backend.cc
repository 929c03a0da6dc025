// The backend behind the peers: the least that answers the module's bytes over HTTP/1.1 with keep-alive.
//   bench_backend SOCKET | 127.0.0.1:PORT      prints "ready", serves until it is ended
// One thread, one read and one write per request; the path's last segment chooses the answer. It trusts what it reads.
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <memory>

#include "tests/bench/answers.h"

namespace {

constexpr int kBacklog = 1024;
constexpr int kEventsPerTurn = 256;
constexpr size_t kReadBuffer = 64 * 1024;

std::string Http(std::string_view body) {
  return "HTTP/1.1 200 OK\r\ncontent-type: " + std::string(bench::kType) + "\r\ncontent-length: " + std::to_string(body.size()) + "\r\n\r\n" +
         std::string(body);
}

const std::string kSmall = Http(bench::kSmall), kLarge = Http(bench::Large(size_t{64} << 10)), kVeryLarge = Http(bench::Large(size_t{1} << 20));

const std::string& AnswerTo(std::string_view head) {
  std::string_view target = head.substr(0, head.find(" HTTP/1."));
  if (target.ends_with("/64k")) return kLarge;
  if (target.ends_with("/1m")) return kVeryLarge;
  return kSmall;
}

struct Connection {
  int fd;
  std::string in;            // the beginning of a head
  std::string_view waiting;  // of the answer

  // False: the connection is over.
  bool OnEvents(char* buffer) {
    if (waiting.empty()) {
      ssize_t n = recv(fd, buffer, kReadBuffer, 0);
      if (n <= 0) return n < 0 && (errno == EAGAIN || errno == EINTR);
      std::string_view head(buffer, size_t(n));
      if (!in.empty() || !head.ends_with("\r\n\r\n")) {
        in.append(head);
        if (!in.ends_with("\r\n\r\n")) return true;
        head = in;
      }
      waiting = AnswerTo(head);
      in.clear();
    }
    ssize_t n = send(fd, waiting.data(), waiting.size(), MSG_NOSIGNAL);
    if (n < 0) return errno == EAGAIN || errno == EINTR;
    waiting.remove_prefix(size_t(n));
    return true;
  }
};

int ListenTcp(const std::string& host, uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  if (inet_pton(AF_INET, host.c_str(), &address.sin_addr) != 1) return -1;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);  // connections of a killed predecessor may still be closing
  bool ok = bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 && listen(fd, kBacklog) == 0;
  return ok ? fd : -1;
}

int Listen(const char* path) {
  if (const char* colon = strrchr(path, ':')) return ListenTcp(std::string(path, colon), uint16_t(atoi(colon + 1)));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (strlen(path) >= sizeof address.sun_path) return -1;
  strcpy(address.sun_path, path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  bool ok = bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 && chmod(path, 0777) == 0 && listen(fd, kBacklog) == 0;
  return ok ? fd : -1;
}

}  // namespace

int main(int argc, char** argv) {
  int listener = argc == 2 ? Listen(argv[1]) : -1;
  if (listener < 0) {
    fprintf(stderr, "usage: bench_backend SOCKET | ADDRESS:PORT (%s)\n", strerror(errno));
    return 2;
  }
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{EPOLLIN, {.ptr = nullptr}};
  epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
  printf("ready\n");
  fflush(stdout);
  auto buffer = std::make_unique<char[]>(kReadBuffer);
  epoll_event events[kEventsPerTurn];
  for (;;) {
    int n = epoll_wait(epoll, events, kEventsPerTurn, -1);
    for (int i = 0; i < n; ++i) {
      auto* connection = static_cast<Connection*>(events[i].data.ptr);
      if (!connection) {
        int fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) continue;
        event = {EPOLLIN, {.ptr = new Connection{fd, {}, {}}}};
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
        continue;
      }
      bool wanted_write = !connection->waiting.empty();
      if (!connection->OnEvents(buffer.get())) {
        close(connection->fd);
        delete connection;
        continue;
      }
      if (bool wants_write = !connection->waiting.empty(); wants_write != wanted_write) {
        event = {wants_write ? uint32_t(EPOLLOUT) : uint32_t(EPOLLIN), {.ptr = connection}};
        epoll_ctl(epoll, EPOLL_CTL_MOD, connection->fd, &event);
      }
    }
  }
}
