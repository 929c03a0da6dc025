// Parameters that several admin calls share: waiting, paging. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "google/protobuf/descriptor.h"
#include "supervisor/base/clock.h"
#include "supervisor/base/status.h"

namespace bulkhead {

// INVALID_ARGUMENT "The parameter <name> <sentence>.", with the name as the detail's path.
absl::Status BadParameter(std::string_view name, std::string_view sentence);

// The short names of an enum of the API without its zero, "ENABLED, DISABLED", for the sentence that refuses another.
std::string EnumNames(const google::protobuf::EnumDescriptor& type);

// "" is `otherwise`, "false" is none, "1500ms", "30s", "2m" at most limits::kMaxWait.
absl::StatusOr<Millis> ParseWait(std::string_view text, Millis otherwise);

struct Page {
  int number = 1;
  int size = 50;
};
absl::StatusOr<Page> ParsePage(std::optional<int> page, std::optional<int> page_size);
// The same of a request with the optional fields `page` and `page_size`.
template <typename Request>
absl::StatusOr<Page> PageOf(const Request& request) {
  return ParsePage(request.has_page() ? std::optional(request.page()) : std::nullopt,
                   request.has_page_size() ? std::optional(request.page_size()) : std::nullopt);
}

}  // namespace bulkhead
