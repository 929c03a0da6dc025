// The logs of modules over REST: the list, and the stream as Server-Sent Events.
#include <gmock/gmock.h>

#include <condition_variable>
#include <mutex>

#include "bulkhead/admin/v1/logs.pb.h"
#include "supervisor/admin/rest_events.h"
#include "tests/unit/admin/admin_harness.h"

namespace bulkhead {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr auto kStreamPatience = std::chrono::seconds(20);

// A client of one stream. Takes what comes at once, unless it is told to hold.
class EventClient {
 public:
  // What `fn` answers under the lock.
  template <typename Fn>
  auto With(Fn fn) {
    std::lock_guard lock(mutex_);
    return fn();
  }
  // False: not within the patience.
  bool Await(const std::function<bool()>& condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kStreamPatience, condition);
  }
  bool AwaitText(const std::string& text) {
    return Await([&] { return text_.find(text) != std::string::npos; });
  }
  bool AwaitStatus() {
    return Await([this] { return status_ != 0; });
  }
  bool AwaitEnd() {
    return Await([this] { return ended_; });
  }
  void Hold() {
    std::lock_guard lock(mutex_);
    held_ = true;
  }
  void Release() {
    std::function<void()> then;
    {
      std::lock_guard lock(mutex_);
      held_ = false;
      then = std::exchange(then_, nullptr);
    }
    if (then) then();
  }
  void Leave() {
    std::function<void()> gone;
    {
      std::lock_guard lock(mutex_);
      gone = std::exchange(gone_, nullptr);
    }
    if (gone) gone();
  }
  int status() { return With([this] { return status_; }); }
  std::string text() { return With([this] { return text_; }); }
  std::string header(std::string_view name) {
    return With([&] {
      for (const auto& [key, value] : headers_) {
        if (key == name) return value;
      }
      return std::string();
    });
  }
  // The messages of the lines that came.
  std::vector<std::string> Messages() {
    std::vector<std::string> messages;
    std::istringstream in(text());
    for (std::string line; std::getline(in, line);) {
      if (!line.starts_with("data: ")) continue;
      const auto data = nlohmann::json::parse(line.substr(6));
      if (data.contains("message")) messages.push_back(data["message"]);
    }
    return messages;
  }

  struct Out : LocalStream {
    explicit Out(std::shared_ptr<EventClient> c) : client(std::move(c)) {}
    void Write(std::string bytes, std::function<void()> then) override {
      {
        std::lock_guard lock(client->mutex_);
        client->text_ += bytes;
        if (client->held_) client->then_ = std::exchange(then, nullptr);
      }
      client->changed_.notify_all();
      if (then) then();
    }
    void End() override {
      std::lock_guard lock(client->mutex_);
      client->ended_ = true;
      client->gone_ = nullptr;
      client->changed_.notify_all();
    }
    std::shared_ptr<EventClient> client;
  };
  struct Answer : LocalResponder {
    explicit Answer(std::shared_ptr<EventClient> c) : client(std::move(c)) {}
    void Respond(int status, HeaderList headers, std::string body) override { Begin(status, std::move(headers), std::move(body), nullptr); }
    std::unique_ptr<LocalStream> Stream(int status, HeaderList headers, std::string, std::function<void()> gone) override {
      Begin(status, std::move(headers), "", std::move(gone));
      return std::make_unique<Out>(client);
    }
    void Begin(int status, HeaderList headers, std::string body, std::function<void()> gone) {
      std::lock_guard lock(client->mutex_);
      client->status_ = status;
      client->headers_ = std::move(headers);
      client->text_ = std::move(body);
      client->gone_ = std::move(gone);
      client->changed_.notify_all();
    }
    std::shared_ptr<EventClient> client;
  };

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int status_ = 0;
  HeaderList headers_;
  std::string text_;
  bool held_ = false, ended_ = false;
  std::function<void()> then_, gone_;
};

