#include "api/collect_job.h"

#include <string>

namespace consumption {

using bulkhead::sdk::Json;
using bulkhead::sdk::JobFailure;

Json CollectReadings(bulkhead::sdk::JobContext& run, Repository& repository, const std::function<Measurement()>& measure) {
  run.Progress(0, "waiting for the endpoint");
  const auto stored = repository.Record(kHostEndpoint, [&] {
    run.ThrowIfCancelled();
    run.Progress(0.3, "measuring");
    Measurement measurement = measure();
    if (measurement.values.empty()) {
      std::string reason = "Nothing of this host could be measured";
      for (const std::string& problem : measurement.problems) reason += "; " + problem;
      throw JobFailure("HOST_UNREADABLE", reason);
    }
    run.Progress(0.6, "storing");
    return measurement;
  });
  if (!stored) {
    throw JobFailure("ENDPOINT_NOT_FOUND", "The endpoint \"" + std::string(kHostEndpoint) + "\" no longer exists", false);
  }
  for (const std::string& problem : stored->problems) run.Log("warn", problem);
  run.Progress(1, "stored " + std::to_string(stored->values.size()) + " readings");
  return {{"readings", stored->values.size()}, {"recordedAt", FormatTimestamp(stored->at)}, {"problems", stored->problems}};
}

}  // namespace consumption
