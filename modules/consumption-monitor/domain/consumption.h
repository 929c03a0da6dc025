// What a counter consumed between two readings. Pure.
#pragma once

#include <optional>
#include <string>

#include "domain/timestamp.h"

namespace consumption {

// A counter as it was read. `epoch` names the life of its source; empty when the source can't tell.
struct CounterPoint {
  Timestamp at;
  double value = 0;
  std::string epoch;
  std::string scope;  // what was summed up
};

struct CounterStep {
  double consumed = 0;
  double seconds = 0;  // above 0
};

// Same epoch: the growth; a fall is a part that left the sum (an unplugged disk), of which nothing is known: 0.
// Another epoch: the source began again at 0, so all of the new value was consumed since.
// Epoch unknown on either side: a fall can only be such a beginning.
// Nullopt when another scope was summed up, so that the two don't compare, and when time did not advance: the clock was set back.
std::optional<CounterStep> StepBetween(const CounterPoint& previous, const CounterPoint& current);

}  // namespace consumption
