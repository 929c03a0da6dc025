// One libpq connection: opening, statements, transactions, and the way from a PGresult to a status.
#include <libpq-fe.h>
#include <poll.h>

#include <algorithm>
#include <memory>

#include "supervisor/base/log.h"
#include "supervisor/base/status.h"
#include "supervisor/store/database.h"
#include "supervisor/store/sql_script.h"

namespace bulkhead {
namespace {

// How long RunScript waits for an answer before it calls `while_waiting`, the first time and each time after it.
constexpr Millis kFirstWatch{50}, kWatch{500};

struct ResultDeleter {
  void operator()(PGresult* result) const { PQclear(result); }
};
using Result = std::unique_ptr<PGresult, ResultDeleter>;

// Defaults that a connection string may override. A remote server that vanished is noticed within 10 s, not after the
// kernel's quarter of an hour.
constexpr const char* kDefaults[][2] = {
    {"connect_timeout", "5"},        {"application_name", "bulkhead"}, {"client_encoding", "UTF8"},
    {"keepalives_idle", "10"},       {"keepalives_interval", "5"},     {"keepalives_count", "3"},
    {"tcp_user_timeout", "10000"},
};

std::string Trimmed(const char* text) {
  std::string trimmed = text ? text : "";
  while (!trimmed.empty() && (trimmed.back() == '\n' || trimmed.back() == ' ')) trimmed.pop_back();
  return trimmed;
}

std::string Field(const PGresult* result, int code) {
  const char* value = result ? PQresultErrorField(result, code) : nullptr;
  return value ? value : "";
}

absl::Status Unavailable(const std::string& why) {
  return Error("DATABASE_UNAVAILABLE", "the database can't be reached: " + (why.empty() ? "the connection was lost" : why));
}

// Class 08 is the connection; 57P01 to 57P03 a server that is leaving or not yet there, 57P05 an idle session it closed.
bool MeansLost(const std::string& sqlstate) {
  return sqlstate.starts_with("08") || sqlstate == "57P01" || sqlstate == "57P02" || sqlstate == "57P03" || sqlstate == "57P05";
}

absl::Status ErrorOf(PGconn* conn, const PGresult* result, const std::string& sql) {
  const std::string sqlstate = Field(result, PG_DIAG_SQLSTATE);
  if (!result || PQstatus(conn) == CONNECTION_BAD || MeansLost(sqlstate)) {
    std::string why = Field(result, PG_DIAG_MESSAGE_PRIMARY);
    return Unavailable(why.empty() ? Trimmed(PQerrorMessage(conn)) : why);
  }
  std::string sentence = Field(result, PG_DIAG_MESSAGE_PRIMARY);
  if (sentence.empty()) sentence = Trimmed(PQresultErrorMessage(result));
  std::string more = sentence;
  if (const std::string detail = Field(result, PG_DIAG_MESSAGE_DETAIL); !detail.empty()) more += ". " + detail;
  if (const std::string hint = Field(result, PG_DIAG_MESSAGE_HINT); !hint.empty()) more += " " + hint;
  if (const std::string context = Field(result, PG_DIAG_CONTEXT); !context.empty()) more += " (" + context + ")";
  const TextPlace place = PlaceOfCharacter(sql, std::strtoll(Field(result, PG_DIAG_STATEMENT_POSITION).c_str(), nullptr, 10));
  ErrorDetail detail{.path = Field(result, PG_DIAG_CONSTRAINT_NAME), .code = sqlstate, .message = more, .line = place.line,
                     .column = place.column};
  const char* code = sqlstate == "23505" ? "UNIQUE_VIOLATION" : "DATABASE_ERROR";
  return Error(code, "the database refused a statement: " + sentence, {std::move(detail)});
}

// A COPY has nobody to talk to here: ended at once, so that the connection stays usable.
void EndCopy(PGconn* conn, ExecStatusType status) {
  if (status == PGRES_COPY_IN || status == PGRES_COPY_BOTH) PQputCopyEnd(conn, "COPY FROM STDIN has no input here");
  if (status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH) {
    char* buffer = nullptr;
    while (PQgetCopyData(conn, &buffer, 0) > 0) PQfreemem(buffer);
  }
}

// Whatever the server says outside the answer to a statement. `goodbye` is a bool.
void OnNotice(void* goodbye, const PGresult* result) {
  const std::string severity = Field(result, PG_DIAG_SEVERITY_NONLOCALIZED);
  if (severity == "FATAL" || severity == "PANIC") *static_cast<bool*>(goodbye) = true;
  LogDebug("store", Field(result, PG_DIAG_MESSAGE_PRIMARY), {{"severity", severity}});
}

// C's strings end at a NUL, so libpq would send less than was meant. The answer is the server's own to such a text.
absl::Status HasNul() {
  constexpr char kSentence[] = "a text with the character U+0000, which PostgreSQL does not keep";
  return Error("DATABASE_ERROR", std::string("the database refused a statement: ") + kSentence, {{.code = "22021", .message = kSentence}});
}

bool AnyNul(const std::vector<SqlParam>& params) {
  return std::any_of(params.begin(), params.end(), [](const SqlParam& param) { return param && param->find('\0') != std::string::npos; });
}

std::vector<const char*> ValuesOf(const std::vector<SqlParam>& params) {
  std::vector<const char*> values;
  values.reserve(params.size());
  for (const SqlParam& param : params) values.push_back(param ? param->c_str() : nullptr);
  return values;
}

std::string_view Parameter(PGconn* conn, const char* name) {
  const char* value = PQparameterStatus(conn, name);
  return value ? value : "";
}

}  // namespace

absl::StatusOr<std::unique_ptr<Connection>> Connection::Open(const std::string& conninfo) {
  // libpq's own message would repeat a part of it.
  if (PQconninfoOption* options = PQconninfoParse(conninfo.c_str(), nullptr)) {
    PQconninfoFree(options);
  } else {
    return Unavailable("the connection string is malformed (not shown, it may hold a password); encode special characters as %XX");
  }
  std::vector<const char*> keys, values;
  for (const auto& [key, value] : kDefaults) {
    keys.push_back(key);
    values.push_back(value);
  }
  keys.push_back("dbname");  // expanded; as the last one it overrides what stands before it
  values.push_back(conninfo.c_str());
  keys.push_back(nullptr);
  values.push_back(nullptr);
  PGconn* conn = PQconnectdbParams(keys.data(), values.data(), /*expand_dbname=*/1);
  if (!conn) return Unavailable("out of memory");
  std::unique_ptr<Connection> connection(new Connection(conn));
  if (PQstatus(conn) != CONNECTION_OK) return Unavailable(Trimmed(PQerrorMessage(conn)));
  // Rows::Time reads ISO in UTC. Asked for only where the server's own settings differ, which saves the private one a round trip.
  if (Parameter(conn, "TimeZone") != "UTC" || !Parameter(conn, "DateStyle").starts_with("ISO")) {
    RETURN_IF_ERROR(connection->RunScript("SET timezone = 'UTC'; SET datestyle = 'ISO'"));
  }
  return connection;
}

Connection::Connection(pg_conn* conn) : conn_(conn) { PQsetNoticeReceiver(conn, OnNotice, &goodbye_); }

Connection::~Connection() { PQfinish(conn_); }

bool Connection::alive() const { return PQstatus(conn_) == CONNECTION_OK && !goodbye_; }

bool Connection::CheckIdle() {
  if (!alive() || PQtransactionStatus(conn_) != PQTRANS_IDLE) return false;
  pollfd poll_fd{.fd = PQsocket(conn_), .events = POLLIN, .revents = 0};
  // What arrives between statements is a notice, a parameter, the server's goodbye or an end of file.
  while (poll(&poll_fd, 1, 0) > 0) {
    if (!PQconsumeInput(conn_)) return false;
    PQisBusy(conn_);  // parses what was read
    if (!alive()) return false;
  }
  return true;
}

int Connection::TakeNotifications() {
  PQconsumeInput(conn_);
  int count = 0;
  while (PGnotify* notification = PQnotifies(conn_)) {
    PQfreemem(notification);
    ++count;
  }
  return count;
}

int Connection::socket() const { return PQsocket(conn_); }

absl::StatusOr<Rows> Connection::Run(const std::string& sql, const std::vector<SqlParam>& params) {
  if (sql.find('\0') != std::string::npos || AnyNul(params)) return HasNul();
  const std::vector<const char*> values = ValuesOf(params);
  return Taken(PQexecParams(conn_, sql.c_str(), static_cast<int>(values.size()), nullptr, values.data(), nullptr, nullptr, 0), sql);
}

absl::StatusOr<Rows> Connection::RunPrepared(const std::string& sql, const std::vector<SqlParam>& params) {
  if (AnyNul(params)) return HasNul();
  const std::vector<const char*> values = ValuesOf(params);
  auto found = prepared_.find(sql);
  if (found == prepared_.end()) {
    const std::string name = "bulkhead_" + std::to_string(prepared_.size() + 1);
    RETURN_IF_ERROR(Taken(PQprepare(conn_, name.c_str(), sql.c_str(), 0, nullptr), sql).status());
    found = prepared_.emplace(sql, name).first;
  }
  auto rows = Taken(PQexecPrepared(conn_, found->second.c_str(), static_cast<int>(values.size()), values.data(), nullptr, nullptr, 0), sql);
  if (rows.ok() || PQtransactionStatus(conn_) != PQTRANS_IDLE) return rows;
  // Something between us and the server keeps no sessions, or another version of the supervisor has altered a table: nothing was done.
  const std::string state = SqlState(rows.status());
  return state == "26000" || state == "0A000" ? Run(sql, params) : rows;
}

absl::StatusOr<Rows> Connection::Taken(PGresult* taken, const std::string& sql) {
  Result result(taken);
  const ExecStatusType status = PQresultStatus(result.get());
  if (status == PGRES_COPY_IN || status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH) {
    EndCopy(conn_, status);
    while (Result rest{PQgetResult(conn_)}) {
    }
    return Error("DATABASE_ERROR", "COPY can't be run as a plain statement");
  }
  if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK && status != PGRES_EMPTY_QUERY) return ErrorOf(conn_, result.get(), sql);

