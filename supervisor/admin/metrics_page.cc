// ToPrometheus(): names end in their unit, as promtool wants it; labels have few values, all of them from manifests or lists of ours.
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>
#include <map>

#include "supervisor/admin/metrics.h"
#include "supervisor/telemetry/exposition.h"

namespace bulkhead {
namespace {

constexpr ObservedState kStates[] = {ObservedState::kStarting, ObservedState::kRunning, ObservedState::kDegraded,
                                     ObservedState::kBackoff,  ObservedState::kQuarantined, ObservedState::kStopping,
                                     ObservedState::kStopped,  ObservedState::kFailed,  ObservedState::kSkipped};

double CpuSeconds(const timeval& time) { return double(time.tv_sec) + double(time.tv_usec) / 1e6; }

// Bytes that the process has in memory, -1 when it is not there.
double ResidentBytes(const std::string& process) {
  std::ifstream file("/proc/" + process + "/statm");
  double pages = 0, resident = -1;
  if (!(file >> pages >> resident)) return -1;
  return resident * double(sysconf(_SC_PAGESIZE));
}

void AddProcess(WallTime started_at, Exposition& page) {
  page.Gauge("bulkhead_build_info", "Always 1, labelled with the version of the supervisor.");
  page.Sample({{"version", std::string(BuildVersion())}}, 1);
  page.Gauge("process_start_time_seconds", "When the supervisor started, in seconds since 1970.");
  page.Sample(std::chrono::duration<double>(started_at.time_since_epoch()).count());
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  page.Counter("process_cpu_seconds_total", "Processor time of the supervisor, without that of modules.");
  page.Sample(CpuSeconds(usage.ru_utime) + CpuSeconds(usage.ru_stime));
  page.Gauge("process_resident_memory_bytes", "Memory of the supervisor.");
  if (const double bytes = ResidentBytes("self"); bytes >= 0) page.Sample(bytes);
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  page.Gauge("process_max_fds", "File descriptors that the supervisor may have open.");
  page.Sample(double(files.rlim_cur));
}

void AddParts(const MetricsSources& sources, const MetricsReading& reading, const BlockingPool& pool, Exposition& page) {
  page.Gauge("bulkhead_control_loop_lag_seconds", "How long the control loop took to answer this scrape.");
  page.Sample(reading.loop_lag_seconds);
  const BlockingPool::Load load = pool.load();
  page.Gauge("bulkhead_pool_queued_tasks", "Blocking work that waits for a thread of the pool.");
  page.Sample(double(load.queued));
  page.Gauge("bulkhead_pool_running_tasks", "Blocking work that runs on the pool.");
  page.Sample(load.running);
  if (sources.database) {
    const Database::Usage usage = sources.database->usage();
    page.Gauge("bulkhead_database_connections", "Connections of the supervisor to its PostgreSQL, by whether they are in use.");
    page.Sample({{"state", "idle"}}, usage.idle);
    page.Sample({{"state", "lent"}}, usage.lent);
    page.Gauge("bulkhead_database_connections_limit", "Connections that the supervisor may have.");
    page.Sample(usage.most);
  }
  if (sources.access_log) {
    const AccessLog::Totals lines = sources.access_log->totals();
    page.Counter("bulkhead_access_log_lines_total", "Lines of the access log, by whether they were written or dropped.");
    page.Sample({{"outcome", "written"}}, double(lines.written));
    page.Sample({{"outcome", "dropped"}}, double(lines.dropped));
  }
  if (sources.tracer) {
    const Tracer::Totals spans = sources.tracer->totals();
    page.Counter("bulkhead_spans_total", "Recorded spans by what became of them.");
    page.Sample({{"outcome", "exported"}}, double(spans.exported));
    page.Sample({{"outcome", "dropped"}}, double(spans.dropped));
    page.Sample({{"outcome", "rejected"}}, double(spans.rejected));
    page.Counter("bulkhead_span_export_failures_total", "Exports that the collector did not take, also where a later try succeeded.");
    page.Sample(double(spans.failures));
    page.Gauge("bulkhead_spans_waiting", "Spans that wait for their export.");
    page.Sample(double(spans.waiting));
  }
}

void AddGateway(const GatewayMeters& gateway, Exposition& page) {
  std::vector<std::pair<const RouteMeter*, RouteMeter::Totals>> used;
  for (const RouteMeter* meter : gateway.Routes()) {
    RouteMeter::Totals totals = meter->Sum();
    if (totals.requests() > 0) used.emplace_back(meter, totals);
  }
  const auto labels = [](const RouteMeter& meter) { return MetricLabels{{"module", meter.module}, {"route", meter.route}, {"method", meter.method}}; };
  page.Counter("bulkhead_gateway_requests_total",
               "Requests by module, pattern of the route, method and class of the status; aborted: the client left. What a module broke off is 5xx.");
  for (const auto& [meter, totals] : used) {
    for (size_t i = 0; i < kStatusClasses; ++i) {
      if (totals.by_class[i] == 0) continue;
      MetricLabels all = labels(*meter);
      all.emplace_back("status", std::string(StatusClassName(i)));
      page.Sample(all, double(totals.by_class[i]));
    }
  }
  page.Histogram("bulkhead_gateway_request_duration_seconds", "Time from a request's head to the end of its answer.");
  for (const auto& [meter, totals] : used) page.Sample(labels(*meter), totals.latency);
  page.Counter("bulkhead_gateway_response_body_bytes_total", "Bytes of bodies in answers.");
  for (const auto& [meter, totals] : used) page.Sample(labels(*meter), double(totals.bytes));

  const GatewayTotals sum = gateway.Sum();
  page.Counter("bulkhead_gateway_connections_total", "Connections of clients that were accepted.");
  page.Sample(double(sum.connections_opened));
  page.Gauge("bulkhead_gateway_connections", "Connections of clients that are open.");
  page.Sample(double(sum.connections_open));
  page.Gauge("bulkhead_gateway_requests_in_flight", "Requests that are not answered yet.");
  page.Sample(double(sum.requests_open));
  page.Counter("bulkhead_gateway_heads_refused_total", "What came from clients and was no HTTP request, or came too slowly.");
  page.Sample(double(sum.heads_refused));
  page.Counter("bulkhead_gateway_received_bytes_total", "Bytes from clients.");
  page.Sample(double(sum.bytes_received));
  page.Counter("bulkhead_gateway_sent_bytes_total", "Bytes to clients.");
  page.Sample(double(sum.bytes_sent));
  page.Counter("bulkhead_gateway_links_total", "Data links to workers that were made.");
  page.Sample(double(sum.links_opened));
  page.Gauge("bulkhead_gateway_links", "Data links to workers.");
  page.Sample(double(sum.links_open));
  page.Counter("bulkhead_gateway_parked_total", "Requests that waited for a worker.");
  page.Sample(double(sum.parked));
  page.Gauge("bulkhead_gateway_parked_requests", "Requests that wait for a worker.");
  page.Sample(double(sum.parked_now));
  page.Counter("bulkhead_gateway_retries_total", "Requests that were sent to a worker once more.");
  page.Sample(double(sum.retries));
  page.Counter("bulkhead_gateway_unavailable_total", "Requests that the gateway answered 503, by reason.");
  for (size_t i = 0; i < sum.unserved.size(); ++i) page.Sample({{"reason", std::string(kUnservedNames[i])}}, double(sum.unserved[i]));
}

void AddJobs(const JobMeters& jobs, Exposition& page) {
  const JobMeters::All all = jobs.totals();
  page.Counter("bulkhead_job_attempts_total", "Attempts of job runs by outcome; of a run's last attempt it is the status of the run.");
  for (const auto& [job, totals] : all) {
    for (const auto& [outcome, count] : totals.by_outcome) page.Sample({{"module", job.first}, {"job", job.second}, {"outcome", outcome}}, double(count));
  }
  page.Counter("bulkhead_job_run_seconds_total", "Time that attempts of job runs took.");
  for (const auto& [job, totals] : all) page.Sample({{"module", job.first}, {"job", job.second}}, totals.seconds);
}

// What the workers of a module share.
void AddCache(const SharedCache& cache, Exposition& page) {
  const std::vector<CacheUsage> all = cache.Usage();
  page.Counter("bulkhead_cache_lookups_total",
               "Lookups in the cache that the workers of a module share, by whether something was found in memory, in Redis or nowhere.");
  for (const CacheUsage& usage : all) {
    page.Sample({{"module", usage.module}, {"result", "hit"}}, double(usage.hits));
    page.Sample({{"module", usage.module}, {"result", "redis"}}, double(usage.redis_hits));
    page.Sample({{"module", usage.module}, {"result", "miss"}}, double(usage.misses - usage.redis_hits));
  }
  page.Counter("bulkhead_cache_sets_total",
               "Values set there, by what became of them; overtaken: the value was read before an invalidation and came after it.");
  for (const CacheUsage& usage : all) {
    page.Sample({{"module", usage.module}, {"outcome", "stored"}}, double(usage.stored));
    page.Sample({{"module", usage.module}, {"outcome", "overtaken"}}, double(usage.overtaken));
    page.Sample({{"module", usage.module}, {"outcome", "too_large"}}, double(usage.too_large));
  }
  page.Counter("bulkhead_cache_invalidations_total", "Invalidations, also by other nodes and by values that were set anew.");
  for (const CacheUsage& usage : all) page.Sample({{"module", usage.module}}, double(usage.invalidations));
  page.Counter("bulkhead_cache_evictions_total", "Entries that had to make room.");
  for (const CacheUsage& usage : all) page.Sample({{"module", usage.module}}, double(usage.evictions));
  page.Gauge("bulkhead_cache_bytes", "Memory of the entries.");
  for (const CacheUsage& usage : all) page.Sample({{"module", usage.module}}, double(usage.bytes));
  page.Gauge("bulkhead_cache_entries", "Entries.");
  for (const CacheUsage& usage : all) page.Sample({{"module", usage.module}}, double(usage.entries));
  page.Gauge("bulkhead_cache_limit_bytes", "Memory that the entries of all modules may take.");
  page.Sample(double(cache.max_bytes()));
  const auto redis = cache.RedisUsage();
  if (!redis) return;
  page.Gauge("bulkhead_cache_redis_up", "1 while the cache uses Redis, 0 while that is away.");
  page.Sample(redis->up ? 1 : 0);
  page.Counter("bulkhead_cache_redis_commands_total", "Commands of the cache that Redis has answered.");
  page.Sample(double(redis->commands));
  page.Counter("bulkhead_cache_redis_seconds_total", "Time that these took, from the call to the answer.");
  page.Sample(redis->seconds);
  page.Counter("bulkhead_cache_redis_failures_total", "Connections of the cache to Redis, and tries to get one, that failed.");
  page.Sample(double(redis->failures));
  page.Counter("bulkhead_cache_redis_left_out_total", "Calls of the cache that Redis was left out of, since it was away or too much waited.");
  page.Sample(double(redis->left_out));
}

void AddModules(const std::vector<ModuleView>& modules, Exposition& page) {
  page.Gauge("bulkhead_module_state", "1 for the state that the module is observed in, 0 for the others.");
  for (const ModuleView& view : modules) {
    for (ObservedState state : kStates)
      page.Sample({{"module", view.row.name}, {"state", std::string(ObservedStateName(state))}}, state == view.observed ? 1 : 0);
  }
  page.Gauge("bulkhead_module_enabled", "Whether the module is wanted to run.");
  for (const ModuleView& view : modules) page.Sample({{"module", view.row.name}}, view.desired_enabled ? 1 : 0);
  page.Gauge("bulkhead_module_workers", "Workers of the module by state, without its spare.");
  for (const ModuleView& view : modules) {
    std::map<ObservedState, int> by_state{{ObservedState::kRunning, 0}};
    for (const WorkerView& worker : view.workers) {
      if (!worker.spare) ++by_state[worker.state];
    }
    for (const auto& [state, count] : by_state)
      page.Sample({{"module", view.row.name}, {"state", std::string(ObservedStateName(state))}}, count);
  }
  page.Counter("bulkhead_module_exits_total", "Ends of workers that nobody had asked for, by cause, since the module was registered, on all nodes.");
  for (const ModuleView& view : modules) {
    for (const auto& [cause, count] : view.exit_counts) page.Sample({{"module", view.row.name}, {"cause", cause}}, double(count));
  }
  page.Counter("bulkhead_module_log_lines_dropped_total", "Lines of the module's log beyond its rate.");
  for (const ModuleView& view : modules) page.Sample({{"module", view.row.name}}, double(view.lines_dropped));

  const auto each = [&](auto sample) {
    for (const ModuleView& view : modules) {
      for (const WorkerView& worker : view.workers) sample(worker, MetricLabels{{"module", view.row.name}, {"worker", std::to_string(worker.slot)}});
    }
  };
  page.Counter("bulkhead_worker_restarts_total", "Restarts of the worker since it was last wanted anew.");
  each([&](const WorkerView& worker, const MetricLabels& labels) { page.Sample(labels, worker.restarts); });
  page.Gauge("bulkhead_worker_spare", "1 for the spare of the module, which serves nobody.");
  each([&](const WorkerView& worker, const MetricLabels& labels) { page.Sample(labels, worker.spare ? 1 : 0); });
  page.Gauge("bulkhead_worker_resident_memory_bytes", "Memory of the worker's main process.");
  each([&](const WorkerView& worker, const MetricLabels& labels) {
    const double bytes = worker.pid > 0 ? ResidentBytes(std::to_string(worker.pid)) : -1;
    if (bytes >= 0) page.Sample(labels, bytes);
  });
}

// The files that modules keep with the supervisor.
void AddFiles(const std::vector<ModuleView>& modules, Exposition& page) {
  const auto each = [&](auto value) {
    for (const ModuleView& view : modules) page.Sample({{"module", view.row.name}}, double(value(view.files)));
  };
  page.Gauge("bulkhead_files_bytes", "Bytes of the files that the module keeps on this node.");
  each([](const FileUsage& usage) { return usage.bytes; });
  page.Gauge("bulkhead_files_limit_bytes", "Bytes that they may take: what the manifest asks for, within what the operator grants.");
  each([](const FileUsage& usage) { return usage.quota.bytes; });
  page.Gauge("bulkhead_files_stored", "Number of these files.");
  each([](const FileUsage& usage) { return usage.files; });
  page.Gauge("bulkhead_files_limit", "Number that there may be.");
  each([](const FileUsage& usage) { return usage.quota.files; });
  page.Counter("bulkhead_files_refused_total", "Files that were not stored, for the quota or because the disk was full.");
  for (const ModuleView& view : modules) {
    page.Sample({{"module", view.row.name}, {"reason", "quota"}}, double(view.files.refused_by_quota));
    page.Sample({{"module", view.row.name}, {"reason", "disk"}}, double(view.files.refused_by_disk));
  }
}

// What workers say of themselves. Their counters begin anew with each process.
void AddWorkers(const std::vector<WorkerSurvey::Worker>& workers, Exposition& page) {
  const auto each = [&](auto value, bool only_told = true) {
    for (const WorkerSurvey::Worker& worker : workers) {
      if (worker.at || !only_told) page.Sample({{"module", worker.module}, {"worker", std::to_string(worker.slot)}}, value(worker));
    }
  };
  using Worker = WorkerSurvey::Worker;
  page.Gauge("bulkhead_worker_metrics_answered", "1 when the worker answered Metrics the last time it was asked.");
  each([](const Worker& w) { return w.answered ? 1.0 : 0.0; }, false);
  page.Gauge("bulkhead_worker_metrics_age_seconds", "How old the worker's own values are.");
  each([](const Worker& w) { return double(w.age.count()) / 1000; });
  page.Counter("bulkhead_worker_requests_total", "Requests that the worker says it has answered.");
  each([](const Worker& w) { return double(w.values.request_count()); });
  page.Counter("bulkhead_worker_request_errors_total", "Of these, those that it answered 5xx.");
  each([](const Worker& w) { return double(w.values.error_count()); });
  page.Gauge("bulkhead_worker_response_time_mean_seconds", "Mean time that the worker took for an answer.");
  each([](const Worker& w) { return w.values.avg_response_time() / 1000; });
  page.Gauge("bulkhead_worker_busy_threads", "Handler threads of the worker that are busy.");
  each([](const Worker& w) { return double(w.values.active_workers()); });
  page.Gauge("bulkhead_worker_cache_hit_ratio", "Share of cache lookups of the worker that found something, 0 to 1.");
  each([](const Worker& w) { return w.values.cache_hit_rate() / 100; });
  page.Counter("bulkhead_worker_cache_lookups_total", "Cache lookups of the worker: found in its own memory, found in what the workers share, or not found.");
  for (const Worker& w : workers) {
    if (!w.at || !w.values.has_cache()) continue;
    const std::pair<const char*, int64_t> results[] = {
        {"memory", w.values.cache().hits()}, {"shared", w.values.cache().shared_hits()}, {"miss", w.values.cache().misses()}};
    for (const auto& [result, count] : results)
      page.Sample({{"module", w.module}, {"worker", std::to_string(w.slot)}, {"result", result}}, double(count));
  }
  const auto caching = [&](auto value) {
    for (const Worker& w : workers) {
      if (w.at && w.values.has_cache()) page.Sample({{"module", w.module}, {"worker", std::to_string(w.slot)}}, double(value(w.values.cache())));
    }
  };
  page.Counter("bulkhead_worker_cache_evictions_total", "Entries in the memory of the worker that had to make room.");
  caching([](const module::v1::CacheCount& count) { return count.evictions(); });
  page.Gauge("bulkhead_worker_cache_bytes", "Cached values in the memory of the worker.");
  caching([](const module::v1::CacheCount& count) { return count.bytes(); });
  page.Gauge("bulkhead_worker_cache_entries", "Number of these values.");
  caching([](const module::v1::CacheCount& count) { return count.entries(); });
  page.Counter("bulkhead_worker_events_published_total", "Events that the worker has published.");
  each([](const Worker& w) { return double(w.values.event_count().published()); });
  page.Counter("bulkhead_worker_events_received_total", "Events that the worker has received.");
  each([](const Worker& w) { return double(w.values.event_count().received()); });
  page.Gauge("bulkhead_worker_instruments_left_out", "Counters and gauges of the worker beyond the limits, which are not shown.");
  each([](const Worker& w) { return double(w.left_out); });
  page.Gauge("bulkhead_worker_custom", "Counters and gauges that the module has made for itself, by name.");
  for (const Worker& worker : workers) {
    std::map<std::string, double> sorted(worker.values.custom().begin(), worker.values.custom().end());
    for (const auto& [name, value] : sorted)
      page.Sample({{"module", worker.module}, {"worker", std::to_string(worker.slot)}, {"name", name}}, value);
  }
}

}  // namespace

std::string ToPrometheus(const MetricsSources& sources, const MetricsReading& reading, const BlockingPool& pool, WallTime started_at) {
  Exposition page;
  AddProcess(started_at, page);
  AddParts(sources, reading, pool, page);
  if (sources.gateway) AddGateway(*sources.gateway, page);
  if (sources.jobs) AddJobs(*sources.jobs, page);
  if (sources.cache) AddCache(*sources.cache, page);
  AddModules(reading.modules, page);
  AddFiles(reading.modules, page);
  AddWorkers(reading.workers, page);
  return page.Text();
}

}  // namespace bulkhead
