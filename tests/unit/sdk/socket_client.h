// The client of a WebSocket, through the gateway's end of the link. Reads and writes frames by itself, so that the SDK's codec
// is checked against another one. Not thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "harness.h"

namespace bulkhead::sdk_test {

enum : uint8_t { kContinuation = 0, kText = 1, kBinary = 2, kClose = 8, kPing = 9, kPong = 10 };

// A client's frame: masked with `mask`.
std::string ClientFrame(uint8_t opcode, std::string_view payload, bool fin = true, uint32_t mask = 0x37fa213d);
std::string ClientClose(uint16_t code, std::string_view reason = {});

struct ServerFrame {
  uint8_t opcode = 0;
  std::string payload;
  uint16_t close_code() const { return payload.size() < 2 ? 1005 : uint16_t(uint8_t(payload[0]) << 8 | uint8_t(payload[1])); }
  std::string close_reason() const { return payload.size() < 2 ? std::string() : payload.substr(2); }
};

class SocketClient {
 public:
  // Asks and waits for the answer, which is in status() and headers().
  SocketClient(Link& link, const std::string& target, Pairs headers = {});
  SocketClient(const SocketClient&) = delete;

  int status() const { return status_; }
  const std::map<std::string, std::string>& headers() const { return headers_; }
  uint32_t stream() const { return stream_; }

  // Sends under credit: waits for WINDOW when there is none.
  void Raw(std::string_view bytes, bool end = false);
  void Send(std::string_view text) { Raw(ClientFrame(kText, text)); }
  // The next frame; nullopt once the module has ended the tunnel. Its header is checked: unfragmented, unmasked, minimal length.
  std::optional<ServerFrame> Next();
  // The next text or binary message; answers pings on the way. "<end>" when there is none, "<close CODE REASON>" for a Close.
  std::string Message();
  // Takes what the module sends until it has ended the tunnel. True when that was END, false when it was CANCEL.
  bool Ends();
  int cancel_code() const { return cancel_code_; }
  bool ended() const { return ended_; }
  int64_t credit() const { return credit_; }
  bool give_credit = true;  // as bytes come
  void Grant(uint32_t bytes) { link_.Window(stream_, bytes); }
  size_t received() const { return received_; }
  // Takes one frame of the link; false when the tunnel has ended.
  bool Pump();

 private:
  bool Have(size_t bytes);
  Link& link_;
  uint32_t stream_;
  int status_ = 0;
  std::map<std::string, std::string> headers_;
  std::string in_;
  size_t received_ = 0;
  int64_t credit_ = link::kWindow;
  bool ended_ = false;
  int cancel_code_ = 0;
};

// Lets /ws/told send more than the client takes, by kFloods messages, until all credit is used up and bytes wait in the module.
inline constexpr int kFloods = 50;
void Flood(SocketClient& client);

}  // namespace bulkhead::sdk_test
