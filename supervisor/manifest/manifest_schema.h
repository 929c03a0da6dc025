// The JSON Schema (draft 7) of manifests, manifest.schema.json compiled in, and a manifest's structure held against it: types,
// required fields, enumerations, lengths, numbers out of range. What a schema cannot say (references, cron, ranges of versions,
// conflicts) is the readers' part. Pure; any thread.
#pragma once

#include <string_view>
#include <vector>

#include "nlohmann/json_fwd.hpp"
#include "supervisor/manifest/manifest.h"

namespace bulkhead {

// The whole document, as it stands in the file.
std::string_view ManifestSchemaJson();

// What the schema refuses: one finding for each place, with code REQUIRED, WRONG_TYPE, OUT_OF_RANGE, INVALID_VALUE, TOO_LONG or
// TOO_MANY. Patterns and property names are in the published schema for editors; here the readers check them, with codes of their
// own.
std::vector<Finding> CheckAgainstSchema(const nlohmann::json& document);

}  // namespace bulkhead
