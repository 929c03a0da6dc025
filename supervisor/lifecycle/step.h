// The lifecycle of one module on one node, as a pure function: Step(state, event, now) → actions, the state changed in place.
// No I/O, no clock, no allocation of anything that outlives it; the simulation runs millions of them and the Reconciler
// runs one per event.
//
// What is wanted (`wanted`) and what is there (`workers`) are kept apart, and every event ends in the same place:
// Converge() looks at both and says what to do next. So an enable during a stop, a crash during a drain or a
// shutdown during a migration need no code of their own.
//
// A worker slot goes   Empty → Starting → Ready → Draining → Stopping → Empty
// and from anywhere     → Dying (the process has ended, its tree is being killed) → Empty, then perhaps Waiting for its backoff.
//
// A slot is a seat for one process, and its `number` says which of the module's workers that process is. A worker is replaced without a
// gap by a successor: a second seat of the same number, whose process becomes ready beside the old one before it takes over.
//
// A module with `warmSpare` has one seat more, whose process is ready and serves nobody. When a member is lost the two seats change their roles
// in the same Step; what is started next is the new spare, on the seat of the lost one, with its history. So numbers go up to `workers`, one of
// them the spare's, and no process ever changes its own.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "supervisor/base/clock.h"
#include "supervisor/base/random.h"
#include "supervisor/manifest/supervision.h"

namespace bulkhead {

enum class ObservedState { kStarting, kRunning, kDegraded, kBackoff, kQuarantined, kStopping, kStopped, kFailed, kSkipped };
std::string_view ObservedStateName(ObservedState state);  // "STARTING", …

enum class ExitCause { kExit, kSignal, kOom, kHandshake, kStartTimeout, kLiveness, kLimit, kConfig };
std::string_view ExitCauseName(ExitCause cause);  // "EXIT", …

enum class WorkerHealth { kHealthy, kDegraded, kUnhealthy };

// The restart history of one slot.
class Backoff {
 public:
  // Records an exit and says when to start again: `now` for "at once".
  Instant OnExit(const RestartPolicy& policy, Instant now, Millis was_ready_for, Random& random);
  bool waiting_long() const { return attempt_ > 0; }  // beyond the burst
  bool quarantined() const { return quarantined_; }
  void Clear() { *this = Backoff(); }

 private:
  std::deque<Instant> exits_;      // within the window
  std::deque<Instant> exhausted_;  // ends of exhausted windows within the span, as many as a quarantine needs
  int attempt_ = 0;
  int since_exhausted_ = 0;
  bool quarantined_ = false;
};

struct SlotState {
  enum class Phase { kEmpty, kStarting, kReady, kDraining, kStopping, kDying };
  // A member serves. The spare takes the place of a member that is lost. A successor is to take over from a member. One that leaves is free
  // when it is empty.
  enum class Role { kFree, kMember, kSpare, kSuccessor, kLeaving };
  Phase phase = Phase::kEmpty;
  Role role = Role::kFree;
  int number = 0;                   // from 0, of the module's workers; of a free one: nothing
  uint64_t run = 0;                 // which start this is; events of an earlier one are ignored
  std::optional<Instant> retry_at;  // kEmpty and waiting
  Instant ready_since{};
  WorkerHealth health = WorkerHealth::kHealthy;
  bool unready = false;             // kReady, and not to be sent anything before it is well again
  std::optional<Instant> faulty_until;    // kReady, and at fault lately
  std::optional<Instant> flooding_until;  // kReady, and lines of its log were dropped lately
  std::string health_message, unready_message, fault_message, flood_message;  // sentences to these four
  bool outdated = false;            // to be replaced by a new process, when its turn has come
  bool parked = false;              // not tried again until something changes (a configuration error, or the policy)
  int restarts = 0;                 // since it was last wanted anew
  std::map<ExitCause, int> exits;   // the same by cause
  int failed_starts = 0;            // in a row
  Backoff backoff;
};

struct Reason {
  std::string code, message;
  bool operator==(const Reason&) const = default;
};

struct ModuleState {
  explicit ModuleState(uint64_t seed, RestartPolicy policy = {}) : policy(policy), random(seed) {}

