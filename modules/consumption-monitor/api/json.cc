#include "api/json.h"

#include <cmath>
#include <cstdint>
#include <optional>

namespace consumption {
namespace {

constexpr double kExact = 9007199254740992.0;  // 2^53

Json Optional(const std::optional<double>& value) { return value ? NumberJson(*value) : Json(nullptr); }

}  // namespace

Json NumberJson(double value) {
  if (std::fabs(value) <= kExact && std::trunc(value) == value) return int64_t(value);
  return value;
}

Json ReadingJson(const Reading& r) {
  return {{"id", r.id},
          {"endpointId", r.endpoint_id},
          {"metric", r.metric},
          {"kind", r.kind},
          {"unit", r.unit},
          {"value", NumberJson(r.value)},
          {"consumed", Optional(r.consumed)},
          {"recordedAt", FormatTimestamp(r.recorded_at)}};
}

Json LiveReadingJson(const Reading& r) {
  Json json = ReadingJson(r);
  const bool stepped = r.consumed && r.elapsed_seconds;
  json["elapsedSeconds"] = Optional(r.elapsed_seconds);
  json["ratePerSecond"] = stepped ? NumberJson(*r.consumed / *r.elapsed_seconds) : Json(nullptr);
  return json;
}

Json StatisticsJson(const Statistics& s) {
  Json rate = nullptr;
  if (s.avg_rate) rate = {{"min", Optional(s.min_rate)}, {"max", Optional(s.max_rate)}, {"avg", Optional(s.avg_rate)}};
  return {{"endpointId", s.endpoint_id},
          {"metric", s.metric},
          {"kind", s.kind},
          {"unit", s.unit},
          {"samples", s.samples},
          {"first", NumberJson(s.first)},
          {"last", NumberJson(s.last)},
          {"min", NumberJson(s.min)},
          {"max", NumberJson(s.max)},
          {"avg", NumberJson(s.avg)},
          {"total", Optional(s.total)},
          {"ratePerSecond", rate}};
}

Json DaysJson(const std::vector<Statistics>& daily) {
  constexpr size_t kDateLength = 10;  // "2026-01-31"
  Json days = Json::array();
  for (const Statistics& s : daily) {
    const std::string date = FormatTimestamp(s.start).substr(0, kDateLength);
    if (days.empty() || days.back()["date"] != date) days.push_back({{"date", date}, {"metrics", Json::array()}});
    days.back()["metrics"].push_back(StatisticsJson(s));
  }
  return days;
}

}  // namespace consumption
