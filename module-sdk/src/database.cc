// The pool and its connections. The only place of the SDK that calls libpq for work; values are in database_value.cc.
#include "bulkhead/database.h"

#include <poll.h>

#include <cerrno>
#include <condition_variable>
#include <mutex>

#include "database_result.h"

namespace bulkhead::sdk {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kCancelGrace{2'000};  // for the server to confirm a cancelled statement

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
         sqlstate.starts_with("57P") || sqlstate == "53300" || sqlstate == "55P03";
}

}  // namespace

class Connection {
 public:
  explicit Connection(const std::string& conninfo) {
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
      Collect(kStatementTimeout);
    } catch (...) {
      Free();
      throw;
    }
  }
  Connection(const Connection&) = delete;
  ~Connection() { Free(); }

  Rows Query(const std::string& sql, const Params& params) {
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
    if (!pq().PQsendQueryParams(conn_, sql.c_str(), int(params.size()), nullptr, values.data(), nullptr, nullptr, 0)) ThrowLost();
    return Collect(kStatementTimeout);
  }

  // Any thread: asks the server to stop what runs. (PQcancel is thread-safe.)
  void Cancel() {
    char error[256];
    if (cancel_) pq().PQcancel(cancel_, error, sizeof error);
  }
  // Fit to be used again: connected, no open transaction, and not closed by the server while it was idle.
  bool Usable() {
    if (pq().PQstatus(conn_) != CONNECTION_OK || pq().PQtransactionStatus(conn_) != PQTRANS_IDLE) return false;
    pollfd ready{pq().PQsocket(conn_), POLLIN, 0};
    if (poll(&ready, 1, 0) > 0 && !pq().PQconsumeInput(conn_)) return false;
    return pq().PQstatus(conn_) == CONNECTION_OK;
  }
  bool idle_in_transaction() const { return pq().PQtransactionStatus(conn_) != PQTRANS_IDLE; }

 private:
  void Free() {
    pq().PQfreeCancel(cancel_);
    pq().PQfinish(conn_);
  }
  [[noreturn]] void ThrowLost() {
    throw DatabaseError("the connection to the database was lost: " + Trim(pq().PQerrorMessage(conn_)), "", true);
  }

  // Waits until the next result can be taken without blocking; false when `until` has passed.
  bool AwaitResult(Clock::time_point until) {
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

  // Takes all results of what was sent; answers the last, throws the first error.
  Rows Collect(std::chrono::milliseconds timeout) {
    std::shared_ptr<QueryResult> last, failed;
    bool timed_out = false;
    Clock::time_point until = Clock::now() + timeout;
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
    if (failed) {
      const char* state = pq().PQresultErrorField(failed->result, PG_DIAG_SQLSTATE);
      const char* primary = pq().PQresultErrorField(failed->result, PG_DIAG_MESSAGE_PRIMARY);
      std::string message = primary ? primary : Trim(pq().PQresultErrorMessage(failed->result));
      if (timed_out) message = "cancelled after " + std::to_string(timeout.count()) + " ms: " + message;
      throw DatabaseError(message, state ? state : "", Transient(state ? state : ""));
    }
    if (!last) ThrowLost();
    return Rows(std::move(last));
  }

  PGconn* conn_ = nullptr;
  PGcancel* cancel_ = nullptr;
};

struct Database::Pool {
  const std::string conninfo;
  const int max;
  std::mutex mutex;
  std::condition_variable returned;
  std::vector<std::unique_ptr<Connection>> idle;  // the last one returned is taken first
  std::vector<Connection*> busy;
  int open = 0;  // idle, busy and being opened
  bool closed = false;
};

// A connection out of the pool, for as long as this lives.
class Lease {
 public:
  explicit Lease(Database& database) : pool_(*database.pool_) {
    std::unique_lock lock(pool_.mutex);
    auto until = Clock::now() + kAcquireTimeout;
    for (;;) {
      if (pool_.closed) throw DatabaseError("the module is stopping and its database pool is closed", "", false);
      while (!pool_.idle.empty()) {
        connection_ = std::move(pool_.idle.back());
        pool_.idle.pop_back();
        if (connection_->Usable()) {
          pool_.busy.push_back(connection_.get());
          return;
        }
        connection_.reset();
        --pool_.open;
      }
      if (pool_.open < pool_.max) break;
      if (pool_.returned.wait_until(lock, until) == std::cv_status::timeout && pool_.idle.empty() && pool_.open >= pool_.max) {
        throw DatabaseError("no free connection: all " + std::to_string(pool_.max) + " of this worker are busy", "", true);
      }
    }
    ++pool_.open;
    lock.unlock();
    try {
      connection_ = std::make_unique<Connection>(pool_.conninfo);
    } catch (...) {
      lock.lock();
      --pool_.open;
      pool_.returned.notify_one();
      throw;
    }
    lock.lock();
    pool_.busy.push_back(connection_.get());
  }
  Lease(const Lease&) = delete;
  ~Lease() {
    std::lock_guard lock(pool_.mutex);
    std::erase(pool_.busy, connection_.get());
    if (!pool_.closed && connection_->Usable()) {
      pool_.idle.push_back(std::move(connection_));
    } else {
      connection_.reset();
      --pool_.open;
    }
    pool_.returned.notify_one();
  }
  Connection& operator*() { return *connection_; }
  Connection* operator->() { return connection_.get(); }

 private:
  Database::Pool& pool_;
  std::unique_ptr<Connection> connection_;
};

Database::Database(std::string conninfo, int max_connections)
    : pool_(new Pool{.conninfo = std::move(conninfo), .max = max_connections}) {}

Database::~Database() { Close(); }

Rows Database::Query(const std::string& sql, const Params& params) {
  Lease lease(*this);
  return lease->Query(sql, params);
}

void Database::RunTransaction(const std::function<void(Transaction&)>& fn) {
  Lease lease(*this);
  lease->Query("BEGIN", {});
  try {
    Transaction transaction(*lease);
    fn(transaction);
  } catch (...) {
    try {
      if (lease->idle_in_transaction()) lease->Query("ROLLBACK", {});
    } catch (const DatabaseError&) {  // the connection is gone, and with it the transaction
    }
    throw;
  }
  Rows committed = lease->Query("COMMIT", {});
  // PostgreSQL answers the COMMIT of a failed transaction with ROLLBACK and no error.
  if (committed.command() == "ROLLBACK") {
    throw DatabaseError("the transaction was rolled back, because a statement in it had failed", "25P02", false);
  }
}

void Database::Ping() { Query("SELECT 1"); }

void Database::Close() {
  std::lock_guard lock(pool_->mutex);
  pool_->closed = true;
  pool_->open -= int(pool_->idle.size());
  pool_->idle.clear();
  for (Connection* connection : pool_->busy) connection->Cancel();
  pool_->returned.notify_all();
}

Rows Transaction::Query(const std::string& sql, const Params& params) { return connection_.Query(sql, params); }

}  // namespace bulkhead::sdk
