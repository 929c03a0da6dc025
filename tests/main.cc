// main() of the unit tests: one program for each room, of which `--file=NAME_test.cc` runs the tests that stand in that file. All options of
// GoogleTest hold, but for --gtest_filter beside --file.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <string>
#include <string_view>

namespace {

// "Suite.Test:Suite.Other:…" of the tests of one file; empty when it has none.
std::string FilterOf(std::string_view file) {
  std::string filter;
  const auto& all = *testing::UnitTest::GetInstance();
  for (int s = 0; s < all.total_test_suite_count(); ++s) {
    const testing::TestSuite& suite = *all.GetTestSuite(s);
    for (int t = 0; t < suite.total_test_count(); ++t) {
      const testing::TestInfo& test = *suite.GetTestInfo(t);
      const std::string_view path = test.file();
      if (path.substr(path.rfind('/') + 1) == file) filter += std::string(suite.name()) + "." + test.name() + ":";
    }
  }
  return filter;
}

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);
  constexpr std::string_view kFile = "--file=";
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (!argument.starts_with(kFile)) continue;
    const std::string filter = FilterOf(argument.substr(kFile.size()));
    if (filter.empty()) {
      std::fprintf(stderr, "%s has no test of %s\n", argv[0], std::string(argument.substr(kFile.size())).c_str());
      return 1;
    }
    GTEST_FLAG_SET(filter, filter);
  }
  return RUN_ALL_TESTS();
}
