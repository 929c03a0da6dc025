// What an operator sees of events and does to them: lists, lag, dead letters, replays, and what goes by its age.
#include "supervisor/events/event_queries.h"

#include "supervisor/events/event_store.h"
#include "tests/unit/events/events_harness.h"

namespace bulkhead::events_testing {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Verdict = pb::EventOutcome;

class EventQueriesTest : public EventsTest {
 protected:
  AuditRecord Audit(const std::string& action) { return {.by = SystemActor("n1"), .action = action}; }
  EventQueries queries_{database_};
};

TEST_P(EventQueriesTest, EventsAreListedNewestFirstByTopicKeyAndTime) {
  Emit("order.created", "a", "1");
  Emit("order.paid", "b", "2");
  Emit("price.updated", "a", R"({"cents": 3})");
  const auto topics = [&](const EventQueries::Filter& filter) {
    const auto page = queries_.Find(filter);
    EXPECT_TRUE(page.ok()) << page.status();
    std::vector<std::string> found;
    for (const StoredEvent& event : page->events) found.push_back(event.topic);
    return found;
  };
  EXPECT_THAT(topics({}), ElementsAre("price.updated", "order.paid", "order.created"));
  EXPECT_THAT(topics({.topic = "order.*"}), ElementsAre("order.paid", "order.created"));
  EXPECT_THAT(topics({.topic = "order.paid"}), ElementsAre("order.paid"));
  EXPECT_THAT(topics({.topic = "order._aid"}), ElementsAre());
  EXPECT_THAT(topics({.key = "a"}), ElementsAre("price.updated", "order.created"));
  EXPECT_THAT(topics({.since = Clock::Real().Wall() + 60s}), ElementsAre());
  EXPECT_THAT(topics({.page = 2, .page_size = 2}), ElementsAre("order.created"));
  EXPECT_EQ(queries_.Find({.page_size = 1})->total, 3);
}

TEST_P(EventQueriesTest, TheLagCountsWhatIsNotAcknowledged) {
  EventNode node("n1", where_);
  billing_->Say([](const pb::Event& event) { return event.key() == "bad" ? Verdict::RETRY : Verdict::ACK; });
  node.Publish({{"billing", {{"order.*"}, {{"b.0", billing_}}}}});
  Emit("order.created", "bad", "1");
  Emit("order.created", "good", "2");
  Emit("price.updated", "x", R"({"cents": 3})");
  Until([&] { return queries_.Subscriptions()->at(0).retrying == 1; }, "it does not wait for its next attempt");
  Until([&] { return queries_.Subscriptions()->at(0).lag == 1; }, "the good one is not acknowledged");
  const SubscriptionView view = queries_.Subscriptions()->at(0);
  EXPECT_EQ(view.module, "billing");
  EXPECT_THAT(view.topics, ElementsAre("order.*"));
  EXPECT_EQ(view.node, "n1");
  EXPECT_EQ(view.dead_letters, 0);
  EXPECT_TRUE(view.oldest);
  node.Publish({});
  Until([&] { return queries_.Subscriptions()->at(0).node.empty(); }, "it is not let go");
  Emit("order.created", "good", "4");
  EXPECT_EQ(queries_.Subscriptions()->at(0).lag, 2);
}

TEST_P(EventQueriesTest, ADeadLetterIsLookedAtDeliveredAgainAndDropped) {
  EventNode node("n1", where_);
  std::atomic<bool> dead = true;
  billing_->Say([&](const pb::Event&) { return dead ? Verdict::DEAD : Verdict::ACK; });
  node.Publish({{"billing", {{"order.*"}, {{"b.0", billing_}}}}});
  Emit("order.created", "a", R"({"n": 1})");
  Emit("order.paid", "b", "2");
  Until([&] { return queries_.DeadLetters("", "", 1, 50)->total == 2; }, "no dead letters");
  EXPECT_EQ(queries_.DeadLetters("orders", "", 1, 50)->total, 0);
  const auto page = queries_.DeadLetters("billing", "order.created", 1, 50);
  ASSERT_EQ(page->letters.size(), 1u);
  const DeadLetter letter = page->letters[0];
  EXPECT_EQ(letter.event.payload_json, R"({"n": 1})");
  EXPECT_EQ(letter.error, "as the test wants it");
  EXPECT_EQ(queries_.GetDeadLetter(letter.id)->event.key, "a");

  dead = false;
  Sql("DELETE FROM bulkhead_internal.events");  // by their age
  ASSERT_TRUE(queries_.ReplayDeadLetter(letter.id, Audit("events.dead_letter.replay")).ok());
  const auto came = billing_->Await(3);
  EXPECT_EQ(came[2].id(), std::to_string(letter.event.id));
  EXPECT_EQ(came[2].attempt(), 1);
  EXPECT_EQ(ErrorCode(queries_.GetDeadLetter(letter.id).status()), "DEAD_LETTER_NOT_FOUND");

  const int64_t other = queries_.DeadLetters("", "", 1, 50)->letters.at(0).id;
  EXPECT_TRUE(queries_.DropDeadLetter(other, Audit("events.dead_letter.drop")).ok());
  EXPECT_EQ(ErrorCode(queries_.DropDeadLetter(other, Audit("events.dead_letter.drop")).status()), "DEAD_LETTER_NOT_FOUND");
  Until([&] { return Count("event_deliveries") == 0; }, "the replayed one is not acknowledged");
  EXPECT_EQ(Count("audit"), 2);
}

TEST_P(EventQueriesTest, AllDeadLettersOfAModuleAreDeliveredAgainInTheirOrder) {
  EventNode node("n1", where_);
  std::atomic<bool> dead = true;
  billing_->Say([&](const pb::Event&) { return dead ? Verdict::DEAD : Verdict::ACK; });
  node.Publish({{"billing", {{"order.*"}, {{"b.0", billing_}}}}});
  for (int i = 0; i < 30; ++i) Emit("order.created", "a", std::to_string(i));
  Until([&] { return queries_.DeadLetters("", "", 1, 50)->total == 30; }, "no dead letters");
  dead = false;
  EXPECT_EQ(queries_.ReplayDeadLetters("billing", "order.*", Audit("events.dead_letter.replay")).value_or(-1), 30);
  const auto came = billing_->Await(60);
  for (int i = 0; i < 30; ++i) EXPECT_EQ(came[30 + i].payload_json(), std::to_string(i));
}

TEST_P(EventQueriesTest, AReplayDeliversAgainWhatWasPublishedSinceATimeAndTheRestOfTheLagOnce) {
  EventNode node("n1", where_);
  node.Publish({{"billing", {{"order.*"}, {{"b.0", billing_}}}}});
  Emit("order.created", "a", "1");
  Sql("UPDATE bulkhead_internal.events SET at = at - interval '1 hour'");
  Emit("order.created", "a", "2");
  Emit("order.created", "a", "3");
  billing_->Await(3);
  Until([&] { return queries_.Subscriptions()->at(0).lag == 0; }, "not acknowledged");
  const auto count = queries_.Replay("billing", Clock::Real().Wall() - std::chrono::minutes(30), true, Audit("events.replay"));
  ASSERT_TRUE(count.ok()) << count.status();
  EXPECT_EQ(*count, 2);
  billing_->Await(5);
  Emit("order.created", "a", "4");
  billing_->Await(6);
  EXPECT_THAT(billing_->Payloads(), ElementsAre("1", "2", "3", "2", "3", "4"));
  EXPECT_EQ(ErrorCode(queries_.Replay("nobody", Clock::Real().Wall(), false, Audit("events.replay")).status()), "SUBSCRIPTION_NOT_FOUND");
}

TEST_P(EventQueriesTest, AReplayForgetsWhatWasDoneOnlyWhenItIsToldTo) {
  Emit("order.created", "a", "1");
  Sql("INSERT INTO bulkhead_internal.event_inbox SELECT 'billing', id FROM bulkhead_internal.events");
  const WallTime before = Clock::Real().Wall() - std::chrono::minutes(1);
  ASSERT_TRUE(queries_.Replay("billing", before, false, Audit("events.replay")).ok());
  EXPECT_EQ(Count("event_inbox"), 1);
  ASSERT_TRUE(queries_.Replay("billing", before, true, Audit("events.replay")).ok());
  EXPECT_EQ(Count("event_inbox"), 0);
}

TEST_P(EventQueriesTest, WhatEverybodyHasGoesByItsAgeAndWhatSomebodyLacksLater) {
  for (int i = 0; i < 3; ++i) Emit("order.created", "a", std::to_string(i));
  auto connection = Connection::Open(conninfo_);
  ASSERT_TRUE(connection.ok());
  EventStore store(*std::move(connection), "n1");
  Sql("UPDATE bulkhead_internal.events SET at = at - interval '8 days'");
  constexpr Millis kDay{86'400'000};
  EXPECT_EQ(store.Trim(7 * kDay, 30 * kDay).value_or(-1), 0);  // billing has had none of them
  Sql("UPDATE bulkhead_internal.event_subscriptions SET done = pg_current_snapshot()");
  Sql("INSERT INTO bulkhead_internal.event_deliveries (module, event_id) SELECT 'billing', max(id) FROM bulkhead_internal.events");
  EXPECT_EQ(store.Trim(7 * kDay, 30 * kDay).value_or(-1), 2);  // the third is to be tried again
  Sql("DELETE FROM bulkhead_internal.event_deliveries");
  Emit("order.created", "a", "3");
  EXPECT_EQ(store.Trim(7 * kDay, 30 * kDay).value_or(-1), 1);
  Sql("UPDATE bulkhead_internal.events SET at = at - interval '31 days'");
  EXPECT_EQ(store.Trim(7 * kDay, 30 * kDay).value_or(-1), 1);
}

TEST_P(EventQueriesTest, ASubscriptionBeginsWhenItsModuleIsFirstEnabledAndFollowsTheManifest) {
  Register("stats", R"({"subscribes": ["order.paid"]})", "REGISTERED");
  EXPECT_EQ(queries_.Subscriptions()->size(), 1u);
  Emit("order.paid", "a", "1");
  Sql("UPDATE bulkhead_internal.modules SET status = 'ENABLED' WHERE name = 'stats'");
  Emit("order.paid", "a", "2");
  ASSERT_EQ(queries_.Subscriptions()->size(), 2u);
  EXPECT_EQ(queries_.Subscriptions()->at(1).lag, 1);
  Sql("UPDATE bulkhead_internal.modules SET status = 'DISABLED' WHERE name = 'stats'");
  Emit("order.paid", "a", "3");
  EXPECT_EQ(queries_.Subscriptions()->at(1).lag, 2);
  Sql(R"(UPDATE bulkhead_internal.modules SET manifest = '{"capabilities": {"events": {"subscribes": ["order.*"]}}}' WHERE name = 'stats')");
  EXPECT_THAT(queries_.Subscriptions()->at(1).topics, ElementsAre("order.*"));
  EXPECT_EQ(queries_.Subscriptions()->at(1).lag, 2);
}

INSTANTIATE_TEST_SUITE_P(Engines, EventQueriesTest, testing::Values(Engine::kPostgres, Engine::kRedis), EngineName);

}  // namespace
}  // namespace bulkhead::events_testing
