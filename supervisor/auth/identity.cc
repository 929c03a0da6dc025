#include "supervisor/auth/identity.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <climits>

#include "supervisor/base/log.h"

namespace bulkhead {
bool Identity::Allows(std::string_view permission) const {
  for (const std::string& held : permissions) {
    if (held == "*" || held == permission) return true;
    // "prefix:*" covers "prefix:anything", and not "prefix" itself nor "prefixes:x".
    if (held.size() > 2 && held.ends_with(":*") && permission.starts_with(std::string_view(held).substr(0, held.size() - 1)))
      return true;
  }
  return false;
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
