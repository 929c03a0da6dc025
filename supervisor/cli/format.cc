#include "supervisor/cli/format.h"

#include "nlohmann/json.hpp"
#include "supervisor/admin/json.h"
#include "supervisor/base/duration.h"
#include "supervisor/base/status.h"

namespace bulkhead {

std::string Escaped(std::string_view text) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string safe;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\t' || (byte >= 0x20 && byte != 0x7f)) {
      safe += c;
    } else {
      safe += "\\x";
      safe += kDigits[byte >> 4];
      safe += kDigits[byte & 15];
    }
  }
  return safe;
}

std::string Took(int64_t ms) { return ms < 10'000 ? std::to_string(ms) + " ms" : std::to_string(ms / 1'000) + " s"; }

int64_t MillisBetween(const google::protobuf::Timestamp& from, const google::protobuf::Timestamp& to) {
  return std::chrono::duration_cast<Millis>(FromTimestamp(to) - FromTimestamp(from)).count();
}

std::string Moment(const google::protobuf::Timestamp& time) {
  constexpr size_t kSeconds = 19;  // of "2026-01-10T15:17:56.967Z"
  return FormatWall(FromTimestamp(time)).substr(0, kSeconds) + "Z";
}

std::string Inline(const google::protobuf::Value& value) {
  const nlohmann::json json = ToJson(value);
  return json.is_null() ? "" : Escaped(json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

std::string AsJson(const google::protobuf::Message& message) {
  std::string text;
  PrintMessage(message, text);
  return text + "\n";
}

absl::StatusOr<std::string> SinceTime(const std::string& text) {
  if (text.empty()) return text;
  if (const auto before = ParseDuration(text)) return FormatWallExactly(Clock::Real().Wall() - *before);
  if (const auto time = ParseWall(text)) return FormatWallExactly(*time);
  return Error("CONFIG_INVALID", "--since is a time such as 2026-01-31T09:30:00Z, or so long before now as in 10m.", {{.path = "--since"}});
}

}  // namespace bulkhead
