#include "supervisor/gateway/route_table.h"

#include <algorithm>
#include <array>
#include <map>

#include "supervisor/base/text.h"

namespace bulkhead {
namespace {

constexpr std::array<std::string_view, 7> kMethods = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"};
constexpr int kGet = 0, kHead = 1, kUnknownMethod = -1;

int MethodIndex(std::string_view method) {
  for (size_t i = 0; i < kMethods.size(); ++i) {
    if (kMethods[i] == method) return int(i);
  }
  return kUnknownMethod;
}

using ByMethod = std::array<const RouteSpec*, kMethods.size()>;

// What is left of a path, a segment at a time.
struct Segments {
  std::string_view rest;  // begins with '/' or is empty
  bool empty() const { return rest.empty(); }
  // The next segment, raw.
  std::string_view Take() {
    rest.remove_prefix(1);
    size_t slash = rest.find('/');
    std::string_view segment = rest.substr(0, slash);
    rest = slash == std::string_view::npos ? std::string_view() : rest.substr(slash);
    return segment;
  }
};

}  // namespace

struct RouteTable::Node {
  std::map<std::string, std::unique_ptr<Node>, std::less<>> literals;
  std::unique_ptr<Node> parameter;
  ByMethod here{};      // the path ends at this node
  ByMethod wildcard{};  // "*" behind this node

  const RouteSpec* Pick(const ByMethod& routes, int method, Match& match) const {
    if (method != kUnknownMethod && routes[method]) return routes[method];
    if (method == kHead && routes[kGet]) {
      match.head_as_get = true;
      return routes[kGet];
    }
    for (size_t i = 0; i < routes.size(); ++i) {
      if (routes[i]) match.allowed |= 1u << i;
    }
    return nullptr;
  }

  // Each node is visited at most once, so a table's size bounds the work.
  const RouteSpec* Find(Segments path, int method, Match& match) const {
    if (path.empty()) return Pick(here, method, match);
    Segments rest = path;
    std::string_view segment = rest.Take();
    std::string decoded;
    if (segment.find('%') != std::string_view::npos) {
      if (!PercentDecode(segment, decoded)) return nullptr;
      segment = decoded;
    }
    if (auto it = literals.find(segment); it != literals.end()) {
      if (auto* route = it->second->Find(rest, method, match)) return route;
    }
    if (parameter && !segment.empty()) {
      if (auto* route = parameter->Find(rest, method, match)) return route;
    }
    return Pick(wildcard, method, match);
  }
};

RouteTable::RouteTable(std::shared_ptr<const Manifest> manifest) : manifest_(std::move(manifest)), root_(std::make_unique<Node>()) {
  for (const RouteSpec& route : manifest_->routes) Add(route);
}
RouteTable::~RouteTable() = default;

void RouteTable::Add(const RouteSpec& route) {
  int method = MethodIndex(route.method);
  if (method == kUnknownMethod || route.path.empty() || route.path[0] != '/') return;  // the manifest's checks refuse such routes
  Node* node = root_.get();
  Segments path{route.path};
  while (!path.empty()) {
    std::string_view segment = path.Take();
    if (segment == "*" && path.empty()) {
      if (!node->wildcard[method]) node->wildcard[method] = &route;
      return;
    }
    std::unique_ptr<Node>& next = segment.starts_with(':') ? node->parameter : node->literals[std::string(segment)];
    if (!next) next = std::make_unique<Node>();
    node = next.get();
  }
  if (!node->here[method]) node->here[method] = &route;  // of two equal routes the first serves
}

RouteTable::Match RouteTable::Find(std::string_view method, std::string_view path) const {
  Match match;
  match.route = root_->Find(Segments{path}, MethodIndex(method), match);
  return match;
}

std::string RouteTable::AllowHeader(uint32_t allowed) {
  if (allowed & (1u << kGet)) allowed |= 1u << kHead;
  std::string list;
  for (size_t i = 0; i < kMethods.size(); ++i) {
    if (!(allowed & (1u << i))) continue;
    if (!list.empty()) list += ", ";
    list += kMethods[i];
  }
  return list;
}

}  // namespace bulkhead
