#include "supervisor/store/migration_history.h"

#include <algorithm>
#include <map>

#include "nlohmann/json.hpp"
#include "supervisor/base/digest.h"
#include "supervisor/base/log.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

constexpr char kBootstrap[] = R"sql(
CREATE SCHEMA IF NOT EXISTS bulkhead_internal;
CREATE TABLE IF NOT EXISTS bulkhead_internal.migrations (
  owner      text NOT NULL,          -- 'bulkhead', or a module
  number     integer NOT NULL,
  name       text NOT NULL,
  checksum   text NOT NULL,          -- SHA-256; of the statements done while a file without a transaction is under way
  progress   integer,                -- statements done of a file without a transaction
  applied_at timestamptz,            -- NULL while such a file is under way
  CONSTRAINT migrations_pkey PRIMARY KEY (owner, number)
))sql";

struct Applied {
  std::string name, checksum;
  int progress = 0;
  bool finished = false;
  std::optional<WallTime> at;
};
using History = std::map<int, Applied>;

absl::StatusOr<History> ReadHistory(Connection& connection, const std::string& owner) {
  ASSIGN_OR_RETURN(const Rows rows, connection.Run("SELECT number, name, checksum, progress, applied_at FROM bulkhead_internal.migrations "
                                                   "WHERE owner = $1", {owner}));
  History history;
  for (int r = 0; r < rows.size(); ++r) {
    history[static_cast<int>(rows.Int(r, "number"))] = {rows.Text(r, "name"), rows.Text(r, "checksum"), static_cast<int>(rows.Int(r, "progress")),
                                                        !rows.Null(r, "applied_at"), rows.Time(r, "applied_at")};
  }
  return history;
}

MigrationProblem ProblemOf(const absl::Status& status) {
  const std::vector<ErrorDetail> details = ErrorDetails(status);
  MigrationProblem problem{.code = ErrorCode(status), .message = std::string(status.message())};
  if (!details.empty()) problem.file = details[0].path, problem.line = details[0].line, problem.column = details[0].column;
  return problem;
}

// One file against the history. Returns what is known, and adds what is wrong.
class Comparison {
 public:
  Comparison(const std::string& owner, const History& history, const std::vector<MigrationFile>& files, Detail detail)
      : owner_(owner), history_(history), files_(files), detail_(detail) {
    for (const auto& [number, applied] : history) {
      if (applied.finished) last_applied_ = std::max(last_applied_, number);
    }
  }

  MigrationOverview Run() {
    std::map<int, MigrationInfo> all;
    int previous = 0;
    for (const MigrationFile& file : files_) {
      BULKHEAD_CHECK(file.number > previous);
      previous = file.number;
      all[file.number] = Present(file);
    }
    for (const auto& [number, applied] : history_) {
      if (!all.contains(number)) all[number] = Gone(number, applied);
    }
    for (auto& [number, info] : all) {
      for (absl::Status& problem : problems_[number]) overview_.problems.push_back(ProblemOf(problem));
      overview_.files.push_back(std::move(info));
    }
    return std::move(overview_);
  }

 private:
  MigrationInfo Present(const MigrationFile& file) {
    MigrationInfo info{.number = file.number, .name = file.name, .checksum = file.checksum, .transactional = file.transactional,
                       .down_checksum = file.down_checksum};
    const auto found = history_.find(file.number);
    const Applied* applied = found == history_.end() ? nullptr : &found->second;
    absl::StatusOr<std::vector<SqlStatement>> statements = std::vector<SqlStatement>();
    if (detail_ == Detail::kFull || !applied || !applied->finished) {
      statements = CheckedStatements(file.name, file.sql, file.transactional, owner_);
      if (statements.ok()) info.statements = static_cast<int>(statements->size());
    }
    if (applied && applied->finished) {
      info.state = MigrationState::kApplied;
      info.applied_at = applied->at;
      info.done = info.statements;
      if (applied->checksum != file.checksum) {
        info.edited = true;
        Wrong(file, MigrationError("MIGRATION_EDITED", file.name, owner_,
                                   "it was changed after it had been applied; put the change in a new file"));
      }
      return info;
    }
    if (applied) info.state = MigrationState::kPartial, info.done = applied->progress;
    if (file.number < last_applied_) {
      Wrong(file, MigrationError("MIGRATION_OUT_OF_ORDER", file.name, owner_, "it is not applied, but number " +
                                 std::to_string(last_applied_) + " is already; give it a number above"));
    }
    if (!statements.ok()) {
      Wrong(file, statements.status());
    } else if (applied && (file.transactional || info.done > info.statements || PrefixChecksum(*statements, info.done) != applied->checksum)) {
      info.edited = true;
      Wrong(file, MigrationError("MIGRATION_EDITED", file.name, owner_, "its first " + std::to_string(info.done) +
                                 " statements have been run already and may not change; correct what stands behind them"));
    }
    return info;
  }

