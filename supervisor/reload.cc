#include "supervisor/reload.h"

#include "nlohmann/json.hpp"
#include "supervisor/auth/jwk.h"
#include "supervisor/auth/key_source.h"
#include "supervisor/base/log.h"
#include "supervisor/base/status.h"
#include "supervisor/reconfigure.h"

namespace bulkhead {
namespace {

std::string SentenceOf(const absl::Status& status) {
  std::string text(status.message());
  const std::vector<ErrorDetail> details = ErrorDetails(status);
  if (details.size() < 2) return text;
  for (const ErrorDetail& detail : details) text += " " + detail.path + ": " + detail.message;
  return text;
}

}  // namespace

void Reload::Run(std::function<void(const std::string& outcome)> done) {
  if (running_) {
    again_ = true;
    return;
  }
  running_ = true;
  const bool queued = parts_.pool.Submit([this, done] {
    auto outcome = std::make_shared<Outcome>(Apply());
    parts_.loop.Post([this, done, outcome] {
      running_ = false;
      if (outcome->status.ok()) {
        config_ = std::move(outcome->config);
        keys_ = std::move(outcome->keys);
      }
      if (std::exchange(again_, false)) return Run(done);
      done(outcome->sentence);
    });
  });
  if (queued) return;
  running_ = false;
  LogError("config", "the configuration is not read again: too much waits for the database; send SIGHUP again");
  done("the configuration was not read again: too much waits for the database");
}

Reload::Outcome Reload::Apply() {
  Outcome outcome;
  AuditRecord audit{.by = SystemActor(parts_.node), .action = "config.reload", .target = config_.config_file};
  nlohmann::json before = nlohmann::json::object(), after = nlohmann::json::object();
  std::string keys;
  outcome.status = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(outcome.config, reread_());
    RETURN_IF_ERROR(ReadSecretFiles(outcome.config));
    ASSIGN_OR_RETURN(ConfigDelta delta, CompareConfigs(config_, outcome.config));
    ASSIGN_OR_RETURN(outcome.keys, ReadKeyFiles(outcome.config.jwt));
    if (!delta.jwt && !(KeySet(outcome.keys) == KeySet(keys_))) {
      delta.jwt = true;
      delta.changed.push_back({"auth.jwt.keys", "the contents of the files before", "the contents of the files now"});
    }
    // Nothing below can fail.
    if (delta.extensions) parts_.registry.AllowExtensions(outcome.config.store_extensions);
    if (delta.flags) parts_.flags.SetFile(outcome.config.flags);
    if (delta.clients) parts_.loop.Post([this, clients = outcome.config.clients] { parts_.reconciler.SetClients(clients); });
    if (delta.notifications) {
      parts_.loop.Post([this, notifications = outcome.config.notifications] { parts_.notifications.Configure(notifications); });
    }
    if (delta.jwt) parts_.authenticator.Configure(outcome.config.jwt, outcome.keys);
    for (const auto& changed : delta.changed) {
      before[changed.key] = changed.before;
      after[changed.key] = changed.after;
      keys += (keys.empty() ? "" : ", ") + changed.key;
      LogInfo("config", "changed", {{"key", changed.key}, {"before", changed.before}, {"after", changed.after}});
    }
    if (delta.log) ConfigureLog(outcome.config.log_level, outcome.config.log_format);
    return absl::OkStatus();
  }();
  for (const std::string& warning : outcome.config.warnings) LogWarn("config", warning);
  if (!outcome.status.ok()) {
    outcome.sentence = SentenceOf(outcome.status);
    audit.outcome = ErrorCode(outcome.status);
    audit.message = outcome.sentence;
    LogError("config", "the configuration is not taken, what was in force stays", {{"reason", outcome.sentence}});
    outcome.sentence = "configuration not taken: " + outcome.sentence;
  } else {
    outcome.sentence = keys.empty() ? "the configuration was read again, nothing has changed" : "the configuration was read again: " + keys;
    audit.message = outcome.sentence;
    audit.before_json = before.dump();
    audit.after_json = after.dump();
    LogInfo("config", outcome.sentence);
  }
  if (absl::Status written = AuditLog(parts_.database).Append(audit); !written.ok())
    LogWarn("config", "the audit does not have it", {{"reason", std::string(written.message())}});
  return outcome;
}

}  // namespace bulkhead
