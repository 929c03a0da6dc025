#include "tests/unit/process/spawned.h"

#include <algorithm>

namespace bulkhead {
namespace {

// Spawns a grandchild that leaves the session, a double-forked orphan of another session, and ignores SIGTERM everywhere.
constexpr char kRunaway[] =
    "trap '' TERM HUP; setsid sh -c 'trap \"\" TERM; echo $$; sleep 1000' & "
    "(setsid sh -c 'echo $$; sleep 1000' &) ; echo $$; sleep 1000";

std::vector<pid_t> ReadPids(Output& output, int count) {
  std::vector<pid_t> pids;
  for (int i = 0; i < count; ++i) pids.push_back(atoi(output.Line().c_str()));
  return pids;
}

bool AllGone(const std::vector<pid_t>& pids) {
  for (pid_t pid : pids) {
    if (Alive(pid)) return false;
  }
  return true;
}

// Zombies don't count: an orphaned spawner waits for init, which takes its time on some machines.
bool Runs(pid_t pid) {
  std::ifstream stat("/proc/" + std::to_string(pid) + "/stat");
  std::string number, name, state;
  return (stat >> number >> name >> state) && state != "Z" && state != "X";
}

// Without a loop: for what a process that is not ours any more does.
bool AllGoneSoon(const std::vector<pid_t>& pids) {
  auto deadline = Clock::Real().Now() + kTestPatience;
  while (std::any_of(pids.begin(), pids.end(), Runs)) {
    if (Clock::Real().Now() > deadline) return false;
    std::this_thread::sleep_for(Millis(5));
  }
  return true;
}

bool CgroupLeft(const std::string& name) {
  std::error_code ignored;
  for (auto it = std::filesystem::recursive_directory_iterator("/sys/fs/cgroup", std::filesystem::directory_options::skip_permission_denied, ignored);
       it != std::filesystem::recursive_directory_iterator(); it.increment(ignored)) {
    if (it->path().filename().string().rfind(name, 0) == 0) return true;
  }
  return false;
}

class TreeKillTest : public testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Tracking, TreeKillTest, testing::Bool(), [](const auto& info) { return info.param ? "Cgroup" : "Keeper"; });

TEST_P(TreeKillTest, GrandchildrenThatLeftTheSessionAreKilled) {
  Spawned on(GetParam());
  Output output;
  ASSERT_TRUE(on.Spawn(Spawned::Script("tree.0", kRunaway, &output)).ok());
  auto pids = ReadPids(output, 3);
  for (pid_t pid : pids) EXPECT_TRUE(Alive(pid)) << pid;
  on.KillTree("tree.0");
  EXPECT_TRUE(AllGone(pids));  // at once, and reaped: the answer says so
  EXPECT_EQ(on.exits["tree.0"].signal, SIGKILL);
  EXPECT_EQ(output.All(), "");  // nobody holds the pipe any more
}

TEST_P(TreeKillTest, WhatOutlivesTheProcessItselfIsKilledLater) {
  Spawned on(GetParam());
  Output output;
  ASSERT_TRUE(on.Spawn(Spawned::Script("orphan.0", "setsid sh -c 'echo $$; exec sleep 1000' & read x < /dev/null; exit 7", &output)).ok());
  auto pids = ReadPids(output, 1);
  EXPECT_EQ(on.Exit("orphan.0").exit_code, 7);
  EXPECT_TRUE(Alive(pids[0]));
  on.KillTree("orphan.0");
  EXPECT_TRUE(AllGone(pids));
}

TEST_P(TreeKillTest, OnlyTheTreeThatIsMeantIsKilled) {
  Spawned on(GetParam());
  Output one, two;
  ASSERT_TRUE(on.Spawn(Spawned::Script("one.0", kRunaway, &one)).ok());
  ASSERT_TRUE(on.Spawn(Spawned::Script("two.0", kRunaway, &two)).ok());
  auto first = ReadPids(one, 3), second = ReadPids(two, 3);
  on.KillTree("one.0");
  EXPECT_TRUE(AllGone(first));
  for (pid_t pid : second) EXPECT_TRUE(Alive(pid));
  on.KillTree("two.0");
  EXPECT_TRUE(AllGone(second));
}

TEST_P(TreeKillTest, AStoppedTreeIsKilled) {
  Spawned on(GetParam());
  Output output;
  auto process = on.Spawn(Spawned::Script("stopped.0", "echo $$; kill -STOP $$; sleep 1000", &output));
  ASSERT_TRUE(process.ok());
  ReadPids(output, 1);
  on.KillTree("stopped.0");
  EXPECT_FALSE(Alive(process->pid));
}

TEST_P(TreeKillTest, ATreeThatKeepsForkingEnds) {
  Spawned on(GetParam());
  Output output;
  // Each generation starts its successor in a new session and ends: there is never a quiet moment. It ends with this test at the latest.
  ScratchFolder scratch;
  std::ofstream(scratch.Path("hop")) << "#!/bin/sh\n[ -d /proc/" << getpid() << " ] || exit 0\nsetsid \"$0\" &\n[ -n \"$1\" ] && echo started\nexit 0\n";
  chmod(scratch.Path("hop").c_str(), 0755);
  SpawnSpec spec = Spawned::Script("hop.0", "", &output);
  spec.executable = scratch.Path("hop");
  spec.args = {"first"};
  ASSERT_TRUE(on.Spawn(std::move(spec)).ok());
  EXPECT_EQ(output.Line(), "started");
  on.Exit("hop.0");
  on.KillTree("hop.0");
  EXPECT_EQ(output.All(), "");  // the end of the pipe: no hopper is left that holds it
}

TEST_P(TreeKillTest, AKillDuringTheStartIsAnswered) {
  Spawned on(GetParam());
  for (int i = 0; i < 10; ++i) {
    std::string id = "early." + std::to_string(i);
    bool spawned = false, empty = false;
    pid_t pid = 0;
    on.spawner->Spawn(Spawned::Script(id, "exec sleep 1000"), [&](absl::StatusOr<SpawnedProcess> process) {
      spawned = true;
      if (process.ok()) pid = process->pid;
    }, [&](ProcessExit) {});
    on.spawner->KillTree(id, [&] { empty = true; });
    ASSERT_TRUE(RunUntil(on.loop, [&] { return spawned && empty; }));
    EXPECT_FALSE(pid > 0 && Alive(pid));
  }
}

TEST_P(TreeKillTest, TheIdIsFreeAgainAfterwards) {
  Spawned on(GetParam());
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(on.Spawn(Spawned::Script("same.0", "exec sleep 1000")).ok());
    on.KillTree("same.0");
  }
}

