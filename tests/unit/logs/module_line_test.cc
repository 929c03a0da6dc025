#include "supervisor/logs/module_line.h"

#include <gtest/gtest.h>

#include <functional>
#include <sstream>

#include "gmock/gmock.h"
#include "nlohmann/json.hpp"
#include "supervisor/base/text.h"

namespace bulkhead {
namespace {

using testing::ElementsAre;

// What the supervisor's log says, as its JSON lines.
std::vector<nlohmann::json> Logged(const std::function<void()>& write_lines) {
  ConfigureLog(LogLevel::kDebug, LogFormat::kJson);
  testing::internal::CaptureStderr();
  write_lines();
  std::istringstream in(testing::internal::GetCapturedStderr());
  ConfigureLog(LogLevel::kInfo, LogFormat::kText);
  std::vector<nlohmann::json> logged;
  for (std::string line; std::getline(in, line);) logged.push_back(nlohmann::json::parse(line));
  return logged;
}

void Say(std::string_view stream, std::string_view text) { LogModuleLine("orders", stream, ReadModuleLine(text)); }

TEST(ModuleLog, AJsonLineBecomesAStructuredLineOfTheModule) {
  auto logged = Logged([] {
    Say("stdout", R"({"level":"warn","message":"late","order":7,"ok":true,"who":"ann","nested":{"a":1},"time":"x"})");
    Say("stdout", R"({"level":50,"msg":"pino says"})");
  });
  ASSERT_EQ(logged.size(), 2u);
  EXPECT_EQ(logged[0]["component"], "module/orders");
  EXPECT_EQ(logged[0]["level"], "warn");
  EXPECT_EQ(logged[0]["message"], "late");
  EXPECT_EQ(logged[0]["order"], "7");
  EXPECT_EQ(logged[0]["ok"], "true");
  EXPECT_EQ(logged[0]["who"], "ann");
  EXPECT_EQ(logged[0]["module_time"], "x");
  EXPECT_FALSE(logged[0].contains("nested"));
  EXPECT_EQ(logged[1]["level"], "error");
  EXPECT_EQ(logged[1]["message"], "pino says");
}

TEST(ModuleLog, AnythingElseIsARawLineWithItsStream) {
  const std::vector<std::string> raw = {"plain text", "{\"level\":\"info\"}", "{not json", "[1,2]", "{\"level\":\"info\",\"message\":5}", "\xff\xfe"};
  auto logged = Logged([&] {
    for (const std::string& line : raw) Say("stderr", line);
    Say("stderr", "");
  });
  ASSERT_EQ(logged.size(), raw.size());
  for (size_t i = 0; i < raw.size(); ++i) {
    EXPECT_EQ(logged[i]["message"], ValidUtf8(raw[i]));
    EXPECT_EQ(logged[i]["stream"], "stderr");
    EXPECT_EQ(logged[i]["component"], "module/orders");
  }
}

TEST(ModuleLog, DeepAndHostileJsonIsHarmless) {
  auto logged = Logged([] {
    Say("stdout", std::string(10'000, '{'));
    Say("stdout", R"({"level":"info","message":"x","component":"auth","message2":"\u0000\n"})");
    std::string deep = R"({"level":"info","message":"deep","a":)";
    for (int i = 0; i < 5'000; ++i) deep += '[';
    for (int i = 0; i < 5'000; ++i) deep += ']';
    Say("stdout", deep + "}");
  });
  ASSERT_EQ(logged.size(), 3u);
  EXPECT_EQ(logged[1]["component"], "module/orders");
  EXPECT_EQ(logged[1]["module_component"], "auth");
}

std::vector<std::string> FieldsOf(const ModuleLine& line) {
  std::vector<std::string> fields;
  for (const auto& field : line.fields) fields.push_back(field.name + "=" + field.json);
  return fields;
}

TEST(ReadModuleLine, KeepsValuesAsTheyAreAndNestedOnesToo) {
  const ModuleLine line = ReadModuleLine(R"({"level":"error","msg":"no","n":1.5,"text":"a\"b","none":null,"in":{"a":[1,true]}})");
  EXPECT_TRUE(line.structured);
  EXPECT_EQ(line.level, LogLevel::kError);
  EXPECT_EQ(line.message, "no");
  EXPECT_THAT(FieldsOf(line), ElementsAre("in={\"a\":[1,true]}", "n=1.5", "none=null", "text=\"a\\\"b\""));
}

TEST(ReadModuleLine, CountsTheFieldsThatItLeavesOut) {
  nlohmann::json many = {{"level", "info"}, {"message", "many"}};
  for (int i = 0; i < 40; ++i) many["field" + std::to_string(100 + i)] = i;
  const ModuleLine line = ReadModuleLine(many.dump());
  ASSERT_EQ(line.fields.size(), 33u);
  EXPECT_EQ(line.fields.back().name, "fields_dropped");
  EXPECT_EQ(line.fields.back().json, "8");
}

TEST(ReadModuleLine, WhatIsNestedTooDeepIsRaw) {
  const auto nested = [](int depth) {
    return R"({"level":"info","message":"m","a":)" + std::string(size_t(depth), '[') + std::string(size_t(depth), ']') + "}";
  };
  EXPECT_TRUE(ReadModuleLine(nested(15)).structured);
  EXPECT_FALSE(ReadModuleLine(nested(16)).structured);
  EXPECT_EQ(ReadModuleLine(nested(16)).message, nested(16));
  // Brackets in a text are none.
  EXPECT_TRUE(ReadModuleLine(R"({"level":"info","message":"[[[[[[[[[[[[[[[[[[[[[[[[[[\"[[[[["})").structured);
}

TEST(ReadModuleLine, KnowsTheLevelsOfCommonLoggers) {
  const std::pair<const char*, LogLevel> levels[] = {
      {"\"TRACE\"", LogLevel::kDebug}, {"\"Debug\"", LogLevel::kDebug}, {"20", LogLevel::kDebug},       {"\"notice\"", LogLevel::kInfo},
      {"30", LogLevel::kInfo},         {"true", LogLevel::kInfo},       {"\"warning\"", LogLevel::kWarn}, {"40", LogLevel::kWarn},
      {"\"fatal\"", LogLevel::kError}, {"\"panic\"", LogLevel::kError}, {"60", LogLevel::kError}};
  for (const auto& [level, want] : levels) {
    EXPECT_EQ(ReadModuleLine("{\"message\":\"m\",\"level\":" + std::string(level) + "}").level, want) << level;
  }
}

}  // namespace
}  // namespace bulkhead
