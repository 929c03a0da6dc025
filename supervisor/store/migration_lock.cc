#include "supervisor/store/migration_lock.h"

#include <thread>

#include "supervisor/base/log.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

constexpr char kLockClass[] = "1651862635";  // "bulk" as an int4: apart from advisory locks of others in this database
constexpr Millis kLockPoll{50};

// What an operator needs to know of a session; at most three, and not the whole of a long query.
constexpr char kDescribed[] =
    "SELECT a.pid, coalesce(a.usename, '') AS role, coalesce(a.application_name, '') AS application, "
    "coalesce(host(a.client_addr), '') AS address, coalesce(a.state, '') AS state, left(coalesce(a.query, ''), 300) AS query, "
    "extract(epoch FROM clock_timestamp() - coalesce(a.state_change, a.backend_start))::bigint AS seconds FROM pg_stat_activity a ";

constexpr char kHolders[] =
    "JOIN pg_locks l ON l.pid = a.pid WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 "
    "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND l.classid = $1::bigint::oid AND l.objid = (hashtext($2)::bigint & 4294967295)::oid AND a.pid <> pg_backend_pid() LIMIT 3";

constexpr char kEvict[] =
    "SELECT pg_terminate_backend(a.pid), a.pid, a.usename AS role FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid "
    "JOIN bulkhead_internal.module_roles r ON r.role = a.usename WHERE l.locktype = 'advisory' AND l.objsubid = 2 "
    "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND l.classid = $1::bigint::oid AND l.objid = (hashtext($2)::bigint & 4294967295)::oid";

std::string Describe(const Rows& rows) {
  std::string text;
  for (int r = 0; r < rows.size(); ++r) {
    if (r > 0) text += "; ";
    text += "pid " + rows.Text(r, "pid") + " (";
    if (const std::string name = rows.Text(r, "application"); !name.empty()) text += name + ", ";
    text += "role " + rows.Text(r, "role");
    if (const std::string address = rows.Text(r, "address"); !address.empty()) text += " from " + address;
    text += ", " + rows.Text(r, "state") + " for " + rows.Text(r, "seconds") + " s)";
    if (const std::string query = rows.Text(r, "query"); !query.empty()) text += ": " + query;
  }
  return text;
}

absl::Status Locked(Connection& session, const std::string& owner, Millis waited) {
  std::string who = "another supervisor";
  if (auto rows = session.Run(std::string(kDescribed) + kHolders, {kLockClass, owner}); rows.ok() && rows->size() > 0) {
    who = Describe(*rows);
  }
  return Error("MIGRATION_LOCKED", "the migrations of " + owner + " have been locked by another session for more than " +
               std::to_string(std::chrono::ceil<std::chrono::seconds>(waited).count()) + " s. Wait for it, or end it: " + who);
}

}  // namespace

// Polled, because a session that waits in pg_advisory_lock() holds a snapshot, for which CREATE INDEX CONCURRENTLY waits in turn.
absl::Status TakeMigrationLock(Connection& session, const std::string& owner, Millis at_most) {
  const Instant deadline = Clock::Real().Now() + at_most;
  while (true) {
    ASSIGN_OR_RETURN(const Rows rows, session.Run("SELECT pg_try_advisory_lock($1::int, hashtext($2)) AS locked", {kLockClass, owner}));
    if (rows.Bool(0, "locked")) return absl::OkStatus();
    if (Clock::Real().Now() >= deadline) return Locked(session, owner, at_most);
    // Before the supervisor's first own migration there are no modules, and no table of them.
    ASSIGN_OR_RETURN(const Rows known, session.Run("SELECT to_regclass('bulkhead_internal.module_roles') IS NOT NULL AS yes"));
    if (known.Bool(0, "yes")) {
      ASSIGN_OR_RETURN(const Rows ended, session.Run(kEvict, {kLockClass, owner}));
      for (int r = 0; r < ended.size(); ++r) {
        LogWarn("store", "a module held the lock of migrations: its database session is ended",
                {{"role", ended.Text(r, "role")}, {"owner", owner}, {"pid", ended.Text(r, "pid")}});
      }
    }
    std::this_thread::sleep_for(kLockPoll);
  }
}

std::string Blockers(Connection& admin, int pid) {
  auto rows = admin.Run(std::string(kDescribed) + "WHERE a.pid = ANY (pg_blocking_pids($1::int)) LIMIT 3", {std::to_string(pid)});
  return rows.ok() ? Describe(*rows) : "";
}

}  // namespace bulkhead
