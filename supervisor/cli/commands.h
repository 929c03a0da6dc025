// The commands of the client, by the files that carry them out.
#pragma once

#include "supervisor/cli/session.h"

namespace bulkhead {

Outcome Run(Session& session, const MigrateCommand& command);
Outcome Run(Session& session, const RotateSecretsCommand& command);
Outcome Run(Session& session, const LogsCommand& command);
// jobs.cc
Outcome Run(Session& session, const JobsCommand& command);
Outcome Run(Session& session, const RunJobCommand& command);
// runs.cc
Outcome Run(Session& session, const RunsCommand& command);
Outcome Run(Session& session, const CancelRunCommand& command);
Outcome Run(Session& session, const ArtifactCommand& command);
// events.cc
Outcome Run(Session& session, const EventsCommand& command);
Outcome Run(Session& session, const SubscriptionsCommand& command);
Outcome Run(Session& session, const ReplayEventsCommand& command);
Outcome Run(Session& session, const DeadLettersCommand& command);
Outcome Run(Session& session, const ReplayDeadLettersCommand& command);
Outcome Run(Session& session, const DropDeadLettersCommand& command);

// Tells how a run goes on until it has ended; the outcome is its own.
Outcome FollowRun(Session& session, const std::string& id);

}  // namespace bulkhead