TEST(TreeKillKeeper, ATreeWhoseKeeperWasKilledIsKilledToo) {
  Spawned on(false);
  Output output;
  auto process = on.Spawn(Spawned::Script("keeper.0", kRunaway, &output));
  ASSERT_TRUE(process.ok());
  auto pids = ReadPids(output, 3);
  std::ifstream stat("/proc/" + std::to_string(process->pid) + "/stat");
  std::string pid, name, state;
  pid_t keeper = 0;
  stat >> pid >> name >> state >> keeper;
  ASSERT_GT(keeper, 1);
  kill(keeper, SIGKILL);
  EXPECT_EQ(on.Exit("keeper.0").signal, SIGKILL);
  on.KillTree("keeper.0");
  EXPECT_TRUE(AllGone(pids));
}

// A daemon of its own process, so that it can be killed: starts trees and tells their pids.
struct FakeDaemon {
  pid_t pid = 0;
  Output output;
  Spawner::Options options;

  void Start(bool use_cgroups, std::vector<std::string> scripts, int graceful_signal) {
    options = Spawned::MakeOptions(use_cgroups);
    options.cgroup_name += "-fake";
    pid = fork();
    if (pid != 0) {
      output.write.Reset();
      return;
    }
    setsid();
    output.read.Reset();
    {
      Spawned on(options);
      std::string spawner = std::to_string(on.spawner->pid()) + "\n";
      (void)!write(output.write.get(), spawner.data(), spawner.size());
      for (size_t i = 0; i < scripts.size(); ++i) {
        SpawnSpec spec = Spawned::Script("fake." + std::to_string(i), scripts[i]);
        spec.out.Reset(fcntl(output.write.get(), F_DUPFD_CLOEXEC, 0));
        if (i + 1 == scripts.size()) spec.graceful_signal = graceful_signal;
        (void)on.Spawn(std::move(spec));
      }
      output.write.Reset();
      on.loop.Run();
    }
    _exit(0);
  }
};

