// Changes of a module's configuration: partial ones, ones by an operator who never saw the secrets, and what to tell about one.
// Pure. Configurations are JSON texts of objects; "" and "null" are {}.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/manifest/manifest.h"

namespace bulkhead {

// JSON merge patch (RFC 7396): members of `patch_json` replace those of `target_json`, objects are merged, null removes.
// CONFIG_INVALID when either is no configuration; no sentence repeats what stands there.
absl::StatusOr<std::string> MergePatch(std::string_view target_json, std::string_view patch_json);

// `incoming_json` with every sensitive value that is "********" (what MaskConfig shows) replaced by the stored one, or left out
// where none is stored, so that the default shows through. What is no configuration comes back as it is, for EffectiveConfig to
// refuse.
std::string KeepMasked(const Manifest& manifest, std::string_view stored_json, std::string_view incoming_json);

// Whether KeepMasked would take a stored value: a sensitive one that is "********" in `incoming_json`, and is stored in whatever form.
bool KeepsSecrets(const Manifest& manifest, std::string_view stored_json, std::string_view incoming_json);

// The texts of the effective configuration that must not be shown, as they are and as JSON writes them; those of fewer than eight bytes are left
// out, since they would be found everywhere.
std::vector<std::string> SecretTexts(const Manifest& manifest, std::string_view config_json);

// {"field": {"from": …, "to": …}} of what differs between two configurations, null for what is not there. Secrets, and fields
// that the schema does not know, are "********" on both sides: one sees that they changed, not how.
std::string MaskedDiff(const Manifest& manifest, std::string_view before_json, std::string_view after_json);

}  // namespace bulkhead
