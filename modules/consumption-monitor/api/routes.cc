#include "api/routes.h"

#include <algorithm>

#include "api/json.h"
#include "api/parameters.h"

namespace consumption {
namespace {

using bulkhead::sdk::HttpError;
using bulkhead::sdk::Ok;
using bulkhead::sdk::Request;
using bulkhead::sdk::Response;

Response ListReadings(const Request& request, Repository& repository, int64_t max_rows) {
  Parameters parameters(request, {"endpointId", "metric", "from", "to", "limit", "page"});
  ReadingFilter filter;
  filter.endpoint_id = parameters.Name("endpointId");
  filter.metric = parameters.Name("metric");
  filter.from = parameters.Time("from");
  filter.to = parameters.Time("to");
  const int64_t limit = parameters.Integer("limit", std::min(kDefaultLimit, max_rows), 1, max_rows);
  const int64_t page = parameters.Integer("page", 1, 1, kMaxPage);
  if (filter.from && filter.to && *filter.from > *filter.to) {
    parameters.Refuse("from", "OUT_OF_RANGE", "This must not be later than `to`.");
  }
  parameters.Check();

  Json data = Json::array();
  for (const Reading& reading : repository.Readings(filter, limit, (page - 1) * limit)) data.push_back(ReadingJson(reading));
  return Ok(data, {{"total", repository.CountReadings(filter)}, {"page", page}, {"limit", limit}});
}

Response Live(const Request& request, Repository& repository) {
  Parameters parameters(request, {"endpointId"});
  const auto endpoint_id = parameters.Name("endpointId");
  parameters.Check();

  Json data = Json::array();
  for (const Reading& reading : repository.Latest(endpoint_id)) data.push_back(LiveReadingJson(reading));
  const size_t total = data.size();
  return Ok(data, {{"total", total}});
}

Response Summary(const Request& request, Repository& repository, Timestamp now) {
  Parameters parameters(request, {"period", "endpointId"});
  const std::string period = parameters.OneOf("period", "day", {"hour", "day", "week", "month"});
  const auto endpoint_id = parameters.Name("endpointId");
  parameters.Check();

  const Window window = WindowEnding(period, now).value();
  Json metrics = Json::array();
  for (const Statistics& statistics : repository.Summary(window, endpoint_id)) metrics.push_back(StatisticsJson(statistics));
  return Ok({{"period", period},
             {"from", FormatTimestamp(window.from)},
             {"to", FormatTimestamp(window.to)},
             {"metrics", std::move(metrics)}});
}

Response Monthly(const Request& request, Repository& repository, Timestamp now) {
  Parameters parameters(request, {"year", "month"});
  const Month current = MonthOf(now);
  Month month;
  month.year = int(parameters.Integer("year", current.year, kMinYear, kMaxYear));
  month.month = int(parameters.Integer("month", current.month, 1, 12));
  parameters.Check();

  // A text that can't be an id never reaches the database, which would refuse some of its bytes.
  const std::string_view id = request.param("endpointId");
  const auto endpoint = Parameters::IsName(id) ? repository.FindEndpoint(id) : std::nullopt;
  if (!endpoint) throw HttpError(404, "ENDPOINT_NOT_FOUND", "There is no endpoint of this id.");

  const Window window = WindowOf(month);
  Json totals = Json::array();
  for (const Statistics& statistics : repository.Summary(window, endpoint->id)) totals.push_back(StatisticsJson(statistics));
  return Ok({{"endpointId", endpoint->id},
             {"name", endpoint->name},
             {"year", month.year},
             {"month", month.month},
             {"from", FormatTimestamp(window.from)},
             {"to", FormatTimestamp(window.to)},
             {"totals", std::move(totals)},
             {"days", DaysJson(repository.Daily(window, endpoint->id))}});
}

}  // namespace

void AddRoutes(bulkhead::sdk::Router& router, Repository& repository, std::function<int64_t()> max_rows,
               std::function<Timestamp()> now) {
  router.Get("/readings", [&repository, max_rows](Request& request) { return ListReadings(request, repository, max_rows()); });
  router.Get("/live", [&repository](Request& request) { return Live(request, repository); });
  router.Get("/summary", [&repository, now](Request& request) { return Summary(request, repository, now()); });
  router.Get("/monthly/:endpointId", [&repository, now](Request& request) { return Monthly(request, repository, now()); });
}

}  // namespace consumption
