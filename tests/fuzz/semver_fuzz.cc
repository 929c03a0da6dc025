// Versions and ranges as any text, a line each: printing is the inverse of parsing, the order is total, the lowest version of a
// range is in it and nothing in it is lower, "||" is a union.
#include "absl/strings/str_split.h"
#include "supervisor/base/log.h"
#include "supervisor/manifest/semver.h"
#include "tests/fuzz/fuzz.h"

using namespace bulkhead;

std::vector<std::string> FuzzSeeds() {
  return {"1.2.3\n1.2.3-rc.1+build.7\n^1.2 || ~2.0.3-beta\n>=1.0.0 <2.0.0-0",
          "0.0.0-0\n9007199254740991.0.0\n>1.2.2 <1.2.3-beta\n1.2 - 2.x", "1.0.0-alpha.1\n1.0.0-alpha.beta\n*\n",
          "10.0.0\n9.99.999\n= v1.2.3 <=4\n>2 <1", "1.2.3-x-y.0a\n1.2.3-01\n~> 1.x || 1.2.3 - 1.2\n< x"};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text(reinterpret_cast<const char*>(data), std::min<size_t>(size, 4096));
  std::vector<SemVer> versions{SemVer{}, {1, 2, 3, {}, {}}, {1, 2, 3, {"beta"}, {}}};
  std::vector<std::pair<std::string, SemVerRange>> ranges;
  const std::vector<std::string> lines = absl::StrSplit(text, '\n');
  for (size_t i = 0; i < std::min<size_t>(lines.size(), 8); ++i) {
    if (auto version = ParseSemVer(lines[i])) {
      BULKHEAD_CHECK(version->ToString() == lines[i]);
      versions.push_back(*version);
    }
    if (auto range = SemVerRange::Parse(lines[i])) {
      if (auto lowest = range->Minimum()) versions.push_back(*lowest);
      ranges.emplace_back(lines[i], *range);
    }
  }
  for (const SemVer& a : versions) {
    for (const SemVer& b : versions) {
      BULKHEAD_CHECK((a <=> b) == (0 <=> (b <=> a)));
      BULKHEAD_CHECK((a == b) == ((a <=> b) == 0));
      for (const SemVer& c : versions) BULKHEAD_CHECK(!(a <= b && b <= c) || a <= c);
    }
  }
  for (const auto& [name, range] : ranges) {
    const auto lowest = range.Minimum();
    if (lowest) BULKHEAD_CHECK(range.Contains(*lowest));
    for (const SemVer& version : versions) {
      if (range.Contains(version)) BULKHEAD_CHECK(lowest && *lowest <= version);
    }
    for (const auto& [other_name, other] : ranges) {
      const auto both = SemVerRange::Parse(name + "||" + other_name);
      if (!both) continue;  // too long together
      for (const SemVer& version : versions) {
        // "*" is the one set that swallows the others: it lets no pre-release in, whatever they say.
        if (version.prerelease.empty())
          BULKHEAD_CHECK(both->Contains(version) == (range.Contains(version) || other.Contains(version)));
        if (both->Contains(version)) BULKHEAD_CHECK(range.Contains(version) || other.Contains(version));
      }
    }
  }
  return 0;
}
