#include "job_runs.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <system_error>
#include <thread>
#include <utility>

#include "job_run.h"

namespace bulkhead::sdk {

namespace pb = ::bulkhead::module::v1;

namespace {

constexpr size_t kMaxMessage = 1 << 20;  // bytes of updates in one message of RunJobs, but for the one that goes beyond it

// The call RunJob. Owned by gRPC until OnDone, and by its run.
class OneReactor final : public JobRuns::One, public RunChannel, public std::enable_shared_from_this<OneReactor> {
 public:
  void Keep() { keep_ = shared_from_this(); }
  // Before the call is answered with this.
  void Carry(std::weak_ptr<JobRun> run) { run_ = std::move(run); }

  void Put(int64_t, pb::RunJobUpdate update, bool last) override {
    std::lock_guard lock(mutex_);
    queue_.push_back(std::move(update));
    closed_ |= last;
  }
  // Starts the next write, or ends the call; gRPC wants one at a time, and no lock held.
  void Pump() override {
    bool finish = false;
    {
      std::lock_guard lock(mutex_);
      if (writing_ || finished_ || (queue_.empty() && !closed_)) return;
      if (queue_.empty()) {
        finished_ = finish = true;
      } else {
        current_ = std::move(queue_.front());
        queue_.pop_front();
        writing_ = true;
      }
    }
    if (finish) return Finish(grpc::Status::OK);
    StartWrite(&current_);
  }

  void OnCancel() override {
    if (auto run = run_.lock()) run->Cancel(false);
  }
  void OnWriteDone(bool ok) override {
    {
      std::lock_guard lock(mutex_);
      writing_ = false;
      if (!ok) queue_.clear();
    }
    Pump();
  }
  void OnDone() override { keep_.reset(); }

 private:
  std::mutex mutex_;
  std::deque<pb::RunJobUpdate> queue_;
  pb::RunJobUpdate current_;
  bool writing_ = false, closed_ = false, finished_ = false;
  std::weak_ptr<JobRun> run_;
  std::shared_ptr<OneReactor> keep_;
};

}  // namespace

struct JobRuns::State {
  struct Task {
    std::shared_ptr<JobRun> run;
    const JobHandler* handler = nullptr;
  };
  std::mutex mutex;
  std::condition_variable idle, work;
  std::set<std::shared_ptr<JobRun>> running;  // until the handler has returned
  std::deque<Task> tasks;                     // of these, those that no thread has taken yet
  size_t free_threads = 0;
  bool waking = false;  // one of these is on its way to what there is to do: it wakes the next one, if there is still something then
  std::set<std::shared_ptr<RunChannel>> unsent;  // have last words of runs, and wait for a free thread to send them together
  int threads = 0;
  std::set<std::shared_ptr<RunsReactor>> calls;  // RunJobs
  bool interrupted = false, over = false, ended = false;
};

// The call RunJobs. Owned by gRPC until OnDone, and by its runs. What they say while a message is being written is the next one.
class RunsReactor final : public JobRuns::Many, public RunChannel, public std::enable_shared_from_this<RunsReactor> {
 public:
  RunsReactor(std::shared_ptr<JobRuns::State> state, std::function<JobSurroundings()> around) : state_(std::move(state)), around_(std::move(around)) {}

  void Open() {
    keep_ = shared_from_this();
    StartRead(&request_);
  }
  // Ends the call when everything has been sent.
  void End() {
    {
      std::lock_guard lock(mutex_);
      ending_ = true;
    }
    Pump();
  }

