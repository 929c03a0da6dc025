// Who may call a route.
#include "nlohmann/json.hpp"
#include "supervisor/auth/jwt.h"
#include "tests/fakes/postgres_fixture.h"
#include "tests/unit/gateway/gateway_fixture.h"

namespace bulkhead {
namespace {

using testing::HasSubstr;

RouteSpec Closed(std::vector<std::string> permissions) {
  RouteSpec route;
  route.method = "GET";
  route.path = permissions.empty() ? "/any" : "/needs";
  route.permissions = std::move(permissions);
  return route;
}

TEST_F(GatewayTest, WantsALoginUnlessTheRouteIsPublic) {
  auto& module = AddWorker(Answer("ok"));
  Publish({Closed({}), Closed({"things:read"}), Route("GET", "/open")});
  HttpClient client = Client();
  for (const std::string& header : {std::string(), std::string("Authorization: Bearer wrong\r\n"), std::string("Authorization: Basic YTpi\r\n"),
                                    "Authorization: Bearer " + secret_ + " x\r\n", std::string("Authorization: Bearer \r\n"),
                                    "Authorization: " + secret_ + "\r\n"}) {
    HttpResponse r = client.Get("/api/v1/m/m/any", header);
    EXPECT_EQ(r.status, 401) << header;
    EXPECT_EQ(r.Header("www-authenticate"), "Bearer");
    EXPECT_THAT(r.body, HasSubstr("UNAUTHENTICATED"));
  }
  EXPECT_EQ(module.counts().requests, 0);
  EXPECT_EQ(client.Get("/api/v1/m/m/any", Bearer()).status, 200);
  EXPECT_EQ(client.Get("/api/v1/m/m/needs", "authorization: bEARER " + secret_ + "\r\n").status, 200);
  EXPECT_EQ(client.Get("/api/v1/m/m/any").status, 401) << "a login does not stick to the connection";
  EXPECT_EQ(client.Get("/api/v1/m/m/open").status, 200);
  EXPECT_EQ(client.Get("/api/v1/m/m/open", "Authorization: Bearer wrong\r\n").status, 200);
  EXPECT_EQ(module.counts().last.Header("x-bulkhead-subject"), "");
}

class TokenTest : public GatewayTest {
 protected:
  Database tokens_database_{TestPostgres::Instance().FreshDatabase(), 2};
  CredentialStore credentials_of_tokens_{tokens_database_};
  Authenticator tokens_{clock_, credentials_of_tokens_};
  void SetUp() override {
    ASSERT_TRUE(tokens_.LoadAdminToken(folder_ + "/admin.token").ok());
    gateway_->Start(tokens_, local_);
  }
  void TearDown() override { gateway_->Stop(Millis(200)); }
};

TEST_F(TokenTest, Answers403WithoutThePermissionAnd401OnceTheTokenIsGone) {
  auto& module = AddWorker(Answer("ok"));
  Publish({Closed({}), Closed({"things:read"})});
  Identity admin{"admin", {"admin"}, {"*"}};
  auto reader = tokens_.Create(admin, "reader", "jo", {"things:*", "other:read"}, std::nullopt);
  auto stranger = tokens_.Create(admin, "stranger", "", {"other:read"}, clock_.Wall() + std::chrono::hours(1));
  ASSERT_TRUE(reader.ok() && stranger.ok()) << reader.status() << stranger.status();
  std::string may = "Authorization: Bearer " + reader->secret + "\r\n", may_not = "Authorization: Bearer " + stranger->secret + "\r\n";
  HttpClient client = Client();
  EXPECT_EQ(client.Get("/api/v1/m/m/needs", may).status, 200);
  EXPECT_EQ(module.counts().last.Header("x-bulkhead-subject"), "jo");
  EXPECT_EQ(module.counts().last.Header("x-bulkhead-permissions"), "things:*,other:read");
  HttpResponse r = client.Get("/api/v1/m/m/needs", may_not);
  EXPECT_EQ(r.status, 403);
  EXPECT_THAT(r.body, HasSubstr("FORBIDDEN"));
  EXPECT_EQ(client.Get("/api/v1/m/m/any", may_not).status, 200);
  ASSERT_TRUE(tokens_.Delete("reader").ok());
  EXPECT_EQ(client.Get("/api/v1/m/m/needs", may).status, 401) << "at once, on a connection that has used it";
  EXPECT_EQ(client.Get("/api/v1/m/m/any", may_not).status, 200);
  Pass(std::chrono::hours(2));
  HttpClient later = Client();
  EXPECT_EQ(later.Get("/api/v1/m/m/any", may_not).status, 401) << "expired";
}

class JwtTest : public GatewayTest {
 protected:
  void SetUp() override { gateway_->Start(issued_, local_); }
  void TearDown() override {
    gateway_->Stop(Millis(200));
    issued_.Close();
  }
  std::string Token(const std::string& permission, const std::string& id, const std::string& kid = "hs") {
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(clock_.Wall().time_since_epoch()).count();
    return SignJwt(kid, kSecret, {{"sub", "jo"}, {"exp", seconds + 600}, {"permissions", {permission}}, {"jti", id}});
  }
  static std::string With(const std::string& token) { return "Authorization: Bearer " + token + "\r\n"; }

