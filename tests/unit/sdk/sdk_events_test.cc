// Event handlers: which one an event comes to, in which order, what its outcome is, and how it ends.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <future>
#include <map>
#include <mutex>
#include <thread>

#include "bulkhead/events.h"
#include "event_delivery.h"

namespace bulkhead::sdk {
namespace {

namespace pb = ::bulkhead::module::v1;
using testing::ElementsAre;
using Verdicts = std::map<std::string, pb::EventOutcome::Verdict>;
using std::chrono::seconds;
using Clock = std::chrono::steady_clock;

// One call, and its answer when it has come.
class EventCallOf {
 public:
  EventCallOf(EventDeliveries& deliveries, const Events* events, std::vector<std::tuple<std::string, std::string, std::string>> all) {
    for (const auto& [id, key, payload] : all) {
      pb::Event& event = *request_.add_events();
      event.set_id(id);
      event.set_topic("order.created");
      event.set_key(key);
      event.set_payload_json(payload);
      event.set_attempt(1);
    }
    deliveries.Begin(request_, events, response_, [this] { done_.set_value(); });
  }
  bool answered() { return future_.wait_for(seconds(0)) == std::future_status::ready; }
  Verdicts Await() {
    EXPECT_EQ(future_.wait_for(seconds(20)), std::future_status::ready) << "no answer";
    Verdicts verdicts;
    for (const pb::EventOutcome& outcome : response_.outcomes()) {
      verdicts[outcome.id()] = outcome.verdict();
      messages[outcome.id()] = outcome.message();
    }
    return verdicts;
  }
  std::map<std::string, std::string> messages;

 private:
  pb::DeliverEventsRequest request_;
  pb::DeliverEventsResponse response_;
  std::promise<void> done_;
  std::future<void> future_ = done_.get_future();
};

// A gate that handlers wait at.
class Gate {
 public:
  void Pass() {
    std::unique_lock lock(mutex_);
    ++waiting_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return open_; });
  }
  void AwaitWaiting(int count) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, seconds(20), [&] { return waiting_ >= count; }));
  }
  void Open() {
    std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int waiting_ = 0;
  bool open_ = false;
};

TEST(EventHandlers, TheExactTopicIsPreferredThenTheLongest) {
  Events events;
  std::string came;
  for (const char* topic : {"order.created", "order.*", "order.item.*"}) {
    events.Subscribe(topic, [&came, topic](const Event&) { came = topic; });
  }
  const auto handled_by = [&](const char* topic) {
    came = "";
    if (const EventHandler* handler = events.Find(topic)) (*handler)({});
    return came;
  };
  EXPECT_EQ(handled_by("order.created"), "order.created");
  EXPECT_EQ(handled_by("order.paid"), "order.*");
  EXPECT_EQ(handled_by("order.item.added"), "order.item.*");
  EXPECT_EQ(handled_by("orders.paid"), "");
  EXPECT_EQ(handled_by("order"), "");
  EXPECT_THROW(events.Subscribe("order.*", [](const Event&) {}), std::invalid_argument);
  events.Freeze();
  EXPECT_THROW(events.Subscribe("a.b", [](const Event&) {}), std::logic_error);
  EXPECT_THROW(events.Publish("a.b", "", {}), HostError);
}

TEST(EventHandlers, WhatAHandlerThrowsIsTheOutcomeAndThoseBehindItInItsKeyAreNotTried) {
  Events events;
  std::mutex mutex;
  std::vector<std::string> handled;
  events.Subscribe("order.*", [&](const Event& event) {
    {
      std::lock_guard lock(mutex);
      handled.push_back(event.id);
    }
    if (event.payload == "fail") throw std::runtime_error("no paper");
    if (event.payload == "refuse") throw EventRefused("never");
  });
  EventDeliveries deliveries;
  EventCallOf call(deliveries, &events, {{"1", "a", "1"}, {"2", "a", "\"fail\""}, {"3", "a", "3"}, {"4", "b", "\"refuse\""}, {"5", "c", "{"}, {"6", "d", "6"}});
  EXPECT_EQ(call.Await(), (Verdicts{{"1", pb::EventOutcome::ACK}, {"2", pb::EventOutcome::RETRY}, {"3", pb::EventOutcome::RETURNED},
                                    {"4", pb::EventOutcome::DEAD}, {"5", pb::EventOutcome::DEAD}, {"6", pb::EventOutcome::ACK}}));
  EXPECT_EQ(call.messages["2"], "no paper");
  EXPECT_EQ(call.messages["4"], "never");
  std::lock_guard lock(mutex);
  EXPECT_EQ(std::count(handled.begin(), handled.end(), "3"), 0);
  EXPECT_EQ(deliveries.received(), 2);
}

TEST(EventHandlers, KeysGoSideBySideAndEventsOfOneKeyInOrderOverCalls) {
  Events events;
  Gate gate;
  std::mutex mutex;
  std::vector<std::string> handled;
  events.Subscribe("order.*", [&](const Event& event) {
    if (event.key == "slow" && event.id == "1") gate.Pass();
    std::lock_guard lock(mutex);
    handled.push_back(event.id);
  });
  EventDeliveries deliveries;
  EventCallOf slow(deliveries, &events, {{"1", "slow", "1"}});
  gate.AwaitWaiting(1);
  EventCallOf again(deliveries, &events, {{"1", "slow", "1"}, {"2", "slow", "2"}});  // the supervisor has given up the first call
  EventCallOf quick(deliveries, &events, {{"3", "quick", "3"}, {"4", "", "4"}, {"5", "", "5"}});
  EXPECT_EQ(quick.Await().size(), 3u);
  EXPECT_FALSE(again.answered());
  gate.Open();
  again.Await();
  slow.Await();
  std::lock_guard lock(mutex);
  EXPECT_THAT(std::vector<std::string>(handled.end() - 3, handled.end()), ElementsAre("1", "1", "2"));
}

TEST(EventHandlers, AStopGivesBackWhatHasNotBegunAndEndsTheCallsOfHandlersThatHang) {
  Events events;
  Gate gate;
  events.Subscribe("order.*", [&](const Event&) { gate.Pass(); });
  EventDeliveries deliveries;
  EventCallOf hangs(deliveries, &events, {{"1", "a", "1"}, {"2", "a", "2"}});
  gate.AwaitWaiting(1);
  deliveries.Interrupt();
  EventCallOf late(deliveries, &events, {{"3", "b", "3"}});
  EXPECT_EQ(late.Await(), (Verdicts{{"3", pb::EventOutcome::RETURNED}}));
  EXPECT_FALSE(deliveries.WaitIdle(Clock::now() + std::chrono::milliseconds(20)));
  deliveries.Abandon();
  EXPECT_EQ(hangs.Await(), Verdicts());
  gate.Open();
  EXPECT_TRUE(deliveries.WaitIdle(Clock::now() + seconds(20)));
}

TEST(EventHandlers, BeforeTheStartOfAModuleEverythingIsGivenBack) {
  EventDeliveries deliveries;
  EventCallOf call(deliveries, nullptr, {{"1", "a", "1"}});
  EXPECT_EQ(call.Await(), (Verdicts{{"1", pb::EventOutcome::RETURNED}}));
}

}  // namespace
}  // namespace bulkhead::sdk