  void Put(int64_t fence, pb::RunJobUpdate update, bool last) override {
    std::lock_guard lock(mutex_);
    if (broken_ || finished_) return;
    if (last) runs_.erase(fence);
    queue_.emplace_back(fence, std::move(update));
  }
  void Pump() override {
    bool finish = false;
    {
      std::lock_guard lock(mutex_);
      if (writing_ || finished_ || (queue_.empty() && !ending_)) return;
      if (queue_.empty()) {
        finished_ = finish = true;
      } else {
        Fill();
        writing_ = true;
      }
    }
    if (finish) return Finish(grpc::Status::OK);
    StartWrite(&current_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      CancelAll();
      return End();
    }
    for (const pb::RunJobRequest& request : request_.begin()) {
      const JobSurroundings around = around_();
      auto run = std::make_shared<JobRun>(request, shared_from_this(), around.host);
      {
        std::lock_guard lock(mutex_);
        runs_[request.fence()] = run;
      }
      JobRuns::Start(state_, run, request, around.jobs);
    }
    for (int64_t fence : request_.cancel()) {
      std::shared_ptr<JobRun> run;
      {
        std::lock_guard lock(mutex_);
        if (auto found = runs_.find(fence); found != runs_.end()) run = found->second.lock();
      }
      if (run) run->Cancel(false);
    }
    {
      std::lock_guard lock(mutex_);
      if (finished_) return;
    }
    request_.Clear();
    StartRead(&request_);
  }
  void OnCancel() override { CancelAll(); }
  void OnWriteDone(bool ok) override {
    {
      std::lock_guard lock(mutex_);
      writing_ = false;
      if (!ok) {
        broken_ = true;
        queue_.clear();
      }
    }
    Pump();
  }
  void OnDone() override {
    CancelAll();
    {
      std::lock_guard lock(state_->mutex);
      state_->calls.erase(shared_from_this());
    }
    keep_.reset();
  }

 private:
  void Fill() {
    current_.Clear();
    size_t bytes = 0;
    for (; !queue_.empty() && bytes < kMaxMessage; queue_.pop_front()) {
      auto& [fence, update] = queue_.front();
      bytes += update.ByteSizeLong();
      pb::RunJobsUpdate::Of& of = *current_.add_updates();
      of.set_fence(fence);
      *of.mutable_update() = std::move(update);
    }
  }
  void CancelAll() {
    std::map<int64_t, std::weak_ptr<JobRun>> runs;
    {
      std::lock_guard lock(mutex_);
      runs.swap(runs_);
    }
    for (auto& [fence, weak] : runs) {
      if (auto run = weak.lock()) run->Cancel(false);
    }
  }

