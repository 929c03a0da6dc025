// The runs under way on this node: each is one RunJob call on a worker, and one RUNNING row that is kept alive by its lease and
// closed by its outcome. Lives on the control loop. Losing the database stops no run: outcomes wait until it is back.
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
inline constexpr int kMaxRunsPerNode = 64;         // under way at once; others wait QUEUED
inline constexpr Millis kRunHeartbeat{10'000};     // renews leases; a third of kRunLease
inline constexpr Millis kProgressInterval{500};    // between two progress writes of one run
inline constexpr Millis kOutcomeRetry{1'000};      // between two tries to write an outcome while the database is away
inline constexpr int kMaxOutcomeRefusals = 30;     // a database that is there and refuses the outcome: then it is given up
inline constexpr Millis kRunDeadlineSlack{5'000};  // the call's own deadline beyond the run's, in case the timer is late
inline constexpr Millis kRetryBase{1'000}, kRetryCap{60'000};  // of a failed attempt: doubled each time, full jitter
}  // namespace limits

// Why a run is taken from its worker before it ended by itself.
enum class CutShort { kTimeout, kReplaced, kShutdown, kLost, kLeft };

class Runner {
 public:
  struct Events {
    // The run has its last status: as written, or, while the database is away, from memory.
    std::function<void(const RunView&)> ended;
    // A place is free, and another run may be claimable after `delay`.
    std::function<void(Millis delay)> vacated;
  };
  Runner(StoreCalls& store, const Clock& clock, Events events, JobMeters* meters = nullptr, Tracer* tracer = nullptr);
  Runner(const Runner&) = delete;
  ~Runner();

  void Launch(ClaimedRun run, const JobSpec& spec, const DirectoryWorker& worker);
  // Gives a claimed run back, because nobody here can run it now.
  void Return(const ClaimedRun& run);

  void CutAll(CutShort why);
  void CutJob(const JobKey& key, CutShort why);
  void WorkerGone(const std::string& instance);
  void Drain(const std::string& instance, std::function<void()> drained);
  // Renews the leases; `done` afterwards, whether or not it worked.
  void Heartbeat(std::function<void()> done);

  size_t size() const { return flights_.size(); }
  bool Runs(const JobKey& key) const;
  bool RunsId(const std::string& run_id) const;
  int LoadOf(const std::string& instance) const;

 private:
  struct Flight;
  Flight* Find(int64_t fence);
  void Hear(int64_t fence);  // news in the mailbox
  void CallEnded(int64_t fence, const absl::Status& status);
  void Cut(Flight& flight, CutShort why);
  void Conclude(Flight& flight, RunOutcome outcome);  // the call is over for us; the row remains to be written
  void Tell(const Flight& flight) const;               // meters and tracer, of an attempt that is over
  void WriteOutcome(Flight& flight);
  void Forget(int64_t fence, Millis delay);
  static void NoteProgress(Flight& flight, const RunMailbox::News& news);
  void WriteProgress(Flight& flight);
  RunOutcome OutcomeOf(Flight& flight, const RunMailbox::News& news, const absl::Status& status);
  RunOutcome Failure(const Flight& flight, RunStatus status, std::string code, std::string message, std::string stack,
                     bool retryable);
  void AnswerDrains(const std::string& instance);

  StoreCalls& store_;
  const Clock& clock_;
  const Events events_;
  JobMeters* const meters_;  // may be null
  Tracer* const tracer_;     // may be null
  Random random_ = Random::FromEntropy();
  std::map<int64_t, std::unique_ptr<Flight>> flights_;        // by fence
  std::multimap<std::string, std::function<void()>> drains_;  // by instance
};

}  // namespace bulkhead
