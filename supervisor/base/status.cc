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
};

// The one table. A new code is a line here; its HTTP status never changes afterwards. Sorted by HTTP status.
constexpr CodeEntry kErrorCodes[] = {
    {"INVALID_ARGUMENT", Code::kInvalidArgument, 400},
    {"INVALID_JSON", Code::kInvalidArgument, 400},
    {"BAD_REQUEST", Code::kInvalidArgument, 400},
    {"MANIFEST_INVALID", Code::kInvalidArgument, 400},
    {"MANIFEST_AMBIGUOUS", Code::kInvalidArgument, 400},
    {"MANIFEST_MISSING", Code::kInvalidArgument, 400},
    {"CONFIG_INVALID", Code::kInvalidArgument, 400},
    {"CRON_INVALID", Code::kInvalidArgument, 400},
    {"PACKAGE_INVALID", Code::kInvalidArgument, 400},
    {"MIGRATION_INVALID", Code::kInvalidArgument, 400},
    {"EXTENSION_NOT_ALLOWED", Code::kInvalidArgument, 400},
    {"UNAUTHENTICATED", Code::kUnauthenticated, 401},
    {"INVALID_CREDENTIALS", Code::kUnauthenticated, 401},
    {"REFRESH_TOKEN_INVALID", Code::kUnauthenticated, 401},
    {"FORBIDDEN", Code::kPermissionDenied, 403},
    {"NOT_FOUND", Code::kNotFound, 404},
    {"ROUTE_NOT_FOUND", Code::kNotFound, 404},
    {"MODULE_NOT_FOUND", Code::kNotFound, 404},
    {"JOB_NOT_FOUND", Code::kNotFound, 404},
    {"RUN_NOT_FOUND", Code::kNotFound, 404},
    {"TOKEN_NOT_FOUND", Code::kNotFound, 404},
    {"FLAG_NOT_FOUND", Code::kNotFound, 404},
    {"USER_NOT_FOUND", Code::kNotFound, 404},
    {"ROLE_NOT_FOUND", Code::kNotFound, 404},
    {"METHOD_NOT_ALLOWED", Code::kUnimplemented, 405},
    {"REQUEST_TIMEOUT", Code::kDeadlineExceeded, 408},
    {"MODULE_EXISTS", Code::kAlreadyExists, 409},
    {"TOKEN_EXISTS", Code::kAlreadyExists, 409},
    {"USER_EXISTS", Code::kAlreadyExists, 409},
    {"ROLE_EXISTS", Code::kAlreadyExists, 409},
    {"ROLE_BUILT_IN", Code::kFailedPrecondition, 409},
    {"ROLE_IN_USE", Code::kFailedPrecondition, 409},
    {"UNIQUE_VIOLATION", Code::kAlreadyExists, 409},
    {"INVALID_TRANSITION", Code::kFailedPrecondition, 409},
    {"MODULE_ENABLED", Code::kFailedPrecondition, 409},
    {"MODULE_BUSY", Code::kFailedPrecondition, 409},
    {"MODULE_NOT_RUNNING", Code::kFailedPrecondition, 409},
    {"MODULE_SKIPPED", Code::kFailedPrecondition, 409},
    {"CONFIG_REFUSED", Code::kFailedPrecondition, 409},
    {"FLAG_FIXED", Code::kFailedPrecondition, 409},
    {"SECRETS_IN_ENVIRONMENT", Code::kFailedPrecondition, 409},
    {"IDEMPOTENCY_KEY_REUSED", Code::kFailedPrecondition, 409},
    {"IDEMPOTENCY_KEY_IN_USE", Code::kAborted, 409},
    {"MANIFEST_CHANGED", Code::kFailedPrecondition, 409},
    {"DEPENDENCY_UNSATISFIED", Code::kFailedPrecondition, 409},
    {"HAS_DEPENDENTS", Code::kFailedPrecondition, 409},
    {"GENERATION_CHANGED", Code::kAborted, 409},
    {"MIGRATION_EDITED", Code::kFailedPrecondition, 409},
    {"MIGRATION_OUT_OF_ORDER", Code::kFailedPrecondition, 409},
    {"MIGRATION_MISSING", Code::kFailedPrecondition, 409},
    {"MIGRATION_IRREVERSIBLE", Code::kFailedPrecondition, 409},
    {"MODULE_NOT_INSTALLED", Code::kFailedPrecondition, 409},
    {"PRECONDITION_FAILED", Code::kFailedPrecondition, 412},
    {"BODY_TOO_LARGE", Code::kResourceExhausted, 413},
    {"URI_TOO_LONG", Code::kInvalidArgument, 414},
    {"UNSUPPORTED_MEDIA_TYPE", Code::kInvalidArgument, 415},
    {"EXPECTATION_FAILED", Code::kInvalidArgument, 417},
    {"TOO_MANY_ATTEMPTS", Code::kResourceExhausted, 429},
    {"HEADERS_TOO_LARGE", Code::kInvalidArgument, 431},
    {"INTERNAL", Code::kInternal, 500},
    {"DATABASE_ERROR", Code::kInternal, 500},
    {"SECRET_UNREADABLE", Code::kInternal, 500},
    {"NOT_IMPLEMENTED", Code::kUnimplemented, 501},
    {"MODULE_START_FAILED", Code::kInternal, 502},
    {"MIGRATION_FAILED", Code::kInternal, 502},
    {"BAD_GATEWAY", Code::kInternal, 502},
    {"MODULE_UNAVAILABLE", Code::kUnavailable, 503},
    {"DATABASE_UNAVAILABLE", Code::kUnavailable, 503},
    {"MIGRATION_LOCKED", Code::kUnavailable, 503},
    {"OVERLOADED", Code::kResourceExhausted, 503},
    {"SHUTTING_DOWN", Code::kUnavailable, 503},
    {"GATEWAY_TIMEOUT", Code::kDeadlineExceeded, 504},
    {"HTTP_VERSION_NOT_SUPPORTED", Code::kInvalidArgument, 505},
    // These end the process or the start of one and never reach HTTP.
    {"LISTEN_FAILED", Code::kUnavailable, 500},
    {"DATA_UNUSABLE", Code::kFailedPrecondition, 500},
    {"DATA_IN_USE", Code::kFailedPrecondition, 500},
    {"POSTGRES_FAILED", Code::kUnavailable, 500},
    {"MASTER_KEY_MISMATCH", Code::kFailedPrecondition, 500},
    {"SERVER_UNREACHABLE", Code::kUnavailable, 500},  // told by the client, which has no answer
    {"SCHEMA_NEWER", Code::kFailedPrecondition, 500},
    {"SPAWN_FAILED", Code::kInternal, 500},
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
