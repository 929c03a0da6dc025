// Quantities as people write them. Pure.
#pragma once

#include <optional>

#include "absl/strings/string_view.h"

namespace bulkhead {

// "512Mi", "256MB", "1073741824": bytes. Units as Kubernetes and as people write them.
std::optional<double> ParseMemory(absl::string_view text);

}  // namespace bulkhead
