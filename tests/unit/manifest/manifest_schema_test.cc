// The JSON Schema of manifests and the readers agree: neither knows a field, a type or a limit that the other doesn't.
#include "supervisor/manifest/manifest_schema.h"

#include <fstream>
#include <iterator>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "re2/re2.h"
#include "supervisor/base/random.h"
#include "supervisor/manifest/reader.h"
#include "tests/unit/manifest/brief.h"

namespace bulkhead {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::IsEmpty;
using Pointer = json::json_pointer;

std::string FileText(const std::string& name) {
  std::ifstream file(BULKHEAD_TEST_FOLDER "/" + name);
  EXPECT_TRUE(file) << name;
  return std::string(std::istreambuf_iterator<char>(file), {});
}
json FullManifest() {
  json full = json::parse(FileText("../../interface/manifest_full.json"));
  // The fields that came later.
  full["capabilities"]["jobs"]["handlers"][1]["catchUp"] = {{"all", 10}};
  full["capabilities"]["jobs"]["handlers"][1]["concurrency"] = 4;
  full["capabilities"]["jobs"]["handlers"][1]["history"] = {{"count", 50}, {"age", 86400000}};
  full["config"]["schema"]["tags"] = {
      {"type", "multiselect"}, {"options", {"a", {{"value", "b"}, {"label", "B"}}}}, {"validation", {{"maxItems", 2}}}};
  full["config"]["schema"]["every"] = {{"type", "duration"}, {"default", "30s"}, {"dependsOn", "loud"}};
  full["config"]["schema"]["size"] = {{"type", "integer"}, {"min", 1}, {"dependsOn", {{"level", "high"}}}};
  full["capabilities"]["ui"]["navigation"][0]["children"] = {{{"path", "/things/a"}, {"label", "A"}}};
  full["access"] = {{"files", {"/opt/prices", {{"path", "/opt/reports"}, {"mode", "write"}}}}, {"network", {{"mode", "ports"}, {"ports", {443, 5432}}}}};
  full["isolation"] = {{"mode", "strict"}};
  full["metadata"]["repository"] = {{"type", "git"}, {"url", "https://example.org"}};
  return full;
}
json OldExample() { return json::parse(FileText("vmware_vcenter.json")); }
const json& Schema() {
  static const auto* schema = new json(json::parse(ManifestSchemaJson()));
  return *schema;
}

const json& Resolved(const json& rules) {
  return rules.contains("$ref") ? Schema().at(Pointer(rules["$ref"].get<std::string>().substr(1))) : rules;
}

// What the schema says of the value at a pointer of `document`; nullptr for what it does not know.
const json* RulesOf(const json& document, const Pointer& pointer) {
  if (pointer.empty()) return &Schema();
  const json* around = RulesOf(document, pointer.parent_pointer());
  if (around == nullptr) return nullptr;
  if (document.at(pointer.parent_pointer()).is_array())
    return around->contains("items") ? &Resolved((*around)["items"]) : nullptr;
  if (around->contains("properties") && (*around)["properties"].contains(pointer.back()))
    return &Resolved((*around)["properties"][pointer.back()]);
  return around->contains("additionalProperties") ? &(*around)["additionalProperties"] : nullptr;
}

void CollectPointers(const json& value, const Pointer& at, std::vector<Pointer>& out) {
  out.push_back(at);
  if (value.is_array()) {
    for (size_t i = 0; i < value.size(); ++i) CollectPointers(value[i], at / i, out);
  } else if (value.is_object()) {
    for (const auto& [name, member] : value.items()) CollectPointers(member, at / name, out);
  }
}
std::vector<Pointer> Pointers(const json& document) {
  std::vector<Pointer> all;
  CollectPointers(document, Pointer(), all);
  return all;
}

// Values of a configuration, and rules between fields, are not the schema's.
bool IsBetweenFields(const Finding& f) {
  const bool is_value = f.path.find("/config/defaults/") == 0 || f.path.ends_with("/default");
  const bool is_rule = f.path.find("/dependsOn") != std::string::npos && f.code == "INVALID_VALUE";
  const bool is_options = f.path.ends_with("/options") && f.code == "REQUIRED";
  const bool is_pattern = f.code == "INVALID_VALUE" && (f.path.ends_with("/catchUp") || f.path == "/access/network" || f.path == "/isolation");
  const bool is_ports = (f.code == "REQUIRED" || f.code == "INVALID_VALUE") && f.path.find("/access/") == 0 && f.path.ends_with("/ports");
  return is_ports || is_value || is_rule || is_options || is_pattern;
}
bool IsStructural(const Finding& f) {
  static const std::set<std::string> kCodes{"WRONG_TYPE", "REQUIRED",      "OUT_OF_RANGE", "TOO_LONG",
                                            "TOO_MANY",   "INVALID_VALUE", "INVALID_TYPE"};
  return kCodes.contains(f.code) && !IsBetweenFields(f);
}

// Both refuse the same places.
std::vector<Finding> ExpectAgreement(const json& document, const std::string& what) {
  std::vector<Finding> schema = CheckAgainstSchema(document);
  const std::vector<Finding> reader = ReadManifest(document).errors;
  std::set<std::string> by_schema, by_reader, wrong_objects;
  for (const Finding& f : schema) by_schema.insert(f.path);
  for (const Finding& f : reader) {
    by_reader.insert(f.path);
    if (f.code == "WRONG_TYPE") wrong_objects.insert(f.path);
  }
  for (const Finding& f : schema) {
    const bool inside_wrong = f.code == "REQUIRED" && wrong_objects.contains(f.path.substr(0, f.path.rfind('/')));
    EXPECT_TRUE(by_reader.contains(f.path) || inside_wrong) << what << ": the schema alone has " << f.path << " " << f.code;
  }
  for (const Finding& f : reader) {
    if (!IsStructural(f)) continue;
    // What the reader says of an option without a value, the schema says of the value.
    EXPECT_TRUE(by_schema.contains(f.path) || by_schema.contains(f.path + "/value"))
        << what << ": the reader alone has " << f.path << " " << f.code;
  }
  const ManifestResult both = ParseManifestJson(document);  // the two together
  EXPECT_EQ(both.errors.empty(), schema.empty() && reader.empty()) << what;
  EXPECT_EQ(both.manifest.has_value(), both.errors.empty()) << what;
  std::set<std::string> places;
  for (const Finding& f : both.errors) {
    EXPECT_FALSE(f.code.empty());
    EXPECT_THAT(f.message, testing::AnyOf(testing::EndsWith("."), testing::EndsWith("?"))) << what;
    places.insert(f.path + " " + f.code);
  }
  EXPECT_EQ(places.size(), both.errors.size())
      << what << ": something is said twice: " << testing::PrintToString(Brief(both.errors));
  return schema;
}

const std::vector<json>& OtherValues() {
  static const auto* values = new std::vector<json>{nullptr,
                                                    true,
                                                    "",
                                                    "text",
                                                    std::string(5000, 'x'),
                                                    1,
                                                    -1,
                                                    1.5,
                                                    1e300,
                                                    int64_t{1} << 62,
                                                    2.0,
                                                    json::array(),
                                                    json::object(),
                                                    {5},
                                                    {{"a", 1}},
                                                    {nullptr},
                                                    {json::object()}};
  return *values;
}

TEST(ManifestSchema, IsADraft7SchemaThatTakesBothExamples) {
  EXPECT_EQ(Schema()["$schema"], "http://json-schema.org/draft-07/schema#");
  EXPECT_EQ(Schema()["properties"]["manifestVersion"]["enum"], json::parse("[1, null]"));
  EXPECT_EQ(std::string(ManifestSchemaJson()), FileText("../../../supervisor/manifest/manifest.schema.json"));
  for (const json& document : {FullManifest(), OldExample()}) {
    EXPECT_THAT(CheckAgainstSchema(document), IsEmpty());
    EXPECT_THAT(Brief(ParseManifestJson(document).errors), IsEmpty());
  }
}

TEST(ManifestSchema, EveryFieldOfTheFullManifestIsKnownToBoth) {
  for (const json& document : {FullManifest(), OldExample()}) {
    for (const Pointer& pointer : Pointers(document)) {
      const std::string text = pointer.to_string();
      // Objects of the author's own.
      if (text.find("/dependencies/npm/") == 0 || text.find("/dependencies/system/node") == 0 ||
          text.find("/config/defaults/") == 0 || text.find("/config/schema/size/dependsOn/") == 0 ||
          text.find("/metadata/repository/") == 0 || text.find("/handlers/0/config/") != text.npos)
        continue;
      EXPECT_NE(RulesOf(document, pointer), nullptr) << text;
    }
    for (const Finding& f : ParseManifestJson(document).warnings) EXPECT_EQ(f.code, "NOT_APPLIED") << f.path;
  }
}

// An object with each field that the schema knows; those below likewise.
json WithEveryField(const json& rules, int depth = 0) {
  if (rules.contains("properties")) {
    json object = json::object();
    for (const auto& [name, field] : rules["properties"].items()) object[name] = WithEveryField(field, depth);
    return object;
  }
  if (rules.contains("additionalProperties")) return {{"a", WithEveryField(rules["additionalProperties"], depth)}};
  if (!rules.contains("items")) return nullptr;
  const json& items = Resolved(rules["items"]);
  if (!items.contains("properties") || depth > 2) return nullptr;  // entries of the menu hold themselves
  return json::array({WithEveryField(items, depth + (rules["items"].contains("$ref") ? 1 : 0))});
}

TEST(ManifestSchema, EveryFieldOfTheSchemaIsKnownToTheReaders) {
  json document = WithEveryField(Schema());
  document["name"] = "m";
  document["version"] = "1.0.0";
  document["config"]["schema"]["a"]["type"] = "select";
  ASSERT_GT(Pointers(document).size(), 120u);
  for (const Finding& f : ReadManifest(document).warnings) EXPECT_NE(f.code, "UNKNOWN_FIELD") << f.path;
}

TEST(ManifestSchema, EveryFieldIsDescribedInTheReadme) {
  const std::string readme = FileText("../../../supervisor/manifest/README.md");
  std::set<std::string> names;
  for (const Pointer& pointer : Pointers(Schema())) {
    if (!pointer.empty() && pointer.parent_pointer() != Pointer() && pointer.parent_pointer().back() == "properties")
      names.insert(pointer.back());
  }
  ASSERT_GT(names.size(), 80u);
  for (const std::string& name : names)
    EXPECT_NE(readme.find("`" + name + "`"), std::string::npos) << name << " is not in README.md";
  for (const json& type :
       Schema()["properties"]["config"]["properties"]["schema"]["additionalProperties"]["properties"]["type"]["enum"]) {
    EXPECT_NE(readme.find("`" + type.get<std::string>() + "`"), std::string::npos) << type;
  }
}

TEST(ManifestSchema, BothRefuseEachFieldThatIsDroppedRetypedOrRenamed) {
  int refused = 0, tried = 0;
  for (const json& document : {FullManifest(), OldExample()}) {
    for (const Pointer& pointer : Pointers(document)) {
      auto attempt = [&](const json& changed, const std::string& what) {
        ++tried;
        refused += !ExpectAgreement(changed, what + " " + pointer.to_string()).empty();
      };
      for (const json& other : OtherValues()) {
        json changed = document;
        changed[pointer] = other;
        attempt(changed, "as " + other.dump().substr(0, 40));
      }
      if (pointer.empty()) continue;
      json dropped = document;
      json& around = dropped[pointer.parent_pointer()];
      const bool in_list = around.is_array();
      json value = around[in_list ? Pointer("/" + pointer.back()) : Pointer() / pointer.back()];
      if (in_list) {
        around.erase(std::stoul(pointer.back()));
      } else {
        around.erase(pointer.back());
      }
      attempt(dropped, "without");
      if (in_list) continue;
      around[pointer.back() + "x"] = value;
      attempt(dropped, "renamed");
    }
  }
  EXPECT_GT(tried, 3'000);
  EXPECT_GT(refused, 1'000);
}

TEST(ManifestSchema, BothRefuseTheSameOfManyMistakesAtOnce) {
  Random random(20);
  const std::vector<json> documents{FullManifest(), OldExample()};
  for (int round = 0; round < 800; ++round) {
    json document = documents[random.Below(documents.size())];
    for (uint64_t n = 1 + random.Below(6); n > 0; --n) {
      const std::vector<Pointer> pointers = Pointers(document);
      document[pointers[random.Below(pointers.size())]] = OtherValues()[random.Below(OtherValues().size())];
    }
    ExpectAgreement(document, document.dump().substr(0, 2000));
    if (HasFailure()) break;
  }
}

// Every number and length that the schema names, from both sides.
TEST(ManifestSchema, BothHaveTheSameLimits) {
  const json document = FullManifest();
  int limits = 0;
  for (const Pointer& pointer : Pointers(document)) {
    const json* rules = RulesOf(document, pointer);
    if (rules == nullptr) continue;
    auto attempt = [&](json value, bool fits) {
      json changed = document;
      changed[pointer] = std::move(value);
      const std::vector<Finding> findings = ExpectAgreement(changed, "limit of " + pointer.to_string());
      EXPECT_EQ(std::none_of(findings.begin(), findings.end(), [&](const Finding& f) { return f.path == pointer.to_string(); }),
                fits)
          << pointer.to_string();
      ++limits;
    };
    for (const char* bound : {"minimum", "maximum"}) {
      if (!rules->contains(bound) || !document[pointer].is_number()) continue;
      const json at = (*rules)[bound];
      const int beyond = *bound == 'm' && bound[1] == 'i' ? -1 : 1;
      attempt(at, true);
      attempt(at.get<double>() + beyond, false);
    }
    if (rules->contains("maxLength") && document[pointer].is_string()) {
      const auto most = (*rules)["maxLength"].get<size_t>();
      attempt(std::string(most, 'a'), true);
      attempt(std::string(most + 1, 'a'), false);
      std::string wide;  // characters, not bytes
      for (size_t i = 0; i < most; ++i) wide += "ä";
      attempt(wide, true);
    }
    if (rules->contains("maxItems") && document[pointer].is_array()) {
      const auto most = (*rules)["maxItems"].get<size_t>();
      json item = document[pointer].empty() ? json("x") : document[pointer][0];
      attempt(json(most, item), true);
      attempt(json(most + 1, item), false);
    }
  }
  EXPECT_GT(limits, 150);
}

// Patterns are for editors; here the readers check, and must not be laxer. "^/" is all that a pattern says of a path.
TEST(ManifestSchema, ItsPatternsSayWhatTheReadersSay) {
  const char* const texts[] = {"",         "a",          "order-intake", "a--b",    "a-",         "-a",       "A",
                               "1a",       "1.0.0",      "1.0",          "v1.0.0",  "1.0.0-rc.1", "1.0.0-01", "1.0.0+b",
                               "GET",      "get",        "gEt",          "GETX",    "TRACE",      "/a",       "//",
                               "*",        "a:*",        "a:b",          "a::b",    "a:*:b",      "order.*",  "order.created",
                               "a..b",     "a.b.c",      "a.b.*",        ".a",      "none",       "latest",   "all:1",
                               "all:1000", "all:1001",   "all:0",        "all:01",  "all:",       "all",      "outbound",
                               "loopback", "everything", "a_b",          "pg-trgm", "a;b",        "a b",      "ä",
                               "x.y-z_1",  "OPTIONS",    "a.b:c_d",      "a/b",     "enable_x",   "all:1e2",  "all: 5"};
  const json document = FullManifest();
  int patterns = 0;
  for (const Pointer& pointer : Pointers(document)) {
    const json* rules = RulesOf(document, pointer);
    if (rules == nullptr || !rules->contains("pattern") || !(*rules)["pattern"].is_string()) continue;
    const auto pattern = (*rules)["pattern"].get<std::string>();
    const re2::RE2 compiled(pattern);
    ASSERT_TRUE(compiled.ok()) << pattern;
    ++patterns;
    for (const char* text : texts) {
      json changed = document;
      changed[pointer] = text;
      const ManifestResult result = ReadManifest(changed);
      const bool taken = std::none_of(result.errors.begin(), result.errors.end(), [&](const Finding& f) {
        return f.path == pointer.to_string() && f.code != "UNDECLARED_PERMISSION";
      });
      if (!re2::RE2::PartialMatch(text, compiled)) {
        EXPECT_FALSE(taken) << pointer.to_string() << " " << text;
      } else if (pattern != "^/") {
        EXPECT_TRUE(taken) << pointer.to_string() << " " << text;
      }
    }
  }
  EXPECT_GT(patterns, 12);
}

TEST(ManifestSchema, AWholeNumberMayBeWrittenWithAPoint) {
  EXPECT_THAT(Brief(ParseManifestJson({{"name", "m"}, {"version", "1.0.0"}, {"workers", 2.0}}).errors), IsEmpty());
  EXPECT_THAT(Brief(CheckAgainstSchema({{"name", "m"}, {"version", "1.0.0"}, {"workers", 2.5}})),
              ElementsAre("/workers WRONG_TYPE"));
  EXPECT_THAT(Brief(ParseManifestJson({{"name", "m"}, {"version", "1.0.0"}, {"workers", 2.5}}).errors),
              ElementsAre("/workers OUT_OF_RANGE"));
}

TEST(ManifestSchema, SentencesNameWhatIsWanted) {
  const json document = {
      {"name", 5}, {"transport", "pigeon"}, {"args", json(65, "x")}, {"workers", 99}, {"description", std::string(5000, 'x')}};
  std::vector<std::string> sentences;
  for (const Finding& f : CheckAgainstSchema(document)) sentences.push_back(f.message);
  EXPECT_THAT(sentences, testing::UnorderedElementsAre(
                             "\"name\" must be a string, not a number.", "\"transport\" must be one of \"link\", \"http\".",
                             "\"args\" may have at most 64 entries.", "\"workers\" must be from 1 to 32.",
                             "\"description\" may have at most 4096 characters.", "\"version\" is missing."));
}

}  // namespace
}  // namespace bulkhead
