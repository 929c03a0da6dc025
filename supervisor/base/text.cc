#include "supervisor/base/text.h"

#include <algorithm>
#include <cstdint>

namespace bulkhead {
namespace {

constexpr size_t kMaxPermission = 128;
constexpr std::string_view kMasked = "********";
constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// Length of the valid character at the start of `bytes`, 0 when there is none. RFC 3629: no overlong form, no surrogate,
// nothing above U+10FFFF.
size_t CharacterLength(std::string_view bytes) {
  auto byte = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  uint8_t first = byte(0);
  if (first < 0x80) return first == 0 ? 0 : 1;
  size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || bytes.size() < length) return 0;
  uint8_t low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
  uint8_t high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
  if (byte(1) < low || byte(1) > high) return 0;
  for (size_t i = 2; i < length; ++i) {
    if (byte(i) < 0x80 || byte(i) > 0xBF) return 0;
  }
  return length;
}

bool SegmentCharacter(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.' || c == '-'; }

}  // namespace

bool IsValidUtf8(std::string_view bytes) {
  while (!bytes.empty()) {
    size_t length = CharacterLength(bytes);
    if (length == 0) return false;
    bytes.remove_prefix(length);
  }
  return true;
}

std::string ValidUtf8(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  while (!bytes.empty()) {
    size_t length = CharacterLength(bytes);
    text.append(length == 0 ? kReplacement : bytes.substr(0, length));
    bytes.remove_prefix(length == 0 ? 1 : length);
  }
  return text;
}

std::string MaskSecrets(std::string_view text, const std::vector<std::string>& secrets) {
  std::string masked(text);
  std::vector<std::string_view> ordered(secrets.begin(), secrets.end());
  std::sort(ordered.begin(), ordered.end(), [](std::string_view a, std::string_view b) { return a.size() > b.size(); });
  for (const std::string_view secret : ordered) {
    if (secret.empty()) continue;
    for (size_t at = 0; (at = masked.find(secret, at)) != std::string::npos; at += kMasked.size()) masked.replace(at, secret.size(), kMasked);
  }
  return masked;
}

std::string_view CutUtf8(std::string_view text, size_t limit) {
  if (text.size() <= limit) return text;
  // Back over at most three continuation bytes, to the start of the character that the limit falls into.
  size_t end = limit;
  while (end > 0 && limit - end < 3 && (static_cast<uint8_t>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, (static_cast<uint8_t>(text[end]) & 0xC0) == 0x80 ? limit : end);
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool PercentDecode(std::string_view text, std::string& out) {
  out.clear();
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out.push_back(text[i]);
      continue;
    }
    if (i + 2 >= text.size()) return false;
    const int high = HexDigit(text[i + 1]), low = HexDigit(text[i + 2]);
    if (high < 0 || low < 0) return false;
    out.push_back(static_cast<char>(high * 16 + low));
    i += 2;
  }
  return true;
}

std::optional<std::string> PercentDecodeUtf8(std::string_view text, bool plus) {
  std::string encoded(text), decoded;
  if (plus) std::replace(encoded.begin(), encoded.end(), '+', ' ');
  if (!PercentDecode(encoded, decoded) || !IsValidUtf8(decoded)) return std::nullopt;
  return decoded;
}

bool ValidPermission(std::string_view permission) {
  if (permission.empty() || permission.size() > kMaxPermission) return false;
  while (true) {
    const size_t colon = permission.find(':');
    const std::string_view segment = permission.substr(0, colon);
    const bool last = colon == std::string_view::npos;
    if (segment == "*") return last;  // a star stands alone, and only at the end
    if (segment.empty()) return false;
    for (char c : segment) {
      if (!SegmentCharacter(c)) return false;
    }
    if (last) return true;
    permission.remove_prefix(colon + 1);
  }
}

}  // namespace bulkhead
