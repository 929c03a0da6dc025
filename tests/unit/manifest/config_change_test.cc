// Changes of a configuration: merge patch, secrets that come back masked, what an audit shows; and durations.
#include "supervisor/manifest/config_change.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "supervisor/base/random.h"
#include "supervisor/base/status.h"
#include "supervisor/base/duration.h"

namespace bulkhead {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::Not;

Manifest Module() {
  const ManifestResult result = ParseManifestJson(json::parse(R"({"name": "m", "version": "1.0.0", "config": {"schema": {
    "host": {"type": "string"}, "port": {"type": "integer", "default": 1}, "key": {"type": "password"},
    "tls": {"type": "json", "sensitive": true}, "other": {"type": "json"}}}})"));
  EXPECT_TRUE(result.manifest);
  return result.manifest.value_or(Manifest());
}

TEST(MergePatch, FollowsTheExamplesOfRfc7396) {
  // Appendix A, those about objects.
  const std::array<const char*, 3> examples[] = {{R"({"a":"b"})", R"({"a":"c"})", R"({"a":"c"})"},
                                                 {R"({"a":"b"})", R"({"b":"c"})", R"({"a":"b","b":"c"})"},
                                                 {R"({"a":"b"})", R"({"a":null})", R"({})"},
                                                 {R"({"a":"b","b":"c"})", R"({"a":null})", R"({"b":"c"})"},
                                                 {R"({"a":["b"]})", R"({"a":"c"})", R"({"a":"c"})"},
                                                 {R"({"a":"c"})", R"({"a":["b"]})", R"({"a":["b"]})"},
                                                 {R"({"a":{"b":"c"}})", R"({"a":{"b":"d","c":null}})", R"({"a":{"b":"d"}})"},
                                                 {R"({"a":[{"b":"c"}]})", R"({"a":[1]})", R"({"a":[1]})"},
                                                 {R"({"e":null})", R"({"a":1})", R"({"e":null,"a":1})"},
                                                 {R"({})", R"({"a":{"bb":{"ccc":null}}})", R"({"a":{"bb":{}}})"}};
  for (const auto& [target, patch, expected] : examples) {
    const auto merged = MergePatch(target, patch);
    ASSERT_TRUE(merged.ok()) << merged.status();
    EXPECT_EQ(json::parse(*merged), json::parse(expected)) << target << " with " << patch;
  }
  EXPECT_EQ(*MergePatch("", ""), "{}");
  EXPECT_EQ(*MergePatch("null", R"({"a":1})"), R"({"a":1})");
}

