// Configurations as any text, against a schema with one field of each type, and any text as such a schema: no secret is told,
// what is masked comes back as it was, and a change that is made twice is made once.
#include "nlohmann/json.hpp"
#include "supervisor/base/log.h"
#include "supervisor/manifest/config_change.h"
#include "supervisor/manifest/document.h"
#include "supervisor/base/duration.h"
#include "supervisor/manifest/manifest.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace bulkhead;
using nlohmann::json;

const char kSchema[] = R"({"name": "m", "version": "1.0.0", "config": {"schema": {
  "text": {"type": "string", "required": true, "validation": {"minLength": 2, "maxLength": 9, "pattern": "^(a+)+$"}}, "secret": {"type": "password"},
  "number": {"type": "number", "validation": {"min": -3, "max": 1e9}}, "integer": {"type": "integer"}, "on": {"type": "boolean"},
  "one": {"type": "select", "options": ["a", 2, {"value": true}]}, "some": {"type": "multiselect", "options": ["a", "b", 3], "validation": {"maxItems": 2}},
  "hidden": {"type": "json", "sensitive": true, "dependsOn": "on"}, "every": {"type": "duration", "dependsOn": {"one": ["a", 2]}},
  "url": {"type": "url"}, "mail": {"type": "email", "dependsOn": {"some": "b"}}}}})";

const Manifest& Module() {
  static const Manifest manifest = *ParseManifest(kSchema, false).manifest;
  return manifest;
}

// Nothing that stands in a secret value, when that is long enough to be told from chance.
void CheckHidden(const json& config, const std::string& told) {
  for (const char* name : {"secret", "hidden"}) {
    auto value = config.find(name);
    if (value == config.end() || !value->is_string()) continue;
    const auto& secret = value->get_ref<const std::string&>();
    if (secret.size() < 12 || json::parse(kSchema).dump().find(secret) != std::string::npos) continue;
    bool elsewhere = false;  // in the name of a field, which is shown
    for (const auto& [other, member] : config.items())
      elsewhere = elsewhere || (other != name && (other + member.dump()).find(secret) != std::string::npos);
    if (!elsewhere) BULKHEAD_CHECK(told.find(secret) == std::string::npos);
  }
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  return {
      R"({"text":"aaa","secret":"hunter2hunter2","number":5,"integer":-1,"on":true,"one":"a",)"
          R"("some":["a",3],"hidden":{"a":[1]},"every":"1h30m","url":"https://a/b","mail":"a@b.c"})",
      R"({"text":"aaaaaaaaaaaaaaaa!","secret":"********","some":["b","b"],"every":-5,"mail":"x","gone":{"x":null}})",
      R"({"integer":1e300,"every":"90s","hidden":"********"})",
      R"({"a":{"type":"select","options":[1,{"value":"x"}],"default":1,"dependsOn":"b"},"b":{"type":"string","pattern":"^(x|y)*$"}})",
      R"({"a":{"type":"integer","dependsOn":{"b":1}},"b":{"type":"integer","dependsOn":"a","min":1,"max":0}})",
      "1d2h3m4s5ms"};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), std::min<size_t>(size, 32 * 1024));
  if (auto duration = ParseDuration(text)) BULKHEAD_CHECK(duration->count() >= 0 && *duration <= kMaxDuration);
  const Manifest& m = Module();
  const ConfigResult result = EffectiveConfig(m, text);
  std::string told = MaskConfig(m, text) + MaskedDiff(m, "{}", text) + MaskedDiff(m, text, "{}");
  for (const Finding& f : result.errors) {
    BULKHEAD_CHECK(!f.code.empty() && !f.message.empty() && f.message.back() != ' ');
    told += f.message;
  }
  const auto document = ReadDocument(text, false);
  if (!document.ok() || !document->root.is_object()) return 0;
  const json& config = document->root;
  CheckHidden(config, told);
  BULKHEAD_CHECK(MaskedDiff(m, text, text) == "{}");
  const json kept = json::parse(KeepMasked(m, text, MaskConfig(m, text)));
  for (const ConfigField& field : m.config_schema) {
    BULKHEAD_CHECK(kept.value(field.name, json()) == config.value(field.name, json()));
  }
  const auto once = MergePatch(R"({"text":"a","hidden":{"a":{"b":1}}})", text);
  if (once.ok()) BULKHEAD_CHECK(*MergePatch(*once, text) == *once);

  // The same text as a schema; when it is one, its defaults are a configuration.
  const ManifestResult manifest = ParseManifestJson({{"name", "m"}, {"version", "1.0.0"}, {"config", {{"schema", config}}}});
  if (!manifest.manifest) return 0;
  for (const Finding& f : EffectiveConfig(*manifest.manifest, "{}").errors) BULKHEAD_CHECK(f.code == "REQUIRED");
  EffectiveConfig(*manifest.manifest, manifest.manifest->config_defaults_json);
  return 0;
}
