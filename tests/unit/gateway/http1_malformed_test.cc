// The parser refuses the whole corpus, with the right code, whether the bytes come at once or one by one.
#include <algorithm>
#include <string_view>

#include "gtest/gtest.h"
#include "supervisor/gateway/http1.h"
#include "tests/unit/gateway/malformed_corpus.h"

namespace bulkhead::http1 {
namespace {

// The code of the refusal, "" when the head is accepted, "…" when more is awaited. The same whether it comes whole or byte by byte.
std::string Verdict(const std::string& request) {
  auto run = [&](bool whole) -> std::string {
    HeadParser parser;
    RequestHead head;
    std::string bytes = whole ? request : "";
    for (size_t n = whole ? request.size() : 1; n <= request.size(); ++n) {
      if (!whole) bytes.push_back(request[n - 1]);
      switch (parser.Parse(bytes.data(), bytes.size(), head)) {
        case Progress::kComplete: return "";
        case Progress::kRefused: return parser.refusal().code;
        case Progress::kNeedMore: break;
      }
    }
    return "…";
  };
  std::string at_once = run(true), in_pieces = run(false);
  EXPECT_EQ(at_once, in_pieces) << request;
  return at_once;
}

TEST(MalformedHead, IsRefusedWithTheRightCode) {
  auto cites_http = [](const Malformed& entry) {
    std::string_view section = entry.section;
    return section.starts_with("RFC 9110 ") || section.starts_with("RFC 9112 ");
  };
  EXPECT_GE(std::count_if(MalformedHeads().begin(), MalformedHeads().end(), cites_http), 80);
  for (const Malformed& entry : MalformedHeads()) EXPECT_EQ(Verdict(entry.request), entry.code) << entry.section;
}

TEST(MalformedBody, IsRefused) {
  for (const MalformedBody& entry : MalformedChunks()) {
    for (size_t step : {entry.chunks.size(), size_t{1}}) {
      RequestHead head;
      head.chunked = true;
      BodyReader body;
      body.Begin(head);
      bool refused = false;
      for (size_t at = 0; at < entry.chunks.size() && !refused; at += step) {
        std::string_view in = std::string_view(entry.chunks).substr(at, step), piece;
        for (;;) {
          auto result = body.Next(in, 1 << 20, piece);
          refused = result == BodyReader::Step::kRefused;
          if (result != BodyReader::Step::kData) break;
        }
      }
      EXPECT_TRUE(refused) << entry.section << ", in steps of " << step;
      if (refused) {
        EXPECT_NE(body.refusal(), nullptr);
      }
    }
  }
}

}  // namespace
}  // namespace bulkhead::http1
