#include "websocket_frame.h"

#include <algorithm>
#include <cstring>

#include "bulkhead/websocket.h"

namespace bulkhead::sdk::websocket {
namespace {

static_assert(kMaxCloseReason == kMaxControl - 2);

// States of a character: how it must go on. 0 is between characters.
enum : uint8_t { kBetween, kOneMore, kTwoMore, kThreeMore, kAfterE0, kAfterED, kAfterF0, kAfterF4, kInvalid };

uint8_t Begin(uint8_t byte) {
  if (byte < 0x80) return kBetween;
  if (byte < 0xc2) return kInvalid;  // a continuation, or an overlong form of ASCII
  if (byte < 0xe0) return kOneMore;
  if (byte == 0xe0) return kAfterE0;
  if (byte == 0xed) return kAfterED;
  if (byte < 0xf0) return kTwoMore;
  if (byte == 0xf0) return kAfterF0;
  if (byte < 0xf4) return kThreeMore;
  return byte == 0xf4 ? kAfterF4 : kInvalid;
}

uint8_t Continue(uint8_t state, uint8_t byte) {
  if (byte < 0x80 || byte > 0xbf) return kInvalid;
  switch (state) {
    case kOneMore: return kBetween;
    case kTwoMore: return kOneMore;
    case kThreeMore: return kTwoMore;
    case kAfterE0: return byte >= 0xa0 ? kOneMore : kInvalid;  // overlong below
    case kAfterED: return byte <= 0x9f ? kOneMore : kInvalid;  // surrogates above
    case kAfterF0: return byte >= 0x90 ? kTwoMore : kInvalid;  // overlong below
    case kAfterF4: return byte <= 0x8f ? kTwoMore : kInvalid;  // beyond U+10FFFF above
  }
  return kInvalid;
}

// 5.3. `offset` of data[0] in the frame's payload.
void Unmask(char* data, size_t size, const uint8_t mask[4], uint64_t offset) {
  uint8_t key[8];
  for (size_t i = 0; i < 8; ++i) key[i] = mask[(offset + i) % 4];
  uint64_t wide_key;
  memcpy(&wide_key, key, sizeof wide_key);
  size_t i = 0;
  for (; i + 8 <= size; i += 8) {
    uint64_t wide;
    memcpy(&wide, data + i, sizeof wide);
    wide ^= wide_key;
    memcpy(data + i, &wide, sizeof wide);
  }
  for (; i < size; ++i) data[i] = char(data[i] ^ char(key[i % 8]));
}

}  // namespace

bool Utf8Reader::Take(std::string_view bytes) {
  const char* at = bytes.data();
  const char* end = at + bytes.size();
  while (at < end) {
    if (state_ == kBetween) {
      // Text is mostly ASCII: eight at a time.
      while (end - at >= 8) {
        uint64_t wide;
        memcpy(&wide, at, sizeof wide);
        if (wide & 0x8080808080808080) break;
        at += 8;
      }
      if (at == end) break;
      state_ = Begin(uint8_t(*at++));
    } else {
      state_ = Continue(state_, uint8_t(*at++));
    }
    if (state_ == kInvalid) return false;
  }
  return state_ != kInvalid;
}

bool IsUtf8(std::string_view text) {
  Utf8Reader reader;
  return reader.Take(text) && reader.complete();
}

Event Decoder::Next(std::string_view& in) {
  for (;;) {
    if (closed_ || failed_ != 0) {
      in = {};
      return failed_ != 0 ? Event{Event::Kind::kViolation, failed_, failed_words_} : Event{};
    }
    if (!header_done_) {
      if (!TakeHeader(in)) continue;
      if (!header_done_) return {};
    }
    if (!TakePayload(in)) continue;
    if (taken_ < length_) return {};
    Event event = FinishFrame();
    if (event.kind != Event::Kind::kNone) return event;
  }
}

bool Decoder::Fail(uint16_t code, const char* words) {
  failed_ = code;
  failed_words_ = words;
  message_ = std::string();
  return false;
}

bool Decoder::TakeHeader(std::string_view& in) {
  while (!in.empty()) {
    header_[header_have_++] = uint8_t(in.front());
    in.remove_prefix(1);
    if (header_have_ == 2 && !CheckFirstBytes()) return false;
    if (header_have_ == header_need_) return TakeLength();
  }
  return true;
}

// What the first two bytes already say, so that a violation needs no more of the frame.
bool Decoder::CheckFirstBytes() {
  if (header_[0] & 0x70) return Fail(close_code::kProtocolError, "reserved bits are set");  // 5.2
  switch (opcode()) {
    case Opcode::kContinuation:
      if (!fragmented_) return Fail(close_code::kProtocolError, "a continuation of no message");  // 5.4
      break;
    case Opcode::kText:
    case Opcode::kBinary:
      if (fragmented_) return Fail(close_code::kProtocolError, "a message within a message");  // 5.4
      break;
    case Opcode::kClose:
    case Opcode::kPing:
    case Opcode::kPong:
      if (!fin()) return Fail(close_code::kProtocolError, "a control frame in fragments");  // 5.4
      if ((header_[1] & 0x7f) > kMaxControl)
        return Fail(close_code::kProtocolError, "a control frame longer than 125 bytes");  // 5.5
      break;
    default: return Fail(close_code::kProtocolError, "an unknown opcode");  // 5.2
  }
  if (!(header_[1] & 0x80)) return Fail(close_code::kProtocolError, "a frame without a mask");  // 5.1
  int length = header_[1] & 0x7f;
  header_need_ = 2 + (length == 127 ? 8 : length == 126 ? 2 : 0) + 4;
  return true;
}

bool Decoder::TakeLength() {
  size_t extended = header_need_ - 6;
  length_ = header_[1] & 0x7f;
  if (extended > 0) length_ = 0;
  for (size_t i = 0; i < extended; ++i) length_ = length_ << 8 | header_[2 + i];
  if (length_ >> 63) return Fail(close_code::kProtocolError, "a length beyond 2^63");  // 5.2
  bool minimal = extended == 0 || (extended == 2 ? length_ > 125 : length_ > 0xffff);
  if (!minimal) return Fail(close_code::kProtocolError, "a length in more bytes than it needs");  // 5.2
  if (!is_control() && length_ > max_message_ - message_.size()) return Fail(close_code::kTooBig, "the message is too long");
  memcpy(mask_, header_ + 2 + extended, 4);
  header_done_ = true;
  taken_ = 0;
  if (!is_control() && !fragmented_) {
    text_ = opcode() == Opcode::kText;
    utf8_ = {};
  }
  return true;
}

bool Decoder::TakePayload(std::string_view& in) {
  size_t n = size_t(std::min<uint64_t>(in.size(), length_ - taken_));
  std::string& into = is_control() ? control_ : message_;
  size_t before = into.size();
  into.append(in.substr(0, n));
  in.remove_prefix(n);
  Unmask(into.data() + before, n, mask_, taken_);
  taken_ += n;
  if (!is_control() && text_ && !utf8_.Take(std::string_view(into).substr(before))) {
    return Fail(close_code::kInvalidText, "text that is not UTF-8");  // 8.1
  }
  return true;
}

Event Decoder::FinishFrame() {
  header_done_ = false;
  header_have_ = 0;
  header_need_ = 2;
  switch (opcode()) {
    case Opcode::kPing: return {Event::Kind::kPing, 0, std::exchange(control_, {})};
    case Opcode::kPong: return {Event::Kind::kPong, 0, std::exchange(control_, {})};
    case Opcode::kClose: return FinishClose();
    default: break;
  }
  fragmented_ = !fin();
  if (fragmented_) return {};
  if (text_ && !utf8_.complete()) {
    Fail(close_code::kInvalidText, "text that ends within a character");
    return {};
  }
  return {text_ ? Event::Kind::kText : Event::Kind::kBinary, 0, std::exchange(message_, {})};
}

Event Decoder::FinishClose() {
  std::string payload = std::exchange(control_, {});
  if (payload.empty()) {
    closed_ = true;
    return {Event::Kind::kClose, close_code::kNoCode, {}};
  }
  uint16_t code = payload.size() < 2 ? 0 : uint16_t(uint8_t(payload[0]) << 8 | uint8_t(payload[1]));
  if (!IsCloseCode(code)) {
    Fail(close_code::kProtocolError, "a close code that must not be sent");  // 5.5.1, 7.4
    return {};
  }
  payload.erase(0, 2);
  if (!IsUtf8(payload)) {
    Fail(close_code::kInvalidText, "a close reason that is not UTF-8");  // 5.5.1
    return {};
  }
  closed_ = true;
  return {Event::Kind::kClose, code, std::move(payload)};
}

size_t PutFrameHeader(char out[kMaxFrameHeader], Opcode opcode, uint64_t payload) {
  out[0] = char(0x80 | uint8_t(opcode));
  if (payload <= 125) {
    out[1] = char(payload);
    return 2;
  }
  size_t extended = payload <= 0xffff ? 2 : 8;
  out[1] = char(extended == 2 ? 126 : 127);
  for (size_t i = 0; i < extended; ++i) out[2 + i] = char(payload >> (8 * (extended - 1 - i)));
  return 2 + extended;
}

std::string ControlFrame(Opcode opcode, std::string_view payload) {
  char header[kMaxFrameHeader];
  std::string out(header, PutFrameHeader(header, opcode, payload.size()));
  return out.append(payload);
}

std::string CloseFrame(uint16_t code, std::string_view reason) {
  if (code == close_code::kNoCode) return ControlFrame(Opcode::kClose, {});
  std::string payload = {char(code >> 8), char(code)};
  return ControlFrame(Opcode::kClose, payload.append(CutText(reason, kMaxCloseReason)));
}

std::string_view CutText(std::string_view text, size_t bytes) {
  if (text.size() <= bytes) return text;
  while (bytes > 0 && (uint8_t(text[bytes]) & 0xc0) == 0x80) --bytes;
  return text.substr(0, bytes);
}

bool IsCloseCode(uint16_t code) {
  return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) || (code >= 3000 && code <= 4999);
}

}  // namespace bulkhead::sdk::websocket
