#include "supervisor/auth/jwk.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <algorithm>
#include <array>

#include "nlohmann/json.hpp"
#include "supervisor/auth/encoding.h"
#include "supervisor/auth/identity.h"
#include "supervisor/base/limits.h"
#include "supervisor/base/log.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

using nlohmann::json;

constexpr std::array<std::string_view, 4> kNames = {"HS256", "RS256", "ES256", "EdDSA"};
constexpr size_t kMinSecret = 32;
constexpr size_t kMaxSecret = 64 * 1024;
constexpr int kMinRsaBits = 2048;
constexpr int kMaxRsaBits = 8192;   // verifying takes time that grows with its square
constexpr size_t kMaxExponent = 8;  // bytes
constexpr size_t kP256Bytes = 32, kEd25519Bytes = 32;
constexpr size_t kMaxKeyId = 256;

template <typename T, void (*Free)(T*)>
struct Freed {
  void operator()(T* object) const { Free(object); }
};
template <typename T, void (*Free)(T*)>
using Owned = std::unique_ptr<T, Freed<T, Free>>;
using OwnedBignum = Owned<BIGNUM, BN_free>;
using OwnedContext = Owned<EVP_PKEY_CTX, EVP_PKEY_CTX_free>;
using OwnedDigest = Owned<EVP_MD_CTX, EVP_MD_CTX_free>;
using OwnedBuild = Owned<OSSL_PARAM_BLD, OSSL_PARAM_BLD_free>;
using OwnedParams = Owned<OSSL_PARAM, OSSL_PARAM_free>;
using OwnedSignature = Owned<ECDSA_SIG, ECDSA_SIG_free>;

const unsigned char* Bytes(std::string_view text) { return reinterpret_cast<const unsigned char*>(text.data()); }

OwnedBignum ToBignum(std::string_view bytes) { return OwnedBignum(BN_bin2bn(Bytes(bytes), static_cast<int>(bytes.size()), nullptr)); }

absl::Status Unusable(std::string_view id, std::string_view why) {
  return Error("CONFIG_INVALID", "The key \"" + std::string(id) + "\" cannot be used: " + std::string(why) + ".");
}

EVP_PKEY* FromParams(const char* type, OSSL_PARAM_BLD* build) {
  EVP_PKEY* key = nullptr;
  const OwnedParams params(OSSL_PARAM_BLD_to_param(build));
  const OwnedContext context(EVP_PKEY_CTX_new_from_name(nullptr, type, nullptr));
  if (!params || !context || EVP_PKEY_fromdata_init(context.get()) != 1) return nullptr;
  return EVP_PKEY_fromdata(context.get(), &key, EVP_PKEY_PUBLIC_KEY, params.get()) == 1 ? key : nullptr;
}

// R and S as DER, which is what OpenSSL verifies; empty when it can't be one.
std::string ToDer(std::string_view signature) {
  if (signature.size() != 2 * kP256Bytes) return {};
  OwnedBignum r = ToBignum(signature.substr(0, kP256Bytes)), s = ToBignum(signature.substr(kP256Bytes));
  const OwnedSignature both(ECDSA_SIG_new());
  if (!r || !s || !both || ECDSA_SIG_set0(both.get(), r.release(), s.release()) != 1) return {};
  unsigned char* der = nullptr;
  const int size = i2d_ECDSA_SIG(both.get(), &der);
  if (size <= 0) return {};
  std::string result(reinterpret_cast<char*>(der), static_cast<size_t>(size));
  OPENSSL_free(der);
  return result;
}

absl::Status CheckRsa(const std::string& id, const EVP_PKEY* key) {
  const int bits = EVP_PKEY_get_bits(key);
  if (bits < kMinRsaBits) return Unusable(id, "it is RSA with " + std::to_string(bits) + " bits, and at least 2048 are needed");
  if (bits > kMaxRsaBits) return Unusable(id, "it is RSA with more than 8192 bits");
  BIGNUM* exponent = nullptr;
  if (EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_E, &exponent) != 1) return Unusable(id, "it has no exponent");
  const OwnedBignum owned(exponent);
  if (!BN_is_odd(exponent) || BN_is_one(exponent) || BN_num_bytes(exponent) > static_cast<int>(kMaxExponent)) {
    return Unusable(id, "its RSA exponent is none");
  }
  return absl::OkStatus();
}

