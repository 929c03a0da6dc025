#include "supervisor/gateway/http1.h"

#include <algorithm>
#include <cstring>

namespace bulkhead::http1 {
namespace {

constexpr size_t kMaxMethod = 32;

enum : uint8_t { kTokenChar = 1, kValueChar = 2, kPathChar = 4, kQueryChar = 8, kHostChar = 16, kHexChar = 32 };

constexpr std::array<uint8_t, 256> MakeTable() {
  std::array<uint8_t, 256> t{};
  auto add = [&t](std::string_view chars, uint8_t kind) {
    for (char c : chars) t[uint8_t(c)] |= kind;
  };
  for (int c = 0x21; c <= 0x7e; ++c) t[c] |= kValueChar;
  for (int c = 0x80; c <= 0xff; ++c) t[c] |= kValueChar;  // obs-text, RFC 9110 5.5
  add(" \t", kValueChar);
  constexpr std::string_view kAlnum = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  add(kAlnum, kTokenChar | kPathChar | kQueryChar | kHostChar);
  add("!#$%&'*+-.^_`|~", kTokenChar);
  add("-._~!$&'()*+,;=:@/%", kPathChar);
  // Behind '?' also what browsers leave as it is (WHATWG URL, query percent-encode set); none of it can end a target.
  add("-._~!$&'()*+,;=:@/%?[]{}|^`\\", kQueryChar);
  add("-._~!$&'()*+,;=:%[]", kHostChar);
  add("0123456789abcdefABCDEF", kHexChar);
  return t;
}
constexpr std::array<uint8_t, 256> kTable = MakeTable();

bool Is(char c, uint8_t kind) { return kTable[uint8_t(c)] & kind; }

bool All(std::string_view text, uint8_t kind) {
  for (char c : text) {
    if (!Is(c, kind)) return false;
  }
  return true;
}

char Lower(char c) { return c >= 'A' && c <= 'Z' ? char(c + 32) : c; }

bool EqualsIgnoringCase(std::string_view a, std::string_view lower) {
  return a.size() == lower.size() && std::equal(a.begin(), a.end(), lower.begin(), [](char x, char y) { return Lower(x) == y; });
}

std::string_view Trim(std::string_view s) {
  while (!s.empty() && (s.front() == ' ' || s.front() == '\t')) s.remove_prefix(1);
  while (!s.empty() && (s.back() == ' ' || s.back() == '\t')) s.remove_suffix(1);
  return s;
}

// Calls `fn` with each element of a comma-separated list that is not empty.
template <typename F>
void ForEachElement(std::string_view list, F fn) {
  while (!list.empty()) {
    size_t comma = list.find(',');
    std::string_view element = Trim(list.substr(0, comma));
    if (!element.empty()) fn(element);
    if (comma == std::string_view::npos) return;
    list.remove_prefix(comma + 1);
  }
}

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c = Lower(c);
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool HasPrefixIgnoringUnderscore(std::string_view name, std::string_view prefix) {
  if (name.size() < prefix.size()) return false;
  for (size_t i = 0; i < prefix.size(); ++i) {
    if ((name[i] == '_' ? '-' : name[i]) != prefix[i]) return false;
  }
  return true;
}

// nullptr when the path is one that every reader understands alike, else a sentence. Escapes must be whole and not hide a NUL; "." and
// ".." segments, written out or escaped, are refused, because whoever resolves them sees another path than the one authorised here.
const char* CheckPath(std::string_view path) {
  if (std::memchr(path.data(), '%', path.size()) == nullptr && path.find("/.") == std::string_view::npos) return nullptr;
  size_t segment_length = 0;
  bool only_dots = true;
  for (size_t i = 0; i <= path.size(); ++i) {
    if (i == path.size() || path[i] == '/') {
      if (only_dots && (segment_length == 1 || segment_length == 2)) return "The path has a '.' or '..' segment; send it resolved.";
      segment_length = 0;
      only_dots = true;
      continue;
    }
    char c = path[i];
    if (c == '%') {
      if (i + 2 >= path.size() || HexValue(path[i + 1]) < 0 || HexValue(path[i + 2]) < 0) return "The path has an invalid percent escape.";
      c = char(HexValue(path[i + 1]) * 16 + HexValue(path[i + 2]));
      if (c == '\0') return "The path has an escaped NUL.";
      i += 2;
    }
    ++segment_length;
    if (c != '.') only_dots = false;
  }
  return nullptr;
}

}  // namespace

bool IsToken(std::string_view text) { return !text.empty() && All(text, kTokenChar); }
bool IsFieldValue(std::string_view text) { return All(text, kValueChar); }

bool IsLowerToken(std::string_view text) {
  if (text.empty()) return false;
  for (char c : text) {
    if (!Is(c, kTokenChar) || (c >= 'A' && c <= 'Z')) return false;
  }
  return true;
}

bool ParseContentLength(std::string_view text, int64_t& value) {
  if (text.empty() || text.size() > 18) return false;
  value = 0;
  for (char c : text) {
    if (c < '0' || c > '9') return false;
    value = value * 10 + (c - '0');
  }
  return true;
}

bool PercentDecode(std::string_view text, std::string& out) {
  out.clear();
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out.push_back(text[i]);
      continue;
    }
    if (i + 2 >= text.size()) return false;
    int high = HexValue(text[i + 1]), low = HexValue(text[i + 2]);
    if (high < 0 || low < 0) return false;
    out.push_back(char(high * 16 + low));
    i += 2;
  }
  return true;
}

