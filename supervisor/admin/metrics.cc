#include "supervisor/admin/metrics.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>

#include "supervisor/admin/json.h"
#include "supervisor/base/text.h"
#include "supervisor/telemetry/exposition.h"

namespace bulkhead {
namespace {

bool OfModule(const RouteMeter& meter) { return meter.module != kAdminLabel && meter.module != kNoModule; }

// One that is to run: those whose health is shown, too.
bool ToRun(const ModuleView& view) { return view.desired_enabled && view.observed != ObservedState::kSkipped; }

double Rounded(double ms) { return std::round(ms * 1000) / 1000; }

struct Traffic {
  uint64_t requests = 0, errors = 0;
  Latency latency;
  void Add(const RouteMeter::Totals& totals) {
    requests += totals.requests();
    errors += totals.by_class[5];
    latency.Add(totals.latency);
  }
};

void FillTimes(const Latency& latency, admin::v1::ResponseTimes& times) {
  times.set_p50(Rounded(latency.quantile_ms(0.5)));
  times.set_p90(Rounded(latency.quantile_ms(0.9)));
  times.set_p95(Rounded(latency.quantile_ms(0.95)));
  times.set_p99(Rounded(latency.quantile_ms(0.99)));
}

void FillWorker(const WorkerSurvey::Worker& worker, admin::v1::WorkerMetrics& out) {
  const auto& values = worker.values;
  out.set_slot(worker.slot);
  out.set_instance(worker.instance);
  out.set_answered(worker.answered);
  if (worker.at) *out.mutable_at() = ToTimestamp(*worker.at);
  out.set_age_ms(double(worker.age.count()));
  out.set_request_count(values.request_count());
  out.set_error_count(values.error_count());
  out.set_avg_response_time(values.avg_response_time());
  out.set_active_workers(values.active_workers());
  out.set_cache_hit_rate(values.cache_hit_rate());
  out.mutable_event_count()->set_published(values.event_count().published());
  out.mutable_event_count()->set_received(values.event_count().received());
  for (const auto& [name, value] : values.custom()) {
    if (std::isfinite(value)) (*out.mutable_custom())[ValidUtf8(name)] = value;  // JSON has no other numbers
  }
}

void FillRate(admin::v1::CacheLevel& level) {
  const int64_t lookups = level.hits() + level.misses();
  level.set_hit_rate(lookups == 0 ? 0 : Rounded(100.0 * double(level.hits()) / double(lookups)));
}

// What it misses it has asked of the next level.
void AddLevelOne(const module::v1::CacheCount& count, admin::v1::CacheLevel& level) {
  level.set_hits(level.hits() + count.hits());
  level.set_misses(level.misses() + count.shared_hits() + count.misses());
  level.set_evictions(level.evictions() + count.evictions());
  level.set_bytes(level.bytes() + count.bytes());
  level.set_entries(level.entries() + count.entries());
  FillRate(level);
}

void FillLevelTwo(const CacheUsage& usage, admin::v1::CacheLevel& level) {
  level.set_hits(usage.hits);
  level.set_misses(usage.misses);
  level.set_evictions(usage.evictions);
  level.set_bytes(int64_t(usage.bytes));
  level.set_entries(int64_t(usage.entries));
  FillRate(level);
}

void FillRedis(const CacheUsage& usage, admin::v1::CacheLevel& level) {
  level.set_hits(usage.redis_hits);
  level.set_misses(usage.redis_misses);
  FillRate(level);
}

void AddWorker(const WorkerSurvey::Worker& worker, admin::v1::ModuleMetrics& module) {
  const auto& values = worker.values;
  FillWorker(worker, *module.add_workers());
  module.set_active_workers(module.active_workers() + values.active_workers());
  auto& events = *module.mutable_event_count();
  events.set_published(events.published() + values.event_count().published());
  events.set_received(events.received() + values.event_count().received());
  // The mean so far, moved on by one.
  if (std::isfinite(values.cache_hit_rate()))
    module.set_cache_hit_rate(module.cache_hit_rate() + (values.cache_hit_rate() - module.cache_hit_rate()) / module.workers_size());
  AddLevelOne(values.cache(), *module.mutable_cache()->mutable_level_one());
}

}  // namespace

void ReadMetrics(const MetricsSources& sources, Modules& modules, const Clock& clock, MetricsRead done) {
  const Instant asked = clock.Now();
  modules.List([workers = sources.workers, asked, &clock, done = std::move(done)](absl::StatusOr<std::vector<ModuleView>> views) {
    if (!views.ok()) return done(views.status());
    MetricsReading reading;
    reading.loop_lag_seconds = std::chrono::duration<double>(clock.Now() - asked).count();
    reading.modules = *std::move(views);
    if (workers == nullptr) return done(std::move(reading));
    auto shared = std::make_shared<MetricsReading>(std::move(reading));
    workers->Ask([shared, done](std::vector<WorkerSurvey::Worker> told) {
      shared->workers = std::move(told);
      done(std::move(*shared));
    });
  });
}

admin::v1::SystemMetrics ToSystemMetrics(const MetricsSources& sources, const MetricsReading& reading, WallTime now) {
  std::map<std::string, Traffic> by_module;
  Traffic all;
  if (sources.gateway) {
    for (const RouteMeter* meter : sources.gateway->Routes()) {
      if (!OfModule(*meter)) continue;
      const RouteMeter::Totals totals = meter->Sum();
      by_module[meter->module].Add(totals);
      all.Add(totals);
    }
  }
  admin::v1::SystemMetrics answer;
  answer.set_total_requests(int64_t(all.requests));
  answer.set_total_errors(int64_t(all.errors));
  answer.set_avg_response_time(Rounded(all.latency.mean_ms()));
  FillTimes(all.latency, *answer.mutable_response_times());
  for (const ModuleView& view : reading.modules) {
    if (!ToRun(view)) continue;
    const Traffic& traffic = by_module[view.row.name];
    admin::v1::ModuleMetrics& module = (*answer.mutable_modules())[view.row.name];
    module.set_request_count(int64_t(traffic.requests));
    module.set_error_count(int64_t(traffic.errors));
    module.set_avg_response_time(Rounded(traffic.latency.mean_ms()));
    FillTimes(traffic.latency, *module.mutable_response_times());
    module.mutable_event_count();  // zeros, and no null
    module.mutable_cache()->mutable_level_one();
    module.mutable_cache()->mutable_level_two();
    module.mutable_cache()->mutable_redis();
    for (const WorkerView& worker : view.workers) {
      const bool ready = !worker.spare && (worker.state == ObservedState::kRunning || worker.state == ObservedState::kDegraded);
      if (ready) module.set_ready_workers(module.ready_workers() + 1);
    }
  }
  for (const WorkerSurvey::Worker& worker : reading.workers) {
    const auto module = answer.mutable_modules()->find(worker.module);
    if (module != answer.mutable_modules()->end()) AddWorker(worker, module->second);
  }
  if (sources.cache) {
    for (const CacheUsage& usage : sources.cache->Usage()) {
      const auto module = answer.mutable_modules()->find(usage.module);
      if (module == answer.mutable_modules()->end()) continue;
      FillLevelTwo(usage, *module->second.mutable_cache()->mutable_level_two());
      FillRedis(usage, *module->second.mutable_cache()->mutable_redis());
    }
  }
  *answer.mutable_collected_at() = ToTimestamp(now);
  return answer;
}

}  // namespace bulkhead
