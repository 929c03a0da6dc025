// What "Backoff and quarantine" promise of one worker slot, told from outside: only by when its processes ended and were started.
// It keeps no copy of how Backoff counts, so that the two can contradict each other.
#pragma once

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

  // An end that nobody had asked for.
  void Exited(Instant now, ExitCause cause, Millis was_ready_for) {
    if (cause == ExitCause::kConfig) {
      parked_ = true;
      return;
    }
    after_healthy_spell_ = was_ready_for >= 2 * policy_.cap;
    if (after_healthy_spell_) SlateCleared();
    last_exit_ = now;
    ++count_;
    exits_.push_back(now);
    while (exits_.front() + policy_.quarantine_span <= now) exits_.pop_front();
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
    if (parked_) wrong = "a slot is started again although its configuration is wrong";
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
    int further = (policy_.quarantine_windows - 1) * policy_.burst;
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
  std::deque<Instant> exits_;  // those within the span of a quarantine
  std::optional<Instant> last_exit_;
  bool burst_used_ = false, parked_ = false, waits_ = false, after_healthy_spell_ = false;
};

}  // namespace bulkhead::sim
