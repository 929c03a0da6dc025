// The module's own PostgreSQL schema through a small pool: up to 4 connections, opened when first needed, reopened after a
// loss. Every call blocks, so call from worker threads and jobs, never from an Inline() handler. Database is thread-safe;
// Transaction and Rows belong to one thread. The module's schema is first in search_path: name tables without a schema.
//
// A text that a connection is given for the second time is prepared there, and parsed and planned no more. Statements of 500 ms and more are
// logged as warnings, with their text and without their parameters.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "bulkhead/errors.h"

namespace bulkhead::sdk {

using WallTime = std::chrono::system_clock::time_point;

inline constexpr int kMaxConnections = 4;                              // per worker; the role has a CONNECTION LIMIT
inline constexpr std::chrono::milliseconds kAcquireTimeout{5'000};     // for a free connection; beyond: DatabaseError, transient
inline constexpr std::chrono::milliseconds kStatementTimeout{60'000};  // for one statement; beyond it is cancelled: DatabaseError
inline constexpr std::chrono::milliseconds kSlowStatement{500};        // logged from then on, unless SetSlowStatement() says otherwise
inline constexpr size_t kMaxPrepared = 128;                            // statements of one connection; beyond, the longest unused goes
inline constexpr size_t kMaxPipeline = 10'000;                         // statements at once; beyond: DatabaseError
inline constexpr int kTransactionAttempts = 5;

class DatabaseError : public std::runtime_error {
 public:
  DatabaseError(const std::string& message, std::string sqlstate, bool transient)
      : std::runtime_error(message), sqlstate_(std::move(sqlstate)), transient_(transient) {}
  // Five characters (PostgreSQL, appendix A), e.g. "23505" for a violated unique constraint; empty when no server answered. Also 26000 when a
  // table was altered under a statement that is prepared.
  const std::string& sqlstate() const { return sqlstate_; }
  // True when the same transaction may succeed if run again: serialisation failure, deadlock, no connection.
  bool transient() const { return transient_; }

 private:
  std::string sqlstate_;
  bool transient_;
};

struct Bytes {  // bytea
  std::string data;
};

// One parameter ($1, $2, …), sent apart from the SQL text. Made implicitly from bool, integers, floating point, text, Json,
// time, Bytes, vectors of these scalars (as arrays), optionals of them, and nullptr (NULL). Text with a NUL is refused when it is
// sent: DatabaseError 22021.
class Param {
 public:
  Param(std::nullptr_t) : null_(true) {}
  Param(bool v) : text_(v ? "t" : "f") {}
  template <typename T>
  requires(std::is_integral_v<T> && !std::is_same_v<T, bool>) Param(T v) : text_(std::to_string(v)) {}
  Param(double v);
  Param(float v) : Param(double(v)) {}
  Param(const char* v) : text_(v) {}
  Param(std::string v) : text_(std::move(v)) {}
  Param(std::string_view v) : text_(v) {}
  Param(const Json& v) : text_(v.dump()) {}
  Param(WallTime v);
  Param(const Bytes& v);
  template <typename T>
  Param(const std::optional<T>& v) : null_(!v) {
    if (v) *this = Param(*v);
  }
  template <typename T>
  Param(const std::vector<T>& v) {
    text_ = "{";
    for (const auto& item : v) AppendElement(Param(item));
    text_ += "}";
  }
  bool null() const { return null_; }
  const std::string& text() const { return text_; }

 private:
  void AppendElement(const Param& element);
  std::string text_;
  bool null_ = false;
};
using Params = std::vector<Param>;

struct QueryResult;  // what libpq answered; internal
class Rows;

// One row; keeps the result it is part of alive. Columns by name or by number from 0. A getter throws DatabaseError when the
// column does not exist, is NULL (use Get<std::optional<T>>), or does not read as T.
class Row {
 public:
  bool IsNull(std::string_view column) const { return IsNull(Index(column)); }
  bool IsNull(int column) const;
  // T: bool, int32_t, int64_t, double, std::string, std::string_view (as long as this Row lives), Json, WallTime, Bytes, or
  // std::optional of one.
  template <typename T>
  T Get(std::string_view column) const {
    return Get<T>(Index(column));
  }
  template <typename T>
  T Get(const char* column) const {
    return Get<T>(Index(column));
  }
  template <typename T>
  T Get(int column) const {
    if constexpr (IsOptional<T>::value) {
      if (IsNull(column)) return std::nullopt;
      return Get<typename T::value_type>(column);
    } else {
      T out;
      Read(column, out);
      return out;
    }
  }
  // The row as an object: numbers, booleans and json columns as themselves, numeric as a number, timestamps as RFC 3339 in UTC
  // with milliseconds, everything else as text, NULL as null.
  Json ToJson() const;

 private:
  friend class Rows;
  template <typename T>
  struct IsOptional : std::false_type {};
  template <typename T>
  struct IsOptional<std::optional<T>> : std::true_type {};
  Row(std::shared_ptr<const QueryResult> result, int row) : result_(std::move(result)), row_(row) {}
  int Index(std::string_view column) const;
  std::string_view Text(int column) const;  // throws for NULL
  void Read(int column, bool& out) const;
  void Read(int column, int32_t& out) const;
  void Read(int column, int64_t& out) const;
  void Read(int column, double& out) const;
  void Read(int column, std::string& out) const { out = Text(column); }
  void Read(int column, std::string_view& out) const { out = Text(column); }
  void Read(int column, Json& out) const;
  void Read(int column, WallTime& out) const;
  void Read(int column, Bytes& out) const;
  std::shared_ptr<const QueryResult> result_;
  int row_;
};

// The whole result of one statement, in memory: use LIMIT.
class Rows {
 public:
  explicit Rows(std::shared_ptr<const QueryResult> result) : result_(std::move(result)) {}
  int size() const;
  bool empty() const { return size() == 0; }
  int64_t affected() const;          // rows inserted, updated, deleted or selected
  std::string_view command() const;  // the command tag, e.g. "INSERT 0 1"
  int columns() const;
  std::string_view column_name(int column) const;
  Row operator[](int row) const { return Row(result_, row); }
  Row front() const { return (*this)[0]; }
  Json ToJson() const;  // array of Row::ToJson()

  class Iterator {
   public:
    Iterator(const Rows* rows, int row) : rows_(rows), row_(row) {}
    Row operator*() const { return (*rows_)[row_]; }
    Iterator& operator++() {
      ++row_;
      return *this;
    }
    bool operator!=(const Iterator& other) const { return row_ != other.row_; }

   private:
    const Rows* rows_;
    int row_;
  };
  Iterator begin() const { return Iterator(this, 0); }
  Iterator end() const { return Iterator(this, size()); }

 private:
  std::shared_ptr<const QueryResult> result_;
};

class Connection;  // one libpq connection; internal
class Lease;       // one of them out of the pool; internal

struct Statement {
  std::string sql;
  Params params = {};
};

enum class Isolation { kReadCommitted, kRepeatableRead, kSerializable };

struct TransactOptions {
  Isolation isolation = Isolation::kReadCommitted;
  bool read_only = false;
  int attempts = kTransactionAttempts;  // in all, when others get in the way; 1: the first failure is thrown
};

// A transaction in progress. Use it only inside the function it was given to.
class Transaction {
 public:
  explicit Transaction(Connection& connection) : connection_(connection) {}
  Transaction(const Transaction&) = delete;
  Rows Query(const std::string& sql, const Params& params = {});
  // As Database::Pipeline.
  std::vector<Rows> Pipeline(const std::vector<Statement>& statements);

 private:
  Connection& connection_;
};

class Database {
 public:
  // `conninfo` as from Initialize. Opens nothing.
  explicit Database(std::string conninfo, int max_connections = kMaxConnections);
  Database(const Database&) = delete;
  ~Database();

  // One statement. Throws DatabaseError.
  Rows Query(const std::string& sql, const Params& params = {});
  // Several statements in one round trip, and one transaction: all of them or none. The first error is thrown, and nothing behind it runs.
  // Results are in memory, all at once.
  std::vector<Rows> Pipeline(const std::vector<Statement>& statements);
  // Runs `fn(Transaction&)` between BEGIN and COMMIT and returns what it returns; rolls back when it throws. Holds one connection
  // until it is over, so don't use the Database inside `fn`.
  //
  // `fn` is called again, after a short random wait, when the transaction failed because of others: a serialization failure (40001), a
  // deadlock (40P01), a table that was altered under a prepared statement. So it changes nothing but the database, or sets what it changes
  // anew. Never again after a lost connection: whether a COMMIT has arrived can't be known then.
  template <typename F>
  auto Transact(F&& fn) -> std::invoke_result_t<F&, Transaction&> {
    return Transact(TransactOptions(), std::forward<F>(fn));
  }
  template <typename F>
  auto Transact(const TransactOptions& options, F&& fn) -> std::invoke_result_t<F&, Transaction&> {
    if constexpr (std::is_void_v<std::invoke_result_t<F&, Transaction&>>) {
      RunTransaction(options, [&](Transaction& t) { fn(t); });
    } else {
      std::optional<std::invoke_result_t<F&, Transaction&>> result;
      RunTransaction(options, [&](Transaction& t) { result.emplace(fn(t)); });
      return *std::move(result);
    }
  }
  // From how long on a statement is logged; 0: never. Any thread.
  void SetSlowStatement(std::chrono::milliseconds time);
  // `SELECT 1`. Throws DatabaseError. The SDK calls it as the health check "database".
  void Ping();
  // Cancels what runs, closes all connections; later calls throw DatabaseError. Called by the SDK after Module::Stop.
  void Close();

 private:
  friend class Lease;
  void RunTransaction(const TransactOptions& options, const std::function<void(Transaction&)>& fn);
  struct Pool;
  std::unique_ptr<Pool> pool_;
};

}  // namespace bulkhead::sdk
