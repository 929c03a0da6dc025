// One connection of the pool: statements, prepared when they come again, and pipelines. Belongs to one thread at a time, but for Cancel().
#pragma once

#include <atomic>
#include <chrono>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "database_result.h"

namespace bulkhead::sdk {

// A statement that is prepared no longer fits, or no longer is: what it does again succeeds.
inline constexpr std::string_view kStaleStatement = "26000";

class Connection {
 public:
  // Connects, within 5 s. `slow_ms`: from how long on a statement is logged; 0: never.
  Connection(const std::string& conninfo, const std::atomic<int64_t>& slow_ms);
  Connection(const Connection&) = delete;
  ~Connection() { Free(); }

  Rows Query(const std::string& sql, const Params& params);
  // Without a transaction around it, it is one.
  std::vector<Rows> Pipeline(const std::vector<Statement>& statements);

  // Any thread: asks the server to stop what runs. (PQcancel is thread-safe.)
  void Cancel();
  // Fit to be used again: connected, no open transaction, and not closed by the server while it was idle.
  bool Usable();
  bool idle_in_transaction() const { return pq().PQtransactionStatus(conn_) != PQTRANS_IDLE; }

 private:
  using Clock = std::chrono::steady_clock;
  struct Prepared {
    std::string name;                       // empty: seen once
    std::list<std::string>::iterator used;  // in order_
  };
  void Free();
  [[noreturn]] void ThrowLost();
  [[noreturn]] void Throw(const QueryResult& failed, bool timed_out);
  bool AwaitResult(Clock::time_point until);
  // Takes all results of what was sent; answers the last, throws the first error.
  Rows Collect();
  Rows Send(const std::string& sql, const Params& params);
  // The name under which the text is prepared; empty: not prepared.
  std::string NameOf(const std::string& sql);
  void Forget(const std::string& sql);
  void LogSlow(const std::string& sql, Clock::time_point began, const char* outcome);

  const std::atomic<int64_t>& slow_ms_;
  PGconn* conn_ = nullptr;
  PGcancel* cancel_ = nullptr;
  std::unordered_map<std::string, Prepared> prepared_;
  std::list<std::string> order_;  // texts, the last used first
  int64_t next_name_ = 1;
};

}  // namespace bulkhead::sdk
