// Other versions, and other processes of the same one. What is replaced serves until its successor is ready:
//
//   restart   workers one after another, each by a successor beside it
//   reload    workers one after another, each stopped before it is started anew: where two processes beside each other are too much
//   upgrade   checked and copied → UPDATING → migrated → workers of the new version beside the old ones → stored → traffic switched at once →
//             the old ones drained and stopped. Before the switch a failure leaves all as it was. Afterwards, for the manifest's soakTime, an
//             exit or a bad health of the new ones brings the old version back.
//   rollback  the same way back, without migrations: a new version's tables must do for the version before it (expand, later contract)
//
// The new version is stored before the switch: whatever ends the supervisor, its successor starts one of the two, and whole.
#include <algorithm>
#include <filesystem>
#include <set>

#include "nlohmann/json.hpp"
#include "supervisor/base/limits.h"
#include "supervisor/base/log.h"
#include "supervisor/lifecycle/reconciler.h"
#include "supervisor/lifecycle/refusals.h"

namespace bulkhead {
namespace {

constexpr char kInterrupted[] = "INTERRUPTED", kRequested[] = "REQUESTED";

std::string UpgradeJson(const std::string& from, const std::string& to, std::string_view outcome, const Reason& reason, WallTime at) {
  nlohmann::json json = {{"from", from}, {"to", to}, {"outcome", outcome}, {"reason", nullptr}, {"at", FormatWall(at)}};
  if (!reason.code.empty()) json["reason"] = {{"code", reason.code}, {"message", reason.message}};
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string PreviousJson(const ModuleRow& row) {
  if (row.package.empty()) return "";
  const nlohmann::json json = {
      {"version", row.version}, {"path", row.path}, {"package", row.package}, {"sha", row.package_sha}, {"manifest", row.manifest_json}};
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// The row as it was before the last upgrade; nothing when there is none to go back to.
std::optional<ModuleRow> PreviousRow(const ModuleRow& row) {
  const auto json = nlohmann::json::parse(row.previous_json, nullptr, false);
  if (!json.is_object()) return std::nullopt;
  ModuleRow previous = row;
  previous.version = json.value("version", "");
  previous.path = json.value("path", "");
  previous.package = json.value("package", "");
  previous.package_sha = json.value("sha", "");
  previous.manifest_json = json.value("manifest", "");
  return previous;
}

// Whether workers of it may be started now: it is wanted, and what it depends on was there.
bool CanRun(const ModuleState& state) { return Routed(state) && state.prepare == ModuleState::Prepare::kDone; }

Reason ReasonOf(const absl::Status& status) { return {ErrorCode(status), std::string(status.message())}; }

}  // namespace

struct Reconciler::Upgrading {
  ModuleTarget target;
  ModuleAction action = ModuleAction::kUpgrade;  // or kRollback
  ModuleRow before, next;
  std::shared_ptr<const Manifest> manifest;      // of next
  PreparedModule prepared;
  Reason reason;                                 // of a rollback
  bool storing = false;                          // that next is in force
  std::optional<absl::Status> given_up;          // meanwhile: why
  std::function<void()> begun;                   // nothing refuses it any more
  Ended done;
};

struct Reconciler::Reloading {
  std::set<uint64_t> runs;  // processes that are to be gone
  std::function<void(absl::Status)> done;
};

const ModuleRow& Reconciler::IncomingRow(const Entry& entry) { return entry.upgrade->next; }

void Reconciler::TakeIncoming(const Entry& entry, WorkerSpec& spec, std::optional<ModuleSchema>& schema) {
  spec.manifest = entry.upgrade->manifest;
  spec.config_json = entry.upgrade->prepared.effective_config;
  spec.config_revision = entry.upgrade->prepared.config_revision;
  schema = entry.upgrade->prepared.schema;
}

void Reconciler::Command(const ModuleTarget& target, ModuleAction action, Millis wait, Done<ActionResult> done,
                         std::function<void(const EntryPtr& entry, std::function<void()> begun, Ended done)> work) {
  loop_.Post([this, target, action, wait, done = std::move(done), work = std::move(work)] {
    if (stopping_) return done(Error("SHUTTING_DOWN", "the supervisor is stopping"));
    const Instant until = clock_.Now() + wait;
    Serialized(target.name, [this, target, action, until, done, work](std::function<void()> release) {
      auto current = Current(target, action);
      if (!current.ok()) {
        done(current.status());
        return release();
      }
      const EntryPtr entry = *current;
      auto late = std::make_shared<Loop::TimerId>(0);
      auto begun = [this, entry, done, until, late] {
        const Millis left = std::max(Millis(0), std::chrono::ceil<Millis>(until - clock_.Now()));
        *late = loop_.After(left, [this, entry, done] { done(ActionResult{View(*entry), false}); });
      };
      work(entry, begun, [this, entry, done, late, until, release](absl::Status status) {
        loop_.Cancel(*late);
        release();
        if (!status.ok()) return done(status);
        if (!entry->state.wanted) return done(ActionResult{View(*entry), true});
        AnswerWhenConverged(entry, true, std::max(Millis(0), std::chrono::ceil<Millis>(until - clock_.Now())), done);
      });
    });
  });
}

// What a module must be to have its workers replaced.
absl::Status Reconciler::MayReplace(const Entry& entry) {
  const bool preparing = entry.state.prepare == ModuleState::Prepare::kRunning && entry.state.wanted;
  return entry.enabling || entry.taking_back || preparing ? StillEnabling(entry.row.name, entry.row.status) : absl::OkStatus();
}

// ---- the same version ----

void Reconciler::Restart(const ModuleTarget& target, Millis wait, Done<ActionResult> done) {
  Command(target, ModuleAction::kRestart, wait, std::move(done), [this, target](const EntryPtr& entry, std::function<void()> begun, Ended done) {
    if (absl::Status may = MayReplace(*entry); !may.ok()) return done(may);
    if (!Routed(entry->state)) return done(absl::OkStatus());  // its flag is off, or it was left out: there is nothing to restart
    // Each of its workers may still be leaving when its successor is there. Taken back by FitConnections().
    const int both = (WorkersWanted(*entry) + Processes(*entry)) * limits::kConnectionsPerWorker;
    Blocking<bool>(
        [this, target, both, has_role = entry->schema.has_value()]() -> absl::StatusOr<bool> {
          if (has_role) RETURN_IF_ERROR(registry_.SetConnectionLimit(target.name, both));
          RETURN_IF_ERROR(RecordWish(target, "modules.restart"));
          return true;
        },
        [this, entry, both, done](absl::StatusOr<bool> recorded) {
          if (!recorded.ok()) return done(recorded.status());
          entry->connections = both;
          if (!Routed(entry->state)) return done(absl::OkStatus());
          entry->restarted = done;
          Dispatch(entry, event::Retry{});  // those that wait for their backoff are started anew as well
          Dispatch(entry, event::Replace{});
        });
  });
}

void Reconciler::Reload(const ModuleTarget& target, Millis wait, Done<ActionResult> done) {
  Command(target, ModuleAction::kReload, wait, std::move(done), [this, target](const EntryPtr& entry, std::function<void()> begun, Ended done) {
    if (absl::Status may = MayReplace(*entry); !may.ok()) return done(may);
    if (!Routed(entry->state)) return done(absl::OkStatus());
    Blocking<bool>(
        [this, target]() -> absl::StatusOr<bool> {
          RETURN_IF_ERROR(RecordWish(target, "modules.reload"));
          return true;
        },
        [this, entry, begun, done](absl::StatusOr<bool> recorded) {
          if (!recorded.ok()) return done(recorded.status());
          begun();
          entry->reload = std::make_shared<Reloading>(Reloading{{}, done});
          for (const SlotState& slot : entry->state.slots) {
            if (InService(slot)) entry->reload->runs.insert(slot.run);
          }
          Dispatch(entry, event::Retry{});
          Dispatch(entry, event::Restart{AllSlots(*entry)});
        });
  });
}

// Ends a reload when others than the processes of before serve, or nobody wants the module any more.
void Reconciler::SettleReload(const EntryPtr& entry) {
  if (!entry->reload) return;
  const bool left = std::any_of(entry->state.slots.begin(), entry->state.slots.end(), [&](const SlotState& slot) {
    if (slot.role != SlotState::Role::kMember) return InService(slot) && entry->reload->runs.contains(slot.run);
    return slot.phase != SlotState::Phase::kReady || entry->reload->runs.contains(slot.run);
  });
  if (left && Routed(entry->state)) return;
  std::exchange(entry->reload, nullptr)->done(absl::OkStatus());
}

// One that does not come back as it was is enough: the others stay.
void Reconciler::ReloadDied(const EntryPtr& entry, const Reason& why) {
  if (!entry->reload) return;
  const auto reload = std::exchange(entry->reload, nullptr);
  Dispatch(entry, event::Restart{});
  reload->done(RestartFailure(entry->row.name, why, {{"", "RELOAD_STOPPED", why.message + "; the workers that were not reloaded yet stay", 0}}));
}

// ---- another version ----

// On the pool: the folder that is meant.
absl::StatusOr<Package> Reconciler::FindVersion(const ModuleRow& row, const std::optional<Offer>& offer, const VersionSource& source) const {
  std::string folder = source.path, display = source.path;
  if (!folder.empty() && folder[0] != '/')
    return Error("INVALID_ARGUMENT", "path must be absolute", {{"/path", "NOT_ABSOLUTE", "give the folder from the root on", 0}});
  if (folder.empty() && source.version.empty()) {
    if (!offer) {
      return Error("VERSION_NOT_FOUND", "no other version of " + row.name + " is on offer: name `version` or `path`, or put a folder with it into " +
                                            options_.modules_dir + " and POST /api/v1/modules/rescan");
    }
    folder = display = offer->path;
  }
  if (folder.empty() && offer && offer->version == source.version) folder = display = offer->path;
  if (folder.empty()) {
    auto folders = ListPackages(options_.modules_access);
    for (const std::string& name : folders.ok() ? *folders : std::vector<std::string>()) {
      auto package = ReadPackage(options_.modules_access + "/" + name, options_.modules_dir + "/" + name);
      if (package.ok() && package->manifest.name == row.name && package->manifest.version == source.version) return package;
    }
    const std::string installed = FindInstalled(options_.data_dir, row.name, source.version);
    if (installed.empty()) {
      return Error("VERSION_NOT_FOUND", row.name + " " + source.version + " is neither in " + options_.modules_dir +
                                            " nor installed: put its folder there, or name it as `path`",
                   {{"/version", "VERSION_NOT_FOUND", "no folder holds this version", 0}});
    }
    folder = options_.data_dir + "/" + installed;
    display = row.path;
  }
  const std::string accessible = Accessible(folder);
  std::error_code error;
  if (!std::filesystem::is_directory(accessible + "/", error))
    return Error("PACKAGE_INVALID", display + " is not a folder that the supervisor can read" + (error ? ": " + error.message() : ""));
  ASSIGN_OR_RETURN(Package package, ReadPackage(accessible, display));
  if (package.manifest.name != row.name) {
    return Error("PACKAGE_INVALID", display + " holds the module " + package.manifest.name + ", not " + row.name,
                 {{"/path", "WRONG_MODULE", "name a folder of " + row.name, 0}});
  }
  if (!source.version.empty() && package.manifest.version != source.version) {
    return Error("PACKAGE_INVALID", display + " holds " + row.name + " " + package.manifest.version + ", not " + source.version,
                 {{"/version", "WRONG_VERSION", "leave `version` out, or name the folder of " + source.version, 0}});
  }
  return package;
}

// Whether the others, and what it is configured with, go with another version.
absl::Status Reconciler::CheckVersion(const Entry& entry, const Manifest& manifest) const {
  RETURN_IF_ERROR(CheckOtherVersion(CurrentGraph(), entry.row.name, manifest.version, manifest.dependencies, manifest.bulkhead_range));
  return CheckConfig(manifest, entry.row);
}

// The same, and whether it is what is installed already.
absl::StatusOr<Reconciler::OtherVersion> Reconciler::ReadVersion(const ModuleRow& row, const std::optional<Offer>& offer, const VersionSource& source) const {
  ASSIGN_OR_RETURN(Package package, FindVersion(row, offer, source));
  RETURN_IF_ERROR(CheckPackage(package));
  if (package.manifest.version != row.version || row.package.empty()) return OtherVersion{std::move(package)};
  ASSIGN_OR_RETURN(const std::string sha, HashPackage(package.folder, package.display));
  if (sha == row.package_sha) return OtherVersion{std::move(package), true};
  if (options_.development) return OtherVersion{std::move(package)};
  return Error("MANIFEST_CHANGED", package.display + " holds other contents than what is installed of " + row.name + " " + row.version +
                                       ": give it another version (discovery.development is off)");
}

// On the pool: what a rollback would go back to.
absl::StatusOr<Package> Reconciler::ReadPrevious(const ModuleRow& row) const {
  const auto previous = PreviousRow(row);
  if (!previous) return WithoutPreviousVersion(row.name, row.status);
  return ReadPackage(options_.data_dir + "/" + previous->package, previous->package);
}

void Reconciler::Upgrade(const ModuleTarget& target, VersionSource source, Millis wait, Done<ActionResult> done) {
  Command(target, ModuleAction::kUpgrade, wait, std::move(done),
          [this, target, source = std::move(source)](const EntryPtr& entry, std::function<void()> begun, Ended done) {
            if (absl::Status may = MayReplace(*entry); !may.ok()) return done(may);
            Blocking<OtherVersion>(
                [this, row = entry->row, offer = entry->offer, source] { return ReadVersion(row, offer, source); },
                [this, entry, target, begun, done](absl::StatusOr<OtherVersion> read) {
                  if (!read.ok()) return done(read.status());
                  if (read->same) return done(absl::OkStatus());
                  if (absl::Status fits = CheckVersion(*entry, read->package.manifest); !fits.ok()) return done(fits);
                  auto upgrade = std::make_shared<Upgrading>(Upgrading{target});
                  upgrade->before = entry->row;
                  upgrade->begun = begun;
                  upgrade->done = done;
                  Blocking<Installed>(
                      [this, row = entry->row, package = std::move(read->package)]() -> absl::StatusOr<Installed> {
                        ASSIGN_OR_RETURN(InstalledPackage installed, InstallPackage(package, options_.data_dir));
                        ModuleRow next = row;
                        next.version = package.manifest.version;
                        next.path = package.display;
                        next.package = installed.relative;
                        next.package_sha = installed.sha256;
                        next.manifest_json = package.manifest.json;
                        return Installed{std::move(next), package.manifest};
                      },
                      [this, entry, upgrade](absl::StatusOr<Installed> installed) {
                        if (!installed.ok()) return upgrade->done(installed.status());
                        upgrade->next = std::move(installed->row);
                        upgrade->manifest = std::make_shared<const Manifest>(std::move(installed->manifest));
                        BeginUpgrade(entry, upgrade);
                      });
                });
          });
}

void Reconciler::Rollback(const ModuleTarget& target, Millis wait, Done<ActionResult> done) {
  Command(target, ModuleAction::kRollback, wait, std::move(done), [this, target](const EntryPtr& entry, std::function<void()> begun, Ended done) {
    if (absl::Status may = MayReplace(*entry); !may.ok()) return done(may);
    BeginRollback(entry, target, {kRequested, "an administrator asked for it"}, std::move(begun), std::move(done));
  });
}

void Reconciler::BeginRollback(const EntryPtr& entry, const ModuleTarget& target, const Reason& reason, std::function<void()> begun, Ended done) {
  const auto previous = PreviousRow(entry->row);
  if (!previous) return done(WithoutPreviousVersion(entry->row.name, entry->row.status));
  auto upgrade = std::make_shared<Upgrading>(Upgrading{target, ModuleAction::kRollback});
  upgrade->before = entry->row;
  upgrade->next = *previous;
  upgrade->reason = reason;
  upgrade->begun = std::move(begun);
  upgrade->done = std::move(done);
  Blocking<Package>(
      [this, row = entry->row] { return ReadPrevious(row); },
      [this, entry, upgrade](absl::StatusOr<Package> package) {
        if (!package.ok()) return upgrade->done(package.status());
        if (absl::Status fits = CheckVersion(*entry, package->manifest); !fits.ok()) return upgrade->done(fits);
        upgrade->manifest = std::make_shared<const Manifest>(std::move(package->manifest));
        BeginUpgrade(entry, upgrade);
      });
}

// From here on the registry says UPDATING, until it says one version or the other.
void Reconciler::BeginUpgrade(const EntryPtr& entry, std::shared_ptr<Upgrading> upgrade) {
  const Reason interrupted{kInterrupted, "the supervisor ended before it was done"};
  const std::string begun = UpgradeJson(upgrade->before.version, upgrade->next.version, "FAILED", interrupted, clock_.Wall());
  Blocking<ModuleRow>(
      [this, name = entry->row.name, begun] { return registry_.BeginUpdate(name, begun); },
      [this, entry, upgrade](absl::StatusOr<ModuleRow> row) {
        if (!row.ok()) return upgrade->done(row.status());
        const std::string last = entry->row.last_upgrade_json;
        entry->row = *std::move(row);
        entry->row.last_upgrade_json = last;  // of the one under way nothing is known yet
        entry->upgrade = upgrade;
        upgrade->begun();
        LogInfo("lifecycle", upgrade->action == ModuleAction::kRollback ? "rolling back" : "upgrading",
                {{"module", entry->row.name}, {"from", upgrade->before.version}, {"to", upgrade->next.version}, {"reason", upgrade->reason.message}});
        // What can't run is only written down: it is prepared, its migrations run, when it is wanted or tried again.
        if (!CanRun(entry->state)) return StoreUpgrade(entry);
        if (absl::Status may = CheckAccess(*upgrade->manifest, access_); !may.ok())
          return UpgradeFailed(entry, EnableFailure(entry->row.name, ReasonOf(may), ErrorDetails(may)));
        // Until the old ones have gone, there are both. What is more than is needed in the end is taken back by FitConnections().
        const int both = Processes(*entry) + Processes(upgrade->next, *upgrade->manifest);
        entry->connections = both * limits::kConnectionsPerWorker;
        Blocking<PreparedModule>(
            [this, row = upgrade->next, manifest = upgrade->manifest, both, migrate = upgrade->action == ModuleAction::kUpgrade] {
              return PrepareVersion(row, *manifest, both, migrate);
            },
            [this, entry, upgrade](absl::StatusOr<PreparedModule> prepared) {
              if (!prepared.ok()) return UpgradeFailed(entry, EnableFailure(entry->row.name, ReasonOf(prepared.status()), ErrorDetails(prepared.status())));
              upgrade->prepared = *std::move(prepared);
              if (!CanRun(entry->state) || stopping_) return UpgradeFailed(entry, Error("GENERATION_CHANGED", "it was told to stop meanwhile"));
              Dispatch(entry, event::Replace{true, WorkersWanted(upgrade->next, *upgrade->manifest)});
            });
      });
}

// What Step tells of a replacement.
void Reconciler::Replaced(const EntryPtr& entry, const Action& action) {
  if (std::holds_alternative<action::SuccessorsReady>(action)) return StoreUpgrade(entry);
  if (auto* soak = std::get_if<action::SoakFailed>(&action)) return RollBackItself(entry, soak->reason);
  auto* failed = std::get_if<action::ReplaceFailed>(&action);
  if (entry->upgrade) {
    if (failed) return UpgradeFailed(entry, EnableFailure(entry->row.name, failed->reason, {}));
    return;  // the switch, which StoreUpgrade() has commanded
  }
  if (!entry->restarted) return;
  auto restarted = std::exchange(entry->restarted, nullptr);
  if (!failed) return restarted(absl::OkStatus());
  restarted(RestartFailure(entry->row.name, failed->reason, {{"", "RESTART_STOPPED", "the workers that were not replaced yet stay", 0}}));
}

// All is ready: first it is written down, then switched.
void Reconciler::StoreUpgrade(const EntryPtr& entry) {
  const std::shared_ptr<Upgrading> upgrade = entry->upgrade;
  const bool back = upgrade->action == ModuleAction::kRollback;
  ModuleRow row = upgrade->next;
  row.status = upgrade->before.package.empty() ? RegistryStatus::kDisabled : upgrade->before.status;
  // After a rollback there is no further way back: the version that was left is taken again by name.
  row.previous_json = back ? "" : PreviousJson(upgrade->before);
  row.last_upgrade_json = back ? UpgradeJson(upgrade->next.version, upgrade->before.version, "ROLLED_BACK", upgrade->reason, clock_.Wall())
                               : UpgradeJson(upgrade->before.version, upgrade->next.version, "SUCCEEDED", {}, clock_.Wall());
  const AuditRecord audit{.by = upgrade->target.by,
                          .action = back ? "modules.rollback" : "modules.upgrade",
                          .module = row.name,
                          .target = row.name,
                          .message = upgrade->reason.message};
  upgrade->storing = true;
  Blocking<ModuleRow>(
      [this, row, audit, manifest = upgrade->manifest, before = upgrade->before.package]() -> absl::StatusOr<ModuleRow> {
        ASSIGN_OR_RETURN(ModuleRow stored, registry_.SetVersion(row, &audit));
        RETURN_IF_ERROR(SealNewSecrets(*manifest, stored));
        PrunePackages(options_.data_dir, row.name, {row.package, before});
        return stored;
      },
      [this, entry, upgrade](absl::StatusOr<ModuleRow> row) {
        upgrade->storing = false;
        if (upgrade->given_up) return RestoreVersion(entry, upgrade, *upgrade->given_up);
        if (!row.ok()) {
          if (entry->state.replacement) return Dispatch(entry, event::KeepOld{ReasonOf(row.status())});
          return UpgradeFailed(entry, row.status());
        }
        if (entry->state.replacement && !entry->state.replacement->failure.code.empty())  // too late, just in time
          return Dispatch(entry, event::TakeOver{});
        entry->row = *std::move(row);
        entry->manifest = upgrade->manifest;
        entry->unusable = absl::OkStatus();
        if (entry->offer && entry->offer->version == entry->row.version) entry->offer.reset();
        const bool running = entry->state.replacement.has_value();
        if (running) {
          entry->schema = upgrade->prepared.schema;
          entry->connections = upgrade->prepared.connections;
          entry->effective_config = upgrade->prepared.effective_config;
          entry->effective_revision = upgrade->prepared.config_revision;
          entry->awaiting_dependencies = false;  // for the old one's sake
          const Millis soak = upgrade->action == ModuleAction::kUpgrade ? upgrade->manifest->soak_time : Millis(0);
          Dispatch(entry, event::TakeOver{soak, upgrade->manifest->warm_spare});
        }
        entry->upgrade.reset();
        LogInfo("lifecycle", upgrade->action == ModuleAction::kRollback ? "rolled back" : "upgraded",
                {{"module", entry->row.name}, {"version", entry->row.version}, {"package", entry->row.package}});
        // The generation is another one; and one that could not be started may be now.
        Want(entry, entry->state.wanted);
        if (!running && entry->state.wanted) Dispatch(entry, event::Retry{});
        upgrade->done(absl::OkStatus());
      });
}

// Nothing of the new version is left on this node; the registry is to say so, too.
void Reconciler::UpgradeFailed(const EntryPtr& entry, const absl::Status& why) {
  const std::shared_ptr<Upgrading> upgrade = std::exchange(entry->upgrade, nullptr);
  LogWarn("lifecycle", upgrade->action == ModuleAction::kRollback ? "the rollback failed" : "the upgrade failed",
          {{"module", entry->row.name}, {"from", upgrade->before.version}, {"to", upgrade->next.version}, {"reason", std::string(why.message())}});
  if (upgrade->storing) {  // one after the other: the later write is the one that stays
    upgrade->given_up = why;
    return;
  }
  RestoreVersion(entry, upgrade, why);
}

// Until the database has taken it; meanwhile the module stays UPDATING.
void Reconciler::RestoreVersion(const EntryPtr& entry, const std::shared_ptr<Upgrading>& upgrade, const absl::Status& why) {
  ModuleRow row = upgrade->before;
  row.last_upgrade_json = UpgradeJson(upgrade->before.version, upgrade->next.version, "FAILED", ReasonOf(why), clock_.Wall());
  AuditRecord audit{.by = upgrade->target.by,
                    .action = upgrade->action == ModuleAction::kRollback ? "modules.rollback" : "modules.upgrade",
                    .module = row.name,
                    .target = row.name};
  audit.outcome = ErrorCode(why);
  audit.message = std::string(why.message());
  const bool own = audit.by.credential == SystemActor("").credential;  // else the call that failed has the row
  Blocking<ModuleRow>([this, row, audit, own] { return registry_.SetVersion(row, own ? &audit : nullptr); },
                      [this, entry, upgrade, why](absl::StatusOr<ModuleRow> row) {
                        if (!row.ok() && !stopping_ && ErrorCode(row.status()) != "MODULE_NOT_FOUND") {
                          LogWarn("lifecycle", "the end of an upgrade can't be written; trying again",
                                  {{"module", entry->row.name}, {"reason", std::string(row.status().message())}});
                          loop_.After(limits::kUpgradeWriteRetry, [this, entry, upgrade, why] { RestoreVersion(entry, upgrade, why); });
                          return;
                        }
                        entry->row = row.ok() ? *std::move(row) : upgrade->before;
                        if (!stopping_) Want(entry, entry->state.wanted);
                        const std::string sentence = std::string(why.message()) + "; version " + upgrade->before.version + " goes on";
                        upgrade->done(Error(ErrorCode(why), sentence, ErrorDetails(why)));
                      });
}

// The version that took over does not do well within its time on trial.
void Reconciler::RollBackItself(const EntryPtr& entry, const Reason& reason) {
  const std::string version = entry->row.version;
  LogWarn("lifecycle", "the new version does not do well; going back", {{"module", entry->row.name}, {"version", version}, {"reason", reason.message}});
  Serialized(entry->row.name, [this, entry, reason, version](std::function<void()> release) {
    // Somebody may have commanded otherwise meanwhile.
    if (stopping_ || Find(entry->row.name) != entry || entry->row.version != version || entry->row.status != RegistryStatus::kEnabled) return release();
    BeginRollback(entry, {entry->row.name, std::nullopt, SystemActor(options_.node)}, reason, [] {}, [release](absl::Status) { release(); });
  });
}

}  // namespace bulkhead
