// What every command of the client works with, and what several of them ask for.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "supervisor/cli/client.h"
#include "supervisor/cli/connection.h"

namespace bulkhead {

// Borrowed for one run.
struct Session {
  const ClientOptions& options;
  AdminConnection& connection;
  Terminal& terminal;
};

// Tells why the last call of this thread failed.
Outcome Failed(Session& session, const absl::Status& status);
// Tells that the command line asks for something that can't be, before anything was called.
Outcome Misused(Session& session, const absl::Status& status);
// Before what changes much: nullopt to go on, because of --yes or because the person at the terminal says so; else the outcome.
std::optional<Outcome> Unconfirmed(Session& session, bool yes, const std::string& what);
// Of all that are registered, by name.
absl::StatusOr<std::vector<std::string>> ModuleNames(Session& session);
// Behind a list of which not everything was shown.
void TellRest(Session& session, int shown, int total);

}  // namespace bulkhead
