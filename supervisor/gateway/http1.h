// HTTP/1.1 as a server reads it: request heads and body framing of RFC 9110 and RFC 9112, incremental and strict. Pure: bytes in,
// values out, no I/O, no allocation. Belongs to the gateway thread that calls it.
//
// Written by hand on purpose. A library parser that forgives (obs-fold, "Content-Length: 3, 3", two Hosts) with a filter behind
// it is two grammars, and requests are smuggled through the difference. Here there is one, and what it does not accept it refuses.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "supervisor/base/limits.h"

namespace bulkhead::http1 {

// What a field means to a gateway; everything else passes through.
enum class Field : uint8_t {
  kOther,
  kHost,
  kContentLength,
  kTransferEncoding,
  kConnection,
  kHopByHop,  // keep-alive, proxy-*, te, trailer
  kUpgrade,
  kExpect,
  kAuthorization,
  kReserved,  // x-bulkhead-*, x-forwarded-*, forwarded: only the gateway may say these
  kRequestId,
  kTraceparent,
  kTracestate,
  kContentType,
  kIfMatch,
  kIdempotencyKey,
  kDate,
  kServer,
};
// `name` in lower case.
Field Classify(std::string_view name);

bool IsToken(std::string_view text);        // RFC 9110 5.6.2, not empty
bool IsFieldValue(std::string_view text);   // RFC 9110 5.5: no control character but HTAB
bool IsLowerToken(std::string_view text);   // a token without upper-case letters
// 1*DIGIT that fits 18 digits, nothing else; false otherwise.
bool ParseContentLength(std::string_view text, int64_t& value);
// Decodes %XX once; false for an invalid escape.
bool PercentDecode(std::string_view text, std::string& out);

struct HeaderField {
  std::string_view name;   // lower-cased in place
  std::string_view value;  // without surrounding blanks
  Field field = Field::kOther;
};

// The views point into the bytes that were parsed.
struct RequestHead {
  std::string_view method;
  std::string_view path;   // raw; "*" for OPTIONS *
  std::string_view query;  // raw, without '?'
  bool has_query = false;
  std::string_view host;
  int minor_version = 1;  // HTTP/1.0 or 1.1
  int64_t content_length = -1;
  bool chunked = false;
  bool expect_continue = false;
  bool expect_unknown = false;
  bool keep_alive = true;
  std::string_view authorization, content_type, if_match, idempotency_key, request_id, traceparent;
  bool nominates = false;  // a Connection header names other fields than close, keep-alive and upgrade
  bool websocket = false;  // asks to go on as a WebSocket (RFC 6455 4.2.1): GET, no body, Connection and Upgrade say so
  std::array<HeaderField, limits::kMaxHeaders> fields;
  size_t field_count = 0;
};

// Whether one of the Connection headers names this field, so that it ends here (RFC 9110 7.6.1).
bool IsNominated(const RequestHead& head, std::string_view name);

// Why a request was refused. `code` is a stable code of base/status.cc; both are static strings.
struct Refusal {
  const char* code = nullptr;
  const char* message = nullptr;
};

enum class Progress { kNeedMore, kComplete, kRefused };

// Finds the end of a head that arrives in pieces, then parses it at once.
class HeadParser {
 public:
  // `data` is everything received since the head began; the same bytes come again, longer, after kNeedMore. Field names are lower-cased
  // in place when the head is complete. After kComplete consumed() bytes are the head; after kRefused the connection is lost.
  Progress Parse(char* data, size_t size, RequestHead& head);
  size_t consumed() const { return end_; }
  const Refusal& refusal() const { return refusal_; }
  void Reset() { *this = HeadParser(); }

 private:
  Progress Refuse(const char* code, const char* message);
  bool ParseRequestLine(std::string_view line, RequestHead& head);
  bool ParseTarget(std::string_view target, RequestHead& head);
  bool ParseField(char* line, size_t size, RequestHead& head);
  bool TakeField(const HeaderField& field, RequestHead& head);
  bool CheckFraming(RequestHead& head);

  uint32_t line_start_ = 0;  // of the line that is not complete yet
  uint32_t scanned_ = 0;     // bytes looked at for a line's end
  uint32_t begin_ = 0;       // behind empty lines before the request line
  uint32_t end_ = 0;
  bool has_request_line_ = false;
  bool saw_transfer_encoding_ = false, saw_host_ = false, saw_close_ = false, saw_keep_alive_ = false, saw_upgrade_ = false;
  Refusal refusal_;
};

// The body behind a head: nothing, so many bytes, or chunks.
class BodyReader {
 public:
  void Begin(const RequestHead& head);
  bool done() const { return state_ == State::kDone; }
  // Bytes still to come; -1 for chunks.
  int64_t remaining() const;

  enum class Step { kNeedMore, kData, kDone, kRefused };
  // Takes from the front of `in`; kData gives at most `max` (> 0) bytes in `piece`, a view into `in`. Call again until kNeedMore or kDone.
  Step Next(std::string_view& in, size_t max, std::string_view& piece);
  const char* refusal() const { return refusal_; }  // a sentence, after kRefused
  // The trailer section as it came, checked, each line with its CR LF; complete after kDone.
  const std::string& trailers() const { return trailers_; }

 private:
  enum class State : uint8_t { kDone, kLength, kSize, kExtension, kSizeLf, kData, kDataCr, kDataLf, kTrailer };
  Step Refuse(const char* message);
  // Takes one byte of the chunked framing; false after a refusal.
  bool TakeFraming(char c);
  bool TakeTrailer(char c);

  State state_ = State::kDone;
  bool chunked_ = false;
  uint8_t digits_ = 0;           // of the chunk size
  bool line_blank_ = true;       // trailer line without a character so far
  bool line_has_colon_ = false;
  bool after_cr_ = false;
  bool blank_after_size_ = false;
  uint32_t overhead_ = 0;        // bytes of extension or trailers
  uint64_t left_ = 0;
  std::string trailers_;
  const char* refusal_ = nullptr;
};

}  // namespace bulkhead::http1
