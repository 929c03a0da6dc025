// What administrators do to the workers of a module: how many there are, and that what has failed is tried anew.
#include <algorithm>

#include "supervisor/base/limits.h"
#include "supervisor/base/log.h"
#include "supervisor/lifecycle/reconciler.h"
#include "supervisor/lifecycle/refusals.h"

namespace bulkhead {

// Each that is wanted serves, and no other is left but the spare.
bool Reconciler::Complete(const Entry& entry) {
  const auto& slots = entry.state.slots;
  if (!Routed(entry.state)) return true;
  return static_cast<size_t>(std::count_if(slots.begin(), slots.end(), Serves)) == entry.state.workers &&
         std::all_of(slots.begin(), slots.end(), [](const SlotState& slot) {
           return Serves(slot) || slot.role == SlotState::Role::kFree || slot.role == SlotState::Role::kSpare;
         });
}

void Reconciler::Reset(const ModuleTarget& target, Millis wait, Done<ActionResult> done) {
  loop_.Post([this, target, wait, done = std::move(done)] {
    if (stopping_) return done(Error("SHUTTING_DOWN", "the supervisor is stopping"));
    Serialized(target.name, [this, target, wait, done](std::function<void()> release) {
      auto refuse = [done, release](absl::Status status) {
        done(std::move(status));
        release();
      };
      auto current = Current(target, ModuleAction::kReset);
      if (!current.ok()) return refuse(current.status());
      // No row changes, so the record is what may fail before anything is done.
      Blocking<bool>(
          [this, target]() -> absl::StatusOr<bool> {
            RETURN_IF_ERROR(RecordWish(target, "modules.reset"));
            return true;
          },
          [this, entry = *current, wait, done, refuse, release](absl::StatusOr<bool> recorded) {
            if (!recorded.ok()) return refuse(recorded.status());
            // One that this run was told to leave out is tried, too, as by an enable; one whose enable has just failed is not.
            if (entry->state.wanted) Dispatch(entry, event::Retry{});
            else if (!entry->taking_back) Want(entry, true);
            AnswerWhenConverged(entry, true, wait, done);
            release();
          });
    });
  });
}

void Reconciler::SetWorkers(const ModuleTarget& target, std::optional<int> workers, Millis wait, Done<ActionResult> done) {
  loop_.Post([this, target, workers, wait, done = std::move(done)] {
    if (stopping_) return done(Error("SHUTTING_DOWN", "the supervisor is stopping"));
    if (absl::Status wrong = CheckWorkers(workers); !wrong.ok()) return done(wrong);
    Serialized(target.name, [this, target, workers, wait, done](std::function<void()> release) {
      auto current = Current(target, ModuleAction::kScale);
      if (!current.ok()) {
        done(current.status());
        return release();
      }
      const EntryPtr entry = *current;
      auto answer = [this, entry, wait, done, release] {
        if (!Routed(entry->state) || (Complete(*entry) && entry->publishing == 0)) {
          done(ActionResult{View(*entry), true});
        } else {
          Wait(entry, true, wait, done, true);
        }
        release();
      };
      if (entry->row.workers == workers) return answer();
      const AuditRecord audit = WishOf(target, "modules.scale");
      // Those that leave keep their connections for a while.
      const int more = std::max(0, workers.value_or(entry->manifest->workers) - WorkersWanted(*entry));
      const int most = (Processes(*entry) + more) * limits::kConnectionsPerWorker;
      Blocking<ModuleRow>(
          [this, name = target.name, workers, generation = entry->row.generation, most, audit] {
            return registry_.SetWorkers(name, workers, generation, most, &audit);
          },
          [this, entry, most, answer, done, release](absl::StatusOr<ModuleRow> row) {
            if (!row.ok()) {
              done(row.status());
              return release();
            }
            const int before = WorkersWanted(*entry);
            entry->row = *row;
            if (entry->enabling) entry->enabling = row->generation;
            if (entry->schema) entry->connections = most;
            LogInfo("lifecycle", "scaled",
                    {{"module", row->name}, {"from", std::to_string(before)}, {"to", std::to_string(WorkersWanted(*entry))}});
            Want(entry, entry->state.wanted);
            answer();
          });
    });
  });
}

// Its role may have as many connections as its workers need, those included that are still leaving or are to take over. In its turn among the commands for the
// module, so that of two changes the later one is in force.
void Reconciler::FitConnections(const EntryPtr& entry) {
  auto needed = [](const Entry& entry) {
    const auto& slots = entry.state.slots;
    const auto seats = std::count_if(slots.begin(), slots.end(), [](const SlotState& slot) { return slot.role != SlotState::Role::kFree; });
    return std::max(static_cast<int>(seats), static_cast<int>(entry.state.workers)) * limits::kConnectionsPerWorker;
  };
  if (!entry->schema || !Routed(entry->state) || entry->fitting || entry->connections == needed(*entry)) return;
  entry->fitting = true;
  const std::string name = entry->row.name;
  Serialized(name, [this, entry, name, needed](std::function<void()> release) {
    const int connections = needed(*entry);
    Blocking<bool>(
        [this, name, connections]() -> absl::StatusOr<bool> {
          RETURN_IF_ERROR(registry_.SetConnectionLimit(name, connections));
          return true;
        },
        [entry, name, connections, release](absl::StatusOr<bool> done) {
          entry->connections = connections;
          entry->fitting = false;
          if (!done.ok())
            LogWarn("lifecycle", "the connection limit of its role does not fit its workers until it is prepared again",
                    {{"module", name}, {"reason", std::string(done.status().message())}});
          release();
        });
  });
}

}  // namespace bulkhead
