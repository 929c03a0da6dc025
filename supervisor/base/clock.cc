#include "supervisor/base/clock.h"

#include <cstdio>
#include <ctime>

#include "absl/time/time.h"

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

std::string FormatWallExactly(WallTime time) {
  return absl::FormatTime("%E4Y-%m-%dT%H:%M:%E6SZ", absl::FromChrono(time), absl::UTCTimeZone());
}

std::optional<WallTime> ParseWall(std::string_view text) {
  absl::Time time;
  std::string error;
  std::string canonical(text);
  if (canonical.size() > 10 && canonical[10] == ' ') canonical[10] = 'T';  // RFC 3339 5.6 lets applications write a space
  if (!absl::ParseTime(absl::RFC3339_full, canonical, &time, &error)) return std::nullopt;
  if (time < absl::FromUnixSeconds(-62'135'596'800) || time > absl::FromUnixSeconds(253'402'300'799)) return std::nullopt;  // years 1 to 9999
  return std::chrono::time_point_cast<WallTime::duration>(absl::ToChronoTime(time));
}

}  // namespace bulkhead
