// The private server with the real spawner: initdb, start, kill -9, restart, stop. As root it runs once more as another user,
// because the two differ in who owns what and how the daemon logs in.
#include "supervisor/store/postgres.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pwd.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "supervisor/base/status.h"
#include "supervisor/store/database.h"
#include "supervisor/store/migrations.h"
#include "supervisor/store/registry.h"
#include "tests/fakes/postgres_fixture.h"

namespace bulkhead {
namespace {

using ::testing::HasSubstr;
using namespace std::chrono_literals;

constexpr Millis kPatience{60'000};  // before a test is given up

// A daemon's data folder with a spawner and a loop.
class PrivatePostgresTest : public ::testing::Test {
 protected:
  void SetUp() override {
    data_ = TestPostgres::ScratchFolder() + "/bulkhead-private-XXXXXX";
    ASSERT_NE(mkdtemp(data_.data()), nullptr);
    chmod(data_.c_str(), 0711);
    std::filesystem::create_directory(data_ + "/run");
    std::filesystem::create_directory(data_ + "/secrets");
    chmod((data_ + "/run").c_str(), 0711);
    chmod((data_ + "/secrets").c_str(), 0700);
    spawner_ = Fork();
    spawner_->Attach(loop_);
  }

  void TearDown() override {
    if (postgres_) Stop();
    postgres_.reset();
    spawner_.reset();
    std::filesystem::remove_all(data_);
  }

  static void TearDownTestSuite() {
    if (!made_.empty()) std::filesystem::remove_all(made_);
  }

  // A data folder whose cluster was made and stopped before: initdb once is enough for all tests that are not about it.
  void UseMadeCluster() {
    if (made_.empty()) {
      ASSERT_TRUE(Start().ok());
      Stop();
      postgres_.reset();
      made_ = data_ + "-made";
      ASSERT_EQ(std::system(("cp -a " + data_ + " " + made_).c_str()), 0);
      return;
    }
    ASSERT_EQ(std::system(("rm -rf " + data_ + " && cp -a " + made_ + " " + data_).c_str()), 0);
  }

  std::unique_ptr<Spawner> Fork() {
    auto spawner = Spawner::Fork({.cgroup_name = "bulkhead-postgres-test-" + std::to_string(getpid())});
    EXPECT_TRUE(spawner.ok()) << spawner.status();
    return *std::move(spawner);
  }

  PrivatePostgresOptions Options() const {
    return {.data_dir = data_ + "/postgres", .socket_dir = data_ + "/run/pg", .secrets_dir = data_ + "/secrets", .privileged = geteuid() == 0};
  }

  // Runs the loop until `done` was called with a T.
  template <typename T>
  T Await(const std::function<void(std::function<void(T)>)>& begin) {
    std::optional<T> result;
    begin([&](T value) {
      result = std::move(value);
      loop_.Stop();
    });
    RunLoop();
    EXPECT_TRUE(result.has_value()) << "no answer";
    return result.value_or(T());
  }
  void RunLoop() {
    const Loop::TimerId patience = loop_.After(kPatience, [this] { loop_.Stop(); });
    loop_.Run();
    loop_.Cancel(patience);
  }

  absl::Status Start() { return Start(Options()); }
  absl::Status Start(PrivatePostgresOptions options) {
    postgres_ = std::make_unique<PrivatePostgres>(loop_, *spawner_, std::move(options));
    return Await<absl::Status>([this](auto done) { postgres_->Start(done); });
  }
  void Stop() {
    EXPECT_TRUE(Await<bool>([this](auto done) { postgres_->Stop([done] { done(true); }); }));
  }
  // Lets the loop work until `condition` holds.
  bool Eventually(const std::function<bool()>& condition) {
    const Instant deadline = Clock::Real().Now() + kPatience;
    while (!condition()) {
      if (Clock::Real().Now() > deadline) return false;
      loop_.After(5ms, [this] { loop_.Stop(); });
      loop_.Run();
    }
    return true;
  }
  pid_t Postmaster() {
    std::ifstream file(data_ + "/postgres/postmaster.pid");
    pid_t pid = 0;
    file >> pid;
    return pid;
  }
  static inline std::string made_;
  std::string data_;
  Loop loop_;
  std::unique_ptr<Spawner> spawner_;
  std::unique_ptr<PrivatePostgres> postgres_;
};

TEST_F(PrivatePostgresTest, IsMadeOnFirstUseKeepsItsDataAndLeavesNothingRunning) {
  ASSERT_TRUE(Start().ok());
  {
    Database database(postgres_->conninfo(), 1);
    ASSERT_TRUE(database.Run("CREATE TABLE kept AS SELECT 42 AS n").ok());
    auto rows = database.Run("SELECT current_user AS me, current_database() AS db, current_setting('listen_addresses') AS net, "
                             "current_setting('TimeZone') AS tz, pg_encoding_to_char(encoding) AS encoding FROM pg_database WHERE datname = 'bulkhead'");
    ASSERT_TRUE(rows.ok()) << rows.status();
    EXPECT_EQ(rows->Text(0, "me"), "bulkhead");
    EXPECT_EQ(rows->Text(0, "db"), "bulkhead");
    EXPECT_EQ(rows->Text(0, "net"), "");
    EXPECT_EQ(rows->Text(0, "tz"), "UTC");
    EXPECT_EQ(rows->Text(0, "encoding"), "UTF8");
  }
  const pid_t first = Postmaster();
  ASSERT_GT(first, 0);
  Stop();
  EXPECT_EQ(kill(first, 0), -1);
  EXPECT_FALSE(std::filesystem::exists(data_ + "/postgres.new"));

  const Instant begin = Clock::Real().Now();
  ASSERT_TRUE(Start().ok());
  EXPECT_LT(Clock::Real().Now() - begin, 5s);
  Database database(postgres_->conninfo(), 1);
  EXPECT_EQ(database.Run("SELECT n FROM kept")->Int(0, "n"), 42);
}

TEST_F(PrivatePostgresTest, IsRestartedWhenItIsKilledAndThePoolFindsItAgain) {
  UseMadeCluster();
  ASSERT_TRUE(Start().ok());
  Database database(postgres_->conninfo(), 2);
  ASSERT_TRUE(database.Run("CREATE TABLE kept AS SELECT 1 AS n").ok());
  for (int round = 0; round < 2; ++round) {
    const pid_t victim = Postmaster();
    ASSERT_GT(victim, 0);
    ASSERT_EQ(kill(victim, SIGKILL), 0);
    ASSERT_TRUE(Eventually([&] { return Postmaster() != victim && database.Run("SELECT n FROM kept").ok(); }));
  }
}

TEST_F(PrivatePostgresTest, LetsModulesInByPasswordOnlyAndOnlyAsThemselves) {
  UseMadeCluster();
  ASSERT_TRUE(Start().ok());
  Database database(postgres_->conninfo(), 2);
  ASSERT_TRUE(Migrate(database, "bulkhead", postgres_->conninfo(), OwnMigrations()).ok());
  Registry registry(database, std::string(32, 'k'));
  ASSERT_TRUE(registry.Open().ok());
  auto schema = registry.EnsureSchema("orders", 4, {});
  ASSERT_TRUE(schema.ok()) << schema.status();
  auto login = Connection::Open(schema->conninfo);
  ASSERT_TRUE(login.ok()) << login.status();
  EXPECT_TRUE((*login)->Run("CREATE TABLE t (n int)").ok());
  EXPECT_FALSE(Connection::Open(schema->conninfo + " password=wrong").ok());
  for (const char* other : {"postgres", "template1"}) EXPECT_FALSE(Connection::Open(schema->conninfo + " dbname=" + other).ok()) << other;
  if (geteuid() != 0) {
    EXPECT_FALSE(Connection::Open("host=" + data_ + "/run/pg user=bulkhead dbname=bulkhead").ok());
    struct stat info;
    ASSERT_EQ(stat((data_ + "/secrets/postgres.password").c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0600u);
  }
}

TEST_F(PrivatePostgresTest, ItsFoldersAreClosedAndItsSocketIsReachable) {
  UseMadeCluster();
  ASSERT_TRUE(Start().ok());
  struct stat info;
  ASSERT_EQ(stat((data_ + "/postgres").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
  if (geteuid() == 0) {
    EXPECT_EQ(info.st_uid, getpwnam("postgres")->pw_uid);
  }
  ASSERT_EQ(stat((data_ + "/run/pg").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0711u);
  ASSERT_EQ(stat((data_ + "/run/pg/.s.PGSQL.5432").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0777u);
}

TEST_F(PrivatePostgresTest, StoppedWhileItIsBeingMadeItEndsAndTheNextStartBeginsAnew) {
  for (const Millis after : {1ms, 50ms, 300ms}) {
    postgres_ = std::make_unique<PrivatePostgres>(loop_, *spawner_, Options());
    absl::Status ready;
    bool stopped = false;
    postgres_->Start([&](absl::Status status) { ready = status; });
    loop_.After(after, [&] {
      postgres_->Stop([&] {
        stopped = true;
        loop_.Stop();
      });
    });
    RunLoop();
    EXPECT_TRUE(stopped);
    EXPECT_EQ(ErrorCode(ready), "SHUTTING_DOWN") << ready;
  }
  EXPECT_TRUE(Start().ok());
}

TEST_F(PrivatePostgresTest, AServerOfAnEarlierLifeThatEndsIsWaitedFor) {
  UseMadeCluster();
  ASSERT_TRUE(Start().ok());
  const pid_t earlier = Postmaster();
  Database holder(postgres_->conninfo(), 1);
  ASSERT_TRUE(holder.Run("SELECT 1").ok());

  auto second_spawner = Spawner::Fork({.cgroup_name = "bulkhead-postgres-test-second-" + std::to_string(getpid())});
  ASSERT_TRUE(second_spawner.ok());
  (*second_spawner)->Attach(loop_);
  PrivatePostgres second(loop_, **second_spawner, Options());
  loop_.After(300ms, [this] { postgres_->Stop([] {}); });
  const absl::Status ready = Await<absl::Status>([&](auto done) { second.Start(done); });
  EXPECT_TRUE(ready.ok()) << ready;
  EXPECT_NE(Postmaster(), earlier);
  EXPECT_TRUE(holder.Run("SELECT 1").ok());
  EXPECT_TRUE(Await<bool>([&](auto done) { second.Stop([done] { done(true); }); }));
  postgres_.reset();
}

TEST_F(PrivatePostgresTest, ABrokenClusterIsAnErrorWithTheServersOwnWords) {
  std::filesystem::create_directory(data_ + "/postgres");
  chmod((data_ + "/postgres").c_str(), 0700);
  if (const passwd* user = getpwnam("postgres"); geteuid() == 0) {
    ASSERT_EQ(chown((data_ + "/postgres").c_str(), user->pw_uid, user->pw_gid), 0);
  }
  const absl::Status status = Start();
  EXPECT_EQ(ErrorCode(status), "POSTGRES_FAILED");
  EXPECT_THAT(std::string(status.message()), HasSubstr("could not access the server configuration file"));
}

TEST_F(PrivatePostgresTest, WhatStandsInItsWayIsNamed) {
  PrivatePostgresOptions options = Options();
  options.bin_dir = data_;
  absl::Status status = Start(options);
  EXPECT_EQ(ErrorCode(status), "POSTGRES_FAILED");
  EXPECT_THAT(std::string(status.message()), HasSubstr(data_));

  options = Options();
  options.socket_dir = data_ + "/" + std::string(100, 'x');
  status = Start(options);
  EXPECT_EQ(ErrorCode(status), "POSTGRES_FAILED");
  EXPECT_THAT(std::string(status.message()), HasSubstr("socket folder"));
}

TEST_F(PrivatePostgresTest, EndsWithTheSpawnerWhenTheDaemonIsGone) {
  UseMadeCluster();
  ASSERT_TRUE(Start().ok());
  const pid_t server = Postmaster();
  postgres_.reset();
  spawner_.reset();  // as if the daemon had been killed: the spawner sees the end of file, and stops it
  EXPECT_EQ(kill(server, 0), -1);
  EXPECT_FALSE(std::filesystem::exists(data_ + "/postgres/postmaster.pid"));
}

// All of the above once more without root, in a process of its own.
TEST(PrivatePostgresWithoutRoot, DoesTheSameAsAPlainUser) {
  const passwd* user = getpwnam("postgres");
  if (geteuid() != 0 || !user) GTEST_SKIP() << "not root: the tests above ran as a plain user already";
  const int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  ASSERT_GE(self, 0);
  const pid_t child = fork();
  if (child == 0) {
    const char* argv[] = {"postgres_test", "--gtest_filter=PrivatePostgresTest.*", "--gtest_brief=1", nullptr};
    const char* envp[] = {"PATH=/usr/bin:/bin", nullptr};
    if (setgid(user->pw_gid) != 0 || setuid(user->pw_uid) != 0 || chdir("/") != 0) _exit(126);
    fexecve(self, const_cast<char**>(argv), const_cast<char**>(envp));
    _exit(127);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  close(self);
}

}  // namespace
}  // namespace bulkhead
