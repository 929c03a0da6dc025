#include "supervisor/admin/parameters.h"

#include <charconv>

#include "supervisor/base/limits.h"

namespace bulkhead {
namespace {

constexpr int kMaxPageSize = 500;

}  // namespace

absl::Status BadParameter(std::string_view name, std::string_view sentence) {
  const std::string message = "The parameter " + std::string(name) + " " + std::string(sentence) + ".";
  return Error("INVALID_ARGUMENT", message, {{std::string(name), "INVALID_ARGUMENT", message}});
}

std::string EnumNames(const google::protobuf::EnumDescriptor& type) {
  std::string names;
  for (int i = 0; i < type.value_count(); ++i) {
    if (type.value(i)->number() != 0) names += (names.empty() ? "" : ", ") + type.value(i)->name();
  }
  return names;
}

absl::StatusOr<Millis> ParseWait(std::string_view text, Millis otherwise) {
  if (text.empty()) return otherwise;
  if (text == "false") return Millis(0);
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
  const int64_t factor = unit == "ms" ? 1 : unit == "s" ? 1'000 : unit == "m" ? 60'000 : 0;
  if (error == std::errc::invalid_argument || factor == 0 || number < 0) {
    return BadParameter("wait", "must be \"false\" or a duration such as \"1500ms\", \"30s\" or \"2m\"");
  }
  if (error != std::errc() || number > limits::kMaxWait.count() / factor) return BadParameter("wait", "must be at most 600s");
  return Millis(number * factor);
}

absl::StatusOr<Page> ParsePage(std::optional<int> page, std::optional<int> page_size) {
  Page parsed;
  if (page) parsed.number = *page;
  if (page_size) parsed.size = *page_size;
  if (parsed.number < 1) return BadParameter("page", "must be at least 1");
  if (parsed.size < 1 || parsed.size > kMaxPageSize)
    return BadParameter("pageSize", "must be from 1 to " + std::to_string(kMaxPageSize));
  return parsed;
}

}  // namespace bulkhead
