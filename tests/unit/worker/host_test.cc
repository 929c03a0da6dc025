// The host socket as a module finds it: the real server on a Unix socket, asked by a plain gRPC client.
#include "supervisor/worker/host.h"

#include <grpc/grpc.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <future>
#include <thread>

#include "bulkhead/host/v1/host.grpc.pb.h"
#include "supervisor/base/guarded.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

namespace v1 = host::v1;
using grpc::StatusCode;

// gRPC ends itself with its last object, and waits up to 10 s there when a long message was sent just before. It outlives the tests.
const bool kept_alive = (grpc_init(), true);

constexpr char kToken[] = "token-of-a-running-instance";
constexpr std::chrono::seconds kLimit{20};  // of one call; about hanging, not about speed

class HostTest : public testing::Test {
 protected:
  HostTest() {
    char name[] = "/tmp/bulkhead-host-XXXXXX";
    folder_ = mkdtemp(name);
    auto server = HostServer::Listen(socket(), {{"new-pricing", {.enabled = true}}, {"old", {}}});
    EXPECT_TRUE(server.ok()) << server.status();
    if (!server.ok()) return;
    server_ = *std::move(server);
    server_->SetInstance(kToken, "orders", true);
    server_->OnPublish([this](HostServer::PublishedEvent event, HostServer::PublishDone done) {
      published_.With([&](auto& all) { all.push_back(event); });
      if (event.topic == "order.stolen") return done(Error("INVALID_ARGUMENT", "not declared"));
      done(int64_t{42});
    });
    stub_ = v1::Host::NewStub(grpc::CreateChannel("unix:" + socket(), grpc::InsecureChannelCredentials()));
  }
  ~HostTest() override {
    if (server_) server_->Stop();
    std::filesystem::remove_all(folder_);
  }
  std::string socket() const { return folder_ + "/host"; }

  // One metadata entry for each token.
  static void Prepare(grpc::ClientContext& context, const std::vector<std::string>& tokens) {
    for (const std::string& token : tokens) context.AddMetadata("x-bulkhead-token", token);
    context.set_deadline(std::chrono::system_clock::now() + kLimit);
  }
  grpc::Status Publish(const std::vector<std::string>& tokens, const std::string& payload = "{}") {
    grpc::ClientContext context;
    Prepare(context, tokens);
    v1::PublishRequest request;
    request.set_payload_json(payload);
    v1::PublishResponse response;
    return stub_->Publish(&context, request, &response);
  }
  // The status of WatchFlags when it ends without a message.
  grpc::Status WatchRefused(const std::vector<std::string>& tokens) {
    grpc::ClientContext context;
    Prepare(context, tokens);
    auto stream = stub_->WatchFlags(&context, {});
    v1::Flags flags;
    EXPECT_FALSE(stream->Read(&flags));
    return stream->Finish();
  }

  std::string folder_;
  Guarded<std::vector<HostServer::PublishedEvent>> published_;
  std::unique_ptr<HostServer> server_;
  std::unique_ptr<v1::Host::Stub> stub_;
};

TEST_F(HostTest, WatchFlagsTellsTheFlagsAndStaysOpenUntilItIsCancelled) {
  grpc::ClientContext context;
  Prepare(context, {kToken});
  auto stream = stub_->WatchFlags(&context, {});
  v1::Flags flags;
  ASSERT_TRUE(stream->Read(&flags));
  EXPECT_EQ((std::map<std::string, bool>(flags.flags().begin(), flags.flags().end())),
            (std::map<std::string, bool>{{"new-pricing", true}, {"old", false}}));
  auto more = std::async(std::launch::async, [&] { return stream->Read(&flags); });
  EXPECT_EQ(more.wait_for(std::chrono::milliseconds(100)), std::future_status::timeout);
  context.TryCancel();
  EXPECT_FALSE(more.get());
  EXPECT_EQ(stream->Finish().error_code(), StatusCode::CANCELLED);
}

