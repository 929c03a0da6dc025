// Moments in UTC to the microsecond, and their RFC 3339 form. Pure.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

namespace consumption {

using Timestamp = std::chrono::sys_time<std::chrono::microseconds>;

// "2026-01-31T23:59:59.000000Z", for the years 0 to 9999.
std::string FormatTimestamp(Timestamp at);

// RFC 3339 section 5.6: date, 'T' or 't' or a space, time, an optional fraction (digits past the sixth are cut off), and a zone, 'Z'
// or +hh:mm. A leap second counts as the first moment of the next minute. Nullopt for everything else.
std::optional<Timestamp> ParseTimestamp(std::string_view text);

}  // namespace consumption
