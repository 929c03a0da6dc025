#include "supervisor/store/postgres_probe.h"

#include <libpq-fe.h>
#include <sys/socket.h>

#include "supervisor/base/status.h"
#include "supervisor/store/database.h"

namespace bulkhead {
namespace {

constexpr Millis kPoll{5};                // start to ready takes 50 to 100 ms: a coarser one would show
constexpr Millis kGiveUp{300'000};        // recovery after a crash replays at most a few checkpoints' worth of log
constexpr int kRefusals = 3;              // refused although the server accepts connections: waiting does not help

// The process that listens on the socket, 0 when the kernel does not say.
pid_t Listener(PGconn* conn) {
  ucred peer{};
  socklen_t size = sizeof peer;
  if (getsockopt(PQsocket(conn), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return 0;
  return peer.pid;
}

absl::Status EnsureDatabase(Connection& connection) {
  ASSIGN_OR_RETURN(const Rows rows, connection.Run("SELECT FROM pg_database WHERE datname = 'bulkhead'"));
  if (rows.size() > 0) return absl::OkStatus();
  // Into the template first, so that the last step makes the database as it shall be. Modules' roles get nothing through PUBLIC.
  RETURN_IF_ERROR(connection.Run("REVOKE ALL ON SCHEMA public FROM PUBLIC").status());
  RETURN_IF_ERROR(connection.Run("REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC").status());
  return connection.Run("CREATE DATABASE bulkhead").status();
}

}  // namespace

PostgresProbe::PostgresProbe(std::string conninfo, pid_t postmaster, std::function<void(absl::Status)> done)
    : conninfo_(std::move(conninfo) + " connect_timeout=2"), postmaster_(postmaster), done_(std::move(done)), thread_([this] { Run(); }) {}

PostgresProbe::~PostgresProbe() {
  {
    std::lock_guard lock(mutex_);
    cancelled_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

bool PostgresProbe::Pause() {
  std::unique_lock lock(mutex_);
  return !wake_.wait_for(lock, kPoll, [this] { return cancelled_; });
}

absl::Status PostgresProbe::Attempt() {
  ASSIGN_OR_RETURN(const std::unique_ptr<Connection> connection, Connection::Open(conninfo_));
  const pid_t listener = Listener(connection->raw());
  if (listener != 0 && listener != postmaster_) {
    return absl::AbortedError("process " + std::to_string(listener) + " still listens on its socket");
  }
  return EnsureDatabase(*connection);
}

void PostgresProbe::Run() {
  const Instant deadline = Clock::Real().Now() + kGiveUp;
  int refusals = 0;
  absl::Status status;
  do {
    status = Attempt();
    if (status.ok()) break;
    if (!absl::IsAborted(status)) {
      if (ErrorCode(status) != "DATABASE_UNAVAILABLE") break;  // it answers, and not what it should
      if (PQping(conninfo_.c_str()) == PQPING_OK && ++refusals == kRefusals) break;
    }
    if (Clock::Real().Now() >= deadline) break;
  } while (Pause());
  std::lock_guard lock(mutex_);
  if (!cancelled_) done_(status);
}

}  // namespace bulkhead