TEST_F(HostTest, NoTokenAWrongOneAndTwoAreUnauthenticated) {
  for (const std::vector<std::string>& tokens : {std::vector<std::string>{}, {""}, {"wrong"}, {std::string(kToken) + "x"}, {kToken, kToken}}) {
    EXPECT_EQ(Publish(tokens).error_code(), StatusCode::UNAUTHENTICATED);
    EXPECT_EQ(WatchRefused(tokens).error_code(), StatusCode::UNAUTHENTICATED);
  }
}

TEST_F(HostTest, AnEventIsPublishedInTheNameOfTheModuleWhoseTokenCameAndItsNumberOrTheRefusalIsTheAnswer) {
  const auto publish = [&](const std::string& topic, v1::PublishResponse& response) {
    grpc::ClientContext context;
    Prepare(context, {kToken});
    v1::PublishRequest request;
    request.set_topic(topic);
    request.set_key("k");
    request.set_payload_json(R"({"n":1})");
    return stub_->Publish(&context, request, &response);
  };
  v1::PublishResponse response;
  EXPECT_TRUE(publish("order.created", response).ok());
  EXPECT_EQ(response.id(), "42");
  const grpc::Status refused = publish("order.stolen", response);
  EXPECT_EQ(refused.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(refused.error_message(), "not declared");
  const auto all = published_.With([](auto& all) { return all; });
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].module, "orders");
  EXPECT_EQ(all[0].topic, "order.created");
  EXPECT_EQ(all[0].key, "k");
  EXPECT_EQ(all[0].payload_json, R"({"n":1})");
}

