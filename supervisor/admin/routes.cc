#include "supervisor/admin/routes.h"

#include <algorithm>

#include "supervisor/admin/rest_file.h"
#include "supervisor/base/log.h"

namespace bulkhead {
namespace {

bool BindsRest(const std::string& segment) { return segment.starts_with('*'); }
bool Binds(const std::string& segment) { return segment.starts_with(':') || BindsRest(segment); }

// Statics before binders, compared from the left.
bool MoreSpecific(const std::vector<std::string>& a, const std::vector<std::string>& b) {
  return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end(),
                                      [](const std::string& x, const std::string& y) { return !Binds(x) && Binds(y); });
}

bool Fits(const std::vector<std::string>& pattern, const std::vector<std::string>& path) {
  const bool rest = BindsRest(pattern.back());
  if (rest ? pattern.size() > path.size() : pattern.size() != path.size()) return false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (BindsRest(pattern[i])) return path.size() > i + 1 || !path[i].empty();
    if (Binds(pattern[i]) ? path[i].empty() : pattern[i] != path[i]) return false;
  }
  return true;
}

void CheckFields(const RestRoute& route, const std::vector<std::string>& segments) {
  const auto& input = *route.method->input_type();
  for (const std::string& segment : segments) {
    if (Binds(segment)) BULKHEAD_CHECK(input.FindFieldByCamelcaseName(segment.substr(1)) != nullptr);
  }
  const auto& output = *route.method->output_type();
  const auto* data = route.rest.data().empty() ? nullptr : output.FindFieldByName(route.rest.data());
  BULKHEAD_CHECK(route.rest.data().empty() || data != nullptr);
  BULKHEAD_CHECK(route.rest.stream() == route.method->server_streaming());
  BULKHEAD_CHECK(!route.rest.file() || (route.rest.stream() && FileField(output) != nullptr && output.FindFieldByName("data")));
  BULKHEAD_CHECK(!route.rest.raw() || data == nullptr || (data->type() == data->TYPE_STRING && !data->is_repeated()));
  if (route.rest.location().empty()) return;
  BULKHEAD_CHECK(data != nullptr && data->message_type() != nullptr && !data->is_repeated());
  for (const std::string& segment : PathSegments(route.rest.location())) {
    if (Binds(segment)) BULKHEAD_CHECK(data->message_type()->FindFieldByCamelcaseName(segment.substr(1)) != nullptr);
  }
}

// Whether the query has `name`=true.
bool Asks(std::string_view query, std::string_view name) {
  while (!query.empty()) {
    const size_t end = query.find('&');
    std::string_view pair = query.substr(0, end);
    query.remove_prefix(end == std::string_view::npos ? query.size() : end + 1);
    if (pair.size() != name.size() + 5 || !pair.starts_with(name)) continue;
    if (pair.substr(name.size()) == "=true") return true;
  }
  return false;
}

}  // namespace

std::vector<std::string> PathSegments(std::string_view path) {
  std::vector<std::string> segments;
  if (path.starts_with('/')) path.remove_prefix(1);
  while (true) {
    const size_t slash = path.find('/');
    segments.emplace_back(path.substr(0, slash));
    if (slash == std::string_view::npos) return segments;
    path.remove_prefix(slash + 1);
  }
}

void RestRoutes::Add(const google::protobuf::ServiceDescriptor& service) {
  for (int i = 0; i < service.method_count(); ++i) {
    const auto& method = *service.method(i);
    for (int j = 0; j < method.options().ExtensionSize(admin::v1::rest); ++j) {
      RestRoute route;
      route.method = &method;
      route.rest = method.options().GetExtension(admin::v1::rest, j);
      route.rpc_path = "/" + service.full_name() + "/" + method.name();
      auto& factory = *google::protobuf::MessageFactory::generated_factory();
      route.request_prototype = factory.GetPrototype(method.input_type());
      route.response_prototype = factory.GetPrototype(method.output_type());
      const auto segments = PathSegments(route.rest.path());
      CheckFields(route, segments);
      auto pattern = std::find_if(patterns_.begin(), patterns_.end(), [&](const Pattern& p) { return p.segments == segments; });
      if (pattern == patterns_.end()) pattern = patterns_.insert(pattern, Pattern{segments, {}, {}});
      const std::string verb = route.rest.method();
      auto& routes = route.rest.when().empty() ? pattern->by_method : pattern->by_when;
      const bool added = routes.emplace(verb, std::move(route)).second;
      BULKHEAD_CHECK(added);
    }
  }
  std::stable_sort(patterns_.begin(), patterns_.end(),
                   [](const Pattern& a, const Pattern& b) { return MoreSpecific(a.segments, b.segments); });
}

RestRoutes::Match RestRoutes::Find(std::string_view method, std::string_view path, std::string_view query) const {
  Match match;
  const auto segments = PathSegments(path);
  const auto pattern =
      std::find_if(patterns_.begin(), patterns_.end(), [&](const Pattern& p) { return Fits(p.segments, segments); });
  if (pattern == patterns_.end()) return match;
  for (const auto& [verb, route] : pattern->by_method) {
    match.allow += (match.allow.empty() ? "" : ", ") + verb;
    if (verb == "GET") match.allow += ", HEAD";
  }
  const auto found = pattern->by_method.find(method);
  if (found == pattern->by_method.end()) return match;
  match.route = &found->second;
  if (const auto other = pattern->by_when.find(method); other != pattern->by_when.end() && Asks(query, other->second.rest.when()))
    match.route = &other->second;
  for (size_t i = 0; i < segments.size(); ++i) {
    if (i >= pattern->segments.size()) break;
    if (Binds(pattern->segments[i])) match.values[pattern->segments[i].substr(1)] = segments[i];
  }
  if (BindsRest(pattern->segments.back())) {
    std::string& rest = match.values[pattern->segments.back().substr(1)];
    for (size_t i = pattern->segments.size(); i < segments.size(); ++i) rest += "/" + segments[i];
  }
  return match;
}

}  // namespace bulkhead
