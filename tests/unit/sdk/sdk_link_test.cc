// The module's end of the data link, frame by frame.
#include <gtest/gtest.h>

#include <fstream>
#include <thread>

#include "harness.h"

namespace bulkhead::sdk_test {
namespace {

using link::CancelCode;
using link::Type;

TEST(Link, GreetsAndRoutes) {
  ModuleProcess module;
  Link link(module.data_socket());
  auto hello = link.Next();
  ASSERT_TRUE(hello);
  EXPECT_EQ(hello->header.type, Type::kHello);
  auto values = link::GetHello(hello->payload);
  ASSERT_TRUE(values);
  EXPECT_EQ(values->version, link::kVersion);
  EXPECT_TRUE(values->token.empty());
  Answer answer = link.Ask("GET", "/hello/w%C3%B6rld?x=1");
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.headers["content-type"], "application/json; charset=utf-8");
  EXPECT_EQ(answer.json(), Json::parse("{\"success\":true,\"data\":{\"hello\":\"w\xC3\xB6rld\",\"greeting\":\"\"}}"));
}

TEST(Link, RefusesAWrongToken) {
  ModuleProcess module;
  for (std::string token : {std::string(), std::string("wrong"), std::string(kToken) + "0", std::string(32, '0')}) {
    Link link(module.data_socket(), token);
    link.Send("GET", "/hello/you");
    EXPECT_FALSE(link.Next()) << token;
  }
}

TEST(Link, ReadsParametersQueryAndIdentity) {
  ModuleProcess module;
  Link link(module.data_socket());
  EXPECT_EQ(link.Ask("GET", "/inline/a%2Fb").body, "a/b");
  EXPECT_EQ(link.Ask("GET", "/files/a/b%20c/d").body, "a/b c/d");
  EXPECT_EQ(link.Ask("GET", "/query?limit=7&tag=a&tag=b+c").json()["data"],
            Json::parse(R"({"limit":7,"tags":["a","b c"],"q":"none"})"));
  Answer bad = link.Ask("GET", "/query?limit=0", {{"x-request-id", "r-7"}});
  EXPECT_EQ(bad.status, 400);
  EXPECT_EQ(bad.json()["error"]["code"], "INVALID_ARGUMENT");
  EXPECT_EQ(bad.json()["error"]["requestId"], "r-7");
  EXPECT_EQ(link.Ask("GET", "/hello/%zz").status, 400);
  Answer who = link.Ask("GET", "/identity",
                        {{"x-bulkhead-subject", "anna"},
                         {"x-bulkhead-roles", "viewer"},
                         {"x-bulkhead-permissions", "readings:*"},
                         {"x-request-id", "r-8"},
                         {"traceparent", "00-1-2-01"},
                         {"x-forwarded-for", "10.0.0.1, 10.0.0.2"}});
  EXPECT_EQ(who.json()["data"],
            Json::parse(R"({"subject":"anna","roles":["viewer"],"may":true,"id":"r-8","trace":"00-1-2-01","from":"10.0.0.1"})"));
}

TEST(Link, AnswersUnknownPathsAndMethodsItself) {
  ModuleProcess module;
  Link link(module.data_socket());
  EXPECT_EQ(link.Ask("GET", "/nowhere").status, 404);
  Answer method = link.Ask("DELETE", "/hello/you");
  EXPECT_EQ(method.status, 405);
  EXPECT_EQ(method.headers["allow"], "GET, HEAD");
  EXPECT_EQ(method.json()["error"]["code"], "METHOD_NOT_ALLOWED");
  // The body of a request that nobody handles is dropped, and the connection lives on.
  uint32_t stream = link.Send("POST", "/nowhere", {}, "abc", false);
  EXPECT_EQ(link.Await(stream).status, 404);
  link.Data(stream, "more", true);
  EXPECT_EQ(link.Ask("GET", "/hello/you").status, 200);
}

TEST(Link, KeepsWhatAHandlerThrowsToItself) {
  ModuleProcess module;
  Link link(module.data_socket());
  Answer thrown = link.Ask("GET", "/throw", {{"x-request-id", "r-9"}});
  EXPECT_EQ(thrown.status, 500);
  EXPECT_EQ(thrown.json()["error"]["code"], "INTERNAL");
  EXPECT_EQ(thrown.json()["error"]["requestId"], "r-9");
  EXPECT_EQ(thrown.body.find("secret"), std::string::npos);
  EXPECT_TRUE(module.Logged("the secret of this module"));
  EXPECT_NE(module.Log().find("r-9"), std::string::npos);
  Answer meant = link.Ask("GET", "/teapot");
  EXPECT_EQ(meant.status, 418);
  EXPECT_EQ(meant.json()["error"]["message"], "short and stout");
  EXPECT_EQ(meant.json()["error"]["details"], Json::parse(R"([{"path":"spout"}])"));
}

TEST(Link, NeverSendsAHeaderThatWouldSplitTheAnswer) {
  ModuleProcess module;
  Link link(module.data_socket());
  Answer answer = link.Ask("GET", "/bad-header");
  EXPECT_EQ(answer.status, 500);
  EXPECT_EQ(answer.headers.count("x-evil"), 0u);
}

TEST(Link, AnswersHeadWithoutABody) {
  ModuleProcess module;
  Link link(module.data_socket());
  for (std::string target : {"/hello/you", "/large/100000", "/stream/100000"}) {
    Answer answer = link.Ask("HEAD", target);
    EXPECT_EQ(answer.status, 200) << target;
    EXPECT_EQ(answer.body, "") << target;
    EXPECT_EQ(answer.headers.count("content-length"), 0u) << target;
  }
}

TEST(Link, EchoesBodiesOfAnySize) {
  ModuleProcess module;
  Link link(module.data_socket());
  EXPECT_EQ(link.Ask("POST", "/echo", {}, "abc").body, "abc");
  EXPECT_EQ(link.Ask("POST", "/echo", {}, "").body, "");
  // Larger than both windows: the module gives credit while it gathers, and waits for ours while it answers.
  std::string body(1'000'000, 'e');
  for (std::string target : {"/echo", "/echo-inline"}) {
    uint32_t stream = link.Send("POST", target, {}, {}, false);
    size_t credit = link::kWindow, sent = 0;
    while (sent < body.size()) {
      if (credit == 0) {
        auto frame = link.Next();
        ASSERT_TRUE(frame);
        if (frame->header.type == Type::kHello) continue;
        ASSERT_EQ(frame->header.type, Type::kWindow);
        credit += link::internal::Get32(frame->payload.data());
      }
      size_t n = std::min({credit, body.size() - sent, size_t(link::kMaxFrame)});
      link.Data(stream, std::string_view(body).substr(sent, n), sent + n == body.size());
      sent += n;
      credit -= n;
    }
    Answer answer = link.Await(stream);
    EXPECT_EQ(answer.body.size(), body.size());
    EXPECT_TRUE(answer.body == body);
    EXPECT_EQ(answer.headers["content-length"], "1000000");
  }
}

TEST(Link, ReadsAStreamedBodyUnderCredit) {
  ModuleProcess module;
  Link link(module.data_socket());
  link.Next();
  uint32_t stream = link.Send("POST", "/sum-gated", {}, {}, false);
  std::string chunk(64 * 1024, 'c');
  for (int i = 0; i < 4; ++i) link.Data(stream, chunk, false);
  // Nobody has read yet, so there is no credit.
  EXPECT_FALSE(link.Readable(std::chrono::milliseconds(50)));
  Link(module.data_socket()).Ask("POST", "/gate/open");
  uint32_t credit = 0;
  while (credit < link::kWindow / 2) {
    auto frame = link.Next();
    ASSERT_TRUE(frame);
    ASSERT_EQ(frame->header.type, Type::kWindow);
    credit += link::internal::Get32(frame->payload.data());
  }
  link.Data(stream, chunk, true);
  EXPECT_EQ(link.Await(stream).body, std::to_string(5 * chunk.size()));
}

TEST(Link, CutsOffASenderThatHasNoCredit) {
  ModuleProcess module;
  Link link(module.data_socket());
  uint32_t stream = link.Send("POST", "/sum-gated", {}, {}, false);
  std::string chunk(64 * 1024, 'c');
  for (int i = 0; i < 5; ++i) link.Data(stream, chunk, false);
  EXPECT_EQ(link.Await(stream).cancel_code, int(CancelCode::kProtocol));
  EXPECT_EQ(link.Ask("GET", "/hello/you").status, 200);
}

TEST(Link, RefusesABodyBeyondTheRoutesLimit) {
  ModuleProcess module;
  Link link(module.data_socket());
  EXPECT_EQ(link.Ask("POST", "/small", {}, "0123456789").status, 200);
  uint32_t stream = link.Send("POST", "/small", {}, "01234567890", false);
  Answer answer = link.Await(stream);
  EXPECT_EQ(answer.status, 413);
  EXPECT_EQ(answer.json()["error"]["code"], "BODY_TOO_LARGE");
}

TEST(Link, AnswersBeforeTheBodyIsThere) {
  ModuleProcess module;
  Link link(module.data_socket());
  uint32_t stream = link.Send("POST", "/ignore-body", {}, "first", false);
  EXPECT_EQ(link.Await(stream).body, "not read");
}

TEST(Link, ShowsTheTrailersOfARequestOnceItsBodyIsComplete) {
  ModuleProcess module;
  Link link(module.data_socket());
  for (std::string target : {"/trailers", "/trailers-streamed"}) {
    uint32_t stream = link.Send("POST", target, {}, "bo", false);
    link.Data(stream, "dy", false);
    link.Trailers(stream, {{"x-sum", "42"}, {"x-empty", ""}});
    EXPECT_EQ(link.Await(stream).body, "body x-sum=42 x-empty=") << target;
    stream = link.Send("POST", target, {}, {}, false);
    link.Trailers(stream, {{"x-sum", "0"}});
    EXPECT_EQ(link.Await(stream).body, " x-sum=0") << target;
    EXPECT_EQ(link.Ask("POST", target, {}, "body").body, "body") << target;
  }
  // Trailers of a body that nobody reads.
  uint32_t stream = link.Send("POST", "/nowhere", {}, "x", false);
  EXPECT_EQ(link.Await(stream).status, 404);
  link.Trailers(stream, {{"x-sum", "42"}});
  EXPECT_EQ(link.Ask("GET", "/hello/you").status, 200);
}

TEST(Link, RefusesTrailersThatHttpForbids) {
  ModuleProcess module;
  Link link(module.data_socket());
  for (auto [name, value] : Pairs{{"x-a", "1\r\nx-b: 2"}, {"X-A", "1"}, {"x a", "1"}, {"", "1"}}) {
    uint32_t stream = link.Send("POST", "/trailers", {}, "x", false);
    link.Trailers(stream, {{name, value}});
    EXPECT_EQ(link.Await(stream).cancel_code, int(CancelCode::kProtocol)) << name;
  }
  EXPECT_EQ(link.Ask("GET", "/hello/you").status, 200);
  uint32_t stream = link.Send("POST", "/trailers", {}, "x", false);
  std::string frame(link::kHeaderSize, '\0');
  link::PutHeader(frame.data(), {3, stream, Type::kData, uint8_t(link::kEnd | link::kTrailers), 0, 3});
  link.Raw(frame + "xyz");
  EXPECT_TRUE(link.Closes());
}

TEST(Link, StreamsWithTrailers) {
  ModuleProcess module;
  Link link(module.data_socket());
  Answer answer = link.Ask("GET", "/stream/3000000");
  EXPECT_EQ(answer.body.size(), 3'000'000u);
  EXPECT_EQ(answer.trailers["x-sum"], "3000000");
}

TEST(Link, ASlowReaderHoldsUpNobodyElse) {
  ModuleProcess module;
  Link link(module.data_socket());
  uint32_t slow = link.Send("GET", "/stream/10000000");
  uint32_t whole = link.Send("GET", "/large/1000000");
  // Without credit for them both stop at their windows; the writer's thread waits.
  size_t got_slow = 0, got_whole = 0;
  while (got_slow < link::kWindow || got_whole < link::kWindow) {
    auto frame = link.Next();
    ASSERT_TRUE(frame);
    if (frame->header.stream == slow) got_slow += frame->body().size();
    if (frame->header.stream == whole) got_whole += frame->body().size();
  }
  EXPECT_FALSE(link.Readable(std::chrono::milliseconds(50)));
  EXPECT_EQ(got_slow, link::kWindow);
  EXPECT_EQ(got_whole, link::kWindow);
  for (int i = 0; i < 100; ++i) ASSERT_EQ(link.Ask("GET", "/hello/you").status, 200);
  size_t written = std::stoul(link.Ask("GET", "/written").body);
  EXPECT_LE(written, link::kWindow + 64 * 1024 + 10'000);
  link.Window(slow, 20'000'000);
  Answer rest = link.Await(slow);
  EXPECT_EQ(got_slow + rest.body.size(), 10'000'000u);
}

TEST(Link, TakesStreamsInTurn) {
  ModuleProcess module;
  // Without credit both answers are whole in the module before a byte of either goes out, so that only the order of frames is left.
  Link link(module.data_socket(), kToken, 0);
  const uint32_t streams[] = {link.Send("GET", "/large/250000"), link.Send("GET", "/large/250000")};
  for (uint32_t stream : streams) {
    auto head = link.NextOf(stream);
    ASSERT_TRUE(head);
    ASSERT_EQ(head->header.type, Type::kResponse);
    ASSERT_EQ(head->body().size(), 0u);
  }
  std::string credit;
  for (uint32_t stream : streams) link::AppendWindow(credit, stream, 250'000);
  link.Raw(credit);
  uint32_t last = 0;
  int frames = 0, ended = 0;
  for (; ended < 2; ++frames) {
    auto frame = link.Next();
    if (frame && frame->header.type == Type::kHello) continue;
    ASSERT_TRUE(frame);
    EXPECT_TRUE(frame->header.stream != last || ended == 1) << "frame " << frames << " is of the same stream as the one before";
    last = frame->header.stream;
    ended += frame->end();
  }
  EXPECT_GE(frames, 8);
}

TEST(Link, KeepsToTheFramesThatThePeerTakes) {
  ModuleProcess module;
  Link link(module.data_socket(), kToken, link::kWindow, link::kMinMaxFrame);
  EXPECT_EQ(link.Ask("GET", "/hello/you").status, 200);
  Answer large = link.Ask("GET", "/large/20000");
  EXPECT_EQ(large.body.size(), 20'000u);
  EXPECT_EQ(large.headers["content-length"], "20000");
  Answer streamed = link.Ask("GET", "/stream/100000");
  EXPECT_EQ(streamed.body.size(), 100'000u);
  EXPECT_EQ(streamed.trailers["x-sum"], "100000");
  // A head or trailers that don't fit are an error of the module's, and the link lives on.
  EXPECT_EQ(link.Ask("GET", "/long-header/900").headers["x-long"].size(), 900u);
  Answer long_head = link.Ask("GET", "/long-header/1024");
  EXPECT_EQ(long_head.status, 500);
  EXPECT_EQ(long_head.json()["error"]["code"], "INTERNAL");
  EXPECT_TRUE(module.Logged("the headers are longer than 1024 bytes"));
  EXPECT_EQ(link.Ask("GET", "/long-trailer/1024").cancel_code, int(CancelCode::kInternal));
  EXPECT_EQ(link.Ask("GET", "/hello/you").status, 200);
  Link wide(module.data_socket());
  EXPECT_EQ(wide.Ask("GET", "/long-header/1024").headers["x-long"].size(), 1'024u);
  EXPECT_EQ(wide.Ask("GET", "/long-trailer/1024").trailers["x-long"].size(), 1'024u);
}

TEST(Link, RefusesAHelloWithLimitsOutOfRange) {
  ModuleProcess module;
  EXPECT_TRUE(Link(module.data_socket(), kToken, link::kWindow, link::kMinMaxFrame - 1).Closes());
  EXPECT_TRUE(Link(module.data_socket(), kToken, 0x80000000).Closes());
  EXPECT_EQ(Link(module.data_socket(), kToken, 0x7fffffff, 0xffffffff).Ask("GET", "/hello/you").status, 200);
}

TEST(Link, AFailureInTheMiddleCutsTheAnswerOff) {
  ModuleProcess module;
  Link link(module.data_socket());
  EXPECT_EQ(link.Ask("GET", "/stream-fails").cancel_code, int(CancelCode::kInternal));
  EXPECT_EQ(link.Ask("GET", "/stream-short").cancel_code, int(CancelCode::kInternal));
  EXPECT_TRUE(module.Logged("in the middle"));
  EXPECT_EQ(link.Ask("GET", "/hello/you").status, 200);
}

TEST(Link, TellsHandlersThatTheClientHasGone) {
  ModuleProcess module;
  Link link(module.data_socket());
  uint32_t waiting = link.Send("GET", "/await-cancel");
  uint32_t streaming = link.Send("GET", "/stream/100000000");
  uint32_t reading = link.Send("POST", "/sum", {}, "abc", false);
  ASSERT_TRUE(Eventually([&] { return link.Ask("GET", "/awaiting").body == "1"; }));
  ASSERT_TRUE(Eventually([&] { return link.Ask("GET", "/written").body != "0"; }));
  for (uint32_t stream : {waiting, streaming, reading}) link.Cancel(stream);
  EXPECT_TRUE(Eventually([&] { return link.Ask("GET", "/cancelled").body == "2"; }));
}

TEST(Link, AClosedConnectionCancelsWhatItCarried) {
  ModuleProcess module;
  Link other(module.data_socket());
  {
    Link link(module.data_socket());
    link.Send("GET", "/await-cancel");
    ASSERT_TRUE(Eventually([&] { return link.Ask("GET", "/awaiting").body == "1"; }));
  }
  EXPECT_TRUE(Eventually([&] { return other.Ask("GET", "/cancelled").body == "1"; }));
}

TEST(Link, SaysThatItIsOverloadedWhenItsQueueIsFull) {
  ModuleProcess module({.config = {{"workers", 1}, {"waiting", 2}}});
  Link link(module.data_socket());
  std::vector<uint32_t> streams{link.Send("GET", "/gate")};
  ASSERT_TRUE(Eventually([&] { return link.Ask("GET", "/gate/waiting").body == "1"; }));
  for (int i = 0; i < 2; ++i) streams.push_back(link.Send("GET", "/gate"));
  Answer refused = link.Ask("GET", "/gate");
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.json()["error"]["code"], "OVERLOADED");
  EXPECT_EQ(refused.headers["retry-after"], "1");
  // Inline handlers are not in that queue.
  EXPECT_EQ(link.Ask("POST", "/gate/open").status, 204);
  for (uint32_t stream : streams) EXPECT_EQ(link.Await(stream).body, "through");
}

TEST(Link, RefusesStreamsBeyondItsCap) {
  ModuleProcess module({.config = {{"workers", 1}, {"waiting", 2'000}}});
  Link link(module.data_socket());
  for (int i = 0; i < 1'024; ++i) link.Send("GET", "/gate");
  EXPECT_EQ(link.Ask("GET", "/gate").cancel_code, int(CancelCode::kRefused));
  Link other(module.data_socket());
  EXPECT_EQ(other.Ask("POST", "/gate/open").status, 204);
  EXPECT_EQ(link.Await(1).body, "through");
  EXPECT_EQ(link.Await(1'024).body, "through");
}

TEST(Link, ReportsAnInlineHandlerThatStallsIt) {
  ModuleProcess module;
  Link link(module.data_socket());
  for (int i = 0; i < 5; ++i) link.Ask("GET", "/stall");
  EXPECT_TRUE(module.Logged("stalled the link"));
  std::string log = module.Log();
  EXPECT_EQ(log.find("stalled the link"), log.rfind("stalled the link")) << "one line for all of them";
}

TEST(Link, AnswersPingWithItsBytes) {
  ModuleProcess module;
  Link link(module.data_socket());
  link.Next();
  std::string ping(link::kHeaderSize, '\0');
  link::PutHeader(ping.data(), {8, 0, Type::kPing, 0, 0, 0});
  link.Raw(ping + "12345678");
  auto pong = link.Next();
  ASSERT_TRUE(pong);
  EXPECT_EQ(pong->header.type, Type::kPing);
  EXPECT_TRUE(pong->end());
  EXPECT_EQ(pong->payload, "12345678");
}

// Resident bytes of a process that its own memory takes, not its files.
size_t AnonymousBytes(const std::string& pid) {
  std::ifstream status("/proc/" + pid + "/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("RssAnon:")) return std::stoul(line.substr(8)) * 1024;
  }
  ADD_FAILURE() << "no RssAnon for process " << pid;
  return 0;
}

TEST(Link, ASocketThatNeverDrainsKeepsNeitherMemoryNorAPing) {
  ModuleProcess module({.config = {{"workers", 8}}});
  // Credit is no limit here: only the socket, always full, holds the downloads up.
  Link link(module.data_socket(), kToken, 1 << 30);
  const std::string pid = link.Ask("GET", "/pid").body;
  for (int i = 0; i < 8; ++i) link.Send("GET", "/stream/100000000");
  std::string ping(link::kHeaderSize, '\0');
  link::PutHeader(ping.data(), {8, 0, Type::kPing, 0, 0, 0});
  constexpr size_t kRead = 96 * 1024 * 1024, kPingAt = kRead / 2, kBurst = 128 * 1024;
  size_t got = 0, answered_at = 0, before = 0;
  for (size_t burst = 0; got < kRead;) {
    auto frame = link.Next();
    ASSERT_TRUE(frame);
    if (frame->header.type == Type::kPing) answered_at = got;
    const bool pinged = got >= kPingAt;
    got += frame->payload.size();
    if (!pinged && got >= kPingAt) {
      before = AnonymousBytes(pid);
      link.Raw(ping + "12345678");
    }
    burst += frame->payload.size();
    if (burst < kBurst) continue;
    burst = 0;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));  // the module fills the socket meanwhile
  }
  ASSERT_GT(answered_at, 0u) << "no answer to PING in " << kRead - kPingAt << " bytes";
  EXPECT_LT(answered_at - kPingAt, 4u * 1024 * 1024);
#ifndef BULKHEAD_SANITIZED  // which keeps what was freed
  EXPECT_LT(AnonymousBytes(pid), before + 8 * 1024 * 1024);
  EXPECT_LT(before, 32u * 1024 * 1024);
#endif
}

TEST(Link, TakesFramesCutAnywhere) {
  ModuleProcess module;
  Link link(module.data_socket());
  std::string head;
  link::HeadWriter writer(head);
  writer.Str("POST");
  writer.Str("/echo");
  writer.U16(0);
  std::string frame(link::kHeaderSize, '\0');
  link::PutHeader(frame.data(), {uint32_t(head.size() + 3), 1, Type::kRequest, link::kEnd, 0, uint32_t(head.size())});
  frame += head + "abc";
  for (char c : frame) link.Raw(std::string_view(&c, 1));
  EXPECT_EQ(link.Await(1).body, "abc");
}

struct Malformed {
  const char* name;
  std::string bytes;
};

std::string Bytes(link::Header header, std::string payload = {}) {
  std::string out(link::kHeaderSize, '\0');
  link::PutHeader(out.data(), header);
  return out + payload;
}

TEST(Link, AMalformedFrameClosesThatConnectionOnly) {
  ModuleProcess module;
  Link good(module.data_socket());
  const Malformed cases[] = {
      {"unknown type", Bytes({0, 1, Type(99), 0, 0, 0})},
      {"unknown flag", Bytes({0, 1, Type::kData, 0x80, 0, 0})},
      {"too long", Bytes({link::kMaxFrame + 1, 1, Type::kData, 0, 0, 0})},
      {"head longer than the frame", Bytes({1, 1, Type::kRequest, 0, 0, 2}, "x")},
      {"head that does not parse", Bytes({3, 1, Type::kRequest, link::kEnd, 0, 3}, "xyz")},
      {"stream 0", Bytes({0, 0, Type::kRequest, 0, 0, 0})},
      {"never opened", Bytes({0, 7, Type::kData, 0, 0, 0})},
      {"second hello", Bytes({0, 0, Type::kHello, 0, 0, 0})},
      {"response", Bytes({2, 1, Type::kResponse, 0, 200, 2}, std::string(2, '\0'))},
      {"short ping", Bytes({4, 0, Type::kPing, 0, 0, 0}, "1234")},
  };
  for (const Malformed& one : cases) {
    SCOPED_TRACE(one.name);
    Link bad(module.data_socket());
    bad.Raw(one.bytes);
    EXPECT_TRUE(bad.Closes());
    EXPECT_EQ(good.Ask("GET", "/hello/you").status, 200);
  }
  Link first(module.data_socket());
  first.Ask("GET", "/hello/you");
  first.Raw(Bytes({8, 1, Type::kRequest, link::kEnd, 0, 8}, std::string("\x01\x00G\x01\x00/\x00\x00", 8)));
  EXPECT_TRUE(first.Closes()) << "an id used again";
}

TEST(Link, AHeaderThatHttpForbidsEndsItsStreamOnly) {
  ModuleProcess module;
  Link link(module.data_socket());
  EXPECT_EQ(link.Ask("GET", "/hello/you", {{"x-a", "1\r\nx-b: 2"}}).cancel_code, int(CancelCode::kProtocol));
  EXPECT_EQ(link.Ask("GET", "/hello/you", {{"X-Upper", "1"}}).cancel_code, int(CancelCode::kProtocol));
  EXPECT_EQ(link.Ask("GET", "/hello/you").status, 200);
}

TEST(Link, FramesForEndedStreamsAreDropped) {
  ModuleProcess module;
  Link link(module.data_socket());
  uint32_t stream = link.Send("GET", "/hello/you");
  link.Await(stream);
  link.Data(stream, "late", true);
  link.Window(stream, 100);
  link.Cancel(stream);
  EXPECT_EQ(link.Ask("GET", "/hello/you").status, 200);
}

}  // namespace
}  // namespace bulkhead::sdk_test
