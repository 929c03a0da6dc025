// The modules of this node as administrators see and command them: registry rows and lifecycle as one thing. All calls
// are thread-safe and return at once; each answers on the control loop, and once: but one that had to answer that it goes on (not converged)
// answers a second time with the outcome, unless limits::kMaxFollowed others are waiting for the same. Errors are those of
// proto/bulkhead/admin/v1/modules.proto, made by base/status.h.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/base/clock.h"
#include "supervisor/lifecycle/plan.h"
#include "supervisor/lifecycle/step.h"
#include "supervisor/manifest/manifest.h"
#include "supervisor/process/spawner.h"
#include "supervisor/store/audit.h"
#include "supervisor/store/registry.h"
#include "supervisor/worker/host_files.h"

namespace bulkhead {

struct CheckView {
  std::string name;
  std::string status;  // healthy, degraded, unhealthy
  double latency_ms = 0;
  std::string message;
};
struct HealthView {
  std::string status;  // healthy, degraded, unhealthy
  std::vector<CheckView> checks;
  std::optional<WallTime> checked_at;
};

struct WorkerView {
  int slot = 0;
  int pid = 0;
  std::string instance;
  ObservedState state = ObservedState::kStopped;
  std::string version;
  std::optional<WallTime> started_at;
  int restarts = 0;
  bool ready = false;                 // it is sent requests and jobs
  bool spare = false;                 // it is not, until it takes the place of another one
  std::optional<WallTime> retry_at;   // of one that waits for its next start
  std::map<std::string, int64_t> exit_counts;  // by cause, since the module was enabled
};

// Another version in the module's folder than the one that is registered: taken by an upgrade, never by itself.
struct Offer {
  std::string version;
  std::string path;
};

// Everything that the API shows of one module, at one moment.
struct ModuleView {
  ModuleRow row;
  std::shared_ptr<const Manifest> manifest;
  bool desired_enabled = false;
  ObservedState observed = ObservedState::kStopped;
  int64_t observed_generation = 0;
  WallTime observed_since;
  std::string node;
  std::string reason_code, reason_message;  // empty: nothing to say
  int workers_wanted = 1;                   // the override of the row, or the manifest's
  std::vector<WorkerView> workers;
  std::vector<ExitRow> exits;               // newest first
  Registry::ExitCounts exit_counts;  // by cause, since it was registered
  std::vector<IsolationItem> isolation;
  int64_t config_applied_revision = 0;  // the lowest that a ready worker has; 0 without one
  HealthView health;
  FileUsage files;                      // that it keeps on this node
  uint64_t lines_dropped = 0;           // of its log, since this start of the supervisor
  std::optional<Offer> offer;
};

struct ActionResult {
  ModuleView module;
  bool converged = true;  // false: the wait ran out first (202); the outcome follows
};

struct RegisterRequest {
  Actor by;
  std::string manifest_json;
  std::string config_json;  // "" = {}
  std::string path;         // "" = none
};

// Which module a command is for, on whose behalf, and of which generation it must still be: PRECONDITION_FAILED when it has changed
// meanwhile. Compared when the command's turn has come, so of two that name the same generation only one is obeyed.
struct ModuleTarget {
  ModuleTarget(std::string name, std::optional<int64_t> if_generation = std::nullopt, Actor by = {})
      : name(std::move(name)), if_generation(if_generation), by(std::move(by)) {}
  absl::Status Check(int64_t generation) const;
  std::string name;
  std::optional<int64_t> if_generation;
  Actor by;
};

// Which version to upgrade to: a folder, or a version that is on offer, in the modules directory, or installed. Neither: what is on offer.
struct VersionSource {
  std::string version, path;
};

struct ConfigChange {
  std::string json;    // an object
  bool merge = false;  // a JSON merge patch (RFC 7396) on what is stored, else the whole
};

// What a look at the modules directory found.
struct RescanResult {
  struct Folder {
    std::string folder;  // as people know it
    std::string name;    // empty when its manifest can't be read
    // registered, unchanged, offered (another version), changed (other contents of the same version), broken (or one of two folders with
    // the same version of a module)
    std::string outcome;
    std::string version, registered_version;
    std::string code, message;  // broken, changed
    std::vector<ErrorDetail> details;
  };
  std::vector<Folder> folders;  // by folder
};

class Modules {
 public:
  template <typename T>
  using Done = std::function<void(absl::StatusOr<T>)>;
  virtual ~Modules() = default;

