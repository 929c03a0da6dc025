#include "supervisor/process/uid_range.h"

#include <sys/stat.h>

#include "supervisor/base/status.h"
#include "tests/unit/process/spawned.h"

namespace bulkhead {
namespace {

// The claims of a machine of its own, with three ranges of a thousand uids.
class Machine {
 public:
  UidOptions Options(const std::string& data, const std::string& hash) const {
    std::filesystem::create_directories(scratch_.Path(data));
    UidOptions options;
    options.data_dir = scratch_.Path(data);
    options.hash = hash;
    options.claims = scratch_.Path("run/uids");
    options.base = 700'000;
    options.size = 1'000;
    options.ranges = 3;
    options.wait = Millis(50);
    return options;
  }
  std::string Path(const std::string& name) const { return scratch_.Path(name); }

 private:
  ScratchFolder scratch_;
};

std::string Tell(const absl::StatusOr<UidClaim>& claim) {
  if (!claim.ok()) return ErrorCode(claim.status()) + ": " + std::string(claim.status().message());
  return std::to_string(claim->range.first) + "-" + std::to_string(claim->range.last);
}

// A process of its own that claims, says so and lingers for a while.
class Claimant {
 public:
  Claimant(const UidOptions& options, Millis linger) {
    auto ends = MakeLogPipe();
    pid_ = fork();
    if (pid_ == 0) {
      auto claim = ClaimUids(options);
      const std::string said = Tell(claim);
      (void)!write(ends->second.get(), said.data(), said.size());
      std::this_thread::sleep_for(linger);
      _exit(0);
    }
    ends->second.Reset();
    fcntl(ends->first.get(), F_SETFL, 0);
    char text[512];
    ssize_t size = read(ends->first.get(), text, sizeof text);
    said_.assign(text, size > 0 ? static_cast<size_t>(size) : 0);
  }
  ~Claimant() { End(); }
  void End() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(std::exchange(pid_, 0), nullptr, 0);
  }
  const std::string& said() const { return said_; }
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = 0;
  std::string said_;
};

TEST(UidRange, TwoDaemonsNeverHaveTheSameUidsEvenWhereTheirFoldersAskForThem) {
  Machine machine;
  auto one = ClaimUids(machine.Options("one", "00000001")), two = ClaimUids(machine.Options("two", "00000001"));
  EXPECT_EQ(Tell(one), "701000-701999");
  EXPECT_EQ(Tell(two), "702000-702999");
  EXPECT_EQ(Tell(ClaimUids(machine.Options("three", "00000002"))), "700000-700999");  // round the end
}

TEST(UidRange, AFolderKeepsTheRangeThatItHad) {
  Machine machine;
  const UidOptions first = machine.Options("one", "00000001"), second = machine.Options("two", "00000001");
  {
    auto one = ClaimUids(first), two = ClaimUids(second);
    ASSERT_EQ(Tell(two), "702000-702999");
  }
  auto two = ClaimUids(second);
  EXPECT_EQ(Tell(two), "702000-702999");
  EXPECT_EQ(Tell(ClaimUids(first)), "701000-701999");
}

TEST(UidRange, WhenAllRangesAreTakenTheErrorSaysWhatToDo) {
  Machine machine;
  auto one = ClaimUids(machine.Options("one", "00000000")), two = ClaimUids(machine.Options("two", "00000001")),
       three = ClaimUids(machine.Options("three", "00000002"));
  EXPECT_EQ(Tell(ClaimUids(machine.Options("four", "00000003"))),
            "UIDS_TAKEN: all 3 ranges of user ids for modules, from 700000 on, are held by other supervisors: stop one, or set isolation.uids "
            "to a free range");
}

TEST(UidRange, AConfiguredRangeIsTakenWholeOrNotAndTheHolderIsNamed) {
  Machine machine;
  UidOptions one = machine.Options("one", "00000001"), two = machine.Options("two", "0000000a");
  one.configured = {700'500, 701'500};  // within two of the others
  two.configured = {701'500, 701'600};
  auto held = ClaimUids(one);
  ASSERT_EQ(Tell(held), "700500-701500");
  EXPECT_EQ(Tell(ClaimUids(two)), "UIDS_TAKEN: isolation.uids 701500-701600 overlaps 700500-701500 of another supervisor (00000001 pid " +
                                      std::to_string(getpid()) + ", data folder " + one.data_dir +
                                      "): give each of them a range of its own, or leave it out");
  two.configured = {701'501, 701'600};
  EXPECT_EQ(Tell(ClaimUids(two)), "701501-701600");
  EXPECT_EQ(Tell(ClaimUids(machine.Options("three", "00000000"))), "702000-702999") << "none that overlaps a configured one";
}

TEST(UidRange, AClaimEndsWithTheLastProcessThatHoldsIt) {
  Machine machine;
  Claimant claimant(machine.Options("one", "00000001"), kTestPatience);
  ASSERT_EQ(claimant.said(), "701000-701999");
  EXPECT_EQ(Tell(ClaimUids(machine.Options("two", "00000001"))), "702000-702999");
  claimant.End();  // by SIGKILL
  auto again = ClaimUids(machine.Options("three", "00000001"));
  EXPECT_EQ(Tell(again), "701000-701999");
  UniqueFd copy(dup(again->held.get()));  // as the spawner has one
  again->held.Reset();
  EXPECT_EQ(Tell(ClaimUids(machine.Options("four", "00000001"))), "702000-702999");
}

TEST(UidRange, TheSpawnerHoldsItUntilTheLastChildIsGone) {
  Machine machine;
  auto claim = ClaimUids(machine.Options("one", "00000001"));
  Spawner::Options options;
  options.use_cgroups = false;
  options.keep_open = claim->held.get();
  auto spawner = Spawner::Fork(options);
  ASSERT_TRUE(spawner.ok()) << spawner.status();
  claim->held.Reset();  // as when the daemon is killed
  EXPECT_EQ(Tell(ClaimUids(machine.Options("two", "00000001"))), "702000-702999");
  const pid_t pid = (*spawner)->pid();
  spawner->reset();
  waitpid(pid, nullptr, 0);
  EXPECT_EQ(Tell(ClaimUids(machine.Options("three", "00000001"))), "701000-701999");
}

TEST(UidRange, ASuccessorWaitsForWhatItsPredecessorLeftAndNotForOthers) {
  Machine machine;
  UidOptions options = machine.Options("one", "00000001");
  Claimant claimant(options, Millis(300));
  ASSERT_EQ(claimant.said(), "701000-701999");
  EXPECT_EQ(Tell(ClaimUids(options)), "702000-702999") << "it does not wait for ever";
  std::filesystem::remove(options.data_dir + "/uids");
  options.wait = kTestPatience;
  EXPECT_EQ(Tell(ClaimUids(options)), "701000-701999");
  Claimant other(machine.Options("two", "00000001"), kTestPatience);
  options.hash = "00000004";  // wants the same range, and is another one
  const Instant before = Clock::Real().Now();
  EXPECT_EQ(Tell(ClaimUids(options)), "702000-702999");
  EXPECT_LT(Clock::Real().Now() - before, kTestPatience / 2);
}

TEST(UidRange, WhatTheDataFolderAsksForIsARangeOfOurs) {
  Machine machine;
  const UidOptions options = machine.Options("one", "00000001");
  const std::string file = options.data_dir + "/uids";
  for (const char* text : {"0-999\n", "1-4294967295\n", "700001-701000\n", "702000-702998\n", "699000-699999\n", "garbage", "", "702000", "-1--1\n"}) {
    std::ofstream(file) << text;
    EXPECT_EQ(Tell(ClaimUids(options)), "701000-701999") << text;
  }
  std::ofstream(file) << "702000-702999\n";
  EXPECT_EQ(Tell(ClaimUids(options)), "702000-702999");
  std::filesystem::remove(file);
  ASSERT_EQ(mkfifo(file.c_str(), 0600), 0);
  EXPECT_EQ(Tell(ClaimUids(options)), "701000-701999");
  std::ofstream(machine.Path("other")) << "702000-702999\n";
  std::filesystem::remove(file);
  std::filesystem::create_symlink(machine.Path("other"), file);
  EXPECT_EQ(Tell(ClaimUids(options)), "701000-701999") << "a link is not followed";
  std::ifstream other(machine.Path("other"));
  std::string untouched;
  EXPECT_TRUE(std::getline(other, untouched) && untouched == "702000-702999");
}

TEST(UidRange, ClaimsThatCantBeKeptAreAnError) {
  Machine machine;
  UidOptions options = machine.Options("one", "00000001");
  std::ofstream(machine.Path("run")) << "a file where the folder should be";
  EXPECT_EQ(Tell(ClaimUids(options)).substr(0, 13), "DATA_UNUSABLE");
  EXPECT_NE(Tell(ClaimUids(options)).find("a folder that root can write"), std::string::npos);
}

uid_t OwnerOf(const std::string& path) {
  struct stat info {};
  EXPECT_EQ(lstat(path.c_str(), &info), 0) << path;
  return info.st_uid;
}

// The folders of two modules, of the places 3 and 4, with all kinds of things in them.
class Owners : public ::testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "only root gives files away";
    std::ofstream(options_.data_dir + "/uids") << "701000-701999\n";
    for (auto [name, uid] : {std::pair{"a", 701'003}, {"b", 701'004}}) {
      const std::string folder = Module(name);
      std::filesystem::create_directories(folder + "/deep/deeper");
      std::ofstream(folder + "/deep/deeper/file") << "x";
      std::ofstream(folder + "/of-root") << "x";
      std::filesystem::create_symlink(machine_.Path("outside"), folder + "/link");
      for (const char* path : {"", "/deep", "/deep/deeper", "/deep/deeper/file", "/link"}) Give(folder + path, static_cast<uid_t>(uid));
    }
    std::ofstream(machine_.Path("outside")) << "x";
    Give(machine_.Path("outside"), 701'003);  // only its link is in the folder
    std::filesystem::create_hard_link(Module("b") + "/deep/deeper/file", Module("a") + "/of-b");
  }
  std::string Module(const std::string& name) const { return options_.data_dir + "/modules/" + name; }
  static void Give(const std::string& path, uid_t uid) { ASSERT_EQ(lchown(path.c_str(), uid, uid), 0) << path; }
  void ExpectMoved(uid_t a, uid_t b) {
    for (const char* path : {"", "/deep", "/deep/deeper", "/deep/deeper/file", "/link"}) {
      EXPECT_EQ(OwnerOf(Module("a") + path), a) << path;
      EXPECT_EQ(OwnerOf(Module("b") + path), b) << path;
    }
    EXPECT_EQ(OwnerOf(Module("a") + "/of-root"), 0u);
    EXPECT_EQ(OwnerOf(Module("a") + "/of-b"), b) << "not a's, whoever linked it";
    EXPECT_EQ(OwnerOf(machine_.Path("outside")), 701'003u) << "no link is followed";
  }

  Machine machine_;
  UidOptions options_ = machine_.Options("one", "00000001");
};

TEST_F(Owners, TheFilesOfTheModulesFollowWhenTheRangeIsAnotherOne) {
  Claimant other(machine_.Options("two", "00000001"), kTestPatience);
  ASSERT_EQ(other.said(), "701000-701999");
  ASSERT_EQ(Tell(ClaimUids(options_)), "702000-702999");
  ExpectMoved(702'003, 702'004);
  ASSERT_EQ(Tell(ClaimUids(options_)), "702000-702999");  // nothing to do
  ExpectMoved(702'003, 702'004);
  options_.configured = {800'000, 800'003};  // no place for b
  ASSERT_EQ(Tell(ClaimUids(options_)), "800000-800003");
  EXPECT_EQ(OwnerOf(Module("a") + "/deep/deeper/file"), 800'003u);
  EXPECT_EQ(OwnerOf(Module("b") + "/deep/deeper/file"), 702'004u) << "it keeps what it has";
  options_.configured = {800'000, 800'004};  // one more
  ASSERT_EQ(Tell(ClaimUids(options_)), "800000-800004");
  ExpectMoved(800'003, 800'004);
}

TEST_F(Owners, AChangeThatWasInterruptedIsFinishedByTheNextOne) {
  // On the way to the range from 702000 on: some of a is there, its folder is not, and b is there with its folder but for one file.
  std::ofstream(options_.data_dir + "/uids") << "701000-701999\n702000-702999\n";
  Give(Module("a") + "/deep/deeper/file", 702'003);
  Give(Module("b"), 702'004);
  Give(Module("b") + "/link", 702'004);
  options_.configured = {900'000, 900'999};
  ASSERT_EQ(Tell(ClaimUids(options_)), "900000-900999");
  ExpectMoved(900'003, 900'004);
}

}  // namespace
}  // namespace bulkhead
