// Comparing secrets.
#pragma once

#include <string_view>

namespace bulkhead::sdk {

// Takes the same time wherever the two differ (their lengths are no secret).
inline bool SameSecret(std::string_view a, std::string_view b) {
  if (a.size() != b.size() || a.empty()) return false;
  unsigned char difference = 0;
  for (size_t i = 0; i < a.size(); ++i) difference = static_cast<unsigned char>(difference | (a[i] ^ b[i]));
  volatile unsigned char result = difference;
  return result == 0;
}

}  // namespace bulkhead::sdk
