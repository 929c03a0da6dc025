// What the answers of one worker to Health mean, and those that do not come: ready, not ready, or to be ended. Pure; one per process.
//
// One call serves start-up, readiness and liveness: a worker is asked once for all of them that are due at a moment. Until it has been ready
// once only `startup` asks, where the manifest has that; afterwards only the other two do.
//   startup    an answer that is healthy or degraded makes it ready; `failures` in a row without one end it
//   readiness  unhealthy, or no answer within its timeout, `failures` times in a row: not ready; well `successes` times in a row: ready again
//   liveness   no answer within its timeout, `failures` times in a row: it is ended. What it answers does not matter
// For liveness a call that is not answered in time counts only for the part of the silence in which the worker's CPU limit has not held it
// back: held back for nine tenths of the time, it takes ten times as many (limits::kThrottledGrace bounds that). The part is that of the whole
// silence, because the kernel counts the time when it ends. Readiness makes no such allowance: who does not answer is not ready.
#pragma once

#include <optional>
#include <string>

#include "bulkhead/module/v1/module.pb.h"
#include "supervisor/base/clock.h"
#include "supervisor/manifest/supervision.h"

namespace bulkhead {

// The first check that is not healthy, "database: down"; else the status itself, where that is not healthy. Empty: nothing to say.
std::string HealthComplaint(const module::v1::HealthResponse& response);

struct HealthAnswer {
  bool answered = false;   // in time for the longest question, and with OK
  bool timed_out = false;  // not in time; else the call failed at once
  bool well = false;       // healthy or degraded
  std::string complaint;   // its own, or why there is no answer
  Millis took{0};
  Millis throttled{0};     // since its start, held back by its CPU limit
};

class HealthJudge {
 public:
  explicit HealthJudge(const HealthPolicy& policy) : policy_(policy) {}

  // Start has been answered. The first question is due `first` later, with a start-up probe at once. `throttled` as in HealthAnswer.
  void Begin(Instant now, Millis first, Millis throttled);
  bool starting() const { return starting_; }
  bool ready() const { return ready_; }
  Instant due() const;
  // Asks for all that is due: how long the answer may take.
  Millis Ask(Instant now);

  struct Verdict {
    enum class What { kNothing, kReady, kNotReady, kNeverReady, kDead } what = What::kNothing;
    std::string why;  // a sentence
  };
  // The outcome of that question. `share` of its interval passes until each probe is due again: near 1, so that many workers are not in step.
  Verdict Judge(const HealthAnswer& answer, Instant now, double share);

 private:
  struct Probe {
    Instant due{};
    bool asked = false;
    int failed = 0, succeeded = 0;  // in a row
  };
  Verdict JudgeStartup(const HealthAnswer& answer);
  Verdict JudgeLiveness(const HealthAnswer& answer, Instant now);
  Verdict JudgeReadiness(const HealthAnswer& answer);

  const HealthPolicy policy_;
  Probe startup_, readiness_, liveness_;
  Instant heard_at_{};       // when it has last answered in time
  Millis throttled_then_{0};
  int failed_at_once_ = 0;   // of the calls since then: those whose failure has nothing to do with time
  bool starting_ = false, ready_ = false;
};

}  // namespace bulkhead
