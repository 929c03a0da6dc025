// A JSON or YAML text as one JSON value that still knows on which line each part was written. Pure.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace bulkhead {

struct Document {
  nlohmann::json root;
  std::map<std::string, int> lines;  // JSON pointer → line, from 1
  // The line of `pointer`, or of the nearest thing around it that was written; 0 without any.
  int LineOf(std::string_view pointer) const;
};

// "/a" + "b~c" → "/a/b~0c" (RFC 6901).
std::string PointerTo(std::string_view parent, std::string_view key);
std::string PointerTo(std::string_view parent, size_t index);

// INVALID_ARGUMENT with one detail {path, line, code SYNTAX | DUPLICATE_KEY | TOO_LARGE | TOO_DEEP, message}: syntax errors, a
// key that comes twice, more than 1 MiB of text, more than 64 levels, more than 100,000 values (aliases count each time).
absl::StatusOr<Document> ReadDocument(std::string_view text, bool yaml);

}  // namespace bulkhead
