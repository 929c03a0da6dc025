#include "settings.h"

#include <cmath>
#include <string>

namespace consumption {
namespace {

using bulkhead::sdk::ConfigError;
using bulkhead::sdk::Json;

std::string Text(const Json& config, const char* name) {
  const auto field = config.find(name);
  if (field == config.end() || field->is_null()) return {};
  if (!field->is_string()) throw ConfigError(std::string(name) + " must be a text");
  return field->get<std::string>();
}

int64_t Whole(const Json& config, const char* name, int64_t fallback, int64_t min, int64_t max) {
  const auto field = config.find(name);
  if (field == config.end() || field->is_null()) return fallback;
  const double value = field->is_number() ? field->get<double>() : std::nan("");
  if (!(value >= double(min) && value <= double(max)) || std::trunc(value) != value) {
    throw ConfigError(std::string(name) + " must be a whole number from " + std::to_string(min) + " to " + std::to_string(max));
  }
  return int64_t(value);
}

}  // namespace

Settings ParseSettings(const Json& config) {
  const Settings defaults;
  Settings settings;
  settings.host.disks = Text(config, "diskDevices");
  settings.host.interfaces = Text(config, "networkInterfaces");
  settings.max_rows = Whole(config, "maxRows", defaults.max_rows, 1, 10'000);
  settings.stale_after = std::chrono::seconds(Whole(config, "staleAfterSeconds", defaults.stale_after.count(), 60, 86'400));
  return settings;
}

}  // namespace consumption
