// Durations as people write them: "1500ms", "30s", "2m", "1h30m", "7d". Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "supervisor/base/clock.h"

namespace bulkhead {

inline constexpr Millis kMaxDuration{int64_t{3650} * 24 * 3'600'000};  // ten years; beyond: no duration

// Whole numbers, each with a unit of d, h, m, s or ms, the greater ones first and none twice, without blanks or a sign; and "0".
std::optional<Millis> ParseDuration(std::string_view text);
// In the largest unit that is exact: "90s", "1h".
std::string FormatDuration(Millis duration);

}  // namespace bulkhead
