#include "retry.h"

#include <time.h>

#include <algorithm>
#include <charconv>
#include <string>

namespace bulkhead::sdk {
namespace {

using std::chrono::milliseconds;
constexpr int64_t kMaxRetryAfter = 365LL * 24 * 3'600;  // seconds; nobody waits as long anyway

bool WorthAnother(const RetryQuestion& question) {
  switch (question.end) {
    case AttemptEnd::kNotConnected:
    case AttemptEnd::kLost:
    case AttemptEnd::kTimedOut: return true;
    case AttemptEnd::kUnusable:
    case AttemptEnd::kCancelled: return false;
    case AttemptEnd::kAnswered: break;
  }
  return question.status == 502 || question.status == 503 || question.status == 504 || (question.status == 429 && question.retry_after);
}

}  // namespace

bool RetryTokens::Take(Time now) {
  const double seconds = refilled_ ? std::max(0.0, std::chrono::duration<double>(now - *refilled_).count()) : 0;
  refilled_ = now;
  // What a share of many calls has saved up is not cut to the little that is there in any case.
  if (saved_ < kAlways) saved_ = std::min(saved_ + seconds * kPerSecond, kAlways);
  if (saved_ < 1) return false;
  --saved_;
  return true;
}

bool IsIdempotent(std::string_view method) {
  return method == "GET" || method == "HEAD" || method == "OPTIONS" || method == "PUT" || method == "DELETE";
}

std::optional<milliseconds> NextAttempt(const RetryQuestion& question, double chance) {
  if (!question.repeatable || question.attempt > question.retries || !WorthAnother(question)) return std::nullopt;
  milliseconds most = kRetryBase;
  for (int i = 1; i < question.attempt && most < kRetryCap; ++i) most = std::min(most * 2, kRetryCap);
  milliseconds wait(static_cast<int64_t>(chance * static_cast<double>(most.count())));
  if (question.retry_after) wait = std::max(wait, *question.retry_after);
  if (wait >= question.left) return std::nullopt;
  return wait;
}

std::optional<milliseconds> ParseRetryAfter(std::string_view text, std::chrono::system_clock::time_point now) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  if (text.empty() || text.size() > 64) return std::nullopt;
  if (text.find_first_not_of("0123456789") == std::string_view::npos) {
    int64_t seconds = kMaxRetryAfter;
    if (text.size() < 10) std::from_chars(text.data(), text.data() + text.size(), seconds);
    return milliseconds(std::min(seconds, kMaxRetryAfter) * 1'000);
  }
  tm parts{};
  const std::string date(text);
  const char* end = strptime(date.c_str(), "%a, %d %b %Y %H:%M:%S GMT", &parts);
  if (!end || *end) return std::nullopt;
  const auto at = std::chrono::system_clock::from_time_t(timegm(&parts));
  return std::clamp(std::chrono::ceil<milliseconds>(at - now), milliseconds(0), milliseconds(kMaxRetryAfter * 1'000));
}

}  // namespace bulkhead::sdk
