// Small questions about text that comes from outside. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "supervisor/base/text.h"

namespace bulkhead {

// Decodes %XX, and '+' as a space when `plus`; nullopt for a broken escape or text that is not UTF-8.
std::optional<std::string> PercentDecode(std::string_view text, bool plus);

}  // namespace bulkhead
