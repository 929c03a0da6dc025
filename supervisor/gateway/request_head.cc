#include "supervisor/gateway/request_head.h"

#include <algorithm>

#include "bulkhead/link/frame.h"

namespace bulkhead {
namespace {

using http1::Field;

std::string Join(const std::vector<std::string>& values) {
  std::string joined;
  for (const std::string& value : values) {
    if (!joined.empty()) joined += ',';
    joined += value;
  }
  return joined;
}

}  // namespace

bool ValidRequestId(std::string_view id) {
  if (id.empty() || id.size() > 128) return false;
  for (char c : id) {
    bool ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
    if (!ok) return false;
  }
  return true;
}

IdentityPairs EncodeIdentity(const Identity& identity) {
  IdentityPairs pairs;
  link::HeadWriter writer(pairs.encoded);
  writer.Pair("x-bulkhead-subject", identity.subject);
  writer.Pair("x-bulkhead-roles", Join(identity.roles));
  writer.Pair("x-bulkhead-permissions", Join(identity.permissions));
  pairs.count = 3;
  return pairs;
}

bool EncodeRequest(const http1::RequestHead& head, const RequestContext& context, std::string_view first_body, bool end, std::string& frame) {
  frame.assign(link::kHeaderSize, '\0');
  link::HeadWriter writer(frame);
  writer.Str(context.method);
  writer.U16(uint16_t(context.path.size() + (head.has_query ? 1 + head.query.size() : 0)));
  frame.append(context.path);
  if (head.has_query) frame.append(1, '?').append(head.query);

  size_t count_at = frame.size();
  writer.U16(0);
  uint16_t count = 0;
  auto pair = [&](std::string_view name, std::string_view value) {
    writer.Pair(name, value);
    ++count;
  };
  for (size_t i = 0; i < head.field_count; ++i) {
    const http1::HeaderField& field = head.fields[i];
    switch (field.field) {
      case Field::kOther:
      case Field::kContentType:
      case Field::kIfMatch:
      case Field::kDate:
      case Field::kServer:
        break;
      case Field::kHost:  // the one Host that counts is written below
      case Field::kContentLength:
      case Field::kTransferEncoding:
      case Field::kConnection:
      case Field::kHopByHop:
      case Field::kUpgrade:
      case Field::kExpect:
      case Field::kAuthorization:
      case Field::kReserved:
      case Field::kRequestId:
      case Field::kTraceparent:
      case Field::kTracestate:
        continue;
    }
    if (head.nominates && http1::IsNominated(head, field.name)) continue;
    pair(field.name, field.value);
  }
  if (head.content_length >= 0) pair("content-length", std::to_string(head.content_length));
  pair("host", head.host);
  pair("x-request-id", context.request_id);
  writer.Str("traceparent");
  writer.U16(uint16_t(kTraceparentSize));
  AppendTraceparent(frame, context.trace);
  ++count;
  if (!context.tracestate.empty()) pair("tracestate", context.tracestate);
  if (!context.peer_address.empty()) pair("x-forwarded-for", context.peer_address);
  pair("x-forwarded-host", head.host);
  pair("x-forwarded-proto", "http");
  if (context.websocket) pair("x-bulkhead-upgrade", "websocket");
  if (context.identity) {
    frame.append(context.identity->encoded);
    count += context.identity->count;
  }
  if (context.hops > 0) pair(kHopsHeader, std::to_string(context.hops));
  if (context.timeout) pair(kTimeoutHeader, std::to_string(context.timeout->count()));  // the last one: LowerTimeout() looks for it there
  link::internal::Put16(frame.data() + count_at, count);

  size_t head_length = frame.size() - link::kHeaderSize;
  frame.append(first_body);
  size_t length = frame.size() - link::kHeaderSize;
  if (!writer.ok() || head_length > link::kMaxHead || length > link::kMaxFrame) return false;
  uint8_t flags = uint8_t((end ? link::kEnd : 0) | (context.websocket ? link::kUpgrade : 0));
  link::PutHeader(frame.data(), {uint32_t(length), 0, link::Type::kRequest, flags, 0, uint32_t(head_length)});
  return true;
}

void LowerTimeout(std::string& frame, Millis left) {
  link::Header header = link::GetHeader(frame.data());
  const size_t end = link::kHeaderSize + header.head_length, longest = kTimeoutHeader.size() + 2 + 20;
  const size_t name = std::string_view(frame).substr(0, end).rfind(kTimeoutHeader);
  if (name == std::string_view::npos || end - name > longest) return;
  const size_t value = name + kTimeoutHeader.size() + 2;
  int64_t told = 0;
  if (!http1::ParseContentLength(std::string_view(frame).substr(value, end - value), told) || told <= left.count()) return;
  const std::string text = std::to_string(std::max<int64_t>(left.count(), 1));
  link::internal::Put16(frame.data() + value - 2, uint16_t(text.size()));
  frame.replace(value, end - value, text);
  const uint32_t shorter = uint32_t(end - value - text.size());
  header.length -= shorter;
  header.head_length -= shorter;
  link::PutHeader(frame.data(), header);
}

std::string EncodeTrailers(std::string_view lines) {
  std::string pairs(2, '\0');
  link::HeadWriter writer(pairs);
  uint16_t count = 0;
  while (!lines.empty()) {
    size_t end = lines.find("\r\n"), colon = lines.find(':');
    std::string name(lines.substr(0, colon));
    for (char& c : name) c = c >= 'A' && c <= 'Z' ? char(c + 32) : c;
    std::string_view value = lines.substr(colon + 1, end - colon - 1);
    value.remove_prefix(std::min(value.find_first_not_of(" \t"), value.size()));
    value = value.substr(0, value.find_last_not_of(" \t") + 1);
    lines.remove_prefix(end + 2);
    if (http1::Classify(name) != Field::kOther || name.starts_with("content-")) continue;
    writer.Pair(name, value);
    ++count;
  }
  link::internal::Put16(pairs.data(), count);
  return count == 0 ? std::string() : pairs;
}

std::string_view ReasonPhrase(int status) {
  switch (status) {
    case 101: return "Switching Protocols";
    case 200: return "OK";
    case 201: return "Created";
    case 202: return "Accepted";
    case 203: return "Non-Authoritative Information";
    case 204: return "No Content";
    case 205: return "Reset Content";
    case 206: return "Partial Content";
    case 300: return "Multiple Choices";
    case 301: return "Moved Permanently";
    case 302: return "Found";
    case 303: return "See Other";
    case 304: return "Not Modified";
    case 307: return "Temporary Redirect";
    case 308: return "Permanent Redirect";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 402: return "Payment Required";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 406: return "Not Acceptable";
    case 408: return "Request Timeout";
    case 409: return "Conflict";
    case 410: return "Gone";
    case 411: return "Length Required";
    case 412: return "Precondition Failed";
    case 413: return "Content Too Large";
    case 414: return "URI Too Long";
    case 415: return "Unsupported Media Type";
    case 416: return "Range Not Satisfiable";
    case 417: return "Expectation Failed";
    case 421: return "Misdirected Request";
    case 422: return "Unprocessable Content";
    case 426: return "Upgrade Required";
    case 428: return "Precondition Required";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 502: return "Bad Gateway";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    case 505: return "HTTP Version Not Supported";
    case 507: return "Insufficient Storage";
    case 508: return "Loop Detected";
    default: return "";
  }
}

void AppendStatusLine(std::string& out, int status) {
  if (status == 200) {
    out += "HTTP/1.1 200 OK\r\n";
    return;
  }
  char code[4] = {char('0' + status / 100), char('0' + status / 10 % 10), char('0' + status % 10), ' '};
  out.append("HTTP/1.1 ").append(code, 4).append(ReasonPhrase(status)).append("\r\n");
}

FieldsResult AppendResponseFields(std::string_view pairs, std::string& out, ResponseFields& fields) {
  link::HeadReader reader(pairs);
  uint16_t count;
  if (!reader.U16(count)) return FieldsResult::kMalformed;
  bool bad = false;
  for (uint16_t i = 0; i < count; ++i) {
    std::string_view name, value;
    if (!reader.Str(name) || !reader.Str(value)) return FieldsResult::kMalformed;
    if (bad) continue;
    if (!http1::IsLowerToken(name) || !http1::IsFieldValue(value)) {
      bad = true;
      continue;
    }
    switch (http1::Classify(name)) {
      case Field::kConnection:
      case Field::kHopByHop:
      case Field::kUpgrade:
      case Field::kTransferEncoding:
      case Field::kRequestId:  // ours
      case Field::kDate:
      case Field::kServer:
        continue;
      case Field::kContentLength:
        if (fields.content_length >= 0 || !http1::ParseContentLength(value, fields.content_length)) bad = true;
        continue;
      default:
        out.append(name).append(": ").append(value).append("\r\n");
    }
  }
  if (!reader.AtEnd()) return FieldsResult::kMalformed;
  return bad ? FieldsResult::kBadField : FieldsResult::kOk;
}

}  // namespace bulkhead
