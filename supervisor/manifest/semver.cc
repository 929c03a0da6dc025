#include "supervisor/manifest/semver.h"

#include <algorithm>

namespace bulkhead {
namespace {

constexpr size_t kMaxLength = 256;                        // of a version, as npm has it
constexpr uint64_t kMaxNumber = (uint64_t{1} << 53) - 1;  // npm keeps numbers in doubles and refuses what they can't hold
constexpr size_t kMaxRangeLength = 1024;

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsSpace(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v'; }
bool IsIdentifierChar(char c) { return IsDigit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-'; }
bool IsNumeric(std::string_view text) { return !text.empty() && std::all_of(text.begin(), text.end(), IsDigit); }

// Reads from the front of `text`; nothing is consumed when it returns false.
bool TakeNumber(std::string_view& text, uint64_t& number) {
  size_t length = 0;
  uint64_t value = 0;
  while (length < text.size() && IsDigit(text[length])) {
    value = value * 10 + static_cast<uint64_t>(text[length] - '0');
    if (value > kMaxNumber) return false;
    ++length;
  }
  if (length == 0 || (length > 1 && text[0] == '0')) return false;
  text.remove_prefix(length);
  number = value;
  return true;
}

bool TakeChar(std::string_view& text, char c) {
  if (text.empty() || text.front() != c) return false;
  text.remove_prefix(1);
  return true;
}

// Dot-separated identifiers. Numeric ones of a pre-release have no leading zero.
bool TakeIdentifiers(std::string_view& text, bool refuse_leading_zero, std::vector<std::string>& identifiers) {
  do {
    size_t length = 0;
    while (length < text.size() && IsIdentifierChar(text[length])) ++length;
    std::string_view identifier = text.substr(0, length);
    if (identifier.empty()) return false;
    if (refuse_leading_zero && length > 1 && identifier[0] == '0' && IsNumeric(identifier)) return false;
    identifiers.emplace_back(identifier);
    text.remove_prefix(length);
  } while (TakeChar(text, '.'));
  return true;
}

bool TakeSuffixes(std::string_view& text, std::vector<std::string>& prerelease, std::string& build) {
  if (TakeChar(text, '-') && !TakeIdentifiers(text, true, prerelease)) return false;
  if (TakeChar(text, '+')) {
    std::string_view before = text;
    std::vector<std::string> ignored;
    if (!TakeIdentifiers(text, false, ignored)) return false;
    build = std::string(before.substr(0, before.size() - text.size()));
  }
  return true;
}

std::strong_ordering CompareIdentifiers(const std::string& a, const std::string& b) {
  const bool numeric_a = IsNumeric(a), numeric_b = IsNumeric(b);
  if (numeric_a != numeric_b) return numeric_a ? std::strong_ordering::less : std::strong_ordering::greater;
  if (numeric_a && a.size() != b.size()) return a.size() <=> b.size();  // no leading zeros: the longer is the greater
  return a.compare(b) <=> 0;
}

// "1", "1.2", "1.x.x", "1.2.3-beta": a version of which trailing parts may be missing or wild.
struct Partial {
  std::optional<uint64_t> major, minor, patch;  // nullopt: x, X, * or absent
  bool out_of_order = false;                    // a number follows a wild part, "1.x.3"
  bool bare = true;                             // nothing but an optional "v" before it; full versions want that
  std::vector<std::string> prerelease;
  bool Full() const { return major && minor && patch; }
};

// One part of a partial: 1 a number, 0 wild, -1 neither.
int TakePart(std::string_view& text, std::optional<uint64_t>& part) {
  if (TakeChar(text, 'x') || TakeChar(text, 'X') || TakeChar(text, '*')) return 0;
  uint64_t number = 0;
  if (!TakeNumber(text, number)) return -1;
  part = number;
  return 1;
}

std::optional<Partial> ParsePartial(std::string_view text) {
  Partial partial;
  size_t junk = 0;
  while (junk < text.size() && (text[junk] == 'v' || text[junk] == '=' || IsSpace(text[junk]))) ++junk;
  partial.bare = junk == 0 || (junk == 1 && text[0] == 'v');
  text.remove_prefix(junk);
  std::optional<uint64_t>* parts[] = {&partial.major, &partial.minor, &partial.patch};
  bool wild = false;
  for (int i = 0; i < 3; ++i) {
    if (i > 0 && !TakeChar(text, '.')) break;
    const int kind = TakePart(text, *parts[i]);
    if (kind < 0) return std::nullopt;
    if (kind == 0) wild = true;
    if (kind == 1 && wild) partial.out_of_order = true;
    if (i < 2) continue;
    std::string build;
    if (!TakeSuffixes(text, partial.prerelease, build)) return std::nullopt;
  }
  if (!text.empty()) return std::nullopt;
  if (!partial.major) partial.minor.reset();
  if (!partial.minor) partial.patch.reset();
  return partial;
}

SemVer At(uint64_t major, uint64_t minor, uint64_t patch) { return {major, minor, patch, {}, {}}; }
// The lowest thing below major.minor.patch that is not one of its own pre-releases: "<2.0.0-0" keeps 2.0.0-alpha out.
SemVer Below(uint64_t major, uint64_t minor, uint64_t patch) { return {major, minor, patch, {"0"}, {}}; }
SemVer FullOf(const Partial& p) { return {*p.major, *p.minor, *p.patch, p.prerelease, {}}; }
SemVer FloorOf(const Partial& p) { return At(p.major.value_or(0), p.minor.value_or(0), p.patch.value_or(0)); }
// The first version after everything that the partial stands for.
SemVer CeilingOf(const Partial& p) { return p.minor ? Below(*p.major, *p.minor + 1, 0) : Below(*p.major + 1, 0, 0); }

std::string_view Trim(std::string_view text) {
  while (!text.empty() && IsSpace(text.front())) text.remove_prefix(1);
  while (!text.empty() && IsSpace(text.back())) text.remove_suffix(1);
  return text;
}

std::string_view TakeWord(std::string_view& text) {
  size_t length = 0;
  while (length < text.size() && !IsSpace(text[length])) ++length;
  std::string_view word = text.substr(0, length);
  text.remove_prefix(length);
  return word;
}

std::string_view TakeOperator(std::string_view& text) {
  for (std::string_view op : {"~>", "~", "^", ">=", "<=", ">", "<", "="}) {
    if (text.substr(0, op.size()) == op) {
      text.remove_prefix(op.size());
      return op;
    }
  }
  return {};
}

}  // namespace

std::strong_ordering SemVer::operator<=>(const SemVer& other) const {
  if (auto order = major <=> other.major; order != 0) return order;
  if (auto order = minor <=> other.minor; order != 0) return order;
  if (auto order = patch <=> other.patch; order != 0) return order;
  if (prerelease.empty() != other.prerelease.empty()) {
    return prerelease.empty() ? std::strong_ordering::greater : std::strong_ordering::less;
  }
  for (size_t i = 0; i < std::min(prerelease.size(), other.prerelease.size()); ++i) {
    if (auto order = CompareIdentifiers(prerelease[i], other.prerelease[i]); order != 0) return order;
  }
  return prerelease.size() <=> other.prerelease.size();
}

std::string SemVer::ToString() const {
  std::string text = std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(patch);
  char before = '-';
  for (const std::string& identifier : prerelease) {
    text += before + identifier;
    before = '.';
  }
  if (!build.empty()) text += "+" + build;
  return text;
}

std::optional<SemVer> ParseSemVer(std::string_view text) {
  if (text.size() > kMaxLength) return std::nullopt;
  SemVer version;
  if (!TakeNumber(text, version.major) || !TakeChar(text, '.') || !TakeNumber(text, version.minor) || !TakeChar(text, '.') ||
      !TakeNumber(text, version.patch) || !TakeSuffixes(text, version.prerelease, version.build) || !text.empty()) {
    return std::nullopt;
  }
  return version;
}

// Translates one set ("^1.2 <1.8", "1.2 - 2") into comparators that must all hold.
class SemVerRange::SetParser {
 public:
  std::optional<std::vector<Comparator>> Parse(std::string_view text) {
    text = Trim(text);
    if (text.empty()) return std::vector<Comparator>{{Op::kGe, {}, true}};
    if (!Hyphen(text) && !Words(text)) return std::nullopt;
    for (const Comparator& c : set_) {
      if (c.any) continue;
      if (std::max({c.version.major, c.version.minor, c.version.patch}) > kMaxNumber) return std::nullopt;
      if (c.version.ToString().size() > kMaxLength) return std::nullopt;
    }
    // "*" within a set says nothing beside the others.
    std::vector<Comparator> kept;
    for (Comparator& c : set_) {
      if (!c.any) kept.push_back(std::move(c));
    }
    if (kept.empty()) kept.push_back({Op::kGe, {}, true});
    return kept;
  }

 private:
  using Op = Comparator::Op;

  void Add(Op op, SemVer version) {
    const bool any = op == Op::kGe && version == At(0, 0, 0);  // ">=0.0.0" is "*", pre-release rule included
    set_.push_back({op, std::move(version), any});
  }
  void AddAny() { set_.push_back({Op::kGe, {}, true}); }

  // False when it is no hyphen range, or one with a part that is none (Words() then refuses it as well).
  bool Hyphen(std::string_view text) {
    std::string_view rest = text;
    std::string_view from_text = TakeWord(rest);
    rest = Trim(rest);
    if (TakeWord(rest) != "-" || rest.empty()) return false;
    rest = Trim(rest);
    auto from = ParsePartial(from_text), to = ParsePartial(rest);
    if (!from || !to) return false;
    if ((from->Full() && !from->bare) || (to->Full() && to->prerelease.empty() && !to->bare)) return false;
    if (!from->major) {
      AddAny();
    } else {
      Add(Op::kGe, from->Full() ? FullOf(*from) : FloorOf(*from));
    }
    if (!to->major) {
      AddAny();
    } else if (to->Full()) {
      Add(Op::kLe, FullOf(*to));
    } else {
      Add(Op::kLt, CeilingOf(*to));
    }
    return true;
  }

  bool Words(std::string_view text) {
    for (text = Trim(text); !text.empty(); text = Trim(text)) {
      std::string_view op = TakeOperator(text);
      // "> 1.2" is ">1.2" and "> =1.2" is ">=1.2": operators reach over spaces, and over stray "v" and "=", as in npm.
      text = Trim(text);
      if ((op == "<" || op == ">") && TakeChar(text, '=')) op = op == "<" ? "<=" : ">=";
      std::string junk;
      while (!text.empty() && (text.front() == 'v' || text.front() == '=')) {
        junk += text.front();
        text = Trim(text.substr(1));
      }
      const auto partial = ParsePartial(junk + std::string(TakeWord(text)));
      if (!partial || !Word(op, *partial)) return false;
    }
    return true;
  }

  bool Word(std::string_view op, const Partial& p) {
    if (op == "^" || op == "~" || op == "~>") return Caretlike(op == "^", p);
    if (p.out_of_order) return false;
    if (p.Full()) {
      if (!p.bare) return false;
      Add(op == "<" ? Op::kLt : op == "<=" ? Op::kLe : op == ">" ? Op::kGt : op == ">=" ? Op::kGe : Op::kEq, FullOf(p));
      return true;
    }
    if (!p.major) {
      if (op == "<" || op == ">") {
        Add(Op::kLt, Below(0, 0, 0));  // nothing
      } else {
        AddAny();
      }
      return true;
    }
    const SemVer floor = FloorOf(p);
    SemVer next = CeilingOf(p);
    if (op == ">") {
      next.prerelease.clear();
      Add(Op::kGe, next);
    } else if (op == ">=") {
      Add(Op::kGe, floor);
    } else if (op == "<") {
      Add(Op::kLt, Below(floor.major, floor.minor, floor.patch));
    } else if (op == "<=") {
      Add(Op::kLt, next);
    } else {
      Add(Op::kGe, floor);
      Add(Op::kLt, next);
    }
    return true;
  }

  bool Caretlike(bool caret, const Partial& p) {
    if (!p.major) {
      AddAny();
      return true;
    }
    Add(Op::kGe, p.Full() ? FullOf(p) : FloorOf(p));
    const uint64_t major = *p.major, minor = p.minor.value_or(0), patch = p.patch.value_or(0);
    if (!p.minor || (caret && major > 0)) {
      Add(Op::kLt, Below(major + 1, 0, 0));
    } else if (!caret || minor > 0 || !p.patch) {
      Add(Op::kLt, Below(major, minor + 1, 0));
    } else {
      Add(Op::kLt, Below(major, minor, patch + 1));
    }
    return true;
  }

  std::vector<Comparator> set_;
};

std::optional<SemVerRange> SemVerRange::Parse(std::string_view text) {
  if (text.size() > kMaxRangeLength) return std::nullopt;
  SemVerRange range;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find("||", begin), text.size());
    auto set = SetParser().Parse(text.substr(begin, end - begin));
    if (!set) return std::nullopt;
    range.sets_.push_back(*std::move(set));
    begin = end + 2;
  }
  // npm: a range with "*" in it is just "*", so that it lets no pre-release in, whatever the other sets say.
  for (const auto& set : range.sets_) {
    if (set.size() == 1 && set[0].any) {
      range.sets_ = {{set[0]}};
      break;
    }
  }
  return range;
}

bool SemVerRange::Holds(const Set& set, const SemVer& version) {
  auto holds = [&](const Comparator& c) {
    if (c.any) return true;
    const auto order = version <=> c.version;
    switch (c.op) {
      case Comparator::Op::kEq: return order == 0;
      case Comparator::Op::kLt: return order < 0;
      case Comparator::Op::kLe: return order <= 0;
      case Comparator::Op::kGt: return order > 0;
      case Comparator::Op::kGe: return order >= 0;
    }
    return false;
  };
  // A pre-release is only let in by a comparator that names a pre-release of the same major.minor.patch.
  auto invites = [&](const Comparator& c) {
    return !c.any && !c.version.prerelease.empty() && c.version.major == version.major && c.version.minor == version.minor &&
           c.version.patch == version.patch;
  };
  return std::all_of(set.begin(), set.end(), holds) &&
         (version.prerelease.empty() || std::any_of(set.begin(), set.end(), invites));
}

bool SemVerRange::Contains(const SemVer& version) const {
  return std::any_of(sets_.begin(), sets_.end(), [&](const Set& set) { return Holds(set, version); });
}

// Versions of which the lowest that holds is the lowest of the whole set: what lies at or right above each bound, the release of
// its numbers, and the first pre-release of those that are let in.
std::vector<SemVer> SemVerRange::Candidates(const Set& set) {
  std::vector<SemVer> candidates{At(0, 0, 0)};
  for (const Comparator& c : set) {
    if (c.any) continue;
    const SemVer& v = c.version;
    candidates.push_back(v);
    candidates.push_back(At(v.major, v.minor, v.patch));
    if (v.patch < kMaxNumber) {
      candidates.push_back(At(v.major, v.minor, v.patch + 1));
    } else if (v.minor < kMaxNumber) {
      candidates.push_back(At(v.major, v.minor + 1, 0));
    } else if (v.major < kMaxNumber) {
      candidates.push_back(At(v.major + 1, 0, 0));
    }
    if (v.prerelease.empty()) continue;
    candidates.push_back(Below(v.major, v.minor, v.patch));
    SemVer next = v;
    next.prerelease.push_back("0");
    candidates.push_back(std::move(next));
  }
  return candidates;
}

std::optional<SemVer> SemVerRange::Minimum() const {
  std::optional<SemVer> lowest;
  for (const Set& set : sets_) {
    for (SemVer& candidate : Candidates(set)) {
      if (Holds(set, candidate) && (!lowest || candidate < *lowest)) lowest = std::move(candidate);
    }
  }
  return lowest;
}

}  // namespace bulkhead
