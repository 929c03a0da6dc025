// Who depends on whom, and what that forbids. Pure.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "supervisor/base/status.h"
#include "supervisor/manifest/manifest.h"

namespace bulkhead {

struct GraphNode {
  std::string version;
  bool enabled = false;
  std::vector<DependencySpec> dependencies;
};
using Graph = std::map<std::string, GraphNode>;  // all registered modules

// What keeps `name` from being enabled: a detail for each dependency that is not registered, not enabled or of a version outside
// the range, naming the range. Empty: nothing.
std::vector<ErrorDetail> UnsatisfiedDependencies(const Graph& graph, const std::string& name);
// Modules that name `name` as a dependency, sorted.
std::vector<std::string> Dependents(const Graph& graph, const std::string& name, bool enabled_only);
// A cycle through `name`, as its path "a, b, a"; nullopt when there is none.
std::optional<std::vector<std::string>> FindCycle(const Graph& graph, const std::string& name);

}  // namespace bulkhead
