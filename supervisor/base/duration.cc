#include "supervisor/base/duration.h"

#include <charconv>

namespace bulkhead {

namespace {

constexpr std::pair<std::string_view, int64_t> kUnits[] = {{"d", 86'400'000}, {"h", 3'600'000}, {"m", 60'000}, {"s", 1'000}, {"ms", 1}};

}  // namespace

std::optional<Millis> ParseDuration(std::string_view text) {
  if (text.empty()) return std::nullopt;
  if (text == "0") return Millis(0);
  int64_t total = 0;
  size_t next_unit = 0;  // those before it are greater than the last one
  while (!text.empty()) {
    if (text[0] < '0' || text[0] > '9') return std::nullopt;
    int64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc()) return std::nullopt;
    text.remove_prefix(static_cast<size_t>(end - text.data()));
    const std::string_view unit = text.substr(0, text.find_first_of("0123456789"));
    text.remove_prefix(unit.size());
    while (next_unit < std::size(kUnits) && kUnits[next_unit].first != unit) ++next_unit;
    if (next_unit == std::size(kUnits)) return std::nullopt;
    const int64_t factor = kUnits[next_unit++].second;
    if (number > (kMaxDuration.count() - total) / factor) return std::nullopt;
    total += number * factor;
  }
  return Millis(total);
}

std::string FormatDuration(Millis duration) {
  for (const auto& [name, ms] : kUnits) {
    if (name != "d" && duration.count() >= ms && duration.count() % ms == 0) return std::to_string(duration.count() / ms) + std::string(name);
  }
  return std::to_string(duration.count()) + "ms";
}

}  // namespace bulkhead
