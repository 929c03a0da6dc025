// Manifests as text, JSON or YAML: where in it what is wrong stands, and text that is hostile.
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "supervisor/manifest/manifest.h"
#include "tests/unit/manifest/brief.h"

namespace bulkhead {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(Manifest, FindingsInJsonTextHaveTheirLines) {
  const ManifestResult result = ParseManifest(
      "{\n  \"name\": \"Bad Name\",\n  \"version\":\n    \"1.0.0\",\n  \"capabilities\": {\"api\": {\"routes\": [\n"
      "    {\"method\": \"GET\", \"path\": \"/a\"},\n    {\"method\": \"GET\",\n     \"path\": \"b\"}\n  ]}},\n"
      "  \"args\": [\n    1,\n    2\n  ],\n  \"xyz\": 1\n}",
      false);
  std::map<std::string, int> lines;
  for (const auto* list : {&result.errors, &result.warnings}) {
    for (const Finding& f : *list) lines[f.path] = f.line;
  }
  EXPECT_THAT(lines, testing::UnorderedElementsAre(std::pair("/name", 2), std::pair("/capabilities/api/routes/1/path", 8),
                                                   std::pair("/args/0", 11), std::pair("/args/1", 12), std::pair("/xyz", 14)));
}

TEST(Manifest, YamlIsReadWithItsLines) {
  const ManifestResult good = ParseManifest(
      "# comment\nname: orders\nversion: 1.0.0\ncapabilities:\n  api:\n    routes:\n      - {method: GET, path: /a/:id}\n"
      "      - method: POST\n        path: '/a'\n  jobs:\n    handlers:\n      - name: nightly\n        schedule: 0 3 * * *\n",
      true);
  EXPECT_THAT(Brief(good.errors), IsEmpty());
  ASSERT_TRUE(good.manifest);
  EXPECT_EQ(good.manifest->version, "1.0.0");
  EXPECT_EQ(good.manifest->routes.size(), 2u);
  EXPECT_EQ(good.manifest->jobs[0].schedule, "0 3 * * *");
  const ManifestResult bad = ParseManifest("name: orders\nversion: 1.0\nworkers: many\n\nargs:\n  - 5\n", true);
  ASSERT_EQ(bad.errors.size(), 3u);
  EXPECT_EQ(bad.errors[0].path, "/version");
  EXPECT_EQ(bad.errors[0].line, 2);
  EXPECT_EQ(bad.errors[1].line, 6);
  EXPECT_EQ(bad.errors[2].line, 3);
}

TEST(Manifest, YamlScalarsFollowTheCoreSchema) {
  const ManifestResult result = ParseManifest(
      "name: no\nversion: '1.0.0'\ndescription: \"12\"\nauthor: on\nlicense: !!str 5\nworkers: 3\ncritical: true\nfeatureFlag: "
      "~\n",
      true);
  EXPECT_THAT(Brief(result.errors), IsEmpty());
  ASSERT_TRUE(result.manifest);
  EXPECT_EQ(result.manifest->name, "no");
  EXPECT_EQ(result.manifest->description, "12");
  EXPECT_EQ(result.manifest->author, "on");
  EXPECT_EQ(result.manifest->license, "5");
  EXPECT_EQ(result.manifest->critical, true);
}

TEST(Manifest, BrokenTextIsOneErrorWithItsLine) {
  const std::tuple<const char*, bool, int, const char*> cases[] = {
      {"{\n\"name\": \"a\",\n}", false, 3, "SYNTAX"},
      {"", false, 1, "SYNTAX"},
      {"{\"a\":1} x", false, 1, "SYNTAX"},
      {"{\n\"a\":1,\n\"a\":2}", false, 3, "DUPLICATE_KEY"},
      {"a: [1,\nb: 2", true, -1, "SYNTAX"},
      {"a: 1\na: 2\n", true, 2, "DUPLICATE_KEY"},
      {"a: 1\n---\nb: 2\n", true, 3, "SYNTAX"},
      {"? [a, b]\n: 1\n", true, 1, "SYNTAX"},
      {"\"\xff\"", false, 1, "SYNTAX"},
  };
  for (const auto& [text, yaml, line, code] : cases) {
    const ManifestResult result = ParseManifest(text, yaml);
    ASSERT_EQ(result.errors.size(), 1u) << text;
    EXPECT_EQ(result.errors[0].code, code) << text;
    if (line >= 0) {
      EXPECT_EQ(result.errors[0].line, line) << text;
    }
    EXPECT_FALSE(result.manifest);
  }
}

TEST(Manifest, HostileTextIsRefusedCheaply) {
  std::string deep_json, deep_yaml, bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 0; i < 100'000; ++i) deep_json += '[';
  for (int i = 0; i < 10'000; ++i) deep_yaml += '[';
  for (int i = 1; i < 12; ++i) {
    const std::string before = "*a" + std::to_string(i - 1);
    bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + before;
    for (int j = 0; j < 9; ++j) bomb += ", " + before;
    bomb += "]\n";
  }
  EXPECT_THAT(Brief(ParseManifest(deep_json, false).errors), ElementsAre(" TOO_DEEP"));
  EXPECT_EQ(ParseManifest(deep_yaml, true).errors.size(), 1u);
  const ManifestResult bombed = ParseManifest(bomb, true);
  ASSERT_EQ(bombed.errors.size(), 1u);
  EXPECT_EQ(bombed.errors[0].code, "TOO_LARGE");
  EXPECT_EQ(ParseManifest("a: &a [*a]\n", true).errors.size(), 1u);
  EXPECT_EQ(ParseManifest(std::string(2 << 20, ' '), false).errors[0].code, "TOO_LARGE");
}
}  // namespace
}  // namespace bulkhead
