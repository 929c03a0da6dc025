// The two pages of metrics: GET /api/v1/system/metrics and GET /metrics, from what each part counts. Thread-safe.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "bulkhead/admin/v1/system.pb.h"
#include "supervisor/admin/worker_survey.h"
#include "supervisor/base/blocking_pool.h"
#include "supervisor/cache/shared_cache.h"
#include "supervisor/lifecycle/modules.h"
#include "supervisor/store/database.h"
#include "supervisor/telemetry/access_log.h"
#include "supervisor/telemetry/job_meters.h"
#include "supervisor/telemetry/meters.h"
#include "supervisor/telemetry/tracer.h"

namespace bulkhead {

// Who is asked; what is null has nothing to say. All outlive the admin API.
struct MetricsSources {
  WorkerSurvey* workers = nullptr;
  const GatewayMeters* gateway = nullptr;
  const JobMeters* jobs = nullptr;
  const Database* database = nullptr;
  const Tracer* tracer = nullptr;
  const AccessLog* access_log = nullptr;
  const SharedCache* cache = nullptr;
};

// What has to be waited for, at one moment.
struct MetricsReading {
  std::vector<ModuleView> modules;
  std::vector<WorkerSurvey::Worker> workers;
  double loop_lag_seconds = 0;  // until the control loop had answered
};
using MetricsRead = std::function<void(absl::StatusOr<MetricsReading>)>;
void ReadMetrics(const MetricsSources& sources, Modules& modules, const Clock& clock, MetricsRead done);

admin::v1::SystemMetrics ToSystemMetrics(const MetricsSources& sources, const MetricsReading& reading, WallTime now);
std::string ToPrometheus(const MetricsSources& sources, const MetricsReading& reading, const BlockingPool& pool, WallTime started_at);

}  // namespace bulkhead
