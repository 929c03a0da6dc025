// Readings and statistics as the API shows them: numbers as JSON numbers, times as RFC 3339 in UTC, what is absent as null.
#pragma once

#include <vector>

#include "bulkhead/errors.h"
#include "domain/reading.h"

namespace consumption {

using bulkhead::sdk::Json;

// Without ".0" where the value is a whole number that a double holds exactly.
Json NumberJson(double value);

Json ReadingJson(const Reading& reading);
// The same with the rate since the reading before; null for gauges and first readings.
Json LiveReadingJson(const Reading& reading);
Json StatisticsJson(const Statistics& statistics);
// [{date, metrics: […]}], from statistics ordered by `start`, which is the day.
Json DaysJson(const std::vector<Statistics>& daily);

}  // namespace consumption
