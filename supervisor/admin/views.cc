#include "supervisor/admin/views.h"

#include <algorithm>
#include <string_view>

#include "nlohmann/json.hpp"
#include "supervisor/admin/json.h"
#include "supervisor/base/text.h"

namespace bulkhead {
namespace {

admin::v1::ObservedState::Enum ToEnum(ObservedState state) {
  switch (state) {
    case ObservedState::kStarting: return admin::v1::ObservedState::STARTING;
    case ObservedState::kRunning: return admin::v1::ObservedState::RUNNING;
    case ObservedState::kDegraded: return admin::v1::ObservedState::DEGRADED;
    case ObservedState::kBackoff: return admin::v1::ObservedState::BACKOFF;
    case ObservedState::kQuarantined: return admin::v1::ObservedState::QUARANTINED;
    case ObservedState::kStopping: return admin::v1::ObservedState::STOPPING;
    case ObservedState::kStopped: return admin::v1::ObservedState::STOPPED;
    case ObservedState::kFailed: return admin::v1::ObservedState::FAILED;
    case ObservedState::kSkipped: return admin::v1::ObservedState::SKIPPED;
  }
  return admin::v1::ObservedState::UNSPECIFIED;
}

admin::v1::RegistryState::Enum ToEnum(RegistryStatus status) {
  switch (status) {
    case RegistryStatus::kRegistered: return admin::v1::RegistryState::REGISTERED;
    case RegistryStatus::kInstalling: return admin::v1::RegistryState::INSTALLING;
    case RegistryStatus::kEnabled: return admin::v1::RegistryState::ENABLED;
    case RegistryStatus::kDisabled: return admin::v1::RegistryState::DISABLED;
    case RegistryStatus::kUpdating: return admin::v1::RegistryState::UPDATING;
    case RegistryStatus::kRemoving: return admin::v1::RegistryState::REMOVING;
  }
  return admin::v1::RegistryState::UNSPECIFIED;
}

admin::v1::RunStatus::Enum ToEnum(RunStatus status) {
  switch (status) {
    case RunStatus::kQueued: return admin::v1::RunStatus::QUEUED;
    case RunStatus::kRunning: return admin::v1::RunStatus::RUNNING;
    case RunStatus::kSucceeded: return admin::v1::RunStatus::SUCCEEDED;
    case RunStatus::kFailed: return admin::v1::RunStatus::FAILED;
    case RunStatus::kCancelled: return admin::v1::RunStatus::CANCELLED;
    case RunStatus::kTimedOut: return admin::v1::RunStatus::TIMED_OUT;
    case RunStatus::kSkipped: return admin::v1::RunStatus::SKIPPED;
    case RunStatus::kInterrupted: return admin::v1::RunStatus::INTERRUPTED;
  }
  return admin::v1::RunStatus::UNSPECIFIED;
}

// Who has switched a measure off, the sentence beside it tells.
const char* StateName(IsolationItem::State state) {
  switch (state) {
    case IsolationItem::State::kActive: return "active";
    case IsolationItem::State::kUnavailable: return "unavailable";
    case IsolationItem::State::kOff:
    case IsolationItem::State::kNotAskedFor: return "off";
  }
  return "unavailable";
}

std::string_view OverlapName(Overlap overlap) {
  switch (overlap) {
    case Overlap::kSkip: return "skip";
    case Overlap::kQueue: return "queue";
    case Overlap::kReplace: return "replace";
  }
  return "";
}

void SetStruct(std::string_view text, google::protobuf::Struct* value) {
  const auto parsed = nlohmann::json::parse(text, nullptr, false);
  if (!parsed.is_discarded()) FromJson(parsed, *value);
}

constexpr char kHidden[] = "********";  // as MaskConfig() has it

// A manifest as it is shown: what stands for a secret as long as no other is set is one, too.
std::string WithoutSecretDefaults(const std::string& manifest_json, const Manifest* manifest) {
  auto shown = nlohmann::json::parse(manifest_json, nullptr, false);
  auto config = shown.is_object() ? shown.find("config") : shown.end();
  if (config == shown.end() || !config->is_object()) return manifest_json;
  if (manifest == nullptr) {  // nobody says which are secret
    shown.erase(config);
    return shown.dump();
  }
  bool hidden = false;
  const auto hide = [&hidden](nlohmann::json& holder, const std::string& member) {
    const auto value = holder.is_object() ? holder.find(member) : holder.end();
    if (value == holder.end() || value->is_null()) return;
    *value = kHidden;
    hidden = true;
  };
  for (const ConfigField& field : manifest->config_schema) {
    if (!field.sensitive) continue;
    if (auto defaults = config->find("defaults"); defaults != config->end()) hide(*defaults, field.name);
    auto schema = config->find("schema");
    if (schema != config->end() && schema->is_object() && schema->contains(field.name)) hide((*schema)[field.name], "default");
  }
  return hidden ? shown.dump() : manifest_json;
}

void SetValue(const std::string& text, google::protobuf::Value* value) {
  const auto parsed = nlohmann::json::parse(text, nullptr, false);
  if (parsed.is_discarded()) {
    value->set_string_value(ValidUtf8(text));  // shown as it is rather than lost
  } else {
    FromJson(parsed, *value);
  }
}

// The number of a health word, worse is more: healthy, degraded, unhealthy.
constexpr std::string_view kHealthWords[] = {"healthy", "degraded", "unhealthy"};
int Severity(std::string_view word) {
  const auto* found = std::find(std::begin(kHealthWords), std::end(kHealthWords), word);
  return found == std::end(kHealthWords) ? 0 : static_cast<int>(found - std::begin(kHealthWords));
}

int Severity(ObservedState state) {
  switch (state) {
    case ObservedState::kRunning:
    case ObservedState::kSkipped: return 0;
    case ObservedState::kStarting:
    case ObservedState::kDegraded:
    case ObservedState::kStopping:
    case ObservedState::kStopped: return 1;
    case ObservedState::kBackoff:
    case ObservedState::kQuarantined:
    case ObservedState::kFailed: return 2;
  }
  return 2;
}

void SetLastUpgrade(const std::string& text, admin::v1::Module& m) {
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object()) return;
  auto& last = *m.mutable_last_upgrade();
  last.set_from(json.value("from", ""));
  last.set_to(json.value("to", ""));
  last.set_outcome(json.value("outcome", ""));
  if (const auto reason = json.find("reason"); reason != json.end() && reason->is_object()) {
    last.mutable_reason()->set_code(reason->value("code", ""));
    last.mutable_reason()->set_message(ValidUtf8(reason->value("message", "")));
  }
  if (const auto at = ParseWall(json.value("at", ""))) *last.mutable_at() = ToTimestamp(*at);
}

void SetProbe(const HealthProbe& probe, admin::v1::HealthProbe& message) {
  message.set_interval(probe.interval.count());
  message.set_timeout(probe.timeout.count());
  message.set_failure_threshold(probe.failures);
  message.set_success_threshold(probe.successes);
}

void SetPolicies(const Manifest& manifest, admin::v1::Module& m) {
  const RestartPolicy& policy = manifest.restart;
  admin::v1::RestartPolicy& restart = *m.mutable_restart_policy();
  restart.set_policy(std::string(RestartWhenName(policy.when)));
  restart.set_burst(policy.burst);
  restart.set_window(policy.window.count());
  restart.mutable_backoff()->set_base(policy.base.count());
  restart.mutable_backoff()->set_cap(policy.cap.count());
  restart.mutable_backoff()->set_factor(policy.factor);
  restart.mutable_quarantine()->set_windows(policy.quarantine_windows);
  restart.mutable_quarantine()->set_span(policy.quarantine_span.count());
  restart.mutable_quarantine()->set_retry(policy.quarantine_retry.count());
  restart.set_reset_after(policy.reset_after.count());
  admin::v1::HealthPolicy& health = *m.mutable_health_policy();
  if (manifest.health.startup) SetProbe(*manifest.health.startup, *health.mutable_startup());
  SetProbe(manifest.health.readiness, *health.mutable_readiness());
  SetProbe(manifest.health.liveness, *health.mutable_liveness());
}

}  // namespace

