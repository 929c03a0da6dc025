#include "infrastructure/repository.h"

#include <algorithm>
#include <map>

#include "domain/consumption.h"

namespace consumption {
namespace {

using bulkhead::sdk::Params;
using bulkhead::sdk::Row;
using bulkhead::sdk::Rows;
using bulkhead::sdk::Transaction;
using bulkhead::sdk::WallTime;

Timestamp ToTimestamp(WallTime at) { return std::chrono::floor<std::chrono::microseconds>(at); }
// A WallTime counts nanoseconds in 64 bits: the years 1677 to 2262. What lies beyond is put at the edge.
WallTime ToWallTime(Timestamp at) {
  constexpr Timestamp kFirst = std::chrono::ceil<std::chrono::microseconds>(WallTime::min());
  constexpr Timestamp kLast = std::chrono::floor<std::chrono::microseconds>(WallTime::max());
  return WallTime(std::clamp(at, kFirst, kLast));
}

// SELECT list of a reading; `r` is readings, `m` metrics.
constexpr std::string_view kReadingColumns =
    "r.id, r.endpoint_id, r.metric, m.unit, m.kind, r.recorded_at, r.value, r.consumed, r.elapsed_seconds";

std::vector<Reading> ToReadings(const Rows& rows) {
  std::vector<Reading> readings;
  readings.reserve(size_t(rows.size()));
  for (const Row row : rows) {
    Reading r;
    r.id = row.Get<int64_t>(0);
    r.endpoint_id = row.Get<std::string>(1);
    r.metric = row.Get<std::string>(2);
    r.unit = row.Get<std::string>(3);
    r.kind = row.Get<std::string>(4);
    r.recorded_at = ToTimestamp(row.Get<WallTime>(5));
    r.value = row.Get<double>(6);
    r.consumed = row.Get<std::optional<double>>(7);
    r.elapsed_seconds = row.Get<std::optional<double>>(8);
    readings.push_back(std::move(r));
  }
  return readings;
}

// The conditions of a filter as SQL, with their parameters. Only what is asked for is written, so that the planner sees it.
struct Where {
  std::string sql;
  Params params;

  explicit Where(const ReadingFilter& filter) {
    if (filter.endpoint_id) Add("r.endpoint_id = ", *filter.endpoint_id, "");
    if (filter.metric) Add("r.metric = ", *filter.metric, "");
    if (filter.from) Add("r.recorded_at >= ", ToWallTime(*filter.from), "::timestamptz");
    if (filter.to) Add("r.recorded_at < ", ToWallTime(*filter.to), "::timestamptz");
  }

