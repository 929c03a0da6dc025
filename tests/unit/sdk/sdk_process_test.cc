// How a module's process begins and ends.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <csignal>
#include <cstdio>

#include "harness.h"

namespace bulkhead::sdk_test {
namespace {

TEST(Process, AnswersTheHandshakeWithItsProtocol) {
  ModuleProcess module({.initialize = false});
  EXPECT_EQ(module.answer["protocol"], 1);
  EXPECT_EQ(module.answer["sdk"].get<std::string>().substr(0, 4), "cpp/");
}

TEST(Process, RefusesAProtocolItDoesNotSpeakAndNamesBoth) {
  ModuleProcess module({.handshake = {{"protocolMin", 2}, {"protocolMax", 3}}});
  std::string error = module.answer.value("error", "");
  EXPECT_NE(error.find("protocol 1"), std::string::npos) << module.answer;
  EXPECT_NE(error.find("2 to 3"), std::string::npos) << module.answer;
  EXPECT_EQ(module.AwaitExit(), 1);
}

TEST(Process, RefusesATransportItDoesNotServe) {
  ModuleProcess module({.handshake = {{"transport", "http"}}});
  EXPECT_NE(module.answer.value("error", "").find("http"), std::string::npos);
  EXPECT_EQ(module.AwaitExit(), 1);
}

TEST(Process, RefusesASocketPathThatCanNotBe) {
  ModuleProcess module({.handshake = {{"dataSocket", "/nonexistent/folder/data.sock"}}});
  EXPECT_NE(module.answer.value("error", "").find("/nonexistent/folder/data.sock"), std::string::npos) << module.answer;
  EXPECT_EQ(module.AwaitExit(), 1);
}

TEST(Process, StartedByHandSaysWhatItIs) {
  std::string command = TestModulePath() + " 3<&- 2>&1";
  FILE* pipe = popen(command.c_str(), "r");
  ASSERT_NE(pipe, nullptr);
  char text[1'024] = {};
  size_t n = fread(text, 1, sizeof text - 1, pipe);
  int status = pclose(pipe);
  EXPECT_GT(n, 0u);
  EXPECT_NE(std::string(text).find("is a module of a Bulkhead supervisor"), std::string::npos) << text;
  EXPECT_EQ(WEXITSTATUS(status), 2);
}

TEST(Process, LeavesWithZeroAfterStop) {
  ModuleProcess module;
  EXPECT_TRUE(module.Stop().ok());
  EXPECT_EQ(module.AwaitExit(), 0);
  EXPECT_NE(module.Log().find("stopped in order"), std::string::npos);
}

TEST(Process, LeavesWhenTheSupervisorIsGone) {
  ModuleProcess module;
  module.CloseHandshake();
  EXPECT_EQ(module.AwaitExit(std::chrono::seconds(2)), 0);
}

TEST(Process, LeavesWhenTheSupervisorIsGoneBeforeInitialize) {
  ModuleProcess module({.initialize = false});
  module.CloseHandshake();
  EXPECT_EQ(module.AwaitExit(std::chrono::seconds(2)), 0);
}

TEST(Process, LeavesWhenTheSupervisorIsGoneThoughAHandlerHangs) {
  ModuleProcess module;
  Link link(module.data_socket());
  link.Send("GET", "/gate");
  ASSERT_TRUE(Eventually([&] { return link.Ask("GET", "/gate/waiting").body == "1"; }));
  module.CloseHandshake();
  EXPECT_EQ(module.AwaitExit(std::chrono::seconds(4)), 0);
}

TEST(Process, StopsInOrderOnSigterm) {
  ModuleProcess module;
  module.Signal(SIGTERM);
  EXPECT_EQ(module.AwaitExit(), 0);
  EXPECT_NE(module.Log().find("stopped in order"), std::string::npos);
}

TEST(Process, IgnoresSigint) {
  ModuleProcess module;
  Link link(module.data_socket());
  module.Signal(SIGINT);
  EXPECT_EQ(link.Ask("GET", "/hello/you").status, 200);
}

TEST(Process, FinishesRequestsBeforeItStops) {
  ModuleProcess module;
  Link link(module.data_socket());
  uint32_t slow = link.Send("GET", "/gate");
  ASSERT_TRUE(Eventually([&] { return link.Ask("GET", "/gate/waiting").body == "1"; }));
  auto call = module.Call();
  pb::StopRequest request;
  request.set_deadline_ms(1'000);
  pb::StopResponse response;
  grpc::CompletionQueue queue;
  auto pending = module.stub().AsyncStop(call.get(), request, &queue);
  grpc::Status status;
  pending->Finish(&response, &status, &queue);
  // GOAWAY names the last stream that is answered; a later one is refused, so that it can go to another worker.
  auto frame = link.Next();
  ASSERT_TRUE(frame);
  EXPECT_EQ(frame->header.type, link::Type::kGoaway);
  EXPECT_EQ(link.Ask("GET", "/hello/late").cancel_code, int(link::CancelCode::kRefused));
  // The gate's own route is refused now too, so the handler is let go with the deadline: it is cut off, the module leaves.
  EXPECT_EQ(link.Await(slow).cancel_code, int(link::CancelCode::kInternal));
  void* tag;
  bool ok;
  ASSERT_TRUE(queue.Next(&tag, &ok));
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(module.AwaitExit(), 0);
  queue.Shutdown();
}

TEST(Process, AConfigurationErrorIsSaidAndEndsWithItsOwnExitCode) {
  ModuleProcess module({.initialize = false});
  grpc::Status status = module.Initialize({.config = {{"configError", "interval must be positive"}}});
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(status.error_message(), "interval must be positive");
  module.CloseHandshake();
  EXPECT_EQ(module.AwaitExit(), 125);
}

TEST(Process, AFailedInitializeEndsWithOne) {
  ModuleProcess module({.initialize = false});
  grpc::Status status = module.Initialize({.config = {{"throw", "no luck"}}});
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_EQ(status.error_message(), "no luck");
  module.Signal(SIGTERM);
  EXPECT_EQ(module.AwaitExit(), 1);
}

TEST(Process, LogsOneJsonLinePerEvent) {
  ModuleProcess module;
  ASSERT_TRUE(module.Logged("\"initialized\""));
  Json line = Json::parse(module.Log());
  EXPECT_EQ(line["level"], "info");
  EXPECT_EQ(line["message"], "initialized");
  EXPECT_EQ(line["slot"], 3);
}

}  // namespace
}  // namespace bulkhead::sdk_test
