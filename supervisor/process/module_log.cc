// A module's line in the supervisor's log.
#include <cctype>
#include <vector>

#include "nlohmann/json.hpp"
#include "supervisor/base/log.h"
#include "supervisor/process/log_pipe.h"
#include "supervisor/base/text.h"

namespace bulkhead {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxFields = 32;  // of a structured line; further ones are counted in "fields_dropped"

std::string_view Text(const Json& object, const char* key) {
  auto it = object.find(key);
  return it != object.end() && it->is_string() ? std::string_view(it->get_ref<const std::string&>()) : std::string_view();
}

// The names that common loggers use; unknown ones count as info. Numbers are those of pino and bunyan.
LogLevel LevelOf(const Json& level) {
  if (level.is_number()) {
    double value = level.get<double>();
    return value >= 50 ? LogLevel::kError : value >= 40 ? LogLevel::kWarn : value >= 30 ? LogLevel::kInfo : LogLevel::kDebug;
  }
  if (!level.is_string()) return LogLevel::kInfo;
  std::string name = level.get<std::string>();
  for (char& c : name) c = static_cast<char>(tolower(static_cast<unsigned char>(c)));
  LogLevel known;
  if (ParseLogLevel(name, known)) return known;
  if (name == "trace") return LogLevel::kDebug;
  if (name == "warning") return LogLevel::kWarn;
  if (name == "err" || name == "fatal" || name == "critical" || name == "panic") return LogLevel::kError;
  return LogLevel::kInfo;
}

std::string Scalar(const Json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// A structured line has a level and a message. False for any other JSON.
bool LogStructured(const std::string& component, const Json& object) {
  if (!object.is_object() || !object.contains("level")) return false;
  const char* message_key = object.contains("message") ? "message" : "msg";
  if (!object.contains(message_key) || !object[message_key].is_string()) return false;
  std::vector<std::pair<std::string, std::string>> values;  // own the text that the fields point at
  size_t dropped = 0;
  for (const auto& [key, value] : object.items()) {
    if (key == "level" || key == message_key || key.empty() || value.is_structured()) continue;
    // The supervisor's own names stay its own.
    std::string name = key == "component" || key == "time" || key == "message" ? "module_" + key : key;
    if (values.size() < kMaxFields) values.emplace_back(std::move(name), Scalar(value));
    else ++dropped;
  }
  if (dropped > 0) values.emplace_back("fields_dropped", std::to_string(dropped));
  std::vector<LogField> fields;
  for (auto& [name, value] : values) fields.emplace_back(name, std::move(value));
  LogLine(LevelOf(object["level"]), component, Text(object, message_key), fields.data(), fields.size());
  return true;
}

}  // namespace

void LogModuleLine(std::string_view module, std::string_view stream, std::string_view line) {
  std::string component = "module/" + std::string(module);
  if (!line.empty() && line.front() == '{') {
    Json object = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!object.is_discarded() && LogStructured(component, object)) return;
  }
  if (line.empty()) return;
  LogField field{"stream", std::string(stream)};
  LogLine(LogLevel::kInfo, component, ValidUtf8(line), &field, 1);
}

}  // namespace bulkhead
