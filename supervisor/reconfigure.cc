#include "supervisor/reconfigure.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

std::string OnOff(const std::map<std::string, bool>& flags, const std::string& name) {
  const auto found = flags.find(name);
  return found == flags.end() ? "not set" : found->second ? "true" : "false";
}

// Everything of it but the keys' contents, which are in files of their own.
std::string JwtText(const JwtSettings& jwt) {
  std::string text = absl::StrCat("issuer ", jwt.issuer, ", audience ", absl::StrJoin(jwt.audience, " "), ", clockSkew ", jwt.clock_skew.count(),
                                  " ms, claims ", jwt.subject_claim, " ", jwt.roles_claim, " ", jwt.permissions_claim, ", jwksUrl ", jwt.jwks_url,
                                  ", jwksRefresh ", jwt.jwks_refresh.count(), " ms, keys");
  for (const JwtKeyFile& key : jwt.keys) absl::StrAppend(&text, " ", key.id, ":", key.algorithm, ":", key.file);
  return text;
}

std::string ModuleText(const std::map<std::string, ModuleSettings>& modules, const std::string& name) {
  const auto found = modules.find(name);
  return found == modules.end() ? "" : absl::StrCat(found->second.enabled, " ", found->second.config_json);
}

template <typename Map>
std::set<std::string> NamesOf(const Map& one, const Map& other) {
  std::set<std::string> names;
  for (const auto& [name, value] : one) names.insert(name);
  for (const auto& [name, value] : other) names.insert(name);
  return names;
}

// Those that need a restart, by their keys in the file.
std::vector<std::string> Fixed(const Config& now, const Config& next) {
  std::vector<std::string> keys;
  const auto compare = [&](const char* key, bool same) {
    if (!same) keys.emplace_back(key);
  };
  compare("listen", now.listen == next.listen);
  compare("adminListen", now.admin_listen == next.admin_listen);
  compare("data", now.data == next.data);
  compare("modulesDir", now.modules_dir == next.modules_dir);
  compare("store.url", now.store_url == next.store_url);
  compare("store.migrationTimeout", now.migration_timeout == next.migration_timeout);
  compare("events.engine", now.events_on_redis == next.events_on_redis);
  compare("events.redis", now.events_redis == next.events_redis);
  compare("events.keep", now.events_kept == next.events_kept);
  compare("events.keepUnread", now.events_kept_unread == next.events_kept_unread);
  compare("cache.engine", now.cache_on_redis == next.cache_on_redis);
  compare("cache.redis", now.cache_redis == next.cache_redis);
  compare("cache.maxBytes", now.cache_bytes == next.cache_bytes);
  compare("cache.maxBytesPerModule", now.cache_bytes_per_module == next.cache_bytes_per_module);
  compare("files.maxBytesPerModule", now.files_bytes_per_module == next.files_bytes_per_module);
  compare("discovery.development", now.discovery_development == next.discovery_development);
  compare("boot.onCriticalFailure", now.critical_failure_exits == next.critical_failure_exits);
  compare("log.moduleFiles", now.log_files == next.log_files);
  compare("log.moduleFileSize", now.log_file_size == next.log_file_size);
  compare("log.access", now.access_log == next.access_log);
  compare("telemetry.otlp.endpoint", now.otlp.endpoint == next.otlp.endpoint);
  compare("telemetry.otlp.headers", now.otlp.headers == next.otlp.headers);
  compare("telemetry.otlp.sampleRatio", now.otlp.sample_ratio == next.otlp.sample_ratio);
  compare("isolation.off", now.isolation_off == next.isolation_off);
  compare("isolation.uids", now.first_uid == next.first_uid && now.last_uid == next.last_uid);
  for (const std::string& name : NamesOf(now.modules, next.modules)) {
    if (ModuleText(now.modules, name) != ModuleText(next.modules, name)) keys.push_back("modules." + name);
  }
  return keys;
}

// One thing of a map or an optional, before and after.
template <typename Settings>
void CompareShown(const std::string& key, const Settings* now, const Settings* next, bool& told, std::vector<ConfigDelta::Changed>& changed) {
  if (now == next || (now != nullptr && next != nullptr && *now == *next)) return;
  const std::string was = now ? Shown(*now) : "not set", is = next ? Shown(*next) : "not set";
  told = true;
  changed.push_back({key, was, was == is ? is + ", with other contents of what is not shown" : is});
}

template <typename Map>
void CompareShownMaps(const std::string& keys, const Map& now, const Map& next, bool& told, std::vector<ConfigDelta::Changed>& changed) {
  for (const std::string& name : NamesOf(now, next)) {
    const auto before = now.find(name), after = next.find(name);
    CompareShown(keys + name, before == now.end() ? nullptr : &before->second, after == next.end() ? nullptr : &after->second, told, changed);
  }
}

}  // namespace

absl::StatusOr<ConfigDelta> CompareConfigs(const Config& now, const Config& next) {
  if (const std::vector<std::string> fixed = Fixed(now, next); !fixed.empty()) {
    std::vector<ErrorDetail> details;
    for (const std::string& key : fixed) {
      const auto place = next.places.find(key);
      const std::string file = next.config_file.empty() ? "the configuration" : next.config_file;
      details.push_back({absl::StrCat(place == next.places.end() ? file : place->second, ": ", key), "CONFIG_INVALID",
                         key.starts_with("modules.") ? "This counts at the first registration of the module only: use the API, or restart the supervisor."
                                                     : "This can change only with a restart of the supervisor."});
    }
    const std::string more = fixed.size() > 1 ? absl::StrCat(" and ", fixed.size() - 1, " more") : "";
    const std::string message = absl::StrCat(
        details[0].path, more, ": this can't change while the supervisor runs, so nothing of the file was taken; restart it, or undo the change.");
    return Error("CONFIG_INVALID", message, std::move(details));
  }
  ConfigDelta delta;
  const auto add = [&](bool& told, std::string key, std::string before, std::string after) {
    if (before == after) return;
    told = true;
    delta.changed.push_back({std::move(key), std::move(before), std::move(after)});
  };
  const auto list = [](const std::vector<std::string>& names) { return names.empty() ? std::string("none") : absl::StrJoin(names, ","); };
  const auto format = [](LogFormat one) { return std::string(one == LogFormat::kJson ? "json" : "text"); };
  add(delta.extensions, "store.extensions", list(now.store_extensions), list(next.store_extensions));
  add(delta.log, "log.level", std::string(LogLevelName(now.log_level)), std::string(LogLevelName(next.log_level)));
  add(delta.log, "log.format", format(now.log_format), format(next.log_format));
  for (const std::string& name : NamesOf(now.flags, next.flags)) add(delta.flags, "flags." + name, OnOff(now.flags, name), OnOff(next.flags, name));
  CompareShownMaps("clients.", now.clients, next.clients, delta.clients, delta.changed);
  const auto &smtp = now.notifications.smtp, &next_smtp = next.notifications.smtp;
  CompareShown("notifications.smtp", smtp ? &*smtp : nullptr, next_smtp ? &*next_smtp : nullptr, delta.notifications, delta.changed);
  CompareShownMaps("notifications.webhooks.", now.notifications.webhooks, next.notifications.webhooks, delta.notifications, delta.changed);
  add(delta.jwt, "auth.jwt", JwtText(now.jwt), JwtText(next.jwt));
  return delta;
}

}  // namespace bulkhead
