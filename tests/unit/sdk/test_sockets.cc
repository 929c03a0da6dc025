#include "test_sockets.h"

#include <atomic>
#include <chrono>

namespace bulkhead::sdk_test {

using namespace sdk;
using std::chrono::milliseconds;

void TestSockets::Tell(const std::string& name, const std::string& what) {
  std::lock_guard lock(mutex_);
  stories_[name] += (stories_[name].empty() ? "" : ", ") + what;
}

void TestSockets::Register(Router& router) {
  auto route = [&](std::string pattern, WebSocketEvents (TestSockets::*make)(Request&)) -> WebSocketRoute& {
    return router.WebSocket(std::move(pattern), [this, make](Request& request) { return (this->*make)(request); });
  };
  route("/ws/echo", &TestSockets::Echo).Protocols({"v2", "v1"});
  route("/ws/small", &TestSockets::Echo).MaxMessage(10'000).MaxBuffered(20'000);
  route("/ws/told/:room", &TestSockets::Told).MaxBuffered(100'000);
  route("/ws/told-short/:room", &TestSockets::Told).CloseTimeout(milliseconds(100));
  route("/ws/throws", &TestSockets::Throws);
  route("/ws/gated", &TestSockets::Gated);
  route("/ws/gated-pinged", &TestSockets::Gated).PingInterval(milliseconds(200));
  route("/ws/pinged", &TestSockets::Echo).PingInterval(milliseconds(50)).CloseTimeout(milliseconds(100));
  route("/ws/pinged-slowly", &TestSockets::Echo).PingInterval(milliseconds(700));
  route("/ws/room", &TestSockets::Room);
  router.WebSocket("/ws/accepts-gated", [this](Request&) {
    gate_.Wait();
    return WebSocketEvents{};
  });
  router.WebSocket("/ws/nothing", [](Request&) { return WebSocketEvents{}; });
  router.WebSocket("/ws/refuses", [this](Request& request) -> WebSocketEvents {
    if (request.query("gated")) gate_.Wait();
    if (request.query("hard")) throw std::runtime_error("the secret of this socket");
    throw HttpError(403, "FORBIDDEN", "not you");
  });
  router
      .Get("/ws-story/:name",
           [this](Request& request) {
             std::lock_guard lock(mutex_);
             return Text(200, stories_[std::string(request.param("name"))]);
           })
      .Inline();
}

WebSocketEvents TestSockets::Echo(Request& request) {
  std::string name = request.query("as").value_or("echo");
  WebSocketEvents events;
  events.on_open = [=, this](const WebSocketPtr& socket) {
    Tell(name, "open" + (socket->protocol().empty() ? "" : " " + socket->protocol()));
  };
  events.on_message = [=, this](const WebSocketPtr& socket, std::string_view message, bool binary) {
    bool sent = binary ? socket->SendBinary(message) : socket->Send(message);
    if (!sent) Tell(name, "not sent");
  };
  events.on_close = [=, this](const auto&, uint16_t code, std::string_view reason) {
    Tell(name, "close " + std::to_string(code) + " " + std::string(reason));
  };
  return events;
}

// Does what it is told: "close CODE REASON", "flood BYTES" (until Send() is false; then says how often it was true), "who".
WebSocketEvents TestSockets::Told(Request& request) {
  std::string name = request.query("as").value_or("told");
  std::string who = request.identity().subject + " in " + std::string(request.param("room"));
  WebSocketEvents events;
  events.on_message = [=, this](const WebSocketPtr& socket, std::string_view message, bool) {
    Tell(name, std::string(message));
    std::string rest(message.substr(std::min(message.find(' ') + 1, message.size())));
    if (message == "who") {
      socket->Send(who);
    } else if (message.starts_with("close")) {
      socket->Close(uint16_t(std::stoi(rest)), rest.substr(rest.find(' ') + 1));
      Tell(name, std::string(socket->Send("late") ? "sent" : "refused") + (socket->open() ? " open" : " closed"));
    } else if (message.starts_with("flood")) {
      int times = 0;
      size_t most = 0;
      for (std::string chunk(std::stoul(rest), 'f'); socket->SendBinary(chunk); ++times)
        most = std::max(most, socket->buffered());
      Tell(name, std::to_string(times) + " times, at most " + std::to_string(most) + (socket->open() ? ", open" : ", closed"));
    }
  };
  events.on_close = [=, this](const auto&, uint16_t code, std::string_view reason) {
    Tell(name, "close " + std::to_string(code) + " " + std::string(reason));
  };
  return events;
}

WebSocketEvents TestSockets::Throws(Request& request) {
  std::string where = request.query("where").value_or("");
  std::string name = request.query("as").value_or("throws");
  WebSocketEvents events;
  events.on_open = [=](const auto&) {
    if (where == "open") throw std::runtime_error("thrown in on_open");
  };
  events.on_message = [=](const WebSocketPtr& socket, std::string_view message, bool) {
    if (message == "odd") throw 7;
    if (message == "text") socket->Send("\xff");
    if (message == "code") socket->Close(1005);
    throw std::runtime_error("thrown in on_message");
  };
  events.on_close = [=, this](const auto&, uint16_t code, std::string_view reason) {
    Tell(name, "close " + std::to_string(code) + " " + std::string(reason));
    if (where == "close") throw std::runtime_error("thrown in on_close");
  };
  return events;
}

// Its first message waits at the gate.
WebSocketEvents TestSockets::Gated(Request& request) {
  std::string name = request.query("as").value_or("gated");
  auto running = std::make_shared<std::atomic<int>>(0);
  WebSocketEvents events;
  events.on_message = [=, this](const WebSocketPtr& socket, std::string_view message, bool) {
    if (running->fetch_add(1) != 0) Tell(name, "two at once");
    gate_.Wait();
    socket->Send(std::to_string(message.size()));
    running->fetch_sub(1);
  };
  events.on_close = [=, this](const auto&, uint16_t code, std::string_view reason) {
    if (*running != 0) Tell(name, "closed during a message");
    Tell(name, "close " + std::to_string(code) + " " + std::string(reason));
  };
  return events;
}

// Everybody hears everybody.
WebSocketEvents TestSockets::Room(Request&) {
  WebSocketEvents events;
  events.on_open = [this](const WebSocketPtr& socket) {
    std::lock_guard lock(mutex_);
    room_.insert(socket);
    socket->Send("welcome");
  };
  events.on_message = [this](const WebSocketPtr&, std::string_view message, bool) {
    std::lock_guard lock(mutex_);
    for (const auto& socket : room_) socket->Send(message);
  };
  events.on_close = [this](const WebSocketPtr& socket, uint16_t, std::string_view) {
    std::lock_guard lock(mutex_);
    room_.erase(socket);
  };
  return events;
}

}  // namespace bulkhead::sdk_test