admin::v1::Module ToMessage(const ModuleView& view) {
  admin::v1::Module m;
  m.set_id(view.row.id);
  m.set_name(view.row.name);
  m.set_version(view.row.version);
  m.set_path(ValidUtf8(view.row.path));
  m.set_status(ToEnum(view.row.status));
  m.mutable_desired()->set_state(view.desired_enabled ? "ENABLED" : "DISABLED");
  m.mutable_desired()->set_generation(view.row.generation);
  m.mutable_desired()->set_workers(view.workers_wanted);
  if (view.row.workers) m.mutable_desired()->set_workers_override(*view.row.workers);
  auto& observed = *m.mutable_observed();
  observed.set_state(ToEnum(view.observed));
  observed.set_generation(view.observed_generation);
  *observed.mutable_since() = ToTimestamp(view.observed_since);
  observed.set_node(view.node);
  if (!view.reason_code.empty() || !view.reason_message.empty()) {
    observed.mutable_reason()->set_code(view.reason_code);
    observed.mutable_reason()->set_message(ValidUtf8(view.reason_message));
  }
  for (const WorkerView& worker : view.workers) {
    auto& w = *m.add_workers();
    w.set_slot(worker.slot);
    w.set_pid(worker.pid);
    w.set_instance(worker.instance);
    w.set_state(ToEnum(worker.state));
    w.set_version(worker.version);
    if (worker.started_at) *w.mutable_started_at() = ToTimestamp(*worker.started_at);
    w.set_restarts(worker.restarts);
    w.set_ready(worker.ready);
    w.set_spare(worker.spare);
    if (worker.retry_at) *w.mutable_retry_at() = ToTimestamp(*worker.retry_at);
    for (const auto& [cause, count] : worker.exit_counts) (*w.mutable_exit_counts())[cause] = count;
  }
  for (const ExitRow& row : view.exits) {
    auto& e = *m.add_exits();
    e.set_cause(row.cause);
    e.set_signal(row.signal);
    e.set_exit_code(row.exit_code);
    *e.mutable_at() = ToTimestamp(row.at);
    e.set_ran_ms(row.ran_ms);
    e.set_output(ValidUtf8(row.output));
    e.set_message(ValidUtf8(row.message));
  }
  for (const auto& [cause, count] : view.exit_counts) (*m.mutable_exit_counts())[cause] = count;
  for (const IsolationItem& item : view.isolation) {
    auto& i = *m.add_isolation();
    i.set_name(item.name);
    i.set_state(StateName(item.state));
    i.set_why(ValidUtf8(item.why));
  }
  m.mutable_files()->set_bytes(view.files.bytes);
  m.mutable_files()->set_count(view.files.files);
  m.mutable_files()->set_max_bytes(view.files.quota.bytes);
  m.mutable_files()->set_max_count(view.files.quota.files);
  m.set_config_revision(view.row.config_revision);
  m.set_config_applied_revision(view.config_applied_revision);
  if (view.row.enabled_at) *m.mutable_enabled_at() = ToTimestamp(*view.row.enabled_at);
  *m.mutable_created_at() = ToTimestamp(view.row.created_at);
  *m.mutable_updated_at() = ToTimestamp(view.row.updated_at);
  if (view.manifest) {
    m.set_display_name(view.manifest->display_name);
    m.set_description(view.manifest->description);
    m.set_author(view.manifest->author);
    SetPolicies(*view.manifest, m);
    // Only the manifest says which values are secret: without one, no configuration is shown.
    SetStruct(MaskConfig(*view.manifest, EffectiveConfig(*view.manifest, view.row.config_json).effective_json),
              m.mutable_config());
  }
  SetStruct(WithoutSecretDefaults(view.row.manifest_json, view.manifest.get()), m.mutable_manifest());
  SetLastUpgrade(view.row.last_upgrade_json, m);
  if (view.offer) {
    m.mutable_offer()->set_version(view.offer->version);
    m.mutable_offer()->set_path(ValidUtf8(view.offer->path));
  }
  return m;
}

