// For the tests of jobs: workers that are scripted by the test, and one supervisor's jobs on a real PostgreSQL.
#pragma once

#include <condition_variable>
#include <future>
#include <mutex>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "supervisor/base/status.h"
#include "supervisor/jobs/jobs.h"
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
};

// One supervisor's jobs: its own loop, pool and pool of connections.
class Node {
 public:
  Node(const std::string& name, const std::string& conninfo)
      : database_(conninfo, 4),
        pool_(3, 1'000),
        jobs_(Jobs::Make(loop_, pool_, database_, Clock::Real(), {.node = name})),
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
    for (auto& [instance, port] : workers) module->workers.push_back({.slot = 0, .instance = instance, .control = port});
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
    jobs_->ListRuns("m", job, status, page, size, [&](absl::StatusOr<RunPage> runs) { answer.set_value(std::move(runs)); });
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