absl::Status CheckP256(const std::string& id, EVP_PKEY* key) {
  char group[32] = {};
  size_t size = 0;
  if (EVP_PKEY_get_utf8_string_param(key, OSSL_PKEY_PARAM_GROUP_NAME, group, sizeof group, &size) != 1 ||
      std::string_view(group) != SN_X9_62_prime256v1) {
    return Unusable(id, "ES256 wants a key on the curve P-256");
  }
  const OwnedContext context(EVP_PKEY_CTX_new(key, nullptr));
  if (!context || EVP_PKEY_public_check(context.get()) != 1) return Unusable(id, "it is not a point of the curve");
  return absl::OkStatus();
}

// One member of a JWK as bytes; nullopt when it is missing or no base64url.
std::optional<std::string> Member(const json& jwk, const char* name) {
  const auto found = jwk.find(name);
  if (found == jwk.end() || !found->is_string()) return std::nullopt;
  return DecodeBase64Url(found->get_ref<const std::string&>());
}

std::string TextMember(const json& jwk, const char* name) {
  const auto found = jwk.find(name);
  return found != jwk.end() && found->is_string() ? found->get<std::string>() : "";
}

// Why a JWK is not for verifying signatures here; empty when it may be.
std::string NotForUs(const json& jwk, std::string_view algorithm) {
  for (const char* secret : {"d", "p", "q", "k", "dp", "dq", "qi"}) {
    if (jwk.contains(secret)) return "it is published together with its secret part";
  }
  if (jwk.contains("use") && jwk["use"] != "sig") return "its use is not \"sig\"";
  if (const auto operations = jwk.find("key_ops"); operations != jwk.end()) {
    if (!operations->is_array() || std::find(operations->begin(), operations->end(), "verify") == operations->end()) {
      return "its key_ops do not hold \"verify\"";
    }
  }
  if (jwk.contains("alg") && jwk["alg"] != algorithm) return "its alg is not " + std::string(algorithm);
  return "";
}

absl::StatusOr<VerificationKey> FromJwk(const json& jwk) {
  const std::string id = TextMember(jwk, "kid"), type = TextMember(jwk, "kty"), curve = TextMember(jwk, "crv");
  const auto refuse = [](std::string_view why) { return Error("INVALID_ARGUMENT", why); };
  if ((jwk.contains("kid") && id.empty()) || id.size() > kMaxKeyId) return refuse("its kid is no usable text");
  std::string_view algorithm;
  if (type == "RSA") algorithm = "RS256";
  else if (type == "EC" && curve == "P-256") algorithm = "ES256";
  else if (type == "OKP" && curve == "Ed25519") algorithm = "EdDSA";
  else if (type == "oct") return refuse("a symmetric key has no place in a published set");
  else return refuse("its type or curve is not supported here");
  if (const std::string why = NotForUs(jwk, algorithm); !why.empty()) return refuse(why);
  if (type == "RSA") {
    const auto n = Member(jwk, "n"), e = Member(jwk, "e");
    if (!n || !e) return refuse("n or e is missing or no base64url");
    return VerificationKey::FromRsa(id, *n, *e);
  }
  const auto x = Member(jwk, "x"), y = Member(jwk, "y");
  if (!x || (type == "EC" && !y)) return refuse("x or y is missing or no base64url");
  return type == "EC" ? VerificationKey::FromP256(id, *x, *y) : VerificationKey::FromEd25519(id, *x);
}

}  // namespace

std::string_view JwtAlgorithmName(JwtAlgorithm algorithm) { return kNames.at(static_cast<size_t>(algorithm)); }

