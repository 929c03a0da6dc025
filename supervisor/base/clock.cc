#include "supervisor/base/clock.h"

#include "absl/time/time.h"

#include <charconv>
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

std::optional<WallTime> ParseWall(std::string_view text) {
  absl::Time time;
  std::string error;
  std::string canonical(text);
  if (canonical.size() > 10 && canonical[10] == ' ') canonical[10] = 'T';  // RFC 3339 5.6 lets applications write a space
  if (!absl::ParseTime(absl::RFC3339_full, canonical, &time, &error)) return std::nullopt;
  if (time < absl::FromUnixSeconds(-62'135'596'800) || time > absl::FromUnixSeconds(253'402'300'799)) return std::nullopt;  // years 1 to 9999
  return std::chrono::time_point_cast<WallTime::duration>(absl::ToChronoTime(time));
}

namespace {

struct Unit {
  std::string_view name;
  int64_t ms;
};
constexpr Unit kUnits[] = {{"h", 3'600'000}, {"m", 60'000}, {"s", 1'000}, {"ms", 1}};

}  // namespace

std::optional<Millis> ParseDuration(std::string_view text) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
  if (error != std::errc() || number < 0) return std::nullopt;
  if (unit.empty() && number == 0) return Millis(0);
  for (const Unit& known : kUnits) {
    if (unit == known.name && number <= kMaxDuration.count() / known.ms) return Millis(number * known.ms);
  }
  return std::nullopt;
}

std::string FormatDuration(Millis duration) {
  for (const Unit& unit : kUnits) {
    if (duration.count() % unit.ms == 0 && duration.count() >= unit.ms) return std::to_string(duration.count() / unit.ms) + std::string(unit.name);
  }
  return std::to_string(duration.count()) + "ms";
}

}  // namespace bulkhead
