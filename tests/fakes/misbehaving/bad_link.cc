#include "tests/fakes/misbehaving/bad_link.h"

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <map>
#include <thread>
#include <utility>
#include <vector>

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "bulkhead/link/frame.h"

namespace bulkhead::misbehaving {
namespace {

using link::Type;
using std::chrono::milliseconds;

constexpr size_t kPastCredit = 16 * 1024 * 1024;  // far more than a stream's window and any buffer on the way
constexpr uint32_t kFarStream = 1'000'000;
constexpr milliseconds kFirstBytesLeft{100};      // until what was sent first is with the client
constexpr milliseconds kAcceptPause{10};          // where no descriptor is free

using Pairs = std::vector<std::pair<std::string, std::string>>;

std::string Head(const Pairs& pairs) {
  std::string head;
  link::HeadWriter writer(head);
  writer.U16(uint16_t(pairs.size()));
  for (const auto& [name, value] : pairs) writer.Pair(name, value);
  return head;
}

std::string Frame(Type type, uint32_t stream, const std::string& head, const std::string& body, uint8_t flags, uint16_t status = 0) {
  std::string frame(link::kHeaderSize, '\0');
  link::PutHeader(frame.data(), {uint32_t(head.size() + body.size()), stream, type, flags, status, uint32_t(head.size())});
  return frame + head + body;
}

std::string Answer(uint32_t stream, const Pairs& pairs, const std::string& body, bool end = true, uint16_t status = 200) {
  return Frame(Type::kResponse, stream, Head(pairs), body, end ? link::kEnd : 0, status);
}

std::string Data(uint32_t stream, const std::string& body, bool end) {
  return Frame(Type::kData, stream, "", body, end ? link::kEnd : 0);
}

std::string Length(size_t bytes) { return std::to_string(bytes); }

class Connection {
 public:
  Connection(int fd, std::string mode) : fd_(fd), mode_(std::move(mode)) {}
  ~Connection() { close(fd_); }

  void Run() {
    if (mode_ != "no-hello") {
      std::string hello;
      link::AppendHello(hello, {});
      Send(hello);
    }
    if (mode_ == "never-reads") {
      for (;;) pause();
    }
    link::Header header;
    std::string payload;
    while (Read(header, payload)) {
      if (mode_ != "no-hello") Take(header, payload);
    }
  }

 private:
  bool ReadAll(char* out, size_t size) {
    while (size > 0) {
      ssize_t n = recv(fd_, out, size, 0);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return false;
      out += n;
      size -= size_t(n);
    }
    return true;
  }

  bool Read(link::Header& header, std::string& payload) {
    char bytes[link::kHeaderSize];
    if (!ReadAll(bytes, sizeof bytes)) return false;
    header = link::GetHeader(bytes);
    payload.resize(header.length);
    return ReadAll(payload.data(), payload.size());
  }

  void Send(std::string_view bytes) {
    while (!bytes.empty()) {
      ssize_t n = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return;  // the gateway has had enough: the next read says so too
      bytes.remove_prefix(size_t(n));
    }
  }

  void Take(const link::Header& header, const std::string& payload) {
    bool end = header.flags & link::kEnd;
    switch (header.type) {
      case Type::kRequest: {
        link::HeadReader reader(payload);
        std::string_view method, target;
        reader.Str(method);
        reader.Str(target);
        targets_[header.stream] = std::string(target);
        TakeBody(header.stream, header.length - header.head_length, end);
        break;
      }
      case Type::kData: TakeBody(header.stream, header.length, end); break;
      case Type::kCancel:
        // To a stream that has ended already neither this nor a second one may be sent.
        if (targets_[header.stream] == "/late") Send(Answer(header.stream, {}, "too late") + Answer(header.stream, {}, "still"));
        targets_.erase(header.stream);
        break;
      case Type::kPing:
        if (!end && mode_ != "no-pong") Send(Frame(Type::kPing, 0, "", payload, link::kEnd));
        break;
      case Type::kHello:
      case Type::kResponse:
      case Type::kWindow:
      case Type::kGoaway: break;
    }
  }

  void TakeBody(uint32_t stream, size_t bytes, bool end) {
    received_[stream] += bytes;
    if (bytes > 0 && !end && mode_ != "no-credit") {
      std::string window;
      link::AppendWindow(window, stream, uint32_t(bytes));
      Send(window);
    }
    if (end) Respond(stream, targets_[stream]);
  }

