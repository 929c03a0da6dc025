// What a link carries at most, who gets the next frame, and what a module may say about itself.
#include <sys/resource.h>

#include "tests/unit/gateway/gateway_fixture.h"

namespace bulkhead {
namespace {

using testing::HasSubstr;

const FakeLinkModule::Handler kSilent = [](FakeLinkModule&, FakeRequest&) {};

TEST_F(GatewayTest, ASafeRequestIsSentTwiceAtMost) {
  auto breaks = [](FakeLinkModule& m, FakeRequest& r) { m.CloseConnection(r); };
  std::vector<FakeLinkModule*> bad;
  for (int i = 0; i < 4; ++i) bad.push_back(&AddWorker(breaks));
  Publish({Route("GET", "/x")});
  HttpClient client = Client();
  EXPECT_EQ(client.Get("/api/v1/m/m/x").status, 502);
  int requests = 0;
  for (FakeLinkModule* module : bad) requests += module->counts().requests;
  EXPECT_EQ(requests, 2);
}

TEST_F(GatewayTest, StreamsBeyondTheCapOfALinkGoToAnotherWorkerOrAreOverload) {
  // Both ends of every client are in this process.
  const rlim_t wanted = 2 * limits::kMaxStreamsPerLink + 200;
  rlimit files;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &files), 0);
  if (files.rlim_max < wanted) GTEST_SKIP() << "wants " << wanted << " file descriptors, and the hard limit is " << files.rlim_max;
  files.rlim_cur = std::max(files.rlim_cur, wanted);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &files), 0);

  auto& full = AddWorker(kSilent);
  auto& spare = AddWorker(Answer("spare"));
  standby_.insert(last_instance_);
  Publish({Route("GET", "/x")});
  std::vector<std::unique_ptr<HttpClient>> waiting;
  for (size_t i = 0; i < limits::kMaxStreamsPerLink; ++i) {
    waiting.push_back(std::make_unique<HttpClient>(gateway_->address()));
    waiting.back()->Send("GET /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\n\r\n");
  }
  ASSERT_TRUE(full.WaitFor([](const auto& c) { return c.requests == int(limits::kMaxStreamsPerLink); })) << full.counts().requests;
  HttpClient client = Client();
  HttpResponse refused = client.Get("/api/v1/m/m/x");
  EXPECT_EQ(refused.status, 503);
  EXPECT_THAT(refused.body, HasSubstr("OVERLOADED"));
  EXPECT_EQ(refused.Header("retry-after"), "1");
  AddWorker(Answer("free"));
  Publish({Route("GET", "/x")});
  EXPECT_EQ(client.Get("/api/v1/m/m/x").body, "free");
  EXPECT_EQ(full.counts().requests, int(limits::kMaxStreamsPerLink));
  EXPECT_EQ(spare.counts().requests, 0) << "one that stands by is for those who are lost, not for those who have their fill";
}

TEST_F(GatewayTest, AModuleThatReadsNothingGetsNoMoreThanItsBacklog) {
  constexpr size_t kHead = 56 * 1024, kBacklog = 4 * 1024 * 1024;  // the latter is kMaxLinkBacklog of link.cc
  constexpr int kClients = 110;
  auto& module = AddWorker(Answer("read"));
  Publish({Route("GET", "/x")});
  ASSERT_EQ(Client().Get("/api/v1/m/m/x").status, 200);  // a link is up
  module.reads = false;
  module.Do([](FakeLinkModule&) {});
  std::vector<std::unique_ptr<HttpClient>> clients;
  for (int i = 0; i < kClients; ++i) {
    clients.push_back(std::make_unique<HttpClient>(gateway_->address()));
    clients.back()->Send("GET /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\nX-Long: " + std::string(kHead, 'l') + "\r\n\r\n");
    // Beyond the backlog the answer comes at once; on a busy machine the next one may be sent before that.
    if (size_t(i) * kHead >= kBacklog) clients.back()->Readable(200);
  }
  module.reads = true;
  module.Do([](FakeLinkModule&) {});
  int refused = 0;
  for (auto& client : clients) {
    HttpResponse r = client->Read();
    if (r.status == 200) continue;
    EXPECT_EQ(r.status, 503);
    EXPECT_THAT(r.body, HasSubstr("OVERLOADED"));
    ++refused;
  }
  EXPECT_GT(refused, 5) << "of " << kClients << ", which together send 6 MiB";
  EXPECT_LT(refused, kClients - int(kBacklog / kHead)) << "the backlog is smaller than it should be";
  EXPECT_EQ(module.counts().requests, 1 + kClients - refused);
  EXPECT_EQ(Client().Get("/api/v1/m/m/x").body, "read");
}

