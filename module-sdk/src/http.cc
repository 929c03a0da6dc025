// Requests as handlers see them, and the response shapes of the interface.
#include "bulkhead/http.h"

#include <cxxabi.h>

#include <algorithm>
#include <cctype>
#include <charconv>

#include "bulkhead/link/frame.h"
#include "json_text.h"

namespace bulkhead::sdk {
namespace {

constexpr size_t kMaxQueryParameters = 256;
constexpr size_t kReadChunk = 16 * 1024;

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool SameName(std::string_view a, std::string_view b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(),
                                            [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

std::vector<std::string> SplitList(std::string_view text) {
  std::vector<std::string> out;
  while (!text.empty()) {
    size_t comma = text.find(',');
    std::string_view item = text.substr(0, comma);
    while (!item.empty() && item.front() == ' ') item.remove_prefix(1);
    while (!item.empty() && item.back() == ' ') item.remove_suffix(1);
    if (!item.empty()) out.emplace_back(item);
    if (comma == std::string_view::npos) break;
    text.remove_prefix(comma + 1);
  }
  return out;
}

int64_t ParseInteger(std::string_view what, std::string_view name, std::string_view text, int64_t min, int64_t max) {
  int64_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < min || value > max) {
    std::string limits = min == INT64_MIN && max == INT64_MAX ? ""
                         : max == INT64_MAX                   ? ", at least " + std::to_string(min)
                         : min == INT64_MIN                   ? ", at most " + std::to_string(max)
                                                              : " from " + std::to_string(min) + " to " + std::to_string(max);
    std::string message = std::string(what) + " " + std::string(name) + " must be a whole number" + limits;
    throw HttpError(400, "INVALID_ARGUMENT", message, Json::array({{{"path", name}, {"message", message}}}));
  }
  return value;
}

Response JsonBody(int status, std::string body) {
  Response response;
  response.status = status;
  response.headers.emplace_back("content-type", "application/json; charset=utf-8");
  response.body = std::move(body);
  return response;
}

Response Envelope(int status, const Json& data, const Json& meta) {
  // Put together as text: the data is printed once and not copied into another document first.
  std::string body = R"({"success":true,"data":)" + Dump(data);
  if (!meta.is_null()) body += R"(,"meta":)" + Dump(meta);
  body += "}";
  return JsonBody(status, std::move(body));
}

}  // namespace

std::optional<std::string> PercentDecode(std::string_view text, bool plus_is_space) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%') {
      if (i + 2 >= text.size()) return std::nullopt;
      int high = HexDigit(text[i + 1]), low = HexDigit(text[i + 2]);
      if (high < 0 || low < 0 || (high | low) == 0) return std::nullopt;
      out.push_back(char(high << 4 | low));
      i += 2;
    } else if (text[i] == '+' && plus_is_space) {
      out.push_back(' ');
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

bool Identity::Allows(std::string_view permission) const {
  for (const std::string& held : permissions) {
    if (held == "*" || held == permission) return true;
    if (held.size() > 2 && held.ends_with(":*") && permission.starts_with(std::string_view(held).substr(0, held.size() - 1)))
      return true;
  }
  return false;
}

Request::Request(std::string method, std::string target, Headers headers, std::string body)
    : method_(std::move(method)), target_(std::move(target)), body_(std::move(body)), headers_(std::move(headers)) {
  std::string_view whole = target_;
  size_t mark = whole.find('?');
  auto path = PercentDecode(whole.substr(0, mark), false);
  if (!path) throw HttpError(400, "BAD_REQUEST", "the path holds a malformed percent escape");
  path_ = *std::move(path);
  std::string_view query = mark == std::string_view::npos ? std::string_view() : whole.substr(mark + 1);
  while (!query.empty()) {
    size_t amp = query.find('&');
    std::string_view pair = query.substr(0, amp);
    if (!pair.empty()) {
      size_t equals = pair.find('=');
      auto name = PercentDecode(pair.substr(0, equals), true);
      auto value = equals == std::string_view::npos ? std::string() : PercentDecode(pair.substr(equals + 1), true);
      if (!name || !value) throw HttpError(400, "BAD_REQUEST", "the query holds a malformed percent escape");
      if (query_.size() == kMaxQueryParameters) throw HttpError(400, "BAD_REQUEST", "more than 256 query parameters");
      query_.emplace_back(*std::move(name), *std::move(value));
    }
    if (amp == std::string_view::npos) break;
    query.remove_prefix(amp + 1);
  }
}

const Headers& Request::headers() const {
  if (headers_.empty())
    link::ForEachPair(encoded_, [this](std::string_view name, std::string_view value) { headers_.emplace_back(name, value); });
  return headers_;
}

const Identity& Request::identity() const {
  if (!identity_) {
    identity_.emplace();
    identity_->subject = header("x-bulkhead-subject").value_or(std::string_view());
    identity_->roles = SplitList(header("x-bulkhead-roles").value_or(std::string_view()));
    identity_->permissions = SplitList(header("x-bulkhead-permissions").value_or(std::string_view()));
  }
  return *identity_;
}

std::string_view Request::param(std::string_view name) const {
  for (const auto& [key, value] : params_)
    if (key == name) return value;
  return {};
}

int64_t Request::param_int(std::string_view name, int64_t min, int64_t max) const {
  return ParseInteger("path parameter", name, param(name), min, max);
}

std::optional<std::string> Request::query(std::string_view name) const {
  for (const auto& [key, value] : query_)
    if (key == name) return value;
  return std::nullopt;
}

std::vector<std::string> Request::query_all(std::string_view name) const {
  std::vector<std::string> out;
  for (const auto& [key, value] : query_)
    if (key == name) out.push_back(value);
  return out;
}

int64_t Request::query_int(std::string_view name, int64_t fallback, int64_t min, int64_t max) const {
  for (const auto& [key, value] : query_)
    if (key == name) return ParseInteger("query parameter", name, value, min, max);
  return fallback;
}

std::optional<std::string_view> Request::header(std::string_view name) const {
  std::optional<std::string_view> found;
  if (headers_.empty()) {
    link::ForEachPair(encoded_, [&](std::string_view key, std::string_view value) {
      if (!found && SameName(key, name)) found = value;
    });
    return found;
  }
  for (const auto& [key, value] : headers_)
    if (SameName(key, name)) return value;
  return std::nullopt;
}

const std::string& Request::body() {
  if (source_ && !whole_) {
    char chunk[kReadChunk];
    while (size_t n = ReadSource(chunk, sizeof chunk)) {
      if (body_.size() + n > max_body_) {
        throw HttpError(413, "BODY_TOO_LARGE", "the body is longer than " + std::to_string(max_body_) + " bytes");
      }
      body_.append(chunk, n);
    }
    whole_ = true;
  }
  return body_;
}

Json Request::json() {
  try {
    return Json::parse(body());
  } catch (const Json::parse_error& error) {
    throw HttpError(400, "INVALID_JSON", "the body is not valid JSON (at byte " + std::to_string(error.byte) + ")");
  }
}

size_t Request::Read(char* out, size_t size) {
  if (source_ && !whole_) return ReadSource(out, size);
  size_t n = std::min(size, body_.size() - read_);
  std::copy_n(body_.data() + read_, n, out);
  read_ += n;
  return n;
}

size_t Request::ReadSource(char* out, size_t size) {
  if (ended_ || size == 0) return 0;
  size_t n = source_->Read(out, size);
  if (n == 0) {
    ended_ = true;
    trailers_ = source_->TakeTrailers();
  }
  return n;
}

std::string_view Request::request_id() const { return header("x-request-id").value_or(std::string_view()); }
std::string_view Request::traceparent() const { return header("traceparent").value_or(std::string_view()); }
TraceContext Request::trace() const { return TraceContext::Parse(traceparent(), header("tracestate").value_or(std::string_view())); }
std::optional<std::chrono::steady_clock::time_point> Request::deadline() const {
  const auto told = header("x-bulkhead-timeout-ms");
  int64_t ms = 0;
  if (!told || arrived_ == std::chrono::steady_clock::time_point()) return std::nullopt;
  const auto [end, error] = std::from_chars(told->data(), told->data() + told->size(), ms);
  if (error != std::errc() || end != told->data() + told->size() || ms < 0) return std::nullopt;
  return arrived_ + std::chrono::milliseconds(ms);
}
std::string_view Request::client_address() const {
  std::string_view list = header("x-forwarded-for").value_or(std::string_view());
  return list.substr(0, list.find(','));
}

bool Request::cancelled() const { return source_ && source_->cancelled(); }

Response Ok(const Json& data, const Json& meta) { return Envelope(200, data, meta); }
Response Created(const Json& data, const Json& meta) { return Envelope(201, data, meta); }
Response NoContent() {
  Response response;
  response.status = 204;
  return response;
}
Response JsonResponse(int status, const Json& document) { return JsonBody(status, Dump(document)); }

Response Text(int status, std::string text, std::string content_type) {
  Response response;
  response.status = status;
  response.headers.emplace_back("content-type", std::move(content_type));
  response.body = std::move(text);
  return response;
}

Response Error(const Request& request, int status, std::string_view code, std::string_view message, const Json& details) {
  return JsonBody(status, ErrorBody(code, message, details, request.request_id()));
}

Response Stream(std::string content_type, std::function<void(ResponseWriter&)> write) {
  Response response;
  response.headers.emplace_back("content-type", std::move(content_type));
  response.stream = std::move(write);
  return response;
}

std::string ErrorBody(std::string_view code, std::string_view message, const Json& details, std::string_view request_id) {
  Json error = {
      {"code", code}, {"message", message}, {"details", details.is_null() ? Json::array() : details}, {"requestId", request_id}};
  return Dump({{"success", false}, {"error", std::move(error)}});
}

std::string TypeName(const std::exception& error) {
  int status = 0;
  char* name = abi::__cxa_demangle(typeid(error).name(), nullptr, nullptr, &status);
  std::string out = status == 0 ? name : typeid(error).name();
  free(name);
  return out;
}

}  // namespace bulkhead::sdk
