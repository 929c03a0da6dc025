#include "client_target.h"

#include <algorithm>
#include <array>

namespace bulkhead::sdk {
namespace {

constexpr std::array<std::string_view, 14> kOwnHeaders{"host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te",
                                                       "trailer", "expect", "proxy-connection", "proxy-authorization", "content-type",
                                                       "idempotency-key", "accept-encoding"};

char LowerOf(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool IsTchar(unsigned char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
         std::string_view("!#$%&'*+-.^_`|~").find(static_cast<char>(c)) != std::string_view::npos;
}

bool IsHexDigit(char c) { return (c >= '0' && c <= '9') || (LowerOf(c) >= 'a' && LowerOf(c) <= 'f'); }

// What may stand in a request target; '%' only before two digits.
bool IsTargetText(std::string_view text) {
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c <= 0x20 || c >= 0x7f || std::string_view("\"<>\\^`{|}#").find(text[i]) != std::string_view::npos) return false;
    if (c == '%' && (i + 2 >= text.size() || !IsHexDigit(text[i + 1]) || !IsHexDigit(text[i + 2]))) return false;
  }
  return true;
}

// "." and "..", with the dots escaped or not.
bool IsDots(std::string_view segment) {
  int dots = 0;
  while (!segment.empty()) {
    if (segment[0] == '.') {
      segment.remove_prefix(1);
    } else if (segment.size() >= 3 && segment[0] == '%' && segment[1] == '2' && LowerOf(segment[2]) == 'e') {
      segment.remove_prefix(3);
    } else {
      return false;
    }
    ++dots;
  }
  return dots == 1 || dots == 2;
}

bool HasDots(std::string_view path) {
  while (!path.empty()) {
    const size_t slash = std::min(path.find('/'), path.size());
    // An escaped slash is one for many servers, so it ends a segment here.
    std::string_view segment = path.substr(0, slash);
    while (!segment.empty()) {
      size_t cut = 0;
      while (cut < segment.size() && !(segment[cut] == '%' && cut + 2 < segment.size() && segment[cut + 1] == '2' && LowerOf(segment[cut + 2]) == 'f')) ++cut;
      if (IsDots(segment.substr(0, cut))) return true;
      segment.remove_prefix(std::min(cut + 3, segment.size()));
    }
    path.remove_prefix(std::min(slash + 1, path.size()));
  }
  return false;
}

}  // namespace

bool SameHeader(std::string_view a, std::string_view b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](char x, char y) { return LowerOf(x) == LowerOf(y); });
}

std::string PercentEncode(std::string_view text) {
  std::string encoded;
  for (unsigned char c : text) {
    if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '.' || c == '_' || c == '~') {
      encoded += static_cast<char>(c);
    } else {
      encoded += {'%', "0123456789ABCDEF"[c >> 4], "0123456789ABCDEF"[c & 15]};
    }
  }
  return encoded;
}

std::string BaseUrlFault(std::string_view url) {
  std::string_view rest = url;
  if (rest.starts_with("https://")) {
    rest.remove_prefix(8);
  } else if (rest.starts_with("http://")) {
    rest.remove_prefix(7);
  } else {
    return "its base URL is neither http:// nor https://";
  }
  const std::string_view authority = rest.substr(0, rest.find('/'));
  if (authority.empty()) return "its base URL names no host";
  if (authority.find('@') != std::string_view::npos) return "its base URL holds a user: secrets have a place of their own";
  if (!IsTargetText(rest) || rest.find('?') != std::string_view::npos) return "its base URL has a query, a fragment or a byte that no URL has";
  return "";
}

std::string PathFault(std::string_view path) {
  if (path.empty() || path[0] != '/') return "a path begins with \"/\"";
  if (path.size() > kMaxClientTarget) return "path and query are longer than 8 KiB";
  if (!IsTargetText(path)) return "the path has a byte that no URL has, or a fragment: let PercentEncode() make a segment of it";
  if (HasDots(path.substr(0, path.find('?')))) return "the path has a \".\" or \"..\" segment, and may not leave the base URL";
  return "";
}

std::string JoinUrl(std::string_view base, std::string_view path, const std::vector<std::pair<std::string, std::string>>& query,
                    const Headers& secret_query) {
  while (!base.empty() && base.back() == '/') base.remove_suffix(1);
  std::string url = std::string(base) + std::string(path);
  bool first = path.find('?') == std::string_view::npos;
  for (const auto* list : {&query, &secret_query}) {
    for (const auto& [name, value] : *list) {
      url += std::exchange(first, false) ? '?' : '&';
      url += PercentEncode(name) + '=' + PercentEncode(value);
    }
  }
  return url;
}

std::string HeaderFault(std::string_view name, std::string_view value) {
  if (name.empty() || !std::all_of(name.begin(), name.end(), IsTchar)) return "a header has a name that none can have";
  const bool plain = std::all_of(value.begin(), value.end(), [](unsigned char c) { return (c >= 0x20 && c != 0x7f) || c == '\t'; });
  if (!plain) return "the header " + std::string(name) + " holds a line break or another control character";
  for (std::string_view own : kOwnHeaders) {
    if (SameHeader(name, own)) return "the header " + std::string(name) + " is set by the client itself";
  }
  return "";
}

std::string MethodFault(std::string_view method) {
  for (std::string_view known : {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}) {
    if (method == known) return "";
  }
  return "the method is none of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
}

}  // namespace bulkhead::sdk
