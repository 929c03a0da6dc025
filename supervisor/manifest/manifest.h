// A module's manifest as a value, and how it is read and checked. Pure: no files, no clock, no database.
// README.md of this folder describes every field, manifest_schema.h has the JSON Schema; here are the fields that this version
// applies (another one that is known is a warning, NOT_APPLIED, or is read from `json`). Absent ones have the defaults written
// here. Times in milliseconds.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "nlohmann/json_fwd.hpp"
#include "supervisor/base/limits.h"
#include "supervisor/base/network_access.h"
#include "supervisor/manifest/supervision.h"

namespace bulkhead {

namespace limits {
inline constexpr int64_t kDefaultStorage = int64_t{64} << 20;  // bytes of a module's files on a node, unless limits.storage says otherwise
inline constexpr int kDefaultStoredFiles = 10'000;             // the same for their number, limits.files; beyond: QUOTA_EXCEEDED
inline constexpr int kMaxStoredFiles = 100'000;                // what that may be: each takes some 150 bytes of memory; beyond: MANIFEST_INVALID
}  // namespace limits

struct RouteSpec {
  std::string method;                    // GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS
  std::string path;                      // "/readings", "/monthly/:endpointId", "/files/*" (the wildcard last)
  std::vector<std::string> permissions;  // all are needed
  bool is_public = false;                // no login needed
  Millis timeout = limits::kDefaultRouteTimeout;
  int64_t body_limit = limits::kDefaultBodyLimit;
  bool operator==(const RouteSpec&) const = default;
};

enum class Overlap { kSkip, kQueue, kReplace };
struct JobSpec {
  std::string name;
  std::string display_name, description;
  std::string schedule;  // cron; empty = manual only
  std::string time_zone = "UTC";
  Millis timeout = limits::kDefaultJobTimeout;
  int retries = 0;
  Overlap overlap = Overlap::kSkip;
  std::string catch_up = "none";  // "latest", "all"
  int catch_up_most = 0;          // N of "all:N"; else 0
  int concurrency = 1;            // runs at once, in the whole cluster
  int history_count = 1'000;      // ended runs that are kept
  Millis history_age{30LL * 24 * 3'600'000};  // and for how long; 0: however old
  std::string config_json = "{}";
  bool operator==(const JobSpec&) const = default;
};

// A service that the module calls, by the name under which the operator has configured it.
struct ClientUse {
  std::string name;
  bool optional = false;  // it starts without
  bool operator==(const ClientUse&) const = default;
};

struct DependencySpec {
  std::string module;
  std::string range;  // npm semver range
  bool operator==(const DependencySpec&) const = default;
};

// A field of the configuration. Types: string, password, text, url, email (JSON strings), number, integer (within ±(2^53 - 1)),
// boolean, select (one of `options`), multiselect (a list of some of them), json (anything, at most 64 KiB), duration (see base/duration.h).
// One with `dependsOn` applies only when what it names is so; when it does not apply it is neither required nor checked:
//   "dependsOn": "tls"                        `tls` applies and is set: not absent, null, false, "" or an empty list
//   "dependsOn": {"mode": "tls"}              `mode` applies and has that value (a multiselect: it is among those chosen)
//   "dependsOn": {"mode": ["tls", "mtls"]}    … one of those
// With several members all must hold. A field that is not there, and a cycle, are errors of the manifest.
struct ConfigField {
  std::string name;
  std::string type;
  bool required = false;
  bool sensitive = false;  // true for password too: the whole value is never shown, whatever its type
  std::string json;        // the whole field, for forms
  bool operator==(const ConfigField&) const = default;
};

// A place outside its own folders that the module may reach: absolute and normalised. A folder stands for all below it.
struct FileAccess {
  std::string path;
  bool write = false;  // else reading and executing
  bool operator==(const FileAccess&) const = default;
};

enum class Transport { kLink, kHttp };
enum class ConfigReload { kPush, kRestart };  // a changed configuration is handed to the running module, or it is restarted with it

struct Manifest {
  int manifest_version = 1;
  std::string name, version, display_name, description, author, license;
  std::string entry;  // "bin/<name>" by default
  std::vector<std::string> args;
  int workers = 1;
  bool warm_spare = false;       // one more is kept ready
  std::optional<bool> critical;  // absent: critical when another module depends on it
  std::string feature_flag;
  Transport transport = Transport::kLink;
  ConfigReload config_reload = ConfigReload::kPush;
  std::vector<RouteSpec> routes;
  std::vector<JobSpec> jobs;
  std::vector<std::string> publishes, subscribes;
  std::vector<ClientUse> clients;
  std::vector<DependencySpec> dependencies;
  std::string bulkhead_range;  // dependencies.system.bulkhead
  std::vector<ConfigField> config_schema;
  std::string config_defaults_json = "{}";
  std::vector<std::string> permissions;
  std::vector<std::string> tags;
  bool has_database = false;  // a `database` object in the manifest, or files in migrations/
  std::string migrations_dir = "migrations";
  std::vector<std::string> extensions;
  Millis handshake_timeout = limits::kHandshakeTimeout;
  Millis start_timeout = limits::kStartTimeout;
  Millis stop_timeout = limits::kStopTimeout;
  Millis drain_timeout = limits::kDrainTimeout;
  Millis soak_time = limits::kSoakTime;
  RestartPolicy restart;
  HealthPolicy health;
  int64_t limit_memory = 0;  // bytes
  int32_t limit_cpu_millis = 0;
  int32_t limit_pids = 0;
  int64_t limit_storage = limits::kDefaultStorage;   // bytes of the module's files on a node, all workers together; no more than files.maxBytesPerModule
  int32_t limit_files = limits::kDefaultStoredFiles;  // and how many
  std::vector<FileAccess> access_files;
  std::optional<NetworkAccess> network;  // absent: nothing but its database (lifecycle/access.h)
  std::vector<uint16_t> network_ports;   // TCP, of kPorts
  bool strict_isolation = false;         // it is not started where a measure is missing
  std::string json;  // the whole document as JSON, unknown fields included
  bool operator==(const Manifest&) const = default;
};

struct Finding {
  std::string path;     // JSON pointer, "/capabilities/api/routes/0/path"
  int line = 0;         // 0 when it did not come from text
  std::string code;     // UPPER_SNAKE
  std::string message;  // a sentence
};

struct ManifestResult {
  std::optional<Manifest> manifest;  // present when errors is empty
  std::vector<Finding> errors;       // all of them, up to 1,000
  std::vector<Finding> warnings;     // unknown fields and the like
};

// `text` is JSON or, when `yaml`, YAML.
ManifestResult ParseManifest(std::string_view text, bool yaml);
ManifestResult ParseManifestJson(const nlohmann::json& document);
// DEPENDENCY_UNSATISFIED when this version of the supervisor is not within `dependencies.system.bulkhead`.
absl::Status CheckBulkheadRange(const Manifest& manifest);
absl::Status CheckBulkheadRange(const std::string& module, const std::string& module_version, const std::string& wanted);

// Defaults merged under `config_json`, then checked against the schema. `errors` have pointers into the configuration.
struct ConfigResult {
  std::string effective_json;
  std::vector<Finding> errors;
};
ConfigResult EffectiveConfig(const Manifest& manifest, std::string_view config_json);
// The configuration with every sensitive value as "********"; also what a schema does not know, which may have been a secret of
// an earlier version.
std::string MaskConfig(const Manifest& manifest, std::string_view config_json);

// "order.created"; with `wildcard` also "order.*". At most 128 bytes.
bool IsEventTopic(std::string_view topic, bool wildcard);

// "FEATURE_FLAG_" + upper-cased, '-' and '.' as '_'.
std::string FeatureFlagVariable(std::string_view flag);

}  // namespace bulkhead
