#include "websocket_handshake.h"

#include <openssl/evp.h>

#include <algorithm>
#include <stdexcept>

namespace bulkhead::sdk::websocket {
namespace {

constexpr std::string_view kGuid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";  // 1.3
constexpr size_t kKeySize = 24;                                             // 16 bytes in base64

std::string_view Trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// Every element of every field of that name.
std::vector<std::string_view> Elements(const Request& request, std::string_view name) {
  std::vector<std::string_view> out;
  for (const auto& [key, value] : request.headers()) {
    if (key != name) continue;
    for (std::string_view rest = value;;) {
      size_t comma = rest.find(',');
      out.push_back(Trim(rest.substr(0, comma)));
      if (comma == std::string_view::npos) break;
      rest.remove_prefix(comma + 1);
    }
  }
  return out;
}

bool IsKey(std::string_view key) {
  return key.size() == kKeySize && key.ends_with("==") && std::all_of(key.begin(), key.end() - 2, [](unsigned char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '+' || c == '/';
         });
}

}  // namespace

std::optional<Response> RefuseOther(const Request& request, bool upgrade) {
  auto protocol = Elements(request, "x-bulkhead-upgrade");
  auto version = Elements(request, "sec-websocket-version");
  bool asked = upgrade && request.method() == "GET" && protocol.size() == 1 && protocol[0] == "websocket";
  if (asked && version.size() == 1 && version[0] == "13") return std::nullopt;
  std::string_view sentence = asked ? "this path speaks version 13 of the WebSocket protocol" : "this path is a WebSocket";
  Response response = Error(request, 426, "UPGRADE_REQUIRED", sentence);
  response.Header("sec-websocket-version", "13");  // 4.4
  return response;
}

Handshake ReadHandshake(const Request& request, const std::vector<std::string>& protocols) {
  auto key = Elements(request, "sec-websocket-key");
  if (key.size() != 1 || !IsKey(key[0])) {
    throw HttpError(400, "BAD_REQUEST", "sec-websocket-key is not 16 bytes in base64");
  }
  auto offered = Elements(request, "sec-websocket-protocol");
  auto common = std::find_if(protocols.begin(), protocols.end(), [&](const std::string& name) {
    return std::find(offered.begin(), offered.end(), name) != offered.end();
  });
  return {AcceptOf(key[0]), common == protocols.end() ? std::string() : *common};
}

std::string AcceptOf(std::string_view key) {
  std::string text(key);
  text += kGuid;
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  if (EVP_Digest(text.data(), text.size(), digest, &size, EVP_sha1(), nullptr) != 1) {
    throw std::runtime_error("SHA-1 is not available, and without it there are no WebSockets");
  }
  unsigned char encoded[2 * EVP_MAX_MD_SIZE];
  int length = EVP_EncodeBlock(encoded, digest, int(size));
  return std::string(reinterpret_cast<char*>(encoded), size_t(length));
}

}  // namespace bulkhead::sdk::websocket
