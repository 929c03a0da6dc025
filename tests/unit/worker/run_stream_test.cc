// Runs by one stream and by a call each, against a module that is a gRPC server of this test.
#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <condition_variable>
#include <future>
#include <mutex>

#include "bulkhead/module/v1/module.grpc.pb.h"
#include "gtest/gtest.h"
#include "supervisor/worker/control.h"

namespace bulkhead {
namespace {

namespace pb = ::bulkhead::module::v1;
using namespace std::chrono_literals;

// Answers a run "echo" with its payload at once, and "hold" not at all; "break" ends the stream.
class Served final : public pb::Module::Service {
 public:
  explicit Served(bool offers) : offers_(offers) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("unix:" + path_, grpc::InsecureServerCredentials());
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~Served() override {
    server_->Shutdown(std::chrono::system_clock::now());
    unlink(path_.c_str());
  }

  grpc::Status Initialize(grpc::ServerContext*, const pb::InitializeRequest*, pb::InitializeResponse* response) override {
    response->set_run_jobs(offers_);
    return grpc::Status::OK;
  }
  grpc::Status RunJob(grpc::ServerContext*, const pb::RunJobRequest* request, grpc::ServerWriter<pb::RunJobUpdate>* writer) override {
    Note([&] { ++calls_; });
    pb::RunJobUpdate update;
    update.mutable_result()->set_result_json(request->payload_json());
    writer->Write(update);
    return grpc::Status::OK;
  }
  grpc::Status RunJobs(grpc::ServerContext* context, grpc::ServerReaderWriter<pb::RunJobsUpdate, pb::RunJobsRequest>* stream) override {
    const auto token = context->client_metadata().find("x-bulkhead-token");
    if (token == context->client_metadata().end() || token->second != "token") return {grpc::StatusCode::UNAUTHENTICATED, "no token"};
    Note([&] { ++streams_; });
    pb::RunJobsRequest request;
    while (stream->Read(&request)) {
      pb::RunJobsUpdate updates;
      bool breaks = false;
      for (const auto& run : request.begin()) {
        breaks |= run.job() == "break";
        if (run.job() != "echo") continue;
        for (bool last : {false, true}) {
          auto& of = *updates.add_updates();
          of.set_fence(run.fence());
          if (last) {
            of.mutable_update()->mutable_result()->set_result_json(run.payload_json());
          } else {
            of.mutable_update()->mutable_log()->set_message("hears");
          }
        }
      }
      Note([&] {
        begun_ += request.begin_size();
        cancelled_.insert(cancelled_.end(), request.cancel().begin(), request.cancel().end());
      });
      if (updates.updates_size() > 0) stream->Write(updates);
      if (breaks) return {grpc::StatusCode::INTERNAL, "as it was told"};
    }
    return grpc::Status::OK;
  }

  bool Await(const std::function<bool()>& condition) {
    std::unique_lock lock(mutex_);
    return noted_.wait_for(lock, 10s, condition);
  }
  const std::string& path() const { return path_; }
  int calls_ = 0, streams_ = 0, begun_ = 0;  // under the lock of Await()
  std::vector<int64_t> cancelled_;

