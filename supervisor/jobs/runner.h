// The runs under way on this node: each is one RunJob call on a worker, and one RUNNING row that is kept alive by its lease and
// closed by its outcome. Lives on the control loop. Losing the database stops no run: outcomes wait until it is back; only where others may take a run
// over when its lease ends (Options.alone) it is stopped before that.
//
// No run is begun elsewhere while its handler may still be at it: a call that is cut short or broken is followed by the question whether the handler
// has returned (RunningJobs), and a worker that does not let go of a run within a grace is killed. Until then the row stays RUNNING.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "supervisor/base/random.h"
#include "supervisor/jobs/mailbox.h"
#include "supervisor/jobs/schedule.h"
#include "supervisor/jobs/store_calls.h"

namespace bulkhead {

namespace limits {
inline constexpr int kMaxRunsPerNode = 1'024;      // executed at once; others wait
inline constexpr int kMaxRunsPerWorker = 16;       // of these; as many as the SDK takes
inline constexpr Millis kRunHeartbeat{5'000};      // renews leases
inline constexpr Millis kLeaseGivenUp{20'000};     // without a renewal; the rest of kRunLease is for the handler's end
inline constexpr Millis kCancelGrace{5'000};       // for a handler to return after its run was cancelled; then its worker is killed
inline constexpr Millis kHastyGrace{2'000};        // the same at a shutdown, and when the lease or the call is lost
inline constexpr size_t kMaxOutcomesAtOnce = 250;  // written by one statement
inline constexpr size_t kManyOutcomes = 64;        // so many don't wait for the statement before
inline constexpr int kMaxUnwritten = 500;          // runs that are over, and begun again if we died now; beyond, no other one begins
inline constexpr size_t kRecentLines = 100;        // of a run, for those who begin to follow it
inline constexpr Millis kProgressInterval{500};    // between two progress writes of one run
inline constexpr Millis kOutcomeRetry{1'000};      // between two tries to write an outcome while the database is away
inline constexpr int kMaxOutcomeRefusals = 30;     // a database that is there and refuses the outcome: then it is given up
inline constexpr Millis kRunDeadlineSlack{5'000};  // the call's own deadline beyond the run's, in case the timer is late
inline constexpr Millis kRetryBase{1'000}, kRetryCap{60'000};  // of a failed attempt: doubled each time, full jitter
}  // namespace limits

// Why a run is taken from its worker before it ended by itself.
enum class CutShort { kTimeout, kReplaced, kCancelled, kShutdown, kLost, kLeft };

class Runner {
 public:
  struct Events {
    // The run has its last status: as written, or, while the database is away, from memory.
    std::function<void(const RunView&)> ended;
    // A place is free, and another run may be claimable after `delay`.
    std::function<void(Millis delay)> vacated;
    // The same, and the outcome is not written yet: a run of the job has left its worker, where it was for so long.
    std::function<void(const JobKey&, Instant::duration)> left;
    // Its progress or status has changed, or it has said something; for whoever follows it.
    std::function<void(const RunView&, const std::vector<RunLogLine>&)> news;
  };
  struct Load {
    std::map<JobKey, int> executing;       // by job
    std::map<std::string, int> instances;  // the same by instance
    std::map<JobKey, int> slow;            // of these, those that were begun long ago
    std::map<JobKey, int> unwritten;       // over, and still RUNNING in the database
  };
  Runner(StoreCalls& store, const Clock& clock, Events events, bool alone = true, JobMeters* meters = nullptr, Tracer* tracer = nullptr);
  Runner(const Runner&) = delete;
  ~Runner();

  // `leased` is when the claim was asked for.
  void Launch(ClaimedRun run, const Schedule::Job& job, const DirectoryWorker& worker, Instant leased);
  // Gives a claimed run back as it was, because nobody here can begin it now.
  void Return(const ClaimedRun& run);

  void CutAll(CutShort why);
  void CutJob(const JobKey& key, CutShort why);
  void CutRun(const std::string& run_id, CutShort why);
  void WorkerLeaving(const std::string& instance);
  void WorkerGone(const std::string& instance);
  void Drain(const std::string& instance, std::function<void()> drained);
  // Renews the leases; `done` afterwards, whether or not it worked.
  void Heartbeat(std::function<void()> done);

  // The attempt has left a file.
  void Kept(int64_t fence, const Artifact& artifact);

  size_t size() const { return flights_.size(); }
  Load load(Millis slow) const;  // `slow`: for how long such a run is under way at least
  int Executing() const;
  int Unwritten() const { return static_cast<int>(flights_.size()) - Executing(); }
  int Executing(const JobKey& key) const;
  int LoadOf(const std::string& instance) const;
  bool RunsId(const std::string& run_id) const;
  // A run here as it is, with the last lines that it has said, which the database may not have yet.
  std::optional<std::pair<RunView, std::vector<RunLogLine>>> Recent(const std::string& run_id) const;

 private:
  struct Flight;
  Flight* Find(int64_t fence);
  template <typename Condition>
  std::vector<int64_t> FencesWhere(Condition condition) const;
  template <typename Condition>
  void CutWhere(CutShort why, Condition condition);

  void Hear(int64_t fence);  // news in the mailbox
  void CallEnded(int64_t fence, const absl::Status& status);
  void Cut(Flight& flight, CutShort why);
  // The call is over for us, but its handler may not have returned: the outcome waits until it has.
  void End(Flight& flight, RunOutcome outcome, Millis grace);
  void AskWhetherItEnded(Flight& flight);
  void AskAgain(Flight& flight);
  void Answered(int64_t fence, const absl::Status& status, const module::v1::RunningJobsResponse& response);
  // The attempt is over; the row remains to be written.
  void Conclude(Flight& flight, RunOutcome outcome);
  void Leave(const Flight& flight);
  void StopTimers(Flight& flight);
  void Tell(const Flight& flight) const;  // meters and tracer, of an attempt that is over
  // All outcomes that wait, by one statement; those that come meanwhile by the next, which many don't wait for.
  void WriteOutcomes();
  void Written(const std::vector<int64_t>& fences, absl::StatusOr<std::vector<std::optional<ClosedRun>>> written);
  void NotWritten(Flight& flight, const absl::Status& why);
  void NoteNews(Flight& flight, const RunMailbox::News& news);
  void WriteProgress(Flight& flight);
  void WriteLines(Flight& flight);
  RunOutcome OutcomeOf(Flight& flight, const RunMailbox::News& news, const absl::Status& status);
  RunOutcome Failure(const Flight& flight, RunStatus status, std::string code, std::string message, std::string stack,
                     bool retryable);
  void AnswerDrains(const std::string& instance);

  StoreCalls& store_;
  const Clock& clock_;
  const Events events_;
  const bool alone_;
  JobMeters* const meters_;  // may be null
  Tracer* const tracer_;     // may be null
  Random random_ = Random::FromEntropy();
  std::map<int64_t, std::unique_ptr<Flight>> flights_;        // by fence
  std::map<JobKey, int> executing_;                           // of these, those that a worker has
  std::map<std::string, int> instances_;                      // the same, by instance
  std::multimap<std::string, std::function<void()>> drains_;  // by instance
  std::vector<int64_t> outcomes_;                             // of these the outcome waits to be written
  int writing_ = 0;  // statements under way, at most kMaxWriting
  bool one_by_one_ = false;  // the database has refused one of several
  Loop::TimerId retry_timer_ = 0;
};

}  // namespace bulkhead
