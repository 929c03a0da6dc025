// From the publication to the acknowledgement: what comes, in which order, and what happens when something fails on the way.
#include "supervisor/events/subscription.h"
#include "tests/unit/events/events_harness.h"

namespace bulkhead::events_testing {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::MatchesRegex;
using testing::UnorderedElementsAre;
using Verdict = pb::EventOutcome;

TEST_P(EventsTest, ASubscriberIsGivenWhatItsTopicsMatchAndNothingElse) {
  EventNode node("n1", where_);
  node.Publish({{"billing", {{"order.*"}, {{"b.0", billing_}}}}});
  Emit("price.updated", "p", R"({"cents": 5})");
  Emit("order.created", "o1", R"({"n": 1})");
  const auto came = billing_->Await(1);
  ASSERT_EQ(came.size(), 1u);
  EXPECT_EQ(came[0].topic(), "order.created");
  EXPECT_EQ(came[0].key(), "o1");
  EXPECT_EQ(came[0].payload_json(), R"({"n": 1})");
  EXPECT_EQ(came[0].source(), "orders");
  EXPECT_EQ(came[0].attempt(), 1);
  EXPECT_NEAR(came[0].at_ms(), std::chrono::duration_cast<Millis>(Clock::Real().Wall().time_since_epoch()).count(), 60'000);
}

TEST_P(EventsTest, AnOpenTransactionDelaysItsOwnEventsAndNoOthers) {
  EventNode node("n1", where_);
  node.Publish({{"billing", {{"order.*"}, {{"b.0", billing_}}}}});
  auto open = Connection::Open(conninfo_);
  ASSERT_TRUE(open.ok());
  ASSERT_TRUE((*open)->Run("BEGIN").ok());
  ASSERT_TRUE((*open)->Run(Append("order.created", "slow", "0")).ok());
  for (int i = 1; i <= 500; ++i) Emit("order.created", "quick", std::to_string(i));
  billing_->Await(500);
  // Its place goes on meanwhile, and who begins there does not forget the open one.
  Until([&] { return Sql("SELECT reach IS NULL AND pg_snapshot_xmax(done) > (SELECT max(xid) FROM bulkhead_internal.events) AS far FROM"
                         " bulkhead_internal.event_subscriptions").Bool(0, "far"); }, "the place does not move");
  const auto waiting = node.events().queries().OpenTransactions();
  ASSERT_TRUE(waiting.ok());
  ASSERT_EQ(waiting->size(), 1u);
  EXPECT_EQ((*waiting)[0].pid, (*open)->Run("SELECT pg_backend_pid() AS pid")->Int(0, "pid"));
  EXPECT_EQ((*waiting)[0].state, "idle in transaction");
  ASSERT_TRUE((*open)->Run("COMMIT").ok());
  const auto came = billing_->Await(501);
  EXPECT_EQ(came.back().key(), "slow");
  EXPECT_EQ(came.size(), 501u);
}

TEST_P(EventsTest, ATransactionThatRollsBackHasPublishedNothing) {
  EventNode node("n1", where_);
  node.Publish({{"billing", {{"order.*"}, {{"b.0", billing_}}}}});
  EXPECT_FALSE(database_.Transaction([&](Connection& c) -> absl::Status {
    RETURN_IF_ERROR(c.Run(Append("order.created", "a", "1")).status());
    return absl::AbortedError("on second thoughts");
  }).ok());
  Emit("order.created", "a", "2");
  billing_->Await(1);
  EXPECT_THAT(billing_->Payloads(), ElementsAre("2"));
}

TEST_P(EventsTest, EventsOfAKeyComeInOrderThoughTransactionsOfManySessionsInterleave) {
  EventNode node("n1", where_);
  auto second = std::make_shared<FakeSubscriber>();
  node.Publish({{"billing", {{"order.*"}, {{"b.0", billing_}, {"b.1", second}}}}});
  constexpr int kSessions = 4, kEach = 200, kEvents = kSessions / 2 * kEach * (1 + 3);
  Sql("CREATE TABLE counters (key text PRIMARY KEY, n int NOT NULL)");
  for (int k = 0; k < 5; ++k) Sql("INSERT INTO counters VALUES ('k" + std::to_string(k) + "', 0)");
  std::vector<std::thread> sessions;
  for (int s = 0; s < kSessions; ++s) {
    sessions.emplace_back([&, s] {
      auto c = Connection::Open(conninfo_);
      ASSERT_TRUE(c.ok());
      for (int i = 0; i < kEach; ++i) {
        const std::string key = "k" + std::to_string((s + i) % 5);
        // The transaction has its number long before the row's lock says whose turn it is.
        const absl::Status status = (*c)->Transaction([&](Connection& t) -> absl::Status {
          RETURN_IF_ERROR(t.Run("SELECT pg_current_xact_id()").status());
          if (s % 2 == 0) {
            return t.Run("WITH next AS (UPDATE counters SET n = n + 1 WHERE key = $1 RETURNING n)"
                         " SELECT bulkhead_internal.append_event('orders', 'order.paid', $1, to_jsonb(n)) FROM next", {key}).status();
          }
          return t.Run("WITH next AS (UPDATE counters SET n = n + 3 WHERE key = $1 RETURNING n)"
                       " SELECT bulkhead_internal.append_many('{orders,orders,orders}', '{order.paid,order.paid,order.paid}', ARRAY[$1, $1, $1],"
                       " ARRAY[to_jsonb(n - 2), to_jsonb(n - 1), to_jsonb(n)]) FROM next", {key}).status();
        });
        ASSERT_TRUE(status.ok()) << status;
      }
    });
  }
  for (auto& session : sessions) session.join();
  Until([&] { return billing_->came().size() + second->came().size() >= kEvents; }, "not all have come");
  for (int k = 0; k < 5; ++k) {
    const std::string key = "k" + std::to_string(k);
    std::vector<std::pair<int64_t, int>> seen;  // by when it was delivered, which over both workers only the ids tell
    for (const auto& worker : {billing_, second}) {
      int64_t last = 0;
      for (const pb::Event& event : worker->came()) {
        if (event.key() != key) continue;
        EXPECT_GT(std::stoll(event.id()), last) << key;
        last = std::stoll(event.id());
        seen.emplace_back(last, std::stoi(event.payload_json()));
      }
    }
    std::sort(seen.begin(), seen.end());
    for (size_t i = 0; i < seen.size(); ++i) EXPECT_EQ(seen[i].second, static_cast<int>(i) + 1) << key;
  }
}

TEST_P(EventsTest, AFailedEventIsTriedAgainAndHoldsUpItsKeyAlone) {
  EventNode node("n1", where_);
  std::atomic<int> tries = 0;
  billing_->Say([&](const pb::Event& event) {
    return event.payload_json() == "1" && ++tries == 1 ? Verdict::RETRY : Verdict::ACK;
  });
  node.Publish({{"billing", {{"order.*"}, {{"b.0", billing_}}}}});
  Emit("order.created", "a", "1");
  Until([&] { return tries == 1; }, "not tried");
  Emit("order.created", "a", "2");
  Emit("order.created", "b", "3");
  const auto came = billing_->Await(4);
  std::vector<std::string> order;
  for (const auto& event : came) order.push_back(event.payload_json() + "/" + std::to_string(event.attempt()));
  EXPECT_THAT(order, ElementsAre("1/1", "3/1", "1/2", "2/1"));
  Until([&] { return Count("event_deliveries") == 0; }, "rows of acknowledged events are left");
}

TEST_P(EventsTest, ASlowEventHoldsUpItsKeyAndNothingElse) {
  EventNode node("n1", where_);
  billing_->Hold("slow");
  node.Publish({{"billing", {{"order.*"}, {{"b.0", billing_}}}}});
  Emit("order.created", "slow", "0");
  billing_->Await(1);
  constexpr int kMany = 3 * static_cast<int>(limits::kMaxWindows);
  for (int i = 1; i <= kMany; ++i) {  // each by itself, so that each is a window of its own
    Emit("order.created", "quick" + std::to_string(i % 7), std::to_string(i));
    billing_->Await(static_cast<size_t>(i) + 1);
  }
  EXPECT_EQ(node.events().queries().Subscriptions()->at(0).oldest.has_value(), true);
  billing_->LetGo();
  Until([&] { return node.events().queries().Subscriptions()->at(0).lag == 0; }, "not all is acknowledged");
}

TEST_P(EventsTest, WhatAWorkerTookAlongWhenItDiedComesToAnother) {
  EventNode node("n1", where_);
  billing_->Die(absl::UnavailableError("gone"));
  node.Publish({{"billing", {{"order.*"}, {{"b.0", billing_}}}}});
  Emit("order.created", "a", "1");
  billing_->Await(1);
  auto second = std::make_shared<FakeSubscriber>();
  node.Publish({{"billing", {{"order.*"}, {{"b.1", second}}}}});
  EXPECT_EQ(second->Await(1)[0].payload_json(), "1");
  Until([&] { return node.events().queries().Subscriptions()->at(0).lag == 0; }, "it is not acknowledged");
  EXPECT_EQ(Count("event_dead_letters"), 0);
}

TEST_P(EventsTest, WhatWasNotAcknowledgedComesAgainAfterARestartAndWhatWasDoesNot) {
  {
    EventNode node("n1", where_);
    billing_->Say([](const pb::Event& event) { return event.payload_json() == "2" ? Verdict::RETRY : Verdict::ACK; });
    node.Publish({{"billing", {{"order.*"}, {{"b.0", billing_}}}}});
    for (const char* n : {"1", "2", "3"}) Emit("order.created", n, n);
    billing_->Await(3);
    Until([&] { return Count("event_deliveries") == 1; }, "the failed one is not parked");
    node.Stop(0ms);
  }
  Emit("order.created", "4", "4");
  auto later = std::make_shared<FakeSubscriber>();
  EventNode node("n1", where_);
  node.Publish({{"billing", {{"order.*"}, {{"b.1", later}}}}});
  later->Await(2);
  EXPECT_THAT(later->Payloads(), UnorderedElementsAre("2", "4"));
}

TEST_P(EventsTest, AShutdownGivesBackWhatIsUnderWayAndMakesNothingADeadLetter) {
  EventNode node("n1", where_);
  billing_->Hold();
  node.Publish({{"billing", {{"order.*"}, {{"b.0", billing_}}}}});
  for (int i = 0; i < 50; ++i) Emit("order.created", std::to_string(i), std::to_string(i));
  billing_->Await(1);
  node.Stop(50ms);
  billing_->LetGo(absl::CancelledError());
  EXPECT_EQ(Count("event_dead_letters"), 0);
  EXPECT_EQ(Count("event_deliveries"), 0);
  auto later = std::make_shared<FakeSubscriber>();
  EventNode next("n1", where_);
  next.Publish({{"billing", {{"order.*"}, {{"b.1", later}}}}});
  for (const auto& event : later->Await(50)) EXPECT_EQ(event.attempt(), 1);
}

TEST_P(EventsTest, ADrainWaitsForTheCallsThatAreUnderWay) {
  EventNode node("n1", where_);
  billing_->Hold();
  node.Publish({{"billing", {{"order.*"}, {{"b.0", billing_}}}}});
  Emit("order.created", "a", "1");
  billing_->Await(1);
  node.Publish({{"billing", {{"order.*"}, {}}}});
  std::atomic<bool> drained = false;
  node.OnLoop([&] { node.events().Drain("b.0", [&] { drained = true; }); });
  Emit("order.created", "b", "2");
  EXPECT_FALSE(drained);
  billing_->LetGo();
  Until([&] { return drained.load(); }, "not drained");
  EXPECT_EQ(billing_->came().size(), 1u);
}

TEST_P(EventsTest, WhatIsPublishedWhileASubscriberIsDisabledIsKeptForIt) {
  EventNode node("n1", where_);
  node.Publish({});
  for (int i = 0; i < 20; ++i) Emit("order.created", "a", std::to_string(i));
  node.Publish({{"billing", {{"order.*"}, {{"b.0", billing_}}}}});
  billing_->Await(20);
}

TEST_P(EventsTest, OneNodeDeliversAndAnotherTakesOverWhenItLeaves) {
  auto first = std::make_unique<EventNode>("n1", where_);
  first->Publish({{"billing", {{"order.*"}, {{"b.0", billing_}}}}});
  Emit("order.created", "a", "1");
  billing_->Await(1);
  auto other = std::make_shared<FakeSubscriber>();
  EventNode second("n2", where_);
  second.Publish({{"billing", {{"order.*"}, {{"c.0", other}}}}});
  for (int i = 2; i <= 100; ++i) Emit("order.created", "a", std::to_string(i));
  billing_->Await(100);
  EXPECT_TRUE(other->came().empty());
  first.reset();
  Emit("order.created", "a", "101");
  EXPECT_EQ(other->Await(1)[0].payload_json(), "101");
}

TEST_P(EventsTest, ALostDatabaseIsWaitedForAndNothingIsLost) {
  EventNode node("n1", where_);
  node.Publish({{"billing", {{"order.*"}, {{"b.0", billing_}}}}});
  Emit("order.created", "a", "1");
  billing_->Await(1);
  Sql("CHECKPOINT");  // the server of the tests commits without its disk
  TestPostgres::Instance().Stop();
  EXPECT_EQ(ErrorCode(node.Send("order.created", "a", "2").status()), "DATABASE_UNAVAILABLE");
  TestPostgres::Instance().Start();
  Until([&] { return node.Send("order.created", "a", "3").ok(); }, "the database is not back");
  billing_->Await([](const auto& came) { return !came.empty() && came.back().payload_json() == "3"; }, "what came after the loss");
}

TEST_P(EventsTest, ALostConnectionIsMadeAnewAsOftenAsItTakes) {
  EventNode node("n1", where_);
  node.Publish({{"billing", {{"order.*"}, {{"b.0", billing_}}}}});
  for (int i = 1; i <= 5; ++i) {
    Emit("order.created", "a", std::to_string(i));
    billing_->Await([&](const auto& came) { return !came.empty() && came.back().payload_json() == std::to_string(i); }, "what came after the loss");
    const char* end = "SELECT count(pg_terminate_backend(pid)) AS n FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    Until([&] { return Sql(end).Int(0, "n") > 0; }, "it is not connected");
  }
}

TEST_P(EventsTest, AnIdleNodeSleepsAndTheNextPublicationWakesIt) {
  EventNode node("n1", where_);
  node.Publish({{"billing", {{"order.*"}, {{"b.0", billing_}}}}});
  Until([&] { return Count("event_sleepers") == 1; }, "it does not sleep");
  const Instant published = Clock::Real().Now();
  Emit("order.created", "a", "1");
  billing_->Await(1);
  EXPECT_LT(Clock::Real().Now() - published, 900ms);  // its own next look would be a second away
  Until([&] { return Count("event_sleepers") == 0; }, "it is woken by each publication");
  Until([&] { return Count("event_sleepers") == 1; }, "it sleeps again");
  node.Publish({});
  Until([&] { return Count("event_sleepers") == 0; }, "who has nothing to deliver is not to be woken");
}

TEST_P(EventsTest, AModulePublishesByRpcWhatItDeclaresAndARefusalHurtsNobodyElse) {
  EventNode node("n1", where_);
  node.Publish({{"billing", {{"order.*"}, {{"b.0", billing_}}}}});
  std::vector<std::promise<absl::StatusOr<int64_t>>> answers(40);
  for (size_t i = 0; i < answers.size(); ++i) {
    const std::string topic = i == 7 ? "order.stolen" : i == 20 ? "price.updated" : "order.created";
    node.events().Publish({"orders", topic, "k", i == 20 ? R"({"cents": 0})" : std::to_string(i)},
                          [&, i](absl::StatusOr<int64_t> id) { answers[i].set_value(std::move(id)); });
  }
  for (size_t i = 0; i < answers.size(); ++i) {
    const auto id = answers[i].get_future().get();
    EXPECT_EQ(id.ok(), i != 7 && i != 20) << i << id.status();
    const std::string sentence(id.status().message());
    EXPECT_THAT(sentence, HasSubstr(i == 7 ? "does not declare the event \"order.stolen\"" : i == 20 ? "/cents must be at least 1" : ""));
    EXPECT_TRUE(id.ok() || ErrorCode(id.status()) == "INVALID_ARGUMENT") << id.status();
  }
  billing_->Await(38);
  EXPECT_EQ(ErrorCode(node.Send("order.created", std::string(513, 'k'), "1").status()), "INVALID_ARGUMENT");
  EXPECT_EQ(ErrorCode(node.Send("order.created", "k", "{").status()), "INVALID_ARGUMENT");
  EXPECT_EQ(ErrorCode(node.Send("order.created", "k", R"("\u0000")").status()), "INVALID_ARGUMENT");
  EXPECT_EQ(ErrorCode(node.Send("order.created", "k", "\"" + std::string(300'000, 'x') + "\"").status()), "INVALID_ARGUMENT");
  EXPECT_EQ(ErrorCode(node.Send("order.created", "k", "1", "billing").status()), "INVALID_ARGUMENT");
}

TEST_P(EventsTest, ThreeRefusedEventsAmongAThousandCostTheOthersFewTransactions) {
  EventNode node("n1", where_);
  constexpr size_t kMany = 1'000;
  std::vector<std::promise<absl::StatusOr<int64_t>>> answers(kMany);
  const auto bad = [](size_t i) { return i == 400 || i == 401 || i == 900; };
  for (size_t i = 0; i < kMany; ++i) {
    node.events().Publish({"orders", "order.created", "k", bad(i) ? R"("\u0000")" : std::to_string(i)},  // JSON, but nothing that PostgreSQL keeps
                          [&, i](absl::StatusOr<int64_t> id) { answers[i].set_value(std::move(id)); });
  }
  int64_t last = 0;
  for (size_t i = 0; i < kMany; ++i) {
    const auto id = answers[i].get_future().get();
    ASSERT_EQ(id.ok(), !bad(i)) << i << id.status();
    if (!id.ok()) continue;
    EXPECT_GT(*id, last);
    last = *id;
  }
  EXPECT_EQ(Count("events"), int(kMany) - 3);
  EXPECT_LT(Sql("SELECT count(DISTINCT xid) AS n FROM bulkhead_internal.events").Int(0, "n"), 200);
}

TEST_P(EventsTest, ManyEventsArePublishedAtOnceOrNoneIsAndTheRefusedOneIsNamed) {
  auto session = Connection::Open(conninfo_);
  ASSERT_TRUE(session.ok());
  Connection& c = **session;
  BecomeOrders(c);
  const auto many = [&](const std::string& topics, const std::string& keys, const std::string& payloads) {
    return c.Run("SELECT array_to_string(bulkhead.publish_many($1, $2, $3), ',') AS ids", {topics, keys, payloads});
  };
  EXPECT_THAT(many("{order.paid,price.updated}", "{a,NULL}", R"({"1","{\"cents\": 5}"})")->Text(0, "ids"), MatchesRegex("[0-9]+,[0-9]+"));
  EXPECT_EQ(many("{}", "{}", "{}")->Text(0, "ids"), "");
  for (const auto& [topics, sentence] : {std::pair("{order.paid,order.stolen}", "event 2 of 2: the manifest of orders does not declare"),
                                         std::pair("{order.paid,price.updated}", "event 2 of 2: the payload of \"price.updated\" is not what"),
                                         std::pair("{order.paid}", "1 topics, 2 keys and 2 payloads")}) {
    const absl::Status refused = many(topics, "{a,a}", "{1,2}").status();
    EXPECT_EQ(SqlState(refused), "22023");
    EXPECT_THAT(std::string(refused.message()), HasSubstr(sentence));
  }
  EXPECT_EQ(Sql("SELECT count(*) AS n FROM bulkhead_internal.events WHERE topic = 'order.paid'").Int(0, "n"), 1);
  EXPECT_EQ(SqlState(c.Run("SELECT bulkhead.publish_many(array_fill('order.paid'::text, '{10001}'), array_fill('a'::text, '{10001}'),"
                           " array_fill('1'::jsonb, '{10001}'))").status()), "22023");
}

TEST_P(EventsTest, ARoleOfAModulePublishesAsThatModuleAndRemembersWhatItHasDone) {
  auto session = Connection::Open(conninfo_);
  ASSERT_TRUE(session.ok());
  Connection& c = **session;
  EXPECT_EQ(SqlState(c.Run("SELECT bulkhead.publish('order.created', 'a', '1')").status()), "42501");  // the supervisor is no module
  BecomeOrders(c);
  EXPECT_TRUE(c.Run("SELECT bulkhead.publish('order.created', 'a', '1')").ok());
  EXPECT_EQ(SqlState(c.Run("SELECT bulkhead.publish('order.stolen', 'a', '1')").status()), "22023");
  EXPECT_EQ(SqlState(c.Run("SELECT bulkhead.publish('price.updated', 'a', '{\"cents\": \"5\"}')").status()), "22023");
  EXPECT_EQ(SqlState(c.Run("SELECT bulkhead_internal.append_event('billing', 'order.created', 'a', '1')").status()), "42501");
  EXPECT_EQ(SqlState(c.Run("SELECT * FROM bulkhead_internal.events").status()), "42501");
  EXPECT_TRUE(c.Run("SELECT bulkhead.once('7') AS first")->Bool(0, "first"));
  EXPECT_FALSE(c.Run("SELECT bulkhead.once('7') AS first")->Bool(0, "first"));
  ASSERT_TRUE(c.Run("BEGIN").ok());
  EXPECT_TRUE(c.Run("SELECT bulkhead.once('8') AS first")->Bool(0, "first"));
  ASSERT_TRUE(c.Run("ROLLBACK").ok());
  EXPECT_TRUE(c.Run("SELECT bulkhead.once('8') AS first")->Bool(0, "first"));
}

INSTANTIATE_TEST_SUITE_P(Engines, EventsTest, testing::Values(Engine::kPostgres, Engine::kRedis), EngineName);

}  // namespace
}  // namespace bulkhead::events_testing
