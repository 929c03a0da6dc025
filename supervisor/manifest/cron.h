// Five- and six-field cron expressions (the sixth, first in place, is seconds), names, ranges, steps, @hourly and the like. Pure.
// Fields as in crontab(5): minute, hour, day of month, month, day of week (0 and 7 are Sunday). When both day fields are
// restricted, and "*/2" is a restriction, a day that fits either is meant; "?" is "*". Ticks are those of npm's croner, but for what is said at Next().
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "supervisor/base/clock.h"

namespace bulkhead {

class Cron {
 public:
  // CRON_INVALID with a sentence that names the field; also for a time zone that tzdata does not have.
  static absl::StatusOr<Cron> Parse(std::string_view expression, std::string_view time_zone = "UTC");
  // The first tick after `after`, nullopt when there is none within 5 years. With a fixed hour field, a local time that a DST
  // gap skips runs once, at the first instant after the gap (several of them together, which croner leaves out), and one that an
  // overlap repeats runs once, at the first occurrence. With a wildcard or step in the hour field the schedule follows the clock on
  // the wall: nothing in the gap, both occurrences in the overlap.
  std::optional<WallTime> Next(WallTime after) const;

 private:
  struct Parser;
  bool DayMatches(absl::CivilDay day) const;
  std::optional<absl::CivilSecond> NextCivil(absl::CivilSecond from, absl::CivilDay last) const;
  std::optional<absl::Time> NextFixed(absl::Time after) const;
  std::optional<absl::Time> NextWild(absl::Time after) const;

  uint64_t seconds_ = 1, minutes_ = 0;
  uint32_t hours_ = 0, days_ = 0, months_ = 0, weekdays_ = 0;
  bool any_day_ = true, any_weekday_ = true, fixed_hour_ = false;
  absl::TimeZone zone_;
};

// Whether tzdata has it: "UTC", "Europe/Berlin".
bool LoadZone(std::string_view name, absl::TimeZone& zone);

}  // namespace bulkhead
