// The real gateway on a loopback port, before modules that the test plays, and a client that says exactly what the test says.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <filesystem>
#include <future>
#include <map>
#include <set>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "supervisor/auth/authenticator.h"
#include "supervisor/base/guarded.h"
#include "supervisor/base/limits.h"
#include "supervisor/gateway/gateway.h"
#include "tests/fakes/link_module.h"

namespace bulkhead {

// Real time, and what the test adds to it. Thread-safe.
class ShiftedClock : public Clock {
 public:
  Instant Now() const override { return Clock::Real().Now() + Millis(shift_ms.load()); }
  WallTime Wall() const override { return Clock::Real().Wall() + Millis(shift_ms.load()); }
  std::atomic<int64_t> shift_ms{0};
};

struct HttpResponse {
  int status = 0;  // 0: the connection ended before an answer
  std::multimap<std::string, std::string> headers;
  std::string body;
  bool truncated = false;
  std::string Header(const std::string& name) const {
    auto it = headers.find(name);
    return it == headers.end() ? "" : it->second;
  }
};

class HttpClient {
 public:
  // `address`: "127.0.0.1:4000", or the path of a Unix socket.
  explicit HttpClient(const std::string& address, int receive_buffer = 0) {
    if (address.starts_with('/')) {
      ConnectUnix(address);
      return;
    }
    size_t colon = address.rfind(':');
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_port = htons(uint16_t(std::stoi(address.substr(colon + 1))));
    inet_pton(AF_INET, address.substr(0, colon).c_str(), &at.sin_addr);
    fd_.Reset(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (receive_buffer > 0) setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    SetLimit();
    EXPECT_EQ(connect(fd_.get(), reinterpret_cast<sockaddr*>(&at), sizeof at), 0) << strerror(errno);
  }
  // False when the connection has ended.
  bool Send(const std::string& bytes) {
    for (size_t at = 0; at < bytes.size();) {
      ssize_t n = send(fd_.get(), bytes.data() + at, bytes.size() - at, MSG_NOSIGNAL);
      if (n <= 0) return false;
      at += size_t(n);
    }
    return true;
  }
  // Sends what fits within `patience` without anybody reading; returns how much.
  size_t SendUntilBlocked(const std::string& bytes, int patience_ms) {
    size_t at = 0;
    while (at < bytes.size()) {
      pollfd p{fd_.get(), POLLOUT, 0};
      if (poll(&p, 1, patience_ms) <= 0) break;
      ssize_t n = send(fd_.get(), bytes.data() + at, bytes.size() - at, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (n <= 0) break;
      at += size_t(n);
    }
    return at;
  }
  bool Readable(int patience_ms) {
    pollfd p{fd_.get(), POLLIN, 0};
    return !in_.empty() || poll(&p, 1, patience_ms) > 0;
  }
  void FinishSending() { shutdown(fd_.get(), SHUT_WR); }
  void Close() { fd_.Reset(); }
  bool More() {
    char buffer[65536];
    ssize_t n = recv(fd_.get(), buffer, sizeof buffer, 0);
    if (n > 0) in_.append(buffer, size_t(n));
    return n > 0;
  }
  // True when the gateway has closed and nothing more came.
  bool AtEnd() { return in_.empty() && !More(); }
  std::string& buffered() { return in_; }

  // `head_only`: the answer to a HEAD. Informational answers are returned, too.
  HttpResponse Read(bool head_only = false) {
    HttpResponse r;
    size_t end;
    while ((end = in_.find("\r\n\r\n")) == std::string::npos) {
      if (!More()) return r;
    }
    std::string head = in_.substr(0, end + 2);
    in_.erase(0, end + 4);
    r.status = std::stoi(head.substr(9, 3));
    for (size_t at = head.find("\r\n") + 2; at < head.size();) {
      size_t stop = head.find("\r\n", at), colon = head.find(": ", at);
      r.headers.emplace(head.substr(at, colon - at), head.substr(colon + 2, stop - colon - 2));
      at = stop + 2;
    }
    if (head_only || r.status == 204 || r.status == 304 || r.status < 200) return r;
    if (!r.Header("content-length").empty()) {
      size_t length = std::stoull(r.Header("content-length"));
      while (in_.size() < length && More()) {
      }
      r.truncated = in_.size() < length;
      r.body = in_.substr(0, length);
      in_.erase(0, length);
    } else if (r.Header("transfer-encoding") == "chunked") {
      r.truncated = !ReadChunks(r.body);
    } else {
      while (More()) {
      }
      r.body.swap(in_);
    }
    return r;
  }
  HttpResponse Get(const std::string& path, const std::string& headers = {}) {
    Send("GET " + path + " HTTP/1.1\r\nHost: test\r\n" + headers + "\r\n");
    return Read();
  }

 private:
  void ConnectUnix(const std::string& path) {
    sockaddr_un at{};
    at.sun_family = AF_UNIX;
    path.copy(at.sun_path, sizeof at.sun_path - 1);
    fd_.Reset(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    SetLimit();
    EXPECT_EQ(connect(fd_.get(), reinterpret_cast<sockaddr*>(&at), sizeof at), 0) << strerror(errno);
  }
  void SetLimit() {
    timeval limit{10, 0};
    setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  }
  bool ReadChunks(std::string& body) {
    for (;;) {
      size_t line;
      while ((line = in_.find("\r\n")) == std::string::npos) {
        if (!More()) return false;
      }
      size_t size = std::stoull(in_.substr(0, line), nullptr, 16);
      while (in_.size() < line + 2 + size + 2) {
        if (!More()) return false;
      }
      body += in_.substr(line + 2, size);
      in_.erase(0, line + 2 + size + 2);
      if (size == 0) return true;
    }
  }
  UniqueFd fd_;
  std::string in_;
};

// Answers on another thread with what it was asked.
class EchoLocal : public LocalService {
 public:
  ~EchoLocal() override {
    threads_.With([](auto& threads) {
      for (auto& thread : threads) thread.join();
    });
  }
  void Handle(LocalRequest request, std::unique_ptr<LocalResponder> responder) override {
    std::thread answering([request = std::move(request), responder = std::move(responder)]() mutable {
      if (request.path == "/dropped") return responder.reset();
      responder->Respond(200, {{"content-type", "text/plain"}, {"bad\r\nheader", "x"}},
                         request.method + " " + request.path + " " + request.query + " " + request.authorization + " " + request.content_type + " " +
                             request.if_match + " " + request.body + " " + request.remote_address);
    });
    threads_.With([&](auto& threads) { threads.push_back(std::move(answering)); });
  }

 private:
  Guarded<std::vector<std::thread>> threads_;  // each gateway thread calls
};

class GatewayTest : public testing::Test {
 protected:
  GatewayTest() {
    char name[] = "/tmp/bh-gateway-XXXXXX";
    folder_ = mkdtemp(name);
    EXPECT_TRUE(authenticator_.LoadAdminToken(folder_ + "/admin.token").ok());
    secret_ = *ReadFile(folder_ + "/admin.token");
    secret_.pop_back();
    auto gateway = Gateway::Listen({"127.0.0.1:0", threads()}, clock_);
    EXPECT_TRUE(gateway.ok()) << gateway.status();
    gateway_ = *std::move(gateway);
  }
  ~GatewayTest() override {
    gateway_->Stop(Millis(200));
    modules_.clear();
    std::filesystem::remove_all(folder_);
  }
  virtual int threads() const { return 1; }
  void SetUp() override { gateway_->Start(authenticator_, local_); }

  static RouteSpec Route(std::string method, std::string path) {
    RouteSpec route;
    route.method = std::move(method);
    route.path = std::move(path);
    route.is_public = true;
    return route;
  }
  // A worker of module "m" with its own socket; ready at the next Publish().
  FakeLinkModule& AddWorker(FakeLinkModule::Handler on_end, const std::string& module = "m") {
    std::string instance = module + "." + std::to_string(next_worker_++);
    std::string socket = folder_ + "/" + instance;
    modules_[instance] = std::make_unique<FakeLinkModule>(socket, "token-" + instance, std::move(on_end));
    DirectoryWorker worker;
    worker.instance = instance;
    worker.data_socket = socket;
    worker.token = "token-" + instance;
    worker.faulty = [this](WorkerFault fault, std::string why) {
      if (fault == WorkerFault::kUnresponsive) ++unresponsive_;
      else faults_.With([&](auto& faults) { faults.push_back(std::move(why)); });
    };
    workers_[module].push_back(worker);
    last_instance_ = instance;
    return *modules_[instance];
  }
  static FakeLinkModule::Handler Answer(const std::string& body) {
    return [body](FakeLinkModule& m, FakeRequest& r) { m.Respond(r, 200, {{"content-type", "text/plain"}}, body); };
  }
  void RemoveWorker(const std::string& instance, const std::string& module = "m") {
    std::erase_if(workers_[module], [&](const DirectoryWorker& w) { return w.instance == instance; });
  }
  // Publishes modules with these routes and the workers added so far; returns when the gateway has adopted it. The manifest stays the
  // same value while the routes are the same, as it does between the restarts of a module.
  void Publish(const std::vector<RouteSpec>& routes, Transport transport = Transport::kLink) {
    auto directory = std::make_shared<Directory>();
    directory->version = ++version_;
    for (const auto& [name, workers] : workers_) {
      auto same = [](const RouteSpec& a, const RouteSpec& b) { return a.method == b.method && a.path == b.path; };
      auto& manifest = manifests_[name];
      if (!manifest || !std::equal(routes.begin(), routes.end(), manifest->routes.begin(), manifest->routes.end(), same)) {
        auto made = std::make_shared<Manifest>();
        made->name = name;
        made->routes = routes;
        made->transport = transport;
        manifest = made;
      }
      auto module = std::make_shared<DirectoryModule>();
      module->name = name;
      module->manifest = manifest;
      for (const DirectoryWorker& worker : workers) (standby_.contains(worker.instance) ? module->standby : module->workers).push_back(worker);
      module->starting = starting_;
      directory->modules[name] = module;
    }
    auto adopted = std::make_shared<std::promise<void>>();
    gateway_->Adopt(directory, [adopted] { adopted->set_value(); });
    ASSERT_EQ(adopted->get_future().wait_for(std::chrono::seconds(5)), std::future_status::ready);
  }
  // Lets time pass for the gateway, which looks at the clock when it wakes.
  void Pass(Millis time) {
    clock_.shift_ms += time.count();
    auto woken = std::make_shared<std::promise<void>>();
    gateway_->Drain("nobody", [woken] { woken->set_value(); });
    woken->get_future().wait();
  }
  // The same, in steps of `time`, until the client has something to read.
  void PassUntilAnswered(HttpClient& client, Millis time) {
    for (int i = 0; i < 100 && !client.Readable(100); ++i) Pass(time);
  }
  HttpClient Client(int receive_buffer = 0) { return HttpClient(gateway_->address(), receive_buffer); }
  std::string Bearer() const { return "Authorization: Bearer " + secret_ + "\r\n"; }

  std::string folder_, secret_, last_instance_;
  ShiftedClock clock_;
  Database database_{"host=/nonexistent dbname=none", 1};  // never opened
  CredentialStore credentials_{database_};
  Authenticator authenticator_{clock_, credentials_};
  EchoLocal local_;
  std::map<std::string, std::vector<DirectoryWorker>> workers_{{"m", {}}};
  std::set<std::string> standby_;  // instances
  std::map<std::string, std::unique_ptr<FakeLinkModule>> modules_;
  std::unique_ptr<Gateway> gateway_;
  std::map<std::string, std::shared_ptr<const Manifest>> manifests_;
  bool starting_ = false;  // what the next Publish() says of every module
  Guarded<std::vector<std::string>> faults_;  // what workers were blamed for
  std::atomic<int> unresponsive_{0};  // reports of workers that answer no PING
  int next_worker_ = 0;
  uint64_t version_ = 0;
};

}  // namespace bulkhead
