#include "supervisor/lifecycle/sealed_config.h"

#include <algorithm>

#include "nlohmann/json.hpp"
#include "supervisor/base/status.h"
#include "supervisor/manifest/config_change.h"

namespace bulkhead {
namespace {

using nlohmann::json;

constexpr char kSealed[] = "$sealed";

std::string Dump(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

bool IsSealed(const json& value) { return value.is_object() && value.size() == 1 && value.contains(kSealed) && value[kSealed].is_string(); }

// A value moved to another module or field does not open there.
std::string Purpose(std::string_view module, const std::string& field) { return "config/" + std::string(module) + "/" + field; }

}  // namespace

std::string SealConfig(const SecretBox& box, const Manifest& manifest, const std::string& config_json) {
  json config = json::parse(config_json, nullptr, false);
  if (!config.is_object()) return "{}";
  for (const ConfigField& field : manifest.config_schema) {
    auto value = config.find(field.name);
    if (!field.sensitive || value == config.end() || value->is_null() || IsSealed(*value)) continue;
    *value = json{{kSealed, box.Seal(Dump(*value), Purpose(manifest.name, field.name))}};
  }
  return Dump(config);
}

absl::StatusOr<std::string> OpenConfig(const SecretBox& box, std::string_view module, const std::string& config_json) {
  json config = json::parse(config_json, nullptr, false);
  if (!config.is_object()) return std::string("{}");
  for (auto& [name, value] : config.items()) {
    if (!IsSealed(value)) continue;
    auto plain = box.Open(value[kSealed].get_ref<const std::string&>(), Purpose(module, name));
    if (!plain.ok())
      return Error("SECRET_UNREADABLE", "the field " + name + " of the configuration of " + std::string(module) + ": " + std::string(plain.status().message()) +
                                            ". Put the key back, or replace the whole configuration (PUT), secrets included");
    value = json::parse(*plain, nullptr, false);
  }
  return Dump(config);
}

bool HasUnsealed(const Manifest& manifest, const std::string& config_json) {
  const json config = json::parse(config_json, nullptr, false);
  return config.is_object() && std::any_of(manifest.config_schema.begin(), manifest.config_schema.end(), [&](const ConfigField& field) {
           auto value = config.find(field.name);
           return field.sensitive && value != config.end() && !value->is_null() && !IsSealed(*value);
         });
}

bool SealedWithOldKey(const SecretBox& box, const std::string& config_json) {
  const json config = json::parse(config_json, nullptr, false);
  if (!config.is_object()) return false;
  for (const auto& [name, value] : config.items()) {
    if (IsSealed(value) && !box.Current(value[kSealed].get_ref<const std::string&>())) return true;
  }
  return false;
}

std::vector<std::string> SealedFields(const std::string& config_json) {
  std::vector<std::string> names;
  const json config = json::parse(config_json, nullptr, false);
  if (!config.is_object()) return names;
  for (const auto& [name, value] : config.items()) {
    if (IsSealed(value)) names.push_back(name);
  }
  return names;
}

absl::StatusOr<std::string> NewConfig(const Manifest& manifest, const std::string& stored_json, const std::string& change_json, bool merge) {
  std::string wanted = KeepMasked(manifest, stored_json, change_json);
  if (merge) {
    ASSIGN_OR_RETURN(wanted, MergePatch(stored_json, wanted));
  }
  const json config = json::parse(wanted, nullptr, false);
  if (!config.is_object())
    return Error("CONFIG_INVALID", "a configuration is an object", {{"/config", "WRONG_TYPE", "send {\"config\": {…}}", 0}});
  for (const auto& [name, value] : config.items()) {
    if (IsSealed(value)) {
      return Error("CONFIG_INVALID", "sealed values are made by the supervisor: send the secret itself",
                   {{"/config/" + name, "SEALED", "this is no value that can be sent", 0}});
    }
  }
  return Dump(config);
}

bool SameConfig(const std::string& a, const std::string& b) { return json::parse(a, nullptr, false) == json::parse(b, nullptr, false); }

std::pair<std::string, std::string> MaskedChange(const Manifest& manifest, const std::string& before_json, const std::string& after_json) {
  json from = json::object(), to = json::object();
  const json changes = json::parse(MaskedDiff(manifest, before_json, after_json), nullptr, false);
  for (const auto& [name, change] : changes.items()) {
    if (!change["from"].is_null()) from[name] = change["from"];
    if (!change["to"].is_null()) to[name] = change["to"];
  }
  return {Dump(from), Dump(to)};
}

}  // namespace bulkhead
