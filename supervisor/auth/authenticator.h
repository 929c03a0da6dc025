// Who is behind a bearer secret: the admin token in <data>/admin.token, API tokens, and JSON Web Tokens of a configured issuer or of our
// own users. The table in memory decides; what another node changes is noticed within limits::kStorePoll. Thread-safe.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/auth/account_table.h"
#include "supervisor/auth/attempts.h"
#include "supervisor/auth/credential_store.h"
#include "supervisor/auth/identity.h"
#include "supervisor/auth/jwt_verifier.h"
#include "supervisor/base/guarded.h"

namespace bulkhead {

class Authenticator {
 public:
  Authenticator(const Clock& clock, CredentialStore& store, JwtVerifier::Options options = {});

  // Reads <data>/admin.token, or makes it (0600, 32 random bytes as hex and a newline). Blocking; at boot.
  absl::Status LoadAdminToken(const std::string& path);
  // Reads tokens, roles and users again and replaces the tables. Blocking.
  absl::Status Reload();
  // What is to be done again and again, on the blocking pool: reads again when another node has changed something, writes when tokens were
  // used, removes sessions that are over. The last one, with `final`, writes what is left.
  void Upkeep(bool final);
  // Keys behind a URL are fetched from Start() on; after Close() no JWT is verified any more and nobody waits.
  void Start() { jwt_->Start(); }
  // `auth.jwt` of the configuration is another one now. Thread-safe.
  void Configure(JwtSettings jwt, std::vector<VerificationKey> keys) { jwt_->Configure(std::move(jwt), std::move(keys)); }
  void Close() { jwt_->Close(); }

  // What is known at once of the secret of `Authorization: Bearer <secret>`.
  struct Known {
    std::shared_ptr<const Identity> identity;
    bool pending = false;  // nobody's yet: a JWT that Verify() decides about
  };
  Known Find(std::string_view secret) const;
  // The same for a secret that Table() does not have.
  Known FindJwt(std::string_view secret) const;
  // Calls `done` from any thread, at once or later; see JwtVerifier.
  void Verify(std::string_view secret, std::function<void(JwtVerifier::Verdict)> done) const { jwt_->Verify(std::string(secret), std::move(done)); }
  void AwaitVerifications() const { jwt_->AwaitIdle(); }
  // The identity of a token that needs no verification, or nullptr.
  std::shared_ptr<const Identity> Authenticate(std::string_view secret) const { return Find(secret).identity; }
  // Somebody at `address` ("192.0.2.1:5000") has sent a secret that is nobody's: TOO_MANY_ATTEMPTS when it has become too many, else
  // UNAUTHENTICATED with `why`. Valid secrets are never refused because of it.
  absl::Status RefuseToken(std::string_view address, std::string_view why) const;

  // For data threads: keep the table, look at version() (one load) before each use and fetch again when it moved. It moves with tokens,
  // users, roles and keys.
  std::shared_ptr<const TokenTable> Table() const;
  std::shared_ptr<const AccountTable> Accounts() const;
  uint64_t version() const { return version_.load(std::memory_order_acquire); }

  // API tokens. Blocking. See proto/bulkhead/admin/v1/tokens.proto for the errors. `by` is who the audit names.
  struct NewToken {
    TokenRow row;
    std::string secret;
  };
  absl::StatusOr<NewToken> Create(const Identity& caller, const std::string& name, const std::string& subject,
                                  const std::vector<std::string>& permissions, std::optional<WallTime> expires_at,
                                  const std::vector<std::string>& roles = {}, const Actor& by = {});
  absl::StatusOr<std::vector<TokenRow>> List();
  absl::Status Delete(const std::string& name, const Actor& by = {});

 private:
  struct LastUse {
    std::shared_ptr<std::atomic<int64_t>> seconds;  // shared with the table
    int64_t written = 0;
  };
  struct State {
    std::string admin_sha256;  // raw; empty before LoadAdminToken
    std::vector<TokenRow> rows;
    std::map<std::string, LastUse> last_use;  // by the token's id
    std::shared_ptr<const TokenTable> table;
    std::shared_ptr<const AccountTable> accounts;
  };
  void Rebuild(State& state);  // the table from the others; under state_'s lock
  absl::Status WriteLastUse();

  const Clock& clock_;
  CredentialStore& store_;
  std::atomic<uint64_t> version_{0};
  Guarded<State> state_;
  std::mutex store_mutex_;        // held over a call of the store and the publishing of what it changed
  int64_t store_version_ = -1;    // of what was read last; under store_mutex_
  std::mutex upkeep_mutex_;       // one Upkeep() at a time
  Instant last_written_{}, last_pruned_{};
  mutable Attempts bad_tokens_;
  std::unique_ptr<JwtVerifier> jwt_;  // last: it reads the tables
};

// FORBIDDEN when `giver` lacks one of the permissions that `roles` and `permissions` make together: nobody gives away what he hasn't.
absl::Status CheckGiving(const Identity& giver, const AccountTable& accounts, const std::vector<std::string>& roles,
                         const std::vector<std::string>& permissions, std::string_view what);

}  // namespace bulkhead
