// The module itself: puts the parts together. Its parts are made in Initialize and live until the process ends.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "bulkhead/module.h"
#include "infrastructure/repository.h"
#include "settings.h"

namespace consumption {

// Healthy when `latest`, the newest reading, is at most `stale_after` old, or when so much time has not passed since `started`:
// a module that was off for a day is not stale the moment it comes back.
bulkhead::sdk::HealthResult CollectionHealth(std::optional<Timestamp> latest, Timestamp started, Timestamp now,
                                             std::chrono::seconds stale_after);

class ConsumptionModule : public bulkhead::sdk::Module {
 public:
  void Initialize(bulkhead::sdk::Context& context) override;
  std::optional<std::string> OnConfigure(const bulkhead::sdk::Json& config, int64_t revision) override;

 private:
  Settings settings() const;

  std::unique_ptr<Repository> repository_;  // constant after Initialize
  mutable std::mutex mutex_;
  Settings settings_;                       // guarded by mutex_
};

}  // namespace consumption