std::optional<JwtAlgorithm> ParseJwtAlgorithm(std::string_view name) {
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == name) return static_cast<JwtAlgorithm>(i);
  }
  return std::nullopt;
}

absl::StatusOr<VerificationKey> VerificationKey::FromSecret(std::string id, std::string secret) {
  if (secret.size() < kMinSecret) return Unusable(id, "a secret of HS256 has at least 32 bytes");
  if (secret.size() > kMaxSecret) return Unusable(id, "a secret of HS256 has at most 64 KiB");
  VerificationKey key(std::move(id), JwtAlgorithm::kHs256);
  key.thumbprint_ = Sha256("HS256 " + secret);
  key.secret_ = std::move(secret);
  return key;
}

// Takes `raw`.
absl::StatusOr<VerificationKey> VerificationKey::Checked(std::string id, JwtAlgorithm algorithm, EVP_PKEY* raw) {
  if (raw == nullptr) return Unusable(id, "it is no public key that can be read");
  std::shared_ptr<EVP_PKEY> owned(raw, EVP_PKEY_free);
  const int wanted = algorithm == JwtAlgorithm::kRs256 ? EVP_PKEY_RSA : algorithm == JwtAlgorithm::kEs256 ? EVP_PKEY_EC : EVP_PKEY_ED25519;
  if (EVP_PKEY_get_base_id(raw) != wanted) return Unusable(id, "it is not of the type that " + std::string(JwtAlgorithmName(algorithm)) + " wants");
  if (algorithm == JwtAlgorithm::kRs256) RETURN_IF_ERROR(CheckRsa(id, raw));
  if (algorithm == JwtAlgorithm::kEs256) RETURN_IF_ERROR(CheckP256(id, raw));
  unsigned char* der = nullptr;
  const int size = i2d_PUBKEY(raw, &der);
  if (size <= 0) return Unusable(id, "it cannot be written");
  VerificationKey key(std::move(id), algorithm);
  key.thumbprint_ = Sha256({reinterpret_cast<char*>(der), static_cast<size_t>(size)});
  OPENSSL_free(der);
  key.key_ = std::move(owned);
  return key;
}

absl::StatusOr<VerificationKey> VerificationKey::FromPem(std::string id, JwtAlgorithm algorithm, std::string_view pem) {
  if (algorithm == JwtAlgorithm::kHs256) return Unusable(id, "HS256 wants a secretFile, and no public key");
  const Owned<BIO, BIO_free_all> bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  return Checked(std::move(id), algorithm, bio ? PEM_read_bio_PUBKEY(bio.get(), nullptr, nullptr, nullptr) : nullptr);
}

absl::StatusOr<VerificationKey> VerificationKey::FromRsa(std::string id, std::string_view n, std::string_view e) {
  if (n.size() > kMaxRsaBits / 8 + 1 || e.empty() || e.size() > kMaxExponent) return Unusable(id, "its RSA numbers have an impossible size");
  const OwnedBuild build(OSSL_PARAM_BLD_new());
  const OwnedBignum modulus = ToBignum(n), exponent = ToBignum(e);
  if (!build || !modulus || !exponent || OSSL_PARAM_BLD_push_BN(build.get(), OSSL_PKEY_PARAM_RSA_N, modulus.get()) != 1 ||
      OSSL_PARAM_BLD_push_BN(build.get(), OSSL_PKEY_PARAM_RSA_E, exponent.get()) != 1) {
    return Unusable(id, "its RSA numbers cannot be read");
  }
  return Checked(std::move(id), JwtAlgorithm::kRs256, FromParams("RSA", build.get()));
}

