#include "supervisor/lifecycle/graph.h"

#include <functional>
#include <set>

#include "supervisor/manifest/semver.h"

namespace bulkhead {

std::vector<ErrorDetail> UnsatisfiedDependencies(const Graph& graph, const std::string& name) {
  std::vector<ErrorDetail> details;
  auto self = graph.find(name);
  if (self == graph.end()) return details;
  for (const DependencySpec& dependency : self->second.dependencies) {
    std::string path = "/dependencies/modules/" + dependency.module;
    auto found = graph.find(dependency.module);
    if (found == graph.end()) {
      details.push_back({path, "MISSING", dependency.module + " " + dependency.range + " is not registered", 0});
      continue;
    }
    auto range = SemVerRange::Parse(dependency.range);
    auto version = ParseSemVer(found->second.version);
    if (!range || !version || !range->Contains(*version)) {
      details.push_back(
          {path, "WRONG_VERSION", dependency.module + " is " + found->second.version + ", needed is " + dependency.range, 0});
    } else if (!found->second.enabled) {
      details.push_back({path, "DISABLED", dependency.module + " " + found->second.version + " is not enabled", 0});
    }
  }
  return details;
}

std::vector<std::string> Dependents(const Graph& graph, const std::string& name, bool enabled_only) {
  std::vector<std::string> names;
  for (const auto& [other, node] : graph) {
    if (enabled_only && !node.enabled) continue;
    for (const DependencySpec& dependency : node.dependencies) {
      if (dependency.module == name && other != name) {
        names.push_back(other);
        break;
      }
    }
  }
  return names;
}

std::optional<std::vector<std::string>> FindCycle(const Graph& graph, const std::string& name) {
  std::vector<std::string> path;
  std::set<std::string> seen;
  std::function<bool(const std::string&)> visit = [&](const std::string& at) {
    path.push_back(at);
    auto node = graph.find(at);
    if (node != graph.end()) {
      for (const DependencySpec& dependency : node->second.dependencies) {
        if (dependency.module == name) {
          path.push_back(name);
          return true;
        }
        if (seen.insert(dependency.module).second && visit(dependency.module)) return true;
      }
    }
    path.pop_back();
    return false;
  };
  if (visit(name)) return path;
  return std::nullopt;
}

}  // namespace bulkhead
