// WebSockets: an upgrade becomes a tunnel of bytes over the link.
#include "tests/unit/gateway/gateway_fixture.h"

namespace bulkhead {
namespace {

using testing::HasSubstr;

const std::string kUpgrade = "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

class Upgrade : public GatewayTest {
 protected:
  // A worker that accepts every upgrade; `on_bytes` is called with what comes through the tunnel so far.
  FakeLinkModule& AddTunnel(std::function<void(FakeLinkModule&, FakeRequest&)> on_bytes, FakeLinkModule::Handler on_end = [](auto&, auto&) {}) {
    FakeLinkModule& module = AddWorker(std::move(on_end));
    module.on_head = [](FakeLinkModule& m, FakeRequest& r) { m.Upgrade(r, {{"sec-websocket-accept", "proof"}}); };
    module.on_body = std::move(on_bytes);
    Publish({Route("GET", "/ws"), Route("POST", "/ws")});
    return module;
  }
  static void Ask(HttpClient& client, const std::string& headers = kUpgrade) {
    client.Send("GET /api/v1/m/m/ws HTTP/1.1\r\nHost: t\r\n" + headers + "\r\n");
  }
  static void ReadUntil(HttpClient& client, const std::string& text) {
    while (client.buffered().find(text) == std::string::npos) ASSERT_TRUE(client.More()) << client.buffered().size();
  }
};

TEST_F(Upgrade, ATunnelCarriesBytesBothWays) {
  AddTunnel([](FakeLinkModule& m, FakeRequest& r) { m.Send(r, "you said " + std::exchange(r.body, {}), false); });
  HttpClient client = Client();
  Ask(client);
  HttpResponse r = client.Read();
  EXPECT_EQ(r.status, 101);
  EXPECT_EQ(r.Header("connection"), "upgrade");
  EXPECT_EQ(r.Header("upgrade"), "websocket");
  EXPECT_EQ(r.Header("sec-websocket-accept"), "proof");
  EXPECT_FALSE(r.Header("x-request-id").empty());
  for (const char* text : {"one", "two"}) {
    client.Send(text);
    ReadUntil(client, std::string("you said ") + text);
  }
}

TEST_F(Upgrade, TheModuleSeesTheProtocolAndNoHopByHopField) {
  auto& module = AddTunnel([](auto&, auto&) {});
  HttpClient client = Client();
  Ask(client);
  ASSERT_EQ(client.Read().status, 101);
  FakeRequest seen = module.counts().last;
  EXPECT_EQ(seen.flags, link::kUpgrade);
  EXPECT_EQ(seen.Header("x-bulkhead-upgrade"), "websocket");
  EXPECT_EQ(seen.Header("sec-websocket-key"), "dGhlIHNhbXBsZSBub25jZQ==");
  EXPECT_EQ(seen.Header("upgrade"), "");
  EXPECT_EQ(seen.Header("connection"), "");
}

TEST_F(Upgrade, BytesThatCameWithTheRequestArriveBehindIt) {
  AddTunnel([](FakeLinkModule& m, FakeRequest& r) { m.Send(r, "got " + std::exchange(r.body, {}), false); });
  HttpClient client = Client();
  client.Send("GET /api/v1/m/m/ws HTTP/1.1\r\nHost: t\r\n" + kUpgrade + "\r\nearly");
  EXPECT_EQ(client.Read().status, 101);
  ReadUntil(client, "got early");
}

TEST_F(Upgrade, WhatIsNoWebSocketIsAPlainRequest) {
  auto& module = AddWorker(Answer("plain"));
  Publish({Route("GET", "/ws"), Route("POST", "/ws")});
  HttpClient client = Client();
  for (const char* headers : {"Upgrade: websocket\r\n", "Connection: upgrade\r\n",
                              "Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n",
                              "Connection: upgrade\r\nUpgrade: websocket, h2c\r\n", "Connection: upgrade\r\nUpgrade: TLS/1.0\r\n",
                              "Connection: upgrade\r\nUpgrade: websocket\r\nX-Bulkhead-Upgrade: h2c\r\nContent-Length: 1\r\n"}) {
    SCOPED_TRACE(headers);
    Ask(client, headers);
    if (std::string(headers).find("Length") != std::string::npos) client.Send("x");
    EXPECT_EQ(client.Read().body, "plain");
    EXPECT_EQ(module.counts().last.flags & link::kUpgrade, 0);
    EXPECT_EQ(module.counts().last.Header("x-bulkhead-upgrade"), "");
  }
  client.Send("POST /api/v1/m/m/ws HTTP/1.1\r\nHost: t\r\n" + kUpgrade + "Content-Length: 0\r\n\r\n");
  EXPECT_EQ(client.Read().body, "plain");
}

TEST_F(Upgrade, ARefusalIsAnOrdinaryAnswerAndTheConnectionGoesOn) {
  auto& module = AddWorker([](auto&, auto&) {});
  module.on_head = [](FakeLinkModule& m, FakeRequest& r) { m.Respond(r, 426, {{"x-why", "old"}}, "no"); };
  Publish({Route("GET", "/ws")});
  HttpClient client = Client();
  for (int i = 0; i < 2; ++i) {
    Ask(client);
    HttpResponse r = client.Read();
    EXPECT_EQ(r.status, 426);
    EXPECT_EQ(r.body, "no");
  }
}

TEST_F(Upgrade, A101WithoutTheFlagIs502) {
  auto& module = AddWorker([](auto&, auto&) {});
  module.on_head = [](FakeLinkModule& m, FakeRequest& r) { m.Respond(r, 101, {}, "", false); };
  Publish({Route("GET", "/ws")});
  HttpClient client = Client();
  Ask(client);
  EXPECT_EQ(client.Read().status, 502);
}

TEST_F(Upgrade, TheModulesEndClosesTheClientAfterTheLastByte) {
  AddTunnel([](FakeLinkModule& m, FakeRequest& r) { m.Send(r, "bye", true); });
  HttpClient client = Client();
  Ask(client);
  ASSERT_EQ(client.Read().status, 101);
  client.Send("x");
  ReadUntil(client, "bye");
  client.buffered().clear();
  EXPECT_TRUE(client.AtEnd());
}

TEST_F(Upgrade, TheClientsHalfCloseReachesTheModuleWhichMayStillAnswer) {
  AddTunnel([](auto&, auto&) {}, [](FakeLinkModule& m, FakeRequest& r) { m.Send(r, "after " + r.body, true); });
  HttpClient client = Client();
  Ask(client);
  ASSERT_EQ(client.Read().status, 101);
  client.Send("last words");
  client.FinishSending();
  ReadUntil(client, "after last words");
}

TEST_F(Upgrade, TheModuleHearsThatTheClientHasLeft) {
  auto& module = AddTunnel([](auto&, auto&) {});
  {
    HttpClient client = Client();
    Ask(client);
    ASSERT_EQ(client.Read().status, 101);
  }
  EXPECT_TRUE(module.WaitFor([](const auto& c) { return c.last.ended || c.cancels == 1; }));
}

TEST_F(Upgrade, ATunnelEndsWithItsWorker) {
  auto& module = AddTunnel([](auto&, auto&) {});
  HttpClient client = Client();
  Ask(client);
  ASSERT_EQ(client.Read().status, 101);
  module.Kill();
  EXPECT_TRUE(client.AtEnd());
}

TEST_F(Upgrade, ASilentTunnelIsClosedAfterItsTimeAndABusyOneIsNot) {
  AddTunnel([](FakeLinkModule& m, FakeRequest& r) { m.Send(r, std::exchange(r.body, {}), false); });
  HttpClient client = Client();
  Ask(client);
  ASSERT_EQ(client.Read().status, 101);
  for (int i = 0; i < 3; ++i) {
    Pass(limits::kTunnelIdleTimeout - Millis(1'000));
    client.Send("still here");
    ReadUntil(client, "still here");
    client.buffered().clear();
  }
  Pass(limits::kTunnelIdleTimeout + Millis(1'000));
  PassUntilAnswered(client, Millis(1'000));
  EXPECT_TRUE(client.AtEnd());
}

TEST_F(Upgrade, ASlowReaderOfATunnelHoldsUpOnlyItself) {
  AddTunnel([](FakeLinkModule& m, FakeRequest& r) {
    if (std::exchange(r.body, {}) == "flood") m.SendZeros(r, 64 << 20);
    else m.Send(r, "quick", false);
  });
  HttpClient slow = Client(4096), quick = Client();
  Ask(slow);
  ASSERT_EQ(slow.Read().status, 101);
  slow.Send("flood");
  Ask(quick);
  ASSERT_EQ(quick.Read().status, 101);
  for (int i = 0; i < 20; ++i) {
    quick.Send("ping");
    ReadUntil(quick, "quick");
    quick.buffered().clear();
  }
}

TEST_F(GatewayTest, SendsTheTrailersOfARequestToTheModule) {
  auto& module = AddWorker([](FakeLinkModule& m, FakeRequest& r) { m.Respond(r, 200, {}, r.body); });
  Publish({Route("POST", "/x")});
  HttpClient client = Client();
  client.Send("POST /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
              "4\r\nbody\r\n0\r\nX-Sum:  42 \r\nContent-Length: 9\r\nAuthorization: x\r\nX-Bulkhead-Subject: root\r\nConnection: close\r\nX-Empty:\r\n\r\n");
  EXPECT_EQ(client.Read().body, "body");
  FakeHeaders expected = {{"x-sum", "42"}, {"x-empty", ""}};
  EXPECT_EQ(module.counts().last.trailers, expected) << "none that frames, routes or authorises";
  client.Send("POST /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
  EXPECT_EQ(client.Read().status, 200);
  EXPECT_TRUE(module.counts().last.trailers.empty());
}

}  // namespace
}  // namespace bulkhead