class LogsApiTest : public AdminTest {
 protected:
  void SetUp() override { Register("orders"); }
  void Say(const std::string& text) { logs_.Append({"orders", "orders.0.x", 0}, LogStream::kStdout, ReadModuleLine(text)); }
  std::shared_ptr<EventClient> Follow(const std::string& query = "", const std::string& last = "", const std::string& secret = "", bool held = false) {
    auto client = std::make_shared<EventClient>();
    if (held) client->Hold();
    LocalRequest request = Request("GET", "/api/v1/modules/orders/logs?follow=true" + query);
    request.last_event_id = last;
    if (!secret.empty()) request.authorization = "Bearer " + secret;
    admin_->Handle(std::move(request), std::make_unique<EventClient::Answer>(client));
    return client;
  }
  static std::vector<std::string> Numbered(int first, int last) {
    std::vector<std::string> texts;
    for (int i = first; i <= last; ++i) texts.push_back("line " + std::to_string(i));
    return texts;
  }
};

TEST_F(LogsApiTest, LinesAreListedWithWhatIsKnownOfThem) {
  Say(R"({"level":"error","message":"no","left":2,"at":{"shelf":[1]}})");
  Say("raw");
  const Reply reply = Get("/api/v1/modules/orders/logs");
  ASSERT_EQ(reply.status, 200) << reply.body;
  ASSERT_EQ(reply.data().size(), 2u);
  const json line = reply.data()[0];
  EXPECT_EQ(line["level"], "ERROR");
  EXPECT_EQ(line["stream"], "STDOUT");
  EXPECT_EQ(line["fields"], (json{{"left", 2}, {"at", {{"shelf", {1}}}}}));
  EXPECT_TRUE(reply.data()[1]["fields"].is_null());
  EXPECT_EQ(reply.json()["meta"], (json{{"before", line["cursor"]}, {"after", reply.data()[1]["cursor"]}, {"more", false}}));
}

TEST_F(LogsApiTest, AStreamBeginsAtOnceAndGivesEachLineAsAnEvent) {
  Say("before");
  const auto client = Follow("&tail=1");
  ASSERT_TRUE(client->AwaitText("before"));
  EXPECT_EQ(client->status(), 200);
  EXPECT_EQ(client->header("content-type"), "text/event-stream");
  Say("after");
  ASSERT_TRUE(client->AwaitText("after"));
  const std::string text = client->text();
  EXPECT_THAT(text, testing::MatchesRegex("id: [0-9-]+\ndata: [^\n]*\"message\":\"before\"[^\n]*\n\nid: [0-9-]+\ndata: [^\n]*\"message\":\"after\"[^\n]*\n\n"));
  const auto quiet = Follow("&tail=0");
  EXPECT_TRUE(quiet->AwaitStatus()) << "before there is a line";
  client->Leave();
  quiet->Leave();
}

TEST_F(LogsApiTest, TheLastEventIsWhereItGoesOn) {
  for (int i = 1; i <= 5; ++i) Say("line " + std::to_string(i));
  const std::string second = Get("/api/v1/modules/orders/logs?tail=4").data()[0]["cursor"];
  const auto client = Follow("&tail=1&after=1-1", second);
  ASSERT_TRUE(client->AwaitText("line 5"));
  EXPECT_EQ(client->Messages(), Numbered(3, 5));
  client->Leave();
}

TEST_F(LogsApiTest, WhoDoesNotTakeALineIsNotBroughtTheNext) {
  const auto client = Follow("&tail=0", "", "", true);
  ASSERT_TRUE(client->AwaitStatus());
  for (int i = 1; i <= 300; ++i) Say("line " + std::to_string(i));
  const auto other = Follow("&tail=300");
  ASSERT_TRUE(other->AwaitText("line 300")) << "others are not held up";
  EXPECT_EQ(client->Messages(), std::vector<std::string>()) << "the empty beginning is not taken yet";
  client->Release();
  ASSERT_TRUE(client->AwaitText("\"line 300\""));
  EXPECT_EQ(client->Messages(), Numbered(1, 300));
  client->Leave();
  other->Leave();
}

