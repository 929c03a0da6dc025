// A changed configuration: checked, tried on the running workers, stored. In this order, so that a refusal leaves everything as it was:
// what is stored is always what the last accepted change said.
//
//   push     each ready worker is asked (Configure); when one refuses, those that took it are given the old one back
//   restart  workers are replaced one after another by ones that have it; when one does not start, they are replaced back
#include <algorithm>
#include <numeric>

#include "nlohmann/json.hpp"
#include "supervisor/base/limits.h"
#include "supervisor/base/log.h"
#include "supervisor/lifecycle/reconciler.h"
#include "supervisor/manifest/config_change.h"

namespace bulkhead {
namespace {

constexpr char kRotateSecrets[] = "system.rotate-secrets";  // as the audit calls it

}  // namespace

struct Reconciler::Rollout {
  ModuleTarget target;
  std::string effective, sealed;   // what workers get, and what is stored
  int64_t revision = 0;
  std::string before_json, after_json;  // for the audit, masked
  bool restart = false;
  bool storing = false;
  std::map<int, uint64_t> waiting;  // workers that have not answered, with their runs
  std::vector<int> took;            // it, so far
  std::string refused;              // why one did not
  std::function<void(absl::Status)> done;
};

std::vector<int> Reconciler::AllSlots(const Entry& entry) {
  std::vector<int> slots(entry.state.slots.size());
  std::iota(slots.begin(), slots.end(), 0);
  return slots;
}

absl::Status Reconciler::CheckConfig(const Manifest& manifest, const ModuleRow& row) const {
  ASSIGN_OR_RETURN(const std::string opened, OpenConfig(secrets_, row.name, row.config_json));
  const ConfigResult config = EffectiveConfig(manifest, opened);
  if (config.errors.empty()) return absl::OkStatus();
  return Error("CONFIG_INVALID", "module " + row.name + " lacks a valid configuration: " + config.errors[0].message, Details(config.errors));
}

void Reconciler::Configure(const ModuleTarget& target, ConfigChange change, Millis wait, Done<ActionResult> done) {
  loop_.Post([this, target, change = std::move(change), wait, done = std::move(done)] {
    Serialized(target.name, [this, target, change, wait, done](std::function<void()> release) {
      auto refuse = [done, release](absl::Status status) {
        done(std::move(status));
        release();
      };
      auto current = Current(target, ModuleAction::kConfigure);
      if (!current.ok()) return refuse(current.status());
      const EntryPtr entry = *current;
      const Manifest& manifest = *entry->manifest;
      auto opened = OpenConfig(secrets_, target.name, entry->row.config_json);
      // An unreadable secret can be replaced, by a whole configuration that does not ask to keep it: it would be lost.
      if (!opened.ok() && (change.merge || KeepsSecrets(manifest, entry->row.config_json, change.json))) return refuse(opened.status());
      const std::string stored = opened.ok() ? *opened : "{}";
      auto wanted = NewConfig(manifest, stored, change.json, change.merge);
      if (!wanted.ok()) return refuse(wanted.status());
      ConfigResult checked = EffectiveConfig(manifest, *wanted);
      if (!checked.errors.empty()) {
        return refuse(Error("CONFIG_INVALID", "the configuration of " + target.name + " is wrong: " + checked.errors[0].message,
                            Details(checked.errors)));
      }
      if (opened.ok() && SameConfig(stored, *wanted)) {
        done(ActionResult{View(*entry), true});
        return release();
      }
      auto rollout = std::make_shared<Rollout>(Rollout{target});
      rollout->effective = checked.effective_json;
      rollout->sealed = SealConfig(secrets_, manifest, *wanted);
      rollout->revision = entry->row.config_revision + 1;
      std::tie(rollout->before_json, rollout->after_json) = MaskedChange(manifest, stored, *wanted);
      rollout->restart = manifest.config_reload == ConfigReload::kRestart;
      Loop::TimerId late = loop_.After(wait, [this, entry, done] { done(ActionResult{View(*entry), false}); });
      rollout->done = [this, entry, done, late, release](absl::Status status) {
        loop_.Cancel(late);
        status.ok() ? done(ActionResult{View(*entry), true}) : done(status);
        release();
      };
      BeginRollout(entry, std::move(rollout));
    });
  });
}

void Reconciler::BeginRollout(const EntryPtr& entry, std::shared_ptr<Rollout> rollout) {
  entry->rollout = rollout;
  for (size_t i = 0; i < entry->state.slots.size(); ++i) {
    if (InService(entry->state.slots[i])) rollout->waiting[static_cast<int>(i)] = entry->running[i].run;
  }
  if (rollout->waiting.empty()) return StoreRollout(entry);  // what comes next has it from the start
  if (rollout->restart) return Dispatch(entry, event::Restart{AllSlots(*entry)});
  for (const auto& [slot, run] : std::map(rollout->waiting)) {
    PushConfig(entry, slot, rollout->effective, rollout->revision, [this, entry, rollout, slot = slot](absl::Status status) {
      if (entry->rollout != rollout) return;
      rollout->waiting.erase(slot);
      status.ok() ? rollout->took.push_back(slot) : void(rollout->refused = std::string(status.message()));
      if (!rollout->waiting.empty()) return;
      rollout->refused.empty() ? StoreRollout(entry) : RolloutFailed(entry, rollout->refused);
    });
  }
}

// Asks one worker. The status is a refusal's sentence, or why it could not be asked.
void Reconciler::PushConfig(const EntryPtr& entry, int slot, const std::string& config, int64_t revision,
                            std::function<void(absl::Status)> done) {
  Running& running = entry->running[static_cast<size_t>(slot)];
  const uint64_t run = running.run;
  if (!running.process || !running.process->control()) return done(absl::OkStatus());  // its successor has it from the start
  running.process->Hide(HiddenTexts(*entry, config));
  module::v1::ConfigureRequest request;
  request.set_config_json(config);
  request.set_revision(revision);
  running.process->control()->Configure(
      request, limits::kConfigureTimeout,
      [this, weak = std::weak_ptr(entry), slot, run, revision, done = std::move(done)](absl::Status status,
                                                                                     module::v1::ConfigureResponse response) {
        loop_.Post([this, weak, slot, run, revision, done, status, response = std::move(response)] {
          auto entry = weak.lock();
          if (!entry) return;
          Running& running = entry->running[static_cast<size_t>(slot)];
          if (running.run != run || !InService(entry->state.slots[static_cast<size_t>(slot)])) return done(absl::OkStatus());
          if (!status.ok()) return done(absl::UnavailableError("Configure was not answered: " + std::string(status.message())));
          if (response.has_refused()) return done(absl::FailedPreconditionError(response.refused().message()));
          if (!response.has_applied()) return done(absl::InternalError("Configure was answered with nothing"));
          running.config_revision = revision;
          done(absl::OkStatus());
        });
      });
}

// A worker is ready. It may have been started before the last change, or be one that a restart for it waits for.
void Reconciler::RolloutReady(const EntryPtr& entry, int slot) {
  Running& running = entry->running[static_cast<size_t>(slot)];
  const std::shared_ptr<Rollout> rollout = entry->rollout;
  if (rollout && rollout->restart && !rollout->storing) {
    if (running.config_revision == rollout->revision && rollout->waiting.erase(slot) > 0) rollout->took.push_back(slot);
    if (rollout->waiting.empty()) StoreRollout(entry);
    return;
  }
  if (rollout || running.config_revision == entry->effective_revision) return;
  if (entry->manifest->config_reload == ConfigReload::kRestart) return Dispatch(entry, event::Restart{{slot}});
  PushConfig(entry, slot, entry->effective_config, entry->effective_revision, [entry](absl::Status status) {
    if (!status.ok()) entry->config_refusal = {"CONFIG_REFUSED", std::string(status.message())};
  });
}

// What a worker must not be seen to print: secrets of its configuration, and the password of its database role.
std::vector<std::string> Reconciler::HiddenTexts(const Entry& entry, const std::string& config) {
  std::vector<std::string> texts = SecretTexts(*entry.manifest, config);
  if (entry.schema && !entry.schema->password.empty()) texts.push_back(entry.schema->password);
  return texts;
}

std::pair<std::string, int64_t> Reconciler::ConfigForStart(const Entry& entry) const {
  if (entry.rollout && entry.rollout->restart) return {entry.rollout->effective, entry.rollout->revision};
  return {entry.effective_config, entry.effective_revision};
}

// A worker that was started with what is being tried, and has died before it was ready.
void Reconciler::RolloutDied(const EntryPtr& entry, int slot, const std::string& why) {
  const std::shared_ptr<Rollout> rollout = entry->rollout;
  if (!rollout || !rollout->restart || rollout->storing) return;
  if (entry->running[static_cast<size_t>(slot)].config_revision == rollout->revision && rollout->waiting.contains(slot))
    RolloutFailed(entry, why);
}

// The module is stopped or skipped meanwhile: nobody is left who could refuse.
void Reconciler::RolloutUnwanted(const EntryPtr& entry) {
  if (entry->rollout->restart && !entry->rollout->storing) StoreRollout(entry);
}

// What has taken it is given back what is stored; nothing has changed then.
void Reconciler::RolloutFailed(const EntryPtr& entry, const std::string& why) {
  const std::shared_ptr<Rollout> rollout = std::exchange(entry->rollout, nullptr);
  const std::string sentence = "the module refused revision " + std::to_string(rollout->revision) + " of its configuration: " + why +
                               "; revision " + std::to_string(entry->row.config_revision) + " stays in force";
  entry->config_refusal = {"CONFIG_REFUSED", sentence};
  LogWarn("lifecycle", "a configuration was refused", {{"module", entry->row.name}, {"reason", why}});
  if (rollout->restart) {
    // What died is started again, with the stored one; what runs with the refused one is replaced; the rest stays.
    Dispatch(entry, event::Restart{std::exchange(rollout->took, {})});
    Dispatch(entry, event::Retry{});
  }
  for (int slot : rollout->took) {
    PushConfig(entry, slot, entry->effective_config, entry->effective_revision, [this, entry, slot](absl::Status status) {
      if (status.ok()) return;
      // It took the new one and not the old one: only a new process is sure to have it.
      LogWarn("lifecycle", "a worker did not take its earlier configuration back; the workers are restarted",
              {{"module", entry->row.name}, {"slot", std::to_string(slot)}, {"reason", std::string(status.message())}});
      Dispatch(entry, event::Restart{AllSlots(*entry)});
    });
  }
  rollout->done(Error("CONFIG_REFUSED", sentence, {{"/config", "CONFIG_REFUSED", why, 0}}));
}

void Reconciler::StoreRollout(const EntryPtr& entry) {
  const std::shared_ptr<Rollout> rollout = entry->rollout;
  rollout->storing = true;
  AuditRecord audit{.by = rollout->target.by, .action = "modules.configure", .module = entry->row.name, .target = entry->row.name};
  audit.before_json = rollout->before_json;
  audit.after_json = rollout->after_json;
  Blocking<ModuleRow>(
      [this, name = entry->row.name, sealed = rollout->sealed, generation = entry->row.generation, audit] {
        return registry_.SetConfig(name, sealed, generation, &audit);
      },
      [this, entry, rollout](absl::StatusOr<ModuleRow> row) {
        if (!row.ok()) {
          // In force on the workers and not stored: given back, as after a refusal.
          entry->rollout = nullptr;
          if (rollout->restart) Dispatch(entry, event::Restart{std::exchange(rollout->took, {})});
          for (int slot : rollout->took)
            PushConfig(entry, slot, entry->effective_config, entry->effective_revision, [](absl::Status) {});
          return rollout->done(row.status());
        }
        entry->row = *row;
        entry->effective_config = rollout->effective;
        entry->effective_revision = row->config_revision;
        entry->config_refusal = {};
        entry->rollout = nullptr;
        if (entry->enabling) entry->enabling = row->generation;
        LogInfo("lifecycle", "configured", {{"module", row->name}, {"revision", std::to_string(row->config_revision)}});
        // Parked for a wrong configuration, or failed for one: now there is another.
        if (entry->state.wanted) Dispatch(entry, event::Retry{});
        Want(entry, entry->state.wanted);
        // Those that became ready while it was written.
        for (size_t i = 0; i < entry->state.slots.size(); ++i) {
          if (InService(entry->state.slots[i])) RolloutReady(entry, static_cast<int>(i));
        }
        rollout->done(absl::OkStatus());
      });
}

void Reconciler::RotateSecrets(Actor by, std::function<absl::Status()> also, Done<RotatedSecrets> done) {
  loop_.Post([this, by = std::move(by), also = std::move(also), done = std::move(done)] {
    if (stopping_) return done(Error("SHUTTING_DOWN", "the supervisor is stopping"));
    // One rotation at a time; no module can have that name.
    Serialized("/secrets", [this, by, also, done](std::function<void()> release) {
      auto answer = [done, release](absl::StatusOr<RotatedSecrets> rotated) {
        done(std::move(rotated));
        release();
      };
      Blocking<bool>(
          [this, by]() -> absl::StatusOr<bool> {
            // What can't be recorded is not done, and of a file it must be recorded before.
            const AuditRecord begun{.by = by, .action = kRotateSecrets, .outcome = std::string(kAccepted)};
            RETURN_IF_ERROR(AuditLog(database_).Append(begun));
            Recorded(begun);
            // With keys of the environment the operator has put the new one in front.
            if (!secrets_.from_environment()) RETURN_IF_ERROR(secrets_.AddKey());
            return true;
          },
          [this, by, also, answer](absl::StatusOr<bool> added) {
            if (!added.ok()) return answer(added.status());
            auto names = std::make_shared<std::deque<std::string>>();
            for (const auto& [name, entry] : entries_) {
              const bool unsealed = entry->manifest && HasUnsealed(*entry->manifest, entry->row.config_json);
              if (unsealed || SealedWithOldKey(secrets_, entry->row.config_json)) names->push_back(name);
            }
            const int count = static_cast<int>(names->size());
            ResealNext(OnTheWay(by), names, [this, also, answer, count](absl::Status status) {
              if (!status.ok()) return answer(status);
              Blocking<bool>(
                  [this, also]() -> absl::StatusOr<bool> {
                    RETURN_IF_ERROR(also());
                    RETURN_IF_ERROR(secrets_.DropOldKeys());
                    return true;
                  },
                  [this, answer, count](absl::StatusOr<bool> dropped) {
                    if (!dropped.ok()) return answer(dropped.status());
                    LogInfo("secrets", "the key was rotated", {{"key", secrets_.KeyNames().front()}, {"modules", std::to_string(count)}});
                    answer(RotatedSecrets{secrets_.KeyNames(), count});
                  });
            });
          });
    });
  });
}

// Seals the secrets of the first of `names` anew, then of the rest. Each in its turn among the commands for that module.
void Reconciler::ResealNext(const Actor& by, std::shared_ptr<std::deque<std::string>> names, std::function<void(absl::Status)> done) {
  if (names->empty()) return done(absl::OkStatus());
  const std::string name = names->front();
  names->pop_front();
  Serialized(name, [this, by, name, names, done](std::function<void()> release) {
    EntryPtr entry = Find(name);
    if (!entry) {  // deleted meanwhile
      release();
      return ResealNext(by, names, done);
    }
    auto opened = OpenConfig(secrets_, name, entry->row.config_json);
    if (!opened.ok()) {
      release();
      return done(opened.status());
    }
    const AuditRecord audit{.by = by, .action = kRotateSecrets, .module = name, .target = name};
    Blocking<ModuleRow>(
        [this, name, audit, sealed = SealConfig(secrets_, *entry->manifest, *opened)] { return registry_.ResealConfig(name, sealed, &audit); },
        [this, by, entry, names, done, release](absl::StatusOr<ModuleRow> row) {
          if (row.ok()) entry->row = *row;
          release();
          row.ok() ? ResealNext(by, names, done) : done(row.status());
        });
  });
}

// ---- what the operator has configured for several ----

void Reconciler::SetClients(ServiceClients clients) {
  const auto before = std::exchange(access_.clients, std::make_shared<const ServiceClients>(std::move(clients)));
  NodeAccess old;
  old.clients = before;
  for (auto& [name, entry] : std::map(entries_)) {
    if (ClientsOf(*entry->manifest, old) == ClientsOf(*entry->manifest, access_) || !entry->state.wanted) continue;
    const std::string& code = entry->state.reason.code;
    if (code == "CLIENT_NOT_CONFIGURED" || code == "ACCESS_CONFLICT") {
      Dispatch(entry, event::Retry{});
    } else if (Routed(entry->state)) {
      LogWarn("lifecycle", "a client of the module has changed: its workers have it from their next start",
              {{"module", name}, {"next", "POST /api/v1/modules/" + name + "/reload"}});
    }
  }
}

}  // namespace bulkhead
