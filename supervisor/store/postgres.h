// The daemon's private PostgreSQL in <data>/postgres: made by initdb on first use, started through the Spawner, on a Unix
// socket only, restarted when it dies (decision 1 of supervisor/README.md). Lives on the control loop.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "supervisor/base/loop.h"
#include "supervisor/process/spawner.h"

namespace bulkhead {

struct PrivatePostgresOptions {
  std::string data_dir;      // <data>/postgres
  std::string socket_dir;    // <run>/pg; mode 0711, socket 0777
  std::string secrets_dir;   // <data>/secrets: the daemon's password when not root
  bool privileged = false;   // as root: the server is OS user `postgres`; by peer it, bulkhead and root are the role bulkhead
  std::string bin_dir;       // e.g. /usr/lib/postgresql/15/bin; empty: found
};

class PrivatePostgres {
 public:
  PrivatePostgres(Loop& loop, Spawner& spawner, PrivatePostgresOptions options);
  ~PrivatePostgres();

  // initdb when needed, start, wait until it accepts a connection. `ready` once, with POSTGRES_FAILED and the last lines of
  // its log when it did not. From then on it is restarted whenever it ends (with backoff, and a log line).
  void Start(std::function<void(absl::Status)> ready);
  // Fast shutdown (SIGINT), SIGQUIT after 10 s, then the tree kill. `stopped` once; nothing is left running.
  void Stop(std::function<void()> stopped);

  // libpq connection string of the role `bulkhead` on database `bulkhead`; valid once Start() was called.
  std::string conninfo() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace bulkhead
