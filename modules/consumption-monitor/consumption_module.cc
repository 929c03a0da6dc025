#include "consumption_module.h"

#include <algorithm>

#include "api/collect_job.h"
#include "api/routes.h"

namespace consumption {
namespace {

Timestamp Now() { return std::chrono::floor<std::chrono::microseconds>(std::chrono::system_clock::now()); }

}  // namespace

bulkhead::sdk::HealthResult CollectionHealth(std::optional<Timestamp> latest, Timestamp started, Timestamp now,
                                             std::chrono::seconds stale_after) {
  const Timestamp since = std::max(latest.value_or(started), started);
  const auto age = std::chrono::floor<std::chrono::seconds>(now - since);
  if (age <= stale_after) return {};
  return {bulkhead::sdk::HealthStatus::kDegraded, "No reading was collected for " + std::to_string(age.count()) +
                                                      " s; look at the runs of the job collect-readings."};
}

void ConsumptionModule::Initialize(bulkhead::sdk::Context& context) {
  settings_ = ParseSettings(context.config());
  repository_ = std::make_unique<Repository>(context.database());
  AddRoutes(context.router(), *repository_, [this] { return settings().max_rows; }, Now);

  auto& collected = context.counter("readings_collected");
  context.jobs().Handle("collect-readings", [this, &collected](bulkhead::sdk::JobContext& run) {
    const HostOptions options = settings().host;
    auto result = CollectReadings(run, *repository_, [&] { return MeasureHost(options); });
    collected.Add(result["readings"].get<double>());
    return result;
  });

  context.AddHealthCheck("collection", [this, started = Now()] {
    return CollectionHealth(repository_->LatestTime(kHostEndpoint), started, Now(), settings().stale_after);
  });
}

std::optional<std::string> ConsumptionModule::OnConfigure(const bulkhead::sdk::Json& config, int64_t) {
  try {
    Settings changed = ParseSettings(config);
    std::lock_guard lock(mutex_);
    settings_ = std::move(changed);
    return std::nullopt;
  } catch (const bulkhead::sdk::ConfigError& error) {
    return error.what();
  }
}

Settings ConsumptionModule::settings() const {
  std::lock_guard lock(mutex_);
  return settings_;
}

}  // namespace consumption
