// Service clients against a real HTTP server: connections, deadlines, retries, the breaker, what is sent and what is refused.
#include "bulkhead/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <future>

#include "current_work.h"
#include "http_server.h"

namespace bulkhead::sdk {
namespace {

using namespace std::chrono_literals;
using sdk_test::CameRequest;
using sdk_test::HttpAnswer;
using sdk_test::HttpServer;
using testing::HasSubstr;
using testing::Not;
using Clock = std::chrono::steady_clock;

constexpr char kSecret[] = "s3cr3t-of-the-shop";

ClientSettings SettingsFor(const std::string& url) {
  ClientSettings settings;
  settings.name = "shop";
  settings.base_url = url;
  settings.secret_headers = {{"authorization", std::string("Bearer ") + kSecret}};
  return settings;
}

// The code of what a call throws; "" when it answers.
template <typename F>
std::string Code(F call, std::string* message = nullptr) {
  try {
    call();
  } catch (const ClientError& error) {
    if (message) *message = error.what();
    EXPECT_THAT(error.what(), Not(HasSubstr(kSecret)));
    return error.code();
  }
  return "";
}

// A port that nobody listens on.
std::string NobodysUrl() { return HttpServer([](const CameRequest&) { return ""; }).url(); }

class TestJob : public JobContext {
 public:
  explicit TestJob(Clock::duration left) : deadline_(Clock::now() + left) {}
  const std::string& run_id() const override { return text_; }
  const std::string& job() const override { return text_; }
  const Json& payload() const override { return json_; }
  const Json& config() const override { return json_; }
  int attempt() const override { return 1; }
  int64_t fence() const override { return 1; }
  Clock::time_point deadline() const override { return deadline_; }
  void Progress(double, std::string_view) override {}
  void Log(std::string_view, std::string_view) override {}
  bool cancelled() const override { return cancelled_; }
  bool WaitFor(std::chrono::milliseconds) override { return !cancelled_; }
  std::atomic<bool> cancelled_{false};

