// Requests and answers of the whole gateway: routing, framing, headers, limits.
#include "tests/unit/gateway/gateway_fixture.h"

namespace bulkhead {
namespace {

using testing::HasSubstr;
using testing::MatchesRegex;
using testing::Not;


constexpr char kHost[] = "Host: test\r\n";

TEST_F(GatewayTest, AnswersManyRequestsOnOneConnection) {
  AddWorker(Answer("hello"));
  Publish({Route("GET", "/hi")});
  HttpClient client = Client();
  for (int i = 0; i < 50; ++i) {
    HttpResponse r = client.Get("/api/v1/m/m/hi");
    ASSERT_EQ(r.status, 200);
    EXPECT_EQ(r.body, "hello");
    EXPECT_EQ(r.Header("content-length"), "5");
    EXPECT_EQ(r.Header("content-type"), "text/plain");
    EXPECT_EQ(r.headers.count("server"), 0u);
    EXPECT_THAT(r.Header("date"), HasSubstr(" GMT"));
    EXPECT_EQ(r.Header("x-request-id").size(), 32u);
  }
  EXPECT_EQ(modules_[last_instance_]->counts().connections, 1) << "one link per thread and worker";
}

TEST_F(GatewayTest, AnswersPipelinedRequestsInTheirOrder) {
  AddWorker([](FakeLinkModule& m, FakeRequest& r) { m.Respond(r, 200, {}, r.target); });
  Publish({Route("GET", "/:n"), Route("POST", "/:n")});
  HttpClient client = Client();
  std::string batch;
  for (int i = 0; i < 200; ++i) {
    std::string n = std::to_string(i);
    if (i % 3 == 0) batch += "POST /api/v1/m/m/" + n + " HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\nbody";
    else if (i % 3 == 1) batch += "GET /api/v1/m/m/" + n + " HTTP/1.1\r\nHost: t\r\n\r\n";
    else batch += "GET /api/v1/nobody/" + n + " HTTP/1.1\r\nHost: t\r\n\r\n";
  }
  ASSERT_TRUE(client.Send(batch));
  for (int i = 0; i < 200; ++i) {
    HttpResponse r = client.Read();
    ASSERT_EQ(r.status, 200);
    EXPECT_THAT(r.body, HasSubstr("/" + std::to_string(i)));
  }
}

TEST_F(GatewayTest, TakesARequestThatComesByteByByte) {
  AddWorker([](FakeLinkModule& m, FakeRequest& r) { m.Respond(r, 201, {}, r.body); });
  Publish({Route("POST", "/x")});
  HttpClient client = Client();
  for (char c : std::string("POST /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;e=1\r\nde\r\n0\r\nT: v\r\n\r\n")) {
    client.Send(std::string(1, c));
  }
  HttpResponse r = client.Read();
  EXPECT_EQ(r.status, 201);
  EXPECT_EQ(r.body, "abcde");
}

TEST_F(GatewayTest, TellsTheModuleWhatLinkMdSaysAndNothingSpoofed) {
  auto& module = AddWorker(Answer("ok"));
  Publish({Route("GET", "/a/:b")});
  HttpClient client = Client();
  HttpResponse r = client.Get("/api/v1/m/m/a/%41?q=%20&x", Bearer() +
      "X-Bulkhead-Subject: root\r\nX_Bulkhead_Roles: root\r\nX-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nTE: trailers\r\n"
      "Connection: keep-alive, X-Private\r\nX-Private: 1\r\nKeep-Alive: 5\r\nProxy-Authorization: x\r\nUpgrade: websocket\r\n"
      "X-Request-Id: my-id.1\r\nTraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"
      "Tracestate: a=1\r\nTracestate: b=2\r\nX-Keep: A, b\r\nCookie: c=1\r\n");
  ASSERT_EQ(r.status, 200);
  EXPECT_EQ(r.Header("x-request-id"), "my-id.1");
  FakeRequest seen = module.counts().last;
  EXPECT_EQ(seen.method, "GET");
  EXPECT_EQ(seen.target, "/a/%41?q=%20&x");
  EXPECT_EQ(seen.Header("x-bulkhead-subject"), "admin");
  EXPECT_EQ(seen.Header("x-bulkhead-roles"), "admin");
  EXPECT_EQ(seen.Header("x-bulkhead-permissions"), "*");
  EXPECT_EQ(seen.Header("x-forwarded-for"), "127.0.0.1");
  EXPECT_EQ(seen.Header("x-forwarded-host"), "test");
  EXPECT_EQ(seen.Header("x-forwarded-proto"), "http");
  EXPECT_EQ(seen.Header("x-request-id"), "my-id.1");
  EXPECT_THAT(seen.Header("traceparent"), MatchesRegex("00-0af7651916cd43dd8448eb211c80319c-[0-9a-f]{16}-01"));
  EXPECT_THAT(seen.Header("traceparent"), Not(HasSubstr("b7ad6b7169203331"))) << "the module's parent is the gateway's span, not the client's";
  EXPECT_EQ(seen.Header("tracestate"), "a=1,b=2");
  EXPECT_EQ(seen.Header("x-keep"), "A, b");
  EXPECT_EQ(seen.Header("cookie"), "c=1");
  for (const char* gone : {"authorization", "x_bulkhead_roles", "forwarded", "te", "connection", "x-private", "keep-alive", "proxy-authorization", "upgrade"}) {
    EXPECT_EQ(seen.Header(gone), "") << gone;
  }
}

TEST_F(GatewayTest, ReplacesARequestIdAndTraceThatAreNotWellFormed) {
  auto& module = AddWorker(Answer("ok"));
  Publish({Route("GET", "/")});
  HttpClient client = Client();
  HttpResponse r = client.Get("/api/v1/m/m",
                              "X-Request-Id: a b\r\nTraceparent: 00-00000000000000000000000000000000-b7ad6b7169203331-01\r\nTracestate: a=1\r\n");
  ASSERT_EQ(r.status, 200);
  FakeRequest seen = module.counts().last;
  EXPECT_EQ(seen.target, "/");
  EXPECT_THAT(seen.Header("x-request-id"), MatchesRegex("[0-9a-f]{32}"));
  EXPECT_EQ(seen.Header("x-request-id"), r.Header("x-request-id"));
  EXPECT_THAT(seen.Header("traceparent"), MatchesRegex("00-[0-9a-f]{32}-[0-9a-f]{16}-01"));
  EXPECT_EQ(seen.Header("tracestate"), "");
  EXPECT_EQ(seen.Header("x-bulkhead-subject"), "") << "nobody logged in";
}

TEST_F(GatewayTest, AnswersUnknownModulesRoutesAndMethods) {
  AddWorker(Answer("ok"));
  Publish({Route("GET", "/a"), Route("POST", "/a"), Route("DELETE", "/a/:id")});
  HttpClient client = Client();
  for (const char* path : {"/api/v1/m/other/a", "/api/v1/m/m/nothing", "/api/v1/m/m/a/", "/api/v1/m/m", "/api/v1/m/"}) {
    HttpResponse r = client.Get(path);
    EXPECT_EQ(r.status, 404) << path;
    EXPECT_THAT(r.body, HasSubstr("\"code\":\"ROUTE_NOT_FOUND\"")) << path;
    EXPECT_THAT(r.body, HasSubstr("\"requestId\":\"" + r.Header("x-request-id") + "\""));
  }
  client.Send("PUT /api/v1/m/m/a HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc");
  HttpResponse r = client.Read();
  EXPECT_EQ(r.status, 405);
  EXPECT_EQ(r.Header("allow"), "GET, HEAD, POST");
  EXPECT_THAT(r.body, HasSubstr("METHOD_NOT_ALLOWED"));
  EXPECT_EQ(client.Get("/api/v1/m/m/a").status, 200) << "the small unread body did not cost the connection";
}

TEST_F(GatewayTest, AnswersHeadFromAGetRouteWithoutABody) {
  auto& module = AddWorker([](FakeLinkModule& m, FakeRequest& r) {
    if (r.target == "/whole") return m.Respond(r, 200, {{"x-a", "1"}}, "12345");
    m.Respond(r, 200, {}, "", false);
    m.SendZeros(r, 10 << 20);
  });
  Publish({Route("GET", "/whole"), Route("GET", "/stream")});
  HttpClient client = Client();
  client.Send("HEAD /api/v1/m/m/whole HTTP/1.1\r\nHost: t\r\n\r\n");
  HttpResponse r = client.Read(true);
  EXPECT_EQ(r.status, 200);
  EXPECT_EQ(r.Header("content-length"), "5");
  EXPECT_EQ(r.Header("x-a"), "1");
  EXPECT_EQ(module.counts().last.method, "GET");
  client.Send("HEAD /api/v1/m/m/stream HTTP/1.1\r\nHost: t\r\n\r\n");
  EXPECT_EQ(client.Read(true).status, 200);
  // One for each: the body of the whole answer had come along with its head.
  EXPECT_TRUE(module.WaitFor([](const auto& c) { return c.cancels == 2; })) << "the module need not send what nobody reads";
  client.Send("GET /api/v1/m/m/whole HTTP/1.1\r\nHost: t\r\n\r\n");
  EXPECT_EQ(client.Read().body, "12345");
}

TEST_F(GatewayTest, GivesNoBodyWith204And304) {
  AddWorker([](FakeLinkModule& m, FakeRequest& r) { m.Respond(r, r.target == "/204" ? 204 : 304, {{"etag", "\"e\""}}, ""); });
  Publish({Route("GET", "/204"), Route("GET", "/304")});
  HttpClient client = Client();
  HttpResponse r = client.Get("/api/v1/m/m/204");
  EXPECT_EQ(r.status, 204);
  EXPECT_EQ(r.headers.count("content-length"), 0u);
  r = client.Get("/api/v1/m/m/304");
  EXPECT_EQ(r.status, 304);
  EXPECT_EQ(r.Header("etag"), "\"e\"");
  EXPECT_EQ(client.Get("/api/v1/m/m/204").status, 204);
}

TEST_F(GatewayTest, RefusesBodiesBeyondTheRoutesLimitAtOnce) {
  auto& module = AddWorker(Answer("ok"));
  RouteSpec route = Route("POST", "/small");
  route.body_limit = 1000;
  Publish({route});
  HttpClient client = Client();
  client.Send("POST /api/v1/m/m/small HTTP/1.1\r\nHost: t\r\nContent-Length: 1001\r\n\r\n");
  HttpResponse r = client.Read();
  EXPECT_EQ(r.status, 413);
  EXPECT_THAT(r.body, HasSubstr("BODY_TOO_LARGE"));
  EXPECT_EQ(r.Header("connection"), "close");
  EXPECT_TRUE(client.AtEnd());
  EXPECT_EQ(module.counts().requests, 0);
}

TEST_F(GatewayTest, RefusesChunkedBodiesWhenTheyPassTheLimit) {
  auto& module = AddWorker(Answer("ok"));
  RouteSpec route = Route("POST", "/small");
  route.body_limit = 1000;
  Publish({route});
  HttpClient client = Client();
  client.Send("POST /api/v1/m/m/small HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n" + std::string(1000, 'x') + "\r\n");
  ASSERT_TRUE(module.WaitFor([](const auto& c) { return c.body_bytes == 1000; }));
  client.Send("1\r\nx\r\n");
  HttpResponse r = client.Read();
  EXPECT_EQ(r.status, 413);
  EXPECT_TRUE(client.AtEnd());
  EXPECT_TRUE(module.WaitFor([](const auto& c) { return c.cancels == 1; }));
}

TEST_F(GatewayTest, BoundsHeadsAndTargets) {
  AddWorker(Answer("ok"));
  Publish({Route("GET", "/*")});
  HttpClient a = Client();
  HttpResponse r = a.Get("/api/v1/m/m/" + std::string(8200, 'a'));
  EXPECT_EQ(r.status, 414);
  EXPECT_THAT(r.body, HasSubstr("URI_TOO_LONG"));
  HttpClient b = Client();
  r = b.Get("/api/v1/m/m/a", "X-Long: " + std::string(70'000, 'a') + "\r\n");
  EXPECT_EQ(r.status, 431);
  EXPECT_THAT(r.body, HasSubstr("HEADERS_TOO_LARGE"));
  std::string many;
  for (int i = 0; i < 100; ++i) many += "X-" + std::to_string(i) + ": 1\r\n";
  HttpClient c = Client();
  EXPECT_EQ(c.Get("/api/v1/m/m/a", many).status, 431) << "Host is the 101st";
  HttpClient d = Client();
  EXPECT_EQ(d.Get("/api/v1/m/m/a", "X-Long: " + std::string(60'000, 'a') + "\r\n").status, 200);
  HttpClient e = Client();
  EXPECT_EQ(e.Get("/api/v1/m/m/a", "X-Long: " + std::string(65'400, 'a') + "\r\n").status, 431) << "no room for what the gateway adds";
}

TEST_F(GatewayTest, MeetsExpect100ContinueAndNoOther) {
  AddWorker([](FakeLinkModule& m, FakeRequest& r) { m.Respond(r, 200, {}, r.body); });
  Publish({Route("POST", "/x")});
  HttpClient client = Client();
  client.Send("POST /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.Read().status, 100);
  client.Send("body");
  EXPECT_EQ(client.Read().body, "body");
  client.Send("POST /api/v1/m/m/nowhere HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
  HttpResponse r = client.Read();
  EXPECT_EQ(r.status, 404);
  EXPECT_EQ(r.Header("connection"), "close") << "whether the body comes is unknown";
  HttpClient other = Client();
  other.Send("POST /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\nExpect: tea\r\n\r\nbody");
  EXPECT_EQ(other.Read().status, 417);
}

TEST_F(GatewayTest, ServesHttp10) {
  AddWorker([](FakeLinkModule& m, FakeRequest& r) {
    if (r.target == "/whole") return m.Respond(r, 200, {}, "12345");
    m.Respond(r, 200, {}, "", false);
    m.Send(r, "streamed", true);
  });
  Publish({Route("GET", "/whole"), Route("GET", "/stream")});
  HttpClient client = Client();
  client.Send("GET /api/v1/m/m/whole HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  HttpResponse r = client.Read();
  EXPECT_EQ(r.body, "12345");
  EXPECT_EQ(r.Header("connection"), "keep-alive");
  client.Send("GET /api/v1/m/m/stream HTTP/1.0\r\n\r\n");
  r = client.Read();
  EXPECT_EQ(r.body, "streamed");
  EXPECT_EQ(r.headers.count("transfer-encoding"), 0u);
  EXPECT_EQ(r.Header("connection"), "close");
}

TEST_F(GatewayTest, ClosesWhenTheClientAsksForIt) {
  AddWorker(Answer("ok"));
  Publish({Route("GET", "/x")});
  HttpClient client = Client();
  HttpResponse r = client.Get("/api/v1/m/m/x", "Connection: close\r\n");
  EXPECT_EQ(r.status, 200);
  EXPECT_EQ(r.Header("connection"), "close");
  EXPECT_TRUE(client.AtEnd());
}

TEST_F(GatewayTest, HandsEverythingElseToTheLocalService) {
  Publish({});
  HttpClient client = Client();
  client.Send("POST /api/v1/mod%20ules?a=b HTTP/1.1\r\nHost: t\r\n" + Bearer() + "Content-Type: text/x\r\nIf-Match: 3\r\n"
              "Content-Length: 4\r\n\r\nbody");
  HttpResponse r = client.Read();
  EXPECT_EQ(r.status, 200);
  EXPECT_THAT(r.body, MatchesRegex("POST /api/v1/mod ules a=b Bearer " + secret_ + " text/x 3 body 127.0.0.1:[0-9]+"));
  EXPECT_EQ(r.headers.count("bad"), 0u);
  client.Send("HEAD /healthz HTTP/1.1\r\nHost: t\r\n\r\n");
  EXPECT_EQ(client.Read(true).status, 200);
  r = client.Get("/dropped");
  EXPECT_EQ(r.status, 500) << "a responder that was dropped";
  EXPECT_THAT(r.body, HasSubstr("INTERNAL"));
  EXPECT_EQ(client.Get("/a%2").status, 400);
  HttpClient big = Client();
  big.Send("POST /api/v1/modules HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n" + Bearer() + "\r\n");
  std::string chunk = "40000\r\n" + std::string(0x40000, 'x') + "\r\n";
  for (int i = 0; i < 5; ++i) big.Send(chunk);
  EXPECT_EQ(big.Read().status, 413);
}

TEST_F(GatewayTest, SaysThatModulesOfPlainHttpAreNotReachedYet) {
  AddWorker(Answer("ok"));
  Publish({Route("GET", "/x")}, Transport::kHttp);
  HttpClient client = Client();
  HttpResponse r = client.Get("/api/v1/m/m/x");
  EXPECT_EQ(r.status, 501);
  EXPECT_THAT(r.body, HasSubstr("NOT_IMPLEMENTED"));
}

TEST_F(GatewayTest, ListensOnceOnly) {
  auto second = Gateway::Listen({gateway_->address(), 2}, clock_);
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(gateway_->address()));
  for (const char* wrong : {"nonsense", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:x", "256.1.1.1:80", ":80"}) {
    EXPECT_FALSE(Gateway::Listen({wrong, 1}, clock_).ok()) << wrong;
  }
}

TEST_F(GatewayTest, TimesOutHeadsBodiesAndIdleConnections) {
  auto& module = AddWorker(Answer("ok"));
  Publish({Route("POST", "/x"), Route("GET", "/x")});
  HttpClient slow_head = Client(), slow_body = Client(), idle = Client();
  ASSERT_EQ(idle.Get("/api/v1/m/m/x").status, 200);
  slow_head.Send("GET /api/v1/m");
  slow_body.Send(std::string("POST /api/v1/m/m/x HTTP/1.1\r\n") + kHost + "Content-Length: 10\r\n\r\nabc");
  ASSERT_TRUE(module.WaitFor([](const auto& c) { return c.body_bytes == 3; }));
  Pass(Millis(10'500));
  HttpResponse r = slow_head.Read();
  EXPECT_EQ(r.status, 408);
  EXPECT_TRUE(slow_head.AtEnd());
  // In steps shorter than a PING may take to be answered: the clock jumps, the module's answer takes its real time.
  for (int step = 0; step < 5; ++step) {
    ASSERT_EQ(idle.Get("/api/v1/m/m/x").status, 200);
    Pass(Millis(4'100));
  }
  EXPECT_EQ(slow_body.Read().status, 408);
  EXPECT_TRUE(module.WaitFor([](const auto& c) { return c.cancels == 1; }));
  EXPECT_EQ(idle.Get("/api/v1/m/m/x").status, 200);
  Pass(Millis(76'000));
  EXPECT_TRUE(idle.AtEnd());
}

}  // namespace
}  // namespace bulkhead
