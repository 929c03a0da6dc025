// What a token check costs on the gateway's path, in nanoseconds of CPU: an opaque token and JWTs of each algorithm, as a keep-alive connection meets
// them (cached) and as one does that is new (not cached). Each line is the median of several rounds.
//
//   bench_token_check [MILLISECONDS]     per round; 200 by default
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "supervisor/auth/encoding.h"
#include "supervisor/auth/identity.h"
#include "supervisor/auth/jwt_verifier.h"

namespace {

using namespace bulkhead;

constexpr int kRounds = 5;
constexpr int kTokens = 1'000;  // in the table and among the remembered, so that a lookup is one

std::string PublicPem(EVP_PKEY* key) {
  std::unique_ptr<BIO, decltype(&BIO_free_all)> bio(BIO_new(BIO_s_mem()), BIO_free_all);
  PEM_write_bio_PUBKEY(bio.get(), key);
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  return {data, static_cast<size_t>(size)};
}

std::string Signature(EVP_PKEY* key, JwtAlgorithm algorithm, const std::string& input) {
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  EVP_DigestSignInit(context.get(), nullptr, algorithm == JwtAlgorithm::kEdDsa ? nullptr : EVP_sha256(), nullptr, key);
  std::string signature(1024, '\0');
  size_t size = signature.size();
  const auto* bytes = reinterpret_cast<const unsigned char*>(input.data());
  EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(signature.data()), &size, bytes, input.size());
  signature.resize(size);
  if (algorithm != JwtAlgorithm::kEs256) return signature;
  const auto* der = reinterpret_cast<const unsigned char*>(signature.data());
  ECDSA_SIG* both = d2i_ECDSA_SIG(nullptr, &der, static_cast<long>(size));
  std::string raw(64, '\0');
  BN_bn2binpad(ECDSA_SIG_get0_r(both), reinterpret_cast<unsigned char*>(raw.data()), 32);
  BN_bn2binpad(ECDSA_SIG_get0_s(both), reinterpret_cast<unsigned char*>(raw.data()) + 32, 32);
  ECDSA_SIG_free(both);
  return raw;
}

// CPU time, so that others on the machine change little.
double MedianNs(std::chrono::milliseconds round, const std::function<bool()>& check) {
  std::vector<double> medians;
  for (int r = 0; r < kRounds; ++r) {
    const clock_t began = clock(), length = static_cast<clock_t>(round.count() * CLOCKS_PER_SEC / 1'000);
    int64_t count = 0;
    while (clock() - began < length) {
      for (int i = 0; i < 64; ++i, ++count) {
        if (check()) continue;
        fprintf(stderr, "bench_token_check: a good token was refused\n");
        exit(1);
      }
    }
    medians.push_back(1e9 / CLOCKS_PER_SEC * static_cast<double>(clock() - began) / static_cast<double>(count));
  }
  std::sort(medians.begin(), medians.end());
  return medians[medians.size() / 2];
}

// What the gateway does of a request on a connection whose last token was the same (gateway/client_request.cc).
bool SameAsLast(const std::string& last, const std::string& header) { return ConstantTimeEquals(last, header); }

}  // namespace

int main(int argc, char** argv) {
  const auto round = std::chrono::milliseconds(argc > 1 ? std::max(atoi(argv[1]), 1) : 200);
  const std::string secret(32, 's'), access(32, 'a');
  struct Signer {
    JwtAlgorithm algorithm;
    std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key;
  };
  std::vector<Signer> signers;
  signers.push_back({JwtAlgorithm::kHs256, {nullptr, EVP_PKEY_free}});
  signers.push_back({JwtAlgorithm::kRs256, {EVP_PKEY_Q_keygen(nullptr, nullptr, "RSA", size_t{2048}), EVP_PKEY_free}});
  signers.push_back({JwtAlgorithm::kEs256, {EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256"), EVP_PKEY_free}});
  signers.push_back({JwtAlgorithm::kEdDsa, {EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"), EVP_PKEY_free}});
  std::vector<VerificationKey> keys;
  for (const Signer& signer : signers) {
    const std::string id(JwtAlgorithmName(signer.algorithm));
    keys.push_back(signer.key ? *VerificationKey::FromPem(id, signer.algorithm, PublicPem(signer.key.get())) : *VerificationKey::FromSecret(id, secret));
  }
  std::atomic<uint64_t> version{1};
  auto accounts = std::make_shared<const AccountTable>(MakeAccountTable({}, {}, {}));
  JwtVerifier verifier(Clock::Real(), {{}, keys, access}, [&] { return accounts; }, version);

  const WallTime now = Clock::Real().Wall();
  std::unordered_map<std::string, TokenTable::Entry> entries;
  const auto identity = std::make_shared<const Identity>(Identity{"x", {}, {"*"}, {}, ""});
  for (int i = 0; i < kTokens; ++i) entries[Sha256("bhk_" + std::to_string(i))] = {identity, std::nullopt, std::make_shared<std::atomic<int64_t>>(0)};
  const TokenTable table(std::move(entries));
  const std::string opaque = "bhk_77";

  printf("%-26s %12s %12s %14s\n", "ns per token check", "connection", "remembered", "not cached");
  const std::string header = "Bearer " + opaque;
  printf("%-26s %12.0f %12s %14.0f\n", "opaque (API token)", MedianNs(round, [&] { return SameAsLast(header, header); }), "-",
         MedianNs(round, [&] { return table.Find(opaque, Clock::Real().Wall()) != nullptr; }));
  const int64_t expiry = std::chrono::duration_cast<std::chrono::seconds>(now.time_since_epoch()).count() + 3'600;
  for (const Signer& signer : signers) {
    const std::string name(JwtAlgorithmName(signer.algorithm));
    const auto make = [&](int number) {
      const nlohmann::json claims = {{"sub", "somebody"}, {"exp", expiry}, {"jti", std::to_string(number)}, {"roles", {"viewer"}}};
      if (!signer.key) return SignJwt(name, secret, claims);
      const std::string input = EncodeBase64Url(nlohmann::json{{"alg", name}, {"kid", name}}.dump()) + "." + EncodeBase64Url(claims.dump());
      return input + "." + EncodeBase64Url(Signature(signer.key.get(), signer.algorithm, input));
    };
    bool unknown = false;
    for (int i = 0; i < kTokens / 4; ++i) (void)verifier.VerifyNow(make(i), unknown);
    const std::string token = make(0), bearer = "Bearer " + token;
    (void)verifier.VerifyNow(token, unknown);  // a signature of ES256 is another one each time
    const double connection = MedianNs(round, [&] { return SameAsLast(bearer, bearer); });
    const double remembered = MedianNs(round, [&] { return verifier.Remembered(token) != nullptr; });
    const double verified = MedianNs(round, [&] { return verifier.VerifyNow(token, unknown).ok(); });
    printf("%-26s %12.0f %12.0f %14.0f\n", (name + " (JWT)").c_str(), connection, remembered, verified);
  }
}
