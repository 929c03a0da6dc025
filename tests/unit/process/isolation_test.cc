#include "tests/unit/process/spawned.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "gmock/gmock.h"
#include "supervisor/base/status.h"
#include "supervisor/process/namespaces.h"
#include "supervisor/process/sandbox.h"

namespace bulkhead {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr uid_t kStrangerUid = 399'999;  // no passwd entry

SpawnSpec Sandboxed(const std::string& id, const std::string& script, Output* output, std::vector<std::string> writable = {}) {
  SpawnSpec spec = Spawned::Script(id, script, output);
  spec.sandbox = true;
  spec.reach.writable = std::move(writable);
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
  for (const char* name : {"no_new_privs", "capabilities", "rlimits", "seccomp"}) EXPECT_TRUE(items[name].active()) << name << items[name].why;
  EXPECT_EQ(items["landlock"].active(), sandbox::LandlockAbi() > 0);
  EXPECT_EQ(items["uid"].active(), geteuid() == 0);
  EXPECT_EQ(items.size(), 13u);
}

TEST(Isolation, WithoutASandboxNothingOfItIsClaimed) {
  Spawned on;
  auto process = on.Spawn(Spawned::Script("plain.0", "exit 0"));
  ASSERT_TRUE(process.ok());
  EXPECT_EQ(process->isolation.size(), 13u);
  for (const IsolationItem& item : process->isolation) {
    EXPECT_FALSE(item.active()) << item.name;
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

TEST(Isolation, LandlockLetsAModuleReachOnlyWhatItMay) {
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
            "no cat other/old\nyes echo x > /dev/null\n/etc/passwd\nyes ls /etc/passwd\n");
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
  EXPECT_TRUE(ByName(process->isolation)["rlimits"].active());
}

TEST(Isolation, AProcessBeyondItsMemoryIsToldAsAnOomKill) {
  Spawned on;
  SpawnSpec spec = Spawned::Script("memory.0", "x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo ${#x}");
  spec.limits.memory_bytes = 32 << 20;
  auto process = on.Spawn(std::move(spec));
  ASSERT_TRUE(process.ok());
  IsolationItem item = ByName(process->isolation)["cgroup.memory"];
  if (!item.active()) {
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
  if (!item.active()) {
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
  if (!item.active()) GTEST_SKIP() << "no cpu limit here: " << item.why;
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
  EXPECT_FALSE(items["cgroup.memory"].active());
  EXPECT_EQ(items["cgroup.memory"].why, "switched off");
  EXPECT_EQ(items["cgroup.pids"].why, "not asked for");
}

// What the sandboxed script printed; it must have started.
std::string Printed(Spawned& on, SpawnSpec spec, Output& output) {
  const std::string id = spec.id;
  auto process = on.Spawn(std::move(spec));
  EXPECT_TRUE(process.ok()) << process.status();
  if (!process.ok()) return "";
  std::string all = output.All();
  on.KillTree(id);
  return all;
}

TEST(Isolation, WhatAModuleAsksForOutsideItsFoldersIsReachedAndNoMore) {
  if (sandbox::LandlockAbi() == 0) GTEST_SKIP() << "this kernel has no Landlock";
  ScratchFolder scratch;
  for (const char* name : {"read", "write", "else"}) {
    std::filesystem::create_directory(scratch.Path(name));
    chmod(scratch.Path(name).c_str(), 0777);
    std::ofstream(scratch.Path(name) + std::string("/file")) << name << "\n";
  }
  Spawned on;
  Output output;
  SpawnSpec spec = Sandboxed("foreign.0",
                             "for f in read write else; do cat $f/file; (echo x > $f/new) && echo wrote $f; done 2>/dev/null; "
                             "cat /etc/passwd /etc/hosts > /dev/null && echo names; ls /etc /home /root /srv /var 2>/dev/null; "
                             "cat /etc/fstab 2>/dev/null; true",
                             &output);
  spec.cwd = scratch.Path();
  spec.reach.foreign_readable = {scratch.Path("read")};
  spec.reach.foreign_writable = {scratch.Path("write")};
  EXPECT_EQ(Printed(on, std::move(spec), output), "read\nwrite\nwrote write\nnames\n");
}

TEST(Isolation, AForeignPlaceThatLeadsIntoTheSupervisorsFoldersIsRefused) {
  if (sandbox::LandlockAbi() == 0) GTEST_SKIP() << "this kernel has no Landlock";
  ScratchFolder data, elsewhere;
  std::filesystem::create_directory(data.Path("secrets"));
  std::filesystem::create_symlink(data.Path("secrets"), elsewhere.Path("link"));
  Spawner::Options options = Spawned::MakeOptions(true);
  options.folder_roots = {data.Path()};
  Spawned on(options);
  for (const std::string& path : {elsewhere.Path("link"), data.Path("secrets"), data.Path(), std::string("/tmp")}) {
    SpawnSpec spec = Sandboxed("link.0", "exit 0", nullptr);
    spec.reach.foreign_readable = {path};
    EXPECT_THAT(std::string(on.Spawn(std::move(spec)).status().message()), HasSubstr(path + " reaches into the supervisor's own folder")) << path;
  }
}

// A sandboxed child that does each attempt, an expression of Python, and prints its name with "yes" or the errno.
SpawnSpec Attempts(const std::string& id, const std::vector<std::pair<std::string, std::string>>& attempts, Output* output) {
  std::string script = R"(
from socket import *
def attempt(what, f):
  try: f(); print(what, "yes")
  except OSError as e: print(what, e.errno)
def tcp(host, port): create_connection((host, port), 5)
def udp(family, host): socket(family, SOCK_DGRAM).sendto(b"x", (host, 53))
def own():
  s = create_server(("127.0.0.1", 0)); tcp(*s.getsockname())
)";
  for (const auto& [what, expression] : attempts) script += "attempt('" + what + "', lambda: " + expression + ")\n";
  SpawnSpec spec = Sandboxed(id, "", output);
  spec.executable = "/usr/bin/python3";
  spec.args = {"-I", "-c", script};
  return spec;
}

TEST(Isolation, WithoutANetworkNothingIsReachedAndLoopbackIsItsOwn) {
  if (sandbox::SyscallFilter().empty() && geteuid() != 0) GTEST_SKIP() << "no filter for this architecture";
  for (bool cgroups : {true, false}) {
    Spawned on(cgroups);
    for (const std::string id : {"none.0", "none.1"}) {  // the second one enters what the first has made
      Output output;
      SpawnSpec spec = Attempts(id, {{"own", "own()"}, {"far", "tcp('192.0.2.1', 80)"}, {"udp", "udp(AF_INET, '192.0.2.1')"}, {"unix", "socket(AF_UNIX)"}},
                                &output);
      spec.kin = "none";
      spec.reach.network = NetworkAccess::kNone;
      auto process = on.Spawn(std::move(spec));
      ASSERT_TRUE(process.ok()) << process.status();
      EXPECT_TRUE(ByName(process->isolation)["network"].active()) << ByName(process->isolation)["network"].why;
      const std::string printed = output.All();
      on.KillTree(id);
      if (geteuid() == 0) {
        EXPECT_EQ(printed, "own yes\nfar 101\nudp 101\nunix yes\n") << cgroups;  // ENETUNREACH
      } else {
        EXPECT_EQ(printed, "own 97\nfar 97\nudp 97\nunix yes\n") << cgroups;  // EAFNOSUPPORT
      }
    }
  }
}

// A listener of the test's own, on the loopback.
struct Listener {
  UniqueFd socket;
  std::string port;
  Listener() : socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(bind(socket.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(listen(socket.get(), 8), 0);
    getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &size);
    port = std::to_string(ntohs(address.sin_port));
  }
};

TEST(Isolation, OfPortsThoseThatAreNamedAreReachedAndNoUdp) {
  if (sandbox::LandlockAbi() < sandbox::kAbiWithPorts) GTEST_SKIP() << "this kernel's Landlock has no rules for ports";
  Listener named, other;
  Spawned on;
  Output output;
  SpawnSpec spec = Attempts("ports.0",
                            {{"named", "tcp('127.0.0.1', " + named.port + ")"},
                             {"other", "tcp('127.0.0.1', " + other.port + ")"},
                             {"fast", "socket().sendto(b'x', MSG_FASTOPEN, ('127.0.0.1', " + other.port + "))"},
                             {"mptcp", "socket(AF_INET, SOCK_STREAM, 262)"},
                             {"udp", "socket(AF_INET, SOCK_DGRAM)"},
                             {"listen", "create_server(('127.0.0.1', 0))"}},
                            &output);
  spec.reach.network = NetworkAccess::kPorts;
  spec.reach.ports = {static_cast<uint16_t>(std::stoi(named.port))};
  EXPECT_EQ(Printed(on, std::move(spec), output), "named yes\nother 13\nfast 1\nmptcp 1\nudp 1\nlisten 13\n");
}

TEST(Isolation, LoopbackIsReachedAloneWhereAddressesCanBeTold) {
  Listener here;
  Spawned on;
  Output output;
  SpawnSpec spec = Attempts("loopback.0",
                            {{"here", "tcp('127.0.0.1', " + here.port + ")"},
                             {"far", "tcp('192.0.2.1', 80)"},
                             {"mapped", "socket(AF_INET6).connect(('::ffff:192.0.2.1', 80))"},
                             {"mapped here", "socket(AF_INET6).connect(('::ffff:127.0.0.1', " + here.port + "))"},
                             {"udp", "udp(AF_INET, '192.0.2.1')"},
                             {"udp6", "udp(AF_INET6, '2001:db8::1')"}},
                            &output);
  spec.reach.network = NetworkAccess::kLoopback;
  auto process = on.Spawn(std::move(spec));
  ASSERT_TRUE(process.ok()) << process.status();
  const IsolationItem item = ByName(process->isolation)["network"];
  const std::string printed = output.All();
  on.KillTree("loopback.0");
  if (!item.active()) {
    EXPECT_THAT(item.why, HasSubstr("every host can be reached"));
    GTEST_SKIP() << item.why;
  }
  EXPECT_EQ(printed, "here yes\nfar 1\nmapped 1\nmapped here yes\nudp 1\nudp6 1\n");
}

TEST(Isolation, SocketsOfOtherFamiliesAreRefused) {
  if (sandbox::SyscallFilter().empty()) GTEST_SKIP() << "no filter for this architecture";
  Spawned on;
  Output output;
  SpawnSpec spec = Attempts("families.0",
                            {{"tcp", "socket(AF_INET, SOCK_STREAM)"}, {"tcp named", "socket(AF_INET6, SOCK_STREAM, 6)"}, {"udp", "socket(AF_INET, SOCK_DGRAM)"},
                             {"raw", "socket(AF_INET, SOCK_RAW, 1)"}, {"ping", "socket(AF_INET, SOCK_DGRAM, 1)"}, {"route", "socket(AF_NETLINK, SOCK_RAW, 0)"},
                             {"audit", "socket(AF_NETLINK, SOCK_RAW, 9)"}, {"packet", "socket(17, SOCK_RAW)"}, {"vsock", "socket(40, SOCK_STREAM)"},
                             {"alg", "socket(38, SOCK_SEQPACKET)"}},
                            &output);
  EXPECT_EQ(Printed(on, std::move(spec), output),
            "tcp yes\ntcp named yes\nudp yes\nraw 1\nping 1\nroute yes\naudit 97\npacket 97\nvsock 97\nalg 97\n");
}

TEST(Isolation, TmpProcAndIpcAreAModulesOwn) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root for mounts";
  if (const std::string& why = namespaces::Supported().mounts + namespaces::Supported().proc + namespaces::Supported().ipc; !why.empty())
    GTEST_SKIP() << why;
  ScratchFolder outside, place("/run");
  std::ofstream(outside.Path("seen")) << "x";
  std::filesystem::create_directory(place.Path("tmp"));
  ASSERT_EQ(chown(place.Path("tmp").c_str(), kStrangerUid, kStrangerUid), 0);
  Spawner::Options options = Spawned::MakeOptions(true);
  options.folder_roots = {place.Path()};
  Spawned on(options);
  Output output;
  SpawnSpec spec = Sandboxed("own.0",
                             "ls /dev/shm /tmp /var/tmp; echo x > /tmp/mine && echo x > /dev/shm/mine && ls /dev/shm /var/tmp; [ -e /proc/1 ] || echo alone; "
                             "[ -e /proc/self/status ] && echo self; readlink /proc/self/ns/ipc", &output);
  spec.reach.tmp = place.Path("tmp");
  spec.reach.writable = {place.Path("tmp")};
  auto process = on.Spawn(std::move(spec));
  ASSERT_TRUE(process.ok()) << process.status();
  for (const char* name : {"tmp", "proc", "ipc"}) EXPECT_TRUE(ByName(process->isolation)[name].active()) << name << ByName(process->isolation)[name].why;
  const std::string printed = output.All();
  on.KillTree("own.0");
  EXPECT_THAT(printed, HasSubstr("/dev/shm:\n\n/tmp:\n\n/var/tmp:\n"));
  EXPECT_THAT(printed, HasSubstr("/dev/shm:\nmine\n\n/var/tmp:\nmine\nalone\nself\nipc:["));
  EXPECT_THAT(printed, Not(HasSubstr(std::filesystem::read_symlink("/proc/self/ns/ipc").string())));
  EXPECT_TRUE(std::filesystem::exists(place.Path("tmp/mine")));
  EXPECT_FALSE(std::filesystem::exists("/tmp/mine"));
}

TEST(Isolation, WhatAModuleNeedsInTmpIsNotHiddenFromIt) {
  if (geteuid() != 0 || !namespaces::Supported().mounts.empty()) GTEST_SKIP() << "needs mounts of its own";
  ScratchFolder data;
  Spawner::Options options = Spawned::MakeOptions(true);
  options.folder_roots = {data.Path()};
  Spawned on(options);
  Output output;
  SpawnSpec spec = Sandboxed("needs.0", "ls -d " + data.Path(), &output);
  spec.reach.readable = {data.Path()};
  auto process = on.Spawn(std::move(spec));
  ASSERT_TRUE(process.ok()) << process.status();
  EXPECT_EQ(output.All(), data.Path() + "\n");
  const IsolationItem item = ByName(process->isolation)["tmp"];
  EXPECT_EQ(item.state, IsolationItem::State::kUnavailable);
  EXPECT_THAT(item.why, HasSubstr(data.Path()));
  on.KillTree("needs.0");
}

TEST(Isolation, AFileGrowsToItsLimitAndNoFurther) {
  ScratchFolder scratch;
  chmod(scratch.Path().c_str(), 0777);
  Spawned on;
  Output output;
  SpawnSpec spec = Sandboxed("fsize.0", "trap '' XFSZ; head -c 100000 /dev/zero > big 2>/dev/null || echo refused; wc -c < big", &output, {scratch.Path()});
  spec.cwd = scratch.Path();
  spec.limits.file_bytes = 4096;
  EXPECT_EQ(Printed(on, std::move(spec), output), "refused\n4096\n");
}

TEST(Isolation, WhatTheOperatorHasSwitchedOffIsNotAppliedAndSaid) {
  Spawner::Options options = Spawned::MakeOptions(true);
  options.off = {"landlock", "seccomp", "network", "tmp", "proc", "ipc"};
  Spawned on(options);
  Output output;
  SpawnSpec spec = Sandboxed("off.0", "grep Seccomp: /proc/self/status; ls -d /home; readlink /proc/self/ns/net", &output);
  spec.reach.network = NetworkAccess::kNone;
  auto process = on.Spawn(std::move(spec));
  ASSERT_TRUE(process.ok()) << process.status();
  for (const std::string& name : options.off) {
    const IsolationItem item = ByName(process->isolation)[name];
    EXPECT_EQ(item.state, IsolationItem::State::kOff) << name;
    EXPECT_THAT(item.why, HasSubstr("isolation.off")) << name;
  }
  const std::string filter = ReadFile("/proc/self/status")->find("Seccomp:\t0") != std::string::npos ? "0" : "2";  // as this process's own
  EXPECT_EQ(output.All(), "Seccomp:\t" + filter + "\n/home\n" + std::filesystem::read_symlink("/proc/self/ns/net").string() + "\n");
  on.KillTree("off.0");
  Listener other;
  Output connected;
  SpawnSpec ports = Attempts("off.1", {{"other", "tcp('127.0.0.1', " + other.port + ")"}, {"udp", "socket(AF_INET, SOCK_DGRAM)"}}, &connected);
  ports.reach.network = NetworkAccess::kPorts;
  EXPECT_EQ(Printed(on, std::move(ports), connected), "other yes\nudp yes\n");
}

TEST(Isolation, WithoutThatMeasureAloneLandlockBoundsNoPorts) {
  Spawner::Options options = Spawned::MakeOptions(true);
  options.off = {"network"};
  Spawned on(options);
  Listener other;
  Output output;
  SpawnSpec spec = Attempts("alone.0", {{"other", "tcp('127.0.0.1', " + other.port + ")"}}, &output);
  spec.reach.network = NetworkAccess::kPorts;
  EXPECT_EQ(Printed(on, std::move(spec), output), "other yes\n");
}

TEST(Isolation, AStrictModuleIsNotStartedWhereAMeasureIsMissing) {
  Spawner::Options options = Spawned::MakeOptions(true);
  options.off = {"seccomp"};
  Spawned on(options);
  ScratchFolder scratch;
  SpawnSpec spec = Sandboxed("strict.0", "touch " + scratch.Path("started"), nullptr);
  spec.strict = true;
  const absl::Status refused = on.Spawn(std::move(spec)).status();
  EXPECT_EQ(ErrorCode(refused), "ISOLATION_INCOMPLETE");
  EXPECT_THAT(std::string(refused.message()), HasSubstr("seccomp (switched off by isolation.off"));
  EXPECT_FALSE(std::filesystem::exists(scratch.Path("started")));
}

TEST(Isolation, WhatAChildWouldHaveIsToldWithoutStartingIt) {
  Spawned on;
  auto inspect = [&](SpawnSpec spec) {
    std::optional<std::vector<IsolationItem>> items;
    on.spawner->Inspect(std::move(spec), [&](std::vector<IsolationItem> told) { items = std::move(told); });
    EXPECT_TRUE(RunUntil(on.loop, [&] { return items.has_value(); }));
    return items.value_or(std::vector<IsolationItem>());
  };
  SpawnSpec asked = Sandboxed("inspected", "exit 1", nullptr), started = Sandboxed("started.0", "exit 0", nullptr);
  asked.limits.memory_bytes = started.limits.memory_bytes = 1 << 30;
  asked.reach.network = started.reach.network = NetworkAccess::kNone;
  auto told = ByName(inspect(std::move(asked)));
  auto process = on.Spawn(std::move(started));
  ASSERT_TRUE(process.ok()) << process.status();
  EXPECT_EQ(told.size(), 13u);
  for (const IsolationItem& item : process->isolation) EXPECT_EQ(told[item.name].state, item.state) << item.name;
  SpawnSpec wrong = Sandboxed("no id at all", "exit 0", nullptr);
  EXPECT_TRUE(inspect(std::move(wrong)).empty());
}

}  // namespace
}  // namespace bulkhead
