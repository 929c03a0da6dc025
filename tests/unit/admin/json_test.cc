#include "supervisor/admin/json.h"

#include "bulkhead/admin/v1/jobs.pb.h"
#include "bulkhead/admin/v1/modules.pb.h"
#include "bulkhead/admin/v1/system.pb.h"
#include "bulkhead/admin/v1/tokens.pb.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "supervisor/base/text.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

std::string Print(const google::protobuf::Message& message) {
  std::string out;
  PrintMessage(message, out);
  return out;
}

std::string Echo(const std::string& text) {
  const auto json = ParseJson(text);
  if (!json.ok()) return ErrorCode(json.status());
  google::protobuf::Value value;
  FromJson(*json, value);
  return Print(value);
}

// Code and pointer of what is wrong with a body.
template <typename Message>
std::string Read(const std::string& text, Message& message) {
  const auto json = ParseJson(text);
  if (!json.ok()) return ErrorCode(json.status()) + ": " + std::string(json.status().message());
  const absl::Status read = ReadMessage(*json, message);
  return read.ok() ? "ok" : ErrorCode(read) + " " + ErrorDetails(read)[0].path + ": " + std::string(read.message());
}

TEST(Print, ShowsEveryFieldOfAnEmptyMessage) {
  EXPECT_EQ(Print(admin::v1::Observed()), R"({"state":"UNSPECIFIED","generation":0,"since":null,"node":"","reason":null})");
  EXPECT_EQ(Print(admin::v1::ListModulesResponse()), R"({"modules":[],"meta":null})");
}

TEST(Print, WritesNumbersTimesEnumsAndMapsAsTheInterfaceHasThem) {
  admin::v1::Observed observed;
  observed.set_state(admin::v1::ObservedState::QUARANTINED);
  observed.set_generation(9007199254740993);
  observed.mutable_since()->set_seconds(1768058276);
  observed.mutable_since()->set_nanos(967'999'999);
  observed.mutable_reason()->set_message("a \"quote\", a \\ and a\nline \x01 €");
  EXPECT_EQ(Print(observed),
            R"({"state":"QUARANTINED","generation":9007199254740993,"since":"2026-01-10T15:17:56.967Z","node":"",)"
            R"("reason":{"code":"","message":"a \"quote\", a \\ and a\nline \u0001 €"}})");
  admin::v1::SystemHealth health;
  (*(*health.mutable_modules())["b"].mutable_details())["db"].set_latency(0.25);
  (*health.mutable_modules())["a"].set_status("healthy");
  EXPECT_EQ(
      Print(health),
      R"({"status":"","modules":{"a":{"status":"healthy","observed":"UNSPECIFIED","details":{},"lastChecked":null},)"
      R"("b":{"status":"","observed":"UNSPECIFIED","details":{"db":{"status":"","latency":0.25,"message":""}},"lastChecked":null}},)"
      R"("checkedAt":null,"details":{}})");
}

TEST(Print, RepairsTextThatIsNotUtf8) {
  std::string out;
  PrintString("a\xff\xc0\x80z", out);
  EXPECT_EQ(nlohmann::json::parse(out).get<std::string>(), "a\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBDz");
}

TEST(Struct, ComesBackAsTheJsonItWas) {
  for (const char* text : {"{}", "[]", "null", "true", "\"\"", "0", "-1", "1.5", "9007199254740991", "-9007199254740991",
                           R"({"a":[1,{"b":null}],"c":"x"})"}) {
    EXPECT_EQ(Echo(text), text);
  }
  EXPECT_EQ(Echo("1.0"), "1");
  EXPECT_EQ(Echo("1e3"), "1000");
  EXPECT_EQ(Echo("-0.0"), "0");
  EXPECT_EQ(Echo("1e300"), "1e+300");
  google::protobuf::Struct manifest;
  FromJson(*ParseJson(R"({"timeout":30000,"ratio":0.5,"big":123456789012})"), manifest);
  EXPECT_EQ(ToJson(manifest).dump(), R"({"big":123456789012,"ratio":0.5,"timeout":30000})");
}