TEST_F(GatewayTest, UploadsTakeTurnsFrameByFrame) {
  constexpr size_t kFrame = 32 * 1024, kHeld = 2 * kFrame;  // kBodyFrame and kStreamBacklog of link.cc
  auto& module = AddWorker(Answer("done"));
  module.hello.window = 0;
  module.give_credit = false;
  Publish({Route("POST", "/x"), Route("GET", "/x")});
  ASSERT_EQ(Client().Get("/api/v1/m/m/x").status, 200);  // its HELLO has come
  std::vector<FakeRequest> requests;
  std::vector<std::unique_ptr<HttpClient>> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(std::make_unique<HttpClient>(gateway_->address()));
    clients.back()->Send("POST /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\nContent-Length: " + std::to_string(kHeld) + "\r\n\r\n");
    ASSERT_TRUE(module.WaitFor([&](const auto& c) { return c.requests == 2 + i; }));
    requests.push_back(module.counts().last);
    clients.back()->Send(std::string(kHeld, 'u'));
  }
  // What a client sent is in the gateway once it answers one that came later, on its only thread.
  for (int i = 0; i < 3; ++i) ASSERT_EQ(Client().Get("/api/v1/m/m/x").status, 200);
  EXPECT_EQ(module.counts().body_bytes, 0u) << "sent without credit";
  module.Do([&](FakeLinkModule& m) { m.Credit(requests, kHeld); });
  for (auto& client : clients) EXPECT_EQ(client->Read().body, "done");
  std::vector<std::pair<uint32_t, size_t>> expected;
  for (int round = 0; round < 2; ++round) {
    for (const FakeRequest& request : requests) expected.emplace_back(request.stream, kFrame);
  }
  EXPECT_EQ(module.counts().bodies, expected);
}

