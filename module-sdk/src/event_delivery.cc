#include "event_delivery.h"

#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <system_error>
#include <thread>

#include "json_text.h"

namespace bulkhead::sdk {

namespace pb = ::bulkhead::module::v1;

namespace {

constexpr size_t kMaxEventError = 1'024;  // bytes of what a handler threw

using pb::EventOutcome;

}  // namespace

// One call until it is answered.
struct EventCall {
  pb::DeliverEventsResponse* response = nullptr;  // null once it is answered
  std::function<void()> done;
  int left = 0;
  std::set<std::string> failed;  // keys of which one was not acknowledged
};

struct WaitingEvent {
  std::shared_ptr<EventCall> delivery;
  pb::Event event;
  const Events* events = nullptr;
};

struct EventLane {
  std::deque<WaitingEvent> waiting;
  bool busy = false;  // a handler runs, or it is among the ready ones
};

namespace {

std::pair<EventOutcome::Verdict, std::string> HandleEvent(const Events& events, const pb::Event& message) {
  const EventHandler* handler = events.Find(message.topic());
  if (!handler) return {EventOutcome::RETRY, "no handler"};
  Event event;
  event.payload = Json::parse(message.payload_json(), nullptr, false);
  if (event.payload.is_discarded()) return {EventOutcome::DEAD, "the payload is not JSON"};
  event.id = message.id();
  event.topic = message.topic();
  event.key = message.key();
  event.source = message.source();
  event.at = WallTime(std::chrono::milliseconds(message.at_ms()));
  event.attempt = message.attempt();
  try {
    (*handler)(event);
    return {EventOutcome::ACK, ""};
  } catch (const EventRefused& refused) {
    return {EventOutcome::DEAD, refused.what()};
  } catch (const std::exception& error) {
    return {EventOutcome::RETRY, error.what()};
  } catch (...) {
    return {EventOutcome::RETRY, "the handler threw something that is no std::exception"};
  }
}

}  // namespace

struct EventDeliveries::State {
  std::mutex mutex;
  std::condition_variable wake, idle;
  std::map<std::string, EventLane> lanes;  // a name never begins with a NUL but for events without a key
  std::deque<std::string> ready;
  std::set<std::shared_ptr<EventCall>> deliveries;
  int threads = 0, free = 0, running = 0;
  bool interrupted = false, closing = false;
  std::atomic<int64_t> received{0};

  // With the mutex held; what it returns is to be called without it.
  std::function<void()> Tell(const std::shared_ptr<EventCall>& delivery, const pb::Event& event, EventOutcome::Verdict verdict, std::string_view message) {
    if (!delivery->response) return nullptr;
    EventOutcome& outcome = *delivery->response->add_outcomes();
    outcome.set_id(event.id());
    outcome.set_verdict(verdict);
    if (!message.empty()) outcome.set_message(Utf8(message.substr(0, kMaxEventError)));
    if (verdict != EventOutcome::ACK && !event.key().empty()) delivery->failed.insert(event.key());
    if (--delivery->left > 0) return nullptr;
    delivery->response = nullptr;
    deliveries.erase(delivery);
    return std::move(delivery->done);
  }

  void Work() {
    std::unique_lock lock(mutex);
    while (true) {
      ++free;
      wake.wait(lock, [this] { return closing || !ready.empty(); });
      --free;
      if (closing) break;
      const std::string name = std::move(ready.front());
      ready.pop_front();
      WaitingEvent next = std::move(lanes[name].waiting.front());
      lanes[name].waiting.pop_front();
      std::pair<EventOutcome::Verdict, std::string> said;
      // Nobody waits for it any more, or it stands behind one that has failed: another call brings it again.
      if (interrupted || !next.delivery->response || next.delivery->failed.contains(next.event.key())) {
        said = {EventOutcome::RETURNED, ""};
      } else {
        ++running;
        lock.unlock();
        said = HandleEvent(*next.events, next.event);
        if (said.first == EventOutcome::ACK) received.fetch_add(1, std::memory_order_relaxed);
        lock.lock();
        --running;
      }
      auto done = Tell(next.delivery, next.event, said.first, said.second);
      EventLane& lane = lanes[name];
      if (lane.waiting.empty()) {
        lanes.erase(name);
      } else {
        ready.push_back(name);
      }
      if (lanes.empty()) idle.notify_all();
      if (!done) continue;
      lock.unlock();
      done();
      lock.lock();
    }
    --threads;
  }
};

EventDeliveries::EventDeliveries() : state_(std::make_shared<State>()) {}

EventDeliveries::~EventDeliveries() {
  std::lock_guard lock(state_->mutex);
  state_->closing = true;
  state_->wake.notify_all();
}

void EventDeliveries::Begin(const pb::DeliverEventsRequest& request, const Events* events, pb::DeliverEventsResponse& response,
                            std::function<void()> done) {
  auto delivery = std::make_shared<EventCall>();
  delivery->response = &response;
  delivery->done = std::move(done);
  delivery->left = request.events_size();
  std::function<void()> answer;
  {
    std::lock_guard lock(state_->mutex);
    const bool taken = events && !state_->interrupted && request.events_size() > 0;
    if (!taken) {
      for (const pb::Event& event : request.events()) {
        EventOutcome& outcome = *response.add_outcomes();
        outcome.set_id(event.id());
        outcome.set_verdict(EventOutcome::RETURNED);
      }
      answer = std::move(delivery->done);
    } else {
      state_->deliveries.insert(delivery);
      for (const pb::Event& event : request.events()) {
        const std::string name = event.key().empty() ? std::string(1, '\0') + event.id() : event.key();
        EventLane& lane = state_->lanes[name];
        lane.waiting.push_back({delivery, event, events});
        if (!std::exchange(lane.busy, true)) state_->ready.push_back(name);
      }
      // One thread more for each lane that no free one takes, up to the bound.
      for (int wanted = int(state_->ready.size()) - state_->free; wanted > 0 && state_->threads < kEventThreads; --wanted) {
        try {
          std::thread([state = state_] { state->Work(); }).detach();
          ++state_->threads;
        } catch (const std::system_error&) {  // the limit on processes; those that are there go on, or the next call tries again
          break;
        }
      }
      state_->wake.notify_all();
    }
  }
  if (answer) answer();
}

void EventDeliveries::Interrupt() {
  std::lock_guard lock(state_->mutex);
  state_->interrupted = true;
}

bool EventDeliveries::WaitIdle(std::chrono::steady_clock::time_point until) {
  std::unique_lock lock(state_->mutex);
  return state_->idle.wait_until(lock, until, [this] { return state_->lanes.empty(); });
}

void EventDeliveries::Abandon() {
  std::vector<std::function<void()>> answers;
  {
    std::lock_guard lock(state_->mutex);
    for (const auto& delivery : state_->deliveries) {
      delivery->response = nullptr;
      answers.push_back(std::move(delivery->done));
    }
    state_->deliveries.clear();
  }
  for (auto& answer : answers) answer();
}

int64_t EventDeliveries::received() const { return state_->received.load(std::memory_order_relaxed); }

}  // namespace bulkhead::sdk
