// Drives the pure Step of every module with real processes, and is the one writer of the Directory. Administrators see
// it as Modules. Everything lives on the control loop; what blocks goes to the pool and posts its result back.
//
// Seven files: reconciler.cc carries out what Step asks for; actions.cc is what administrators command, scale.cc what they do to the number
// of workers and to their past, configure.cc to a configuration, upgrade.cc to a version and its workers, chain.cc to several modules at once;
// boot.cc is discovery, the boot and the shutdown.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "supervisor/base/blocking_pool.h"
#include "supervisor/base/loop.h"
#include "supervisor/lifecycle/access.h"
#include "supervisor/lifecycle/directory.h"
#include "supervisor/lifecycle/graph.h"
#include "supervisor/lifecycle/modules.h"
#include "supervisor/lifecycle/packages.h"
#include "supervisor/lifecycle/sealed_config.h"
#include "supervisor/lifecycle/step.h"
#include "supervisor/process/spawner.h"
#include "supervisor/store/migrations.h"
#include "supervisor/store/registry.h"
#include "supervisor/store/secret_box.h"
#include "supervisor/worker/worker.h"

namespace bulkhead {

// For the files of this class.
absl::Status NotFound(const std::string& name);
// Of a wish that is stored and not yet fulfilled.
AuditRecord WishOf(const ModuleTarget& target, const char* action);
std::vector<ErrorDetail> Details(const std::vector<Finding>& findings);

class Reconciler : public Modules {
 public:
  struct FirstSettings {          // of the configuration file, at a module's first registration only
    bool enabled = false;
    std::string config_json = "{}";
  };
  struct Options {
    std::string node;
    std::string data_dir;
    std::string run_dir;          // folders of the instances are made in <run_dir>/w
    std::string host_socket, call_socket;
    std::string modules_dir;      // for people
    std::string modules_access;   // where it is read: the same, or through a descriptor opened before the privilege drop
    bool development = false;     // discovery.development
    bool privileged = false;
    uid_t first_uid = 0, last_uid = 0;  // of the modules; the range must last for all that are ever registered
    gid_t gid = 0;
    MigrationLimits migration_limits;
    std::map<std::string, HostFlag> flags;  // until SetFlags()
    ServiceClients clients;       // until SetClients()
    std::map<std::string, FirstSettings> settings;
    std::vector<std::string> not_started;  // --disable
  };
  struct BootFailure {
    std::string module, message;
    bool critical = false;
  };

  Reconciler(Loop& loop, BlockingPool& pool, Spawner& spawner, Registry& registry, Database& database, SecretBox& secrets,
             DirectoryPublisher& publisher, const Clock& clock, Options options);
  ~Reconciler() override;

  // Called as soon as a process has ended or is about to be stopped after its drain.
  // An instance is about to be stopped, with its Stop RPC; OnWorkerGone's follows when it has died.
  void OnWorkerLeaving(std::function<void(const std::string& instance)> fn) { worker_leaving_ = std::move(fn); }
  void OnWorkerGone(std::function<void(const std::string& instance)> fn) { worker_gone_ = std::move(fn); }
  // Told of every process that is started, with its token and the manifest of its version, and again when it is gone.
  using OnInstance = std::function<void(const std::string& token, const std::shared_ptr<const Manifest>& manifest, bool present)>;
  void OnInstances(OnInstance fn) { instances_ = std::move(fn); }
  // Told of every line that a worker prints.
  void OnPrinted(std::function<void(const PrintedLine& line)> fn) { printed_ = std::move(fn); }
  // Asked for the files that a module keeps, whenever the module is shown. Must not block.
  void OnFiles(std::function<FileUsage(const Manifest& manifest)> fn) { files_ = std::move(fn); }
  // Called when a module has been deleted, before that is answered; `done` when what is kept of it elsewhere is gone.
  void OnDeleted(std::function<void(const std::string& module, bool purge, std::function<void(absl::Status)> done)> fn) { deleted_ = std::move(fn); }
  // Finds, registers and starts. `done` when every enabled module is running or has used up its attempts.
  void Boot(std::function<void(absl::Status, std::vector<BootFailure>)> done);
  // The flags have changed: modules whose flag is another one now start or stop. On the control loop.
  void SetFlags(std::map<std::string, HostFlag> flags);
  // The clients have changed: workers have them from their next start, and modules that lacked one are tried again. On the control loop.
  void SetClients(ServiceClients clients);
  // Stops everything, dependents first; what is left at the end of `budget` is killed. Desired states stay as they are.
  void StopAll(Millis budget, std::function<void()> done);
  // After StopAll(): its budget ends now.
  void Hasten();
  // What runs, in numbers, and who of those that should does not; for people.
  struct Tally {
    int registered = 0, wanted = 0, running = 0;
    std::vector<std::string> not_running;  // "orders (BACKOFF)"
  };
  Tally Count() const;
  // Called after each change that Count() may show.
  void OnChange(std::function<void()> fn) { changed_ = std::move(fn); }
  // Workers that have not ended yet: "orders (process 4711)".
  std::vector<std::string> Left() const;
  // During a shutdown: of a worker that was killed something does not end. The others go on without it.
  void OnStuck(std::function<void(const std::string& worker)> fn) { stuck_ = std::move(fn); }

