// How many requests of one module may be sent once more because their worker was lost: a share of those that are sent, and a few in any
// case (limits::kRetryShare and the like). So a module all of whose workers fail is not asked twice as much just then. Belongs to one gateway
// thread; time is the caller's.
#pragma once

#include <algorithm>
#include <cstdint>

#include "supervisor/base/clock.h"
#include "supervisor/base/limits.h"

namespace bulkhead {

class RetryBudget {
 public:
  // A request is sent for the first time.
  void Sent() { saved_ = std::min(saved_ + limits::kRetryShare, limits::kMaxRetries); }

  // Whether one may be sent once more; that is then counted.
  bool Take(Instant now) {
    if (refilled_ == Instant{}) refilled_ = now;
    const double seconds = std::chrono::duration<double>(now - refilled_).count();
    refilled_ = now;
    // What a share of many requests has saved up is not cut to the little that is there in any case.
    if (saved_ < kAlways) saved_ = std::min(saved_ + seconds * limits::kRetriesPerSecond, kAlways);
    if (saved_ < 1) {
      ++refused_;
      return false;
    }
    --saved_;
    ++taken_;
    return true;
  }

  uint64_t taken() const { return taken_; }
  uint64_t refused() const { return refused_; }

 private:
  static constexpr double kAlways = limits::kRetriesPerSecond * std::chrono::duration<double>(limits::kRetrySaving).count();

  double saved_ = kAlways;
  Instant refilled_{};
  uint64_t taken_ = 0, refused_ = 0;
};

}  // namespace bulkhead
