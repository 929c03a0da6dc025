// Text that strangers write: small questions about it, and what makes it fit for JSON, rows and terminals. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/string_view.h"

namespace bulkhead {

// Whether it is UTF-8 (RFC 3629: no overlong form, no surrogate, nothing above U+10FFFF) without NUL.
bool IsValidUtf8(std::string_view bytes);
// `bytes` with each byte that is no part of valid UTF-8 replaced by U+FFFD (RFC 3629), and NUL with it.
std::string ValidUtf8(std::string_view bytes);
// The longest prefix of at most `limit` bytes that does not end inside a character.
std::string_view CutUtf8(std::string_view text, size_t limit);

// `text` with each of `secrets` replaced by "********", the longest first.
std::string MaskSecrets(std::string_view text, const std::vector<std::string>& secrets);

// For the functions of absl, whose string_view is a type of its own in Debian's build.
inline absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

// 0 to 15, or -1.
int HexDigit(char c);
// Decodes %XX once; false for a broken escape.
bool PercentDecode(std::string_view text, std::string& out);
// The same, and '+' as a space when `plus`; nullopt for a broken escape or what is not UTF-8 without NUL then.
std::optional<std::string> PercentDecodeUtf8(std::string_view text, bool plus);

// What a manifest may ask for and a token may hold: "modules:read", "consumption:*", "*"; segments of [a-z0-9_.-] split by ':', a
// star alone as the last, at most 128 characters.
bool ValidPermission(std::string_view permission);

}  // namespace bulkhead
