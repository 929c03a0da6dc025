// Clients that send slowly: how long a head and a body may take.
#include "tests/unit/gateway/gateway_fixture.h"

namespace bulkhead {
namespace {

// Steps shorter than a PING may take to be answered: the clock jumps, the module's answer takes its real time.
constexpr Millis kStep{4'000};

class SlowClient : public GatewayTest {
 protected:
  // Sends `piece` once a step until there is something to read; returns how many steps that took.
  int Trickle(HttpClient& client, const std::string& piece, int most) {
    for (int step = 0; step < most; ++step) {
      client.Send(piece);
      Pass(kStep);
      if (client.Readable(20)) return step + 1;
    }
    return most;
  }
  static constexpr int kEnough = 15;
  static_assert(kEnough * kStep > limits::kClientBodyTimeout * 3 / 2);
  static_assert(limits::kMinBodyRate * kStep / Millis(1'000) > 200);
};

TEST_F(SlowClient, AHeadThatTricklesHasNoMoreTimeThanOneThatStops) {
  Publish({});
  HttpClient client = Client();
  client.Send("GET /healthz HTTP/1.1\r\nX-Long: ");
  int steps = 0;
  for (; steps < 10 && !client.Readable(20); ++steps) {
    client.Send("x");
    Pass(Millis(3'000));
  }
  EXPECT_EQ(client.Read().status, 408);
  EXPECT_LE(steps, 4);
  EXPECT_TRUE(client.AtEnd());
}

TEST_F(SlowClient, AForwardedBodyThatTricklesIs408InBoundedTime) {
  auto& module = AddWorker([](FakeLinkModule&, FakeRequest&) {});
  Publish({Route("POST", "/x")});
  HttpClient client = Client();
  client.Send("POST /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\nContent-Length: 1000\r\n\r\n");
  ASSERT_TRUE(module.WaitFor([](const auto& c) { return c.requests == 1; }));
  EXPECT_LT(Trickle(client, "x", kEnough), kEnough);
  HttpResponse r = client.Read();
  EXPECT_EQ(r.status, 408);
  EXPECT_THAT(r.body, testing::HasSubstr("REQUEST_TIMEOUT"));
  EXPECT_TRUE(client.AtEnd());
  EXPECT_TRUE(module.WaitFor([](const auto& c) { return c.cancels == 1; }));
}

TEST_F(SlowClient, MuchAtOnceDoesNotBuyHoursForTheRest) {
  auto& module = AddWorker([](FakeLinkModule&, FakeRequest&) {});
  Publish({Route("POST", "/x")});
  HttpClient client = Client();
  client.Send("POST /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\nContent-Length: 900000\r\n\r\n" + std::string(800'000, 'x'));
  ASSERT_TRUE(module.WaitFor([](const auto& c) { return c.body_bytes == 800'000; }));
  EXPECT_LT(Trickle(client, "x", kEnough), kEnough);
  EXPECT_EQ(client.Read().status, 408);
}

TEST_F(SlowClient, ABodyForTheLocalServiceThatTricklesIs408InBoundedTime) {
  Publish({});
  HttpClient client = Client();
  client.Send("POST /api/v1/modules HTTP/1.1\r\nHost: t\r\nContent-Length: 1000\r\n" + Bearer() + "\r\n");
  EXPECT_LT(Trickle(client, "x", kEnough), kEnough);
  EXPECT_EQ(client.Read().status, 408);
}

TEST_F(SlowClient, ADiscardedBodyThatTricklesCostsTheConnectionInBoundedTime) {
  Publish({});
  HttpClient client = Client();
  client.Send("POST /api/v1/m/nobody HTTP/1.1\r\nHost: t\r\nContent-Length: 1000\r\n\r\n");
  EXPECT_EQ(client.Read().status, 404);
  EXPECT_LT(Trickle(client, "x", kEnough), kEnough);
  EXPECT_TRUE(client.AtEnd());
}

TEST_F(SlowClient, AnUploadAboveTheRateGoesOnBeyondTheRoutesTimeout) {
  auto& module = AddWorker([](FakeLinkModule& m, FakeRequest& r) { m.Respond(r, 200, {}, std::to_string(r.body.size())); });
  RouteSpec route = Route("POST", "/x");
  route.timeout = Millis(10'000);
  Publish({route});
  HttpClient client = Client();
  client.Send("POST /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
  ASSERT_TRUE(module.WaitFor([](const auto& c) { return c.requests == 1; }));
  const std::string piece(256, 'x');
  EXPECT_EQ(Trickle(client, "100\r\n" + piece + "\r\n", 2 * kEnough), 2 * kEnough);
  ASSERT_FALSE(client.Readable(20));
  client.Send("0\r\n\r\n");
  EXPECT_EQ(client.Read().body, std::to_string(2 * kEnough * piece.size()));
}

TEST_F(SlowClient, TheTimeInWhichTheModuleTakesNothingIsNotTheClients) {
  std::promise<FakeRequest> begun;
  auto& module = AddWorker([](FakeLinkModule& m, FakeRequest& r) { m.Respond(r, 200, {}, "taken"); });
  module.on_head = [&](FakeLinkModule&, FakeRequest& r) { begun.set_value(r); };
  module.give_credit = false;
  module.keep_bodies = false;
  RouteSpec route = Route("POST", "/x");
  route.timeout = Millis(600'000);
  Publish({route});
  HttpClient client = Client();
  // What the window and the gateway's own backlog hold, to the byte: nothing that has come waits for room.
  const size_t held = link::kWindow + 64 * 1024;
  client.Send("POST /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\nContent-Length: " + std::to_string(held + 1) + "\r\n\r\n" + std::string(held, 'x'));
  ASSERT_TRUE(module.WaitFor([](const auto& c) { return c.body_bytes == link::kWindow; }));
  FakeRequest request = begun.get_future().get();
  for (int step = 0; step < kEnough; ++step) {
    Pass(kStep);
    ASSERT_FALSE(client.Readable(20)) << step;
  }
  module.give_credit = true;
  module.Do([request](FakeLinkModule& m) mutable {
    std::string window;
    link::AppendWindow(window, request.stream, link::kWindow);
    m.Raw(request, window);
  });
  ASSERT_TRUE(module.WaitFor([&](const auto& c) { return c.body_bytes == held; }));
  ASSERT_FALSE(client.Readable(50));
  client.Send("x");
  EXPECT_EQ(client.Read().body, "taken");
}

}  // namespace
}  // namespace bulkhead
