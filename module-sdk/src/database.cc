// The pool of connections, and transactions on them.
#include "bulkhead/database.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <random>
#include <thread>

#include "database_connection.h"

namespace bulkhead::sdk {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kFirstAgain{5}, kLastAgain{200};  // between two attempts of a transaction: up to that, at random

bool OthersInTheWay(const DatabaseError& error) {
  return error.sqlstate() == "40001" || error.sqlstate() == "40P01" || error.sqlstate() == kStaleStatement;
}

std::string BeginOf(const TransactOptions& options) {
  std::string begin = "BEGIN";
  if (options.isolation == Isolation::kRepeatableRead) begin += " ISOLATION LEVEL REPEATABLE READ";
  if (options.isolation == Isolation::kSerializable) begin += " ISOLATION LEVEL SERIALIZABLE";
  if (options.read_only) begin += " READ ONLY";
  return begin;
}

}  // namespace

struct Database::Pool {
  const std::string conninfo;
  const int max;
  std::mutex mutex;
  std::condition_variable returned;
  std::vector<std::unique_ptr<Connection>> idle;  // the last one returned is taken first
  std::vector<Connection*> busy;
  int open = 0;  // idle, busy and being opened
  bool closed = false;
  std::atomic<int64_t> slow_ms{kSlowStatement.count()};
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
      connection_ = std::make_unique<Connection>(pool_.conninfo, pool_.slow_ms);
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

std::vector<Rows> Database::Pipeline(const std::vector<Statement>& statements) {
  if (statements.empty()) return {};
  Lease lease(*this);
  return lease->Pipeline(statements);
}

namespace {

void RunOnce(Connection& connection, const std::string& begin, const std::function<void(Transaction&)>& fn) {
  connection.Query(begin, {});
  try {
    Transaction transaction(connection);
    fn(transaction);
  } catch (...) {
    try {
      if (connection.idle_in_transaction()) connection.Query("ROLLBACK", {});
    } catch (const DatabaseError&) {  // the connection is gone, and with it the transaction
    }
    throw;
  }
  Rows committed = connection.Query("COMMIT", {});
  // PostgreSQL answers the COMMIT of a failed transaction with ROLLBACK and no error.
  if (committed.command() == "ROLLBACK") {
    throw DatabaseError("the transaction was rolled back, because a statement in it had failed", "25P02", false);
  }
}

}  // namespace

void Database::RunTransaction(const TransactOptions& options, const std::function<void(Transaction&)>& fn) {
  const std::string begin = BeginOf(options);
  Lease lease(*this);
  for (int attempt = 1;; ++attempt) {
    try {
      return RunOnce(*lease, begin, fn);
    } catch (const DatabaseError& error) {
      if (attempt >= options.attempts || !OthersInTheWay(error) || !lease->Usable()) throw;
    }
    static thread_local std::minstd_rand random{std::random_device()()};
    const int64_t most = std::min(kFirstAgain.count() << std::min(attempt - 1, 10), kLastAgain.count());
    std::this_thread::sleep_for(std::chrono::milliseconds(std::uniform_int_distribution<int64_t>(1, most)(random)));
  }
}

void Database::SetSlowStatement(std::chrono::milliseconds time) { pool_->slow_ms = time.count(); }

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

std::vector<Rows> Transaction::Pipeline(const std::vector<Statement>& statements) {
  if (statements.empty()) return {};
  return connection_.Pipeline(statements);
}

}  // namespace bulkhead::sdk
