// The file <data>/admin.token: the one secret that may everything and that no database holds.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace bulkhead {

// Reads it, or makes it (0600, 32 random bytes as hex and a newline). Blocking; at boot. DATA_UNUSABLE says what to do: it is readable by
// others, cut short, a link, no file.
absl::StatusOr<std::string> ReadOrMakeAdminToken(const std::string& path);

}  // namespace bulkhead
