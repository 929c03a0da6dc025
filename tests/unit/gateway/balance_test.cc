// Balancing between workers and the budget of retries, by themselves.
#include "supervisor/gateway/balance.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <numeric>
#include <vector>

#include "supervisor/gateway/retry_budget.h"

namespace bulkhead {
namespace {

using namespace std::chrono_literals;

// Requests that come at each step and go when each worker is done with its oldest, by threads that each see their own requests only.
struct Bench {
  explicit Bench(size_t workers, size_t threads, uint64_t seed) : random(seed), own(threads, std::vector<int>(workers)), queue(workers), sent(workers) {}

  template <typename Pick>
  void Run(int steps, Pick pick) {
    for (int step = 0; step < steps; ++step) {
      const size_t thread = random.Below(own.size()), worker = pick(own[thread], random);
      ++own[thread][worker];
      ++sent[worker];
      queue[worker].push_back(thread);
      most = std::max(most, queue[worker].size());
      // As many leave as come, from workers that are drawn: who draws one without requests has no luck this time.
      const size_t done = random.Below(queue.size());
      if (queue[done].empty()) continue;
      --own[queue[done].front()][done];
      queue[done].pop_front();
    }
  }

  Random random;
  std::vector<std::vector<int>> own;     // by thread and worker
  std::vector<std::deque<size_t>> queue;  // by worker: whose requests
  std::vector<int> sent;
  size_t most = 0;                       // that one worker had at a time
};

size_t ByTwoChoices(const std::vector<int>& own, Random& random) {
  return PickOfTwo(own.size(), random, [&](size_t i) { return own[i]; });
}
size_t ByChance(const std::vector<int>& own, Random& random) { return random.Below(own.size()); }

TEST(Balance, EachWorkerGetsItsShareAndNoneFarMoreThanItsShareAtATime) {
  constexpr int kSteps = 200'000;
  for (uint64_t seed : {1, 2, 3}) {
    Bench two(10, 1, seed), chance(10, 1, seed);
    two.Run(kSteps, ByTwoChoices);
    chance.Run(kSteps, ByChance);
    for (int sent : two.sent) EXPECT_NEAR(sent, kSteps / 10, kSteps / 100) << "seed " << seed;
    EXPECT_LT(two.most * 2, chance.most) << "seed " << seed;
  }
}

TEST(Balance, ItHoldsAlsoWhereEachThreadSeesOnlyItsOwnRequests) {
  Bench two(8, 4, 7), chance(8, 4, 7);
  two.Run(200'000, ByTwoChoices);
  chance.Run(200'000, ByChance);
  EXPECT_LT(two.most, chance.most);
  for (int sent : two.sent) EXPECT_NEAR(sent, 25'000, 2'500);
}

TEST(Balance, AWorkerThatNeverAnswersGetsNoMoreThanTheOthersHaveInFlight) {
  Random random(5);
  std::vector<int> load(4);
  int stuck = 0;
  for (int i = 0; i < 10'000; ++i) {
    // The others answer at once.
    const size_t worker = PickOfTwo(load.size(), random, [&](size_t w) { return load[w]; });
    if (worker == 3) ++load[3], ++stuck;
  }
  EXPECT_EQ(stuck, 1) << "from then on it always has more than the other one that is drawn";
}

TEST(Balance, OfTwoWorkersTheLessLoadedIsTakenAndOfEqualOnesEither) {
  Random random(3);
  int first = 0;
  for (int i = 0; i < 1'000; ++i) {
    EXPECT_EQ(PickOfTwo(2, random, [](size_t w) { return w == 0 ? 5 : 4; }), 1u);
    first += PickOfTwo(2, random, [](size_t) { return 0; }) == 0;
  }
  EXPECT_NEAR(first, 500, 100);
  EXPECT_EQ(PickOfTwo(1, random, [](size_t) { return 9; }), 0u);
}

class RetryBudgetTest : public ::testing::Test {
 protected:
  int TakeAll() {
    int taken = 0;
    while (budget.Take(now)) ++taken;
    return taken;
  }
  const int always = static_cast<int>(limits::kRetriesPerSecond * 10);
  RetryBudget budget;
  Instant now{1h};
};

TEST_F(RetryBudgetTest, AFewRetriesMayAlwaysBeMadeAndComeBackWithTime) {
  EXPECT_EQ(TakeAll(), always);
  now += 1s;
  EXPECT_EQ(TakeAll(), static_cast<int>(limits::kRetriesPerSecond));
  now += 1h;
  EXPECT_EQ(TakeAll(), always) << "what is not used is saved for ten seconds";
  EXPECT_EQ(budget.taken(), static_cast<uint64_t>(2 * always) + 10);
  EXPECT_EQ(budget.refused(), 3u);
}

TEST_F(RetryBudgetTest, OfManyRequestsOneInFiveMayBeMadeOnceMoreAsManyAsOneWorkerCanLose) {
  TakeAll();
  for (int i = 0; i < 1'000; ++i) budget.Sent();
  EXPECT_NEAR(TakeAll(), 200, 1);
  for (int i = 0; i < 1'000'000; ++i) budget.Sent();
  EXPECT_EQ(TakeAll(), static_cast<int>(limits::kMaxStreamsPerLink));
}

TEST_F(RetryBudgetTest, AModuleThatLosesEveryRequestIsAskedAFifthMoreAndNotTwice) {
  int asked = 0;
  for (int i = 0; i < 100'000; ++i) {
    budget.Sent();
    asked += 1 + budget.Take(now);
    now += 100us;
  }
  EXPECT_LT(asked, 100'000 * 1.21 + always);
  EXPECT_GT(asked, 100'000 * 1.19);
}

}  // namespace
}  // namespace bulkhead
