// Calls of modules on the gateway's private socket.
#include "tests/unit/gateway/gateway_fixture.h"

namespace bulkhead {
namespace {

using testing::HasSubstr;

class ModuleCall : public GatewayTest {
 protected:
  void SetUp() override {
    ASSERT_TRUE(gateway_->ListenForModules(folder_ + "/calls").ok());
    GatewayTest::SetUp();
    auto caller = std::make_shared<Manifest>();
    caller->name = "orders";
    caller->dependencies = {{"m", "^1.0.0"}, {"gone", "^1.0.0"}};
    gateway_->SetInstance("the-token", caller);
  }
  HttpClient Private() { return HttpClient(folder_ + "/calls"); }
  static std::string Head(const std::string& path = "/api/v1/m/m/x", const std::string& headers = {}, const std::string& method = "GET") {
    return method + " " + path + " HTTP/1.1\r\nHost: t\r\nx-bulkhead-token: the-token\r\n" + headers + "\r\n";
  }
  HttpResponse Ask(HttpClient& client, const std::string& path = "/api/v1/m/m/x", const std::string& headers = {}) {
    client.Send(Head(path, headers));
    return client.Read();
  }
  const std::vector<RouteSpec> kRoutes = {Route("GET", "/x"), Route("POST", "/x")};
};

TEST_F(ModuleCall, CarriesTheCallersIdentityAndNotItsToken) {
  auto& module = AddWorker(Answer("answered"));
  Publish(kRoutes);
  HttpClient client = Private();
  EXPECT_EQ(Ask(client, "/api/v1/m/m/x", "x-bulkhead-subject: admin\r\nx-bulkhead-hops: 3\r\nx-bulkhead-timeout-ms: 700\r\n").body, "answered");
  const FakeRequest asked = module.counts().last;
  EXPECT_EQ(asked.Header("x-bulkhead-subject"), "module:orders");
  EXPECT_EQ(asked.Header("x-bulkhead-token"), "");
  EXPECT_EQ(asked.Header("x-forwarded-for"), "");
  EXPECT_EQ(asked.Header("x-bulkhead-hops"), "4");
  EXPECT_EQ(asked.Header("x-bulkhead-timeout-ms"), "700");
}

TEST_F(ModuleCall, IsNothingForThePublicSocket) {
  auto& module = AddWorker(Answer("answered"));
  Publish(kRoutes);
  HttpClient client = Client();
  EXPECT_EQ(client.Get("/api/v1/m/m/x", "x-bulkhead-token: the-token\r\nx-bulkhead-timeout-ms: 1\r\nx-bulkhead-hops: 8\r\n").status, 200);
  EXPECT_EQ(module.counts().last.Header("x-bulkhead-subject"), "");
  EXPECT_EQ(module.counts().last.Header("x-bulkhead-hops"), "");
  EXPECT_EQ(module.counts().last.Header("x-bulkhead-timeout-ms"), "30000");
}

TEST_F(ModuleCall, OfAnInstanceThatIsGoneIsRefusedOnAKeptConnection) {
  AddWorker(Answer("answered"));
  Publish(kRoutes);
  HttpClient client = Private();
  EXPECT_EQ(Ask(client).status, 200);
  gateway_->SetInstance("another", std::make_shared<Manifest>());
  EXPECT_EQ(Ask(client).status, 200) << "another one's coming changes nothing";
  gateway_->SetInstance("the-token", nullptr);
  EXPECT_EQ(Ask(client).status, 401);
  EXPECT_TRUE(client.AtEnd());
}

TEST_F(ModuleCall, OfADependencyThatIsNotEnabledIsUnavailableAndOfAnotherModuleForbidden) {
  AddWorker(Answer("answered"), "other");
  Publish(kRoutes);
  HttpClient client = Private();
  HttpResponse r = Ask(client, "/api/v1/m/gone/x");
  EXPECT_EQ(r.status, 503);
  EXPECT_EQ(r.Header("retry-after"), "1");
  r = Ask(client, "/api/v1/m/other/x");
  EXPECT_EQ(r.status, 403);
  EXPECT_THAT(r.body, HasSubstr("MODULE_NOT_A_DEPENDENCY"));
  EXPECT_EQ(Ask(client, "/api/v1/m/m/nowhere").status, 404);
}

TEST_F(ModuleCall, ThatWaitedForAWorkerIsToldWhatIsLeft) {
  workers_["m"].clear();
  starting_ = true;
  Publish(kRoutes);
  HttpClient client = Private();
  client.Send(Head("/api/v1/m/m/x", "x-bulkhead-timeout-ms: 10000\r\n"));
  EXPECT_FALSE(client.Readable(50));
  Pass(Millis(3'000));
  auto& module = AddWorker(Answer("back"));
  starting_ = false;
  Publish(kRoutes);
  EXPECT_EQ(client.Read().body, "back");
  const int told = std::stoi(module.counts().last.Header("x-bulkhead-timeout-ms"));
  EXPECT_LE(told, 7'000);
  EXPECT_GT(told, 1'000);
}

TEST_F(ModuleCall, EndsWithTheTimeOfItsCallerWhateverItsBodyDoes) {
  auto& module = AddWorker([](FakeLinkModule&, FakeRequest&) {});
  Publish(kRoutes);
  HttpClient silent = Private(), slow = Private();
  silent.Send(Head("/api/v1/m/m/x", "x-bulkhead-timeout-ms: 2000\r\n"));
  slow.Send(Head("/api/v1/m/m/x", "x-bulkhead-timeout-ms: 2000\r\nContent-Length: 1000\r\n", "POST") + "a part");
  ASSERT_TRUE(module.WaitFor([](const auto& c) { return c.requests == 2; }));
  EXPECT_FALSE(silent.Readable(50));
  Pass(Millis(2'100));
  for (HttpClient* client : {&silent, &slow}) {
    const HttpResponse r = client->Read();
    EXPECT_EQ(r.status, 504);
    EXPECT_THAT(r.body, HasSubstr("its caller had left"));
  }
  EXPECT_TRUE(module.WaitFor([](const auto& c) { return c.cancels == 2 && c.last_cancel == uint16_t(link::CancelCode::kTimeout); }));
}

TEST_F(ModuleCall, WhoseCallerDoesNotReadGetsAllOfALongAnswer) {
  constexpr size_t kBytes = 3 << 20;
  AddWorker([](FakeLinkModule& m, FakeRequest& r) {
    m.Respond(r, 200, {}, "", false);
    m.SendZeros(r, kBytes);
  });
  Publish(kRoutes);
  HttpClient client = Private();
  client.Send(Head());
  std::this_thread::sleep_for(Millis(100));  // the socket's buffers are full by now
  EXPECT_EQ(client.Read().body.size(), kBytes);
  EXPECT_EQ(Ask(client).status, 200);
}

}  // namespace
}  // namespace bulkhead