  void List(Done<std::vector<ModuleView>> done) override;
  void Get(const std::string& name, Done<ModuleView> done) override;
  void Register(RegisterRequest request, Done<ModuleView> done) override;
  void Install(const ModuleTarget& target, Millis wait, Done<ActionResult> done) override;
  void Enable(const ModuleTarget& target, Millis wait, Done<ActionResult> done) override;
  void EnableWithDependencies(const ModuleTarget& target, MayEnable may, Millis wait, Done<ActionResult> done) override;
  void Configure(const ModuleTarget& target, ConfigChange change, Millis wait, Done<ActionResult> done) override;
  void MakePlan(const std::string& name, PlanRequest request, Done<Plan> done) override;
  void Rescan(Actor by, Done<RescanResult> done) override;
  void RotateSecrets(Actor by, std::function<absl::Status()> also, Done<RotatedSecrets> done) override;
  void Disable(const ModuleTarget& target, Millis wait, Done<ActionResult> done) override;
  void Reset(const ModuleTarget& target, Millis wait, Done<ActionResult> done) override;
  void SetWorkers(const ModuleTarget& target, std::optional<int> workers, Millis wait, Done<ActionResult> done) override;
  void Reload(const ModuleTarget& target, Millis wait, Done<ActionResult> done) override;
  void Restart(const ModuleTarget& target, Millis wait, Done<ActionResult> done) override;
  void Upgrade(const ModuleTarget& target, VersionSource source, Millis wait, Done<ActionResult> done) override;
  void Rollback(const ModuleTarget& target, Millis wait, Done<ActionResult> done) override;
  void Delete(const ModuleTarget& target, bool purge, Done<bool> done) override;
  void WithStopped(const ModuleTarget& target, Millis wait, std::function<absl::Status(const ModuleView&)> work, Done<bool> done) override;

