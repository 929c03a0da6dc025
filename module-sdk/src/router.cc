// Patterns to routes. A module has tens of routes: a scan that allocates nothing is faster there than a tree.
#include "bulkhead/router.h"

#include <algorithm>
#include <stdexcept>

#include "invoke.h"
#include "websocket_handshake.h"

namespace bulkhead::sdk {
namespace {

std::vector<std::string> Split(std::string_view path) {
  std::vector<std::string> out;
  path.remove_prefix(1);
  for (;;) {
    size_t slash = path.find('/');
    out.emplace_back(path.substr(0, slash));
    if (slash == std::string_view::npos) return out;
    path.remove_prefix(slash + 1);
  }
}

enum class Kind : char { kText = '0', kParameter = '1', kRest = '2' };

Kind KindOf(const std::string& segment) {
  if (segment == "*") return Kind::kRest;
  return segment.starts_with(":") ? Kind::kParameter : Kind::kText;
}

// Whether two patterns match the same paths: equal but for the names of their parameters.
bool Collide(const std::vector<std::string>& a, const std::vector<std::string>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const std::string& x, const std::string& y) {
    return KindOf(x) == KindOf(y) && (KindOf(x) != Kind::kText || x == y);
  });
}

// Whether the left of two patterns that both match a path is the closer one.
bool Closer(const std::vector<std::string>& a, const std::vector<std::string>& b) {
  for (size_t i = 0; i < a.size() && i < b.size(); ++i)
    if (KindOf(a[i]) != KindOf(b[i])) return KindOf(a[i]) < KindOf(b[i]);
  return false;
}

bool SameText(std::string_view encoded, const std::string& text) {
  if (encoded == text) return true;
  if (encoded.find('%') == std::string_view::npos) return false;
  auto decoded = PercentDecode(encoded, false);
  return decoded && *decoded == text;
}

bool Matches(const std::vector<std::string>& segments, std::string_view path) {
  if (!path.starts_with('/')) return false;
  path.remove_prefix(1);
  for (size_t i = 0; i < segments.size(); ++i) {
    Kind kind = KindOf(segments[i]);
    if (kind == Kind::kRest) return true;  // also an empty rest, as at the gateway
    size_t slash = path.find('/');
    std::string_view segment = path.substr(0, slash);
    if (kind == Kind::kParameter ? segment.empty() : !SameText(segment, segments[i])) return false;
    bool last = i + 1 == segments.size();
    if ((slash == std::string_view::npos) != last) return false;
    if (!last) path.remove_prefix(slash + 1);
  }
  return true;
}

std::string Decoded(std::string_view segment) {
  auto value = PercentDecode(segment, false);
  if (!value) throw HttpError(400, "BAD_REQUEST", "the path holds a malformed percent escape");
  return *std::move(value);
}

// What a last `*` stands for: split at '/' first, each segment decoded after. Handlers take it for a path, so no "." or ".." gets
// through, not behind an escaped slash either: the gateway refuses them, and so does this where there is no gateway.
std::string DecodedRest(std::string_view rest) {
  std::string out;
  for (;;) {
    const size_t slash = rest.find('/');
    const std::string segment = Decoded(rest.substr(0, slash));
    for (const std::string& piece : Split("/" + segment)) {
      if (piece == "." || piece == "..") throw HttpError(400, "BAD_REQUEST", "the path has a '.' or '..' segment");
    }
    out += segment;
    if (slash == std::string_view::npos) return out;
    out += '/';
    rest.remove_prefix(slash + 1);
  }
}

std::vector<std::pair<std::string, std::string>> ParamsOf(const std::vector<std::string>& segments, std::string_view path) {
  std::vector<std::pair<std::string, std::string>> out;
  path.remove_prefix(1);
  for (const std::string& segment : segments) {
    Kind kind = KindOf(segment);
    size_t slash = kind == Kind::kRest ? std::string_view::npos : path.find('/');
    if (kind == Kind::kRest) out.emplace_back(segment, DecodedRest(path));
    if (kind == Kind::kParameter) out.emplace_back(segment.substr(1), Decoded(path.substr(0, slash)));
    if (slash != std::string_view::npos) path.remove_prefix(slash + 1);
  }
  return out;
}

