// Rows as text, and the times among them.
#include <charconv>
#include <cstdlib>

#include "supervisor/base/log.h"
#include "supervisor/store/database.h"

namespace bulkhead {
namespace {

// Reads the digits at `at`; false when there are none.
bool Digits(std::string_view text, size_t& at, int64_t& value) {
  auto [end, error] = std::from_chars(text.data() + at, text.data() + text.size(), value);
  if (error != std::errc() || end == text.data() + at || text[at] == '-') return false;
  at = end - text.data();
  return true;
}

bool Skip(std::string_view text, size_t& at, char c) {
  if (at >= text.size() || text[at] != c) return false;
  ++at;
  return true;
}

// "+00", "-03:30", "+05:53:28": seconds east of Greenwich.
bool Offset(std::string_view text, size_t& at, int64_t& seconds) {
  seconds = 0;
  if (at >= text.size() || (text[at] != '+' && text[at] != '-')) return true;  // timestamp without time zone: UTC
  const int sign = text[at++] == '-' ? -1 : 1;
  int64_t part = 0;
  if (!Digits(text, at, part)) return false;
  seconds = part * 3600;
  for (int unit : {60, 1}) {
    if (!Skip(text, at, ':')) break;
    if (!Digits(text, at, part)) return false;
    seconds += part * unit;
  }
  seconds *= sign;
  return true;
}

// Nanoseconds of a system_clock reach from 1677 to 2262; what lies outside is the nearest that it can say.
WallTime Clamp(int64_t seconds, int64_t nanos) {
  constexpr int64_t kNanos = 1'000'000'000;
  if (seconds >= INT64_MAX / kNanos) return WallTime::max();
  if (seconds <= INT64_MIN / kNanos) return WallTime::min();
  return WallTime(std::chrono::duration_cast<WallTime::duration>(std::chrono::nanoseconds(seconds * kNanos + nanos)));
}

// "2026-01-10 15:17:56.967123+00", "infinity", "0044-03-15 12:00:00+00 BC".
std::optional<WallTime> ParseTimestamp(std::string_view text) {
  if (text == "infinity") return WallTime::max();
  if (text == "-infinity" || text.ends_with(" BC")) return WallTime::min();
  size_t at = 0;
  int64_t year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0, offset = 0, nanos = 0;
  if (!Digits(text, at, year) || !Skip(text, at, '-') || !Digits(text, at, month) || !Skip(text, at, '-') || !Digits(text, at, day)) {
    return std::nullopt;
  }
  if (at < text.size()) {
    if (!Skip(text, at, ' ') && !Skip(text, at, 'T')) return std::nullopt;
    if (!Digits(text, at, hour) || !Skip(text, at, ':') || !Digits(text, at, minute)) return std::nullopt;
    if (Skip(text, at, ':') && !Digits(text, at, second)) return std::nullopt;
    if (Skip(text, at, '.')) {
      int64_t scale = 100'000'000;
      for (; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at, scale /= 10) nanos += (text[at] - '0') * scale;
    }
    if (Skip(text, at, 'Z')) offset = 0;
    else if (!Offset(text, at, offset)) return std::nullopt;
  }
  if (at != text.size()) return std::nullopt;
  using namespace std::chrono;
  if (year > 30'000) return WallTime::max();
  const year_month_day date{std::chrono::year(static_cast<int>(year)), std::chrono::month(static_cast<unsigned>(month)),
                            std::chrono::day(static_cast<unsigned>(day))};
  if (!date.ok()) return std::nullopt;
  const int64_t days = sys_days(date).time_since_epoch().count();
  return Clamp(days * 86'400 + hour * 3'600 + minute * 60 + second - offset, nanos);
}

}  // namespace

int Rows::Column(std::string_view name) const {
  for (size_t i = 0; i < columns_.size(); ++i) {
    if (columns_[i] == name) return static_cast<int>(i);
  }
  Fatal(__FILE__, __LINE__, "no column \"" + std::string(name) + "\" in the rows of this statement");
}

bool Rows::Null(int row, std::string_view column) const { return !cells_.at(row)[Column(column)].has_value(); }

std::string Rows::Text(int row, std::string_view column) const { return cells_.at(row)[Column(column)].value_or(""); }

int64_t Rows::Int(int row, std::string_view column) const {
  const auto& cell = cells_.at(row)[Column(column)];
  return cell ? std::strtoll(cell->c_str(), nullptr, 10) : 0;
}

bool Rows::Bool(int row, std::string_view column) const { return cells_.at(row)[Column(column)] == "t"; }

std::optional<WallTime> Rows::Time(int row, std::string_view column) const {
  const auto& cell = cells_.at(row)[Column(column)];
  return cell ? ParseTimestamp(*cell) : std::nullopt;
}

}  // namespace bulkhead