TEST(Struct, CutsWhatIsNestedTooDeepToTravel) {
  std::string deep;
  for (int i = 0; i < 100; ++i) deep += "{\"a\":";
  deep += "1" + std::string(100, '}');
  google::protobuf::Struct value;
  FromJson(nlohmann::json::parse(deep), value);
  admin::v1::ListModulesResponse response;
  *response.add_modules()->mutable_manifest() = value;
  admin::v1::ListModulesResponse back;
  EXPECT_TRUE(back.ParseFromString(response.SerializeAsString()));
  EXPECT_NE(Print(back).find("…"), std::string::npos);
}

TEST(Parse, NamesThePlaceOfAnError) {
  const auto parsed = ParseJson("{\"a\": 1,\n  \"b\" 2}");
  EXPECT_EQ(ErrorCode(parsed.status()), "INVALID_JSON");
  EXPECT_NE(std::string(parsed.status().message()).find("line 2, column 7"), std::string::npos) << parsed.status();
  for (const char* bad : {"{", "{\"manifest\": ", "\xff\xfe", "{'a':1}", "{} {}", "[1,]", "1e999", "nul", "\"\x01\"",
                          "\"\\ud800\"", "\"\xed\xa0\x80\""}) {
    EXPECT_EQ(ErrorCode(ParseJson(bad).status()), "INVALID_JSON") << bad;
  }
  EXPECT_EQ(*ParseJson(""), nlohmann::json::object());
  EXPECT_EQ(*ParseJson(" \n"), nlohmann::json::object());
}

TEST(Parse, EndsAtTheDepthLimitHoweverLargeTheBody) {
  EXPECT_TRUE(ParseJson(std::string(kMaxJsonDepth, '[') + std::string(kMaxJsonDepth, ']')).ok());
  EXPECT_EQ(ErrorCode(ParseJson(std::string(kMaxJsonDepth + 1, '[') + std::string(kMaxJsonDepth + 1, ']')).status()),
            "INVALID_ARGUMENT");
  EXPECT_FALSE(ParseJson(std::string(1 << 20, '[')).ok());
  // The deepest that is taken is read by protobuf as well.
  std::string deep = "{\"manifest\":";
  for (int i = 0; i < kMaxJsonDepth - 1; ++i) deep += "{\"a\":";
  deep += "1" + std::string(kMaxJsonDepth, '}');
  admin::v1::RegisterModuleRequest request, back;
  ASSERT_EQ(Read(deep, request), "ok");
  EXPECT_TRUE(back.ParseFromString(request.SerializeAsString()));
}

TEST(Read, FillsAMessage) {
  admin::v1::CreateTokenRequest request;
  ASSERT_EQ(Read(R"({"name":"x","permissions":["a:b","c:*"],"subject":null,"expiresAt":"2026-01-10T16:17:56.5+01:00"})", request),
            "ok");
  EXPECT_EQ(request.name(), "x");
  EXPECT_EQ(request.permissions_size(), 2);
  EXPECT_EQ(request.expires_at().seconds(), 1768058276);
  EXPECT_EQ(request.expires_at().nanos(), 500'000'000);
  admin::v1::RunJobRequest run;
  ASSERT_EQ(Read(R"({"payload":null})", run), "ok");
  EXPECT_TRUE(run.payload().has_null_value());
}

