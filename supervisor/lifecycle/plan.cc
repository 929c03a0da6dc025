#include "supervisor/lifecycle/plan.h"

#include <algorithm>
#include <functional>
#include <set>

#include "supervisor/manifest/semver.h"

namespace bulkhead {
namespace {

bool Runs(const GraphNode& node) { return node.standing.wanted && node.standing.present; }

// The dependents, nearest first, that a stop of `name` would leave without it.
void AddDependents(const Graph& graph, const std::string& name, bool enabled_only, Plan& plan) {
  for (const std::string& other : Dependents(graph, name, enabled_only)) {
    const GraphNode& node = graph.at(other);
    std::string range;
    for (const DependencySpec& dependency : node.dependencies) {
      if (dependency.module == name) range = dependency.range;
    }
    plan.refusals.push_back({"", "HAS_DEPENDENTS",
                             other + " " + node.version + (node.enabled ? ", which is enabled," : "") + " depends on " + name + " " + range});
  }
}

void PlanEnable(const Graph& graph, const std::string& name, const PlanFacts& facts, Plan& plan) {
  std::vector<std::string> order = {name};
  if (facts.with_dependencies) {
    if (auto chain = EnableOrder(graph, name); chain.ok()) {
      order = *chain;
    } else {
      for (ErrorDetail& detail : ErrorDetails(chain.status())) plan.refusals.push_back(std::move(detail));
    }
  } else {
    for (ErrorDetail& detail : UnsatisfiedDependencies(graph, name)) plan.refusals.push_back(std::move(detail));
    if (auto cycle = FindCycle(graph, name))
      plan.refusals.push_back({"/dependencies/modules", "DEPENDENCY_CYCLE", "the dependencies form a cycle: " + PathText(*cycle)});
  }
  for (const std::string& module : order) {
    if (module != name) {
      plan.steps.push_back({module, "start", module + " is enabled first: " + name + " depends on it"});
      continue;
    }
    if (!facts.installed) plan.steps.push_back({name, "install", "its folder is copied to an immutable one of this version"});
    for (const std::string& file : facts.migrations) plan.steps.push_back({name, "migrate", file + " is run"});
    plan.steps.push_back({name, "start", "its workers are started, then its routes and jobs are there"});
  }
}

}  // namespace

std::string PathText(const std::vector<std::string>& path) {
  std::string text;
  for (const std::string& step : path) text += (text.empty() ? "" : " -> ") + step;
  return text;
}

absl::StatusOr<std::vector<std::string>> EnableOrder(const Graph& graph, const std::string& name) {
  std::vector<ErrorDetail> wrong;
  std::vector<std::string> order, path;
  std::set<std::string> done;
  std::function<void(const std::string&)> visit = [&](const std::string& at) {
    if (auto begin = std::find(path.begin(), path.end(), at); begin != path.end()) {
      std::vector<std::string> cycle(begin, path.end());
      cycle.push_back(at);
      wrong.push_back({"/dependencies/modules", "DEPENDENCY_CYCLE", "the dependencies form a cycle: " + PathText(cycle)});
      return;
    }
    if (done.contains(at)) return;
    path.push_back(at);
    for (const ErrorDetail& detail : UnsatisfiedDependencies(graph, at)) {
      if (detail.code == "DISABLED") continue;
      ErrorDetail named = detail;
      if (detail.path.starts_with("/dependencies/modules/")) named.message += ", asked for by " + at;
      wrong.push_back(std::move(named));
    }
    for (const DependencySpec& dependency : graph.at(at).dependencies) {
      auto found = graph.find(dependency.module);
      if (found != graph.end() && !found->second.enabled) visit(dependency.module);
    }
    path.pop_back();
    done.insert(at);
    order.push_back(at);
  };
  visit(name);
  if (wrong.empty()) return order;
  const std::string message = "module " + name + " can't be enabled with its dependencies: " + wrong.front().message;
  return Error("DEPENDENCY_UNSATISFIED", message, std::move(wrong));
}

Plan MakePlan(const Graph& graph, const std::string& name, ModuleAction action, const PlanFacts& facts) {
  Plan plan;
  plan.module = name;
  plan.action = action;
  if (absl::Status allowed = CheckTransition(name, facts.status, action); !allowed.ok())
    plan.refusals.push_back({"/status", ErrorCode(allowed), std::string(allowed.message())});
  const bool already = JudgeTransition(facts.status, action) == TransitionVerdict::kAlreadySo;
  const GraphNode& self = graph.at(name);
  for (const ErrorDetail& problem : facts.problems) plan.refusals.push_back(problem);
  switch (action) {
    case ModuleAction::kInstall:
      if (!already) plan.steps.push_back({name, "install", "its folder is copied to an immutable one of this version"});
      break;
    case ModuleAction::kEnable:
      if (!already) PlanEnable(graph, name, facts, plan);
      break;
    case ModuleAction::kDisable:
      AddDependents(graph, name, true, plan);
      if (!already) plan.steps.push_back({name, "stop", "its routes and jobs go at once, what is in flight is finished, then its workers stop"});
      break;
    case ModuleAction::kConfigure:
      if (!Runs(self)) break;
      if (facts.restarts_for_config) {
        plan.steps.push_back({name, "restart", "its workers are restarted with the new configuration, one after another"});
      } else {
        plan.steps.push_back({name, "push", "the new configuration is handed to its running workers, which may refuse it"});
      }
      break;
    case ModuleAction::kDelete:
      AddDependents(graph, name, false, plan);
      plan.steps.push_back({name, "remove", "its registration, configuration and installed copies are removed"});
      plan.steps.push_back(facts.purge ? PlanStep{name, "drop", "its database schema, role and data folder are dropped with all data"}
                                       : PlanStep{name, "keep", "its database schema and data folder stay"});
      break;
  }
  if (!plan.refusals.empty()) plan.steps.clear();
  return plan;
}

}  // namespace bulkhead