  const std::string kSecret = std::string(32, 's');
  CredentialStore no_store_{database_};
  Authenticator issued_{clock_, no_store_, {{}, {*VerificationKey::FromSecret("hs", kSecret)}, ""}};
};

TEST_F(JwtTest, IsVerifiedOnceAndItsRequestGoesOnWithItsBody) {
  auto& module = AddWorker(Answer("ok"));
  RouteSpec post = Closed({"things:read"});
  post.method = "POST";
  Publish({Closed({}), Closed({"things:read"}), post, Route("GET", "/open")});
  HttpClient client = Client();
  const std::string may = Token("things:read", "1"), scoped = Token("module:m:things:read", "2"), may_not = Token("module:n:*", "3");
  EXPECT_EQ(client.Get("/api/v1/m/m/needs", With(may)).status, 200);
  EXPECT_EQ(module.counts().last.Header("x-bulkhead-subject"), "jo");
  EXPECT_NE(issued_.FindJwt(may).identity, nullptr);
  EXPECT_EQ(client.Get("/api/v1/m/m/needs", With(scoped)).status, 200);
  EXPECT_EQ(client.Get("/api/v1/m/m/needs", With(may_not)).status, 403);
  EXPECT_EQ(client.Get("/api/v1/m/m/any", With(may_not)).status, 200);
  // A body behind the head, and a pipelined request behind that, wait with it and arrive whole and in order.
  HttpClient other = Client();
  other.Send("POST /api/v1/m/m/needs HTTP/1.1\r\nHost: a\r\n" + With(Token("things:read", "4")) + "Content-Length: 5\r\n\r\nhel");
  other.Send("loGET /api/v1/m/m/open HTTP/1.1\r\nHost: a\r\n" + With(Token("things:read", "5")) + "\r\n");
  EXPECT_EQ(other.Read().status, 200);
  EXPECT_EQ(other.Read().status, 200);
  EXPECT_EQ(module.counts().last.Header("x-bulkhead-subject"), "jo") << "of a public route the caller is told, too";
  const std::string local = [&] {
    other.Send("POST /api/v1/x HTTP/1.1\r\nHost: a\r\n" + With(Token("x", "6")) + "Content-Length: 4\r\n\r\nbody");
    return other.Read().body;
  }();
  EXPECT_THAT(local, HasSubstr("POST /api/v1/x"));
  EXPECT_THAT(local, HasSubstr("body"));
}

TEST_F(JwtTest, ThatIsNotValidIsRefusedAndTheConnectionGoesOn) {
  AddWorker(Answer("ok"));
  Publish({Closed({}), Route("GET", "/open")});
  HttpClient client = Client();
  std::string broken = Token("x", "1");
  broken[broken.size() - 10] ^= 1;
  for (const std::string& bad : {broken, Token("x", "2", "unknown"), std::string("ey.ey.ey"), "ey" + std::string(9'000, 'x') + ".y.z"}) {
    HttpResponse r = client.Get("/api/v1/m/m/any", With(bad));
    EXPECT_EQ(r.status, 401);
    EXPECT_EQ(r.Header("www-authenticate"), "Bearer");
    EXPECT_EQ(client.Get("/api/v1/m/m/open", With(bad)).status, 200) << "a public route";
  }
  client.Send("POST /api/v1/x HTTP/1.1\r\nHost: a\r\n" + With(broken) + "Content-Length: 4\r\n\r\nbody");
  EXPECT_EQ(client.Read().status, 401);
  const std::string good = Token("x", "3");
  EXPECT_EQ(client.Get("/api/v1/m/m/any", With(good)).status, 200);
  Pass(std::chrono::minutes(12));
  HttpClient later = Client();
  EXPECT_EQ(later.Get("/api/v1/m/m/any", With(good)).status, 401) << "expired";
}

TEST_F(JwtTest, OfAClientThatLeavesMeanwhileIsForgotten) {
  auto& module = AddWorker(Answer("ok"));
  Publish({Closed({})});
  for (int i = 0; i < 200; ++i) {
    HttpClient client = Client();
    client.Send("GET /api/v1/m/m/any HTTP/1.1\r\nHost: a\r\n" + With(Token("x", std::to_string(i))) + "\r\n");
    client.Close();
  }
  issued_.AwaitVerifications();
  EXPECT_EQ(Client().Get("/api/v1/m/m/any", With(Token("x", "last"))).status, 200);
  EXPECT_LE(module.counts().requests, 201);
}

}  // namespace
}  // namespace bulkhead
