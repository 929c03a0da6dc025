// Texts that nobody means well with: each is a finding with its line and a code, and costs little.
#include <chrono>
#include <cmath>
#include <functional>
#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "supervisor/manifest/manifest.h"
#include "supervisor/manifest/semver.h"

namespace bulkhead {
namespace {

using nlohmann::json;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::vector<std::string> Told(const std::vector<Finding>& findings) {
  std::vector<std::string> brief;
  for (const Finding& f : findings) {
    EXPECT_FALSE(f.code.empty());
    EXPECT_THAT(f.message, testing::AnyOf(testing::EndsWith("."), testing::EndsWith("?")));
    brief.push_back(f.path + ":" + std::to_string(f.line) + " " + f.code);
  }
  return brief;
}
std::vector<std::string> Json(const std::string& text) { return Told(ParseManifest(text, false).errors); }
std::vector<std::string> Yaml(const std::string& text) { return Told(ParseManifest(text, true).errors); }
const char kHead[] = "name: a\nversion: 1.0.0\n";
std::string YamlWith(const std::string& rest) { return kHead + rest; }
std::string JsonWith(const std::string& member) { return "{\"name\": \"a\", \"version\": \"1.0.0\",\n" + member + "\n}"; }

double Seconds(const std::function<void()>& work) {
  const auto began = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
}

TEST(BadInput, BytesThatAreNoText) {
  const std::string nul("name: a\nversion: 1.0.0\nauthor: x\0y\n", 35);
  EXPECT_THAT(Yaml(nul), ElementsAre(":3 SYNTAX"));
  EXPECT_THAT(Json(std::string("{\n\"name\": \"a\0\"}", 16)), ElementsAre(":2 SYNTAX"));
  for (const char* bytes : {"\xff", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82"}) {
    EXPECT_THAT(Yaml(YamlWith("author: " + std::string(bytes) + "\n")), ElementsAre(":3 SYNTAX"));
    EXPECT_THAT(Json(JsonWith("\"author\": \"" + std::string(bytes) + "\"")), ElementsAre(":2 SYNTAX"));
  }
  EXPECT_THAT(Json("\xfe\xff\0{\0}"), ElementsAre(":1 SYNTAX"));  // UTF-16
}

// Each of these once made the YAML library see documents without end.
TEST(BadInput, StrayBracketsOfYaml) {
  for (const char* stray : {"]", "}", "a: 1\n]", "a: 1\n}\n", "[a]]", "{a: 1}}", "- a\n]\n- b", "---\n]\n", ",", "[a] ]", "a ]", "\"a\" }", "*", "&"}) {
    EXPECT_THAT(Yaml(stray), testing::SizeIs(testing::Ge(1u))) << stray;
  }
}

TEST(BadInput, NulByEscape) {
  EXPECT_THAT(Json(JsonWith(R"("author": "a\u0000b")")), ElementsAre("/author:2 INVALID_TEXT"));
  EXPECT_THAT(Json(JsonWith(R"("whatever": [1, {"a\u0000": "\u0000"}])")),
              ElementsAre("/whatever/1:2 INVALID_TEXT", testing::StartsWith("/whatever/1/a")));
  EXPECT_THAT(Yaml(YamlWith("author: \"a\\0b\"\n")), ElementsAre("/author:3 SYNTAX"));
  EXPECT_THAT(Json(JsonWith(R"("capabilities": {"api": {"routes": [{"method": "GET", "path": "/a", "handler": "x\u0000"}]}})")),
              ElementsAre("/capabilities/api/routes/0/handler:2 INVALID_TEXT"));
  const Manifest m = *ParseManifest(JsonWith(R"("config": {"schema": {"a": {"type": "json"}}})"), false).manifest;
  EXPECT_EQ(EffectiveConfig(m, R"({"a": {"b": "\u0000"}})").errors.at(0).code, "INVALID_TEXT");
}

TEST(BadInput, AByteOrderMarkAndOtherLineEndings) {
  const std::string bom = "\xef\xbb\xbf";
  EXPECT_THAT(Json(bom + JsonWith("\"workers\": 0")), ElementsAre("/workers:2 OUT_OF_RANGE"));
  EXPECT_THAT(Yaml(bom + YamlWith("workers: 0\n")), ElementsAre("/workers:3 OUT_OF_RANGE"));
  EXPECT_THAT(Yaml("name: a\r\nversion: 1.0.0\r\nworkers: 0\r\n"), ElementsAre("/workers:3 OUT_OF_RANGE"));
  EXPECT_THAT(Json("{\r\n\"name\": \"a\",\r\n\"version\": \"1.0.0\",\r\n\"workers\": 0\r\n}"),
              ElementsAre("/workers:4 OUT_OF_RANGE"));
  EXPECT_THAT(Json(bom + bom + "{}"), ElementsAre(":1 SYNTAX"));
}

TEST(BadInput, TabsInYaml) {
  EXPECT_THAT(Yaml("name: a\nversion: 1.0.0\ncapabilities:\n\tapi: {}\n"), testing::SizeIs(1));
  EXPECT_THAT(Yaml(YamlWith("author:\ta\n")), IsEmpty());
}

TEST(BadInput, NumbersOutOfRange) {
  EXPECT_THAT(Json(JsonWith("\"workers\": 1e400")), ElementsAre(":2 SYNTAX"));
  EXPECT_THAT(Yaml(YamlWith("workers: 1e400\n")), ElementsAre("/workers:3 WRONG_TYPE"));
  for (const char* number :
       {"9223372036854775808", "18446744073709551616", "-9223372036854775809", "1e308", "-0.5", "1e-400", "-1"}) {
    EXPECT_THAT(Json(JsonWith("\"workers\": " + std::string(number))), ElementsAre("/workers:2 OUT_OF_RANGE")) << number;
    EXPECT_THAT(Yaml(YamlWith("workers: " + std::string(number) + "\n")), ElementsAre("/workers:3 OUT_OF_RANGE")) << number;
  }
  for (const char* zero : {"-0", "0", "0.0", "-0.0", "0e5"}) {
    const ManifestResult result = ParseManifest(
        JsonWith("\"capabilities\": {\"jobs\": {\"handlers\": [{\"name\": \"a\", \"retries\": " + std::string(zero) + "}]}}"),
        false);
    EXPECT_THAT(Told(result.errors), IsEmpty()) << zero;
    EXPECT_EQ(result.manifest->jobs[0].retries, 0);
  }
  for (const char* bad : {"01", "+1", ".5", "1.", "0x10", "NaN", "Infinity", "1e", "--1"}) {
    EXPECT_THAT(Json(JsonWith("\"workers\": " + std::string(bad))), ElementsAre(":2 SYNTAX")) << bad;
  }
  for (const char* text : {".nan", ".inf", "0x10", "0o17", "1_000", "12:30:45"}) {
    EXPECT_THAT(Yaml(YamlWith("workers: " + std::string(text) + "\n")), ElementsAre("/workers:3 WRONG_TYPE")) << text;
  }
  json values = {{"name", "a"}, {"version", "1.0.0"}};
  for (double odd : {std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity(), std::nan("")}) {
    values["workers"] = odd;
    EXPECT_THAT(Told(ParseManifestJson(values).errors), testing::SizeIs(1)) << odd;
    values["limits"] = {{"memory", odd}, {"cpu", odd}};
    EXPECT_THAT(Told(ParseManifestJson(values).errors), testing::SizeIs(3)) << odd;
    values.erase("limits");
  }
}

TEST(BadInput, KeysThatComeTwiceOrAreNoNames) {
  EXPECT_THAT(Json("{\"a\": {\n\"b\": [1,\n{\"c\": 1, \"c\": 2}]}}"), ElementsAre("/a/b/1/c:3 DUPLICATE_KEY"));
  EXPECT_THAT(Yaml("a:\n  - b: 1\n    b: 2\n"), ElementsAre("/a/0/b:3 DUPLICATE_KEY"));
  EXPECT_THAT(Yaml(YamlWith("? [1]\n: 2\n")), ElementsAre(":3 SYNTAX"));
  EXPECT_THAT(Yaml(YamlWith("? {a: 1}\n: 2\n")), ElementsAre(":3 SYNTAX"));
  EXPECT_THAT(Yaml(YamlWith("~: 2\n")), ElementsAre(":3 SYNTAX"));
  EXPECT_THAT(Yaml(YamlWith("5: 2\n")), IsEmpty());  // the unknown field "5"
  const std::string long_key(1025, 'k');
  EXPECT_THAT(Json(JsonWith("\"" + long_key + "\": 1")), ElementsAre(":2 TOO_LARGE"));
  EXPECT_THAT(Yaml(YamlWith("? " + long_key + "\n: 1\n")), ElementsAre(":3 TOO_LARGE"));
}

TEST(BadInput, TagsAndMergeKeysOfYaml) {
  EXPECT_THAT(Yaml(YamlWith("author: !mine x\n")), ElementsAre("/author:3 SYNTAX"));
  EXPECT_THAT(Yaml(YamlWith("author: !!binary aGk=\n")), ElementsAre("/author:3 SYNTAX"));
  EXPECT_THAT(Yaml(YamlWith("args: !!set [a]\n")), ElementsAre("/args:3 SYNTAX"));
  EXPECT_THAT(Yaml(YamlWith("author: !!str 5\nargs: !!seq [a]\nlimits: !!map {}\nworkers: !!int 2\n")), IsEmpty());
  EXPECT_THAT(Yaml(YamlWith("base: &base {a: 1}\nlimits:\n  <<: *base\n")), ElementsAre("/limits:5 SYNTAX"));
  EXPECT_THAT(Yaml(YamlWith("one: &x {pids: 5}\nlimits: *x\n")), IsEmpty());
  EXPECT_THAT(Yaml(YamlWith("limits: *nowhere\n")), testing::SizeIs(1));
  EXPECT_THAT(Yaml("%YAML 9.9\n---\nname: a\n"), testing::SizeIs(testing::Ge(1u)));
}

#ifdef BULKHEAD_SANITIZED
constexpr double kCheapSeconds = 60;
#else
constexpr double kCheapSeconds = 5;
#endif

TEST(BadInput, DepthAndSizeHaveEndsThatCostLittle) {
  auto cheap = [](const std::string& text, bool yaml, const char* code) {
    std::vector<Finding> errors;
    EXPECT_LT(Seconds([&] { errors = ParseManifest(text, yaml).errors; }), kCheapSeconds) << text.substr(0, 60);
    EXPECT_GE(errors.size(), 1u) << text.substr(0, 60);
    if (code != nullptr && !errors.empty()) {
      EXPECT_EQ(errors[0].code, code) << text.substr(0, 60);
    }
  };
  const std::string deep(500'000, '[');
  cheap(deep, false, "TOO_DEEP");
  cheap(deep, true, nullptr);
  std::string objects, dashes;
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  for (int i = 0; i < 100'000; ++i) dashes += "- ";
  cheap(objects, false, "TOO_DEEP");
  cheap(dashes + "a", true, nullptr);
  // A long key around many values: their pointers together would be gigabytes.
  std::string nested;
  for (int i = 0; i < 60; ++i) nested += "{\"" + std::string(1000, 'k') + "\":";
  nested += "[";
  for (int i = 0; i < 99'000; ++i) nested += "0,";
  nested += "0]" + std::string(60, '}');
  cheap(nested, false, nullptr);
  // An alias of a long text, again and again.
  std::string aliases = "a: &a " + std::string(100'000, 'x') + "\nb:\n";
  for (int i = 0; i < 90'000; ++i) aliases += "- *a\n";
  cheap(aliases, true, "TOO_LARGE");
  // More mistakes than anybody reads, each with a name to compare.
  std::string routes, permissions;
  for (int i = 0; i < 250; ++i) permissions += (i ? ",\"" : "\"") + std::string(60, 'a') + std::to_string(i) + "\"";
  for (int i = 0; i < 250; ++i) {
    routes += i ? "," : "";
    routes += "{\"method\":\"GET\",\"path\":\"/" + std::to_string(i) + "\",\"permissions\":[";
    for (int j = 0; j < 50; ++j) routes += (j ? ",\"" : "\"") + std::string(58, 'b') + std::to_string(j) + "\"";
    routes += "]}";
  }
  const std::string many =
      JsonWith("\"permissions\":[" + permissions + "],\"capabilities\":{\"api\":{\"routes\":[" + routes + "]}}");
  ASSERT_LT(many.size(), 1u << 20);
  cheap(many, false, "UNDECLARED_PERMISSION");
  const ManifestResult bounded = ParseManifest(many, false);
  EXPECT_EQ(bounded.errors.size(), 1'001u);
  EXPECT_EQ(bounded.errors.back().code, "TOO_MANY");
  EXPECT_THAT(bounded.errors.back().message, HasSubstr("11500 more"));
  std::string unknown;
  for (int i = 0; i < 90'000; ++i) unknown += (i ? ",\"x" : "\"x") + std::to_string(i) + "\":0";
  EXPECT_LT(Seconds([&] { ParseManifest("{" + unknown + "}", false); }), 5.0);
  EXPECT_LE(ParseManifest("{" + unknown + "}", false).warnings.size(), 1'001u);
}

// Each text of the manifest that has every field, replaced.
void ForEachText(const std::function<void(const std::string& pointer, json& changed, json::json_pointer at)>& each) {
  const json document =
      json::parse(R"({"name": "a", "version": "1.0.0", "displayName": "A", "description": "d", "author": "x", "license": "MIT",
    "entry": "bin/a", "args": ["b"], "featureFlag": "f", "transport": "link", "configReload": "push", "permissions": ["p:q"],
    "capabilities": {"api": {"routes": [{"method": "GET", "path": "/a", "permissions": ["p:q"], "handler": "h", "summary": "s"}], "openapi": "o.yaml"},
      "jobs": {"handlers": [{"name": "j", "schedule": "* * * * *", "timeZone": "UTC", "overlap": "skip", "catchUp": "none", "handler": "h"}]},
      "events": {"publishes": ["a.b"], "subscribes": ["c.*"]},
      "ui": {"pages": [{"path": "/a", "component": "a.js", "title": "t", "icon": "i"}], "navigation": [{"path": "/a", "label": "l"}], "entry": "ui/i.js"}},
    "dependencies": {"modules": {"other": "^1"}, "system": {"bulkhead": "*"}}, "database": {"migrations": "m", "extensions": ["pgcrypto"]},
    "config": {"schema": {"f": {"type": "string", "label": "l", "default": "d", "validation": {"pattern": "d"}},
      "s": {"type": "select", "options": ["o"], "default": "o", "dependsOn": "f"}}, "defaults": {"f": "d"}},
    "limits": {"memory": "512Mi", "cpu": "1"}, "access": {"files": ["/x"], "network": "none"}, "metadata": {"homepage": "h", "tags": ["t"]}})");
  ASSERT_THAT(Told(ParseManifestJson(document).errors), IsEmpty());
  int texts = 0;
  const std::function<void(const json&, const json::json_pointer&)> walk = [&](const json& value, const json::json_pointer& at) {
    if (value.is_string()) {
      json changed = document;
      each(at.to_string(), changed, at);
      ++texts;
    }
    if (value.is_array()) {
      for (size_t i = 0; i < value.size(); ++i) walk(value[i], at / i);
    } else if (value.is_object()) {
      for (const auto& [name, member] : value.items()) walk(member, at / name);
    }
  };
  walk(document, json::json_pointer());
  EXPECT_GT(texts, 50);
}

TEST(BadInput, SqlInEveryTextIsTextOrAFinding) {
  ForEachText([](const std::string& pointer, json& changed, json::json_pointer at) {
    for (const char* sql :
         {"'; DROP TABLE modules; --", "\" OR 1=1", "$$; SELECT pg_sleep(9) $$", "a'||(SELECT current_user)||'"}) {
      changed[at] = sql;
      const ManifestResult result = ParseManifestJson(changed);
      Told(result.errors);
      if (!result.manifest) continue;
      EXPECT_EQ(json::parse(result.manifest->json)[at], sql) << pointer;  // taken as it is, in places where any text may stand
      EXPECT_EQ(result.manifest->name, "a") << pointer;
    }
    changed[at] = "'; DROP TABLE modules; --";
    for (const char* strict :
         {"/name", "/version", "/transport", "/featureFlag", "/permissions/0", "/database/extensions/0",
          "/dependencies/modules/other", "/capabilities/jobs/handlers/0/name", "/capabilities/jobs/handlers/0/schedule",
          "/capabilities/events/publishes/0", "/capabilities/api/routes/0/path", "/limits/memory"}) {
      if (pointer == strict) {
        EXPECT_FALSE(ParseManifestJson(changed).errors.empty()) << pointer;
      }
    }
  });
}

TEST(BadInput, TextsOfThreeHundredAndOfAHundredThousandCharacters) {
  ForEachText([](const std::string& pointer, json& changed, json::json_pointer at) {
    for (size_t size : {300u, 100'000u}) {
      changed[at] = std::string(size, 'n');
      const ManifestResult result = ParseManifestJson(changed);
      for (const Finding& f : result.errors) EXPECT_LT(f.message.size() + f.path.size(), 1'000u) << pointer;
      // A configuration's value may be long; all else has an end.
      if (size == 100'000u) {
        EXPECT_FALSE(result.errors.empty()) << pointer;
      }
    }
  });
  const json named = {{"name", std::string(300, 'a')}, {"version", "1.0.0"}};
  EXPECT_THAT(Told(ParseManifestJson(named).errors), ElementsAre("/name:0 INVALID_NAME"));
}

TEST(BadInput, EveryPathThatLeavesTheFolder) {
  const char* const paths[] = {"../x",
                               "a/../../x",
                               "..",
                               "a/..",
                               "/etc/passwd",
                               "//x",
                               "a//b",
                               "./a",
                               "a/.",
                               "a\\..\\b",
                               "C:\\x",
                               "a\x01"
                               "b",
                               "%2e%2e/x",
                               "a/%2E%2e/b",
                               "a%2fb",
                               "a%5cb",
                               "a%00b",
                               "",
                               "a\x7f"
                               "b"};
  for (const char* path : paths) {
    const json document = {{"name", "a"},
                           {"version", "1.0.0"},
                           {"entry", path},
                           {"database", {{"migrations", path}}},
                           {"capabilities",
                            {{"api", {{"openapi", path}}},
                             {"ui", {{"entry", path}, {"pages", {{{"path", "/a"}, {"component", path}, {"entry", path}}}}}}}}};
    std::vector<std::string> places;
    for (const Finding& f : ParseManifestJson(document).errors) places.push_back(f.path);
    EXPECT_THAT(places, testing::UnorderedElementsAre("/entry", "/database/migrations", "/capabilities/api/openapi",
                                                      "/capabilities/ui/entry", "/capabilities/ui/pages/0/component",
                                                      "/capabilities/ui/pages/0/entry"))
        << path;
  }
  for (const char* url : {"https://example.org/x.js", "data:text/javascript,1", "javascript:alert(1)"}) {
    const json document = {
        {"name", "a"}, {"version", "1.0.0"}, {"capabilities", {{"ui", {{"pages", {{{"path", "/a"}, {"component", url}}}}}}}}};
    EXPECT_THAT(Told(ParseManifestJson(document).errors), ElementsAre("/capabilities/ui/pages/0/component:0 INVALID_PATH"))
        << url;
  }
  for (const char* page :
       {"", "a", "//a", "/a//b", "/../a", "/a/..", "/a/./b", "/a\\b", "/%2e%2e/a", "/a%2f%2fb", "/a%00", "/a\tb", "/%zz"}) {
    const json document = {{"name", "a"},
                           {"version", "1.0.0"},
                           {"capabilities", {{"ui", {{"pages", {{{"path", page}}}}, {"navigation", {{{"path", page}}}}}}}}};
    std::vector<std::string> places;
    for (const Finding& f : ParseManifestJson(document).errors) places.push_back(f.path);
    EXPECT_THAT(places, ElementsAre("/capabilities/ui/pages/0/path", "/capabilities/ui/navigation/0/path")) << page;
  }
}

TEST(BadInput, TheSameInYamlHasTheSameCodes) {
  const json document =
      json::parse(R"({"name": "A b", "version": "1", "workers": 0, "args": [5], "entry": "../x", "limits": {"memory": "x"},
    "capabilities": {"api": {"routes": [{"method": "FETCH", "path": "x"}, {}]}, "jobs": {"handlers": [{"name": "a", "schedule": "x"}]}}})");
  auto codes = [](const ManifestResult& result) {
    std::vector<std::string> all;
    for (const Finding& f : result.errors) all.push_back(f.path + " " + f.code);
    return all;
  };
  const std::vector<std::string> expected = codes(ParseManifest(document.dump(), false));
  EXPECT_EQ(expected.size(), 11u);
  EXPECT_EQ(codes(ParseManifest(document.dump(2), true)), expected);  // JSON is YAML
  EXPECT_EQ(codes(ParseManifestJson(document)), expected);
}

}  // namespace
}  // namespace bulkhead
