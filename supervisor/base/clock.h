// Time as everybody gets it: from a Clock that tests and the simulation replace. Nothing else calls now().
#pragma once

#include <chrono>
#include <string>

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

}  // namespace bulkhead