 private:
  void Note(const std::function<void()>& note) {
    std::lock_guard lock(mutex_);
    note();
    noted_.notify_all();
  }
  const bool offers_;
  const std::string path_ = testing::TempDir() + "/runs." + std::to_string(getpid());
  std::unique_ptr<grpc::Server> server_;
  std::mutex mutex_;
  std::condition_variable noted_;
};

struct OneRun {
  std::shared_ptr<JobCall> call;
  std::future<absl::Status> ended;
  std::shared_ptr<std::vector<std::string>> said = std::make_shared<std::vector<std::string>>();
};

class RunStreamTest : public testing::Test {
 protected:
  std::shared_ptr<ControlPort> Port(const Served& served) {
    auto port = ControlPort::Open(served.path(), "token");
    std::promise<absl::Status> initialized;
    port->Initialize({}, 5s, [&](absl::Status status, auto) { initialized.set_value(status); });
    EXPECT_TRUE(initialized.get_future().get().ok());
    return port;
  }
  OneRun Begin(ControlPort& port, int64_t fence, const std::string& job, const std::string& payload = "null") {
    pb::RunJobRequest request;
    request.set_fence(fence);
    request.set_job(job);
    request.set_payload_json(payload);
    auto ended = std::make_shared<std::promise<absl::Status>>();
    OneRun run;
    run.ended = ended->get_future();
    run.call = port.RunJob(
        request, 30s,
        [said = run.said](const pb::RunJobUpdate& update) { said->push_back(update.has_log() ? update.log().message() : update.result().result_json()); },
        [ended](absl::Status status) { ended->set_value(std::move(status)); });
    port.Flush();
    return run;
  }
  static absl::Status End(OneRun& run) {
    if (run.ended.wait_for(10s) != std::future_status::ready) return absl::DeadlineExceededError("it does not end");
    return run.ended.get();
  }
};

TEST_F(RunStreamTest, ManyRunsGoByOneStreamAndEachHearsItsOwn) {
  Served served(true);
  auto port = Port(served);
  std::vector<OneRun> runs;
  for (int i = 0; i < 500; ++i) runs.push_back(Begin(*port, i, "echo", std::to_string(i)));
  for (int i = 0; i < 500; ++i) {
    ASSERT_TRUE(End(runs[i]).ok());
    EXPECT_EQ(*runs[i].said, (std::vector<std::string>{"hears", std::to_string(i)}));
  }
  EXPECT_TRUE(served.Await([&] { return served.streams_ == 1 && served.calls_ == 0 && served.begun_ == 500; }));
}

TEST_F(RunStreamTest, AModuleThatDoesNotOfferTheStreamIsAskedRunByRun) {
  Served served(false);
  auto port = Port(served);
  OneRun one = Begin(*port, 1, "echo", "7"), two = Begin(*port, 2, "echo", "8");
  EXPECT_TRUE(End(one).ok());
  EXPECT_TRUE(End(two).ok());
  EXPECT_EQ(*two.said, (std::vector<std::string>{"8"}));
  EXPECT_TRUE(served.Await([&] { return served.streams_ == 0 && served.calls_ == 2; }));
}

TEST_F(RunStreamTest, ACancelledRunEndsAtOnceAndTheModuleIsTold) {
  Served served(true);
  auto port = Port(served);
  OneRun held = Begin(*port, 5, "hold"), other = Begin(*port, 6, "hold");
  ASSERT_TRUE(served.Await([&] { return served.begun_ == 2; }));
  held.call->Cancel();
  held.call->Cancel();
  EXPECT_EQ(End(held).code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(served.Await([&] { return served.cancelled_ == std::vector<int64_t>{5}; }));
  EXPECT_EQ(other.ended.wait_for(50ms), std::future_status::timeout);
}

TEST_F(RunStreamTest, AStreamThatBreaksLosesItsRunsAndTheNextRunHasAnotherOne) {
  Served served(true);
  auto port = Port(served);
  OneRun held = Begin(*port, 1, "hold");
  ASSERT_TRUE(served.Await([&] { return served.begun_ == 1; }));
  OneRun breaks = Begin(*port, 2, "break");
  EXPECT_EQ(End(held).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(End(breaks).code(), absl::StatusCode::kUnavailable);
  held.call->Cancel();
  OneRun next = Begin(*port, 3, "echo", "9");
  EXPECT_TRUE(End(next).ok());
  EXPECT_TRUE(served.Await([&] { return served.streams_ == 2; }));
}

TEST_F(RunStreamTest, TheStreamEndsWithThePort) {
  Served served(true);
  auto port = Port(served);
  OneRun held = Begin(*port, 1, "hold");
  ASSERT_TRUE(served.Await([&] { return served.begun_ == 1; }));
  port.reset();
  EXPECT_EQ(End(held).code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace bulkhead
