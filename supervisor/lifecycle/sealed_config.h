// A module's configuration as it is kept: the values that its manifest calls secret are sealed, {"$sealed": "v1.…"} in their place.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/manifest/manifest.h"
#include "supervisor/store/secret_box.h"

namespace bulkhead {

// `config_json` is an object; what is sealed in it already stays as it is.
std::string SealConfig(const SecretBox& box, const Manifest& manifest, const std::string& config_json);
// Opens whatever is sealed, also what the manifest does not call a secret any more. SECRET_UNREADABLE names the field.
absl::StatusOr<std::string> OpenConfig(const SecretBox& box, std::string_view module, const std::string& config_json);
// Whether what the manifest calls a secret stands there in plain text, from a time when it was none.
bool HasUnsealed(const Manifest& manifest, const std::string& config_json);
// Whether something in it is sealed with another key than the one that seals now.
bool SealedWithOldKey(const SecretBox& box, const std::string& config_json);
std::vector<std::string> SealedFields(const std::string& config_json);  // names

// What is stored after a change: `change_json` itself, or as a JSON merge patch (RFC 7396) on `stored_json`. A secret that comes as
// "********", as it is shown, is the stored one. CONFIG_INVALID for what is no object or claims to be sealed.
absl::StatusOr<std::string> NewConfig(const Manifest& manifest, const std::string& stored_json, const std::string& change_json, bool merge);
bool SameConfig(const std::string& a, const std::string& b);
// The fields that differ, before and after, for the audit: secrets as "********", also where they differ.
std::pair<std::string, std::string> MaskedChange(const Manifest& manifest, const std::string& before_json, const std::string& after_json);

}  // namespace bulkhead
