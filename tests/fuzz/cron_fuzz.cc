// Cron expressions as any text, then a line with a time zone and one with a moment: a tick lies behind its moment and fits every
// field as a second, simpler reading of them has it; no minute between was left out.
#include <cstring>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "supervisor/base/log.h"
#include "supervisor/manifest/cron.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace bulkhead;

const char* const kNames[] = {"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct",
                              "nov", "dec", "sun", "mon", "tue", "wed", "thu", "fri", "sat"};

int Number(absl::string_view text, bool month) {
  for (int i = 0; i < 19; ++i) {
    if (absl::AsciiStrToLower(text) == kNames[i] && (i < 12) == month) return i < 12 ? i + 1 : i - 12;
  }
  int number = -1;
  BULKHEAD_CHECK(absl::SimpleAtoi(text, &number));
  return number;
}

// Whether `value` is one of those that an accepted field names.
bool Fits(absl::string_view field, int value, int min, int max, bool month) {
  for (absl::string_view item : absl::StrSplit(field, ',')) {
    std::vector<absl::string_view> stepped = absl::StrSplit(item, '/');
    int64_t step = 1;
    if (stepped.size() == 2) BULKHEAD_CHECK(absl::SimpleAtoi(stepped[1], &step));
    int low = min, high = max;
    if (stepped[0] != "*" && stepped[0] != "?") {
      std::vector<absl::string_view> ends = absl::StrSplit(stepped[0], '-');
      low = Number(ends[0], month);
      high = ends.size() == 2 ? Number(ends[1], month) : stepped.size() == 2 ? max : low;
    }
    if (value >= low && value <= high && (value - low) % step == 0) return true;
  }
  return false;
}

void CheckFields(absl::string_view expression, absl::CivilSecond at) {
  std::vector<absl::string_view> fields = absl::StrSplit(expression, absl::ByAnyChar(" \t\n\v\f\r"), absl::SkipEmpty());
  if (fields.size() == 5) fields.insert(fields.begin(), "0");
  BULKHEAD_CHECK(fields.size() == 6);
  BULKHEAD_CHECK(Fits(fields[0], at.second(), 0, 59, false));
  BULKHEAD_CHECK(Fits(fields[1], at.minute(), 0, 59, false));
  BULKHEAD_CHECK(Fits(fields[2], at.hour(), 0, 23, false));
  BULKHEAD_CHECK(Fits(fields[4], at.month(), 1, 12, true));
  const int weekday = (static_cast<int>(absl::GetWeekday(absl::CivilDay(at))) + 1) % 7;
  const bool any_day = strchr("*?", fields[3][0]) != nullptr, any_weekday = strchr("*?", fields[5][0]) != nullptr;
  const int last_weekday = fields[5].find_first_of("*?") == absl::string_view::npos ? 7 : 6;
  const bool day = Fits(fields[3], at.day(), 1, 31, false);
  const bool on_weekday = Fits(fields[5], weekday, 0, last_weekday, false) || (weekday == 0 && Fits(fields[5], 7, 0, 7, false));
  BULKHEAD_CHECK(any_day || any_weekday ? day && on_weekday : day || on_weekday);
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  return {"0 */6 * * *\nUTC\n1767225600",          "*/15 9-17 * jan-mar mon-fri\nEurope/Berlin\n1774746000",
          "30 2 * * *\nEurope/Berlin\n1774742400", "@daily\nAustralia/Lord_Howe\n1791072000",
          "0 0 29 2 *\nUTC\n3976214400",           "59 59 23 31 12 ?\nPacific/Apia\n1325203200",
          "5/7,1-3/2,? * 1,15 * 0,7\nUTC\n0",      "* * * * * *\nUTC\n-62135596800"};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), std::min<size_t>(size, 1024));
  const size_t first = std::min(text.find('\n'), text.size()), second = std::min(text.find('\n', first + 1), text.size());
  const std::string_view expression = text.substr(0, first);
  const std::string_view zone = first < text.size() ? text.substr(first + 1, second - first - 1) : "UTC";
  int64_t seconds = 0;
  if (second < text.size())
    (void)absl::SimpleAtoi(absl::string_view(text.data() + second + 1, text.size() - second - 1), &seconds);
  constexpr int64_t kReach = int64_t{9'000'000'000};  // the year 2255, and as far back: nanoseconds hold no more
  const WallTime after = absl::ToChronoTime(absl::FromUnixSeconds(std::clamp(seconds, -kReach, kReach)));
  const auto cron = Cron::Parse(expression, zone);
  if (!cron.ok()) return 0;
  const auto next = cron->Next(after);
  if (!next) return 0;
  BULKHEAD_CHECK(*next > after);
  // Asked from right before it, it is the next one still.
  const auto again = cron->Next(*next - std::chrono::seconds(1));
  BULKHEAD_CHECK(again && *again <= *next);
  const auto from_between = cron->Next(after + (*next - after) / 2);
  BULKHEAD_CHECK(from_between && *from_between == *next);
  if (zone != "UTC") return 0;  // elsewhere a gap moves what it skips
  BULKHEAD_CHECK(*again == *next);
  const absl::string_view bare = absl::StripAsciiWhitespace(absl::string_view(expression.data(), expression.size()));
  if (bare[0] != '@') CheckFields(bare, absl::ToCivilSecond(absl::FromChrono(*next), absl::UTCTimeZone()));
  return 0;
}