Field Classify(std::string_view name) {
  switch (name.size()) {
    case 2: if (name == "te") return Field::kHopByHop; break;
    case 4:
      if (name == "host") return Field::kHost;
      if (name == "date") return Field::kDate;
      break;
    case 6:
      if (name == "expect") return Field::kExpect;
      if (name == "server") return Field::kServer;
      break;
    case 7:
      if (name == "upgrade") return Field::kUpgrade;
      if (name == "trailer") return Field::kHopByHop;
      break;
    case 8: if (name == "if-match") return Field::kIfMatch; break;
    case 9: if (name == "forwarded") return Field::kReserved; break;
    case 10:
      if (name == "connection") return Field::kConnection;
      if (name == "keep-alive") return Field::kHopByHop;
      if (name == "tracestate") return Field::kTracestate;
      break;
    case 11: if (name == "traceparent") return Field::kTraceparent; break;
    case 12:
      if (name == "content-type") return Field::kContentType;
      if (name == "x-request-id") return Field::kRequestId;
      break;
    case 13: if (name == "authorization") return Field::kAuthorization; break;
    case 14: if (name == "content-length") return Field::kContentLength; break;
    case 15: if (name == "idempotency-key") return Field::kIdempotencyKey; break;
    case 17: if (name == "transfer-encoding") return Field::kTransferEncoding; break;
    default: break;
  }
  if (name.starts_with("proxy-")) return Field::kHopByHop;
  // WSGI and CGI read x_bulkhead_subject as x-bulkhead-subject, so both are ours.
  if (name[0] == 'x' && (HasPrefixIgnoringUnderscore(name, "x-bulkhead-") || HasPrefixIgnoringUnderscore(name, "x-forwarded-"))) {
    return Field::kReserved;
  }
  return Field::kOther;
}

bool IsNominated(const RequestHead& head, std::string_view name) {
  bool found = false;
  for (size_t i = 0; i < head.field_count && !found; ++i) {
    if (head.fields[i].field != Field::kConnection) continue;
    ForEachElement(head.fields[i].value, [&](std::string_view option) { found |= EqualsIgnoringCase(option, name); });
  }
  return found;
}

Progress HeadParser::Refuse(const char* code, const char* message) {
  refusal_ = {code, message};
  return Progress::kRefused;
}

Progress HeadParser::Parse(char* data, size_t size, RequestHead& head) {
  // First the end of the head, line by line, so that a bare LF is refused when it comes and not when the timeout does.
  for (;;) {
    const char* lf = scanned_ < size ? static_cast<const char*>(std::memchr(data + scanned_, '\n', size - scanned_)) : nullptr;
    size_t line_end = lf ? size_t(lf - data) : size;
    if (!has_request_line_ && line_end - begin_ > limits::kMaxTarget + kMaxMethod + sizeof(" HTTP/1.1\r\n")) {
      return Refuse("URI_TOO_LONG", "The request line is longer than 8 KiB.");
    }
    if (line_end - begin_ > limits::kMaxHead) return Refuse("HEADERS_TOO_LARGE", "The request line and headers are longer than 64 KiB.");
    if (!lf) {
      scanned_ = uint32_t(size);
      return Progress::kNeedMore;
    }
    if (line_end == line_start_ || data[line_end - 1] != '\r') {
      return Refuse("BAD_REQUEST", "A line of the request head ends in a bare LF; lines end in CR LF.");
    }
    bool blank = line_end - 1 == line_start_;
    line_start_ = scanned_ = uint32_t(line_end + 1);
    if (!blank) {
      has_request_line_ = true;
    } else if (has_request_line_) {
      break;
    } else if (begin_ == 0) {
      begin_ = line_start_;  // one empty line before the request line is ignored, RFC 9112 2.2
    } else {
      return Refuse("BAD_REQUEST", "The request begins with empty lines.");
    }
  }
  end_ = line_start_;

  head.field_count = 0;
  head.method = head.path = head.query = head.host = head.authorization = head.content_type = head.if_match = head.idempotency_key =
      head.request_id = head.traceparent = {};
  head.websocket = head.nominates = head.has_query = head.chunked = head.expect_continue = head.expect_unknown = false;
  head.content_length = -1;
  const char* stop = data + end_ - 2;
  char* line = data + begin_;
  bool first = true;
  while (line < stop) {
    char* lf = static_cast<char*>(std::memchr(line, '\n', size_t(stop - line)));
    size_t length = size_t(lf - line) - 1;
    if (first ? !ParseRequestLine({line, length}, head) : !ParseField(line, length, head)) return Progress::kRefused;
    first = false;
    line = lf + 1;
  }
  return CheckFraming(head) ? Progress::kComplete : Progress::kRefused;
}

