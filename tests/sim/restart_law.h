// What "Backoff and quarantine" promise of one worker slot, told from outside: only by when its processes ended and were started.
// It keeps no copy of how Backoff counts, so that the two can contradict each other.
//
// The law of starts: after the first one and what the burst answers at once within each window, a slot is started no sooner than a tenth of the
// base after its last end, and no later than the cap, or the retry of a quarantine. So no slot is in a hot loop, whatever its policy: of
// `time` MaxStarts() says the most.
#pragma once

#include <algorithm>
#include <deque>
#include <optional>

#include "supervisor/lifecycle/step.h"

namespace bulkhead::sim {

class RestartLaw {
 public:
  explicit RestartLaw(const RestartPolicy& policy) : policy_(policy) {}

  // An administrator wants it anew.
  void SlateCleared() {
    count_ = 0;
    exits_.clear();
    last_exit_.reset();
    burst_used_ = parked_ = waits_ = false;
  }

  // Of one slot within any span of so long.
  static double MaxStarts(const RestartPolicy& policy, Millis time) {
    const auto count = [](Millis span, Millis each) { return static_cast<double>(span.count()) / static_cast<double>(each.count()); };
    const double slates = 1 + count(time, policy.reset_after);       // each healthy spell clears one
    const double windows = 1 + count(time, policy.window);
    return slates * 2 + windows * policy.burst + slates * policy.burst + count(time, policy.base) * 10;
  }

  // An end that nobody had asked for; `orderly` as WorkerDied has it.
  void Exited(Instant now, ExitCause cause, Millis was_ready_for, bool orderly = false) {
    if (cause == ExitCause::kConfig || policy_.when == RestartWhen::kNever || (policy_.when == RestartWhen::kOnFailure && orderly)) {
      parked_ = true;
      return;
    }
    after_healthy_spell_ = was_ready_for >= policy_.reset_after;
    if (after_healthy_spell_) SlateCleared();
    last_exit_ = now;
    ++count_;
    exits_.push_back(now);
    while (exits_.front() + std::max(policy_.quarantine_span, policy_.window) <= now) exits_.pop_front();
    if (Recent(now, policy_.window) > policy_.burst) burst_used_ = true;
    waits_ = burst_used_;
  }

  bool parked() const { return parked_; }
  bool waits() const { return waits_; }  // its last process ended beyond the burst, and no other one has been started since
  bool after_healthy_spell() const { return after_healthy_spell_; }  // the last exit

  // Empty, or what is wrong with a start at this moment.
  const char* Started(Instant now) {
    const char* wrong = "";
    waits_ = false;
    if (parked_) wrong = "a slot is started again although its configuration is wrong or its policy forbids it";
    if (burst_used_ && now < *last_exit_ + policy_.base / 10)
      wrong = "a restart beyond the burst comes sooner than a tenth of the base";
    return wrong;
  }

  // When an empty slot of a module that may run must have been started, at the latest.
  Instant DueBy(bool quarantined) const {
    if (parked_) return Instant::max();
    if (!burst_used_) return Instant::min();
    return *last_exit_ + (quarantined ? policy_.quarantine_retry : policy_.cap);
  }

  // Whether there were so many exits that a quarantine may be entered now: the burst, and as many windows within the span, of
  // which the first may have begun before it.
  bool MayBeQuarantined(Instant now) const {
    int further = (policy_.quarantine_windows - 1) * std::max(policy_.burst, 1);
    return count_ > policy_.burst + further && Recent(now, policy_.quarantine_span) > further;
  }

 private:
  int Recent(Instant now, Millis span) const {
    int count = 0;
    for (auto exit = exits_.rbegin(); exit != exits_.rend() && *exit + span > now; ++exit) ++count;
    return count;
  }

  const RestartPolicy policy_;
  int count_ = 0;              // of exits since the slate was cleared
  std::deque<Instant> exits_;  // those within the span of a quarantine and the window
  std::optional<Instant> last_exit_;
  bool burst_used_ = false, parked_ = false, waits_ = false, after_healthy_spell_ = false;
};

}  // namespace bulkhead::sim
