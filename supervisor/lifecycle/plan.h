// What an action would do to whom, before it is done. Pure.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/lifecycle/graph.h"
#include "supervisor/lifecycle/transitions.h"

namespace bulkhead {

// One effect, in the order in which they would come.
struct PlanStep {
  std::string module;
  std::string effect;  // install, migrate, start, skip, stop, push, restart, remove, keep, drop
  std::string message;  // a sentence
};

struct Plan {
  std::string module;
  ModuleAction action = ModuleAction::kEnable;
  // Empty: it would be done. Else the errors that are in its way, each followed by its details; the first one would be the answer.
  std::vector<ErrorDetail> refusals;
  std::vector<PlanStep> steps;
};

// What a plan needs to know of a module beyond the graph. Statuses are the errors that the action itself would meet.
struct PlanFacts {
  RegistryStatus status = RegistryStatus::kRegistered;
  bool installed = false;
  bool busy = false;                    // not wanted, and not gone yet
  bool restarts_for_config = false;     // configure
  int workers = 1, manifest_workers = 1;  // scale: as they are wanted, and without an override
  int waiting = 0;                      // reset: workers that wait for their next start, or are not tried any more
  absl::Status unusable;                // MANIFEST_INVALID: the registered manifest is not valid any more
  absl::Status config;                  // stored, under the registered manifest
  bool enabling = false;                // its enable has not succeeded yet
  // Of one that is not installed, or of the version that an upgrade or a rollback goes to: what its folder says, and what the manifest there
  // asks for.
  absl::Status package, package_config;
  std::vector<DependencySpec> package_dependencies;
  std::string package_bulkhead_range;
  std::string package_version;
  bool package_same = false;            // as what is installed
  std::string flag_off;                 // its feature flag, when that is off
  // What keeps it from being started at all: its uid, its extensions, its migrations. An empty code: nothing.
  Reason prepare;
  std::vector<ErrorDetail> prepare_details;
  std::vector<std::string> migrations;  // file names that enable would run
};
using AllPlanFacts = std::map<std::string, PlanFacts>;  // of the module; with dependencies of all in EnableOrder()

struct PlanOptions {
  bool with_dependencies = false;  // enable
  bool purge = false;              // delete
  std::optional<int> workers = {};  // scale; nullopt: the manifest's
};

Plan MakePlan(Graph graph, const std::string& name, ModuleAction action, const PlanOptions& options, const AllPlanFacts& facts);

// `name` and all that it depends on and that is not enabled, however indirectly: dependencies first. DEPENDENCY_UNSATISFIED, with a
// detail for each, for what is not registered or of a wrong version, and for a cycle, whose path is shown.
absl::StatusOr<std::vector<std::string>> EnableOrder(const Graph& graph, const std::string& name);

// "a -> b -> a"
std::string PathText(const std::vector<std::string>& path);

}  // namespace bulkhead
