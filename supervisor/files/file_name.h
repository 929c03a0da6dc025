// What a file of a module may be called, and what it is called on the disk. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace bulkhead {

namespace limits {
inline constexpr size_t kMaxFileName = 240;  // bytes; below what a file system takes for one name
}

// INVALID_ARGUMENT with a sentence, unless it is 1 to kMaxFileName bytes of UTF-8, parts separated by "/", none of them empty, "." or "..", without
// control characters and "\".
absl::Status CheckFileName(std::string_view name);

// All files of a module lie in one folder, with "\" in place of "/", which no name holds: so "a" and "a/b" are two files, and an operator still reads them.
std::string NameOnDisk(std::string_view name);
// The other way round; nothing: no name of ours.
std::optional<std::string> NameFromDisk(std::string_view on_disk);

}  // namespace bulkhead
