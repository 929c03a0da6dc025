#include "supervisor/base/redis_address.h"

#include "absl/strings/numbers.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace bulkhead {
namespace {

constexpr int kMaxRedisPort = 65'535, kMaxRedisDatabase = 100'000;

std::optional<std::string> Unescaped(absl::string_view text) {
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      plain += text[i];
      continue;
    }
    int value = 0;
    if (text.size() - i < 3 || !absl::SimpleHexAtoi(text.substr(i + 1, 2), &value)) return std::nullopt;
    plain += static_cast<char>(value);
    i += 2;
  }
  return plain;
}

bool NumberUpTo(absl::string_view text, int most, int& number) {
  return !text.empty() && text.size() <= 6 && text.find_first_not_of("0123456789") == absl::string_view::npos && absl::SimpleAtoi(text, &number) &&
         number <= most;
}

}  // namespace

std::optional<RedisAddress> ParseRedisUrl(const std::string& url) {
  absl::string_view rest = url;
  if (rest.find_first_of(absl::string_view(" \t\r\n\0", 5)) != absl::string_view::npos) return std::nullopt;
  const bool socket = absl::ConsumePrefix(&rest, "unix://");
  if (!socket && !absl::ConsumePrefix(&rest, "redis://")) return std::nullopt;
  RedisAddress address;
  // A path may have an @ in it; the names before it have no slash.
  const size_t at = rest.substr(0, rest.find('/')).rfind('@');
  if (at != absl::string_view::npos) {
    const absl::string_view who = rest.substr(0, at);
    const size_t colon = who.find(':');
    if (colon == absl::string_view::npos) return std::nullopt;
    const auto user = Unescaped(who.substr(0, colon)), password = Unescaped(who.substr(colon + 1));
    if (!user || !password || password->empty()) return std::nullopt;
    address.user = *user;
    address.password = *password;
    rest.remove_prefix(at + 1);
  }
  if (socket) {
    const size_t question = rest.find('?');
    address.socket = std::string(rest.substr(0, question));
    if (address.socket.size() < 2 || address.socket[0] != '/') return std::nullopt;
    if (question == absl::string_view::npos) return address;
    rest.remove_prefix(question + 1);
    if (!absl::ConsumePrefix(&rest, "db=") || !NumberUpTo(rest, kMaxRedisDatabase, address.database)) return std::nullopt;
    return address;
  }
  const size_t slash = rest.find('/');
  if (slash != absl::string_view::npos && slash + 1 < rest.size() && !NumberUpTo(rest.substr(slash + 1), kMaxRedisDatabase, address.database)) {
    return std::nullopt;
  }
  rest = rest.substr(0, slash);
  const size_t colon = rest.rfind(':');
  if (colon != absl::string_view::npos && rest.find(']', colon) == absl::string_view::npos) {
    if (!NumberUpTo(rest.substr(colon + 1), kMaxRedisPort, address.port) || address.port == 0) return std::nullopt;
    rest = rest.substr(0, colon);
  }
  const bool bracketed = rest.size() > 2 && rest.front() == '[' && rest.back() == ']';
  address.host = std::string(bracketed ? rest.substr(1, rest.size() - 2) : rest);
  if (address.host.empty() || (!bracketed && rest.find_first_of(":[]?#@") != absl::string_view::npos)) return std::nullopt;
  return address;
}

}  // namespace bulkhead
