// What an action would do to whom, before it is done. Pure.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/lifecycle/graph.h"
#include "supervisor/lifecycle/transitions.h"

namespace bulkhead {

// One effect, in the order in which they would come.
struct PlanStep {
  std::string module;
  std::string effect;  // install, migrate, start, stop, push, restart, remove, keep, drop
  std::string message;  // a sentence
};

struct Plan {
  std::string module;
  ModuleAction action = ModuleAction::kEnable;
  // Empty: it would be done. A refusal has the code of the error that would be the answer.
  std::vector<ErrorDetail> refusals;
  std::vector<PlanStep> steps;
};

// What a plan needs to know of the module beyond the graph.
struct PlanFacts {
  RegistryStatus status = RegistryStatus::kRegistered;
  bool installed = false;
  bool with_dependencies = false;   // enable
  bool purge = false;               // delete
  bool restarts_for_config = false;  // configure
  std::vector<std::string> migrations;  // file names that enable would run
  // Errors of a configuration that would keep it from starting, and the like, found elsewhere.
  std::vector<ErrorDetail> problems;
};

Plan MakePlan(const Graph& graph, const std::string& name, ModuleAction action, const PlanFacts& facts);

// `name` and all that it depends on and that is not enabled, however indirectly: dependencies first. DEPENDENCY_UNSATISFIED, with a
// detail for each, for what is not registered or of a wrong version, and for a cycle, whose path is shown.
absl::StatusOr<std::vector<std::string>> EnableOrder(const Graph& graph, const std::string& name);

// "a -> b -> a"
std::string PathText(const std::vector<std::string>& path);

}  // namespace bulkhead
