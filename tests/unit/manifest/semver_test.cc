// Versions and ranges against what npm's `semver` says of them (semver_vectors.txt, made by make_semver_vectors.js).
#include "supervisor/manifest/semver.h"

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "gtest/gtest.h"

namespace bulkhead {
namespace {

std::vector<std::string> Words(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

TEST(SemVer, ReadsTheThreeNumbersAndTheSuffixes) {
  const auto version = ParseSemVer("1.20.3-rc.1.x-y+build.7");
  ASSERT_TRUE(version);
  EXPECT_EQ(version->major, 1u);
  EXPECT_EQ(version->minor, 20u);
  EXPECT_EQ(version->patch, 3u);
  EXPECT_EQ(version->prerelease, (std::vector<std::string>{"rc", "1", "x-y"}));
  EXPECT_EQ(version->build, "build.7");
}

TEST(SemVer, RefusesWhatIsNoSemanticVersion) {
  for (const char* text : {"", "1", "1.2", "v1.2.3", " 1.2.3", "1.2.3 ", "01.2.3", "1.02.3", "1.2.3-", "1.2.3-01", "1.2.3-a..b",
                           "1.2.3+", "1.2.3.4", "-1.2.3", "1.2.3-ä", "99999999999999999999.0.0", "9007199254740992.0.0"}) {
    EXPECT_FALSE(ParseSemVer(text)) << text;
  }
  EXPECT_FALSE(ParseSemVer("1.2.3-" + std::string(300, 'a')));
  EXPECT_TRUE(ParseSemVer("9007199254740991.0.0"));
  EXPECT_TRUE(ParseSemVer("1.2.3-0a.0-1"));
}

TEST(SemVer, OrdersAsTheSpecificationSays) {
  const char* ascending[] = {"1.0.0-0",    "1.0.0-9",      "1.0.0-10",      "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta",
                             "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1",  "1.0.0",         "1.0.1",
                             "1.1.0",      "2.0.0-a",      "2.0.0",         "10.0.0"};
  for (size_t i = 0; i < std::size(ascending); ++i) {
    for (size_t j = 0; j < std::size(ascending); ++j) {
      EXPECT_EQ(*ParseSemVer(ascending[i]) <=> *ParseSemVer(ascending[j]), i <=> j) << ascending[i] << " and " << ascending[j];
    }
  }
}

TEST(SemVer, BuildMetadataHasNoPartInComparing) { EXPECT_EQ(*ParseSemVer("1.2.3+a"), *ParseSemVer("1.2.3+b")); }

TEST(SemVerRange, AgreesWithNpmOnEveryVector) {
  const char* other = std::getenv("SEMVER_VECTORS");
  std::ifstream file(other ? other : BULKHEAD_TEST_FOLDER "/semver_vectors.txt");
  std::string line;
  ASSERT_TRUE(std::getline(file, line));
  const std::vector<std::string> versions = Words(line);
  int checked = 0;
  while (std::getline(file, line)) {
    const size_t tab = line.find('\t');
    ASSERT_NE(tab, std::string::npos);
    const std::string text = line.substr(0, tab), expected = line.substr(tab + 1);
    const auto range = SemVerRange::Parse(text);
    if (!range) {
      EXPECT_EQ(expected, "invalid") << "\"" << text << "\" was refused";
      continue;
    }
    std::string satisfied;
    for (const std::string& version : versions) {
      if (range->Contains(*ParseSemVer(version))) satisfied += (satisfied.empty() ? "" : " ") + version;
    }
    EXPECT_EQ(satisfied, expected) << "\"" << text << "\"";
    ++checked;
  }
  EXPECT_GT(checked, 300);
}

TEST(SemVerRange, RefusesNumbersThatNpmCanNotHold) {
  EXPECT_FALSE(SemVerRange::Parse("^9007199254740991"));
  EXPECT_FALSE(SemVerRange::Parse(">=9007199254740992.0.0"));
  EXPECT_FALSE(SemVerRange::Parse(std::string(5000, '1')));
}

}  // namespace
}  // namespace bulkhead
