// Jobs in memory, without a database or workers: a run ends when a test says so, or at once. Knows modules through the
// Directory that it adopts, as the real one does. Answers come on the loop. Link `test_fakes`.
#pragma once

#include <map>
#include <string>

#include "supervisor/jobs/followers.h"
#include "supervisor/jobs/jobs.h"

namespace bulkhead {

class FakeJobs : public Jobs {
 public:
  FakeJobs(Loop& loop, const Clock& clock) : loop_(loop), clock_(clock) {}

  void Adopt(std::shared_ptr<const Directory> directory, std::function<void()> adopted) override;
  void Drain(const std::string& instance, std::function<void()> drained) override;
  void Start() override {}
  void Stop(Millis grace, std::function<void()> stopped) override;
  void WorkerLeaving(const std::string& instance) override { WorkerGone(instance); }
  void WorkerGone(const std::string& instance) override;
  void ListJobs(const std::string& module, std::shared_ptr<const Manifest> manifest, Done<std::vector<JobView>> done) override;
  void Run(const std::string& module, const std::string& job, std::string payload_json, Millis wait, std::optional<AuditRecord> audit,
           Done<RunView> done) override;
  void ListRuns(const RunFilter& filter, int page, int page_size, Done<RunPage> done) override;
  void GetRun(const std::string& id, Done<RunView> done) override;
  void ListLogs(const std::string& id, int64_t after, int limit, Done<std::vector<RunLogLine>> done) override;  // none
  void Cancel(const std::string& id, Millis wait, AuditRecord audit, Done<RunView> done) override;              // at once
  void KeepArtifact(const std::string& module, ArtifactUpload upload, Done<Artifact> done) override;
  void FindArtifact(const std::string& run_id, const std::string& name, Done<Artifact> done) override;
  void ReadArtifact(const Artifact& artifact, int part, Done<std::string> done) override;
  void Follow(const std::string& id, int64_t after, std::function<void()> wake, Done<std::shared_ptr<RunFollower>> done) override;
  void Enqueue(const std::string& module, EnqueueRequest request, Done<Enqueued> done) override;

  // Knobs; any thread. Runs end at once with their payload as the result, unless held; letting go ends them.
  void Hold(bool hold);
  void FailRuns(bool fail);  // with code JOB_FAILED and a stack

 private:
  struct Waiter {
    Done<RunView> done;
    Loop::TimerId timer = 0;
  };
  void End(RunView& run, RunStatus status);
  RunView* Find(const std::string& id);

  Loop& loop_;
  const Clock& clock_;
  std::shared_ptr<const Directory> directory_ = std::make_shared<Directory>();
  std::vector<RunView> runs_;                                    // oldest first
  std::vector<std::string> artifacts_;                           // the bytes of each, by key
  RunFollowers followers_;
  std::multimap<std::string, std::shared_ptr<Waiter>> waiters_;  // by run
  bool hold_ = false;
  bool fail_ = false;
};

}  // namespace bulkhead