 private:
  struct Running {                // the process of one slot
    uint64_t run = 0;
    std::unique_ptr<WorkerProcess> process;
    HealthView health;
    int64_t config_revision = 0;  // that it has
    struct {
      Loop::TimerId end = 0, tunnels = 0;
    } drain;                      // timers
  };
  struct Waiter {                 // an answer that waits for a state
    bool enable = false;
    bool complete = false;        // every worker that is wanted is to serve, and no other to be left
    Loop::TimerId timer = 0;
    bool told = false;            // that it goes on
    absl::Status result;          // what to answer when the state is there: a taken-back enable waits for its stop
    Done<ActionResult> done;
  };
  struct Rollout;                 // of a new configuration, configure.cc
  using Ended = std::function<void(absl::Status)>;
  struct Upgrading;               // to another version, upgrade.cc
  struct Reloading;               // of all workers, upgrade.cc
  struct Chain;                   // of modules that are enabled together, chain.cc
  struct OtherVersion {
    Package package;
    bool same = false;            // as the one that is installed
  };
  struct PreparedModule {         // what workers of one version are started with
    std::optional<ModuleSchema> schema;
    std::string effective_config;
    int64_t config_revision = 0;
    int connections = 0;          // that its role may have
  };
  struct Checked {                // a registration that may be made
    Manifest manifest;
    std::string sealed_config;
  };
  struct Installed {
    ModuleRow row;
    Manifest manifest;
  };
  struct Entry {
    Entry(uint64_t seed) : state(seed) {}
    ModuleRow row;
    std::shared_ptr<const Manifest> manifest;
    absl::Status unusable;                   // MANIFEST_INVALID: the registered manifest is not valid any more, `manifest` stands in for it
    ModuleState state;
    WallTime since{};
    Instant reported_since{};                // of the state, when that was told last
    std::vector<Running> running;            // by slot
    std::vector<IsolationItem> isolation;
    uint64_t lines_dropped = 0;              // of its log, since this start of the supervisor
    std::deque<ExitRow> exits;
    Registry::ExitCounts exit_counts;  // by cause
    std::optional<ModuleSchema> schema;
    int connections = 0;                     // that its role may have
    bool fitting = false;                    // these are about to be made as many as its workers need
    std::string effective_config = "{}";     // what a worker is started with, of the revision beside it
    int64_t effective_revision = 0;
    std::shared_ptr<Rollout> rollout;        // under way
    std::shared_ptr<Upgrading> upgrade;      // the same
    std::shared_ptr<Reloading> reload;
    std::function<void(absl::Status)> restarted;  // who waits for the end of a rolling restart
    Reason config_refusal;                   // of the last change, when that was refused
    std::optional<Offer> offer;
    std::vector<ErrorDetail> prepare_details;  // of the last preparation, when it failed
    bool stuck = false;                      // in a shutdown: killed, and does not end
    bool awaiting_dependencies = false;      // Prepare was asked for and waits for other modules
    Loop::TimerId wake = 0;
    int publishing = 0;                      // publications under way: an answer waits for them
    // An enable that has not succeeded yet: a failure takes it back while the generation is this.
    std::optional<int64_t> enabling;
    std::string enabling_request;            // id of the request that wished it
    bool taking_back = false;                // that failure is being written
    RegistryStatus before_enabling = RegistryStatus::kDisabled;
    std::vector<Waiter> waiters;
  };
  using EntryPtr = std::shared_ptr<Entry>;

  // reconciler.cc
  void Dispatch(const EntryPtr& entry, const Event& event);
  void Prepare(const EntryPtr& entry);
  std::optional<Reason> WithoutUid(const ModuleRow& row) const;
  void PrepareNow(const EntryPtr& entry);
  absl::StatusOr<PreparedModule> PrepareVersion(const ModuleRow& row, const Manifest& manifest, int processes, bool migrate);
  void StartWorker(const EntryPtr& entry, const action::StartWorker& start);
  void StopWorker(const EntryPtr& entry, int slot, uint64_t run);
  void PublishDirectory(const EntryPtr& entry, std::vector<action::DrainWorker> drains);
  // On the pool: the record of a wish that changes no row, which is what may fail before anything is done.
  absl::Status RecordWish(const ModuleTarget& target, const char* action);
  void Drain(const EntryPtr& entry, action::DrainWorker drain);
  void Drained(const EntryPtr& entry, action::DrainWorker drain);
  void EndTunnels(const EntryPtr& entry);
  void Reported(const EntryPtr& entry);
  void RecordExit(const EntryPtr& entry, const WorkerExit& exit);
  void HealthChecked(const EntryPtr& entry, int slot, uint64_t run, const absl::Status& status, const module::v1::HealthResponse& response);
  WorkerView ViewOf(const Entry& entry, size_t slot) const;
  void Faulty(const EntryPtr& entry, int slot, uint64_t run, WorkerFault fault, const std::string& why);
  void SettleWaiters(const EntryPtr& entry);
  void EnableFailed(const EntryPtr& entry);
  ModuleView View(const Entry& entry) const;
  Graph CurrentGraph() const;
  static bool FlagOff(const std::set<std::string>& flags_on, const Manifest& manifest);
  void Want(const EntryPtr& entry, bool enabled);

