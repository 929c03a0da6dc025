#include "supervisor/lifecycle/graph.h"

#include <algorithm>
#include <functional>
#include <set>

#include "supervisor/manifest/semver.h"

namespace bulkhead {

bool IsUp(const Standing& standing) {
  return standing.observed == ObservedState::kRunning || standing.observed == ObservedState::kDegraded;
}

Standing StandingOf(const ModuleState& state) {
  Standing standing;
  standing.observed = state.observed;
  standing.settled = Settled(state);
  standing.wanted = state.wanted;
  for (const SlotState& slot : state.slots) standing.present = standing.present || slot.phase != SlotState::Phase::kEmpty;
  standing.blocked = state.wanted && state.observed == ObservedState::kFailed && state.reason.code.starts_with("DEPENDENCY_");
  return standing;
}

std::vector<ErrorDetail> UnsatisfiedDependencies(const Graph& graph, const std::string& name) {
  std::vector<ErrorDetail> details;
  auto self = graph.find(name);
  if (self == graph.end()) return details;
  // A module that was installed may be out of range since the supervisor is another one.
  if (absl::Status fits = CheckBulkheadRange(name, self->second.version, self->second.bulkhead_range); !fits.ok()) details = ErrorDetails(fits);
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
      details.push_back({path, "DISABLED", dependency.module + " " + found->second.version + " is not enabled, needed is " + dependency.range, 0});
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

DependencyVerdict JudgeDependencies(const Graph& graph, const std::string& name) {
  using What = DependencyVerdict::What;
  const GraphNode& self = graph.at(name);
  // Not to be started any more: when somebody wants that again, it is a change, after which it is looked at again.
  ObservedState observed = self.standing.observed;
  if (!self.standing.wanted || observed == ObservedState::kSkipped || observed == ObservedState::kStopping)
    return {What::kWait, {}};
  // First the cycle: to enable what it names would only lead on to the next one.
  if (auto cycle = FindCycle(graph, name)) {
    std::string path;
    for (const std::string& step : *cycle) path += (path.empty() ? "" : " -> ") + step;
    return {What::kFail, {"DEPENDENCY_CYCLE", "the dependencies form a cycle: " + path}};
  }
  if (auto unsatisfied = UnsatisfiedDependencies(graph, name); !unsatisfied.empty())
    return {What::kFail, {"DEPENDENCY_UNSATISFIED", unsatisfied[0].message}};
  DependencyVerdict verdict;
  for (const DependencySpec& dependency : self.dependencies) {
    const Standing& other = graph.at(dependency.module).standing;
    if (IsUp(other)) continue;
    if (other.settled) {
      return {What::kFail,
              {"DEPENDENCY_FAILED",
               "it depends on " + dependency.module + ", which is " + std::string(ObservedStateName(other.observed))}};
    }
    verdict.what = What::kWait;
  }
  return verdict;
}

std::vector<std::string> Unblocked(const Graph& graph) {
  std::vector<std::string> names;
  for (const auto& [name, node] : graph) {
    if (node.standing.blocked && JudgeDependencies(graph, name).what == DependencyVerdict::What::kStart) names.push_back(name);
  }
  return names;
}

std::vector<std::string> StopNext(const Graph& graph) {
  std::set<std::string> needed;
  std::function<void(const GraphNode&)> need = [&](const GraphNode& node) {
    for (const DependencySpec& dependency : node.dependencies) {
      auto found = graph.find(dependency.module);
      if (found != graph.end() && needed.insert(dependency.module).second) need(found->second);
    }
  };
  for (const auto& [name, node] : graph) {
    if (node.standing.present) need(node);
  }
  std::vector<std::string> names;
  for (const auto& [name, node] : graph) {
    if (node.standing.wanted && !needed.contains(name)) names.push_back(name);
  }
  return names;
}

bool NothingLeft(const Graph& graph) {
  return std::none_of(graph.begin(), graph.end(),
                      [](const auto& one) { return one.second.standing.wanted || one.second.standing.present; });
}

Millis TimeLeft::ToDrain(Millis limit, Instant now) const {
  return end ? std::clamp(std::chrono::ceil<Millis>(*end - now) / 3, Millis(0), limit) : limit;
}

Millis TimeLeft::ToStop(Millis limit, Instant now) const {
  return end ? std::clamp(std::chrono::ceil<Millis>(*end - now), Millis(0), limit) : limit;
}

}  // namespace bulkhead
