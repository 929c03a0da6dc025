#include "supervisor/files/file_name.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "supervisor/base/status.h"
#include "supervisor/base/text.h"

namespace bulkhead {

absl::Status CheckFileName(std::string_view name) {
  const auto invalid = [](const std::string& sentence) { return Error("INVALID_ARGUMENT", sentence, {{"name", "INVALID_ARGUMENT", sentence}}); };
  if (name.empty() || name.size() > limits::kMaxFileName || !IsValidUtf8(name))
    return invalid(absl::StrCat("The name of a file has 1 to ", limits::kMaxFileName, " bytes of UTF-8."));
  if (std::any_of(name.begin(), name.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f || c == '\\'; }))
    return invalid("The name of a file has neither control characters nor \"\\\".");
  for (std::string_view rest = name;;) {
    const size_t slash = rest.find('/');
    const std::string_view part = rest.substr(0, slash);
    if (part.empty() || part == "." || part == "..")
      return invalid("The parts of a file's name between \"/\" are not empty, and not \".\" or \"..\"; none stands at its beginning or end.");
    if (slash == std::string_view::npos) return absl::OkStatus();
    rest.remove_prefix(slash + 1);
  }
}

std::string NameOnDisk(std::string_view name) {
  std::string on_disk(name);
  std::replace(on_disk.begin(), on_disk.end(), '/', '\\');
  return on_disk;
}

std::optional<std::string> NameFromDisk(std::string_view on_disk) {
  std::string name(on_disk);
  std::replace(name.begin(), name.end(), '\\', '/');
  return CheckFileName(name).ok() ? std::optional(std::move(name)) : std::nullopt;
}

}  // namespace bulkhead
