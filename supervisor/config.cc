#include "supervisor/config.h"

#include <algorithm>
#include <filesystem>
#include <iterator>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "supervisor/base/duration.h"
#include "supervisor/base/redis_address.h"
#include "supervisor/config_layers.h"
#include "supervisor/manifest/manifest.h"
#include "supervisor/manifest/nearest.h"
#include "supervisor/manifest/quantities.h"
#include "supervisor/process/spawner.h"

namespace bulkhead {
namespace {

constexpr uint32_t kFirstOrdinaryUid = 1'000;  // below are the system's own users
constexpr uint32_t kLastUid = 4'294'967'293;   // the two above mean "nobody" and "unchanged" to the kernel
constexpr size_t kMaxExtensionName = 63;       // bytes, as PostgreSQL has it
constexpr char kFlagPrefix[] = "FEATURE_FLAG_";

// "127.0.0.1:4000", "[::1]:4000", "localhost:0": a sentence when it is none.
std::string AddressFault(const std::string& text) {
  const size_t colon = text.rfind(':');
  const std::string sentence =
      absl::StrCat("\"", text.substr(0, 128), "\" is no HOST:PORT such as 127.0.0.1:4000 or [::1]:4000.");
  if (colon == std::string::npos || colon == 0) return sentence;
  const std::string host = text.substr(0, colon), port = text.substr(colon + 1);
  int number = 0;
  if (port.empty() || port.size() > 5 || !std::all_of(port.begin(), port.end(), absl::ascii_isdigit) ||
      !absl::SimpleAtoi(port, &number) || number > 65'535) {
    return sentence;
  }
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  const std::string bare = bracketed ? host.substr(1, host.size() - 2) : host;
  const bool well_formed = bare.size() <= 253 && std::all_of(bare.begin(), bare.end(), [&](unsigned char c) {
                             return bracketed ? absl::ascii_isalnum(c) || c == ':' || c == '.' || c == '%'
                                              : absl::ascii_isalnum(c) || c == '.' || c == '-';
                           });
  return well_formed ? "" : sentence;
}

std::string SetAddress(std::string& target, const std::string& value) {
  std::string fault = AddressFault(value);
  if (fault.empty()) target = value;
  return fault;
}

std::string SetPath(std::string& target, const std::string& value, const std::string& cwd) {
  if (value.empty() || value.find('\0') != std::string::npos) return "The path is empty.";
  std::filesystem::path path = (std::filesystem::path(cwd) / value).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();  // a slash at the end
  target = path.string();
  return "";
}

std::string SetStoreUrl(Config& config, const std::string& value, const std::string&) {
  // The value may hold a password, so no sentence repeats it.
  const bool url = absl::StartsWith(value, "postgresql://") || absl::StartsWith(value, "postgres://");
  const bool keywords = !absl::StrContains(value, "://") && absl::StrContains(value, "=");
  if (!value.empty() && !url && !keywords) return "The database must be given as postgresql://USER:PASSWORD@HOST:PORT/NAME.";
  config.store_url = value;
  return "";
}

std::string SetMigrationTimeout(Config& config, const std::string& value, const std::string&) {
  const auto timeout = ParseDuration(value);
  if (!timeout) return absl::StrCat("\"", value.substr(0, 64), "\" is no duration such as 90s, 30m or 1h; 0 is none.");
  config.migration_timeout = *timeout;
  return "";
}

std::string SetKept(Millis& target, const std::string& value) {
  const auto time = ParseDuration(value);
  if (!time || *time <= Millis(0)) return absl::StrCat("\"", value.substr(0, 64), "\" is no duration above 0 such as 90m, 48h or 7d.");
  target = *time;
  return "";
}

std::string SetCacheBytes(int64_t& target, const std::string& value) {
  const auto bytes = value == "0" ? std::optional<double>(0) : ParseMemory(value);
  if (!bytes || (*bytes != 0 && *bytes < static_cast<double>(limits::kMinCacheBytes)) || *bytes > static_cast<double>(limits::kMaxCacheBytes))
    return absl::StrCat("\"", value.substr(0, 64), "\" is no size such as 256MiB, from 1MiB to 1024GiB, or 0 for none.");
  target = static_cast<int64_t>(*bytes);
  return "";
}

std::string SetFilesBytes(Config& config, const std::string& value, const std::string&) {
  const auto bytes = value == "0" ? std::optional<double>(0) : ParseMemory(value);
  if (!bytes || *bytes < 0 || *bytes > static_cast<double>(limits::kMaxStoragePerModule))
    return absl::StrCat("\"", value.substr(0, 64), "\" is no size such as 1GiB, up to 16384GiB, or 0 for none.");
  config.files_bytes_per_module = static_cast<int64_t>(*bytes);
  return "";
}

// One of `own` and redis.
std::string SetEngine(bool& on_redis, const char* own, const std::string& value) {
  if (value != own && value != "redis") return absl::StrCat("\"", value.substr(0, 64), "\" is neither ", own, " nor redis.");
  on_redis = value == "redis";
  return "";
}

// No sentence repeats the value: a password may be in it.
std::string SetRedis(std::string& target, const std::string& value) {
  if (absl::StartsWith(value, "rediss://")) return "Redis is not spoken to through TLS: give redis:// of a proxy on this host, or a tunnel.";
  if (!value.empty() && !ParseRedisUrl(value)) {
    return "Redis must be given as redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE] or unix://[[USER]:PASSWORD@]/PATH[?db=DATABASE].";
  }
  target = value;
  return "";
}

std::string SetExtensions(Config& config, const std::string& value, const std::string&) {
  std::vector<std::string> names;
  if (absl::StripAsciiWhitespace(value) != "none") {
    for (absl::string_view piece : absl::StrSplit(value, ',', absl::SkipWhitespace())) {
      const std::string name(absl::StripAsciiWhitespace(piece));
      const bool well_formed = name.size() <= kMaxExtensionName && std::all_of(name.begin(), name.end(), [](unsigned char c) {
                                 return absl::ascii_isalnum(c) || c == '_' || c == '-';
                               });
      if (!well_formed) return absl::StrCat("\"", name.substr(0, 64), "\" is no name of a PostgreSQL extension.");
      if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    }
  }
  if (names.size() > limits::kMaxExtensions) return absl::StrCat("At most ", limits::kMaxExtensions, " extensions are possible.");
  config.store_extensions = std::move(names);
  return "";
}

std::string SetUids(Config& config, const std::string& value, const std::string&) {
  const std::vector<std::string> ends = absl::StrSplit(value, '-');
  uint32_t first = 0, last = 0;
  if (ends.size() != 2 || !absl::SimpleAtoi(absl::StripAsciiWhitespace(ends[0]), &first) ||
      !absl::SimpleAtoi(absl::StripAsciiWhitespace(ends[1]), &last) || first < kFirstOrdinaryUid || last < first ||
      last > kLastUid) {
    return absl::StrCat("\"", value.substr(0, 64), "\" is no range of user ids such as 200000-265535, from ", kFirstOrdinaryUid,
                        " on.");
  }
  config.first_uid = first;
  config.last_uid = last;
  return "";
}

std::string SetIsolationOff(Config& config, const std::string& value, const std::string&) {
  std::set<std::string> off;
  for (absl::string_view piece : absl::StrSplit(value, ',', absl::SkipWhitespace())) {
    const std::string name(absl::StripAsciiWhitespace(piece));
    if (name == "none") continue;
    const std::vector<std::string> known(std::begin(kMeasuresToSwitchOff), std::end(kMeasuresToSwitchOff));
    if (std::find(known.begin(), known.end(), name) == known.end())
      return absl::StrCat("\"", name.substr(0, 64), "\" is no measure that can be switched off: ", absl::StrJoin(known, ", "), ".");
    off.insert(name);
  }
  config.isolation_off = std::move(off);
  return "";
}

std::string SetLevel(Config& config, const std::string& value, const std::string&) {
  return ParseLogLevel(value, config.log_level)
             ? ""
             : absl::StrCat("\"", value.substr(0, 64), "\" is none of debug, info, warn, error.");
}

std::string SetFormat(Config& config, const std::string& value, const std::string&) {
  if (value != "text" && value != "json") return absl::StrCat("\"", value.substr(0, 64), "\" is neither text nor json.");
  config.log_format = value == "json" ? LogFormat::kJson : LogFormat::kText;
  return "";
}

std::string SetLogFiles(Config& config, const std::string& value, const std::string&) {
  int files = 0;
  if (!absl::SimpleAtoi(value, &files) || files < 0 || files > limits::kMaxLogFiles)
    return absl::StrCat("\"", value.substr(0, 64), "\" is no number of files from 0 (none) to ", limits::kMaxLogFiles, ".");
  config.log_files = files;
  return "";
}

std::string SetLogFileSize(Config& config, const std::string& value, const std::string&) {
  const auto bytes = ParseMemory(value);
  if (!bytes || *bytes < static_cast<double>(limits::kMinLogFileSize) || *bytes > static_cast<double>(limits::kMaxLogFileSize))
    return absl::StrCat("\"", value.substr(0, 64), "\" is no size such as 8MiB, from 256KiB to 1GiB.");
  config.log_file_size = static_cast<int64_t>(*bytes);
  return "";
}

std::string SetAccessLog(Config& config, const std::string& value, const std::string&) {
  if (value != "off" && value != "errors" && value != "all") return absl::StrCat("\"", value.substr(0, 64), "\" is none of off, errors, all.");
  config.access_log = value == "off" ? AccessLogging::kOff : value == "all" ? AccessLogging::kAll : AccessLogging::kErrors;
  return "";
}

std::string SetOtlpEndpoint(Config& config, const std::string& value, const std::string&) {
  const bool plain = absl::StartsWith(value, "http://"), encrypted = absl::StartsWith(value, "https://");
  const std::string rest = value.substr(std::min(value.size(), size_t{plain ? 7u : 8u}));
  const bool printable = std::all_of(rest.begin(), rest.end(), [](unsigned char c) { return c > ' ' && c < 0x7f && c != '@' && c != '?' && c != '#'; });
  if (!value.empty() && ((!plain && !encrypted) || rest.empty() || rest[0] == '/' || !printable)) {
    return "The collector must be given as http://HOST:PORT or https://HOST:PORT, where it takes OTLP over HTTP; secrets belong into telemetry.otlp.headers.";
  }
  config.otlp.endpoint = value;
  return "";
}

// No sentence repeats a value: they are secrets.
std::string SetOtlpHeaders(Config& config, const std::string& value, const std::string&) {
  std::vector<std::pair<std::string, std::string>> headers;
  for (absl::string_view piece : absl::StrSplit(value, ',', absl::SkipWhitespace())) {
    const size_t equals = piece.find('=');
    const std::string name(absl::StripAsciiWhitespace(piece.substr(0, equals)));
    const std::string text(equals == absl::string_view::npos ? "" : absl::StripAsciiWhitespace(piece.substr(equals + 1)));
    const bool named = !name.empty() && std::all_of(name.begin(), name.end(), [](unsigned char c) { return absl::ascii_isalnum(c) || c == '-' || c == '_'; });
    const bool printable = std::all_of(text.begin(), text.end(), [](unsigned char c) { return c >= ' ' && c < 0x7f; });
    if (!named || text.empty() || !printable) return absl::StrCat("Header ", headers.size() + 1, " is no NAME=VALUE.");
    headers.emplace_back(name, text);
  }
  if (headers.size() > limits::kMaxOtlpHeaders) return absl::StrCat("At most ", limits::kMaxOtlpHeaders, " headers are possible.");
  config.otlp.headers = std::move(headers);
  return "";
}

std::string SetSampleRatio(Config& config, const std::string& value, const std::string&) {
  double ratio = 0;
  if (!absl::SimpleAtod(value, &ratio) || !(ratio >= 0 && ratio <= 1)) return absl::StrCat("\"", value.substr(0, 64), "\" is no number from 0 to 1.");
  config.otlp.sample_ratio = ratio;
  return "";
}

std::string SetDevelopment(Config& config, const std::string& value, const std::string&) {
  const auto on = ParseBool(value);
  if (!on) return absl::StrCat("\"", value.substr(0, 64), "\" is neither true nor false.");
  config.discovery_development = *on;
  return "";
}

std::string SetCriticalFailure(Config& config, const std::string& value, const std::string&) {
  if (value != "exit" && value != "degraded") return absl::StrCat("\"", value.substr(0, 64), "\" is neither exit nor degraded.");
  config.critical_failure_exits = value == "exit";
  return "";
}

// Variables that Kubernetes makes for a service called "bulkhead": BULKHEAD_SERVICE_HOST, BULKHEAD_PORT_4000_TCP, ….
bool MadeByKubernetes(const std::string& name) {
  return absl::StartsWith(name, "BULKHEAD_SERVICE_") || absl::StartsWith(name, "BULKHEAD_PORT");
}

void ApplyFlagVariable(const std::string& name, const std::string& value, Config& config, Mistakes& mistakes) {
  const auto on = ParseBool(value);
  if (!on) return mistakes.Add(name, 0, absl::StrCat("\"", value.substr(0, 64), "\" is neither true nor false."));
  config.environment_flags[absl::AsciiStrToLower(name.substr(sizeof kFlagPrefix - 1))] = *on;
}

}  // namespace

const std::vector<Setting>& Settings() {
  static const std::vector<Setting> settings{
      {"listen", "BULKHEAD_LISTEN", "--listen", "HOST:PORT", "where HTTP is served (default 127.0.0.1:4000)",
       [](Config& c, const std::string& v, const std::string&) { return SetAddress(c.listen, v); }},
      {"adminListen", "BULKHEAD_ADMIN_LISTEN", "--admin-listen", "HOST:PORT",
       "where the gRPC admin API is served (default 127.0.0.1:4001)",
       [](Config& c, const std::string& v, const std::string&) { return SetAddress(c.admin_listen, v); }},
      {"data", "BULKHEAD_DATA", "--data", "DIR",
       "everything that is kept (default /var/lib/bulkhead for root, .bulkhead for others)",
       [](Config& c, const std::string& v, const std::string& cwd) { return SetPath(c.data, v, cwd); }},
      {"modulesDir", "BULKHEAD_MODULES", "--modules", "DIR", "folder whose subfolders are modules (default build/modules)",
       [](Config& c, const std::string& v, const std::string& cwd) { return SetPath(c.modules_dir, v, cwd); }},
      {"store.url", "BULKHEAD_STORE_URL", "--store-url", "URL", "PostgreSQL to use (default: a private one in the data folder)",
       SetStoreUrl},
      {"store.migrationTimeout", "BULKHEAD_MIGRATION_TIMEOUT", "--migration-timeout", "DURATION",
       "longest statement of a migration, 0 for none (default 1h)", SetMigrationTimeout},
      {"store.extensions", "BULKHEAD_STORE_EXTENSIONS", "--store-extensions", "NAME,NAME",
       "PostgreSQL extensions that modules may ask for, or none (default pg_trgm,pgcrypto,citext,uuid-ossp,btree_gin,btree_gist,timescaledb)",
       SetExtensions, true},
      {"events.keep", "BULKHEAD_EVENTS_KEEP", "--events-keep", "DURATION", "how long events are kept that every subscriber has (default 7d)",
       [](Config& c, const std::string& v, const std::string&) { return SetKept(c.events_kept, v); }},
      {"events.keepUnread", "BULKHEAD_EVENTS_KEEP_UNREAD", "--events-keep-unread", "DURATION",
       "how long events are kept that a subscriber, such as a disabled one, has not had (default 30d)",
       [](Config& c, const std::string& v, const std::string&) { return SetKept(c.events_kept_unread, v); }},
      {"events.engine", "BULKHEAD_EVENTS_ENGINE", "--events-engine", "ENGINE",
       "postgres, or redis: subscribers read from Redis Streams, which are filled from PostgreSQL (default postgres)",
       [](Config& c, const std::string& v, const std::string&) { return SetEngine(c.events_on_redis, "postgres", v); }},
      {"events.redis", "BULKHEAD_EVENTS_REDIS", "--events-redis", "URL",
       "Redis 5 or later for events.engine redis, such as redis://127.0.0.1:6379 or unix:///run/redis.sock; a password is better in the variable or the "
       "file, since others see a command line (default: none)",
       [](Config& c, const std::string& v, const std::string&) { return SetRedis(c.events_redis, v); }},
      {"cache.engine", "BULKHEAD_CACHE_ENGINE", "--cache-engine", "ENGINE",
       "memory, or redis: what the workers of a module cache is shared between nodes, too (default memory)",
       [](Config& c, const std::string& v, const std::string&) { return SetEngine(c.cache_on_redis, "memory", v); }},
      {"cache.redis", "BULKHEAD_CACHE_REDIS", "--cache-redis", "URL",
       "Redis 5 or later for cache.engine redis, given as for events.redis; it needs a maxmemory-policy that evicts, such as allkeys-lru (default: none)",
       [](Config& c, const std::string& v, const std::string&) { return SetRedis(c.cache_redis, v); }},
      {"cache.maxBytes", "BULKHEAD_CACHE_MAX_BYTES", "--cache-max-bytes", "SIZE",
       "memory for what the workers of all modules cache together, 0 for none (default 256MiB)",
       [](Config& c, const std::string& v, const std::string&) { return SetCacheBytes(c.cache_bytes, v); }},
      {"cache.maxBytesPerModule", "BULKHEAD_CACHE_MAX_BYTES_PER_MODULE", "--cache-max-bytes-per-module", "SIZE",
       "of it, what one module may have at most (default 64MiB)",
       [](Config& c, const std::string& v, const std::string&) { return SetCacheBytes(c.cache_bytes_per_module, v); }},
      {"files.maxBytesPerModule", "BULKHEAD_FILES_MAX_BYTES_PER_MODULE", "--files-max-bytes-per-module", "SIZE",
       "what the files of one module may take on this node, whatever its manifest asks for, 0 for none (default 1GiB)", SetFilesBytes},
      {"log.level", "BULKHEAD_LOG_LEVEL", "--log-level", "LEVEL", "debug, info, warn or error (default info)", SetLevel},
      {"log.format", "BULKHEAD_LOG_FORMAT", "--log-format", "FORMAT", "text or json (default text)", SetFormat},
      {"log.moduleFiles", "BULKHEAD_LOG_MODULE_FILES", "--log-module-files", "N",
       "files that are kept of each module's log, 0 for none (default 4)", SetLogFiles},
      {"log.moduleFileSize", "BULKHEAD_LOG_MODULE_FILE_SIZE", "--log-module-file-size", "SIZE",
       "how long each of them gets, 256KiB to 1GiB (default 8MiB)", SetLogFileSize},
      {"log.access", "BULKHEAD_LOG_ACCESS", "--log-access", "WHICH",
       "requests that get a line in the log: off, errors (5xx and broken off) or all (default errors)", SetAccessLog},
      {"telemetry.otlp.endpoint", "BULKHEAD_OTLP_ENDPOINT", "--otlp-endpoint", "URL",
       "collector that gets spans by OTLP over HTTP, such as http://127.0.0.1:4318 (default: none)", SetOtlpEndpoint},
      {"telemetry.otlp.headers", "BULKHEAD_OTLP_HEADERS", "--otlp-headers", "NAME=VALUE,NAME=VALUE",
       "headers for the collector, such as a token: better in the variable or the file, since others see a command line (default: none)", SetOtlpHeaders,
       true},
      {"telemetry.otlp.sampleRatio", "BULKHEAD_OTLP_SAMPLE_RATIO", "--otlp-sample-ratio", "NUMBER",
       "share of traces that begin here and are exported, 0 to 1; others follow their caller (default 1)", SetSampleRatio},
      {"discovery.development", "BULKHEAD_DISCOVERY_DEVELOPMENT", "--development", "BOOL",
       "take a changed package of the same version at boot (default false)", SetDevelopment},
      {"boot.onCriticalFailure", "BULKHEAD_ON_CRITICAL_FAILURE", "--on-critical-failure", "ACTION",
       "exit or degraded, when a critical module can't start (default exit)", SetCriticalFailure},
      {"isolation.uids", "BULKHEAD_UIDS", "--uids", "FIRST-LAST",
       "user ids for modules, as root (default: chosen from the data folder)", SetUids},
      {"isolation.off", "BULKHEAD_ISOLATION_OFF", "--isolation-off", "NAME,NAME",
       "measures of isolation that no module gets: landlock, seccomp, network, tmp, proc, ipc (default none)", SetIsolationOff, true},
  };
  return settings;
}

std::optional<bool> ParseBool(std::string_view text) {
  const std::string lower = absl::AsciiStrToLower(absl::string_view(text.data(), text.size()));
  if (lower == "true" || lower == "1" || lower == "on" || lower == "yes") return true;
  if (lower == "false" || lower == "0" || lower == "off" || lower == "no") return false;
  return std::nullopt;
}

void Mistakes::Add(std::string place, int line, std::string sentence) {
  details_.push_back({std::move(place), "CONFIG_INVALID", std::move(sentence), line});
}

absl::Status Mistakes::ToStatus() const {
  if (details_.size() == 1) {
    ErrorDetail only = details_[0];
    only.message = absl::StrCat(only.path, ": ", only.message);
    return Error("CONFIG_INVALID", only.message, {only});
  }
  return Error("CONFIG_INVALID", absl::StrCat("The configuration has ", details_.size(), " mistakes."), details_);
}

void ApplyDefaults(bool is_root, const std::string& cwd, Config& config) {
  SetPath(config.data, is_root ? "/var/lib/bulkhead" : ".bulkhead", cwd);
  SetPath(config.modules_dir, "build/modules", cwd);
}

void ApplyEnvironment(const std::map<std::string, std::string>& environment, const std::string& cwd, Config& config,
                      Mistakes& mistakes) {
  std::vector<std::string> known{"BULKHEAD_CONFIG", "BULKHEAD_ENVIRONMENT", "BULKHEAD_SERVER", "BULKHEAD_TOKEN", "BULKHEAD_SECRETS_KEYS"};
  for (const Setting& setting : Settings()) {
    known.emplace_back(setting.variable);
    auto variable = environment.find(setting.variable);
    if (variable == environment.end() || variable->second.empty()) continue;  // empty is unset, as shells and unit files make it
    if (std::string fault = setting.set(config, variable->second, cwd); !fault.empty())
      mistakes.Add(setting.variable, 0, std::move(fault));
  }
  for (const auto& [name, value] : environment) {
    if (absl::StartsWith(name, kFlagPrefix) && name.size() >= sizeof kFlagPrefix && !value.empty()) {
      ApplyFlagVariable(name, value, config, mistakes);
    } else if (absl::StartsWith(name, "BULKHEAD_") && std::find(known.begin(), known.end(), name) == known.end() &&
               !MadeByKubernetes(name) && (value.empty() || !(ApplyClientVariable(name, value, config, mistakes) ||
                                                              ApplyNotificationVariable(name, value, config, mistakes)))) {
      config.warnings.push_back(absl::StrCat("The variable ", name, " is read by nothing here.", DidYouMean(name, known)));
    }
  }
  if (auto variable = environment.find("BULKHEAD_ENVIRONMENT"); variable != environment.end())
    config.environment = variable->second;
  if (auto variable = environment.find("BULKHEAD_SECRETS_KEYS"); variable != environment.end())
    config.secrets_keys = variable->second;
}

void CheckWhole(Config& config, Mistakes& mistakes) {
  CheckClients(config, mistakes);
  CheckNotifications(config, mistakes);
  if (config.environment.empty()) config.environment = config.discovery_development ? "development" : "production";
  if (config.events_on_redis && config.events_redis.empty()) {
    mistakes.Add("events.redis", 0, "The engine redis wants to know where Redis is: give events.redis, such as redis://127.0.0.1:6379.");
  }
  if (config.cache_on_redis && config.cache_redis.empty()) {
    mistakes.Add("cache.redis", 0, "The engine redis wants to know where Redis is: give cache.redis, such as redis://127.0.0.1:6379.");
  }
  if (config.listen == config.admin_listen && !absl::EndsWith(config.listen, ":0")) {
    mistakes.Add("adminListen", 0,
                 absl::StrCat("HTTP and gRPC can't both be served on ", config.listen, ": give --admin-listen another port."));
  }
}

absl::Status ReadSecretFiles(Config& config) {
  RETURN_IF_ERROR(ReadClientFiles(config.clients));
  return ReadNotificationFiles(config.notifications);
}

absl::StatusOr<Config> MakeConfig(const std::string& config_file, const std::map<std::string, std::string>& options,
                                  std::vector<std::string> disable, const std::map<std::string, std::string>& environment,
                                  bool is_root, const std::string& cwd) {
  Config config;
  Mistakes mistakes;
  ApplyDefaults(is_root, cwd, config);
  std::string file = config_file;
  if (auto variable = environment.find("BULKHEAD_CONFIG"); file.empty() && variable != environment.end()) file = variable->second;
  if (!file.empty()) {
    SetPath(config.config_file, file, cwd);
    ApplyFile(config.config_file, cwd, config, mistakes);
  }
  ApplyEnvironment(environment, cwd, config, mistakes);
  for (const Setting& setting : Settings()) {
    auto option = options.find(setting.option);
    if (option == options.end()) continue;
    if (std::string fault = setting.set(config, option->second, cwd); !fault.empty())
      mistakes.Add(setting.option, 0, std::move(fault));
  }
  config.disable = std::move(disable);
  if (mistakes.empty()) CheckWhole(config, mistakes);
  if (!mistakes.empty()) return mistakes.ToStatus();
  return config;
}

}  // namespace bulkhead
