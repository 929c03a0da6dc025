// Requests that must be refused, each with the section that says so. What is not refused could be read differently by whoever stands
// before or behind, which is how requests are smuggled.
#pragma once

#include <string>
#include <vector>

namespace bulkhead {

struct Malformed {
  const char* section;
  std::string request;
  std::string code;
};

inline std::string Head(const std::string& line, const std::string& fields = "") { return line + "\r\nHost: a\r\n" + fields + "\r\n"; }
inline std::string With(const std::string& fields) { return Head("POST / HTTP/1.1", fields); }

inline const std::vector<Malformed>& MalformedHeads() {
  static const std::string bad = "BAD_REQUEST";
  static const std::vector<Malformed> corpus = {
      // Lines.
      {"RFC 9112 2.2 bare LF after the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", bad},
      {"RFC 9112 2.2 bare LF after a field", "GET / HTTP/1.1\r\nHost: a\n\r\n", bad},
      {"RFC 9112 2.2 bare LF as the empty line", "GET / HTTP/1.1\r\nHost: a\r\n\n", bad},
      {"RFC 9112 2.2 only LFs", "GET / HTTP/1.1\nHost: a\n\n", bad},
      {"RFC 9112 2.2 bare CR in the request line", Head("GET /\r HTTP/1.1"), bad},
      {"RFC 9112 2.2 bare CR in a value", With("X: a\rb\r\n"), bad},
      {"RFC 9112 2.2 CR CR LF", With("X: a\r\r\n"), bad},
      {"RFC 9112 2.2 two empty lines first", "\r\n\r\n" + Head("GET / HTTP/1.1"), bad},
      {"RFC 9112 2.2 LF first", "\n" + Head("GET / HTTP/1.1"), bad},
      {"RFC 9112 2.2 blank before the first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", bad},
      // Request line.
      {"RFC 9112 3 no version", Head("GET /"), bad},
      {"RFC 9112 3 method alone", Head("GET"), bad},
      {"RFC 9112 3 empty method", Head(" / HTTP/1.1"), bad},
      {"RFC 9112 3 two spaces before the target", Head("GET  / HTTP/1.1"), bad},
      {"RFC 9112 3 two spaces before the version", Head("GET /  HTTP/1.1"), bad},
      {"RFC 9112 3 space at the end", Head("GET / HTTP/1.1 "), bad},
      {"RFC 9112 3 tab instead of a space", Head("GET\t/ HTTP/1.1"), bad},
      {"RFC 9112 3.2 space in the target", Head("GET /a b HTTP/1.1"), bad},
      {"RFC 9110 9.1 method not a token", Head("G(T / HTTP/1.1"), bad},
      {"RFC 9110 9.1 method with a NUL", Head(std::string("G\0T / HTTP/1.1", 14)), bad},
      {"RFC 9110 9.1 method with 0x80", Head("G\x80T / HTTP/1.1"), bad},
      {"RFC 9110 9.1 method without end", Head(std::string(100, 'A') + " / HTTP/1.1"), bad},
      {"RFC 9112 2.3 lower-case version", Head("GET / http/1.1"), bad},
      {"RFC 9112 2.3 version without a minor", Head("GET / HTTP/1"), bad},
      {"RFC 9112 2.3 version with two digits", Head("GET / HTTP/1.10"), bad},
      {"RFC 9112 2.3 version with a comma", Head("GET / HTTP/1,1"), bad},
      {"RFC 9112 2.3 letters", Head("GET / HTTP/x.y"), bad},
      {"RFC 9112 2.3 other protocol", Head("GET / HTCPCP/1.0"), bad},
      {"RFC 9110 15.6.6 HTTP/2.0", Head("GET / HTTP/2.0"), "HTTP_VERSION_NOT_SUPPORTED"},
      {"RFC 9110 15.6.6 HTTP/0.9", Head("GET / HTTP/0.9"), "HTTP_VERSION_NOT_SUPPORTED"},
      {"RFC 9113 3.4 preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP_VERSION_NOT_SUPPORTED"},
      // Target.
      {"RFC 3986 3.3 raw UTF-8", Head("GET /\xc3\xa4 HTTP/1.1"), bad},
      {"RFC 3986 3.3 0x7f", Head("GET /\x7f HTTP/1.1"), bad},
      {"RFC 3986 3.3 control", Head("GET /\x01 HTTP/1.1"), bad},
      {"RFC 3986 3.3 NUL", Head(std::string("GET /\0 HTTP/1.1", 15)), bad},
      {"RFC 3986 3.3 quote", Head("GET /\" HTTP/1.1"), bad},
      {"RFC 3986 3.3 angle bracket", Head("GET /<x> HTTP/1.1"), bad},
      {"RFC 3986 3.3 backslash", Head("GET /a\\b HTTP/1.1"), bad},
      {"RFC 9112 3.2 fragment", Head("GET /a#b HTTP/1.1"), bad},
      {"RFC 3986 2.1 escape cut off", Head("GET /%4 HTTP/1.1"), bad},
      {"RFC 3986 2.1 escape not hexadecimal", Head("GET /%zz HTTP/1.1"), bad},
      {"RFC 3986 2.1 lone percent", Head("GET /% HTTP/1.1"), bad},
      {"RFC 3986 7.3 escaped NUL", Head("GET /a%00 HTTP/1.1"), bad},
      {"RFC 3986 6.2.2.3 dot segment", Head("GET /a/../b HTTP/1.1"), bad},
      {"RFC 3986 6.2.2.3 dot segment at the end", Head("GET /a/.. HTTP/1.1"), bad},
      {"RFC 3986 6.2.2.3 single dot", Head("GET /./a HTTP/1.1"), bad},
      {"RFC 3986 6.2.2.3 escaped dots", Head("GET /a/%2e%2E/b HTTP/1.1"), bad},
      {"RFC 3986 6.2.2.3 half escaped dots", Head("GET /a/.%2e/b HTTP/1.1"), bad},
      {"RFC 9112 3.2 relative", Head("GET a/b HTTP/1.1"), bad},
      {"RFC 9112 3.2.2 other scheme", Head("GET ftp://a/ HTTP/1.1"), bad},
      {"RFC 9112 3.2.2 no host", Head("GET http:///x HTTP/1.1"), bad},
      {"RFC 9110 4.2.4 user information", Head("GET http://u@a/ HTTP/1.1"), bad},
      {"RFC 9112 3.2.4 asterisk for GET", Head("GET * HTTP/1.1"), bad},
      {"RFC 9110 9.3.6 CONNECT", Head("CONNECT a:80 HTTP/1.1"), "NOT_IMPLEMENTED"},
      {"RFC 9110 4.1 too long", Head("GET /" + std::string(8200, 'a') + " HTTP/1.1"), "URI_TOO_LONG"},
      // Fields.
      {"RFC 9112 5.1 space before the colon", With("X : a\r\n"), bad},
      {"RFC 9112 5.1 tab before the colon", With("X\t: a\r\n"), bad},
      {"RFC 9112 5.1 space before TE's colon", With("Transfer-Encoding : chunked\r\n"), bad},
      {"RFC 9112 5.2 fold", With("X: a\r\n b\r\n"), bad},
      {"RFC 9112 5.2 fold by a tab", With("X: a\r\n\tb\r\n"), bad},
      {"RFC 9112 5.2 folded Transfer-Encoding", With("Transfer-Encoding:\r\n chunked\r\n"), bad},
      {"RFC 9110 5.1 no colon", With("NoColon\r\n"), bad},
      {"RFC 9110 5.1 no name", With(": a\r\n"), bad},
      {"RFC 9110 5.1 space in the name", With("X Y: a\r\n"), bad},
      {"RFC 9110 5.1 NUL in the name", With(std::string("X\0: a\r\n", 7)), bad},
      {"RFC 9110 5.1 0x80 in the name", With("X\x80: a\r\n"), bad},
      {"RFC 9110 5.1 bracket in the name", With("X[0]: a\r\n"), bad},
      {"RFC 9110 5.5 NUL in a value", With(std::string("X: a\0b\r\n", 8)), bad},
      {"RFC 9110 5.5 control in a value", With("X: a\x01\r\n"), bad},
      {"RFC 9110 5.5 DEL in a value", With("X: a\x7f\r\n"), bad},
      {"RFC 9110 5.5 vertical tab in a value", With("Transfer-Encoding: \x0b" "chunked\r\n"), bad},
      {"RFC 6585 5 too many", With([] { std::string s; for (int i = 0; i < 100; ++i) s += "X: 1\r\n"; return s; }()), "HEADERS_TOO_LARGE"},
      {"RFC 6585 5 too large", With("X: " + std::string(65536, 'a') + "\r\n"), "HEADERS_TOO_LARGE"},
      {"RFC 9110 11.6.2 two Authorization", With("Authorization: Bearer a\r\nAuthorization: Bearer b\r\n"), bad},
      // Host.
      {"RFC 9112 3.2 none", "GET / HTTP/1.1\r\n\r\n", bad},
      {"RFC 9112 3.2 two", With("Host: b\r\n"), bad},
      {"RFC 9112 3.2 two that are equal", With("host: a\r\n"), bad},
      {"RFC 9110 7.2 space within", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", bad},
      {"RFC 9110 7.2 slash", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", bad},
      {"RFC 9110 7.2 user information", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", bad},
      {"RFC 9110 7.2 list", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", bad},
      // Length of the body.
      {"RFC 9112 6.3 two Content-Length", With("Content-Length: 1\r\nContent-Length: 2\r\n"), bad},
      {"RFC 9112 6.3 two equal Content-Length", With("Content-Length: 1\r\nContent-Length: 1\r\n"), bad},
      {"RFC 9112 6.3 list", With("Content-Length: 1, 1\r\n"), bad},
      {"RFC 9110 8.6 plus", With("Content-Length: +1\r\n"), bad},
      {"RFC 9110 8.6 minus", With("Content-Length: -1\r\n"), bad},
      {"RFC 9110 8.6 hexadecimal", With("Content-Length: 0x1\r\n"), bad},
      {"RFC 9110 8.6 empty", With("Content-Length:\r\n"), bad},
      {"RFC 9110 8.6 fraction", With("Content-Length: 1.0\r\n"), bad},
      {"RFC 9110 8.6 inner space", With("Content-Length: 1 2\r\n"), bad},
      {"RFC 9110 8.6 overflow", With("Content-Length: 18446744073709551617\r\n"), bad},
      {"RFC 9112 6.1 both lengths", With("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n"), bad},
      {"RFC 9112 6.1 both lengths, other order", With("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n"), bad},
      {"RFC 9112 6.1 both, Content-Length 0", With("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"), bad},
      {"RFC 9112 6.1 HTTP/1.0", Head("POST / HTTP/1.0", "Transfer-Encoding: chunked\r\n"), bad},
      {"RFC 9112 6.1 two Transfer-Encoding", With("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), bad},
      {"RFC 9112 6.1 identity beside chunked", With("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"), bad},
      {"RFC 9112 7.1 chunked twice", With("Transfer-Encoding: chunked, chunked\r\n"), bad},
      {"RFC 9112 6.3 chunked not last", With("Transfer-Encoding: chunked, gzip\r\n"), bad},
      {"RFC 9112 7 empty coding", With("Transfer-Encoding:\r\n"), bad},
      {"RFC 9112 7 comma", With("Transfer-Encoding: chunked,\r\n"), bad},
      {"RFC 9112 7 unknown coding", With("Transfer-Encoding: xchunked\r\n"), "NOT_IMPLEMENTED"},
      {"RFC 9112 7 gzip first", With("Transfer-Encoding: gzip, chunked\r\n"), "NOT_IMPLEMENTED"},
      {"RFC 9112 7 identity", With("Transfer-Encoding: identity\r\n"), "NOT_IMPLEMENTED"},
      {"RFC 9112 7 quoted", With("Transfer-Encoding: \"chunked\"\r\n"), "NOT_IMPLEMENTED"},
      {"RFC 9112 7 parameter", With("Transfer-Encoding: chunked;q=1\r\n"), "NOT_IMPLEMENTED"},
  };
  return corpus;
}

struct MalformedBody {
  const char* section;
  std::string chunks;
};

// Bodies of a chunked request.
inline const std::vector<MalformedBody>& MalformedChunks() {
  static const std::vector<MalformedBody> corpus = {
      {"RFC 9112 7.1 no size", "\r\nabc"},
      {"RFC 9112 7.1 size with 0x", "0x3\r\nabc\r\n0\r\n\r\n"},
      {"RFC 9112 7.1 negative size", "-3\r\nabc\r\n"},
      {"RFC 9112 7.1 plus", "+3\r\nabc\r\n"},
      {"RFC 9112 7.1 space first", " 3\r\nabc\r\n"},
      {"RFC 9112 7.1 letters", "g\r\nabc\r\n"},
      {"RFC 9112 7.1 overflow", "10000000000000003\r\nabc\r\n"},
      {"RFC 9112 7.1 long zeros", std::string(40, '0') + "3\r\nabc\r\n"},
      {"RFC 9112 7.1 bare LF after the size", "3\nabc\r\n"},
      {"RFC 9112 7.1 CR without LF after the size", "3\rabc\r\n"},
      {"RFC 9112 7.1 bare LF after the data", "3\r\nabc\n0\r\n\r\n"},
      {"RFC 9112 7.1 CR without LF after the data", "3\r\nabc\rx"},
      {"RFC 9112 7.1 data longer than the size", "3\r\nabcd\r\n"},
      {"RFC 9112 7.1 no end of data", "3\r\nabc0\r\n\r\n"},
      {"RFC 9112 7.1.1 blank without an extension", "3 4\r\nabc\r\n"},
      {"RFC 9112 7.1.1 LF in an extension", "3;a\nb\r\nabc\r\n"},
      {"RFC 9112 7.1.1 CR in an extension", "3;a\rb\r\nabc\r\n"},
      {"RFC 9112 7.1.1 NUL in an extension", std::string("3;a\0\r\nabc\r\n", 11)},
      {"RFC 9112 7.1.1 extension without end", "3;" + std::string(10'000, 'a')},
      {"RFC 9112 7.1.2 trailer without a colon", "0\r\nNoColon\r\n\r\n"},
      {"RFC 9112 7.1.2 folded trailer", "0\r\nA: b\r\n c\r\n\r\n"},
      {"RFC 9112 7.1.2 trailer with a bare LF", "0\r\nA: b\n\r\n"},
      {"RFC 9112 7.1.2 trailer with a bare CR", "0\r\nA: b\rc\r\n\r\n"},
      {"RFC 9112 7.1.2 trailer without a name", "0\r\n: b\r\n\r\n"},
      {"RFC 9112 5.1 trailer with a space before the colon", "0\r\nA : b\r\n\r\n"},
      {"RFC 9110 5.5 trailer with a NUL", std::string("0\r\nA: \0\r\n\r\n", 11)},
      {"RFC 9110 6.5 trailers without end", "0\r\nA: " + std::string(20'000, 'b')},
  };
  return corpus;
}

}  // namespace bulkhead
