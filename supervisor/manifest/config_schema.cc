// A module's configuration against the schema of its manifest: defaults, checks, masking.
#include "supervisor/manifest/config_schema.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "supervisor/base/status.h"
#include "supervisor/base/duration.h"

namespace bulkhead {
namespace {

using nlohmann::json;

constexpr size_t kMaxChosen = 1'000;              // entries of a multiselect, as many as options
constexpr double kMaxWhole = 9007199254740991.0;  // 2^53 - 1: what every JSON reader keeps

bool IsUrl(const std::string& text) {
  static const re2::RE2 form("[A-Za-z][A-Za-z0-9+.-]*://[^\\s/?#]+[^\\s]*");
  return re2::RE2::FullMatch(text, form);
}
bool IsEmail(const std::string& text) {
  static const re2::RE2 form("[^\\s@]+@[^\\s@]+\\.[^\\s@.]+");
  return re2::RE2::FullMatch(text, form);
}

class ValueCheck {
 public:
  ValueCheck(const ConfigField& field, const json& definition, std::string path, Findings& out)
      : field_(field), definition_(definition), path_(std::move(path)), out_(out) {}

  void Run(const json& value) {
    if (field_.type == "number" || field_.type == "integer") return Number(value);
    if (field_.type == "boolean") return value.is_boolean() ? void() : WrongType("true or false", value);
    if (field_.type == "select") return Select(value);
    if (field_.type == "multiselect") return Multiselect(value);
    if (field_.type == "json") return Json(value);
    if (field_.type == "duration") return Duration(value);
    Text(value);
  }

 private:
  void Wrong(const char* code, std::string message) { out_.Error(path_, code, absl::StrCat("\"", field_.name, "\" ", message)); }
  void WrongType(absl::string_view wanted, const json& value) {
    Wrong("WRONG_TYPE", absl::StrCat("must be ", wanted, ", not ", TypeName(value), "."));
  }

  // A member of `validation`, or of the field itself.
  const json* Rule(const char* name) const {
    if (auto rules = definition_.find("validation"); rules != definition_.end() && rules->is_object()) {
      if (auto rule = rules->find(name); rule != rules->end() && !rule->is_null()) return &*rule;
    }
    auto rule = definition_.find(name);
    return rule != definition_.end() && !rule->is_null() ? &*rule : nullptr;
  }
  std::optional<double> NumberRule(const char* name) const {
    const json* rule = Rule(name);
    return rule != nullptr && rule->is_number() ? std::optional(rule->get<double>()) : std::nullopt;
  }