// request-line = method SP request-target SP HTTP-version, RFC 9112 3
bool HeadParser::ParseRequestLine(std::string_view line, RequestHead& head) {
  auto bad = [this](const char* message) { return Refuse("BAD_REQUEST", message), false; };
  size_t space = line.find(' ');
  if (space == std::string_view::npos) return bad("The request line is not 'method target version'.");
  head.method = line.substr(0, space);
  if (!IsToken(head.method) || head.method.size() > kMaxMethod) return bad("The method is not a token.");
  line.remove_prefix(space + 1);
  space = line.find(' ');
  if (space == std::string_view::npos || space == 0) return bad("The request line is not 'method target version'.");
  std::string_view target = line.substr(0, space), version = line.substr(space + 1);
  if (target.size() > limits::kMaxTarget) return Refuse("URI_TOO_LONG", "The request target is longer than 8 KiB."), false;
  if (version.size() != 8 || !version.starts_with("HTTP/") || version[6] != '.' || version[5] < '0' || version[5] > '9' ||
      version[7] < '0' || version[7] > '9') {
    return bad("The HTTP version is malformed.");
  }
  if (version[5] != '1') return Refuse("HTTP_VERSION_NOT_SUPPORTED", "This server speaks HTTP/1.1 and HTTP/1.0."), false;
  head.minor_version = version[7] == '0' ? 0 : 1;  // a higher minor version is answered as 1.1, RFC 9110 2.5
  return ParseTarget(target, head);
}

bool HeadParser::ParseTarget(std::string_view target, RequestHead& head) {
  auto bad = [this](const char* message) { return Refuse("BAD_REQUEST", message), false; };
  if (head.method == "CONNECT") return Refuse("NOT_IMPLEMENTED", "CONNECT is not offered here."), false;
  if (target == "*") {
    if (head.method != "OPTIONS") return bad("The target '*' is for OPTIONS only.");
    head.path = target;
    return true;
  }
  if (target[0] != '/') {  // absolute-form, RFC 9112 3.2.2
    size_t scheme = EqualsIgnoringCase(target.substr(0, 7), "http://") ? 7 : EqualsIgnoringCase(target.substr(0, 8), "https://") ? 8 : 0;
    if (scheme == 0) return bad("The request target is neither a path nor an http URL.");
    target.remove_prefix(scheme);
    size_t slash = target.find_first_of("/?");
    head.host = target.substr(0, slash);
    if (head.host.empty() || !All(head.host, kHostChar)) return bad("The request target has no valid host.");
    target = slash == std::string_view::npos ? std::string_view() : target.substr(slash);
    if (target.empty()) target = "/";
    if (target[0] == '?') return bad("The request target has a query without a path.");
  }
  size_t question = target.find('?');
  head.path = target.substr(0, question);
  if (question != std::string_view::npos) {
    head.has_query = true;
    head.query = target.substr(question + 1);
  }
  if (!All(head.path, kPathChar) || !All(head.query, kQueryChar)) return bad("The request target has a character that must be percent-encoded.");
  if (const char* problem = CheckPath(head.path)) return bad(problem);
  return true;
}

// field-line = field-name ":" OWS field-value OWS, RFC 9112 5
bool HeadParser::ParseField(char* line, size_t size, RequestHead& head) {
  auto bad = [this](const char* message) { return Refuse("BAD_REQUEST", message), false; };
  if (line[0] == ' ' || line[0] == '\t') return bad("A header is folded over lines; that is obsolete and refused.");
  size_t colon = 0;
  while (colon < size && Is(line[colon], kTokenChar)) {
    line[colon] = Lower(line[colon]);
    ++colon;
  }
  if (colon == size || line[colon] != ':') return bad("A header name is not a token followed by a colon.");
  if (colon == 0) return bad("A header has no name.");
  HeaderField field;
  field.name = {line, colon};
  field.value = Trim({line + colon + 1, size - colon - 1});
  if (!IsFieldValue(field.value)) return bad("A header value has a control character.");
  if (head.field_count == limits::kMaxHeaders) return Refuse("HEADERS_TOO_LARGE", "The request has more than 100 headers."), false;
  field.field = Classify(field.name);
  head.fields[head.field_count++] = field;
  return field.field == Field::kOther || TakeField(field, head);
}