  // actions.cc
  EntryPtr Find(const std::string& name) const;
  // MODULE_NOT_FOUND, PRECONDITION_FAILED, MANIFEST_INVALID where a valid one is needed, and the refusals of CheckTransition.
  absl::StatusOr<EntryPtr> Current(const ModuleTarget& target, std::optional<ModuleAction> action = std::nullopt) const;
  // One command at a time for a name; `release` must be called once, then the next one runs.
  void Serialized(const std::string& name, std::function<void(std::function<void()> release)> command);
  void RunNext(const std::string& name);
  void Wait(const EntryPtr& entry, bool enable, Millis wait, Done<ActionResult> done, bool complete = false);
  void Late(const EntryPtr& entry, Loop::TimerId timer);
  static size_t Followed(const Entry& entry);
  absl::StatusOr<Checked> CheckRegistration(const RegisterRequest& request) const;
  void RegisterChecked(Checked checked, const std::string& path, const Actor& by, Done<ModuleView> done);
  std::string Accessible(const std::string& folder) const;
  absl::StatusOr<Package> ReadFolder(const ModuleRow& row) const;
  absl::StatusOr<Installed> InstallFolder(ModuleRow row, const AuditRecord& audit);
  absl::Status SealNewSecrets(const Manifest& manifest, ModuleRow& row);  // blocking
  void InstallEntry(const EntryPtr& entry, const ModuleTarget& target, std::function<void(absl::Status)> done);
  absl::Status CheckEnable(const Entry& entry) const;  // DEPENDENCY_UNSATISFIED, CONFIG_INVALID, SECRET_UNREADABLE
  void RecordEnabled(const EntryPtr& entry, const ModuleTarget& target, std::function<void(absl::Status)> recorded);
  static bool Busy(const Entry& entry);  // not wanted, and not gone yet
  static bool Converged(const Entry& entry, bool enable);
  void AnswerWhenConverged(const EntryPtr& entry, bool enable, Millis wait, Done<ActionResult> done);
  EntryPtr AddEntry(ModuleRow row, Manifest manifest);

  // scale.cc
  static int WorkersWanted(const ModuleRow& row, const Manifest& manifest) { return row.workers.value_or(manifest.workers); }
  static int WorkersWanted(const Entry& entry) { return WorkersWanted(entry.row, *entry.manifest); }
  static int Processes(const ModuleRow& row, const Manifest& manifest) { return WorkersWanted(row, manifest) + manifest.warm_spare; }
  static int Processes(const Entry& entry) { return Processes(entry.row, *entry.manifest); }
  static bool Complete(const Entry& entry);
  void FitConnections(const EntryPtr& entry);

  // configure.cc
  static std::vector<int> AllSlots(const Entry& entry);
  absl::Status CheckConfig(const Manifest& manifest, const ModuleRow& row) const;  // of the stored one: CONFIG_INVALID, SECRET_UNREADABLE
  void BeginRollout(const EntryPtr& entry, std::shared_ptr<Rollout> rollout);
  void PushConfig(const EntryPtr& entry, int slot, const std::string& config, int64_t revision,
                  std::function<void(absl::Status)> done);
  // Of the worker that is about to be started: the stored configuration, or the one that is being tried.
  std::pair<std::string, int64_t> ConfigForStart(const Entry& entry) const;
  static std::vector<std::string> HiddenTexts(const Entry& entry, const std::string& config);
  void RolloutReady(const EntryPtr& entry, int slot);
  void RolloutDied(const EntryPtr& entry, int slot, const std::string& why);
  void RolloutUnwanted(const EntryPtr& entry);
  void RolloutFailed(const EntryPtr& entry, const std::string& why);
  void StoreRollout(const EntryPtr& entry);
  void ResealNext(const Actor& by, std::shared_ptr<std::deque<std::string>> names, std::function<void(absl::Status)> done);

