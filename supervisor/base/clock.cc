#include "supervisor/base/clock.h"

#include <cstdio>
#include <ctime>

namespace bulkhead {
namespace {

class RealClock : public Clock {
 public:
  Instant Now() const override { return std::chrono::steady_clock::now(); }
  WallTime Wall() const override { return std::chrono::system_clock::now(); }
};

}  // namespace

const Clock& Clock::Real() {
  static const RealClock clock;
  return clock;
}

std::string FormatWall(WallTime time) {
  auto ms = std::chrono::floor<Millis>(time).time_since_epoch().count();
  time_t seconds = static_cast<time_t>(ms >= 0 ? ms / 1000 : (ms - 999) / 1000);
  tm parts{};
  gmtime_r(&seconds, &parts);
  char text[48];
  snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday,
           parts.tm_hour, parts.tm_min, parts.tm_sec, static_cast<int>(ms - static_cast<int64_t>(seconds) * 1000));
  return text;
}

}  // namespace bulkhead