bool HeadParser::TakeField(const HeaderField& field, RequestHead& head) {
  auto bad = [this](const char* message) { return Refuse("BAD_REQUEST", message), false; };
  switch (field.field) {
    case Field::kHost:
      if (saw_host_) return bad("The request has more than one Host.");
      if (!All(field.value, kHostChar)) return bad("The Host header is malformed.");
      saw_host_ = true;
      if (head.host.empty()) head.host = field.value;  // absolute-form wins, RFC 9112 3.2.2
      return true;
    case Field::kContentLength:
      if (head.content_length >= 0) return bad("The request has more than one Content-Length.");
      return ParseContentLength(field.value, head.content_length) || bad("The Content-Length is not a number.");
    case Field::kTransferEncoding:
      if (saw_transfer_encoding_) return bad("The request has more than one Transfer-Encoding.");
      saw_transfer_encoding_ = true;
      if (EqualsIgnoringCase(field.value, "chunked")) {
        head.chunked = true;
        return true;
      } else {
        // chunked must be the last coding and must not be applied twice, RFC 9112 6.1; other codings are not offered.
        int codings = 0, chunked = 0;
        bool chunked_last = false;
        ForEachElement(field.value, [&](std::string_view coding) {
          ++codings;
          chunked_last = EqualsIgnoringCase(coding, "chunked");
          chunked += chunked_last;
        });
        if (codings == 0 || chunked > 1 || (chunked == 1 && (!chunked_last || codings == 1))) return bad("The Transfer-Encoding is malformed.");
        return Refuse("NOT_IMPLEMENTED", "The only transfer coding offered is chunked."), false;
      }
    case Field::kConnection:
      ForEachElement(field.value, [&](std::string_view option) {
        if (EqualsIgnoringCase(option, "close")) saw_close_ = true;
        else if (EqualsIgnoringCase(option, "keep-alive")) saw_keep_alive_ = true;
        else if (EqualsIgnoringCase(option, "upgrade")) saw_upgrade_ = true;
        else head.nominates = true;
      });
      return true;
    case Field::kUpgrade:
      // Only this protocol: a tunnel of h2c would carry requests past every check made here.
      head.websocket = EqualsIgnoringCase(field.value, "websocket");
      return true;
    case Field::kExpect:
      if (EqualsIgnoringCase(field.value, "100-continue")) head.expect_continue = true;
      else head.expect_unknown = true;
      return true;
    case Field::kAuthorization:
      if (head.authorization.data() != nullptr) return bad("The request has more than one Authorization.");
      head.authorization = field.value;
      return true;
    case Field::kRequestId: head.request_id = field.value; return true;
    case Field::kTraceparent: head.traceparent = head.traceparent.data() == nullptr ? field.value : std::string_view("repeated"); return true;
    case Field::kContentType: head.content_type = field.value; return true;
    case Field::kIfMatch: head.if_match = field.value; return true;
    case Field::kIdempotencyKey: head.idempotency_key = field.value; return true;
    case Field::kOther:
    case Field::kHopByHop:
    case Field::kReserved:
    case Field::kTracestate:
    case Field::kDate:
    case Field::kServer:
      return true;
  }
  return true;
}

// What no field shows alone: RFC 9112 3.2 (Host), 6.1 and 6.3 (length of the body), 9.3 (persistence).
bool HeadParser::CheckFraming(RequestHead& head) {
  auto bad = [this](const char* message) { return Refuse("BAD_REQUEST", message), false; };
  if (!saw_host_ && head.minor_version >= 1) return bad("The request has no Host.");
  if (head.chunked && head.content_length >= 0) return bad("The request has both Transfer-Encoding and Content-Length.");
  if (head.chunked && head.minor_version == 0) return bad("HTTP/1.0 has no Transfer-Encoding.");
  head.keep_alive = !saw_close_ && (head.minor_version >= 1 || saw_keep_alive_);
  if (head.minor_version == 0) head.expect_continue = head.expect_unknown = false;  // RFC 9110 10.1.1
  // An Upgrade that is not a WebSocket's, or comes with a body, is ignored, as RFC 9110 7.8 allows.
  head.websocket &= saw_upgrade_ && head.method == "GET" && head.minor_version >= 1 && !head.chunked && head.content_length <= 0;
  return true;
}

}  // namespace bulkhead::http1
