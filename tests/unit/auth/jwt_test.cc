// JSON Web Tokens: the published vectors, and what attackers send.
#include "supervisor/auth/jwt.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "supervisor/auth/encoding.h"
#include "supervisor/auth/identity.h"
#include "supervisor/base/limits.h"
#include "supervisor/base/status.h"
#include "tests/unit/auth/vectors.h"

namespace bulkhead {
namespace {

using nlohmann::json;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;

const WallTime kNow = WallTime(seconds(2'000'000'000));

std::string Token(const json& header, const std::string& claims, const std::string& secret = std::string(32, 's')) {
  const std::string input = EncodeBase64Url(header.dump()) + "." + EncodeBase64Url(claims);
  return input + "." + EncodeBase64Url(HmacSha256(secret, input));
}
std::string Token(const json& claims) { return Token({{"alg", "HS256"}}, claims.dump()); }
json Good() { return {{"sub", "jo"}, {"exp", 2'000'000'100}}; }

std::string WhyNotParsed(const std::string& token) { return std::string(ParseJwt(token).status().message()); }
absl::StatusOr<JwtClaims> Check(const json& claims, const JwtSettings& settings = {}) {
  const std::string token = Token(claims);
  const auto parsed = ParseJwt(token);
  if (!parsed.ok()) return parsed.status();
  return CheckClaims(*parsed, settings, kNow);
}
std::string WhyNot(const json& claims, const JwtSettings& settings = {}) { return std::string(Check(claims, settings).status().message()); }

TEST(Base64Url, TakesOnlyTheOneWayToWriteEachByte) {
  EXPECT_EQ(DecodeBase64Url(""), "");
  EXPECT_EQ(DecodeBase64Url("-_8"), std::string("\xfb\xff"));
  for (const char* bad : {"a", "YQ==", "YQ=", "YR", "Y Q", "YQ\n", "+/8", "YWJ", "YQ.", "aaaaa"}) EXPECT_EQ(DecodeBase64Url(bad), std::nullopt) << bad;
  for (size_t size = 0; size < 70; ++size) {
    const std::string bytes = Sha256(std::to_string(size)).substr(0, size % 32) + std::string(size / 32, '\xff');
    EXPECT_EQ(DecodeBase64Url(EncodeBase64Url(bytes)), bytes);
  }
}

TEST(StrictJson, RefusesWhatTwoReadersCouldUnderstandInTwoWays) {
  EXPECT_TRUE(ParseStrictObject(R"({"a":{"b":1},"b":[{"a":1},{"a":2}]})", 4).ok());
  for (const char* bad : {R"({"a":1,"a":1})", R"({"x":[{"a":1,"\u0061":2}]})", "[]", "1", "", "{", R"({"a":1}x)", "null"})
    EXPECT_FALSE(ParseStrictObject(bad, 8).ok()) << bad;
  EXPECT_TRUE(ParseStrictObject(R"({"a":[[1]]})", 3).ok());
  EXPECT_FALSE(ParseStrictObject(R"({"a":[[[1]]]})", 3).ok());
  EXPECT_FALSE(ParseStrictObject(std::string(100'000, '[') + std::string(100'000, ']'), 16).ok());
}

TEST(Jwt, VerifiesTheExamplesOfRfc7515AndRfc8037) {
  for (const Vector& vector : Vectors()) {
    const VerificationKey key = KeyOf(vector);
    const size_t dot = vector.token.rfind('.');
    const auto signature = DecodeBase64Url(vector.token.substr(dot + 1));
    ASSERT_TRUE(signature.has_value()) << vector.name;
    EXPECT_TRUE(key.Verifies(vector.token.substr(0, dot), *signature)) << vector.name;
    EXPECT_FALSE(key.Verifies(vector.token.substr(0, dot - 1), *signature)) << vector.name;
    std::string other = *signature;
    other[5] ^= 1;
    EXPECT_FALSE(key.Verifies(vector.token.substr(0, dot), other)) << vector.name;
    EXPECT_FALSE(key.Verifies(vector.token.substr(0, dot), "")) << vector.name;
    EXPECT_FALSE(key.Verifies(vector.token.substr(0, dot), signature->substr(1))) << vector.name;
  }
  // A.1's claims, at a time before they expire: it has no subject, which is what we want of one.
  const auto parsed = ParseJwt(Vectors()[0].token);
  ASSERT_TRUE(parsed.ok());
  JwtSettings settings;
  settings.subject_claim = "iss";
  const auto claims = CheckClaims(*parsed, settings, WallTime(seconds(1'300'819'000)));
  ASSERT_TRUE(claims.ok()) << claims.status();
  EXPECT_EQ(claims->subject, "joe");
  EXPECT_THAT(std::string(CheckClaims(*parsed, settings, kNow).status().message()), HasSubstr("expired"));
}

TEST(Jwt, NoneIsNoAlgorithmAndTheUnsupportedAreRefused) {
  const std::string claims = EncodeBase64Url(Good().dump());
  // RFC 7515 A.5 with its empty signature, and spellings of it.
  for (const char* name : {"none", "None", "NONE", "nOnE", "", "HS384", "RS512", "ES512", "PS256", "ES256K", "hs256"}) {
    EXPECT_THAT(WhyNotParsed(EncodeBase64Url(json{{"alg", name}}.dump()) + "." + claims + ".AAAA"), HasSubstr("alg")) << name;
  }
  EXPECT_FALSE(ParseJwt("eyJhbGciOiJub25lIn0.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.").ok());
  EXPECT_FALSE(ParseJwt(EncodeBase64Url(R"({"alg":null})") + "." + claims + ".AAAA").ok());
  EXPECT_FALSE(ParseJwt(EncodeBase64Url(R"({"alg":["HS256"]})") + "." + claims + ".AAAA").ok());
  EXPECT_FALSE(ParseJwt(EncodeBase64Url("{}") + "." + claims + ".AAAA").ok());
  EXPECT_FALSE(ParseJwt(EncodeBase64Url(R"({"alg":"HS256"})") + "." + claims + ".").ok()) << "no signature";
}

TEST(Jwt, AHeaderThatAsksForMoreIsRefusedAndKeysInItAreNotLookedAt) {
  for (const char* name : {"crit", "b64", "zip", "enc"})
    EXPECT_THAT(WhyNotParsed(Token({{"alg", "HS256"}, {name, json::array({"exp"})}}, Good().dump())), HasSubstr(name));
  const json header = {{"alg", "HS256"}, {"jwk", {{"kty", "oct"}, {"k", "AAAA"}}}, {"jku", "http://127.0.0.1:1/"}, {"x5u", "http://127.0.0.1:1/"}};
  const std::string token = Token(header, Good().dump());
  const auto parsed = ParseJwt(token);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->key_id, "");
  EXPECT_FALSE(ParseJwt(Token({{"alg", "HS256"}, {"kid", 7}}, Good().dump())).ok());
  EXPECT_FALSE(ParseJwt(Token({{"alg", "HS256"}, {"kid", ""}}, Good().dump())).ok());
}

TEST(Jwt, AmbiguousOrBrokenTextIsRefused) {
  const std::string good = Token(Good());
  ASSERT_TRUE(ParseJwt(good).ok());
  const std::string input = EncodeBase64Url(R"({"alg":"HS256","alg":"HS256"})") + "." + EncodeBase64Url(Good().dump());
  EXPECT_THAT(WhyNotParsed(input + ".AAAA"), HasSubstr("one way only"));
  EXPECT_FALSE(ParseJwt(Token({{"alg", "HS256"}}, R"({"sub":"jo","sub":"admin","exp":2000000100})")).ok());
  EXPECT_FALSE(ParseJwt(Token({{"alg", "HS256"}}, "\xff{}")).ok());
  EXPECT_FALSE(ParseJwt(Token({{"alg", "HS256"}}, "[]")).ok());
  for (const std::string& bad : {good + "=", good + ".", "." + good, good.substr(0, good.find('.')), std::string(".."), std::string(), good + " ",
                                 " " + good, good + "\n", good.substr(0, good.size() - 2) + "!A"})
    EXPECT_FALSE(ParseJwt(bad).ok()) << bad;
  json large = Good();
  large["padding"] = std::string(limits::kMaxJwt, 'x');
  EXPECT_THAT(WhyNotParsed(Token(large)), HasSubstr("8 KiB"));
  json deep = 1;
  for (size_t i = 0; i < limits::kMaxJwtDepth; ++i) deep = json{{"a", deep}};
  EXPECT_FALSE(ParseJwt(Token({{"sub", "jo"}, {"exp", 1}, {"deep", deep}})).ok());
}

TEST(Jwt, TimesAreCheckedUpToTheSkewAndNotBeyond) {
  JwtSettings settings;  // 60 s
  const auto at = [&](const char* name, double offset) {
    json claims = Good();
    claims[name] = 2'000'000'000 + offset;
    return Check(claims, settings).ok();
  };
  EXPECT_TRUE(at("exp", -59));
  EXPECT_FALSE(at("exp", -60));
  EXPECT_TRUE(at("nbf", 60));
  EXPECT_FALSE(at("nbf", 61));
  EXPECT_TRUE(at("iat", 60));
  EXPECT_FALSE(at("iat", 61));
  settings.clock_skew = Millis(0);
  EXPECT_FALSE(at("exp", 0));
  EXPECT_TRUE(at("exp", 0.5));
  EXPECT_TRUE(at("nbf", 0));
  EXPECT_FALSE(at("nbf", 1));
  EXPECT_THAT(WhyNot({{"sub", "jo"}}), HasSubstr("no exp"));
  for (const json& odd : {json("2000000100"), json(nullptr), json(-1), json(1e300), json(true), json::array({2'000'000'100})}) {
    json claims = Good();
    claims["exp"] = odd;
    EXPECT_FALSE(Check(claims).ok()) << odd;
  }
  const auto far = Check({{"sub", "jo"}, {"exp", 250'000'000'000}});
  ASSERT_TRUE(far.ok()) << "far in the future";
  EXPECT_GT(far->expires_at, kNow);
  EXPECT_EQ(Check(Good())->expires_at, WallTime(seconds(2'000'000'160)));
}

TEST(Jwt, IssuerAndAudienceMustBeThoseThatAreConfigured) {
  JwtSettings settings;
  settings.issuer = "https://issuer";
  settings.audience = {"here", "there"};
  json claims = Good();
  EXPECT_THAT(WhyNot(claims, settings), HasSubstr("issuer"));
  claims["iss"] = json::array({"https://issuer"});
  EXPECT_THAT(WhyNot(claims, settings), HasSubstr("issuer"));
  claims["iss"] = "https://issuer";
  EXPECT_THAT(WhyNot(claims, settings), HasSubstr("audience"));
  for (const json& good : {json("here"), json("there"), json::array({"x", "there"})}) {
    claims["aud"] = good;
    EXPECT_TRUE(Check(claims, settings).ok()) << good;
  }
  for (const json& bad : {json("her"), json(1), json::array(), json::array({1}), json::array({json::array({"here"})})}) {
    claims["aud"] = bad;
    EXPECT_FALSE(Check(claims, settings).ok()) << bad;
  }
}

TEST(Jwt, SaysWhoItIsByTheConfiguredClaims) {
  JwtSettings settings;
  settings.roles_claim = "realm_access.roles";
  settings.permissions_claim = "scope";
  json claims = Good();
  claims["jti"] = "n-1";
  claims["realm_access"]["roles"] = {"viewer", "viewer", "line\nbreak", 7, "a,b"};
  claims["scope"] = "modules:read  openid NOT:valid";
  const auto said = Check(claims, settings);
  ASSERT_TRUE(said.ok());
  EXPECT_THAT(said->roles, ElementsAre("viewer"));
  EXPECT_THAT(said->permissions, ElementsAre("modules:read", "openid"));
  EXPECT_EQ(said->id, "n-1");
  for (const json& odd : {json(""), json("admin"), json("module:orders"), json("a b"), json("a,b"), json("a\r\nb"), json(7), json(std::string(129, 'a'))}) {
    claims["sub"] = odd;
    EXPECT_THAT(WhyNot(claims, settings), HasSubstr("subject")) << odd;
  }
  claims.erase("sub");
  EXPECT_FALSE(Check(claims, settings).ok());
  claims["https://x/user"] = "jo";
  settings.subject_claim = "https://x/user";
  EXPECT_TRUE(Check(claims, settings).ok()) << "a name with dots may be a name";
}

TEST(Jwt, OtherSecretsDoNotLookLikeOne) {
  EXPECT_TRUE(LooksLikeJwt(Token(Good())));
  for (const char* other : {"", "bhk_0123", "eyJ", "a.b.c", "ey.b", "ey.b.c.d"}) EXPECT_FALSE(LooksLikeJwt(other)) << other;
}

TEST(Keys, AreBoundToTheirAlgorithmAndItsType) {
  const VerificationKey ec = KeyOf(Vectors()[2]);
  EXPECT_EQ(ec.algorithm(), JwtAlgorithm::kEs256);
  // The signature of ES256 as DER, which is how others keep it, is none here.
  const Vector& es = Vectors()[2];
  const size_t dot = es.token.rfind('.');
  const std::string raw = *DecodeBase64Url(es.token.substr(dot + 1));
  const auto number = [](std::string n) { return (n[0] & 0x80 ? std::string(1, '\0') : std::string()) + n; };
  const std::string r = number(raw.substr(0, 32)), s = number(raw.substr(32));
  const std::string both = "\x02" + std::string(1, static_cast<char>(r.size())) + r + "\x02" + std::string(1, static_cast<char>(s.size())) + s;
  EXPECT_FALSE(ec.Verifies(es.token.substr(0, dot), "\x30" + std::string(1, static_cast<char>(both.size())) + both));
  EXPECT_FALSE(ec.Verifies(es.token.substr(0, dot), std::string(64, '\0')));
  EXPECT_FALSE(ec.Verifies(es.token.substr(0, dot), std::string(64, '\xff')));
  for (const Vector& a : Vectors()) {
    for (const Vector& b : Vectors()) {
      if (a.name == b.name) continue;
      const size_t at = b.token.rfind('.');
      EXPECT_FALSE(KeyOf(a).Verifies(b.token.substr(0, at), *DecodeBase64Url(b.token.substr(at + 1)))) << a.name << " " << b.name;
    }
  }
}

TEST(Keys, ThatAreTooShortOrOfAnotherTypeAreRefused) {
  EXPECT_FALSE(VerificationKey::FromSecret("a", std::string(31, 's')).ok());
  EXPECT_TRUE(VerificationKey::FromSecret("a", std::string(32, 's')).ok());
  EXPECT_FALSE(VerificationKey::FromPem("a", JwtAlgorithm::kRs256, "no key").ok());
  EXPECT_FALSE(VerificationKey::FromPem("a", JwtAlgorithm::kHs256, kEd25519Pem).ok());
  EXPECT_FALSE(VerificationKey::FromPem("a", JwtAlgorithm::kRs256, kEd25519Pem).ok());
  EXPECT_FALSE(VerificationKey::FromPem("a", JwtAlgorithm::kEs256, kEd25519Pem).ok());
  const auto ed = VerificationKey::FromPem("a", JwtAlgorithm::kEdDsa, kEd25519Pem);
  ASSERT_TRUE(ed.ok()) << ed.status();
  EXPECT_EQ(ed->thumbprint(), KeyOf(Vectors()[3]).thumbprint());
  EXPECT_THAT(std::string(VerificationKey::FromRsa("a", std::string(128, '\xff'), "\x01\x01").status().message()), HasSubstr("2048"));
  EXPECT_FALSE(VerificationKey::FromRsa("a", std::string(256, '\xff'), "\x02").ok());
  EXPECT_FALSE(VerificationKey::FromRsa("a", std::string(256, '\xff'), "\x01").ok());
  EXPECT_FALSE(VerificationKey::FromRsa("a", std::string(2048, '\xff'), "\x03").ok());
  EXPECT_FALSE(VerificationKey::FromP256("a", std::string(32, '\x01'), std::string(32, '\x01')).ok()) << "not on the curve";
  EXPECT_FALSE(VerificationKey::FromP256("a", std::string(31, '\x01'), std::string(32, '\x01')).ok());
  EXPECT_FALSE(VerificationKey::FromEd25519("a", std::string(31, '\x01')).ok());
}

TEST(Jwks, GivesWhatIsForVerifyingSignaturesAndPassesOverTheRest) {
  const json rsa = Jwk(Vectors()[1]), ec = Jwk(Vectors()[2]), ed = Jwk(Vectors()[3]);
  const auto with = [](json jwk, const json& more) {
    jwk.update(more);
    return jwk;
  };
  std::vector<std::string> passed_over;
  const json keys = {{"keys",
                      {with(rsa, {{"kid", "r"}, {"use", "sig"}, {"alg", "RS256"}}), with(ec, {{"kid", "e"}, {"key_ops", {"verify"}}}), with(ed, {{"kid", "d"}}),
                       with(ed, {{"kid", "d"}}), with(rsa, {{"kid", "1"}, {"use", "enc"}}), with(rsa, {{"kid", "2"}, {"alg", "RS512"}}),
                       with(ec, {{"kid", "3"}, {"key_ops", {"sign"}}}), with(ec, {{"kid", "4"}, {"d", "AAAA"}}), with(ec, {{"kid", "5"}, {"crv", "P-384"}}),
                       {{"kty", "oct"}, {"kid", "6"}, {"k", std::string(64, 'A')}}, with(rsa, {{"kid", "7"}, {"n", "AQAB"}}), with(ed, {{"kid", 8}}), 9,
                       with(ed, {{"kid", "10"}, {"x", "not base64url!"}})}}};
  const auto set = ParseJwks(keys.dump(), &passed_over);
  ASSERT_TRUE(set.ok()) << set.status();
  ASSERT_EQ(set->keys().size(), 3u);
  EXPECT_EQ(passed_over.size(), 11u);
  EXPECT_EQ(set->Find("r")->algorithm(), JwtAlgorithm::kRs256);
  EXPECT_EQ(set->Find("e")->algorithm(), JwtAlgorithm::kEs256);
  EXPECT_EQ(set->Find("d")->algorithm(), JwtAlgorithm::kEdDsa);
  EXPECT_EQ(set->Find("1"), nullptr);
  EXPECT_EQ(set->Find(""), nullptr);
  for (const char* bad : {"{}", "[]", "", R"({"keys":{}})", R"({"keys":[]})", R"({"keys":[{"kty":"oct","k":"AAAA"}]})"})
    EXPECT_FALSE(ParseJwks(bad).ok()) << bad;
  json many = {{"keys", json::array()}};
  for (size_t i = 0; i <= limits::kMaxKeys; ++i) many["keys"].push_back(with(ed, {{"kid", std::to_string(i)}}));
  EXPECT_FALSE(ParseJwks(many.dump()).ok());
}

}  // namespace
}  // namespace bulkhead
