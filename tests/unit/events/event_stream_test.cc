// The engine redis where it differs from the outbox: what goes through Redis, and what happens when that loses things or is filled twice.
#include "supervisor/events/event_stream.h"

#include "supervisor/events/snapshot.h"
#include "supervisor/events/subscription.h"
#include "tests/unit/events/events_harness.h"

namespace bulkhead::events_testing {
namespace {

using testing::HasSubstr;

std::vector<std::string> Numbers(int first, int last) {
  std::vector<std::string> numbers;
  for (int i = first; i <= last; ++i) numbers.push_back(std::to_string(i));
  return numbers;
}

class EventStreamTest : public EventsTest {
 protected:
  EventStreamTest() { Register("stats", R"({"subscribes": ["order.*"]})"); }
  void EmitAll(int first, int last) {
    for (int i = first; i <= last; ++i) Emit("order.created", "a", std::to_string(i));
  }
  // Ready for both subscribers, or for billing alone; returns when Redis carries what is published from now on.
  void Begin(EventNode& node, bool stats = true) {
    EventNode::Workers none, some{{"s.0", stats_}};
    node.Publish({{"billing", {{"order.*"}, {{"b.0", billing_}}}}, {"stats", {{"order.*"}, stats ? some : none}}});
    Until([&] { return Count("event_relay WHERE node IS NOT NULL") == 1; }, "nobody relays");
  }
  std::string Stream() { return Sql("SELECT stream FROM bulkhead_internal.event_relay").Text(0, "stream"); }
  void Connect(EventStream& stream) {
    Until([&] { return stream.Ready(); }, "there is no connection");
  }
  std::vector<StreamEntry> Entries(int64_t behind = 0) {
    EventStream stream(redis_->address());
    Connect(stream);
    auto entries = stream.Read(Stream(), behind, 100'000);
    EXPECT_TRUE(entries.ok()) << entries.status();
    return entries.ok() ? *entries : std::vector<StreamEntry>();
  }
  void Flush() {
    auto client = RedisClient::Open(redis_->address(), limits::kRedisGreeting);
    ASSERT_TRUE(client.ok()) << client.status();
    ASSERT_TRUE((*client)->Run({{"FLUSHALL"}}).ok());
  }
  std::shared_ptr<FakeSubscriber> stats_ = std::make_shared<FakeSubscriber>();
};
INSTANTIATE_TEST_SUITE_P(Engines, EventStreamTest, testing::Values(Engine::kRedis), EngineName);

TEST(SnapshotTest, ASnapshotCoversWhatShowsNothingThatItDoesNot) {
  EXPECT_TRUE(Covers("10:20:", "10:20:"));
  EXPECT_TRUE(Covers("10:20:10,15", "10:20:10,15"));
  EXPECT_TRUE(Covers("10:20:10,15", "10:15:10"));      // 15 has come since
  EXPECT_TRUE(Covers("10:20:10", "10:20:10,15"));      // 15 has ended since
  EXPECT_FALSE(Covers("10:20:10,15", "10:20:10"));
  EXPECT_FALSE(Covers("10:20:", "10:21:"));
  EXPECT_TRUE(Covers("1:1:", "1:1:"));
  EXPECT_FALSE(Covers("1:1:", "10:20:"));
  EXPECT_TRUE(Covers("18446744073709551614:18446744073709551615:", "10:20:"));
  for (const char* bad : {"", "10", "10:20", "10:x:", "10:20:a", "10:20::"}) {
    EXPECT_FALSE(Covers(bad, "1:1:")) << bad;
    EXPECT_FALSE(Covers("10:20:", bad)) << bad;
  }
}

TEST_P(EventStreamTest, WhatHasBeenRelayedIsReadFromRedisAlone) {
  EventNode node("n1", where_);
  Begin(node, false);
  EmitAll(1, 10);
  billing_->Await(10);
  Until([&] { return Sql("SELECT bool_and(pg_visible_in_snapshot(e.xid, r.reach)) AS all FROM bulkhead_internal.events e, bulkhead_internal.event_relay r")
                  .Bool(0, "all"); }, "not all is relayed");
  Sql("DELETE FROM bulkhead_internal.events");
  Begin(node);
  stats_->Await(10);
  EXPECT_EQ(stats_->Payloads(), Numbers(1, 10));
  const auto came = stats_->came(), other = billing_->came();
  for (size_t i = 0; i < came.size(); ++i) EXPECT_EQ(came[i].SerializeAsString(), other[i].SerializeAsString());
}

TEST_P(EventStreamTest, ATransactionOfManyEventsIsManyEntriesAndComesInOrder) {
  EventNode node("n1", where_);
  Begin(node);
  Sql("SELECT bulkhead_internal.append_event('orders', CASE WHEN n % 3 = 0 THEN 'price.updated' ELSE 'order.paid' END, 'k' || n % 7,"
      " CASE WHEN n % 3 = 0 THEN '{\"cents\": 1}' ELSE to_jsonb(n) END) FROM generate_series(1, 3000) n");
  stats_->Await(2000);
  std::map<std::string, int> last;
  for (const auto& event : stats_->came()) {
    EXPECT_LT(std::exchange(last[event.key()], std::stoi(event.payload_json())), std::stoi(event.payload_json()));
  }
  EXPECT_EQ(stats_->came().size(), 2000u);
  EXPECT_GE(Entries().size(), 3000u / limits::kMaxEntryEvents);
}

TEST_P(EventStreamTest, WhileRedisIsAwayEventsComeFromTheOutboxAndTheEngineSaysSo) {
  redis_->Kill();
  EventNode node("n1", where_);
  node.Publish({{"billing", {{"order.*"}, {{"b.0", billing_}}}}});
  EmitAll(1, 5);
  billing_->Await(5);
  Until([&] { return !node.events().queries().Engine().fault.empty(); }, "the engine shows nothing");
  EXPECT_EQ(node.events().queries().Engine().name, "redis");
  redis_->Start();
  Until([&] { return Count("event_relay WHERE node IS NOT NULL") == 1; }, "nobody relays");
  EXPECT_EQ(node.events().queries().Engine().fault, "");
  EmitAll(6, 10);
  billing_->Await(10);
  EXPECT_EQ(billing_->Payloads(), Numbers(1, 10));
  EXPECT_FALSE(Entries().empty());
}

// Killed with what it has, which it keeps or not, while events come all the time.
TEST_P(EventStreamTest, ARedisThatIsKilledAgainAndAgainLosesNothingAndNothingComesTwice) {
  for (const TestRedis::Keeps keeps : {TestRedis::Keeps::kNothing, TestRedis::Keeps::kAll}) {
    redis_.emplace(keeps);
    where_.redis = redis_->address();
    billing_ = std::make_shared<FakeSubscriber>();
    stats_ = std::make_shared<FakeSubscriber>();
    EventNode node("n1", where_);
    Begin(node);
    std::atomic<bool> enough = false;
    std::atomic<int> sent = 0;
    std::thread publisher([&] {
      auto c = Connection::Open(conninfo_);
      while (!enough) {
        if ((*c)->Run(Append("order.created", "a", std::to_string(sent + 1))).ok()) ++sent;
      }
    });
    for (int kill = 0; kill < 5; ++kill) {
      const int before = sent;
      Until([&] { return sent > before + 50 && node.events().queries().Engine().fault.empty(); }, "it does not go on");
      redis_->Kill();
      Until([&] { return !node.events().queries().Engine().fault.empty(); }, "the kill is not noticed");
      redis_->Start();
    }
    Until([&] { return node.events().queries().Engine().fault.empty(); }, "Redis is not back");
    enough = true;
    publisher.join();
    for (const auto& subscriber : {billing_, stats_}) {
      subscriber->Await(static_cast<size_t>(sent));
      EXPECT_EQ(subscriber->Payloads(), Numbers(1, sent));
    }
    node.Stop(0ms);
    Sql("DELETE FROM bulkhead_internal.events");
  }
}

// Deliveries wait for a Redis that begins to hang once, and not again while it hangs: the tries for another connection are no business of the relay.
TEST_P(EventStreamTest, ARedisThatHangsHoldsUpDeliveriesOnceAndLosesDoublesAndReordersNothing) {
  EventNode node("n1", where_);
  Begin(node);
  EmitAll(1, 20);
  billing_->Await(20);
  constexpr int kHung = 300;  // about one each 10 ms
  std::vector<Millis> took;
  redis_->Hang();
  for (int n = 21; n <= 20 + kHung; ++n) {
    const Instant asked = Clock::Real().Now();
    Emit("order.created", "a", std::to_string(n));
    billing_->Await(static_cast<size_t>(n));
    took.push_back(std::chrono::duration_cast<Millis>(Clock::Real().Now() - asked));
    std::this_thread::sleep_for(8ms);
  }
  std::sort(took.begin(), took.end());
  const Millis often = took[took.size() * 99 / 100];
  EXPECT_LT(took.back(), 2 * limits::kStreamPatience + 800ms) << "the one that found it hanging";
  EXPECT_LT(often, limits::kStreamPatience) << "the others come from the outbox";
  RecordProperty("p99_ms", static_cast<int>(often.count()));
  EXPECT_FALSE(node.events().queries().Engine().fault.empty());
  redis_->GoOn();
  Until([&] { return node.events().queries().Engine().fault.empty() && Count("event_relay WHERE node IS NOT NULL") == 1; }, "Redis is not back");
  EmitAll(21 + kHung, 40 + kHung);
  for (const auto& subscriber : {billing_, stats_}) {
    subscriber->Await(static_cast<size_t>(40 + kHung));
    EXPECT_EQ(subscriber->Payloads(), Numbers(1, 40 + kHung));
  }
}

// Again and again, in the middle of what it does.
TEST_P(EventStreamTest, ARedisThatHangsNowAndThenLosesDoublesAndReordersNothing) {
  EventNode node("n1", where_);
  Begin(node);
  std::atomic<bool> enough = false;
  std::atomic<int> sent = 0;
  std::thread publisher([&] {
    auto c = Connection::Open(conninfo_);
    while (!enough) {
      if ((*c)->Run(Append("order.created", "a", std::to_string(sent + 1))).ok()) ++sent;
    }
  });
  for (int hang = 0; hang < 4; ++hang) {
    const int before = sent;
    Until([&] { return sent > before + 50 && node.events().queries().Engine().fault.empty(); }, "it does not go on");
    redis_->Hang();
    Until([&] { return !node.events().queries().Engine().fault.empty(); }, "that it hangs is not noticed");
    redis_->GoOn();
  }
  Until([&] { return node.events().queries().Engine().fault.empty(); }, "Redis is not back");
  enough = true;
  publisher.join();
  for (const auto& subscriber : {billing_, stats_}) {
    subscriber->Await(static_cast<size_t>(sent));
    EXPECT_EQ(subscriber->Payloads(), Numbers(1, sent));
  }
}

TEST_P(EventStreamTest, WhatRedisForgetsInTheMiddleOfAWindowComesWithoutAnotherPublication) {
  EventNode node("n1", where_);
  billing_->Hold();
  Begin(node, false);
  constexpr int kMany = static_cast<int>(limits::kMaxOpenEvents) + 3'000;  // more than are taken at once
  Sql("SELECT bulkhead_internal.append_event('orders', 'order.paid', 'k' || n % 50, to_jsonb(n)) FROM generate_series(1, " + std::to_string(kMany) + ") n");
  Until([&] { return Sql("SELECT bool_and(pg_visible_in_snapshot(e.xid, r.reach)) AS all FROM bulkhead_internal.events e, bulkhead_internal.event_relay r")
                  .Bool(0, "all"); }, "not all is relayed");
  billing_->Await(1);
  Flush();
  billing_->LetGo();
  billing_->Await(kMany);
  std::set<std::string> ids;
  for (const auto& event : billing_->came()) ids.insert(event.id());
  EXPECT_EQ(ids.size(), static_cast<size_t>(kMany));
  EXPECT_EQ(billing_->came().size(), static_cast<size_t>(kMany));
}

TEST_P(EventStreamTest, ARelayThatDiedBetweenTheEntryAndItsPlaceIsFollowedByOneThatLosesAndDoublesNothing) {
  Rows before;
  {
    EventNode node("n1", where_);
    Begin(node, false);
    before = Sql("SELECT reach::text AS reach, number FROM bulkhead_internal.event_relay");
    EmitAll(1, 10);
    billing_->Await(10);
    Until([&] { return !Entries().empty(); }, "nothing is relayed");
  }
  // As it would be had it died there: entries, and a place before them.
  Sql("UPDATE bulkhead_internal.event_relay SET reach = '" + before.Text(0, "reach") + "', number = " + before.Text(0, "number") +
      ", node = 'n1', lease_until = now() + interval '300 milliseconds'");
  const int64_t newest = Entries().back().number;
  EventNode next("n2", where_);
  next.Publish({{"billing", {{"order.*"}, {{"b.0", billing_}}}}, {"stats", {{"order.*"}, {{"s.0", stats_}}}}});
  Until([&] { return Count("event_relay WHERE node = 'n2'") == 1; }, "it is not taken over");
  EmitAll(11, 20);
  stats_->Await(20);
  billing_->Await(20);
  EXPECT_EQ(stats_->Payloads(), Numbers(1, 20));
  EXPECT_EQ(billing_->Payloads(), Numbers(1, 20));
  EXPECT_FALSE(Entries(newest).empty());
}

TEST_P(EventStreamTest, AnEntryThatComesTwiceIsDeliveredOnce) {
  EventNode node("n1", where_);
  Begin(node);
  EmitAll(1, 20);
  billing_->Await(20);
  // A relay that lost its lease without knowing it writes what it had read.
  Until([&] { return !Entries().empty(); }, "nothing is relayed");
  std::vector<StreamEntry> again = Entries();
  for (StreamEntry& entry : again) entry.number += 1'000;
  EventStream stream(redis_->address());
  Connect(stream);
  EXPECT_EQ(stream.Append(Stream(), again).value_or(false), true);
  EXPECT_EQ(stream.Append(Stream(), again).value_or(true), false);
  EmitAll(21, 40);
  billing_->Await(40);
  stats_->Await(40);
  EXPECT_EQ(billing_->Payloads(), Numbers(1, 40));
  EXPECT_EQ(stats_->Payloads(), Numbers(1, 40));
  Until([&] { return Count("event_relay WHERE node IS NOT NULL") == 1; }, "nobody relays any more");
  EmitAll(41, 41);
  Until([&] { return !Entries(again.back().number).empty(); }, "the relay does not find its way behind the stranger's entries");
}

// After a crash, transactions that were lost may give their numbers to others.
TEST_P(EventStreamTest, ACrashOfPostgresBeginsAStreamOfAnotherName) {
  EventNode node("n1", where_);
  Begin(node);
  EmitAll(1, 5);
  billing_->Await(5);
  const std::string first = Stream();
  EXPECT_THAT(first, testing::StartsWith("bulkhead:events:"));
  Sql("CHECKPOINT");  // the server of the tests commits without its disk
  TestPostgres::Instance().Stop();
  TestPostgres::Instance().Start();
  Until([&] {
    auto rows = database_.Run("SELECT stream FROM bulkhead_internal.event_relay");
    return rows.ok() && rows->size() == 1 && rows->Text(0, "stream") != first;
  }, "no other stream");
  EmitAll(6, 10);
  stats_->Await([](const auto& came) { return !came.empty() && came.back().payload_json() == "10"; }, "what came after the crash");
}

TEST_P(EventStreamTest, ASubscriberThatIsBehindTheOldestEntryReadsTheOutboxFirst) {
  EventNode node("n1", where_);
  Begin(node, false);
  for (int i = 1; i <= 30; ++i) {
    EmitAll(i, i);
    billing_->Await(static_cast<size_t>(i));
  }
  EXPECT_GT(Entries().size(), 20u);
  auto client = RedisClient::Open(redis_->address(), limits::kRedisGreeting);
  ASSERT_TRUE(client.ok());
  ASSERT_TRUE((*client)->Run({{"XTRIM", Stream(), "MAXLEN", "3"}}).ok());
  Begin(node);
  stats_->Await(30);
  EXPECT_EQ(stats_->Payloads(), Numbers(1, 30));
}

TEST_P(EventStreamTest, WhatItsAgeMayHaveTakenOutOfTheOutboxIsNotTakenFromTheStream) {
  EventNode node("n1", where_);
  Begin(node);
  EmitAll(1, 3);
  billing_->Await(3);
  Until([&] { return !Entries().empty(); }, "nothing is relayed");
  Sql("DELETE FROM bulkhead_internal.events");
  EventStore store(*Connection::Open(conninfo_), "n2");
  EventStream stream(redis_->address());
  Connect(stream);
  const auto view = store.Look();
  ASSERT_TRUE(view.ok()) << view.status();
  for (const bool old : {false, true}) {
    const EventSight sight{store, *view, &stream, old ? Clock::Real().Wall() + 1h : WallTime()};
    StreamSource source;
    const auto part = source.Next(sight, {.done = Entries().front().part.done}, {"order.*"});
    ASSERT_TRUE(part.ok() && *part) << part.status();
    EXPECT_EQ((*part)->events.empty(), old);
  }
}

}  // namespace
}  // namespace bulkhead::events_testing
