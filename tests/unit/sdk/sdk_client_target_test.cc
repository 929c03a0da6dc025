// URLs and headers of calls, out of what an author may have from anywhere.
#include "client_target.h"

#include <gtest/gtest.h>

namespace bulkhead::sdk {
namespace {

TEST(ClientTarget, APathIsBelowTheBase) {
  EXPECT_EQ(JoinUrl("https://shop.example.org", "/orders", {}, {}), "https://shop.example.org/orders");
  EXPECT_EQ(JoinUrl("https://shop.example.org/", "/orders", {}, {}), "https://shop.example.org/orders");
  EXPECT_EQ(JoinUrl("http://[::1]:8080/wp-json/v3//", "/orders/7?a=1", {}, {}), "http://[::1]:8080/wp-json/v3/orders/7?a=1");
}

TEST(ClientTarget, QueriesAreEncodedBehindWhatThePathHas) {
  EXPECT_EQ(JoinUrl("http://a", "/b", {{"name", "Ann & Bob"}, {"e", ""}}, {{"key", "s=1"}}), "http://a/b?name=Ann%20%26%20Bob&e=&key=s%3D1");
  EXPECT_EQ(JoinUrl("http://a", "/b?x=1", {{"y", "\xc3\xa4"}}, {}), "http://a/b?x=1&y=%C3%A4");
}

TEST(ClientTarget, NoPathLeavesTheBaseOrBreaksTheLine) {
  for (const char* fine : {"/", "/a", "/a/b.c/..d/...", "/a%20b", "/a?b=..&c=/../", "/%2ehidden", "/a;b=1,2:3@4"}) EXPECT_EQ(PathFault(fine), "") << fine;
  for (const char* wrong : {"", "a", "http://other.example.org/", "/..", "/a/../b", "/a/.", "/./a", "/%2e%2e/a", "/.%2E/a", "/a%2f..%2Fb",
                            "/a%2F%2e%2e", "/a b",
                            "/a\r\nhost: x", "/a\n", "/a\tb", "/a#b", "/a\\b", "/\x7f", "/\xc3\xa4", "/%", "/%4", "/%zz", "/a%00\x01", "/<a>", "/a?b c"})
    EXPECT_NE(PathFault(wrong), "") << wrong;
  EXPECT_NE(PathFault(std::string("/a\0b", 4)), "");
  EXPECT_EQ(PathFault("/" + std::string(kMaxClientTarget - 1, 'a')), "");
  EXPECT_NE(PathFault("/" + std::string(kMaxClientTarget, 'a')), "");
}

TEST(ClientTarget, WhateverPercentEncodeMakesIsASegment) {
  std::string all;
  for (int c = 1; c < 256; ++c) all += static_cast<char>(c);
  EXPECT_EQ(PathFault("/a" + PercentEncode(all)), "");
  EXPECT_EQ(PercentEncode("../a b"), "..%2Fa%20b");
  EXPECT_NE(PathFault("/" + PercentEncode("..")), "");
  EXPECT_NE(PathFault("/x/" + PercentEncode("../a")), "");
}

TEST(ClientTarget, AHeaderIsOneLineAndNoneOfTheClientsOwn) {
  EXPECT_EQ(HeaderFault("accept", "text/plain; q=0.5"), "");
  EXPECT_EQ(HeaderFault("X-Thing", ""), "");
  EXPECT_EQ(HeaderFault("x", "tab\there"), "");
  for (const char* value : {"a\r\nb: c", "a\nb", "a\rb", "\x01", "\x7f"}) EXPECT_NE(HeaderFault("x", value), "") << value;
  EXPECT_NE(HeaderFault("x", std::string_view("a\0b", 3)), "");
  for (const char* name : {"", "a b", "a:", "a\r\nb", "\xc3\xa4", "Host", "CONTENT-LENGTH", "Transfer-Encoding", "Connection", "Expect", "Content-Type"})
    EXPECT_NE(HeaderFault(name, "v"), "") << name;
  // A sentence about a value does not repeat it.
  EXPECT_EQ(HeaderFault("x", "secret\n").find("secret"), std::string::npos);
}

TEST(ClientTarget, OnlyHttpAndWithoutALogin) {
  for (const char* fine : {"http://a", "https://a.example.org:8443/v1/", "http://127.0.0.1:1/", "https://[::1]/x"}) EXPECT_EQ(BaseUrlFault(fine), "") << fine;
  for (const char* wrong : {"", "a", "ftp://a", "file:///etc/passwd", "http://", "https:///a", "http://u:p@a", "http://a?b", "http://a#b",
                            "http://a b", "http://a\n"})
    EXPECT_NE(BaseUrlFault(wrong), "") << wrong;
  for (const char* method : {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}) EXPECT_EQ(MethodFault(method), "");
  for (const char* method : {"", "get", "CONNECT", "TRACE", "GET /\r\n"}) EXPECT_NE(MethodFault(method), "");
}

}  // namespace
}  // namespace bulkhead::sdk
