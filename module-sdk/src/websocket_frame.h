// Frames of RFC 6455 as a server reads and writes them. Pure: no I/O, no clock. A Decoder belongs to one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace bulkhead::sdk::websocket {

enum class Opcode : uint8_t { kContinuation = 0, kText = 1, kBinary = 2, kClose = 8, kPing = 9, kPong = 10 };

inline constexpr size_t kMaxFrameHeader = 10;  // of a server's frame, which has no mask
inline constexpr size_t kMaxControl = 125;     // bytes of a control frame's payload, 5.5

// UTF-8 in pieces (RFC 3629: no surrogates, no overlong forms, nothing beyond U+10FFFF).
class Utf8Reader {
 public:
  bool Take(std::string_view bytes);             // false once they can't be the beginning of valid text
  bool complete() const { return state_ == 0; }  // not in the middle of a character

 private:
  uint8_t state_ = 0;
};
bool IsUtf8(std::string_view text);

struct Event {
  enum class Kind : uint8_t { kNone, kText, kBinary, kPing, kPong, kClose, kViolation };
  Kind kind = Kind::kNone;
  uint16_t code = 0;    // kClose: the client's, 1005 without one. kViolation: what to close with
  std::string payload;  // of kText and kBinary the whole message; kClose: the reason; kViolation: what was wrong, in a few words
};

// What a client sends, in pieces of any size.
class Decoder {
 public:
  explicit Decoder(size_t max_message) : max_message_(max_message) {}

  // Takes from the front of `in` up to the next event. kNone: all of it was taken and there is none yet. After kViolation
  // there is nothing but that, after kClose nothing at all (5.5.1: the client sends no more).
  Event Next(std::string_view& in);

  size_t kept() const { return message_.size(); }  // bytes of the message that is on its way
  bool in_message() const { return fragmented_ || (header_done_ && !is_control()); }

 private:
  Event Violation(uint16_t code, const char* words);
  // The frame's header byte by byte as far as `in` goes; false on a violation, which is then in failed_.
  bool TakeHeader(std::string_view& in);
  bool CheckFirstBytes();
  bool TakeLength();
  bool TakePayload(std::string_view& in);
  Event FinishFrame();
  Event FinishClose();
  bool Fail(uint16_t code, const char* words);
  Opcode opcode() const { return Opcode(header_[0] & 0x0f); }
  bool fin() const { return header_[0] & 0x80; }
  bool is_control() const { return header_[0] & 0x08; }

  const size_t max_message_;
  uint8_t header_[14] = {};
  size_t header_have_ = 0, header_need_ = 2;
  bool header_done_ = false;
  bool fragmented_ = false;  // a message has begun in an earlier frame
  bool text_ = false;        // the message on its way is text
  bool closed_ = false;
  uint64_t length_ = 0, taken_ = 0;  // of the frame's payload
  uint8_t mask_[4] = {};
  Utf8Reader utf8_;
  std::string message_, control_;
  uint16_t failed_ = 0;
  const char* failed_words_ = "";
};

// Writes the header of an unfragmented, unmasked frame; how many bytes it took.
size_t PutFrameHeader(char out[kMaxFrameHeader], Opcode opcode, uint64_t payload);
// A whole control frame; `payload` up to kMaxControl.
std::string ControlFrame(Opcode opcode, std::string_view payload);
// A Close with `reason` cut to what fits, between characters. Code 1005: without a code.
std::string CloseFrame(uint16_t code, std::string_view reason);
// The longest beginning of valid UTF-8 `text` within `bytes` that does not cut a character.
std::string_view CutText(std::string_view text, size_t bytes);
// Whether a Close frame may carry it (7.4).
bool IsCloseCode(uint16_t code);

}  // namespace bulkhead::sdk::websocket