absl::StatusOr<VerificationKey> VerificationKey::FromP256(std::string id, std::string_view x, std::string_view y) {
  if (x.size() != kP256Bytes || y.size() != kP256Bytes) return Unusable(id, "x and y of P-256 have 32 bytes each");
  const std::string point = "\x04" + std::string(x) + std::string(y);
  const OwnedBuild build(OSSL_PARAM_BLD_new());
  if (!build || OSSL_PARAM_BLD_push_utf8_string(build.get(), OSSL_PKEY_PARAM_GROUP_NAME, SN_X9_62_prime256v1, 0) != 1 ||
      OSSL_PARAM_BLD_push_octet_string(build.get(), OSSL_PKEY_PARAM_PUB_KEY, point.data(), point.size()) != 1) {
    return Unusable(id, "its point cannot be read");
  }
  return Checked(std::move(id), JwtAlgorithm::kEs256, FromParams("EC", build.get()));
}

absl::StatusOr<VerificationKey> VerificationKey::FromEd25519(std::string id, std::string_view x) {
  if (x.size() != kEd25519Bytes) return Unusable(id, "x of Ed25519 has 32 bytes");
  return Checked(std::move(id), JwtAlgorithm::kEdDsa, EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, Bytes(x), x.size()));
}

bool VerificationKey::Verifies(std::string_view input, std::string_view signature) const {
  if (algorithm_ == JwtAlgorithm::kHs256) return ConstantTimeEquals(HmacSha256(secret_, input), signature);
  std::string der;
  if (algorithm_ == JwtAlgorithm::kEs256) {
    der = ToDer(signature);
    if (der.empty()) return false;
    signature = der;
  }
  const OwnedDigest context(EVP_MD_CTX_new());
  const EVP_MD* digest = algorithm_ == JwtAlgorithm::kEdDsa ? nullptr : EVP_sha256();
  // RS256 is PKCS #1 v1.5, which is what an RSA key does without being told otherwise.
  return context && EVP_DigestVerifyInit(context.get(), nullptr, digest, nullptr, key_.get()) == 1 &&
         EVP_DigestVerify(context.get(), Bytes(signature), signature.size(), Bytes(input), input.size()) == 1;
}

const VerificationKey* KeySet::Find(std::string_view id) const {
  if (id.empty()) return nullptr;
  const auto found = std::find_if(keys_.begin(), keys_.end(), [&](const VerificationKey& key) { return key.id() == id; });
  return found == keys_.end() ? nullptr : &*found;
}

bool KeySet::operator==(const KeySet& other) const {
  return std::equal(keys_.begin(), keys_.end(), other.keys_.begin(), other.keys_.end(), [](const auto& a, const auto& b) {
    return a.id() == b.id() && a.algorithm() == b.algorithm() && a.thumbprint() == b.thumbprint();
  });
}

absl::StatusOr<KeySet> ParseJwks(std::string_view text, std::vector<std::string>* passed_over) {
  ASSIGN_OR_RETURN(const json set, ParseStrictObject(text, static_cast<int>(limits::kMaxJwtDepth)));
  const auto list = set.find("keys");
  if (list == set.end() || !list->is_array()) return Error("INVALID_ARGUMENT", "It is no JWK set: there is no list \"keys\".");
  if (list->size() > limits::kMaxKeys) return Error("INVALID_ARGUMENT", "The JWK set has more than 64 keys.");
  std::vector<VerificationKey> keys;
  for (size_t i = 0; i < list->size(); ++i) {
    const json& jwk = (*list)[i];
    absl::StatusOr<VerificationKey> key = jwk.is_object() ? FromJwk(jwk) : Error("INVALID_ARGUMENT", "it is no object");
    if (key.ok() && std::any_of(keys.begin(), keys.end(), [&](const auto& k) { return !k.id().empty() && k.id() == key->id(); })) {
      key = Error("INVALID_ARGUMENT", "another key has its kid");
    }
    if (key.ok()) {
      keys.push_back(*std::move(key));
    } else if (passed_over != nullptr) {
      passed_over->push_back("key " + std::to_string(i) + ": " + std::string(key.status().message()));
    }
  }
  if (keys.empty()) return Error("INVALID_ARGUMENT", "The JWK set has no key that can be used.");
  return KeySet(std::move(keys));
}

}  // namespace bulkhead
