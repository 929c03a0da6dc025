// The configuration of the daemon: flags over BULKHEAD_* over the YAML file over the defaults. Pure but for reading the file
// and the environment that it is handed. Relative paths are from the working folder, wherever they are written.
//
// A variable BULKHEAD_* that nothing reads is a warning and no error: Kubernetes makes such ones (BULKHEAD_SERVICE_HOST,
// BULKHEAD_PORT) from the name of a service, and those are passed over silently.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/auth/jwt_settings.h"
#include "supervisor/base/clock.h"
#include "supervisor/base/limits.h"
#include "supervisor/base/log.h"
#include "supervisor/base/service_client.h"
#include "supervisor/cli/command.h"
#include "supervisor/notify/settings.h"
#include "supervisor/store/extensions.h"
#include "supervisor/telemetry/access_log.h"
#include "supervisor/telemetry/tracer.h"

namespace bulkhead {

namespace limits {
inline constexpr int64_t kStoragePerModule = int64_t{1} << 30;     // of a module's files, whatever its manifest asks for; files.maxBytesPerModule
inline constexpr int64_t kMaxStoragePerModule = int64_t{1} << 44;  // what that may be; beyond: CONFIG_INVALID
}  // namespace limits

struct ModuleSettings {
  bool enabled = false;          // at first registration only
  std::string config_json = "{}";
};

struct Config {
  std::string config_file;       // "" = none
  std::string listen = "127.0.0.1:4000";
  std::string admin_listen = "127.0.0.1:4001";
  std::string data;              // absolute; /var/lib/bulkhead for root, <cwd>/.bulkhead for others
  std::string modules_dir;       // absolute; <cwd>/build/modules
  std::string store_url;         // "" = private PostgreSQL
  Millis migration_timeout = limits::kMigrationStatementTimeout;  // store.migrationTimeout, of one statement; 0: none
  std::vector<std::string> store_extensions = DefaultExtensions();  // store.extensions: that modules may ask for
  bool events_on_redis = false;  // events.engine: postgres | redis
  std::string events_redis;      // events.redis; a password may be in it
  Millis events_kept = limits::kEventsKept;               // events.keep, of those that every subscriber has
  Millis events_kept_unread = limits::kEventsKeptUnread;  // events.keepUnread, of all
  int64_t cache_bytes = limits::kCacheBytes;                     // cache.maxBytes, of all modules; 0: nothing is kept
  int64_t cache_bytes_per_module = limits::kCacheBytesPerModule;  // cache.maxBytesPerModule
  bool cache_on_redis = false;   // cache.engine: memory | redis
  std::string cache_redis;       // cache.redis; a password may be in it
  int64_t files_bytes_per_module = limits::kStoragePerModule;     // files.maxBytesPerModule, whatever a manifest asks for
  LogLevel log_level = LogLevel::kInfo;
  LogFormat log_format = LogFormat::kText;
  int log_files = limits::kLogFiles;             // log.moduleFiles; 0: logs of modules are in memory alone
  int64_t log_file_size = limits::kLogFileSize;  // log.moduleFileSize
  AccessLogging access_log = AccessLogging::kErrors;  // log.access
  OtlpSettings otlp;                    // telemetry.otlp
  bool discovery_development = false;
  bool critical_failure_exits = true;   // boot.onCriticalFailure: exit | degraded
  uint32_t first_uid = 0, last_uid = 0; // isolation.uids "first-last"; 0: chosen from the data folder
  std::set<std::string> isolation_off;  // isolation.off: measures that no module gets (process/spawner.h)
  std::map<std::string, bool> flags;    // flags.<name> of the file
  std::map<std::string, bool> environment_flags;  // FEATURE_FLAG_<NAME>, which counts for more; the name in lower case
  std::string secrets_keys;             // BULKHEAD_SECRETS_KEYS; "": the key file in the data folder
  ServiceClients clients;               // clients; what lies in files is read by ReadSecretFiles()
  std::map<std::string, ModuleSettings> modules;
  JwtSettings jwt;                      // auth.jwt: in the file only
  NotificationSettings notifications;   // in the file, and secrets in variables; likewise
  std::vector<std::string> disable;     // --disable NAME…: not started in this run
  std::string environment;              // BULKHEAD_ENVIRONMENT, as /health shows it; else "development" or "production" by discovery
  std::vector<std::string> warnings;    // sentences for the log: BULKHEAD_* variables that nothing reads
  std::map<std::string, std::string> places;  // "file:line" of the keys of the file; also "modules.NAME", "clients.NAME"
};

// Reads what the configuration names by its files but for the keys of auth: secrets and certificates of clients and notifications. Blocking. CONFIG_INVALID
// names the key and the file.
absl::Status ReadSecretFiles(Config& config);

enum class Command { kServe, kClient, kVersion, kHelp };
struct CommandLine {
  Command command = Command::kHelp;
  Config config;         // kServe
  ClientRequest client;  // kClient
  std::string text;  // kHelp, kVersion: what to print
};

// `environment` holds the BULKHEAD_* and FEATURE_FLAG_* variables. Errors (CONFIG_INVALID): unknown option (with the nearest known
// one), unreadable file, a YAML error, an unknown key or a wrong value. One mistake is the message, "file:line: key: sentence"; of
// several the message has the number and the details are {path "file:line: key", message}.
absl::StatusOr<CommandLine> ParseCommandLine(int argc, const char* const* argv, const std::map<std::string, std::string>& environment,
                                             bool is_root, const std::string& cwd);

}  // namespace bulkhead
