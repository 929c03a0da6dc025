// Answers of the LocalService that go on.
#include "tests/unit/gateway/gateway_fixture.h"

namespace bulkhead {
namespace {

constexpr auto kSoon = std::chrono::seconds(10);

// Hands each request to the test, which answers it when it likes.
class HeldLocal : public LocalService {
 public:
  void Handle(LocalRequest request, std::unique_ptr<LocalResponder> responder) override {
    std::lock_guard lock(mutex_);
    requests_.push_back(std::move(request));
    responders_.push_back(std::move(responder));
    came_.notify_all();
  }
  std::unique_ptr<LocalResponder> Next(LocalRequest* request = nullptr) {
    std::unique_lock lock(mutex_);
    if (!came_.wait_for(lock, kSoon, [this] { return !responders_.empty(); })) {
      ADD_FAILURE() << "no request came";
      return nullptr;
    }
    auto responder = std::move(responders_.front());
    if (request) *request = requests_.front();
    responders_.erase(responders_.begin());
    requests_.erase(requests_.begin());
    return responder;
  }

 private:
  std::mutex mutex_;
  std::condition_variable came_;
  std::vector<LocalRequest> requests_;
  std::vector<std::unique_ptr<LocalResponder>> responders_;
};

class GatewayLocalStreamTest : public GatewayTest {
 protected:
  ~GatewayLocalStreamTest() override { gateway_->Stop(Millis(200)); }  // before what answers it
  void SetUp() override { gateway_->Start(authenticator_, held_); }

