// PostgreSQL as the rest of the supervisor sees it: a bounded pool of libpq connections, parameters, rows, transactions.
// Everything here blocks and belongs on the BlockingPool, never on the control loop or a gateway thread. Thread-safe.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/base/clock.h"

struct pg_conn;
struct pg_result;

namespace bulkhead {

// The rows of one statement, as text. A value object.
class Rows {
 public:
  int size() const { return static_cast<int>(cells_.size()); }
  int affected() const { return affected_; }
  bool Null(int row, std::string_view column) const;
  std::string Text(int row, std::string_view column) const;   // "" for NULL; CHECKs that the column exists
  int64_t Int(int row, std::string_view column) const;
  bool Bool(int row, std::string_view column) const;
  std::optional<WallTime> Time(int row, std::string_view column) const;  // from timestamptz as ISO in UTC

 private:
  friend class Connection;
  int Column(std::string_view name) const;
  std::vector<std::string> columns_;
  std::vector<std::vector<std::optional<std::string>>> cells_;
  int affected_ = 0;
};

using SqlParam = std::optional<std::string>;  // nullopt is NULL; everything travels as text, cast in SQL ($1::timestamptz)

// One connection. Errors: DATABASE_UNAVAILABLE when the connection is lost or can't be made, DATABASE_ERROR with the
// SQLSTATE in the details otherwise; UNIQUE_VIOLATION for 23505. A statement or parameter with a NUL is not sent: 22021, as the server says.
class Connection {
 public:
  static absl::StatusOr<std::unique_ptr<Connection>> Open(const std::string& conninfo);
  ~Connection();
  absl::StatusOr<Rows> Run(const std::string& sql, const std::vector<SqlParam>& params = {});
  // The same, parsed and planned once per connection: for the few texts that come often, all of them known when the program is written.
  absl::StatusOr<Rows> RunPrepared(const std::string& sql, const std::vector<SqlParam>& params = {});
  // Several statements as one simple query (migration files). Stops at the first error, whose detail carries the line of the
  // script when the server named a position, as does its column. `completed`, when given, counts the statements that ended before
  // it. `while_waiting`, when given, is called now and then as long as no answer comes; not with this connection.
  absl::Status RunScript(const std::string& sql, int* completed = nullptr, const std::function<void()>& while_waiting = nullptr);
  // Runs `body` between BEGIN and COMMIT; rolls back and returns its error when it fails.
  absl::Status Transaction(const std::function<absl::Status(Connection&)>& body);
  // False once the connection is known to be lost. CheckIdle() also looks at what the server sent since the last statement (a
  // goodbye, an end of file), without a round trip; only between statements.
  bool alive() const;
  bool CheckIdle();
  // After a LISTEN: how many notifications have come since the last time. To be asked when `socket` is readable, which a loop may watch
  // between statements, and after statements, with whose answers they may come.
  int TakeNotifications();
  int socket() const;
  pg_conn* raw() { return conn_; }

 private:
  explicit Connection(pg_conn* conn);
  void Await(const std::function<void()>& while_waiting);
  absl::StatusOr<Rows> Taken(pg_result* result, const std::string& sql);
  pg_conn* conn_;
  std::map<std::string, std::string, std::less<>> prepared_;  // text → name
  bool goodbye_ = false;  // the server said FATAL outside a statement: it is closing, even if the end of file is still to come
};

class Database {
 public:
  // Opens connections on first use, at most `max_connections`; a caller waits at most 5 s for one, then DATABASE_UNAVAILABLE.
  Database(std::string conninfo, int max_connections);
  ~Database();
  // Lends a connection to `body`. A connection that broke is thrown away, never lent again; a broken idle one is replaced once.
  absl::Status With(const std::function<absl::Status(Connection&)>& body);
  absl::StatusOr<Rows> Run(const std::string& sql, const std::vector<SqlParam>& params = {});
  absl::StatusOr<Rows> RunPrepared(const std::string& sql, const std::vector<SqlParam>& params = {});
  absl::Status Transaction(const std::function<absl::Status(Connection&)>& body);
  const std::string& conninfo() const { return conninfo_; }
  struct Usage {
    int idle = 0, lent = 0, most = 0;  // lent: also those that are being opened
  };
  Usage usage() const;

 private:
  struct State;
  std::string conninfo_;
  std::unique_ptr<State> state_;
};

// SQLSTATE of a DATABASE_ERROR, empty for other statuses.
std::string SqlState(const absl::Status& status);

}  // namespace bulkhead
