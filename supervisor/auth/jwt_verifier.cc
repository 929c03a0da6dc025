#include "supervisor/auth/jwt_verifier.h"

#include <algorithm>

#include "nlohmann/json.hpp"
#include "supervisor/base/limits.h"
#include "supervisor/base/random.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

using nlohmann::json;

constexpr int kVerifyThreads = 2;
constexpr Millis kOwnSkew{5'000};       // between the clocks of nodes on one database
constexpr size_t kMaxKeysTried = 8;     // for a token without `kid`

absl::Status NotVerified(std::string_view why) { return Error("UNAUTHENTICATED", why); }

JwtSettings OwnSettings() {
  JwtSettings own;
  own.issuer = std::string(kAccessKeyId);
  own.audience = {std::string(kAccessKeyId)};
  own.clock_skew = kOwnSkew;
  own.roles_claim = own.permissions_claim = "";  // the table says them, not the token
  return own;
}

std::unique_ptr<const VerificationKey> OwnKey(const std::string& secret) {
  if (secret.empty()) return nullptr;
  auto key = VerificationKey::FromSecret(std::string(kAccessKeyId), secret);
  return key.ok() ? std::make_unique<const VerificationKey>(*std::move(key)) : nullptr;
}

std::string TextOf(const json& claims, const char* name) {
  const auto found = claims.find(name);
  return found != claims.end() && found->is_string() ? found->get<std::string>() : "";
}


}  // namespace

std::string MakeAccessToken(std::string_view access_key, const AccessClaims& claims, WallTime now) {
  return SignJwt(std::string(kAccessKeyId), access_key,
                 {{"iss", kAccessKeyId},
                  {"aud", kAccessKeyId},
                  {"sub", claims.user},
                  {"uid", claims.user_id},
                  {"sid", claims.session_id},
                  {"epoch", claims.epoch},
                  {"jti", RandomUuid()},
                  {"iat", UnixSeconds(now)},
                  {"exp", UnixSeconds(now + limits::kAccessTokenLife)}});
}

JwtVerifier::JwtVerifier(const Clock& clock, Options options, std::function<std::shared_ptr<const AccountTable>()> accounts,
                         std::atomic<uint64_t>& version)
    : clock_(clock),
      jwt_(std::make_shared<const JwtSettings>(options.jwt)),
      own_(OwnSettings()),
      own_key_(OwnKey(options.access_key)),
      accounts_(std::move(accounts)),
      version_(version),
      keys_(clock, options.jwt.jwks_url, options.jwt.jwks_refresh, std::move(options.keys), [this] { version_.fetch_add(1, std::memory_order_release); }),
      pool_(kVerifyThreads, limits::kMaxVerifications) {}

JwtVerifier::~JwtVerifier() { Close(); }

void JwtVerifier::Start() { keys_.Start(); }

void JwtVerifier::Configure(JwtSettings jwt, std::vector<VerificationKey> keys) {
  auto settings = std::make_shared<const JwtSettings>(std::move(jwt));
  keys_.Configure(settings->jwks_url, settings->jwks_refresh, std::move(keys));
  jwt_.With([&](auto& now) { now = std::move(settings); });
  version_.fetch_add(1, std::memory_order_release);
}

void JwtVerifier::Close() {
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
  }
  keys_.Stop();
  AwaitIdle();
  pool_.Shutdown();
}

std::shared_ptr<const Identity> JwtVerifier::Remembered(std::string_view token) const {
  const std::string sha256 = Sha256(token);
  const uint64_t version = version_.load(std::memory_order_acquire);
  const WallTime now = clock_.Wall();
  return ShardOf(sha256).With([&](Shard& shard) -> std::shared_ptr<const Identity> {
    const auto found = shard.find(sha256);
    if (found == shard.end()) return nullptr;
    if (found->second.version == version && now < found->second.expires_at) return found->second.identity;
    shard.erase(found);
    return nullptr;
  });
}

void JwtVerifier::Remember(std::string_view token, Entry entry) const {
  const std::string sha256 = Sha256(token);
  ShardOf(sha256).With([&](Shard& shard) {
    if (shard.size() >= limits::kMaxVerifiedTokens / kShards && !shard.contains(sha256)) {
      const WallTime now = clock_.Wall();
      std::erase_if(shard, [&](const auto& old) { return old.second.version != entry.version || old.second.expires_at <= now; });
      if (shard.size() >= limits::kMaxVerifiedTokens / kShards) shard.erase(shard.begin());  // one as good as another: hashes have no order
    }
    shard[sha256] = std::move(entry);
  });
}

void JwtVerifier::Verify(std::string token, std::function<void(Verdict)> done) {
  bool closed;
  {
    std::lock_guard lock(mutex_);
    closed = closed_;
    if (!closed) ++under_way_;
  }
  if (closed) return done(Error("SHUTTING_DOWN", "The supervisor stops."));
  Judge(std::move(token), false, [this, done = std::move(done)](Verdict verdict) {
    done(std::move(verdict));
    Ended();
  });
}

