#include "tests/unit/process/spawned.h"

#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <set>

#include "gmock/gmock.h"
#include "supervisor/base/status.h"
#include "supervisor/process/sandbox.h"
#include "supervisor/process/wire.h"

namespace bulkhead {
namespace {

using testing::HasSubstr;

std::set<std::string> Lines(const std::string& text) {
  std::set<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.insert(line);
  return lines;
}

// Both ways of tracking a tree start children the same way.
class SpawnerTest : public testing::TestWithParam<bool> {
 protected:
  Spawned on{GetParam()};
};
INSTANTIATE_TEST_SUITE_P(Tracking, SpawnerTest, testing::Bool(), [](const auto& info) { return info.param ? "Cgroup" : "Keeper"; });

TEST_P(SpawnerTest, AMissingExecutableIsASentenceWithItsPath) {
  SpawnSpec spec = Spawned::Script("missing.0", "");
  spec.executable = "/nonexistent/bin/module";
  auto result = on.Spawn(std::move(spec));
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(ErrorCode(result.status()), "SPAWN_FAILED");
  EXPECT_EQ(result.status().message(), "execve /nonexistent/bin/module: No such file or directory");
  EXPECT_TRUE(on.exits.empty());
}

TEST_P(SpawnerTest, AFileThatIsNotExecutableIsASentence) {
  ScratchFolder scratch;
  std::ofstream(scratch.Path("module")) << "#!/bin/sh\n";
  SpawnSpec spec = Spawned::Script("noexec.0", "");
  spec.executable = scratch.Path("module");
  auto result = on.Spawn(std::move(spec));
  EXPECT_EQ(result.status().message(), "execve " + scratch.Path("module") + ": Permission denied");
}

TEST_P(SpawnerTest, AMissingInterpreterIsNamedAsTheReason) {
  ScratchFolder scratch;
  std::ofstream(scratch.Path("module")) << "#!/nonexistent/python\n";
  chmod(scratch.Path("module").c_str(), 0755);
  SpawnSpec spec = Spawned::Script("interpreter.0", "");
  spec.executable = scratch.Path("module");
  EXPECT_THAT(std::string(on.Spawn(std::move(spec)).status().message()), HasSubstr("its interpreter"));
}

TEST_P(SpawnerTest, AMissingWorkingFolderIsASentence) {
  SpawnSpec spec = Spawned::Script("cwd.0", "exit 0");
  spec.cwd = "/nonexistent";
  EXPECT_EQ(on.Spawn(std::move(spec)).status().message(), "chdir /nonexistent: No such file or directory");
}

TEST_P(SpawnerTest, AnIdCanBeUsedAgainAfterAFailedSpawn) {
  SpawnSpec spec = Spawned::Script("again.0", "");
  spec.executable = "/nonexistent";
  EXPECT_FALSE(on.Spawn(std::move(spec)).ok());
  EXPECT_TRUE(on.Spawn(Spawned::Script("again.0", "exit 0")).ok());
}

TEST_P(SpawnerTest, TwoChildrenCanNotHaveTheSameId) {
  ASSERT_TRUE(on.Spawn(Spawned::Script("twin.0", "exec sleep 100")).ok());
  EXPECT_THAT(std::string(on.Spawn(Spawned::Script("twin.0", "exit 0")).status().message()), HasSubstr("twin.0"));
}

TEST_P(SpawnerTest, AnIdThatIsAPathIsRefused) {
  for (const char* id : {"", "..", "a/b", ".hidden", "a b"}) EXPECT_FALSE(on.Spawn(Spawned::Script(id, "exit 0")).ok()) << id;
}

TEST_P(SpawnerTest, TooLargeAnEnvironmentIsRefusedAndNotCut) {
  SpawnSpec spec = Spawned::Script("large.0", "exit 0");
  spec.env.emplace_back("BIG", std::string(wire::kMaxPacket, 'x'));
  EXPECT_THAT(std::string(on.Spawn(std::move(spec)).status().message()), HasSubstr("larger than"));
  spec = Spawned::Script("large.1", "exit 0");
  spec.env.emplace_back("BIG", std::string(wire::kMaxPacket - 4096, 'x'));
  EXPECT_TRUE(on.Spawn(std::move(spec)).ok());
}

TEST_P(SpawnerTest, AnExitCodeIsToldAsOne) {
  ASSERT_TRUE(on.Spawn(Spawned::Script("code.0", "exit 42")).ok());
  ProcessExit exit = on.Exit("code.0");
  EXPECT_EQ(exit.exit_code, 42);
  EXPECT_EQ(exit.signal, 0);
  EXPECT_FALSE(exit.oom_killed);
}

TEST_P(SpawnerTest, ASignalIsToldAsOne) {
  auto process = on.Spawn(Spawned::Script("signal.0", "exec sleep 100"));
  ASSERT_TRUE(process.ok());
  EXPECT_TRUE(Alive(process->pid));
  on.spawner->Signal("signal.0", SIGTERM);
  ProcessExit exit = on.Exit("signal.0");
  EXPECT_EQ(exit.signal, SIGTERM);
  EXPECT_EQ(exit.exit_code, 0);
  EXPECT_FALSE(Alive(process->pid));
}

TEST_P(SpawnerTest, AKillFromOutsideIsSeen) {
  auto process = on.Spawn(Spawned::Script("outside.0", "exec sleep 100"));
  ASSERT_TRUE(process.ok());
  kill(process->pid, SIGKILL);
  EXPECT_EQ(on.Exit("outside.0").signal, SIGKILL);
}

TEST_P(SpawnerTest, SignalsToTheEndedAndTheUnknownAreHarmless) {
  ASSERT_TRUE(on.Spawn(Spawned::Script("ended.0", "exit 0")).ok());
  on.Exit("ended.0");
  on.spawner->Signal("ended.0", SIGTERM);
  on.spawner->Signal("never.0", SIGTERM);
  on.KillTree("never.0");
  on.KillTree("ended.0");
  on.KillTree("ended.0");
}

TEST_P(SpawnerTest, TheEnvironmentIsExactlyWhatWasGiven) {
  setenv("BULKHEAD_TEST_SECRET", "1", 1);
  Output output;
  SpawnSpec spec = Spawned::Script("env.0", "", &output);
  spec.executable = "/usr/bin/env";
  spec.args = {};
  spec.env = {{"A", "1"}, {"B", "two words"}, {"EMPTY", ""}};
  ASSERT_TRUE(on.Spawn(std::move(spec)).ok());
  EXPECT_EQ(Lines(output.All()), (std::set<std::string>{"A=1", "B=two words", "EMPTY="}));
}

TEST_P(SpawnerTest, ArgumentsArriveAsTheyAre) {
  Output output;
  SpawnSpec spec = Spawned::Script("args.0", "", &output);
  spec.executable = "/usr/bin/printf";
  spec.args = {"%s|%s|%s", "a b", "", "$HOME"};
  ASSERT_TRUE(on.Spawn(std::move(spec)).ok());
  EXPECT_EQ(output.All(), "a b||$HOME");
}

TEST_P(SpawnerTest, TheControlSocketIsDescriptorThree) {
  auto ends = SocketPair(SOCK_STREAM);
  ASSERT_TRUE(ends.ok());
  SpawnSpec spec = Spawned::Script("control.0", "read line <&3; echo \"got $line\" >&3");
  spec.control = std::move(ends->second);
  ASSERT_TRUE(on.Spawn(std::move(spec)).ok());
  ASSERT_EQ(write(ends->first.get(), "hello\n", 6), 6);
  std::string answer;
  char buffer[64];
  for (ssize_t n; (n = read(ends->first.get(), buffer, sizeof buffer)) > 0;) answer.append(buffer, static_cast<size_t>(n));
  EXPECT_EQ(answer, "got hello\n");
}

TEST_P(SpawnerTest, NoOtherDescriptorLeaksIntoAChild) {
  UniqueFd leak(open("/etc/passwd", O_RDONLY));  // without O_CLOEXEC, in the daemon, after the fork
  Output first, second;
  ASSERT_TRUE(on.Spawn(Spawned::Script("leak.0", "exec sleep 100", &first)).ok());
  auto ends = SocketPair(SOCK_STREAM);
  for (bool with_control : {false, true}) {
    Output output;
    SpawnSpec spec = Spawned::Script("leak.1" + std::to_string(with_control), "", &output);
    spec.executable = "/bin/ls";
    spec.args = {"/proc/self/fd"};
    if (with_control) spec.control = std::move(ends->second);
    ASSERT_TRUE(on.Spawn(std::move(spec)).ok());
    std::set<std::string> expected{"0", "1", "2", with_control ? "4" : "3"};  // the last one is ls's own, of the folder
    if (with_control) expected.insert("3");
    EXPECT_EQ(Lines(output.All()), expected);
  }
}

TEST_P(SpawnerTest, StandardInputIsEmptyAndUnsetOutputsGoNowhere) {
  ScratchFolder scratch;
  SpawnSpec spec = Spawned::Script("stdin.0", "cat > " + scratch.Path("in") + "; readlink /proc/self/fd/1 > " + scratch.Path("out"));
  spec.executable = "/bin/sh";
  ASSERT_TRUE(on.Spawn(std::move(spec)).ok());
  EXPECT_EQ(on.Exit("stdin.0").exit_code, 0);
  EXPECT_EQ(std::filesystem::file_size(scratch.Path("in")), 0u);
}

TEST_P(SpawnerTest, AChildHasItsOwnSessionAndDefaultSignals) {
  Output output;
  auto process = on.Spawn(Spawned::Script("session.0", "cut -d' ' -f6 /proc/$$/stat; grep -E '^Sig(Blk|Ign)' /proc/self/status", &output));
  ASSERT_TRUE(process.ok());
  EXPECT_EQ(output.All(), std::to_string(process->pid) + "\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

TEST_P(SpawnerTest, AnExecutableInAFolderOfTheSpecRuns) {
  Output output;
  ScratchFolder scratch;
  SpawnSpec spec = Spawned::Script("where.0", "pwd", &output);
  spec.cwd = scratch.Path();
  ASSERT_TRUE(on.Spawn(std::move(spec)).ok());
  EXPECT_EQ(output.All(), scratch.Path() + "\n");
}

TEST_P(SpawnerTest, ManyChildrenStartAndEndSideBySide) {
  constexpr int kChildren = 40;
  int spawned = 0;
  std::map<int, int> codes;
  for (int i = 0; i < kChildren; ++i) {
    on.spawner->Spawn(Spawned::Script("many." + std::to_string(i), "exit " + std::to_string(i)),
                      [&](absl::StatusOr<SpawnedProcess> process) { spawned += process.ok(); },
                      [&codes, i](ProcessExit exit) { codes[i] = exit.exit_code; });
  }
  ASSERT_TRUE(RunUntil(on.loop, [&] { return spawned == kChildren && codes.size() == kChildren; }));
  for (auto [i, code] : codes) EXPECT_EQ(code, i);
  int empty = 0;
  for (int i = 0; i < kChildren; ++i) on.spawner->KillTree("many." + std::to_string(i), [&] { ++empty; });
  EXPECT_TRUE(RunUntil(on.loop, [&] { return empty == kChildren; }));
}

TEST_P(SpawnerTest, TheSpawnerOutlivesTerminalSignals) {
  for (int signal : {SIGINT, SIGTERM, SIGHUP}) kill(on.spawner->pid(), signal);
  EXPECT_TRUE(on.Spawn(Spawned::Script("after.0", "exit 0")).ok());
  std::ifstream comm("/proc/" + std::to_string(on.spawner->pid()) + "/comm");
  std::string name;
  std::getline(comm, name);
  EXPECT_EQ(name, "bulkhead-spawn");
}

TEST(SpawnerOptions, AsRootNothingRunsAsRootWhereThatIsForbidden) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  Spawner::Options options = Spawned::MakeOptions(true);
  options.refuse_root_children = true;
  Spawned on(options);
  EXPECT_THAT(std::string(on.Spawn(Spawned::Script("root.0", "exit 0")).status().message()), HasSubstr("nothing as root"));
  SpawnSpec spec = Spawned::Script("user.0", "exit 0");
  spec.change_user = true;
  spec.uid = spec.gid = 399'999;
  EXPECT_TRUE(on.Spawn(std::move(spec)).ok());
}

TEST(SpawnerOptions, OnlyTheUidsThatChildrenMayHaveAreGiven) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  Spawner::Options options = Spawned::MakeOptions(true);
  options.child_uids = {{399'000, 399'999}};
  Spawned on(options);
  for (auto [uid, allowed] : {std::pair<uid_t, bool>{398'999, false}, {399'000, true}, {399'999, true}, {400'000, false}}) {
    SpawnSpec spec = Spawned::Script("uid." + std::to_string(uid), "exit 0");
    spec.change_user = true;
    spec.uid = spec.gid = uid;
    EXPECT_EQ(on.Spawn(std::move(spec)).ok(), allowed) << uid;
  }
}

TEST(SpawnerOptions, OnlyTheGidsThatChildrenMayHaveAreGiven) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  Spawner::Options options = Spawned::MakeOptions(true);
  options.child_uids = {{399'000, 399'999}};
  options.child_gids = {{399'000, 399'999}, {150, 150}};
  Spawned on(options);
  for (auto [gid, allowed] : {std::pair<gid_t, bool>{42, false}, {150, true}, {151, false}, {399'000, true}, {400'000, false}}) {
    SpawnSpec spec = Spawned::Script("gid." + std::to_string(gid), "exit 0");
    spec.change_user = true;
    spec.uid = 399'000;
    spec.gid = gid;
    EXPECT_EQ(on.Spawn(std::move(spec)).ok(), allowed) << gid;
  }
}

// As in containers whose engine answers clone3 with ENOSYS; the filter for modules does the same.
TEST(SpawnerOptions, WhereClone3IsForbiddenTheOlderCloneServes) {
  if (sandbox::SyscallFilter().empty()) GTEST_SKIP() << "no filter for this architecture";
  for (bool cgroups : {true, false}) {
    pid_t container = fork();
    if (container == 0) {
      const auto& filter = sandbox::SyscallFilter();
      sock_fprog program{static_cast<unsigned short>(filter.size()), const_cast<sock_filter*>(filter.data())};
      if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) != 0) _exit(2);
      bool worked = false;
      {
        Spawned on(cgroups);
        worked = on.Spawn(Spawned::Script("old.0", "exit 5")).ok() && on.Exit("old.0").exit_code == 5;
        on.KillTree("old.0");
      }
      _exit(worked && !testing::Test::HasFailure() ? 0 : 1);
    }
    int status = -1;
    waitpid(container, &status, 0);
    EXPECT_EQ(status, 0) << "with cgroups: " << cgroups;
  }
}

}  // namespace
}  // namespace bulkhead
