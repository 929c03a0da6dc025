// The frames of the data link, as proto/LINK.md describes them: encoding and decoding, no I/O, no allocation
// but the caller's buffer. Both ends use it, so it knows neither the supervisor nor the SDK. Thread-compatible.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

namespace bulkhead::link {

inline constexpr uint16_t kVersion = 1;
inline constexpr size_t kHeaderSize = 16;
inline constexpr uint32_t kMaxFrame = 64 * 1024;    // bytes after the header, the most that either side accepts
inline constexpr uint32_t kMinMaxFrame = 1024;       // a HELLO that names a smaller maximum breaks the rules
inline constexpr uint32_t kMaxHead = 64 * 1024;
inline constexpr uint32_t kWindow = 256 * 1024;     // initial credit of a stream, each way

enum class Type : uint8_t { kHello = 1, kRequest, kResponse, kData, kWindow, kCancel, kGoaway, kPing };

enum Flags : uint8_t {
  kEnd = 1,       // last frame of this direction; on PING: it is the answer
  kTrailers = 2,  // DATA: the head holds trailers; comes with kEnd
  kUpgrade = 4,   // REQUEST, RESPONSE: the stream becomes a byte tunnel after a 101
};

enum class CancelCode : uint16_t {
  kClientGone = 1,   // nobody waits for the answer any more
  kTimeout = 2,      // the route's deadline has passed
  kProtocol = 3,     // the peer broke a rule on this stream
  kInternal = 4,     // the handler failed after the response had begun
  kRefused = 5,      // nothing of the request was processed: safe to send again
};

struct Header {
  uint32_t length = 0;  // payload bytes after the header: head and body together
  uint32_t stream = 0;  // 0: the connection itself
  Type type = Type::kHello;
  uint8_t flags = 0;
  uint16_t status = 0;  // RESPONSE: HTTP status; CANCEL: CancelCode
  uint32_t head_length = 0;  // how much of the payload is head
};

namespace internal {
inline void Put16(char* p, uint16_t v) { p[0] = char(v); p[1] = char(v >> 8); }
inline void Put32(char* p, uint32_t v) { Put16(p, uint16_t(v)); Put16(p + 2, uint16_t(v >> 16)); }
inline uint16_t Get16(const char* p) { return uint16_t(uint8_t(p[0]) | uint8_t(p[1]) << 8); }
inline uint32_t Get32(const char* p) { return uint32_t(Get16(p)) | uint32_t(Get16(p + 2)) << 16; }
}  // namespace internal

inline void PutHeader(char* out, const Header& h) {
  internal::Put32(out, h.length);
  internal::Put32(out + 4, h.stream);
  out[8] = char(h.type);
  out[9] = char(h.flags);
  internal::Put16(out + 10, h.status);
  internal::Put32(out + 12, h.head_length);
}

// Reads a header from at least kHeaderSize bytes. The caller checks it with CheckHeader.
inline Header GetHeader(const char* in) {
  Header h;
  h.length = internal::Get32(in);
  h.stream = internal::Get32(in + 4);
  h.type = Type(uint8_t(in[8]));
  h.flags = uint8_t(in[9]);
  h.status = internal::Get16(in + 10);
  h.head_length = internal::Get32(in + 12);
  return h;
}

// nullptr when the header keeps the rules that need no state; else a sentence. A broken header ends the connection.
inline const char* CheckHeader(const Header& h, uint32_t max_frame = kMaxFrame) {
  if (h.length > max_frame) return "frame longer than the agreed maximum";
  if (h.head_length > h.length) return "head longer than its frame";
  if (h.flags & ~(kEnd | kTrailers | kUpgrade)) return "unknown flag";
  switch (h.type) {
    case Type::kHello:
    case Type::kPing:
      return h.stream == 0 ? nullptr : "connection frame on a stream";
    case Type::kGoaway:
      return nullptr;  // stream = the last one that will be answered
    case Type::kRequest:
    case Type::kResponse:
      return h.stream != 0 ? nullptr : "stream frame without a stream";
    case Type::kData:
      if (h.stream == 0) return "stream frame without a stream";
      if (h.flags & kTrailers) return (h.flags & kEnd) && h.head_length == h.length ? nullptr : "trailers that do not end the stream";
      return h.head_length == 0 ? nullptr : "data with a head";
    case Type::kWindow:
      return h.stream != 0 && h.length == 4 ? nullptr : "malformed window";
    case Type::kCancel:
      return h.stream != 0 && h.length == 0 ? nullptr : "malformed cancel";
  }
  return "unknown frame type";
}

// Appends length-prefixed values to a head. Values beyond 65,535 bytes make ok() false; nothing is cut silently.
class HeadWriter {
 public:
  explicit HeadWriter(std::string& out) : out_(out) {}
  void Str(std::string_view s) {
    if (s.size() > 0xffff) { ok_ = false; s = {}; }
    U16(uint16_t(s.size()));
    out_.append(s);
  }
  void U16(uint16_t v) { char b[2]; internal::Put16(b, v); out_.append(b, 2); }
  void U32(uint32_t v) { char b[4]; internal::Put32(b, v); out_.append(b, 4); }
  void Pair(std::string_view name, std::string_view value) { Str(name); Str(value); }
  bool ok() const { return ok_; }

