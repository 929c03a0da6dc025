#include "supervisor/telemetry/job_meters.h"

#include "supervisor/base/limits.h"
#include "supervisor/telemetry/meters.h"

namespace bulkhead {

void JobMeters::Ended(const std::string& module, const std::string& job, std::string_view outcome, Millis took) {
  all_.With([&](All& all) {
    auto found = all.find({module, job});
    if (found == all.end()) {
      const bool fits = all.size() < limits::kMaxJobMeters;
      found = all.try_emplace(fits ? std::pair(module, job) : std::pair(std::string(kOverflow), std::string(kOverflow))).first;
    }
    Totals& totals = found->second;
    ++totals.by_outcome[std::string(outcome)];
    totals.seconds += double(took.count()) / 1000;
  });
}

JobMeters::All JobMeters::totals() const {
  return all_.With([](const All& all) { return all; });
}

}  // namespace bulkhead
