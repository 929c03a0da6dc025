// Small questions about text that comes from outside. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace bulkhead {

// RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF.
bool IsValidUtf8(std::string_view text);
// The text with each byte that belongs to no valid sequence as U+FFFD; protobuf strings and JSON can't hold others.
std::string ValidUtf8(std::string_view text);
// Decodes %XX, and '+' as a space when `plus`; nullopt for a broken escape or text that is not UTF-8.
std::optional<std::string> PercentDecode(std::string_view text, bool plus);

}  // namespace bulkhead
