// The one file that includes valijson, which takes long to compile.
#include "supervisor/manifest/manifest_schema.h"

#include <cmath>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"
#include "supervisor/base/log.h"
#include "supervisor/manifest/reader.h"
#include "valijson/adapters/nlohmann_json_adapter.hpp"
#include "valijson/schema.hpp"
#include "valijson/schema_parser.hpp"
#include "valijson/validation_results.hpp"
#include "valijson/validator.hpp"

namespace bulkhead {
namespace {

using nlohmann::json;

// The library matches patterns with std::regex, whose recursion a long text overflows.
void DropPatterns(json& schema) {
  if (schema.is_object()) {
    if (schema.contains("pattern") && schema["pattern"].is_string()) schema.erase("pattern");
    schema.erase("propertyNames");
  }
  if (schema.is_structured()) {
    for (json& part : schema) DropPatterns(part);
  }
}

struct Compiled {
  Compiled() : document(json::parse(ManifestSchemaJson())) {
    json without_patterns = document;
    DropPatterns(without_patterns);
    valijson::SchemaParser parser(valijson::SchemaParser::kDraft7);
    parser.populateSchema(valijson::adapters::NlohmannJsonAdapter(without_patterns), schema);
  }
  json document;
  valijson::Schema schema;
};

const Compiled& Compile() {
  static const Compiled compiled;
  return compiled;
}

// A place that the library reports ("<root>", "[capabilities]", "[0]"): its pointer, the value there and what the schema says of
// it.
struct Place {
  std::string pointer;
  std::string name;  // the last part, "" at the top
  const json* value;
  const json* rules;
};

// What a "$ref" stands for: always one of the schema's own definitions.
const json& Resolve(const json& rules) {
  if (!rules.contains("$ref")) return rules;
  return Compile().document.at(json::json_pointer(rules["$ref"].get<std::string>().substr(1)));
}

Place Find(const json& document, const std::vector<std::string>& context) {
  Place place{"", "", &document, &Compile().document};
  for (size_t i = 1; i < context.size() && place.value != nullptr; ++i) {
    const std::string key = context[i].substr(1, context[i].size() - 2);
    const bool in_list = place.value->is_array();
    if (!in_list) place.name = key;
    place.pointer = PointerTo(place.pointer, key);
    const json& rules = *place.rules;
    if (in_list) {
      place.rules = &Resolve(rules.at("items"));
      place.value = &place.value->at(std::stoul(key));
      continue;
    }
    const bool listed = rules.contains("properties") && rules["properties"].contains(key);
    place.rules = &Resolve(listed ? rules["properties"][key] : rules.at("additionalProperties"));
    place.value = &place.value->at(key);
  }
  return place;
}

std::string Types(const json& rules) {
  static const std::map<std::string, const char*> kNames{{"string", "a string"},        {"number", "a number"},
                                                         {"integer", "a whole number"}, {"boolean", "true or false"},
                                                         {"array", "a list"},           {"object", "an object"}};
  std::vector<std::string> names;
  const json& type = rules.at("type");
  for (const json& one : type.is_array() ? type : json::array({type})) {
    if (auto name = kNames.find(one.get<std::string>()); name != kNames.end()) names.push_back(name->second);  // null is "absent"
  }
  return absl::StrJoin(names, " or ");
}

// The library takes 2.0 for no integer; draft 7 (validation, 6.1.1) says that it is one.
bool IsWholeNumber(const Place& place) {
  const json& type = place.rules->at("type");
  const bool wanted = type == "integer" || (type.is_array() && std::find(type.begin(), type.end(), "integer") != type.end());
  return wanted && place.value->is_number_float() && *place.value == std::floor(place.value->get<double>());
}

// The library's sentences are for programmers; they tell which keyword failed, and ours are made from the schema.
std::optional<Finding> Translate(const json& document, const valijson::ValidationResults::Error& error) {
  const absl::string_view what = error.description;
  const auto starts = [&](absl::string_view with) { return absl::StartsWith(what, with); };
  if (starts("Failed to validate")) return std::nullopt;  // of what is around the mistake
  Place place = Find(document, error.context);
  const json& rules = *place.rules;
  const std::string it = place.name.empty() ? "This" : absl::StrCat("\"", place.name.substr(0, 64), "\"");
  if (starts("Missing required property '")) {
    const size_t from = what.find('\'') + 1;
    const std::string name(what.substr(from, what.rfind('\'') - from));
    return Finding{PointerTo(place.pointer, name), 0, "REQUIRED", absl::StrCat("\"", name, "\" is missing.")};
  }
  if (starts("Value type not permitted")) {
    if (IsWholeNumber(place)) return std::nullopt;
    return Finding{place.pointer, 0, "WRONG_TYPE",
                   absl::StrCat(it, " must be ", Types(rules), ", not ", TypeName(*place.value), ".")};
  }
  if (starts("Expected number")) {
    return Finding{place.pointer, 0, "OUT_OF_RANGE",
                   absl::StrCat(it, " must be from ", rules.at("minimum").dump(), " to ", rules.at("maximum").dump(), ".")};
  }
  if (starts("String should be no more")) {
    return Finding{place.pointer, 0, "TOO_LONG",
                   absl::StrCat(it, " may have at most ", rules.at("maxLength").dump(), " characters.")};
  }
  if (starts("Array should contain no more") || starts("Object should have no more")) {
    const json& most = rules.contains("maxItems") ? rules["maxItems"] : rules.at("maxProperties");
    return Finding{place.pointer, 0, "TOO_MANY", absl::StrCat(it, " may have at most ", most.dump(), " entries.")};
  }
  std::vector<std::string> values;
  for (const json& value : rules.value("enum", json::array())) {
    if (!value.is_null()) values.push_back(value.dump());
  }
  const std::string allowed = values.empty() ? "what the schema allows" : absl::StrJoin(values, ", ");
  return Finding{place.pointer, 0, "INVALID_VALUE",
                 absl::StrCat(it, " must be ", values.size() > 1 ? "one of " : "", allowed, ".")};
}

}  // namespace

std::vector<Finding> CheckAgainstSchema(const json& document) {
  valijson::Validator validator(valijson::Validator::kStrongTypes);
  valijson::ValidationResults results;
  if (validator.validate(Compile().schema, valijson::adapters::NlohmannJsonAdapter(document), &results)) return {};
  std::vector<Finding> findings;
  std::set<std::string> seen;
  for (const auto& error : results) {
    if (auto finding = Translate(document, error); finding && seen.insert(finding->path).second)
      findings.push_back(*std::move(finding));
  }
  return findings;
}

}  // namespace bulkhead
