// A real PostgreSQL of the test's own: made on first use in a temporary folder, on a Unix socket only, gone with the process.
// Link `test_postgres`. As root the server runs as the OS user `postgres`. The role `bulkhead` is superuser and trusted, every
// other role logs in by SCRAM, as in the private cluster. Thread-safe after the first Instance().
#pragma once

#include <sys/types.h>

#include <atomic>
#include <string>

namespace bulkhead {

class TestPostgres {
 public:
  static TestPostgres& Instance();  // ends the process with a sentence when no server can be started

  // libpq connection string, as role `bulkhead`, of a new database that no other test uses.
  std::string FreshDatabase(bool with_own_migrations = true);
  std::string Conninfo(const std::string& database) const;
  const std::string& socket_dir() const { return root_; }

  // The database is lost (immediate shutdown), and comes back. For tests of what lives on meanwhile.
  void Stop();
  void Start();

  // Folder of initdb and postgres; empty when there is none.
  static std::string BinDir();
  // A folder for short-lived clusters: in memory where there is room, because initdb writes 40 MB and the disk is shared.
  static std::string ScratchFolder();

 private:
  TestPostgres();
  ~TestPostgres();
  TestPostgres(const TestPostgres&) = delete;

  std::string root_;  // <root>/data, the socket, the log
  pid_t pid_ = -1;
  std::atomic<int> databases_{0};
};

}  // namespace bulkhead
