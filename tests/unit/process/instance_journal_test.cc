// The journal of what was started, and the end of what an earlier life left: real processes, none signalled that is not known.
#include "supervisor/process/instance_journal.h"

#include <set>
#include <thread>

#include "gmock/gmock.h"
#include "tests/unit/process/spawned.h"

namespace bulkhead {
namespace {

using testing::IsEmpty;
using testing::SizeIs;
using testing::StartsWith;
using testing::UnorderedElementsAre;

std::set<std::string> FilesIn(const std::string& folder) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) names.insert(entry.path().filename().string());
  return names;
}

InstanceRecord RecordOf(const std::string& folder, const std::string& id) {
  InstanceRecord record;
  auto text = ReadFile(folder + "/" + id);
  EXPECT_TRUE(text.ok() && DecodeRecord(*text, record)) << id;
  return record;
}

LeftoverOptions Patient(const ScratchFolder& scratch) {
  return {.folder = scratch.Path(), .predecessor = Millis(5'000), .graceful = Millis(5'000), .killed = Millis(5'000)};
}

// A process of nobody's: not this test's child, so that its end is seen by everybody.
pid_t Orphan(const std::string& script, const std::vector<std::string>& env = {}) {
  Output out;
  const pid_t parent = fork();
  if (parent == 0) {
    setsid();
    if (fork() != 0) _exit(0);
    dup2(out.write.get(), 1);
    std::vector<char*> variables;
    for (const std::string& one : env) variables.push_back(const_cast<char*>(one.c_str()));
    variables.push_back(nullptr);
    const std::string text = "echo $$; exec >/dev/null; " + script;
    execle("/bin/sh", "sh", "-c", text.c_str(), nullptr, variables.data());
    _exit(127);
  }
  waitpid(parent, nullptr, 0);
  out.write.Reset();
  return static_cast<pid_t>(std::stoi(out.Line()));
}

// Ended, reaped or not: a zombie has no command line.
bool Gone(pid_t pid) { return !Alive(pid) || ReadFile("/proc/" + std::to_string(pid) + "/cmdline").value_or("").empty(); }

// The next test must not find it.
void End(pid_t pid) {
  kill(pid, SIGKILL);
  while (!Gone(pid)) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

TEST(InstanceRecordTest, WhatIsWrittenIsReadAgain) {
  InstanceRecord record{"orders.0.1", "/x/bin/orders", "0f-11", 200'007, SIGINT, {7, 8, 9}, {10, 11, 12}, "/sys/fs/cgroup/x/orders.0.1",
                        {{"module", "orders"}, {"odd", "a\nb=c"}}};
  InstanceRecord read;
  ASSERT_TRUE(DecodeRecord(EncodeRecord(record), read));
  EXPECT_EQ(read.id, record.id);
  EXPECT_EQ(read.executable, record.executable);
  EXPECT_EQ(read.boot_id, record.boot_id);
  EXPECT_EQ(read.uid, record.uid);
  EXPECT_EQ(read.graceful_signal, SIGINT);
  EXPECT_EQ(read.spawner.start_time, 8u);
  EXPECT_EQ(read.process.pid, 10);
  EXPECT_EQ(read.process.pidfd_inode, 12u);
  EXPECT_EQ(read.cgroup, record.cgroup);
  EXPECT_THAT(read.notes, UnorderedElementsAre(std::pair<std::string, std::string>("module", "orders"), std::pair<std::string, std::string>("odd", "a b=c")));
}

TEST(InstanceRecordTest, WhatIsNotWholeIsNoRecord) {
  const std::string whole = EncodeRecord({"orders.0.1", "/x", "boot", 0, 0, {}, {}, "", {}});
  InstanceRecord record;
  EXPECT_TRUE(DecodeRecord(whole, record));
  for (size_t size = 0; size < whole.size(); ++size) EXPECT_FALSE(DecodeRecord(whole.substr(0, size), record)) << size;
  EXPECT_FALSE(DecodeRecord("something else\n" + whole, record));
  EXPECT_FALSE(DecodeRecord(EncodeRecord({"../x", "/x", "boot", 0, 0, {}, {}, "", {}}), record));
}

TEST(ProcessIdentityTest, ATwinInNumberIsToldByItsStart) {
  const ProcessIdentity self = IdentityOf(getpid());
  EXPECT_GT(self.start_time, 0u);
  EXPECT_EQ(IdentityOf(getpid()).start_time, self.start_time);
  EXPECT_EQ(IdentityOf(0x7ffffff0).start_time, 0u);
}

class JournaledSpawnerTest : public testing::TestWithParam<bool> {
 protected:
  Spawner::Options Options() {
    Spawner::Options options = Spawned::MakeOptions(GetParam());
    options.journal = scratch.Path();
    return options;
  }
  ScratchFolder scratch;
};
INSTANTIATE_TEST_SUITE_P(Tracking, JournaledSpawnerTest, testing::Bool(), [](const auto& info) { return info.param ? "Cgroup" : "Keeper"; });

TEST_P(JournaledSpawnerTest, AChildIsOnDiskWhileItsTreeLives) {
  Spawned on(Options());
  SpawnSpec spec = Spawned::Script("orders.0.1", "sleep 100 & exec sleep 100");
  spec.notes = {{"module", "orders"}};
  auto process = on.Spawn(std::move(spec));
  ASSERT_TRUE(process.ok()) << process.status();
  const InstanceRecord record = RecordOf(scratch.Path(), "orders.0.1");
  EXPECT_EQ(record.process.pid, process->pid);
  EXPECT_EQ(record.process.start_time, IdentityOf(process->pid).start_time);
  EXPECT_EQ(record.spawner.pid, on.spawner->pid());
  EXPECT_EQ(record.boot_id, BootId());
  EXPECT_EQ(record.uid, geteuid());
  EXPECT_THAT(record.notes, UnorderedElementsAre(std::pair<std::string, std::string>("module", "orders")));
  on.KillTree("orders.0.1");
  EXPECT_THAT(FilesIn(scratch.Path()), IsEmpty());
}

TEST_P(JournaledSpawnerTest, OneThatCouldNotBeStartedLeavesNoRecord) {
  Spawned on(Options());
  SpawnSpec spec = Spawned::Script("orders.0.1", "");
  spec.executable = "/nonexistent";
  EXPECT_FALSE(on.Spawn(std::move(spec)).ok());
  EXPECT_TRUE(RunUntil(on.loop, [&] { return FilesIn(scratch.Path()).empty(); }));
}

TEST_P(JournaledSpawnerTest, WhatHadToBeKilledIsNamed) {
  Spawned on(Options());
  std::map<std::string, std::vector<KilledProcess>> killed;
  on.spawner->OnKilled([&](const std::string& id, const std::vector<KilledProcess>& processes) { killed[id] = processes; });
  Output out;
  auto process = on.Spawn(Spawned::Script("orders.0.1", "trap '' TERM; setsid sleep 100 & echo $!; wait; sleep 100", &out));
  ASSERT_TRUE(process.ok()) << process.status();
  const std::string grandchild = out.Line();
  on.spawner->Signal("orders.0.1", SIGKILL);
  on.Exit("orders.0.1");
  on.KillTree("orders.0.1");
  ASSERT_THAT(killed["orders.0.1"], SizeIs(2));
  EXPECT_EQ(killed["orders.0.1"][0].name, std::to_string(process->pid) + " sh");
  EXPECT_TRUE(killed["orders.0.1"][0].main);
  EXPECT_THAT(killed["orders.0.1"][1].name, StartsWith(grandchild + " "));  // setsid, or sleep already
  EXPECT_FALSE(killed["orders.0.1"][1].main);
}

TEST_P(JournaledSpawnerTest, OfATreeThatEndedByItselfNothingIsNamed) {
  Spawned on(Options());
  bool told = false;
  on.spawner->OnKilled([&](const std::string&, const std::vector<KilledProcess>&) { told = true; });
  ASSERT_TRUE(on.Spawn(Spawned::Script("orders.0.1", "exit 0")).ok());
  on.Exit("orders.0.1");
  on.KillTree("orders.0.1");
  EXPECT_FALSE(told);
}

TEST_P(JournaledSpawnerTest, TheEndOfTheSpawnerIsToldWithItsCauseAndItsChildrenEnd) {
  Spawned on(Options());
  auto process = on.Spawn(Spawned::Script("orders.0.1", "exec sleep 100"));
  ASSERT_TRUE(process.ok());
  std::string how;
  on.spawner->OnLost([&](const std::string& said) { how = said; });
  kill(on.spawner->pid(), SIGKILL);
  EXPECT_TRUE(RunUntil(on.loop, [&] { return !how.empty(); }));
  EXPECT_EQ(how, "it was ended by signal 9");
  EXPECT_TRUE(RunUntil(on.loop, [&] { return Gone(process->pid); }));
}

TEST_P(JournaledSpawnerTest, WhatAKilledSpawnerLeftIsNamedAndEndedByTheNextLife) {
  Output out;
  pid_t main = 0;
  {
    Spawned on(Options());
    SpawnSpec spec = Spawned::Script("orders.0.1", "setsid sh -c 'echo $$; exec >&-; exec sleep 100' & wait", &out);
    spec.env.emplace_back(kInstanceVariable, "orders.0.1");
    spec.notes = {{"module", "orders"}};
    auto process = on.Spawn(std::move(spec));
    ASSERT_TRUE(process.ok());
    main = process->pid;
    const bool in_cgroup = !RecordOf(scratch.Path(), "orders.0.1").cgroup.empty();
    on.spawner->OnLost([&](const std::string&) {});
    // Its grandchild has left group, session and parents behind: the death of the spawner does not reach it.
    const pid_t grandchild = static_cast<pid_t>(std::stoi(out.Line()));
    kill(on.spawner->pid(), SIGKILL);
    EXPECT_TRUE(RunUntil(on.loop, [&] { return Gone(main); }));
    const bool orphaned = in_cgroup;  // a keeper ends its tree by itself
    if (orphaned) {
      EXPECT_FALSE(Gone(grandchild));
    }
    auto left = EndLeftovers(Patient(scratch));
    EXPECT_TRUE(RunUntil(on.loop, [&] { return Gone(grandchild); }));
    if (orphaned) {
      ASSERT_THAT(left, SizeIs(1));
      EXPECT_EQ(left[0].id, "orders.0.1");
      EXPECT_THAT(left[0].ended, UnorderedElementsAre(testing::AnyOf(std::to_string(grandchild) + " sleep", std::to_string(grandchild) + " sh")));
      EXPECT_THAT(left[0].left, IsEmpty());
    }
  }
  EXPECT_THAT(FilesIn(scratch.Path()), IsEmpty());
}

class LeftoversTest : public testing::Test {
 protected:
  void Write(const std::string& id, const ProcessIdentity& process, const std::string& boot = BootId(), int graceful = 0) {
    auto journal = InstanceJournal::Open(scratch.Path());
    ASSERT_TRUE(journal.ok());
    ASSERT_TRUE(journal->Write({id, "/bin/sh", boot, geteuid(), graceful, {}, process, "", {}}).ok());
  }
  ScratchFolder scratch;
};

TEST_F(LeftoversTest, ANumberThatAnotherProcessHasByNowIsNotSignalled) {
  const pid_t pid = Orphan("exec sleep 100");
  ProcessIdentity identity = IdentityOf(pid);
  identity.start_time += 1;
  Write("orders.0.1", identity);
  EXPECT_THAT(EndLeftovers(Patient(scratch)), IsEmpty());
  EXPECT_TRUE(Alive(pid));
  EXPECT_THAT(FilesIn(scratch.Path()), IsEmpty()) << "and it is forgotten";
  End(pid);
}

TEST_F(LeftoversTest, ARecordOfAnotherBootNamesNobody) {
  const pid_t pid = Orphan("exec sleep 100", {std::string(kInstanceVariable) + "=orders.0.1"});
  Write("orders.0.1", IdentityOf(pid), "another-boot");
  EXPECT_THAT(EndLeftovers(Patient(scratch)), IsEmpty());
  EXPECT_TRUE(Alive(pid));
  EXPECT_THAT(FilesIn(scratch.Path()), IsEmpty());
  End(pid);
}

TEST_F(LeftoversTest, AnIntentIsEnoughToFindWhatWasStarted) {
  const pid_t pid = Orphan("exec sleep 100", {std::string(kInstanceVariable) + "=orders.0.1"});
  const pid_t other = Orphan("exec sleep 100", {std::string(kInstanceVariable) + "=orders.0.12"});
  Write("orders.0.1", {});
  auto left = EndLeftovers(Patient(scratch));
  ASSERT_THAT(left, SizeIs(1));
  EXPECT_THAT(left[0].ended, UnorderedElementsAre(std::to_string(pid) + " sleep"));
  EXPECT_TRUE(Gone(pid));
  EXPECT_TRUE(Alive(other));
  End(other);
}

TEST_F(LeftoversTest, OneThatWantsAGracefulEndGetsItsSignalFirst) {
  const std::string mark = scratch.Path() + "-ended";
  const pid_t pid = Orphan("trap 'echo gently > " + mark + "; exit 0' INT; echo waits > " + mark + "; while :; do sleep 0.05; done");
  while (Alive(pid) && ReadFile(mark).value_or("") != "waits\n") std::this_thread::yield();
  Write("postgres.1", IdentityOf(pid), BootId(), SIGINT);
  auto left = EndLeftovers(Patient(scratch));
  ASSERT_THAT(left, SizeIs(1));
  EXPECT_EQ(ReadFile(mark).value_or(""), "gently\n");
  std::filesystem::remove(mark);
}

TEST_F(LeftoversTest, AHalfWrittenFileAndALinkAreNoRecords) {
  std::ofstream(scratch.Path("half")) << "bulkhead-instance 1\ninstance=ha";
  std::filesystem::create_symlink("/etc/hostname", scratch.Path("link"));
  EXPECT_THAT(EndLeftovers(Patient(scratch)), IsEmpty());
  EXPECT_THAT(FilesIn(scratch.Path()), UnorderedElementsAre("link"));
}

TEST_F(LeftoversTest, WhereThereIsNoJournalThereIsNothingToEnd) {
  EXPECT_THAT(EndLeftovers({.folder = scratch.Path("nowhere")}), IsEmpty());
}

}  // namespace
}  // namespace bulkhead
