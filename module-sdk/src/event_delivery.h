// Deliveries of events: a call's events in lanes by their keys, a few threads that take the front of a lane each, one answer when all of the
// call are done. A lane outlives its call: what is delivered again while its handler still runs waits for that. Thread-safe.
#pragma once

#include <chrono>
#include <functional>
#include <memory>

#include "bulkhead/events.h"
#include "bulkhead/module/v1/module.pb.h"

namespace bulkhead::sdk {

class EventDeliveries {
 public:
  EventDeliveries();
  ~EventDeliveries();
  // Fills `response` and calls `done`, which ends the call, once; both stay until then. `events` null: the module has not started.
  void Begin(const ::bulkhead::module::v1::DeliverEventsRequest& request, const Events* events,
             ::bulkhead::module::v1::DeliverEventsResponse& response, std::function<void()> done);
  // What no handler has begun is given back; new calls are given back as a whole.
  void Interrupt();
  bool WaitIdle(std::chrono::steady_clock::time_point until);
  // Ends the calls of handlers that did not return. What they still do is not told.
  void Abandon();
  int64_t received() const;  // handlers that returned

 private:
  struct State;
  const std::shared_ptr<State> state_;  // of the threads, too: a hung handler must not hold up the end of the process
};

}  // namespace bulkhead::sdk
