// What the end of a module's process means.
#pragma once

#include "supervisor/manifest/manifest.h"
#include "supervisor/process/spawner.h"
#include "supervisor/worker/worker.h"

namespace bulkhead {

// Of a process that ended without the supervisor having a reason of its own for it: `end`, `code`, `message` and `orderly`.
WorkerExit ExitOf(const ProcessExit& exit, const Manifest& manifest, bool after_handshake);

}  // namespace bulkhead
