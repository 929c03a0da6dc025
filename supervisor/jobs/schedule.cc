#include "supervisor/jobs/schedule.h"

#include "supervisor/base/log.h"

namespace bulkhead {
namespace {

// The latest tick in (after, now]. Looks back through growing windows, so that a schedule of every second costs no more than
// one of every year.
std::optional<WallTime> LatestTick(const Cron& cron, WallTime after, WallTime now) {
  constexpr Millis kMinute{60'000}, kHour{3'600'000}, kDay{86'400'000};
  for (Millis window : {kMinute, kHour, kDay, 32 * kDay, 366 * kDay, 5 * 366 * kDay}) {
    const WallTime begin = std::max(after, now - window);
    auto tick = cron.Next(begin);
    if (!tick || *tick > now) {
      if (begin == after) return std::nullopt;
      continue;
    }
    for (auto later = cron.Next(*tick); later && *later <= now; later = cron.Next(*later)) tick = later;
    return tick;
  }
  return std::nullopt;
}

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
          if (spec.catch_up == "latest") catching_up.push_back(key);
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
    // Several ticks may have passed since: the latest of them stands for all.
    const WallTime slot = LatestTick(*job.cron, *job.next, now).value_or(*job.next);
    if (now - slot <= limits::kMaxTickLateness || job.spec->catch_up == "latest") ticks.push_back({key, *job.spec, slot});
    job.next = job.cron->Next(now);
  }
  return ticks;
}

std::optional<WallTime> Schedule::LatestMissed(const JobKey& key, WallTime after, WallTime now) const {
  const Job* job = Find(key);
  return job != nullptr && job->cron ? LatestTick(*job->cron, after, now) : std::nullopt;
}

}  // namespace bulkhead
