// The framing of request bodies: RFC 9112 6.3 (length) and 7.1 (chunks).
#include <algorithm>

#include "supervisor/gateway/http1.h"

namespace bulkhead::http1 {
namespace {

constexpr int kMaxSizeDigits = 15;                  // of a chunk size; far beyond any body limit, and no overflow
constexpr uint32_t kMaxExtension = 4 * 1024;        // of all chunk extensions of one body together; nobody here reads them
constexpr uint32_t kMaxTrailers = 8 * 1024;         // bytes of the trailer section

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

void BodyReader::Begin(const RequestHead& head) {
  *this = BodyReader();
  chunked_ = head.chunked;
  if (chunked_) {
    state_ = State::kSize;
  } else if (head.content_length > 0) {
    state_ = State::kLength;
    left_ = uint64_t(head.content_length);
  }
}

int64_t BodyReader::remaining() const {
  if (state_ == State::kDone) return 0;
  return chunked_ ? -1 : int64_t(left_);
}

BodyReader::Step BodyReader::Refuse(const char* message) {
  refusal_ = message;
  return Step::kRefused;
}

BodyReader::Step BodyReader::Next(std::string_view& in, size_t max, std::string_view& piece) {
  for (;;) {
    if (state_ == State::kDone) return Step::kDone;
    if (in.empty()) return Step::kNeedMore;
    if (state_ == State::kLength || state_ == State::kData) {
      size_t take = std::min({in.size(), max, size_t(left_)});
      piece = in.substr(0, take);
      in.remove_prefix(take);
      left_ -= take;
      if (left_ == 0) state_ = state_ == State::kLength ? State::kDone : State::kDataCr;
      return Step::kData;
    }
    char c = in.front();
    in.remove_prefix(1);
    if (!TakeFraming(c)) return Step::kRefused;
  }
}

bool BodyReader::TakeFraming(char c) {
  switch (state_) {
    case State::kSize:
      if (int digit = HexDigit(c); digit >= 0 && !blank_after_size_) {
        if (++digits_ > kMaxSizeDigits) return Refuse("A chunk size is too long."), false;
        left_ = left_ * 16 + uint64_t(digit);
      } else if (digits_ == 0) {
        return Refuse("A chunk has no size."), false;
      } else if (c == '\r' && !blank_after_size_) {
        state_ = State::kSizeLf;
      } else if (c == ';') {
        state_ = State::kExtension;
      } else if ((c == ' ' || c == '\t') && ++overhead_ <= kMaxExtension) {
        blank_after_size_ = true;  // BWS, allowed before an extension only
      } else {
        return Refuse("A chunk size is malformed."), false;
      }
      return true;
    case State::kExtension:
      if (c == '\r') state_ = State::kSizeLf;
      else if ((uint8_t(c) < 0x20 && c != '\t') || c == 0x7f) return Refuse("A chunk extension has a control character."), false;
      else if (++overhead_ > kMaxExtension) return Refuse("The chunk extensions are too long."), false;
      return true;
    case State::kSizeLf:
      if (c != '\n') return Refuse("A chunk size does not end in CR LF."), false;
      state_ = left_ == 0 ? State::kTrailer : State::kData;
      digits_ = 0;
      blank_after_size_ = false;
      if (left_ == 0) overhead_ = 0;
      return true;
    case State::kDataCr:
      if (c != '\r') return Refuse("A chunk is longer than its size says."), false;
      state_ = State::kDataLf;
      return true;
    case State::kDataLf:
      if (c != '\n') return Refuse("A chunk does not end in CR LF."), false;
      state_ = State::kSize;
      return true;
    case State::kTrailer:
      return TakeTrailer(c);
    case State::kDone:
    case State::kLength:
    case State::kData:
      break;
  }
  return true;
}

// Trailers are held to the grammar of fields, and kept.
bool BodyReader::TakeTrailer(char c) {
  if (++overhead_ > kMaxTrailers) return Refuse("The trailers are too long."), false;
  if (!line_blank_ || (c != '\r' && c != '\n')) trailers_ += c;
  if (after_cr_) {
    if (c != '\n') return Refuse("A trailer has a bare CR."), false;
    if (!line_blank_ && !line_has_colon_) return Refuse("A trailer has no colon."), false;
    if (line_blank_) state_ = State::kDone;
    after_cr_ = false;
    line_blank_ = true;
    line_has_colon_ = false;
    return true;
  }
  if (c == '\r') {
    after_cr_ = true;
    return true;
  }
  if (!line_has_colon_) {
    if (c == ':' && !line_blank_) line_has_colon_ = true;
    else if (!IsToken(std::string_view(&c, 1))) return Refuse("A trailer name is not a token followed by a colon."), false;
  } else if ((uint8_t(c) < 0x20 && c != '\t') || c == 0x7f) {
    return Refuse("A trailer value has a control character."), false;
  }
  line_blank_ = false;
  return true;
}

}  // namespace bulkhead::http1