  void Between(double number, const char* unit) {
    if (auto min = NumberRule("min"); min && number < *min)
      Wrong("TOO_SMALL", absl::StrCat("must be at least ", *min, unit, "."));
    if (auto max = NumberRule("max"); max && number > *max) Wrong("TOO_LARGE", absl::StrCat("must be at most ", *max, unit, "."));
  }
  void Number(const json& value) {
    if (!value.is_number()) return WrongType("a number", value);
    const double number = value.get<double>();
    Between(number, "");
    const json* whole = Rule("integer");
    const bool is_integer = field_.type == "integer";
    if ((is_integer || (whole != nullptr && *whole == true)) && number != std::floor(number)) {
      Wrong("NOT_INTEGER", "must be a whole number.");
    } else if (is_integer && std::abs(number) > kMaxWhole) {
      Wrong("OUT_OF_RANGE", "must be a whole number within 2^53 - 1 on either side of 0.");
    }
  }
  bool IsOption(const json& value) const {
    auto options = definition_.find("options");
    if (options == definition_.end() || !options->is_array()) return true;  // reported with the schema
    return std::any_of(options->begin(), options->end(), [&](const json& option) {
      if (!option.is_object()) return option == value;
      auto own = option.find("value");
      return own != option.end() && *own == value;
    });
  }
  void Select(const json& value) {
    if (!IsOption(value)) Wrong("NOT_AN_OPTION", "must be one of its options.");
  }
  void Multiselect(const json& value) {
    if (!value.is_array()) return WrongType("a list", value);
    const auto chosen = static_cast<double>(value.size());
    if (auto min = NumberRule("minItems"); min && chosen < *min)
      Wrong("TOO_FEW", absl::StrCat("must have at least ", *min, " entries."));
    const double most = NumberRule("maxItems").value_or(static_cast<double>(kMaxChosen));
    if (chosen > most || value.size() > kMaxChosen)
      return Wrong("TOO_MANY", absl::StrCat("may have at most ", most, " entries."));
    std::set<json> seen;
    for (size_t i = 0; i < value.size(); ++i) {
      const char* wrong = !IsOption(value[i]) ? "NOT_AN_OPTION" : !seen.insert(value[i]).second ? "DUPLICATE" : nullptr;
      if (wrong == nullptr) continue;
      const char* sentence = *wrong == 'N' ? " that is none of its options." : " that is there twice.";
      out_.Error(PointerTo(path_, i), wrong, absl::StrCat("\"", field_.name, "\" has an entry", sentence));
    }
  }
  void Json(const json& value) {
    if (Dump(value).size() > kMaxConfigText) Wrong("TOO_LONG", absl::StrCat("may have at most ", kMaxConfigText, " bytes."));
  }
  void Duration(const json& value) {
    double ms = -1;
    if (value.is_number()) {
      ms = value.get<double>();
    } else if (!value.is_string()) {
      return WrongType("a duration", value);
    } else if (auto parsed = ParseDuration(value.get_ref<const std::string&>())) {
      ms = static_cast<double>(parsed->count());
    } else if (value.get_ref<const std::string&>().empty()) {
      return;  // none, as with texts
    }
    if (!(ms >= 0 && ms <= static_cast<double>(kMaxDuration.count())) || ms != std::floor(ms)) {
      return Wrong(
          "INVALID_DURATION",
          "must be a duration such as \"1500ms\", \"30s\" or \"1h30m\", or a whole number of milliseconds, at most ten years.");
    }
    Between(ms, " ms");
  }
  void Text(const json& value) {
    if (!value.is_string()) return WrongType("a string", value);
    const auto& text = value.get_ref<const std::string&>();
    if (text.size() > kMaxConfigText) return Wrong("TOO_LONG", absl::StrCat("may have at most ", kMaxConfigText, " bytes."));
    const double length = static_cast<double>(Characters(text));
    if (auto min = NumberRule("minLength"); min && length < *min)
      Wrong("TOO_SHORT", absl::StrCat("must have at least ", *min, " characters."));
    if (auto max = NumberRule("maxLength"); max && length > *max)
      Wrong("TOO_LONG", absl::StrCat("may have at most ", *max, " characters."));
    if (const json* pattern = Rule("pattern"); pattern != nullptr && pattern->is_string()) {
      const auto compiled = CompilePattern(pattern->get<std::string>());
      if (compiled->ok() && !re2::RE2::PartialMatch(text, *compiled)) {
        Wrong("PATTERN_MISMATCH", absl::StrCat("must match the pattern ", pattern->get<std::string>(), " ."));
      }
    }
    if (text.empty()) return;  // an empty optional text is none; a required one is reported as missing
    if (field_.type == "url" && !IsUrl(text)) Wrong("INVALID_URL", "must be a URL such as https://example.org/path.");
    if (field_.type == "email" && !IsEmail(text)) Wrong("INVALID_EMAIL", "must be an e-mail address.");
  }

  const ConfigField& field_;
  const json& definition_;
  const std::string path_;
  Findings& out_;
};

constexpr size_t kMaxNamed = 64;  // characters of a name in a sentence

std::vector<std::string> Names(const std::vector<ConfigField>& fields) {
  std::vector<std::string> names;
  for (const ConfigField& field : fields) names.push_back(field.name);
  return names;
}

bool IsSet(const json& value) {
  return !value.is_null() && value != false && !(value.is_string() && value.get_ref<const std::string&>().empty()) &&
         !(value.is_array() && value.empty());
}

bool IsAsWanted(const json& value, const json* wanted) {
  if (wanted == nullptr) return IsSet(value);
  auto is = [&](const json& one) {
    return value == one || (value.is_array() && std::find(value.begin(), value.end(), one) != value.end());
  };
  return is(*wanted) || (wanted->is_array() && std::any_of(wanted->begin(), wanted->end(), is));
}

// Which fields apply under `effective`, by their place in the schema.
class Applicability {
 public:
  Applicability(const std::vector<ConfigField>& schema, const json& effective)
      : schema_(schema), effective_(effective), state_(schema.size(), kUnknown) {
    for (size_t i = 0; i < schema.size(); ++i) places_[schema[i].name] = i;
    for (size_t i = 0; i < schema.size(); ++i) Applies(i);
  }
  std::vector<bool> All() const {
    std::vector<bool> all;
    for (State state : state_) all.push_back(state == kYes);
    return all;
  }

 private:
  enum State { kUnknown, kYes, kNo };

  bool Applies(size_t i) {
    if (state_[i] != kUnknown) return state_[i] == kYes;
    state_[i] = kNo;  // for a cycle, which no valid manifest has
    const json definition = json::parse(schema_[i].json);
    bool all = true;
    for (const DependsOn& on : DependsOnOf(definition)) {
      const auto place = places_.find(on.field);
      const auto value = effective_.find(on.field);
      const bool so = value == effective_.end() ? false : IsAsWanted(*value, on.wanted);
      all = all && so && place != places_.end() && Applies(place->second);
    }
    state_[i] = all ? kYes : kNo;
    return all;
  }