  const std::shared_ptr<JobRuns::State> state_;
  const std::function<JobSurroundings()> around_;
  pb::RunJobsRequest request_;
  std::mutex mutex_;
  std::map<int64_t, std::weak_ptr<JobRun>> runs_;  // by fence, until their last word
  std::deque<std::pair<int64_t, pb::RunJobUpdate>> queue_;
  pb::RunJobsUpdate current_;
  bool writing_ = false, ending_ = false, broken_ = false, finished_ = false;
  std::shared_ptr<RunsReactor> keep_;
};

JobRuns::JobRuns() : state_(std::make_shared<State>()) {}

JobRuns::~JobRuns() {
  std::lock_guard lock(state_->mutex);
  state_->ended = true;
  state_->work.notify_all();
}

JobRuns::One* JobRuns::Begin(const pb::RunJobRequest& request, const JobSurroundings& around) {
  auto reactor = std::make_shared<OneReactor>();
  reactor->Keep();
  auto run = std::make_shared<JobRun>(request, reactor, around.host);
  reactor->Carry(run);
  Start(state_, run, request, around.jobs);
  return reactor.get();
}

JobRuns::Many* JobRuns::BeginMany(std::function<JobSurroundings()> around) {
  auto reactor = std::make_shared<RunsReactor>(state_, std::move(around));
  bool over = false;
  {
    std::lock_guard lock(state_->mutex);
    over = state_->over;
    if (!over) state_->calls.insert(reactor);
  }
  reactor->Open();
  if (over) reactor->End();
  return reactor.get();
}

void JobRuns::Start(const std::shared_ptr<State>& state, const std::shared_ptr<JobRun>& run, const pb::RunJobRequest& request, const Jobs* jobs) {
  const auto refuse = [&](std::string_view code, std::string_view message, bool retryable) {
    run->Fail(code, message, "", retryable);
    run->channel()->Pump();
  };
  const JobHandler* handler = jobs ? jobs->Find(request.job()) : nullptr;
  if (!jobs) return refuse("NOT_STARTED", "the module has not started", true);
  if (!handler) return refuse("JOB_NOT_FOUND", "the module has no handler for the job " + request.job(), false);
  if (!run->Prepare(request)) return refuse("INVALID_ARGUMENT", "payload or config is not JSON", false);
  std::string_view code, why;
  {
    std::lock_guard lock(state->mutex);
    if (state->interrupted) {
      code = "INTERRUPTED", why = "the module is stopping";
    } else if (std::count_if(state->running.begin(), state->running.end(), [](const auto& one) { return !one->closed(); }) >= kMaxConcurrentJobs) {
      code = "OVERLOADED", why = "the module has 16 runs already";
    } else if (!GetThread(state)) {
      code = "OVERLOADED", why = "no thread could be started";
    } else {
      state->running.insert(run);
      state->tasks.push_back({run, handler});
      WakeOne(*state);
    }
  }
  if (!code.empty()) refuse(code, why, true);
}

// A thread that is free, a new one, or one whose run has said its last word. Under the lock.
bool JobRuns::GetThread(const std::shared_ptr<State>& state) {
  if (state->free_threads > state->tasks.size() || state->threads >= kMaxConcurrentJobs) return true;
  try {
    std::thread([state] { Work(*state); }).detach();
  } catch (const std::system_error&) {  // the limit on processes
    return false;
  }
  ++state->threads;
  return true;
}

// Under the lock. Of many short runs one thread may do the next before another has woken.
void JobRuns::WakeOne(State& state) {
  if (!state.waking && state.free_threads > 0 && !(state.tasks.empty() && state.unsent.empty())) {
    state.waking = true;
    state.work.notify_one();
  }
}

// A thread that has woken sends what others have left unsent; so does one that finds nothing else to do, or nobody else to do it. So what
// many short runs say is in few messages, and none waits for the handler of another run.
void JobRuns::Work(State& state) {
  std::unique_lock lock(state.mutex);
  bool woken = false;
  while (!state.ended) {
    if (!state.unsent.empty() && (woken || state.tasks.empty() || state.free_threads == 0)) {
      auto unsent = std::exchange(state.unsent, {});
      lock.unlock();
      for (const auto& channel : unsent) channel->Pump();
      unsent.clear();
      lock.lock();
      continue;
    }
    woken = false;
    if (state.tasks.empty()) {
      ++state.free_threads;
      state.work.wait(lock);
      --state.free_threads;
      state.waking = false;
      woken = true;
      continue;
    }
    State::Task task = std::move(state.tasks.front());
    state.tasks.pop_front();
    WakeOne(state);
    lock.unlock();
    task.run->Execute(*task.handler);
    lock.lock();
    state.running.erase(task.run);
    state.unsent.insert(task.run->channel());
    if (state.running.empty()) state.idle.notify_all();
    lock.unlock();
    task = {};
    lock.lock();
  }
}

void JobRuns::Interrupt() {
  std::lock_guard lock(state_->mutex);
  state_->interrupted = true;
  for (const auto& run : state_->running) run->Cancel(true);
}

bool JobRuns::WaitIdle(std::chrono::steady_clock::time_point until) {
  std::unique_lock lock(state_->mutex);
  return state_->idle.wait_until(lock, until, [&] { return state_->running.empty(); });
}

std::vector<int64_t> JobRuns::Running() {
  std::lock_guard lock(state_->mutex);
  std::vector<int64_t> fences;
  for (const auto& run : state_->running) fences.push_back(run->fence());
  return fences;
}

void JobRuns::Abandon() {
  std::set<std::shared_ptr<RunsReactor>> calls;
  std::set<std::shared_ptr<JobRun>> running;
  {
    std::lock_guard lock(state_->mutex);
    state_->over = true;
    calls = state_->calls;
    running = state_->running;
  }
  for (const auto& run : running) {
    run->Fail("INTERRUPTED", "the module stopped before the run ended", "", true);
    run->channel()->Pump();
  }
  for (const auto& call : calls) call->End();
}

}  // namespace bulkhead::sdk
