// The modules of a node in memory: registry, lifecycle and waiting without processes or a database. Answers come on the
// loop, as the real ones do. Its state belongs to the loop; the knobs for tests may be turned from any thread and take
// effect before calls that are made afterwards. Link `test_fakes`.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>

#include "supervisor/base/loop.h"
#include "supervisor/lifecycle/modules.h"

namespace bulkhead {

class FakeModules : public Modules {
 public:
  FakeModules(Loop& loop, const Clock& clock) : loop_(loop), clock_(clock) {}

  void List(Done<std::vector<ModuleView>> done) override;
  void Get(const std::string& name, Done<ModuleView> done) override;
  void Register(RegisterRequest request, Done<ModuleView> done) override;
  void Install(const ModuleTarget& target, Millis wait, Done<ActionResult> done) override;
  void Enable(const ModuleTarget& target, Millis wait, Done<ActionResult> done) override;
  void Disable(const ModuleTarget& target, Millis wait, Done<ActionResult> done) override;
  void Delete(const ModuleTarget& target, bool purge, Done<bool> done) override;
  void WithStopped(const ModuleTarget& target, Millis wait, std::function<absl::Status(const ModuleView&)> work, Done<bool> done) override;

  // Beyond one module and its state there is nothing to fake: these are tested through the real daemon.
  void EnableWithDependencies(const ModuleTarget& target, MayEnable, Millis wait, Done<ActionResult> done) override {
    Enable(target, wait, std::move(done));
  }
  void Reload(const ModuleTarget& target, Millis wait, Done<ActionResult> done) override { Enable(target, wait, std::move(done)); }
  void Restart(const ModuleTarget& target, Millis wait, Done<ActionResult> done) override { Enable(target, wait, std::move(done)); }
  void Upgrade(const ModuleTarget& target, VersionSource, Millis wait, Done<ActionResult> done) override { Enable(target, wait, std::move(done)); }
  void Rollback(const ModuleTarget& target, Millis wait, Done<ActionResult> done) override { Enable(target, wait, std::move(done)); }
  void Configure(const ModuleTarget& target, ConfigChange change, Millis wait, Done<ActionResult> done) override;
  void Reset(const ModuleTarget& target, Millis wait, Done<ActionResult> done) override { Enable(target, wait, std::move(done)); }
  void SetWorkers(const ModuleTarget& target, std::optional<int> workers, Millis wait, Done<ActionResult> done) override;
  void MakePlan(const std::string& name, PlanRequest request, Done<Plan> done) override;
  void Rescan(Actor by, Done<RescanResult> done) override;
  void RotateSecrets(Actor by, std::function<absl::Status()> also, Done<RotatedSecrets> done) override;

  // Knobs.
  void Edit(const std::string& name, std::function<void(ModuleView&)> change);  // nothing when it does not exist
  void HoldStarts(bool hold);                             // an enabled module stays STARTING; letting go makes it RUNNING
  void FailStarts(std::optional<absl::Status> with);      // an enable fails with it and is undone
  void FailEverything(std::optional<absl::Status> with);  // e.g. DATABASE_UNAVAILABLE

 private:
  struct Waiter {
    Done<ActionResult> done;
    Loop::TimerId timer = 0;
  };
  // Runs `call` on the loop unless everything fails.
  template <typename T>
  void OnLoop(Done<T> done, std::function<void(const Done<T>&)> call);
  ModuleView* Find(const std::string& name);
  std::optional<absl::Status> Dependents(const std::string& name, bool enabled_only) const;
  void SetRunning(ModuleView& view);
  void Change(ModuleView& view, RegistryStatus status, ObservedState observed);
  void Wait(const std::string& name, Millis wait, Done<ActionResult> done);
  void AnswerWaiters(const std::string& name);

  Loop& loop_;
  const Clock& clock_;
  std::map<std::string, ModuleView> modules_;
  std::multimap<std::string, std::shared_ptr<Waiter>> waiters_;
  int next_id_ = 1;
  bool hold_starts_ = false;
  std::optional<absl::Status> start_failure_, failure_;
};

}  // namespace bulkhead
