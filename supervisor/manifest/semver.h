// Semantic versions and ranges as npm's `semver` has them (https://semver.org 2.0.0;
// https://docs.npmjs.com/cli/using-npm/semver). Pure.
#pragma once

#include <compare>
#include <cstddef>
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
  std::string ToString() const;  // "1.2.3-rc.1+build.7"; ParseSemVer reads it back
};
// Strict: no "v", no spaces. nullopt also beyond 256 characters or with a number above 2^53 - 1, as in npm.
std::optional<SemVer> ParseSemVer(std::string_view text);

class SemVerRange {
 public:
  // "", "*", "^1.2", "1.x || >=2.5 <3", "1.2 - 2.3.4", "~1.2.3-beta.2". nullopt for what npm refuses, and beyond 1,024
  // characters.
  static std::optional<SemVerRange> Parse(std::string_view text);
  bool Contains(const SemVer& version) const;
  // The lowest version within the range; nullopt when none is, as with ">2 <1". It is npm's minVersion where that finds one: it
  // misses what only the pre-releases below an upper bound satisfy (">1.2.2 <1.2.3-beta").
  std::optional<SemVer> Minimum() const;

 private:
  class SetParser;
  struct Comparator {
    enum class Op { kEq, kLt, kLe, kGt, kGe } op;
    SemVer version;
    bool any = false;
  };
  using Set = std::vector<Comparator>;
  static bool Holds(const Set& set, const SemVer& version);
  static std::vector<SemVer> Candidates(const Set& set);
  std::vector<Set> sets_;  // any of these, all within
};

}  // namespace bulkhead
