// The pool: at most N connections, lent one at a time. rows.cc and connection.cc are the parts below it.
#include "supervisor/store/database.h"

#include <condition_variable>
#include <mutex>

#include "supervisor/base/log.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

constexpr Millis kMaxWaitForConnection{5'000};

}  // namespace

struct Database::State {
  std::mutex mutex;
  std::condition_variable returned;
  std::vector<std::unique_ptr<Connection>> idle;  // the last returned one is lent first: the rest may be closed by a firewall unseen
  int open = 0;                                   // idle, lent or being opened
  int max = 0;

  // One that is open already and still answers, else null with a place reserved in `open`.
  absl::StatusOr<std::unique_ptr<Connection>> TakeIdleOrPlace();
  void Return(std::unique_ptr<Connection> connection);
  void GiveUpPlace();
};

absl::StatusOr<std::unique_ptr<Connection>> Database::State::TakeIdleOrPlace() {
  std::unique_lock lock(mutex);
  if (!returned.wait_for(lock, kMaxWaitForConnection, [&] { return !idle.empty() || open < max; })) {
    return Error("DATABASE_UNAVAILABLE", "no database connection became free within " +
                 std::to_string(kMaxWaitForConnection.count() / 1000) + " s: all " + std::to_string(max) + " are in use");
  }
  while (!idle.empty()) {
    std::unique_ptr<Connection> connection = std::move(idle.back());
    idle.pop_back();
    if (connection->CheckIdle()) return connection;
    --open;
  }
  ++open;
  return nullptr;
}

void Database::State::GiveUpPlace() {
  {
    std::lock_guard lock(mutex);
    --open;
  }
  returned.notify_one();
}

void Database::State::Return(std::unique_ptr<Connection> connection) {
  {
    std::lock_guard lock(mutex);
    idle.push_back(std::move(connection));
  }
  returned.notify_one();
}

Database::Database(std::string conninfo, int max_connections) : conninfo_(std::move(conninfo)), state_(std::make_unique<State>()) {
  BULKHEAD_CHECK(max_connections > 0);
  state_->max = max_connections;
}

Database::~Database() = default;

Database::Usage Database::usage() const {
  std::lock_guard lock(state_->mutex);
  const int idle = static_cast<int>(state_->idle.size());
  return {idle, state_->open - idle, state_->max};
}

absl::Status Database::With(const std::function<absl::Status(Connection&)>& body) {
  ASSIGN_OR_RETURN(std::unique_ptr<Connection> connection, state_->TakeIdleOrPlace());
  if (!connection) {
    auto opened = Connection::Open(conninfo_);
    if (!opened.ok()) {
      state_->GiveUpPlace();
      return opened.status();
    }
    connection = *std::move(opened);
  }
  absl::Status status = body(*connection);
  // One that broke, or that `body` left inside a transaction, must not reach the next caller.
  if (connection->CheckIdle()) {
    state_->Return(std::move(connection));
  } else {
    connection.reset();
    state_->GiveUpPlace();
  }
  return status;
}

absl::StatusOr<Rows> Database::Run(const std::string& sql, const std::vector<SqlParam>& params) {
  absl::StatusOr<Rows> rows = absl::UnknownError("not run");
  absl::Status status = With([&](Connection& connection) {
    rows = connection.Run(sql, params);
    return rows.status();
  });
  if (!status.ok()) return status;
  return rows;
}

absl::StatusOr<Rows> Database::RunPrepared(const std::string& sql, const std::vector<SqlParam>& params) {
  absl::StatusOr<Rows> rows = absl::UnknownError("not run");
  absl::Status status = With([&](Connection& connection) {
    rows = connection.RunPrepared(sql, params);
    return rows.status();
  });
  if (!status.ok()) return status;
  return rows;
}

absl::Status Database::Transaction(const std::function<absl::Status(Connection&)>& body) {
  return With([&](Connection& connection) { return connection.Transaction(body); });
}

}  // namespace bulkhead
