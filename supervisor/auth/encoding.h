// Text that JSON Web Tokens are made of, read strictly: what two readers could understand in two ways is refused. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "nlohmann/json_fwd.hpp"

namespace bulkhead {

// base64url without padding (RFC 7515, 2). nullopt for another character, padding, an impossible length, or bits that are not zero
// behind the last byte.
std::optional<std::string> DecodeBase64Url(std::string_view text);
std::string EncodeBase64Url(std::string_view bytes);

// A JSON object. INVALID_ARGUMENT for anything else, for a name that comes twice in one object, and beyond `max_depth` levels.
absl::StatusOr<nlohmann::json> ParseStrictObject(std::string_view text, int max_depth);

}  // namespace bulkhead
