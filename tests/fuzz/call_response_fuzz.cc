// Answers to a module that calls another one: whatever the bytes, the verdict on them does not depend on the pieces in which they come.
#include "call_response.h"
#include "supervisor/base/log.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace bulkhead;
using sdk::ResponseReader;

struct Verdict {
  ResponseReader::Progress progress = ResponseReader::Progress::kMore;
  int status = 0;
  std::string fields, body;
  bool operator==(const Verdict&) const = default;
};

Verdict Read(std::string_view bytes, size_t step, bool head_only) {
  ResponseReader reader(head_only);
  Verdict verdict;
  const auto take = [&](std::string_view piece) {
    verdict.body.append(piece);
    return true;
  };
  while (!bytes.empty() && verdict.progress == ResponseReader::Progress::kMore) {
    const size_t size = std::min(step, bytes.size());
    verdict.progress = reader.Take(bytes.substr(0, size), take);
    bytes.remove_prefix(size);
  }
  if (verdict.progress == ResponseReader::Progress::kMore) verdict.progress = reader.End();
  if (verdict.progress != ResponseReader::Progress::kDone) return {verdict.progress, 0, {}, {}};
  verdict.status = reader.status();
  BULKHEAD_CHECK(verdict.status >= 200 && verdict.status <= 999);
  for (const auto& [name, value] : reader.headers()) {
    BULKHEAD_CHECK(!name.empty() && (name + value).find_first_of(std::string_view("\r\n\0", 3)) == std::string::npos);
    verdict.fields.append(name).append("=").append(value).append("\n");
  }
  return verdict;
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  return {"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nx-a: 1\r\n\r\nbody", "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\nuntil the end",
          "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
          "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4;ext=1\r\nbody\r\n0\r\nX-Sum: 42\r\n\r\n"};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), std::min<size_t>(size, 16 * 1024));
  for (const bool head_only : {false, true}) {
    const Verdict whole = Read(bytes, bytes.size() + 1, head_only);
    for (const size_t step : {size_t{1}, size_t{7}}) BULKHEAD_CHECK(Read(bytes, step, head_only) == whole);
  }
  return 0;
}
