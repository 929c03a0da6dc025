// Routes of a manifest: their paths, and that no two of them claim the same request.
#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "supervisor/manifest/nearest.h"
#include "supervisor/manifest/reader.h"

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

enum class Overlapping { kNo, kSame, kAmbiguous, kOrdered };

// Whether some request fits both, and if so whether one of them is the more specific.
Overlapping Compare(const std::string& a, const std::string& b) {
  const auto left = Segments(a), right = Segments(b);
  auto wild = [](const std::vector<absl::string_view>& s) { return !s.empty() && IsWild(s.back()); };
  const size_t fixed_left = left.size() - wild(left), fixed_right = right.size() - wild(right);
  bool same = fixed_left == fixed_right && wild(left) == wild(right);
  for (size_t i = 0; i < std::min(fixed_left, fixed_right); ++i) {
    const bool param_left = IsParam(left[i]), param_right = IsParam(right[i]);
    if (!param_left && !param_right && left[i] != right[i]) return Overlapping::kNo;
    if (param_left != param_right) same = false;
  }
  if (fixed_left != fixed_right && !(fixed_left < fixed_right ? wild(left) : wild(right))) return Overlapping::kNo;
  if (same) return Overlapping::kSame;
  auto literals = [](const std::vector<absl::string_view>& s, size_t n) {
    return std::count_if(s.begin(), s.begin() + static_cast<std::ptrdiff_t>(n), [](absl::string_view x) { return !IsParam(x); });
  };
  const bool equal =
      fixed_left == fixed_right && wild(left) == wild(right) && literals(left, fixed_left) == literals(right, fixed_right);
  return equal ? Overlapping::kAmbiguous : Overlapping::kOrdered;
}

void CheckAgainstEarlier(const Manifest& manifest, const RouteSpec& route, const std::string& path, Findings& out) {
  for (const RouteSpec& earlier : manifest.routes) {
    if (earlier.method != route.method) continue;
    const Overlapping overlap = Compare(earlier.path, route.path);
    if (overlap == Overlapping::kSame) {
      out.Error(path, "DUPLICATE_ROUTE",
                absl::StrCat(route.method, " ", route.path, " is the same route as ", earlier.path, " above."));
      return;
    }
    if (overlap == Overlapping::kAmbiguous) {
      out.Error(path, "ROUTE_CONFLICT",
                absl::StrCat(route.method, " ", route.path, " and ", earlier.path,
                             " fit the same requests and neither is the more specific."));
      return;
    }
  }
}

void ReadRoute(const json& value, const std::string& path, Manifest& manifest, Findings& out) {
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
                             DidYouMean(route.method, Methods())));
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
  reader.Accept({"handler", "name", "summary", "description", "tags"});
  reader.WarnUnknown();
  if (!well_formed || route.method.empty() || route.path.empty()) return;
  CheckAgainstEarlier(manifest, route, path, out);
  manifest.routes.push_back(std::move(route));
}

}  // namespace

void ReadRoutes(const json& api, const std::string& path, Manifest& manifest, Findings& out) {
  ObjectReader reader(api, path, out);
  if (const json* routes = reader.Array("routes", kMaxRoutes)) {
    for (size_t i = 0; i < routes->size(); ++i) ReadRoute((*routes)[i], PointerTo(reader.PathOf("routes"), i), manifest, out);
  }
  if (auto openapi = reader.String("openapi"); openapi && !IsInnerPath(*openapi)) {
    out.Error(reader.PathOf("openapi"), "INVALID_PATH",
              "\"openapi\" must be a file inside the module's folder, without \"..\" and not absolute.");
  }
  reader.NotApplied("openapi", "descriptions of modules are not served");
  reader.WarnUnknown();
}

void CheckPermissions(const std::vector<std::string>& used, const std::string& path, const Manifest& manifest, Findings& out) {
  for (size_t i = 0; i < used.size(); ++i) {
    if (std::find(manifest.permissions.begin(), manifest.permissions.end(), used[i]) != manifest.permissions.end()) continue;
    out.Error(PointerTo(path, i), "UNDECLARED_PERMISSION",
              absl::StrCat("\"", used[i], "\" is not declared in the manifest's \"permissions\".",
                           DidYouMean(used[i], manifest.permissions)));
  }
}

}  // namespace bulkhead
