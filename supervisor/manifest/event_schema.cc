// Schemas of the payloads that a module publishes: the part of JSON Schema that bulkhead_internal.schema_fault() checks
// (migrations/0016_events.sql). Another keyword is an error, because it would look checked and would not be.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "supervisor/manifest/reader.h"

namespace bulkhead {
namespace {

using nlohmann::json;

constexpr int kMaxSchemaDepth = 16;
constexpr size_t kMaxSchemaBytes = 64 * 1'024;
constexpr const char* kTypes[] = {"object", "array", "string", "number", "integer", "boolean", "null"};
constexpr const char* kWords[] = {"title", "description", "default", "examples", "$schema", "$id", "$comment"};  // for people

bool IsOneOf(const std::string& text, const auto& list) { return std::find(std::begin(list), std::end(list), text) != std::end(list); }

bool IsCount(const json& value) { return value.is_number_integer() && value >= 0 && value <= 1'000'000'000; }

bool AreTypes(const json& value) {
  const json types = value.is_array() ? value : json::array({value});
  return !types.empty() && std::all_of(types.begin(), types.end(), [](const json& t) { return t.is_string() && IsOneOf(t.get<std::string>(), kTypes); });
}

bool AreNames(const json& value) {
  return value.is_array() && std::all_of(value.begin(), value.end(), [](const json& name) { return name.is_string(); });
}

void CheckSchema(const json& schema, const std::string& path, int depth, Findings& out) {
  const auto wrong = [&](const std::string& at, std::string_view sentence) { out.Error(at, "INVALID_SCHEMA", std::string(sentence)); };
  if (schema.is_boolean()) return;
  if (!schema.is_object()) return wrong(path, "A schema is an object, true or false.");
  if (depth > kMaxSchemaDepth) return wrong(path, absl::StrCat("Schemas are nested ", kMaxSchemaDepth, " levels deep at most."));
  for (const auto& [name, value] : schema.items()) {
    const std::string at = PointerTo(path, name);
    if (name == "type") {
      if (!AreTypes(value)) wrong(at, "\"type\" is one or several of object, array, string, number, integer, boolean and null.");
    } else if (name == "enum") {
      if (!value.is_array() || value.empty()) wrong(at, "\"enum\" is a list of the values that are allowed.");
    } else if (name == "required") {
      if (!AreNames(value)) wrong(at, "\"required\" is a list of names.");
    } else if (name == "minimum" || name == "maximum" || name == "exclusiveMinimum" || name == "exclusiveMaximum") {
      if (!value.is_number() || (value.is_number_float() && !std::isfinite(value.get<double>()))) wrong(at, absl::StrCat("\"", name, "\" is a number."));
    } else if (name == "minLength" || name == "maxLength" || name == "minItems" || name == "maxItems") {
      if (!IsCount(value)) wrong(at, absl::StrCat("\"", name, "\" is a whole number from 0."));
    } else if (name == "properties") {
      if (!value.is_object()) {
        wrong(at, "\"properties\" is an object of schemas.");
        continue;
      }
      for (const auto& [property, inner] : value.items()) CheckSchema(inner, PointerTo(at, property), depth + 1, out);
    } else if (name == "items" || name == "additionalProperties") {
      CheckSchema(value, at, depth + 1, out);
    } else if (name != "const" && !IsOneOf(name, kWords)) {
      wrong(at, absl::StrCat("The payloads of events are not checked for \"", name.substr(0, 64), "\"; leave it out."));
    }
  }
}

}  // namespace

void ReadEventSchemas(const json& schemas, const std::string& path, const std::vector<std::string>& publishes, Findings& out) {
  if (schemas.dump(-1, ' ', false, json::error_handler_t::replace).size() > kMaxSchemaBytes) {
    return out.Error(path, "TOO_LONG", absl::StrCat("The schemas of a module's events have ", kMaxSchemaBytes, " bytes at most."));
  }
  for (const auto& [topic, schema] : schemas.items()) {
    const std::string at = PointerTo(path, topic);
    if (!IsOneOf(topic, publishes)) {
      out.Error(at, "UNKNOWN_TOPIC", absl::StrCat("\"", topic.substr(0, 128), "\" is not among the events that the module publishes."));
    }
    CheckSchema(schema, at, 1, out);
  }
}

}  // namespace bulkhead