 private:
  const std::string text_ = "job";
  const Json json_;
  const Clock::time_point deadline_;
};

TEST(ServiceClient, SendsWhatTheAuthorTheOperatorAndTheHandlerSay) {
  HttpServer server([](const CameRequest&) { return HttpAnswer(201, R"({"id": 7})", "content-type: application/json\r\nX-Thing: a\r\n"); });
  ClientSettings settings = SettingsFor(server.url() + "/api/v3");
  settings.headers = {{"accept-language", "de"}};
  settings.secret_query = {{"key", "k&1"}};
  ServiceClient client(settings);
  Request request("POST", "/x", {{"x-request-id", "r-1"}, {"traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}});
  const CurrentTrace::Scope trace(request);
  const CurrentWork scope(request);
  const ClientResponse response = client.Post("/orders", {{"a", 1}}, {.query = {{"who", "Ann B"}}, .headers = {{"x-own", "1"}}});
  EXPECT_EQ(response.status, 201);
  EXPECT_TRUE(response.ok());
  EXPECT_EQ(response.json(), (Json{{"id", 7}}));
  EXPECT_EQ(response.header("X-THING"), "a");
  EXPECT_EQ(response.attempts, 1);
  const CameRequest came = server.came().at(0);
  EXPECT_EQ(came.method, "POST");
  EXPECT_EQ(came.target, "/api/v3/orders?who=Ann%20B&key=k%261");
  EXPECT_EQ(came.body, R"({"a":1})");
  const std::map<std::string, std::string> sent = came.headers;
  EXPECT_EQ(sent.at("content-type"), "application/json");
  EXPECT_EQ(sent.at("authorization"), std::string("Bearer ") + kSecret);
  EXPECT_EQ(sent.at("accept-language"), "de");
  EXPECT_EQ(sent.at("x-own"), "1");
  EXPECT_EQ(sent.at("x-request-id"), "r-1");
  EXPECT_EQ(sent.at("traceparent"), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
  EXPECT_FALSE(sent.contains("expect"));
}

TEST(ServiceClient, EachMethodComesAsItself) {
  HttpServer server([](const CameRequest& came) {
    return came.method == "HEAD" ? "HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n" : HttpAnswer(200, "x");
  });
  ServiceClient client(SettingsFor(server.url()));
  client.Get("/");
  client.Put("/", 1);
  client.Delete("/");
  EXPECT_EQ(client.Send({"HEAD", "/"}).body, "");
  client.Patch("/", 1);
  client.Send({"OPTIONS", "/"});
  client.Send({"POST", "/"});
  client.Get("/");
  client.Send({"DELETE", "/", "with a body", "text/plain"});
  std::string all;
  for (const CameRequest& came : server.came()) all += came.method + ":" + came.body + " ";
  EXPECT_EQ(all, "GET: PUT:1 DELETE: HEAD: PATCH:1 OPTIONS: POST: GET: DELETE:with a body ");
}

TEST(ServiceClient, AConnectionIsUsedAgain) {
  HttpServer server([](const CameRequest&) { return HttpAnswer(200, "x"); });
  ServiceClient client(SettingsFor(server.url()));
  for (int i = 0; i < 50; ++i) EXPECT_EQ(client.Get("/").status, 200);
  EXPECT_EQ(server.connections(), 1);
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) threads.emplace_back([&] {
    for (int i = 0; i < 50; ++i) EXPECT_EQ(client.Post("/", i).status, 200);
  });
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(server.connections(), 8);
  EXPECT_EQ(server.came().size(), 450u);
  EXPECT_EQ(client.counts().calls, 450);
  EXPECT_EQ(client.counts().failures, 0);
}

TEST(ServiceClient, NoMoreConnectionsThanAllowedAndWhoGetsNoneInTimeIsTold) {
  std::promise<void> go;
  std::shared_future<void> gate = go.get_future().share();
  HttpServer server([gate](const CameRequest&) { gate.wait(); return HttpAnswer(200); });
  ClientSettings settings = SettingsFor(server.url());
  settings.max_connections = 1;
  ServiceClient client(settings);
  auto first = std::async(std::launch::async, [&] { return client.Get("/").status; });
  while (server.came().empty()) std::this_thread::yield();
  EXPECT_EQ(Code([&] { client.Get("/", {.timeout = 150ms}); }), "OVERLOADED");
  auto second = std::async(std::launch::async, [&] { return client.Get("/").status; });
  go.set_value();
  EXPECT_EQ(first.get(), 200);
  EXPECT_EQ(second.get(), 200);
  EXPECT_EQ(server.connections(), 1);
}

TEST(ServiceClient, AKeptConnectionThatWasClosedIsReplacedWithoutAWord) {
  HttpServer server([](const CameRequest&) { return HttpAnswer(200, "x"); });
  ServiceClient client(SettingsFor(server.url()));
  client.Get("/");
  server.CloseConnections();
  for (const char* method : {"GET", "POST"}) {
    EXPECT_EQ(client.Send({method, "/", "b", "text/plain"}).status, 200);
    server.CloseConnections();
  }
  EXPECT_EQ(server.came().size(), 3u);
}

TEST(ServiceClient, WhatMayNotBeRepeatedIsSentOnceEvenWhenAKeptConnectionIsLost) {
  HttpServer server([](const CameRequest& came) { return came.method == "GET" ? HttpAnswer(200) : ""; });
  for (const char* body : {"b", ""}) {
    const size_t before = server.came().size();
    ServiceClient client(SettingsFor(server.url()));
    client.Get("/");
    EXPECT_EQ(Code([&] { client.Send({"POST", "/", body, "text/plain"}); }), "CONNECTION_LOST");
    EXPECT_EQ(server.came().size(), before + 2) << body;
    EXPECT_EQ(client.counts().retries, 0);
  }
}

TEST(ServiceClient, ACallEndsInTimeWhateverTheServiceDoes) {
  std::promise<void> go;
  std::shared_future<void> gate = go.get_future().share();
  HttpServer server([gate](const CameRequest& came) {
    if (came.target == "/slow") gate.wait();
    return came.target == "/half" ? "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf" : HttpAnswer(200);
  });
  ClientSettings settings = SettingsFor(server.url());
  settings.timeout = 400ms;
  settings.attempt_timeout = 150ms;
  settings.retries = 10;
  settings.breaker_failures = settings.breaker_percent = 0;
  ServiceClient client(settings);
  for (const char* path : {"/slow", "/half"}) {
    const auto began = Clock::now();
    EXPECT_EQ(Code([&] { client.Get(path); }), "TIMEOUT");
    EXPECT_LT(Clock::now() - began, 2s);
    EXPECT_GE(Clock::now() - began, 300ms);
  }
  EXPECT_GE(client.counts().retries, 1);
  const size_t before = server.came().size();
  EXPECT_EQ(Code([&] { client.Post("/slow", 1, {.timeout = 60ms}); }), "TIMEOUT");
  EXPECT_EQ(server.came().size(), before + 1);
  go.set_value();
}

TEST(ServiceClient, TheDeadlineOfARunEndsItsCallsAndSoDoesItsCancelling) {
  std::promise<void> go;
  std::shared_future<void> gate = go.get_future().share();
  HttpServer server([gate](const CameRequest&) { gate.wait(); return HttpAnswer(200); });
  ServiceClient client(SettingsFor(server.url()));
  {
    TestJob job(200ms);
    const CurrentWork scope(job);
    const auto began = Clock::now();
    EXPECT_EQ(Code([&] { client.Post("/", 1); }), "TIMEOUT");
    EXPECT_LT(Clock::now() - began, 2s);
  }
  TestJob job(60s);
  std::thread later([&] {
    while (server.came().size() < 2) std::this_thread::yield();
    job.cancelled_ = true;
  });
  const CurrentWork scope(job);
  EXPECT_THROW(client.Post("/", 1), JobCancelled);
  later.join();
  EXPECT_THROW(client.Post("/", 1), JobCancelled);  // before it is sent
  EXPECT_EQ(server.came().size(), 2u);
  EXPECT_EQ(client.breaker(), BreakerState::kClosed);
  go.set_value();
}

TEST(ServiceClient, WhatIsSafeIsTriedAgainAndWhatIsNotOnlyWithAKey) {
  HttpServer server([](const CameRequest& came) { return HttpAnswer(came.number % 3 == 0 ? 200 : came.number % 3 == 1 ? 503 : 502); });
  ServiceClient client(SettingsFor(server.url()));
  EXPECT_EQ(client.Get("/").attempts, 3);
  EXPECT_EQ(client.Post("/", 1, {.idempotency_key = "k-1"}).attempts, 3);
  for (size_t i : {3, 4, 5}) EXPECT_EQ(server.came().at(i).headers.at("idempotency-key"), "k-1");
  EXPECT_EQ(client.Post("/", 1).status, 503);
  EXPECT_EQ(server.came().size(), 7u);
  EXPECT_EQ(client.counts().retries, 4);
}

TEST(ServiceClient, ALostConnectionIsTriedAgainAndAKeptOneIsReplacedAtOnce) {
  HttpServer server([](const CameRequest& came) { return came.number % 3 == 1 ? "" : HttpAnswer(200); });
  ServiceClient client(SettingsFor(server.url()));
  EXPECT_EQ(client.Get("/").attempts, 2);  // the first was a fresh connection
  EXPECT_EQ(client.Get("/").attempts, 1);
  EXPECT_EQ(client.Get("/").attempts, 1);  // libcurl finds the kept one dead, and sends it once more: on a fresh one, so never twice
  EXPECT_EQ(server.came().size(), 5u);
  EXPECT_EQ(client.counts().retries, 1);
}

TEST(ServiceClient, AStatusThatStaysIsTheAnswer) {
  HttpServer server([](const CameRequest&) { return HttpAnswer(503, "down"); });
  ServiceClient client(SettingsFor(server.url()));
  const ClientResponse response = client.Get("/");
  EXPECT_EQ(response.status, 503);
  EXPECT_EQ(response.body, "down");
  EXPECT_EQ(response.attempts, 3);
  EXPECT_EQ(client.counts().failures, 1);
}

TEST(ServiceClient, RetryAfterIsWaitedForUpToTheDeadline) {
  HttpServer server([](const CameRequest& came) { return came.number == 1 ? HttpAnswer(429, "", "retry-after: 1\r\n") : HttpAnswer(200); });
  ServiceClient client(SettingsFor(server.url()));
  const auto began = Clock::now();
  EXPECT_EQ(client.Get("/").status, 200);
  EXPECT_GE(Clock::now() - began, 1s);
  HttpServer patient([](const CameRequest&) { return HttpAnswer(429, "", "retry-after: 60\r\n"); });
  ServiceClient other(SettingsFor(patient.url()));
  EXPECT_EQ(other.Get("/").status, 429);  // the call has 30 s
  EXPECT_EQ(patient.came().size(), 1u);
}

TEST(ServiceClient, RetriesNeverMultiplyAnOutage) {
  HttpServer server([](const CameRequest&) { return HttpAnswer(503); });
  ClientSettings settings = SettingsFor(server.url());
  settings.breaker_failures = settings.breaker_percent = 0;
  ServiceClient client(settings);
  for (int i = 0; i < 100; ++i) client.Get("/");
  // A tenth of a second each at most for those that were tried again.
  EXPECT_LE(server.came().size(), 100u + 20 + 10 + 10);
  EXPECT_GE(server.came().size(), 100u + 20);
}

TEST(ServiceClient, TheBreakerOpensRefusesAtOnceAndHeals) {
  std::atomic<bool> up{false};
  HttpServer server([&up](const CameRequest&) { return HttpAnswer(up ? 200 : 500); });
  ClientSettings settings = SettingsFor(server.url());
  settings.breaker_failures = 3;
  settings.breaker_open = 300ms;
  ServiceClient client(settings);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(client.Get("/").status, 500);
  EXPECT_EQ(client.breaker(), BreakerState::kOpen);
  const auto began = Clock::now();
  for (int i = 0; i < 20; ++i) {
    try {
      client.Get("/");
      FAIL() << "it was asked";
    } catch (const ClientError& error) {
      EXPECT_EQ(error.code(), "CIRCUIT_OPEN");
      EXPECT_TRUE(error.transient());
      ASSERT_TRUE(error.retry_after());
      EXPECT_LE(*error.retry_after(), 300ms);
      EXPECT_GT(*error.retry_after(), 0ms);
    }
  }
  EXPECT_TRUE(server.came().size() == 3 || Clock::now() - began >= 300ms);
  EXPECT_EQ(client.counts().refused, 20);
  up = true;
  while (client.breaker() != BreakerState::kClosed) {
    std::string code = Code([&] { client.Get("/"); });
    EXPECT_TRUE(code.empty() || code == "CIRCUIT_OPEN") << code;
    ASSERT_LT(Clock::now() - began, 10s);
  }
  EXPECT_EQ(client.Get("/").status, 200);
}

TEST(ServiceClient, FailuresAre5xxAndNoAnswersAnd4xxAreNone) {
  HttpServer server([](const CameRequest&) { return HttpAnswer(404); });
  ServiceClient client(SettingsFor(server.url()));
  for (int i = 0; i < 50; ++i) EXPECT_EQ(client.Get("/").status, 404);
  EXPECT_EQ(client.breaker(), BreakerState::kClosed);
  ServiceClient lost(SettingsFor(NobodysUrl()));
  std::string message;
  for (int i = 0; i < 5 && lost.breaker() == BreakerState::kClosed; ++i) EXPECT_EQ(Code([&] { lost.Post("/x?y=1", 1); }, &message), "CONNECT_FAILED");
  EXPECT_EQ(lost.breaker(), BreakerState::kOpen);
  EXPECT_THAT(message, HasSubstr("client \"shop\": POST /x: "));
  EXPECT_EQ(Code([&] { lost.Get("/"); }), "CIRCUIT_OPEN");
}

TEST(ServiceClient, ABodyBeyondTheBoundIsAnErrorWhetherItIsAnnouncedOrNot) {
  HttpServer server([](const CameRequest& came) {
    const std::string body(came.target == "/fits" ? 1'000 : 1'001, 'x');
    if (came.target != "/chunked") return HttpAnswer(200, body);
    return "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3e9\r\n" + body + "\r\n0\r\n\r\n";
  });
  ClientSettings settings = SettingsFor(server.url());
  settings.max_body = 1'000;
  ServiceClient client(settings);
  EXPECT_EQ(client.Get("/fits").body.size(), 1'000u);
  EXPECT_EQ(Code([&] { client.Get("/long"); }), "BODY_TOO_LARGE");
  EXPECT_EQ(Code([&] { client.Get("/chunked"); }), "BODY_TOO_LARGE");
  EXPECT_EQ(server.came().size(), 3u);
  HttpServer talkative([](const CameRequest&) { return HttpAnswer(200, "", "x: " + std::string(kMaxClientHead, 'h') + "\r\n"); });
  ServiceClient other(SettingsFor(talkative.url()));
  EXPECT_NE(Code([&] { other.Get("/"); }), "");
}

TEST(ServiceClient, RedirectsAndInterimAnswersAreNotFollowed) {
  HttpServer elsewhere([](const CameRequest&) { return HttpAnswer(200); });
  HttpServer server([&](const CameRequest&) {
    return "HTTP/1.1 100 Continue\r\nx-interim: 1\r\n\r\n" + HttpAnswer(302, "", "location: " + elsewhere.url() + "/\r\n");
  });
  ServiceClient client(SettingsFor(server.url()));
  const ClientResponse response = client.Get("/");
  EXPECT_EQ(response.status, 302);
  EXPECT_EQ(response.header("location"), elsewhere.url() + "/");
  EXPECT_FALSE(response.header("x-interim"));
  EXPECT_EQ(elsewhere.connections(), 0);
}

TEST(ServiceClient, AnAuthorsMistakesAreToldBeforeAnythingIsSent) {
  HttpServer server([](const CameRequest&) { return HttpAnswer(200, "no json"); });
  ClientSettings settings = SettingsFor(server.url() + "/api");
  settings.headers = {{"x-tenant", "7"}};
  ServiceClient client(settings);
  for (const ClientOptions& options : {ClientOptions{.headers = {{"x", "a\r\nevil: 1"}}}, ClientOptions{.headers = {{"evil\r\n", "1"}}},
                                     ClientOptions{.headers = {{"Authorization", "mine"}}}, ClientOptions{.headers = {{"X-Tenant", "8"}}},
                                     ClientOptions{.headers = {{"host", "other"}}}, ClientOptions{.idempotency_key = "a\nb"}})
    EXPECT_EQ(Code([&] { client.Get("/", options); }), "INVALID_REQUEST");
  for (const char* path : {"/../admin", "http://other/", "/a\r\nhost: other", "//..//"}) EXPECT_EQ(Code([&] { client.Get(path); }), "INVALID_REQUEST") << path;
  EXPECT_EQ(Code([&] { client.Send({"CONNECT", "/"}); }), "INVALID_REQUEST");
  EXPECT_EQ(Code([&] { client.Send({"POST", "/", "x", "text/plain\r\nevil: 1"}); }), "INVALID_REQUEST");
  EXPECT_TRUE(server.came().empty());
  EXPECT_EQ(client.counts().calls, 0);
  EXPECT_EQ(Code([&] { client.Get("/").json(); }), "INVALID_ANSWER");
}

TEST(ServiceClient, SettingsThatCantBeUsedAreRefused) {
  ClientSettings settings = SettingsFor("ftp://shop");
  EXPECT_THROW(ServiceClient{settings}, std::invalid_argument);
  settings = SettingsFor("http://shop");
  settings.headers = {{"a b", "c"}};
  EXPECT_THROW(ServiceClient{settings}, std::invalid_argument);
  settings = SettingsFor("http://shop");
  settings.timeout = 0ms;
  EXPECT_THROW(ServiceClient{settings}, std::invalid_argument);
}

}  // namespace
}  // namespace bulkhead::sdk
