// WebSockets of a real module process, with the test as the gateway and its clients.
#include <gtest/gtest.h>

#include <thread>

#include "socket_client.h"

namespace bulkhead::sdk_test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

std::string Story(Link& link, const std::string& name) { return link.Ask("GET", "/ws-story/" + name).body; }

// Waits until the callbacks of `name` have told exactly this.
::testing::AssertionResult Told(Link& link, const std::string& name, const std::string& story) {
  if (Eventually([&] { return Story(link, name) == story; })) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << name << " tells: " << Story(link, name);
}

TEST(WebSocket, OpensWithTheHandshakeOfTheRfcAndEchoes) {
  ModuleProcess module;
  Link link(module.data_socket());
  SocketClient client(link, "/ws/echo", {{"sec-websocket-protocol", "v1, v3, v2"}});
  ASSERT_EQ(client.status(), 101);
  EXPECT_EQ(client.headers(), (std::map<std::string, std::string>{{"sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="},
                                                                  {"sec-websocket-protocol", "v2"}}));
  for (std::string text : {"hello", "", "gr\xc3\xbc\xc3\x9f Gott", "\xf0\x9f\x99\x82"}) {
    client.Send(text);
    auto frame = client.Next();
    ASSERT_TRUE(frame);
    EXPECT_EQ(frame->opcode, kText);
    EXPECT_EQ(frame->payload, text);
  }
  client.Raw(ClientFrame(kBinary, std::string("\0\xff\xfe", 3)));
  auto frame = client.Next();
  ASSERT_TRUE(frame);
  EXPECT_EQ(frame->opcode, kBinary);
  EXPECT_EQ(frame->payload, std::string("\0\xff\xfe", 3));
  client.Raw(ClientClose(1000, "done"));
  frame = client.Next();
  ASSERT_TRUE(frame);
  EXPECT_EQ(frame->opcode, kClose);
  EXPECT_EQ(frame->close_code(), 1000);
  EXPECT_TRUE(client.Ends());
  EXPECT_TRUE(Told(link, "echo", "open v2, close 1000 done"));
}

TEST(WebSocket, KnowsTheRequestThatAskedForIt) {
  ModuleProcess module;
  Link link(module.data_socket());
  SocketClient client(link, "/ws/told/green%20room?as=x", {{"x-bulkhead-subject", "anna"}});
  client.Send("who");
  EXPECT_EQ(client.Message(), "anna in green room");
}

TEST(WebSocket, IsRefusedWithWhatItsHandlerThrows) {
  ModuleProcess module;
  Link link(module.data_socket());
  Answer answer = link.Await(link.Upgrade("/ws/refuses", {{"x-request-id", "r-1"}}));
  EXPECT_EQ(answer.status, 403);
  EXPECT_EQ(answer.json()["error"]["code"], "FORBIDDEN");
  EXPECT_EQ(answer.json()["error"]["requestId"], "r-1");
  answer = link.Await(link.Upgrade("/ws/refuses?hard=1"));
  EXPECT_EQ(answer.status, 500);
  EXPECT_EQ(answer.body.find("secret"), std::string::npos);
  EXPECT_TRUE(module.Logged("the secret of this socket"));
  // What the gateway sends after a refusal is dropped, and the connection lives on.
  uint32_t refused = link.Upgrade("/ws/refuses");
  EXPECT_EQ(link.Await(refused).status, 403);
  link.Data(refused, {}, true);
  refused = link.Upgrade("/ws/refuses");
  EXPECT_EQ(link.Await(refused).status, 403);
  link.Cancel(refused);
  EXPECT_EQ(SocketClient(link, "/ws/echo").status(), 101);
}

