// Which jobs are active and when they tick; no clock but the one handed in.
#include "supervisor/jobs/schedule.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bulkhead {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

WallTime At(const char* utc) {
  absl::Time time;
  std::string error;
  EXPECT_TRUE(absl::ParseTime(absl::RFC3339_full, utc, &time, &error)) << error;
  return absl::ToChronoTime(time);
}

JobSpec Spec(const char* name, const char* schedule, const char* catch_up = "none") {
  JobSpec spec;
  spec.name = name;
  spec.schedule = schedule;
  spec.catch_up = catch_up;
  return spec;
}

std::shared_ptr<const Directory> With(std::vector<JobSpec> jobs, bool ready = true) {
  auto manifest = std::make_shared<Manifest>();
  manifest->name = "m";
  manifest->jobs = std::move(jobs);
  auto module = std::make_shared<DirectoryModule>();
  module->name = "m";
  module->manifest = manifest;
  if (ready) module->workers.push_back({.slot = 0, .instance = "m.0.1"});
  auto directory = std::make_shared<Directory>();
  directory->modules["m"] = module;
  return directory;
}

std::vector<WallTime> Slots(const std::vector<Tick>& ticks) {
  std::vector<WallTime> slots;
  for (const Tick& tick : ticks) slots.push_back(tick.slot);
  return slots;
}

TEST(Schedule, AJobIsActiveWhileItsModuleHasAReadyWorker) {
  Schedule schedule;
  schedule.Adopt(*With({Spec("a", "0 * * * *"), Spec("manual", "")}, false), At("2026-01-10T10:30:00Z"));
  EXPECT_EQ(schedule.NextDue(), std::nullopt);
  EXPECT_THAT(schedule.jobs(), IsEmpty());
  schedule.Adopt(*With({Spec("a", "0 * * * *"), Spec("manual", "")}), At("2026-01-10T10:30:00Z"));
  EXPECT_EQ(schedule.jobs().size(), 2u);
  EXPECT_EQ(schedule.NextDue(), At("2026-01-10T11:00:00Z"));
  schedule.Adopt(Directory(), At("2026-01-10T10:31:00Z"));
  EXPECT_EQ(schedule.NextDue(), std::nullopt);
}

TEST(Schedule, ADueTickIsTakenOnce) {
  Schedule schedule;
  schedule.Adopt(*With({Spec("a", "* * * * *")}), At("2026-01-10T10:00:30Z"));
  EXPECT_THAT(schedule.TakeDue(At("2026-01-10T10:00:59Z")), IsEmpty());
  const auto ticks = schedule.TakeDue(At("2026-01-10T10:01:00Z"));
  ASSERT_EQ(ticks.size(), 1u);
  EXPECT_EQ(ticks[0].slot, At("2026-01-10T10:01:00Z"));
  EXPECT_THAT(schedule.TakeDue(At("2026-01-10T10:01:00.5Z")), IsEmpty());
  EXPECT_EQ(schedule.NextDue(), At("2026-01-10T10:02:00Z"));
}

TEST(Schedule, APublishedSnapshotDoesNotMoveTheNextTick) {
  Schedule schedule;
  schedule.Adopt(*With({Spec("a", "* * * * *")}), At("2026-01-10T10:00:30Z"));
  schedule.Adopt(*With({Spec("a", "* * * * *")}), At("2026-01-10T10:01:00.2Z"));  // between the tick and its timer
  EXPECT_EQ(schedule.TakeDue(At("2026-01-10T10:01:00.2Z")).size(), 1u);
}

TEST(Schedule, ATickThatFallsIntoARestartOfTheModuleIsTakenWhenItIsBack) {
  Schedule schedule;
  schedule.Adopt(*With({Spec("a", "* * * * *")}), At("2026-01-10T10:00:30Z"));
  schedule.Adopt(*With({Spec("a", "* * * * *")}, false), At("2026-01-10T10:00:59Z"));
  EXPECT_THAT(schedule.jobs(), IsEmpty());
  EXPECT_EQ(schedule.NextDue(), std::nullopt);
  EXPECT_THAT(schedule.TakeDue(At("2026-01-10T10:01:00Z")), IsEmpty());
  schedule.Adopt(*With({Spec("a", "* * * * *")}, false), At("2026-01-10T10:01:01Z"));  // published for another module's sake
  schedule.Adopt(*With({Spec("a", "* * * * *")}), At("2026-01-10T10:01:02Z"));
  const auto ticks = schedule.TakeDue(At("2026-01-10T10:01:02Z"));
  ASSERT_EQ(ticks.size(), 1u);
  EXPECT_EQ(ticks[0].slot, At("2026-01-10T10:01:00Z"));
}

TEST(Schedule, ATickOfALongRestartIsLeftOut) {
  Schedule schedule;
  schedule.Adopt(*With({Spec("a", "0 * * * *")}), At("2026-01-10T10:59:00Z"));
  schedule.Adopt(*With({Spec("a", "0 * * * *")}, false), At("2026-01-10T10:59:59Z"));
  schedule.Adopt(*With({Spec("a", "0 * * * *")}), At("2026-01-10T11:02:00Z"));
  EXPECT_THAT(schedule.TakeDue(At("2026-01-10T11:02:00Z")), IsEmpty());
  EXPECT_EQ(schedule.NextDue(), At("2026-01-10T12:00:00Z"));
}

