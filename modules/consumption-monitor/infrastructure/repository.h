// The module's tables: endpoints, metrics, readings. The only file with SQL besides migrations/. Thread-safe, blocks; throws
// bulkhead::sdk::DatabaseError.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bulkhead/database.h"
#include "domain/period.h"
#include "domain/reading.h"

namespace consumption {

struct ReadingFilter {  // absent: all
  std::optional<std::string> endpoint_id, metric;
  std::optional<Timestamp> from, to;  // [from, to)
};

class Repository {
 public:
  explicit Repository(bulkhead::sdk::Database& database) : database_(database) {}

  std::optional<Endpoint> FindEndpoint(std::string_view id);

  // Stores what `measure` returns, all of it or nothing, each counter with its step since the reading before. `measure` is called
  // while the endpoint is locked, so that two recordings at once are stored in the order they were measured. Nullopt, and no
  // measuring, when there is no such endpoint.
  std::optional<Measurement> Record(std::string_view endpoint_id, const std::function<Measurement()>& measure);

  // Newest first.
  std::vector<Reading> Readings(const ReadingFilter& filter, int64_t limit, int64_t offset);
  int64_t CountReadings(const ReadingFilter& filter);
  // The newest reading of every series, by endpoint and metric.
  std::vector<Reading> Latest(const std::optional<std::string>& endpoint_id);
  std::optional<Timestamp> LatestTime(std::string_view endpoint_id);

  // Each series with readings in the window, by endpoint and metric; an absent endpoint means all.
  std::vector<Statistics> Summary(Window window, const std::optional<std::string>& endpoint_id);
  // The same for each day in UTC, the days in order.
  std::vector<Statistics> Daily(Window window, std::string_view endpoint_id);

 private:
  std::vector<Statistics> Consumption(Window window, const std::optional<std::string>& endpoint_id,
                                      const std::optional<std::string>& bucket);
  bulkhead::sdk::Database& database_;
};

}  // namespace consumption
