// The bearer secrets in force: the admin token in <data>/admin.token and the API tokens of the registry. Thread-safe.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/auth/identity.h"
#include "supervisor/base/guarded.h"
#include "supervisor/store/registry.h"

namespace bulkhead {

class Authenticator {
 public:
  Authenticator(const Clock& clock, Registry& registry);

  // Reads <data>/admin.token, or makes it (0600, 32 random bytes as hex and a newline). Blocking; at boot.
  absl::Status LoadAdminToken(const std::string& path);
  // Reads the registry's tokens again and replaces the table. Blocking.
  absl::Status Reload();

  // Secret of `Authorization: Bearer <secret>`; nullptr when it is nobody's.
  std::shared_ptr<const Identity> Authenticate(std::string_view secret) const;
  // For data threads: keep the table, look at version() (one load) before each use and fetch again when it moved.
  std::shared_ptr<const TokenTable> Table() const;
  uint64_t version() const { return version_.load(std::memory_order_acquire); }

  // API tokens. Blocking. See proto/bulkhead/admin/v1/tokens.proto for the errors.
  struct NewToken {
    TokenRow row;
    std::string secret;
  };
  absl::StatusOr<NewToken> Create(const Identity& caller, const std::string& name, const std::string& subject,
                                  const std::vector<std::string>& permissions, std::optional<WallTime> expires_at);
  absl::StatusOr<std::vector<TokenRow>> List();
  absl::Status Delete(const std::string& name);

 private:
  struct State {
    std::string admin_sha256;  // raw; empty before LoadAdminToken
    std::vector<TokenRow> rows;
    std::shared_ptr<const TokenTable> table;
  };
  void Rebuild(State& state);  // the table from the other two; under state_'s lock

  const Clock& clock_;
  Registry& registry_;
  std::atomic<uint64_t> version_{0};
  Guarded<State> state_;
  std::mutex registry_mutex_;  // held over a registry call and the publishing of what it changed
};

}  // namespace bulkhead
