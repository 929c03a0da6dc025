// The history of migrations in the database: what ran, what runs, and how the files compare with it. Private to the migration
// runner. Blocking.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/store/database.h"
#include "supervisor/store/migrations.h"
#include "supervisor/store/sql_script.h"

namespace bulkhead {

inline constexpr std::string_view kOwnOwner = "bulkhead";  // of the supervisor's own files; no module has this name

// Makes the history table where there is none yet. Not by a file: the supervisor's first file is recorded in it like any other.
absl::Status EnsureHistory(Connection& connection);

// kBrief leaves out what only people want to see: the texts of applied files are not looked at, nor is the log.
enum class Detail { kBrief, kFull };
absl::StatusOr<MigrationOverview> Overview(Connection& connection, const std::string& owner, const std::vector<MigrationFile>& files,
                                           Detail detail);

// An error about a file: "migration 002_b.sql of orders, line 4, column 7: sentence (SQLSTATE 42P01)", with the same in its detail.
absl::Status MigrationError(std::string_view code, std::string_view file, std::string_view owner, const std::string& sentence,
                            TextPlace place = {}, const std::string& sqlstate = "");
absl::Status ToStatus(const MigrationProblem& problem);

// The statements of a file, or of its down file; MIGRATION_FAILED for what may not stand in it.
absl::StatusOr<std::vector<SqlStatement>> CheckedStatements(std::string_view file, std::string_view sql, bool transactional,
                                                            std::string_view owner);
// The checksum of the first `count` statements of a file without a transaction.
std::string PrefixChecksum(const std::vector<SqlStatement>& statements, size_t count);

// Which session runs which file of a module from now on: it alone may record that file (migrations/0006_migration_log.sql).
struct SessionId {
  int pid = 0;
  std::string started;
};
absl::StatusOr<SessionId> IdentifySession(Connection& session);
absl::Status Announce(Connection& admin, const std::string& owner, const MigrationFile& file, bool down, const SessionId& session,
                      const AuditRecord* audit);
absl::Status Withdraw(Connection& admin, const std::string& owner);

// The history row, written by the session that ran the file: for a module through the supervisor's functions.
absl::Status Record(Connection& session, const std::string& owner, const MigrationFile& file, const std::string& checksum,
                    std::optional<size_t> progress, bool finished);
absl::Status RecordRollback(Connection& session, const MigrationFile& file);

}  // namespace bulkhead
