#include "breaker.h"

#include <algorithm>

namespace bulkhead::sdk {
namespace {
constexpr std::chrono::milliseconds kProbeWait{1'000};  // what is said to those that come while the one is on its way
}  // namespace

Breaker::Admission Breaker::Admit(Time now) {
  if (state_ == BreakerState::kOpen && now >= open_until_) Enter(BreakerState::kHalfOpen);
  switch (state_) {
    case BreakerState::kClosed: return {true, era_, {}};
    case BreakerState::kOpen: return {false, era_, std::chrono::ceil<std::chrono::milliseconds>(open_until_ - now)};
    case BreakerState::kHalfOpen: break;
  }
  if (probing_) return {false, era_, std::min(kProbeWait, settings_.open_for)};
  probing_ = true;
  return {true, era_, {}};
}

Breaker::Change Breaker::Report(const Admission& admission, Verdict verdict, Time now) {
  if (!admission.admitted || admission.era != era_) return Change::kNone;
  if (state_ == BreakerState::kHalfOpen) {
    probing_ = false;
    if (verdict == Verdict::kNothing) return Change::kNone;
    Enter(verdict == Verdict::kSuccess ? BreakerState::kClosed : BreakerState::kOpen);
    open_until_ = now + settings_.open_for;
    return verdict == Verdict::kSuccess ? Change::kClosed : Change::kOpened;
  }
  if (verdict == Verdict::kNothing) return Change::kNone;
  Count(verdict == Verdict::kFailure, now);
  if (!TooMany(now)) return Change::kNone;
  Enter(BreakerState::kOpen);
  open_until_ = now + settings_.open_for;
  return Change::kOpened;
}

void Breaker::Enter(BreakerState state) {
  state_ = state;
  ++era_;
  in_a_row_ = 0;
  buckets_ = {};
  probing_ = false;
}

int64_t Breaker::BucketNumber(Time now) const {
  const auto width = std::max<Clock::duration>(Clock::duration(settings_.window) / static_cast<int>(kBuckets), Clock::duration(1));
  return now.time_since_epoch() / width;
}

void Breaker::Count(bool failed, Time now) {
  in_a_row_ = failed ? in_a_row_ + 1 : 0;
  const int64_t number = BucketNumber(now);
  Bucket& bucket = buckets_[static_cast<size_t>(number) % kBuckets];
  if (bucket.number != number) bucket = {number, 0, 0};
  ++bucket.all;
  bucket.failed += failed;
}

bool Breaker::TooMany(Time now) const {
  if (settings_.failures > 0 && in_a_row_ >= settings_.failures) return true;
  if (settings_.percent <= 0 || in_a_row_ == 0) return false;  // a success opens nothing
  const int64_t number = BucketNumber(now);
  int all = 0, failed = 0;
  for (const Bucket& bucket : buckets_) {
    if (bucket.number <= number - static_cast<int64_t>(kBuckets) || bucket.number > number) continue;
    all += bucket.all;
    failed += bucket.failed;
  }
  return all >= kMinimum && int64_t{failed} * 100 >= int64_t{settings_.percent} * all;
}

}  // namespace bulkhead::sdk
