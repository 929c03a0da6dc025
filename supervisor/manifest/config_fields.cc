// The configuration's schema itself, as a manifest has it: fields, rules, options, defaults, and what depends on what.
#include <algorithm>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "supervisor/manifest/config_schema.h"

namespace bulkhead {
namespace {

using nlohmann::json;

constexpr size_t kMaxFields = 200;
constexpr size_t kMaxFieldName = 128;
constexpr size_t kMaxPattern = 1024;
constexpr size_t kMaxOptions = 1'000;
constexpr char kWhatOptionsAre[] = "An option is a plain value, or an object with \"value\", which is one, and \"label\".";

const std::vector<std::string>& Types() {
  static const std::vector<std::string> types{"string",      "password", "number",   "integer", "boolean", "select",
                                              "multiselect", "json",     "duration", "url",     "text",    "email"};
  return types;
}

bool IsFieldName(const std::string& name) {
  return !name.empty() && name.size() <= kMaxFieldName &&
         (absl::ascii_isalpha(static_cast<unsigned char>(name[0])) || name[0] == '_') &&
         std::all_of(name.begin(), name.end(),
                     [](unsigned char c) { return absl::ascii_isalnum(c) || c == '_' || c == '-' || c == '.'; });
}

// min, max, pattern and so on: in `validation`, or in the field itself.
void ReadRules(ObjectReader& rules, Findings& out) {
  const auto min = rules.Number("min"), max = rules.Number("max");
  const auto shortest = rules.Integer("minLength", 0, kMaxConfigText), longest = rules.Integer("maxLength", 0, kMaxConfigText);
  const auto fewest = rules.Integer("minItems", 0, kMaxOptions), most = rules.Integer("maxItems", 0, kMaxOptions);
  if ((min && max && *min > *max) || (shortest && longest && *shortest > *longest) || (fewest && most && *fewest > *most)) {
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
}

void ReadOptions(ObjectReader& field, const std::string& type, Findings& out) {
  const json* options = field.Array("options", kMaxOptions);
  const bool chooses = type == "select" || type == "multiselect";
  if (chooses && (options == nullptr || options->empty())) {
    if (options != nullptr || field.Get("options") == nullptr) {
      out.Error(field.PathOf("options"), "REQUIRED", absl::StrCat("A \"", type, "\" needs \"options\"."));
    }
    return;
  }
  for (size_t i = 0; options != nullptr && i < options->size(); ++i) {
    const json& option = (*options)[i];
    const std::string path = PointerTo(field.PathOf("options"), i);
    if (option.is_object()) {
      ObjectReader reader(option, path, out);
      const json* value = reader.Get("value");
      if (!option.contains("value")) {
        out.Error(path, "WRONG_TYPE", kWhatOptionsAre);
      } else if (value == nullptr || !value->is_primitive()) {
        out.Error(reader.PathOf("value"), "WRONG_TYPE", kWhatOptionsAre);
      }
      reader.Labels({"label"});
      reader.WarnUnknown();
    } else if (option.is_null() || !option.is_primitive()) {
      out.Error(path, "WRONG_TYPE", kWhatOptionsAre);
    }
  }
}

ConfigField ReadField(const std::string& name, const json& value, const std::string& path, Findings& out) {
  ConfigField field{.name = name, .type = "string", .json = Dump(value)};
  ObjectReader reader(value, path, out);
  if (!value.is_object()) return field;
  reader.Require("type");
  if (auto type = reader.String("type")) {
    if (std::find(Types().begin(), Types().end(), *type) != Types().end()) {
      field.type = *type;
    } else {
      out.Error(reader.PathOf("type"), "INVALID_TYPE",
                absl::StrCat("The type of a configuration field is one of ", absl::StrJoin(Types(), ", "), ".",
                             out.Suggest(*type, Types())));
    }
  }
  field.required = reader.Bool("required").value_or(false);
  field.sensitive = reader.Bool("sensitive").value_or(false) || field.type == "password";
  if (const json* validation = reader.Object("validation")) {
    ObjectReader rules(*validation, reader.PathOf("validation"), out);
    ReadRules(rules, out);
    rules.Labels({"message"});
    rules.Number("step");
    rules.WarnUnknown();
  }
  ReadRules(reader, out);
  ReadOptions(reader, field.type, out);
  reader.Get("default");
  if (const json* on = reader.Get("dependsOn"); on != nullptr && !on->is_string() && !on->is_object()) {
    out.Error(reader.PathOf("dependsOn"), "WRONG_TYPE",
              absl::StrCat("\"dependsOn\" must be the name of a field or an object of fields and their values, not ",
                           TypeName(*on), "."));
  }
  reader.Labels({"label", "placeholder", "group", "unit"});
  reader.Labels({"description", "help"}, 4096);
  reader.Number("order");
  reader.WarnUnknown();
  return field;
}

// Fields that `dependsOn` names: that they are there, that they can have the value, and that none waits for itself.
class DependencyCheck {
 public:
  DependencyCheck(const std::vector<ConfigField>& fields, const json& schema, std::string path, Findings& out)
      : fields_(fields), schema_(schema), path_(std::move(path)), out_(out) {}

  void Run() {
    for (const ConfigField& field : fields_) {
      if (!schema_.at(field.name).is_object()) continue;
      for (const DependsOn& on : DependsOnOf(schema_.at(field.name))) Check(field, on);
    }
    for (const ConfigField& field : fields_) Visit(field.name);
  }

 private:
  const ConfigField* Find(const std::string& name) const {
    auto field = std::find_if(fields_.begin(), fields_.end(), [&](const ConfigField& f) { return f.name == name; });
    return field == fields_.end() ? nullptr : &*field;
  }
  std::string PathOf(const std::string& name) const { return PointerTo(PointerTo(path_, name), "dependsOn"); }

  void Check(const ConfigField& field, const DependsOn& on) {
    const std::string path = on.wanted == nullptr ? PathOf(field.name) : PointerTo(PathOf(field.name), on.field);
    const ConfigField* other = Find(on.field);
    if (other == nullptr) {
      std::vector<std::string> names;
      for (const ConfigField& known : fields_) names.push_back(known.name);
      out_.Error(path, "UNKNOWN_FIELD",
                 absl::StrCat("There is no field \"", on.field.substr(0, 64), "\" to depend on.", out_.Suggest(on.field, names)));
      return;
    }
    if (on.wanted == nullptr) return;
    const bool list = on.wanted->is_array() && other->type != "json";
    for (const json& wanted : list ? *on.wanted : json::array({*on.wanted})) {
      Findings wrong;
      CheckValue(*other, schema_.at(other->name), other->type == "multiselect" ? json::array({wanted}) : wanted, "", wrong);
      std::erase_if(wrong.errors, [](const Finding& f) { return f.code == "TOO_FEW"; });
      if (wrong.errors.empty()) continue;
      out_.Error(path, "INVALID_VALUE",
                 absl::StrCat("\"", other->name, "\" can never have that value, so that this field would never apply."));
      return;
    }
  }

  void Visit(const std::string& name) {
    if (done_.contains(name)) return;
    auto began = std::find(way_.begin(), way_.end(), name);
    if (began != way_.end()) {
      std::vector<std::string> cycle(began, way_.end());
      cycle.push_back(name);
      out_.Error(PathOf(name), "DEPENDENCY_CYCLE",
                 absl::StrCat("These fields depend on each other: ", absl::StrJoin(cycle, " → "), "."));
      return;
    }
    way_.push_back(name);
    if (auto definition = schema_.find(name); definition != schema_.end() && definition->is_object()) {
      for (const DependsOn& on : DependsOnOf(*definition)) Visit(on.field);
    }
    way_.pop_back();
    done_.insert(name);
  }

  const std::vector<ConfigField>& fields_;
  const json& schema_;
  const std::string path_;
  Findings& out_;
  std::vector<std::string> way_;
  std::set<std::string> done_;
};

void ReadFields(const json& schema, const std::string& path, Manifest& manifest, json& defaults, Findings& out) {
  if (schema.size() > kMaxFields) {
    out.Error(path, "TOO_MANY", absl::StrCat("A configuration may have at most ", kMaxFields, " fields."));
    return;
  }
  for (const auto& [name, value] : schema.items()) {
    const std::string field_path = PointerTo(path, name);
    if (!IsFieldName(name)) {
      out.Error(field_path, "INVALID_NAME",
                absl::StrCat("A field's name is at most ", kMaxFieldName,
                             " letters, digits, \"_\", \"-\" and \".\", beginning with a letter or \"_\"."));
      continue;
    }
    manifest.config_schema.push_back(ReadField(name, value, field_path, out));
    if (!value.is_object()) continue;
    auto own = value.find("default");
    if (own == value.end() || own->is_null()) continue;
    CheckValue(manifest.config_schema.back(), value, *own, PointerTo(field_path, "default"), out);
    defaults[name] = *own;
  }
  DependencyCheck(manifest.config_schema, schema, path, out).Run();
}

}  // namespace

void ReadConfigSchema(const json& config, const std::string& path, Manifest& manifest, Findings& out) {
  ObjectReader reader(config, path, out);
  json defaults = json::object();
  if (const json* schema = reader.Object("schema")) ReadFields(*schema, reader.PathOf("schema"), manifest, defaults, out);
  if (const json* overall = reader.Object("defaults")) {
    CheckValues(manifest.config_schema, *overall, reader.PathOf("defaults"), nullptr, out);
    defaults.update(*overall);
  }
  manifest.config_defaults_json = Dump(defaults);
  reader.WarnUnknown();
}

}  // namespace bulkhead
