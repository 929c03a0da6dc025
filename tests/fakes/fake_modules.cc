#include "tests/fakes/fake_modules.h"

#include <algorithm>
#include <utility>

#include "nlohmann/json.hpp"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

absl::Status NotFound(const std::string& name) { return Error("MODULE_NOT_FOUND", "There is no module \"" + name + "\"."); }

absl::Status Invalid(std::string_view code, std::string_view message, const std::vector<Finding>& findings) {
  std::vector<ErrorDetail> details;
  for (const Finding& f : findings) details.push_back({f.path, f.code, f.message, f.line});
  return Error(code, message, std::move(details));
}

}  // namespace

template <typename T>
void FakeModules::OnLoop(Done<T> done, std::function<void(const Done<T>&)> call) {
  loop_.Post([this, done = std::move(done), call = std::move(call)] {
    if (failure_) return done(*failure_);
    call(done);
  });
}

ModuleView* FakeModules::Find(const std::string& name) {
  const auto found = modules_.find(name);
  return found == modules_.end() ? nullptr : &found->second;
}

void FakeModules::List(Done<std::vector<ModuleView>> done) {
  OnLoop<std::vector<ModuleView>>(std::move(done), [this](const auto& done) {
    std::vector<ModuleView> views;
    for (const auto& [name, view] : modules_) views.push_back(view);
    done(std::move(views));
  });
}

void FakeModules::Get(const std::string& name, Done<ModuleView> done) {
  OnLoop<ModuleView>(std::move(done), [this, name](const auto& done) {
    const ModuleView* view = Find(name);
    if (view == nullptr) return done(NotFound(name));
    done(*view);
  });
}

void FakeModules::Register(RegisterRequest request, Done<ModuleView> done) {
  OnLoop<ModuleView>(std::move(done), [this, request = std::move(request)](const auto& done) {
    const ManifestResult parsed = ParseManifest(request.manifest_json, false);
    if (!parsed.errors.empty()) return done(Invalid("MANIFEST_INVALID", "The manifest is not valid.", parsed.errors));
    const Manifest& manifest = *parsed.manifest;
    if (Find(manifest.name) != nullptr)
      return done(Error("MODULE_EXISTS", "The module \"" + manifest.name + "\" is registered already."));
    if (!request.config_json.empty()) {
      const ConfigResult config = EffectiveConfig(manifest, request.config_json);
      if (!config.errors.empty()) return done(Invalid("CONFIG_INVALID", "The configuration is not valid.", config.errors));
    }
    ModuleView view;
    view.row.id = "00000000-0000-4000-8000-" + std::string(12 - std::to_string(next_id_).size(), '0') + std::to_string(next_id_);
    ++next_id_;
    view.row.name = manifest.name;
    view.row.version = manifest.version;
    view.row.manifest_json = request.manifest_json;
    view.row.config_json = request.config_json.empty() ? "{}" : request.config_json;
    view.row.path = request.path;
    view.row.created_at = view.row.updated_at = view.observed_since = clock_.Wall();
    view.manifest = std::make_shared<const Manifest>(manifest);
    view.node = "fake";
    done(modules_[manifest.name] = view);
  });
}

void FakeModules::Install(const ModuleTarget& target, Millis wait, Done<ActionResult> done) {
  OnLoop<ActionResult>(std::move(done), [this, target](const auto& done) {
    ModuleView* view = Find(target.name);
    if (view == nullptr) return done(NotFound(target.name));
    if (absl::Status changed = target.Check(view->row.generation); !changed.ok()) return done(changed);
    const std::string& name = target.name;
    if (view->row.path.empty()) return done(Error("PACKAGE_INVALID", "\"" + name + "\" was registered without a folder."));
    if (view->row.status == RegistryStatus::kRegistered) Change(*view, RegistryStatus::kDisabled, view->observed);
    done(ActionResult{*view, true});
  });
}

