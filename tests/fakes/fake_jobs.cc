#include "tests/fakes/fake_jobs.h"

#include <algorithm>

#include "supervisor/base/status.h"

namespace bulkhead {

void FakeJobs::Adopt(std::shared_ptr<const Directory> directory, std::function<void()> adopted) {
  loop_.Post([this, directory = std::move(directory), adopted = std::move(adopted)]() mutable {
    directory_ = std::move(directory);
    adopted();
  });
}

void FakeJobs::Drain(const std::string&, std::function<void()> drained) { loop_.Post(std::move(drained)); }

void FakeJobs::Stop(Millis, std::function<void()> stopped) {
  loop_.Post([this, stopped = std::move(stopped)] {
    for (RunView& run : runs_) {
      if (run.status == RunStatus::kRunning) End(run, RunStatus::kInterrupted);
    }
    stopped();
  });
}

void FakeJobs::WorkerGone(const std::string& instance) {
  for (RunView& run : runs_) {
    if (run.status == RunStatus::kRunning && run.worker == instance) End(run, RunStatus::kInterrupted);
  }
}

void FakeJobs::ListJobs(const std::string& module, std::shared_ptr<const Manifest> manifest, Done<std::vector<JobView>> done) {
  loop_.Post([this, module, manifest = std::move(manifest), done = std::move(done)] {
    const auto found = directory_->modules.find(module);
    const bool active = found != directory_->modules.end() && !found->second->workers.empty();
    std::vector<JobView> jobs;
    for (const JobSpec& spec : manifest->jobs) jobs.push_back({module, spec, active, std::nullopt});
    done(std::move(jobs));
  });
}

void FakeJobs::Run(const std::string& module, const std::string& job, std::string payload_json, Millis wait, std::optional<AuditRecord>,
                   Done<RunView> done) {
  loop_.Post([this, module, job, payload_json = std::move(payload_json), wait, done = std::move(done)] {
    const auto found = directory_->modules.find(module);
    if (found == directory_->modules.end() || found->second->workers.empty()) {
      return done(Error("MODULE_NOT_RUNNING", "The module \"" + module + "\" does not run."));
    }
    const auto& specs = found->second->manifest->jobs;
    if (std::none_of(specs.begin(), specs.end(), [&](const JobSpec& spec) { return spec.name == job; })) {
      return done(Error("JOB_NOT_FOUND", "The module \"" + module + "\" has no job \"" + job + "\"."));
    }
    RunView run;
    run.id = "run-" + std::to_string(runs_.size() + 1);
    run.module = module;
    run.job = job;
    run.trigger = "manual";
    run.attempt = 1;
    run.payload_json = payload_json;
    run.queued_at = clock_.Wall();
    run.status = RunStatus::kRunning;
    run.started_at = clock_.Wall();
    run.worker = found->second->workers.front().instance;
    run.node = "fake";
    runs_.push_back(run);
    if (wait <= Millis(0)) {
      done(run);
    } else {
      auto waiter = std::make_shared<Waiter>(Waiter{done});
      waiters_.emplace(run.id, waiter);
      waiter->timer = loop_.After(wait, [this, id = run.id, waiter] {
        const auto [first, last] = waiters_.equal_range(id);
        const auto mine = std::find_if(first, last, [&](const auto& entry) { return entry.second == waiter; });
        if (mine == last) return;
        waiters_.erase(mine);
        waiter->done(*Find(id));
      });
    }
    if (!hold_) End(runs_.back(), fail_ ? RunStatus::kFailed : RunStatus::kSucceeded);
  });
}

void FakeJobs::ListRuns(const RunFilter& filter, int page, int page_size, Done<RunPage> done) {
  loop_.Post([=, this] {
    RunPage result;
    for (auto run = runs_.rbegin(); run != runs_.rend(); ++run) {
      if ((!filter.module.empty() && run->module != filter.module) || (!filter.job.empty() && run->job != filter.job) ||
          (!filter.trigger.empty() && run->trigger != filter.trigger) || (filter.status && run->status != *filter.status))
        continue;
      const int index = result.total++;
      if (index >= (page - 1) * page_size && index < page * page_size) result.runs.push_back(*run);
    }
    done(std::move(result));
  });
}

void FakeJobs::GetRun(const std::string& id, Done<RunView> done) {
  loop_.Post([this, id, done = std::move(done)] {
    const RunView* run = Find(id);
    if (run == nullptr) return done(Error("RUN_NOT_FOUND", "There is no run \"" + id + "\"."));
    done(*run);
  });
}

void FakeJobs::ListLogs(const std::string& id, int64_t, int, Done<std::vector<RunLogLine>> done) {
  loop_.Post([this, id, done = std::move(done)] {
    if (Find(id) == nullptr) return done(Error("RUN_NOT_FOUND", "There is no run \"" + id + "\"."));
    done(std::vector<RunLogLine>());
  });
}

void FakeJobs::Cancel(const std::string& id, Millis, AuditRecord, Done<RunView> done) {
  loop_.Post([this, id, done = std::move(done)] {
    RunView* run = Find(id);
    if (run == nullptr) return done(Error("RUN_NOT_FOUND", "There is no run \"" + id + "\"."));
    if (run->status == RunStatus::kRunning) End(*run, RunStatus::kCancelled);
    if (run->status != RunStatus::kCancelled) return done(Error("RUN_ENDED", "The run has ended."));
    done(*run);
  });
}

void FakeJobs::KeepArtifact(const std::string&, ArtifactUpload upload, Done<Artifact> done) {
  loop_.Post([this, upload = std::move(upload), done = std::move(done)] {
    RunView* run = Find(upload.run_id);
    if (run == nullptr) return done(absl::FailedPreconditionError("There is no such run."));
    run->artifacts.push_back({upload.name, upload.content_type, static_cast<int64_t>(upload.data.size()), clock_.Wall(),
                              static_cast<int64_t>(artifacts_.size())});
    artifacts_.push_back(upload.data);
    done(run->artifacts.back());
  });
}

void FakeJobs::FindArtifact(const std::string& run_id, const std::string& name, Done<Artifact> done) {
  loop_.Post([this, run_id, name, done = std::move(done)] {
    RunView* run = Find(run_id);
    if (run == nullptr) return done(Error("RUN_NOT_FOUND", "There is no run \"" + run_id + "\"."));
    const auto found = std::find_if(run->artifacts.begin(), run->artifacts.end(), [&](const Artifact& a) { return a.name == name; });
    found == run->artifacts.end() ? done(Error("ARTIFACT_NOT_FOUND", "There is no artifact \"" + name + "\".")) : done(*found);
  });
}

void FakeJobs::ReadArtifact(const Artifact& artifact, int part, Done<std::string> done) {
  loop_.Post([this, artifact, part, done = std::move(done)] {
    done(artifacts_[static_cast<size_t>(artifact.key)].substr(static_cast<size_t>(part) * limits::kArtifactPart, limits::kArtifactPart));
  });
}

void FakeJobs::Follow(const std::string& id, int64_t after, std::function<void()> wake, Done<std::shared_ptr<RunFollower>> done) {
  loop_.Post([this, id, after, wake = std::move(wake), done = std::move(done)] {
    const RunView* run = Find(id);
    if (run == nullptr) return done(Error("RUN_NOT_FOUND", "There is no run \"" + id + "\"."));
    done(followers_.Add(id, after, wake));
    followers_.Tell(*run, {}, /*stored=*/true);
  });
}

void FakeJobs::Enqueue(const std::string& module, EnqueueRequest request, Done<Enqueued> done) {
  Run(module, request.job, request.payload_json, Millis(0), std::nullopt, [done = std::move(done)](absl::StatusOr<RunView> run) {
    run.ok() ? done(Enqueued{run->id, true}) : done(run.status());
  });
}

void FakeJobs::Hold(bool hold) {
  loop_.Post([this, hold] {
    hold_ = hold;
    if (hold) return;
    for (RunView& run : runs_) {
      if (run.status == RunStatus::kRunning) End(run, fail_ ? RunStatus::kFailed : RunStatus::kSucceeded);
    }
  });
}

void FakeJobs::FailRuns(bool fail) {
  loop_.Post([this, fail] { fail_ = fail; });
}

RunView* FakeJobs::Find(const std::string& id) {
  const auto found = std::find_if(runs_.begin(), runs_.end(), [&](const RunView& run) { return run.id == id; });
  return found == runs_.end() ? nullptr : &*found;
}

void FakeJobs::End(RunView& run, RunStatus status) {
  run.status = status;
  run.finished_at = clock_.Wall();
  if (status == RunStatus::kSucceeded) {
    run.progress = 1;
    run.result_json = run.payload_json;
  } else {
    run.error_code = "JOB_FAILED";
    run.error_message = "It was told to fail.";
    run.error_stack = "fake_jobs.cc";
  }
  followers_.Tell(run, {});
  const auto [first, last] = waiters_.equal_range(run.id);
  std::vector<std::shared_ptr<Waiter>> ready;
  for (auto it = first; it != last; ++it) ready.push_back(it->second);
  waiters_.erase(first, last);
  for (const auto& waiter : ready) {
    loop_.Cancel(waiter->timer);
    waiter->done(run);
  }
}

}  // namespace bulkhead
