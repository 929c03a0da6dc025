#include "tests/unit/process/spawned.h"

#include <sys/stat.h>

#include "gmock/gmock.h"
#include "supervisor/process/sandbox.h"

namespace bulkhead {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr uid_t kStrangerUid = 399'999;  // no passwd entry

SpawnSpec Sandboxed(const std::string& id, const std::string& script, Output* output, std::vector<std::string> writable = {}) {
  SpawnSpec spec = Spawned::Script(id, script, output);
  spec.sandbox = true;
  spec.writable = std::move(writable);
  if (geteuid() == 0) {
    spec.change_user = true;
    spec.uid = spec.gid = kStrangerUid;
  }
  return spec;
}

TEST(Isolation, AModuleHasNoNewPrivsNoCapabilitiesAndAFilter) {
  Spawned on;
  Output output;
  auto process = on.Spawn(Sandboxed("status.0", "grep -E '^(NoNewPrivs|Seccomp|Cap.*|Groups|Umask):' /proc/self/status; ulimit -c", &output));
  ASSERT_TRUE(process.ok()) << process.status();
  std::string status = output.All();
  EXPECT_THAT(status, HasSubstr("NoNewPrivs:\t1\n"));
  EXPECT_THAT(status, HasSubstr("Seccomp:\t2\n"));
  EXPECT_THAT(status, HasSubstr("CapEff:\t0000000000000000\n"));
  EXPECT_THAT(status, HasSubstr("CapPrm:\t0000000000000000\n"));
  EXPECT_THAT(status, HasSubstr("Umask:\t0007\n"));
  EXPECT_THAT(status, HasSubstr("\n0\n"));  // no core files
  if (geteuid() == 0) {
    EXPECT_THAT(status, HasSubstr("CapBnd:\t0000000000000000\n"));
    EXPECT_THAT(status, HasSubstr("Groups:\t \n"));
  }
  auto items = ByName(process->isolation);
  for (const char* name : {"no_new_privs", "capabilities", "rlimits", "seccomp"}) EXPECT_TRUE(items[name].active) << name << items[name].why;
  EXPECT_EQ(items["landlock"].active, sandbox::LandlockAbi() > 0);
  EXPECT_EQ(items["uid"].active, geteuid() == 0);
  EXPECT_EQ(items.size(), 9u);
}

TEST(Isolation, WithoutASandboxNothingOfItIsClaimed) {
  Spawned on;
  auto process = on.Spawn(Spawned::Script("plain.0", "exit 0"));
  ASSERT_TRUE(process.ok());
  EXPECT_EQ(process->isolation.size(), 9u);
  for (const IsolationItem& item : process->isolation) {
    EXPECT_FALSE(item.active) << item.name;
    EXPECT_NE(item.why, "") << item.name;
  }
}

TEST(Isolation, AUidWithoutAPasswdEntryIsTakenOn) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root to change the uid";
  for (bool cgroups : {true, false}) {
    Spawned on(cgroups);
    Output output;
    SpawnSpec spec = Spawned::Script("uid.0", "id -u; id -g; id -G", &output);
    spec.change_user = true;
    spec.uid = kStrangerUid;
    spec.gid = kStrangerUid + 1;
    ASSERT_TRUE(on.Spawn(std::move(spec)).ok());
    EXPECT_EQ(output.All(), "399999\n400000\n400000\n");
    on.KillTree("uid.0");
  }
}

TEST(Isolation, AnotherUidIsRefusedWhenNotRoot) {
  if (geteuid() == 0) GTEST_SKIP() << "root may";
  Spawned on;
  SpawnSpec spec = Spawned::Script("uid.0", "exit 0");
  spec.change_user = true;
  spec.uid = kStrangerUid;
  EXPECT_THAT(std::string(on.Spawn(std::move(spec)).status().message()), HasSubstr("does not run as root"));
}

TEST(Isolation, LandlockLetsAModuleWriteOnlyWhereItMay) {
  if (sandbox::LandlockAbi() == 0) GTEST_SKIP() << "this kernel has no Landlock";
  Spawned on;
  ScratchFolder scratch;
  for (const char* name : {"mine", "other"}) {
    std::filesystem::create_directory(scratch.Path(name));
    chmod(scratch.Path(name).c_str(), 0777);
    std::ofstream(scratch.Path(name) + std::string("/old")) << "old";
    chmod((scratch.Path(name) + "/old").c_str(), 0666);
  }
  Output output;
  SpawnSpec spec = Sandboxed("landlock.0",
                             "try() { if sh -c \"$1\" 2>/dev/null; then echo \"yes $1\"; else echo \"no $1\"; fi; };"
                             "try 'echo x > mine/new'; try 'mkdir mine/sub'; try 'mv mine/new mine/sub/new'; try 'rm -r mine/sub'; try 'echo x > mine/old';"
                             "try 'echo x > other/new'; try 'echo x > other/old'; try 'rm other/old'; try 'mkdir other/sub'; try 'mv mine/old other/moved';"
                             "try 'cat other/old'; try 'echo x > /dev/null'; try 'ls /etc/passwd'",
                             &output, {scratch.Path("mine")});
  spec.cwd = scratch.Path();
  ASSERT_TRUE(on.Spawn(std::move(spec)).ok());
  EXPECT_EQ(output.All(),
            "yes echo x > mine/new\nyes mkdir mine/sub\nyes mv mine/new mine/sub/new\nyes rm -r mine/sub\nyes echo x > mine/old\n"
            "no echo x > other/new\nno echo x > other/old\nno rm other/old\nno mkdir other/sub\nno mv mine/old other/moved\n"
            "oldyes cat other/old\nyes echo x > /dev/null\n/etc/passwd\nyes ls /etc/passwd\n");
}

