// What a peer may send to a module: any bytes, in any pieces. The SDK must refuse, answer or ignore them, and give back what they held.
#include <fcntl.h>
#include <openssl/crypto.h>
#include <sys/socket.h>
#include <unistd.h>

#include <iostream>
#include <mutex>

#include "bulkhead/router.h"
#include "bulkhead/websocket.h"
#include "dispatcher.h"
#include "link_connection.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/link_frames.h"

namespace {

using namespace bulkhead;
using namespace bulkhead::sdk;
using link::Type;

#define CHECK(condition) \
  do {                   \
    if (!(condition)) {  \
      std::cerr << __FILE__ << ":" << __LINE__ << ": " #condition "\n"; \
      abort();           \
    }                    \
  } while (false)

// Outlives the connections: workers may still tell it of a stream whose connection has ended.
class Listener : public StreamListener {
 public:
  void Notify(std::shared_ptr<LinkStream> stream) override {
    std::lock_guard lock(mutex_);
    pending_.push_back(std::move(stream));
  }
  std::vector<std::shared_ptr<LinkStream>> Take() {
    std::lock_guard lock(mutex_);
    return std::exchange(pending_, {});
  }

 private:
  std::mutex mutex_;
  std::vector<std::shared_ptr<LinkStream>> pending_;
};

Router& Routes() {
  static Router* router = [] {
    auto* made = new Router;
    made->Get("/echo/:name", [](Request& request) { return Text(200, std::string(request.param("name"))); }).Inline();
    made->Post("/length", [](Request& request) { return Text(200, std::to_string(request.body().size())); }).Inline().MaxBody(10'000);
    made->Get("/files/*", [](Request& request) { return Text(200, std::string(request.param("*"))); }).Inline();
    made->Post("/sum", [](Request& request) {
      char chunk[4'096];
      size_t sum = 0;
      while (size_t n = request.Read(chunk, sizeof chunk)) sum += n;
      return Stream("text/plain", [sum, trailers = request.trailers().size()](ResponseWriter& out) {
        out.Write(std::to_string(sum));
        out.Trailer("x-trailers", std::to_string(trailers));
      });
    }).StreamBody();
    made->WebSocket("/socket", [](Request&) {
      WebSocketEvents events;
      events.on_message = [](const WebSocketPtr& socket, std::string message, bool binary) {
        if (message == "close") return socket->Close(close_code::kNormal, "asked");
        binary ? socket->SendBinary(message) : socket->Send(message);
      };
      return events;
    }).MaxMessage(4'096);
    made->Freeze();
    return made;
  }();
  return *router;
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  auto frame = link::Frame;
  auto get = [&](uint32_t stream, const std::string& target) {
    return frame(stream, Type::kRequest, link::kEnd, 0, link::RequestHead("GET", target, {{"host", "a"}, {"x-request-id", "1"}}), "");
  };
  std::string post = frame(2, Type::kRequest, 0, 0, link::RequestHead("POST", "/length", {{"content-length", "8"}}), "four");
  return {get(1, "/echo/you?a=%20b"),
          get(1, "/files/a%2Fb/c") + get(2, "/nowhere") + get(7, "/%zz"),
          post + frame(2, Type::kData, link::kEnd, 0, "", "more"),
          post + frame(2, Type::kData, link::kEnd | link::kTrailers, 0, link::Pairs({{"x-sum", "1"}}), ""),
          post + link::CancelFrame(2, link::CancelCode::kClientGone) + frame(2, Type::kData, link::kEnd, 0, "", "late"),
          get(1, "/echo/a") + link::WindowFrame(1, 70'000) + frame(0, Type::kGoaway, 0, 0, "", ""),
          frame(1, Type::kRequest, link::kUpgrade, 0,
                link::RequestHead("GET", "/echo/a", {{"x-bulkhead-upgrade", "websocket"}, {"sec-websocket-version", "13"}}), "") +
              frame(1, Type::kData, 0, 0, "", "\x81\x80" "1234"),
          frame(1, Type::kRequest, 0, 0, link::RequestHead("POST", "/sum", {}), "some") + frame(1, Type::kData, 0, 0, "", "more") +
              frame(1, Type::kData, link::kEnd | link::kTrailers, 0, link::Pairs({{"x-sum", "8"}}), ""),
          frame(1, Type::kRequest, 0, 0, link::RequestHead("POST", "/sum", {}), "some") + link::CancelFrame(1, link::CancelCode::kClientGone),
          frame(1, Type::kRequest, link::kUpgrade, 0,
                link::RequestHead("GET", "/socket", {{"x-bulkhead-upgrade", "websocket"},
                                                     {"sec-websocket-version", "13"},
                                                     {"sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="}}),
                "") +
              frame(1, Type::kData, 0, 0, "", std::string("\x81\x82\0\0\0\0hi\x89\x80\0\0\0\0\x02\x81\0\0\0\0a\x80\x81\0\0\0\0b", 28)) +
              frame(1, Type::kData, link::kEnd, 0, "", std::string("\x88\x80\0\0\0\0", 6)),
          frame(0, Type::kPing, 0, 0, "", "12345678")};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const bool quiet = (freopen("/dev/null", "w", stdout), true);  // where the SDK's log goes
  (void)quiet;
  // Before the workers' threads: OpenSSL never gives back what it keeps for the thread in which it reads its configuration.
  static const int crypto = OPENSSL_init_crypto(OPENSSL_INIT_LOAD_CONFIG, nullptr);
  (void)crypto;
  static Dispatcher dispatcher(Routes(), 2, 4);
  static Listener listener;
  static std::vector<char> buffer(256 * 1024);
  if (size < 1) return 0;
  size_t step = data[0] < 128 ? size : size_t(data[0]) - 127;
  ++data, --size;
  int ends[2];
  CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
  std::string hello = link::HelloFrame("token");
  CHECK(send(ends[1], hello.data(), hello.size(), 0) == ssize_t(hello.size()));
  size_t gathered = 0;
  std::string token = "token";
  {
    LinkConnection connection(ends[0], token, dispatcher, listener, gathered);
    CHECK(connection.OnReadable(buffer.data(), buffer.size()) && connection.greeted());
    bool open = true;
    for (size_t at = 0; at < size && open; at += step) {
      if (send(ends[1], data + at, std::min(step, size - at), MSG_NOSIGNAL) < 0) break;
      open = connection.OnReadable(buffer.data(), buffer.size());
      for (auto& stream : listener.Take()) {
        if (stream->connection) connection.OnStream(stream);
      }
      open = open && connection.Flush();
      while (recv(ends[1], buffer.data(), buffer.size(), 0) > 0) {
      }
    }
  }
  CHECK(gathered == 0);
  // Whoever still works for a stream is told that it is over.
  CHECK(dispatcher.pool().WaitIdle(std::chrono::steady_clock::now() + std::chrono::seconds(5)));
  listener.Take();
  close(ends[1]);
  return 0;
}
