// Who calls, and whether they may. Values; no I/O.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "supervisor/base/clock.h"

namespace bulkhead {

inline constexpr std::string_view kAdminSubject = "admin";  // the admin token's alone
inline constexpr std::string_view kModuleSubjects = "module:";  // what those of modules begin with, and nobody else's

// By what somebody was recognised. Never a secret.
struct Credential {
  enum class Kind { kAdminToken, kApiToken, kJwt, kUser, kModule };
  Kind kind = Kind::kAdminToken;
  std::string id;  // an API token's id; the `jti` of a JWT or of a user's access token, else the JWT's `kid`; "" for the admin token
};
std::string_view CredentialKindName(Credential::Kind kind);  // "admin-token", "api-token", "jwt", "user", "module"

struct Identity {
  std::string subject;
  std::vector<std::string> roles;
  std::vector<std::string> permissions;  // "modules:read", "consumption:*", "*"; those of the roles included
  Credential credential;
  std::string user_id;  // of a user of our own; else ""
  // True when one of the permissions covers `permission`: equal, "*", or "prefix:*".
  bool Allows(std::string_view permission) const;
  // The same for something of one module, which its scoped form allows, too: "module:<module>:<verb>" stands for "modules:<verb>", and
  // "module:<module>:<permission>" for every other permission. So "module:<module>:*" is everything of that module, "module:*" of every one.
  // An empty `module` is none.
  bool Allows(std::string_view permission, std::string_view module) const;
};

// 1 to 128 of A-Z a-z 0-9 . _ @ : / + -; it travels to modules in a header.
bool ValidSubject(std::string_view subject);
// What a role may be called, ours or an issuer's: like a subject, at most 64 characters.
bool ValidRoleName(std::string_view name);
// Lower-case letters and digits with single dashes between.
bool KebabCase(std::string_view name);

// All bearer secrets at one moment, by their SHA-256. Immutable, so data threads read it without a lock.
class TokenTable {
 public:
  struct Entry {
    std::shared_ptr<const Identity> identity;
    std::optional<WallTime> expires_at;
    std::shared_ptr<std::atomic<int64_t>> last_used;  // seconds since 1970, for API tokens; written when it is found
  };
  explicit TokenTable(std::unordered_map<std::string, Entry> by_sha256_raw) : entries_(std::move(by_sha256_raw)) {}
  // nullptr when unknown or expired.
  std::shared_ptr<const Identity> Find(std::string_view secret, WallTime now) const;

 private:
  std::unordered_map<std::string, Entry> entries_;  // key: 32 raw bytes
};

// The secret of the header `Authorization: Bearer <secret>`, RFC 6750 2.1; empty when it is something else.
std::string_view BearerSecret(std::string_view authorization);

std::string FromHex(std::string_view hex);  // of valid lower-case digits
bool IsHex(std::string_view text);
std::string Sha256(std::string_view data);  // 32 raw bytes
std::string Sha256Hex(std::string_view data);
std::string HmacSha256(std::string_view key, std::string_view data);  // raw
bool ConstantTimeEquals(std::string_view a, std::string_view b);

}  // namespace bulkhead
