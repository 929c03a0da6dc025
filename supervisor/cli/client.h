// The client half of the binary: carries out one command against a supervisor's admin API and tells its outcome. It knows that
// protocol only. Answers go to stdout, everything else to stderr.
#pragma once

#include "supervisor/cli/command.h"
#include "supervisor/cli/terminal.h"

namespace bulkhead {

// Exit codes of every client command; the --help of each tells them.
enum class Outcome : int {
  kDone = 0,
  kRefused = 1,      // the supervisor answered with an error, or a plan would be refused
  kUsage = 2,        // the command line or the token can't be used
  kUnreachable = 3,  // no answer from the supervisor
  kUnfinished = 4,   // what was asked for still goes on
  kUnsuccessful = 5, // a run that was followed has ended, and not with success
};

Outcome RunClient(const ClientRequest& request, Terminal& terminal);

}  // namespace bulkhead
