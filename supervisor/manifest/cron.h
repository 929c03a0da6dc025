// Five- and six-field cron expressions (the sixth, first in place, is seconds), names, ranges, steps, @hourly and the like. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "supervisor/base/clock.h"

namespace bulkhead {

class Cron {
 public:
  // CRON_INVALID with a sentence that names the field; also for a time zone that tzdata does not have.
  static absl::StatusOr<Cron> Parse(std::string_view expression, std::string_view time_zone = "UTC");
  // The first tick after `after`, nullopt when there is none within 5 years. A local time that a DST gap skips runs at the
  // first instant after the gap; one that an overlap repeats runs once, at the first occurrence (schedules with a wildcard
  // or step in the hour field run in both).
  std::optional<WallTime> Next(WallTime after) const;

 private:
  uint64_t seconds_ = 1, minutes_ = 0;
  uint32_t hours_ = 0, days_ = 0, months_ = 0, weekdays_ = 0;
  bool any_day_ = true, any_weekday_ = true, fixed_hour_ = false;
  std::string zone_;
};

}  // namespace bulkhead
