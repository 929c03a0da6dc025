// Many runs by the one call RunJobs.
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "harness.h"

namespace bulkhead::sdk_test {
namespace {

pb::RunJobRequest Job(int64_t fence, const std::string& name, const std::string& payload = "null") {
  pb::RunJobRequest request;
  request.set_run_id("run-" + std::to_string(fence));
  request.set_job(name);
  request.set_payload_json(payload);
  request.set_attempt(1);
  request.set_fence(fence);
  request.set_deadline_ms(60'000);
  return request;
}

class Stream {
 public:
  explicit Stream(ModuleProcess& module, const char* token = nullptr)
      : call_(token == nullptr ? module.Call(std::chrono::seconds(30)) : module.Call(std::chrono::seconds(30), token)),
        stream_(module.stub().RunJobs(call_.get())) {}

  void Begin(const std::vector<pb::RunJobRequest>& runs) {
    pb::RunJobsRequest request;
    for (const auto& run : runs) *request.add_begin() = run;
    EXPECT_TRUE(stream_->Write(request));
  }
  void Cancel(int64_t fence) {
    pb::RunJobsRequest request;
    request.add_cancel(fence);
    EXPECT_TRUE(stream_->Write(request));
  }
  // Reads until so many have ended; the last word of each.
  std::map<int64_t, pb::RunJobUpdate> ReadEnds(size_t count) {
    std::map<int64_t, pb::RunJobUpdate> ends;
    pb::RunJobsUpdate updates;
    while (ends.size() < count && stream_->Read(&updates)) {
      ++messages_;
      for (const auto& of : updates.updates()) {
        said_.insert(of.fence());
        const bool ended = of.update().has_result() || of.update().has_error();
        EXPECT_TRUE(!ended || ends.emplace(of.fence(), of.update()).second) << "two ends of one run";
      }
    }
    EXPECT_EQ(ends.size(), count);
    return ends;
  }
  void AwaitWord(int64_t fence) {
    pb::RunJobsUpdate updates;
    while (!said_.contains(fence)) {
      ASSERT_TRUE(stream_->Read(&updates));
      for (const auto& of : updates.updates()) said_.insert(of.fence());
    }
  }
  void Break() { call_->TryCancel(); }
  grpc::Status Finish() {
    pb::RunJobsUpdate updates;
    while (stream_->Read(&updates)) {
    }
    return stream_->Finish();
  }
  int messages() const { return messages_; }

 private:
  std::unique_ptr<grpc::ClientContext> call_;
  std::unique_ptr<grpc::ClientReaderWriter<pb::RunJobsRequest, pb::RunJobsUpdate>> stream_;
  std::set<int64_t> said_;
  int messages_ = 0;
};

std::set<int64_t> Running(ModuleProcess& module) {
  pb::RunningJobsResponse response;
  EXPECT_TRUE(module.stub().RunningJobs(module.Call().get(), {}, &response).ok());
  return {response.fences().begin(), response.fences().end()};
}

TEST(Runs, TheCallWantsTheToken) {
  ModuleProcess module;
  EXPECT_EQ(Stream(module, "wrong").Finish().error_code(), grpc::StatusCode::UNAUTHENTICATED);
}

TEST(Runs, ManyAreCarriedByOneCallSixteenAtATime) {
  ModuleProcess module;
  Stream stream(module);
  for (int64_t round = 0; round < 50; ++round) {
    std::vector<pb::RunJobRequest> runs;
    for (int64_t i = 0; i < 16; ++i) runs.push_back(Job(round * 16 + i, "add", R"({"a":1,"b":)" + std::to_string(i) + "}"));
    stream.Begin(runs);
    for (const auto& [fence, end] : stream.ReadEnds(16)) {
      EXPECT_NE(end.result().result_json().find("\"sum\":" + std::to_string(1 + fence % 16)), std::string::npos) << end.ShortDebugString();
    }
  }
  EXPECT_LT(stream.messages(), 50 * 16 * 3) << "what is said meanwhile is one message";
}

TEST(Runs, EachFailsByItself) {
  ModuleProcess module;
  Stream stream(module);
  stream.Begin({Job(1, "fail"), Job(2, "unknown"), Job(3, "add", "{"), Job(4, "throw"), Job(5, "add", R"({"a":1,"b":2})")});
  auto ends = stream.ReadEnds(5);
  EXPECT_EQ(ends[1].error().code(), "NO_DISK");
  EXPECT_EQ(ends[2].error().code(), "JOB_NOT_FOUND");
  EXPECT_EQ(ends[3].error().code(), "INVALID_ARGUMENT");
  EXPECT_EQ(ends[4].error().code(), "INTERNAL");
  EXPECT_TRUE(ends[5].has_result());
}

TEST(Runs, OneIsCancelledAndTheOthersGoOn) {
  ModuleProcess module;
  Stream stream(module);
  stream.Begin({Job(1, "wait"), Job(2, "wait")});
  stream.AwaitWord(1);
  stream.AwaitWord(2);
  stream.Cancel(1);
  stream.Cancel(77);  // of which nobody knows
  EXPECT_EQ(stream.ReadEnds(1)[1].error().code(), "CANCELLED");
  EXPECT_TRUE(Eventually([&] { return Running(module) == std::set<int64_t>{2}; }));
}

TEST(Runs, OneThatIsCancelledBeforeItHasAThreadDoesNotBegin) {
  ModuleProcess module;
  Link link(module.data_socket());
  Stream stream(module);
  pb::RunJobRequest late = Job(1, "wait");
  late.set_deadline_ms(0);
  stream.Begin({late});
  EXPECT_EQ(stream.ReadEnds(1)[1].error().code(), "CANCELLED");
  EXPECT_EQ(link.Ask("GET", "/cancelled").body, "0") << "the handler has never seen it";
}

TEST(Runs, ABrokenCallCancelsItsRunsAndAnotherOneTakesTheNext) {
  ModuleProcess module;
  {
    Stream stream(module);
    stream.Begin({Job(1, "wait"), Job(2, "hang")});
    stream.AwaitWord(1);
    stream.AwaitWord(2);
    stream.Break();
    EXPECT_EQ(stream.Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  EXPECT_TRUE(Eventually([&] { return Running(module) == std::set<int64_t>{2}; })) << "the one that does not look whether it was cancelled";
  Stream stream(module);
  stream.Begin({Job(3, "add", R"({"a":1,"b":2})")});
  EXPECT_TRUE(stream.ReadEnds(1)[3].has_result());
}

TEST(Runs, BeyondSixteenAtOnceARunIsRefused) {
  ModuleProcess module;
  Stream stream(module);
  std::vector<pb::RunJobRequest> runs;
  for (int64_t i = 1; i <= 17; ++i) runs.push_back(Job(i, "wait"));
  stream.Begin(runs);
  EXPECT_EQ(stream.ReadEnds(1)[17].error().code(), "OVERLOADED");
}

TEST(Runs, AStopInterruptsThemAndEndsTheCall) {
  ModuleProcess module;
  Stream stream(module);
  stream.Begin({Job(1, "wait"), Job(2, "hang")});
  stream.AwaitWord(1);
  stream.AwaitWord(2);
  EXPECT_TRUE(module.Stop(500).ok());
  auto ends = stream.ReadEnds(2);
  EXPECT_EQ(ends[1].error().code(), "INTERRUPTED");
  EXPECT_EQ(ends[2].error().code(), "INTERRUPTED") << "given up";
  EXPECT_TRUE(stream.Finish().ok());
  EXPECT_EQ(module.AwaitExit(), 0);
}

TEST(Runs, AnErrorIsCutToWhatIsKeptOfIt) {
  ModuleProcess module;
  Stream stream(module);
  stream.Begin({Job(1, "long-error")});
  EXPECT_EQ(stream.ReadEnds(1)[1].error().message().size(), 8u * 1024);
}

}  // namespace
}  // namespace bulkhead::sdk_test