admin::v1::Artifact ToMessage(const Artifact& artifact) {
  admin::v1::Artifact a;
  a.set_name(artifact.name);
  a.set_content_type(artifact.content_type);
  a.set_bytes(artifact.bytes);
  *a.mutable_at() = ToTimestamp(artifact.at);
  return a;
}

admin::v1::Run ToMessage(const RunView& view) {
  admin::v1::Run r;
  r.set_id(view.id);
  r.set_module(view.module);
  r.set_job(view.job);
  r.set_status(ToEnum(view.status));
  r.set_attempt(view.attempt);
  r.set_trigger(view.trigger);
  if (view.slot) *r.mutable_slot() = ToTimestamp(*view.slot);
  SetValue(view.payload_json, r.mutable_payload());
  r.mutable_progress()->set_fraction(view.progress);
  r.mutable_progress()->set_message(ValidUtf8(view.progress_message));
  SetValue(view.result_json, r.mutable_result());
  if (!view.error_code.empty()) {
    r.mutable_error()->set_code(ValidUtf8(view.error_code));
    r.mutable_error()->set_message(ValidUtf8(view.error_message));
    r.mutable_error()->set_stack(ValidUtf8(view.error_stack));
  }
  *r.mutable_queued_at() = ToTimestamp(view.queued_at);
  if (view.started_at) *r.mutable_started_at() = ToTimestamp(*view.started_at);
  if (view.finished_at) *r.mutable_finished_at() = ToTimestamp(*view.finished_at);
  r.set_node(view.node);
  r.set_worker(view.worker);
  r.set_priority(view.priority);
  if (view.not_before) *r.mutable_not_before() = ToTimestamp(*view.not_before);
  r.set_cancel_requested(view.cancel_requested);
  r.set_max_attempts(view.max_attempts);
  for (const Artifact& artifact : view.artifacts) *r.add_artifacts() = ToMessage(artifact);
  return r;
}