  // An older version of a module, which does not know the latest files, still starts; a hole is nobody's version.
  MigrationInfo Gone(int number, const Applied& applied) {
    MigrationInfo info{.number = number, .name = applied.name, .checksum = applied.checksum, .present = false, .applied_at = applied.at};
    info.state = applied.finished ? MigrationState::kApplied : MigrationState::kPartial;
    info.done = info.statements = applied.progress;
    const int newest = files_.empty() ? 0 : files_.back().number;
    if (owner_ == kOwnOwner && number > newest) {
      problems_[number].push_back(Error("SCHEMA_NEWER", "this database was migrated by a later version of bulkhead (" + applied.name +
                                        "), and this one knows its tables up to number " + std::to_string(newest) +
                                        ": start the later version, or use another database", {{.path = applied.name}}));
    } else if (number < newest) {
      problems_[number].push_back(MigrationError("MIGRATION_MISSING", applied.name, owner_,
                                                 "it has been applied, and its file is gone while later ones are there; put it back"));
    }
    return info;
  }

  void Wrong(const MigrationFile& file, absl::Status problem) { problems_[file.number].push_back(std::move(problem)); }

  const std::string& owner_;
  const History& history_;
  const std::vector<MigrationFile>& files_;
  const Detail detail_;
  int last_applied_ = 0;
  std::map<int, std::vector<absl::Status>> problems_;
  MigrationOverview overview_;
};

