#include "supervisor/notify/settings.h"

#include <string_view>

namespace bulkhead {

bool IsPlainAddress(const std::string& text) {
  const size_t at = text.find('@');
  if (text.size() > 254 || at == 0 || at == std::string::npos || at + 1 == text.size() || text.find('@', at + 1) != std::string::npos) return false;
  for (const unsigned char c : text) {
    if (c <= ' ' || c >= 0x7f || std::string_view("<>()[],;:\\\"").find(static_cast<char>(c)) != std::string_view::npos) return false;
  }
  return true;
}

}  // namespace bulkhead
