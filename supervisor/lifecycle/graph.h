// Who depends on whom: what that forbids, and in which order a node starts and stops its modules. Pure.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "supervisor/base/clock.h"
#include "supervisor/base/status.h"
#include "supervisor/lifecycle/step.h"
#include "supervisor/manifest/manifest.h"

namespace bulkhead {

// Where a module is on this node, as far as others wait for it to be up or gone.
struct Standing {
  ObservedState observed = ObservedState::kStopped;
  bool settled = true;  // neither starting nor stopping
  bool wanted = false;
  bool present = false;  // some of it is there: a process, or a change that not every reader of the Directory knows yet
  bool blocked = false;  // wanted, and failed for the sake of a module that it depends on
};
Standing StandingOf(const ModuleState& state);
bool IsUp(const Standing& standing);  // it runs, perhaps unwell: what depends on it may start

struct GraphNode {
  std::string version;
  bool enabled = false;
  std::vector<DependencySpec> dependencies;
  Standing standing;
  std::string bulkhead_range = {};  // that this supervisor must be in
};
using Graph = std::map<std::string, GraphNode>;  // all registered modules

// What keeps `name` from being enabled: a detail for each dependency that is not registered, not enabled or of a version outside
// the range, naming the range; and for this supervisor, when it is outside the module's range. Empty: nothing.
std::vector<ErrorDetail> UnsatisfiedDependencies(const Graph& graph, const std::string& name);
// Modules that name `name` as a dependency, sorted.
std::vector<std::string> Dependents(const Graph& graph, const std::string& name, bool enabled_only);
// A cycle through `name`, as its path "a, b, a"; nullopt when there is none.
std::optional<std::vector<std::string>> FindCycle(const Graph& graph, const std::string& name);

// Whether a wanted module may be prepared and started: all that it depends on must run. Looked at again after each change, of
// whatever module, until it no longer says kWait.
struct DependencyVerdict {
  enum class What { kStart, kWait, kFail } what = What::kStart;
  Reason reason;  // of kFail: DEPENDENCY_…
};
DependencyVerdict JudgeDependencies(const Graph& graph, const std::string& name);
// The blocked modules for which that verdict is kStart by now, sorted: they are tried again.
std::vector<std::string> Unblocked(const Graph& graph);

// What a node that shuts down stops next: the wanted modules on which no present one depends, however indirectly, sorted. Looked
// at again after each change until NothingLeft().
std::vector<std::string> StopNext(const Graph& graph);
bool NothingLeft(const Graph& graph);  // neither wanted nor present

// The time that a node has left when it shuts down, and what a leaving worker may have of it. Without an end: all that it asks for.
struct TimeLeft {
  std::optional<Instant> end;
  Millis ToDrain(Millis limit, Instant now) const;  // at most a third, so that some remains for the stop
  Millis ToStop(Millis limit, Instant now) const;
};

}  // namespace bulkhead
