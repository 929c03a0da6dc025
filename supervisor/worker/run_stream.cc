#include "supervisor/worker/run_stream.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <deque>
#include <unordered_map>
#include <utility>

#include "supervisor/base/guarded.h"

namespace bulkhead {
namespace {

namespace v1 = module::v1;

class Reactor final : public grpc::ClientBidiReactor<v1::RunJobsRequest, v1::RunJobsUpdate>,
                      public RunStream,
                      public std::enable_shared_from_this<Reactor> {
 public:
  void Start(v1::Module::Stub& stub, const std::string& token) {
    self_ = shared_from_this();
    context_.AddMetadata("x-bulkhead-token", token);
    stub.async()->RunJobs(&context_, this);
    AddHold();  // writes come from other threads than those of its callbacks
    StartRead(&update_);
    StartCall();
  }

  std::shared_ptr<JobCall> Begin(const v1::RunJobRequest& request, std::function<void(const v1::RunJobUpdate&)> update,
                                 std::function<void(absl::Status)> done) override {
    const bool taken = state_.With([&](State& state) {
      if (state.ended) return false;
      state.runs[request.fence()] = {std::move(update), std::move(done)};
      state.begin.push_back(request);
      return true;
    });
    if (!taken) return nullptr;
    return std::make_shared<OneRun>(shared_from_this(), request.fence());
  }
  void Flush() override { Pump(); }
  void Close() override { context_.TryCancel(); }

  void OnReadDone(bool ok) override {
    if (!ok) return Ended();
    for (const auto& of : update_.updates()) {
      const bool last = of.update().has_result() || of.update().has_error();
      // Of a run that was cancelled nothing is heard any more.
      const Run run = state_.With([&](State& state) {
        auto found = state.runs.find(of.fence());
        if (found == state.runs.end()) return Run();
        if (!last) return found->second;
        Run ended = std::move(found->second);
        state.runs.erase(found);
        return ended;
      });
      if (!run.update) continue;
      run.update(of.update());
      if (last) run.done(absl::OkStatus());
    }
    StartRead(&update_);
  }
  void OnWriteDone(bool ok) override {
    state_.With([](State& state) { state.writing = false; });
    if (ok) Pump();  // else the read fails as well
  }
  void OnDone(const grpc::Status& status) override {
    Ended();
    const auto runs = state_.With([](State& state) { return std::exchange(state.runs, {}); });
    // However it has ended: their handlers may go on.
    const absl::Status why = absl::UnavailableError("the stream of the module's runs has ended: " + status.error_message());
    for (const auto& [fence, run] : runs) run.done(why);
    self_.reset();
  }

 private:
  struct Run {
    std::function<void(const v1::RunJobUpdate&)> update;
    std::function<void(absl::Status)> done;
  };
  struct State {
    std::unordered_map<int64_t, Run> runs;  // by fence, until they have ended for us
    std::deque<v1::RunJobRequest> begin;
    std::vector<int64_t> cancel;
    bool writing = false, ended = false;
  };
  class OneRun final : public JobCall {
   public:
    OneRun(std::shared_ptr<Reactor> stream, int64_t fence) : stream_(std::move(stream)), fence_(fence) {}
    void Cancel() override { stream_->Cancel(fence_); }

   private:
    const std::shared_ptr<Reactor> stream_;
    const int64_t fence_;
  };

  void Cancel(int64_t fence) {
    Run run;
    state_.With([&](State& state) {
      auto found = state.runs.find(fence);
      if (found == state.runs.end()) return;
      run = std::move(found->second);
      state.runs.erase(found);
      // One that is not on its way yet need not go.
      const auto unsent = std::find_if(state.begin.begin(), state.begin.end(), [fence](const v1::RunJobRequest& r) { return r.fence() == fence; });
      if (unsent != state.begin.end()) {
        state.begin.erase(unsent);
      } else {
        state.cancel.push_back(fence);
      }
    });
    if (!run.done) return;
    Pump();
    run.done(absl::CancelledError("cancelled"));
  }

  // The next message, unless one is on its way. It is begun under the lock: behind Ended() none may be.
  void Pump() {
    state_.With([&](State& state) {
      if (state.writing || state.ended || (state.begin.empty() && state.cancel.empty())) return;
      request_.Clear();
      size_t bytes = 0;
      for (; !state.begin.empty() && bytes < limits::kMaxRunsMessage; state.begin.pop_front()) {
        bytes += state.begin.front().ByteSizeLong();
        *request_.add_begin() = std::move(state.begin.front());
      }
      // Behind the runs that they may be about.
      if (state.begin.empty()) {
        for (int64_t fence : std::exchange(state.cancel, {})) request_.add_cancel(fence);
      }
      state.writing = true;
      StartWrite(&request_);
    });
  }

  void Ended() {
    if (!state_.With([](State& state) { return std::exchange(state.ended, true); })) RemoveHold();
  }

  grpc::ClientContext context_;
  v1::RunJobsUpdate update_;
  v1::RunJobsRequest request_;  // of the one that writes
  Guarded<State> state_;
  std::shared_ptr<Reactor> self_;  // gRPC holds a bare pointer until OnDone
};

}  // namespace

std::shared_ptr<RunStream> RunStream::Open(module::v1::Module::Stub& stub, const std::string& token) {
  auto reactor = std::make_shared<Reactor>();
  reactor->Start(stub, token);
  return reactor;
}

}  // namespace bulkhead
