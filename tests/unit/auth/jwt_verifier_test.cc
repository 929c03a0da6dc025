// Tokens as identities: keys and accounts that change, what is remembered, and keys behind a real HTTP server.
#include "supervisor/auth/jwt_verifier.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <future>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "supervisor/base/fd.h"
#include "supervisor/base/limits.h"
#include "supervisor/base/status.h"
#include "tests/unit/auth/vectors.h"

namespace bulkhead {
namespace {

using nlohmann::json;
using testing::ElementsAre;

class ShiftableClock : public Clock {
 public:
  Instant Now() const override { return Clock::Real().Now() + Millis(shift_ms.load()); }
  WallTime Wall() const override { return Clock::Real().Wall() + Millis(shift_ms.load()); }
  std::atomic<int64_t> shift_ms{0};
};

int64_t SecondsOf(WallTime time) { return std::chrono::duration_cast<std::chrono::seconds>(time.time_since_epoch()).count(); }

// Serves what it is told to, one connection after the other.
class KeyServer {
 public:
  KeyServer() {
    listener_.Reset(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof at;
    EXPECT_EQ(bind(listener_.get(), reinterpret_cast<sockaddr*>(&at), size), 0);
    EXPECT_EQ(listen(listener_.get(), 16), 0);
    getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&at), &size);
    url = "http://127.0.0.1:" + std::to_string(ntohs(at.sin_port)) + "/keys";
    thread_ = std::thread([this] { Run(); });
  }
  ~KeyServer() {
    stopping_ = true;
    thread_.join();
  }
  void Say(const std::string& status, const std::string& body, const std::string& headers = "") {
    answer_.With([&](std::string& answer) {
      answer = "HTTP/1.1 " + status + "\r\n" + headers + "Content-Length: " + std::to_string(body.size()) + "\r\nConnection: close\r\n\r\n" + body;
    });
  }
  std::string url;
  std::atomic<int> requests{0};

 private:
  void Run() {
    while (!stopping_) {
      pollfd ready{listener_.get(), POLLIN, 0};
      if (poll(&ready, 1, 20) <= 0) continue;
      const UniqueFd client(accept(listener_.get(), nullptr, nullptr));
      char buffer[4096];
      (void)!read(client.get(), buffer, sizeof buffer);
      const std::string answer = answer_.With([](const std::string& a) { return a; });
      ++requests;
      (void)!write(client.get(), answer.data(), answer.size());
    }
  }
  UniqueFd listener_;
  Guarded<std::string> answer_;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

class JwtVerifierTest : public testing::Test {
 protected:
  JwtVerifierTest() {
    AccountTable table;
    table = MakeAccountTable({{"custom", "", {"things:read"}, {}, {}}}, {User("id-1", "anna", {"viewer"})}, {"ended"});
    Use(std::move(table));
  }
  static UserRow User(const std::string& id, const std::string& name, std::vector<std::string> roles, int64_t epoch = 3, bool enabled = true) {
    UserRow row;
    row.id = id;
    row.name = name;
    row.roles = std::move(roles);
    row.epoch = epoch;
    row.enabled = enabled;
    return row;
  }
  void Use(AccountTable table) {
    accounts_.With([&](auto& accounts) { accounts = std::make_shared<const AccountTable>(std::move(table)); });
    ++version_;
  }
  std::unique_ptr<JwtVerifier> Make(JwtSettings settings = {}) {
    std::vector<VerificationKey> keys = {*VerificationKey::FromSecret("hs", kSecret), KeyOf(Vectors()[1], "rsa")};
    return std::make_unique<JwtVerifier>(clock_, JwtVerifier::Options{std::move(settings), std::move(keys), kAccessSecret},
                                         [this] { return accounts_.With([](const auto& accounts) { return accounts; }); }, version_);
  }
  json Claims(const json& more = json::object()) {
    json claims = {{"sub", "jo"}, {"exp", SecondsOf(clock_.Wall()) + 600}};
    claims.update(more);
    return claims;
  }
  std::string Token(const json& claims, const std::string& kid = "hs") { return SignJwt(kid, kSecret, claims); }
  std::string Access(const std::string& user_id = "id-1", int64_t epoch = 3, const std::string& session = "s") {
    return MakeAccessToken(kAccessSecret, {user_id, "anna", session, epoch}, clock_.Wall());
  }
  static JwtVerifier::Verdict Ask(JwtVerifier& verifier, const std::string& token) {
    auto promise = std::make_shared<std::promise<JwtVerifier::Verdict>>();
    auto future = promise->get_future();
    verifier.Verify(token, [promise](JwtVerifier::Verdict verdict) { promise->set_value(std::move(verdict)); });
    if (future.wait_for(std::chrono::seconds(20)) != std::future_status::ready) return absl::DeadlineExceededError("no verdict");
    return future.get();
  }