  struct Open {
    std::unique_ptr<LocalResponder> responder;
    std::unique_ptr<LocalStream> stream;
    std::shared_ptr<std::atomic<int>> gone = std::make_shared<std::atomic<int>>(0);
  };
  Open Begin() {
    Open open;
    open.responder = held_.Next();
    open.stream = open.responder->Stream(200, {{"content-type", "text/event-stream"}, {"bad\r\nheader", "x"}}, ":\n\n", [gone = open.gone] { ++*gone; });
    return open;
  }
  // Writes and waits until there is room for more; false: not within `patience_ms`.
  static bool Write(LocalStream& stream, std::string bytes, int patience_ms = 10'000) {
    auto room = std::make_shared<std::promise<void>>();
    stream.Write(std::move(bytes), [room] { room->set_value(); });
    return room->get_future().wait_for(Millis(patience_ms)) == std::future_status::ready;
  }
  static bool Becomes(const std::atomic<int>& value, int wanted) {
    for (int i = 0; i < 1'000 && value != wanted; ++i) std::this_thread::sleep_for(Millis(10));
    return value == wanted;
  }
  static std::string Get(const std::string& path, const std::string& method = "GET") { return method + " " + path + " HTTP/1.1\r\nHost: test\r\n\r\n"; }

  HeldLocal held_;
};

TEST_F(GatewayLocalStreamTest, WhatIsWrittenComesAtOnceAndTheConnectionGoesOn) {
  auto client = Client();
  client.Send(Get("/api/v1/events") + Get("/next"));
  Open open = Begin();
  ASSERT_TRUE(Write(*open.stream, "one\n"));
  while (client.buffered().find("4\r\none\n\r\n") == std::string::npos) ASSERT_TRUE(client.More());
  ASSERT_TRUE(Write(*open.stream, "two\n"));
  open.stream->End();
  open.stream.reset();
  const HttpResponse answer = client.Read();
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.body, "one\ntwo\n");
  EXPECT_EQ(answer.Header("transfer-encoding"), "chunked");
  EXPECT_EQ(answer.Header("content-type"), "text/event-stream");
  EXPECT_FALSE(answer.truncated);
  held_.Next()->Respond(200, {}, "next");
  EXPECT_EQ(client.Read().body, "next");
  EXPECT_EQ(*open.gone, 0);
}

TEST_F(GatewayLocalStreamTest, TheRequestTellsItsLastEvent) {
  auto client = Client();
  client.Send("GET /api/v1/events HTTP/1.1\r\nHost: test\r\nLast-Event-ID: 17-4\r\n\r\n");
  LocalRequest request;
  held_.Next(&request)->Respond(200, {}, "");
  EXPECT_EQ(request.last_event_id, "17-4");
}

TEST_F(GatewayLocalStreamTest, HeadGetsTheHeadAndNobodyWritesOn) {
  auto client = Client();
  client.Send(Get("/api/v1/events", "HEAD") + Get("/next"));
  Open open = Begin();
  const HttpResponse answer = client.Read(true);
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.Header("content-type"), "text/event-stream");
  EXPECT_TRUE(Becomes(*open.gone, 1));
  open.stream->Write("nobody", nullptr);
  open.stream->End();
  held_.Next()->Respond(200, {}, "next");
  EXPECT_EQ(client.Read().body, "next");
}

TEST_F(GatewayLocalStreamTest, AnOldClientGetsItUntilTheConnectionCloses) {
  auto client = Client();
  client.Send("GET /api/v1/events HTTP/1.0\r\n\r\n");
  Open open = Begin();
  ASSERT_TRUE(Write(*open.stream, "one\n"));
  open.stream->End();
  const HttpResponse answer = client.Read();
  EXPECT_EQ(answer.body, "one\n");
  EXPECT_EQ(answer.Header("transfer-encoding"), "");
}

TEST_F(GatewayLocalStreamTest, AClientThatLeavesIsTold) {
  auto client = Client();
  client.Send(Get("/api/v1/events"));
  Open open = Begin();
  ASSERT_TRUE(Write(*open.stream, "one\n"));
  client.Close();
  EXPECT_TRUE(Becomes(*open.gone, 1));
  open.stream->Write("nobody", [] { ADD_FAILURE() << "he is gone"; });
  open.stream.reset();
  EXPECT_EQ(*open.gone, 1);
}

TEST_F(GatewayLocalStreamTest, AClientThatLeavesBeforeItBeginsIsTold) {
  auto client = Client();
  client.Send(Get("/api/v1/events"));
  auto responder = held_.Next();
  client.Close();
  auto gone = std::make_shared<std::atomic<int>>(0);
  auto stream = responder->Stream(200, {}, ":\n\n", [gone] { ++*gone; });
  EXPECT_TRUE(Becomes(*gone, 1));
}

TEST_F(GatewayLocalStreamTest, AStreamThatIsDroppedIsNotTakenForAWholeOne) {
  auto client = Client();
  client.Send(Get("/api/v1/events"));
  Open open = Begin();
  ASSERT_TRUE(Write(*open.stream, "one\n"));
  open.stream.reset();
  EXPECT_TRUE(client.Read().truncated);
}

TEST_F(GatewayLocalStreamTest, SilenceIsFilledWithSignsOfLife) {
  auto client = Client();
  client.Send(Get("/api/v1/events"));
  Open open = Begin();
  ASSERT_TRUE(Write(*open.stream, "one\n"));
  while (client.buffered().find("one\n\r\n") == std::string::npos) ASSERT_TRUE(client.More());
  client.buffered().clear();
  Pass(limits::kStreamHeartbeat - Millis(1'000));
  EXPECT_FALSE(client.Readable(50));
  for (int i = 0; i < 3; ++i) {
    PassUntilAnswered(client, Millis(1'000));
    while (client.buffered().find("3\r\n:\n\n\r\n") == std::string::npos) ASSERT_TRUE(client.More());
    client.buffered().clear();
    Pass(limits::kStreamHeartbeat - Millis(1'000));
  }
  EXPECT_EQ(*open.gone, 0);
}

TEST_F(GatewayLocalStreamTest, WhoDoesNotReadIsWrittenNothingMoreAndLater) {
  auto client = Client(16 * 1024);
  client.Send(Get("/api/v1/events"));
  Open open = Begin();
  const std::string piece(256 * 1024, 'x');
  size_t sent = 0;
  // What the kernel takes is soon full.
  while (Write(*open.stream, piece, 500)) ASSERT_LT(++sent, 100u);
  ++sent;  // it waits for room
  open.stream->End();
  const HttpResponse answer = client.Read();
  EXPECT_EQ(answer.body.size(), sent * piece.size());
  EXPECT_FALSE(answer.truncated);
}

TEST_F(GatewayLocalStreamTest, WhoNeverReadsIsGivenUp) {
  auto client = Client(16 * 1024);
  client.Send(Get("/api/v1/events"));
  Open open = Begin();
  const std::string piece(256 * 1024, 'x');
  for (int i = 0; Write(*open.stream, piece, 500); ++i) ASSERT_LT(i, 100);
  for (int i = 0; i < 40 && *open.gone == 0; ++i) Pass(Millis(1'000));
  EXPECT_TRUE(Becomes(*open.gone, 1));
}

TEST_F(GatewayLocalStreamTest, TheEndOfTheGatewayIsTold) {
  auto client = Client(), late = Client();
  client.Send(Get("/api/v1/events"));
  Open open = Begin();
  ASSERT_TRUE(Write(*open.stream, "one\n"));
  late.Send(Get("/api/v1/events"));
  auto responder = held_.Next();
  gateway_->Stop(Millis(50));
  EXPECT_EQ(*open.gone, 1);
  auto gone = std::make_shared<std::atomic<int>>(0);
  auto stream = responder->Stream(200, {}, ":\n\n", [gone] { ++*gone; });
  EXPECT_EQ(*gone, 1);
  stream->Write("nobody", [] { ADD_FAILURE() << "there is nobody"; });
  stream->End();
}

TEST_F(GatewayLocalStreamTest, AStoppingGatewayLetsAnAnswerEnd) {
  auto client = Client();
  client.Send(Get("/api/v1/events"));
  Open open = Begin();
  ASSERT_TRUE(Write(*open.stream, "one\n"));
  std::thread stopping([this] { gateway_->Stop(Millis(10'000)); });
  open.stream->Write("last\n", nullptr);
  open.stream->End();
  stopping.join();
  const HttpResponse answer = client.Read();
  EXPECT_EQ(answer.body, "one\nlast\n");
  EXPECT_FALSE(answer.truncated);
}

}  // namespace
}  // namespace bulkhead
