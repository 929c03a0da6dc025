// A module's configuration: the schema itself, values against it, defaults, masking.
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "supervisor/manifest/manifest.h"

namespace bulkhead {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::IsEmpty;

std::vector<std::string> Brief(const std::vector<Finding>& findings) {
  std::vector<std::string> brief;
  for (const Finding& f : findings) brief.push_back(f.path + " " + f.code);
  return brief;
}

ManifestResult WithConfig(const std::string& config) {
  return ParseManifestJson({{"name", "m"}, {"version", "1.0.0"}, {"config", json::parse(config)}});
}
std::vector<std::string> SchemaErrors(const std::string& config) { return Brief(WithConfig(config).errors); }
Manifest Good(const std::string& config) {
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

std::vector<std::string> ValueErrors(const std::string& config) { return Brief(EffectiveConfig(Good(kSchema), config).errors); }

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
  const Manifest m = Good(kSchema);
  const ConfigResult result = EffectiveConfig(m, R"({"host":"https://h/","on":false})");
  EXPECT_THAT(Brief(result.errors), IsEmpty());
  EXPECT_EQ(json::parse(result.effective_json), json::parse(R"({"host":"https://h/","hours":8,"on":false})"));
  // null is "not set".
  EXPECT_EQ(json::parse(EffectiveConfig(m, R"({"host":"https://h/","hours":null})").effective_json)["hours"], 8);
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
       EffectiveConfig(Good(kSchema), R"({"host":"hunter2","secret":["hunter2"],"code":"hunter2","size":"hunter2"})").errors) {
    EXPECT_EQ(f.message.find("hunter2"), std::string::npos) << f.message;
  }
}

TEST(EffectiveConfig, APatternOfAnAttackerCostsNoTime) {
  const Manifest m = Good(R"({"schema":{"a":{"type":"string","validation":{"pattern":"^(a+)+$"}}}})");
  EXPECT_THAT(Brief(EffectiveConfig(m, "{\"a\":\"" + std::string(50'000, 'a') + "!\"}").errors),
              ElementsAre("/a PATTERN_MISMATCH"));
}

TEST(EffectiveConfig, WithoutASchemaAnyObjectIsTaken) {
  const ConfigResult result = EffectiveConfig(Good(R"({"defaults":{"x":{"y":1}}})"), R"({"z":[1]})");
  EXPECT_THAT(Brief(result.errors), IsEmpty());
  EXPECT_EQ(json::parse(result.effective_json), json::parse(R"({"x":{"y":1},"z":[1]})"));
}

TEST(MaskConfig, SensitiveValuesAreHiddenAndOthersShown) {
  const Manifest m = Good(kSchema);
  EXPECT_EQ(json::parse(MaskConfig(m, R"({"host":"http://h","secret":"s","key":{"nested":1},"hours":3})")),
            json::parse(R"({"host":"http://h","secret":"********","key":"********","hours":3})"));
  EXPECT_EQ(MaskConfig(m, R"({"secret":null})"), R"({"secret":null})");
  EXPECT_EQ(MaskConfig(m, "garbage"), "{}");
}

}  // namespace
}  // namespace bulkhead
