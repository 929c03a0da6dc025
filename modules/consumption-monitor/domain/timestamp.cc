// RFC 3339 both ways. Written out because this compiler's <chrono> neither parses nor formats.
#include "domain/timestamp.h"

#include <cstdio>

namespace consumption {
namespace {

namespace chrono = std::chrono;

// Takes fixed-width fields off the front of a text; the first that does not fit spoils the whole.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : rest_(text) {}

  int Digits(size_t count, int low, int high) {
    if (rest_.size() < count) return Fail();
    int value = 0;
    for (char c : rest_.substr(0, count)) {
      if (c < '0' || c > '9') return Fail();
      value = value * 10 + (c - '0');
    }
    rest_.remove_prefix(count);
    return value < low || value > high ? Fail() : value;
  }

  char OneOf(std::string_view allowed) {
    if (rest_.empty() || allowed.find(rest_.front()) == std::string_view::npos) {
      Fail();
      return '\0';
    }
    char c = rest_.front();
    rest_.remove_prefix(1);
    return c;
  }

  // ".123": microseconds; nothing when no fraction follows.
  int Fraction() {
    if (rest_.empty() || rest_.front() != '.') return 0;
    rest_.remove_prefix(1);
    int micros = 0;
    size_t digits = 0;
    for (; !rest_.empty() && rest_.front() >= '0' && rest_.front() <= '9'; rest_.remove_prefix(1), ++digits) {
      if (digits < 6) micros = micros * 10 + (rest_.front() - '0');
    }
    if (digits == 0) return Fail();
    for (; digits < 6; ++digits) micros *= 10;
    return micros;
  }

  bool Done() const { return good_ && rest_.empty(); }

 private:
  int Fail() {
    good_ = false;
    rest_ = {};
    return 0;
  }
  std::string_view rest_;
  bool good_ = true;
};

}  // namespace

std::string FormatTimestamp(Timestamp at) {
  const auto day = chrono::floor<chrono::days>(at);
  const chrono::year_month_day date(day);
  const chrono::hh_mm_ss time(at - day);
  char text[48];
  std::snprintf(text, sizeof text, "%04d-%02u-%02uT%02d:%02d:%02d.%06dZ", int(date.year()), unsigned(date.month()),
                unsigned(date.day()), int(time.hours().count()), int(time.minutes().count()), int(time.seconds().count()),
                int(time.subseconds().count()));
  return text;
}

std::optional<Timestamp> ParseTimestamp(std::string_view text) {
  Scanner scan(text);
  const int year = scan.Digits(4, 0, 9999);
  scan.OneOf("-");
  const int month = scan.Digits(2, 1, 12);
  scan.OneOf("-");
  const int day = scan.Digits(2, 1, 31);
  scan.OneOf("Tt ");
  const int hour = scan.Digits(2, 0, 23);
  scan.OneOf(":");
  const int minute = scan.Digits(2, 0, 59);
  scan.OneOf(":");
  const int second = scan.Digits(2, 0, 60);
  const int micros = scan.Fraction();
  const char zone = scan.OneOf("Zz+-");
  chrono::minutes offset{0};
  if (zone == '+' || zone == '-') {
    offset = chrono::hours(scan.Digits(2, 0, 23));
    scan.OneOf(":");
    offset += chrono::minutes(scan.Digits(2, 0, 59));
    if (zone == '-') offset = -offset;
  }
  const chrono::year_month_day date{chrono::year(year), chrono::month(unsigned(month)), chrono::day(unsigned(day))};
  if (!scan.Done() || !date.ok()) return std::nullopt;
  return Timestamp(chrono::sys_days(date)) + chrono::hours(hour) + chrono::minutes(minute) + chrono::seconds(second) +
         chrono::microseconds(second == 60 ? 0 : micros) - offset;
}

}  // namespace consumption