// On the pool; with `last`, what keys there are decide.
void JwtVerifier::Judge(std::string token, bool last, std::function<void(Verdict)> done) {
  const bool queued = pool_.Submit([this, token, last, done] {
    // Several requests of one client may have asked at once.
    if (auto identity = Remembered(token)) return done(std::move(identity));
    bool unknown_key = false;
    Verdict verdict = VerifyNow(token, unknown_key);
    if (!unknown_key || last) return done(std::move(verdict));
    keys_.Refresh([this, token, done] { Judge(token, true, done); });
  });
  if (!queued) done(Error("OVERLOADED", "Too many tokens wait for their verification. Try again in a moment."));
}

void JwtVerifier::Ended() {
  std::lock_guard lock(mutex_);
  if (--under_way_ == 0) idle_.notify_all();
}

void JwtVerifier::AwaitIdle() {
  std::unique_lock lock(mutex_);
  idle_.wait(lock, [this] { return under_way_ == 0; });
}

JwtVerifier::Verdict JwtVerifier::VerifyNow(std::string_view token, bool& unknown_key) const {
  // Before anything is read that it stands for: what changes meanwhile makes the entry an old one.
  const uint64_t version = version_.load(std::memory_order_acquire);
  unknown_key = false;
  ASSIGN_OR_RETURN(const ParsedJwt parsed, ParseJwt(token));
  const WallTime now = clock_.Wall();
  WallTime expires_at{};
  const bool own = parsed.key_id == kAccessKeyId;
  Verdict verdict = own ? FromUser(parsed, now, expires_at) : FromIssuer(parsed, unknown_key, now, expires_at);
  if (verdict.ok()) Remember(token, {*verdict, expires_at, version});
  return verdict;
}

JwtVerifier::Verdict JwtVerifier::FromIssuer(const ParsedJwt& token, bool& unknown_key, WallTime now, WallTime& expires_at) const {
  const auto keys = keys_.Current();
  const auto jwt = jwt_.With([](const auto& now) { return now; });
  const VerificationKey* verified = nullptr;
  if (!token.key_id.empty()) {
    const VerificationKey* named = keys->Find(token.key_id);
    if (named == nullptr) {
      unknown_key = !jwt->jwks_url.empty();
      return NotVerified("The token names a key that is not known here.");
    }
    if (named->algorithm() != token.algorithm) return NotVerified("The token's alg is not that of its key.");
    if (named->Verifies(token.input, token.signature)) verified = named;
  } else {
    size_t tried = 0;
    for (const VerificationKey& key : keys->keys()) {
      if (key.algorithm() != token.algorithm || tried++ == kMaxKeysTried) continue;
      if (key.Verifies(token.input, token.signature)) verified = &key;
      if (verified != nullptr || tried == kMaxKeysTried) break;
    }
    unknown_key = verified == nullptr && !jwt->jwks_url.empty();
  }
  if (verified == nullptr) return NotVerified("The token's signature is not valid.");
  ASSIGN_OR_RETURN(JwtClaims claims, CheckClaims(token, *jwt, now));
  expires_at = claims.expires_at;
  auto identity = std::make_shared<Identity>();
  identity->subject = std::move(claims.subject);
  identity->permissions = accounts_()->Permissions(claims.roles, std::move(claims.permissions));
  identity->roles = std::move(claims.roles);
  identity->credential = {Credential::Kind::kJwt, claims.id.empty() ? verified->id() : claims.id};
  return identity;
}

JwtVerifier::Verdict JwtVerifier::FromUser(const ParsedJwt& token, WallTime now, WallTime& expires_at) const {
  if (!own_key_ || token.algorithm != JwtAlgorithm::kHs256 || !own_key_->Verifies(token.input, token.signature))
    return NotVerified("The token's signature is not valid.");
  ASSIGN_OR_RETURN(JwtClaims claims, CheckClaims(token, own_, now));
  expires_at = claims.expires_at;
  const auto accounts = accounts_();
  const std::string user_id = TextOf(*token.claims, "uid");
  const auto user = accounts->users.find(user_id);
  const auto epoch = token.claims->find("epoch");
  // The table may be a moment behind the login that made the token on another node; never the other way round for one that ended here.
  if (user == accounts->users.end() || !user->second.enabled || epoch == token.claims->end() || !epoch->is_number_integer() ||
      epoch->get<int64_t>() != user->second.epoch || accounts->ended_sessions.contains(TextOf(*token.claims, "sid"))) {
    return NotVerified("The session of the token has ended. Log in again.");
  }
  auto identity = std::make_shared<Identity>();
  identity->subject = user->second.name;
  identity->roles = user->second.roles;
  identity->permissions = accounts->Permissions(user->second.roles, {});
  identity->credential = {Credential::Kind::kUser, claims.id};
  identity->user_id = user_id;
  return identity;
}

}  // namespace bulkhead