admin::v1::Job ToMessage(const JobView& view) {
  admin::v1::Job j;
  j.set_module(view.module);
  j.set_name(view.spec.name);
  j.set_schedule(view.spec.schedule);
  j.set_time_zone(view.spec.time_zone);
  j.set_timeout_ms(view.spec.timeout.count());
  j.set_retries(view.spec.retries);
  j.set_overlap(std::string(OverlapName(view.spec.overlap)));
  j.set_active(view.active);
  if (view.next_run_at) *j.mutable_next_run_at() = ToTimestamp(*view.next_run_at);
  j.set_catch_up(view.spec.catch_up == "all" ? "all:" + std::to_string(view.spec.catch_up_most) : view.spec.catch_up);
  j.set_concurrency(view.spec.concurrency);
  j.set_history_count(view.spec.history_count);
  j.set_history_age_ms(view.spec.history_age.count());
  SetStruct(view.spec.config_json, j.mutable_config());
  j.set_display_name(view.spec.display_name);
  j.set_description(view.spec.description);
  return j;
}

admin::v1::Token ToMessage(const TokenRow& row) {
  admin::v1::Token t;
  t.set_name(row.name);
  t.set_subject(row.subject);
  for (const std::string& permission : row.permissions) t.add_permissions(permission);
  *t.mutable_created_at() = ToTimestamp(row.created_at);
  if (row.expires_at) *t.mutable_expires_at() = ToTimestamp(*row.expires_at);
  t.set_id(row.id);
  if (row.last_used_at) *t.mutable_last_used_at() = ToTimestamp(*row.last_used_at);
  for (const std::string& role : row.roles) t.add_roles(role);
  return t;
}

admin::v1::User ToMessage(const UserRow& row) {
  admin::v1::User u;
  u.set_id(row.id);
  u.set_name(row.name);
  for (const std::string& role : row.roles) u.add_roles(role);
  u.set_enabled(row.enabled);
  *u.mutable_created_at() = ToTimestamp(row.created_at);
  *u.mutable_updated_at() = ToTimestamp(row.updated_at);
  if (row.last_login_at) *u.mutable_last_login_at() = ToTimestamp(*row.last_login_at);
  return u;
}

admin::v1::Role ToMessage(const RoleRow& row) {
  admin::v1::Role r;
  r.set_name(row.name);
  r.set_description(row.description);
  for (const std::string& permission : row.permissions) r.add_permissions(permission);
  r.set_built_in(IsBuiltInRole(row.name));
  if (row.created_at) *r.mutable_created_at() = ToTimestamp(*row.created_at);
  if (row.updated_at) *r.mutable_updated_at() = ToTimestamp(*row.updated_at);
  return r;
}

