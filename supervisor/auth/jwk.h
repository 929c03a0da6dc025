// Keys that verify JSON Web Tokens, and sets of them: from files, from JWK sets (RFC 7517, 7518 6, 8037). Immutable; thread-safe.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

struct evp_pkey_st;

namespace bulkhead {

enum class JwtAlgorithm { kHs256, kRs256, kEs256, kEdDsa };
std::string_view JwtAlgorithmName(JwtAlgorithm algorithm);  // "HS256", …, "EdDSA"
std::optional<JwtAlgorithm> ParseJwtAlgorithm(std::string_view name);

// One key, bound to the one algorithm that it may be used with (RFC 8725, 3.1).
class VerificationKey {
 public:
  // CONFIG_INVALID: a secret below 32 bytes (RFC 7518, 3.2).
  static absl::StatusOr<VerificationKey> FromSecret(std::string id, std::string secret);
  // A public key in PEM. CONFIG_INVALID: unreadable, of another type than the algorithm wants, RSA below 2048 bits, another curve.
  static absl::StatusOr<VerificationKey> FromPem(std::string id, JwtAlgorithm algorithm, std::string_view pem);
  // Raw parts as a JWK has them. INVALID_ARGUMENT like above.
  static absl::StatusOr<VerificationKey> FromRsa(std::string id, std::string_view n, std::string_view e);
  static absl::StatusOr<VerificationKey> FromP256(std::string id, std::string_view x, std::string_view y);
  static absl::StatusOr<VerificationKey> FromEd25519(std::string id, std::string_view x);

  const std::string& id() const { return id_; }
  JwtAlgorithm algorithm() const { return algorithm_; }
  // Whether `signature` is of `input`. The form of a signature is the JWS one: R and S in 32 bytes each for ES256 (RFC 7518, 3.4).
  bool Verifies(std::string_view input, std::string_view signature) const;
  // Two keys with the same one are the same key.
  const std::string& thumbprint() const { return thumbprint_; }

 private:
  VerificationKey(std::string id, JwtAlgorithm algorithm) : id_(std::move(id)), algorithm_(algorithm) {}
  static absl::StatusOr<VerificationKey> Checked(std::string id, JwtAlgorithm algorithm, evp_pkey_st* key);

  std::string id_;
  JwtAlgorithm algorithm_;
  std::string secret_;  // HS256
  std::shared_ptr<evp_pkey_st> key_;
  std::string thumbprint_;
};

// Keys by their id. An id is unique in it; keys without one are found by their algorithm.
class KeySet {
 public:
  KeySet() = default;
  explicit KeySet(std::vector<VerificationKey> keys) : keys_(std::move(keys)) {}
  const VerificationKey* Find(std::string_view id) const;
  const std::vector<VerificationKey>& keys() const { return keys_; }
  bool operator==(const KeySet& other) const;

 private:
  std::vector<VerificationKey> keys_;
};

// A JWK set as an issuer publishes it. What is not for us is passed over: other types, curves and algorithms, `use` other than "sig",
// `key_ops` without "verify", symmetric and private keys, a second key of one id. INVALID_ARGUMENT: no JWK set, more than
// limits::kMaxKeys, or no usable key in it. `passed_over` gets a sentence for each key that is not used.
absl::StatusOr<KeySet> ParseJwks(std::string_view text, std::vector<std::string>* passed_over = nullptr);

}  // namespace bulkhead