  // upgrade.cc
  void Replaced(const EntryPtr& entry, const Action& action);
  static const ModuleRow& IncomingRow(const Entry& entry);
  static void TakeIncoming(const Entry& entry, WorkerSpec& spec, std::optional<ModuleSchema>& schema);
  absl::StatusOr<Package> FindVersion(const ModuleRow& row, const std::optional<Offer>& offer, const VersionSource& source) const;
  absl::Status CheckVersion(const Entry& entry, const Manifest& manifest) const;
  absl::StatusOr<OtherVersion> ReadVersion(const ModuleRow& row, const std::optional<Offer>& offer, const VersionSource& source) const;
  absl::StatusOr<Package> ReadPrevious(const ModuleRow& row) const;
  static absl::Status MayReplace(const Entry& entry);
  void BeginUpgrade(const EntryPtr& entry, std::shared_ptr<Upgrading> upgrade);
  void StoreUpgrade(const EntryPtr& entry);
  void UpgradeFailed(const EntryPtr& entry, const absl::Status& why);
  void RestoreVersion(const EntryPtr& entry, const std::shared_ptr<Upgrading>& upgrade, const absl::Status& why);
  void BeginRollback(const EntryPtr& entry, const ModuleTarget& target, const Reason& reason, std::function<void()> begun, Ended done);
  void RollBackItself(const EntryPtr& entry, const Reason& reason);
  void SettleReload(const EntryPtr& entry);
  void ReloadDied(const EntryPtr& entry, const Reason& why);
  // A command with `wait` whose work ends with done(status), and which holds the module's queue until then. That it goes on is answered
  // when the wait is over and begun() was called: before that it may still be refused.
  void Command(const ModuleTarget& target, ModuleAction action, Millis wait, Done<ActionResult> done,
               std::function<void(const EntryPtr& entry, std::function<void()> begun, Ended done)> work);

  // chain.cc
  void RecordOutcome(const Actor& by, const std::string& action, const std::string& module, const absl::Status& outcome);
  struct Inspection;
  Inspection WhatToInspect(const Entry& entry, ModuleAction action) const;
  absl::Status Inspect(Inspection& inspection) const;
  void EnableNext(const std::shared_ptr<Chain>& chain);
  void UndoChain(const std::shared_ptr<Chain>& chain, const std::string& failed, const absl::Status& why);

  // boot.cc
  struct Found;
  struct Discovery;
  absl::StatusOr<Discovery> Discover(bool booting, const Actor& by);
  absl::Status LookInto(const std::string& folder, bool booting, const Actor& by, std::map<std::string, Found>& found,
                        RescanResult::Folder& seen);
  static void NameTwins(const std::map<std::string, Found>& found, std::vector<RescanResult::Folder>& folders);
  void Adopt(Discovery discovery, const std::vector<std::string>& not_started);
  void LearnIsolation(std::function<void()> learnt);
  void Booted();
  void StopEligible();

  // Runs `work` on the pool and `done` with its result on the loop. A full pool answers OVERLOADED.
  template <typename T>
  void Blocking(std::function<absl::StatusOr<T>()> work, std::function<void(absl::StatusOr<T>)> done) {
    auto shared = std::make_shared<std::function<void(absl::StatusOr<T>)>>(std::move(done));
    bool queued = pool_.Submit([this, work = std::move(work), shared] {
      auto result = std::make_shared<absl::StatusOr<T>>(work());
      loop_.Post([shared, result] { (*shared)(std::move(*result)); });
    });
    if (!queued) loop_.Post([shared] { (*shared)(Error("OVERLOADED", "too many requests are waiting for the database; try again")); });
  }

  // Constant after construction.
  Loop& loop_;
  BlockingPool& pool_;
  Spawner& spawner_;
  Registry& registry_;
  Database& database_;
  SecretBox& secrets_;
  DirectoryPublisher& publisher_;
  const Clock& clock_;
  const Options options_;
  NodeAccess access_;  // its machine by LearnIsolation(), before there are any modules; its clients by SetClients()
  std::function<void(const std::string&)> worker_leaving_, worker_gone_;
  std::function<void(const PrintedLine&)> printed_;
  std::function<void(const std::string&, bool, std::function<void(absl::Status)>)> deleted_;
  std::function<FileUsage(const Manifest&)> files_;
  OnInstance instances_;
  std::function<void()> changed_;
  std::function<void(const std::string&)> stuck_;

  // Control loop only.
  std::map<std::string, EntryPtr> entries_;
  std::map<std::string, HostFlag> flags_;
  std::set<std::string> flags_on_;  // of these, by their variables
  std::map<std::string, std::deque<std::function<void()>>> commands_;  // the first one is under way
  uint64_t directory_version_ = 0;
  std::function<void(absl::Status, std::vector<BootFailure>)> boot_done_;
  std::function<void()> stop_done_;
  TimeLeft time_left_;  // of a shutdown
  bool stopping_ = false;
};

}  // namespace bulkhead