// What the log adds for a module: how long files took, and what was taken back when.
absl::Status AddLog(Connection& connection, const std::string& owner, MigrationOverview& overview) {
  ASSIGN_OR_RETURN(const Rows rows, connection.Run(
      "SELECT DISTINCT ON (number) number, action, took_ms, at FROM bulkhead_internal.migration_log WHERE owner = $1 "
      "ORDER BY number, id DESC", {owner}));
  for (int r = 0; r < rows.size(); ++r) {
    const auto info = std::find_if(overview.files.begin(), overview.files.end(), [&](const auto& i) { return i.number == rows.Int(r, "number"); });
    if (info == overview.files.end()) continue;
    if (rows.Text(r, "action") == "applied") {
      info->took_ms = rows.Int(r, "took_ms");
    } else {
      info->rolled_back_at = rows.Time(r, "at");
      if (info->state == MigrationState::kPending) info->state = MigrationState::kRolledBack;
    }
  }
  ASSIGN_OR_RETURN(const Rows run, connection.Run(
      "SELECT r.name, r.direction, r.session_pid, r.started_at FROM bulkhead_internal.migration_runs r JOIN pg_stat_activity a "
      "ON a.pid = r.session_pid AND a.backend_start = r.session_started WHERE r.owner = $1", {owner}));
  if (run.size() > 0) {
    overview.running = {run.Text(0, "name"), run.Text(0, "direction") == "down", run.Time(0, "started_at").value_or(WallTime()),
                        static_cast<int>(run.Int(0, "session_pid"))};
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status EnsureHistory(Connection& connection) {
  // Looked up first: IF NOT EXISTS still wants the privilege to create.
  ASSIGN_OR_RETURN(const Rows rows, connection.Run("SELECT to_regclass('bulkhead_internal.migrations') IS NULL AS missing"));
  if (!rows.Bool(0, "missing")) return absl::OkStatus();
  return connection.RunScript(kBootstrap);
}

absl::StatusOr<MigrationOverview> Overview(Connection& connection, const std::string& owner, const std::vector<MigrationFile>& files,
                                           Detail detail) {
  ASSIGN_OR_RETURN(const History history, ReadHistory(connection, owner));
  MigrationOverview overview = Comparison(owner, history, files, detail).Run();
  if (owner != kOwnOwner && detail == Detail::kFull) RETURN_IF_ERROR(AddLog(connection, owner, overview));
  return overview;
}

absl::Status MigrationError(std::string_view code, std::string_view file, std::string_view owner, const std::string& sentence,
                            TextPlace place, const std::string& sqlstate) {
  std::string message = "migration " + std::string(file) + " of " + std::string(owner);
  if (place.line > 0) message += ", line " + std::to_string(place.line);
  if (place.column > 0) message += ", column " + std::to_string(place.column);
  message += ": " + sentence;
  if (!sqlstate.empty()) message += " (SQLSTATE " + sqlstate + ")";
  return Error(code, message,
               {{.path = std::string(file), .code = sqlstate, .message = sentence, .line = place.line, .column = place.column}});
}

absl::Status ToStatus(const MigrationProblem& problem) {
  return Error(problem.code, problem.message,
               {{.path = problem.file, .code = problem.code, .message = problem.message, .line = problem.line, .column = problem.column}});
}

absl::StatusOr<std::vector<SqlStatement>> CheckedStatements(std::string_view file, std::string_view sql, bool transactional,
                                                            std::string_view owner) {
  auto statements = SplitSql(sql);
  if (!statements.ok()) {
    const ErrorDetail detail = ErrorDetails(statements.status())[0];
    return MigrationError("MIGRATION_FAILED", file, owner, detail.message, {detail.line, detail.column}, SqlState(statements.status()));
  }
  for (const SqlStatement& statement : *statements) {
    if (!IsTransactionControl(statement)) continue;
    const std::string why = transactional ? "the whole file is one transaction" : "each statement of this file stands alone";
    return MigrationError("MIGRATION_FAILED", file, owner, statement.words[0] + " is not allowed here: " + why,
                          {statement.line, statement.column});
  }
  return statements;
}

std::string PrefixChecksum(const std::vector<SqlStatement>& statements, size_t count) {
  std::string text;
  for (size_t i = 0; i < count; ++i) {
    text += statements[i].text;
    text += '\0';
  }
  return DigestHex(text);
}

absl::StatusOr<SessionId> IdentifySession(Connection& session) {
  ASSIGN_OR_RETURN(const Rows rows, session.Run("SELECT pid, backend_start AS started FROM pg_stat_activity WHERE pid = pg_backend_pid()"));
  if (rows.size() != 1) return Error("DATABASE_ERROR", "the server does not show a session of its own in pg_stat_activity");
  return SessionId{static_cast<int>(rows.Int(0, "pid")), rows.Text(0, "started")};
}

// For migrations/0011_audit_outcomes.sql.
std::string WhoAsked(const AuditRecord& audit) {
  const Actor& by = audit.by;
  return nlohmann::json{{"node", by.node},       {"subject", by.subject},      {"credential", by.credential}, {"credentialId", by.credential_id},
                        {"address", by.address}, {"requestId", by.request_id}, {"action", audit.action}}
      .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

absl::Status Announce(Connection& admin, const std::string& owner, const MigrationFile& file, bool down, const SessionId& session,
                      const AuditRecord* audit) {
  if (owner == kOwnOwner) return absl::OkStatus();
  return admin.Run(
      "INSERT INTO bulkhead_internal.migration_runs (owner, number, name, direction, session_pid, session_started, audit) "
      "VALUES ($1, $2::int, $3, $4, $5::int, $6::timestamptz, $7::jsonb) ON CONFLICT (owner) DO UPDATE SET number = excluded.number, "
      "name = excluded.name, direction = excluded.direction, session_pid = excluded.session_pid, "
      "session_started = excluded.session_started, started_at = excluded.started_at, audit = excluded.audit",
      {owner, std::to_string(file.number), down ? file.down_name : file.name, down ? "down" : "up", std::to_string(session.pid),
       session.started, audit == nullptr ? SqlParam() : SqlParam(WhoAsked(*audit))}).status();
}

absl::Status Withdraw(Connection& admin, const std::string& owner) {
  if (owner == kOwnOwner) return absl::OkStatus();
  return admin.Run("DELETE FROM bulkhead_internal.migration_runs WHERE owner = $1", {owner}).status();
}

absl::Status Record(Connection& session, const std::string& owner, const MigrationFile& file, const std::string& checksum,
                    std::optional<size_t> progress, bool finished) {
  const std::vector<SqlParam> params = {std::to_string(file.number), file.name, checksum,
                                        progress ? SqlParam(std::to_string(*progress)) : std::nullopt, finished ? "t" : "f"};
  if (owner != kOwnOwner) {
    return session.Run("SELECT bulkhead.record_migration($1::int, $2, $3, $4::int, $5::boolean)", params).status();
  }
  return session.Run(
      "INSERT INTO bulkhead_internal.migrations (owner, number, name, checksum, progress, applied_at) "
      "VALUES ('bulkhead', $1::int, $2, $3, $4::int, CASE WHEN $5::boolean THEN now() END) "
      "ON CONFLICT (owner, number) DO UPDATE SET name = excluded.name, checksum = excluded.checksum, "
      "progress = excluded.progress, applied_at = excluded.applied_at", params).status();
}

absl::Status RecordRollback(Connection& session, const MigrationFile& file) {
  return session.Run("SELECT bulkhead.record_rollback($1::int)", {std::to_string(file.number)}).status();
}

}  // namespace bulkhead
