// For the tests of jobs: workers that are scripted by the test, and one supervisor's jobs on a real PostgreSQL.
#pragma once

#include <condition_variable>
#include <future>
#include <mutex>
#include <set>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "supervisor/base/status.h"
#include "supervisor/jobs/jobs.h"
#include "supervisor/jobs/run_store.h"
#include "tests/fakes/postgres_fixture.h"

namespace bulkhead::jobs_testing {

using namespace std::chrono_literals;

// One RunJob call as the module sees it.
class FakeRun : public JobCall {
 public:
  module::v1::RunJobRequest request;
  std::function<void(const module::v1::RunJobUpdate&)> update;

  void Progress(double fraction, const std::string& message) {
    module::v1::RunJobUpdate u;
    u.mutable_progress()->set_fraction(fraction);
    u.mutable_progress()->set_message(message);
    update(u);
  }
  void Log(const std::string& level, const std::string& message) {
    module::v1::RunJobUpdate u;
    u.mutable_log()->set_level(level);
    u.mutable_log()->set_message(message);
    update(u);
  }
  void Result(const std::string& json) {
    module::v1::RunJobUpdate u;
    u.mutable_result()->set_result_json(json);
    update(u);
    End(absl::OkStatus());
  }
  void Fail(const std::string& code, const std::string& message, bool retryable) {
    module::v1::RunJobUpdate u;
    u.mutable_error()->set_code(code);
    u.mutable_error()->set_message(message);
    u.mutable_error()->set_stack("at line 7");
    u.mutable_error()->set_retryable(retryable);
    update(u);
    End(absl::OkStatus());
  }
  void End(absl::Status status) {
    if (auto done = std::exchange(done_, nullptr)) done(std::move(status));
  }
  void Cancel() override {
    cancelled = true;
    End(absl::CancelledError());
  }
  std::atomic<bool> cancelled = false;
  std::function<void(absl::Status)> done_;
};

// A worker's control port that hands each run to the test.
class FakePort : public ControlPort {
 public:
  using Behaviour = std::function<void(std::shared_ptr<FakeRun>)>;
  void Initialize(const module::v1::InitializeRequest&, Millis, Done<module::v1::InitializeResponse>) override {}
  void Start(Millis, Done<module::v1::StartResponse>) override {}
  void Stop(Millis, Done<module::v1::StopResponse>) override {}
  void Health(Millis, Done<module::v1::HealthResponse>) override {}
  void Metrics(Millis, Done<module::v1::MetricsResponse>) override {}
  void Configure(const module::v1::ConfigureRequest&, Millis, Done<module::v1::ConfigureResponse>) override {}
  void DeliverEvents(const module::v1::DeliverEventsRequest&, Millis, Done<module::v1::DeliverEventsResponse>) override {}
  std::shared_ptr<JobCall> RunJob(const module::v1::RunJobRequest& request, Millis,
                                  std::function<void(const module::v1::RunJobUpdate&)> update,
                                  std::function<void(absl::Status)> done) override {
    auto run = std::make_shared<FakeRun>();
    run->request = request;
    run->update = std::move(update);
    run->done_ = std::move(done);
    Behaviour behaviour;
    {
      std::lock_guard lock(mutex_);
      runs_.push_back(run);
      behaviour = behaviour_;
    }
    came_.notify_all();
    if (behaviour) behaviour(run);
    return run;
  }
  // By default a module that can't tell; after Tell() those fences, until Let() takes them away.
  void RunningJobs(Millis timeout, Done<module::v1::RunningJobsResponse> done) override {
    module::v1::RunningJobsResponse response;
    {
      std::lock_guard lock(mutex_);
      ++asked_;
      for (int64_t fence : left_) response.add_fences(fence);
      if (tells_) return done(absl::OkStatus(), response);
    }
    ControlPort::RunningJobs(timeout, std::move(done));
  }
  void Tell(int64_t fence) {
    std::lock_guard lock(mutex_);
    tells_ = true;
    left_.insert(fence);
  }
  void Let(int64_t fence) {
    std::lock_guard lock(mutex_);
    left_.erase(fence);
  }
  int asked() {
    std::lock_guard lock(mutex_);
    return asked_;
  }
  // Called with each run as it begins; without one, runs wait for the test.
  void Answer(Behaviour behaviour) {
    std::lock_guard lock(mutex_);
    behaviour_ = std::move(behaviour);
  }
  // The n-th run (from 0), waiting for it.
  std::shared_ptr<FakeRun> Await(size_t n) {
    std::unique_lock lock(mutex_);
    const bool came = came_.wait_for(lock, 10s, [&] { return runs_.size() > n; });
    EXPECT_TRUE(came) << "run " << n << " did not begin";
    return came ? runs_[n] : nullptr;
  }
  size_t count() {
    std::lock_guard lock(mutex_);
    return runs_.size();
  }

