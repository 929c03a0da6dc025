// Migrations while something is in the way: locks of others, limits, connections that break, indexes that were left half-made.
#include <gmock/gmock.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "supervisor/base/fd.h"
#include "tests/unit/store/migrated_module.h"

namespace bulkhead {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class MigrationTrouble : public MigratedModuleTest {
 protected:
  // Runs the files on a thread of its own; its result by join.
  struct Background {
    std::thread thread;
    absl::StatusOr<MigrationReport> report = absl::UnknownError("not run");
    ~Background() {
      if (thread.joinable()) thread.join();
    }
    const absl::StatusOr<MigrationReport>& Join() {
      thread.join();
      return report;
    }
  };
  std::unique_ptr<Background> Start(const std::vector<MigrationFile>& files, std::string login = "") {
    auto background = std::make_unique<Background>();
    background->thread = std::thread([this, files, login = login.empty() ? schema_.conninfo : login, b = background.get()] {
      b->report = Migrate(admin_, "orders", login, files);
    });
    return background;
  }
  std::string MigrationLock() { return "SELECT pg_advisory_lock(1651862635, hashtext('orders'))"; }
};

TEST_F(MigrationTrouble, WhoHoldsTheMigrationLockIsNamedWithPidNameAndQuery) {
  auto holder = Connection::Open(conninfo_ + " application_name=deploy-script");
  ASSERT_TRUE((*holder)->Run(MigrationLock()).ok());
  const std::string pid = (*holder)->Run("SELECT pg_backend_pid() AS pid, 'busy with it'")->Text(0, "pid");
  auto refused = Run({File("001_a.sql", "CREATE TABLE a (n int)")}, {.lock_wait = Millis(200)});
  ASSERT_EQ(ErrorCode(refused.status()), "MIGRATION_LOCKED") << refused.status();
  const std::string message(refused.status().message());
  for (const std::string& part : {"pid " + pid, std::string("deploy-script"), std::string("role bulkhead"), std::string("busy with it")}) {
    EXPECT_THAT(message, HasSubstr(part));
  }
  EXPECT_FALSE(Exists("a"));
  holder->reset();
  EXPECT_TRUE(Run({File("001_a.sql", "CREATE TABLE a (n int)")}).ok());
}

TEST_F(MigrationTrouble, AModuleThatTakesTheLockOfMigrationsLosesItsSession) {
  auto other = registry_.EnsureSchema("billing", 4, {});
  auto own = Login(), foreign = *Connection::Open(other->conninfo), shared = *Connection::Open(other->conninfo);
  ASSERT_TRUE(foreign->Run("SELECT pg_advisory_lock_shared(1651862635, hashtext('orders'))").ok());
  ASSERT_TRUE(shared->Run("SELECT pg_advisory_lock_shared(1651862635, hashtext('orders'))").ok());
  // One that waits would have it next.
  std::thread waits([&] { EXPECT_FALSE(own->Run(MigrationLock()).ok()); });
  AwaitSession("wait_event = 'advisory'");
  auto report = Run({File("001_a.sql", "CREATE TABLE a (n int)")}, {.lock_wait = Millis(10'000)});
  waits.join();
  EXPECT_TRUE(report.ok()) << report.status();
  EXPECT_FALSE(foreign->Run("SELECT 1").ok());
  // Nor that of the supervisor's own, which would keep every daemon from starting.
  auto against = *Connection::Open(other->conninfo);
  ASSERT_TRUE(against->Run("SELECT pg_advisory_lock(1651862635, hashtext('bulkhead'))").ok());
  EXPECT_TRUE(Migrate(admin_, "bulkhead", conninfo_, OwnMigrations(), {.lock_wait = Millis(10'000)}).ok());
  // Nor can it keep roles and schemas from being made: nothing there is locked by a key that it could take.
  auto again = *Connection::Open(other->conninfo);
  ASSERT_TRUE(again->Run("SELECT pg_advisory_lock(1651862635, 0)").ok());
  EXPECT_TRUE(registry_.EnsureSchema("shipping", 4, {}).ok());
}

TEST_F(MigrationTrouble, WhoHoldsATableIsNamedWhenTheWaitsForItAreOver) {
  ASSERT_TRUE(Run({File("001_a.sql", "CREATE TABLE a (n int)")}).ok());
  auto holder = Connection::Open(conninfo_ + " application_name=nightly-report");
  ASSERT_TRUE((*holder)->RunScript("BEGIN; LOCK TABLE " + schema_.schema + ".a").ok());
  const std::string pid = (*holder)->Run("SELECT pg_backend_pid() AS pid, 'still counting'")->Text(0, "pid");
  // The file lowers the lock timeout for itself, so that the test need not wait for the real one six times.
  auto refused = Run({File("001_a.sql", "CREATE TABLE a (n int)"),
                      File("002_b.sql", "SET LOCAL lock_timeout = '200ms';\nCREATE TABLE b (n int);\nALTER TABLE a ADD m int")});
  ASSERT_EQ(ErrorCode(refused.status()), "MIGRATION_FAILED") << refused.status();
  const ErrorDetail detail = ErrorDetails(refused.status())[0];
  EXPECT_EQ(detail.code, "55P03");
  EXPECT_EQ(detail.line, 3);
  for (const std::string& part : {"pid " + pid, std::string("nightly-report"), std::string("idle in transaction"), std::string("still counting")}) {
    EXPECT_THAT(detail.message, HasSubstr(part));
  }
  EXPECT_FALSE(Exists("b"));
}

TEST_F(MigrationTrouble, AStatementBeyondTheConfiguredLimitFailsAndTheLimitIsNamed) {
  auto refused = Run({File("001_a.sql", "CREATE TABLE a (n int);\nSELECT pg_sleep(60);")}, {.statement_timeout = Millis(200)});
  ASSERT_EQ(ErrorCode(refused.status()), "MIGRATION_FAILED");
  const ErrorDetail detail = ErrorDetails(refused.status())[0];
  EXPECT_EQ(detail.code, "57014");
  EXPECT_EQ(detail.line, 2);
  EXPECT_THAT(detail.message, HasSubstr("may take 200ms"));
  EXPECT_THAT(detail.message, HasSubstr("store.migrationTimeout"));
  EXPECT_FALSE(Exists("a"));
  // A file that knows better says so; and without a limit there is none, whatever the role's own is.
  EXPECT_TRUE(Run({File("001_a.sql", "SET LOCAL statement_timeout = 0; SELECT pg_sleep(0.4);")}, {.statement_timeout = Millis(200)}).ok());
  ASSERT_TRUE(admin_.Run("ALTER ROLE \"" + schema_.role + "\" SET statement_timeout = '100ms'").ok());
  EXPECT_TRUE(Run({File("001_a.sql", "SET LOCAL statement_timeout = 0; SELECT pg_sleep(0.4);"), File("002_b.sql", "SELECT pg_sleep(0.3)")},
                  {.statement_timeout = Millis(0)}).ok());
}

TEST_F(MigrationTrouble, AConnectionCutInTheMiddleLeavesNothingHalfDone) {
  const std::vector<MigrationFile> files = {File("001_a.sql", "CREATE TABLE a (n int); SELECT pg_sleep(60);")};
  auto running = Start(files);
  const int pid = AwaitSession("wait_event = 'PgSleep'");
  auto seen = InspectMigrations(admin_, "orders", files);
  ASSERT_TRUE(seen->running.has_value()) << "what runs is to be seen";
  EXPECT_EQ(seen->running->pid, pid);
  EXPECT_EQ(seen->running->file, "001_a.sql");
  ASSERT_TRUE(admin_.Run("SELECT pg_terminate_backend($1::int)", {std::to_string(pid)}).ok());
  auto& report = running->Join();
  EXPECT_EQ(ErrorCode(report.status()), "DATABASE_UNAVAILABLE") << report.status();
  EXPECT_THAT(std::string(report.status().message()), HasSubstr("001_a.sql"));
  EXPECT_FALSE(Exists("a"));
  EXPECT_EQ(History(), 0);
  EXPECT_FALSE(InspectMigrations(admin_, "orders", files)->running.has_value());
  EXPECT_TRUE(Run({File("001_a.sql", "CREATE TABLE a (n int)")}).ok());
}

TEST_F(MigrationTrouble, AConnectionCutBetweenStatementsWithoutATransactionGoesOnWhereItWas) {
  const std::string head = "-- bulkhead: no-transaction\nCREATE TABLE a (n int);\nINSERT INTO a VALUES (1);\n";
  auto running = Start({File("001_a.sql", head + "SELECT pg_sleep(60);")});
  const int pid = AwaitSession("wait_event = 'PgSleep'");
  ASSERT_TRUE(admin_.Run("SELECT pg_terminate_backend($1::int)", {std::to_string(pid)}).ok());
  EXPECT_EQ(ErrorCode(running->Join().status()), "DATABASE_UNAVAILABLE");
  auto overview = InspectMigrations(admin_, "orders", {File("001_a.sql", head + "SELECT pg_sleep(0);")});
  EXPECT_EQ(overview->files[0].state, MigrationState::kPartial);
  EXPECT_EQ(overview->files[0].done, 2);
  ASSERT_TRUE(Run({File("001_a.sql", head + "SELECT pg_sleep(0);")}).ok());
  EXPECT_EQ(Count(schema_.schema + ".a"), 1);
}

// Between the runner and the server: passes everything on, and leaves the runner alone once it has passed a COMMIT on.
class CommitEater {
 public:
  explicit CommitEater(const std::string& server) {
    char path[] = "/tmp/bh-eater-XXXXXX";
    folder_ = mkdtemp(path);
    listener_ = Listen(folder_ + "/.s.PGSQL.5432");
    thread_ = std::thread([this, server] { Pass(server + "/.s.PGSQL.5432"); });
  }
  ~CommitEater() {
    shutdown(listener_.get(), SHUT_RDWR);
    thread_.join();
    unlink((folder_ + "/.s.PGSQL.5432").c_str());
    rmdir(folder_.c_str());
  }
  const std::string& folder() const { return folder_; }
  bool ate() const { return ate_; }

 private:
  static sockaddr_un Address(const std::string& path) {
    sockaddr_un address{.sun_family = AF_UNIX};
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    return address;
  }
  static UniqueFd Listen(const std::string& path) {
    UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const sockaddr_un address = Address(path);
    EXPECT_EQ(bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(listen(fd.get(), 4), 0);
    return fd;
  }
  void Pass(const std::string& server) {
    while (!ate_) {
      UniqueFd client(accept(listener_.get(), nullptr, nullptr));
      if (!client) return;
      UniqueFd upstream(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
      const sockaddr_un address = Address(server);
      ASSERT_EQ(connect(upstream.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
      pollfd fds[] = {{client.get(), POLLIN, 0}, {upstream.get(), POLLIN, 0}};
      char buffer[16384];
      for (bool open = true; open && !ate_;) {
        poll(fds, 2, -1);
        for (int i = 0; i < 2; ++i) {
          if (fds[i].revents == 0) continue;
          const ssize_t count = read(fds[i].fd, buffer, sizeof buffer);
          open = open && count > 0 && write(fds[1 - i].fd, buffer, static_cast<size_t>(count)) == count;
          if (i == 0 && count > 0 && std::string_view(buffer, static_cast<size_t>(count)).find("COMMIT") != std::string_view::npos) ate_ = true;
        }
      }
    }
  }
  std::string folder_;
  UniqueFd listener_;
  std::thread thread_;
  std::atomic<bool> ate_{false};
};

TEST_F(MigrationTrouble, WhenTheAnswerToACommitIsLostTheHistoryTellsWhetherItCame) {
  CommitEater eater(TestPostgres::Instance().socket_dir());
  const std::string server = TestPostgres::Instance().socket_dir();
  std::string through = schema_.conninfo;
  ASSERT_NE(through.find(server), std::string::npos);
  through.replace(through.find(server), server.size(), eater.folder());
  // The COMMIT takes its time: its trigger runs in it.
  const MigrationFile slow = File("001_a.sql", R"sql(
CREATE TABLE a (n int);
CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.5); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON a DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late();
INSERT INTO a VALUES (1);
)sql");
  auto report = Migrate(admin_, "orders", through, {slow});
  ASSERT_TRUE(eater.ate());
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_THAT(report->applied, ElementsAre("001_a.sql"));
  EXPECT_EQ(History(), 1);
  EXPECT_THAT(Run({slow})->applied, IsEmpty());
}

TEST_F(MigrationTrouble, WhenTheLostCommitFailedItIsNotTakenForDone) {
  CommitEater eater(TestPostgres::Instance().socket_dir());
  std::string through = schema_.conninfo;
  const std::string server = TestPostgres::Instance().socket_dir();
  through.replace(through.find(server), server.size(), eater.folder());
  auto report = Migrate(admin_, "orders", through, {File("001_a.sql", R"sql(
CREATE TABLE a (n int);
CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.3); RAISE 'no'; END $$;
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON a DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late();
INSERT INTO a VALUES (1);
)sql")});
  ASSERT_TRUE(eater.ate());
  EXPECT_EQ(ErrorCode(report.status()), "DATABASE_UNAVAILABLE") << report.status();
  EXPECT_EQ(History(), 0);
  EXPECT_FALSE(Exists("a"));
}

TEST_F(MigrationTrouble, AnInvalidIndexThatAFailureLeftIsMadeAnewOnceItsCauseIsGone) {
  ASSERT_TRUE(Run({File("001_t.sql", "CREATE TABLE t (n int); INSERT INTO t VALUES (1), (1)")}).ok());
  for (const char* create : {"CREATE UNIQUE INDEX CONCURRENTLY one ON t (n)", "create unique index concurrently IF NOT EXISTS \"My; \"\"index\" ON t (n)",
                             "CREATE UNIQUE INDEX CONCURRENTLY /* why */ ONE_more ON t (n)"}) {
    const std::vector<MigrationFile> files = {
        File("001_t.sql", "CREATE TABLE t (n int); INSERT INTO t VALUES (1), (1)"),
        File("002_i.sql", std::string("-- bulkhead: no-transaction\nALTER TABLE t SET (fillfactor = 70);\n") + create + ";\nVACUUM t;\n")};
    auto failed = Run(files);
    ASSERT_EQ(ErrorCode(failed.status()), "MIGRATION_FAILED");
    EXPECT_EQ(ErrorDetails(failed.status())[0].code, "23505");
    EXPECT_EQ(ErrorDetails(failed.status())[0].line, 3);
    ASSERT_EQ(Count("pg_index WHERE NOT indisvalid"), 1) << "the server leaves one behind";
    // As long as the cause is there, it fails with the cause and not with "already exists", and leaves no second one.
    failed = Run(files);
    EXPECT_EQ(ErrorDetails(failed.status())[0].code, "23505") << failed.status();
    EXPECT_EQ(Count("pg_index WHERE NOT indisvalid"), 1);
    auto login = Login();
    ASSERT_TRUE(login->Run("DELETE FROM t WHERE ctid = (SELECT min(ctid) FROM t)").ok());
    auto resumed = Run(files);
    ASSERT_TRUE(resumed.ok()) << create << ": " << resumed.status();
    EXPECT_EQ(Count("pg_index WHERE NOT indisvalid"), 0);
    EXPECT_EQ(Count("pg_indexes WHERE tablename = 't'"), 1);
    // For the next round.
    ASSERT_TRUE(admin_.Run("DELETE FROM bulkhead_internal.migrations WHERE owner = 'orders' AND number = 2").ok());
    ASSERT_TRUE(login->RunScript("DO $$ DECLARE i text; BEGIN FOR i IN SELECT quote_ident(indexname) FROM pg_indexes WHERE tablename = 't' LOOP "
                                 "EXECUTE 'DROP INDEX ' || i; END LOOP; END $$; INSERT INTO t VALUES (1)").ok());
  }
}

TEST_F(MigrationTrouble, AValidIndexOfThatNameIsNeverDropped) {
  ASSERT_TRUE(Run({File("001_t.sql", "CREATE TABLE t (n int); CREATE INDEX one ON t (n)")}).ok());
  auto refused = Run({File("001_t.sql", "CREATE TABLE t (n int); CREATE INDEX one ON t (n)"),
                      File("002_i.sql", "-- bulkhead: no-transaction\nCREATE INDEX CONCURRENTLY one ON t (n)")});
  EXPECT_EQ(ErrorDetails(refused.status())[0].code, "42P07");
  EXPECT_TRUE(Exists("one"));
}

TEST_F(MigrationTrouble, TheDoneStatementsOfAHalfAppliedFileMayNotBeEdited) {
  ASSERT_FALSE(Run({File("001_x.sql", "-- bulkhead: no-transaction\nCREATE TABLE a (n int);\nSELECT nowhere;")}).ok());
  auto edited = Run({File("001_x.sql", "-- bulkhead: no-transaction\nCREATE TABLE a (n bigint);\nSELECT 1;")});
  EXPECT_EQ(ErrorCode(edited.status()), "MIGRATION_EDITED");
  EXPECT_THAT(std::string(edited.status().message()), HasSubstr("001_x.sql"));
  auto overview = InspectMigrations(admin_, "orders", {File("001_x.sql", "-- bulkhead: no-transaction\nCREATE TABLE a (n bigint);\nSELECT 1;")});
  EXPECT_TRUE(overview->files[0].edited);
}

}  // namespace
}  // namespace bulkhead
