// The composition root: what the supervisor is made of, the boot as phases, and the shutdown as the same phases backwards.
#pragma once

#include "supervisor/config.h"
#include "supervisor/reload.h"

namespace bulkhead {

// Runs until SIGTERM or SIGINT. The exit code of the process:
//   0  stopped as asked
//   1  could not start: configuration, ports, data folder, database
//   3  a critical module used up its start attempts (boot.onCriticalFailure: exit)
//   4  stopped as asked, but something did not end by itself and was killed, or could not be: the last line of the log names it
//   5  the spawner process has ended, without which no process can be started or ended; to be started anew
// `reread` makes the configuration again, for SIGHUP; it is called on another thread.
int RunDaemon(const Config& config, RereadConfig reread);

}  // namespace bulkhead
