// What goes beyond one module: enabling it with all that it depends on, and saying beforehand what an action would do.
#include "supervisor/base/limits.h"
#include "supervisor/base/log.h"
#include "supervisor/lifecycle/reconciler.h"
#include "supervisor/lifecycle/refusals.h"
#include "supervisor/store/migrations.h"

namespace bulkhead {
namespace {

// Files that enabling would run, in order; an error for what would keep them from running.
absl::StatusOr<std::vector<std::string>> PendingMigrations(Database& database, const std::string& module, const std::string& folder) {
  ASSIGN_OR_RETURN(const std::vector<MigrationFile> files, ReadMigrations(folder));
  ASSIGN_OR_RETURN(const MigrationOverview overview, InspectMigrations(database, module, files));
  if (!overview.problems.empty()) {
    std::vector<ErrorDetail> details;
    for (const MigrationProblem& problem : overview.problems) details.push_back({problem.file, problem.code, problem.message, problem.line});
    return Error(overview.problems[0].code, overview.problems[0].message, std::move(details));
  }
  std::vector<std::string> pending;
  for (const MigrationInfo& file : overview.files) {
    if (file.state != MigrationState::kApplied) pending.push_back(file.name);
  }
  return pending;
}

}  // namespace

// Modules that are enabled one after another on behalf of one call, and disabled again when one of them fails.
struct Reconciler::Chain {
  ModuleTarget target;
  std::vector<std::string> order;    // dependencies first
  size_t next = 0;
  std::vector<std::string> enabled;  // by this chain
  Loop::TimerId late = 0;
  Done<ActionResult> done;
};

void Reconciler::EnableWithDependencies(const ModuleTarget& target, MayEnable may, Millis wait, Done<ActionResult> done) {
  loop_.Post([this, target, may = std::move(may), wait, done = std::move(done)] {
    if (stopping_) return done(Error("SHUTTING_DOWN", "the supervisor is stopping"));
    auto current = Current(target, ModuleAction::kEnable);
    if (!current.ok()) return done(current.status());
    auto order = EnableOrder(CurrentGraph(), target.name);
    if (!order.ok()) return done(order.status());
    std::vector<ErrorDetail> forbidden;
    for (const std::string& other : *order) {
      if (other != target.name && !may(other))
        forbidden.push_back({"/dependencies/modules/" + other, "FORBIDDEN", "the permission \"module:" + other + ":write\" is lacking", 0});
    }
    if (!forbidden.empty()) {
      const std::string message = "module " + target.name + " can't be enabled with its dependencies: " + forbidden.front().message;
      return done(Error("FORBIDDEN", message, std::move(forbidden)));
    }
    auto chain = std::make_shared<Chain>(Chain{target, *std::move(order), 0, {}, 0, done});
    chain->late = loop_.After(wait, [this, chain] {
      if (EntryPtr entry = Find(chain->target.name)) chain->done(ActionResult{View(*entry), false});
    });
    EnableNext(chain);
  });
}

void Reconciler::EnableNext(const std::shared_ptr<Chain>& chain) {
  const std::string name = chain->order[chain->next];
  const bool last = ++chain->next == chain->order.size();
  EntryPtr entry = Find(name);
  const bool was_enabled = entry && entry->row.status == RegistryStatus::kEnabled;
  // Only the last one is what the caller has read.
  ModuleTarget one(name, last ? chain->target.if_generation : std::nullopt, last ? chain->target.by : OnTheWay(chain->target.by));
  Enable(one, limits::kMaxWait, [this, chain, name, last, was_enabled, answered = std::make_shared<bool>(false)](absl::StatusOr<ActionResult> result) {
    if (std::exchange(*answered, true)) return;
    if (result.ok() && !result->converged) {
      result = Error("MODULE_START_FAILED", "module " + name + " does not run after " + std::to_string(limits::kMaxWait.count() / 1000) + " s");
      chain->enabled.push_back(name);  // it is enabled all the same
    }
    // Of the last one the call itself tells.
    if (!last && (!was_enabled || !result.ok())) RecordOutcome(chain->target.by, "modules.enable", name, result.status());
    if (!result.ok()) return UndoChain(chain, name, result.status());
    if (!was_enabled) chain->enabled.push_back(name);
    if (!last) return EnableNext(chain);
    loop_.Cancel(chain->late);
    chain->done(std::move(result));
  });
}

// Disables again what the chain has enabled, dependents first, then answers with what broke it.
void Reconciler::UndoChain(const std::shared_ptr<Chain>& chain, const std::string& failed, const absl::Status& why) {
  if (!chain->enabled.empty()) {
    const std::string name = chain->enabled.back();
    chain->enabled.pop_back();
    LogInfo("lifecycle", "disabled again: what was enabled for the sake of another module", {{"module", name}, {"failed", failed}});
    Actor by = SystemActor(options_.node);
    by.request_id = chain->target.by.request_id;
    return Disable({name, std::nullopt, by}, limits::kMaxWait, [this, chain, failed, why, name, by,
                                                                answered = std::make_shared<bool>(false)](absl::StatusOr<ActionResult> undone) {
      if (undone.ok() && !undone->converged) undone = Error("MODULE_BUSY", "module " + name + " does not stop");
      if (std::exchange(*answered, true)) return;
      RecordOutcome(by, "modules.disable", name, undone.status());
      if (!undone.ok())
        LogWarn("lifecycle", "could not be disabled again", {{"module", name}, {"reason", std::string(undone.status().message())}});
      UndoChain(chain, failed, why);
    });
  }
  loop_.Cancel(chain->late);
  chain->done(ChainFailure(chain->target.name, failed, why));
}

// What became of a wish whose row said ACCEPTED and that is no call's own.
void Reconciler::RecordOutcome(const Actor& by, const std::string& action, const std::string& module, const absl::Status& outcome) {
  AuditRecord record{.by = OnTheWay(by), .action = action, .module = module, .target = module};
  if (!outcome.ok()) {
    record.outcome = ErrorCode(outcome);
    record.message = std::string(outcome.message());
  }
  Blocking<bool>(
      [this, record]() -> absl::StatusOr<bool> {
        RETURN_IF_ERROR(AuditLog(database_).Append(record));
        return true;
      },
      [module](absl::StatusOr<bool> written) {
        if (!written.ok()) LogWarn("audit", "an outcome is missing in the audit", {{"module", module}, {"reason", std::string(written.status().message())}});
      });
}

// What a plan has to look up on the pool, and what is known of it so far.
struct Reconciler::Inspection {
  ModuleAction action;
  ModuleRow row;
  std::shared_ptr<const Manifest> manifest;
  std::set<std::string> flags_on;
  std::optional<Offer> offer;
  VersionSource version;  // of an upgrade
  PlanFacts facts;
  NodeAccess access;  // of the moment
};

Reconciler::Inspection Reconciler::WhatToInspect(const Entry& entry, ModuleAction action) const {
  Inspection inspection{action, entry.row, entry.manifest, flags_on_, entry.offer, {}, {}, access_};
  PlanFacts& facts = inspection.facts;
  facts.enabling = !MayReplace(entry).ok();
  facts.status = entry.row.status;
  facts.installed = !entry.row.package.empty();
  facts.busy = Busy(entry);
  facts.restarts_for_config = entry.manifest->config_reload == ConfigReload::kRestart;
  facts.workers = WorkersWanted(entry);
  facts.manifest_workers = entry.manifest->workers;
  for (const SlotState& slot : entry.state.slots) facts.waiting += slot.parked || slot.retry_at.has_value();
  facts.unusable = entry.unusable;
  return inspection;
}

// On the pool. An error only when it can't be told; what is wrong with the module is in the facts.
absl::Status Reconciler::Inspect(Inspection& inspection) const {
  const ModuleAction action = inspection.action;
  const ModuleRow& row = inspection.row;
  const bool version = action == ModuleAction::kUpgrade || action == ModuleAction::kRollback;
  PlanFacts& facts = inspection.facts;
  if (!version && action != ModuleAction::kInstall && action != ModuleAction::kEnable) return absl::OkStatus();
  Manifest manifest = *inspection.manifest;
  std::string folder = options_.data_dir + "/" + row.package;
  auto take = [&](absl::StatusOr<Package> package) {
    facts.package = package.status();
    if (!package.ok()) return;
    folder = package->folder;
    manifest = std::move(package->manifest);
  };
  if (action == ModuleAction::kUpgrade) {
    auto other = ReadVersion(row, inspection.offer, inspection.version);
    facts.package_same = other.ok() && other->same;
    take(other.ok() ? absl::StatusOr<Package>(std::move(other->package)) : other.status());
  } else if (action == ModuleAction::kRollback) {
    take(ReadPrevious(row));
  } else if (!facts.installed) {
    take(ReadFolder(row));
    if (facts.package.ok()) facts.package = CheckPackage({folder, row.path, manifest, {}});
  }
  facts.package_version = manifest.version;
  if (action == ModuleAction::kInstall || (!version && !facts.unusable.ok())) return absl::OkStatus();
  facts.config = CheckConfig(*inspection.manifest, row);
  facts.package_config = CheckConfig(manifest, row);
  facts.package_dependencies = manifest.dependencies;
  facts.package_bulkhead_range = manifest.bulkhead_range;
  if (FlagOff(inspection.flags_on, manifest)) facts.flag_off = manifest.feature_flag;
  if (auto reason = WithoutUid(row)) {
    facts.prepare = *reason;
  } else if (absl::Status may = CheckAccess(manifest, inspection.access); !may.ok()) {
    facts.prepare = {ErrorCode(may), std::string(may.message())};
    facts.prepare_details = ErrorDetails(may);
  }
  if (action == ModuleAction::kRollback) return absl::OkStatus();  // it runs none
  if (!manifest.has_database || !facts.package.ok() || !facts.prepare.code.empty()) return absl::OkStatus();
  absl::Status allowed = registry_.CheckExtensions(row.name, manifest.extensions);
  auto pending = allowed.ok() ? PendingMigrations(database_, row.name, folder + "/" + manifest.migrations_dir) : allowed;
  if (pending.ok()) {
    facts.migrations = *std::move(pending);
    return absl::OkStatus();
  }
  if (ErrorCode(pending.status()).starts_with("DATABASE_")) return pending.status();
  facts.prepare = {ErrorCode(pending.status()), std::string(pending.status().message())};
  facts.prepare_details = ErrorDetails(pending.status());
  return absl::OkStatus();
}

// The plan of a moment: as it is looked up, modules may have changed.
void Reconciler::MakePlan(const std::string& name, PlanRequest request, Done<Plan> done) {
  loop_.Post([this, name, request, done = std::move(done)] {
    if (!Find(name)) return done(NotFound(name));
    Graph graph = CurrentGraph();
    std::vector<std::string> involved = {name};
    if (request.action == ModuleAction::kEnable && request.with_dependencies) {
      if (auto order = EnableOrder(graph, name); order.ok()) involved = *std::move(order);
    }
    std::vector<Inspection> inspections;
    for (const std::string& module : involved) inspections.push_back(WhatToInspect(*Find(module), request.action));
    inspections.back().version = request.version;
    auto make = [this, name, request, graph = std::move(graph), inspections = std::move(inspections)]() mutable -> absl::StatusOr<Plan> {
      AllPlanFacts facts;
      for (Inspection& inspection : inspections) {
        RETURN_IF_ERROR(Inspect(inspection));
        facts[inspection.row.name] = std::move(inspection.facts);
      }
      return bulkhead::MakePlan(std::move(graph), name, request.action, {request.with_dependencies, request.purge, request.workers}, facts);
    };
    Blocking<Plan>(std::move(make), done);
  });
}

}  // namespace bulkhead
