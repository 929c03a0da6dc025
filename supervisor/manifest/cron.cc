#include "supervisor/manifest/cron.h"

#include <algorithm>
#include <bit>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "supervisor/base/status.h"
#include "supervisor/base/text.h"

namespace bulkhead {
namespace {

constexpr size_t kMaxExpression = 256;
constexpr int kMaxYears = 5;

struct Field {
  const char* name;
  int min, max;
  std::vector<const char*> names;  // the first stands for `first_name`
  int first_name = 0;
};

const Field kSecond{"second", 0, 59, {}};
const Field kMinute{"minute", 0, 59, {}};
const Field kHour{"hour", 0, 23, {}};
const Field kDay{"day of month", 1, 31, {}};
const Field kMonth{"month", 1, 12, {"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}, 1};
const Field kWeekday{"day of week", 0, 7, {"sun", "mon", "tue", "wed", "thu", "fri", "sat"}, 0};

absl::Status Wrong(const Field& field, absl::string_view item, absl::string_view why) {
  return Error("CRON_INVALID", absl::StrCat("The ", field.name, " field of the cron expression has \"", item, "\": ", why, "."));
}

std::optional<int> Value(const Field& field, absl::string_view text) {
  int value = 0;
  if (!text.empty() && text.size() <= 2 && std::all_of(text.begin(), text.end(), absl::ascii_isdigit) &&
      absl::SimpleAtoi(text, &value)) {
    return value;
  }
  const std::string lower = absl::AsciiStrToLower(text);
  for (size_t i = 0; i < field.names.size(); ++i) {
    if (lower == field.names[i]) return field.first_name + static_cast<int>(i);
  }
  return std::nullopt;
}

// "5", "1-5", "*", "*/10", "1-20/2", "5/10" (from 5 to the end): sets the bits.
absl::Status ParseItem(const Field& field, absl::string_view item, uint64_t& bits) {
  if (item.empty()) return Wrong(field, item, "a value is missing");
  std::vector<absl::string_view> stepped = absl::StrSplit(item, absl::MaxSplits('/', 1));
  int step = 1;
  const bool has_step = stepped.size() == 2;
  // SimpleAtoi() alone would take signs, and blanks such as a carriage return.
  const bool digits = has_step && std::all_of(stepped[1].begin(), stepped[1].end(), absl::ascii_isdigit);
  if (has_step && (!digits || !absl::SimpleAtoi(stepped[1], &step) || step < 1)) {
    return Wrong(field, item, "the step after \"/\" must be a number from 1 on");
  }
  step = std::min(step, field.max + 1);  // leads past the end already, and the sum below can't overflow
  int low = field.min, high = field.max;
  if (stepped[0] == "*" || stepped[0] == "?") {
    if (&field == &kWeekday) high = 6;
  } else {
    std::vector<absl::string_view> ends = absl::StrSplit(stepped[0], absl::MaxSplits('-', 1));
    const auto first = Value(field, ends[0]);
    const auto last = ends.size() == 2 ? Value(field, ends[1]) : first;
    if (!first || !last || *first < field.min || *last > field.max || *first > field.max || *last < field.min) {
      return Wrong(field, item,
                   absl::StrCat("values are ", field.min, " to ", field.max, field.names.empty() ? "" : " or names"));
    }
    if (*last < *first) return Wrong(field, item, "the range ends before it begins");
    low = *first;
    high = ends.size() == 1 && has_step ? field.max : *last;
  }
  for (int value = low; value <= high; value += step) bits |= uint64_t{1} << value;
  return absl::OkStatus();
}

absl::Status ParseField(const Field& field, absl::string_view text, uint64_t& bits) {
  bits = 0;
  for (absl::string_view item : absl::StrSplit(text, ',')) RETURN_IF_ERROR(ParseItem(field, item, bits));
  return absl::OkStatus();
}

bool IsWild(absl::string_view text) { return text == "*" || text == "?"; }

absl::string_view Macro(absl::string_view name) {
  if (name == "@yearly" || name == "@annually") return "0 0 1 1 *";
  if (name == "@monthly") return "0 0 1 * *";
  if (name == "@weekly") return "0 0 * * 0";
  if (name == "@daily" || name == "@midnight") return "0 0 * * *";
  if (name == "@hourly") return "0 * * * *";
  return {};
}

// The lowest set bit from `from` on, -1 without one.
int NextBit(uint64_t bits, int from) {
  if (from > 63) return -1;
  bits &= ~uint64_t{0} << from;
  return bits == 0 ? -1 : std::countr_zero(bits);
}

}  // namespace

bool LoadZone(std::string_view name, absl::TimeZone& zone) {
  if (name == "UTC") {  // known without tzdata too
    zone = absl::UTCTimeZone();
    return true;
  }
  // The library would take a path or "localtime" as well; a schedule must mean the same on every node.
  const bool plain = !name.empty() && name.size() <= 64 && absl::ascii_isalpha(name[0]) &&
                     std::all_of(name.begin(), name.end(), [](unsigned char c) {
                       return absl::ascii_isalnum(c) || c == '/' || c == '_' || c == '-' || c == '+';
                     });
  if (!plain || name == "localtime" || name == "posixrules" || name.substr(0, 6) == "right/" || name.substr(0, 6) == "Fixed/")
    return false;
  return absl::LoadTimeZone(View(name), &zone);
}

absl::StatusOr<Cron> Cron::Parse(std::string_view expression, std::string_view time_zone) {
  Cron cron;
  if (!LoadZone(time_zone, cron.zone_)) {
    return Error("CRON_INVALID", absl::StrCat("There is no time zone \"", View(time_zone).substr(0, 64),
                                              "\" in the time zone database; use a name such as Europe/Berlin."));
  }
  absl::string_view text = absl::StripAsciiWhitespace(View(expression));
  if (text.size() > kMaxExpression) return Error("CRON_INVALID", "The cron expression is longer than 256 characters.");
  if (!text.empty() && text[0] == '@') {
    const absl::string_view meaning = Macro(absl::AsciiStrToLower(text));
    if (meaning.empty()) {
      return Error("CRON_INVALID",
                   absl::StrCat("\"", text, "\" is none of @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually."));
    }
    text = meaning;
  }
  std::vector<absl::string_view> fields = absl::StrSplit(text, absl::ByAnyChar(" \t"), absl::SkipEmpty());
  if (fields.size() != 5 && fields.size() != 6) {
    return Error("CRON_INVALID",
                 absl::StrCat("A cron expression has five fields, or six with seconds first; this one has ", fields.size(), "."));
  }
  if (fields.size() == 6) {
    RETURN_IF_ERROR(ParseField(kSecond, fields[0], cron.seconds_));
    fields.erase(fields.begin());
  }
  uint64_t hours, days, months, weekdays;
  RETURN_IF_ERROR(ParseField(kMinute, fields[0], cron.minutes_));
  RETURN_IF_ERROR(ParseField(kHour, fields[1], hours));
  RETURN_IF_ERROR(ParseField(kDay, fields[2], days));
  RETURN_IF_ERROR(ParseField(kMonth, fields[3], months));
  RETURN_IF_ERROR(ParseField(kWeekday, fields[4], weekdays));
  if (weekdays & (1 << 7)) weekdays |= 1;
  cron.hours_ = static_cast<uint32_t>(hours);
  cron.days_ = static_cast<uint32_t>(days);
  cron.months_ = static_cast<uint32_t>(months);
  cron.weekdays_ = static_cast<uint32_t>(weekdays & 0x7f);
  cron.any_day_ = IsWild(fields[2]);
  cron.any_weekday_ = IsWild(fields[4]);
  cron.fixed_hour_ = fields[1].find_first_of("*?/") == absl::string_view::npos;
  // 2000 is a leap year: a day that it does not have in any of the months, none has.
  bool possible = !cron.any_day_ && !cron.any_weekday_;
  for (absl::CivilDay day(2000, 1, 1); !possible && day.year() == 2000; ++day) {
    possible = (cron.days_ >> day.day() & 1) && (cron.months_ >> day.month() & 1);
  }
  if (!possible)
    return Error("CRON_INVALID", "The day of month and month fields of the cron expression name a date that no year has.");
  return cron;
}

bool Cron::DayMatches(absl::CivilDay day) const {
  if (!(months_ >> day.month() & 1)) return false;
  const int weekday = (static_cast<int>(absl::GetWeekday(day)) + 1) % 7;  // absl counts from Monday, cron from Sunday
  const bool by_day = days_ >> day.day() & 1, by_weekday = weekdays_ >> weekday & 1;
  return any_day_ || any_weekday_ ? by_day && by_weekday : by_day || by_weekday;
}

std::optional<absl::CivilSecond> Cron::NextCivil(absl::CivilSecond from, absl::CivilDay last) const {
  for (absl::CivilDay day(from); day <= last; ++day) {
    if (!DayMatches(day)) continue;
    const absl::CivilSecond begin = std::max(from, absl::CivilSecond(day));
    for (int hour = NextBit(hours_, begin.hour()); hour >= 0; hour = NextBit(hours_, hour + 1)) {
      const int first_minute = hour == begin.hour() ? begin.minute() : 0;
      for (int minute = NextBit(minutes_, first_minute); minute >= 0; minute = NextBit(minutes_, minute + 1)) {
        const bool same_minute = hour == begin.hour() && minute == begin.minute();
        const int second = NextBit(seconds_, same_minute ? begin.second() : 0);
        if (second >= 0) return absl::CivilSecond(day.year(), day.month(), day.day(), hour, minute, second);
      }
    }
  }
  return std::nullopt;
}

std::optional<absl::Time> Cron::NextFixed(absl::Time after) const {
  absl::CivilSecond from = zone_.At(after).cs + 1;
  const absl::CivilDay last(absl::CivilDay(from) + 366 * kMaxYears);
  while (auto civil = NextCivil(from, last)) {
    const absl::TimeZone::TimeInfo info = zone_.At(*civil);
    const absl::Time at = info.kind == absl::TimeZone::TimeInfo::SKIPPED ? info.trans : info.pre;
    if (at > after) return at;
    // Within the second pass of an overlap the first occurrence has gone already.
    from = *civil + 1;
  }
  return std::nullopt;
}

std::optional<absl::Time> Cron::NextWild(absl::Time after) const {
  // The civil time runs evenly between two transitions of the zone: look there, then behind the next transition.
  const absl::TimeZone::CivilInfo now = zone_.At(after);
  const absl::CivilDay last(absl::CivilDay(now.cs) + 366 * kMaxYears);
  absl::CivilSecond base = now.cs;  // the civil second of `base_time`
  absl::Time base_time = after - now.subsecond;
  absl::CivilSecond from = now.cs + 1;
  while (true) {
    const auto civil = NextCivil(from, last);
    absl::TimeZone::CivilTransition transition;
    const bool has_transition = zone_.NextTransition(base_time, &transition);
    const absl::Time turn = has_transition ? zone_.At(transition.to).trans : absl::InfiniteFuture();
    if (civil) {
      const absl::Time at = base_time + absl::Seconds(*civil - base);
      if (at < turn) return at;
    }
    if (!has_transition || absl::CivilDay(transition.to) > last) return std::nullopt;
    base_time = turn;
    base = from = transition.to;
  }
}

std::optional<WallTime> Cron::Next(WallTime after) const {
  const absl::Time time = absl::FromChrono(after);
  const auto next = fixed_hour_ ? NextFixed(time) : NextWild(time);
  if (!next) return std::nullopt;
  return absl::ToChronoTime(*next);
}

}  // namespace bulkhead
