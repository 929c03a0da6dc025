// Workers that end, are missing, are slow, or break the rules of the link.
#include "tests/unit/gateway/gateway_fixture.h"

namespace bulkhead {
namespace {

using testing::HasSubstr;
using link::Type;

std::string Frame(uint32_t stream, Type type, uint8_t flags, uint16_t status, const std::string& head, const std::string& body) {
  char header[link::kHeaderSize];
  link::PutHeader(header, {uint32_t(head.size() + body.size()), stream, type, flags, status, uint32_t(head.size())});
  return std::string(header, sizeof header) + head + body;
}

std::string Pairs(const FakeHeaders& headers) {
  std::string head;
  link::HeadWriter writer(head);
  writer.U16(uint16_t(headers.size()));
  for (const auto& [name, value] : headers) writer.Pair(name, value);
  return head;
}

TEST_F(GatewayTest, Answers503WithRetryAfterWhenNoWorkerIsReady) {
  Publish({Route("GET", "/x")});
  HttpClient client = Client();
  HttpResponse r = client.Get("/api/v1/m/m/x");
  EXPECT_EQ(r.status, 503);
  EXPECT_EQ(r.Header("retry-after"), "1");
  EXPECT_THAT(r.body, HasSubstr("MODULE_UNAVAILABLE"));
}

TEST_F(GatewayTest, Answers503WhenTheSocketOfAKilledWorkerGoesOnRefusing) {
  auto& module = AddWorker(Answer("ok"));
  Publish({Route("GET", "/x"), Route("POST", "/x")});
  HttpClient client = Client();
  ASSERT_EQ(client.Get("/api/v1/m/m/x").status, 200);
  module.Kill();
  for (int i = 0; i < 3; ++i) {
    client.Send("GET /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\n\r\n");
    PassUntilAnswered(client, limits::kParkTimeout);
    HttpResponse r = client.Read();
    EXPECT_EQ(r.status, 503);
    EXPECT_EQ(r.Header("retry-after"), "1");
  }
}

TEST_F(GatewayTest, Answers504AndCancelsAfterTheRoutesTimeout) {
  auto& module = AddWorker([](FakeLinkModule&, FakeRequest&) {});
  RouteSpec route = Route("GET", "/slow");
  route.timeout = Millis(80);
  Publish({route});
  HttpClient client = Client();
  Instant began = Clock::Real().Now();
  HttpResponse r = client.Get("/api/v1/m/m/slow");
  EXPECT_EQ(r.status, 504);
  EXPECT_THAT(r.body, HasSubstr("GATEWAY_TIMEOUT"));
  EXPECT_GE(Clock::Real().Now() - began, Millis(79));
  EXPECT_TRUE(module.WaitFor([](const auto& c) { return c.cancels == 1 && c.last_cancel == 2; }));
  EXPECT_EQ(client.Get("/api/v1/m/m/slow").status, 504) << "the connection stays";
}

TEST_F(GatewayTest, RetriesASafeRequestOnceOnAnotherWorker) {
  auto breaks = [](FakeLinkModule& m, FakeRequest& r) { m.CloseConnection(r); };
  auto& bad = AddWorker(breaks);
  auto& good = AddWorker(Answer("good"));
  Publish({Route("GET", "/x"), Route("POST", "/x")});
  HttpClient client = Client();
  for (int i = 0; i < 20; ++i) EXPECT_EQ(client.Get("/api/v1/m/m/x").body, "good");
  EXPECT_GT(bad.counts().requests, 0);
  EXPECT_EQ(good.counts().requests, 20);
  int answered = 0, broken = 0;
  for (int i = 0; i < 20; ++i) {
    client.Send("POST /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\nx");
    HttpResponse r = client.Read();
    answered += r.status == 200;
    broken += r.status == 502;
  }
  EXPECT_EQ(answered + broken, 20);
  EXPECT_GT(broken, 0) << "a request that may have had an effect is not sent twice";
}

TEST_F(GatewayTest, OneThatStandsByIsLinkedAndIsSentOnlyWhatReachesNoOther) {
  auto& worker = AddWorker(Answer("worker"));
  auto& spare = AddWorker(Answer("spare"));
  standby_.insert(last_instance_);
  Publish({Route("GET", "/x")});
  ASSERT_TRUE(spare.WaitFor([](const auto& c) { return c.connections == 1; })) << "before it is needed";
  HttpClient client = Client();
  for (int i = 0; i < 20; ++i) EXPECT_EQ(client.Get("/api/v1/m/m/x").body, "worker");
  EXPECT_EQ(spare.counts().requests, 0);
  worker.Kill();
  EXPECT_EQ(client.Get("/api/v1/m/m/x").body, "spare") << "and no Directory has said so yet";
  standby_.clear();
  RemoveWorker("m.0");
  Publish({Route("GET", "/x")});
  EXPECT_EQ(client.Get("/api/v1/m/m/x").body, "spare");
  EXPECT_EQ(spare.counts().connections, 1) << "by the same link";
}

TEST_F(GatewayTest, AConnectionToAWorkerThatIsAboutToEndIsNotTheOneRetryOfASafeRequest) {
  auto& module = AddWorker([first = true](FakeLinkModule& m, FakeRequest& r) mutable {
    if (std::exchange(first, false)) {
      m.drop_connections = 2;
      return m.CloseConnection(r);
    }
    m.Respond(r, 200, {}, "ok");
  });
  Publish({Route("GET", "/x"), Route("POST", "/x")});
  HttpClient client = Client();
  EXPECT_EQ(client.Get("/api/v1/m/m/x").body, "ok");
  EXPECT_EQ(module.drop_connections, 0);
  module.drop_connections = 100;
  module.Do([](FakeLinkModule& m) { m.CloseAll(); });
  EXPECT_EQ(client.Get("/api/v1/m/m/x").status, 502) << "but there is an end to it";
  module.drop_connections = 0;
  EXPECT_EQ(client.Get("/api/v1/m/m/x").body, "ok");
}

TEST_F(GatewayTest, SendsWhatAWorkerRefusedToAnother) {
  AddWorker([](FakeLinkModule& m, FakeRequest& r) { m.Cancel(r, link::CancelCode::kRefused); });
  AddWorker(Answer("good"));
  Publish({Route("POST", "/x")});
  HttpClient client = Client();
  for (int i = 0; i < 10; ++i) {
    client.Send("POST /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\nx");
    EXPECT_EQ(client.Read().body, "good");
  }
}

TEST_F(GatewayTest, ClosesTheClientWhenTheWorkerEndsDuringTheAnswer) {
  std::promise<FakeRequest> begun;
  auto& module = AddWorker([&](FakeLinkModule& m, FakeRequest& r) {
    m.Respond(r, 200, {}, "half", false);
    begun.set_value(r);
  });
  Publish({Route("GET", "/x")});
  HttpClient client = Client();
  client.Send("GET /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\n\r\n");
  FakeRequest request = begun.get_future().get();
  while (client.buffered().find("half") == std::string::npos) ASSERT_TRUE(client.More());
  module.Do([request](FakeLinkModule& m) mutable { m.CloseConnection(request); });
  EXPECT_TRUE(client.Read().truncated);
}

struct Broken {
  const char* what;
  std::function<std::string(uint32_t)> bytes;  // for this stream, instead of an answer
};

class BrokenAnswer : public GatewayTest, public testing::WithParamInterface<Broken> {};

TEST_P(BrokenAnswer, Is502AndCostsOthersNothing) {
  AddWorker([](FakeLinkModule& m, FakeRequest& r) { m.Raw(r, GetParam().bytes(r.stream)); });
  AddWorker(Answer("fine"), "other");
  Publish({Route("POST", "/x"), Route("GET", "/x")});
  HttpClient client = Client(), other = Client();
  for (int i = 0; i < 3; ++i) {
    client.Send("POST /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nhi");
    HttpResponse r = client.Read();
    EXPECT_EQ(r.status, 502);
    EXPECT_THAT(r.body, HasSubstr("BAD_GATEWAY"));
    EXPECT_EQ(r.headers.count("evil"), 0u);
    EXPECT_EQ(other.Get("/api/v1/m/other/x").body, "fine");
  }
  // A stream may be cancelled; all else is told once, and then at most once a second.
  EXPECT_EQ(faults_.With([](auto& faults) { return faults; }).size(), GetParam().what == std::string("CancelInternal") ? 0u : 1u);
}

INSTANTIATE_TEST_SUITE_P(
    Frames, BrokenAnswer,
    testing::Values(
        Broken{"Garbage", [](uint32_t) { return std::string(64, '\xee'); }},
        Broken{"TooLong", [](uint32_t s) { std::string f = Frame(s, Type::kResponse, 1, 200, Pairs({}), ""); f[2] = 2; return f; }},
        Broken{"HeadBeyondFrame", [](uint32_t s) { std::string f = Frame(s, Type::kResponse, 1, 200, Pairs({}), ""); f[12] = 99; return f; }},
        Broken{"UnknownFlag", [](uint32_t s) { return Frame(s, Type::kResponse, 0x80, 200, Pairs({}), ""); }},
        Broken{"UnknownType", [](uint32_t s) { return Frame(s, Type(77), 0, 200, "", ""); }},
        Broken{"RequestFromTheModule", [](uint32_t s) { return Frame(s, Type::kRequest, 1, 0, Pairs({}), ""); }},
        Broken{"SecondHello", [](uint32_t) { std::string h; link::AppendHello(h, {}); return h; }},
        Broken{"StreamNeverOpened", [](uint32_t s) { return Frame(s + 1000, Type::kResponse, 1, 200, Pairs({}), ""); }},
        Broken{"PairsThatDoNotParse", [](uint32_t s) { return Frame(s, Type::kResponse, 1, 200, std::string("\xff\xff", 2), ""); }},
        Broken{"PairsWithARest", [](uint32_t s) { return Frame(s, Type::kResponse, 1, 200, Pairs({}) + "x", ""); }},
        Broken{"EmptyHead", [](uint32_t s) { return Frame(s, Type::kResponse, 1, 200, "", ""); }},
        Broken{"LineBreakInAValue", [](uint32_t s) { return Frame(s, Type::kResponse, 1, 200, Pairs({{"a", "b\r\nevil: 1"}}), ""); }},
        Broken{"NulInAValue", [](uint32_t s) { return Frame(s, Type::kResponse, 1, 200, Pairs({{"a", std::string("b\0c", 3)}}), ""); }},
        Broken{"LineBreakInAName", [](uint32_t s) { return Frame(s, Type::kResponse, 1, 200, Pairs({{"evil: 1\r\nx", "b"}}), ""); }},
        Broken{"UpperCaseName", [](uint32_t s) { return Frame(s, Type::kResponse, 1, 200, Pairs({{"Evil", "b"}}), ""); }},
        Broken{"EmptyName", [](uint32_t s) { return Frame(s, Type::kResponse, 1, 200, Pairs({{"", "b"}}), ""); }},
        Broken{"StatusZero", [](uint32_t s) { return Frame(s, Type::kResponse, 1, 0, Pairs({}), ""); }},
        Broken{"Status100", [](uint32_t s) { return Frame(s, Type::kResponse, 0, 100, Pairs({}), ""); }},
        Broken{"Status600", [](uint32_t s) { return Frame(s, Type::kResponse, 1, 600, Pairs({}), ""); }},
        Broken{"UpgradeNobodyAsked", [](uint32_t s) { return Frame(s, Type::kResponse, 4, 101, Pairs({}), ""); }},
        Broken{"ShortBody", [](uint32_t s) { return Frame(s, Type::kResponse, 1, 200, Pairs({{"content-length", "9"}}), "four"); }},
        Broken{"LongBody", [](uint32_t s) { return Frame(s, Type::kResponse, 1, 200, Pairs({{"content-length", "3"}}), "four"); }},
        Broken{"ShortStream",
               [](uint32_t s) { return Frame(s, Type::kResponse, 0, 200, Pairs({{"content-length", "9"}}), "four") + Frame(s, Type::kData, 1, 0, "", ""); }},
        Broken{"LongStream",
               [](uint32_t s) { return Frame(s, Type::kResponse, 0, 200, Pairs({{"content-length", "5"}}), "four") + Frame(s, Type::kData, 1, 0, "", "xx"); }},
        Broken{"TwoContentLengths",
               [](uint32_t s) { return Frame(s, Type::kResponse, 1, 200, Pairs({{"content-length", "1"}, {"content-length", "1"}}), "x"); }},
        Broken{"ContentLengthNotANumber", [](uint32_t s) { return Frame(s, Type::kResponse, 1, 200, Pairs({{"content-length", "+1"}}), "x"); }},
        Broken{"DataBeforeTheHead", [](uint32_t s) { return Frame(s, Type::kData, 1, 0, "", "x"); }},
        Broken{"TwoHeads", [](uint32_t s) { return Frame(s, Type::kResponse, 0, 200, Pairs({}), "") + Frame(s, Type::kResponse, 1, 200, Pairs({}), ""); }},
        Broken{"TooMuchCredit", [](uint32_t s) { std::string w; link::AppendWindow(w, s, 0x7fffffff); return w; }},
        Broken{"CancelInternal", [](uint32_t s) { std::string c; link::AppendCancel(c, s, link::CancelCode::kInternal); return c; }}),
    [](const auto& info) { return info.param.what; });

TEST_F(GatewayTest, EndsAStreamThatSendsMoreThanItsCredit) {
  auto& module = AddWorker([](FakeLinkModule& m, FakeRequest& r) {
    m.Respond(r, 200, {}, "", false);
    std::string flood;
    for (int i = 0; i < 200; ++i) flood += Frame(r.stream, Type::kData, 0, 0, "", std::string(60'000, 'x'));
    m.Raw(r, flood);
  });
  Publish({Route("GET", "/x")});
  HttpClient client = Client(4096);
  client.Send("GET /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\n\r\n");
  EXPECT_TRUE(module.WaitFor([](const auto& c) { return c.cancels == 1 && c.last_cancel == 3; }));
  EXPECT_THAT(faults_.With([](auto& faults) { return faults; }), testing::ElementsAre("sent more than its credit"));
}

TEST_F(GatewayTest, CountsTheFaultsThatItDoesNotTellOneByOne) {
  AddWorker([](FakeLinkModule& m, FakeRequest& r) { m.Raw(r, Frame(r.stream, Type::kData, 1, 0, "", "x")); });
  Publish({Route("POST", "/x")});
  HttpClient client = Client();
  auto ask = [&] {
    client.Send("POST /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n");
    EXPECT_EQ(client.Read().status, 502);
  };
  for (int i = 0; i < 5; ++i) ask();
  Pass(Millis(1'500));
  ask();
  EXPECT_THAT(faults_.With([](auto& faults) { return faults; }),
              testing::ElementsAre("sent DATA before a RESPONSE", "sent DATA before a RESPONSE (and 4 faults more since the last report)"));
}

TEST_F(GatewayTest, BlamesAModuleThatClosesItsLinkAndLivesOn) {
  AddWorker([](FakeLinkModule& m, FakeRequest& r) { r.target == "/x" ? m.CloseConnection(r) : m.Respond(r, 200, {}, "ok"); });
  Publish({Route("POST", "/x"), Route("GET", "/ok")});
  HttpClient client = Client();
  client.Send("POST /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n");
  EXPECT_EQ(client.Read().status, 502);
  EXPECT_THAT(faults_.With([](auto& faults) { return faults; }), testing::IsEmpty()) << "it may have ended";
  EXPECT_EQ(client.Get("/api/v1/m/m/ok").status, 200);
  EXPECT_THAT(faults_.With([](auto& faults) { return faults; }), testing::ElementsAre("closed its data link"));
}

TEST_F(GatewayTest, DropsFramesForAStreamThatWasCancelled) {
  std::promise<FakeRequest> first;
  auto& module = AddWorker([&](FakeLinkModule& m, FakeRequest& r) {
    if (r.target == "/ok") return m.Respond(r, 200, {}, "ok");
    first.set_value(r);
  });
  Publish({Route("GET", "/x"), Route("GET", "/ok")});
  FakeRequest request;
  {
    HttpClient client = Client();
    client.Send("GET /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\n\r\n");
    request = first.get_future().get();
  }
  ASSERT_TRUE(module.WaitFor([](const auto& c) { return c.cancels == 1; }));
  module.Do([request](FakeLinkModule& m) mutable { m.Raw(request, Frame(request.stream, Type::kResponse, 1, 200, Pairs({}), "late")); });
  HttpClient client = Client();
  EXPECT_EQ(client.Get("/api/v1/m/m/ok").body, "ok");
  EXPECT_EQ(module.counts().connections, 1) << "a late answer is no reason to end the link";
}

TEST_F(GatewayTest, SaysDrainedWhenTheLastRequestOfAnInstanceHasEnded) {
  std::promise<FakeRequest> begun;
  auto& old = AddWorker([&](FakeLinkModule&, FakeRequest& r) { begun.set_value(r); });
  std::string old_instance = last_instance_;
  Publish({Route("GET", "/x")});
  HttpClient client = Client();
  client.Send("GET /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\n\r\n");
  FakeRequest request = begun.get_future().get();
  RemoveWorker(old_instance);
  AddWorker(Answer("new"));
  Publish({Route("GET", "/x")});
  std::promise<void> drained;
  std::future<void> done = drained.get_future();
  gateway_->Drain(old_instance, [&] { drained.set_value(); });
  HttpClient other = Client();
  EXPECT_EQ(other.Get("/api/v1/m/m/x").body, "new") << "no new requests to who leaves";
  EXPECT_EQ(done.wait_for(Millis(50)), std::future_status::timeout);
  old.Do([request](FakeLinkModule& m) mutable { m.Respond(request, 200, {}, "old"); });
  EXPECT_EQ(client.Read().body, "old");
  EXPECT_EQ(done.wait_for(std::chrono::seconds(5)), std::future_status::ready);
  EXPECT_TRUE(old.WaitFor([](const auto& c) { return c.goaways == 1 && c.closed == 1; }));
}

TEST_F(GatewayTest, RoutesAreGoneWhenAdoptAnswers) {
  AddWorker(Answer("ok"));
  Publish({Route("GET", "/x")});
  HttpClient client = Client();
  ASSERT_EQ(client.Get("/api/v1/m/m/x").status, 200);
  workers_.clear();
  Publish({});
  EXPECT_EQ(client.Get("/api/v1/m/m/x").status, 404);
}

// As when the spawner is lost: modules come and go while the doors are closed.
TEST_F(GatewayTest, WhoAsksWhileItStopsIsAnsweredOnce) {
  Publish({Route("GET", "/x")});
  std::atomic<bool> stopped = false;
  std::atomic<int> asked = 0, answered = 0;
  std::thread asks([&] {
    const auto directory = std::make_shared<Directory>();
    while (!stopped) {
      asked += 2;
      gateway_->Adopt(directory, [&] { ++answered; });
      gateway_->Drain("m.0.1", [&] { ++answered; });
      gateway_->EndTunnels("m.0.1");
    }
  });
  while (asked < 1'000) std::this_thread::yield();
  gateway_->Stop(Millis(0));
  stopped = true;
  asks.join();
  EXPECT_EQ(answered, asked);
}

TEST_F(GatewayTest, StopLetsWhatIsInFlightEndAndTakesNothingNew) {
  std::promise<FakeRequest> begun;
  auto& module = AddWorker([&](FakeLinkModule&, FakeRequest& r) { begun.set_value(r); });
  Publish({Route("GET", "/x")});
  HttpClient busy = Client(), idle = Client();
  busy.Send("GET /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\n\r\n");
  FakeRequest request = begun.get_future().get();
  EXPECT_EQ(idle.Get("/healthz").status, 200);
  std::thread stop([&] { gateway_->Stop(Millis(5'000)); });
  EXPECT_TRUE(idle.AtEnd());
  module.Do([request](FakeLinkModule& m) mutable { m.Respond(request, 200, {}, "last"); });
  HttpResponse r = busy.Read();
  EXPECT_EQ(r.body, "last");
  EXPECT_EQ(r.Header("connection"), "close");
  EXPECT_TRUE(busy.AtEnd());
  stop.join();
  bool adopted = false;
  gateway_->Adopt(std::make_shared<Directory>(), [&] { adopted = true; });
  EXPECT_TRUE(adopted) << "nobody decides by an older one any more";
}

TEST_F(GatewayTest, SpreadsRequestsOverWorkersByWhatTheyHaveInFlight) {
  auto& stuck = AddWorker([](FakeLinkModule&, FakeRequest&) {});
  auto& free = AddWorker(Answer("ok"));
  Publish({Route("POST", "/x")});
  std::vector<HttpClient> clients;
  int answered = 0;
  for (int i = 0; i < 20; ++i) {
    clients.push_back(Client());
    clients.back().Send("POST /api/v1/m/m/x HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n");
    Instant limit = Clock::Real().Now() + Millis(5'000);
    while (stuck.counts().requests + free.counts().requests <= i && Clock::Real().Now() < limit) std::this_thread::yield();
    if (free.counts().requests > answered) {
      ++answered;
      ASSERT_EQ(clients.back().Read().body, "ok");
    }
  }
  EXPECT_EQ(stuck.counts().requests, 1) << "only as long as both have nothing to do";
  EXPECT_EQ(answered, 19);
}

}  // namespace
}  // namespace bulkhead
