// Who may call a route.
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

}  // namespace
}  // namespace bulkhead
