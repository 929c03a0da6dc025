// A small HTTP/1.1 server for tests of service clients: a thread per connection, what came kept, answers by a script.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cctype>
#include <cstdlib>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace bulkhead::sdk_test {

struct CameRequest {
  std::string method, target, body;
  std::map<std::string, std::string> headers;  // names lower-case
  int connection = 0;                          // from 1
  int number = 0;                              // of all, from 1
};

inline std::string HttpAnswer(int status, const std::string& body = "", const std::string& headers = "") {
  return "HTTP/1.1 " + std::to_string(status) + " Whatever\r\n" + headers + "content-length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

class HttpServer {
 public:
  // What is sent for a request; "": the connection is closed without a word. Of several threads at once.
  using Script = std::function<std::string(const CameRequest&)>;

  explicit HttpServer(Script script) : script_(std::move(script)), listener_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(listener_, 64) != 0) abort();
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    acceptor_ = std::thread([this] { Accept(); });
  }
  ~HttpServer() {
    shutdown(listener_, SHUT_RDWR);
    acceptor_.join();
    CloseConnections();
    for (std::thread& thread : threads_) thread.join();
    close(listener_);
    for (int fd : fds_) close(fd);
  }

  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
  int port() const { return port_; }
  int connections() const { return connections_; }
  std::vector<CameRequest> came() {
    std::lock_guard lock(mutex_);
    return came_;
  }
  // What is connected now loses its connection.
  void CloseConnections() {
    std::lock_guard lock(mutex_);
    for (int fd : fds_) shutdown(fd, SHUT_RDWR);
  }

 private:
  void Accept() {
    for (;;) {
      const int fd = accept(listener_, nullptr, nullptr);
      if (fd < 0) return;
      const int number = ++connections_;
      std::lock_guard lock(mutex_);
      fds_.push_back(fd);
      threads_.emplace_back([this, fd, number] { Serve(fd, number); });
    }
  }

  void Serve(int fd, int connection) {
    std::string input;
    for (;;) {
      size_t head = 0;
      while ((head = input.find("\r\n\r\n")) == std::string::npos) {
        if (!More(fd, input)) return Leave(fd);
      }
      CameRequest request = Parse(input.substr(0, head + 2));
      request.connection = connection;
      const size_t length = request.headers.contains("content-length") ? std::stoul(request.headers["content-length"]) : 0;
      while (input.size() < head + 4 + length) {
        if (!More(fd, input)) return Leave(fd);
      }
      request.body = input.substr(head + 4, length);
      input.erase(0, head + 4 + length);
      {
        std::lock_guard lock(mutex_);
        request.number = static_cast<int>(came_.size()) + 1;
        came_.push_back(request);
      }
      const std::string answer = script_(request);
      if (answer.empty()) return Leave(fd);
      for (size_t sent = 0; sent < answer.size();) {
        const ssize_t n = send(fd, answer.data() + sent, answer.size() - sent, MSG_NOSIGNAL);
        if (n <= 0) return Leave(fd);
        sent += static_cast<size_t>(n);
      }
    }
  }

  static bool More(int fd, std::string& input) {
    char buffer[4'096];
    const ssize_t n = recv(fd, buffer, sizeof buffer, 0);
    if (n <= 0) return false;
    input.append(buffer, static_cast<size_t>(n));
    return true;
  }
  static void Leave(int fd) { shutdown(fd, SHUT_RDWR); }

  static CameRequest Parse(const std::string& head) {
    CameRequest request;
    size_t at = head.find("\r\n");
    const std::string line = head.substr(0, at);
    const size_t first = line.find(' '), last = line.rfind(' ');
    request.method = line.substr(0, first);
    request.target = line.substr(first + 1, last - first - 1);
    for (at += 2; at < head.size();) {
      const size_t end = head.find("\r\n", at), colon = head.find(':', at);
      std::string name = head.substr(at, colon - at);
      for (char& c : name) c = static_cast<char>(tolower(c));
      request.headers[name] = colon + 2 <= end ? head.substr(colon + 2, end - colon - 2) : "";
      at = end + 2;
    }
    return request;
  }

  const Script script_;
  const int listener_;
  int port_ = 0;
  std::atomic<int> connections_{0};
  std::mutex mutex_;
  std::vector<CameRequest> came_;
  std::vector<int> fds_;
  std::vector<std::thread> threads_;
  std::thread acceptor_;
};

}  // namespace bulkhead::sdk_test
