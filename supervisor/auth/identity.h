// Who calls, and whether they may. Values; no I/O.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "supervisor/base/clock.h"

namespace bulkhead {

struct Identity {
  std::string subject;
  std::vector<std::string> roles;
  std::vector<std::string> permissions;  // "modules:read", "consumption:*", "*"
  // True when one of the permissions covers `permission`: equal, "*", or "prefix:*".
  bool Allows(std::string_view permission) const;
};

// All bearer secrets at one moment, by their SHA-256. Immutable, so data threads read it without a lock.
class TokenTable {
 public:
  struct Entry {
    std::shared_ptr<const Identity> identity;
    std::optional<WallTime> expires_at;
  };
  explicit TokenTable(std::unordered_map<std::string, Entry> by_sha256_raw) : entries_(std::move(by_sha256_raw)) {}
  // nullptr when unknown or expired.
  std::shared_ptr<const Identity> Find(std::string_view secret, WallTime now) const;

 private:
  std::unordered_map<std::string, Entry> entries_;  // key: 32 raw bytes
};

std::string Sha256(std::string_view data);  // 32 raw bytes
std::string Sha256Hex(std::string_view data);
std::string HmacSha256(std::string_view key, std::string_view data);  // raw
bool ConstantTimeEquals(std::string_view a, std::string_view b);

}  // namespace bulkhead
