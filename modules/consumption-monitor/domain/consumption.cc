#include "domain/consumption.h"

#include <algorithm>

namespace consumption {

std::optional<CounterStep> StepBetween(const CounterPoint& previous, const CounterPoint& current) {
  if (current.at <= previous.at || current.scope != previous.scope) return std::nullopt;
  const double seconds = std::chrono::duration<double>(current.at - previous.at).count();
  const bool known = !previous.epoch.empty() && !current.epoch.empty();
  const bool began_again = known ? previous.epoch != current.epoch : current.value < previous.value;
  if (began_again) return CounterStep{current.value, seconds};
  return CounterStep{std::max(0.0, current.value - previous.value), seconds};
}

}  // namespace consumption