TEST(WebSocket, IsRefusedWhenTheHandshakeIsWrong) {
  ModuleProcess module;
  Link link(module.data_socket());
  Answer answer = link.Await(link.Upgrade("/ws/echo", {{"sec-websocket-version", "8"}}));
  EXPECT_EQ(answer.status, 426);
  EXPECT_EQ(answer.headers["sec-websocket-version"], "13");
  EXPECT_EQ(answer.json()["error"]["code"], "UPGRADE_REQUIRED");
  EXPECT_EQ(link.Await(link.Upgrade("/ws/echo", {{"sec-websocket-key", "short"}})).status, 400);
  EXPECT_EQ(link.Await(link.Upgrade("/ws/echo", {{"x-bulkhead-upgrade", "h2c"}})).status, 426);
  answer = link.Ask("GET", "/ws/echo");
  EXPECT_EQ(answer.status, 426) << "a plain request";
  EXPECT_EQ(answer.headers["sec-websocket-version"], "13");
  EXPECT_EQ(link.Ask("HEAD", "/ws/echo").status, 426);
  EXPECT_EQ(link.Ask("POST", "/ws/echo").headers["allow"], "GET, HEAD");
  EXPECT_EQ(link.Await(link.Upgrade("/ws/none-of-that-name")).status, 404);
  EXPECT_EQ(Story(link, "echo"), "") << "no callback for any of them";
}

TEST(WebSocket, AnUpgradeOfAnotherRouteIsAPlainRequest) {
  ModuleProcess module;
  Link link(module.data_socket());
  for (std::string path : {"/hello/you", "/inline/you"}) {
    uint32_t stream = link.Upgrade(path);
    link.Data(stream, "bytes of a tunnel that is none", false);
    EXPECT_EQ(link.Await(stream).status, 200) << path;
    link.Data(stream, {}, true);
  }
  EXPECT_EQ(link.Ask("GET", "/hello/you").status, 200);
}

