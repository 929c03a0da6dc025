// Manifests as any text, as JSON and as YAML: every finding has a code and a sentence, a valid one reads the same again, and the
// same document is judged the same in both forms.
#include <fstream>
#include <iterator>
#include <set>

#include "nlohmann/json.hpp"
#include "supervisor/base/log.h"
#include "supervisor/manifest/document.h"
#include "supervisor/manifest/manifest.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace bulkhead;
using nlohmann::json;

void Check(const ManifestResult& result) {
  BULKHEAD_CHECK(result.manifest.has_value() == result.errors.empty());
  for (const auto* list : {&result.errors, &result.warnings}) {
    for (const Finding& f : *list) {
      BULKHEAD_CHECK(!f.code.empty() && f.message.size() > 2 && f.line >= 0);
      BULKHEAD_CHECK(f.message.back() == '.' || f.message.back() == '?');
      BULKHEAD_CHECK(f.path.empty() || f.path[0] == '/');
    }
  }
  if (!result.manifest) return;
  const ManifestResult again = ParseManifest(result.manifest->json, false);
  BULKHEAD_CHECK(again.manifest && *again.manifest == *result.manifest);
  BULKHEAD_CHECK(again.warnings.size() == result.warnings.size());
  EffectiveConfig(*result.manifest, "{}");
  MaskConfig(*result.manifest, result.manifest->config_defaults_json);
}

std::multiset<std::string> Codes(const ManifestResult& result) {
  std::multiset<std::string> codes;
  for (const Finding& f : result.errors) codes.insert(f.path + " " + f.code);
  return codes;
}

// What YAML can say as well: no NUL, and keys that fit on its one line.
bool FitsYaml(const json& value) {
  if (value.is_string()) return value.get_ref<const std::string&>().find('\0') == std::string::npos;
  if (value.is_array()) return std::all_of(value.begin(), value.end(), FitsYaml);
  if (!value.is_object()) return true;
  for (const auto& [name, member] : value.items()) {
    if (name.size() > 200 || name.find('\0') != std::string::npos || !FitsYaml(member)) return false;
  }
  return true;
}

std::string Text(const std::string& name) {
  std::ifstream file(BULKHEAD_FUZZ_MANIFESTS "/" + name);
  std::string text(std::istreambuf_iterator<char>(file), {});
  BULKHEAD_CHECK(!text.empty());
  return text;
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  return {
      Text("interface/manifest_full.json"),
      Text("unit/manifest/vmware_vcenter.json"),
      R"({"name": "a", "version": "1.0.0"})",
      "name: a\nversion: 1.0.0\nargs: &x [a, \"b\\n\", 'c']\ncapabilities:\n  api:\n    routes:\n      - {method: GET, path: "
      "/a/:id}\n"
      "      - method: POST\n        path: /a/*\nmetadata: {tags: *x}\nlimits: {memory: 512Mi, cpu: 0.5}\n",
      R"({"name":"a","version":"1.0.0","config":{"schema":{"a":{"type":"select","options":[1,{"value":"x"}],"dependsOn":{"b":[true]}},)"
          R"("b":{"type":"boolean"}}}})",
      "- [{? a : b}, !!str 5, ~, |\n  text\n, >-\n  folded]\n",
      "%YAML 1.2\n---\na: &a [*a]\n...\n"};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  Check(ParseManifest(text, true));
  const ManifestResult result = ParseManifest(text, false);
  Check(result);
  const auto document = ReadDocument(text, false);
  if (!document.ok()) return 0;
  BULKHEAD_CHECK(Codes(ParseManifestJson(document->root)) == Codes(result));
  if (FitsYaml(document->root)) BULKHEAD_CHECK(Codes(ParseManifest(document->root.dump(1), true)) == Codes(result));
  return 0;
}
