// Modules that say GOAWAY: what they have is answered on the old connection, everything else on a new one.
#include "tests/unit/gateway/gateway_fixture.h"

namespace bulkhead {
namespace {

// A worker that keeps requests for /held until the test answers them, and answers all others with their path.
class GoingAway : public GatewayTest {
 protected:
  FakeLinkModule& AddHolder() {
    return AddWorker([this](FakeLinkModule& m, FakeRequest& r) {
      if (!r.target.starts_with("/held")) return m.Respond(r, 200, {}, r.target);
      std::lock_guard lock(mutex_);
      held_.push_back(r);
    });
  }
  FakeRequest Held(size_t index) {
    std::lock_guard lock(mutex_);
    return held_.at(index);
  }
  size_t held() {
    std::lock_guard lock(mutex_);
    return held_.size();
  }
  bool AwaitHeld(size_t count) {
    Instant limit = Clock::Real().Now() + Millis(5'000);
    while (held() < count && Clock::Real().Now() < limit) std::this_thread::yield();
    return held() == count;
  }
  // A request that the module has and keeps.
  HttpClient Hold(const std::string& method = "GET") {
    HttpClient client = Client();
    size_t before = held();
    client.Send(method + " /api/v1/m/m/held HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n");
    EXPECT_TRUE(AwaitHeld(before + 1));
    return client;
  }
  static void GoAway(FakeLinkModule& module, FakeRequest request, uint32_t last) {
    std::promise<void> said;
    module.Do([&, request](FakeLinkModule& m) mutable {
      m.GoAway(request, last);
      said.set_value();
    });
    said.get_future().wait();
  }
  static void AnswerHeld(FakeLinkModule& module, FakeRequest request, const std::string& body) {
    module.Do([request, body](FakeLinkModule& m) mutable { m.Respond(request, 200, {}, body); });
  }
  const std::vector<RouteSpec> kRoutes = {Route("GET", "/x"), Route("GET", "/held"), Route("POST", "/held")};

 private:
  std::mutex mutex_;
  std::vector<FakeRequest> held_;
};

TEST_F(GoingAway, StreamsAboveTheLastAreSentAgainAndThoseBelowAreAnswered) {
  auto& module = AddHolder();
  Publish(kRoutes);
  HttpClient below = Hold(), above = Hold("POST");
  GoAway(module, Held(0), Held(0).stream);
  ASSERT_TRUE(AwaitHeld(3)) << "the one above, again";
  EXPECT_NE(Held(2).connection, Held(0).connection);
  EXPECT_EQ(Held(2).method, "POST");
  AnswerHeld(module, Held(2), "again");
  EXPECT_EQ(above.Read().body, "again");
  EXPECT_EQ(module.counts().closed, 0);
  AnswerHeld(module, Held(0), "the old one");
  EXPECT_EQ(below.Read().body, "the old one");
  EXPECT_TRUE(module.WaitFor([](const auto& c) { return c.closed == 1 && c.goaways == 1; })) << "the old connection has no streams any more";
  EXPECT_EQ(below.Get("/api/v1/m/m/x").body, "/x");
  EXPECT_EQ(module.counts().connections, 2);
  EXPECT_THAT(faults_.With([](auto& faults) { return faults; }), testing::IsEmpty());
}

TEST_F(GoingAway, NewRequestsDoNotWaitForTheOldStreams) {
  auto& module = AddHolder();
  Publish(kRoutes);
  HttpClient old = Hold(), other = Client();
  GoAway(module, Held(0), Held(0).stream);
  for (int i = 0; i < 10; ++i) ASSERT_EQ(other.Get("/api/v1/m/m/x").body, "/x");
  EXPECT_EQ(module.counts().connections, 2);
  EXPECT_FALSE(old.Readable(20));
  AnswerHeld(module, Held(0), "late");
  EXPECT_EQ(old.Read().body, "late");
}

TEST_F(GoingAway, StreamsAboveTheLastGoToAnotherWorkerWhereThereIsOne) {
  AddWorker([](FakeLinkModule& m, FakeRequest& r) { m.GoAway(r, 0); });
  AddWorker(Answer("other"));
  Publish(kRoutes);
  HttpClient client = Client();
  for (int i = 0; i < 10; ++i) {
    client.Send("POST /api/v1/m/m/held HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\nx");
    ASSERT_EQ(client.Read().body, "other");
  }
}

TEST_F(GoingAway, AnInstanceIsDrainedWhenAllOfItsConnectionsAre) {
  auto& module = AddHolder();
  const std::string instance = last_instance_;
  Publish(kRoutes);
  HttpClient first = Hold();
  GoAway(module, Held(0), Held(0).stream);
  Pass(Millis(0));
  HttpClient second = Hold();
  ASSERT_EQ(module.counts().connections, 2);
  RemoveWorker(instance);
  Publish(kRoutes);
  std::promise<void> drained;
  std::future<void> done = drained.get_future();
  gateway_->Drain(instance, [&] { drained.set_value(); });
  AnswerHeld(module, Held(1), "second");
  EXPECT_EQ(second.Read().body, "second");
  EXPECT_EQ(done.wait_for(Millis(50)), std::future_status::timeout);
  AnswerHeld(module, Held(0), "first");
  EXPECT_EQ(first.Read().body, "first");
  EXPECT_EQ(done.wait_for(std::chrono::seconds(5)), std::future_status::ready);
}

TEST_F(GoingAway, AModuleThatLeavesAllItsConnectionsHalfOpenIsOverloaded) {
  auto& module = AddHolder();
  AddWorker(Answer("fine"), "other");
  Publish(kRoutes);
  constexpr size_t kMost = 9;  // one, and those that are going away
  std::vector<HttpClient> clients;
  for (size_t i = 0; i < kMost; ++i) {
    clients.push_back(Hold());
    GoAway(module, Held(i), Held(i).stream);
    Pass(Millis(0));
  }
  HttpClient client = Client();
  HttpResponse r = client.Get("/api/v1/m/m/x");
  EXPECT_EQ(r.status, 503);
  EXPECT_THAT(r.body, testing::HasSubstr("OVERLOADED"));
  EXPECT_EQ(r.Header("retry-after"), "1");
  EXPECT_EQ(client.Get("/api/v1/m/other/x").body, "fine");
  AnswerHeld(module, Held(0), "first");
  EXPECT_EQ(clients[0].Read().body, "first");
  EXPECT_EQ(client.Get("/api/v1/m/m/x").body, "/x");
}

}  // namespace
}  // namespace bulkhead