TEST(WebSocket, CarriesLargeMessagesInFragmentsUnderCreditBothWays) {
  ModuleProcess module;
  Link link(module.data_socket());
  SocketClient client(link, "/ws/echo");
  std::string text;
  while (text.size() < 1'000'000) text += "eins zwei dr\xc3\xa4i \xe2\x82\xac ";
  // Fragments that cut characters, with pings between them; longer than the window.
  size_t sizes[] = {1, 5, 65'535, 65'536, 300'001, 0, 7};
  std::string_view rest = text;
  int pings = 0;
  for (size_t i = 0; !rest.empty(); ++i) {
    size_t n = std::min(sizes[i % 7], rest.size());
    client.Raw(ClientFrame(i == 0 ? kText : kContinuation, rest.substr(0, n), n == rest.size(), uint32_t(i * 2'654'435'761u)));
    rest.remove_prefix(n);
    client.Raw(ClientFrame(kPing, std::to_string(++pings)));
  }
  std::string echoed;
  int pongs = 0;
  while (echoed.empty() || pongs < pings) {
    auto frame = client.Next();
    ASSERT_TRUE(frame);
    if (frame->opcode == kPong) {
      EXPECT_EQ(frame->payload, std::to_string(++pongs));
    }
    if (frame->opcode == kText) echoed = frame->payload;
  }
  EXPECT_TRUE(echoed == text);
  std::string bytes(1 << 20, '\xff');
  client.Raw(ClientFrame(kBinary, bytes));
  EXPECT_TRUE(client.Message() == bytes) << "the limit itself";
  client.Raw(ClientFrame(kBinary, bytes + "x"));
  EXPECT_EQ(client.Message(), "<close 1009 the message is too long>");
  EXPECT_TRUE(client.Ends());
}

TEST(WebSocket, TakesFramesByteByByte) {
  ModuleProcess module;
  Link link(module.data_socket());
  SocketClient client(link, "/ws/echo");
  std::string frames = ClientFrame(kText, "Hel", false) + ClientFrame(kPing, "p") + ClientFrame(kContinuation, "lo");
  for (char c : frames) client.Raw(std::string_view(&c, 1));
  EXPECT_EQ(client.Next()->payload, "p");
  EXPECT_EQ(client.Message(), "Hello");
}

TEST(WebSocket, TakesBytesThatCameBeforeItWasOpen) {
  ModuleProcess module;
  Link link(module.data_socket());
  uint32_t stream = link.Upgrade("/ws/echo");
  link.Data(stream, ClientFrame(kText, "early"), false);
  std::string body;
  while (body.find("early") == std::string::npos) {
    auto frame = link.NextOf(stream);
    ASSERT_TRUE(frame);
    if (frame->header.type == link::Type::kData) body += frame->body();
  }
}

TEST(WebSocket, EndsWithACodeForEachKindOfViolation) {
  ModuleProcess module;
  Link link(module.data_socket());
  struct Case {
    const char* why;
    std::string bytes;
    int code;
  };
  const Case cases[] = {{"unmasked", "\x81\x02hi", 1002},
                        {"unknown opcode", ClientFrame(3, ""), 1002},
                        {"not UTF-8", ClientFrame(kText, "\xc0\xaf"), 1007},
                        {"close code", ClientClose(1005), 1002},
                        {"too long", std::string("\x82\xff\0\0\0\x01\0\0\0\0", 10) + "mask", 1009}};
  for (const Case& one : cases) {
    SCOPED_TRACE(one.why);
    SocketClient client(link, "/ws/echo?as=" + std::to_string(&one - cases));
    // What came whole before it is still answered.
    client.Raw(ClientFrame(kText, "before") + one.bytes + ClientFrame(kText, "after"));
    EXPECT_EQ(client.Message(), "before");
    auto frame = client.Next();
    ASSERT_TRUE(frame);
    EXPECT_EQ(frame->opcode, kClose);
    EXPECT_EQ(frame->close_code(), one.code);
    EXPECT_TRUE(client.Ends());
    EXPECT_TRUE(
        Told(link, std::to_string(&one - cases), "open, close " + std::to_string(one.code) + " " + frame->close_reason()));
  }
}

TEST(WebSocket, ClosesWhenTheModuleWants) {
  ModuleProcess module;
  Link link(module.data_socket());
  SocketClient client(link, "/ws/told/a?as=answered");
  client.Raw(ClientFrame(kText, "close 4001 so it is") + ClientFrame(kText, "not told any more"));
  EXPECT_EQ(client.Message(), "<close 4001 so it is>");
  EXPECT_TRUE(Told(link, "answered", "close 4001 so it is, refused closed")) << "on_close comes with the client's answer";
  client.Raw(ClientClose(4001));
  EXPECT_TRUE(client.Ends());
  EXPECT_TRUE(Told(link, "answered", "close 4001 so it is, refused closed, close 4001 so it is"));

  SocketClient silent(link, "/ws/told-short/a?as=silent");
  auto begin = steady_clock::now();
  silent.Send("close 1000 bye");
  EXPECT_EQ(silent.Message(), "<close 1000 bye>");
  EXPECT_TRUE(silent.Ends());
  EXPECT_GE(steady_clock::now() - begin, milliseconds(100)) << "after the close timeout";
  EXPECT_TRUE(Told(link, "silent", "close 1000 bye, refused closed, close 1000 bye"));
}

TEST(WebSocket, TellsHowTheClientHasLeft) {
  ModuleProcess module;
  Link link(module.data_socket());
  {
    SocketClient client(link, "/ws/echo?as=without-code");
    client.Raw(ClientFrame(kText, "last words") + ClientFrame(kClose, ""));
    EXPECT_EQ(client.Message(), "last words") << "answered before the close is";
    EXPECT_EQ(client.Message(), "<close 1005 >");
    EXPECT_TRUE(client.Ends());
    EXPECT_TRUE(Told(link, "without-code", "open, close 1005 "));
  }
  {
    SocketClient client(link, "/ws/echo?as=half-closed");
    client.Raw(ClientFrame(kText, "last words"), true);
    EXPECT_EQ(client.Message(), "last words");
    EXPECT_TRUE(client.Ends());
    EXPECT_TRUE(Told(link, "half-closed", "open, close 1006 "));
  }
  {
    SocketClient client(link, "/ws/echo?as=gone");
    ASSERT_TRUE(Told(link, "gone", "open"));
    link.Cancel(client.stream());
    EXPECT_TRUE(Told(link, "gone", "open, close 1006 "));
  }
  {
    Link other(module.data_socket());
    SocketClient client(other, "/ws/echo?as=cut");
    ASSERT_TRUE(Told(link, "cut", "open"));
  }
  EXPECT_TRUE(Told(link, "cut", "open, close 1006 "));
}

TEST(WebSocket, ACallbackThatThrowsClosesItsSocketWith1011) {
  ModuleProcess module;
  Link link(module.data_socket());
  for (std::string message : {"std", "odd", "text", "code"}) {
    SocketClient client(link, "/ws/throws?as=" + message, {{"x-request-id", "r-" + message}});
    client.Send(message);
    EXPECT_EQ(client.Message(), "<close 1011 the module failed>");
    client.Raw(ClientClose(1011));
    EXPECT_TRUE(client.Ends());
    EXPECT_TRUE(Told(link, message, "close 1011 the module failed"));
    EXPECT_TRUE(module.Logged("\"requestId\":\"r-" + message + "\""));
  }
  EXPECT_TRUE(module.Logged("thrown in on_message"));
  SocketClient client(link, "/ws/throws?where=open");
  EXPECT_EQ(client.Message(), "<close 1011 the module failed>");
  SocketClient last(link, "/ws/throws?where=close&as=last");
  last.Raw(ClientClose(1000));
  EXPECT_EQ(last.Message(), "<close 1000 >");
  EXPECT_TRUE(last.Ends());
  EXPECT_TRUE(module.Logged("thrown in on_close"));
  EXPECT_EQ(SocketClient(link, "/ws/echo").status(), 101);
}

TEST(WebSocket, ASlowHandlerSlowsItsOwnClientOnly) {
  ModuleProcess module;
  Link link(module.data_socket());
  SocketClient slow(link, "/ws/gated?as=slow");
  std::string frames;
  while (frames.size() < link::kWindow) frames += ClientFrame(kBinary, std::string(10'000, 'm'));
  frames.resize(link::kWindow);
  slow.Raw(frames);
  ASSERT_TRUE(Eventually([&] { return link.Ask("GET", "/gate/waiting").body == "1"; }));
  // The window is used up and nothing was handled: the client can send no more, but everybody else is served.
  Link other(module.data_socket());
  SocketClient quick(other, "/ws/echo");
  for (int i = 0; i < 100; ++i) {
    quick.Send(std::to_string(i));
    ASSERT_EQ(quick.Message(), std::to_string(i));
    ASSERT_EQ(other.Ask("GET", "/hello/you").status, 200);
  }
  EXPECT_FALSE(link.Readable(milliseconds(50)));
  EXPECT_EQ(slow.credit(), 0);
  EXPECT_EQ(other.Ask("POST", "/gate/open").status, 204);
  for (size_t i = 0; i < frames.size() / 10'008; ++i) ASSERT_EQ(slow.Message(), "10000");
  while (slow.credit() == 0) ASSERT_TRUE(slow.Pump()) << "it may send again";
  EXPECT_EQ(Story(other, "slow"), "") << "never two callbacks at once";
}

TEST(WebSocket, AnswersPingsWhileACallbackTakesItsTime) {
  ModuleProcess module;
  Link link(module.data_socket());
  SocketClient client(link, "/ws/gated-pinged?as=patient");
  client.Send("waits at the gate");
  ASSERT_TRUE(Eventually([&] { return link.Ask("GET", "/gate/waiting").body == "1"; }));
  client.Raw(ClientFrame(kPing, "still there?"));
  auto frame = client.Next();
  while (frame && frame->opcode == kPing) frame = client.Next();
  ASSERT_TRUE(frame);
  EXPECT_EQ(frame->opcode, kPong);
  EXPECT_EQ(frame->payload, "still there?");
  // The client answers no ping while it waits, and is not suspected: it may be us who don't read.
  for (int pings = 0; pings < 5;) {
    frame = client.Next();
    ASSERT_TRUE(frame);
    ASSERT_EQ(frame->opcode, kPing);
    ++pings;
  }
  EXPECT_EQ(link.Ask("POST", "/gate/open").status, 204);
  EXPECT_EQ(client.Message(), "17");
}

TEST(WebSocket, ClosesAClientThatAnswersNoPing) {
  ModuleProcess module;
  Link link(module.data_socket());
  SocketClient dead(link, "/ws/pinged?as=dead");
  auto frame = dead.Next();
  ASSERT_TRUE(frame);
  EXPECT_EQ(frame->opcode, kPing);
  EXPECT_EQ((frame = dead.Next())->opcode, kClose);
  EXPECT_EQ(frame->close_code(), 1011);
  EXPECT_EQ(frame->close_reason(), "no answer to a ping");
  EXPECT_TRUE(dead.Ends());
  EXPECT_TRUE(Told(link, "dead", "open, close 1011 no answer to a ping"));
  SocketClient answers(link, "/ws/pinged-slowly?as=answers");
  for (int i = 0; i < 3; ++i) {
    frame = answers.Next();
    ASSERT_TRUE(frame);
    ASSERT_EQ(frame->opcode, kPing);
    answers.Raw(ClientFrame(kPong, frame->payload));
  }
  EXPECT_EQ(Story(link, "answers"), "open");
}

TEST(WebSocket, SendIsFalseWhenTheClientReadsTooSlowly) {
  ModuleProcess module;
  Link link(module.data_socket());
  SocketClient client(link, "/ws/told/a?as=flooded");
  Flood(client);
  client.Send("who");
  // Whoever does not read is not listened to either.
  EXPECT_FALSE(link.Readable(milliseconds(50)));
  EXPECT_EQ(Story(link, "flooded").find("who"), std::string::npos);
  client.give_credit = true;
  client.Grant(link::kWindow);
  int messages = 0, times = 0, floods = 0;
  for (std::string message = client.Message(); message != " in a"; message = client.Message()) {
    ASSERT_EQ(message.size(), 10'000u);
    ++messages;
  }
  std::string story = Story(link, "flooded");
  for (size_t at = story.find("flood 10000, "); at != std::string::npos; at = story.find("flood 10000, ", at + 1)) {
    int more = 0, most = 0;
    ASSERT_EQ(sscanf(story.c_str() + at, "flood 10000, %d times, at most %d, open", &more, &most), 2) << story.substr(at);
    EXPECT_LE(most, 100'000) << "MaxBuffered";
    EXPECT_GT(more, 0) << "half of it was free";
    times += more;
    ++floods;
  }
  EXPECT_EQ(floods, kFloods);
  EXPECT_EQ(messages, times) << "what Send() took has come, and nothing else";
}

TEST(WebSocket, ASlowReaderLosesNoAnswerUpToHalfOfItsQueue) {
  ModuleProcess module;
  Link link(module.data_socket());
  SocketClient client(link, "/ws/small?as=slow-reader");
  client.give_credit = false;
  std::string message(9'000, 'm');
  std::string frames;
  for (int i = 0; i < 25; ++i) frames += ClientFrame(kText, message);
  client.Raw(frames);
  while (client.received() < link::kWindow / 2) ASSERT_TRUE(client.Pump());
  client.give_credit = true;
  client.Grant(uint32_t(client.received()));
  for (int i = 0; i < 25; ++i) ASSERT_EQ(client.Message(), message) << i;
  EXPECT_EQ(Story(link, "slow-reader"), "open") << "no Send() was false";
}

TEST(WebSocket, AnIdleSocketHoldsNoThread) {
  ModuleProcess module({.config = {{"workers", 1}}});
  Link link(module.data_socket());
  std::vector<std::unique_ptr<SocketClient>> clients;
  for (int i = 0; i < 50; ++i) clients.push_back(std::make_unique<SocketClient>(link, "/ws/echo"));
  EXPECT_EQ(link.Ask("GET", "/hello/you").status, 200);
  for (auto& client : clients) client->Send("hi");
  for (auto& client : clients) EXPECT_EQ(client->Message(), "hi");
}

TEST(WebSocket, OpenSocketsTakeNoStreamsFromRequests) {
  ModuleProcess module;
  Link link(module.data_socket());
  std::vector<uint32_t> streams;
  for (int i = 0; i < 4'096; ++i) {
    streams.push_back(link.Upgrade("/ws/nothing"));
    // One that is not open yet is a request, of which a connection may have 1,024.
    if (i % 512 == 511) {
      ASSERT_EQ(link.NextOf(streams.back())->header.status, 101) << i;
    }
  }
  EXPECT_EQ(link.Ask("GET", "/hello/you").status, 200);
  for (uint32_t stream : streams) {
    if (stream % 512 != 0) {
      ASSERT_EQ(link.NextOf(stream)->header.status, 101) << stream;
    }
  }
  Answer answer = link.Await(link.Upgrade("/ws/nothing"));
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(answer.json()["error"]["code"], "OVERLOADED");
  EXPECT_EQ(answer.headers["retry-after"], "1");
  link.Cancel(streams[0]);
  EXPECT_TRUE(Eventually([&] {
    auto frame = link.NextOf(link.Upgrade("/ws/nothing"));
    return frame && frame->header.status == 101;
  }));
}

TEST(WebSocket, TwoHundredSocketsOfSixteenThreadsHearTheirOwnMessagesInOrder) {
  ModuleProcess module({.config = {{"workers", 16}}});
  constexpr int kThreads = 16, kSockets = 200, kMessages = 60;
  std::atomic<int> opened{0}, right{0}, wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      Link link(module.data_socket());
      std::vector<std::unique_ptr<SocketClient>> mine;
      for (int s = t; s < kSockets; s += kThreads) mine.push_back(std::make_unique<SocketClient>(link, "/ws/echo"));
      opened += int(mine.size());
      auto message = [&](size_t socket, int i) {
        return std::to_string(t) + "/" + std::to_string(socket) + "/" + std::to_string(i) +
               std::string(size_t(i % 7) * 1'000, '.');
      };
      for (int i = 0; i < kMessages; i += 10) {
        for (size_t s = 0; s < mine.size(); ++s)
          for (int k = i; k < i + 10; ++k) mine[s]->Send(message(s, k));
        for (size_t s = 0; s < mine.size(); ++s)
          for (int k = i; k < i + 10; ++k) ++(mine[s]->Message() == message(s, k) ? right : wrong);
      }
      for (auto& client : mine) {
        client->Raw(ClientClose(1000));
        if (client->Message() != "<close 1000 >" || !client->Ends()) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(opened, kSockets);
  EXPECT_EQ(right, kSockets * kMessages);
  EXPECT_EQ(wrong, 0);
}

TEST(WebSocket, MaySendFromAnyThread) {
  ModuleProcess module({.config = {{"workers", 16}}});
  Link link(module.data_socket());
  std::vector<std::unique_ptr<SocketClient>> clients;
  for (int i = 0; i < 20; ++i) {
    clients.push_back(std::make_unique<SocketClient>(link, "/ws/room"));
    EXPECT_EQ(clients.back()->Message(), "welcome");
  }
  for (int round = 0; round < 10; ++round)
    for (auto& client : clients) client->Send("x");
  for (auto& client : clients)
    for (int i = 0; i < 200; ++i) ASSERT_EQ(client->Message(), "x");
  clients.front()->Raw(ClientClose(1000));
  EXPECT_EQ(clients.front()->Message(), "<close 1000 >");
  clients.back()->Send("y");
  for (size_t i = 1; i < clients.size(); ++i) EXPECT_EQ(clients[i]->Message(), "y");
}

}  // namespace
}  // namespace bulkhead::sdk_test
