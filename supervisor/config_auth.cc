// `auth.jwt` of the configuration file: whose JSON Web Tokens are taken.
#include <algorithm>
#include <array>
#include <filesystem>

#include "nlohmann/json.hpp"
#include "supervisor/auth/jwk.h"
#include "supervisor/auth/jwt_verifier.h"
#include "supervisor/auth/key_source.h"
#include "supervisor/base/duration.h"
#include "supervisor/base/limits.h"
#include "supervisor/config_layers.h"
#include "supervisor/manifest/document.h"
#include "supervisor/manifest/nearest.h"

namespace bulkhead {
namespace {

using nlohmann::json;

constexpr std::array kJwtKeys{"issuer", "audience", "clockSkew", "subjectClaim", "rolesClaim", "permissionsClaim", "keys", "jwksUrl", "jwksRefresh"};
constexpr std::array kKeyKeys{"id", "algorithm", "secretFile", "publicKeyFile"};
constexpr Millis kMinRefresh{10'000};
constexpr Millis kMaxRefresh{int64_t{24} * 3'600'000};
constexpr size_t kMaxKeyId = 256;

class JwtReader {
 public:
  JwtReader(const std::string& cwd, JwtSettings& jwt, const Blame& wrong) : cwd_(cwd), jwt_(jwt), wrong_(wrong) {}

  void Read(const json& value, const std::string& pointer) {
    for (const auto& [name, member] : value.items()) {
      const std::string at = PointerTo(pointer, name), key = "auth.jwt." + name;
      if (std::find(kJwtKeys.begin(), kJwtKeys.end(), name) == kJwtKeys.end()) {
        wrong_(at, key, "There is no such key." + DidYouMean(name, {kJwtKeys.begin(), kJwtKeys.end()}));
      } else if (member.is_null()) {
        continue;
      } else if (name == "keys") {
        Keys(member, at);
      } else if (name == "audience") {
        Audience(member, at);
      } else if (!member.is_string() || member.get_ref<const std::string&>().empty()) {
        wrong_(at, key, "This must be a text.");
      } else {
        Text(name, member.get<std::string>(), at, key);
      }
    }
  }

 private:
  void Text(const std::string& name, const std::string& text, const std::string& at, const std::string& key) {
    if (name == "issuer") jwt_.issuer = text;
    if (name == "subjectClaim") jwt_.subject_claim = text;
    if (name == "rolesClaim") jwt_.roles_claim = text;
    if (name == "permissionsClaim") jwt_.permissions_claim = text;
    if (name == "clockSkew") Duration(text, Millis(0), limits::kMaxClockSkew, "from 0s to 300s", jwt_.clock_skew, at, key);
    if (name == "jwksRefresh") Duration(text, kMinRefresh, kMaxRefresh, "from 10s to 24h", jwt_.jwks_refresh, at, key);
    if (name != "jwksUrl") return;
    jwt_.jwks_url = text;
    if (std::string fault = JwksUrlFault(text); !fault.empty()) wrong_(at, key, std::move(fault));
  }

  void Duration(const std::string& text, Millis least, Millis most, const char* range, Millis& target, const std::string& at, const std::string& key) {
    const auto parsed = ParseDuration(text);
    if (!parsed || *parsed < least || *parsed > most) return wrong_(at, key, std::string("This must be a duration such as 60s, ") + range + ".");
    target = *parsed;
  }

  void Audience(const json& value, const std::string& at) {
    const json list = value.is_array() ? value : json::array({value});
    for (const json& one : list) {
      if (!one.is_string() || one.get_ref<const std::string&>().empty()) return wrong_(at, "auth.jwt.audience", "This must be a text, or a list of texts.");
      jwt_.audience.push_back(one.get<std::string>());
    }
  }

  void Keys(const json& value, const std::string& pointer) {
    if (!value.is_array()) return wrong_(pointer, "auth.jwt.keys", "This must be a list of keys.");
    if (value.size() > limits::kMaxKeys) return wrong_(pointer, "auth.jwt.keys", "At most 64 keys are possible.");
    for (size_t i = 0; i < value.size(); ++i) {
      const std::string at = PointerTo(pointer, i), key = "auth.jwt.keys[" + std::to_string(i) + "]";
      if (!value[i].is_object()) {
        wrong_(at, key, "A key is a mapping of id, algorithm, and secretFile or publicKeyFile.");
      } else {
        Key(value[i], at, key);
      }
    }
  }

  void Key(const json& value, const std::string& pointer, const std::string& key) {
    JwtKeyFile file;
    std::string secret, shown;
    for (const auto& [name, member] : value.items()) {
      if (std::find(kKeyKeys.begin(), kKeyKeys.end(), name) == kKeyKeys.end()) {
        return wrong_(PointerTo(pointer, name), key + "." + name, "There is no such key." + DidYouMean(name, {kKeyKeys.begin(), kKeyKeys.end()}));
      }
      if (!member.is_string()) return wrong_(PointerTo(pointer, name), key + "." + name, "This must be a text.");
      const std::string& text = member.get_ref<const std::string&>();
      if (name == "id") file.id = text;
      else if (name == "algorithm") file.algorithm = text;
      else (name == "secretFile" ? secret : shown) = text;
    }
    if (file.id.empty() || file.id.size() > kMaxKeyId) return wrong_(pointer, key, "The key needs an id, which tokens name as their kid.");
    if (file.id == kAccessKeyId) return wrong_(pointer, key, "The id \"bulkhead\" belongs to the supervisor's own access tokens.");
    const auto same = [&](const JwtKeyFile& other) { return other.id == file.id; };
    if (std::any_of(jwt_.keys.begin(), jwt_.keys.end(), same)) return wrong_(pointer, key, "Another key has the id \"" + file.id + "\" already.");
    const auto algorithm = ParseJwtAlgorithm(file.algorithm);
    if (!algorithm) return wrong_(pointer, key, "The algorithm must be HS256, RS256, ES256 or EdDSA.");
    const bool symmetric = *algorithm == JwtAlgorithm::kHs256;
    if (secret.empty() == symmetric || shown.empty() != symmetric) {
      return wrong_(pointer, key,
                    symmetric ? "HS256 wants a secretFile, and no publicKeyFile." : file.algorithm + " wants a publicKeyFile, and no secretFile.");
    }
    file.file = (std::filesystem::path(cwd_) / (symmetric ? secret : shown)).lexically_normal().string();
    jwt_.keys.push_back(std::move(file));
  }

  const std::string& cwd_;
  JwtSettings& jwt_;
  const Blame& wrong_;
};

}  // namespace

void ReadAuth(const json& value, const std::string& pointer, const std::string& cwd, JwtSettings& jwt, const Blame& wrong) {
  if (!value.is_object()) return wrong(pointer, "auth", "This must be a mapping of keys and values.");
  for (const auto& [name, member] : value.items()) {
    const std::string at = PointerTo(pointer, name);
    if (name != "jwt") {
      wrong(at, "auth." + name, "There is no such key." + DidYouMean(name, {"jwt"}));
    } else if (member.is_object()) {
      JwtReader(cwd, jwt, wrong).Read(member, at);
    } else if (!member.is_null()) {
      wrong(at, "auth.jwt", "This must be a mapping of keys and values.");
    }
  }
}

}  // namespace bulkhead
