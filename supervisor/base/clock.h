// Time as everybody gets it: from a Clock that tests and the simulation replace. Nothing else calls now().
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace bulkhead {

using Millis = std::chrono::milliseconds;
using Instant = std::chrono::steady_clock::time_point;   // for intervals and deadlines; never jumps
using WallTime = std::chrono::system_clock::time_point;  // for people and rows; may jump

// Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual Instant Now() const = 0;
  virtual WallTime Wall() const = 0;
  static const Clock& Real();
};

// RFC 3339 in UTC with milliseconds, "2026-01-10T15:17:56.967Z".
std::string FormatWall(WallTime time);
// The same with microseconds, which is what PostgreSQL keeps.
std::string FormatWallExactly(WallTime time);
// RFC 3339 with any offset, "2026-01-31T09:30:00Z", "2026-01-31 10:30:00.5+01:00"; nullopt for anything else.
std::optional<WallTime> ParseWall(std::string_view text);

// Whole seconds since 1970, towards zero.
inline int64_t UnixSeconds(WallTime time) { return std::chrono::duration_cast<std::chrono::seconds>(time.time_since_epoch()).count(); }

}  // namespace bulkhead
