// The Context that a running module has. Made by Initialize, lives to the end of the process.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "bulkhead/context.h"
#include "flag_watch.h"
#include "health.h"
#include "host_client.h"
#include "host_files.h"
#include "module_calls.h"
#include "worker_cache.h"

namespace bulkhead::sdk {

class HostContext final : public Context {
 public:
  // Constant after construction.
  struct Facts {
    std::string module, version, data_dir, schema, conninfo;
    int slot = 0;
    std::vector<std::string> args;
    FlagStates flags;  // at the start
    std::string host_socket, call_socket, token;
    std::vector<ClientSettings> clients;
  };
  HostContext(Facts facts, Json config, int64_t revision);

  const std::string& module() const override { return facts_.module; }
  const std::string& version() const override { return facts_.version; }
  int slot() const override { return facts_.slot; }
  const std::vector<std::string>& args() const override { return facts_.args; }
  const std::string& data_dir() const override { return facts_.data_dir; }
  const std::string& schema() const override { return facts_.schema; }
  Json config() const override;
  int64_t config_revision() const override;
  bool flag(std::string_view name, bool fallback) const override;
  bool flag_for(std::string_view name, std::string_view identity, bool fallback) const override;
  bool has_database() const override { return database_ != nullptr; }
  Database& database() override;
  ServiceClient& client(std::string_view name) override;
  bool has_client(std::string_view name) const override { return clients_.contains(name); }
  const Logger& log() const override { return log_; }
  ModuleClient modules(std::string_view name) override { return {calls_, name}; }
  Cache& cache() override { return cache_; }
  Files& files() override { return files_; }
  Router& router() override { return router_; }
  Jobs& jobs() override { return jobs_; }
  EnqueuedRun Enqueue(std::string_view job, const Json& payload, const EnqueueOptions& options) override;
  std::string Enqueue(Transaction& transaction, std::string_view job, const Json& payload, const EnqueueOptions& options) override;
  std::string Notify(const Notification& notification) override;
  std::string Notify(Transaction& transaction, const Notification& notification) override;
  Events& events() override { return events_; }
  void AddHealthCheck(std::string name, HealthCheck check) override;
  Counter& counter(std::string name) override;
  Gauge& gauge(std::string name) override;
  void SetWorkers(int threads, int max_waiting) override;

  // After Initialize: nothing more can be registered, so that everything here may be read without a lock.
  void Freeze();
  void Replace(Json config, int64_t revision);
  // Variables of the flags that differ from what was there.
  std::vector<std::string> ReplaceFlags(FlagStates flags);
  void Close();  // database and cache
  WorkerCache::Counts cache_counts() { return cache_.counts(); }
  HealthChecks& health() { return health_; }
  HostClient& host() { return host_; }
  int worker_threads() const { return worker_threads_; }
  int max_waiting() const { return max_waiting_; }
  void Collect(std::map<std::string, double>& custom) const;
  // A check `client:<name>` of each, which costs nothing: degraded while its breaker is not closed.
  std::vector<CheckReport> CheckClients() const;

 private:
  void RequireOpen(const char* what) const;

  const Facts facts_;
  Logger log_;
  std::unique_ptr<Database> database_;
  HostClient host_;
  HostFiles files_;
  ModuleCalls calls_;
  std::map<std::string, std::unique_ptr<ServiceClient>, std::less<>> clients_;  // constant after construction
  WorkerCache cache_;
  mutable std::mutex config_mutex_;
  Json config_;
  int64_t revision_;
  mutable std::mutex flags_mutex_;
  FlagStates flags_;
  // Filled before Freeze(), constant after it.
  std::atomic<bool> frozen_{false};
  Router router_;
  Jobs jobs_;
  Events events_;
  HealthChecks health_;
  std::map<std::string, Counter> counters_;
  std::map<std::string, Gauge> gauges_;
  int worker_threads_;
  int max_waiting_;
};

}  // namespace bulkhead::sdk
