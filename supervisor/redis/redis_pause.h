// When a Redis that was lost is tried again: after pauses that grow, and begin anew only when it has proved itself. Pure.
#pragma once

#include <algorithm>
#include <optional>

#include "supervisor/base/clock.h"

namespace bulkhead {

namespace limits {
inline constexpr Millis kFirstRedisPause{100}, kLastRedisPause{5'000};
inline constexpr Millis kRedisProven{10'000};  // up for so long; one that is lost again before waits longer than the last time
}  // namespace limits

class RedisPause {
 public:
  void Up(Instant now) { up_since_ = now; }
  // The connection, or a try to get one.
  void Lost(Instant now) {
    if (up_since_ && now - *up_since_ >= limits::kRedisProven) pause_ = Millis(0);
    up_since_.reset();
    pause_ = std::clamp(pause_ * 2, limits::kFirstRedisPause, limits::kLastRedisPause);
    next_ = now + pause_;
  }
  Instant next() const { return next_; }

 private:
  std::optional<Instant> up_since_;
  Millis pause_{0};
  Instant next_{};
};

}  // namespace bulkhead
