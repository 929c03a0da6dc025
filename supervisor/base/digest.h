// SHA-256 and HMAC-SHA256 as lower-case hex, for the rooms below auth, which has its own, raw ones too. Thread-safe.
#pragma once

#include <string>
#include <string_view>

namespace bulkhead {

std::string DigestHex(std::string_view data);
std::string HmacHex(std::string_view key, std::string_view data);

}  // namespace bulkhead