  virtual void List(Done<std::vector<ModuleView>> done) = 0;  // by name; the caller filters and pages
  virtual void Get(const std::string& name, Done<ModuleView> done) = 0;
  virtual void Register(RegisterRequest request, Done<ModuleView> done) = 0;
  // `wait` 0 answers as soon as the wish is recorded.
  virtual void Install(const ModuleTarget& target, Millis wait, Done<ActionResult> done) = 0;
  virtual void Enable(const ModuleTarget& target, Millis wait, Done<ActionResult> done) = 0;
  // Enables first what it depends on, dependencies first, each when the ones before run. When one fails, those that this call has
  // enabled are disabled again, and the error says which. Goes on when the wait is over. FORBIDDEN, before anything is done, when the caller
  // may not enable one of them: `may` is asked on the control loop for each of the others.
  using MayEnable = std::function<bool(const std::string& module)>;
  virtual void EnableWithDependencies(const ModuleTarget& target, MayEnable may, Millis wait, Done<ActionResult> done) = 0;
  virtual void Disable(const ModuleTarget& target, Millis wait, Done<ActionResult> done) = 0;
  // Checks, hands it to the ready workers (or restarts them), and stores it when none has refused; else nothing has changed.
  virtual void Configure(const ModuleTarget& target, ConfigChange change, Millis wait, Done<ActionResult> done) = 0;
  // Forgets what has happened to its workers: backoff, quarantine and parking; what waits is tried at once. Answers as Enable does.
  // INVALID_TRANSITION for one that is not enabled.
  virtual void Reset(const ModuleTarget& target, Millis wait, Done<ActionResult> done) = 0;
  // How many workers it has from now on, nullopt: as many as its manifest says. Answers when so many serve and the others are gone.
  // INVALID_ARGUMENT outside 1 to limits::kMaxWorkers.
  virtual void SetWorkers(const ModuleTarget& target, std::optional<int> workers, Millis wait, Done<ActionResult> done) = 0;
  // Stops and starts the workers with the same version, one after another.
  virtual void Reload(const ModuleTarget& target, Millis wait, Done<ActionResult> done) = 0;
  // Replaces the workers one after another by new processes, each ready before the old one goes. When one does not become ready the others stay.
  virtual void Restart(const ModuleTarget& target, Millis wait, Done<ActionResult> done) = 0;
  // Another version: checked, copied, its migrations run, its workers started beside the old ones, and the traffic switched at once when all
  // are ready. A failure before that leaves the old version as it was; one within the manifest's soakTime brings it back.
  virtual void Upgrade(const ModuleTarget& target, VersionSource source, Millis wait, Done<ActionResult> done) = 0;
  // Back to the version before the last upgrade, in the same way; its migrations stay. NO_PREVIOUS_VERSION.
  virtual void Rollback(const ModuleTarget& target, Millis wait, Done<ActionResult> done) = 0;
  virtual void Delete(const ModuleTarget& target, bool purge, Done<bool> done) = 0;
  // Runs `work` on the blocking pool while no other command for the module can begin; an enable that comes meanwhile waits for its end.
  // MODULE_ENABLED, or MODULE_BUSY while it still stops. `done(true)` when the work has succeeded; `done(false)` when `wait` ran out
  // before; then the work goes on, and its end is told, too.
  virtual void WithStopped(const ModuleTarget& target, Millis wait, std::function<absl::Status(const ModuleView&)> work, Done<bool> done) = 0;

  struct PlanRequest {
    ModuleAction action = ModuleAction::kEnable;
    bool with_dependencies = false, purge = false;
    VersionSource version;  // upgrade
    std::optional<int> workers = {};  // scale
  };
  virtual void MakePlan(const std::string& name, PlanRequest request, Done<Plan> done) = 0;
  // Looks at the modules directory: registers what is new, says what is on offer and what is broken.
  virtual void Rescan(Actor by, Done<RescanResult> done) = 0;
  // A new key for secrets at rest, all of them sealed anew with it, the old keys forgotten. `also` seals what others keep, on the pool.
  struct RotatedSecrets {
    std::vector<std::string> keys;  // names, the one that seals first
    int modules = 0;                // that had something to seal
  };
  // The audit has a row before anything is done, because keys are in a file that no transaction covers, and one with each change of a row.
  virtual void RotateSecrets(Actor by, std::function<absl::Status()> also, Done<RotatedSecrets> done) = 0;
};

}  // namespace bulkhead
