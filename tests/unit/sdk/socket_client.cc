#include "socket_client.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace bulkhead::sdk_test {

std::string ClientFrame(uint8_t opcode, std::string_view payload, bool fin, uint32_t mask) {
  std::string out;
  out += char((fin ? 0x80 : 0) | opcode);
  int extended = payload.size() < 126 ? 0 : payload.size() < 65'536 ? 2 : 8;
  out += char(0x80 | (extended == 0 ? payload.size() : extended == 2 ? 126 : 127));
  for (int i = extended - 1; i >= 0; --i) out += char(payload.size() >> (8 * i));
  for (int i = 3; i >= 0; --i) out += char(mask >> (8 * i));
  for (size_t i = 0; i < payload.size(); ++i) out += char(payload[i] ^ char(mask >> (8 * (3 - i % 4))));
  return out;
}

std::string ClientClose(uint16_t code, std::string_view reason) {
  return ClientFrame(kClose, std::string{char(code >> 8), char(code)}.append(reason));
}

SocketClient::SocketClient(Link& link, const std::string& target, Pairs headers)
    : link_(link), stream_(link.Upgrade(target, std::move(headers))) {
  while (status_ == 0 && Pump()) {
  }
}

bool SocketClient::Pump() {
  if (ended_) return false;
  auto frame = link_.NextOf(stream_);
  if (!frame) {
    ADD_FAILURE() << "the link closed";
    ended_ = true;
    return false;
  }
  switch (frame->header.type) {
    case link::Type::kResponse:
      status_ = frame->header.status;
      headers_ = Fields(frame->head());
      EXPECT_EQ(frame->header.flags, status_ == 101 ? link::kUpgrade : link::kEnd);
      break;
    case link::Type::kWindow: credit_ += link::internal::Get32(frame->payload.data()); return true;
    case link::Type::kCancel:
      cancel_code_ = frame->header.status;
      ended_ = true;
      return true;
    case link::Type::kData: break;
    default: return true;
  }
  in_ += frame->body();
  received_ += frame->body().size();
  ended_ = frame->end();
  if (give_credit && !ended_ && frame->header.type == link::Type::kData && !frame->body().empty()) {
    Grant(uint32_t(frame->body().size()));
  }
  return true;
}

void SocketClient::Raw(std::string_view bytes, bool end) {
  while (!bytes.empty() && !ended_) {
    if (credit_ == 0) {
      Pump();
      continue;
    }
    size_t n = std::min({bytes.size(), size_t(credit_), size_t(link::kMaxFrame)});
    credit_ -= int64_t(n);
    link_.Data(stream_, bytes.substr(0, n), end && n == bytes.size());
    bytes.remove_prefix(n);
    if (bytes.empty()) return;
  }
  if (end) link_.Data(stream_, {}, true);
}

bool SocketClient::Have(size_t bytes) {
  while (in_.size() < bytes && Pump()) {
  }
  return in_.size() >= bytes;
}

std::optional<ServerFrame> SocketClient::Next() {
  if (!Have(2)) return std::nullopt;
  uint8_t first = uint8_t(in_[0]), second = uint8_t(in_[1]);
  EXPECT_EQ(first & 0xf0, 0x80) << "unfragmented, no reserved bit";
  EXPECT_EQ(second & 0x80, 0) << "a server does not mask";
  size_t extended = second == 126 ? 2 : second == 127 ? 8 : 0;
  if (!Have(2 + extended)) return std::nullopt;
  uint64_t length = extended == 0 ? second : 0;
  for (size_t i = 0; i < extended; ++i) length = length << 8 | uint8_t(in_[2 + i]);
  EXPECT_TRUE(extended == 0 || length > (extended == 2 ? 125u : 65'535u)) << "the shortest form";
  if (!Have(2 + extended + length)) return std::nullopt;
  ServerFrame frame{uint8_t(first & 0x0f), in_.substr(2 + extended, length)};
  in_.erase(0, 2 + extended + length);
  return frame;
}

std::string SocketClient::Message() {
  while (auto frame = Next()) {
    if (frame->opcode == kText || frame->opcode == kBinary) return frame->payload;
    if (frame->opcode == kPing) Raw(ClientFrame(kPong, frame->payload));
    if (frame->opcode == kClose) return "<close " + std::to_string(frame->close_code()) + " " + frame->close_reason() + ">";
  }
  return "<end>";
}

bool SocketClient::Ends() {
  while (Pump()) {
  }
  return ended_ && cancel_code_ == 0;
}

void Flood(SocketClient& client) {
  client.give_credit = false;
  for (int i = 0; i < kFloods; ++i) client.Send("flood 10000");
  while (client.received() < link::kWindow) ASSERT_TRUE(client.Pump());
}

}  // namespace bulkhead::sdk_test