void FakeModules::Enable(const ModuleTarget& target, Millis wait, Done<ActionResult> done) {
  OnLoop<ActionResult>(std::move(done), [this, target, wait](const auto& done) {
    ModuleView* view = Find(target.name);
    if (view == nullptr) return done(NotFound(target.name));
    if (absl::Status changed = target.Check(view->row.generation); !changed.ok()) return done(changed);
    const std::string& name = target.name;
    if (view->row.path.empty()) return done(Error("PACKAGE_INVALID", "\"" + name + "\" was registered without a folder."));
    for (const DependencySpec& dependency : view->manifest->dependencies) {
      const ModuleView* other = Find(dependency.module);
      if (other == nullptr || !other->desired_enabled) {
        return done(
            Error("DEPENDENCY_UNSATISFIED", "\"" + name + "\" needs \"" + dependency.module + "\", which is not enabled."));
      }
    }
    if (start_failure_ && !view->desired_enabled) return done(*start_failure_);
    if (!view->desired_enabled) {
      ++view->row.generation;
      view->desired_enabled = true;
      view->row.enabled_at = clock_.Wall();
      Change(*view, RegistryStatus::kEnabled, ObservedState::kStarting);
      if (!hold_starts_) SetRunning(*view);
    }
    Wait(name, wait, done);
  });
}

void FakeModules::Disable(const ModuleTarget& target, Millis wait, Done<ActionResult> done) {
  OnLoop<ActionResult>(std::move(done), [this, target, wait](const auto& done) {
    ModuleView* view = Find(target.name);
    if (view == nullptr) return done(NotFound(target.name));
    if (absl::Status changed = target.Check(view->row.generation); !changed.ok()) return done(changed);
    const std::string& name = target.name;
    if (auto dependents = Dependents(name, true)) return done(*dependents);
    if (view->desired_enabled) {
      ++view->row.generation;
      view->desired_enabled = false;
      view->workers.clear();
      Change(*view, RegistryStatus::kDisabled, ObservedState::kStopped);
    }
    Wait(name, wait, done);
  });
}

void FakeModules::Delete(const ModuleTarget& target, bool purge, Done<bool> done) {
  OnLoop<bool>(std::move(done), [this, target, purge](const auto& done) {
    const ModuleView* view = Find(target.name);
    if (view == nullptr) return done(NotFound(target.name));
    if (absl::Status changed = target.Check(view->row.generation); !changed.ok()) return done(changed);
    const std::string& name = target.name;
    if (view->desired_enabled) return done(Error("MODULE_ENABLED", "Disable \"" + name + "\" before you delete it."));
    if (auto dependents = Dependents(name, false)) return done(*dependents);
    modules_.erase(name);
    done(purge);
  });
}

void FakeModules::WithStopped(const ModuleTarget& target, Millis wait, std::function<absl::Status(const ModuleView&)> work, Done<bool> done) {
  OnLoop<bool>(std::move(done), [this, target, work](const auto& done) {
    ModuleView* view = Find(target.name);
    if (view == nullptr) return done(NotFound(target.name));
    if (absl::Status changed = target.Check(view->row.generation); !changed.ok()) return done(changed);
    if (view->desired_enabled) return done(Error("MODULE_ENABLED", "\"" + target.name + "\" is enabled."));
    absl::Status worked = work(*view);
    worked.ok() ? done(true) : done(worked);
  });
}

void FakeModules::Configure(const ModuleTarget& target, ConfigChange change, Millis, Done<ActionResult> done) {
  OnLoop<ActionResult>(std::move(done), [this, target, change](const auto& done) {
    ModuleView* view = Find(target.name);
    if (view == nullptr) return done(NotFound(target.name));
    if (absl::Status changed = target.Check(view->row.generation); !changed.ok()) return done(changed);
    const ConfigResult config = EffectiveConfig(*view->manifest, change.json);
    if (!config.errors.empty()) return done(Invalid("CONFIG_INVALID", "The configuration is not valid.", config.errors));
    view->row.config_json = change.json;
    ++view->row.config_revision;
    ++view->row.generation;
    done(ActionResult{*view, true});
  });
}

void FakeModules::SetWorkers(const ModuleTarget& target, std::optional<int> workers, Millis, Done<ActionResult> done) {
  OnLoop<ActionResult>(std::move(done), [this, target, workers](const auto& done) {
    ModuleView* view = Find(target.name);
    if (view == nullptr) return done(NotFound(target.name));
    if (absl::Status changed = target.Check(view->row.generation); !changed.ok()) return done(changed);
    view->row.workers = workers;
    view->workers_wanted = workers.value_or(view->manifest->workers);
    ++view->row.generation;
    done(ActionResult{*view, true});
  });
}

