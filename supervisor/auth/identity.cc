#include "supervisor/auth/identity.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <climits>

#include "supervisor/base/log.h"

namespace bulkhead {
namespace {

constexpr size_t kMaxSubject = 128;
constexpr size_t kMaxRoleName = 64;

// Whether `held`, "module:<module>:…", covers `permission` of that module. No allocation: it is on the path of requests.
bool ScopedCovers(std::string_view held, std::string_view permission, std::string_view module) {
  constexpr std::string_view kScope = "module:";
  constexpr std::string_view kAll = "modules:";
  if (!held.starts_with(kScope)) return false;
  held.remove_prefix(kScope.size());
  if (held == "*") return true;  // of every module
  if (!held.starts_with(module) || held.size() <= module.size() + 1 || held[module.size()] != ':') return false;
  held.remove_prefix(module.size() + 1);
  if (permission.starts_with(kAll)) permission.remove_prefix(kAll.size());
  if (held == "*" || held == permission) return true;
  return held.size() > 2 && held.ends_with(":*") && permission.starts_with(held.substr(0, held.size() - 1));
}

}  // namespace

std::string_view CredentialKindName(Credential::Kind kind) {
  switch (kind) {
    case Credential::Kind::kAdminToken: return "admin-token";
    case Credential::Kind::kApiToken: return "api-token";
    case Credential::Kind::kJwt: return "jwt";
    case Credential::Kind::kUser: return "user";
    case Credential::Kind::kModule: return "module";
  }
  return "";
}

bool Identity::Allows(std::string_view permission) const {
  for (const std::string& held : permissions) {
    if (held == "*" || held == permission) return true;
    // "prefix:*" covers "prefix:anything", and not "prefix" itself nor "prefixes:x".
    if (held.size() > 2 && held.ends_with(":*") && permission.starts_with(std::string_view(held).substr(0, held.size() - 1)))
      return true;
  }
  return false;
}

bool Identity::Allows(std::string_view permission, std::string_view module) const {
  if (Allows(permission)) return true;
  if (module.empty()) return false;
  for (const std::string& held : permissions) {
    if (ScopedCovers(held, permission, module)) return true;
  }
  return false;
}

bool ValidSubject(std::string_view subject) {
  if (subject.empty() || subject.size() > kMaxSubject) return false;
  return std::all_of(subject.begin(), subject.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("._@:/+-").find(c) != std::string_view::npos;
  });
}

bool ValidRoleName(std::string_view name) { return name.size() <= kMaxRoleName && ValidSubject(name); }

bool KebabCase(std::string_view name) {
  if (name.empty() || name.front() == '-' || name.back() == '-' || name.find("--") != std::string_view::npos) return false;
  return std::all_of(name.begin(), name.end(),
                     [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'; });
}

bool IsHex(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

std::string FromHex(std::string_view hex) {
  const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
  std::string raw;
  raw.reserve(hex.size() / 2);
  for (size_t i = 0; i + 1 < hex.size(); i += 2) raw += static_cast<char>(digit(hex[i]) << 4 | digit(hex[i + 1]));
  return raw;
}

std::string_view BearerSecret(std::string_view authorization) {
  constexpr std::string_view kScheme = "bearer ";
  if (authorization.size() <= kScheme.size()) return {};
  for (size_t i = 0; i < kScheme.size(); ++i) {
    const char c = authorization[i];
    if ((c >= 'A' && c <= 'Z' ? c + 32 : c) != kScheme[i]) return {};
  }
  const size_t begin = authorization.find_first_not_of(' ', kScheme.size());
  if (begin == std::string_view::npos) return {};
  authorization.remove_prefix(begin);
  for (const char c : authorization) {
    if (c == ' ' || c == '\t' || c == ',') return {};
  }
  return authorization;
}

std::shared_ptr<const Identity> TokenTable::Find(std::string_view secret, WallTime now) const {
  // The key is a hash that the caller can't choose bit by bit, so the time of this lookup tells nothing about a secret.
  const auto found = entries_.find(Sha256(secret));
  if (found == entries_.end()) return nullptr;
  if (found->second.expires_at && *found->second.expires_at <= now) return nullptr;
  if (const auto& last_used = found->second.last_used) {
    // Written only when it moves, so that threads don't fight over the line for every request.
    const int64_t seconds = UnixSeconds(now);
    if (last_used->load(std::memory_order_relaxed) < seconds) last_used->store(seconds, std::memory_order_relaxed);
  }
  return found->second.identity;
}

std::string Sha256(std::string_view data) {
  std::string digest(32, '\0');
  unsigned size = 0;
  BULKHEAD_CHECK(
      EVP_Digest(data.data(), data.size(), reinterpret_cast<unsigned char*>(digest.data()), &size, EVP_sha256(), nullptr) == 1);
  BULKHEAD_CHECK(size == digest.size());
  return digest;
}

std::string Sha256Hex(std::string_view data) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  hex.reserve(64);
  for (const char c : Sha256(data)) {
    hex += kDigits[static_cast<unsigned char>(c) >> 4];
    hex += kDigits[static_cast<unsigned char>(c) & 15];
  }
  return hex;
}

std::string HmacSha256(std::string_view key, std::string_view data) {
  BULKHEAD_CHECK(key.size() <= INT_MAX);
  std::string digest(32, '\0');
  unsigned size = 0;
  BULKHEAD_CHECK(HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), reinterpret_cast<const unsigned char*>(data.data()),
                      data.size(), reinterpret_cast<unsigned char*>(digest.data()), &size) != nullptr);
  BULKHEAD_CHECK(size == digest.size());
  return digest;
}

bool ConstantTimeEquals(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace bulkhead
