// What becomes of open WebSockets when their module stops or the gateway leaves it.
#include <gtest/gtest.h>

#include <thread>

#include "socket_client.h"

namespace bulkhead::sdk_test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

std::chrono::milliseconds StopTakes(ModuleProcess& module, int64_t deadline_ms) {
  auto begin = steady_clock::now();
  grpc::Status status = module.Stop(deadline_ms);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return std::chrono::duration_cast<milliseconds>(steady_clock::now() - begin);
}

TEST(WebSocketStop, EverySocketIsClosedWith1001AndStopReturnsWhenTheyHaveAnswered) {
  ModuleProcess module;
  Link link(module.data_socket());
  std::vector<std::unique_ptr<SocketClient>> clients;
  for (int i = 0; i < 20; ++i) clients.push_back(std::make_unique<SocketClient>(link, "/ws/echo?as=stopped"));
  std::thread gateway([&] {
    for (auto& client : clients) {
      EXPECT_EQ(client->Message(), "<close 1001 the module is stopping>");
      client->Raw(ClientClose(1001));
      EXPECT_TRUE(client->Ends());
    }
  });
  auto took = StopTakes(module, 20'000);
  gateway.join();
  EXPECT_LT(took, seconds(5)) << "of 14 that requests would have";
  EXPECT_EQ(module.AwaitExit(), 0);
  std::string log = module.Log();
  EXPECT_EQ(log.find("cut off"), std::string::npos) << log;
  EXPECT_NE(log.find("stopped in order"), std::string::npos);
}

TEST(WebSocketStop, ClientsThatDoNotAnswerHoldItUpForASecondAtMost) {
  ModuleProcess module;
  Link link(module.data_socket());
  SocketClient silent(link, "/ws/echo"), full(link, "/ws/told/a");
  Flood(full);
  std::thread gateway([&] {
    EXPECT_EQ(silent.Message(), "<close 1001 the module is stopping>");
    EXPECT_TRUE(silent.Ends()) << "END without the client's close";
    EXPECT_FALSE(full.Ends());
    EXPECT_EQ(full.cancel_code(), int(link::CancelCode::kTimeout)) << "it never read what was queued, so END could not be sent";
  });
  auto took = StopTakes(module, 20'000);
  gateway.join();
  EXPECT_LT(took, seconds(5));
  EXPECT_EQ(module.AwaitExit(), 0);
  EXPECT_EQ(module.Log().find("cut off"), std::string::npos);
}

std::string Goaway() {
  std::string frame(link::kHeaderSize, '\0');
  link::PutHeader(frame.data(), {0, 0, link::Type::kGoaway, 0, 0, 0});
  return frame;
}

TEST(WebSocketStop, AGatewayThatLeavesFindsItsTunnelsEnded) {
  ModuleProcess module;
  Link link(module.data_socket()), other(module.data_socket());
  SocketClient answers(link, "/ws/echo"), silent(link, "/ws/echo"), elsewhere(other, "/ws/echo");
  link.Raw(Goaway());
  EXPECT_EQ(answers.Message(), "<close 1001 the module is stopping>");
  answers.Raw(ClientClose(1001));
  EXPECT_TRUE(answers.Ends());
  EXPECT_EQ(silent.Message(), "<close 1001 the module is stopping>");
  EXPECT_TRUE(silent.Ends());
  EXPECT_TRUE(link.Closes()) << "nothing is left on it";
  elsewhere.Send("still here");
  EXPECT_EQ(elsewhere.Message(), "still here");
}

TEST(WebSocketStop, ASocketThatOpensBehindTheGatewaysGoawayIsClosedAtOnce) {
  ModuleProcess module;
  Link link(module.data_socket()), other(module.data_socket());
  uint32_t late = link.Upgrade("/ws/accepts-gated");
  ASSERT_TRUE(Eventually([&] { return other.Ask("GET", "/gate/waiting").body == "1"; }));
  link.Raw(Goaway());
  EXPECT_EQ(other.Ask("POST", "/gate/open").status, 204);
  std::string bytes;
  for (bool ended = false; !ended;) {
    auto frame = link.NextOf(late);
    ASSERT_TRUE(frame);
    if (frame->header.type != link::Type::kData) continue;
    bytes += frame->body();
    ended = frame->end();
  }
  EXPECT_EQ(bytes.substr(2), "\x03\xe9the module is stopping");
  EXPECT_TRUE(link.Closes());
}

TEST(WebSocketStop, ACallbackThatHangsDoesNotKeepItsClient) {
  ModuleProcess module;
  Link link(module.data_socket());
  SocketClient client(link, "/ws/gated");
  client.Send("x");
  ASSERT_TRUE(Eventually([&] { return link.Ask("GET", "/gate/waiting").body == "1"; }));
  std::thread gateway([&] {
    EXPECT_EQ(client.Message(), "<close 1001 the module is stopping>");
    client.Raw(ClientClose(1001));
    EXPECT_TRUE(client.Ends());
  });
  auto took = StopTakes(module, 2'500);
  gateway.join();
  EXPECT_LT(took, milliseconds(2'500)) << "the handler has its share of the deadline, as of any request";
  EXPECT_EQ(module.AwaitExit(), 0);
}

TEST(WebSocketStop, NoSocketOpensAnyMore) {
  ModuleProcess module({.config = {{"workers", 1}}});
  Link link(module.data_socket());
  uint32_t gate = link.Send("GET", "/gate");
  ASSERT_TRUE(Eventually([&] { return link.Ask("GET", "/gate/waiting").body == "1"; }));
  uint32_t waits = link.Upgrade("/ws/echo");
  Link other(module.data_socket());
  other.Ask("GET", "/inline/x");
  std::thread stop([&] { StopTakes(module, 2'000); });
  while (auto frame = link.Next()) {
    if (frame->header.type == link::Type::kGoaway) break;
  }
  EXPECT_EQ(link.Await(link.Upgrade("/ws/echo")).cancel_code, int(link::CancelCode::kRefused));
  EXPECT_EQ(link.Await(gate).cancel_code, int(link::CancelCode::kInternal));
  EXPECT_EQ(link.Await(waits).cancel_code, int(link::CancelCode::kInternal)) << "no worker was free for it before the end";
  stop.join();
  EXPECT_EQ(module.AwaitExit(), 0);
}

}  // namespace
}  // namespace bulkhead::sdk_test
