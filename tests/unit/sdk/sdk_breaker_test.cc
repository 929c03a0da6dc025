// The breaker of a service client: every sequence of what may happen to it, up to a length, and long ones by chance.
#include "breaker.h"

#include <gtest/gtest.h>

#include <deque>
#include <random>

namespace bulkhead::sdk {
namespace {

using std::chrono::milliseconds;
using Verdict = Breaker::Verdict;
using Change = Breaker::Change;

constexpr milliseconds kStep{100};
constexpr Breaker::Time kBegin{std::chrono::hours(1)};

Breaker::Settings InARow(int failures) { return {.failures = failures, .percent = 0, .window = kStep * 10, .open_for = kStep * 2}; }

// Drives a breaker and holds each step against the laws of breaker.h.
class Lawful {
 public:
  explicit Lawful(Breaker::Settings settings) : settings_(settings), breaker_(settings) {}

  void Pass() { now_ += kStep; }

  void Ask() {
    const BreakerState before = breaker_.state();
    const auto admission = breaker_.Admit(now_);
    const BreakerState after = breaker_.state();
    switch (before) {
      case BreakerState::kClosed:
        EXPECT_TRUE(admission.admitted) << "a closed one admits all";
        EXPECT_EQ(after, BreakerState::kClosed);
        break;
      case BreakerState::kOpen: {
        const bool over = now_ >= open_until_;
        EXPECT_EQ(admission.admitted, over);
        EXPECT_EQ(after, over ? BreakerState::kHalfOpen : BreakerState::kOpen);
        if (over) probes_ = 0;
        EXPECT_TRUE(over || admission.retry_in == open_until_ - now_);
        break;
      }
      case BreakerState::kHalfOpen:
        EXPECT_EQ(after, BreakerState::kHalfOpen);
        EXPECT_EQ(admission.admitted, probes_ == 0) << "one at a time";
        break;
    }
    EXPECT_EQ(admission.admitted, admission.retry_in == milliseconds(0));
    if (!admission.admitted) return;
    if (after != before) ++era_;
    if (after == BreakerState::kHalfOpen) ++probes_;
    pending_.push_back({admission, era_});
  }

  void Tell(Verdict verdict) {
    if (pending_.empty()) return;
    const auto [admission, era] = pending_.front();
    pending_.pop_front();
    const BreakerState before = breaker_.state();
    const Change change = breaker_.Report(admission, verdict, now_);
    const BreakerState after = breaker_.state();
    EXPECT_EQ(change == Change::kOpened, before != BreakerState::kOpen && after == BreakerState::kOpen);
    EXPECT_EQ(change == Change::kClosed, before != BreakerState::kClosed && after == BreakerState::kClosed);
    BreakerState expected = before;
    if (era == era_ && before == BreakerState::kHalfOpen) {
      --probes_;
      if (verdict == Verdict::kSuccess) expected = BreakerState::kClosed;
      if (verdict == Verdict::kFailure) expected = BreakerState::kOpen;
    } else if (era == era_ && before == BreakerState::kClosed) {
      if (verdict == Verdict::kSuccess) in_a_row_ = 0;
      if (verdict == Verdict::kFailure && ++in_a_row_ == settings_.failures) expected = BreakerState::kOpen;
    }
    EXPECT_EQ(after, expected) << "what is reported of an earlier state changes nothing";
    if (after == before) return;
    ++era_;
    in_a_row_ = 0;
    if (after == BreakerState::kOpen) open_until_ = now_ + settings_.open_for;
  }

