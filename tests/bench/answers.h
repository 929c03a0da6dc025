// What the module and the peers' backend answer, so that everybody sends a client the same bytes of body.
#pragma once

#include <string>
#include <string_view>

namespace bench {

inline constexpr std::string_view kType = "application/json";
inline constexpr std::string_view kSmall =
    R"({"success":true,"data":{"id":4711,"name":"a small answer","tags":["as","most","answers","are"],"total":12.5}})";

// `size` bytes that pass for JSON.
inline std::string Large(size_t size) {
  std::string text = "\"";
  while (text.size() + 1 < size) text += char('a' + text.size() % 26);
  return text + '"';
}

}  // namespace bench