  const std::string kSecret = std::string(32, 's'), kAccessSecret = std::string(32, 'a');
  ShiftableClock clock_;
  std::atomic<uint64_t> version_{1};
  Guarded<std::shared_ptr<const AccountTable>> accounts_;
};

TEST_F(JwtVerifierTest, GivesTheRolesOfATokenTheirPermissions) {
  const auto verifier = Make();
  const auto verdict = Ask(*verifier, Token(Claims({{"roles", {"custom", "unknown"}}, {"permissions", {"own:read"}}, {"jti", "n-1"}})));
  ASSERT_TRUE(verdict.ok()) << verdict.status();
  const Identity& identity = **verdict;
  EXPECT_EQ(identity.subject, "jo");
  EXPECT_THAT(identity.roles, ElementsAre("custom", "unknown"));
  EXPECT_THAT(identity.permissions, ElementsAre("own:read", "things:read"));
  EXPECT_EQ(identity.credential.kind, Credential::Kind::kJwt);
  EXPECT_EQ(identity.credential.id, "n-1");
  EXPECT_EQ((*Ask(*verifier, Token(Claims())))->credential.id, "hs") << "without jti the key's id";
}

TEST_F(JwtVerifierTest, AKeyVerifiesOnlyWithItsOwnAlgorithm) {
  const auto verifier = Make();
  EXPECT_TRUE(Ask(*verifier, Token(Claims())).ok());
  // Signed by HMAC with the text of a public key, and naming that key: the confusion of RFC 8725, 2.1.
  for (const std::string& secret : {kSecret, Vectors()[1].jwk, std::string(kEd25519Pem)})
    EXPECT_EQ(ErrorCode(Ask(*verifier, SignJwt("rsa", secret, Claims())).status()), "UNAUTHENTICATED");
  EXPECT_FALSE(Ask(*verifier, SignJwt("hs", std::string(32, 'x'), Claims())).ok());
  EXPECT_FALSE(Ask(*verifier, SignJwt("other", kSecret, Claims())).ok());
  EXPECT_FALSE(Ask(*verifier, SignJwt("../hs", kSecret, Claims())).ok());
}

TEST_F(JwtVerifierTest, RemembersATokenUntilItExpiresOrSomethingChanges) {
  const auto verifier = Make();
  const std::string token = Token(Claims({{"roles", {"custom"}}}));
  EXPECT_EQ(verifier->Remembered(token), nullptr);
  const auto verdict = Ask(*verifier, token);
  ASSERT_TRUE(verdict.ok());
  EXPECT_EQ(verifier->Remembered(token), *verdict) << "the very same";
  EXPECT_EQ(verifier->Remembered(token + "x"), nullptr);
  Use(MakeAccountTable({{"custom", "", {"things:write"}, {}, {}}}, {}, {}));
  EXPECT_EQ(verifier->Remembered(token), nullptr);
  EXPECT_THAT((*Ask(*verifier, token))->permissions, ElementsAre("things:write"));
  clock_.shift_ms += 660'000;  // exp and the skew
  EXPECT_EQ(verifier->Remembered(token), nullptr);
  EXPECT_FALSE(Ask(*verifier, token).ok());
}

TEST_F(JwtVerifierTest, RemembersABoundedNumber) {
  const auto verifier = Make();
  std::vector<std::string> tokens;
  bool unknown = false;
  for (size_t i = 0; i < limits::kMaxVerifiedTokens + 2'000; ++i) {
    tokens.push_back(Token(Claims({{"jti", std::to_string(i)}})));
    ASSERT_TRUE(verifier->VerifyNow(tokens.back(), unknown).ok());
  }
  size_t remembered = 0;
  for (const std::string& token : tokens) remembered += verifier->Remembered(token) != nullptr;
  EXPECT_LE(remembered, limits::kMaxVerifiedTokens);
  EXPECT_GT(remembered, limits::kMaxVerifiedTokens / 2);
}

TEST_F(JwtVerifierTest, AnAccessTokenIsWhatTheTableSaysOfItsUser) {
  const auto verifier = Make();
  const std::string token = Access();
  const auto verdict = Ask(*verifier, token);
  ASSERT_TRUE(verdict.ok()) << verdict.status();
  EXPECT_EQ((*verdict)->subject, "anna");
  EXPECT_EQ((*verdict)->user_id, "id-1");
  EXPECT_EQ((*verdict)->credential.kind, Credential::Kind::kUser);
  EXPECT_TRUE((*verdict)->Allows("modules:read"));
  EXPECT_FALSE(Ask(*verifier, Access("id-2")).ok());
  EXPECT_FALSE(Ask(*verifier, Access("id-1", 2)).ok()) << "of an epoch that has ended";
  EXPECT_FALSE(Ask(*verifier, Access("id-1", 3, "ended")).ok()) << "of a session that has ended";
  Use(MakeAccountTable({}, {User("id-1", "anna", {"operator"})}, {}));
  EXPECT_TRUE((*Ask(*verifier, token))->Allows("modules:write"));
  Use(MakeAccountTable({}, {User("id-1", "anna", {"operator"}, 3, false)}, {}));
  EXPECT_FALSE(Ask(*verifier, token).ok()) << "disabled";
  Use(MakeAccountTable({}, {User("id-1", "anna", {"operator"})}, {}));
  clock_.shift_ms += (limits::kAccessTokenLife + Millis(10'000)).count();
  EXPECT_FALSE(Ask(*verifier, token).ok()) << "expired";
  EXPECT_FALSE(Ask(*verifier, SignJwt("bulkhead", kSecret, Claims({{"iss", "bulkhead"}, {"aud", "bulkhead"}, {"uid", "id-1"}, {"epoch", 3}}))).ok());
}

TEST_F(JwtVerifierTest, KeysBehindAUrlAreFetchedRotatedAndKeptWhenAFetchFails) {
  KeyServer server;
  const json ec = Jwk(Vectors()[2]);
  server.Say("200 OK", json{{"keys", {{{"kty", "EC"}, {"crv", "P-256"}, {"x", ec["x"]}, {"y", ec["y"]}, {"kid", "first"}}}}}.dump());
  std::atomic<int> changes{0};
  KeySource source(clock_, server.url, Millis(300'000), {*VerificationKey::FromSecret("hs", kSecret)}, [&] { ++changes; });
  const auto refresh = [&] {
    std::promise<void> done;
    source.Refresh([&] { done.set_value(); });
    return done.get_future().wait_for(std::chrono::seconds(10)) == std::future_status::ready;
  };
  EXPECT_NE(source.Current()->Find("hs"), nullptr);
  source.Start();
  ASSERT_TRUE(refresh());
  EXPECT_NE(source.Current()->Find("first"), nullptr);
  EXPECT_NE(source.Current()->Find("hs"), nullptr);
  EXPECT_EQ(changes, 1);
  server.Say("200 OK", json{{"keys", {{{"kty", "EC"}, {"crv", "P-256"}, {"x", ec["x"]}, {"y", ec["y"]}, {"kid", "second"}}}}}.dump());
  const int before = server.requests;
  ASSERT_TRUE(refresh());
  EXPECT_EQ(server.requests, before) << "within the pause nothing is fetched";
  EXPECT_EQ(source.Current()->Find("second"), nullptr);
  clock_.shift_ms += limits::kJwksPause.count();
  ASSERT_TRUE(refresh());
  EXPECT_EQ(source.Current()->Find("first"), nullptr);
  EXPECT_NE(source.Current()->Find("second"), nullptr);
  EXPECT_EQ(changes, 2);
  const std::string large(limits::kMaxJwks + 1, ' ');
  using Answer = std::pair<std::string, std::string>;
  for (const auto& [status, body] : {Answer{"500 Broken", "{}"}, Answer{"200 OK", "no json"}, Answer{"200 OK", R"({"keys":[]})"}, Answer{"200 OK", large}}) {
    server.Say(status, body);
    clock_.shift_ms += limits::kJwksPause.count();
    const int fetched = server.requests;
    ASSERT_TRUE(refresh());
    EXPECT_GT(server.requests, fetched) << status;
    EXPECT_NE(source.Current()->Find("second"), nullptr) << status << body.substr(0, 20);
  }
  server.Say("302 Found", "", "Location: " + server.url + "\r\n");
  clock_.shift_ms += limits::kJwksPause.count();
  const int fetched = server.requests;
  ASSERT_TRUE(refresh());
  EXPECT_EQ(server.requests, fetched + 1) << "a redirect of plain HTTP is not followed";
  EXPECT_EQ(changes, 2);
}

TEST_F(JwtVerifierTest, ATokenOfAnUnknownKeyWaitsForOneFetchWithoutHoldingUpOthers) {
  const UniqueFd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));  // connects, and never answers
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof at;
  ASSERT_EQ(bind(listener.get(), reinterpret_cast<sockaddr*>(&at), size), 0);
  ASSERT_EQ(listen(listener.get(), 16), 0);
  getsockname(listener.get(), reinterpret_cast<sockaddr*>(&at), &size);
  JwtSettings settings;
  settings.jwks_url = "http://127.0.0.1:" + std::to_string(ntohs(at.sin_port)) + "/";
  const auto verifier = Make(settings);
  verifier->Start();
  std::atomic<int> waiting{0};
  std::vector<std::promise<JwtVerifier::Verdict>> verdicts(50);
  for (auto& verdict : verdicts) {
    ++waiting;
    verifier->Verify(SignJwt("unknown", kSecret, Claims()), [&](JwtVerifier::Verdict v) {
      --waiting;
      verdict.set_value(std::move(v));
    });
  }
  EXPECT_TRUE(Ask(*verifier, Token(Claims())).ok());
  EXPECT_EQ(waiting, 50);
  verifier->Close();  // breaks the fetch off
  for (auto& verdict : verdicts) EXPECT_FALSE(verdict.get_future().get().ok());
  EXPECT_EQ(ErrorCode(Ask(*verifier, Token(Claims())).status()), "SHUTTING_DOWN");
}

TEST(JwksUrl, IsHttpsOrOnThisHost) {
  for (const char* good : {"https://issuer.example/.well-known/jwks.json", "https://issuer.example:8443/keys", "http://127.0.0.1:80/", "http://[::1]:1/k",
                           "http://localhost/keys", "http://127.9.9.9/"})
    EXPECT_EQ(JwksUrlFault(good), "") << good;
  for (const char* bad :
       {"", "issuer.example", "http://issuer.example/", "http://127.0.0.1.evil.example/", "http://localhost@evil.example/", "ftp://127.0.0.1/",
        "file:///etc/passwd", "http://127.0.0.1\\@evil.example/", "https://", "https://user:pw@issuer.example/", "http://1270.0.0.1/x y", "HTTP://evil"})
    EXPECT_NE(JwksUrlFault(bad), "") << bad;
}

}  // namespace
}  // namespace bulkhead