  Rows rows;
  const int columns = PQnfields(result.get()), count = PQntuples(result.get());
  for (int c = 0; c < columns; ++c) rows.columns_.push_back(PQfname(result.get(), c));
  rows.cells_.resize(count);
  for (int r = 0; r < count; ++r) {
    rows.cells_[r].reserve(columns);
    for (int c = 0; c < columns; ++c) {
      if (PQgetisnull(result.get(), r, c)) rows.cells_[r].emplace_back(std::nullopt);
      else rows.cells_[r].emplace_back(std::in_place, PQgetvalue(result.get(), r, c), PQgetlength(result.get(), r, c));
    }
  }
  rows.affected_ = std::atoi(PQcmdTuples(result.get()));
  return rows;
}

void Connection::Await(const std::function<void()>& while_waiting) {
  Millis patience = kFirstWatch;
  while (PQstatus(conn_) == CONNECTION_OK && PQisBusy(conn_)) {
    pollfd poll_fd{.fd = PQsocket(conn_), .events = POLLIN, .revents = 0};
    const int ready = poll(&poll_fd, 1, static_cast<int>(patience.count()));
    if (ready > 0 && !PQconsumeInput(conn_)) return;
    if (ready != 0) continue;
    while_waiting();
    patience = kWatch;
  }
}

