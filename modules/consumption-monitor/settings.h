// The module's configuration as a value.
#pragma once

#include <chrono>
#include <cstdint>

#include "bulkhead/errors.h"
#include "infrastructure/host.h"

namespace consumption {

struct Settings {
  HostOptions host;
  int64_t max_rows = 1000;
  std::chrono::seconds stale_after{300};  // five periods of the job's schedule
};

// From a configuration that the supervisor has checked against the manifest's schema; absent fields keep their defaults. Throws
// ConfigError for values that the schema would have refused.
Settings ParseSettings(const bulkhead::sdk::Json& config);

}  // namespace consumption
