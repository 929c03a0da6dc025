#include "supervisor/jobs/ahead.h"

#include <algorithm>

namespace bulkhead {
namespace {

constexpr double kWeight = 1.0 / 8;   // of the newest run in the average
constexpr double kLeastMs = 0.05;     // no run takes less

}  // namespace

void Ahead::Took(const JobKey& key, Instant::duration time) {
  double& average = queues_[key].took_ms;
  const double ms = std::max(std::chrono::duration<double, std::milli>(time).count(), kLeastMs);
  average = average < 0 ? ms : average + (ms - average) * kWeight;
}

int Ahead::Allowance(const JobKey& key, int moving) const {
  const auto found = queues_.find(key);
  if (found == queues_.end() || found->second.took_ms < 0 || moving <= 0) return 0;
  const double begins = moving * static_cast<double>(limits::kAheadTime.count()) / found->second.took_ms;
  const int lately = std::max(found->second.begun, found->second.before);
  return std::min({static_cast<int>(std::min(begins, 1e6)), std::max(limits::kFewRunsAhead, lately + lately / 2), limits::kMaxRunsAhead});
}

void Ahead::Put(ClaimedRun run, Instant leased) {
  Queue& queue = queues_[{run.view.module, run.view.job}];
  queue.slots = run.slots;
  auto behind = queue.runs.end();
  while (behind != queue.runs.begin() && std::prev(behind)->run.view.priority < run.view.priority) --behind;
  queue.runs.insert(behind, {std::move(run), clock_.Now(), leased});
  ++size_;
}

Ahead::Waiting Ahead::Take(const JobKey& key) {
  Queue& queue = queues_.at(key);
  if (const Instant now = clock_.Now(); now - queue.since >= limits::kAheadTime) {
    queue.before = now - queue.since < 2 * limits::kAheadTime ? queue.begun : 0;
    queue.begun = 0;
    queue.since = now;
  }
  ++queue.begun;
  Waiting next = std::move(queue.runs.front());
  queue.runs.pop_front();
  --size_;
  return next;
}

template <typename Condition>
std::vector<ClaimedRun> Ahead::TakeWhere(Condition condition) {
  std::vector<ClaimedRun> taken;
  for (auto& [key, queue] : queues_) {
    std::deque<Waiting> left;
    for (Waiting& waiting : queue.runs) {
      if (condition(waiting)) {
        taken.push_back(std::move(waiting.run));
      } else {
        left.push_back(std::move(waiting));
      }
    }
    queue.runs = std::move(left);
  }
  size_ -= static_cast<int>(taken.size());
  return taken;
}

std::vector<ClaimedRun> Ahead::TakeRun(const std::string& run_id) {
  return TakeWhere([&](const Waiting& w) { return w.run.view.id == run_id; });
}

std::vector<ClaimedRun> Ahead::TakeJob(const JobKey& key) {
  return TakeWhere([&](const Waiting& w) { return w.run.view.module == key.first && w.run.view.job == key.second; });
}

std::vector<ClaimedRun> Ahead::TakeLate() {
  const Instant before = clock_.Now() - limits::kAheadPatience;
  for (auto& [key, queue] : queues_) {
    // They were promised too much: nothing more until a run has ended again.
    if (std::any_of(queue.runs.begin(), queue.runs.end(), [&](const Waiting& w) { return w.since <= before; })) queue.took_ms = -1;
  }
  return TakeWhere([&](const Waiting& w) { return w.since <= before; });
}

std::vector<ClaimedRun> Ahead::TakeAll() {
  return TakeWhere([](const Waiting&) { return true; });
}

int Ahead::WaitingOf(const std::string& module) const {
  int waiting = 0;
  for (auto at = queues_.lower_bound({module, ""}); at != queues_.end() && at->first.first == module; ++at) waiting += static_cast<int>(at->second.runs.size());
  return waiting;
}

}  // namespace bulkhead
