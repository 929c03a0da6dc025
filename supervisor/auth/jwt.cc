#include "supervisor/auth/jwt.h"

#include <algorithm>
#include <cmath>

#include "nlohmann/json.hpp"
#include "supervisor/auth/encoding.h"
#include "supervisor/auth/identity.h"
#include "supervisor/base/limits.h"
#include "supervisor/base/status.h"
#include "supervisor/base/text.h"

namespace bulkhead {
namespace {

using nlohmann::json;

constexpr size_t kMaxListed = 64;        // roles or permissions of a token; the rest is left out
constexpr size_t kMaxIdSize = 128;       // of `jti`; a longer one is left out
constexpr size_t kMaxSubjectSize = 128;
constexpr double kMaxSeconds = 253'402'300'799.0;  // the end of the year 9999

absl::Status Refuse(std::string_view why) { return Error("UNAUTHENTICATED", why); }

absl::StatusOr<json> Part(std::string_view text, std::string_view name) {
  const auto bytes = DecodeBase64Url(text);
  if (!bytes) return Refuse("The token's " + std::string(name) + " is not base64url.");
  if (!IsValidUtf8(*bytes)) return Refuse("The token's " + std::string(name) + " is not UTF-8.");
  auto parsed = ParseStrictObject(*bytes, static_cast<int>(limits::kMaxJwtDepth));
  if (!parsed.ok()) return Refuse("The token's " + std::string(name) + " is no JSON object that can be read in one way only.");
  return parsed;
}

// A NumericDate (RFC 7519, 2); nullopt when it is absent.
absl::StatusOr<std::optional<WallTime>> Moment(const json& claims, const char* name) {
  const auto found = claims.find(name);
  if (found == claims.end()) return std::optional<WallTime>();
  if (!found->is_number()) return Refuse("The token's " + std::string(name) + " is not a number.");
  const double seconds = found->get<double>();
  if (!std::isfinite(seconds) || seconds < 0 || seconds > kMaxSeconds) return Refuse("The token's " + std::string(name) + " is no time.");
  // The clock can say times up to 2262; what lies beyond 2255 is taken for that, with room for the skew.
  constexpr double kMost = 9'000'000'000.0;
  return std::optional(WallTime(std::chrono::duration_cast<WallTime::duration>(
      std::chrono::duration<int64_t, std::milli>(static_cast<int64_t>(std::min(seconds, kMost) * 1000)))));
}

// The claim at a name, or at a path with dots; null when there is none.
const json* ClaimAt(const json& claims, std::string_view path) {
  if (const auto exact = claims.find(std::string(path)); exact != claims.end()) return &*exact;
  const json* at = &claims;
  while (at->is_object()) {
    const size_t dot = path.find('.');
    const auto found = at->find(std::string(path.substr(0, dot)));
    if (found == at->end()) return nullptr;
    at = &*found;
    if (dot == std::string_view::npos) return at;
    path.remove_prefix(dot + 1);
  }
  return nullptr;
}

// A list of texts, or one text with blanks between, as OAuth's `scope`.
std::vector<std::string> Listed(const json& claims, const std::string& path, bool (*valid)(std::string_view)) {
  std::vector<std::string> list;
  const json* claim = path.empty() ? nullptr : ClaimAt(claims, path);
  if (claim == nullptr) return list;
  const auto add = [&](std::string_view text) {
    if (list.size() < kMaxListed && valid(text) && std::find(list.begin(), list.end(), text) == list.end()) list.emplace_back(text);
  };
  if (claim->is_string()) {
    std::string_view text = claim->get_ref<const std::string&>();
    while (!text.empty()) {
      const size_t blank = text.find(' ');
      add(text.substr(0, blank));
      text.remove_prefix(blank == std::string_view::npos ? text.size() : blank + 1);
    }
  } else if (claim->is_array()) {
    for (const json& entry : *claim) {
      if (entry.is_string()) add(entry.get_ref<const std::string&>());
    }
  }
  return list;
}

bool HasAudience(const json& claims, const std::vector<std::string>& wanted) {
  const auto found = claims.find("aud");
  if (found == claims.end()) return false;
  const auto is_wanted = [&](const json& one) {
    return one.is_string() && std::find(wanted.begin(), wanted.end(), one.get_ref<const std::string&>()) != wanted.end();
  };
  return found->is_array() ? std::any_of(found->begin(), found->end(), is_wanted) : is_wanted(*found);
}

// It travels to modules in a header, and stands in logs.
bool UsableSubject(std::string_view subject) {
  return !subject.empty() && subject.size() <= kMaxSubjectSize && subject != kAdminSubject && !subject.starts_with(kModuleSubjects) &&
         std::all_of(subject.begin(), subject.end(), [](char c) { return c > ' ' && c < 127 && c != ','; });
}

absl::Status CheckTimes(const json& claims, Millis skew, WallTime now, WallTime& expires_at) {
  ASSIGN_OR_RETURN(const auto expires, Moment(claims, "exp"));
  if (!expires) return Refuse("The token has no exp, and one is required.");
  if (now - skew >= *expires) return Refuse("The token has expired.");
  ASSIGN_OR_RETURN(const auto not_before, Moment(claims, "nbf"));
  if (not_before && now + skew < *not_before) return Refuse("The token is not valid yet.");
  ASSIGN_OR_RETURN(const auto issued, Moment(claims, "iat"));
  if (issued && now + skew < *issued) return Refuse("The token was issued in the future.");
  expires_at = *expires + skew;
  return absl::OkStatus();
}

}  // namespace

bool LooksLikeJwt(std::string_view token) {
  // A header is an object, and `{"` is "eyJ" in base64url; blanks before the name make "ey" with another letter.
  return token.starts_with("ey") && std::count(token.begin(), token.end(), '.') == 2;
}

absl::StatusOr<ParsedJwt> ParseJwt(std::string_view token) {
  if (token.size() > limits::kMaxJwt) return Refuse("The token is larger than 8 KiB.");
  const size_t first = token.find('.'), second = first == std::string_view::npos ? first : token.find('.', first + 1);
  if (second == std::string_view::npos || token.find('.', second + 1) != std::string_view::npos) {
    return Refuse("The token has not the three parts of a JWT.");
  }
  ASSIGN_OR_RETURN(const json header, Part(token.substr(0, first), "header"));
  for (const char* name : {"crit", "b64", "zip", "enc"}) {
    if (header.contains(name)) return Refuse("The token's header asks for \"" + std::string(name) + "\", which is not understood here.");
  }
  const auto algorithm = header.find("alg");
  const auto known = algorithm != header.end() && algorithm->is_string() ? ParseJwtAlgorithm(algorithm->get_ref<const std::string&>()) : std::nullopt;
  if (!known) return Refuse("The token's alg is none of HS256, RS256, ES256, EdDSA.");
  ParsedJwt parsed{*known, "", nullptr, token.substr(0, second), ""};
  if (const auto id = header.find("kid"); id != header.end()) {
    if (!id->is_string() || id->get_ref<const std::string&>().empty()) return Refuse("The token's kid is no text.");
    parsed.key_id = id->get<std::string>();
  }
  ASSIGN_OR_RETURN(json claims, Part(token.substr(first + 1, second - first - 1), "claims"));
  parsed.claims = std::make_shared<const json>(std::move(claims));
  auto signature = DecodeBase64Url(token.substr(second + 1));
  if (!signature || signature->empty()) return Refuse("The token's signature is not base64url.");
  parsed.signature = *std::move(signature);
  return parsed;
}

absl::StatusOr<JwtClaims> CheckClaims(const ParsedJwt& token, const JwtSettings& settings, WallTime now) {
  const json& claims = *token.claims;
  JwtClaims said;
  RETURN_IF_ERROR(CheckTimes(claims, settings.clock_skew, now, said.expires_at));
  if (!settings.issuer.empty()) {
    const auto issuer = claims.find("iss");
    if (issuer == claims.end() || *issuer != settings.issuer) return Refuse("The token is of another issuer.");
  }
  if (!settings.audience.empty() && !HasAudience(claims, settings.audience)) return Refuse("The token is for another audience.");
  const json* subject = ClaimAt(claims, settings.subject_claim);
  if (subject == nullptr || !subject->is_string() || !UsableSubject(subject->get_ref<const std::string&>())) {
    return Refuse("The token's subject is missing or cannot be used: 1 to 128 visible characters without commas, neither \"admin\" nor \"module:…\".");
  }
  said.subject = subject->get<std::string>();
  if (const auto id = claims.find("jti"); id != claims.end() && id->is_string()) {
    const std::string& text = id->get_ref<const std::string&>();
    if (text.size() <= kMaxIdSize && UsableSubject(text)) said.id = text;
  }
  said.roles = Listed(claims, settings.roles_claim, ValidRoleName);
  said.permissions = Listed(claims, settings.permissions_claim, ValidPermission);
  return said;
}

std::string SignJwt(const std::string& key_id, std::string_view secret, const json& claims) {
  const json header = {{"alg", "HS256"}, {"kid", key_id}, {"typ", "JWT"}};
  std::string token = EncodeBase64Url(header.dump()) + "." + EncodeBase64Url(claims.dump());
  return token + "." + EncodeBase64Url(HmacSha256(secret, token));
}

}  // namespace bulkhead
