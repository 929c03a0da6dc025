// The module's manifest is valid for the supervisor, without a warning, and says what the module does.
#include "supervisor/manifest/manifest.h"

#include <gmock/gmock.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "settings.h"

namespace consumption {
namespace {

bulkhead::ManifestResult Parse() {
  std::ostringstream text;
  text << std::ifstream(CONSUMPTION_SOURCE "/manifest.json").rdbuf();
  return bulkhead::ParseManifest(text.str(), false);
}

TEST(ConsumptionManifest, HasNoErrorAndNoWarning) {
  const auto result = Parse();
  for (const auto& finding : result.errors) ADD_FAILURE() << finding.path << ": " << finding.message;
  for (const auto& finding : result.warnings) ADD_FAILURE() << finding.path << ": " << finding.message;
  ASSERT_TRUE(result.manifest);
  EXPECT_EQ(result.manifest->name, "consumption-monitor");
  EXPECT_EQ(result.manifest->routes.size(), 4u);
  EXPECT_TRUE(result.manifest->has_database);
  ASSERT_EQ(result.manifest->jobs.size(), 1u);
  EXPECT_EQ(result.manifest->jobs[0].name, "collect-readings");
  EXPECT_EQ(result.manifest->jobs[0].schedule, "* * * * *");
}

TEST(ConsumptionManifest, HasTheDefaultsThatTheCodeHas) {
  const auto result = Parse();
  ASSERT_TRUE(result.manifest);
  const auto config = bulkhead::EffectiveConfig(*result.manifest, "{}");
  EXPECT_TRUE(config.errors.empty());
  const Settings settings = ParseSettings(bulkhead::sdk::Json::parse(config.effective_json)), defaults;
  EXPECT_EQ(settings.max_rows, defaults.max_rows);
  EXPECT_EQ(settings.stale_after, defaults.stale_after);
  EXPECT_EQ(settings.host.disks, defaults.host.disks);
}

TEST(ConsumptionManifest, RefusesAConfigurationThatTheCodeWouldRefuse) {
  const auto result = Parse();
  ASSERT_TRUE(result.manifest);
  EXPECT_FALSE(bulkhead::EffectiveConfig(*result.manifest, R"({"maxRows": 0})").errors.empty());
  EXPECT_FALSE(bulkhead::EffectiveConfig(*result.manifest, R"({"maxRows": 10.5})").errors.empty());
  EXPECT_FALSE(bulkhead::EffectiveConfig(*result.manifest, R"({"staleAfterSeconds": 60.5})").errors.empty());
  EXPECT_TRUE(bulkhead::EffectiveConfig(*result.manifest, R"({"maxRows": 10.0, "staleAfterSeconds": 61})").errors.empty());
  EXPECT_FALSE(bulkhead::EffectiveConfig(*result.manifest, R"({"diskDevices": "sd;x"})").errors.empty());
  EXPECT_TRUE(bulkhead::EffectiveConfig(*result.manifest, R"({"diskDevices": "sd*, nvme?n1"})").errors.empty());
}

}  // namespace
}  // namespace consumption