  void Respond(uint32_t stream, const std::string& target) {
    size_t received = std::exchange(received_[stream], 0);
    received_.erase(stream);
    const std::map<std::string, std::function<void()>> answers = {
        {"/ok", [&] { Send(Answer(stream, {{"content-type", "text/plain"}}, "ok")); }},
        {"/upload", [&] { Send(Answer(stream, {}, std::to_string(received))); }},
        {"/hold", [] {}},
        {"/late", [] {}},
        {"/crash", [] { _exit(9); }},
        {"/block",
         [] {
           for (;;) pause();
         }},
        {"/who", [&] { Send(Answer(stream, {{"content-type", "text/plain"}}, std::to_string(getpid()))); }},
        // No frames, or none that may be sent.
        {"/garbage", [&] { Send(Garbage()); }},
        {"/oversized", [&] { Send(HeaderOnly({0x7fffffff, stream, Type::kResponse, 0, 200, 0})); }},
        {"/half", [&] { Send(Answer(stream, {}, std::string(1000, 'x')).substr(0, 100)); }},
        {"/truncated",
         [&] {
           Send(Answer(stream, {}, std::string(1000, 'x')).substr(0, 100));
           shutdown(fd_, SHUT_RDWR);
         }},
        {"/unknown-type", [&] { Send(HeaderOnly({0, stream, Type(99), 0, 200, 0})); }},
        {"/unknown-stream", [&] { Send(Answer(kFarStream, {}, "for nobody")); }},
        {"/ended-stream",
         [&] {
           for (uint32_t earlier = 1; earlier < stream; ++earlier) Send(Data(earlier, "nobody waits for this", false));
           Send(Answer(stream, {}, "ok"));
         }},
        {"/request", [&] { Send(Frame(Type::kRequest, stream, Head({}), "", link::kEnd)); }},
        {"/second-hello",
         [&] {
           std::string hello;
           link::AppendHello(hello, {});
           Send(hello);
         }},
        {"/window-overflow",
         [&] {
           std::string window;
           link::AppendWindow(window, stream, 0x7fffffff);
           link::AppendWindow(window, stream, 0x7fffffff);
           Send(window);
         }},
        // Heads that no client may see.
        {"/crlf-value", [&] { Send(Answer(stream, {{"x-a", "b\r\nx-injected: yes"}}, "ok")); }},
        {"/crlf-name", [&] { Send(Answer(stream, {{"x-a: b\r\nx-injected", "yes"}}, "ok")); }},
        {"/nul-value", [&] { Send(Answer(stream, {{"x-injected", std::string("a\0b", 3)}}, "ok")); }},
        {"/crlf-trailer",
         [&] {
           Send(Answer(stream, {}, "ok", false));
           Send(Frame(Type::kData, stream, Head({{"x-a", "b\r\n\r\nHTTP/1.1 200 OK\r\nx-injected: yes"}}), "", link::kEnd | link::kTrailers));
         }},
        {"/head-that-lies", [&] { Send(Frame(Type::kResponse, stream, std::string("\xff\xff\x05\0x", 5), "ok", link::kEnd, 200)); }},
        {"/status-99", [&] { Send(Answer(stream, {}, "ok", true, 99)); }},
        // Bodies other than was said.
        {"/short", [&] { Send(Answer(stream, {{"content-length", Length(10)}}, "12345")); }},
        {"/long", [&] { Send(Answer(stream, {{"content-length", Length(5)}}, "1234567890")); }},
        {"/short-later",
         [&] {
           Send(Answer(stream, {{"content-length", Length(10)}}, "12345", false));
           std::this_thread::sleep_for(kFirstBytesLeft);
           Send(Data(stream, "", true));
         }},
        {"/long-later",
         [&] {
           Send(Answer(stream, {{"content-length", Length(5)}}, "12345", false));
           std::this_thread::sleep_for(kFirstBytesLeft);
           Send(Data(stream, "HTTP/1.1 200 OK\r\nx-injected: yes\r\ncontent-length: 0\r\n\r\n", true));
         }},
        {"/no-head", [&] { Send(Data(stream, "body without a head", true)); }},
        {"/two-heads", [&] { Send(Answer(stream, {}, "one", false) + Answer(stream, {}, "two")); }},
        {"/twice", [&] { Send(Answer(stream, {}, "ok") + Answer(stream, {}, "once more") + Data(stream, "and more", true)); }},
        {"/past-credit",
         [&] {
           Send(Answer(stream, {}, "", false));
           const std::string piece(32 * 1024, 'x');
           for (size_t sent = 0; sent < kPastCredit; sent += piece.size()) Send(Data(stream, piece, false));
           Send(Data(stream, "", true));
         }},
    };
    auto answer = answers.find(target.substr(0, target.find('?')));
    if (answer == answers.end()) return Send(Answer(stream, {}, "no such misbehaviour", true, 404));
    answer->second();
    if (target != "/late") targets_.erase(stream);
  }

  static std::string HeaderOnly(const link::Header& header) {
    std::string bytes(link::kHeaderSize, '\0');
    link::PutHeader(bytes.data(), header);
    return bytes;
  }

  // The same each time, and no frame at any offset that matters: the type is never one.
  static std::string Garbage() {
    std::string bytes(4096, '\0');
    uint32_t state = 1;
    for (char& byte : bytes) byte = char((state = state * 1664525u + 1013904223u) >> 24 | 0x80);
    return bytes;
  }

  const int fd_;
  const std::string mode_;
  std::map<uint32_t, std::string> targets_;
  std::map<uint32_t, size_t> received_;
};

}  // namespace

void ServeLink(const std::string& socket, const std::string& mode) {
  unlink(socket.c_str());
  int listener = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  socket.copy(address.sun_path, sizeof address.sun_path - 1);
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 || listen(listener, 64) != 0) {
    perror("the data socket");
    exit(1);
  }
  std::thread([listener, mode] {
    for (;;) {
      // Looked first: a call that waits for a connection holds a descriptor for it already.
      pollfd waiting{listener, POLLIN, 0};
      poll(&waiting, 1, -1);
      int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd >= 0) {
        std::thread([fd, mode] { Connection(fd, mode).Run(); }).detach();
      } else {
        std::this_thread::sleep_for(kAcceptPause);
      }
    }
  }).detach();
}

}  // namespace bulkhead::misbehaving
