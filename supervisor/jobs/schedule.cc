#include "supervisor/jobs/schedule.h"

#include <algorithm>
#include <deque>

#include "supervisor/base/log.h"

namespace bulkhead {
namespace {

// The last `most` ticks in (after, now]. Looks back through growing windows, so that a schedule of every second costs no more than
// one of every year.
std::vector<WallTime> LastTicks(const Cron& cron, WallTime after, WallTime now, size_t most) {
  constexpr Millis kMinute{60'000}, kHour{3'600'000}, kDay{86'400'000};
  std::deque<WallTime> ticks;
  for (Millis window : {kMinute, kHour, kDay, 32 * kDay, 366 * kDay, 5 * 366 * kDay}) {
    const WallTime begin = std::max(after, now - window);
    ticks.clear();
    for (auto tick = cron.Next(begin); tick && *tick <= now; tick = cron.Next(*tick)) {
      ticks.push_back(*tick);
      if (ticks.size() > most) ticks.pop_front();
    }
    if (ticks.size() == most || begin == after) break;
  }
  return {ticks.begin(), ticks.end()};
}

bool CatchesUp(const JobSpec& spec) { return spec.catch_up != "none"; }

}  // namespace

std::vector<JobKey> Schedule::Adopt(const Directory& directory, WallTime now) {
  std::map<JobKey, Job> jobs, resting;
  std::vector<JobKey> catching_up;
  for (const auto& [name, module] : directory.modules) {
    for (const JobSpec& spec : module->manifest->jobs) {
      const JobKey key(name, spec.name);
      Job job{module, &spec, std::nullopt, std::nullopt};
      const Job* before = Before(key);
      const bool known = before != nullptr && before->spec->schedule == spec.schedule && before->spec->time_zone == spec.time_zone;
      if (known) {
        job.cron = before->cron;
        job.next = before->next;
      }
      if (module->workers.empty()) {
        if (known) resting.emplace(key, std::move(job));
        continue;
      }
      if (!known && !spec.schedule.empty()) {
        auto cron = Cron::Parse(spec.schedule, spec.time_zone);
        if (!cron.ok()) {  // checked with the manifest; possible when the node has other time zone data
          LogWarn("jobs", "a schedule can't be followed",
                  {{"module", name}, {"job", spec.name}, {"error", std::string(cron.status().message())}});
        } else {
          job.cron = *cron;
          job.next = cron->Next(now);
          if (CatchesUp(spec)) catching_up.push_back(key);
        }
      }
      jobs.emplace(key, std::move(job));
    }
  }
  jobs_ = std::move(jobs);
  resting_ = std::move(resting);
  return catching_up;
}

const Schedule::Job* Schedule::Before(const JobKey& key) const {
  if (const Job* active = Find(key)) return active;
  auto found = resting_.find(key);
  return found == resting_.end() ? nullptr : &found->second;
}

const Schedule::Job* Schedule::Find(const JobKey& key) const {
  auto found = jobs_.find(key);
  return found == jobs_.end() ? nullptr : &found->second;
}

std::optional<WallTime> Schedule::NextDue() const {
  std::optional<WallTime> due;
  for (const auto& [key, job] : jobs_) {
    if (job.next && (!due || *job.next < *due)) due = job.next;
  }
  return due;
}

std::vector<Tick> Schedule::TakeDue(WallTime now) {
  std::vector<Tick> ticks;
  for (auto& [key, job] : jobs_) {
    if (!job.next || *job.next > now) continue;
    // Several ticks may have passed since: the latest of them stands for all, unless all are wanted.
    const size_t most = job.spec->catch_up == "all" ? static_cast<size_t>(job.spec->catch_up_most) : 1;
    for (WallTime slot : LastTicks(*job.cron, *job.next - Millis(1), now, most)) {
      const bool late = now - slot > limits::kMaxTickLateness;
      if (!late || CatchesUp(*job.spec)) ticks.push_back({key, *job.spec, slot, late && job.spec->catch_up == "all"});
    }
    job.next = job.cron->Next(now);
  }
  return ticks;
}

std::vector<Tick> Schedule::Missed(const JobKey& key, WallTime after, WallTime now) const {
  const Job* job = Find(key);
  std::vector<Tick> ticks;
  if (job == nullptr || !job->cron || !CatchesUp(*job->spec)) return ticks;
  const bool all = job->spec->catch_up == "all";
  for (WallTime slot : LastTicks(*job->cron, after, now, all ? static_cast<size_t>(job->spec->catch_up_most) : 1))
    ticks.push_back({key, *job->spec, slot, all});
  return ticks;
}

}  // namespace bulkhead
