#include "response_head.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "bulkhead/link/frame.h"

namespace bulkhead::sdk {
namespace {

constexpr size_t kMaxResponseHead = 60 * 1024;  // or the peer's frame, if that is less; leaves room for body bytes in the first frame
constexpr size_t kMaxResponseHeaders = 256;
constexpr size_t kUsualHead = 128;  // room for it is made at once

constexpr std::array<bool, 256> TokenCharacters() {  // RFC 9110, 5.6.2, in lower case
  std::array<bool, 256> is{};
  for (char c : std::string_view("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")) is[uint8_t(c)] = true;
  return is;
}
constexpr std::array<bool, 256> kTokenCharacter = TokenCharacters();

bool IsFieldName(std::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](unsigned char c) { return kTokenCharacter[c]; });
}

bool IsValue(std::string_view value) {
  return std::none_of(value.begin(), value.end(), [](unsigned char c) { return (c < 0x20 && c != '\t') || c == 0x7f; });
}

std::string Lower(std::string_view name) {
  std::string out(name);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c += 'a' - 'A';
  return out;
}

// Fields about one connection, which is the gateway's business (RFC 9110, 7.6.1).
bool HopByHop(std::string_view name) {
  return name == "connection" || name == "keep-alive" || name == "transfer-encoding" || name == "upgrade" || name == "te" ||
         name == "trailer" || name.starts_with("proxy-");
}

}  // namespace

ResponseHead EncodeHead(int status, const Headers& headers, bool whole, size_t body_size, size_t max_frame) {
  ResponseHead out;
  const size_t one_frame_body = max_frame / 4 * 3;  // beyond it a whole body may need several frames, so its length is announced
  const size_t max_head = std::min(kMaxResponseHead, max_frame);
  if (status < 200 || status > 599) out.problem = "status " + std::to_string(status) + " is not from 200 to 599";
  std::string& encoded = out.encoded;
  encoded.reserve(kUsualHead);
  link::HeadWriter writer(encoded);
  writer.U16(0);  // the count, known at the end
  uint16_t count = 0;
  for (const auto& [raw_name, value] : headers) {
    std::string name = Lower(raw_name);
    if (!IsFieldName(name) || !IsValue(value)) {
      out.problem = "the header " + name + " holds characters that HTTP does not allow";
      break;
    }
    if (HopByHop(name)) continue;
    if (name == "content-length") {
      if (whole) continue;
      uint64_t length = 0;
      auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), length);
      if (error != std::errc() || end != value.data() + value.size() || (out.content_length && *out.content_length != length)) {
        out.problem = "content-length is not one number";
        break;
      }
      if (out.content_length) continue;
      out.content_length = length;
    }
    writer.Pair(name, value);
    ++count;
  }
  if (whole && body_size > one_frame_body) {
    writer.Pair("content-length", std::to_string(body_size));
    ++count;
  }
  if (!writer.ok() || encoded.size() > max_head || count > kMaxResponseHeaders)
    out.problem = "the headers are longer than " + std::to_string(max_head) + " bytes or more than 256";
  if (out.problem.empty()) link::internal::Put16(encoded.data(), count);
  return out;
}

std::string EncodePairs(const Headers& pairs, size_t max_frame) {
  ResponseHead head = EncodeHead(200, pairs, true, 0, max_frame);
  return head.problem.empty() ? head.encoded : std::string();
}

}  // namespace bulkhead::sdk
