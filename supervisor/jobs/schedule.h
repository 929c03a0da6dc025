// Which jobs are active here (their module has a ready worker) and when each ticks next. Pure: time is handed in.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "supervisor/lifecycle/directory.h"
#include "supervisor/manifest/cron.h"

namespace bulkhead {

namespace limits {
inline constexpr Millis kMaxTickLateness{
    60'000};  // a tick missed by more (a suspended machine) is left out, unless `catchUp` says otherwise
}  // namespace limits

using JobKey = std::pair<std::string, std::string>;  // module, job

struct Tick {
  JobKey key;
  JobSpec spec;
  WallTime slot;
  bool made_up_for = false;  // of `catchUp: all`: it waits its turn, however busy the job is
};

class Schedule {
 public:
  struct Job {
    std::shared_ptr<const DirectoryModule> module;
    const JobSpec* spec = nullptr;  // of module->manifest
    std::optional<Cron> cron;       // none: manual only
    std::optional<WallTime> next;
  };

  // The jobs that became active and want to catch up with ticks that were missed before.
  std::vector<JobKey> Adopt(const Directory& directory, WallTime now);
  const std::map<JobKey, Job>& jobs() const { return jobs_; }
  const Job* Find(const JobKey& key) const;
  std::optional<WallTime> NextDue() const;
  // What is due by now; each job moves on to its next tick.
  std::vector<Tick> TakeDue(WallTime now);
  // Those of a job in (after, now] that its `catchUp` wants, the earliest first.
  std::vector<Tick> Missed(const JobKey& key, WallTime after, WallTime now) const;

 private:
  const Job* Before(const JobKey& key) const;  // as the last snapshot had it, active or not

  std::map<JobKey, Job> jobs_;
  // Of enabled modules that had a ready worker and have none now: a tick that falls into a restart is taken late, not lost.
  std::map<JobKey, Job> resting_;
};

}  // namespace bulkhead
