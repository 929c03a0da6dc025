#include "supervisor/manifest/manifest.h"

#include <algorithm>
#include <iterator>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "supervisor/base/log.h"
#include "supervisor/base/status.h"
#include "supervisor/base/text.h"
#include "supervisor/manifest/document.h"
#include "supervisor/manifest/manifest_schema.h"
#include "supervisor/manifest/reader.h"
#include "supervisor/manifest/semver.h"

namespace bulkhead {
namespace {

using nlohmann::json;

constexpr size_t kMaxName = 63;  // a PostgreSQL identifier and a DNS label
constexpr int64_t kMaxLifecycleMs = 600'000;
constexpr size_t kMaxArgs = 64;
constexpr size_t kMaxPermissions = 256;

void ReadIdentity(ObjectReader& top, Manifest& manifest, Findings& out) {
  if (auto format = top.Number("manifestVersion"); format && *format != 1) {
    out.Error("/manifestVersion", "MANIFEST_VERSION_UNSUPPORTED",
              "\"manifestVersion\" must be 1, the only one that this supervisor reads.");
  }
  top.Require("name");
  top.Require("version");
  if (auto name = top.String("name")) {
    manifest.name = *name;
    if (!IsKebab(*name) || name->size() > kMaxName) {
      out.Error(
          "/name", "INVALID_NAME",
          absl::StrCat("A module's name is at most ", kMaxName,
                       " lower-case letters, digits and single hyphens, beginning with a letter, such as \"order-intake\"."));
    }
  }
  if (auto version = top.String("version")) {
    manifest.version = *version;
    if (!ParseSemVer(*version)) {
      out.Error("/version", "INVALID_VERSION",
                absl::StrCat("\"", version->substr(0, 64), "\" is no semantic version such as \"1.4.0\" or \"2.0.0-rc.1\"."));
    }
  }
  manifest.display_name = top.String("displayName").value_or(manifest.name);
  manifest.description = top.String("description", 4096).value_or("");
  manifest.author = top.String("author").value_or("");
  manifest.license = top.String("license").value_or("");
  manifest.permissions = top.Strings("permissions", kMaxPermissions, 128);
  for (size_t i = 0; i < manifest.permissions.size(); ++i) {
    const std::string& permission = manifest.permissions[i];
    const std::string path = PointerTo("/permissions", i);
    if (!ValidPermission(permission)) {
      out.Error(
          path, "INVALID_PERMISSION",
          "A permission is made of lower-case letters, digits and _ . - in segments split by \":\", such as \"orders:write\".");
    } else if (std::find(manifest.permissions.begin(), manifest.permissions.begin() + i, permission) !=
               manifest.permissions.begin() + i) {
      out.Warn(path, "DUPLICATE", absl::StrCat("The permission \"", permission, "\" is declared twice."));
    }
  }
}

void ReadProcess(ObjectReader& top, Manifest& manifest, Findings& out) {
  const auto entry = top.String("entry");
  manifest.entry = entry.value_or(absl::StrCat("bin/", manifest.name));
  if (entry) CheckInnerPath(*entry, "/entry", "entry", out);
  manifest.args = top.Strings("args", kMaxArgs, 4096);
  manifest.workers = static_cast<int>(top.Integer("workers", 1, limits::kMaxWorkers).value_or(1));
  manifest.warm_spare = top.Bool("warmSpare").value_or(false);
  manifest.critical = top.Bool("critical");
  manifest.feature_flag = top.String("featureFlag", 128).value_or("");
  if (!std::all_of(manifest.feature_flag.begin(), manifest.feature_flag.end(),
                   [](unsigned char c) { return absl::ascii_isalnum(c) || c == '_' || c == '-' || c == '.'; })) {
    out.Error("/featureFlag", "INVALID_NAME", "A feature flag is made of letters, digits, \"_\", \"-\" and \".\".");
  }
  if (auto transport = top.String("transport")) {
    if (*transport == "http") {
      manifest.transport = Transport::kHttp;
    } else if (*transport != "link") {
      out.Error("/transport", "INVALID_VALUE", "\"transport\" is \"link\" or \"http\".");
    }
  }
  if (auto reload = top.String("configReload")) {
    if (*reload == "restart") {
      manifest.config_reload = ConfigReload::kRestart;
    } else if (*reload != "push") {
      out.Error("/configReload", "INVALID_VALUE", "\"configReload\" is \"push\" or \"restart\".");
    }
  }
}

void ReadLifecycle(ObjectReader& top, Manifest& manifest, Findings& out) {
  if (const json* value = top.Object("lifecycle")) {
    ObjectReader lifecycle(*value, "/lifecycle", out);
    auto read = [&](const char* name, Millis& target, int64_t least = 1) {
      if (auto ms = lifecycle.Integer(name, least, kMaxLifecycleMs)) target = Millis(*ms);
    };
    read("handshakeTimeout", manifest.handshake_timeout);
    read("startTimeout", manifest.start_timeout);
    read("stopTimeout", manifest.stop_timeout);
    read("drainTimeout", manifest.drain_timeout);
    read("soakTime", manifest.soak_time, 0);
    lifecycle.WarnUnknown();
  }
  if (const json* value = top.Object("health")) ReadHealth(*value, "/health", manifest, out);
  if (const json* value = top.Object("restart")) ReadRestart(*value, "/restart", manifest, out);
}

void ReadDatabase(ObjectReader& top, Manifest& manifest, Findings& out) {
  const json* value = top.Object("database");
  if (value == nullptr) return;
  manifest.has_database = true;
  ObjectReader database(*value, "/database", out);
  if (auto folder = database.String("migrations")) {
    while (folder->size() > 1 && folder->back() == '/') folder->pop_back();
    manifest.migrations_dir = *folder;
    CheckInnerPath(*folder, "/database/migrations", "migrations", out);
  }
  manifest.extensions = database.Strings("extensions", 32, kMaxName);
  for (size_t i = 0; i < manifest.extensions.size(); ++i) {
    const std::string& name = manifest.extensions[i];
    if (name.empty() ||
        !std::all_of(name.begin(), name.end(), [](unsigned char c) { return absl::ascii_isalnum(c) || c == '_' || c == '-'; })) {
      out.Error(PointerTo("/database/extensions", i), "INVALID_NAME", "This is no name of a PostgreSQL extension.");
    }
  }
  database.WarnUnknown();
}

void ReadCapabilities(ObjectReader& top, Manifest& manifest, Findings& out) {
  const json* value = top.Object("capabilities");
  if (value == nullptr) return;
  ObjectReader capabilities(*value, "/capabilities", out);
  if (const json* api = capabilities.Object("api")) ReadRoutes(*api, "/capabilities/api", manifest, out);
  if (const json* jobs = capabilities.Object("jobs")) ReadJobs(*jobs, "/capabilities/jobs", manifest, out);
  if (const json* events = capabilities.Object("events")) ReadEvents(*events, "/capabilities/events", manifest, out);
  if (const json* clients = capabilities.Array("clients", kMaxClients)) ReadClientUses(*clients, "/capabilities/clients", manifest, out);
  ReadChannels(capabilities, out);
  if (const json* ui = capabilities.Object("ui")) ReadUi(*ui, "/capabilities/ui", manifest, out);
  capabilities.WarnUnknown();
}

void ReadMetadata(ObjectReader& top, Manifest& manifest, Findings& out) {
  const json* value = top.Object("metadata");
  if (value == nullptr) return;
  ObjectReader metadata(*value, "/metadata", out);
  metadata.Labels({"homepage", "category", "icon", "documentation"});
  metadata.TextOrObject("repository");
  metadata.TextOrObject("support");
  manifest.tags = metadata.Strings("tags", 64, 64);
  metadata.Strings("keywords", 64, 64);
  metadata.WarnUnknown();
}

// At most so many findings, and how many more there are.
void Bound(std::vector<Finding>& findings) {
  if (findings.size() <= Findings::kMaxReported) return;
  const size_t more = findings.size() - Findings::kMaxReported;
  findings.resize(Findings::kMaxReported);
  findings.push_back({"", 0, "TOO_MANY", absl::StrCat("There are ", more, " more like these; they are left out.")});
}

// The schema first, then the readers. Where both refuse the same place the reader is right, because it knows more than a keyword:
// its code stays and the schema's finding goes; so does what the schema misses in an object that the reader calls wrong as a
// whole.
ManifestResult Check(const json& document) {
  std::vector<Finding> structural = CheckAgainstSchema(document);
  Findings texts;
  CheckNul(document, "", texts);
  std::move(texts.errors.begin(), texts.errors.end(), std::back_inserter(structural));
  ManifestResult result = ReadManifest(document);
  std::map<std::string, bool> places;  // whether the reader says WRONG_TYPE of it
  for (const Finding& finding : result.errors) places[finding.path] |= finding.code == "WRONG_TYPE";
  for (Finding& finding : structural) {
    const auto around = finding.code == "REQUIRED" ? places.find(finding.path.substr(0, finding.path.rfind('/'))) : places.end();
    if (places.contains(finding.path) || (around != places.end() && around->second)) continue;
    result.errors.push_back(std::move(finding));
  }
  if (!result.errors.empty()) result.manifest.reset();
  return result;
}

}  // namespace

absl::Status CheckBulkheadRange(const Manifest& manifest) {
  return CheckBulkheadRange(manifest.name, manifest.version, manifest.bulkhead_range);
}

absl::Status CheckBulkheadRange(const std::string& module, const std::string& module_version, const std::string& wanted) {
  const auto range = SemVerRange::Parse(wanted);
  const auto version = ParseSemVer(BULKHEAD_VERSION);
  BULKHEAD_CHECK(range && version);  // the manifest was read, the version is the project's
  if (range->Contains(*version)) return absl::OkStatus();
  const std::string why = absl::StrCat("module ", module, " ", module_version, " needs bulkhead ", wanted, ", this is " BULKHEAD_VERSION);
  return Error("DEPENDENCY_UNSATISFIED", why,
               {{.path = "/dependencies/system/bulkhead", .code = "DEPENDENCY_UNSATISFIED", .message = why}});
}

ManifestResult ReadManifest(const json& document) {
  Findings out;
  Manifest manifest;
  ObjectReader top(document, "", out);
  if (document.is_object()) {
    top.Labels({"$schema"});
    ReadIdentity(top, manifest, out);
    ReadProcess(top, manifest, out);
    ReadCapabilities(top, manifest, out);
    if (const json* value = top.Object("dependencies")) ReadDependencies(*value, "/dependencies", manifest, out);
    if (const json* value = top.Object("config")) ReadConfigSchema(*value, "/config", manifest, out);
    ReadDatabase(top, manifest, out);
    ReadLifecycle(top, manifest, out);
    if (const json* value = top.Object("limits")) ReadLimits(*value, "/limits", manifest, out);
    if (const json* value = top.Object("access")) ReadAccess(*value, "/access", manifest, out);
    ReadIsolation(top, manifest, out);
    ReadMetadata(top, manifest, out);
    top.WarnUnknown();
  }
  ManifestResult result;
  if (out.errors.empty()) {
    manifest.json = document.dump(-1, ' ', false, json::error_handler_t::replace);
    result.manifest = std::move(manifest);
  }
  result.errors = std::move(out.errors);
  result.warnings = std::move(out.warnings);
  return result;
}

ManifestResult ParseManifestJson(const json& document) {
  ManifestResult result = Check(document);
  Bound(result.errors);
  Bound(result.warnings);
  return result;
}

ManifestResult ParseManifest(std::string_view text, bool yaml) {
  auto document = ReadDocument(text, yaml);
  if (!document.ok()) {
    ManifestResult result;
    for (ErrorDetail& detail : ErrorDetails(document.status())) {
      result.errors.push_back({std::move(detail.path), detail.line, std::move(detail.code), std::move(detail.message)});
    }
    return result;
  }
  ManifestResult result = ParseManifestJson(document->root);
  for (auto* list : {&result.errors, &result.warnings}) {
    for (Finding& finding : *list) finding.line = document->LineOf(finding.path);
  }
  return result;
}

std::string FeatureFlagVariable(std::string_view flag) {
  std::string name = "FEATURE_FLAG_";
  for (char c : flag) name += c == '-' || c == '.' ? '_' : absl::ascii_toupper(static_cast<unsigned char>(c));
  return name;
}

}  // namespace bulkhead