  RestartPolicy policy;
  Random random;
  bool wanted = false;
  bool skipped = false;             // its feature flag is off
  bool closing = false;             // the node shuts down
  size_t workers = 0;               // as it is wanted; `slots` may have more
  bool warm_spare = false;          // one more is to be ready beside them
  // Successors are on their way.
  struct Replacement {
    bool at_once = false;           // all take over together, when they are told to (another version); else one after another
    size_t workers = 0;             // at once: how many of them
    std::vector<int> left;          // one after another: numbers of those that are still to be replaced
    uint64_t spare = 0;             // the same: run of a spare that is to be restarted at the end
    bool announced = false;         // at once: all were ready, and wait for TakeOver or KeepOld
    Reason failure;                 // of one that died after that
  };
  std::optional<Replacement> replacement;
  std::optional<Instant> soak_until;  // until then a fault of a worker speaks against the version that has taken over
  int64_t generation = 0;
  enum class Prepare { kNone, kRunning, kDone, kFailed, kWaiting } prepare = Prepare::kNone;
  bool prepare_overtaken = false;   // it was wanted anew while it was prepared: that is done once more
  Instant prepare_retry_at{};
  Backoff prepare_backoff;
  uint64_t next_run = 1;
  std::vector<SlotState> slots;
  ObservedState observed = ObservedState::kStopped;
  Instant since{};
  Reason reason;                    // of `observed`; empty code: nothing to say
  bool was_ready = false;           // since it was last wanted anew
  // Start attempts used up without ever being ready: what a boot calls a failure, although it is still tried.
  bool start_exhausted = false;
};

namespace event {
struct Want {                      // an administrator's wish, the boot, a flag, or the shutdown
  bool enabled = false;
  bool skipped = false;
  int64_t generation = 0;
  int workers = 1;
  bool warm_spare = false;
};
struct Close {};                   // the node shuts down: what runs goes on until it is unwanted, nothing is started any more
struct Retry {};                   // something has changed: forget backoff, quarantine and parking
struct Restart { std::vector<int> slots; };  // whose workers are to be replaced by new processes, one after another; instead of an earlier list
// Workers are to be replaced by successors, each ready before the old one goes. `at_once`: by `workers` of another version, for which
// everything is prepared; they take over when TakeOver says so. Answered by ReplaceDone or ReplaceFailed, after which all is as before.
struct Replace { bool at_once = false; int workers = 0; };
// To SuccessorsReady: from now on the others are the module's workers; within `soak` they are on trial.
struct TakeOver { Millis soak{0}; bool warm_spare = false; };
struct KeepOld { Reason reason; };    // to SuccessorsReady, or before: the replacement is given up
struct Prepared {                  // role, schema, migrations, configuration
  bool ok = false;
  bool transient = false;          // the database is away: tried again
  Reason reason;
};
struct WorkerReady { int slot = 0; uint64_t run = 0; };
struct WorkerDrained { int slot = 0; uint64_t run = 0; };       // unrouted everywhere, nothing in flight (or the drain time is up)
// `stop_notes`: of an end that was asked for, what was out of order (Stop did not answer, SIGTERM was ignored); usually empty.
struct WorkerDied {
  int slot = 0;
  uint64_t run = 0;
  ExitCause cause = ExitCause::kExit;
  std::string message;
  std::string stop_notes = {};
  std::string code = {};           // of the reason, where the cause has several
  bool orderly = false;            // exit code 0, or a signal that asks for an end: no failure for RestartWhen::kOnFailure
};
struct WorkerGone { int slot = 0; uint64_t run = 0; };          // its whole tree is gone too; after WorkerDied, always
struct WorkerHealthChanged { int slot = 0; uint64_t run = 0; WorkerHealth health = WorkerHealth::kHealthy; std::string message; };
struct WorkerReadiness { int slot = 0; uint64_t run = 0; bool ready = true; std::string message; };  // of one that serves: whether it is sent anything
struct WorkerAtFault { int slot = 0; uint64_t run = 0; std::string message; };  // it breaks its contract and serves on: DEGRADED for a while
struct WorkerFloods { int slot = 0; uint64_t run = 0; std::string message; };   // lines of its log are dropped: DEGRADED while they are
struct Tick {};                    // a time asked for by Wake has come
}  // namespace event
using Event = std::variant<event::Want, event::Close, event::Retry, event::Restart, event::Replace, event::TakeOver, event::KeepOld,
                           event::Prepared, event::WorkerReady, event::WorkerDrained, event::WorkerDied, event::WorkerGone,
                           event::WorkerHealthChanged, event::WorkerReadiness, event::WorkerAtFault, event::WorkerFloods, event::Tick>;

namespace action {
struct Prepare {};
struct StartWorker { int slot = 0; uint64_t run = 0; int number = 0; bool incoming = false; };  // incoming: of the version that is to take over
struct Publish {};                                      // ready workers, the spare, StartsNow() or the module's presence have changed
struct DrainWorker { int slot = 0; uint64_t run = 0; };  // after the Publish without it; answered by WorkerDrained
struct StopWorker { int slot = 0; uint64_t run = 0; };   // answered by WorkerDied and WorkerGone
struct Wake { Instant at; };                            // the earliest time at which Tick is due; replaces an earlier one
struct Report {};                                       // observed state, reason or Settled() has changed
struct SuccessorsReady {};                              // of another version: answered by TakeOver or KeepOld
struct ReplaceDone {};
struct ReplaceFailed { Reason reason; };                // what was there before serves on
struct SoakFailed { Reason reason; };                   // the version that took over does not do well
}  // namespace action
using Action = std::variant<action::Prepare, action::StartWorker, action::Publish, action::DrainWorker, action::StopWorker, action::Wake,
                            action::Report, action::SuccessorsReady, action::ReplaceDone, action::ReplaceFailed, action::SoakFailed>;

std::vector<Action> Step(ModuleState& state, const Event& event, Instant now);

// Whether its routes exist (ready or not). False at once when it is not wanted any more.
bool Routed(const ModuleState& state);
// Whether it is to have workers from now on, so that one that leaves has others in its place.
inline bool GoesOn(const ModuleState& state) { return Routed(state) && !state.closing; }
// Whether a start is under way or follows at once, so that requests may wait for it; not while it backs off or has failed.
bool StartsNow(const ModuleState& state);
// Whether a worker has started, has taken over and is not leaving: it answers calls.
bool Serves(const SlotState& slot);
// Whether it may be listed in the Directory: it serves, and is not unready. Also when no other is left: see "Health" in supervisor/README.md.
bool Listed(const SlotState& slot);
// Whether it may be listed as the one that stands by.
bool StandsBy(const SlotState& slot);
// Whether it has started and stays: it serves, or would at once.
bool InService(const SlotState& slot);
// Whether one that is ready reports or does what it should not.
bool Unwell(const SlotState& slot);
// Neither starting nor stopping: what a boot waits for.
bool Settled(const ModuleState& state);

}  // namespace bulkhead
