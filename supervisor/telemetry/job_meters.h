// Attempts of job runs by how they ended. Thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "supervisor/base/clock.h"
#include "supervisor/base/guarded.h"

namespace bulkhead {

class JobMeters {
 public:
  struct Totals {
    std::map<std::string, uint64_t, std::less<>> by_outcome;  // "SUCCEEDED", "RETRIED", …
    double seconds = 0;                                       // that they took, all together
  };
  using All = std::map<std::pair<std::string, std::string>, Totals>;  // by module and job

  // Beyond limits::kMaxJobMeters a job is counted as kOverflow.
  void Ended(const std::string& module, const std::string& job, std::string_view outcome, Millis took);
  All totals() const;

 private:
  Guarded<All> all_;
};

}  // namespace bulkhead
