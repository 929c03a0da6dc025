// The spans of time that consumption is asked for. Pure; all in UTC.
#pragma once

#include <optional>
#include <string_view>

#include "domain/timestamp.h"

namespace consumption {

// [from, to)
struct Window {
  Timestamp from, to;
  bool operator==(const Window&) const = default;
};

// The hour, day, week or month (30 days) that ends now, so that there is always something to see. Nullopt for other names.
std::optional<Window> WindowEnding(std::string_view period, Timestamp now);

inline constexpr int kMinYear = 1970, kMaxYear = 9998;  // the next month must be writable too

struct Month {
  int year = 1970;  // kMinYear to kMaxYear
  int month = 1;    // 1 to 12
};
Month MonthOf(Timestamp at);
// From its first moment to the first of the next one.
Window WindowOf(Month month);

}  // namespace consumption