TEST(Isolation, AWritablePlaceThatIsNotThereIsNamed) {
  if (sandbox::LandlockAbi() == 0) GTEST_SKIP() << "this kernel has no Landlock";
  Spawned on;
  EXPECT_THAT(std::string(on.Spawn(Sandboxed("nowhere.0", "exit 0", nullptr, {"/nonexistent/data"})).status().message()),
              HasSubstr("/nonexistent/data: No such file or directory"));
}

TEST(Isolation, TheFilterRefusesNamespacesAndMountsAndLetsThreadsBe) {
  if (sandbox::SyscallFilter().empty()) GTEST_SKIP() << "no filter for this architecture";
  Spawned on;
  Output output;
  ASSERT_TRUE(on.Spawn(Sandboxed("seccomp.0",
                                 "unshare -U true 2>/dev/null && echo unshared; mount -t tmpfs none /mnt 2>/dev/null && echo mounted;"
                                 "dmesg >/dev/null 2>&1 && echo log; (sleep 0 & wait) && echo forks", &output)).ok());
  EXPECT_EQ(output.All(), "forks\n");
}

TEST(Isolation, TheLimitOfOpenFilesHolds) {
  Spawned on;
  Output output;
  SpawnSpec spec = Spawned::Script("nofile.0", "ulimit -n; ulimit -Hn", &output);
  spec.limits.nofile = 77;
  auto process = on.Spawn(std::move(spec));
  ASSERT_TRUE(process.ok());
  EXPECT_EQ(output.All(), "77\n77\n");
  EXPECT_TRUE(ByName(process->isolation)["rlimits"].active);
}

TEST(Isolation, AProcessBeyondItsMemoryIsToldAsAnOomKill) {
  Spawned on;
  SpawnSpec spec = Spawned::Script("memory.0", "x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo ${#x}");
  spec.limits.memory_bytes = 32 << 20;
  auto process = on.Spawn(std::move(spec));
  ASSERT_TRUE(process.ok());
  IsolationItem item = ByName(process->isolation)["cgroup.memory"];
  if (!item.active) {
    on.KillTree("memory.0");
    EXPECT_NE(item.why, "");
    GTEST_SKIP() << "no memory limit here: " << item.why;
  }
  ProcessExit exit = on.Exit("memory.0");
  EXPECT_EQ(exit.signal, SIGKILL);
  EXPECT_TRUE(exit.oom_killed);
  on.KillTree("memory.0");
}

TEST(Isolation, TheLimitOfProcessesHolds) {
  Spawned on;
  Output output;
  SpawnSpec spec = Sandboxed("pids.0", "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 100 & done; echo all", &output);
  spec.err.Reset(open("/dev/null", O_WRONLY));
  spec.limits.pids = 5;
  auto process = on.Spawn(std::move(spec));
  ASSERT_TRUE(process.ok());
  IsolationItem item = ByName(process->isolation)["cgroup.pids"];
  if (!item.active) {
    on.KillTree("pids.0");
    GTEST_SKIP() << "no limit of processes here: " << item.why;
  }
  EXPECT_NE(on.Exit("pids.0").exit_code, 0);  // the shell could not fork
  on.KillTree("pids.0");
  EXPECT_EQ(output.All(), "");
}

TEST(Isolation, TheShareOfTheProcessorIsWrittenIntoTheCgroup) {
  Spawned on;
  Output output;
  SpawnSpec spec = Spawned::Script("cpu.0", "cat /proc/self/cgroup", &output);
  spec.limits.cpu_millis = 500;
  auto process = on.Spawn(std::move(spec));
  ASSERT_TRUE(process.ok());
  IsolationItem item = ByName(process->isolation)["cgroup.cpu"];
  if (!item.active) GTEST_SKIP() << "no cpu limit here: " << item.why;
  EXPECT_THAT(output.All(), HasSubstr("/cpu.0\n"));
}

TEST(Isolation, WithoutCgroupsTheLimitsSayWhyTheyAreNotInForce) {
  Spawned on(false);
  SpawnSpec spec = Spawned::Script("none.0", "exit 0");
  spec.limits.memory_bytes = 1 << 30;
  spec.limits.cpu_millis = 500;
  auto process = on.Spawn(std::move(spec));
  ASSERT_TRUE(process.ok());
  auto items = ByName(process->isolation);
  EXPECT_FALSE(items["cgroup.memory"].active);
  EXPECT_EQ(items["cgroup.memory"].why, "switched off");
  EXPECT_EQ(items["cgroup.pids"].why, "not asked for");
}

}  // namespace
}  // namespace bulkhead
