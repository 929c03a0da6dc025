#include "supervisor/base/status.h"

#include <algorithm>
#include <cstdlib>

#include "absl/strings/cord.h"
#include "nlohmann/json.hpp"
#include "supervisor/base/log.h"

namespace bulkhead {
namespace {

using Code = absl::StatusCode;

struct CodeEntry {
  std::string_view code;
  Code absl_code;
  int http;
  std::string_view meaning;  // when it comes and what to do, for proto/ERRORS.md
};

// The one table. A new code is an entry here; its HTTP status never changes afterwards. Sorted by HTTP status. proto/ERRORS.md is made
// from it (tests/interface/errors.py --update), and tests/integration/errors_test.py provokes each.
constexpr CodeEntry kErrorCodes[] = {
    {"INVALID_ARGUMENT", Code::kInvalidArgument, 400,
     "A field, parameter or header is not what it must be. The details name each by its path; correct them and send the request again."},
    {"INVALID_JSON", Code::kInvalidArgument, 400,
     "The body is not JSON, or not UTF-8. The message tells line and column; correct it."},
    {"BAD_REQUEST", Code::kInvalidArgument, 400,
     "The bytes are not an HTTP/1.1 request, or one that two readers could understand differently. The connection is closed; correct the client."},
    {"MANIFEST_INVALID", Code::kInvalidArgument, 400,
     "A manifest breaks its rules. The details name every finding with its path and line; correct the file."},
    {"MANIFEST_AMBIGUOUS", Code::kInvalidArgument, 400,
     "A module's folder has more than one manifest. Keep one of manifest.json, module.yaml and module.json."},
    {"MANIFEST_MISSING", Code::kInvalidArgument, 400,
     "A module's folder has no manifest. Put a manifest.json there, or name the right folder."},
    {"CONFIG_INVALID", Code::kInvalidArgument, 400,
     "A configuration does not fit its schema: a module's, the file of `bulkhead serve`, or the options of a command. The details name every finding."},
    {"CRON_INVALID", Code::kInvalidArgument, 400,
     "A cron expression or its time zone can't be understood. Stands in the details of MANIFEST_INVALID, with the path of the schedule."},
    {"PACKAGE_INVALID", Code::kInvalidArgument, 400,
     "A module's folder can't be installed: it is not there, its executable is missing, or it holds what no package may. The message says what."},
    {"MIGRATION_INVALID", Code::kInvalidArgument, 400,
     "A migration file has a wrong name, a number that another one has, or can't be read. Correct the file in the module's package."},
    {"EXTENSION_NOT_ALLOWED", Code::kInvalidArgument, 400,
     "A manifest asks for a PostgreSQL extension that modules may not have. The message lists those that they may; store.extensions names them."},
    {"UNAUTHENTICATED", Code::kUnauthenticated, 401,
     "No token, or one that is wrong, expired or revoked. Send `Authorization: Bearer` with a valid one; log in again."},
    {"INVALID_CREDENTIALS", Code::kUnauthenticated, 401,
     "A login with a wrong name or password, or of a disabled user; or the current password is wrong. Which of them is not said."},
    {"REFRESH_TOKEN_INVALID", Code::kUnauthenticated, 401,
     "A refresh token is unknown, expired, used already, or its session has ended. Log in again."},
    {"FORBIDDEN", Code::kPermissionDenied, 403,
     "The caller is known and lacks a permission, which the message names. Ask for it, or use another token."},
    {"MODULE_NOT_A_DEPENDENCY", Code::kPermissionDenied, 403,
     "A module calls one that its manifest does not declare to depend on. Add it to `dependencies.modules` there."},
    {"NOT_FOUND", Code::kNotFound, 404,
     "Something is not there. Kept for clients; this version has a code of its own for each kind of thing."},
    {"ROUTE_NOT_FOUND", Code::kNotFound, 404,
     "No call and no route of an enabled module has this path. Look at the path, and whether the module is enabled."},
    {"MODULE_NOT_FOUND", Code::kNotFound, 404,
     "No module of this name is registered. GET /api/v1/modules lists those that are."},
    {"JOB_NOT_FOUND", Code::kNotFound, 404,
     "The module has no job of this name. Its jobs are listed at /api/v1/modules/:name/jobs."},
    {"RUN_NOT_FOUND", Code::kNotFound, 404,
     "There is no run with this id; old runs are deleted after a time."},
    {"ARTIFACT_NOT_FOUND", Code::kNotFound, 404,
     "The run's latest attempt has left no file of this name. GET /api/v1/runs/:id/artifacts lists those that it has; they go with the run."},
    {"FILE_NOT_FOUND", Code::kNotFound, 404,
     "The module keeps no file of this name on this node. GET /api/v1/modules/:name/files lists those that it has."},
    {"SUBSCRIPTION_NOT_FOUND", Code::kNotFound, 404,
     "The module has never been enabled with a subscription to events. GET /api/v1/events/subscriptions lists those that are there."},
    {"DEAD_LETTER_NOT_FOUND", Code::kNotFound, 404,
     "There is no dead letter of this number: it was dropped, or is being delivered again. GET /api/v1/events/dead-letters lists them."},
    {"TOKEN_NOT_FOUND", Code::kNotFound, 404,
     "There is no API token of this name. GET /api/v1/tokens lists them."},
    {"FLAG_NOT_FOUND", Code::kNotFound, 404,
     "The feature flag is set nowhere, or (for a DELETE) not by the API. GET /api/v1/flags lists them."},
    {"USER_NOT_FOUND", Code::kNotFound, 404,
     "There is no user of this name. GET /api/v1/users lists them."},
    {"ROLE_NOT_FOUND", Code::kNotFound, 404,
     "There is no role of this name. GET /api/v1/roles lists them."},
    {"VERSION_NOT_FOUND", Code::kNotFound, 404,
     "No folder holds the version of the module that an upgrade names, or none is on offer. Put it into the modules directory, or name its path."},
    {"METHOD_NOT_ALLOWED", Code::kUnimplemented, 405,
     "The path is known and not with this method. The header Allow lists those that it has."},
    {"REQUEST_TIMEOUT", Code::kDeadlineExceeded, 408,
     "The head of a request, or the next part of its body, did not come in time. Send it again, faster."},
    {"MODULE_EXISTS", Code::kAlreadyExists, 409,
     "A module of this name is registered already. Delete it first, or leave it."},
    {"TOKEN_EXISTS", Code::kAlreadyExists, 409,
     "There is an API token of this name already. Take another name, or delete it first."},
    {"USER_EXISTS", Code::kAlreadyExists, 409,
     "There is a user of this name already. Change that one, or take another name."},
    {"ROLE_EXISTS", Code::kAlreadyExists, 409,
     "There is a role of this name already, perhaps a built-in one. Change that one, or take another name."},
    {"ROLE_BUILT_IN", Code::kFailedPrecondition, 409,
     "The built-in roles admin, operator and viewer can't be changed or deleted. Make a role of your own."},
    {"ROLE_IN_USE", Code::kFailedPrecondition, 409,
     "The role is held by users or API tokens, which the details name. Take it away there first."},
    {"UNIQUE_VIOLATION", Code::kAlreadyExists, 409,
     "The database holds the same already, of a kind that has no code of its own. Look at what is there."},
    {"INVALID_TRANSITION", Code::kFailedPrecondition, 409,
     "The module's state does not allow the action. The details tell the state (CURRENT_STATE) and what is possible (POSSIBLE_ACTION)."},
    {"MODULE_ENABLED", Code::kFailedPrecondition, 409,
     "The action wants a module that is not enabled. Disable it first."},
    {"MODULE_BUSY", Code::kFailedPrecondition, 409,
     "The module is still stopping, or another action on it is under way. Try again when that has ended."},
    {"MODULE_NOT_RUNNING", Code::kFailedPrecondition, 409,
     "A job can't run because the module is not enabled or has no ready worker. Enable it, or try again."},
    {"RUN_ENDED", Code::kFailedPrecondition, 409,
     "A run can't be cancelled that has ended already. What came of it is in the run."},
    {"MODULE_SKIPPED", Code::kFailedPrecondition, 409,
     "The module is not started because its feature flag is off. Kept for clients; this version says MODULE_NOT_RUNNING."},
    {"CONFIG_REFUSED", Code::kFailedPrecondition, 409,
     "A running module has refused the new configuration; the message is its sentence. Everything stays as it was."},
    {"FLAG_FIXED", Code::kFailedPrecondition, 409,
     "The environment of this node sets the flag, which counts for more than the API. Change it there and restart."},
    {"IDEMPOTENCY_KEY_REUSED", Code::kFailedPrecondition, 409,
     "The idempotency key belongs to another request. Take a new key for each thing to be done."},
    {"IDEMPOTENCY_KEY_IN_USE", Code::kAborted, 409,
     "The first call with this idempotency key is still under way. Ask again in a moment for its answer."},
    {"MANIFEST_CHANGED", Code::kFailedPrecondition, 409,
     "A module's folder holds another name, version or content than is registered. Put it back, give it another version, or register it anew."},
    {"NO_PREVIOUS_VERSION", Code::kFailedPrecondition, 409,
     "There is nothing that a rollback could go back to: the module was not upgraded, or was rolled back already. Upgrade to a version by name."},
    {"DEPENDENCY_UNSATISFIED", Code::kFailedPrecondition, 409,
     "What the module depends on is missing, disabled, of a wrong version or in a circle. The details name each; withDependencies enables it too."},
    {"HAS_DEPENDENTS", Code::kFailedPrecondition, 409,
     "Other modules depend on this one. The details name them; disable or delete them first."},
    {"GENERATION_CHANGED", Code::kAborted, 409,
     "Somebody else has changed the same thing in between. Read it again, then decide again."},
    {"EXTENSION_UNAVAILABLE", Code::kFailedPrecondition, 409,
     "The PostgreSQL server lacks an extension that a manifest asks for, or does not let the supervisor make it. The message says what to do there."},
    {"ACCESS_CONFLICT", Code::kFailedPrecondition, 409,
     "A manifest's `access` can't be granted here: its database or a client lies behind a network that it does not want, or it names our own folders."},
    {"CLIENT_NOT_CONFIGURED", Code::kFailedPrecondition, 409,
     "A manifest names a service client that `clients` of the supervisor's configuration does not have. Add it there and send SIGHUP."},
    {"ISOLATION_INCOMPLETE", Code::kFailedPrecondition, 409,
     "A manifest says `isolation: strict`, and a measure is missing on this machine or switched off. The details name each; provide it, or drop `strict`."},
    {"MIGRATION_EDITED", Code::kFailedPrecondition, 409,
     "A migration file was changed after it had been applied. Put it back, and the change into a new file."},
    {"MIGRATION_OUT_OF_ORDER", Code::kFailedPrecondition, 409,
     "A migration that is not applied has a lower number than one that is. Give it a number above."},
    {"MIGRATION_MISSING", Code::kFailedPrecondition, 409,
     "The file of an applied migration is gone from among others. Put it back."},
    {"MIGRATION_IRREVERSIBLE", Code::kFailedPrecondition, 409,
     "A migration can't be taken back: it has no down file. Write one, or go forward with a new migration."},
    {"MODULE_NOT_INSTALLED", Code::kFailedPrecondition, 409,
     "The module is registered, and nobody has looked at its files yet. Install it first."},
    {"PRECONDITION_FAILED", Code::kFailedPrecondition, 412,
     "If-Match (`if_generation`) names another generation than the module has. Read it again before you change it."},
    {"BODY_TOO_LARGE", Code::kResourceExhausted, 413,
     "The body is larger than this path takes. Send less; a module's route sets its `bodyLimit` in the manifest."},
    {"URI_TOO_LONG", Code::kInvalidArgument, 414,
     "The request target is longer than 8 KiB. Put what is long into the body."},
    {"UNSUPPORTED_MEDIA_TYPE", Code::kInvalidArgument, 415,
     "The admin API takes JSON. Send `Content-Type: application/json`."},
    {"EXPECTATION_FAILED", Code::kInvalidArgument, 417,
     "The header Expect asks for something else than 100-continue. Leave it out."},
    {"TOO_MANY_ATTEMPTS", Code::kResourceExhausted, 429,
     "Too many logins or tokens that failed, of this user or from this address. Wait for the seconds in Retry-After."},
    {"TOO_MANY_STREAMS", Code::kResourceExhausted, 429,
     "The caller has as many answers open that go on (a followed log) as one caller may. End one before the next."},
    {"HEADERS_TOO_LARGE", Code::kInvalidArgument, 431,
     "The head of the request is larger than 64 KiB, has more than 100 fields, or is more than the module takes. Send fewer or smaller headers."},
    {"INTERNAL", Code::kInternal, 500,
     "Something that should not happen; the text stands in the log beside the request id. Also what a module's SDK says for its handler's fault."},
    {"DATABASE_ERROR", Code::kInternal, 500,
     "The database has refused a statement of the supervisor. Somebody has changed its tables or rights; the message has PostgreSQL's text."},
    {"SECRET_UNREADABLE", Code::kInternal, 500,
     "A stored secret can't be opened with the keys of this supervisor. Put the old key back (config.keys, BULKHEAD_SECRETS_KEYS), or set it anew."},
    {"DATA_UNUSABLE", Code::kFailedPrecondition, 500,
     "A file or folder of the data folder can't be read, made or written. The message names it; correct its rights, or make room. Also ends a start."},
    {"NOT_IMPLEMENTED", Code::kUnimplemented, 501,
     "This version does not do that: CONNECT, another transfer coding than chunked, modules with `transport: http`."},
    {"MODULE_START_FAILED", Code::kInternal, 502,
     "An enabled module does not start; the message and the details tell why. Look at `exits` of the module, and its log."},
    {"MIGRATION_FAILED", Code::kInternal, 502,
     "A statement of a migration has failed and nothing of its file is kept. The details tell file, line, column and SQLSTATE."},
    {"BAD_GATEWAY", Code::kInternal, 502,
     "The module broke off or answered what no client may see. A request that changes something may have been done; look before you repeat it."},
    {"MODULE_UNAVAILABLE", Code::kUnavailable, 503,
     "The module has no ready worker at the moment, or lost it. Try again after Retry-After."},
    {"DATABASE_UNAVAILABLE", Code::kUnavailable, 503,
     "The database can't be reached, or has no connection free. What runs goes on; try again when it is back."},
    {"MIGRATION_LOCKED", Code::kUnavailable, 503,
     "Somebody else holds the lock of the module's migrations for too long. The message tells who; wait, or end that session."},
    {"OVERLOADED", Code::kResourceExhausted, 503,
     "A limit of waiting work or of kept things is reached; the message tells which. Try again after Retry-After, or delete some."},
    {"SHUTTING_DOWN", Code::kUnavailable, 503,
     "The supervisor is stopping, or the call has ended before its answer. Try again when it is back."},
    {"GATEWAY_TIMEOUT", Code::kDeadlineExceeded, 504,
     "The module did not answer within the route's timeout. The request may have been done; look before you repeat it."},
    {"HTTP_VERSION_NOT_SUPPORTED", Code::kInvalidArgument, 505,
     "The request is of another version than HTTP/1.0 and HTTP/1.1. Use one of these."},
    {"QUOTA_EXCEEDED", Code::kOutOfRange, 507,
     "A module's files would be more, or larger, than its quota. Remove some, or raise `limits.storage` or `limits.files` of its manifest."},
    {"DISK_FULL", Code::kResourceExhausted, 507,
     "The supervisor's disk has no room for a module's file. What was stored before is still there; make room and try again."},
    {"LOOP_DETECTED", Code::kFailedPrecondition, 508,
     "A call from module to module has more calls behind it than one request may have, 8. Look for modules that call each other in a circle."},
    // These end the process or the start of one, and never reach a client.
    {"LISTEN_FAILED", Code::kUnavailable, 500,
     "An address can't be listened on: it is taken, or not allowed. Stop the other program, or choose another address."},
    {"DATA_IN_USE", Code::kFailedPrecondition, 500,
     "Another supervisor runs on this data folder. Stop it, or give this one a folder of its own."},
    {"UIDS_TAKEN", Code::kFailedPrecondition, 500,
     "Another supervisor of this machine has the user ids that the modules here were to have. Set `isolation.uids` to a range of its own."},
    {"POSTGRES_FAILED", Code::kUnavailable, 500,
     "The private PostgreSQL can't be made or started. The message has the end of its log."},
    {"MASTER_KEY_MISMATCH", Code::kFailedPrecondition, 500,
     "The database has been used with another master key. Put that key into the data folder."},
    {"SERVER_UNREACHABLE", Code::kUnavailable, 500,
     "Told by the client: no supervisor answers at the address. Start it, or name the right one with --server."},
    {"SCHEMA_NEWER", Code::kFailedPrecondition, 500,
     "The database was migrated by a later version of bulkhead. Start that version, or use another database."},
    {"SPAWN_FAILED", Code::kInternal, 500,
     "A process could not be started. The reason of the module's failed start, whose own code is MODULE_START_FAILED."},
};

constexpr char kPayloadUrl[] = "bulkhead/error";
constexpr char kRetryUrl[] = "bulkhead/retry-after";

const CodeEntry* Find(std::string_view code) {
  for (const CodeEntry& entry : kErrorCodes) {
    if (entry.code == code) return &entry;
  }
  return nullptr;
}

nlohmann::json Payload(const absl::Status& status) {
  auto cord = status.GetPayload(kPayloadUrl);
  if (!cord) return nullptr;
  return nlohmann::json::parse(std::string(*cord), nullptr, false);
}

}  // namespace

absl::Status Error(std::string_view code, std::string_view message, std::vector<ErrorDetail> details) {
  const CodeEntry* entry = Find(code);
  BULKHEAD_CHECK(entry != nullptr);
  absl::Status status(entry->absl_code, absl::string_view(message.data(), message.size()));
  nlohmann::json list = nlohmann::json::array();
  for (const ErrorDetail& d : details)
    list.push_back({{"path", d.path}, {"code", d.code}, {"message", d.message}, {"line", d.line}, {"column", d.column}});
  nlohmann::json payload = {{"code", code}, {"details", std::move(list)}};
  status.SetPayload(kPayloadUrl, absl::Cord(payload.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)));
  return status;
}

