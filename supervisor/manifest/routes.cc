// Routes of a manifest: their paths, and that no two of them claim the same request.
#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "supervisor/manifest/reader.h"
#include "supervisor/manifest/route_conflicts.h"

namespace bulkhead {
namespace {

using nlohmann::json;

constexpr size_t kMaxRoutes = 500;
constexpr size_t kMaxPath = 512;

const std::vector<std::string>& Methods() {
  static const std::vector<std::string> methods{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"};
  return methods;
}

std::vector<absl::string_view> Segments(absl::string_view path) {
  path.remove_prefix(1);
  if (path.empty()) return {};
  return absl::StrSplit(path, '/');
}

bool IsParam(absl::string_view segment) { return !segment.empty() && segment[0] == ':'; }
bool IsWild(absl::string_view segment) { return segment == "*"; }

bool IsLiteral(absl::string_view segment) {
  return segment != "." && segment != ".." && std::all_of(segment.begin(), segment.end(), [](unsigned char c) {
           return absl::ascii_isalnum(c) ||
                  absl::string_view("-._~!$&'()+,;=@").find(static_cast<char>(c)) != absl::string_view::npos;
         });
}

// "" when the path is well formed, else a sentence.
std::string PathFault(const std::string& path) {
  if (path.empty() || path[0] != '/') return "A route's path begins with \"/\".";
  if (path.size() > kMaxPath) return absl::StrCat("A route's path has at most ", kMaxPath, " bytes.");
  const auto segments = Segments(path);
  std::vector<absl::string_view> params;
  for (size_t i = 0; i < segments.size(); ++i) {
    const absl::string_view segment = segments[i];
    if (segment.empty()) return "A route's path has no empty segment and no \"/\" at its end.";
    if (IsWild(segment)) {
      if (i + 1 != segments.size()) return "\"*\" may only be the last segment of a path.";
    } else if (IsParam(segment)) {
      const absl::string_view name = segment.substr(1);
      const bool well_named =
          !name.empty() && !absl::ascii_isdigit(name[0]) &&
          std::all_of(name.begin(), name.end(), [](unsigned char c) { return absl::ascii_isalnum(c) || c == '_'; });
      if (!well_named)
        return absl::StrCat("\"", segment, "\" is no parameter: a name of letters, digits and \"_\" follows the \":\".");
      if (std::find(params.begin(), params.end(), name) != params.end())
        return absl::StrCat("The parameter \":", name, "\" is there twice.");
      params.push_back(name);
    } else if (!IsLiteral(segment)) {
      return absl::StrCat("The segment \"", segment, "\" has a character that a path can't have here; ",
                          "parameters are \":name\", a wildcard is \"*\" as the last segment.");
    }
  }
  return "";
}

void CheckAgainstEarlier(RouteConflicts& conflicts, const Manifest& manifest, const RouteSpec& route, const std::string& path,
                         Findings& out) {
  const RouteConflicts::Conflict conflict = conflicts.Add(route.method, route.path);
  if (conflict.kind == RouteConflicts::Kind::kNone) return;
  const std::string& earlier = manifest.routes[conflict.earlier].path;
  if (conflict.kind == RouteConflicts::Kind::kSame) {
    out.Error(path, "DUPLICATE_ROUTE", absl::StrCat(route.method, " ", route.path, " is the same route as ", earlier, " above."));
  } else {
    out.Error(path, "ROUTE_CONFLICT",
              absl::StrCat(route.method, " ", route.path, " and ", earlier,
                           " fit the same requests and neither is the more specific."));
  }
}

void ReadRoute(const json& value, const std::string& path, RouteConflicts& conflicts, Manifest& manifest, Findings& out) {
  ObjectReader reader(value, path, out);
  if (!value.is_object()) return;
  RouteSpec route;
  bool well_formed = true;
  reader.Require("method");
  reader.Require("path");
  if (auto method = reader.String("method")) {
    route.method = absl::AsciiStrToUpper(*method);
    if (std::find(Methods().begin(), Methods().end(), route.method) == Methods().end()) {
      out.Error(reader.PathOf("method"), "INVALID_METHOD",
                absl::StrCat("A route's method is one of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS.",
                             out.Suggest(route.method, Methods())));
      well_formed = false;
    }
  }
  if (auto route_path = reader.String("path", kMaxPath)) {
    route.path = *route_path;
    if (std::string fault = PathFault(route.path); !fault.empty()) {
      out.Error(reader.PathOf("path"), "INVALID_ROUTE_PATH", std::move(fault));
      well_formed = false;
    }
  }
  route.permissions = reader.Strings("permissions", 64, 128);
  CheckPermissions(route.permissions, reader.PathOf("permissions"), manifest, out);
  route.is_public = reader.Bool("public").value_or(false);
  if (route.is_public && !route.permissions.empty()) {
    out.Error(reader.PathOf("public"), "PUBLIC_WITH_PERMISSIONS",
              "A public route needs no login, so it can't need permissions: drop one of the two.");
  }
  if (auto ms = reader.Integer("timeout", 1, limits::kMaxRouteTimeout.count())) route.timeout = Millis(*ms);
  if (auto bytes = reader.Integer("bodyLimit", 0, limits::kMaxBodyLimit)) route.body_limit = *bytes;
  reader.Labels({"handler", "name", "summary"});
  reader.Labels({"description"}, 4096);
  reader.Strings("tags", 64, 64);
  reader.WarnUnknown();
  if (!well_formed || route.method.empty() || route.path.empty()) return;
  CheckAgainstEarlier(conflicts, manifest, route, path, out);
  manifest.routes.push_back(std::move(route));
}

}  // namespace

void ReadRoutes(const json& api, const std::string& path, Manifest& manifest, Findings& out) {
  ObjectReader reader(api, path, out);
  if (const json* routes = reader.Array("routes", kMaxRoutes)) {
    RouteConflicts conflicts;
    for (size_t i = 0; i < routes->size(); ++i) {
      ReadRoute((*routes)[i], PointerTo(reader.PathOf("routes"), i), conflicts, manifest, out);
    }
  }
  if (auto openapi = reader.String("openapi")) CheckInnerPath(*openapi, reader.PathOf("openapi"), "openapi", out);
  reader.NotApplied("openapi", "descriptions of modules are not served");
  reader.WarnUnknown();
}

void CheckPermissions(const std::vector<std::string>& used, const std::string& path, const Manifest& manifest, Findings& out) {
  for (size_t i = 0; i < used.size(); ++i) {
    if (std::find(manifest.permissions.begin(), manifest.permissions.end(), used[i]) != manifest.permissions.end()) continue;
    out.Error(PointerTo(path, i), "UNDECLARED_PERMISSION",
              absl::StrCat("\"", used[i], "\" is not declared in the manifest's \"permissions\".",
                           out.Suggest(used[i], manifest.permissions)));
  }
}

}  // namespace bulkhead