void FakeModules::MakePlan(const std::string& name, PlanRequest request, Done<Plan> done) {
  OnLoop<Plan>(std::move(done), [this, name, request](const auto& done) {
    if (Find(name) == nullptr) return done(NotFound(name));
    Plan plan;
    plan.module = name;
    plan.action = request.action;
    done(std::move(plan));
  });
}

void FakeModules::Rescan(Actor, Done<RescanResult> done) {
  OnLoop<RescanResult>(std::move(done), [](const auto& done) { done(RescanResult()); });
}

void FakeModules::RotateSecrets(Actor, std::function<absl::Status()>, Done<RotatedSecrets> done) {
  OnLoop<RotatedSecrets>(std::move(done), [](const auto& done) { done(RotatedSecrets()); });
}

void FakeModules::Edit(const std::string& name, std::function<void(ModuleView&)> change) {
  loop_.Post([this, name, change = std::move(change)] {
    if (ModuleView* view = Find(name)) change(*view);
  });
}

void FakeModules::HoldStarts(bool hold) {
  loop_.Post([this, hold] {
    hold_starts_ = hold;
    if (hold) return;
    for (auto& [name, view] : modules_) {
      if (view.desired_enabled && view.observed == ObservedState::kStarting) SetRunning(view);
      AnswerWaiters(name);
    }
  });
}

void FakeModules::FailStarts(std::optional<absl::Status> with) {
  loop_.Post([this, with = std::move(with)] { start_failure_ = with; });
}

void FakeModules::FailEverything(std::optional<absl::Status> with) {
  loop_.Post([this, with = std::move(with)] { failure_ = with; });
}

std::optional<absl::Status> FakeModules::Dependents(const std::string& name, bool enabled_only) const {
  for (const auto& [other, view] : modules_) {
    if (enabled_only && !view.desired_enabled) continue;
    const auto& needs = view.manifest->dependencies;
    if (std::any_of(needs.begin(), needs.end(), [&](const DependencySpec& d) { return d.module == name; })) {
      return Error("HAS_DEPENDENTS", "\"" + name + "\" is needed by \"" + other + "\".");
    }
  }
  return std::nullopt;
}

void FakeModules::Change(ModuleView& view, RegistryStatus status, ObservedState observed) {
  view.row.status = status;
  view.row.updated_at = clock_.Wall();
  view.observed = observed;
  view.observed_since = clock_.Wall();
  view.observed_generation = view.row.generation;
}

void FakeModules::SetRunning(ModuleView& view) {
  WorkerView worker;
  worker.pid = 4242;
  worker.instance = view.row.name + ".0.fake";
  worker.state = ObservedState::kRunning;
  worker.version = view.row.version;
  worker.started_at = clock_.Wall();
  view.workers = {worker};
  Change(view, RegistryStatus::kEnabled, ObservedState::kRunning);
}

void FakeModules::Wait(const std::string& name, Millis wait, Done<ActionResult> done) {
  // Who does not wait is told at once, and never that it is done.
  if (wait <= Millis(0)) return done(ActionResult{modules_.at(name), false});
  auto waiter = std::make_shared<Waiter>();
  waiter->done = std::move(done);
  waiters_.emplace(name, waiter);
  waiter->timer = loop_.After(wait, [this, name, waiter] {
    const auto [first, last] = waiters_.equal_range(name);
    const auto found = std::find_if(first, last, [&](const auto& entry) { return entry.second == waiter; });
    if (found == last) return;
    waiters_.erase(found);
    waiter->done(ActionResult{modules_.at(name), false});
  });
  AnswerWaiters(name);
}

void FakeModules::AnswerWaiters(const std::string& name) {
  const ModuleView& view = modules_.at(name);
  if (view.observed == ObservedState::kStarting) return;
  const auto [first, last] = waiters_.equal_range(name);
  std::vector<std::shared_ptr<Waiter>> ready;
  for (auto it = first; it != last; ++it) ready.push_back(it->second);
  waiters_.erase(first, last);
  for (const auto& waiter : ready) {
    loop_.Cancel(waiter->timer);
    waiter->done(ActionResult{view, true});
  }
}

}  // namespace bulkhead
