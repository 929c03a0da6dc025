// A module's configuration: the schema itself, values against it, defaults, masking.
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "supervisor/manifest/manifest.h"
#include "tests/unit/manifest/brief.h"

namespace bulkhead {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::IsEmpty;

ManifestResult WithConfig(const std::string& config) {
  return ParseManifestJson({{"name", "m"}, {"version", "1.0.0"}, {"config", json::parse(config)}});
}
std::vector<std::string> SchemaErrors(const std::string& config) { return Brief(WithConfig(config).errors); }
Manifest WithGood(const std::string& config) {
  ManifestResult result = WithConfig(config);
  EXPECT_THAT(Brief(result.errors), IsEmpty());
  return result.manifest.value_or(Manifest());
}

const char kSchema[] = R"({"schema": {
  "host": {"type": "url", "required": true},
  "mail": {"type": "email"},
  "secret": {"type": "password"},
  "key": {"type": "text", "sensitive": true},
  "hours": {"type": "number", "default": 6, "validation": {"min": 1, "max": 24, "integer": true}},
  "code": {"type": "string", "validation": {"pattern": "^[A-Z]{2}$", "minLength": 2, "maxLength": 2}},
  "on": {"type": "boolean", "default": true},
  "size": {"type": "select", "options": ["small", {"value": "large", "label": "Large"}, 3]}},
  "defaults": {"hours": 8}})";

std::vector<std::string> ValueErrors(const std::string& config) { return Brief(EffectiveConfig(WithGood(kSchema), config).errors); }

