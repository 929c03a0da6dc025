#include "database_connection.h"

#include <poll.h>

#include <cerrno>
#include <string_view>

#include "bulkhead/log.h"

namespace bulkhead::sdk {
namespace {

constexpr std::chrono::milliseconds kCancelGrace{2'000};  // for the server to confirm a cancelled statement
constexpr size_t kMaxPreparedText = 16 * 1024;            // bytes of a statement; a longer one is not prepared
constexpr size_t kMaxLoggedText = 2'000;                  // bytes of a slow one

// What every connection is set to, so that text results read the same whatever the server's defaults.
constexpr const char* kSession =
    "SET datestyle = 'ISO, YMD'; SET timezone = 'UTC'; SET bytea_output = 'hex'; SET extra_float_digits = 1; SET intervalstyle = "
    "'iso_8601'";

std::string Trim(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text;
}

bool Transient(std::string_view sqlstate) {
  return sqlstate.empty() || sqlstate.starts_with("08") || sqlstate == "40001" || sqlstate == "40P01" ||
         sqlstate.starts_with("57P") || sqlstate == "53300" || sqlstate == "55P03" || sqlstate == kStaleStatement;
}

std::string_view Field(const PGresult* result, int field) {
  const char* text = pq().PQresultErrorField(result, field);
  return text ? text : "";
}

// The values as libpq takes them: text, apart from the SQL.
std::vector<const char*> ValuesOf(const Params& params) {
  if (params.size() > 65'535) throw DatabaseError("more than 65,535 parameters", "", false);
  std::vector<const char*> values(params.size());
  for (size_t i = 0; i < params.size(); ++i) {
    if (params[i].null()) continue;
    values[i] = params[i].text().c_str();
    // libpq takes text up to its first NUL, so that the rest would be lost without a word. PostgreSQL's code for such text.
    if (params[i].text().find('\0') != std::string::npos) {
      throw DatabaseError("parameter $" + std::to_string(i + 1) + " holds a NUL, which no PostgreSQL text can", "22021", false);
    }
  }
  return values;
}

}  // namespace

Connection::Connection(const std::string& conninfo, const std::atomic<int64_t>& slow_ms) : slow_ms_(slow_ms) {
  const char* names[] = {"dbname", "connect_timeout", "client_encoding", nullptr};
  const char* values[] = {conninfo.c_str(), "5", "UTF8", nullptr};
  conn_ = pq().PQconnectdbParams(names, values, /*expand_dbname=*/1);
  if (!conn_ || pq().PQstatus(conn_) != CONNECTION_OK) {
    std::string why = conn_ ? Trim(pq().PQerrorMessage(conn_)) : "out of memory";
    pq().PQfinish(conn_);
    throw DatabaseError("the database can't be reached: " + why, "", true);
  }
  pq().PQsetnonblocking(conn_, 1);
  cancel_ = pq().PQgetCancel(conn_);
  try {
    if (!pq().PQsendQuery(conn_, kSession)) ThrowLost();
    Collect();
  } catch (...) {
    Free();
    throw;
  }
}

void Connection::Free() {
  pq().PQfreeCancel(cancel_);
  pq().PQfinish(conn_);
}

void Connection::ThrowLost() {
  throw DatabaseError("the connection to the database was lost: " + Trim(pq().PQerrorMessage(conn_)), "", true);
}

void Connection::Cancel() {
  char error[256];
  if (cancel_) pq().PQcancel(cancel_, error, sizeof error);
}

bool Connection::Usable() {
  if (pq().PQstatus(conn_) != CONNECTION_OK || pq().PQtransactionStatus(conn_) != PQTRANS_IDLE) return false;
  pollfd ready{pq().PQsocket(conn_), POLLIN, 0};
  if (poll(&ready, 1, 0) > 0 && !pq().PQconsumeInput(conn_)) return false;
  return pq().PQstatus(conn_) == CONNECTION_OK;
}

// ---- statements ----

Rows Connection::Query(const std::string& sql, const Params& params) {
  const bool alone = !idle_in_transaction();
  const auto began = Clock::now();
  try {
    Rows rows = [&] {
      try {
        return Send(sql, params);
      } catch (const DatabaseError& error) {
        // Nothing of it has happened. Inside a transaction that one is lost, and whoever began it does it again.
        if (error.sqlstate() != kStaleStatement || !alone) throw;
        return Send(sql, params);
      }
    }();
    LogSlow(sql, began, "");
    return rows;
  } catch (const DatabaseError& error) {
    LogSlow(sql, began, error.what());
    throw;
  }
}

Rows Connection::Send(const std::string& sql, const Params& params) {
  const std::vector<const char*> values = ValuesOf(params);
  const int count = static_cast<int>(values.size());
  const std::string name = NameOf(sql);
  const bool sent = name.empty() ? pq().PQsendQueryParams(conn_, sql.c_str(), count, nullptr, values.data(), nullptr, nullptr, 0)
                                 : pq().PQsendQueryPrepared(conn_, name.c_str(), count, values.data(), nullptr, nullptr, 0);
  if (!sent) ThrowLost();
  if (name.empty()) return Collect();
  try {
    return Collect();
  } catch (const DatabaseError& error) {
    if (error.sqlstate() == kStaleStatement) Forget(sql);
    throw;
  }
}

std::string Connection::NameOf(const std::string& sql) {
  if (sql.size() > kMaxPreparedText) return "";
  auto [found, fresh] = prepared_.try_emplace(sql);
  if (fresh) {
    found->second.used = order_.insert(order_.begin(), sql);
    if (order_.size() > kMaxPrepared) Forget(std::string(order_.back()));
    return "";
  }
  order_.splice(order_.begin(), order_, found->second.used);
  if (!found->second.name.empty()) return found->second.name;
  // In a transaction that has failed nothing can be prepared, and the statement will be refused as it is.
  if (pq().PQtransactionStatus(conn_) == PQTRANS_INERROR) return "";
  const std::string name = "s" + std::to_string(next_name_++);
  if (!pq().PQsendPrepare(conn_, name.c_str(), sql.c_str(), 0, nullptr)) ThrowLost();
  Collect();
  return found->second.name = name;
}

void Connection::Forget(const std::string& sql) {
  auto found = prepared_.find(sql);
  const std::string name = std::move(found->second.name);
  order_.erase(found->second.used);
  prepared_.erase(found);
  // Where it can't be said now the server keeps it until the connection ends.
  if (name.empty() || pq().PQtransactionStatus(conn_) == PQTRANS_INERROR) return;
  try {
    if (pq().PQsendQuery(conn_, ("DEALLOCATE " + name).c_str())) Collect();
  } catch (const DatabaseError&) {  // DISCARD ALL was first
  }
}

std::vector<Rows> Connection::Pipeline(const std::vector<Statement>& statements) {
  if (statements.size() > kMaxPipeline) throw DatabaseError("more than " + std::to_string(kMaxPipeline) + " statements at once", "", false);
  for (const Statement& statement : statements) ValuesOf(statement.params);
  const auto began = Clock::now();
  if (!pq().PQenterPipelineMode(conn_)) ThrowLost();
  // Nothing blocks here: what the server does not take yet waits in libpq, and goes out while results come in.
  for (const Statement& statement : statements) {
    const std::vector<const char*> values = ValuesOf(statement.params);
    if (!pq().PQsendQueryParams(conn_, statement.sql.c_str(), static_cast<int>(values.size()), nullptr, values.data(), nullptr, nullptr, 0)) ThrowLost();
  }
  if (!pq().PQpipelineSync(conn_)) ThrowLost();
  std::vector<Rows> all;
  std::shared_ptr<QueryResult> failed;
  bool timed_out = false;
  auto until = Clock::now() + kStatementTimeout;
  for (bool over = false; !over;) {
    if (!AwaitResult(until)) {
      if (timed_out) throw DatabaseError("a pipeline ran out of time and could not be cancelled", "57014", false);
      timed_out = true;
      Cancel();
      until = Clock::now() + kCancelGrace;
      continue;
    }
    PGresult* result = pq().PQgetResult(conn_);
    if (!result) {  // between two statements
      if (!timed_out) until = Clock::now() + kStatementTimeout;
      continue;
    }
    auto owned = std::make_shared<QueryResult>(result);
    switch (pq().PQresultStatus(result)) {
      case PGRES_COMMAND_OK:
      case PGRES_TUPLES_OK:
      case PGRES_EMPTY_QUERY: all.emplace_back(std::move(owned)); break;
      case PGRES_PIPELINE_SYNC: over = true; break;
      case PGRES_PIPELINE_ABORTED: break;
      case PGRES_FATAL_ERROR:
        if (!failed) failed = std::move(owned);
        if (pq().PQstatus(conn_) != CONNECTION_OK) ThrowLost();
        break;
      default: throw DatabaseError("COPY is not offered here: use INSERT, or unnest over arrays", "0A000", false);
    }
  }
  if (!pq().PQexitPipelineMode(conn_)) ThrowLost();
  LogSlow(std::to_string(statements.size()) + " statements at once, the first: " + statements.front().sql, began, failed ? "one of them failed" : "");
  if (failed) Throw(*failed, timed_out);
  return all;
}

// ---- results ----

// Waits until the next result can be taken without blocking; false when `until` has passed.
bool Connection::AwaitResult(Clock::time_point until) {
  for (;;) {
    int flushed = pq().PQflush(conn_);
    if (flushed < 0) ThrowLost();
    if (flushed == 0 && !pq().PQisBusy(conn_)) return true;
    auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now()).count();
    if (left <= 0) return false;
    pollfd wait{pq().PQsocket(conn_), short(POLLIN | (flushed ? POLLOUT : 0)), 0};
    int n = poll(&wait, 1, int(left));
    if (n < 0 && errno != EINTR) ThrowLost();
    if (n > 0 && (wait.revents & (POLLIN | POLLERR | POLLHUP)) && !pq().PQconsumeInput(conn_)) ThrowLost();
  }
}

Rows Connection::Collect() {
  std::shared_ptr<QueryResult> last, failed;
  bool timed_out = false;
  Clock::time_point until = Clock::now() + kStatementTimeout;
  for (;;) {
    if (!AwaitResult(until)) {
      if (timed_out) throw DatabaseError("a statement ran out of time and could not be cancelled", "57014", false);
      timed_out = true;
      Cancel();
      until = Clock::now() + kCancelGrace;
      continue;
    }
    PGresult* result = pq().PQgetResult(conn_);
    if (!result) break;
    auto owned = std::make_shared<QueryResult>(result);
    switch (pq().PQresultStatus(result)) {
      case PGRES_COMMAND_OK:
      case PGRES_TUPLES_OK:
      case PGRES_EMPTY_QUERY: last = std::move(owned); break;
      case PGRES_COPY_IN:
      case PGRES_COPY_OUT:
      case PGRES_COPY_BOTH: throw DatabaseError("COPY is not offered here: use INSERT, or unnest over arrays", "0A000", false);
      default:
        if (!failed) failed = std::move(owned);
    }
  }
  if (failed) Throw(*failed, timed_out);
  if (!last) ThrowLost();
  return Rows(std::move(last));
}

void Connection::Throw(const QueryResult& failed, bool timed_out) {
  std::string state(Field(failed.result, PG_DIAG_SQLSTATE));
  std::string message(Field(failed.result, PG_DIAG_MESSAGE_PRIMARY));
  if (message.empty()) message = Trim(pq().PQresultErrorMessage(failed.result));
  if (timed_out) message = "cancelled after " + std::to_string(kStatementTimeout.count()) + " ms: " + message;
  // A table of the statement was altered, so that it answers other columns than it was prepared for; or the module has thrown it away.
  if ((state == "0A000" && Field(failed.result, PG_DIAG_SOURCE_FUNCTION) == "RevalidateCachedQuery") || state == "26000") state = kStaleStatement;
  throw DatabaseError(message, state, Transient(state));
}

void Connection::LogSlow(const std::string& sql, Clock::time_point began, const char* outcome) {
  const int64_t slow = slow_ms_.load(std::memory_order_relaxed);
  const int64_t took = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - began).count();
  if (slow <= 0 || took < slow) return;
  Json fields = {{"ms", took}, {"sql", sql.substr(0, kMaxLoggedText)}};
  if (*outcome) fields["error"] = outcome;
  Logger().Warn("a slow statement", fields);
}

}  // namespace bulkhead::sdk
