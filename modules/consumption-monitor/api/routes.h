// The module's routes: thin handlers that check parameters, ask the repository and write JSON. They run on the SDK's worker pool.
#pragma once

#include <cstdint>
#include <functional>

#include "bulkhead/router.h"
#include "infrastructure/repository.h"

namespace consumption {

inline constexpr int64_t kDefaultLimit = 100;     // readings on a page, or `maxRows` where that is less
inline constexpr int64_t kMaxPage = 1'000'000;    // beyond, `to` is the way back in time

// GET /readings, /live, /summary and /monthly/:endpointId. `max_rows` is the configuration's, `now` the clock; both are called by
// several threads at once. `repository` must outlive the router.
void AddRoutes(bulkhead::sdk::Router& router, Repository& repository, std::function<int64_t()> max_rows,
               std::function<Timestamp()> now);

}  // namespace consumption
