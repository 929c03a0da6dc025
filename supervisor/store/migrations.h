// The migration runner, the same for the supervisor's own schema and for modules (decision 12). Blocking.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/store/database.h"

namespace bulkhead {

struct MigrationFile {
  int number = 0;           // NNN of NNN_name.sql
  std::string name;         // file name
  std::string sql;
  std::string checksum;     // SHA-256, hex
  bool transactional = true;  // false with a first line "-- bulkhead: no-transaction"
};

// The forward files of a folder in order. MIGRATION_INVALID: a gap is allowed, two files of one number or a name that is not
// NNN_x.sql are not (NNN_x.down.sql is no forward file). A folder that does not exist is an empty list.
absl::StatusOr<std::vector<MigrationFile>> ReadMigrations(const std::string& folder);

// One file from its name and text; the rules and errors of ReadMigrations.
absl::StatusOr<MigrationFile> MakeMigration(std::string_view file_name, std::string sql);

// The supervisor's own files (migrations/), compiled into the binary.
std::vector<MigrationFile> OwnMigrations();

struct MigrationReport {
  std::vector<std::string> applied;  // names, in order, by this call
  int already = 0;
};

// Applies what is missing, in order, each file in a transaction of its own together with its history row.
//   owner     "bulkhead" for the supervisor's own tables, else the module's name
//   login     where the files run: the module's role for a module, the supervisor's own connection string else
//   admin     the supervisor's database, for history and the session advisory lock (polled every 50 ms, at most 60 s)
// A file without a transaction runs statement by statement, and how many are done is recorded after each: the next run goes on
// there. A crash between a statement and its record repeats that one statement, so write them repeatable (IF NOT EXISTS). What
// is not done yet may still be corrected in the file.
// Every statement waits at most 5 s for a lock; then its transaction is tried again, up to 5 times.
// Errors, nothing half-done: MIGRATION_EDITED (an applied file's checksum differs; named), MIGRATION_OUT_OF_ORDER (a missing file
// below the last applied one), MIGRATION_FAILED (file, line, SQLSTATE and the server's sentence in the details; transaction
// control inside a transactional file is refused with its line), DATABASE_UNAVAILABLE.
absl::StatusOr<MigrationReport> Migrate(Database& admin, std::string_view owner, const std::string& login,
                                        const std::vector<MigrationFile>& files);

}  // namespace bulkhead
