// The control loop in simulated time: what is due has a moment, and time advances from one such moment to the next.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <optional>

#include "supervisor/base/clock.h"

namespace bulkhead::sim {

class Timeline {
 public:
  Instant now() const { return now_; }
  // Things of the same moment happen in the order in which they were asked for.
  void At(Instant at, std::function<void()> thing) { things_.emplace(at, std::move(thing)); }
  void After(Millis wait, std::function<void()> thing) { At(now_ + wait, std::move(thing)); }
  void Post(std::function<void()> thing) { At(now_, std::move(thing)); }

  // When the next thing is due; in the past after a Jump(). nullopt: nothing ever is.
  std::optional<Instant> next() const { return things_.empty() ? std::nullopt : std::optional(things_.begin()->first); }
  // Nothing more happens before time advances.
  bool idle() const { return things_.empty() || things_.begin()->first > now_; }

  void RunNext() {
    auto next = things_.begin();
    now_ = std::max(now_, next->first);
    std::function<void()> thing = std::move(next->second);
    things_.erase(next);
    thing();
  }
  void AdvanceTo(Instant at) { now_ = std::max(now_, at); }
  // The loop was held up: what was due meanwhile happens late.
  void Jump(Millis by) { now_ += by; }

 private:
  Instant now_{std::chrono::hours(1)};
  std::multimap<Instant, std::function<void()>> things_;
};

}  // namespace bulkhead::sim
