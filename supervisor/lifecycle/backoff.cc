// When a worker that has ended is started again.
#include <algorithm>
#include <cmath>

#include "supervisor/lifecycle/step.h"

namespace bulkhead {

Instant Backoff::OnExit(const RestartPolicy& policy, Instant now, Millis was_ready_for, Random& random) {
  if (was_ready_for >= policy.reset_after) Clear();
  while (!exits_.empty() && exits_.front() + policy.window <= now) exits_.pop_front();
  exits_.push_back(now);
  if (attempt_ == 0 && static_cast<int>(exits_.size()) <= policy.burst) return now;
  if (attempt_ == 0 || ++since_exhausted_ >= std::max(policy.burst, 1)) {
    since_exhausted_ = 0;
    exhausted_.push_back(now);
    while (exhausted_.front() + policy.quarantine_span <= now || static_cast<int>(exhausted_.size()) > policy.quarantine_windows)
      exhausted_.pop_front();
    // Only a healthy spell ends a quarantine: its slow tries exhaust no window in time.
    quarantined_ = quarantined_ || static_cast<int>(exhausted_.size()) >= policy.quarantine_windows;
  }
  exits_.clear();  // beyond the burst the attempts count, not the window
  const double grown = static_cast<double>(policy.base.count()) * std::pow(policy.factor, attempt_);  // may be infinite
  attempt_ = std::min(attempt_ + 1, 1000);
  const double backoff = std::min(grown, static_cast<double>(policy.cap.count()));
  const double delay = quarantined_ ? static_cast<double>(policy.quarantine_retry.count()) : backoff;
  // Full jitter (https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/), never under a
  // tenth, so that no draw makes a hot loop.
  double share = std::max(0.1, random.Unit());
  return now + std::max(Millis(1), Millis(static_cast<int64_t>(delay * share)));
}

}  // namespace bulkhead
