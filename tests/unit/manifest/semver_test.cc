// Versions and ranges against what npm's `semver` says of them (semver_vectors.txt, made by make_semver_vectors.js).
#include "supervisor/manifest/semver.h"

#include <cstdlib>
#include <fstream>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace bulkhead {
namespace {

using nlohmann::json;

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

// What npm said, by kind of record.
const std::map<std::string, std::vector<json>>& Vectors() {
  static const auto* vectors = [] {
    auto* read = new std::map<std::string, std::vector<json>>;
    const char* other = std::getenv("SEMVER_VECTORS");
    std::ifstream file(other ? other : BULKHEAD_TEST_FOLDER "/semver_vectors.txt");
    for (std::string line; std::getline(file, line);) {
      json record = json::parse(line);
      (*read)[record[0].get<std::string>()].push_back(std::move(record));
    }
    return read;
  }();
  return *vectors;
}
const std::vector<json>& Vectors(const std::string& kind) { return Vectors().at(kind); }

SemVerRange Range(const std::string& text) {
  auto range = SemVerRange::Parse(text);
  EXPECT_TRUE(range) << "\"" << text << "\"";
  return range.value_or(*SemVerRange::Parse("*"));
}

std::vector<SemVer> Versions() {
  std::vector<SemVer> versions;
  for (const json& text : Vectors("versions").at(0).at(1)) versions.push_back(*ParseSemVer(text.get<std::string>()));
  return versions;
}

TEST(SemVer, ReadsAndPrintsEveryVersionOfTheVectorsAsNpmDoes) {
  int good = 0, bad = 0;
  for (const json& record : Vectors("version")) {
    const auto text = record[1].get<std::string>();
    const auto version = ParseSemVer(text);
    ASSERT_EQ(version.has_value(), !record[2].is_null()) << text;
    (version ? good : bad) += 1;
    if (!version) continue;
    EXPECT_EQ(version->ToString(), text);
    EXPECT_EQ(json(version->prerelease), record[3]) << text;
    SemVer without_build = *version;
    without_build.build.clear();
    EXPECT_EQ(without_build.ToString(), record[2]) << text;
  }
  EXPECT_GT(good, 200);
  EXPECT_GT(bad, 100);
}

TEST(SemVer, ComparesEveryPairOfTheVectorsAsNpmDoes) {
  ASSERT_GE(Vectors("order").size(), 800u);
  for (const json& record : Vectors("order")) {
    const auto a = *ParseSemVer(record[1].get<std::string>()), b = *ParseSemVer(record[2].get<std::string>());
    EXPECT_EQ(a <=> b, record[3].get<int>() <=> 0) << record;
    EXPECT_EQ(b <=> a, 0 <=> record[3].get<int>()) << record;
  }
}

TEST(SemVer, TheOrderIsTotal) {
  std::vector<SemVer> versions;
  for (const json& record : Vectors("version")) {
    if (auto version = ParseSemVer(record[1].get<std::string>())) versions.push_back(*version);
  }
  std::stable_sort(versions.begin(), versions.end(), [](const SemVer& a, const SemVer& b) { return a < b; });
  for (size_t i = 0; i < versions.size(); ++i) {
    for (size_t j = i; j < versions.size(); ++j) {
      ASSERT_LE(versions[i], versions[j]) << versions[i].ToString() << " " << versions[j].ToString();
      ASSERT_EQ(versions[i] == versions[j], !(versions[i] < versions[j]));
    }
  }
}

TEST(SemVerRange, AgreesWithNpmOnEveryVector) {
  const std::vector<SemVer> versions = Versions();
  int checked = 0, refused = 0, empty = 0;
  for (const json& record : Vectors("range")) {
    const auto text = record[1].get<std::string>();
    const auto range = SemVerRange::Parse(text);
    ASSERT_EQ(range.has_value(), !record[2].is_null()) << "\"" << text << "\"";
    ++(range ? checked : refused);
    if (!range) continue;
    json satisfied = json::array();
    for (size_t i = 0; i < versions.size(); ++i) {
      if (range->Contains(versions[i])) satisfied.push_back(i);
    }
    EXPECT_EQ(satisfied, record[2]) << "\"" << text << "\"";
    const auto lowest = range->Minimum();
    empty += !lowest;
    EXPECT_EQ(lowest ? json(lowest->ToString()) : json(nullptr), record[3]) << "\"" << text << "\"";
    if (!record[4].is_null()) {
      EXPECT_TRUE(range->Contains(*ParseSemVer(record[4].get<std::string>()))) << "\"" << text << "\"";
    }
  }
  EXPECT_GT(checked + refused, 2'000);
  EXPECT_GT(checked, 1'000);
  EXPECT_GT(refused, 300);
  EXPECT_GT(empty, 100);
}

TEST(SemVerRange, AHyphenIsTwoBounds) {
  for (const SemVer& from : Versions()) {
    for (const SemVer& to : Versions()) {
      const auto hyphen = Range(from.ToString() + " - " + to.ToString());
      const auto bounds = Range(">=" + from.ToString() + " <=" + to.ToString());
      for (const SemVer& version : Versions()) {
        ASSERT_EQ(hyphen.Contains(version), bounds.Contains(version))
            << from.ToString() << " " << to.ToString() << " " << version.ToString();
      }
    }
  }
}

TEST(SemVerRange, BarsAreAUnion) {
  std::vector<std::string> texts;
  for (const json& record : Vectors("range")) {
    // "*" swallows its neighbours, pre-releases included, and a union is one range with a limit of its own.
    const auto text = record[1].get<std::string>();
    if (!record[2].is_null() && text.size() < 200 && !Range(text).Contains(*ParseSemVer("9007199254740991.9.9")))
      texts.push_back(text);
  }
  ASSERT_GT(texts.size(), 500u);
  for (size_t i = 0; i < texts.size(); ++i) {
    const std::string& other = texts[(i * 7 + 3) % texts.size()];
    const auto a = Range(texts[i]), b = Range(other), both = Range(texts[i] + "||" + other);
    for (const SemVer& version : Versions()) {
      ASSERT_EQ(both.Contains(version), a.Contains(version) || b.Contains(version)) << texts[i] << " || " << other;
    }
    EXPECT_EQ(both.Minimum().has_value(), a.Minimum() || b.Minimum());
  }
}

TEST(SemVerRange, RefusesNumbersThatNpmCanNotHold) {
  EXPECT_FALSE(SemVerRange::Parse("^9007199254740991"));
  EXPECT_FALSE(SemVerRange::Parse(">=9007199254740992.0.0"));
  EXPECT_FALSE(SemVerRange::Parse(std::string(5000, '1')));
}

}  // namespace
}  // namespace bulkhead
