#include "supervisor/manifest/config_change.h"

#include <algorithm>
#include <set>

#include "supervisor/base/status.h"
#include "supervisor/manifest/config_schema.h"

namespace bulkhead {
namespace {

using nlohmann::json;

constexpr size_t kMinSecretText = 8;  // as long as what stands for it

// {} for what is no configuration.
json ObjectOf(std::string_view text) {
  Findings ignored;
  return ParseConfiguration(text, ignored).value_or(json::object());
}

// Whether a value must not be shown: the field says so, or is none that is known.
class Secrets {
 public:
  explicit Secrets(const Manifest& manifest) : any_(!manifest.config_schema.empty()) {
    for (const ConfigField& field : manifest.config_schema) {
      if (!field.sensitive) open_.insert(field.name);
    }
  }
  bool Hides(const std::string& name) const { return any_ && !open_.contains(name); }

 private:
  const bool any_;
  std::set<std::string> open_;
};

void CollectTexts(const json& value, std::vector<std::string>& texts) {
  if (value.is_structured()) {
    for (const json& item : value) CollectTexts(item, texts);
    return;
  }
  const std::string quoted = Dump(value);
  const std::string text = value.is_string() ? value.get<std::string>() : quoted;
  if (text.size() < kMinSecretText) return;
  texts.push_back(text);
  if (value.is_string() && quoted.size() > text.size() + 2) texts.push_back(quoted.substr(1, quoted.size() - 2));
}

}  // namespace

absl::StatusOr<std::string> MergePatch(std::string_view target_json, std::string_view patch_json) {
  Findings wrong;
  auto target = ParseConfiguration(target_json, wrong);
  auto patch = ParseConfiguration(patch_json, wrong);
  if (!target || !patch) {
    std::vector<ErrorDetail> details;
    for (Finding& f : wrong.errors) details.push_back({std::move(f.path), std::move(f.code), std::move(f.message), f.line});
    return Error("CONFIG_INVALID", details.at(0).message, details);
  }
  target->merge_patch(*patch);
  return Dump(*target);
}

std::string KeepMasked(const Manifest& manifest, std::string_view stored_json, std::string_view incoming_json) {
  Findings wrong;
  auto incoming = ParseConfiguration(incoming_json, wrong);
  if (!incoming) return std::string(incoming_json);
  const json stored = ObjectOf(stored_json);
  for (const ConfigField& field : manifest.config_schema) {
    auto value = incoming->find(field.name);
    if (!field.sensitive || value == incoming->end() || *value != kMask) continue;
    if (auto kept = stored.find(field.name); kept != stored.end()) {
      *value = *kept;
    } else {
      incoming->erase(value);
    }
  }
  return Dump(*incoming);
}

bool KeepsSecrets(const Manifest& manifest, std::string_view stored_json, std::string_view incoming_json) {
  const json stored = ObjectOf(stored_json), incoming = ObjectOf(incoming_json);
  return std::any_of(manifest.config_schema.begin(), manifest.config_schema.end(), [&](const ConfigField& field) {
    auto value = incoming.find(field.name);
    return field.sensitive && value != incoming.end() && *value == kMask && stored.contains(field.name);
  });
}

std::string MaskedDiff(const Manifest& manifest, std::string_view before_json, std::string_view after_json) {
  const json before = ObjectOf(before_json), after = ObjectOf(after_json);
  const Secrets secrets(manifest);
  std::set<std::string> names;
  for (const json* side : {&before, &after}) {
    for (const auto& [name, value] : side->items()) names.insert(name);
  }
  json diff = json::object();
  for (const std::string& name : names) {
    const json from = before.value(name, json()), to = after.value(name, json());
    if (from == to) continue;
    auto shown = [&](const json& value) { return !value.is_null() && secrets.Hides(name) ? json(kMask) : value; };
    diff[name] = {{"from", shown(from)}, {"to", shown(to)}};
  }
  return Dump(diff);
}

std::vector<std::string> SecretTexts(const Manifest& manifest, std::string_view config_json) {
  std::vector<std::string> texts;
  const json config = ObjectOf(config_json);
  const Secrets secrets(manifest);
  for (const auto& [name, value] : config.items()) {
    if (secrets.Hides(name)) CollectTexts(value, texts);
  }
  return texts;
}

std::string MaskConfig(const Manifest& manifest, std::string_view config_json) {
  json config = ObjectOf(config_json);
  const Secrets secrets(manifest);
  for (auto& [name, value] : config.items()) {
    if (!value.is_null() && secrets.Hides(name)) value = kMask;
  }
  return Dump(config);
}

}  // namespace bulkhead