 private:
  std::mutex mutex_;
  std::condition_variable came_;
  std::vector<std::shared_ptr<FakeRun>> runs_;
  Behaviour behaviour_;
  bool tells_ = false;
  int asked_ = 0;
  std::set<int64_t> left_;
};

// One supervisor's jobs: its own loop, pool and pool of connections.
class Node {
 public:
  Node(const std::string& name, const std::string& conninfo, bool alone = true)
      : database_(conninfo, 4),
        pool_(3, 1'000),
        jobs_(Jobs::Make(loop_, pool_, database_, Clock::Real(), {.node = name, .alone = alone})),
        thread_([this] { loop_.Run(); }) {
    OnLoop([&] { jobs_->Start(); });
  }
  ~Node() {
    if (!stopped_) Stop(0ms);
    OnLoop([&] { jobs_.reset(); });
    loop_.Stop();
    thread_.join();
    pool_.Shutdown();
  }

  void OnLoop(std::function<void()> task) {
    std::promise<void> done;
    loop_.Post([&] {
      task();
      done.set_value();
    });
    done.get_future().wait();
  }
  // The module "m" with these jobs on these workers; no workers: enabled, not ready.
  void Publish(std::vector<JobSpec> jobs, std::map<std::string, std::shared_ptr<ControlPort>> workers) {
    auto manifest = std::make_shared<Manifest>();
    manifest->name = "m";
    manifest->jobs = std::move(jobs);
    auto module = std::make_shared<DirectoryModule>();
    module->name = "m";
    module->manifest = manifest;
    for (auto& [instance, port] : workers) {
      module->workers.push_back({.slot = 0, .instance = instance, .control = port, .faulty = [this](WorkerFault, std::string why) {
                                   std::lock_guard lock(faults_mutex_);
                                   faults_.push_back(std::move(why));
                                 }});
    }
    auto directory = std::make_shared<Directory>();
    directory->modules["m"] = module;
    bool adopted = false;
    OnLoop([&] { jobs_->Adopt(directory, [&] { adopted = true; }); });
    EXPECT_TRUE(adopted);
  }
  absl::StatusOr<RunView> Run(const std::string& job, Millis wait, const std::string& payload = "null") {
    return Async(job, wait, payload).get();
  }
  std::future<absl::StatusOr<RunView>> Async(const std::string& job, Millis wait, const std::string& payload = "null") {
    auto answer = std::make_shared<std::promise<absl::StatusOr<RunView>>>();
    jobs_->Run("m", job, payload, wait, std::nullopt, [answer](absl::StatusOr<RunView> run) { answer->set_value(std::move(run)); });
    return answer->get_future();
  }
  absl::StatusOr<RunView> Get(const std::string& id) {
    std::promise<absl::StatusOr<RunView>> answer;
    jobs_->GetRun(id, [&](absl::StatusOr<RunView> run) { answer.set_value(std::move(run)); });
    return answer.get_future().get();
  }
  RunPage List(const std::string& job, std::optional<RunStatus> status = std::nullopt, int page = 1, int size = 50) {
    std::promise<absl::StatusOr<RunPage>> answer;
    jobs_->ListRuns({.module = "m", .job = job, .status = status}, page, size, [&](absl::StatusOr<RunPage> runs) { answer.set_value(std::move(runs)); });
    auto runs = answer.get_future().get();
    EXPECT_TRUE(runs.ok()) << runs.status();
    return runs.ok() ? *runs : RunPage();
  }
  // Polls the row until `wanted` holds.
  RunView Until(const std::string& id, const std::function<bool(const RunView&)>& wanted) {
    for (const Instant end = Clock::Real().Now() + 15s; Clock::Real().Now() < end;) {
      auto run = Get(id);
      if (run.ok() && wanted(*run)) return *run;
      std::this_thread::sleep_for(10ms);
    }
    ADD_FAILURE() << "the run " << id << " did not come that far";
    return {};
  }
  std::vector<std::string> faults() {
    std::lock_guard lock(faults_mutex_);
    return faults_;
  }
  // The module "m" as the registry has it, with these jobs, so that it may queue them.
  void Register(const std::string& handlers) {
    ASSERT_TRUE(database_.Run("INSERT INTO bulkhead_internal.uid_slots VALUES ('m', 1) ON CONFLICT DO NOTHING").ok());
    const auto made = database_.Run("INSERT INTO bulkhead_internal.modules (name, version, uid_slot, manifest) VALUES ('m', '1.0.0', 1, $1::json)"
                                    " ON CONFLICT (name) DO UPDATE SET manifest = excluded.manifest",
                                    {R"({"capabilities":{"jobs":{"handlers":)" + handlers + "}}}"});
    ASSERT_TRUE(made.ok()) << made.status();
  }
  absl::StatusOr<Enqueued> Enqueue(EnqueueRequest request) {
    std::promise<absl::StatusOr<Enqueued>> answer;
    jobs_->Enqueue("m", std::move(request), [&](absl::StatusOr<Enqueued> queued) { answer.set_value(std::move(queued)); });
    return answer.get_future().get();
  }
  absl::StatusOr<RunView> Cancel(const std::string& id, Millis wait) {
    std::promise<absl::StatusOr<RunView>> answer;
    AuditRecord audit{.by = SystemActor("n1"), .action = "jobs.cancel"};
    jobs_->Cancel(id, wait, audit, [&](absl::StatusOr<RunView> run) { answer.set_value(std::move(run)); });
    return answer.get_future().get();
  }
  void WorkerGone(const std::string& instance) {
    OnLoop([&] { jobs_->WorkerGone(instance); });
  }
  void Stop(Millis grace) {
    std::promise<void> stopped;
    loop_.Post([&] { jobs_->Stop(grace, [&] { stopped.set_value(); }); });
    EXPECT_EQ(stopped.get_future().wait_for(20s), std::future_status::ready);
    stopped_ = true;
  }
  Jobs& jobs() { return *jobs_; }
  Database& database() { return database_; }

 private:
  Loop loop_;
  Database database_;
  BlockingPool pool_;
  std::unique_ptr<Jobs> jobs_;
  std::thread thread_;
  bool stopped_ = false;
  std::mutex faults_mutex_;
  std::vector<std::string> faults_;
};

inline JobSpec Spec(const std::string& name, int retries = 0, const std::string& schedule = "") {
  JobSpec spec;
  spec.name = name;
  spec.retries = retries;
  spec.schedule = schedule;
  return spec;
}

class JobsTest : public testing::Test {
 protected:
  std::string conninfo_ = TestPostgres::Instance().FreshDatabase();
  std::shared_ptr<FakePort> port_ = std::make_shared<FakePort>();
};

}  // namespace bulkhead::jobs_testing
