// WebSockets (RFC 6455): `router.WebSocket(pattern, handler)`. The handler gets the request that asks for one (identity,
// parameters and query as of any GET), refuses it by throwing HttpError, or accepts it by returning what is to happen on the
// socket. Handshake, frames, fragments, pings and the closing handshake are the SDK's business; extensions are not negotiated.
//
//   context.router().WebSocket("/echo", [](Request&) {
//     WebSocketEvents events;
//     events.on_message = [](const WebSocketPtr& socket, std::string_view message, bool binary) {
//       binary ? socket->SendBinary(message) : socket->Send(message);
//     };
//     return events;
//   });
//
// A browser sends cookies with an upgrade from any page and asks nobody: where cookies say who calls, compare `origin`.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bulkhead/http.h"

namespace bulkhead::sdk {

inline constexpr int kMaxWebSockets = 4'096;            // open at once in one process; beyond: 503 OVERLOADED
inline constexpr size_t kMaxSocketBytes = 64 << 20;     // of messages that came and are not handled, all sockets; beyond: 1013
inline constexpr size_t kDefaultMaxMessage = 1 << 20;   // bytes of one message from the client; beyond: 1009
inline constexpr size_t kDefaultMaxBuffered = 2 << 20;  // bytes that wait for one client; beyond: Send() is false
inline constexpr size_t kMaxCloseReason = 123;          // bytes, RFC 6455 5.5
inline constexpr std::chrono::milliseconds kDefaultPingInterval{30'000};
inline constexpr std::chrono::milliseconds kDefaultCloseTimeout{10'000};

// RFC 6455 7.4.1 and IANA's registry. 3000 to 4999 are for libraries and applications.
namespace close_code {
inline constexpr uint16_t kNormal = 1000;
inline constexpr uint16_t kGoingAway = 1001;  // the module is stopping
inline constexpr uint16_t kProtocolError = 1002;
inline constexpr uint16_t kUnsupported = 1003;  // say, binary where text is wanted
inline constexpr uint16_t kNoCode = 1005;       // the client closed without a code; never sent
inline constexpr uint16_t kVanished = 1006;     // the client has gone without closing; never sent
inline constexpr uint16_t kInvalidText = 1007;  // not UTF-8
inline constexpr uint16_t kPolicy = 1008;
inline constexpr uint16_t kTooBig = 1009;
inline constexpr uint16_t kInternalError = 1011;  // a callback threw, or a ping was not answered
inline constexpr uint16_t kTryAgainLater = 1013;
}  // namespace close_code

// One open socket. Thread-safe; nothing here blocks. It may be kept beyond the socket's end: then it is just closed.
class WebSocket {
 public:
  virtual ~WebSocket() = default;
  // Queues one message. False, and nothing is queued, when the socket is closing or closed, or when more than MaxBuffered bytes
  // would wait for this client: open() tells which. What to do for a slow client is the module's choice: leave messages out, or
  // Close(close_code::kTryAgainLater). Send() throws std::invalid_argument when `text` is not UTF-8.
  virtual bool Send(std::string_view text) = 0;
  virtual bool SendBinary(std::string_view bytes) = 0;
  // Closes behind what is queued: sends Close, waits CloseTimeout for the client's, then ends the connection. Messages that
  // on_message has not seen by now are dropped. The first Close counts, later ones do nothing. `reason` is cut at 123 bytes.
  // Throws std::invalid_argument for a code that must not be sent (all but 1000 to 1003, 1007 to 1014, 3000 to 4999) or a reason
  // that is not UTF-8.
  virtual void Close(uint16_t code = close_code::kNormal, std::string_view reason = {}) = 0;
  // Bytes that wait for the client's reading, with their frames' headers.
  virtual size_t buffered() const = 0;
  // False from the first Close() of either side on.
  virtual bool open() const = 0;
  // The subprotocol that was agreed on; empty when none.
  virtual const std::string& protocol() const = 0;
};

using WebSocketPtr = std::shared_ptr<WebSocket>;

// What happens on one socket; any of them may be empty. Those of one socket run one at a time and in order, on the threads of
// the worker pool (Context::SetWorkers), those of different sockets at once. A socket that waits holds no thread. What they throw
// is logged and closes the socket with 1011. The Request is gone when they run: copy what they need of it.
struct WebSocketEvents {
  // First of all. The socket may be kept, to send from elsewhere.
  std::function<void(const WebSocketPtr& socket)> on_open;
  // A whole message; text is valid UTF-8. A slow one holds up its own client only: past 256 KiB that wait for it the client can't
  // send more. It is also not called while more than half of MaxBuffered waits for the client, so that a client that does not
  // read its answers is not listened to either, and an answer up to that size always fits.
  std::function<void(const WebSocketPtr& socket, std::string message, bool binary)> on_message;
  // Last of all, once for each on_open: the code and reason of the side that closed first; kNoCode; kVanished.
  std::function<void(const WebSocketPtr& socket, uint16_t code, std::string_view reason)> on_close;
};

// Runs on the worker pool before the socket is open. What it throws becomes the answer as of any handler (errors.h).
using WebSocketHandler = std::function<WebSocketEvents(Request&)>;

// What Router::WebSocket made. Setters throw std::invalid_argument outside the given bounds.
class WebSocketRoute {
 public:
  explicit WebSocketRoute(WebSocketHandler handler) : handler_(std::move(handler)) {}

  WebSocketRoute& MaxMessage(size_t bytes);   // default kDefaultMaxMessage
  WebSocketRoute& MaxBuffered(size_t bytes);  // default kDefaultMaxBuffered; at least 1,024. A longer message can't be sent
  // How often a client is pinged. One of which nothing is heard until the next ping (no pong, no other byte, no progress in
  // reading what waits for it) is closed with 1011; but not while what it sent waits for the module. Default
  // kDefaultPingInterval; 10 ms to 4 min, because the gateway ends what is silent for 5.
  WebSocketRoute& PingInterval(std::chrono::milliseconds interval);
  // How long the client may take to answer a Close, and then to read what is queued. Default kDefaultCloseTimeout; 10 ms to 1
  // min.
  WebSocketRoute& CloseTimeout(std::chrono::milliseconds timeout);
  // Subprotocols that the module speaks, the best first: the first one that the client offers is agreed on. Without a common one
  // the socket opens without any, and clients that insist leave.
  WebSocketRoute& Protocols(std::vector<std::string> names);

  const WebSocketHandler& handler() const { return handler_; }
  size_t max_message() const { return max_message_; }
  size_t max_buffered() const { return max_buffered_; }
  std::chrono::milliseconds ping_interval() const { return ping_interval_; }
  std::chrono::milliseconds close_timeout() const { return close_timeout_; }
  const std::vector<std::string>& protocols() const { return protocols_; }

 private:
  WebSocketHandler handler_;
  size_t max_message_ = kDefaultMaxMessage;
  size_t max_buffered_ = kDefaultMaxBuffered;
  std::chrono::milliseconds ping_interval_ = kDefaultPingInterval;
  std::chrono::milliseconds close_timeout_ = kDefaultCloseTimeout;
  std::vector<std::string> protocols_;
};

}  // namespace bulkhead::sdk
