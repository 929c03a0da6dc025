// What SIGHUP may change, and what it refuses as a whole.
#include "supervisor/reconfigure.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "supervisor/base/status.h"
#include "supervisor/shutdown_report.h"

namespace bulkhead {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

class ReconfigureTest : public testing::Test {
 protected:
  ReconfigureTest() {
    char name[] = "/tmp/bulkhead-config-XXXXXX";
    folder_ = mkdtemp(name);
  }
  ~ReconfigureTest() override { std::filesystem::remove_all(folder_); }

  Config Of(const std::string& text, std::map<std::string, std::string> environment = {}) {
    std::ofstream(folder_ + "/b.yaml") << text;
    const char* arguments[] = {"bulkhead", "serve", "--config", "b.yaml"};
    auto line = ParseCommandLine(4, arguments, environment, false, folder_);
    EXPECT_TRUE(line.ok()) << line.status();
    return line.ok() ? line->config : Config();
  }
  static std::vector<std::string> Keys(const ConfigDelta& delta) {
    std::vector<std::string> keys;
    for (const auto& changed : delta.changed) keys.push_back(changed.key);
    return keys;
  }

  std::string folder_;
};

TEST_F(ReconfigureTest, TheSameAgainChangesNothing) {
  const std::string text = "log: {level: warn}\nflags: {a: true}\nmodules: {orders: {enabled: true}}\n";
  auto delta = CompareConfigs(Of(text), Of(text));
  ASSERT_TRUE(delta.ok()) << delta.status();
  EXPECT_TRUE(delta->changed.empty());
  EXPECT_FALSE(delta->log || delta->flags || delta->jwt || delta->extensions);
}

TEST_F(ReconfigureTest, LogFlagsExtensionsAndIssuersChangeWithoutARestart) {
  const Config before = Of("log: {level: info}\nflags: {a: true, gone: true}\n");
  auto delta = CompareConfigs(before, Of("log: {level: debug, format: json}\nflags: {a: false, b: true}\nstore: {extensions: [citext]}\n"
                                         "auth: {jwt: {issuer: someone}}\n"));
  ASSERT_TRUE(delta.ok()) << delta.status();
  EXPECT_THAT(Keys(*delta), ElementsAre("store.extensions", "log.level", "log.format", "flags.a", "flags.b", "flags.gone", "auth.jwt"));
  EXPECT_TRUE(delta->log && delta->flags && delta->jwt && delta->extensions);
  EXPECT_EQ(delta->changed[1].before, "info");
  EXPECT_EQ(delta->changed[1].after, "debug");
  EXPECT_EQ(delta->changed[5].after, "not set");
}

TEST_F(ReconfigureTest, EachOtherKeyIsRefusedWithItsPlace) {
  const Config before = Of("");
  for (const std::string line : {"listen: 127.0.0.1:1", "adminListen: 127.0.0.1:2", "data: /elsewhere", "modulesDir: /elsewhere",
                                 "store: {url: 'postgresql://somebody:secret@elsewhere/x'}", "store: {migrationTimeout: 3s}", "discovery: {development: true}",
                                 "events: {keep: 3h}", "events: {keepUnread: 3h}",
                                 "boot: {onCriticalFailure: degraded}", "isolation: {uids: 300000-300100}", "isolation: {off: [tmp]}", "log: {access: all}",
                                 "log: {moduleFiles: 9}", "log: {moduleFileSize: 9MiB}", "telemetry: {otlp: {endpoint: 'http://127.0.0.1:4318'}}",
                                 "telemetry: {otlp: {headers: ['a=secret']}}", "telemetry: {otlp: {sampleRatio: 0.5}}", "modules: {orders: {enabled: true}}"}) {
    auto delta = CompareConfigs(before, Of("flags: {a: true}\n" + line + "\n"));
    ASSERT_FALSE(delta.ok()) << line;
    EXPECT_EQ(ErrorCode(delta.status()), "CONFIG_INVALID");
    const std::string key = line.substr(0, line.find(':'));
    EXPECT_THAT(std::string(delta.status().message()), AllOf(HasSubstr("b.yaml:2: " + key), HasSubstr("restart"), Not(HasSubstr("secret")))) << line;
  }
}

TEST_F(ReconfigureTest, OfSeveralThatNeedARestartEachIsNamed) {
  auto delta = CompareConfigs(Of(""), Of("listen: 127.0.0.1:1\nmodules: {orders: {enabled: true}}\n"));
  ASSERT_FALSE(delta.ok());
  const auto details = ErrorDetails(delta.status());
  ASSERT_EQ(details.size(), 2u);
  EXPECT_THAT(details[0].path, HasSubstr("b.yaml:1: listen"));
  EXPECT_THAT(details[1].path, HasSubstr("b.yaml:2: modules.orders"));
  EXPECT_THAT(details[1].message, HasSubstr("first registration"));
}

TEST_F(ReconfigureTest, AKeyThatIsGoneFromTheFileIsNamedWithTheFile) {
  auto delta = CompareConfigs(Of("boot: {onCriticalFailure: degraded}\n"), Of(""));
  ASSERT_FALSE(delta.ok());
  EXPECT_THAT(std::string(delta.status().message()), HasSubstr("/b.yaml: boot.onCriticalFailure"));
}

TEST_F(ReconfigureTest, WhatAVariableSetsTheFileDoesNotChange) {
  const std::map<std::string, std::string> environment = {{"BULKHEAD_LOG_LEVEL", "error"}, {"BULKHEAD_LISTEN", "127.0.0.1:7"}};
  auto delta = CompareConfigs(Of("log: {level: info}\n", environment), Of("log: {level: debug}\nlisten: 127.0.0.1:9\n", environment));
  ASSERT_TRUE(delta.ok()) << delta.status();
  EXPECT_TRUE(delta->changed.empty());
}

TEST(ShutdownReportTest, ASilentOneIsEmpty) {
  ShutdownReport report;
  EXPECT_TRUE(report.empty());
  report.Add("initdb.1", {{"5 initdb", true}});
  report.Add("initdb-sync.1", {{"6 initdb", true}});
  EXPECT_TRUE(report.empty()) << "initdb is nobody's loss";
  report.Add("orders.0.1", {});
  EXPECT_TRUE(report.empty());
}

TEST(ShutdownReportTest, WhatWasKilledIsNamedWithItsModuleAndTheReason) {
  ShutdownReport report;
  report.Add("orders.0.3f2a", {{"4711 orders", true}, {"4712 sleep", false}});
  report.Because("a second signal");
  report.Add("billing.1.77aa", {{"9 billing", true}});
  EXPECT_EQ(report.modules(), "billing, orders");
  EXPECT_EQ(report.processes(),
            "orders: 4711 orders (did not end when asked), 4712 sleep (left behind by it); billing: 9 billing (because of a second signal)");
  EXPECT_EQ(report.left(), "");
  EXPECT_FALSE(report.something_stuck());
}

TEST(ShutdownReportTest, WhatCouldNotBeEndedIsNamedToo) {
  ShutdownReport report;
  report.Stuck("orders.0.3f2a");
  report.LeftBehind({"pricing (process 12)"});
  EXPECT_TRUE(report.something_stuck());
  EXPECT_EQ(report.modules(), "orders, pricing");
  EXPECT_EQ(report.left(), "pricing (process 12)");
}

}  // namespace
}  // namespace bulkhead
