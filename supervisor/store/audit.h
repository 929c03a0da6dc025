// Who did what to what: the append-only record of the admin API (migrations/0004_audit.sql). Blocking; thread-safe.
//
// A change and its row are one transaction: whoever changes rows takes an AuditRecord and hands it to AppendAudit() on the same
// connection. What changed nothing, a refusal or a call that asked for what is so already, is written by whoever ends the call.
//
// Rows are only ever added, so what takes time has two with one request id: kAccepted when it has begun (the wish is stored, or the client was
// told that it goes on, or has left), and the outcome when that is known. The first without the second: the supervisor ended meanwhile. The
// second alone: it was known before the first was written; never the other way round.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/store/database.h"

namespace bulkhead {

inline constexpr std::string_view kAccepted = "ACCEPTED";  // an outcome that is still to come

// What the audit has of a call.
enum class Recording { kNothing, kAcceptance, kOutcome };
struct RecordedCall {
  std::atomic<Recording> what = Recording::kNothing;  // committed
  std::mutex order;  // taken by those alone who have a connection already
  bool outcome = false;  // under order: written, committed or not; no acceptance may follow
};

// On whose behalf something is done.
struct Actor {
  std::string subject;
  std::string credential;     // admin-token, api-token, jwt, user, system
  std::string credential_id;  // which of them; never a secret
  std::string address;        // "127.0.0.1:51234"; empty for the supervisor itself
  std::string request_id;
  std::string node;           // where it was asked for
  // Set once a row of this call is committed; may be null. Shared by the copies of one call's actor.
  std::shared_ptr<RecordedCall> recorded;
};
// The same for a row that is not the call's own, of a step on the way: what the call has come to is still to be written.
Actor OnTheWay(Actor by);
// The supervisor by itself: boot, a failed enable that is taken back.
Actor SystemActor(std::string node);

struct AuditRecord {
  Actor by;
  std::string action;                    // "modules.enable"
  std::string module;                    // empty: of no module
  std::string target;
  std::string before_json, after_json;   // objects, secrets masked; empty: nothing
  std::string outcome = "OK";            // or kAccepted, or an error's code
  std::string message;
};

// On the connection of the change, within its transaction; call Recorded() when that has committed. Names are cut at kMaxAuditName bytes.
absl::Status AppendAudit(Connection& connection, const AuditRecord& record);
void Recorded(const AuditRecord& record);
inline constexpr size_t kMaxAuditName = 512;  // those of things that exist are shorter

// Of two objects the members that differ, as {before, after}.
std::pair<std::string, std::string> Changed(const std::string& before_json, const std::string& after_json);

struct AuditRow {
  int64_t id = 0;
  WallTime at;
  AuditRecord record;
};

struct AuditQuery {
  std::optional<WallTime> since, until;  // from, up to and without
  std::string subject, module, action, outcome, request_id;  // empty: all. `action` "modules.*": all that begin so
  int page = 1, page_size = 50;
};
struct AuditPage {
  std::vector<AuditRow> rows;  // newest first
  int total = 0;
};

class AuditLog {
 public:
  explicit AuditLog(Database& database) : database_(database) {}
  absl::Status Append(const AuditRecord& record);
  absl::StatusOr<AuditPage> Find(const AuditQuery& query);

 private:
  Database& database_;
};

}  // namespace bulkhead