TEST_F(GatewayTest, KeepsToWhatAModuleTakesAtOnce) {
  auto& module = AddWorker([](FakeLinkModule& m, FakeRequest& r) { m.Respond(r, 200, {}, r.body); });
  module.hello.max_frame = link::kMinMaxFrame;
  module.hello.window = 100;
  Publish({Route("POST", "/x"), Route("GET", "/x")});
  HttpClient client = Client();
  ASSERT_EQ(client.Get("/api/v1/m/m/x").status, 200);
  const std::string body(5'000, 'b');
  client.Send("POST /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\nContent-Length: 5000\r\n\r\n" + body);
  EXPECT_EQ(client.Read().body, body);
  for (auto [stream, size] : module.counts().bodies) EXPECT_LE(size, 100u);
  HttpResponse long_head = client.Get("/api/v1/m/m/x", "X-Long: " + std::string(1'024, 'l') + "\r\n");
  EXPECT_EQ(long_head.status, 431);
  HttpClient other = Client();
  other.Send("POST /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Long: " + std::string(1'024, 'l') + "\r\n\r\n");
  EXPECT_EQ(other.Read().status, 431);
  EXPECT_EQ(Client().Get("/api/v1/m/m/x").status, 200) << "the link lives on";
  EXPECT_EQ(module.counts().connections, 1);
}

TEST_F(GatewayTest, AnswersAPingOfTheModuleWithItsBytes) {
  auto& module = AddWorker([](FakeLinkModule& m, FakeRequest& r) {
    char ping[link::kHeaderSize];
    link::PutHeader(ping, {8, 0, link::Type::kPing, 0, 0, 0});
    m.Raw(r, std::string(ping, sizeof ping) + "12345678");
    m.Respond(r, 200, {}, "pinged");
  });
  Publish({Route("GET", "/x")});
  EXPECT_EQ(Client().Get("/api/v1/m/m/x").body, "pinged");
  EXPECT_TRUE(module.WaitFor([](const auto& c) { return c.pongs == 1 && c.last_pong == "12345678"; }));
}

struct BadHello {
  const char* what;
  link::Hello hello;
};

class UnacceptableHello : public GatewayTest, public testing::WithParamInterface<BadHello> {};

TEST_P(UnacceptableHello, IsAFaultThatClosesTheLink) {
  auto& module = AddWorker(Answer("never"));
  module.hello = GetParam().hello;
  Publish({Route("GET", "/x")});
  EXPECT_EQ(Client().Get("/api/v1/m/m/x").status, 502);
  EXPECT_TRUE(module.WaitFor([](const auto& c) { return c.closed > 0; }));
  faults_.With([](auto& faults) {
    ASSERT_FALSE(faults.empty());
    EXPECT_THAT(faults.front(), HasSubstr("malformed HELLO"));
  });
}

INSTANTIATE_TEST_SUITE_P(Rule1, UnacceptableHello,
                         testing::Values(BadHello{"MaxFrameTooSmall", {.max_frame = link::kMinMaxFrame - 1}},
                                         BadHello{"WindowTooLarge", {.window = 0x80000000}},
                                         BadHello{"OtherVersion", {.version = link::kVersion + 1}}),
                         [](const auto& info) { return info.param.what; });

TEST_F(GatewayTest, TellsTheClientWhyTheModuleCancelled) {
  AddWorker([](FakeLinkModule& m, FakeRequest& r) { m.Cancel(r, link::CancelCode(std::stoi(r.target.substr(1)))); });
  Publish({Route("GET", "/*")});
  HttpClient client = Client();
  const std::pair<link::CancelCode, int> expected[] = {
      {link::CancelCode::kTimeout, 504}, {link::CancelCode::kProtocol, 502}, {link::CancelCode::kInternal, 502}, {link::CancelCode::kRefused, 503}};
  for (auto [code, status] : expected) {
    EXPECT_EQ(client.Get("/api/v1/m/m/" + std::to_string(int(code))).status, status) << int(code);
  }
}

class ThreeThreads : public GatewayTest {
 protected:
  int threads() const override { return 3; }
};

TEST_F(ThreeThreads, ServeClientsBesideEachOtherWhileRoutesComeAndGo) {
  constexpr int kClients = 12, kRequests = 100;
  for (int i = 0; i < 2; ++i) AddWorker([](FakeLinkModule& m, FakeRequest& r) { m.Respond(r, 200, {}, r.body + "!"); });
  Publish({Route("POST", "/x"), Route("GET", "/x")});
  std::atomic<int> wrong{0}, gone{0};
  std::vector<std::thread> clients;
  for (int i = 0; i < kClients; ++i) {
    clients.emplace_back([&, i] {
      HttpClient client = Client();
      for (int j = 0; j < kRequests; ++j) {
        const std::string body = std::to_string(i) + "/" + std::to_string(j);
        client.Send("POST /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
        HttpResponse r = client.Read();
        if (r.status != 200 || r.body != body + "!") ++wrong;
        gone += client.Get("/api/v1/m/m/gone").status == 404;
        if (client.Get("/api/v1/local").status != 200) ++wrong;
      }
    });
  }
  for (int i = 0; i < 20; ++i) Publish({Route("POST", "/x"), Route("GET", i % 2 == 0 ? "/y" : "/x")});
  for (auto& client : clients) client.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(gone, kClients * kRequests);
}

}  // namespace
}  // namespace bulkhead