absl::Status Connection::RunScript(const std::string& sql, int* completed, const std::function<void()>& while_waiting) {
  if (completed) *completed = 0;
  if (sql.find('\0') != std::string::npos) return HasNul();
  if (!PQsendQuery(conn_, sql.c_str())) return ErrorOf(conn_, nullptr, sql);
  absl::Status first = absl::OkStatus();
  while (true) {
    if (while_waiting) Await(while_waiting);
    const Result result(PQgetResult(conn_));
    if (!result) break;
    const ExecStatusType status = PQresultStatus(result.get());
    switch (status) {
      case PGRES_TUPLES_OK:
      case PGRES_COMMAND_OK:
        if (completed) ++*completed;
        break;
      case PGRES_EMPTY_QUERY:
        break;
      case PGRES_COPY_IN:
      case PGRES_COPY_OUT:
      case PGRES_COPY_BOTH:
        EndCopy(conn_, status);
        break;
      default:
        if (first.ok()) first = ErrorOf(conn_, result.get(), sql);
    }
    // Nothing more can come, and PQgetResult would repeat itself for ever on some broken connections.
    if (PQstatus(conn_) == CONNECTION_BAD) break;
  }
  if (first.ok() && PQstatus(conn_) == CONNECTION_BAD) return ErrorOf(conn_, nullptr, sql);
  return first;
}

absl::Status Connection::Transaction(const std::function<absl::Status(Connection&)>& body) {
  RETURN_IF_ERROR(Run("BEGIN").status());
  absl::Status status = body(*this);
  if (!status.ok()) {
    // The reason to report is the body's; a rollback that fails leaves a connection that the pool throws away.
    if (alive()) (void)Run("ROLLBACK").status();
    return status;
  }
  Result result(PQexec(conn_, "COMMIT"));
  if (PQresultStatus(result.get()) != PGRES_COMMAND_OK) return ErrorOf(conn_, result.get(), "COMMIT");
  // PostgreSQL answers ROLLBACK to the COMMIT of a transaction in which a statement has failed.
  if (std::string_view(PQcmdStatus(result.get())) != "COMMIT") {
    return Error("DATABASE_ERROR", "the transaction was rolled back: one of its statements had failed");
  }
  return absl::OkStatus();
}

std::string SqlState(const absl::Status& status) {
  if (status.ok()) return "";
  const std::string code = ErrorCode(status);
  if (code != "DATABASE_ERROR" && code != "UNIQUE_VIOLATION") return "";
  for (const ErrorDetail& detail : ErrorDetails(status)) {
    if (detail.code.size() == 5) return detail.code;
  }
  return "";
}

}  // namespace bulkhead
