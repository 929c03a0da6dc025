// What went wrong, as everybody hands it on: an absl::Status with the stable public code and details inside, and the one
// table from a code to gRPC and HTTP.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace bulkhead {

// One thing that is wrong, with its place.
struct ErrorDetail {
  std::string path;     // JSON pointer, key or file:line; may be empty
  std::string code;     // UPPER_SNAKE; may be empty
  std::string message;  // a sentence
  int line = 0;         // 0 when there is none
  int column = 0;       // in characters from 1; 0 when there is none
};

// Makes a status with a stable code (UPPER_SNAKE, one of kErrorCodes in status.cc; anything else is a bug and CHECKs).
// `message` is a sentence for people that says what to do next. The absl code comes from the table.
absl::Status Error(std::string_view code, std::string_view message, std::vector<ErrorDetail> details = {});

// The stable code of a status: what Error() was given, else one derived from the absl code ("INTERNAL", "NOT_FOUND", …).
std::string ErrorCode(const absl::Status& status);
std::vector<ErrorDetail> ErrorDetails(const absl::Status& status);
// The seconds after which it makes sense to try again: Retry-After of REST, google.rpc.RetryInfo of gRPC. 0: not said.
absl::Status WithRetryAfter(absl::Status status, int seconds);
int RetryAfter(const absl::Status& status);
// The HTTP status of a stable code; 500 for what is unknown.
int HttpStatus(std::string_view code);

#define BULKHEAD_CONCAT_INNER(a, b) a##b
#define BULKHEAD_CONCAT(a, b) BULKHEAD_CONCAT_INNER(a, b)
#define RETURN_IF_ERROR(expr)               \
  do {                                      \
    if (absl::Status status_ = (expr); !status_.ok()) return status_; \
  } while (false)
#define ASSIGN_OR_RETURN(lhs, expr) ASSIGN_OR_RETURN_INNER(BULKHEAD_CONCAT(result_, __LINE__), lhs, expr)
#define ASSIGN_OR_RETURN_INNER(result, lhs, expr) \
  auto result = (expr);                           \
  if (!result.ok()) return std::move(result).status(); \
  lhs = *std::move(result)

}  // namespace bulkhead