 private:
  void Add(std::string_view condition, bulkhead::sdk::Param value, std::string_view cast) {
    params.push_back(std::move(value));
    sql.append(sql.empty() ? " WHERE " : " AND ").append(condition).append("$");
    sql.append(std::to_string(params.size())).append(cast);
  }
};

struct LatestPoint {
  bool is_counter = false;
  std::optional<CounterPoint> point;  // absent before the first reading
};

// Of those of the `metrics` that the database knows.
std::map<std::string, LatestPoint> LatestPoints(Transaction& transaction, std::string_view endpoint_id,
                                                const std::vector<std::string>& metrics) {
  const Rows rows = transaction.Query(
      "SELECT m.name, m.kind, r.recorded_at, r.value, r.epoch, r.scope FROM metrics m LEFT JOIN LATERAL ("
      "  SELECT recorded_at, value, epoch, scope FROM readings WHERE endpoint_id = $1 AND metric = m.name"
      "  ORDER BY recorded_at DESC LIMIT 1) r ON true WHERE m.name = ANY ($2::text[])",
      {endpoint_id, metrics});
  std::map<std::string, LatestPoint> latest;
  for (const Row row : rows) {
    LatestPoint& entry = latest[row.Get<std::string>(0)];
    entry.is_counter = row.Get<std::string_view>(1) == "counter";
    if (row.IsNull(2)) continue;
    entry.point = CounterPoint{ToTimestamp(row.Get<WallTime>(2)), row.Get<double>(3),
                               row.Get<std::optional<std::string>>(4).value_or(""), row.Get<std::string>(5)};
  }
  return latest;
}

void Insert(Transaction& transaction, std::string_view endpoint_id, const Measurement& measurement) {
  std::vector<std::string> metrics, scopes;
  std::vector<double> values;
  std::vector<std::optional<double>> consumed, elapsed;
  for (const auto& value : measurement.values) metrics.push_back(value.metric);
  const auto latest = LatestPoints(transaction, endpoint_id, metrics);
  for (const auto& value : measurement.values) {
    std::optional<CounterStep> step;
    const auto before = latest.find(value.metric);
    if (before != latest.end() && before->second.is_counter && before->second.point) {
      step = StepBetween(*before->second.point, {measurement.at, value.value, measurement.epoch, value.scope});
    }
    values.push_back(value.value);
    scopes.push_back(value.scope);
    consumed.push_back(step ? std::optional(step->consumed) : std::nullopt);
    elapsed.push_back(step ? std::optional(step->seconds) : std::nullopt);
  }
  transaction.Query(
      "INSERT INTO readings (endpoint_id, metric, recorded_at, value, epoch, scope, consumed, elapsed_seconds)"
      " SELECT $1, v.metric, $2::timestamptz, v.value, nullif($3, ''), v.scope, v.consumed, v.elapsed"
      "   FROM unnest($4::text[], $5::float8[], $6::text[], $7::float8[], $8::float8[])"
      "     AS v (metric, value, scope, consumed, elapsed)",
      {endpoint_id, ToWallTime(measurement.at), measurement.epoch, metrics, values, scopes, consumed, elapsed});
}

}  // namespace

std::optional<Endpoint> Repository::FindEndpoint(std::string_view id) {
  const Rows rows = database_.Query("SELECT id, name, kind FROM endpoints WHERE id = $1", {id});
  if (rows.empty()) return std::nullopt;
  const Row row = rows.front();
  return Endpoint{row.Get<std::string>(0), row.Get<std::string>(1), row.Get<std::string>(2)};
}

std::optional<Measurement> Repository::Record(std::string_view endpoint_id, const std::function<Measurement()>& measure) {
  return database_.Transact([&](Transaction& transaction) -> std::optional<Measurement> {
    const Rows locked = transaction.Query("SELECT 1 FROM endpoints WHERE id = $1 FOR NO KEY UPDATE", {endpoint_id});
    if (locked.empty()) return std::nullopt;
    Measurement measurement = measure();
    if (!measurement.values.empty()) Insert(transaction, endpoint_id, measurement);
    return measurement;
  });
}

std::vector<Reading> Repository::Readings(const ReadingFilter& filter, int64_t limit, int64_t offset) {
  Where where(filter);
  where.params.emplace_back(limit);
  where.params.emplace_back(offset);
  const size_t count = where.params.size();
  return ToReadings(database_.Query(
      "SELECT " + std::string(kReadingColumns) + " FROM readings r JOIN metrics m ON m.name = r.metric" + where.sql +
          " ORDER BY r.recorded_at DESC, r.id DESC LIMIT $" + std::to_string(count - 1) + "::bigint OFFSET $" +
          std::to_string(count) + "::bigint",
      where.params));
}

int64_t Repository::CountReadings(const ReadingFilter& filter) {
  const Where where(filter);
  return database_.Query("SELECT count(*) FROM readings r" + where.sql, where.params).front().Get<int64_t>(0);
}

std::vector<Reading> Repository::Latest(const std::optional<std::string>& endpoint_id) {
  // One probe of the primary key per series, however many readings there are.
  return ToReadings(database_.Query(
      "SELECT " + std::string(kReadingColumns) +
          " FROM endpoints e CROSS JOIN metrics m CROSS JOIN LATERAL ("
          "  SELECT * FROM readings WHERE endpoint_id = e.id AND metric = m.name ORDER BY recorded_at DESC LIMIT 1) r"
          " WHERE $1::text IS NULL OR e.id = $1 ORDER BY r.endpoint_id, r.metric",
      {endpoint_id}));
}

std::optional<Timestamp> Repository::LatestTime(std::string_view endpoint_id) {
  const Rows rows = database_.Query(
      "SELECT recorded_at FROM readings WHERE endpoint_id = $1 ORDER BY recorded_at DESC LIMIT 1", {endpoint_id});
  if (rows.empty()) return std::nullopt;
  return ToTimestamp(rows.front().Get<WallTime>(0));
}

std::vector<Statistics> Repository::Summary(Window window, const std::optional<std::string>& endpoint_id) {
  return Consumption(window, endpoint_id, std::nullopt);
}

std::vector<Statistics> Repository::Daily(Window window, std::string_view endpoint_id) {
  return Consumption(window, std::string(endpoint_id), "day");
}

std::vector<Statistics> Repository::Consumption(Window window, const std::optional<std::string>& endpoint_id,
                                                const std::optional<std::string>& bucket) {
  const Rows rows = database_.Query(
      "SELECT c.endpoint_id, c.metric, m.unit, m.kind, c.bucket_start, c.samples, c.first_value, c.last_value, c.min_value,"
      "       c.max_value, c.avg_value, c.total, c.min_rate, c.max_rate, c.avg_rate"
      "  FROM consumption($1::timestamptz, $2::timestamptz, $3::text, $4::text) c JOIN metrics m ON m.name = c.metric"
      " ORDER BY c.bucket_start, c.endpoint_id, c.metric",
      {ToWallTime(window.from), ToWallTime(window.to), endpoint_id, bucket});
  std::vector<Statistics> all;
  all.reserve(size_t(rows.size()));
  for (const Row row : rows) {
    Statistics s;
    s.endpoint_id = row.Get<std::string>(0);
    s.metric = row.Get<std::string>(1);
    s.unit = row.Get<std::string>(2);
    s.kind = row.Get<std::string>(3);
    s.start = ToTimestamp(row.Get<WallTime>(4));
    s.samples = row.Get<int64_t>(5);
    s.first = row.Get<double>(6);
    s.last = row.Get<double>(7);
    s.min = row.Get<double>(8);
    s.max = row.Get<double>(9);
    s.avg = row.Get<double>(10);
    s.total = row.Get<std::optional<double>>(11);
    s.min_rate = row.Get<std::optional<double>>(12);
    s.max_rate = row.Get<std::optional<double>>(13);
    s.avg_rate = row.Get<std::optional<double>>(14);
    all.push_back(std::move(s));
  }
  return all;
}

}  // namespace consumption
