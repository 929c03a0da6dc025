// Runs health checks so that none of them can hold up the answer. Thread-safe, but one Run() at a time.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "bulkhead/context.h"

namespace bulkhead::sdk {

struct CheckReport {
  std::string name;
  HealthResult result;
  double latency_ms = 0;
};
struct HealthReport {
  HealthStatus status = HealthStatus::kHealthy;
  std::vector<CheckReport> checks;
};

class HealthChecks {
 public:
  void Add(std::string name, HealthCheck check);  // throws std::invalid_argument
  // Each check on a thread of its own, answered within `budget`; then `overall` with the worst status, within a quarter of it more.
  // `known` are checks that somebody has made already.
  HealthReport Run(std::chrono::milliseconds budget, std::function<HealthResult(HealthStatus)> overall, std::vector<CheckReport> known = {});
  // Checks that have not returned, from any Run().
  int running() const { return *running_; }

 private:
  struct Slot;  // of one check; outlives a Run() that did not wait for it
  static std::shared_ptr<Slot> Launch(std::shared_ptr<Slot> slot, HealthCheck check, std::shared_ptr<std::atomic<int>> running);
  static CheckReport Await(Slot& slot, std::chrono::steady_clock::time_point until);
  struct Entry {
    std::string name;
    HealthCheck check;
    std::shared_ptr<Slot> slot;
  };
  std::vector<Entry> entries_;
  std::shared_ptr<Slot> overall_slot_;
  std::shared_ptr<std::atomic<int>> running_ = std::make_shared<std::atomic<int>>(0);
};

}  // namespace bulkhead::sdk
