// A socket on a stream of the link without a link: the test is the loop, the worker and the clock.
#include <gtest/gtest.h>

#include "link_socket.h"
#include "socket_client.h"

namespace bulkhead::sdk {
namespace {

using sdk_test::ClientClose;
using sdk_test::ClientFrame;
using std::chrono::milliseconds;
using std::chrono::seconds;
using Said = std::vector<std::string>;

class Socket : public ::testing::Test, public StreamListener {
 protected:
  void SetUp() override {
    route.MaxBuffered(1 << 20);
    Open();
  }

  void Open() {
    WebSocketEvents events;
    events.on_open = [this](const WebSocketPtr&) { told.push_back("open"); };
    events.on_message = [this](const WebSocketPtr& socket, std::string message, bool) {
      told.push_back(message.size() > 100 ? std::to_string(message.size()) : message);
      if (message == "flood") socket->SendBinary(std::string(900'000, 'f'));
      if (message == "half") told.push_back(socket->SendBinary(std::string(1 << 19, 'h')) ? "sent" : "not sent");
    };
    events.on_close = [this](const auto&, uint16_t code, std::string_view reason) {
      told.push_back("close " + std::to_string(code) + " " + std::string(reason));
    };
    told.clear();
    stream = std::make_shared<LinkStream>(1, *this, nullptr, link::kWindow, link::kMaxFrame);
    totals.open = 1;
    socket = std::make_shared<LinkSocket>(stream, route, std::move(events), LinkSocket::Names{}, totals);
    stream->Upgrade(std::string(2, '\0'), socket);
    begin = socket->deadline() - route.ping_interval();
    EXPECT_EQ(Sends(), Said{"101"});
  }
  void Notify(std::shared_ptr<LinkStream>) override {}  // the test looks by itself

  void Work() {
    while (socket->Turn(*stream)) {
    }
  }
  void Receive(std::string_view bytes, bool end = false) {
    stream->PushBody(bytes, end);
    socket->Heard();
  }
  // The loop's clock stands at so much after the opening.
  void At(LinkSocket::Clock::duration since) {
    if (socket->OnTimer(*stream, begin + since)) Work();
  }

  // What the loop sends, frame by frame.
  Said Sends() {
    Said out;
    std::string wire, bytes;
    bool ended = false;
    for (LinkStream::Emitted emitted = LinkStream::Emitted::kMore; emitted == LinkStream::Emitted::kMore;) {
      wire.clear();
      emitted = stream->Emit(wire);
      if (wire.empty()) break;
      link::Header header = link::GetHeader(wire.data());
      if (header.type == link::Type::kResponse) out.push_back(std::to_string(header.status));
      if (header.type == link::Type::kCancel) out.push_back("cancel " + std::to_string(header.status));
      if (header.type == link::Type::kData) bytes += wire.substr(link::kHeaderSize);
      ended |= header.flags & link::kEnd;
    }
    while (bytes.size() >= 2) {
      uint8_t opcode = uint8_t(bytes[0]) & 0x0f;
      size_t size = uint8_t(bytes[1]);
      if (size > 125) break;
      std::string payload = bytes.substr(2, size);
      if (opcode == 9)
        out.push_back("ping");
      else if (opcode == 10)
        out.push_back("pong " + payload);
      else if (opcode == 8 && size >= 2)
        out.push_back("close " + std::to_string(uint8_t(payload[0]) << 8 | uint8_t(payload[1])) + " " + payload.substr(2));
      else
        out.push_back(payload);
      bytes.erase(0, 2 + size);
    }
    if (!bytes.empty()) out.push_back(std::to_string(bytes.size()) + " bytes");
    if (ended) out.push_back("END");
    return out;
  }

  WebSocketRoute route{[](Request&) { return WebSocketEvents{}; }};
  SocketTotals totals;
  std::shared_ptr<LinkStream> stream;
  std::shared_ptr<LinkSocket> socket;
  LinkSocket::Clock::time_point begin;
  Said told;
};

TEST_F(Socket, IsPingedEvery30SecondsAndClosedWhenNothingIsHeard) {
  Work();
  At(seconds(29));
  EXPECT_EQ(Sends(), Said{});
  At(seconds(30));
  EXPECT_EQ(Sends(), Said{"ping"});
  At(seconds(59));
  EXPECT_EQ(Sends(), Said{});
  At(seconds(60));
  EXPECT_EQ(Sends(), Said{"close 1011 no answer to a ping"});
  EXPECT_EQ(told, Said{"open"});
  At(seconds(69));
  EXPECT_EQ(Sends(), Said{});
  At(seconds(70));
  EXPECT_EQ(Sends(), Said{"END"});
  EXPECT_EQ(told, (Said{"open", "close 1011 no answer to a ping"}));
  EXPECT_EQ(totals.open, 0);
}

TEST_F(Socket, LivesOnWithEachPong) {
  Work();
  for (int i = 1; i <= 10; ++i) {
    At(seconds(30 * i));
    EXPECT_EQ(Sends(), Said{"ping"}) << i;
    Receive(ClientFrame(10, ""));
    Work();
  }
  EXPECT_TRUE(socket->open());
}

TEST_F(Socket, OfAClientThatReadsOrSendsIsAliveWithoutPongs) {
  Work();
  At(seconds(30));
  socket->Heard();  // as of a WINDOW that was waited for
  At(seconds(60));
  Receive(ClientFrame(1, "hello"));
  Work();
  At(seconds(90));
  EXPECT_EQ(Sends(), (Said{"ping", "ping", "ping"}));
  EXPECT_TRUE(socket->open());
}

TEST_F(Socket, IsNotClosedWhileTheModuleKeepsTheClientWaiting) {
  Work();
  Receive(ClientFrame(1, "no worker has time for this"));
  for (int i = 1; i <= 10; ++i) At(seconds(30 * i));
  EXPECT_TRUE(socket->open());
  Work();
  EXPECT_EQ(told, (Said{"open", "no worker has time for this"}));
}

TEST_F(Socket, IsClosedWhenTheClientWritesAndNeverReads) {
  Receive(ClientFrame(1, "flood") + ClientFrame(1, "not delivered: the answer to the first one is not read"));
  Work();
  EXPECT_EQ(told, (Said{"open", "flood"}));
  EXPECT_EQ(Sends(), Said{std::to_string(link::kWindow) + " bytes"}) << "no more credit";
  At(seconds(30));
  At(seconds(60));
  EXPECT_FALSE(socket->open());
  At(seconds(70));
  EXPECT_EQ(told.back(), "close 1011 no answer to a ping");
  EXPECT_EQ(Sends(), Said{}) << "END stands behind what is not read";
  At(socket->deadline() - begin);
  EXPECT_EQ(Sends(), Said{"cancel 2"});
}

TEST_F(Socket, IsListenedToAgainWhenTheClientReads) {
  Receive(ClientFrame(1, "flood") + ClientFrame(1, "next"));
  Work();
  Sends();
  EXPECT_FALSE(stream->room_again) << "more than half of the queue waits still";
  stream->send_credit = 1 << 20;
  Sends();
  EXPECT_TRUE(stream->room_again);
  Work();
  EXPECT_EQ(told.back(), "next");
}

TEST_F(Socket, HasRoomForAnAnswerOfHalfItsQueueWheneverItIsAsked) {
  Work();
  // As much as may wait when a message is handed to the module, to the byte.
  EXPECT_TRUE(socket->SendBinary(std::string((1 << 19) - 2 * websocket::kMaxFrameHeader, 'f')));
  Receive(ClientFrame(1, "half"));
  Work();
  EXPECT_EQ(told, (Said{"open", "half", "sent"}));
  EXPECT_EQ(socket->buffered(), 1u << 20);
  EXPECT_FALSE(socket->SendBinary(""));
}

TEST_F(Socket, EndsWithTheClientsAnswerToItsClose) {
  Work();
  socket->Close(4'000, "enough");
  socket->Close(1000, "too late to say otherwise");
  EXPECT_EQ(Sends(), Said{"close 4000 enough"});
  Receive(ClientFrame(1, "crossed the close") + ClientClose(4'000));
  Work();
  EXPECT_EQ(Sends(), Said{"END"});
  EXPECT_EQ(told, (Said{"open", "close 4000 enough"}));
}

TEST_F(Socket, AnswersTheClientsCloseBehindWhatCameBefore) {
  Receive(ClientFrame(1, "one") + ClientFrame(9, "p") + ClientClose(3'000, "bye"), true);
  Work();
  EXPECT_EQ(told, (Said{"open", "one", "close 3000 bye"}));
  EXPECT_EQ(Sends(), (Said{"pong p", "close 3000 ", "END"}));
}

TEST_F(Socket, OfAClientThatHangsUpTellsWhatCameAndThat) {
  Receive(ClientFrame(1, "one") + "\x81", true);
  Work();
  EXPECT_EQ(told, (Said{"open", "one", "close 1006 "}));
  EXPECT_EQ(Sends(), Said{"END"});
}

TEST_F(Socket, OfAClientThatIsGoneTellsNothingButThat) {
  Work();
  Receive(ClientFrame(1, "dropped"));
  stream->Cancel();
  EXPECT_FALSE(socket->open());
  EXPECT_FALSE(socket->Send("into the void"));
  Work();
  EXPECT_EQ(told, (Said{"open", "close 1006 "}));
  EXPECT_EQ(totals.open, 0);
}

TEST_F(Socket, ThatNobodyHasHeardOfGoesUnheard) {
  stream->Cancel();
  Work();
  EXPECT_EQ(told, Said{});
  EXPECT_EQ(totals.open, 0);
}

TEST_F(Socket, ClosesWith1001OnShutdownAndWaitsNoLongerThanItIsGiven) {
  Work();
  auto now = LinkSocket::Clock::now();
  socket->Shutdown(*stream, milliseconds(200));
  EXPECT_EQ(Sends(), Said{"close 1001 the module is stopping"});
  EXPECT_LE(socket->deadline(), now + milliseconds(300));
  EXPECT_TRUE(socket->OnTimer(*stream, socket->deadline()));
  EXPECT_EQ(Sends(), Said{"END"});
  Work();
  EXPECT_EQ(told, (Said{"open", "close 1001 the module is stopping"}));
}

TEST_F(Socket, SendsNothingBehindItsClose) {
  Work();
  socket->Close(1000, "");
  EXPECT_FALSE(socket->Send("late"));
  Receive(ClientFrame(9, "no pong"));
  Work();
  At(seconds(1));
  EXPECT_EQ(Sends(), Said{"close 1000 "});
}

TEST_F(Socket, RefusesToSendWhatNoServerMay) {
  Work();
  EXPECT_THROW(socket->Send("\xff"), std::invalid_argument);
  for (int code : {0, 999, 1004, 1005, 1006, 1015, 2'999, 5'000})
    EXPECT_THROW(socket->Close(uint16_t(code), ""), std::invalid_argument) << code;
  EXPECT_THROW(socket->Close(1000, "\xff"), std::invalid_argument);
  EXPECT_TRUE(socket->open());
}

TEST_F(Socket, HoldsCreditUntilAMessageIsHandled) {
  Work();
  // Two thirds of the window, not looked at by a worker yet.
  Receive(ClientFrame(2, std::string(170'000, 'm')));
  EXPECT_EQ(stream->TakeConsumed(), 0u);
  Work();
  EXPECT_GE(stream->TakeConsumed(), 170'000u);
  // Of a message longer than the window so much is given back that its rest can come.
  std::string frame = ClientFrame(2, std::string(1'000'000, 'm'));
  size_t credit = link::kWindow, sent = 0;
  while (sent < frame.size()) {
    size_t n = std::min(credit, frame.size() - sent);
    ASSERT_GT(n, 0u) << "stuck after " << sent;
    Receive(frame.substr(sent, n));
    sent += n;
    credit -= n;
    Work();
    credit += stream->TakeConsumed();
  }
  EXPECT_EQ(told, (Said{"open", "170000", "1000000"}));
  EXPECT_EQ(totals.bytes, 0);
}

TEST_F(Socket, IsClosedWith1013WhenAllTogetherKeepTooMuch) {
  Work();
  totals.bytes = int64_t(kMaxSocketBytes) - 1'000;
  Receive(ClientFrame(2, std::string(900, 'm'), false));
  Work();
  EXPECT_EQ(Sends(), Said{});
  Receive(ClientFrame(0, std::string(200, 'm'), false));
  Work();
  EXPECT_EQ(Sends(), (Said{"close 1013 the module has more messages in memory than it takes", "END"}));
  EXPECT_EQ(totals.bytes, int64_t(kMaxSocketBytes) - 1'000) << "and what it kept is given back";
}

TEST_F(Socket, LetsGoOfWhatItsCallbacksHoldWhenItHasEnded) {
  auto held = std::make_shared<int>();
  WebSocketEvents events;
  auto self = std::make_shared<std::shared_ptr<WebSocket>>();
  events.on_open = [held, self](const WebSocketPtr& socket) { *self = socket; };
  stream = std::make_shared<LinkStream>(3, *this, nullptr, link::kWindow, link::kMaxFrame);
  socket = std::make_shared<LinkSocket>(stream, route, std::move(events), LinkSocket::Names{}, totals);
  stream->Upgrade(std::string(2, '\0'), socket);
  Work();
  EXPECT_EQ(held.use_count(), 2);
  Receive(ClientClose(1000));
  Work();
  EXPECT_EQ(held.use_count(), 1);
  stream.reset();
  EXPECT_FALSE((*self)->Send("to nobody"));
  EXPECT_FALSE((*self)->open());
  EXPECT_EQ((*self)->buffered(), 0u);
  (*self)->Close(1000, "");
}

TEST(WebSocketRoute, RefusesSettingsThatCouldNotWork) {
  WebSocketRoute route([](Request&) { return WebSocketEvents{}; });
  EXPECT_THROW(route.MaxBuffered(1'023), std::invalid_argument);
  EXPECT_THROW(route.PingInterval(milliseconds(9)), std::invalid_argument);
  EXPECT_THROW(route.PingInterval(seconds(241)), std::invalid_argument);
  EXPECT_THROW(route.CloseTimeout(seconds(61)), std::invalid_argument);
  EXPECT_THROW(route.Protocols({"two words"}), std::invalid_argument);
}

}  // namespace
}  // namespace bulkhead::sdk