TEST(Schedule, WhatTickedWhileTheModuleWasDisabledIsNotMadeUpFor) {
  Schedule schedule;
  schedule.Adopt(*With({Spec("a", "* * * * *")}), At("2026-01-10T10:00:30Z"));
  schedule.Adopt(Directory(), At("2026-01-10T10:00:59Z"));
  schedule.Adopt(*With({Spec("a", "* * * * *")}), At("2026-01-10T10:01:02Z"));
  EXPECT_THAT(schedule.TakeDue(At("2026-01-10T10:01:02Z")), IsEmpty());
}

TEST(Schedule, OfSeveralMissedTicksTheLatestCountsAndLongMissedOnesAreLeftOut) {
  Schedule schedule;
  schedule.Adopt(*With({Spec("seconds", "* * * * * *"), Spec("hourly", "0 * * * *"), Spec("late", "0 * * * *", "latest")}),
                 At("2026-01-10T10:30:00Z"));
  const auto ticks = schedule.TakeDue(At("2026-01-10T13:20:00Z"));  // suspended for almost three hours
  ASSERT_EQ(ticks.size(), 2u);
  EXPECT_EQ(ticks[0].key.second, "late");
  EXPECT_EQ(ticks[0].slot, At("2026-01-10T13:00:00Z"));
  EXPECT_EQ(ticks[1].key.second, "seconds");
  EXPECT_EQ(ticks[1].slot, At("2026-01-10T13:20:00Z"));
}

TEST(Schedule, CatchingUpFindsTheLatestTickHoweverLongAgo) {
  Schedule schedule;
  EXPECT_THAT(schedule.Adopt(*With({Spec("a", "0 6 * * *", "latest"), Spec("b", "0 6 * * *")}), At("2026-01-10T10:00:00Z")),
              ElementsAre(JobKey("m", "a")));
  EXPECT_THAT(Slots(schedule.Missed({"m", "a"}, At("2026-01-01T06:00:00Z"), At("2026-01-10T10:00:00Z"))), ElementsAre(At("2026-01-10T06:00:00Z")));
  EXPECT_THAT(schedule.Missed({"m", "a"}, At("2026-01-10T06:00:00Z"), At("2026-01-10T10:00:00Z")), IsEmpty());
  EXPECT_THAT(schedule.Missed({"m", "b"}, At("2026-01-01T06:00:00Z"), At("2026-01-10T10:00:00Z")), IsEmpty());
  EXPECT_THAT(schedule.Missed({"m", "nobody"}, At("2026-01-01T06:00:00Z"), At("2026-01-10T10:00:00Z")), IsEmpty());
}

TEST(Schedule, CatchingUpWithAllFindsTheLastOfThemInTheirOrder) {
  Schedule schedule;
  JobSpec few = Spec("few", "0 6 * * *", "all"), many = Spec("many", "0 6 * * *", "all");
  few.catch_up_most = 3;
  many.catch_up_most = 1'000;
  EXPECT_EQ(schedule.Adopt(*With({few, many}), At("2026-01-10T10:00:00Z")).size(), 2u);
  const auto last = schedule.Missed({"m", "few"}, At("2026-01-01T06:00:00Z"), At("2026-01-10T10:00:00Z"));
  EXPECT_THAT(Slots(last), ElementsAre(At("2026-01-08T06:00:00Z"), At("2026-01-09T06:00:00Z"), At("2026-01-10T06:00:00Z")));
  EXPECT_TRUE(last[0].made_up_for);
  EXPECT_EQ(schedule.Missed({"m", "many"}, At("2026-01-01T06:00:00Z"), At("2026-01-10T10:00:00Z")).size(), 9u);
}

TEST(Schedule, OfTicksMissedInASuspendedMachineAllAreTakenWhereAllAreWanted) {
  Schedule schedule;
  JobSpec spec = Spec("hourly", "0 * * * *", "all");
  spec.catch_up_most = 10;
  schedule.Adopt(*With({spec}), At("2026-01-10T10:30:00Z"));
  const auto ticks = schedule.TakeDue(At("2026-01-10T13:00:01Z"));
  EXPECT_THAT(Slots(ticks), ElementsAre(At("2026-01-10T11:00:00Z"), At("2026-01-10T12:00:00Z"), At("2026-01-10T13:00:00Z")));
  EXPECT_TRUE(ticks[0].made_up_for);
  EXPECT_FALSE(ticks[2].made_up_for) << "it is on time";
}

TEST(Schedule, AChangedScheduleBeginsAnew) {
  Schedule schedule;
  schedule.Adopt(*With({Spec("a", "0 * * * *")}), At("2026-01-10T10:30:00Z"));
  schedule.Adopt(*With({Spec("a", "45 * * * *")}), At("2026-01-10T10:30:00Z"));
  EXPECT_EQ(schedule.NextDue(), At("2026-01-10T10:45:00Z"));
}

}  // namespace
}  // namespace bulkhead
