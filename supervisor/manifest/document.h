// A JSON or YAML text as one JSON value that still knows on which line each part was written. Pure.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace bulkhead {

// Where a value was written, and those in it: a tree like the document's, so that it is as large as that.
struct Lines {
  int line = 0;  // from 1
  std::map<std::string, Lines, std::less<>> members;
  std::vector<Lines> items;
};

struct Document {
  nlohmann::json root;
  Lines lines;
  // The line of a JSON pointer, or of the nearest thing around it that was written; 0 without any.
  int LineOf(std::string_view pointer) const;
};

// "/a" + "b~c" → "/a/b~0c" (RFC 6901).
std::string PointerTo(std::string_view parent, std::string_view key);
std::string PointerTo(std::string_view parent, size_t index);

// INVALID_ARGUMENT with one detail {path, line, code SYNTAX | DUPLICATE_KEY | TOO_LARGE | TOO_DEEP, message}: syntax errors, what
// is not UTF-8 or has a NUL, a key that comes twice or is longer than 1,024 bytes, more than 1 MiB of text, more than 64 levels,
// more than 100,000 values (aliases count each time, with 10 MiB of text at most). A byte order mark is skipped. YAML is read by
// the core schema of its version 1.2; tags of one's own and merge keys ("<<"), which that does not have, are refused, and so is a
// key that is no plain name.
absl::StatusOr<Document> ReadDocument(std::string_view text, bool yaml);

}  // namespace bulkhead
