// `restart` and `health` of a manifest.
#include "supervisor/manifest/supervision.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "supervisor/manifest/reader.h"

namespace bulkhead {
namespace {

using nlohmann::json;

constexpr RestartWhen kAllRestarts[] = {RestartWhen::kAlways, RestartWhen::kOnFailure, RestartWhen::kNever};

// Whether it was given; what is wrong is reported.
bool ReadMillis(ObjectReader& reader, const char* name, Millis least, Millis most, Millis& target) {
  const auto ms = reader.Integer(name, least.count(), most.count());
  if (ms) target = Millis(*ms);
  return ms.has_value();
}

void ReadBackoff(const json& value, const std::string& path, RestartPolicy& policy, Findings& out) {
  ObjectReader backoff(value, path, out);
  ReadMillis(backoff, "base", limits::kMinBackoff, limits::kMaxBackoff, policy.base);
  const bool has_cap = ReadMillis(backoff, "cap", limits::kMinBackoff, limits::kMaxBackoff, policy.cap);
  if (!has_cap) policy.cap = std::max(policy.cap, policy.base);
  if (const auto factor = backoff.Number("factor")) {
    if (*factor >= 1 && *factor <= limits::kMaxBackoffFactor) {
      policy.factor = *factor;
    } else {
      out.Error(backoff.PathOf("factor"), "OUT_OF_RANGE", absl::StrCat("\"factor\" must be a number from 1 to ", limits::kMaxBackoffFactor, "."));
    }
  }
  if (policy.cap < policy.base) out.Error(backoff.PathOf("cap"), "INVALID_COMBINATION", "\"cap\" must be at least \"base\".");
  backoff.WarnUnknown();
}

void ReadQuarantine(const json& value, const std::string& path, RestartPolicy& policy, Findings& out) {
  ObjectReader quarantine(value, path, out);
  policy.quarantine_windows = static_cast<int>(quarantine.Integer("windows", 1, limits::kMaxQuarantineWindows).value_or(policy.quarantine_windows));
  ReadMillis(quarantine, "span", limits::kMinQuarantineRetry, limits::kMaxQuarantineSpan, policy.quarantine_span);
  const bool has_retry = ReadMillis(quarantine, "retry", limits::kMinQuarantineRetry, limits::kMaxQuarantineRetry, policy.quarantine_retry);
  if (has_retry && policy.quarantine_retry < policy.cap)
    out.Error(quarantine.PathOf("retry"), "INVALID_COMBINATION", "\"retry\" must be at least the \"cap\" of \"backoff\": a quarantine is slower.");
  quarantine.WarnUnknown();
}

void ReadProbe(const json& value, const std::string& path, bool has_successes, HealthProbe& probe, Findings& out) {
  ObjectReader reader(value, path, out);
  ReadMillis(reader, "interval", limits::kMinHealthInterval, limits::kMaxHealthInterval, probe.interval);
  ReadMillis(reader, "timeout", limits::kMinHealthTimeout, limits::kMaxHealthInterval, probe.timeout);
  probe.failures = static_cast<int>(reader.Integer("failureThreshold", 1, limits::kMaxHealthThreshold).value_or(probe.failures));
  if (has_successes)
    probe.successes = static_cast<int>(reader.Integer("successThreshold", 1, limits::kMaxHealthThreshold).value_or(probe.successes));
  reader.WarnUnknown();
}

}  // namespace

std::string_view RestartWhenName(RestartWhen when) {
  switch (when) {
    case RestartWhen::kAlways: return "always";
    case RestartWhen::kOnFailure: return "on-failure";
    case RestartWhen::kNever: return "never";
  }
  return "";
}

std::optional<RestartWhen> ParseRestartWhen(std::string_view name) {
  for (RestartWhen when : kAllRestarts) {
    if (RestartWhenName(when) == name) return when;
  }
  return std::nullopt;
}

void ReadRestart(const json& value, const std::string& path, Manifest& manifest, Findings& out) {
  ObjectReader restart(value, path, out);
  RestartPolicy& policy = manifest.restart;
  if (const auto name = restart.String("policy")) {
    if (const auto when = ParseRestartWhen(*name)) {
      policy.when = *when;
    } else {
      out.Error(restart.PathOf("policy"), "INVALID_VALUE", "\"policy\" is \"always\", \"on-failure\" or \"never\".");
    }
  }
  policy.burst = static_cast<int>(restart.Integer("burst", 0, limits::kMaxRestartBurst).value_or(policy.burst));
  const bool has_window = ReadMillis(restart, "window", limits::kMinRestartWindow, limits::kMaxRestartWindow, policy.window);
  if (const Millis least = policy.burst * limits::kMinRestartSpacing; policy.window < least) {
    out.Error(restart.PathOf(has_window ? "window" : "burst"), "INVALID_COMBINATION",
              absl::StrCat("With \"burst\" ", policy.burst, " the \"window\" must be at least ", least.count(), " ms (this is ", policy.window.count(),
                           "): nothing is started again more often than once in ", limits::kMinRestartSpacing.count(), " ms for long."));
  }
  if (const json* backoff = restart.Object("backoff")) ReadBackoff(*backoff, restart.PathOf("backoff"), policy, out);
  if (const json* quarantine = restart.Object("quarantine")) ReadQuarantine(*quarantine, restart.PathOf("quarantine"), policy, out);
  policy.quarantine_retry = std::max(policy.quarantine_retry, policy.cap);
  policy.reset_after = 2 * policy.cap;
  ReadMillis(restart, "resetAfter", limits::kMinResetAfter, limits::kMaxResetAfter, policy.reset_after);
  restart.WarnUnknown();
}

void ReadHealth(const json& value, const std::string& path, Manifest& manifest, Findings& out) {
  ObjectReader health(value, path, out);
  HealthPolicy& policy = manifest.health;
  HealthProbe common;
  ReadMillis(health, "interval", limits::kMinHealthInterval, limits::kMaxHealthInterval, common.interval);
  ReadMillis(health, "timeout", limits::kMinHealthTimeout, limits::kMaxHealthInterval, common.timeout);
  policy.readiness = policy.liveness = common;
  if (const json* readiness = health.Object("readiness")) ReadProbe(*readiness, health.PathOf("readiness"), true, policy.readiness, out);
  if (const json* liveness = health.Object("liveness")) ReadProbe(*liveness, health.PathOf("liveness"), false, policy.liveness, out);
  if (const json* startup = health.Object("startup")) {
    policy.startup = HealthProbe{limits::kStartupInterval, common.timeout, limits::kStartupFailures};
    ReadProbe(*startup, health.PathOf("startup"), false, *policy.startup, out);
  }
  health.WarnUnknown();
}

}  // namespace bulkhead