 private:
  std::string& out_;
  bool ok_ = true;
};

// Reads what HeadWriter wrote; every getter answers false past the end and stays there.
class HeadReader {
 public:
  explicit HeadReader(std::string_view in) : in_(in) {}
  bool U16(uint16_t& v) {
    if (in_.size() < 2) return Fail();
    v = internal::Get16(in_.data());
    in_.remove_prefix(2);
    return true;
  }
  bool U32(uint32_t& v) {
    if (in_.size() < 4) return Fail();
    v = internal::Get32(in_.data());
    in_.remove_prefix(4);
    return true;
  }
  bool Str(std::string_view& s) {
    uint16_t n;
    if (!U16(n) || in_.size() < n) return Fail();
    s = in_.substr(0, n);
    in_.remove_prefix(n);
    return true;
  }
  bool AtEnd() const { return ok_ && in_.empty(); }
  std::string_view rest() const { return in_; }

 private:
  bool Fail() { ok_ = false; in_ = {}; return false; }
  std::string_view in_;
  bool ok_ = true;
};

// Calls `fn(name, value)` with each of the pairs, in order. False when they do not parse; then `fn` may have seen the first of them.
template <typename F>
bool ForEachPair(std::string_view pairs, F fn) {
  HeadReader reader(pairs);
  std::string_view name, value;
  uint16_t count = 0;
  if (!reader.U16(count)) return false;
  for (uint16_t i = 0; i < count; ++i) {
    if (!reader.Str(name) || !reader.Str(value)) return false;
    fn(name, value);
  }
  return reader.AtEnd();
}

// HELLO's payload: u16 version, u16 reserved 0, u32 max frame, u32 window, str token.
struct Hello {
  uint16_t version = kVersion;
  uint32_t max_frame = kMaxFrame;  // the longest payload the sender accepts
  uint32_t window = kWindow;       // body bytes the sender accepts on a new stream before a WINDOW
  std::string_view token;          // the instance's token from the gateway; empty from the module
};
inline void AppendHello(std::string& out, const Hello& h) {
  std::string p;
  HeadWriter w(p);
  w.U16(h.version); w.U16(0); w.U32(h.max_frame); w.U32(h.window); w.Str(h.token);
  char b[kHeaderSize];
  PutHeader(b, {uint32_t(p.size()), 0, Type::kHello, 0, 0, uint32_t(p.size())});
  out.append(b, kHeaderSize);
  out.append(p);
}
inline std::optional<Hello> GetHello(std::string_view payload) {
  Hello h;
  uint16_t reserved;
  HeadReader r(payload);
  if (!r.U16(h.version) || !r.U16(reserved) || !r.U32(h.max_frame) || !r.U32(h.window) || !r.Str(h.token) || !r.AtEnd()) return {};
  return h;
}
inline void AppendWindow(std::string& out, uint32_t stream, uint32_t increment) {
  char b[kHeaderSize + 4];
  PutHeader(b, {4, stream, Type::kWindow, 0, 0, 0});
  internal::Put32(b + kHeaderSize, increment);
  out.append(b, sizeof b);
}
inline void AppendCancel(std::string& out, uint32_t stream, CancelCode code) {
  char b[kHeaderSize];
  PutHeader(b, {0, stream, Type::kCancel, 0, uint16_t(code), 0});
  out.append(b, kHeaderSize);
}

}  // namespace bulkhead::link
