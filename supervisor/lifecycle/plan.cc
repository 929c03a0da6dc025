#include "supervisor/lifecycle/plan.h"

#include <algorithm>
#include <functional>
#include <set>
#include <utility>

#include "supervisor/lifecycle/refusals.h"

namespace bulkhead {
namespace {

bool IsRouted(const GraphNode& node) { return node.standing.wanted && node.standing.present; }

// An error with all that it says of places.
void Refuse(const absl::Status& why, Plan& plan) {
  if (why.ok()) return;
  plan.refusals.push_back({"", ErrorCode(why), std::string(why.message())});
  for (ErrorDetail& detail : ErrorDetails(why)) plan.refusals.push_back(std::move(detail));
}

// What comes before all else, in the order in which a command is looked at.
absl::Status CheckCommand(const std::string& name, ModuleAction action, const PlanFacts& facts) {
  if (action == ModuleAction::kEnable || action == ModuleAction::kConfigure) RETURN_IF_ERROR(facts.unusable);
  return CheckTransition(name, facts.status, action);
}

// Why it would not come up once it is enabled, as far as that can be known.
absl::Status CheckStart(Graph& graph, const std::string& name, const PlanFacts& facts, bool already) {
  Standing& standing = graph.at(name).standing;
  const Standing before = std::exchange(standing, {ObservedState::kStarting, false, true, false, false});
  const DependencyVerdict verdict = JudgeDependencies(graph, name);
  standing = before;
  auto failure = [&](const Reason& reason, std::vector<ErrorDetail> details) {
    return already ? RestartFailure(name, reason, std::move(details)) : EnableFailure(name, reason, std::move(details));
  };
  if (verdict.what == DependencyVerdict::What::kFail) return failure(verdict.reason, {});
  if (already && !facts.config.ok()) {
    const std::string code = ErrorCode(facts.config);
    const std::vector<ErrorDetail> details = ErrorDetails(facts.config);
    return failure({code, code == "CONFIG_INVALID" ? ConfigSentence(details) : std::string(facts.config.message())}, details);
  }
  return facts.prepare.code.empty() ? absl::OkStatus() : failure(facts.prepare, facts.prepare_details);
}

// What is asked before a module that is not enabled is, and again when its folder has been read, which may say more.
std::vector<absl::Status> CheckBeforeEnable(Graph& graph, const std::string& name, const PlanFacts& facts) {
  const absl::Status dependencies = CheckDependencies(graph, name);
  std::vector<absl::Status> wrong = {dependencies, facts.config};
  if (!facts.installed) {
    wrong.push_back(facts.package);
    if (facts.package.ok()) {
      graph.at(name).dependencies = facts.package_dependencies;
      graph.at(name).bulkhead_range = facts.package_bulkhead_range;
      if (dependencies.ok()) wrong.push_back(CheckDependencies(graph, name));
      if (facts.config.ok()) wrong.push_back(facts.package_config);
    }
  }
  std::erase_if(wrong, [](const absl::Status& one) { return one.ok(); });
  return wrong;
}

// Enables one in `graph`, whether or not something is in the way, and answers what is. `first_for`: for whose sake, when not its own.
std::vector<absl::Status> EnableOne(Graph& graph, const std::string& name, const PlanFacts& facts, const std::string& first_for, Plan& plan) {
  std::vector<absl::Status> wrong;
  GraphNode& self = graph.at(name);
  const bool already = JudgeTransition(facts.status, ModuleAction::kEnable) == TransitionVerdict::kAlreadySo;
  const bool comes_up = self.standing.wanted && (!self.standing.settled || IsUp(self.standing));
  if (absl::Status allowed = CheckCommand(name, ModuleAction::kEnable, facts); !allowed.ok()) {
    wrong = {allowed};
  } else if (!already) {
    wrong = CheckBeforeEnable(graph, name, facts);
  }
  if (wrong.empty() && facts.flag_off.empty() && !(already && comes_up)) {
    if (absl::Status starts = CheckStart(graph, name, facts, already); !starts.ok()) wrong = {starts};
  }
  if (!already && !facts.installed) plan.steps.push_back({name, "install", "its folder is copied to an immutable one of this version"});
  if (!facts.flag_off.empty()) {
    plan.steps.push_back({name, "skip", "it " + std::string(already ? "stays" : "is enabled and stays") + " skipped as long as its feature flag " +
                                            facts.flag_off + " is off: nothing of it is started"});
  } else if (!already || !comes_up) {
    for (const std::string& file : facts.migrations) plan.steps.push_back({name, "migrate", file + " is run"});
    plan.steps.push_back({name, "start", !first_for.empty() ? name + " is enabled first: " + first_for + " depends on it"
                                         : already          ? "it is enabled and does not run: its start is tried again"
                                                            : "its workers are started, then its routes and jobs are there"});
  }
  self.enabled = true;
  if (!comes_up)
    self.standing = {facts.flag_off.empty() ? ObservedState::kRunning : ObservedState::kSkipped, true, true, facts.flag_off.empty(), false};
  return wrong;
}

void PlanEnable(Graph& graph, const std::string& name, bool with_dependencies, const AllPlanFacts& facts, Plan& plan) {
  if (absl::Status allowed = CheckCommand(name, ModuleAction::kEnable, facts.at(name)); !allowed.ok()) return Refuse(allowed, plan);
  std::vector<std::string> order = {name};
  if (with_dependencies) {
    auto chain = EnableOrder(graph, name);
    if (!chain.ok()) return Refuse(chain.status(), plan);
    order = *std::move(chain);
  }
  for (const std::string& module : order) {
    const std::string first_for = module == name ? "" : name;
    for (const absl::Status& why : EnableOne(graph, module, facts.at(module), first_for, plan)) Refuse(ChainFailure(name, module, why), plan);
  }
}

void PlanScale(const Graph& graph, const std::string& name, std::optional<int> workers, const PlanFacts& facts, Plan& plan) {
  if (absl::Status wrong = CheckWorkers(workers); !wrong.ok()) return Refuse(wrong, plan);
  Refuse(CheckCommand(name, ModuleAction::kScale, facts), plan);
  const int wanted = workers.value_or(facts.manifest_workers), more = wanted - facts.workers;
  if (more == 0 || !IsRouted(graph.at(name))) return;
  const std::string to = " of its workers, so that there are " + std::to_string(wanted);
  plan.steps.push_back(more > 0 ? PlanStep{name, "start", std::to_string(more) + " more" + to + ", are started"}
                                : PlanStep{name, "stop", std::to_string(-more) + to + ", get no more requests, finish what they have and stop"});
}

void PlanDelete(const Graph& graph, const std::string& name, bool purge, const PlanFacts& facts, Plan& plan) {
  const absl::Status allowed = CheckCommand(name, ModuleAction::kDelete, facts);
  Refuse(allowed, plan);
  Refuse(CheckDependents(graph, name, false), plan);
  if (allowed.ok() && facts.busy) Refuse(StillStopping(name, facts.status), plan);
  plan.steps.push_back({name, "remove", "its registration, configuration and installed copies are removed"});
  plan.steps.push_back(purge ? PlanStep{name, "drop", "its database schema, role, data folder and files are dropped with all data"}
                             : PlanStep{name, "keep", "its database schema and data folder stay"});
}

// To another version, in the order in which the action looks at it.
void PlanVersion(const Graph& graph, const std::string& name, ModuleAction action, const PlanFacts& facts, Plan& plan) {
  if (absl::Status allowed = CheckCommand(name, action, facts); !allowed.ok()) return Refuse(allowed, plan);
  if (facts.enabling) return Refuse(StillEnabling(name, facts.status), plan);
  if (!facts.package.ok()) return Refuse(facts.package, plan);
  if (facts.package_same) return;
  Refuse(CheckOtherVersion(graph, name, facts.package_version, facts.package_dependencies, facts.package_bulkhead_range), plan);
  Refuse(facts.package_config, plan);
  const bool routed = IsRouted(graph.at(name)), back = action == ModuleAction::kRollback;
  if (routed && !facts.prepare.code.empty()) Refuse(EnableFailure(name, facts.prepare, facts.prepare_details), plan);
  const std::string version = "version " + facts.package_version;
  if (!back) plan.steps.push_back({name, "install", "the folder of " + version + " is copied to an immutable one"});
  if (!routed) {
    plan.steps.push_back({name, "keep", "nothing of it runs: " + version + " is what an enable starts"});
    return;
  }
  for (const std::string& file : facts.migrations) plan.steps.push_back({name, "migrate", file + " is run while the workers serve"});
  plan.steps.push_back({name, "start", "workers of " + version + " are started beside the others, and take over when all are ready"});
  plan.steps.push_back({name, "stop", "the workers of version " + graph.at(name).version + " finish what is in flight, then they stop"});
}

void PlanRestart(const Graph& graph, const std::string& name, ModuleAction action, const PlanFacts& facts, Plan& plan) {
  if (absl::Status allowed = CheckCommand(name, action, facts); !allowed.ok()) return Refuse(allowed, plan);
  if (facts.enabling) return Refuse(StillEnabling(name, facts.status), plan);
  if (!IsRouted(graph.at(name))) return;
  plan.steps.push_back({name, "restart", action == ModuleAction::kReload ? "its workers are stopped and started again, one after another"
                                                                        : "its workers are replaced one after another, each when the next one is ready"});
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

Plan MakePlan(Graph graph, const std::string& name, ModuleAction action, const PlanOptions& options, const AllPlanFacts& all) {
  Plan plan;
  plan.module = name;
  plan.action = action;
  const PlanFacts& facts = all.at(name);
  const bool already = JudgeTransition(facts.status, action) == TransitionVerdict::kAlreadySo;
  switch (action) {
    case ModuleAction::kInstall:
      Refuse(CheckCommand(name, action, facts), plan);
      if (already) break;
      Refuse(facts.package, plan);
      plan.steps.push_back({name, "install", "its folder is copied to an immutable one of this version"});
      break;
    case ModuleAction::kEnable: PlanEnable(graph, name, options.with_dependencies, all, plan); break;
    case ModuleAction::kDisable:
      Refuse(CheckCommand(name, action, facts), plan);
      Refuse(CheckDependents(graph, name, true), plan);
      if (!already) plan.steps.push_back({name, "stop", "its routes and jobs go at once, what is in flight is finished, then its workers stop"});
      break;
    case ModuleAction::kConfigure:
      Refuse(CheckCommand(name, action, facts), plan);
      if (!IsRouted(graph.at(name))) break;
      if (facts.restarts_for_config) {
        plan.steps.push_back({name, "restart", "its workers are restarted with the new configuration, one after another"});
      } else {
        plan.steps.push_back({name, "push", "the new configuration is handed to its running workers, which may refuse it"});
      }
      break;
    case ModuleAction::kScale: PlanScale(graph, name, options.workers, facts, plan); break;
    case ModuleAction::kReset:
      Refuse(CheckCommand(name, action, facts), plan);
      if (facts.waiting > 0) {
        plan.steps.push_back({name, "start", "what has happened to its workers is forgotten, and of " + std::to_string(facts.waiting) +
                                                 " that wait or are not tried any more the start is tried at once"});
      }
      break;
    case ModuleAction::kReload:
    case ModuleAction::kRestart: PlanRestart(graph, name, action, facts, plan); break;
    case ModuleAction::kUpgrade:
    case ModuleAction::kRollback: PlanVersion(graph, name, action, facts, plan); break;
    case ModuleAction::kDelete: PlanDelete(graph, name, options.purge, facts, plan); break;
  }
  if (!plan.refusals.empty()) plan.steps.clear();
  return plan;
}

}  // namespace bulkhead
