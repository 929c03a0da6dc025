// Tokens and key sets of strangers: nothing that was not signed with a known key is ever taken, what is accepted keeps the rules that the rest
// of the daemon relies on, and the two ways to write the same token are not two tokens.
#include <algorithm>

#include "nlohmann/json.hpp"
#include "supervisor/auth/encoding.h"
#include "supervisor/auth/identity.h"
#include "supervisor/auth/jwt.h"
#include "supervisor/base/limits.h"
#include "supervisor/base/log.h"
#include "supervisor/base/text.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/auth/vectors.h"

namespace {

using namespace bulkhead;
using std::chrono::seconds;

const WallTime kNow = WallTime(seconds(1'300'819'000));  // before the RFC's examples expire
const std::string kSecret(32, 's');

const std::vector<VerificationKey>& Keys() {
  static const std::vector<VerificationKey> keys = [] {
    std::vector<VerificationKey> all;
    for (const Vector& vector : Vectors()) all.push_back(KeyOf(vector));
    all.push_back(*VerificationKey::FromSecret("ours", kSecret));
    return all;
  }();
  return keys;
}

// What was signed, by us or by the RFC.
bool WasSigned(std::string_view input) {
  static const std::vector<std::string> seeds = FuzzSeeds();
  return std::any_of(seeds.begin(), seeds.end(), [&](const std::string& seed) { return seed.substr(0, seed.rfind('.')) == input; });
}

void CheckToken(std::string_view text) {
  const auto parsed = ParseJwt(text);
  if (!parsed.ok()) return;
  BULKHEAD_CHECK(text.size() <= limits::kMaxJwt && LooksLikeJwt(std::string("ey").append(text.substr(std::min<size_t>(2, text.size())))));
  BULKHEAD_CHECK(text.starts_with(parsed->input));
  BULKHEAD_CHECK(EncodeBase64Url(parsed->signature) == text.substr(parsed->input.size() + 1));
  for (const VerificationKey& key : Keys()) {
    if (key.algorithm() == parsed->algorithm && key.Verifies(parsed->input, parsed->signature)) BULKHEAD_CHECK(WasSigned(parsed->input));
  }
  JwtSettings settings;
  settings.roles_claim = "a.roles";
  const auto claims = CheckClaims(*parsed, settings, kNow);
  if (!claims.ok()) return;
  BULKHEAD_CHECK(!claims->subject.empty() && claims->subject != kAdminSubject && claims->expires_at > kNow);
  for (const std::string& role : claims->roles) BULKHEAD_CHECK(ValidRoleName(role));
  for (const std::string& permission : claims->permissions) BULKHEAD_CHECK(ValidPermission(permission));
  for (const char c : claims->subject + claims->id) BULKHEAD_CHECK(c > ' ' && c < 127 && c != ',');
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  std::vector<std::string> seeds;
  for (const Vector& vector : Vectors()) seeds.push_back(vector.token);
  seeds.push_back(SignJwt("ours", kSecret, {{"sub", "jo"}, {"exp", 1'300'819'100}, {"nbf", 1}, {"iat", 1.5}, {"aud", {"a", "b"}}, {"iss", "x"}, {"jti", "n"}}));
  seeds.push_back(SignJwt("ours", kSecret, {{"sub", "jo"}, {"exp", 1e10}, {"a", {{"roles", {"admin", "x y"}}}}, {"permissions", "modules:read * a:*"}}));
  nlohmann::json keys = nlohmann::json::array();
  for (const Vector& vector : Vectors()) keys.push_back(Jwk(vector));
  seeds.push_back(nlohmann::json{{"keys", keys}}.dump());
  for (const auto& key : keys) seeds.push_back(key.dump());
  return seeds;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), std::min<size_t>(size, 16 * 1024));
  CheckToken(text);
  if (const auto bytes = DecodeBase64Url(text)) BULKHEAD_CHECK(EncodeBase64Url(*bytes) == text);
  // As claims that we sign, so that what stands behind the signature is reached, too.
  const std::string input = EncodeBase64Url(R"({"alg":"HS256"})") + "." + EncodeBase64Url(text);
  const std::string token = input + "." + EncodeBase64Url(HmacSha256(kSecret, input));
  if (const auto parsed = ParseJwt(token); parsed.ok()) {
    JwtSettings settings;
    settings.roles_claim = "a.roles";
    (void)CheckClaims(*parsed, settings, kNow);
  }
  std::vector<std::string> passed_over;
  if (const auto set = ParseJwks(text, &passed_over); set.ok()) {
    BULKHEAD_CHECK(!set->keys().empty() && set->keys().size() <= limits::kMaxKeys);
    for (const VerificationKey& key : set->keys()) BULKHEAD_CHECK(key.algorithm() != JwtAlgorithm::kHs256 && !key.Verifies("x", "y"));
  }
  return 0;
}
