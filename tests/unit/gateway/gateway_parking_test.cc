// Requests that wait for a worker that is about to come back.
#include "tests/unit/gateway/gateway_fixture.h"

namespace bulkhead {
namespace {

using testing::HasSubstr;

class Parking : public GatewayTest {
 protected:
  const std::vector<RouteSpec> kRoutes = {Route("GET", "/x"), Route("POST", "/x")};
  void BetweenWorkers() {
    workers_["m"].clear();
    starting_ = true;
    Publish(kRoutes);
  }
  void Back(FakeLinkModule::Handler handler) {
    AddWorker(std::move(handler));
    starting_ = false;
    Publish(kRoutes);
  }
  static void Ask(HttpClient& client, const std::string& headers = {}) {
    client.Send("GET /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\n" + headers + "\r\n");
  }
};

TEST_F(Parking, ARequestDuringARestartIsAnsweredByTheSuccessor) {
  BetweenWorkers();
  HttpClient client = Client();
  Ask(client);
  EXPECT_FALSE(client.Readable(50));
  Back(Answer("back"));
  EXPECT_EQ(client.Read().body, "back");
  EXPECT_EQ(client.Get("/api/v1/m/m/x").body, "back") << "the connection goes on";
}

TEST_F(Parking, ASafeRequestWhoseWorkerEndedIsAnsweredByTheSuccessor) {
  auto& module = AddWorker([](FakeLinkModule&, FakeRequest&) {});
  Publish(kRoutes);
  HttpClient client = Client();
  Ask(client);
  ASSERT_TRUE(module.WaitFor([](const auto& c) { return c.requests == 1; }));
  module.Kill();
  BetweenWorkers();
  Back(Answer("second"));
  EXPECT_EQ(client.Read().body, "second");
}

TEST_F(Parking, AnUnsafeRequestThatWasInFlightIsNotSentAgain) {
  auto& module = AddWorker([](FakeLinkModule&, FakeRequest&) {});
  Publish(kRoutes);
  HttpClient client = Client();
  client.Send("POST /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n");
  ASSERT_TRUE(module.WaitFor([](const auto& c) { return c.requests == 1; }));
  module.Kill();
  HttpResponse r = client.Read();
  EXPECT_TRUE(r.status == 502 || r.status == 503) << r.status;
}

TEST_F(Parking, RequestsAreSentInTheOrderInWhichTheyCame) {
  BetweenWorkers();
  std::vector<HttpClient> clients;
  for (int i = 0; i < 20; ++i) {
    clients.push_back(Client());
    Ask(clients.back(), "X-Number: " + std::to_string(i) + "\r\n");
    EXPECT_FALSE(clients.back().Readable(5));
  }
  std::mutex mutex;
  std::vector<std::string> order;
  Back([&](FakeLinkModule& m, FakeRequest& r) {
    {
      std::lock_guard lock(mutex);
      order.push_back(r.Header("x-number"));
    }
    m.Respond(r, 200, {}, "ok");
  });
  std::vector<std::string> expected;
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(clients[size_t(i)].Read().status, 200);
    expected.push_back(std::to_string(i));
  }
  EXPECT_EQ(order, expected);
}

TEST_F(Parking, EndsAtOnceWhenNoStartIsUnderWayAnyMore) {
  BetweenWorkers();
  HttpClient client = Client();
  Ask(client);
  EXPECT_FALSE(client.Readable(20));
  starting_ = false;
  Publish(kRoutes);
  HttpResponse r = client.Read();
  EXPECT_EQ(r.status, 503);
  EXPECT_EQ(r.Header("retry-after"), "1");
  EXPECT_EQ(client.Get("/api/v1/m/m/x").status, 503) << "and nobody is parked for a module that backs off";
}

TEST_F(Parking, EndsWith404WhenTheModuleIsDisabled) {
  BetweenWorkers();
  HttpClient client = Client();
  Ask(client);
  EXPECT_FALSE(client.Readable(20));
  workers_.clear();
  Publish({});
  EXPECT_EQ(client.Read().status, 404);
}

TEST_F(Parking, EndsWhenTheManifestThatLetTheRequestInIsReplaced) {
  BetweenWorkers();
  HttpClient client = Client();
  Ask(client);
  EXPECT_FALSE(client.Readable(20));
  AddWorker(Answer("another"));
  Publish({Route("GET", "/x")});
  EXPECT_EQ(client.Read().status, 503);
  EXPECT_EQ(client.Get("/api/v1/m/m/x").body, "another");
}

TEST_F(Parking, EndsAfterItsTimeOrTheRoutesIfThatIsLess) {
  auto waits = [&](Millis timeout, Millis expected) {
    RouteSpec route = Route("GET", "/t" + std::to_string(timeout.count()));
    route.timeout = timeout;
    workers_["m"].clear();
    starting_ = true;
    Publish({route});
    HttpClient client = Client();
    client.Send("GET /api/v1/m/m" + route.path + " HTTP/1.1\r\nHost: t\r\n\r\n");
    EXPECT_FALSE(client.Readable(20));
    Pass(expected - Millis(100));
    EXPECT_FALSE(client.Readable(20));
    PassUntilAnswered(client, Millis(200));
    EXPECT_EQ(client.Read().status, 503);
  };
  waits(Millis(30'000), limits::kParkTimeout);
  waits(Millis(1'000), Millis(1'000));
}

TEST_F(Parking, BeyondTheLimitIs503AtOnceAndWhoLeavesMakesRoom) {
  BetweenWorkers();
  std::vector<HttpClient> clients;
  // One request more than fits, on connections of their own; those that wait say nothing.
  for (size_t i = 0; i < limits::kMaxParkedRequests; ++i) {
    clients.push_back(Client());
    Ask(clients.back());
  }
  HttpClient last = Client();
  Ask(last);
  ASSERT_TRUE(last.Readable(5'000));
  EXPECT_EQ(last.Read().status, 503);
  clients.front().Close();
  Pass(Millis(0));
  Ask(last);
  EXPECT_FALSE(last.Readable(50));
  Back(Answer("ok"));
  EXPECT_EQ(last.Read().body, "ok");
  for (size_t i = 1; i < clients.size(); ++i) ASSERT_EQ(clients[i].Read().status, 200) << i;
}

TEST_F(Parking, ALargeBodyWaitsAtTheClient) {
  BetweenWorkers();
  HttpClient client = Client();
  const std::string body(512 * 1024, 'b');
  client.Send("POST /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n");
  std::thread sender([&] { client.Send(body); });
  EXPECT_FALSE(client.Readable(50));
  Back([](FakeLinkModule& m, FakeRequest& r) { m.Respond(r, 200, {}, std::to_string(r.body.size())); });
  EXPECT_EQ(client.Read().body, std::to_string(body.size()));
  sender.join();
}

TEST_F(Parking, TheClientIsToldToContinueWhenThereIsAWorker) {
  BetweenWorkers();
  HttpClient client = Client();
  client.Send("POST /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_FALSE(client.Readable(50));
  Back([](FakeLinkModule& m, FakeRequest& r) { m.Respond(r, 200, {}, r.body); });
  EXPECT_EQ(client.Read().status, 100);
  client.Send("body");
  EXPECT_EQ(client.Read().body, "body");
}

TEST_F(Parking, EndsWhenTheGatewayStops) {
  BetweenWorkers();
  HttpClient client = Client();
  Ask(client);
  EXPECT_FALSE(client.Readable(20));
  gateway_->Stop(Millis(5'000));
  HttpResponse r = client.Read();
  EXPECT_EQ(r.status, 503);
  EXPECT_EQ(r.Header("connection"), "close");
}

}  // namespace
}  // namespace bulkhead
