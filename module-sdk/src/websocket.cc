#include "bulkhead/websocket.h"

#include <algorithm>
#include <stdexcept>

namespace bulkhead::sdk {
namespace {

using std::chrono::milliseconds;

constexpr size_t kMinBuffered = 1'024;
constexpr milliseconds kShortest{10};
constexpr milliseconds kLongestPing{240'000};  // the gateway ends a tunnel that is silent for 300 s
constexpr milliseconds kLongestClose{60'000};

// RFC 9110 5.6.2: what a subprotocol's name may hold.
bool IsToken(std::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("!#$%&'*+-.^_`|~").find(char(c)) != std::string_view::npos;
  });
}

}  // namespace

WebSocketRoute& WebSocketRoute::MaxMessage(size_t bytes) {
  max_message_ = bytes;
  return *this;
}

WebSocketRoute& WebSocketRoute::MaxBuffered(size_t bytes) {
  if (bytes < kMinBuffered) throw std::invalid_argument("MaxBuffered takes at least 1,024 bytes");
  max_buffered_ = bytes;
  return *this;
}

WebSocketRoute& WebSocketRoute::PingInterval(milliseconds interval) {
  if (interval < kShortest || interval > kLongestPing) throw std::invalid_argument("PingInterval takes 10 ms to 4 min");
  ping_interval_ = interval;
  return *this;
}

WebSocketRoute& WebSocketRoute::CloseTimeout(milliseconds timeout) {
  if (timeout < kShortest || timeout > kLongestClose) throw std::invalid_argument("CloseTimeout takes 10 ms to 1 min");
  close_timeout_ = timeout;
  return *this;
}

WebSocketRoute& WebSocketRoute::Protocols(std::vector<std::string> names) {
  for (const std::string& name : names) {
    if (!IsToken(name)) throw std::invalid_argument("the subprotocol \"" + name + "\" holds characters that HTTP does not allow");
  }
  protocols_ = std::move(names);
  return *this;
}

}  // namespace bulkhead::sdk
