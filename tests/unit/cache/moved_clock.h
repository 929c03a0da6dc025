// A clock that a test moves. Thread-safe.
#pragma once

#include <atomic>

#include "supervisor/base/clock.h"

namespace bulkhead {

class MovedClock final : public Clock {
 public:
  Instant Now() const override { return Instant(Instant::duration(nanoseconds_.load())); }
  WallTime Wall() const override { return WallTime(std::chrono::seconds(1'700'000'000)); }
  void Move(Millis by) { nanoseconds_ += std::chrono::nanoseconds(by).count(); }

 private:
  std::atomic<int64_t> nanoseconds_{1'000'000'000'000};
};

}  // namespace bulkhead
