// The composition root: what the supervisor is made of, the boot as phases, and the shutdown as the same phases backwards.
#pragma once

#include "supervisor/config.h"

namespace bulkhead {

// Runs until SIGTERM or SIGINT. The exit code of the process:
//   0  stopped as asked
//   1  could not start: configuration, ports, data folder, database
//   3  a critical module used up its start attempts (boot.onCriticalFailure: exit)
int RunDaemon(const Config& config);

}  // namespace bulkhead
