// Discovery, the boot and the shutdown.
#include <algorithm>
#include <functional>
#include <set>

#include "nlohmann/json.hpp"
#include "supervisor/base/limits.h"
#include "supervisor/base/log.h"
#include "supervisor/lifecycle/reconciler.h"
#include "supervisor/manifest/semver.h"

namespace bulkhead {

// A registered module as the boot found it.
struct Reconciler::Found {
  ModuleRow row;
  Manifest manifest;
  std::vector<ExitRow> exits;
  Registry::ExitCounts exit_counts;
  std::optional<Offer> offer;
  absl::Status unusable;  // MANIFEST_INVALID: `manifest` stands in for one that is not valid any more

  // `read`: its manifest as the module's folder has it, else the registered one counts.
  static Found Of(ModuleRow row, std::optional<Manifest> read, std::vector<ExitRow> exits);
};

struct Reconciler::Discovery {
  std::map<std::string, Found> found;  // by name
  RescanResult seen;                   // in the modules directory
};

namespace {

// Registers what was found in the modules directory, with all that the settings want of it: in one step, because a module is
// found for the first time only once. The answer is the row of another supervisor when that one was first.
absl::StatusOr<ModuleRow> RegisterFound(Registry& registry, const Package& package, const Reconciler::FirstSettings& settings,
                                        const std::string& config_json, const std::string& data_dir, const Actor& by) {
  ModuleRow row;
  row.name = package.manifest.name;
  row.version = package.manifest.version;
  row.manifest_json = package.manifest.json;
  row.path = package.display;
  row.config_json = config_json;
  if (settings.enabled) {
    auto installed = InstallPackage(package, data_dir);
    if (installed.ok()) {
      row.package = installed->relative;
      row.package_sha = installed->sha256;
      row.status = RegistryStatus::kEnabled;
    } else {
      LogWarn("discovery", "can't install", {{"module", row.name}, {"reason", std::string(installed.status().message())}});
    }
  }
  const AuditRecord audit{.by = by, .action = "modules.register", .module = row.name};
  auto inserted = registry.Insert(row, &audit);
  if (!inserted.ok() && ErrorCode(inserted.status()) == "MODULE_EXISTS") return registry.Module(row.name);
  if (inserted.ok()) LogInfo("discovery", "registered", {{"module", row.name}, {"version", row.version}, {"folder", row.path}});
  return inserted;
}

// In place of a manifest that is not valid any more: enough to show the module, to keep its secrets sealed, and to delete it. Nothing says
// now which of its values are secret, so that none is shown: a schema hides what it does not know, and this one knows what is sealed alone.
Manifest StandIn(const ModuleRow& row) {
  Manifest manifest;
  manifest.name = manifest.display_name = row.name;
  manifest.version = row.version;
  manifest.json = "{}";
  const auto document = nlohmann::json::parse(row.manifest_json, nullptr, false);
  if (document.is_object()) {
    manifest.json = row.manifest_json;
    if (auto critical = document.find("critical"); critical != document.end() && critical->is_boolean()) manifest.critical = critical->get<bool>();
  }
  std::vector<std::string> hidden = SealedFields(row.config_json);
  hidden.emplace_back();  // no field's name: there is a schema also where nothing is sealed
  for (const std::string& name : hidden)
    manifest.config_schema.push_back({.name = name, .type = "json", .sensitive = true, .json = R"({"type":"json","sensitive":true})"});
  return manifest;
}

absl::Status Unusable(const std::string& name, const std::vector<Finding>& errors) {
  constexpr size_t kNamed = 5;
  std::string why;
  for (size_t i = 0; i < std::min(errors.size(), kNamed); ++i)
    why += (i == 0 ? "" : " ") + errors[i].path + (errors[i].path.empty() ? "" : ": ") + errors[i].message;
  if (errors.size() > kNamed) why += " And " + std::to_string(errors.size() - kNamed) + " more.";
  return Error("MANIFEST_INVALID",
               "the manifest that " + name + " was registered with is not valid any more: " + why + " Delete the module and register it anew",
               Details(errors));
}

// Of several versions in the modules directory the highest is on offer.
bool IsBetter(const std::string& version, const std::optional<Offer>& than) {
  if (!than) return true;
  const auto one = ParseSemVer(version), other = ParseSemVer(than->version);
  return one && other && *one > *other;
}

// What an earlier life left on its way. An installation is begun anew when somebody wants it; a removal may have dropped the data
// already, so it is left to an administrator to repeat it.
absl::Status Recover(Registry& registry, ModuleRow& row) {
  RegistryStatus to = row.status;
  switch (row.status) {
    case RegistryStatus::kRegistered:
    case RegistryStatus::kEnabled:
    case RegistryStatus::kDisabled: return absl::OkStatus();
    case RegistryStatus::kUpdating:
      // One version or the other, and whole. A row that does not say what it was before is not started by itself.
      to = row.updating_from;
      if (to == RegistryStatus::kUpdating) to = row.package.empty() ? RegistryStatus::kRegistered : RegistryStatus::kDisabled;
      break;
    case RegistryStatus::kInstalling:
    case RegistryStatus::kRemoving: to = row.package.empty() ? RegistryStatus::kRegistered : RegistryStatus::kDisabled; break;
  }
  LogWarn("discovery",
          row.status == RegistryStatus::kRemoving    ? "its removal was interrupted: delete it again"
          : row.status == RegistryStatus::kUpdating ? "its upgrade was interrupted"
                                                    : "its installation was interrupted",
          {{"module", row.name}, {"status", std::string(RegistryStatusName(to))}});
  ASSIGN_OR_RETURN(row, registry.MarkStatus(row.name, to));
  return absl::OkStatus();
}

}  // namespace

Reconciler::Found Reconciler::Found::Of(ModuleRow row, std::optional<Manifest> read, std::vector<ExitRow> exits) {
  absl::Status unusable;
  if (!read) {
    ManifestResult parsed = ParseManifest(row.manifest_json, false);
    read = std::move(parsed.manifest);
    if (!read) {
      unusable = Unusable(row.name, parsed.errors);
      LogError("discovery", std::string(unusable.message()), {{"module", row.name}});
      read = StandIn(row);
    }
  }
  return {std::move(row), *std::move(read), std::move(exits), {}, {}, std::move(unusable)};
}

// On the pool: reads the registry and the modules directory, registers what is new, installs what the settings enable. Of what is
// registered already nothing changes, but for the same version with other contents where the development setting allows it, at boot.
absl::StatusOr<Reconciler::Discovery> Reconciler::Discover(bool booting, const Actor& by) {
  Discovery discovery;
  std::map<std::string, Found>& found = discovery.found;
  if (booting) RemoveUnfinished(options_.data_dir);
  ASSIGN_OR_RETURN(std::vector<ModuleRow> rows, registry_.Modules());
  ASSIGN_OR_RETURN(auto exit_counts, registry_.AllExitCounts());
  for (ModuleRow& row : rows) {
    if (booting) RETURN_IF_ERROR(Recover(registry_, row));
    ASSIGN_OR_RETURN(std::vector<ExitRow> exits, registry_.Exits(row.name));
    std::string name = row.name;
    std::optional<Manifest> installed;
    if (!row.package.empty()) {
      // What was installed counts, migrations/ included.
      if (auto package = ReadPackage(options_.data_dir + "/" + row.package, row.package); package.ok())
        installed = std::move(package->manifest);
    }
    Found& one = found[name] = Found::Of(std::move(row), std::move(installed), std::move(exits));
    one.exit_counts = std::move(exit_counts[name]);
  }
  auto folders = ListPackages(options_.modules_access);
  if (!folders.ok()) {
    if (!booting) return folders.status();
    LogWarn("discovery", "can't read the modules directory: nothing new is found there",
            {{"folder", options_.modules_dir}, {"reason", std::string(folders.status().message())}});
    folders.emplace();
  }
  for (const std::string& folder : *folders) {
    RescanResult::Folder seen;
    seen.folder = options_.modules_dir + "/" + folder;
    RETURN_IF_ERROR(LookInto(options_.modules_access + "/" + folder, booting, by, found, seen));
    discovery.seen.folders.push_back(std::move(seen));
  }
  NameTwins(found, discovery.seen.folders);
  if (!booting) return discovery;
  for (const auto& [name, settings] : options_.settings) {
    if (!found.contains(name))
      LogWarn("discovery", "the configuration names a module that is neither registered nor in the modules directory",
              {{"module", name}, {"modulesDir", options_.modules_dir}});
  }
  return discovery;
}

// Of several folders with one version of one module only one counts: the registered one, else the first. That is said of the others.
void Reconciler::NameTwins(const std::map<std::string, Found>& found, std::vector<RescanResult::Folder>& folders) {
  std::map<std::pair<std::string, std::string>, std::string> counts;  // name and version → folder
  auto usable = [](const RescanResult::Folder& seen) { return !seen.name.empty() && seen.outcome != "broken"; };
  for (const RescanResult::Folder& seen : folders) {
    if (!usable(seen)) continue;
    auto [counting, first] = counts.try_emplace({seen.name, seen.version}, seen.folder);
    if (auto module = found.find(seen.name); !first && module != found.end() && module->second.row.path == seen.folder)
      counting->second = seen.folder;
  }
  for (RescanResult::Folder& seen : folders) {
    if (!usable(seen) || counts.at({seen.name, seen.version}) == seen.folder) continue;
    seen.outcome = "broken";
    seen.code = "MODULE_EXISTS";
    seen.message = counts.at({seen.name, seen.version}) + " holds " + seen.name + " " + seen.version + ", too, and is what counts: remove one of them, " +
                   "or give it another name or version";
    LogWarn("discovery", "skipping a module folder", {{"folder", seen.folder}, {"code", seen.code}, {"reason", seen.message}});
  }
}

// One folder of the modules directory: what became of it is in `seen`. An error only when the database fails.
absl::Status Reconciler::LookInto(const std::string& folder, bool booting, const Actor& by, std::map<std::string, Found>& found,
                                  RescanResult::Folder& seen) {
  auto broken = [&](const absl::Status& why) {
    // It is reported and skips nobody else.
    seen.outcome = "broken";
    seen.code = ErrorCode(why);
    seen.message = std::string(why.message());
    seen.details = ErrorDetails(why);
    LogWarn("discovery", "skipping a module folder", {{"folder", seen.folder}, {"code", seen.code}, {"reason", seen.message}});
    return absl::OkStatus();
  };
  auto package = ReadPackage(folder, seen.folder);
  if (!package.ok()) return broken(package.status());
  const std::string name = package->manifest.name;  // a copy: the manifest is moved from below
  seen.name = name;
  seen.version = package->manifest.version;
  if (absl::Status fits = CheckBulkheadRange(package->manifest); !fits.ok()) return broken(fits);
  for (const Finding& warning : package->warnings)
    LogWarn("discovery", warning.message, {{"folder", seen.folder}, {"path", warning.path}});
  auto known = found.find(name);
  if (known != found.end() && !known->second.unusable.ok()) return broken(known->second.unusable);
  if (known == found.end()) {
    auto given = options_.settings.find(name);
    const FirstSettings settings = given == options_.settings.end() ? FirstSettings() : given->second;
    ASSIGN_OR_RETURN(ModuleRow row, RegisterFound(registry_, *package, settings, SealConfig(secrets_, package->manifest, settings.config_json),
                                                  options_.data_dir, by));
    std::optional<Manifest> read;
    if (row.version == package->manifest.version) read = std::move(package->manifest);
    seen.outcome = "registered";
    seen.registered_version = row.version;
    found[name] = Found::Of(std::move(row), std::move(read), {});
    return absl::OkStatus();
  }
  ModuleRow& row = known->second.row;
  seen.registered_version = row.version;
  seen.outcome = "unchanged";
  if (row.version != package->manifest.version) {
    seen.outcome = "offered";
    if (IsBetter(package->manifest.version, known->second.offer)) known->second.offer = Offer{package->manifest.version, seen.folder};
    LogInfo("discovery", "another version is on offer; upgrade to take it",
            {{"module", name}, {"registered", row.version}, {"found", package->manifest.version}});
    return absl::OkStatus();
  }
  if (row.package.empty() || row.path != seen.folder) return absl::OkStatus();
  auto sha = HashPackage(package->folder, seen.folder);
  if (!sha.ok()) return broken(sha.status());
  if (*sha == row.package_sha) return absl::OkStatus();
  seen.outcome = "changed";
  seen.code = "MANIFEST_CHANGED";
  seen.message = "the folder differs from what was installed under the same version and is not taken";
  if (!booting || !options_.development) {
    seen.message += options_.development ? " before the next start: give it another version" : " (discovery.development is off)";
    LogWarn("discovery", seen.message, {{"module", name}, {"folder", seen.folder}});
    return absl::OkStatus();
  }
  auto installed = InstallPackage(*package, options_.data_dir);
  if (!installed.ok()) {
    LogWarn("discovery", "the changed package can't be installed; the installed one is kept",
            {{"module", name}, {"reason", std::string(installed.status().message())}});
    return absl::OkStatus();
  }
  row.package = installed->relative;
  row.package_sha = installed->sha256;
  row.manifest_json = package->manifest.json;
  const AuditRecord audit{.by = by, .action = "modules.install", .module = name};
  ASSIGN_OR_RETURN(row, registry_.SetPackage(row, &audit));
  RETURN_IF_ERROR(SealNewSecrets(package->manifest, row));
  LogInfo("discovery", "took the changed package of the same version", {{"module", name}, {"package", row.package}});
  known->second.manifest = std::move(package->manifest);
  return absl::OkStatus();
}

void Reconciler::Boot(std::function<void(absl::Status, std::vector<BootFailure>)> done) {
  boot_done_ = std::move(done);
  auto discovery = std::make_shared<absl::StatusOr<Discovery>>(absl::UnknownError("not looked for yet"));
  // What was found starts when it is known, too, how it can be isolated.
  auto then = [this, discovery, left = std::make_shared<int>(2)] {
    if (--*left > 0 || stopping_) return;
    if (!discovery->ok()) return std::exchange(boot_done_, {})(discovery->status(), {});
    Adopt(*std::move(*discovery), options_.not_started);
    loop_.Post([this] { Booted(); });
  };
  LearnIsolation(then);
  Blocking<Discovery>([this] { return Discover(true, SystemActor(options_.node)); }, [discovery, then](absl::StatusOr<Discovery> found) {
    *discovery = std::move(found);
    then();
  });
}

// Asks the spawner what a module would have of its isolation that asks for every measure.
void Reconciler::LearnIsolation(std::function<void()> learnt) {
  auto left = std::make_shared<int>(0);
  for (NetworkAccess network : {NetworkAccess::kNone, NetworkAccess::kLoopback, NetworkAccess::kPorts, NetworkAccess::kOutbound}) {
    SpawnSpec spec;
    spec.id = "inspected";
    spec.change_user = options_.privileged;
    spec.uid = options_.first_uid;
    spec.sandbox = true;
    spec.limits = {1 << 30, 1'000, limits::kModulePids, limits::kModuleFiles, limits::kModuleFileBytes};
    spec.reach.network = network;
    ++*left;
    spawner_.Inspect(std::move(spec), [this, network, left, learnt](std::vector<IsolationItem> items) {
      if (!items.empty()) access_.machine[network] = std::move(items);
      if (--*left == 0) learnt();
    });
  }
}

// Takes over what was found and is not known here yet, and starts what of it is enabled. All at once: what depends on others waits
// for them by itself (Prepare), the rest starts in parallel.
void Reconciler::Adopt(Discovery discovery, const std::vector<std::string>& not_started) {
  std::vector<EntryPtr> added;
  for (auto& [name, one] : discovery.found) {
    if (EntryPtr known = Find(name)) {
      known->offer = std::move(one.offer);
      continue;
    }
    EntryPtr entry = AddEntry(std::move(one.row), std::move(one.manifest));
    entry->offer = std::move(one.offer);
    entry->unusable = std::move(one.unusable);
    entry->exits.assign(one.exits.begin(), one.exits.end());
    entry->exit_counts = std::move(one.exit_counts);
    added.push_back(std::move(entry));
  }
  // Dependencies first: one that is wanted only behind its dependent would count as one that nobody wants, and fail it.
  std::set<std::string> left;
  for (const EntryPtr& entry : added) left.insert(entry->row.name);
  std::function<void(const EntryPtr&)> take = [&](const EntryPtr& entry) {
    if (left.erase(entry->row.name) == 0) return;
    for (const DependencySpec& dependency : entry->manifest->dependencies) {
      if (left.contains(dependency.module)) take(Find(dependency.module));
    }
    const bool held = std::find(not_started.begin(), not_started.end(), entry->row.name) != not_started.end();
    if (held) LogInfo("boot", "not started (--disable)", {{"module", entry->row.name}});
    if (entry->row.status == RegistryStatus::kEnabled && !held) Want(entry, true);
  };
  for (const EntryPtr& entry : added) take(entry);
}

void Reconciler::Rescan(Actor by, Done<RescanResult> done) {
  loop_.Post([this, by = std::move(by), done = std::move(done)] {
    if (stopping_) return done(Error("SHUTTING_DOWN", "the supervisor is stopping"));
    // One at a time, like the commands for one module; no module can have that name.
    Serialized("", [this, by, done](std::function<void()> release) {
      Blocking<Discovery>([this, by] { return Discover(false, by); },
                          [this, done, release](absl::StatusOr<Discovery> discovery) {
                            release();
                            if (!discovery.ok()) return done(discovery.status());
                            RescanResult seen = std::move(discovery->seen);
                            // Others may have been deleted since the registry was read.
                            std::set<std::string> fresh;
                            for (const auto& folder : seen.folders) {
                              if (folder.outcome == "registered") fresh.insert(folder.name);
                            }
                            std::erase_if(discovery->found, [&](const auto& one) { return !fresh.contains(one.first) && !Find(one.first); });
                            if (!stopping_) Adopt(*std::move(discovery), {});
                            done(std::move(seen));
                          });
    });
  });
}

// Answers the boot once every module has settled and its routes are in place.
void Reconciler::Booted() {
  if (!boot_done_) return;
  std::vector<BootFailure> failures;
  Graph graph = CurrentGraph();
  for (const auto& [name, entry] : entries_) {
    if (!entry->state.wanted) continue;
    if (!Settled(entry->state) || entry->publishing > 0) return;
    switch (entry->state.observed) {
      case ObservedState::kRunning:
      case ObservedState::kDegraded:
      case ObservedState::kSkipped: continue;
      default: break;
    }
    bool critical = entry->manifest->critical.value_or(!Dependents(graph, name, true).empty());
    failures.push_back({name, entry->state.reason.message, critical});
  }
  std::exchange(boot_done_, {})(absl::OkStatus(), std::move(failures));
}

void Reconciler::StopAll(Millis budget, std::function<void()> done) {
  stopping_ = true;
  boot_done_ = {};
  stop_done_ = std::move(done);
  time_left_.end = clock_.Now() + budget;
  for (auto& [name, entry] : std::map(entries_)) Dispatch(entry, event::Close{});
  loop_.After(budget, [this] { Hasten(); });
  StopEligible();
}

// Whatever is left is killed with its tree, and unwanted before that, else it would be started anew.
void Reconciler::Hasten() {
  time_left_.end = clock_.Now();
  for (auto& [name, entry] : std::map(entries_)) {
    if (entry->state.wanted) Want(entry, false);
    for (Running& running : entry->running) {
      if (!running.process) continue;
      LogWarn("shutdown", "did not stop in time, killing it", {{"module", name}});
      running.process->Stop(Millis(0));
    }
  }
}

Reconciler::Tally Reconciler::Count() const {
  Tally tally;
  for (const auto& [name, entry] : entries_) {
    const ObservedState observed = entry->state.observed;
    ++tally.registered;
    if (!entry->state.wanted || observed == ObservedState::kSkipped) continue;
    ++tally.wanted;
    if (observed == ObservedState::kRunning || observed == ObservedState::kDegraded) {
      ++tally.running;
    } else {
      tally.not_running.push_back(name + " (" + std::string(ObservedStateName(observed)) + ")");
    }
  }
  return tally;
}

std::vector<std::string> Reconciler::Left() const {
  std::vector<std::string> left;
  for (const auto& [name, entry] : entries_) {
    for (const Running& running : entry->running) {
      if (!running.process) continue;
      const int pid = running.process->pid();
      left.push_back(name + (pid > 0 ? " (process " + std::to_string(pid) + ")" : " (what it has started)"));
    }
  }
  return left;
}

// Stops those that no module depends on which is still there; comes back with every change until none is left.
void Reconciler::StopEligible() {
  if (!stopping_ || !stop_done_) return;
  for (const std::string& name : StopNext(CurrentGraph())) {
    EntryPtr entry = Find(name);
    if (entry->state.wanted) Want(entry, false);  // may come back here before it returns
  }
  if (stop_done_ && NothingLeft(CurrentGraph())) std::exchange(stop_done_, {})();
}

}  // namespace bulkhead
