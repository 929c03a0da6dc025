#include "supervisor/lifecycle/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "supervisor/base/limits.h"
#include "supervisor/lifecycle/refusals.h"

namespace bulkhead {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr RegistryStatus kStatuses[] = {RegistryStatus::kRegistered, RegistryStatus::kInstalling, RegistryStatus::kEnabled,
                                        RegistryStatus::kDisabled,   RegistryStatus::kUpdating,   RegistryStatus::kRemoving};
constexpr ModuleAction kAllActions[] = {ModuleAction::kInstall, ModuleAction::kEnable, ModuleAction::kDisable, ModuleAction::kConfigure,
                                        ModuleAction::kScale,   ModuleAction::kReset,  ModuleAction::kReload,  ModuleAction::kRestart,
                                        ModuleAction::kUpgrade, ModuleAction::kRollback, ModuleAction::kDelete};

// "module effect" of each step.
std::vector<std::string> Steps(const Plan& plan) {
  std::vector<std::string> steps;
  for (const PlanStep& step : plan.steps) steps.push_back(step.module + " " + step.effect);
  return steps;
}

// The code of the first refusal; "" when it would be done.
std::string Answer(const Plan& plan) { return plan.refusals.empty() ? "" : plan.refusals[0].code; }

std::vector<std::string> Codes(const Plan& plan) {
  std::vector<std::string> codes;
  for (const ErrorDetail& refusal : plan.refusals) codes.push_back(refusal.code);
  return codes;
}

// A node of modules, each as its registry status makes it, whose facts and standing a test then changes.
class PlanTest : public ::testing::Test {
 protected:
  void Add(const std::string& name, RegistryStatus status, std::vector<DependencySpec> dependencies = {}) {
    const bool enabled = status == RegistryStatus::kEnabled;
    GraphNode node{"1.0.0", enabled, std::move(dependencies)};
    if (enabled) node.standing = {ObservedState::kRunning, true, true, true, false};
    graph[name] = node;
    facts[name].status = status;
    facts[name].installed = enabled || status == RegistryStatus::kDisabled;
  }
  Plan Of(ModuleAction action, const std::string& name = "it") { return MakePlan(graph, name, action, options, facts); }
  Plan Enabling(bool with_dependencies = false, const std::string& name = "it") {
    options.with_dependencies = with_dependencies;
    return Of(ModuleAction::kEnable, name);
  }
  PlanFacts& It() { return facts.at("it"); }
  Standing& Stands(const std::string& name) { return graph.at(name).standing; }

