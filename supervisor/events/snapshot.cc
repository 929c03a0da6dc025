#include "supervisor/events/snapshot.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace bulkhead {
namespace {

// "10:20:10,14,15": below 20 all is visible but 10, 14 and 15.
struct SeenTransactions {
  uint64_t end = 0;
  std::vector<uint64_t> under_way;  // ascending, as PostgreSQL writes them
};

std::optional<SeenTransactions> ReadSnapshot(std::string_view text) {
  const std::vector<absl::string_view> parts = absl::StrSplit(absl::string_view(text.data(), text.size()), ':');
  SeenTransactions seen;
  if (parts.size() != 3 || !absl::SimpleAtoi(parts[1], &seen.end)) return std::nullopt;
  for (absl::string_view number : absl::StrSplit(parts[2], ',', absl::SkipEmpty())) {
    uint64_t xid = 0;
    if (!absl::SimpleAtoi(number, &xid)) return std::nullopt;
    seen.under_way.push_back(xid);
  }
  return seen;
}

}  // namespace

bool Covers(std::string_view whole, std::string_view part) {
  const auto all = ReadSnapshot(whole), some = ReadSnapshot(part);
  if (!all || !some || some->end > all->end) return false;
  return std::all_of(all->under_way.begin(), all->under_way.end(), [&](uint64_t xid) {
    return xid >= some->end || std::binary_search(some->under_way.begin(), some->under_way.end(), xid);
  });
}

}  // namespace bulkhead
