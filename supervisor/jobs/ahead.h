// The runs that this node has claimed and not begun yet, and how many it may claim so. A job's queue holds no more than its recent runs promise to begin
// within kAheadTime; what waits longer than kAheadPatience, because they promised too much, is given back, for other nodes to take. No worker has them
// yet: each goes to the first one with a free place. Lives on the control loop; reads no database.
#pragma once

#include <deque>
#include <map>
#include <string>
#include <vector>

#include "supervisor/base/clock.h"
#include "supervisor/jobs/run_store.h"
#include "supervisor/jobs/schedule.h"

namespace bulkhead {

namespace limits {
inline constexpr int kMaxRunsAhead = 1'000;     // of one job
inline constexpr int kFewRunsAhead = 250;       // of one of which not many have begun lately
inline constexpr int kMaxClaimedRuns = 4'096;   // on a node: executed, waiting, or over and not written; beyond, nothing is claimed
inline constexpr Millis kAheadTime{50};         // within which they are to begin
inline constexpr Millis kAheadPatience{100};    // after which they are given back
}  // namespace limits

class Ahead {
 public:
  struct Waiting {
    ClaimedRun run;
    Instant since;   // when it came
    Instant leased;  // when its claim was asked for
  };
  struct Queue {
    std::deque<Waiting> runs;  // higher priority first
    int slots = 1;             // by the last claim: of the job's runs this node executes no more at once
    bool more = false;         // the last claim has left some behind
    double took_ms = -1;       // a run, on average over the last ones; below 0: not known
    Instant since{};           // so many have begun,
    int begun = 0, before = 0;  // and so many in the kAheadTime before
  };

  explicit Ahead(const Clock& clock) : clock_(clock) {}

  // A run of the job has ended, and has had its place for so long.
  void Took(const JobKey& key, Instant::duration time);
  // How many may wait, where `moving` places take one run of the job after another: as many as they then do within kAheadTime, but not many more than have
  // begun within the last one, as the database may be what they wait for.
  int Allowance(const JobKey& key, int moving) const;

  void Put(ClaimedRun run, Instant leased);
  // The next one of the job; there is one.
  Waiting Take(const JobKey& key);
  std::vector<ClaimedRun> TakeRun(const std::string& run_id);
  std::vector<ClaimedRun> TakeJob(const JobKey& key);
  std::vector<ClaimedRun> TakeLate();
  std::vector<ClaimedRun> TakeAll();

  Queue& queue(const JobKey& key) { return queues_[key]; }
  const std::map<JobKey, Queue>& queues() const { return queues_; }
  int size() const { return size_; }
  int WaitingOf(const std::string& module) const;

 private:
  template <typename Condition>
  std::vector<ClaimedRun> TakeWhere(Condition condition);

  const Clock& clock_;
  std::map<JobKey, Queue> queues_;
  int size_ = 0;
};

}  // namespace bulkhead
