#include "supervisor/logs/module_line.h"

#include <cctype>
#include <utility>

#include "nlohmann/json.hpp"
#include "supervisor/base/text.h"

namespace bulkhead {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxFields = 32;  // of a structured line; further ones are counted in "fields_dropped"
constexpr int kMaxNesting = 16;

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

// Brackets outside of texts, before anything recursive sees them.
bool NestedTooDeep(std::string_view text) {
  int depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') ++i;
      else quoted = c != '"';
    } else if (c == '"') {
      quoted = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kMaxNesting) return true;
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return false;
}

std::string ValueText(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace); }

// False for any other JSON than an object with a level and a message.
bool ReadStructured(const Json& object, ModuleLine& line) {
  if (!object.is_object() || !object.contains("level")) return false;
  const char* message_key = object.contains("message") ? "message" : "msg";
  const auto message = object.find(message_key);
  if (message == object.end() || !message->is_string()) return false;
  line.structured = true;
  line.level = LevelOf(object["level"]);
  line.message = ValidUtf8(message->get_ref<const std::string&>());
  size_t dropped = 0;
  for (const auto& [key, value] : object.items()) {
    if (key == "level" || key == message_key || key.empty()) continue;
    if (line.fields.size() < kMaxFields) line.fields.push_back({ValidUtf8(key), ValueText(value), !value.is_structured()});
    else ++dropped;
  }
  if (dropped > 0) line.fields.push_back({"fields_dropped", std::to_string(dropped), true});
  return true;
}

// The text of a scalar's JSON.
std::string PlainText(const std::string& json) {
  return json.starts_with('"') ? Json::parse(json, nullptr, false).get<std::string>() : json;
}

}  // namespace

ModuleLine ReadModuleLine(std::string_view text) {
  ModuleLine line;
  if (text.starts_with('{') && !NestedTooDeep(text)) {
    const Json object = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!object.is_discarded() && ReadStructured(object, line)) return line;
  }
  line.message = ValidUtf8(text);
  return line;
}

void LogModuleLine(std::string_view module, std::string_view stream, const ModuleLine& line) {
  const std::string component = "module/" + std::string(module);
  if (!line.structured) {
    if (line.message.empty()) return;
    LogField field{"stream", std::string(stream)};
    return LogLine(line.level, component, line.message, &field, 1);
  }
  std::vector<std::pair<std::string, std::string>> values;  // own the text that the fields point at
  for (const ModuleLine::Field& field : line.fields) {
    if (!field.scalar) continue;
    // The supervisor's own names stay its own.
    const bool own = field.name == "component" || field.name == "time" || field.name == "message";
    values.emplace_back(own ? "module_" + field.name : field.name, PlainText(field.json));
  }
  std::vector<LogField> fields;
  for (auto& [name, value] : values) fields.emplace_back(name, std::move(value));
  LogLine(line.level, component, line.message, fields.data(), fields.size());
}

}  // namespace bulkhead
