// The runner. Lock, compare with the history, check every missing file, then run them one by one.
// bulkhead_internal.migrations is made here and not by a file: the supervisor's first file is recorded in it like any other.
#include "supervisor/store/migrations.h"

#include <algorithm>
#include <map>
#include <thread>

#include "supervisor/base/log.h"
#include "supervisor/base/random.h"
#include "supervisor/base/status.h"
#include "supervisor/store/digest.h"
#include "supervisor/store/sql_script.h"

namespace bulkhead {
namespace {

constexpr std::string_view kOwn = "bulkhead";
constexpr char kLockClass[] = "1651862635";  // "bulk" as an int4: apart from advisory locks of others in this database
constexpr Millis kLockPoll{50};
constexpr Millis kLockTimeout{60'000};
constexpr int kMaxRetries = 5;               // of a file or statement that waited too long for a lock
constexpr Millis kRetryBase{100};            // doubled each time, with jitter

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

// What a connection needs before each file, whatever the file before it has set.
absl::Status Prepare(Connection& connection) {
  RETURN_IF_ERROR(connection.RunScript("DISCARD ALL"));  // alone: it refuses company
  return connection.RunScript("SET lock_timeout = '5s'; SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0");
}

struct Applied {
  std::string checksum;
  int progress = 0;
  bool finished = false;
};

// A file that is to run, cut into statements.
struct Pending {
  const MigrationFile* file;
  std::vector<SqlStatement> statements;
  size_t done = 0;  // statements of a file without a transaction that an earlier run recorded
};

absl::Status FileError(std::string_view code, const MigrationFile& file, std::string_view owner, const std::string& sentence, int line = 0,
                       const std::string& sqlstate = "") {
  std::string message = "migration " + file.name + " of " + std::string(owner);
  if (line > 0) message += ", line " + std::to_string(line);
  message += ": " + sentence;
  if (!sqlstate.empty()) message += " (SQLSTATE " + sqlstate + ")";
  return Error(code, message, {{.path = file.name, .code = sqlstate, .message = sentence, .line = line}});
}

// The database's refusal of a statement of this file; `fallback_line` is where the statement begins.
absl::Status Failed(const MigrationFile& file, std::string_view owner, const absl::Status& status, int line) {
  if (ErrorCode(status) == "DATABASE_UNAVAILABLE") return status;
  const std::vector<ErrorDetail> details = ErrorDetails(status);
  const std::string sentence = details.empty() ? std::string(status.message()) : details[0].message;
  return FileError("MIGRATION_FAILED", file, owner, sentence, line, SqlState(status));
}

bool WorthRetrying(const absl::Status& status) {
  const std::string state = SqlState(status);
  return state == "55P03" /* lock_not_available */ || state == "40P01" /* deadlock_detected */;
}

// The checksum of the first `count` statements of a file without a transaction.
std::string PrefixChecksum(const std::vector<SqlStatement>& statements, size_t count) {
  std::string text;
  for (size_t i = 0; i < count; ++i) {
    text += statements[i].text;
    text += '\0';
  }
  return DigestHex(text);
}

class Run {
 public:
  Run(std::string_view owner, const std::string& login) : owner_(owner), login_(login), random_(Random::FromEntropy()) {}

  absl::StatusOr<MigrationReport> Do(Connection& history, const std::vector<MigrationFile>& files) {
    RETURN_IF_ERROR(Lock(history));
    if (owner_ == kOwn) RETURN_IF_ERROR(Bootstrap(history));
    MigrationReport report;
    ASSIGN_OR_RETURN(const std::vector<Pending> pending, Compare(history, files, report));
    if (pending.empty()) return report;
    ASSIGN_OR_RETURN(std::unique_ptr<Connection> connection, Connection::Open(login_));
    for (const Pending& next : pending) {
      // Who lost the connection that holds the lock may have company by now.
      if (!history.CheckIdle()) return Error("DATABASE_UNAVAILABLE", "the connection that holds the migration lock was lost");
      RETURN_IF_ERROR(next.file->transactional ? WholeFile(*connection, next) : StatementByStatement(*connection, next));
      report.applied.push_back(next.file->name);
      LogInfo("store", "migration applied", {{"owner", owner_}, {"file", next.file->name}});
    }
    return report;
  }

 private:
  absl::Status Lock(Connection& history);
  absl::Status Bootstrap(Connection& history);
  absl::StatusOr<std::vector<Pending>> Compare(Connection& history, const std::vector<MigrationFile>& files, MigrationReport& report);
  absl::StatusOr<Pending> Check(const MigrationFile& file, const Applied* under_way);
  absl::Status WholeFile(Connection& connection, const Pending& pending);
  absl::Status StatementByStatement(Connection& connection, const Pending& pending);
  absl::Status Retrying(const MigrationFile& file, const std::function<absl::Status()>& attempt);
  absl::Status Record(Connection& connection, const MigrationFile& file, const std::string& checksum, std::optional<size_t> progress,
                      bool finished);

  const std::string owner_;
  const std::string login_;
  Random random_;
};

// Polled, because a session that waits in pg_advisory_lock() holds a snapshot, for which CREATE INDEX CONCURRENTLY waits in turn.
absl::Status Run::Lock(Connection& history) {
  const Instant deadline = Clock::Real().Now() + kLockTimeout;
  while (true) {
    ASSIGN_OR_RETURN(Rows rows, history.Run("SELECT pg_try_advisory_lock($1::int, hashtext($2)) AS locked", {kLockClass, owner_}));
    if (rows.Bool(0, "locked")) return absl::OkStatus();
    if (Clock::Real().Now() >= deadline) {
      return Error("DATABASE_UNAVAILABLE", "another supervisor has been migrating " + owner_ + " for more than " +
                   std::to_string(kLockTimeout.count() / 1000) + " s");
    }
    std::this_thread::sleep_for(kLockPoll);
  }
}

absl::Status Run::Bootstrap(Connection& history) {
  // Looked up first: IF NOT EXISTS still wants the privilege to create.
  ASSIGN_OR_RETURN(Rows rows, history.Run("SELECT to_regclass('bulkhead_internal.migrations') IS NULL AS missing"));
  if (!rows.Bool(0, "missing")) return absl::OkStatus();
  return history.RunScript(kBootstrap);
}

absl::StatusOr<std::vector<Pending>> Run::Compare(Connection& history, const std::vector<MigrationFile>& files, MigrationReport& report) {
  ASSIGN_OR_RETURN(Rows rows, history.Run("SELECT number, checksum, progress, applied_at IS NOT NULL AS finished "
                                          "FROM bulkhead_internal.migrations WHERE owner = $1", {owner_}));
  std::map<int, Applied> applied;
  int last = 0;
  for (int r = 0; r < rows.size(); ++r) {
    const int number = static_cast<int>(rows.Int(r, "number"));
    applied[number] = {rows.Text(r, "checksum"), static_cast<int>(rows.Int(r, "progress")), rows.Bool(r, "finished")};
    if (applied[number].finished) last = std::max(last, number);
  }
  std::vector<Pending> pending;
  int previous = 0;
  for (const MigrationFile& file : files) {
    BULKHEAD_CHECK(file.number > previous);
    previous = file.number;
    const auto known = applied.find(file.number);
    if (known != applied.end() && known->second.finished) {
      if (known->second.checksum != file.checksum) {
        return FileError("MIGRATION_EDITED", file, owner_, "it was changed after it had been applied; put the change in a new file");
      }
      ++report.already;
      continue;
    }
    if (file.number < last) {
      return FileError("MIGRATION_OUT_OF_ORDER", file, owner_,
                       "it is not applied, but number " + std::to_string(last) + " is already; give it a number above");
    }
    ASSIGN_OR_RETURN(Pending next, Check(file, known == applied.end() ? nullptr : &known->second));
    pending.push_back(std::move(next));
  }
  return pending;
}

absl::StatusOr<Pending> Run::Check(const MigrationFile& file, const Applied* under_way) {
  Pending pending{.file = &file};
  auto statements = SplitSql(file.sql);
  if (!statements.ok()) return Failed(file, owner_, statements.status(), ErrorDetails(statements.status())[0].line);
  pending.statements = *std::move(statements);
  for (const SqlStatement& statement : pending.statements) {
    if (!IsTransactionControl(statement)) continue;
    const std::string why = file.transactional ? "the whole file is one transaction" : "each statement of this file stands alone";
    return FileError("MIGRATION_FAILED", file, owner_, statement.words[0] + " is not allowed here: " + why, statement.line);
  }
  if (!under_way) return pending;
  pending.done = static_cast<size_t>(under_way->progress);
  if (file.transactional || pending.done > pending.statements.size() ||
      PrefixChecksum(pending.statements, pending.done) != under_way->checksum) {
    return FileError("MIGRATION_EDITED", file, owner_, "its first " + std::to_string(pending.done) +
                     " statements have been run already and may not change; correct what stands behind them");
  }
  return pending;
}

absl::Status Run::Record(Connection& connection, const MigrationFile& file, const std::string& checksum, std::optional<size_t> progress,
                         bool finished) {
  const std::vector<SqlParam> params = {std::to_string(file.number), file.name, checksum,
                                        progress ? SqlParam(std::to_string(*progress)) : std::nullopt, finished ? "t" : "f"};
  if (owner_ != kOwn) {
    return connection.Run("SELECT bulkhead.record_migration($1::int, $2, $3, $4::int, $5::bool)", params).status();
  }
  return connection.Run(
      "INSERT INTO bulkhead_internal.migrations (owner, number, name, checksum, progress, applied_at) "
      "VALUES ('bulkhead', $1::int, $2, $3, $4::int, CASE WHEN $5::bool THEN now() END) "
      "ON CONFLICT (owner, number) DO UPDATE SET name = excluded.name, checksum = excluded.checksum, "
      "progress = excluded.progress, applied_at = excluded.applied_at", params).status();
}

absl::Status Run::Retrying(const MigrationFile& file, const std::function<absl::Status()>& attempt) {
  for (int retry = 0;; ++retry) {
    absl::Status status = attempt();
    if (status.ok() || retry == kMaxRetries || !WorthRetrying(status)) return status;
    const Millis pause(kRetryBase.count() * (1 << retry) / 2 + static_cast<int64_t>(random_.Below(kRetryBase.count() << retry)));
    LogWarn("store", "migration waits for a lock and is tried again",
            {{"owner", owner_}, {"file", file.name}, {"retry", std::to_string(retry + 1)}, {"reason", std::string(status.message())}});
    std::this_thread::sleep_for(pause);
  }
}

absl::Status Run::WholeFile(Connection& connection, const Pending& pending) {
  const MigrationFile& file = *pending.file;
  int line = 0;
  absl::Status status = Retrying(file, [&]() -> absl::Status {
    RETURN_IF_ERROR(Prepare(connection));
    return connection.Transaction([&](Connection& c) -> absl::Status {
      ASSIGN_OR_RETURN(Rows before, c.Run("SELECT pg_current_xact_id()::text AS id"));
      int completed = 0;
      line = 0;
      absl::Status script = c.RunScript(file.sql, &completed);
      if (!script.ok()) {
        const std::vector<ErrorDetail> details = ErrorDetails(script);
        if (!details.empty()) line = details[0].line;
        // An error at run time has no position: the statement's first line is the best there is.
        if (line == 0 && static_cast<size_t>(completed) < pending.statements.size()) line = pending.statements[completed].line;
        return script;
      }
      // What the check of the text could not see, e.g. with standard_conforming_strings switched off inside the file.
      ASSIGN_OR_RETURN(Rows after, c.Run("SELECT pg_current_xact_id()::text AS id"));
      if (before.Text(0, "id") != after.Text(0, "id")) return Error("DATABASE_ERROR", "the file ended the transaction it runs in");
      return Record(c, file, file.checksum, std::nullopt, true);
    });
  });
  return status.ok() ? status : Failed(file, owner_, status, line);
}

absl::Status Run::StatementByStatement(Connection& connection, const Pending& pending) {
  const MigrationFile& file = *pending.file;
  RETURN_IF_ERROR(Prepare(connection));
  const size_t count = pending.statements.size();
  if (pending.done == count) return Record(connection, file, file.checksum, count, true);
  for (size_t i = pending.done; i < count; ++i) {
    const SqlStatement& statement = pending.statements[i];
    absl::Status status = Retrying(file, [&] { return connection.RunScript(std::string(statement.text)); });
    if (!status.ok()) {
      const std::vector<ErrorDetail> details = ErrorDetails(status);
      const int within = details.empty() || details[0].line == 0 ? 1 : details[0].line;
      return Failed(file, owner_, status, statement.line + within - 1);
    }
    const bool last = i + 1 == count;
    RETURN_IF_ERROR(Record(connection, file, last ? file.checksum : PrefixChecksum(pending.statements, i + 1), i + 1, last));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<MigrationReport> Migrate(Database& admin, std::string_view owner, const std::string& login,
                                        const std::vector<MigrationFile>& files) {
  // A connection of its own: the lock lives as long as this session does.
  ASSIGN_OR_RETURN(std::unique_ptr<Connection> history, Connection::Open(admin.conninfo()));
  return Run(owner, login).Do(*history, files);
}

}  // namespace bulkhead