std::string ErrorCode(const absl::Status& status) {
  if (auto payload = Payload(status); payload.is_object()) return payload["code"].get<std::string>();
  switch (status.code()) {
    case Code::kInvalidArgument: return "INVALID_ARGUMENT";
    case Code::kNotFound: return "NOT_FOUND";
    case Code::kPermissionDenied: return "FORBIDDEN";
    case Code::kUnauthenticated: return "UNAUTHENTICATED";
    case Code::kUnavailable: return "MODULE_UNAVAILABLE";
    case Code::kDeadlineExceeded: return "GATEWAY_TIMEOUT";
    case Code::kUnimplemented: return "NOT_IMPLEMENTED";
    case Code::kResourceExhausted: return "OVERLOADED";
    default: return "INTERNAL";
  }
}

std::vector<ErrorDetail> ErrorDetails(const absl::Status& status) {
  std::vector<ErrorDetail> details;
  if (auto payload = Payload(status); payload.is_object()) {
    for (const auto& d : payload["details"]) {
      details.push_back(
          {d["path"].get<std::string>(), d["code"].get<std::string>(), d["message"].get<std::string>(), d["line"].get<int>(),
           d["column"].get<int>()});
    }
  }
  return details;
}

absl::Status WithRetryAfter(absl::Status status, int seconds) {
  status.SetPayload(kRetryUrl, absl::Cord(std::to_string(seconds)));
  return status;
}

int RetryAfter(const absl::Status& status) {
  auto cord = status.GetPayload(kRetryUrl);
  return cord ? std::atoi(std::string(*cord).c_str()) : 0;
}

int HttpStatus(std::string_view code) {
  const CodeEntry* entry = Find(code);
  return entry ? entry->http : 500;
}

}  // namespace bulkhead