TEST_F(LogsApiTest, ARefusalIsAnOrdinaryAnswer) {
  const auto refused = [&](const std::shared_ptr<EventClient>& client, int status, const char* code) {
    EXPECT_TRUE(client->AwaitStatus());
    EXPECT_EQ(client->status(), status) << client->text();
    EXPECT_EQ(json::parse(client->text())["error"]["code"], code);
    EXPECT_EQ(client->header("content-type"), "application/json");
  };
  refused(Follow("&tail=9999"), 400, "INVALID_ARGUMENT");
  refused(Follow("", "no cursor"), 400, "INVALID_ARGUMENT");
  refused(Follow("", "", MakeToken("other", {"modules:read"})), 403, "FORBIDDEN");
  refused(Follow("", "", "nobody"), 401, "UNAUTHENTICATED");
  auto nobody = std::make_shared<EventClient>();
  admin_->Handle(Request("GET", "/api/v1/modules/nobody/logs?follow=true"), std::make_unique<EventClient::Answer>(nobody));
  refused(nobody, 404, "MODULE_NOT_FOUND");
}

TEST_F(LogsApiTest, ACallerHasSoManyStreamsAndALeftOneIsFreeAgain) {
  std::vector<std::shared_ptr<EventClient>> clients;
  for (size_t i = 0; i < limits::kMaxStreamsPerCaller; ++i) {
    clients.push_back(Follow("&tail=0"));
    ASSERT_TRUE(clients.back()->AwaitStatus());
    ASSERT_EQ(clients.back()->status(), 200);
  }
  const auto refused = Follow();
  ASSERT_TRUE(refused->AwaitStatus());
  EXPECT_EQ(refused->status(), 429);
  EXPECT_THAT(refused->text(), HasSubstr("TOO_MANY_STREAMS"));
  const auto other = Follow("&tail=0", "", MakeToken("other", {"logs:read"}));
  ASSERT_TRUE(other->AwaitStatus());
  EXPECT_EQ(other->status(), 200) << "somebody else's are not counted";
  clients.back()->Leave();
  std::shared_ptr<EventClient> again;
  for (int i = 0; i < 2'000; ++i) {
    again = Follow("&tail=0");
    ASSERT_TRUE(again->AwaitStatus());
    if (again->status() == 200) break;
    std::this_thread::sleep_for(Millis(5));
  }
  EXPECT_EQ(again->status(), 200);
}

TEST_F(LogsApiTest, TheEndOfTheSupervisorIsToldAndNothingBeginsAfterwards) {
  const auto client = Follow("&tail=0"), held = Follow("&tail=0", "", "", true);
  ASSERT_TRUE(client->AwaitStatus());
  ASSERT_TRUE(held->AwaitStatus());
  admin_->EndStreams();
  ASSERT_TRUE(client->AwaitEnd());
  EXPECT_THAT(client->text(), HasSubstr("event: end\ndata: {\"success\":false,\"error\":{\"code\":\"SHUTTING_DOWN\""));
  const auto late = Follow();
  ASSERT_TRUE(late->AwaitStatus());
  EXPECT_EQ(late->status(), 503);
  held->Release();
  EXPECT_TRUE(held->AwaitEnd());
}

TEST(RestEvents, AMessageIsAnEventByWhatItHolds) {
  RestRoute route;
  route.rest.set_data("line");
  admin::v1::FollowModuleLogsResponse response;
  EXPECT_EQ(EventText(route, response), "");
  response.set_cursor("7-1");
  EXPECT_EQ(EventText(route, response), "id: 7-1\n\n");
  response.mutable_missed()->set_lines(3);
  EXPECT_EQ(EventText(route, response), "id: 7-1\nevent: missed\ndata: {\"lines\":3}\n\n");
  response.mutable_line()->set_message("a\nb\r\n\ndata: c");
  EXPECT_THAT(EventText(route, response), testing::MatchesRegex("id: 7-1\ndata: [^\n\r]*a\\\\nb\\\\r\\\\n\\\\ndata: c[^\n\r]*\n\n"));
}

}  // namespace
}  // namespace bulkhead
