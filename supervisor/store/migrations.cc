// The runner. Lock, compare with the history, check every missing file, then run them one by one, each announced beforehand.
#include "supervisor/store/migrations.h"

#include <algorithm>
#include <thread>

#include "supervisor/base/duration.h"
#include "supervisor/base/log.h"
#include "supervisor/base/random.h"
#include "supervisor/base/status.h"
#include "supervisor/store/migration_history.h"
#include "supervisor/store/migration_lock.h"
#include "supervisor/store/sql_script.h"

namespace bulkhead {
namespace {

constexpr int kMaxRetries = 5;               // of a file or statement that waited too long for a lock
constexpr Millis kRetryBase{100};            // doubled each time, with jitter
constexpr Millis kOutcomePoll{20};           // how often, and how long, a session that we lost is asked for
constexpr Millis kOutcomeWait{10'000};

bool WorthRetrying(const absl::Status& status) {
  const std::string state = SqlState(status);
  return state == "55P03" /* lock_not_available */ || state == "40P01" /* deadlock_detected */;
}

// A file or a down file as it is run.
struct Script {
  const std::string& name;
  const std::string& sql;
  const std::vector<SqlStatement>& statements;
};

class Runner {
 public:
  Runner(std::string_view owner, const std::string& login, const MigrationLimits& limits, const AuditRecord* audit, Connection& admin)
      : owner_(owner), login_(login), limits_(limits), audit_(audit), admin_(admin), random_(Random::FromEntropy()) {}

  absl::StatusOr<MigrationReport> Up(const std::vector<MigrationFile>& files);
  absl::StatusOr<MigrationReport> Down(const std::vector<MigrationFile>& files, std::optional<int> to);
  bool announced() const { return announced_; }

 private:
  absl::Status Open();
  absl::Status Prepare();
  absl::Status Begin(const MigrationFile& file, bool down);
  absl::Status WholeFile(const MigrationFile& file, const std::vector<SqlStatement>& statements);
  absl::Status StatementByStatement(const MigrationFile& file, const std::vector<SqlStatement>& statements, size_t done);
  absl::Status TakeBack(const MigrationFile& file);
  // One transaction: the script, then `record`.
  absl::Status InTransaction(const Script& script, const std::function<absl::Status(Connection&)>& record);
  absl::Status Retrying(const std::string& file, const std::function<absl::Status()>& attempt);
  absl::Status DropInvalidIndex(const MigrationFile& file, const SqlStatement& statement);
  // What a lost connection leaves open: whether its COMMIT came.
  absl::StatusOr<bool> Recorded(int number);
  absl::Status Failed(const std::string& file, const absl::Status& status, TextPlace place) const;
  std::function<void()> Watch() {
    return [this] {
      if (std::string who = Blockers(admin_, id_.pid); !who.empty()) blockers_ = std::move(who);
    };
  }

  const std::string owner_;
  const std::string login_;
  const MigrationLimits limits_;
  const AuditRecord* const audit_;  // may be null
  Connection& admin_;  // holds the lock
  Random random_;
  std::unique_ptr<Connection> session_;
  SessionId id_;
  bool announced_ = false;
  std::string blockers_;  // whom the statement under way was last seen waiting for
};

absl::StatusOr<MigrationReport> Runner::Up(const std::vector<MigrationFile>& files) {
  ASSIGN_OR_RETURN(const MigrationOverview overview, Overview(admin_, owner_, files, Detail::kBrief));
  if (!overview.problems.empty()) return ToStatus(overview.problems[0]);
  MigrationReport report;
  for (const MigrationFile& file : files) {
    const auto info = std::find_if(overview.files.begin(), overview.files.end(), [&](const auto& i) { return i.number == file.number; });
    if (info->state == MigrationState::kApplied) {
      ++report.already;
      continue;
    }
    const Instant began = Clock::Real().Now();
    RETURN_IF_ERROR(Begin(file, false));
    ASSIGN_OR_RETURN(const auto statements, CheckedStatements(file.name, file.sql, file.transactional, owner_));
    RETURN_IF_ERROR(file.transactional ? WholeFile(file, statements)
                                       : StatementByStatement(file, statements, static_cast<size_t>(info->done)));
    report.applied.push_back(file.name);
    report.took_ms.push_back(std::chrono::duration_cast<Millis>(Clock::Real().Now() - began).count());
    LogInfo("store", "migration applied", {{"owner", owner_}, {"file", file.name}, {"ms", std::to_string(report.took_ms.back())}});
  }
  return report;
}

absl::StatusOr<MigrationReport> Runner::Down(const std::vector<MigrationFile>& files, std::optional<int> to) {
  ASSIGN_OR_RETURN(const MigrationOverview overview, Overview(admin_, owner_, files, Detail::kBrief));
  ASSIGN_OR_RETURN(const std::vector<MigrationInfo> plan, PlanRollback(overview, owner_, to));
  std::vector<const MigrationFile*> steps;
  for (const MigrationInfo& info : plan) {
    const auto file = std::find_if(files.begin(), files.end(), [&](const auto& f) { return f.number == info.number; });
    RETURN_IF_ERROR(CheckedStatements(file->down_name, file->down_sql, true, owner_).status());
    steps.push_back(&*file);
  }
  MigrationReport report;
  for (const MigrationFile* file : steps) {
    const Instant began = Clock::Real().Now();
    RETURN_IF_ERROR(Begin(*file, true));
    RETURN_IF_ERROR(TakeBack(*file));
    report.applied.push_back(file->name);
    report.took_ms.push_back(std::chrono::duration_cast<Millis>(Clock::Real().Now() - began).count());
    LogInfo("store", "migration rolled back", {{"owner", owner_}, {"file", file->name}});
  }
  return report;
}

absl::Status Runner::Open() {
  ASSIGN_OR_RETURN(session_, Connection::Open(login_));
  ASSIGN_OR_RETURN(id_, IdentifySession(*session_));
  return absl::OkStatus();
}

absl::Status Runner::Begin(const MigrationFile& file, bool down) {
  if (!session_) RETURN_IF_ERROR(Open());
  // Who lost the connection that holds the lock may have company by now.
  if (!admin_.CheckIdle()) return Error("DATABASE_UNAVAILABLE", "the connection that holds the migration lock was lost");
  announced_ = true;
  return Announce(admin_, owner_, file, down, id_, audit_);
}

// What the session needs before each file, whatever the file before it has set.
absl::Status Runner::Prepare() {
  RETURN_IF_ERROR(session_->RunScript("DISCARD ALL"));  // alone: it refuses company
  return session_->RunScript("SET lock_timeout = '5s'; SET idle_in_transaction_session_timeout = 0; SET statement_timeout = " +
                             std::to_string(limits_.statement_timeout.count()));
}

absl::Status Runner::Failed(const std::string& file, const absl::Status& status, TextPlace place) const {
  const std::vector<ErrorDetail> details = ErrorDetails(status);
  if (ErrorCode(status) == "DATABASE_UNAVAILABLE") {
    return MigrationError("DATABASE_UNAVAILABLE", file, owner_, std::string(status.message()) + "; what was not recorded is not done", place);
  }
  std::string sentence = details.empty() ? std::string(status.message()) : details[0].message;
  const std::string state = SqlState(status);
  if (state == "55P03" && !blockers_.empty()) sentence += ". It waited for " + blockers_;
  if (state == "25001" && !file.ends_with(".down.sql")) sentence += ". Put it into a file whose first line is -- bulkhead: no-transaction";
  if (state == "57014" && limits_.statement_timeout > Millis(0)) {
    sentence += ". A statement of a migration may take " + FormatDuration(limits_.statement_timeout) +
                " (store.migrationTimeout; a file may set its own statement_timeout)";
  }
  return MigrationError("MIGRATION_FAILED", file, owner_, sentence, place, state);
}

absl::Status Runner::Retrying(const std::string& file, const std::function<absl::Status()>& attempt) {
  for (int retry = 0;; ++retry) {
    blockers_.clear();
    absl::Status status = attempt();
    if (status.ok() || retry == kMaxRetries || !WorthRetrying(status)) return status;
    const Millis pause(kRetryBase.count() * (1 << retry) / 2 + static_cast<int64_t>(random_.Below(kRetryBase.count() << retry)));
    LogWarn("store", "migration waits for a lock and is tried again",
            {{"owner", owner_}, {"file", file}, {"retry", std::to_string(retry + 1)}, {"reason", std::string(status.message())},
             {"holder", blockers_}});
    std::this_thread::sleep_for(pause);
  }
}

absl::Status Runner::InTransaction(const Script& script, const std::function<absl::Status(Connection&)>& record) {
  TextPlace place;
  absl::Status status = Retrying(script.name, [&]() -> absl::Status {
    RETURN_IF_ERROR(Prepare());
    return session_->Transaction([&](Connection& c) -> absl::Status {
      ASSIGN_OR_RETURN(Rows before, c.Run("SELECT pg_current_xact_id()::text AS id"));
      int completed = 0;
      place = {};
      absl::Status ran = c.RunScript(script.sql, &completed, Watch());
      if (!ran.ok()) {
        const std::vector<ErrorDetail> details = ErrorDetails(ran);
        if (!details.empty()) place = {details[0].line, details[0].column};
        // An error at run time has no position: the statement's first token is the best there is.
        if (place.line == 0 && static_cast<size_t>(completed) < script.statements.size()) {
          place = {script.statements[completed].line, script.statements[completed].column};
        }
        return ran;
      }
      // What the check of the text could not see, e.g. with standard_conforming_strings switched off inside the file.
      ASSIGN_OR_RETURN(Rows after, c.Run("SELECT pg_current_xact_id()::text AS id"));
      if (before.Text(0, "id") != after.Text(0, "id")) return Error("DATABASE_ERROR", "the file ended the transaction it runs in");
      return record(c);
    });
  });
  return status.ok() ? status : Failed(script.name, status, place);
}

absl::StatusOr<bool> Runner::Recorded(int number) {
  // The server may still be at it: only when the session is gone its outcome is known.
  const Instant deadline = Clock::Real().Now() + kOutcomeWait;
  while (true) {
    ASSIGN_OR_RETURN(const Rows session, admin_.Run("SELECT FROM pg_stat_activity WHERE pid = $1::int AND backend_start = $2::timestamptz",
                                                    {std::to_string(id_.pid), id_.started}));
    if (session.size() == 0 || Clock::Real().Now() >= deadline) break;
    std::this_thread::sleep_for(kOutcomePoll);
  }
  session_.reset();
  ASSIGN_OR_RETURN(const Rows rows, admin_.Run("SELECT FROM bulkhead_internal.migrations WHERE owner = $1 AND number = $2::int "
                                               "AND applied_at IS NOT NULL", {owner_, std::to_string(number)}));
  return rows.size() == 1;
}

absl::Status Runner::WholeFile(const MigrationFile& file, const std::vector<SqlStatement>& statements) {
  absl::Status status = InTransaction({file.name, file.sql, statements}, [&](Connection& c) {
    return Record(c, owner_, file, file.checksum, std::nullopt, true);
  });
  if (ErrorCode(status) != "DATABASE_UNAVAILABLE") return status;
  auto recorded = Recorded(file.number);
  return recorded.ok() && *recorded ? absl::OkStatus() : status;
}

absl::Status Runner::TakeBack(const MigrationFile& file) {
  ASSIGN_OR_RETURN(const auto statements, CheckedStatements(file.down_name, file.down_sql, true, owner_));
  absl::Status status = InTransaction({file.down_name, file.down_sql, statements}, [&](Connection& c) { return RecordRollback(c, file); });
  if (ErrorCode(status) != "DATABASE_UNAVAILABLE") return status;
  auto recorded = Recorded(file.number);
  return recorded.ok() && !*recorded ? absl::OkStatus() : status;
}

// A CREATE INDEX CONCURRENTLY that failed leaves its index behind, invalid: never used, always maintained, and in the way of the
// same statement (with IF NOT EXISTS even silently). Nobody else makes indexes here while we hold the lock.
absl::Status Runner::DropInvalidIndex(const MigrationFile& file, const SqlStatement& statement) {
  const std::string index = ConcurrentIndex(statement);
  if (index.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const Rows rows, session_->Run(
      "SELECT c.oid::pg_catalog.regclass::text AS name FROM pg_catalog.pg_class c JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid "
      "WHERE c.oid = pg_catalog.to_regclass($1) AND NOT i.indisvalid AND pg_catalog.pg_get_userbyid(c.relowner) = current_user", {index}));
  if (rows.size() == 0) return absl::OkStatus();
  LogWarn("store", "an invalid index that an earlier attempt left is dropped before it is made anew",
          {{"owner", owner_}, {"file", file.name}, {"line", std::to_string(statement.line)}, {"index", rows.Text(0, "name")}});
  return session_->RunScript("DROP INDEX CONCURRENTLY " + rows.Text(0, "name"), nullptr, Watch());
}

absl::Status Runner::StatementByStatement(const MigrationFile& file, const std::vector<SqlStatement>& statements, size_t done) {
  RETURN_IF_ERROR(Prepare());
  const size_t count = statements.size();
  if (done == count) return Record(*session_, owner_, file, file.checksum, count, true);
  for (size_t i = done; i < count; ++i) {
    const SqlStatement& statement = statements[i];
    absl::Status status = Retrying(file.name, [&]() -> absl::Status {
      RETURN_IF_ERROR(DropInvalidIndex(file, statement));
      return session_->RunScript(std::string(statement.text), nullptr, Watch());
    });
    TextPlace place{statement.line, statement.column};
    if (!status.ok()) {
      const std::vector<ErrorDetail> details = ErrorDetails(status);
      if (!details.empty() && details[0].line > 0) {
        place.column = details[0].line == 1 ? place.column + details[0].column - 1 : details[0].column;
        place.line += details[0].line - 1;
      }
      return Failed(file.name, status, place);
    }
    const bool last = i + 1 == count;
    status = Record(*session_, owner_, file, last ? file.checksum : PrefixChecksum(statements, i + 1), i + 1, last);
    if (!status.ok()) return Failed(file.name, status, place);
  }
  return absl::OkStatus();
}

// Lock, run, take the announcement back.
absl::StatusOr<MigrationReport> Locked(Database& admin, std::string_view owner, const std::string& login, const MigrationLimits& limits,
                                       const AuditRecord* audit, const std::function<absl::StatusOr<MigrationReport>(Runner&)>& run) {
  // A connection of its own: the lock lives as long as this session does.
  ASSIGN_OR_RETURN(std::unique_ptr<Connection> connection, Connection::Open(admin.conninfo()));
  RETURN_IF_ERROR(TakeMigrationLock(*connection, std::string(owner), limits.lock_wait));
  if (owner == kOwnOwner) RETURN_IF_ERROR(EnsureHistory(*connection));
  Runner runner(owner, login, limits, audit, *connection);
  if (limits.under_way != nullptr) limits.under_way->fetch_add(1);
  absl::StatusOr<MigrationReport> report = run(runner);
  if (limits.under_way != nullptr) limits.under_way->fetch_sub(1);
  if (runner.announced()) (void)Withdraw(*connection, std::string(owner));  // one that stays names a session that is gone
  return report;
}

}  // namespace

absl::StatusOr<MigrationReport> Migrate(Database& admin, std::string_view owner, const std::string& login,
                                        const std::vector<MigrationFile>& files, const MigrationLimits& limits, const AuditRecord* audit) {
  return Locked(admin, owner, login, limits, audit, [&](Runner& runner) { return runner.Up(files); });
}

absl::StatusOr<MigrationReport> Rollback(Database& admin, std::string_view owner, const std::string& login,
                                         const std::vector<MigrationFile>& files, std::optional<int> to, const MigrationLimits& limits,
                                         const AuditRecord* audit) {
  BULKHEAD_CHECK(owner != kOwnOwner);  // its files are append-only
  return Locked(admin, owner, login, limits, audit, [&](Runner& runner) { return runner.Down(files, to); });
}

absl::StatusOr<MigrationOverview> InspectMigrations(Database& admin, std::string_view owner, const std::vector<MigrationFile>& files) {
  MigrationOverview overview;
  RETURN_IF_ERROR(admin.With([&](Connection& c) -> absl::Status {
    ASSIGN_OR_RETURN(overview, Overview(c, std::string(owner), files, Detail::kFull));
    return absl::OkStatus();
  }));
  return overview;
}

absl::StatusOr<std::vector<MigrationInfo>> PlanRollback(const MigrationOverview& overview, std::string_view owner, std::optional<int> to) {
  std::vector<MigrationInfo> plan;
  bool named = !to || *to == 0;
  for (auto info = overview.files.rbegin(); info != overview.files.rend(); ++info) {
    if (info->state != MigrationState::kApplied && info->state != MigrationState::kPartial) continue;
    named |= to && info->number == *to && info->state == MigrationState::kApplied;
    if (to ? info->number <= *to : !plan.empty()) continue;
    plan.push_back(*info);
  }
  if (!named) {
    const std::string sentence = "migration " + std::to_string(*to) + " of " + std::string(owner) + " is not applied: nothing can be rolled back to it";
    return Error("INVALID_ARGUMENT", sentence, {{.path = "to", .message = sentence}});
  }
  for (const MigrationInfo& info : plan) {
    std::string why;
    if (info.state == MigrationState::kPartial) {
      why = "it is half done (" + std::to_string(info.done) + " statements); finish it with `up` first";
    } else if (!info.present) {
      why = "this version of the module has no such file; roll back with the version that has it";
    } else if (info.down_checksum.empty()) {
      why = "it has no down file: nothing was rolled back";
    }
    if (!why.empty()) return MigrationError("MIGRATION_IRREVERSIBLE", info.name, owner, why);
  }
  return plan;
}

}  // namespace bulkhead