TEST(MergePatch, RefusesWhatIsNoConfigurationWithoutRepeatingIt) {
  for (const char* wrong : {"{\"hunter2", "[\"hunter2\"]", "\"hunter2\"", "{\"a\":hunter2}"}) {
    for (const auto& merged : {MergePatch("{}", wrong), MergePatch(wrong, "{}")}) {
      EXPECT_EQ(ErrorCode(merged.status()), "CONFIG_INVALID") << wrong;
      EXPECT_THAT(merged.status().ToString(), Not(HasSubstr("hunter2")));
    }
  }
  std::string deep;
  for (int i = 0; i < 50'000; ++i) deep += "{\"a\":";
  EXPECT_EQ(ErrorCode(MergePatch("{}", deep).status()), "CONFIG_INVALID");
}

TEST(KeepMasked, ASecretThatComesBackMaskedStaysAsItIs) {
  const Manifest m = Module();
  const char stored[] = R"({"host":"h","key":"s3cret","tls":{"pem":"x"}})";
  EXPECT_EQ(json::parse(KeepMasked(m, stored, MaskConfig(m, stored))), json::parse(stored));
  EXPECT_EQ(json::parse(KeepMasked(m, stored, R"({"key":"new","tls":"********"})")),
            json::parse(R"({"key":"new","tls":{"pem":"x"}})"));
  // Nothing stored: the default, or nothing, and not eight stars.
  EXPECT_EQ(KeepMasked(m, "{}", R"({"key":"********"})"), "{}");
  // What is no secret may be stars.
  EXPECT_EQ(KeepMasked(m, stored, R"({"host":"********"})"), R"({"host":"********"})");
  // Setting it to nothing is no masked value.
  EXPECT_EQ(KeepMasked(m, stored, R"({"key":null})"), R"({"key":null})");
  EXPECT_EQ(KeepMasked(m, stored, "garbage"), "garbage");
}

TEST(KeepsSecrets, WhenOneIsAskedForThatIsStoredInWhateverForm) {
  const Manifest m = Module();
  const std::string stored = R"({"host":"a","key":{"$sealed":"v1.x"}})";
  EXPECT_TRUE(KeepsSecrets(m, stored, R"({"key":"********"})"));
  EXPECT_FALSE(KeepsSecrets(m, stored, R"({"key":"new","tls":"********"})")) << "tls is not stored: its default shows through";
  EXPECT_FALSE(KeepsSecrets(m, stored, R"({"host":"********"})")) << "no secret";
  EXPECT_FALSE(KeepsSecrets(m, stored, "{}"));
  EXPECT_FALSE(KeepsSecrets(m, stored, "garbage"));
}

TEST(MaskedDiff, TellsWhatChangedAndNoSecret) {
  const Manifest m = Module();
  EXPECT_EQ(json::parse(MaskedDiff(m, R"({"host":"a","port":1,"key":"one","tls":{"x":1}})",
                                   R"({"host":"b","port":1,"key":"two","other":[1]})")),
            json::parse(R"({"host":{"from":"a","to":"b"},"key":{"from":"********","to":"********"},
                            "tls":{"from":"********","to":null},"other":{"from":null,"to":[1]}})"));
  EXPECT_EQ(MaskedDiff(m, R"({"key":"one"})", R"({"key":"one"})"), "{}");
  EXPECT_EQ(MaskedDiff(m, "", ""), "{}");
  // A field that the schema does not know may have been a secret of an earlier version.
  EXPECT_THAT(MaskedDiff(m, R"({"old":"hunter2"})", "{}"), Not(HasSubstr("hunter2")));
  EXPECT_THAT(MaskConfig(m, R"({"old":"hunter2"})"), Not(HasSubstr("hunter2")));
}

TEST(SecretTexts, AreWhatMustNotBeSeenAsItIsAndAsJsonWritesIt) {
  const Manifest m = Module();
  const auto texts = [&](const char* config) { return SecretTexts(m, config); };
  EXPECT_THAT(texts(R"({"host":"a long host name","key":"correct horse"})"), testing::ElementsAre("correct horse"));
  EXPECT_THAT(texts(R"({"key":"say \"friend\""})"), testing::ElementsAre("say \"friend\"", R"(say \"friend\")"));
  EXPECT_THAT(texts(R"({"tls":{"pem":["BEGIN KEY",12345678],"on":true}})"), testing::UnorderedElementsAre("BEGIN KEY", "12345678"));
  EXPECT_THAT(texts(R"({"old":"no field any more"})"), testing::ElementsAre("no field any more"));
  EXPECT_THAT(texts(R"({"key":"short"})"), testing::IsEmpty());
  EXPECT_THAT(texts("garbage"), testing::IsEmpty());
}

TEST(Secrets, AppearNowhereWhateverTheyAre) {
  const Manifest m = Module();
  Random random(3);
  const json values[] = {"hunter2", 7777777, json{{"a", "hunter2"}}, json::array({"hunter2"}),
                         json{{"b", json::array({7777777})}}};
  for (int round = 0; round < 300; ++round) {
    auto config = [&] {
      json all = json::object();
      for (const char* name : {"key", "tls", "gone"}) {
        if (random.Below(3) > 0) all[name] = values[random.Below(std::size(values))];
      }
      return all.dump();
    };
    const std::string before = config(), after = config();
    std::string told = MaskConfig(m, before) + MaskedDiff(m, before, after);
    for (const Finding& f : EffectiveConfig(m, before).errors) told += f.path + f.message;
    EXPECT_THAT(told, Not(HasSubstr("hunter2")));
    EXPECT_THAT(told, Not(HasSubstr("7777777")));
  }
}

TEST(Duration, IsReadAsPeopleWriteIt) {
  const std::pair<const char*, int64_t> good[] = {{"1500ms", 1500},
                                                  {"30s", 30'000},
                                                  {"2m", 120'000},
                                                  {"1h30m", 5'400'000},
                                                  {"0s", 0},
                                                  {"7d", 604'800'000},
                                                  {"1m1ms", 60'001},
                                                  {"90m", 5'400'000},
                                                  {"007s", 7'000},
                                                  {"1d2h3m4s5ms", 93'784'005},
                                                  {"3650d", kMaxDuration.count()}};
  for (const auto& [text, ms] : good) {
    const auto parsed = ParseDuration(text);
    ASSERT_TRUE(parsed) << text;
    EXPECT_EQ(parsed->count(), ms) << text;
  }
  for (const char* text : {"",
                           "5",
                           "s",
                           "-5s",
                           "+5s",
                           "5 s",
                           " 5s",
                           "5s ",
                           "1.5h",
                           "5S",
                           "5min",
                           "30m1h",
                           "1s1s",
                           "1ms1s",
                           "5sm",
                           "3650d1ms",
                           "3651d",
                           "99999999999999999999s",
                           "9223372036854775807d",
                           "1h30"}) {
    EXPECT_FALSE(ParseDuration(text)) << text;
  }
}

}  // namespace
}  // namespace bulkhead
