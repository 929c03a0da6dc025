// What a module may send to the gateway: any bytes, in any pieces, while requests are open. Each request must end at most once, say nothing
// after its end, and never hold more of a body than its window.
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "supervisor/base/log.h"
#include "supervisor/gateway/link.h"
#include "supervisor/gateway/request_head.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/link_frames.h"

namespace {

using namespace bulkhead;
using link::Type;

constexpr int kRequests = 4;

class Sink : public StreamSink {
 public:
  bool OnHead(uint16_t status, std::string_view pairs, bool whole, size_t body_length) override {
    BULKHEAD_CHECK(!ended_ && !head_);
    BULKHEAD_CHECK(status != 101 || (asks_tunnel && !whole));
    head_ = true;
    if (whole && body_length == 0) ended_ = true;
    std::string out;
    ResponseFields fields;
    FieldsResult result = AppendResponseFields(pairs, out, fields);
    if (result == FieldsResult::kOk) {
      for (size_t at = out.find_first_of("\r\n"); at != std::string::npos; at = out.find_first_of("\r\n", at + 2)) {
        BULKHEAD_CHECK(out.compare(at, 2, "\r\n") == 0);  // no line but those made here
      }
    }
    return result != FieldsResult::kMalformed;
  }
  void OnBody(std::string_view bytes, bool end) override {
    BULKHEAD_CHECK(!ended_ && head_);
    held_ += bytes.size();
    BULKHEAD_CHECK(held_ <= link::kWindow);
    ended_ = end;
  }
  bool OnTrailers(std::string_view pairs) override {
    BULKHEAD_CHECK(!ended_ && head_);
    std::string out;
    ResponseFields fields;
    return AppendResponseFields(pairs, out, fields) != FieldsResult::kMalformed;
  }
  void OnRoom() override { BULKHEAD_CHECK(!ended_); }
  void OnLost(StreamLoss) override {
    BULKHEAD_CHECK(!ended_ || head_);  // a head that does not parse ends what was the last call
    BULKHEAD_CHECK(!lost_);
    lost_ = ended_ = true;
  }
  bool asks_tunnel = false;

 private:
  bool head_ = false, ended_ = false, lost_ = false;
  size_t held_ = 0;
};

struct Listener {
  Listener() : path("/tmp/bulkhead-fuzz-" + std::to_string(getpid())) {
    fd.Reset(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    unlink(path.c_str());
    BULKHEAD_CHECK(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 && listen(fd.get(), 8) == 0);
  }
  ~Listener() { unlink(path.c_str()); }
  std::string path;
  UniqueFd fd;
};

// One turn that does not wait.
void Turn(GatewayLoop& loop) {
  loop.mailbox()->Post([] {});
  int turns = 0;
  loop.Run([&] { return turns++ == 1; });
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  std::string hello = link::HelloFrame("");
  std::string head = link::Pairs({{"content-type", "text/plain"}, {"x-a", "1"}});
  auto frame = link::Frame;
  return {hello,
          hello + frame(1, Type::kResponse, link::kEnd, 200, head, "body"),
          hello + frame(1, Type::kResponse, 0, 200, head, "") + frame(1, Type::kData, 0, 0, "", std::string(3000, 'x')) +
              frame(1, Type::kData, link::kEnd | link::kTrailers, 0, link::Pairs({{"x-sum", "1"}}), ""),
          hello + link::WindowFrame(2, 100'000) + frame(2, Type::kResponse, link::kEnd, 413, link::Pairs({{"content-length", "0"}}), ""),
          hello + frame(3, Type::kResponse, link::kUpgrade, 101, link::Pairs({{"sec-websocket-accept", "x"}}), "early") +
              frame(3, Type::kData, 0, 0, "", "bytes") + frame(3, Type::kData, link::kEnd, 0, "", ""),
          hello + link::CancelFrame(1, link::CancelCode::kRefused) + link::CancelFrame(2, link::CancelCode::kInternal),
          hello + frame(2, Type::kGoaway, 0, 0, "", "") + frame(1, Type::kResponse, link::kEnd, 204, link::Pairs({}), ""),
          hello + frame(0, Type::kPing, 0, 0, "", "12345678") + frame(0, Type::kPing, link::kEnd, 0, "", "12345678")};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const bool quiet = (ConfigureLog(LogLevel::kError, LogFormat::kText), true);
  (void)quiet;
  static Listener listener;
  static GatewayLoop loop(Clock::Real());
  if (size < 1) return 0;
  size_t step = data[0] < 128 ? size : size_t(data[0]) - 127;  // the pieces in which the rest comes
  ++data, --size;

  auto link = std::make_unique<Link>(loop, std::make_shared<LinkWorker>(LinkWorker{"m", "m.0", listener.path, "token", nullptr}));
  BULKHEAD_CHECK(link->EnsureUp());
  UniqueFd module(accept4(listener.fd.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  BULKHEAD_CHECK(module);
  Stream streams[kRequests];
  Sink sinks[kRequests];
  for (int i = 0; i < kRequests; ++i) {
    bool whole = i % 2 == 0 && i != 2;
    sinks[i].asks_tunnel = i == 2;
    uint8_t flags = uint8_t((whole ? link::kEnd : 0) | (i == 2 ? link::kUpgrade : 0));
    link->Open(streams[i], sinks[i], link::Frame(0, Type::kRequest, flags, 0, link::RequestHead("GET", "/", {}), ""), whole);
    if (!whole) link->Send(streams[i], "some of the body", false);
  }
  char drain[4096];
  for (size_t at = 0; at < size && link->up(); at += step) {
    if (send(module.get(), data + at, std::min(step, size - at), MSG_NOSIGNAL) < 0) break;
    Turn(loop);
    while (recv(module.get(), drain, sizeof drain, MSG_DONTWAIT) == ssize_t(sizeof drain)) {
    }
  }
  module.Reset();
  for (int i = 0; i < 3; ++i) Turn(loop);
  link->CloseNow(StreamLoss::kClosed);
  for (Stream& stream : streams) BULKHEAD_CHECK(!stream.open());
  loop.Bury(std::move(link));
  Turn(loop);
  return 0;
}
