// The job `collect-readings`: one measurement of this host, stored in one transaction.
#pragma once

#include <functional>

#include "bulkhead/jobs.h"
#include "infrastructure/repository.h"

namespace consumption {

// Answers {readings, recordedAt, problems}. Files that can't be read cost their metrics only. Throws JobFailure: ENDPOINT_NOT_FOUND
// (not retryable) when the host's endpoint was removed, HOST_UNREADABLE when nothing could be measured.
bulkhead::sdk::Json CollectReadings(bulkhead::sdk::JobContext& run, Repository& repository,
                                    const std::function<Measurement()>& measure);

}  // namespace consumption
