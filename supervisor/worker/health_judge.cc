#include "supervisor/worker/health_judge.h"

#include <algorithm>
#include <utility>

#include "supervisor/base/limits.h"

namespace bulkhead {
namespace {

constexpr double kNearlyDue = 0.25;  // of its interval: asked together with what is due now, and not once more right afterwards
constexpr double kRounding = 1e-6;

Millis Times(Millis time, double factor) { return Millis(static_cast<int64_t>(static_cast<double>(time.count()) * factor)); }

std::string InARow(int count) { return std::to_string(count) + (count == 1 ? " time" : " times in a row"); }

}  // namespace

std::string HealthComplaint(const module::v1::HealthResponse& response) {
  for (const auto& check : response.checks()) {
    if (check.status() != module::v1::HEALTHY) return check.name() + ": " + check.message();
  }
  if (response.status() == module::v1::DEGRADED) return "it says that it is degraded";
  return response.status() == module::v1::UNHEALTHY ? "it says that it is unhealthy" : "";
}

void HealthJudge::Begin(Instant now, Millis first, Millis throttled) {
  heard_at_ = now;
  throttled_then_ = throttled;
  starting_ = policy_.startup.has_value() && !ready_;
  ready_ = !starting_;
  startup_.due = now;
  readiness_.due = liveness_.due = now + first;
}

Instant HealthJudge::due() const { return starting_ ? startup_.due : std::min(readiness_.due, liveness_.due); }

Millis HealthJudge::Ask(Instant now) {
  if (starting_) return policy_.startup->timeout;
  Millis timeout{0};
  auto ask = [&](Probe& probe, const HealthProbe& policy) {
    probe.asked = probe.due <= now + Times(policy.interval, kNearlyDue);
    if (probe.asked) timeout = std::max(timeout, policy.timeout);
  };
  ask(readiness_, policy_.readiness);
  ask(liveness_, policy_.liveness);
  return timeout;
}

HealthJudge::Verdict HealthJudge::Judge(const HealthAnswer& answer, Instant now, double share) {
  if (starting_) {
    startup_.due = now + Times(policy_.startup->interval, share);
    Verdict verdict = JudgeStartup(answer);
    if (verdict.what == Verdict::What::kReady) Begin(now, Times(policy_.readiness.interval, share), answer.throttled);
    return verdict;
  }
  Verdict verdict;
  if (std::exchange(readiness_.asked, false)) {
    readiness_.due = now + Times(policy_.readiness.interval, share);
    verdict = JudgeReadiness(answer);
  }
  if (std::exchange(liveness_.asked, false)) {
    liveness_.due = now + Times(policy_.liveness.interval, share);
    if (Verdict live = JudgeLiveness(answer, now); live.what == Verdict::What::kDead) return live;
  }
  return verdict;
}

HealthJudge::Verdict HealthJudge::JudgeStartup(const HealthAnswer& answer) {
  if (answer.answered && answer.well) {
    ready_ = true;
    return {Verdict::What::kReady, ""};
  }
  if (++startup_.failed < policy_.startup->failures) return {};
  return {Verdict::What::kNeverReady, "it has not become ready: Health was asked " + InARow(startup_.failed) + ", the last time: " +
                                         (answer.answered ? answer.complaint : "it did not answer: " + answer.complaint)};
}

HealthJudge::Verdict HealthJudge::JudgeReadiness(const HealthAnswer& answer) {
  const HealthProbe& policy = policy_.readiness;
  const bool late = answer.took > policy.timeout;
  if (answer.answered && answer.well && !late) {
    readiness_.failed = 0;
    if (ready_ || ++readiness_.succeeded < policy.successes) return {};
    ready_ = true;
    return {Verdict::What::kReady, ""};
  }
  readiness_.succeeded = 0;
  readiness_.failed = std::min(readiness_.failed + 1, policy.failures);
  if (!ready_ || readiness_.failed < policy.failures) return {};
  ready_ = false;
  std::string why = answer.complaint;
  if (!answer.answered) why = "Health did not answer: " + why;
  else if (late) why = "Health took longer than " + std::to_string(policy.timeout.count()) + " ms";
  return {Verdict::What::kNotReady, "it gets no requests before it is well again: " + why};
}

HealthJudge::Verdict HealthJudge::JudgeLiveness(const HealthAnswer& answer, Instant now) {
  const HealthProbe& policy = policy_.liveness;
  if (answer.answered && answer.took <= policy.timeout) {
    heard_at_ = now;
    throttled_then_ = answer.throttled;
    liveness_.failed = failed_at_once_ = 0;
    return {};
  }
  ++liveness_.failed;
  failed_at_once_ += !answer.answered && !answer.timed_out;
  const double silent = std::chrono::duration<double>(now - heard_at_).count();
  const double throttled = std::chrono::duration<double>(answer.throttled - throttled_then_).count();
  const double ran = silent > 0 ? 1 - std::clamp(throttled / silent, 0.0, 1.0) : 1;
  const double missed = failed_at_once_ + (liveness_.failed - failed_at_once_) * ran;
  const bool in_grace = now - heard_at_ < limits::kThrottledGrace;
  if (liveness_.failed < policy.failures || (missed + kRounding < policy.failures && in_grace)) return {};
  return {Verdict::What::kDead, "Health did not answer " + InARow(liveness_.failed) + ": " + answer.complaint};
}

}  // namespace bulkhead