TEST_P(TreeKillTest, NothingIsLeftOfADaemonThatIsKilled) {
  FakeDaemon daemon;
  daemon.Start(GetParam(), {kRunaway, kRunaway}, 0);
  auto pids = ReadPids(daemon.output, 7);
  for (pid_t pid : pids) EXPECT_TRUE(Alive(pid)) << pid;
  kill(daemon.pid, SIGKILL);
  waitpid(daemon.pid, nullptr, 0);
  EXPECT_TRUE(AllGoneSoon(pids));
  EXPECT_FALSE(CgroupLeft(daemon.options.cgroup_name));
}

TEST_P(TreeKillTest, WhoWantsAGracefulEndGetsItsSignalAfterAllOthersAreDead) {
  ScratchFolder scratch;
  FakeDaemon daemon;
  // The second tells on SIGINT whether the first still lives, takes its time, and ends by itself.
  daemon.Start(GetParam(), {"echo $$ > " + scratch.Path("first") + "; echo $$; sleep 1000",
                            "trap 'kill -0 $(cat " + scratch.Path("first") + ") 2>/dev/null && echo early > " + scratch.Path("said") +
                                " || echo in order > " + scratch.Path("said") + "; sleep 0.1; echo done >> " + scratch.Path("said") +
                                "; exit 0' INT; echo $$; while :; do sleep 0.02; done"}, SIGINT);
  auto pids = ReadPids(daemon.output, 3);
  kill(daemon.pid, SIGKILL);
  waitpid(daemon.pid, nullptr, 0);
  EXPECT_TRUE(AllGoneSoon(pids));
  std::ifstream said(scratch.Path("said"));
  std::stringstream text;
  text << said.rdbuf();
  EXPECT_EQ(text.str(), "in order\ndone\n");
}

TEST_P(TreeKillTest, NothingIsLeftWhenTheSpawnerItselfIsKilled) {
  FakeDaemon daemon;
  daemon.Start(GetParam(), {"echo $$; exec sleep 1000"}, 0);
  auto pids = ReadPids(daemon.output, 2);
  kill(pids[0], SIGKILL);
  EXPECT_TRUE(AllGoneSoon({pids[1]}));
  int status = 0;
  waitpid(daemon.pid, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status));  // the daemon says so and ends
  if (!GetParam()) return;
  // The next spawner of that name sweeps the cgroup that is left.
  Spawned next(daemon.options);
  EXPECT_TRUE(next.Spawn(Spawned::Script("next.0", "exit 0")).ok());
  next.KillTree("next.0");
  next.spawner.reset();
  EXPECT_FALSE(CgroupLeft(daemon.options.cgroup_name));
}

TEST_P(TreeKillTest, TheSpawnerEndsWithItsOwnerAndTakesAllWithIt) {
  std::vector<pid_t> pids;
  std::string name;
  {
    Spawned on(GetParam());
    Output output;
    ASSERT_TRUE(on.Spawn(Spawned::Script("owner.0", kRunaway, &output)).ok());
    pids = ReadPids(output, 3);
    pids.push_back(on.spawner->pid());
  }
  EXPECT_TRUE(AllGone(pids));
  EXPECT_FALSE(CgroupLeft("bulkhead-test-" + std::to_string(getpid()) + "."));
}

}  // namespace
}  // namespace bulkhead
