// What is answered to a command that can't be done, where an action and its plan must say the same. Pure.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "supervisor/lifecycle/graph.h"
#include "supervisor/store/registry.h"

namespace bulkhead {

// DEPENDENCY_UNSATISFIED, with a detail for each thing that keeps `name` from being enabled, or with the cycle that it is in.
absl::Status CheckDependencies(const Graph& graph, const std::string& name);
// HAS_DEPENDENTS, with a detail for each: of a disable those that are enabled, of a removal all.
absl::Status CheckDependents(const Graph& graph, const std::string& name, bool enabled_only);
// Whether `name` may be of another version: HAS_DEPENDENTS, with a detail for each enabled module whose range does not hold it;
// DEPENDENCY_UNSATISFIED when it needs another supervisor, or, of an enabled one, what is not there.
absl::Status CheckOtherVersion(Graph graph, const std::string& name, const std::string& version, std::vector<DependencySpec> dependencies,
                               const std::string& bulkhead_range);
// NO_PREVIOUS_VERSION.
absl::Status WithoutPreviousVersion(const std::string& name, RegistryStatus status);
// MODULE_BUSY of one that is being enabled.
absl::Status StillEnabling(const std::string& name, RegistryStatus status);
// MODULE_BUSY of one that is no longer wanted and not gone yet.
absl::Status StillStopping(const std::string& name, RegistryStatus status);
// Of a module that can't be installed, as nobody has said where its files are: PACKAGE_INVALID.
absl::Status WithoutFolder(const std::string& name);

// INVALID_ARGUMENT for a number of workers that no module can have.
absl::Status CheckWorkers(std::optional<int> workers);

// Of an enable whose start failed, which is taken back. What keeps a module from being started at all has a code of its own (MIGRATION_…,
// CONFIG_INVALID, EXTENSION_NOT_ALLOWED, ACCESS_CONFLICT, CLIENT_NOT_CONFIGURED, ISOLATION_INCOMPLETE); all else is MODULE_START_FAILED. `details`: places of
// mistakes, where they are known.
absl::Status EnableFailure(const std::string& name, const Reason& reason, std::vector<ErrorDetail> details);
// Of a module that was enabled before and can't be started again: MODULE_START_FAILED.
absl::Status RestartFailure(const std::string& name, const Reason& reason, std::vector<ErrorDetail> details);
// Why a module is not started with its configuration, from what is wrong with that.
std::string ConfigSentence(const std::vector<ErrorDetail>& details);
// Of `name`, which is not enabled because of `why`, which happened to `failed` on the way.
absl::Status ChainFailure(const std::string& name, const std::string& failed, const absl::Status& why);

}  // namespace bulkhead
