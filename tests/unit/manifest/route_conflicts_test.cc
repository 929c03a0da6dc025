// Which route claims the requests of another: the same answer as comparing each pair, in time that grows with the number of
// routes.
#include "supervisor/manifest/route_conflicts.h"

#include <chrono>

#include "absl/strings/str_split.h"
#include "gtest/gtest.h"
#include "supervisor/base/random.h"

namespace bulkhead {
namespace {

using Kind = RouteConflicts::Kind;

struct Path {
  std::vector<std::string> fixed;
  bool wild = false;
  explicit Path(const std::string& text) {
    for (absl::string_view segment : absl::StrSplit(text.substr(1), '/', absl::SkipEmpty())) {
      if (segment == "*") {
        wild = true;
      } else {
        fixed.emplace_back(segment);
      }
    }
  }
  bool IsParam(size_t i) const { return fixed[i][0] == ':'; }
  auto Literals() const {
    return std::count_if(fixed.begin(), fixed.end(), [](const std::string& s) { return s[0] != ':'; });
  }
};

// By the definition, for one pair.
Kind Compare(const Path& a, const Path& b) {
  if (a.fixed.size() != b.fixed.size() || a.wild != b.wild)
    return Kind::kNone;  // one is longer, or has the wildcard: more specific
  bool same = true;
  for (size_t i = 0; i < a.fixed.size(); ++i) {
    if (!a.IsParam(i) && !b.IsParam(i) && a.fixed[i] != b.fixed[i]) return Kind::kNone;  // no request fits both
    same = same && a.IsParam(i) == b.IsParam(i);
  }
  return same ? Kind::kSame : a.Literals() == b.Literals() ? Kind::kAmbiguous : Kind::kNone;
}

TEST(RouteConflicts, AgreesWithComparingEachPair) {
  Random random(4);
  int conflicts[3] = {};
  for (int round = 0; round < 2'000; ++round) {
    RouteConflicts conflicting;
    std::vector<std::pair<std::string, std::string>> routes;
    const uint64_t alphabet = 1 + random.Below(4), longest = 1 + random.Below(5);
    for (int n = 0; n < 30; ++n) {
      std::string path;
      for (uint64_t i = random.Below(longest + 1); i > 0; --i) {
        const uint64_t kind = random.Below(3);
        path += kind == 0 ? "/:p" : "/";
        path += static_cast<char>('a' + random.Below(alphabet));
      }
      if (random.Below(6) == 0) path += "/*";
      if (path.empty()) path = "/";
      const std::string method = random.Below(4) == 0 ? "POST" : "GET";
      Kind expected = Kind::kNone;
      size_t earlier = 0;
      for (; earlier < routes.size() && expected == Kind::kNone; ++earlier) {
        if (routes[earlier].first == method) expected = Compare(Path(routes[earlier].second), Path(path));
      }
      const RouteConflicts::Conflict found = conflicting.Add(method, path);
      ASSERT_EQ(found.kind, expected) << method << " " << path << " in round " << round;
      if (expected != Kind::kNone) {
        ASSERT_EQ(found.earlier, earlier - 1) << method << " " << path;
      }
      ++conflicts[static_cast<int>(expected)];
      routes.emplace_back(method, path);
    }
  }
  for (int count : conflicts) EXPECT_GT(count, 1'000);
}

TEST(RouteConflicts, OneThatConflictsIsStillCompared) {
  RouteConflicts conflicts;
  EXPECT_EQ(conflicts.Add("GET", "/a/:x").kind, Kind::kNone);
  EXPECT_EQ(conflicts.Add("GET", "/:x/b").kind, Kind::kAmbiguous);
  const auto found = conflicts.Add("GET", "/c/:x");
  EXPECT_EQ(found.kind, Kind::kAmbiguous);
  EXPECT_EQ(found.earlier, 1u);
}

// A hundred thousand routes, which would be five thousand million pairs.
TEST(RouteConflicts, ManyRoutesTakeTimeInProportion) {
  auto seconds = [](int count) {
    RouteConflicts conflicts;
    const auto began = std::chrono::steady_clock::now();
    for (int i = 0; i < count; ++i) {
      const std::string n = std::to_string(i);
      const char* shapes[] = {"/a/", "/:x/", "/b/:y/"};
      conflicts.Add("GET", shapes[i % 3] + n + (i % 2 ? "/:z" : "/q/:z/r"));
    }
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  };
  EXPECT_LT(seconds(100'000), 10.0);
}

}  // namespace
}  // namespace bulkhead
