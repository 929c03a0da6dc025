#include "domain/period.h"

namespace consumption {

namespace chrono = std::chrono;

std::optional<Window> WindowEnding(std::string_view period, Timestamp now) {
  chrono::hours length{};
  if (period == "hour") length = chrono::hours(1);
  else if (period == "day") length = chrono::hours(24);
  else if (period == "week") length = chrono::hours(7 * 24);
  else if (period == "month") length = chrono::hours(30 * 24);
  else return std::nullopt;
  return Window{now - length, now};
}

Month MonthOf(Timestamp at) {
  const chrono::year_month_day date(chrono::floor<chrono::days>(at));
  return {int(date.year()), int(unsigned(date.month()))};
}

Window WindowOf(Month month) {
  const chrono::year_month first{chrono::year(month.year), chrono::month(unsigned(month.month))};
  const chrono::year_month next = first + chrono::months(1);
  return {chrono::sys_days(first / chrono::day(1)), chrono::sys_days(next / chrono::day(1))};
}

}  // namespace consumption
