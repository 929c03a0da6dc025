// Semantic versions and ranges as npm's `semver` has them (https://semver.org 2.0.0; https://docs.npmjs.com/cli/using-npm/semver). Pure.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace bulkhead {

struct SemVer {
  uint64_t major = 0, minor = 0, patch = 0;
  std::vector<std::string> prerelease;
  std::string build;  // no part in comparing
  std::strong_ordering operator<=>(const SemVer& other) const;
  bool operator==(const SemVer& other) const { return (*this <=> other) == 0; }
};
std::optional<SemVer> ParseSemVer(std::string_view text);  // strict: no "v", no spaces

class SemVerRange {
 public:
  static std::optional<SemVerRange> Parse(std::string_view text);  // "", "*", "^1.2", "1.x || >=2.5 <3", "1.2 - 2.3.4", "~1.2.3-beta.2"
  bool Contains(const SemVer& version) const;

 private:
  class SetParser;
  struct Comparator {
    enum class Op { kEq, kLt, kLe, kGt, kGe } op;
    SemVer version;
    bool any = false;
  };
  std::vector<std::vector<Comparator>> sets_;  // any of these, all within
};

}  // namespace bulkhead
