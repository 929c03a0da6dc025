// One attempt on a worker, as the Runner keeps it. For runner.cc and outcomes.cc alone.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "supervisor/jobs/runner.h"

namespace bulkhead {

struct Runner::Flight {
  ClaimedRun run;
  std::shared_ptr<const DirectoryModule> module;  // whose are the two below; null of a run that was given back before it began
  const JobSpec* spec = nullptr;
  const DirectoryWorker* worker = nullptr;
  std::shared_ptr<RunMailbox> mailbox;
  std::shared_ptr<JobCall> call;  // null once the call is over for us
  enum class Phase { kCalling, kEnding, kOver } phase = Phase::kOver;
  bool leaving = false;  // its worker is being drained: losing it is nobody's fault
  Instant due{};         // when its time is up
  Instant began{};
  Instant leased{};    // when the lease was asked for last, with success
  Instant kill_at{};   // of kEnding
  Millis ask_again{};  // of kEnding
  TraceContext trace;  // of this attempt, a trace of its own
  Loop::TimerId timeout = 0;
  Loop::TimerId progress_timer = 0;  // set while news wait to be written
  Loop::TimerId ask_timer = 0;
  std::vector<RunLogLine> unwritten;
  std::deque<RunLogLine> recent;
  std::optional<RunOutcome> outcome;  // from kEnding on
  bool announced = false;             // `ended` was called
  bool warned = false;                // that the outcome is not written
  int refusals = 0;                   // of the outcome, by a database that is there

  std::string instance() const { return worker == nullptr ? "" : worker->instance; }
  JobKey key() const { return {run.view.module, run.view.job}; }
  bool here() const { return phase != Phase::kOver; }
};

}  // namespace bulkhead
