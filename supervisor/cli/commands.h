// The commands of the client, one file each.
#pragma once

#include "supervisor/cli/client.h"
#include "supervisor/cli/connection.h"

namespace bulkhead {

// What every command works with; borrowed for one run.
struct Session {
  const ClientOptions& options;
  AdminConnection& connection;
  Terminal& terminal;
};

Outcome Run(Session& session, const MigrateCommand& command);
Outcome Run(Session& session, const RotateSecretsCommand& command);
Outcome Run(Session& session, const LogsCommand& command);

}  // namespace bulkhead
