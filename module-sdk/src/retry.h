// Whether and when a call is tried once more. Pure: time and chance are the caller's.
#pragma once

#include <chrono>
#include <optional>
#include <string_view>

namespace bulkhead::sdk {

// How one attempt has ended.
enum class AttemptEnd {
  kAnswered,
  kNotConnected,  // nothing of it was sent
  kLost,          // the connection, behind that
  kTimedOut,      // the same
  kUnusable,      // an answer, or an error, that another attempt would bring again
  kCancelled,     // nobody waits any more
};

// How many attempts may be made in addition: a share of the calls, and a few in any case, so that a service that fails altogether is not asked much
// more often just then. As the gateway's (its RetryBudget).
class RetryTokens {
 public:
  using Time = std::chrono::steady_clock::time_point;
  static constexpr double kShare = 0.2;      // of a call
  static constexpr double kPerSecond = 1;    // in any case,
  static constexpr double kAlways = 10;      // up to so many
  static constexpr double kMost = 100;       // what a share of many calls saves up

  void Called() { saved_ = saved_ + kShare > kMost ? kMost : saved_ + kShare; }
  // Whether there may be one more, which is then counted.
  bool Take(Time now);

 private:
  double saved_ = kAlways;
  std::optional<Time> refilled_;
};

struct RetryQuestion {
  AttemptEnd end = AttemptEnd::kAnswered;
  int status = 0;         // of kAnswered
  bool repeatable = false;  // method or key allow it
  int attempt = 1;        // that has ended, from 1
  int retries = 0;        // that the settings allow
  std::optional<std::chrono::milliseconds> retry_after = {};
  std::chrono::milliseconds left{0};  // of the call
};
inline constexpr std::chrono::milliseconds kRetryBase{100}, kRetryCap{5'000};

// GET, HEAD, OPTIONS, PUT, DELETE (RFC 9110, 9.2.2).
bool IsIdempotent(std::string_view method);
// How long to wait before the next attempt; nullopt: none. `chance` in [0, 1). The budget is the caller's to ask, after this.
std::optional<std::chrono::milliseconds> NextAttempt(const RetryQuestion& question, double chance);
// `retry-after`: seconds or a date (RFC 9110, 10.2.3), from `now` on; nullopt for anything else. A date that has passed is 0.
std::optional<std::chrono::milliseconds> ParseRetryAfter(std::string_view text, std::chrono::system_clock::time_point now);

}  // namespace bulkhead::sdk