TEST(Read, RefusesUnknownFieldsAndWrongTypesWithTheirPointer) {
  admin::v1::CreateTokenRequest token;
  EXPECT_EQ(Read(R"({"nmae":"x"})", token),
            "INVALID_ARGUMENT /nmae: The field /nmae is not known; known are name, subject, permissions, expiresAt, roles.");
  EXPECT_EQ(Read(R"({"a/b~c":1})", token).substr(0, 25), "INVALID_ARGUMENT /a~1b~0c");
  EXPECT_EQ(Read(R"({"name":7})", token), "INVALID_ARGUMENT /name: The field /name must be a string, not a number.");
  EXPECT_EQ(Read(R"({"permissions":"a"})", token),
            "INVALID_ARGUMENT /permissions: The field /permissions must be an array, not a string.");
  EXPECT_EQ(Read(R"({"permissions":["a",{}]})", token),
            "INVALID_ARGUMENT /permissions/1: The field /permissions/1 must be a string, not an object.");
  EXPECT_EQ(Read(R"({"permissions":[null]})", token),
            "INVALID_ARGUMENT /permissions/0: The field /permissions/0 must be a string, not null.");
  for (const char* time : {"\"yesterday\"", "\"2026-13-01T00:00:00Z\"", "1", "\"0000-00-00T00:00:00Z\"", "\"infinite-future\""}) {
    EXPECT_EQ(Read("{\"expiresAt\":" + std::string(time) + "}", token).substr(0, 27), "INVALID_ARGUMENT /expiresAt") << time;
  }
  EXPECT_EQ(Read("[]", token), "INVALID_ARGUMENT : The body must be a JSON object, not an array.");
  admin::v1::RegisterModuleRequest reg;
  EXPECT_EQ(Read(R"({"manifest":[]})", reg), "INVALID_ARGUMENT /manifest: The field /manifest must be an object, not an array.");
  admin::v1::DeleteModuleRequest del;
  EXPECT_EQ(Read(R"({"purge":"true"})", del), "INVALID_ARGUMENT /purge: The field /purge must be true or false, not a string.");
  admin::v1::ListRunsRequest runs;
  EXPECT_EQ(Read(R"({"page":1.5})", runs), "INVALID_ARGUMENT /page: The field /page must be a whole number.");
  EXPECT_EQ(Read(R"({"page":2147483648})", runs), "INVALID_ARGUMENT /page: The field /page is out of range.");
  EXPECT_EQ(Read(R"({"page":18446744073709551615})", runs), "INVALID_ARGUMENT /page: The field /page is out of range.");
}

TEST(Time, StaysWithinWhatTheClockCounts) {
  google::protobuf::Timestamp far;
  far.set_seconds(253402300799);  // 9999-12-31
  EXPECT_GT(FromTimestamp(far), WallTime());
  const WallTime time = Clock::Real().Wall();
  EXPECT_EQ(FromTimestamp(ToTimestamp(time)), time);
  EXPECT_EQ(FromTimestamp(ToTimestamp(WallTime(Millis(-1500)))), WallTime(Millis(-1500)));
}

TEST(Utf8, KnowsValidText) {
  for (const char* good : {"", "a", "€", "😀", "\xed\x9f\xbf", "\xf4\x8f\xbf\xbf"}) EXPECT_TRUE(IsValidUtf8(good)) << good;
  for (const char* bad : {"\x80", "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xed\xa0\x80", "\xf0\x80\x80\x80", "\xf4\x90\x80\x80",
                          "\xf5\x80\x80\x80", "\xe2\x82", "a\xff"}) {
    EXPECT_FALSE(IsValidUtf8(bad)) << bad;
    EXPECT_TRUE(IsValidUtf8(ValidUtf8(bad)));
  }
}

TEST(PercentDecoding, RefusesBrokenEscapes) {
  EXPECT_EQ(PercentDecodeUtf8("a%20b+c", true), "a b c");
  EXPECT_EQ(PercentDecodeUtf8("a+c", false), "a+c");
  EXPECT_EQ(PercentDecodeUtf8("%E2%82%ac", true), "€");
  for (const char* bad : {"%", "%2", "%zz", "%ff", "a%"}) EXPECT_EQ(PercentDecodeUtf8(bad, true), std::nullopt) << bad;
}

}  // namespace
}  // namespace bulkhead
