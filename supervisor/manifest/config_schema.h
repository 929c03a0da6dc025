// Values of a configuration against the fields of a manifest. Private to this room; manifest.h and config_change.h have what
// others use.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "nlohmann/json.hpp"
#include "re2/re2.h"
#include "supervisor/manifest/reader.h"

namespace bulkhead {

inline constexpr char kMask[] = "********";
inline constexpr size_t kMaxConfigText = 64 * 1024;      // of one value
inline constexpr size_t kMaxConfiguration = 256 * 1024;  // bytes of a whole configuration

// RE2: linear in the input, whatever the manifest's author or an attacker wrote.
std::unique_ptr<re2::RE2> CompilePattern(const std::string& pattern);

std::string Dump(const nlohmann::json& value);
// A configuration's text; "" and null are {}. What is none is reported and nullopt; no sentence repeats what stands there.
std::optional<nlohmann::json> ParseConfiguration(std::string_view text, Findings& out);

// What the field's own rules find wrong with `value`. `definition` is the field's object; the sentences never repeat the value.
void CheckValue(const ConfigField& field, const nlohmann::json& definition, const nlohmann::json& value, std::string path,
                Findings& out);
// Each member of `config`, and those that are no field; not whether any is missing. `applying`: check these only, when not
// nullptr.
void CheckValues(const std::vector<ConfigField>& schema, const nlohmann::json& config, const std::string& path,
                 const std::vector<bool>* applying, Findings& out);

// What `dependsOn` of a field names: field and, unless it only has to be set, its value or values.
struct DependsOn {
  std::string field;
  const nlohmann::json* wanted = nullptr;
};
std::vector<DependsOn> DependsOnOf(const nlohmann::json& definition);

}  // namespace bulkhead
