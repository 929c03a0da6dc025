// The migration runner, the same for the supervisor's own schema and for modules (decision 12). Everything here blocks.
#pragma once

#include <atomic>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/base/clock.h"
#include "supervisor/base/limits.h"
#include "supervisor/store/audit.h"
#include "supervisor/store/database.h"

namespace bulkhead {

struct MigrationFile {
  int number = 0;           // NNN of NNN_name.sql
  std::string name;         // file name
  std::string sql;
  std::string checksum;     // SHA-256, hex
  bool transactional = true;  // false with a first line "-- bulkhead: no-transaction"
  // NNN_name.down.sql, which takes it back; empty name: there is none.
  std::string down_name, down_sql, down_checksum;
};

// The forward files of a folder in order, each with its down file. MIGRATION_INVALID: a gap is allowed; two files of one number, a
// name that is not NNN_x.sql, a down file without its forward file or without a transaction are not. A folder that does not exist is an
// empty list.
absl::StatusOr<std::vector<MigrationFile>> ReadMigrations(const std::string& folder);

// One file from its name and text; the rules and errors of ReadMigrations.
absl::StatusOr<MigrationFile> MakeMigration(std::string_view file_name, std::string sql);
absl::Status AddDown(MigrationFile& file, std::string sql);

// The supervisor's own files (migrations/), compiled into the binary.
std::vector<MigrationFile> OwnMigrations();

// What is known of one migration, from its file and from the history.
enum class MigrationState { kPending, kPartial, kApplied, kRolledBack };  // kRolledBack: pending again, after a rollback
struct MigrationInfo {
  int number = 0;
  std::string name;
  MigrationState state = MigrationState::kPending;
  std::string checksum;          // of the file; of what was applied when the file is gone
  bool transactional = true;
  int statements = 0, done = 0;  // done: of a file without a transaction that is under way
  bool present = true;           // false: applied, and there is no such file (any more, or yet in this version)
  bool edited = false;           // changed after it was applied, or in the part that has run
  std::string down_checksum;     // empty: it can't be taken back
  std::optional<WallTime> applied_at, rolled_back_at;
  std::optional<int64_t> took_ms;
};
// Why Migrate would refuse: MIGRATION_EDITED, MIGRATION_MISSING, MIGRATION_OUT_OF_ORDER, MIGRATION_FAILED (a text that is refused before
// it runs), SCHEMA_NEWER.
struct MigrationProblem {
  std::string code, file, message;  // the message names file and place
  int line = 0, column = 0;         // 0: none
};
struct MigrationRun {            // what some supervisor is running at this moment
  std::string file;
  bool down = false;
  WallTime since;
  int pid = 0;                   // of the server's session
};
struct MigrationOverview {
  std::vector<MigrationInfo> files;        // by number
  std::vector<MigrationProblem> problems;  // in the order of the files
  std::optional<MigrationRun> running;
};
// Changes nothing and takes no lock.
absl::StatusOr<MigrationOverview> InspectMigrations(Database& admin, std::string_view owner, const std::vector<MigrationFile>& files);

struct MigrationLimits {
  Millis lock_wait = limits::kMigrationLockWait;                  // for another supervisor; then MIGRATION_LOCKED with who holds it
  Millis statement_timeout = limits::kMigrationStatementTimeout;  // of one statement; 0: none. A file may set its own
  std::atomic<int>* under_way = nullptr;  // counted up while files run, for who must know that it takes long; null: nobody
};

struct MigrationReport {
  std::vector<std::string> applied;  // names, in order, by this call; of a rollback those that were taken back
  std::vector<int64_t> took_ms;      // of each of them
  int already = 0;
};

// Applies what is missing, in order, each file in a transaction of its own together with its history row.
//   owner     "bulkhead" for the supervisor's own tables, else the module's name
//   login     where the files run: the module's role for a module, the supervisor's own connection string else
//   audit     whom each file gets a row for, with the action, in its history row's transaction; null: nobody. Of modules only
//   admin     the supervisor's database, for history and the session advisory lock (polled every 50 ms)
// A file without a transaction runs statement by statement, and how many are done is recorded after each: the next run goes on
// there. A crash between a statement and its record repeats that one statement, so write them repeatable (IF NOT EXISTS). What
// is not done yet may still be corrected in the file. An invalid index that a CREATE INDEX CONCURRENTLY left is dropped before the
// statement runs again.
// Every statement waits at most 5 s for a lock; then its transaction is tried again, up to 5 times.
// Errors, nothing half-done: MIGRATION_EDITED (an applied file's checksum differs; named), MIGRATION_OUT_OF_ORDER (a missing file
// below the last applied one), MIGRATION_MISSING (an applied file below others is gone), MIGRATION_FAILED (file, line, column, SQLSTATE
// and the server's sentence, hint and context in the details; transaction control inside a transactional file, psql's commands and
// COPY with the client are refused with their place), MIGRATION_LOCKED (who holds the lock), SCHEMA_NEWER (the supervisor's own
// tables are of a later version), DATABASE_UNAVAILABLE. When the connection breaks during a COMMIT, the history says whether it came.
absl::StatusOr<MigrationReport> Migrate(Database& admin, std::string_view owner, const std::string& login,
                                        const std::vector<MigrationFile>& files, const MigrationLimits& limits = {},
                                        const AuditRecord* audit = nullptr);

// Takes back the last applied migration of a module, or all above `to` (0: all), the last one first, each down file in a transaction
// together with the removal of its history row. Nothing runs unless every one of them has a down file. Errors: as above but for files
// that were edited; MIGRATION_IRREVERSIBLE (no down file, not in this version, or half applied), INVALID_ARGUMENT (`to` is not applied).
absl::StatusOr<MigrationReport> Rollback(Database& admin, std::string_view owner, const std::string& login,
                                         const std::vector<MigrationFile>& files, std::optional<int> to, const MigrationLimits& limits = {},
                                         const AuditRecord* audit = nullptr);
// What Rollback would take back, in that order; its errors.
absl::StatusOr<std::vector<MigrationInfo>> PlanRollback(const MigrationOverview& overview, std::string_view owner, std::optional<int> to);

}  // namespace bulkhead
