// What the parser accepts, and what it makes of it.
#include "supervisor/gateway/http1.h"

#include "gtest/gtest.h"
#include "supervisor/base/text.h"

namespace bulkhead::http1 {
namespace {

RequestHead Parse(std::string& bytes) {
  HeadParser parser;
  RequestHead head;
  EXPECT_EQ(parser.Parse(bytes.data(), bytes.size(), head), Progress::kComplete) << (parser.refusal().message ? parser.refusal().message : "");
  return head;
}

TEST(RequestHead, IsSplitIntoItsParts) {
  std::string bytes = "POST /a/b%20c?x=1&y[]=%zz HTTP/1.1\r\nHOST: example.org:8080\r\nContent-length:  42 \t\r\nX-Empty:\r\nX-Text: \xc3\xa4 b\r\n\r\nrest";
  HeadParser parser;
  RequestHead head;
  ASSERT_EQ(parser.Parse(bytes.data(), bytes.size(), head), Progress::kComplete);
  EXPECT_EQ(bytes.substr(parser.consumed()), "rest");
  EXPECT_EQ(head.method, "POST");
  EXPECT_EQ(head.path, "/a/b%20c");
  EXPECT_EQ(head.query, "x=1&y[]=%zz");
  EXPECT_EQ(head.host, "example.org:8080");
  EXPECT_EQ(head.content_length, 42);
  ASSERT_EQ(head.field_count, 4u);
  EXPECT_EQ(head.fields[1].name, "content-length");
  EXPECT_EQ(head.fields[2].value, "");
  EXPECT_EQ(head.fields[3].value, "\xc3\xa4 b");
  EXPECT_TRUE(head.keep_alive);
}

TEST(RequestHead, MayComeInPiecesOfAnySize) {
  const std::string request = "\r\nGET /x HTTP/1.1\r\nHost: a\r\nA: b\r\n\r\n";
  for (size_t split = 0; split < request.size(); ++split) {
    HeadParser parser;
    RequestHead head;
    std::string bytes = request.substr(0, split);
    ASSERT_EQ(parser.Parse(bytes.data(), bytes.size(), head), Progress::kNeedMore) << split;
    bytes = request;
    ASSERT_EQ(parser.Parse(bytes.data(), bytes.size(), head), Progress::kComplete) << split;
    EXPECT_EQ(parser.consumed(), request.size());
    EXPECT_EQ(head.path, "/x");
  }
}

TEST(RequestHead, SaysWhetherTheConnectionStays) {
  struct {
    const char* version;
    const char* connection;
    bool stays;
  } cases[] = {{"1.1", "", true},           {"1.1", "Connection: close\r\n", false}, {"1.1", "Connection: foo, CLOSE\r\n", false},
               {"1.0", "", false},          {"1.0", "Connection: Keep-Alive\r\n", true}, {"1.9", "", true},
               {"1.0", "Connection: keep-alive, close\r\n", false}, {"1.1", "Connection: a\r\nConnection: close\r\n", false}};
  for (const auto& c : cases) {
    std::string bytes = std::string("GET / HTTP/") + c.version + "\r\nHost: a\r\n" + c.connection + "\r\n";
    EXPECT_EQ(Parse(bytes).keep_alive, c.stays) << bytes;
  }
}

TEST(RequestHead, KnowsFieldsThatConnectionNames) {
  std::string bytes = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-One\r\nConnection: ,x-TWO ,\r\n\r\n";
  RequestHead head = Parse(bytes);
  EXPECT_TRUE(head.nominates);
  EXPECT_TRUE(IsNominated(head, "x-one"));
  EXPECT_TRUE(IsNominated(head, "x-two"));
  EXPECT_FALSE(IsNominated(head, "x-three"));
}

TEST(RequestHead, TakesAnAbsoluteTargetAndItsHost) {
  std::string bytes = "GET HTTP://other:1/p?q HTTP/1.1\r\nHost: a\r\n\r\n";
  RequestHead head = Parse(bytes);
  EXPECT_EQ(head.host, "other:1") << "RFC 9112 3.2.2: Host is then ignored";
  EXPECT_EQ(head.path, "/p");
  EXPECT_EQ(head.query, "q");
  bytes = "GET http://other HTTP/1.1\r\nHost: a\r\n\r\n";
  EXPECT_EQ(Parse(bytes).path, "/");
}

TEST(RequestHead, AcceptsWhatIsOddAndAllowed) {
  for (std::string bytes : {std::string("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"), std::string("GET / HTTP/1.1\r\nHost:\r\n\r\n"),
                            std::string("M-SEARCH / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n"), std::string("GET //a//b HTTP/1.1\r\nHost: a\r\n\r\n"),
                            std::string("GET /...a/.b/c. HTTP/1.1\r\nHost: a\r\n\r\n"), std::string("GET / HTTP/1.0\r\n\r\n"),
                            std::string("POST / HTTP/1.1\r\nTransfer-Encoding: CHUNKED\r\nHost: a\r\n\r\n"),
                            std::string("GET /?a=/../ HTTP/1.1\r\nHost: a\r\n\r\n"), std::string("GET /%2F%2e%2E%2e HTTP/1.1\r\nHost: a\r\n\r\n")}) {
    Parse(bytes);
  }
}

TEST(RequestHead, ReservesOurNamesInBothSpellings) {
  for (const char* name : {"x-bulkhead-subject", "x_bulkhead_subject", "x-bulkhead_roles", "x-forwarded-for", "x_forwarded_proto", "forwarded"}) {
    EXPECT_EQ(Classify(name), Field::kReserved) << name;
  }
  EXPECT_EQ(Classify("x-bulk"), Field::kOther);
  EXPECT_EQ(Classify("proxy-connection"), Field::kHopByHop);
}

std::string ReadBody(const RequestHead& head, const std::string& bytes, size_t step, size_t max, size_t* left = nullptr) {
  BodyReader body;
  body.Begin(head);
  std::string all;
  size_t at = 0;
  while (at < bytes.size() && !body.done()) {
    std::string_view in = std::string_view(bytes).substr(at, step), piece;
    size_t before = in.size();
    for (;;) {
      auto result = body.Next(in, max, piece);
      EXPECT_NE(result, BodyReader::Step::kRefused) << body.refusal();
      if (result != BodyReader::Step::kData) break;
      EXPECT_LE(piece.size(), max);
      all += piece;
    }
    at += before - in.size();
  }
  EXPECT_TRUE(body.done());
  if (left) *left = bytes.size() - at;
  return all;
}

TEST(Body, OfALengthEndsWhereItSays) {
  RequestHead head;
  head.content_length = 5;
  size_t left = 0;
  EXPECT_EQ(ReadBody(head, "12345GET /", 100, 100, &left), "12345");
  EXPECT_EQ(left, 5u);
  EXPECT_EQ(ReadBody(head, "12345", 1, 100), "12345");
  EXPECT_EQ(ReadBody(head, "12345", 100, 2), "12345");
  head.content_length = 0;
  BodyReader body;
  body.Begin(head);
  EXPECT_TRUE(body.done());
}

TEST(Body, InChunksIsPutTogether) {
  RequestHead head;
  head.chunked = true;
  const std::string chunks = "3\r\nabc\r\nA;x=\"y z\"\r\n0123456789\r\n0001 ;e\r\n!\r\n0\r\nTrailer: v\r\nX:\r\n\r\n";
  for (size_t step : {size_t{1}, size_t{2}, size_t{7}, chunks.size()}) {
    size_t left = 0;
    EXPECT_EQ(ReadBody(head, chunks + "GET", step, 1 << 16, &left), "abc0123456789!");
    EXPECT_EQ(left, 3u);
  }
}

TEST(Percent, IsDecodedOnce) {
  std::string out;
  EXPECT_TRUE(PercentDecode("/a%20%2541", out));
  EXPECT_EQ(out, "/a %41");
  EXPECT_FALSE(PercentDecode("%4", out));
  EXPECT_FALSE(PercentDecode("%g0", out));
}

}  // namespace
}  // namespace bulkhead::http1
