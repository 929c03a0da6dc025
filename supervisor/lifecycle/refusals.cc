#include "supervisor/lifecycle/refusals.h"

#include <utility>

#include "supervisor/base/limits.h"
#include "supervisor/lifecycle/plan.h"
#include "supervisor/lifecycle/transitions.h"
#include "supervisor/manifest/semver.h"

namespace bulkhead {
namespace {

std::string Join(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

}  // namespace

absl::Status CheckDependencies(const Graph& graph, const std::string& name) {
  if (auto cycle = FindCycle(graph, name)) {
    const std::string message = "the dependencies form a cycle: " + PathText(*cycle);
    return Error("DEPENDENCY_UNSATISFIED", message, {{"/dependencies/modules", "DEPENDENCY_CYCLE", message, 0}});
  }
  if (auto details = UnsatisfiedDependencies(graph, name); !details.empty()) {
    const std::string message = "module " + name + " can't be enabled: " + details[0].message;
    return Error("DEPENDENCY_UNSATISFIED", message, std::move(details));
  }
  return absl::OkStatus();
}

absl::Status CheckDependents(const Graph& graph, const std::string& name, bool enabled_only) {
  const std::vector<std::string> dependents = Dependents(graph, name, enabled_only);
  if (dependents.empty()) return absl::OkStatus();
  std::vector<ErrorDetail> details;
  for (const std::string& other : dependents) {
    const GraphNode& node = graph.at(other);
    for (const DependencySpec& dependency : node.dependencies) {
      if (dependency.module == name)
        details.push_back({"", "DEPENDENT", other + " " + node.version + " needs " + name + " " + dependency.range, 0});
    }
  }
  const std::string message = enabled_only ? "enabled modules depend on " + name + ": " + Join(dependents) + "; disable them first"
                                           : "registered modules depend on " + name + ": " + Join(dependents) + "; delete them first";
  return Error("HAS_DEPENDENTS", message, std::move(details));
}

namespace {

absl::Status CheckDependentRanges(const Graph& graph, const std::string& name) {
  const std::string& version = graph.at(name).version;
  const auto parsed = ParseSemVer(version);
  std::vector<ErrorDetail> details;
  std::vector<std::string> against;
  for (const std::string& other : Dependents(graph, name, true)) {
    const GraphNode& node = graph.at(other);
    for (const DependencySpec& dependency : node.dependencies) {
      if (dependency.module != name) continue;
      const auto range = SemVerRange::Parse(dependency.range);
      if (parsed && range && range->Contains(*parsed)) continue;
      details.push_back({"", "DEPENDENT", other + " " + node.version + " needs " + name + " " + dependency.range, 0});
      against.push_back(other);
    }
  }
  if (details.empty()) return absl::OkStatus();
  const std::string message =
      "enabled modules need another version of " + name + " than " + version + ": " + Join(against) + "; upgrade or disable them first";
  return Error("HAS_DEPENDENTS", message, std::move(details));
}

}  // namespace

absl::Status CheckOtherVersion(Graph graph, const std::string& name, const std::string& version, std::vector<DependencySpec> dependencies,
                               const std::string& bulkhead_range) {
  RETURN_IF_ERROR(CheckBulkheadRange(name, version, bulkhead_range));
  GraphNode& node = graph.at(name);
  node.version = version;
  node.dependencies = std::move(dependencies);
  node.bulkhead_range = bulkhead_range;
  RETURN_IF_ERROR(CheckDependentRanges(graph, name));
  return node.enabled ? CheckDependencies(graph, name) : absl::OkStatus();
}

absl::Status WithoutPreviousVersion(const std::string& name, RegistryStatus status) {
  return StateRefusal("NO_PREVIOUS_VERSION",
                      "module " + name + " has no version to go back to; POST /api/v1/modules/" + name + "/upgrade {\"version\": …} takes another one", status);
}

absl::Status StillEnabling(const std::string& name, RegistryStatus status) {
  return StateRefusal("MODULE_BUSY", "module " + name + " is still being enabled; wait for the end of that, then try again", status);
}

absl::Status StillStopping(const std::string& name, RegistryStatus status) {
  return StateRefusal("MODULE_BUSY", "module " + name + " is still stopping; try again", status);
}

absl::Status WithoutFolder(const std::string& name) {
  return Error("PACKAGE_INVALID", "module " + name + " was registered without `path`; delete it and register it with the folder of its files");
}

absl::Status CheckWorkers(std::optional<int> workers) {
  if (!workers || (*workers >= 1 && *workers <= limits::kMaxWorkers)) return absl::OkStatus();
  const std::string message = "workers must be a whole number from 1 to " + std::to_string(limits::kMaxWorkers) +
                              ", or null for the manifest's; disable the module to have none";
  return Error("INVALID_ARGUMENT", message, {{"/workers", "INVALID_ARGUMENT", message, 0}});
}

absl::Status EnableFailure(const std::string& name, const Reason& reason, std::vector<ErrorDetail> details) {
  // What keeps a module from being started at all has a code of its own; all else is a failed start.
  const bool own_code =
      reason.code.starts_with("MIGRATION_") || reason.code.starts_with("EXTENSION_") || reason.code == "CONFIG_INVALID" ||
      reason.code == "ACCESS_CONFLICT" || reason.code == "CLIENT_NOT_CONFIGURED" || reason.code == "ISOLATION_INCOMPLETE";
  const std::string code = own_code ? reason.code : "MODULE_START_FAILED";
  // The place of a mistake, where one is known, says more than the sentence once more.
  if (details.empty() || code != reason.code) details.insert(details.begin(), {"", reason.code, reason.message, 0});
  return Error(code, "module " + name + " could not be enabled: " + reason.message, std::move(details));
}

absl::Status RestartFailure(const std::string& name, const Reason& reason, std::vector<ErrorDetail> details) {
  details.insert(details.begin(), {"", reason.code, reason.message, 0});
  return Error("MODULE_START_FAILED", "module " + name + " is enabled but failed: " + reason.message, std::move(details));
}

std::string ConfigSentence(const std::vector<ErrorDetail>& details) {
  return details.empty() ? "configuration" : "configuration: " + details[0].path + ": " + details[0].message;
}

absl::Status ChainFailure(const std::string& name, const std::string& failed, const absl::Status& why) {
  if (failed == name) return why;
  std::vector<ErrorDetail> details = ErrorDetails(why);
  details.insert(details.begin(), {"/dependencies/modules/" + failed, ErrorCode(why), std::string(why.message()), 0});
  const std::string message = "module " + name + " was not enabled, because " + failed + ", on which it depends, could not be: " +
                              std::string(why.message()) + ". What was enabled on the way is disabled again";
  return Error(ErrorCode(why), message, std::move(details));
}

}  // namespace bulkhead
