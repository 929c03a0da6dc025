#include "supervisor/auth/encoding.h"

#include <array>
#include <cstdint>
#include <set>
#include <vector>

#include "nlohmann/json.hpp"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

using nlohmann::json;

constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

constexpr std::array<int8_t, 256> MakeValues() {
  std::array<int8_t, 256> values{};
  for (auto& value : values) value = -1;
  for (size_t i = 0; i < kAlphabet.size(); ++i) values[static_cast<unsigned char>(kAlphabet[i])] = static_cast<int8_t>(i);
  return values;
}
constexpr std::array<int8_t, 256> kValues = MakeValues();

absl::Status NotAnObject(std::string_view why) { return Error("INVALID_ARGUMENT", "It is " + std::string(why) + "."); }

}  // namespace

std::optional<std::string> DecodeBase64Url(std::string_view text) {
  if (text.size() % 4 == 1) return std::nullopt;
  std::string bytes;
  bytes.reserve(text.size() * 3 / 4);
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    const int value = kValues[static_cast<unsigned char>(c)];
    if (value < 0) return std::nullopt;
    bits = bits << 6 | static_cast<uint32_t>(value);
    count += 6;
    if (count >= 8) {
      count -= 8;
      bytes += static_cast<char>(bits >> count & 0xff);
    }
  }
  if ((bits & ((1u << count) - 1)) != 0) return std::nullopt;
  return bytes;
}

std::string EncodeBase64Url(std::string_view bytes) {
  std::string text;
  text.reserve((bytes.size() * 4 + 2) / 3);
  uint32_t bits = 0;
  int count = 0;
  for (const char c : bytes) {
    bits = bits << 8 | static_cast<unsigned char>(c);
    count += 8;
    while (count >= 6) {
      count -= 6;
      text += kAlphabet[bits >> count & 63];
    }
  }
  if (count > 0) text += kAlphabet[bits << (6 - count) & 63];
  return text;
}

absl::StatusOr<json> ParseStrictObject(std::string_view text, int max_depth) {
  std::vector<std::set<std::string>> names;  // of the objects that are open; empty ones for arrays
  bool twice = false, deep = false;
  const auto watch = [&](int, json::parse_event_t event, json& value) {
    switch (event) {
      case json::parse_event_t::object_start:
      case json::parse_event_t::array_start:
        names.emplace_back();
        if (static_cast<int>(names.size()) > max_depth) deep = true;
        break;
      case json::parse_event_t::object_end:
      case json::parse_event_t::array_end: names.pop_back(); break;
      case json::parse_event_t::key:
        if (!names.back().insert(value.get<std::string>()).second) twice = true;
        break;
      case json::parse_event_t::value: break;
    }
    return !deep;  // what is too deep is not kept
  };
  json parsed = json::parse(text, watch, /*allow_exceptions=*/false);
  if (deep) return NotAnObject("nested too deeply");
  if (parsed.is_discarded()) return NotAnObject("not JSON");
  if (!parsed.is_object()) return NotAnObject("not a JSON object");
  if (twice) return NotAnObject("ambiguous: a name comes twice");
  return parsed;
}

}  // namespace bulkhead
