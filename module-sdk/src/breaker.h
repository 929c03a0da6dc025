// When a service is not asked any more for a while. Pure: time is the caller's, nothing is locked. The caller asks Admit() before each attempt
// and tells Report() once what became of it.
//
//   kClosed ── failures in a row, or their share of the window ──> kOpen ── open_for over, one is admitted ──> kHalfOpen
//   kHalfOpen ── that one succeeds ──> kClosed;  it fails ──> kOpen;  it tells nothing ──> kHalfOpen, and the next is admitted
#pragma once

#include <array>
#include <chrono>
#include <cstdint>

#include "bulkhead/client.h"

namespace bulkhead::sdk {

class Breaker {
 public:
  using Clock = std::chrono::steady_clock;
  using Time = Clock::time_point;
  struct Settings {
    int failures = 5;  // in a row; 0: not counted
    int percent = 50;  // of the window; 0: not counted
    std::chrono::milliseconds window{10'000}, open_for{30'000};
  };
  static constexpr int kMinimum = 20;  // attempts in the window, before their share says anything

  enum class Verdict { kSuccess, kFailure, kNothing };
  struct Admission {
    bool admitted = false;
    uint64_t era = 0;                       // of its state; what is reported of an earlier one changes nothing
    std::chrono::milliseconds retry_in{0};  // of one that is not: when to ask again
  };
  enum class Change { kNone, kOpened, kClosed };

  explicit Breaker(Settings settings) : settings_(settings) {}

  Admission Admit(Time now);
  Change Report(const Admission& admission, Verdict verdict, Time now);
  BreakerState state() const { return state_; }

 private:
  static constexpr size_t kBuckets = 10;
  struct Bucket {
    int64_t number = -1;  // which part of time it counts
    int all = 0, failed = 0;
  };
  void Enter(BreakerState state);
  void Count(bool failed, Time now);
  bool TooMany(Time now) const;
  int64_t BucketNumber(Time now) const;

  const Settings settings_;
  BreakerState state_ = BreakerState::kClosed;
  uint64_t era_ = 1;
  int in_a_row_ = 0;
  std::array<Bucket, kBuckets> buckets_{};
  Time open_until_{};
  bool probing_ = false;  // kHalfOpen: the one is on its way
};

}  // namespace bulkhead::sdk
