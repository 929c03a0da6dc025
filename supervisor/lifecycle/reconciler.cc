#include "supervisor/lifecycle/reconciler.h"

#include <unistd.h>

#include <algorithm>
#include <tuple>

#include "supervisor/base/limits.h"
#include "supervisor/base/log.h"
#include "supervisor/base/random.h"
#include "supervisor/lifecycle/refusals.h"
#include "supervisor/store/migrations.h"
#include "supervisor/worker/health_judge.h"

namespace bulkhead {
namespace {

ExitCause Cause(WorkerEnd end) {
  switch (end) {
    case WorkerEnd::kExit: return ExitCause::kExit;
    case WorkerEnd::kSignal: return ExitCause::kSignal;
    case WorkerEnd::kOom: return ExitCause::kOom;
    case WorkerEnd::kHandshake: return ExitCause::kHandshake;
    case WorkerEnd::kStartTimeout: return ExitCause::kStartTimeout;
    case WorkerEnd::kLiveness: return ExitCause::kLiveness;
    case WorkerEnd::kLimit: return ExitCause::kLimit;
    case WorkerEnd::kConfig: return ExitCause::kConfig;
  }
  return ExitCause::kExit;
}

std::string_view HealthName(module::v1::HealthStatus status) {
  switch (status) {
    case module::v1::DEGRADED: return "degraded";
    case module::v1::UNHEALTHY: return "unhealthy";
    default: return "healthy";
  }
}

std::set<std::string> VariablesOn(const std::map<std::string, HostFlag>& flags) {
  std::set<std::string> variables;
  for (const auto& [name, flag] : flags) {
    if (flag.enabled) variables.insert(FeatureFlagVariable(name));
  }
  return variables;
}

}  // namespace

Reconciler::Reconciler(Loop& loop, BlockingPool& pool, Spawner& spawner, Registry& registry, Database& database,
                       SecretBox& secrets, DirectoryPublisher& publisher, const Clock& clock, Options options)
    : loop_(loop),
      pool_(pool),
      spawner_(spawner),
      registry_(registry),
      database_(database),
      secrets_(secrets),
      publisher_(publisher),
      clock_(clock),
      options_(std::move(options)),
      flags_(options_.flags),
      flags_on_(VariablesOn(flags_)) {
  access_.store = ReachOf(database_.conninfo());
  access_.clients = std::make_shared<const ServiceClients>(options_.clients);
  access_.own_folders = {options_.data_dir};
  if (!options_.run_dir.starts_with(options_.data_dir + "/")) access_.own_folders.push_back(options_.run_dir);
}

Reconciler::~Reconciler() = default;

// The only place that changes a module's state.
void Reconciler::Dispatch(const EntryPtr& entry, const Event& event) {
  entry->state.policy = entry->manifest->restart;  // whichever manifest that is by now
  const bool went_on = GoesOn(entry->state);
  std::vector<Action> actions = Step(entry->state, event, clock_.Now());
  bool publish = false, report = false;
  std::vector<action::DrainWorker> drains;
  std::vector<Action> replaced;  // what has become of a replacement; told when the Directory is on its way
  for (const Action& action : actions) {
    if (std::holds_alternative<action::Prepare>(action)) {
      Prepare(entry);
    } else if (auto* start = std::get_if<action::StartWorker>(&action)) {
      StartWorker(entry, *start);
    } else if (auto* stop = std::get_if<action::StopWorker>(&action)) {
      StopWorker(entry, stop->slot, stop->run);
    } else if (std::holds_alternative<action::Publish>(action)) {
      publish = true;
    } else if (auto* drain = std::get_if<action::DrainWorker>(&action)) {
      drains.push_back(*drain);
    } else if (auto* wake = std::get_if<action::Wake>(&action)) {
      loop_.Cancel(entry->wake);
      entry->wake = loop_.After(std::chrono::ceil<Millis>(wake->at - clock_.Now()), [this, weak = std::weak_ptr(entry)] {
        if (auto entry = weak.lock()) Dispatch(entry, event::Tick{});
      });
    } else if (std::holds_alternative<action::Report>(action)) {
      report = true;
    } else {
      replaced.push_back(action);
    }
  }
  if (publish) PublishDirectory(entry, std::move(drains));
  if (went_on && !GoesOn(entry->state)) EndTunnels(entry);
  if (report) Reported(entry);
  for (const Action& action : replaced) Replaced(entry, action);
  SettleWaiters(entry);
  SettleReload(entry);
  FitConnections(entry);
  // Whoever waits for restarted workers waits in vain when there are to be none.
  if (entry->rollout && !Routed(entry->state)) RolloutUnwanted(entry);
}

bool Reconciler::FlagOff(const std::set<std::string>& flags_on, const Manifest& manifest) {
  return !manifest.feature_flag.empty() && !flags_on.contains(FeatureFlagVariable(manifest.feature_flag));
}

void Reconciler::SetFlags(std::map<std::string, HostFlag> flags) {
  flags_ = std::move(flags);
  flags_on_ = VariablesOn(flags_);
  for (auto& [name, entry] : std::map(entries_)) {
    if (entry->state.wanted && FlagOff(flags_on_, *entry->manifest) != entry->state.skipped) Want(entry, true);
  }
}

void Reconciler::Want(const EntryPtr& entry, bool enabled) {
  Dispatch(entry, event::Want{enabled && !stopping_, FlagOff(flags_on_, *entry->manifest), entry->row.generation, WorkersWanted(*entry),
                              entry->manifest->warm_spare});
}

// Waits for the modules it depends on, then prepares. Called again whenever another module has changed.
void Reconciler::Prepare(const EntryPtr& entry) {
  entry->awaiting_dependencies = true;
  entry->prepare_details.clear();
  if (!entry->unusable.ok()) {
    entry->awaiting_dependencies = false;
    Reason reason{ErrorCode(entry->unusable), std::string(entry->unusable.message())};
    loop_.Post([this, entry, reason] { Dispatch(entry, event::Prepared{false, false, reason}); });
    return;
  }
  DependencyVerdict verdict = JudgeDependencies(CurrentGraph(), entry->row.name);
  if (verdict.what == DependencyVerdict::What::kWait) return;
  entry->awaiting_dependencies = false;
  if (verdict.what == DependencyVerdict::What::kStart) return PrepareNow(entry);
  loop_.Post([this, entry, reason = verdict.reason] { Dispatch(entry, event::Prepared{false, false, reason}); });
}

std::optional<Reason> Reconciler::WithoutUid(const ModuleRow& row) const {
  if (!options_.privileged || options_.first_uid + static_cast<uid_t>(row.uid_slot) <= options_.last_uid) return std::nullopt;
  return Reason{"UIDS_EXHAUSTED", "isolation.uids has no uid left for it; uids are never used again, so widen the range"};
}

// On the pool: what a worker of that version needs.
absl::StatusOr<Reconciler::PreparedModule> Reconciler::PrepareVersion(const ModuleRow& row, const Manifest& manifest, int processes, bool migrate) {
  PreparedModule prepared;
  ASSIGN_OR_RETURN(const std::string opened, OpenConfig(secrets_, row.name, row.config_json));
  ConfigResult config = EffectiveConfig(manifest, opened);
  if (!config.errors.empty()) {
    const std::vector<ErrorDetail> details = Details(config.errors);
    return Error("CONFIG_INVALID", ConfigSentence(details), details);
  }
  prepared.effective_config = config.effective_json;
  prepared.config_revision = row.config_revision;
  if (!manifest.has_database) return prepared;
  prepared.connections = processes * limits::kConnectionsPerWorker;
  ASSIGN_OR_RETURN(prepared.schema, registry_.EnsureSchema(row.name, prepared.connections, manifest.extensions));
  if (!migrate) return prepared;
  ASSIGN_OR_RETURN(auto files, ReadMigrations(options_.data_dir + "/" + row.package + "/" + manifest.migrations_dir));
  ASSIGN_OR_RETURN(MigrationReport report, Migrate(database_, row.name, prepared.schema->conninfo, files, options_.migration_limits));
  for (const std::string& file : report.applied) LogInfo("lifecycle", "migrated", {{"module", row.name}, {"file", file}});
  return prepared;
}

void Reconciler::PrepareNow(const EntryPtr& entry) {
  if (auto reason = WithoutUid(entry->row)) {
    loop_.Post([this, entry, reason = *reason] { Dispatch(entry, event::Prepared{false, false, reason}); });
    return;
  }
  if (absl::Status may = CheckAccess(*entry->manifest, access_); !may.ok()) {
    entry->prepare_details = ErrorDetails(may);
    loop_.Post([this, entry, reason = Reason{ErrorCode(may), std::string(may.message())}] { Dispatch(entry, event::Prepared{false, false, reason}); });
    return;
  }
  // The pool works on copies; the entry belongs to the loop.
  Blocking<PreparedModule>(
      [this, row = entry->row, manifest = entry->manifest, processes = Processes(*entry)] { return PrepareVersion(row, *manifest, processes, true); },
      [this, entry, package = entry->row.package](absl::StatusOr<PreparedModule> prepared) {
        // It speaks of a version that has been replaced meanwhile.
        if (entry->row.package != package) return Dispatch(entry, event::Prepared{false, false, {"OVERTAKEN", "another version has taken over"}});
        if (!prepared.ok()) {
          std::string code = ErrorCode(prepared.status());
          entry->prepare_details = ErrorDetails(prepared.status());
          bool transient = code == "DATABASE_UNAVAILABLE" || code == "MIGRATION_LOCKED" || code == "OVERLOADED";
          LogWarn("lifecycle", "can't prepare the module",
                  {{"module", entry->row.name}, {"code", code}, {"reason", std::string(prepared.status().message())}});
          return Dispatch(entry, event::Prepared{false, transient, {code, std::string(prepared.status().message())}});
        }
        entry->schema = std::move(prepared->schema);
        entry->connections = prepared->connections;
        // Unless it was configured anew meanwhile.
        if (prepared->config_revision >= entry->effective_revision) {
          entry->effective_config = std::move(prepared->effective_config);
          entry->effective_revision = prepared->config_revision;
        }
        Dispatch(entry, event::Prepared{true});
      });
}

void Reconciler::StartWorker(const EntryPtr& entry, const action::StartWorker& start) {
  const int slot = start.slot;
  const uint64_t run = start.run;
  if (entry->running.size() <= static_cast<size_t>(slot)) entry->running.resize(static_cast<size_t>(slot) + 1);
  const bool incoming = start.incoming && entry->upgrade;
  const ModuleRow& row = incoming ? IncomingRow(*entry) : entry->row;
  std::string unique = RandomHex(4);
  WorkerSpec spec;
  spec.module = row.name;
  spec.version = row.version;
  spec.instance = row.name + "." + std::to_string(start.number) + "." + unique;
  spec.slot = start.number;
  spec.manifest = entry->manifest;
  spec.package_dir = options_.data_dir + "/" + row.package;
  spec.instance_dir = options_.run_dir + "/w/" + unique;  // short: a socket path has 107 bytes
  spec.data_dir = options_.data_dir + "/modules/" + row.name;
  spec.change_user = options_.privileged;
  spec.uid = options_.privileged ? options_.first_uid + static_cast<uid_t>(row.uid_slot) : getuid();
  spec.gid = options_.gid;
  spec.host_socket = options_.host_socket;
  spec.call_socket = options_.call_socket;
  std::optional<ModuleSchema> schema = entry->schema;
  std::tie(spec.config_json, spec.config_revision) = ConfigForStart(*entry);
  if (incoming) TakeIncoming(*entry, spec, schema);
  spec.reach = ModuleReach(*spec.manifest, access_);
  spec.clients = ClientsOf(*spec.manifest, access_);
  if (schema) {
    spec.conninfo = schema->conninfo;
    spec.schema = schema->schema;
  }
  spec.flags = flags_;
  spec.secrets = HiddenTexts(*entry, spec.config_json);
  for (const auto& [name, client] : spec.clients) {
    for (std::string& text : SecretTexts(client)) spec.secrets.push_back(std::move(text));
  }

  std::weak_ptr<Entry> weak = entry;
  WorkerProcess::Callbacks callbacks;
  callbacks.ready = [this, weak, slot, run] {
    if (auto entry = weak.lock()) {
      Running& running = entry->running[static_cast<size_t>(slot)];
      entry->isolation = running.process->isolation();
      LogInfo("lifecycle", "worker ready",
              {{"module", entry->row.name},
               {"instance", running.process->spec().instance},
               {"pid", std::to_string(running.process->pid())}});
      Dispatch(entry, event::WorkerReady{slot, run});
      if (InService(entry->state.slots[static_cast<size_t>(slot)])) RolloutReady(entry, slot);
    }
  };
  callbacks.died = [this, weak, slot, run](const WorkerExit& exit) {
    if (auto entry = weak.lock()) {
      std::string instance = entry->running[static_cast<size_t>(slot)].process->spec().instance;
      entry->isolation = entry->running[static_cast<size_t>(slot)].process->isolation();
      const bool spare = entry->state.slots[static_cast<size_t>(slot)].role == SlotState::Role::kSpare;
      Dispatch(entry, event::WorkerDied{slot, run, Cause(exit.end), exit.message, exit.stop_notes, exit.code, exit.orderly});
      if (!exit.asked) RolloutDied(entry, slot, exit.message);
      if (!exit.asked) ReloadDied(entry, {exit.code.empty() ? std::string(ExitCauseName(Cause(exit.end))) : exit.code, exit.message});
      if (!exit.asked) RecordExit(entry, exit);
      if (worker_gone_) worker_gone_(instance);
      if (!exit.asked && !spare) EnableFailed(entry);
    }
  };
  callbacks.gone = [this, weak, slot, run] {
    if (auto entry = weak.lock()) {
      // Later than this call, which comes from the process itself.
      std::shared_ptr<WorkerProcess> dead = std::move(entry->running[static_cast<size_t>(slot)].process);
      loop_.Post([dead] {});
      if (instances_) instances_(dead->token(), dead->spec().manifest, false);
      Dispatch(entry, event::WorkerGone{slot, run});
    }
  };
  callbacks.health = [this, weak, slot, run](absl::Status status, const module::v1::HealthResponse& response) {
    if (auto entry = weak.lock()) HealthChecked(entry, slot, run, status, response);
  };
  callbacks.readiness = [this, weak, slot, run](bool ready, const std::string& why) {
    if (auto entry = weak.lock()) Dispatch(entry, event::WorkerReadiness{slot, run, ready, why});
  };
  callbacks.printed = printed_;
  callbacks.floods = [this, weak, slot, run](const std::string& message) {
    if (auto entry = weak.lock()) Dispatch(entry, event::WorkerFloods{slot, run, message});
  };
  callbacks.stuck = [this, weak, instance = spec.instance] {
    auto entry = weak.lock();
    if (!entry || !stopping_) return;  // without a shutdown there is time: nothing takes its place before it has ended
    entry->stuck = true;
    LogError("lifecycle", "a worker was killed and does not end: a process of it is stuck in the kernel", {{"instance", instance}});
    if (stuck_) stuck_(instance);
    StopEligible();
  };
  callbacks.lines_dropped = [weak](uint64_t lines) {
    if (auto entry = weak.lock()) entry->lines_dropped += lines;
  };
  Running& running = entry->running[static_cast<size_t>(slot)];
  const int64_t revision = spec.config_revision;
  running = {run, std::make_unique<WorkerProcess>(loop_, spawner_, clock_, std::move(spec), std::move(callbacks)), {}, revision};
  if (instances_) instances_(running.process->token(), running.process->spec().manifest, true);
  running.process->Start();
}

void Reconciler::StopWorker(const EntryPtr& entry, int slot, uint64_t run) {
  Running& running = entry->running[static_cast<size_t>(slot)];
  if (!running.process || running.run != run) return;
  if (worker_leaving_) worker_leaving_(running.process->spec().instance);
  running.process->Stop(time_left_.ToStop(running.process->spec().manifest->stop_timeout + limits::kTermGrace, clock_.Now()));
}

void Reconciler::PublishDirectory(const EntryPtr& entry, std::vector<action::DrainWorker> drains) {
  auto directory = std::make_shared<Directory>(*publisher_.current());
  directory->version = ++directory_version_;
  const std::string& name = entry->row.name;
  if (Routed(entry->state)) {
    auto module = std::make_shared<DirectoryModule>();
    module->name = name;
    module->manifest = entry->manifest;
    module->enabled_at = entry->row.enabled_at;
    module->starting = StartsNow(entry->state);
    for (size_t i = 0; i < entry->state.slots.size(); ++i) {
      const SlotState& seat = entry->state.slots[i];
      if (!Listed(seat) && !StandsBy(seat)) continue;
      const WorkerProcess& process = *entry->running[i].process;
      auto faulty = [this, weak = std::weak_ptr(entry), slot = static_cast<int>(i), run = entry->running[i].run](WorkerFault fault,
                                                                                                                std::string why) {
        loop_.Post([this, weak, slot, run, fault, why = "it " + why] {
          if (auto entry = weak.lock()) Faulty(entry, slot, run, fault, why);
        });
      };
      (Listed(seat) ? module->workers : module->standby)
          .push_back({seat.number, process.spec().instance, process.data_socket(), process.token(), process.control(), std::move(faulty)});
    }
    directory->modules[name] = std::move(module);
  } else {
    directory->modules.erase(name);
  }
  ++entry->publishing;
  publisher_.Publish(std::move(directory), [this, entry, drains = std::move(drains)] {
    --entry->publishing;
    for (const action::DrainWorker& drain : drains) Drain(entry, drain);
    SettleWaiters(entry);
    Booted();
    StopEligible();
  });
}

void Reconciler::Faulty(const EntryPtr& entry, int slot, uint64_t run, WorkerFault fault, const std::string& why) {
  Running& running = entry->running[static_cast<size_t>(slot)];
  if (running.run != run || !running.process) return;
  if (fault == WorkerFault::kUnresponsive) return running.process->Unresponsive(why);
  Dispatch(entry, event::WorkerAtFault{slot, run, why});
}

void Reconciler::RecordExit(const EntryPtr& entry, const WorkerExit& exit) {
  ExitRow row{
      std::string(ExitCauseName(Cause(exit.end))), exit.signal, exit.exit_code, clock_.Wall(), exit.ran.count(), exit.output,
      exit.message};
  LogWarn("lifecycle", "worker ended",
          {{"module", entry->row.name}, {"cause", row.cause}, {"reason", exit.message}, {"ranMs", std::to_string(row.ran_ms)}});
  entry->exits.push_front(row);
  if (entry->exits.size() > limits::kMaxExits) entry->exits.pop_back();
  ++entry->exit_counts[row.cause];
  Blocking<bool>(
      [this, name = entry->row.name, row]() -> absl::StatusOr<bool> {
        RETURN_IF_ERROR(registry_.AddExit(name, options_.node, row));
        return true;
      },
      [name = entry->row.name](absl::StatusOr<bool> written) {
        if (!written.ok())
          LogWarn("lifecycle", "a crash report is only in memory",
                  {{"module", name}, {"reason", std::string(written.status().message())}});
      });
}

void Reconciler::HealthChecked(const EntryPtr& entry, int slot, uint64_t run, const absl::Status& status,
                               const module::v1::HealthResponse& response) {
  Running& running = entry->running[static_cast<size_t>(slot)];
  if (running.run != run) return;
  HealthView view;
  view.checked_at = clock_.Wall();
  WorkerHealth health = WorkerHealth::kHealthy;
  std::string message;
  if (!status.ok()) {
    view.status = "unhealthy";
    message = "Health did not answer: " + std::string(status.message());
    view.checks.push_back({"health", "unhealthy", 0, message});
    health = WorkerHealth::kUnhealthy;
  } else {
    view.status = HealthName(response.status());
    if (response.status() == module::v1::DEGRADED) health = WorkerHealth::kDegraded;
    if (response.status() == module::v1::UNHEALTHY) health = WorkerHealth::kUnhealthy;
    for (const auto& check : response.checks())
      view.checks.push_back({check.name(), std::string(HealthName(check.status())), check.latency_ms(), check.message()});
    message = HealthComplaint(response);
  }
  running.health = std::move(view);
  Dispatch(entry, event::WorkerHealthChanged{slot, run, health, message});
}

// The observed state has changed: say so, tell the database, and let those look who wait for this module.
void Reconciler::Reported(const EntryPtr& entry) {
  const ModuleState& state = entry->state;
  // The reason alone may have changed, as the number in it does.
  if (std::exchange(entry->reported_since, state.since) != state.since) entry->since = clock_.Wall();
  std::string observed(ObservedStateName(state.observed));
  bool bad = state.observed == ObservedState::kFailed || state.observed == ObservedState::kBackoff ||
             state.observed == ObservedState::kQuarantined || state.observed == ObservedState::kDegraded;
  Log(bad ? LogLevel::kWarn : LogLevel::kInfo, "lifecycle", observed,
      {{"module", entry->row.name}, {"reason", state.reason.message}});
  if (changed_) changed_();
  Blocking<bool>(
      [this, name = entry->row.name, observed, reason = state.reason, generation = state.generation]() -> absl::StatusOr<bool> {
        RETURN_IF_ERROR(registry_.ReportObserved(options_.node, name, observed, reason.code, reason.message, generation));
        return true;
      },
      [](absl::StatusOr<bool>) {});  // a mirror: the truth is in memory, and the next report carries it
  if (state.observed == ObservedState::kFailed) EnableFailed(entry);
  // Posted, so that no module is dispatched from inside another's step.
  loop_.Post([this] {
    for (auto& [name, other] : std::map(entries_)) {
      if (other->awaiting_dependencies) Prepare(other);
    }
    for (const std::string& name : Unblocked(CurrentGraph())) Dispatch(Find(name), event::Retry{});
    Booted();
    StopEligible();
  });
}

// An enable that can't succeed is taken back, unless somebody has wished otherwise since.
void Reconciler::EnableFailed(const EntryPtr& entry) {
  if (!entry->enabling) return;
  int64_t generation = *entry->enabling;
  entry->enabling.reset();
  entry->taking_back = true;
  Reason reason = entry->state.reason;
  const absl::Status failure = EnableFailure(entry->row.name, reason, entry->prepare_details);
  // Before the database knows: else the restart, which comes at once, would start another process of it.
  Want(entry, false);
  AuditRecord audit{.by = SystemActor(options_.node), .action = "modules.enable-reverted", .module = entry->row.name};
  audit.by.request_id = entry->enabling_request;
  audit.outcome = ErrorCode(failure);
  audit.message = reason.message;
  Blocking<ModuleRow>([this, name = entry->row.name, status = entry->before_enabling, generation,
                       audit] { return registry_.SetStatus(name, status, generation, &audit); },
                      [this, entry, failure](absl::StatusOr<ModuleRow> row) {
                        entry->taking_back = false;
                        for (Waiter& waiter : entry->waiters) {
                          if (!waiter.enable) continue;
                          // They are answered when it has stopped: a refusal leaves nothing behind.
                          waiter.result = failure;
                          if (row.ok()) waiter.enable = false;
                        }
                        if (row.ok()) entry->row = *row;
                        if (!stopping_) Want(entry, entry->row.status == RegistryStatus::kEnabled);
                        SettleWaiters(entry);
                      });
}

bool Reconciler::Converged(const Entry& entry, bool enable) {
  ObservedState observed = entry.state.observed;
  if (!enable) return observed == ObservedState::kStopped;
  // While a failed enable is taken back, a start that succeeds after all counts for nothing.
  if (entry.taking_back) return false;
  return observed == ObservedState::kRunning || observed == ObservedState::kDegraded || observed == ObservedState::kSkipped;
}

void Reconciler::SettleWaiters(const EntryPtr& entry) {
  if (entry->publishing > 0) return;
  ObservedState observed = entry->state.observed;
  // A module that was enabled before and can't be started again stays enabled; who asked hears of it at once.
  if (observed == ObservedState::kFailed && !entry->enabling && !entry->taking_back) {
    const absl::Status failure = RestartFailure(entry->row.name, entry->state.reason, entry->prepare_details);
    for (Waiter& waiter : entry->waiters) {
      if (waiter.enable) waiter.result = failure;
    }
  }
  if (Converged(*entry, true)) entry->enabling.reset();
  for (size_t i = 0; i < entry->waiters.size();) {
    Waiter& waiter = entry->waiters[i];
    // A wish that was overtaken by another one ends at once; the others wait for the state that they asked for.
    bool overtaken = (waiter.enable && !waiter.result.ok()) || (waiter.enable != entry->state.wanted && !entry->taking_back);
    bool there = Converged(*entry, waiter.enable) && (!waiter.complete || Complete(*entry));
    if (!overtaken && !there) {
      ++i;
      continue;
    }
    Waiter done = std::move(waiter);
    entry->waiters.erase(entry->waiters.begin() + static_cast<ptrdiff_t>(i));
    loop_.Cancel(done.timer);
    if (!done.result.ok()) {
      done.done(done.result);
    } else if (there) {
      done.done(ActionResult{View(*entry), true});
    } else {
      if (!done.told) done.done(ActionResult{View(*entry), false});
      done.done(stopping_ ? Error("SHUTTING_DOWN", "the supervisor stops before it is so; what was wished stays so")
                          : Error("GENERATION_CHANGED", "somebody has wished otherwise for module " + entry->row.name + " before it was so"));
    }
  }
}

Graph Reconciler::CurrentGraph() const {
  Graph graph;
  for (const auto& [name, entry] : entries_) {
    GraphNode& node = graph[name] = {entry->row.version, IsEnabled(entry->row), entry->manifest->dependencies,
                                     StandingOf(entry->state), entry->manifest->bulkhead_range};
    node.standing.present |= entry->publishing > 0;
    node.standing.present &= !entry->stuck;
  }
  return graph;
}

ModuleView Reconciler::View(const Entry& entry) const {
  ModuleView view;
  view.row = entry.row;
  view.manifest = entry.manifest;
  view.desired_enabled = IsEnabled(entry.row);
  view.observed = entry.state.observed;
  view.observed_generation = entry.state.generation;
  view.observed_since = entry.since;
  view.node = options_.node;
  view.reason_code = entry.state.reason.code;
  view.reason_message = entry.state.reason.message;
  if (view.reason_code.empty()) {
    view.reason_code = entry.config_refusal.code;
    view.reason_message = entry.config_refusal.message;
  }
  if (view.reason_code.empty() && !entry.unusable.ok()) {
    view.reason_code = ErrorCode(entry.unusable);
    view.reason_message = std::string(entry.unusable.message());
  }
  view.offer = entry.offer;
  view.exits.assign(entry.exits.begin(), entry.exits.end());
  view.exit_counts = entry.exit_counts;
  view.isolation = entry.isolation;
  view.workers_wanted = WorkersWanted(entry);
  view.lines_dropped = entry.lines_dropped;
  if (files_ && entry.manifest) view.files = files_(*entry.manifest);
  for (size_t i = 0; i < entry.state.slots.size(); ++i) {
    const SlotState& slot = entry.state.slots[i];
    if (slot.role == SlotState::Role::kFree) continue;
    view.workers.push_back(ViewOf(entry, i));
    if (i < entry.running.size() && entry.running[i].process) {
      // The worst of the workers' last checks.
      const HealthView& health = entry.running[i].health;
      auto rank = [](const std::string& status) { return status == "unhealthy" ? 3 : status == "degraded" ? 2 : status == "healthy" ? 1 : 0; };
      if (Serves(slot) && rank(health.status) > rank(view.health.status)) view.health = health;
      const int64_t revision = entry.running[i].config_revision;
      if (Serves(slot) && (view.config_applied_revision == 0 || revision < view.config_applied_revision))
        view.config_applied_revision = revision;
    }
  }
  // A worker and its successor beside each other.
  std::stable_sort(view.workers.begin(), view.workers.end(), [](const WorkerView& a, const WorkerView& b) { return a.slot < b.slot; });
  return view;
}

WorkerView Reconciler::ViewOf(const Entry& entry, size_t index) const {
  const SlotState& slot = entry.state.slots[index];
  WorkerView worker;
  worker.slot = slot.number;
  worker.version = entry.row.version;
  worker.restarts = slot.restarts;
  worker.ready = Listed(slot) && Routed(entry.state);
  worker.spare = slot.role == SlotState::Role::kSpare;
  for (const auto& [cause, count] : slot.exits) worker.exit_counts[std::string(ExitCauseName(cause))] = count;
  using Phase = SlotState::Phase;
  switch (slot.phase) {
    case Phase::kEmpty:
      worker.state = slot.parked                  ? ObservedState::kFailed
                     : slot.backoff.quarantined() ? ObservedState::kQuarantined
                     : slot.retry_at              ? ObservedState::kBackoff
                                                  : ObservedState::kStopped;
      if (slot.retry_at) worker.retry_at = clock_.Wall() + std::chrono::duration_cast<WallTime::duration>(*slot.retry_at - clock_.Now());
      break;
    case Phase::kStarting: worker.state = ObservedState::kStarting; break;
    case Phase::kReady: worker.state = Unwell(slot) ? ObservedState::kDegraded : ObservedState::kRunning; break;
    case Phase::kDraining:
    case Phase::kStopping:
    case Phase::kDying: worker.state = ObservedState::kStopping; break;
  }
  if (index < entry.running.size() && entry.running[index].process) {
    const WorkerProcess& process = *entry.running[index].process;
    worker.pid = process.pid();
    worker.instance = process.spec().instance;
    worker.version = process.spec().version;
    worker.started_at = process.started_at();
  }
  return worker;
}

}  // namespace bulkhead
