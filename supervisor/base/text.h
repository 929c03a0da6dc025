// Text that strangers write, made fit for JSON, rows and terminals.
#pragma once

#include <string>
#include <string_view>

namespace bulkhead {

// Whether it is UTF-8 (RFC 3629: no overlong form, no surrogate, nothing above U+10FFFF) without NUL.
bool IsValidUtf8(std::string_view bytes);
// `bytes` with each byte that is no part of valid UTF-8 replaced by U+FFFD (RFC 3629), and NUL with it.
std::string ValidUtf8(std::string_view bytes);
// The longest prefix of at most `limit` bytes that does not end inside a character.
std::string_view CutUtf8(std::string_view text, size_t limit);

}  // namespace bulkhead
