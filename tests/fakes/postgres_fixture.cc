#include "tests/fakes/postgres_fixture.h"

#include <fcntl.h>
#include <grp.h>
#include <libpq-fe.h>
#include <pwd.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>
#include <vector>

#include "supervisor/base/clock.h"
#include "supervisor/store/migrations.h"

namespace bulkhead {
namespace {

namespace fs = std::filesystem;

constexpr Millis kStartTimeout{30'000};
constexpr Millis kPoll{5};

[[noreturn]] void Die(const std::string& why) {
  std::fprintf(stderr, "test PostgreSQL: %s\n", why.c_str());
  std::abort();
}

std::string Contents(const std::string& path) {
  std::ifstream in(path);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

struct User {
  bool change = false;
  uid_t uid = 0;
  gid_t gid = 0;
};

User ServerUser() {
  if (geteuid() != 0) return {};
  const passwd* entry = getpwnam("postgres");
  if (!entry) Die("as root it needs the OS user postgres");
  return {true, entry->pw_uid, entry->pw_gid};
}

// fork and exec with output appended to `log`. Everything is prepared before the fork: the test may have threads.
pid_t Launch(const std::vector<std::string>& command, const std::string& log, int death_signal) {
  const User user = ServerUser();
  const int out = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (out < 0) Die("can't open " + log);
  std::vector<char*> argv;
  for (const std::string& arg : command) argv.push_back(const_cast<char*>(arg.c_str()));
  argv.push_back(nullptr);
  char lang[] = "LANG=C.UTF-8", path[] = "PATH=/usr/bin:/bin", zone[] = "TZ=UTC";
  char* env[] = {lang, path, zone, nullptr};
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) Die("fork failed");
  if (pid == 0) {
    setsid();
    dup2(out, 1);
    dup2(out, 2);
    if (user.change && (setgroups(0, nullptr) != 0 || setgid(user.gid) != 0 || setuid(user.uid) != 0)) _exit(126);
    // After setuid, which clears it: a killed test takes its server along.
    prctl(PR_SET_PDEATHSIG, death_signal);
    if (getppid() != parent) _exit(125);
    execve(argv[0], argv.data(), env);
    _exit(127);
  }
  close(out);
  return pid;
}

PGconn* Connect(const std::string& conninfo) {
  PGconn* conn = PQconnectdb(conninfo.c_str());
  if (PQstatus(conn) == CONNECTION_OK) return conn;
  PQfinish(conn);
  return nullptr;
}

}  // namespace

std::string TestPostgres::BinDir() {
  std::string newest;
  int version = 0;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/usr/lib/postgresql", error)) {
    const int found = std::atoi(entry.path().filename().c_str());
    if (found > version && fs::exists(entry.path() / "bin/postgres", error)) {
      version = found;
      newest = (entry.path() / "bin").string();
    }
  }
  return newest;
}

std::string TestPostgres::ScratchFolder() {
  constexpr uint64_t kRoom = uint64_t{1} << 30;
  struct statvfs memory{};
  const bool roomy = statvfs("/dev/shm", &memory) == 0 && uint64_t{memory.f_bavail} * memory.f_frsize >= kRoom && access("/dev/shm", W_OK) == 0;
  return roomy ? "/dev/shm" : "/tmp";
}

TestPostgres& TestPostgres::Instance() {
  static TestPostgres instance;
  return instance;
}

TestPostgres::TestPostgres() {
  if (BinDir().empty()) Die("no server below /usr/lib/postgresql");
  root_ = ScratchFolder() + "/bulkhead-pg-XXXXXX";
  if (!mkdtemp(root_.data())) Die("mkdtemp failed");
  const User user = ServerUser();
  if (user.change && chown(root_.c_str(), user.uid, user.gid) != 0) Die("chown failed");
  chmod(root_.c_str(), 0711);

  const std::string log = root_ + "/log";
  const pid_t initdb = Launch({BinDir() + "/initdb", "-D", root_ + "/data", "-U", "bulkhead", "--auth=trust", "--encoding=UTF8",
                               "--locale=C.UTF-8", "--no-sync", "--no-instructions"}, log, SIGKILL);
  int status = 0;
  waitpid(initdb, &status, 0);
  if (status != 0) Die("initdb failed:\n" + Contents(log));
  const std::string hba = root_ + "/hba.conf";
  std::ofstream(hba) << "local all bulkhead trust\nlocal all all scram-sha-256\n";
  chmod(hba.c_str(), 0644);
  Start();
}

TestPostgres::~TestPostgres() {
  Stop();
  std::error_code error;
  fs::remove_all(root_, error);
}

void TestPostgres::Start() {
  if (pid_ > 0) return;
  pid_ = Launch({BinDir() + "/postgres", "-D", root_ + "/data", "-k", root_, "-c", "listen_addresses=", "-c", "hba_file=" + root_ + "/hba.conf",
                 "-c", "unix_socket_permissions=0777", "-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off",
                 "-c", "shared_buffers=16MB", "-c", "max_connections=100", "-c", "timezone=UTC", "-c", "autovacuum=off"},
                root_ + "/log", SIGQUIT);
  const Instant deadline = Clock::Real().Now() + kStartTimeout;
  while (true) {
    if (PGconn* conn = Connect(Conninfo("postgres"))) {
      PQfinish(conn);
      return;
    }
    if (waitpid(pid_, nullptr, WNOHANG) == pid_ || Clock::Real().Now() > deadline) Die("it did not start:\n" + Contents(root_ + "/log"));
    std::this_thread::sleep_for(kPoll);
  }
}

void TestPostgres::Stop() {
  if (pid_ <= 0) return;
  kill(pid_, SIGQUIT);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

std::string TestPostgres::Conninfo(const std::string& database) const {
  return "host=" + root_ + " user=bulkhead dbname=" + database;
}

std::string TestPostgres::FreshDatabase(bool with_own_migrations) {
  const std::string name = "test_" + std::to_string(++databases_);
  PGconn* conn = Connect(Conninfo("postgres"));
  if (!conn) Die("it can't be reached");
  PGresult* result = PQexec(conn, ("CREATE DATABASE " + name).c_str());
  if (PQresultStatus(result) != PGRES_COMMAND_OK) Die(PQerrorMessage(conn));
  PQclear(result);
  PQfinish(conn);
  const std::string conninfo = Conninfo(name);
  if (with_own_migrations) {
    Database database(conninfo, 1);
    auto report = Migrate(database, "bulkhead", conninfo, OwnMigrations());
    if (!report.ok()) Die("its own migrations failed: " + report.status().ToString());
  }
  return conninfo;
}

}  // namespace bulkhead
