// The session advisory lock under which one supervisor at a time migrates an owner, and who is in the way of something. Private to the
// migration runner. Blocking.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "supervisor/base/clock.h"
#include "supervisor/store/database.h"

namespace bulkhead {

// Held until `session` ends. MIGRATION_LOCKED after `at_most`, with pid, name, role and query of the session that holds it. Any role
// may take any advisory lock, so a module could keep all migrations away: sessions of modules that hold or want this one are ended.
absl::Status TakeMigrationLock(Connection& session, const std::string& owner, Millis at_most);

// Sentences about the sessions that the backend `pid` waits for right now, "pid 17 (bulkhead/orders, role …, idle in transaction for
// 12 s): SELECT …"; empty when it waits for none, or when it can't be found out.
std::string Blockers(Connection& admin, int pid);

}  // namespace bulkhead
