// Bodies that stream, both ways: flow control, fairness, clients that leave.
#include <malloc.h>
#include <unistd.h>

#include <fstream>

#include "tests/unit/gateway/gateway_fixture.h"

namespace bulkhead {
namespace {

#ifdef BULKHEAD_SANITIZED
constexpr size_t kMostGrowth = 1 << 30;  // a sanitizer keeps what was freed
#else
constexpr size_t kMostGrowth = 16 << 20;
#endif

size_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  size_t total = 0, resident = 0;
  statm >> total >> resident;
  return resident * size_t(sysconf(_SC_PAGESIZE));
}

TEST_F(GatewayTest, StreamsAnAnswerOfUnknownLengthInChunksAsItComes) {
  std::promise<std::pair<uint64_t, uint32_t>> begun;
  auto& module = AddWorker([&](FakeLinkModule& m, FakeRequest& r) {
    m.Respond(r, 200, {{"content-type", "text/event-stream"}}, "one", false);
    begun.set_value({r.connection, r.stream});
  });
  Publish({Route("GET", "/sse")});
  HttpClient client = Client();
  client.Send("GET /api/v1/m/m/sse HTTP/1.1\r\nHost: t\r\n\r\n");
  FakeRequest request;
  std::tie(request.connection, request.stream) = begun.get_future().get();
  // Each piece is there before the next is made.
  while (client.buffered().find("3\r\none\r\n") == std::string::npos) ASSERT_TRUE(client.More());
  module.Do([request](FakeLinkModule& m) mutable { m.Send(request, "three", false); });
  while (client.buffered().find("5\r\nthree\r\n") == std::string::npos) ASSERT_TRUE(client.More());
  module.Do([request](FakeLinkModule& m) mutable { m.Send(request, "", true); });
  HttpResponse r = client.Read();
  EXPECT_EQ(r.body, "onethree");
  EXPECT_EQ(r.Header("transfer-encoding"), "chunked");
  EXPECT_FALSE(r.truncated);
}

std::string TrailerFrame(uint32_t stream, const FakeHeaders& trailers) {
  std::string head;
  link::HeadWriter writer(head);
  writer.U16(uint16_t(trailers.size()));
  for (const auto& [name, value] : trailers) writer.Pair(name, value);
  char header[link::kHeaderSize];
  link::PutHeader(header, {uint32_t(head.size()), stream, link::Type::kData, link::kEnd | link::kTrailers, 0, uint32_t(head.size())});
  return std::string(header, sizeof header) + head;
}

TEST_F(GatewayTest, SendsTrailersBehindAChunkedAnswer) {
  AddWorker([](FakeLinkModule& m, FakeRequest& r) {
    m.Respond(r, 200, {}, "body", false);
    if (r.target == "/bad") return m.Raw(r, TrailerFrame(r.stream, {{"x-sum", "1\r\nevil: 1"}}));
    m.Raw(r, TrailerFrame(r.stream, {{"x-sum", "42"}, {"connection", "close"}}));
  });
  Publish({Route("GET", "/good"), Route("GET", "/bad")});
  HttpClient client = Client();
  client.Send("GET /api/v1/m/m/good HTTP/1.1\r\nHost: t\r\n\r\n");
  while (client.buffered().find("\r\n0\r\n") == std::string::npos || !client.buffered().ends_with("\r\n\r\n")) ASSERT_TRUE(client.More());
  EXPECT_TRUE(client.buffered().ends_with("4\r\nbody\r\n0\r\nx-sum: 42\r\n\r\n")) << client.buffered();
  client.buffered().clear();
  EXPECT_THAT(client.Get("/api/v1/m/m/bad").body, testing::Not(testing::HasSubstr("evil")));
}

TEST_F(GatewayTest, PassesAContentLengthOfTheModuleThrough) {
  AddWorker([](FakeLinkModule& m, FakeRequest& r) {
    m.Respond(r, 200, {{"content-length", "300000"}}, "", false);
    m.SendZeros(r, 300'000);
  });
  Publish({Route("GET", "/x")});
  HttpClient client = Client();
  for (int i = 0; i < 3; ++i) {
    HttpResponse r = client.Get("/api/v1/m/m/x");
    EXPECT_EQ(r.Header("content-length"), "300000");
    EXPECT_EQ(r.body, std::string(300'000, '0'));
  }
}

std::string DataFrame(uint32_t stream, const std::string& bytes, bool end) {
  char header[link::kHeaderSize];
  link::PutHeader(header, {uint32_t(bytes.size()), stream, link::Type::kData, uint8_t(end ? link::kEnd : 0), 0, 0});
  return std::string(header, sizeof header) + bytes;
}

// Behind much, which leaves no buffer in the pool, little begins in the string's own few bytes.
TEST_F(GatewayTest, LosesNothingOfAFewBytesBehindManyWhenMoreFollowsAtOnce) {
  std::promise<std::pair<uint64_t, uint32_t>> begun;
  const std::string much(60'000, 'm'), little = "sixteen bytes...";
  auto& module = AddWorker([&](FakeLinkModule& m, FakeRequest& r) {
    m.Respond(r, 200, {{"content-length", std::to_string(2 * much.size() + 2 * little.size())}}, "", false);
    m.Raw(r, DataFrame(r.stream, much, false) + DataFrame(r.stream, much, false));
    begun.set_value({r.connection, r.stream});
  });
  Publish({Route("GET", "/x")});
  HttpClient client = Client();
  client.Send("GET /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\n\r\n");
  FakeRequest request;
  std::tie(request.connection, request.stream) = begun.get_future().get();
  while (client.buffered().size() < 2 * much.size() || !client.buffered().ends_with("m")) ASSERT_TRUE(client.More());
  module.Do([request, little](FakeLinkModule& m) mutable {
    m.Raw(request, DataFrame(request.stream, little, false) + DataFrame(request.stream, little, true));
  });
  EXPECT_EQ(client.Read().body, much + much + little + little);
}

TEST_F(GatewayTest, StreamsAnUploadBeforeItsEndIsThere) {
  auto& module = AddWorker([](FakeLinkModule& m, FakeRequest& r) { m.Respond(r, 200, {}, std::to_string(r.body.size())); });
  RouteSpec route = Route("POST", "/up");
  route.body_limit = 1 << 30;
  Publish({route});
  HttpClient client = Client();
  client.Send("POST /api/v1/m/m/up HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
  ASSERT_TRUE(module.WaitFor([](const auto& c) { return c.body_bytes == 5; }));
  std::string chunk = "100000\r\n" + std::string(0x100000, 'x') + "\r\n";
  for (int i = 0; i < 8; ++i) ASSERT_TRUE(client.Send(chunk));
  client.Send("0\r\n\r\n");
  EXPECT_EQ(client.Read().body, std::to_string(5 + 8 * 0x100000));
  // The connection is good for more.
  client.Send("POST /api/v1/m/m/up HTTP/1.1\r\nHost: t\r\nContent-Length: 100000\r\n\r\n" + std::string(100'000, 'y'));
  EXPECT_EQ(client.Read().body, "100000");
}

TEST_F(GatewayTest, EchoesWhileTheRequestStillComes) {
  auto& module = AddWorker([](FakeLinkModule& m, FakeRequest& r) { m.Send(r, "", true); });
  module.on_head = [](FakeLinkModule& m, FakeRequest& r) { m.Respond(r, 200, {}, "", false); };
  module.on_body = [](FakeLinkModule& m, FakeRequest& r) { m.Send(r, std::exchange(r.body, {}), false); };
  Publish({Route("POST", "/echo")});
  HttpClient client = Client();
  client.Send("POST /api/v1/m/m/echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
  for (const char* word : {"alpha", "gamma"}) {
    client.Send("5\r\n" + std::string(word) + "\r\n");
    while (client.buffered().find(word) == std::string::npos) ASSERT_TRUE(client.More());
  }
  client.Send("0\r\n\r\n");
  EXPECT_EQ(client.Read().body, "alphagamma");
}

TEST_F(GatewayTest, HoldsNoMoreThanAWindowForASlowReaderOf100Megabytes) {
  constexpr size_t kSize = 100 << 20;
  AddWorker([](FakeLinkModule& m, FakeRequest& r) {
    if (r.target == "/small") return m.Respond(r, 200, {}, "ok");
    m.Respond(r, 200, {}, "", false);
    m.SendZeros(r, kSize);
  });
  Publish({Route("GET", "/big"), Route("GET", "/small")});
  HttpClient slow = Client(16 * 1024);
  slow.Send("GET /api/v1/m/m/big HTTP/1.1\r\nHost: t\r\n\r\n");
  ASSERT_TRUE(slow.More());
  size_t before = ResidentBytes();
  HttpClient fast = Client();
  for (int i = 0; i < 200; ++i) ASSERT_EQ(fast.Get("/api/v1/m/m/small").body, "ok") << "others are held up";
  size_t during = ResidentBytes();
  EXPECT_LT(during, before + kMostGrowth) << "memory grows with a reader that does not read";
  size_t got = slow.buffered().size();
  size_t peak = 0, sample_at = got;
  while (got < kSize) {
    slow.buffered().clear();
    ASSERT_TRUE(slow.More());
    got += slow.buffered().size();
    if (got < sample_at) continue;
    sample_at += 1 << 20;
    peak = std::max(peak, ResidentBytes());
  }
  EXPECT_LT(peak, before + kMostGrowth);
}

TEST_F(GatewayTest, StopsReadingAClientWhenTheModuleTakesNothing) {
  auto& module = AddWorker([](FakeLinkModule& m, FakeRequest& r) { m.Respond(r, 200, {}, "done"); });
  module.give_credit = false;
  module.keep_bodies = false;
  RouteSpec route = Route("POST", "/up");
  route.body_limit = 1 << 30;
  Publish({route, Route("GET", "/up")});
  HttpClient client = Client();
  client.Send("POST /api/v1/m/m/up HTTP/1.1\r\nHost: t\r\nContent-Length: 100000000\r\n\r\n");
  size_t sent = client.SendUntilBlocked(std::string(100'000'000, 'x'), 300);
  EXPECT_LT(sent, size_t{20'000'000}) << "sockets may hold some megabytes, the gateway must not hold the rest";
  EXPECT_EQ(module.counts().body_bytes, size_t{link::kWindow});
  HttpClient other = Client();
  EXPECT_EQ(other.Get("/api/v1/m/m/up").body, "done") << "only the one stream is held up";
}

TEST_F(GatewayTest, AClientThatTricklesDoesNotMoveTheDeadlineOfAModuleThatTakesNothing) {
  auto& module = AddWorker([](FakeLinkModule&, FakeRequest&) {});
  module.give_credit = false;
  module.keep_bodies = false;
  RouteSpec route = Route("POST", "/up");
  route.body_limit = 1 << 30;
  route.timeout = Millis(8'000);
  Publish({route});
  HttpClient client = Client();
  client.Send("POST /api/v1/m/m/up HTTP/1.1\r\nHost: t\r\nContent-Length: 100000000\r\n\r\n");
  client.Send(std::string(link::kWindow + 128 * 1024, 'x'));
  ASSERT_TRUE(module.WaitFor([](const auto& c) { return c.body_bytes == link::kWindow; }));
  ASSERT_FALSE(client.Readable(50));  // the gateway takes what it takes
  for (int half = 0; half < 3 && !client.Readable(50); ++half) {
    client.Send("x");
    Pass(route.timeout / 2);
  }
  ASSERT_TRUE(client.Readable(50)) << "within one and a half of the route's timeout";
  EXPECT_EQ(client.Read().status, 504);
  EXPECT_THAT(faults_.With([](auto& faults) { return faults; }),
              testing::ElementsAre("took no more of a request's body within the route's timeout"));
}

TEST_F(GatewayTest, CancelsTheStreamOfAClientThatLeaves) {
  auto& module = AddWorker([](FakeLinkModule&, FakeRequest&) {});  // never answers
  Publish({Route("GET", "/x"), Route("POST", "/x")});
  {
    HttpClient client = Client();
    client.Send("GET /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\n\r\n");
    ASSERT_TRUE(module.WaitFor([](const auto& c) { return c.requests == 1; }));
  }
  EXPECT_TRUE(module.WaitFor([](const auto& c) { return c.cancels == 1 && c.last_cancel == 1; }));
  {
    HttpClient client = Client();
    client.Send("POST /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nabc");
    ASSERT_TRUE(module.WaitFor([](const auto& c) { return c.body_bytes == 3; }));
  }
  EXPECT_TRUE(module.WaitFor([](const auto& c) { return c.cancels == 2; })) << "in the middle of its body";
}

TEST_F(GatewayTest, CancelsTheStreamOfAClientWhoseEndComesTogetherWithItsRequest) {
  constexpr int kClients = 50;
  auto& module = AddWorker([](FakeLinkModule&, FakeRequest&) {});  // never answers
  Publish({Route("GET", "/x")});
  for (int i = 0; i < kClients; ++i) {
    HttpClient client = Client();
    client.Send("GET /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\n\r\n");
  }
  EXPECT_TRUE(module.WaitFor([](const auto& c) { return c.requests == kClients && c.cancels == kClients; })) << module.counts().cancels;
}

TEST_F(GatewayTest, CancelsTheStreamOfAReaderThatLeavesDuringTheAnswer) {
  auto& module = AddWorker([](FakeLinkModule& m, FakeRequest& r) {
    m.Respond(r, 200, {}, "", false);
    m.SendZeros(r, 100 << 20);
  });
  Publish({Route("GET", "/x")});
  {
    HttpClient client = Client();
    client.Send("GET /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\n\r\n");
    ASSERT_TRUE(client.More());
  }
  EXPECT_TRUE(module.WaitFor([](const auto& c) { return c.cancels == 1; }));
}

TEST_F(GatewayTest, TellsTheModuleToStopWhenItAnsweredBeforeTheRequestsEnd) {
  auto& module = AddWorker([](FakeLinkModule&, FakeRequest&) {});
  module.on_head = [](FakeLinkModule& m, FakeRequest& r) { m.Respond(r, 409, {}, "no"); };
  Publish({Route("POST", "/x"), Route("GET", "/x")});
  HttpClient client = Client();
  client.Send("POST /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\nContent-Length: 30000\r\n\r\n" + std::string(1000, 'x'));
  HttpResponse r = client.Read();
  EXPECT_EQ(r.status, 409);
  EXPECT_TRUE(module.WaitFor([](const auto& c) { return c.cancels == 1; }));
  client.Send(std::string(29'000, 'x'));
  client.Send("GET /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\n\r\n");
  EXPECT_EQ(client.Read().status, 409) << "the rest of a small body is dropped, the connection stays";
}

TEST_F(GatewayTest, ASilentModuleIsPingedAndReportedWhenItDoesNotAnswer) {
  auto& module = AddWorker([](FakeLinkModule&, FakeRequest&) {});
  module.answer_pings = false;
  RouteSpec route = Route("POST", "/x");
  route.timeout = Millis(600'000);
  Publish({route});
  HttpClient client = Client();
  client.Send("POST /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n");
  ASSERT_TRUE(module.WaitFor([](const auto& c) { return c.requests == 1; }));
  for (int i = 0; i < 14; ++i) Pass(Millis(2'000));
  HttpResponse r = client.Read();
  EXPECT_EQ(r.status, 502);
  EXPECT_TRUE(module.WaitFor([](const auto& c) { return c.closed == 1; }));
  EXPECT_EQ(unresponsive_, 1);
}

TEST_F(GatewayTest, ASilentModuleThatAnswersPingsIsLeftAlone) {
  auto& module = AddWorker([](FakeLinkModule&, FakeRequest&) {});
  RouteSpec route = Route("POST", "/x");
  route.timeout = Millis(600'000);
  Publish({route});
  HttpClient client = Client();
  client.Send("POST /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n");
  ASSERT_TRUE(module.WaitFor([](const auto& c) { return c.requests == 1; }));
  for (int i = 0; i < 30; ++i) {
    Pass(Millis(2'000));
    ASSERT_FALSE(client.Readable(20));  // the answer to a PING comes by itself, before five more steps
  }
  EXPECT_GT(module.counts().pings, 1);
  EXPECT_EQ(unresponsive_, 0);
}

}  // namespace
}  // namespace bulkhead