TEST_F(HostTest, TheTokenOfAnInstanceThatIsGoneIsUnauthenticated) {
  EXPECT_TRUE(Publish({kToken}).ok());
  server_->SetInstance(kToken, "orders", false);
  EXPECT_EQ(Publish({kToken}).error_code(), StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(WatchRefused({kToken}).error_code(), StatusCode::UNAUTHENTICATED);
}

TEST_F(HostTest, TheOtherCallsAreUnimplementedAndNamed) {
  auto ask = [&](const char* name, auto method, auto request, auto response) {
    grpc::ClientContext context;
    Prepare(context, {kToken});
    grpc::Status status = (stub_.get()->*method)(&context, request, &response);
    EXPECT_EQ(status.error_code(), StatusCode::UNIMPLEMENTED) << name;
    EXPECT_EQ(status.error_message(), std::string(name) + " is not offered by this version of the supervisor");
  };
  ask("Enqueue", &v1::Host::Stub::Enqueue, v1::EnqueueRequest(), v1::EnqueueResponse());
  ask("CacheGet", &v1::Host::Stub::CacheGet, v1::CacheGetRequest(), v1::CacheGetResponse());
  ask("CacheSet", &v1::Host::Stub::CacheSet, v1::CacheSetRequest(), v1::CacheSetResponse());
  ask("CacheInvalidate", &v1::Host::Stub::CacheInvalidate, v1::CacheInvalidateRequest(), v1::CacheInvalidateResponse());
}

TEST_F(HostTest, AMessageOfMoreThanAMegabyteIsRefused) {
  EXPECT_EQ(Publish({kToken}, std::string((1 << 20) - 100, 'x')).error_code(), StatusCode::OK);
  EXPECT_EQ(Publish({kToken}, std::string(1 << 20, 'x')).error_code(), StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(HostTest, EnqueueIsAnsweredForTheModuleWhoseTokenItHas) {
  server_->OnEnqueue([](const std::string& module, HostEnqueue run, HostServer::Enqueued done) {
    if (run.job == "nothing") return done(Error("JOB_NOT_FOUND", "There is no such job."), "", false);
    EXPECT_EQ(module, "orders");
    EXPECT_EQ(run.payload_json, "null");
    EXPECT_EQ(run.delay, Millis(1'500));
    EXPECT_EQ(run.unique_key, "k");
    EXPECT_EQ(run.priority, -3);
    done(absl::OkStatus(), "run-1", true);
    done(absl::OkStatus(), "run-2", false);  // the first one counts
  });
  const auto enqueue = [&](const char* job, const char* token, v1::EnqueueResponse& response) {
    grpc::ClientContext context;
    Prepare(context, {token});
    v1::EnqueueRequest request;
    request.set_job(job);
    request.set_delay_ms(1'500);
    request.set_unique_key("k");
    request.set_priority(-3);
    return stub_->Enqueue(&context, request, &response);
  };
  v1::EnqueueResponse response;
  ASSERT_TRUE(enqueue("mail", kToken, response).ok());
  EXPECT_EQ(response.run_id(), "run-1");
  EXPECT_TRUE(response.existed());
  EXPECT_EQ(enqueue("mail", "wrong", response).error_code(), StatusCode::UNAUTHENTICATED);
  const grpc::Status refused = enqueue("nothing", kToken, response);
  EXPECT_EQ(refused.error_code(), StatusCode::NOT_FOUND);
  EXPECT_EQ(refused.error_message(), "There is no such job.");
}

TEST_F(HostTest, AServerThatStopsEndsAnEnqueueThatHasNoAnswerYet) {
  std::promise<HostServer::Enqueued> open;
  server_->OnEnqueue([&](const std::string&, HostEnqueue, HostServer::Enqueued done) { open.set_value(std::move(done)); });
  auto call = std::async(std::launch::async, [&] {
    grpc::ClientContext context;
    Prepare(context, {kToken});
    v1::EnqueueResponse response;
    return stub_->Enqueue(&context, {}, &response);
  });
  auto answer = open.get_future().get();
  server_->Stop();
  EXPECT_FALSE(call.get().ok());
  answer(absl::OkStatus(), "late", false);
}

TEST_F(HostTest, ModulesOfEveryUserMayConnect) {
  struct stat info {};
  ASSERT_EQ(stat(socket().c_str(), &info), 0);
  EXPECT_TRUE(S_ISSOCK(info.st_mode));
  EXPECT_EQ(info.st_mode & 0777, 0666u);
}

// Whoever may connect must not be able to bring the server down: a call that is refused and cancelled at once ends once.
TEST_F(HostTest, CallsThatAreCancelledInTheMiddleHarmNobody) {
  std::vector<std::thread> clients;
  for (int client = 0; client < 4; ++client) {
    clients.emplace_back([&, client] {
      for (int i = 0; i < 500; ++i) {
        grpc::ClientContext context;
        Prepare(context, {i % 2 == 0 ? "wrong" : kToken});
        auto stream = stub_->WatchFlags(&context, {});
        if (client % 2 == 0) std::this_thread::sleep_for(std::chrono::microseconds(i));
        context.TryCancel();
        v1::Flags flags;
        while (stream->Read(&flags)) {
        }
        EXPECT_FALSE(stream->Finish().ok());
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_TRUE(Publish({kToken}).ok());
}

TEST_F(HostTest, StopEndsTheStreamsThatAreOpen) {
  grpc::ClientContext context;
  Prepare(context, {kToken});
  auto stream = stub_->WatchFlags(&context, {});
  v1::Flags flags;
  ASSERT_TRUE(stream->Read(&flags));
  server_->Stop();
  EXPECT_FALSE(stream->Read(&flags));
  EXPECT_FALSE(stream->Finish().ok());
}

TEST(HostServer, ASocketThatCannotBeMadeIsToldWithItsPath) {
  auto server = HostServer::Listen("/nonexistent/folder/host", {});
  EXPECT_EQ(ErrorCode(server.status()), "LISTEN_FAILED");
  EXPECT_NE(server.status().message().find("/nonexistent/folder/host"), std::string_view::npos);
}

}  // namespace
}  // namespace bulkhead