 private:
  const Breaker::Settings settings_;
  Breaker breaker_;
  Breaker::Time now_ = kBegin, open_until_{};
  std::deque<std::pair<Breaker::Admission, int>> pending_;  // asked, and not told yet; with the era that it was admitted in
  int era_ = 0, in_a_row_ = 0, probes_ = 0;
};

void Do(Lawful& lawful, int what) {
  switch (what) {
    case 0: return lawful.Pass();
    case 1: return lawful.Ask();
    case 2: return lawful.Tell(Verdict::kSuccess);
    case 3: return lawful.Tell(Verdict::kFailure);
    default: return lawful.Tell(Verdict::kNothing);
  }
}

TEST(Breaker, EverySequenceOfEightEventsKeepsItsLaws) {
  constexpr int kEvents = 5, kLength = 8;
  int64_t sequences = 1;
  for (int i = 0; i < kLength; ++i) sequences *= kEvents;
  for (int failures : {1, 2}) {
    for (int64_t number = 0; number < sequences; ++number) {
      Lawful lawful(InARow(failures));
      for (int64_t rest = number, i = 0; i < kLength; ++i, rest /= kEvents) Do(lawful, static_cast<int>(rest % kEvents));
      if (HasFailure()) FAIL() << "sequence " << number << " in base 5, with " << failures << " failures";
    }
  }
}

TEST(Breaker, LongSequencesByChanceKeepItsLaws) {
  for (uint32_t seed = 1; seed <= 200; ++seed) {
    std::mt19937 chance(seed);
    Lawful lawful(InARow(1 + static_cast<int>(chance() % 5)));
    for (int i = 0; i < 2'000; ++i) Do(lawful, static_cast<int>(chance() % 5));
    if (HasFailure()) FAIL() << "seed " << seed;
  }
}

// Callers of a service that is up and down; what they ask of it while it is down, and how soon they are back.
TEST(Breaker, ADeadServiceIsAskedSeldomAndOneThatIsBackIsFoundSoon) {
  for (uint32_t seed = 1; seed <= 100; ++seed) {
    std::mt19937 chance(seed);
    Breaker breaker({.failures = 5, .percent = 50, .window = milliseconds(1'000), .open_for = milliseconds(500)});
    Breaker::Time now = kBegin;
    bool up = true;
    for (int phase = 0; phase < 20; ++phase, up = !up) {
      const Breaker::Time from = now, until = now + milliseconds(2'000 + chance() % 3'000);
      int asked = 0;
      std::optional<Breaker::Time> back;
      for (; now < until; now += milliseconds(1 + chance() % 10)) {
        const auto admission = breaker.Admit(now);
        if (!admission.admitted) continue;
        ++asked;
        breaker.Report(admission, up ? Verdict::kSuccess : Verdict::kFailure, now);
        if (up && !back && breaker.state() == BreakerState::kClosed) back = now;
      }
      if (up) {
        ASSERT_TRUE(back) << "seed " << seed;
        EXPECT_LE(*back - from, milliseconds(500 + 10)) << "seed " << seed;
      } else {
        EXPECT_LE(asked, 5 + (until - from) / milliseconds(500) + 1) << "seed " << seed;
      }
    }
  }
}

TEST(Breaker, AShareOfFailuresOpensItOnceThereAreEnoughToJudge) {
  const Breaker::Settings settings{.failures = 0, .percent = 50, .window = milliseconds(1'000), .open_for = milliseconds(500)};
  const auto run = [&](int number, milliseconds apart) {  // of pairs: a success, a failure
    Breaker breaker(settings);
    Breaker::Time now = kBegin;
    int opened = 0;
    for (int i = 0; i < number; ++i, now += apart) {
      breaker.Report(breaker.Admit(now), Verdict::kSuccess, now);
      opened += breaker.Report(breaker.Admit(now), Verdict::kFailure, now) == Change::kOpened;
    }
    return opened;
  };
  EXPECT_EQ(run(9, milliseconds(0)), 0);  // 18 say nothing
  EXPECT_EQ(run(10, milliseconds(0)), 1);
  EXPECT_EQ(run(100, milliseconds(200)), 0);  // never 20 within the window
  EXPECT_GT(run(100, milliseconds(20)), 0);
}

TEST(Breaker, OneThatCountsNothingNeverOpens) {
  Breaker breaker({.failures = 0, .percent = 0});
  for (int i = 0; i < 1'000; ++i) {
    const auto admission = breaker.Admit(kBegin);
    ASSERT_TRUE(admission.admitted);
    EXPECT_EQ(breaker.Report(admission, Verdict::kFailure, kBegin), Change::kNone);
  }
}

}  // namespace
}  // namespace bulkhead::sdk
