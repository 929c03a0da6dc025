// Calling another module: the reader of answers by itself, then the client before a gateway that the test plays.
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <deque>
#include <filesystem>
#include <functional>
#include <thread>

#include "call_response.h"
#include "current_work.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "module_calls.h"

namespace bulkhead::sdk {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using testing::HasSubstr;
using Progress = ResponseReader::Progress;

struct ReadAnswer {
  Progress progress;
  int status;
  std::string body;
  bool keeps_alive;
  Headers headers;
};

// In pieces of `size` bytes.
ReadAnswer ReadWhole(std::string_view bytes, size_t size, bool head_only = false) {
  ResponseReader reader(head_only);
  ReadAnswer answer{Progress::kMore, 0, {}, false, {}};
  const auto take = [&](std::string_view piece) {
    answer.body.append(piece);
    return true;
  };
  while (!bytes.empty() && answer.progress == Progress::kMore) {
    answer.progress = reader.Take(bytes.substr(0, size), take);
    bytes.remove_prefix(std::min(size, bytes.size()));
  }
  answer.status = reader.status();
  answer.keeps_alive = reader.keeps_alive();
  answer.headers = reader.headers();
  return answer;
}

TEST(CallResponse, IsReadHoweverItIsCut) {
  const std::string length = "HTTP/1.1 201 Created\r\nX-A:  b \r\ncontent-length: 5\r\n\r\nhello";
  const std::string chunked =
      "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
      "5;ext=1\r\nhello\r\n6\r\n world\r\n0\r\nx-trailer: 1\r\n\r\n";
  for (size_t size = 1; size <= chunked.size(); ++size) {
    ReadAnswer answer = ReadWhole(length, size);
    EXPECT_EQ(answer.progress, Progress::kDone) << size;
    EXPECT_EQ(answer.status, 201);
    EXPECT_EQ(answer.body, "hello");
    EXPECT_TRUE(answer.keeps_alive);
    EXPECT_THAT(answer.headers, testing::Contains(testing::Pair("x-a", "b")));
    answer = ReadWhole(chunked, size);
    EXPECT_EQ(answer.progress, Progress::kDone) << size;
    EXPECT_EQ(answer.body, "hello world");
  }
}

TEST(CallResponse, WithoutABodyEndsWithItsHead) {
  EXPECT_EQ(ReadWhole("HTTP/1.1 204 No Content\r\n\r\n", 7).progress, Progress::kDone);
  EXPECT_EQ(ReadWhole("HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", 7).progress, Progress::kDone);
  EXPECT_EQ(ReadWhole("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", 7, true).progress, Progress::kDone);
  EXPECT_EQ(ReadWhole("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 7).progress, Progress::kDone);
}

TEST(CallResponse, SaysWhetherTheConnectionMayBeKept) {
  EXPECT_FALSE(ReadWhole("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", 100).keeps_alive);
  EXPECT_FALSE(ReadWhole("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", 100).keeps_alive);
  EXPECT_FALSE(ReadWhole("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab", 100).keeps_alive) << "bytes that belong to no answer";
}

TEST(CallResponse, ThatIsMalformedIsRefused) {
  for (const char* bytes : {
           "HTTP/2 200 OK\r\n\r\n", "HTTP/1.1 abc\r\n\r\n", "HTTP/1.1 20\r\n\r\n", "HTTP/1.1 099 X\r\n\r\n", "HTTP/1.1 2000 X\r\n\r\n",
           "HTTP/1.1 101 Switching Protocols\r\n\r\n", "HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "HTTP/1.1 200 OK\r\n: x\r\n\r\n",
           "HTTP/1.1 200 OK\r\na b: x\r\n\r\n",
           "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello", "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
           "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n", "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
           "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n",
           "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\na\r\n"}) {
    EXPECT_EQ(ReadWhole(bytes, 1000).progress, Progress::kMalformed) << bytes;
    EXPECT_EQ(ReadWhole(bytes, 1).progress, Progress::kMalformed) << bytes;
  }
  EXPECT_EQ(ReadWhole("HTTP/1.1 200 OK\r\n" + std::string(200'000, 'x'), 1000).progress, Progress::kMalformed) << "without an end";
}

TEST(CallResponse, ThatBreaksOffIsNotWhole) {
  const auto ignore = [](std::string_view) { return true; };
  for (const char* bytes : {"", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell",
                            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"}) {
    ResponseReader reader(false);
    reader.Take(bytes, ignore);
    EXPECT_EQ(reader.End(), Progress::kMalformed) << bytes;
  }
  ResponseReader reader(false);
  reader.Take("HTTP/1.1 200 OK\r\n\r\nall", ignore);
  EXPECT_EQ(reader.End(), Progress::kDone) << "of a body that ends with the connection";
}

// A gateway that answers each request as the test says; the answer "" closes the connection instead.
class FakeGateway {
 public:
  using Handler = std::function<std::string(const std::string& request, int connection)>;
  explicit FakeGateway(Handler answer) : answer_(std::move(answer)) {
    char name[] = "/tmp/bulkhead-calls-XXXXXX";
    folder_ = mkdtemp(name);
    sockaddr_un at{};
    at.sun_family = AF_UNIX;
    path().copy(at.sun_path, sizeof at.sun_path - 1);
    listener_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&at), sizeof at), 0);
    EXPECT_EQ(listen(listener_, 64), 0);
    thread_ = std::thread([this] { Serve(); });
  }
  ~FakeGateway() {
    stop_ = true;
    thread_.join();
    for (auto& [fd, in] : connections_) {
      if (fd >= 0) close(fd);
    }
    close(listener_);
    std::filesystem::remove_all(folder_);
  }
  std::string path() const { return folder_ + "/calls"; }
  int connections() const { return accepted_; }
  std::atomic<bool> reads{true};

 private:
  void Serve() {
    while (!stop_) {
      std::vector<pollfd> fds = {{listener_, POLLIN, 0}};
      for (auto& [fd, in] : connections_) fds.push_back({fd, short(reads ? POLLIN : 0), 0});
      if (poll(fds.data(), fds.size(), 10) <= 0) continue;
      for (size_t i = 1; i < fds.size(); ++i) {
        if (fds[i].revents) OnReadable(int(i - 1));
      }
      if (fds[0].revents) {
        connections_.push_back({accept(listener_, nullptr, nullptr), {}});
        ++accepted_;
      }
    }
  }
  void OnReadable(int number) {
    auto& [fd, in] = connections_[size_t(number)];
    char buffer[65536];
    const ssize_t n = recv(fd, buffer, sizeof buffer, 0);
    if (n > 0) in.append(buffer, size_t(n));
    const size_t end = in.find("\r\n\r\n");
    if (n > 0 && end == std::string::npos) return;
    const std::string reply = n > 0 ? answer_(in, number) : "";
    in.clear();
    if (!reply.empty()) {
      (void)!send(fd, reply.data(), reply.size(), MSG_NOSIGNAL);
      return;
    }
    close(std::exchange(fd, -1));
  }

  const Handler answer_;
  std::string folder_;
  int listener_ = -1;
  std::atomic<int> accepted_{0};
  std::atomic<bool> stop_{false};
  std::vector<std::pair<int, std::string>> connections_;
  std::thread thread_;
};

std::string Whole(const std::string& body, const std::string& status = "200 OK") {
  return "HTTP/1.1 " + status + "\r\ncontent-length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

TEST(ModuleCalls, KeepTheirConnection) {
  std::string asked;
  FakeGateway gateway([&](const std::string& request, int) {
    asked = request;
    return Whole(R"({"success":true,"data":{"price":7}})");
  });
  ModuleCalls calls(gateway.path(), "the-token");
  const ModuleClient prices(calls, "pricing-engine");
  for (int i = 0; i < 5; ++i) EXPECT_EQ(prices.Get("/prices/1?x=2").data()["price"], 7);
  EXPECT_EQ(gateway.connections(), 1);
  EXPECT_THAT(asked, testing::StartsWith("GET /api/v1/m/pricing-engine/prices/1?x=2 HTTP/1.1\r\n"));
  EXPECT_THAT(asked, HasSubstr("\r\nx-bulkhead-token: the-token\r\n"));
  EXPECT_THAT(asked, HasSubstr("\r\nx-bulkhead-timeout-ms: "));
  EXPECT_THAT(asked, testing::Not(HasSubstr("content-length")));
  prices.Post("/prices", {{"sku", 1}});
  EXPECT_THAT(asked, HasSubstr("\r\ncontent-type: application/json\r\n\r\n{\"sku\":1}"));
  prices.Call("POST", "/prices", "");
  EXPECT_THAT(asked, HasSubstr("\r\ncontent-length: 0\r\n"));
}

TEST(ModuleCalls, OnAKeptConnectionThatWasClosedAreSentOnceMoreWhenTheyAreSafe) {
  std::atomic<int> asked{0};
  FakeGateway gateway([&](const std::string&, int connection) {
    const int number = ++asked;
    return connection == 0 && number == 2 ? "" : Whole("x");  // closed when it is used again
  });
  ModuleCalls calls(gateway.path(), "t");
  const ModuleClient client(calls, "m");
  EXPECT_EQ(client.Get("/").body, "x");
  EXPECT_EQ(client.Get("/").body, "x");
  EXPECT_EQ(gateway.connections(), 2);
  EXPECT_EQ(asked, 3);
}

TEST(ModuleCalls, ThatChangeSomethingAreNotSentAgain) {
  std::atomic<int> asked{0};
  FakeGateway gateway([&](const std::string&, int) { return ++asked == 2 ? "" : Whole("x"); });
  ModuleCalls calls(gateway.path(), "t");
  const ModuleClient client(calls, "m");
  EXPECT_EQ(client.Get("/").status, 200);
  try {
    client.Post("/", 1);
    FAIL() << "it was answered";
  } catch (const ModuleCallError& error) {
    EXPECT_TRUE(error.transient());
    EXPECT_EQ(error.status(), 0);
  }
  EXPECT_EQ(asked, 2);
}

TEST(ModuleCalls, OfAGatewayThatClosesEveryConnectionFail) {
  std::atomic<int> asked{0};
  FakeGateway gateway([&](const std::string&, int) {
    ++asked;
    return "";
  });
  ModuleCalls calls(gateway.path(), "t");
  EXPECT_THROW(ModuleClient(calls, "m").Get("/"), ModuleCallError);
  EXPECT_EQ(asked, 1) << "the connection was a new one: it was no kept one that had been closed";
}

TEST(ModuleCalls, EndInTheirTime) {
  FakeGateway gateway([&](const std::string&, int connection) { return connection == 0 ? "HTTP/1.1 200 OK\r\n" : Whole("x"); });
  ModuleCalls calls(gateway.path(), "t");
  const ModuleClient client(calls, "m");
  const auto began = steady_clock::now();
  try {
    client.Get("/", {.timeout = milliseconds(150)});
    FAIL() << "it was answered";
  } catch (const ModuleCallError& error) {
    EXPECT_TRUE(error.transient());
    EXPECT_THAT(error.what(), HasSubstr("in time"));
  }
  EXPECT_GE(steady_clock::now() - began, milliseconds(150));
  EXPECT_LT(steady_clock::now() - began, milliseconds(3'000));
  EXPECT_EQ(client.Get("/").body, "x") << "on another connection: the late answer is nobody's";
  // Nor does one wait whose body nobody reads.
  gateway.reads = false;
  std::this_thread::sleep_for(milliseconds(50));  // it may be waiting for bytes as it did before
  EXPECT_THROW(client.Call("POST", "/", std::string(8 << 20, 'x'), {.timeout = milliseconds(150)}), ModuleCallError);
}

class Patient : public BodySource {
 public:
  size_t Read(char*, size_t) override { return 0; }
  bool cancelled() const override { return gone; }
  std::atomic<bool> gone{false};
};

TEST(ModuleCalls, HaveTheTimeOfTheRequestTheyAreMadeForAndEndWithIt) {
  std::string asked;
  FakeGateway gateway([&](const std::string& request, int) {
    asked = request;
    return request.find("/silent") == std::string::npos ? Whole("x") : "HTTP/1.1 ";
  });
  ModuleCalls calls(gateway.path(), "t");
  const ModuleClient client(calls, "m");
  Request request("GET", "/", {{"x-bulkhead-timeout-ms", "2000"}, {"x-bulkhead-hops", "3"}, {"x-request-id", "abc"},
                               {"traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}});
  request.set_arrived(steady_clock::now());
  Patient source;
  request.set_source(&source, 0);
  ASSERT_TRUE(request.deadline());
  const CurrentTrace::Scope trace(request);
  const CurrentWork work(request);
  EXPECT_EQ(client.Get("/").status, 200);
  EXPECT_THAT(asked, testing::AnyOf(HasSubstr("x-bulkhead-timeout-ms: 2000\r\n"), HasSubstr("x-bulkhead-timeout-ms: 1")));
  EXPECT_THAT(asked, HasSubstr("\r\nx-bulkhead-hops: 3\r\n"));
  EXPECT_THAT(asked, HasSubstr("\r\nx-request-id: abc\r\n"));
  EXPECT_THAT(asked, HasSubstr("\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"));
  EXPECT_EQ(client.Get("/", {.headers = {{"traceparent", "00-0af7651916cd43dd8448eb211c80319c-1111111111111111-01"}}}).status, 200);
  EXPECT_THAT(asked, testing::Not(HasSubstr("b7ad6b7169203331")));
  std::thread leaving([&] {
    std::this_thread::sleep_for(milliseconds(50));
    source.gone = true;
  });
  const auto began = steady_clock::now();
  EXPECT_THROW(client.Get("/silent"), RequestCancelled);
  EXPECT_LT(steady_clock::now() - began, milliseconds(1'500));
  leaving.join();
  EXPECT_THROW(client.Get("/"), RequestCancelled) << "not even begun";
}

TEST(ModuleCalls, HearAnAnswerThatComesBeforeTheBodyIsSent) {
  FakeGateway gateway([&](const std::string&, int) { return Whole("too much", "413 Content Too Large"); });
  ModuleCalls calls(gateway.path(), "t");
  const CallAnswer answer = ModuleClient(calls, "m").Call("POST", "/", std::string(8 << 20, 'x'));
  EXPECT_EQ(answer.status, 413);
  EXPECT_EQ(answer.body, "too much");
}

TEST(ModuleCalls, TakeNoMoreOfAnAnswerThanTheyWant) {
  FakeGateway gateway([&](const std::string&, int) { return Whole(std::string(5'000, 'x')); });
  ModuleCalls calls(gateway.path(), "t");
  const ModuleClient client(calls, "m");
  try {
    client.Get("/", {.max_body = 4'999});
    FAIL() << "it was taken";
  } catch (const ModuleCallError& error) {
    EXPECT_FALSE(error.transient());
    EXPECT_EQ(error.status(), 200);
  }
  EXPECT_EQ(client.Get("/", {.max_body = 5'000}).body.size(), 5'000u);
  size_t seen = 0;
  const CallAnswer streamed = client.Get("/", {.max_body = 1, .on_body = [&](std::string_view piece) { return (seen += piece.size()) < 10; }});
  EXPECT_EQ(streamed.status, 200);
  EXPECT_GE(seen, 10u);
  EXPECT_TRUE(streamed.body.empty());
}

TEST(ModuleCalls, ThatAreMalformedAreNotSent) {
  FakeGateway gateway([&](const std::string&, int) { return Whole("x"); });
  ModuleCalls calls(gateway.path(), "t");
  for (const char* path : {"", "x", "/a b", "/a\r\nx: y", "/a#b"}) EXPECT_THROW(ModuleClient(calls, "m").Get(path), std::invalid_argument) << path;
  for (const char* module : {"", "a/b", "a b"}) EXPECT_THROW(ModuleClient(calls, module).Get("/"), std::invalid_argument) << module;
  for (const char* name : {"", "a b", "a:b", "Host", "x-bulkhead-subject", "Content-Length"}) {
    EXPECT_THROW(ModuleClient(calls, "m").Get("/", {.headers = {{name, "1"}}}), std::invalid_argument) << name;
  }
  EXPECT_THROW(ModuleClient(calls, "m").Get("/", {.headers = {{"a", "1\r\nb: 2"}}}), std::invalid_argument);
  EXPECT_EQ(gateway.connections(), 0);
}

TEST(ModuleCalls, WithoutASupervisorThatOffersThemSaySo) {
  ModuleCalls none("", "t"), nobody("/tmp/bulkhead-no-such-socket", "t");
  try {
    ModuleClient(none, "m").Get("/");
    FAIL();
  } catch (const ModuleCallError& error) {
    EXPECT_FALSE(error.transient());
  }
  try {
    ModuleClient(nobody, "m").Get("/");
    FAIL();
  } catch (const ModuleCallError& error) {
    EXPECT_TRUE(error.transient());
  }
}

TEST(CallAnswer, GivesTheDataOfTheEnvelopeOrTheErrorInIt) {
  EXPECT_EQ((CallAnswer{200, {}, R"({"success":true,"data":[1,2]})"}).data(), Json({1, 2}));
  EXPECT_EQ((CallAnswer{204, {}, ""}).data(), Json());
  try {
    CallAnswer{503, {}, R"({"success":false,"error":{"code":"MODULE_UNAVAILABLE","message":"Try again."}})"}.data();
    FAIL();
  } catch (const ModuleCallError& error) {
    EXPECT_EQ(error.status(), 503);
    EXPECT_EQ(error.code(), "MODULE_UNAVAILABLE");
    EXPECT_TRUE(error.transient());
    EXPECT_THAT(error.what(), HasSubstr("Try again."));
  }
  for (const char* body : {"", "plain text", "[]", R"({"error":"no object"})", R"({"error":{"code":7}})"}) {
    try {
      CallAnswer{404, {}, body}.data();
      FAIL();
    } catch (const ModuleCallError& error) {
      EXPECT_EQ(error.code(), "");
      EXPECT_FALSE(error.transient());
    }
  }
  EXPECT_THROW((CallAnswer{200, {}, "no JSON"}).data(), ModuleCallError);
}

}  // namespace
}  // namespace bulkhead::sdk
