// For how long the kernel has held a worker back because of its CPU limit, as its cgroup's cpu.stat tells it. Reads a small file of the
// kernel, which does not block. Lives on the control loop.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "supervisor/base/clock.h"

namespace bulkhead {

// Of the text of a cpu.stat: throttled_usec (v2) or throttled_time in nanoseconds (v1). 0 when it has neither.
Millis ThrottledOf(std::string_view cpu_stat);

class CpuThrottle {
 public:
  // "" for a worker without a CPU limit, or where no cgroup holds it: nothing is ever held back.
  explicit CpuThrottle(std::string cpu_stat = "") : file_(std::move(cpu_stat)) {}
  Millis Total() const;

  // A look at the figures, now and then; ShareLately() compares with one that is at least `kLately` old, when there is such.
  void Look(Instant now);
  // Which part of the time since then it was held back, 0 to 1.
  double ShareLately(Instant now) const;

  static constexpr Millis kLately{10'000};

 private:
  struct Seen {
    Instant at{};
    Millis total{0};
  };
  std::string file_;
  Seen earlier_, later_;
};

}  // namespace bulkhead
