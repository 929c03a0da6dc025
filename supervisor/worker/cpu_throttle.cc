#include "supervisor/worker/cpu_throttle.h"

#include <algorithm>
#include <charconv>

#include "supervisor/base/fd.h"

namespace bulkhead {
namespace {

int64_t NumberAfter(std::string_view text, std::string_view key) {
  for (size_t at = 0; at < text.size();) {
    const std::string_view line = text.substr(at, text.find('\n', at) - at);
    at += line.size() + 1;
    if (!line.starts_with(key) || line.size() <= key.size() || line[key.size()] != ' ') continue;
    int64_t number = 0;
    std::from_chars(line.data() + key.size() + 1, line.data() + line.size(), number);
    return number;
  }
  return 0;
}

}  // namespace

Millis ThrottledOf(std::string_view cpu_stat) {
  return Millis(NumberAfter(cpu_stat, "throttled_usec") / 1'000 + NumberAfter(cpu_stat, "throttled_time") / 1'000'000);
}

Millis CpuThrottle::Total() const {
  if (file_.empty()) return Millis(0);
  auto text = ReadFile(file_);
  return text.ok() ? ThrottledOf(*text) : Millis(0);
}

void CpuThrottle::Look(Instant now) {
  if (file_.empty()) return;
  if (later_.at == Instant{}) earlier_ = later_ = {now, Total()};
  if (now - later_.at < kLately) return;
  earlier_ = later_;
  later_ = {now, Total()};
}

double CpuThrottle::ShareLately(Instant now) const {
  const auto passed = std::chrono::duration_cast<Millis>(now - earlier_.at);
  if (file_.empty() || earlier_.at == Instant{} || passed <= Millis(0)) return 0;
  // The figures of several CPUs are added up.
  return std::clamp(static_cast<double>((Total() - earlier_.total).count()) / static_cast<double>(passed.count()), 0.0, 1.0);
}

}  // namespace bulkhead
