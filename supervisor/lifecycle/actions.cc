// What administrators command: register, install, enable, disable, delete. configure.cc has the configuration.
#include <algorithm>
#include <filesystem>

#include "nlohmann/json.hpp"
#include "supervisor/base/limits.h"
#include "supervisor/base/log.h"
#include "supervisor/base/random.h"
#include "supervisor/lifecycle/reconciler.h"
#include "supervisor/lifecycle/refusals.h"

namespace bulkhead {
namespace {

AuditRecord RecordOf(const ModuleTarget& target, const char* action) {
  return {.by = target.by, .action = action, .module = target.name, .target = target.name};
}

}  // namespace

AuditRecord WishOf(const ModuleTarget& target, const char* action) {
  AuditRecord record = RecordOf(target, action);
  record.outcome = kAccepted;
  return record;
}

absl::Status Reconciler::RecordWish(const ModuleTarget& target, const char* action) {
  const AuditRecord wish = WishOf(target, action);
  RETURN_IF_ERROR(AuditLog(database_).Append(wish));
  Recorded(wish);
  return absl::OkStatus();
}

absl::Status NotFound(const std::string& name) {
  return Error("MODULE_NOT_FOUND", "no module " + name + " is registered; GET /api/v1/modules lists those that are");
}

std::vector<ErrorDetail> Details(const std::vector<Finding>& findings) {
  std::vector<ErrorDetail> details;
  for (const Finding& f : findings) details.push_back({f.path, f.code, f.message, f.line});
  return details;
}

absl::Status ModuleTarget::Check(int64_t generation) const {
  if (!if_generation || *if_generation == generation) return absl::OkStatus();
  return Error("PRECONDITION_FAILED", "\"" + name + "\" has changed: its generation is " + std::to_string(generation) + ", not " +
                                          std::to_string(*if_generation) + "; read it again before you change it");
}

Reconciler::EntryPtr Reconciler::Find(const std::string& name) const {
  auto found = entries_.find(name);
  return found == entries_.end() ? nullptr : found->second;
}

void Reconciler::Serialized(const std::string& name, std::function<void(std::function<void()>)> command) {
  auto& queue = commands_[name];
  queue.push_back([this, name, command = std::move(command)] {
    auto released = std::make_shared<bool>(false);
    command([this, name, released] {
      if (std::exchange(*released, true)) return;
      // Posted, so that an answer given at once does not nest the next command.
      loop_.Post([this, name] {
        commands_[name].pop_front();
        RunNext(name);
      });
    });
  });
  if (queue.size() == 1) RunNext(name);
}

void Reconciler::RunNext(const std::string& name) {
  auto found = commands_.find(name);
  if (found == commands_.end()) return;
  if (found->second.empty()) {
    commands_.erase(found);
    return;
  }
  auto next = found->second.front();
  next();
}

void Reconciler::List(Done<std::vector<ModuleView>> done) {
  loop_.Post([this, done = std::move(done)] {
    std::vector<ModuleView> views;
    for (const auto& [name, entry] : entries_) views.push_back(View(*entry));
    done(std::move(views));
  });
}

void Reconciler::Get(const std::string& name, Done<ModuleView> done) {
  loop_.Post([this, name, done = std::move(done)] {
    EntryPtr entry = Find(name);
    if (!entry) return done(NotFound(name));
    done(View(*entry));
  });
}

Reconciler::EntryPtr Reconciler::AddEntry(ModuleRow row, Manifest manifest) {
  auto entry = std::make_shared<Entry>(Random::FromEntropy().Next());
  entry->since = clock_.Wall();
  entry->state.since = clock_.Now();
  entry->state.generation = row.generation;
  entry->manifest = std::make_shared<const Manifest>(std::move(manifest));
  entry->row = std::move(row);
  entries_[entry->row.name] = entry;
  return entry;
}

// On the pool: a manifest of hundreds of routes takes milliseconds.
absl::StatusOr<Reconciler::Checked> Reconciler::CheckRegistration(const RegisterRequest& request) const {
  ManifestResult parsed = ParseManifest(request.manifest_json, false);
  if (!parsed.manifest) {
    return Error("MANIFEST_INVALID",
                 "the manifest has " + std::to_string(parsed.errors.size()) +
                     " error(s); POST it to /api/v1/modules/validate to see them all",
                 Details(parsed.errors));
  }
  if (!request.path.empty() && request.path[0] != '/')
    return Error("INVALID_ARGUMENT", "path must be absolute", {{"/path", "NOT_ABSOLUTE", "give the folder from the root on", 0}});
  RETURN_IF_ERROR(CheckBulkheadRange(*parsed.manifest));
  // A secret sent as it is shown is none.
  ASSIGN_OR_RETURN(std::string config, NewConfig(*parsed.manifest, "{}", request.config_json.empty() ? "{}" : request.config_json, false));
  if (config != "{}") {
    ConfigResult checked = EffectiveConfig(*parsed.manifest, config);
    if (!checked.errors.empty())
      return Error("CONFIG_INVALID", "the configuration does not fit the manifest's schema", Details(checked.errors));
  }
  std::string sealed = SealConfig(secrets_, *parsed.manifest, config);
  return Checked{std::move(*parsed.manifest), std::move(sealed)};
}

void Reconciler::Register(RegisterRequest request, Done<ModuleView> done) {
  loop_.Post([this, request = std::move(request), done = std::move(done)] {
    Blocking<Checked>([this, request] { return CheckRegistration(request); },
                      [this, path = request.path, by = request.by, done](absl::StatusOr<Checked> checked) {
                        if (!checked.ok()) return done(checked.status());
                        RegisterChecked(*std::move(checked), path, by, done);
                      });
  });
}

void Reconciler::RegisterChecked(Checked checked, const std::string& path, const Actor& by, Done<ModuleView> done) {
  Serialized(checked.manifest.name, [this, manifest = checked.manifest, config = checked.sealed_config, path, by,
                                     done = std::move(done)](std::function<void()> release) {
    ModuleRow row;
    row.name = manifest.name;
    row.version = manifest.version;
    row.manifest_json = manifest.json;
    row.config_json = config;
    row.path = path;
    AuditRecord audit = RecordOf({row.name, std::nullopt, by}, "modules.register");
    Blocking<ModuleRow>([this, row, audit] { return registry_.Insert(row, &audit); },
                        [this, manifest, done, release](absl::StatusOr<ModuleRow> row) {
                          if (!row.ok()) {
                            done(row.status());
                            return release();
                          }
                          EntryPtr entry = AddEntry(*row, manifest);
                          LogInfo("lifecycle", "registered", {{"module", row->name}, {"version", row->version}});
                          done(View(*entry));
                          release();
                        });
  });
}

// A folder of the modules directory may only be reachable through the descriptor that was opened at start.
std::string Reconciler::Accessible(const std::string& folder) const {
  if (!folder.starts_with(options_.modules_dir + "/")) return folder;
  return options_.modules_access + folder.substr(options_.modules_dir.size());
}

// On the pool: what would be copied of a module that is not installed.
absl::StatusOr<Package> Reconciler::ReadFolder(const ModuleRow& row) const {
  if (row.path.empty()) return WithoutFolder(row.name);
  const std::string folder = Accessible(row.path);
  std::error_code error;
  if (!std::filesystem::is_directory(folder + "/", error)) {
    return Error("PACKAGE_INVALID",
                 row.path + " is not a folder that the supervisor can read" + (error ? ": " + error.message() : ""));
  }
  ASSIGN_OR_RETURN(Package package, ReadPackage(folder, row.path));
  RETURN_IF_ERROR(CheckBulkheadRange(package.manifest));
  if (package.manifest.name != row.name || package.manifest.version != row.version) {
    return Error("MANIFEST_CHANGED", row.path + " holds " + package.manifest.name + " " + package.manifest.version +
                                         ", registered is " + row.name + " " + row.version + "; delete and register it anew");
  }
  return package;
}

// On the pool: the copy of a module's folder, as the row that says so.
absl::StatusOr<Reconciler::Installed> Reconciler::InstallFolder(ModuleRow row, const AuditRecord& audit) {
  ASSIGN_OR_RETURN(Package package, ReadFolder(row));
  ASSIGN_OR_RETURN(InstalledPackage installed, InstallPackage(package, options_.data_dir));
  row.package = installed.relative;
  row.package_sha = installed.sha256;
  row.manifest_json = package.manifest.json;
  row.status = RegistryStatus::kDisabled;
  ASSIGN_OR_RETURN(row, registry_.SetPackage(row, &audit));
  RETURN_IF_ERROR(SealNewSecrets(package.manifest, row));
  return Installed{std::move(row), std::move(package.manifest)};
}

// The manifest is another one than before: what it calls a secret now may have been stored when it was none.
absl::Status Reconciler::SealNewSecrets(const Manifest& manifest, ModuleRow& row) {
  if (!HasUnsealed(manifest, row.config_json)) return absl::OkStatus();
  ASSIGN_OR_RETURN(row, registry_.ResealConfig(row.name, SealConfig(secrets_, manifest, row.config_json)));
  return absl::OkStatus();
}

void Reconciler::InstallEntry(const EntryPtr& entry, const ModuleTarget& target, std::function<void(absl::Status)> done) {
  if (!entry->row.package.empty()) return done(absl::OkStatus());
  if (entry->row.path.empty()) return done(WithoutFolder(entry->row.name));
  const ModuleRow before = entry->row;
  entry->row.status = RegistryStatus::kInstalling;
  Blocking<Installed>(
      [this, before, audit = RecordOf(target, "modules.install")]() -> absl::StatusOr<Installed> {
        RETURN_IF_ERROR(registry_.MarkStatus(before.name, RegistryStatus::kInstalling).status());
        auto installed = InstallFolder(before, audit);
        // Should this fail, too, the next boot does it.
        if (!installed.ok()) registry_.MarkStatus(before.name, before.status).IgnoreError();
        return installed;
      },
      [entry, before, done](absl::StatusOr<Installed> installed) {
        if (!installed.ok()) {
          entry->row = before;
          return done(installed.status());
        }
        entry->row = std::move(installed->row);
        entry->manifest = std::make_shared<const Manifest>(std::move(installed->manifest));
        entry->unusable = absl::OkStatus();
        LogInfo("lifecycle", "installed", {{"module", entry->row.name}, {"package", entry->row.package}});
        done(absl::OkStatus());
      });
}

absl::StatusOr<Reconciler::EntryPtr> Reconciler::Current(const ModuleTarget& target, std::optional<ModuleAction> action) const {
  EntryPtr entry = Find(target.name);
  if (!entry) return NotFound(target.name);
  RETURN_IF_ERROR(target.Check(entry->row.generation));
  if (!action || *action == ModuleAction::kEnable || *action == ModuleAction::kConfigure) RETURN_IF_ERROR(entry->unusable);
  if (action) RETURN_IF_ERROR(CheckTransition(target.name, entry->row.status, *action));
  return entry;
}

void Reconciler::Install(const ModuleTarget& target, Millis wait, Done<ActionResult> done) {
  loop_.Post([this, target, wait, done = std::move(done)] {
    Serialized(target.name, [this, target, wait, done](std::function<void()> release) {
      auto current = Current(target, ModuleAction::kInstall);
      if (!current.ok()) {
        done(current.status());
        return release();
      }
      EntryPtr entry = *current;
      // The next command waits for the end of the installation, whoever has been told that it goes on.
      Loop::TimerId late = loop_.After(wait, [this, entry, done] { done(ActionResult{View(*entry), false}); });
      InstallEntry(entry, target, [this, entry, done, late, release](absl::Status status) {
        loop_.Cancel(late);
        status.ok() ? done(ActionResult{View(*entry), true}) : done(status);
        release();
      });
    });
  });
}

size_t Reconciler::Followed(const Entry& entry) {
  return static_cast<size_t>(std::count_if(entry.waiters.begin(), entry.waiters.end(), [](const Waiter& w) { return w.told; }));
}

void Reconciler::Wait(const EntryPtr& entry, bool enable, Millis wait, Done<ActionResult> done, bool complete) {
  Waiter waiter;
  waiter.enable = enable;
  waiter.complete = complete;
  waiter.done = std::move(done);
  if (wait <= Millis(0)) {
    waiter.done(ActionResult{View(*entry), false});
    waiter.told = true;
    if (Followed(*entry) >= limits::kMaxFollowed) return;
  } else {
    auto id = std::make_shared<Loop::TimerId>(0);
    *id = waiter.timer = loop_.After(wait, [this, weak = std::weak_ptr(entry), id] {
      if (auto entry = weak.lock()) Late(entry, *id);
    });
  }
  entry->waiters.push_back(std::move(waiter));
  SettleWaiters(entry);
}

// The wait has run out: told so, and kept for the outcome, unless that is known already and waits for nothing but the state.
void Reconciler::Late(const EntryPtr& entry, Loop::TimerId timer) {
  auto found = std::find_if(entry->waiters.begin(), entry->waiters.end(), [&](const Waiter& w) { return w.timer == timer; });
  if (found == entry->waiters.end()) return;
  const auto done = found->done;
  const absl::Status result = found->result;
  const bool kept = result.ok() && Followed(*entry) < limits::kMaxFollowed;
  found->timer = 0;
  found->told = true;
  if (!kept) entry->waiters.erase(found);
  result.ok() ? done(ActionResult{View(*entry), false}) : done(result);
}

void Reconciler::Enable(const ModuleTarget& target, Millis wait, Done<ActionResult> done) {
  loop_.Post([this, target, wait, done = std::move(done)] {
    if (stopping_) return done(Error("SHUTTING_DOWN", "the supervisor is stopping"));
    Serialized(target.name, [this, target, wait, done](std::function<void()> release) {
      auto refuse = [done, release](absl::Status status) {
        done(std::move(status));
        release();
      };
      auto current = Current(target, ModuleAction::kEnable);
      if (!current.ok()) return refuse(current.status());
      EntryPtr entry = *current;
      auto recorded = [this, entry, wait, done, release] {
        AnswerWhenConverged(entry, true, wait, done);
        release();
      };
      if (entry->row.status == RegistryStatus::kEnabled) {
        // It is so already; but a module that has given up is tried again, and one that this run was told to leave out is started.
        entry->state.wanted ? Dispatch(entry, event::Retry{}) : Want(entry, true);
        return recorded();
      }
      // What the registered manifest already forbids is refused before anything is installed.
      if (absl::Status may = CheckEnable(*entry); !may.ok()) return refuse(may);
      ModuleTarget installed = target;
      installed.by = OnTheWay(target.by);
      InstallEntry(entry, installed, [this, entry, target, refuse, recorded](absl::Status status) {
        // The folder may say more than what was registered, and other modules may have changed meanwhile.
        if (status.ok()) status = CheckEnable(*entry);
        if (!status.ok()) return refuse(status);
        RecordEnabled(entry, target, [refuse, recorded](absl::Status status) { status.ok() ? recorded() : refuse(status); });
      });
    });
  });
}

// From here on the next command may come, and overtake this one: a disable does not wait for a start that hangs.
void Reconciler::AnswerWhenConverged(const EntryPtr& entry, bool enable, Millis wait, Done<ActionResult> done) {
  if (entry->publishing == 0 && Converged(*entry, enable)) return done(ActionResult{View(*entry), true});
  Wait(entry, enable, wait, std::move(done));
}

absl::Status Reconciler::CheckEnable(const Entry& entry) const {
  RETURN_IF_ERROR(CheckDependencies(CurrentGraph(), entry.row.name));
  return CheckConfig(*entry.manifest, entry.row);
}

void Reconciler::RecordEnabled(const EntryPtr& entry, const ModuleTarget& target, std::function<void(absl::Status)> recorded) {
  entry->before_enabling = entry->row.status;
  Blocking<ModuleRow>(
      [this, name = entry->row.name, audit = WishOf(target, "modules.enable")] {
        return registry_.SetStatus(name, RegistryStatus::kEnabled, std::nullopt, &audit);
      },
      [this, entry, by = target.by, recorded](absl::StatusOr<ModuleRow> row) {
        if (!row.ok()) return recorded(row.status());
        entry->row = *row;
        entry->enabling = row->generation;
        entry->enabling_request = by.request_id;
        Want(entry, true);
        recorded(absl::OkStatus());
      });
}

void Reconciler::Disable(const ModuleTarget& target, Millis wait, Done<ActionResult> done) {
  loop_.Post([this, target, wait, done = std::move(done)] {
    Serialized(target.name, [this, target, wait, done](std::function<void()> release) {
      auto refuse = [done, release](absl::Status status) {
        done(std::move(status));
        release();
      };
      auto current = Current(target, ModuleAction::kDisable);
      if (!current.ok()) return refuse(current.status());
      EntryPtr entry = *current;
      if (absl::Status free = CheckDependents(CurrentGraph(), target.name, true); !free.ok()) return refuse(free);
      auto recorded = [this, entry, wait, done, release] {
        AnswerWhenConverged(entry, false, wait, done);
        release();
      };
      if (entry->row.status != RegistryStatus::kEnabled) return recorded();
      Blocking<ModuleRow>([this, name = target.name, audit = WishOf(target, "modules.disable")] {
                            return registry_.SetStatus(name, RegistryStatus::kDisabled, std::nullopt, &audit);
                          },
                          [this, entry, refuse, recorded](absl::StatusOr<ModuleRow> row) {
                            if (!row.ok()) return refuse(row.status());
                            entry->row = *row;
                            entry->enabling.reset();
                            Want(entry, false);
                            recorded();
                          });
    });
  });
}

// A preparation that is under way migrates: it would make the schema again behind a purge.
bool Reconciler::Busy(const Entry& entry) {
  const bool preparing = entry.state.prepare == ModuleState::Prepare::kRunning && !entry.awaiting_dependencies;
  return preparing || entry.state.observed != ObservedState::kStopped;
}

void Reconciler::Delete(const ModuleTarget& target, bool purge, Done<bool> done) {
  loop_.Post([this, target, purge, done = std::move(done)] {
    Serialized(target.name, [this, target, purge, done](std::function<void()> release) {
      const std::string& name = target.name;
      auto answer = [done, release](absl::StatusOr<bool> result) {
        done(std::move(result));
        release();
      };
      auto current = Current(target, ModuleAction::kDelete);
      if (!current.ok()) return answer(current.status());
      const EntryPtr entry = *current;
      if (absl::Status free = CheckDependents(CurrentGraph(), name, false); !free.ok()) return answer(free);
      if (Busy(*entry)) return answer(StillStopping(name, entry->row.status));
      const RegistryStatus before = entry->row.status;
      entry->row.status = RegistryStatus::kRemoving;
      AuditRecord audit = RecordOf(target, purge ? "modules.purge" : "modules.delete");
      Blocking<bool>(
          [this, name, purge, before, audit]() -> absl::StatusOr<bool> {
            auto remove = [&]() -> absl::Status {
              RETURN_IF_ERROR(registry_.MarkStatus(name, RegistryStatus::kRemoving).status());
              return registry_.Delete(name, &audit, purge);
            };
            if (absl::Status removed = remove(); !removed.ok()) {
              registry_.MarkStatus(name, before).IgnoreError();  // should this fail, too, the next boot does it
              return removed;
            }
            RemovePackages(options_.data_dir, name);
            return purge;
          },
          [this, name, purge, before, entry, answer](absl::StatusOr<bool> deleted) {
            if (!deleted.ok()) {
              entry->row.status = before;
              return answer(deleted);
            }
            entries_.erase(name);
            LogInfo("lifecycle", purge ? "deleted with its data" : "deleted", {{"module", name}});
            if (deleted_ && !purge) deleted_(name, false, [](absl::Status) {});
            if (!purge) return answer(false);
            const auto finish = [answer](const char* what, const absl::Status& status) {
              if (status.ok()) return answer(true);
              answer(Error("INTERNAL", std::string("the module is deleted, but not its ") + what + ": " + std::string(status.message())));
            };
            const auto remove_data = [this, name, finish](absl::Status logs) {
              // Files of the module's own uid: only the spawner may remove them.
              spawner_.RemoveFolder(options_.data_dir + "/modules/" + name, [logs, finish](absl::Status data) {
                data.ok() ? finish("logs or files", logs) : finish("data folder", data);
              });
            };
            deleted_ ? deleted_(name, true, remove_data) : remove_data(absl::OkStatus());
          });
    });
  });
}

void Reconciler::WithStopped(const ModuleTarget& target, Millis wait, std::function<absl::Status(const ModuleView&)> work, Done<bool> done) {
  loop_.Post([this, target, wait, work = std::move(work), done = std::move(done)] {
    if (stopping_) return done(Error("SHUTTING_DOWN", "the supervisor is stopping"));
    // The wait begins before its turn; the next command waits for the end of the work.
    Loop::TimerId late = loop_.After(wait, [done] { done(false); });
    Serialized(target.name, [this, target, work, done, late](std::function<void()> release) {
      auto finish = [this, done, late, release](absl::StatusOr<bool> result) {
        loop_.Cancel(late);
        done(std::move(result));
        release();
      };
      auto current = Current(target);
      if (!current.ok()) return finish(current.status());
      const EntryPtr& entry = *current;
      if (entry->row.status == RegistryStatus::kEnabled) {
        return finish(StateRefusal("MODULE_ENABLED", "module " + target.name + " is enabled; disable it first", entry->row.status));
      }
      if (Busy(*entry)) return finish(StillStopping(target.name, entry->row.status));
      Blocking<bool>(
          [work, view = View(*entry)]() -> absl::StatusOr<bool> {
            RETURN_IF_ERROR(work(view));
            return true;
          },
          finish);
    });
  });
}

}  // namespace bulkhead
