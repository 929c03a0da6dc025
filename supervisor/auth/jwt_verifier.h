// JSON Web Tokens as identities: those of the configured issuer, and the access tokens of our own users. Verified on a pool of its own, and
// remembered by their SHA-256 until they expire or the keys, users or roles change. Thread-safe.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/auth/account_table.h"
#include "supervisor/auth/identity.h"
#include "supervisor/auth/jwt.h"
#include "supervisor/auth/key_source.h"
#include "supervisor/base/blocking_pool.h"
#include "supervisor/base/guarded.h"

namespace bulkhead {

inline constexpr std::string_view kAccessKeyId = "bulkhead";  // `kid` of our own access tokens; no configured key may have it

// What an access token of ours says of its user.
struct AccessClaims {
  std::string user_id, user, session_id;
  int64_t epoch = 0;
};
// Signs one that ends after limits::kAccessTokenLife.
std::string MakeAccessToken(std::string_view access_key, const AccessClaims& claims, WallTime now);

class JwtVerifier {
 public:
  struct Options {
    JwtSettings jwt;
    std::vector<VerificationKey> keys;
    std::string access_key;  // signs our own access tokens; "": there are none
  };
  using Verdict = absl::StatusOr<std::shared_ptr<const Identity>>;
  // `accounts` gives the table in force; `version` moves with it, and is moved here when the keys change.
  JwtVerifier(const Clock& clock, Options options, std::function<std::shared_ptr<const AccountTable>()> accounts, std::atomic<uint64_t>& version);
  JwtVerifier(const JwtVerifier&) = delete;
  ~JwtVerifier();  // Close()

  void Start();  // begins to fetch the keys behind auth.jwt.jwksUrl
  // Another issuer, other keys: what was verified by the old ones is verified again.
  void Configure(JwtSettings jwt, std::vector<VerificationKey> keys);
  // Answers everybody who waits, and joins; what comes later is SHUTTING_DOWN.
  void Close();

  // nullptr: not verified yet, or no longer.
  std::shared_ptr<const Identity> Remembered(std::string_view token) const;
  // Verifies on the pool and calls `done` from there, after a fetch of the keys where the token names one that is not known. Never blocks;
  // `done` may be called at once. UNAUTHENTICATED, OVERLOADED, SHUTTING_DOWN.
  void Verify(std::string token, std::function<void(Verdict)> done);
  // Blocks until everybody who asked has been answered.
  void AwaitIdle();
  // The work itself. `unknown_key` is set when another key set could change the verdict.
  Verdict VerifyNow(std::string_view token, bool& unknown_key) const;

 private:
  struct Entry {
    std::shared_ptr<const Identity> identity;
    WallTime expires_at;
    uint64_t version;
  };
  using Shard = std::unordered_map<std::string, Entry>;  // by raw SHA-256
  static constexpr size_t kShards = 16;
  Guarded<Shard>& ShardOf(const std::string& sha256) const { return shards_[static_cast<unsigned char>(sha256[0]) % kShards]; }
  void Remember(std::string_view token, Entry entry) const;
  void Judge(std::string token, bool last, std::function<void(Verdict)> done);
  void Ended();
  Verdict FromIssuer(const ParsedJwt& token, bool& unknown_key, WallTime now, WallTime& expires_at) const;
  Verdict FromUser(const ParsedJwt& token, WallTime now, WallTime& expires_at) const;

  const Clock& clock_;
  Guarded<std::shared_ptr<const JwtSettings>> jwt_;
  const JwtSettings own_;  // how access tokens of ours are checked
  const std::unique_ptr<const VerificationKey> own_key_;
  const std::function<std::shared_ptr<const AccountTable>()> accounts_;
  std::atomic<uint64_t>& version_;
  mutable std::array<Guarded<Shard>, kShards> shards_;

  std::mutex mutex_;
  std::condition_variable idle_;
  size_t under_way_ = 0;
  bool closed_ = false;
  KeySource keys_;
  BlockingPool pool_;  // last: its threads use what stands above
};

}  // namespace bulkhead
