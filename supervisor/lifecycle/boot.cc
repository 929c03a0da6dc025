// Discovery, the boot and the shutdown.
#include <algorithm>
#include <set>

#include "supervisor/base/limits.h"
#include "supervisor/base/log.h"
#include "supervisor/lifecycle/reconciler.h"

namespace bulkhead {

// A registered module as the boot found it.
struct Reconciler::Found {
  ModuleRow row;
  Manifest manifest;
  std::vector<ExitRow> exits;
};

namespace {

// Registers what was found in the modules directory, with all that the settings want of it: in one step, because a module is
// found for the first time only once. The answer is the row of another supervisor when that one was first.
absl::StatusOr<ModuleRow> RegisterFound(Registry& registry, const Package& package, const Reconciler::FirstSettings& settings,
                                        const std::string& data_dir) {
  ModuleRow row;
  row.name = package.manifest.name;
  row.version = package.manifest.version;
  row.manifest_json = package.manifest.json;
  row.path = package.display;
  row.config_json = settings.config_json;
  if (settings.enabled) {
    auto installed = InstallPackage(package, data_dir);
    if (installed.ok()) {
      row.package = installed->relative;
      row.package_sha = installed->sha256;
      row.status = RegistryStatus::kEnabled;
    } else {
      LogWarn("boot", "can't install", {{"module", row.name}, {"reason", std::string(installed.status().message())}});
    }
  }
  auto inserted = registry.Insert(row);
  if (!inserted.ok() && ErrorCode(inserted.status()) == "MODULE_EXISTS") return registry.Module(row.name);
  if (inserted.ok()) LogInfo("boot", "registered", {{"module", row.name}, {"version", row.version}, {"folder", row.path}});
  return inserted;
}

}  // namespace

// On the pool: reads the modules directory and the registry, registers what is new, installs what the settings enable.
absl::StatusOr<std::vector<Reconciler::Found>> Reconciler::Discover() {
  std::map<std::string, Found> found;
  std::set<std::string> left_out;
  ASSIGN_OR_RETURN(std::vector<ModuleRow> rows, registry_.Modules());
  for (ModuleRow& row : rows) {
    ManifestResult parsed = ParseManifest(row.manifest_json, false);
    if (!parsed.manifest) {
      LogError("boot", "a registered manifest is not valid any more; the module is left out", {{"module", row.name}});
      left_out.insert(row.name);
      continue;
    }
    ASSIGN_OR_RETURN(std::vector<ExitRow> exits, registry_.Exits(row.name));
    std::string name = row.name;
    if (!row.package.empty()) {
      // What was installed counts, migrations/ included.
      if (auto package = ReadPackage(options_.data_dir + "/" + row.package, row.package); package.ok())
        parsed.manifest = std::move(package->manifest);
    }
    found[name] = {std::move(row), std::move(*parsed.manifest), std::move(exits)};
  }
  auto folders = ListPackages(options_.modules_access);
  if (!folders.ok()) {
    LogWarn("boot", "can't read the modules directory: nothing new is found there",
            {{"folder", options_.modules_dir}, {"reason", std::string(folders.status().message())}});
    folders.emplace();
  }
  for (const std::string& folder : *folders) {
    std::string display = options_.modules_dir + "/" + folder;
    auto package = ReadPackage(options_.modules_access + "/" + folder, display);
    if (package.ok()) {
      if (absl::Status fits = CheckBulkheadRange(package->manifest); !fits.ok()) package = fits;
    }
    if (!package.ok()) {
      // A broken one is reported and skips nobody else.
      LogWarn("boot", "skipping a module folder",
              {{"folder", display}, {"code", ErrorCode(package.status())}, {"reason", std::string(package.status().message())}});
      continue;
    }
    for (const Finding& warning : package->warnings)
      LogWarn("boot", warning.message, {{"folder", display}, {"path", warning.path}});
    const std::string name = package->manifest.name;  // a copy: the manifest is moved from below
    if (left_out.contains(name)) {
      LogWarn("boot", "skipping a module folder: its name is registered with a manifest that is not valid any more",
              {{"module", name}, {"folder", display}});
      continue;
    }
    auto known = found.find(name);
    if (known == found.end()) {
      auto settings = options_.settings.find(name);
      ASSIGN_OR_RETURN(ModuleRow row, RegisterFound(registry_, *package, settings == options_.settings.end() ? FirstSettings() : settings->second,
                                                    options_.data_dir));
      auto registered = ParseManifest(row.manifest_json, false);
      if (row.version == package->manifest.version) registered.manifest = std::move(package->manifest);
      if (registered.manifest) found[name] = {std::move(row), std::move(*registered.manifest), {}};
      continue;
    }
    ModuleRow& row = known->second.row;
    if (row.version != package->manifest.version) {
      LogInfo("boot", "another version is on offer; upgrade to take it",
              {{"module", name}, {"registered", row.version}, {"found", package->manifest.version}});
      continue;
    }
    if (row.package.empty() || row.path != display) continue;
    auto sha = HashPackage(package->folder, display);
    if (!sha.ok() || *sha == row.package_sha) continue;
    if (!options_.development) {
      LogWarn("boot",
              "the folder differs from what was installed under the same version and is not taken (discovery.development is off)",
              {{"module", name}, {"folder", display}});
      continue;
    }
    auto installed = InstallPackage(*package, options_.data_dir);
    if (!installed.ok()) {
      LogWarn("boot", "the changed package can't be installed; the installed one is kept",
              {{"module", name}, {"reason", std::string(installed.status().message())}});
      continue;
    }
    row.package = installed->relative;
    row.package_sha = installed->sha256;
    row.manifest_json = package->manifest.json;
    ASSIGN_OR_RETURN(row, registry_.SetPackage(row));
    LogInfo("boot", "took the changed package of the same version", {{"module", name}, {"package", row.package}});
    known->second.manifest = std::move(package->manifest);
  }
  for (const auto& [name, settings] : options_.settings) {
    if (!found.contains(name))
      LogWarn("boot", "the configuration names a module that is neither registered nor in the modules directory",
              {{"module", name}, {"modulesDir", options_.modules_dir}});
  }
  std::vector<Found> all;
  for (auto& [name, one] : found) all.push_back(std::move(one));
  return all;
}

void Reconciler::Boot(std::function<void(absl::Status, std::vector<BootFailure>)> done) {
  boot_done_ = std::move(done);
  Blocking<std::vector<Found>>([this] { return Discover(); },
                               [this](absl::StatusOr<std::vector<Found>> found) {
                                 if (stopping_) return;
                                 if (!found.ok()) return std::exchange(boot_done_, {})(found.status(), {});
                                 for (Found& one : *found) {
                                   EntryPtr entry = AddEntry(std::move(one.row), std::move(one.manifest));
                                   entry->exits.assign(one.exits.begin(), one.exits.end());
                                 }
                                 // All at once: what depends on others waits for them by itself (Prepare), the rest starts in
                                 // parallel.
                                 for (auto& [name, entry] : std::map(entries_)) {
                                   bool held = std::find(options_.not_started.begin(), options_.not_started.end(), name) !=
                                               options_.not_started.end();
                                   if (held) LogInfo("boot", "not started (--disable)", {{"module", name}});
                                   if (entry->row.status == RegistryStatus::kEnabled && !held) Want(entry, true);
                                 }
                                 loop_.Post([this] { Booted(); });
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
  loop_.After(budget, [this] {
    // The budget is spent: whatever is left is killed with its tree, and unwanted before that, else it would be started anew.
    for (auto& [name, entry] : std::map(entries_)) {
      if (entry->state.wanted) Want(entry, false);
      for (Running& running : entry->running) {
        if (!running.process) continue;
        LogWarn("shutdown", "did not stop in time, killing it", {{"module", name}});
        running.process->Stop(Millis(0));
      }
    }
  });
  StopEligible();
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