  const std::vector<ConfigField>& schema_;
  const json& effective_;
  std::vector<State> state_;
  std::map<std::string, size_t> places_;
};

void CheckRequired(const std::vector<ConfigField>& schema, const json& effective, const std::vector<bool>& applying,
                   Findings& out) {
  for (size_t i = 0; i < schema.size(); ++i) {
    const ConfigField& field = schema[i];
    if (!field.required || !applying[i]) continue;
    auto value = effective.find(field.name);
    const bool empty = value != effective.end() && ((value->is_string() && value->get_ref<const std::string&>().empty()) ||
                                                    (field.type == "multiselect" && value->is_array() && value->empty()));
    if (value == effective.end() || value->is_null() || empty) {
      out.Error(PointerTo("", field.name), "REQUIRED", absl::StrCat("\"", field.name, "\" must be set."));
    }
  }
}

}  // namespace

std::string Dump(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

std::unique_ptr<re2::RE2> CompilePattern(const std::string& pattern) {
  re2::RE2::Options options;
  options.set_log_errors(false);
  options.set_max_mem(1 << 20);
  return std::make_unique<re2::RE2>(pattern, options);
}

std::vector<DependsOn> DependsOnOf(const json& definition) {
  std::vector<DependsOn> all;
  auto on = definition.find("dependsOn");
  if (on == definition.end()) return all;
  if (on->is_string()) all.push_back({on->get<std::string>()});
  if (!on->is_object()) return all;
  for (const auto& [name, wanted] : on->items()) all.push_back({name, &wanted});
  return all;
}

void CheckValue(const ConfigField& field, const json& definition, const json& value, std::string path, Findings& out) {
  ValueCheck(field, definition, std::move(path), out).Run(value);
}

void CheckValues(const std::vector<ConfigField>& schema, const json& config, const std::string& path,
                 const std::vector<bool>* applying, Findings& out) {
  if (schema.empty()) return;  // no schema: the module takes what it likes
  std::map<std::string_view, size_t> places;
  for (size_t i = 0; i < schema.size(); ++i) places[schema[i].name] = i;
  for (const auto& [name, value] : config.items()) {
    const auto place = places.find(name);
    if (place == places.end()) {
      out.Error(PointerTo(path, name), "UNKNOWN_FIELD",
                absl::StrCat("\"", name.substr(0, kMaxNamed), "\" is no field of the module's configuration.",
                             out.Suggest(name, Names(schema))));
    } else if (!value.is_null() && (applying == nullptr || (*applying)[place->second])) {
      const ConfigField& field = schema[place->second];
      CheckValue(field, json::parse(field.json), value, PointerTo(path, name), out);
    }
  }
}

std::optional<json> ParseConfiguration(std::string_view text, Findings& out) {
  if (text.size() > kMaxConfiguration) {
    out.Error("", "TOO_LARGE", absl::StrCat("A configuration may have at most ", kMaxConfiguration, " bytes."));
    return std::nullopt;
  }
  if (text.empty()) return json::object();
  auto document = ReadDocument(text, false);
  if (!document.ok()) {
    for (ErrorDetail& detail : ErrorDetails(document.status())) {
      // What a parser says of broken JSON quotes it.
      if (detail.code == "SYNTAX") detail.message = "The configuration is not JSON.";
      out.errors.push_back({std::move(detail.path), detail.line, std::move(detail.code), std::move(detail.message)});
    }
    return std::nullopt;
  }
  if (document->root.is_null()) return json::object();
  if (!document->root.is_object()) {
    out.Error("", "WRONG_TYPE", absl::StrCat("The configuration must be an object, not ", TypeName(document->root), "."));
    return std::nullopt;
  }
  return std::move(document->root);
}

ConfigResult EffectiveConfig(const Manifest& manifest, std::string_view config_json) {
  Findings out;
  json effective = json::parse(manifest.config_defaults_json, nullptr, false);
  if (!effective.is_object()) effective = json::object();
  if (const auto given = ParseConfiguration(config_json, out)) {
    for (const auto& [name, value] : given->items()) {
      if (!value.is_null()) effective[name] = value;  // null is "not set": the default stays
    }
    const std::vector<bool> applying = Applicability(manifest.config_schema, effective).All();
    CheckValues(manifest.config_schema, *given, "", &applying, out);
    CheckRequired(manifest.config_schema, effective, applying, out);
    CheckNul(*given, "", out);
  }
  return {Dump(effective), std::move(out.errors)};
}

}  // namespace bulkhead
