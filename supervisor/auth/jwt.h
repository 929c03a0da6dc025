// JSON Web Tokens in their compact form (RFC 7515, 7519; the advice of RFC 8725): read, verified, and made for our own users. Pure.
//
// The key decides the algorithm, never the token: a header whose `alg` is not the key's is refused, "none" is no algorithm, and
// `jwk`, `jku`, `x5u`, `x5c` are not looked at. `crit` and `b64` ask for what is not understood here and are refused.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json_fwd.hpp"
#include "supervisor/auth/jwk.h"
#include "supervisor/auth/jwt_settings.h"

namespace bulkhead {

// Whether it has the form of one, three parts between dots; cheap, so that other secrets go another way.
bool LooksLikeJwt(std::string_view token);

// A token that is well-formed, and not verified.
struct ParsedJwt {
  JwtAlgorithm algorithm;
  std::string key_id;         // "": the header has none
  std::shared_ptr<const nlohmann::json> claims;
  std::string_view input;     // what is signed; a view into the token
  std::string signature;
};
// UNAUTHENTICATED with a sentence. At most limits::kMaxJwt bytes.
absl::StatusOr<ParsedJwt> ParseJwt(std::string_view token);

// What a verified token says.
struct JwtClaims {
  std::string subject;
  std::string id;  // `jti`, else ""
  std::vector<std::string> roles, permissions;
  WallTime expires_at;
};
// Checks `exp` (required), `nbf`, `iat`, `iss` and `aud` as the settings want, and reads who it is. UNAUTHENTICATED with a sentence.
// Roles and permissions that are not well-formed are left out.
absl::StatusOr<JwtClaims> CheckClaims(const ParsedJwt& token, const JwtSettings& settings, WallTime now);

// A compact token signed with HS256.
std::string SignJwt(const std::string& key_id, std::string_view secret, const nlohmann::json& claims);

}  // namespace bulkhead