bool Serves(const Route& route, std::string_view method) {
  return route.method() == method || (method == "HEAD" && route.method() == "GET");
}

}  // namespace

Route::Route(std::string method, std::string pattern, Handler handler)
    : method_(std::move(method)), pattern_(std::move(pattern)), handler_(std::move(handler)) {}

Route& Route::Inline() {
  if (stream_body_) throw std::invalid_argument("route " + pattern_ + ": an inline handler can't stream its body");
  inline_ = true;
  return *this;
}

Route& Route::StreamBody() {
  if (inline_) throw std::invalid_argument("route " + pattern_ + ": an inline handler can't stream its body");
  stream_body_ = true;
  return *this;
}

Route& Route::MaxBody(size_t bytes) {
  max_body_ = bytes;
  return *this;
}

Route& Router::Handle(std::string method, std::string pattern, Handler handler) {
  std::string name = method + " " + pattern;
  if (frozen_) throw std::logic_error("route " + name + ": routes are registered in Initialize only");
  if (!handler) throw std::invalid_argument("route " + name + ": no handler");
  if (!pattern.starts_with('/') || pattern.find_first_of("?#% ") != std::string::npos) {
    throw std::invalid_argument("route " + name + ": a pattern begins with / and holds no query, escape or space");
  }
  std::vector<std::string> segments = Split(pattern);
  for (size_t i = 0; i < segments.size(); ++i) {
    const std::string& segment = segments[i];
    if (segment == ":") throw std::invalid_argument("route " + name + ": a parameter without a name");
    bool rest = segment.find('*') != std::string::npos;
    if (rest && (segment != "*" || i + 1 != segments.size())) {
      throw std::invalid_argument("route " + name + ": * stands alone, as the last segment");
    }
  }
  for (size_t i = 0; i < routes_.size(); ++i) {
    if (routes_[i].method() == method && Collide(segments_[i], segments)) {
      throw std::invalid_argument("route " + name + ": the same as " + routes_[i].pattern());
    }
  }
  segments_.push_back(std::move(segments));
  return routes_.emplace_back(std::move(method), std::move(pattern), std::move(handler));
}

WebSocketRoute& Router::WebSocket(std::string pattern, WebSocketHandler handler) {
  if (!handler) throw std::invalid_argument("route " + pattern + ": no handler");
  Route& route = Get(std::move(pattern), [](Request& request) { return *websocket::RefuseOther(request, false); });
  route.websocket_ = std::make_shared<WebSocketRoute>(std::move(handler));
  return *route.websocket_;
}

Router::Match Router::Find(std::string_view method, std::string_view path) const {
  Match match;
  size_t best = 0;
  for (size_t i = 0; i < routes_.size(); ++i) {
    if (!Serves(routes_[i], method) || !Matches(segments_[i], path)) continue;
    bool closer = !match.route || Closer(segments_[i], segments_[best]);
    // A HEAD handler of its own comes before GET's.
    if (match.route && !closer && !Closer(segments_[best], segments_[i])) closer = routes_[i].method() == method;
    if (closer) {
      match.route = &routes_[i];
      best = i;
    }
  }
  if (match.route) {
    match.params = ParamsOf(segments_[best], path);
    return match;
  }
  std::vector<std::string> allowed;
  for (size_t i = 0; i < routes_.size(); ++i) {
    if (!Matches(segments_[i], path)) continue;
    allowed.push_back(routes_[i].method());
    if (routes_[i].method() == "GET") allowed.push_back("HEAD");
  }
  std::sort(allowed.begin(), allowed.end());
  allowed.erase(std::unique(allowed.begin(), allowed.end()), allowed.end());
  for (const std::string& one : allowed) match.allow += (match.allow.empty() ? "" : ", ") + one;
  return match;
}

Response Router::Dispatch(Request& request) const {
  try {
    Match match = Find(request.method(), std::string_view(request.target()).substr(0, request.target().find('?')));
    if (!match.route) return NotRouted(match, request.request_id());
    request.set_params(std::move(match.params));
    return Invoke(*match.route, request, Logger());
  } catch (const HttpError& error) {
    return ErrorResponse(error, request.request_id());
  }
}

}  // namespace bulkhead::sdk
