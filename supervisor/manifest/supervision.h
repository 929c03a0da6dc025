// How a module's workers are watched and started again: `restart` and `health` of a manifest, as values. Pure.
#pragma once

#include <optional>
#include <string_view>

#include "supervisor/base/limits.h"

namespace bulkhead {

// Which ends of a worker are answered with a start. One that was asked for never is; one for a wrong configuration only when something
// has changed.
enum class RestartWhen {
  kAlways,     // each: a module serves until it is stopped, so it has failed also when it leaves with exit code 0
  kOnFailure,  // all but exit code 0, SIGHUP, SIGINT, SIGTERM and SIGPIPE, as systemd has it
  kNever,
};
std::string_view RestartWhenName(RestartWhen when);  // "always", "on-failure", "never"
std::optional<RestartWhen> ParseRestartWhen(std::string_view name);

// How often a slot may be started again: `burst` exits within `window` are answered at once, then each waits base×factor^n with full
// jitter up to `cap`. A worker that was ready for `reset_after` clears the slate. Every `burst` further exits (at least one) count as an
// exhausted window; `quarantine_windows` of them within `quarantine_span` quarantine the slot, which is then tried once per
// `quarantine_retry` until it has been well for so long.
struct RestartPolicy {
  RestartWhen when = RestartWhen::kAlways;
  int burst = limits::kRestartBurst;
  Millis window = limits::kRestartWindow, base = limits::kBackoffBase, cap = limits::kBackoffCap;
  double factor = limits::kBackoffFactor;
  int quarantine_windows = limits::kQuarantineWindows;
  Millis quarantine_span = limits::kQuarantineSpan, quarantine_retry = limits::kQuarantineRetry;
  Millis reset_after = 2 * limits::kBackoffCap;
  bool operator==(const RestartPolicy&) const = default;
};

// One of the three reasons for which a worker is asked how it is. It is asked once for all that are due at a moment.
struct HealthProbe {
  Millis interval = limits::kHealthInterval, timeout = limits::kHealthTimeout;
  int failures = limits::kHealthFailures;  // in a row, until it counts
  int successes = 1;                       // of readiness: in a row, until it counts as ready again
  bool operator==(const HealthProbe&) const = default;
};
struct HealthPolicy {
  std::optional<HealthProbe> startup;  // absent: a worker is ready when Start has answered
  HealthProbe readiness, liveness;
  bool operator==(const HealthPolicy&) const = default;
};

}  // namespace bulkhead