admin::v1::Finding ToMessage(const Finding& finding) {
  admin::v1::Finding f;
  f.set_path(ValidUtf8(finding.path));
  f.set_line(finding.line);
  f.set_code(finding.code);
  f.set_message(ValidUtf8(finding.message));
  return f;
}

admin::v1::Finding ToMessage(const ErrorDetail& detail) {
  admin::v1::Finding f;
  f.set_path(ValidUtf8(detail.path));
  f.set_line(detail.line);
  f.set_code(detail.code);
  f.set_message(ValidUtf8(detail.message));
  return f;
}

admin::v1::Plan ToMessage(const Plan& plan) {
  admin::v1::Plan p;
  p.set_module(plan.module);
  p.set_action(std::string(ModuleActionName(plan.action)));
  p.set_allowed(plan.refusals.empty());
  for (const ErrorDetail& refusal : plan.refusals) *p.add_refusals() = ToMessage(refusal);
  for (const PlanStep& step : plan.steps) {
    auto& s = *p.add_steps();
    s.set_module(step.module);
    s.set_effect(step.effect);
    s.set_message(ValidUtf8(step.message));
  }
  return p;
}

admin::v1::ScannedFolder ToMessage(const RescanResult::Folder& folder) {
  admin::v1::ScannedFolder f;
  f.set_folder(ValidUtf8(folder.folder));
  f.set_module(folder.name);
  f.set_outcome(folder.outcome);
  f.set_version(folder.version);
  f.set_registered_version(folder.registered_version);
  f.set_code(folder.code);
  f.set_message(ValidUtf8(folder.message));
  for (const ErrorDetail& detail : folder.details) *f.add_details() = ToMessage(detail);
  return f;
}

admin::v1::AuditEntry ToMessage(const AuditRow& row) {
  const AuditRecord& record = row.record;
  admin::v1::AuditEntry e;
  e.set_id(row.id);
  *e.mutable_at() = ToTimestamp(row.at);
  e.mutable_actor()->set_subject(record.by.subject);
  e.mutable_actor()->set_credential(record.by.credential);
  e.mutable_actor()->set_credential_id(record.by.credential_id);
  e.mutable_actor()->set_address(record.by.address);
  e.set_action(record.action);
  e.set_module(record.module);
  e.set_target(record.target);
  if (!record.before_json.empty()) SetValue(record.before_json, e.mutable_before());
  if (!record.after_json.empty()) SetValue(record.after_json, e.mutable_after());
  e.set_outcome(record.outcome);
  e.set_message(record.message);
  e.set_request_id(record.by.request_id);
  e.set_node(record.by.node);
  return e;
}

admin::v1::Flag ToMessage(const Flag& flag, const std::vector<std::string>& modules) {
  admin::v1::Flag f;
  f.set_name(flag.name);
  f.set_enabled(flag.enabled);
  f.set_source(flag.source);
  if (flag.percentage) f.set_percentage(*flag.percentage);
  for (const std::string& identity : flag.identities) f.add_identities(identity);
  f.set_description(flag.description);
  for (const std::string& module : modules) f.add_modules(module);
  f.set_revision(flag.revision);
  if (flag.updated_at) *f.mutable_updated_at() = ToTimestamp(*flag.updated_at);
  f.set_updated_by(flag.updated_by);
  return f;
}

admin::v1::ModuleHealth ToHealth(const ModuleView& view) {
  admin::v1::ModuleHealth h;
  h.set_status(std::string(kHealthWords[std::max(Severity(view.observed), Severity(view.health.status))]));
  h.set_observed(ToEnum(view.observed));
  for (const CheckView& check : view.health.checks) {
    auto& detail = (*h.mutable_details())[ValidUtf8(check.name)];
    constexpr std::string_view kCheckWords[] = {"up", "degraded", "down"};
    detail.set_status(std::string(kCheckWords[Severity(check.status)]));
    detail.set_latency(check.latency_ms);
    detail.set_message(ValidUtf8(check.message));
  }
  if (view.health.checked_at) *h.mutable_last_checked() = ToTimestamp(*view.health.checked_at);
  return h;
}

}  // namespace bulkhead
