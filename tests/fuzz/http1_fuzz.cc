// Requests of clients: whatever the bytes, the verdict on them does not depend on the pieces in which they come, and what is accepted
// keeps the rules that the rest of the gateway relies on.
#include "bulkhead/link/frame.h"
#include "supervisor/base/log.h"
#include "supervisor/gateway/http1.h"
#include "supervisor/gateway/module_call.h"
#include "supervisor/gateway/request_head.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/gateway/malformed_corpus.h"

namespace {

using namespace bulkhead;
using namespace bulkhead::http1;

struct Verdict {
  Progress progress = Progress::kNeedMore;
  std::string fields;  // of what was accepted
  size_t consumed = 0;
  bool operator==(const Verdict&) const = default;
};

void CheckAccepted(const RequestHead& head) {
  BULKHEAD_CHECK(IsToken(head.method));
  BULKHEAD_CHECK(head.path == "*" || (!head.path.empty() && head.path[0] == '/'));
  BULKHEAD_CHECK(!(head.chunked && head.content_length >= 0));
  BULKHEAD_CHECK(!(head.websocket && (head.chunked || head.content_length > 0 || head.method != "GET")));
  for (size_t i = 0; i < head.field_count; ++i) {
    BULKHEAD_CHECK(IsLowerToken(head.fields[i].name) && IsFieldValue(head.fields[i].value));
    BULKHEAD_CHECK(head.fields[i].value.find_first_of("\r\n") == std::string_view::npos);
  }
  std::string frame;
  RequestContext context;
  context.method = head.method;
  context.path = head.path;
  context.request_id = "id";
  context.peer_address = "127.0.0.1";
  context.timeout = Millis(30'000);
  if (EncodeRequest(head, context, "", true, frame)) {
    LowerTimeout(frame, Millis(29'000));
    const link::Header header = link::GetHeader(frame.data());
    BULKHEAD_CHECK(frame.size() == link::kHeaderSize + header.length && frame.ends_with("29000"));
  }
  (void)ReadCallTerms(head);
}

Verdict Parse(const std::string& bytes, size_t step) {
  static RequestHead head;
  HeadParser parser;
  Verdict verdict;
  std::string seen;
  for (size_t size = std::min(step, bytes.size()); verdict.progress == Progress::kNeedMore; size = std::min(size + step, bytes.size())) {
    seen.append(bytes, seen.size(), size - seen.size());
    verdict.progress = parser.Parse(seen.data(), seen.size(), head);
    if (size == bytes.size()) break;
  }
  if (verdict.progress == Progress::kRefused) verdict.fields = parser.refusal().code;
  if (verdict.progress != Progress::kComplete) return verdict;
  verdict.consumed = parser.consumed();
  CheckAccepted(head);
  for (size_t i = 0; i < head.field_count; ++i) verdict.fields.append(head.fields[i].name).append("=").append(head.fields[i].value).append("\n");
  // The body behind it, if it has one.
  BodyReader body;
  body.Begin(head);
  std::string data;
  for (size_t at = verdict.consumed; at < bytes.size();) {
    std::string_view in = std::string_view(bytes).substr(at, step), piece;
    size_t before = in.size();
    BodyReader::Step taken = body.Next(in, 1 << 16, piece);
    at += before - in.size();
    if (taken == BodyReader::Step::kData) data.append(piece);
    if (taken == BodyReader::Step::kRefused) verdict.fields += "refused";
    if (taken == BodyReader::Step::kRefused || taken == BodyReader::Step::kDone) break;
    if (before == in.size() && taken == BodyReader::Step::kNeedMore) break;
  }
  verdict.fields += data;
  if (body.done()) verdict.fields += EncodeTrailers(body.trailers());
  return verdict;
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  std::vector<std::string> seeds = {
      "GET /api/v1/m/m/x?a=b HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer t\r\nX-Request-Id: 1\r\n\r\n",
      "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nConnection: x-a, close\r\nX-A: 1\r\n\r\nbody",
      "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4;ext=1\r\nbody\r\n0\r\nX-Sum: 42\r\n\r\n",
      "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
      "GET http://a:1/%2e%2F HTTP/1.0\r\n\r\n"};
  for (const Malformed& entry : MalformedHeads()) {
    if (entry.request.size() < 4096) seeds.push_back(entry.request);
  }
  for (const MalformedBody& entry : MalformedChunks()) {
    if (entry.chunks.size() < 4096) seeds.push_back("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + entry.chunks);
  }
  return seeds;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string bytes(reinterpret_cast<const char*>(data), std::min<size_t>(size, 16 * 1024));
  if (bytes.empty()) return 0;
  Verdict whole = Parse(bytes, bytes.size());
  for (size_t step : {size_t{1}, size_t{7}}) BULKHEAD_CHECK(Parse(bytes, step) == whole);
  return 0;
}