TEST(ConfigSchema, FieldsAreChecked) {
  EXPECT_THAT(SchemaErrors(R"({"schema":{"a":{"type":"strng"},"b":{},"c":5}})"),
              ElementsAre("/config/schema/a/type INVALID_TYPE", "/config/schema/b/type REQUIRED", "/config/schema/c WRONG_TYPE"));
  EXPECT_THAT(
      SchemaErrors(
          R"({"schema":{"a":{"type":"select"},"b":{"type":"select","options":[]},"c":{"type":"select","options":[{}]}}})"),
      ElementsAre("/config/schema/a/options REQUIRED", "/config/schema/b/options REQUIRED",
                  "/config/schema/c/options/0 WRONG_TYPE"));
  EXPECT_THAT(SchemaErrors(R"({"schema":{"a":{"type":"string","validation":{"pattern":"(unclosed"}}}})"),
              ElementsAre("/config/schema/a/validation/pattern INVALID_PATTERN"));
  EXPECT_THAT(SchemaErrors(R"({"schema":{"a":{"type":"number","validation":{"min":5,"max":1}}}})"),
              ElementsAre("/config/schema/a/validation INVALID_RULE"));
}

TEST(ConfigSchema, DefaultsMustFitTheSchema) {
  EXPECT_THAT(SchemaErrors(R"({"schema":{"a":{"type":"number","default":"6"}}})"),
              ElementsAre("/config/schema/a/default WRONG_TYPE"));
  EXPECT_THAT(SchemaErrors(R"({"schema":{"a":{"type":"number","validation":{"max":3}}},"defaults":{"a":6,"b":1}})"),
              ElementsAre("/config/defaults/a TOO_LARGE", "/config/defaults/b UNKNOWN_FIELD"));
}

TEST(EffectiveConfig, DefaultsLieUnderWhatIsGiven) {
  const Manifest m = WithGood(kSchema);
  const ConfigResult result = EffectiveConfig(m, R"({"host":"https://h/","on":false})");
  EXPECT_THAT(Brief(result.errors), IsEmpty());
  EXPECT_EQ(json::parse(result.effective_json), json::parse(R"({"host":"https://h/","hours":8,"on":false})"));
  // null is "not set".
  EXPECT_EQ(json::parse(EffectiveConfig(m, R"({"host":"https://h/","hours":null})").effective_json)["hours"], 8);
}

TEST(ConfigSchema, RulesMayStandInTheFieldItselfAndAreCheckedThereToo) {
  EXPECT_THAT(SchemaErrors(R"({"schema":{"a":{"type":"string","pattern":"("},"b":{"type":"number","min":5,"max":1},
                               "c":{"type":"multiselect","options":[1],"validation":{"minItems":3,"maxItems":2}}}})"),
              ElementsAre("/config/schema/a/pattern INVALID_PATTERN", "/config/schema/b INVALID_RULE",
                          "/config/schema/c/validation INVALID_RULE"));
  const Manifest m = WithGood(R"({"schema":{"a":{"type":"string","pattern":"^x"},"b":{"type":"number","max":1}}})");
  EXPECT_THAT(Brief(EffectiveConfig(m, R"({"a":"y","b":2})").errors), ElementsAre("/a PATTERN_MISMATCH", "/b TOO_LARGE"));
}

TEST(ConfigSchema, FieldsHaveNames) {
  for (const char* name : {"", "1a", "a b", "a/b", "ä", "-a"}) {
    const json config = {{"schema", {{name, {{"type", "string"}}}}}};
    EXPECT_THAT(SchemaErrors(config.dump()), ElementsAre(testing::EndsWith(" INVALID_NAME"))) << name;
  }
  const std::string longest(128, 'n');
  EXPECT_THAT(SchemaErrors(R"({"schema":{")" + longest + R"(":{"type":"string"},"_a.b-c1":{"type":"string"}}})"), IsEmpty());
  EXPECT_THAT(SchemaErrors(R"({"schema":{")" + longest + R"(n":{"type":"string"}}})"),
              ElementsAre(testing::EndsWith(" INVALID_NAME")));
}

TEST(ConfigSchema, EachTypeTakesItsValuesAndNoOthers) {
  const Manifest m = WithGood(R"({"schema": {
    "integer": {"type": "integer", "validation": {"min": -5}}, "multi": {"type": "multiselect", "options": ["a", {"value": "b"}, 3, true],
      "validation": {"minItems": 1, "maxItems": 2}}, "json": {"type": "json"}, "every": {"type": "duration", "validation": {"min": 1000, "max": 60000}},
    "string": {"type": "string"}, "text": {"type": "text"}, "number": {"type": "number"}}})");
  auto errors = [&](const std::string& config) { return Brief(EffectiveConfig(m, config).errors); };
  for (const char* good : {R"({"integer":-5})", R"({"integer":9007199254740991})", R"({"integer":2.0})", R"({"multi":["a"]})",
                           R"({"multi":["b",3]})", R"({"multi":[true]})", R"({"json":{"a":[1,{"b":null}]}})", R"({"json":"x"})",
                           R"({"json":false})", R"({"every":"30s"})", R"({"every":"1m"})", R"({"every":1500})", R"({"every":""})",
                           R"({"number":1e300})", R"({"string":"\n"})"}) {
    EXPECT_THAT(errors(good), IsEmpty()) << good;
  }
  const std::pair<const char*, const char*> bad[] = {{R"({"integer":1.5})", "/integer NOT_INTEGER"},
                                                     {R"({"integer":"1"})", "/integer WRONG_TYPE"},
                                                     {R"({"integer":9007199254740992})", "/integer OUT_OF_RANGE"},
                                                     {R"({"integer":1e300})", "/integer OUT_OF_RANGE"},
                                                     {R"({"integer":-6})", "/integer TOO_SMALL"},
                                                     {R"({"integer":true})", "/integer WRONG_TYPE"},
                                                     {R"({"multi":"a"})", "/multi WRONG_TYPE"},
                                                     {R"({"multi":[]})", "/multi TOO_FEW"},
                                                     {R"({"multi":["a","b",3]})", "/multi TOO_MANY"},
                                                     {R"({"multi":["a","z"]})", "/multi/1 NOT_AN_OPTION"},
                                                     {R"({"multi":["a","a"]})", "/multi/1 DUPLICATE"},
                                                     {R"({"every":"30"})", "/every INVALID_DURATION"},
                                                     {R"({"every":-1})", "/every INVALID_DURATION"},
                                                     {R"({"every":1.5})", "/every INVALID_DURATION"},
                                                     {R"({"every":1e18})", "/every INVALID_DURATION"},
                                                     {R"({"every":true})", "/every WRONG_TYPE"},
                                                     {R"({"every":"500ms"})", "/every TOO_SMALL"},
                                                     {R"({"every":"2m"})", "/every TOO_LARGE"},
                                                     {R"({"every":["1s"]})", "/every WRONG_TYPE"},
                                                     {R"({"number":"1"})", "/number WRONG_TYPE"},
                                                     {R"({"string":1})", "/string WRONG_TYPE"}};
  for (const auto& [config, error] : bad) EXPECT_THAT(errors(config), ElementsAre(error)) << config;
  EXPECT_THAT(errors("{\"json\":\"" + std::string(70'000, 'x') + "\"}"), ElementsAre("/json TOO_LONG"));
}

const char kDepending[] = R"({"schema": {
  "mode": {"type": "select", "options": ["plain", "tls", "mtls"], "default": "plain"},
  "certificate": {"type": "string", "required": true, "dependsOn": {"mode": ["tls", "mtls"]}, "validation": {"minLength": 3}},
  "clientKey": {"type": "password", "required": true, "dependsOn": {"mode": "mtls"}},
  "proxy": {"type": "boolean"},
  "proxyUrl": {"type": "url", "required": true, "dependsOn": "proxy"},
  "proxyUser": {"type": "string", "required": true, "dependsOn": "proxyUrl"},
  "kinds": {"type": "multiselect", "options": ["a", "b"]},
  "onlyB": {"type": "number", "required": true, "dependsOn": {"kinds": "b"}}}})";

TEST(DependsOn, AFieldIsWantedAndCheckedOnlyWhenItApplies) {
  const Manifest m = WithGood(kDepending);
  auto errors = [&](const std::string& config) { return Brief(EffectiveConfig(m, config).errors); };
  EXPECT_THAT(errors("{}"), IsEmpty());
  EXPECT_THAT(errors(R"({"certificate":"x"})"), IsEmpty());  // too short, and without effect
  EXPECT_THAT(errors(R"({"mode":"tls"})"), ElementsAre("/certificate REQUIRED"));
  EXPECT_THAT(errors(R"({"mode":"tls","certificate":"x"})"), ElementsAre("/certificate TOO_SHORT"));
  EXPECT_THAT(errors(R"({"mode":"mtls"})"), ElementsAre("/certificate REQUIRED", "/clientKey REQUIRED"));
  EXPECT_THAT(errors(R"({"proxy":false})"), IsEmpty());
  EXPECT_THAT(errors(R"({"proxy":true})"), ElementsAre("/proxyUrl REQUIRED"));
  EXPECT_THAT(errors(R"({"proxy":true,"proxyUrl":"http://p"})"), ElementsAre("/proxyUser REQUIRED"));
  // What it depends on is set, but does not apply itself.
  EXPECT_THAT(errors(R"({"proxy":false,"proxyUrl":"http://p"})"), IsEmpty());
  EXPECT_THAT(errors(R"({"kinds":["a"]})"), IsEmpty());
  EXPECT_THAT(errors(R"({"kinds":["a","b"]})"), ElementsAre("/onlyB REQUIRED"));
  EXPECT_THAT(errors(R"({"kinds":["b"],"onlyB":"x"})"), ElementsAre("/onlyB WRONG_TYPE"));
  // A secret that does not apply is still one.
  EXPECT_EQ(MaskConfig(m, R"({"clientKey":"x"})"), R"({"clientKey":"********"})");
}

TEST(DependsOn, MistakesAreFoundInTheManifest) {
  EXPECT_THAT(
      SchemaErrors(R"({"schema":{"a":{"type":"string","dependsOn":"b"},"c":{"type":"string","dependsOn":{"a":"x","d":1}}}})"),
      ElementsAre("/config/schema/a/dependsOn UNKNOWN_FIELD", "/config/schema/c/dependsOn/d UNKNOWN_FIELD"));
  EXPECT_THAT(SchemaErrors(R"({"schema":{"a":{"type":"string","dependsOn":"a"}}})"),
              ElementsAre("/config/schema/a/dependsOn DEPENDENCY_CYCLE"));
  const ManifestResult cycle =
      WithConfig(R"({"schema":{"a":{"type":"string","dependsOn":"b"},"b":{"type":"string","dependsOn":{"c":"x"}},
                                                        "c":{"type":"string","dependsOn":"a"},"d":{"type":"string","dependsOn":"a"}}})");
  EXPECT_THAT(Brief(cycle.errors), ElementsAre("/config/schema/a/dependsOn DEPENDENCY_CYCLE"));
  EXPECT_THAT(cycle.errors[0].message, testing::HasSubstr("a → b → c → a"));
  EXPECT_THAT(
      SchemaErrors(
          R"({"schema":{"m":{"type":"select","options":["x"]},"n":{"type":"multiselect","options":["x"]},"o":{"type":"boolean"},
                               "a":{"type":"string","dependsOn":{"m":"y"}},"b":{"type":"string","dependsOn":{"m":["x","y"]}},
                               "c":{"type":"string","dependsOn":{"n":"y"}},"d":{"type":"string","dependsOn":{"o":"yes"}},
                               "e":{"type":"string","dependsOn":{"m":"x","n":"x","o":false}}}})"),
      ElementsAre("/config/schema/a/dependsOn/m INVALID_VALUE", "/config/schema/b/dependsOn/m INVALID_VALUE",
                  "/config/schema/c/dependsOn/n INVALID_VALUE", "/config/schema/d/dependsOn/o INVALID_VALUE"));
  EXPECT_THAT(SchemaErrors(R"({"schema":{"a":{"type":"string","dependsOn":5}}})"),
              ElementsAre("/config/schema/a/dependsOn WRONG_TYPE"));
}

TEST(EffectiveConfig, DeepAndDoubledConfigurationsAreRefused) {
  std::string deep = "{\"secret\":";
  for (int i = 0; i < 100'000; ++i) deep += '[';
  EXPECT_THAT(ValueErrors(deep), ElementsAre(" TOO_DEEP"));
  EXPECT_EQ(MaskConfig(WithGood(kSchema), deep), "{}");
  EXPECT_THAT(ValueErrors(R"({"host":"http://a","host":"http://b"})"), ElementsAre("/host DUPLICATE_KEY"));
  EXPECT_THAT(ValueErrors(R"({"host":"http://a","secret":"\u0000"})"), ElementsAre("/secret INVALID_TEXT"));
}

TEST(EffectiveConfig, EveryValueIsChecked) {
  EXPECT_THAT(ValueErrors("{}"), ElementsAre("/host REQUIRED"));
  EXPECT_THAT(ValueErrors(""), ElementsAre("/host REQUIRED"));
  EXPECT_THAT(ValueErrors("null"), ElementsAre("/host REQUIRED"));
  EXPECT_THAT(ValueErrors(R"({"host":""})"), ElementsAre("/host REQUIRED"));
  const std::pair<const char*, const char*> cases[] = {
      {R"("host":"nowhere")", "/host INVALID_URL"}, {R"("host":5)", "/host WRONG_TYPE"},
      {R"("mail":"a@b")", "/mail INVALID_EMAIL"},   {R"("hours":0)", "/hours TOO_SMALL"},
      {R"("hours":25)", "/hours TOO_LARGE"},        {R"("hours":1.5)", "/hours NOT_INTEGER"},
      {R"("hours":"5")", "/hours WRONG_TYPE"},      {R"("code":"ab")", "/code PATTERN_MISMATCH"},
      {R"("code":"A")", "/code TOO_SHORT"},         {R"("on":"yes")", "/on WRONG_TYPE"},
      {R"("size":"huge")", "/size NOT_AN_OPTION"},  {R"("secret":{"a":1})", "/secret WRONG_TYPE"},
      {R"("hots":1)", "/hots UNKNOWN_FIELD"}};
  for (const auto& [member, error] : cases) {
    const std::string host = std::string(member).find("\"host\"") == 0 ? "" : R"("host":"http://h",)";
    EXPECT_THAT(ValueErrors("{" + host + member + "}"), testing::Contains(error)) << member;
  }
  EXPECT_THAT(ValueErrors(R"({"host":"http://h","mail":"","code":"AB","size":"large","hours":24})"), IsEmpty());
  EXPECT_THAT(ValueErrors(R"({"host":"http://h","size":3})"), IsEmpty());
}

TEST(EffectiveConfig, WhatIsNoConfigurationIsRefused) {
  EXPECT_THAT(ValueErrors("{"), ElementsAre(" SYNTAX"));
  EXPECT_THAT(ValueErrors("[]"), ElementsAre(" WRONG_TYPE"));
  EXPECT_THAT(ValueErrors("\"" + std::string(300'000, 'x') + "\""), testing::Contains(" TOO_LARGE"));
}

TEST(EffectiveConfig, SentencesNeverRepeatAValue) {
  for (const Finding& f :
       EffectiveConfig(WithGood(kSchema), R"({"host":"hunter2","secret":["hunter2"],"code":"hunter2","size":"hunter2"})").errors) {
    EXPECT_EQ(f.message.find("hunter2"), std::string::npos) << f.message;
  }
}

TEST(EffectiveConfig, APatternOfAnAttackerCostsNoTime) {
  const Manifest m = WithGood(R"({"schema":{"a":{"type":"string","validation":{"pattern":"^(a+)+$"}}}})");
  EXPECT_THAT(Brief(EffectiveConfig(m, "{\"a\":\"" + std::string(50'000, 'a') + "!\"}").errors),
              ElementsAre("/a PATTERN_MISMATCH"));
}

TEST(EffectiveConfig, WithoutASchemaAnyObjectIsTaken) {
  const ConfigResult result = EffectiveConfig(WithGood(R"({"defaults":{"x":{"y":1}}})"), R"({"z":[1]})");
  EXPECT_THAT(Brief(result.errors), IsEmpty());
  EXPECT_EQ(json::parse(result.effective_json), json::parse(R"({"x":{"y":1},"z":[1]})"));
}

TEST(MaskConfig, SensitiveValuesAreHiddenAndOthersShown) {
  const Manifest m = WithGood(kSchema);
  EXPECT_EQ(json::parse(MaskConfig(m, R"({"host":"http://h","secret":"s","key":{"nested":1},"hours":3})")),
            json::parse(R"({"host":"http://h","secret":"********","key":"********","hours":3})"));
  EXPECT_EQ(MaskConfig(m, R"({"secret":null})"), R"({"secret":null})");
  EXPECT_EQ(MaskConfig(m, "garbage"), "{}");
}

}  // namespace
}  // namespace bulkhead
