// A module's configuration against the schema of its manifest: defaults, checks, masking.
#include <algorithm>
#include <cmath>
#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "re2/re2.h"
#include "supervisor/manifest/nearest.h"
#include "supervisor/manifest/reader.h"

namespace bulkhead {
namespace {

using nlohmann::json;

constexpr size_t kMaxFields = 200;
constexpr size_t kMaxText = 64 * 1024;     // of one configuration value
constexpr size_t kMaxConfig = 256 * 1024;  // of a whole configuration
constexpr size_t kMaxPattern = 1024;
constexpr char kMask[] = "********";

const std::vector<std::string>& Types() {
  static const std::vector<std::string> types{"string", "password", "number", "boolean", "select", "text", "url", "email"};
  return types;
}

std::string Dump(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

// RE2: linear in the input, whatever the manifest's author or an attacker wrote.
std::unique_ptr<re2::RE2> CompilePattern(const std::string& pattern) {
  re2::RE2::Options options;
  options.set_log_errors(false);
  options.set_max_mem(1 << 20);
  return std::make_unique<re2::RE2>(pattern, options);
}

bool IsUrl(const std::string& text) {
  static const re2::RE2 form("[A-Za-z][A-Za-z0-9+.-]*://[^\\s/?#]+[^\\s]*");
  return re2::RE2::FullMatch(text, form);
}
bool IsEmail(const std::string& text) {
  static const re2::RE2 form("[^\\s@]+@[^\\s@]+\\.[^\\s@.]+");
  return re2::RE2::FullMatch(text, form);
}

size_t Characters(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

// What a field's own rules find wrong with `value`; the sentences never repeat it, because it may be a secret.
class ValueCheck {
 public:
  ValueCheck(const ConfigField& field, const json& definition, std::string path, Findings& out)
      : field_(field), definition_(definition), path_(std::move(path)), out_(out) {}

  void Run(const json& value) {
    if (field_.type == "number") return Number(value);
    if (field_.type == "boolean") return value.is_boolean() ? void() : WrongType("true or false", value);
    if (field_.type == "select") return Select(value);
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

  void Number(const json& value) {
    if (!value.is_number()) return WrongType("a number", value);
    const double number = value.get<double>();
    if (auto min = NumberRule("min"); min && number < *min) Wrong("TOO_SMALL", absl::StrCat("must be at least ", *min, "."));
    if (auto max = NumberRule("max"); max && number > *max) Wrong("TOO_LARGE", absl::StrCat("must be at most ", *max, "."));
    if (const json* whole = Rule("integer"); whole != nullptr && *whole == true && number != std::floor(number)) {
      Wrong("NOT_INTEGER", "must be a whole number.");
    }
  }
  void Select(const json& value) {
    auto options = definition_.find("options");
    if (options == definition_.end() || !options->is_array()) return;  // reported with the schema
    for (const json& option : *options) {
      if (option == value) return;
      if (option.is_object() && option.contains("value") && option["value"] == value) return;
    }
    Wrong("NOT_AN_OPTION", "must be one of its options.");
  }
  void Text(const json& value) {
    if (!value.is_string()) return WrongType("a string", value);
    const auto& text = value.get_ref<const std::string&>();
    if (text.size() > kMaxText) return Wrong("TOO_LONG", absl::StrCat("may have at most ", kMaxText, " bytes."));
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

void ReadValidation(ObjectReader& field, const std::string& type, Findings& out) {
  const json* value = field.Object("validation");
  if (value == nullptr) return;
  ObjectReader rules(*value, field.PathOf("validation"), out);
  const auto min = rules.Number("min"), max = rules.Number("max");
  const auto shortest = rules.Integer("minLength", 0, kMaxText), longest = rules.Integer("maxLength", 0, kMaxText);
  if ((min && max && *min > *max) || (shortest && longest && *shortest > *longest)) {
    out.Error(rules.path(), "INVALID_RULE", "The lower bound is above the upper one.");
  }
  rules.Bool("integer");
  if (auto pattern = rules.String("pattern", kMaxPattern)) {
    if (const auto compiled = CompilePattern(*pattern); !compiled->ok()) {
      out.Error(
          rules.PathOf("pattern"), "INVALID_PATTERN",
          absl::StrCat("This is no regular expression that is supported here (RE2 syntax, no look-around, no back references): ",
                       compiled->error(), "."));
    }
  }
  rules.Accept({"message", "step"});
  rules.WarnUnknown();
}

void ReadOptions(ObjectReader& field, const std::string& type, Findings& out) {
  const json* options = field.Array("options", 1'000);
  if (type != "select") return;
  if (options == nullptr || options->empty()) {
    if (options != nullptr || field.Get("options") == nullptr) {
      out.Error(field.PathOf("options"), "REQUIRED", "A \"select\" needs \"options\".");
    }
    return;
  }
  for (size_t i = 0; i < options->size(); ++i) {
    const json& option = (*options)[i];
    if (option.is_primitive() && !option.is_null()) continue;
    if (option.is_object() && option.contains("value") && option["value"].is_primitive()) continue;
    out.Error(PointerTo(field.PathOf("options"), i), "WRONG_TYPE",
              "An option is a plain value or an object with \"value\" and \"label\".");
  }
}

ConfigField ReadField(const std::string& name, const json& value, const std::string& path, Findings& out) {
  ConfigField field{.name = name, .type = "string", .json = Dump(value)};
  ObjectReader reader(value, path, out);
  if (!value.is_object()) return field;
  reader.Require("type");
  if (auto type = reader.String("type")) {
    field.type = *type;
    if (std::find(Types().begin(), Types().end(), *type) == Types().end()) {
      out.Error(
          reader.PathOf("type"), "INVALID_TYPE",
          absl::StrCat("The type of a configuration field is one of string, password, number, boolean, select, text, url, email.",
                       DidYouMean(*type, Types())));
      field.type = "string";
    }
  }
  field.required = reader.Bool("required").value_or(false);
  field.sensitive = reader.Bool("sensitive").value_or(false) || field.type == "password";
  reader.String("label");
  reader.String("description", 4096);
  ReadValidation(reader, field.type, out);
  ReadOptions(reader, field.type, out);
  reader.Get("default");
  reader.Accept({"placeholder", "help", "group", "order", "unit", "min", "max", "minLength", "maxLength", "pattern", "integer"});
  reader.WarnUnknown();
  return field;
}

std::vector<std::string> Names(const std::vector<ConfigField>& fields) {
  std::vector<std::string> names;
  for (const ConfigField& field : fields) names.push_back(field.name);
  return names;
}

// Checks the members of `config` (pointers below `path`), not whether any is missing.
void CheckValues(const std::vector<ConfigField>& schema, const json& config, const std::string& path, Findings& out) {
  if (schema.empty()) return;  // no schema: the module takes what it likes
  for (const auto& [name, value] : config.items()) {
    auto field = std::find_if(schema.begin(), schema.end(), [&, &key = name](const ConfigField& f) { return f.name == key; });
    if (field == schema.end()) {
      out.Error(PointerTo(path, name), "UNKNOWN_FIELD",
                absl::StrCat("\"", name.substr(0, 64), "\" is no field of the module's configuration.",
                             DidYouMean(name, Names(schema))));
    } else if (!value.is_null()) {
      const json definition = json::parse(field->json);
      ValueCheck(*field, definition, PointerTo(path, name), out).Run(value);
    }
  }
}

}  // namespace

void ReadConfigSchema(const json& config, const std::string& path, Manifest& manifest, Findings& out) {
  ObjectReader reader(config, path, out);
  json defaults = json::object();
  if (const json* schema = reader.Object("schema")) {
    const std::string schema_path = reader.PathOf("schema");
    if (schema->size() > kMaxFields)
      out.Error(schema_path, "TOO_MANY", absl::StrCat("A configuration may have at most ", kMaxFields, " fields."));
    for (const auto& [name, value] : schema->items()) {
      const std::string field_path = PointerTo(schema_path, name);
      manifest.config_schema.push_back(ReadField(name, value, field_path, out));
      auto own = value.is_object() ? value.find("default") : value.end();
      if (!value.is_object() || own == value.end() || own->is_null()) continue;
      ValueCheck(manifest.config_schema.back(), value, PointerTo(field_path, "default"), out).Run(*own);
      defaults[name] = *own;
    }
  }
  if (const json* overall = reader.Object("defaults")) {
    CheckValues(manifest.config_schema, *overall, reader.PathOf("defaults"), out);
    defaults.update(*overall);
  }
  manifest.config_defaults_json = Dump(defaults);
  reader.WarnUnknown();
}

ConfigResult EffectiveConfig(const Manifest& manifest, std::string_view config_json) {
  ConfigResult result;
  Findings out;
  json effective = json::parse(manifest.config_defaults_json, nullptr, false);
  if (!effective.is_object()) effective = json::object();
  json given = json::object();
  if (config_json.size() > kMaxConfig) {
    out.Error("", "TOO_LARGE", absl::StrCat("A configuration may have at most ", kMaxConfig, " bytes."));
  } else if (!config_json.empty()) {
    given = json::parse(config_json, nullptr, false);
    if (given.is_null()) given = json::object();
    if (given.is_discarded()) {
      out.Error("", "SYNTAX", "The configuration is not JSON.");
    } else if (!given.is_object()) {
      out.Error("", "WRONG_TYPE", absl::StrCat("The configuration must be an object, not ", TypeName(given), "."));
    }
  }
  if (given.is_object()) {
    CheckValues(manifest.config_schema, given, "", out);
    for (const auto& [name, value] : given.items()) {
      if (!value.is_null()) effective[name] = value;  // null is "not set": the default stays
    }
    for (const ConfigField& field : manifest.config_schema) {
      if (!field.required) continue;
      auto value = effective.find(field.name);
      if (value == effective.end() || value->is_null() || (value->is_string() && value->get_ref<const std::string&>().empty())) {
        out.Error(PointerTo("", field.name), "REQUIRED", absl::StrCat("\"", field.name, "\" must be set."));
      }
    }
  }
  result.effective_json = Dump(effective);
  result.errors = std::move(out.errors);
  return result;
}

std::string MaskConfig(const Manifest& manifest, std::string_view config_json) {
  json config = json::parse(config_json, nullptr, false);
  if (!config.is_object()) return "{}";
  for (const ConfigField& field : manifest.config_schema) {
    if (auto value = config.find(field.name); field.sensitive && value != config.end() && !value->is_null()) *value = kMask;
  }
  return Dump(config);
}

}  // namespace bulkhead