  Graph graph;
  AllPlanFacts facts;
  PlanOptions options;
};

TEST_F(PlanTest, ARefusalForTheStateIsTheOneThatTheActionGives) {
  for (RegistryStatus status : kStatuses) {
    for (ModuleAction action : kAllActions) {
      graph.clear();
      Add("it", status);
      SCOPED_TRACE(std::string(RegistryStatusName(status)) + " " + std::string(ModuleActionName(action)));
      const Plan plan = Of(action);
      const absl::Status allowed = CheckTransition("it", status, action);
      EXPECT_EQ(Answer(plan), allowed.ok() ? "" : ErrorCode(allowed));
      if (!allowed.ok()) {
        EXPECT_THAT(plan.steps, IsEmpty()) << "what is refused has no steps";
        EXPECT_EQ(plan.refusals[0].message, allowed.message());
        EXPECT_EQ(plan.refusals[1].code, "CURRENT_STATE");
      } else if (JudgeTransition(status, action) == TransitionVerdict::kAlreadySo) {
        EXPECT_THAT(plan.steps, IsEmpty()) << "nothing is done";
      } else if (action != ModuleAction::kConfigure && action != ModuleAction::kScale && action != ModuleAction::kReset) {
        EXPECT_THAT(plan.steps, Not(IsEmpty()));
      }
    }
  }
}

TEST_F(PlanTest, OfAScaleTheStepSaysHowManyWorkersComeOrGo) {
  Add("it", RegistryStatus::kEnabled);
  It().workers = 3;
  It().manifest_workers = 2;
  options.workers = 5;
  EXPECT_EQ(Of(ModuleAction::kScale).steps.at(0).message, "2 more of its workers, so that there are 5, are started");
  options.workers = 3;
  EXPECT_THAT(Steps(Of(ModuleAction::kScale)), IsEmpty());
  options.workers.reset();
  EXPECT_THAT(Steps(Of(ModuleAction::kScale)), ElementsAre("it stop")) << "back to the manifest's two";
  options.workers = 0;
  EXPECT_EQ(Answer(Of(ModuleAction::kScale)), "INVALID_ARGUMENT");
  options.workers = limits::kMaxWorkers + 1;
  EXPECT_EQ(Answer(Of(ModuleAction::kScale)), "INVALID_ARGUMENT");
  Stands("it").wanted = false;
  options.workers = 5;
  EXPECT_THAT(Steps(Of(ModuleAction::kScale)), IsEmpty()) << "of what does not run only the number changes";
}

TEST_F(PlanTest, AResetStartsWhatWaitsAndNothingElse) {
  Add("it", RegistryStatus::kEnabled);
  EXPECT_THAT(Steps(Of(ModuleAction::kReset)), IsEmpty());
  It().waiting = 2;
  EXPECT_THAT(Steps(Of(ModuleAction::kReset)), ElementsAre("it start"));
  It().status = RegistryStatus::kDisabled;
  EXPECT_EQ(Answer(Of(ModuleAction::kReset)), "INVALID_TRANSITION");
}

// Whatever is wrong with a module, and in whatever combination: the first refusal is of what the action looks at first, all the rest is told,
// too, and there are steps or refusals, never both.
TEST_F(PlanTest, OfAllThatIsInTheWayOfAnEnableTheFirstThatTheActionMeetsComesFirst) {
  enum { kUnusable, kDependency, kConfig, kPackage, kFolderConfig, kPrepare, kWrongs };
  const char* const codes[] = {"MANIFEST_INVALID", "DEPENDENCY_UNSATISFIED", "CONFIG_INVALID", "PACKAGE_INVALID", "SECRET_UNREADABLE", "MIGRATION_EDITED"};
  for (bool installed : {false, true}) {
    for (unsigned set = 0; set < 1U << kWrongs; ++set) {
      const auto is = [set](int wrong) { return (set >> wrong & 1) != 0; };
      SCOPED_TRACE(std::string(installed ? "installed " : "registered ") + std::to_string(set));
      graph.clear();
      facts.clear();
      Add("it", installed ? RegistryStatus::kDisabled : RegistryStatus::kRegistered);
      if (is(kUnusable)) It().unusable = Error("MANIFEST_INVALID", "it is not valid any more");
      if (is(kDependency)) graph.at("it").dependencies = It().package_dependencies = {{"nowhere", "*"}};
      if (is(kConfig)) It().config = Error("CONFIG_INVALID", "it lacks a site");
      if (is(kPackage)) It().package = Error("PACKAGE_INVALID", "there is no folder");
      if (is(kFolderConfig)) It().package_config = Error("SECRET_UNREADABLE", "the key is gone");
      if (is(kPrepare)) It().prepare = {"MIGRATION_EDITED", "001 was edited"};
      const Plan plan = Enabling();
      std::string first;
      for (int wrong = kWrongs - 1; wrong >= 0; --wrong) {
        const bool of_the_folder = wrong == kPackage || wrong == kFolderConfig;
        if (is(wrong) && !(of_the_folder && installed)) first = codes[wrong];
      }
      EXPECT_EQ(Answer(plan), first);
      EXPECT_EQ(plan.refusals.empty(), !plan.steps.empty());
      if (is(kConfig) && is(kDependency) && !is(kUnusable)) {
        EXPECT_THAT(Codes(plan), ::testing::IsSupersetOf({"DEPENDENCY_UNSATISFIED", "MISSING", "CONFIG_INVALID"}));
      }
    }
  }
}

TEST_F(PlanTest, EnablingInstallsMigratesAndStartsWhatIsNotInstalledYet) {
  Add("it", RegistryStatus::kRegistered);
  It().migrations = {"001_a.sql", "002_b.sql"};
  EXPECT_THAT(Steps(Enabling()), ElementsAre("it install", "it migrate", "it migrate", "it start"));
  Add("it", RegistryStatus::kDisabled);
  It().migrations = {"002_b.sql"};
  EXPECT_THAT(Steps(Enabling()), ElementsAre("it migrate", "it start"));
}

TEST_F(PlanTest, WhatTheFolderAsksForCountsBesideWhatIsRegistered) {
  Add("it", RegistryStatus::kRegistered);
  It().package_dependencies = {{"base", "^1.0.0"}};
  EXPECT_THAT(Codes(Enabling()), ElementsAre("DEPENDENCY_UNSATISFIED", "MISSING"));
  Add("base", RegistryStatus::kEnabled);
  EXPECT_THAT(Steps(Enabling()), ElementsAre("it install", "it start"));
  It().package_bulkhead_range = ">=99.0.0";
  const Plan plan = Enabling();
  EXPECT_EQ(Answer(plan), "DEPENDENCY_UNSATISFIED");
  EXPECT_EQ(plan.refusals[1].path, "/dependencies/system/bulkhead");
}

TEST_F(PlanTest, AModuleForAnotherSupervisorIsRefused) {
  Add("it", RegistryStatus::kDisabled);
  graph.at("it").bulkhead_range = ">=99.0.0";
  for (bool with_dependencies : {false, true}) {
    const Plan plan = Enabling(with_dependencies);
    EXPECT_EQ(Answer(plan), "DEPENDENCY_UNSATISFIED");
    EXPECT_EQ(plan.refusals[1].path, "/dependencies/system/bulkhead");
  }
}

TEST_F(PlanTest, WithItsFeatureFlagOffItIsSkippedAndNotStarted) {
  for (RegistryStatus status : {RegistryStatus::kRegistered, RegistryStatus::kDisabled, RegistryStatus::kEnabled}) {
    Add("it", status);
    It().flag_off = "new-thing";
    It().migrations = {"001_a.sql"};
    It().prepare = {"MIGRATION_EDITED", "nobody looks"};
    if (status == RegistryStatus::kEnabled) Stands("it") = {ObservedState::kSkipped, true, true, false, false};
    const Plan plan = Enabling();
    EXPECT_EQ(Answer(plan), "");
    const std::vector<std::string> steps = Steps(plan);
    EXPECT_EQ(steps.front(), status == RegistryStatus::kRegistered ? "it install" : "it skip");
    EXPECT_EQ(steps.back(), "it skip");
    EXPECT_THAT(plan.steps.back().message, ::testing::HasSubstr("new-thing"));
  }
}

TEST_F(PlanTest, WithDependenciesEachOfThemIsInstalledAndMigratedBeforeTheNext) {
  Add("base", RegistryStatus::kRegistered);
  Add("other", RegistryStatus::kEnabled);
  Add("middle", RegistryStatus::kDisabled, {{"base", "^1.0.0"}});
  Add("it", RegistryStatus::kRegistered, {{"middle", "^1.0.0"}, {"other", "*"}});
  It().package_dependencies = graph.at("it").dependencies;
  facts.at("base").migrations = {"001_a.sql"};
  EXPECT_THAT(Steps(Enabling(true)), ElementsAre("base install", "base migrate", "base start", "middle start", "it install", "it start"));
  EXPECT_THAT(Codes(Enabling(false)), ElementsAre("DEPENDENCY_UNSATISFIED", "DISABLED"));
}

TEST_F(PlanTest, WhatKeepsADependencyFromBeingEnabledIsToldWithItsName) {
  Add("base", RegistryStatus::kRegistered);
  Add("it", RegistryStatus::kDisabled, {{"base", "^1.0.0"}});
  facts.at("base").package = WithoutFolder("base");
  const Plan plan = Enabling(true);
  EXPECT_EQ(Answer(plan), "PACKAGE_INVALID");
  EXPECT_EQ(plan.refusals[1].path, "/dependencies/modules/base");
  EXPECT_THAT(plan.steps, IsEmpty());
}

TEST_F(PlanTest, ADependencyThatDoesNotRunKeepsAModuleFromStarting) {
  Add("base", RegistryStatus::kEnabled);
  Add("it", RegistryStatus::kDisabled, {{"base", "*"}});
  for (ObservedState observed : {ObservedState::kFailed, ObservedState::kSkipped, ObservedState::kQuarantined, ObservedState::kStopped}) {
    Stands("base") = {observed, true, true, false, false};
    EXPECT_THAT(Codes(Enabling()), ElementsAre("MODULE_START_FAILED", "DEPENDENCY_FAILED"));
    EXPECT_THAT(Codes(Enabling(true)), ElementsAre("MODULE_START_FAILED", "DEPENDENCY_FAILED"));
  }
  Stands("base") = {ObservedState::kStarting, false, true, true, false};
  EXPECT_THAT(Steps(Enabling()), ElementsAre("it start"));
  // One that is enabled first and is skipped then is no better.
  Add("base", RegistryStatus::kDisabled);
  facts.at("base").flag_off = "later";
  EXPECT_EQ(Answer(Enabling(true)), "MODULE_START_FAILED");
  // Unless it is skipped itself.
  It().flag_off = "later, too";
  EXPECT_THAT(Steps(Enabling(true)), ElementsAre("base skip", "it skip"));
}

TEST_F(PlanTest, OneThatIsEnabledAndDoesNotRunIsTriedAgain) {
  Add("it", RegistryStatus::kEnabled);
  EXPECT_THAT(Steps(Enabling()), IsEmpty());
  Stands("it") = {ObservedState::kStarting, false, true, true, false};
  EXPECT_THAT(Steps(Enabling()), IsEmpty()) << "it starts already";
  for (ObservedState observed : {ObservedState::kStopped, ObservedState::kFailed, ObservedState::kBackoff, ObservedState::kQuarantined}) {
    Stands("it") = {observed, true, observed != ObservedState::kStopped, false, false};
    It().prepare = {};
    It().config = {};
    EXPECT_THAT(Steps(Enabling()), ElementsAre("it start"));
    It().prepare = {"MIGRATION_EDITED", "001 was edited"};
    EXPECT_THAT(Codes(Enabling()), ElementsAre("MODULE_START_FAILED", "MIGRATION_EDITED"));
    It().config = Error("CONFIG_INVALID", "it lacks a site");
    EXPECT_THAT(Codes(Enabling()), ElementsAre("MODULE_START_FAILED", "CONFIG_INVALID"));
  }
}

TEST_F(PlanTest, ACycleIsRefusedWithItsPath) {
  Add("it", RegistryStatus::kDisabled, {{"other", "*"}});
  Add("other", RegistryStatus::kDisabled, {{"it", "*"}});
  for (bool with_dependencies : {false, true}) {
    const Plan plan = Enabling(with_dependencies);
    EXPECT_THAT(Codes(plan), ElementsAre("DEPENDENCY_UNSATISFIED", "DEPENDENCY_CYCLE"));
    EXPECT_THAT(plan.refusals[0].message, ::testing::HasSubstr("it -> other -> it"));
  }
}

TEST_F(PlanTest, InstallingSaysWhatIsWrongWithTheFolder) {
  Add("it", RegistryStatus::kRegistered);
  EXPECT_THAT(Steps(Of(ModuleAction::kInstall)), ElementsAre("it install"));
  It().package = WithoutFolder("it");
  EXPECT_THAT(Codes(Of(ModuleAction::kInstall)), ElementsAre("PACKAGE_INVALID"));
}

TEST_F(PlanTest, DependentsKeepAModuleEnabledAndRegistered) {
  Add("it", RegistryStatus::kEnabled);
  Add("user", RegistryStatus::kDisabled, {{"it", "^1.0.0"}});
  EXPECT_THAT(Steps(Of(ModuleAction::kDisable)), ElementsAre("it stop"));
  Add("user", RegistryStatus::kEnabled, {{"it", "^1.0.0"}});
  const Plan plan = Of(ModuleAction::kDisable);
  EXPECT_THAT(Codes(plan), ElementsAre("HAS_DEPENDENTS", "DEPENDENT"));
  EXPECT_EQ(plan.refusals[1].message, "user 1.0.0 needs it ^1.0.0");
  EXPECT_THAT(Codes(Of(ModuleAction::kDelete)), ::testing::IsSupersetOf({"MODULE_ENABLED", "HAS_DEPENDENTS"}));
  Add("it", RegistryStatus::kRegistered);
  EXPECT_EQ(Answer(Of(ModuleAction::kDelete)), "HAS_DEPENDENTS");
}

TEST_F(PlanTest, ADeletionKeepsTheDataUnlessItIsToBePurged) {
  Add("it", RegistryStatus::kDisabled);
  EXPECT_THAT(Steps(Of(ModuleAction::kDelete)), ElementsAre("it remove", "it keep"));
  options.purge = true;
  EXPECT_THAT(Steps(Of(ModuleAction::kDelete)), ElementsAre("it remove", "it drop"));
  It().busy = true;
  EXPECT_EQ(Answer(Of(ModuleAction::kDelete)), "MODULE_BUSY");
}

TEST_F(PlanTest, AConfigurationIsPushedOrRestartedWithWhereTheModuleRuns) {
  Add("it", RegistryStatus::kDisabled);
  EXPECT_THAT(Steps(Of(ModuleAction::kConfigure)), IsEmpty());
  Add("it", RegistryStatus::kEnabled);
  EXPECT_THAT(Steps(Of(ModuleAction::kConfigure)), ElementsAre("it push"));
  It().restarts_for_config = true;
  EXPECT_THAT(Steps(Of(ModuleAction::kConfigure)), ElementsAre("it restart"));
  It().unusable = Error("MANIFEST_INVALID", "it is not valid any more");
  EXPECT_EQ(Answer(Of(ModuleAction::kConfigure)), "MANIFEST_INVALID");
}

}  // namespace
}  // namespace bulkhead
