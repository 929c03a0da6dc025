// The programs of module-sdk/README.md do what is said there.
#include <gtest/gtest.h>

#include "socket_client.h"

namespace bulkhead::sdk_test {
namespace {

TEST(Readme, TheGreeterGreets) {
  ModuleProcess module({.config = {{"greeting", "Hello"}}, .program = GREETER});
  Link link(module.data_socket());
  EXPECT_EQ(link.Ask("GET", "/hello/you").json()["data"]["text"], "Hello you");
}

TEST(Readme, EverybodyInARoomHearsWhatOneSays) {
  ModuleProcess module({.program = CHAT});
  Link link(module.data_socket());
  auto as = [](const char* who) { return Pairs{{"x-bulkhead-subject", who}, {"x-bulkhead-permissions", "chat:join"}}; };
  EXPECT_EQ(link.Await(link.Upgrade("/rooms/red", {{"x-bulkhead-subject", "eve"}})).status, 403);
  SocketClient anna(link, "/rooms/red", as("anna")), ben(link, "/rooms/red", as("ben")), carl(link, "/rooms/blue", as("carl"));
  ben.Send("am I here?");
  EXPECT_EQ(ben.Message(), "ben: am I here?");
  std::string heard;
  // Anna may have come behind Ben's first words.
  for (anna.Send("hi"); heard != "anna: hi"; heard = anna.Message()) {
  }
  EXPECT_EQ(ben.Message(), "anna: hi");
  anna.Raw(ClientClose(1000));
  while (anna.Next()) {
  }
  carl.Send("alone");
  EXPECT_EQ(carl.Message(), "carl: alone");
  ben.Send("gone?");
  EXPECT_EQ(ben.Message(), "ben: gone?");
}

// Without a host socket, as here, what comes with Initialize is all that it knows: a share must not be everybody until the first word on changes.
TEST(Readme, TheNewPriceIsForThoseWhoHaveTheFlag) {
  ModuleProcess module({.program = PRICES, .prepare = [](pb::InitializeRequest& request) {
                          (*request.mutable_flags())["New.Pricing"] = true;
                          (*request.mutable_flag_rules())["New.Pricing"].set_percentage(0);
                          (*request.mutable_flag_rules())["New.Pricing"].add_identities("ann");
                        }});
  Link link(module.data_socket());
  auto price = [&](const char* who) { return link.Ask("GET", "/price", {{"x-bulkhead-subject", who}}).json()["data"]["price"]; };
  EXPECT_EQ(price("ann"), 90);
  EXPECT_EQ(price("ben"), 100);
}

}  // namespace
}  // namespace bulkhead::sdk_test
